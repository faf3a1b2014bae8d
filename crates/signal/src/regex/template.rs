//! Replacement templates, as Go's `regexp.Expand` reads them, read once.

use std::sync::LazyLock;

use regex_syntax::hir::ClassUnicode;

use super::{GoRegex, Groups, classes};

/// A replacement template whose references are resolved against one pattern.
///
/// `$1` and `${1}` stand for a group by number, `$name` and `${name}` for a group by name, `$$` for `$`. A name is the
/// longest run of letters, digits and `_`, so `$1x` is the group `1x`. What refers to no group, or to one without a
/// match, stands for nothing; a `$` that begins no reference is a `$`.
#[derive(Debug)]
pub struct Template {
    parts: Box<[Part]>,
}

#[derive(Debug)]
enum Part {
    /// Text as it is.
    Text(Box<str>),
    /// The first of these groups that has a match.
    Groups(Box<[usize]>),
}

impl Template {
    /// Reads a template whose references are groups of this pattern.
    pub fn new(text: &str, regex: &GoRegex) -> Self {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            plain.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(behind) = rest.strip_prefix('$') {
                plain.push('$');
                rest = behind;
                continue;
            }
            let Some((name, behind)) = reference(rest) else {
                plain.push('$');
                continue;
            };
            rest = behind;
            let groups = match number(name) {
                Some(index) if index <= regex.group_count() => vec![index],
                Some(_) => Vec::new(),
                None => regex.groups_named(name).collect(),
            };
            if groups.is_empty() {
                continue;
            }
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain).into()));
            }
            parts.push(Part::Groups(groups.into()));
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain.into()));
        }
        Template { parts: parts.into() }
    }

    /// The text, if it is the same for every match.
    pub fn as_text(&self) -> Option<&str> {
        match &*self.parts {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The greatest number of a group that it refers to; 0 is the whole match.
    pub(crate) fn last_group(&self) -> usize {
        let groups = self.parts.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Groups(groups) => groups.iter().max().copied(),
        });
        groups.max().unwrap_or(0)
    }

    /// How many bytes [`expand`](Self::expand) would append.
    pub fn expanded_len(&self, groups: &Groups) -> usize {
        let lens = self.parts.iter().map(|part| match part {
            Part::Text(text) => text.len(),
            Part::Groups(indexes) => groups.first_of(indexes).map_or(0, |range| range.len()),
        });
        lens.sum()
    }

    /// Appends the template to `out`, its references replaced by what the groups match in `text`.
    pub fn expand(&self, text: &str, groups: &Groups, out: &mut String) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Groups(indexes) => {
                    out.push_str(groups.first_of(indexes).and_then(|range| text.get(range)).unwrap_or(""))
                }
            }
        }
    }
}

/// Reads the name behind a `$`, with or without braces: (name, what follows).
fn reference(text: &str) -> Option<(&str, &str)> {
    let (inner, braced) = match text.strip_prefix('{') {
        Some(inner) => (inner, true),
        None => (text, false),
    };
    let end = inner.find(|c| !is_name_char(c)).unwrap_or(inner.len());
    let (name, rest) = inner.split_at(end);
    if name.is_empty() {
        return None;
    }
    Some((name, if braced { rest.strip_prefix('}')? } else { rest }))
}

/// The number of a group, if a name is one. Numbers with a leading zero are names.
fn number(name: &str) -> Option<usize> {
    let decimal = name.bytes().all(|byte| byte.is_ascii_digit()) && (name == "0" || !name.starts_with('0'));
    // Go stops counting beyond nine digits; no pattern has so many groups.
    if decimal && name.len() <= 9 { name.parse().ok() } else { None }
}

fn is_name_char(c: char) -> bool {
    /// Letters and decimal digits of Unicode.
    static LETTERS: LazyLock<Option<ClassUnicode>> = LazyLock::new(|| {
        let mut letters = classes::unicode("L")?;
        letters.union(&classes::unicode("Nd")?);
        Some(letters)
    });
    if c.is_ascii() {
        return c == '_' || c.is_ascii_alphanumeric();
    }
    LETTERS.as_ref().is_some_and(|letters| {
        let place = letters.ranges().partition_point(|range| range.end() < c);
        letters.ranges().get(place).is_some_and(|range| range.start() <= c)
    })
}
