//! What tells series apart: keyed hashes of 128 bits of resources, scopes, metrics and attributes, and maps by them.
//!
//! The key is random, so that nobody outside can make two series meet. Attributes count the same in any order.

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, BuildHasherDefault};
use std::io::Write as _;

use corten_otlp::metrics::{Metric, Points};
use corten_otlp::{Arena, Map, OfResource, OfScope, Pair, Record, Value};
use indexmap::IndexMap;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Makes hashes. What was written since the last one counts; texts are told from those that they could be joined to.
#[derive(Debug)]
pub(crate) struct Hasher {
    seed: u64,
    buffer: Vec<u8>,
}

impl Default for Hasher {
    fn default() -> Self {
        Hasher { seed: RandomState::new().hash_one(0), buffer: Vec::with_capacity(256) }
    }
}

impl Hasher {
    /// Writes a text.
    #[inline]
    pub(crate) fn text(&mut self, text: &[u8]) {
        self.buffer.extend_from_slice(text);
        // Lengths follow their texts, because those of numbers are known only then.
        self.buffer.extend_from_slice(&(text.len() as u32).to_le_bytes());
    }

    /// Writes a value as the text that it is shown as: `200` and `"200"` are the same.
    #[inline]
    pub(crate) fn shown(&mut self, arena: &Arena, value: Value) {
        let begin = self.buffer.len();
        match value {
            Value::Str(text) => self.buffer.extend_from_slice(arena.bytes(text)),
            // Writing to memory does not fail.
            Value::Int(value) => drop(write!(self.buffer, "{value}")),
            other => arena.write_text(other, &mut self.buffer),
        }
        let len = (self.buffer.len() - begin) as u32;
        self.buffer.extend_from_slice(&len.to_le_bytes());
    }

    /// Writes a number.
    #[inline]
    pub(crate) fn number(&mut self, number: u64) {
        self.buffer.extend_from_slice(&number.to_le_bytes());
    }

    /// Writes a hash.
    #[inline]
    pub(crate) fn hash(&mut self, hash: u128) {
        self.buffer.extend_from_slice(&hash.to_le_bytes());
    }

    /// How much was written.
    #[inline]
    pub(crate) fn mark(&self) -> usize {
        self.buffer.len()
    }

    /// Forgets what was written.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.buffer.clear();
    }

    /// The hash of what was written. What was written after the mark is forgotten.
    #[inline]
    pub(crate) fn finish_to(&mut self, mark: usize) -> u128 {
        let hash = xxh3_128_with_seed(&self.buffer, self.seed);
        self.buffer.truncate(mark);
        hash
    }

    /// The hash of what was written.
    #[inline]
    pub(crate) fn finish(&mut self) -> u128 {
        self.finish_to(0)
    }

    /// The hash of attributes, of those that count. What was written before does not.
    pub(crate) fn attributes_if(&mut self, arena: &Arena, map: Map, counts: impl Fn(&[u8]) -> bool) -> u128 {
        let begin = self.buffer.len();
        let mut sum = 0u128;
        for pair in arena.pairs(map) {
            let key = arena.bytes(pair.key);
            if !counts(key) {
                continue;
            }
            // A sum is the same in any order, and two equal pairs do not cancel each other out.
            sum = sum.wrapping_add(self.pair(arena, pair));
        }
        debug_assert_eq!(self.buffer.len(), begin);
        sum
    }

    /// The hash of one attribute: that of attributes is the sum of theirs. What was written before does not count.
    #[inline]
    pub(crate) fn pair(&mut self, arena: &Arena, pair: &Pair) -> u128 {
        let begin = self.buffer.len();
        self.text(arena.bytes(pair.key));
        self.value(arena, pair.value);
        let hash = xxh3_128_with_seed(&self.buffer[begin..], self.seed);
        self.buffer.truncate(begin);
        hash
    }

    /// The hash of attributes.
    pub(crate) fn attributes(&mut self, arena: &Arena, map: Map) -> u128 {
        self.attributes_if(arena, map, |_| true)
    }

    /// The hash of a resource.
    pub(crate) fn resource<R: Record>(&mut self, arena: &Arena, of: &OfResource<R>) -> u128 {
        self.attributes(arena, of.resource.attributes)
    }

    /// The hash of a scope of a resource.
    pub(crate) fn scope<R: Record>(&mut self, resource: u128, arena: &Arena, of: &OfScope<R>) -> u128 {
        let attributes = self.attributes(arena, of.scope.attributes);
        self.hash(resource);
        self.hash(attributes);
        self.text(arena.bytes(of.scope.name));
        self.text(arena.bytes(of.scope.version));
        self.finish()
    }

    /// The hash of a metric of a scope: its name, unit, kind, temporality and whether it never goes down.
    pub(crate) fn metric(&mut self, scope: u128, arena: &Arena, metric: &Metric) -> u128 {
        let (kind, temporality, monotonic) = match &metric.points {
            Points::None => (0, 0, false),
            Points::Gauge(_) => (1, 0, false),
            Points::Sum { temporality, monotonic, .. } => (2, *temporality, *monotonic),
            Points::Histogram { temporality, .. } => (3, *temporality, true),
            Points::Exponential { temporality, .. } => (4, *temporality, true),
            Points::Summary(_) => (5, 0, false),
        };
        self.hash(scope);
        self.text(arena.bytes(metric.name));
        self.text(arena.bytes(metric.unit));
        self.number(kind | u64::from(monotonic) << 8 | u64::from(temporality as u32) << 32);
        self.finish()
    }

    /// The hash of a series of a metric.
    #[inline]
    pub(crate) fn series(&mut self, metric: u128, arena: &Arena, attributes: Map) -> u128 {
        let attributes = self.attributes(arena, attributes);
        self.hash(metric);
        self.hash(attributes);
        self.finish()
    }

    /// Writes a value.
    pub(crate) fn value(&mut self, arena: &Arena, value: Value) {
        match value {
            Value::Empty => self.buffer.push(0),
            Value::Str(text) => {
                self.text(arena.bytes(text));
                self.buffer.push(1);
            }
            Value::Bool(value) => self.buffer.extend_from_slice(&[u8::from(value), 2]),
            Value::Int(value) => {
                self.number(value as u64);
                self.buffer.push(3);
            }
            Value::Double(value) => {
                self.number(value.to_bits());
                self.buffer.push(4);
            }
            Value::Bytes(bytes) => {
                self.text(arena.bytes(bytes));
                self.buffer.push(5);
            }
            Value::List(list) => {
                for value in arena.values(list) {
                    self.value(arena, *value);
                }
                self.number(list.len() as u64);
                self.buffer.push(6);
            }
            Value::Map(map) => {
                let hash = self.attributes(arena, map);
                self.hash(hash);
                self.buffer.push(7);
            }
        }
    }
}

/// Takes a hash as it is.
#[derive(Debug, Default)]
pub(crate) struct AsItIs(u64);

impl std::hash::Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Only hashes are keys.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, hash: u128) {
        self.0 = hash as u64;
    }
}

/// A map by hashes, in the order in which they came.
pub(crate) type ByHash<V> = IndexMap<u128, V, BuildHasherDefault<AsItIs>>;

/// A map by hashes that knows which one was used least recently.
#[derive(Debug)]
pub(crate) struct Recent<V> {
    map: hashbrown::HashMap<u128, (u64, V), BuildHasherDefault<AsItIs>>,
    order: BTreeMap<u64, u128>,
    uses: u64,
}

impl<V> Default for Recent<V> {
    fn default() -> Self {
        Recent { map: hashbrown::HashMap::default(), order: BTreeMap::new(), uses: 0 }
    }
}

impl<V> Recent<V> {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there is one.
    pub(crate) fn contains(&self, hash: u128) -> bool {
        self.map.contains_key(&hash)
    }

    /// Uses one.
    pub(crate) fn get(&mut self, hash: u128) -> Option<&mut V> {
        self.get_with_place(hash).map(|(_, value)| value)
    }

    /// Uses one. The place in the order that it had before comes with it.
    pub(crate) fn get_with_place(&mut self, hash: u128) -> Option<(u64, &mut V)> {
        let (used, value) = self.map.get_mut(&hash)?;
        let place = *used;
        // Whoever comes again at once stays where it is.
        if place != self.uses {
            self.order.remove(used);
            self.uses += 1;
            self.order.insert(self.uses, hash);
            *used = self.uses;
        }
        Some((place, value))
    }

    /// Adds one, which takes the place of another one with its hash. The least recently used one that is too many now comes
    /// back.
    pub(crate) fn insert(&mut self, hash: u128, value: V, len_max: usize) -> Option<(u128, V)> {
        self.uses += 1;
        self.order.insert(self.uses, hash);
        if let Some((used, _)) = self.map.insert(hash, (self.uses, value)) {
            self.order.remove(&used);
        }
        self.pop_beyond(len_max)
    }

    /// Takes out the least recently used one, if there are more than so many.
    pub(crate) fn pop_beyond(&mut self, len_max: usize) -> Option<(u128, V)> {
        if self.map.len() <= len_max {
            return None;
        }
        self.pop().map(|(oldest, _, value)| (oldest, value))
    }

    /// Takes out the least recently used one. The place in the order that it had comes with it.
    pub(crate) fn pop(&mut self) -> Option<(u128, u64, V)> {
        let (_, oldest) = self.order.pop_first()?;
        self.map.remove(&oldest).map(|(place, value)| (oldest, place, value))
    }

    /// Puts one where it was in the order before it was used or taken out.
    pub(crate) fn put_back(&mut self, hash: u128, value: V, place: u64) {
        if let Some((used, _)) = self.map.insert(hash, (place, value)) {
            self.order.remove(&used);
        }
        self.order.insert(place, hash);
    }

    /// Takes one out.
    pub(crate) fn remove(&mut self, hash: u128) -> Option<V> {
        let (used, value) = self.map.remove(&hash)?;
        self.order.remove(&used);
        Some(value)
    }

    /// Keeps those of which `keep` says so.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&V) -> bool) {
        let order = &mut self.order;
        self.map.retain(|_, (used, value)| {
            let kept = keep(value);
            if !kept {
                order.remove(used);
            }
            kept
        });
    }

    /// Takes out the least recently used one, if it is such a one.
    pub(crate) fn pop_if(&mut self, is_such: impl FnOnce(&V) -> bool) -> Option<V> {
        let (_, oldest) = self.order.first_key_value()?;
        let oldest = *oldest;
        let (_, value) = self.map.get(&oldest)?;
        if is_such(value) { self.remove(oldest) } else { None }
    }

    /// All, the least recently used one first. None of them is used by this.
    pub(crate) fn hashes(&self) -> impl Iterator<Item = u128> {
        self.order.values().copied()
    }

    /// One, without using it.
    pub(crate) fn peek(&mut self, hash: u128) -> Option<&mut V> {
        self.map.get_mut(&hash).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(arena: &mut Arena, pairs: &[(&str, Value)]) -> Map {
        let mut map = Map::default();
        for (key, value) in pairs {
            let key = arena.own(key.as_bytes());
            arena.push(&mut map, key, *value);
        }
        map
    }

    #[test]
    fn attributes_are_the_same_in_any_order_and_nothing_else_is() {
        let (mut arena, mut hasher) = (Arena::default(), Hasher::default());
        let (a, b) = (arena.own_str("a"), arena.own_str("b"));
        let bytes = Value::Bytes(arena.own(b"a"));
        let inner = [map(&mut arena, &[("x", a), ("y", b)]), map(&mut arena, &[("y", b), ("x", a)])];
        let lists = [arena.list(&[a, b]), arena.list(&[b, a])].map(Value::List);
        let one = map(&mut arena, &[("k", a), ("l", Value::Int(1)), ("m", Value::Map(inner[0]))]);
        let same = map(&mut arena, &[("m", Value::Map(inner[1])), ("l", Value::Int(1)), ("k", a)]);
        let others = [
            map(&mut arena, &[]),
            map(&mut arena, &[("k", a)]),
            map(&mut arena, &[("k", a), ("k", a)]),
            map(&mut arena, &[("k", bytes)]),
            map(&mut arena, &[("ka", Value::Empty)]),
            map(&mut arena, &[("k", Value::Empty)]),
            map(&mut arena, &[("k", Value::Int(1))]),
            map(&mut arena, &[("k", Value::Bool(true))]),
            map(&mut arena, &[("k", Value::Double(1.0))]),
            map(&mut arena, &[("k", lists[0])]),
            map(&mut arena, &[("k", lists[1])]),
            map(&mut arena, &[("k", a), ("l", Value::Int(2)), ("m", Value::Map(inner[0]))]),
        ];
        let hash = hasher.attributes(&arena, one);
        assert_eq!(hash, hasher.attributes(&arena, same));
        let mut hashes: Vec<u128> = others.iter().map(|map| hasher.attributes(&arena, *map)).collect();
        hashes.push(hash);
        let count = hashes.len();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), count);
    }

    #[test]
    fn texts_that_join_to_the_same_are_told_apart_and_values_shown_the_same_are_not() {
        let (mut arena, mut hasher) = (Arena::default(), Hasher::default());
        let text = arena.own_str("200");
        let mut of = |parts: &[Value]| {
            parts.iter().for_each(|part| hasher.shown(&arena, *part));
            hasher.finish()
        };
        assert_eq!(of(&[text]), of(&[Value::Int(200)]));
        assert_ne!(of(&[Value::Int(20), Value::Int(0)]), of(&[Value::Int(2), Value::Int(0), Value::Int(0)]));
        assert_ne!(of(&[Value::Int(20), Value::Int(0)]), of(&[text]));
    }

    #[test]
    fn the_least_recently_used_one_makes_room() {
        let mut recent = Recent::default();
        for hash in 0..3 {
            assert_eq!(recent.insert(hash, hash * 10, 3), None);
        }
        assert_eq!(recent.get(0).copied(), Some(0));
        assert_eq!(recent.insert(3, 30, 3), Some((1, 10)));
        assert_eq!(recent.pop_beyond(3), None);
        assert_eq!(recent.insert(2, 21, 3), None);
        assert_eq!(recent.hashes().collect::<Vec<_>>(), [0, 3, 2]);
        assert_eq!(recent.pop_if(|value| *value > 0), None);
        recent.retain(|value| *value != 30);
        assert_eq!(recent.hashes().collect::<Vec<_>>(), [0, 2]);
        assert_eq!((recent.remove(0), recent.remove(0), recent.len()), (Some(0), None, 1));
    }

    #[test]
    fn what_is_put_back_has_its_place_again() {
        let mut recent = Recent::default();
        for hash in 0..4 {
            recent.insert(hash, hash * 10, 4);
        }
        let place = recent.get_with_place(1).unwrap().0;
        let (oldest, oldest_place, value) = recent.pop().unwrap();
        assert_eq!((oldest, value), (0, 0));
        assert_eq!(recent.hashes().collect::<Vec<_>>(), [2, 3, 1]);
        recent.put_back(1, 11, place);
        recent.put_back(0, 0, oldest_place);
        assert_eq!(recent.hashes().collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!(recent.peek(1).copied(), Some(11));
        // The one that was used last keeps its place, and may be put back to it.
        let place = recent.get_with_place(3).unwrap().0;
        recent.put_back(3, 31, place);
        assert_eq!((recent.hashes().collect::<Vec<_>>(), recent.len()), (vec![0, 1, 2, 3], 4));
    }
}
