//! `otelcol.receiver.loki`.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use corten_component::{Component, Context, Error};
use corten_config::{Arguments, Exports};
use corten_otlp::{Arena, Batch, Data, LogRecord, Map, OfResource, OfScope, OtlpLogs, Text, Value};
use corten_signal::flow::BoxFuture;
use corten_signal::ledger::{Kind, Row};
use corten_signal::{Consume, ConsumeError, Entries, Fanout, Inlet, Logs, LogsBatch, Receiver, Stream};

use crate::flow::Output;

/// Takes log entries of components of Loki, and forwards them as logs of OpenTelemetry.
///
/// Each entry becomes a record. Its labels become attributes, and so does its structured metadata. The attribute
/// `loki.attribute.labels` names the labels, so that `otelcol.exporter.loki` makes labels of them again. An entry with the
/// label `filename` gets the attributes `log.file.path` and `log.file.name` besides.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct LokiArguments {
    /// Where to send logs. Consumers of other signals get nothing.
    #[block]
    output: Output,
}

/// What the component exports.
#[derive(Exports, Clone, Debug, PartialEq)]
pub struct Exported {
    /// Takes log entries.
    receiver: Receiver<Logs>,
}

/// The component.
pub struct LokiReceiver {
    inlet: Arc<Inlet<Logs>>,
}

/// What is to be put in place.
pub struct Prepared {
    inlet: Arc<Inlet<Logs>>,
    output: Output,
}

impl Component for LokiReceiver {
    const NAME: &'static str = "otelcol.receiver.loki";
    type Arguments = LokiArguments;
    type Exports = Exported;
    type Prepared = Prepared;

    async fn prepare(
        arguments: LokiArguments,
        cx: &Context<Self>,
        current: Option<&Self>,
    ) -> Result<(Prepared, Exported), Error> {
        let inlet = current.map_or_else(|| Arc::new(Inlet::of(cx.ledger())), |current| Arc::clone(&current.inlet));
        let exported = Exported { receiver: inlet.receiver() };
        Ok((Prepared { inlet, output: arguments.output }, exported))
    }

    fn commit(_: Option<Self>, prepared: Prepared, cx: &Context<Self>) -> Self {
        let Prepared { inlet, output } = prepared;
        let [row, made] = [Kind::LokiLog, Kind::OtelLog].map(|kind| Arc::clone(cx.ledger().row(kind)));
        inlet.attach(Arc::new(Stage { forward: output.logs(cx), row, made }));
        LokiReceiver { inlet }
    }

    async fn drain(self, _: &Context<Self>) {
        self.inlet.close();
    }
}

struct Stage {
    /// Nothing where nobody wants logs.
    forward: Option<Fanout<OtlpLogs>>,
    /// Where entries and records are counted.
    row: Arc<Row>,
    made: Arc<Row>,
}

impl Consume<Logs> for Stage {
    fn consume(&self, batch: LogsBatch) -> BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(async move {
            let Some(forward) = self.forward.as_ref().filter(|_| !batch.entries.is_empty()) else {
                let mut pass = self.row.pass();
                pass.dropped("no receiver", batch.entries.len());
                batch.acks.safe();
                return pass.end(Ok(()));
            };
            let mut pass = self.row.pass();
            pass.merged(Kind::OtelLog.as_str(), batch.entries.len());
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let mut logs = Batch::of(convert(&batch.entries, now.as_nanos() as u64), Arc::default());
            logs.acks = batch.acks;
            let mut made = self.made.pass();
            made.created(Kind::LokiLog.as_str(), logs.items());
            made.end(pass.end(forward.consume(logs).await))
        })
    }
}

/// The attribute that names the labels.
const LABELS: &[u8] = b"loki.attribute.labels";

/// The records that entries become, which were seen now, in nanoseconds since the Unix epoch.
fn convert(entries: &Entries, now_ns: u64) -> Data<LogRecord> {
    let mut data = Data::default();
    let arena = &mut data.arena;
    let mut records = Vec::with_capacity(entries.len());
    for (stream, list) in entries.parts() {
        let of_stream = attributes(arena, stream);
        for (at, entry) in list.iter().enumerate() {
            // Each record has attributes of its own, because whoever comes next may change them.
            let mut attributes = if at == 0 { of_stream } else { arena.copy_map(of_stream) };
            for (name, value) in entries.metadata(entry) {
                let value = Value::Str(arena.own(value));
                arena.put(&mut attributes, name, value);
            }
            let time_ns = if entry.timestamp_ns == 0 { now_ns } else { entry.timestamp_ns as u64 };
            records.push(LogRecord {
                time_ns,
                observed_time_ns: now_ns,
                body: Value::Str(arena.own(entries.line(entry))),
                attributes,
                ..LogRecord::default()
            });
        }
    }
    let scope = OfScope { records, ..OfScope::default() };
    data.resources.push(OfResource { scopes: vec![scope], ..OfResource::default() });
    data
}

/// The attributes of the records of a stream.
fn attributes(arena: &mut Arena, stream: &Stream) -> Map {
    let mut map = Map::default();
    if let Some(path) = stream.labels().get("filename") {
        let (path, name) = (arena.own_str(path), arena.own_str(base(path)));
        arena.put(&mut map, b"log.file.path", path);
        arena.put(&mut map, b"log.file.name", name);
    }
    let names: Vec<&str> = stream.labels().iter().map(|(name, _)| name).collect();
    if !names.is_empty() {
        let names = arena.own_str(&names.join(","));
        arena.put(&mut map, LABELS, names);
    }
    let special = map;
    for (name, value) in stream.labels().iter() {
        let value = arena.own_str(value);
        // Labels differ from each other, but perhaps not from what was said of them.
        match arena.position(special, name.as_bytes()) {
            Some(at) => arena.pairs_mut(map)[at].value = value,
            None => {
                let name: Text = arena.own(name.as_bytes());
                arena.push(&mut map, name, value);
            }
        }
    }
    map
}

/// The last part of a path.
fn base(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    match (path, trimmed) {
        ("", _) => ".",
        (_, "") => "/",
        (_, path) => path.rsplit('/').next().unwrap_or(path),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use corten_component::Definition;
    use corten_signal::EntriesBuilder;
    use corten_signal::acks::Answer;
    use corten_testkit::{OtlpSink, Unit, awaited_logs, host, logs};
    use serde_json::{Value as Json, json};

    use super::*;

    /// What the reference makes of these entries.
    const RECORDED: &str = include_str!("../../tests/data/receiver_loki.jsonl");

    const NOW_NS: u64 = 1_800_000_000_000_000_000;

    #[test]
    fn entries_become_what_the_reference_makes_of_them() {
        for line in RECORDED.lines() {
            let case: Json = serde_json::from_str(line).unwrap();
            let labels: BTreeMap<&str, &str> =
                case["labels"].as_object().unwrap().iter().map(|(k, v)| (k.as_str(), v.as_str().unwrap())).collect();
            let mut builder = EntriesBuilder::new();
            let part = builder.stream(&Stream::of(labels.iter().map(|(k, v)| (*k, *v))).unwrap());
            for _ in 0..2 {
                let line = builder.own(case["line"].as_str().unwrap().as_bytes());
                builder.push(part, case["ts"].as_i64().unwrap(), line);
                for pair in case["meta"].as_array().unwrap() {
                    let text = |at: usize| pair[at].as_str().unwrap().as_bytes();
                    let (name, value) = (builder.own(text(0)), builder.own(text(1)));
                    builder.push_metadata(name, value);
                }
            }
            let data = convert(&builder.finish(0), NOW_NS);
            let records = &data.resources[0].scopes[0].records;
            assert_eq!(records.len(), 2);
            assert!(records[0].attributes.is_empty() || records[0].attributes != records[1].attributes);
            for record in records {
                let attributes: Json =
                    serde_json::from_str(&data.arena.to_text(Value::Map(record.attributes))).unwrap();
                let time = if record.time_ns == NOW_NS { json!("observed") } else { json!(record.time_ns as i64) };
                let got = json!({"attrs": attributes, "t": time, "body": data.arena.to_text(record.body)});
                assert_eq!(got, case["want"], "{case}");
                assert_eq!(record.observed_time_ns, NOW_NS);
            }
        }
    }

    async fn start(sink: &OtlpSink, body: &str) -> Unit {
        let definition = Definition::of::<LokiReceiver>();
        let world = host("otelcol.receiver.loki.a");
        Unit::start_with(world, &definition, body, &[("sink", sink.value())]).await.unwrap()
    }

    #[tokio::test]
    async fn entries_are_safe_when_their_records_are() {
        let sink = OtlpSink::default();
        let mut unit = start(&sink, "output {\n logs = [sink]\n}").await;
        sink.keep_acks();
        let to: Receiver<Logs> = unit.world.receiver("receiver");
        let (batch, mut told) = awaited_logs(&[("app", "shop")], &["one", "two"]);
        to.consume(batch).await.unwrap();
        assert_eq!(sink.sizes(), [2]);
        assert_eq!(told.wait(Duration::from_millis(1)).await, Answer::Late);
        sink.settle(true);
        assert_eq!(told.wait(Duration::from_secs(5)).await, Answer::Safe);
        let refusal = ConsumeError::Retry { after: None, reason: "full".to_owned() };
        sink.answer_with(Some(refusal.clone()));
        assert_eq!(to.consume(logs(&[("app", "shop")], &["three"])).await, Err(refusal));
        sink.answer_with(None);
        // Nobody wants logs any more, and then the component is gone.
        unit.update("output {\n traces = [sink]\n}").await.unwrap();
        let (batch, mut told) = awaited_logs(&[("app", "shop")], &["four"]);
        to.consume(batch).await.unwrap();
        assert_eq!(told.wait(Duration::from_secs(5)).await, Answer::Safe);
        assert_eq!(sink.sizes(), [2]);
        let [entries, records] = [Kind::LokiLog, Kind::OtelLog].map(|kind| unit.world.balance_of(kind));
        assert_eq!(entries, "taken 3, dropped {no receiver: 1}, merged {otel_log: 2}");
        assert_eq!(records, "out 2, created {loki_log: 2}");
        unit.drain().await;
        assert!(to.consume(logs(&[("app", "shop")], &["five"])).await.is_err());
    }
}
