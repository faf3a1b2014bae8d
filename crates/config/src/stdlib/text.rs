//! The functions of the namespace `string`.

use std::sync::Arc;

use super::{CallError, arg, too_large};
use crate::convert::{to_array, to_text};
use crate::gofmt;
use crate::limits::{ITEMS_MAX, TEXT_BYTES_MAX};
use crate::value::Value;

pub(super) fn format(args: &[Value]) -> Result<Value, CallError> {
    let format = arg(args, 0, to_text)?;
    gofmt::format(&format, &args[1..]).map(Value::string).map_err(|_| too_large())
}

pub(super) fn join(args: &[Value]) -> Result<Value, CallError> {
    let items = arg(args, 0, |list| {
        let items = to_array(list)?;
        items.iter().enumerate().map(|(index, item)| to_text(item).map_err(|error| error.in_index(index))).collect()
    });
    let items: Vec<Arc<str>> = items?;
    let separator = arg(args, 1, to_text)?;
    let len = items.iter().map(|item| item.len()).sum::<usize>()
        + separator.len().saturating_mul(items.len().saturating_sub(1));
    if len > TEXT_BYTES_MAX {
        return Err(too_large());
    }
    Ok(Value::string(items.join(&*separator)))
}

pub(super) fn replace(args: &[Value]) -> Result<Value, CallError> {
    let (text, old, new) = (arg(args, 0, to_text)?, arg(args, 1, to_text)?, arg(args, 2, to_text)?);
    let count = text.matches(&*old).count();
    let len = (text.len() - count * old.len()).saturating_add(count.saturating_mul(new.len()));
    if len > TEXT_BYTES_MAX {
        return Err(too_large());
    }
    Ok(Value::string(text.replace(&*old, &new)))
}

pub(super) fn split(args: &[Value]) -> Result<Value, CallError> {
    let (text, separator) = (arg(args, 0, to_text)?, arg(args, 1, to_text)?);
    let parts: Vec<Value> = if separator.is_empty() {
        text.chars().take(ITEMS_MAX + 1).map(|c| Value::string(c.encode_utf8(&mut [0; 4]) as &str)).collect()
    } else {
        text.split(&*separator).take(ITEMS_MAX + 1).map(Value::from).collect()
    };
    if parts.len() > ITEMS_MAX {
        return Err(CallError::Failed(format!("would make an array of more than {ITEMS_MAX} elements").into()));
    }
    Ok(Value::array(parts))
}

pub(super) fn to_lower(args: &[Value]) -> Result<Value, CallError> {
    let text = arg(args, 0, to_text)?;
    // Character by character: the one that becomes two, `İ`, becomes the first of them, and a sigma is the same
    // everywhere.
    Ok(Value::string(text.chars().filter_map(|c| c.to_lowercase().next()).collect::<String>()))
}

pub(super) fn to_upper(args: &[Value]) -> Result<Value, CallError> {
    let text = arg(args, 0, to_text)?;
    Ok(Value::string(text.chars().map(simple_upper).collect::<String>()))
}

/// The upper case of a character, where it is one character. Those that become several, like `ß`, stay, but for the
/// Greek letters with an iota below, which have a form of one character too.
fn simple_upper(character: char) -> char {
    let mut upper = character.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(only), None) => only,
        _ => {
            let code = u32::from(character);
            let offset = match code {
                0x1f80..=0x1f87 | 0x1f90..=0x1f97 | 0x1fa0..=0x1fa7 => 8,
                0x1fb3 | 0x1fc3 | 0x1ff3 => 9,
                _ => 0,
            };
            char::from_u32(code + offset).unwrap_or(character)
        }
    }
}

pub(super) fn trim(args: &[Value]) -> Result<Value, CallError> {
    let (text, characters) = (arg(args, 0, to_text)?, arg(args, 1, to_text)?);
    Ok(Value::from(text.trim_matches(|c| characters.contains(c))))
}

pub(super) fn trim_prefix(args: &[Value]) -> Result<Value, CallError> {
    let (text, prefix) = (arg(args, 0, to_text)?, arg(args, 1, to_text)?);
    Ok(Value::from(text.strip_prefix(&*prefix).unwrap_or(&text)))
}

pub(super) fn trim_suffix(args: &[Value]) -> Result<Value, CallError> {
    let (text, suffix) = (arg(args, 0, to_text)?, arg(args, 1, to_text)?);
    Ok(Value::from(text.strip_suffix(&*suffix).unwrap_or(&text)))
}

pub(super) fn trim_space(args: &[Value]) -> Result<Value, CallError> {
    let text = arg(args, 0, to_text)?;
    Ok(Value::from(text.trim()))
}
