//! Numbers of the configuration language: three kinds that stay distinct, with the reference's arithmetic.

use std::cmp::Ordering;
use std::fmt;

/// A number. The three kinds of the reference stay distinct, because arithmetic and formatting depend on them.
#[derive(Clone, Copy, Debug)]
pub enum Number {
    /// A signed integer.
    Int(i64),
    /// An unsigned integer.
    Uint(u64),
    /// A floating-point number.
    Float(f64),
}

/// Two numbers, widened to the kind that they are computed in: unsigned, then signed, then floating point.
enum Pair {
    Uint(u64, u64),
    Int(i64, i64),
    Float(f64, f64),
}

impl Number {
    /// As a signed integer: a fraction is cut off; unsigned integers wrap; a float out of range, or NaN, becomes the
    /// lowest integer, as on the reference's amd64.
    pub const fn to_i64(self) -> i64 {
        match self {
            Number::Int(value) => value,
            Number::Uint(value) => value as i64,
            Number::Float(value) => float_to_i64(value),
        }
    }

    /// As an unsigned integer: a fraction is cut off; negative ones wrap; a float out of range, or NaN, becomes 2⁶³, as
    /// on the reference's amd64.
    pub const fn to_u64(self) -> u64 {
        match self {
            Number::Int(value) => value as u64,
            Number::Uint(value) => value,
            Number::Float(value) => {
                // 2⁶³ and above do not fit the signed conversion that serves everything below.
                if value < 9_223_372_036_854_775_808.0 {
                    float_to_i64(value) as u64
                } else if value < 18_446_744_073_709_551_616.0 {
                    value as u64
                } else {
                    1 << 63
                }
            }
        }
    }

    /// As a floating-point number, rounded where it has more than 53 significant bits.
    pub const fn to_f64(self) -> f64 {
        match self {
            Number::Int(value) => value as f64,
            Number::Uint(value) => value as f64,
            Number::Float(value) => value,
        }
    }

    /// Whether it is zero of its kind. Negative zero is none, because the reference compares its bits.
    pub const fn is_zero(self) -> bool {
        match self {
            Number::Int(value) => value == 0,
            Number::Uint(value) => value == 0,
            Number::Float(value) => value.to_bits() == 0,
        }
    }

    /// Whether the other is of the same kind and has the same bits.
    pub const fn is_identical(self, other: Number) -> bool {
        match (self, other) {
            (Number::Int(a), Number::Int(b)) => a == b,
            (Number::Uint(a), Number::Uint(b)) => a == b,
            (Number::Float(a), Number::Float(b)) => a.to_bits() == b.to_bits(),
            _ => false,
        }
    }

    /// The number with its sign changed. Unsigned integers become signed ones first.
    #[must_use]
    pub const fn negate(self) -> Number {
        match self {
            Number::Float(value) => Number::Float(-value),
            other => Number::Int(other.to_i64().wrapping_neg()),
        }
    }

    /// The sum; integers wrap.
    #[must_use]
    pub const fn wrapping_add(self, other: Number) -> Number {
        match Pair::new(self, other) {
            Pair::Uint(a, b) => Number::Uint(a.wrapping_add(b)),
            Pair::Int(a, b) => Number::Int(a.wrapping_add(b)),
            Pair::Float(a, b) => Number::Float(a + b),
        }
    }

    /// The difference; integers wrap.
    #[must_use]
    pub const fn wrapping_sub(self, other: Number) -> Number {
        match Pair::new(self, other) {
            Pair::Uint(a, b) => Number::Uint(a.wrapping_sub(b)),
            Pair::Int(a, b) => Number::Int(a.wrapping_sub(b)),
            Pair::Float(a, b) => Number::Float(a - b),
        }
    }

    /// The product; integers wrap.
    #[must_use]
    pub const fn wrapping_mul(self, other: Number) -> Number {
        match Pair::new(self, other) {
            Pair::Uint(a, b) => Number::Uint(a.wrapping_mul(b)),
            Pair::Int(a, b) => Number::Int(a.wrapping_mul(b)),
            Pair::Float(a, b) => Number::Float(a * b),
        }
    }

    /// The quotient, towards zero for integers; nothing if the divisor is zero, of whatever kind.
    pub fn checked_div(self, other: Number) -> Option<Number> {
        if other.equals_zero() {
            return None;
        }
        Some(match Pair::new(self, other) {
            Pair::Uint(a, b) => Number::Uint(a.checked_div(b)?),
            // A float divisor is not zero, but a float never meets this arm, so the divisor is the integer seen above.
            Pair::Int(a, b) => Number::Int(if b == 0 { return None } else { a.wrapping_div(b) }),
            Pair::Float(a, b) => Number::Float(a / b),
        })
    }

    /// The remainder, with the sign of the dividend; nothing if the divisor is zero, of whatever kind.
    pub fn checked_rem(self, other: Number) -> Option<Number> {
        if other.equals_zero() {
            return None;
        }
        Some(match Pair::new(self, other) {
            Pair::Uint(a, b) => Number::Uint(a.checked_rem(b)?),
            Pair::Int(a, b) => Number::Int(if b == 0 { return None } else { a.wrapping_rem(b) }),
            Pair::Float(a, b) => Number::Float(a % b),
        })
    }

    /// The power. Integers wrap; for a negative integer exponent the reference never enters its multiplication, so the
    /// base itself comes back.
    #[must_use]
    pub fn pow(self, other: Number) -> Number {
        match Pair::new(self, other) {
            Pair::Uint(a, b) => Number::Uint(wrapping_pow(a, b)),
            Pair::Int(a, b) => Number::Int(if b < 0 { a } else { wrapping_pow(a as u64, b as u64) as i64 }),
            Pair::Float(a, b) => Number::Float(a.powf(b)),
        }
    }

    /// How the language orders two numbers; nothing if one is NaN.
    pub fn compare(self, other: Number) -> Option<Ordering> {
        match Pair::new(self, other) {
            Pair::Uint(a, b) => Some(a.cmp(&b)),
            Pair::Int(a, b) => Some(a.cmp(&b)),
            Pair::Float(a, b) => a.partial_cmp(&b),
        }
    }

    /// Whether it divides nothing: negative zero too.
    const fn equals_zero(self) -> bool {
        match self {
            Number::Int(value) => value == 0,
            Number::Uint(value) => value == 0,
            Number::Float(value) => value == 0.0,
        }
    }
}

/// In decimal; floats in their shortest form without an exponent, `NaN`, `+Inf` or `-Inf`.
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Number::Int(value) => write!(f, "{value}"),
            Number::Uint(value) => write!(f, "{value}"),
            Number::Float(value) if value == f64::INFINITY => f.write_str("+Inf"),
            Number::Float(value) if value == f64::NEG_INFINITY => f.write_str("-Inf"),
            Number::Float(value) if value.is_nan() => f.write_str("NaN"),
            Number::Float(value) => write!(f, "{value}"),
        }
    }
}

impl Pair {
    const fn new(a: Number, b: Number) -> Pair {
        match (a, b) {
            (Number::Float(_), _) | (_, Number::Float(_)) => Pair::Float(a.to_f64(), b.to_f64()),
            (Number::Int(_), _) | (_, Number::Int(_)) => Pair::Int(a.to_i64(), b.to_i64()),
            (Number::Uint(a), Number::Uint(b)) => Pair::Uint(a, b),
        }
    }
}

const fn float_to_i64(value: f64) -> i64 {
    if value >= -9_223_372_036_854_775_808.0 && value < 9_223_372_036_854_775_808.0 { value as i64 } else { i64::MIN }
}

/// By squaring: the reference multiplies in a loop, which for `3 ^ 9223372036854775807` does not end in a lifetime.
/// Modulo 2⁶⁴ the result is the same, for signed numbers too.
const fn wrapping_pow(mut base: u64, mut exponent: u64) -> u64 {
    let mut result = 1u64;
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = result.wrapping_mul(base);
        }
        base = base.wrapping_mul(base);
        exponent >>= 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_out_of_range_convert_as_on_the_reference_machine() {
        let cases = [
            (-1.0, -1, u64::MAX),
            (-0.5, 0, 0),
            (1.9, 1, 1),
            (1e19, i64::MIN, 10_000_000_000_000_000_000),
            (9.3e18, i64::MIN, 9_300_000_000_000_000_000),
            (1e300, i64::MIN, 1 << 63),
            (-1e300, i64::MIN, 1 << 63),
            (f64::INFINITY, i64::MIN, 1 << 63),
            (f64::NAN, i64::MIN, 1 << 63),
        ];
        for (float, signed, unsigned) in cases {
            assert_eq!((Number::Float(float).to_i64(), Number::Float(float).to_u64()), (signed, unsigned), "{float}");
        }
    }

    #[test]
    fn powers_of_integers_are_those_of_the_reference() {
        let pow = |base, exponent| Number::Int(base).pow(Number::Int(exponent)).to_i64();
        let cases =
            [(2, -1, 2), (0, -1, 0), (1, -5, 1), (0, 0, 1), (2, 3, 8), (-2, 3, -8), (3, 39, 4_052_555_153_018_976_267)];
        for (base, exponent, expected) in cases {
            assert_eq!(pow(base, exponent), expected, "{base} ^ {exponent}");
        }
        // In the reference this takes longer than a lifetime. The order of 3 modulo 2^64 divides 2^62, and so
        // 3 ^ (2^63 - 1) is the inverse of 3.
        assert_eq!(pow(3, i64::MAX).wrapping_mul(3), 1);
    }

    #[test]
    fn floats_are_written_without_exponents() {
        let cases = [
            (1e21, "1000000000000000000000"),
            (5.5, "5.5"),
            (1e-7, "0.0000001"),
            (-0.0, "-0"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ];
        for (value, expected) in cases {
            assert_eq!(Number::Float(value).to_string(), expected);
        }
    }

    fn number() -> impl Strategy<Value = Number> {
        prop_oneof![
            any::<i64>().prop_map(Number::Int),
            any::<u64>().prop_map(Number::Uint),
            any::<f64>().prop_map(Number::Float),
            (-3i64..4).prop_map(Number::Int),
        ]
    }

    proptest! {
        #[test]
        fn arithmetic_never_panics_and_widens(a in number(), b in number()) {
            let results = [
                Some(a.wrapping_add(b)),
                Some(a.wrapping_sub(b)),
                Some(a.wrapping_mul(b)),
                a.checked_div(b),
                a.checked_rem(b),
                Some(a.pow(b)),
            ];
            let float = matches!(a, Number::Float(_)) || matches!(b, Number::Float(_));
            let signed = matches!(a, Number::Int(_)) || matches!(b, Number::Int(_));
            for result in results.into_iter().flatten() {
                match result {
                    Number::Float(_) => prop_assert!(float),
                    Number::Int(_) => prop_assert!(!float && signed),
                    Number::Uint(_) => prop_assert!(!float && !signed),
                }
            }
        }

        #[test]
        fn powers_by_squaring_are_those_by_multiplying(base: i64, exponent in 0u64..200) {
            let slow = (0..exponent).fold(1i64, |product, _| product.wrapping_mul(base));
            prop_assert_eq!(Number::Int(base).pow(Number::Int(exponent as i64)).to_i64(), slow);
        }

        #[test]
        fn integers_survive_the_way_through_text(value: i64, unsigned: u64) {
            prop_assert_eq!(Number::Int(value).to_string().parse::<i64>().unwrap(), value);
            let back = crate::convert::parse_number(&unsigned.to_string()).unwrap();
            prop_assert!(back.is_identical(Number::Uint(unsigned)));
        }

        #[test]
        fn order_is_that_of_the_kind_computed_in(a: i64, b: i64) {
            prop_assert_eq!(Number::Int(a).compare(Number::Int(b)), Some(a.cmp(&b)));
            prop_assert_eq!(Number::Int(a).compare(Number::Float(b as f64)), (a as f64).partial_cmp(&(b as f64)));
            // An unsigned number beside a signed one wraps.
            prop_assert_eq!(Number::Int(a).compare(Number::Uint(b as u64)), Some(a.cmp(&b)));
        }
    }
}
