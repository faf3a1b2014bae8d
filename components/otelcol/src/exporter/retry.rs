//! The `retry_on_failure` block: when to try again, and when not any more.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use corten_config::Arguments;
use corten_config::arguments::CheckErrors;

/// When a request that failed is sent again.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct RetryArguments {
    /// Whether requests are sent again that failed for a reason that may pass.
    #[arg(default = true)]
    pub enabled: bool,
    /// The wait after the first failure. No wait is shorter than 10 milliseconds.
    #[arg(default = "5s")]
    pub initial_interval: Duration,
    /// How far each wait is changed by chance, as a part of it: with 0.5 a wait of ten seconds becomes five to fifteen.
    #[arg(default = 0.5)]
    pub randomization_factor: f64,
    /// How many times as long as the wait before each wait is.
    #[arg(default = 1.5)]
    pub multiplier: f64,
    /// The longest wait, unless the server asks for more.
    #[arg(default = "30s")]
    pub max_interval: Duration,
    /// How long after the first attempt a request is given up; 0 is never.
    #[arg(default = "5m")]
    pub max_elapsed_time: Duration,
}

impl Default for RetryArguments {
    fn default() -> Self {
        RetryArguments {
            enabled: true,
            initial_interval: Duration::from_secs(5),
            randomization_factor: 0.5,
            multiplier: 1.5,
            max_interval: Duration::from_secs(30),
            max_elapsed_time: Duration::from_secs(300),
        }
    }
}

/// The shortest wait. Whoever asks for none is not to send the same request as often as the machine can.
const WAIT_MIN: Duration = Duration::from_millis(10);

impl RetryArguments {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        errors.require(self.multiplier > 1.0, &["multiplier"], "multiplier must be greater than 1.0");
        errors.require(
            self.randomization_factor >= 0.0,
            &["randomization_factor"],
            "randomization_factor must be greater or equal to 0",
        );
        errors.into_result()
    }

    /// The waits after one request.
    pub(crate) fn waits(&self) -> Waits {
        Waits { next: self.initial_interval.max(WAIT_MIN) }
    }
}

/// The waits after one request.
#[derive(Debug)]
pub(crate) struct Waits {
    next: Duration,
}

impl Waits {
    /// The wait before the next attempt; the one after it is longer.
    pub(crate) fn next(&mut self, retry: &RetryArguments) -> Duration {
        self.next_by(retry, RandomState::new().hash_one(()))
    }

    fn next_by(&mut self, retry: &RetryArguments, random: u64) -> Duration {
        let wait = self.next;
        let longer = (wait.as_secs_f64() * retry.multiplier).min(retry.max_interval.as_secs_f64());
        self.next = Duration::try_from_secs_f64(longer).unwrap_or(retry.max_interval).max(WAIT_MIN);
        let chance = random as f64 / u64::MAX as f64 * 2.0 - 1.0;
        let changed = wait.as_secs_f64() * (1.0 + chance * retry.randomization_factor);
        // With a factor above one, chance makes waits of less than nothing.
        Duration::try_from_secs_f64(changed).unwrap_or_default().max(WAIT_MIN)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn waits_grow_to_the_longest() {
        let retry = RetryArguments { randomization_factor: 0.0, ..RetryArguments::default() };
        let mut waits = retry.waits();
        let seconds: Vec<f64> = (0..7).map(|_| waits.next(&retry).as_secs_f64()).collect();
        assert_eq!(seconds, [5.0, 7.5, 11.25, 16.875, 25.3125, 30.0, 30.0]);
    }

    #[test]
    fn chance_changes_a_wait_by_its_part() {
        let retry = RetryArguments::default();
        assert_eq!(retry.waits().next_by(&retry, 0), Duration::from_millis(2500));
        assert_eq!(retry.waits().next_by(&retry, u64::MAX), Duration::from_millis(7500));
    }

    #[test]
    fn a_wait_of_nothing_is_a_short_one_and_grows() {
        let none = Duration::ZERO;
        let retry = RetryArguments {
            initial_interval: none,
            randomization_factor: 0.0,
            multiplier: 10.0,
            ..Default::default()
        };
        let mut waits = retry.waits();
        let ms: Vec<u128> = (0..6).map(|_| waits.next(&retry).as_millis()).collect();
        assert_eq!(ms, [10, 100, 1000, 10_000, 30_000, 30_000]);
        let never_longer = RetryArguments { max_interval: none, ..retry.clone() };
        let mut waits = never_longer.waits();
        assert!((0..6).all(|_| waits.next(&never_longer) == WAIT_MIN));
    }

    proptest! {
        #[test]
        fn no_settings_make_it_panic_or_not_wait(initial: u64, max: u64, multiplier: f64, factor: f64, random: u64) {
            let retry = RetryArguments {
                initial_interval: Duration::from_nanos(initial),
                max_interval: Duration::from_nanos(max),
                multiplier,
                randomization_factor: factor,
                ..RetryArguments::default()
            };
            let mut waits = retry.waits();
            for _ in 0..4 {
                prop_assert!(waits.next_by(&retry, random) >= WAIT_MIN);
            }
        }
    }
}
