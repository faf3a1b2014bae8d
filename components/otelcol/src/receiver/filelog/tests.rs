use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use corten_component::Definition;
use corten_config::Value;
use corten_signal::ConsumeError;
use corten_testkit::{OtlpSink, Unit, World, host, stays, until};

use super::*;
use crate::storage::file::FileStorage;
use crate::testing::told;

fn definition() -> Definition {
    Definition::of::<Filelog>()
}

fn world() -> World {
    host("otelcol.receiver.filelog.a")
}

/// Reads `*.log` in the world's folder.
fn arguments(world: &World, body: &str) -> String {
    let include = if body.contains("include ") {
        String::new()
    } else {
        format!("include = [\"{}\"]\n", world.path("*.log").display())
    };
    format!("{include}poll_interval = \"20ms\"\n{body}\noutput {{\n logs = [sink]\n}}\n")
}

async fn start_in(world: World, sink: &OtlpSink, body: &str, values: &[(&str, Value)]) -> Result<Unit, String> {
    let text = arguments(&world, body);
    let mut with = vec![("sink", sink.value())];
    with.extend(values.iter().cloned());
    Unit::start_with(world, &definition(), &text, &with).await
}

async fn start(world: &World, sink: &OtlpSink, body: &str) -> Unit {
    start_in(world.clone(), sink, body, &[]).await.unwrap()
}

async fn refusal(body: &str) -> String {
    start_in(world(), &OtlpSink::default(), body, &[]).await.err().unwrap_or_default()
}

/// What became of the lines, once nothing is under way any more.
async fn balanced(world: &World, expected: &str) {
    let balance = || world.balance_of(corten_signal::Kind::OtelLog);
    let shown = || format!("{expected}, not {:?}", world.host().ledger.row(corten_signal::Kind::OtelLog));
    until(&shown(), || world.host().ledger.snapshot().open_sums().is_empty() && balance() == expected).await;
}

/// The records that arrived: pairs of a body and what else is known.
fn records(sink: &OtlpSink) -> Vec<serde_json::Value> {
    let mut all = Vec::new();
    for arrived in sink.batches() {
        let json: serde_json::Value = serde_json::from_str(&arrived.json).unwrap();
        for of in json["resourceLogs"].as_array().unwrap() {
            for scope in of["scopeLogs"].as_array().unwrap() {
                all.extend(scope["logRecords"].as_array().into_iter().flatten().cloned());
            }
        }
    }
    all
}

fn bodies(sink: &OtlpSink) -> Vec<String> {
    let text = |record: serde_json::Value| record["body"]["stringValue"].as_str().unwrap_or_default().to_owned();
    records(sink).into_iter().map(text).collect()
}

fn sorted(sink: &OtlpSink) -> Vec<String> {
    let mut bodies = bodies(sink);
    bodies.sort();
    bodies
}

fn attribute(record: &serde_json::Value, name: &str) -> Option<String> {
    let attributes = record["attributes"].as_array()?;
    let value = &attributes.iter().find(|attribute| attribute["key"] == name)?["value"];
    let text = value["stringValue"].as_str().or(value["intValue"].as_str());
    Some(text.map_or_else(|| value.to_string(), str::to_owned))
}

fn append(path: &Path, text: impl AsRef<[u8]>) {
    OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(text.as_ref()).unwrap();
}

async fn arrive(sink: &OtlpSink, expected: &[&str]) {
    until(&format!("{expected:?} arrive, not {:?}", bodies(sink)), || bodies(sink) == expected).await;
}

const BEGINNING: &str = "start_at = \"beginning\"\n";

#[tokio::test]
async fn lines_arrive_with_what_is_known_of_their_files() {
    let (world, sink) = (world(), OtlpSink::default());
    world.write("a.log", "one\n  two  \r\n\nthree\nunfinished");
    let body = format!(
        "{BEGINNING}include_file_path = true\ninclude_file_path_resolved = true\ninclude_file_record_number = true\n\
         include_file_permissions = true\nattributes = {{x = \"y\", first = \"EXPR(body[0:1])\"}}\n\
         resource = {{\"service.name\" = \"EXPR(upper(body))\"}}\nforce_flush_period = \"0s\""
    );
    let unit = start(&world, &sink, &body).await;
    arrive(&sink, &["one", "two", "three"]).await;
    let all = records(&sink);
    let path = world.path("a.log").display().to_string();
    for (record, number) in all.iter().zip(["1", "2", "4"]) {
        assert_eq!(attribute(record, "log.file.name").as_deref(), Some("a.log"));
        assert_eq!(attribute(record, "log.file.path").as_deref(), Some(&*path));
        assert_eq!(attribute(record, "log.file.record_number").as_deref(), Some(number));
        assert_eq!(attribute(record, "x").as_deref(), Some("y"));
        assert_eq!(attribute(record, "log.file.permissions").map(|digits| digits.len()), Some(3));
        assert!(record["observedTimeUnixNano"].as_str().is_some_and(|time| time.len() == 19));
        assert!(record.get("timeUnixNano").is_none_or(|time| time == "0"));
    }
    assert_eq!(attribute(&all[1], "first").as_deref(), Some("t"));
    // Each resource has its own.
    assert!(sink.batches()[0].json.contains("\"TWO\""));
    append(&world.path("a.log"), " line\n");
    arrive(&sink, &["one", "two", "three", "unfinished line"]).await;
    let labels = [
        ("receiver", "filelog/otelcol.receiver.filelog.a"),
        ("otel_scope_name", "go.opentelemetry.io/collector/receiver/receiverhelper"),
        ("otel_scope_version", ""),
        ("otel_scope_schema_url", ""),
        ("transport", ""),
    ];
    assert_eq!(unit.world.metrics().get("otelcol_receiver_accepted_log_records_total", &labels), Some(4.0));
    balanced(&world, "received 5, out 4, dropped {empty: 1}").await;
}

#[tokio::test]
async fn a_file_that_is_there_is_begun_with_at_its_end_and_one_that_comes_at_its_beginning() {
    let (world, sink) = (world(), OtlpSink::default());
    world.write("a.log", "old\n");
    let _unit = start(&world, &sink, "").await;
    until("it is open", || told(&world).iter().any(|line| line == "open_files = 1")).await;
    stays("nothing arrives", Duration::from_millis(200), || sink.items() == 0).await;
    append(&world.path("a.log"), "new\n");
    arrive(&sink, &["new"]).await;
    world.write("b.log", "first\n");
    arrive(&sink, &["new", "first"]).await;
}

#[tokio::test]
async fn an_unfinished_line_is_sent_after_a_while() {
    let (world, sink) = (world(), OtlpSink::default());
    world.write("a.log", "one\ntwo");
    let _unit = start(&world, &sink, &format!("{BEGINNING}force_flush_period = \"100ms\"")).await;
    arrive(&sink, &["one", "two"]).await;
    append(&world.path("a.log"), " and a half\n");
    arrive(&sink, &["one", "two", "and a half"]).await;
}

#[tokio::test]
async fn nothing_is_lost_over_rotation_and_truncation() {
    let (world, sink) = (world(), OtlpSink::default());
    let path = world.path("a.log");
    append(&path, "0\n");
    let _unit = start(&world, &sink, BEGINNING).await;
    let mut expected = vec!["0".to_owned()];
    for round in 1..8 {
        let line = format!("{round}");
        append(&path, format!("{line}\n"));
        expected.push(line);
        if round % 2 == 0 {
            // The name of the rotated file is not one that is looked for.
            fs::rename(&path, world.path(&format!("a.log.{round}"))).unwrap();
            let late = format!("{round} late");
            append(&world.path(&format!("a.log.{round}")), format!("{late}\n"));
            expected.push(late);
        }
        until("the line arrives", || bodies(&sink).len() >= expected.len()).await;
    }
    File::options().write(true).truncate(true).open(&path).unwrap();
    append(&path, "after\n");
    expected.push("after".to_owned());
    until("all arrive", || bodies(&sink).len() >= expected.len()).await;
    assert_eq!(bodies(&sink), expected);
}

async fn storage(world: &World) -> (Unit, Value) {
    let folder = world.path("kept").display().to_string();
    let definition = Definition::of::<FileStorage>();
    let unit =
        Unit::start(host("otelcol.storage.file.a"), &definition, &format!("directory = \"{folder}\"")).await.unwrap();
    let handler = unit.world.exports().last().and_then(|exports| exports.field("handler")).unwrap();
    (unit, handler)
}

#[tokio::test]
async fn with_storage_reading_goes_on_where_everything_is_safe() {
    let (world, sink) = (world(), OtlpSink::default());
    let path = world.write("a.log", "one\ntwo\n");
    let (_storage, handler) = storage(&world).await;
    let values = [("kept", handler)];
    let body = format!("{BEGINNING}storage = kept");
    let mut unit = start_in(world.clone(), &sink, &body, &values).await.unwrap();
    arrive(&sink, &["one", "two"]).await;
    unit.drain().await;
    append(&path, "three\n");
    // What nobody says is safe is read again.
    sink.keep_acks();
    let mut unit = start_in(world.clone(), &sink, &body, &values).await.unwrap();
    arrive(&sink, &["one", "two", "three"]).await;
    sink.settle(false);
    unit.drain().await;
    let after = OtlpSink::default();
    // Where to begin does not count any more.
    let mut unit = start_in(world.clone(), &after, "storage = kept", &values).await.unwrap();
    until("the line is read again", || bodies(&after).contains(&"three".to_owned())).await;
    append(&path, "four\n");
    until("the next arrives", || bodies(&after).contains(&"four".to_owned())).await;
    assert!(!bodies(&after).contains(&"one".to_owned()));
    unit.drain().await;
    // Without storage nothing is remembered.
    let other = OtlpSink::default();
    let _unit = start(&world, &other, BEGINNING).await;
    arrive(&other, &["one", "two", "three", "four"]).await;
}

#[tokio::test]
async fn a_reload_loses_nothing_and_repeats_nothing() {
    let (world, sink) = (world(), OtlpSink::default());
    let path = world.write("a.log", "");
    let mut unit = start(&world, &sink, "").await;
    let mut expected = Vec::new();
    for round in 0..6 {
        for line in 0..50 {
            let line = format!("{round} {line}");
            append(&path, format!("{line}\n"));
            expected.push(line);
        }
        if round == 2 {
            // One that comes while settings change is new as a whole.
            world.write("b.log", "b\n");
            expected.push("b".to_owned());
        }
        let body = format!("attributes = {{round = \"{round}\"}}");
        let text = arguments(&world, &body);
        unit.update(&text).await.unwrap();
    }
    until("all arrive", || bodies(&sink).len() >= expected.len()).await;
    stays("no more arrive", Duration::from_millis(200), || bodies(&sink).len() == expected.len()).await;
    let mut found = bodies(&sink);
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    balanced(&world, &format!("received {0}, out {0}", expected.len())).await;
}

#[tokio::test]
async fn operators_make_of_lines_what_they_are_told_to() {
    let (world, sink) = (world(), OtlpSink::default());
    world.write(
        "a.log",
        concat!(
            r#"{"ts":"2024-05-06 07:08:09.123","level":"warning","msg":"hello","app":"x","trace":"0102030405060708090a0b0c0d0e0f10"}"#,
            "\n",
            "plain\n",
            r#"{"ts":"2024-05-06 07:08:10.000","level":"debug","msg":"no","app":"x"}"#,
            "\n",
            r#"{"ts":"2024-05-06 07:08:11.000","level":"info","msg":"other","app":"z"}"#,
            "\n",
        ),
    );
    let body = format!(
        r#"{BEGINNING}operators = [
  {{ type = "json_parser", if = "body startsWith \"{{\"",
    timestamp = {{ parse_from = "attributes.ts", layout = "%Y-%m-%d %H:%M:%S.%L", location = "UTC" }},
    severity = {{ parse_from = "attributes.level" }},
    trace = {{ trace_id = {{ parse_from = "attributes.trace" }} }},
    scope_name = {{ parse_from = "attributes.app" }}, on_error = "send_quiet" }},
  {{ type = "filter", expr = "attributes.level == \"debug\"" }},
  {{ type = "move", from = "attributes.msg", to = "body", if = "attributes.msg != nil" }},
  {{ type = "move", from = "attributes.app", to = "resource[\"service.name\"]", if = "\"app\" in attributes" }},
  {{ type = "retain", fields = ["attributes.level"] }},
]"#
    );
    let _unit = start(&world, &sink, &body).await;
    arrive(&sink, &["hello", "plain", "other"]).await;
    let all = records(&sink);
    assert_eq!(all[0]["timeUnixNano"], "1714979289123000000");
    assert_eq!((&all[0]["severityNumber"], &all[0]["severityText"]), (&13.into(), &"warning".into()));
    assert_eq!(all[0]["traceId"], "0102030405060708090a0b0c0d0e0f10");
    assert_eq!(attribute(&all[0], "level").as_deref(), Some("warning"));
    assert_eq!(attribute(&all[0], "log.file.name"), None);
    let json: serde_json::Value = serde_json::from_str(&sink.batches()[0].json).unwrap();
    let of = |at: usize| &json["resourceLogs"][at];
    assert_eq!(of(0)["resource"]["attributes"][0]["value"]["stringValue"], "x");
    assert_eq!(of(0)["scopeLogs"][0]["scope"]["name"], "x");
    assert_eq!(of(1)["scopeLogs"][0]["logRecords"][0]["body"]["stringValue"], "plain");
    balanced(&world, "received 4, out 3, dropped {filter: 1}").await;
}

#[tokio::test]
async fn lines_are_joined_by_patterns_and_by_operators() {
    let (world, sink) = (world(), OtlpSink::default());
    world.write("a.log", "[1] a\n  b\n[2] c\n[3] d\n");
    let multiline = "multiline {\n line_start_pattern = `^\\[`\n}\nforce_flush_period = \"50ms\"";
    let _unit = start(&world, &sink, &format!("{BEGINNING}{multiline}")).await;
    arrive(&sink, &["[1] a\n  b", "[2] c", "[3] d"]).await;

    let joined = OtlpSink::default();
    joined.keep_acks();
    let operators = r#"operators = [{ type = "recombine", combine_field = "body", is_first_entry = "body startsWith \"[\"",
      source_identifier = "attributes[\"log.file.name\"]", force_flush_period = "300ms" }]"#;
    let _unit = start(&world, &joined, &format!("{BEGINNING}{operators}")).await;
    arrive(&joined, &["[1] a\nb", "[2] c", "[3] d"]).await;
    balanced(&world, "received 7, out 6, merged {recombined: 1}").await;
}

#[tokio::test]
async fn what_operators_keep_is_not_safe() {
    let (world, sink) = (world(), OtlpSink::default());
    world.write("a.log", "[1] a\n b\n");
    let (_storage, handler) = storage(&world).await;
    let values = [("kept", handler)];
    let body = format!(
        "{BEGINNING}storage = kept\noperators = [{{ type = \"recombine\", combine_field = \"body\", \
         is_first_entry = \"body startsWith '['\", force_flush_period = \"1h\" }}]"
    );
    let unit = start_in(world.clone(), &sink, &body, &values).await.unwrap();
    stays("nothing arrives", Duration::from_millis(300), || sink.items() == 0).await;
    balanced(&world, "received 2, held 2").await;
    // As if the process was killed: nothing more is taken.
    sink.answer_with(Some(ConsumeError::Retry { after: None, reason: "gone".to_owned() }));
    let mut unit = unit;
    unit.drain().await;
    let after = OtlpSink::default();
    let mut unit = start_in(world.clone(), &after, &body, &values).await.unwrap();
    append(&world.path("a.log"), "[2] c\n");
    until("it arrives", || bodies(&after).contains(&"[1] a\nb".to_owned())).await;
    unit.drain().await;
    assert_eq!(bodies(&after), ["[1] a\nb", "[2] c"]);
    balanced(&world, "received 5, out 2, dropped {shutdown: 1}, merged {recombined: 2}").await;
}

#[tokio::test]
async fn records_that_are_not_taken_or_are_lost_are_sent_again() {
    let (world, sink) = (world(), OtlpSink::default());
    world.write("a.log", "one\ntwo\n");
    let refuses = ConsumeError::Retry { after: Some(Duration::from_millis(20)), reason: "full".to_owned() };
    sink.answer_with(Some(refuses));
    let _unit = start(&world, &sink, BEGINNING).await;
    stays("nothing arrives", Duration::from_millis(200), || sink.items() == 0).await;
    balanced(&world, "received 2, held 2").await;
    let shown = told(&world);
    assert_eq!(shown[..4], ["files = 1", "open_files = 1", "unread_bytes = 0", "pending_entries = 2"]);
    assert_eq!(
        shown[6..],
        ["size_bytes", "read_offset", "unread_bytes", "unsafe_batches"].map(|name| {
            let number = match name {
                "unread_bytes" => 0,
                "unsafe_batches" => 1,
                _ => 8,
            };
            format!("file.{name} = {number}")
        })
    );
    sink.keep_acks();
    sink.answer_with(None);
    arrive(&sink, &["one", "two"]).await;
    sink.settle(false);
    arrive(&sink, &["one", "two", "one", "two"]).await;
    sink.settle(true);
    append(&world.path("a.log"), "three\n");
    arrive(&sink, &["one", "two", "one", "two", "three"]).await;
    balanced(&world, "received 5, out 5").await;
}

#[tokio::test]
async fn records_that_are_not_taken_for_too_long_are_dropped_where_that_is_asked_for() {
    let (world, sink) = (world(), OtlpSink::default());
    world.write("a.log", "one\n");
    sink.answer_with(Some(ConsumeError::Retry { after: None, reason: "full".to_owned() }));
    let retry = "retry_on_failure {\n enabled = true\n initial_interval = \"10ms\"\n max_interval = \"20ms\"\n max_elapsed_time = \"100ms\"\n}";
    let unit = start(&world, &sink, &format!("{BEGINNING}{retry}")).await;
    until("it is dropped", || unit.world.logs().contains("max elapsed time expired")).await;
    sink.answer_with(None);
    append(&world.path("a.log"), "two\n");
    arrive(&sink, &["two"]).await;
    balanced(&world, "received 2, out 1, dropped {max elapsed time: 1}").await;
}

#[tokio::test]
async fn the_first_lines_say_something_of_all() {
    let (world, sink) = (world(), OtlpSink::default());
    let path = world.write("a.log", "# env=prod\n# team=x\none\n# no header any more\n");
    let (_storage, handler) = storage(&world).await;
    let values = [("kept", handler)];
    let body = format!(
        "{BEGINNING}storage = kept\nheader {{\n pattern = \"^#\"\n metadata_operators = [{{ type = \"regex_parser\", \
         regex = \"^# (?P<key>.*)\", parse_to = \"body\" }}, {{ type = \"key_value_parser\", parse_from = \"body.key\" }}]\n}}"
    );
    let mut unit = start_in(world.clone(), &sink, &body, &values).await.unwrap();
    arrive(&sink, &["one", "# no header any more"]).await;
    unit.drain().await;
    append(&path, "two\n");
    let _unit = start_in(world.clone(), &sink, &body, &values).await.unwrap();
    arrive(&sink, &["one", "# no header any more", "two"]).await;
    for record in records(&sink) {
        assert_eq!(attribute(&record, "env").as_deref(), Some("prod"), "{record}");
        assert_eq!(attribute(&record, "team").as_deref(), Some("x"));
    }
    // The lines of the header are no records.
    balanced(&world, "received 3, out 3").await;
}

#[tokio::test]
async fn a_header_that_is_read_again_is_no_record() {
    let (world, sink) = (world(), OtlpSink::default());
    sink.keep_acks();
    world.write("a.log", "# env=prod\none\n");
    let header = "header {\n pattern = \"^#\"\n metadata_operators = [{ type = \"regex_parser\", \
                  regex = \"^# env=(?P<env>.*)\" }]\n}";
    let _unit = start(&world, &sink, &format!("{BEGINNING}{header}")).await;
    arrive(&sink, &["one"]).await;
    sink.settle(false);
    arrive(&sink, &["one", "one"]).await;
    sink.settle(true);
    for record in records(&sink) {
        assert_eq!(attribute(&record, "env").as_deref(), Some("prod"), "{record}");
    }
}

fn gzip(path: PathBuf, text: &str) {
    fs::write(path, corten_coding::Coding::Gzip.pack(None, [text.as_bytes()]).unwrap()).unwrap();
}

#[tokio::test]
async fn compressed_files_are_read() {
    let (world, sink) = (world(), OtlpSink::default());
    gzip(world.path("a.log"), "one\ntwo\nthree");
    world.write("b.log", "plain\n");
    let _unit = start(&world, &sink, &format!("{BEGINNING}compression = \"auto\"")).await;
    until("all arrive", || sorted(&sink) == ["one", "plain", "three", "two"]).await;
    // What was read before it was compressed is not read again.
    fs::rename(world.path("b.log"), world.path("b.1")).unwrap();
    gzip(world.path("b.1.log"), "plain\nunread\n");
    fs::remove_file(world.path("b.1")).unwrap();
    until("the rest arrives", || sorted(&sink) == ["one", "plain", "three", "two", "unread"]).await;
}

#[tokio::test]
async fn files_are_deleted_when_all_of_them_is_safe() {
    let (world, sink) = (world(), OtlpSink::default());
    let path = world.write("a.log", "one\ntwo");
    sink.keep_acks();
    let _unit =
        start(&world, &sink, &format!("{BEGINNING}delete_after_read = true\nforce_flush_period = \"20ms\"")).await;
    arrive(&sink, &["one", "two"]).await;
    stays("it is kept", Duration::from_millis(200), || path.exists()).await;
    sink.settle(true);
    until("it is deleted", || !path.exists()).await;
}

#[tokio::test]
async fn files_are_read_in_other_encodings() {
    for (encoding, text, expected) in [
        ("utf-16le", "é one\r\ntwo\n".encode_utf16().flat_map(u16::to_le_bytes).collect(), vec!["é one", "two"]),
        ("big5", b"\xa4\xa4\xa4\xe5\nx\n".to_vec(), vec!["中文", "x"]),
        ("utf-8", b"a\xff\xfeb\n".to_vec(), vec!["a\u{fffd}\u{fffd}b"]),
        ("", b"a\n".to_vec(), vec!["a"]),
    ] {
        let (world, sink) = (world(), OtlpSink::default());
        world.write("a.log", &text);
        let _unit = start(&world, &sink, &format!("{BEGINNING}encoding = \"{encoding}\"")).await;
        arrive(&sink, &expected).await;
    }
    let (world, sink) = (world(), OtlpSink::default());
    world.write("a.log", b"\x00\x01\n\xff");
    let _unit = start(&world, &sink, &format!("{BEGINNING}encoding = \"nop\"")).await;
    until("the bytes arrive", || records(&sink).iter().any(|record| record["body"]["bytesValue"] == "AAEK/w==")).await;
}

#[tokio::test]
async fn only_so_many_files_are_read() {
    let (world, sink) = (world(), OtlpSink::default());
    for name in ["a", "b", "c", "d"] {
        world.write(&format!("{name}.log"), format!("{name}\n"));
    }
    let _unit = start(&world, &sink, &format!("{BEGINNING}max_concurrent_files = 2\nmax_batches = 3")).await;
    arrive(&sink, &["a", "b", "c"]).await;
    stays("no more are read", Duration::from_millis(200), || sink.items() == 3).await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_somebody_has_for_himself_waits() {
    let (world, sink) = (world(), OtlpSink::default());
    let path = world.write("a.log", "one\n");
    let file = File::options().write(true).open(path).unwrap();
    file.lock().unwrap();
    let _unit = start(&world, &sink, &format!("{BEGINNING}acquire_fs_lock = true\nfile_cache_advise = true")).await;
    stays("nothing arrives", Duration::from_millis(200), || sink.items() == 0).await;
    file.unlock().unwrap();
    arrive(&sink, &["one"]).await;
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_named() {
    for (body, expected) in [
        (
            "operators = [{ type = \"nosuch\" }]",
            "failed to parse 'operator': operator 1 (nosuch): unsupported type 'nosuch'",
        ),
        (
            "operators = [{ type = \"noop\" }, { type = \"regex_parser\" }]",
            "failed to parse 'operator': operator 2 (regex_parser): missing required field 'regex'",
        ),
        (
            "operators = [{ type = \"json_parser\", parse_from = \"bad\" }]",
            "operator 1 (json_parser): 'parse_from' unrecognized prefix",
        ),
        (
            "operators = [{ type = \"filter\", expr = \"body ==\" }]",
            "operator 1 (filter): failed to compile expression 'body ==': unexpected token EOF (1:7)",
        ),
        ("max_concurrent_files = 0", "'max_concurrent_files' must be positive"),
        ("max_batches = -1", "'max_batches' must not be negative"),
        ("delete_after_read = true", "'delete_after_read' cannot be used with 'start_at = end'"),
        ("encoding = \"nope\"", "invalid 'encoding': unsupported encoding 'nope'"),
        ("compression = \"zip\"", "invalid 'compression' type: zip"),
        ("start_at = \"middle\"", "invalid start_at location 'middle'"),
        ("fingerprint_size = \"8B\"", "'fingerprint_size' must be at least 16 bytes"),
        ("include = []", "'include' must be specified"),
        ("multiline {}", "either line_start_pattern or line_end_pattern must be set"),
        (
            "multiline {\n line_start_pattern = \"(\"\n}",
            "compile line start regex: error parsing regexp: missing closing )",
        ),
        (
            "header {\n pattern = \"^#\"\n metadata_operators = [{ type = \"noop\" }]\n}",
            "'header' cannot be specified with 'start_at: end'",
        ),
        (
            "start_at = \"beginning\"\nheader {\n pattern = \"^#\"\n metadata_operators = [{ type = \"filter\", expr = \"true\" }]\n}",
            "operator of type filter is not allowed in `metadata_operators`",
        ),
        ("ordering_criteria {\n sort_by {\n  sort_type = \"size\"\n }\n}", "invalid 'sort_type': size"),
        ("attributes = {x = \"EXPR(1 +)\"}", "compile embedded expression: unexpected token EOF"),
    ] {
        let refused = refusal(body).await;
        assert!(refused.contains(expected), "{body}\n{refused}");
    }
}
