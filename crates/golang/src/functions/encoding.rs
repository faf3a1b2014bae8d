//! JSON, base 64 and base 32.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::Type::Text;
use super::json::{Style, read, reader, write, writer};
use super::{Function, any, function, text};
use crate::template::Value;

const PLAIN: Style = Style { html: true, pretty: false };
const PRETTY: Style = Style { html: true, pretty: true };
const RAW: Style = Style { html: false, pretty: false };

pub(super) const FUNCTIONS: &[Function] = &[
    function("b32dec", &[Text], |_, args| Ok(decoded(base32(text(args, 0)), "base32"))),
    function("b32enc", &[Text], |_, args| Ok(Value::from(to_base32(text(args, 0))))),
    function("b64dec", &[Text], |_, args| Ok(decoded(base64(text(args, 0)), "base64"))),
    function("b64enc", &[Text], |_, args| Ok(Value::from(BASE64_STANDARD.encode(text(args, 0))))),
    // What cannot be read is nil; a number that is too large is nil in its place.
    reader("fromJson", |exec, args| Ok(read(exec, text(args, 0)).map_or(Value::Nil, |(value, _)| value))),
    reader("mustFromJson", |exec, args| match read(exec, text(args, 0))? {
        (_, true) => Err("json: cannot unmarshal number into Go value of type float64".to_owned()),
        (value, false) => Ok(value),
    }),
    writer("mustToJson", |_, args| write(any(args, 0), PLAIN).map(Value::from)),
    writer("mustToPrettyJson", |_, args| write(any(args, 0), PRETTY).map(Value::from)),
    writer("mustToRawJson", |_, args| write(any(args, 0), RAW).map(Value::from)),
    writer("toJson", |_, args| Ok(Value::from(write(any(args, 0), PLAIN).unwrap_or_default()))),
    writer("toPrettyJson", |_, args| Ok(Value::from(write(any(args, 0), PRETTY).unwrap_or_default()))),
    writer("toRawJson", |_, args| write(any(args, 0), RAW).map(Value::from)),
];

/// What was decoded, or the error as a text.
fn decoded(result: Result<Vec<u8>, usize>, name: &str) -> Value {
    match result {
        Ok(bytes) => Value::from(bytes),
        Err(place) => Value::from(format!("illegal {name} data at input byte {place}")),
    }
}

fn is_break(byte: u8) -> bool {
    byte == b'\r' || byte == b'\n'
}

/// Decodes; line breaks do not count. The error is the place of what is wrong.
pub(super) fn base64(text: &[u8]) -> Result<Vec<u8>, usize> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0u32, 0usize);
    let mut at = 0;
    let skip = |at: &mut usize| {
        while text.get(*at).is_some_and(|byte| is_break(*byte)) {
            *at += 1;
        }
    };
    loop {
        let Some(byte) = text.get(at).copied() else {
            return if count == 0 { Ok(out) } else { Err(at - count) };
        };
        at += 1;
        if is_break(byte) {
            continue;
        }
        if let Some(value) = value(byte) {
            bits = bits << 6 | u32::from(value);
            count += 1;
            if count == 4 {
                out.extend_from_slice(&bits.to_be_bytes()[1..]);
                (bits, count) = (0, 0);
            }
            continue;
        }
        if byte != b'=' || count < 2 {
            return Err(at - 1);
        }
        if count == 2 {
            skip(&mut at);
            match text.get(at) {
                None => return Err(text.len()),
                Some(b'=') => at += 1,
                Some(_) => return Err(at - 1),
            }
        }
        skip(&mut at);
        if at < text.len() {
            return Err(at);
        }
        let bytes = (bits << (6 * (4 - count))).to_be_bytes();
        out.extend_from_slice(&bytes[1..count]);
        return Ok(out);
    }
}

const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

fn to_base32(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(5) * 8);
    for group in bytes.chunks(5) {
        let bits = (0..5).fold(0u64, |bits, index| bits << 8 | u64::from(*group.get(index).unwrap_or(&0)));
        let shown = (group.len() * 8).div_ceil(5);
        for index in 0..8 {
            let digit = BASE32[(bits >> (35 - 5 * index) & 31) as usize];
            out.push(if index < shown { char::from(digit) } else { '=' });
        }
    }
    out
}

/// Decodes; line breaks do not count. The error is the place of what is wrong, among what counts.
fn base32(text: &[u8]) -> Result<Vec<u8>, usize> {
    let text: Vec<u8> = text.iter().copied().filter(|byte| !is_break(*byte)).collect();
    let mut out = Vec::with_capacity(text.len() / 8 * 5);
    let mut at = 0;
    while at < text.len() {
        let start = at;
        let (mut bits, mut count, mut end) = (0u64, 0, false);
        while count < 8 {
            let Some(byte) = text.get(at).copied() else { return Err(at - count) };
            at += 1;
            let left = text.len() - at;
            if byte == b'=' && count >= 2 && left < 8 {
                if left + count < 7 {
                    return Err(text.len());
                }
                for offset in 0..7 - count {
                    if text.get(at + offset).is_some_and(|byte| *byte != b'=') {
                        return Err((at + offset).saturating_sub(1));
                    }
                }
                if matches!(count, 1 | 3 | 6) {
                    return Err(at - 1);
                }
                end = true;
                break;
            }
            let Some(digit) = BASE32.iter().position(|known| *known == byte) else { return Err(at - 1) };
            bits = bits << 5 | digit as u64;
            count += 1;
        }
        debug_assert!(at > start);
        let bytes = (bits << (5 * (8 - count))).to_be_bytes();
        out.extend_from_slice(&bytes[3..3 + count * 5 / 8]);
        if end {
            break;
        }
    }
    Ok(out)
}
