//! What the signals of OpenTelemetry and those of Prometheus call the same things.

pub(crate) mod labels;
pub(crate) mod names;
pub(crate) mod units;

use std::sync::LazyLock;

use corten_signal::regex::GoRegex;

/// Letters and decimal digits of any script.
static LETTER_OR_DIGIT: LazyLock<Option<GoRegex>> = LazyLock::new(|| GoRegex::new(r"^[\p{L}\p{Nd}]$").ok());

/// Whether a character is a letter or a decimal digit, of any script.
fn is_letter_or_digit(char: char) -> bool {
    if char.is_ascii() {
        return char.is_ascii_alphanumeric();
    }
    LETTER_OR_DIGIT.as_ref().is_some_and(|regex| regex.is_match(char.encode_utf8(&mut [0; 4])))
}

/// The characters of a text. Each byte that is not UTF-8 is a replacement character, as it is for Go.
pub(crate) fn chars(text: &[u8]) -> impl Iterator<Item = char> {
    text.utf8_chunks().flat_map(|chunk| {
        let broken = chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER);
        chunk.valid().chars().chain(broken)
    })
}

#[cfg(test)]
mod tests;
