//! The values that templates handle, with the types that they have in Go.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use corten_config::gofmt::Arg;

use super::time_value::Moment;
use crate::functions::semver::Version;
use crate::text::{chars, push};

/// How deep lists may nest, and how deep a value is looked into.
pub(crate) const NESTING_MAX: usize = 100;

/// A value.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Nil,
    Bool(bool),
    Int(i64),
    Int64(i64),
    Uint8(u8),
    Float(f64),
    Text(Bytes),
    List(Rc<List>),
    Dict(Rc<Dict>),
    Time(Rc<Moment>),
    /// A `time.Duration`, in nanoseconds.
    Duration(i64),
    /// A `time.Month`.
    Month(i64),
    /// A `time.Weekday`.
    Weekday(i64),
    Version(Rc<Version>),
    /// The data that the template is executed with, as long as it is only asked for its fields.
    Root,
}

/// What the items of a list are in Go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListKind {
    Any,
    Text,
    Int,
    Lists,
}

/// A slice. It never changes.
#[derive(Debug)]
pub(crate) struct List {
    pub(crate) kind: ListKind,
    /// A slice without an array, which is empty.
    pub(crate) is_nil: bool,
    pub(crate) items: Vec<Value>,
    /// How deep lists are nested, this one included.
    depth: usize,
}

/// A map with texts as keys. It can change while others refer to it.
#[derive(Debug)]
pub(crate) struct Dict {
    /// Whether its values are texts, in Go's type.
    pub(crate) texts: bool,
    pub(crate) map: RefCell<BTreeMap<Bytes, Value>>,
}

impl List {
    /// Nothing if lists would nest too deeply.
    pub(crate) fn new(kind: ListKind, items: Vec<Value>) -> Option<Rc<List>> {
        let inner = items.iter().map(|item| match item {
            Value::List(list) => list.depth,
            _ => 0,
        });
        let depth = inner.max().unwrap_or(0) + 1;
        (depth <= NESTING_MAX).then(|| Rc::new(List { kind, is_nil: false, items, depth }))
    }

    fn nil(kind: ListKind) -> Value {
        Value::List(Rc::new(List { kind, is_nil: true, items: Vec::new(), depth: 1 }))
    }
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Value::Text(Bytes::from_static(text.as_bytes()))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Text(Bytes::from(text))
    }
}

impl From<Vec<u8>> for Value {
    fn from(text: Vec<u8>) -> Self {
        Value::Text(Bytes::from(text))
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Value::Bool(value)
    }
}

impl Value {
    /// A slice without an array.
    pub(crate) fn nil_list(kind: ListKind) -> Self {
        List::nil(kind)
    }

    /// A copy of a text.
    pub(crate) fn text(bytes: &[u8]) -> Self {
        Value::Text(Bytes::copy_from_slice(bytes))
    }

    /// The name of the type, as `%T` prints it.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Value::Nil => "<nil>",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Int64(_) => "int64",
            Value::Uint8(_) => "uint8",
            Value::Float(_) => "float64",
            Value::Text(_) => "string",
            Value::List(list) => match list.kind {
                ListKind::Any => "[]interface {}",
                ListKind::Text => "[]string",
                ListKind::Int => "[]int",
                ListKind::Lists => "[][]interface {}",
            },
            Value::Dict(dict) if dict.texts => "map[string]string",
            Value::Dict(_) | Value::Root => "map[string]interface {}",
            Value::Time(_) => "time.Time",
            Value::Duration(_) => "time.Duration",
            Value::Month(_) => "time.Month",
            Value::Weekday(_) => "time.Weekday",
            Value::Version(_) => "*semver.Version",
        }
    }

    /// The kind of the type, in the words of Go's `reflect`.
    pub(crate) fn kind_name(&self) -> &'static str {
        match self {
            Value::Nil => "invalid",
            Value::Bool(_) => "bool",
            Value::Int(_) | Value::Month(_) | Value::Weekday(_) => "int",
            Value::Int64(_) | Value::Duration(_) => "int64",
            Value::Uint8(_) => "uint8",
            Value::Float(_) => "float64",
            Value::Text(_) => "string",
            Value::List(_) => "slice",
            Value::Dict(_) | Value::Root => "map",
            Value::Time(_) => "struct",
            Value::Version(_) => "ptr",
        }
    }

    /// The value of a signed integer of any type.
    pub(crate) fn as_int(&self) -> Option<i64> {
        match self {
            Value::Int(value)
            | Value::Int64(value)
            | Value::Duration(value)
            | Value::Month(value)
            | Value::Weekday(value) => Some(*value),
            _ => None,
        }
    }

    /// Whether a condition takes it as true.
    pub(crate) fn is_true(&self) -> bool {
        match self {
            Value::Nil => false,
            Value::Bool(value) => *value,
            Value::Uint8(value) => *value != 0,
            Value::Float(value) => *value != 0.0,
            Value::Text(text) => !text.is_empty(),
            Value::List(list) => !list.items.is_empty(),
            Value::Dict(dict) => !dict.map.borrow().is_empty(),
            Value::Time(_) | Value::Version(_) | Value::Root => true,
            Value::Int(_) | Value::Int64(_) | Value::Duration(_) | Value::Month(_) | Value::Weekday(_) => {
                self.as_int() != Some(0)
            }
        }
    }

    /// Whether it is nil, or a slice without an array.
    pub(crate) fn is_nil(&self) -> bool {
        match self {
            Value::Nil => true,
            Value::List(list) => list.is_nil,
            _ => false,
        }
    }

    /// About how many bytes it takes to copy or print it, not counting what its items hold.
    pub(crate) fn size(&self) -> usize {
        match self {
            Value::Text(text) => text.len(),
            Value::List(list) => list.items.len() * 16,
            Value::Dict(dict) => dict.map.borrow().len() * 64,
            _ => 8,
        }
    }

    /// The value for the verbs of `fmt`, for [`format`].
    ///
    /// # Errors
    ///
    /// If it is nested too deeply, or holds itself.
    pub(crate) fn to_arg(&self) -> Result<Arg, String> {
        self.arg_at(0)
    }

    fn arg_at(&self, depth: usize) -> Result<Arg, String> {
        if depth > NESTING_MAX {
            return Err(too_deep());
        }
        let number = |value: i64| Box::new(Arg::Int(value));
        Ok(match self {
            Value::Nil | Value::Root => Arg::Nil,
            Value::Bool(value) => Arg::Bool(*value),
            Value::Int(value) => Arg::Int(*value),
            Value::Int64(value) => Arg::TypedInt("int64", *value),
            Value::Uint8(value) => Arg::TypedInt("uint8", i64::from(*value)),
            Value::Float(value) => Arg::Float(*value),
            Value::Text(text) => Arg::Text(shared(text)),
            Value::List(list) => {
                let items = list.items.iter().map(|item| item.arg_at(depth + 1));
                Arg::Slice(self.type_name(), items.collect::<Result<_, _>>()?)
            }
            Value::Dict(dict) => {
                let map = dict.map.borrow();
                let fields = map.iter().map(|(name, value)| Ok((shared(name), value.arg_at(depth + 1)?)));
                Arg::Map(self.type_name(), fields.collect::<Result<_, String>>()?)
            }
            Value::Time(time) => {
                let inner = Box::new(Arg::Opaque(self.type_name(), time.text()));
                Arg::Stringer(self.type_name(), Arc::from(time.text()), inner)
            }
            Value::Duration(value) => Arg::Stringer(
                self.type_name(),
                Arc::from(super::time_value::duration_text(*value)),
                Box::new(Arg::TypedInt("time.Duration", *value)),
            ),
            Value::Month(value) => {
                Arg::Stringer(self.type_name(), Arc::from(super::time_value::month_text(*value)), number(*value))
            }
            Value::Weekday(value) => {
                Arg::Stringer(self.type_name(), Arc::from(super::time_value::weekday_text(*value)), number(*value))
            }
            Value::Version(version) => {
                let inner = Box::new(Arg::Opaque(self.type_name(), version.to_string()));
                Arg::Stringer(self.type_name(), Arc::from(version.to_string()), inner)
            }
        })
    }

    /// As `fmt.Sprint` prints it alone.
    ///
    /// # Errors
    ///
    /// As [`to_arg`](Self::to_arg), or if the text is too large.
    pub(crate) fn print(&self) -> Result<Bytes, String> {
        match self {
            Value::Text(text) => Ok(text.clone()),
            value => format(b"%v", &[value.to_arg()?]).map(Bytes::from),
        }
    }

    /// Whether two values are deeply equal: of the same type and with equal contents.
    ///
    /// # Errors
    ///
    /// If they are nested too deeply.
    pub(crate) fn deep_equal(&self, other: &Value) -> Result<bool, String> {
        self.equal_at(other, 0)
    }

    fn equal_at(&self, other: &Value, depth: usize) -> Result<bool, String> {
        if depth > NESTING_MAX {
            return Err(too_deep());
        }
        Ok(match (self, other) {
            (Value::Nil, Value::Nil) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Float(a), Value::Float(b)) => a == b,
            (Value::Uint8(a), Value::Uint8(b)) => a == b,
            (Value::Text(a), Value::Text(b)) => a == b,
            (Value::Int(a), Value::Int(b))
            | (Value::Int64(a), Value::Int64(b))
            | (Value::Duration(a), Value::Duration(b))
            | (Value::Month(a), Value::Month(b))
            | (Value::Weekday(a), Value::Weekday(b)) => a == b,
            (Value::Time(a), Value::Time(b)) => a == b,
            (Value::Version(a), Value::Version(b)) => a == b,
            (Value::List(a), Value::List(b)) => {
                if a.kind != b.kind || a.is_nil != b.is_nil || a.items.len() != b.items.len() {
                    return Ok(false);
                }
                for (a, b) in a.items.iter().zip(&b.items) {
                    if !a.equal_at(b, depth + 1)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Value::Dict(a), Value::Dict(b)) => {
                if Rc::ptr_eq(a, b) {
                    return Ok(true);
                }
                let (left, right) = (a.map.borrow(), b.map.borrow());
                if a.texts != b.texts || left.len() != right.len() {
                    return Ok(false);
                }
                for ((name, a), (other, b)) in left.iter().zip(right.iter()) {
                    if name != other || !a.equal_at(b, depth + 1)? {
                        return Ok(false);
                    }
                }
                true
            }
            _ => false,
        })
    }
}

pub(crate) fn too_deep() -> String {
    format!("value is nested more than {NESTING_MAX} times")
}

/// Where bytes that are no UTF-8 stand among the characters while they are formatted, and what would be taken for them.
const BYTES_FROM: u32 = 0x10_ff00;

/// A text in which each byte that is no UTF-8 is one character.
fn shared(bytes: &[u8]) -> Arc<str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.bytes().any(|byte| byte == 0xf4) => Arc::from(text),
        _ => {
            let mut out = String::with_capacity(2 * bytes.len());
            for (at, character, len) in chars(bytes) {
                let is_byte = character == char::REPLACEMENT_CHARACTER && len == 1;
                if !is_byte && u32::from(character) < BYTES_FROM {
                    out.push(character);
                    continue;
                }
                let stand_in = |byte: &u8| char::from_u32(BYTES_FROM + u32::from(*byte));
                out.extend(bytes[at..at + len].iter().filter_map(stand_in));
            }
            Arc::from(out)
        }
    }
}

/// As `fmt.Sprintf`. Bytes that are no UTF-8 stay what they are.
pub(crate) fn format(format: &[u8], args: &[Arg]) -> Result<Vec<u8>, String> {
    let text =
        corten_config::gofmt::format_args(&shared(format), args).map_err(|_| "result is too large".to_owned())?;
    if !text.bytes().any(|byte| byte == 0xf4 || byte == b'\\') {
        return Ok(text.into_bytes());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(character) = rest.chars().next() {
        let byte = u32::from(character).checked_sub(BYTES_FROM).and_then(|byte| u8::try_from(byte).ok());
        match (byte, rest.strip_prefix("\\U0010ff")) {
            (Some(byte), _) => out.push(byte),
            // A stand-in within quotes.
            (None, Some(digits)) => {
                out.extend_from_slice(b"\\x");
                rest = digits;
                continue;
            }
            (None, None) => push(&mut out, character),
        }
        rest = &rest[character.len_utf8()..];
    }
    Ok(out)
}
