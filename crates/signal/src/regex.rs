//! Go's regular expressions.
//!
//! Configurations are written for Go's `regexp` (RE2 syntax with Perl extensions). This reads exactly that syntax,
//! refuses what Go refuses with Go's words, and matches with the engines of `regex-automata`: the first match from the
//! left, preferring earlier branches, as in Go. Texts are UTF-8, or [made so](Lossy). Perl classes and `\b` are ASCII.
//!
//! Case folding and the classes `\p{..}` follow the version of Unicode of `regex-syntax`, which may be newer than Go's.

use std::fmt;
use std::ops::Range;

use regex_automata::meta;
use regex_automata::util::primitives::NonMaxUsize;
use regex_automata::{Anchored, Input};
use regex_syntax::hir::Hir;

mod bytes;
mod classes;
mod parse;
mod shape;
mod template;
#[cfg(test)]
mod tests;

pub use bytes::{Lossy, Offsets};
use shape::Shape;
pub use template::Template;

/// The longest pattern, in bytes.
pub const PATTERN_BYTES_MAX: usize = 1 << 20;
/// The most ranges that all character classes of a pattern may have.
pub const CLASS_RANGES_MAX: usize = 1 << 18;
/// How deep a pattern may nest.
pub const HEIGHT_MAX: usize = 250;
/// How often a counted repetition may repeat, also when repetitions of repetitions are multiplied.
pub const REPEAT_MAX: u32 = 1000;
/// The largest program that a pattern may become, in bytes.
pub const PROGRAM_BYTES_MAX: usize = 32 << 20;
/// The most memory that one thread keeps to match one pattern faster, in bytes.
pub const CACHE_BYTES_MAX: usize = 2 << 20;

/// Why a pattern was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegexError {
    what: &'static str,
    expression: String,
    offset: usize,
}

impl RegexError {
    /// Where in the pattern the part begins that was refused, in bytes.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// What is wrong, in Go's words, without the part that was refused: `missing closing ]`.
    pub fn what(&self) -> &'static str {
        self.what
    }
}

impl fmt::Display for RegexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error parsing regexp: {}: `{}`", self.what, self.expression)
    }
}

impl std::error::Error for RegexError {}

/// Where the groups of a match are. Reused from match to match: it keeps its allocation.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    // The start and end of each group.
    slots: Vec<Option<NonMaxUsize>>,
}

impl Groups {
    /// No groups.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where a group is, in bytes of the text that was searched; 0 is the whole match. Nothing for one that took no
    /// part in the match.
    pub fn get(&self, index: usize) -> Option<Range<usize>> {
        let start = self.slots.get(index.checked_mul(2)?)?.as_ref()?.get();
        let end = self.slots.get(index * 2 + 1)?.as_ref()?.get();
        Some(start..end)
    }

    fn first_of(&self, indexes: &[usize]) -> Option<Range<usize>> {
        indexes.iter().find_map(|&index| self.get(index))
    }

    /// Forgets all groups and makes room for so many, not counting the whole match.
    fn reset(&mut self, count: usize) {
        self.slots.clear();
        self.slots.resize(2 * (count + 1), None);
    }

    fn set(&mut self, index: usize, start: usize, end: usize) {
        if let Some([low, high]) = self.slots.get_mut(index * 2..index * 2 + 2) {
            (*low, *high) = (NonMaxUsize::new(start), NonMaxUsize::new(end));
        }
    }

    /// Sets the whole match and the groups that hold the same.
    fn set_whole(&mut self, whole_groups: usize, len: usize) {
        for index in 0..=whole_groups {
            self.set(index, 0, len);
        }
    }
}

/// A compiled regular expression of Go.
pub struct GoRegex {
    pattern: Box<str>,
    names: Box<[Option<Box<str>>]>,
    shape: Option<Shape>,
    // Absent where the shape answers everything.
    engine: Option<meta::Regex>,
}

impl fmt::Debug for GoRegex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GoRegex").field(&self.pattern).finish()
    }
}

/// What relabelling puts around a pattern: it has to match the whole text, and `.` matches newlines.
const ANCHORED: (&str, &str) = ("^(?s:", ")$");

impl GoRegex {
    /// Compiles a pattern, as `regexp.Compile` does.
    ///
    /// # Errors
    ///
    /// Go's, and `expression too large` beyond the limits of this module.
    pub fn new(pattern: &str) -> Result<Self, RegexError> {
        Self::build(pattern, Shape::of)
    }

    /// Compiles a pattern that has to match the whole text and whose `.` matches newlines: `^(?s:pattern)$`.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new). Offsets are those in `pattern`.
    pub fn anchored(pattern: &str) -> Result<Self, RegexError> {
        Self::new(&wrap(pattern)).map_err(|error| unwrap(error, pattern))
    }

    /// Whether [`anchored`](Self::anchored) can read a pattern. Costs less, and does not see whether its program is too
    /// large.
    ///
    /// # Errors
    ///
    /// As [`anchored`](Self::anchored).
    pub fn check_anchored(pattern: &str) -> Result<(), RegexError> {
        parse::parse(&wrap(pattern)).map(drop).map_err(|error| unwrap(error, pattern))
    }

    fn build(pattern: &str, shape: fn(&Hir) -> Option<Shape>) -> Result<Self, RegexError> {
        let parsed = parse::parse(pattern)?;
        let shape = shape(&parsed.hir);
        let complete = shape.as_ref().is_some_and(|shape| shape.fast.as_ref().is_some_and(|fast| fast.complete));
        let engine = if complete { None } else { Some(engine(&parsed.hir, pattern)?) };
        Ok(GoRegex { pattern: pattern.into(), names: parsed.names.into(), shape, engine })
    }

    /// The pattern, with what [`anchored`](Self::anchored) put around it.
    pub fn as_str(&self) -> &str {
        &self.pattern
    }

    /// How many groups there are, not counting the whole match.
    pub fn group_count(&self) -> usize {
        self.names.len() - 1
    }

    /// The names of the groups, in the order of their numbers from 1.
    pub fn group_names(&self) -> impl Iterator<Item = Option<&str>> {
        self.names.iter().skip(1).map(Option::as_deref)
    }

    /// The numbers of the groups of a name. Several may have the same.
    pub fn groups_named(&self, name: &str) -> impl Iterator<Item = usize> {
        let names = self.names.iter().enumerate();
        names.filter(move |(_, known)| known.as_deref() == Some(name)).map(|(index, _)| index)
    }

    /// Whether the pattern matches somewhere in the text.
    pub fn is_match(&self, text: &str) -> bool {
        if let Some(fast) = self.shape.as_ref().and_then(|shape| shape.fast.as_ref()) {
            return fast.is_match(text);
        }
        self.engine.as_ref().is_some_and(|engine| engine.is_match(text))
    }

    /// Where the first match is, in bytes.
    pub fn find(&self, text: &str) -> Option<Range<usize>> {
        if let Some(shape) = &self.shape {
            // Anchored at both ends: a match is the whole text.
            let matched = match (&shape.fast, &self.engine) {
                (Some(fast), _) => fast.is_match(text),
                (None, Some(engine)) => engine.is_match(text),
                (None, None) => false,
            };
            return matched.then_some(0..text.len());
        }
        self.engine.as_ref()?.find(text).map(|found| found.range())
    }

    /// Finds the first match and its groups. `groups` holds none if there is no match.
    pub fn captures(&self, text: &str, groups: &mut Groups) -> bool {
        self.captures_at(text, 0, groups)
    }

    /// As [`captures`](Self::captures), from a place on. What stands before it still counts for `^` and `\b`.
    pub fn captures_at(&self, text: &str, at: usize, groups: &mut Groups) -> bool {
        groups.reset(self.group_count());
        if let Some(shape) = &self.shape {
            if at > 0 {
                return false;
            }
            let Some(fast) = &shape.fast else { return self.search(text, at, groups) };
            if !fast.is_match(text) {
                return false;
            }
            if fast.complete {
                groups.set_whole(shape.whole_groups, text.len());
                fast.fill(text, shape.whole_groups, groups);
                return true;
            }
        }
        self.search(text, at, groups)
    }

    /// As [`captures_at`](Self::captures_at), with the engine.
    fn search(&self, text: &str, at: usize, groups: &mut Groups) -> bool {
        let Some(engine) = &self.engine else { return false };
        if at > text.len() {
            return false;
        }
        engine.search_slots(&Input::new(text).range(at..).anchored(Anchored::No), &mut groups.slots).is_some()
    }

    /// Whether the groups up to this one are the whole text whenever there is a match, so that
    /// [`captures_whole`](Self::captures_whole) is enough for what refers to no other.
    pub(crate) fn is_whole(&self, last_group: usize) -> bool {
        self.shape.as_ref().is_some_and(|shape| last_group <= shape.whole_groups)
    }

    /// As [`captures`](Self::captures), for callers that read only groups that [are whole](Self::is_whole). A match
    /// is then found without looking for groups, which is several times faster.
    pub(crate) fn captures_whole(&self, text: &str, groups: &mut Groups) -> bool {
        let Some(shape) = &self.shape else { return self.captures(text, groups) };
        groups.reset(self.group_count());
        let matched = self.is_match(text);
        if matched {
            groups.set_whole(shape.whole_groups, text.len());
        }
        matched
    }

    /// Whether every match is the whole text.
    pub(crate) fn is_anchored(&self) -> bool {
        self.shape.is_some()
    }

    /// Appends the text to `out`, all matches replaced, as `ReplaceAllString` does.
    pub fn replace_all(&self, text: &str, template: &Template, groups: &mut Groups, out: &mut String) {
        self.replace_within(text, template, groups, out, usize::MAX);
    }

    /// As [`replace_all`](Self::replace_all), but stops and returns false before more than so many bytes are appended.
    pub fn replace_within(
        &self,
        text: &str,
        template: &Template,
        groups: &mut Groups,
        out: &mut String,
        bytes_max: usize,
    ) -> bool {
        let start = out.len();
        let (mut copied, mut at) = (0, 0);
        while at <= text.len() && self.captures_at(text, at, groups) {
            let Some(found) = groups.get(0) else { break };
            let between = &text[copied..found.start];
            // An empty match right behind another match does not count.
            let counts = found.end > copied || found.start == 0;
            let len = between.len() + if counts { template.expanded_len(groups) } else { 0 };
            if out.len() - start + len > bytes_max {
                return false;
            }
            out.push_str(between);
            if counts {
                template.expand(text, groups, out);
            }
            copied = found.end;
            let step = text[at..].chars().next().map_or(1, char::len_utf8);
            at = found.end.max(at + step);
        }
        if out.len() - start + text.len() - copied > bytes_max {
            return false;
        }
        out.push_str(&text[copied..]);
        true
    }
}

fn wrap(pattern: &str) -> String {
    [ANCHORED.0, pattern, ANCHORED.1].concat()
}

fn unwrap(mut error: RegexError, pattern: &str) -> RegexError {
    error.offset = error.offset.saturating_sub(ANCHORED.0.len()).min(pattern.len());
    error
}

fn engine(hir: &Hir, pattern: &str) -> Result<meta::Regex, RegexError> {
    let limits = meta::Config::new()
        .nfa_size_limit(Some(PROGRAM_BYTES_MAX))
        .hybrid_cache_capacity(CACHE_BYTES_MAX)
        .onepass_size_limit(Some(CACHE_BYTES_MAX));
    meta::Regex::builder().configure(limits).build_from_hir(hir).map_err(|_| RegexError {
        what: parse::TOO_LARGE,
        expression: pattern.to_owned(),
        offset: 0,
    })
}
