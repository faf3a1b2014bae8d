//! JSON as Go writes it: keys in the order of their bytes, and nothing that means something to HTML.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use corten_golang::json::{self, Form};
use corten_otlp::{Arena, Value};
use corten_wire::float::go_float;

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
        Value::Str(text) => push_string(arena.bytes(text), out),
        Value::Bytes(bytes) if bytes.is_empty() => out.extend_from_slice(b"null"),
        Value::Bytes(bytes) => {
            out.push(b'"');
            out.extend_from_slice(STANDARD.encode(arena.bytes(bytes)).as_bytes());
            out.push(b'"');
        }
        Value::Double(double) if !double.is_finite() => {
            return Err(format!("json: unsupported value: {}", go_float(double)));
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
        push_string(key, out);
        out.push(b':');
        match value {
            Shown::Value(value) => write(arena, *value, out)?,
            Shown::Text(text) => push_string(text.as_bytes(), out),
        }
    }
    out.push(b'}');
    Ok(())
}

/// Writes a text.
pub(super) fn push_string(text: &[u8], out: &mut Vec<u8>) {
    json::push_string(text, Form::HTML, out);
}
