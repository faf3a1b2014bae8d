//! What is done with native histograms on their way: checking, compacting, and lowering their resolution.
//!
//! The rules are Prometheus' (`model/histogram`), and so are the texts of the errors.

use std::fmt;

use corten_signal::metrics::{CUSTOM_BUCKETS_SCHEMA, Histogram, HistogramCounts, Span};

use crate::float::go_float;

/// The highest resolution that is used.
pub const SCHEMA_MAX: i32 = 8;

/// The lowest resolution that is used.
pub const SCHEMA_MIN: i32 = -4;

/// The highest resolution that is read; it is lowered to [`SCHEMA_MAX`].
pub const SCHEMA_READ_MAX: i32 = 52;

/// The lowest resolution that is read.
pub const SCHEMA_READ_MIN: i32 = -9;

/// What is wrong with a histogram.
#[derive(Clone, Debug, PartialEq)]
pub enum HistogramError {
    /// The schema is none that is used.
    InvalidSchema(i32),
    /// A span that does not lie behind the one before it.
    NegativeOffset {
        /// On which side, or of custom buckets.
        side: Side,
        /// Which span, counted from 1.
        span: usize,
        /// Its offset.
        offset: i32,
    },
    /// Spans and buckets do not fit.
    SpansMismatch {
        /// On which side, or of custom buckets.
        side: Side,
        /// How many buckets the spans have.
        needed: u64,
        /// How many buckets there are.
        found: usize,
    },
    /// A bucket with less than no observations.
    NegativeBucket {
        /// On which side.
        side: Side,
        /// Which bucket, counted from 1.
        bucket: usize,
        /// How many observations.
        count: f64,
    },
    /// A zero bucket with less than no observations.
    NegativeZeroCount(f64),
    /// Less than no observations at all.
    NegativeCount(f64),
    /// The buckets have another number of observations than the histogram.
    CountMismatch {
        /// In the buckets.
        buckets: u64,
        /// Of the histogram.
        count: u64,
    },
    /// The buckets have more observations than the histogram, whose sum is not a number.
    CountTooSmall {
        /// In the buckets.
        buckets: u64,
        /// Of the histogram.
        count: u64,
    },
    /// A custom bound that is not a number.
    BoundNan,
    /// A custom bound that is not above the one before it.
    BoundOrder {
        /// The one before.
        previous: f64,
        /// The bound.
        current: f64,
    },
    /// The infinite bound, which is implied.
    BoundInfinite,
    /// Fewer custom bounds than buckets.
    BoundsTooFew {
        /// How many bounds there are.
        bounds: usize,
        /// How many buckets the spans cover.
        length: i64,
    },
    /// Custom buckets with observations around zero.
    CustomZeroCount,
    /// Custom buckets with a zero bucket.
    CustomZeroThreshold,
    /// Custom buckets with negative spans.
    CustomNegativeSpans,
    /// Custom buckets with negative buckets.
    CustomNegativeBuckets,
    /// Bounds of its own beside exponential ones.
    ExponentialBounds,
    /// More buckets than the limit, at the lowest resolution.
    BucketLimit,
    /// A resolution that is not lower.
    NotLower {
        /// The histogram's.
        from: i32,
        /// The one that was asked for.
        to: i32,
    },
    /// Custom buckets have no resolution.
    CustomResolution,
    /// Buckets lie farther apart than an offset can say.
    OffsetRange,
}

/// A side of a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Above zero.
    Positive,
    /// Below zero.
    Negative,
    /// Buckets with bounds of their own.
    Custom,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Positive => "positive side",
            Side::Negative => "negative side",
            Side::Custom => "custom buckets",
        })
    }
}

impl fmt::Display for HistogramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HistogramError::InvalidSchema(schema) => write!(
                f,
                "histogram has an invalid schema, which must be between {SCHEMA_MIN} and {SCHEMA_MAX} for exponential \
                 buckets, or {CUSTOM_BUCKETS_SCHEMA} for custom buckets, got schema {schema}"
            ),
            HistogramError::NegativeOffset { side, span, offset } => write!(
                f,
                "{side}: span number {span} with offset {offset}: histogram has a span whose offset is negative"
            ),
            HistogramError::SpansMismatch { side, needed, found } => write!(
                f,
                "{side}: spans need {needed} buckets, have {found} buckets: histogram spans specify different number of \
                 buckets than provided"
            ),
            HistogramError::NegativeBucket { side, bucket, count } => write!(
                f,
                "{side}: bucket number {bucket} has observation count of {}: histogram has a bucket whose observation \
                 count is negative",
                go_float(*count)
            ),
            HistogramError::NegativeZeroCount(count) => write!(
                f,
                "zero bucket has observation count of {}: histogram has a bucket whose observation count is negative",
                go_float(*count)
            ),
            HistogramError::NegativeCount(count) => {
                write!(f, "observation count is  {}: histogram's observation count is negative", go_float(*count))
            }
            HistogramError::CountMismatch { buckets, count } => write!(
                f,
                "{buckets} observations found in buckets, but the Count field is {count}: histogram's observation count \
                 should equal the number of observations found in the buckets (in absence of NaN)"
            ),
            HistogramError::CountTooSmall { buckets, count } => write!(
                f,
                "{buckets} observations found in buckets, but the Count field is {count}: histogram's observation count \
                 should be at least the number of observations found in the buckets"
            ),
            HistogramError::BoundNan => f.write_str("custom buckets: histogram custom bounds must not be NaN"),
            HistogramError::BoundOrder { previous, current } => write!(
                f,
                "custom buckets: previous bound is {previous:.6} and current is {current:.6}: histogram custom bounds \
                 must be in strictly increasing order"
            ),
            HistogramError::BoundInfinite => f.write_str(
                "custom buckets: last +Inf bound must not be explicitly defined: histogram custom bounds must be finite",
            ),
            HistogramError::BoundsTooFew { bounds, length } => write!(
                f,
                "custom buckets: only {bounds} custom bounds defined which is insufficient to cover total span length of \
                 {length}: histogram custom bounds are too few"
            ),
            HistogramError::CustomZeroCount => f.write_str("custom buckets: must have zero count of 0"),
            HistogramError::CustomZeroThreshold => f.write_str("custom buckets: must have zero threshold of 0"),
            HistogramError::CustomNegativeSpans => f.write_str("custom buckets: must not have negative spans"),
            HistogramError::CustomNegativeBuckets => f.write_str("custom buckets: must not have negative buckets"),
            HistogramError::ExponentialBounds => {
                f.write_str("histogram with exponential schema must not have custom bounds")
            }
            HistogramError::BucketLimit => f.write_str("histogram bucket limit exceeded"),
            HistogramError::NotLower { from, to } => {
                write!(f, "cannot reduce resolution from schema {from} to {to}")
            }
            HistogramError::CustomResolution => {
                f.write_str("cannot reduce resolution when there are custom buckets")
            }
            HistogramError::OffsetRange => f.write_str("buckets lie farther apart than an offset can say"),
        }
    }
}

impl std::error::Error for HistogramError {}

/// Whether the bounds of the buckets are the histogram's own.
pub fn has_custom_buckets(histogram: &Histogram) -> bool {
    histogram.schema == CUSTOM_BUCKETS_SCHEMA
}

/// How many buckets the histogram has on both sides.
pub fn bucket_count(histogram: &Histogram) -> usize {
    let (positive, negative) = side_lens(histogram);
    positive + negative
}

/// How many buckets there are above zero and below.
pub(crate) fn side_lens(histogram: &Histogram) -> (usize, usize) {
    match &histogram.counts {
        HistogramCounts::Int { positive_deltas, negative_deltas, .. } => (positive_deltas.len(), negative_deltas.len()),
        HistogramCounts::Float { positive_counts, negative_counts, .. } => {
            (positive_counts.len(), negative_counts.len())
        }
    }
}

/// Checks a histogram as the storage of the reference does before it takes one.
///
/// # Errors
///
/// The first thing that is wrong.
pub fn validate(histogram: &Histogram) -> Result<(), HistogramError> {
    let h = histogram;
    let (positive_len, negative_len) = side_lens(h);
    if has_custom_buckets(h) {
        check_custom_bounds(&h.custom_values, &h.positive_spans, positive_len)?;
        let has_zero_count = match &h.counts {
            HistogramCounts::Int { zero_count, .. } => *zero_count != 0,
            HistogramCounts::Float { zero_count, .. } => *zero_count != 0.0,
        };
        if has_zero_count {
            return Err(HistogramError::CustomZeroCount);
        }
        if h.zero_threshold != 0.0 {
            return Err(HistogramError::CustomZeroThreshold);
        }
        if !h.negative_spans.is_empty() {
            return Err(HistogramError::CustomNegativeSpans);
        }
        if negative_len > 0 {
            return Err(HistogramError::CustomNegativeBuckets);
        }
    } else if (SCHEMA_MIN..=SCHEMA_MAX).contains(&h.schema) {
        check_spans(&h.positive_spans, positive_len, Side::Positive)?;
        check_spans(&h.negative_spans, negative_len, Side::Negative)?;
    } else {
        return Err(HistogramError::InvalidSchema(h.schema));
    }
    match &h.counts {
        HistogramCounts::Int { count, zero_count, positive_deltas, negative_deltas } => {
            let negative = sum_of_deltas(negative_deltas, Side::Negative)?;
            check_no_bounds(h)?;
            let positive = sum_of_deltas(positive_deltas, Side::Positive)?;
            let buckets = negative.wrapping_add(positive).wrapping_add(*zero_count);
            if h.sum.is_nan() {
                if buckets > *count {
                    return Err(HistogramError::CountTooSmall { buckets, count: *count });
                }
            } else if buckets != *count {
                return Err(HistogramError::CountMismatch { buckets, count: *count });
            }
            Ok(())
        }
        HistogramCounts::Float { count, zero_count, positive_counts, negative_counts } => {
            check_counts(negative_counts, Side::Negative)?;
            if *zero_count < 0.0 {
                return Err(HistogramError::NegativeZeroCount(*zero_count));
            }
            check_no_bounds(h)?;
            if *count < 0.0 {
                return Err(HistogramError::NegativeCount(*count));
            }
            check_counts(positive_counts, Side::Positive)
        }
    }
}

fn check_no_bounds(h: &Histogram) -> Result<(), HistogramError> {
    if has_custom_buckets(h) || h.custom_values.is_empty() { Ok(()) } else { Err(HistogramError::ExponentialBounds) }
}

/// Checks that spans follow each other and have as many buckets as there are.
///
/// # Errors
///
/// The first thing that is wrong.
pub fn check_spans(spans: &[Span], buckets: usize, side: Side) -> Result<(), HistogramError> {
    let mut needed = 0u64;
    for (n, span) in spans.iter().enumerate() {
        if span.offset < 0 && (n > 0 || side == Side::Custom) {
            return Err(HistogramError::NegativeOffset { side, span: n + 1, offset: span.offset });
        }
        needed += u64::from(span.length);
    }
    if needed != buckets as u64 {
        return Err(HistogramError::SpansMismatch { side, needed, found: buckets });
    }
    Ok(())
}

fn check_custom_bounds(bounds: &[f64], spans: &[Span], buckets: usize) -> Result<(), HistogramError> {
    let mut previous = f64::NEG_INFINITY;
    for (i, &current) in bounds.iter().enumerate() {
        if current.is_nan() {
            return Err(HistogramError::BoundNan);
        }
        if i > 0 && current <= previous {
            return Err(HistogramError::BoundOrder { previous, current });
        }
        previous = current;
    }
    if previous == f64::INFINITY {
        return Err(HistogramError::BoundInfinite);
    }
    check_spans(spans, buckets, Side::Custom)?;
    let length: i64 = spans.iter().map(|s| i64::from(s.length) + i64::from(s.offset)).sum();
    if (bounds.len() as i64) + 1 < length {
        return Err(HistogramError::BoundsTooFew { bounds: bounds.len(), length });
    }
    Ok(())
}

fn sum_of_deltas(deltas: &[i64], side: Side) -> Result<u64, HistogramError> {
    let mut count = 0i64;
    let mut sum = 0u64;
    for (i, delta) in deltas.iter().enumerate() {
        count = count.wrapping_add(*delta);
        if count < 0 {
            return Err(HistogramError::NegativeBucket { side, bucket: i + 1, count: count as f64 });
        }
        sum = sum.wrapping_add(count as u64);
    }
    Ok(sum)
}

fn check_counts(counts: &[f64], side: Side) -> Result<(), HistogramError> {
    match counts.iter().position(|count| *count < 0.0) {
        Some(i) => Err(HistogramError::NegativeBucket { side, bucket: i + 1, count: counts[i] }),
        None => Ok(()),
    }
}

/// A count of a bucket, as the functions here handle it: whole or float.
trait Count: Copy + PartialEq {
    const ZERO: Self;

    fn plus(self, other: Self) -> Self;
}

impl Count for i64 {
    const ZERO: i64 = 0;

    fn plus(self, other: i64) -> i64 {
        self.wrapping_add(other)
    }
}

impl Count for f64 {
    const ZERO: f64 = 0.0;

    fn plus(self, other: f64) -> f64 {
        self + other
    }
}

/// Buckets of one side with their index each, in the order of the spans. An index is 64 bits wide, so that no sum of
/// offsets overflows.
fn indexed<'a, C: Copy>(spans: &'a [Span], counts: &'a [C]) -> impl Iterator<Item = (i64, C)> {
    let mut next = 0i64;
    let indexes = spans.iter().flat_map(move |span| {
        let start = next + i64::from(span.offset);
        next = start + i64::from(span.length);
        start..next
    });
    indexes.zip(counts.iter().copied())
}

/// Writes buckets with their indexes as spans. Up to `empty_max` empty buckets between two are written out rather than a
/// new span begun. Returns nothing where an offset does not fit.
fn to_spans<C: Count>(buckets: impl Iterator<Item = (i64, C)>, empty_max: i64) -> Option<(Vec<Span>, Vec<C>)> {
    let mut spans: Vec<Span> = Vec::new();
    let mut counts = Vec::new();
    let mut next = 0i64;
    for (index, count) in buckets {
        let gap = index - next;
        match spans.last_mut() {
            Some(span) if (0..=empty_max).contains(&gap) => {
                span.length += gap as u32 + 1;
                counts.extend(std::iter::repeat_n(C::ZERO, gap as usize));
            }
            _ => spans.push(Span { offset: i32::try_from(gap).ok()?, length: 1 }),
        }
        counts.push(count);
        next = index + 1;
    }
    Some((spans, counts))
}

fn from_deltas(deltas: &mut [i64]) {
    let mut count = 0i64;
    for delta in deltas {
        count = count.wrapping_add(*delta);
        *delta = count;
    }
}

fn into_deltas(counts: &mut [i64]) {
    let mut previous = 0i64;
    for count in counts {
        let delta = count.wrapping_sub(previous);
        previous = *count;
        *count = delta;
    }
}

/// Removes empty buckets and empty spans. Runs of up to `empty_max` empty buckets between others are written out instead
/// of beginning a new span. A side whose spans do not fit its buckets stays as it is.
pub fn compact(histogram: &mut Histogram, empty_max: u32) {
    let h = histogram;
    match &mut h.counts {
        HistogramCounts::Int { positive_deltas, negative_deltas, .. } => {
            for (spans, deltas) in [(&mut h.positive_spans, positive_deltas), (&mut h.negative_spans, negative_deltas)]
            {
                let mut count = 0i64;
                let has_empty = deltas.iter().any(|delta| {
                    count = count.wrapping_add(*delta);
                    count == 0
                });
                if has_empty || !spans_are_compact(spans, empty_max) {
                    from_deltas(deltas);
                    compact_side(spans, deltas, empty_max);
                    into_deltas(deltas);
                }
            }
        }
        HistogramCounts::Float { positive_counts, negative_counts, .. } => {
            for (spans, counts) in [(&mut h.positive_spans, positive_counts), (&mut h.negative_spans, negative_counts)]
            {
                if counts.contains(&0.0) || !spans_are_compact(spans, empty_max) {
                    compact_side(spans, counts, empty_max);
                }
            }
        }
    }
}

/// Whether spans need no other form, given that no bucket is empty.
fn spans_are_compact(spans: &[Span], empty_max: u32) -> bool {
    spans.iter().all(|s| s.length > 0) && spans.iter().skip(1).all(|s| i64::from(s.offset) > i64::from(empty_max))
}

fn compact_side<C: Count>(spans: &mut Vec<Span>, counts: &mut Vec<C>, empty_max: u32) {
    let length: u64 = spans.iter().map(|s| u64::from(s.length)).sum();
    if length != counts.len() as u64 {
        return;
    }
    let filled = indexed(spans, counts).filter(|(_, count)| *count != C::ZERO);
    if let Some((new_spans, new_counts)) = to_spans(filled, i64::from(empty_max)) {
        *spans = new_spans;
        *counts = new_counts;
    }
}

/// Lowers the resolution: buckets are merged so that the schema becomes `schema`.
///
/// # Errors
///
/// Where the histogram has custom buckets, where the schema is not lower, or where spans do not fit the buckets. The
/// histogram is then as before.
pub fn reduce_resolution(histogram: &mut Histogram, schema: i32) -> Result<(), HistogramError> {
    let h = histogram;
    if has_custom_buckets(h) {
        return Err(HistogramError::CustomResolution);
    }
    if schema >= h.schema || schema < SCHEMA_READ_MIN {
        return Err(HistogramError::NotLower { from: h.schema, to: schema });
    }
    let shift = h.schema.saturating_sub(schema).min(62) as u32;
    let (positive_len, negative_len) = side_lens(h);
    check_spans(&h.positive_spans, positive_len, Side::Positive)?;
    check_spans(&h.negative_spans, negative_len, Side::Negative)?;
    match &mut h.counts {
        HistogramCounts::Int { positive_deltas, negative_deltas, .. } => {
            from_deltas(positive_deltas);
            from_deltas(negative_deltas);
            let positive = merge_side(&h.positive_spans, positive_deltas, shift);
            let negative = merge_side(&h.negative_spans, negative_deltas, shift);
            let merged = positive.zip(negative).map(|(positive, negative)| {
                (h.positive_spans, *positive_deltas) = positive;
                (h.negative_spans, *negative_deltas) = negative;
            });
            into_deltas(positive_deltas);
            into_deltas(negative_deltas);
            merged.ok_or(HistogramError::OffsetRange)?;
        }
        HistogramCounts::Float { positive_counts, negative_counts, .. } => {
            let positive = merge_side(&h.positive_spans, positive_counts, shift).ok_or(HistogramError::OffsetRange)?;
            let negative = merge_side(&h.negative_spans, negative_counts, shift).ok_or(HistogramError::OffsetRange)?;
            (h.positive_spans, *positive_counts) = positive;
            (h.negative_spans, *negative_counts) = negative;
        }
    }
    h.schema = schema;
    Ok(())
}

fn merge_side<C: Count>(spans: &[Span], counts: &[C], shift: u32) -> Option<(Vec<Span>, Vec<C>)> {
    let mut merged: Vec<(i64, C)> = Vec::with_capacity(counts.len());
    for (index, count) in indexed(spans, counts) {
        // Bucket i has the upper bound of bucket 2i of the next higher resolution.
        let index = ((index - 1) >> shift) + 1;
        match merged.last_mut() {
            Some((last, sum)) if *last == index => *sum = sum.plus(count),
            _ => merged.push((index, count)),
        }
    }
    to_spans(merged.into_iter(), 0)
}

/// Lowers the resolution to `schema_max` if it is higher. Custom buckets stay as they are.
///
/// # Errors
///
/// As [`reduce_resolution`].
pub fn limit_schema(histogram: &mut Histogram, schema_max: i32) -> Result<(), HistogramError> {
    let is_known = (SCHEMA_READ_MIN..=SCHEMA_READ_MAX).contains(&histogram.schema);
    if is_known && histogram.schema > schema_max { reduce_resolution(histogram, schema_max) } else { Ok(()) }
}

/// Lowers the resolution until there are at most `buckets_max` buckets.
///
/// # Errors
///
/// [`HistogramError::BucketLimit`] where the lowest resolution still has more, and for custom buckets, which have one
/// resolution.
pub fn limit_buckets(histogram: &mut Histogram, buckets_max: usize) -> Result<(), HistogramError> {
    while bucket_count(histogram) > buckets_max {
        if !(SCHEMA_MIN + 1..=SCHEMA_MAX).contains(&histogram.schema) {
            return Err(HistogramError::BucketLimit);
        }
        reduce_resolution(histogram, histogram.schema - 1)?;
    }
    Ok(())
}

/// The highest schema whose buckets grow at least by `bucket_factor`; a factor of 1 or less is no limit.
pub fn schema_for_factor(bucket_factor: f64) -> i32 {
    if bucket_factor.is_nan() || bucket_factor <= 1.0 {
        return SCHEMA_MAX;
    }
    (-bucket_factor.log2().log2()).floor().clamp(f64::from(SCHEMA_MIN), f64::from(SCHEMA_MAX)) as i32
}

/// The histogram with float counts.
pub fn to_float(histogram: &Histogram) -> Histogram {
    let h = histogram;
    let counts = match &h.counts {
        HistogramCounts::Float { .. } => h.counts.clone(),
        HistogramCounts::Int { count, zero_count, positive_deltas, negative_deltas } => {
            let add_up = |deltas: &[i64]| {
                let mut count = 0.0;
                let counts = deltas.iter().map(|delta| {
                    count += *delta as f64;
                    count
                });
                counts.collect()
            };
            HistogramCounts::Float {
                count: *count as f64,
                zero_count: *zero_count as f64,
                positive_counts: add_up(positive_deltas),
                negative_counts: add_up(negative_deltas),
            }
        }
    };
    Histogram { counts, ..h.clone() }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Histograms for tests.

    use super::*;
    use corten_signal::metrics::ResetHint;
    use proptest::prelude::*;

    /// A histogram of whole counts without negative buckets.
    pub(crate) fn int(schema: i32, spans: &[(i32, u32)], deltas: &[i64]) -> Histogram {
        let mut count = 0;
        let sum: i64 = deltas
            .iter()
            .map(|d| {
                count += d;
                count
            })
            .sum();
        Histogram {
            schema,
            zero_threshold: 0.0,
            sum: 1.0,
            reset_hint: ResetHint::Unknown,
            positive_spans: spans.iter().map(|&(offset, length)| Span { offset, length }).collect(),
            negative_spans: Vec::new(),
            counts: HistogramCounts::Int {
                count: sum as u64,
                zero_count: 0,
                positive_deltas: deltas.to_vec(),
                negative_deltas: Vec::new(),
            },
            custom_values: Vec::new(),
        }
    }

    /// A histogram of float counts without negative buckets.
    pub(crate) fn float(schema: i32, spans: &[(i32, u32)], counts: &[f64]) -> Histogram {
        Histogram {
            counts: HistogramCounts::Float {
                count: counts.iter().sum(),
                zero_count: 0.0,
                positive_counts: counts.to_vec(),
                negative_counts: Vec::new(),
            },
            ..int(schema, spans, &[])
        }
    }

    /// Spans with the counts of their buckets.
    fn side() -> impl Strategy<Value = (Vec<Span>, Vec<u32>)> {
        let span = (0i32..5, proptest::collection::vec(prop_oneof![Just(0u32), 0u32..9], 0..5));
        (-9i32..9, proptest::collection::vec(span, 0..5)).prop_map(|(first, runs)| {
            let offset = |n: usize, offset: i32| if n == 0 { first } else { offset };
            let spans = runs.iter().enumerate();
            let spans = spans.map(|(n, (o, run))| Span { offset: offset(n, *o), length: run.len() as u32 }).collect();
            (spans, runs.into_iter().flat_map(|(_, run)| run).collect())
        })
    }

    /// Valid histograms with exponential buckets, whole and float.
    pub(crate) fn exponential() -> impl Strategy<Value = Histogram> {
        let hint =
            prop_oneof![Just(ResetHint::Unknown), Just(ResetHint::Yes), Just(ResetHint::No), Just(ResetHint::Gauge)];
        let scalars = (SCHEMA_MIN..=SCHEMA_MAX, 0u32..5, -1e3..1e3, 0.0..1.0, any::<bool>(), hint);
        (scalars, side(), side()).prop_map(|(scalars, positive, negative)| {
            let (schema, zero_count, sum, zero_threshold, is_float, reset_hint) = scalars;
            let total: u64 = positive.1.iter().chain(&negative.1).map(|c| u64::from(*c)).sum();
            let count = total + u64::from(zero_count);
            let counts = if is_float {
                HistogramCounts::Float {
                    count: count as f64,
                    zero_count: f64::from(zero_count),
                    positive_counts: positive.1.iter().map(|c| f64::from(*c)).collect(),
                    negative_counts: negative.1.iter().map(|c| f64::from(*c)).collect(),
                }
            } else {
                let deltas = |counts: &[u32]| {
                    let mut counts: Vec<i64> = counts.iter().map(|c| i64::from(*c)).collect();
                    into_deltas(&mut counts);
                    counts
                };
                HistogramCounts::Int {
                    count,
                    zero_count: u64::from(zero_count),
                    positive_deltas: deltas(&positive.1),
                    negative_deltas: deltas(&negative.1),
                }
            };
            Histogram {
                schema,
                zero_threshold,
                sum,
                reset_hint,
                positive_spans: positive.0,
                negative_spans: negative.0,
                counts,
                custom_values: Vec::new(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{exponential, float, int};
    use super::*;
    use corten_signal::metrics::ResetHint;
    use proptest::prelude::*;

    fn spans(h: &Histogram) -> Vec<(i32, u32)> {
        h.positive_spans.iter().map(|s| (s.offset, s.length)).collect()
    }

    fn deltas(h: &Histogram) -> Vec<i64> {
        match &h.counts {
            HistogramCounts::Int { positive_deltas, .. } => positive_deltas.clone(),
            HistogramCounts::Float { .. } => panic!("a histogram of whole counts is expected"),
        }
    }

    fn counts(h: &Histogram) -> Vec<f64> {
        match to_float(h).counts {
            HistogramCounts::Float { positive_counts, .. } => positive_counts,
            HistogramCounts::Int { .. } => Vec::new(),
        }
    }

    #[test]
    fn compacting_removes_what_is_empty() {
        for (empty_max, before, want) in [
            (0, int(0, &[], &[]), (vec![], vec![])),
            (0, int(0, &[(-2, 1), (2, 3)], &[1, 2, -1, 3]), (vec![(-2, 1), (2, 3)], vec![1, 2, -1, 3])),
            // Spans without a gap are one span.
            (0, int(0, &[(-2, 1), (0, 3)], &[1, 2, -1, 3]), (vec![(-2, 4)], vec![1, 2, -1, 3])),
            // Empty spans go, their offsets stay.
            (0, int(0, &[(-2, 0), (2, 0), (1, 1), (3, 0)], &[5]), (vec![(1, 1)], vec![5])),
            (0, int(0, &[(-2, 0), (2, 0)], &[]), (vec![], vec![])),
            // Empty buckets at the start, in the middle and at the end.
            (
                0,
                int(0, &[(-4, 6), (3, 4)], &[0, 1, -1, 0, 0, 3, -3, 0, 1, 0]),
                (vec![(-3, 1), (3, 1), (5, 2)], vec![1, 2, -2, 0]),
            ),
            (0, int(0, &[(1, 3)], &[0, 0, 0]), (vec![], vec![])),
            // Few empty buckets are written out.
            (2, int(0, &[(0, 1), (2, 1), (3, 1)], &[1, 1, 1]), (vec![(0, 4), (3, 1)], vec![1, -1, 0, 2, 1])),
            (2, int(0, &[(0, 5)], &[1, -1, 0, 0, 1]), (vec![(0, 1), (3, 1)], vec![1, 0])),
            (2, int(0, &[(0, 4)], &[1, -1, 0, 1]), (vec![(0, 4)], vec![1, -1, 0, 1])),
            (2, int(0, &[(0, 2), (1, 2)], &[1, -1, 0, 1]), (vec![(0, 1), (3, 1)], vec![1, 0])),
        ] {
            let mut after = before.clone();
            compact(&mut after, empty_max);
            assert_eq!((spans(&after), deltas(&after)), want, "{empty_max} {before:?}");
        }
        let mut floats = float(0, &[(-4, 3), (0, 1)], &[0.0, 1.5, -0.0, f64::NAN]);
        compact(&mut floats, 0);
        assert_eq!(spans(&floats), [(-3, 1), (1, 1)]);
    }

    #[test]
    fn histograms_become_what_the_reference_makes_of_them() {
        let read = |schema: i32, text: &str| {
            let (spans, deltas) = text.split_once(';').unwrap();
            let numbers = |list: &'static str| list.split(',').filter(|n| !n.is_empty());
            let spans: Vec<(i32, u32)> = numbers(Box::leak(spans.into()))
                .map(|s| s.split_once('+').map(|(o, l)| (o.parse().unwrap(), l.parse().unwrap())).unwrap())
                .collect();
            let deltas: Vec<i64> = numbers(Box::leak(deltas.into())).map(|d| d.parse().unwrap()).collect();
            int(schema, &spans, &deltas)
        };
        for line in include_str!("../tests/data/histograms.txt").lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let before = read(words[0].parse().unwrap(), words[1]);
            for pair in words[2..].chunks(2) {
                let mut after = before.clone();
                if let Some(empty_max) = pair[0].strip_prefix("compact") {
                    compact(&mut after, empty_max.parse().unwrap());
                } else {
                    reduce_resolution(&mut after, pair[0].strip_prefix("reduce").unwrap().parse().unwrap()).unwrap();
                }
                let want = read(after.schema, pair[1]);
                assert_eq!((spans(&after), deltas(&after)), (spans(&want), deltas(&want)), "{line}: {}", pair[0]);
            }
        }
    }

    #[test]
    fn spans_that_do_not_fit_are_left_alone() {
        for before in
            [int(0, &[(0, 3)], &[1, 0]), int(0, &[(0, 1)], &[0, 0]), int(0, &[(0, u32::MAX), (0, u32::MAX)], &[0])]
        {
            let mut after = before.clone();
            compact(&mut after, 0);
            assert_eq!(after, before);
            assert!(reduce_resolution(&mut after, -1).is_err());
            assert_eq!(after, before);
        }
        // Offsets whose sum is beyond what an offset holds.
        let before = int(0, &[(i32::MAX, 0), (i32::MAX, 1)], &[1]);
        let mut after = before.clone();
        compact(&mut after, 0);
        assert_eq!(after, before);
    }

    #[test]
    fn a_lower_resolution_merges_buckets() {
        for (before, schema, want) in [
            (int(0, &[(0, 4), (1, 2)], &[1, 0, 0, 0, 0, 0]), -1, (vec![(0, 4)], vec![1, 1, -1, 1])),
            (int(0, &[(-2, 3), (4, 1)], &[2, 1, 1, 0]), -1, (vec![(-1, 2), (2, 1)], vec![2, 5, -3])),
            (int(3, &[(-7, 1)], &[3]), -4, (vec![(0, 1)], vec![3])),
            (int(0, &[(5, 1), (0, 1), (100, 1)], &[1, 0, 0]), -4, (vec![(1, 1), (5, 1)], vec![2, -1])),
        ] {
            let mut after = before.clone();
            reduce_resolution(&mut after, schema).unwrap();
            assert_eq!((spans(&after), deltas(&after)), want, "{before:?}");
            assert_eq!(after.schema, schema);
        }
        let mut floats = float(0, &[(0, 4), (1, 2)], &[1.5, 1.0, 1.0, 1.0, 1.0, 1.0]);
        reduce_resolution(&mut floats, -1).unwrap();
        assert_eq!((spans(&floats), counts(&floats)), (vec![(0, 4)], vec![1.5, 2.0, 1.0, 2.0]));
    }

    #[test]
    fn a_resolution_can_only_be_lowered() {
        for (mut h, schema, want) in [
            (int(0, &[], &[]), 0, "cannot reduce resolution from schema 0 to 0"),
            (int(0, &[], &[]), 1, "cannot reduce resolution from schema 0 to 1"),
            (int(0, &[], &[]), -53, "cannot reduce resolution from schema 0 to -53"),
            (int(-53, &[], &[]), -54, "cannot reduce resolution when there are custom buckets"),
            (
                int(0, &[(0, 1), (-1, 1)], &[1, 1]),
                -1,
                "positive side: span number 2 with offset -1: histogram has a span whose offset is negative",
            ),
        ] {
            assert_eq!(reduce_resolution(&mut h, schema).unwrap_err().to_string(), want);
        }
    }

    #[test]
    fn a_histogram_is_brought_within_a_bucket_limit() {
        // Eight buckets beside each other: 8 at schema 0, 5 at -1, 3 at -2, 2 at -3, 2 at -4.
        let wide = int(0, &[(0, 8)], &[1, 0, 0, 0, 0, 0, 0, 0]);
        for (limit, want) in
            [(8, Ok(0)), (7, Ok(-1)), (5, Ok(-1)), (4, Ok(-2)), (2, Ok(-3)), (1, Err(HistogramError::BucketLimit))]
        {
            let mut h = wide.clone();
            assert_eq!(limit_buckets(&mut h, limit).map(|()| h.schema), want, "{limit}");
        }
        let mut custom = Histogram { custom_values: vec![1.0], ..int(-53, &[(0, 2)], &[1, 0]) };
        assert_eq!(limit_buckets(&mut custom, 2), Ok(()));
        assert_eq!(limit_buckets(&mut custom, 1), Err(HistogramError::BucketLimit));
        let mut high = int(20, &[(0, 2)], &[1, 0]);
        assert_eq!(limit_buckets(&mut high, 1), Err(HistogramError::BucketLimit));
    }

    #[test]
    fn a_bucket_factor_gives_the_highest_schema() {
        for (factor, want) in [
            (0.0, 8),
            (1.0, 8),
            (f64::NAN, 8),
            (1.002, 8),
            (1.00271, 8),
            (1.003, 7),
            (1.0055, 6),
            (1.1, 2),
            (1.5, 0),
            (2.0, 0),
            (2.1, -1),
            (4.0, -1),
            (65536.0, -4),
            (1e9, -4),
            (f64::INFINITY, -4),
        ] {
            assert_eq!(schema_for_factor(factor), want, "{factor}");
        }
        let mut h = int(8, &[(0, 2)], &[1, 0]);
        limit_schema(&mut h, 5).unwrap();
        assert_eq!(h.schema, 5);
        limit_schema(&mut h, 6).unwrap();
        assert_eq!(h.schema, 5);
        let mut custom = int(-53, &[], &[]);
        limit_schema(&mut custom, -60).unwrap();
        assert_eq!(custom.schema, -53);
    }

    #[test]
    fn what_is_wrong_is_said_as_the_reference_says_it() {
        let custom = |bounds: &[f64], spans: &[(i32, u32)], deltas: &[i64]| Histogram {
            custom_values: bounds.to_vec(),
            ..int(CUSTOM_BUCKETS_SCHEMA, spans, deltas)
        };
        let with_count = |h: Histogram, new: u64| {
            let mut h = h;
            if let HistogramCounts::Int { count, .. } = &mut h.counts {
                *count = new;
            }
            h
        };
        let negative_side = |h: Histogram| Histogram { negative_spans: vec![Span { offset: 0, length: 1 }], ..h };
        for (h, want) in [
            (int(0, &[(-1, 2), (1, 1)], &[1, 2, -3]), Ok(())),
            (float(8, &[(-1, 2), (1, 1)], &[1.0, 2.5, 0.0]), Ok(())),
            (float(0, &[(0, 1)], &[f64::NAN]), Ok(())),
            (custom(&[1.0, 2.0], &[(0, 3)], &[1, 0, 0]), Ok(())),
            (custom(&[f64::NEG_INFINITY, 2.0], &[(1, 1)], &[1]), Ok(())),
            (Histogram { sum: f64::NAN, ..with_count(int(0, &[(0, 1)], &[1]), 5) }, Ok(())),
            (
                int(9, &[], &[]),
                Err(
                    "histogram has an invalid schema, which must be between -4 and 8 for exponential buckets, or -53 for custom buckets, got schema 9",
                ),
            ),
            (
                int(-5, &[], &[]),
                Err(
                    "histogram has an invalid schema, which must be between -4 and 8 for exponential buckets, or -53 for custom buckets, got schema -5",
                ),
            ),
            (
                int(0, &[(0, 1), (-1, 1)], &[1, 1]),
                Err("positive side: span number 2 with offset -1: histogram has a span whose offset is negative"),
            ),
            (
                int(0, &[(0, 2)], &[1]),
                Err(
                    "positive side: spans need 2 buckets, have 1 buckets: histogram spans specify different number of buckets than provided",
                ),
            ),
            (
                negative_side(int(0, &[], &[])),
                Err(
                    "negative side: spans need 1 buckets, have 0 buckets: histogram spans specify different number of buckets than provided",
                ),
            ),
            (
                int(0, &[(0, 2)], &[1, -2]),
                Err(
                    "positive side: bucket number 2 has observation count of -1: histogram has a bucket whose observation count is negative",
                ),
            ),
            (
                float(0, &[(0, 2)], &[1.0, -0.5]),
                Err(
                    "positive side: bucket number 2 has observation count of -0.5: histogram has a bucket whose observation count is negative",
                ),
            ),
            (
                float(0, &[(0, 1)], &[-1.5]),
                Err("observation count is  -1.5: histogram's observation count is negative"),
            ),
            (
                with_count(int(0, &[(0, 1)], &[2]), 1),
                Err(
                    "2 observations found in buckets, but the Count field is 1: histogram's observation count should equal the number of observations found in the buckets (in absence of NaN)",
                ),
            ),
            (
                Histogram { sum: f64::NAN, ..with_count(int(0, &[(0, 1)], &[2]), 1) },
                Err(
                    "2 observations found in buckets, but the Count field is 1: histogram's observation count should be at least the number of observations found in the buckets",
                ),
            ),
            (
                Histogram { custom_values: vec![1.0], ..int(0, &[], &[]) },
                Err("histogram with exponential schema must not have custom bounds"),
            ),
            (custom(&[f64::NAN], &[], &[]), Err("custom buckets: histogram custom bounds must not be NaN")),
            (
                custom(&[1.0, 1.0], &[], &[]),
                Err(
                    "custom buckets: previous bound is 1.000000 and current is 1.000000: histogram custom bounds must be in strictly increasing order",
                ),
            ),
            (
                custom(&[1.0, f64::INFINITY], &[], &[]),
                Err(
                    "custom buckets: last +Inf bound must not be explicitly defined: histogram custom bounds must be finite",
                ),
            ),
            (
                custom(&[1.0], &[(-1, 1)], &[1]),
                Err("custom buckets: span number 1 with offset -1: histogram has a span whose offset is negative"),
            ),
            (
                custom(&[1.0], &[(1, 2)], &[1, 0]),
                Err(
                    "custom buckets: only 1 custom bounds defined which is insufficient to cover total span length of 3: histogram custom bounds are too few",
                ),
            ),
            (
                Histogram { zero_threshold: 0.1, ..custom(&[1.0], &[], &[]) },
                Err("custom buckets: must have zero threshold of 0"),
            ),
            (negative_side(custom(&[1.0], &[], &[])), Err("custom buckets: must not have negative spans")),
        ] {
            assert_eq!(validate(&h).map_err(|e| e.to_string()), want.map_err(str::to_owned), "{h:?}");
        }
    }

    proptest! {
        #[test]
        fn compacting_keeps_every_observation_and_the_validity(h in exponential(), empty_max in 0u32..4) {
            prop_assert_eq!(validate(&h), Ok(()));
            let mut after = h.clone();
            compact(&mut after, empty_max);
            prop_assert_eq!(validate(&after), Ok(()));
            let filled = |h: &Histogram| -> Vec<(i64, u64)> {
                let counts = counts(h);
                indexed(&h.positive_spans, &counts).filter(|(_, c)| *c != 0.0).map(|(i, c)| (i, c.to_bits())).collect()
            };
            prop_assert_eq!(filled(&after), filled(&h));
            let mut again = after.clone();
            compact(&mut again, empty_max);
            prop_assert_eq!(&again, &after);
            prop_assert!(after.positive_spans.iter().skip(1).all(|s| s.offset > empty_max as i32));
            prop_assert!(bucket_count(&after) <= bucket_count(&h) + 8 * empty_max as usize);
            prop_assert_eq!(after.reset_hint, h.reset_hint);
        }

        #[test]
        fn lowering_in_steps_is_lowering_at_once(h in exponential(), steps in 1i32..5) {
            let mut at_once = h.clone();
            let mut in_steps = h.clone();
            let target = (h.schema - steps).max(SCHEMA_MIN);
            prop_assume!(target < h.schema);
            reduce_resolution(&mut at_once, target).unwrap();
            while in_steps.schema > target {
                let lower = in_steps.schema - 1;
                reduce_resolution(&mut in_steps, lower).unwrap();
            }
            prop_assert_eq!(&at_once, &in_steps);
            prop_assert_eq!(validate(&at_once), Ok(()));
            prop_assert!(bucket_count(&at_once) <= bucket_count(&h));
        }

        #[test]
        fn lowering_a_float_histogram_is_lowering_the_whole_one(h in exponential()) {
            prop_assume!(h.schema > SCHEMA_MIN);
            let (mut a, mut b) = (h.clone(), to_float(&h));
            reduce_resolution(&mut a, SCHEMA_MIN).unwrap();
            reduce_resolution(&mut b, SCHEMA_MIN).unwrap();
            prop_assert_eq!(to_float(&a), b);
        }

        #[test]
        fn no_histogram_makes_it_panic(
            schema: i32,
            spans in proptest::collection::vec((any::<i32>(), prop_oneof![0u32..9, any::<u32>()]), 0..5),
            deltas in proptest::collection::vec(any::<i64>(), 0..9),
            target: i32,
            limit in 0usize..9,
        ) {
            let spans: Vec<Span> = spans.into_iter().map(|(offset, length)| Span { offset, length }).collect();
            let counts = HistogramCounts::Int { count: 1, zero_count: 2, positive_deltas: deltas.clone(), negative_deltas: deltas };
            let mut h = Histogram {
                schema,
                zero_threshold: 0.0,
                sum: 0.0,
                reset_hint: ResetHint::Gauge,
                positive_spans: spans.clone(),
                negative_spans: spans,
                counts,
                custom_values: Vec::new(),
            };
            let _ = validate(&h);
            compact(&mut h, 2);
            let _ = reduce_resolution(&mut h, target);
            let _ = limit_schema(&mut h, 8);
            let _ = limit_buckets(&mut h, limit);
            let _ = to_float(&h);
        }
    }
}
