//! Decoding: from the user's text to a component's arguments.
//!
//! One walk over the tables of [`crate::schema`] decodes every body, live and in static checks, and collects every
//! error. Its order is that of the reference: defaults, statements in textual order, what is required and missing, the
//! rules between fields. A field with an error, or with a value that a static check cannot know, counts as unknown from
//! there on: rules that read it are not checked.

mod context;
mod frame;
mod object;
mod types;
mod walk;

use std::any::Any;
use std::fmt;

use crate::arguments::{boxed, unboxed};
use crate::error::{PathStep, ValueError};
use crate::schema::{Shape, Slot, Stability, TypeInfo};
use crate::unknown;
use crate::value::Value;

pub use context::{DecodeContext, DecodeErrors, Decoded, Problem};
pub(crate) use frame::{default_block, default_record, default_value};
pub(crate) use object::{object, word};
pub use types::{CapsuleType, Secret, SignedDuration, TextType, from_text};
pub use walk::{check, decode};

/// A type that a value of the language converts to.
///
/// Derived for structs and for enums of words, and written by hand for types with rules of their own. Capsules implement
/// [`CapsuleType`] instead, and types with a text form [`TextType`].
pub trait Decode: Sized + 'static {
    /// What it is, for documentation and static checks.
    const SHAPE: Shape;

    /// Whether an attribute of this type may be left out without saying so.
    const OPTIONAL: bool = false;

    /// Converts a value that is not `null`.
    ///
    /// # Errors
    /// Every part of the value that does not fit.
    fn decode(value: &Value, cx: &ValueContext) -> Result<Self, Mismatches>;

    /// What `null` converts to, and what an optional attribute is when it is left out. Nothing for types that have no
    /// such value.
    fn zero() -> Option<Self>;

    /// Converts back.
    fn to_value(&self) -> Value;

    /// Converts a value: `null` to the zero value, others by their type.
    ///
    /// # Errors
    /// Every part of the value that does not fit.
    fn decode_or_zero(value: &Value, cx: &ValueContext) -> Result<Self, Mismatches> {
        if let Some(known) = unknown::stand_in(value, &Self::SHAPE, cx)? {
            Self::decode(&known, cx)?;
            return Err(Mismatches::unknown(value));
        }
        match value.is_null() {
            true => Self::zero().ok_or_else(|| ValueError::expected(Self::SHAPE.kind(), value).into()),
            false => Self::decode(value, cx),
        }
    }
}

/// The table of a type that values convert to.
pub trait Typed {
    /// The table.
    const TYPE: &'static TypeInfo;
}

impl<T: Decode> Typed for T {
    const TYPE: &'static TypeInfo = &TypeInfo {
        shape: T::SHAPE,
        decode: |value, cx| T::decode_or_zero(value, cx).map(boxed),
        zero: || T::zero().map(boxed),
        to_value: |value: &dyn Any| value.downcast_ref::<T>().map(T::to_value),
    };
}

/// What conversion of a value depends on besides the value.
#[derive(Clone, Copy, Debug)]
pub struct ValueContext {
    /// What lies below may not be written.
    pub minimum: Stability,
    /// Whether this is a static check. It meets values that are not known, and wants the required fields of objects that
    /// the user wrote, which the reference does not at run time.
    pub checking: bool,
}

/// What does not fit about a value: never empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Mismatches(Vec<Mismatch>);

/// One thing that does not fit.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Mismatch {
    pub(crate) kind: MismatchKind,
    pub(crate) error: ValueError,
}

/// The kinds that static checks word or place differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MismatchKind {
    /// The value at the end of the path is at fault.
    Value,
    /// The field at the end of the path is not known.
    UnknownField,
    /// The object at the end of the path says something wrong as a whole: the message stands alone.
    Object,
    /// The object at the end of the path lacks something.
    Missing,
    /// Nothing is wrong, but a static check does not know the value.
    Unknown,
}

impl Mismatches {
    fn of(kind: MismatchKind, error: ValueError) -> Self {
        Mismatches(vec![Mismatch { kind, error }])
    }

    /// The value is not known, or not all of it.
    pub(crate) fn unknown(value: &Value) -> Self {
        Mismatches::of(MismatchKind::Unknown, ValueError::new(value, "is not known"))
    }

    /// The same, seen from the array that holds the value at this index.
    #[must_use]
    pub fn in_index(self, index: usize) -> Self {
        self.within(&PathStep::Index(index))
    }

    /// The same, seen from the object that holds the value under this name.
    #[must_use]
    pub fn in_field(self, name: &str) -> Self {
        self.within(&PathStep::Field(name.into()))
    }

    fn within(mut self, step: &PathStep) -> Self {
        for mismatch in &mut self.0 {
            mismatch.error.path.insert(0, step.clone());
        }
        self
    }

    /// Adds others.
    pub fn extend(&mut self, others: Mismatches) {
        self.0.extend(others.0);
    }

    /// All values, or all that does not fit about any of them.
    ///
    /// # Errors
    /// What does not fit.
    pub fn all<T>(results: impl IntoIterator<Item = Result<T, Mismatches>>) -> Result<Vec<T>, Mismatches> {
        let mut values = Vec::new();
        let mut errors: Option<Mismatches> = None;
        for result in results {
            match (result, &mut errors) {
                (Ok(value), _) => values.push(value),
                (Err(error), Some(errors)) => errors.extend(error),
                (Err(error), None) => errors = Some(error),
            }
        }
        errors.map_or(Ok(values), Err)
    }

    fn items(self) -> Vec<Mismatch> {
        self.0
    }
}

impl From<ValueError> for Mismatches {
    fn from(error: ValueError) -> Self {
        Mismatches::of(MismatchKind::Value, error)
    }
}

impl fmt::Display for Mismatches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mismatch) in self.0.iter().enumerate() {
            write!(f, "{}{}", if index == 0 { "" } else { "; " }, mismatch.error)?;
        }
        Ok(())
    }
}

impl std::error::Error for Mismatches {}

/// The value in a slot of a type that the caller knows.
fn expect<T: 'static>(slot: Slot, value: &Value, kind: crate::value::Type) -> Result<T, Mismatches> {
    unboxed(slot).ok_or_else(|| ValueError::expected(kind, value).into())
}
