//! How long spans take, counted by ranges.

use corten_otlp::metrics::{Exemplar, ExponentialPoint, HistogramPoint, Points};
use corten_otlp::{Arena, Map};

use crate::exponential::Exponential;

/// The ranges.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Ranges {
    /// Upper ends of the ranges but the last.
    Explicit(Vec<f64>),
    /// Ranges that grow exponentially, so many at most.
    Exponential(u32),
}

/// Counts by ranges.
#[derive(Debug)]
pub(crate) enum Durations {
    Explicit { counts: Box<[u64]>, count: u64, sum: f64 },
    Exponential(Box<Exponential>),
}

impl Durations {
    pub(crate) fn new(ranges: &Ranges) -> Self {
        match ranges {
            Ranges::Exponential(size_max) => Durations::Exponential(Box::new(Exponential::new(*size_max))),
            Ranges::Explicit(bounds) => {
                Durations::Explicit { counts: vec![0; bounds.len() + 1].into(), count: 0, sum: 0.0 }
            }
        }
    }

    /// How much memory they take besides themselves, in bytes.
    #[inline]
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Durations::Explicit { counts, .. } => size_of_val(&**counts),
            Durations::Exponential(histogram) => histogram.held_bytes(),
        }
    }

    /// Counts a duration so many times. The ranges are those that it was made for.
    #[inline]
    pub(crate) fn observe(&mut self, ranges: &Ranges, duration: f64, times: u64) {
        match (self, ranges) {
            (Durations::Explicit { counts, count, sum }, Ranges::Explicit(bounds)) => {
                *sum += duration * times as f64;
                *count = count.saturating_add(times);
                if let Some(bucket) = counts.get_mut(bounds.partition_point(|bound| *bound < duration)) {
                    *bucket = bucket.saturating_add(times);
                }
            }
            (Durations::Exponential(histogram), _) => histogram.observe(duration, times),
            (Durations::Explicit { .. }, Ranges::Exponential(_)) => {}
        }
    }

    /// Counts what another one counted, too.
    pub(crate) fn merge(&mut self, other: &Durations) {
        match (self, other) {
            (Durations::Explicit { counts, count, sum }, Durations::Explicit { counts: more, count: n, sum: s }) => {
                counts.iter_mut().zip(more).for_each(|(count, more)| *count = count.saturating_add(*more));
                *count = count.saturating_add(*n);
                *sum += s;
            }
            (Durations::Exponential(one), Durations::Exponential(other)) => one.merge(other),
            _ => {}
        }
    }
}

/// What is to become a point.
pub(crate) struct Counted<'a> {
    pub(crate) attributes: Map,
    pub(crate) start_ns: u64,
    pub(crate) exemplars: Vec<Exemplar>,
    pub(crate) durations: &'a Durations,
}

/// The points of a metric, whose attributes come from another arena.
pub(crate) fn points<'a>(
    ranges: &Ranges,
    temporality: i32,
    counted: impl Iterator<Item = Counted<'a>>,
    (to, from): (&mut Arena, &Arena),
    now_ns: u64,
) -> Points {
    match ranges {
        Ranges::Explicit(bounds) => {
            let point = |of: Counted<'_>| {
                let Durations::Explicit { counts, count, sum } = of.durations else { return HistogramPoint::default() };
                HistogramPoint {
                    attributes: to.carry_map(from, of.attributes),
                    start_time_ns: of.start_ns,
                    time_ns: now_ns,
                    count: *count,
                    sum: Some(*sum),
                    bucket_counts: counts.to_vec(),
                    explicit_bounds: bounds.clone(),
                    exemplars: of.exemplars,
                    ..HistogramPoint::default()
                }
            };
            Points::Histogram { points: counted.map(point).collect(), temporality }
        }
        Ranges::Exponential(_) => {
            let point = |of: Counted<'_>| {
                let Durations::Exponential(histogram) = of.durations else { return ExponentialPoint::default() };
                ExponentialPoint {
                    attributes: to.carry_map(from, of.attributes),
                    start_time_ns: of.start_ns,
                    time_ns: now_ns,
                    exemplars: of.exemplars,
                    ..histogram.point()
                }
            };
            Points::Exponential { points: counted.map(point).collect(), temporality }
        }
    }
}
