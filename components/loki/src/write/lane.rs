//! The lane into the queue, and its books.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use corten_queue::Queue;
use corten_sink::{Lane, LaneBooks};

use super::group::{Filled, Taken};
use super::metrics::{STREAM_LIMITED, TOO_LARGE};

/// Why entries are dropped whose tenant cannot stand in a header.
const INVALID_TENANT: &str = "invalid tenant";
/// Why entries are dropped that were taken when the queue was closed already.
const NOT_WRITTEN: &str = "queue closed";

/// A lane that counts what it is given.
pub(super) struct LogsLane {
    sink: Lane<Filled>,
    /// Another lane into the same queue, which still may write what it was given.
    before: Option<Arc<LogsLane>>,
    /// What other lanes were given that write no more, and what they dropped of it.
    offered_before: u64,
    dropped_before: Vec<(&'static str, u64)>,
    /// Nothing is written any more.
    is_closed: AtomicBool,
    /// How many entries were given to the lane.
    offered: AtomicU64,
    /// How many of them were put into records.
    filled: AtomicU64,
    stream_limited: AtomicU64,
    invalid_tenant: AtomicU64,
    /// How many bytes the queue may hold.
    capacity_bytes: AtomicU64,
}

impl LogsLane {
    /// `before` is the lane into the same queue that was used before.
    pub(super) fn new(sink: Lane<Filled>, before: Option<Arc<LogsLane>>) -> Self {
        let (before, offered_before, dropped_before) = match before {
            None => (None, sink.queue().stats().appended.samples, Vec::new()),
            Some(before) if before.are_all_closed() => (None, before.offered(), before.dropped()),
            Some(before) => (Some(before), 0, Vec::new()),
        };
        LogsLane {
            sink,
            before,
            offered_before,
            dropped_before,
            is_closed: AtomicBool::new(false),
            offered: AtomicU64::new(0),
            filled: AtomicU64::new(0),
            stream_limited: AtomicU64::new(0),
            invalid_tenant: AtomicU64::new(0),
            capacity_bytes: AtomicU64::new(0),
        }
    }

    pub(super) fn queue(&self) -> &Queue {
        self.sink.queue()
    }

    pub(super) fn sink(&self) -> &Lane<Filled> {
        &self.sink
    }

    /// Writes what is waiting, and takes nothing any more.
    pub(super) async fn close(&self) {
        self.sink.close().await;
        self.is_closed.store(true, Ordering::Release);
    }

    fn are_all_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire) && self.before.as_ref().is_none_or(|before| before.are_all_closed())
    }

    pub(super) fn set_capacity(&self, bytes: u64) {
        self.capacity_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Entries are dropped because of their tenant.
    pub(super) fn refuse_tenant(&self, entries: usize) {
        self.invalid_tenant.fetch_add(entries as u64, Ordering::Relaxed);
        self.offered.fetch_add(entries as u64, Ordering::Relaxed);
    }

    /// Puts entries into the group that is being filled, with what `push` does.
    pub(super) fn fill(&self, push: impl FnOnce(&mut Filled) -> Taken) -> Taken {
        let mut taken = Taken::default();
        self.sink.fill(|group| {
            taken = push(group);
            // While the group is locked: it may be written before this returns.
            let limited = taken.stream_limited.samples;
            self.offered.fetch_add(taken.entries as u64, Ordering::Relaxed);
            self.filled.fetch_add((taken.entries as u64).saturating_sub(limited), Ordering::Relaxed);
            self.stream_limited.fetch_add(limited, Ordering::Relaxed);
            taken.is_full
        });
        taken
    }

    /// How many entries wait to be written, and how many never will be.
    fn unwritten(&self) -> (u64, u64) {
        self.sink.unwritten(|| self.filled.load(Ordering::Relaxed))
    }
}

impl LaneBooks for LogsLane {
    fn offered(&self) -> u64 {
        let before = self.before.as_ref().map_or(self.offered_before, |before| before.offered());
        before + self.offered.load(Ordering::Relaxed)
    }

    fn waiting(&self) -> u64 {
        self.before.as_ref().map_or(0, |before| before.waiting()) + self.unwritten().0
    }

    fn dropped(&self) -> Vec<(&'static str, u64)> {
        let before = self.before.as_ref().map_or_else(|| self.dropped_before.clone(), |before| before.dropped());
        let own = [
            (STREAM_LIMITED, self.stream_limited.load(Ordering::Relaxed)),
            (INVALID_TENANT, self.invalid_tenant.load(Ordering::Relaxed)),
            (TOO_LARGE, self.sink.too_large().samples),
            (NOT_WRITTEN, self.unwritten().1),
        ];
        let of_before = |reason| before.iter().find(|(known, _)| *known == reason).map_or(0, |(_, count)| *count);
        own.map(|(reason, count)| (reason, count + of_before(reason))).to_vec()
    }

    fn capacity_bytes(&self) -> Option<u64> {
        Some(self.capacity_bytes.load(Ordering::Relaxed)).filter(|bytes| *bytes > 0)
    }
}

/// The lane as a sink's end sees it.
pub(super) fn books(lane: &Arc<LogsLane>) -> Arc<dyn LaneBooks> {
    Arc::clone(lane) as Arc<dyn LaneBooks>
}
