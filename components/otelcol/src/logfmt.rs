//! Lines of keys and values, as `go-logfmt` writes them.

use corten_otlp::{Arena, Value};
use corten_wire::float::push_go_float;

/// Writes a pair behind others. A key that has nothing left without what keys must not have is left out with its value.
pub(crate) fn push(line: &mut Vec<u8>, key: &[u8], value: impl FnOnce(&mut Vec<u8>)) {
    let begin = line.len();
    if begin > 0 {
        line.push(b' ');
    }
    let before = line.len();
    for chunk in key.utf8_chunks() {
        for char in chunk.valid().chars().filter(|char| !is_special(*char)) {
            line.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    if line.len() == before {
        line.truncate(begin);
        return;
    }
    line.push(b'=');
    value(line);
}

/// Writes an attribute's value: numbers as Go prints them, and instead of lists and maps that they are not supported.
pub(crate) fn push_value(line: &mut Vec<u8>, arena: &Arena, value: Value) {
    match value {
        Value::Empty => line.extend_from_slice(b"null"),
        Value::Str(text) => push_text(line, arena.bytes(text)),
        Value::Bytes(bytes) => push_quoted_if(line, arena.bytes(bytes)),
        Value::Double(value) if value.is_finite() => {
            let mut text = String::new();
            push_go_float(&mut text, value);
            line.extend_from_slice(text.as_bytes());
        }
        Value::Double(value) if value.is_nan() => line.extend_from_slice(b"NaN"),
        Value::Double(value) => line.extend_from_slice(if value > 0.0 { b"+Inf" } else { b"-Inf" }),
        Value::Bool(_) | Value::Int(_) => arena.write_text(value, line),
        Value::List(_) | Value::Map(_) => push_text(line, b"unsupported value type"),
    }
}

/// Writes a text, in quotes where it needs them.
pub(crate) fn push_text(line: &mut Vec<u8>, text: &[u8]) {
    if text == b"null" {
        // Without quotes it would be no value.
        line.extend_from_slice(b"\"null\"");
    } else {
        push_quoted_if(line, text);
    }
}

fn is_special(char: char) -> bool {
    char <= ' ' || matches!(char, '=' | '"' | char::REPLACEMENT_CHARACTER)
}

fn push_quoted_if(line: &mut Vec<u8>, text: &[u8]) {
    let is_plain = |text: &str| !text.chars().any(is_special);
    match std::str::from_utf8(text) {
        Ok(plain) if is_plain(plain) => line.extend_from_slice(text),
        _ => push_quoted(line, text),
    }
}

fn push_quoted(line: &mut Vec<u8>, text: &[u8]) {
    const UNREADABLE: &[u8] = b"\\ufffd";
    line.push(b'"');
    for chunk in text.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                '\\' | '"' => line.extend([b'\\', char as u8]),
                '\n' => line.extend_from_slice(b"\\n"),
                '\r' => line.extend_from_slice(b"\\r"),
                '\t' => line.extend_from_slice(b"\\t"),
                char if char < ' ' => line.extend_from_slice(format!("\\u{:04x}", u32::from(char)).as_bytes()),
                char::REPLACEMENT_CHARACTER => line.extend_from_slice(UNREADABLE),
                char => line.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        for _ in chunk.invalid() {
            line.extend_from_slice(UNREADABLE);
        }
    }
    line.push(b'"');
}

#[cfg(test)]
mod tests {
    use corten_otlp::Map;

    use super::*;

    #[test]
    fn lines_are_those_of_go_logfmt() {
        let mut arena = Arena::default();
        let bytes = Value::Bytes(arena.own(b"a\xffb"));
        let map = Value::Map(Map::default());
        for (key, value, want) in [
            ("a", arena.own_str("x"), "a=x"),
            ("a", arena.own_str(""), "a="),
            ("a b=\"c\"", arena.own_str("x y"), "abc=\"x y\""),
            ("a", arena.own_str("null"), "a=\"null\""),
            ("a", Value::Empty, "a=null"),
            ("a", arena.own_str("q\"\\\n\t\u{1}=\u{e9}"), "a=\"q\\\"\\\\\\n\\t\\u0001=\u{e9}\""),
            ("a", arena.own_str("back\\slash"), "a=back\\slash"),
            ("a", Value::Bool(true), "a=true"),
            ("a", Value::Int(-7), "a=-7"),
            ("a", Value::Double(0.1), "a=0.1"),
            ("a", Value::Double(1e21), "a=1e+21"),
            ("a", Value::Double(1e6), "a=1e+06"),
            ("a", Value::Double(f64::NAN), "a=NaN"),
            ("a", Value::Double(f64::INFINITY), "a=+Inf"),
            ("a", bytes, "a=\"a\\ufffdb\""),
            ("a", map, "a=\"unsupported value type\""),
            (" =", Value::Int(1), ""),
        ] {
            let mut line = Vec::new();
            push(&mut line, key.as_bytes(), |line| push_value(line, &arena, value));
            assert_eq!(String::from_utf8_lossy(&line), want);
        }
        let mut line = Vec::new();
        push(&mut line, b"a", |line| push_text(line, b"1"));
        push(&mut line, b"", |line| push_text(line, b"2"));
        push(&mut line, b"c", |line| push_text(line, b"3"));
        assert_eq!(line, b"a=1 c=3");
    }
}
