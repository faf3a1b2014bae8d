//! Counts by ranges that grow exponentially.

use std::f64::consts::LOG2_E;

use corten_otlp::metrics::{Buckets, ExponentialPoint};

/// The finest resolution: each range is 2^(2^-20) times as wide as the one before.
const SCALE_MAX: i32 = 20;

/// Counts values in at most so many ranges above 0, and below it, and halves the resolution when that is too few.
#[derive(Clone, Debug)]
pub(crate) struct Exponential {
    size_max: u32,
    scale: i32,
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
    zero_count: u64,
    positive: Buckets,
    negative: Buckets,
}

impl Exponential {
    /// Nothing counted, to be counted in so many ranges; 2 at least and 16384 at most.
    pub(crate) fn new(size_max: u32) -> Self {
        Exponential {
            size_max: size_max.clamp(2, 16384),
            scale: SCALE_MAX,
            count: 0,
            sum: 0.0,
            min: 0.0,
            max: 0.0,
            zero_count: 0,
            positive: Buckets::default(),
            negative: Buckets::default(),
        }
    }

    /// Counts a value so many times.
    pub(crate) fn observe(&mut self, value: f64, times: u64) {
        self.min = if self.count == 0 { value } else { self.min.min(value) };
        self.max = if self.count == 0 { value } else { self.max.max(value) };
        self.count = self.count.saturating_add(times);
        if value == 0.0 {
            self.zero_count = self.zero_count.saturating_add(times);
            return;
        }
        self.sum += value * times as f64;
        let index = index_of(value.abs(), self.scale);
        let buckets = if value > 0.0 { &self.positive } else { &self.negative };
        self.coarsen(too_fine(span_with(buckets, index, index), self.size_max));
        let index = index_of(value.abs(), self.scale);
        let buckets = if value > 0.0 { &mut self.positive } else { &mut self.negative };
        add(buckets, index, times);
    }

    /// Counts what another one counted, too.
    pub(crate) fn merge(&mut self, other: &Exponential) {
        if other.count == 0 {
            return;
        }
        self.min = if self.count == 0 { other.min } else { self.min.min(other.min) };
        self.max = if self.count == 0 { other.max } else { self.max.max(other.max) };
        self.sum += other.sum;
        self.count = self.count.saturating_add(other.count);
        self.zero_count = self.zero_count.saturating_add(other.zero_count);
        self.coarsen(self.scale.saturating_sub(other.scale).max(0) as u32);
        for (mine, theirs) in [(0, &other.positive), (1, &other.negative)] {
            let Some((low, high)) = ends(theirs) else { continue };
            let shift = (other.scale - self.scale).clamp(0, 31);
            let own = if mine == 0 { &self.positive } else { &self.negative };
            self.coarsen(too_fine(span_with(own, low >> shift, high >> shift), self.size_max));
            let shift = (other.scale - self.scale).clamp(0, 31);
            let own = if mine == 0 { &mut self.positive } else { &mut self.negative };
            for (at, count) in theirs.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                add(own, theirs.offset.saturating_add(at as i32) >> shift, *count);
            }
        }
    }

    /// How much memory it takes, in bytes.
    #[inline]
    pub(crate) fn held_bytes(&self) -> usize {
        size_of::<Self>() + (self.positive.counts.capacity() + self.negative.counts.capacity()) * size_of::<u64>()
    }

    /// Makes the ranges so many times twice as wide.
    fn coarsen(&mut self, times: u32) {
        if times > 0 {
            self.scale -= times as i32;
            widen(&mut self.positive, times);
            widen(&mut self.negative, times);
        }
    }

    /// What was counted, as a point.
    pub(crate) fn point(&self) -> ExponentialPoint {
        let some = self.count != 0;
        ExponentialPoint {
            count: self.count,
            sum: Some(self.sum),
            min: some.then_some(self.min),
            max: some.then_some(self.max),
            zero_count: self.zero_count,
            // Where everything is 0, the resolution is none.
            scale: if self.count == self.zero_count { 0 } else { self.scale },
            positive: self.positive.clone(),
            negative: self.negative.clone(),
            ..ExponentialPoint::default()
        }
    }
}

/// The first and the last range with a count.
fn ends(buckets: &Buckets) -> Option<(i32, i32)> {
    let last = i32::try_from(buckets.counts.len().checked_sub(1)?).unwrap_or(i32::MAX);
    Some((buckets.offset, buckets.offset.saturating_add(last)))
}

/// The first and the last range once others have counts, too.
fn span_with(buckets: &Buckets, low: i32, high: i32) -> (i32, i32) {
    ends(buckets).map_or((low, high), |(first, last)| (first.min(low), last.max(high)))
}

/// How many times ranges have to become twice as wide for so many of them to be enough.
fn too_fine((mut low, mut high): (i32, i32), size_max: u32) -> u32 {
    let mut times = 0;
    while i64::from(high) - i64::from(low) >= i64::from(size_max) {
        low >>= 1;
        high >>= 1;
        times += 1;
    }
    times
}

/// Adds to the count of a range; there is room for it.
fn add(buckets: &mut Buckets, index: i32, times: u64) {
    if times == 0 {
        return;
    }
    if buckets.counts.is_empty() {
        buckets.offset = index;
    }
    let before = (i64::from(buckets.offset) - i64::from(index)).max(0) as usize;
    if before > 0 {
        buckets.counts.splice(..0, std::iter::repeat_n(0, before));
        buckets.offset = index;
    }
    let at = (i64::from(index) - i64::from(buckets.offset)) as usize;
    if at >= buckets.counts.len() {
        buckets.counts.resize(at + 1, 0);
    }
    buckets.counts[at] = buckets.counts[at].saturating_add(times);
}

/// Joins ranges, so that each is as wide as 2^times of them were.
pub(crate) fn widen(buckets: &mut Buckets, times: u32) {
    let times = times.min(31);
    let offset = buckets.offset >> times;
    let mut kept = 0;
    for at in 0..buckets.counts.len() {
        let index = (i64::from(buckets.offset) + at as i64) >> times;
        let to = (index - i64::from(offset)) as usize;
        let count = std::mem::take(&mut buckets.counts[at]);
        buckets.counts[to] = buckets.counts[to].saturating_add(count);
        kept = to + 1;
    }
    buckets.counts.truncate(kept);
    buckets.offset = offset;
}

/// The range of a value above 0.
fn index_of(value: f64, scale: i32) -> i32 {
    const EXPONENT_MIN: i32 = -1022;
    const EXPONENT_MAX: i32 = 1023;
    let bits = value.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i32 - 1023;
    let is_power = bits << 12 == 0;
    if scale <= 0 {
        let exponent = if value < f64::MIN_POSITIVE { EXPONENT_MIN - 1 } else { exponent - i32::from(is_power) };
        return exponent >> (-scale).min(31);
    }
    if value <= f64::MIN_POSITIVE {
        return (EXPONENT_MIN << scale) - 1;
    }
    if is_power {
        return (exponent << scale) - 1;
    }
    // A conversion of what is beyond the range of whole numbers ends at its end.
    let index = (value.ln() * (LOG2_E * f64::from(1 << scale))).floor() as i32;
    index.min(((EXPONENT_MAX + 1) << scale) - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[f64], size_max: u32) -> Exponential {
        let mut histogram = Exponential::new(size_max);
        values.iter().for_each(|value| histogram.observe(*value, 1));
        histogram
    }

    /// The ends of the range that a value was counted in.
    fn holds(scale: i32, index: i32, value: f64) -> bool {
        let edge = |index: i32| (f64::from(index) * 2f64.powi(-scale)).exp2();
        let (low, high) = (edge(index), edge(index.saturating_add(1)));
        // The ends are rounded, too.
        value > low * (1.0 - 1e-9) && value <= high * (1.0 + 1e-9)
    }

    #[test]
    fn powers_of_two_end_their_range() {
        for (value, scale, want) in [
            (1.0, 0, -1),
            (2.0, 0, 0),
            (2.1, 0, 1),
            (4.0, 1, 3),
            (4.0, -1, 0),
            (4.1, -1, 1),
            (0.5, 0, -2),
            (1.0, 20, -1),
            (f64::MIN_POSITIVE, 20, (-1022 << 20) - 1),
            (5e-324, 20, (-1022 << 20) - 1),
            (5e-324, 0, -1023),
            (f64::MAX, 20, (1024 << 20) - 1),
            (f64::MAX, -11, 0),
            (0.9, -11, -1),
        ] {
            assert_eq!(index_of(value, scale), want, "{value} {scale}");
        }
    }

    #[test]
    fn zeros_have_no_resolution_and_nothing_has_no_ends() {
        let point = of(&[0.0, 0.0], 160).point();
        assert_eq!((point.count, point.zero_count, point.scale, point.min, point.max), (2, 2, 0, Some(0.0), Some(0.0)));
        assert_eq!((of(&[], 160).point().min, of(&[], 160).point().scale), (None, 0));
    }

    proptest! {
        #[test]
        fn every_value_is_counted_in_a_range_that_holds_it(
            values in prop::collection::vec(prop_oneof![1e-9..1e9f64, -1e9..-1e-9f64, Just(0.0)], 1..60),
            size_max in 2..200u32,
        ) {
            let histogram = of(&values, size_max);
            for (buckets, sign) in [(&histogram.positive, 1.0), (&histogram.negative, -1.0)] {
                prop_assert!(buckets.counts.len() <= size_max as usize);
                let mut counts = vec![0; buckets.counts.len()];
                for value in values.iter().map(|value| value * sign).filter(|value| *value > 0.0) {
                    let index = index_of(value, histogram.scale);
                    prop_assert!(holds(histogram.scale, index, value), "{value} {index} {}", histogram.scale);
                    counts[(index - buckets.offset) as usize] += 1;
                }
                prop_assert_eq!(&counts, &buckets.counts);
            }
            prop_assert_eq!(histogram.count, values.len() as u64);
        }

        #[test]
        fn what_is_merged_is_what_would_have_been_counted_together(
            one in prop::collection::vec(1e-6..1e6f64, 0..40),
            two in prop::collection::vec(-1e6..1e6f64, 0..40),
            size_max in 2..100u32,
        ) {
            let mut merged = of(&one, size_max);
            merged.merge(&of(&two, size_max));
            let together = of(&[one, two].concat(), size_max);
            prop_assert_eq!(merged.scale, together.scale);
            prop_assert_eq!(&merged.positive, &together.positive);
            prop_assert_eq!(&merged.negative, &together.negative);
            prop_assert_eq!((merged.count, merged.min, merged.max), (together.count, together.min, together.max));
        }
    }
}
