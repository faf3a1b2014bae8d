//! The thread that writes a queue's segments.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::format::{self, FOOTER_LEN, Position, SEGMENT_HEADER_LEN};
use crate::keeper;
use crate::queue::{Held, SEGMENT_OVERHEAD_BYTES, Segment, Shared, State};
use crate::reader::GivenUp;
use crate::storage;
use crate::types::{AppendError, Appended, Hold, Record, Totals, reason};

/// As many bytes as are written with one call, unless one append alone is larger.
const GROUP_BYTES_MAX: u64 = 4 << 20;
/// How many slices are given to one call; systems take at most 1024.
const SLICES_MAX: usize = 1024;
/// How long to wait before a refused write is tried again, at first and at most.
const RETRY_MIN: Duration = if cfg!(test) { Duration::from_millis(1) } else { Duration::from_millis(100) };
const RETRY_MAX: Duration = if cfg!(test) { Duration::from_millis(4) } else { Duration::from_secs(5) };

/// When a disk is tried again that there is not.
const NEVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A record on its way to the writer, with the checksum of its body.
pub(crate) struct Encoded {
    pub(crate) record: Record,
    pub(crate) checksum: u32,
    /// Told when the record is settled, if it is held in memory.
    pub(crate) hold: Option<Arc<dyn Hold>>,
}

/// One call of [`crate::Queue::append`].
pub(crate) struct Append {
    pub(crate) records: Vec<Encoded>,
    /// What the records take in a segment.
    pub(crate) size: u64,
    pub(crate) reply: oneshot::Sender<Result<Appended, AppendError>>,
    /// What it takes of the limit on what waits for the writer, for as long as it waits.
    pub(crate) permit: OwnedSemaphorePermit,
}

impl Append {
    fn answer(self, result: Result<Appended, AppendError>) {
        drop(self.permit);
        // Nobody listens where the caller's future was dropped.
        let _ = self.reply.send(result);
    }
}

/// What the writer is asked to do.
#[derive(Default)]
pub(crate) struct Inbox {
    pub(crate) appends: Vec<Append>,
    /// Close the segment, so that it can age and go.
    pub(crate) roll: bool,
    pub(crate) closing: bool,
    pub(crate) abandon: bool,
}

/// The segment that is written.
struct Current {
    id: u64,
    file: Arc<File>,
    len: u32,
}

pub(crate) struct Writer {
    shared: Arc<Shared>,
    keeper: Option<JoinHandle<()>>,
    current: Option<Current>,
    /// When to try the disk again; set while it refuses.
    retry_at: Option<Instant>,
    backoff: Duration,
    /// Segments whose footer could not be written.
    unfooted: Vec<(u64, Arc<File>)>,
    headers: Vec<u8>,
    spans: Vec<Range<usize>>,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, keeper: JoinHandle<()>) -> Writer {
        // What has no disk never comes to trying it.
        let retry_at = shared.in_memory.then(|| Instant::now() + NEVER);
        Writer {
            shared,
            keeper: Some(keeper),
            current: None,
            retry_at,
            backoff: RETRY_MIN,
            unfooted: Vec::new(),
            headers: Vec::new(),
            spans: Vec::new(),
        }
    }

    pub(crate) fn run(mut self) {
        loop {
            let (appends, roll, closing) = {
                let mut inbox = self.shared.inbox.lock();
                while inbox.appends.is_empty() && !inbox.roll && !inbox.closing && !inbox.abandon {
                    match self.retry_at {
                        None => self.shared.inbox_wake.wait(&mut inbox),
                        Some(retry_at) => {
                            if self.shared.inbox_wake.wait_until(&mut inbox, retry_at).timed_out() {
                                break;
                            }
                        }
                    }
                }
                if inbox.abandon {
                    inbox.closing = true;
                    inbox.appends.clear();
                    drop(inbox);
                    self.stop_keeper(true);
                    self.shared.close();
                    return;
                }
                (std::mem::take(&mut inbox.appends), std::mem::take(&mut inbox.roll), inbox.closing)
            };
            if self.retry_at.is_some_and(|retry_at| retry_at <= Instant::now()) {
                self.recover();
            }
            if roll {
                self.roll();
            }
            self.process(appends);
            if closing {
                self.finish();
                return;
            }
        }
    }

    fn process(&mut self, appends: Vec<Append>) {
        let mut group = Vec::new();
        let mut group_bytes = 0;
        for append in appends {
            let (segment_bytes_max, has_room) = {
                let state = self.shared.state.lock();
                (state.options.segment_bytes_max, has_room(&state, self.owed_bytes() + group_bytes + append.size))
            };
            let len = u64::from(self.current.as_ref().map_or(SEGMENT_HEADER_LEN, |current| current.len)) + group_bytes;
            let rolls = len > u64::from(SEGMENT_HEADER_LEN) && len + append.size > segment_bytes_max;
            if self.retry_at.is_none() && (!has_room || rolls || group_bytes + append.size > GROUP_BYTES_MAX) {
                self.write(std::mem::take(&mut group));
                group_bytes = 0;
                if rolls {
                    self.roll();
                }
                if self.retry_at.is_none() && !self.make_room(append.size) {
                    append.answer(Err(AppendError::Overflow));
                    continue;
                }
            }
            group_bytes += append.size;
            group.push(append);
        }
        self.write(group);
    }

    /// Deletes the oldest segments until `size` more bytes fit. False if nothing may be deleted that is not settled
    /// and so they do not fit.
    fn make_room(&mut self, size: u64) -> bool {
        // Set before looking, so that what is settled while looking is not missed by those who wait for it.
        self.shared.overflowed.store(true, Ordering::Release);
        let fits = loop {
            let mut state = self.shared.state.lock();
            if has_room(&state, self.owed_bytes() + size) {
                break true;
            }
            let oldest = state.segments.iter().find(|(_, segment)| segment.memory.is_none());
            let Some((&id, segment)) = oldest else { break true };
            let is_settled = state.is_settled(id, segment);
            if !is_settled && state.options.block_on_overflow {
                break false;
            }
            if self.current.as_ref().is_some_and(|current| current.id == id) {
                drop(state);
                if !self.roll() {
                    break true;
                }
                continue;
            }
            state.remove_segment(id, (!is_settled).then_some(reason::OVERFLOW));
            drop(state);
            // The file's bytes are no longer counted. Where it cannot be deleted, the next open finds it again.
            let _ = self.shared.storage.remove(&self.shared.segment_path(id));
        };
        if fits {
            self.shared.settled();
        }
        fits
    }

    /// What the footers take that could not be written yet.
    fn owed_bytes(&self) -> u64 {
        (self.unfooted.len() * FOOTER_LEN) as u64
    }

    fn write(&mut self, group: Vec<Append>) {
        if group.is_empty() {
            return;
        }
        if self.retry_at.is_none() {
            match self.try_write(&group) {
                Ok(len) => {
                    self.publish(&group, len);
                    for append in group {
                        append.answer(Ok(Appended { durable: true }));
                    }
                    return;
                }
                Err(error) => self.degrade(&error),
            }
        }
        for append in group {
            let held = self.hold(&append);
            append.answer(held.map(|()| Appended { durable: false }));
        }
        // What had to go for them, and what nobody waits for.
        self.shared.release_holds();
    }

    /// Writes the records behind each other. Answers the segment's new length.
    fn try_write(&mut self, group: &[Append]) -> io::Result<u32> {
        if self.current.is_none() {
            self.current = Some(self.create_segment()?);
        }
        let Some(current) = &self.current else { return Err(io::ErrorKind::NotFound.into()) };
        self.headers.clear();
        self.spans.clear();
        let mut len = current.len;
        let records = || group.iter().flat_map(|append| &append.records);
        for Encoded { record, checksum, .. } in records() {
            let start = self.headers.len();
            format::encode_record_header(&mut self.headers, record, *checksum, current.id, len);
            self.spans.push(start..self.headers.len());
            len += (self.headers.len() - start + record.body.len()) as u32;
        }
        let mut slices = Vec::with_capacity(self.spans.len() * 2);
        for (span, encoded) in self.spans.iter().zip(records()) {
            slices.push(IoSlice::new(&self.headers[span.clone()]));
            slices.push(IoSlice::new(&encoded.record.body));
        }
        let mut written = write_slices(&self.shared, &current.file, &mut slices);
        if written.is_ok() && self.shared.state.lock().options.sync_appends {
            written = self.shared.storage.sync(&current.file);
            if written.is_ok() && current.len == SEGMENT_HEADER_LEN {
                written = storage::sync_dir(&self.shared.dir);
            }
            self.shared.state.lock().syncs += 1;
        }
        if written.is_err() {
            // Where this fails too, the tail is found and skipped when the queue is opened again; nobody reads it
            // before, because the segment's end is known.
            let _ = self.shared.storage.truncate(&current.file, u64::from(current.len));
        }
        written.map(|()| len)
    }

    /// Tells everybody about records that were written.
    fn publish(&mut self, group: &[Append], len: u32) {
        let Some(current) = &mut self.current else { return };
        let mut places = Vec::with_capacity(self.spans.len());
        let mut at = current.len;
        for (span, encoded) in self.spans.iter().zip(group.iter().flat_map(|append| &append.records)) {
            let end = at + (span.len() + encoded.record.body.len()) as u32;
            places.push((at, end, &encoded.record));
            at = end;
        }
        let added = u64::from(len - current.len);
        current.len = len;
        {
            let state = &mut *self.shared.state.lock();
            if let Some(segment) = state.segments.get_mut(&current.id) {
                for (_, _, record) in &places {
                    segment.summary.record(record);
                }
                segment.end = len;
                segment.file_len = u64::from(len);
                state.disk_bytes += added;
            }
            state.written_bytes += added;
            state.writes += 1;
            announce(&self.shared, state, current.id, &places);
        }
        keeper::mark_written(&self.shared, &current.file);
        // One large batch should not hold its memory for ever.
        self.headers.shrink_to(64 << 10);
        self.spans.shrink_to(1024);
    }

    fn create_segment(&self) -> io::Result<Current> {
        let shared = &self.shared;
        let id = {
            let mut state = shared.state.lock();
            let id = state.next_segment;
            state.next_segment += 1;
            id
        };
        let path = shared.segment_path(id);
        let file = self.create_file(&path)?;
        let header = format::encode_segment_header(id, shared.now_ms());
        if let Err(error) = write_slices(shared, &file, &mut [IoSlice::new(&header)]) {
            let _ = shared.storage.remove(&path);
            return Err(error);
        }
        let mut state = shared.state.lock();
        let file_len = u64::from(SEGMENT_HEADER_LEN);
        state.segments.insert(id, Segment { end: SEGMENT_HEADER_LEN, file_len, ..Segment::default() });
        state.disk_bytes += file_len;
        state.written_bytes += file_len;
        drop(state);
        keeper::mark_created(shared);
        Ok(Current { id, file: Arc::new(file), len: SEGMENT_HEADER_LEN })
    }

    fn create_file(&self, path: &Path) -> io::Result<File> {
        match self.shared.storage.create(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Somebody has deleted the directory.
                std::fs::create_dir_all(&self.shared.dir)?;
                self.shared.storage.create(path)
            }
            file => file,
        }
    }

    /// Closes the segment that is written, unless nothing is in it. True if there is none any more.
    fn roll(&mut self) -> bool {
        let Some(current) = self.current.take_if(|current| current.len > SEGMENT_HEADER_LEN) else {
            return self.current.is_none();
        };
        if self.add_footer(current.id, &current.file).is_err() {
            self.shared.state.lock().write_errors += 1;
            self.unfooted.push((current.id, current.file));
        } else {
            keeper::mark_closed(&self.shared, current.file);
        }
        let mut state = self.shared.state.lock();
        if let Some(segment) = state.segments.get_mut(&current.id) {
            segment.closed = true;
        }
        let readers: Vec<_> = state.readers.values().cloned().collect();
        drop(state);
        for reader in readers {
            reader.wake();
        }
        true
    }

    /// Writes the footer at the end of a segment's records.
    fn add_footer(&self, id: u64, mut file: &File) -> io::Result<()> {
        let (end, summary) = {
            let state = self.shared.state.lock();
            let Some(segment) = state.segments.get(&id) else { return Ok(()) };
            (segment.end, segment.summary)
        };
        let footer = format::encode_footer(id, end, &summary);
        file.seek(SeekFrom::Start(u64::from(end)))?;
        if let Err(error) = write_slices(&self.shared, file, &mut [IoSlice::new(&footer)]) {
            let _ = self.shared.storage.truncate(file, u64::from(end));
            return Err(error);
        }
        let state = &mut *self.shared.state.lock();
        if let Some(segment) = state.segments.get_mut(&id) {
            segment.file_len += FOOTER_LEN as u64;
            state.disk_bytes += FOOTER_LEN as u64;
        }
        state.written_bytes += FOOTER_LEN as u64;
        Ok(())
    }

    /// The disk refuses: from now on records go to memory.
    fn degrade(&mut self, error: &io::Error) {
        self.retry_at = Some(Instant::now() + self.backoff);
        self.backoff = (self.backoff * 2).min(RETRY_MAX);
        self.shared.degraded.send_replace(Some(error.to_string()));
        let mut state = self.shared.state.lock();
        state.write_errors += 1;
        let Some(current) = self.current.take() else { return };
        if current.len > SEGMENT_HEADER_LEN {
            if let Some(segment) = state.segments.get_mut(&current.id) {
                segment.closed = true;
            }
            self.unfooted.push((current.id, current.file));
        } else {
            state.discard_segment(current.id);
            let _ = self.shared.storage.remove(&self.shared.segment_path(current.id));
        }
    }

    /// Takes records into memory, as a segment that has no file yet.
    fn hold(&self, append: &Append) -> Result<(), AppendError> {
        let state = &mut *self.shared.state.lock();
        let bytes_max = state.options.memory_bytes_max;
        let size = append.size as usize;
        if size > bytes_max {
            return Err(AppendError::TooLarge { bytes: append.size, bytes_max: bytes_max as u64 });
        }
        self.shared.overflowed.store(true, Ordering::Release);
        let settled_to = state.settled_to();
        if let Some(settled_to) = settled_to {
            give_up_front(state, |_, id, held| Position { segment: id, offset: held.end } <= settled_to);
        }
        if state.memory_bytes + size > bytes_max {
            if state.options.block_on_overflow {
                return Err(AppendError::Overflow);
            }
            give_up_front(state, |memory_bytes, _, _| memory_bytes + size > bytes_max);
        }
        self.shared.settled();
        let segment_bytes_max = state.options.segment_bytes_max;
        let last = state.segments.iter_mut().next_back().filter(|(_, segment)| segment.memory.is_some());
        let id = match last {
            Some((id, segment)) if u64::from(segment.end) + append.size <= segment_bytes_max => *id,
            last => {
                if let Some((_, segment)) = last {
                    segment.closed = true;
                }
                let id = state.next_segment;
                state.next_segment += 1;
                let memory = Some(VecDeque::new());
                state.segments.insert(id, Segment { end: SEGMENT_HEADER_LEN, memory, ..Segment::default() });
                id
            }
        };
        let mut places = Vec::with_capacity(append.records.len());
        if let Some(segment) = state.segments.get_mut(&id) {
            for Encoded { record, checksum, hold } in &append.records {
                let at = segment.end;
                let mut header = Vec::with_capacity(format::header_len(record.tenant.as_deref()));
                format::encode_record_header(&mut header, record, *checksum, id, at);
                let end = at + (header.len() + record.body.len()) as u32;
                places.push((at, end, record));
                if let Some(hold) = hold {
                    state.holds.push_back((Position { segment: id, offset: end }, Arc::clone(hold)));
                    self.shared.holding.store(true, Ordering::Release);
                }
                segment.summary.record(record);
                segment.end = end;
                if let Some(memory) = &mut segment.memory {
                    memory.push_back(Held { at, end, header: Bytes::from(header), record: record.clone() });
                }
            }
        }
        state.memory_bytes += size;
        announce(&self.shared, state, id, &places);
        Ok(())
    }

    /// Tries to bring what is in memory to the disk.
    fn recover(&mut self) {
        match self.try_recover() {
            Ok(()) => {
                self.retry_at = None;
                self.backoff = RETRY_MIN;
                self.shared.end_holds(true);
                self.shared.degraded.send_replace(None);
                for (id, file) in std::mem::take(&mut self.unfooted) {
                    // Where it fails again, the segment is scanned when the queue is opened again.
                    if self.add_footer(id, &file).is_ok() {
                        keeper::mark_closed(&self.shared, file);
                    }
                }
                self.shared.settled();
            }
            Err(error) => self.degrade(&error),
        }
    }

    fn try_recover(&mut self) -> io::Result<()> {
        loop {
            let next = {
                let mut state = self.shared.state.lock();
                if let Some(settled_to) = state.settled_to() {
                    give_up_front(&mut state, |_, id, held| Position { segment: id, offset: held.end } <= settled_to);
                }
                state.segments.iter().find_map(|(id, segment)| Some((*id, segment.memory.clone()?, segment.end)))
            };
            let Some((id, held, end)) = next else { break };
            if held.is_empty() {
                self.shared.state.lock().segments.remove(&id);
                continue;
            }
            if !self.make_room(u64::from(end)) {
                return Err(io::Error::other("queue is full"));
            }
            let path = self.shared.segment_path(id);
            match self.write_out(id, &held) {
                Ok(file) => self.settle_down(id, end, file),
                Err(error) => {
                    let _ = self.shared.storage.remove(&path);
                    return Err(error);
                }
            }
        }
        if self.current.is_none() {
            // Nothing had to be written: see whether something can be.
            self.current = Some(self.create_segment()?);
        }
        Ok(())
    }

    /// Writes a segment that was in memory to its file.
    fn write_out(&self, id: u64, held: &VecDeque<Held>) -> io::Result<File> {
        let shared = &self.shared;
        let mut file = self.create_file(&shared.segment_path(id))?;
        let mut head = format::encode_segment_header(id, shared.now_ms());
        let first = held.front().map_or(SEGMENT_HEADER_LEN, |held| held.at);
        if first > SEGMENT_HEADER_LEN {
            format::encode_gap_header(&mut head, id, SEGMENT_HEADER_LEN, first);
        }
        write_slices(shared, &file, &mut [IoSlice::new(&head)])?;
        file.seek(SeekFrom::Start(u64::from(first)))?;
        let mut slices = Vec::with_capacity(held.len() * 2);
        for held in held {
            slices.push(IoSlice::new(&held.header));
            slices.push(IoSlice::new(&held.record.body));
        }
        write_slices(shared, &file, &mut slices)?;
        Ok(file)
    }

    /// A segment that was in memory is on disk now.
    fn settle_down(&mut self, id: u64, end: u32, file: File) {
        let file = Arc::new(file);
        {
            let state = &mut *self.shared.state.lock();
            let Some(segment) = state.segments.get_mut(&id) else { return };
            let held: usize = segment.memory.take().map_or(0, |memory| memory.iter().map(held_bytes).sum());
            segment.closed = true;
            segment.file_len = u64::from(end);
            state.memory_bytes -= held;
            state.disk_bytes += u64::from(end);
            state.written_bytes += u64::from(end);
        }
        keeper::mark_created(&self.shared);
        self.unfooted.push((id, file));
    }

    fn stop_keeper(&mut self, abandon: bool) {
        {
            let mut dirty = self.shared.dirty.lock();
            dirty.stop = true;
            dirty.abandon = abandon;
        }
        self.shared.dirty_wake.notify_one();
        if let Some(keeper) = self.keeper.take() {
            // A panic of the keeper is not ours to pass on.
            let _ = keeper.join();
        }
    }

    fn finish(&mut self) {
        if self.retry_at.is_some() {
            if !self.shared.in_memory {
                self.recover();
            }
            // What could not be written is lost with the process.
            give_up_front(&mut self.shared.state.lock(), |_, _, _| true);
        }
        if !self.roll()
            && let Some(current) = self.current.take()
        {
            self.shared.state.lock().discard_segment(current.id);
            let _ = self.shared.storage.remove(&self.shared.segment_path(current.id));
        }
        self.stop_keeper(false);
        self.shared.close();
    }
}

fn has_room(state: &State, size: u64) -> bool {
    state.disk_bytes + size + SEGMENT_OVERHEAD_BYTES <= state.options.bytes_max
}

fn held_bytes(held: &Held) -> usize {
    held.header.len() + held.record.body.len()
}

fn write_slices(shared: &Shared, file: &File, slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    slices.chunks_mut(SLICES_MAX).try_for_each(|slices| storage::write_all(&*shared.storage, file, slices))
}

/// Counts new records and gives them to the readers that wait for them.
fn announce(shared: &Shared, state: &mut State, segment: u64, places: &[(u32, u32, &Record)]) {
    for (_, _, record) in places {
        state.appended.record(&record.counts, record.body.len());
        state.highest_ms = state.highest_ms.max(Some(record.highest_ms));
    }
    let (now, now_ms) = (tokio::time::Instant::now(), shared.now_ms());
    for reader in state.readers.values() {
        reader.offer(&state.segments, segment, places, now, now_ms);
    }
}

/// Gives up the oldest records in memory for as long as `goes` says so, from the bytes in memory, the segment and the
/// record.
fn give_up_front(state: &mut State, goes: impl Fn(usize, u64, &Held) -> bool) {
    let ids: Vec<u64> =
        state.segments.iter().filter(|(_, segment)| segment.memory.is_some()).map(|(id, _)| *id).collect();
    for id in ids {
        let Some(segment) = state.segments.get_mut(&id) else { continue };
        let Some(memory) = &mut segment.memory else { continue };
        let mut gone = Totals::default();
        let mut given_up = Vec::new();
        while let Some(held) = memory.pop_front_if(|held| goes(state.memory_bytes, id, held)) {
            state.memory_bytes -= held_bytes(&held);
            gone.record(&held.record.counts, held.record.body.len());
            let at = Position { segment: id, offset: held.at };
            let Record { partition, counts, ref body, .. } = held.record;
            given_up.push(GivenUp { at, partition, counts, body_len: body.len() });
        }
        if given_up.is_empty() {
            if !memory.is_empty() {
                break;
            }
            if segment.closed {
                state.segments.remove(&id);
            }
            continue;
        }
        segment.summary.totals = segment.summary.totals.without(&gone);
        let place = Position { segment: id, offset: memory.front().map_or(segment.end, |held| held.at) };
        let is_over = memory.is_empty() && segment.closed;
        let is_empty = memory.is_empty();
        for reader in state.readers.values() {
            reader.forget_front(place, &gone, &given_up);
        }
        if is_over {
            state.segments.remove(&id);
        }
        if !is_empty {
            break;
        }
    }
}
