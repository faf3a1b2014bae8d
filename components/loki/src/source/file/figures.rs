//! What the component tells of each of its files.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use corten_component::DebugInfo;
use corten_component::log::rfc3339;
use corten_component::metrics::{Collect, Counter, Gauge, Kind, Registry, Snapshot, Value};
use corten_component::targets::{FileProgress, LastTime, ShownTarget, TargetState, TargetView};
use corten_config::Value as ConfigValue;
use corten_config::encode::Item;
use corten_files::tail::Counts;
use corten_signal::Stream;
use corten_signal::target::Target;
use parking_lot::Mutex;

use super::targets::{Aside, Finder, labels_of};

/// The figures of a file.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) read_bytes: AtomicU64,
    pub(super) file_bytes: AtomicU64,
    pub(super) read_lines: AtomicU64,
    /// When lines were read last, in milliseconds since the Unix epoch; 0 before the first.
    pub(super) last_read_ms: AtomicU64,
    /// Why it cannot be read.
    pub(super) error: Mutex<Option<String>>,
    /// Since when nothing more is read because what was read is not taken, in milliseconds since the Unix epoch; 0 where it is.
    pub(super) held_since_ms: AtomicU64,
    /// Why what was read was not taken.
    pub(super) refusal: Mutex<Option<String>>,
    /// The number of the target that wants it.
    pub(super) target: AtomicU32,
    /// It is compressed: what was read of it is more than it is long.
    is_packed: AtomicBool,
    is_open: AtomicBool,
    seen: AtomicU8,
    streams: Mutex<Arc<[Stream]>>,
}

/// What was found at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum SeenAs {
    /// It was not looked at yet.
    Nothing,
    /// A file that is read.
    File,
    /// There is none.
    Missing,
    /// A file that is read to its end under the name that it had before.
    Other,
}

impl Figures {
    /// The file was found to be as long as this while it is not read from.
    pub(super) fn measured(&self, bytes: u64) {
        // Under its name may be another file, which is shorter.
        self.file_bytes.fetch_max(bytes, Ordering::Relaxed);
    }

    /// This was found at its path.
    pub(super) fn set_seen(&self, seen: SeenAs) {
        self.seen.store(seen as u8, Ordering::Relaxed);
    }

    fn has_seen(&self, seen: SeenAs) -> bool {
        self.seen.load(Ordering::Relaxed) == seen as u8
    }

    /// What was read is not taken: it waits from now on, if it did not before.
    pub(super) fn hold(&self, now_ms: u64) {
        let _ = self.held_since_ms.compare_exchange(0, now_ms, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// What was read is taken, or will never be.
    pub(super) fn let_go(&self) {
        self.held_since_ms.store(0, Ordering::Relaxed);
        *self.refusal.lock() = None;
    }

    /// Whether there is more of it than was read.
    pub(super) fn is_behind(&self) -> bool {
        self.file_bytes.load(Ordering::Relaxed) > self.read_bytes.load(Ordering::Relaxed)
    }

    fn progress(&self) -> FileProgress {
        let offset_bytes = self.read_bytes.load(Ordering::Relaxed);
        let size_bytes = self.file_bytes.load(Ordering::Relaxed);
        let is_packed = self.is_packed.load(Ordering::Relaxed);
        FileProgress {
            offset_bytes,
            size_bytes,
            behind_bytes: (!is_packed).then(|| size_bytes.saturating_sub(offset_bytes)),
            lines: self.read_lines.load(Ordering::Relaxed),
        }
    }

    /// Why it is not read on, since when, if it is not.
    fn held(&self) -> Option<(SystemTime, String)> {
        let since = self.held_since_ms.load(Ordering::Relaxed);
        let why = || match &*self.refusal.lock() {
            Some(refusal) => format!("what was read is not taken: {refusal}"),
            None => "what was read is not taken yet by the components that it goes to".to_owned(),
        };
        (since > 0).then(|| (UNIX_EPOCH + Duration::from_millis(since), why()))
    }

    /// What is wrong with it, or else what else there is to know.
    fn why(&self) -> Option<String> {
        if let Some(error) = &*self.error.lock() {
            return Some(error.clone());
        }
        if self.has_seen(SeenAs::Missing) {
            return Some("there is no such file, waiting for it".to_owned());
        }
        if self.has_seen(SeenAs::Other) {
            return Some("the file is still read under the name that it had before".to_owned());
        }
        self.held().map(|(_, why)| why)
    }

    fn state(&self) -> TargetState {
        if self.error.lock().is_some() || self.has_seen(SeenAs::Missing) {
            return TargetState::Down;
        }
        if self.has_seen(SeenAs::File) { TargetState::Up } else { TargetState::Unknown }
    }

    /// The lines of the file are entries of these streams.
    pub(super) fn set_streams(&self, streams: Arc<[Stream]>) {
        *self.streams.lock() = streams;
    }
}

/// What was looked for last, and what was found and is not read.
#[derive(Default)]
struct Search {
    finder: Option<Arc<Finder>>,
    aside: Vec<Arc<ShownAside>>,
    /// Why none is read.
    refused: Option<String>,
    /// What the user calls the encoding of the files.
    encoding: String,
}

/// The figures of all files, and what happened to all of them together.
pub(super) struct AllFigures {
    files: Mutex<HashMap<Arc<str>, Arc<Figures>>>,
    search: Mutex<Search>,
    active: Gauge,
    rotated: Counter,
    truncated: Counter,
    recovered: Counter,
}

impl AllFigures {
    pub(super) fn new(registry: &Registry) -> Arc<Self> {
        let all = Arc::new(AllFigures {
            files: Mutex::default(),
            search: Mutex::default(),
            active: registry.gauge("loki_source_file_files_active_total", "Number of active files."),
            rotated: registry
                .counter("corten_loki_source_file_rotations_total", "How often a path went to another file, or away."),
            truncated: registry.counter(
                "corten_loki_source_file_truncations_total",
                "How often a file was cut, or had another content all of a sudden.",
            ),
            recovered: registry.counter(
                "corten_loki_source_file_recovered_copies_total",
                "How often the rest of a file that was cut was found in a copy of it.",
            ),
        });
        let collects: Arc<dyn Collect> = Arc::clone(&all) as Arc<dyn Collect>;
        registry.collect(Arc::downgrade(&collects));
        all
    }

    /// The figures of a file that is read from now on.
    pub(super) fn begin(&self, name: &Arc<str>, is_packed: bool) -> Arc<Figures> {
        let figures = Arc::clone(self.files.lock().entry(Arc::clone(name)).or_default());
        figures.is_packed.store(is_packed, Ordering::Relaxed);
        figures.set_seen(SeenAs::Nothing);
        figures
    }

    /// This was looked for, and this was found and is not read.
    pub(super) fn searched(&self, finder: &Arc<Finder>, encoding: &str, aside: Vec<Aside>, refused: Option<&String>) {
        let aside = aside.into_iter().map(|aside| Arc::new(ShownAside(aside))).collect();
        let (finder, encoding, refused) = (Some(Arc::clone(finder)), encoding.to_owned(), refused.cloned());
        *self.search.lock() = Search { finder, aside, refused, encoding };
    }

    /// The file is read no more.
    pub(super) fn end(&self, name: &str) {
        self.files.lock().remove(name);
    }

    /// Whether the file is open; whether that is news.
    pub(super) fn set_open(&self, figures: &Figures, is_open: bool) -> bool {
        let was_open = figures.is_open.swap(is_open, Ordering::Relaxed);
        if was_open != is_open {
            self.active.add(if is_open { 1.0 } else { -1.0 });
        }
        was_open != is_open
    }

    /// Adds what happened to a file since it was asked last.
    pub(super) fn add(&self, now: Counts, before: Counts) {
        self.rotated.add(now.rotated - before.rotated);
        self.truncated.add(now.truncated - before.truncated);
        self.recovered.add(now.recovered - before.recovered);
    }
}

impl DebugInfo for AllFigures {
    fn debug_info(&self) -> Vec<Item> {
        let attr = |name: &str, value: ConfigValue| Item::Attr { name: name.to_owned(), value };
        let encoding = self.search.lock().encoding.clone();
        let files = self.files.lock();
        let mut files: Vec<(&Arc<str>, &Arc<Figures>)> = files.iter().collect();
        files.sort_by(|a, b| a.0.cmp(b.0));
        let mut items = Vec::new();
        for (name, figures) in files {
            let progress = figures.progress();
            let last_read_ms = figures.last_read_ms.load(Ordering::Relaxed);
            for stream in &**figures.streams.lock() {
                let mut body = vec![
                    attr("path", ConfigValue::string(&**name)),
                    attr("labels", ConfigValue::string(stream.canonical())),
                    attr("is_running", ConfigValue::from(figures.is_open.load(Ordering::Relaxed))),
                    attr("read_offset", ConfigValue::from(progress.offset_bytes)),
                    attr("file_size", ConfigValue::from(progress.size_bytes)),
                ];
                if let Some(behind) = progress.behind_bytes {
                    body.push(attr("lag_bytes", ConfigValue::from(behind)));
                }
                body.push(attr("read_lines", ConfigValue::from(progress.lines)));
                if !encoding.is_empty() {
                    body.push(attr("encoding", ConfigValue::from(encoding.as_str())));
                }
                if last_read_ms > 0 {
                    let at = UNIX_EPOCH + Duration::from_millis(last_read_ms);
                    body.push(attr("last_read_at", ConfigValue::from(rfc3339(at))));
                }
                if let Some((since, why)) = figures.held() {
                    body.push(attr("held_up_since", ConfigValue::from(rfc3339(since))));
                    body.push(attr("held_up_by", ConfigValue::from(why)));
                }
                if let Some(error) = figures.error.lock().clone() {
                    body.push(attr("last_error", ConfigValue::from(error)));
                } else if figures.has_seen(SeenAs::Missing) {
                    body.extend(figures.why().map(|why| attr("last_error", ConfigValue::from(why))));
                }
                items.push(Item::Block { name: "targets_info".to_owned(), label: None, body });
            }
        }
        items
    }

    fn targets(&self) -> Option<&dyn TargetView> {
        Some(self)
    }
}

/// What is not read.
#[derive(Debug)]
struct ShownAside(Aside);

impl ShownTarget for ShownAside {
    fn state(&self) -> TargetState {
        self.0.state
    }

    fn url(&self) -> &str {
        &self.0.path
    }

    fn discovered(&self) -> &Target {
        &self.0.target
    }

    fn labels(&self) -> Option<&Target> {
        None
    }

    fn last(&self) -> LastTime {
        LastTime { error: Some(self.0.why.clone()), ..LastTime::default() }
    }
}

/// A file that is read for a target.
struct ShownFile {
    path: Arc<str>,
    target: Target,
    /// Nothing where it is not read, for a reason that holds for all.
    figures: Result<Arc<Figures>, Option<String>>,
    /// Made when somebody looks.
    labels: OnceLock<Option<Target>>,
}

impl ShownTarget for ShownFile {
    fn state(&self) -> TargetState {
        match &self.figures {
            Ok(figures) => figures.state(),
            Err(Some(_)) => TargetState::Refused,
            Err(None) => TargetState::Unknown,
        }
    }

    fn url(&self) -> &str {
        &self.path
    }

    fn discovered(&self) -> &Target {
        &self.target
    }

    fn labels(&self) -> Option<&Target> {
        self.labels.get_or_init(|| labels_of(&self.target, &self.path)).as_ref()
    }

    fn last(&self) -> LastTime {
        let Ok(figures) = &self.figures else {
            return LastTime { error: self.figures.as_ref().err().cloned().flatten(), ..LastTime::default() };
        };
        let last_read_ms = figures.last_read_ms.load(Ordering::Relaxed);
        LastTime {
            at: (last_read_ms > 0).then(|| UNIX_EPOCH + Duration::from_millis(last_read_ms)),
            error: figures.why(),
            ..LastTime::default()
        }
    }

    fn file(&self) -> Option<FileProgress> {
        let figures = self.figures.as_ref().ok()?;
        // Of what was never there nothing is known.
        (figures.is_open.load(Ordering::Relaxed) || figures.last_read_ms.load(Ordering::Relaxed) > 0)
            .then(|| figures.progress())
    }
}

impl TargetView for AllFigures {
    fn targets(&self) -> Vec<Arc<dyn ShownTarget>> {
        let search = self.search.lock();
        let Some(finder) = &search.finder else { return Vec::new() };
        let files = self.files.lock();
        let mut targets: Vec<Arc<dyn ShownTarget>> = Vec::with_capacity(files.len() + search.aside.len());
        let shown = |path: &Arc<str>, target: &Target, figures: Option<&Arc<Figures>>| {
            let figures = figures.cloned().ok_or_else(|| search.refused.clone());
            let (path, target, labels) = (Arc::clone(path), target.clone(), OnceLock::new());
            Arc::new(ShownFile { path, target, figures, labels }) as Arc<dyn ShownTarget>
        };
        match finder.paths() {
            // Each target is shown, also if another one wants the same file.
            Some(paths) => targets.extend(paths.map(|(target, path)| match files.get_key_value(path) {
                Some((path, figures)) => shown(path, target, Some(figures)),
                None => shown(&path.into(), target, None),
            })),
            None => targets.extend(files.iter().filter_map(|(path, figures)| {
                let target = finder.target(figures.target.load(Ordering::Relaxed))?;
                Some(shown(path, target, Some(figures)))
            })),
        }
        // What is old and read all the same is shown as what is read.
        let aside = search.aside.iter().filter(|aside| {
            let aside = &aside.0;
            aside.state == TargetState::Refused || !files.contains_key(&*aside.path)
        });
        targets.extend(aside.map(|aside| Arc::clone(aside) as Arc<dyn ShownTarget>));
        targets
    }
}

impl Collect for AllFigures {
    fn collect(&self, into: &mut Snapshot) {
        let path: Arc<str> = "path".into();
        for (name, figures) in &*self.files.lock() {
            let mut add = |family: &str, help: &str, kind, value: &AtomicU64| {
                let labels = vec![(Arc::clone(&path), Arc::clone(name))];
                into.add_shared(family, help, kind, labels, Value::Number(value.load(Ordering::Relaxed) as f64));
            };
            add("loki_source_file_read_bytes_total", "Number of bytes read.", Kind::Gauge, &figures.read_bytes);
            add("loki_source_file_file_bytes_total", "Number of bytes total.", Kind::Gauge, &figures.file_bytes);
            add("loki_source_file_read_lines_total", "Number of lines read.", Kind::Counter, &figures.read_lines);
        }
    }
}
