//! JSON as Go reads it where that is not how JSON is read here.

use std::borrow::Cow;

/// The text of some JSON. What is not UTF-8 and escapes for one half of a pair become U+FFFD, as they do for Go: somebody
/// cut a text there, which is no reason to lose it.
pub(crate) fn text(json: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(json);
    match whole_pairs(&text) {
        Some(text) => Cow::Owned(text),
        None => text,
    }
}

/// The text with U+FFFD in place of halves of pairs, if it has any.
fn whole_pairs(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out = String::new();
    let (mut at, mut taken) = (0, 0);
    while let Some(found) = memchr::memchr(b'\\', &bytes[at..]) {
        at += found;
        let unit = unit(&bytes[at..]);
        let is_pair = matches!(unit, Some(0xd800..0xdc00))
            && bytes.get(at + 6..).and_then(self::unit).is_some_and(|low| (0xdc00..0xe000).contains(&low));
        match unit {
            Some(_) if is_pair => at += 12,
            Some(0xd800..0xe000) => {
                out.push_str(&text[taken..at]);
                out.push_str("\\ufffd");
                at += 6;
                taken = at;
            }
            _ => at = bytes.len().min(at + 2),
        }
    }
    (taken > 0).then(|| out + &text[taken..])
}

/// The number of an escape that the bytes begin with.
fn unit(bytes: &[u8]) -> Option<u16> {
    let digits =
        bytes.get(2..6).filter(|digits| bytes.starts_with(b"\\u") && digits.iter().all(u8::is_ascii_hexdigit))?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn halves_of_pairs_are_replaced() {
        for (json, expected) in [
            (&br#"{"a":"\ud83d\ude00\u00e9\n"}"#[..], r#"{"a":"\ud83d\ude00\u00e9\n"}"#),
            (br#""\ud800""#, r#""\ufffd""#),
            (br#""\uDfff\ud83d\uDE00\ud83d\ud83d\ude00x""#, r#""\ufffd\ud83d\uDE00\ufffd\ud83d\ude00x""#),
            (br#""\\ud800 \\\ud800\u""#, r#""\\ud800 \\\ufffd\u""#),
            (b"\"\xff\"", "\"\u{fffd}\""),
            (br#"\ud8"#, r#"\ud8"#),
            (br#"\"#, r#"\"#),
            (b"\\\xc3\xa9\\ud800", "\\é\\ufffd"),
        ] {
            assert_eq!(text(json), expected);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(json: Vec<u8>, near in r#"[\\ud8Dcf0"é]{0,40}"#) {
            let _ = (text(&json), text(near.as_bytes()));
        }

        #[test]
        fn what_is_whole_stays_and_what_is_not_becomes_readable(units in prop::collection::vec(prop_oneof![any::<u16>(), 0xd700..0xe100u16], 0..20)) {
            let json: String = units.iter().map(|unit| format!("\\u{unit:04x}")).collect();
            let read: String = serde_json::from_str(&text(format!("\"{json}\"").as_bytes())).unwrap();
            prop_assert_eq!(read, String::from_utf16_lossy(&units));
        }
    }
}
