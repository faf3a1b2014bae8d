//! Tests of the engine and of the component.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use corten_component::Definition;
use corten_component::metrics::Registry;
use corten_config::decode::Decode as _;
use corten_signal::acks::{Acks, Answer, Settle, Settled, waiter};
use corten_signal::logs::{EntriesBuilder, Logs, LogsBatch, Stream};
use corten_signal::{ConsumeError, Fanout, Kind, Ledger};
use corten_testkit::{Deed, Fickle, LogsSink, Unit, awaited_logs, host, logs};
use proptest::prelude::*;

use super::testing::{program, program_of, recorded};
use super::*;

const LIMIT: &str = "stage.limit {\n rate = 0.001\n burst = 1\n}";
const DROP: &str = "stage.drop { expression = \"no\" }";
const MULTILINE: &str = "stage.multiline { firstline = \"^S\" }";

#[test]
fn stages_work_together_as_in_the_reference() {
    assert!(recorded("edges") >= 55);
}

/// A source that only wants to know of the end.
struct End(Arc<parking_lot::Mutex<Option<Settled>>>);

impl Settle for End {
    fn settled(&self, _: u64, how: Settled) {
        *self.0.lock() = Some(how);
    }
}

/// The books of a component whose pipeline tests call themselves.
fn ledger() -> Arc<Ledger> {
    Ledger::new("loki.process.a")
}

/// Hands a batch to a pipeline, and counts it as the inlet would.
async fn consume(
    program: &Program,
    batch: LogsBatch,
    forward: &Fanout<Logs>,
    ledger: &Ledger,
) -> Result<(), ConsumeError> {
    let entries = batch.entries.len();
    program.consume(batch, forward).await?;
    ledger.row_of::<Logs>().received(entries);
    Ok(())
}

/// What was counted, in one line, after a look at whether the sums are even: what came, what went out, what was made,
/// dropped and merged, and what is held.
fn balance(ledger: &Ledger) -> String {
    assert_eq!(ledger.snapshot().open_sums(), [], "{:?}", ledger.snapshot());
    let row = ledger.row(Kind::LokiLog).snapshot();
    format!("{} {} {:?} {:?} {:?} {}", row.received, row.out, row.created, row.dropped, row.merged, row.held)
}

/// What became of a batch, and what the receiver got, when it says so of everything.
async fn fate(
    stages: &str,
    lines: &[&str],
    answer: Option<ConsumeError>,
) -> (Answer, Result<(), ConsumeError>, Vec<String>, String) {
    let sink = LogsSink::default();
    sink.answer_with(answer);
    let ledger = ledger();
    let program = program_of(stages, &Registry::new(), &ledger).unwrap();
    let (batch, mut waiter) = awaited_logs(&[("app", "web")], lines);
    let outcome = consume(&program, batch, &Fanout::of(&ledger, [sink.receiver()]), &ledger).await;
    (waiter.wait(Duration::ZERO).await, outcome, sink.texts(), balance(&ledger))
}

#[tokio::test(start_paused = true)]
async fn every_way_of_a_batch_ends_in_an_answer() {
    let refused = ConsumeError::Refused { reason: "no".to_owned() };
    for (stages, lines, answer, expected) in [
        ("", &["a"][..], None, (Answer::Safe, Ok(()), &["a"][..], "1 1 [] [] [] 0")),
        (DROP, &["a", "no"], None, (Answer::Safe, Ok(()), &["a"], "2 1 [] [(\"drop_stage\", 1)] [] 0")),
        // Nothing is left to be sent on.
        (DROP, &["no", "no"], None, (Answer::Safe, Ok(()), &[], "2 0 [] [(\"drop_stage\", 2)] [] 0")),
        (DROP, &["no"], Some(refused.clone()), (Answer::Safe, Ok(()), &[], "1 0 [] [(\"drop_stage\", 1)] [] 0")),
        (DROP, &["a", "no"], Some(refused.clone()), (Answer::Failed, Err(refused.clone()), &[], "0 0 [] [] [] 0")),
        (MULTILINE, &["S1", "a"], None, (Answer::Held, Ok(()), &[], "2 0 [] [] [(\"multiline\", 1)] 1")),
        (MULTILINE, &["before"], None, (Answer::Safe, Ok(()), &["before"], "1 1 [] [] [] 0")),
        // What is kept of a batch that is sent again was taken once too often.
        (
            MULTILINE,
            &["before", "S1", "a"],
            Some(refused.clone()),
            (Answer::Held, Err(refused.clone()), &[], "0 0 [(\"sent again\", 1)] [] [] 1"),
        ),
        (
            "stage.split_json { }",
            &["[1,2]", "[]"],
            None,
            (Answer::Safe, Ok(()), &["1", "2"], "2 2 [(\"split\", 1)] [(\"empty array\", 1)] [] 0"),
        ),
        (
            &format!("stage.split_json {{ }}\n{MULTILINE}"),
            &["[1,2]"],
            None,
            (Answer::Safe, Ok(()), &["1", "2"], "1 2 [(\"split\", 1)] [] [] 0"),
        ),
        (
            &format!("stage.split_json {{ }}\n{MULTILINE}"),
            &["[\"S\"]"],
            None,
            (Answer::Safe, Ok(()), &["\"S\""], "1 1 [] [] [] 0"),
        ),
    ] {
        let (answer, outcome, texts, balance) = fate(stages, lines, answer).await;
        let (expected_answer, expected_outcome, expected_texts, expected_balance) = expected;
        assert_eq!((answer, outcome), (expected_answer, expected_outcome), "{stages} {lines:?}");
        assert_eq!(texts, expected_texts, "{stages} {lines:?}");
        assert_eq!(balance, expected_balance, "{stages} {lines:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_held_is_safe_when_it_went_on() {
    let sink = LogsSink::default();
    sink.keep_acks();
    let program = program(MULTILINE, &Registry::new()).unwrap();
    let forward = Fanout::new([sink.receiver()]);
    let mut ends = Vec::new();
    for line in ["S1", "a", "b"] {
        let end: Arc<parking_lot::Mutex<Option<Settled>>> = Arc::default();
        let acks = Acks::new(0, Arc::new(End(Arc::clone(&end))));
        ends.push(end);
        program.consume(LogsBatch { acks, ..logs(&[("app", "web")], &[line]) }, &forward).await.unwrap();
    }
    assert!(ends.iter().all(|end| end.lock().is_none()));
    assert_eq!(program.held(), 1);
    program.close(&forward).await.unwrap();
    assert_eq!(sink.texts(), ["S1\na\nb"]);
    assert!(ends.iter().all(|end| end.lock().is_none()), "the sink has not said anything yet");
    sink.settle(true);
    assert!(ends.iter().all(|end| *end.lock() == Some(Settled::Safe)));
}

#[tokio::test(start_paused = true)]
async fn what_was_held_is_sent_again_as_long_as_the_receiver_asks_for_that() {
    let sink = LogsSink::default();
    let retry = ConsumeError::Retry { after: None, reason: "busy".to_owned() };
    for (refusal, seconds, expected) in [
        (retry.clone(), 10, Ok(())),
        (retry.clone(), 1000, Err(retry)),
        (ConsumeError::Refused { reason: "no".to_owned() }, 0, Err(ConsumeError::Refused { reason: "no".to_owned() })),
    ] {
        let ledger = ledger();
        let program = Arc::new(program_of(MULTILINE, &Registry::new(), &ledger).unwrap());
        let forward = Fanout::of(&ledger, [sink.receiver()]);
        let before = sink.len();
        let end: Arc<parking_lot::Mutex<Option<Settled>>> = Arc::default();
        let acks = Acks::new(0, Arc::new(End(Arc::clone(&end))));
        let batch = LogsBatch { acks, ..logs(&[("app", "web")], &["S1"]) };
        consume(&program, batch, &forward, &ledger).await.unwrap();
        assert_eq!(balance(&ledger), "1 0 [] [] [] 1");
        let reason = corten_signal::ledger::reason_of(&refusal);
        sink.answer_with(Some(refusal));
        let closing = tokio::spawn({
            let program = Arc::clone(&program);
            async move { program.close(&forward).await }
        });
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        if expected.is_ok() {
            sink.answer_with(None);
        }
        assert_eq!(closing.await.unwrap(), expected);
        sink.answer_with(None);
        let is_safe = expected.is_ok();
        assert_eq!(*end.lock(), Some(if is_safe { Settled::Safe } else { Settled::Failed }));
        assert_eq!(sink.len() - before, usize::from(is_safe));
        let expected = if is_safe { "1 1 [] [] [] 0".to_owned() } else { format!("1 0 [] [({reason:?}, 1)] [] 0") };
        assert_eq!(balance(&ledger), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_held_when_all_is_over_is_counted_as_lost() {
    let sink = LogsSink::default();
    let ledger = ledger();
    let forward = Fanout::of(&ledger, [sink.receiver()]);
    let stages = format!("{MULTILINE}\n{DROP}\nstage.cri {{ }}");
    // Replaced without a chance to send anything on.
    let program = program_of(&stages, &Registry::new(), &ledger).unwrap();
    let lines = ["S1", "a", "S2", "S3 no", "t stdout P x"];
    consume(&program, logs(&[("app", "web")], &lines), &forward, &ledger).await.unwrap();
    assert_eq!(balance(&ledger), r#"5 2 [] [] [("multiline", 2)] 1"#);
    drop(program);
    assert_eq!(balance(&ledger), r#"5 2 [] [("shutdown", 1)] [("multiline", 2)] 0"#);
    // Broken off while it sends on.
    let program = program_of(&stages, &Registry::new(), &ledger).unwrap();
    let lines = ["t stdout P x", "S1", "S2 no", "S3"];
    consume(&program, logs(&[("app", "web")], &lines), &forward, &ledger).await.unwrap();
    assert_eq!(
        (balance(&ledger), program.held()),
        (r#"9 3 [] [("shutdown", 1), ("drop_stage", 1)] [("multiline", 2)] 2"#.to_owned(), 2)
    );
    sink.answer_with(Some(ConsumeError::Retry { after: None, reason: "busy".to_owned() }));
    assert!(tokio::time::timeout(Duration::from_secs(5), program.close(&forward)).await.is_err());
    assert_eq!(balance(&ledger), r#"9 3 [] [("shutdown", 3), ("drop_stage", 1)] [("multiline", 2)] 0"#);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_waits_for_a_limit_is_given_back_when_the_pipeline_ends() {
    let sink = LogsSink::default();
    let mut unit = Unit::start_with(
        host("loki.process.a"),
        &Definition::of::<Process>(),
        &format!("forward_to = [sink]\n{LIMIT}"),
        &[("sink", sink.value())],
    )
    .await
    .unwrap();
    let receiver = unit.world.receiver::<Logs>("receiver");
    receiver.consume(logs(&[("app", "web")], &["passes"])).await.unwrap();
    let (batch, mut waiter) = awaited_logs(&[("app", "web")], &["a", "b"]);
    let waiting = tokio::spawn(async move { receiver.consume(batch).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished());
    unit.drain().await;
    assert!(matches!(waiting.await.unwrap(), Err(ConsumeError::Retry { .. })));
    assert_eq!(waiter.wait(Duration::ZERO).await, Answer::Failed);
    assert_eq!(sink.texts(), ["passes"], "what was given back was not sent on");
    assert_eq!(unit.world.balance_of(Kind::LokiLog), "taken 1, out 1");
}

#[tokio::test(start_paused = true)]
async fn what_passed_a_limit_does_not_wait_long_for_the_rest_of_its_batch() {
    let sink = LogsSink::default();
    let limit = |rate| format!("forward_to = [sink]\nstage.limit {{\n rate = {rate}\n burst = 1\n}}");
    let names = [("sink", sink.value())];
    let mut unit =
        Unit::start_with(host("loki.process.a"), &Definition::of::<Process>(), &limit(1), &names).await.unwrap();
    let receiver = unit.world.receiver::<Logs>("receiver");
    let lines: Vec<String> = (0..100).map(|at| at.to_string()).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let (batch, mut waiter) = awaited_logs(&[("app", "web")], &lines);
    let waiting = tokio::spawn(async move { receiver.consume(batch).await });
    for seconds in 1..50 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(sink.len() + 6 >= seconds, "{} after {seconds} s", sink.len());
        assert!(sink.len() <= seconds + 1);
    }
    assert!(!waiting.is_finished());
    // Part of the batch went on: given back, it would come twice. So the rest waits no longer.
    unit.drain().await;
    assert_eq!(waiting.await.unwrap(), Ok(()));
    assert_eq!(waiter.wait(Duration::ZERO).await, Answer::Safe);
    assert_eq!(sink.texts(), lines);
    assert_eq!(unit.world.balance_of(Kind::LokiLog), "taken 100, out 100");
}

#[tokio::test(start_paused = true)]
async fn what_went_on_of_a_batch_whose_sender_gives_up_is_counted() {
    let sink = LogsSink::default();
    let body = "forward_to = [sink]\nstage.limit {\n rate = 1\n burst = 1\n}";
    let names = [("sink", sink.value())];
    let unit = Unit::start_with(host("loki.process.a"), &Definition::of::<Process>(), body, &names).await.unwrap();
    let receiver = unit.world.receiver::<Logs>("receiver");
    let lines = vec!["x"; 100];
    let call = receiver.consume(logs(&[("app", "web")], &lines));
    assert!(tokio::time::timeout(Duration::from_secs(30), call).await.is_err());
    let out = sink.len();
    assert!(out > 0);
    assert_eq!(unit.world.balance_of(Kind::LokiLog), format!("out {out}, created {{sent again: {out}}}"));
}

#[tokio::test(start_paused = true)]
async fn a_batch_whose_sender_gives_up_has_failed_and_others_pass() {
    let sink = LogsSink::default();
    let ledger = ledger();
    let program = program_of(LIMIT, &Registry::new(), &ledger).unwrap();
    let forward = Fanout::of(&ledger, [sink.receiver()]);
    consume(&program, logs(&[("app", "web")], &["passes"]), &forward, &ledger).await.unwrap();
    let (batch, mut waiter) = awaited_logs(&[("app", "web")], &["a", "b"]);
    assert!(tokio::time::timeout(Duration::from_secs(5), consume(&program, batch, &forward, &ledger)).await.is_err());
    assert_eq!(waiter.wait(Duration::ZERO).await, Answer::Failed);
    tokio::time::sleep(Duration::from_secs(1000)).await;
    consume(&program, logs(&[("app", "web")], &["c"]), &forward, &ledger).await.unwrap();
    assert_eq!(sink.texts(), ["passes", "c"]);
    assert_eq!(balance(&ledger), "2 2 [] [] [] 0");
}

#[tokio::test]
async fn what_is_wrong_with_a_stage_is_said_at_its_place() {
    for (body, expected) in [
        (
            "stage.regex { expression = \"(\" }",
            "test:3:15: invalid stage config could not compile regular expression: error parsing regexp: missing closing \
             ): `(`",
        ),
        (
            "stage.json { expressions = { a = \"b.\" } }",
            "test:3:14: invalid stage config could not compile JMES expression: SyntaxError: Expected identifier, \
             lbracket, or lbrace",
        ),
        (
            "stage.match {\n selector = \"{app=\\\"web\\\"}\"\n stage.timestamp {\n  source = \"t\"\n  format = \"Unix\"\n  location = \"No/Where\"\n }\n}",
            "test:8:3: invalid stage config invalid location specified: %v: unknown time zone No/Where",
        ),
        ("stage.pattern { pattern = \"<a><b>\" }", "consecutive"),
        ("stage.nonsense { }", "unrecognized block name \"stage.nonsense\""),
    ] {
        let body = format!("forward_to = []\n{body}");
        let error = Unit::start_with(host("loki.process.a"), &Definition::of::<Process>(), &body, &[]).await.err();
        let error = error.unwrap_or_default();
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reload_that_is_refused_changes_nothing() {
    let sink = LogsSink::default();
    let body = |stages: &str| format!("forward_to = [sink]\n{stages}");
    let mut unit = Unit::start_with(
        host("loki.process.a"),
        &Definition::of::<Process>(),
        &body(MULTILINE),
        &[("sink", sink.value())],
    )
    .await
    .unwrap();
    let receiver = unit.world.receiver::<Logs>("receiver");
    receiver.consume(logs(&[("app", "web")], &["S1"])).await.unwrap();
    assert!(unit.update(&body("stage.regex { expression = \"(\" }")).await.is_err());
    receiver.consume(logs(&[("app", "web")], &["a"])).await.unwrap();
    assert_eq!(unit.world.balance_of(Kind::LokiLog), "taken 2, merged {multiline: 1}, held 1");
    // Another pipeline sends on what this one kept.
    unit.update(&body(DROP)).await.unwrap();
    receiver.consume(logs(&[("app", "web")], &["no"])).await.unwrap();
    unit.drain().await;
    assert_eq!(sink.texts(), ["S1\na"]);
    let expected = "taken 3, out 1, dropped {drop_stage: 1}, merged {multiline: 1}";
    assert_eq!(unit.world.balance_of(Kind::LokiLog), expected);
    let gone = receiver.consume(logs(&[], &["x"])).await;
    assert_eq!(gone, Err(ConsumeError::Exited { component: "loki.process.a".to_owned() }));
}

#[tokio::test(start_paused = true)]
async fn an_ordered_pipeline_takes_batches_one_after_the_other() {
    let sink = LogsSink::default();
    let stages = "stage.limit {\n rate = 1\n burst = 1\n}";
    let program = Arc::new(program(stages, &Registry::new()).unwrap());
    let forward = Fanout::new([sink.receiver()]);
    let mut tasks = Vec::new();
    for at in 0..20 {
        let (program, forward) = (Arc::clone(&program), forward.clone());
        tasks.push(tokio::spawn(async move {
            let (first, second) = (format!("{at} first"), format!("{at} second"));
            program.consume(logs(&[("app", "web")], &[&first, &second]), &forward).await.unwrap();
        }));
        tokio::task::yield_now().await;
    }
    for task in tasks {
        task.await.unwrap();
    }
    let expected: Vec<_> = (0..20).flat_map(|at| [format!("{at} first"), format!("{at} second")]).collect();
    assert_eq!(sink.texts(), expected);
}

/// A pipeline that touches everything that is used again from entry to entry.
const EVERYTHING: &str = r#"
    stage.json {
        expressions = { level = "", msg = "", n = "n[0]", nested = "" }
        regex = "^x"
    }
    stage.logfmt { mapping = { level = "", key = "" } }
    stage.regex {
        expression = "(?P<word>[a-z]+) (?P<rest>.*)"
        labels_from_groups = true
    }
    stage.match {
        selector = "{app=\"web\"} |= \"a\""
        stage.static_labels { values = { matched = "yes" } }
        stage.output { source = "msg" }
    }
    stage.labels { values = { level = "", key = "", app2 = "app" } }
    stage.structured_metadata { values = { n = "", word = "" } }
    stage.split_json { }
    stage.template {
        source = "t"
        template = "{{ .level }}/{{ .Entry }}/{{ .app }}/{{ .word }}"
    }
    stage.labels { values = { t = "" } }
    stage.label_drop { values = ["word", "rest"] }
    stage.drop {
        source = "level"
        value = "debug"
    }
"#;

type Shown = (String, i64, String, Vec<(String, String)>);

async fn through(batches: Vec<LogsBatch>, stages: &str) -> Vec<Shown> {
    let sink = LogsSink::default();
    let ledger = ledger();
    let program = program_of(stages, &Registry::new(), &ledger).unwrap();
    let forward = Fanout::of(&ledger, [sink.receiver()]);
    for batch in batches {
        let (acks, mut waiter) = waiter();
        consume(&program, LogsBatch { acks, ..batch }, &forward, &ledger).await.unwrap();
        assert_eq!(waiter.wait(Duration::ZERO).await, Answer::Safe);
    }
    balance(&ledger);
    let mut shown: Vec<Shown> =
        sink.lines().into_iter().map(|line| (line.stream, line.timestamp_ns, line.line, line.metadata)).collect();
    // A batch is grouped by streams: what counts is the order within each.
    shown.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    shown
}

fn batch(entries: &[(u8, Vec<u8>, bool)], first: i64) -> LogsBatch {
    let mut builder = EntriesBuilder::new();
    for (at, (stream, line, with_metadata)) in entries.iter().enumerate() {
        let app = ["web", "db", "", "other"][usize::from(stream % 4)];
        let labels = BTreeMap::from([("app", app), ("level", "info")]);
        let labels = labels.into_iter().take(usize::from(stream % 3));
        let part = builder.stream(&Stream::of(labels).unwrap());
        let line = builder.own(line);
        builder.push(part, first + at as i64, line);
        if *with_metadata {
            let (name, value) = (builder.own(b"meta"), builder.own(b"data"));
            builder.push_metadata(name, value);
        }
    }
    LogsBatch::of(builder.finish(0))
}

fn line() -> impl Strategy<Value = Vec<u8>> {
    let text = prop_oneof![
        Just(r#"{"level":"warn","msg":"a text","n":[1,2],"x1":{"a":1}}"#.to_owned()),
        Just(r#"{"level":"debug","msg":null,"xy":"\u00e9"}"#.to_owned()),
        Just(r#"level=error key="a b" msg=x"#.to_owned()),
        Just("word and rest".to_owned()),
        Just("[1, {\"level\":2}, \"x\"]".to_owned()),
        "[a-z \"{}:=\\[\\]0-9,]{0,30}",
    ];
    prop_oneof![
        9 => text.prop_map(String::into_bytes),
        1 => proptest::collection::vec(any::<u8>(), 0..20),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn entries_leave_nothing_behind_for_the_next(
        entries in proptest::collection::vec((any::<u8>(), line(), any::<bool>()), 1..30),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let together = through(vec![batch(&entries, 0)], EVERYTHING).await;
            let mut apart = Vec::new();
            for (at, entry) in entries.iter().enumerate() {
                apart.extend(through(vec![batch(std::slice::from_ref(entry), at as i64)], EVERYTHING).await);
            }
            apart.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
            prop_assert_eq!(together, apart);
            Ok(())
        })?;
    }
}

/// Stages that keep, drop, join and multiply entries, or have them wait.
const KEEPING: [&str; 8] = [
    MULTILINE,
    "stage.multiline {\n firstline = \"^S\"\n max_lines = 2\n max_wait_time = \"1s\"\n}",
    "stage.cri { }",
    "stage.cri {\n max_partial_lines = 1\n}",
    "stage.split_json { }",
    DROP,
    "stage.limit {\n rate = 2\n burst = 1\n}",
    "stage.json {\n expressions = { a = \"\" }\n drop_malformed = true\n}",
];

const LINES: [&str; 7] = ["S", "a", "no", "t stdout P b", "t stdout F c", "[\"S\",2,\"no\"]", "[]"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever the receivers behind a pipeline do, whether senders wait or give up, and whatever it is replaced by: each
    /// entry is somewhere.
    #[test]
    fn every_sum_is_even_at_rest(
        sinks in proptest::collection::vec(Deed::some(), 1..3),
        pipelines in proptest::collection::vec(proptest::collection::vec(0..KEEPING.len(), 0..4), 1..4),
        batches in proptest::collection::vec(
            (proptest::collection::vec((0..LINES.len(), 0..2usize), 0..6), any::<bool>(), 0..8usize),
            1..16,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let inlets: Vec<_> = (0..sinks.len()).map(|at| Inlet::<Logs>::new(format!("loki.write.{at}"))).collect();
            for (inlet, deeds) in inlets.iter().zip(&sinks) {
                inlet.attach(Arc::new(Fickle::new(deeds)));
            }
            let names: Vec<(&str, _)> =
                ["a", "b"].into_iter().zip(inlets.iter().map(|inlet| inlet.receiver().to_value())).collect();
            let to = if sinks.len() == 1 { "a" } else { "a, b" };
            let bodies: Vec<String> = pipelines
                .iter()
                .map(|stages| {
                    let stages: Vec<&str> = stages.iter().map(|at| KEEPING[*at]).collect();
                    format!("forward_to = [{to}]\n{}", stages.join("\n"))
                })
                .collect();
            let definition = Definition::of::<Process>();
            let mut unit =
                Unit::start_with(host("loki.process.a"), &definition, &bodies[0], &names).await.unwrap();
            let receiver = unit.world.receiver::<Logs>("receiver");
            for (lines, patient, then) in &batches {
                let mut builder = EntriesBuilder::new();
                for (line, app) in lines {
                    let part = builder.stream(&Stream::of([("app", ["x", "y"][*app])]).unwrap());
                    let line = builder.own(LINES[*line].as_bytes());
                    builder.push(part, 0, line);
                }
                let wait = Duration::from_secs(if *patient { 100 } else { 1 });
                let (receiver, batch) = (receiver.clone(), LogsBatch::of(builder.finish(0)));
                // In a task of its own, as a panic of a component is.
                let call = tokio::spawn(async move { tokio::time::timeout(wait, receiver.consume(batch)).await });
                let _ = call.await;
                match bodies.get(*then) {
                    Some(body) => unit.update(body).await.unwrap(),
                    None => tokio::time::sleep(Duration::from_millis(*then as u64 * 300)).await,
                }
            }
            let ledger = Arc::clone(&unit.world.host().ledger);
            // A receiver may panic even then.
            let _ = tokio::spawn(async move { unit.drain().await }).await;
            // Deliveries apart go on for a while; those that hang are in flight.
            tokio::time::sleep(Duration::from_secs(600)).await;
            let snapshot = ledger.snapshot();
            prop_assert_eq!(snapshot.open_sums(), [], "{:?}", snapshot);
            // Whoever hangs for ever keeps what it was offered.
            let hangs = sinks.iter().flatten().any(|deed| matches!(deed, Deed::Hang));
            prop_assert!(hangs || snapshot.rows[0].held == 0, "{:?}", snapshot);
            Ok(())
        })?;
    }
}

#[tokio::test(start_paused = true)]
async fn a_hundred_thousand_names_cost_no_more_than_their_number() {
    let stages = "stage.json { regex = \".\" }\nstage.template {\n source = \"t\"\n template = \"{{ .k99999 }}\"\n}\nstage.output { source = \"t\" }";
    let members: Vec<String> = (0..100_000).map(|at| format!("\"k{at}\":{at}")).collect();
    let line = format!("{{{}}}", members.join(","));
    let sink = LogsSink::default();
    let program = program(stages, &Registry::new()).unwrap();
    let started = std::time::Instant::now();
    program.consume(logs(&[("app", "web")], &[&line]), &Fanout::new([sink.receiver()])).await.unwrap();
    assert_eq!(sink.texts(), ["99999"]);
    // Were every name compared with every other, it would take minutes.
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
}

#[test]
fn pipelines_of_several_stages_do_what_the_reference_does() {
    assert!(recorded("pipelines") > 300);
}
