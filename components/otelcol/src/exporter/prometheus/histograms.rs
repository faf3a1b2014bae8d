//! Histograms of OpenTelemetry as those of Prometheus.

use corten_otlp::metrics::{Buckets, ExponentialPoint, HistogramPoint, NO_RECORDED_VALUE};
use corten_signal::metrics::{
    CUSTOM_BUCKETS_SCHEMA, Histogram, HistogramCounts, ResetHint, STALE_NAN, STALE_NAN_BITS, Span,
};

/// The finest and the coarsest resolution that Prometheus has.
const SCHEMA_MAX: i32 = 8;
const SCHEMA_MIN: i32 = -4;
/// What is nearer to zero counts as zero. The reference does not look at what the point says.
const ZERO_THRESHOLD: f64 = 1e-128;
/// Between so many empty buckets and the next there is no gap.
const EMPTY_BUCKETS_MAX: i32 = 2;

/// A native histogram of a point with exponential ranges.
///
/// # Errors
///
/// Its ranges are too wide.
pub(super) fn native(point: &ExponentialPoint) -> Result<Histogram, String> {
    if point.scale < SCHEMA_MIN {
        return Err(format!(
            "cannot convert exponential to native histogram. Scale must be >= -4, was {}",
            point.scale
        ));
    }
    let schema = point.scale.min(SCHEMA_MAX);
    let (positive_spans, positive_deltas) = exponential_layout(&point.positive, point.scale - schema);
    let (negative_spans, negative_deltas) = exponential_layout(&point.negative, point.scale - schema);
    let (count, sum) = totals(point.flags, point.count, point.sum);
    Ok(Histogram {
        schema,
        zero_threshold: ZERO_THRESHOLD,
        sum,
        reset_hint: ResetHint::Unknown,
        positive_spans,
        negative_spans,
        counts: HistogramCounts::Int { count, zero_count: point.zero_count, positive_deltas, negative_deltas },
        custom_values: Vec::new(),
    })
}

/// A native histogram with the bounds of a point.
///
/// # Errors
///
/// There are not as many counts as bounds ask for.
pub(super) fn with_own_bounds(point: &HistogramPoint) -> Result<Histogram, String> {
    let (bounds, counts) = (&point.explicit_bounds, &point.bucket_counts);
    if bounds.len() + 1 != counts.len() {
        return Err(format!(
            "bucket counts length ({}) must be explicit bounds length ({}) + 1",
            counts.len(),
            bounds.len()
        ));
    }
    let first = counts.iter().position(|count| *count > 0).unwrap_or(counts.len());
    let counts = &counts[first..];
    let first = first as i32;
    let (positive_spans, positive_deltas) = layout(counts, first, |at| first.wrapping_add(at).wrapping_add(1));
    let (count, sum) = totals(point.flags, point.count, point.sum);
    Ok(Histogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        zero_threshold: 0.0,
        sum,
        reset_hint: ResetHint::Unknown,
        positive_spans,
        negative_spans: Vec::new(),
        counts: HistogramCounts::Int { count, zero_count: 0, positive_deltas, negative_deltas: Vec::new() },
        custom_values: bounds.clone(),
    })
}

fn totals(flags: u32, count: u64, sum: Option<f64>) -> (u64, f64) {
    if flags & NO_RECORDED_VALUE != 0 { (STALE_NAN_BITS, STALE_NAN) } else { (count, sum.unwrap_or(0.0)) }
}

/// Buckets, of each 2^`halvings` of which one is made. OpenTelemetry's bucket 0 begins at 1, where that of Prometheus ends.
fn exponential_layout(buckets: &Buckets, halvings: i32) -> (Vec<Span>, Vec<i64>) {
    let shift = halvings.min(31) as u32;
    let index = |at: i32| (buckets.offset.wrapping_add(at) >> shift).wrapping_add(1);
    layout(&buckets.counts, index(0), index)
}

/// Runs of buckets, and the difference of each count to the one before it. `index` says which bucket a count is of;
/// counts of one bucket are added up.
fn layout(counts: &[u64], first: i32, index: impl Fn(i32) -> i32) -> (Vec<Span>, Vec<i64>) {
    let Some(last) = counts.len().checked_sub(1) else { return Default::default() };
    let mut spans = vec![Span { offset: first, length: 0 }];
    let mut deltas: Vec<i64> = Vec::with_capacity(counts.len());
    let mut before = 0i64;
    let mut push = |gap: i32, count: i64| {
        let mut put = |spans: &mut Vec<Span>, count: i64| {
            if let Some(span) = spans.last_mut() {
                span.length += 1;
            }
            deltas.push(count.wrapping_sub(before));
            before = count;
        };
        if gap > EMPTY_BUCKETS_MAX {
            spans.push(Span { offset: gap, length: 0 });
        } else {
            (0..gap).for_each(|_| put(&mut spans, 0));
        }
        put(&mut spans, count);
    };
    // The bucket that the sum is of, or the one where the last that was pushed ended, while the sum is none.
    let mut bucket = index(0);
    let mut sum = 0i64;
    for (at, count) in counts.iter().enumerate() {
        let (next, count) = (index(at as i32), *count as i64);
        if next == bucket {
            sum = sum.wrapping_add(count);
        } else if sum == 0 {
            sum = count;
        } else {
            push(next.wrapping_sub(bucket).wrapping_sub(1), sum);
            (sum, bucket) = (count, next);
        }
    }
    push(index(last as i32).wrapping_sub(bucket), sum);
    (spans, deltas)
}

/// The counts up to each bound, in the order of the bounds.
///
/// Where bounds do not ascend the result is that of the reference, which keeps the counts in a map by bounds.
pub(super) fn counts_up_to(point: &HistogramPoint, out: &mut Vec<u64>) {
    out.clear();
    let (bounds, counts) = (&point.explicit_bounds, &point.bucket_counts);
    let len = bounds.len().min(counts.len());
    let (bounds, counts) = (&bounds[..len], &counts[..len]);
    if bounds.is_sorted_by(|a, b| a < b) {
        let mut sum = 0u64;
        out.extend(counts.iter().map(|count| {
            sum = sum.wrapping_add(*count);
            sum
        }));
        return;
    }
    // Of equal bounds the last count is there for all. No bound is equal to one that is no number.
    let mut order: Vec<usize> = (0..len).filter(|at| !bounds[*at].is_nan()).collect();
    order.sort_by(|a, b| (bounds[*a] + 0.0).total_cmp(&(bounds[*b] + 0.0)));
    out.extend_from_slice(counts);
    let mut sum = 0u64;
    for equal in order.chunk_by(|a, b| bounds[*a] == bounds[*b]) {
        let mut count = counts[equal[equal.len() - 1]];
        for _ in equal {
            sum = sum.wrapping_add(count);
            count = sum;
        }
        equal.iter().for_each(|at| out[*at] = count);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_of_buckets_have_as_many_counts_as_they_say(
            counts in proptest::collection::vec(prop_oneof![Just(0u64), 0..9u64, any::<u64>()], 0..80),
            offset: i32,
            halvings in 0..40i32,
        ) {
            let (spans, deltas) = exponential_layout(&Buckets { offset, counts: counts.clone() }, halvings);
            prop_assert_eq!(spans.iter().map(|span| span.length as usize).sum::<usize>(), deltas.len());
            prop_assert!(spans.iter().skip(1).all(|span| span.offset > EMPTY_BUCKETS_MAX && span.length > 0));
            // What was counted is there, wherever.
            let mut count = 0i64;
            let sum = deltas.iter().fold(0i64, |sum, delta| {
                count = count.wrapping_add(*delta);
                sum.wrapping_add(count)
            });
            prop_assert_eq!(sum, counts.iter().fold(0i64, |sum, count| sum.wrapping_add(*count as i64)));
        }

        #[test]
        fn counts_ascend_with_bounds(mut bounds in proptest::collection::vec(any::<f64>(), 0..20), counts in proptest::collection::vec(0..1000u64, 0..20)) {
            let mut up_to = Vec::new();
            let mut point = HistogramPoint { bucket_counts: counts, explicit_bounds: bounds.clone(), ..Default::default() };
            counts_up_to(&point, &mut up_to);
            let len = point.bucket_counts.len().min(bounds.len());
            prop_assert_eq!(up_to.len(), len);
            bounds.retain(|bound| !bound.is_nan());
            bounds.sort_by(f64::total_cmp);
            bounds.dedup();
            point.explicit_bounds = bounds;
            counts_up_to(&point, &mut up_to);
            prop_assert!(up_to.is_sorted());
        }
    }
}
