//! Values while statements run.

use std::borrow::Cow;
use std::cmp::Ordering;

use corten_golang::time::{Layout, Time};
use corten_otlp::{Arena, List, Map, Pair, Text, Value};

use crate::error::EvalError;

/// A value. What it refers to is in the arena of the item, or in the program.
#[derive(Clone, Debug, Default)]
pub enum Val<'p> {
    /// None.
    #[default]
    Nil,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Double(f64),
    /// A text of the arena.
    Text(Text),
    /// A text that was made, or that is written in the program.
    Str(Cow<'p, [u8]>),
    /// Bytes of the arena.
    Bytes(Text),
    /// Bytes that were made, or that are written in the program.
    ByteStr(Cow<'p, [u8]>),
    /// Values.
    List(List),
    /// Attributes.
    Map(Map),
    /// An instant.
    Time(Time),
    /// A time that passes, in nanoseconds.
    Duration(i64),
    /// The id of a trace.
    TraceId([u8; 16]),
    /// The id of a span.
    SpanId([u8; 8]),
    /// The id of a profile.
    ProfileId([u8; 16]),
    /// Parts of the item which are no values: what they are, and how many.
    Parts(&'static str, usize),
}

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    pub(crate) fn of_sign(sign: &str) -> Self {
        match sign {
            "==" => Comparison::Equal,
            "!=" => Comparison::NotEqual,
            "<" => Comparison::Less,
            "<=" => Comparison::LessOrEqual,
            ">" => Comparison::Greater,
            _ => Comparison::GreaterOrEqual,
        }
    }

    fn holds(self, order: Option<Ordering>) -> bool {
        match self {
            Comparison::Equal => order == Some(Ordering::Equal),
            Comparison::NotEqual => order != Some(Ordering::Equal),
            Comparison::Less => order == Some(Ordering::Less),
            Comparison::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
            Comparison::Greater => order == Some(Ordering::Greater),
            Comparison::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        }
    }

    /// Of values that are equal or not, and nothing else.
    fn equal(self, equal: bool) -> bool {
        match self {
            Comparison::Equal => equal,
            Comparison::NotEqual => !equal,
            _ => false,
        }
    }
}

impl From<Value> for Val<'_> {
    fn from(value: Value) -> Self {
        match value {
            Value::Empty => Val::Nil,
            Value::Str(text) => Val::Text(text),
            Value::Bool(value) => Val::Bool(value),
            Value::Int(value) => Val::Int(value),
            Value::Double(value) => Val::Double(value),
            Value::Bytes(bytes) => Val::Bytes(bytes),
            Value::List(list) => Val::List(list),
            Value::Map(map) => Val::Map(map),
        }
    }
}

impl From<&'static str> for Val<'_> {
    fn from(text: &'static str) -> Self {
        Val::Str(Cow::Borrowed(text.as_bytes()))
    }
}

impl From<String> for Val<'_> {
    fn from(text: String) -> Self {
        Val::Str(Cow::Owned(text.into_bytes()))
    }
}

impl From<Vec<u8>> for Val<'_> {
    fn from(text: Vec<u8>) -> Self {
        Val::Str(Cow::Owned(text))
    }
}

impl<'p> Val<'p> {
    /// What the type is called in messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Val::Nil => "nil",
            Val::Bool(_) => "bool",
            Val::Int(_) => "int64",
            Val::Double(_) => "float64",
            Val::Text(_) | Val::Str(_) => "string",
            Val::Bytes(_) | Val::ByteStr(_) => "[]uint8",
            Val::List(_) => "pcommon.Slice",
            Val::Map(_) => "pcommon.Map",
            Val::Time(_) => "time.Time",
            Val::Duration(_) => "time.Duration",
            Val::TraceId(_) => "pcommon.TraceID",
            Val::SpanId(_) => "pcommon.SpanID",
            Val::ProfileId(_) => "pprofile.ProfileID",
            Val::Parts(name, _) => name,
        }
    }

    /// Whether there is no value. No bytes are no value either.
    pub fn is_nil(&self) -> bool {
        match self {
            Val::Nil => true,
            Val::Bytes(bytes) => bytes.is_empty(),
            Val::ByteStr(bytes) => bytes.is_empty(),
            _ => false,
        }
    }

    /// The text, if it is one.
    pub fn text<'a>(&'a self, arena: &'a Arena) -> Option<&'a [u8]> {
        match self {
            Val::Text(text) => Some(arena.bytes(*text)),
            Val::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The bytes, if it is bytes and no text.
    pub fn byte_str<'a>(&'a self, arena: &'a Arena) -> Option<&'a [u8]> {
        match self {
            Val::Bytes(bytes) => Some(arena.bytes(*bytes)),
            Val::ByteStr(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The value as one of the arena that nothing else shares.
    pub(crate) fn into_value(self, arena: &mut Arena) -> Result<Value, EvalError> {
        Ok(match self {
            Val::Nil => Value::Empty,
            Val::Bool(value) => Value::Bool(value),
            Val::Int(value) => Value::Int(value),
            Val::Double(value) => Value::Double(value),
            Val::Text(text) => Value::Str(text),
            Val::Str(text) => Value::Str(arena.own(&text)),
            Val::Bytes(bytes) => Value::Bytes(bytes),
            Val::ByteStr(bytes) => Value::Bytes(arena.own(&bytes)),
            Val::List(list) => Value::List(copy_list(arena, list)),
            Val::Map(map) => Value::Map(copy_map(arena, map)),
            other => return Err(format!("a value of type {} cannot be kept in telemetry", other.type_name()).into()),
        })
    }

    /// Compares two values.
    pub(crate) fn compare(&self, comparison: Comparison, other: &Val<'_>, arena: &Arena) -> bool {
        match (self, other) {
            (a, b) if a.is_nil() || b.is_nil() => match (a.is_nil() && b.is_nil(), comparison) {
                (true, comparison) => comparison.holds(Some(Ordering::Equal)),
                (false, comparison) => comparison == Comparison::NotEqual,
            },
            (Val::Bool(a), Val::Bool(b)) => comparison.holds(Some(a.cmp(b))),
            (Val::Int(a), Val::Int(b)) => comparison.holds(Some(a.cmp(b))),
            (Val::Int(a), Val::Double(b)) => comparison.holds((*a as f64).partial_cmp(b)),
            (Val::Double(a), Val::Int(b)) => comparison.holds(a.partial_cmp(&(*b as f64))),
            (Val::Double(a), Val::Double(b)) => comparison.holds(a.partial_cmp(b)),
            (Val::Duration(a), Val::Duration(b)) => comparison.holds(Some(a.cmp(b))),
            (Val::Time(a), Val::Time(b)) => {
                comparison.holds(Some((a.seconds, a.nanoseconds).cmp(&(b.seconds, b.nanoseconds))))
            }
            (Val::TraceId(a), Val::TraceId(b)) | (Val::ProfileId(a), Val::ProfileId(b)) => comparison.equal(a == b),
            (Val::SpanId(a), Val::SpanId(b)) => comparison.equal(a == b),
            (Val::Map(a), Val::Map(b)) => comparison.equal(arena.same_map(*a, arena, *b)),
            (Val::List(a), Val::List(b)) => comparison.equal(arena.same(Value::List(*a), arena, Value::List(*b))),
            (a, b) => {
                if let (Some(a), Some(b)) = (a.text(arena), b.text(arena)) {
                    return comparison.holds(Some(a.cmp(b)));
                }
                if let (Some(a), Some(b)) = (a.byte_str(arena), b.byte_str(arena)) {
                    return comparison.holds(Some(a.cmp(b)));
                }
                comparison == Comparison::NotEqual
            }
        }
    }

    /// The value as a text where a text is wanted of anything: nothing for no value.
    pub(crate) fn text_like(&self, arena: &Arena) -> Result<Option<Cow<'_, [u8]>>, EvalError> {
        let owned = |text: String| Ok(Some(Cow::Owned(text.into_bytes())));
        match self {
            Val::Nil => Ok(None),
            Val::Str(text) => Ok(Some(Cow::Borrowed(text))),
            Val::Text(text) => Ok(Some(Cow::Owned(arena.bytes(*text).to_vec()))),
            Val::Bytes(_) | Val::ByteStr(_) => owned(hex(self.byte_str(arena).unwrap_or_default())),
            Val::Bool(value) => owned(value.to_string()),
            Val::Int(value) | Val::Duration(value) => owned(value.to_string()),
            Val::Double(value) => {
                if !value.is_finite() {
                    return Err("json: unsupported value: a number that is not finite".into());
                }
                let mut out = Vec::new();
                arena.write_json(Value::Double(*value), &mut out);
                Ok(Some(Cow::Owned(out)))
            }
            Val::Map(map) => Ok(Some(Cow::Owned(html_json(arena, Value::Map(*map))))),
            Val::List(list) => Ok(Some(Cow::Owned(html_json(arena, Value::List(*list))))),
            // Of years, JSON's times have four digits.
            Val::Time(time) => match rfc3339(time) {
                text if text.find('-') == Some(4) => owned(format!("\"{text}\"")),
                _ => Err("unsupported type: time.Time".into()),
            },
            Val::TraceId(id) | Val::ProfileId(id) => owned(numbers(id)),
            Val::SpanId(id) => owned(numbers(id)),
            Val::Parts(name, _) => Err(format!("unsupported type: {name}").into()),
        }
    }
}

/// A time as Go prints it in JSON.
pub(crate) fn rfc3339(time: &Time) -> String {
    static LAYOUT: std::sync::LazyLock<Layout> =
        std::sync::LazyLock::new(|| Layout::new("2006-01-02T15:04:05.999999999Z07:00"));
    LAYOUT.format(time)
}

/// An array of bytes as JSON.
fn numbers(id: &[u8]) -> String {
    let numbers: Vec<String> = id.iter().map(u8::to_string).collect();
    format!("[{}]", numbers.join(","))
}

/// Hexadecimal digits in lower case.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    digits.map(char::from).collect()
}

/// The bytes of hexadecimal digits in either case.
pub(crate) fn unhex(digits: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some(digit(*high)? * 16 + digit(*low)?)).collect()
}

/// JSON that is fit to be put into HTML, as Go writes it unless told otherwise.
pub(crate) fn html_json(arena: &Arena, value: Value) -> Vec<u8> {
    let mut plain = Vec::new();
    arena.write_json(value, &mut plain);
    if !plain.iter().any(|byte| matches!(byte, b'<' | b'>' | b'&')) {
        return plain;
    }
    let mut out = Vec::with_capacity(plain.len() + 32);
    for byte in plain {
        match byte {
            b'<' | b'>' | b'&' => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            byte => out.push(byte),
        }
    }
    out
}

/// A map that can be changed without the other one, to full depth.
pub(crate) fn copy_map(arena: &mut Arena, map: Map) -> Map {
    let copied = arena.copy_map(map);
    for at in 0..copied.len() {
        let value = arena.pairs(copied)[at].value;
        let value = copy_value(arena, value);
        arena.pairs_mut(copied)[at].value = value;
    }
    copied
}

fn copy_list(arena: &mut Arena, list: List) -> List {
    let values: Vec<Value> = arena.values(list).to_vec();
    let copied = arena.list(&values);
    for at in 0..copied.len() {
        let value = arena.values(copied)[at];
        let value = copy_value(arena, value);
        arena.values_mut(copied)[at] = value;
    }
    copied
}

/// A value that can be changed without the other one, to full depth.
pub(crate) fn copy_value(arena: &mut Arena, value: Value) -> Value {
    match value {
        Value::Map(map) => Value::Map(copy_map(arena, map)),
        Value::List(list) => Value::List(copy_list(arena, list)),
        other => other,
    }
}

/// A value that is written in a statement.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Const {
    Nil,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(Box<[u8]>),
    Bytes(Box<[u8]>),
    List(Vec<Const>),
    Map(Vec<(Box<[u8]>, Const)>),
}

impl Const {
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Const::Nil => "nil",
            Const::Bool(_) => "bool",
            Const::Int(_) => "int64",
            Const::Double(_) => "float64",
            Const::Text(_) => "string",
            Const::Bytes(_) => "[]uint8",
            Const::List(_) => "[]interface {}",
            Const::Map(_) => "pcommon.Map",
        }
    }

    /// The value; lists and maps are built anew.
    pub(crate) fn val<'p>(&'p self, arena: &mut Arena) -> Val<'p> {
        match self {
            Const::Nil => Val::Nil,
            Const::Bool(value) => Val::Bool(*value),
            Const::Int(value) => Val::Int(*value),
            Const::Double(value) => Val::Double(*value),
            Const::Text(text) => Val::Str(Cow::Borrowed(text)),
            Const::Bytes(bytes) => Val::ByteStr(Cow::Borrowed(bytes)),
            Const::List(_) | Const::Map(_) => Val::from(self.value(arena)),
        }
    }

    fn value(&self, arena: &mut Arena) -> Value {
        match self {
            Const::Nil => Value::Empty,
            Const::Bool(value) => Value::Bool(*value),
            Const::Int(value) => Value::Int(*value),
            Const::Double(value) => Value::Double(*value),
            Const::Text(text) => Value::Str(arena.own(text)),
            Const::Bytes(bytes) => Value::Bytes(arena.own(bytes)),
            Const::List(values) => {
                let values: Vec<Value> = values.iter().map(|value| value.value(arena)).collect();
                Value::List(arena.list(&values))
            }
            Const::Map(pairs) => {
                let pairs: Vec<Pair> =
                    pairs.iter().map(|(key, value)| Pair { key: arena.own(key), value: value.value(arena) }).collect();
                Value::Map(arena.map(&pairs))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_compared_as_the_language_says() {
        let mut arena = Arena::default();
        let text = Val::Text(arena.own(b"b"));
        let list = arena.list(&[Value::Int(1)]);
        let same = arena.list(&[Value::Int(1)]);
        let other = arena.list(&[Value::Double(1.0)]);
        let signs = ["==", "!=", "<", "<=", ">", ">="];
        for (a, b, holds) in [
            (Val::Nil, Val::Nil, "==<=>="),
            (Val::Nil, Val::Int(0), "!="),
            (Val::Int(1), Val::Double(1.0), "==<=>="),
            (Val::Double(1.5), Val::Int(2), "!=<<="),
            (Val::Double(f64::NAN), Val::Double(f64::NAN), "!="),
            (text.clone(), Val::from("b"), "==<=>="),
            (text.clone(), Val::from("c"), "!=<<="),
            (text, Val::Int(1), "!="),
            (Val::Bool(false), Val::Bool(true), "!=<<="),
            (Val::ByteStr(vec![].into()), Val::Nil, "==<=>="),
            (Val::ByteStr(vec![2].into()), Val::ByteStr(vec![1, 1].into()), "!=>>="),
            (Val::ByteStr(vec![2].into()), Val::from("\u{2}"), "!="),
            (Val::List(list), Val::List(same), "=="),
            (Val::List(list), Val::List(other), "!="),
            (Val::SpanId([1; 8]), Val::SpanId([1; 8]), "=="),
            (Val::SpanId([1; 8]), Val::from("0101010101010101"), "!="),
            (Val::Duration(1), Val::Duration(2), "!=<<="),
            (Val::Duration(1), Val::Int(1), "!="),
            (Val::Time(Time::utc(1, 5)), Val::Time(Time::utc(1, 4)), "!=>>="),
        ] {
            for sign in signs {
                let expected = match sign {
                    "<" => holds.replace("<=", "").contains('<'),
                    ">" => holds.replace(">=", "").contains('>'),
                    "==" => holds.starts_with("=="),
                    sign => holds.contains(sign),
                };
                let found = a.compare(Comparison::of_sign(sign), &b, &arena);
                assert_eq!(found, expected, "{a:?} {sign} {b:?}");
            }
        }
    }

    #[test]
    fn a_copy_shares_nothing_that_can_change() {
        let mut arena = Arena::default();
        let mut inner = Map::default();
        arena.put(&mut inner, b"k", Value::Int(1));
        let list = arena.list(&[Value::Map(inner)]);
        let mut outer = Map::default();
        arena.put(&mut outer, b"l", Value::List(list));
        let copied = copy_map(&mut arena, outer);
        arena.pairs_mut(inner)[0].value = Value::Int(2);
        let json = |map| {
            let mut out = Vec::new();
            arena.write_json(Value::Map(map), &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!((json(outer), json(copied)), (r#"{"l":[{"k":2}]}"#.into(), r#"{"l":[{"k":1}]}"#.into()));
    }
}
