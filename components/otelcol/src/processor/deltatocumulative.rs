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
use parking_lot::Mutex;
use tokio::time::Instant;

use self::sum::{Dropped, Sum};
use super::tracking::{SCOPE_LABELS, SERIES_MAX, Track, Tracker, Tracking, retain_metrics};
use crate::flow::{DebugMetrics, Output};
use crate::identity::{Hasher, Recent};

/// Turns metrics that count since the last point into metrics that count since a fixed time: sums and histograms. Others go on
/// as they are.
///
/// A series counts since its first point began. Points that are older than the last one of their series, or began before the
/// series did, are left out. Histograms that grow exponentially have at most 160 ranges above and below 0.
///
/// What is known of series is in memory, and stays over a change of the configuration.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct DeltaToCumulativeArguments {
    /// After how long without a point a series is forgotten. It begins anew after that.
    #[arg(default = "5m")]
    max_stale: SignedDuration,
    /// How many series are known at most, and a million in any case. Points of further ones are left out; 0 leaves out all.
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
        let inner = Inner { settings, hasher: Hasher::default(), series: Recent::default(), swept: Instant::now() };
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
    series: Recent<Series>,
    swept: Instant,
}

struct Settings {
    age_max: Duration,
    limit: i64,
    series_max: usize,
}

struct Series {
    seen: Instant,
    sum: Sum,
}

/// How often old series are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// What the component counts of itself.
struct OwnMetrics {
    points: Counter,
    older_start: Counter,
    out_of_order: Counter,
    limited: Counter,
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
            points: of(""),
            older_start: of("delta.ErrOlderStart"),
            out_of_order: of("delta.ErrOutOfOrder"),
            limited: of("limit"),
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

    /// Counts a point; whether it goes on.
    fn counts(&self, outcome: Result<(), Dropped>) -> bool {
        match outcome {
            Ok(()) => self.points.inc(),
            Err(Dropped::OlderStart) => self.older_start.inc(),
            Err(Dropped::OutOfOrder) => self.out_of_order.inc(),
            Err(Dropped::Limit) => self.limited.inc(),
        }
        outcome.is_ok()
    }
}

impl Track for Known {
    fn track(&self, mut batch: Batch<Metric>) -> Batch<Metric> {
        let mut parts = batch.take_data();
        let now = Instant::now();
        let mut inner = self.inner.lock();
        inner.sweep(now);
        let Inner { settings, hasher, series, .. } = &mut *inner;
        for data in &mut parts {
            retain_metrics(data, hasher, |hasher, arena, scope, metric| {
                let hash = hasher.metric(scope, arena, metric);
                let mut of = |attributes| hasher.series(hash, arena, attributes);
                match &mut metric.points {
                    Points::Sum { points, temporality, .. } if *temporality == DELTA => {
                        *temporality = CUMULATIVE;
                        points.retain_mut(|point| {
                            let hash = of(point.attributes);
                            self.metrics.counts(add(series, hash, settings, now, |sum| sum.number(point)))
                        });
                        !points.is_empty()
                    }
                    Points::Histogram { points, temporality } if *temporality == DELTA => {
                        *temporality = CUMULATIVE;
                        points.retain_mut(|point| {
                            let hash = of(point.attributes);
                            self.metrics.counts(add(series, hash, settings, now, |sum| sum.histogram(point)))
                        });
                        !points.is_empty()
                    }
                    Points::Exponential { points, temporality } if *temporality == DELTA => {
                        *temporality = CUMULATIVE;
                        points.retain_mut(|point| {
                            let hash = of(point.attributes);
                            self.metrics.counts(add(series, hash, settings, now, |sum| sum.exponential(point)))
                        });
                        !points.is_empty()
                    }
                    _ => true,
                }
            });
        }
        self.metrics.series.set(inner.series.len() as f64);
        drop(inner);
        batch.with(parts)
    }
}

/// Adds a point to its series.
fn add(
    series: &mut Recent<Series>,
    hash: u128,
    settings: &Settings,
    now: Instant,
    add: impl FnOnce(&mut Sum) -> Result<(), Dropped>,
) -> Result<(), Dropped> {
    if let Some(known) = series.get(hash) {
        known.seen = now;
        return add(&mut known.sum);
    }
    if series.len() >= settings.series_max {
        return Err(Dropped::Limit);
    }
    let mut sum = Sum::default();
    let outcome = add(&mut sum);
    series.insert(hash, Series { seen: now, sum }, usize::MAX);
    outcome
}

impl Inner {
    /// Forgets series without a point for a while.
    fn sweep(&mut self, now: Instant) {
        if now.saturating_duration_since(self.swept) >= SWEEP_EVERY {
            self.swept = now;
            let age_max = self.settings.age_max;
            while self.series.pop_if(|series| now.saturating_duration_since(series.seen) > age_max).is_some() {}
        }
    }
}

#[cfg(test)]
mod tests {
    use corten_component::Definition;
    use corten_signal::ConsumeError;
    use corten_testkit::{OtlpSink, Unit, host, otlp};

    use super::*;
    use crate::processor::recorded;

    #[tokio::test(start_paused = true)]
    async fn points_are_those_of_the_reference() {
        recorded::replay::<DeltaToCumulativeProcessor>(include_str!(
            "../../tests/data/processor_deltatocumulative.json"
        ))
        .await;
    }

    async fn start(sink: &OtlpSink, body: &str) -> Result<Unit, String> {
        let definition = Definition::of::<DeltaToCumulativeProcessor>();
        let world = host("otelcol.processor.deltatocumulative.a");
        Unit::start_with(world, &definition, &with_output(body), &[("sink", sink.value())]).await
    }

    fn with_output(body: &str) -> String {
        format!("{body}\noutput {{\n metrics = [sink]\n}}")
    }

    #[tokio::test]
    async fn what_contradicts_itself_is_refused() {
        for (body, want) in [
            ("max_stale = \"0s\"", "max_stale must be a positive duration (got 0s)"),
            ("max_streams = -1", "max_streams must be a positive number or zero (got -1)"),
        ] {
            let error = start(&OtlpSink::default(), body).await.unwrap_err();
            assert!(error.contains(want), "{body}: {error}");
        }
    }

    /// Sends a point of a sum of this series.
    async fn send(unit: &Unit, series: u32, value: i64, start_ns: u64, time_ns: u64) -> Result<(), ConsumeError> {
        let json = format!(
            r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"m","sum":{{"isMonotonic":true,
            "aggregationTemporality":1,"dataPoints":[{{"asInt":"{value}","startTimeUnixNano":"{start_ns}",
            "timeUnixNano":"{time_ns}","attributes":[{{"key":"k","value":{{"intValue":"{series}"}}}}]}}]}}}}]}}]}}]}}"#
        );
        unit.world.consumer("input").metrics.consume(otlp::<Metric>(&json)).await
    }

    /// Start, time and value of the points that arrived.
    fn arrived(sink: &OtlpSink) -> Vec<(u64, u64, i64)> {
        let points = sink.batches().into_iter().flat_map(|batch| {
            let json: serde_json::Value = serde_json::from_str(&batch.json).unwrap();
            let metric = &json["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0];
            metric["sum"]["dataPoints"].as_array().unwrap().clone()
        });
        let number =
            |point: &serde_json::Value, name: &str| point[name].as_str().map_or(0, |text| text.parse().unwrap());
        let of = |point: serde_json::Value| {
            let value = point["asInt"].as_str().unwrap().parse().unwrap();
            (number(&point, "startTimeUnixNano"), number(&point, "timeUnixNano"), value)
        };
        points.map(of).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn series_are_forgotten_and_begin_anew_and_stay_over_a_change() {
        let sink = OtlpSink::default();
        let mut unit = start(&sink, "").await.unwrap();
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
    async fn hostile_histograms_do_no_harm() {
        let sink = OtlpSink::default();
        let unit = start(&sink, "").await.unwrap();
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
