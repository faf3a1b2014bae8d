//! Values of the configuration language.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

pub use crate::number::Number;
pub use crate::stdlib::Function;

/// A value of the configuration language, and whether it was made from a secret.
///
/// Secrecy is kept beside the data, not in its type: what is concatenated or computed from a secret stays usable as a
/// string, as in the reference, but every rendering (diagnostics, logs, the HTTP API) masks it. Only
/// `convert.nonsensitive` clears the mark.
///
/// A mark on an array or object covers everything in it, and the elements of an unmarked one carry their own: read
/// them through [`Value::index`], [`Value::field`], [`Value::items`] and [`Value::entries`], which pass the mark on.
#[derive(Clone, PartialEq)]
pub struct Value {
    /// What the value holds.
    pub data: Data,
    /// Whether a secret went into it.
    pub sensitive: bool,
}

/// What a [`Value`] holds.
#[derive(Clone)]
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

/// A string that may be secret.
#[derive(Clone, PartialEq, Eq)]
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
    /// The capsule as text, where it has a form of its own to show instead of its type (the HTTP API prints it).
    fn as_text(&self) -> Option<String> {
        None
    }
    /// For downcasting to the concrete type.
    fn as_any(&self) -> &dyn Any;
}

/// The type of a value, as diagnostics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Type {
    /// `null`.
    Null,
    /// A number of any kind.
    Number,
    /// Text.
    String,
    /// A boolean.
    Bool,
    /// An array, or bytes.
    Array,
    /// An object.
    Object,
    /// A function.
    Function,
    /// A secret, an optional secret or a value of a component.
    Capsule,
}

impl Type {
    /// The word for it in diagnostics and in the HTTP API.
    pub const fn name(self) -> &'static str {
        match self {
            Type::Null => "null",
            Type::Number => "number",
            Type::String => "string",
            Type::Bool => "bool",
            Type::Array => "array",
            Type::Object => "object",
            Type::Function => "function",
            Type::Capsule => "capsule",
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What stands in every rendering in place of something secret.
pub const MASK: &str = "(secret)";

/// The name of the type of secrets in diagnostics.
pub const SECRET_TYPE: &str = "alloytypes.Secret";

/// The name of the type of optional secrets in diagnostics.
pub const OPTIONAL_SECRET_TYPE: &str = "alloytypes.OptionalSecret";

impl Value {
    /// `null`.
    pub const NULL: Value = Value { data: Data::Null, sensitive: false };

    /// A value that no secret went into.
    pub const fn new(data: Data) -> Self {
        Value { data, sensitive: false }
    }

    /// A boolean.
    pub const fn bool(value: bool) -> Self {
        Value::new(Data::Bool(value))
    }

    /// A signed integer.
    pub const fn int(value: i64) -> Self {
        Value::new(Data::Number(Number::Int(value)))
    }

    /// An unsigned integer.
    pub const fn uint(value: u64) -> Self {
        Value::new(Data::Number(Number::Uint(value)))
    }

    /// A floating-point number.
    pub const fn float(value: f64) -> Self {
        Value::new(Data::Number(Number::Float(value)))
    }

    /// Text.
    pub fn string(text: impl Into<Arc<str>>) -> Self {
        Value::new(Data::String(text.into()))
    }

    /// Bytes: an array of numbers to the language.
    pub fn bytes(bytes: impl Into<Arc<[u8]>>) -> Self {
        Value::new(Data::Bytes(bytes.into()))
    }

    /// An array.
    pub fn array(items: impl Into<Arc<[Value]>>) -> Self {
        Value::new(Data::Array(items.into()))
    }

    /// An object.
    pub fn object(fields: Object) -> Self {
        Value::new(Data::Object(Arc::new(fields)))
    }

    /// A secret.
    pub fn secret(text: impl Into<Arc<str>>) -> Self {
        Value::new(Data::Secret(text.into()))
    }

    /// A string that is to be hidden if `is_secret`.
    pub fn optional_secret(text: impl Into<Arc<str>>, is_secret: bool) -> Self {
        Value::new(Data::OptionalSecret(OptionalSecret { text: text.into(), is_secret }))
    }

    /// A value of a component.
    pub fn capsule(capsule: Arc<dyn Capsule>) -> Self {
        Value::new(Data::Capsule(capsule))
    }

    /// The same value, marked as made from a secret if `sensitive`; a mark that stands already stays.
    #[must_use]
    pub fn marked(mut self, sensitive: bool) -> Self {
        self.sensitive |= sensitive;
        self
    }

    /// Its type.
    pub const fn ty(&self) -> Type {
        match self.data {
            Data::Null => Type::Null,
            Data::Bool(_) => Type::Bool,
            Data::Number(_) => Type::Number,
            Data::String(_) => Type::String,
            Data::Bytes(_) | Data::Array(_) => Type::Array,
            Data::Object(_) => Type::Object,
            Data::Function(_) => Type::Function,
            Data::Secret(_) | Data::OptionalSecret(_) | Data::Capsule(_) => Type::Capsule,
        }
    }

    /// Its type with, for a capsule, what it holds: `string`, `capsule("prometheus.Receiver")`.
    pub fn describe(&self) -> String {
        match self.capsule_type() {
            Some(name) => format!("capsule({})", corten_syntax::quote(name)),
            None => self.ty().name().to_owned(),
        }
    }

    /// The name of the type that a capsule holds; nothing for what is no capsule.
    pub fn capsule_type(&self) -> Option<&'static str> {
        match &self.data {
            Data::Secret(_) => Some(SECRET_TYPE),
            Data::OptionalSecret(_) => Some(OPTIONAL_SECRET_TYPE),
            Data::Capsule(capsule) => Some(capsule.type_name()),
            _ => None,
        }
    }

    /// Whether it is `null`.
    pub const fn is_null(&self) -> bool {
        matches!(self.data, Data::Null)
    }

    /// The boolean, if it is one.
    pub const fn as_bool(&self) -> Option<bool> {
        match self.data {
            Data::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// The number, if it is one.
    pub const fn as_number(&self) -> Option<Number> {
        match self.data {
            Data::Number(value) => Some(value),
            _ => None,
        }
    }

    /// The text, if it is a string. Secrets are none.
    pub fn as_str(&self) -> Option<&str> {
        match &self.data {
            Data::String(text) => Some(text),
            _ => None,
        }
    }

    /// The capsule, if it is the value of a component.
    pub fn as_capsule(&self) -> Option<&Arc<dyn Capsule>> {
        match &self.data {
            Data::Capsule(capsule) => Some(capsule),
            _ => None,
        }
    }

    /// How many elements an array has or fields an object has; nothing for other types.
    pub fn len(&self) -> Option<usize> {
        match &self.data {
            Data::Bytes(bytes) => Some(bytes.len()),
            Data::Array(items) => Some(items.len()),
            Data::Object(fields) => Some(fields.len()),
            _ => None,
        }
    }

    /// Whether it is an array or an object without elements.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// The element of an array at an index; nothing out of range or for other types. The mark passes to it.
    pub fn index(&self, index: usize) -> Option<Value> {
        let item = match &self.data {
            Data::Bytes(bytes) => Value::uint(u64::from(*bytes.get(index)?)),
            Data::Array(items) => items.get(index)?.clone(),
            _ => return None,
        };
        Some(item.marked(self.sensitive))
    }

    /// The elements of an array; empty for other types. The mark passes to them.
    pub fn items(&self) -> impl Iterator<Item = Value> + '_ {
        (0..if self.ty() == Type::Array { self.len().unwrap_or(0) } else { 0 }).filter_map(|index| self.index(index))
    }

    /// The fields of an object or of a capsule that can present itself as one; nothing for other types. Fields read
    /// from it do not yet carry the mark: prefer [`Value::entries`] and [`Value::field`].
    pub fn to_object(&self) -> Option<Arc<Object>> {
        match &self.data {
            Data::Object(fields) => Some(Arc::clone(fields)),
            Data::Capsule(capsule) => capsule.as_object().map(Arc::new),
            _ => None,
        }
    }

    /// A field of an object or of a capsule that can present itself as one. The mark passes to it.
    pub fn field(&self, name: &str) -> Option<Value> {
        let field = match &self.data {
            Data::Object(fields) => fields.get(name)?.clone(),
            Data::Capsule(capsule) => capsule.as_object()?.remove(name)?,
            _ => return None,
        };
        Some(field.marked(self.sensitive))
    }

    /// The fields of an object or of a capsule that can present itself as one, in byte order of their names; empty for
    /// other types. The mark passes to them.
    pub fn entries(&self) -> Vec<(Arc<str>, Value)> {
        let Some(fields) = self.to_object() else { return Vec::new() };
        fields.iter().map(|(name, value)| (Arc::clone(name), value.clone().marked(self.sensitive))).collect()
    }

    /// Whether the value itself is to be hidden: a secret, a flagged optional secret, or marked as made from one.
    pub const fn is_masked(&self) -> bool {
        self.sensitive
            || match &self.data {
                Data::Secret(_) => true,
                Data::OptionalSecret(secret) => secret.is_secret,
                _ => false,
            }
    }

    /// Whether anything in it is to be hidden, at any depth.
    ///
    /// Capsules of components are not looked into: they keep their own secrets.
    pub fn holds_secret(&self) -> bool {
        self.is_masked()
            || match &self.data {
                Data::Array(items) => items.iter().any(Value::holds_secret),
                Data::Object(fields) => fields.values().any(Value::holds_secret),
                _ => false,
            }
    }
}

impl Default for Value {
    fn default() -> Self {
        Value::NULL
    }
}

/// Whether two values hold the same data. Unlike the language's `==`, numbers of different kinds differ, a NaN equals
/// itself and a function equals itself: this decides whether anything changed, not what an expression yields.
impl PartialEq for Data {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Data::Null, Data::Null) => true,
            (Data::Bool(a), Data::Bool(b)) => a == b,
            (Data::Number(a), Data::Number(b)) => a.is_identical(*b),
            (Data::String(a), Data::String(b)) | (Data::Secret(a), Data::Secret(b)) => a == b,
            (Data::Bytes(a), Data::Bytes(b)) => a == b,
            (Data::Array(a), Data::Array(b)) => Arc::ptr_eq(a, b) || a == b,
            (Data::Object(a), Data::Object(b)) => Arc::ptr_eq(a, b) || a == b,
            (Data::Function(a), Data::Function(b)) => std::ptr::eq(*a, *b),
            (Data::OptionalSecret(a), Data::OptionalSecret(b)) => a == b,
            (Data::Capsule(a), Data::Capsule(b)) => Arc::ptr_eq(a, b) || a.equals(b.as_ref()),
            _ => false,
        }
    }
}

/// For developers; what is secret is masked here too, because such text ends in logs.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_masked() { f.write_str(MASK) } else { self.data.fmt(f) }
    }
}

/// See the form of [`Value`].
impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Data::Null => f.write_str("Null"),
            Data::Bool(value) => f.debug_tuple("Bool").field(value).finish(),
            Data::Number(number) => number.fmt(f),
            Data::String(text) => f.debug_tuple("String").field(text).finish(),
            Data::Bytes(bytes) => f.debug_tuple("Bytes").field(bytes).finish(),
            Data::Array(items) => f.debug_list().entries(items.iter()).finish(),
            Data::Object(fields) => f.debug_map().entries(fields.iter()).finish(),
            Data::Function(function) => function.fmt(f),
            Data::Secret(_) => f.write_str(MASK),
            Data::OptionalSecret(secret) => secret.fmt(f),
            Data::Capsule(capsule) => f.debug_tuple("Capsule").field(&capsule.type_name()).finish(),
        }
    }
}

impl fmt::Debug for OptionalSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = if self.is_secret { MASK } else { &self.text };
        f.debug_struct("OptionalSecret").field("text", &text).field("is_secret", &self.is_secret).finish()
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Value::bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Value::int(value)
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Value::uint(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Value::float(value)
    }
}

impl From<Number> for Value {
    fn from(value: Number) -> Self {
        Value::new(Data::Number(value))
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Value::string(value)
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Value::string(value)
    }
}

impl From<Arc<str>> for Value {
    fn from(value: Arc<str>) -> Self {
        Value::string(value)
    }
}

impl From<Vec<Value>> for Value {
    fn from(value: Vec<Value>) -> Self {
        Value::array(value)
    }
}

impl From<Object> for Value {
    fn from(value: Object) -> Self {
        Value::object(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_of_a_container_passes_to_what_is_read_from_it() {
        let fields = Object::from([(Arc::from("k"), Value::int(1))]);
        let object = Value::object(fields).marked(true);
        let array = Value::array(vec![Value::int(1)]).marked(true);
        let bytes = Value::bytes(vec![7u8]).marked(true);
        assert!(object.field("k").unwrap().sensitive);
        assert!(object.entries().iter().all(|(_, value)| value.sensitive));
        assert!(array.index(0).unwrap().sensitive && array.items().all(|value| value.sensitive));
        assert_eq!(bytes.index(0), Some(Value::uint(7).marked(true)));
        assert!(array.index(1).is_none() && bytes.index(1).is_none() && object.field("x").is_none());
    }

    #[test]
    fn a_secret_is_found_at_any_depth() {
        let wrap = |value: Value| Value::array(vec![Value::object(Object::from([(Arc::from("k"), value)]))]);
        assert!(wrap(Value::secret("x")).holds_secret());
        assert!(wrap(Value::optional_secret("x", true)).holds_secret());
        assert!(wrap(Value::string("x").marked(true)).holds_secret());
        assert!(!wrap(Value::optional_secret("x", false)).holds_secret());
    }

    #[test]
    fn sameness_is_stricter_than_the_equality_of_the_language() {
        assert_ne!(Value::int(1), Value::uint(1));
        assert_ne!(Value::int(1), Value::float(1.0));
        assert_ne!(Value::int(1), Value::int(1).marked(true));
        assert_eq!(Value::float(f64::NAN), Value::float(f64::NAN));
        assert_ne!(Value::secret("x"), Value::string("x"));
        let function = crate::stdlib::function("coalesce").unwrap();
        assert_eq!(Value::new(Data::Function(function)), Value::new(Data::Function(function)));
    }

    #[test]
    fn no_secret_is_in_the_text_for_developers() {
        for value in [
            Value::secret("hush"),
            Value::optional_secret("hush", true),
            Value::string("hush").marked(true),
            Value::array(vec![Value::secret("hush")]),
        ] {
            assert!(!format!("{value:?} {:?}", Value::new(value.data.clone()).marked(true)).contains("hush"));
        }
    }
}
