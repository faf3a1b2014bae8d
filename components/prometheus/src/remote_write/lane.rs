//! A lane: samples are encoded and compressed once, and written to the queue before they count as taken.
//!
//! Endpoints that want the same bytes share a lane, each with a cursor of its own. Batches that arrive within a tenth of
//! a second of each other are joined into one record. In version 1 of the protocol a record is a piece of a request, and the
//! sender joins records without decoding them; in version 2, whose strings are numbered in each request anew, it is a whole
//! request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use corten_component::{Field, Logger};
use corten_queue::{AppendError, Counts, NewRecord, Queue, Totals};
use corten_signal::metrics::{Exemplar, HistogramSample};
use corten_signal::relabel::Rule;
use corten_signal::{ConsumeError, MetricsBatch, Sample, SeriesPart};
use corten_wire::remote_write::{push_exemplar, push_histogram, push_sample};
use corten_wire::remote_write2::{PartCursor, PartKinds, RequestEncoder};
use corten_wire::snappy::Compressor;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use xxhash_rust::xxh3::xxh3_64;

use super::arguments::ProtobufMessage;
use super::counts::ItemCounters;
use super::metadata::Known;
use super::transform::Transform;

/// How long samples wait for others to share a record with. A record costs two handovers between threads, a write and a
/// read, however many samples it holds; a tenth of a second is little beside the seconds for which a request waits.
const JOIN_WAIT: Duration = Duration::from_millis(100);

/// The encoding byte of records of remote write 1, compressed as pieces of a snappy block.
const ENCODING_V1: u8 = 1;

/// The encoding byte of records of remote write 2: each the whole of a request, compressed as a piece of a snappy block.
pub(super) const ENCODING_V2: u8 = 2;

/// The most bytes that a record holds before compression. The format of a request has no limit, its receivers do.
const RAW_BYTES_MAX: usize = 4 << 20;

/// A lane of a `prometheus.remote_write`.
pub(super) struct Lane {
    component: Arc<str>,
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    protocol: ProtobufMessage,
    queue: Queue,
    transform: Transform,
    samples_max: AtomicU64,
    /// Among how many partitions the series of the next record are shared out.
    partitions: AtomicU16,
    open: Mutex<Open>,
    /// The writer is told when something was put into an empty record, and when one is full.
    wake: Notify,
    full: Notify,
    written: watch::Sender<Written>,
    kinds: Kinds,
    /// What is known of metrics by the names under which they are sent, where the protocol says it with each series.
    known: Mutex<Known>,
    /// How many samples were taken, for the choice of partitions.
    taken: AtomicU64,
    /// What the protocol cannot carry.
    unsendable: ItemCounters,
    /// What was in records that are larger than the queue may be.
    too_large: ItemCounters,
    /// How often a record had to wait for room in the queue.
    waits: AtomicU64,
    logger: Logger,
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

/// How far the writer is.
#[derive(Clone, Copy, Default)]
struct Written {
    /// The number of the last group of records that was written.
    group: u64,
    /// What waits is still written, and nothing after it.
    closing: bool,
    /// Nothing is written any more.
    closed: bool,
}

/// The group of records that is being filled, one a partition, and those that are full and not yet taken by the writer.
#[derive(Default)]
struct Open {
    number: u64,
    filling: Vec<Filling>,
    items: u64,
    full: Vec<Vec<Filling>>,
    spare: Vec<Buffers>,
}

/// What a record is written into; kept for the next ones.
#[derive(Default)]
struct Buffers {
    raw: Vec<u8>,
    /// Used in version 2 alone.
    request: Option<Box<RequestEncoder>>,
}

struct Filling {
    buffers: Buffers,
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
        let shared = Arc::new(Shared {
            protocol,
            queue,
            transform,
            samples_max: AtomicU64::new(1),
            partitions: AtomicU16::new(1),
            open: Mutex::new(Open { number: 1, ..Open::default() }),
            wake: Notify::new(),
            full: Notify::new(),
            written: watch::Sender::default(),
            kinds,
            known: Mutex::new(known),
            taken: AtomicU64::new(0),
            unsendable: ItemCounters::default(),
            too_large: ItemCounters::default(),
            waits: AtomicU64::new(0),
            logger,
        });
        tokio::spawn(tell_of_disk(shared.queue.degraded(), shared.logger.clone()));
        let writer = tokio::spawn(write_records(Arc::clone(&shared)));
        Lane { component, shared, writer: Mutex::new(Some(writer)) }
    }

    /// The protocol of the lane.
    pub(super) fn protocol(&self) -> ProtobufMessage {
        self.shared.protocol
    }

    /// What the lane takes besides samples.
    pub(super) fn kinds(&self) -> Kinds {
        self.shared.kinds
    }

    /// The queue behind the lane.
    pub(super) fn queue(&self) -> &Queue {
        &self.shared.queue
    }

    /// Changes how many samples stand in a record.
    pub(super) fn set_samples_max(&self, samples_max: u64) {
        self.shared.samples_max.store(samples_max.max(1), Ordering::Relaxed);
    }

    /// Changes among how many partitions series are shared out.
    pub(super) fn set_partitions(&self, partitions: u16) {
        self.shared.partitions.store(partitions.max(1), Ordering::Relaxed);
    }

    /// Among how many partitions series are shared out.
    pub(super) fn partitions(&self) -> u16 {
        self.shared.partitions.load(Ordering::Relaxed)
    }

    /// How many samples the lane took.
    pub(super) fn taken(&self) -> u64 {
        self.shared.taken.load(Ordering::Relaxed)
    }

    /// Forgets what was computed for series that are gone.
    pub(super) fn sweep(&self) {
        self.shared.transform.sweep();
    }

    /// What was dropped because the protocol cannot carry it: histograms with bounds of their own in version 1, exemplars
    /// without a sample in version 2.
    pub(super) fn unsendable(&self) -> Totals {
        self.shared.unsendable.get()
    }

    /// What was dropped because its record is larger than the queue may be.
    pub(super) fn too_large(&self) -> Totals {
        self.shared.too_large.get()
    }

    /// What was dropped by relabelling.
    pub(super) fn dropped(&self) -> Totals {
        self.shared.transform.dropped()
    }

    /// How often a record had to wait for room in the queue.
    pub(super) fn waits(&self) -> u64 {
        self.shared.waits.load(Ordering::Relaxed)
    }

    /// Takes a batch: when this returns, it is in the queue.
    pub(super) async fn take(&self, batch: &MetricsBatch) -> Result<(), ConsumeError> {
        let mut last = 0;
        for part in &batch.parts {
            for part in self.shared.transform.apply(part).iter() {
                let mut walk = self.shared.start(part);
                while let Some((number, sealed)) = self.shared.encode(part, &mut walk) {
                    last = number;
                    if sealed {
                        // Waiting here bounds what one caller has in memory to one group of records.
                        self.wait_written(number).await?;
                    }
                }
            }
        }
        self.wait_written(last).await
    }

    async fn wait_written(&self, group: u64) -> Result<(), ConsumeError> {
        let mut written = self.shared.written.subscribe();
        let gone = || ConsumeError::Exited { component: self.component.to_string() };
        let done = *written.wait_for(|w| w.group >= group || w.closed).await.map_err(|_| gone())?;
        if done.group >= group { Ok(()) } else { Err(gone()) }
    }

    /// Writes what is waiting, and takes nothing any more.
    pub(super) async fn close(&self) {
        self.shared.written.send_if_modified(|written| !std::mem::replace(&mut written.closing, true));
        self.shared.wake.notify_one();
        self.shared.full.notify_one();
        let writer = self.writer.lock().take();
        if let Some(writer) = writer {
            let _ = writer.await;
        }
    }
}

impl Shared {
    /// Begins to encode a part.
    fn start(&self, part: &SeriesPart) -> Walk {
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
    fn encode(&self, part: &SeriesPart, walk: &mut Walk) -> Option<(u64, bool)> {
        if self.is_done(part, walk) {
            return None;
        }
        let mut open = self.open.lock();
        let open = &mut *open;
        let number = open.number;
        let was_empty = open.items == 0;
        if was_empty {
            let partitions = usize::from(self.partitions.load(Ordering::Relaxed));
            let spare = &mut open.spare;
            open.filling = (0..partitions).map(|_| Filling::new(spare.pop().unwrap_or_default())).collect();
        }
        let (items, is_full) = match walk {
            Walk::V1(at) => self.encode_v1(part, at, &mut open.filling),
            Walk::V2(at) => self.encode_v2(part, at, &mut open.filling),
        };
        open.items += items;
        self.taken.fetch_add(items, Ordering::Relaxed);
        if is_full {
            let full = std::mem::take(&mut open.filling);
            open.full.push(full);
            open.items = 0;
            open.number += 1;
            self.full.notify_one();
        }
        if is_full || was_empty {
            self.wake.notify_one();
        }
        Some((number, is_full))
    }

    /// Whether nothing of a part is left that can be sent.
    fn is_done(&self, part: &SeriesPart, walk: &Walk) -> bool {
        match walk {
            Walk::V1(at) => *at >= self.kinds.count(part),
            Walk::V2(at) => {
                let is_done = at.series(part, self.kinds.of_part()).is_none();
                if is_done && self.kinds.exemplars && !part.exemplars.is_empty() {
                    let exemplars = at.left_over(part, self.kinds.of_part()) as u32;
                    self.unsendable.add(&Counts { exemplars, ..Counts::default() });
                }
                is_done
            }
        }
    }

    /// How many items were encoded, and whether one of the records is full.
    fn encode_v1(&self, part: &SeriesPart, at: &mut usize, filling: &mut [Filling]) -> (u64, bool) {
        let samples_max = self.samples_max.load(Ordering::Relaxed);
        let before = *at;
        let partitions = filling.len() as u64;
        let wanted = self.kinds.count(part);
        let mut is_full = false;
        while *at < wanted && !is_full {
            let item = self.kinds.item(part, *at);
            let partition = if partitions == 1 { 0 } else { part.block.hash64(item.index()) % partitions };
            let filling = &mut filling[partition as usize];
            if !filling.push(part, &item) {
                self.unsendable.add(&Counts { histograms: 1, ..Counts::default() });
            }
            *at += 1;
            is_full = filling.counts.items() >= samples_max || filling.buffers.raw.len() >= RAW_BYTES_MAX;
        }
        ((*at - before) as u64, is_full)
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
            let request = filling.buffers.request.get_or_insert_default();
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
        (items, is_full)
    }

    /// What is to be written now: the full groups, and with `all` also the one that is being filled. And the number of the
    /// last of them.
    fn take(&self, all: bool) -> (Vec<Vec<Filling>>, u64) {
        let mut open = self.open.lock();
        let mut groups = std::mem::take(&mut open.full);
        if all && open.items > 0 {
            groups.push(std::mem::take(&mut open.filling));
            open.items = 0;
            open.number += 1;
        }
        (groups, open.number - 1)
    }

    fn recycle(&self, mut buffers: Buffers) {
        let mut open = self.open.lock();
        if open.spare.len() < usize::from(self.partitions.load(Ordering::Relaxed)) {
            buffers.raw.clear();
            open.spare.push(buffers);
        }
    }
}

impl Filling {
    fn new(buffers: Buffers) -> Self {
        Filling { buffers, counts: Counts::default(), lowest_ms: i64::MAX, highest_ms: i64::MIN }
    }

    /// Adds an item to a record of version 1; whether that can carry it.
    #[inline]
    fn push(&mut self, part: &SeriesPart, item: &Item<'_>) -> bool {
        let labels = part.block.labels(item.index());
        let time_ms = match item {
            Item::Sample(sample) => {
                let time_ms = part.timestamp_ms(sample);
                push_sample(&mut self.buffers.raw, labels, sample.value, time_ms);
                self.counts.samples += 1;
                time_ms
            }
            Item::Histogram(histogram) => {
                if !push_histogram(&mut self.buffers.raw, labels, &histogram.histogram, histogram.timestamp_ms) {
                    return false;
                }
                self.counts.histograms += 1;
                histogram.timestamp_ms
            }
            Item::Exemplar(exemplar) => {
                push_exemplar(&mut self.buffers.raw, labels, exemplar);
                self.counts.exemplars += 1;
                exemplar.timestamp_ms
            }
        };
        self.lowest_ms = self.lowest_ms.min(time_ms);
        self.highest_ms = self.highest_ms.max(time_ms);
        true
    }
}

async fn write_records(shared: Arc<Shared>) {
    let mut compressor = Compressor::new();
    loop {
        shared.wake.notified().await;
        let closing = shared.written.borrow().closing;
        // Others may join until the group is full or the wait is over.
        let full = !closing && tokio::time::timeout(JOIN_WAIT, shared.full.notified()).await.is_ok();
        let (groups, number) = shared.take(!full);
        if full && shared.open.lock().items > 0 {
            shared.wake.notify_one();
        }
        let mut records = Vec::new();
        for group in groups {
            let partitions = group.len() as u16;
            for (partition, mut filling) in group.into_iter().enumerate() {
                if filling.counts.items() > 0 {
                    records.push(record(&mut compressor, &mut filling, partition as u16, partitions));
                }
                shared.recycle(filling.buffers);
            }
        }
        let gone = !records.is_empty() && append(&shared, records).await.is_err();
        shared.written.send_if_modified(|written| {
            written.closed |= gone || closing;
            if !gone {
                written.group = number;
            }
            true
        });
        if gone || closing {
            return;
        }
    }
}

/// Says when the disk takes nothing any more, and when it does again; until the queue is closed.
async fn tell_of_disk(mut degraded: watch::Receiver<Option<String>>, logger: Logger) {
    let mut told = false;
    loop {
        let error = degraded.borrow_and_update().clone();
        match (&error, told) {
            (Some(error), false) => {
                logger.error("cannot write the queue; samples are held in memory", &[("err", Field::from(error))]);
            }
            (None, true) => logger.info("the queue takes records again", &[]),
            _ => {}
        }
        told = error.is_some();
        if degraded.changed().await.is_err() {
            return;
        }
    }
}

/// Appends records, for as long as the queue is full and its user wants to wait. Records that it cannot ever hold are
/// dropped: whoever sent them would only send them again.
async fn append(shared: &Shared, records: Vec<NewRecord>) -> Result<(), AppendError> {
    match append_together(shared, &records).await {
        Err(AppendError::TooLarge { .. }) => {}
        other => return other,
    }
    for record in records {
        let counts = record.counts;
        match append_together(shared, &[record]).await {
            Err(error @ AppendError::TooLarge { .. }) => {
                shared.too_large.add(&counts);
                let fields = [("count", Field::from(counts.items())), ("err", Field::from(error.to_string()))];
                shared.logger.error("dropped samples that do not fit into the queue", &fields);
            }
            other => other?,
        }
    }
    Ok(())
}

async fn append_together(shared: &Shared, records: &[NewRecord]) -> Result<(), AppendError> {
    loop {
        match shared.queue.append(records.to_vec()).await {
            Err(AppendError::Overflow) => {
                shared.waits.fetch_add(1, Ordering::Relaxed);
                shared.queue.space().await;
            }
            other => return other,
        }
    }
}

fn record(compressor: &mut Compressor, filling: &mut Filling, partition: u16, partitions: u16) -> NewRecord {
    let Buffers { raw, request } = &mut filling.buffers;
    let encoding = match request {
        Some(request) => {
            request.finish_into(raw);
            ENCODING_V2
        }
        None => ENCODING_V1,
    };
    NewRecord {
        encoding,
        tenant: None,
        partition,
        partitions,
        counts: filling.counts,
        lowest_ms: filling.lowest_ms,
        highest_ms: filling.highest_ms,
        raw_len: raw.len() as u32,
        body: Bytes::from(compressor.piece(raw)),
    }
}
