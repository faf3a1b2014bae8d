//! `otelcol.processor.metric_start_time`.

mod series;

use std::sync::LazyLock;
use std::time::Duration;

use corten_component::{Context, Error, Logger};
use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_config::decode::SignedDuration;
use corten_config::schema::Stability;
use corten_otlp::metrics::{CUMULATIVE, Metric, NumberPoint, Points};
use corten_otlp::{Arena, Batch, Data};
use corten_signal::ledger::Pass;
use corten_signal::regex::GoRegex;
use parking_lot::Mutex;
use tokio::time::Instant;

use self::series::{Counting, Series};
use super::tracking::{self, AllKnown, Forgetting, Track, Tracker, Tracking, retain_metrics};
use crate::flow::{DebugMetrics, Output};
use crate::identity::Hasher;
use crate::periodic::now_ns;

/// Says since when points count that do not say so themselves, as those of Prometheus do not: sums, histograms and summaries.
/// Points whose start is set, and is not their own time, go on as they are.
///
/// - `true_reset_point` takes the time of the first point of a series.
/// - `subtract_initial_point` leaves out the first point of a series, and subtracts it from those that follow, which count
///   since its time.
/// - `start_time_metric` takes the value of a metric of the same request, `process_start_time_seconds` if no other is set; if
///   there is none, the time when the program started.
///
/// A series whose value is less than before counts since a millisecond before that point.
///
/// What is known of series is in memory, and stays over a change of the configuration that does not change the strategy. The
/// million series whose last points were most recent are known, or fewer, if what is known of them would take more than
/// 256 MiB: histograms take what their ranges take. The log says when series are forgotten for that.
///
/// Batches go one after the other. What is known stays as it is if a batch is not taken for now, so that whoever sends it again
/// gets the same points.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct MetricStartTimeArguments {
    /// Where start times come from: `true_reset_point`, `subtract_initial_point` or `start_time_metric`.
    #[arg(default = "true_reset_point")]
    strategy: String,
    /// How often series are forgotten that had no point since the last time.
    #[arg(default = "10m")]
    gc_interval: SignedDuration,
    /// Regular expression for the name of the metric with the start time, in seconds since 1970. It may match any part of the
    /// name. For `start_time_metric`.
    #[arg(default = "")]
    start_time_metric_regex: String,
    /// Where to send metrics.
    #[block]
    output: Output,
    /// Which metrics of its own the component has.
    #[block(optional)]
    debug_metrics: DebugMetrics,
}

impl MetricStartTimeArguments {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        if Strategy::of(&self.strategy).is_none() {
            let message = format!(
                "invalid strategy {:?}, must be one of: true_reset_point, subtract_initial_point, start_time_metric",
                self.strategy
            );
            errors.push(&["strategy"], message);
        }
        errors.require(self.gc_interval.nanoseconds > 0, &["gc_interval"], "gc_interval must be greater than 0");
        errors.into_result()
    }

    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        self.pattern().map(|_| ()).map_err(|error| CheckErrors::of(&["start_time_metric_regex"], error))
    }

    fn pattern(&self) -> Result<Option<GoRegex>, String> {
        if self.start_time_metric_regex.is_empty() || Strategy::of(&self.strategy) != Some(Strategy::Metric) {
            return Ok(None);
        }
        GoRegex::new(&self.start_time_metric_regex).map(Some).map_err(|error| error.to_string())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strategy {
    Reset,
    Subtract,
    Metric,
}

impl Strategy {
    fn of(name: &str) -> Option<Self> {
        match name {
            "true_reset_point" => Some(Strategy::Reset),
            "subtract_initial_point" => Some(Strategy::Subtract),
            "start_time_metric" => Some(Strategy::Metric),
            _ => None,
        }
    }
}

/// The component.
pub(crate) type MetricStartTimeProcessor = Tracking<MetricStartTime>;

/// What it is made of.
pub(crate) struct MetricStartTime;

impl Tracker for MetricStartTime {
    const NAME: &'static str = "otelcol.processor.metric_start_time";
    const COUNTS_AS: Option<&'static str> = Some("metricstarttime");
    type Arguments = MetricStartTimeArguments;
    type State = Known;

    fn output(arguments: &MetricStartTimeArguments) -> &Output {
        &arguments.output
    }

    fn state(arguments: &MetricStartTimeArguments, cx: &Context<MetricStartTimeProcessor>) -> Result<Known, Error> {
        let settings = Settings {
            strategy: Strategy::of(&arguments.strategy).unwrap_or(Strategy::Reset),
            pattern: arguments.pattern()?,
            sweep_every: Duration::from_nanos(arguments.gc_interval.nanoseconds.max(0).unsigned_abs()),
        };
        LazyLock::force(&STARTED_S);
        let inner = Inner { settings, hasher: Hasher::default(), series: AllKnown::default(), swept: Instant::now() };
        let logger = cx.logger().clone();
        Ok(Known { inner: Mutex::new(inner), forgetting: Forgetting::new(logger.clone()), logger })
    }

    fn go_on(known: &Known, other: Known) -> Result<(), Known> {
        let mut inner = known.inner.lock();
        if inner.settings.strategy != other.inner.lock().settings.strategy {
            return Err(other);
        }
        inner.settings = other.inner.into_inner().settings;
        Ok(())
    }
}

/// When the program started, about, in seconds since 1970.
static STARTED_S: LazyLock<u64> = LazyLock::new(|| now_ns() / 1_000_000_000);

/// The series that are known.
pub(crate) struct Known {
    inner: Mutex<Inner>,
    forgetting: Forgetting,
    logger: Logger,
}

struct Inner {
    settings: Settings,
    hasher: Hasher,
    series: AllKnown<Seen>,
    swept: Instant,
}

struct Settings {
    strategy: Strategy,
    pattern: Option<GoRegex>,
    sweep_every: Duration,
}

#[derive(Clone, Debug)]
struct Seen {
    at: Instant,
    series: Series,
}

impl tracking::Known for Seen {
    fn heap_bytes(&self) -> usize {
        self.series.heap_bytes()
    }
}

impl Track for Known {
    fn track(&self, mut batch: Batch<Metric>, pass: &mut Pass<'_>) -> Batch<Metric> {
        let mut parts = batch.take_data();
        let now = Instant::now();
        let mut inner = self.inner.lock();
        inner.sweep(now);
        let Inner { settings, hasher, series, .. } = &mut *inner;
        let begins_ns = match settings.strategy {
            Strategy::Metric => self.begins_ns(&parts, settings.pattern.as_ref()),
            _ => 0,
        };
        let mut first = 0;
        for data in &mut parts {
            retain_metrics(data, hasher, |hasher, arena, scope, metric| {
                let hash = hasher.metric(scope, arena, metric);
                let mut adjusting = Adjusting {
                    strategy: settings.strategy,
                    begins_ns,
                    hasher,
                    series,
                    arena,
                    hash,
                    now,
                    first: &mut first,
                };
                // Summaries have no temporality; the others have to count since a fixed time for some strategies.
                let counts = |temporality: i32, always: &[Strategy]| {
                    temporality == CUMULATIVE || always.contains(&settings.strategy)
                };
                match &mut metric.points {
                    Points::Sum { points, temporality, .. }
                        if counts(*temporality, &[Strategy::Reset, Strategy::Metric]) =>
                    {
                        adjusting.adjust(points)
                    }
                    Points::Histogram { points, temporality } if counts(*temporality, &[Strategy::Metric]) => {
                        adjusting.adjust(points)
                    }
                    Points::Exponential { points, temporality } if counts(*temporality, &[Strategy::Metric]) => {
                        adjusting.adjust(points)
                    }
                    Points::Summary(points) => adjusting.adjust(points),
                    _ => true,
                }
            });
        }
        pass.dropped("initial", first);
        let forgotten = inner.series.make_room();
        self.forgetting.say(forgotten, &inner.series);
        drop(inner);
        batch.with(parts)
    }

    fn series(&self) -> usize {
        self.inner.lock().series.len()
    }

    fn settle(&self, taken: bool) {
        self.inner.lock().series.settle(taken);
    }
}

impl Known {
    /// What the metric with the start time says, or else when the program started.
    fn begins_ns(&self, parts: &[Data<Metric>], pattern: Option<&GoRegex>) -> u64 {
        let is_named = |name: &[u8]| match pattern {
            Some(pattern) => pattern.is_match(&String::from_utf8_lossy(name)),
            None => name == b"process_start_time_seconds",
        };
        let named = parts.iter().find_map(|data| {
            let mut metrics = data.scopes().flat_map(|(_, scope)| &scope.records);
            metrics.find(|metric| is_named(data.arena.bytes(metric.name)))
        });
        let first = |points: &[NumberPoint]| match points.first().map(|point| point.value) {
            None => Err("start time metric with no data points"),
            Some(corten_otlp::metrics::Number::Double(seconds)) => Ok(seconds),
            Some(_) => Ok(0.0),
        };
        let found = match named.map(|metric| &metric.points) {
            None => Err("start_time metric is missing"),
            Some(Points::Gauge(points) | Points::Sum { points, .. }) => first(points),
            Some(_) => Err("unsupported data type for start time metric"),
        };
        match found {
            // What is out of range ends at its end.
            Ok(seconds) => (seconds.trunc() as u64)
                .saturating_mul(1_000_000_000)
                .saturating_add((seconds.fract() * 1e9).max(0.0) as u64),
            Err(error) => {
                let fields = [("error", error.into()), ("fallback_start_time", (*STARTED_S).into())];
                self.logger.debug("Couldn't get start time for metrics. Using fallback start time.", &fields);
                STARTED_S.saturating_mul(1_000_000_000)
            }
        }
    }
}

impl Inner {
    /// Forgets series that had no point since the last time.
    fn sweep(&mut self, now: Instant) {
        if now.saturating_duration_since(self.swept) > self.settings.sweep_every {
            let before = std::mem::replace(&mut self.swept, now);
            self.series.forget_while(|seen| seen.at < before);
        }
    }
}

/// What adjusting the points of a metric needs.
struct Adjusting<'a> {
    strategy: Strategy,
    begins_ns: u64,
    hasher: &'a mut Hasher,
    series: &'a mut AllKnown<Seen>,
    arena: &'a Arena,
    hash: u128,
    now: Instant,
    /// How many points were dropped because they are the first of their series.
    first: &'a mut usize,
}

impl Adjusting<'_> {
    /// Sets the starts of points; whether there are any left.
    fn adjust<P: Counting>(&mut self, points: &mut Vec<P>) -> bool {
        let before = points.len();
        points.retain_mut(|point| self.keeps(point));
        !points.is_empty() || before == 0
    }

    fn keeps<P: Counting>(&mut self, point: &mut P) -> bool {
        let (start_ns, time_ns) = point.times();
        if start_ns != 0 && start_ns != time_ns {
            return true;
        }
        let hash = self.hasher.series(self.hash, self.arena, point.attributes());
        let (strategy, now) = (self.strategy, self.now);
        let known = self.series.change(hash, |seen| {
            seen.at = now;
            seen.series.adjust(strategy, point);
        });
        if known.is_some() {
            return true;
        }
        let begins_ns = if strategy == Strategy::Metric { self.begins_ns } else { time_ns };
        let reference = (strategy == Strategy::Subtract).then(|| point.values());
        let series = Series { start_ns: begins_ns, last: point.values(), reference };
        self.series.insert(hash, Seen { at: now, series });
        point.begin(begins_ns);
        let goes_on = strategy != Strategy::Subtract;
        *self.first += usize::from(!goes_on);
        goes_on
    }
}

impl Series {
    /// Says since when a further point counts, and what came since then.
    fn adjust<P: Counting>(&mut self, strategy: Strategy, point: &mut P) {
        if point.has_no_value() && strategy != Strategy::Metric {
            return point.begin(self.start_ns);
        }
        let is_reset = point.is_reset(&self.last);
        point.remember(&mut self.last);
        if is_reset {
            let (_, time_ns) = point.times();
            self.start_ns = time_ns.saturating_sub(1_000_000);
            // What counts anew has nothing to be subtracted.
            self.reference = None;
        } else if let Some(reference) = &self.reference {
            point.subtract(reference);
        }
        point.begin(self.start_ns);
    }
}

#[cfg(test)]
mod tests {
    use corten_signal::ConsumeError;
    use corten_testkit::{OtlpSink, Unit, otlp};

    use super::*;
    use crate::testing::{self, Compared, arrived, start, with_output};

    #[tokio::test(start_paused = true)]
    async fn points_are_those_of_the_reference() {
        testing::replay::<MetricStartTimeProcessor>(
            include_str!("../../tests/data/processor_metric_start_time.json"),
            Compared::Whole,
        )
        .await;
    }

    #[tokio::test]
    async fn what_contradicts_itself_is_refused() {
        for (body, want) in [
            (
                "strategy = \"other\"",
                "invalid strategy \"other\", must be one of: true_reset_point, subtract_initial_point, start_time_metric",
            ),
            ("gc_interval = \"0s\"", "gc_interval must be greater than 0"),
            ("strategy = \"start_time_metric\"\nstart_time_metric_regex = \"(\"", "missing closing )"),
        ] {
            let error = start::<MetricStartTimeProcessor>(&OtlpSink::default(), body).await.unwrap_err();
            assert!(error.contains(want), "{body}: {error}");
        }
    }

    /// Sends a point of a sum of this series.
    async fn send(unit: &Unit, series: u32, value: i64, start_ns: u64, time_ns: u64) -> Result<(), ConsumeError> {
        testing::send(unit, testing::sum(CUMULATIVE, series, value, start_ns, time_ns)).await
    }

    #[tokio::test(start_paused = true)]
    async fn series_are_forgotten_and_stay_over_a_change_of_the_interval() {
        let sink = OtlpSink::default();
        let mut unit = start::<MetricStartTimeProcessor>(&sink, "").await.unwrap();
        send(&unit, 1, 5, 0, 10).await.unwrap();
        unit.update(&with_output("gc_interval = \"1m\"")).await.unwrap();
        send(&unit, 1, 6, 0, 20).await.unwrap();
        tokio::time::sleep(Duration::from_secs(61)).await;
        send(&unit, 1, 7, 0, 30).await.unwrap();
        tokio::time::sleep(Duration::from_secs(61)).await;
        send(&unit, 2, 1, 0, 40).await.unwrap();
        tokio::time::sleep(Duration::from_secs(61)).await;
        send(&unit, 1, 8, 0, 50).await.unwrap();
        assert_eq!(arrived(&sink), [(10, 10, 5), (10, 20, 6), (10, 30, 7), (40, 40, 1), (50, 50, 8)]);
        unit.update(&with_output("strategy = \"subtract_initial_point\"")).await.unwrap();
        send(&unit, 1, 9, 0, 60).await.unwrap();
        send(&unit, 1, 10, 0, 70).await.unwrap();
        assert_eq!(arrived(&sink)[5..], [(60, 70, 1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_metric_with_the_start_time_the_start_of_the_program_counts() {
        let sink = OtlpSink::default();
        let unit = start::<MetricStartTimeProcessor>(&sink, "strategy = \"start_time_metric\"").await.unwrap();
        send(&unit, 1, 5, 0, 10).await.unwrap();
        assert_eq!(arrived(&sink), [(*STARTED_S * 1_000_000_000, 10, 5)]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_exponential_histogram_that_gets_further_ranges_did_not_begin_anew() {
        let sink = OtlpSink::default();
        let unit = start::<MetricStartTimeProcessor>(&sink, "strategy = \"subtract_initial_point\"").await.unwrap();
        for (time, count, offset, counts) in
            [(1_000_000, 2, 1, r#""2""#), (2_000_000, 5, 0, r#""1","3","1""#), (3_000_000, 6, 1, r#""6""#)]
        {
            let json = format!(
                r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"e","exponentialHistogram":{{
                "aggregationTemporality":2,"dataPoints":[{{"timeUnixNano":"{time}","count":"{count}",
                "positive":{{"offset":{offset},"bucketCounts":[{counts}]}}}}]}}}}]}}]}}]}}"#
            );
            unit.world.consumer("input").metrics.consume(otlp::<Metric>(&json)).await.unwrap();
        }
        let point = |batch: usize| {
            let json: serde_json::Value = serde_json::from_str(&sink.batches()[batch].json).unwrap();
            json["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0]["exponentialHistogram"]["dataPoints"][0].clone()
        };
        assert_eq!((&point(0)["startTimeUnixNano"], &point(0)["count"]), (&"1000000".into(), &"3".into()));
        assert_eq!(point(0)["positive"]["bucketCounts"], serde_json::json!(["1", "1", "1"]));
        // One range has fewer than before.
        assert_eq!((&point(1)["startTimeUnixNano"], &point(1)["count"]), (&"2000000".into(), &"6".into()));
    }
}
