//! Text in quotes and characters by name, in the notation of the reference's messages.

use std::fmt::Write as _;

use unicode_general_category::{GeneralCategory as Category, get_general_category};

/// A text between double quotes with the escapes that the language has. What cannot be printed is escaped, so that
/// the result always stands on one line.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
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
                let _ = match code {
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

/// A character as `U+0040 '@'`, or as its number alone when it cannot be printed.
pub(crate) fn character_name(character: char) -> String {
    let code = u32::from(character);
    if is_printable(character) { format!("U+{code:04X} '{character}'") } else { format!("U+{code:04X}") }
}

fn is_printable(character: char) -> bool {
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

/// Whether a name may start with the character, or go on with it.
pub(crate) fn is_letter(character: char) -> bool {
    if character.is_ascii() {
        return character.is_ascii_alphabetic() || character == '_';
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

/// Whether a name may go on with the character as a digit.
pub(crate) fn is_digit(character: char) -> bool {
    character.is_ascii_digit() || (!character.is_ascii() && get_general_category(character) == Category::DecimalNumber)
}

/// Whether a text is a name of the language: not empty, letters, `_` and digits, no digit first, no keyword.
pub fn is_identifier(text: &str) -> bool {
    let mut characters = text.chars();
    characters.next().is_some_and(is_letter)
        && characters.all(|character| is_letter(character) || is_digit(character))
        && !matches!(text, "true" | "false" | "null")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_escapes_what_cannot_be_printed() {
        let cases = [
            ("", r#""""#),
            ("a\"b\\c", r#""a\"b\\c""#),
            ("\x07\x08\x0c\n\r\t\x0b", r#""\a\b\f\n\r\t\v""#),
            ("é 世\u{301}", "\"é 世\u{301}\""),
            ("\0\x7f\u{80}\u{a0}\u{feff}\u{e0001}", r#""\x00\x7f\u0080\u00a0\ufeff\U000e0001""#),
        ];
        for (text, quoted) in cases {
            assert_eq!(quote(text), quoted);
        }
    }

    #[test]
    fn a_character_is_named_by_its_number_and_shown_when_it_can_be_printed() {
        assert_eq!(character_name('@'), "U+0040 '@'");
        assert_eq!(character_name('\0'), "U+0000");
        assert_eq!(character_name('€'), "U+20AC '€'");
        assert_eq!(character_name('😀'), "U+1F600 '😀'");
        assert_eq!(character_name('\u{a0}'), "U+00A0");
    }

    #[test]
    fn identifiers_are_letters_then_letters_and_digits() {
        for good in ["a", "_", "é1", "a_b9", "x\u{0663}", "True"] {
            assert!(is_identifier(good), "{good}");
        }
        for bad in ["", "1a", "a-b", "true", "false", "null", "a b", "\u{0663}x", "a.b", "½"] {
            assert!(!is_identifier(bad), "{bad}");
        }
    }
}
