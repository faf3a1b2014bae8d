//! Values of entries and of configurations.

use std::borrow::{Borrow, Cow};
use std::collections::HashMap;
use std::fmt;
use std::ops::{Deref, Range};

use bytes::Bytes;
use corten_golang::time::Time;

/// A text, which need not be UTF-8. A copy and a part of it share its bytes.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Text(Bytes);

impl Text {
    /// A text of the program's own.
    pub const fn of(text: &'static str) -> Self {
        Text(Bytes::from_static(text.as_bytes()))
    }

    /// The bytes, which go on living with it.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// A part of it.
    #[must_use]
    pub fn part(&self, range: Range<usize>) -> Self {
        Text(self.0.slice(range))
    }

    /// The text, with replacement characters where it is not UTF-8.
    pub fn lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
}

impl Deref for Text {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for Text {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl From<Bytes> for Text {
    fn from(bytes: Bytes) -> Self {
        Text(bytes)
    }
}

impl From<Vec<u8>> for Text {
    fn from(bytes: Vec<u8>) -> Self {
        Text(bytes.into())
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Text(text.into())
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Text(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<&[u8]> for Text {
    fn from(bytes: &[u8]) -> Self {
        Text(Bytes::copy_from_slice(bytes))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.lossy())
    }
}

/// A value.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// No value.
    #[default]
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// A text.
    Str(Text),
    /// Bytes that are no text.
    Bytes(Bytes),
    /// A time.
    Time(Time),
    /// Values.
    List(Vec<Value>),
    /// Values by keys.
    Map(Map),
}

impl Value {
    /// A text as a value.
    pub fn str(text: impl Into<Text>) -> Self {
        Value::Str(text.into())
    }

    /// What Go calls the type, as error messages do.
    pub fn go_type(&self) -> &'static str {
        match self {
            Value::Null => "<nil>",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float64",
            Value::Str(_) => "string",
            Value::Bytes(_) => "[]uint8",
            Value::Time(_) => "time.Time",
            Value::List(_) => "[]interface {}",
            Value::Map(_) => "map[string]interface {}",
        }
    }

    /// The text of a text.
    pub fn as_text(&self) -> Option<&Text> {
        if let Value::Str(text) = self { Some(text) } else { None }
    }

    /// The pairs of a map.
    pub fn as_map(&self) -> Option<&Map> {
        if let Value::Map(map) = self { Some(map) } else { None }
    }

    /// The pairs of a map, to be changed. What is none becomes an empty one.
    pub(crate) fn map_mut(&mut self) -> &mut Map {
        if !matches!(self, Value::Map(_)) {
            *self = Value::Map(Map::default());
        }
        match self {
            Value::Map(map) => map,
            _ => unreachable!("it was made a map"),
        }
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Value::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Value::Int(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Value::Float(value)
    }
}

impl From<Map> for Value {
    fn from(map: Map) -> Self {
        Value::Map(map)
    }
}

/// From so many pairs on places are looked up rather than looked for.
const INDEX_MIN: usize = 24;

/// Values by keys, in the order in which the keys came. A key stands in it once.
#[derive(Clone, Default)]
pub struct Map {
    pairs: Vec<(Text, Value)>,
    /// Where the keys stand, where there are many.
    index: Option<HashMap<Text, usize>>,
}

impl Map {
    /// A map with room for so many pairs.
    pub fn with_capacity(pairs: usize) -> Self {
        Map { pairs: Vec::with_capacity(pairs), index: None }
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    fn position(&self, key: &[u8]) -> Option<usize> {
        match &self.index {
            Some(index) => index.get(key).copied(),
            None => self.pairs.iter().position(|(known, _)| **known == *key),
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Option<&Value> {
        self.position(key).map(|at| &self.pairs[at].1)
    }

    /// The value of a key, to be changed.
    pub fn get_mut(&mut self, key: &[u8]) -> Option<&mut Value> {
        self.position(key).map(|at| &mut self.pairs[at].1)
    }

    /// Gives a key a value, whether or not it is there already.
    pub fn put(&mut self, key: Text, value: Value) {
        if let Some(at) = self.position(&key) {
            self.pairs[at].1 = value;
            return;
        }
        if self.pairs.len() >= INDEX_MIN {
            let pairs = &self.pairs;
            let index = self
                .index
                .get_or_insert_with(|| pairs.iter().enumerate().map(|(at, (key, _))| (key.clone(), at)).collect());
            index.insert(key.clone(), self.pairs.len());
        }
        self.pairs.push((key, value));
    }

    /// Takes a key out of it, and says what its value was.
    pub fn remove(&mut self, key: &[u8]) -> Option<Value> {
        let at = self.position(key)?;
        self.index = None;
        Some(self.pairs.remove(at).1)
    }

    /// The pairs in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &(Text, Value)> {
        self.pairs.iter()
    }

    /// Takes over the pairs of another map.
    pub fn merge(&mut self, other: Map) {
        if self.is_empty() {
            *self = other;
            return;
        }
        self.pairs.reserve(other.pairs.len());
        other.pairs.into_iter().for_each(|(key, value)| self.put(key, value));
    }
}

impl IntoIterator for Map {
    type Item = (Text, Value);
    type IntoIter = std::vec::IntoIter<(Text, Value)>;

    fn into_iter(self) -> Self::IntoIter {
        self.pairs.into_iter()
    }
}

impl FromIterator<(Text, Value)> for Map {
    fn from_iter<I: IntoIterator<Item = (Text, Value)>>(pairs: I) -> Self {
        let mut map = Map::default();
        pairs.into_iter().for_each(|(key, value)| map.put(key, value));
        map
    }
}

/// Maps are the same in any order.
impl PartialEq for Map {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().all(|(key, value)| other.get(key) == Some(value))
    }
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.pairs.iter().map(|(key, value)| (key, value))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stands_once_in_a_map_however_many_there_are() {
        for count in [1, INDEX_MIN, INDEX_MIN + 1, 5_000] {
            let mut map = Map::default();
            for turn in 0..2 {
                for at in 0..count {
                    map.put(Text::from(format!("key{at}")), Value::Int((turn * count + at) as i64));
                }
            }
            assert_eq!(map.len(), count);
            assert_eq!(map.get(b"key0"), Some(&Value::Int(count as i64)));
            assert_eq!(map.remove(b"key0"), Some(Value::Int(count as i64)));
            assert_eq!((map.get(b"key0"), map.len()), (None, count - 1));
            map.put(Text::of("key0"), Value::Null);
            assert_eq!(map.iter().last().unwrap().0, Text::of("key0"));
        }
    }
}
