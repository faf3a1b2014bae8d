//! Reads all files of a component.
//!
//! One task looks after all files: it knows when each is to be looked at next, has those that are due read on a thread that
//! may block, and hands on what was read, each file by itself and one batch after the other.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use corten_component::{Context, Health, HealthBoard, HealthState, Logger, Stop};
use corten_files::io_error_text;
use corten_files::positions::Positions;
use corten_files::tail::{Buffers, Chunk, Counts, Options, Reader, Step, Unpacked, Unpacking, World};
use corten_os::wake::Wake;
use corten_signal::ledger::Row;
use corten_signal::{Acks, ConsumeError, EntriesBuilder, Fanout, Logs, LogsBatch, Stream};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::Instant;

use super::FileSource;
use super::figures::{AllFigures, Figures, SeenAs};
use super::ledger::Ledger;
use super::targets::{Finder, Found, Wanted, WantedFiles};

/// How many files are looked at in one sweep.
const SWEEP_FILES_MAX: usize = 256;
/// How long a sweep is waited for before another one begins. A file system that does not answer keeps the files of its
/// sweep, and no others.
const SWEEP_WAIT: Duration = Duration::from_secs(1);
/// How many sweeps there are at most that do not end.
const SWEEPS_MAX: usize = 16;
/// How much is read in one sweep, in bytes.
const SWEEP_BYTES_MAX: u64 = 4 << 20;
/// How often positions are written.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// The waits before a file that could not be read is tried again: doubling from the first to the second.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// How long what is on its way may take to be safe when the component ends.
const SETTLE_WAIT_MAX: Duration = Duration::from_secs(10);
/// Into how many parts the time between two looks at a file is divided, in each of which files are looked at together.
const TOGETHER: u64 = 4;
/// How many files that are behind are looked at together.
const MEASURED_MAX: usize = 1000;
/// How often a batch is found on its way before its file is said to be held up.
const HELD_SEEN_MIN: u8 = 2;
/// How often it is looked whether a file is free that is being read under an earlier name.
const WAITS: Duration = Duration::from_millis(500);
/// How often it is looked whether a file is there that was not, at most.
const MISSING_MAX: Duration = Duration::from_secs(1);
/// How often a file is found unchanged before the system is asked to tell of changes.
const QUIET_MIN: u32 = 3;
/// How often a file is looked at that the system tells of: some file systems do not tell, and links may lead elsewhere.
const WATCHED_WAIT: Duration = Duration::from_secs(10);
/// By how much the clock may be set back before times are given that were given before, in nanoseconds.
const CLOCK_SLACK_NS: i64 = 1_000_000_000;
/// How many builders are kept for the next batches.
const BUILDERS_MAX: usize = 16;

/// What a set of arguments means.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) finder: Arc<Finder>,
    /// How often files are looked for; not at all where paths stand for themselves.
    pub(super) sync_period: Option<Duration>,
    pub(super) options: Arc<Options>,
    /// How files are compressed, if they are.
    pub(super) unpacked: Option<Unpacked>,
    /// Why nothing can be read.
    pub(super) unknown_encoding: Option<String>,
    /// What the user calls the encoding; empty where bytes are passed on as they are.
    pub(super) encoding: String,
    pub(super) poll_min: Duration,
    pub(super) poll_max: Duration,
    pub(super) forward: Fanout<Logs>,
}

/// What outlives a failure of the task.
pub(super) struct Shared {
    positions: Arc<Mutex<Positions>>,
    ledger: Arc<Ledger>,
    buffers: Arc<Buffers>,
    unpacking: Unpacking,
    builders: Mutex<Vec<EntriesBuilder>>,
    /// The time that was given to an entry last, in nanoseconds since the Unix epoch.
    clock_ns: AtomicI64,
    pub(super) figures: Arc<AllFigures>,
    health: Arc<HealthBoard>,
    logger: Logger,
    row: Arc<Row>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(cx: &Context<FileSource>, positions: Positions) -> Self {
        Shared {
            positions: Arc::new(Mutex::new(positions)),
            ledger: Arc::default(),
            buffers: Arc::new(Buffers::new(Options::default().turn_bytes)),
            unpacking: Unpacking::default(),
            builders: Mutex::default(),
            clock_ns: AtomicI64::new(0),
            figures: AllFigures::new(cx.metrics()),
            health: Arc::clone(cx.health()),
            logger: cx.logger().clone(),
            row: Arc::clone(cx.ledger().row_of::<Logs>()),
        }
    }

    /// The entries of what was read, in all its streams. The lines stay where they were read to.
    fn batch(&self, chunk: &Chunk, streams: &[Stream], acks: Acks) -> LogsBatch {
        let mut builder = self.builders.lock().pop().unwrap_or_default();
        let first = self.times(chunk.lines.len());
        let buffer = builder.share(&chunk.text);
        for stream in streams {
            let part = builder.stream(stream);
            for (line, time) in chunk.lines.iter().zip(first..) {
                let (start, end) = (line.at as usize, (line.at + line.len) as usize);
                let span = match buffer {
                    Some(buffer) => builder.span(buffer, start..end),
                    None => builder.own(&chunk.text[start..end]),
                };
                builder.push(part, time, span);
            }
        }
        let entries = builder.finish(first / 1_000_000);
        let mut builders = self.builders.lock();
        if builders.len() < BUILDERS_MAX {
            builders.push(builder);
        }
        drop(builders);
        LogsBatch { entries: Arc::new(entries), acks }
    }

    /// So many times for entries, the first of them. No two entries of the component have the same: equal lines at an equal
    /// time are one line to whoever stores them.
    fn times(&self, count: usize) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64);
        let mut first = 0;
        let next = |last: i64| {
            first = first_of(count as i64, now, last);
            Some(first + count as i64 - 1)
        };
        let _ = self.clock_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        first
    }
}

/// The first of so many times, in nanoseconds since the Unix epoch: the last of them is now, unless that is not after all
/// that were given before.
fn first_of(count: i64, now: i64, last: i64) -> i64 {
    // A clock that was set back is right now. Else all times were wrong until it is as late again.
    let last = if last > now.saturating_add(CLOCK_SLACK_NS) { 0 } else { last };
    (now - count).max(last) + 1
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// A file that is read.
struct FileState {
    name: Arc<str>,
    /// Away while it is being read from.
    tail: Option<Reader>,
    streams: Arc<[Stream]>,
    lane: u32,
    /// When it is to be looked at next; with the number of the entry in the heap that counts.
    due: Option<Instant>,
    /// How long to wait when there is nothing new.
    wait: Duration,
    /// How often in a row there was nothing new.
    quiet: u32,
    /// The system tells when something happens to it.
    watched: bool,
    /// A batch is being handed on.
    forwarding: bool,
    /// How often it was found to be, the same one.
    forwarding_seen: u8,
    /// It is closed when nothing is on its way.
    leaving: Option<Box<Leaving>>,
    /// Something is to be saved.
    unsaved: bool,
    /// There was a file, or it was told that there is none.
    was_there: bool,
    error: Option<String>,
    retry: Duration,
    /// What could not be handed on is tried again then.
    refused_until: Option<Instant>,
    /// How often in a row it could not.
    refused: u32,
    counts: Counts,
    figures: Arc<Figures>,
}

/// A file that is about to be closed.
struct Leaving {
    /// It has to be opened anew, because files are read in another way now.
    renew: bool,
    /// It is begun with again afterwards.
    then: Option<Wanted>,
}

/// The end of handing on a batch.
struct Forwarded {
    slot: usize,
    /// Whether there was more to read.
    more: bool,
    serial: u64,
    outcome: Result<(), ConsumeError>,
}

/// What a sweep found in a file.
struct Swept {
    slot: usize,
    tail: Reader,
    /// Nothing if it was not its turn.
    step: Option<Result<Step, String>>,
}

struct Manager {
    shared: Arc<Shared>,
    settings: Arc<Settings>,
    files: Vec<Option<FileState>>,
    free: Vec<usize>,
    by_name: HashMap<Arc<str>, usize>,
    /// By the lane of the ledger.
    by_lane: HashMap<u32, usize>,
    /// Those of the file that was begun with last: most files have the same.
    labels: Arc<[String]>,
    /// All names, for the tails: what is read under its own name is nobody else's.
    names: Arc<HashSet<Arc<str>>>,
    heap: BinaryHeap<Reverse<(Instant, usize)>>,
    forwards: JoinSet<Forwarded>,
    /// Sweeps that took long.
    sweeps: JoinSet<Vec<Swept>>,
    touched: Vec<u32>,
    waiting: Vec<usize>,
    /// What is wrong with patterns.
    pattern_problem: Option<String>,
    /// Why positions cannot be saved.
    save_problem: Option<String>,
    told_problem: Option<String>,
    /// Why something was not taken last.
    refusal: Option<String>,
    /// A task that handed on a batch has panicked.
    panicked: bool,
    save_soon: bool,
    /// Looks how long files are.
    measuring: Option<JoinHandle<()>>,
    health_changed: bool,
    wake: Arc<Wake>,
    began: Instant,
}

/// Reads files until it is stopped.
pub(super) async fn run(
    shared: Arc<Shared>,
    mut settings: watch::Receiver<Arc<Settings>>,
    mut stop: Stop,
) -> Result<(), String> {
    let first = Arc::clone(&settings.borrow_and_update());
    // Of an earlier run that failed.
    shared.positions.lock().let_all_go();
    let mut manager = Manager::new(shared, first);
    let outcome = manager.work(&mut settings, &mut stop).await;
    manager.finish().await;
    outcome
}

impl Manager {
    fn new(shared: Arc<Shared>, settings: Arc<Settings>) -> Self {
        Manager {
            shared,
            settings,
            files: Vec::new(),
            free: Vec::new(),
            by_name: HashMap::new(),
            by_lane: HashMap::new(),
            labels: Arc::default(),
            names: Arc::default(),
            heap: BinaryHeap::new(),
            forwards: JoinSet::new(),
            sweeps: JoinSet::new(),
            touched: Vec::new(),
            waiting: Vec::new(),
            pattern_problem: None,
            save_problem: None,
            told_problem: None,
            refusal: None,
            panicked: false,
            save_soon: false,
            measuring: None,
            health_changed: true,
            wake: Arc::default(),
            began: Instant::now(),
        }
    }

    async fn work(&mut self, settings: &mut watch::Receiver<Arc<Settings>>, stop: &mut Stop) -> Result<(), String> {
        let mut finding = self.find();
        let mut find_at = self.settings.sync_period.map(|period| Instant::now() + period);
        let mut save_at = Instant::now() + SAVE_EVERY;
        let (ledger, wake) = (Arc::clone(&self.shared.ledger), Arc::clone(&self.wake));
        loop {
            let due = self.heap.peek().map(|Reverse((due, _))| *due);
            let far = Instant::now() + Duration::from_secs(3600);
            // The next search waits for the one before.
            let find_next = find_at.filter(|_| finding.is_none());
            let due = due.filter(|_| self.sweeps.len() < SWEEPS_MAX);
            let wake_at = [due, find_next, Some(save_at)].into_iter().flatten().min().unwrap_or(far);
            tokio::select! {
                biased;
                () = stop.wait() => return Ok(()),
                changed = settings.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    let next = Arc::clone(&settings.borrow_and_update());
                    self.change(next);
                    // What is being looked for is what was wanted before.
                    finding = self.find();
                    find_at = self.settings.sync_period.map(|period| Instant::now() + period);
                }
                Some(done) = self.forwards.join_next() => self.forwarded(done),
                Some(done) = self.sweeps.join_next() => self.all_swept(done)?,
                () = ledger.changed() => {}
                slots = wake.woken() => self.woken(&slots),
                found = found(&mut finding) => {
                    finding = None;
                    self.found(found?);
                }
                () = tokio::time::sleep_until(wake_at) => {}
            }
            while let Some(done) = self.forwards.try_join_next() {
                self.forwarded(done);
            }
            if self.panicked {
                return Err("a batch could not be handed on".to_owned());
            }
            self.look_at_ledger();
            let now = Instant::now();
            if finding.is_none() && find_at.is_some_and(|at| at <= now) {
                finding = self.find();
                find_at = self.settings.sync_period.map(|period| now + period);
            }
            if save_at <= now {
                self.measure();
                self.save().await;
                save_at = now + SAVE_EVERY;
            }
            self.sweep().await?;
            if self.save_soon {
                self.save_soon = false;
                self.save().await;
            }
            self.tell_health();
        }
    }

    /// Something happened to files.
    fn woken(&mut self, slots: &[u64]) {
        let now = Instant::now();
        for slot in slots {
            let slot = *slot as usize;
            let Some(Some(file)) = self.files.get_mut(slot) else { continue };
            file.watched = false;
            file.quiet = 0;
            file.wait = self.settings.poll_min;
            self.plan(slot, now);
        }
    }

    /// Takes other settings.
    fn change(&mut self, next: Arc<Settings>) {
        let reads_otherwise =
            next.options.encoding != self.settings.options.encoding || next.unpacked != self.settings.unpacked;
        self.settings = next;
        if reads_otherwise {
            // As for new files, from where reading had come to.
            for slot in 0..self.files.len() {
                self.leave(slot, true);
            }
        }
        let now = Instant::now();
        for file in self.files.iter_mut().flatten() {
            file.wait = self.settings.poll_min;
            file.due = None;
            file.refused_until = None;
        }
        for slot in 0..self.files.len() {
            self.plan(slot, now);
        }
    }

    /// Looks for the files that are to be read: on a thread that may block, unless paths stand for themselves.
    fn find(&mut self) -> Option<JoinHandle<Found>> {
        let (finder, logger) = (Arc::clone(&self.settings.finder), self.shared.logger.clone());
        if self.settings.sync_period.is_none() {
            self.found(finder.find(SystemTime::now(), &logger));
            return None;
        }
        Some(tokio::task::spawn_blocking(move || finder.find(SystemTime::now(), &logger)))
    }

    fn found(&mut self, Found { files: mut wanted, aside, problem }: Found) {
        self.health_changed = true;
        let settings = &self.settings;
        self.shared.figures.searched(&settings.finder, &settings.encoding, aside, settings.unknown_encoding.as_ref());
        self.pattern_problem = self.settings.unknown_encoding.clone().or(problem);
        if self.settings.unknown_encoding.is_some() {
            wanted.clear();
        }
        self.reconcile(wanted);
    }

    /// Reads these files, and no others.
    fn reconcile(&mut self, wanted: WantedFiles) {
        let mut names_changed = false;
        for slot in 0..self.files.len() {
            if self.files[slot].as_ref().is_some_and(|file| !wanted.contains_key(&file.name)) {
                names_changed |= self.leave(slot, false);
            }
        }
        for (name, wanted) in wanted {
            match self.by_name.get(&name).copied() {
                Some(slot) => self.keep(slot, wanted),
                None if wanted.only_if_open => {}
                None => {
                    self.begin(name, wanted);
                    names_changed = true;
                }
            }
        }
        if names_changed {
            self.names = Arc::new(self.by_name.keys().map(Arc::clone).collect());
        }
    }

    /// Goes on with a file, maybe with other labels.
    fn keep(&mut self, slot: usize, wanted: Wanted) {
        let Some(file) = &mut self.files[slot] else { return };
        file.figures.target.store(wanted.target, Ordering::Relaxed);
        if *file.streams != *wanted.streams {
            file.streams = wanted.streams.as_slice().into();
            file.figures.set_streams(Arc::clone(&file.streams));
        }
        match file.leaving {
            None => {}
            // It has to be opened anew.
            Some(ref mut leaving) if leaving.renew => leaving.then = Some(wanted),
            Some(_) => {
                file.leaving = None;
                self.plan(slot, Instant::now());
            }
        }
    }

    /// Begins with a file.
    fn begin(&mut self, name: Arc<str>, wanted: Wanted) {
        let Some(lane) = self.shared.ledger.open() else { return };
        if *self.labels != *wanted.labels {
            self.labels = wanted.labels.into();
        }
        let labels = Arc::clone(&self.labels);
        let file = FileState {
            tail: Some(Reader::new(Arc::clone(&name), labels, self.settings.unpacked)),
            streams: wanted.streams.into(),
            lane,
            due: None,
            wait: self.settings.poll_min,
            quiet: 0,
            watched: false,
            forwarding: false,
            forwarding_seen: 0,
            leaving: None,
            unsaved: true,
            was_there: false,
            error: None,
            retry: RETRY_MIN,
            refused_until: None,
            refused: 0,
            counts: Counts::default(),
            figures: self.shared.figures.begin(&name, self.settings.unpacked.is_some()),
            name: Arc::clone(&name),
        };
        file.figures.set_streams(Arc::clone(&file.streams));
        file.figures.target.store(wanted.target, Ordering::Relaxed);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.files.push(None);
            self.files.len() - 1
        });
        self.files[slot] = Some(file);
        self.by_name.insert(name, slot);
        self.by_lane.insert(lane, slot);
        self.plan(slot, Instant::now());
    }

    /// Reads a file no more, and closes it as soon as nothing is on its way; whether it was being read.
    fn leave(&mut self, slot: usize, renew: bool) -> bool {
        let Some(file) = &mut self.files[slot] else { return false };
        if file.leaving.is_some() {
            return false;
        }
        file.leaving = Some(Box::new(Leaving { renew, then: None }));
        file.due = None;
        self.close_if_done(slot);
        true
    }

    fn close_if_done(&mut self, slot: usize) {
        let is_done = self.files[slot].as_ref().is_some_and(|file| file.leaving.is_some() && !file.forwarding);
        if is_done && self.hear(slot) {
            self.close(slot);
        }
    }

    fn close(&mut self, slot: usize) {
        let Some(mut file) = self.files[slot].take() else { return };
        if let Some(tail) = file.tail.take() {
            tail.close(&mut self.shared.positions.lock(), now_ms());
        }
        self.wake.forget(slot as u64);
        self.shared.ledger.close(file.lane);
        self.shared.figures.set_open(&file.figures, false);
        self.health_changed |= file.error.is_some();
        self.by_lane.remove(&file.lane);
        self.by_name.remove(&file.name);
        self.free.push(slot);
        match file.leaving.and_then(|leaving| leaving.then) {
            Some(wanted) => self.begin(file.name, wanted),
            None => self.shared.figures.end(&file.name),
        }
    }

    /// Has a file looked at, at some time.
    fn plan(&mut self, slot: usize, at: Instant) {
        let Some(file) = &mut self.files[slot] else { return };
        if file.leaving.is_some() || file.forwarding || file.due.is_some_and(|due| due <= at) {
            return;
        }
        file.due = Some(at);
        self.heap.push(Reverse((at, slot)));
    }

    /// Has a file looked at after a while. Those that are due at about the same time are looked at together.
    fn plan_after(&mut self, slot: usize, wait: Duration) {
        let now = Instant::now();
        let mut at = now + wait;
        let grid_ms = self.settings.poll_min.min(wait).as_millis() as u64 / TOGETHER;
        if grid_ms > 0 {
            let past_ms = (at - self.began).as_millis() as u64 % grid_ms;
            at += Duration::from_millis(grid_ms - past_ms);
        }
        self.plan(slot, at);
    }

    /// Takes notice of what became of batches.
    fn look_at_ledger(&mut self) {
        let mut touched = std::mem::take(&mut self.touched);
        self.shared.ledger.take_touched(&mut touched);
        for lane in touched.drain(..) {
            let Some(slot) = self.by_lane.get(&lane).copied() else { continue };
            self.hear(slot);
            self.close_if_done(slot);
        }
        self.touched = touched;
        // Those that wait ask again whether there is room.
        let now = Instant::now();
        for slot in std::mem::take(&mut self.waiting) {
            self.plan(slot, now);
        }
    }

    /// Takes notice of what became of the batches of a file; whether none is on its way.
    fn hear(&mut self, slot: usize) -> bool {
        let Some(file) = &mut self.files[slot] else { return true };
        // Whoever hands a batch on says first why it was refused.
        if file.forwarding {
            return false;
        }
        let Some(tail) = &mut file.tail else { return false };
        let news = self.shared.ledger.news(file.lane);
        file.unsaved |= !news.safe.is_empty();
        for (piece, mark) in news.safe {
            tail.settle(piece, mark);
        }
        if news.lost {
            tail.rewind();
            let at = file.refused_until.unwrap_or_else(|| Instant::now() + RETRY_MIN);
            file.refused_until = Some(at);
            self.plan(slot, at);
        }
        news.empty
    }

    /// Reads the files that are due.
    async fn sweep(&mut self) -> Result<(), String> {
        if self.sweeps.len() >= SWEEPS_MAX {
            return Ok(());
        }
        let now = Instant::now();
        let mut due = Vec::new();
        while due.len() < SWEEP_FILES_MAX
            && let Some(Reverse((at, slot))) = self.heap.peek().copied()
            && at <= now
        {
            self.heap.pop();
            let Some(file) = &mut self.files[slot] else { continue };
            if file.due != Some(at) {
                continue;
            }
            file.due = None;
            if let Some(until) = file.refused_until {
                if until > now {
                    self.plan(slot, until);
                    continue;
                }
                file.refused_until = None;
            }
            if !self.shared.ledger.has_room(file.lane) {
                self.waiting.push(slot);
                continue;
            }
            if let Some(tail) = file.tail.take() {
                due.push((slot, tail));
            }
        }
        if due.is_empty() {
            return Ok(());
        }
        let (shared, options, names) =
            (Arc::clone(&self.shared), Arc::clone(&self.settings.options), Arc::clone(&self.names));
        self.sweeps.spawn_blocking(move || read(&shared, &options, &names, due));
        if let Ok(Some(done)) = tokio::time::timeout(SWEEP_WAIT, self.sweeps.join_next()).await {
            self.all_swept(done)?;
        }
        Ok(())
    }

    fn all_swept(&mut self, done: Result<Vec<Swept>, JoinError>) -> Result<(), String> {
        for swept in done.map_err(|error| format!("reading failed: {error}"))? {
            let slot = swept.slot;
            self.swept(swept);
            self.hear(slot);
            self.close_if_done(slot);
        }
        Ok(())
    }

    /// Goes on with a file that was looked at.
    fn swept(&mut self, swept: Swept) {
        let Swept { slot, tail, step } = swept;
        let now = Instant::now();
        let Some(file) = &mut self.files[slot] else { return };
        file.figures.read_bytes.store(tail.offset(), Ordering::Relaxed);
        file.figures.file_bytes.store(tail.size(), Ordering::Relaxed);
        let counts = tail.counts();
        let is_open = tail.is_open();
        // What happens to names is saved at once: it is by this that files are found again under other names.
        self.save_soon |= self.shared.figures.set_open(&file.figures, is_open) || counts != file.counts;
        if counts != file.counts {
            self.shared.figures.add(counts, file.counts);
            file.counts = counts;
            file.unsaved = true;
        }
        let lingers = tail.lingers();
        file.was_there |= is_open;
        file.tail = Some(tail);
        let step = match step {
            None => return self.plan(slot, now),
            Some(Err(error)) => return self.failed(slot, error),
            Some(Ok(step)) => step,
        };
        if file.error.take().is_some() {
            *file.figures.error.lock() = None;
            self.health_changed = true;
        }
        file.retry = RETRY_MIN;
        file.figures.set_seen(match step {
            Step::Missing => SeenAs::Missing,
            Step::Waits => SeenAs::Other,
            _ => SeenAs::File,
        });
        let poll_min = self.settings.poll_min;
        let wait = match step {
            Step::Chunk(chunk) => {
                file.wait = poll_min;
                file.quiet = 0;
                return self.hand_on(slot, chunk);
            }
            Step::More => Duration::ZERO,
            Step::Quiet if lingers => poll_min,
            Step::Quiet => {
                // It is read to its end.
                file.figures.let_go();
                file.quiet = file.quiet.saturating_add(1);
                let is_quiet = file.quiet >= QUIET_MIN && !file.watched;
                if is_quiet && self.wake.watch(Path::new(&*file.name), slot as u64) {
                    file.watched = true;
                    // What happened just before is not told.
                    return self.plan(slot, now);
                }
                let wait = if file.watched { self.settings.poll_max.max(WATCHED_WAIT) } else { file.wait };
                file.wait = (file.wait * 2).min(self.settings.poll_max);
                wait
            }
            Step::Missing => {
                file.figures.let_go();
                if !std::mem::replace(&mut file.was_there, true) {
                    self.shared.logger.warn("file does not exist, waiting for it", &[("path", (&*file.name).into())]);
                }
                let wait = file.wait;
                file.wait = if lingers { poll_min } else { (wait * 2).min(self.settings.poll_max.max(MISSING_MAX)) };
                wait
            }
            Step::Waits => WAITS,
            Step::Skipped(why) => return self.failed(slot, why),
        };
        self.plan_after(slot, wait);
    }

    /// A file cannot be read. It is tried again.
    fn failed(&mut self, slot: usize, error: String) {
        let Some(file) = &mut self.files[slot] else { return };
        if file.error.is_none() {
            let fields = [("path", (&*file.name).into()), ("err", (&error).into())];
            self.shared.logger.error("failed to read file", &fields);
        }
        if file.error.as_ref() != Some(&error) {
            *file.figures.error.lock() = Some(error.clone());
            self.health_changed = true;
        }
        file.error = Some(error);
        let wait = file.retry;
        file.retry = (wait * 2).min(RETRY_MAX);
        self.plan(slot, Instant::now() + wait);
    }

    /// Hands on what was read from a file.
    fn hand_on(&mut self, slot: usize, chunk: Chunk) {
        let Some(file) = &mut self.files[slot] else { return };
        file.forwarding = true;
        file.forwarding_seen = 0;
        file.unsaved = true;
        file.figures.last_read_ms.store(now_ms(), Ordering::Relaxed);
        file.figures.read_lines.fetch_add(chunk.lines.len() as u64, Ordering::Relaxed);
        let (acks, serial) = self.shared.ledger.push(file.lane, (chunk.piece, chunk.end), chunk.bytes as usize);
        let (shared, settings) = (Arc::clone(&self.shared), Arc::clone(&self.settings));
        let streams = Arc::clone(&file.streams);
        self.forwards.spawn(async move {
            let batch = shared.batch(&chunk, &streams, acks);
            let more = chunk.more;
            drop(chunk);
            let entries = batch.entries.len();
            let outcome = settings.forward.consume(batch).await;
            // Here, because who waits for the outcome may be gone.
            match &outcome {
                Ok(()) => shared.row.received(entries),
                Err(ConsumeError::Refused { .. }) => {
                    shared.row.received(entries);
                    shared.row.dropped("refused", entries);
                }
                // It is read again.
                Err(_) => {}
            }
            Forwarded { slot, more, serial, outcome }
        });
    }

    /// A batch was taken, or refused.
    fn forwarded(&mut self, done: Result<Forwarded, JoinError>) {
        let done = match done {
            Ok(done) => done,
            Err(error) => {
                // Nobody knows whose batch it was: that of each file that still waits for the end of its batch. None is
                // lost, because its acknowledgements failed.
                self.shared.logger.error("a batch could not be handed on", &[("err", error.to_string().into())]);
                self.panicked = true;
                return;
            }
        };
        let Some(file) = &mut self.files[done.slot] else { return };
        file.forwarding = false;
        match done.outcome {
            Ok(()) => {
                self.refusal = None;
                file.refused = 0;
                file.figures.let_go();
            }
            Err(ConsumeError::Refused { reason }) => {
                // It will never be taken.
                file.figures.let_go();
                self.shared.ledger.give_up(done.serial);
                if self.refusal.as_ref() != Some(&reason) {
                    self.shared.logger.error("lines were refused", &[("err", (&reason).into())]);
                    self.refusal = Some(reason);
                }
            }
            Err(error) => {
                let asked = if let ConsumeError::Retry { after, .. } = &error { *after } else { None };
                let wait = RETRY_MIN * 2u32.pow(file.refused.min(4));
                file.refused += 1;
                file.refused_until = Some(Instant::now() + asked.unwrap_or(wait).min(RETRY_MAX));
                let text = error.to_string();
                file.figures.hold(now_ms());
                *file.figures.refusal.lock() = Some(text.clone());
                if self.refusal.as_ref() != Some(&text) {
                    self.shared.logger.warn("lines are not taken, trying again", &[("err", (&text).into())]);
                    self.refusal = Some(text);
                }
            }
        }
        self.hear(done.slot);
        let wait = if done.more { Duration::ZERO } else { self.settings.poll_min };
        self.plan_after(done.slot, wait);
        self.close_if_done(done.slot);
    }

    /// Looks how long files are that are not read from for now, because what was read of them is still on its way: whoever
    /// looks wants to know how far behind they are. A file system that does not answer keeps only the answer.
    fn measure(&mut self) {
        for file in self.files.iter_mut().flatten() {
            file.forwarding_seen = if file.forwarding { file.forwarding_seen.saturating_add(1) } else { 0 };
            let is_held_up = || self.shared.ledger.is_held_up(file.lane, file.figures.is_behind());
            if file.forwarding_seen >= HELD_SEEN_MIN || is_held_up() {
                file.figures.hold(now_ms());
            }
        }
        if self.settings.unpacked.is_some() || self.measuring.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let is_behind = |file: &&FileState| {
            file.forwarding || file.refused_until.is_some() || !self.shared.ledger.has_room(file.lane)
        };
        let behind = self.files.iter().flatten().filter(is_behind).take(MEASURED_MAX);
        let behind: Vec<_> = behind.map(|file| (Arc::clone(&file.name), Arc::clone(&file.figures))).collect();
        self.measuring = (!behind.is_empty()).then(|| {
            tokio::task::spawn_blocking(move || {
                for (name, figures) in behind {
                    if let Ok(metadata) = std::fs::metadata(&*name) {
                        figures.measured(metadata.len());
                    }
                }
            })
        });
    }

    /// Writes positions that changed.
    async fn save(&mut self) {
        let now_ms = now_ms();
        {
            let mut positions = self.shared.positions.lock();
            for file in self.files.iter_mut().flatten().filter(|file| file.unsaved) {
                if let Some(tail) = &mut file.tail {
                    tail.note(&mut positions, now_ms);
                    file.unsaved = false;
                }
            }
            positions.touch(now_ms);
        }
        let positions = Arc::clone(&self.shared.positions);
        let saved = tokio::task::spawn_blocking(move || positions.lock().save()).await;
        let problem = match saved {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("positions cannot be saved: {error}")),
            Err(error) => Some(format!("positions cannot be saved: {error}")),
        };
        if let Some(problem) = problem.as_ref().filter(|problem| self.save_problem.as_ref() != Some(*problem)) {
            self.shared.logger.error("positions cannot be saved", &[("err", problem.into())]);
        }
        self.health_changed |= self.save_problem != problem;
        self.save_problem = problem;
    }

    /// Says how the component is, if that is news.
    fn tell_health(&mut self) {
        if !std::mem::take(&mut self.health_changed) {
            return;
        }
        let mut failing = self.files.iter().flatten().filter_map(|file| Some((&file.name, file.error.as_ref()?)));
        let problem = failing.next().map(|(name, error)| match failing.count() {
            0 => format!("failed to read {name}: {error}"),
            more => format!("failed to read {name}: {error} (and {more} more files)"),
        });
        let problem = self.pattern_problem.clone().or(problem).or_else(|| self.save_problem.clone());
        if problem != self.told_problem {
            self.shared
                .health
                .set_reported(problem.as_ref().map(|problem| Health::now(HealthState::Unhealthy, problem.clone())));
            self.told_problem = problem;
        }
    }

    /// Ends: what is on its way may still become safe, and where reading had come to is saved.
    async fn finish(mut self) {
        let end = Instant::now() + SETTLE_WAIT_MAX;
        for slot in 0..self.files.len() {
            if let Some(leaving) = self.files[slot].as_mut().and_then(|file| file.leaving.as_mut()) {
                leaving.then = None;
            }
            self.leave(slot, false);
        }
        let ledger = Arc::clone(&self.shared.ledger);
        while self.files.iter().any(Option::is_some) {
            tokio::select! {
                biased;
                Some(done) = self.forwards.join_next() => self.forwarded(done),
                Some(done) = self.sweeps.join_next() => if self.all_swept(done).is_err() { break },
                () = ledger.changed() => {}
                () = tokio::time::sleep_until(end) => break,
            }
            self.look_at_ledger();
        }
        self.forwards.shutdown().await;
        for slot in 0..self.files.len() {
            self.close(slot);
        }
        self.save().await;
    }
}

/// Waits for what is being looked for, if anything is.
async fn found(finding: &mut Option<JoinHandle<Found>>) -> Result<Found, String> {
    match finding {
        Some(finding) => finding.await.map_err(|error| format!("looking for files failed: {error}")),
        None => std::future::pending().await,
    }
}

/// Reads a turn from each file, until it is enough.
fn read(shared: &Shared, options: &Options, names: &HashSet<Arc<str>>, due: Vec<(usize, Reader)>) -> Vec<Swept> {
    let world = World {
        now_ms: now_ms(),
        positions: &shared.positions,
        is_target: &|name| names.contains(name),
        options,
        buffers: &shared.buffers,
        unpacking: &shared.unpacking,
    };
    let mut bytes = 0;
    let sweep = due.into_iter().map(|(slot, mut tail)| {
        let step = (bytes < SWEEP_BYTES_MAX).then(|| tail.poll(&world).map_err(|error| io_error_text(&error)));
        if let Some(Ok(Step::Chunk(chunk))) = &step {
            bytes += chunk.bytes;
        }
        Swept { slot, tail, step }
    });
    sweep.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_on_unless_the_clock_was_set_back() {
        let second = CLOCK_SLACK_NS;
        for (count, now, last, first) in [
            (1, 10 * second, 0, 10 * second),
            (3, 10 * second, 5, 10 * second - 2),
            (3, 10 * second, 10 * second - 1, 10 * second),
            (2, 10 * second, 10 * second + 7, 10 * second + 8),
            // A day ahead.
            (2, 10 * second, 86_410 * second, 10 * second - 1),
        ] {
            assert_eq!(first_of(count, now, last), first, "{count} {now} {last}");
        }
    }
}
