//! A lane: samples are encoded and compressed once, and written to the queue before they count as taken.
//!
//! Endpoints that want the same bytes share a lane, each with a cursor of its own. Batches that arrive within a tenth of
//! a second of each other are joined into one record. In version 1 of the protocol a record is a piece of a request, and the
//! sender joins records without decoding them; in version 2, whose strings are numbered in each request anew, it is a whole
//! request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use bytes::Bytes;
use corten_component::Logger;
use corten_queue::{Counts, NewRecord, Options, Queue, Totals};
use corten_signal::metrics::{Exemplar, HistogramSample};
use corten_signal::relabel::Rule;
use corten_signal::{Acks, ConsumeError, MetricsBatch, Sample, SeriesPart};
use corten_sink::{Group, LaneBooks, RAW_BYTES_MAX, points};
use corten_wire::remote_write::{push_exemplar, push_histogram, push_sample};
use corten_wire::remote_write2::{PartCursor, PartKinds, RequestEncoder};
use corten_wire::snappy::Compressor;
use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use super::arguments::ProtobufMessage;
use super::counts::ItemCounters;
use super::metadata::Known;
use super::metrics::{CUSTOM_BUCKETS, DROPPED_SERIES, NO_SAMPLE, TOO_LARGE};
use super::transform::Transform;

/// The encoding byte of records of remote write 1, compressed as pieces of a snappy block.
const ENCODING_V1: u8 = 1;

/// The encoding byte of records of remote write 2: each the whole of a request, compressed as a piece of a snappy block.
pub(super) const ENCODING_V2: u8 = 2;

/// A lane of a `prometheus.remote_write`.
pub(super) struct Lane {
    protocol: ProtobufMessage,
    sink: corten_sink::Lane<Filled>,
    transform: Transform,
    samples_max: AtomicU64,
    /// Among how many partitions the series of the next record are shared out.
    partitions: AtomicU16,
    kinds: Kinds,
    /// What is known of metrics by the names under which they are sent, where the protocol says it with each series.
    known: Mutex<Known>,
    /// How many samples were taken, for the choice of partitions.
    taken: AtomicU64,
    /// What the protocol cannot carry.
    unsendable: ItemCounters,
    /// What endpoints do not want.
    unwanted: ItemCounters,
    /// How many items were given to the lane, with those in its queue from before it.
    offered: AtomicU64,
    /// How many items were put into records.
    filled: AtomicU64,
    /// What was given to another lane, and not to this one because the call was given up before.
    left_out: Mutex<Vec<(&'static str, u64)>>,
    /// How many bytes the queue may hold.
    capacity_bytes: AtomicU64,
}

/// What decides the bytes of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct LaneKey {
    pub(super) protocol: ProtobufMessage,
    /// Of everything else.
    hash: u64,
}

impl LaneKey {
    pub(super) fn new(protocol: ProtobufMessage, external: &[(String, String)], rules: &[Rule], kinds: Kinds) -> Self {
        LaneKey { protocol, hash: xxh3_64(format!("v1 {external:?} {rules:?} {kinds:?}").as_bytes()) }
    }

    /// The name of the folder of the lane's queue.
    pub(super) fn folder(&self) -> String {
        match self.protocol {
            ProtobufMessage::V1 => format!("{:016x}", self.hash),
            ProtobufMessage::V2 => format!("v2-{:016x}", self.hash),
        }
    }

    /// The lane to which a folder of this name belongs.
    pub(super) fn of_folder(name: &str) -> Option<Self> {
        let (protocol, digits) = match name.strip_prefix("v2-") {
            Some(digits) => (ProtobufMessage::V2, digits),
            None => (ProtobufMessage::V1, name),
        };
        let key = LaneKey { protocol, hash: u64::from_str_radix(digits, 16).ok()? };
        (key.folder() == name).then_some(key)
    }
}

/// What a lane takes besides samples.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kinds {
    pub(super) histograms: bool,
    pub(super) exemplars: bool,
}

/// One item of a part.
enum Item<'p> {
    Sample(&'p Sample),
    Histogram(&'p HistogramSample),
    Exemplar(&'p Exemplar),
}

impl Kinds {
    fn of_part(self) -> PartKinds {
        PartKinds { histograms: self.histograms, exemplars: self.exemplars }
    }

    /// How many items of a part the lane takes.
    fn count(self, part: &SeriesPart) -> usize {
        part.samples.len() + self.histograms(part).len() + if self.exemplars { part.exemplars.len() } else { 0 }
    }

    fn histograms(self, part: &SeriesPart) -> &[HistogramSample] {
        if self.histograms { &part.histograms } else { &[] }
    }

    /// The item at a place: samples come first, then histograms, then exemplars, which refer to them.
    fn item(self, part: &SeriesPart, at: usize) -> Item<'_> {
        if let Some(sample) = part.samples.get(at) {
            return Item::Sample(sample);
        }
        let (at, histograms) = (at - part.samples.len(), self.histograms(part));
        match histograms.get(at) {
            Some(histogram) => Item::Histogram(histogram),
            None => Item::Exemplar(&part.exemplars[at - histograms.len()]),
        }
    }
}

impl Item<'_> {
    fn index(&self) -> u32 {
        match self {
            Item::Sample(sample) => sample.index,
            Item::Histogram(histogram) => histogram.index,
            Item::Exemplar(exemplar) => exemplar.index,
        }
    }
}

/// How far a part was encoded.
enum Walk {
    V1(usize),
    V2(PartCursor),
}

/// A group of records, one a partition.
#[derive(Default)]
pub(super) struct Filled {
    /// As many as there were ever partitions; those that are not in use only keep their buffers.
    filling: Vec<Filling>,
    partitions: usize,
    items: u64,
}

/// What a record is written into; its buffers are kept for the next ones.
struct Filling {
    raw: Vec<u8>,
    /// Used in version 2 alone.
    request: Option<Box<RequestEncoder>>,
    counts: Counts,
    lowest_ms: i64,
    highest_ms: i64,
}

impl Lane {
    /// A lane into this queue. How many samples stand in a record is still to be set.
    pub(super) fn new(
        component: Arc<str>,
        protocol: ProtobufMessage,
        queue: Queue,
        transform: Transform,
        kinds: Kinds,
        known: Known,
        logger: Logger,
    ) -> Self {
        let offered = AtomicU64::new(points(&queue.stats().appended));
        Lane {
            protocol,
            sink: corten_sink::Lane::new(component, queue, "samples", logger),
            transform,
            samples_max: AtomicU64::new(1),
            partitions: AtomicU16::new(1),
            kinds,
            known: Mutex::new(known),
            taken: AtomicU64::new(0),
            unsendable: ItemCounters::default(),
            unwanted: ItemCounters::default(),
            offered,
            filled: AtomicU64::new(0),
            left_out: Mutex::default(),
            capacity_bytes: AtomicU64::new(0),
        }
    }

    /// Sets the limits of the queue.
    pub(super) fn set_options(&self, options: Options) {
        self.capacity_bytes.store(options.bytes_max, Ordering::Relaxed);
        self.queue().set_options(options);
    }

    /// What another lane was given is not given to this one.
    pub(super) fn leave_out(&self, reason: &'static str, items: u64) {
        if items == 0 {
            return;
        }
        self.offered.fetch_add(items, Ordering::Relaxed);
        let mut left_out = self.left_out.lock();
        match left_out.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += items,
            None => left_out.push((reason, items)),
        }
    }

    /// The protocol of the lane.
    pub(super) fn protocol(&self) -> ProtobufMessage {
        self.protocol
    }

    /// What the lane takes besides samples.
    pub(super) fn kinds(&self) -> Kinds {
        self.kinds
    }

    /// The queue behind the lane.
    pub(super) fn queue(&self) -> &Queue {
        self.sink.queue()
    }

    /// Changes how many samples stand in a record.
    pub(super) fn set_samples_max(&self, samples_max: u64) {
        self.samples_max.store(samples_max.max(1), Ordering::Relaxed);
    }

    /// Changes among how many partitions series are shared out.
    pub(super) fn set_partitions(&self, partitions: u16) {
        self.partitions.store(partitions.max(1), Ordering::Relaxed);
    }

    /// Among how many partitions series are shared out.
    pub(super) fn partitions(&self) -> u16 {
        self.partitions.load(Ordering::Relaxed)
    }

    /// How many samples the lane took.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Forgets what was computed for series that are gone.
    pub(super) fn sweep(&self) {
        self.transform.sweep();
    }

    /// What was dropped because the protocol cannot carry it: histograms with bounds of their own in version 1, exemplars
    /// without a sample in version 2.
    pub(super) fn unsendable(&self) -> Totals {
        self.unsendable.get()
    }

    /// What was dropped because its record is larger than the queue may be.
    pub(super) fn too_large(&self) -> Totals {
        self.sink.too_large()
    }

    /// What was dropped by relabelling.
    pub(super) fn dropped(&self) -> Totals {
        self.transform.dropped()
    }

    /// How often a record had to wait for room in the queue.
    pub(super) fn waits(&self) -> u64 {
        self.sink.waits()
    }

    /// Takes a batch: when this returns, it is in the queue. `given` is how many of its items the lane has, or has dropped:
    /// all of them in the end, and fewer where this is given up or fails.
    pub(super) async fn take(&self, batch: &MetricsBatch, given: &mut u64) -> Result<(), ConsumeError> {
        let mut last = 0;
        for part in &batch.parts {
            let parts = self.transform.apply(part);
            self.give(part.items() - parts.iter().map(SeriesPart::items).sum::<usize>(), given);
            for part in parts.iter() {
                let mut walk = self.start(part, given);
                while let Some((number, sealed)) = self.encode(part, &mut walk, given) {
                    last = number;
                    if sealed {
                        // Waiting here bounds what one caller has in memory to one group of records.
                        self.sink.wait_written(number).await?;
                    }
                }
            }
        }
        self.sink.wait_written(last).await
    }

    /// Counts items of a batch as given to the lane.
    fn give(&self, items: usize, given: &mut u64) {
        self.offered.fetch_add(items as u64, Ordering::Relaxed);
        *given += items as u64;
    }

    /// Writes what is waiting, and takes nothing any more.
    pub(super) async fn close(&self) {
        self.sink.close().await;
    }

    /// Begins to encode a part.
    fn start(&self, part: &SeriesPart, given: &mut u64) -> Walk {
        let unwanted = part.items() - self.kinds.count(part);
        if unwanted > 0 {
            let histograms = part.histograms.len() - self.kinds.histograms(part).len();
            let exemplars = unwanted - histograms;
            let unwanted = Counts { histograms: histograms as u32, exemplars: exemplars as u32, ..Counts::default() };
            self.unwanted.add(&unwanted);
            self.give(histograms + exemplars, given);
        }
        match self.protocol {
            ProtobufMessage::V1 => Walk::V1(0),
            ProtobufMessage::V2 => {
                if !part.metadata.is_empty() {
                    self.known.lock().note(part);
                }
                Walk::V2(PartCursor::new())
            }
        }
    }

    /// Encodes a part from where the walk is until it ends or the group is full. Returns the number of the group and
    /// whether it is full now; nothing if the part had ended.
    fn encode(&self, part: &SeriesPart, walk: &mut Walk, given: &mut u64) -> Option<(u64, bool)> {
        if self.is_done(part, walk) {
            if let Walk::V2(at) = walk {
                self.leave_exemplars(part, at, given);
            }
            return None;
        }
        Some(self.sink.fill(|group| {
            if group.is_empty() {
                group.begin(usize::from(self.partitions()));
            }
            let filling = &mut group.filling[..group.partitions];
            let (items, is_full) = match walk {
                Walk::V1(at) => self.encode_v1(part, at, filling),
                Walk::V2(at) => self.encode_v2(part, at, filling),
            };
            group.items += items;
            self.taken.fetch_add(items, Ordering::Relaxed);
            self.give(items as usize, given);
            is_full
        }))
    }

    /// Whether nothing of a part is left that can be sent.
    fn is_done(&self, part: &SeriesPart, walk: &Walk) -> bool {
        match walk {
            Walk::V1(at) => *at >= self.kinds.count(part),
            Walk::V2(at) => at.series(part, self.kinds.of_part()).is_none(),
        }
    }

    /// Drops the exemplars of a part that have no sample beside them.
    fn leave_exemplars(&self, part: &SeriesPart, at: &PartCursor, given: &mut u64) {
        if self.kinds.exemplars && !part.exemplars.is_empty() {
            let exemplars = at.left_over(part, self.kinds.of_part());
            self.unsendable.add(&Counts { exemplars: exemplars as u32, ..Counts::default() });
            self.give(exemplars, given);
        }
    }

    /// How many items were encoded, and whether one of the records is full.
    fn encode_v1(&self, part: &SeriesPart, at: &mut usize, filling: &mut [Filling]) -> (u64, bool) {
        let samples_max = self.samples_max.load(Ordering::Relaxed);
        let before = *at;
        let partitions = filling.len() as u64;
        let wanted = self.kinds.count(part);
        let (mut is_full, mut unsendable) = (false, 0);
        while *at < wanted && !is_full {
            let item = self.kinds.item(part, *at);
            let partition = if partitions == 1 { 0 } else { part.block.hash64(item.index()) % partitions };
            let filling = &mut filling[partition as usize];
            if !filling.push(part, &item) {
                unsendable += 1;
            }
            *at += 1;
            is_full = filling.counts.items() >= samples_max || filling.raw.len() >= RAW_BYTES_MAX;
        }
        let items = (*at - before) as u64;
        self.unsendable.add(&Counts { histograms: unsendable, ..Counts::default() });
        self.filled.fetch_add(items - u64::from(unsendable), Ordering::Relaxed);
        (items, is_full)
    }

    /// As [`encode_v1`](Self::encode_v1).
    fn encode_v2(&self, part: &SeriesPart, at: &mut PartCursor, filling: &mut [Filling]) -> (u64, bool) {
        let samples_max = self.samples_max.load(Ordering::Relaxed);
        let partitions = filling.len() as u64;
        let known = self.known.lock();
        let mut of_series = known.of_series();
        let (mut items, mut is_full) = (0, false);
        while !is_full && let Some(series) = at.series(part, self.kinds.of_part()) {
            let partition = if partitions == 1 { 0 } else { part.block.hash64(series) % partitions };
            let filling = &mut filling[partition as usize];
            let time_ms = at.timestamp_ms(part, self.kinds.of_part()).unwrap_or_default();
            filling.lowest_ms = filling.lowest_ms.min(time_ms);
            filling.highest_ms = filling.highest_ms.max(time_ms);
            let request = filling.request.get_or_insert_default();
            let metadata = of_series.get(part.block.labels(series));
            let pushed = request.push_next(part, at, self.kinds.of_part(), metadata);
            items += pushed.items() as u64;
            filling.counts.samples += pushed.samples as u32;
            filling.counts.histograms += pushed.histograms as u32;
            filling.counts.exemplars += pushed.exemplars as u32;
            filling.counts.metadata += pushed.metadata as u32;
            let counts = &filling.counts;
            is_full =
                counts.items() - u64::from(counts.metadata) >= samples_max || request.encoded_len() >= RAW_BYTES_MAX;
        }
        self.filled.fetch_add(items, Ordering::Relaxed);
        (items, is_full)
    }
}

impl LaneBooks for Lane {
    fn offered(&self) -> u64 {
        self.offered.load(Ordering::Relaxed)
    }

    fn waiting(&self) -> u64 {
        self.sink.unwritten(|| self.filled.load(Ordering::Relaxed)).0
    }

    fn dropped(&self) -> Vec<(&'static str, u64)> {
        let (unwanted, unsendable) = (self.unwanted.get(), self.unsendable.get());
        let (_, lost) = self.sink.unwritten(|| self.filled.load(Ordering::Relaxed));
        let mut dropped = vec![
            (DROPPED_SERIES, points(&self.transform.dropped())),
            (UNWANTED_HISTOGRAMS, unwanted.histograms),
            (UNWANTED_EXEMPLARS, unwanted.exemplars),
            (CUSTOM_BUCKETS, unsendable.histograms),
            (NO_SAMPLE, unsendable.exemplars),
            (TOO_LARGE, points(&self.sink.too_large())),
            (NOT_WRITTEN, lost),
        ];
        dropped.extend(&*self.left_out.lock());
        dropped
    }

    fn capacity_bytes(&self) -> Option<u64> {
        Some(self.capacity_bytes.load(Ordering::Relaxed)).filter(|bytes| *bytes > 0)
    }
}

/// The endpoint does not want histograms.
const UNWANTED_HISTOGRAMS: &str = "histograms not sent";
/// The endpoint does not want exemplars.
const UNWANTED_EXEMPLARS: &str = "exemplars not sent";
/// The queue was closed before it was written.
const NOT_WRITTEN: &str = "queue closed";

impl Filled {
    /// Shares series out among so many partitions from now on.
    fn begin(&mut self, partitions: usize) {
        if self.filling.len() < partitions {
            self.filling.resize_with(partitions, Filling::new);
        }
        self.partitions = partitions;
    }
}

impl Group for Filled {
    fn is_empty(&self) -> bool {
        self.items == 0
    }

    fn seal(&mut self, compressor: &mut Compressor, records: &mut Vec<NewRecord>) -> Acks {
        self.items = 0;
        self.filling.truncate(self.partitions);
        let partitions = self.partitions as u16;
        for (partition, filling) in self.filling.iter_mut().enumerate() {
            if filling.counts.items() > 0 {
                records.push(filling.record(compressor, partition as u16, partitions));
            }
        }
        Acks::NONE
    }
}

impl Filling {
    fn new() -> Self {
        Filling { raw: Vec::new(), request: None, counts: Counts::default(), lowest_ms: i64::MAX, highest_ms: i64::MIN }
    }

    /// Adds an item to a record of version 1; whether that can carry it.
    #[inline]
    fn push(&mut self, part: &SeriesPart, item: &Item<'_>) -> bool {
        let labels = part.block.labels(item.index());
        let time_ms = match item {
            Item::Sample(sample) => {
                let time_ms = part.timestamp_ms(sample);
                push_sample(&mut self.raw, labels, sample.value, time_ms);
                self.counts.samples += 1;
                time_ms
            }
            Item::Histogram(histogram) => {
                if !push_histogram(&mut self.raw, labels, &histogram.histogram, histogram.timestamp_ms) {
                    return false;
                }
                self.counts.histograms += 1;
                histogram.timestamp_ms
            }
            Item::Exemplar(exemplar) => {
                push_exemplar(&mut self.raw, labels, exemplar);
                self.counts.exemplars += 1;
                exemplar.timestamp_ms
            }
        };
        self.lowest_ms = self.lowest_ms.min(time_ms);
        self.highest_ms = self.highest_ms.max(time_ms);
        true
    }

    /// The record, whose place is empty then.
    fn record(&mut self, compressor: &mut Compressor, partition: u16, partitions: u16) -> NewRecord {
        let encoding = match &mut self.request {
            Some(request) => {
                request.finish_into(&mut self.raw);
                ENCODING_V2
            }
            None => ENCODING_V1,
        };
        let record = NewRecord {
            encoding,
            tenant: None,
            partition,
            partitions,
            counts: std::mem::take(&mut self.counts),
            lowest_ms: self.lowest_ms,
            highest_ms: self.highest_ms,
            raw_len: self.raw.len() as u32,
            body: Bytes::from(compressor.piece(&self.raw)),
            hold: None,
        };
        self.raw.clear();
        (self.lowest_ms, self.highest_ms) = (i64::MAX, i64::MIN);
        record
    }
}
