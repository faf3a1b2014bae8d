//! `loki.process` as a component: its stages keep their state, and give back what they hold.

use std::time::Duration;

use corten_component::Definition;
use corten_loki::process::Process;
use corten_signal::acks::Answer;
use corten_signal::{ConsumeError, Kind, Logs};
use corten_testkit::{LogsSink, Unit, awaited_logs, host, logs};

const MULTILINE: &str = "stage.multiline {\nfirstline = \"^S\"\n}";

async fn start(first: &LogsSink, second: &LogsSink, body: &str) -> Unit {
    let names = [("first", first.value()), ("second", second.value())];
    let definition = Definition::of::<Process>();
    Unit::start_with(host("loki.process.a"), &definition, body, &names).await.unwrap()
}

fn body(to: &str, stages: &str) -> String {
    format!("forward_to = [{to}]\n{stages}")
}

async fn send(unit: &Unit, line: &str) {
    unit.world.receiver::<Logs>("receiver").consume(logs(&[("app", "web")], &[line])).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_change_of_where_to_send_keeps_what_was_collected() {
    let (first, second) = (LogsSink::new("loki.write.first"), LogsSink::new("loki.write.second"));
    let mut unit = start(&first, &second, &body("first", MULTILINE)).await;
    send(&unit, "S1").await;
    unit.update(&body("second", MULTILINE)).await.unwrap();
    send(&unit, "a").await;
    send(&unit, "S2").await;
    assert_eq!((first.texts(), second.texts()), (vec![], vec!["S1\na".to_owned()]));
    unit.drain().await;
    unit.world.balance();
    assert_eq!(second.texts(), ["S1\na", "S2"]);
    assert_eq!(unit.world.balance_of(Kind::LokiLog), "taken 3, out 2, merged {multiline: 1}");
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_stages_sends_on_what_was_collected() {
    let (first, second) = (LogsSink::new("loki.write.first"), LogsSink::new("loki.write.second"));
    let mut unit = start(&first, &second, &body("first", MULTILINE)).await;
    send(&unit, "S1").await;
    unit.update(&body("first", &format!("{MULTILINE}\nstage.pack {{\nlabels = []\n}}"))).await.unwrap();
    send(&unit, "a").await;
    corten_testkit::until("the block is sent", || first.len() == 2).await;
    let mut texts = first.texts();
    texts.sort();
    assert_eq!(texts, ["S1", "{\"_entry\":\"a\"}"]);
    unit.drain().await;
    unit.world.balance();
}

#[tokio::test(start_paused = true)]
async fn what_a_replaced_pipeline_held_is_sent_before_the_component_ends() {
    let sink = LogsSink::default();
    let mut unit = start(&sink, &sink, &body("first", MULTILINE)).await;
    send(&unit, "S1").await;
    let retry = ConsumeError::Retry { after: None, reason: "busy".to_owned() };
    sink.answer_with(Some(retry));
    unit.update(&body("first", "")).await.unwrap();
    unit.update(&body("first", &format!("{MULTILINE}\nstage.pack {{\nlabels = []\n}}"))).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    tokio::spawn({
        let sink = sink.clone();
        async move {
            tokio::time::sleep(Duration::from_secs(5)).await;
            sink.answer_with(None);
        }
    });
    unit.drain().await;
    unit.world.balance();
    assert_eq!(sink.texts(), ["S1"]);
    assert_eq!(unit.world.balance_of(Kind::LokiLog), "taken 1, out 1");
}

#[tokio::test(start_paused = true)]
async fn a_block_is_sent_when_no_line_comes() {
    let sink = LogsSink::default();
    let mut unit = start(&sink, &sink, &body("first", MULTILINE)).await;
    let (batch, mut waiter) = awaited_logs(&[("app", "web")], &["S1"]);
    unit.world.receiver::<Logs>("receiver").consume(batch).await.unwrap();
    assert_eq!(waiter.wait(Duration::ZERO).await, Answer::Held, "who waits for an answer gets one now");
    assert!(sink.is_empty());
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(sink.texts(), ["S1"]);
    unit.drain().await;
    unit.world.balance();
}

#[tokio::test(start_paused = true)]
async fn metrics_of_entries_are_those_of_the_component_and_end_with_the_stage() {
    let sink = LogsSink::default();
    let metrics = |name: &str| {
        format!("stage.metrics {{\nmetric.counter {{\nname = \"{name}\"\naction = \"inc\"\nmatch_all = true\n}}\n}}")
    };
    let mut unit = start(&sink, &sink, &body("first", &metrics("lines"))).await;
    send(&unit, "a").await;
    send(&unit, "b").await;
    let shown = |unit: &Unit, name: &str| {
        let text = unit.world.metrics().text();
        text.lines().find(|line| line.starts_with(name)).map(str::to_owned)
    };
    let line = shown(&unit, "loki_process_custom_lines").unwrap();
    assert!(line.contains("app=\"web\"") && line.ends_with(" 2"), "{line}");
    // Where entries go does not change what was counted, another list of stages does.
    unit.update(&body("second", &metrics("lines"))).await.unwrap();
    send(&unit, "c").await;
    assert!(shown(&unit, "loki_process_custom_lines").unwrap().ends_with(" 3"));
    unit.update(&body("second", &metrics("others"))).await.unwrap();
    send(&unit, "d").await;
    assert!(shown(&unit, "loki_process_custom_others").unwrap().ends_with(" 1"));
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(shown(&unit, "loki_process_custom_lines"), None);
    unit.drain().await;
    unit.world.balance();
}

#[tokio::test(start_paused = true)]
async fn a_limit_by_label_counts_thousands_of_values_and_forgets_them() {
    let sink = LogsSink::default();
    let limit = "stage.limit {\nrate = 0.001\nburst = 1\ndrop = true\nby_label_name = \"app\"\n}";
    let mut unit = start(&sink, &sink, &body("first", limit)).await;
    let receiver = unit.world.receiver::<Logs>("receiver");
    for app in 0..9_999 {
        let lines = if app % 100 == 0 { &["passes", "is too much"][..] } else { &["passes"] };
        let app = format!("app{app}");
        receiver.consume(logs(&[("app", &app)], lines)).await.unwrap();
    }
    assert_eq!(sink.len(), 9_999);
    let counted = |unit: &Unit| {
        let text = unit.world.metrics().text();
        text.lines().filter(|line| line.starts_with("loki_process_dropped_lines_by_label_total")).count()
    };
    assert_eq!(counted(&unit), 100);
    // With the next value a generation ends. Its limits are known for another one.
    receiver.consume(logs(&[("app", "last")], &["passes"])).await.unwrap();
    assert_eq!(counted(&unit), 0);
    receiver.consume(logs(&[("app", "app5")], &["is too much"])).await.unwrap();
    receiver.consume(logs(&[], &["without the label"])).await.unwrap();
    assert_eq!((sink.len(), counted(&unit)), (10_001, 1));
    unit.drain().await;
    let expected = "taken 10102, out 10001, dropped {ratelimit_drop_stage: 101}";
    assert_eq!(unit.world.balance_of(Kind::LokiLog), expected);
}
