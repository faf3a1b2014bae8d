//! A reader: its place in the log, what it has read ahead, what it has handed out.
//!
//! The log is read once, in order, and its records are put into a list a partition; what is handed out, in lists or
//! on its way is limited to about two runs a partition, shared by all partitions. A reader that has read everything
//! gets what is appended from the writer and does not read it back.
//!
//! Where [`ReaderOptions::overtake_after`] asks for it, a partition whose run is out for long does not stop the others: what
//! was read ahead for it is given up again, and its records are passed over, until the run is settled. Then reading goes
//! back to the first of them. What other partitions have taken meanwhile is skipped, and a partition that has its share
//! is passed over again, so that those that are not behind wait for one share and not for all that was passed over.
//!
//! Locks: the queue's state before a reader's. Files are read without either.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::fs::File;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::cursor::CursorFile;
use crate::format::{self, Item, Parser, Position, SEGMENT_HEADER_LEN, Slot};
use crate::keeper;
use crate::queue::{Segment, Shared};
use crate::types::{Counts, Lag, Mark, Outcome, ReaderOptions, ReaderStats, Record, Run, Start, Totals, reason};

/// How much of a segment is read at once, in bytes, unless a record is larger.
pub(crate) const CHUNK_BYTES: usize = 256 << 10;
/// What a record costs in memory besides its body, for the limit on reading ahead.
const RECORD_MEMORY_BYTES: usize = 256;
/// How long to wait after a read that failed.
const READ_RETRY: Duration = if cfg!(test) { Duration::from_millis(1) } else { Duration::from_secs(1) };
/// How many runs are read ahead at most where partitions may overtake each other, but for runs that are out for long.
const OVERTAKING_RUNS_MAX: usize = 16;
/// Where partitions may overtake each other and this much is handed out, in bytes, further runs are cut small: a peer that
/// takes nothing of many partitions does not cost the memory of as many large requests.
const OUT_BYTES_MAX: usize = 8 << 20;
/// How small, in bytes of bodies. A larger record goes alone.
const SMALL_RUN_BYTES_MAX: usize = 64 << 10;
/// After that many failures at one place, the rest of the segment is given up.
const READ_FAILURES_MAX: u32 = 5;

/// A record that was read and is not settled.
#[derive(Clone, Debug)]
struct Pending {
    record: Record,
    at: Position,
    /// What stands in its segment before it.
    before: Totals,
    /// About when it was created.
    created: Instant,
}

impl Pending {
    fn memory(&self) -> usize {
        self.record.body.len() + RECORD_MEMORY_BYTES
    }

    fn joins(&self, other: &Pending) -> bool {
        self.record.encoding == other.record.encoding && self.record.tenant == other.record.tenant
    }
}

/// A record that was given up although it was in memory only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GivenUp {
    pub(crate) at: Position,
    pub(crate) partition: u16,
    pub(crate) counts: Counts,
    pub(crate) body_len: usize,
}

/// A run that is handed out.
#[derive(Debug)]
struct Out {
    serial: u64,
    /// Empty once it was given back for good.
    records: Vec<Pending>,
    totals: Totals,
    /// What the records take in memory.
    memory: usize,
    first: Position,
    before: Totals,
    created_ms: i64,
    released: bool,
    since: Instant,
    /// It is out for long: its partition is passed over.
    is_stalled: bool,
}

#[derive(Debug, Default)]
struct Partition {
    pending: VecDeque<Pending>,
    items: u64,
    bytes: usize,
    raw_bytes: u64,
    /// How many of the pending records cannot be in one run with the one before.
    changes: usize,
    out: Option<Out>,
    /// The first record that was passed over, and what stands in its segment before it. From there on nothing is taken until
    /// reading goes back.
    behind: Option<(Position, Totals)>,
    /// What was passed over and is not taken yet, by segment.
    passed: BTreeMap<u64, Totals>,
}

impl Partition {
    fn push_back(&mut self, pending: Pending) {
        if self.pending.back().is_some_and(|last| !last.joins(&pending)) {
            self.changes += 1;
        }
        self.add(&pending);
        self.pending.push_back(pending);
    }

    fn push_front(&mut self, pending: Pending) {
        if self.pending.front().is_some_and(|next| !next.joins(&pending)) {
            self.changes += 1;
        }
        self.add(&pending);
        self.pending.push_front(pending);
    }

    fn pop_front(&mut self) -> Option<Pending> {
        let pending = self.pending.pop_front()?;
        if self.pending.front().is_some_and(|next| !next.joins(&pending)) {
            self.changes -= 1;
        }
        self.remove(&pending);
        Some(pending)
    }

    fn pop_back(&mut self) -> Option<Pending> {
        let pending = self.pending.pop_back()?;
        if self.pending.back().is_some_and(|last| !last.joins(&pending)) {
            self.changes -= 1;
        }
        self.remove(&pending);
        Some(pending)
    }

    fn add(&mut self, pending: &Pending) {
        self.items += pending.record.counts.items();
        self.bytes += pending.record.body.len();
        self.raw_bytes += u64::from(pending.record.raw_len);
    }

    fn remove(&mut self, pending: &Pending) {
        self.items -= pending.record.counts.items();
        self.bytes -= pending.record.body.len();
        self.raw_bytes -= u64::from(pending.record.raw_len);
    }

    /// Where what is not settled begins, and what stands in its segment before; absent if it begins where reading goes on.
    fn begin(&self) -> Option<(Position, Totals)> {
        self.first().map(|(at, before, _)| (at, before)).or(self.behind)
    }

    /// Whether it has as much as one partition may have after reading went back.
    fn has_share(&self, options: &ReaderOptions) -> bool {
        let out = self.out.as_ref().map_or((0, 0), |out| (out.totals.items(), out.memory));
        let memory = self.bytes + self.pending.len() * RECORD_MEMORY_BYTES + out.1;
        self.items + out.0 >= 2 * u64::from(options.items_max)
            || memory >= options.bytes_max.max(RECORD_MEMORY_BYTES).saturating_mul(2)
    }

    /// Counts what was passed over as taken, or lost.
    fn take_passed(&mut self, segment: u64, counts: &Counts, body_len: usize) {
        let mut taken = Totals::default();
        taken.record(counts, body_len);
        if let Some(passed) = self.passed.get_mut(&segment) {
            *passed = passed.without(&taken);
            if *passed == Totals::default() {
                self.passed.remove(&segment);
            }
        }
    }

    /// The first record that is not settled, of those that were read.
    fn first(&self) -> Option<(Position, Totals, i64)> {
        match (&self.out, self.pending.front()) {
            (Some(out), _) => Some((out.first, out.before, out.created_ms)),
            (None, Some(first)) => Some((first.at, first.before, first.record.created_ms)),
            (None, None) => None,
        }
    }

    /// Whether nothing that comes later can be in the next run, or has to be.
    fn is_full(&self, options: &ReaderOptions) -> bool {
        self.items >= u64::from(options.items_max.min(options.items_min))
            || self.bytes >= options.bytes_max.min(options.bytes_min)
            || self.raw_bytes >= options.raw_bytes_max
            || self.changes > 0
    }
}

/// What stays of a reader when its handle is replaced or the queue is opened again.
#[derive(Debug, Default)]
pub(crate) struct Resumed {
    pub(crate) slot: Slot,
    pub(crate) cursor: Option<CursorFile>,
}

#[derive(Debug)]
pub(crate) struct ReaderState {
    options: ReaderOptions,
    /// [`crate::Options::age_max`] of the queue.
    expire_after: Duration,
    /// Whether a handle was made for it since the queue was opened.
    attached: bool,
    /// Replaced, removed, or the queue is closed.
    dead: bool,
    flushing: bool,

    scan: Position,
    /// What stands in the segment of `scan` before it.
    scanned: Totals,
    /// How far the log was read before reading went back, and what stands in that segment before.
    frontier: Option<(Position, Totals)>,
    /// What stands here and behind is not for this reader.
    end: Option<Position>,
    /// Counts the times that `scan` was moved by others than the one who scans.
    generation: u64,
    scanning: bool,
    /// Nothing is in the log behind `scan`.
    at_tail: bool,
    /// The record at `scan` is of another number of partitions than what is unsettled.
    barrier: bool,
    lost: bool,
    /// How many bytes the record at `scan` needs.
    want: usize,
    file: Option<(u64, Arc<File>)>,
    retry_at: Option<Instant>,
    read_failures: u32,
    /// What each partition had settled when the reader was made, or taken when reading went back.
    skip_to: Vec<Position>,

    partitions: Vec<Partition>,
    turn: usize,
    serial: u64,
    unsettled: usize,
    unsettled_items: u64,
    memory: usize,

    highest_delivered_ms: Option<i64>,
    cursor: Option<CursorFile>,
    dirty: bool,
    unsynced: bool,
    delivered: Totals,
    dropped: BTreeMap<&'static str, Totals>,
    /// What was waiting when the handle was made, as far as the totals of segments say.
    waited: Totals,
    /// What of that had been settled before, and was passed over.
    skipped: Totals,
    /// What had been appended when the handle was made, and at the reader's end.
    appended_before: Totals,
    appended_at_end: Option<Totals>,
}

pub(crate) struct ReaderCore {
    pub(crate) name: String,
    pub(crate) stem: String,
    pub(crate) state: Mutex<ReaderState>,
    notify: Notify,
}

impl fmt::Debug for ReaderCore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReaderCore").field("name", &self.name).finish_non_exhaustive()
    }
}

enum Step {
    Run(Run),
    End,
    Scan(Option<Instant>),
    Wait(Option<Instant>),
}

enum Plan {
    Done,
    Read { segment: u64, at: u32, end: u32, len: usize, lost: bool, generation: u64, file: Option<Arc<File>> },
}

impl ReaderState {
    /// Where reading would resume, and what stands in its segment before it.
    fn resume(&self) -> (Position, Totals) {
        let mut first = (self.scan, self.scanned);
        for begin in self.partitions.iter().filter_map(Partition::begin) {
            if begin.0 < first.0 {
                first = begin;
            }
        }
        first
    }

    /// How far the log was read at all, and what stands in that segment before.
    fn high(&self) -> (Position, Totals) {
        self.frontier.filter(|(frontier, _)| *frontier > self.scan).unwrap_or((self.scan, self.scanned))
    }

    fn is_any_behind(&self) -> bool {
        self.partitions.iter().any(|partition| partition.behind.is_some())
    }

    fn slot(&self) -> Slot {
        let (resume, before) = self.resume();
        let settled = self.partitions.iter().enumerate().map(|(number, partition)| {
            let read_to = || self.skip_to.get(number).map_or(self.scan, |skip_to| self.scan.max(*skip_to));
            partition.begin().map_or_else(read_to, |(at, _)| at)
        });
        Slot {
            sequence: 0,
            resume,
            before,
            end: self.end,
            highest_delivered_ms: self.highest_delivered_ms,
            settled: settled.collect(),
        }
    }

    fn drop_totals(&mut self, reason: &'static str, totals: Totals) {
        if totals != Totals::default() {
            *self.dropped.entry(reason).or_default() += totals;
        }
    }

    fn drop_record(&mut self, reason: &'static str, record: &Record) {
        self.dropped.entry(reason).or_default().record(&record.counts, record.body.len());
    }

    fn has_room(&self) -> bool {
        let mut runs = 2 * self.partitions.len().max(1);
        let (mut items, mut memory) = (self.unsettled_items, self.memory);
        if self.options.overtake_after.is_some() {
            runs = runs.min(OVERTAKING_RUNS_MAX);
            for out in self.partitions.iter().filter_map(|partition| partition.out.as_ref()) {
                if out.is_stalled {
                    (items, memory) = (items - out.totals.items(), memory - out.memory);
                }
            }
        }
        self.unsettled == 0
            || (items < (runs as u64).saturating_mul(u64::from(self.options.items_max))
                && memory < runs.saturating_mul(self.options.bytes_max.max(RECORD_MEMORY_BYTES)))
    }

    /// Passes over partitions whose runs are out for long: what was read ahead for them is given up. When to look again.
    fn set_aside(&mut self, now: Instant) -> Option<Instant> {
        let after = self.options.overtake_after?;
        if self.partitions.len() < 2 {
            return None;
        }
        let mut look_at: Option<Instant> = None;
        for number in 0..self.partitions.len() {
            let partition = &mut self.partitions[number];
            let Some(out) = partition.out.as_mut().filter(|out| !out.is_stalled) else { continue };
            let due = out.since + after;
            if due > now && !out.released {
                look_at = Some(look_at.map_or(due, |look_at| look_at.min(due)));
                continue;
            }
            out.is_stalled = true;
            while let Some(given_up) = self.partitions[number].pop_back() {
                let (record, at) = (&given_up.record, given_up.at);
                let partition = &mut self.partitions[number];
                partition.behind = Some((at, given_up.before));
                partition.passed.entry(at.segment).or_default().record(&record.counts, record.body.len());
                self.forget(1, record.counts.items(), given_up.memory());
            }
        }
        look_at
    }

    /// Goes back to what was passed over of partitions that can take it now.
    fn go_back(&mut self) {
        if self.scanning {
            return;
        }
        let ready = |partition: &Partition| {
            let is_free = partition.out.as_ref().is_none_or(|out| !out.is_stalled);
            partition.behind.filter(|_| is_free && partition.pending.is_empty())
        };
        let Some(back) = self.partitions.iter().filter_map(ready).min_by_key(|(at, _)| *at) else { return };
        self.skip_to.resize(self.partitions.len(), Position::default());
        let has_passed = back.0 < self.scan;
        for (partition, skip_to) in self.partitions.iter_mut().zip(&mut self.skip_to) {
            if let Some((at, _)) = ready(partition) {
                *skip_to = at;
                partition.behind = None;
            } else if has_passed && partition.behind.is_none() {
                *skip_to = self.scan.max(*skip_to);
            }
        }
        if has_passed {
            self.frontier = Some(self.high());
            self.move_to(back);
        }
    }

    /// Reading goes on elsewhere.
    fn move_to(&mut self, (scan, scanned): (Position, Totals)) {
        (self.scan, self.scanned) = (scan, scanned);
        self.generation += 1;
        (self.lost, self.want, self.read_failures) = (false, 0, 0);
        (self.at_tail, self.barrier) = (false, false);
        self.retry_at = None;
        self.file.take_if(|(segment, _)| *segment != scan.segment);
    }

    /// Leaves what was read before as soon as nobody wants anything of it.
    fn pass_frontier(&mut self) {
        let Some(frontier) = self.frontier else { return };
        let wants = |(number, partition): (usize, &Partition)| {
            partition.behind.is_none() && self.skip_to.get(number).is_none_or(|skip_to| *skip_to < frontier.0)
        };
        if self.scan < frontier.0 && self.partitions.iter().enumerate().any(wants) {
            return;
        }
        self.frontier = None;
        if self.scan <= frontier.0 {
            self.move_to(frontier);
        }
    }

    /// Whether everything was read that is for this reader.
    fn is_at_end(&self) -> bool {
        self.end.is_some_and(|end| self.scan >= end)
    }

    /// Whether everything is settled that is for this reader.
    fn has_all(&self) -> bool {
        self.is_at_end() && self.unsettled == 0 && !self.is_any_behind()
    }

    fn may_scan(&self, now: Instant) -> bool {
        !self.scanning
            && !self.is_at_end()
            && !self.at_tail
            && !self.barrier
            && self.retry_at.is_none_or(|retry_at| retry_at <= now)
            && self.has_room()
    }

    fn forget(&mut self, records: usize, items: u64, memory: usize) {
        self.unsettled -= records;
        self.unsettled_items -= items;
        self.memory -= memory;
        if self.unsettled == 0 {
            self.barrier = false;
        }
    }

    /// Takes the record at `scan` into its partition's list, unless it must wait for the partitions before it, or is not for
    /// this reader.
    fn push(&mut self, record: &Record, at: u32, end: u32, now: Instant, now_ms: i64) -> bool {
        if self.is_at_end() {
            return false;
        }
        if self.partitions.len() != usize::from(record.partitions) {
            if self.unsettled > 0 || self.is_any_behind() {
                self.barrier = true;
                return false;
            }
            self.partitions = (0..record.partitions).map(|_| Partition::default()).collect();
            self.skip_to.clear();
            self.turn = 0;
        }
        let before = self.scanned;
        self.scanned.record(&record.counts, record.body.len());
        let at = Position { segment: self.scan.segment, offset: at };
        self.scan.offset = end;
        let was_passed = self.frontier.is_some_and(|(frontier, _)| at < frontier);
        if self.skip_to.get(usize::from(record.partition)).is_some_and(|skip_to| at < *skip_to) {
            if !was_passed {
                self.skipped.record(&record.counts, record.body.len());
            }
            return true;
        }
        let Some(partition) = self.partitions.get_mut(usize::from(record.partition)) else { return true };
        let is_stalled = partition.out.as_ref().is_some_and(|out| out.is_stalled);
        if is_stalled || was_passed && partition.has_share(&self.options) {
            partition.behind.get_or_insert((at, before));
        }
        match (partition.behind.is_some(), was_passed) {
            (true, true) => return true,
            (true, false) => {
                partition.passed.entry(at.segment).or_default().record(&record.counts, record.body.len());
                return true;
            }
            (false, true) => partition.take_passed(at.segment, &record.counts, record.body.len()),
            (false, false) => {}
        }
        let age = Duration::from_millis(now_ms.saturating_sub(record.created_ms).max(0) as u64);
        let created = now.checked_sub(age).unwrap_or(now);
        let pending = Pending { record: record.clone(), at, before, created };
        self.unsettled += 1;
        self.unsettled_items += record.counts.items();
        self.memory += pending.memory();
        partition.push_back(pending);
        true
    }

    fn is_too_old(&self, record: &Record, now_ms: i64) -> Option<&'static str> {
        let older = |time_ms: i64, age_max: Duration| {
            u128::try_from(now_ms.saturating_sub(time_ms)).is_ok_and(|age_ms| age_ms > age_max.as_millis())
        };
        if older(record.created_ms, self.expire_after) {
            Some(reason::EXPIRED)
        } else if self.options.age_max.is_some_and(|age_max| older(record.highest_ms, age_max)) {
            Some(reason::TOO_OLD)
        } else {
            None
        }
    }

    fn step(&mut self, core: &Arc<ReaderCore>, now: Instant, now_ms: i64) -> Step {
        if self.dead {
            return Step::End;
        }
        let look_at = self.set_aside(now);
        self.go_back();
        // As long as there is more to read and room for it, a run may still become full, however old it is.
        let reads_on = self.scanning || self.may_scan(now);
        for turn in 0..self.partitions.len() {
            let number = (self.turn + turn) % self.partitions.len();
            if let Some(run) = self.take(core, number, reads_on, now, now_ms) {
                self.turn = number + 1;
                return Step::Run(run);
            }
        }
        let mut wake_at = self.retry_at.filter(|retry_at| *retry_at > now).into_iter().chain(look_at).min();
        let mut drained = true;
        for partition in &self.partitions {
            match (&partition.out, partition.pending.front()) {
                (Some(out), _) => drained &= out.released,
                (None, Some(first)) => {
                    drained = false;
                    let due = first.created + self.options.wait_max;
                    wake_at = Some(wake_at.map_or(due, |wake_at| wake_at.min(due)));
                }
                (None, None) => drained &= partition.behind.is_none(),
            }
        }
        if self.may_scan(now) {
            self.scanning = true;
            self.retry_at = None;
            Step::Scan(wake_at)
        } else if self.flushing && !self.scanning && drained && wake_at.is_none() {
            Step::End
        } else {
            Step::Wait(wake_at)
        }
    }

    /// The next run of a partition, if there is one to hand out now.
    fn take(
        &mut self,
        core: &Arc<ReaderCore>,
        number: usize,
        reads_on: bool,
        now: Instant,
        now_ms: i64,
    ) -> Option<Run> {
        let partition = self.partitions.get(number)?;
        let first = partition.pending.front()?;
        let is_due = self.flushing || self.barrier || first.created + self.options.wait_max <= now;
        if partition.out.is_some() || !(is_due && !reads_on || partition.is_full(&self.options)) {
            return None;
        }
        let mut bytes_max = self.options.bytes_max;
        if self.options.overtake_after.is_some() {
            let out = self.partitions.iter().filter_map(|partition| partition.out.as_ref());
            if out.map(|out| out.memory).sum::<usize>() >= OUT_BYTES_MAX {
                bytes_max = bytes_max.min(SMALL_RUN_BYTES_MAX);
            }
        }
        let mut group: Vec<Pending> = Vec::new();
        let (mut items, mut bytes, mut raw_bytes) = (0, 0, 0);
        while let Some(next) = self.partitions[number].pending.front() {
            let (next_items, next_bytes) = (next.record.counts.items(), next.record.body.len());
            let next_raw_bytes = u64::from(next.record.raw_len);
            if let Some(reason) = self.is_too_old(&next.record, now_ms) {
                if let Some(old) = self.partitions[number].pop_front() {
                    self.drop_record(reason, &old.record);
                    self.forget(1, next_items, old.memory());
                    self.dirty = true;
                }
                continue;
            }
            let fits = items + next_items <= u64::from(self.options.items_max)
                && bytes + next_bytes <= bytes_max
                && raw_bytes + next_raw_bytes <= self.options.raw_bytes_max;
            if group.first().is_some_and(|first| !fits || !first.joins(next)) {
                break;
            }
            items += next_items;
            bytes += next_bytes;
            raw_bytes += next_raw_bytes;
            group.extend(self.partitions[number].pop_front());
        }
        let first = group.first()?;
        self.serial += 1;
        let mut totals = Totals::default();
        for pending in &group {
            totals.record(&pending.record.counts, pending.record.body.len());
        }
        let out = Out {
            serial: self.serial,
            totals,
            memory: group.iter().map(Pending::memory).sum(),
            since: now,
            is_stalled: false,
            first: first.at,
            before: first.before,
            created_ms: first.record.created_ms,
            released: false,
            records: group,
        };
        let run = Run {
            records: out.records.iter().map(|pending| pending.record.clone()).collect(),
            partition: number as u16,
            partitions: self.partitions.len() as u16,
            ticket: Ticket { core: Some(core.clone()), partition: number, serial: self.serial },
        };
        self.partitions[number].out = Some(out);
        Some(run)
    }

    /// The run that this ticket was given for, if it is still out.
    fn out(&mut self, partition: usize, serial: u64) -> Option<&mut Option<Out>> {
        let out = &mut self.partitions.get_mut(partition)?.out;
        out.as_ref().is_some_and(|out| out.serial == serial && !out.released).then_some(out)
    }

    /// Gives up what was read of a segment that goes and is not handed out yet. It could still be delivered, but nothing of
    /// it would be left, and nobody would know, if the process ended before.
    fn lose_read_ahead(&mut self, id: u64) {
        for number in 0..self.partitions.len() {
            while self.partitions[number].pending.front().is_some_and(|first| first.at.segment <= id) {
                let Some(lost) = self.partitions[number].pop_front() else { break };
                self.drop_record(reason::OVERFLOW, &lost.record);
                self.forget(1, lost.record.counts.items(), lost.memory());
                self.dirty = true;
            }
        }
    }

    /// Moves on from the segment of `scan`, which holds no more.
    fn enter(&mut self, segments: &BTreeMap<u64, Segment>, segment: u64) {
        if let Some(left) = segments.get(&self.scan.segment) {
            self.count_unseen(left);
        }
        self.scan = Position { segment, offset: SEGMENT_HEADER_LEN };
        self.scanned = Totals::default();
        self.lost = false;
        self.want = 0;
        self.read_failures = 0;
        self.file = None;
    }

    /// What the totals of the segment of `scan` know and nobody has seen, when it was read to its end: that was lost to
    /// damaged headers.
    fn count_unseen(&mut self, segment: &Segment) {
        let id = self.scan.segment;
        let was_read = self.frontier.is_some_and(|(frontier, _)| frontier.segment > id);
        let taken = self.partitions.iter_mut().filter(|partition| partition.behind.is_none());
        let unseen: Vec<Totals> = taken.filter_map(|partition| partition.passed.remove(&id)).collect();
        unseen.into_iter().for_each(|unseen| self.drop_totals(reason::DAMAGED, unseen));
        if was_read {
            return;
        }
        self.drop_totals(reason::DAMAGED, segment.summary.totals.without(&self.scanned));
        self.scanned = segment.summary.totals;
    }

    /// Decides what to read next; takes what is in memory at once.
    fn plan(&mut self, segments: &BTreeMap<u64, Segment>, now: Instant, now_ms: i64) -> Plan {
        loop {
            self.pass_frontier();
            if self.is_at_end() {
                return Plan::Done;
            }
            let Some((&id, segment)) = segments.range(self.scan.segment..).next() else {
                self.at_tail = true;
                return Plan::Done;
            };
            if id != self.scan.segment {
                self.enter(segments, id);
            }
            self.scan.offset = self.scan.offset.max(SEGMENT_HEADER_LEN);
            if self.scan.offset >= segment.end {
                match segments.range(id + 1..).next() {
                    Some((&next, _)) if segment.closed => self.enter(segments, next),
                    _ => {
                        // Nothing more comes into this one, and it may be long until there is another.
                        if segment.closed {
                            self.count_unseen(segment);
                        }
                        self.at_tail = true;
                        return Plan::Done;
                    }
                }
                continue;
            }
            let Some(held) = &segment.memory else {
                let left = (segment.end - self.scan.offset) as usize;
                return Plan::Read {
                    segment: id,
                    at: self.scan.offset,
                    end: segment.end,
                    len: left.min(CHUNK_BYTES.max(self.want)),
                    lost: self.lost,
                    generation: self.generation,
                    file: self.file.as_ref().filter(|(of, _)| *of == id).map(|(_, file)| file.clone()),
                };
            };
            let start = held.partition_point(|held| held.at < self.scan.offset);
            if start == held.len() {
                self.scan.offset = segment.end;
                continue;
            }
            for held in held.range(start..) {
                if !self.has_room() || !self.push(&held.record, held.at, held.end, now, now_ms) {
                    break;
                }
            }
            return Plan::Done;
        }
    }

    fn persist(&mut self, shared: &Shared) {
        if shared.in_memory {
            return;
        }
        let slot = self.slot();
        let Some(cursor) = &mut self.cursor else {
            self.dirty = true;
            return;
        };
        match cursor.write(slot) {
            Ok(()) => (self.dirty, self.unsynced) = (false, true),
            Err(_) => {
                self.dirty = true;
                shared.count_cursor_error();
            }
        }
        keeper::mark_cursor(shared);
    }
}

impl ReaderCore {
    /// A reader that nobody has asked for yet, or one that has just been asked for if `options` are given.
    pub(crate) fn new(
        name: String,
        stem: String,
        resumed: Resumed,
        expire_after: Duration,
        options: Option<ReaderOptions>,
    ) -> ReaderCore {
        let Resumed { slot, cursor } = resumed;
        let state = ReaderState {
            attached: options.is_some(),
            options: options.unwrap_or_default(),
            expire_after,
            dead: false,
            flushing: false,
            scan: slot.resume,
            scanned: slot.before,
            frontier: None,
            end: slot.end,
            generation: 0,
            scanning: false,
            at_tail: false,
            barrier: false,
            lost: false,
            want: 0,
            file: None,
            retry_at: None,
            read_failures: 0,
            partitions: (0..slot.settled.len()).map(|_| Partition::default()).collect(),
            skip_to: slot.settled,
            turn: 0,
            serial: 0,
            unsettled: 0,
            unsettled_items: 0,
            memory: 0,
            highest_delivered_ms: slot.highest_delivered_ms,
            cursor,
            dirty: false,
            unsynced: false,
            delivered: Totals::default(),
            dropped: BTreeMap::new(),
            waited: Totals::default(),
            skipped: Totals::default(),
            appended_before: Totals::default(),
            appended_at_end: None,
        };
        ReaderCore { name, stem, state: Mutex::new(state), notify: Notify::new() }
    }

    /// Notes what waits now, and what was appended so far.
    pub(crate) fn begin_books(&self, waited: Totals, appended: Totals) {
        let mut state = self.state.lock();
        (state.waited, state.appended_before) = (waited, appended);
    }

    /// Ends this reader and takes from it what its successor needs; what is handed out will be handed out again.
    pub(crate) fn retire(&self) -> (Resumed, BTreeMap<&'static str, Totals>) {
        let mut state = self.state.lock();
        let slot = state.slot();
        state.dead = true;
        state.file = None;
        let resumed = Resumed { slot, cursor: state.cursor.take() };
        let dropped = std::mem::take(&mut state.dropped);
        drop(state);
        self.notify.notify_waiters();
        (resumed, dropped)
    }

    /// Ends this reader without writing anything.
    pub(crate) fn stop(&self) {
        self.state.lock().dead = true;
        self.notify.notify_waiters();
    }

    pub(crate) fn wake(&self) {
        self.notify.notify_waiters();
    }

    pub(crate) fn set_expire_after(&self, expire_after: Duration) {
        self.state.lock().expire_after = expire_after;
    }

    /// Whether everything before this place is settled, as far as it is for this reader.
    pub(crate) fn has_settled(&self, place: Position) -> bool {
        let state = self.state.lock();
        state.resume().0 >= place || state.has_all()
    }

    /// The place before which nothing is waited for that is in memory only; none if there is nobody who waits: the reader
    /// has all that is for it, or nobody has asked for it since the queue was opened.
    pub(crate) fn waits_from(&self) -> Option<Position> {
        let state = self.state.lock();
        (state.attached && !state.has_all()).then(|| state.resume().0)
    }

    /// Where what is for this reader ends.
    pub(crate) fn end(&self) -> Option<Position> {
        self.state.lock().end
    }

    pub(crate) fn resume_position(&self) -> Position {
        self.state.lock().resume().0
    }

    pub(crate) fn dropped(&self) -> BTreeMap<&'static str, Totals> {
        self.state.lock().dropped.clone()
    }

    /// How far the reader is behind, but for what was appended last.
    pub(crate) fn lag(&self, segments: &BTreeMap<u64, Segment>) -> Lag {
        let state = self.state.lock();
        let mut lag = Lag { highest_delivered_ms: state.highest_delivered_ms, ..Lag::default() };
        let mut oldest_ms = i64::MAX;
        for partition in &state.partitions {
            if let Some((_, _, created_ms)) = partition.first() {
                oldest_ms = oldest_ms.min(created_ms);
            }
            if let Some(out) = &partition.out {
                lag.pending += out.totals;
                if !out.released {
                    lag.in_flight += out.totals;
                }
            }
            for pending in &partition.pending {
                lag.pending.record(&pending.record.counts, pending.record.body.len());
            }
            partition.passed.values().for_each(|passed| lag.pending += *passed);
        }
        let (high, seen) = state.high();
        let end = state.end.unwrap_or(Position { segment: u64::MAX, offset: u32::MAX });
        let ahead = if high >= end { None } else { Some(segments.range(high.segment..=end.segment)) };
        // Of the last segment for a reader that ends also what stands behind that end counts, until it is reached.
        for (id, segment) in ahead.into_iter().flatten() {
            let unread = if *id != high.segment {
                segment.summary.totals
            } else if high.offset < segment.end || segment.closed {
                // Where it was read to its end, what is lost there and not counted yet.
                segment.summary.totals.without(&seen)
            } else {
                Totals::default()
            };
            if unread.records > 0 {
                oldest_ms = oldest_ms.min(segment.summary.created_lowest_ms);
                lag.pending += unread;
            }
        }
        lag.oldest_created_ms = (oldest_ms != i64::MAX).then_some(oldest_ms);
        lag
    }

    /// The writer has added `records` (each with its place) to `segment`, and nothing else is behind them.
    pub(crate) fn offer(
        &self,
        segments: &BTreeMap<u64, Segment>,
        segment: u64,
        records: &[(u32, u32, &Record)],
        now: Instant,
        now_ms: i64,
    ) {
        let mut state = self.state.lock();
        if !state.at_tail {
            return;
        }
        let mut wake = false;
        if state.attached && !state.dead {
            if state.scan.segment != segment {
                state.enter(segments, segment);
            }
            for (at, end, record) in records {
                if !state.has_room() || !state.push(record, *at, *end, now, now_ms) {
                    state.at_tail = false;
                    break;
                }
                wake |= state
                    .partitions
                    .get(usize::from(record.partition))
                    .is_some_and(|partition| partition.pending.len() == 1 || partition.is_full(&state.options));
            }
        } else {
            state.at_tail = false;
        }
        wake |= !state.at_tail;
        drop(state);
        if wake {
            self.notify.notify_waiters();
        }
    }

    /// A segment goes. Who has read it to its end, and not noticed yet what was lost in it, counts that.
    pub(crate) fn leave(&self, id: u64, segment: &Segment) {
        let mut state = self.state.lock();
        if segment.closed && state.scan.segment == id && state.scan.offset >= segment.end && !state.is_at_end() {
            state.count_unseen(segment);
        }
    }

    /// A segment goes; what of it this reader has not read yet is lost to it.
    pub(crate) fn lose(&self, id: u64, segment: &Segment, reason: &'static str) {
        let mut state = self.state.lock();
        if reason == reason::OVERFLOW {
            state.lose_read_ahead(id);
        }
        let end = Position { segment: id, offset: segment.end };
        let totals = segment.summary.totals;
        let (high, seen) = state.high();
        let mut lost = match high.segment {
            _ if high >= end => Totals::default(),
            of if of == id => totals.without(&seen),
            _ => totals,
        };
        for partition in &mut state.partitions {
            lost += partition.passed.remove(&id).unwrap_or_default();
            if let Some(behind) = partition.behind.as_mut().filter(|(at, _)| at.segment == id && *at < end) {
                *behind = (end, totals);
            }
        }
        if let Some(frontier) = state.frontier.as_mut().filter(|(at, _)| at.segment == id && *at < end) {
            *frontier = (end, totals);
        }
        if state.scan.segment == id && state.scan < end {
            state.scan.offset = segment.end;
            state.scanned = totals;
            state.generation += 1;
            state.lost = false;
            state.want = 0;
            state.file = None;
        }
        state.dirty |= high < end || lost != Totals::default();
        state.drop_totals(reason, lost);
        drop(state);
        self.notify.notify_waiters();
    }

    /// The records of a memory segment before `place` are gone for good; their sum is `gone`.
    pub(crate) fn forget_front(&self, place: Position, gone: &Totals, given_up: &[GivenUp]) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let (scan, high) = (state.scan, state.high().0);
        let mut lost = Totals::default();
        for given_up in given_up {
            let (number, at) = (usize::from(given_up.partition), given_up.at);
            let is_lost = at >= high || {
                let skip_to = state.skip_to.get(number).copied().unwrap_or_default();
                let was_passed = |partition: &&mut Partition| match partition.behind {
                    Some((behind, _)) => at >= behind,
                    None => at >= scan && at >= skip_to,
                };
                let passed = state.partitions.get_mut(number).filter(was_passed);
                passed.map(|partition| partition.take_passed(at.segment, &given_up.counts, given_up.body_len)).is_some()
            };
            if is_lost {
                lost.record(&given_up.counts, given_up.body_len);
            }
        }
        state.drop_totals(reason::MEMORY, lost);
        // Totals before a place in the segment count only what is still there.
        let keep = |(at, before): &mut (Position, Totals)| {
            if at.segment == place.segment {
                let is_before = at.offset < place.offset;
                *before = if is_before { Totals::default() } else { before.without(gone) };
                at.offset = at.offset.max(place.offset);
                return is_before;
            }
            false
        };
        let mut scan = (state.scan, state.scanned);
        if keep(&mut scan) {
            state.generation += 1;
        }
        (state.scan, state.scanned) = scan;
        if let Some(frontier) = &mut state.frontier {
            keep(frontier);
        }
        for partition in &mut state.partitions {
            for pending in partition.pending.iter_mut().filter(|pending| pending.at.segment == place.segment) {
                pending.before = pending.before.without(gone);
            }
            if let Some(out) = partition.out.as_mut().filter(|out| out.first.segment == place.segment) {
                out.before = out.before.without(gone);
            }
            if let Some(behind) = &mut partition.behind {
                keep(behind);
            }
        }
        state.dirty = true;
    }

    /// Writes the cursor if it has moved since the last time. Returns its file if that has to be synced.
    pub(crate) fn persist_if_dirty(&self, shared: &Shared) -> Option<Arc<File>> {
        let mut state = self.state.lock();
        if state.dead || shared.in_memory {
            return None;
        }
        if state.cursor.is_none() {
            let slot = state.slot();
            match CursorFile::create(&shared.dir, &self.stem, &self.name, &slot) {
                Ok(cursor) => (state.cursor, state.dirty, state.unsynced) = (Some(cursor), false, true),
                Err(_) => shared.count_cursor_error(),
            }
        } else if state.dirty {
            state.persist(shared);
        }
        std::mem::take(&mut state.unsynced).then(|| state.cursor.as_ref().map(CursorFile::file))?
    }

    fn give_back(&self, partition: usize, serial: u64) {
        let mut state = self.state.lock();
        let Some(out) = state.out(partition, serial).and_then(Option::take) else { return };
        if let Some(partition) = state.partitions.get_mut(partition) {
            for pending in out.records.into_iter().rev() {
                partition.push_front(pending);
            }
        }
        drop(state);
        self.notify.notify_waiters();
    }
}

/// The right to settle a run. Where it ends unused, the run's records are handed out again.
pub(crate) struct Ticket {
    /// Absent once it was used.
    core: Option<Arc<ReaderCore>>,
    partition: usize,
    serial: u64,
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({})", self.serial)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(core) = self.core.take() {
            core.give_back(self.partition, self.serial);
        }
    }
}

/// One endpoint's place in a queue. Clones share it, so that a task a partition can call [`Reader::next`].
#[derive(Clone)]
pub struct Reader {
    pub(crate) shared: Arc<Shared>,
    pub(crate) core: Arc<ReaderCore>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("name", &self.core.name).finish_non_exhaustive()
    }
}

impl Reader {
    /// The next run: consecutive records of one tenant, encoding and partition, as many as the options allow. At most
    /// one run of a partition is out at a time, and the records after a change of the number of partitions wait until
    /// everything before it is settled.
    ///
    /// A run that is not full waits for [`ReaderOptions::wait_max`], except after [`Reader::flush`].
    ///
    /// `None` when the queue is closed or this reader was removed or replaced, and, after [`Reader::flush`], when
    /// there is no more to hand out. Nothing is lost if the future is dropped. It must be polled within a Tokio
    /// runtime, whose blocking threads read the files.
    pub async fn next(&self) -> Option<Run> {
        loop {
            let mut notified = pin!(self.core.notify.notified());
            notified.as_mut().enable();
            let step = self.core.state.lock().step(&self.core, Instant::now(), self.shared.now_ms());
            // What is too old was dropped on the way.
            self.shared.release_holds();
            let wake_at = match step {
                Step::Run(run) => return Some(run),
                Step::End => return None,
                Step::Scan(wake_at) => {
                    let reader = self.clone();
                    tokio::task::spawn_blocking(move || scan(&reader.shared, &reader.core));
                    wake_at
                }
                Step::Wait(wake_at) => wake_at,
            };
            match wake_at {
                None => notified.await,
                Some(wake_at) => {
                    tokio::select! {
                        () = notified => {}
                        () = sleep_until(wake_at) => {}
                    }
                }
            }
        }
    }

    /// Ends a run: its records count as delivered or dropped, and the cursor moves past them. It is written to its
    /// file before this returns. A run of a reader that was replaced, or whose queue is closed, changes nothing.
    pub fn settle(&self, run: Run, outcome: Outcome) {
        self.settle_by(run, |_| outcome);
    }

    /// Ends a run with an outcome for each of its records, in order; the last one stands for those that are missing.
    pub fn settle_each(&self, run: Run, outcomes: &[Outcome]) {
        let last = outcomes.last().copied().unwrap_or(Outcome::Delivered);
        self.settle_by(run, |index| outcomes.get(index).copied().unwrap_or(last));
    }

    fn settle_by(&self, mut run: Run, outcome: impl Fn(usize) -> Outcome) {
        // The run may be of an older handle of the same name: its own reader decides.
        let Some(core) = run.ticket.core.take() else { return };
        let mut state = core.state.lock();
        if state.dead {
            return;
        }
        let Some(out) = state.out(run.ticket.partition, run.ticket.serial).and_then(Option::take) else { return };
        let memory = out.records.iter().map(Pending::memory).sum();
        for (index, pending) in out.records.iter().enumerate() {
            match outcome(index) {
                Outcome::Delivered => {
                    state.delivered.record(&pending.record.counts, pending.record.body.len());
                    state.highest_delivered_ms = state.highest_delivered_ms.max(Some(pending.record.highest_ms));
                }
                Outcome::Dropped(reason) => state.drop_record(reason, &pending.record),
            }
        }
        state.forget(out.records.len(), out.totals.items(), memory);
        state.persist(&self.shared);
        drop(state);
        core.notify.notify_waiters();
        self.shared.settled();
        self.shared.release_holds();
    }

    /// Gives a run back without settling it, at shutdown. Its partition hands out nothing more; the run comes again
    /// when the queue is opened again or [`crate::Queue::reader`] is called again with this name.
    ///
    /// To have a run handed out again at once, drop it.
    pub fn release(&self, mut run: Run) {
        let Some(core) = run.ticket.core.take() else { return };
        let mut state = core.state.lock();
        let Some(Some(out)) = state.out(run.ticket.partition, run.ticket.serial) else { return };
        out.released = true;
        let memory: usize = std::mem::take(&mut out.records).iter().map(Pending::memory).sum();
        out.memory = 0;
        // The records stay unsettled; only their bodies are no longer in memory.
        state.memory -= memory;
        drop(state);
        core.notify.notify_waiters();
    }

    /// Changes how runs are cut, from the next run on. `start` has no meaning any more.
    pub fn set_options(&self, options: ReaderOptions) {
        self.core.state.lock().options = options;
        self.core.notify.notify_waiters();
    }

    /// From now on hand out what there is without waiting for more, and end when there is nothing left, at shutdown.
    pub fn flush(&self) {
        self.core.state.lock().flushing = true;
        self.core.notify.notify_waiters();
    }

    /// How far this reader is behind.
    pub fn lag(&self) -> Lag {
        let queue = self.shared.state.lock();
        Lag { highest_appended_ms: queue.highest_ms, ..self.core.lag(&queue.segments) }
    }

    /// From now on nothing is for this reader that stands behind a place, also after the queue was opened again, until
    /// [`crate::Queue::reader`] is called with this name.
    pub fn end_at(&self, mark: Mark) {
        let mut state = self.core.state.lock();
        if state.dead {
            return;
        }
        (state.end, state.appended_at_end) = (Some(mark.at), mark.appended);
        state.persist(&self.shared);
        drop(state);
        self.core.notify.notify_waiters();
    }

    /// Whether this handle hands out nothing any more: it was replaced by another of its name or removed, or the queue is
    /// closed.
    pub fn has_ended(&self) -> bool {
        self.core.state.lock().dead
    }

    /// What this reader has delivered and dropped.
    pub fn stats(&self) -> ReaderStats {
        let queue = self.shared.state.lock();
        let state = self.core.state.lock();
        let appended = state.appended_at_end.unwrap_or(queue.appended);
        ReaderStats {
            restored: state.waited.without(&state.skipped),
            appended: appended.without(&state.appended_before),
            appended_before: state.appended_before,
            has_end: state.end.is_some(),
            delivered: state.delivered,
            dropped: state.dropped.iter().map(|(reason, totals)| (*reason, *totals)).collect(),
            partitions: state.partitions.len() as u16,
            memory_bytes: state.memory,
            segment: state.high().0.segment,
        }
    }

    /// The name that the reader was made with.
    pub fn name(&self) -> &str {
        &self.core.name
    }
}

/// Where a reader begins whose name has no cursor.
pub(crate) fn first_slot(start: Start, segments: &BTreeMap<u64, Segment>, next_segment: u64) -> Slot {
    let resume = match (start, segments.first_key_value(), segments.last_key_value()) {
        (Start::Oldest, Some((id, _)), _) => Position::start_of(*id),
        (Start::Newest, _, Some((id, segment))) => Position { segment: *id, offset: segment.end },
        (_, None, _) | (_, _, None) => Position::start_of(next_segment),
    };
    let before = match start {
        Start::Newest => segments.get(&resume.segment).map_or(Totals::default(), |segment| segment.summary.totals),
        Start::Oldest => Totals::default(),
    };
    Slot { resume, before, ..Slot::default() }
}

/// Reads one chunk into the lists, on a thread that may block.
fn scan(shared: &Shared, core: &ReaderCore) {
    let plan = {
        let queue = shared.state.lock();
        let mut state = core.state.lock();
        let plan = if state.dead { Plan::Done } else { state.plan(&queue.segments, Instant::now(), shared.now_ms()) };
        if matches!(plan, Plan::Done) {
            state.scanning = false;
        }
        plan
    };
    if let Plan::Read { segment, at, end, len, lost, generation, file } = plan {
        let read = read(shared, segment, at, end, len, lost, file);
        apply(shared, core, read, segment, at, end, generation);
    }
    core.notify.notify_waiters();
}

enum Failed {
    /// Another time it may be opened, unless it is not there.
    Open(io::Error),
    /// The medium may be bad at this place.
    Read,
}

struct Read {
    file: Arc<File>,
    items: Vec<Item>,
    lost: bool,
    want: usize,
}

fn read(
    shared: &Shared,
    segment: u64,
    at: u32,
    end: u32,
    len: usize,
    lost: bool,
    file: Option<Arc<File>>,
) -> Result<Read, Failed> {
    let storage = &*shared.storage;
    let skipped = vec![Item::Skipped { at, end, starts: !lost }];
    let file = match file {
        Some(file) => file,
        None => {
            let file = Arc::new(storage.open(&shared.segment_path(segment)).map_err(Failed::Open)?);
            let header = storage.read(&file, 0, SEGMENT_HEADER_LEN as usize).map_err(|_| Failed::Read)?;
            if format::is_foreign_segment(&header) {
                return Ok(Read { file, items: skipped, lost: true, want: 0 });
            }
            file
        }
    };
    let chunk = Bytes::from(storage.read(&file, u64::from(at), len).map_err(|_| Failed::Read)?);
    let is_short = chunk.len() < len;
    let parsed = Parser { segment, end, verify: true, tenant: None }.parse(&chunk, at, lost);
    // The file is shorter than what was written to it.
    let items = if parsed.items.is_empty() && is_short { skipped } else { parsed.items };
    Ok(Read { file, items, lost: parsed.lost, want: parsed.need })
}

fn apply(
    shared: &Shared,
    core: &ReaderCore,
    read: Result<Read, Failed>,
    segment: u64,
    at: u32,
    end: u32,
    generation: u64,
) {
    let (now, now_ms) = (Instant::now(), shared.now_ms());
    let mut queue = shared.state.lock();
    let mut state = core.state.lock();
    state.scanning = false;
    if state.dead || state.generation != generation {
        return;
    }
    let read = match read {
        Ok(read) => read,
        Err(Failed::Open(error)) if error.kind() == io::ErrorKind::NotFound => {
            drop(state);
            queue.missing_segments += 1;
            shared.vanished(queue, segment);
            return;
        }
        Err(failed) => {
            queue.read_errors += 1;
            state.file = None;
            state.retry_at = Some(now + READ_RETRY);
            state.read_failures += u32::from(matches!(failed, Failed::Read));
            if state.read_failures < READ_FAILURES_MAX {
                return;
            }
            // It counts as damaged when the reader leaves the segment and compares what it saw with the totals.
            if queue.segments.get_mut(&segment).is_some_and(|found| found.note_damage(at)) {
                queue.damaged_records += 1;
                queue.damaged_bytes += u64::from(end - at);
            }
            state.scan.offset = end;
            (state.read_failures, state.want, state.lost) = (0, 0, false);
            return;
        }
    };
    let queue = &mut *queue;
    let mut found = queue.segments.get_mut(&segment);
    state.file = Some((segment, read.file));
    (state.lost, state.want, state.read_failures) = (read.lost, read.want, 0);
    for item in read.items {
        match item {
            Item::Record { at, end, record } => {
                if !state.push(&record, at, end, now, now_ms) {
                    (state.lost, state.want) = (false, 0);
                    break;
                }
            }
            Item::BadBody { at, end, partition, partitions, counts, body_len } => {
                let place = Position { segment, offset: at };
                let was_settled = state.partitions.len() == usize::from(partitions)
                    && state.skip_to.get(usize::from(partition)).is_some_and(|skip_to| place < *skip_to);
                state.scanned.record(&counts, body_len as usize);
                // What was passed over counts when reading has gone back and not found it, and all else the first time.
                let was_read = state.frontier.is_some_and(|(frontier, _)| place < frontier);
                let of = state.partitions.get_mut(usize::from(partition)).filter(|of| of.behind.is_some());
                if was_read {
                    // It is counted, or will be.
                } else if was_settled {
                    state.skipped.record(&counts, body_len as usize);
                } else if let Some(behind) = of {
                    behind.passed.entry(segment).or_default().record(&counts, body_len as usize);
                } else {
                    state.dropped.entry(reason::DAMAGED).or_default().record(&counts, body_len as usize);
                }
                state.scan.offset = end;
                state.dirty = true;
                if found.as_mut().is_some_and(|found| found.note_damage(at)) {
                    queue.damaged_records += 1;
                    queue.damaged_bytes += u64::from(end - at);
                }
            }
            Item::Skipped { at, end, starts } => {
                state.scan.offset = end;
                state.dirty = true;
                if found.as_mut().is_some_and(|found| found.note_damage(at)) {
                    queue.damaged_records += u64::from(starts);
                    queue.damaged_bytes += u64::from(end - at);
                }
            }
            Item::Gap { end, .. } => state.scan.offset = end,
        }
    }
}
