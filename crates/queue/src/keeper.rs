//! The thread that keeps a queue: forces files to the medium off the writer's path, deletes what is settled or too
//! old, writes cursors that moved without a settlement.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::queue::Shared;
use crate::storage;
use crate::types::reason;

/// How often segments are looked at while there are some and nothing happens.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The same while there are none.
const IDLE_EVERY: Duration = Duration::from_secs(3600);
/// How often cursors are written where syncing is off.
const CURSORS_EVERY: Duration = Duration::from_secs(1);
/// How many closed segments may wait to be synced; beyond it they are left to the operating system.
const CLOSED_FILES_MAX: usize = 64;
/// A segment is closed when its first record is older than this part of the age cap, so that records do not stay much
/// longer than it because of later ones.
const AGE_PARTS: u32 = 8;

/// What has to be synced.
#[derive(Default)]
pub(crate) struct Dirty {
    written: Option<Arc<File>>,
    closed: Vec<Arc<File>>,
    /// Files were created.
    dir: bool,
    /// Cursors have moved.
    cursors: bool,
    /// The options have changed.
    pub(crate) poke: bool,
    pub(crate) stop: bool,
    /// Stop without doing anything more.
    pub(crate) abandon: bool,
    skipped: u64,
}

impl Dirty {
    fn is_any(&self) -> bool {
        self.written.is_some() || !self.closed.is_empty() || self.dir || self.cursors
    }
}

/// Marks something as dirty; the keeper sleeps as long as nothing is.
fn mark(shared: &Shared, what: impl FnOnce(&mut Dirty)) {
    let mut dirty = shared.dirty.lock();
    if !dirty.is_any() {
        shared.dirty_wake.notify_one();
    }
    what(&mut dirty);
}

/// Records were added to a segment.
pub(crate) fn mark_written(shared: &Shared, file: &Arc<File>) {
    mark(shared, |dirty| {
        dirty.written.get_or_insert_with(|| file.clone());
    });
}

/// A file was created.
pub(crate) fn mark_created(shared: &Shared) {
    mark(shared, |dirty| dirty.dir = true);
}

/// A cursor has moved.
pub(crate) fn mark_cursor(shared: &Shared) {
    mark(shared, |dirty| dirty.cursors = true);
}

/// A segment has got its footer.
pub(crate) fn mark_closed(shared: &Shared, file: Arc<File>) {
    let mut dirty = shared.dirty.lock();
    dirty.written = None;
    if dirty.closed.len() < CLOSED_FILES_MAX {
        dirty.closed.push(file);
    } else {
        dirty.skipped += 1;
    }
    shared.dirty_wake.notify_one();
}

pub(crate) fn run(shared: &Shared) {
    let mut last_sync = Instant::now();
    let mut last_truncate = Instant::now();
    loop {
        let (idle_every, sync_every) = {
            let state = shared.state.lock();
            let options = &state.options;
            let idle_every = if state.segments.is_empty() { IDLE_EVERY } else { LOOK_EVERY };
            (idle_every.min(options.truncate_every).max(Duration::from_millis(100)), options.sync_every)
        };
        let (dirty, stop) = {
            let mut dirty = shared.dirty.lock();
            if !dirty.is_any() && !dirty.stop && !dirty.poke {
                shared.dirty_wake.wait_for(&mut dirty, idle_every);
            }
            let due = last_sync + if sync_every.is_zero() { CURSORS_EVERY } else { sync_every };
            while dirty.is_any() && dirty.closed.is_empty() && !dirty.stop && !dirty.poke {
                if shared.dirty_wake.wait_until(&mut dirty, due).timed_out() {
                    break;
                }
            }
            if dirty.abandon {
                return;
            }
            dirty.poke = false;
            let stop = dirty.stop;
            (std::mem::take(&mut *dirty), stop)
        };
        last_sync = Instant::now();
        // The data first, so that a cursor is never ahead of it on the medium.
        sync(shared, dirty, !sync_every.is_zero());
        expire(shared);
        let truncate_every = shared.state.lock().options.truncate_every;
        if stop || last_truncate.elapsed() >= truncate_every {
            last_truncate = Instant::now();
            truncate(shared, Duration::ZERO);
        }
        if stop {
            sync_cursors(shared, !sync_every.is_zero());
            return;
        }
    }
}

fn sync(shared: &Shared, dirty: Dirty, is_on: bool) {
    let (mut syncs, mut errors, mut longest) = (0, dirty.skipped, Duration::ZERO);
    if is_on {
        for file in dirty.closed.iter().chain(&dirty.written) {
            let start = Instant::now();
            syncs += 1;
            errors += u64::from(shared.storage.sync(file).is_err());
            longest = longest.max(start.elapsed());
        }
        if dirty.dir {
            errors += u64::from(storage::sync_dir(&shared.dir).is_err());
        }
    }
    if syncs > 0 || errors > 0 {
        let mut state = shared.state.lock();
        state.syncs += syncs;
        state.sync_errors += errors;
        state.sync_longest = state.sync_longest.max(longest);
    }
    sync_cursors(shared, is_on);
}

fn sync_cursors(shared: &Shared, is_on: bool) {
    let readers: Vec<_> = shared.state.lock().readers.values().cloned().collect();
    for reader in readers {
        if let Some(file) = reader.persist_if_dirty(shared)
            && is_on
            && shared.storage.sync(&file).is_err()
        {
            shared.count_cursor_error();
        }
    }
}

/// Drops segments of which every record is older than the age cap and that some reader has not settled, and asks for
/// the one that is written to be closed when it is old.
pub(crate) fn expire(shared: &Shared) {
    let now_ms = shared.now_ms();
    let mut expired = Vec::new();
    let mut roll = false;
    {
        let mut state = shared.state.lock();
        let options = &state.options;
        let age_max_ms = millis(options.age_max);
        let roll_after_ms = millis(options.truncate_every.min(options.age_max / AGE_PARTS)).max(1000);
        for (id, segment) in &state.segments {
            if segment.memory.is_some() || segment.summary.totals.records == 0 {
                continue;
            }
            if !segment.closed {
                roll |= now_ms.saturating_sub(segment.summary.created_lowest_ms) > roll_after_ms;
            } else if now_ms.saturating_sub(segment.summary.created_highest_ms) > age_max_ms
                && !state.is_settled(*id, segment)
            {
                expired.push(*id);
            }
        }
        for id in &expired {
            state.remove_segment(*id, Some(reason::EXPIRED));
        }
    }
    remove(shared, &expired);
    if roll {
        shared.ask_to_roll();
    }
}

/// Deletes segments that every reader has settled and whose newest record is old enough; `longer` is added to that.
pub(crate) fn truncate(shared: &Shared, longer: Duration) {
    let now_ms = shared.now_ms();
    let mut settled = Vec::new();
    {
        let mut state = shared.state.lock();
        let keep_ms = millis(state.options.keep_settled_min.saturating_add(longer));
        for (id, segment) in &state.segments {
            if segment.closed
                && segment.memory.is_none()
                && now_ms.saturating_sub(segment.summary.created_highest_ms) >= keep_ms
                && state.is_settled(*id, segment)
            {
                settled.push(*id);
            }
        }
        for id in &settled {
            state.remove_segment(*id, None);
        }
    }
    remove(shared, &settled);
}

/// A process that never lives long enough to truncate would keep everything; what should have gone before goes now.
pub(crate) fn truncate_at_open(shared: &Shared) {
    let truncate_every = {
        let state = shared.state.lock();
        if state.readers.is_empty() {
            return;
        }
        state.options.truncate_every
    };
    truncate(shared, truncate_every);
}

fn remove(shared: &Shared, ids: &[u64]) {
    for id in ids {
        // The file's bytes are no longer counted. Where it cannot be deleted, the next open finds it again.
        let _ = shared.storage.remove(&shared.segment_path(*id));
    }
    if !ids.is_empty() {
        shared.settled();
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
