//! What is known of series, and whether they began anew.

use corten_otlp::Map;
use corten_otlp::metrics::{
    Buckets, ExponentialPoint, HistogramPoint, NO_RECORDED_VALUE, Number, NumberPoint, SummaryPoint,
};

/// What is known of a series.
#[derive(Clone, Debug)]
pub(super) struct Series {
    /// Since when it counts.
    pub(super) start_ns: u64,
    /// Its last point.
    pub(super) last: Values,
    /// What is subtracted from its points.
    pub(super) reference: Option<Values>,
}

/// What a point says.
#[derive(Clone, Debug)]
pub(super) enum Values {
    Number(Number),
    Summary { count: u64, sum: f64 },
    Histogram(Box<Histogram>),
    Exponential(Box<Exponential>),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Histogram {
    count: u64,
    sum: f64,
    bounds: Vec<f64>,
    counts: Vec<u64>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Exponential {
    count: u64,
    sum: f64,
    scale: i32,
    zero_count: u64,
    positive: Buckets,
    negative: Buckets,
}

impl Series {
    /// How much memory it takes besides itself, in bytes.
    pub(super) fn heap_bytes(&self) -> usize {
        self.last.heap_bytes() + self.reference.as_ref().map_or(0, Values::heap_bytes)
    }
}

impl Values {
    fn heap_bytes(&self) -> usize {
        match self {
            Values::Number(_) | Values::Summary { .. } => 0,
            Values::Histogram(values) => {
                size_of::<Histogram>() + (values.bounds.capacity() + values.counts.capacity()) * size_of::<u64>()
            }
            Values::Exponential(values) => {
                let ranges = values.positive.counts.capacity() + values.negative.counts.capacity();
                size_of::<Exponential>() + ranges * size_of::<u64>()
            }
        }
    }
}

/// A point that counts.
pub(super) trait Counting {
    fn attributes(&self) -> Map;

    /// When it begins to count, and when it was measured.
    fn times(&self) -> (u64, u64);

    /// Whether it says that there is no value any more.
    fn has_no_value(&self) -> bool;

    /// Counts since then.
    fn begin(&mut self, start_ns: u64);

    /// What it says.
    fn values(&self) -> Values;

    /// What it says takes the place of what the last one said.
    fn remember(&self, last: &mut Values) {
        *last = self.values();
    }

    /// Whether it is less than the last one, or counts by other ranges.
    fn is_reset(&self, last: &Values) -> bool;

    /// Counts what came since another point.
    fn subtract(&mut self, reference: &Values);
}

macro_rules! counting {
    () => {
        fn attributes(&self) -> Map {
            self.attributes
        }

        fn times(&self) -> (u64, u64) {
            (self.start_time_ns, self.time_ns)
        }

        fn has_no_value(&self) -> bool {
            self.flags & NO_RECORDED_VALUE != 0
        }

        fn begin(&mut self, start_ns: u64) {
            self.start_time_ns = start_ns;
        }
    };
}

impl Counting for NumberPoint {
    counting!();

    fn values(&self) -> Values {
        Values::Number(self.value)
    }

    fn is_reset(&self, last: &Values) -> bool {
        let Values::Number(last) = last else { return true };
        match (self.value, *last) {
            (Number::Int(now), Number::Int(before)) => now < before,
            (now, before) => now.as_double() < before.as_double(),
        }
    }

    fn subtract(&mut self, reference: &Values) {
        let Values::Number(reference) = reference else { return };
        self.value = match (self.value, *reference) {
            (Number::Int(now), Number::Int(reference)) => Number::Int(now.saturating_sub(reference)),
            (Number::None, _) => Number::None,
            (now, reference) => Number::Double(now.as_double() - reference.as_double()),
        };
    }
}

impl Counting for SummaryPoint {
    counting!();

    fn values(&self) -> Values {
        Values::Summary { count: self.count, sum: self.sum }
    }

    fn is_reset(&self, last: &Values) -> bool {
        let Values::Summary { count, sum } = last else { return true };
        self.count < *count || self.sum < *sum
    }

    fn subtract(&mut self, reference: &Values) {
        let Values::Summary { count, sum } = reference else { return };
        self.count = self.count.saturating_sub(*count);
        self.sum -= sum;
    }
}

impl Counting for HistogramPoint {
    counting!();

    fn values(&self) -> Values {
        let mut values = Values::Histogram(Box::default());
        self.remember(&mut values);
        values
    }

    fn remember(&self, last: &mut Values) {
        let Values::Histogram(last) = last else { return };
        (last.count, last.sum) = (self.count, self.sum.unwrap_or_default());
        last.bounds.clone_from(&self.explicit_bounds);
        last.counts.clone_from(&self.bucket_counts);
    }

    fn is_reset(&self, last: &Values) -> bool {
        let Values::Histogram(last) = last else { return true };
        self.count < last.count
            || self.sum.unwrap_or_default() < last.sum
            || self.explicit_bounds != last.bounds
            || self.bucket_counts.len() != last.counts.len()
            || self.bucket_counts.iter().zip(&last.counts).any(|(now, before)| now < before)
    }

    fn subtract(&mut self, reference: &Values) {
        let Values::Histogram(reference) = reference else { return };
        self.count = self.count.saturating_sub(reference.count);
        self.sum = self.sum.map(|sum| sum - reference.sum);
        for (count, reference) in self.bucket_counts.iter_mut().zip(&reference.counts) {
            *count = count.saturating_sub(*reference);
        }
    }
}

impl Counting for ExponentialPoint {
    counting!();

    fn values(&self) -> Values {
        let mut values = Values::Exponential(Box::default());
        self.remember(&mut values);
        values
    }

    fn remember(&self, last: &mut Values) {
        let Values::Exponential(last) = last else { return };
        (last.count, last.sum) = (self.count, self.sum.unwrap_or_default());
        (last.scale, last.zero_count) = (self.scale, self.zero_count);
        last.positive.clone_from(&self.positive);
        last.negative.clone_from(&self.negative);
    }

    fn is_reset(&self, last: &Values) -> bool {
        let Values::Exponential(last) = last else { return true };
        self.count < last.count
            || self.sum.unwrap_or_default() < last.sum
            || self.zero_count < last.zero_count
            || self.scale != last.scale
            || is_less(&self.positive, &last.positive)
            || is_less(&self.negative, &last.negative)
    }

    fn subtract(&mut self, reference: &Values) {
        let Values::Exponential(reference) = reference else { return };
        self.count = self.count.saturating_sub(reference.count);
        self.sum = self.sum.map(|sum| sum - reference.sum);
        self.zero_count = self.zero_count.saturating_sub(reference.zero_count);
        for (buckets, reference) in
            [(&mut self.positive, &reference.positive), (&mut self.negative, &reference.negative)]
        {
            let offset = i64::from(buckets.offset);
            for (at, count) in buckets.counts.iter_mut().enumerate() {
                *count = count.saturating_sub(count_at(reference, offset + at as i64));
            }
        }
    }
}

/// The count of a range.
fn count_at(buckets: &Buckets, range: i64) -> u64 {
    let at = usize::try_from(range - i64::from(buckets.offset)).ok();
    at.and_then(|at| buckets.counts.get(at)).copied().unwrap_or_default()
}

/// Whether a range has a lower count than before.
fn is_less(now: &Buckets, before: &Buckets) -> bool {
    let offset = i64::from(before.offset);
    before.counts.iter().enumerate().any(|(at, count)| count_at(now, offset + at as i64) < *count)
}
