//! The queue: what its threads share, and the handle to it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, IoSlice, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::{Notify, Semaphore, oneshot, watch};

use crate::cursor::CursorFile;
use crate::format::{self, FOOTER_LEN, Item, Parser, Position, SEGMENT_HEADER_LEN, Summary};
use crate::keeper::{self, Dirty};
use crate::reader::{self, CHUNK_BYTES, Reader, ReaderCore, Resumed};
use crate::storage::{self, Disk, Storage};
use crate::types::{
    APPEND_BYTES_MAX, AppendError, Appended, Hold, Lag, Mark, NewRecord, Options, PARTITIONS_MAX, ReaderOptions,
    Record, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, Stats, TENANT_BYTES_MAX, Totals, reason,
};
use crate::writer::{Append, Encoded, Inbox, Writer};

/// What besides the records themselves a segment needs on disk, for a segment that is closed and one that is opened.
pub(crate) const SEGMENT_OVERHEAD_BYTES: u64 = SEGMENT_HEADER_LEN as u64 + 2 * FOOTER_LEN as u64;
/// The most that appends may bring to the writer while it works, in KiB; further ones wait.
const WAITING_KIB_MAX: usize = 32 << 10;
/// The stack of each of a queue's two threads, in bytes.
const STACK_BYTES: usize = 256 << 10;
/// How many places of damage a segment remembers, so that two readers count one only once.
const DAMAGE_PLACES_MAX: usize = 4096;

/// A record that waits in memory for a disk that takes it.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) at: u32,
    pub(crate) end: u32,
    pub(crate) header: Bytes,
    pub(crate) record: Record,
}

/// What is known about a segment.
#[derive(Debug, Default)]
pub(crate) struct Segment {
    pub(crate) summary: Summary,
    /// Where its records end.
    pub(crate) end: u32,
    /// What it takes on disk; nothing while it is in memory.
    pub(crate) file_len: u64,
    pub(crate) closed: bool,
    /// The records, while the disk refuses them. Their offsets are those that they will have in the file.
    pub(crate) memory: Option<VecDeque<Held>>,
    /// Where damage was found, so that two readers count it once.
    pub(crate) damage: Vec<u32>,
}

impl Segment {
    /// Remembers that the bytes at `at` are damaged; false if that was known.
    pub(crate) fn note_damage(&mut self, at: u32) -> bool {
        let is_new = self.damage.len() < DAMAGE_PLACES_MAX && !self.damage.contains(&at);
        if is_new {
            self.damage.push(at);
        }
        is_new
    }
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) options: Options,
    pub(crate) segments: BTreeMap<u64, Segment>,
    pub(crate) next_segment: u64,
    pub(crate) disk_bytes: u64,
    pub(crate) memory_bytes: usize,
    /// By the stem of the cursor's file.
    pub(crate) readers: BTreeMap<String, Arc<ReaderCore>>,
    pub(crate) highest_ms: Option<i64>,
    /// Who is to be told when records in memory are settled, by where they end, in order.
    pub(crate) holds: VecDeque<(Position, Arc<dyn Hold>)>,
    /// What readers dropped that are no more.
    dropped_before: BTreeMap<&'static str, Totals>,

    pub(crate) appended: Totals,
    pub(crate) written_bytes: u64,
    pub(crate) writes: u64,
    pub(crate) write_errors: u64,
    pub(crate) read_errors: u64,
    pub(crate) damaged_records: u64,
    pub(crate) damaged_bytes: u64,
    pub(crate) torn_tails: u64,
    pub(crate) missing_segments: u64,
    pub(crate) damaged_cursors: u64,
    pub(crate) truncated_segments: u64,
    pub(crate) dropped_segments: u64,
    pub(crate) syncs: u64,
    pub(crate) sync_errors: u64,
    pub(crate) sync_longest: Duration,
}

impl State {
    /// The place before which every reader has settled everything; absent without readers.
    pub(crate) fn settled_to(&self) -> Option<Position> {
        self.readers.values().map(|reader| reader.resume_position()).min()
    }

    /// The holds of what every reader has settled that waits for something.
    fn take_settled_holds(&mut self) -> Vec<Arc<dyn Hold>> {
        let settled_to = self.readers.values().filter_map(|reader| reader.waits_from()).min();
        let settled = self.holds.partition_point(|(end, _)| settled_to.is_none_or(|settled_to| *end <= settled_to));
        self.holds.drain(..settled).map(|(_, hold)| hold).collect()
    }

    /// Whether every reader has settled all of this segment.
    pub(crate) fn is_settled(&self, id: u64, segment: &Segment) -> bool {
        let end = Position { segment: id, offset: segment.end };
        segment.summary.totals.records == 0 || self.readers.values().all(|reader| reader.has_settled(end))
    }

    /// Forgets a segment; with a reason, readers that have not read all of it count what they lose.
    pub(crate) fn remove_segment(&mut self, id: u64, reason: Option<&'static str>) {
        let Some(segment) = self.segments.remove(&id) else { return };
        for reader in self.readers.values() {
            reader.leave(id, &segment);
        }
        match reason {
            Some(reason) => {
                self.dropped_segments += 1;
                for reader in self.readers.values() {
                    reader.lose(id, &segment, reason);
                }
            }
            None => self.truncated_segments += 1,
        }
        self.disk_bytes = self.disk_bytes.saturating_sub(segment.file_len);
    }

    /// Forgets a segment that nothing was ever in.
    pub(crate) fn discard_segment(&mut self, id: u64) {
        if let Some(segment) = self.segments.remove(&id) {
            self.disk_bytes = self.disk_bytes.saturating_sub(segment.file_len);
        }
    }

    fn forget_reader(&mut self, stem: &str) -> Option<Resumed> {
        let (resumed, dropped) = self.readers.remove(stem)?.retire();
        for (reason, totals) in dropped {
            *self.dropped_before.entry(reason).or_default() += totals;
        }
        Some(resumed)
    }
}

pub(crate) struct Shared {
    pub(crate) dir: PathBuf,
    /// Whether there is no disk.
    pub(crate) in_memory: bool,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) state: Mutex<State>,
    pub(crate) inbox: Mutex<Inbox>,
    pub(crate) inbox_wake: Condvar,
    pub(crate) dirty: Mutex<Dirty>,
    pub(crate) dirty_wake: Condvar,
    /// An append was refused since the last time that something was settled.
    pub(crate) overflowed: AtomicBool,
    /// Somebody is to be told when records in memory are settled.
    pub(crate) holding: AtomicBool,
    /// Why the disk takes nothing, while it does not.
    pub(crate) degraded: watch::Sender<Option<String>>,
    space: Notify,
    closed: watch::Sender<bool>,
    /// None without a disk.
    lock: Option<File>,
    cursor_errors: AtomicU64,
    /// Added to the time of day, by tests.
    clock_offset_ms: AtomicI64,
}

impl Shared {
    /// The time of day, in milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(now.as_millis()).unwrap_or(i64::MAX).saturating_add(self.clock_offset_ms.load(Ordering::Relaxed))
    }

    #[cfg(test)]
    pub(crate) fn advance_clock(&self, by: Duration) {
        self.clock_offset_ms.fetch_add(by.as_millis() as i64, Ordering::Relaxed);
    }

    pub(crate) fn count_cursor_error(&self) {
        self.cursor_errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Something was settled or dropped, so that a refused append may now succeed.
    pub(crate) fn settled(&self) {
        if self.overflowed.swap(false, Ordering::AcqRel) {
            self.space.notify_waiters();
        }
    }

    /// Tells those who wait for records in memory that were settled. The state must not be locked.
    pub(crate) fn release_holds(&self) {
        if !self.holding.load(Ordering::Acquire) {
            return;
        }
        let settled = {
            let mut state = self.state.lock();
            let settled = state.take_settled_holds();
            self.holding.store(!state.holds.is_empty(), Ordering::Release);
            settled
        };
        settled.iter().for_each(|hold| hold.settled());
    }

    /// Lets go of all who wait for records in memory; they are told if those are on disk now, or else lost.
    pub(crate) fn end_holds(&self, are_durable: bool) {
        let holds = {
            let mut state = self.state.lock();
            self.holding.store(false, Ordering::Release);
            std::mem::take(&mut state.holds)
        };
        if are_durable {
            holds.iter().for_each(|(_, hold)| hold.settled());
        }
    }

    pub(crate) fn segment_path(&self, id: u64) -> PathBuf {
        self.dir.join(format::segment_file_name(id))
    }

    /// Asks the writer to close the segment that it writes.
    pub(crate) fn ask_to_roll(&self) {
        self.inbox.lock().roll = true;
        self.inbox_wake.notify_one();
    }

    /// The file of a segment is gone.
    pub(crate) fn vanished(&self, mut state: MutexGuard<'_, State>, id: u64) {
        let Some(segment) = state.segments.get(&id) else { return };
        if segment.closed {
            state.remove_segment(id, Some(reason::MISSING));
            return;
        }
        for reader in state.readers.values() {
            reader.lose(id, segment, reason::MISSING);
        }
        drop(state);
        self.ask_to_roll();
    }

    /// The last steps of closing: nothing uses the directory after this.
    pub(crate) fn close(&self) {
        let readers: Vec<_> = self.state.lock().readers.values().cloned().collect();
        for reader in readers {
            reader.stop();
        }
        self.end_holds(false);
        // The lock also goes with the file; if this fails, the last handle's end does it.
        let _ = self.lock.as_ref().map(File::unlock);
        self.closed.send_replace(true);
        self.overflowed.store(false, Ordering::Release);
        self.space.notify_waiters();
    }
}

struct Inner {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
    waiting: Arc<Semaphore>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.inbox.lock().closing = true;
        self.shared.inbox_wake.notify_one();
    }
}

/// A durable queue in a directory of its own. Clones are handles to the same queue; when the last one goes, the queue
/// closes itself in the background.
#[derive(Clone)]
pub struct Queue {
    inner: Arc<Inner>,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("dir", &self.inner.shared.dir).finish_non_exhaustive()
    }
}

impl Queue {
    /// Opens the queue in `dir`, which is created if need be, and locks it. Of its segments only the footers are read,
    /// and the whole of those that were not closed. Two threads are started. It waits for the disk: within a runtime
    /// it belongs on a thread that may block.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::ResourceBusy`] when the queue is open already, in this process or another; otherwise whatever
    /// the file system answers. Damage is not an error; it is counted in [`Queue::stats`].
    pub fn open(dir: &Path, options: Options) -> io::Result<Queue> {
        Queue::open_with(dir, options, Arc::new(Disk))
    }

    /// A queue that keeps records in memory only: of at most [`Options::memory_bytes_max`], beyond which the oldest go or
    /// appends wait, as [`Options::block_on_overflow`] says. No append is durable. Options that are about files mean
    /// nothing. One thread is started for writing and one for keeping, as with a disk.
    ///
    /// # Errors
    ///
    /// Where a thread cannot be started.
    pub fn in_memory(options: Options) -> io::Result<Queue> {
        let state = State { options: normal(options), next_segment: 1, ..State::default() };
        Queue::start(PathBuf::new(), None, state, Arc::new(Disk))
    }

    pub(crate) fn open_with(dir: &Path, options: Options, storage: Arc<dyn Storage>) -> io::Result<Queue> {
        std::fs::create_dir_all(dir)?;
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(dir.join("lock"))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::Error::new(io::ErrorKind::ResourceBusy, "queue directory is in use"),
            TryLockError::Error(error) => error,
        })?;
        let mut state = State { options: normal(options), ..State::default() };
        let mut stems = Vec::new();
        let mut segments = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let name = entry?.file_name();
            let Some(name) = name.to_str() else { continue };
            if let Some(id) = format::segment_of_file_name(name) {
                segments.push(id);
            } else if let Some(stem) = name.strip_suffix(".cur") {
                stems.push(stem.to_owned());
            }
        }
        segments.sort_unstable();
        let mut newest = segments.last().copied().unwrap_or(0);
        // What stood before the places where readers go on.
        let mut known = Vec::new();
        for stem in stems {
            let loaded = match CursorFile::load(&CursorFile::path(dir, &stem)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                loaded => loaded?,
            };
            if loaded.slot.is_none() {
                state.damaged_cursors += 1;
            }
            // Without a slot everything there is comes again: rather twice than never.
            let slot = loaded.slot.unwrap_or_default();
            newest = slot.settled.iter().map(|at| at.segment).fold(newest.max(slot.resume.segment), u64::max);
            known.push((slot.resume, slot.before));
            let name = loaded.name.unwrap_or_else(|| stem.clone());
            let resumed = Resumed { slot, cursor: Some(loaded.file) };
            let core = ReaderCore::new(name, stem.clone(), resumed, state.options.age_max, None);
            state.readers.insert(stem, Arc::new(core));
        }
        known.sort_by_key(|(place, _)| *place);
        for id in segments {
            open_segment(dir, &*storage, id, &known, &mut state)?;
        }
        state.next_segment = newest.saturating_add(1);
        Queue::start(dir.to_owned(), Some(lock), state, storage)
    }

    /// Starts the threads of a queue. Without a lock it has no disk.
    fn start(dir: PathBuf, lock: Option<File>, state: State, storage: Arc<dyn Storage>) -> io::Result<Queue> {
        let shared = Arc::new(Shared {
            dir,
            in_memory: lock.is_none(),
            storage,
            state: Mutex::new(state),
            inbox: Mutex::default(),
            inbox_wake: Condvar::new(),
            dirty: Mutex::default(),
            dirty_wake: Condvar::new(),
            overflowed: AtomicBool::new(false),
            holding: AtomicBool::new(false),
            degraded: watch::Sender::new(None),
            space: Notify::new(),
            closed: watch::Sender::new(false),
            lock,
            cursor_errors: AtomicU64::new(0),
            clock_offset_ms: AtomicI64::new(0),
        });
        keeper::truncate_at_open(&shared);
        let keeper = {
            let shared = shared.clone();
            let thread = thread::Builder::new().name("queue-keeper".into()).stack_size(STACK_BYTES);
            thread.spawn(move || keeper::run(&shared))?
        };
        let writer = {
            let shared = shared.clone();
            let thread = thread::Builder::new().name("queue-writer".into()).stack_size(STACK_BYTES);
            thread.spawn(move || Writer::new(shared, keeper).run())
        };
        let writer = match writer {
            Ok(writer) => writer,
            Err(error) => {
                shared.dirty.lock().stop = true;
                shared.dirty_wake.notify_one();
                return Err(error);
            }
        };
        let waiting = Arc::new(Semaphore::new(WAITING_KIB_MAX));
        Ok(Queue { inner: Arc::new(Inner { shared, writer: Mutex::new(Some(writer)), waiting }) })
    }

    /// Appends records, all of them or none, in order and next to each other.
    ///
    /// `Ok` means that they were handed to the operating system: they survive the end of this process, however it
    /// ends, and within [`Options::sync_every`] that of the machine. While the disk refuses them
    /// ([`Stats::degraded`]) or there is none, they were accepted into memory, which the answer says: from there they are
    /// delivered as usual, and they are lost with the process unless the disk recovers before.
    ///
    /// Appends that wait at the same time are written together. If the future is dropped, the records may or may not
    /// be appended.
    ///
    /// # Errors
    ///
    /// See [`AppendError`].
    pub async fn append(&self, records: Vec<NewRecord>) -> Result<Appended, AppendError> {
        if records.is_empty() {
            return Ok(Appended { durable: true });
        }
        let shared = &self.inner.shared;
        let created_ms = shared.now_ms();
        let mut size = 0;
        let mut encoded = Vec::with_capacity(records.len());
        for record in records {
            let tenant_len = record.tenant.as_deref().map_or(0, str::len);
            if record.partitions > PARTITIONS_MAX || record.partition >= record.partitions {
                return Err(AppendError::Invalid("record has a partition that does not exist"));
            }
            if tenant_len > TENANT_BYTES_MAX {
                return Err(AppendError::Invalid("record has a tenant that is too long"));
            }
            size += (format::header_len(record.tenant.as_deref()) + record.body.len()) as u64;
            let NewRecord {
                encoding,
                tenant,
                partition,
                partitions,
                counts,
                lowest_ms,
                highest_ms,
                raw_len,
                body,
                hold,
            } = record;
            encoded.push(Encoded {
                hold,
                checksum: crc32c::crc32c(&body),
                record: Record {
                    encoding,
                    tenant,
                    partition,
                    partitions,
                    counts,
                    lowest_ms,
                    highest_ms,
                    created_ms,
                    raw_len,
                    body,
                },
            });
        }
        let bytes_max = shared.state.lock().options.bytes_max.saturating_sub(SEGMENT_OVERHEAD_BYTES);
        let bytes_max = bytes_max.min(APPEND_BYTES_MAX);
        if size > bytes_max {
            return Err(AppendError::TooLarge { bytes: size, bytes_max });
        }
        let permits = size.div_ceil(1024).min(WAITING_KIB_MAX as u64) as u32;
        let permit = self.inner.waiting.clone().acquire_many_owned(permits).await.map_err(|_| AppendError::Closed)?;
        let (reply, answer) = oneshot::channel();
        {
            let mut inbox = shared.inbox.lock();
            if inbox.closing {
                return Err(AppendError::Closed);
            }
            inbox.appends.push(Append { records: encoded, size, reply, permit });
        }
        shared.inbox_wake.notify_one();
        answer.await.unwrap_or(Err(AppendError::Closed))
    }

    /// Waits until an append that was answered with [`AppendError::Overflow`] may succeed. It may not, when others
    /// come first.
    pub async fn space(&self) {
        let mut space = std::pin::pin!(self.inner.shared.space.notified());
        space.as_mut().enable();
        if self.inner.shared.overflowed.load(Ordering::Acquire) {
            space.await;
        }
    }

    /// The reader of this name. If it has a cursor, it goes on from there, and [`ReaderOptions::start`] says nothing.
    /// An earlier handle of the same name ends; what it has handed out is handed out again. An end that was set by
    /// [`Reader::end_at`] is none any more.
    ///
    /// A reader keeps records from being deleted, within the caps, from now until [`Queue::remove_reader`], also
    /// across restarts. Where its cursor cannot be created, it is tried again each second, and the failures are
    /// counted in [`Stats::cursor_errors`].
    pub fn reader(&self, name: &str, options: ReaderOptions) -> Reader {
        let shared = &self.inner.shared;
        let mut state = shared.state.lock();
        let stem = format::cursor_stem(name);
        let mut resumed = state.forget_reader(&stem).unwrap_or_else(|| {
            let slot = reader::first_slot(options.start, &state.segments, state.next_segment);
            Resumed { slot, cursor: None }
        });
        resumed.slot.end = None;
        let core = ReaderCore::new(name.to_owned(), stem.clone(), resumed, state.options.age_max, Some(options));
        let core = Arc::new(core);
        core.begin_books(core.lag(&state.segments).pending, state.appended);
        state.readers.insert(stem, core.clone());
        drop(state);
        if *shared.closed.borrow() {
            core.stop();
        }
        // The file that it answers is synced with the cursor's first move; until then starting anew does no harm.
        let _ = core.persist_if_dirty(shared);
        Reader { shared: shared.clone(), core }
    }

    /// The names of all readers that have a cursor, whether or not a handle was made since the queue was opened.
    pub fn reader_names(&self) -> Vec<String> {
        self.inner.shared.state.lock().readers.values().map(|reader| reader.name.clone()).collect()
    }

    /// How far a reader is behind that has a cursor, whether or not a handle was made.
    pub fn lag(&self, name: &str) -> Option<Lag> {
        let state = self.inner.shared.state.lock();
        let reader = state.readers.get(&format::cursor_stem(name))?;
        Some(Lag { highest_appended_ms: state.highest_ms, ..reader.lag(&state.segments) })
    }

    /// The place behind what was appended last.
    pub fn end(&self) -> Mark {
        let state = self.inner.shared.state.lock();
        let last = state.segments.last_key_value();
        let at = last.map_or(Position::default(), |(id, segment)| Position { segment: *id, offset: segment.end });
        Mark { at, appended: Some(state.appended) }
    }

    /// Where what is for a reader ends, if it ends: see [`Reader::end_at`].
    pub fn end_of(&self, name: &str) -> Option<Mark> {
        let state = self.inner.shared.state.lock();
        let at = state.readers.get(&format::cursor_stem(name))?.end()?;
        Some(Mark { at, appended: None })
    }

    /// A reader goes on under another name, unless there is one of that name: then nothing happens. Its handle ends, and what it
    /// has handed out is handed out again. Whether that was done.
    pub fn rename_reader(&self, from: &str, to: &str) -> bool {
        let shared = &self.inner.shared;
        let (old, new) = (format::cursor_stem(from), format::cursor_stem(to));
        let core = {
            let mut state = shared.state.lock();
            if state.readers.contains_key(&new) {
                return false;
            }
            let Some(resumed) = state.forget_reader(&old) else { return false };
            let resumed = Resumed { slot: resumed.slot, cursor: None };
            let core = ReaderCore::new(to.to_owned(), new.clone(), resumed, state.options.age_max, None);
            let core = Arc::new(core);
            state.readers.insert(new.clone(), core.clone());
            core
        };
        // It is synced with the cursor's first move. Until there is another cursor, the one before is better than none.
        let _ = core.persist_if_dirty(shared);
        if !shared.in_memory
            && CursorFile::path(&shared.dir, &new).exists()
            && shared.storage.remove(&CursorFile::path(&shared.dir, &old)).is_err()
        {
            shared.count_cursor_error();
        }
        true
    }

    /// Forgets a reader and its cursor. Its handle ends.
    pub fn remove_reader(&self, name: &str) {
        let shared = &self.inner.shared;
        let stem = format::cursor_stem(name);
        let resumed = shared.state.lock().forget_reader(&stem);
        if resumed.is_some()
            && !shared.in_memory
            && shared.storage.remove(&CursorFile::path(&shared.dir, &stem)).is_err()
        {
            shared.count_cursor_error();
        }
        shared.settled();
        shared.release_holds();
    }

    /// Figures of the queue.
    pub fn stats(&self) -> Stats {
        let shared = &self.inner.shared;
        let state = shared.state.lock();
        let mut dropped = state.dropped_before.clone();
        let mut oldest_ms: Option<i64> = None;
        for reader in state.readers.values() {
            for (reason, totals) in reader.dropped() {
                *dropped.entry(reason).or_default() += totals;
            }
            let created_ms = reader.lag(&state.segments).oldest_created_ms;
            oldest_ms = match (oldest_ms, created_ms) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        let now_ms = shared.now_ms();
        let current = state.segments.iter().next_back().filter(|(_, segment)| !segment.closed).map(|(id, _)| *id);
        Stats {
            disk_bytes: state.disk_bytes,
            segments: state.segments.values().filter(|segment| segment.memory.is_none()).count(),
            segment_current: current.unwrap_or(state.next_segment),
            oldest_unsettled_age: oldest_ms
                .map(|oldest_ms| Duration::from_millis(now_ms.saturating_sub(oldest_ms).max(0) as u64)),
            appended: state.appended,
            written_bytes: state.written_bytes,
            writes: state.writes,
            highest_ms: state.highest_ms,
            dropped: dropped.into_iter().collect(),
            damaged_records: state.damaged_records,
            damaged_bytes: state.damaged_bytes,
            torn_tails: state.torn_tails,
            missing_segments: state.missing_segments,
            damaged_cursors: state.damaged_cursors,
            truncated_segments: state.truncated_segments,
            dropped_segments: state.dropped_segments,
            memory_bytes: state.memory_bytes,
            degraded: shared.degraded.borrow().clone(),
            write_errors: state.write_errors,
            read_errors: state.read_errors,
            cursor_errors: shared.cursor_errors.load(Ordering::Relaxed),
            syncs: state.syncs,
            sync_errors: state.sync_errors,
            sync_longest: state.sync_longest,
        }
    }

    /// Why the disk takes nothing, while it does not: [`Stats::degraded`], to be waited for. The channel closes with the
    /// queue.
    pub fn degraded(&self) -> watch::Receiver<Option<String>> {
        self.inner.shared.degraded.subscribe()
    }

    /// Changes the limits. A lower cap takes effect with the next append.
    pub fn set_options(&self, options: Options) {
        let shared = &self.inner.shared;
        let options = normal(options);
        let mut state = shared.state.lock();
        for reader in state.readers.values() {
            reader.set_expire_after(options.age_max);
            reader.wake();
        }
        state.options = options;
        drop(state);
        shared.dirty.lock().poke = true;
        shared.dirty_wake.notify_one();
        shared.settled();
    }

    /// Closes the queue: writes what was appended before, forces it to the medium, closes the segment and gives the
    /// directory free. Readers end; what they have handed out and is not settled comes again when the queue is
    /// opened again. Other handles to the queue answer [`AppendError::Closed`].
    pub async fn close(self) {
        let shared = &self.inner.shared;
        let mut closed = shared.closed.subscribe();
        shared.inbox.lock().closing = true;
        shared.inbox_wake.notify_one();
        // The sender lives as long as `self`.
        let _ = closed.wait_for(|closed| *closed).await;
    }

    /// Stops as if the process had been killed: nothing more is written, no segment is closed, cursors stay where
    /// they were last written. The directory can be opened again when this returns. It is meant for tests.
    pub fn abandon(self) {
        self.inner.shared.inbox.lock().abandon = true;
        self.inner.shared.inbox_wake.notify_one();
        let writer = self.inner.writer.lock().take();
        if let Some(writer) = writer {
            // A panic of the writer is not ours to pass on.
            let _ = writer.join();
        }
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }
}

/// Brings options into their ranges.
fn normal(mut options: Options) -> Options {
    options.bytes_max = options.bytes_max.max(SEGMENT_BYTES_MIN);
    let segment_bytes_max = options.segment_bytes_max.min(options.bytes_max / 4);
    options.segment_bytes_max = segment_bytes_max.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
    options
}

/// Adds the segment to `state`; one that was not closed is cut to its whole records and closed. `known` is what stood before
/// places of this and other segments, in their order.
fn open_segment(
    dir: &Path,
    storage: &dyn Storage,
    id: u64,
    known: &[(Position, Totals)],
    state: &mut State,
) -> io::Result<()> {
    let path = dir.join(format::segment_file_name(id));
    let file = match storage.open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    let file_len = file.metadata()?.len();
    let footer_at = file_len.checked_sub(FOOTER_LEN as u64);
    let footer = footer_at.and_then(|at| storage.read(&file, at, FOOTER_LEN).ok());
    let footer = footer.and_then(|footer| format::decode_footer(&footer, id, file_len));
    let (end, summary, file_len) = match footer {
        Some((end, summary)) => (end, summary, file_len),
        None => {
            let Ok((end, mut summary, unfound)) = scan_segment(storage, &file, id, file_len, known) else {
                // A bad medium: what is on it stays, for somebody who can save more of it.
                state.read_errors += 1;
                return Ok(());
            };
            if summary.totals.records == 0 {
                let header = storage.read(&file, 0, SEGMENT_HEADER_LEN as usize)?;
                if format::is_foreign_segment(&header) {
                    return Ok(());
                }
            }
            if file_len > u64::from(end) {
                state.torn_tails += 1;
                state.damaged_bytes += file_len - u64::from(end);
            }
            if summary.totals.records == 0 {
                return storage.remove(&path);
            }
            summary.totals += unfound;
            let file_len = seal(storage, &path, id, end, &summary);
            (end, summary, file_len)
        }
    };
    if summary.totals.records == 0 {
        return storage.remove(&path);
    }
    state.highest_ms = state.highest_ms.max(Some(summary.highest_ms));
    state.disk_bytes += file_len;
    state.segments.insert(id, Segment { summary, end, file_len, closed: true, ..Segment::default() });
    Ok(())
}

/// Where the last whole record of a segment ends, what the records before hold, and what is not found there any more
/// although it is `known` to have stood there. It has to be in the segment's totals, as it is in those of the cursor that
/// knows of it: what waits is the one without the other. For a reader that was not so far yet, it is lost.
fn scan_segment(
    storage: &dyn Storage,
    file: &File,
    id: u64,
    file_len: u64,
    known: &[(Position, Totals)],
) -> io::Result<(u32, Summary, Totals)> {
    let mut summary = Summary::default();
    let mut unfound = Totals::default();
    let mut known = known.iter().filter(|(place, _)| place.segment == id).peekable();
    let mut compare = |up_to: u32, found: &Totals| {
        while let Some((_, before)) = known.next_if(|(place, _)| place.offset <= up_to) {
            let missing = before.without(found);
            // What is missing before one place is missing before the next as well.
            if missing.records > unfound.records {
                unfound = missing;
            }
        }
    };
    let mut at = SEGMENT_HEADER_LEN;
    let mut records_end = at;
    let file_end = u32::try_from(file_len).unwrap_or(u32::MAX);
    let mut parser = Parser { segment: id, end: file_end, verify: false, tenant: None };
    let (mut lost, mut want) = (false, 0);
    while at < file_end {
        let len = CHUNK_BYTES.max(want).min((file_end - at) as usize);
        let chunk = Bytes::from(storage.read(file, u64::from(at), len)?);
        let parsed = parser.parse(&chunk, at, lost);
        if parsed.items.is_empty() && chunk.len() < len {
            break;
        }
        for item in &parsed.items {
            match item {
                Item::Record { at, end, record } => {
                    compare(*at, &summary.totals);
                    summary.record(record);
                    records_end = *end;
                }
                Item::Gap { end, .. } => records_end = *end,
                Item::BadBody { .. } | Item::Skipped { .. } => {}
            }
        }
        (at, lost, want) = (parsed.next, parsed.lost, parsed.need);
    }
    compare(u32::MAX, &summary.totals);
    Ok((records_end, summary, unfound))
}

/// Cuts a segment and gives it a footer. Answers the length of the file. If it cannot be done, the next open scans
/// the segment again.
fn seal(storage: &dyn Storage, path: &Path, id: u64, end: u32, summary: &Summary) -> u64 {
    let sealed = || -> io::Result<u64> {
        let mut file = OpenOptions::new().write(true).open(path)?;
        storage.truncate(&file, u64::from(end))?;
        file.seek(SeekFrom::Start(u64::from(end)))?;
        let footer = format::encode_footer(id, end, summary);
        storage::write_all(storage, &file, &mut [IoSlice::new(&footer)])?;
        Ok(u64::from(end) + FOOTER_LEN as u64)
    };
    sealed().unwrap_or(u64::from(end))
}
