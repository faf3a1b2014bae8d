//! `stage.limit`.

use std::collections::HashMap;
use std::time::Duration;

use corten_component::metrics::{Counter, Vector};
use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_config::schema::Stability;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::stage::{Build, Compile, Emit, Next, Reason, Stage, StageError, Work, check};

/// Limits how many entries pass.
///
/// Entries beyond the limit wait, and all that come after them, or they are dropped.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct LimitStage {
    /// How many entries may pass a second.
    rate: f64,
    /// How many entries may pass at once.
    burst: i64,
    /// Whether to drop entries beyond the limit.
    #[arg(default = false)]
    drop: bool,
    /// Name of a label for whose values there is a limit each. Entries without the label pass. Needs `drop`.
    #[arg(default = "")]
    by_label_name: String,
    /// For how many values to remember the limit, at least 10000. Twice as many may be remembered.
    #[arg(default = 10000)]
    max_distinct_labels: i64,
}

impl LimitStage {
    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        check(self)
    }
}

/// The least values that a limit by label remembers.
const VALUES_MIN: usize = 10_000;

impl Build for LimitStage {
    fn build(&self, cx: &mut Compile<'_>) -> Result<Box<dyn Stage>, StageError> {
        // NaN is no rate either.
        if !(self.rate > 0.0 && self.burst > 0) {
            return Err(StageError::of(&["rate", "burst"], "limit stage failed to parse rate or burst"));
        }
        if !self.by_label_name.is_empty() && !self.drop {
            let text = "when ratelimiting by label, drop must be true";
            return Err(StageError::of(&["by_label_name", "drop"], text));
        }
        let rate = Rate { per_second: self.rate, burst: self.burst as f64 };
        if self.by_label_name.is_empty() {
            let reason = self.drop.then(|| cx.reason(REASON));
            return Ok(Box::new(Limit { rate, bucket: Mutex::new(Bucket::full(rate)), reason }));
        }
        let mut values_max = usize::try_from(self.max_distinct_labels).unwrap_or(0);
        if values_max < VALUES_MIN {
            values_max = VALUES_MIN;
            if let Some(logger) = cx.logger() {
                let message = "max_distinct_labels was adjusted up to the minimal reasonable value of 10000";
                logger.warn(message, &[]);
            }
        }
        Ok(Box::new(LimitByLabel {
            rate,
            name: self.by_label_name.clone(),
            reason: cx.reason(REASON),
            buckets: Mutex::new(Generations::new(values_max)),
            dropped: cx.registry().counters(
                "loki_process_dropped_lines_by_label_total",
                "A count of all log lines dropped as a result of a pipeline stage",
                &["label_name", "label_value"],
            ),
        }))
    }
}

/// How long the values of a generation may be together, in bytes.
const VALUES_BYTES_MAX: usize = 32 << 20;

/// What entries are counted with that were dropped.
const REASON: &str = "ratelimit_drop_stage";

#[derive(Clone, Copy, Debug)]
struct Rate {
    per_second: f64,
    burst: f64,
}

/// Fills with tokens up to the burst. Each entry takes one.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    /// When there were so many.
    at: Option<Instant>,
}

impl Bucket {
    fn full(rate: Rate) -> Self {
        Bucket { tokens: rate.burst, at: None }
    }

    /// Takes a token.
    ///
    /// # Errors
    ///
    /// How long it takes until there is one.
    fn take(&mut self, rate: Rate, now: Instant) -> Result<(), Duration> {
        let elapsed = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let tokens = rate.burst.min(self.tokens + elapsed.as_secs_f64() * rate.per_second);
        if tokens >= ONE {
            *self = Bucket { tokens: (tokens - 1.0).max(0.0), at: Some(now) };
            return Ok(());
        }
        let wait = Duration::try_from_secs_f64((1.0 - tokens) / rate.per_second).unwrap_or(WAIT_MAX);
        Err(wait.clamp(Duration::from_nanos(1), WAIT_MAX))
    }
}

/// What counts as a token: who waited for it finds as much, whatever was lost by rounding.
const ONE: f64 = 1.0 - 1e-4;

/// The longest time for which a bucket is not looked at.
const WAIT_MAX: Duration = Duration::from_secs(3600);

struct Limit {
    rate: Rate,
    bucket: Mutex<Bucket>,
    /// With which entries are dropped; nothing where they wait.
    reason: Option<Reason>,
}

impl Stage for Limit {
    fn run(&self, _: &mut Work, _: &mut Emit) -> Next {
        match (self.bucket.lock().take(self.rate, Instant::now()), self.reason) {
            (Ok(()), _) => Next::Keep,
            (Err(_), Some(reason)) => Next::Drop(reason),
            (Err(wait), None) => Next::Wait(wait),
        }
    }

    fn ordered(&self) -> bool {
        true
    }
}

struct LimitByLabel {
    rate: Rate,
    name: String,
    reason: Reason,
    buckets: Mutex<Generations>,
    dropped: Vector<Counter>,
}

/// The buckets of values. When there are too many new ones, the old ones are forgotten, and the new ones become old.
struct Generations {
    new: HashMap<Box<str>, Counted>,
    old: HashMap<Box<str>, Counted>,
    values_max: usize,
    /// How long the new values are together, in bytes.
    new_bytes: usize,
}

struct Counted {
    bucket: Bucket,
    /// Counts what was dropped in this generation.
    dropped: Option<Counter>,
}

impl Generations {
    fn new(values_max: usize) -> Self {
        Generations { new: HashMap::new(), old: HashMap::new(), values_max, new_bytes: 0 }
    }

    /// What the function makes of the bucket of a value, and whether a generation ended, with all that was counted.
    fn with<R>(&mut self, value: &str, rate: Rate, with: impl FnOnce(&mut Counted) -> R) -> (R, bool) {
        if let Some(counted) = self.new.get_mut(value) {
            return (with(counted), false);
        }
        let (key, mut counted) = self
            .old
            .remove_entry(value)
            .unwrap_or_else(|| (value.into(), Counted { bucket: Bucket::full(rate), dropped: None }));
        let answer = with(&mut counted);
        self.new_bytes += key.len();
        self.new.insert(key, counted);
        let ends = self.new.len() >= self.values_max || self.new_bytes > VALUES_BYTES_MAX;
        if ends {
            self.new_bytes = 0;
            self.old = std::mem::take(&mut self.new);
            self.old.values_mut().for_each(|counted| counted.dropped = None);
        }
        (answer, ends)
    }
}

impl Stage for LimitByLabel {
    fn run(&self, work: &mut Work, _: &mut Emit) -> Next {
        let Some(value) = work.label(&self.name) else { return Next::Keep };
        let mut buckets = self.buckets.lock();
        let (passes, ends) = buckets.with(value, self.rate, |counted| {
            let passes = counted.bucket.take(self.rate, Instant::now()).is_ok();
            if !passes {
                // Looking a counter up among thousands takes a while.
                counted.dropped.get_or_insert_with(|| self.dropped.with(&[&self.name, value])).inc();
            }
            passes
        });
        if ends {
            self.dropped.clear();
        }
        if passes { Next::Keep } else { Next::Drop(self.reason) }
    }

    fn ordered(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_become_what_the_reference_makes_of_them() {
        assert!(super::super::testing::recorded("limit") >= 13);
    }

    #[test]
    fn a_bucket_fills_up_to_the_burst() {
        let rate = Rate { per_second: 2.0, burst: 3.0 };
        let mut bucket = Bucket::full(rate);
        let start = Instant::now();
        let mut take = |after_ms: u64| bucket.take(rate, start + Duration::from_millis(after_ms)).is_ok();
        assert_eq!(
            [0, 0, 0, 0, 499, 500, 500, 999, 1000].map(&mut take),
            [true, true, true, false, false, true, false, false, true]
        );
        assert_eq!([60_000; 4].map(&mut take), [true, true, true, false]);
    }

    #[test]
    fn who_waits_as_long_as_told_passes() {
        for per_second in [1e-3, 0.3, 7.0, 1e5] {
            let rate = Rate { per_second, burst: 1.0 };
            let mut bucket = Bucket::full(rate);
            let mut now = Instant::now();
            for _ in 0..100 {
                if let Err(wait) = bucket.take(rate, now) {
                    now += wait;
                    assert_eq!(bucket.take(rate, now), Ok(()));
                }
            }
        }
    }

    #[test]
    fn values_are_forgotten_after_two_generations() {
        let rate = Rate { per_second: 1e-9, burst: 1.0 };
        let mut buckets = Generations::new(3);
        let now = Instant::now();
        let mut pass = |value: &str| buckets.with(value, rate, |counted| counted.bucket.take(rate, now).is_ok());
        assert_eq!(["a", "b", "a"].map(&mut pass), [(true, false), (true, false), (false, false)]);
        // The third value ends a generation; the first two are still known.
        assert_eq!(["c", "a", "d"].map(&mut pass), [(true, true), (false, false), (true, false)]);
        // Another one ends: b and c are forgotten.
        assert_eq!(["e", "a", "b"].map(&mut pass), [(true, true), (false, false), (true, false)]);
    }

    #[test]
    fn long_values_do_not_add_up() {
        let rate = Rate { per_second: 1e-9, burst: 1.0 };
        let mut buckets = Generations::new(VALUES_MIN);
        for at in 0..100 {
            let value = format!("{}{at}", "x".repeat(1 << 20));
            buckets.with(&value, rate, |_| ());
            assert!(buckets.new.len() + buckets.old.len() <= 66);
            assert!(buckets.with(&value, rate, |counted| counted.bucket.take(rate, Instant::now()).is_ok()).0);
            assert!(!buckets.with(&value, rate, |counted| counted.bucket.take(rate, Instant::now()).is_ok()).0);
        }
    }
}
