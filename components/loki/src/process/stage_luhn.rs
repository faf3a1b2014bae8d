//! `stage.luhn`.

use std::ops::Range;

use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_config::schema::Stability;
use corten_signal::regex::{GoRegex, Groups};
use unicode_general_category::{GeneralCategory, get_general_category};

use super::stage::{Build, Compile, Emit, Next, Slot, Stage, StageError, Value, Work, check};

/// Replaces numbers that pass the Luhn check, as those of credit cards do.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct LuhnStage {
    /// What to replace numbers with.
    #[arg(default = "**REDACTED**")]
    replacement: String,
    /// Name of the extracted value to look into. With it, what was made of that value replaces the log line. It must be
    /// a text.
    source: Option<String>,
    /// The least digits of a number.
    #[arg(default = 13)]
    min_length: i64,
    /// Characters that may stand between the digits of a number.
    #[arg(default = "")]
    delimiters: String,
    /// Numbers within what this regular expression matches are left alone.
    #[arg(default = "")]
    skip_regex: String,
}

impl LuhnStage {
    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        check(self)
    }
}

impl Build for LuhnStage {
    fn build(&self, cx: &mut Compile<'_>) -> Result<Box<dyn Stage>, StageError> {
        if self.source.as_deref() == Some("") {
            return Err(StageError::at("source", "empty source"));
        }
        let skip = if self.skip_regex.is_empty() {
            None
        } else {
            let error = |error| format!("could not compile regular expression: {error}");
            Some(GoRegex::new(&self.skip_regex).map_err(|e| StageError::at("skip_regex", error(e)))?)
        };
        let replacement = if self.replacement.is_empty() { "**REDACTED**" } else { &self.replacement };
        Ok(Box::new(Luhn {
            source: self.source.as_ref().map(|source| cx.slot(source)),
            skip,
            redaction: Redaction {
                replacement: replacement.to_owned(),
                min_length: usize::try_from(self.min_length).ok().filter(|length| *length > 0).unwrap_or(13),
                delimiters: self.delimiters.clone(),
            },
        }))
    }
}

struct Luhn {
    source: Option<Slot>,
    skip: Option<GoRegex>,
    redaction: Redaction,
}

impl Stage for Luhn {
    fn run(&self, work: &mut Work, _: &mut Emit) -> Next {
        let input = match self.source.map(|source| work.value(source)) {
            None => work.line(),
            Some(Value::Text(text)) => text,
            Some(_) => return Next::Keep,
        };
        let redacted = work.read(input, |bytes, tools| {
            // The reference writes U+FFFD for what is no text, whether there is a number or not.
            let (text, offsets) = tools.lossy.text(bytes);
            let is_same = offsets.to_bytes(text.len()) == text.len();
            let mut skipped = None;
            let groups = &mut *tools.groups;
            let skips = |number: Range<usize>| {
                let Some(regex) = &self.skip else { return false };
                let matches = skipped.get_or_insert_with(|| all_matches(regex, text, groups));
                covers(matches, number)
            };
            let mut redacted = String::new();
            let is_redacted = self.redaction.redact(text, skips, &mut redacted);
            match (is_redacted, is_same) {
                (true, _) => Some(tools.add(redacted.as_bytes())),
                (false, true) => None,
                (false, false) => {
                    redacted.push_str(text);
                    Some(tools.add(redacted.as_bytes()))
                }
            }
        });
        work.set_line(redacted.unwrap_or(input));
        Next::Keep
    }
}

/// All matches, as Go's `FindAllIndex` finds them: an empty one right behind another does not count.
fn all_matches(regex: &GoRegex, text: &str, groups: &mut Groups) -> Vec<Range<usize>> {
    let mut all = Vec::new();
    let (mut at, mut end_before) = (0, None);
    while at <= text.len() && regex.captures_at(text, at, groups) {
        let Some(found) = groups.get(0) else { break };
        if !found.is_empty() || end_before != Some(found.start) {
            all.push(found.clone());
        }
        end_before = Some(found.end);
        let step = text[found.end..].chars().next().map_or(1, char::len_utf8);
        at = if found.is_empty() { found.end + step } else { found.end };
    }
    all
}

/// Whether the first match that ends behind the beginning of a number covers the number.
fn covers(matches: &[Range<usize>], number: Range<usize>) -> bool {
    let first = matches.partition_point(|found| found.end <= number.start);
    matches.get(first).is_some_and(|found| found.start <= number.start && number.end <= found.end)
}

/// What to look for.
#[derive(Clone, Debug)]
struct Redaction {
    replacement: String,
    /// The least digits, in bytes.
    min_length: usize,
    delimiters: String,
}

/// Digits, perhaps with delimiters between and behind them.
struct Run {
    start: usize,
    /// Behind the last digit.
    digits_end: usize,
    /// Behind the last delimiter.
    end: usize,
    /// The length of all digits, in bytes.
    len: usize,
    /// Where the delimiter behind the last digit is.
    delimiter: Option<Range<usize>>,
}

impl Redaction {
    /// Appends a text to `out` with its numbers replaced that pass the Luhn check, but for those of which `skips` says
    /// that they lie in a part that is to be left alone. False, with nothing appended, if there is none.
    fn redact(&self, text: &str, mut skips: impl FnMut(Range<usize>) -> bool, out: &mut String) -> bool {
        let mut copied = 0;
        let mut run: Option<Run> = None;
        let mut finish = |run: Option<Run>| {
            let Some(run) = run else { return };
            let number = run.start..run.digits_end;
            if run.len >= self.min_length && passes(&text[number.clone()]) && !skips(number) {
                out.push_str(&text[copied..run.start]);
                out.push_str(&self.replacement);
                out.push_str(run.delimiter.map_or("", |delimiter| &text[delimiter]));
                copied = run.end;
            }
        };
        for (at, character) in text.char_indices() {
            let end = at + character.len_utf8();
            match &mut run {
                _ if is_digit(character) => {
                    let run = run.get_or_insert(Run { start: at, digits_end: end, end, len: 0, delimiter: None });
                    (run.digits_end, run.end, run.delimiter) = (end, end, None);
                    run.len += end - at;
                }
                Some(run) if self.delimiters.contains(character) => {
                    (run.end, run.delimiter) = (end, Some(at..end));
                }
                _ => finish(run.take()),
            }
        }
        finish(run);
        if copied > 0 {
            out.push_str(&text[copied..]);
        }
        copied > 0
    }
}

/// Whether a character is a digit of some script.
fn is_digit(character: char) -> bool {
    character.is_ascii_digit()
        || (!character.is_ascii()
            && character.is_numeric()
            && get_general_category(character) == GeneralCategory::DecimalNumber)
}

/// Whether the digits of a text are a number that fits 63 bits and passes the Luhn check. Digits of other scripts are
/// none of such a number.
fn passes(text: &str) -> bool {
    let mut number = 0i64;
    // The sum for a number that ends here, and the one for a number that has another digit behind.
    let (mut sum, mut next_sum) = (0, 0);
    for character in text.chars() {
        let Some(digit) = character.to_digit(10) else {
            if is_digit(character) {
                return false;
            }
            continue;
        };
        match number.checked_mul(10).and_then(|number| number.checked_add(i64::from(digit))) {
            Some(next) => number = next,
            None => return false,
        }
        let twice = if digit > 4 { 2 * digit - 9 } else { 2 * digit };
        (sum, next_sum) = (next_sum + digit, sum + twice);
    }
    sum % 10 == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn entries_become_what_the_reference_makes_of_them() {
        assert!(super::super::testing::recorded("luhn") >= 22);
    }

    fn redaction(min_length: usize, delimiters: &str) -> Redaction {
        Redaction { replacement: "#".to_owned(), min_length, delimiters: delimiters.to_owned() }
    }

    #[test]
    fn a_match_covers_a_number_only_whole() {
        let matches = [0..2, 5..9, 12..12];
        for (number, expected) in
            [(0..2, true), (0..3, false), (5..9, true), (6..8, true), (4..8, false), (10..13, false)]
        {
            assert_eq!(covers(&matches, number.clone()), expected, "{number:?}");
        }
    }

    proptest! {
        #[test]
        fn a_number_with_its_check_digit_is_replaced(digits in "[1-9][0-9]{12,16}", before in "[a-z ü]{0,3}", after in "[a-z ü]{0,3}") {
            let weigh = |(at, digit): (usize, char)| {
                let digit = digit.to_digit(10).unwrap() * if at % 2 == 0 { 2 } else { 1 };
                digit / 10 + digit % 10
            };
            let sum: u32 = digits.chars().rev().enumerate().map(weigh).sum();
            let check = (10 - sum % 10) % 10;
            for digit in 0..10 {
                let text = format!("{before}{digits}{digit}{after}");
                let mut out = String::new();
                let found = redaction(13, "").redact(&text, |_| false, &mut out);
                prop_assert_eq!(found, digit == check, "{}", text);
                if found {
                    prop_assert_eq!(out, format!("{before}#{after}"));
                }
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "[0-9٠-٩ é\\-]{0,40}|\\PC{0,20}", min_length in 1usize..5) {
            redaction(min_length, "-é").redact(&text, |_| false, &mut String::new());
        }
    }
}
