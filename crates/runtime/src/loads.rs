//! What is remembered of loads: which one runs, how the last one went, and the secrets that it brought.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
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
    /// The texts that were refused; instead of texts that are too long to be kept, what says so.
    refused: Arc<[Arc<SourceFile>]>,
}

/// See the module.
pub(crate) struct Loads {
    /// How often a configuration was put in place, and when it was last.
    generation: watch::Sender<(u64, SystemTime)>,
    last: watch::Sender<Option<Arc<LastLoad>>>,
    secrets: Mutex<Secrets>,
}

/// The secrets that are known.
#[derive(Default)]
struct Secrets {
    /// How often there were others.
    changes: u64,
    /// Those of now, each with the change that brought it.
    now: BTreeMap<Arc<str>, u64>,
    /// Those of before, which are still sent and answered for a while.
    before: BTreeMap<Arc<str>, u64>,
}

/// Those that came last first; of those that came together, the longest.
fn newest_first(secrets: &BTreeMap<Arc<str>, u64>) -> impl Iterator<Item = Arc<str>> {
    let mut sorted: Vec<(&Arc<str>, &u64)> = secrets.iter().collect();
    sorted.sort_by_key(|(secret, since)| Reverse((**since, secret.len())));
    sorted.into_iter().map(|(secret, _)| Arc::clone(secret))
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
        let keep = texts.iter().map(|(_, text)| text.len()).sum::<usize>() <= REFUSED_BYTES_MAX;
        let refused = texts.iter().filter(|_| error.is_some()).map(|(name, text)| match keep {
            true => SourceFile::new(name, text),
            // Whoever looks would take the text that runs for the one that was refused.
            false => SourceFile::new(name, &format!("// The text, of {} bytes, is not kept.\n", text.len())),
        });
        let diagnostics = error.and_then(LoadError::diagnostics).cloned().unwrap_or_default();
        self.last.send_replace(Some(Arc::new(LastLoad {
            at: SystemTime::now(),
            by,
            error: error.map(|error| error.describe(path)),
            diagnostics,
            refused: refused.collect(),
        })));
    }

    /// Tells the book of the secrets there are, if they are others. Those of before stay in it until there are others again,
    /// as far as those of now leave room.
    pub(crate) fn learn(&self, secrets: BTreeSet<Arc<str>>, book: &SecretBook) {
        let mut known = self.secrets.lock();
        let Secrets { changes, now, before } = &mut *known;
        if now.keys().eq(&secrets) {
            return;
        }
        *changes += 1;
        let since = |secret: &Arc<str>| now.get(secret).copied().unwrap_or(*changes);
        let next = secrets.into_iter().map(|secret| (Arc::clone(&secret), since(&secret))).collect();
        *before = std::mem::replace(now, next);
        book.set(newest_first(now).chain(newest_first(before)));
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

#[cfg(test)]
mod tests {
    use super::*;

    /// More than a book holds.
    const MANY: usize = 10_000;

    /// Long ones, which are no beginnings of each other.
    fn many(of: &str) -> impl Iterator<Item = Arc<str>> {
        (0..MANY).map(move |at| format!("{at:05}-{of}-with-a-long-tail").into())
    }

    #[test]
    fn the_secrets_of_now_are_known_however_many_there_were_before() {
        let (loads, book) = (Loads::default(), SecretBook::default());
        let is_masked = |text: &str| book.masked(text) != text;
        loads.learn(many("old").collect(), &book);
        assert!(is_masked("00000-old-with-a-long-tail"));
        // A load tells of what it brings while the other one still runs.
        let short: Arc<str> = "hunter2".into();
        loads.learn(many("old").chain([Arc::clone(&short)]).collect(), &book);
        assert!(is_masked("hunter2"));
        loads.learn([Arc::clone(&short)].into(), &book);
        assert!(is_masked("hunter2"));
        assert!(is_masked("00000-old-with-a-long-tail"), "there is room for it");

        // What came last counts more than what is longer and was there.
        loads.learn(many("other").chain([Arc::clone(&short)]).collect(), &book);
        loads.learn(many("other").chain([Arc::clone(&short), "hunter3".into()]).collect(), &book);
        assert!(is_masked("hunter3"));
        assert!(!is_masked("00000-old-with-a-long-tail"));
    }

    #[test]
    fn secrets_of_before_are_known_until_there_are_others_again() {
        let (loads, book) = (Loads::default(), SecretBook::default());
        for (now, known) in [
            ("hunter1", ["hunter1"].as_slice()),
            ("hunter2", &["hunter1", "hunter2"]),
            ("hunter2", &["hunter1", "hunter2"]),
            ("hunter3", &["hunter2", "hunter3"]),
        ] {
            loads.learn([now.into()].into(), &book);
            let masked = ["hunter1", "hunter2", "hunter3"].into_iter().filter(|text| book.masked(text) != *text);
            assert_eq!(masked.collect::<Vec<_>>(), known, "{now}");
        }
    }

    #[test]
    fn refused_texts_that_are_too_long_to_be_kept_say_so() {
        let loads = Loads::default();
        let texts = |bytes: usize| vec![("a".to_owned(), "x".repeat(bytes)), ("b".to_owned(), "y = 1\n".to_owned())];
        let refused = |texts| {
            loads.note(LoadedBy::Signal, Path::new("a"), &Err(LoadError::Read("no".to_owned())), texts);
            let last = loads.last.borrow().clone().expect("a load");
            last.refused.iter().map(|file| (file.name().to_string(), file.text().to_owned())).collect::<Vec<_>>()
        };
        assert_eq!(refused(texts(3)), [("a".to_owned(), "xxx".to_owned()), ("b".to_owned(), "y = 1\n".to_owned())]);
        let long = refused(texts(REFUSED_BYTES_MAX));
        assert_eq!(long[0], ("a".to_owned(), format!("// The text, of {REFUSED_BYTES_MAX} bytes, is not kept.\n")));
        assert_eq!(long[1].1, "// The text, of 6 bytes, is not kept.\n");
    }
}
