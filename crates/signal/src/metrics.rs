//! The metrics signal.

use std::sync::Arc;

use crate::flow::Signal;
use crate::series::SeriesBlock;

/// The bits of the value that says that a series has ended. Only bit equality counts; the value must never go through
/// arithmetic.
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// The bits to which every other NaN of a text exposition is set.
pub const NORMAL_NAN_BITS: u64 = 0x7ff8_0000_0000_0001;

/// The value that says that a series has ended.
pub const STALE_NAN: f64 = f64::from_bits(STALE_NAN_BITS);

/// Whether a value is the staleness marker.
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}

/// Metrics: samples of series.
#[derive(Debug)]
pub enum Metrics {}

impl Signal for Metrics {
    type Batch = Arc<MetricsBatch>;
    const NAME: &'static str = "metrics";

    fn items(batch: &Self::Batch) -> usize {
        batch.items()
    }
}

/// What one scrape or one push brought.
#[derive(Debug, Default)]
pub struct MetricsBatch {
    /// The samples, by the block of their series. Samples of one series stand in one part, in order.
    pub parts: Vec<SeriesPart>,
}

impl MetricsBatch {
    /// How many samples, histograms and exemplars the batch holds.
    pub fn items(&self) -> usize {
        self.parts.iter().map(SeriesPart::items).sum()
    }
}

/// Samples of series of one block.
#[derive(Debug)]
pub struct SeriesPart {
    /// The label sets.
    pub block: Arc<SeriesBlock>,
    /// What the samples' offsets count from, in milliseconds since the Unix epoch.
    pub base_ms: i64,
    /// The samples.
    pub samples: Vec<Sample>,
}

impl SeriesPart {
    /// How many samples, histograms and exemplars the part holds.
    pub fn items(&self) -> usize {
        self.samples.len()
    }

    /// The time of a sample, in milliseconds since the Unix epoch.
    pub fn timestamp_ms(&self, sample: &Sample) -> i64 {
        self.base_ms + i64::from(sample.offset_ms)
    }
}

/// A sample of a series.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// The value; a staleness marker is a value.
    pub value: f64,
    /// The series, as an index into the part's block.
    pub index: u32,
    /// The time, in milliseconds after the part's base.
    pub offset_ms: i32,
}
