//! What the points of a series come to.

use std::f64::consts::{LN_2, LOG2_E};

use corten_otlp::metrics::{Buckets, ExponentialPoint, HistogramPoint, Number, NumberPoint};

use crate::exponential::widen;

/// How many ranges histograms have at most that grow exponentially, above 0 and below it.
const RANGES_MAX: i64 = 160;

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

/// How much is known of a series of histograms, in bytes.
pub(super) fn histogram_bytes(point: &HistogramPoint) -> usize {
    let numbers = point.bucket_counts.len() + point.explicit_bounds.len();
    size_of::<HistogramPoint>() + numbers * size_of::<u64>()
}

/// How much is known at most of a series of histograms that grow exponentially, in bytes.
pub(super) fn exponential_bytes(point: &ExponentialPoint) -> usize {
    let ranges = |buckets: &Buckets| buckets.counts.len().min(RANGES_MAX as usize);
    size_of::<ExponentialPoint>() + (ranges(&point.positive) + ranges(&point.negative)) * size_of::<u64>()
}

impl Sum {
    /// How much memory it takes besides itself, in bytes.
    pub(super) fn heap_bytes(&self) -> usize {
        match &self.value {
            Value::None | Value::Number(_) => 0,
            Value::Histogram(sum) => histogram_bytes(sum),
            Value::Exponential(sum) => exponential_bytes(sum),
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

    /// Adds a point, and makes it the sum.
    pub(super) fn number(&mut self, point: &mut NumberPoint) -> Result<(), Dropped> {
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

    /// Adds a point, and makes it the sum.
    pub(super) fn histogram(&mut self, point: &mut HistogramPoint) -> Result<(), Dropped> {
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

    /// Adds a point, and makes it the sum.
    pub(super) fn exponential(&mut self, point: &mut ExponentialPoint) -> Result<(), Dropped> {
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

/// The first range of two that has a count, and the one behind the last; what has no counts at all is where it says.
fn used(one: &Buckets, other: &Buckets) -> (i64, i64) {
    let some = |buckets: &Buckets| {
        let first = buckets.counts.iter().position(|count| *count > 0)?;
        let last = buckets.counts.iter().rposition(|count| *count > 0)?;
        Some((i64::from(buckets.offset) + first as i64, i64::from(buckets.offset) + last as i64 + 1))
    };
    match (some(one), some(other)) {
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
