//! Reads all files of a component.
//!
//! One task does one thing after the other: it looks for files, reads a turn from those that it found, runs what it read
//! through the operators, and hands on what comes out of them. While that is not taken nothing further is read. How far a
//! file was read moves on when what was handed on is safe.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use corten_component::metrics::{Counter, Gauge};
use corten_component::{Health, HealthBoard, HealthState, Logger, Stop};
use corten_config::encode::Item;
use corten_files::identity::Mark;
use corten_files::io_error_text;
use corten_files::positions::Positions;
use corten_files::tail::{Begin, Buffers, Options, Packing, Reader, Step, Unpacked, Unpacking, World};
use corten_net::Backoff;
use corten_otlp::{Batch, OtlpLogs};
use corten_signal::acks::Window;
use corten_signal::ledger::{Row, reason_of};
use corten_signal::{Acks, ConsumeError, Fanout};
use corten_stanza::{Counts, Entry, Failure, Output, Pipeline};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::resend::SHUTDOWN;
use crate::shown::{attr, block};

use super::entries::{FileInfo, HEADER_BYTES_MAX, Maker, data};
use super::finder::Finder;

/// How many batches of a file may be on their way, and how much text, in bytes.
const BATCHES_MAX: usize = 16;
const FILE_BYTES_MAX: usize = 8 << 20;
/// How many turns are read of the same files before others get theirs.
const TURNS_MAX: usize = 64;
/// How long to wait before what was lost on its way is read again.
const LOST_WAIT: Duration = Duration::from_secs(1);
/// How long what is on its way may take to be safe when the component ends.
const SETTLE_WAIT_MAX: Duration = Duration::from_secs(10);
/// How gzip begins.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// How often positions are written.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// How often the log says that operators fail.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// How files are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    /// Those that begin as such files do.
    Auto,
}

/// How often and how long is tried again what is not taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retry {
    pub(super) initial: Duration,
    pub(super) max: Duration,
    /// After that it is given up; never without.
    pub(super) elapsed_max: Option<Duration>,
}

/// What a set of arguments means.
pub(super) struct Settings {
    pub(super) finder: Finder,
    pub(super) maker: Maker,
    pub(super) options: Options,
    pub(super) compression: Compression,
    pub(super) poll: Duration,
    /// How many files are read at once, and how many times that in one poll; 0 sets no limit.
    pub(super) files_at_once: usize,
    pub(super) groups_max: usize,
    pub(super) deletes: bool,
    pub(super) retry: Retry,
    pub(super) forward: Option<Fanout<OtlpLogs>>,
}

/// What the program is told.
pub(super) struct Metrics {
    pub(super) accepted: Counter,
    pub(super) refused: Counter,
    pub(super) open: Gauge,
    pub(super) reading: Gauge,
}

/// What outlives a failure of the task.
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) positions: Arc<Mutex<Positions>>,
    /// Whether positions are kept over restarts.
    pub(super) saves: bool,
    pub(super) buffers: Buffers,
    pub(super) unpacking: Unpacking,
    pub(super) pipeline: Mutex<Pipeline>,
    pub(super) metrics: Metrics,
    pub(super) row: Arc<Row>,
    pub(super) health: Arc<HealthBoard>,
    pub(super) logger: Logger,
    /// What is told of the files.
    pub(super) told: Arc<Mutex<ToldFiles>>,
    /// Whether files were looked for before: what is found now is new.
    pub(super) has_polled: std::sync::atomic::AtomicBool,
}

impl Shared {
    /// Counts what became of entries in the operators. What came out of them is here until it is sent.
    fn ran(&self, counts: Counts, out: &Output<'_>) {
        let Counts { dropped, joined, copied, kept } = counts;
        for (operator, entries) in dropped {
            self.row.dropped(operator, entries);
        }
        self.row.merged("recombined", joined);
        self.row.created("copied", copied);
        self.row.held(kept + out.entries.len() as i64);
    }
}

/// Entries that leave, and are dropped if it is said why.
struct Leaving<'a> {
    row: &'a Row,
    items: usize,
    why: &'static str,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if !self.why.is_empty() {
            self.row.dropped(self.why, self.items);
        }
        self.row.held(-(self.items as i64));
    }
}

fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

fn now_ms() -> u64 {
    now_ns() / 1_000_000
}

/// What is told of the files that are read.
#[derive(Default)]
pub(super) struct ToldFiles {
    files: usize,
    open: usize,
    unread_bytes: u64,
    /// Those of which the most is unread.
    shown: Vec<ToldFile>,
}

struct ToldFile {
    name: Arc<str>,
    size: u64,
    offset: u64,
    is_open: bool,
    /// How many batches are handed on and not safe yet.
    batches: usize,
    error: Option<String>,
}

/// How many files are told of one by one.
const FILES_TOLD_MAX: usize = 1000;
/// How often what is told is brought up to date.
const TOLD_EVERY: Duration = Duration::from_secs(1);

impl ToldFile {
    fn unread_bytes(&self) -> u64 {
        self.size.saturating_sub(self.offset)
    }
}

impl ToldFiles {
    pub(super) fn tell(&self, row: &Row) -> Vec<Item> {
        let mut items = vec![
            attr("files", self.files as u64),
            attr("open_files", self.open as u64),
            attr("unread_bytes", self.unread_bytes),
            attr("pending_entries", row.snapshot().held),
        ];
        items.extend(self.shown.iter().map(|file| {
            let mut body = vec![
                attr("path", &*file.name),
                attr("is_open", file.is_open),
                attr("size_bytes", file.size),
                attr("read_offset", file.offset),
                attr("unread_bytes", file.unread_bytes()),
                attr("unsafe_batches", file.batches as u64),
            ];
            body.extend(file.error.as_deref().map(|error| attr("error", error)));
            block("file", body)
        }));
        items
    }
}

/// What was read and is not safe yet.
struct Sent {
    number: u64,
    /// Where it ends; nothing was read if there is no place.
    end: Option<(u32, Mark)>,
    /// How many entries there were before it, and whether the header went on.
    records: i64,
    in_header: bool,
}

/// A file that is read.
struct FileState {
    name: Arc<str>,
    /// Made when it is read from for the first time; away meanwhile.
    reader: Option<Reader>,
    /// What is known of the files that have or had the name.
    pieces: HashMap<u32, FileInfo>,
    window: Window<u64>,
    sent: VecDeque<Sent>,
    numbers: u64,
    unsaved: bool,
    /// What was lost is read again then.
    lost_until: Option<Instant>,
    error: Option<String>,
    found: bool,
    is_open: bool,
}

/// What a turn found.
struct Turn {
    slot: usize,
    reader: Option<Reader>,
    acks: Acks,
    outcome: Result<Step, String>,
    /// What is known of the file of what was read, if that is new.
    info: Option<FileInfo>,
}

struct Manager {
    shared: Arc<Shared>,
    files: Vec<FileState>,
    /// Those that were found last.
    names: Arc<HashSet<Arc<str>>>,
    /// What is wrong with patterns, or with keeping positions.
    problem: Option<String>,
    told: Option<String>,
    saved_at: Instant,
    /// When it was told last how far files were read.
    told_at: Option<Instant>,
    failures: Failures,
}

/// Operators that failed, for the log.
struct Failures {
    logger: Logger,
    told_at: Option<Instant>,
    untold: u64,
}

impl Failures {
    fn tell(&mut self, failure: &Failure<'_>) {
        let fields = [
            ("operator_id", failure.operator.into()),
            ("operator_type", failure.kind.into()),
            ("action", failure.action.as_str().into()),
            ("err", (&failure.error).into()),
        ];
        if failure.action.is_quiet() {
            self.logger.debug("failed to process entry", &fields);
            return;
        }
        if self.told_at.is_some_and(|at| at.elapsed() < TELL_EVERY) {
            self.untold += 1;
            return;
        }
        self.told_at = Some(Instant::now());
        let untold = std::mem::take(&mut self.untold);
        let [id, kind, action, error] = fields;
        let more = ("more_since_last", (untold as i64).into());
        self.logger.error("failed to process entry", &[id, kind, action, error, more]);
    }
}

/// Reads files until it is stopped.
pub(super) async fn run(shared: Arc<Shared>, mut stop: Stop) -> Result<(), String> {
    // Of an earlier run that failed.
    shared.positions.lock().let_all_go();
    let logger = shared.logger.clone();
    let mut manager = Manager {
        shared,
        files: Vec::new(),
        names: Arc::default(),
        problem: None,
        told: None,
        saved_at: Instant::now(),
        told_at: None,
        failures: Failures { logger, told_at: None, untold: 0 },
    };
    let outcome = manager.work(&mut stop).await;
    manager.finish().await;
    outcome
}

impl Manager {
    async fn work(&mut self, stop: &mut Stop) -> Result<(), String> {
        let mut next = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = stop.wait() => return Ok(()),
                () = tokio::time::sleep_until(next) => {}
            }
            next = Instant::now() + self.shared.settings.poll;
            self.poll(stop).await?;
        }
    }

    async fn poll(&mut self, stop: &mut Stop) -> Result<(), String> {
        let shared = Arc::clone(&self.shared);
        let found = tokio::task::spawn_blocking(move || shared.settings.finder.find(SystemTime::now())).await;
        let (names, problem) = found.map_err(|error| format!("looking for files failed: {error}"))?;
        self.problem = problem;
        self.reconcile(&names);
        let order: Vec<usize> = self.order(&names);
        let settings = &self.shared.settings;
        let at_once = settings.files_at_once.max(1);
        let groups_max = if settings.groups_max == 0 { usize::MAX } else { settings.groups_max };
        for group in order.chunks(at_once).take(groups_max) {
            let mut group = group.to_vec();
            for _ in 0..TURNS_MAX {
                group = self.turn(group, stop).await?;
                if group.is_empty() || stop.is_set() {
                    break;
                }
            }
        }
        self.shared.has_polled.store(true, std::sync::atomic::Ordering::Relaxed);
        self.flush(false, stop).await;
        self.hear();
        self.note();
        self.clear_away();
        if self.saved_at.elapsed() >= SAVE_EVERY {
            self.save().await;
        }
        self.tell();
        Ok(())
    }

    /// Begins with files that are new.
    fn reconcile(&mut self, names: &[String]) {
        let known: HashMap<Arc<str>, usize> =
            self.files.iter().enumerate().map(|(at, file)| (Arc::clone(&file.name), at)).collect();
        self.files.iter_mut().for_each(|file| file.found = false);
        for name in names {
            if let Some(at) = known.get(&**name) {
                self.files[*at].found = true;
                continue;
            }
            let name: Arc<str> = name.as_str().into();
            self.shared.logger.info("started watching file", &[("path", (&*name).into())]);
            self.files.push(FileState {
                reader: None,
                name,
                pieces: HashMap::new(),
                window: Window::new(BATCHES_MAX, FILE_BYTES_MAX),
                sent: VecDeque::new(),
                numbers: 0,
                unsaved: true,
                lost_until: None,
                error: None,
                found: true,
                is_open: false,
            });
        }
        let found = self.files.iter().filter(|file| file.found);
        self.names = Arc::new(found.map(|file| Arc::clone(&file.name)).collect());
    }

    /// The files in the order in which they were found; those that are gone first: their lines are older.
    fn order(&self, names: &[String]) -> Vec<usize> {
        let places: HashMap<&str, usize> = names.iter().enumerate().map(|(at, name)| (&**name, at)).collect();
        let mut order: Vec<usize> = (0..self.files.len()).collect();
        order.sort_by_key(|at| places.get(&*self.files[*at].name).map_or(0, |place| place + 1));
        order
    }

    /// Reads a turn from files, and hands on what was read; those of which there is more.
    async fn turn(&mut self, group: Vec<usize>, stop: &mut Stop) -> Result<Vec<usize>, String> {
        self.hear();
        let now = Instant::now();
        let turn_bytes = self.shared.settings.options.turn_bytes;
        let mut due = Vec::new();
        for slot in group {
            let file = &mut self.files[slot];
            if file.lost_until.is_some_and(|until| until > now) {
                continue;
            }
            file.lost_until = None;
            // Its place is taken before anything is read.
            let Some(acks) = file.window.try_push(file.numbers, turn_bytes) else { continue };
            let known: HashSet<u32> = file.pieces.keys().copied().collect();
            due.push(Due { slot, name: Arc::clone(&file.name), reader: file.reader.take(), acks, known });
        }
        if due.is_empty() {
            return Ok(Vec::new());
        }
        self.shared.metrics.reading.set(due.len() as f64);
        let names = Arc::clone(&self.names);
        let shared = Arc::clone(&self.shared);
        let turns = tokio::task::spawn_blocking(move || read(&shared, &names, due)).await;
        self.shared.metrics.reading.set(0.0);
        let turns = turns.map_err(|error| format!("reading failed: {error}"))?;
        let mut more = Vec::new();
        for turn in turns {
            let slot = turn.slot;
            if self.took(turn, stop).await {
                more.push(slot);
            }
        }
        Ok(more)
    }

    /// Goes on with a file that was read from; whether there is more.
    async fn took(&mut self, turn: Turn, stop: &mut Stop) -> bool {
        let Turn { slot, reader, acks, outcome, info } = turn;
        let file = &mut self.files[slot];
        file.is_open = reader.as_ref().is_some_and(Reader::is_open);
        file.reader = reader;
        let number = file.numbers;
        file.numbers += 1;
        let (chunk, more) = match outcome {
            Ok(Step::Chunk(chunk)) => {
                let more = chunk.more;
                (chunk, more)
            }
            other => {
                acks.safe();
                file.sent.push_back(Sent { number, end: None, records: 0, in_header: false });
                match other {
                    Ok(Step::More) => return true,
                    Ok(_) => file.error = None,
                    Err(error) => {
                        if file.error.as_ref() != Some(&error) {
                            let fields = [("path", (&*file.name).into()), ("err", (&error).into())];
                            self.shared.logger.error("failed to read file", &fields);
                        }
                        file.error = Some(error);
                    }
                }
                return false;
            }
        };
        file.error = None;
        file.unsaved = true;
        if let Some(info) = info {
            // Files that had the name long ago are of no interest any more.
            let oldest = chunk.piece.saturating_sub(corten_files::tail::OLD_MAX as u32 * 2);
            file.pieces.retain(|piece, _| *piece >= oldest);
            file.pieces.insert(chunk.piece, info);
        }
        let info = file.pieces.entry(chunk.piece).or_default();
        let (records, in_header) = (info.records, info.in_header);
        file.sent.push_back(Sent { number, end: Some((chunk.piece, chunk.end)), records, in_header });
        let (entries, kept) = {
            let failures = &mut self.failures;
            let mut tell = |failure: Failure<'_>| failures.tell(&failure);
            let (entries, empty) = self.shared.settings.maker.entries(&chunk, info, now_ns(), &mut tell);
            self.shared.row.received(entries.len() + empty);
            self.shared.row.dropped("empty", empty);
            let mut out = Output { on_failure: Some(&mut tell), ..Output::default() };
            let mut pipeline = self.shared.pipeline.lock();
            pipeline.run(entries, &acks, &mut out);
            self.shared.ran(pipeline.take_counts(), &out);
            drop(pipeline);
            (out.entries, out.acks)
        };
        drop(chunk);
        let mut acks = acks;
        acks.join(kept);
        self.send(entries, acks, stop).await;
        more
    }

    /// Sends on what operators have kept for too long, or all of it.
    async fn flush(&mut self, all: bool, stop: &mut Stop) {
        let (entries, acks) = {
            let failures = &mut self.failures;
            let mut tell = |failure: Failure<'_>| failures.tell(&failure);
            let mut out = Output { on_failure: Some(&mut tell), ..Output::default() };
            let mut pipeline = self.shared.pipeline.lock();
            pipeline.flush(now_ns(), all, &mut out);
            self.shared.ran(pipeline.take_counts(), &out);
            drop(pipeline);
            (out.entries, out.acks)
        };
        self.send(entries, acks, stop).await;
    }

    /// Hands on entries, until they are taken or given up.
    async fn send(&mut self, entries: Vec<Entry>, acks: Acks, stop: &mut Stop) {
        // It may take long.
        self.tell_of_files();
        let shared = &self.shared;
        let mut leaving = Leaving { row: &shared.row, items: entries.len(), why: "failed" };
        let Some(forward) = shared.settings.forward.as_ref().filter(|_| !entries.is_empty()) else {
            leaving.why = "no receiver";
            return acks.safe();
        };
        let retry = shared.settings.retry;
        let (began, items) = (Instant::now(), entries.len() as u64);
        let mut batch = Batch::of(data(&entries), Arc::default());
        batch.acks = acks;
        drop(entries);
        let mut waits = Backoff::new(retry.initial, retry.max);
        let mut told = false;
        loop {
            let Err(error) = forward.offer(&batch).await else {
                leaving.why = "";
                shared.metrics.accepted.add(items);
                return batch.acks.safe();
            };
            let fields = [("err", error.to_string().into()), ("dropped_items", (items as i64).into())];
            let asked = match error {
                ConsumeError::Refused { .. } => {
                    leaving.why = reason_of(&error);
                    shared.metrics.refused.add(items);
                    shared.logger.error("ConsumeLogs() failed", &fields);
                    return batch.acks.safe();
                }
                ConsumeError::Retry { after, .. } => after,
                ConsumeError::Exited { .. } => None,
            };
            if retry.elapsed_max.is_some_and(|max| began.elapsed() >= max) {
                leaving.why = "max elapsed time";
                shared.metrics.refused.add(items);
                shared.logger.error("max elapsed time expired, the records are dropped", &fields);
                return batch.acks.safe();
            }
            if !std::mem::replace(&mut told, true) {
                shared.logger.warn("records are not taken, trying again", &fields[..1]);
            }
            tokio::select! {
                biased;
                // They are read again at the next start.
                () = stop.wait() => {
                    leaving.why = SHUTDOWN;
                    return batch.acks.fail();
                }
                () = tokio::time::sleep(waits.next_wait_after(asked)) => {}
            }
        }
    }

    /// Takes notice of what became of what was handed on.
    fn hear(&mut self) {
        let now = Instant::now();
        let mut lost = false;
        for file in &mut self.files {
            let Some(reader) = &mut file.reader else { continue };
            if let Some(to) = file.window.settled_to() {
                while file.sent.front().is_some_and(|sent| sent.number <= to) {
                    if let Some(Sent { end: Some((piece, mark)), .. }) = file.sent.pop_front() {
                        reader.settle(piece, mark);
                        file.unsaved = true;
                    }
                }
            }
            if file.window.has_failed() {
                file.window.reset();
                // Each of the files begins again where nothing is safe any more.
                for sent in file.sent.drain(..).rev() {
                    if let Some(info) = sent.end.and_then(|(piece, _)| file.pieces.get_mut(&piece)) {
                        (info.records, info.in_header) = (sent.records, sent.in_header);
                    }
                }
                reader.rewind();
                file.lost_until = Some(now + LOST_WAIT);
                lost = true;
            }
        }
        if lost {
            // What operators keep of what is read again would be there twice. That of other files is read again, too.
            let mut out = Output::default();
            let mut pipeline = self.shared.pipeline.lock();
            pipeline.flush(0, true, &mut out);
            self.shared.ran(pipeline.take_counts(), &out);
            drop(pipeline);
            drop(Leaving { row: &self.shared.row, items: out.entries.len(), why: "read again" });
            out.acks.fail();
        }
    }

    /// Forgets files that are gone, and deletes those that are to be deleted.
    fn clear_away(&mut self) {
        let shared = Arc::clone(&self.shared);
        let mut open = 0;
        self.files.retain_mut(|file| {
            let is_idle = file.window.is_empty() && file.sent.iter().all(|sent| sent.end.is_none());
            let Some(reader) = &file.reader else { return file.found };
            open += usize::from(file.is_open);
            if shared.settings.deletes && file.found && is_idle && reader.is_done() && reader.size() > 0 {
                match std::fs::remove_file(&*file.name) {
                    Ok(()) => shared.logger.debug("deleted file", &[("path", (&*file.name).into())]),
                    Err(error) => {
                        let fields = [("path", (&*file.name).into()), ("err", io_error_text(&error).into())];
                        shared.logger.error("could not delete", &fields);
                    }
                }
            }
            // What is there and no longer to be read is let go of; what is gone is read to its end before.
            let is_over = is_idle && !reader.lingers() && (!file.is_open || Path::new(&*file.name).exists());
            if file.found || !is_over {
                return true;
            }
            if let Some(reader) = file.reader.take() {
                reader.close(&mut shared.positions.lock(), now_ms());
            }
            false
        });
        self.shared.metrics.open.set(open as f64);
    }

    /// Notes how far files were read: by this they are known again under other names, and when they are compressed.
    fn note(&mut self) {
        let now_ms = now_ms();
        let mut positions = self.shared.positions.lock();
        for file in self.files.iter_mut().filter(|file| file.unsaved) {
            if let Some(reader) = &mut file.reader {
                reader.note(&mut positions, now_ms);
                file.unsaved = false;
            }
        }
        positions.touch(now_ms);
    }

    /// Writes positions that changed.
    async fn save(&mut self) {
        self.saved_at = Instant::now();
        self.note();
        if !self.shared.saves {
            return;
        }
        let positions = Arc::clone(&self.shared.positions);
        let saved = tokio::task::spawn_blocking(move || positions.lock().save()).await;
        let error = match saved {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        let problem = format!("positions cannot be saved: {error}");
        if self.problem.as_ref() != Some(&problem) && self.told.as_ref() != Some(&problem) {
            self.shared.logger.error("save offsets", &[("err", error.into())]);
        }
        self.problem = self.problem.take().or(Some(problem));
    }

    /// Brings what is told of files up to date.
    fn tell_of_files(&mut self) {
        if self.told_at.is_some_and(|at| at.elapsed() < TOLD_EVERY) {
            return;
        }
        self.told_at = Some(Instant::now());
        let told = |file: &FileState| {
            let (size, offset) = file.reader.as_ref().map_or((0, 0), |reader| (reader.size(), reader.offset()));
            let batches = file.sent.iter().filter(|sent| sent.end.is_some()).count();
            let (name, error) = (Arc::clone(&file.name), file.error.clone());
            ToldFile { name, size, offset, is_open: file.is_open, batches, error }
        };
        let mut shown: Vec<ToldFile> = self.files.iter().map(told).collect();
        let unread_bytes = shown.iter().map(ToldFile::unread_bytes).sum();
        let (files, open) = (shown.len(), shown.iter().filter(|file| file.is_open).count());
        shown.sort_by_key(|file| std::cmp::Reverse(file.unread_bytes()));
        shown.truncate(FILES_TOLD_MAX);
        *self.shared.told.lock() = ToldFiles { files, open, unread_bytes, shown };
    }

    /// Says how the component is, if that is news.
    fn tell(&mut self) {
        self.tell_of_files();
        let mut failing = self.files.iter().filter_map(|file| Some((&file.name, file.error.as_ref()?)));
        let problem = failing.next().map(|(name, error)| match failing.count() {
            0 => format!("failed to read {name}: {error}"),
            more => format!("failed to read {name}: {error} (and {more} more files)"),
        });
        let problem = self.problem.clone().or(problem);
        if problem != self.told {
            let health = problem.as_ref().map(|problem| Health::now(HealthState::Unhealthy, problem.clone()));
            self.shared.health.set_reported(health);
            self.told = problem;
        }
    }

    /// Ends: what is on its way may still become safe, and where reading had come to is kept.
    async fn finish(mut self) {
        let (stopper, mut stopped) = Stop::pair();
        stopper.stop();
        self.flush(true, &mut stopped).await;
        let end = Instant::now() + SETTLE_WAIT_MAX;
        for file in &mut self.files {
            file.window.settle(end.saturating_duration_since(Instant::now())).await;
        }
        self.hear();
        let now_ms = now_ms();
        {
            let mut positions = self.shared.positions.lock();
            for file in &mut self.files {
                if let Some(reader) = file.reader.take() {
                    reader.close(&mut positions, now_ms);
                }
            }
        }
        self.save().await;
        self.shared.metrics.open.set(0.0);
    }
}

/// What is to be read.
struct Due {
    slot: usize,
    name: Arc<str>,
    reader: Option<Reader>,
    /// Goes with what is read.
    acks: Acks,
    /// Which files of the name are known.
    known: HashSet<u32>,
}

/// What reads a file for the first time; nothing while it cannot be told how it is compressed.
fn reader_of(name: &Arc<str>, compression: Compression) -> Option<Reader> {
    let gzip = Unpacked { packing: Packing::Gzip, delay_ms: 0 };
    let unpacked = match compression {
        Compression::None => None,
        Compression::Gzip => Some(gzip),
        Compression::Auto => {
            let mut first = [0; 2];
            File::open(&**name).ok()?.read_exact(&mut first).ok()?;
            (first == GZIP).then_some(gzip)
        }
    };
    Some(Reader::new(Arc::clone(name), Arc::default(), unpacked))
}

/// Reads a turn from each file.
fn read(shared: &Shared, names: &HashSet<Arc<str>>, due: Vec<Due>) -> Vec<Turn> {
    let has_polled = shared.has_polled.load(std::sync::atomic::Ordering::Relaxed);
    let mut options = shared.settings.options.clone();
    if has_polled {
        // What was not there when files were looked for first is new as a whole.
        options.unknown = Begin::Beginning;
    }
    let world = World {
        now_ms: now_ms(),
        positions: &shared.positions,
        is_target: &|name| names.contains(name),
        options: &options,
        buffers: &shared.buffers,
        unpacking: &shared.unpacking,
    };
    let turns = due.into_iter().map(|Due { slot, name, reader, acks, known }| {
        let reader = reader.or_else(|| reader_of(&name, shared.settings.compression));
        let Some(mut reader) = reader else {
            return Turn { slot, reader, acks, outcome: Ok(Step::Quiet), info: None };
        };
        let mut outcome = reader.poll(&world).map_err(|error| io_error_text(&error));
        let mut info = None;
        if let Ok(Step::Chunk(chunk)) = &outcome
            && !known.contains(&chunk.piece)
        {
            let offset = chunk.end.offset.saturating_sub(chunk.bytes);
            let first = || reader.first_bytes(chunk.piece, HEADER_BYTES_MAX).unwrap_or_default();
            match shared.settings.maker.info(&name, reader.file(chunk.piece), offset, first) {
                Ok(new) => info = Some(new),
                Err(error) => {
                    // It is read again when that is known.
                    reader.rewind();
                    outcome = Err(error);
                }
            }
        }
        Turn { slot, reader: Some(reader), acks, outcome, info }
    });
    turns.collect()
}
