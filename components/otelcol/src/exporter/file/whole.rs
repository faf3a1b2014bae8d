//! What of a file is whole messages. The process may be killed, or the machine stop, while a message is written; what is
//! appended behind the part that is there could not be told from it.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

/// How messages stand in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// Each is a line.
    Lines,
    /// Each stands behind its length, as protocol buffers.
    Messages,
    /// Each stands behind its length, packed with zstd.
    Packed,
}

/// What stands at the end of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// A whole message, or nothing.
    Whole,
    /// Behind so many bytes, a part of a message.
    Torn(u64),
    /// Behind so many bytes, something that no message begins with, or anything at all in a file of something else.
    Foreign(u64),
}

/// What the first byte of the beginning of a length is below, if it is one: no message has 256 MiB.
const LENGTH_FIRST_END: u8 = 0x10;
/// How a frame of zstd begins.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// How each part of a message begins: the first field, with a length.
const PART: u8 = 0x0a;

impl Framing {
    /// What stands at the end of a file that is so long.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub(super) fn end(self, mut file: &File, len_bytes: u64) -> io::Result<End> {
        if len_bytes == 0 {
            return Ok(End::Whole);
        }
        if self == Framing::Lines {
            let mut last = [0];
            file.seek(SeekFrom::Start(len_bytes - 1))?;
            file.read_exact(&mut last)?;
            return Ok(if last == *b"\n" { End::Whole } else { End::Torn(len_bytes) });
        }
        let mut file = Within { file: BufReader::with_capacity(4 << 10, file), at: 0, end: len_bytes };
        file.file.seek(SeekFrom::Start(0))?;
        // A length of nothing is skipped, and does not count as a message: that is how space that was never written reads.
        let mut whole_bytes = 0;
        // Where something else stands between lengths, nothing is known of what is behind the last of them.
        let mut are_messages = true;
        while let Some(length) = file.take::<4>()? {
            let length = u64::from(u32::from_be_bytes(length));
            if length > file.left() {
                let torn = are_messages && self.may_begin(&mut file, length)?;
                return Ok(if torn { End::Torn(whole_bytes) } else { End::Foreign(whole_bytes) });
            }
            let end = file.at + length;
            are_messages = are_messages && (length == 0 || self.begins(&mut file, length)?);
            file.skip(end - file.at)?;
            if length > 0 {
                whole_bytes = end;
            }
        }
        let may_be_length = file.take()?.is_none_or(|[first]| first < LENGTH_FIRST_END);
        Ok(match are_messages && may_be_length {
            _ if whole_bytes == len_bytes => End::Whole,
            true => End::Torn(whole_bytes),
            false => End::Foreign(whole_bytes),
        })
    }

    /// Whether so many bytes, which there are, begin as a message does. It reads no more of them than that.
    fn begins(self, file: &mut Within<impl Read + Seek>, length: u64) -> io::Result<bool> {
        let begin: &[u8] = if self == Framing::Packed { &ZSTD } else { &[PART] };
        if length < begin.len() as u64 {
            return Ok(false);
        }
        for byte in begin {
            if file.take()? != Some([*byte]) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether what is left of a file may be the beginning of a message of a length.
    fn may_begin(self, file: &mut Within<impl Read + Seek>, length: u64) -> io::Result<bool> {
        let end = file.at + length;
        if self == Framing::Packed {
            for byte in ZSTD {
                match file.take()? {
                    None => break,
                    Some([found]) if found == byte => {}
                    Some(_) => return Ok(false),
                }
            }
            return Ok(true);
        }
        while let Some([tag]) = file.take()? {
            if tag != PART {
                return Ok(false);
            }
            let mut part = 0;
            for shift in (0..35).step_by(7) {
                let Some([byte]) = file.take()? else { return Ok(true) };
                part |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    break;
                }
            }
            if part > end.saturating_sub(file.at) {
                return Ok(false);
            }
            file.skip(part.min(file.left()))?;
        }
        Ok(true)
    }
}

/// A file up to an end.
struct Within<R> {
    file: BufReader<R>,
    at: u64,
    end: u64,
}

impl<R: Read + Seek> Within<R> {
    fn left(&self) -> u64 {
        self.end - self.at
    }

    /// The next bytes, if there are as many.
    fn take<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        if self.left() < N as u64 {
            return Ok(None);
        }
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes)?;
        self.at += N as u64;
        Ok(Some(bytes))
    }

    /// Goes on behind so many bytes, which there are.
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        self.at += bytes;
        // What is in the buffer is not read again.
        self.file.seek_relative(i64::try_from(bytes).map_err(io::Error::other)?)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn end(framing: Framing, bytes: &[u8]) -> End {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        framing.end(&file, bytes.len() as u64).unwrap()
    }

    fn framed(message: &[u8]) -> Vec<u8> {
        [&u32::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
    }

    #[test]
    fn what_is_whole_is_told_from_what_is_torn_and_from_what_is_something_else() {
        let one = framed(b"\x0a\x03abc");
        let two = framed(b"\x0a\x01x\x0a\x01y");
        let both = [&one[..], &two].concat();
        let at = one.len() as u64;
        for (bytes, want) in [
            (&b""[..], End::Whole),
            (&both, End::Whole),
            (&[0; 3], End::Torn(0)),
            (&[&one[..], &[0; 8192]].concat(), End::Torn(at)),
            (&[&one[..], &[0; 8], &two].concat(), End::Whole),
            (&[&one[..], b"\x00\x00\x00\x09\x0a\x03abc\x0a"].concat(), End::Torn(at)),
            // The part is longer than its message, or has no end.
            (&[&one[..], b"\x00\x00\x00\x09\x0a\x08abc"].concat(), End::Foreign(at)),
            (&[&one[..], b"\x00\x00\xff\x09\x0a\xff\xff\xff\xff\xff"].concat(), End::Foreign(at)),
            (&[&one[..], b"\x00\x00\x00\x09\x0a\x03abc\x12"].concat(), End::Foreign(at)),
            (b"{\"resourceLogs\":[]}\n", End::Foreign(0)),
            (b"old", End::Foreign(0)),
        ] {
            assert_eq!(end(Framing::Messages, bytes), want, "{bytes:?}");
        }
        for cut in one.len()..both.len() {
            let want = if cut == one.len() { End::Whole } else { End::Torn(at) };
            assert_eq!(end(Framing::Messages, &both[..cut]), want, "{cut}");
        }
        // What another program wrote is not cut, whatever its end looks like.
        let other = framed(b"{\"a\":1}");
        let at = other.len() as u64;
        for more in [&b"\x00\x00\x00\x09\x0a\x03ab"[..], &[0; 2], &[0; 8]] {
            assert_eq!(end(Framing::Messages, &[&other[..], more].concat()), End::Foreign(at), "{more:?}");
            let other = [&one[..], b"\0\0\0\x01\x28", more].concat();
            assert_eq!(end(Framing::Packed, &other), End::Foreign(one.len() as u64 + 5), "{more:?}");
        }
        assert_eq!(end(Framing::Packed, b"\x00\x00\x00\x09\x28\xb5"), End::Torn(0));
        assert_eq!(end(Framing::Packed, b"\x00\x00\x00\x09\x28\xb5\x2f\xfd\x00"), End::Torn(0));
        assert_eq!(end(Framing::Packed, b"\x00\x00\x00\x09\x0a\x01x"), End::Foreign(0));
    }

    proptest! {
        #[test]
        fn no_file_makes_it_panic(bytes: Vec<u8>, ends in proptest::collection::vec(0u8..20, 0..20)) {
            let short: Vec<u8> = ends.iter().flat_map(|len| framed(&vec![PART; usize::from(*len)])).chain(bytes).collect();
            for framing in [Framing::Lines, Framing::Messages, Framing::Packed] {
                if let End::Torn(at) | End::Foreign(at) = end(framing, &short) {
                    prop_assert!(at <= short.len() as u64);
                }
            }
        }
    }
}
