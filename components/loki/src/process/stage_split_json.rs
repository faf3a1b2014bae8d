//! `stage.split_json`.

use std::ops::Range;

use corten_component::Logger;
use corten_config::decode::TextType;
use corten_config::{Arguments, decode_text};

use super::stage::{Build, Compile, Emit, Input, Next, Reason, Stage, StageError, Text, Work};

/// Makes an entry of each element of a JSON array.
///
/// The line of each is the text of the element. Labels, structured metadata and extracted values are those of the
/// entry. What is no array stays as it is, and an empty array is dropped.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct SplitJsonStage {
    /// Name of the extracted value that is the array. Without it, the array is the log line.
    source: Option<Source>,
}

/// The name of an extracted value; it is not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source(String);

impl TextType for Source {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("source cannot be empty".to_owned()) } else { Ok(Source(text.to_owned())) }
    }

    fn text(&self) -> String {
        self.0.clone()
    }

    fn null() -> Option<Self> {
        None
    }
}

decode_text!(Source);

impl Build for SplitJsonStage {
    fn build(&self, cx: &mut Compile<'_>) -> Result<Box<dyn Stage>, StageError> {
        let input = cx.input(self.source.as_ref().map(|source| source.0.as_str()));
        Ok(Box::new(SplitJson { input, empty: cx.uncounted("empty array"), logger: cx.logger() }))
    }
}

struct SplitJson {
    input: Input,
    empty: Reason,
    logger: Option<Logger>,
}

impl Stage for SplitJson {
    fn run(&self, work: &mut Work, out: &mut Emit) -> Next {
        let Some(text) = self.input.read(work) else { return Next::Keep };
        let Some(elements) = elements(work.bytes(text)) else { return Next::Keep };
        let Some((last, others)) = elements.split_last() else { return Next::Drop(self.empty) };
        if !others.is_empty() {
            let line = work.line();
            // Every entry gets a line of its own.
            work.set_line(Text::EMPTY);
            let each = work.copy();
            let all = each.bytes().saturating_mul(elements.len()).saturating_add(text.len());
            if all > SPLIT_BYTES_MAX {
                work.set_line(line);
                each.discard();
                if let Some(logger) = &self.logger {
                    logger.warn(
                        "left an array as it is because its entries would take too much memory",
                        &[("elements", (elements.len() as u64).into()), ("bytes", (all as u64).into())],
                    );
                }
                return Next::Keep;
            }
            for element in others {
                let mut entry = work.copy();
                entry.line = work.bytes(text.slice(element.clone())).to_vec();
                out.emit_new(entry);
            }
            each.discard();
        }
        work.set_line(text.slice(last.clone()));
        Next::Keep
    }
}

/// The most memory that the entries of one array may take, in bytes.
const SPLIT_BYTES_MAX: usize = 256 << 20;

/// How deep values may nest, as in the reference.
const DEPTH_MAX: usize = 10_000;

/// The most elements that one array is split into. A longer one is left as it is.
const ELEMENTS_MAX: usize = 1 << 18;

/// The elements of a text that is an array; nothing if it is something else or no JSON.
fn elements(text: &[u8]) -> Option<Vec<Range<usize>>> {
    let mut at = skip_space(text, 0);
    if text.get(at) != Some(&b'[') {
        return None;
    }
    let mut found = Vec::new();
    at = skip_space(text, at + 1);
    if text.get(at) == Some(&b']') {
        at += 1;
    } else {
        loop {
            at = skip_space(text, at);
            let end = skip_value(text, at, 1)?;
            if found.len() == ELEMENTS_MAX {
                return None;
            }
            found.push(at..end);
            at = skip_space(text, end);
            match text.get(at)? {
                b',' => at += 1,
                b']' => break,
                _ => return None,
            }
        }
        at += 1;
    }
    (skip_space(text, at) == text.len()).then_some(found)
}

/// Skips white space.
pub(super) fn skip_space(text: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t' | b'\r' | b'\n') = text.get(at) {
        at += 1;
    }
    at
}

/// Where the value ends that begins here, within so many others; nothing if it is no JSON. What is JSON is what Go's
/// `encoding/json` takes for it: strings may hold bytes that are no UTF-8, and escapes may denote half of a pair.
pub(super) fn skip_value(text: &[u8], mut at: usize, depth: usize) -> Option<usize> {
    // What closes the lists and objects that are open.
    let mut open: Vec<u8> = Vec::new();
    loop {
        // A value begins.
        let first = *text.get(at)?;
        match first {
            b'{' | b'[' => {
                if depth + open.len() == DEPTH_MAX {
                    return None;
                }
                let close = if first == b'{' { b'}' } else { b']' };
                at = skip_space(text, at + 1);
                if text.get(at) != Some(&close) {
                    open.push(close);
                    if close == b'}' {
                        at = skip_key(text, at)?;
                    }
                    continue;
                }
                at += 1;
            }
            b'"' => at = skip_string(text, at)?,
            b'-' | b'0'..=b'9' => at = skip_number(text, at)?,
            _ => {
                let word: &[u8] = match first {
                    b't' => b"true",
                    b'f' => b"false",
                    _ => b"null",
                };
                if !text[at..].starts_with(word) {
                    return None;
                }
                at += word.len();
            }
        }
        // A value has ended, and perhaps those around it.
        loop {
            let Some(close) = open.last() else { return Some(at) };
            at = skip_space(text, at);
            match text.get(at)? {
                b',' => {
                    at = skip_space(text, at + 1);
                    if *close == b'}' {
                        at = skip_key(text, at)?;
                    }
                    break;
                }
                byte if byte == close => {
                    open.pop();
                    at += 1;
                }
                _ => return None,
            }
        }
    }
}

/// Skips the name of a field, the colon, and the white space before the value.
pub(super) fn skip_key(text: &[u8], at: usize) -> Option<usize> {
    let at = skip_space(text, skip_string(text, at)?);
    (text.get(at) == Some(&b':')).then(|| skip_space(text, at + 1))
}

/// Skips a string with its quotes.
pub(super) fn skip_string(text: &[u8], at: usize) -> Option<usize> {
    if text.get(at) != Some(&b'"') {
        return None;
    }
    let mut at = at + 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => {
                at += match text.get(at + 1)? {
                    b'u' => {
                        let digits = text.get(at + 2..at + 6)?;
                        if !digits.iter().all(u8::is_ascii_hexdigit) {
                            return None;
                        }
                        6
                    }
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 2,
                    _ => return None,
                }
            }
            0..=0x1f => return None,
            _ => at += 1,
        }
    }
}

fn skip_number(text: &[u8], at: usize) -> Option<usize> {
    let mut at = at + usize::from(text[at] == b'-');
    let digits = |at: usize| text[at.min(text.len())..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    match text.get(at)? {
        b'0' => at += 1,
        b'1'..=b'9' => at += digits(at),
        _ => return None,
    }
    if text.get(at) == Some(&b'.') {
        let fraction = digits(at + 1);
        if fraction == 0 {
            return None;
        }
        at += 1 + fraction;
    }
    if let Some(b'e' | b'E') = text.get(at) {
        at += 1;
        if let Some(b'+' | b'-') = text.get(at) {
            at += 1;
        }
        let exponent = digits(at);
        if exponent == 0 {
            return None;
        }
        at += exponent;
    }
    Some(at)
}

/// Appends what a string between its quotes stands for. What is no UTF-8 becomes U+FFFD, byte for byte, and so does
/// half of a pair.
pub(super) fn unescape(inner: &[u8], out: &mut Vec<u8>) {
    let mut rest = inner;
    loop {
        let plain = memchr::memchr(b'\\', rest).unwrap_or(rest.len());
        push_as_utf8(&rest[..plain], out);
        rest = &rest[plain..];
        let Some(escape) = rest.get(1) else { return };
        let character = match escape {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let Some(first) = unicode_escape(rest) else { return };
                let second = rest.get(6..).and_then(unicode_escape);
                let (character, len) = match (first, second) {
                    (0xd800..=0xdbff, Some(low @ 0xdc00..=0xdfff)) => {
                        (char::from_u32(0x10000 + ((first - 0xd800) << 10) + (low - 0xdc00)), 12)
                    }
                    _ => (char::from_u32(first), 6),
                };
                let character = character.unwrap_or(char::REPLACEMENT_CHARACTER);
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                rest = &rest[len..];
                continue;
            }
            other => char::from(*other),
        };
        out.push(character as u8);
        rest = &rest[2..];
    }
}

/// The number of an escape `\uXXXX` at the beginning of a text.
fn unicode_escape(text: &[u8]) -> Option<u32> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    digits.iter().try_fold(0, |number, digit| Some(number * 16 + char::from(*digit).to_digit(16)?))
}

/// Appends a text with U+FFFD for each byte that is no UTF-8.
pub(super) fn push_as_utf8(text: &[u8], out: &mut Vec<u8>) {
    for chunk in text.utf8_chunks() {
        out.extend_from_slice(chunk.valid().as_bytes());
        for _ in chunk.invalid() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value as Json;

    #[test]
    fn entries_become_what_the_reference_makes_of_them() {
        assert!(super::super::testing::recorded("split_json") >= 6);
    }

    fn split(text: &str) -> Option<Vec<&str>> {
        Some(elements(text.as_bytes())?.into_iter().map(|place| &text[place]).collect())
    }

    fn unescaped(inner: &str) -> String {
        let mut out = Vec::new();
        unescape(inner.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn strings_may_hold_halves_of_pairs_and_bytes() {
        for (inner, expected) in [
            (r#"a\"\\\/\b\f\n\r\t"#, "a\"\\/\u{8}\u{c}\n\r\t"),
            (r"\u00e4\ud83d\ude00", "ä😀"),
            (r"\ud83dx\ude00", "\u{fffd}x\u{fffd}"),
            (r"\ud83d\u0041", "\u{fffd}A"),
            (r"\ud83d\ud83d\ude00", "\u{fffd}😀"),
        ] {
            assert_eq!(unescaped(inner), expected, "{inner}");
        }
        let mut out = Vec::new();
        unescape(b"a\xff\xfe", &mut out);
        assert_eq!(out, "a\u{fffd}\u{fffd}".as_bytes());
        assert_eq!(elements(b"[\"\xff\",1]"), Some(vec![1..4, 5..6]));
    }

    #[test]
    fn arrays_have_limits() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(split(&nested(DEPTH_MAX)).is_some());
        assert!(split(&nested(DEPTH_MAX + 1)).is_none());
        let long = |count: usize| format!("[{}]", vec!["1"; count].join(","));
        assert_eq!(split(&long(ELEMENTS_MAX)).map(|all| all.len()), Some(ELEMENTS_MAX));
        assert!(split(&long(ELEMENTS_MAX + 1)).is_none());
    }

    fn json() -> impl Strategy<Value = String> {
        let token = prop_oneof![
            Just("["),
            Just("]"),
            Just("{"),
            Just("}"),
            Just(":"),
            Just(","),
            Just("\"a\""),
            Just("\"\\n\\u00e4\""),
            Just("\"\\q\""),
            Just("\"\n\""),
            Just("1"),
            Just("-0"),
            Just("0.5"),
            Just("01"),
            Just("1e5"),
            Just("1."),
            Just("+1"),
            Just("true"),
            Just("null"),
            Just("nul"),
            Just(" "),
            Just("\n"),
            Just("\u{a0}"),
            Just("[1,"),
            Just("{\"k\":"),
        ];
        proptest::collection::vec(token, 0..12).prop_map(|tokens| tokens.concat())
    }

    proptest! {
        #[test]
        fn what_is_json_is_what_another_parser_takes(inner in json()) {
            let text = format!("[{inner}]");
            // Numbers of any size are JSON, though the values below do not hold them.
            let is_json = serde_json::from_str::<Vec<serde::de::IgnoredAny>>(&text).is_ok();
            let found = split(&text);
            prop_assert_eq!(found.is_some(), is_json, "{}", text);
            let expected = serde_json::from_str::<Vec<Json>>(&text).unwrap_or_default();
            for (element, expected) in found.into_iter().flatten().zip(expected) {
                prop_assert_eq!(element.trim(), element);
                prop_assert_eq!(serde_json::from_str::<Json>(element).unwrap(), expected);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(text in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'"'), Just(b'['), Just(b'\\')], 0..30)) {
            let _ = elements(&text);
            unescape(&text, &mut Vec::new());
        }
    }
}
