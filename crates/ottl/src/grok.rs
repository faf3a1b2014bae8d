//! Grok: patterns by name.

use std::collections::HashMap;

use corten_signal::regex::GoRegex;

/// The longest regular expression that a pattern may become, in bytes.
const EXPANDED_BYTES_MAX: usize = 1 << 17;

/// A pattern whose names were resolved.
#[derive(Debug)]
pub(crate) struct Grok {
    pub(crate) regex: GoRegex,
    /// The groups that have a name, with it and with the type that was asked for.
    pub(crate) groups: Vec<(usize, String, Kind)>,
}

/// What a match is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Int,
    Double,
    Bool,
    /// There is no such type, which only shows when there is a match.
    Unknown,
}

/// A point in a name, which regular expressions do not take.
const POINT: &str = "___";

/// The names that are known without being defined: a line each. Groups within them have their names where all are captured,
/// so that these count as well as what they match.
const PATTERNS: &str = include_str!("grok/patterns.txt");

/// What is defined under a name in [`PATTERNS`].
fn known(name: &str) -> Option<&'static str> {
    let mut lines = PATTERNS.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(known, _)| *known == name).map(|(_, definition)| definition)
}

/// How deep definitions may refer to each other.
const DEPTH_MAX: usize = 100;

/// Names that a statement defines.
#[derive(Clone, Debug, Default)]
pub(crate) struct Definitions(Vec<(String, String)>);

impl Definitions {
    /// Reads definitions, each written `NAME=pattern`.
    pub(crate) fn new<S: AsRef<str>>(definitions: &[S]) -> Result<Self, String> {
        let definitions = definitions.iter().map(|definition| {
            let definition = definition.as_ref();
            let (name, pattern) = definition
                .split_once('=')
                .ok_or_else(|| format!("{definition:?} is no definition, which is written NAME=pattern"))?;
            if name.contains(':') {
                return Err(format!("the name {name:?} of a pattern cannot contain a colon"));
            }
            Ok((name.to_owned(), pattern.to_owned()))
        });
        definitions.collect::<Result<_, _>>().map(Definitions)
    }

    /// What a name stands for. Of equal names the last definition counts.
    fn find(&self, name: &str) -> Option<&str> {
        let own = self.0.iter().rev().find(|(known, _)| known == name);
        own.map(|(_, definition)| &**definition).or_else(|| known(name))
    }
}

impl Grok {
    /// Reads a pattern. With `named_only`, what has no name of its own in the pattern is not captured.
    pub(crate) fn new(pattern: &str, definitions: &Definitions, named_only: bool) -> Result<Self, String> {
        // Of equal targets the type counts that is met last, where what is deeper is met later.
        let mut kinds: HashMap<String, Kind> = HashMap::new();
        let mut expanded = pattern.to_owned();
        for depth in 0.. {
            let (mut next, mut from) = (String::new(), 0);
            while let Some((at, len)) = reference(&expanded, from) {
                let mut parts = expanded[at + 2..at + len - 1].split(':');
                let name = parts.next().unwrap_or_default();
                let target = parts.next().map(|target| target.replace('.', POINT));
                if let (Some(target), Some(kind)) = (&target, parts.next()) {
                    let kind = match kind {
                        "string" => Kind::Text,
                        "int" | "long" => Kind::Int,
                        "float" | "double" => Kind::Double,
                        "bool" | "boolean" => Kind::Bool,
                        _ => Kind::Unknown,
                    };
                    kinds.insert(target.clone(), kind);
                }
                let definition = definitions.find(name).ok_or_else(|| format!("the pattern {name} is not known"))?;
                next.push_str(&expanded[from..at]);
                match target.as_deref() {
                    None if named_only => next.push('('),
                    target => next.extend(["(?P<", target.unwrap_or(name), ">"]),
                }
                next.extend([definition, ")"]);
                from = at + len;
                if next.len() > EXPANDED_BYTES_MAX || depth == DEPTH_MAX {
                    return Err("the pattern refers to itself, or is too large".to_owned());
                }
            }
            if from == 0 {
                break;
            }
            next.push_str(&expanded[from..]);
            expanded = next;
        }
        let regex = GoRegex::new(&expanded).map_err(|error| error.to_string())?;
        let groups = regex.group_names().enumerate().filter_map(|(at, name)| {
            let name = name?;
            let kind = kinds.get(name).copied().unwrap_or(Kind::Text);
            Some((at + 1, name.replace(POINT, "."), kind))
        });
        let groups: Vec<_> = groups.collect();
        if named_only && groups.is_empty() {
            return Err("at least 1 named capture group must be supplied in the given regex".to_owned());
        }
        Ok(Grok { regex, groups })
    }
}

/// Where from a place on the first `%{NAME}`, `%{NAME:target}` or `%{NAME:target:type}` stands, and how long it is.
fn reference(pattern: &str, from: usize) -> Option<(usize, usize)> {
    let is_word =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let is_target = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'+'))
    };
    pattern[from..].match_indices("%{").find_map(|(at, _)| {
        let at = from + at;
        let len = pattern[at..].find('}')? + 1;
        let parts: Vec<&str> = pattern[at + 2..at + len - 1].split(':').collect();
        let fits = match parts[..] {
            [name] => is_word(name),
            [name, target] => is_word(name) && is_target(target),
            [name, target, kind] => is_word(name) && is_target(target) && is_word(kind),
            _ => false,
        };
        fits.then_some((at, len))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_pattern_can_be_read() {
        let names: Vec<&str> =
            PATTERNS.lines().filter_map(|line| Some(line.split_once(' ')?.0)).filter(|name| *name != "#").collect();
        assert_eq!(names.len(), 245);
        for name in names {
            for named_only in [true, false] {
                let read = Grok::new(&format!("%{{{name}:x}}"), &Definitions::default(), named_only);
                // The collector cannot read one of them either.
                assert_eq!(read.is_ok(), name != "CISCOFW733100", "{name}: {read:?}");
            }
        }
    }

    #[test]
    fn a_pattern_that_refers_to_itself_is_refused() {
        for definitions in [&["A=%{A}"][..], &["A=%{B}%{B}", "B=%{A}%{A}"], &["A=x%{A:y}"]] {
            let error = Grok::new("%{A:a}", &Definitions::new(definitions).unwrap(), true).unwrap_err();
            assert!(error.contains("itself"), "{error}");
        }
        assert!(Grok::new("%{NOPE:a}", &Definitions::default(), true).unwrap_err().contains("NOPE"));
    }
}
