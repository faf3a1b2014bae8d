//! Values of the configuration language.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A value of the configuration language, and whether it was made from a secret.
///
/// Secrecy is kept beside the data, not in its type: what is concatenated or computed from a secret stays usable as a
/// string, as in the reference, but every rendering (diagnostics, logs, the HTTP API) masks it. Only
/// `convert.nonsensitive` clears the mark.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// What the value holds.
    pub data: Data,
    /// Whether a secret went into it.
    pub sensitive: bool,
}

/// What a [`Value`] holds.
#[derive(Clone, Debug)]
pub enum Data {
    /// `null`.
    Null,
    /// A boolean.
    Bool(bool),
    /// A number of one of three kinds.
    Number(Number),
    /// Text. Always valid UTF-8.
    String(Arc<str>),
    /// Bytes, as `encoding.from_base64` returns them: an array of numbers to the language, a string on demand.
    Bytes(Arc<[u8]>),
    /// An array.
    Array(Arc<[Value]>),
    /// An object; keys are unique and in byte order.
    Object(Arc<Object>),
    /// A function of the standard library.
    Function(&'static Function),
    /// A secret: always hidden, never converted to a string.
    Secret(Arc<str>),
    /// An optional secret: a string with a flag that says whether it is to be hidden.
    OptionalSecret(OptionalSecret),
    /// A value of a component: a receiver, a target, a set of rules. Opaque to the language.
    Capsule(Arc<dyn Capsule>),
}

/// The fields of an object.
pub type Object = BTreeMap<Arc<str>, Value>;

/// A number. The three kinds of the reference stay distinct, because arithmetic and formatting depend on them.
#[derive(Clone, Copy, Debug)]
pub enum Number {
    /// A signed integer.
    Int(i64),
    /// An unsigned integer.
    Uint(u64),
    /// A floating-point number.
    Float(f64),
}

/// A string that may be secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionalSecret {
    /// The text.
    pub text: Arc<str>,
    /// Whether it is to be hidden.
    pub is_secret: bool,
}

/// A value that the language passes on without looking inside.
///
/// Implemented by the signals' receivers, by targets and by relabelling rules.
pub trait Capsule: Any + Send + Sync + fmt::Debug {
    /// The name of the type in diagnostics, as the reference prints it in `capsule("<name>")`.
    fn type_name(&self) -> &'static str;
    /// Whether another capsule holds the same: decides whether a component that receives it is evaluated again.
    fn equals(&self, other: &dyn Capsule) -> bool;
    /// The capsule as an object, where it can present itself as one (a target can).
    fn as_object(&self) -> Option<Object> {
        None
    }
    /// For downcasting to the concrete type.
    fn as_any(&self) -> &dyn Any;
}

/// A function of the standard library: see [`crate::stdlib`].
#[derive(Debug)]
pub struct Function {
    /// Its name with its namespace, `string.join`.
    pub name: &'static str,
    /// What it does with its arguments.
    pub call: fn(&[Value]) -> Result<Value, crate::stdlib::CallError>,
}
