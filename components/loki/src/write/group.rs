//! What a lane fills: a record for each partition and tenant.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use corten_queue::{Counts, NewRecord, Totals};
use corten_signal::logs::{Entries, Entry};
use corten_signal::{Acks, Stream};
use corten_sink::{Group, RAW_BYTES_MAX};
use corten_wire::loki_push::{fitting, push_stream};
use corten_wire::snappy::Compressor;

/// The encoding byte of records of the push protocol, compressed as pieces of a snappy block.
pub(super) const ENCODING: u8 = 1;

/// Buffers that are kept for the next records, in bytes.
const SPARE_BYTES_MAX: usize = 4 << 20;

/// Whose entries they are: what the label says, or nobody's in particular.
pub(super) type Tenant = Option<Arc<str>>;

/// What decides how records are cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// What the entries of a record count at most.
    pub(super) record_bytes_max: usize,
    /// How many streams a record holds at most.
    pub(super) streams_max: Option<usize>,
    /// How many partitions tenants are shared out among, and then among how many the streams of one.
    pub(super) slots: u16,
    pub(super) shards: u16,
}

/// Where the entries of a stream go.
pub(super) struct Place<'a> {
    pub(super) stream: &'a Stream,
    pub(super) tenant: &'a Tenant,
}

/// What was taken of some entries.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// How many.
    pub(super) entries: usize,
    /// Whether the group is full now.
    pub(super) is_full: bool,
    /// What was dropped of them because of too many streams: entries, and what they count.
    pub(super) stream_limited: Totals,
}

/// A group of records.
#[derive(Default)]
pub(super) struct Filled {
    slots: u16,
    shards: u16,
    by_place: HashMap<(u16, Tenant), usize>,
    filling: Vec<Filling>,
    raw_bytes: usize,
    entries: u64,
    acks: Acks,
    spare: Vec<Vec<u8>>,
}

struct Filling {
    tenant: Tenant,
    partition: u16,
    raw: Vec<u8>,
    entries: u32,
    /// What the entries count.
    size: usize,
    lowest_ns: i64,
    highest_ns: i64,
    /// The hashes of the streams, where their number is limited.
    streams: HashSet<u64>,
}

impl Filled {
    /// Encodes entries of a stream until they end or the group is full.
    pub(super) fn push(&mut self, place: &Place<'_>, entries: &Entries, list: &[Entry], limits: &Limits) -> Taken {
        if self.filling.is_empty() {
            (self.slots, self.shards) = (limits.slots.max(1), limits.shards.max(1));
        }
        let at = self.filling_of(place);
        let filling = &mut self.filling[at];
        if let Some(streams_max) = limits.streams_max
            && !filling.streams.contains(&place.stream.hash64())
        {
            if filling.streams.len() >= streams_max {
                let size: usize = list.iter().map(|entry| entries.size(entry)).sum();
                let samples = list.len() as u64;
                let stream_limited = Totals { bytes: size as u64, samples, ..Totals::default() };
                return Taken { entries: list.len(), stream_limited, ..Taken::default() };
            }
            filling.streams.insert(place.stream.hash64());
        }
        let room = limits.record_bytes_max.saturating_sub(filling.size);
        let (count, size) = fitting(entries, list, room, filling.entries == 0);
        if count == 0 {
            return Taken { is_full: true, ..Taken::default() };
        }
        let before = filling.raw.len();
        let pushed = push_stream(&mut filling.raw, place.stream.selector(), entries, &list[..count]);
        filling.entries += pushed.entries as u32;
        filling.size += size;
        filling.lowest_ns = filling.lowest_ns.min(pushed.lowest_ns);
        filling.highest_ns = filling.highest_ns.max(pushed.highest_ns);
        self.raw_bytes += filling.raw.len() - before;
        self.entries += pushed.entries;
        let is_full = count < list.len() || self.raw_bytes >= limits.record_bytes_max.max(RAW_BYTES_MAX);
        Taken { entries: count, is_full, stream_limited: Totals::default() }
    }

    /// Takes a share of the batch that entries came with.
    pub(super) fn join(&mut self, acks: &Acks) {
        if !acks.is_none() {
            self.acks.join(acks.clone());
        }
    }

    fn filling_of(&mut self, place: &Place<'_>) -> usize {
        let slot = tenant_hash(place.tenant.as_deref().unwrap_or_default()) % u64::from(self.slots);
        let shard = place.stream.hash64() % u64::from(self.shards);
        let partition = slot as u16 * self.shards + shard as u16;
        if let Some(last) = self.filling.last()
            && last.partition == partition
            && last.tenant == *place.tenant
        {
            return self.filling.len() - 1;
        }
        let Filled { by_place, filling, spare, .. } = self;
        *by_place.entry((partition, place.tenant.clone())).or_insert_with(|| {
            filling.push(Filling {
                tenant: place.tenant.clone(),
                partition,
                raw: spare.pop().unwrap_or_default(),
                entries: 0,
                size: 0,
                lowest_ns: i64::MAX,
                highest_ns: i64::MIN,
                streams: HashSet::new(),
            });
            filling.len() - 1
        })
    }
}

/// A hash that is the same in every process, so that a tenant keeps its partition (FNV-1a, and mixed, because its low bits
/// decide).
fn tenant_hash(tenant: &str) -> u64 {
    let hash = tenant
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    hash ^ hash >> 32
}

impl Group for Filled {
    fn is_empty(&self) -> bool {
        self.entries == 0 && self.acks.is_none()
    }

    fn seal(&mut self, compressor: &mut Compressor, records: &mut Vec<NewRecord>) -> Acks {
        let partitions = self.slots.max(1) * self.shards.max(1);
        let mut spare_bytes: usize = self.spare.iter().map(Vec::capacity).sum();
        for mut filling in self.filling.drain(..) {
            if filling.entries > 0 {
                records.push(NewRecord {
                    encoding: ENCODING,
                    tenant: filling.tenant,
                    partition: filling.partition,
                    partitions,
                    counts: Counts::samples(filling.entries),
                    lowest_ms: filling.lowest_ns.div_euclid(1_000_000),
                    highest_ms: filling.highest_ns.div_euclid(1_000_000),
                    raw_len: filling.raw.len() as u32,
                    body: Bytes::from(compressor.piece(&filling.raw)),
                    hold: None,
                });
            }
            spare_bytes += filling.raw.capacity();
            if spare_bytes <= SPARE_BYTES_MAX {
                filling.raw.clear();
                self.spare.push(filling.raw);
            }
        }
        self.by_place.clear();
        (self.raw_bytes, self.entries) = (0, 0);
        std::mem::take(&mut self.acks)
    }
}
