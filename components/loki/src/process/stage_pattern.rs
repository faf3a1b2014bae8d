//! `stage.pattern`.

use std::ops::Range;

use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_config::schema::Stability;

use super::stage::{Build, Compile, Emit, Input, Next, Slot, Stage, StageError, Text, Value, Work, check};

/// Extracts parts of a text by a pattern: `<ip> - <user> "<_>" <status>`.
///
/// A capture takes what stands before the text that follows it in the pattern. Where that text is missing, it takes the rest,
/// and later captures are not extracted.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct PatternStage {
    /// Pattern with captures in angle brackets. `<_>` takes a part that is not extracted.
    pattern: String,
    /// Name of the extracted value to read instead of the line.
    source: Option<String>,
    /// Sets labels of the same names as well.
    #[arg(default = false)]
    labels_from_groups: bool,
}

impl PatternStage {
    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        check(self)
    }
}

impl Build for PatternStage {
    fn build(&self, cx: &mut Compile<'_>) -> Result<Box<dyn Stage>, StageError> {
        if self.pattern.is_empty() {
            return Err(StageError::at("pattern", "pattern is required"));
        }
        if self.source.as_deref() == Some("") {
            return Err(StageError::at("source", "empty source"));
        }
        let parts = parse(&self.pattern)
            .map_err(|error| StageError::at("pattern", format!("failed to parse pattern: {error}")))?;
        let mut captures = Vec::new();
        for part in &parts {
            if let Part::Capture(Some(name)) = part {
                captures.push(Capture { slot: cx.slot(name), name: cx.text(name) });
            }
        }
        let input = cx.input(self.source.as_deref());
        Ok(Box::new(Pattern { input, parts, captures, sets_labels: self.labels_from_groups }))
    }
}

/// A part of a pattern.
#[derive(Clone, Debug, PartialEq)]
enum Part {
    Literal(Box<[u8]>),
    /// Without a name it is not extracted.
    Capture(Option<Box<str>>),
}

/// The parts of a pattern: at least one has a name, no name stands twice, and no two captures stand side by side.
fn parse(pattern: &str) -> Result<Vec<Part>, String> {
    let mut parts: Vec<Part> = Vec::new();
    let mut literal = String::new();
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        match capture_name(rest) {
            Some(name) => {
                if !literal.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut literal).into_bytes().into()));
                }
                rest = &rest[name.len() + 2..];
                parts.push(Part::Capture(Some(name).filter(|name| *name != "_").map(Into::into)));
            }
            None => {
                literal.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    if !literal.is_empty() {
        parts.push(Part::Literal(literal.into_bytes().into()));
    }
    let names: Vec<&str> = parts
        .iter()
        .filter_map(|part| match part {
            Part::Capture(Some(name)) => Some(&**name),
            _ => None,
        })
        .collect();
    if names.is_empty() {
        return Err("at least one capture is required".to_owned());
    }
    for pair in parts.windows(2) {
        if let [Part::Capture(a), Part::Capture(b)] = pair {
            let shown = |name: &Option<Box<str>>| name.as_deref().unwrap_or("_").to_owned();
            return Err(format!("found consecutive capture '<{}><{}>': invalid expression", shown(a), shown(b)));
        }
    }
    for (at, name) in names.iter().enumerate() {
        if names[..at].contains(name) {
            return Err(format!("duplicate capture name ({name}): invalid expression"));
        }
    }
    Ok(parts)
}

/// The name of the capture that a text begins with.
fn capture_name(text: &str) -> Option<&str> {
    let inside = text.strip_prefix('<')?;
    let name = &inside[..inside.find('>')?];
    let mut bytes = name.bytes();
    let starts = bytes.next().is_some_and(|byte| byte == b'_' || byte.is_ascii_alphabetic());
    (starts && bytes.all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())).then_some(name)
}

struct Capture {
    slot: Slot,
    name: Text,
}

struct Pattern {
    input: Input,
    parts: Vec<Part>,
    /// Those that have names, in order.
    captures: Vec<Capture>,
    sets_labels: bool,
}

impl Stage for Pattern {
    fn run(&self, work: &mut Work, _: &mut Emit) -> Next {
        let Some(text) = self.input.read(work) else { return Next::Keep };
        let found = work.read(text, |bytes, tools| {
            let mut captures = self.captures.iter();
            matches(&self.parts, bytes, |range| {
                if let Some(capture) = captures.next() {
                    tools.find(capture.slot, Value::Text(text.slice(range)));
                }
            })
        });
        work.keep_found();
        if self.sets_labels {
            for capture in &self.captures[..found] {
                if let Value::Text(part) = work.value(capture.slot) {
                    work.set_label(capture.name, part);
                }
            }
        }
        Next::Keep
    }
}

/// Calls the function with the place of each capture that has a name, as far as they are found; how many these are.
fn matches(parts: &[Part], text: &[u8], mut capture: impl FnMut(Range<usize>)) -> usize {
    let (mut at, mut found) = (0, 0);
    let mut parts = parts;
    if text.is_empty() {
        return 0;
    }
    if let [Part::Literal(first), rest @ ..] = parts {
        if !text.starts_with(first) {
            return 0;
        }
        at = first.len();
        parts = rest;
    }
    let mut take = |named: bool, range: Range<usize>| {
        if named {
            capture(range);
            found += 1;
        }
    };
    while let [Part::Capture(name), rest @ ..] = parts {
        let [Part::Literal(next), rest @ ..] = rest else {
            take(name.is_some(), at..text.len());
            break;
        };
        match find(&text[at..], next) {
            Some(len) => {
                take(name.is_some(), at..at + len);
                at += len + next.len();
            }
            None => {
                take(name.is_some(), at..text.len());
                break;
            }
        }
        parts = rest;
    }
    found
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    let first = *part.first()?;
    let mut from = 0;
    loop {
        let at = from + text.get(from..)?.iter().position(|byte| *byte == first)?;
        if text[at..].starts_with(part) {
            return Some(at);
        }
        from = at + 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::process::testing::recorded;

    #[test]
    fn it_does_what_the_reference_does() {
        assert!(recorded("pattern") >= 15);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(pattern in "(<[a_]?>?|[ab ]){0,9}", text in "[ab ]{0,20}") {
            if let Ok(parts) = parse(&pattern) {
                let mut end = 0;
                matches(&parts, text.as_bytes(), |range| {
                    assert!(range.start >= end && range.end <= text.len());
                    end = range.end;
                });
            }
        }
    }
}
