//! `otelcol.connector.count`.

use std::sync::Arc;

use corten_component::{Component, Context as Cx, Error, Logger};
use corten_config::arguments::{CheckErrors, CheckStep};
use corten_config::{Arguments, Value as Given};
use corten_otlp::metrics::{DELTA, Number, NumberPoint, Points};
use corten_otlp::{Arena, Batch, Data, Map, Metric, OfResource, OfScope, OtlpMetrics, OtlpSignal, Resource, Value};
use corten_ottl::{Conditions, Context, EvalError, Item, OttlError, Record, Walk, compile_conditions, for_each_of};
use corten_signal::flow::BoxFuture;
use corten_signal::{Consume, ConsumeError, Fanout, Ledger, Signal};

use super::traces_to_metrics::check_output;
use crate::filtering::Constant;
use crate::flow::{DebugMetrics, Inlets, Input, Output, Stages};
use crate::identity::{ByHash, Hasher};
use crate::periodic::now_ns;
use crate::statements::{AnyOf, ErrorMode, refuse};

/// Counts spans, events of spans, metrics, data points and log records, and sends the counts as metrics.
///
/// Each batch is counted by itself: the metrics are sums of what it holds, one resource for each of its resources. What has no
/// blocks of its own is counted as one metric.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct CountArguments {
    /// A metric that counts spans. Without any, `trace.span.count` counts all.
    #[block]
    spans: Vec<Counted>,
    /// A metric that counts events of spans. Without any, `trace.span.event.count` counts all.
    #[block]
    spanevents: Vec<Counted>,
    /// A metric that counts metrics. Without any, `metric.count` counts all.
    #[block]
    metrics: Vec<Counted>,
    /// A metric that counts data points. Without any, `metric.datapoint.count` counts all.
    #[block]
    datapoints: Vec<Counted>,
    /// A metric that counts log records. Without any, `log.record.count` counts all.
    #[block]
    logs: Vec<Counted>,
    /// Where to send metrics. Consumers of logs and traces get nothing.
    #[block]
    output: Output,
    /// Which metrics of its own the component has.
    #[block(optional)]
    debug_metrics: DebugMetrics,
}

/// A metric, and what it counts.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub struct Counted {
    /// Name of the metric. If it is empty, it has the name that it would have without a block.
    #[arg(optional)]
    name: String,
    /// Description of the metric.
    #[arg(optional)]
    description: String,
    /// Conditions in OTTL. What meets one of them is counted; without any, all is.
    #[arg(optional)]
    conditions: Vec<String>,
    /// Attributes by which counts are told apart.
    #[block]
    attributes: Vec<Attribute>,
}

/// An attribute by which counts are told apart: that of what is counted or, if it has none, of its scope or its resource.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Attribute {
    /// Name of the attribute.
    key: String,
    /// Value where there is no such attribute. Without it, what has no such attribute is not counted.
    default_value: Option<Given>,
}

/// What is counted: its block, its context, and the metric that there is without a block.
struct Kind {
    block: &'static str,
    context: Context,
    name: &'static str,
    description: &'static str,
}

const SPANS: Kind = Kind {
    block: "spans",
    context: Context::Span,
    name: "trace.span.count",
    description: "The number of spans observed.",
};
const SPAN_EVENTS: Kind = Kind {
    block: "spanevents",
    context: Context::SpanEvent,
    name: "trace.span.event.count",
    description: "The number of span events observed.",
};
const METRICS: Kind = Kind {
    block: "metrics",
    context: Context::Metric,
    name: "metric.count",
    description: "The number of metrics observed.",
};
const DATA_POINTS: Kind = Kind {
    block: "datapoints",
    context: Context::DataPoint,
    name: "metric.datapoint.count",
    description: "The number of data points observed.",
};
const LOGS: Kind = Kind {
    block: "logs",
    context: Context::Log,
    name: "log.record.count",
    description: "The number of log records observed.",
};

impl CountArguments {
    fn check(&self) -> Result<(), CheckErrors> {
        self.compile().map(drop)
    }

    fn compile(&self) -> Result<Compiled, CheckErrors> {
        let mut errors = check_output(&self.output).err().unwrap_or_default();
        let mut of = |kind: &Kind, blocks: &[Counted]| compile(kind, blocks, &mut errors);
        let compiled = Compiled {
            traces: vec![of(&SPANS, &self.spans), of(&SPAN_EVENTS, &self.spanevents)],
            metrics: vec![of(&METRICS, &self.metrics), of(&DATA_POINTS, &self.datapoints)],
            logs: vec![of(&LOGS, &self.logs)],
        };
        errors.into_result().map(|()| compiled)
    }
}

/// The metrics of each kind of each signal.
struct Compiled {
    traces: Vec<OfKind<Conditions>>,
    metrics: Vec<OfKind<Conditions>>,
    logs: Vec<OfKind<Conditions>>,
}

/// The metrics that count something.
struct OfKind<C> {
    context: Context,
    metrics: Vec<Counter<C>>,
}

/// A metric that counts something.
struct Counter<C> {
    name: String,
    description: String,
    /// Nothing where all is counted.
    conditions: Option<C>,
    attributes: Vec<(String, Option<Constant>)>,
}

fn compile(kind: &Kind, blocks: &[Counted], errors: &mut CheckErrors) -> OfKind<Conditions> {
    let mut metrics: Vec<Counter<Conditions>> = Vec::new();
    for (number, block) in blocks.iter().enumerate() {
        let conditions = match &*block.conditions {
            [] => None,
            conditions => match compile_conditions(kind.context, conditions) {
                Ok(conditions) => Some(conditions),
                Err(mistakes) => {
                    refused(kind.block, number, &mistakes, errors);
                    None
                }
            },
        };
        let mut attributes = Vec::new();
        for Attribute { key, default_value } in &block.attributes {
            let default = default_value.as_ref().map(Constant::new).transpose();
            let what = match default {
                Ok(_) if key.is_empty() => "attribute key missing".to_owned(),
                Ok(default) => {
                    attributes.push((key.clone(), default));
                    continue;
                }
                Err(_) => format!("invalid default value specified for attribute {key}"),
            };
            let what = format!("{} attributes: metric {:?}: {what}", kind.block, block.name);
            errors.push_within(&[kind.block], &[CheckStep::Block(number)], what);
        }
        let name = if block.name.is_empty() { kind.name } else { &block.name };
        let counter = Counter { name: name.to_owned(), description: block.description.clone(), conditions, attributes };
        // Of equal names the last one counts.
        metrics.retain(|known| known.name != counter.name);
        metrics.push(counter);
    }
    if blocks.is_empty() {
        let (name, description) = (kind.name.to_owned(), kind.description.to_owned());
        metrics.push(Counter { name, description, conditions: None, attributes: Vec::new() });
    }
    OfKind { context: kind.context, metrics }
}

fn refused(block: &'static str, number: usize, mistakes: &[OttlError], errors: &mut CheckErrors) {
    refuse(errors, block, mistakes, |_| vec![CheckStep::Block(number), CheckStep::Field("conditions")]);
}

impl OfKind<Conditions> {
    fn ready(self, logger: &Logger) -> OfKind<AnyOf> {
        let metrics = self.metrics.into_iter().map(|metric| Counter {
            conditions: metric.conditions.map(|all| AnyOf::new(all, ErrorMode::Propagate, Some(logger))),
            name: metric.name,
            description: metric.description,
            attributes: metric.attributes,
        });
        OfKind { context: self.context, metrics: metrics.collect() }
    }
}

/// The component.
pub struct CountConnector {
    inlets: Arc<Inlets>,
}

/// What is to be put in place.
pub struct Prepared {
    inlets: Arc<Inlets>,
    compiled: Compiled,
    output: Output,
}

impl Component for CountConnector {
    const NAME: &'static str = "otelcol.connector.count";
    type Arguments = CountArguments;
    type Exports = Input;
    type Prepared = Prepared;

    async fn prepare(
        arguments: CountArguments,
        cx: &Cx<Self>,
        current: Option<&Self>,
    ) -> Result<(Prepared, Input), Error> {
        let compiled = arguments.compile().map_err(|errors| Error::new(errors.to_string()))?;
        let inlets = current.map_or_else(|| Inlets::of(cx.ledger()), |current| Arc::clone(&current.inlets));
        let exports = inlets.exports();
        Ok((Prepared { inlets, compiled, output: arguments.output }, exports))
    }

    fn commit(_: Option<Self>, prepared: Prepared, cx: &Cx<Self>) -> Self {
        let Prepared { inlets, compiled, output } = prepared;
        let forward = output.metrics(cx);
        let stage = |kinds: Vec<OfKind<Conditions>>| {
            let kinds = kinds.into_iter().map(|kind| kind.ready(cx.logger())).collect();
            forward.clone().map(|forward| Arc::new(Stage { kinds, forward, ledger: Arc::clone(cx.ledger()) }))
        };
        inlets.attach(Stages {
            traces: stage(compiled.traces).map(|stage| stage as _),
            metrics: stage(compiled.metrics).map(|stage| stage as _),
            logs: stage(compiled.logs).map(|stage| stage as _),
        });
        CountConnector { inlets }
    }

    async fn drain(self, _: &Cx<Self>) {
        self.inlets.close();
    }
}

/// Counts what comes of a signal.
struct Stage {
    kinds: Vec<OfKind<AnyOf>>,
    forward: Fanout<OtlpMetrics>,
    ledger: Arc<Ledger>,
}

impl<S: OtlpSignal<Record: Walk>> Consume<S> for Stage {
    fn consume(&self, mut batch: S::Batch) -> BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(async move {
            let items = batch.items();
            let counted = self.count(&mut batch).map_err(|reason| ConsumeError::Refused { reason })?;
            let mut pass = self.ledger.row_of::<S>().pass();
            pass.merged(OtlpMetrics::KIND.as_str(), items);
            if counted.resources.is_empty() {
                batch.acks.safe();
                return pass.end(Ok(()));
            }
            let mut metrics = Batch::of(counted, batch.context);
            metrics.acks = batch.acks;
            let mut made = self.ledger.row_of::<OtlpMetrics>().pass();
            made.created(S::KIND.as_str(), metrics.items());
            made.end(pass.end(self.forward.consume(metrics).await))
        })
    }
}

const SCOPE: &[u8] = b"github.com/open-telemetry/opentelemetry-collector-contrib/connector/countconnector";

impl Stage {
    fn count<R: Walk>(&self, batch: &mut Batch<R>) -> Result<Data<Metric>, String> {
        let (mut made, mut hasher) = (Data::default(), Hasher::default());
        let context = Arc::clone(&batch.context);
        for mut data in batch.take_data() {
            for of in &mut data.resources {
                let mut metrics = Vec::new();
                for kind in &self.kinds {
                    let mut counts: Vec<ByHash<Count>> = kind.metrics.iter().map(|_| ByHash::default()).collect();
                    let mut times = Times::default();
                    for_each_of(&mut data.arena, of, kind.context, Some(&context), |item| {
                        let attributes = times.see(item);
                        for (metric, counts) in kind.metrics.iter().zip(&mut counts) {
                            metric.count(item, attributes, counts, &mut made.arena, &mut hasher)?;
                        }
                        Ok(())
                    })
                    .map_err(|error| error.to_string())?;
                    if made.arena.held_bytes() > BYTES_MAX {
                        return Err(format!("the counts of a batch would take more than {BYTES_MAX} bytes"));
                    }
                    let (start_time_ns, time_ns) = times.get();
                    for (metric, counts) in kind.metrics.iter().zip(counts).filter(|(_, counts)| !counts.is_empty()) {
                        let points = counts.into_values().map(|count| NumberPoint {
                            attributes: count.attributes,
                            start_time_ns,
                            time_ns,
                            value: Number::Int(count.count),
                            ..NumberPoint::default()
                        });
                        metrics.push(Metric {
                            name: made.arena.own(metric.name.as_bytes()),
                            description: made.arena.own(metric.description.as_bytes()),
                            points: Points::Sum { points: points.collect(), temporality: DELTA, monotonic: true },
                            ..Metric::default()
                        });
                    }
                }
                if metrics.is_empty() {
                    continue;
                }
                let mut scope = OfScope { records: metrics, ..OfScope::default() };
                scope.scope.name = made.arena.own(SCOPE);
                let attributes = made.arena.carry_map(&data.arena, of.resource.attributes);
                let resource = Resource { attributes, ..Resource::default() };
                made.resources.push(OfResource { resource, scopes: vec![scope], ..OfResource::default() });
            }
        }
        Ok(made)
    }
}

/// How much memory what the counts of a batch are told apart by takes at most, in bytes.
const BYTES_MAX: usize = 256 << 20;

/// How many there are with the same attributes.
struct Count {
    attributes: Map,
    count: i64,
}

impl Counter<AnyOf> {
    /// Counts an item that has these attributes, if it is to be counted.
    fn count(
        &self,
        item: &mut Item<'_>,
        attributes: Map,
        counts: &mut ByHash<Count>,
        made: &mut Arena,
        hasher: &mut Hasher,
    ) -> Result<(), EvalError> {
        let scope = item.scope.as_ref().map(|(scope, _)| scope.attributes).unwrap_or_default();
        let levels = [attributes, scope, item.resource.attributes];
        hasher.clear();
        for (key, default) in &self.attributes {
            match (found(item.arena, levels, key), default) {
                (Some(value), _) => hasher.value(item.arena, value),
                (None, Some(default)) => hasher.value(&default.arena, default.value),
                (None, None) => return Ok(()),
            }
        }
        if let Some(conditions) = &self.conditions
            && !conditions.holds(item)?
        {
            return Ok(());
        }
        let hash = hasher.finish();
        // Each count repeats what its attributes have of the resource, so that a small request could ask for the product of the
        // two: the batch is refused.
        if made.held_bytes() > BYTES_MAX && !counts.contains_key(&hash) {
            return Ok(());
        }
        let count = counts.entry(hash).or_insert_with(|| {
            let mut attributes = Map::default();
            for (key, default) in &self.attributes {
                let value = match (found(item.arena, levels, key), default) {
                    (Some(value), _) => made.carry(item.arena, value),
                    (None, Some(default)) => made.carry(&default.arena, default.value),
                    (None, None) => Value::Empty,
                };
                made.put(&mut attributes, key.as_bytes(), value);
            }
            Count { attributes, count: 0 }
        });
        count.count += 1;
        Ok(())
    }
}

/// The value of an attribute of the first level that has it.
fn found(arena: &Arena, levels: [Map; 3], key: &str) -> Option<Value> {
    levels.into_iter().find_map(|level| arena.get(level, key.as_bytes()))
}

/// The first and the last time of what is counted.
#[derive(Default)]
struct Times(Option<(u64, u64)>);

impl Times {
    /// Notes the times of an item, and says which attributes it has.
    fn see(&mut self, item: &Item<'_>) -> Map {
        let (attributes, times) = match &item.record {
            Record::None | Record::Metric(..) | Record::Exemplar(..) => (Map::default(), [0, 0]),
            Record::Span(span) => (span.attributes, [span.start_time_ns, span.end_time_ns]),
            Record::SpanEvent(span, at) => {
                let event = span.events.get(*at).copied().unwrap_or_default();
                (event.attributes, [event.time_ns, 0])
            }
            Record::Log(log) => (log.attributes, [log.time_ns, 0]),
            Record::DataPoint(metrics, metric, at) => {
                let (attributes, time_ns) = point(&metrics[*metric].points, *at);
                (attributes, [time_ns, 0])
            }
        };
        for time in times.into_iter().filter(|time| *time != 0) {
            let (first, last) = self.0.unwrap_or((time, time));
            self.0 = Some((first.min(time), last.max(time)));
        }
        attributes
    }

    /// The times; now where nothing has any.
    fn get(&self) -> (u64, u64) {
        self.0.unwrap_or_else(|| {
            let now = now_ns();
            (now, now)
        })
    }
}

/// The attributes and the time of a point.
fn point(points: &Points, at: usize) -> (Map, u64) {
    let found = match points {
        Points::None => None,
        Points::Gauge(points) | Points::Sum { points, .. } => {
            points.get(at).map(|point| (point.attributes, point.time_ns))
        }
        Points::Histogram { points, .. } => points.get(at).map(|point| (point.attributes, point.time_ns)),
        Points::Exponential { points, .. } => points.get(at).map(|point| (point.attributes, point.time_ns)),
        Points::Summary(points) => points.get(at).map(|point| (point.attributes, point.time_ns)),
    };
    found.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use corten_component::Definition;
    use corten_testkit::{OtlpSink, Unit, host, otlp};
    use serde_json::Value as Json;

    use super::*;
    use crate::statements::place;

    async fn start(sink: &OtlpSink, body: &str) -> Result<Unit, String> {
        let definition = Definition::of::<CountConnector>();
        let body = format!("{body}\noutput {{\n metrics = [sink]\n}}");
        Unit::start_with(host("otelcol.connector.count.a"), &definition, &body, &[("sink", sink.value())]).await
    }

    const LOGS: &str = r#"{"resourceLogs":[
        {"resource":{"attributes":[{"key":"service","value":{"stringValue":"a"}}]},"scopeLogs":[
            {"scope":{"name":"s","attributes":[{"key":"lib","value":{"boolValue":true}}]},"logRecords":[
                {"timeUnixNano":"5","severityNumber":17,"attributes":[{"key":"env","value":{"stringValue":"prod"}}]},
                {"timeUnixNano":"3","severityNumber":9,"attributes":[{"key":"env","value":{"stringValue":"dev"}}]},
                {"severityNumber":9,"attributes":[{"key":"env","value":{"stringValue":"prod"}}]}]},
            {"logRecords":[{"timeUnixNano":"4","severityNumber":17}]}]},
        {"resource":{"attributes":[{"key":"service","value":{"stringValue":"b"}}]},"scopeLogs":[]}]}"#;
    const SPANS: &str = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[
        {"startTimeUnixNano":"10","endTimeUnixNano":"20","events":[{"timeUnixNano":"11"},{"timeUnixNano":"12"}]},
        {"startTimeUnixNano":"5","endTimeUnixNano":"7"}]}]}]}"#;
    const METRICS: &str = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[
        {"name":"m0","gauge":{"dataPoints":[{"timeUnixNano":"2","asInt":"1"},{"timeUnixNano":"1","asInt":"2"}]}},
        {"name":"m1","summary":{"dataPoints":[{"timeUnixNano":"3","count":"1"}]}},{"name":"m2"}]}]}]}"#;

    /// `resource: metric{attributes} count start-end`, of each point.
    fn points(sink: &OtlpSink) -> Vec<String> {
        let text = |value: &Json| value.as_object().unwrap().values().next().unwrap().to_string().replace('"', "");
        let pairs = |json: &Json| {
            let pairs = json["attributes"].as_array().cloned().unwrap_or_default();
            let pairs = pairs.iter().map(|pair| format!("{}={}", pair["key"].as_str().unwrap(), text(&pair["value"])));
            pairs.collect::<Vec<_>>().join(",")
        };
        let mut found = Vec::new();
        for batch in sink.batches() {
            let json: Json = serde_json::from_str(&batch.json).unwrap();
            for of in json["resourceMetrics"].as_array().unwrap() {
                let scope = &of["scopeMetrics"][0];
                assert_eq!(scope["scope"]["name"].as_str().unwrap().as_bytes(), SCOPE);
                for metric in scope["metrics"].as_array().unwrap() {
                    let sum = &metric["sum"];
                    assert_eq!((&sum["aggregationTemporality"], &sum["isMonotonic"]), (&1.into(), &true.into()));
                    for point in sum["dataPoints"].as_array().unwrap() {
                        let time = |name: &str| point[name].as_str().unwrap().to_owned();
                        let (start, end) = (time("startTimeUnixNano"), time("timeUnixNano"));
                        let times = if start.len() > 3 { "now".to_owned() } else { format!("{start}-{end}") };
                        let (name, count) = (metric["name"].as_str().unwrap(), point["asInt"].as_str().unwrap());
                        found.push(format!("{}: {name}{{{}}} {count} {times}", pairs(&of["resource"]), pairs(point)));
                    }
                }
            }
        }
        found
    }

    async fn counted(body: &str) -> Vec<String> {
        let sink = OtlpSink::default();
        let unit = start(&sink, body).await.unwrap();
        let to = unit.world.consumer("input");
        to.logs.consume(otlp(LOGS)).await.unwrap();
        to.traces.consume(otlp(SPANS)).await.unwrap();
        to.metrics.consume(otlp(METRICS)).await.unwrap();
        use corten_signal::Kind;
        let [logs, spans] = [Kind::OtelLog, Kind::OtelTrace].map(|kind| unit.world.balance_of(kind));
        assert_eq!([&*logs, &spans], ["taken 4, merged {otel_metric: 4}", "taken 2, merged {otel_metric: 2}"]);
        let points_out = format!("taken 3, out {}, created", sink.items());
        assert!(unit.world.balance_of(Kind::OtelMetric).starts_with(&points_out));
        points(&sink)
    }

    #[tokio::test]
    async fn everything_is_counted_unless_it_is_said_otherwise() {
        let expected = [
            "service=a: log.record.count{} 4 3-5",
            ": trace.span.count{} 2 5-20",
            ": trace.span.event.count{} 2 11-12",
            ": metric.count{} 3 now",
            ": metric.datapoint.count{} 3 1-3",
        ];
        assert_eq!(counted("").await, expected);
    }

    #[tokio::test]
    async fn what_meets_a_condition_is_counted_by_its_attributes() {
        let body = r#"
            logs {
                name = "errors"
                conditions = ["severity_number >= SEVERITY_NUMBER_ERROR", "log.attributes[\"env\"] == \"dev\""]
            }
            logs {
                name = "by.env"
                attributes { key = "env" }
                attributes { key = "service" }
            }
            logs {
                name = "by.lib"
                attributes { key = "lib"
                             default_value = [1, "x"] }
            }
            logs { conditions = ["false"] }
            spanevents { name = "late"
                         conditions = ["time_unix_nano > 11"] }
            datapoints { conditions = ["value_int == 2"] }
            metrics { attributes { key = "absent" } }"#;
        let expected = [
            "service=a: errors{} 3 3-5",
            "service=a: by.env{env=prod,service=a} 2 3-5",
            "service=a: by.env{env=dev,service=a} 1 3-5",
            "service=a: by.lib{lib=true} 3 3-5",
            "service=a: by.lib{lib={values:[{intValue:1},{stringValue:x}]}} 1 3-5",
            ": trace.span.count{} 2 5-20",
            ": late{} 1 11-12",
            ": metric.datapoint.count{} 1 1-3",
        ];
        assert_eq!(counted(body).await, expected);
    }

    #[tokio::test]
    async fn a_condition_that_fails_refuses_the_batch_and_nothing_counted_is_safe() {
        let sink = OtlpSink::default();
        let unit = start(&sink, "logs { conditions = [`Int(\"1\") / 0 == 1`] }").await.unwrap();
        let error = unit.world.consumer("input").logs.consume(otlp(LOGS)).await.unwrap_err();
        assert_eq!(error.to_string(), "failed to eval condition: Int(\"1\") / 0 == 1, attempted to divide by 0");
        assert_eq!(unit.world.balance_of(corten_signal::Kind::OtelLog), "");
        let unit = start(&sink, "logs { conditions = [`false`] }").await.unwrap();
        let (acks, mut told) = corten_signal::acks::waiter();
        let mut batch = otlp::<corten_otlp::LogRecord>(LOGS);
        batch.acks = acks;
        unit.world.consumer("input").logs.consume(batch).await.unwrap();
        assert_eq!(told.wait(std::time::Duration::from_secs(1)).await, corten_signal::acks::Answer::Safe);
        assert!(sink.batches().is_empty());
    }

    #[tokio::test]
    async fn mistakes_are_refused_at_their_place() {
        for (body, what) in [
            ("logs { }\nlogs { conditions = [`true`, `§nope == 1`] }", "column 1 of `nope == 1`"),
            ("spans { conditions = [`severity_number == §SEVERITY_NUMBER_INFO`] }", "column"),
            (
                "logs { }\n§logs {\n name = \"n\"\n attributes { key = \"\" }\n }",
                "logs attributes: metric \"n\": attribute key missing",
            ),
        ] {
            let error = start(&OtlpSink::default(), &body.replace('§', "")).await.unwrap_err();
            assert!(error.contains(what), "{body}: {error}");
            assert!(error.contains(&format!(":{}: ", place(body))) || what == "column", "{body}: {error}");
        }
        let definition = Definition::of::<CountConnector>();
        let unit = Unit::start_with(host("otelcol.connector.count.a"), &definition, "output { }", &[]).await;
        assert!(unit.unwrap_err().contains("no connectors were created"));
    }

    #[tokio::test]
    async fn a_small_request_does_not_become_a_huge_one() {
        let sink = OtlpSink::default();
        let body = "logs {\n attributes {\n key = \"large\"\n }\n attributes {\n key = \"n\"\n }\n}";
        let unit = start(&sink, body).await.unwrap();
        let logs = |count: usize| {
            let record = |number| format!(r#"{{"attributes":[{{"key":"n","value":{{"intValue":"{number}"}}}}]}}"#);
            let records: Vec<_> = (0..count).map(record).collect();
            otlp::<corten_otlp::LogRecord>(&format!(
                r#"{{"resourceLogs":[{{"resource":{{"attributes":[{{"key":"large","value":{{"stringValue":"{}"}}}}]}},
                "scopeLogs":[{{"logRecords":[{}]}}]}}]}}"#,
                "x".repeat(1 << 20),
                records.join(",")
            ))
        };
        let to = unit.world.consumer("input").logs;
        let error = to.consume(logs(270)).await.unwrap_err();
        assert!(matches!(error, ConsumeError::Refused { .. }), "{error}");
        to.consume(logs(10)).await.unwrap();
        assert_eq!(sink.items(), 10);
        sink.answer_with(Some(ConsumeError::Retry { after: None, reason: "busy".into() }));
        assert!(to.consume(logs(10)).await.is_err());
        use corten_signal::Kind;
        let [logs, points] = [Kind::OtelLog, Kind::OtelMetric].map(|kind| unit.world.balance_of(kind));
        assert_eq!([&*logs, &points], ["taken 10, merged {otel_metric: 10}", "out 10, created {otel_log: 10}"]);
    }
}
