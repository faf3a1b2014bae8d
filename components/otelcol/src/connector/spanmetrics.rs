//! `otelcol.connector.spanmetrics`.

mod adjusted;
mod dimensions;
mod state;

use std::time::Duration;

use corten_component::{Context, Error};
use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_config::decode::SignedDuration;
use corten_config::schema::Stability;
use corten_signal::regex::GoRegex;

use self::dimensions::{Dimensions, glob};
use self::state::{Buckets, Names, Settings, State};
use super::durations::Ranges;
use super::traces_to_metrics::{Connector, TracesToMetrics, check_output};
use crate::flow::{DebugMetrics, Output};

/// Counts spans and how long they took, and sends the counts as metrics: requests, errors and durations of services.
///
/// Each resource of spans becomes a resource of metrics with the same attributes; spans whose resource has no
/// `service.name` are not counted. The metrics are `calls`, a sum, `duration`, a histogram, and, if they are asked for,
/// `events`, a sum, each with the namespace before it. Their attributes are `service.name`, `span.name`, `span.kind`,
/// `status.code` and the dimensions that are set. A span that a sampler let through counts as many times as its trace state
/// says.
///
/// A new sum begins with 0, and has its count with the flush after that.
///
/// Counts are in memory: spans are safe for their senders as soon as they are counted. Counts go on over a change of the
/// configuration that does not change the series, and what is left is sent at the end.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct SpanMetricsArguments {
    /// `CUMULATIVE` counts since the first span, `DELTA` since the last flush.
    #[arg(default = "CUMULATIVE")]
    aggregation_temporality: String,
    /// Did set a size in earlier versions, and does nothing.
    #[arg(default = 0, deprecated = "use `aggregation_cardinality_limit` instead")]
    dimensions_cache_size: i64,
    /// Attributes that metrics do not have: `service.name`, `span.name`, `span.kind`, `status.code` or
    /// `collector.instance.id`.
    #[arg(optional)]
    exclude_dimensions: Vec<String>,
    /// For how many series the time of the last flush is remembered, which is when the next counts of them begin. Counts of
    /// others begin with the first span. For `DELTA`.
    #[arg(default = 1000)]
    metric_timestamp_cache_size: i64,
    /// After how long without a span a resource is forgotten with all its series; 0 is never.
    #[arg(default = "0s")]
    metrics_expiration: SignedDuration,
    /// How often metrics are sent.
    #[arg(default = "60s")]
    metrics_flush_interval: SignedDuration,
    /// What stands before the names of metrics, followed by a dot; if it is empty, nothing does.
    #[arg(default = "traces.span.metrics")]
    namespace: String,
    /// How many resources are remembered. The one whose last span is longest ago makes room: it is sent once more, and its
    /// counts begin anew if it comes back after that. It is forgotten at once where there are more than 320 MiB.
    #[arg(default = 1000)]
    resource_metrics_cache_size: i64,
    /// Attributes that tell resources apart; if there are none, all do. Resources that differ in others are counted as one,
    /// which has the attributes of the first.
    #[arg(optional)]
    resource_metrics_key_attributes: Vec<String>,
    /// After how long without a span a series is forgotten; 0 is never.
    #[arg(default = "0s")]
    series_expiration: SignedDuration,
    /// How many series a metric of a resource has at most; what would be a further one counts as the one with the attribute
    /// `otel.metric.overflow`. 0 sets no limit but that of a million series of the component, or fewer, if resources, series and
    /// exemplars would take more than 256 MiB; the log says so.
    #[arg(default = 0)]
    aggregation_cardinality_limit: i64,
    /// Names of instrumentation scopes: series of their spans have the attributes `span.instrumentation.scope.name` and
    /// `span.instrumentation.scope.version`.
    #[arg(optional)]
    include_instrumentation_scope: Vec<String>,
    /// Whether series have the attribute `collector.instance.id`, a random UUID of this component.
    #[arg(default = false)]
    include_collector_instance_id: bool,
    /// How durations are counted.
    #[block]
    histogram: HistogramArguments,
    /// Further attributes of all metrics.
    #[block(name = "dimension")]
    dimensions: Vec<Dimension>,
    /// Further attributes of `calls`.
    #[block(name = "calls_dimension")]
    calls_dimensions: Vec<Dimension>,
    /// Whether and how events of spans are counted.
    #[block(optional)]
    events: Events,
    /// Examples of spans that points have.
    #[block(default)]
    exemplars: Exemplars,
    /// Where to send metrics. Consumers of logs and traces get nothing.
    #[block]
    output: Output,
    /// Which metrics of its own the component has.
    #[block(optional)]
    debug_metrics: DebugMetrics,
}

/// An attribute of metrics: that of the span or, if it has none, of the event or the resource.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub struct Dimension {
    /// Name of the attribute.
    #[arg(optional)]
    name: String,
    /// Its value where there is none.
    default: Option<String>,
    /// Pattern of names, instead of a name: `*` stands for any characters but dots, `**` for any, `?` for one but a dot.
    #[arg(optional)]
    glob: String,
}

/// How durations are counted.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct HistogramArguments {
    /// Whether durations are not counted.
    #[arg(default = false)]
    disable: bool,
    /// Unit of durations: `ms` or `s`.
    #[arg(default = "ms")]
    unit: String,
    /// Further attributes of `duration`.
    #[block(name = "dimension")]
    dimensions: Vec<Dimension>,
    /// Counts by ranges with these ends.
    #[block]
    explicit: Option<Explicit>,
    /// Counts by ranges that grow exponentially.
    #[block]
    exponential: Option<ExponentialArguments>,
}

/// Ranges with ends.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Explicit {
    /// Upper ends of the ranges but the last.
    #[arg(default = ["2ms", "4ms", "6ms", "8ms", "10ms", "50ms", "100ms", "200ms", "400ms", "800ms", "1s", "1400ms", "2s", "5s", "10s", "15s"])]
    buckets: Vec<SignedDuration>,
}

/// Ranges that grow exponentially.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct ExponentialArguments {
    /// How many ranges there are at most; 16384 at most.
    #[arg(default = 160)]
    max_size: i64,
}

/// Whether and how events of spans are counted.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub struct Events {
    /// Whether they are.
    #[arg(default = false)]
    enabled: bool,
    /// Further attributes of `events`.
    #[block(name = "dimension")]
    dimensions: Vec<Dimension>,
}

/// Examples of spans that points have.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Exemplars {
    /// Whether they have any.
    #[arg(default = false)]
    enabled: bool,
    /// How many a point has at most, the first since the last flush.
    #[arg(default = 5)]
    max_per_data_point: i64,
}

const RESERVED: [&str; 5] = ["service.name", "span.kind", "status.code", "span.name", "collector.instance.id"];

impl ExponentialArguments {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        errors.require(self.max_size > 0, &["max_size"], "max_size must be greater than 0");
        errors.into_result()
    }
}

impl HistogramArguments {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        if !["ms", "s"].contains(&&*self.unit) {
            errors.push(&["unit"], format!("unknown unit {:?}, allowed units are \"ms\" and \"s\"", self.unit));
        }
        errors.require(
            self.explicit.is_none() || self.exponential.is_none(),
            &["explicit", "exponential"],
            "only one of exponential or explicit histogram configuration can be specified",
        );
        errors.require(
            self.explicit.is_some() || self.exponential.is_some(),
            &["explicit", "exponential"],
            "either exponential or explicit histogram configuration must be specified",
        );
        errors.into_result()
    }
}

impl SpanMetricsArguments {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        errors.require(
            self.metrics_flush_interval.nanoseconds > 0,
            &["metrics_flush_interval"],
            "metrics_flush_interval must be greater than 0",
        );
        if !["CUMULATIVE", "DELTA"].contains(&&*self.aggregation_temporality) {
            let message = format!("invalid aggregation_temporality: {}", self.aggregation_temporality);
            errors.push(&["aggregation_temporality"], message);
        }
        for (field, what, dimensions) in [
            ("dimension", "dimensions", &self.dimensions),
            ("calls_dimension", "calls dimensions", &self.calls_dimensions),
            ("histogram", "histogram dimensions", &self.histogram.dimensions),
            ("events", "event dimensions", &self.events.dimensions),
        ] {
            let outcome = match field {
                "events" if !self.events.enabled => Ok(()),
                "events" if dimensions.is_empty() => Err("no dimensions configured for events".to_owned()),
                _ => check_dimensions(dimensions),
            };
            if let Err(error) = outcome {
                errors.push(&[field], format!("failed validating {what}: {error}"));
            }
        }
        for (field, expiration) in
            [("metrics_expiration", self.metrics_expiration), ("series_expiration", self.series_expiration)]
        {
            if expiration.nanoseconds < 0 {
                let text = corten_config::duration::format(expiration.nanoseconds);
                errors.push(&[field], format!("invalid {field}: {text}, the duration should be positive"));
            }
        }
        let size = self.metric_timestamp_cache_size;
        if self.aggregation_temporality == "DELTA" && size <= 0 {
            errors.push(
                &["metric_timestamp_cache_size"],
                format!(
                    "invalid delta timestamp cache size: {size}, the maximum number of the items in the cache should be positive"
                ),
            );
        }
        let limit = self.aggregation_cardinality_limit;
        if limit < 0 {
            let message = format!("invalid aggregation_cardinality_limit: {limit}, the limit should be positive");
            errors.push(&["aggregation_cardinality_limit"], message);
        }
        let max = self.exemplars.max_per_data_point;
        if self.exemplars.enabled && max < 0 {
            errors.push(&["exemplars"], format!("invalid max_per_data_point: {max}, the value should be positive"));
        }
        errors.into_result()
    }

    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        check_output(&self.output)?;
        let mut errors = CheckErrors::new();
        errors.require(
            self.resource_metrics_cache_size > 0,
            &["resource_metrics_cache_size"],
            "must provide a positive size",
        );
        errors.into_result()
    }

    /// What decides on the series.
    fn shape(&self) -> Self {
        SpanMetricsArguments {
            metric_timestamp_cache_size: 0,
            metrics_expiration: SignedDuration::default(),
            metrics_flush_interval: SignedDuration::default(),
            namespace: String::new(),
            resource_metrics_cache_size: 0,
            series_expiration: SignedDuration::default(),
            aggregation_cardinality_limit: 0,
            output: Output::default(),
            debug_metrics: DebugMetrics::default(),
            ..self.clone()
        }
    }
}

fn check_dimensions(dimensions: &[Dimension]) -> Result<(), String> {
    let mut names: Vec<&str> = RESERVED.to_vec();
    let mut globs: Vec<(&str, GoRegex)> = Vec::new();
    for Dimension { name, default, glob: pattern } in dimensions {
        match (name.is_empty(), pattern.is_empty()) {
            (false, false) => {
                return Err(format!(
                    "dimension entry must set only one of `name` or `glob`, got both: name={name:?} glob={pattern:?}"
                ));
            }
            (true, true) => return Err("dimension entry must set one of `name` or `glob`".to_owned()),
            (false, true) if names.contains(&&**name) => return Err(format!("duplicate dimension name {name:?}")),
            (false, true) => names.push(name),
            (true, false) => {
                if default.is_some() {
                    return Err(format!("`default` is not supported on `glob` dimension {pattern:?}"));
                }
                let compiled = glob(pattern).map_err(|error| format!("invalid dimension glob {pattern:?}: {error}"))?;
                globs.push((pattern, compiled));
            }
        }
    }
    for name in names {
        if let Some((pattern, _)) = globs.iter().find(|(_, glob)| glob.is_match(name)) {
            return Err(format!("duplicate dimension name {name:?} conflicting with glob {pattern:?}"));
        }
    }
    Ok(())
}

fn compiled(dimensions: &[Dimension]) -> Result<Dimensions, Error> {
    let mut compiled = Dimensions::default();
    for Dimension { name, default, glob: pattern } in dimensions {
        if pattern.is_empty() {
            compiled.name(name, default.as_deref());
        } else {
            compiled.glob(glob(pattern)?);
        }
    }
    Ok(compiled)
}

fn bytes(texts: &[String]) -> Vec<Box<[u8]>> {
    texts.iter().map(|text| text.as_bytes().into()).collect()
}

/// A span of time that was checked.
fn duration(given: SignedDuration) -> Duration {
    Duration::from_nanos(given.nanoseconds.max(0).unsigned_abs())
}

impl SpanMetricsArguments {
    fn settings(&self) -> Result<Settings, Error> {
        let with = |name: &str| !self.exclude_dimensions.iter().any(|excluded| excluded == name);
        let histogram = &self.histogram;
        let (unit, unit_ns) = if histogram.unit == "s" { ("s", 1e9) } else { ("ms", 1e6) };
        let ranges = match (&histogram.exponential, &histogram.explicit) {
            (Some(exponential), _) => Ranges::Exponential(u32::try_from(exponential.max_size).unwrap_or(u32::MAX)),
            (None, explicit) => {
                let bounds = explicit.iter().flat_map(|explicit| &explicit.buckets);
                Ranges::Explicit(bounds.map(|bound| bound.nanoseconds as f64 / unit_ns).collect())
            }
        };
        let name = |metric: &str| match &*self.namespace {
            "" => metric.to_owned(),
            namespace => format!("{namespace}.{metric}"),
        };
        let with_instance = self.include_collector_instance_id && with("collector.instance.id");
        let size = |given: i64| usize::try_from(given).unwrap_or_default();
        Ok(Settings {
            shape: self.shape(),
            with_service: with("service.name"),
            with_name: with("span.name"),
            with_kind: with("span.kind"),
            with_status: with("status.code"),
            instance: with_instance.then(|| uuid::Uuid::new_v4().to_string()),
            scopes: bytes(&self.include_instrumentation_scope),
            resource_keys: bytes(&self.resource_metrics_key_attributes),
            dimensions: compiled(&self.dimensions)?,
            calls_dimensions: compiled(&self.calls_dimensions)?,
            duration_dimensions: compiled(&histogram.dimensions)?,
            event_dimensions: compiled(&self.events.dimensions)?,
            histogram: (!histogram.disable).then_some(Buckets { unit_ns, unit, ranges }),
            events: self.events.enabled,
            exemplars_max: if self.exemplars.enabled { size(self.exemplars.max_per_data_point) } else { 0 },
            delta: self.aggregation_temporality == "DELTA",
            names: Names { calls: name("calls"), duration: name("duration"), events: name("events") },
            series_max: match size(self.aggregation_cardinality_limit) {
                0 => usize::MAX,
                limit => limit,
            },
            resources_max: size(self.resource_metrics_cache_size),
            timestamps_max: size(self.metric_timestamp_cache_size),
            resource_age_max: duration(self.metrics_expiration),
            series_age_max: duration(self.series_expiration),
        })
    }
}

/// The component.
pub(crate) type SpanMetricsConnector = TracesToMetrics<SpanMetrics>;

/// What it is made of.
pub(crate) struct SpanMetrics;

impl Connector for SpanMetrics {
    const NAME: &'static str = "otelcol.connector.spanmetrics";
    const FAILED: &'static str = "Failed ConsumeMetrics";
    type Arguments = SpanMetricsArguments;
    type Settings = Settings;
    type State = State;

    fn output(arguments: &SpanMetricsArguments) -> &Output {
        &arguments.output
    }

    fn interval(arguments: &SpanMetricsArguments) -> Duration {
        duration(arguments.metrics_flush_interval)
    }

    fn settings(arguments: &SpanMetricsArguments, _: &Context<SpanMetricsConnector>) -> Result<Settings, Error> {
        arguments.settings()
    }

    fn state(settings: Settings, cx: &Context<SpanMetricsConnector>) -> State {
        State::new(settings, cx.logger().clone())
    }

    fn fits(state: &State, settings: &Settings) -> bool {
        state.fits(settings)
    }

    fn go_on(state: &State, settings: Settings) {
        state.go_on(settings);
    }
}

#[cfg(test)]
mod tests {
    use corten_component::Definition;
    use corten_otlp::Span;
    use corten_signal::ConsumeError;
    use corten_testkit::{OtlpSink, Unit, host, otlp, until};

    use super::*;
    use crate::testing::{self, Compared, start, with_output};

    #[tokio::test(start_paused = true)]
    async fn metrics_are_those_of_the_reference() {
        testing::replay::<SpanMetricsConnector>(
            include_str!("../../tests/data/connector_spanmetrics.json"),
            Compared::WithoutTimes,
        )
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn spans_of_no_service_are_left_out_and_counted() {
        let sink = OtlpSink::default();
        let unit = start::<SpanMetricsConnector>(&sink, "histogram {\n explicit { }\n}").await.unwrap();
        let spans = otlp::<Span>(r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"a"},{"name":"b"}]}]}]}"#);
        unit.world.consumer("input").traces.consume(spans).await.unwrap();
        send(&unit, &["a"]).await;
        let spans = unit.world.balance_of(corten_signal::Kind::OtelTrace);
        assert_eq!(spans, "taken 3, dropped {no service.name: 2}, merged {otel_metric: 1}");
    }

    async fn send(unit: &Unit, names: &[&str]) {
        let spans: Vec<_> =
            names.iter().map(|name| format!(r#"{{"name":"{name}","endTimeUnixNano":"5000000"}}"#)).collect();
        let json = format!(
            r#"{{"resourceSpans":[{{"resource":{{"attributes":[{{"key":"service.name","value":{{"stringValue":"shop"}}}}]}},
            "scopeSpans":[{{"spans":[{}]}}]}}]}}"#,
            spans.join(",")
        );
        unit.world.consumer("input").traces.consume(otlp::<Span>(&json)).await.unwrap();
    }

    /// The points of a batch: name of the metric, name of the span, start, time and value or count.
    fn points(sink: &OtlpSink, batch: usize) -> Vec<(String, String, u64, u64, u64)> {
        let json: serde_json::Value = serde_json::from_str(&sink.batches()[batch].json).unwrap();
        let mut out = Vec::new();
        for metric in json["resourceMetrics"][0]["scopeMetrics"][0]["metrics"].as_array().unwrap() {
            let kind = ["sum", "histogram"].into_iter().find(|kind| metric.get(kind).is_some()).unwrap();
            for point in metric[kind]["dataPoints"].as_array().unwrap() {
                let attributes = point["attributes"].as_array().unwrap();
                let span = attributes.iter().find(|pair| pair["key"] == "span.name").unwrap();
                let number = |name: &str| point[name].as_str().map_or(0, |text| text.parse().unwrap());
                out.push((
                    metric["name"].as_str().unwrap().trim_start_matches("traces.span.metrics.").to_owned(),
                    span["value"]["stringValue"].as_str().unwrap().to_owned(),
                    number("startTimeUnixNano"),
                    number("timeUnixNano"),
                    number(if kind == "sum" { "asInt" } else { "count" }),
                ));
            }
        }
        out.sort();
        out
    }

    const DELTA: &str = "aggregation_temporality = \"DELTA\"\nhistogram {\n explicit { }\n}";

    #[tokio::test(start_paused = true)]
    async fn cumulative_counts_keep_their_start_and_delta_counts_begin_where_the_last_ended() {
        for (body, is_delta) in [("histogram {\n explicit { }\n}", false), (DELTA, true)] {
            let sink = OtlpSink::default();
            let unit = start::<SpanMetricsConnector>(&sink, body).await.unwrap();
            for flush in 1..=3 {
                send(&unit, &["a"]).await;
                until("it is flushed", || sink.batches().len() == flush).await;
            }
            let of: Vec<_> = (0..3).map(|batch| points(&sink, batch)[1].clone()).collect();
            let counts: Vec<u64> = of.iter().map(|point| point.4).collect();
            assert_eq!(counts, if is_delta { [1, 1, 1] } else { [1, 2, 3] });
            let starts: Vec<u64> = of.iter().map(|point| point.2).collect();
            let want = if is_delta { [starts[0], of[0].3, of[1].3] } else { [starts[0]; 3] };
            assert_eq!(starts, want);
            assert!(starts[0] > 0 && starts[0] <= of[0].3);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn deltas_that_nobody_takes_go_with_the_next_flush() {
        for histogram in ["explicit", "exponential"] {
            let sink = OtlpSink::default();
            let body = DELTA.replace("explicit", histogram);
            let mut unit = start::<SpanMetricsConnector>(&sink, &body).await.unwrap();
            send(&unit, &["a", "b"]).await;
            sink.answer_with(Some(ConsumeError::Retry { after: None, reason: "busy".into() }));
            tokio::time::sleep(Duration::from_secs(130)).await;
            send(&unit, &["a", "c"]).await;
            sink.answer_with(None);
            unit.drain().await;
            let counts = |name: &str| {
                let mut counts = std::collections::BTreeMap::<String, u64>::new();
                for batch in 0..sink.batches().len() {
                    let json: serde_json::Value = serde_json::from_str(&sink.batches()[batch].json).unwrap();
                    for metric in json["resourceMetrics"][0]["scopeMetrics"][0]["metrics"].as_array().unwrap() {
                        let body = metric.get("sum").or(metric.get("histogram")).or(metric.get("exponentialHistogram"));
                        if metric["name"].as_str().unwrap().ends_with(name) {
                            for point in body.unwrap()["dataPoints"].as_array().unwrap() {
                                let span = &point["attributes"][1]["value"]["stringValue"];
                                let count = point.get("asInt").or(point.get("count")).unwrap().as_str().unwrap();
                                *counts.entry(span.as_str().unwrap().to_owned()).or_default() +=
                                    count.parse::<u64>().unwrap();
                            }
                        }
                    }
                }
                counts.into_iter().map(|(name, count)| format!("{name}{count}")).collect::<Vec<_>>()
            };
            assert_eq!(
                (counts("calls"), counts("duration")),
                (vec!["a2".into(), "b1".into(), "c1".into()], vec!["a2".into(), "b1".into(), "c1".into()])
            );
            assert!(unit.world.logs().contains("Failed ConsumeMetrics"));
            let spans = unit.world.balance_of(corten_signal::Kind::OtelTrace);
            assert_eq!(spans, "taken 4, merged {otel_metric: 4}");
            unit.world.balance();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn counts_go_on_over_a_change_that_makes_the_same_series_and_begin_anew_over_any_other() {
        let sink = OtlpSink::default();
        let mut unit = start::<SpanMetricsConnector>(&sink, "histogram {\n explicit { }\n}").await.unwrap();
        send(&unit, &["a"]).await;
        unit.update(&with_output("metrics_flush_interval = \"30s\"\nhistogram {\n explicit { }\n}")).await.unwrap();
        until("what there is is sent", || sink.batches().len() == 1).await;
        send(&unit, &["a"]).await;
        until("it is flushed", || sink.batches().len() == 2).await;
        let (before, after) = (points(&sink, 0)[1].clone(), points(&sink, 1)[1].clone());
        assert_eq!((before.4, after.4, before.2), (1, 2, after.2));
        send(&unit, &["a"]).await;
        unit.update(&with_output("dimension {\n name = \"x\"\n}\nhistogram {\n explicit { }\n}")).await.unwrap();
        until("what there is is sent", || sink.batches().len() == 3).await;
        send(&unit, &["a"]).await;
        unit.drain().await;
        let (before, after) = (points(&sink, 2)[1].clone(), points(&sink, 3)[1].clone());
        assert_eq!((before.4, after.4), (3, 1));
        assert!(after.2 > before.2, "a new start shows that the count began anew");
    }

    #[tokio::test(start_paused = true)]
    async fn a_series_whose_last_flush_is_forgotten_begins_with_its_first_span() {
        let sink = OtlpSink::default();
        let body = format!(
            "metric_timestamp_cache_size = 2\n{}",
            DELTA.replace("explicit { }", "disable = true\n explicit { }")
        );
        let unit = start::<SpanMetricsConnector>(&sink, &body).await.unwrap();
        send(&unit, &["a", "b", "c"]).await;
        until("it is flushed", || sink.batches().len() == 1).await;
        send(&unit, &["a", "c"]).await;
        until("it is flushed", || sink.batches().len() == 2).await;
        let (before, after) = (points(&sink, 0), points(&sink, 1));
        assert!(after[0].2 > before[0].3 && after[0].2 < after[0].3, "{before:?} {after:?}");
        assert_eq!(after[1].2, before[2].3);
    }

    #[tokio::test(start_paused = true)]
    async fn hostile_spans_do_no_harm() {
        for histogram in ["explicit {\n buckets = [\"5s\", \"1s\", \"1s\"]\n}", "exponential {\n max_size = 2\n}"] {
            let sink = OtlpSink::default();
            let body = format!(
                "exemplars {{\n enabled = true\n}}\nevents {{\n enabled = true\n dimension {{\n glob = \"**x\"\n }}\n}}
                dimension {{\n name = \"x\"\n}}\nhistogram {{\n {histogram}\n}}"
            );
            let mut unit = start::<SpanMetricsConnector>(&sink, &body).await.unwrap();
            let nested = format!("{}{}", r#"{"arrayValue":{"values":["#.repeat(20), "]}}".repeat(20));
            let attributes = format!(
                r#"{{"key":"x","value":{nested}}},{{"key":"x","value":{{"stringValue":"twice"}}}},{{"key":"","value":{{}}}}"#
            );
            let span = |start: &str, end: &str, kind: i32, status: i32| {
                format!(
                    r#"{{"traceId":"ff000000000000000000000000000001","traceState":"ot=th:ffffffffffffff","kind":{kind},
                    "startTimeUnixNano":"{start}","endTimeUnixNano":"{end}","status":{{"code":{status}}},
                    "attributes":[{attributes}],"events":[{{"attributes":[{attributes}]}}]}}"#
                )
            };
            let max = "18446744073709551615";
            let spans: Vec<String> = [("0", max), (max, "0"), (max, max), ("1", "2")]
                .into_iter()
                .flat_map(|(start, end)| [(-1, -1), (7, 9), (i32::MAX, i32::MIN)].map(|(k, s)| span(start, end, k, s)))
                .collect();
            let json = format!(
                r#"{{"resourceSpans":[{{"resource":{{"attributes":[{{"key":"service.name","value":{nested}}},{attributes}]}},
                "scopeSpans":[{{"spans":[{}]}}]}}]}}"#,
                spans.join(",")
            );
            for _ in 0..3 {
                unit.world.consumer("input").traces.consume(otlp::<Span>(&json)).await.unwrap();
            }
            unit.drain().await;
            assert_eq!(sink.items(), 3);
            unit.world.balance();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn resources_and_series_are_bounded_in_bytes() {
        let sink = OtlpSink::default();
        let body =
            "resource_metrics_cache_size = 100000\nmetrics_flush_interval = \"1h\"\nhistogram {\n explicit {}\n}";
        let unit = start::<SpanMetricsConnector>(&sink, body).await.unwrap();
        let to = unit.world.consumer("input").traces;
        let spans = |service: &str, name: &str| {
            otlp::<Span>(&format!(
                r#"{{"resourceSpans":[{{"resource":{{"attributes":[{{"key":"service.name","value":{{"stringValue":"{service}"}}}}]}},
                "scopeSpans":[{{"spans":[{{"name":"{name}"}}]}}]}}]}}"#
            ))
        };
        let large = "x".repeat(1 << 20);
        for number in 0..200 {
            to.consume(spans("shop", &format!("{number}{large}"))).await.unwrap();
        }
        assert!(unit.world.logs().contains("too many series"), "{}", unit.world.logs());
        // The resource that came first makes room with all that it has.
        for number in 0..80 {
            to.consume(spans(&format!("{number}{large}"), "a")).await.unwrap();
        }
        to.consume(spans("shop", "a")).await.unwrap();
        drop(to);
        let mut unit = unit;
        unit.drain().await;
        let bytes: usize = sink.batches().iter().map(|batch| batch.json.len()).sum();
        assert!((80 << 20..400 << 20).contains(&bytes), "{bytes}");
        assert!(sink.batches()[0].json.contains("shop"));
        unit.world.balance();
    }

    #[tokio::test]
    async fn what_contradicts_itself_is_refused() {
        let ok = "histogram {\n explicit { }\n}\n";
        let d = |block: &str| format!("{ok}dimension {{\n {block}\n}}");
        for (body, want) in [
            ("", "missing required block \"histogram\""),
            ("histogram { }", "either exponential or explicit histogram configuration must be specified"),
            (
                "histogram {\n explicit { }\n exponential { }\n}",
                "only one of exponential or explicit histogram configuration can be specified",
            ),
            ("histogram {\n exponential {\n max_size = -1\n }\n}", "max_size must be greater than 0"),
            ("histogram {\n unit = \"h\"\n explicit { }\n}", "unknown unit \"h\", allowed units are \"ms\" and \"s\""),
            (&format!("{ok}metrics_flush_interval = \"0s\""), "metrics_flush_interval must be greater than 0"),
            (&format!("{ok}metrics_flush_interval = \"-1s\""), "metrics_flush_interval must be greater than 0"),
            (&format!("{ok}aggregation_temporality = \"badVal\""), "invalid aggregation_temporality: badVal"),
            (
                &format!("{ok}metrics_expiration = \"-2s\""),
                "invalid metrics_expiration: -2s, the duration should be positive",
            ),
            (
                &format!("{ok}series_expiration = \"-2s\""),
                "invalid series_expiration: -2s, the duration should be positive",
            ),
            (
                &format!("{ok}aggregation_temporality = \"DELTA\"\nmetric_timestamp_cache_size = 0"),
                "invalid delta timestamp cache size: 0, the maximum number of the items in the cache should be positive",
            ),
            (
                &format!("{ok}aggregation_cardinality_limit = -1"),
                "invalid aggregation_cardinality_limit: -1, the limit should be positive",
            ),
            (
                &format!("{ok}exemplars {{\n enabled = true\n max_per_data_point = -1\n}}"),
                "invalid max_per_data_point: -1, the value should be positive",
            ),
            (&format!("{ok}resource_metrics_cache_size = 0"), "must provide a positive size"),
            (
                &d("name = \"a\"\n glob = \"b\""),
                "failed validating dimensions: dimension entry must set only one of `name` or `glob`, got both: name=\"a\" glob=\"b\"",
            ),
            (&d("default = \"a\""), "failed validating dimensions: dimension entry must set one of `name` or `glob`"),
            (
                &d("default = \"a\"\n glob = \"b\""),
                "failed validating dimensions: `default` is not supported on `glob` dimension \"b\"",
            ),
            (
                &d("glob = \"a[\""),
                "failed validating dimensions: invalid dimension glob \"a[\": unexpected end of input",
            ),
            (&d("name = \"span.name\""), "failed validating dimensions: duplicate dimension name \"span.name\""),
            (
                &d("glob = \"span.n*\""),
                "failed validating dimensions: duplicate dimension name \"span.name\" conflicting with glob \"span.n*\"",
            ),
            (
                &format!("{ok}calls_dimension {{ }}"),
                "failed validating calls dimensions: dimension entry must set one of `name` or `glob`",
            ),
            (
                "histogram {\n explicit { }\n dimension { }\n}",
                "failed validating histogram dimensions: dimension entry must set one of `name` or `glob`",
            ),
            (
                &format!("{ok}events {{\n enabled = true\n}}"),
                "failed validating event dimensions: no dimensions configured for events",
            ),
        ] {
            let error = start::<SpanMetricsConnector>(&OtlpSink::default(), body).await.unwrap_err();
            assert!(error.contains(want), "{body}: {error}");
        }
        let definition = Definition::of::<SpanMetricsConnector>();
        let body = format!("{ok}output {{\n logs = [sink]\n}}");
        let names = [("sink", OtlpSink::default().value())];
        let unit = Unit::start_with(host("otelcol.connector.spanmetrics.a"), &definition, &body, &names).await;
        assert!(unit.unwrap_err().contains("no connectors were created"));
    }
}
