//! How many spans one stands for that a sampler let through: what the trace state says of that, in the form of
//! <https://opentelemetry.io/docs/specs/otel/trace/tracestate-handling/>.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

const STATE_LEN_MAX: usize = 1024;
const MEMBERS_MAX: usize = 32;
const VALUE_LEN_MAX: usize = 256;
const DIGITS_MAX: usize = 14;
/// All random numbers that the threshold of a sampler is compared with.
const RANDOMNESS: u64 = 1 << 56;

/// Finds it out, and remembers the last one: spans of a trace follow each other.
#[derive(Debug)]
pub(super) struct Adjusted {
    state: Vec<u8>,
    count: u64,
    random: u64,
}

impl Default for Adjusted {
    fn default() -> Self {
        Adjusted { state: Vec::new(), count: 1, random: RandomState::new().hash_one(0) | 1 }
    }
}

impl Adjusted {
    /// How many spans one with this trace state stands for. What is no whole number is rounded up as often as it takes for
    /// the mean to be right.
    #[inline]
    pub(super) fn count(&mut self, state: &[u8]) -> u64 {
        if state.is_empty() {
            return 1;
        }
        if state != self.state {
            self.state.clear();
            self.state.extend_from_slice(state);
            self.count = self.count_of(state);
        }
        self.count
    }

    fn count_of(&mut self, state: &[u8]) -> u64 {
        let Some(threshold) = threshold(state) else { return 1 };
        let let_through = RANDOMNESS - threshold;
        if let_through == 0 {
            return 1;
        }
        // xorshift64*
        self.random ^= self.random << 12;
        self.random ^= self.random >> 25;
        self.random ^= self.random << 27;
        let random = self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) % let_through;
        RANDOMNESS / let_through + u64::from(random < RANDOMNESS % let_through)
    }
}

/// The threshold of the sampler; nothing if there is none or if something is wrong with the trace state.
fn threshold(state: &[u8]) -> Option<u64> {
    if state.len() > STATE_LEN_MAX {
        return None;
    }
    let mut found = None;
    let mut members = 0;
    for member in state.split(|byte| *byte == b',').map(|member| member.trim_ascii()) {
        if member.is_empty() {
            continue;
        }
        members += 1;
        let (key, value) = cut(member, b'=')?;
        if members > MEMBERS_MAX || !is_key(key) || !is_value(value) {
            return None;
        }
        if key == b"ot" {
            found = of_open_telemetry(value)?;
        }
    }
    found
}

/// What OpenTelemetry's part of a trace state says; `None` if something is wrong with it.
#[expect(clippy::option_option, reason = "a state without a threshold is not a wrong one")]
fn of_open_telemetry(value: &[u8]) -> Option<Option<u64>> {
    if value.len() > VALUE_LEN_MAX {
        return None;
    }
    let mut found = None;
    for field in value.split(|byte| *byte == b';') {
        let (key, value) = cut(field, b':')?;
        let is_text = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
        let first = key.first().is_some_and(u8::is_ascii_lowercase);
        if !first
            || !key.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
            || !value.iter().all(is_text)
        {
            return None;
        }
        match key {
            b"th" => {
                let digits = hexadecimal(value).filter(|_| value.len() <= DIGITS_MAX)?;
                found = Some(digits << (4 * (DIGITS_MAX - value.len())));
            }
            b"rv" => drop(hexadecimal(value).filter(|_| value.len() == DIGITS_MAX)?),
            _ => {}
        }
    }
    Some(found)
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u64::from_str_radix(text, 16).ok()
}

fn cut(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|byte| *byte == at)?;
    Some((&text[..at], &text[at + 1..]))
}

fn is_key(key: &[u8]) -> bool {
    let of_key = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/".contains(byte);
    match cut(key, b'@') {
        Some(([first, tenant @ ..], [initial, system @ ..])) => {
            (first.is_ascii_lowercase() || first.is_ascii_digit())
                && initial.is_ascii_lowercase()
                && tenant.len() <= 240
                && system.len() <= 13
                && tenant.iter().chain(system).all(of_key)
        }
        Some(_) => false,
        None => key.len() <= 256 && key.first().is_some_and(u8::is_ascii_lowercase) && key.iter().all(of_key),
    }
}

fn is_value(value: &[u8]) -> bool {
    let of_value = |byte: &u8| matches!(byte, b' '..=b'~') && !b",=".contains(byte);
    (1..=VALUE_LEN_MAX).contains(&value.len()) && value.iter().all(of_value) && value.last() != Some(&b' ')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_threshold_says_how_many_spans_there_were() {
        for (state, want) in [
            ("", None),
            ("ot=th:8", Some(RANDOMNESS / 2)),
            ("ot=th:c", Some(RANDOMNESS / 4 * 3)),
            ("ot=th:0", Some(0)),
            ("vendor=a, ot=rv:00000000000001;th:8", Some(RANDOMNESS / 2)),
            ("a@b=c,,ot=th:f;x:y.z-_", Some(RANDOMNESS / 16 * 15)),
            ("ot=th:", None),
            ("ot=th:123456789abcdef", None),
            ("ot=th:8;rv:1", None),
            ("ot=th:+8", None),
            ("ot=th:g", None),
            ("OT=th:8", None),
            ("other=th:8", None),
            ("ot=th:8,broken", None),
            ("ot=th:8,UPPER=x", None),
        ] {
            assert_eq!(threshold(state.as_bytes()), want, "{state}");
        }
    }

    #[test]
    fn the_mean_is_right() {
        let mut adjusted = Adjusted::default();
        // One of 256/156 spans, 1.64.
        let count = |adjusted: &mut Adjusted| {
            adjusted.state.clear();
            adjusted.count(b"ot=th:64")
        };
        let sum: u64 = (0..100_000).map(|_| count(&mut adjusted)).sum();
        assert!((sum as f64 / 100_000.0 - 256.0 / 156.0).abs() < 0.01, "{sum}");
        assert_eq!((adjusted.count(b"ot=th:8"), adjusted.count(b"ot=th:8"), adjusted.count(b"x")), (2, 2, 1));
    }

    proptest! {
        #[test]
        fn whatever_a_state_says_one_span_is_at_least_one(state in "(ot=|[a-z@,=:;]{0,4}|th:|rv:|[0-9a-fx]{0,16}){0,8}") {
            prop_assert!(Adjusted::default().count(state.as_bytes()) >= 1);
        }
    }
}
