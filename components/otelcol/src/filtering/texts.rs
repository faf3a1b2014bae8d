//! Lists of texts, or of regular expressions, that one of has to match.

use std::collections::HashMap;

use corten_signal::regex::{GoRegex, Groups, Lossy};
use parking_lot::Mutex;

/// Room for what is looked at, reused from record to record.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) lossy: Lossy,
    pub(crate) groups: Groups,
    /// A value as a text.
    pub(crate) text: Vec<u8>,
}

/// How a list of texts is looked up.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Compare {
    /// One of them has to be equal.
    Strict,
    /// One of them has to match somewhere, with so many results remembered.
    Regexp(usize),
}

/// The most results that are remembered, whatever the configuration says.
pub(super) const CACHE_ENTRIES_MAX: usize = 100_000;
/// Longer texts are not remembered.
const CACHED_TEXT_BYTES_MAX: usize = 1024;

/// Texts, or regular expressions, one of which has to match.
#[derive(Debug)]
pub(crate) enum Texts {
    Equal(Box<[Box<[u8]>]>),
    Matching(Box<[GoRegex]>, Option<Mutex<Cache>>),
}

impl Texts {
    /// Compiles a list.
    ///
    /// # Errors
    ///
    /// An expression is none.
    pub(crate) fn new<T: AsRef<str>>(texts: &[T], compare: Compare) -> Result<Self, String> {
        match compare {
            Compare::Strict => {
                let mut texts: Vec<Box<[u8]>> = texts.iter().map(|text| text.as_ref().as_bytes().into()).collect();
                texts.sort_unstable();
                Ok(Texts::Equal(texts.into()))
            }
            Compare::Regexp(entries_max) => {
                let compiled: Result<Box<[GoRegex]>, _> =
                    texts.iter().map(|text| GoRegex::new(text.as_ref())).collect();
                let cache = (entries_max > 0).then(|| Mutex::new(Cache::new(entries_max)));
                Ok(Texts::Matching(compiled.map_err(|error| error.to_string())?, cache))
            }
        }
    }

    /// Whether one of them matches.
    pub(crate) fn matches(&self, text: &[u8], lossy: &mut Lossy) -> bool {
        match self {
            Texts::Equal(texts) => texts.binary_search_by(|known| (**known).cmp(text)).is_ok(),
            Texts::Matching(regexes, cache) => {
                let mut search = || regexes.iter().any(|regex| regex.is_match_bytes(text, lossy));
                let Some(cache) = cache.as_ref().filter(|_| text.len() <= CACHED_TEXT_BYTES_MAX) else {
                    return search();
                };
                if let Some(known) = cache.lock().get(text) {
                    return known;
                }
                let found = search();
                cache.lock().put(text, found);
                found
            }
        }
    }
}

/// The results that were asked for last: those since the last turn, and those of the turn before.
#[derive(Debug)]
pub(crate) struct Cache {
    turn_entries_max: usize,
    young: HashMap<Box<[u8]>, bool>,
    old: HashMap<Box<[u8]>, bool>,
}

impl Cache {
    fn new(entries_max: usize) -> Self {
        Cache { turn_entries_max: entries_max.div_ceil(2), young: HashMap::new(), old: HashMap::new() }
    }

    fn get(&mut self, text: &[u8]) -> Option<bool> {
        if let Some(known) = self.young.get(text) {
            return Some(*known);
        }
        let (text, known) = self.old.remove_entry(text)?;
        self.keep(text, known);
        Some(known)
    }

    fn put(&mut self, text: &[u8], result: bool) {
        self.keep(text.into(), result);
    }

    fn keep(&mut self, text: Box<[u8]>, result: bool) {
        if self.young.len() >= self.turn_entries_max {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(text, result);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_answers_as_the_expressions_do_and_stays_small() {
        let texts = Texts::new(&["^a", "[0-9]$"], Compare::Regexp(10)).unwrap();
        let mut lossy = Lossy::new();
        for _ in 0..3 {
            for number in 0..100 {
                let text = format!("{}{}", if number % 3 == 0 { "a" } else { "b" }, "x".repeat(number));
                assert_eq!(texts.matches(text.as_bytes(), &mut lossy), number % 3 == 0, "{text}");
            }
            assert!(texts.matches(b"b7", &mut lossy));
            assert!(!texts.matches(&[b'x'; 5000], &mut lossy));
        }
        let Texts::Matching(_, Some(cache)) = texts else { panic!() };
        let cache = cache.lock();
        assert!(cache.young.len() + cache.old.len() <= 10);
    }
}
