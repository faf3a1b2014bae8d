//! What the component does, seen from its clients and its receivers.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use corten_component::Definition;
use corten_component::metrics::Registry;
use corten_config::Value;
use corten_config::arguments::Record as _;
use corten_config::decode::Decode as _;
use corten_net::Client;
use corten_signal::relabel::{Action, Rule};
use corten_signal::{ConsumeError, Kind, Ledger};
use corten_testkit::{Unit, host, stays, until};
use corten_wire::loki_push::push_stream;
use corten_wire::snappy::{Compressor, join};
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::super::testing::{Answered, Case, MOMENT, Sink, Then, address, client, debug_info, recorded, send, shown};
use super::*;

const API: Definition = Definition::of::<Api>();
const PATH: &str = "/loki/api/v1/push";
/// An `http` block that takes a port of loopback that is free.
const HTTP: &str = "http {\n listen_address = \"127.0.0.1\"\n listen_port = 0\n }";
const JSON: (&str, &str) = ("content-type", "application/json");
const PROTO: (&str, &str) = ("content-type", "application/x-protobuf");

/// Times, lines and metadata.
type Lines<'a> = &'a [(i64, &'a str, &'a [(&'a str, &'a str)])];
/// Labels as they are pushed, and their lines.
type Pushed<'a> = (&'a str, Lines<'a>);

fn raw(streams: &[Pushed<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (selector, entries) in streams {
        let mut builder = EntriesBuilder::new();
        let part = builder.stream(&Stream::of([]).unwrap());
        for (time, line, metadata) in *entries {
            let line = builder.own(line.as_bytes());
            builder.push(part, *time, line);
            for (name, value) in *metadata {
                let (name, value) = (builder.own(name.as_bytes()), builder.own(value.as_bytes()));
                builder.push_metadata(name, value);
            }
        }
        let entries = builder.finish(0);
        for (_, list) in entries.parts() {
            push_stream(&mut out, selector, &entries, list);
        }
    }
    out
}

fn compressed(raw: &[u8]) -> Vec<u8> {
    join(raw.len() as u64, [&Compressor::new().piece(raw)[..]].into_iter())
}

fn proto(streams: &[Pushed<'_>]) -> Vec<u8> {
    compressed(&raw(streams))
}

struct Running {
    unit: Unit,
    client: Client,
}

impl Running {
    async fn start(body: &str, names: &[(&str, Value)]) -> Self {
        let unit = Unit::start_with(host("loki.source.api.a"), &API, body, names).await.unwrap();
        Running { unit, client: client().await }
    }

    async fn into_sink(more: &str, sink: &Sink) -> Self {
        Self::start(&format!("forward_to = [sink]\n{HTTP}\n{more}"), &[("sink", sink.value())]).await
    }

    async fn address(&self) -> SocketAddr {
        address(&self.unit.world, "listening for pushed log entries").await
    }

    async fn send(&self, path: &str, headers: &[(&str, &str)], body: impl Into<corten_net::Body>) -> Answered {
        let url = format!("http://{}{path}", self.address().await);
        send(&self.client, Method::POST, &url, headers, body).await
    }

    async fn post(&self, streams: &[Pushed<'_>]) -> Answered {
        self.send(PATH, &[PROTO], proto(streams)).await
    }
}

#[test]
fn the_table_of_the_arguments_is_in_order() {
    assert_eq!(ApiArguments::SCHEMA.defects(), [""; 0]);
}

#[tokio::test]
async fn what_is_pushed_is_handed_on() {
    let sink = Sink::new();
    let running = Running::into_sink("use_incoming_timestamp = true", &sink).await;
    let streams: &[Pushed<'_>] = &[
        (r#"{app="a", zone="é"}"#, &[(5, "one", &[("trace", "x"), ("span", "y")]), (-7, "two\nlines", &[])]),
        ("{b='c',}", &[(i64::MAX, "", &[])]),
    ];
    assert_eq!(running.post(streams).await.status, 204);
    assert_eq!(
        sink.entries(),
        [
            (5, r#"{app="a", zone="é"} one trace=x span=y"#.to_owned()),
            (-7, "{app=\"a\", zone=\"é\"} two\nlines".to_owned()),
            (i64::MAX, r#"{b="c"} "#.to_owned()),
        ]
    );
    assert_eq!(sink.batches(), 1);
    assert_eq!(running.unit.world.metric("loki_source_api_entries_written"), Some(3.0));
    assert_eq!(running.unit.world.balance_of(Kind::LokiLog), "received 3, out 3");
    let info = debug_info(&running.unit.world).remove(0);
    assert!(info.contains(" connections=1 last_taken_at=") && !info.contains("last_error"), "{info}");
    let metrics = running.unit.world.metrics();
    let labels = [("method", "POST"), ("route", "loki_api_v1_push"), ("status_code", "204"), ("ws", "false")];
    assert_eq!(metrics.get("loki_source_api_request_duration_seconds", &labels), Some(1.0));
    assert_eq!(metrics.get("loki_source_api_inflight_requests", &labels[..2]), Some(0.0));
    assert_eq!(metrics.get("loki_source_api_tcp_connections", &[("protocol", "http")]), Some(1.0));
}

#[tokio::test]
async fn requests_are_read_in_all_encodings_of_the_reference() {
    let body = raw(&[("{a=\"b\"}", &[(1, "x", &[])])]);
    let json = br#"{"streams":[{"stream":{"a":"b"},"values":[["1","x"]]}]}"#.to_vec();
    let gzip = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let deflate = |bytes: &[u8]| {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let zlib = |bytes: &[u8]| {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let snappy = compressed(&body);
    let sink = Sink::new();
    let running = Running::into_sink("", &sink).await;
    for (encoding, content_type, body, status) in [
        ("", "application/x-protobuf", snappy.clone(), 204),
        ("snappy", "text/anything; a=b", snappy.clone(), 204),
        ("gzip", "application/x-protobuf", gzip(&snappy), 204),
        ("deflate", "application/x-protobuf", deflate(&snappy), 204),
        ("", "application/json", json.clone(), 204),
        ("", "Application/JSON; charset=utf-8", json.clone(), 204),
        ("snappy", "application/json", json.clone(), 204),
        ("gzip", "application/json", gzip(&json), 204),
        ("deflate", "application/json", deflate(&json), 204),
        // What the reference refuses as well.
        ("deflate", "application/json", zlib(&json), 400),
        ("", "", snappy.clone(), 400),
        ("", "application/", snappy.clone(), 400),
        ("zstd", "application/x-protobuf", snappy.clone(), 400),
        ("gzip", "application/x-protobuf", gzip(&body), 400),
        ("", "application/x-protobuf", body.clone(), 400),
        ("", "application/x-protobuf", compressed(b"\xff\xff"), 400),
        ("gzip", "application/x-protobuf", snappy.clone(), 400),
        ("", "application/json", b"{".to_vec(), 400),
        ("", "application/json", Vec::new(), 400),
    ] {
        let before = sink.shown().len();
        let mut headers = Vec::new();
        headers.extend(Some(("content-encoding", encoding)).filter(|_| !encoding.is_empty()));
        headers.extend(Some(("content-type", content_type)).filter(|_| !content_type.is_empty()));
        let answer = running.send(PATH, &headers, body).await;
        let case = format!("{encoding} {content_type}: {answer:?}");
        assert_eq!((answer.status, answer.text.is_empty()), (status, status == 204), "{case}");
        assert_eq!(sink.shown()[before..], vec!["{a=\"b\"} x"; usize::from(status == 204)], "{case}");
    }
}

#[tokio::test]
async fn each_path_has_the_status_of_the_reference() {
    let running = Running::into_sink("", &Sink::new()).await;
    let body = proto(&[("{a=\"b\"}", &[(1, "x", &[])])]);
    for (method, path, status, text) in [
        ("POST", "/api/v1/push", 204, ""),
        ("POST", "/loki/api/v1/push?a=b", 204, ""),
        ("POST", "/api/v1/raw", 204, ""),
        ("POST", "/loki/api/v1/raw", 204, ""),
        ("GET", "/ready", 200, "ready"),
        ("POST", "/ready", 405, ""),
        ("GET", "/api/v1/push", 405, ""),
        ("PUT", "/loki/api/v1/raw", 405, ""),
        ("POST", "/loki/api/v1/push/", 404, "404 page not found\n"),
        ("GET", "/", 404, "404 page not found\n"),
    ] {
        let url = format!("http://{}{path}", running.address().await);
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let answer = send(&running.client, method.clone(), &url, &[PROTO], body.clone()).await;
        assert_eq!((answer.status, &*answer.text), (status, text), "{method} {path}");
    }
}

#[tokio::test]
async fn a_bad_stream_is_told_of_after_the_good_ones_were_taken() {
    let sink = Sink::new();
    let running = Running::into_sink("", &sink).await;
    let one: Lines<'_> = &[(1, "x", &[])];
    let answer = running.post(&[("{a=\"1\"}", one), ("{bad", one), ("{a=\"2\"}", one)]).await;
    assert_eq!(answer.status, 400);
    assert!(answer.text.contains("parse error"), "{answer:?}");
    let json = r#"{"streams":[{"stream":{"a":"3"},"values":[["1","x"]]},{"values":[["1","x"]]},
        {"stream":{"a-b":"4"},"values":[["1","x"]]},{"stream":{"a":"5"},"values":[["1","x"]]}]}"#;
    let answer = running.send(PATH, &[JSON], json.to_owned()).await;
    assert_eq!((answer.status, &*answer.text), (400, "invalid label name \"a-b\"\n"));
    assert_eq!(sink.shown(), ["{a=\"1\"} x", "{a=\"2\"} x", "{a=\"3\"} x", "{a=\"5\"} x"]);
    // A request that is broken somewhere else is refused as a whole.
    let broken = r#"{"streams":[{"stream":{"a":"6"},"values":[["1","x"]]},{"stream":{},"values":[[1]]}]}"#;
    assert_eq!(running.send(PATH, &[JSON], broken.to_owned()).await.status, 400);
    let mut broken = raw(&[("{a=\"7\"}", one)]);
    broken.extend_from_slice(b"\x0a\x05");
    assert_eq!(running.send(PATH, &[PROTO], compressed(&broken)).await.status, 400);
    assert_eq!(sink.shown().len(), 4);
    // What was refused as a whole was not received.
    let expected = "received 7, out 4, dropped {invalid labels: 2, no labels: 1}";
    assert_eq!(running.unit.world.balance_of(Kind::LokiLog), expected);
    assert!(debug_info(&running.unit.world)[0].contains(" last_error=\"400 to 127.0.0.1:"));
}

fn rule(action: Action, source: &str, regex: &str, target: &str) -> Rule {
    Rule {
        source_labels: Vec::from([source.to_owned()]),
        regex: regex.into(),
        target_label: target.to_owned(),
        replacement: "$1".to_owned(),
        action,
        ..Rule::default()
    }
}

#[tokio::test]
async fn labels_rules_and_tenants_apply_to_pushes_and_not_to_raw_lines() {
    let rules = RelabelRules(
        [rule(Action::Replace, "__level", "(.+)", "level"), rule(Action::Drop, "level", "debug", "")].into(),
    );
    let sink = Sink::new();
    let names = [("sink", sink.value()), ("rules", rules.to_value())];
    let body = "labels = { source = \"api\", __level = \"\" }\nrelabel_rules = rules";
    let running = Running::start(&format!("forward_to = [sink]\n{HTTP}\n{body}"), &names).await;
    let one: Lines<'_> = &[(1, "x", &[])];
    let tenant = |tenant: &'static str| [PROTO, ("x-scope-orgid", tenant)];
    let streams: &[Pushed<'_>] =
        &[("{source=\"mine\", __x=\"y\"}", one), ("{level=\"debug\"}", one), ("{__tenant_id__=\"forged\"}", one)];
    assert_eq!(running.send(PATH, &tenant("t1"), proto(streams)).await.status, 204);
    assert_eq!(running.send(PATH, &tenant("a|b"), proto(streams)).await.status, 204);
    assert_eq!(
        running.send("/api/v1/raw", &tenant("t1"), "one\r\n\n\r\n  two\r\r\nthree".to_owned()).await.status,
        204
    );
    assert_eq!(
        sink.shown(),
        [
            "{__tenant_id__=\"t1\", source=\"api\"} x",
            "{__tenant_id__=\"t1\", source=\"api\"} x",
            "{source=\"api\"} x",
            "{source=\"api\"} x",
            "{__level=\"\", source=\"api\"} one",
            "{__level=\"\", source=\"api\"}   two",
            "{__level=\"\", source=\"api\"} three",
        ]
    );
    let now = now_ns();
    assert!(sink.entries().iter().all(|(time, _)| (now - 60_000_000_000..=now).contains(time)), "the time of receipt");
    let expected = "received 9, out 7, dropped {rule 2 drop: 2}";
    assert_eq!(running.unit.world.balance_of(Kind::LokiLog), expected);
}

#[tokio::test]
async fn a_request_is_answered_only_when_it_is_safe() {
    let sink = Sink::that(Then::Keep);
    let running = Arc::new(Running::into_sink("", &sink).await);
    let sender = Arc::clone(&running);
    let request = tokio::spawn(async move { sender.post(&[("{a=\"b\"}", &[(1, "x", &[])])]).await.status });
    until("the receiver has it", || sink.batches() == 1).await;
    stays("not answered", MOMENT, || !request.is_finished()).await;
    sink.settle();
    assert_eq!(request.await.unwrap(), 204);
}

#[tokio::test]
async fn each_end_of_a_batch_has_a_status() {
    let sink = Sink::new();
    let running = Running::into_sink("", &sink).await;
    let retry = |seconds: u64| ConsumeError::Retry {
        after: Some(Duration::from_millis(seconds * 1000 - 1)),
        reason: "busy".to_owned(),
    };
    for (then, status, retry_after, text) in [
        (Then::Safe, 204, "", ""),
        (Then::Hold, 204, "", ""),
        (Then::Fail, 503, "", "the entries were not delivered\n"),
        (Then::Refuse(retry(3)), 503, "3", "busy\n"),
        (Then::Refuse(ConsumeError::Exited { component: "a.b".to_owned() }), 503, "", "a.b has exited\n"),
        (Then::Refuse(ConsumeError::Refused { reason: "no".to_owned() }), 400, "", "no\n"),
    ] {
        *sink.then.lock() = then.clone();
        let answer = running.post(&[("{a=\"b\"}", &[(1, "x", &[])])]).await;
        let after = answer.headers.get("retry-after").map_or("", |value| value.to_str().unwrap());
        assert_eq!((answer.status, after, &*answer.text), (status, retry_after, text), "{then:?}");
    }
    assert_eq!(running.unit.world.metric("loki_source_api_entries_written"), Some(2.0));
    // What was lost behind went on all the same; what nobody took was not received.
    assert_eq!(running.unit.world.balance_of(Kind::LokiLog), "received 3, out 3");
}

/// Takes the first batch and refuses the others.
struct TakesOne(AtomicBool);

impl corten_signal::Consume<Logs> for TakesOne {
    fn consume(&self, batch: corten_signal::LogsBatch) -> corten_signal::flow::BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(async move {
            if self.0.swap(true, Ordering::Relaxed) {
                return Err(ConsumeError::Refused { reason: "no".to_owned() });
            }
            batch.acks.safe();
            Ok(())
        })
    }
}

#[tokio::test]
async fn what_went_on_of_a_request_that_failed_is_counted() {
    let ledger = Ledger::new("loki.source.api.a");
    let registry = Registry::new();
    let listen = ListenSettings::prepare(&Default::default(), Duration::ZERO, None).await.unwrap();
    let logger = corten_component::Logger::new(corten_component::log::LogSink::memory().0);
    let door = Door::new(listen, &registry, &ledger, NAMES, logger, "listening");
    let inlet = corten_signal::Inlet::<Logs>::new("loki.write.a");
    inlet.attach(Arc::new(TakesOne(AtomicBool::new(false))));
    let forward = Fanout::of(&ledger, [inlet.receiver()]);
    let entries = corten_signal::logs::ENTRIES_MAX;
    let batches = reading().raw(Bytes::from("x\n".repeat(entries + 1))).unwrap().batches;
    assert_eq!(door.deliver(&forward, batches).await.map_err(|answer| answer.status.as_u16()), Err(400));
    assert_eq!(ledger.snapshot().open_sums(), []);
    let row = ledger.row_of::<Logs>().snapshot();
    let sent_again = [("sent again".to_owned(), entries as u64)];
    assert_eq!((row.received, row.out, &*row.created), (0, entries as u64, &sent_again[..]));
}

#[tokio::test]
async fn what_leads_nowhere_is_taken() {
    let running = Running::start(&format!("forward_to = []\n{HTTP}"), &[]).await;
    assert_eq!(running.post(&[("{a=\"b\"}", &[(1, "x", &[])])]).await.status, 204);
    assert_eq!(running.post(&[]).await.status, 204);
    assert_eq!(running.unit.world.balance_of(Kind::LokiLog), "received 1, dropped {no receiver: 1}");
}

#[tokio::test]
async fn nothing_larger_than_the_limit_is_taken() {
    let sink = Sink::new();
    let running = Running::into_sink("max_send_message_size = \"1KiB\"", &sink).await;
    let long = "x".repeat(2000);
    let line: Lines<'_> = &[(1, &long, &[])];
    // Compressed it is short.
    let answer = running.post(&[("{a=\"b\"}", line)]).await;
    assert_eq!(answer.status, 400);
    assert!(answer.text.starts_with("received message larger than max (20"), "{answer:?}");
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    bomb.write_all(&vec![b' '; 100 << 10]).unwrap();
    let bomb = bomb.finish().unwrap();
    assert!(bomb.len() < 1000);
    let gzip = ("content-encoding", "gzip");
    for content_type in [JSON, PROTO] {
        assert_eq!(running.send(PATH, &[content_type, gzip], bomb.clone()).await.status, 400);
    }
    assert_eq!(running.send(PATH, &[JSON], long.clone()).await.status, 413);
    assert_eq!(running.send("/api/v1/raw", &[], long).await.status, 413);
    assert_eq!(sink.batches(), 0);
    assert_eq!(running.post(&[("{a=\"b\"}", &[(1, "x", &[])])]).await.status, 204);
}

#[tokio::test]
async fn garbage_and_slow_clients_do_not_keep_others_from_delivering() {
    let sink = Sink::new();
    let http = HTTP.replace("listen_port", "server_read_timeout = \"1s\"\n listen_port");
    let body = format!("forward_to = [sink]\n{http}");
    let running = Running::start(&body, &[("sink", sink.value())]).await;
    let at = running.address().await;
    let mut slow = TcpStream::connect(at).await.unwrap();
    slow.write_all(
        format!("POST {PATH} HTTP/1.1\r\nhost: a\r\ncontent-type: a/b\r\ncontent-length: 100\r\n\r\nab").as_bytes(),
    )
    .await
    .unwrap();
    let mut garbage = TcpStream::connect(at).await.unwrap();
    garbage.write_all(b"\x16\x03\x01 <34>1 - nonsense\r\n\r\n").await.unwrap();
    let mut gone = TcpStream::connect(at).await.unwrap();
    gone.write_all(format!("POST {PATH} HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nab").as_bytes()).await.unwrap();
    drop(gone);
    assert_eq!(running.post(&[("{a=\"b\"}", &[(1, "x", &[])])]).await.status, 204);
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert_eq!(sink.batches(), 1);
    let labels = [("method", "POST"), ("route", "loki_api_v1_push")];
    let under_way = || running.unit.world.metrics().get("loki_source_api_inflight_requests", &labels);
    until("nothing is under way", || under_way() == Some(0.0)).await;
}

#[tokio::test]
async fn the_port_stays_open_when_other_arguments_change() {
    let (first, second) = (Sink::new(), Sink::new());
    let names = [("first", first.value()), ("second", second.value())];
    let mut running = Running::start(&format!("forward_to = [first]\n{HTTP}"), &names).await;
    let before = running.address().await;
    assert_eq!(running.post(&[("{a=\"b\"}", &[(1, "x", &[])])]).await.status, 204);
    running.unit.update(&format!("forward_to = [second]\n{HTTP}\nlabels = {{ a = \"c\" }}")).await.unwrap();
    assert_eq!(running.post(&[("{a=\"b\"}", &[(1, "x", &[])])]).await.status, 204);
    assert_eq!((first.shown(), second.shown()), (vec!["{a=\"b\"} x".into()], vec!["{a=\"c\"} x".into()]));
    assert_eq!(running.address().await, before);
}

#[tokio::test]
async fn what_is_under_way_at_the_end_is_answered() {
    let sink = Sink::that(Then::Keep);
    let mut running = Running::into_sink("", &sink).await;
    let at = running.address().await;
    let (client, url) = (running.client.clone(), format!("http://{at}{PATH}"));
    let body = proto(&[("{a=\"b\"}", &[(1, "x", &[])])]);
    let request = tokio::spawn(async move { send(&client, Method::POST, &url, &[PROTO], body).await.status });
    until("the receiver has it", || sink.batches() == 1).await;
    let end = async {
        until("nobody can connect", || std::net::TcpStream::connect(at).is_err()).await;
        sink.settle();
    };
    tokio::join!(running.unit.drain(), end);
    assert_eq!(request.await.unwrap(), 204);
}

#[tokio::test]
async fn calls_of_grpc_are_answered_and_old_connections_closed_as_long_as_the_block_is_there() {
    const GRPC: &str = "grpc {\n listen_address = \"127.0.0.1\"\n max_connection_age = \"200ms\"\n }";
    let sink = Sink::new();
    let mut running = Running::into_sink(GRPC, &sink).await;
    let at = address(&running.unit.world, "listening for gRPC").await;
    let url = format!("http://{at}/logproto.Pusher/Push");
    let answer = send(&running.client, Method::POST, &url, &[("content-type", "application/grpc")], "").await;
    assert_eq!((answer.status, &answer.headers["grpc-status"]), (200, &"12".parse().unwrap()));
    assert_eq!(answer.headers["grpc-message"], "unknown service logproto.Pusher");
    let mut idle = TcpStream::connect(at).await.unwrap();
    assert_eq!(idle.read(&mut [0; 10]).await.unwrap(), 0);
    let metrics = running.unit.world.metrics();
    assert_eq!(metrics.get("loki_source_api_tcp_connections_limit", &[("protocol", "grpc")]), Some(0.0));
    running.unit.update(&format!("forward_to = [sink]\n{HTTP}")).await.unwrap();
    until("nobody can connect", || std::net::TcpStream::connect(at).is_err()).await;

    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    let taken = GRPC.replace("max_connection", &format!("listen_port = {port}\n max_connection"));
    running.unit.update(&format!("forward_to = [sink]\n{HTTP}\n{taken}")).await.unwrap();
    let health = || running.unit.world.health_text();
    until("it cannot listen", || health().starts_with(&format!("unhealthy: cannot listen on 127.0.0.1:{port}: ")))
        .await;
    // Pushes are taken nevertheless.
    assert_eq!(running.post(&[("{a=\"b\"}", &[(1, "x", &[])])]).await.status, 204);
    drop(other);
    until("it is well", || health() == "healthy: component evaluated").await;
}

fn reading() -> Reading {
    Reading {
        labels: SourceLabels::new(&RelabelRules::default(), OnDrop::DropEntry, false).unwrap(),
        fixed: Vec::new(),
        raw: Stream::of([]).unwrap(),
        use_incoming_timestamp: true,
        bytes_max: 1 << 20,
    }
}

#[test]
fn requests_are_taken_as_the_reference_takes_them() {
    let pushed = recorded(include_str!("../../../tests/data/sources/api.json"));
    let raw = recorded(include_str!("../../../tests/data/sources/raw.json"));
    assert_eq!([(pushed.0.len(), pushed.1), (raw.0.len(), raw.1)], [(284, 12), (17, 0)]);
    let mut differences = Vec::new();
    for case in pushed.0.into_iter().chain(raw.0) {
        let is_raw = case.json()["path"] == "raw";
        let labels = case.labels();
        let reading = Reading {
            labels: SourceLabels::new(&Case::rules(), OnDrop::DropEntry, false).unwrap(),
            raw: Stream::of(labels.iter().map(|(name, value)| (&**name, &**value))).unwrap(),
            fixed: labels,
            use_incoming_timestamp: case.uses_incoming_timestamp(),
            bytes_max: MESSAGE_BYTES_DEFAULT,
        };
        let headers = case.headers().into_iter().map(|(name, value)| {
            (name.parse::<header::HeaderName>().unwrap(), value.parse::<header::HeaderValue>().unwrap())
        });
        let headers: HeaderMap = headers.collect();
        let body = case.body();
        let body = Bytes::from(if case.json()["snappy"] == true { compressed(&body) } else { body });
        let read =
            if is_raw { reading.raw(body) } else { Push::of(&headers).and_then(|push| reading.push(body, &push)) };
        let (status, entries) = match read {
            Ok(Read { batches, bad, .. }) => {
                (if bad.is_some() { 400 } else { 204 }, batches.iter().flat_map(shown).collect())
            }
            Err(answer) => (answer.status.as_u16(), Vec::new()),
        };
        differences.extend(case.difference(Some(status), entries));
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn a_large_request_becomes_several_batches() {
    let lines = corten_signal::logs::ENTRIES_MAX + 1;
    let read = reading().raw(Bytes::from("x\n".repeat(lines))).unwrap();
    assert_eq!(read.batches.iter().map(Entries::len).collect::<Vec<_>>(), [lines - 1, 1]);
    let last = &read.batches[1];
    let (_, entries) = last.parts().next().unwrap();
    assert_eq!(last.line(&entries[0]), b"x");
    let refused = reading().raw(Bytes::from("x\n".repeat(REQUEST_ENTRIES_MAX + 1))).unwrap_err();
    assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_body_makes_it_panic(body: Vec<u8>, wrapped: bool, is_json: bool, encoding in 0usize..3) {
        let encoding = [Encoding::None, Encoding::Gzip, Encoding::Deflate][encoding];
        let body = if wrapped { compressed(&body) } else { body };
        let push = Push { encoding, is_json, tenant: None };
        if let Err(answer) = reading().push(body.clone().into(), &push) {
            prop_assert_eq!(answer.status, 400);
        }
        reading().raw(body.into()).unwrap();
    }
}
