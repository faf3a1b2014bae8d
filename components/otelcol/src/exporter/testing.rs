//! What the tests of exporters have in common.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use corten_component::Definition;
use corten_config::Value;
use corten_config::schema::Stability;
use corten_net::grpc::{Status, answer, answer_coding, unframed};
use corten_net::{Listener, ServeOptions, read_body_within, serve};
use corten_otlp::{Batch, LogRecord, OtlpLogs, RequestContext};
use corten_signal::ledger::EndSnapshot;
use corten_signal::{Acks, ConsumeError, Kind, Receiver};
use corten_testkit::{Unit, World, otlp};
use http::{HeaderMap, Request};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::net::TcpListener;

use super::debug::DebugExporter;
use crate::auth::Handler;

/// Log records whose bodies are these numbers.
pub(crate) fn logs(bodies: Range<usize>) -> Batch<LogRecord> {
    let records: Vec<_> = bodies.map(|n| format!(r#"{{"body":{{"stringValue":"{n}"}}}}"#)).collect();
    otlp(&format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{}]}}]}}]}}"#, records.join(",")))
}

/// The numbers in a message.
pub(crate) fn numbers(message: &[u8]) -> Vec<usize> {
    let batch = Batch::<LogRecord>::received(message.to_vec().into(), Arc::default()).unwrap();
    let json = String::from_utf8(batch.to_json()).unwrap();
    let bodies = json.split("stringValue\":\"").skip(1);
    bodies.map(|rest| rest[..rest.find('"').unwrap()].parse().unwrap()).collect()
}

/// An exporter with what else its text refers to.
pub(crate) async fn start(
    world: World,
    definition: &Definition,
    body: &str,
    handlers: &[(&str, Handler)],
) -> Result<Unit, String> {
    let values: Vec<(&str, Value)> =
        handlers.iter().map(|(name, handler)| (*name, Value::capsule(Arc::new(handler.clone())))).collect();
    Unit::start_with(world, definition, body, &values).await
}

/// Where an exporter takes logs.
pub(crate) fn entrance(unit: &Unit) -> Receiver<OtlpLogs> {
    unit.world.consumer("input").logs
}

/// Sends records to an exporter.
pub(crate) async fn send(unit: &Unit, bodies: Range<usize>) -> Result<(), ConsumeError> {
    entrance(unit).consume(logs(bodies)).await
}

/// Counts in one line, without what is zero.
fn counts(counts: &[(&str, i64)], reasons: &[(&str, &[(String, u64)])]) -> String {
    let mut parts: Vec<String> = Vec::new();
    parts.extend(counts.iter().filter(|(_, count)| *count != 0).map(|(name, count)| format!("{name} {count}")));
    for (name, counts) in reasons.iter().filter(|(_, counts)| !counts.is_empty()) {
        let mut counts: Vec<String> = counts.iter().map(|(reason, count)| format!("{reason}: {count}")).collect();
        counts.sort();
        parts.push(format!("{name} {{{}}}", counts.join(", ")));
    }
    parts.join(", ")
}

/// What an end did, in one line.
pub(crate) fn end_line(end: &EndSnapshot) -> String {
    let count = |count: u64| count as i64;
    let of_end = [
        ("offered", count(end.offered)),
        ("restored", count(end.restored)),
        ("delivered", count(end.delivered)),
        ("pending", count(end.pending)),
    ];
    counts(&of_end, &[("dropped", &end.dropped)])
}

/// What an exporter and each of its ends did with items of a kind, `taken 3, out 3 | offered 3, delivered 2, pending 1`; or which
/// of its sums are not even.
pub(crate) fn books(unit: &Unit, kind: Kind) -> String {
    let snapshot = unit.world.context::<DebugExporter>().ledger().snapshot();
    let open = snapshot.open_sums();
    if !open.is_empty() {
        return format!("{open:?} in {snapshot:?}");
    }
    let mut lines = Vec::new();
    for row in snapshot.rows.iter().filter(|row| row.kind == kind) {
        let of_row = [
            ("taken", row.taken as i64),
            ("received", row.received as i64),
            ("out", row.out as i64),
            ("held", row.held),
        ];
        let reasons: [(&str, &[_]); 3] =
            [("created", &row.created), ("dropped", &row.dropped), ("merged", &row.merged)];
        lines.push(counts(&of_row, &reasons));
    }
    let mut ends: Vec<String> = snapshot.ends.iter().filter(|end| end.kind == kind).map(end_line).collect();
    ends.sort();
    lines.extend(ends);
    lines.join(" | ")
}

/// Waits until the [`books`] of an exporter say this.
pub(crate) async fn settles(unit: &Unit, kind: Kind, want: &str) {
    let began = std::time::Instant::now();
    while books(unit, kind) != want {
        assert!(began.elapsed() < Duration::from_secs(20), "{} is not {want}", books(unit, kind));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The sum of a metric of an exporter over all of its labels.
pub(crate) fn metric(unit: &Unit, name: &str) -> f64 {
    let text = unit.world.metrics().text();
    let of = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    text.lines().filter(of).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Records with a share of acknowledgements.
pub(crate) fn with_acks(bodies: Range<usize>, acks: Acks) -> Batch<LogRecord> {
    let mut batch = logs(bodies);
    batch.acks = acks;
    batch
}

/// Records that came with a header.
pub(crate) fn with_header(bodies: Range<usize>, name: &str, value: &str) -> Batch<LogRecord> {
    let mut context = RequestContext::default();
    context.metadata.add(name, value);
    let mut batch = logs(bodies);
    batch.context = Arc::new(context);
    batch
}

/// What is wrong with the text of an exporter; empty if nothing is.
pub(crate) async fn refused(id: &str, definition: &Definition, body: &str) -> String {
    let world = World::with(id, |services| services.stability = Stability::GenerallyAvailable);
    start(world, definition, body, &[]).await.err().unwrap_or_default()
}

/// A call as a server saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) authority: String,
    pub(crate) headers: HeaderMap,
    /// As it was sent, with its prefix.
    pub(crate) sent: Bytes,
    pub(crate) message: Bytes,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// What a server answers.
pub(crate) type Says = Arc<Mutex<Result<Vec<u8>, Status>>>;

/// A server of gRPC. It answers each call with what it is told to say.
pub(crate) struct GrpcServer {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Mutex<Vec<Seen>>>,
    pub(crate) says: Says,
    pub(crate) stop: tokio::sync::watch::Sender<bool>,
}

impl GrpcServer {
    /// A server on a port that the system chose.
    pub(crate) async fn start() -> Self {
        Self::at("127.0.0.1:0").await
    }

    /// A server at an address.
    pub(crate) async fn at(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        Self::with(listener, address, ServeOptions::default())
    }

    /// A server of whatever takes connections.
    pub(crate) fn with(listener: impl Listener, address: SocketAddr, options: ServeOptions) -> Self {
        let (seen, says): (Arc<Mutex<Vec<Seen>>>, Says) = (Arc::default(), Arc::new(Mutex::new(Ok(Vec::new()))));
        let (recorded, said) = (Arc::clone(&seen), Arc::clone(&says));
        let handler = move |request: Request<Incoming>| {
            let (recorded, said) = (Arc::clone(&recorded), Arc::clone(&said));
            async move {
                let (parts, body) = request.into_parts();
                let sent = read_body_within(body, 1 << 24, Duration::from_secs(20)).await.unwrap();
                let message = unframed(sent.clone(), &parts.headers, 1 << 24).unwrap();
                let authority = parts.uri.authority().map(ToString::to_string).unwrap_or_default();
                let path = parts.uri.path().to_owned();
                let coding = answer_coding(&parts.headers);
                recorded.lock().push(Seen { path, authority, headers: parts.headers, sent, message });
                let outcome = said.lock().clone();
                answer(outcome, coding)
            }
        };
        let (stop, mut stopped) = tokio::sync::watch::channel(false);
        tokio::spawn(serve(listener, Arc::new(handler), options, async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        }));
        GrpcServer { address, seen, says, stop }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    pub(crate) fn client(&self, more: &str) -> String {
        format!("client {{\n endpoint = \"{}\"\n tls {{\n insecure = true\n }}\n{more}\n}}\n", self.address)
    }
}
