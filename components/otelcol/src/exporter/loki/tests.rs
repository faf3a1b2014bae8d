use std::collections::BTreeMap;

use corten_component::Definition;
use corten_otlp::{Data, Metric};
use corten_signal::acks::{Answer, waiter};
use corten_testkit::{LogLine, LogsSink, Unit, host, otlp};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

/// What the library that the reference converts records with made of these.
const RECORDED: &str = include_str!("../../../tests/data/exporter_loki.jsonl");

const NOW_NS: i64 = 1_800_000_000_000_000_000;

fn convert_all(converter: &mut Converter, data: &Data<LogRecord>) -> Vec<Json> {
    let mut made = Vec::new();
    for (of, scope) in data.scopes() {
        let mut common = Common::new(&data.arena, of, scope);
        for record in &scope.records {
            made.push(match converter.convert(&mut common, record, NOW_NS) {
                Ok((stream, time_ns, line)) => json!({
                    "l": stream.labels().iter().collect::<BTreeMap<_, _>>(),
                    "t": if time_ns == NOW_NS { json!("now") } else { json!(time_ns) },
                    "line": String::from_utf8_lossy(line),
                }),
                Err(error) => json!({ "err": error }),
            });
        }
    }
    made
}

#[test]
fn records_become_what_the_reference_makes_of_them() {
    let mut differences = Vec::new();
    let mut converter = Converter::default();
    for line in RECORDED.lines() {
        let case: Json = serde_json::from_str(line).unwrap();
        let batch: Batch<LogRecord> = otlp(&case["batches"][0].to_string());
        let got: Vec<Json> = batch.data().flat_map(|data| convert_all(&mut converter, data)).collect();
        let want = case["want"][0].as_array().unwrap();
        assert_eq!(got.len(), want.len());
        for (at, (got, want)) in got.iter().zip(want).enumerate() {
            if got != want {
                differences.push(format!("{} {at}:\n   got {got}\n  want {want}", case["name"]));
            }
        }
    }
    assert!(differences.is_empty(), "{} differences\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn streams_are_remembered_by_what_their_labels_are_made_of() {
    let mut converter = Converter::default();
    let record = |level: u8| format!(r#"{{"severityNumber":{level},"body":{{"stringValue":"x"}}}}"#);
    let records: Vec<String> = (0..100).map(|n| record(n % 3)).collect();
    let batch: Batch<LogRecord> =
        otlp(&format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{}]}}]}}]}}"#, records.join(",")));
    for _ in 0..2 {
        batch.data().for_each(|data| drop(convert_all(&mut converter, data)));
        assert_eq!(converter.streams(), 3);
    }
}

/// A value of a list of numbers: of any list some.
fn value(tape: &mut std::slice::Iter<'_, u16>, depth: usize) -> Json {
    let mut next = |below: u16| tape.next().map_or(0, |number| number % below);
    match next(if depth > 3 { 7 } else { 9 }) {
        0 => json!({}),
        1 => {
            let text = ["NaN", "-Infinity", "1e-7", "2.5"][next(4) as usize];
            json!({ "doubleValue": text })
        }
        2 => json!({"intValue": next(9).to_string()}),
        3 => json!({"bytesValue": "/wA="}),
        4 => json!({"boolValue": true}),
        5 => {
            let text = ["a=b c", "a=\"\\ud800\"", "<\u{2028}&>", "", "a.b,,c , level"][next(5) as usize];
            json!({ "stringValue": text })
        }
        6 => {
            let text = ["json", "raw", "logfmt", "\u{0}", "x=\""][next(5) as usize];
            json!({ "stringValue": text })
        }
        7 => json!({"arrayValue": {"values": (0..next(4)).map(|_| value(tape, depth + 1)).collect::<Vec<_>>()}}),
        _ => json!({"kvlistValue": {"values": attributes(tape, depth + 1)}}),
    }
}

fn attributes(tape: &mut std::slice::Iter<'_, u16>, depth: usize) -> Json {
    let keys = [
        "a",
        "b",
        "a.b",
        "",
        "level",
        "c",
        "job",
        "loki.format",
        "loki.attribute.labels",
        "loki.resource.labels",
        "service.name",
        "=\"",
        "__",
        "9",
    ];
    let count = tape.next().map_or(0, |number| number % 5);
    let pair = |_| {
        let key = keys[tape.next().map_or(0, |number| *number as usize % keys.len())];
        json!({"key": key, "value": value(tape, depth)})
    };
    (0..count).map(pair).collect()
}

proptest! {
    #[test]
    fn any_record_becomes_an_entry_or_an_error(tape: Vec<u16>) {
        let tape = &mut tape.iter();
        let mut records = Vec::new();
        for _ in 0..3 {
            records.push(json!({
                "body": value(tape, 0),
                "attributes": attributes(tape, 0),
                "severityNumber": tape.next().map_or(0, |number| number % 30),
            }));
        }
        let logs = json!({"resourceLogs": [{
            "resource": {"attributes": attributes(tape, 0)},
            "scopeLogs": [{"scope": {"name": "s", "attributes": attributes(tape, 0)}, "logRecords": records}],
        }]});
        let batch: Batch<LogRecord> = otlp(&logs.to_string());
        for data in batch.data() {
            for made in convert_all(&mut Converter::default(), data) {
                let Some(labels) = made.get("l") else {
                    prop_assert!(!made["err"].as_str().unwrap().is_empty());
                    continue;
                };
                for name in labels.as_object().unwrap().keys() {
                    let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
                    prop_assert!(is_name(name) && !name.starts_with(|first: char| first.is_ascii_digit()), "{}", name);
                }
                if made["line"].as_str().unwrap().starts_with("{\"") && !logs.to_string().contains("loki.format") {
                    prop_assert!(serde_json::from_str::<Json>(made["line"].as_str().unwrap()).is_ok(), "{}", made);
                }
            }
        }
    }

    #[test]
    fn names_with_many_parts_are_looked_for_within_limits(parts in 1..200usize, depth in 0..30usize) {
        // Each part of the name leads into attributes that hold the same name again.
        let mut inner = json!({"stringValue": "x"});
        for _ in 0..depth {
            inner = json!({"kvlistValue": {"values": [{"key": "a", "value": inner}]}});
        }
        let name = vec!["a"; parts].join(".");
        let logs = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [{"attributes": [
            {"key": "loki.attribute.labels", "value": {"stringValue": name}},
            {"key": "a", "value": inner},
        ]}]}]}]});
        let batch: Batch<LogRecord> = otlp(&logs.to_string());
        let made = batch.data().flat_map(|data| convert_all(&mut Converter::default(), data)).next().unwrap();
        let found = made["l"].as_object().unwrap().len() > 1;
        prop_assert_eq!(found, parts <= 16 && parts <= depth + 1, "{} {} {}", parts, depth, made);
    }
}

const EXPORTER: Definition = Definition::of::<LokiExporter>();

async fn start(sink: &LogsSink) -> Unit {
    let world = host("otelcol.exporter.loki.a");
    Unit::start_with(world, &EXPORTER, "forward_to = [sink]", &[("sink", sink.value())]).await.unwrap()
}

fn records() -> Batch<LogRecord> {
    otlp(
        r#"{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]},"scopeLogs":[{"logRecords":[
            {"timeUnixNano":"7","severityNumber":17,"severityText":"Error","body":{"stringValue":"broken"}},
            {"timeUnixNano":"8","attributes":[{"key":"loki.format","value":{"stringValue":"raw"}}],"body":{"stringValue":"plain"}},
            {"timeUnixNano":"9","attributes":[{"key":"loki.format","value":{"stringValue":"xml"}}]}
        ]}]}]}"#,
    )
}

#[tokio::test]
async fn entries_are_forwarded_and_their_records_safe_when_they_are() {
    let sink = LogsSink::default();
    sink.keep_acks();
    let unit = start(&sink).await;
    let to = unit.world.consumer("input").logs;
    let (acks, mut told) = waiter();
    let mut batch = records();
    batch.acks = acks;
    to.consume(batch).await.unwrap();
    let line = |stream: &str, timestamp_ns, line: &str| LogLine {
        stream: stream.to_owned(),
        timestamp_ns,
        line: line.to_owned(),
        metadata: Vec::new(),
    };
    assert_eq!(
        sink.lines(),
        [
            line(
                r#"{exporter="OTLP", job="shop", level="ERROR"}"#,
                7,
                r#"{"body":"broken","severity":"Error","resources":{"service.name":"shop"}}"#
            ),
            line(r#"{exporter="OTLP", job="shop"}"#, 8, "plain"),
        ]
    );
    assert_eq!(told.wait(Duration::from_millis(1)).await, Answer::Late);
    sink.settle(true);
    assert_eq!(told.wait(Duration::from_secs(5)).await, Answer::Safe);
    let metric = |name: &str| unit.world.metric(&format!("otelcol_exporter_loki_entries_{name}"));
    assert_eq!((metric("total"), metric("failed"), metric("processed")), (Some(3.0), Some(1.0), Some(2.0)));
    assert_eq!(unit.world.balance_of(Kind::OtelLog), "taken 3, dropped {failed to convert: 1}, merged {loki_log: 2}");
    assert_eq!(unit.world.balance_of(Kind::LokiLog), "out 2, created {otel_log: 2}");
    let logs = unit.world.logs();
    assert!(logs.contains("failed to convert log to loki entry"), "{logs}");
    assert!(logs.contains("invalid format xml. Expected one of: json, logfmt, raw"), "{logs}");
}

#[tokio::test]
async fn what_receivers_answer_goes_to_the_sender_and_what_cannot_be_converted_is_safe() {
    let sink = LogsSink::default();
    let unit = start(&sink).await;
    let to = unit.world.consumer("input").logs;
    let refusal = ConsumeError::Retry { after: None, reason: "full".to_owned() };
    sink.answer_with(Some(refusal.clone()));
    assert_eq!(to.consume(records()).await, Err(refusal));
    let (acks, mut told) = waiter();
    let mut batch = otlp::<LogRecord>(
        r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"attributes":[{"key":"loki.format","value":{"stringValue":"xml"}}]}]}]}]}"#,
    );
    batch.acks = acks;
    to.consume(batch).await.unwrap();
    assert_eq!(told.wait(Duration::from_secs(5)).await, Answer::Safe);
    // What was refused was not taken.
    assert_eq!(unit.world.balance_of(Kind::OtelLog), "taken 1, dropped {failed to convert: 1}");
    assert_eq!(unit.world.balance_of(Kind::LokiLog), "");
    let metrics = unit.world.consumer("input").metrics.consume(otlp::<Metric>("{}")).await;
    assert_eq!(metrics.unwrap_err().to_string(), "telemetry type is not supported");
}
