//! Medians, spreads and paired ratios.

use serde::Serialize;

/// What is said of several runs of one figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    /// The middle value; the mean of the two middle ones when their number is even.
    pub(crate) median: f64,
    /// The lowest value.
    pub(crate) low: f64,
    /// The highest value.
    pub(crate) high: f64,
    /// How many values there were.
    pub(crate) count: usize,
}

impl Summary {
    /// Summarises the values that are numbers; `None` when there is none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median =
            if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) };
        Some(Self { median, low, high, count: sorted.len() })
    }

    /// The distance between highest and lowest as a share of the median; zero for a median of zero.
    pub(crate) fn spread(&self) -> f64 {
        if self.median == 0.0 { 0.0 } else { (self.high - self.low) / self.median.abs() }
    }
}

/// Summarises `a / b` over the pairs that have both.
///
/// The ratio is taken within a pair, whose runs were neighbours in time, so that a machine that gets slower or
/// busier during the session weighs on both sides alike.
pub(crate) fn paired_ratio(pairs: impl IntoIterator<Item = (Option<f64>, Option<f64>)>) -> Option<Summary> {
    Summary::of(pairs.into_iter().filter_map(|(a, b)| match (a, b) {
        (Some(a), Some(b)) if b > 0.0 => Some(a / b),
        _ => None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_value_whatever_the_order() {
        let odd = Summary::of([9.0, 1.0, 5.0]).unwrap();
        assert_eq!((odd.median, odd.low, odd.high, odd.count), (5.0, 1.0, 9.0, 3));
        assert_eq!(Summary::of([4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
        assert_eq!(Summary::of([]), None);
        assert_eq!(Summary::of([f64::NAN, 2.0]).unwrap().count, 1);
    }

    #[test]
    fn the_spread_is_relative_to_the_median() {
        assert_eq!(Summary::of([8.0, 10.0, 13.0]).unwrap().spread(), 0.5);
        assert_eq!(Summary::of([0.0, 0.0]).unwrap().spread(), 0.0);
    }

    #[test]
    fn a_ratio_is_taken_within_each_pair() {
        // The second pair ran on a machine twice as slow; the ratio does not see it.
        let ratio = paired_ratio([(Some(1.0), Some(2.0)), (Some(2.0), Some(4.0)), (None, Some(1.0))]).unwrap();
        assert_eq!((ratio.median, ratio.count), (0.5, 2));
        assert_eq!(paired_ratio([(Some(1.0), None), (Some(1.0), Some(0.0))]), None);
    }
}
