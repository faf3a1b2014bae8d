//! Base64 with padding, in the two alphabets of RFC 4648, with the reference's idea of what is wrong where.

/// One of the two alphabets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alphabet {
    /// With `+` and `/`.
    Standard,
    /// With `-` and `_`.
    Url,
}

impl Alphabet {
    fn digits(self) -> &'static [u8; 64] {
        match self {
            Alphabet::Standard => b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
            Alphabet::Url => b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
        }
    }

    fn value(self, byte: u8) -> Option<u32> {
        Some(u32::from(match (byte, self) {
            (b'A'..=b'Z', _) => byte - b'A',
            (b'a'..=b'z', _) => byte - b'a' + 26,
            (b'0'..=b'9', _) => byte - b'0' + 52,
            (b'+', Alphabet::Standard) | (b'-', Alphabet::Url) => 62,
            (b'/', Alphabet::Standard) | (b'_', Alphabet::Url) => 63,
            _ => return None,
        }))
    }
}

/// Encodes with padding.
pub(super) fn encode(bytes: &[u8], alphabet: Alphabet) -> String {
    let digits = alphabet.digits();
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for index in 0..4 {
            let shown = index <= chunk.len();
            out.push(if shown { digits[(bits >> (18 - 6 * index) & 63) as usize] as char } else { '=' });
        }
    }
    out
}

/// Decodes a text with padding. Line ends are skipped; bits that the last digit has too many are ignored.
///
/// The error is the place of the first byte that does not fit.
pub(super) fn decode(text: &[u8], alphabet: Alphabet) -> Result<Vec<u8>, usize> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let mut at = 0;
    let skip_lines = |mut at: usize| {
        while matches!(text.get(at), Some(b'\r' | b'\n')) {
            at += 1;
        }
        at
    };
    loop {
        let (mut bits, mut digits) = (0, 0);
        while digits < 4 {
            at = skip_lines(at);
            let Some(byte) = text.get(at) else {
                // A text may end between groups only. The error is where the group began, not counting line ends.
                return if digits == 0 { Ok(out) } else { Err(at - digits) };
            };
            at += 1;
            if let Some(value) = alphabet.value(*byte) {
                bits = bits << 6 | value;
                digits += 1;
                continue;
            }
            if *byte != b'=' || digits < 2 {
                return Err(at - 1);
            }
            if digits == 2 {
                at = skip_lines(at);
                match text.get(at) {
                    None => return Err(text.len()),
                    Some(b'=') => at += 1,
                    Some(_) => return Err(at - 1),
                }
            }
            at = skip_lines(at);
            bits <<= 6 * (4 - digits);
            out.extend_from_slice(&bits.to_be_bytes()[1..digits]);
            return if at < text.len() { Err(at) } else { Ok(out) };
        }
        out.extend_from_slice(&bits.to_be_bytes()[1..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn errors_stand_where_the_reference_sees_them() {
        let cases: &[(&str, Result<&[u8], usize>)] = &[
            ("", Ok(b"")),
            ("aGk=", Ok(b"hi")),
            ("aGk\n=\r\n", Ok(b"hi")),
            ("aA==", Ok(b"h")),
            ("aB==", Ok(b"h")),
            ("aGkh", Ok(b"hi!")),
            ("!", Err(0)),
            ("a", Err(0)),
            ("aGk", Err(0)),
            ("aGkhaG", Err(4)),
            ("a===", Err(1)),
            ("aA=", Err(3)),
            ("aA=a", Err(2)),
            ("aGk=x", Err(4)),
            ("aGk==", Err(4)),
            ("aG_-", Err(2)),
        ];
        for (text, expected) in cases {
            assert_eq!(decode(text.as_bytes(), Alphabet::Standard), expected.map(<[u8]>::to_vec), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes(bytes: Vec<u8>, url: bool) {
            let alphabet = if url { Alphabet::Url } else { Alphabet::Standard };
            prop_assert_eq!(decode(encode(&bytes, alphabet).as_bytes(), alphabet), Ok(bytes));
        }

        #[test]
        fn any_text_is_decoded_without_a_panic(text in "[A-Ca-c=+/\r\n-]{0,12}") {
            if let Err(at) = decode(text.as_bytes(), Alphabet::Standard) {
                prop_assert!(at <= text.len());
            }
        }
    }
}
