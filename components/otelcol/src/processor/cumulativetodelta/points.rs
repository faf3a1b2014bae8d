//! The differences between points.

use std::f64::consts::LOG2_E;

use corten_otlp::Map;
use corten_otlp::metrics::{Buckets, ExponentialPoint, HistogramPoint, Number, NumberPoint};

use crate::exponential::widen;
use crate::processor::tracking::Known;

/// Why a point does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dropped {
    /// It is less than the one before, because its source began anew or because it is older.
    Reset,
    /// It is the first.
    Initial,
    /// It counts by other ranges than the one before.
    BucketMismatch,
}

/// What the next point is compared with.
#[derive(Clone, Debug)]
pub(super) enum Last {
    Number(u64, Number),
    Histogram(Box<LastHistogram>),
    Exponential(Box<LastExponential>),
}

#[derive(Clone, Debug)]
pub(super) struct LastHistogram {
    time_ns: u64,
    count: u64,
    sum: f64,
    bounds: Vec<f64>,
    counts: Vec<u64>,
}

#[derive(Clone, Debug)]
pub(super) struct LastExponential {
    time_ns: u64,
    count: u64,
    sum: f64,
    scale: i32,
    zero_count: u64,
    zero_threshold: f64,
    positive: Buckets,
    negative: Buckets,
}

impl Last {
    /// When it was measured.
    pub(super) fn time_ns(&self) -> u64 {
        match self {
            Last::Number(time_ns, _) => *time_ns,
            Last::Histogram(last) => last.time_ns,
            Last::Exponential(last) => last.time_ns,
        }
    }
}

impl Known for Last {
    fn heap_bytes(&self) -> usize {
        match self {
            Last::Number(..) => 0,
            Last::Histogram(last) => {
                size_of::<LastHistogram>() + (last.bounds.capacity() + last.counts.capacity()) * size_of::<u64>()
            }
            Last::Exponential(last) => {
                let ranges = last.positive.counts.capacity() + last.negative.counts.capacity();
                size_of::<LastExponential>() + ranges * size_of::<u64>()
            }
        }
    }
}

/// A point that counts since a fixed time.
pub(super) trait Cumulative {
    fn attributes(&self) -> Map;

    /// When it begins to count, and when it was measured.
    fn times(&self) -> (u64, u64);

    /// What tells series apart besides their attributes.
    fn tells_apart(&self) -> u64 {
        0
    }

    /// What the next point is to be compared with.
    fn last(&self) -> Last;

    /// The first point of a series, which counts since then.
    fn begin(&mut self, start_ns: u64);

    /// What came since the last point, which it takes the place of. If it is less and older than that one, it comes too late:
    /// what it counted went on with the other one.
    fn since(&mut self, last: &mut Last) -> Result<(), Dropped>;
}

impl Cumulative for NumberPoint {
    fn attributes(&self) -> Map {
        self.attributes
    }

    fn times(&self) -> (u64, u64) {
        (self.start_time_ns, self.time_ns)
    }

    fn tells_apart(&self) -> u64 {
        u64::from(matches!(self.value, Number::Double(_)))
    }

    fn last(&self) -> Last {
        Last::Number(self.time_ns, self.value)
    }

    fn begin(&mut self, start_ns: u64) {
        self.start_time_ns = start_ns;
        if self.value == Number::None {
            self.value = Number::Int(0);
        }
    }

    fn since(&mut self, last: &mut Last) -> Result<(), Dropped> {
        let value = self.value;
        if let Last::Number(time_ns, before) = last
            && self.time_ns < *time_ns
            && value.as_double() < before.as_double()
        {
            return Err(Dropped::Reset);
        }
        let Last::Number(time_ns, before) = std::mem::replace(last, self.last()) else { return Err(Dropped::Reset) };
        self.start_time_ns = time_ns;
        let whole = |number: Number| if let Number::Int(value) = number { value } else { 0 };
        match value {
            Number::Double(value) => {
                let before = before.as_double();
                self.value = Number::Double(value - before);
                if value < before { Err(Dropped::Reset) } else { Ok(()) }
            }
            number => {
                let difference = whole(number).checked_sub(whole(before)).filter(|difference| *difference >= 0);
                self.value = Number::Int(difference.ok_or(Dropped::Reset)?);
                Ok(())
            }
        }
    }
}

impl Cumulative for HistogramPoint {
    fn attributes(&self) -> Map {
        self.attributes
    }

    fn times(&self) -> (u64, u64) {
        (self.start_time_ns, self.time_ns)
    }

    fn last(&self) -> Last {
        Last::Histogram(Box::new(LastHistogram {
            time_ns: self.time_ns,
            count: self.count,
            sum: self.sum.unwrap_or_default(),
            bounds: self.explicit_bounds.clone(),
            counts: self.bucket_counts.clone(),
        }))
    }

    fn begin(&mut self, start_ns: u64) {
        self.start_time_ns = start_ns;
        (self.min, self.max) = (None, None);
    }

    fn since(&mut self, last: &mut Last) -> Result<(), Dropped> {
        let Last::Histogram(last) = last else { return Err(Dropped::BucketMismatch) };
        if self.time_ns < last.time_ns && self.count < last.count {
            return Err(Dropped::Reset);
        }
        let start_ns = std::mem::replace(&mut last.time_ns, self.time_ns);
        let is_same = self.bucket_counts.len() == last.counts.len() && self.explicit_bounds == last.bounds;
        let goes_up = is_same
            && self.count >= last.count
            && self.bucket_counts.iter().zip(&last.counts).all(|(count, before)| count >= before);
        self.begin(start_ns);
        let count = std::mem::replace(&mut last.count, self.count);
        // A sum that is no number is that of the last point.
        let sum = self.sum.unwrap_or_default();
        let before = last.sum;
        if !sum.is_nan() {
            last.sum = sum;
        }
        if !goes_up {
            last.counts.clone_from(&self.bucket_counts);
            last.bounds.clone_from(&self.explicit_bounds);
            return Err(if is_same { Dropped::Reset } else { Dropped::BucketMismatch });
        }
        self.count -= count;
        self.sum = self.sum.map(|sum| if sum.is_nan() { sum } else { sum - before });
        for (count, before) in self.bucket_counts.iter_mut().zip(&mut last.counts) {
            let now = *count;
            *count -= *before;
            *before = now;
        }
        Ok(())
    }
}

impl Cumulative for ExponentialPoint {
    fn attributes(&self) -> Map {
        self.attributes
    }

    fn times(&self) -> (u64, u64) {
        (self.start_time_ns, self.time_ns)
    }

    fn last(&self) -> Last {
        Last::Exponential(Box::new(LastExponential {
            time_ns: self.time_ns,
            count: self.count,
            sum: self.sum.unwrap_or_default(),
            scale: self.scale,
            zero_count: self.zero_count,
            zero_threshold: self.zero_threshold,
            positive: self.positive.clone(),
            negative: self.negative.clone(),
        }))
    }

    fn begin(&mut self, start_ns: u64) {
        self.start_time_ns = start_ns;
        (self.min, self.max) = (None, None);
    }

    fn since(&mut self, last: &mut Last) -> Result<(), Dropped> {
        if let Last::Exponential(last) = last
            && self.time_ns < last.time_ns
            && self.count < last.count
        {
            return Err(Dropped::Reset);
        }
        let next = self.last();
        let Last::Exponential(mut before) = std::mem::replace(last, next) else { return Err(Dropped::Reset) };
        self.begin(before.time_ns);
        // Counts and the width around 0 only grow, and ranges only become wider.
        if self.count < before.count || self.zero_threshold < before.zero_threshold || self.scale > before.scale {
            return Err(Dropped::Reset);
        }
        if self.zero_threshold > before.zero_threshold {
            let factor = LOG2_E * f64::from(before.scale).exp2();
            // The last range that is about 0 now. A conversion of what is beyond the whole numbers ends at their end.
            let range = ((self.zero_threshold.ln() * factor).ceil() - 1.0) as i64;
            for buckets in [&mut before.positive, &mut before.negative] {
                let gone = range
                    .saturating_sub(i64::from(buckets.offset))
                    .saturating_add(1)
                    .clamp(0, buckets.counts.len() as i64);
                let sum: u64 = buckets.counts.drain(..gone as usize).fold(0, u64::saturating_add);
                before.zero_count = before.zero_count.saturating_add(sum);
                buckets.offset = buckets.offset.saturating_add(gone as i32);
            }
        }
        let coarser = before.scale.saturating_sub(self.scale).unsigned_abs();
        if coarser > 0 {
            widen(&mut before.positive, coarser);
            widen(&mut before.negative, coarser);
        }
        let zero_count = self.zero_count.checked_sub(before.zero_count).ok_or(Dropped::Reset)?;
        let positive = difference(&self.positive, &before.positive)?;
        let negative = difference(&self.negative, &before.negative)?;
        self.count -= before.count;
        self.sum = self.sum.map(|sum| if sum.is_nan() { sum } else { sum - before.sum });
        (self.zero_count, self.positive, self.negative) = (zero_count, positive, negative);
        Ok(())
    }
}

/// What was added to ranges, from the first to the last that something was added to.
fn difference(now: &Buckets, before: &Buckets) -> Result<Buckets, Dropped> {
    let mut out = Buckets::default();
    for (at, count) in now.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let index = i64::from(now.offset) + at as i64;
        let old = usize::try_from(index - i64::from(before.offset)).ok().and_then(|at| before.counts.get(at));
        let added = count.checked_sub(old.copied().unwrap_or_default()).ok_or(Dropped::Reset)?;
        if added == 0 {
            continue;
        }
        if out.counts.is_empty() {
            out.offset = i32::try_from(index).unwrap_or(i32::MAX);
        }
        let place = (index - i64::from(out.offset)).max(0) as usize;
        out.counts.resize(place.min(now.counts.len()), 0);
        out.counts.push(added);
    }
    Ok(out)
}
