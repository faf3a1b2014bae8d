//! `otelcol.connector.spanlogs`.

use std::sync::Arc;

use corten_component::{Component, Context, Error};
use corten_config::Arguments;
use corten_golang::logfmt::push_text;
use corten_otlp::{Arena, Batch, Data, LogRecord, Map, OfResource, OfScope, OtlpLogs, Span, Traces, Value};
use corten_signal::flow::BoxFuture;
use corten_signal::ledger::{Kind, Row};
use corten_signal::{Consume, ConsumeError, Fanout};

use crate::flow::{Inlets, Input, Output, Stages};
use crate::logfmt;

/// Writes log records about spans, one line in logfmt for each span, root span, process or event that is asked for.
///
/// Each record has the attribute `traces`, which says what it is about: `span`, `root`, `process` or `event`.
///
/// What follows says whether it takes the records, and whoever sends spans is told so.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct SpanLogsArguments {
    /// Whether there is a record for every span.
    #[arg(default = false)]
    spans: bool,
    /// Whether there is a record for every span without a parent.
    #[arg(default = false)]
    roots: bool,
    /// Whether there is a record for every process that takes part in a trace.
    #[arg(default = false)]
    processes: bool,
    /// Whether there is a record for every event of a span.
    #[arg(default = false)]
    events: bool,
    /// Attributes of spans that lines about spans, roots and events have.
    #[arg(optional)]
    span_attributes: Vec<String>,
    /// Attributes of resources that all lines have.
    #[arg(optional)]
    process_attributes: Vec<String>,
    /// Attributes of events that lines about events have.
    #[arg(optional)]
    event_attributes: Vec<String>,
    /// Other names for what lines and records have.
    #[block(default)]
    overrides: Overrides,
    /// Keys of lines that records have as attributes, too.
    #[arg(optional)]
    labels: Vec<String>,
    /// Where to send logs. Consumers of metrics and traces get nothing.
    #[block]
    output: Output,
}

/// Other names for what lines and records have.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Overrides {
    /// Attribute of records that says what they are about.
    #[arg(default = "traces")]
    logs_instance_tag: String,
    /// Key of the name of the service.
    #[arg(default = "svc")]
    service_key: String,
    /// Key of the name of the span.
    #[arg(default = "span")]
    span_name_key: String,
    /// Key of how the span ended: `Ok` or `Error`. It is left out if the span does not say.
    #[arg(default = "status")]
    status_key: String,
    /// Key of how long the span took, in nanoseconds.
    #[arg(default = "dur")]
    duration_key: String,
    /// Key of the id of the trace.
    #[arg(default = "tid")]
    trace_id_key: String,
}

/// The component.
pub(crate) struct SpanLogsConnector {
    inlets: Arc<Inlets>,
}

impl Component for SpanLogsConnector {
    const NAME: &'static str = "otelcol.connector.spanlogs";
    type Arguments = SpanLogsArguments;
    type Exports = Input;
    type Prepared = (Arc<Inlets>, SpanLogsArguments);

    async fn prepare(
        arguments: SpanLogsArguments,
        cx: &Context<Self>,
        current: Option<&Self>,
    ) -> Result<(Self::Prepared, Input), Error> {
        let inlets = current.map_or_else(|| Inlets::of(cx.ledger()), |current| Arc::clone(&current.inlets));
        let exports = inlets.exports();
        Ok(((inlets, arguments), exports))
    }

    fn commit(_: Option<Self>, (inlets, arguments): Self::Prepared, cx: &Context<Self>) -> Self {
        if !arguments.output.metrics.is_empty() || !arguments.output.traces.is_empty() {
            cx.logger()
                .warn("non-log output detected; this component only works for log outputs and trace inputs", &[]);
        }
        let forward = arguments.output.logs(cx);
        let [row, made] = [Kind::OtelTrace, Kind::OtelLog].map(|kind| Arc::clone(cx.ledger().row(kind)));
        let stage = Stage { arguments, forward, row, made };
        inlets.attach(Stages { traces: Some(Arc::new(stage)), ..Stages::default() });
        SpanLogsConnector { inlets }
    }

    async fn drain(self, _: &Context<Self>) {
        self.inlets.close();
    }
}

struct Stage {
    arguments: SpanLogsArguments,
    /// Where records go; nothing where they go nowhere.
    forward: Option<Fanout<OtlpLogs>>,
    /// Where spans and records are counted.
    row: Arc<Row>,
    made: Arc<Row>,
}

impl Consume<Traces> for Stage {
    fn consume(&self, batch: Batch<Span>) -> BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(async move {
            let mut bytes = 0;
            let mut parts = Vec::new();
            for data in batch.data() {
                let Some(records) = self.arguments.records(data, bytes) else {
                    let reason = format!("the records of a batch would take more than {BYTES_MAX} bytes");
                    return Err(ConsumeError::Refused { reason });
                };
                bytes += records.arena.held_bytes();
                parts.push(records);
            }
            let mut pass = self.row.pass();
            pass.merged(Kind::OtelLog.as_str(), batch.items());
            // What is made of the spans goes on in their place.
            let mut logs = Batch::empty(batch.context).with(parts);
            logs.acks = batch.acks;
            match &self.forward {
                Some(forward) if !logs.is_empty() => {
                    let mut made = self.made.pass();
                    made.created(Kind::OtelTrace.as_str(), logs.items());
                    made.end(pass.end(forward.consume(logs).await))
                }
                _ => {
                    logs.acks.safe();
                    pass.end(Ok(()))
                }
            }
        })
    }
}

/// How much the records of a batch take at most, in bytes. Each of them repeats what its resource has, so that a small request
/// could ask for the product of the two.
const BYTES_MAX: usize = 256 << 20;

/// A key of a line, with its value.
type KeyValue<'a> = (&'a [u8], Shown<'a>);

#[derive(Clone, Copy)]
enum Shown<'a> {
    Text(&'a [u8]),
    Attribute(Value),
}

/// Writes records.
struct Writer<'a> {
    arguments: &'a SpanLogsArguments,
    from: &'a Arena,
    to: Arena,
    line: Vec<u8>,
}

impl SpanLogsArguments {
    /// The records of spans; nothing if they are too large with those that there are.
    fn records(&self, spans: &Data<Span>, others_bytes: usize) -> Option<Data<LogRecord>> {
        let bytes_max = BYTES_MAX.saturating_sub(others_bytes);
        let mut writer = Writer { arguments: self, from: &spans.arena, to: Arena::default(), line: Vec::new() };
        let mut logs = Data::default();
        for of in &spans.resources {
            let resource = of.resource.attributes;
            let mut scopes = Vec::with_capacity(of.scopes.len());
            for scope in &of.scopes {
                let records = writer.of_scope(resource, &scope.records, bytes_max)?;
                scopes.push(OfScope { records, ..OfScope::default() });
            }
            logs.resources.push(OfResource { scopes, ..OfResource::default() });
        }
        logs.arena = writer.to;
        logs.prune();
        Some(logs)
    }
}

/// Gives a key a value, in the place where it stands already or at the end.
fn put<'a>(pairs: &mut Vec<KeyValue<'a>>, key: &'a [u8], value: Shown<'a>) {
    match pairs.iter_mut().find(|(known, _)| *known == key) {
        Some((_, known)) => *known = value,
        None => pairs.push((key, value)),
    }
}

impl Writer<'_> {
    /// The records of the spans of a scope; nothing if there is more than that then.
    fn of_scope(&mut self, resource: Map, spans: &[Span], bytes_max: usize) -> Option<Vec<LogRecord>> {
        let Writer { arguments, from, .. } = *self;
        let names = &arguments.overrides;
        let mut records = Vec::new();
        let mut last_trace: [u8; 16] = [0; 16];
        let service = match from.get(resource, b"service.name") {
            Some(Value::Str(name)) => from.bytes(name),
            _ => b"",
        };
        for span in spans {
            let with_root = arguments.roots && span.parent_span_id == [0; 8];
            let with_process = arguments.processes && span.trace_id != last_trace;
            if !(arguments.spans || with_root || with_process || arguments.events) {
                continue;
            }
            let trace_id = hex(&span.trace_id);
            let process = |pairs: &mut Vec<_>| {
                put(pairs, names.service_key.as_bytes(), Shown::Text(service));
                put_attributes(pairs, from, resource, &arguments.process_attributes);
                put(pairs, names.trace_id_key.as_bytes(), Shown::Text(trace_id.as_bytes()));
            };
            if with_process {
                let mut pairs = Vec::new();
                process(&mut pairs);
                last_trace = span.trace_id;
                records.push(self.record("process", &pairs));
            }
            let duration = format!("{}ns", span.end_time_ns.wrapping_sub(span.start_time_ns) as i64);
            let mut pairs = Vec::new();
            put(&mut pairs, names.span_name_key.as_bytes(), Shown::Text(from.bytes(span.name)));
            put(&mut pairs, names.duration_key.as_bytes(), Shown::Text(duration.as_bytes()));
            match span.status.code {
                0 => {}
                1 => put(&mut pairs, names.status_key.as_bytes(), Shown::Text(b"Ok")),
                2 => put(&mut pairs, names.status_key.as_bytes(), Shown::Text(b"Error")),
                _ => put(&mut pairs, names.status_key.as_bytes(), Shown::Text(b"")),
            }
            put_attributes(&mut pairs, from, span.attributes, &arguments.span_attributes);
            process(&mut pairs);
            if arguments.spans {
                records.push(self.record("span", &pairs));
            }
            if with_root {
                records.push(self.record("root", &pairs));
            }
            if arguments.events {
                for event in &span.events {
                    let mut pairs = pairs.clone();
                    put_attributes(&mut pairs, from, event.attributes, &arguments.event_attributes);
                    records.push(self.record("event", &pairs));
                    if self.to.held_bytes() > bytes_max {
                        return None;
                    }
                }
            }
            if self.to.held_bytes() > bytes_max {
                return None;
            }
        }
        Some(records)
    }

    fn record(&mut self, kind: &str, pairs: &[KeyValue<'_>]) -> LogRecord {
        self.line.clear();
        let mut attributes = Map::default();
        let tag = self.to.own_str(kind);
        self.to.put(&mut attributes, self.arguments.overrides.logs_instance_tag.as_bytes(), tag);
        for (key, value) in pairs {
            logfmt::push(&mut self.line, key, |line| match value {
                Shown::Text(text) => push_text(text, line),
                Shown::Attribute(value) => logfmt::push_attribute(line, self.from, *value),
            });
            if self.arguments.labels.iter().any(|label| label.as_bytes() == *key) {
                let value = match value {
                    Shown::Text(text) => Value::Str(self.to.own(text)),
                    Shown::Attribute(value) => self.to.carry(self.from, *value),
                };
                self.to.put(&mut attributes, key, value);
            }
        }
        LogRecord { body: Value::Str(self.to.own(&self.line)), attributes, ..LogRecord::default() }
    }
}

fn put_attributes<'a>(pairs: &mut Vec<KeyValue<'a>>, from: &Arena, map: Map, names: &'a [String]) {
    for name in names {
        if let Some(value) = from.get(map, name.as_bytes()) {
            put(pairs, name.as_bytes(), Shown::Attribute(value));
        }
    }
}

/// The digits of an id; none if it has none.
fn hex(id: &[u8]) -> String {
    if id.iter().all(|byte| *byte == 0) {
        return String::new();
    }
    corten_golang::hex(id)
}

#[cfg(test)]
mod tests {
    use corten_component::Definition;
    use corten_signal::acks::{Answer, waiter};
    use corten_testkit::{OtlpSink, Unit, host, otlp};
    use serde_json::Value as Json;

    use super::*;

    async fn start(sink: &OtlpSink, body: &str) -> Unit {
        let definition = Definition::of::<SpanLogsConnector>();
        let body = format!("{body}\noutput {{\n logs = [sink]\n}}");
        let world = host("otelcol.connector.spanlogs.a");
        Unit::start_with(world, &definition, &body, &[("sink", sink.value())]).await.unwrap()
    }

    /// Runs cases recorded from the reference's own code: arguments, spans, and the records that it made of them, as the
    /// attributes and the body of each.
    #[tokio::test]
    async fn records_are_those_of_the_reference() {
        let cases: Json = serde_json::from_str(include_str!("../../tests/data/connector_spanlogs.json")).unwrap();
        for case in cases.as_array().unwrap() {
            let sink = OtlpSink::default();
            let unit = start(&sink, case["alloy"].as_str().unwrap()).await;
            unit.world.consumer("input").traces.consume(otlp::<Span>(&case["traces"].to_string())).await.unwrap();
            let mut records = Vec::new();
            for batch in sink.batches() {
                let json: Json = serde_json::from_str(&batch.json).unwrap();
                for record in list(&json, &["resourceLogs", "scopeLogs", "logRecords"]) {
                    assert_eq!(record.get("timeUnixNano"), None);
                    records.push(serde_json::json!({ "attributes": record["attributes"], "body": record["body"] }));
                }
            }
            let want: Vec<Json> = list(&case["logs"], &["resourceLogs", "scopeLogs", "logRecords"])
                .iter()
                .map(|record| serde_json::json!({ "attributes": record["attributes"], "body": record["body"] }))
                .collect();
            assert_eq!(records, want, "{}", case["name"]);
            unit.world.balance();
        }
    }

    fn list(json: &Json, path: &[&str]) -> Vec<Json> {
        let [first, rest @ ..] = path else { return vec![json.clone()] };
        json.get(first).and_then(Json::as_array).into_iter().flatten().flat_map(|inner| list(inner, rest)).collect()
    }

    fn lines(sink: &OtlpSink) -> Vec<String> {
        let batches = sink.batches();
        let records = batches.iter().flat_map(|batch| {
            list(&serde_json::from_str(&batch.json).unwrap(), &["resourceLogs", "scopeLogs", "logRecords"])
        });
        records.map(|record| record["body"]["stringValue"].as_str().unwrap().to_owned()).collect()
    }

    #[tokio::test]
    async fn a_span_that_nothing_applies_to_leaves_the_others_alone() {
        let sink = OtlpSink::default();
        let unit = start(&sink, "roots = true").await;
        let spans = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[
            {"name":"root 1","traceId":"00000000000000000000000000000001"},
            {"name":"child","traceId":"00000000000000000000000000000001","parentSpanId":"0000000000000001"},
            {"name":"root 2","traceId":"00000000000000000000000000000002"}]}]}]}"#;
        unit.world.consumer("input").traces.consume(otlp::<Span>(spans)).await.unwrap();
        let line = |name: &str, id: u8| format!("span=\"{name}\" dur=0ns svc= tid={id:032x}");
        assert_eq!(lines(&sink), [line("root 1", 1), line("root 2", 2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_spans_is_told_what_becomes_of_the_records() {
        let sink = OtlpSink::default();
        let unit = start(&sink, "spans = true").await;
        let to = unit.world.consumer("input").traces;
        let send = async |spans: &str| {
            let (acks, told) = waiter();
            let mut batch = otlp::<Span>(spans);
            batch.acks = acks;
            (to.consume(batch).await, told)
        };
        let one = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"a"}]}]}]}"#;
        sink.keep_acks();
        let (outcome, mut told) = send(one).await;
        assert_eq!(outcome, Ok(()));
        sink.settle(false);
        assert_eq!(told.wait(std::time::Duration::from_secs(1)).await, Answer::Failed);
        let (_, mut told) = send(one).await;
        sink.settle(true);
        assert_eq!(told.wait(std::time::Duration::from_secs(1)).await, Answer::Safe);
        // What no records are made of is safe at once.
        let (_, mut told) = send(r#"{"resourceSpans":[{}]}"#).await;
        assert_eq!(told.wait(std::time::Duration::from_secs(1)).await, Answer::Safe);
        sink.answer_with(Some(ConsumeError::Refused { reason: "no".into() }));
        assert_eq!(send(one).await.0, Err(ConsumeError::Refused { reason: "no".into() }));
        let [spans, records] = [Kind::OtelTrace, Kind::OtelLog].map(|kind| unit.world.balance_of(kind));
        assert_eq!([&*spans, &records], ["taken 2, merged {otel_log: 2}", "out 2, created {otel_trace: 2}"]);
    }

    #[tokio::test]
    async fn a_small_request_does_not_become_a_huge_one() {
        let sink = OtlpSink::default();
        let unit = start(&sink, "spans = true\nprocess_attributes = [\"large\"]").await;
        let spans = |count: usize| {
            let spans = vec!["{}"; count].join(",");
            otlp::<Span>(&format!(
                r#"{{"resourceSpans":[{{"resource":{{"attributes":[{{"key":"large","value":{{"stringValue":"{}"}}}}]}},
                "scopeSpans":[{{"spans":[{spans}]}}]}}]}}"#,
                "x".repeat(1 << 20)
            ))
        };
        let to = unit.world.consumer("input").traces;
        let error = to.consume(spans(10_000)).await.unwrap_err();
        assert!(matches!(error, corten_signal::ConsumeError::Refused { .. }), "{error}");
        to.consume(spans(10)).await.unwrap();
        assert_eq!(sink.items(), 10);
    }
}
