//! `stage.logfmt`.

use std::collections::BTreeMap;
use std::ops::Range;

use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_config::schema::Stability;
use corten_signal::regex::GoRegex;

use super::json::unescape;
use super::stage::{Build, Compile, Emit, Input, Next, Slot, Stage, StageError, Text, Value, Work, check};

/// Reads logfmt, `key=value key="a value"`, and extracts values of it.
///
/// What stands before an error of syntax is extracted.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct LogfmtStage {
    /// Keys of logfmt by the names of the extracted values. An empty key stands for the name.
    #[arg(optional)]
    mapping: BTreeMap<String, String>,
    /// Name of the extracted value to read instead of the line.
    #[arg(optional)]
    source: String,
    /// Pattern: all values are extracted whose keys match.
    #[arg(optional)]
    regex: String,
}

impl LogfmtStage {
    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        check(self)
    }
}

impl Build for LogfmtStage {
    fn build(&self, cx: &mut Compile<'_>) -> Result<Box<dyn Stage>, StageError> {
        if self.mapping.is_empty() && self.regex.is_empty() {
            return Err(StageError::of(&["mapping", "regex"], "logfmt mapping or regex is required"));
        }
        let regex = match self.regex.as_str() {
            "" => None,
            pattern => Some(GoRegex::new(pattern).map_err(|error| StageError::at("regex", error.to_string()))?),
        };
        let mut keys: Vec<(Box<[u8]>, Slot)> = Vec::new();
        for (name, key) in &self.mapping {
            let key = if key.is_empty() { name } else { key }.as_bytes();
            let slot = cx.slot(name);
            // A key has one name: the last.
            keys.retain(|(known, _)| **known != *key);
            keys.push((key.into(), slot));
        }
        let input = cx.input(Some(&*self.source).filter(|source| !source.is_empty()));
        Ok(Box::new(Logfmt { input, keys, regex }))
    }
}

struct Logfmt {
    input: Input,
    keys: Vec<(Box<[u8]>, Slot)>,
    regex: Option<GoRegex>,
}

impl Stage for Logfmt {
    fn run(&self, work: &mut Work, _: &mut Emit) -> Next {
        let Some(text) = self.input.read(work) else { return Next::Keep };
        work.read(text, |bytes, tools| {
            pairs(bytes, |key, value| {
                let mapped = self.keys.iter().find(|(known, _)| **known == *key);
                let named = self.regex.as_ref().is_some_and(|regex| regex.is_match_bytes(key, tools.lossy));
                if mapped.is_none() && !named {
                    return;
                }
                let value = Value::Text(match value {
                    Pair::Bare(range) => text.slice(range),
                    Pair::Quoted(range) => tools.write(|out| unescape(&bytes[range], out)),
                    Pair::None => Text::EMPTY,
                });
                if let Some((_, slot)) = mapped {
                    tools.find(*slot, value);
                }
                if named {
                    tools.find_named(key, value);
                }
            });
        });
        work.keep_found();
        Next::Keep
    }
}

/// The value of a key.
enum Pair {
    None,
    /// As it stands in the text.
    Bare(Range<usize>),
    /// What is between quotes, with escapes.
    Quoted(Range<usize>),
}

/// Calls the function with each pair, up to the first error.
fn pairs(text: &[u8], mut pair: impl FnMut(&[u8], Pair)) {
    let mut at = 0;
    // A record, which is a line, ends where a key was bad; others are not read then either.
    while let Some(&byte) = text.get(at) {
        if byte <= b' ' {
            at += 1;
            continue;
        }
        let start = at;
        let is_key = |byte: u8| byte > b' ' && byte != b'=' && byte != b'"';
        at += text[at..].iter().take_while(|byte| is_key(**byte)).count();
        let key = &text[start..at];
        match text.get(at) {
            Some(b'=') if !key.is_empty() => {}
            Some(b'=' | b'"') => return,
            _ => {
                if !is_valid_key(key) {
                    return;
                }
                pair(key, Pair::None);
                continue;
            }
        }
        if !is_valid_key(key) {
            return;
        }
        at += 1;
        if text.get(at) == Some(&b'"') {
            let Some((range, escaped)) = quoted(text, at + 1) else { return };
            at = range.end + 1;
            pair(key, if escaped { Pair::Quoted(range) } else { Pair::Bare(range) });
            continue;
        }
        let start = at;
        at += text[at..].iter().take_while(|byte| **byte > b' ' && **byte != b'=' && **byte != b'"').count();
        if matches!(text.get(at), Some(b'=' | b'"')) {
            return;
        }
        pair(key, if start == at { Pair::None } else { Pair::Bare(start..at) });
    }
}

/// A key that holds U+FFFD, or bytes that are none, is an error.
fn is_valid_key(key: &[u8]) -> bool {
    std::str::from_utf8(key).is_ok_and(|key| !key.contains(char::REPLACEMENT_CHARACTER))
}

/// The inside of a quoted value that begins at a place, and whether it has escapes. Nothing if it is not right.
fn quoted(text: &[u8], start: usize) -> Option<(Range<usize>, bool)> {
    let mut at = start;
    let mut escaped = false;
    loop {
        match *text.get(at)? {
            // Control characters are only looked for where there are escapes.
            b'"' if escaped && text[start..at].iter().any(|byte| *byte < b' ') => return None,
            b'"' => return Some((start..at, escaped)),
            // A record is a line.
            b'\n' => return None,
            b'\\' => {
                escaped = true;
                match *text.get(at + 1)? {
                    b'u' => {
                        let digits = text.get(at + 2..at + 6)?;
                        if !digits.iter().all(u8::is_ascii_hexdigit) {
                            return None;
                        }
                        at += 6;
                    }
                    b'"' | b'\\' | b'/' | b'\'' | b'b' | b'f' | b'n' | b'r' | b't' => at += 2,
                    _ => return None,
                }
            }
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::process::testing::recorded;

    #[test]
    fn it_does_what_the_reference_does() {
        assert!(recorded("logfmt") >= 15);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(text in proptest::collection::vec(
            prop_oneof![any::<u8>(), proptest::sample::select(b"ab= \"\\un0\n".to_vec())],
            0..60,
        )) {
            pairs(&text, |key, value| {
                assert!(!key.is_empty());
                if let Pair::Bare(range) | Pair::Quoted(range) = value {
                    assert!(range.end <= text.len());
                }
            });
        }
    }
}
