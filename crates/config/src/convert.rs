//! Conversion of values to what Rust code works with, by the rules of the reference.
//!
//! `null` converts to the zero value of whatever is asked for: `false`, `0`, `""`, no elements. Strings and numbers
//! convert to each other; booleans to and from nothing. Secrets never become strings.

use std::sync::Arc;
use std::time::Duration;

use crate::duration;
use crate::error::ValueError;
use crate::number::Number;
use crate::value::{Data, Object, OptionalSecret, Type, Value};

/// The text of the refusal to make a string of a secret.
pub const SECRET_INTO_STRING: &str = "secrets may not be converted into strings";

/// A type that a value converts to.
pub trait FromValue: Sized {
    /// Converts, or says which part of the value does not fit.
    fn from_value(value: &Value) -> Result<Self, ValueError>;
}

/// A boolean. Nothing else converts to one.
pub fn to_bool(value: &Value) -> Result<bool, ValueError> {
    match &value.data {
        Data::Null => Ok(false),
        Data::Bool(value) => Ok(*value),
        _ => Err(ValueError::expected(Type::Bool, value)),
    }
}

/// A number, of the kind that the value has. Strings are read as numbers: with a leading `-` as a signed integer, with
/// any of `.eE` as a float, otherwise as an unsigned integer.
pub fn to_number(value: &Value) -> Result<Number, ValueError> {
    let text = match &value.data {
        Data::Null => return Ok(Number::Int(0)),
        Data::Number(number) => return Ok(*number),
        Data::String(text) => text,
        Data::OptionalSecret(OptionalSecret { text, is_secret: false }) => text,
        _ => return Err(ValueError::expected(Type::Number, value)),
    };
    parse_number(text).ok_or_else(|| ValueError::expected(Type::Number, value))
}

/// Text. Numbers are printed in decimal without an exponent; bytes are read as UTF-8, what is none of it replaced.
pub fn to_text(value: &Value) -> Result<Arc<str>, ValueError> {
    match &value.data {
        Data::Null => Ok(Arc::from("")),
        Data::String(text) => Ok(Arc::clone(text)),
        Data::Number(number) => Ok(number.to_string().into()),
        Data::Bytes(bytes) => Ok(String::from_utf8_lossy(bytes).into()),
        Data::OptionalSecret(OptionalSecret { text, is_secret: false }) => Ok(Arc::clone(text)),
        Data::Secret(_) | Data::OptionalSecret(_) => Err(ValueError::new(value, SECRET_INTO_STRING)),
        _ => Err(ValueError::expected(Type::String, value)),
    }
}

/// The bytes of a text: as [`to_text`], but bytes that are no UTF-8 stay as they are.
pub fn to_bytes(value: &Value) -> Result<Arc<[u8]>, ValueError> {
    match &value.data {
        Data::Bytes(bytes) => Ok(Arc::clone(bytes)),
        _ => to_text(value).map(|text| Arc::from(text.as_bytes())),
    }
}

/// The text of a secret, optional secret or string. Numbers and bytes do not convert to secrets.
pub fn to_secret(value: &Value) -> Result<Arc<str>, ValueError> {
    match &value.data {
        Data::Null => Ok(Arc::from("")),
        Data::String(text) | Data::Secret(text) => Ok(Arc::clone(text)),
        Data::OptionalSecret(secret) => Ok(Arc::clone(&secret.text)),
        Data::Capsule(_) => Err(ValueError::expected_capsule(crate::value::SECRET_TYPE, value)),
        _ => Err(ValueError::expected(Type::Capsule, value)),
    }
}

/// An optional secret: secret if the value is one or was made from one, otherwise a plain string.
pub fn to_optional_secret(value: &Value) -> Result<OptionalSecret, ValueError> {
    match &value.data {
        Data::Null => Ok(OptionalSecret { text: Arc::from(""), is_secret: value.sensitive }),
        Data::String(text) => Ok(OptionalSecret { text: Arc::clone(text), is_secret: value.sensitive }),
        Data::Secret(text) => Ok(OptionalSecret { text: Arc::clone(text), is_secret: true }),
        Data::OptionalSecret(secret) => {
            Ok(OptionalSecret { text: Arc::clone(&secret.text), is_secret: secret.is_secret || value.sensitive })
        }
        Data::Capsule(_) => Err(ValueError::expected_capsule(crate::value::OPTIONAL_SECRET_TYPE, value)),
        _ => Err(ValueError::expected(Type::Capsule, value)),
    }
}

/// A span of time in nanoseconds, which may be negative, read as `1h30m`. Numbers are read as text first, so of these
/// only `0` has a meaning.
pub fn to_nanoseconds(value: &Value) -> Result<i64, ValueError> {
    if value.is_null() {
        return Ok(0);
    }
    let text = to_text(value)?;
    duration::parse(&text).map_err(|error| ValueError::new(value, error.to_string()))
}

/// A span of time that is not negative: see [`to_nanoseconds`].
pub fn to_duration(value: &Value) -> Result<Duration, ValueError> {
    let nanoseconds = to_nanoseconds(value)?;
    match u64::try_from(nanoseconds) {
        Ok(nanoseconds) => Ok(Duration::from_nanos(nanoseconds)),
        Err(_) => Err(ValueError::new(value, "should not be a negative duration")),
    }
}

/// The elements of an array. Those of bytes are numbers.
pub fn to_array(value: &Value) -> Result<Vec<Value>, ValueError> {
    match value.ty() {
        Type::Null => Ok(Vec::new()),
        Type::Array => Ok(value.items().collect()),
        _ => Err(ValueError::expected(Type::Array, value)),
    }
}

/// The fields of an object or of a capsule that can present itself as one.
pub fn to_object(value: &Value) -> Result<Arc<Object>, ValueError> {
    if value.is_null() {
        return Ok(Arc::default());
    }
    let fields = value.to_object().ok_or_else(|| ValueError::expected(Type::Object, value))?;
    if !value.sensitive {
        return Ok(fields);
    }
    Ok(Arc::new(fields.iter().map(|(name, field)| (Arc::clone(name), field.clone().marked(true))).collect()))
}

/// A number written as text, by the rules of [`to_number`]. Whitespace, a leading `+` and other bases are refused.
pub fn parse_number(text: &str) -> Option<Number> {
    match text.as_bytes() {
        [] => None,
        [b'-', ..] => text.parse().ok().map(Number::Int),
        bytes if bytes.iter().any(|byte| b".eE".contains(byte)) => {
            crate::literal::parse_go_float(text).map(Number::Float)
        }
        bytes if bytes.iter().all(u8::is_ascii_digit) => text.parse().ok().map(Number::Uint),
        _ => None,
    }
}

macro_rules! integers {
    ($($name:ty => $via:ident),+ $(,)?) => {$(
        /// Fractions are cut off and what does not fit wraps, silently, as in the reference.
        impl FromValue for $name {
            fn from_value(value: &Value) -> Result<Self, ValueError> {
                Ok(to_number(value)?.$via() as $name)
            }
        }
    )+};
}

integers! {
    i8 => to_i64, i16 => to_i64, i32 => to_i64, i64 => to_i64, isize => to_i64,
    u8 => to_u64, u16 => to_u64, u32 => to_u64, u64 => to_u64, usize => to_u64,
}

impl FromValue for f64 {
    fn from_value(value: &Value) -> Result<Self, ValueError> {
        Ok(to_number(value)?.to_f64())
    }
}

impl FromValue for f32 {
    fn from_value(value: &Value) -> Result<Self, ValueError> {
        Ok(to_number(value)?.to_f64() as f32)
    }
}

impl FromValue for bool {
    fn from_value(value: &Value) -> Result<Self, ValueError> {
        to_bool(value)
    }
}

impl FromValue for String {
    fn from_value(value: &Value) -> Result<Self, ValueError> {
        to_text(value).map(|text| text.to_string())
    }
}

impl FromValue for Arc<str> {
    fn from_value(value: &Value) -> Result<Self, ValueError> {
        to_text(value)
    }
}

impl FromValue for Duration {
    fn from_value(value: &Value) -> Result<Self, ValueError> {
        to_duration(value)
    }
}

impl FromValue for OptionalSecret {
    fn from_value(value: &Value) -> Result<Self, ValueError> {
        to_optional_secret(value)
    }
}

impl FromValue for Value {
    fn from_value(value: &Value) -> Result<Self, ValueError> {
        Ok(value.clone())
    }
}
