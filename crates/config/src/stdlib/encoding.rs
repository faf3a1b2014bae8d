//! The functions of the namespace `encoding`, and `json_path`.

use std::sync::Arc;

use super::base64::{self, Alphabet};
use super::{CallError, arg, json, jsonpath, yaml};
use crate::convert::{to_bytes, to_text};
use crate::limits::TEXT_BYTES_MAX;
use crate::value::{Type, Value};

pub(super) fn from_json(args: &[Value]) -> Result<Value, CallError> {
    json::parse(&arg(args, 0, to_text)?).map_err(|error| CallError::Failed(error.to_string().into()))
}

pub(super) fn to_json(args: &[Value]) -> Result<Value, CallError> {
    if args[0].ty() != Type::Object {
        return Err(CallError::Failed("jsonEncode only supports map".into()));
    }
    let mut out = String::new();
    json::write(&args[0], &mut out).map_err(|message| CallError::Failed(message.into()))?;
    Ok(Value::string(out))
}

pub(super) fn from_yaml(args: &[Value]) -> Result<Value, CallError> {
    yaml::parse(&arg(args, 0, to_text)?).map_err(|error| CallError::Failed(error.to_string().into()))
}

pub(super) fn json_path(args: &[Value]) -> Result<Value, CallError> {
    let (text, path) = (arg(args, 0, to_text)?, arg(args, 1, to_text)?);
    let path = jsonpath::Path::parse(&path).map_err(|error| CallError::Failed(error.to_string().into()))?;
    let root = jsonpath::parse_json(&text).map_err(|error| CallError::Failed(error.to_string().into()))?;
    let found = path.find(&root).map_err(|error| CallError::Failed(error.to_string().into()))?;
    Ok(Value::array(found))
}

fn decode_base64(args: &[Value], alphabet: Alphabet) -> Result<Value, CallError> {
    let text = arg(args, 0, to_bytes)?;
    match base64::decode(&text, alphabet) {
        Ok(bytes) => Ok(Value::bytes(bytes)),
        Err(at) => Err(CallError::Failed(format!("illegal base64 data at input byte {at}").into())),
    }
}

pub(super) fn from_base64(args: &[Value]) -> Result<Value, CallError> {
    decode_base64(args, Alphabet::Standard)
}

pub(super) fn from_base64_url(args: &[Value]) -> Result<Value, CallError> {
    decode_base64(args, Alphabet::Url)
}

fn encode_base64(args: &[Value], alphabet: Alphabet) -> Result<Value, CallError> {
    let bytes = arg(args, 0, to_bytes)?;
    within_limit(bytes.len().div_ceil(3).saturating_mul(4))?;
    Ok(Value::string(base64::encode(&bytes, alphabet)))
}

pub(super) fn to_base64(args: &[Value]) -> Result<Value, CallError> {
    encode_base64(args, Alphabet::Standard)
}

pub(super) fn to_base64_url(args: &[Value]) -> Result<Value, CallError> {
    encode_base64(args, Alphabet::Url)
}

pub(super) fn url_encode(args: &[Value]) -> Result<Value, CallError> {
    let bytes = arg(args, 0, to_bytes)?;
    within_limit(bytes.len().saturating_mul(3))?;
    let mut out = String::with_capacity(bytes.len());
    for byte in bytes.iter() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(*byte)),
            b' ' => out.push('+'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    Ok(Value::string(out))
}

pub(super) fn url_decode(args: &[Value]) -> Result<Value, CallError> {
    let text = arg(args, 0, to_text)?;
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match first {
            b'+' => out.push(b' '),
            b'%' => {
                let digit = |index: usize| after.get(index).and_then(|byte| char::from(*byte).to_digit(16));
                let (Some(high), Some(low)) = (digit(0), digit(1)) else {
                    let shown = String::from_utf8_lossy(&after[..after.len().min(2)]);
                    let message = format!("invalid URL escape {}", corten_syntax::quote(&format!("%{shown}")));
                    return Err(CallError::Failed(message.into()));
                };
                out.push((high * 16 + low) as u8);
                rest = &after[2..];
            }
            byte => out.push(*byte),
        }
    }
    // What is no UTF-8 after this is replaced: text is always valid UTF-8.
    Ok(Value::string(Arc::<str>::from(String::from_utf8_lossy(&out))))
}

fn within_limit(len: usize) -> Result<(), CallError> {
    if len > TEXT_BYTES_MAX { Err(super::too_large()) } else { Ok(()) }
}
