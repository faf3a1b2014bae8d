//! Runs pipelines in tests of stages, and compares them with what the reference does.
//!
//! A test of a stage says `recorded("drop")`, which runs all cases of `tests/data/stages/drop.json`, or calls [`run`] with the
//! text of stages and with entries.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use corten_component::Logger;
use corten_component::log::LogSink;
use corten_component::metrics::{Registry, Snapshot};
use corten_config::Arguments;
use corten_config::decode::{DecodeContext, decode};
use corten_config::schema::Stability;
use corten_signal::acks::{Answer, waiter};
use corten_signal::logs::{EntriesBuilder, LogsBatch, Stream};
use corten_signal::{Fanout, Kind, Ledger};
use corten_syntax::Stmt;
use corten_testkit::LogsSink;
use parking_lot::Mutex;
use serde_json::{Map, Value as Json, json};
use tokio::time::Instant;

use super::program::Program;
use super::stage::{Compile, Emit, Next, Shown, Stage, Value, Work};
use super::stages::StageConfig;

thread_local! {
    /// What the clock shows, and when it was set.
    static CLOCK: Cell<Option<(i64, Instant)>> = const { Cell::new(None) };
}

/// The time of tests: what was set, and what passed since on the paused clock of tokio.
pub(super) fn clock_ns() -> Option<i64> {
    CLOCK.get().map(|(ns, set)| ns + set.elapsed().as_nanos() as i64)
}

/// Sets the time of the test that runs, in nanoseconds since the Unix epoch.
pub(super) fn set_clock(ns: i64) {
    CLOCK.set(Some((ns, Instant::now())));
}

/// When the recorder's clock began: 2026-08-21T12:00:00Z.
const RECORDED_NOW_NS: i64 = 1_787_313_600_000_000_000;

#[derive(Arguments, Clone, Debug, PartialEq)]
struct Stages {
    /// The stages.
    #[block(group = "stage")]
    stages: Vec<StageConfig>,
}

/// Reads stages.
///
/// # Errors
///
/// What is wrong with them, without the place.
pub(super) fn stages(config: &str) -> Result<Vec<StageConfig>, String> {
    let parsed = corten_syntax::parse("test", &format!("component {{\n{config}\n}}"));
    if parsed.diagnostics.has_errors() {
        return Err(parsed.diagnostics.to_string());
    }
    let [Stmt::Block(block)] = &*parsed.file.body else { return Err("no block".to_owned()) };
    let cx = DecodeContext { scope: &(), minimum: Stability::Experimental };
    match decode::<Stages>(block, &cx) {
        Ok(decoded) => Ok(decoded.value.stages),
        Err(errors) => Err(errors.to_string()),
    }
}

/// Compiles stages.
pub(super) fn program(config: &str, registry: &Registry) -> Result<Program, String> {
    program_of(config, registry, &Ledger::new("loki.process.a"))
}

/// As [`program`], of a component with these books.
pub(super) fn program_of(config: &str, registry: &Registry, ledger: &Ledger) -> Result<Program, String> {
    let logger = Logger::new(LogSink::memory().0);
    Program::new(&stages(config)?, registry, &logger, ledger).map_err(|error| error.to_string())
}

/// Notes entries, with the extracted map, at the end of a pipeline.
struct Probe {
    seen: Arc<Mutex<Vec<Json>>>,
    began: Instant,
}

fn text(bytes: &[u8]) -> Json {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => json!({ "bytes": bytes }),
    }
}

/// The bytes of a text of a recorded case.
fn bytes(value: &Json) -> Vec<u8> {
    match value {
        Json::String(text) => text.clone().into_bytes(),
        Json::Object(object) => base64(object["b64"].as_str().expect("base64")),
        other => panic!("no text: {other}"),
    }
}

fn base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let (mut out, mut bits, mut count) = (Vec::new(), 0u32, 0);
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        bits = bits << 6 | u32::from(digit(byte));
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    out
}

/// What is not UTF-8 has one form on both sides.
fn plain(value: &Json) -> Json {
    match value {
        Json::Object(object) if object.len() == 1 && object.contains_key("b64") => text(&bytes(value)),
        Json::Object(object) => object.iter().map(|(name, value)| (name.clone(), plain(value))).collect(),
        Json::Array(list) => list.iter().map(plain).collect(),
        other => other.clone(),
    }
}

impl Stage for Probe {
    fn run(&self, work: &mut Work, _: &mut Emit) -> Next {
        let mut entry = Map::new();
        entry.insert("line".to_owned(), text(work.bytes(work.line())));
        entry.insert("ns".to_owned(), work.timestamp_ns().into());
        let metadata: Vec<Json> =
            work.metadata().iter().map(|(n, v)| json!([text(work.bytes(*n)), text(work.bytes(*v))])).collect();
        if !metadata.is_empty() {
            entry.insert("metadata".to_owned(), metadata.into());
        }
        let stream = work.stream();
        let labels: Map<String, Json> = stream.labels().iter().map(|(n, v)| (n.to_owned(), v.into())).collect();
        entry.insert("labels".to_owned(), labels.into());
        let mut extracted = Map::new();
        work.for_each_value(|name, value| {
            let value = match value {
                Shown::Text(bytes) => text(bytes),
                Shown::Other(Value::Bool(value)) => value.into(),
                Shown::Other(Value::Float(value)) => json!(value),
                Shown::Other(Value::Uint(value)) => json!({ "uint": value }),
                Shown::Other(Value::Opaque) => json!({ "json": null }),
                Shown::Other(Value::Nil | Value::Absent | Value::Text(_)) => Json::Null,
            };
            extracted.insert(String::from_utf8_lossy(name).into_owned(), value);
        });
        entry.insert("extracted".to_owned(), extracted.into());
        let at = self.began.elapsed().as_millis() as u64;
        if at > 0 {
            entry.insert("at_ms".to_owned(), at.into());
        }
        self.seen.lock().push(entry.into());
        Next::Keep
    }
}

/// What a pipeline made of entries.
#[derive(Debug)]
pub(super) struct Ran {
    /// The entries that came out, in the form of recorded cases: `line`, `ns`, `labels`, `extracted`, and `metadata` if there
    /// is some.
    pub(super) entries: Vec<Json>,
    /// The metrics at the end, without those that are zero, each with its labels.
    pub(super) metrics: BTreeMap<String, String>,
    /// The same at each entry that says `scrape`.
    pub(super) scrapes: Vec<BTreeMap<String, String>>,
}

impl Ran {
    /// The lines that came out.
    pub(super) fn lines(&self) -> Vec<&str> {
        self.entries.iter().map(|entry| entry["line"].as_str().unwrap_or("(no text)")).collect()
    }
}

/// Runs stages over entries in the form of recorded cases, each a batch of its own. All acks have to be settled at the end.
pub(super) fn run(config: &str, entries: &[Json]) -> Result<Ran, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(run_within(config, entries, RECORDED_NOW_NS))
}

async fn run_within(config: &str, entries: &[Json], now_ns: i64) -> Result<Ran, String> {
    set_clock(now_ns);
    let registry = Registry::new();
    let seen: Arc<Mutex<Vec<Json>>> = Arc::default();
    let probe = Probe { seen: Arc::clone(&seen), began: Instant::now() };
    let logger = Logger::new(LogSink::memory().0);
    let last = |cx: &mut Compile<'_>| -> Box<dyn Stage> {
        cx.need_all_values();
        Box::new(probe)
    };
    let ledger = Ledger::new("loki.process.a");
    let program = Program::with_last(&stages(config)?, last, &registry, &logger, &ledger);
    let program = Arc::new(program.map_err(|error| error.to_string())?);
    let sink = LogsSink::default();
    let forward = Arc::new(Fanout::of(&ledger, vec![sink.receiver()]));
    let row = ledger.row(Kind::LokiLog);
    let timer = tokio::spawn({
        let (program, forward) = (Arc::clone(&program), Arc::clone(&forward));
        async move {
            loop {
                program.due().await;
                program.tick(&forward).await.expect("the sink takes all");
            }
        }
    });
    let mut waiters = Vec::new();
    let mut scrapes = Vec::new();
    for entry in entries {
        if let Some(wait) = entry.get("after_ms").and_then(Json::as_u64) {
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
        if entry.get("scrape").is_some_and(|scrape| scrape == &json!(true)) {
            scrapes.push(metrics(&registry));
            continue;
        }
        let (acks, waiter) = waiter();
        waiters.push(waiter);
        let batch = LogsBatch { acks, ..batch(entry) };
        program.consume(batch, &forward).await.expect("the sink takes all");
        row.received(1);
        let now = row.snapshot();
        assert_eq!((now.difference(), now.held), (0, program.held() as i64), "{now:?}\n{config}");
    }
    timer.abort();
    program.close(&forward).await.expect("the sink takes all");
    assert_eq!(program.held(), 0, "nothing is held after the end");
    assert_eq!(ledger.snapshot().open_sums(), [], "{:?}\n{config}", ledger.snapshot());
    assert_eq!(row.snapshot().out, sink.len() as u64);
    for mut waiter in waiters {
        let answer = waiter.wait(Duration::ZERO).await;
        assert!(matches!(answer, Answer::Safe | Answer::Held), "all acks are settled: {answer:?}");
    }
    let entries = std::mem::take(&mut *seen.lock());
    assert_eq!(sink.len(), entries.len(), "what the last stage saw came out");
    Ok(Ran { entries, metrics: metrics(&registry), scrapes })
}

fn batch(entry: &Json) -> LogsBatch {
    let labels: BTreeMap<String, String> = entry.get("labels").map_or_else(BTreeMap::new, |labels| {
        labels
            .as_object()
            .expect("labels")
            .iter()
            .map(|(n, v)| (n.clone(), String::from_utf8_lossy(&bytes(v)).into_owned()))
            .collect()
    });
    let mut builder = EntriesBuilder::new();
    let part = builder.stream(&Stream::of(labels.iter().map(|(n, v)| (&**n, &**v))).expect("labels"));
    let line = builder.own(&bytes(&entry["line"]));
    let ns = match (entry.get("ns"), entry.get("time").and_then(Json::as_str)) {
        (Some(ns), _) => ns.as_i64().expect("nanoseconds"),
        (None, Some(time)) => corten_golang::time::parse_rfc3339(time).expect("a time"),
        (None, None) => clock_ns().unwrap_or(0),
    };
    builder.push(part, ns, line);
    for pair in entry.get("metadata").and_then(Json::as_array).into_iter().flatten() {
        let (name, value) = (builder.own(&bytes(&pair[0])), builder.own(&bytes(&pair[1])));
        builder.push_metadata(name, value);
    }
    LogsBatch::of(builder.finish(0))
}

fn metrics(registry: &Registry) -> BTreeMap<String, String> {
    let mut snapshot = Snapshot::default();
    registry.gather(&[], &mut snapshot);
    metric_lines(&snapshot.to_text())
}

fn metric_lines(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.rsplit_once(' ')).filter(|(_, value)| *value != "0");
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Recorded cases that differ on purpose, by a part of their configuration, and why.
const DIFFERENT: &[(&str, &str)] = &[
    ("values = null", "null is the empty value of any argument here"),
    ("{ \"\" = ", "the empty name is the empty name, and no pair of quotes"),
    ("partials of ", "a line whose end is missing goes on when the pipeline ends"),
];

/// Runs the recorded cases of `tests/data/stages/<name>.json`, and says how many there are.
pub(super) fn recorded(name: &str) -> usize {
    let path = format!("{}/tests/data/stages/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let data: Json = serde_json::from_slice(&std::fs::read(&path).expect(&path)).expect("recorded cases");
    let cases = data["cases"].as_array().expect("cases");
    let mut wrong = Vec::new();
    for case in cases {
        let config = case["config"].as_str().expect("stages");
        let entries = case["entries"].as_array().map_or(&[][..], Vec::as_slice);
        let case_name = case["name"].as_str().unwrap_or_default();
        // The case may say itself that it differs on purpose, and why.
        let differs = case.get("differs").is_some();
        if differs || DIFFERENT.iter().any(|(part, _)| config.contains(part) || case_name.starts_with(part)) {
            continue;
        }
        let (expected, found) = match (case.get("error"), run(config, entries)) {
            // Errors of decoding are worded by the language, and tested there.
            // Where the reference crashes, an error is right.
            (Some(error), Err(_)) if error.as_str().is_some_and(|error| error.starts_with("panic")) => continue,
            (Some(error), Err(found)) if case["error_at"] == "build" => (error.clone(), without_place(&found).into()),
            (Some(error), Ok(_)) => (error.clone(), "no error".into()),
            (Some(_), Err(_)) => continue,
            (None, Err(found)) => ("no error".into(), found.into()),
            (None, Ok(ran)) => {
                let output = &case["output"];
                let metrics = output.get("metrics").and_then(Json::as_str).map(metric_lines);
                let scrapes = output.get("scrapes").and_then(Json::as_array).into_iter().flatten();
                let scrapes: Vec<_> = scrapes.map(|text| metric_lines(text.as_str().expect("metrics"))).collect();
                let entries = plain(output.get("entries").unwrap_or(&json!([])));
                (
                    json!({ "entries": entries, "metrics": metrics.unwrap_or_default(), "scrapes": scrapes }),
                    json!({ "entries": ran.entries, "metrics": ran.metrics, "scrapes": ran.scrapes }),
                )
            }
        };
        if !same(&expected, &found) {
            wrong.push(format!("{}\n{config}\n{}", case["name"], difference(case, &expected, &found)));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases of {name} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    cases.len()
}

/// What differs, entry by entry where as many came out as were expected.
fn difference(case: &Json, expected: &Json, found: &Json) -> String {
    let list = |value: &Json| value.get("entries").and_then(Json::as_array).cloned().unwrap_or_default();
    let (wanted, got) = (list(expected), list(found));
    if wanted.len() != got.len() || wanted.is_empty() {
        return format!("entries:  {}\nexpected: {expected}\nfound:    {found}\n", case["entries"]);
    }
    let pairs = wanted.iter().zip(&got).filter(|(a, b)| !same(a, b));
    let mut lines: Vec<_> = pairs.map(|(a, b)| format!("expected: {a}\nfound:    {b}\n")).collect();
    for part in ["metrics", "scrapes"] {
        if expected[part] != found[part] {
            lines.push(format!("expected: {}\nfound:    {}\n", expected[part], found[part]));
        }
    }
    lines.concat()
}

/// An error without `test:1:2: ` before it.
fn without_place(error: &str) -> &str {
    let place = error.strip_prefix("test:").and_then(|rest| Some(rest.split_once(": ")?.1));
    place.unwrap_or(error)
}

/// How far moments may lie apart, in milliseconds, and the times of entries that have none of their own: timers are late.
const LATE_MS_MAX: i64 = 20;
const LATE_NS_MAX: i64 = 2_000_000_000;

/// Equal, numbers by their values, moments about, and whatever has no string by that alone.
fn same(a: &Json, b: &Json) -> bool {
    let near = |name: &str, a: &Json, found: &Map<String, Json>| {
        let number = |name: &str| found.get(name).and_then(Json::as_i64).unwrap_or(0);
        let value = a.as_i64().unwrap_or(0);
        match name {
            "at_ms" => (value - number(name)).abs() <= LATE_MS_MAX,
            // What the recorder's own chain of stages took in before time passed has another time here.
            "ns" => value >= RECORDED_NOW_NS && value.abs_diff(number(name)) <= LATE_NS_MAX.unsigned_abs(),
            // What lies beyond the range of nanoseconds is at its end.
            "time" | "sec" | "nsec" => !(i64::MIN + 1000..=i64::MAX - 1000).contains(&number("ns")),
            _ => false,
        }
    };
    match (a, b) {
        (Json::Number(a), Json::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Json::Array(a), Json::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Json::Object(a), Json::Object(b)) => {
            let opaque = |object: &Map<String, Json>| object.len() == 1 && object.contains_key("json");
            (opaque(a) && opaque(b))
                || a.iter().all(|(name, a)| near(name, a, b) || b.get(name).is_some_and(|b| same(a, b)))
                    && b.keys().all(|name| {
                        a.contains_key(name)
                            || name == "at_ms"
                            || (name == "ns" && (a.contains_key("time") || a.contains_key("sec")))
                    })
        }
        (a, b) => a == b,
    }
}
