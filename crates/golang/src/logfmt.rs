//! Logfmt, `key=value key="a value"`, as the library `go-logfmt` writes it.

use crate::text::{chars, push};

/// Whether a character may not stand in a key, nor in a value without quotes.
fn is_special(character: char) -> bool {
    character <= ' ' || matches!(character, '=' | '"' | '\x7f' | char::REPLACEMENT_CHARACTER)
}

/// Writes a key, which parts follow each other in, and the sign behind it; before it a space, unless it is the first of
/// `line`. Where nothing is left of it without what may not stand in a key, nothing is written, and it says so.
#[must_use]
pub fn push_key(parts: &[&[u8]], line: &mut Vec<u8>) -> bool {
    let begin = line.len();
    if begin > 0 {
        line.push(b' ');
    }
    let start = line.len();
    for part in parts {
        chars(part).map(|(_, c, _)| c).filter(|c| !is_special(*c)).for_each(|c| push(line, c));
    }
    if line.len() == start {
        line.truncate(begin);
        return false;
    }
    line.push(b'=');
    true
}

/// Writes a value, in quotes where that is necessary.
pub fn push_value(value: &[u8], line: &mut Vec<u8>) {
    if !chars(value).any(|(_, c, _)| is_special(c)) {
        line.extend_from_slice(value);
        return;
    }
    line.push(b'"');
    for (_, character, _) in chars(value) {
        match character {
            '"' | '\\' => line.extend_from_slice(&[b'\\', character as u8]),
            '\n' => line.extend_from_slice(b"\\n"),
            '\r' => line.extend_from_slice(b"\\r"),
            '\t' => line.extend_from_slice(b"\\t"),
            '\0'..' ' | '\x7f' | char::REPLACEMENT_CHARACTER => {
                line.extend_from_slice(b"\\u");
                crate::push_hex(&(character as u16).to_be_bytes(), line);
            }
            character => push(line, character),
        }
    }
    line.push(b'"');
}

/// Writes a text as a value. One that says `null` has quotes: it would be no value without.
pub fn push_text(text: &[u8], line: &mut Vec<u8>) {
    match text {
        b"null" => line.extend_from_slice(b"\"null\""),
        text => push_value(text, line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_quotes_where_they_need_them() {
        for (text, written) in [
            (&b"x"[..], "x"),
            (b"", ""),
            (b"a\\b", "a\\b"),
            (b"x y", "\"x y\""),
            (b"q\"\\\n\r\t\x01=\xc3\xa9", "\"q\\\"\\\\\\n\\r\\t\\u0001=\u{e9}\""),
            (b"\x7f", "\"\\u007f\""),
            (b"a\xe2\x82b\xef\xbf\xbd", "\"a\\ufffd\\ufffdb\\ufffd\""),
            (b"null", "\"null\""),
        ] {
            let mut line = Vec::new();
            push_text(text, &mut line);
            assert_eq!(std::str::from_utf8(&line), Ok(written));
        }
    }

    #[test]
    fn a_key_of_which_nothing_is_left_is_not_written() {
        let mut line = Vec::new();
        for (parts, is_written) in
            [(&[&b" a="[..], b"\x7f\xff\"b"][..], true), (&[b" =\"\x7f\xff"], false), (&[], false), (&[b"c"], true)]
        {
            assert_eq!(push_key(parts, &mut line), is_written);
        }
        assert_eq!(line, b"ab= c=");
    }
}
