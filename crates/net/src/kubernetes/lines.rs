//! Lines of a body that arrives in pieces.

use bytes::{Bytes, BytesMut};

/// Cuts what arrives into lines. It holds at most one line beside the last piece.
#[derive(Debug)]
pub(super) struct Lines {
    held: BytesMut,
    /// How much of it is known to have no end of a line.
    searched: usize,
    line_bytes_max: usize,
}

/// A line is longer than it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

impl Lines {
    pub(super) fn new(line_bytes_max: usize) -> Self {
        Self { held: BytesMut::new(), searched: 0, line_bytes_max }
    }

    /// Adds a piece.
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.held.extend_from_slice(piece);
    }

    /// The next line that is not empty, without its end; `None` until more arrives.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, TooLong> {
        loop {
            let rest = self.held.get(self.searched..).unwrap_or_default();
            let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                self.searched = self.held.len();
                return if self.searched > self.line_bytes_max { Err(TooLong) } else { Ok(None) };
            };
            let end = self.searched + end;
            let line = self.held.split_to(end + 1).freeze().slice(..end);
            self.searched = 0;
            if line.len() > self.line_bytes_max {
                return Err(TooLong);
            }
            if !line.trim_ascii().is_empty() {
                return Ok(Some(line));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(lines: &mut Lines) -> Result<Vec<Bytes>, TooLong> {
        let mut found = Vec::new();
        while let Some(line) = lines.next()? {
            found.push(line);
        }
        Ok(found)
    }

    #[test]
    fn a_line_is_there_when_its_end_is() {
        let mut lines = Lines::new(4);
        lines.push(b"ab");
        assert_eq!(lines.next(), Ok(None));
        lines.push(b"cd\n\n \r\ne");
        assert_eq!(all(&mut lines), Ok(vec!["abcd".into()]));
        lines.push(b"fgh");
        assert_eq!(lines.next(), Ok(None));
        lines.push(b"i");
        assert_eq!(lines.next(), Err(TooLong));
        let mut lines = Lines::new(4);
        lines.push(b"abcde\n");
        assert_eq!(lines.next(), Err(TooLong));
    }

    proptest! {
        #[test]
        fn lines_are_the_same_however_they_arrive(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b' '), any::<u8>()], 0..200),
            cuts in proptest::collection::vec(0_usize..200, 0..20),
        ) {
            let ended = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let wanted: Vec<&[u8]> =
                bytes[..ended].split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([0, bytes.len()]).collect();
            cuts.sort_unstable();
            let (mut lines, mut found) = (Lines::new(200), Vec::new());
            for piece in cuts.windows(2) {
                lines.push(&bytes[piece[0]..piece[1]]);
                found.extend(all(&mut lines).unwrap());
            }
            prop_assert_eq!(found, wanted);
        }

        #[test]
        fn no_line_is_longer_than_it_may_be(pieces: Vec<Vec<u8>>, line_bytes_max in 0_usize..50) {
            let mut lines = Lines::new(line_bytes_max);
            for piece in pieces {
                lines.push(&piece);
                match all(&mut lines) {
                    Ok(found) => prop_assert!(found.iter().all(|line| line.len() <= line_bytes_max)),
                    Err(TooLong) => return Ok(()),
                }
                prop_assert!(lines.held.len() <= line_bytes_max);
            }
        }
    }
}
