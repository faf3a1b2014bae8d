//! Bytes to text.

use std::fmt;
use std::sync::Arc;

use crate::diag::{DIAGNOSTICS_MAX, Diagnostic, Diagnostics, Severity};
use crate::source::Position;

/// Why the bytes of a configuration are not a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodingError {
    /// They start with the byte order mark of another encoding, whose name it is.
    Other(&'static str),
    /// They are not valid UTF-8.
    Unknown,
}

impl fmt::Display for EncodingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EncodingError::Other(name) => write!(f, "configuration is encoded with {name} but must be utf8"),
            EncodingError::Unknown => f.write_str("unknown encoding for config"),
        }
    }
}

impl std::error::Error for EncodingError {}

/// The byte order marks of encodings that are refused by name. That of UTF-32 starts with that of UTF-16.
const OTHER_MARKS: [(&[u8], &str); 4] = [
    (&[0x00, 0x00, 0xfe, 0xff], "UTF32BigEndian"),
    (&[0xff, 0xfe, 0x00, 0x00], "UTF32LittleEndian"),
    (&[0xfe, 0xff], "UTF16BigEndian"),
    (&[0xff, 0xfe], "UTF16LittleEndian"),
];

/// Checks the bytes of a configuration source before it is parsed.
///
/// # Errors
/// They are in another encoding than UTF-8.
pub fn check_encoding(bytes: &[u8]) -> Result<&str, EncodingError> {
    if let Some((_, name)) = OTHER_MARKS.iter().find(|(mark, _)| bytes.starts_with(mark)) {
        return Err(EncodingError::Other(name));
    }
    std::str::from_utf8(bytes).map_err(|_| EncodingError::Unknown)
}

/// The text of a file that is to be formatted.
///
/// # Errors
/// A diagnostic for each byte that belongs to no character.
pub fn decode<'a>(file_name: &str, bytes: &'a [u8]) -> Result<&'a str, Diagnostics> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Ok(text);
    }
    let file: Arc<str> = file_name.into();
    let mut diagnostics = Diagnostics::new();
    let mut position = Position { line: 1, column: 1 };
    for chunk in bytes.utf8_chunks() {
        for byte in chunk.valid().bytes() {
            if byte == b'\n' {
                position = Position { line: position.line + 1, column: 1 };
            } else {
                position.column += 1;
            }
        }
        for _ in chunk.invalid() {
            if diagnostics.len() < DIAGNOSTICS_MAX {
                diagnostics.push(Diagnostic {
                    severity: Severity::Error,
                    file: Arc::clone(&file),
                    start: Some(position),
                    end: None,
                    message: "illegal UTF-8 encoding".to_owned(),
                    source: None,
                });
            }
            position.column += 1;
        }
    }
    Err(diagnostics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_utf_8() {
        let cases: [(&[u8], Result<&str, &str>); 8] = [
            (b"a = 1", Ok("a = 1")),
            (b"", Ok("")),
            (b"\xef\xbb\xbfa", Ok("\u{feff}a")),
            (b"a\xff", Err("unknown encoding for config")),
            (b"\xff\xfea\0", Err("configuration is encoded with UTF16LittleEndian but must be utf8")),
            (b"\xfe\xff\0a", Err("configuration is encoded with UTF16BigEndian but must be utf8")),
            (b"\xff\xfe\0\0a\0\0\0", Err("configuration is encoded with UTF32LittleEndian but must be utf8")),
            (b"\0\0\xfe\xff\0\0\0a", Err("configuration is encoded with UTF32BigEndian but must be utf8")),
        ];
        for (bytes, expected) in cases {
            let actual = check_encoding(bytes).map_err(|error| error.to_string());
            assert_eq!(actual, expected.map_err(str::to_owned), "{bytes:?}");
        }
    }

    #[test]
    fn each_byte_that_is_no_text_is_reported_at_its_place() {
        assert_eq!(decode("f", "é\n".as_bytes()).map_err(|_| ()), Ok("é\n"));
        let error = decode("f", b"a\n\xc3\xa9\xff b \xe4\xb8").expect_err("the bytes are no text");
        let expected = ["f:2:3", "f:2:7", "f:2:8"].map(|place| format!("{place}: illegal UTF-8 encoding"));
        assert_eq!(error.all_messages(), expected.join("; "));
    }
}
