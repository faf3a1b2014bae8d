//! Text as Go sees it: bytes that need not be UTF-8, characters mapped one to one, and its quotes.

use std::fmt::Write as _;

use unicode_general_category::{GeneralCategory as Category, get_general_category};

/// The character at the start of the bytes and how many bytes it takes. A byte that begins no character is U+FFFD, of
/// one byte. Nothing at the end.
pub(crate) fn decode(bytes: &[u8]) -> Option<(char, usize)> {
    let first = *bytes.first()?;
    if first < 0x80 {
        return Some((char::from(first), 1));
    }
    let len = match first {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    };
    let character = bytes.get(..len).and_then(|bytes| std::str::from_utf8(bytes).ok()).and_then(|s| s.chars().next());
    Some(character.map_or((char::REPLACEMENT_CHARACTER, 1), |character| (character, len)))
}

/// The characters with the place and the number of bytes of each.
pub(crate) fn chars(bytes: &[u8]) -> impl Iterator<Item = (usize, char, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let (character, len) = decode(&bytes[at..])?;
        let place = at;
        at += len;
        Some((place, character, len))
    })
}

/// Each character mapped; what is no UTF-8 becomes U+FFFD.
pub fn map(bytes: &[u8], mapping: impl Fn(char) -> char) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for (_, character, _) in chars(bytes) {
        push(&mut out, mapping(character));
    }
    out
}

/// Appends a character.
pub(crate) fn push(out: &mut Vec<u8>, character: char) {
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
}

/// Writes bytes in hexadecimal digits.
pub fn push_hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend(bytes.iter().flat_map(|byte| [byte >> 4, byte & 15].map(|digit| DIGITS[usize::from(digit)])));
}

/// Bytes in hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let mut out = Vec::with_capacity(2 * bytes.len());
    push_hex(bytes, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

/// The one upper case character of a character, as Unicode's simple mapping has it.
pub fn to_upper(character: char) -> char {
    if character.is_ascii() {
        return character.to_ascii_uppercase();
    }
    let code = u32::from(character);
    let simple = match code {
        // Greek letters with an iota below, whose full mapping has two characters.
        0x1f80..=0x1f87 | 0x1f90..=0x1f97 | 0x1fa0..=0x1fa7 => char::from_u32(code + 8),
        0x1fb3 | 0x1fc3 | 0x1ff3 => char::from_u32(code + 9),
        _ => single(character.to_uppercase()),
    };
    simple.unwrap_or(character)
}

/// The one lower case character of a character, as Unicode's simple mapping has it.
pub fn to_lower(character: char) -> char {
    if character.is_ascii() {
        return character.to_ascii_lowercase();
    }
    if character == 'İ' {
        return 'i';
    }
    single(character.to_lowercase()).unwrap_or(character)
}

/// The one title case character of a character.
pub(crate) fn to_title(character: char) -> char {
    match u32::from(character) {
        0x01c4..=0x01c6 => '\u{01c5}',
        0x01c7..=0x01c9 => '\u{01c8}',
        0x01ca..=0x01cc => '\u{01cb}',
        0x01f1..=0x01f3 => '\u{01f2}',
        // Georgian letters have capitals, but titles do not use them.
        0x10d0..=0x10fa | 0x10fd..=0x10ff => character,
        _ => to_upper(character),
    }
}

fn single(mut mapped: impl Iterator<Item = char>) -> Option<char> {
    let first = mapped.next();
    if mapped.next().is_some() { None } else { first }
}

pub(crate) fn is_letter(character: char) -> bool {
    if character.is_ascii() {
        return character.is_ascii_alphabetic();
    }
    matches!(
        get_general_category(character),
        Category::UppercaseLetter
            | Category::LowercaseLetter
            | Category::TitlecaseLetter
            | Category::ModifierLetter
            | Category::OtherLetter
    )
}

pub(crate) fn is_digit(character: char) -> bool {
    character.is_ascii_digit() || !character.is_ascii() && get_general_category(character) == Category::DecimalNumber
}

pub(crate) fn is_number(character: char) -> bool {
    character.is_ascii_digit()
        || !character.is_ascii()
            && matches!(
                get_general_category(character),
                Category::DecimalNumber | Category::LetterNumber | Category::OtherNumber
            )
}

pub(crate) fn is_upper(character: char) -> bool {
    get_general_category(character) == Category::UppercaseLetter
}

pub(crate) fn is_lower(character: char) -> bool {
    get_general_category(character) == Category::LowercaseLetter
}

pub(crate) fn is_title(character: char) -> bool {
    get_general_category(character) == Category::TitlecaseLetter
}

pub(crate) fn is_punctuation(character: char) -> bool {
    matches!(
        get_general_category(character),
        Category::ConnectorPunctuation
            | Category::DashPunctuation
            | Category::OpenPunctuation
            | Category::ClosePunctuation
            | Category::InitialPunctuation
            | Category::FinalPunctuation
            | Category::OtherPunctuation
    )
}

pub(crate) fn is_printable(character: char) -> bool {
    if character.is_ascii() {
        return (' '..='~').contains(&character);
    }
    !matches!(
        get_general_category(character),
        Category::Control
            | Category::Format
            | Category::Surrogate
            | Category::PrivateUse
            | Category::Unassigned
            | Category::SpaceSeparator
            | Category::LineSeparator
            | Category::ParagraphSeparator
    )
}

/// A character as Go's verb `%#U` prints it.
pub(crate) fn character_name(character: char) -> String {
    let code = u32::from(character);
    if is_printable(character) { format!("U+{code:04X} '{character}'") } else { format!("U+{code:04X}") }
}

/// The text between double quotes, as Go's `strconv.Quote` writes it.
pub(crate) fn quote(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for (place, character, len) in chars(bytes) {
        match character {
            char::REPLACEMENT_CHARACTER if len == 1 => _ = write!(out, "\\x{:02x}", bytes[place]),
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            _ if is_printable(character) => out.push(character),
            // Writing to a string cannot fail.
            _ => {
                let code = u32::from(character);
                _ = match code {
                    0..0x20 | 0x7f => write!(out, "\\x{code:02x}"),
                    0x80..0x1_0000 => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push('"');
    out
}

/// What a character of a literal stands for: a character, or a byte that need not be one.
pub(crate) enum Unit {
    Char(char),
    Byte(u8),
}

/// Reads one character or escape of a literal in these quotes and tells how long it is. Nothing for what Go's
/// `strconv.UnquoteChar` refuses.
pub(crate) fn unquote_char(bytes: &[u8], quote: u8) -> Option<(Unit, usize)> {
    let first = *bytes.first()?;
    if first == quote && (quote == b'\'' || quote == b'"') {
        return None;
    }
    if first != b'\\' {
        let (character, len) = decode(bytes)?;
        return Some((Unit::Char(character), len));
    }
    let escape = *bytes.get(1)?;
    let simple = match escape {
        b'a' => 7,
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 11,
        b'\\' => b'\\',
        b'\'' | b'"' if escape == quote => escape,
        b'x' | b'u' | b'U' => {
            let count = match escape {
                b'x' => 2,
                b'u' => 4,
                _ => 8,
            };
            let value = digits(bytes.get(2..2 + count)?, 16)?;
            let unit = match escape {
                b'x' => Unit::Byte(u8::try_from(value).ok()?),
                _ => Unit::Char(char::from_u32(value)?),
            };
            return Some((unit, 2 + count));
        }
        b'0'..=b'7' => {
            let value = digits(bytes.get(1..4)?, 8)?;
            return Some((Unit::Byte(u8::try_from(value).ok()?), 4));
        }
        _ => return None,
    };
    Some((Unit::Byte(simple), 2))
}

fn digits(bytes: &[u8], radix: u32) -> Option<u32> {
    bytes.iter().try_fold(0u32, |value, byte| value.checked_mul(radix)?.checked_add(char::from(*byte).to_digit(radix)?))
}

/// The text that a literal with its quotes, double ones or backquotes, stands for; nothing for what is none.
pub(crate) fn unquote(literal: &str) -> Option<Vec<u8>> {
    let inner = |quote| literal.strip_prefix(quote)?.strip_suffix(quote);
    if literal.len() < 2 {
        return None;
    }
    if let Some(raw) = inner('`') {
        return (!raw.contains('`')).then(|| raw.replace('\r', "").into_bytes());
    }
    let mut rest = inner('"')?.as_bytes();
    let mut out = Vec::with_capacity(rest.len());
    while !rest.is_empty() {
        if rest[0] == b'\n' {
            return None;
        }
        let (unit, len) = unquote_char(rest, b'"')?;
        match unit {
            Unit::Char(character) => push(&mut out, character),
            Unit::Byte(byte) => out.push(byte),
        }
        rest = &rest[len..];
    }
    Some(out)
}

/// The text that a literal of Go's with its quotes stands for, as `strconv.Unquote` finds it: in double quotes or
/// backquotes, or one character in single quotes. Nothing for what is none.
pub fn unquote_literal(literal: &str) -> Option<Vec<u8>> {
    let Some(inner) = literal.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) else {
        return unquote(literal);
    };
    if inner.is_empty() {
        // Go lets this pass.
        return (literal.len() == 2).then(Vec::new);
    }
    let (unit, len) = unquote_char(inner.as_bytes(), b'\'')?;
    let mut out = Vec::new();
    match unit {
        Unit::Char('\n') => return None,
        Unit::Char(character) => push(&mut out, character),
        Unit::Byte(byte) => out.push(byte),
    }
    (len == inner.len()).then_some(out)
}

/// The parts between delimiters that stand in no quotes, without the quotes: how the collector splits pairs of keys and
/// values.
///
/// # Errors
///
/// A quote is not closed.
pub fn split_quoted(text: &[u8], delimiter: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
    let (mut parts, mut current) = (Vec::new(), Vec::new());
    let (mut quote, mut escaped) = (None, false);
    let mut at = 0;
    while at < text.len() {
        if quote.is_none() && text[at..].starts_with(delimiter) {
            if !current.is_empty() {
                parts.push(std::mem::take(&mut current));
            }
            at += delimiter.len().max(1);
            continue;
        }
        let byte = text[at];
        at += 1;
        if escaped {
            escaped = false;
        } else {
            if quote.is_none() && (byte == b'"' || byte == b'\'') {
                quote = Some(byte);
                continue;
            }
            if quote == Some(byte) {
                quote = None;
                continue;
            }
            escaped = byte == b'\\';
        }
        current.push(byte);
    }
    if quote.is_some() {
        return Err("never reached the end of a quoted value");
    }
    if !current.is_empty() {
        parts.push(current);
    }
    Ok(parts)
}

/// Without the characters at the start that are of a kind.
pub(crate) fn trim_start(bytes: &[u8], is: impl Fn(char) -> bool) -> &[u8] {
    let mut rest = bytes;
    while let Some((character, len)) = decode(rest) {
        if !is(character) {
            break;
        }
        rest = &rest[len..];
    }
    rest
}

/// Without the characters at the end that are of a kind.
pub(crate) fn trim_end(bytes: &[u8], is: impl Fn(char) -> bool) -> &[u8] {
    let mut rest = bytes;
    while let Some((character, len)) = decode_last(rest) {
        if !is(character) {
            break;
        }
        rest = &rest[..rest.len() - len];
    }
    rest
}

/// As [`decode`], of the last character.
fn decode_last(bytes: &[u8]) -> Option<(char, usize)> {
    let end = bytes.len();
    for len in 1..=4.min(end) {
        if let Some((character, found)) = decode(&bytes[end - len..])
            && found == len
            && (len == 1 && character.is_ascii() || len > 1)
        {
            return Some((character, len));
        }
    }
    (end > 0).then_some((char::REPLACEMENT_CHARACTER, 1))
}

/// Where a text first stands in another, at or behind a place.
pub(crate) fn find(bytes: &[u8], what: &[u8], from: usize) -> Option<usize> {
    memchr::memmem::find(bytes.get(from..)?, what).map(|at| from + at)
}

/// The pieces between separators, at most so many if a number is given. An empty separator parts the characters.
pub(crate) fn split<'a>(bytes: &'a [u8], separator: &[u8], pieces_max: usize) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    if pieces_max == 0 {
        return pieces;
    }
    if separator.is_empty() {
        for (at, _, len) in chars(bytes) {
            if pieces.len() + 1 == pieces_max {
                pieces.push(&bytes[at..]);
                return pieces;
            }
            pieces.push(&bytes[at..at + len]);
        }
        return pieces;
    }
    let mut start = 0;
    while pieces.len() + 1 < pieces_max
        && let Some(at) = find(bytes, separator, start)
    {
        pieces.push(&bytes[start..at]);
        start = at + separator.len();
    }
    pieces.push(&bytes[start..]);
    pieces
}

/// At most so many occurrences of a text replaced. An empty one stands before each character and at the end. Nothing
/// if the result would be longer than a number of bytes.
pub(crate) fn replace(bytes: &[u8], old: &[u8], new: &[u8], times: usize, bytes_max: usize) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len());
    let (mut copied, mut done) = (0, 0);
    if old.is_empty() {
        for (at, _, len) in chars(bytes) {
            if done == times {
                break;
            }
            out.extend_from_slice(new);
            out.extend_from_slice(&bytes[at..at + len]);
            copied = at + len;
            done += 1;
            if out.len() > bytes_max {
                return None;
            }
        }
        if copied == bytes.len() && done < times {
            out.extend_from_slice(new);
        }
    } else {
        while done < times
            && let Some(at) = find(bytes, old, copied)
        {
            out.extend_from_slice(&bytes[copied..at]);
            out.extend_from_slice(new);
            copied = at + old.len();
            done += 1;
            if out.len() > bytes_max {
                return None;
            }
        }
    }
    out.extend_from_slice(&bytes[copied..]);
    (out.len() <= bytes_max).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn characters_map_one_to_one() {
        assert_eq!(map("ßİǆaé\u{1f80}".as_bytes(), to_upper), "ßİǄAÉ\u{1f88}".as_bytes());
        assert_eq!(map("İǄΣ".as_bytes(), to_lower), "iǆσ".as_bytes());
        assert_eq!(to_title('ǆ'), 'ǅ');
        assert_eq!(map(b"a\xffb", to_upper), "A\u{fffd}B".as_bytes());
    }

    #[test]
    fn quotes_escape_what_cannot_be_shown() {
        assert_eq!(quote(b"a\xff\n\"\x00"), r#""a\xff\n\"\x00""#);
        assert_eq!(quote("\u{a0}\u{fffd}ž".as_bytes()), "\"\\u00a0\u{fffd}ž\"");
    }

    #[test]
    fn pieces_and_replacements_are_those_of_go() {
        let split = |text: &'static str, separator: &str, max| -> Vec<&'static str> {
            let pieces = super::split(text.as_bytes(), separator.as_bytes(), max);
            pieces.into_iter().map(|piece| std::str::from_utf8(piece).unwrap()).collect()
        };
        assert_eq!(split("a,b,c", ",", usize::MAX), ["a", "b", "c"]);
        assert_eq!(split("a,b,c", ",", 2), ["a", "b,c"]);
        assert_eq!(split("", ",", usize::MAX), [""]);
        assert_eq!(split("žb", "", usize::MAX), ["ž", "b"]);
        assert_eq!(split("abc", "", 2), ["a", "bc"]);
        assert_eq!(replace(b"ab", b"", b"-", usize::MAX, 100).unwrap(), b"-a-b-");
        assert_eq!(replace(b"ab", b"", b"-", 2, 100).unwrap(), b"-a-b");
        assert_eq!(replace(b"aaa", b"a", b"b", 2, 100).unwrap(), b"bba");
        assert_eq!(replace(b"aaa", b"a", b"bbbb", 2, 5), None);
    }

    proptest! {
        #[test]
        fn any_text_survives_its_quotes(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            prop_assert_eq!(unquote(&quote(&bytes)), Some(bytes));
        }

        #[test]
        fn characters_are_found_from_both_ends(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            prop_assert_eq!(chars(&bytes).map(|(_, _, len)| len).sum::<usize>(), bytes.len());
            prop_assert!(trim_end(&bytes, |_| true).is_empty());
            prop_assert!(trim_start(&bytes, |_| true).is_empty());
        }

        #[test]
        fn any_literal_is_read_without_a_panic(text in "[\"`']?(\\\\?[a-zA-Z0-9\\\\\"é\n]){0,12}[\"`']?") {
            unquote(&text);
        }
    }
}
