//! Numbers as Go's `strconv` reads and writes them.

/// Why a text is no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberError {
    /// It is not written like one.
    Syntax,
    /// It does not fit.
    Range,
}

/// Reads an unsigned integer; base 0 takes the base from the prefix, `0x`, `0o`, `0b` or `0`, and underscores between
/// digits.
pub(crate) fn parse_uint(text: &[u8], base: u32) -> Result<u64, NumberError> {
    let (mut digits, mut radix) = (text, base);
    if base == 0 {
        radix = 10;
        if text.first() == Some(&b'0') {
            (digits, radix) = match text.get(1).map(u8::to_ascii_lowercase) {
                Some(b'x') if text.len() > 2 => (&text[2..], 16),
                Some(b'o') if text.len() > 2 => (&text[2..], 8),
                Some(b'b') if text.len() > 2 => (&text[2..], 2),
                _ => (&text[1..], 8),
            };
        }
    }
    if text.is_empty() {
        return Err(NumberError::Syntax);
    }
    let (mut value, mut overflow) = (0u64, false);
    let mut underscores = false;
    for byte in digits {
        if *byte == b'_' && base == 0 {
            underscores = true;
            continue;
        }
        let digit = char::from(*byte).to_digit(radix).ok_or(NumberError::Syntax)?;
        let next = value.checked_mul(u64::from(radix)).and_then(|value| value.checked_add(u64::from(digit)));
        overflow |= next.is_none();
        value = next.unwrap_or(value);
    }
    if overflow {
        return Err(NumberError::Range);
    }
    if underscores && !underscores_stand_well(text) {
        return Err(NumberError::Syntax);
    }
    Ok(value)
}

/// As [`parse_uint`], with a sign.
pub fn parse_int(text: &[u8], base: u32) -> Result<i64, NumberError> {
    let (negative, digits) = match text.first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let magnitude = parse_uint(digits, base)?;
    let limit = 1u64 << 63;
    match negative {
        true if magnitude <= limit => Ok(magnitude.wrapping_neg() as i64),
        false if magnitude < limit => Ok(magnitude as i64),
        _ => Err(NumberError::Range),
    }
}

/// Whether each underscore stands between digits, or between the prefix of the base and a digit.
fn underscores_stand_well(text: &[u8]) -> bool {
    let text = text.strip_prefix(b"-").or_else(|| text.strip_prefix(b"+")).unwrap_or(text);
    let prefixed = text.len() >= 2 && text[0] == b'0' && matches!(text[1].to_ascii_lowercase(), b'b' | b'o' | b'x');
    let hex = prefixed && text[1].eq_ignore_ascii_case(&b'x');
    // What stood before: the start, a digit (or the prefix), an underscore, something else.
    let mut before = if prefixed { b'0' } else { b'^' };
    for byte in &text[if prefixed { 2 } else { 0 }..] {
        if byte.is_ascii_digit() || hex && byte.is_ascii_hexdigit() {
            before = b'0';
        } else if *byte == b'_' {
            if before != b'0' {
                return false;
            }
            before = b'_';
        } else {
            if before == b'_' {
                return false;
            }
            before = b'!';
        }
    }
    before != b'_'
}

/// Reads a floating-point number: decimal, hexadecimal with an exponent of two, infinity or NaN.
pub fn parse_float(text: &[u8]) -> Result<f64, NumberError> {
    let (negative, rest) = match text.first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let signed = |value: f64| if negative { -value } else { value };
    let lower = rest.to_ascii_lowercase();
    match lower.as_slice() {
        b"inf" | b"infinity" => return Ok(signed(f64::INFINITY)),
        // A sign before it is not taken.
        b"nan" if rest.len() == text.len() => return Ok(f64::NAN),
        _ => {}
    }
    if lower.contains(&b'_') && !underscores_stand_well(&lower) {
        return Err(NumberError::Syntax);
    }
    if lower.starts_with(b"0x") {
        return hexadecimal(&lower[2..]).map(signed);
    }
    let lower: Vec<u8> = lower.into_iter().filter(|byte| *byte != b'_').collect();
    let shape = lower.iter().all(|byte| byte.is_ascii_digit() || b".e+-".contains(byte));
    // One sign is enough.
    if matches!(lower.first(), Some(b'+' | b'-')) || !shape || !lower.iter().any(u8::is_ascii_digit) {
        return Err(NumberError::Syntax);
    }
    let value: f64 = std::str::from_utf8(&lower).ok().and_then(|s| s.parse().ok()).ok_or(NumberError::Syntax)?;
    if value.is_infinite() { Err(NumberError::Range) } else { Ok(signed(value)) }
}

/// The digits behind `0x`, with the exponent that they must have.
fn hexadecimal(text: &[u8]) -> Result<f64, NumberError> {
    let at = text.iter().position(|byte| *byte == b'p').ok_or(NumberError::Syntax)?;
    let (digits, exponent) = (&text[..at], &text[at + 1..]);
    let exponent: Vec<u8> = exponent.iter().copied().filter(|byte| *byte != b'_').collect();
    let unsigned = exponent.strip_prefix(b"-").or_else(|| exponent.strip_prefix(b"+")).unwrap_or(&exponent);
    if unsigned.is_empty() || !unsigned.iter().all(u8::is_ascii_digit) {
        return Err(NumberError::Syntax);
    }
    let mut power = parse_int(&exponent, 10).unwrap_or(if exponent[0] == b'-' { -100_000 } else { 100_000 });
    power = power.clamp(-100_000, 100_000);
    let (mut mantissa, mut sticky, mut any, mut point) = (0u64, false, false, false);
    for byte in digits {
        match byte {
            b'_' => {}
            b'.' if !point => point = true,
            _ => {
                let digit = char::from(*byte).to_digit(16).ok_or(NumberError::Syntax)?;
                any = true;
                if mantissa >> 59 == 0 {
                    mantissa = mantissa << 4 | u64::from(digit);
                    power -= if point { 4 } else { 0 };
                } else {
                    // What is beyond the bits of a float only tells on which side of a half it stands.
                    sticky |= digit != 0;
                    power += if point { 0 } else { 4 };
                }
            }
        }
    }
    if !any {
        return Err(NumberError::Syntax);
    }
    if mantissa == 0 {
        return Ok(0.0);
    }
    let value = scale(mantissa | u64::from(sticky), power);
    if value.is_infinite() { Err(NumberError::Range) } else { Ok(value) }
}

/// A mantissa times a power of two, rounded once, to even.
fn scale(mantissa: u64, power: i64) -> f64 {
    let shift = i64::from(mantissa.leading_zeros());
    let mantissa = mantissa << shift;
    // The value is mantissa · 2^power, and the first bit of the mantissa stands at 2^63.
    let power = power - shift;
    let top = power + 63;
    if top > 1023 {
        return f64::INFINITY;
    }
    let keep = if top >= -1022 { 53 } else { 53 - (-1022 - top) };
    if keep < 0 {
        return 0.0;
    }
    let drop = (64 - keep) as u32;
    let (kept, rest, half) = match drop {
        64 => (0, mantissa, 1u64 << 63),
        drop => (mantissa >> drop, mantissa & ((1 << drop) - 1), 1u64 << (drop - 1)),
    };
    let kept = kept + u64::from(rest > half || rest == half && kept & 1 == 1);
    // Both factors and the product are exact: the mantissa has at most 53 bits and fits its place.
    let exponent = power + i64::from(drop);
    let mut value = kept as f64;
    let mut left = exponent;
    while left < 0 {
        let step = left.max(-1000);
        value *= f64::from_bits(((1023 + step) as u64) << 52);
        left -= step;
    }
    while left > 0 {
        let step = left.min(1000);
        value *= f64::from_bits(((1023 + step) as u64) << 52);
        left -= step;
    }
    value
}

/// A number as `strconv.FormatFloat(value, 'f', -1, 64)` writes it.
#[cfg(test)]
pub(crate) fn fixed(value: f64) -> String {
    format!("{value}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn integers_are_read_in_any_base() {
        let cases: [(&str, Result<i64, NumberError>); 16] = [
            ("42", Ok(42)),
            ("-0x1F", Ok(-31)),
            ("010", Ok(8)),
            ("08", Err(NumberError::Syntax)),
            ("0o17", Ok(15)),
            ("0b101", Ok(5)),
            ("1_000", Ok(1000)),
            ("1__0", Err(NumberError::Syntax)),
            ("_1", Err(NumberError::Syntax)),
            ("0x_f", Ok(15)),
            ("", Err(NumberError::Syntax)),
            ("+", Err(NumberError::Syntax)),
            ("-9223372036854775808", Ok(i64::MIN)),
            ("9223372036854775808", Err(NumberError::Range)),
            ("0x", Err(NumberError::Syntax)),
            ("0", Ok(0)),
        ];
        for (text, want) in cases {
            assert_eq!(parse_int(text.as_bytes(), 0), want, "{text}");
        }
        assert_eq!(parse_int(b"1_0", 10), Err(NumberError::Syntax));
        assert_eq!(parse_int(b"17", 8), Ok(15));
    }

    #[test]
    fn floats_are_read_as_go_reads_them() {
        let cases: [(&str, Result<f64, NumberError>); 17] = [
            ("1.5", Ok(1.5)),
            (".5", Ok(0.5)),
            ("5.", Ok(5.0)),
            ("1e3", Ok(1000.0)),
            ("-Inf", Ok(f64::NEG_INFINITY)),
            ("1e400", Err(NumberError::Range)),
            ("--1", Err(NumberError::Syntax)),
            ("+-1", Err(NumberError::Syntax)),
            ("0x1p4", Ok(16.0)),
            ("0x1.8p-1", Ok(0.75)),
            ("0x1p-1074", Ok(5e-324)),
            ("0x1", Err(NumberError::Syntax)),
            ("1_0.5_0", Ok(10.5)),
            ("1_.5", Err(NumberError::Syntax)),
            ("1e", Err(NumberError::Syntax)),
            ("", Err(NumberError::Syntax)),
            ("x", Err(NumberError::Syntax)),
        ];
        for (text, want) in cases {
            assert_eq!(parse_float(text.as_bytes()), want, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_float_is_read_back(value: f64) {
            prop_assume!(value.is_finite());
            prop_assert_eq!(parse_float(fixed(value).as_bytes()).map(f64::to_bits), Ok(value.to_bits()));
        }

        #[test]
        fn any_hexadecimal_float_is_exact(mantissa in 0u64..1 << 53, power in -1000i64..900) {
            let want = (mantissa as f64) * 2f64.powi(power as i32);
            let text = format!("0x{mantissa:x}p{power}");
            prop_assert_eq!(parse_float(text.as_bytes()).map(f64::to_bits), Ok(want.to_bits()));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "[-+]?(0[xXbBoO])?[0-9a-fA-F_.]{0,12}([pPeE][-+]?[0-9_]{0,6})?") {
            let _ = (parse_int(text.as_bytes(), 0), parse_uint(text.as_bytes(), 0), parse_float(text.as_bytes()));
        }
    }
}
