//! Families of series, and the points of a metric that a family becomes.

use std::collections::HashMap;

use corten_otlp::metrics::{
    Buckets, CUMULATIVE, Exemplar, ExponentialPoint, HistogramPoint, Metric, NO_RECORDED_VALUE, Number, NumberPoint,
    Points, SummaryPoint,
};
use corten_otlp::{Arena, Map, Value};
use corten_signal::Labels;
use corten_signal::labels::METRIC_NAME;
use corten_signal::metrics::{
    self as prometheus, CUSTOM_BUCKETS_SCHEMA, Histogram, HistogramCounts, Metadata, MetricType, is_stale,
};

use crate::translate::units::ucum;

/// The most buckets that a native histogram is written out in.
const BUCKETS_MAX: usize = 1 << 16;
/// The most empty buckets between others that the native histograms of a batch are written out with. A few bytes can say
/// that there are thousands of them.
pub(super) const GAPS_MAX: usize = 4 << 20;

/// Ends of names that belong to a family of another name.
const ENDS: [&str; 6] = ["_bucket", "_count", "_sum", "_total", "_info", "_created"];

/// The name without an end that belongs to a family of another name.
pub(super) fn stem(name: &str) -> &str {
    let stem = ENDS.iter().find_map(|end| name.strip_suffix(end).filter(|stem| !stem.is_empty()));
    stem.unwrap_or(name)
}

/// What is known of a family, for those that make it.
pub(super) struct Known<'a> {
    /// The name of the metric that it becomes.
    pub(super) name: String,
    pub(super) metadata: std::borrow::Cow<'a, Metadata>,
}

/// What becomes of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Gauge,
    Sum {
        monotonic: bool,
    },
    Histogram,
    Exponential,
    Summary,
    /// There is nothing that it could become: its series are gauges.
    Unknown,
}

impl Kind {
    fn of(metric_type: MetricType, exponential: bool) -> Self {
        match metric_type {
            MetricType::Counter => Kind::Sum { monotonic: true },
            MetricType::Gauge | MetricType::Unknown => Kind::Gauge,
            MetricType::Histogram if exponential => Kind::Exponential,
            MetricType::Histogram => Kind::Histogram,
            MetricType::Summary => Kind::Summary,
            MetricType::Info | MetricType::StateSet => Kind::Sum { monotonic: false },
            MetricType::GaugeHistogram => Kind::Unknown,
        }
    }

    /// The label that tells the series of one point from each other.
    fn inner_label(self) -> &'static str {
        match self {
            Kind::Histogram => "le",
            Kind::Summary => "quantile",
            _ => "",
        }
    }
}

/// Labels that do not become attributes of points: they are said elsewhere.
const ELSEWHERE: [&str; 8] = [
    METRIC_NAME,
    "__metrics_path__",
    "__scheme__",
    "instance",
    "job",
    "otel_scope_name",
    "otel_scope_schema_url",
    "otel_scope_version",
];

/// A family of series.
pub(super) struct Family<'a> {
    name: String,
    metadata: std::borrow::Cow<'a, Metadata>,
    kind: Kind,
    /// Whether a series has a point for each of its times. Otherwise all of its samples are of one time.
    many_times: bool,
    places: HashMap<u128, usize>,
    groups: Vec<Group<'a>>,
}

/// The series of one point.
struct Group<'a> {
    labels: Labels<'a>,
    /// How many samples it is made of, with exemplars.
    samples: usize,
    time_ms: i64,
    /// When it began to count, in seconds since the Unix epoch; 0 if that is not known.
    created_s: f64,
    /// Whether nothing but zeros was counted so far.
    only_zeros: bool,
    value: f64,
    count: Option<f64>,
    sum: Option<f64>,
    /// Bounds or quantiles, and their values.
    inner: Vec<(f64, f64)>,
    histogram: Option<&'a Histogram>,
    exemplars: Vec<&'a prometheus::Exemplar>,
}

/// What is needed to write points.
pub(super) struct Writer<'w> {
    pub(super) arena: &'w mut Arena,
    /// The names of labels that were written.
    pub(super) names: HashMap<String, corten_otlp::Text>,
    pub(super) gaps: &'w mut Gaps,
}

/// What is written between buckets, and what becomes of samples.
#[derive(Default)]
pub(super) struct Gaps {
    /// How many empty buckets may still be written.
    pub(super) left: usize,
    /// How many histograms were left out because of them.
    pub(super) left_out: usize,
    /// How many samples these have with their exemplars.
    pub(super) left_out_samples: usize,
    /// How many samples belong to points that cannot be made, because others are missing.
    pub(super) incomplete: usize,
    /// How many samples are in points.
    pub(super) samples: usize,
}

impl<'a> Family<'a> {
    /// A family; `native` says whether it holds native histograms, `own_bounds` whether these have bounds of their own, and
    /// `many_times` whether there can be several points of a series, as there can where nobody scraped them.
    pub(super) fn new(known: Known<'a>, native: bool, own_bounds: bool, many_times: bool) -> Self {
        let Known { name, mut metadata } = known;
        if native && metadata.metric_type != MetricType::Histogram {
            // They say themselves what they are.
            metadata.to_mut().metric_type = MetricType::Histogram;
        }
        let kind = Kind::of(metadata.metric_type, native && !own_bounds);
        Family { name, metadata, kind, many_times, places: HashMap::new(), groups: Vec::new() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Forgets its series; how many samples these had.
    pub(super) fn clear(&mut self) -> usize {
        self.places.clear();
        self.groups.drain(..).map(|group| group.samples).sum()
    }

    /// Whether a series of this name belongs to it.
    pub(super) fn includes(&self, name: &str) -> bool {
        if self.kind == Kind::Gauge { name == self.name } else { stem(name) == self.name }
    }

    /// The label that tells the series of one point from each other; empty if there is none.
    pub(super) fn inner_label(&self) -> &'static str {
        self.kind.inner_label()
    }

    /// The group of series that are the same but for the inner label, whose hash this is.
    fn group(&mut self, hash: u128, labels: Labels<'a>, time_ms: i64) -> &mut Group<'a> {
        let Family { kind, many_times, places, groups, .. } = self;
        let is_gauge = matches!(kind, Kind::Gauge | Kind::Unknown);
        // Zeros may say no more than when it began to count.
        let is_other = |place: &usize| groups[*place].time_ms != time_ms && (is_gauge || !groups[*place].only_zeros);
        if *many_times && places.get(&hash).is_some_and(is_other) {
            places.remove(&hash);
        }
        let place = *places.entry(hash).or_insert_with(|| {
            groups.push(Group {
                labels,
                samples: 0,
                time_ms,
                created_s: 0.0,
                only_zeros: true,
                value: 0.0,
                count: None,
                sum: None,
                inner: Vec::new(),
                histogram: None,
                exemplars: Vec::new(),
            });
            groups.len() - 1
        });
        &mut groups[place]
    }

    /// Adds a sample of a series.
    ///
    /// # Errors
    ///
    /// Why it cannot be a part of the family.
    pub(super) fn add(
        &mut self,
        hash: u128,
        name: &str,
        labels: Labels<'a>,
        time_ms: i64,
        value: f64,
    ) -> Result<(), String> {
        let kind = self.kind;
        let created = name.strip_suffix("_created") == Some(&self.metadata.family);
        let group = self.group(hash, labels, time_ms);
        let counts = !matches!(kind, Kind::Gauge | Kind::Unknown);
        if counts && group.is_start(time_ms, value) {
            group.samples += 1;
            return Ok(());
        }
        if group.time_ms != time_ms {
            return Err(inconsistent(name));
        }
        group.only_zeros &= value == 0.0;
        match kind {
            Kind::Histogram | Kind::Summary => {
                if name.ends_with("_sum") {
                    group.sum = Some(value);
                } else if name.ends_with("_count") {
                    group.count = Some(value);
                } else if created {
                    group.created_s = value;
                } else {
                    let bound = labels.get(kind.inner_label()).unwrap_or_default();
                    if bound.is_empty() {
                        return Err(match kind {
                            Kind::Histogram => "'le' label on histogram metric is missing or empty".to_owned(),
                            _ => "'quantile' label on summary metric is missing or empty".to_owned(),
                        });
                    }
                    let bound =
                        bound.parse().map_err(|_| format!("strconv.ParseFloat: parsing {bound:?}: invalid syntax"))?;
                    group.inner.push((bound, value));
                }
            }
            Kind::Exponential | Kind::Sum { .. } if created => group.created_s = value,
            Kind::Exponential => {}
            Kind::Sum { .. } | Kind::Gauge | Kind::Unknown => group.value = value,
        }
        group.samples += 1;
        Ok(())
    }

    /// Adds a native histogram.
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add).
    pub(super) fn add_histogram(
        &mut self,
        hash: u128,
        name: &str,
        labels: Labels<'a>,
        time_ms: i64,
        histogram: &'a Histogram,
    ) -> Result<(), String> {
        let kind = self.kind;
        let (count, what) = match &histogram.counts {
            HistogramCounts::Int { count, .. } => (*count as f64, "integer"),
            HistogramCounts::Float { count, .. } => (*count, "float"),
        };
        let group = self.group(hash, labels, time_ms);
        if group.is_start(time_ms, count) {
            group.samples += 1;
            return Ok(());
        }
        if group.time_ms != time_ms {
            return Err(inconsistent(name));
        }
        group.only_zeros &= count == 0.0;
        let own_bounds = histogram.schema == CUSTOM_BUCKETS_SCHEMA;
        if (kind, own_bounds) != (Kind::Histogram, true) && (kind, own_bounds) != (Kind::Exponential, false) {
            return Err(format!("metric type mismatch for native histogram metric {name}"));
        }
        let is_float = |histogram: &Histogram| matches!(histogram.counts, HistogramCounts::Float { .. });
        if group.histogram.is_some_and(|before| is_float(before) != is_float(histogram)) {
            return Err(format!("exponential histogram {name} already has {what} counts"));
        }
        group.count = Some(count);
        group.sum = Some(histogram.sum);
        group.histogram = Some(histogram);
        group.samples += 1;
        Ok(())
    }

    /// Adds the marker that says that a native histogram has ended; whether there is a place for it.
    pub(super) fn add_stale_histogram(&mut self, hash: u128, labels: Labels<'a>, time_ms: i64, marker: f64) -> bool {
        let group = self.group(hash, labels, time_ms);
        let is_now = group.time_ms == time_ms;
        if is_now {
            group.only_zeros = false;
            group.count.get_or_insert(0.0);
            group.sum = Some(marker);
            group.samples += 1;
        }
        is_now
    }

    /// Adds an exemplar to a series that is there; whether it is.
    pub(super) fn add_exemplar(&mut self, hash: u128, exemplar: &'a prometheus::Exemplar) -> bool {
        let Some(place) = self.places.get(&hash) else { return false };
        self.groups[*place].exemplars.push(exemplar);
        self.groups[*place].samples += 1;
        true
    }

    /// The metric; nothing if it has no points.
    pub(super) fn metric(&self, writer: &mut Writer<'_>) -> Option<Metric> {
        let points = match self.kind {
            Kind::Gauge | Kind::Unknown => Points::Gauge(self.groups.iter().map(|g| self.number(g, writer)).collect()),
            Kind::Sum { monotonic } => Points::Sum {
                points: self.groups.iter().map(|group| self.number(group, writer)).collect(),
                temporality: CUMULATIVE,
                monotonic,
            },
            Kind::Histogram => Points::Histogram { points: self.points(writer, histogram), temporality: CUMULATIVE },
            Kind::Exponential => {
                Points::Exponential { points: self.points(writer, exponential), temporality: CUMULATIVE }
            }
            Kind::Summary => Points::Summary(self.points(writer, summary)),
        };
        if points.is_empty() {
            return None;
        }
        let arena = &mut *writer.arena;
        let mut metadata = Map::default();
        let type_name = arena.own_str(match self.metadata.metric_type {
            MetricType::Unknown => "unknown",
            MetricType::Counter => "counter",
            MetricType::Gauge => "gauge",
            MetricType::Histogram => "histogram",
            MetricType::GaugeHistogram => "gaugehistogram",
            MetricType::Summary => "summary",
            MetricType::Info => "info",
            MetricType::StateSet => "stateset",
        });
        arena.put(&mut metadata, b"prometheus.type", type_name);
        Some(Metric {
            name: arena.own(self.name.as_bytes()),
            description: arena.own(self.metadata.help.as_bytes()),
            unit: arena.own(ucum(&self.metadata.unit).as_bytes()),
            metadata,
            points,
        })
    }

    /// The points of those groups that one can be made of.
    fn points<P>(&self, writer: &mut Writer<'_>, point: fn(&Group<'_>, &mut Writer<'_>) -> Option<P>) -> Vec<P> {
        let mut of = |group: &Group<'_>| {
            let left_out = writer.gaps.left_out;
            let made = point(group, writer);
            let samples = match made {
                Some(_) => &mut writer.gaps.samples,
                None if writer.gaps.left_out == left_out => &mut writer.gaps.incomplete,
                None => &mut writer.gaps.left_out_samples,
            };
            *samples += group.samples;
            made
        };
        self.groups.iter().filter_map(&mut of).collect()
    }

    fn number(&self, group: &Group<'_>, writer: &mut Writer<'_>) -> NumberPoint {
        let stale = is_stale(group.value);
        writer.gaps.samples += group.samples;
        NumberPoint {
            attributes: writer.attributes(group.labels, ""),
            // What goes up and down never began.
            start_time_ns: if matches!(self.kind, Kind::Sum { .. }) { group.start_ns() } else { 0 },
            time_ns: ms_to_ns(group.time_ms),
            value: if stale { Number::None } else { Number::Double(group.value) },
            exemplars: writer.exemplars(&group.exemplars),
            flags: flags(stale),
        }
    }
}

fn inconsistent(name: &str) -> String {
    format!("inconsistent timestamps on metric points for metric {name}")
}

impl Group<'_> {
    /// Whether a sample says no more than when the group began to count: it is zero and older than the others.
    fn is_start(&mut self, time_ms: i64, value: f64) -> bool {
        if time_ms > self.time_ms && self.only_zeros {
            // So far there were only such samples.
            self.created_s = self.time_ms as f64 / 1000.0;
            self.time_ms = time_ms;
            (self.value, self.count, self.sum, self.histogram) = (0.0, None, None, None);
            self.inner.clear();
            return false;
        }
        time_ms < self.time_ms && value == 0.0 && self.created_s == time_ms as f64 / 1000.0
    }

    fn start_ns(&self) -> u64 {
        let seconds = self.created_s as i64;
        let nanos = ((self.created_s - seconds as f64) * 1e9) as i64;
        seconds.wrapping_mul(1_000_000_000).wrapping_add(nanos) as u64
    }

    fn is_stale(&self) -> bool {
        self.sum.is_some_and(is_stale) || self.count.is_some_and(is_stale)
    }

    /// Bounds or quantiles in order.
    fn sorted(&self) -> Vec<(f64, f64)> {
        let mut inner = self.inner.clone();
        inner.sort_by(|a, b| a.0.total_cmp(&b.0));
        inner
    }
}

fn ms_to_ns(ms: i64) -> u64 {
    ms.wrapping_mul(1_000_000) as u64
}

fn flags(stale: bool) -> u32 {
    if stale { NO_RECORDED_VALUE } else { 0 }
}

fn histogram(group: &Group<'_>, writer: &mut Writer<'_>) -> Option<HistogramPoint> {
    let count = group.count?;
    let stale = group.is_stale();
    let (explicit_bounds, bucket_counts) = match group.histogram {
        Some(native) if native.custom_values.is_empty() => return None,
        Some(native) => (native.custom_values.clone(), counts_by_bounds(native)),
        None => classic_counts(&group.sorted(), count, stale),
    };
    Some(HistogramPoint {
        attributes: writer.attributes(group.labels, "le"),
        start_time_ns: group.start_ns(),
        time_ns: ms_to_ns(group.time_ms),
        count: if stale { 0 } else { count as u64 },
        sum: group.sum.filter(|_| !stale),
        bucket_counts,
        explicit_bounds,
        exemplars: writer.exemplars(&group.exemplars),
        flags: flags(stale),
        ..HistogramPoint::default()
    })
}

/// Bounds without the infinite one, and how many values lie between them, of how many lie below them.
fn classic_counts(up_to: &[(f64, f64)], count: f64, stale: bool) -> (Vec<f64>, Vec<u64>) {
    let up_to = match up_to.split_last() {
        Some(((f64::INFINITY, _), finite)) => finite,
        _ => up_to,
    };
    let mut before = 0.0;
    let counts = up_to.iter().map(|(_, value)| *value).chain([count]).map(|value| {
        let between = value - before;
        before = value;
        // The markers of series that have ended are no counts.
        if stale { 0 } else { between as u64 }
    });
    let counts = counts.collect();
    (up_to.iter().map(|(bound, _)| *bound).collect(), counts)
}

/// How many values lie between the bounds of a native histogram that has its own.
fn counts_by_bounds(native: &Histogram) -> Vec<u64> {
    let mut counts = vec![0; native.custom_values.len() + 1];
    let mut at = 0i64;
    let mut values = counts_of(native, true);
    for span in &native.positive_spans {
        at += i64::from(span.offset);
        for _ in 0..span.length {
            let slot = usize::try_from(at).ok().and_then(|at| counts.get_mut(at));
            let (Some(value), true) = (values.next(), at < native.custom_values.len() as i64 + 1) else {
                return counts;
            };
            if let Some(slot) = slot {
                *slot = value;
            }
            at += 1;
        }
    }
    counts
}

/// The counts of the buckets above zero, or below.
fn counts_of(histogram: &Histogram, positive: bool) -> Box<dyn Iterator<Item = u64> + '_> {
    match &histogram.counts {
        HistogramCounts::Int { positive_deltas, negative_deltas, .. } => {
            let mut count = 0i64;
            let deltas = if positive { positive_deltas } else { negative_deltas };
            Box::new(deltas.iter().map(move |delta| {
                count = count.wrapping_add(*delta);
                count as u64
            }))
        }
        HistogramCounts::Float { positive_counts, negative_counts, .. } => {
            let counts = if positive { positive_counts } else { negative_counts };
            Box::new(counts.iter().map(|count| *count as u64))
        }
    }
}

fn exponential(group: &Group<'_>, writer: &mut Writer<'_>) -> Option<ExponentialPoint> {
    group.count?;
    let mut point = ExponentialPoint {
        attributes: writer.attributes(group.labels, "le"),
        start_time_ns: group.start_ns(),
        time_ns: ms_to_ns(group.time_ms),
        exemplars: writer.exemplars(&group.exemplars),
        ..ExponentialPoint::default()
    };
    match group.histogram.filter(|_| !group.is_stale()) {
        None => point.flags = NO_RECORDED_VALUE,
        Some(native) => {
            (point.count, point.zero_count) = match &native.counts {
                HistogramCounts::Int { count, zero_count, .. } => (*count, *zero_count),
                HistogramCounts::Float { count, zero_count, .. } => (*count as u64, *zero_count as u64),
            };
            point.scale = native.schema;
            point.sum = Some(native.sum);
            point.zero_threshold = native.zero_threshold;
            let positive = buckets(&native.positive_spans, counts_of(native, true), writer.gaps);
            let negative = buckets(&native.negative_spans, counts_of(native, false), writer.gaps);
            let (Some(positive), Some(negative)) = (positive, negative) else {
                writer.gaps.left_out += 1;
                return None;
            };
            (point.positive, point.negative) = (positive, negative);
        }
    }
    Some(point)
}

/// Runs of buckets with what lies between them; nothing if that is too many.
fn buckets(spans: &[prometheus::Span], mut values: impl Iterator<Item = u64>, gaps: &mut Gaps) -> Option<Buckets> {
    let Some(first) = spans.first() else { return Some(Buckets::default()) };
    // OpenTelemetry counts from where buckets begin, Prometheus from where they end.
    let mut buckets = Buckets { offset: first.offset.wrapping_sub(1), counts: Vec::new() };
    for (at, span) in spans.iter().enumerate() {
        let gap = if at == 0 { 0 } else { usize::try_from(span.offset).unwrap_or(0) };
        if gap + span.length as usize + buckets.counts.len() > BUCKETS_MAX {
            return None;
        }
        gaps.left = gaps.left.checked_sub(gap)?;
        buckets.counts.resize(buckets.counts.len() + gap, 0);
        buckets.counts.extend(values.by_ref().take(span.length as usize));
    }
    Some(buckets)
}

fn summary(group: &Group<'_>, writer: &mut Writer<'_>) -> Option<SummaryPoint> {
    let count = group.count?;
    let stale = group.is_stale();
    let quantiles = group.sorted().into_iter().map(|(quantile, value)| (quantile, if stale { 0.0 } else { value }));
    Some(SummaryPoint {
        attributes: writer.attributes(group.labels, "quantile"),
        start_time_ns: group.start_ns(),
        time_ns: ms_to_ns(group.time_ms),
        count: if stale { 0 } else { count as u64 },
        sum: group.sum.filter(|_| !stale).unwrap_or(0.0),
        quantiles: quantiles.collect(),
        flags: flags(stale),
    })
}

impl Writer<'_> {
    /// Labels as attributes, but for those that are said elsewhere.
    fn attributes(&mut self, labels: Labels<'_>, inner: &str) -> Map {
        let mut map = Map::default();
        for (name, value) in labels.iter() {
            if name != inner && !ELSEWHERE.contains(&name) && !value.is_empty() {
                self.push(&mut map, name, value);
            }
        }
        map
    }

    fn push(&mut self, map: &mut Map, name: &str, value: &str) {
        let name = match self.names.get(name) {
            Some(known) => *known,
            None => {
                let text = self.arena.own(name.as_bytes());
                self.names.insert(name.to_owned(), text);
                text
            }
        };
        let value: Value = self.arena.own_str(value);
        self.arena.push(map, name, value);
    }

    fn exemplars(&mut self, exemplars: &[&prometheus::Exemplar]) -> Vec<Exemplar> {
        exemplars.iter().map(|exemplar| self.exemplar(exemplar)).collect()
    }

    fn exemplar(&mut self, exemplar: &prometheus::Exemplar) -> Exemplar {
        let mut made = Exemplar {
            time_ns: ms_to_ns(exemplar.timestamp_ms),
            value: Number::Double(exemplar.value),
            ..Exemplar::default()
        };
        let mut attributes = Map::default();
        for (name, value) in &exemplar.labels {
            let read = if name.eq_ignore_ascii_case("trace_id") {
                read_id(value).map(|id| made.trace_id = id)
            } else if name.eq_ignore_ascii_case("span_id") {
                read_id(value).map(|id| made.span_id = id)
            } else {
                None
            };
            if read.is_none() {
                self.push(&mut attributes, name, value);
            }
        }
        made.filtered_attributes = attributes;
        made
    }
}

/// Reads an id. One that is too short gets zeros before it, and one that is too long is cut.
fn read_id<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    let digits = &digits[..digits.len().min(2 * N)];
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let mut id = [0; N];
    let start = N - digits.len() / 2;
    for (byte, pair) in id[start..].iter_mut().zip(digits.chunks(2)) {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(id)
}
