//! Numbers as exposition formats write them.

use std::fmt::Write as _;

use corten_signal::metrics::NORMAL_NAN_BITS;

/// Reads a sample value in the syntax of Go's `strconv.ParseFloat`, without hexadecimal floats and digit separators.
/// Every NaN becomes the canonical one, so that a text cannot carry a staleness marker.
///
/// Returns `None` for anything else and for numbers out of range.
pub fn parse_value(text: &[u8]) -> Option<f64> {
    match parse_decimal(text) {
        Some(value) => Some(value),
        None => parse_slow(text),
    }
}

const POWERS_OF_TEN: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// The numbers whose digits and power of ten are both exact as floats: one multiplication or division rounds once.
#[inline]
fn parse_decimal(text: &[u8]) -> Option<f64> {
    let (negative, digits) = match text.split_first()? {
        (b'-', rest) => (true, rest),
        (b'+', rest) => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() || digits.len() > 17 {
        return None;
    }
    let mut mantissa = 0u64;
    let mut count = 0usize;
    let mut fraction = 0usize;
    let mut seen_point = false;
    let mut exponent = 0i32;
    for (at, &byte) in digits.iter().enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit < 10 {
            mantissa = mantissa * 10 + u64::from(digit);
            count += 1;
            fraction += usize::from(seen_point);
        } else if byte == b'.' && !seen_point {
            seen_point = true;
        } else if (byte == b'e' || byte == b'E') && count > 0 {
            exponent = parse_exponent(&digits[at + 1..])?;
            break;
        } else {
            return None;
        }
    }
    if count == 0 || mantissa > 1 << 53 {
        return None;
    }
    let power = exponent - fraction as i32;
    let scale = *POWERS_OF_TEN.get(power.unsigned_abs() as usize)?;
    let value = if power < 0 { mantissa as f64 / scale } else { mantissa as f64 * scale };
    Some(if negative { -value } else { value })
}

fn parse_exponent(text: &[u8]) -> Option<i32> {
    let (negative, digits) = match text.split_first()? {
        (b'-', rest) => (true, rest),
        (b'+', rest) => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() || digits.len() > 3 {
        return None;
    }
    let mut value = 0i32;
    for &byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + i32::from(digit);
    }
    Some(if negative { -value } else { value })
}

#[cold]
fn parse_slow(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?;
    let value: f64 = text.parse().ok()?;
    let unsigned = text.trim_start_matches(['+', '-']);
    if value.is_nan() {
        return (unsigned.len() == text.len()).then_some(f64::from_bits(NORMAL_NAN_BITS));
    }
    if value.is_infinite() && !unsigned.starts_with(['i', 'I']) {
        return None;
    }
    Some(value)
}

/// Writes a float as OpenMetrics writes `le` and `quantile`: the shortest form that reads back as the same number, with
/// `.0` behind whole numbers, an exponent of at least two digits below 1e-4 and from 1e6 on, `+Inf`, `-Inf` and `NaN`.
pub fn push_open_metrics_float(out: &mut String, value: f64) {
    let start = out.len();
    push_go_float(out, if value == 0.0 { 0.0 } else { value });
    if value.is_finite() && !out[start..].contains(['.', 'e']) {
        out.push_str(".0");
    }
}

/// Writes a float as Go's `strconv.FormatFloat(value, 'g', -1, 64)` and `%v` do: the shortest digits, an exponent of at
/// least two digits where it is below -4 or above 5, `+Inf`, `-Inf` and `NaN`.
pub fn push_go_float(out: &mut String, value: f64) {
    if !value.is_finite() {
        out.push_str(match value {
            f64::INFINITY => "+Inf",
            f64::NEG_INFINITY => "-Inf",
            _ => "NaN",
        });
        return;
    }
    if value == 0.0 {
        out.push_str(if value.is_sign_negative() { "-0" } else { "0" });
        return;
    }
    // `{:e}` gives the shortest digits: d.ddde-n. The longest such text is `-2.2250738585072014e-308`.
    let mut scientific = Digits { bytes: [0; 32], len: 0 };
    let _ = write!(scientific, "{value:e}");
    let scientific = std::str::from_utf8(&scientific.bytes[..scientific.len]).unwrap_or_default();
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        let _ = write!(out, "{value}");
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        let _ = write!(out, "{mantissa}e{sign}{:02}", exponent.abs());
    }
}

/// A float as Go's `%v` shows it.
pub fn go_float(value: f64) -> String {
    let mut out = String::new();
    push_go_float(&mut out, value);
    out
}

/// A text of a few characters, so that numbers are written without an allocation.
struct Digits {
    bytes: [u8; 32],
    len: usize,
}

impl std::fmt::Write for Digits {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.len + text.len();
        self.bytes.get_mut(self.len..end).ok_or(std::fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_read_as_go_reads_them() {
        for (text, want) in [
            ("0", Some(0.0)),
            ("-0", Some(-0.0)),
            ("+1", Some(1.0)),
            ("1.", Some(1.0)),
            (".5", Some(0.5)),
            ("1e3", Some(1000.0)),
            ("1E+3", Some(1000.0)),
            ("12.5e-1", Some(1.25)),
            ("1.7976931348623157e308", Some(f64::MAX)),
            ("5e-324", Some(5e-324)),
            ("Inf", Some(f64::INFINITY)),
            ("-iNf", Some(f64::NEG_INFINITY)),
            ("+infinity", Some(f64::INFINITY)),
            ("1e309", None),
            ("", None),
            (".", None),
            ("+", None),
            ("e5", None),
            ("1e", None),
            ("1e+", None),
            ("+nan", None),
            ("0x10", None),
            ("0x1p4", None),
            ("1_000", None),
            ("1 ", None),
            ("1.2.3", None),
        ] {
            assert_eq!(parse_value(text.as_bytes()).map(f64::to_bits), want.map(f64::to_bits), "{text}");
        }
    }

    #[test]
    fn every_nan_becomes_the_canonical_one() {
        for text in ["NaN", "nan", "NAN"] {
            assert_eq!(parse_value(text.as_bytes()).unwrap().to_bits(), NORMAL_NAN_BITS);
        }
    }

    #[test]
    fn bucket_bounds_are_written_as_open_metrics_floats() {
        for (value, want) in [
            (0.0, "0.0"),
            (1.0, "1.0"),
            (100.0, "100.0"),
            (0.005, "0.005"),
            (1e6, "1e+06"),
            (-0.0, "0.0"),
            (123456.0, "123456.0"),
            (1234567.0, "1.234567e+06"),
            (1e21, "1e+21"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-2.5, "-2.5"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ] {
            let mut out = String::new();
            push_open_metrics_float(&mut out, value);
            assert_eq!(out, want);
        }
    }

    proptest! {
        #[test]
        fn the_fast_path_agrees_with_the_standard_library(value: f64, text in "[-+]?[0-9]{0,9}\\.?[0-9]{0,8}(e[-+]?[0-9]{1,2})?") {
            if value.is_finite() {
                prop_assert_eq!(parse_value(format!("{value}").as_bytes()).map(f64::to_bits), Some(value.to_bits()));
                prop_assert_eq!(parse_value(format!("{value:e}").as_bytes()).map(f64::to_bits), Some(value.to_bits()));
            }
            let want = text.parse::<f64>().ok().filter(|v| v.is_finite());
            prop_assert_eq!(parse_value(text.as_bytes()).map(f64::to_bits), want.map(f64::to_bits), "{}", text);
        }
    }
}
