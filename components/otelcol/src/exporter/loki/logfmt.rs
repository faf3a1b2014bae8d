//! Logfmt, `key=value key="a value"`, as the library reads and writes it that the reference uses.

use std::borrow::Cow;

use corten_golang::logfmt::push_key;

use crate::translate::chars;

/// How long a line may be to be read, in bytes.
const LINE_BYTES_MAX: usize = 1 << 16;

/// A pair that was read: a key without a value has an empty one.
pub(super) type Pair<'a> = (&'a [u8], Cow<'a, [u8]>);

/// Reads the first line of a text; nothing if it is no logfmt.
pub(super) fn read(text: &[u8]) -> Option<Vec<Pair<'_>>> {
    let line = match text.iter().take(LINE_BYTES_MAX).position(|byte| *byte == b'\n') {
        Some(end) => &text[..end],
        None if text.len() >= LINE_BYTES_MAX => return None,
        None => text,
    };
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut pairs = Vec::new();
    let mut rest = line;
    loop {
        rest = &rest[rest.iter().position(|byte| *byte > b' ').unwrap_or(rest.len())..];
        if rest.is_empty() {
            return Some(pairs);
        }
        let (key, after) = rest.split_at(token_len(rest));
        let valid = std::str::from_utf8(key).is_ok_and(|key| !key.contains(char::REPLACEMENT_CHARACTER));
        if key.is_empty() || !valid {
            return None;
        }
        let value = match after.first() {
            Some(b'"') => return None,
            Some(b'=') => &after[1..],
            _ => {
                pairs.push((key, Cow::Borrowed(&[][..])));
                rest = after;
                continue;
            }
        };
        if let Some(quoted) = value.strip_prefix(b"\"") {
            let (value, after) = read_quoted(quoted)?;
            pairs.push((key, value));
            rest = after;
            continue;
        }
        let (value, after) = value.split_at(token_len(value));
        if matches!(after.first(), Some(b'=' | b'"')) {
            return None;
        }
        pairs.push((key, Cow::Borrowed(value)));
        rest = after;
    }
}

/// How long a key is, or a value without quotes.
fn token_len(text: &[u8]) -> usize {
    text.iter().position(|byte| *byte <= b' ' || matches!(byte, b'=' | b'"')).unwrap_or(text.len())
}

/// Reads up to the closing quote: the value, and what follows.
fn read_quoted(text: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let mut escaped = false;
    let mut has_escapes = false;
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => (escaped, has_escapes) = (true, true),
            b'"' => {
                let inner = &text[..at];
                let value = if has_escapes { Cow::Owned(unescape(inner)?) } else { Cow::Borrowed(inner) };
                return Some((value, &text[at + 1..]));
            }
            _ => {}
        }
    }
    None
}

fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'\\' => {
                let (escape, after) = rest.split_first()?;
                rest = after;
                out.push(match escape {
                    b'"' | b'\\' | b'/' | b'\'' => *escape,
                    b'b' => 8,
                    b'f' => 12,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'u' => {
                        let unit = hex_unit(rest)?;
                        rest = &rest[4..];
                        let low = rest.strip_prefix(b"\\u").and_then(hex_unit);
                        let char = match (unit, low) {
                            (0xd800..0xdc00, Some(low @ 0xdc00..0xe000)) => {
                                rest = &rest[6..];
                                char::from_u32(0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00))
                            }
                            _ => char::from_u32(unit),
                        };
                        let char = char.unwrap_or(char::REPLACEMENT_CHARACTER);
                        out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
                        continue;
                    }
                    _ => return None,
                });
            }
            b'"' | 0..0x20 => return None,
            byte => out.push(*byte),
        }
    }
    if std::str::from_utf8(&out).is_err() {
        out = chars(&out).collect::<String>().into_bytes();
    }
    Some(out)
}

fn hex_unit(text: &[u8]) -> Option<u32> {
    let digits = text.get(..4).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Writes a key, with a space before it unless it is the first.
///
/// # Errors
///
/// Nothing is left of the key without what may not stand in one.
pub(super) fn write_key(parts: &[&[u8]], out: &mut Vec<u8>) -> Result<(), String> {
    if push_key(parts, out) { Ok(()) } else { Err("invalid key".to_owned()) }
}

#[cfg(test)]
mod tests {
    use corten_golang::logfmt::push_value;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_lines_of_some_length_are_read() {
        let line = |len: usize| [b"a=".to_vec(), vec![b'x'; len - 2]].concat();
        for (text, pairs) in [
            (line(LINE_BYTES_MAX - 1), Some(1)),
            (line(LINE_BYTES_MAX), None),
            ([line(LINE_BYTES_MAX - 1), b"\nb=c".to_vec()].concat(), Some(1)),
            ([line(LINE_BYTES_MAX), b"\n".to_vec()].concat(), None),
            ([b"a=b\n".to_vec(), vec![b'x'; 70_000]].concat(), Some(1)),
            (b"a=b\r\nc".to_vec(), Some(1)),
        ] {
            assert_eq!(read(&text).map(|pairs| pairs.len()), pairs, "{}", text.len());
        }
        assert_eq!(read(b"a=b\r\nc").unwrap(), [(&b"a"[..], Cow::Borrowed(&b"b"[..]))]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(pairs in proptest::collection::vec(("[a-z.é]{1,5}", "[a-z =\"\\\\\t\u{1}é\u{1f600}]{0,9}"), 0..6)) {
            let mut line = Vec::new();
            for (key, value) in &pairs {
                write_key(&[key.as_bytes()], &mut line).unwrap();
                push_value(value.as_bytes(), &mut line);
            }
            let back = read(&line).unwrap();
            let back: Vec<_> = back.into_iter().map(|(k, v)| (String::from_utf8(k.to_vec()).unwrap(), String::from_utf8(v.into_owned()).unwrap())).collect();
            prop_assert_eq!(back, pairs);
        }

        #[test]
        fn any_text_can_be_read(text: Vec<u8>, more in "[a =\"\\\\u0d8c-]{0,30}") {
            let _ = read(&text);
            let _ = read(more.as_bytes());
        }
    }
}
