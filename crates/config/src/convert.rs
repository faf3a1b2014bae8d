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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text<T>(result: Result<T, ValueError>) -> Result<T, String> {
        result.map_err(|error| error.message)
    }

    #[test]
    fn numbers_become_text_without_exponents() {
        let cases = [
            (Value::int(-3), "-3"),
            (Value::uint(u64::MAX), "18446744073709551615"),
            (Value::float(5.50), "5.5"),
            (Value::float(1e21), "1000000000000000000000"),
        ];
        for (value, expected) in cases {
            assert_eq!(to_text(&value).unwrap().as_ref(), expected);
        }
    }

    #[test]
    fn text_becomes_a_number_by_its_form() {
        let good = [
            ("5", Number::Uint(5)),
            ("007", Number::Uint(7)),
            ("-5", Number::Int(-5)),
            ("1.5", Number::Float(1.5)),
            ("1e3", Number::Float(1000.0)),
            ("+1.5", Number::Float(1.5)),
            ("1_0.5", Number::Float(10.5)),
            ("18446744073709551615", Number::Uint(u64::MAX)),
        ];
        for (value, expected) in good {
            assert!(to_number(&Value::from(value)).unwrap().is_identical(expected), "{value}");
        }
        for value in ["", "+5", " 5", "0x10", "-1.5", "1e400", "inf", "Infinity", "18446744073709551616", "٣", "1_0"] {
            assert_eq!(text(to_number(&Value::from(value))).unwrap_err(), "should be number, got string", "{value}");
        }
    }

    #[test]
    fn numbers_are_cut_and_wrap_silently() {
        assert_eq!(i32::from_value(&Value::float(1.9)), Ok(1));
        assert_eq!(i8::from_value(&Value::int(300)), Ok(44));
        assert_eq!(u64::from_value(&Value::int(-1)), Ok(u64::MAX));
        assert_eq!(u8::from_value(&Value::from("513")), Ok(1));
        assert_eq!(f64::from_value(&Value::from("2.5")), Ok(2.5));
        assert_eq!(f32::from_value(&Value::float(0.1)), Ok(0.1f32));
    }

    #[test]
    fn booleans_convert_to_and_from_nothing() {
        assert_eq!(text(to_bool(&Value::from("true"))).unwrap_err(), "should be bool, got string");
        assert_eq!(text(to_bool(&Value::int(1))).unwrap_err(), "should be bool, got number");
        assert_eq!(text(to_text(&Value::bool(true))).unwrap_err(), "should be string, got bool");
        assert_eq!(text(to_number(&Value::bool(true))).unwrap_err(), "should be number, got bool");
    }

    #[test]
    fn null_is_the_zero_of_everything() {
        let null = Value::NULL;
        assert_eq!(to_bool(&null), Ok(false));
        assert_eq!(to_text(&null).unwrap().as_ref(), "");
        assert_eq!(to_secret(&null).unwrap().as_ref(), "");
        assert_eq!(u16::from_value(&null), Ok(0));
        assert_eq!(to_duration(&null), Ok(Duration::ZERO));
        assert!(to_array(&null).unwrap().is_empty() && to_object(&null).unwrap().is_empty());
        assert!(!to_optional_secret(&null).unwrap().is_secret);
    }

    #[test]
    fn secrets_never_become_text() {
        let refusal = "secrets may not be converted into strings";
        assert_eq!(text(to_text(&Value::secret("x"))).unwrap_err(), refusal);
        assert_eq!(text(to_text(&Value::optional_secret("x", true))).unwrap_err(), refusal);
        assert_eq!(to_text(&Value::optional_secret("x", false)).unwrap().as_ref(), "x");
        assert!(to_number(&Value::optional_secret("5", false)).unwrap().is_identical(Number::Uint(5)));
        assert_eq!(text(to_number(&Value::secret("5"))).unwrap_err(), "should be number, got capsule");
    }

    #[test]
    fn strings_and_secrets_become_secrets() {
        for value in [Value::from("x"), Value::secret("x"), Value::optional_secret("x", true)] {
            assert_eq!(to_secret(&value).unwrap().as_ref(), "x");
        }
        assert_eq!(text(to_secret(&Value::int(1))).unwrap_err(), "should be capsule, got number");
        assert_eq!(text(to_secret(&Value::bytes(vec![1u8]))).unwrap_err(), "should be capsule, got array");
        assert!(to_optional_secret(&Value::secret("x")).unwrap().is_secret);
        assert!(!to_optional_secret(&Value::from("x")).unwrap().is_secret);
        assert!(to_optional_secret(&Value::from("x").marked(true)).unwrap().is_secret);
    }

    #[test]
    fn bytes_become_text_and_stay_an_array() {
        let bytes = Value::bytes(vec![b'h', b'i']);
        assert_eq!(to_text(&bytes).unwrap().as_ref(), "hi");
        assert_eq!(to_array(&bytes).unwrap(), vec![Value::uint(104), Value::uint(105)]);
        assert_eq!(to_bytes(&Value::bytes(vec![0xffu8])).unwrap().as_ref(), [0xff]);
        assert_eq!(to_text(&Value::bytes(vec![0xffu8])).unwrap().as_ref(), "\u{fffd}");
    }

    #[test]
    fn durations_are_text_and_only_zero_is_a_number() {
        assert_eq!(to_duration(&Value::from("1m30s")), Ok(Duration::from_secs(90)));
        assert_eq!(to_duration(&Value::int(0)), Ok(Duration::ZERO));
        assert_eq!(text(to_duration(&Value::int(5))).unwrap_err(), "time: missing unit in duration \"5\"");
        assert_eq!(text(to_duration(&Value::from(""))).unwrap_err(), "time: invalid duration \"\"");
        assert_eq!(text(to_duration(&Value::bool(true))).unwrap_err(), "should be string, got bool");
        assert_eq!(to_nanoseconds(&Value::from("-1s")), Ok(-1_000_000_000));
        assert!(to_duration(&Value::from("-1s")).is_err());
    }

    #[test]
    fn the_text_of_a_secret_does_not_get_into_a_message() {
        let value = Value::from("hush\"").marked(true);
        let error = to_duration(&value).unwrap_err();
        assert_eq!(error.safe_message(), "time: invalid duration \"(secret)\"");
        assert_eq!(error.in_index(2).in_field("a").to_string(), ".a[2] time: invalid duration \"(secret)\"");
    }

    proptest! {
        #[test]
        fn any_text_is_read_as_a_number_without_a_panic(value in "[-+0-9.eE_x]{0,24}|.{0,10}") {
            if let Some(number) = parse_number(&value) {
                let kind_fits = match number {
                    Number::Int(_) => value.starts_with('-'),
                    Number::Float(_) => value.contains(['.', 'e', 'E']),
                    Number::Uint(_) => true,
                };
                prop_assert!(kind_fits);
            }
        }

        #[test]
        fn narrower_integers_keep_the_lowest_bits(value: i64) {
            let number = Value::int(value);
            prop_assert_eq!(i8::from_value(&number), Ok(value as i8));
            prop_assert_eq!(u32::from_value(&number), Ok(value as u32));
            prop_assert_eq!(u64::from_value(&number), Ok(value as u64));
        }
    }
}
