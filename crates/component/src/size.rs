//! Sizes in bytes, as the reference reads them.

use corten_config::decode::TextType;
use corten_config::decode_text;

/// A number of bytes: `1048576`, `1MiB` or, with the same meaning, `1MB`. Several add up: `1MB512KB`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByteSize(u64);

/// Both spellings count in powers of two, as they do in the reference.
const UNITS: [(&str, u32); 18] = [
    ("KiB", 10),
    ("MiB", 20),
    ("GiB", 30),
    ("TiB", 40),
    ("PiB", 50),
    ("EiB", 60),
    ("KB", 10),
    ("MB", 20),
    ("GB", 30),
    ("TB", 40),
    ("PB", 50),
    ("EB", 60),
    ("K", 10),
    ("M", 20),
    ("G", 30),
    ("T", 40),
    ("B", 0),
    ("", 0),
];

impl ByteSize {
    /// How many bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl TextType for ByteSize {
    fn parse(text: &str) -> Result<Self, String> {
        let invalid = || format!("invalid size {text:?}: a size is a number with a unit such as 10MiB");
        let trimmed = text.trim();
        let mut rest = trimmed.strip_prefix('+').unwrap_or(trimmed);
        if rest.is_empty() {
            return Err(invalid());
        }
        let is_digit = |c: char| c == '.' || c.is_ascii_digit();
        let mut bytes = 0.0;
        while !rest.is_empty() {
            let (number, behind) = rest.split_at(rest.find(|c| !is_digit(c)).unwrap_or(rest.len()));
            let (unit, behind) = behind.split_at(behind.find(is_digit).unwrap_or(behind.len()));
            let number: f64 = number.parse().map_err(|_| invalid())?;
            let (_, shift) = UNITS.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(invalid)?;
            bytes += number * (1u64 << shift) as f64;
            rest = behind;
        }
        // A size is far below what a float holds exactly, or it is no limit that anybody means.
        if !(0.0..9.2e18).contains(&bytes) {
            return Err(invalid());
        }
        Ok(ByteSize(bytes as u64))
    }

    fn text(&self) -> String {
        let unit = UNITS[..6].iter().rev().find(|(_, shift)| self.0 > 0 && self.0.is_multiple_of(1 << shift));
        match unit {
            Some((name, shift)) => format!("{}{name}", self.0 >> shift),
            None => self.0.to_string(),
        }
    }

    fn null() -> Option<Self> {
        Some(ByteSize(0))
    }
}

decode_text!(ByteSize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        for (text, want) in [
            ("0", Some(0)),
            ("1024", Some(1024)),
            ("10MB", Some(10 << 20)),
            ("1.5KiB", Some(1536)),
            ("2G", Some(2 << 30)),
            ("7B", Some(7)),
            ("1MB512KB", Some(1536 << 10)),
            ("+1KB512B", Some(1536)),
            (".5MB", Some(512 << 10)),
            ("5.KB", Some(5 << 10)),
            ("10 MB", Some(10 << 20)),
        ] {
            assert_eq!(ByteSize::parse(text).ok().map(ByteSize::bytes), want, "{text}");
        }
        for text in ["", "MB", "-1", "1XB", "nan", "1e30", "infGB", "+", ".", "1.2.3", "1MBx", "16EB", "1MB-1KB"] {
            assert!(ByteSize::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_size_is_written_as_it_is_read() {
        for text in ["0", "7", "10MiB", "1KiB", "3GiB"] {
            assert_eq!(ByteSize::parse(text).unwrap().text(), text);
        }
    }
}
