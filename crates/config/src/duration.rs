//! Spans of time as the configuration writes them: `1h30m`, `250ms`, `-1.5s`.
//!
//! The form is that of Go's `time.ParseDuration` and `Duration.String`: units `ns us µs ms s m h`, decimals, a sign,
//! any concatenation; no days.

use std::fmt;
use std::time::Duration;

/// A text that is no span of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DurationError {
    /// It has no number, or is out of the range of 64-bit nanoseconds.
    Invalid(String),
    /// A number has no unit behind it.
    MissingUnit(String),
    /// A number has something behind it that is no unit: the unit, the whole text.
    UnknownUnit(String, String),
}

impl fmt::Display for DurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DurationError::Invalid(text) => write!(f, "time: invalid duration {}", quote(text)),
            DurationError::MissingUnit(text) => write!(f, "time: missing unit in duration {}", quote(text)),
            DurationError::UnknownUnit(unit, text) => {
                write!(f, "time: unknown unit {} in duration {}", quote(unit), quote(text))
            }
        }
    }
}

impl std::error::Error for DurationError {}

/// Nanoseconds of a unit.
fn unit_ns(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" => 1,
        // The micro sign and the Greek letter mu look alike.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60 * 1_000_000_000,
        "h" => 3_600 * 1_000_000_000,
        _ => return None,
    })
}

/// Reads a span of time, in nanoseconds. What is smaller than a nanosecond is cut off.
pub fn parse(text: &str) -> Result<i64, DurationError> {
    let invalid = || DurationError::Invalid(text.to_owned());
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    // Zero is the one number that needs no unit.
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0u64;
    while !rest.is_empty() {
        let whole_len = digits(rest);
        let whole: u64 = match &rest[..whole_len] {
            "" => 0,
            whole => whole.parse().ok().filter(|whole| *whole <= 1 << 63).ok_or_else(invalid)?,
        };
        rest = &rest[whole_len..];
        let mut fraction = "";
        if let Some(after) = rest.strip_prefix('.') {
            let len = digits(after);
            fraction = &after[..len];
            rest = &after[len..];
        }
        if whole_len == 0 && fraction.is_empty() {
            return Err(invalid());
        }
        let unit_len = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = &rest[..unit_len];
        if unit.is_empty() {
            return Err(DurationError::MissingUnit(text.to_owned()));
        }
        rest = &rest[unit_len..];
        let unit_ns = unit_ns(unit).ok_or_else(|| DurationError::UnknownUnit(unit.to_owned(), text.to_owned()))?;
        let mut part = whole.checked_mul(unit_ns).filter(|part| *part <= 1 << 63).ok_or_else(invalid)?;
        part += fraction_ns(fraction, unit_ns);
        total = total.checked_add(part).filter(|total| *total <= 1 << 63).ok_or_else(invalid)?;
    }
    if negative {
        return Ok(0i64.wrapping_sub_unsigned(total));
    }
    i64::try_from(total).map_err(|_| invalid())
}

/// The number of ASCII digits that a text begins with.
fn digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

/// A decimal fraction of a unit, in nanoseconds. Digits that no longer fit an integer are without effect on the result.
fn fraction_ns(fraction: &str, unit_ns: u64) -> u64 {
    let (mut value, mut scale) = (0u64, 1f64);
    for digit in fraction.bytes() {
        let next = value.checked_mul(10).and_then(|v| v.checked_add(u64::from(digit - b'0')));
        match next.filter(|next| *next < 1 << 63) {
            Some(next) => value = next,
            None => break,
        }
        scale *= 10.0;
    }
    (value as f64 * (unit_ns as f64 / scale)) as u64
}

/// Writes a span of time given in nanoseconds: `1h30m0s`, `1.5ms`, `0s`.
pub fn format(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let value = nanoseconds.unsigned_abs();
    if value == 0 {
        return "0s".to_owned();
    }
    let small = [(1_000, 1, "ns"), (1_000_000, 1_000, "µs"), (1_000_000_000, 1_000_000, "ms")];
    for (below, scale, unit) in small {
        if value < below {
            return format!("{sign}{}{unit}", decimal(value, scale));
        }
    }
    let minutes = value / 60_000_000_000;
    let seconds = decimal(value % 60_000_000_000, 1_000_000_000);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
        (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
    }
}

/// Writes a span of time: see [`format`]. Spans beyond 292 years are written as the longest one.
pub fn format_duration(duration: Duration) -> String {
    format(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
}

/// A value over a power of ten, without trailing zeros.
fn decimal(value: u64, scale: u64) -> String {
    let (whole, fraction) = (value / scale, value % scale);
    if fraction == 0 {
        return whole.to_string();
    }
    let width = scale.ilog10() as usize;
    let text = format!("{whole}.{fraction:0width$}");
    text.trim_end_matches('0').to_owned()
}

/// Quotes as Go's `time` package does: every byte that is not printable ASCII becomes `\xNN`.
fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend(['\\', byte as char]),
            b' '..=b'~' | 0x7f => out.push(byte as char),
            _ => out.push_str(&format!("\\x{byte:02x}")),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_read_and_fail_as_in_the_reference() {
        let cases: &[(&str, Result<i64, &str>)] = &[
            ("0", Ok(0)),
            ("-0", Ok(0)),
            ("1h", Ok(3_600_000_000_000)),
            ("-1.5h", Ok(-5_400_000_000_000)),
            ("+5s", Ok(5_000_000_000)),
            ("1µs", Ok(1_000)),
            ("1μs", Ok(1_000)),
            ("1h2m3s4ms5us6ns", Ok(3_723_004_005_006)),
            ("1.0000000001s", Ok(1_000_000_000)),
            ("0.0000000000001h", Ok(0)),
            ("9223372036854775807ns", Ok(i64::MAX)),
            ("-9223372036854775808ns", Ok(i64::MIN)),
            ("2562047h47m16.854775807s", Ok(i64::MAX)),
            ("", Err(r#"time: invalid duration """#)),
            ("5", Err(r#"time: missing unit in duration "5""#)),
            ("1d", Err(r#"time: unknown unit "d" in duration "1d""#)),
            ("1h1", Err(r#"time: missing unit in duration "1h1""#)),
            ("abc", Err(r#"time: invalid duration "abc""#)),
            (".s", Err(r#"time: invalid duration ".s""#)),
            ("1.5.5s", Err(r#"time: missing unit in duration "1.5.5s""#)),
            ("9223372036854775808ns", Err(r#"time: invalid duration "9223372036854775808ns""#)),
            ("1e3s", Err(r#"time: unknown unit "e" in duration "1e3s""#)),
            ("+", Err(r#"time: invalid duration "+""#)),
            ("3000000h", Err(r#"time: invalid duration "3000000h""#)),
            ("1h 5m", Err(r#"time: unknown unit "h " in duration "1h 5m""#)),
            ("\"x\"", Err(r#"time: invalid duration "\"x\"""#)),
            ("é", Err(r#"time: invalid duration "\xc3\xa9""#)),
        ];
        for (text, expected) in cases {
            let got = parse(text).map_err(|error| error.to_string());
            assert_eq!(got, expected.map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn spans_are_written_as_in_the_reference() {
        let cases = [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (3_300_000_000, "3.3s"),
            (3_600_000_000_000, "1h0m0s"),
            (90_061_000_000_001, "25h1m1.000000001s"),
            (-1_500_000_000, "-1.5s"),
            (60_000_000_000, "1m0s"),
            (i64::MIN, "-2562047h47m16.854775808s"),
        ];
        for (nanoseconds, expected) in cases {
            assert_eq!(format(nanoseconds), expected);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(nanoseconds: i64) {
            let back = parse(&format(nanoseconds)).unwrap();
            // A fraction is scaled through a float, as in the reference, so the last digits of years may differ.
            prop_assert!((back as i128 - nanoseconds as i128).abs() <= 1);
        }

        #[test]
        fn any_text_reads_without_a_panic(text in "[-+]?[0-9.hmsnuµ ]{0,20}|.{0,20}") {
            let _ = parse(&text);
        }
    }
}
