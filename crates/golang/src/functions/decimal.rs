//! Arithmetic with decimal digits, so that `0.1 + 0.2` is `0.3`.

use std::cmp::Ordering;

/// The most digits that a number may have.
const DIGITS_MAX: usize = 5_000;
/// How many digits behind the point a quotient has.
const QUOTIENT_DIGITS: i64 = 16;

/// A decimal number: its digits times a power of ten.
#[derive(Clone, Debug)]
pub(super) struct Decimal {
    negative: bool,
    /// The highest first, without zeros before it; none is zero.
    digits: Vec<u8>,
    exponent: i64,
}

fn too_large() -> String {
    format!("number has more than {DIGITS_MAX} digits")
}

impl Decimal {
    /// The shortest decimal number that stands for a floating-point one.
    pub(super) fn new(value: f64) -> Result<Self, String> {
        if !value.is_finite() {
            let name = if value.is_nan() {
                "NaN"
            } else if value < 0.0 {
                "-Inf"
            } else {
                "+Inf"
            };
            return Err(format!("Cannot create a Decimal from {name}"));
        }
        let text = format!("{:e}", value.abs());
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let exponent: i64 = exponent.parse().unwrap_or(0);
        let digits: Vec<u8> = mantissa.bytes().filter(u8::is_ascii_digit).map(|digit| digit - b'0').collect();
        let exponent = exponent - (digits.len() as i64 - 1);
        Ok(Decimal { negative: value < 0.0, digits: trimmed(digits), exponent })
    }

    pub(super) fn to_float(&self) -> f64 {
        let digits: String = self.digits.iter().map(|digit| char::from(b'0' + digit)).collect();
        let value: f64 = format!("0{digits}e{}", self.exponent).parse().unwrap_or(0.0);
        if self.negative { -value } else { value }
    }

    pub(super) fn negate(&self) -> Self {
        Decimal { negative: !self.negative && !self.digits.is_empty(), ..self.clone() }
    }

    /// The digits with so many zeros behind them.
    fn shifted(&self, zeros: i64) -> Result<Vec<u8>, String> {
        if self.digits.is_empty() {
            return Ok(Vec::new());
        }
        let zeros = usize::try_from(zeros).unwrap_or(0);
        if self.digits.len().saturating_add(zeros) > DIGITS_MAX {
            return Err(too_large());
        }
        let mut digits = self.digits.clone();
        digits.resize(digits.len() + zeros, 0);
        Ok(digits)
    }

    pub(super) fn add(&self, other: &Self) -> Result<Self, String> {
        let exponent = self.exponent.min(other.exponent);
        let (a, b) = (self.shifted(self.exponent - exponent)?, other.shifted(other.exponent - exponent)?);
        let (negative, digits) = match (self.negative == other.negative, compare(&a, &b)) {
            (true, _) => (self.negative, sum(&a, &b)),
            (false, Ordering::Equal) => (false, Vec::new()),
            (false, Ordering::Greater) => (self.negative, difference(&a, &b)),
            (false, Ordering::Less) => (other.negative, difference(&b, &a)),
        };
        Ok(Decimal { negative: negative && !digits.is_empty(), digits, exponent })
    }

    pub(super) fn multiply(&self, other: &Self) -> Result<Self, String> {
        if self.digits.len() + other.digits.len() > DIGITS_MAX {
            return Err(too_large());
        }
        let mut product = vec![0u32; self.digits.len() + other.digits.len()];
        for (i, a) in self.digits.iter().rev().enumerate() {
            for (j, b) in other.digits.iter().rev().enumerate() {
                product[i + j] += u32::from(*a) * u32::from(*b);
            }
        }
        let mut carry = 0;
        for digit in &mut product {
            let value = *digit + carry;
            (*digit, carry) = (value % 10, value / 10);
        }
        let digits = trimmed(product.into_iter().rev().map(|digit| digit as u8).collect());
        let negative = self.negative != other.negative && !digits.is_empty();
        Ok(Decimal { negative, digits, exponent: self.exponent + other.exponent })
    }

    /// The quotient, with sixteen digits behind the point; a half is rounded away from zero.
    pub(super) fn divide(&self, other: &Self) -> Result<Self, String> {
        if other.digits.is_empty() {
            return Err("decimal division by 0".to_owned());
        }
        let shift = self.exponent - other.exponent + QUOTIENT_DIGITS;
        let (dividend, divisor) = (self.shifted(shift.max(0))?, other.shifted((-shift).max(0))?);
        let mut quotient = Vec::with_capacity(dividend.len());
        let mut rest: Vec<u8> = Vec::new();
        for digit in &dividend {
            if !rest.is_empty() || *digit != 0 {
                rest.push(*digit);
            }
            let mut times = 0;
            while compare(&rest, &divisor) != Ordering::Less {
                rest = difference(&rest, &divisor);
                times += 1;
            }
            quotient.push(times);
        }
        let mut digits = trimmed(quotient);
        if compare(&sum(&rest, &rest), &divisor) != Ordering::Less {
            digits = sum(&digits, &[1]);
        }
        let negative = self.negative != other.negative && !digits.is_empty();
        Ok(Decimal { negative, digits, exponent: -QUOTIENT_DIGITS })
    }
}

fn trimmed(digits: Vec<u8>) -> Vec<u8> {
    let zeros = digits.iter().take_while(|digit| **digit == 0).count();
    if zeros == 0 { digits } else { digits[zeros..].to_vec() }
}

fn compare(a: &[u8], b: &[u8]) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

fn sum(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut digits = Vec::with_capacity(a.len().max(b.len()) + 1);
    let (mut a, mut b, mut carry) = (a.iter().rev(), b.iter().rev(), 0);
    loop {
        let (left, right) = (a.next(), b.next());
        if left.is_none() && right.is_none() && carry == 0 {
            break;
        }
        let value = left.unwrap_or(&0) + right.unwrap_or(&0) + carry;
        digits.push(value % 10);
        carry = value / 10;
    }
    digits.reverse();
    trimmed(digits)
}

/// The first is not the smaller one.
fn difference(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut digits = Vec::with_capacity(a.len());
    let (mut b, mut borrow) = (b.iter().rev(), 0);
    for digit in a.iter().rev() {
        let take = b.next().unwrap_or(&0) + borrow;
        borrow = u8::from(*digit < take);
        digits.push(digit + 10 * borrow - take);
    }
    digits.reverse();
    trimmed(digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn decimal_results_are_exact() {
        let number = |value: f64| Decimal::new(value).unwrap();
        assert_eq!(number(0.1).add(&number(0.2)).unwrap().to_float(), 0.3);
        assert_eq!(number(1.1).multiply(&number(1.1)).unwrap().to_float(), 1.21);
        assert_eq!(number(1.0).divide(&number(3.0)).unwrap().to_float(), 0.3333333333333333);
        assert_eq!(number(-2.0).divide(&number(3.0)).unwrap().to_float(), -0.6666666666666667);
        assert_eq!(number(0.3).add(&number(0.3).negate()).unwrap().to_float(), 0.0);
    }

    proptest! {
        #[test]
        fn integers_are_computed_as_integers(a in -1_000_000i64..1_000_000, b in -1_000_000i64..1_000_000) {
            let (x, y) = (Decimal::new(a as f64).unwrap(), Decimal::new(b as f64).unwrap());
            prop_assert_eq!(x.add(&y).unwrap().to_float(), (a + b) as f64);
            prop_assert_eq!(x.multiply(&y).unwrap().to_float(), (a * b) as f64);
        }

        #[test]
        fn a_number_is_read_back(value: f64) {
            prop_assume!(value.is_finite());
            let back = Decimal::new(value).unwrap().to_float();
            prop_assert_eq!(back, value);
        }

        #[test]
        fn any_two_numbers_are_computed_without_a_panic(a: f64, b: f64) {
            if let (Ok(a), Ok(b)) = (Decimal::new(a), Decimal::new(b)) {
                let _ = (a.add(&b), a.multiply(&b), a.divide(&b));
            }
        }
    }
}
