//! The metrics signal.

use std::collections::HashMap;
use std::sync::Arc;

use corten_config::schema::CapsuleInfo;

use crate::flow::Signal;
use crate::ledger::Kind;
use crate::series::SeriesBlock;
use crate::tap::Look;
use crate::target::Target;

mod shown;

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
    const RECEIVER: &'static CapsuleInfo =
        &CapsuleInfo { type_name: "storage.Appendable", shown: "MetricsReceiver", object_like: false, from: &[] };
    const KIND: Kind = Kind::PrometheusMetric;

    fn items(batch: &Self::Batch) -> usize {
        batch.items()
    }

    fn bytes(batch: &Self::Batch) -> usize {
        batch.items() * size_of::<Sample>()
    }

    fn show(batch: &Self::Batch, look: &mut Look<'_>) {
        shown::show(batch, look);
    }
}

/// What one scrape or one push brought.
#[derive(Clone, Debug, Default)]
pub struct MetricsBatch {
    /// The samples, by the block of their series. Samples of one series stand in one part, in order.
    pub parts: Vec<SeriesPart>,
    /// Where they were scraped, if they were, and if somebody [wants to know](crate::Consume::wants_origin).
    pub origin: Option<Origin>,
}

impl MetricsBatch {
    /// A batch of which nobody knows where it comes from.
    pub fn of(parts: Vec<SeriesPart>) -> Self {
        MetricsBatch { parts, origin: None }
    }

    /// How many samples, histograms and exemplars the batch holds.
    pub fn items(&self) -> usize {
        self.parts.iter().map(SeriesPart::items).sum()
    }
}

/// Where samples were scraped.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The target.
    pub target: Arc<ScrapedTarget>,
    /// What the target said of families, by their names, in this scrape or in one before.
    pub families: Arc<HashMap<Box<str>, Arc<Metadata>>>,
}

/// A target that is scraped.
#[derive(Clone, Debug)]
pub struct ScrapedTarget {
    /// The target as it was given to the scraper.
    pub discovered: Target,
    /// The scheme of the requests.
    pub scheme: String,
    /// The label `job` that its series get.
    pub job: String,
    /// The label `instance` that its series get.
    pub instance: String,
}

/// Samples of series of one block.
#[derive(Clone, Debug)]
pub struct SeriesPart {
    /// The label sets.
    pub block: Arc<SeriesBlock>,
    /// What the samples' offsets count from, in milliseconds since the Unix epoch.
    pub base_ms: i64,
    /// The samples.
    pub samples: Vec<Sample>,
    /// The native histograms.
    pub histograms: Vec<HistogramSample>,
    /// The exemplars. They come after the samples of their series.
    pub exemplars: Vec<Exemplar>,
    /// What is known of series, where it is new or has changed.
    pub metadata: Vec<SeriesMetadata>,
}

impl SeriesPart {
    /// A part with samples alone.
    pub fn of_samples(block: Arc<SeriesBlock>, base_ms: i64, samples: Vec<Sample>) -> Self {
        SeriesPart { block, base_ms, samples, histograms: Vec::new(), exemplars: Vec::new(), metadata: Vec::new() }
    }

    /// How many samples, histograms and exemplars the part holds.
    pub fn items(&self) -> usize {
        self.samples.len() + self.histograms.len() + self.exemplars.len()
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

/// A native histogram of a series at a time.
#[derive(Clone, Debug)]
pub struct HistogramSample {
    /// The series, as an index into the part's block.
    pub index: u32,
    /// The time, in milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// The histogram.
    pub histogram: Arc<Histogram>,
}

/// A native histogram, in the model of Prometheus: sparse buckets with exponential bounds, or with bounds of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// The resolution: bounds grow by 2^(2^-schema). [`CUSTOM_BUCKETS_SCHEMA`] means bounds of its own.
    pub schema: i32,
    /// How far from zero observations count as zero.
    pub zero_threshold: f64,
    /// The sum of all observations; a staleness marker is a sum.
    pub sum: f64,
    /// Whether counts may have started anew.
    pub reset_hint: ResetHint,
    /// Where the buckets above zero lie.
    pub positive_spans: Vec<Span>,
    /// Where the buckets below zero lie.
    pub negative_spans: Vec<Span>,
    /// The counts.
    pub counts: HistogramCounts,
    /// The upper bounds of the buckets where the schema says that there are some, without the infinite one.
    pub custom_values: Vec<f64>,
}

/// The schema of histograms with bounds of their own.
pub const CUSTOM_BUCKETS_SCHEMA: i32 = -53;

/// The counts of a native histogram.
#[derive(Clone, Debug, PartialEq)]
pub enum HistogramCounts {
    /// Whole numbers.
    Int {
        /// All observations.
        count: u64,
        /// Those around zero.
        zero_count: u64,
        /// Of each bucket above zero, the difference to the one before it.
        positive_deltas: Vec<i64>,
        /// Of each bucket below zero, the difference to the one before it.
        negative_deltas: Vec<i64>,
    },
    /// Floating-point numbers.
    Float {
        /// All observations.
        count: f64,
        /// Those around zero.
        zero_count: f64,
        /// Of each bucket above zero.
        positive_counts: Vec<f64>,
        /// Of each bucket below zero.
        negative_counts: Vec<f64>,
    },
}

/// A run of buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// How many empty buckets lie between the one before and this run; for the first run, its first bucket.
    pub offset: i32,
    /// How many buckets the run has.
    pub length: u32,
}

/// Whether the counts of a histogram may have started anew since the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResetHint {
    /// Whoever wants to know compares.
    #[default]
    Unknown,
    /// They have.
    Yes,
    /// They have not.
    No,
    /// They go up and down.
    Gauge,
}

/// An example of what a series counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// The series, as an index into the part's block.
    pub index: u32,
    /// The time, in milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// The value.
    pub value: f64,
    /// Its own labels, sorted: a trace id, most often.
    pub labels: Vec<(Box<str>, Box<str>)>,
}

/// What is known of a series.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesMetadata {
    /// The series, as an index into the part's block.
    pub index: u32,
    /// What is known; shared by the series of a family.
    pub metadata: Arc<Metadata>,
}

/// What is known of a family.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Metadata {
    /// The name of the family.
    pub family: String,
    /// Its type.
    pub metric_type: MetricType,
    /// What it means.
    pub help: String,
    /// Its unit.
    pub unit: String,
}

/// The type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub enum MetricType {
    /// Nothing is known.
    #[default]
    Unknown,
    /// Only ever grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations in buckets.
    Histogram,
    /// Counts in buckets what goes up and down.
    GaugeHistogram,
    /// Quantiles of observations.
    Summary,
    /// Labels that say something of what is observed.
    Info,
    /// Which of several states hold.
    StateSet,
}
