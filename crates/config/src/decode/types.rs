//! The types that attributes have.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Decode, Mismatches, Typed, ValueContext, expect, object};
use crate::convert::{self, FromValue};
use crate::duration;
use crate::error::ValueError;
use crate::number::Number;
use crate::schema::{CapsuleInfo, Shape};
use crate::value::{Capsule, Data, MASK, Object, OptionalSecret, Type, Value};

macro_rules! simple {
    ($($ty:ty, $shape:expr, $zero:expr, $to_value:expr;)+) => {$(
        impl Decode for $ty {
            const SHAPE: Shape = $shape;

            fn decode(value: &Value, _: &ValueContext) -> Result<Self, Mismatches> {
                <$ty>::from_value(value).map_err(Mismatches::from)
            }

            fn zero() -> Option<Self> {
                Some($zero)
            }

            fn to_value(&self) -> Value {
                let to_value: fn(&$ty) -> Value = $to_value;
                to_value(self)
            }
        }
    )+};
}

simple! {
    bool, Shape::Bool, false, |value| Value::bool(*value);
    i8, Shape::Int, 0, |value| Value::int(i64::from(*value));
    i16, Shape::Int, 0, |value| Value::int(i64::from(*value));
    i32, Shape::Int, 0, |value| Value::int(i64::from(*value));
    i64, Shape::Int, 0, |value| Value::int(*value);
    isize, Shape::Int, 0, |value| Value::int(*value as i64);
    u8, Shape::Uint, 0, |value| Value::uint(u64::from(*value));
    u16, Shape::Uint, 0, |value| Value::uint(u64::from(*value));
    u32, Shape::Uint, 0, |value| Value::uint(u64::from(*value));
    u64, Shape::Uint, 0, |value| Value::uint(*value);
    usize, Shape::Uint, 0, |value| Value::uint(*value as u64);
    f32, Shape::Float, 0.0, |value| Value::float(f64::from(*value));
    f64, Shape::Float, 0.0, |value| Value::float(*value);
    String, Shape::String, String::new(), |value| Value::string(value.as_str());
    Arc<str>, Shape::String, Arc::from(""), |value| Value::string(Arc::clone(value));
    Duration, Shape::Duration, Duration::ZERO, |value| Value::string(duration::format_duration(*value));
    OptionalSecret, Shape::OptionalSecret, OptionalSecret { text: Arc::from(""), is_secret: false },
        |value| Value::new(Data::OptionalSecret(value.clone()));
    Value, Shape::Any, Value::NULL, Value::clone;
}

/// A span of time that may be negative. Where it may not, [`std::time::Duration`] says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SignedDuration {
    /// Its length in nanoseconds.
    pub nanoseconds: i64,
}

impl Decode for SignedDuration {
    const SHAPE: Shape = Shape::Duration;

    fn decode(value: &Value, _: &ValueContext) -> Result<Self, Mismatches> {
        Ok(SignedDuration { nanoseconds: convert::to_nanoseconds(value)? })
    }

    fn zero() -> Option<Self> {
        Some(Self::default())
    }

    fn to_value(&self) -> Value {
        Value::string(duration::format(self.nanoseconds))
    }
}

/// Text that is never shown: every rendering masks it, and who needs it says so with [`Secret::expose`].
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(Arc<str>);

impl Secret {
    /// A secret of a text.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Secret(text.into())
    }

    /// The text. What is made of it must not be logged or shown.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Default for Secret {
    fn default() -> Self {
        Secret::new("")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl Decode for Secret {
    const SHAPE: Shape = Shape::Secret;

    fn decode(value: &Value, _: &ValueContext) -> Result<Self, Mismatches> {
        Ok(Secret(convert::to_secret(value)?))
    }

    fn zero() -> Option<Self> {
        Some(Self::default())
    }

    fn to_value(&self) -> Value {
        Value::secret(Arc::clone(&self.0))
    }
}

impl OptionalSecret {
    /// The text. What is made of it must not be logged or shown if it is secret.
    pub fn expose(&self) -> &str {
        &self.text
    }
}

impl Default for OptionalSecret {
    fn default() -> Self {
        OptionalSecret { text: Arc::from(""), is_secret: false }
    }
}

/// The text, or the mask if it is secret.
impl fmt::Display for OptionalSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_secret { MASK } else { &self.text })
    }
}

/// Bytes, as `encoding.from_base64` gives them, or the bytes of a text.
impl Decode for Arc<[u8]> {
    const SHAPE: Shape = Shape::String;

    fn decode(value: &Value, _: &ValueContext) -> Result<Self, Mismatches> {
        Ok(convert::to_bytes(value)?)
    }

    fn zero() -> Option<Self> {
        Some(Arc::default())
    }

    fn to_value(&self) -> Value {
        Value::bytes(Arc::clone(self))
    }
}

/// A number that keeps its kind.
impl Decode for Number {
    const SHAPE: Shape = Shape::Float;

    fn decode(value: &Value, _: &ValueContext) -> Result<Self, Mismatches> {
        Ok(convert::to_number(value)?)
    }

    fn zero() -> Option<Self> {
        Some(Number::Int(0))
    }

    fn to_value(&self) -> Value {
        Value::from(*self)
    }
}

/// What may be left out, and what `null` leaves out.
impl<T: Decode> Decode for Option<T> {
    const SHAPE: Shape = T::SHAPE;
    const OPTIONAL: bool = true;

    fn decode(value: &Value, cx: &ValueContext) -> Result<Self, Mismatches> {
        T::decode(value, cx).map(Some)
    }

    fn zero() -> Option<Self> {
        Some(None)
    }

    fn to_value(&self) -> Value {
        self.as_ref().map_or(Value::NULL, T::to_value)
    }
}

/// A list: of the elements of an array or, for labelled structs, of the fields of an object, whose names become labels.
impl<T: Decode> Decode for Vec<T> {
    const SHAPE: Shape = Shape::List(T::TYPE);

    fn decode(value: &Value, cx: &ValueContext) -> Result<Self, Mismatches> {
        if let Shape::Object(schema) = T::SHAPE
            && let (Type::Object, Some(_)) = (value.ty(), schema().label())
        {
            let fields = value.entries();
            return Mismatches::all(fields.iter().map(|(name, field)| {
                object::labelled(schema(), name, field, cx)
                    .and_then(|slot| expect(slot, field, Type::Object))
                    .map_err(|errors| errors.in_field(name))
            }));
        }
        if value.ty() != Type::Array {
            return Err(ValueError::expected(Type::Array, value).into());
        }
        Mismatches::all(
            value
                .items()
                .enumerate()
                .map(|(index, item)| T::decode_or_zero(&item, cx).map_err(|errors| errors.in_index(index))),
        )
    }

    fn zero() -> Option<Self> {
        Some(Vec::new())
    }

    fn to_value(&self) -> Value {
        Value::array(self.iter().map(T::to_value).collect::<Vec<_>>())
    }
}

/// A list of so many elements.
impl<T: Decode, const N: usize> Decode for [T; N] {
    const SHAPE: Shape = Shape::Array(T::TYPE, N);

    fn decode(value: &Value, cx: &ValueContext) -> Result<Self, Mismatches> {
        let wrong_count = |len: usize| {
            let message = match value.ty() {
                Type::Object => format!("object must have exactly {N} keys, got {len}"),
                _ => format!("array must have exactly {N} elements, got {len}"),
            };
            Mismatches::from(ValueError::new(value, message))
        };
        let mut wrong = match Vec::<T>::decode(value, cx) {
            Ok(items) => return items.try_into().map_err(|items: Vec<T>| wrong_count(items.len())),
            Err(wrong) => wrong,
        };
        if let Some(len) = value.len()
            && value.ty() == Type::Array
            && len != N
        {
            wrong.extend(wrong_count(len));
        }
        Err(wrong)
    }

    fn zero() -> Option<Self> {
        (0..N).map(|_| T::zero()).collect::<Option<Vec<T>>>()?.try_into().ok()
    }

    fn to_value(&self) -> Value {
        Value::array(self.iter().map(T::to_value).collect::<Vec<_>>())
    }
}

/// Names with values: the fields of an object, or of a capsule that can present itself as one.
impl<T: Decode> Decode for BTreeMap<String, T> {
    const SHAPE: Shape = Shape::Map(T::TYPE);

    fn decode(value: &Value, cx: &ValueContext) -> Result<Self, Mismatches> {
        if value.to_object().is_none() {
            return Err(ValueError::expected(Type::Object, value).into());
        }
        let fields = Mismatches::all(value.entries().iter().map(|(name, field)| {
            T::decode_or_zero(field, cx).map(|field| (name.to_string(), field)).map_err(|errors| errors.in_field(name))
        }))?;
        Ok(fields.into_iter().collect())
    }

    fn zero() -> Option<Self> {
        Some(BTreeMap::new())
    }

    fn to_value(&self) -> Value {
        let fields = self.iter().map(|(name, field)| (Arc::from(name.as_str()), field.to_value()));
        Value::object(fields.collect::<Object>())
    }
}

/// A Rust type that the language passes on as a capsule: a receiver, a target, a set of rules.
///
/// Implementing it implements [`Decode`].
pub trait CapsuleType: Capsule + Clone + Sized {
    /// The names of the type, and what converts to it.
    const INFO: &'static CapsuleInfo;

    /// Converts a value that is no capsule of this type, where there are rules for that.
    ///
    /// Nothing means that there are none for such a value, and that the usual diagnostic is the right one.
    fn convert(value: &Value) -> Option<Result<Self, ValueError>> {
        let _ = value;
        None
    }

    /// What `null` converts to, if anything.
    fn null() -> Option<Self> {
        None
    }
}

impl<T: CapsuleType> Decode for T {
    const SHAPE: Shape = Shape::Capsule(T::INFO);

    fn decode(value: &Value, _: &ValueContext) -> Result<Self, Mismatches> {
        if let Some(capsule) = value.as_capsule()
            && let Some(capsule) = capsule.as_any().downcast_ref::<T>()
        {
            return Ok(capsule.clone());
        }
        if let Some(converted) = T::convert(value) {
            return Ok(converted?);
        }
        Err(match value.ty() {
            Type::Capsule => ValueError::expected_capsule(T::INFO.type_name, value),
            _ => ValueError::expected(Type::Capsule, value),
        }
        .into())
    }

    fn zero() -> Option<Self> {
        T::null()
    }

    fn to_value(&self) -> Value {
        Value::capsule(Arc::new(self.clone()))
    }
}

/// A Rust type with a text form: an address, a pattern, a size.
///
/// [`decode_text!`](crate::decode_text) makes it a type that attributes may have.
pub trait TextType: Sized + 'static {
    /// The name of the type on the reference pages, mostly `string`.
    const SHOWN: &'static str = "string";

    /// Reads the text.
    ///
    /// # Errors
    /// What is wrong with it, to be read after the user's expression.
    fn parse(text: &str) -> Result<Self, String>;

    /// The text, such that reading it again gives the same.
    fn text(&self) -> String;

    /// What `null` converts to, if anything.
    fn null() -> Option<Self>;
}

/// Reads a type with a text form.
///
/// # Errors
/// What is no text, and what is wrong with a text.
pub fn from_text<T: TextType>(value: &Value) -> Result<T, Mismatches> {
    let text = convert::to_text(value)?;
    T::parse(&text).map_err(|message| ValueError::new(value, message).into())
}

/// Implements [`Decode`](crate::decode::Decode) for types that implement [`TextType`](crate::decode::TextType).
#[macro_export]
macro_rules! decode_text {
    ($($ty:ty),+ $(,)?) => {$(
        impl $crate::decode::Decode for $ty {
            const SHAPE: $crate::schema::Shape =
                $crate::schema::Shape::Text(<$ty as $crate::decode::TextType>::SHOWN);

            fn decode(
                value: &$crate::Value,
                _: &$crate::decode::ValueContext,
            ) -> ::core::result::Result<Self, $crate::decode::Mismatches> {
                $crate::decode::from_text(value)
            }

            fn zero() -> ::core::option::Option<Self> {
                <$ty as $crate::decode::TextType>::null()
            }

            fn to_value(&self) -> $crate::Value {
                $crate::Value::string($crate::decode::TextType::text(self))
            }
        }
    )+};
}
