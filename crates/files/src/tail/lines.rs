//! Where lines end.

/// A line in a buffer, without its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Where it begins.
    pub at: u32,
    /// How many bytes it has.
    pub len: u32,
}

impl Line {
    /// The bytes of the line.
    pub fn of(self, buffer: &[u8]) -> &[u8] {
        &buffer[self.at as usize..(self.at + self.len) as usize]
    }
}

/// How the end of a line is written, which depends on the encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    /// How many bytes a character has at least: 1, 2 or 4. Characters begin at multiples of it.
    pub(crate) unit: usize,
    /// The line feed; the first `unit` bytes count.
    pub(crate) feed: [u8; 4],
    /// The carriage return.
    pub(crate) carriage: [u8; 4],
}

impl Ends {
    /// Those of ASCII and of all encodings that extend it.
    pub(crate) const ASCII: Ends = Ends { unit: 1, feed: *b"\n\0\0\0", carriage: *b"\r\0\0\0" };

    /// Finds the lines in `buffer[from..end]` that end there; where the next one begins. `from` is the beginning of a
    /// character.
    pub(crate) fn split(&self, buffer: &[u8], from: usize, end: usize, lines: &mut Vec<Line>) -> usize {
        let mut start = from;
        let feed = self.feed[0];
        if self.unit == 1 {
            for at in memchr::memchr_iter(feed, &buffer[from..end]) {
                self.put(buffer, start, from + at, lines);
                start = from + at + 1;
            }
            return start;
        }
        let whole = from + (end - from) / self.unit * self.unit;
        for at in (from..whole).step_by(self.unit) {
            if buffer[at..at + self.unit] == self.feed[..self.unit] {
                self.put(buffer, start, at, lines);
                start = at + self.unit;
            }
        }
        start
    }

    /// Adds the line `buffer[start..end]`, without a carriage return at its end.
    pub(crate) fn put(&self, buffer: &[u8], start: usize, end: usize, lines: &mut Vec<Line>) {
        let mut end = end;
        if end - start >= self.unit && buffer[end - self.unit..end] == self.carriage[..self.unit] {
            end -= self.unit;
        }
        lines.push(Line { at: start as u32, len: (end - start) as u32 });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(text: &[u8], ends: Ends) -> (Vec<&[u8]>, usize) {
        let mut lines = Vec::new();
        let end = ends.split(text, 0, text.len(), &mut lines);
        (lines.into_iter().map(|line| line.of(text)).collect(), end)
    }

    #[test]
    fn lines_end_with_line_feeds_and_lose_one_carriage_return() {
        for (text, lines, end) in [
            (&b""[..], &[][..], 0),
            (b"a", &[], 0),
            (b"a\n", &[&b"a"[..]], 2),
            (b"a\r\nb", &[b"a"], 3),
            (b"a\r\r\n\n\r\n", &[b"a\r", b"", b""], 7),
            (b"\r", &[], 0),
            (b"a\rb\n", &[b"a\rb"], 4),
            (b"a\0b\nc\n", &[b"a\0b", b"c"], 6),
        ] {
            assert_eq!(split(text, Ends::ASCII), (lines.to_vec(), end), "{text:?}");
        }
    }

    #[test]
    fn characters_of_two_bytes_are_looked_at_as_such() {
        let ends = Ends { unit: 2, feed: *b"\0\n\0\0", carriage: *b"\0\r\0\0" };
        // U+0A00 and U+000A, and half a character.
        assert_eq!(split(b"\x0a\0\0\r\0\n\0a\0\n\0", ends), (vec![&b"\x0a\0"[..], b"\0a"], 10));
        // The bytes of a line feed, across two characters.
        assert_eq!(split(b"\x01\0\n\x02", ends), (vec![], 0));
    }

    proptest! {
        #[test]
        fn lines_and_their_ends_are_the_text(text in prop::collection::vec(prop::sample::select(&b"ab\r\n\0"[..]), 0..200)) {
            let (lines, end) = split(&text, Ends::ASCII);
            let expected: Vec<&[u8]> = text[..end]
                .split_inclusive(|b| *b == b'\n')
                .map(|line| line.strip_suffix(b"\n").unwrap())
                .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
                .collect();
            prop_assert_eq!(lines, expected);
            prop_assert!(!text[end..].contains(&b'\n'));
        }
    }
}
