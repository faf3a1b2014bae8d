//! Consistent probability sampling of OpenTelemetry: thresholds, randomness, and where the W3C trace state says them.

/// How many values randomness has: 56 bits of it.
const VALUES: u64 = 1 << 56;
/// How many hexadecimal digits these are.
pub(super) const DIGITS: usize = 14;
/// The randomness that every threshold lets pass but [`Threshold::NEVER`].
pub(super) const RANDOMNESS_MAX: u64 = VALUES - 1;
/// The lowest probability that a threshold can say.
pub(super) const PROBABILITY_MIN: f64 = 1.0 / VALUES as f64;

/// What randomness has to reach: an item is sampled if the threshold is no greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Threshold(u64);

impl Threshold {
    pub(super) const ALWAYS: Threshold = Threshold(0);
    pub(super) const NEVER: Threshold = Threshold(VALUES);

    pub(super) fn new(value: u64) -> Self {
        Threshold(value.min(VALUES))
    }

    /// Up to 14 hexadecimal digits; zeros at their end may be left out.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let missing = DIGITS.checked_sub(text.len())?;
        Some(Threshold(hex(text)? << (4 * missing)))
    }

    /// The threshold of a probability, of so many digits or as many as it takes close to 0 and to 1. Nothing for one that
    /// cannot be said.
    pub(super) fn of(probability: f64, precision: i64) -> Option<Self> {
        if !(PROBABILITY_MIN..=1.0).contains(&probability) {
            return None;
        }
        if probability == 1.0 {
            return Some(Threshold::ALWAYS);
        }
        let precision = if precision == 0 { DIGITS as i64 } else { precision };
        let more = (leading_digits(probability)).max(leading_digits(1.0 - probability));
        let precision = precision.saturating_add(more).min(DIGITS as i64);
        let mut threshold = VALUES - (probability * VALUES as f64).round() as u64;
        let shift = (DIGITS as i64 - precision).saturating_mul(4);
        if shift > 0 {
            let shift = u32::try_from(shift).unwrap_or(u32::MAX);
            threshold += 1u64.checked_shl(shift - 1).unwrap_or(0);
            threshold = threshold.checked_shr(shift).unwrap_or(0).checked_shl(shift).unwrap_or(0);
        }
        Some(Threshold(threshold))
    }

    pub(super) fn probability(self) -> f64 {
        (VALUES - self.0) as f64 / VALUES as f64
    }

    pub(super) fn samples(self, randomness: u64) -> bool {
        self.0 <= randomness
    }

    /// Appends it without the zeros at its end.
    pub(super) fn write(self, out: &mut Vec<u8>) {
        if self == Threshold::ALWAYS {
            out.push(b'0');
        } else if self < Threshold::NEVER {
            write_randomness(self.0, out);
            let zeros = out.iter().rev().take_while(|digit| **digit == b'0').count();
            out.truncate(out.len() - zeros);
        }
    }
}

/// How many hexadecimal digits, 0 or f, stand before the others in a number below 1, or in 1 less that number.
fn leading_digits(number: f64) -> i64 {
    // The exponent of a number whose mantissa is at least a half.
    let exponent = ((number.to_bits() >> 52) & 0x7ff) as i64 - 1022;
    exponent / -4
}

/// All 14 digits of randomness.
pub(super) fn parse_randomness(text: &[u8]) -> Option<u64> {
    if text.len() == DIGITS { hex(text) } else { None }
}

pub(super) fn write_randomness(value: u64, out: &mut Vec<u8>) {
    for at in (0..DIGITS).rev() {
        out.push(b"0123456789abcdef"[(value >> (4 * at)) as usize & 15]);
    }
}

/// Reads up to 14 hexadecimal digits.
fn hex(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |value, digit| Some(value << 4 | u64::from(char::from(*digit).to_digit(16)?)))
}

/// The low 56 bits of a trace id, which are random.
pub(super) fn of_trace_id(id: &[u8; 16]) -> u64 {
    u128::from_be_bytes(*id) as u64 & RANDOMNESS_MAX
}

/// What an item says of the sampling before.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Said {
    pub(super) threshold: Option<Threshold>,
    pub(super) randomness: Option<u64>,
}

type Member<'a> = (&'a [u8], &'a [u8]);

/// A W3C trace state.
#[derive(Debug, Default)]
pub(super) struct TraceState<'a> {
    pub(super) said: Said,
    /// What was said, as it was written.
    randomness: &'a [u8],
    threshold: &'a [u8],
    /// What else OpenTelemetry's member says.
    fields: Vec<Member<'a>>,
    /// The other members.
    members: Vec<Member<'a>>,
}

const STATE_BYTES_MAX: usize = 1024;
const MEMBERS_MAX: usize = 31;
const VALUE_BYTES_MAX: usize = 256;
const KEY_BYTES_MAX: usize = 256;
const TENANT_BYTES_MAX: usize = 241;
const SYSTEM_BYTES_MAX: usize = 14;

impl<'a> TraceState<'a> {
    /// Reads a trace state, and says whether it is as it has to be; what is not is left out.
    pub(super) fn parse(text: &'a [u8]) -> (Self, bool) {
        let mut state = TraceState::default();
        if text.is_empty() {
            return (state, true);
        }
        if text.len() > STATE_BYTES_MAX || !members(text).flatten().all(is_member) {
            return (state, false);
        }
        let mut good = true;
        for (at, member) in members(text).enumerate() {
            if at >= MEMBERS_MAX {
                return (state, false);
            }
            let Some((key, value)) = member.and_then(|member| cut(member, b'=')) else { continue };
            let too_long =
                |(tenant, system): Member<'_>| tenant.len() > TENANT_BYTES_MAX || system.len() > SYSTEM_BYTES_MAX;
            if key.len() > KEY_BYTES_MAX || cut(key, b'@').is_some_and(too_long) {
                good = false;
            } else if key == b"ot" {
                good &= state.read_fields(value);
            } else {
                state.members.push((key, value));
            }
        }
        (state, good)
    }

    /// Reads what OpenTelemetry says, in place of what it said before.
    fn read_fields(&mut self, text: &'a [u8]) -> bool {
        (self.said, self.randomness, self.threshold) = (Said::default(), b"", b"");
        self.fields.clear();
        let fields = || text.split(|byte| *byte == b';');
        let is_field = |field: &[u8]| {
            cut(field, b':').is_some_and(|(key, value)| {
                key.first().is_some_and(u8::is_ascii_lowercase)
                    && key.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
                    && value.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte))
            })
        };
        if !fields().all(is_field) {
            return false;
        }
        let mut good = true;
        for (key, value) in fields().filter_map(|field| cut(field, b':')) {
            match key {
                b"rv" => {
                    self.said.randomness = parse_randomness(value);
                    self.randomness = value;
                    good &= self.said.randomness.is_some();
                }
                b"th" => {
                    self.said.threshold = Threshold::parse(value);
                    self.threshold = value;
                    good &= self.said.threshold.is_some();
                }
                _ => self.fields.push((key, value)),
            }
        }
        good
    }

    /// Writes the state with the randomness that was made for the item and with a new threshold, if there are these.
    pub(super) fn write(&self, made: Option<u64>, threshold: Option<Threshold>, out: &mut Vec<u8>) {
        let start = out.len();
        let separate = |out: &mut Vec<u8>| out.extend_from_slice(if out.len() == start { b"ot=" } else { b";" });
        if made.is_some() || self.said.randomness.is_some() {
            separate(out);
            out.extend_from_slice(b"rv:");
            match made {
                Some(made) => write_randomness(made, out),
                None => out.extend_from_slice(self.randomness),
            }
        }
        if threshold.is_some() || self.said.threshold.is_some() {
            separate(out);
            out.extend_from_slice(b"th:");
            match threshold {
                Some(threshold) => threshold.write(out),
                None => out.extend_from_slice(self.threshold),
            }
        }
        for (key, value) in &self.fields {
            separate(out);
            out.extend([*key, b":", *value].concat());
        }
        for (key, value) in &self.members {
            if out.len() > start {
                out.push(b',');
            }
            out.extend([*key, b"=", *value].concat());
        }
    }
}

/// The members of a state; `None` for one that is empty. One that is empty does not stand at the end.
fn members(text: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    let text = text.strip_suffix(b",").unwrap_or(text);
    text.split(|byte| *byte == b',').map(|member| {
        let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
        let start = member.iter().position(|byte| !is_blank(byte))?;
        let end = member.iter().rposition(|byte| !is_blank(byte))?;
        Some(&member[start..=end])
    })
}

fn cut(text: &[u8], at: u8) -> Option<Member<'_>> {
    let at = text.iter().position(|byte| *byte == at)?;
    Some((&text[..at], &text[at + 1..]))
}

fn is_member(member: &[u8]) -> bool {
    let is_key_byte = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/".contains(byte);
    let is_name = |name: &[u8], digit_first: bool| {
        name.first().is_some_and(|byte| byte.is_ascii_lowercase() || digit_first && byte.is_ascii_digit())
            && name.iter().all(is_key_byte)
    };
    let Some((key, value)) = cut(member, b'=') else { return false };
    let is_key = match cut(key, b'@') {
        Some((tenant, system)) => is_name(tenant, true) && is_name(system, false),
        None => is_name(key, false),
    };
    let is_value_byte = |byte: &u8| (b' '..=b'~').contains(byte) && !b",=".contains(byte);
    is_key
        && (1..=VALUE_BYTES_MAX).contains(&value.len())
        && value.last() != Some(&b' ')
        && value.iter().all(is_value_byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(threshold: Threshold) -> String {
        let mut out = Vec::new();
        threshold.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_probability_has_as_many_digits_as_were_asked_for_and_more_close_to_its_ends() {
        for (probability, precision, want) in [
            (1.0, 4, "0"),
            (0.5, 4, "8"),
            (1.0 / 3.0, 4, "aaab"),
            (1.0 / 3.0, 14, "aaaaaaaaaaaaac"),
            (0.01, 4, "fd70a"),
            (0.99, 4, "028f6"),
            (PROBABILITY_MIN, 1, "ffffffffffffff"),
            (0.25, -9, "0"),
        ] {
            assert_eq!(written(Threshold::of(probability, precision).unwrap()), want, "{probability} {precision}");
        }
        for probability in [0.0, 1.1, -1.0, f64::NAN, PROBABILITY_MIN / 2.0] {
            assert_eq!(Threshold::of(probability, 4), None);
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_as_it_was(text in "(ot=(rv:[0-9a-f]{14}|th:[1-9a-f]{1,14}|x:y)|a=b|a@b=c d|, ){0,3}") {
            let (state, good) = TraceState::parse(text.as_bytes());
            let mut out = Vec::new();
            state.write(None, None, &mut out);
            let (again, _) = TraceState::parse(&out);
            prop_assert!(!good || again.said == state.said);
        }

        #[test]
        fn no_state_makes_the_reader_panic(text in any::<Vec<u8>>(), near in "[otrvh0-9a-fA-Z:;=,@ \t]{0,300}") {
            TraceState::parse(&text);
            let (state, _) = TraceState::parse(near.as_bytes());
            state.write(Some(1), Some(Threshold::ALWAYS), &mut Vec::new());
        }
    }
}
