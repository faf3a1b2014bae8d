//! Patterns that are matched without an engine.
//!
//! Most patterns of relabelling rules are anchored at both ends and are a literal, a few literals, or a literal before
//! or behind `.*`. They are found in the parsed form, so that every way to write one counts.

use memchr::memmem::Finder;
use regex_syntax::hir::{Hir, HirKind, Look};

use super::Groups;
use super::parse::class_of;

/// The most texts that are compared instead of matched.
const TEXTS_MAX: usize = 16_384;
/// The most bytes that these may have in sum.
const TEXTS_BYTES_MAX: usize = 1 << 20;
/// The most texts that come from anything but a plain alternation of literals, such as `(?i)true`.
const TEXTS_PRODUCT_MAX: usize = 256;

/// What a pattern is that is anchored at both ends.
pub(super) struct Shape {
    /// The groups 1 to this one hold the whole text of a match.
    pub(super) whole_groups: usize,
    /// How to match without an engine, if that is possible.
    pub(super) fast: Option<Fast>,
}

/// A way to match without an engine.
pub(super) struct Fast {
    test: Test,
    /// Whether the groups of a match are known without an engine, too.
    pub(super) complete: bool,
}

enum Test {
    /// `prefix.*suffix` or `prefix.+suffix`.
    Affixes {
        prefix: Box<str>,
        suffix: Box<str>,
        /// The least number of bytes between them: 0 or 1.
        least: usize,
        /// How many groups hold what is between them. They follow those that hold the whole text.
        groups: usize,
    },
    /// `.*text.*`.
    Contains(Box<Finder<'static>>),
    /// One of a few texts, sorted.
    OneOf(Box<[Box<str>]>),
}

impl Shape {
    /// Finds out what a parsed pattern is. Nothing unless it is anchored at both ends.
    pub(super) fn of(hir: &Hir) -> Option<Shape> {
        let HirKind::Concat(parts) = hir.kind() else { return None };
        let mut parts = parts.as_slice();
        let before = parts.len();
        while let [first, rest @ ..] = parts
            && is_look(first, Look::Start)
        {
            parts = rest;
        }
        let starts = before - parts.len();
        let before = parts.len();
        while let [rest @ .., last] = parts
            && is_look(last, Look::End)
        {
            parts = rest;
        }
        if starts == 0 || before == parts.len() {
            return None;
        }
        let mut whole_groups = 0;
        while let [only] = parts
            && let HirKind::Capture(capture) = only.kind()
            && follows(capture.index, whole_groups)
        {
            whole_groups += 1;
            parts = match capture.sub.kind() {
                HirKind::Concat(parts) => parts,
                _ => std::slice::from_ref(&*capture.sub),
            };
        }
        Some(Shape { whole_groups, fast: Fast::of(parts, whole_groups) })
    }
}

/// Whether a group is the one behind so many. It is not where a group before it is never matched, as in `(a){0}(b)`, and
/// so has no place in the parsed form.
fn follows(index: u32, groups: usize) -> bool {
    index as usize == groups + 1
}

fn is_look(hir: &Hir, look: Look) -> bool {
    matches!(hir.kind(), HirKind::Look(found) if *found == look)
}

impl Fast {
    fn of(parts: &[Hir], whole_groups: usize) -> Option<Fast> {
        if let Some(test) = affixes(parts, whole_groups) {
            return Some(Fast { test, complete: true });
        }
        if let [first, HirKind::Literal(text), last] = parts.iter().map(Hir::kind).collect::<Vec<_>>().as_slice()
            && is_any_run(first)
            && is_any_run(last)
        {
            let finder = Finder::new(&text.0).into_owned();
            return Some(Fast { test: Test::Contains(Box::new(finder)), complete: true });
        }
        let mut captures = false;
        let texts = match parts {
            [only] => texts_of_branches(only, &mut captures),
            _ => product(parts.iter(), &mut captures),
        }?;
        let mut texts: Vec<Box<str>> = texts.into_iter().map(String::into_boxed_str).collect();
        texts.sort_unstable();
        texts.dedup();
        Some(Fast { test: Test::OneOf(texts.into()), complete: !captures })
    }

    /// Whether a text matches.
    pub(super) fn is_match(&self, text: &str) -> bool {
        match &self.test {
            Test::Affixes { prefix, suffix, least, .. } => {
                text.len() >= prefix.len() + suffix.len() + least
                    && text.starts_with(&**prefix)
                    && text.ends_with(&**suffix)
            }
            Test::Contains(finder) => finder.find(text.as_bytes()).is_some(),
            Test::OneOf(texts) => match &**texts {
                [only] => **only == *text,
                texts => texts.binary_search_by(|known| (**known).cmp(text)).is_ok(),
            },
        }
    }

    /// Sets the groups of a match beyond those that hold the whole text. Only for one that is complete.
    pub(super) fn fill(&self, text: &str, whole_groups: usize, groups: &mut Groups) {
        if let Test::Affixes { prefix, suffix, groups: count, .. } = &self.test {
            for index in 0..*count {
                groups.set(whole_groups + 1 + index, prefix.len(), text.len() - suffix.len());
            }
        }
    }
}

/// Whether a part is `.*` that takes newlines, too.
fn is_any_run(kind: &&HirKind) -> bool {
    matches!(kind, HirKind::Repetition(repetition)
        if repetition.min == 0 && repetition.max.is_none() && is_any_char(&repetition.sub))
}

fn is_any_char(hir: &Hir) -> bool {
    class_of(hir).is_some_and(|class| matches!(class.ranges(), [all] if all.start() == '\0' && all.end() == char::MAX))
}

fn literal(hir: &Hir) -> Option<&str> {
    match hir.kind() {
        HirKind::Literal(literal) => std::str::from_utf8(&literal.0).ok(),
        _ => None,
    }
}

/// A run of any characters with at most one literal before and one behind it. Whether it is greedy makes no
/// difference, since both ends are anchored.
fn affixes(parts: &[Hir], whole_groups: usize) -> Option<Test> {
    let (prefix, parts) = match parts {
        [first, rest @ ..] if literal(first).is_some() => (literal(first)?, rest),
        _ => ("", parts),
    };
    let (suffix, parts) = match parts {
        [rest @ .., last] if literal(last).is_some() => (literal(last)?, rest),
        _ => ("", parts),
    };
    let [mut run] = parts.iter().collect::<Vec<_>>()[..] else { return None };
    let mut groups = 0;
    while let HirKind::Capture(capture) = run.kind() {
        if !follows(capture.index, whole_groups + groups) {
            return None;
        }
        groups += 1;
        run = &capture.sub;
    }
    let HirKind::Repetition(repetition) = run.kind() else { return None };
    if repetition.min > 1 || repetition.max.is_some() || !is_any_char(&repetition.sub) {
        return None;
    }
    Some(Test::Affixes { prefix: prefix.into(), suffix: suffix.into(), least: repetition.min as usize, groups })
}

/// The texts that a part matches, if they are few. An alternation may have many more branches than another part may
/// have texts, because nothing multiplies them.
fn texts_of_branches(hir: &Hir, captures: &mut bool) -> Option<Vec<String>> {
    let HirKind::Alternation(branches) = hir.kind() else { return texts(hir, captures) };
    let mut all = Vec::new();
    let mut bytes = 0;
    for branch in branches {
        let texts = texts(branch, captures)?;
        bytes += texts.iter().map(String::len).sum::<usize>();
        all.extend(texts);
        if all.len() > TEXTS_MAX || bytes > TEXTS_BYTES_MAX {
            return None;
        }
    }
    Some(all)
}

/// The texts that a part matches, if they are few.
fn texts(hir: &Hir, captures: &mut bool) -> Option<Vec<String>> {
    match hir.kind() {
        HirKind::Empty => Some(vec![String::new()]),
        HirKind::Literal(_) => Some(vec![literal(hir)?.to_owned()]),
        HirKind::Class(_) => {
            let ranges = class_of(hir)?.ranges();
            let count: usize = ranges.iter().map(|range| range.len()).sum();
            if count > TEXTS_PRODUCT_MAX {
                return None;
            }
            Some(ranges.iter().flat_map(|range| range.start()..=range.end()).map(String::from).collect())
        }
        HirKind::Look(_) => None,
        HirKind::Repetition(repetition) => {
            let (0, Some(1)) = (repetition.min, repetition.max) else { return None };
            let mut texts = texts(&repetition.sub, captures)?;
            texts.push(String::new());
            bounded(texts)
        }
        HirKind::Capture(capture) => {
            *captures = true;
            texts(&capture.sub, captures)
        }
        HirKind::Concat(parts) => product(parts.iter(), captures),
        HirKind::Alternation(branches) => {
            let mut all = Vec::new();
            for branch in branches {
                all.extend(texts(branch, captures)?);
                if all.len() > TEXTS_PRODUCT_MAX {
                    return None;
                }
            }
            bounded(all)
        }
    }
}

/// The texts of parts in a row.
fn product<'h>(parts: impl Iterator<Item = &'h Hir>, captures: &mut bool) -> Option<Vec<String>> {
    let mut all = vec![String::new()];
    for part in parts {
        let tails = texts(part, captures)?;
        if all.len() * tails.len() > TEXTS_PRODUCT_MAX {
            return None;
        }
        all = all.iter().flat_map(|head| tails.iter().map(move |tail| format!("{head}{tail}"))).collect();
        all = bounded(all)?;
    }
    Some(all)
}

fn bounded(texts: Vec<String>) -> Option<Vec<String>> {
    let bytes: usize = texts.iter().map(String::len).sum();
    (texts.len() <= TEXTS_PRODUCT_MAX && bytes <= TEXTS_BYTES_MAX).then_some(texts)
}
