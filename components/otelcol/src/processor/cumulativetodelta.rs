//! `otelcol.processor.cumulativetodelta`.

mod points;

use std::time::Duration;

use corten_component::metrics::{Counter, Gauge};
use corten_component::{Context, Error};
use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_config::decode::SignedDuration;
use corten_config::schema::Stability;
use corten_otlp::metrics::{CUMULATIVE, DELTA, Metric, NO_RECORDED_VALUE, Number, Points};
use corten_otlp::{Arena, Batch};
use corten_signal::ledger::Pass;
use corten_signal::regex::GoRegex;
use parking_lot::Mutex;

use self::points::{Dropped, Last};
use super::tracking::{AllKnown, Forgetting, SCOPE_LABELS, Track, Tracker, Tracking, retain_metrics};
use crate::flow::{DebugMetrics, Output};
use crate::identity::Hasher;
use crate::periodic::now_ns;

/// Turns metrics that count since a fixed time into metrics that count since the last point: sums that never go down, and
/// histograms. Others go on as they are.
///
/// The first point of a series has none before it: `initial_value` says what becomes of it. A point that is less than the one
/// before, because its source began anew, is left out; the next one counts from it. One that is less because it is older comes
/// too late, and is left out.
///
/// What is known of series is in memory, and stays over a change of the configuration. The million series whose last points
/// were most recent are known, or fewer, if what is known of them would take more than 256 MiB: histograms take what their
/// ranges take. The log says when series are forgotten for that.
///
/// Batches go one after the other. What is known stays as it is if a batch is not taken for now, so that whoever sends it again
/// loses nothing.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct CumulativeToDeltaArguments {
    /// After how long without a point a series is forgotten; 0 is never.
    #[arg(default = "0s")]
    max_staleness: SignedDuration,
    /// What becomes of the first point of a series: `auto` sends it if it counts since a time after the component started,
    /// `keep` sends it, `drop` does not.
    #[arg(default = "auto")]
    initial_value: String,
    /// Which metrics are turned; if it is not there, all are.
    #[block(optional)]
    include: Match,
    /// Which of those are not.
    #[block(optional)]
    exclude: Match,
    /// Where to send metrics.
    #[block]
    output: Output,
    /// Which metrics of its own the component has.
    #[block(optional)]
    debug_metrics: DebugMetrics,
}

/// Which metrics.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub struct Match {
    /// Names of metrics, or regular expressions.
    #[arg(optional)]
    metrics: Vec<String>,
    /// How names are compared: `strict`, or `regexp`, which may match any part of a name.
    #[arg(optional)]
    match_type: String,
    /// Kinds of metrics: `sum` and `histogram`.
    #[arg(optional)]
    metric_types: Vec<String>,
}

impl CumulativeToDeltaArguments {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        if self.max_staleness.nanoseconds < 0 {
            let given = corten_config::duration::format(self.max_staleness.nanoseconds);
            let message = format!("max_staleness must be a non-negative duration (got {given})");
            errors.push(&["max_staleness"], message);
        }
        errors.require(
            ["auto", "keep", "drop"].contains(&&*self.initial_value),
            &["initial_value"],
            "initial_value must be one of \"auto\", \"keep\", \"drop\"",
        );
        for (field, given) in [("include", &self.include), ("exclude", &self.exclude)] {
            let message = match (given.metrics.is_empty(), &*given.match_type) {
                (false, "") => "match_type must be set if metrics are supplied",
                (true, kind) if !kind.is_empty() => "metrics must be supplied if match_type is set",
                (false, kind) if !["strict", "regexp"].contains(&kind) => {
                    "match_type must be one of \"strict\" and \"regexp\""
                }
                _ if !given.metric_types.iter().all(|kind| ["sum", "histogram"].contains(&&**kind)) => {
                    "metric_types must be one of \"sum\" and \"histogram\""
                }
                _ => continue,
            };
            errors.push(&[field], message);
        }
        errors.into_result()
    }

    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        for (field, given) in [("include", &self.include), ("exclude", &self.exclude)] {
            if let Err(error) = Filter::new(given) {
                errors.push(&[field], error);
            }
        }
        errors.into_result()
    }
}

/// The component.
pub(crate) type CumulativeToDeltaProcessor = Tracking<CumulativeToDelta>;

/// What it is made of.
pub(crate) struct CumulativeToDelta;

impl Tracker for CumulativeToDelta {
    const NAME: &'static str = "otelcol.processor.cumulativetodelta";
    const STABILITY: Stability = Stability::PublicPreview;
    const COUNTS_AS: Option<&'static str> = Some("cumulativetodelta");
    type Arguments = CumulativeToDeltaArguments;
    type State = Known;

    fn output(arguments: &CumulativeToDeltaArguments) -> &Output {
        &arguments.output
    }

    fn state(arguments: &CumulativeToDeltaArguments, cx: &Context<CumulativeToDeltaProcessor>) -> Result<Known, Error> {
        let settings = Settings {
            include: Filter::new(&arguments.include)?,
            exclude: Filter::new(&arguments.exclude)?,
            initial: match &*arguments.initial_value {
                "keep" => Initial::Keep,
                "drop" => Initial::Drop,
                _ => Initial::Auto,
            },
            age_max: Duration::from_nanos(arguments.max_staleness.nanoseconds.max(0).unsigned_abs()),
        };
        let now_ns = now_ns();
        let inner = Inner {
            settings,
            hasher: Hasher::default(),
            series: AllKnown::default(),
            tally: Tally::default(),
            begun_ns: now_ns,
            swept_ns: now_ns,
        };
        let forgetting = Forgetting::new(cx.logger().clone());
        Ok(Known { inner: Mutex::new(inner), metrics: OwnMetrics::new(cx), forgetting })
    }

    fn go_on(known: &Known, other: Known) -> Result<(), Known> {
        known.inner.lock().settings = other.inner.into_inner().settings;
        Ok(())
    }
}

/// The series that are known.
pub(crate) struct Known {
    inner: Mutex<Inner>,
    metrics: OwnMetrics,
    forgetting: Forgetting,
}

struct Inner {
    settings: Settings,
    hasher: Hasher,
    series: AllKnown<Last>,
    /// What became of the points of the last batch.
    tally: Tally,
    /// When the component began.
    begun_ns: u64,
    /// When old series were last looked for.
    swept_ns: u64,
}

struct Settings {
    include: Filter,
    exclude: Filter,
    initial: Initial,
    /// After how long a series is forgotten; 0 is never.
    age_max: Duration,
}

#[derive(Clone, Copy)]
enum Initial {
    Auto,
    Keep,
    Drop,
}

/// Which metrics; none where it says nothing.
struct Filter {
    names: Vec<String>,
    patterns: Vec<GoRegex>,
    sums: bool,
    histograms: bool,
}

impl Filter {
    fn new(given: &Match) -> Result<Self, String> {
        let is_pattern = given.match_type == "regexp";
        let patterns = given.metrics.iter().filter(|_| is_pattern).map(|pattern| GoRegex::new(pattern));
        Ok(Filter {
            names: if is_pattern { Vec::new() } else { given.metrics.clone() },
            patterns: patterns.collect::<Result<_, _>>().map_err(|error| error.to_string())?,
            sums: given.metric_types.iter().any(|kind| kind == "sum"),
            histograms: given.metric_types.iter().any(|kind| kind == "histogram"),
        })
    }

    fn has_names(&self) -> bool {
        !self.names.is_empty() || !self.patterns.is_empty()
    }

    fn has_kinds(&self) -> bool {
        self.sums || self.histograms
    }

    fn is_name(&self, name: &[u8]) -> bool {
        let text = String::from_utf8_lossy(name);
        self.names.iter().any(|known| known.as_bytes() == name)
            || self.patterns.iter().any(|pattern| pattern.is_match(&text))
    }

    fn is_kind(&self, points: &Points) -> bool {
        match points {
            Points::Sum { .. } => self.sums,
            Points::Histogram { .. } => self.histograms,
            _ => false,
        }
    }
}

impl Settings {
    fn converts(&self, arena: &Arena, metric: &Metric) -> bool {
        let name = arena.bytes(metric.name);
        (!self.include.has_names() || self.include.is_name(name))
            && (!self.include.has_kinds() || self.include.is_kind(&metric.points))
            && !(self.exclude.has_names() && self.exclude.is_name(name))
            && !(self.exclude.has_kinds() && self.exclude.is_kind(&metric.points))
    }
}

const KINDS: [&str; 3] = ["sum", "histogram", "exponential_histogram"];
const REASONS: [&str; 3] = ["reset", "initial", "bucket_mismatch"];

/// What the component counts of itself.
struct OwnMetrics {
    converted: [Counter; 3],
    dropped: [[Counter; 3]; 3],
    series: Gauge,
}

impl OwnMetrics {
    fn new(cx: &Context<CumulativeToDeltaProcessor>) -> Self {
        const SCOPE: &str =
            "github.com/open-telemetry/opentelemetry-collector-contrib/processor/cumulativetodeltaprocessor";
        let [name, version, url] = SCOPE_LABELS;
        let registry = cx.metrics();
        let converted = registry.counters(
            "otelcol_cumulativetodelta_datapoints_total",
            "Number of datapoints converted from cumulative to delta temporality.",
            &["metric_type", name, version, url],
        );
        let dropped = registry.counters(
            "otelcol_cumulativetodelta_datapoints_dropped_total",
            "Number of datapoints dropped instead of being converted.",
            &["metric_type", "reason", name, version, url],
        );
        let series = registry.gauges(
            "otelcol_cumulativetodelta_streams_tracked",
            "Number of metric streams currently tracked in memory for cumulative-to-delta conversion.",
            &SCOPE_LABELS,
        );
        OwnMetrics {
            converted: KINDS.map(|kind| converted.with(&[kind, SCOPE, "", ""])),
            dropped: KINDS.map(|kind| REASONS.map(|reason| dropped.with(&[kind, reason, SCOPE, "", ""]))),
            series: series.with(&[SCOPE, "", ""]),
        }
    }
}

/// What became of points, by kind and reason.
#[derive(Debug, Default)]
struct Tally {
    converted: [u64; 3],
    dropped: [[u64; 3]; 3],
    /// Dropped because they say that there is no value.
    no_value: usize,
}

impl Tally {
    /// Counts what became of a point; whether it goes on.
    fn counts(&mut self, kind: usize, outcome: Result<(), Dropped>) -> bool {
        match outcome {
            Ok(()) => self.converted[kind] += 1,
            Err(reason) => self.dropped[kind][reason as usize] += 1,
        }
        outcome.is_ok()
    }

    /// Whether a point with these flags has a value. Without one it is dropped.
    fn has_value(&mut self, flags: u32) -> bool {
        let has_value = flags & NO_RECORDED_VALUE == 0;
        self.no_value += usize::from(!has_value);
        has_value
    }

    /// Tells what is dropped.
    fn tell(&self, pass: &mut Pass<'_>) {
        for (at, reason) in REASONS.into_iter().enumerate() {
            pass.dropped(reason, self.dropped.iter().map(|of_kind| of_kind[at] as usize).sum());
        }
        pass.dropped("no recorded value", self.no_value);
    }
}

impl Track for Known {
    fn track(&self, mut batch: Batch<Metric>, pass: &mut Pass<'_>) -> Batch<Metric> {
        let mut parts = batch.take_data();
        let mut inner = self.inner.lock();
        inner.sweep();
        let Inner { settings, hasher, series, tally, begun_ns, .. } = &mut *inner;
        for data in &mut parts {
            retain_metrics(data, hasher, |hasher, arena, scope, metric| {
                if !settings.converts(arena, metric) {
                    return true;
                }
                let hash = hasher.metric(scope, arena, metric);
                let mut points =
                    Converting { initial: settings.initial, begun_ns: *begun_ns, hasher, series, arena, hash };
                match &mut metric.points {
                    Points::Sum { points: sums, temporality, monotonic: true } if *temporality == CUMULATIVE => {
                        *temporality = DELTA;
                        sums.retain_mut(|point| {
                            let is_number = !matches!(point.value, Number::Double(value) if value.is_nan());
                            if !tally.has_value(point.flags) {
                                return false;
                            }
                            !is_number || tally.counts(0, points.convert(point))
                        });
                        !sums.is_empty()
                    }
                    Points::Histogram { points: histograms, temporality } if *temporality == CUMULATIVE => {
                        if histograms.is_empty() {
                            return true;
                        }
                        *temporality = DELTA;
                        histograms
                            .retain_mut(|point| tally.has_value(point.flags) && tally.counts(1, points.convert(point)));
                        !histograms.is_empty()
                    }
                    Points::Exponential { points: histograms, temporality } if *temporality == CUMULATIVE => {
                        if histograms.is_empty() {
                            return true;
                        }
                        *temporality = DELTA;
                        histograms
                            .retain_mut(|point| tally.has_value(point.flags) && tally.counts(2, points.convert(point)));
                        !histograms.is_empty()
                    }
                    _ => true,
                }
            });
        }
        inner.tally.tell(pass);
        let forgotten = inner.series.make_room();
        self.forgetting.say(forgotten, &inner.series);
        drop(inner);
        batch.with(parts)
    }

    fn series(&self) -> usize {
        self.inner.lock().series.len()
    }

    fn settle(&self, taken: bool) {
        let mut inner = self.inner.lock();
        inner.series.settle(taken);
        let tally = std::mem::take(&mut inner.tally);
        self.metrics.series.set(inner.series.len() as f64);
        drop(inner);
        if taken {
            let counters = self.metrics.converted.iter().chain(self.metrics.dropped.as_flattened());
            let counts = tally.converted.iter().chain(tally.dropped.as_flattened());
            counters.zip(counts).for_each(|(counter, count)| counter.add(*count));
        }
    }
}

impl Inner {
    /// Forgets series whose last point is old.
    fn sweep(&mut self) {
        let age_max_ns = u64::try_from(self.settings.age_max.as_nanos()).unwrap_or(u64::MAX);
        let now_ns = now_ns();
        if age_max_ns > 0 && now_ns.saturating_sub(self.swept_ns) >= age_max_ns {
            self.swept_ns = now_ns;
            let stale_before = now_ns.saturating_sub(age_max_ns);
            self.series.retain(|last| last.time_ns() >= stale_before);
        }
    }
}

/// What converting the points of a metric needs.
struct Converting<'a> {
    initial: Initial,
    begun_ns: u64,
    hasher: &'a mut Hasher,
    series: &'a mut AllKnown<Last>,
    arena: &'a Arena,
    hash: u128,
}

impl Converting<'_> {
    /// Turns a point into what came since the one before.
    fn convert<P: points::Cumulative>(&mut self, point: &mut P) -> Result<(), Dropped> {
        let attributes = self.hasher.attributes(self.arena, point.attributes());
        let (start_ns, time_ns) = point.times();
        self.hasher.hash(self.hash);
        self.hasher.hash(attributes);
        self.hasher.number(point.tells_apart());
        // What counts since another time is another series.
        self.hasher.number(start_ns);
        let hash = self.hasher.finish();
        if let Some(outcome) = self.series.change(hash, |last| point.since(last)) {
            return outcome;
        }
        self.series.insert(hash, point.last());
        let (sent, start_ns) = match self.initial {
            Initial::Auto => (start_ns >= self.begun_ns && time_ns != start_ns, start_ns),
            Initial::Keep => (true, 0),
            Initial::Drop => (false, 0),
        };
        point.begin(start_ns);
        if sent { Ok(()) } else { Err(Dropped::Initial) }
    }
}

#[cfg(test)]
mod tests {
    use corten_signal::ConsumeError;
    use corten_testkit::{OtlpSink, Unit, otlp};

    use super::*;
    use crate::testing::{self, Compared, arrived, busy, start, with_output};

    #[tokio::test(start_paused = true)]
    async fn points_are_those_of_the_reference() {
        testing::replay::<CumulativeToDeltaProcessor>(
            include_str!("../../tests/data/processor_cumulativetodelta.json"),
            Compared::Whole,
        )
        .await;
    }

    #[tokio::test]
    async fn what_contradicts_itself_is_refused() {
        for (body, want) in [
            ("max_staleness = \"-1s\"", "max_staleness must be a non-negative duration (got -1s)"),
            ("initial_value = \"other\"", "initial_value must be one of \"auto\", \"keep\", \"drop\""),
            ("include {\n metrics = [\"a\"]\n}", "match_type must be set if metrics are supplied"),
            ("exclude {\n match_type = \"strict\"\n}", "metrics must be supplied if match_type is set"),
            (
                "include {\n metrics = [\"a\"]\n match_type = \"glob\"\n}",
                "match_type must be one of \"strict\" and \"regexp\"",
            ),
            ("exclude {\n metric_types = [\"gauge\"]\n}", "metric_types must be one of \"sum\" and \"histogram\""),
            ("include {\n metrics = [\"(\"]\n match_type = \"regexp\"\n}", "missing closing )"),
        ] {
            let error = start::<CumulativeToDeltaProcessor>(&OtlpSink::default(), body).await.unwrap_err();
            assert!(error.contains(want), "{body}: {error}");
        }
    }

    /// Sends a point of a sum of this series.
    async fn send(unit: &Unit, series: u32, value: i64, start_ns: u64, time_ns: u64) -> Result<(), ConsumeError> {
        testing::send(unit, testing::sum(CUMULATIVE, series, value, start_ns, time_ns)).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_histogram_that_began_anew_counts_from_there() {
        let sink = OtlpSink::default();
        let unit = start::<CumulativeToDeltaProcessor>(&sink, "initial_value = \"drop\"").await.unwrap();
        for (time, counts) in [(1, [9, 9]), (2, [1, 2]), (3, [2, 4])] {
            let json = format!(
                r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"h","histogram":{{"aggregationTemporality":2,
                "dataPoints":[{{"timeUnixNano":"{time}","count":"{}","explicitBounds":[1],
                "bucketCounts":["{}","{}"]}}]}}}}]}}]}}]}}"#,
                counts[0] + counts[1],
                counts[0],
                counts[1]
            );
            unit.world.consumer("input").metrics.consume(otlp::<Metric>(&json)).await.unwrap();
        }
        let batches = sink.batches();
        assert_eq!(batches.len(), 1);
        let json: serde_json::Value = serde_json::from_str(&batches[0].json).unwrap();
        let point = &json["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0]["histogram"]["dataPoints"][0];
        assert_eq!((&point["startTimeUnixNano"], &point["count"]), (&"2".into(), &"3".into()));
        assert_eq!(point["bucketCounts"], serde_json::json!(["1", "2"]));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_known_stays_over_a_change_and_is_counted() {
        let sink = OtlpSink::default();
        let mut unit = start::<CumulativeToDeltaProcessor>(&sink, "").await.unwrap();
        send(&unit, 1, 5, 0, 1).await.unwrap();
        unit.update(&with_output("initial_value = \"keep\"")).await.unwrap();
        send(&unit, 1, 7, 0, 2).await.unwrap();
        send(&unit, 1, 1, 0, 3).await.unwrap();
        send(&unit, 2, 9, 5, 6).await.unwrap();
        assert_eq!(arrived(&sink), [(1, 2, 2), (0, 6, 9)]);
        let scope = "github.com/open-telemetry/opentelemetry-collector-contrib/processor/cumulativetodeltaprocessor";
        let labels = |own: &[(&'static str, &'static str)]| {
            let scope = [("otel_scope_name", scope), ("otel_scope_version", ""), ("otel_scope_schema_url", "")];
            own.iter().copied().chain(scope).collect::<Vec<_>>()
        };
        let metrics = unit.world.metrics();
        let sums = labels(&[("metric_type", "sum")]);
        assert_eq!(metrics.get("otelcol_cumulativetodelta_datapoints_total", &sums), Some(2.0));
        for reason in ["initial", "reset"] {
            let dropped = labels(&[("metric_type", "sum"), ("reason", reason)]);
            assert_eq!(metrics.get("otelcol_cumulativetodelta_datapoints_dropped_total", &dropped), Some(1.0));
        }
        assert_eq!(metrics.get("otelcol_cumulativetodelta_streams_tracked", &labels(&[])), Some(2.0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_taken_for_now_comes_to_the_same_when_it_is_sent_again() {
        let sink = OtlpSink::default();
        let unit = start::<CumulativeToDeltaProcessor>(&sink, "").await.unwrap();
        send(&unit, 1, 5, 0, 1).await.unwrap();
        for error in [busy(), Some(ConsumeError::Exited { component: "gone".into() })] {
            sink.answer_with(error.clone());
            assert_eq!(send(&unit, 1, 7, 0, 2).await, Err(error.unwrap()));
        }
        sink.answer_with(None);
        assert_eq!(send(&unit, 1, 7, 0, 2).await, Ok(()));
        assert_eq!(arrived(&sink), [(1, 2, 2)]);
        // What is refused for good does not come again.
        sink.answer_with(Some(ConsumeError::Refused { reason: "never".into() }));
        assert!(send(&unit, 1, 17, 0, 3).await.is_err());
        sink.answer_with(None);
        send(&unit, 1, 18, 0, 4).await.unwrap();
        assert_eq!(arrived(&sink)[1..], [(3, 4, 1)]);
        let labels = [
            ("metric_type", "sum"),
            (
                "otel_scope_name",
                "github.com/open-telemetry/opentelemetry-collector-contrib/processor/cumulativetodeltaprocessor",
            ),
            ("otel_scope_version", ""),
            ("otel_scope_schema_url", ""),
        ];
        // Points are counted once.
        assert_eq!(unit.world.metrics().get("otelcol_cumulativetodelta_datapoints_total", &labels), Some(3.0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_point_that_comes_too_late_is_left_out_and_nothing_is_counted_twice() {
        let sink = OtlpSink::default();
        let unit = start::<CumulativeToDeltaProcessor>(&sink, "initial_value = \"keep\"").await.unwrap();
        for (value, time) in [(5, 10), (9, 30), (7, 20), (11, 40), (2, 50), (3, 60)] {
            send(&unit, 1, value, 1, time).await.unwrap();
        }
        assert_eq!(arrived(&sink), [(0, 10, 5), (10, 30, 4), (30, 40, 2), (50, 60, 1)]);
        for (count, time) in [(5, 10), (9, 30), (7, 20), (11, 40)] {
            let histogram = format!(
                r#"{{"timeUnixNano":"{time}","count":"{count}","explicitBounds":[],"bucketCounts":["{count}"]}}"#
            );
            testing::send(&unit, testing::metric("h", "histogram", CUMULATIVE, &histogram)).await.unwrap();
            let exponential =
                format!(r#"{{"timeUnixNano":"{time}","count":"{count}","positive":{{"bucketCounts":["{count}"]}}}}"#);
            testing::send(&unit, testing::metric("e", "exponentialHistogram", CUMULATIVE, &exponential)).await.unwrap();
        }
        let counts: Vec<_> = testing::points(&sink)[4..].iter().map(|point| point["count"].clone()).collect();
        assert_eq!(counts, ["5", "5", "4", "4", "2", "2"]);
    }

    #[tokio::test(start_paused = true)]
    async fn hostile_points_do_no_harm() {
        let sink = OtlpSink::default();
        let unit = start::<CumulativeToDeltaProcessor>(&sink, "initial_value = \"keep\"").await.unwrap();
        let ends = [i32::MIN, -1, 0, 1, i32::MAX];
        let mut time = 0;
        for (scale, offset) in ends.into_iter().flat_map(|scale| ends.map(|offset| (scale, offset))) {
            for zero in ["0", "5e-324", "1e-10", "2", "1e308", "\"Infinity\"", "\"NaN\"", "-1"] {
                time += 1;
                let times = format!(r#""timeUnixNano":"{time}","startTimeUnixNano":"{}""#, u64::MAX);
                let json = format!(
                    r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"e{scale}:{offset}","exponentialHistogram":{{
                    "aggregationTemporality":2,"dataPoints":[{{{times},"scale":{scale},
                    "count":"18446744073709551615","zeroThreshold":{zero},"zeroCount":"18446744073709551615",
                    "positive":{{"offset":{offset},"bucketCounts":["1","18446744073709551615"]}},
                    "negative":{{"offset":0,"bucketCounts":["1"]}}}}]}}}},
                    {{"name":"h","histogram":{{"aggregationTemporality":2,"dataPoints":[{{{times},
                    "count":"{time}","sum":{zero},"explicitBounds":["NaN",{zero}],"bucketCounts":["{time}"]}}]}}}},
                    {{"name":"s","sum":{{"aggregationTemporality":2,"isMonotonic":true,"dataPoints":[{{{times},
                    "asInt":"{}"}}]}}}}]}}]}}]}}"#,
                    if time % 2 == 0 { i64::MIN } else { i64::MAX }
                );
                unit.world.consumer("input").metrics.consume(otlp::<Metric>(&json)).await.unwrap();
            }
        }
        assert!(sink.items() > 0);
    }
}
