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
    pub const fn add(self, other: Number) -> Number {
        match Pair::new(self, other) {
            Pair::Uint(a, b) => Number::Uint(a.wrapping_add(b)),
            Pair::Int(a, b) => Number::Int(a.wrapping_add(b)),
            Pair::Float(a, b) => Number::Float(a + b),
        }
    }

    /// The difference; integers wrap.
    #[must_use]
    pub const fn sub(self, other: Number) -> Number {
        match Pair::new(self, other) {
            Pair::Uint(a, b) => Number::Uint(a.wrapping_sub(b)),
            Pair::Int(a, b) => Number::Int(a.wrapping_sub(b)),
            Pair::Float(a, b) => Number::Float(a - b),
        }
    }

    /// The product; integers wrap.
    #[must_use]
    pub const fn mul(self, other: Number) -> Number {
        match Pair::new(self, other) {
            Pair::Uint(a, b) => Number::Uint(a.wrapping_mul(b)),
            Pair::Int(a, b) => Number::Int(a.wrapping_mul(b)),
            Pair::Float(a, b) => Number::Float(a * b),
        }
    }

    /// The quotient, towards zero for integers; nothing if the divisor is zero, of whatever kind.
    pub fn div(self, other: Number) -> Option<Number> {
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
    pub fn rem(self, other: Number) -> Option<Number> {
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
