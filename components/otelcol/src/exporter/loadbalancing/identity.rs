//! The names of resources and streams of points: hashes that are the reference's, so that both choose alike.

use std::io::Write as _;

use corten_otlp::metrics::Points;
use corten_otlp::{Arena, Map, Metric, Scope, Value};
use xxhash_rust::xxh64::xxh64;

/// The FNV-1a hash of what is known so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity(u64);

impl Identity {
    fn with(self, bytes: &[u8]) -> Self {
        Identity(bytes.iter().fold(self.0, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)))
    }

    /// A resource, whose attributes have this hash.
    pub(super) fn of_resource(attributes: [u8; 16]) -> Self {
        Identity(0xcbf2_9ce4_8422_2325).with(&attributes)
    }

    /// A scope of the resource.
    pub(super) fn scope(self, arena: &Arena, scope: &Scope, buffer: &mut Vec<u8>) -> Self {
        let attributes = map_hash(arena, scope.attributes, buffer);
        self.with(arena.bytes(scope.name)).with(arena.bytes(scope.version)).with(&attributes)
    }

    /// A metric of the scope.
    pub(super) fn metric(self, arena: &Arena, metric: &Metric) -> Self {
        let (kind, monotonic, temporality) = match &metric.points {
            Points::None => (0, false, 0),
            Points::Gauge(_) => (1, false, 0),
            Points::Sum { monotonic, temporality, .. } => (2, *monotonic, *temporality),
            Points::Histogram { temporality, .. } => (3, true, *temporality),
            Points::Exponential { temporality, .. } => (4, true, *temporality),
            Points::Summary(_) => (5, false, 0),
        };
        let bytes = [kind, u8::from(monotonic), temporality as u8];
        self.with(arena.bytes(metric.name)).with(arena.bytes(metric.unit)).with(&bytes)
    }

    /// A stream of the metric, whose points' attributes have this hash.
    pub(super) fn stream(self, attributes: [u8; 16]) -> Self {
        self.with(&attributes)
    }

    /// The name of what it is.
    pub(super) fn named(self, kind: &str) -> Vec<u8> {
        let mut name = Vec::with_capacity(32);
        // Writing to memory does not fail.
        let _ = write!(name, "{kind}/{:x}", self.0);
        name
    }
}

/// The hash of attributes. It is the same in any order.
pub(super) fn map_hash(arena: &Arena, map: Map, buffer: &mut Vec<u8>) -> [u8; 16] {
    let mut hash = [0; 16];
    if map.is_empty() {
        return hash;
    }
    buffer.clear();
    write_map(arena, map, buffer);
    hash[..8].copy_from_slice(&xxh64(buffer, 0).to_le_bytes());
    buffer.push(0xf3);
    hash[8..].copy_from_slice(&xxh64(buffer, 0).to_le_bytes());
    hash
}

fn write_map(arena: &Arena, map: Map, out: &mut Vec<u8>) {
    let mut pairs: Vec<(&[u8], Value)> =
        arena.pairs(map).iter().map(|pair| (arena.bytes(pair.key), pair.value)).collect();
    // Of a key that is there more than once the first value counts. It counts once: twice at each level would be 2^100 times.
    pairs.sort_by_key(|(key, _)| *key);
    pairs.dedup_by_key(|(key, _)| *key);
    for (key, value) in pairs {
        out.push(0xf4);
        out.extend_from_slice(key);
        write_value(arena, value, out);
    }
}

fn write_value(arena: &Arena, value: Value, out: &mut Vec<u8>) {
    match value {
        Value::Empty => out.push(0xf5),
        Value::Bytes(bytes) => {
            out.push(0xf6);
            out.extend_from_slice(arena.bytes(bytes));
        }
        Value::Str(text) => {
            out.push(0xf7);
            out.extend_from_slice(arena.bytes(text));
        }
        Value::Bool(true) => out.push(0xf8),
        Value::Bool(false) => out.push(0xf9),
        Value::Int(number) => {
            out.push(0xfa);
            out.extend_from_slice(&number.to_le_bytes());
        }
        Value::Double(number) => {
            out.push(0xfb);
            out.extend_from_slice(&number.to_bits().to_le_bytes());
        }
        Value::Map(map) => {
            out.push(0xfc);
            write_map(arena, map, out);
            out.push(0xfd);
        }
        Value::List(list) => {
            out.push(0xfe);
            arena.values(list).iter().for_each(|value| write_value(arena, *value, out));
            out.push(0xff);
        }
    }
}
