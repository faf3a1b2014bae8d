//! Literals of the configuration's text, and what they stand for.

use std::ops::Range;

use crate::number::Number;

/// The number that a literal stands for: a signed integer where it fits, else an unsigned one, else a float. A leading
/// zero makes it octal; digits that are no octal ones make it a float. Nothing for what is no number or too large.
pub(crate) fn parse_number_literal(text: &str) -> Option<Number> {
    let (digits, radix) = match text.strip_prefix('0') {
        Some(rest) if !rest.is_empty() => (rest, 8),
        _ => (text, 10),
    };
    if digits.bytes().all(|byte| byte.is_ascii_digit())
        && let Ok(value) = u64::from_str_radix(digits, radix)
    {
        return Some(match i64::try_from(value) {
            Ok(value) => Number::Int(value),
            Err(_) => Number::Uint(value),
        });
    }
    parse_float_text(text).map(Number::Float)
}

/// A decimal floating-point number; nothing for other texts and for numbers out of range.
pub(crate) fn parse_float_text(text: &str) -> Option<f64> {
    // Names of infinities and NaN are numbers to the parser below, but not to the reference's decimal forms.
    let decimal = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    text.parse().ok().filter(|value: &f64| decimal && value.is_finite())
}

/// A number as [`parse_float_text`] reads it, or with underscores between its digits.
pub(crate) fn parse_go_float(text: &str) -> Option<f64> {
    let bytes = text.as_bytes();
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let between_digits = |at: usize| at > 0 && is_digit(at - 1) && is_digit(at + 1);
    let underscores = (0..bytes.len()).filter(|at| bytes[*at] == b'_');
    if !underscores.clone().all(between_digits) {
        return None;
    }
    if underscores.count() == 0 { parse_float_text(text) } else { parse_float_text(&text.replace('_', "")) }
}

/// The text that a string literal with its quotes stands for; nothing for what is no such literal.
///
/// Escapes may denote raw bytes (`"\xc3\xa9"` is `é`). Bytes that are no UTF-8 in the end become U+FFFD, because text
/// is always valid UTF-8 here.
pub(crate) fn unquote(literal: &str) -> Option<String> {
    let inner = |quote| literal.strip_prefix(quote)?.strip_suffix(quote);
    if let Some(raw) = inner('`') {
        return (!raw.contains('`')).then(|| raw.replace('\r', ""));
    }
    let mut rest = inner('"')?;
    if !rest.contains('\\') {
        return (!rest.contains(['"', '\n'])).then(|| rest.to_owned());
    }
    let mut bytes = Vec::with_capacity(rest.len());
    while let Some(first) = rest.chars().next() {
        rest = &rest[first.len_utf8()..];
        if first != '\\' {
            if first == '"' || first == '\n' {
                return None;
            }
            bytes.extend_from_slice(first.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let escape = rest.chars().next()?;
        let after = &rest[escape.len_utf8()..];
        let simple = match escape {
            'a' => Some(7),
            'b' => Some(8),
            'f' => Some(12),
            'n' => Some(b'\n'),
            'r' => Some(b'\r'),
            't' => Some(b'\t'),
            'v' => Some(11),
            '\\' => Some(b'\\'),
            '"' => Some(b'"'),
            _ => None,
        };
        if let Some(byte) = simple {
            bytes.push(byte);
            rest = after;
            continue;
        }
        let (digits, radix, after) = match escape {
            'x' => (after.get(..2)?, 16, after.get(2..)?),
            'u' => (after.get(..4)?, 16, after.get(4..)?),
            'U' => (after.get(..8)?, 16, after.get(8..)?),
            '0'..='7' => (rest.get(..3)?, 8, rest.get(3..)?),
            _ => return None,
        };
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let value = u32::from_str_radix(digits, radix).ok()?;
        match escape {
            'u' | 'U' => bytes.extend_from_slice(char::from_u32(value)?.encode_utf8(&mut [0; 4]).as_bytes()),
            _ => bytes.push(u8::try_from(value).ok()?),
        }
        rest = after;
    }
    Some(match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    })
}

/// The part of a string literal that stands for a byte of its text; the last one where the text is shorter.
pub(crate) fn part_of_literal(literal: &str, byte: usize) -> Range<usize> {
    let raw = literal.starts_with('`');
    let end = literal.len().saturating_sub(1);
    let mut parts = literal.char_indices().skip(1).take_while(|(at, _)| *at < end);
    let (mut passed, mut last) = (0, end..literal.len());
    while let Some((at, first)) = parts.next() {
        if raw && first == '\r' {
            continue;
        }
        let (written, means) = match first {
            '\\' if !raw => match literal[at + 1..].chars().next() {
                Some('x' | '0'..='7') => (4, 1),
                Some(wide @ ('u' | 'U')) => {
                    let written = if wide == 'u' { 6 } else { 10 };
                    let code = literal.get(at + 2..at + written).and_then(|hex| u32::from_str_radix(hex, 16).ok());
                    (written, code.and_then(char::from_u32).map_or(1, char::len_utf8))
                }
                _ => (2, 1),
            },
            first => (first.len_utf8(), first.len_utf8()),
        };
        if first == '\\' && !raw {
            // Escapes consist of characters of one byte.
            parts.by_ref().take(written - 1).for_each(drop);
        }
        last = at..at + written;
        passed += means;
        if passed > byte {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn number_literals_take_the_first_kind_that_holds_them() {
        let cases = [
            ("0", Number::Int(0)),
            ("010", Number::Int(8)),
            ("08", Number::Float(8.0)),
            ("00", Number::Int(0)),
            ("9223372036854775807", Number::Int(i64::MAX)),
            ("9223372036854775808", Number::Uint(1 << 63)),
            ("18446744073709551615", Number::Uint(u64::MAX)),
            ("18446744073709551616", Number::Float(18_446_744_073_709_551_616.0)),
            ("0777777777777777777777", Number::Int(i64::MAX)),
            ("01777777777777777777777", Number::Uint(u64::MAX)),
        ];
        for (text, expected) in cases {
            let got = parse_number_literal(text).unwrap();
            assert!(got.is_identical(expected), "{text}: {got:?}");
        }
        assert!(parse_number_literal(&"9".repeat(400)).is_none());
        assert!(parse_number_literal("").is_none());
        assert!(parse_number_literal("0x1").is_none());
    }

    #[test]
    fn floats_are_decimal_and_finite() {
        let good = [("1.", 1.0), (".5", 0.5), ("1e3", 1000.0), ("1E+3", 1000.0), ("1e-400", 0.0)];
        for (text, expected) in good {
            assert_eq!(parse_float_text(text), Some(expected), "{text}");
        }
        for text in ["", ".", "e", "1e", "1e400", "inf", "nan", "Infinity", " 1"] {
            assert_eq!(parse_float_text(text), None, "{text}");
        }
    }

    #[test]
    fn escapes_denote_bytes_and_code_points() {
        let good = [
            (r#""""#, ""),
            (r#""a\"b""#, "a\"b"),
            (r#""\x41\101\u0041\U00000041""#, "AAAA"),
            (r#""\xc3\xa9""#, "é"),
            (r#""\a\b\f\n\r\t\v\\""#, "\u{7}\u{8}\u{c}\n\r\t\u{b}\\"),
            (r#""\xff""#, "\u{fffd}"),
            ("`a\\n\r\n`", "a\\n\n"),
        ];
        for (literal, expected) in good {
            assert_eq!(unquote(literal).as_deref(), Some(expected), "{literal}");
        }
        for bad in ["", "\"", "`", "a", r#""\'""#, r#""\x4""#, r#""\ud800""#, r#""\400""#, r#""a"b""#, r#""\+ff""#] {
            assert_eq!(unquote(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_byte_of_a_text_is_found_in_its_literal() {
        for (literal, byte, part) in [
            ("\"abc\"", 1, "b"),
            ("\"abc\"", 9, "c"),
            ("`a\\n\r\nb`", 3, "\n"),
            (r#""a\"b""#, 1, r#"\""#),
            (r#""a\"b""#, 2, "b"),
            (r#""\x41\u00e9\U00000042\101z""#, 0, r"\x41"),
            (r#""\x41\u00e9\U00000042\101z""#, 2, r"\u00e9"),
            (r#""\x41\u00e9\U00000042\101z""#, 3, r"\U00000042"),
            (r#""\x41\u00e9\U00000042\101z""#, 5, "z"),
            ("\"é!\"", 2, "!"),
            ("\"\"", 0, "\""),
        ] {
            assert_eq!(&literal[part_of_literal(literal, byte)], part, "{literal} {byte}");
        }
    }

    proptest! {
        #[test]
        fn each_byte_is_found_where_the_literal_has_it(text in r#"[a-z"\\\né\u{1f600}]{0,8}"#) {
            let literal = corten_syntax::quote(&text);
            for (at, char) in text.char_indices() {
                let part = &literal[part_of_literal(&literal, at)];
                prop_assert_eq!(unquote(&format!("\"{part}\"")), Some(char.to_string()));
            }
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in r#"["`]?[\\xuU0-9a-fé"]{0,12}["`]?"#) {
            if unquote(&text).is_some() {
                let part = part_of_literal(&text, 3);
                prop_assert!(text.get(part).is_some());
            }
            let _ = parse_number_literal(&text);
        }

        #[test]
        fn what_is_quoted_reads_back(text: String) {
            prop_assert_eq!(unquote(&corten_syntax::quote(&text)), Some(text));
        }
    }
}
