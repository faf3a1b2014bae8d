//! A lane: samples are encoded and compressed once, and written to the queue before they count as taken.
//!
//! Endpoints that want the same bytes share a lane, each with a cursor of its own. Batches that arrive within a tenth of
//! a second of each other are joined into one record. A record is a piece of a remote write 1 request; the sender joins
//! records without decoding them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use corten_component::{Field, Logger};
use corten_queue::{AppendError, Counts, NewRecord, Queue};
use corten_signal::metrics::{Exemplar, HistogramSample};
use corten_signal::{ConsumeError, MetricsBatch, Sample, SeriesPart};
use corten_wire::remote_write::{push_exemplar, push_histogram, push_sample};
use corten_wire::snappy::Compressor;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::transform::Transform;

/// How long samples wait for others to share a record with. A record costs two handovers between threads, a write and a
/// read, however many samples it holds; a tenth of a second is little beside the seconds for which a request waits.
const JOIN_WAIT: Duration = Duration::from_millis(100);

/// The encoding byte of a lane's records: remote write 1, compressed as pieces of a snappy block.
pub(super) const ENCODING_V1: u8 = 1;

/// The most bytes that a record holds before compression. The format of a request has no limit, its receivers do.
const RAW_BYTES_MAX: usize = 4 << 20;

/// A lane of a `prometheus.remote_write`.
pub(super) struct Lane {
    component: Arc<str>,
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
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
    /// How many samples were taken, for the choice of partitions.
    taken: AtomicU64,
    /// How many histograms the protocol cannot carry.
    unsendable: AtomicU64,
    /// How many samples were in records that are larger than the queue may be.
    too_large: AtomicU64,
    logger: Logger,
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
    spare: Vec<Vec<u8>>,
}

#[derive(Default)]
struct Filling {
    raw: Vec<u8>,
    counts: Counts,
    lowest_ms: i64,
    highest_ms: i64,
}

impl Lane {
    /// A lane into this queue. How many samples stand in a record is still to be set.
    pub(super) fn new(component: Arc<str>, queue: Queue, transform: Transform, kinds: Kinds, logger: Logger) -> Self {
        let shared = Arc::new(Shared {
            queue,
            transform,
            samples_max: AtomicU64::new(1),
            partitions: AtomicU16::new(1),
            open: Mutex::new(Open { number: 1, ..Open::default() }),
            wake: Notify::new(),
            full: Notify::new(),
            written: watch::Sender::default(),
            kinds,
            taken: AtomicU64::new(0),
            unsendable: AtomicU64::new(0),
            too_large: AtomicU64::new(0),
            logger,
        });
        let writer = tokio::spawn(write_records(Arc::clone(&shared)));
        Lane { component, shared, writer: Mutex::new(Some(writer)) }
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

    /// How many histograms were dropped because the protocol cannot carry them.
    pub(super) fn unsendable(&self) -> u64 {
        self.shared.unsendable.load(Ordering::Relaxed)
    }

    /// How many samples were dropped because their record is larger than the queue may be.
    pub(super) fn too_large(&self) -> u64 {
        self.shared.too_large.load(Ordering::Relaxed)
    }

    /// How many samples were dropped by relabelling.
    pub(super) fn dropped(&self) -> u64 {
        self.shared.transform.dropped()
    }

    /// Takes a batch: when this returns, it is in the queue.
    pub(super) async fn take(&self, batch: &MetricsBatch) -> Result<(), ConsumeError> {
        let mut last = 0;
        for part in &batch.parts {
            for part in self.shared.transform.apply(part).iter() {
                let mut at = 0;
                while at < self.shared.kinds.count(part) {
                    let (number, sealed) = self.shared.encode(part, &mut at);
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
    /// Encodes samples from `at` on until the part ends or the group is full. Returns the number of the group and whether
    /// it is full now.
    fn encode(&self, part: &SeriesPart, at: &mut usize) -> (u64, bool) {
        let samples_max = self.samples_max.load(Ordering::Relaxed);
        let mut open = self.open.lock();
        let open = &mut *open;
        let number = open.number;
        let was_empty = open.items == 0;
        if was_empty {
            let partitions = usize::from(self.partitions.load(Ordering::Relaxed));
            let spare = &mut open.spare;
            open.filling = (0..partitions).map(|_| Filling::new(spare.pop().unwrap_or_default())).collect();
        }
        let before = *at;
        let partitions = open.filling.len() as u64;
        let wanted = self.kinds.count(part);
        let mut is_full = false;
        while *at < wanted && !is_full {
            let item = self.kinds.item(part, *at);
            let partition = if partitions == 1 { 0 } else { part.block.hash64(item.index()) % partitions };
            let filling = &mut open.filling[partition as usize];
            if !filling.push(part, &item) {
                self.unsendable.fetch_add(1, Ordering::Relaxed);
            }
            *at += 1;
            is_full = filling.counts.items() >= samples_max || filling.raw.len() >= RAW_BYTES_MAX;
        }
        open.items += (*at - before) as u64;
        self.taken.fetch_add((*at - before) as u64, Ordering::Relaxed);
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
        (number, is_full)
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

    fn recycle(&self, mut raw: Vec<u8>) {
        let mut open = self.open.lock();
        if open.spare.len() < usize::from(self.partitions.load(Ordering::Relaxed)) {
            raw.clear();
            open.spare.push(raw);
        }
    }
}

impl Filling {
    fn new(raw: Vec<u8>) -> Self {
        Filling { raw, counts: Counts::default(), lowest_ms: i64::MAX, highest_ms: i64::MIN }
    }

    /// Adds an item; whether the protocol can carry it.
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
            for (partition, filling) in group.into_iter().enumerate() {
                if filling.counts.items() > 0 {
                    records.push(record(&mut compressor, &filling, partition as u16, partitions));
                }
                shared.recycle(filling.raw);
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

/// Appends records, for as long as the queue is full and its user wants to wait. Records that it cannot ever hold are
/// dropped: whoever sent them would only send them again.
async fn append(shared: &Shared, records: Vec<NewRecord>) -> Result<(), AppendError> {
    match append_together(shared, &records).await {
        Err(AppendError::TooLarge { .. }) => {}
        other => return other,
    }
    for record in records {
        let samples = record.counts.items();
        match append_together(shared, &[record]).await {
            Err(error @ AppendError::TooLarge { .. }) => {
                shared.too_large.fetch_add(samples, Ordering::Relaxed);
                let fields = [("count", Field::from(samples)), ("err", Field::from(error.to_string()))];
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
            Err(AppendError::Overflow) => shared.queue.space().await,
            other => return other,
        }
    }
}

fn record(compressor: &mut Compressor, filling: &Filling, partition: u16, partitions: u16) -> NewRecord {
    NewRecord {
        encoding: ENCODING_V1,
        tenant: None,
        partition,
        partitions,
        counts: filling.counts,
        lowest_ms: filling.lowest_ms,
        highest_ms: filling.highest_ms,
        raw_len: filling.raw.len() as u32,
        body: Bytes::from(compressor.piece(&filling.raw)),
    }
}
