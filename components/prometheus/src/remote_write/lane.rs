//! A lane: samples are encoded and compressed once, and written to the queue before they count as taken.
//!
//! Batches that arrive within a tenth of a second of each other are joined into one record. A record is a piece of a
//! remote write 1 request; the sender joins records without decoding them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use corten_queue::{Counts, NewRecord, Queue};
use corten_signal::flow::BoxFuture;
use corten_signal::{Consume, ConsumeError, Metrics, MetricsBatch, SeriesPart};
use corten_wire::remote_write::push_sample;
use corten_wire::snappy::Compressor;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

/// How long samples wait for others to share a record with. A record costs two handovers between threads, a write and a
/// read, however many samples it holds; a tenth of a second is little beside the seconds for which a request waits.
const JOIN_WAIT: Duration = Duration::from_millis(100);

/// The encoding byte of the lane's records: remote write 1, compressed as pieces of a snappy block.
pub(crate) const ENCODING_V1: u8 = 1;

/// The most bytes that a record holds before compression. The format of a request has no limit, its receivers do.
const RAW_BYTES_MAX: usize = 8 << 20;

/// A lane of a `prometheus.remote_write`.
pub struct Lane {
    component: Arc<str>,
    shared: Arc<Shared>,
}

struct Shared {
    queue: Queue,
    samples_max: u32,
    open: Mutex<Open>,
    /// The writer is told when something was put into an empty record, and when one is full.
    wake: Notify,
    full: Notify,
    /// The number of the last record that was written.
    written: watch::Sender<u64>,
    closed: AtomicBool,
}

/// The record that is being filled, and those that are full and not yet taken by the writer.
#[derive(Default)]
struct Open {
    number: u64,
    filling: Filling,
    full: Vec<Filling>,
    spare: Option<Vec<u8>>,
}

#[derive(Default)]
struct Filling {
    raw: Vec<u8>,
    samples: u32,
    lowest_ms: i64,
    highest_ms: i64,
}

impl Lane {
    /// A lane into this queue, with at most this many samples in a record.
    pub fn new(component: impl Into<Arc<str>>, queue: Queue, samples_max: u32) -> Self {
        let shared = Arc::new(Shared {
            queue,
            samples_max: samples_max.max(1),
            open: Mutex::new(Open { number: 1, ..Open::default() }),
            wake: Notify::new(),
            full: Notify::new(),
            written: watch::Sender::new(0),
            closed: AtomicBool::new(false),
        });
        tokio::spawn(write_records(Arc::clone(&shared)));
        Lane { component: component.into(), shared }
    }

    async fn take(&self, batch: &MetricsBatch) -> Result<(), ConsumeError> {
        let mut last = 0;
        for part in &batch.parts {
            let mut at = 0;
            while at < part.samples.len() {
                let (number, sealed) = self.shared.encode(part, &mut at);
                last = number;
                if sealed {
                    // Waiting here bounds what one caller has in memory to one record.
                    self.wait_written(number).await?;
                }
            }
        }
        self.wait_written(last).await
    }

    async fn wait_written(&self, number: u64) -> Result<(), ConsumeError> {
        let mut written = self.shared.written.subscribe();
        let gone = || ConsumeError::Exited { component: self.component.to_string() };
        written.wait_for(|done| *done >= number).await.map_err(|_| gone())?;
        if self.shared.closed.load(Ordering::Acquire) { Err(gone()) } else { Ok(()) }
    }
}

impl Consume<Metrics> for Lane {
    fn consume(&self, batch: Arc<MetricsBatch>) -> BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(async move { self.take(&batch).await })
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.wake.notify_one();
        self.shared.full.notify_one();
    }
}

impl Shared {
    /// Encodes samples from `at` on until the part ends or the record is full. Returns the number of the record and
    /// whether it is full now.
    fn encode(&self, part: &SeriesPart, at: &mut usize) -> (u64, bool) {
        let mut open = self.open.lock();
        let number = open.number;
        let was_empty = open.filling.samples == 0;
        if was_empty {
            open.filling.lowest_ms = i64::MAX;
            open.filling.highest_ms = i64::MIN;
            if let Some(spare) = open.spare.take() {
                open.filling.raw = spare;
            }
        }
        let filling = &mut open.filling;
        let room = (self.samples_max - filling.samples) as usize;
        let end = part.samples.len().min(*at + room);
        for sample in &part.samples[*at..end] {
            let time_ms = part.timestamp_ms(sample);
            push_sample(&mut filling.raw, part.block.labels(sample.index), sample.value, time_ms);
            filling.samples += 1;
            filling.lowest_ms = filling.lowest_ms.min(time_ms);
            filling.highest_ms = filling.highest_ms.max(time_ms);
            *at += 1;
            if filling.raw.len() >= RAW_BYTES_MAX {
                break;
            }
        }
        let is_full = filling.samples >= self.samples_max || filling.raw.len() >= RAW_BYTES_MAX;
        if is_full {
            let full = std::mem::take(&mut open.filling);
            open.full.push(full);
            open.number += 1;
            self.full.notify_one();
            self.wake.notify_one();
        } else if was_empty {
            self.wake.notify_one();
        }
        (number, is_full)
    }

    /// What is to be written now: the full records, and what has been waiting when `all` is set.
    fn take(&self, all: bool) -> (Vec<Filling>, u64) {
        let mut open = self.open.lock();
        let mut records = std::mem::take(&mut open.full);
        if all && open.filling.samples > 0 {
            records.push(std::mem::take(&mut open.filling));
            open.number += 1;
        }
        (records, open.number - 1)
    }
}

async fn write_records(shared: Arc<Shared>) {
    let mut compressor = Compressor::new();
    loop {
        shared.wake.notified().await;
        let closed = shared.closed.load(Ordering::Acquire);
        // Others may join until the record is full or the wait is over.
        let full = !closed && tokio::time::timeout(JOIN_WAIT, shared.full.notified()).await.is_ok();
        let (records, number) = shared.take(!full);
        let rest_waits = full && shared.open.lock().filling.samples > 0;
        if rest_waits {
            shared.wake.notify_one();
        }
        let mut encoded = Vec::with_capacity(records.len());
        for record in records {
            encoded.push(compress(&mut compressor, &record));
            recycle(&shared, record.raw);
        }
        if !encoded.is_empty() && shared.queue.append(encoded).await.is_err() {
            shared.closed.store(true, Ordering::Release);
        }
        shared.written.send_if_modified(|done| std::mem::replace(done, number) != number);
        if shared.closed.load(Ordering::Acquire) {
            shared.written.send_replace(u64::MAX);
            return;
        }
    }
}

fn compress(compressor: &mut Compressor, record: &Filling) -> NewRecord {
    NewRecord {
        encoding: ENCODING_V1,
        tenant: None,
        partition: 0,
        partitions: 1,
        counts: Counts { samples: record.samples, ..Counts::default() },
        lowest_ms: record.lowest_ms,
        highest_ms: record.highest_ms,
        raw_len: record.raw.len() as u32,
        body: Bytes::from(compressor.piece(&record.raw)),
    }
}

fn recycle(shared: &Shared, mut raw: Vec<u8>) {
    let mut open = shared.open.lock();
    if open.filling.samples == 0 && open.filling.raw.capacity() == 0 {
        raw.clear();
        open.filling.raw = raw;
    } else if open.spare.is_none() {
        raw.clear();
        open.spare = Some(raw);
    }
}

/// The wall clock in milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}
