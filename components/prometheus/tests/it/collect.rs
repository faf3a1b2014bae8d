//! A receiver that records what it is sent, in a form that tests compare.

use std::fmt;
use std::sync::Arc;

use corten_config::value::Value;
use corten_signal::flow::BoxFuture;
use corten_signal::metrics::{Histogram, MetricType, is_stale};
use corten_signal::{Consume, ConsumeError, Inlet, Labels, Metrics, MetricsBatch, SeriesPart};
use parking_lot::Mutex;

/// The series that a scrape makes itself.
const REPORT: [&str; 8] = [
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
    "scrape_timeout_seconds",
    "scrape_sample_limit",
    "scrape_body_size_bytes",
];

/// A sample as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    /// `name{a="b"}`, the labels sorted.
    pub(crate) series: String,
    /// `42`, or `stale`.
    pub(crate) value: String,
    pub(crate) time_ms: i64,
}

impl Got {
    pub(crate) fn name(&self) -> &str {
        self.series.split('{').next().unwrap_or_default()
    }
}

impl fmt::Display for Got {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.series, self.value)
    }
}

/// A batch as it arrived.
#[derive(Clone, Debug, Default)]
pub(crate) struct Batch {
    pub(crate) samples: Vec<Got>,
    pub(crate) histograms: Vec<(String, Histogram, i64)>,
    /// `series {label="value"} 42 @time`.
    pub(crate) exemplars: Vec<String>,
    /// `series family type "help" "unit"`.
    pub(crate) metadata: Vec<String>,
}

impl Batch {
    fn of(batch: &MetricsBatch) -> Self {
        let mut out = Batch::default();
        for part in &batch.parts {
            out.add(part);
        }
        out
    }

    fn add(&mut self, part: &SeriesPart) {
        let series = |index: u32| series(part.block.labels(index));
        for sample in &part.samples {
            let value = if is_stale(sample.value) { "stale".to_owned() } else { sample.value.to_string() };
            self.samples.push(Got { series: series(sample.index), value, time_ms: part.timestamp_ms(sample) });
        }
        for sample in &part.histograms {
            self.histograms.push((series(sample.index), (*sample.histogram).clone(), sample.timestamp_ms));
        }
        for exemplar in &part.exemplars {
            let labels: Vec<String> = exemplar.labels.iter().map(|(n, v)| format!("{n}={v:?}")).collect();
            let (labels, value, time) = (labels.join(","), exemplar.value, exemplar.timestamp_ms);
            self.exemplars.push(format!("{} {{{labels}}} {value} @{time}", series(exemplar.index)));
        }
        for known in &part.metadata {
            let known_of = &known.metadata;
            let kind = match known_of.metric_type {
                MetricType::Unknown => "unknown",
                MetricType::Counter => "counter",
                MetricType::Gauge => "gauge",
                MetricType::Histogram => "histogram",
                MetricType::GaugeHistogram => "gaugehistogram",
                MetricType::Summary => "summary",
                MetricType::Info => "info",
                MetricType::StateSet => "stateset",
            };
            let series = series(known.index);
            let (family, help, unit) = (&known_of.family, &known_of.help, &known_of.unit);
            self.metadata.push(format!("{series} {family} {kind} {help:?} {unit:?}"));
        }
    }

    /// The samples that the target exposed, and the markers of their series, sorted.
    pub(crate) fn lines(&self) -> Vec<String> {
        let exposed = self.samples.iter().filter(|got| !REPORT.contains(&got.name()));
        let mut lines: Vec<String> = exposed.map(ToString::to_string).collect();
        lines.sort();
        lines
    }

    /// The samples that the scrape made itself, in order.
    pub(crate) fn report(&self) -> Vec<String> {
        let made = self.samples.iter().filter(|got| REPORT.contains(&got.name()));
        made.map(ToString::to_string).collect()
    }

    /// The value of the one series of a name; empty where there is none.
    pub(crate) fn value(&self, name: &str) -> &str {
        let mut found = self.samples.iter().filter(|got| got.name() == name);
        let value = found.next().map_or("", |got| got.value.as_str());
        assert!(found.next().is_none(), "{name} stands twice in {self:?}");
        value
    }

    /// Whether the target answered as it should.
    pub(crate) fn is_up(&self) -> bool {
        self.samples.iter().any(|got| got.name() == "up" && got.value == "1")
    }

    /// The time of the scrape.
    pub(crate) fn time_ms(&self) -> i64 {
        self.samples.iter().find(|got| got.name() == "up").map_or(0, |got| got.time_ms)
    }

    /// Whether it holds a marker.
    pub(crate) fn has_marker(&self) -> bool {
        self.samples.iter().any(|got| got.value == "stale")
    }

    /// Whether a series of a target with this instance is in it.
    pub(crate) fn is_of(&self, instance: &str) -> bool {
        let label = format!("instance={instance:?}");
        self.samples.iter().any(|got| got.series.contains(&label))
    }
}

fn series(labels: Labels<'_>) -> String {
    let name = labels.get("__name__").unwrap_or_default();
    let others: Vec<String> = labels
        .iter()
        .filter(|(name, _)| *name != "__name__")
        .map(|(name, value)| format!("{name}={value:?}"))
        .collect();
    format!("{name}{{{}}}", others.join(","))
}

/// Records what it is sent. A clone is the same.
#[derive(Clone)]
pub(crate) struct Collector {
    inlet: Arc<Inlet<Metrics>>,
    batches: Arc<Mutex<Vec<Batch>>>,
}

struct Stage(Arc<Mutex<Vec<Batch>>>);

impl Consume<Metrics> for Stage {
    fn consume(&self, batch: Arc<MetricsBatch>) -> BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(async move {
            self.0.lock().push(Batch::of(&batch));
            Ok(())
        })
    }
}

impl Collector {
    pub(crate) fn new() -> Self {
        let batches: Arc<Mutex<Vec<Batch>>> = Arc::default();
        let inlet = Inlet::new("test.collect.a");
        inlet.attach(Arc::new(Stage(Arc::clone(&batches))));
        Collector { inlet: Arc::new(inlet), batches }
    }

    /// What a configuration refers to it by.
    pub(crate) fn receiver(&self) -> Value {
        Value::capsule(Arc::new(self.inlet.receiver()))
    }

    /// What arrived so far.
    pub(crate) fn batches(&self) -> Vec<Batch> {
        self.batches.lock().clone()
    }

    /// How many batches arrived so far.
    pub(crate) fn count(&self) -> usize {
        self.batches.lock().len()
    }

    /// Whether any batch after the first `skip` is so.
    pub(crate) fn any(&self, skip: usize, is_so: impl Fn(&Batch) -> bool) -> bool {
        self.batches.lock().iter().skip(skip).any(is_so)
    }

    /// Waits for a batch after the first `skip` that is so, and gives it.
    pub(crate) async fn wait(&self, what: &str, skip: usize, is_so: impl Fn(&Batch) -> bool) -> Batch {
        corten_testkit::until_some(what, || self.batches.lock().iter().skip(skip).find(|batch| is_so(batch)).cloned())
            .await
    }
}
