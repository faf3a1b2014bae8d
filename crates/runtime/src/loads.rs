//! What is remembered of loads: which one runs, how the last one went, and the secrets that it brought.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use corten_component::SecretBook;
use corten_syntax::{Diagnostics, SourceFile};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::controller::{Controller, LoadError};
use crate::shown;

/// The most bytes of refused texts that are kept, to be shown.
const REFUSED_BYTES_MAX: usize = 4 << 20;

/// Who asked for a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadedBy {
    /// The start of the program.
    Start,
    /// A signal.
    Signal,
    /// A request to the HTTP API.
    Request,
}

impl LoadedBy {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            LoadedBy::Start => "start",
            LoadedBy::Signal => "signal",
            LoadedBy::Request => "request",
        }
    }
}

/// How a load went.
#[derive(Clone, Debug)]
pub struct LastLoad {
    /// When it ended.
    pub at: SystemTime,
    /// Who asked for it.
    pub by: LoadedBy,
    /// Why it was refused, in one line; nothing where it was not.
    pub error: Option<String>,
    /// What was wrong.
    pub diagnostics: Diagnostics,
    /// The texts that were refused, where they are not too long to be kept.
    refused: Arc<[Arc<SourceFile>]>,
}

/// See the module.
pub(crate) struct Loads {
    /// How often a configuration was put in place, and when it was last.
    generation: watch::Sender<(u64, SystemTime)>,
    last: watch::Sender<Option<Arc<LastLoad>>>,
    /// The secrets of now, and those of before, which are still sent and answered for a while.
    secrets: Mutex<[BTreeSet<Arc<str>>; 2]>,
}

impl Default for Loads {
    fn default() -> Self {
        Loads {
            generation: watch::Sender::new((0, SystemTime::UNIX_EPOCH)),
            last: watch::Sender::new(None),
            secrets: Mutex::default(),
        }
    }
}

impl Loads {
    pub(crate) fn next_generation(&self) {
        self.generation.send_modify(|(generation, at)| {
            *generation += 1;
            *at = SystemTime::now();
        });
    }

    pub(crate) fn note(&self, by: LoadedBy, path: &Path, result: &Result<(), LoadError>, texts: Vec<(String, String)>) {
        let error = result.as_ref().err();
        let keep = error.is_some() && texts.iter().map(|(_, text)| text.len()).sum::<usize>() <= REFUSED_BYTES_MAX;
        let refused = texts.iter().filter(|_| keep).map(|(name, text)| SourceFile::new(name, text));
        let diagnostics = error.and_then(LoadError::diagnostics).cloned().unwrap_or_default();
        self.last.send_replace(Some(Arc::new(LastLoad {
            at: SystemTime::now(),
            by,
            error: error.map(|error| error.describe(path)),
            diagnostics,
            refused: refused.collect(),
        })));
    }

    /// Tells the book of the secrets there are, if they are others. Those of before stay in it until there are others again.
    pub(crate) fn learn(&self, secrets: BTreeSet<Arc<str>>, book: &SecretBook) {
        let mut known = self.secrets.lock();
        let [now, before] = &mut *known;
        if *now != secrets {
            *before = std::mem::replace(now, secrets);
            book.set(now.union(before).cloned());
        }
    }
}

impl Controller {
    /// How often a configuration was put in place, and when it was last. It changes with each.
    pub fn generation(&self) -> watch::Receiver<(u64, SystemTime)> {
        self.loads.generation.subscribe()
    }

    /// How the last load went; nothing before the end of the first one. It changes with each.
    pub fn last_load(&self) -> watch::Receiver<Option<Arc<LastLoad>>> {
        self.loads.last.subscribe()
    }

    /// The texts that a load refused, as they may be shown.
    pub fn shown_refused(&self, load: &LastLoad) -> Vec<(String, String)> {
        shown::files(&load.refused, self.catalog(), self.secrets())
    }
}
