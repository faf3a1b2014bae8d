//! What the component tells of each of its files.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use corten_component::DebugInfo;
use corten_component::metrics::{Collect, Counter, Gauge, Kind, Registry, Snapshot, Value};
use corten_config::Value as ConfigValue;
use corten_config::encode::Item;
use corten_files::tail::Counts;
use corten_signal::Stream;
use parking_lot::Mutex;

/// The figures of a file.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) read_bytes: AtomicU64,
    pub(super) file_bytes: AtomicU64,
    pub(super) read_lines: AtomicU64,
    is_open: AtomicBool,
    streams: Mutex<Arc<[Stream]>>,
}

impl Figures {
    /// The lines of the file are entries of these streams.
    pub(super) fn set_streams(&self, streams: Arc<[Stream]>) {
        *self.streams.lock() = streams;
    }
}

/// The figures of all files, and what happened to all of them together.
pub(super) struct AllFigures {
    files: Mutex<HashMap<Arc<str>, Arc<Figures>>>,
    active: Gauge,
    rotated: Counter,
    truncated: Counter,
    recovered: Counter,
}

impl AllFigures {
    pub(super) fn new(registry: &Registry) -> Arc<Self> {
        let all = Arc::new(AllFigures {
            files: Mutex::default(),
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
    pub(super) fn begin(&self, name: &Arc<str>) -> Arc<Figures> {
        Arc::clone(self.files.lock().entry(Arc::clone(name)).or_default())
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
        let files = self.files.lock();
        let mut files: Vec<(&Arc<str>, &Arc<Figures>)> = files.iter().collect();
        files.sort_by(|a, b| a.0.cmp(b.0));
        let mut items = Vec::new();
        for (name, figures) in files {
            for stream in &**figures.streams.lock() {
                let body = vec![
                    attr("path", ConfigValue::string(&**name)),
                    attr("labels", ConfigValue::string(stream.canonical())),
                    attr("is_running", ConfigValue::from(figures.is_open.load(Ordering::Relaxed))),
                    attr("read_offset", ConfigValue::from(figures.read_bytes.load(Ordering::Relaxed))),
                ];
                items.push(Item::Block { name: "targets_info".to_owned(), label: None, body });
            }
        }
        items
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
