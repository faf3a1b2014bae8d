//! Functions on texts.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Type::{Any, Int, Text};
use super::{Answer, Function, Type, any, function, int, text, variadic};
use crate::template::{Exec, ListKind, OUTPUT_BYTES_MAX, Value};
use crate::text::{
    self, chars, decode, is_letter, is_lower, is_number, is_punctuation, is_title, is_upper, map, push, to_lower,
    to_title, to_upper, trim_end, trim_start,
};

const TWO: &[Type] = &[Text, Text];

pub(super) const FUNCTIONS: &[Function] = &[
    function("abbrev", &[Int, Text], |_, args| {
        let width = int(args, 0);
        if width < 4 {
            return Ok(any(args, 1).clone());
        }
        Ok(Value::from(abbreviate(text(args, 1), 0, size(width))))
    }),
    function("abbrevboth", &[Int, Int, Text], |_, args| {
        let (left, right) = (int(args, 0), int(args, 1));
        if right < 4 || left > 0 && right < 7 {
            return Ok(any(args, 2).clone());
        }
        // An offset below zero is as good as none.
        Ok(Value::from(abbreviate(text(args, 2), size(left), size(right))))
    }),
    function("camelcase", &[Text], |_, args| Ok(Value::from(pascal_case(text(args, 0))))),
    variadic("cat", &[], Any, |_, args| {
        let shown = args.iter().filter(|arg| !matches!(arg, Value::Nil)).map(Value::print);
        let parts = shown.collect::<Result<Vec<_>, _>>()?;
        Ok(Value::from(parts.join(&b" "[..])))
    }),
    function("contains", TWO, |_, args| Ok(Value::Bool(text::find(text(args, 1), text(args, 0), 0).is_some()))),
    function("hasPrefix", TWO, |_, args| Ok(Value::Bool(text(args, 1).starts_with(text(args, 0))))),
    function("hasSuffix", TWO, |_, args| Ok(Value::Bool(text(args, 1).ends_with(text(args, 0))))),
    function("hello", &[], |_, _| Ok(Value::from("Hello!"))),
    function("indent", &[Int, Text], |_, args| indent(int(args, 0), text(args, 1), b"")),
    function("initials", &[Text], |_, args| {
        // Bytes are taken for characters, as the reference does.
        let mut out = Vec::new();
        let mut gap = true;
        for byte in text(args, 0) {
            let character = char::from(*byte);
            if character.is_whitespace() {
                gap = true;
            } else if gap {
                push(&mut out, character);
                gap = false;
            }
        }
        Ok(Value::from(out))
    }),
    function("join", &[Text, Any], |_, args| {
        let parts = texts(any(args, 1))?;
        let total = parts.iter().fold(0usize, |sum, part| sum + part.len() + text(args, 0).len());
        fits(total)?;
        Ok(Value::from(parts.join(&text(args, 0)[..])))
    }),
    function("kebabcase", &[Text], |_, args| Ok(Value::from(lower_case_words(text(args, 0), b'-')))),
    function("lower", &[Text], |_, args| Ok(Value::from(map(text(args, 0), to_lower)))),
    function("nindent", &[Int, Text], |_, args| indent(int(args, 0), text(args, 1), b"\n")),
    function("nospace", &[Text], |_, args| {
        // Bytes are taken for characters, as the reference does, but only where there is something to take out.
        let subject = text(args, 0);
        if !subject.iter().any(|byte| char::from(*byte).is_whitespace()) {
            return Ok(Value::Text(subject.clone()));
        }
        let mut out = Vec::new();
        for byte in subject.iter().filter(|byte| !char::from(**byte).is_whitespace()) {
            push(&mut out, char::from(*byte));
        }
        Ok(Value::from(out))
    }),
    function("plural", &[Text, Text, Int], |_, args| Ok(any(args, if int(args, 2) == 1 { 0 } else { 1 }).clone())),
    variadic("quote", &[], Any, |_, args| {
        let mut out = Vec::new();
        for arg in args.iter().filter(|arg| !matches!(arg, Value::Nil)) {
            let quoted = text::quote(&arg.print()?);
            out.push(quoted);
        }
        Ok(Value::from(out.join(" ")))
    }),
    function("repeat", &[Int, Text], |_, args| repeat(text(args, 1), int(args, 0)).map(Value::from)),
    function("replace", &[Text, Text, Text], |_, args| replaced(text(args, 2), text(args, 0), text(args, 1), -1)),
    function("snakecase", &[Text], |_, args| Ok(Value::from(lower_case_words(text(args, 0), b'_')))),
    function("split", TWO, |exec, args| {
        let parts = text::split(text(args, 1), text(args, 0), usize::MAX);
        numbered(exec, &parts)
    }),
    function("splitList", TWO, |exec, args| {
        let parts = text::split(text(args, 1), text(args, 0), usize::MAX);
        exec.charge(parts.len() * 32)?;
        exec.list(ListKind::Text, parts.into_iter().map(Value::text).collect())
    }),
    function("splitn", &[Text, Int, Text], |exec, args| {
        let pieces_max = usize::try_from(int(args, 1)).unwrap_or(usize::MAX);
        let parts = text::split(text(args, 2), text(args, 0), pieces_max);
        numbered(exec, &parts)
    }),
    variadic("squote", &[], Any, |_, args| {
        let mut out = Vec::new();
        for arg in args.iter().filter(|arg| !matches!(arg, Value::Nil)) {
            out.push([b"'", &arg.print()?[..], b"'"].concat());
        }
        Ok(Value::from(out.join(&b" "[..])))
    }),
    function("substr", &[Int, Int, Text], |_, args| {
        let (start, end, subject) = (int(args, 0), int(args, 1), text(args, 2));
        let len = subject.len() as i64;
        let range = match (start, end) {
            (..0, end) => 0..end,
            (start, end) if end < 0 || end > len => start..len,
            (start, end) => start..end,
        };
        part(subject, range.start, range.end)
    }),
    function("swapcase", &[Text], |_, args| {
        let mut out = Vec::new();
        let mut after_space = true;
        for (_, character, _) in chars(text(args, 0)) {
            let swapped = if is_upper(character) || is_title(character) {
                after_space = false;
                to_lower(character)
            } else if is_lower(character) {
                if std::mem::take(&mut after_space) { to_title(character) } else { to_upper(character) }
            } else {
                after_space = character.is_whitespace();
                character
            };
            push(&mut out, swapped);
        }
        Ok(Value::from(out))
    }),
    function("title", &[Text], |_, args| {
        let mut out = Vec::new();
        let mut before = ' ';
        for (_, character, _) in chars(text(args, 0)) {
            push(&mut out, if separates(before) { to_title(character) } else { character });
            before = character;
        }
        Ok(Value::from(out))
    }),
    function("toString", &[Any], |_, args| any(args, 0).print().map(Value::Text)),
    function("toStrings", &[Any], |exec, args| {
        let parts = texts(any(args, 0))?;
        exec.list(ListKind::Text, parts.into_iter().map(Value::Text).collect())
    }),
    function("trim", &[Text], |_, args| {
        let is = char::is_whitespace;
        Ok(Value::text(trim_end(trim_start(text(args, 0), is), is)))
    }),
    function("trimAll", TWO, trim_all),
    function("trimPrefix", TWO, |_, args| {
        let subject = text(args, 1);
        Ok(subject.strip_prefix(&text(args, 0)[..]).map_or_else(|| Value::Text(subject.clone()), Value::text))
    }),
    function("trimSuffix", TWO, |_, args| {
        let subject = text(args, 1);
        Ok(subject.strip_suffix(&text(args, 0)[..]).map_or_else(|| Value::Text(subject.clone()), Value::text))
    }),
    function("trimall", TWO, trim_all),
    function("trunc", &[Int, Text], |_, args| {
        let (count, subject) = (int(args, 0), text(args, 1));
        let len = subject.len() as i64;
        if count < 0 && len + count > 0 {
            return part(subject, len + count, len);
        }
        if count >= 0 && len > count {
            return part(subject, 0, count);
        }
        Ok(Value::Text(subject.clone()))
    }),
    function("untitle", &[Text], |_, args| {
        let mut out = Vec::new();
        let mut first = true;
        for (_, character, _) in chars(text(args, 0)) {
            if character.is_whitespace() {
                first = true;
                push(&mut out, character);
            } else {
                push(&mut out, if std::mem::take(&mut first) { to_lower(character) } else { character });
            }
        }
        Ok(Value::from(out))
    }),
    function("upper", &[Text], |_, args| Ok(Value::from(map(text(args, 0), to_upper)))),
    function("wrap", &[Int, Text], |_, args| wrap(text(args, 1), int(args, 0), b"\n", false)),
    function("wrapWith", &[Int, Text, Text], |_, args| {
        let separator = text(args, 1);
        wrap(text(args, 2), int(args, 0), if separator.is_empty() { b"\n" } else { separator }, true)
    }),
];

/// A number of bytes; none below zero.
fn size(value: i64) -> usize {
    usize::try_from(value).unwrap_or(0)
}

fn fits(len: usize) -> Result<(), String> {
    if len > OUTPUT_BYTES_MAX { Err(too_large()) } else { Ok(()) }
}

fn too_large() -> String {
    format!("result is larger than {OUTPUT_BYTES_MAX} bytes")
}

/// Whether a character is in a set.
pub(super) fn in_set(set: &[u8]) -> impl Fn(char) -> bool {
    move |character| chars(set).any(|(_, member, _)| member == character)
}

/// At most so many occurrences replaced; below zero, all.
pub(super) fn replaced(subject: &[u8], old: &[u8], new: &[u8], times: i64) -> Answer {
    let times = usize::try_from(times).unwrap_or(usize::MAX);
    text::replace(subject, old, new, times, OUTPUT_BYTES_MAX).map(Value::from).ok_or_else(too_large)
}

fn repeat(subject: &[u8], times: i64) -> Result<Vec<u8>, String> {
    let times = usize::try_from(times).map_err(|_| "strings: negative Repeat count".to_owned())?;
    fits(subject.len().saturating_mul(times))?;
    Ok(subject.repeat(times))
}

fn indent(spaces: i64, subject: &[u8], before: &[u8]) -> Answer {
    let padding = repeat(b" ", spaces)?;
    let line = [b"\n", &padding[..]].concat();
    let body = text::replace(subject, b"\n", &line, usize::MAX, OUTPUT_BYTES_MAX).ok_or_else(too_large)?;
    Ok(Value::from([before, &padding, &body].concat()))
}

/// The bytes of a range, or Go's panic.
fn part(subject: &Bytes, start: i64, end: i64) -> Answer {
    let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
    match range.filter(|(start, end)| start <= end && *end <= subject.len()) {
        Some((start, end)) => Ok(Value::Text(subject.slice(start..end))),
        None => Err("runtime error: slice bounds out of range".to_owned()),
    }
}

fn trim_all(_: &mut Exec<'_>, args: &[Value]) -> Answer {
    let set = in_set(text(args, 0));
    Ok(Value::text(trim_end(trim_start(text(args, 1), &set), &set)))
}

/// A map of the parts by `_0`, `_1`, ...
fn numbered(exec: &mut Exec<'_>, parts: &[&[u8]]) -> Answer {
    exec.charge(parts.len() * 64)?;
    let name = |index: usize| Bytes::from(format!("_{index}"));
    let fields: BTreeMap<_, _> =
        parts.iter().enumerate().map(|(index, part)| (name(index), Value::text(part))).collect();
    Ok(exec.text_dict(fields))
}

/// The items of a list as texts, without those that are nil; a single text of anything else.
pub(super) fn texts(value: &Value) -> Result<Vec<Bytes>, String> {
    match value {
        Value::Nil => Ok(Vec::new()),
        Value::List(list) => list.items.iter().filter(|item| !matches!(item, Value::Nil)).map(Value::print).collect(),
        other => Ok(vec![other.print()?]),
    }
}

fn separates(character: char) -> bool {
    if character.is_ascii() {
        return !character.is_ascii_alphanumeric() && character != '_';
    }
    !is_letter(character) && !text::is_digit(character) && character.is_whitespace()
}

/// Cut to a width in bytes, with dots in place of what is cut off, at the left too from an offset above four on.
fn abbreviate(subject: &[u8], offset: usize, width: usize) -> Vec<u8> {
    let len = subject.len();
    if len <= width || width < 4 {
        return if width < 4 { Vec::new() } else { subject.to_vec() };
    }
    let mut offset = offset.min(len);
    if len - offset < width - 3 {
        offset = len - (width - 3);
    }
    if offset <= 4 {
        return [&subject[..width - 3], b"..."].concat();
    }
    if width < 7 {
        return Vec::new();
    }
    if offset + width - 3 < len {
        return [b"...", &abbreviate(&subject[offset..], 0, width - 3)[..]].concat();
    }
    [b"...", &subject[len - (width - 3)..]].concat()
}

/// Wraps at spaces so that lines have at most so many bytes, if words allow it.
fn wrap(subject: &[u8], width: i64, separator: &[u8], cut_words: bool) -> Answer {
    let width = size(width).max(1);
    let len = subject.len();
    let mut out = Vec::with_capacity(len);
    let mut at = 0;
    while len - at > width {
        if subject[at] == b' ' {
            at += 1;
            continue;
        }
        let (line, next) = match memchr::memrchr(b' ', &subject[at..=at + width]) {
            Some(space) => (at..at + space, at + space + 1),
            None if cut_words => (at..at + width, at + width),
            None => match memchr::memchr(b' ', &subject[at + width..]) {
                Some(space) => (at..at + width + space, at + width + space + 1),
                None => break,
            },
        };
        out.extend_from_slice(&subject[line]);
        out.extend_from_slice(separator);
        fits(out.len())?;
        at = next;
    }
    out.extend_from_slice(&subject[at..]);
    Ok(Value::from(out))
}

fn connects(character: char) -> bool {
    character == '-' || character == '_' || character.is_whitespace()
}

/// Words joined, each with a capital.
fn pascal_case(subject: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(subject.len());
    let mut rest = subject;
    let mut current = None;
    let mut capitals = false;
    // Connectors at the start stay.
    while let Some((character, len)) = decode(rest) {
        rest = &rest[len..];
        if !connects(character) {
            capitals = is_upper(character);
            current = Some(to_upper(character));
            break;
        }
        push(&mut out, character);
        current = Some(character);
    }
    let Some(mut current) = current else { return out };
    while let Some((character, len)) = decode(rest) {
        rest = &rest[len..];
        let before = std::mem::replace(&mut current, character);
        if connects(character) && connects(before) {
            push(&mut out, before);
            continue;
        }
        if connects(before) {
            capitals = is_upper(character);
            current = to_upper(character);
            continue;
        }
        if capitals {
            if is_upper(character) {
                current = to_lower(character);
            } else {
                capitals = false;
            }
        }
        push(&mut out, before);
    }
    push(&mut out, current);
    out
}

/// What a word is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// Nothing, or what is no UTF-8.
    None,
    Number,
    /// One that begins with a capital.
    Upper,
    Letters,
    Connector,
    Punctuation,
    Other,
}

/// Letters of scripts that write words.
fn is_alphabet(character: char) -> bool {
    is_letter(character) && !matches!(u32::from(character), 0x4e00..=0x9fcc | 0x3400..=0x4d85 | 0x2_0000..=0x2_b81d)
}

/// The next valid character and how many bytes to it and with it; the one before if there is none.
fn next_valid(bytes: &[u8], before: char) -> (char, usize) {
    let mut size = 0;
    while let Some((character, len)) = decode(&bytes[size..]) {
        size += len;
        if character != char::REPLACEMENT_CHARACTER {
            return (character, size);
        }
    }
    (before, size)
}

/// Cuts off the next word.
fn next_word(bytes: &[u8]) -> (Word, &[u8], &[u8]) {
    if bytes.is_empty() {
        return (Word::None, b"", b"");
    }
    let (first, mut end) = next_valid(bytes, char::REPLACEMENT_CHARACTER);
    if first == char::REPLACEMENT_CHARACTER {
        return (Word::None, &bytes[..end], &bytes[end..]);
    }
    // Takes characters as long as they belong to the word; the last one looked at is told.
    let take = |end: &mut usize, belongs: &dyn Fn(char) -> bool, mut last: char| {
        while *end < bytes.len() {
            let (character, len) = next_valid(&bytes[*end..], last);
            last = character;
            if !belongs(character) {
                break;
            }
            *end += len;
        }
        last
    };
    let lower = |character: char| is_alphabet(character) && !is_upper(character);
    let word = if connects(first) {
        take(&mut end, &connects, first);
        Word::Connector
    } else if is_punctuation(first) {
        take(&mut end, &is_punctuation, first);
        Word::Punctuation
    } else if is_upper(first) {
        if end < bytes.len() {
            let (second, len) = next_valid(&bytes[end..], first);
            if is_upper(second) {
                let mut last_len = len;
                end += len;
                let mut follower = second;
                while end < bytes.len() {
                    let (character, len) = next_valid(&bytes[end..], follower);
                    follower = character;
                    if !is_upper(character) {
                        break;
                    }
                    last_len = len;
                    end += len;
                }
                // The last capital belongs to the word that follows.
                if end < bytes.len() && is_alphabet(follower) {
                    end -= last_len;
                }
            } else if is_alphabet(second) {
                end += len;
                take(&mut end, &lower, second);
            }
        }
        Word::Upper
    } else if is_alphabet(first) {
        take(&mut end, &lower, first);
        Word::Letters
    } else if is_number(first) {
        take(&mut end, &is_number, first);
        Word::Number
    } else {
        let other = |character: char| {
            !(connects(character) || is_alphabet(character) || is_number(character) || is_punctuation(character))
        };
        take(&mut end, &other, first);
        Word::Other
    };
    (word, &bytes[..end], &bytes[end..])
}

/// Words in lower case with a connector between them.
fn lower_case_words(subject: &[u8], connector: u8) -> Vec<u8> {
    let mut out = Vec::with_capacity(subject.len() + 8);
    let write = |out: &mut Vec<u8>, word: Word, bytes: &[u8]| {
        if !matches!(word, Word::Upper | Word::Connector) {
            out.extend_from_slice(bytes);
            return;
        }
        for (_, character, _) in chars(bytes) {
            if connects(character) {
                out.push(connector);
            } else {
                push(out, if is_upper(character) { to_lower(character) } else { character });
            }
        }
    };
    let joins = |word: Word| matches!(word, Word::Letters | Word::Number);
    let (mut word, mut bytes, mut rest) = next_word(subject);
    while !rest.is_empty() {
        if word != Word::Connector {
            write(&mut out, word, bytes);
        }
        let (before, last) = (word, bytes);
        (word, bytes, rest) = next_word(rest);
        match before {
            Word::Number => {
                while joins(word) {
                    write(&mut out, word, bytes);
                    (word, bytes, rest) = next_word(rest);
                }
                if !matches!(word, Word::None | Word::Punctuation | Word::Connector) {
                    out.push(connector);
                }
            }
            Word::Connector => write(&mut out, before, last),
            Word::Punctuation => {}
            _ if word != Word::Number => {
                if !matches!(word, Word::Connector | Word::Punctuation) {
                    out.push(connector);
                }
            }
            _ => {
                if rest.is_empty() {
                    break;
                }
                let digits = bytes;
                (word, bytes, rest) = next_word(rest);
                if word != Word::Letters {
                    // The number belongs to the word before it.
                    write(&mut out, Word::Number, digits);
                    if !matches!(word, Word::Connector | Word::Punctuation) {
                        out.push(connector);
                    }
                    continue;
                }
                out.push(connector);
                write(&mut out, Word::Number, digits);
                while joins(word) {
                    write(&mut out, word, bytes);
                    (word, bytes, rest) = next_word(rest);
                }
                if !matches!(word, Word::None | Word::Punctuation | Word::Connector) {
                    out.push(connector);
                }
            }
        }
    }
    write(&mut out, word, bytes);
    out
}
