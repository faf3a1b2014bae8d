//! JSON as Go writes it: keys in the order of their bytes, and nothing that means something to HTML.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use corten_otlp::{Arena, Value};
use corten_wire::float::push_go_float;

/// The value of an attribute: one of a record's, or a text that is as good as one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shown {
    /// One of a record's.
    Value(Value),
    /// A text.
    Text(&'static str),
}

/// Writes a value.
///
/// # Errors
///
/// A number that JSON does not have.
pub(super) fn write(arena: &Arena, value: Value, out: &mut Vec<u8>) -> Result<(), String> {
    match value {
        Value::Str(text) => write_string(arena.bytes(text), out),
        Value::Bytes(bytes) if bytes.is_empty() => out.extend_from_slice(b"null"),
        Value::Bytes(bytes) => {
            out.push(b'"');
            out.extend_from_slice(STANDARD.encode(arena.bytes(bytes)).as_bytes());
            out.push(b'"');
        }
        Value::Double(double) if !double.is_finite() => {
            return Err(format!("json: unsupported value: {}", double_text(double)));
        }
        Value::List(list) => {
            out.push(b'[');
            for (at, value) in arena.values(list).iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write(arena, *value, out)?;
            }
            out.push(b']');
        }
        Value::Map(map) => {
            let pairs = arena.pairs(map).iter();
            write_object(arena, pairs.map(|pair| (arena.bytes(pair.key), Shown::Value(pair.value))).collect(), out)?;
        }
        other => arena.write_json(other, out),
    }
    Ok(())
}

/// Writes attributes. Of equal keys the last one counts.
///
/// # Errors
///
/// As [`write`].
pub(super) fn write_object(arena: &Arena, mut pairs: Vec<(&[u8], Shown)>, out: &mut Vec<u8>) -> Result<(), String> {
    // The sort is stable: the last of a key stays the last.
    pairs.sort_by_key(|pair| pair.0);
    out.push(b'{');
    let mut first = true;
    for (at, (key, value)) in pairs.iter().enumerate() {
        if pairs.get(at + 1).is_some_and(|next| next.0 == *key) {
            continue;
        }
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        write_string(key, out);
        out.push(b':');
        match value {
            Shown::Value(value) => write(arena, *value, out)?,
            Shown::Text(text) => write_string(text.as_bytes(), out),
        }
    }
    out.push(b'}');
    Ok(())
}

/// Writes a text.
pub(super) fn write_string(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for chunk in bytes.utf8_chunks() {
        write_valid(chunk.valid(), out);
        // Go replaces byte by byte.
        chunk.invalid().iter().for_each(|_| out.extend_from_slice(b"\\ufffd"));
    }
    out.push(b'"');
}

fn write_valid(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    let mut written = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let (escape, len): (&[u8], usize) = match byte {
            b'"' => (b"\\\"", 1),
            b'\\' => (b"\\\\", 1),
            b'\n' => (b"\\n", 1),
            b'\r' => (b"\\r", 1),
            b'\t' => (b"\\t", 1),
            8 => (b"\\b", 1),
            12 => (b"\\f", 1),
            b'<' => (b"\\u003c", 1),
            b'>' => (b"\\u003e", 1),
            b'&' => (b"\\u0026", 1),
            0..0x20 => (b"", 1),
            0xe2 if bytes[at..].starts_with("\u{2028}".as_bytes()) => (b"\\u2028", 3),
            0xe2 if bytes[at..].starts_with("\u{2029}".as_bytes()) => (b"\\u2029", 3),
            _ => continue,
        };
        out.extend_from_slice(&bytes[written..at]);
        if escape.is_empty() {
            out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
        } else {
            out.extend_from_slice(escape);
        }
        written = at + len;
    }
    out.extend_from_slice(&bytes[written..]);
}

/// A number as Go shows it.
pub(super) fn double_text(value: f64) -> String {
    let mut text = String::new();
    match value {
        value if value.is_nan() => text.push_str("NaN"),
        f64::INFINITY => text.push_str("+Inf"),
        f64::NEG_INFINITY => text.push_str("-Inf"),
        value => push_go_float(&mut text, value),
    }
    text
}
