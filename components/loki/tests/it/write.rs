//! `loki.write`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use corten_component::{Definition, HealthState};
use corten_config::schema::Stability;
use corten_loki::COMPONENTS;
use corten_net::ServerBody;
use corten_signal::Kind;
use corten_signal::acks::{Answer, Waiter};
use corten_signal::ledger::EndSnapshot;
use corten_signal::{Logs, LogsBatch, Receiver, Stream};
use corten_testkit::{Seen, Server, Unit, World, answer, awaited_logs, host, stays, until};
use http::Response;
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::net::TcpListener;

/// The id of the component in these tests.
const ID: &str = "loki.write.w";

/// What makes tests quick: a request goes as soon as there is something for it, and is soon tried again.
const QUICK: &str = "batch_wait = \"10ms\"\nmin_backoff_period = \"5ms\"\nmax_backoff_period = \"20ms\"";

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(60);

fn definition() -> &'static Definition {
    COMPONENTS.iter().find(|definition| definition.name == "loki.write").unwrap()
}

async fn start(world: &World, body: &str) -> Unit {
    Unit::start(world.clone(), definition(), body).await.unwrap()
}

async fn refusal(body: &str) -> String {
    Unit::start(host(ID), definition(), body).await.unwrap_err()
}

fn endpoint(url: &str, more: &str) -> String {
    format!("endpoint {{\nurl = {url:?}\n{QUICK}\n{more}\n}}\n")
}

fn receiver(world: &World) -> Receiver<Logs> {
    world.receiver("receiver")
}

// What is received is read by a walk of its own, not by the code that the component shares with others.

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return value;
        }
    }
    panic!("a number of more than ten bytes");
}

/// A field of a message: its number, and what it holds.
enum Field<'a> {
    Number(u64, u64),
    Bytes(u64, &'a [u8]),
}

fn fields(mut bytes: &[u8]) -> Vec<Field<'_>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        fields.push(match tag & 7 {
            0 => Field::Number(tag >> 3, varint(&mut bytes)),
            2 => {
                let len = varint(&mut bytes) as usize;
                let (field, rest) = bytes.split_at(len);
                bytes = rest;
                Field::Bytes(tag >> 3, field)
            }
            other => panic!("a field of wire type {other}"),
        });
    }
    fields
}

fn message(bytes: &[u8], wanted: u64) -> impl Iterator<Item = &[u8]> {
    fields(bytes).into_iter().filter_map(move |field| match field {
        Field::Bytes(number, bytes) if number == wanted => Some(bytes),
        _ => None,
    })
}

fn number(bytes: &[u8], wanted: u64) -> u64 {
    let found = fields(bytes).into_iter().find_map(|field| match field {
        Field::Number(number, value) if number == wanted => Some(value),
        _ => None,
    });
    found.unwrap_or_default()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An entry as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Arrived {
    tenant: Option<String>,
    stream: String,
    timestamp_ns: i64,
    line: String,
    metadata: Vec<(String, String)>,
}

/// The entries of a request, in their order.
fn entries(seen: &Seen) -> Vec<Arrived> {
    let raw = snap::raw::Decoder::new().decompress_vec(&seen.body).unwrap();
    let tenant = seen.headers.get("x-scope-orgid").map(|tenant| text(tenant.as_bytes()));
    let mut all = Vec::new();
    for stream in message(&raw, 1) {
        let labels = message(stream, 1).next().map(text).unwrap_or_default();
        for entry in message(stream, 2) {
            let time = message(entry, 1).next().unwrap_or_default();
            let pair = |pair| [1, 2].map(|field| message(pair, field).next().map(text).unwrap_or_default());
            all.push(Arrived {
                tenant: tenant.clone(),
                stream: labels.clone(),
                timestamp_ns: number(time, 1) as i64 * 1_000_000_000 + number(time, 2) as i64,
                line: message(entry, 2).next().map(text).unwrap_or_default(),
                metadata: message(entry, 3).map(pair).map(|[name, value]| (name, value)).collect(),
            });
        }
    }
    all
}

/// A peer that answers as it is told, and remembers what it took.
struct Loki {
    server: Server,
    taken: Arc<Mutex<Vec<Arrived>>>,
}

impl Loki {
    /// Takes everything.
    async fn start() -> Self {
        Self::answering(|_, _| answer(204, &[], "")).await
    }

    /// Takes what it answers with a success.
    async fn answering(how: impl Fn(&Seen, &[Arrived]) -> Response<ServerBody> + Send + Sync + 'static) -> Self {
        let taken: Arc<Mutex<Vec<Arrived>>> = Arc::default();
        let kept = Arc::clone(&taken);
        let server = Server::start(move |seen| {
            let entries = entries(seen);
            let answer = how(seen, &entries);
            if answer.status().is_success() {
                kept.lock().extend(entries);
            }
            answer
        });
        Loki { server: server.await, taken }
    }

    fn url(&self) -> String {
        self.server.url("/loki/api/v1/push")
    }

    fn taken(&self) -> Vec<Arrived> {
        self.taken.lock().clone()
    }

    fn lines(&self) -> Vec<String> {
        self.taken.lock().iter().map(|entry| entry.line.clone()).collect()
    }

    async fn wait_for(&self, lines: &[&str]) {
        until(&format!("{lines:?} arrived"), || self.lines() == lines).await;
    }

    async fn wait_for_count(&self, count: usize) {
        until(&format!("{count} entries arrived"), || self.taken.lock().len() >= count).await;
    }
}

/// The books of the endpoints, each as `offered 3, delivered 2, dropped {stream_limited: 1}`.
fn ends(world: &World) -> Vec<String> {
    let shown = |end: EndSnapshot| {
        let dropped: Vec<String> = end.dropped.iter().map(|(reason, count)| format!("{reason}: {count}")).collect();
        let counts = [("offered", end.offered), ("restored", end.restored), ("delivered", end.delivered)];
        let counts = counts.into_iter().chain([("pending", end.pending)]).filter(|(_, count)| *count > 0);
        let mut parts: Vec<String> = counts.map(|(name, count)| format!("{name} {count}")).collect();
        if !dropped.is_empty() {
            parts.push(format!("dropped {{{}}}", dropped.join(", ")));
        }
        parts.join(", ")
    };
    world.host().ledger.snapshot().ends.into_iter().map(shown).collect()
}

/// Waits until the books say this, and looks whether all sums are even then.
async fn until_ends(world: &World, expected: &[&str]) {
    let until = tokio::time::timeout(LIMIT, async {
        while ends(world) != expected {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(until.await.is_ok(), "{:?}\n{expected:?}", ends(world));
    world.balance();
}

async fn push(to: &Receiver<Logs>, labels: &[(&str, &str)], lines: &[&str]) -> Waiter {
    let (batch, waiter) = awaited_logs(labels, lines);
    to.consume(batch).await.unwrap();
    waiter
}

#[tokio::test]
async fn entries_are_written_as_the_protocol_has_it() {
    let (world, loki) = (host(ID), Loki::start().await);
    let _unit = start(&world, &endpoint(&loki.url(), "tenant_id = \"t\"\nheaders = {\"X-Mine\" = \"x\"}")).await;
    let mut waiter = push(&receiver(&world), &[("app", "a \"b\""), ("__hidden__", "x")], &["one", "", "three"]).await;
    assert_eq!(waiter.wait(LIMIT).await, Answer::Safe);
    loki.wait_for(&["one", "", "three"]).await;
    let taken = loki.taken();
    assert_eq!(taken[0].stream, "{app=\"a \\\"b\\\"\"}");
    assert_eq!(taken[0].tenant.as_deref(), Some("t"));
    let seen = loki.server.seen().remove(0);
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/loki/api/v1/push"));
    for (name, value) in [
        ("content-type", "application/x-protobuf"),
        ("content-encoding", "snappy"),
        ("x-mine", "x"),
        ("x-agent-id", &*world.host().services.installation_id),
        ("x-alloy-id", &*world.host().services.installation_id),
        ("user-agent", &*world.host().services.user_agent),
    ] {
        assert_eq!(seen.header(name), value, "{name}");
    }
}

fn value(world: &World, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    world.metrics().get(name, labels)
}

/// Entries of many streams in one batch: (labels, line), a nanosecond apart.
fn mixed(entries: &[(&[(&str, &str)], String)]) -> LogsBatch {
    let mut builder = corten_signal::EntriesBuilder::new();
    for (at, (labels, line)) in entries.iter().enumerate() {
        let part = builder.stream(&Stream::of(labels.iter().copied()).unwrap());
        let line = builder.own(line.as_bytes());
        builder.push(part, at as i64 + 1, line);
    }
    LogsBatch::of(builder.finish(0))
}

#[tokio::test]
async fn a_configuration_that_cannot_be_is_refused() {
    let url = "http://127.0.0.1:9/push";
    for (body, expected) in [
        (String::new(), "failed to create cliens: at least one endpoint config must be provided"),
        (
            format!("endpoint {{\nurl = {url:?}\n}}\nendpoint {{\nurl = {url:?}\n}}"),
            "failed to create cliens: duplicate endpoint configs are not allowed, found duplicate for name: ",
        ),
        (
            format!("endpoint {{\nname = \"a\"\nurl = {url:?}\n}}\nendpoint {{\nname = \"a\"\nurl = \"http://b\"\n}}"),
            "failed to create cliens: duplicate endpoint configs are not allowed, found duplicate for name: a",
        ),
        (
            format!("endpoint {{\nurl = {url:?}\n}}\nwal {{\nmin_read_frequency = \"1s\"\n}}"),
            "WAL min read frequency should be lower than max read frequency",
        ),
        (format!("endpoint {{\nurl = {url:?}\nheaders = {{\"a b\" = \"c\"}}\n}}"), "is not a header"),
        (format!("endpoint {{\nurl = {url:?}\ntenant_id = \"a\\nb\"\n}}"), "cannot hold control characters"),
        (format!("endpoint {{\nurl = {url:?}\nbatch_size = \"much\"\n}}"), "invalid size \"much\""),
        (
            format!("endpoint {{\nurl = {url:?}\nqueue_config {{\nmin_shards = 1025\n}}\n}}"),
            "min_shards must not be greater than 1024",
        ),
    ] {
        let text = refusal(&body).await;
        assert!(text.contains(expected), "{text}");
    }
    let world = World::with(ID, |services| services.stability = Stability::GenerallyAvailable);
    let body = format!("endpoint {{\nurl = {url:?}\nqueue_config {{\nmin_shards = 2\n}}\n}}");
    let text = Unit::start(world, definition(), &body).await.unwrap_err();
    assert!(text.contains("changing queue_config requires stability.level flag to be experimental"), "{text}");
}

#[tokio::test]
async fn external_labels_are_added_where_they_are_absent() {
    let (world, loki) = (host(ID), Loki::start().await);
    let body = "external_labels = {app = \"outer\", cluster = \"c\", __tenant_id__ = \"t\"}\n";
    let _unit = start(&world, &format!("{body}{}", endpoint(&loki.url(), ""))).await;
    let to = receiver(&world);
    for (labels, line) in [(&[("app", "inner")][..], "a"), (&[("app", "")], "b"), (&[("x", "y")], "c")] {
        push(&to, labels, &[line]).await;
    }
    loki.wait_for_count(3).await;
    let mut taken = loki.taken();
    taken.sort_by(|a, b| a.line.cmp(&b.line));
    let streams: Vec<&str> = taken.iter().map(|entry| entry.stream.as_str()).collect();
    let expected =
        ["{app=\"inner\", cluster=\"c\"}", "{app=\"\", cluster=\"c\"}", "{app=\"outer\", cluster=\"c\", x=\"y\"}"];
    assert_eq!(streams, expected);
    assert!(taken.iter().all(|entry| entry.tenant.as_deref() == Some("t")));
}

#[tokio::test]
async fn the_label_decides_whose_entries_they_are_and_else_the_endpoint() {
    let (world, loki) = (host(ID), Loki::start().await);
    let headers = "headers = {\"X-Scope-OrgID\" = \"custom\", \"User-Agent\" = \"mine\", \"X-Agent-Id\" = \"no\"}";
    let _unit = start(&world, &endpoint(&loki.url(), &format!("{headers}\ntenant_id = \"main\""))).await;
    let to = receiver(&world);
    push(&to, &[("__tenant_id__", "other"), ("a", "b")], &["other"]).await;
    push(&to, &[("__tenant_id__", ""), ("a", "b")], &["none"]).await;
    push(&to, &[("a", "b")], &["main"]).await;
    loki.wait_for_count(3).await;
    let of = |line: &str| loki.taken().into_iter().find(|entry| entry.line == line).unwrap();
    assert_eq!(of("other").tenant.as_deref(), Some("other"));
    assert_eq!(of("main").tenant.as_deref(), Some("main"));
    // A tenant that is empty is none, and leaves the header to whoever wrote one.
    assert_eq!(of("none").tenant.as_deref(), Some("custom"));
    assert!(loki.taken().iter().all(|entry| entry.stream == "{a=\"b\"}"));
    let seen = loki.server.seen().remove(0);
    assert_eq!(seen.header("user-agent"), &*world.host().services.user_agent);
    assert_eq!(seen.header("x-agent-id"), &*world.host().services.installation_id);
    let host = loki.server.address().to_string();
    for tenant in ["other", "main", ""] {
        let labels = [("host", host.as_str()), ("tenant", tenant)];
        until("it is counted", || value(&world, "loki_write_sent_entries_total", &labels) == Some(1.0)).await;
    }
}

#[tokio::test]
async fn a_tenant_that_cannot_stand_in_a_header_is_dropped_and_counted() {
    let (world, loki) = (host(ID), Loki::start().await);
    let _unit = start(&world, &endpoint(&loki.url(), "")).await;
    let to = receiver(&world);
    let mut bad = push(&to, &[("__tenant_id__", "a\nb")], &["12345"]).await;
    let mut good = push(&to, &[("a", "b")], &["good"]).await;
    assert_eq!((bad.wait(LIMIT).await, good.wait(LIMIT).await), (Answer::Safe, Answer::Safe));
    loki.wait_for(&["good"]).await;
    let host = loki.server.address().to_string();
    let text = world.metrics().text();
    assert!(text.contains("reason=\"ingester_error\""), "{text}");
    assert!(world.logs().contains("dropped entries whose tenant cannot stand in a header"));
    let dropped = |name| value(&world, name, &[("host", &host), ("tenant", "other"), ("reason", "ingester_error")]);
    assert_eq!(dropped("loki_write_dropped_entries_total"), Some(1.0));
    assert_eq!(dropped("loki_write_dropped_bytes_total"), Some(5.0));
    until_ends(&world, &["offered 2, delivered 1, dropped {invalid tenant: 1}"]).await;
    assert_eq!(world.balance_of(Kind::LokiLog), "taken 2, out 2");
}

#[tokio::test]
async fn a_batch_is_cut_where_it_would_be_too_large_and_one_entry_may_be_larger_alone() {
    let (world, loki) = (host(ID), Loki::start().await);
    let body = endpoint(&loki.url(), "batch_size = \"1KiB\"").replacen("\"10ms\"", "\"100ms\"", 1);
    let _unit = start(&world, &body).await;
    let large = "x".repeat(5000);
    let lines: Vec<String> = (0..40).map(|n| format!("{n:0100}")).collect();
    let mut pushed: Vec<&str> = lines.iter().map(String::as_str).collect();
    pushed.insert(20, &large);
    push(&receiver(&world), &[("a", "b")], &pushed).await;
    loki.wait_for(&pushed).await;
    for seen in loki.server.seen() {
        let sizes: Vec<usize> = entries(&seen).iter().map(|entry| entry.line.len()).collect();
        assert!(sizes.iter().sum::<usize>() <= 1024 || sizes == [5000], "{sizes:?}");
    }
    let requests = loki.server.seen().len();
    assert!((5..=7).contains(&requests), "{requests}");
}

#[tokio::test]
async fn small_batches_wait_for_each_other() {
    let (world, loki) = (host(ID), Loki::start().await);
    let body = endpoint(&loki.url(), "").replacen("batch_wait = \"10ms\"", "batch_wait = \"2s\"", 1);
    let _unit = start(&world, &body).await;
    let to = receiver(&world);
    let mut expected = Vec::new();
    for number in 0..5 {
        expected.push(number.to_string());
        push(&to, &[("a", "b")], &[&number.to_string()]).await.wait(LIMIT).await;
    }
    loki.wait_for_count(5).await;
    assert_eq!((loki.lines(), loki.server.seen().len()), (expected, 1));
}

#[tokio::test]
async fn structured_metadata_and_lines_of_any_bytes_arrive_as_they_are() {
    let (world, loki) = (host(ID), Loki::start().await);
    let _unit = start(&world, &endpoint(&loki.url(), "")).await;
    let mut builder = corten_signal::EntriesBuilder::new();
    let part = builder.stream(&Stream::of([("a", "b")]).unwrap());
    let line = builder.own(b"a\0\xff\nb");
    let (name, value) = (builder.own(b"trace"), builder.own(b"1"));
    let empty = builder.own(b"");
    builder.push(part, -1, line);
    builder.push_metadata(name, value);
    builder.push_metadata(empty, empty);
    receiver(&world).consume(LogsBatch::of(builder.finish(0))).await.unwrap();
    loki.wait_for_count(1).await;
    let entry = loki.taken().remove(0);
    assert_eq!((entry.timestamp_ns, &*entry.line), (-1, "a\0\u{fffd}\nb"));
    // A pair without a name would make Loki refuse all that is sent with it.
    assert_eq!(entry.metadata, [("trace".to_owned(), "1".to_owned())]);
    let raw = snap::raw::Decoder::new().decompress_vec(&loki.server.seen()[0].body).unwrap();
    assert!(raw.windows(5).any(|bytes| bytes == b"a\0\xff\nb"));
}

#[tokio::test]
async fn streams_beyond_the_limit_of_a_batch_are_dropped_and_counted() {
    let (world, loki) = (host(ID), Loki::start().await);
    let _unit = start(&world, &format!("max_streams = 2\n{}", endpoint(&loki.url(), ""))).await;
    let to = receiver(&world);
    let of = |name| [("app", name)];
    let (a, b, c) = (of("a"), of("b"), of("c"));
    let mut batch = mixed(&[(&a, "1".into()), (&b, "2".into()), (&c, "333".into()), (&a, "4".into())]);
    let (acks, mut waiter) = corten_signal::acks::waiter();
    batch.acks = acks;
    to.consume(batch).await.unwrap();
    assert_eq!(waiter.wait(LIMIT).await, Answer::Safe);
    loki.wait_for_count(3).await;
    assert_eq!(loki.lines(), ["1", "4", "2"]);
    let host = loki.server.address().to_string();
    let labels = [("host", host.as_str()), ("tenant", ""), ("reason", "stream_limited")];
    assert_eq!(value(&world, "loki_write_dropped_entries_total", &labels), Some(1.0));
    assert_eq!(value(&world, "loki_write_dropped_bytes_total", &labels), Some(3.0));
    // The next batch begins anew.
    push(&to, &[("app", "c")], &["5"]).await;
    loki.wait_for_count(4).await;
    until_ends(&world, &["offered 5, delivered 4, dropped {stream_limited: 1}"]).await;
    let end = world.balance().ends.remove(0);
    assert_eq!(end.url, loki.url());
    assert!(end.capacity_bytes.is_some_and(|bytes| bytes > 0));
    assert_eq!(end.last_answer.map(|(_, answer)| answer).as_deref(), Some("204 No Content"));
}

#[tokio::test]
async fn a_request_that_is_too_large_is_halved_until_only_the_bad_entry_is_dropped() {
    for (status, text) in [
        (413, "too large"),
        (400, "couldn't parse push request: snappy: corrupt input"),
        (400, "received message larger than max (9 vs 8)"),
        (500, "rpc error: code = ResourceExhausted desc = grpc: received message larger than max (9 vs. 8)"),
    ] {
        let loki = Loki::answering(move |_, entries| {
            if entries.iter().any(|entry| entry.line == "bad") {
                answer(status, &[], text)
            } else {
                answer(204, &[], "")
            }
        });
        let (world, loki) = (host(ID), loki.await);
        let _unit = start(&world, &endpoint(&loki.url(), "")).await;
        let streams: Vec<[(&str, &str); 1]> = ["a", "b", "c"].map(|name| [("app", name)]).to_vec();
        let count = if status == 413 { 10_000 } else { 100 };
        let line = |number: usize| if number == count / 3 { "bad".to_owned() } else { number.to_string() };
        let entries: Vec<(&[(&str, &str)], String)> =
            (0..count).map(|number| (&streams[number % 3][..], line(number))).collect();
        receiver(&world).consume(mixed(&entries)).await.unwrap();
        loki.wait_for_count(count - 1).await;
        let mut by_stream: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for entry in loki.taken() {
            by_stream.entry(entry.stream).or_default().push(entry.timestamp_ns);
        }
        assert!(by_stream.values().all(|times| times.is_sorted()));
        let host = loki.server.address().to_string();
        let labels = [("host", host.as_str()), ("tenant", ""), ("reason", "ingester_error")];
        until("the bad entry is counted", || value(&world, "loki_write_dropped_entries_total", &labels) == Some(1.0))
            .await;
        until("the others are counted", || {
            value(&world, "loki_write_sent_entries_total", &labels[..2]) == Some(count as f64 - 1.0)
        })
        .await;
        assert_eq!(loki.taken().len(), count - 1);
        let logs = world.logs();
        assert_eq!(logs.matches("dropping data").count(), 1, "{logs}");
        let expected = format!("offered {count}, delivered {}, dropped {{ingester_error: 1}}", count - 1);
        until_ends(&world, &[&expected]).await;
    }
}

#[tokio::test]
async fn an_answer_that_names_entries_is_counted_and_nothing_is_sent_again() {
    let text = "entry with timestamp 2020-01-01 00:00:00 +0000 UTC ignored, reason: 'entry too far behind', total \
                ignored: 2 out of 3 for stream: {a=\"b\"}";
    let (world, loki) = (host(ID), Loki::answering(move |_, _| answer(400, &[], text)).await);
    let _unit = start(&world, &endpoint(&loki.url(), "")).await;
    let mut waiter = push(&receiver(&world), &[("a", "b")], &["1", "2", "3"]).await;
    assert_eq!(waiter.wait(LIMIT).await, Answer::Safe);
    let host = loki.server.address().to_string();
    let labels = [("host", host.as_str()), ("tenant", ""), ("reason", "ingester_error")];
    until("it is counted", || value(&world, "loki_write_dropped_entries_total", &labels) == Some(2.0)).await;
    until("the other is counted", || value(&world, "loki_write_sent_entries_total", &labels[..2]) == Some(1.0)).await;
    assert!(world.logs().contains("entries of a batch were rejected, the others were taken"), "{}", world.logs());
    stays("it is sent once", Duration::from_millis(100), || loki.server.seen().len() == 1).await;
    until_ends(&world, &["offered 3, delivered 1, dropped {ingester_error: 2}"]).await;
}

#[tokio::test]
async fn streams_without_labels_are_sent_and_cost_only_themselves() {
    let text = "error at least one label pair is required per stream";
    let loki = Loki::answering(move |_, entries| match entries.iter().any(|entry| entry.stream == "{}") {
        true => answer(400, &[], text),
        false => answer(204, &[], ""),
    });
    let (world, loki) = (host(ID), loki.await);
    let _unit = start(&world, &endpoint(&loki.url(), "")).await;
    receiver(&world).consume(mixed(&[(&[("__a", "b")], "x".into()), (&[("a", "b")], "y".into())])).await.unwrap();
    let host = loki.server.address().to_string();
    let labels = [("host", host.as_str()), ("tenant", ""), ("reason", "ingester_error")];
    until("one is lost", || value(&world, "loki_write_dropped_entries_total", &labels) == Some(1.0)).await;
    until("the other is sent", || value(&world, "loki_write_sent_entries_total", &labels[..2]) == Some(1.0)).await;
    assert_eq!(entries(&loki.server.seen()[0]).len(), 2);
}

#[tokio::test]
async fn too_many_requests_are_tried_again_unless_that_is_switched_off() {
    for (retry, reason) in [(true, None), (false, Some("rate_limited"))] {
        let answered = Arc::new(Mutex::new(0));
        let loki = Loki::answering(move |_, _| {
            *answered.lock() += 1;
            if *answered.lock() <= 2 { answer(429, &[], "slow down") } else { answer(204, &[], "") }
        });
        let (world, loki) = (host(ID), loki.await);
        let _unit = start(&world, &endpoint(&loki.url(), &format!("retry_on_http_429 = {retry}"))).await;
        let to = receiver(&world);
        push(&to, &[("a", "b")], &["1"]).await;
        let host = loki.server.address().to_string();
        let labels = [("host", host.as_str()), ("tenant", "")];
        match reason {
            None => {
                loki.wait_for(&["1"]).await;
                until("it is counted", || value(&world, "loki_write_batch_retries_total", &labels) == Some(2.0)).await;
                until_ends(&world, &["offered 1, delivered 1"]).await;
                assert_eq!(world.balance().ends[0].retries, 2);
            }
            Some(reason) => {
                let labels = [labels[0], labels[1], ("reason", reason)];
                let dropped = || value(&world, "loki_write_dropped_entries_total", &labels);
                until("it is dropped", || dropped() == Some(1.0)).await;
                until_ends(&world, &["offered 1, dropped {rate_limited: 1}"]).await;
                assert!(world.logs().contains("server returned HTTP status 429 Too Many Requests (429): slow down"));
            }
        }
    }
}

#[tokio::test]
async fn what_is_refused_for_good_is_dropped_and_the_next_is_sent() {
    let loki = Loki::answering(|_, entries| match entries.iter().any(|entry| entry.line == "bad") {
        true => answer(401, &[], "no org id\nmore"),
        false => answer(204, &[], ""),
    });
    let (world, loki) = (host(ID), loki.await);
    let _unit = start(&world, &endpoint(&loki.url(), "")).await;
    let to = receiver(&world);
    push(&to, &[("a", "b")], &["bad"]).await.wait(LIMIT).await;
    until("it was sent", || loki.server.seen().len() == 1).await;
    push(&to, &[("a", "b")], &["good"]).await;
    loki.wait_for(&["good"]).await;
    let logs = world.logs();
    assert!(logs.contains("final error sending batch, no retries left, dropping data"), "{logs}");
    assert!(logs.contains("server returned HTTP status 401 Unauthorized (401): no org id\""), "{logs}");
    until_ends(&world, &["offered 2, delivered 1, dropped {ingester_error: 1}"]).await;
}

#[tokio::test]
async fn a_number_of_attempts_that_is_written_is_kept_to() {
    let (world, loki) = (host(ID), Loki::answering(|_, _| answer(503, &[], "")).await);
    let _unit = start(&world, &endpoint(&loki.url(), "max_backoff_retries = 3")).await;
    push(&receiver(&world), &[("a", "b")], &["1"]).await;
    let host = loki.server.address().to_string();
    let labels = [("host", host.as_str()), ("tenant", ""), ("reason", "ingester_error")];
    until("it is dropped", || value(&world, "loki_write_dropped_entries_total", &labels) == Some(1.0)).await;
    assert_eq!(loki.server.seen().len(), 3);
    until_ends(&world, &["offered 1, dropped {ingester_error: 1}"]).await;
    assert_eq!(world.health().state, HealthState::Unhealthy);
}

#[tokio::test]
async fn an_outage_loses_nothing_and_keeps_the_order_of_every_stream_also_over_a_restart() {
    let is_up = Arc::new(AtomicBool::new(false));
    let up = Arc::clone(&is_up);
    let loki = Loki::answering(move |_, _| match up.load(Ordering::SeqCst) {
        true => answer(204, &[], ""),
        false => answer(503, &[], "down"),
    });
    let (world, loki) = (host(ID), loki.await);
    let body = endpoint(&loki.url(), "batch_size = \"4KiB\"");
    for round in 0..3 {
        let mut unit = start(&world, &body).await;
        let to = receiver(&world);
        for number in 0..210 {
            let tenant = format!("t{}", number % 3);
            let labels = [("stream", ["a", "b"][number % 2]), ("__tenant_id__", &*tenant)];
            let (batch, _) = awaited_logs(&labels, &[&format!("{}", round * 210 + number)]);
            to.consume(batch).await.unwrap();
        }
        until("it is told", || world.health().state == HealthState::Unhealthy).await;
        let restored = if round > 0 { format!("restored {}, ", round * 210) } else { String::new() };
        until_ends(&world, &[&format!("offered 210, {restored}pending {}", (round + 1) * 210)]).await;
        let end = world.balance().ends.remove(0);
        assert!(end.oldest_ms.is_some() && end.pending_bytes > 0 && end.in_flight > 0, "{end:?}");
        assert!(end.last_answer.unwrap().1.contains("503"));
        unit.drain().await;
        assert_eq!(world.balance_of(Kind::LokiLog), format!("taken {0}, out {0}", (round + 1) * 210));
    }
    is_up.store(true, Ordering::SeqCst);
    let _unit = start(&world, &body).await;
    loki.wait_for_count(630).await;
    let mut by_stream: BTreeMap<(Option<String>, String), Vec<usize>> = BTreeMap::new();
    for entry in loki.taken() {
        by_stream.entry((entry.tenant, entry.stream)).or_default().push(entry.line.parse().unwrap());
    }
    assert_eq!(by_stream.len(), 6);
    for (stream, numbers) in by_stream {
        assert!(numbers.is_sorted(), "{stream:?}: {numbers:?}");
        assert_eq!(numbers.len(), 105, "{stream:?}: {numbers:?}");
    }
    until("it is well", || world.health().state == HealthState::Healthy).await;
    until_ends(&world, &["restored 630, delivered 630"]).await;
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_folder(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}

#[tokio::test]
async fn what_waited_when_the_process_was_killed_is_in_the_books_of_the_next() {
    let answered = AtomicUsize::new(0);
    // It takes some of it.
    let loki = Loki::answering(move |_, _| match answered.fetch_add(1, Ordering::SeqCst) {
        0 => answer(204, &[], ""),
        _ => answer(503, &[], "down"),
    });
    let (killed, loki) = (host(ID), loki.await);
    let _unit = start(&killed, &endpoint(&loki.url(), "name = \"n\"")).await;
    for number in 0..50 {
        let mut waiter = push(&receiver(&killed), &[("a", "b")], &[&number.to_string()]).await;
        assert_eq!(waiter.wait(LIMIT).await, Answer::Safe);
    }
    until("it was refused", || loki.server.seen().len() > 1).await;
    // What is on the disk at this moment is all that the next process has.
    let (world, loki) = (host(ID), Loki::start().await);
    copy_folder(&killed.host().services.storage_path.join(ID), &world.host().services.storage_path.join(ID));
    let _unit = start(&world, &endpoint(&loki.url(), "name = \"n\"")).await;
    let end = || world.host().ledger.snapshot().ends.remove(0);
    until("all is sent", || end().pending == 0 && end().delivered > 0).await;
    let end = world.balance().ends.remove(0);
    assert!((1..=50).contains(&end.restored), "{end:?}");
    assert_eq!((end.offered, end.delivered, loki.taken().len() as u64), (0, end.restored, end.restored));
}

#[tokio::test]
async fn a_black_hole_does_not_stop_the_other_endpoint() {
    let hole = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (world, loki) = (host(ID), Loki::start().await);
    let hole_url = format!("http://{}/push", hole.local_addr().unwrap());
    let _unit = start(&world, &format!("{}{}", endpoint(&hole_url, ""), endpoint(&loki.url(), ""))).await;
    let to = receiver(&world);
    for number in 0..100 {
        let mut waiter = push(&to, &[("a", "b")], &[&number.to_string()]).await;
        if number % 25 == 0 {
            assert_eq!(waiter.wait(LIMIT).await, Answer::Safe);
        }
    }
    loki.wait_for_count(100).await;
    until_ends(&world, &["offered 100, pending 100", "offered 100, delivered 100"]).await;
}

#[tokio::test]
async fn one_tenant_that_is_refused_does_not_stop_the_others() {
    let loki = Loki::answering(|seen, _| match seen.header("x-scope-orgid") {
        "bad" => answer(429, &[], ""),
        _ => answer(204, &[], ""),
    });
    let (world, loki) = (host(ID), loki.await);
    let _unit = start(&world, &endpoint(&loki.url(), "")).await;
    let to = receiver(&world);
    // Partitions grow with the first tenants, which has to be over before.
    for round in ["first", "second"] {
        for number in 0..60 {
            push(&to, &[("__tenant_id__", &*format!("t{number}")), ("a", "b")], &[round]).await;
        }
        loki.wait_for_count(if round == "first" { 60 } else { 120 }).await;
        push(&to, &[("__tenant_id__", "bad"), ("a", "b")], &["x"]).await.wait(LIMIT).await;
    }
    // Those that share its partition wait, and they are few.
    for number in 0..60 {
        push(&to, &[("__tenant_id__", &*format!("t{number}")), ("a", "b")], &["third"]).await;
    }
    loki.wait_for_count(120 + 50).await;
}

#[tokio::test]
async fn a_tenant_that_is_refused_from_the_start_does_not_stop_those_that_come_later() {
    let is_up = Arc::new(AtomicBool::new(false));
    let up = Arc::clone(&is_up);
    let loki = Loki::answering(move |seen, _| match seen.header("x-scope-orgid") {
        "bad" if !up.load(Ordering::SeqCst) => answer(429, &[], ""),
        _ => answer(204, &[], ""),
    });
    let (world, loki) = (host(ID), loki.await);
    let body = endpoint(&loki.url(), "batch_size = \"4KiB\"");
    let mut unit = start(&world, &body).await;
    let bad = [("__tenant_id__", "bad"), ("a", "b")];
    let good = [("__tenant_id__", "good"), ("a", "b")];
    // Far more than is read ahead, of what compresses badly.
    let lines: Vec<String> = (0..500u32).map(noise).collect();
    for lines in lines.chunks(20) {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        push(&receiver(&world), &bad, &lines).await.wait(LIMIT).await;
    }
    push(&receiver(&world), &good, &["1"]).await;
    loki.wait_for(&["1"]).await;
    // Also after a restart.
    unit.drain().await;
    drop(unit);
    let _unit = start(&world, &body).await;
    push(&receiver(&world), &good, &["2"]).await;
    loki.wait_for(&["1", "2"]).await;
    is_up.store(true, Ordering::SeqCst);
    loki.wait_for_count(2 + lines.len()).await;
    assert_eq!(loki.lines()[2..], lines);
}

/// A line of which compression saves little.
fn noise(number: u32) -> String {
    let mut state = u64::from(number) * 2 + 1;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(33 + ((state >> 40) % 89) as u8)
    };
    std::iter::repeat_with(next).take(500).collect()
}

#[tokio::test]
async fn a_thousand_tenants_each_get_what_is_theirs() {
    let (world, loki) = (host(ID), Loki::start().await);
    let _unit = start(&world, &endpoint(&loki.url(), "")).await;
    let to = receiver(&world);
    for round in 0..3 {
        let tenants: Vec<String> = (0..1000).map(|number| format!("t{number}")).collect();
        let labels: Vec<[(&str, &str); 2]> =
            tenants.iter().map(|tenant| [("__tenant_id__", tenant.as_str()), ("app", tenant.as_str())]).collect();
        let entries: Vec<(&[(&str, &str)], String)> =
            labels.iter().map(|labels| (&labels[..], round.to_string())).collect();
        to.consume(mixed(&entries)).await.unwrap();
    }
    loki.wait_for_count(3000).await;
    let mut by_tenant: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in loki.taken() {
        let tenant = entry.tenant.unwrap();
        assert_eq!(entry.stream, format!("{{app={tenant:?}}}"));
        by_tenant.entry(tenant).or_default().push(entry.line);
    }
    assert_eq!(by_tenant.len(), 1000);
    assert!(by_tenant.values().all(|lines| *lines == ["0", "1", "2"]));
}

#[tokio::test]
async fn endpoints_come_and_go_and_each_gets_what_came_while_it_was_there() {
    let (a, b) = (Loki::start().await, Loki::start().await);
    let world = host(ID);
    let mut unit = start(&world, &endpoint(&a.url(), "")).await;
    let to = receiver(&world);
    let send = |line: &'static str| {
        let to = to.clone();
        async move { assert_eq!(push(&to, &[("a", "b")], &[line]).await.wait(LIMIT).await, Answer::Safe) }
    };
    send("1").await;
    unit.update(&format!("{}{}", endpoint(&a.url(), ""), endpoint(&b.url(), ""))).await.unwrap();
    send("2").await;
    unit.update(&endpoint(&b.url(), "")).await.unwrap();
    send("3").await;
    b.wait_for(&["2", "3"]).await;
    // What a had is done with, and its books are closed.
    until_ends(&world, &["offered 2, delivered 2"]).await;
    // Entries that name no tenant are sent for the endpoint's as it is then.
    unit.update(&endpoint(&b.url(), "tenant_id = \"t\"")).await.unwrap();
    send("4").await;
    b.wait_for(&["2", "3", "4"]).await;
    unit.update(&format!("{}{}", endpoint(&a.url(), ""), endpoint(&b.url(), ""))).await.unwrap();
    send("5").await;
    a.wait_for(&["1", "2", "5"]).await;
    b.wait_for(&["2", "3", "4", "5"]).await;
    assert_eq!(
        b.taken().iter().map(|entry| entry.tenant.as_deref()).collect::<Vec<_>>(),
        [None, None, Some("t"), None]
    );
    until_ends(&world, &["offered 4, delivered 4", "offered 1, delivered 1"]).await;
    assert_eq!(world.balance_of(Kind::LokiLog), "taken 5, out 5");
}

#[tokio::test]
async fn other_numbers_of_shards_keep_the_order_of_what_waits() {
    let (world, loki) = (host(ID), Loki::start().await);
    let body = |url: &str, shards: usize| {
        endpoint(url, &format!("name = \"n\"\nbatch_size = \"1KiB\"\nqueue_config {{\nmin_shards = {shards}\n}}"))
    };
    let mut unit = start(&world, &body("http://127.0.0.1:9/push", 4)).await;
    let to = receiver(&world);
    let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for round in 0..6 {
        for number in 0..60 {
            let (stream, tenant) = (format!("s{}", number % 7), format!("t{}", number % 3));
            let line = format!("{round} {number:050}");
            push(&to, &[("a", &stream), ("t", &tenant), ("__tenant_id__", &tenant)], &[&line]).await;
            expected.entry(format!("{{a={stream:?}, t={tenant:?}}}")).or_default().push(line);
        }
        let url = if round == 5 { loki.url() } else { "http://127.0.0.1:9/push".to_owned() };
        unit.update(&body(&url, [2, 1, 4, 8, 3, 6][round])).await.unwrap();
    }
    loki.wait_for_count(360).await;
    let mut arrived: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in loki.taken() {
        arrived.entry(entry.stream).or_default().push(entry.line);
    }
    assert_eq!(arrived, expected);
}

#[tokio::test]
async fn an_endpoint_that_keeps_its_name_keeps_what_waits_for_it() {
    let (world, loki) = (host(ID), Loki::start().await);
    let down = "http://127.0.0.1:9/push";
    let mut unit = start(&world, &endpoint(down, "name = \"n\"")).await;
    let to = receiver(&world);
    push(&to, &[("a", "b")], &["1"]).await.wait(LIMIT).await;
    unit.update(&endpoint(&loki.url(), "name = \"n\"")).await.unwrap();
    push(&to, &[("a", "b")], &["2"]).await;
    loki.wait_for(&["1", "2"]).await;
    // Also where it is down, and the program starts anew with another address.
    unit.update(&endpoint(down, "name = \"n\"")).await.unwrap();
    push(&to, &[("a", "b")], &["3"]).await.wait(LIMIT).await;
    unit.drain().await;
    let _unit = start(&world, &endpoint(&loki.url(), "name = \"n\"")).await;
    loki.wait_for(&["1", "2", "3"]).await;
}

#[tokio::test]
async fn an_endpoint_that_gets_another_name_keeps_what_waits_for_it() {
    let is_up = Arc::new(AtomicBool::new(false));
    let up = Arc::clone(&is_up);
    let loki = Loki::answering(move |_, _| match up.load(Ordering::SeqCst) {
        true => answer(204, &[], ""),
        false => answer(503, &[], "down"),
    });
    let (world, loki) = (host(ID), loki.await);
    let named = |name: &str| endpoint(&loki.url(), &format!("name = {name:?}"));
    let mut unit = start(&world, &named("")).await;
    push(&receiver(&world), &[("a", "b")], &["1"]).await.wait(LIMIT).await;
    // While the program runs, and over a restart.
    for (name, line) in [("n", "2"), ("m", "3"), ("", "4")] {
        until("it was tried", || loki.server.seen().len() > 2).await;
        unit.update(&named(name)).await.unwrap();
        push(&receiver(&world), &[("a", "b")], &[line]).await.wait(LIMIT).await;
    }
    unit.drain().await;
    drop(unit);
    let _unit = start(&world, &named("o")).await;
    push(&receiver(&world), &[("a", "b")], &["5"]).await.wait(LIMIT).await;
    is_up.store(true, Ordering::SeqCst);
    loki.wait_for(&["1", "2", "3", "4", "5"]).await;
}

#[tokio::test]
async fn without_a_disk_entries_are_safe_once_they_are_delivered() {
    let is_up = Arc::new(AtomicBool::new(false));
    let up = Arc::clone(&is_up);
    let loki = Loki::answering(move |_, _| match up.load(Ordering::SeqCst) {
        true => answer(204, &[], ""),
        false => answer(503, &[], "down"),
    });
    let (world, loki) = (host(ID), loki.await);
    let body = format!("wal {{\nenabled = false\n}}\n{}", endpoint(&loki.url(), "max_backoff_retries = 0"));
    let mut unit = start(&world, &body).await;
    let to = receiver(&world);
    let mut waiter = push(&to, &[("a", "b")], &["1"]).await;
    until("it was tried", || loki.server.seen().len() > 2).await;
    assert_eq!(waiter.wait(Duration::from_millis(1)).await, Answer::Late);
    is_up.store(true, Ordering::SeqCst);
    assert_eq!(waiter.wait(LIMIT).await, Answer::Safe);
    loki.wait_for(&["1"]).await;
    is_up.store(false, Ordering::SeqCst);
    let mut waiter = push(&to, &[("a", "b")], &["2"]).await;
    let tries = loki.server.seen().len();
    until("it was tried", || loki.server.seen().len() > tries).await;
    let more = "max_backoff_retries = 0\nqueue_config {\ndrain_timeout = \"100ms\"\n}";
    unit.update(&format!("wal {{\nenabled = false\n}}\n{}", endpoint(&loki.url(), more))).await.unwrap();
    until_ends(&world, &["offered 2, delivered 1, pending 1"]).await;
    unit.drain().await;
    assert_eq!(waiter.wait(LIMIT).await, Answer::Failed);
    assert!(!world.host().services.storage_path.join(ID).exists());
}

#[tokio::test]
async fn without_a_disk_sources_wait_while_the_memory_is_full() {
    let is_up = Arc::new(AtomicBool::new(false));
    let up = Arc::clone(&is_up);
    let loki = Loki::answering(move |_, _| match up.load(Ordering::SeqCst) {
        true => answer(204, &[], ""),
        false => answer(503, &[], "down"),
    });
    let (world, loki) = (host(ID), loki.await);
    let queue = "batch_size = \"1KiB\"\nmax_backoff_retries = 0\nqueue_config {\ncapacity = \"4KiB\"\n}";
    let _unit = start(&world, &format!("wal {{\nenabled = false\n}}\n{}", endpoint(&loki.url(), queue))).await;
    let to = receiver(&world);
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let pushing = tokio::spawn(async move {
        for number in 0..200 {
            // Nothing that compresses well.
            let line: String = (0..500u32).map(|at| char::from(33 + ((at * at + number * 7919) % 89) as u8)).collect();
            push(&to, &[("a", "b")], &[&line]).await;
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    until("it waits", || sent.load(Ordering::SeqCst) > 5).await;
    let mut last = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = sent.load(Ordering::SeqCst);
        if now == last {
            break;
        }
        last = now;
    }
    assert!(last < 150, "{last}");
    is_up.store(true, Ordering::SeqCst);
    pushing.await.unwrap();
    loki.wait_for_count(200).await;
    until_ends(&world, &["offered 200, delivered 200"]).await;
}

#[tokio::test]
async fn a_full_memory_behind_a_black_hole_does_not_hold_up_the_end() {
    let hole = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/push", hole.local_addr().unwrap());
    let queue = "batch_size = \"1KiB\"\nqueue_config {\ncapacity = \"4KiB\"\ndrain_timeout = \"200ms\"\n}";
    let world = host(ID);
    let mut unit = start(&world, &format!("wal {{\nenabled = false\n}}\n{}", endpoint(&url, queue))).await;
    let to = receiver(&world);
    let mut waiters = Vec::new();
    for number in 0..1000 {
        let line = noise(number);
        let pushed = tokio::time::timeout(Duration::from_secs(2), push(&to, &[("a", "b")], &[&line])).await;
        let Ok(waiter) = pushed else { break };
        waiters.push(waiter);
    }
    assert!(waiters.len() < 100);
    tokio::time::timeout(LIMIT, unit.drain()).await.unwrap();
    // One was given up while it waited for room; none of it was in the lane.
    assert_eq!(world.balance_of(Kind::LokiLog), format!("taken {0}, out {0}", waiters.len()));
    for mut waiter in waiters {
        assert_eq!(waiter.wait(LIMIT).await, Answer::Failed);
    }
}

#[tokio::test]
async fn a_queue_that_is_switched_to_memory_and_back_loses_nothing() {
    let (world, loki) = (host(ID), Loki::start().await);
    let body = |on: bool| format!("wal {{\nenabled = {on}\n}}\n{}", endpoint(&loki.url(), ""));
    let mut unit = start(&world, &body(true)).await;
    let to = receiver(&world);
    let mut expected = Vec::new();
    for round in 0..6 {
        for number in 0..10 {
            expected.push(format!("{round} {number}"));
            push(&to, &[("a", "b")], &[expected.last().unwrap()]).await;
        }
        unit.update(&body(round % 2 == 1)).await.unwrap();
    }
    loki.wait_for_count(expected.len()).await;
    let mut arrived = loki.lines();
    // What waited on disk when it was switched off and on again comes after what was taken in memory meanwhile.
    arrived.sort();
    assert_eq!(arrived, expected);
    let is_even = || world.host().ledger.snapshot().open_sums().is_empty();
    until("what was taken over is in the books", is_even).await;
    assert_eq!(world.balance_of(Kind::LokiLog), "taken 60, out 60");
}

#[tokio::test]
async fn what_waits_on_disk_is_sent_also_where_the_queue_is_in_memory_now() {
    let (world, loki) = (host(ID), Loki::start().await);
    let mut unit = start(&world, &endpoint("http://127.0.0.1:9/push", "name = \"n\"")).await;
    push(&receiver(&world), &[("a", "b")], &["1"]).await.wait(LIMIT).await;
    unit.drain().await;
    let in_memory = format!("wal {{\nenabled = false\n}}\n{}", endpoint(&loki.url(), "name = \"n\""));
    let mut unit = start(&world, &in_memory).await;
    push(&receiver(&world), &[("a", "b")], &["2"]).await;
    loki.wait_for(&["1", "2"]).await;
    until_ends(&world, &["offered 1, delivered 1"]).await;
    // And it is there when it is wanted again.
    unit.update(&endpoint(&loki.url(), "name = \"n\"")).await.unwrap();
    push(&receiver(&world), &[("a", "b")], &["3"]).await.wait(LIMIT).await;
    loki.wait_for(&["1", "2", "3"]).await;
}

#[tokio::test]
async fn a_full_queue_drops_the_oldest_and_says_so() {
    let world = World::with(ID, |services| services.queue_bytes_max = Some(64 << 10));
    let loki = Loki::answering(|_, _| answer(503, &[], "")).await;
    let _unit = start(&world, &endpoint(&loki.url(), "")).await;
    let to = receiver(&world);
    let host = loki.server.address().to_string();
    let labels = [("host", host.as_str()), ("tenant", ""), ("reason", "queue_is_full")];
    let mut sent = 0;
    let mut number = 0u32;
    while value(&world, "loki_write_dropped_entries_total", &labels).unwrap_or_default() == 0.0 {
        let line: String = (0..8000u32).map(|at| char::from(33 + ((at * at + number * 7919) % 89) as u8)).collect();
        assert_eq!(push(&to, &[("a", "b")], &[&line]).await.wait(LIMIT).await, Answer::Safe);
        (sent, number) = (sent + 1, number + 1);
        assert!(sent < 1000);
    }
    assert!(value(&world, "loki_write_dropped_bytes_total", &labels).unwrap() > 0.0);
    // A peer that takes nothing is not what is worst about it.
    until("it is told", || world.health().message.contains("the queue is full")).await;
    assert!(world.logs().contains("entries that waited in the queue were dropped"));
    let end = world.balance().ends.remove(0);
    assert_eq!((end.offered, end.capacity_bytes), (sent, Some(64 << 10)));
    assert_eq!(end.dropped.len(), 1, "{end:?}");
}

#[tokio::test]
async fn what_does_not_fit_into_the_queue_at_all_is_counted() {
    let world = World::with(ID, |services| services.queue_bytes_max = Some(64 << 10));
    let loki = Loki::start().await;
    let _unit = start(&world, &endpoint(&loki.url(), "")).await;
    let large: String = (0..200).map(noise).collect();
    let entries = [(&[("a", "b")][..], "1".to_owned()), (&[("__tenant_id__", "t"), ("a", "b")], large)];
    receiver(&world).consume(mixed(&entries)).await.unwrap();
    loki.wait_for(&["1"]).await;
    let host = loki.server.address().to_string();
    let labels = [("host", host.as_str()), ("tenant", "t"), ("reason", "too_large")];
    until("it is counted", || value(&world, "loki_write_dropped_entries_total", &labels) == Some(1.0)).await;
    until_ends(&world, &["offered 2, delivered 1, dropped {too_large: 1}"]).await;
}

#[tokio::test]
async fn what_waits_is_sent_also_where_nobody_knows_how_far_that_was_done() {
    let (world, loki) = (host(ID), Loki::start().await);
    let mut unit = start(&world, &endpoint("http://127.0.0.1:9/push", "name = \"n\"")).await;
    push(&receiver(&world), &[("a", "b")], &["1"]).await.wait(LIMIT).await;
    unit.drain().await;
    drop(unit);
    // As after a crash with a disk that had no room for it.
    for entry in std::fs::read_dir(world.host().services.storage_path.join(ID).join("queue/logs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "cur") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let _unit = start(&world, &endpoint(&loki.url(), "name = \"n\"")).await;
    loki.wait_for(&["1"]).await;
    until_ends(&world, &["restored 1, delivered 1"]).await;
}

#[tokio::test]
async fn while_the_disk_takes_nothing_entries_are_safe_once_they_are_delivered() {
    let is_up = Arc::new(AtomicBool::new(false));
    let up = Arc::clone(&is_up);
    let loki = Loki::answering(move |_, _| match up.load(Ordering::SeqCst) {
        true => answer(204, &[], ""),
        false => answer(503, &[], "down"),
    });
    let (world, loki) = (host(ID), loki.await);
    let _unit = start(&world, &endpoint(&loki.url(), "")).await;
    let dir = world.host().services.storage_path.join(ID).join("queue/logs");
    std::fs::remove_dir_all(&dir).unwrap();
    std::fs::write(&dir, "in the way").unwrap();
    let to = receiver(&world);
    let mut waiter = push(&to, &[("a", "b")], &["1"]).await;
    until("it is told", || world.logs().contains("cannot write the queue; entries are held in memory")).await;
    until("it was tried", || loki.server.seen().len() > 1).await;
    assert_eq!(waiter.wait(Duration::from_millis(1)).await, Answer::Late);
    is_up.store(true, Ordering::SeqCst);
    assert_eq!(waiter.wait(LIMIT).await, Answer::Safe);
    is_up.store(false, Ordering::SeqCst);
    let mut waiter = push(&to, &[("a", "b")], &["2"]).await;
    assert_eq!(waiter.wait(Duration::from_millis(300)).await, Answer::Late);
    // As soon as there is a place for it, it is safe there.
    std::fs::remove_file(&dir).unwrap();
    assert_eq!(waiter.wait(LIMIT).await, Answer::Safe);
    is_up.store(true, Ordering::SeqCst);
    loki.wait_for(&["1", "2"]).await;
    until_ends(&world, &["offered 2, delivered 2"]).await;
}

#[tokio::test]
async fn an_address_that_leads_nowhere_is_told_and_what_waits_for_it_is_kept() {
    let (world, loki) = (host(ID), Loki::start().await);
    let mut unit = start(&world, &endpoint("", "name = \"n\"")).await;
    push(&receiver(&world), &[("a", "b")], &["1"]).await.wait(LIMIT).await;
    until("it is told", || world.health().state == HealthState::Unhealthy).await;
    unit.update(&endpoint(&loki.url(), "name = \"n\"")).await.unwrap();
    loki.wait_for(&["1"]).await;
    until("it is well", || world.health().state == HealthState::Healthy).await;
}

#[tokio::test]
async fn the_metrics_of_the_reference_are_there() {
    let (world, loki) = (host(ID), Loki::start().await);
    let _unit = start(&world, &endpoint(&loki.url(), "name = \"n\"")).await;
    push(&receiver(&world), &[("a", "b")], &["1"]).await;
    loki.wait_for(&["1"]).await;
    let host = loki.server.address().to_string();
    let labels = format!("host=\"{host}\",tenant=\"\"");
    let expected = |text: &str| {
        let has = |line: String| text.contains(&line);
        has(format!("loki_write_sent_entries_total{{{labels}}} 1"))
            && has(format!("loki_write_sent_bytes_total{{{labels}}} "))
            && has(format!("loki_write_batch_retries_total{{{labels}}} 0"))
            && has(format!("loki_write_request_size_bytes_count{{{labels}}} 1"))
            && has(format!("loki_write_entry_propagation_latency_seconds_count{{{labels}}} 1"))
            && has(format!(
                "loki_write_request_duration_seconds_count{{host=\"{host}\",status_code=\"204\",tenant=\"\"}} 1"
            ))
            && ["ingester_error", "rate_limited", "stream_limited", "line_too_long", "queue_is_full"].iter().all(
                |reason| {
                    has(format!(
                        "loki_write_dropped_entries_total{{host=\"{host}\",reason=\"{reason}\",tenant=\"\"}} 0"
                    )) && has(format!(
                        "loki_write_dropped_bytes_total{{host=\"{host}\",reason=\"{reason}\",tenant=\"\"}} 0"
                    ))
                },
            )
            && has("loki_write_last_read_timestamp{id=\"name:n\"} ".to_owned())
            && has("loki_write_wal_watcher_records_read_total{id=\"name:n\"} 1".to_owned())
            && has("loki_write_wal_watcher_running 1".to_owned())
            && has("loki_write_wal_watcher_segment_read_total{id=\"name:n\",reason=\"notification\"} 1".to_owned())
            && has("loki_write_wal_writer_last_written_timestamp ".to_owned())
    };
    let found = tokio::time::timeout(LIMIT, async {
        while !expected(&world.metrics().text()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(found.await.is_ok(), "{}", world.metrics().text());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_fails_on_the_way_every_entry_arrives_in_the_order_of_its_stream(
        answers in prop::collection::vec(prop_oneof![3 => Just(204u16), 1 => Just(503), 1 => Just(429), 1 => Just(413)], 1..40),
        batches in prop::collection::vec((0..4usize, 0..3usize, 1..30usize, 1..300usize), 1..30),
        batch_size in 1u32..8,
        shards in 1u16..4,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let answers = Mutex::new(answers.into_iter());
            // What is too large is so only in part: one entry is always taken.
            let loki = Loki::answering(move |_, entries| match answers.lock().next().unwrap_or(204) {
                413 if entries.len() == 1 => answer(204, &[], ""),
                status => answer(status, &[], ""),
            });
            let (world, loki) = (host(ID), loki.await);
            let more = format!("batch_size = \"{batch_size}KiB\"\nqueue_config {{\nmin_shards = {shards}\n}}");
            let _unit = start(&world, &endpoint(&loki.url(), &more)).await;
            let to = receiver(&world);
            let mut expected: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
            let mut number = 0;
            for (stream, tenant, count, len) in batches {
                let (stream, tenant) = (format!("s{stream}"), format!("t{tenant}"));
                let lines: Vec<String> = (0..count).map(|at| format!("{:0len$}", number + at)).collect();
                number += count;
                let of_stream = expected.entry((tenant.clone(), format!("{{a={stream:?}}}"))).or_default();
                of_stream.extend(lines.iter().cloned());
                let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
                push(&to, &[("a", &stream), ("__tenant_id__", &tenant)], &lines).await;
            }
            loki.wait_for_count(number).await;
            let mut arrived: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
            for entry in loki.taken() {
                arrived.entry((entry.tenant.unwrap(), entry.stream)).or_default().push(entry.line);
            }
            assert_eq!(arrived, expected);
            until_ends(&world, &[&format!("offered {number}, delivered {number}")]).await;
        });
    }
}
