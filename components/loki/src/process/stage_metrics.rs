//! `stage.metrics`.

use std::sync::{Arc, Weak};

use corten_component::metrics::{Collect, DEFAULT_BUCKETS};
use corten_config::arguments::CheckErrors;
use corten_config::decode::SignedDuration;
use corten_config::schema::Stability;
use corten_config::{Arguments, duration};

use super::series::{Change, Families, Family, FamilyKind, now_s, parse_float};
use super::stage::{Build, Compile, Emit, Next, Slot, Stage, StageError, Value, Work};

/// Makes metrics of entries.
///
/// The metrics are among those of the program. Each has one series for every label set of the entries at this place,
/// without labels whose names begin with two underscores.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct MetricsStage {
    /// The metrics. Of several with one name, the last counts.
    #[block(group = "metric")]
    metrics: Vec<MetricConfig>,
}

/// A metric.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(super) enum MetricConfig {
    /// A number that only grows.
    Counter(CounterMetric),
    /// A number that goes up and down.
    Gauge(GaugeMetric),
    /// How values are distributed.
    Histogram(HistogramMetric),
}

/// A number that only grows.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(super) struct CounterMetric {
    /// What to do: `inc` adds one, `add` adds the extracted value.
    action: String,
    /// Name of the metric, without its prefix.
    name: String,
    /// Whether to add the length of the log line, in bytes. Needs `match_all` and the action `add`.
    #[arg(default = false)]
    count_entry_bytes: bool,
    /// What the metric means.
    #[arg(default = "")]
    description: String,
    /// Whether all entries count, whatever was extracted.
    #[arg(default = false)]
    match_all: bool,
    /// How long a series is kept that no entry changes, at least one second.
    #[arg(default = "5m")]
    max_idle_duration: SignedDuration,
    /// What the name of the metric begins with.
    #[arg(default = "loki_process_custom_")]
    prefix: String,
    /// Name of the extracted value; that of the metric, if it is empty.
    #[arg(default = "")]
    source: String,
    /// Value that the extracted one must have for the entry to count.
    #[arg(default = "")]
    value: String,
}

impl CounterMetric {
    fn check(&self) -> Result<(), CheckErrors> {
        check_idle(self.max_idle_duration)?;
        if self.action != "inc" && self.action != "add" {
            let text = "the 'action' counter field must be either 'inc' or 'add'";
            return Err(CheckErrors::of(&["action"], text));
        }
        if self.match_all && !self.value.is_empty() {
            let text = "a 'counter' metric supports either 'match_all' or a 'value', but not both";
            return Err(CheckErrors::of(&["match_all", "value"], text));
        }
        if self.count_entry_bytes && !(self.match_all && self.action == "add") {
            let text = "the 'count_entry_bytes' counter field must be specified along with match_all set to true or action \
                        set to 'add'";
            return Err(CheckErrors::of(&["count_entry_bytes", "match_all", "action"], text));
        }
        Ok(())
    }
}

/// A number that goes up and down.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(super) struct GaugeMetric {
    /// What to do: `set` it to the extracted value, `add` or `sub` that, or `inc` or `dec` by one.
    action: String,
    /// Name of the metric, without its prefix.
    name: String,
    /// What the metric means.
    #[arg(default = "")]
    description: String,
    /// How long a series is kept that no entry changes, at least one second.
    #[arg(default = "5m")]
    max_idle_duration: SignedDuration,
    /// What the name of the metric begins with.
    #[arg(default = "loki_process_custom_")]
    prefix: String,
    /// Name of the extracted value; that of the metric, if it is empty.
    #[arg(default = "")]
    source: String,
    /// Value that the extracted one must have for the entry to count.
    #[arg(default = "")]
    value: String,
}

impl GaugeMetric {
    fn check(&self) -> Result<(), CheckErrors> {
        check_idle(self.max_idle_duration)?;
        if ["set", "inc", "dec", "add", "sub"].contains(&self.action.as_str()) {
            return Ok(());
        }
        let text = "the 'action' gauge field must be one of the following values: [set, inc, dec, add, sub]";
        Err(CheckErrors::of(&["action"], text))
    }
}

/// How values are distributed.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(super) struct HistogramMetric {
    /// Upper bounds of the buckets, each greater than the one before. Without any, they are those of client libraries,
    /// from 0.005 to 10.
    buckets: Vec<f64>,
    /// Name of the metric, without its prefix.
    name: String,
    /// What the metric means.
    #[arg(default = "")]
    description: String,
    /// How long a series is kept that no entry changes, at least one second.
    #[arg(default = "5m")]
    max_idle_duration: SignedDuration,
    /// What the name of the metric begins with.
    #[arg(default = "loki_process_custom_")]
    prefix: String,
    /// Name of the extracted value; that of the metric, if it is empty.
    #[arg(default = "")]
    source: String,
    /// Value that the extracted one must have for the entry to count.
    #[arg(default = "")]
    value: String,
}

impl HistogramMetric {
    fn check(&self) -> Result<(), CheckErrors> {
        check_idle(self.max_idle_duration)
    }

    /// The reference accepts such buckets and ends with this text at the first observation.
    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        match self.buckets.windows(2).find(|pair| pair[0] >= pair[1]) {
            None => Ok(()),
            Some(pair) => {
                let text = format!("histogram buckets must be in increasing order: {:.6} >= {:.6}", pair[0], pair[1]);
                Err(CheckErrors::of(&["buckets"], text))
            }
        }
    }
}

fn check_idle(idle_max: SignedDuration) -> Result<(), CheckErrors> {
    if idle_max.nanoseconds >= 1_000_000_000 {
        return Ok(());
    }
    Err(CheckErrors::of(&["max_idle_duration"], "max_idle_duration must be greater or equal than 1s"))
}

/// What the three have in common.
struct Common<'a> {
    name: &'a str,
    prefix: &'a str,
    description: &'a str,
    source: &'a str,
    value: &'a str,
    idle_max: SignedDuration,
}

impl MetricConfig {
    fn common(&self) -> Common<'_> {
        macro_rules! common {
            ($metric:expr) => {
                Common {
                    name: &$metric.name,
                    prefix: &$metric.prefix,
                    description: &$metric.description,
                    source: &$metric.source,
                    value: &$metric.value,
                    idle_max: $metric.max_idle_duration,
                }
            };
        }
        match self {
            MetricConfig::Counter(metric) => common!(metric),
            MetricConfig::Gauge(metric) => common!(metric),
            MetricConfig::Histogram(metric) => common!(metric),
        }
    }

    fn kind(&self) -> FamilyKind {
        match self {
            MetricConfig::Counter(_) => FamilyKind::Counter,
            MetricConfig::Gauge(_) => FamilyKind::Gauge,
            MetricConfig::Histogram(histogram) => {
                let mut bounds =
                    if histogram.buckets.is_empty() { DEFAULT_BUCKETS.to_vec() } else { histogram.buckets.clone() };
                bounds.pop_if(|last| *last == f64::INFINITY);
                FamilyKind::Histogram(bounds)
            }
        }
    }

    fn action(&self) -> Action {
        match self {
            MetricConfig::Counter(counter) => match counter.action.as_str() {
                "inc" => Action::AddOne(1.0),
                _ if counter.count_entry_bytes => Action::AddBytes,
                _ => Action::Add(1.0),
            },
            MetricConfig::Gauge(gauge) => match gauge.action.as_str() {
                "set" => Action::Set,
                "inc" => Action::AddOne(1.0),
                "dec" => Action::AddOne(-1.0),
                "add" => Action::Add(1.0),
                _ => Action::Add(-1.0),
            },
            MetricConfig::Histogram(_) => Action::Observe,
        }
    }
}

impl Build for MetricsStage {
    fn build(&self, cx: &mut Compile<'_>) -> Result<Box<dyn Stage>, StageError> {
        let mut families = Vec::new();
        let mut metrics = Vec::new();
        for (at, config) in self.metrics.iter().enumerate() {
            let common = config.common();
            if self.metrics[at + 1..].iter().any(|later| later.common().name == common.name) {
                continue;
            }
            let or = |text: &str, other: &str| if text.is_empty() { other.to_owned() } else { text.to_owned() };
            let name = or(common.prefix, "loki_process_custom_") + common.name;
            let idle_max_s = common.idle_max.nanoseconds / 1_000_000_000;
            families.push(Family::new(&name, common.description, config.kind(), idle_max_s, cx.logger()));
            metrics.push(Metric {
                source: cx.slot(&or(common.source, common.name)),
                wanted: (!common.value.is_empty()).then(|| common.value.to_owned()),
                action: config.action(),
                match_all: matches!(config, MetricConfig::Counter(counter) if counter.match_all),
            });
        }
        let families = Arc::new(Families(families));
        cx.registry().collect(Arc::downgrade(&families) as Weak<dyn Collect>);
        Ok(Box::new(MetricStage { metrics, families }))
    }
}

struct MetricStage {
    metrics: Vec<Metric>,
    /// As many, in the same order.
    families: Arc<Families>,
}

struct Metric {
    source: Slot,
    wanted: Option<String>,
    action: Action,
    match_all: bool,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    /// Adds this.
    AddOne(f64),
    /// Adds the value times this.
    Add(f64),
    /// Adds the length of the line.
    AddBytes,
    Set,
    Observe,
}

impl Stage for MetricStage {
    fn run(&self, work: &mut Work, _: &mut Emit) -> Next {
        let mut labels = None;
        for (metric, family) in self.metrics.iter().zip(&self.families.0) {
            if let Some(change) = metric.change(work) {
                let labels = labels.get_or_insert_with(|| work.stream());
                family.change(labels.labels(), change, now_s());
            }
        }
        Next::Keep
    }
}

impl Metric {
    /// What the entry changes.
    fn change(&self, work: &mut Work) -> Option<Change> {
        let value = work.value(self.source);
        if !self.match_all && !value.is_present() {
            return None;
        }
        if let Some(wanted) = &self.wanted {
            let text = work.text_of(value)?;
            if work.bytes(text) != wanted.as_bytes() {
                return None;
            }
        }
        // Where all entries count, nothing that was extracted does.
        let number = || if self.match_all { None } else { to_float(value, work) };
        Some(match self.action {
            Action::AddOne(one) => Change::Add(one),
            Action::Add(times) => Change::Add(times * number()?),
            Action::AddBytes => Change::Add(work.line().len() as f64),
            Action::Set => Change::Set(number()?),
            Action::Observe => Change::Observe(number()?),
        })
    }
}

/// The number of a value: of a text, the number that it is, or the seconds of a duration.
fn to_float(value: Value, work: &Work) -> Option<f64> {
    match value {
        Value::Bool(value) => Some(f64::from(u8::from(value))),
        Value::Float(value) => Some(value),
        Value::Uint(value) => Some(value as f64),
        Value::Text(text) => {
            let text = work.str(text)?;
            parse_float(text).or_else(|| {
                let nanoseconds = duration::parse(text).ok()?;
                let (seconds, rest) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
                Some(seconds as f64 + rest as f64 / 1e9)
            })
        }
        Value::Absent | Value::Nil | Value::Opaque => None,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn entries_become_what_the_reference_makes_of_them() {
        assert!(super::super::testing::recorded("metrics") >= 41);
    }
}
