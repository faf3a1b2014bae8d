//! `otelcol.processor.deltatocumulative`.

mod sum;

use std::time::Duration;

use corten_component::metrics::{Counter, Gauge};
use corten_component::{Context, Error};
use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_config::decode::SignedDuration;
use corten_config::schema::Stability;
use corten_otlp::Batch;
use corten_otlp::metrics::{CUMULATIVE, DELTA, Metric, Points};
use corten_signal::ledger::Pass;
use parking_lot::Mutex;
use tokio::time::Instant;

use self::sum::{Delta, Dropped, Sum};
use super::tracking::{self, AllKnown, SCOPE_LABELS, SERIES_MAX, Track, Tracker, Tracking, retain_metrics};
use crate::flow::{DebugMetrics, Output};
use crate::identity::Hasher;

/// Turns metrics that count since the last point into metrics that count since a fixed time: sums and histograms. Others go on
/// as they are.
///
/// A series counts since its first point began. Points that are older than the last one of their series, or began before the
/// series did, are left out. Histograms that grow exponentially have at most 160 ranges above and below 0.
///
/// What is known of series is in memory, and stays over a change of the configuration.
///
/// Batches go one after the other. What is known stays as it is if a batch is not taken for now, so that whoever sends it again
/// loses nothing.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct DeltaToCumulativeArguments {
    /// After how long without a point a series is forgotten. It begins anew after that.
    #[arg(default = "5m")]
    max_stale: SignedDuration,
    /// How many series are known at most, and a million in any case. Points of further ones are left out and counted; 0 leaves
    /// out all. So are points that would make what is known take more than 256 MiB: histograms take what their ranges take.
    #[arg(default = 9_223_372_036_854_775_807)]
    max_streams: i64,
    /// Where to send metrics.
    #[block]
    output: Output,
    /// Which metrics of its own the component has.
    #[block(optional)]
    debug_metrics: DebugMetrics,
}

impl DeltaToCumulativeArguments {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        if self.max_stale.nanoseconds <= 0 {
            let given = corten_config::duration::format(self.max_stale.nanoseconds);
            errors.push(&["max_stale"], format!("max_stale must be a positive duration (got {given})"));
        }
        if self.max_streams < 0 {
            let message = format!("max_streams must be a positive number or zero (got {})", self.max_streams);
            errors.push(&["max_streams"], message);
        }
        errors.into_result()
    }
}

/// The component.
pub(crate) type DeltaToCumulativeProcessor = Tracking<DeltaToCumulative>;

/// What it is made of.
pub(crate) struct DeltaToCumulative;

impl Tracker for DeltaToCumulative {
    const NAME: &'static str = "otelcol.processor.deltatocumulative";
    const STABILITY: Stability = Stability::Experimental;
    type Arguments = DeltaToCumulativeArguments;
    type State = Known;

    fn output(arguments: &DeltaToCumulativeArguments) -> &Output {
        &arguments.output
    }

    fn state(arguments: &DeltaToCumulativeArguments, cx: &Context<DeltaToCumulativeProcessor>) -> Result<Known, Error> {
        let settings = Settings {
            age_max: Duration::from_nanos(arguments.max_stale.nanoseconds.max(0).unsigned_abs()),
            limit: arguments.max_streams,
            series_max: usize::try_from(arguments.max_streams).unwrap_or(usize::MAX).min(SERIES_MAX),
        };
        let metrics = OwnMetrics::new(cx);
        metrics.show(&settings);
        let inner = Inner {
            settings,
            hasher: Hasher::default(),
            series: AllKnown::default(),
            tally: [0; 4],
            swept: Instant::now(),
        };
        Ok(Known { inner: Mutex::new(inner), metrics })
    }

    fn go_on(known: &Known, other: Known) -> Result<(), Known> {
        let settings = other.inner.into_inner().settings;
        known.metrics.show(&settings);
        known.inner.lock().settings = settings;
        Ok(())
    }
}

/// The series that are known.
pub(crate) struct Known {
    inner: Mutex<Inner>,
    metrics: OwnMetrics,
}

struct Inner {
    settings: Settings,
    hasher: Hasher,
    series: AllKnown<Series>,
    /// What became of the points of the last batch: those that go on, and the others by their reasons.
    tally: [u64; 4],
    swept: Instant,
}

struct Settings {
    age_max: Duration,
    limit: i64,
    series_max: usize,
}

#[derive(Clone, Debug)]
struct Series {
    seen: Instant,
    sum: Sum,
}

impl tracking::Known for Series {
    fn heap_bytes(&self) -> usize {
        self.sum.heap_bytes()
    }
}

/// How often old series are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// What the component counts of itself.
struct OwnMetrics {
    /// Those that go on, and the others by their reasons.
    points: [Counter; 4],
    series: Gauge,
    limit: Gauge,
    age_max: Gauge,
}

impl OwnMetrics {
    fn new(cx: &Context<DeltaToCumulativeProcessor>) -> Self {
        const SCOPE: &str =
            "github.com/open-telemetry/opentelemetry-collector-contrib/processor/deltatocumulativeprocessor";
        let [name, version, url] = SCOPE_LABELS;
        let points = cx.metrics().counters(
            "otelcol_deltatocumulative_datapoints_total",
            "total number of datapoints processed. may have 'error' attribute, if processing failed",
            &["error", name, version, url],
        );
        let of = |error: &str| points.with(&[error, SCOPE, "", ""]);
        let gauge = |name, help| cx.metrics().gauges(name, help, &SCOPE_LABELS).with(&[SCOPE, "", ""]);
        OwnMetrics {
            points: ["", "delta.ErrOlderStart", "delta.ErrOutOfOrder", "limit"].map(of),
            series: gauge("otelcol_deltatocumulative_streams_tracked", "number of streams tracked"),
            limit: gauge("otelcol_deltatocumulative_streams_limit", "upper limit of tracked streams"),
            age_max: gauge(
                "otelcol_deltatocumulative_streams_max_stale_seconds",
                "duration after which streams inactive streams are dropped",
            ),
        }
    }

    fn show(&self, settings: &Settings) {
        self.limit.set(settings.limit as f64);
        self.age_max.set(settings.age_max.as_secs() as f64);
    }
}

/// Counts a point; whether it goes on.
fn counts(tally: &mut [u64; 4], outcome: Result<(), Dropped>) -> bool {
    tally[match outcome {
        Ok(()) => 0,
        Err(Dropped::OlderStart) => 1,
        Err(Dropped::OutOfOrder) => 2,
        Err(Dropped::Limit) => 3,
    }] += 1;
    outcome.is_ok()
}

impl Track for Known {
    fn track(&self, mut batch: Batch<Metric>, pass: &mut Pass<'_>) -> Batch<Metric> {
        let mut parts = batch.take_data();
        let now = Instant::now();
        let mut inner = self.inner.lock();
        inner.sweep(now);
        let Inner { settings, hasher, series, tally, .. } = &mut *inner;
        for data in &mut parts {
            retain_metrics(data, hasher, |hasher, arena, scope, metric| {
                let hash = hasher.metric(scope, arena, metric);
                let mut of = |attributes| hasher.series(hash, arena, attributes);
                match &mut metric.points {
                    Points::Sum { points, temporality, .. } if *temporality == DELTA => {
                        *temporality = CUMULATIVE;
                        points.retain_mut(|point| {
                            let hash = of(point.attributes);
                            counts(tally, add(series, hash, settings, now, point))
                        });
                        !points.is_empty()
                    }
                    Points::Histogram { points, temporality } if *temporality == DELTA => {
                        *temporality = CUMULATIVE;
                        points.retain_mut(|point| {
                            let hash = of(point.attributes);
                            counts(tally, add(series, hash, settings, now, point))
                        });
                        !points.is_empty()
                    }
                    Points::Exponential { points, temporality } if *temporality == DELTA => {
                        *temporality = CUMULATIVE;
                        points.retain_mut(|point| {
                            let hash = of(point.attributes);
                            counts(tally, add(series, hash, settings, now, point))
                        });
                        !points.is_empty()
                    }
                    _ => true,
                }
            });
        }
        for (reason, count) in ["older start", "out of order", "limit"].into_iter().zip(&inner.tally[1..]) {
            pass.dropped(reason, *count as usize);
        }
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
            self.metrics.points.iter().zip(tally).for_each(|(counter, count)| counter.add(count));
        }
    }
}

/// Adds a point to its series.
fn add<P: Delta>(
    series: &mut AllKnown<Series>,
    hash: u128,
    settings: &Settings,
    now: Instant,
    point: &mut P,
) -> Result<(), Dropped> {
    if !series.has_room(hash, settings.series_max, point.bytes_max(), |known| point.bytes_with(&known.sum)) {
        return Err(Dropped::Limit);
    }
    let known = series.change(hash, |known| {
        known.seen = now;
        point.add_to(&mut known.sum)
    });
    known.unwrap_or_else(|| {
        let mut sum = Sum::default();
        let outcome = point.add_to(&mut sum);
        series.insert(hash, Series { seen: now, sum });
        outcome
    })
}

impl Inner {
    /// Forgets series without a point for a while.
    fn sweep(&mut self, now: Instant) {
        if now.saturating_duration_since(self.swept) >= SWEEP_EVERY {
            self.swept = now;
            let age_max = self.settings.age_max;
            self.series.forget_while(|series| now.saturating_duration_since(series.seen) > age_max);
        }
    }
}

#[cfg(test)]
mod tests {
    use corten_otlp::metrics::{Buckets, ExponentialPoint};
    use corten_signal::ConsumeError;
    use corten_testkit::{OtlpSink, Unit, otlp};

    use super::*;
    use crate::testing::{self, Compared, arrived, busy, start, with_output};

    #[tokio::test(start_paused = true)]
    async fn points_are_those_of_the_reference() {
        testing::replay::<DeltaToCumulativeProcessor>(
            include_str!("../../tests/data/processor_deltatocumulative.json"),
            Compared::Whole,
        )
        .await;
    }

    #[tokio::test]
    async fn what_contradicts_itself_is_refused() {
        for (body, want) in [
            ("max_stale = \"0s\"", "max_stale must be a positive duration (got 0s)"),
            ("max_streams = -1", "max_streams must be a positive number or zero (got -1)"),
        ] {
            let error = start::<DeltaToCumulativeProcessor>(&OtlpSink::default(), body).await.unwrap_err();
            assert!(error.contains(want), "{body}: {error}");
        }
    }

    /// Sends a point of a sum of this series.
    async fn send(unit: &Unit, series: u32, value: i64, start_ns: u64, time_ns: u64) -> Result<(), ConsumeError> {
        testing::send(unit, testing::sum(DELTA, series, value, start_ns, time_ns)).await
    }

    #[tokio::test(start_paused = true)]
    async fn series_are_forgotten_and_begin_anew_and_stay_over_a_change() {
        let sink = OtlpSink::default();
        let mut unit = start::<DeltaToCumulativeProcessor>(&sink, "").await.unwrap();
        send(&unit, 1, 5, 1, 2).await.unwrap();
        unit.update(&with_output("max_streams = 7")).await.unwrap();
        send(&unit, 1, 5, 2, 3).await.unwrap();
        tokio::time::sleep(Duration::from_secs(301)).await;
        send(&unit, 1, 5, 3, 4).await.unwrap();
        assert_eq!(arrived(&sink), [(1, 2, 5), (1, 3, 10), (3, 4, 5)]);
        let scope = "github.com/open-telemetry/opentelemetry-collector-contrib/processor/deltatocumulativeprocessor";
        let get = |name: &str, error: Option<&'static str>| {
            let mut labels =
                vec![("otel_scope_name", scope), ("otel_scope_version", ""), ("otel_scope_schema_url", "")];
            labels.extend(error.map(|error| ("error", error)));
            unit.world.metrics().get(&format!("otelcol_deltatocumulative_{name}"), &labels)
        };
        send(&unit, 1, 5, 2, 5).await.unwrap();
        send(&unit, 1, 5, 3, 4).await.unwrap();
        assert_eq!(get("datapoints_total", Some("")), Some(3.0));
        assert_eq!(get("datapoints_total", Some("delta.ErrOlderStart")), Some(1.0));
        assert_eq!(get("datapoints_total", Some("delta.ErrOutOfOrder")), Some(1.0));
        assert_eq!(get("streams_tracked", None), Some(1.0));
        assert_eq!((get("streams_limit", None), get("streams_max_stale_seconds", None)), (Some(7.0), Some(300.0)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_taken_for_now_is_added_once() {
        let sink = OtlpSink::default();
        let unit = start::<DeltaToCumulativeProcessor>(&sink, "").await.unwrap();
        send(&unit, 1, 5, 1, 2).await.unwrap();
        sink.answer_with(busy());
        for _ in 0..3 {
            assert!(send(&unit, 1, 2, 2, 3).await.is_err());
            assert!(send(&unit, 2, 2, 2, 3).await.is_err());
        }
        sink.answer_with(None);
        send(&unit, 1, 2, 2, 3).await.unwrap();
        send(&unit, 2, 2, 2, 3).await.unwrap();
        assert_eq!(arrived(&sink), [(1, 2, 5), (1, 3, 7), (2, 3, 2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_histogram_does_not_make_later_points_large() {
        let sink = OtlpSink::default();
        let unit = start::<DeltaToCumulativeProcessor>(&sink, "").await.unwrap();
        let zeros = vec!["\"0\""; 10_000].join(",");
        let ones = vec!["\"1\""; 10_000].join(",");
        for (time, counts) in [(1, &*zeros), (2, ""), (3, &*zeros), (4, ""), (5, &*ones), (6, "")] {
            let histogram =
                format!(r#"{{"timeUnixNano":"{time}","count":"1","explicitBounds":[],"bucketCounts":[{counts}]}}"#);
            testing::send(&unit, testing::metric("h", "histogram", DELTA, &histogram)).await.unwrap();
            let exponential = format!(
                r#"{{"timeUnixNano":"{time}","count":"1","positive":{{"bucketCounts":["1",{zeros}]}},"negative":{{"bucketCounts":[{counts}]}}}}"#
            );
            testing::send(&unit, testing::metric("e", "exponentialHistogram", DELTA, &exponential)).await.unwrap();
        }
        let points = testing::points(&sink);
        assert_eq!(points.len(), 12);
        let len = |counts: &serde_json::Value| counts.as_array().map_or(0, Vec::len);
        assert_eq!(len(&points[2]["bucketCounts"]), 0);
        for point in [3, 7, 11] {
            assert!(len(&points[point]["positive"]["bucketCounts"]) <= 160);
            assert!(len(&points[point]["negative"]["bucketCounts"]) <= 160);
        }
        assert_eq!(points[11]["count"], "6");
    }

    #[test]
    fn histograms_that_grow_take_no_more_than_there_may_be() {
        const BYTES_MAX: usize = 1 << 20;
        let mut series = AllKnown::limited(1 << 20, BYTES_MAX);
        let settings = Settings { age_max: Duration::MAX, limit: 0, series_max: 1 << 20 };
        let now = Instant::now();
        let mut added = |time_ns, offset| {
            let point = || ExponentialPoint {
                time_ns,
                positive: Buckets { offset, counts: vec![1] },
                ..ExponentialPoint::default()
            };
            let all = (0..10_000).map(|hash| add(&mut series, hash, &settings, now, &mut point()));
            let added = all.filter(Result::is_ok).count();
            assert!(series.bytes() <= BYTES_MAX, "{}", series.bytes());
            added
        };
        let begun = added(1, 0);
        assert!((1_000..9_000).contains(&begun), "{begun}");
        // Points far from the first make series larger: for those there is no room. For the others there is.
        assert!(added(2, 150) < 10);
        assert_eq!(added(3, 0), begun);
    }

    #[tokio::test(start_paused = true)]
    async fn hostile_histograms_do_no_harm() {
        let sink = OtlpSink::default();
        let unit = start::<DeltaToCumulativeProcessor>(&sink, "").await.unwrap();
        let ends = [i32::MIN, -1, 0, i32::MAX];
        let mut time = 0;
        for (scale, offset) in ends.into_iter().flat_map(|scale| ends.map(|offset| (scale, offset))) {
            for zero in ["0", "1e308", "\"NaN\"", "\"Infinity\"", "-1"] {
                time += 1;
                let json = format!(
                    r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"e","exponentialHistogram":{{
                    "aggregationTemporality":1,"dataPoints":[{{"timeUnixNano":"{time}","scale":{scale},
                    "count":"18446744073709551615","zeroThreshold":{zero},"zeroCount":"18446744073709551615",
                    "positive":{{"offset":{offset},"bucketCounts":["1","18446744073709551615"]}},
                    "negative":{{"offset":0,"bucketCounts":["1"]}}}}]}}}}]}}]}}]}}"#
                );
                unit.world.consumer("input").metrics.consume(otlp::<Metric>(&json)).await.unwrap();
            }
        }
        assert_eq!(sink.items(), time);
    }
}
