//! What became of every item, by endpoint.

use std::task::{Context, Poll, Waker};

use corten_config::schema::Stability;
use corten_signal::Kind;

use super::*;

fn row(world: &World) -> String {
    world.balance_of(Kind::PrometheusMetric)
}

/// Waits until the ends say this.
async fn ends_say(world: &World, expected: &[&str]) {
    let limit = Instant::now() + Duration::from_secs(120);
    while ends(world).await != expected && Instant::now() < limit {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(ends(world).await, expected);
}

#[tokio::test]
async fn what_an_endpoint_does_not_want_or_cannot_be_sent_is_dropped() {
    for (attributes, expected) in [
        ("", r#"n: 4 + 0 = 2 + [("histograms not sent", 2)] + 0"#),
        ("send_exemplars = false", r#"n: 4 + 0 = 1 + [("exemplars not sent", 1), ("histograms not sent", 2)] + 0"#),
        ("send_native_histograms = true", r#"n: 4 + 0 = 3 + [("nhcb_in_rw1_not_supported", 1)] + 0"#),
        (
            "send_native_histograms = true\nprotobuf_message = \"io.prometheus.write.v2.Request\"",
            "n: 4 + 0 = 4 + [] + 0",
        ),
        (
            "write_relabel_config {\nsource_labels = [\"__name__\"]\nregex = \"sample\"\naction = \"drop\"\n}",
            r#"n: 4 + 0 = 0 + [("dropped_series", 2), ("histograms not sent", 2)] + 0"#,
        ),
    ] {
        let world = World::with(ID, |services| services.stability = Stability::Experimental);
        let written = [
            ("x-prometheus-remote-write-samples-written", "1"),
            ("x-prometheus-remote-write-histograms-written", "2"),
            ("x-prometheus-remote-write-exemplars-written", "1"),
        ];
        let backend = Backend::start(move |_| answer(200, &written, "")).await;
        let mut unit = start(&world, &endpoint(&backend.url(), &format!("name = \"n\"\n{attributes}"), QUICK)).await;
        receiver(&world).consume(all_kinds()).await.unwrap();
        ends_say(&world, &[expected]).await;
        assert_eq!(row(&world), "taken 4, out 4", "{attributes}");
        unit.drain().await;
    }
}

#[tokio::test]
async fn what_the_peer_says_that_it_wrote_is_delivered_and_the_rest_is_not() {
    for status in [200, 400] {
        let world = host(ID);
        let written = [("x-prometheus-remote-write-samples-written", "3")];
        let backend = Backend::start(move |_| answer(status, &written, "no more")).await;
        let mut unit = start(&world, &endpoint(&backend.url(), "name = \"n\"", QUICK)).await;
        push_many(&receiver(&world), 5, 0..1).await;
        ends_say(&world, &[r#"n: 5 + 0 = 3 + [("refused", 2)] + 0"#]).await;
        unit.drain().await;
    }
}

#[tokio::test]
async fn what_waits_is_shown_with_its_age_and_what_the_peer_said() {
    let (world, backend) = (host(ID), Backend::answering(503).await);
    let body = format!("{}wal {{ max_bytes = \"20MiB\" }}", endpoint(&backend.url(), "name = \"n\"", QUICK));
    let mut unit = start(&world, &body).await;
    push_many(&receiver(&world), 7, 0..1).await;
    until("it is tried again", || world.host().ledger.snapshot().ends[0].retries > 1).await;
    assert_eq!(ends(&world).await, ["n: 7 + 0 = 0 + [] + 7"]);
    let end = world.balance().ends.remove(0);
    assert_eq!((end.kind, &*end.url, end.capacity_bytes), (Kind::PrometheusMetric, &*backend.url(), Some(20 << 20)));
    assert!(end.pending_bytes > 0 && end.in_flight == 7, "{end:?}");
    assert!((now_ms() - end.oldest_ms.unwrap()) < 60_000, "{end:?}");
    let (at, text) = end.last_answer.unwrap();
    assert!(text.starts_with("server returned HTTP status 503") && at <= SystemTime::now(), "{text}");
    let info = world.host().debug_info.lock().clone().unwrap();
    let shown = format!("{:?}", info.debug_info());
    for part in ["samples_pending", "retries", "oldest_pending_age", "last_answer", "bytes_max"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    backend.turn(204);
    ends_say(&world, &["n: 7 + 0 = 7 + [] + 0"]).await;
    let end = world.balance().ends.remove(0);
    assert_eq!((end.oldest_ms, &*end.last_answer.unwrap().1), (None, "204 No Content"));
    unit.drain().await;
}

#[tokio::test]
async fn after_an_end_and_after_a_kill_what_waited_is_restored() {
    let (world, backend) = (host(ID), Backend::willing().await);
    // Several partitions, of which some get on and some do not.
    let queue = format!("{QUICK}\nmin_shards = 4\nmax_samples_per_send = 1");
    let body = endpoint(&backend.url(), "name = \"n\"", &queue);
    let mut unit = start(&world, &body).await;
    push_many(&receiver(&world), 6, 0..1).await;
    ends_say(&world, &["n: 6 + 0 = 6 + [] + 0"]).await;
    let mut tried = 0;
    *backend.answer.lock() = Box::new(move |_| {
        tried += 1;
        answer(if tried % 2 == 0 { 200 } else { 503 }, &[], "")
    });
    push_many(&receiver(&world), 40, 0..1).await;
    let waits = || world.host().ledger.snapshot().ends[0].pending;
    until("some of it is delivered", || (1..30).contains(&waits())).await;
    backend.turn(503);
    // What is on disk at this moment is what a process leaves that is killed at this moment.
    let killed = host(ID);
    copy(&world.path(ID), &killed.path(ID));
    unit.drain().await;
    drop(unit);
    for world in [world, killed] {
        backend.turn(503);
        let mut unit = start(&world, &body).await;
        push_many(&receiver(&world), 3, 0..1).await;
        balanced(&world).await;
        backend.turn(200);
        until("all is delivered", || world.host().ledger.snapshot().ends[0].pending == 0).await;
        balanced(&world).await;
        let end = world.balance().ends.remove(0);
        assert!(end.offered == 3 && end.restored > 0 && end.delivered == end.restored + 3, "{end:?}");
        unit.drain().await;
    }
}

#[tokio::test]
async fn an_endpoint_that_joins_a_lane_is_offered_what_comes_then() {
    let (world, one, other) = (host(ID), Backend::willing().await, Backend::willing().await);
    let rule = "write_relabel_config {\nsource_labels = [\"__name__\"]\nregex = \"many_0\"\naction = \"drop\"\n}";
    let of = |backend: &Backend, name: &str| endpoint(&backend.url(), &format!("name = {name:?}\n{rule}"), QUICK);
    let mut unit = start(&world, &of(&one, "one")).await;
    push_many(&receiver(&world), 3, 0..1).await;
    unit.update(&(of(&one, "one") + &of(&other, "other"))).await.unwrap();
    push_many(&receiver(&world), 4, 0..1).await;
    ends_say(
        &world,
        &[r#"one: 7 + 0 = 5 + [("dropped_series", 2)] + 0"#, r#"other: 4 + 0 = 3 + [("dropped_series", 1)] + 0"#],
    )
    .await;
    assert_eq!(row(&world), "taken 7, out 7");
    // It goes, and nothing is said of it any more.
    unit.update(&of(&one, "one")).await.unwrap();
    push_many(&receiver(&world), 2, 0..1).await;
    ends_say(&world, &[r#"one: 9 + 0 = 6 + [("dropped_series", 3)] + 0"#]).await;
    unit.drain().await;
}

#[tokio::test]
async fn what_was_taken_under_other_rules_or_for_another_url_has_an_end_of_its_own() {
    let (world, one, other) = (host(ID), Backend::willing().await, Backend::answering(503).await);
    let rule = "write_relabel_config {\ntarget_label = \"new\"\nreplacement = \"yes\"\n}";
    let first = endpoint(&one.url(), "name = \"one\"", QUICK);
    let of = |rule: &str| first.clone() + &endpoint(&other.url(), &format!("name = \"other\"\n{rule}"), QUICK);
    let mut unit = start(&world, &of("")).await;
    push_many(&receiver(&world), 3, 0..1).await;
    unit.update(&of(rule)).await.unwrap();
    push_many(&receiver(&world), 4, 0..1).await;
    ends_say(
        &world,
        &[
            "one: 7 + 0 = 7 + [] + 0",
            "other (earlier configuration 1): 3 + 0 = 0 + [] + 3",
            "other: 4 + 0 = 0 + [] + 4",
        ],
    )
    .await;
    // It moves, and takes along what waits by these rules.
    let moved = Backend::answering(503).await;
    let of_moved = first.clone() + &endpoint(&moved.url(), &format!("name = \"other\"\n{rule}"), QUICK);
    unit.update(&of_moved).await.unwrap();
    push_many(&receiver(&world), 1, 0..1).await;
    ends_say(
        &world,
        &[
            "one: 8 + 0 = 8 + [] + 0",
            "other (earlier configuration 1): 3 + 0 = 0 + [] + 3",
            "other: 1 + 4 = 0 + [] + 5",
        ],
    )
    .await;
    // After a restart what waits is restored, each under its rules.
    unit.drain().await;
    drop(unit);
    let mut unit = start(&world, &of_moved).await;
    balanced(&world).await;
    moved.turn(200);
    ends_say(&world, &["one: 0 + 0 = 0 + [] + 0", "other: 0 + 5 = 5 + [] + 0"]).await;
    moved.has("many_0", 3).await;
    unit.drain().await;
}

#[tokio::test]
async fn a_call_that_is_given_up_has_given_the_lanes_all_or_left_it_out() {
    let (world, one, other) = (host(ID), Backend::willing().await, Backend::willing().await);
    let rule = "name = \"other\"\nwrite_relabel_config {\ntarget_label = \"new\"\nreplacement = \"yes\"\n}";
    let body = endpoint(&one.url(), "name = \"one\"", QUICK) + &endpoint(&other.url(), rule, QUICK);
    let mut unit = start(&world, &body).await;
    let to = receiver(&world);
    let batch = || Arc::new(MetricsBatch::of(vec![part(&[(&[("__name__", "a")], 0.0, now_ms())])]));
    // The first lane waits for others to share a record with when nobody wants to know any more.
    let mut call = Box::pin(to.consume(batch()));
    assert!(matches!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending));
    drop(call);
    until("it has come", || one.entries().len() + other.entries().len() == 1).await;
    balanced(&world).await;
    assert_eq!(row(&world), "out 1, created {sent again: 1}");
    // What has come is held until its answer was read.
    let expected = [r#"1 + 0 = 0 + [("given up", 1)] + 0"#, "1 + 0 = 1 + [] + 0"];
    let limit = Instant::now() + Duration::from_secs(120);
    loop {
        let mut became: Vec<String> =
            ends(&world).await.iter().map(|end| end.split_once(": ").unwrap().1.to_owned()).collect();
        became.sort();
        if became == expected {
            break;
        }
        assert!(Instant::now() < limit, "{became:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    to.consume(batch()).await.unwrap();
    until("all has come", || one.entries().len() + other.entries().len() == 3).await;
    balanced(&world).await;
    assert_eq!(row(&world), "taken 1, out 2, created {sent again: 1}");
    unit.drain().await;
}

#[tokio::test]
async fn without_endpoints_everything_is_dropped() {
    let world = host(ID);
    let mut unit = start(&world, "").await;
    push_many(&receiver(&world), 3, 0..1).await;
    assert_eq!(row(&world), "taken 3, dropped {no endpoint: 3}");
    unit.drain().await;
}
