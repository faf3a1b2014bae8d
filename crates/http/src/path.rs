//! Paths of URLs as text.

/// The text of a path, its escapes resolved; nothing when one of them is broken or the bytes are not UTF-8.
pub(crate) fn decode(path: &str) -> Option<String> {
    if !path.contains('%') {
        return Some(path.to_owned());
    }
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (digits, after) = rest.split_first_chunk::<2>()?;
        let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
        bytes.push((high? * 16 + low?) as u8);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

/// A path with escapes for all that may not stand in one as it is.
pub(crate) fn encode(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/!$&'()*+,;=:@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// The prefix of paths below which something is served: begins with a slash and ends without one, and is empty for the
/// root.
pub(crate) fn normal_prefix(prefix: &str) -> String {
    let parts = prefix.split('/').filter(|part| !part.is_empty());
    parts.flat_map(|part| ["/", part]).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_are_resolved_once() {
        for (path, text) in [
            ("/a/b", Some("/a/b")),
            ("/a%2Fb%20c%c3%A9", Some("/a/b cé")),
            ("/%252F", Some("/%2F")),
            ("/%", None),
            ("/%4", None),
            ("/%zz", None),
            ("/%+4", None),
            ("/%ff", None),
        ] {
            assert_eq!(decode(path).as_deref(), text, "{path}");
        }
    }

    #[test]
    fn prefixes_have_one_form() {
        for (prefix, normal) in [("/", ""), ("", ""), ("/ui", "/ui"), ("ui/", "/ui"), ("//a//b/", "/a/b")] {
            assert_eq!(normal_prefix(prefix), normal);
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(text in any::<String>()) {
            let encoded = encode(&text);
            prop_assert!(encoded.bytes().all(|byte| byte.is_ascii_graphic()));
            prop_assert_eq!(decode(&encoded), Some(text));
        }

        #[test]
        fn decoding_never_panics(text in "[%0-9a-f/é]{0,20}") {
            decode(&text);
        }
    }
}
