//! What the points of a series come to.

use std::f64::consts::{LN_2, LOG2_E};

use corten_otlp::metrics::{Buckets, ExponentialPoint, HistogramPoint, Number, NumberPoint};

use crate::exponential::widen;

/// How many ranges histograms have at most that grow exponentially, above 0 and below it.
const RANGES_MAX: i64 = 160;
/// As many, and one more where those below 1 are halved: the reference rounds towards 0.
const RANGES_KEPT_MAX: usize = RANGES_MAX as usize + 1;

/// Why a point is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dropped {
    /// It began before its series did.
    OlderStart,
    /// It is not newer than the last one.
    OutOfOrder,
    /// There are too many series.
    Limit,
}

/// What the points of a series come to.
#[derive(Clone, Debug, Default)]
pub(super) struct Sum {
    start_ns: u64,
    /// When the last point was measured; 0 if there was none.
    time_ns: u64,
    value: Value,
}

#[derive(Clone, Debug, Default)]
enum Value {
    #[default]
    None,
    Number(Number),
    Histogram(Box<HistogramPoint>),
    Exponential(Box<ExponentialPoint>),
}

/// A point that is added to the sum of its series.
pub(super) trait Delta {
    /// How much memory the sum takes at most then besides itself, in bytes.
    fn bytes_max(&self) -> usize;

    /// How much it takes at most if it is added to this.
    fn bytes_with(&self, sum: &Sum) -> usize;

    /// Adds it, and makes it the sum.
    fn add_to(&mut self, sum: &mut Sum) -> Result<(), Dropped>;
}

impl Delta for NumberPoint {
    fn bytes_max(&self) -> usize {
        0
    }

    fn bytes_with(&self, _: &Sum) -> usize {
        0
    }

    fn add_to(&mut self, sum: &mut Sum) -> Result<(), Dropped> {
        sum.number(self)
    }
}

impl Delta for HistogramPoint {
    fn bytes_max(&self) -> usize {
        let numbers = self.bucket_counts.len() + self.explicit_bounds.len();
        size_of::<HistogramPoint>() + numbers * size_of::<u64>()
    }

    fn bytes_with(&self, _: &Sum) -> usize {
        self.bytes_max()
    }

    fn add_to(&mut self, sum: &mut Sum) -> Result<(), Dropped> {
        sum.histogram(self)
    }
}

impl Delta for ExponentialPoint {
    fn bytes_max(&self) -> usize {
        size_of::<ExponentialPoint>() + 2 * RANGES_KEPT_MAX * size_of::<u64>()
    }

    fn bytes_with(&self, sum: &Sum) -> usize {
        let Value::Exponential(sum) = &sum.value else { return self.bytes_max() };
        let scale = sum.scale.min(self.scale);
        let at_scale = |buckets: &Buckets, of: i32| {
            let times = of.saturating_sub(scale).clamp(0, 31);
            counted(buckets).map(|(first, end)| (first >> times, ((end - 1) >> times) + 1))
        };
        let ranges = |before: &Buckets, more: &Buckets| {
            let ranges = match (at_scale(before, sum.scale), at_scale(more, self.scale)) {
                (Some(one), Some(other)) => one.1.max(other.1) - one.0.min(other.0),
                (Some(one), None) | (None, Some(one)) => one.1 - one.0,
                (None, None) => 0,
            };
            // Where nothing is added, what there is keeps its room.
            usize::try_from(ranges).unwrap_or(0).min(RANGES_KEPT_MAX).max(before.counts.capacity())
        };
        let ranges = ranges(&sum.positive, &self.positive) + ranges(&sum.negative, &self.negative);
        size_of::<ExponentialPoint>() + ranges * size_of::<u64>()
    }

    fn add_to(&mut self, sum: &mut Sum) -> Result<(), Dropped> {
        sum.exponential(self)
    }
}

impl Sum {
    /// How much memory it takes besides itself, in bytes.
    pub(super) fn heap_bytes(&self) -> usize {
        match &self.value {
            Value::None | Value::Number(_) => 0,
            Value::Histogram(sum) => {
                let numbers = sum.bucket_counts.capacity() + sum.explicit_bounds.capacity();
                size_of::<HistogramPoint>() + numbers * size_of::<u64>()
            }
            Value::Exponential(sum) => {
                let ranges = sum.positive.counts.capacity() + sum.negative.counts.capacity();
                size_of::<ExponentialPoint>() + ranges * size_of::<u64>()
            }
        }
    }

    /// Looks at the times of a point; whether there is something to add it to.
    fn takes(&mut self, start_ns: u64, time_ns: u64) -> Result<bool, Dropped> {
        if self.time_ns == 0 {
            (self.start_ns, self.time_ns) = (start_ns, time_ns);
            return Ok(false);
        }
        if start_ns < self.start_ns {
            return Err(Dropped::OlderStart);
        }
        if time_ns <= self.time_ns {
            return Err(Dropped::OutOfOrder);
        }
        self.time_ns = time_ns;
        Ok(true)
    }

    fn number(&mut self, point: &mut NumberPoint) -> Result<(), Dropped> {
        if self.takes(point.start_time_ns, point.time_ns)?
            && let Value::Number(sum) = self.value
        {
            point.value = match (sum, point.value) {
                (sum, Number::None) => sum,
                (Number::Int(sum), Number::Int(value)) => Number::Int(sum.saturating_add(value)),
                (sum, value) => Number::Double(sum.as_double() + value.as_double()),
            };
            point.start_time_ns = self.start_ns;
        }
        self.value = Value::Number(point.value);
        Ok(())
    }

    fn histogram(&mut self, point: &mut HistogramPoint) -> Result<(), Dropped> {
        let takes = self.takes(point.start_time_ns, point.time_ns)?;
        if takes && let Value::Histogram(sum) = &mut self.value {
            // With as many counts, too: a point does not become larger than it was.
            if sum.explicit_bounds == point.explicit_bounds && sum.bucket_counts.len() == point.bucket_counts.len() {
                for (count, more) in sum.bucket_counts.iter_mut().zip(&point.bucket_counts) {
                    *count = count.saturating_add(*more);
                }
                sum.count = sum.count.saturating_add(point.count);
                sum.sum = both(sum.sum, point.sum, |sum, more| sum + more);
                sum.min = both(sum.min, point.min, f64::min);
                sum.max = both(sum.max, point.max, f64::max);
                point.bucket_counts.clone_from(&sum.bucket_counts);
                (point.count, point.sum, point.min, point.max) = (sum.count, sum.sum, sum.min, sum.max);
                point.start_time_ns = self.start_ns;
                return Ok(());
            }
            // Other ranges cannot be added: the series begins anew.
            self.start_ns = point.start_time_ns;
        }
        self.value = Value::Histogram(Box::new(HistogramPoint {
            bucket_counts: point.bucket_counts.clone(),
            explicit_bounds: point.explicit_bounds.clone(),
            exemplars: Vec::new(),
            ..*point
        }));
        Ok(())
    }

    fn exponential(&mut self, point: &mut ExponentialPoint) -> Result<(), Dropped> {
        if self.takes(point.start_time_ns, point.time_ns)?
            && let Value::Exponential(sum) = &mut self.value
        {
            add_exponential(sum, point);
            (point.scale, point.zero_threshold) = (sum.scale, sum.zero_threshold);
            (point.count, point.sum, point.min, point.max) = (sum.count, sum.sum, sum.min, sum.max);
            point.zero_count = sum.zero_count;
            point.positive.clone_from(&sum.positive);
            point.negative.clone_from(&sum.negative);
            point.start_time_ns = self.start_ns;
            return Ok(());
        }
        let mut sum = ExponentialPoint {
            positive: trimmed(&point.positive),
            negative: trimmed(&point.negative),
            exemplars: Vec::new(),
            ..*point
        };
        // Later points get what this one has: it has no more than they may have.
        let none = Buckets::default();
        let times = too_fine(&sum.positive, &none).max(too_fine(&sum.negative, &none));
        coarsen(&mut sum, times);
        // A point may have had a million of them.
        sum.positive.counts.shrink_to_fit();
        sum.negative.counts.shrink_to_fit();
        self.value = Value::Exponential(Box::new(sum));
        Ok(())
    }
}

fn both(one: Option<f64>, other: Option<f64>, join: impl FnOnce(f64, f64) -> f64) -> Option<f64> {
    Some(join(one?, other?))
}

fn add_exponential(sum: &mut ExponentialPoint, point: &mut ExponentialPoint) {
    let (fine, coarse) = if sum.scale > point.scale { (&mut *sum, point.scale) } else { (&mut *point, sum.scale) };
    coarsen(fine, i64::from(fine.scale) - i64::from(coarse));
    let times = too_fine(&sum.positive, &point.positive).max(too_fine(&sum.negative, &point.negative));
    coarsen(sum, times);
    coarsen(point, times);
    if sum.zero_threshold < point.zero_threshold {
        widen_zero(sum, point.zero_threshold);
    } else if point.zero_threshold < sum.zero_threshold {
        widen_zero(point, sum.zero_threshold);
    }
    merge(&mut sum.positive, &point.positive);
    merge(&mut sum.negative, &point.negative);
    sum.count = sum.count.saturating_add(point.count);
    sum.zero_count = sum.zero_count.saturating_add(point.zero_count);
    sum.sum = both(sum.sum, point.sum, |sum, more| sum + more);
    sum.min = both(sum.min, point.min, f64::min);
    sum.max = both(sum.max, point.max, f64::max);
}

/// Makes ranges so many times twice as wide.
fn coarsen(point: &mut ExponentialPoint, times: i64) {
    let times = i32::try_from(times).unwrap_or(i32::MAX);
    if times > 0 {
        widen(&mut point.positive, times.unsigned_abs());
        widen(&mut point.negative, times.unsigned_abs());
        point.scale = point.scale.saturating_sub(times);
    }
}

/// The first range, and the one behind the last.
fn ends(buckets: &Buckets) -> (i64, i64) {
    let first = i64::from(buckets.offset);
    (first, first + buckets.counts.len() as i64)
}

fn count(buckets: &Buckets, range: i64) -> u64 {
    let at = usize::try_from(range - i64::from(buckets.offset)).ok();
    at.and_then(|at| buckets.counts.get(at)).copied().unwrap_or_default()
}

/// The first range that has a count, and the one behind the last.
fn counted(buckets: &Buckets) -> Option<(i64, i64)> {
    let first = buckets.counts.iter().position(|count| *count > 0)?;
    let last = buckets.counts.iter().rposition(|count| *count > 0)?;
    Some((i64::from(buckets.offset) + first as i64, i64::from(buckets.offset) + last as i64 + 1))
}

/// The first range of two that has a count, and the one behind the last; what has no counts at all is where it says.
fn used(one: &Buckets, other: &Buckets) -> (i64, i64) {
    match (counted(one), counted(other)) {
        (Some(one), Some(other)) => (one.0.min(other.0), one.1.max(other.1)),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => (ends(one).0, ends(one).0),
    }
}

/// How many times ranges have to become twice as wide for those of two together to be few enough.
fn too_fine(one: &Buckets, other: &Buckets) -> i64 {
    let (mut first, mut end) = used(one, other);
    let mut times = 0;
    while end - first > RANGES_MAX {
        first /= 2;
        end /= 2;
        times += 1;
    }
    times
}

/// Counts what is nearer to 0 than this as about 0.
fn widen_zero(point: &mut ExponentialPoint, threshold: f64) {
    let factor = f64::from(point.scale).exp2();
    // The last range within; one that ends there is within.
    let exact = threshold.log2() * factor;
    let last = if threshold.to_bits() << 12 == 0 { exact - 1.0 } else { (threshold.ln() * LOG2_E * factor).floor() };
    // A conversion of what is beyond the whole numbers ends at their end.
    let last = last as i64;
    for buckets in [&mut point.positive, &mut point.negative] {
        let gone =
            last.saturating_sub(i64::from(buckets.offset)).saturating_add(1).clamp(0, buckets.counts.len() as i64);
        let counted = buckets.counts.drain(..gone as usize).fold(0, u64::saturating_add);
        point.zero_count = point.zero_count.saturating_add(counted);
        buckets.offset = buckets.offset.saturating_add(gone as i32);
    }
    point.zero_threshold = ((last.saturating_add(1)) as f64 * (LN_2 / factor)).exp();
}

/// The ranges from the first with a count to the last.
fn trimmed(buckets: &Buckets) -> Buckets {
    let Some(first) = buckets.counts.iter().position(|count| *count > 0) else {
        return Buckets { offset: buckets.offset, counts: Vec::new() };
    };
    let end = buckets.counts.iter().rposition(|count| *count > 0).map_or(first, |last| last + 1);
    let offset = i64::from(buckets.offset) + first as i64;
    Buckets { offset: i32::try_from(offset).unwrap_or(i32::MAX), counts: buckets.counts[first..end].to_vec() }
}

/// Adds counts, and leaves out ranges without one before the first and behind the last.
fn merge(sum: &mut Buckets, more: &Buckets) {
    if more.counts.is_empty() {
        return;
    }
    if sum.counts.is_empty() {
        *sum = trimmed(more);
        return;
    }
    let (first, end) = used(sum, more);
    let counts = (first..end).map(|range| count(sum, range).saturating_add(count(more, range))).collect();
    *sum = Buckets { offset: i32::try_from(first).unwrap_or_default(), counts };
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn buckets() -> impl Strategy<Value = Buckets> {
        (-400..400i32, prop::collection::vec(0..3u64, 0..300)).prop_map(|(offset, counts)| Buckets { offset, counts })
    }

    fn point() -> impl Strategy<Value = ExponentialPoint> {
        (buckets(), buckets(), -3..4i32, prop_oneof![Just(0.0), 0.0..1e3]).prop_map(
            |(positive, negative, scale, zero_threshold)| ExponentialPoint {
                positive,
                negative,
                scale,
                zero_threshold,
                ..ExponentialPoint::default()
            },
        )
    }

    proptest! {
        #[test]
        fn a_sum_takes_no_more_than_it_is_said_to_take(points in prop::collection::vec(point(), 1..6)) {
            let mut sum = Sum::default();
            for (mut point, time_ns) in points.into_iter().zip(1..) {
                point.time_ns = time_ns;
                let most = point.bytes_with(&sum);
                prop_assert!(most <= point.bytes_max());
                prop_assert!(point.add_to(&mut sum).is_ok());
                prop_assert!(sum.heap_bytes() <= most, "{} > {most}", sum.heap_bytes());
            }
        }
    }

    #[test]
    fn what_is_kept_of_a_huge_histogram_is_small() {
        let huge = || Buckets { offset: 0, counts: vec![1; 1_000_000] };
        let mut sum = Sum::default();
        for time_ns in 1..3 {
            let mut point =
                ExponentialPoint { time_ns, positive: huge(), negative: huge(), ..ExponentialPoint::default() };
            point.add_to(&mut sum).unwrap();
            let Value::Exponential(kept) = &sum.value else { panic!("{sum:?}") };
            assert!(kept.positive.counts.capacity() + kept.negative.counts.capacity() <= 320);
        }
    }
}
