//! Texts and numbers in JSON, as the libraries write them that Go programs use.

use std::io::Write as _;

/// How JSON is written. The libraries differ in small things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// `<`, `>` and `&` are escaped, so that the text can stand within HTML.
    html: bool,
    /// The line separators of Unicode are escaped.
    separators: bool,
    /// Backspace and form feed have escapes of one letter.
    short: bool,
    /// Exponents have two digits at least.
    padded: bool,
}

impl Form {
    /// As `encoding/json` writes when nothing else is asked for.
    pub const HTML: Form = Form { html: true, separators: true, short: true, padded: false };
    /// As `encoding/json` writes without escaping for HTML.
    pub const PLAIN: Form = Form { html: false, ..Form::HTML };
    /// As `json-iterator` writes where it does as `encoding/json` does.
    pub const ITERATOR_HTML: Form = Form { short: false, ..Form::HTML };
    /// As `json-iterator` writes by itself.
    pub const ITERATOR: Form = Form { html: false, separators: false, short: false, padded: true };
}

/// How a byte within a string is written: 0 if as it is, and otherwise the letter of its escape. `u` stands for a number,
/// `h` and `s` for what only some forms escape.
const ESCAPES: [u8; 256] = {
    let mut escapes = [0; 256];
    let mut byte = 0;
    while byte < 0x20 {
        escapes[byte] = b'u';
        byte += 1;
    }
    escapes[8] = b'b';
    escapes[12] = b'f';
    escapes[b'\n' as usize] = b'n';
    escapes[b'\r' as usize] = b'r';
    escapes[b'\t' as usize] = b't';
    escapes[b'"' as usize] = b'"';
    escapes[b'\\' as usize] = b'\\';
    escapes[b'<' as usize] = b'h';
    escapes[b'>' as usize] = b'h';
    escapes[b'&' as usize] = b'h';
    // How U+2028 and U+2029 begin.
    escapes[0xe2] = b's';
    escapes
};

/// Writes a text as a string. Each byte that is no UTF-8 becomes a replacement character, escaped.
pub fn push_string(text: &[u8], form: Form, out: &mut Vec<u8>) {
    out.push(b'"');
    for chunk in text.utf8_chunks() {
        push_valid(chunk.valid().as_bytes(), form, out);
        chunk.invalid().iter().for_each(|_| out.extend_from_slice(b"\\ufffd"));
    }
    out.push(b'"');
}

fn push_valid(valid: &[u8], form: Form, out: &mut Vec<u8>) {
    // What stands for itself is copied as a whole.
    let mut plain_from = 0;
    for (at, byte) in valid.iter().enumerate() {
        let escape = ESCAPES[usize::from(*byte)];
        if escape == 0 {
            continue;
        }
        let (code, len) = match escape {
            b'h' if form.html => (u16::from(*byte), 1),
            b's' if form.separators && valid[at..].starts_with("\u{2028}".as_bytes()) => (0x2028, 3),
            b's' if form.separators && valid[at..].starts_with("\u{2029}".as_bytes()) => (0x2029, 3),
            b'h' | b's' => continue,
            _ => (u16::from(*byte), 1),
        };
        out.extend_from_slice(&valid[plain_from..at]);
        plain_from = at + len;
        match escape {
            b'b' | b'f' if form.short => out.extend_from_slice(&[b'\\', escape]),
            b'b' | b'f' | b'u' | b'h' | b's' => {
                out.extend_from_slice(b"\\u");
                crate::push_hex(&code.to_be_bytes(), out);
            }
            _ => out.extend_from_slice(&[b'\\', escape]),
        }
    }
    out.extend_from_slice(&valid[plain_from..]);
}

/// Writes a number: the shortest that reads back the same, with an exponent below 1e-6 and from 1e21 on. What JSON has no
/// number for becomes `null`.
pub fn push_number(value: f64, form: Form, out: &mut Vec<u8>) {
    if !value.is_finite() {
        out.extend_from_slice(b"null");
        return;
    }
    if value == 0.0 || (1e-6..1e21).contains(&value.abs()) {
        _ = write!(out, "{value}");
        return;
    }
    let start = out.len();
    _ = write!(out, "{value:e}");
    let Some(at) = memchr::memrchr(b'e', &out[start..]) else { return };
    let sign = start + at + 1;
    if out.get(sign) != Some(&b'-') {
        out.insert(sign, b'+');
    }
    if form.padded && out.len() == sign + 2 {
        out.insert(sign + 1, b'0');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FORMS: [Form; 4] = [Form::HTML, Form::PLAIN, Form::ITERATOR_HTML, Form::ITERATOR];

    fn string(text: &[u8], form: Form) -> String {
        let mut out = Vec::new();
        push_string(text, form, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn number(value: f64, form: Form) -> String {
        let mut out = b"x".to_vec();
        push_number(value, form, &mut out);
        String::from_utf8(out).unwrap().split_off(1)
    }

    #[test]
    fn each_library_has_its_escapes() {
        let text = "a\"\\/\u{8}\u{c}\n\r\t\u{1}\u{7f}<>&\u{2027}\u{2028}\u{2029}é";
        let texts = [
            r#""a\"\\/\b\f\n\r\t\u0001D\u003c\u003e\u0026S\u2028\u2029é""#,
            r#""a\"\\/\b\f\n\r\t\u0001D<>&S\u2028\u2029é""#,
            r#""a\"\\/\u0008\u000c\n\r\t\u0001D\u003c\u003e\u0026S\u2028\u2029é""#,
            "\"a\\\"\\\\/\\u0008\\u000c\\n\\r\\t\\u0001D<>&S\u{2028}\u{2029}é\"",
        ];
        for (form, expected) in FORMS.into_iter().zip(texts) {
            let expected = expected.replace('D', "\u{7f}").replace('S', "\u{2027}");
            assert_eq!(string(text.as_bytes(), form), expected, "{form:?}");
        }
    }

    #[test]
    fn each_byte_that_is_no_text_has_a_sign_of_its_own() {
        // The first two bytes of a character of three are two signs.
        assert_eq!(string(b"a\xe2\x82b\xff\xef\xbf\xbd", Form::PLAIN), "\"a\\ufffd\\ufffdb\\ufffd\u{fffd}\"");
    }

    #[test]
    fn numbers_have_exponents_where_they_are_small_or_large() {
        for (value, plain, padded) in [
            (0.0, "0", "0"),
            (-0.0, "-0", "-0"),
            (1e-6, "0.000001", "0.000001"),
            (9.5e-7, "9.5e-7", "9.5e-07"),
            (-1e-10, "-1e-10", "-1e-10"),
            (1e20, "100000000000000000000", "100000000000000000000"),
            (-1e21, "-1e+21", "-1e+21"),
            (f64::MAX, "1.7976931348623157e+308", "1.7976931348623157e+308"),
            (f64::NAN, "null", "null"),
        ] {
            assert_eq!((&*number(value, Form::PLAIN), &*number(value, Form::ITERATOR)), (plain, padded));
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(text in "(?s).{0,40}", value in any::<f64>().prop_filter("finite", |v| v.is_finite())) {
            for form in FORMS {
                prop_assert_eq!(&serde_json::from_str::<String>(&string(text.as_bytes(), form)).unwrap(), &text);
                prop_assert_eq!(number(value, form).parse::<f64>().unwrap().to_bits(), value.to_bits());
            }
        }

        #[test]
        fn any_bytes_are_a_string(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            for form in FORMS {
                prop_assert!(serde_json::from_str::<String>(&string(&bytes, form)).is_ok());
            }
        }
    }
}
