//! The program's own metrics.
//!
//! A component has a registry of its own; whoever gathers adds the component's labels and merges families of one name.
//! The registry forgets nothing by itself: it goes with the component.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only ever grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations in buckets.
    Histogram,
    /// Quantiles of observations.
    Summary,
}

/// A number that only grows.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// The sum so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }

    /// Adds, which may be negative.
    pub fn add(&self, delta: f64) {
        add_float(&self.0, delta);
    }

    /// The value.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

fn add_float(cell: &AtomicU64, delta: f64) {
    let _ =
        cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bits| Some((f64::from_bits(bits) + delta).to_bits()));
}

/// Counts observations in buckets.
#[derive(Clone, Debug)]
pub struct Histogram(Arc<HistogramCells>);

#[derive(Debug)]
struct HistogramCells {
    bounds: Vec<f64>,
    /// One a bound and one for what lies above all of them.
    counts: Vec<AtomicU64>,
    sum: AtomicU64,
}

/// The bounds that client libraries use unless told otherwise, in seconds.
pub const DEFAULT_BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

impl Histogram {
    fn new(bounds: &[f64]) -> Self {
        Histogram(Arc::new(HistogramCells {
            bounds: bounds.to_vec(),
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }))
    }

    /// Counts an observation.
    pub fn observe(&self, value: f64) {
        self.observe_many(value, 1);
    }

    /// Counts an observation that was made several times.
    pub fn observe_many(&self, value: f64, count: u64) {
        let at = self.0.bounds.partition_point(|bound| *bound < value);
        self.0.counts[at].fetch_add(count, Ordering::Relaxed);
        add_float(&self.0.sum, value * count as f64);
    }

    /// Counts a span of time, in seconds.
    pub fn observe_duration(&self, value: Duration) {
        self.observe(value.as_secs_f64());
    }

    fn snapshot(&self) -> Value {
        let mut total = 0;
        let buckets = self.0.bounds.iter().copied().chain([f64::INFINITY]).zip(&self.0.counts);
        let buckets: Vec<(f64, u64)> = buckets
            .map(|(bound, count)| {
                total += count.load(Ordering::Relaxed);
                (bound, total)
            })
            .collect();
        Value::Histogram { buckets, sum: f64::from_bits(self.0.sum.load(Ordering::Relaxed)), count: total }
    }
}

/// Quantiles of the observations of the last minutes, with the count and sum of all.
#[derive(Clone, Debug)]
pub struct Summary(Arc<Mutex<SummaryState>>);

#[derive(Debug)]
struct SummaryState {
    quantiles: &'static [f64],
    recent: VecDeque<(Instant, f64)>,
    sum: f64,
    count: u64,
}

/// How long an observation counts for the quantiles of a summary, and how many do at most.
const SUMMARY_AGE_MAX: Duration = Duration::from_secs(600);
const SUMMARY_RECENT_MAX: usize = 1024;

impl Summary {
    fn new(quantiles: &'static [f64]) -> Self {
        Summary(Arc::new(Mutex::new(SummaryState { quantiles, recent: VecDeque::new(), sum: 0.0, count: 0 })))
    }

    /// Takes an observation.
    pub fn observe(&self, value: f64) {
        let mut state = self.0.lock();
        state.sum += value;
        state.count += 1;
        if state.recent.len() == SUMMARY_RECENT_MAX {
            state.recent.pop_front();
        }
        state.recent.push_back((Instant::now(), value));
    }

    fn snapshot(&self) -> Value {
        let mut state = self.0.lock();
        while state.recent.front().is_some_and(|(at, _)| at.elapsed() > SUMMARY_AGE_MAX) {
            state.recent.pop_front();
        }
        let mut recent: Vec<f64> = state.recent.iter().map(|(_, value)| *value).collect();
        recent.sort_by(f64::total_cmp);
        let at = |quantile: f64| match recent.len() {
            0 => f64::NAN,
            len => recent[((quantile * len as f64).ceil() as usize).clamp(1, len) - 1],
        };
        let quantiles = state.quantiles.iter().map(|quantile| (*quantile, at(*quantile))).collect();
        Value::Summary { quantiles, sum: state.sum, count: state.count }
    }
}

/// A metric that a family has one of for each set of label values.
pub trait Cell: Clone + Send + 'static {
    #[doc(hidden)]
    fn wrap(self) -> AnyCell;
}

#[doc(hidden)]
#[derive(Clone)]
pub enum AnyCell {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
    Summary(Summary),
    Read(Arc<dyn Fn() -> f64 + Send + Sync>),
}

impl Cell for Counter {
    fn wrap(self) -> AnyCell {
        AnyCell::Counter(self)
    }
}

impl Cell for Gauge {
    fn wrap(self) -> AnyCell {
        AnyCell::Gauge(self)
    }
}

impl Cell for Histogram {
    fn wrap(self) -> AnyCell {
        AnyCell::Histogram(self)
    }
}

impl Cell for Summary {
    fn wrap(self) -> AnyCell {
        AnyCell::Summary(self)
    }
}

impl AnyCell {
    fn value(&self) -> Value {
        match self {
            AnyCell::Counter(counter) => Value::Number(counter.get() as f64),
            AnyCell::Gauge(gauge) => Value::Number(gauge.get()),
            AnyCell::Histogram(histogram) => histogram.snapshot(),
            AnyCell::Summary(summary) => summary.snapshot(),
            AnyCell::Read(read) => Value::Number(read()),
        }
    }
}

/// A family with labels.
#[derive(Clone)]
pub struct Vector<C> {
    family: Arc<Family>,
    make: Arc<dyn Fn() -> C + Send + Sync>,
    unwrap: fn(&AnyCell) -> Option<C>,
}

impl<C: Cell> Vector<C> {
    /// The metric for these label values, in the order of the family's label names.
    ///
    /// # Panics
    ///
    /// When there are more or fewer values than names.
    pub fn with(&self, values: &[&str]) -> C {
        assert_eq!(values.len(), self.family.labels.len(), "one value a label of {}", self.family.name);
        let mut cells = self.family.cells.lock();
        if let Some((_, cell)) =
            cells.iter().find(|(have, _)| have.iter().map(String::as_str).eq(values.iter().copied()))
            && let Some(cell) = (self.unwrap)(cell)
        {
            return cell;
        }
        let cell = (self.make)();
        cells.push((values.iter().map(|v| (*v).to_owned()).collect(), cell.clone().wrap()));
        cell
    }

    /// Forgets the metric for these label values.
    pub fn remove(&self, values: &[&str]) {
        let mut cells = self.family.cells.lock();
        cells.retain(|(have, _)| !have.iter().map(String::as_str).eq(values.iter().copied()));
    }

    /// Forgets all metrics of the family.
    pub fn clear(&self) {
        self.family.cells.lock().clear();
    }
}

struct Family {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    labels: Vec<&'static str>,
    cells: Mutex<Vec<(Vec<String>, AnyCell)>>,
}

/// The metrics of one component or service.
#[derive(Clone, Default)]
pub struct Registry(Arc<Inner>);

#[derive(Default)]
struct Inner {
    families: Mutex<Vec<Arc<Family>>>,
    refresh: Mutex<Vec<Weak<dyn Refresh>>>,
    collect: Mutex<Vec<Weak<dyn Collect>>>,
}

/// Has families whose names, or whose labels, are known only at run time.
pub trait Collect: Send + Sync + 'static {
    /// Adds them. Called when metrics are gathered; the labels of whoever gathers are added to each metric, and count where
    /// it has labels of the same names.
    fn collect(&self, into: &mut Snapshot);
}

/// Sets gauges that are only worth setting when somebody looks.
pub trait Refresh: Send + Sync + 'static {
    /// Sets them. Called before metrics are gathered.
    fn refresh(&self);
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.families.lock().iter().map(|family| family.name)).finish()
    }
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// A counter without labels. A second one of the same name is the same counter.
    pub fn counter(&self, name: &'static str, help: &'static str) -> Counter {
        self.counters(name, help, &[]).with(&[])
    }

    /// A gauge without labels.
    pub fn gauge(&self, name: &'static str, help: &'static str) -> Gauge {
        self.gauges(name, help, &[]).with(&[])
    }

    /// A histogram without labels.
    pub fn histogram(&self, name: &'static str, help: &'static str, bounds: &'static [f64]) -> Histogram {
        self.histograms(name, help, &[], bounds).with(&[])
    }

    /// Counters by label values.
    pub fn counters(&self, name: &'static str, help: &'static str, labels: &[&'static str]) -> Vector<Counter> {
        let family = self.family(name, help, Kind::Counter, labels);
        let unwrap = |cell: &AnyCell| match cell {
            AnyCell::Counter(counter) => Some(counter.clone()),
            _ => None,
        };
        Vector { family, make: Arc::new(Counter::default), unwrap }
    }

    /// Gauges by label values.
    pub fn gauges(&self, name: &'static str, help: &'static str, labels: &[&'static str]) -> Vector<Gauge> {
        let family = self.family(name, help, Kind::Gauge, labels);
        let unwrap = |cell: &AnyCell| match cell {
            AnyCell::Gauge(gauge) => Some(gauge.clone()),
            _ => None,
        };
        Vector { family, make: Arc::new(Gauge::default), unwrap }
    }

    /// Counters whose values are kept elsewhere and set before somebody gathers.
    pub fn counter_values(&self, name: &'static str, help: &'static str, labels: &[&'static str]) -> Vector<Gauge> {
        let family = self.family(name, help, Kind::Counter, labels);
        let unwrap = |cell: &AnyCell| match cell {
            AnyCell::Gauge(gauge) => Some(gauge.clone()),
            _ => None,
        };
        Vector { family, make: Arc::new(Gauge::default), unwrap }
    }

    /// Histograms by label values.
    pub fn histograms(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[&'static str],
        bounds: &'static [f64],
    ) -> Vector<Histogram> {
        let family = self.family(name, help, Kind::Histogram, labels);
        let unwrap = |cell: &AnyCell| match cell {
            AnyCell::Histogram(histogram) => Some(histogram.clone()),
            _ => None,
        };
        Vector { family, make: Arc::new(|| Histogram::new(bounds)), unwrap }
    }

    /// Summaries by label values.
    pub fn summaries(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[&'static str],
        quantiles: &'static [f64],
    ) -> Vector<Summary> {
        let family = self.family(name, help, Kind::Summary, labels);
        let unwrap = |cell: &AnyCell| match cell {
            AnyCell::Summary(summary) => Some(summary.clone()),
            _ => None,
        };
        Vector { family, make: Arc::new(move || Summary::new(quantiles)), unwrap }
    }

    /// A metric whose value is read when somebody gathers.
    pub fn read(
        &self,
        name: &'static str,
        help: &'static str,
        kind: Kind,
        labels: &[(&'static str, &str)],
        read: impl Fn() -> f64 + Send + Sync + 'static,
    ) {
        let names: Vec<&'static str> = labels.iter().map(|(name, _)| *name).collect();
        let mut families = self.0.families.lock();
        let family = match families.iter().find(|f| f.name == name) {
            Some(family) => Arc::clone(family),
            None => {
                let family = Arc::new(Family { name, help, kind, labels: names, cells: Mutex::default() });
                families.push(Arc::clone(&family));
                family
            }
        };
        let values: Vec<String> = labels.iter().map(|(_, value)| (*value).to_owned()).collect();
        let mut cells = family.cells.lock();
        cells.retain(|(have, _)| *have != values);
        cells.push((values, AnyCell::Read(Arc::new(read))));
    }

    /// Calls this before metrics are gathered, as long as it lives.
    pub fn before_gathering(&self, refresh: Weak<dyn Refresh>) {
        self.0.refresh.lock().push(refresh);
    }

    /// Calls this when metrics are gathered, as long as it lives. A family that the registry has as one of another type is
    /// left out, and so is the later of two metrics of the same labels.
    pub fn collect(&self, collect: Weak<dyn Collect>) {
        let mut all = self.0.collect.lock();
        all.retain(|collect| collect.strong_count() > 0);
        all.push(collect);
    }

    fn family(&self, name: &'static str, help: &'static str, kind: Kind, labels: &[&'static str]) -> Arc<Family> {
        let mut families = self.0.families.lock();
        if let Some(family) = families.iter().find(|f| f.name == name) {
            debug_assert!(family.kind == kind && family.labels == labels, "{name} is registered as another metric");
            return Arc::clone(family);
        }
        let family = Arc::new(Family { name, help, kind, labels: labels.to_vec(), cells: Mutex::default() });
        families.push(Arc::clone(&family));
        family
    }

    /// Adds what the registry holds to a snapshot, with further labels.
    pub fn gather(&self, extra: &[(&str, &str)], into: &mut Snapshot) {
        let refresh: Vec<Weak<dyn Refresh>> = {
            let mut refresh = self.0.refresh.lock();
            refresh.retain(|refresh| refresh.strong_count() > 0);
            refresh.clone()
        };
        for refresh in refresh.iter().filter_map(Weak::upgrade) {
            refresh.refresh();
        }
        let extra: Vec<Label> = extra.iter().map(|(name, value)| (Arc::from(*name), Arc::from(*value))).collect();
        let families: Vec<Arc<Family>> = self.0.families.lock().clone();
        for family in families {
            let names: Vec<Arc<str>> = family.labels.iter().map(|name| Arc::from(*name)).collect();
            let cells = family.cells.lock().clone();
            for (values, cell) in cells {
                let labels = names.iter().cloned().zip(values.into_iter().map(Arc::from));
                let labels = extra.iter().cloned().chain(labels).collect();
                into.add_shared(family.name, family.help, family.kind, labels, cell.value());
            }
        }
        self.gather_collected(extra, into);
    }

    fn gather_collected(&self, extra: Vec<Label>, into: &mut Snapshot) {
        let all: Vec<Arc<dyn Collect>> = self.0.collect.lock().iter().filter_map(Weak::upgrade).collect();
        // There may be many metrics: they get all their labels at once, and are moved.
        let mut collected = Snapshot { extra, ..Snapshot::default() };
        all.iter().for_each(|collect| collect.collect(&mut collected));
        for (name, mut family) in collected.families {
            // The sort keeps the order of those that are equal.
            family.metrics.sort_by(|(a, _), (b, _)| a.cmp(b));
            family.metrics.dedup_by(|(a, _), (b, _)| a == b);
            match into.families.entry(name) {
                Entry::Vacant(place) => {
                    place.insert(family);
                }
                Entry::Occupied(known) if known.get().kind != family.kind => {}
                Entry::Occupied(mut known) => known.get_mut().metrics.append(&mut family.metrics),
            }
        }
    }
}

/// The value of a metric.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of a counter or gauge.
    Number(f64),
    /// Of a histogram: cumulative counts by upper bound.
    Histogram {
        /// Upper bound and how many observations lie at or below it; the last bound is infinite.
        buckets: Vec<(f64, u64)>,
        /// The sum of all observations.
        sum: f64,
        /// How many there were.
        count: u64,
    },
    /// Of a summary.
    Summary {
        /// Quantile and its value.
        quantiles: Vec<(f64, f64)>,
        /// The sum of all observations.
        sum: f64,
        /// How many there were.
        count: u64,
    },
}

/// The name and the value of a label. Metrics share what many of them have.
pub type Label = (Arc<str>, Arc<str>);

/// A family as it was gathered.
#[derive(Clone, Debug)]
pub struct GatheredFamily {
    /// Its name.
    pub name: String,
    /// What it means.
    pub help: String,
    /// Its type.
    pub kind: Kind,
    /// Its metrics: labels, sorted, and value.
    pub metrics: Vec<(Box<[Label]>, Value)>,
}

/// What all registries held at one time.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    families: BTreeMap<String, GatheredFamily>,
    /// What each metric gets, in the place of labels of the same names.
    extra: Vec<Label>,
}

impl Snapshot {
    /// Adds a metric. Type and help of a family are those of its first metric.
    pub fn add(&mut self, name: &str, help: &str, kind: Kind, labels: Vec<(String, String)>, value: Value) {
        let labels = labels.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        self.add_shared(name, help, kind, labels, value);
    }

    /// As [`add`](Self::add), for whoever has many metrics whose labels have something in common.
    pub fn add_shared(&mut self, name: &str, help: &str, kind: Kind, mut labels: Vec<Label>, value: Value) {
        if !self.extra.is_empty() {
            labels.retain(|(name, _)| self.extra.iter().all(|(extra, _)| extra != name));
            labels.reserve_exact(self.extra.len());
            labels.extend(self.extra.iter().cloned());
        }
        labels.sort();
        let metric = (labels.into_boxed_slice(), value);
        if let Some(family) = self.families.get_mut(name) {
            family.metrics.push(metric);
            return;
        }
        let family = GatheredFamily { name: name.to_owned(), help: help.to_owned(), kind, metrics: vec![metric] };
        self.families.insert(name.to_owned(), family);
    }

    /// The families, sorted by name.
    pub fn families(&self) -> impl Iterator<Item = &GatheredFamily> {
        self.families.values()
    }

    /// The snapshot in the Prometheus text format, version 0.0.4.
    pub fn to_text(&self) -> String {
        self.render(false)
    }

    /// The snapshot in OpenMetrics 1.0.
    pub fn to_open_metrics(&self) -> String {
        let mut out = self.render(true);
        out.push_str("# EOF\n");
        out
    }

    fn render(&self, open_metrics: bool) -> String {
        let mut out = String::new();
        for family in self.families.values() {
            let kind = match family.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
                Kind::Summary => "summary",
            };
            // OpenMetrics names a counter's family without the suffix of its samples.
            let stem = if open_metrics && family.kind == Kind::Counter {
                family.name.strip_suffix("_total").unwrap_or(&family.name)
            } else {
                &family.name
            };
            let sample_suffix = if open_metrics && family.kind == Kind::Counter { "_total" } else { "" };
            let help = family.help.replace('\\', "\\\\").replace('\n', "\\n");
            let help = if open_metrics { help.replace('"', "\\\"") } else { help };
            let _ = writeln!(out, "# HELP {stem} {help}\n# TYPE {stem} {kind}");
            let mut metrics: Vec<_> = family.metrics.iter().collect();
            metrics.sort_by(|a, b| a.0.cmp(&b.0));
            for (labels, value) in metrics {
                match value {
                    Value::Number(number) => {
                        let whole = open_metrics && family.kind == Kind::Gauge;
                        push_line(&mut out, stem, sample_suffix, labels, None, *number, whole);
                    }
                    Value::Summary { quantiles, sum, count } => {
                        for (quantile, value) in quantiles {
                            let quantile = Some(("quantile", *quantile, open_metrics));
                            push_line(&mut out, stem, "", labels, quantile, *value, open_metrics);
                        }
                        push_line(&mut out, stem, "_sum", labels, None, *sum, open_metrics);
                        push_line(&mut out, stem, "_count", labels, None, *count as f64, false);
                    }
                    Value::Histogram { buckets, sum, count } => {
                        for (bound, cumulative) in buckets {
                            let bound = Some(("le", *bound, open_metrics));
                            push_line(&mut out, stem, "_bucket", labels, bound, *cumulative as f64, false);
                        }
                        push_line(&mut out, stem, "_sum", labels, None, *sum, open_metrics);
                        push_line(&mut out, stem, "_count", labels, None, *count as f64, false);
                    }
                }
            }
        }
        out
    }
}

fn push_line(
    out: &mut String,
    stem: &str,
    suffix: &str,
    labels: &[Label],
    bound: Option<(&str, f64, bool)>,
    value: f64,
    as_float: bool,
) {
    out.push_str(stem);
    out.push_str(suffix);
    if !labels.is_empty() || bound.is_some() {
        out.push('{');
        for (at, (name, value)) in labels.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let _ = write!(out, "{comma}{name}=\"");
            push_escaped(out, value);
            out.push('"');
        }
        if let Some((name, bound, as_float)) = bound {
            let comma = if labels.is_empty() { "" } else { "," };
            let _ = write!(out, "{comma}{name}=\"");
            push_number(out, bound, as_float);
            out.push('"');
        }
        out.push('}');
    }
    out.push(' ');
    push_number(out, value, as_float);
    out.push('\n');
}

fn push_escaped(out: &mut String, value: &str) {
    let mut rest = value;
    while let Some(at) = rest.find(['\\', '"', '\n']) {
        out.push_str(&rest[..at]);
        out.push_str(match rest.as_bytes()[at] {
            b'\\' => "\\\\",
            b'"' => "\\\"",
            _ => "\\n",
        });
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
}

fn push_number(out: &mut String, value: f64, as_float: bool) {
    if as_float {
        corten_wire::float::push_open_metrics_float(out, value);
    } else if value.is_finite() {
        corten_wire::float::push_go_float(out, value);
    } else {
        out.push_str(if value.is_nan() {
            "NaN"
        } else if value > 0.0 {
            "+Inf"
        } else {
            "-Inf"
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(registry: &Registry, extra: &[(&str, &str)]) -> String {
        let mut snapshot = Snapshot::default();
        registry.gather(extra, &mut snapshot);
        snapshot.to_text()
    }

    #[test]
    fn families_are_written_in_the_text_format() {
        let registry = Registry::new();
        registry.counter("b_total", "Bees.").add(3);
        let gauges = registry.gauges("a", "A \\ and\na line.", &["x"]);
        gauges.with(&["2\"\\\n"]).set(1.5);
        gauges.with(&["1"]).set(f64::INFINITY);
        let histogram = registry.histogram("h_seconds", "H.", &[0.5, 1.0]);
        histogram.observe(0.5);
        histogram.observe(3.0);
        registry.read("r", "R.", Kind::Gauge, &[("k", "v")], || 7.0);
        assert_eq!(
            text(&registry, &[("component_id", "c")]),
            "# HELP a A \\\\ and\\na line.\n# TYPE a gauge\n\
             a{component_id=\"c\",x=\"1\"} +Inf\na{component_id=\"c\",x=\"2\\\"\\\\\\n\"} 1.5\n\
             # HELP b_total Bees.\n# TYPE b_total counter\nb_total{component_id=\"c\"} 3\n\
             # HELP h_seconds H.\n# TYPE h_seconds histogram\n\
             h_seconds_bucket{component_id=\"c\",le=\"0.5\"} 1\nh_seconds_bucket{component_id=\"c\",le=\"1\"} 1\n\
             h_seconds_bucket{component_id=\"c\",le=\"+Inf\"} 2\nh_seconds_sum{component_id=\"c\"} 3.5\n\
             h_seconds_count{component_id=\"c\"} 2\n\
             # HELP r R.\n# TYPE r gauge\nr{component_id=\"c\",k=\"v\"} 7\n"
        );
    }

    #[test]
    fn open_metrics_names_the_family_without_the_suffix_and_ends_with_eof() {
        let registry = Registry::new();
        registry.counter("b_total", "Bees.").add(3);
        registry.gauge("g", "G.").set(2.0);
        let mut snapshot = Snapshot::default();
        registry.gather(&[], &mut snapshot);
        assert_eq!(
            snapshot.to_open_metrics(),
            "# HELP b Bees.\n# TYPE b counter\nb_total 3\n# HELP g G.\n# TYPE g gauge\ng 2.0\n# EOF\n"
        );
    }

    #[test]
    fn collected_metrics_get_the_labels_of_who_gathers_and_go_with_their_collector() {
        struct Custom(&'static str);
        impl Collect for Custom {
            fn collect(&self, into: &mut Snapshot) {
                let labels =
                    |value: &str| vec![("a".to_owned(), value.to_owned()), ("id".to_owned(), "own".to_owned())];
                into.add("custom", self.0, Kind::Gauge, labels("2"), Value::Number(2.0));
                into.add("custom", self.0, Kind::Gauge, labels("1"), Value::Number(1.0));
                into.add("g", "Not a counter.", Kind::Counter, labels("1"), Value::Number(1.0));
            }
        }
        let registry = Registry::new();
        registry.gauge("g", "G.").set(5.0);
        let (first, second) = (Arc::new(Custom("First.")), Arc::new(Custom("Second.")));
        registry.collect(Arc::downgrade(&first) as Weak<dyn Collect>);
        registry.collect(Arc::downgrade(&second) as Weak<dyn Collect>);
        let own = "# HELP g G.\n# TYPE g gauge\ng{id=\"c\"} 5\n";
        let expected = |help: &str| {
            format!(
                "# HELP custom {help}\n# TYPE custom gauge\ncustom{{a=\"1\",id=\"c\"}} 1\n\
                 custom{{a=\"2\",id=\"c\"}} 2\n{own}"
            )
        };
        assert_eq!(text(&registry, &[("id", "c")]), expected("First."));
        drop(first);
        assert_eq!(text(&registry, &[("id", "c")]), expected("Second."));
        drop(second);
        assert_eq!(text(&registry, &[("id", "c")]), own);
    }

    #[test]
    fn a_metric_of_the_same_labels_is_the_same_metric() {
        let registry = Registry::new();
        let counters = registry.counters("c_total", "C.", &["l"]);
        counters.with(&["x"]).inc();
        counters.with(&["x"]).inc();
        assert_eq!(counters.with(&["x"]).get(), 2);
        counters.remove(&["x"]);
        assert_eq!(text(&registry, &[]), "");
    }
}
