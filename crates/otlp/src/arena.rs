//! Texts, values and attributes of decoded telemetry.
//!
//! What was received stays in the buffer it was received in: a text is a place in it, and attributes stand one after the
//! other in one table for the whole batch. Decoding allocates for tables, not for records, and a copy of a batch copies
//! tables. What is written anew goes to the end of them.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use corten_golang::json::{Form, push_number, push_string};
use corten_signal::labels::varint_len;

use crate::proto::{BYTES, Back, FIXED64, Malformed, Reader, VARINT};

/// A place of a text in an [`Arena`].
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Text {
    at: u32,
    len: u32,
}

/// Texts from here on are the arena's own.
const OWN: u32 = 1 << 31;

impl Text {
    /// The empty text.
    pub const EMPTY: Text = Text { at: 0, len: 0 };

    /// How long it is, in bytes.
    pub fn len(self) -> usize {
        self.len as usize
    }

    /// Whether it is empty.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// A place in the buffer that was received.
    pub(crate) fn received((start, end): (usize, usize)) -> Self {
        Text { at: start as u32, len: (end - start) as u32 }
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:+}", self.at, self.len)
    }
}

/// Attributes: pairs that stand one after the other. Keys need not differ; the first of a key counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Map {
    at: u32,
    len: u32,
}

impl Map {
    /// How many pairs there are.
    pub fn len(self) -> usize {
        self.len as usize
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }
}

/// Values that stand one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct List {
    at: u32,
    len: u32,
}

impl List {
    /// How many values there are.
    pub fn len(self) -> usize {
        self.len as usize
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }
}

/// A value of an attribute, or the body of a log record. Its texts and its parts are in an [`Arena`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Value {
    /// No value.
    #[default]
    Empty,
    /// A text. It need not be UTF-8.
    Str(Text),
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Double(f64),
    /// Bytes that are no text.
    Bytes(Text),
    /// Values.
    List(List),
    /// Attributes.
    Map(Map),
}

/// An attribute.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// Its key.
    pub key: Text,
    /// Its value.
    pub value: Value,
}

/// What the records of a batch refer to.
#[derive(Clone, Default)]
pub struct Arena {
    received: Bytes,
    own: Vec<u8>,
    pairs: Vec<Pair>,
    values: Vec<Value>,
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena")
            .field("received", &self.received.len())
            .field("own", &self.own.len())
            .field("pairs", &self.pairs.len())
            .field("values", &self.values.len())
            .finish()
    }
}

impl Arena {
    /// An arena whose records were received in a buffer of at most [`crate::MESSAGE_BYTES_MAX`].
    pub(crate) fn of(received: Bytes) -> Self {
        Arena { received, ..Arena::default() }
    }

    /// How much memory it keeps, in bytes.
    pub fn held_bytes(&self) -> usize {
        self.received.len()
            + self.own.capacity()
            + self.pairs.capacity() * size_of::<Pair>()
            + self.values.capacity() * size_of::<Value>()
    }

    /// The bytes of a text.
    #[inline]
    pub fn bytes(&self, text: Text) -> &[u8] {
        let (buffer, at) = match text.at.checked_sub(OWN) {
            Some(at) => (&*self.own, at as usize),
            None => (&*self.received, text.at as usize),
        };
        buffer.get(at..at + text.len as usize).unwrap_or_default()
    }

    /// A text, with replacement characters where it is not UTF-8.
    pub fn text(&self, text: Text) -> std::borrow::Cow<'_, str> {
        lossy(self.bytes(text))
    }

    /// Copies a text. What is beyond 2 GiB of own texts is cut off.
    pub fn own(&mut self, bytes: &[u8]) -> Text {
        if bytes.is_empty() {
            return Text::EMPTY;
        }
        let at = self.own.len();
        let len = bytes.len().min((OWN - 1) as usize - at);
        self.own.extend_from_slice(&bytes[..len]);
        Text { at: OWN + at as u32, len: len as u32 }
    }

    /// A part of a text.
    pub fn part(&self, text: Text, range: std::ops::Range<usize>) -> Text {
        let end = range.end.min(text.len());
        let start = range.start.min(end);
        Text { at: text.at + start as u32, len: (end - start) as u32 }
    }

    /// Copies a text as a value.
    pub fn own_str(&mut self, text: &str) -> Value {
        Value::Str(self.own(text.as_bytes()))
    }

    /// The pairs of a map.
    #[inline]
    pub fn pairs(&self, map: Map) -> &[Pair] {
        self.pairs.get(map.at as usize..(map.at + map.len) as usize).unwrap_or_default()
    }

    /// The pairs of a map, to be changed in place.
    pub fn pairs_mut(&mut self, map: Map) -> &mut [Pair] {
        self.pairs.get_mut(map.at as usize..(map.at + map.len) as usize).unwrap_or_default()
    }

    /// The values of a list.
    #[inline]
    pub fn values(&self, list: List) -> &[Value] {
        self.values.get(list.at as usize..(list.at + list.len) as usize).unwrap_or_default()
    }

    /// The values of a list, to be changed in place.
    pub fn values_mut(&mut self, list: List) -> &mut [Value] {
        self.values.get_mut(list.at as usize..(list.at + list.len) as usize).unwrap_or_default()
    }

    /// Where in a map the first pair with a key stands.
    #[inline]
    pub fn position(&self, map: Map, key: &[u8]) -> Option<usize> {
        self.pairs(map).iter().position(|pair| pair.key.len() == key.len() && self.bytes(pair.key) == key)
    }

    /// The value of a key.
    #[inline]
    pub fn get(&self, map: Map, key: &[u8]) -> Option<Value> {
        self.position(map, key).map(|at| self.pairs(map)[at].value)
    }

    /// Adds a pair at the end of a map, whether or not the key is there already.
    pub fn push(&mut self, map: &mut Map, key: Text, value: Value) {
        if (map.at + map.len) as usize != self.pairs.len() {
            // Something stands behind it. It moves to the end, where further pairs find room.
            let at = self.pairs.len() as u32;
            self.pairs.extend_from_within(map.at as usize..(map.at + map.len) as usize);
            map.at = at;
        }
        self.pairs.push(Pair { key, value });
        map.len += 1;
    }

    /// Gives a key a value, whether or not it is there already.
    pub fn put(&mut self, map: &mut Map, key: &[u8], value: Value) {
        match self.position(*map, key) {
            Some(at) => self.pairs_mut(*map)[at].value = value,
            None => {
                let key = self.own(key);
                self.push(map, key, value);
            }
        }
    }

    /// Keeps the pairs of which `keep` says so, in their order.
    pub fn retain(&mut self, map: &mut Map, mut keep: impl FnMut(&Self, &Pair) -> bool) {
        let mut kept = 0;
        for at in 0..map.len {
            let pair = self.pairs[(map.at + at) as usize];
            if keep(self, &pair) {
                self.pairs[(map.at + kept) as usize] = pair;
                kept += 1;
            }
        }
        map.len = kept;
    }

    /// Takes the first pair with a key out of a map, and says what its value was.
    pub fn remove(&mut self, map: &mut Map, key: &[u8]) -> Option<Value> {
        let at = self.position(*map, key)?;
        let pairs = self.pairs_mut(*map);
        let value = pairs[at].value;
        pairs.copy_within(at + 1.., at);
        map.len -= 1;
        Some(value)
    }

    /// A map of pairs.
    pub fn map(&mut self, pairs: &[Pair]) -> Map {
        let at = self.pairs.len() as u32;
        self.pairs.extend_from_slice(pairs);
        Map { at, len: pairs.len() as u32 }
    }

    /// A list of values.
    pub fn list(&mut self, values: &[Value]) -> List {
        let at = self.values.len() as u32;
        self.values.extend_from_slice(values);
        List { at, len: values.len() as u32 }
    }

    /// A map that can be changed without the other one. Values within values are shared.
    pub fn copy_map(&mut self, map: Map) -> Map {
        let at = self.pairs.len() as u32;
        self.pairs.extend_from_within(map.at as usize..(map.at + map.len) as usize);
        Map { at, len: map.len }
    }

    /// Brings a text here from another arena.
    pub fn carry_text(&mut self, from: &Arena, text: Text) -> Text {
        self.own(from.bytes(text))
    }

    /// Brings a value here from another arena.
    pub fn carry(&mut self, from: &Arena, value: Value) -> Value {
        match value {
            Value::Str(text) => Value::Str(self.carry_text(from, text)),
            Value::Bytes(bytes) => Value::Bytes(self.carry_text(from, bytes)),
            Value::Map(map) => Value::Map(self.carry_map(from, map)),
            Value::List(list) => {
                let values: Vec<Value> = from.values(list).iter().map(|value| self.carry(from, *value)).collect();
                Value::List(self.list(&values))
            }
            other => other,
        }
    }

    /// Brings attributes here from another arena.
    pub fn carry_map(&mut self, from: &Arena, map: Map) -> Map {
        let simple = |pair: &Pair| !matches!(pair.value, Value::Map(_) | Value::List(_));
        if from.pairs(map).iter().all(simple) {
            // The common case needs no list of its own.
            let at = self.pairs.len() as u32;
            for pair in from.pairs(map) {
                let (key, value) = (self.carry_text(from, pair.key), self.carry(from, pair.value));
                self.pairs.push(Pair { key, value });
            }
            return Map { at, len: map.len };
        }
        let carried = from.pairs(map).iter();
        let pairs: Vec<Pair> = carried
            .map(|pair| Pair { key: self.carry_text(from, pair.key), value: self.carry(from, pair.value) })
            .collect();
        self.map(&pairs)
    }

    /// Whether two values say the same. Attributes may stand in any order.
    pub fn same(&self, value: Value, other: &Arena, than: Value) -> bool {
        match (value, than) {
            (Value::Str(a), Value::Str(b)) | (Value::Bytes(a), Value::Bytes(b)) => self.bytes(a) == other.bytes(b),
            (Value::List(a), Value::List(b)) => {
                a.len() == b.len() && self.values(a).iter().zip(other.values(b)).all(|(a, b)| self.same(*a, other, *b))
            }
            (Value::Map(a), Value::Map(b)) => self.same_map(a, other, b),
            (a, b) => a == b,
        }
    }

    /// Whether two maps say the same, in any order.
    pub fn same_map(&self, map: Map, other: &Arena, than: Map) -> bool {
        map.len() == than.len()
            && self.pairs(map).iter().all(|pair| {
                let found = other.get(than, self.bytes(pair.key));
                found.is_some_and(|found| self.same(pair.value, other, found))
            })
    }

    /// A value as a text: what is none is written as the collector writes it, attributes and lists as JSON.
    pub fn write_text(&self, value: Value, out: &mut Vec<u8>) {
        match value {
            Value::Empty => {}
            Value::Str(text) => out.extend_from_slice(self.bytes(text)),
            Value::Bytes(bytes) => out.extend_from_slice(STANDARD.encode(self.bytes(bytes)).as_bytes()),
            Value::Double(double) if !double.is_finite() => {
                out.extend_from_slice(match double {
                    d if d.is_nan() => b"NaN",
                    d if d > 0.0 => b"Infinity",
                    _ => b"-Infinity",
                });
            }
            other => self.write_json(other, out),
        }
    }

    /// A value as a text, with replacement characters where it is not UTF-8.
    pub fn to_text(&self, value: Value) -> String {
        let mut out = Vec::new();
        self.write_text(value, &mut out);
        String::from_utf8(out).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }

    /// A value as JSON: keys in the order of their bytes, numbers as Go writes them, bytes in base 64.
    pub fn write_json(&self, value: Value, out: &mut Vec<u8>) {
        match value {
            Value::Empty => out.extend_from_slice(b"null"),
            Value::Str(text) => push_string(self.bytes(text), Form::PLAIN, out),
            Value::Bool(value) => out.extend_from_slice(if value { b"true" } else { b"false" }),
            Value::Int(value) => out.extend_from_slice(value.to_string().as_bytes()),
            Value::Double(value) => write_json_double(value, Form::PLAIN, out),
            Value::Bytes(bytes) => {
                out.push(b'"');
                out.extend_from_slice(STANDARD.encode(self.bytes(bytes)).as_bytes());
                out.push(b'"');
            }
            Value::List(list) => {
                out.push(b'[');
                for (at, value) in self.values(list).iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    self.write_json(*value, out);
                }
                out.push(b']');
            }
            Value::Map(map) => {
                // Of equal keys the last one counts, as in a map that is filled in order.
                let mut pairs: Vec<&Pair> = self.pairs(map).iter().collect();
                pairs.sort_by(|a, b| self.bytes(a.key).cmp(self.bytes(b.key)));
                out.push(b'{');
                let mut first = true;
                for (at, pair) in pairs.iter().enumerate() {
                    if pairs.get(at + 1).is_some_and(|next| self.bytes(next.key) == self.bytes(pair.key)) {
                        continue;
                    }
                    if !std::mem::take(&mut first) {
                        out.push(b',');
                    }
                    push_string(self.bytes(pair.key), Form::PLAIN, out);
                    out.push(b':');
                    self.write_json(pair.value, out);
                }
                out.push(b'}');
            }
        }
    }

    /// Reads a `KeyValue` and adds it to the end of the table. What lies within its value is left for `later`.
    pub(crate) fn read_pair(&mut self, mut reader: Reader<'_>, later: &mut Later) -> Result<(), Malformed> {
        let mut pair = Pair { key: Text::EMPTY, value: Value::Empty };
        let place = Place::Pair(self.pairs.len() as u32);
        while let Some((number, wire_type)) = reader.field()? {
            match (number, wire_type) {
                (1, BYTES) => pair.key = Text::received(reader.bytes()?),
                (2, BYTES) => pair.value = self.read_value(reader.message()?, place, later)?,
                _ => reader.skip(wire_type)?,
            }
        }
        self.pairs.push(pair);
        Ok(())
    }

    /// Reads an `AnyValue`.
    #[inline]
    fn read_value(&mut self, mut reader: Reader<'_>, place: Place, later: &mut Later) -> Result<Value, Malformed> {
        let mut value = Value::Empty;
        while let Some((number, wire_type)) = reader.field()? {
            value = match (number, wire_type) {
                (1, BYTES) => Value::Str(Text::received(reader.bytes()?)),
                (2, VARINT) => Value::Bool(reader.varint()? != 0),
                (3, VARINT) => Value::Int(reader.varint()? as i64),
                (4, FIXED64) => Value::Double(reader.double()?),
                (5, BYTES) => {
                    later.push(place, false, reader.bytes()?);
                    Value::List(List::default())
                }
                (6, BYTES) => {
                    later.push(place, true, reader.bytes()?);
                    Value::Map(Map::default())
                }
                (7, BYTES) => Value::Bytes(Text::received(reader.bytes()?)),
                _ => {
                    reader.skip(wire_type)?;
                    value
                }
            };
        }
        Ok(value)
    }

    /// Reads an `AnyValue` that is no attribute's, with all within.
    pub(crate) fn read_body(&mut self, reader: Reader<'_>, later: &mut Later) -> Result<Value, Malformed> {
        // It is read into the table of values and taken from there.
        let at = self.values.len() as u32;
        self.values.push(Value::Empty);
        self.values[at as usize] = self.read_value(reader, Place::Value(at), later)?;
        self.read_later(later)?;
        let value = self.values[at as usize];
        if self.values.len() as u32 == at + 1 {
            self.values.pop();
        }
        Ok(value)
    }

    /// A mark of how much there is.
    pub(crate) fn mark(&self) -> (usize, usize) {
        (self.pairs.len(), self.values.len())
    }

    /// Forgets what was read since a mark.
    pub(crate) fn forget_since(&mut self, (pairs, values): (usize, usize)) {
        self.pairs.truncate(pairs);
        self.values.truncate(values);
    }

    /// A mark of where the next pair will stand.
    pub(crate) fn pairs_mark(&self) -> u32 {
        self.pairs.len() as u32
    }

    /// The pairs that were read since a mark, with all that lies within them.
    pub(crate) fn pairs_since(&mut self, mark: u32, later: &mut Later) -> Result<Map, Malformed> {
        let map = Map { at: mark, len: self.pairs.len() as u32 - mark };
        self.read_later(later)?;
        Ok(map)
    }

    /// Reads what was left for later. The parts of one value stand together, so that one is read after the other.
    pub(crate) fn read_later(&mut self, later: &mut Later) -> Result<(), Malformed> {
        while let Some((place, is_map, (start, end))) = later.0.pop() {
            let received = self.received.clone();
            let mut reader = Reader::new(&received, start, end);
            let value = if is_map {
                let mark = self.pairs_mark();
                while let Some((number, wire_type)) = reader.field()? {
                    match (number, wire_type) {
                        (1, BYTES) => self.read_pair(reader.message()?, later)?,
                        _ => reader.skip(wire_type)?,
                    }
                }
                Value::Map(Map { at: mark, len: self.pairs_mark() - mark })
            } else {
                let at = self.values.len() as u32;
                while let Some((number, wire_type)) = reader.field()? {
                    match (number, wire_type) {
                        (1, BYTES) => {
                            let place = Place::Value(self.values.len() as u32);
                            let value = self.read_value(reader.message()?, place, later)?;
                            self.values.push(value);
                        }
                        _ => reader.skip(wire_type)?,
                    }
                }
                Value::List(List { at, len: self.values.len() as u32 - at })
            };
            match place {
                Place::Pair(at) => self.pairs[at as usize].value = value,
                Place::Value(at) => self.values[at as usize] = value,
            }
        }
        Ok(())
    }

    /// Writes attributes as a repeated field.
    pub(crate) fn write_map(&self, map: Map, field: u32, out: &mut Back) {
        for pair in self.pairs(map).iter().rev() {
            out.message(field, |out| {
                // A pair without a value is one whose value is empty.
                out.message(2, |out| self.write_value(pair.value, out));
                out.bytes(1, self.bytes(pair.key));
            });
        }
    }

    /// Writes the fields of an `AnyValue`.
    pub(crate) fn write_value(&self, value: Value, out: &mut Back) {
        match value {
            Value::Empty => {}
            Value::Str(text) => out.bytes_always(1, self.bytes(text)),
            Value::Bool(value) => out.varint_always(2, u64::from(value)),
            Value::Int(value) => out.varint_always(3, value as u64),
            Value::Double(value) => out.fixed64_always(4, value.to_bits()),
            Value::List(list) => out.message(5, |out| {
                for value in self.values(list).iter().rev() {
                    out.message(1, |out| self.write_value(*value, out));
                }
            }),
            Value::Map(map) => out.message(6, |out| self.write_map(map, 1, out)),
            Value::Bytes(bytes) => out.bytes_always(7, self.bytes(bytes)),
        }
    }

    /// How long a value is as an `AnyValue`, in bytes.
    pub fn encoded_len(&self, value: Value) -> usize {
        let field = |len: usize| 1 + varint_len(len as u64) + len;
        match value {
            Value::Empty => 0,
            Value::Str(text) | Value::Bytes(text) => field(text.len()),
            Value::Bool(_) => 2,
            Value::Int(value) => 1 + varint_len(value as u64),
            Value::Double(_) => 9,
            Value::List(list) => field(self.values(list).iter().map(|value| field(self.encoded_len(*value))).sum()),
            Value::Map(map) => field(
                self.pairs(map)
                    .iter()
                    .map(|pair| {
                        let key = if pair.key.is_empty() { 0 } else { field(pair.key.len()) };
                        field(key + field(self.encoded_len(pair.value)))
                    })
                    .sum(),
            ),
        }
    }
}

/// Where a value stands that has yet to be read.
#[derive(Clone, Copy, Debug)]
enum Place {
    Pair(u32),
    Value(u32),
}

/// Values within values, which are read after what they stand in, so that the parts of a value stand together.
#[derive(Debug, Default)]
pub(crate) struct Later(Vec<(Place, bool, (usize, usize))>);

impl Later {
    fn push(&mut self, place: Place, is_map: bool, range: (usize, usize)) {
        self.0.push((place, is_map, range));
    }
}

/// Writes a number as JSON. What is none is a string.
pub(crate) fn write_json_double(value: f64, form: Form, out: &mut Vec<u8>) {
    match value {
        value if value.is_finite() => push_number(value, form, out),
        value if value.is_nan() => out.extend_from_slice(b"\"NaN\""),
        value if value > 0.0 => out.extend_from_slice(b"\"Infinity\""),
        _ => out.extend_from_slice(b"\"-Infinity\""),
    }
}

/// Bytes as text. Nearly all of them are text, which is found out at a fraction of what replacing what is none costs.
pub(crate) fn lossy(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_16_bytes_and_an_attribute_24() {
        assert_eq!((size_of::<Value>(), size_of::<Pair>()), (16, 24));
    }

    fn keys(arena: &Arena, map: Map) -> Vec<String> {
        arena.pairs(map).iter().map(|pair| format!("{}={}", arena.text(pair.key), arena.to_text(pair.value))).collect()
    }

    #[test]
    fn a_map_that_grows_leaves_its_neighbours_alone() {
        let mut arena = Arena::default();
        let (mut a, mut b) = (Map::default(), Map::default());
        for number in 0..3 {
            arena.put(&mut a, format!("a{number}").as_bytes(), Value::Int(number));
            arena.put(&mut b, format!("b{number}").as_bytes(), Value::Int(number));
        }
        arena.put(&mut a, b"a1", Value::Int(7));
        assert_eq!(keys(&arena, a), ["a0=0", "a1=7", "a2=2"]);
        assert_eq!(keys(&arena, b), ["b0=0", "b1=1", "b2=2"]);
        assert_eq!(arena.remove(&mut a, b"a0"), Some(Value::Int(0)));
        assert_eq!(arena.remove(&mut a, b"a0"), None);
        arena.retain(&mut b, |arena, pair| arena.bytes(pair.key) != b"b1");
        assert_eq!(
            (keys(&arena, a), keys(&arena, b)),
            (vec!["a1=7".into(), "a2=2".into()], vec!["b0=0".into(), "b2=2".into()])
        );
    }

    #[test]
    fn of_equal_keys_the_first_counts() {
        let mut arena = Arena::default();
        let key = arena.own(b"k");
        let mut map = Map::default();
        arena.push(&mut map, key, Value::Int(1));
        arena.push(&mut map, key, Value::Int(2));
        assert_eq!((arena.get(map, b"k"), map.len()), (Some(Value::Int(1)), 2));
    }

    #[test]
    fn values_are_written_as_the_collector_writes_them() {
        let mut arena = Arena::default();
        let text = arena.own(b"a\"<\xff\n");
        let bytes = Value::Bytes(arena.own(b"\0\x01"));
        let mut inner = Map::default();
        arena.put(&mut inner, b"z", Value::Double(1.0));
        arena.put(&mut inner, b"b", Value::Str(text));
        arena.put(&mut inner, b"c", Value::Empty);
        let list = arena.list(&[Value::Bool(true), bytes, Value::Map(inner)]);
        for (value, want) in [
            (Value::Empty, ""),
            (Value::Int(-5), "-5"),
            (Value::Double(1e21), "1e+21"),
            (Value::Double(0.1), "0.1"),
            (Value::Double(1e-7), "1e-7"),
            (Value::Double(-1.5e-9), "-1.5e-9"),
            (Value::Double(100_000_000_000_000_000_000.0), "100000000000000000000"),
            (Value::Double(-0.0), "-0"),
            (bytes, "AAE="),
            (Value::List(list), r#"[true,"AAE=",{"b":"a\"<\ufffd\n","c":null,"z":1}]"#),
        ] {
            assert_eq!(arena.to_text(value), want);
        }
    }

    #[test]
    fn maps_are_the_same_in_any_order() {
        let (mut one, mut two) = (Arena::default(), Arena::default());
        let (mut a, mut b) = (Map::default(), Map::default());
        let x = one.own_str("x");
        one.put(&mut a, b"k", x);
        one.put(&mut a, b"l", Value::Int(1));
        two.put(&mut b, b"l", Value::Int(1));
        let x = two.own_str("x");
        two.put(&mut b, b"k", x);
        assert!(one.same_map(a, &two, b));
        two.put(&mut b, b"k", Value::Bool(true));
        assert!(!one.same_map(a, &two, b));
        let carried = two.carry_map(&one, a);
        assert!(one.same_map(a, &two, carried));
    }
}
