//! Attributes in logfmt.

use corten_golang::logfmt::{push_key, push_text, push_value};
use corten_otlp::{Arena, Value};
use corten_wire::float::go_float;

/// Writes a pair behind others. A key that has nothing left without what keys must not have is left out with its value.
pub(crate) fn push(line: &mut Vec<u8>, key: &[u8], value: impl FnOnce(&mut Vec<u8>)) {
    if push_key(&[key], line) {
        value(line);
    }
}

/// Writes an attribute's value: numbers as Go prints them, and instead of lists and maps that they are not supported.
pub(crate) fn push_attribute(line: &mut Vec<u8>, arena: &Arena, value: Value) {
    match value {
        Value::Empty => line.extend_from_slice(b"null"),
        Value::Str(text) => push_text(arena.bytes(text), line),
        Value::Bytes(bytes) => push_value(arena.bytes(bytes), line),
        Value::Double(value) => line.extend_from_slice(go_float(value).as_bytes()),
        Value::Bool(_) | Value::Int(_) => arena.write_text(value, line),
        Value::List(_) | Value::Map(_) => push_text(b"unsupported value type", line),
    }
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
            ("a\u{7f}", arena.own_str("b\u{7f}"), "a=\"b\\u007f\""),
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
            push(&mut line, key.as_bytes(), |line| push_attribute(line, &arena, value));
            assert_eq!(String::from_utf8_lossy(&line), want);
        }
        let mut line = Vec::new();
        push(&mut line, b"a", |line| push_text(b"1", line));
        push(&mut line, b"", |line| push_text(b"2", line));
        push(&mut line, b"c", |line| push_text(b"3", line));
        assert_eq!(line, b"a=1 c=3");
    }
}
