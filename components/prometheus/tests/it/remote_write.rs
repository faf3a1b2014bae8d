//! `prometheus.remote_write`.

mod authentication;
mod counts;
mod known;
mod ledger;
mod protocol_2;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use corten_component::Definition;
use corten_net::ServerBody;
use corten_prometheus::COMPONENTS;
use corten_signal::ledger::EndSnapshot;
use corten_signal::metrics::{
    CUSTOM_BUCKETS_SCHEMA, Exemplar, Histogram, HistogramCounts, HistogramSample, ResetHint, STALE_NAN, STALE_NAN_BITS,
    Span,
};
use corten_signal::{BlockBuilder, LabelsBuilder, Metrics, MetricsBatch, Receiver, Sample, SeriesPart};
use corten_testkit::{Seen, Server, Unit, World, answer, host, stays, until, unused_address};
use http::Response;
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

/// The id of the component in these tests.
const ID: &str = "prometheus.remote_write.w";

/// What makes tests quick: a request goes as soon as there is something for it, and is soon tried again.
const QUICK: &str = "batch_send_deadline = \"10ms\"\nmin_backoff = \"5ms\"\nmax_backoff = \"20ms\"";

fn definition() -> &'static Definition {
    COMPONENTS.iter().find(|definition| definition.name == "prometheus.remote_write").unwrap()
}

async fn start(world: &World, body: &str) -> Unit {
    Unit::start(world.clone(), definition(), body).await.unwrap()
}

async fn refusal(body: &str) -> String {
    Unit::start(host(ID), definition(), body).await.unwrap_err()
}

fn receiver(world: &World) -> Receiver<Metrics> {
    let exports = world.exports();
    let receiver = exports.last().unwrap().field("receiver").unwrap();
    receiver.as_capsule().unwrap().as_any().downcast_ref::<Receiver<Metrics>>().unwrap().clone()
}

/// An endpoint with these attributes and this `queue_config`.
fn endpoint(url: &str, attributes: &str, queue_config: &str) -> String {
    format!("endpoint {{\nurl = {url:?}\n{attributes}\nqueue_config {{\n{queue_config}\n}}\n}}\n")
}

/// The time of day, in milliseconds since 1970.
fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// A series with a sample: its labels, the value and the time.
type Series<'a> = (&'a [(&'a str, &'a str)], f64, i64);

/// Labels as they came.
type Pairs = Vec<(String, String)>;

/// A part with one sample of each of these series.
fn part(series: &[Series<'_>]) -> SeriesPart {
    let base_ms = series.first().map_or(0, |(_, _, time_ms)| *time_ms);
    let mut block = BlockBuilder::new();
    let mut samples = Vec::new();
    for (labels, value, time_ms) in series {
        let mut builder = LabelsBuilder::new();
        for (name, value) in *labels {
            builder.push(name, value);
        }
        let index = block.push(&mut builder).unwrap();
        samples.push(Sample { value: *value, index, offset_ms: (time_ms - base_ms) as i32 });
    }
    SeriesPart::of_samples(block.finish(true), base_ms, samples)
}

async fn push(to: &Receiver<Metrics>, series: &[Series<'_>]) {
    to.consume(Arc::new(MetricsBatch::of(vec![part(series)]))).await.unwrap();
}

/// Hands over a sample of the series `name`, whose value is its number.
async fn push_number(to: &Receiver<Metrics>, name: &str, number: usize) {
    push(to, &[(&[("__name__", name)], number as f64, now_ms())]).await;
}

/// Hands over one batch with the samples `from..to` of so many series, each whose values are numbers in order.
async fn push_many(to: &Receiver<Metrics>, series: usize, numbers: std::ops::Range<usize>) {
    let mut block = BlockBuilder::new();
    for index in 0..series {
        let mut labels = LabelsBuilder::new();
        labels.push("__name__", &format!("many_{index}"));
        block.push(&mut labels).unwrap();
    }
    let mut samples = Vec::new();
    for number in numbers {
        samples.extend((0..series as u32).map(|index| Sample { value: number as f64, index, offset_ms: 0 }));
    }
    let part = SeriesPart::of_samples(block.finish(true), now_ms(), samples);
    to.consume(Arc::new(MetricsBatch::of(vec![part]))).await.unwrap();
}

// What is received is read by a walk of its own, not by the code that the component shares with others.

/// A field of a protocol buffers message.
enum Wire<'a> {
    Number(u64),
    Fixed(u64),
    Bytes(&'a [u8]),
}

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

fn fields(mut bytes: &[u8]) -> Vec<(u64, Wire<'_>)> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let field = match tag & 7 {
            0 => Wire::Number(varint(&mut bytes)),
            1 => {
                let (number, rest) = bytes.split_at(8);
                bytes = rest;
                Wire::Fixed(u64::from_le_bytes(number.try_into().unwrap()))
            }
            2 => {
                let len = varint(&mut bytes) as usize;
                let (body, rest) = bytes.split_at(len);
                bytes = rest;
                Wire::Bytes(body)
            }
            other => panic!("a field of the wire type {other}"),
        };
        fields.push((tag >> 3, field));
    }
    fields
}

fn text(field: &Wire<'_>) -> String {
    let Wire::Bytes(bytes) = field else { panic!("no text") };
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// One entry of a request.
#[derive(Clone, Debug, Default, PartialEq)]
struct Entry {
    labels: Vec<(String, String)>,
    /// The bits of the value, and the time.
    samples: Vec<(u64, i64)>,
    exemplars: Vec<(Pairs, u64, i64)>,
    /// The numbers of the fields that stand in each histogram, and its time.
    histograms: Vec<(Vec<u64>, i64)>,
    /// What version 2 of the protocol says of the series.
    known: Option<Known>,
}

/// What a request says of a metric.
#[derive(Clone, Debug, Default, PartialEq)]
struct Known {
    metric_type: u64,
    /// Of a series it is not said.
    family: String,
    help: String,
    unit: String,
}

impl Entry {
    fn name(&self) -> &str {
        self.labels.iter().find(|(name, _)| name == "__name__").map_or("", |(_, value)| value)
    }

    fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(have, _)| have == name).map(|(_, value)| &**value)
    }

    fn value(&self) -> f64 {
        f64::from_bits(self.samples[0].0)
    }
}

fn label(bytes: &[u8]) -> (String, String) {
    let mut label = (String::new(), String::new());
    for (number, field) in fields(bytes) {
        match number {
            1 => label.0 = text(&field),
            2 => label.1 = text(&field),
            other => panic!("a label has no field {other}"),
        }
    }
    label
}

/// The series of a request.
fn decode(body: &[u8]) -> Vec<Entry> {
    decode_v1(body).0
}

/// The series of a request of version 1, and what it says of metrics.
fn decode_v1(body: &[u8]) -> (Vec<Entry>, Vec<Known>) {
    let message = snap::raw::Decoder::new().decompress_vec(body).expect("a snappy block");
    let (mut entries, mut known) = (Vec::new(), Vec::new());
    for (number, field) in fields(&message) {
        let Wire::Bytes(bytes) = field else { panic!("the fields of a request are messages") };
        match number {
            1 => entries.push(decode_series(bytes)),
            3 => known.push(decode_known(bytes)),
            other => panic!("a request has no field {other}"),
        }
    }
    (entries, known)
}

fn decode_known(bytes: &[u8]) -> Known {
    let mut known = Known::default();
    for (number, field) in fields(bytes) {
        match (number, field) {
            (1, Wire::Number(metric_type)) => known.metric_type = metric_type,
            (2, field) => known.family = text(&field),
            (4, field) => known.help = text(&field),
            (5, field) => known.unit = text(&field),
            (other, _) => panic!("what is known has no field {other}"),
        }
    }
    known
}

fn decode_series(series: &[u8]) -> Entry {
    let mut entry = Entry::default();
    for (number, field) in fields(series) {
        let Wire::Bytes(bytes) = field else { panic!("the fields of a series are messages") };
        match number {
            1 => entry.labels.push(label(bytes)),
            2 => entry.samples.push(decode_sample(bytes)),
            3 => entry.exemplars.push(decode_exemplar(bytes)),
            4 => entry.histograms.push(decode_histogram(bytes)),
            other => panic!("a series has no field {other}"),
        }
    }
    entry
}

/// The numbers of a histogram's fields, and its time.
fn decode_histogram(bytes: &[u8]) -> (Vec<u64>, i64) {
    let fields = fields(bytes);
    let time_ms = fields.iter().find_map(|(number, field)| match field {
        Wire::Number(time_ms) if *number == 15 => Some(*time_ms as i64),
        _ => None,
    });
    (fields.iter().map(|(number, _)| *number).collect(), time_ms.unwrap())
}

fn decode_sample(bytes: &[u8]) -> (u64, i64) {
    let mut sample = (0, 0);
    for (number, field) in fields(bytes) {
        match (number, field) {
            (1, Wire::Fixed(bits)) => sample.0 = bits,
            (2, Wire::Number(time_ms)) => sample.1 = time_ms as i64,
            (other, _) => panic!("a sample has no field {other}"),
        }
    }
    sample
}

fn decode_exemplar(bytes: &[u8]) -> (Vec<(String, String)>, u64, i64) {
    let mut exemplar = (Vec::new(), 0, 0);
    for (number, field) in fields(bytes) {
        match (number, field) {
            (1, Wire::Bytes(bytes)) => exemplar.0.push(label(bytes)),
            (2, Wire::Fixed(bits)) => exemplar.1 = bits,
            (3, Wire::Number(time_ms)) => exemplar.2 = time_ms as i64,
            (other, _) => panic!("an exemplar has no field {other}"),
        }
    }
    exemplar
}

/// What answers a request.
type Answer = Box<dyn FnMut(&Seen) -> Response<ServerBody> + Send>;

/// The other end: it remembers the entries of the requests that it took.
struct Backend {
    server: Server,
    answer: Arc<Mutex<Answer>>,
    taken: Arc<Mutex<Vec<Vec<Entry>>>>,
    known: Arc<Mutex<Vec<Vec<Known>>>>,
}

impl Backend {
    async fn start(answer: impl FnMut(&Seen) -> Response<ServerBody> + Send + 'static) -> Self {
        let answer: Arc<Mutex<Answer>> = Arc::new(Mutex::new(Box::new(answer)));
        let taken: Arc<Mutex<Vec<Vec<Entry>>>> = Arc::default();
        let known: Arc<Mutex<Vec<Vec<Known>>>> = Arc::default();
        let (answers, record, record_known) = (Arc::clone(&answer), Arc::clone(&taken), Arc::clone(&known));
        let server = Server::start(move |seen| {
            let response = (answers.lock())(seen);
            if response.status().is_success() {
                let is_v2 = seen.header("content-type").contains("write.v2");
                let (entries, known) =
                    if is_v2 { (protocol_2::decode(&seen.body), Vec::new()) } else { decode_v1(&seen.body) };
                if known.is_empty() {
                    record.lock().push(entries);
                } else {
                    record_known.lock().push(known);
                }
            }
            response
        });
        Backend { server: server.await, answer, taken, known }
    }

    /// One that takes everything.
    async fn willing() -> Self {
        Self::start(|_| answer(200, &[], "")).await
    }

    /// One that always answers with this status.
    async fn answering(status: u16) -> Self {
        Self::start(move |_| answer(status, &[], "because\nof that")).await
    }

    /// From now on it answers with this status.
    fn turn(&self, status: u16) {
        *self.answer.lock() = Box::new(move |_| answer(status, &[], ""));
    }

    fn url(&self) -> String {
        self.server.url("/push")
    }

    fn seen(&self) -> Vec<Seen> {
        self.server.seen()
    }

    fn requests(&self) -> Vec<Vec<Entry>> {
        self.taken.lock().clone()
    }

    fn entries(&self) -> Vec<Entry> {
        self.requests().concat()
    }

    /// The values of each series, in the order in which they came.
    fn series(&self) -> BTreeMap<String, Vec<f64>> {
        let mut series: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for entry in self.entries().iter().filter(|entry| !entry.samples.is_empty()) {
            series.entry(entry.name().to_owned()).or_default().push(entry.value());
        }
        series
    }

    /// The values of one series, in the order in which they came.
    fn values(&self, name: &str) -> Vec<f64> {
        self.series().remove(name).unwrap_or_default()
    }

    async fn has(&self, name: &str, count: usize) {
        until(&format!("{count} samples of {name} have come"), || self.values(name).len() >= count).await;
    }
}

/// The numbers from 0 on, as values.
fn numbers(count: usize) -> Vec<f64> {
    (0..count).map(|number| number as f64).collect()
}

/// A peer that takes connections and never answers.
async fn black_hole() -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/push", listener.local_addr().unwrap());
    let holding = tokio::spawn(async move {
        let mut connections = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            connections.push(connection);
        }
    });
    (url, holding)
}

/// A URL of loopback on which nobody listens.
fn nobody() -> (std::net::SocketAddr, String) {
    let address = unused_address();
    (address, format!("http://{address}/push"))
}

/// The value of a metric of the endpoint with this name and URL.
fn metric(world: &World, metric: &str, name: &str, url: &str) -> Option<f64> {
    world.metrics().get(&format!("prometheus_remote_storage_{metric}"), &[("remote_name", name), ("url", url)])
}

fn dropped(world: &World, kind: &str, name: &str, url: &str, reason: &str) -> f64 {
    let labels = [("remote_name", name), ("url", url), ("reason", reason)];
    world.metrics().get(&format!("prometheus_remote_storage_{kind}_dropped_total"), &labels).unwrap_or_default()
}

/// Waits until every sum of the component is even, each item being somewhere.
async fn balanced(world: &World) {
    let is_even = || world.host().ledger.snapshot().open_sums().is_empty();
    let limit = Instant::now() + Duration::from_secs(120);
    while !is_even() && Instant::now() < limit {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let _ = world.balance();
}

/// The ends of the component, once every sum is even: what each was given, what was waiting, what it took, what was
/// dropped, and what waits.
async fn ends(world: &World) -> Vec<String> {
    balanced(world).await;
    let shown = |end: EndSnapshot| {
        let mut dropped = end.dropped.clone();
        dropped.sort();
        let EndSnapshot { name, offered, restored, delivered, pending, .. } = end;
        format!("{name}: {offered} + {restored} = {delivered} + {dropped:?} + {pending}")
    };
    let mut ends: Vec<String> = world.balance().ends.into_iter().map(shown).collect();
    ends.sort();
    ends
}

/// The queues of the component in this world.
fn queues(world: &World) -> Vec<String> {
    let root = world.path(ID).join("queue");
    let entries = std::fs::read_dir(root).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn a_request_has_the_headers_of_remote_write_1() {
    let (world, backend) = (host(ID), Backend::willing().await);
    let mut unit = start(&world, &endpoint(&backend.url(), "", QUICK)).await;
    push_number(&receiver(&world), "a", 0).await;
    backend.has("a", 1).await;
    let seen = &backend.seen()[0];
    assert_eq!((seen.method.as_str(), &*seen.target), ("POST", "/push"));
    for (name, value) in [
        ("content-encoding", "snappy"),
        ("content-type", "application/x-protobuf"),
        ("x-prometheus-remote-write-version", "0.1.0"),
        ("x-agent-id", "00000000-0000-4000-8000-000000000000"),
        ("x-alloy-id", "00000000-0000-4000-8000-000000000000"),
        ("user-agent", "Corten/v0.0.0 (test; binary)"),
        ("retry-attempt", ""),
    ] {
        assert_eq!(seen.header(name), value, "{name}");
    }
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn custom_headers_win() {
    let (world, backend) = (host(ID), Backend::willing().await);
    let headers = "headers = { \"X-Scope-OrgID\" = \"me\", \"user-agent\" = \"mine\", \"X-Alloy-Id\" = \"id\", \
                   \"Content-Type\" = \"application/x-protobuf; mine\" }";
    let mut unit = start(&world, &endpoint(&backend.url(), headers, QUICK)).await;
    push_number(&receiver(&world), "a", 0).await;
    backend.has("a", 1).await;
    let seen = &backend.seen()[0];
    for (name, value) in [
        ("x-scope-orgid", "me"),
        ("user-agent", "mine"),
        ("x-alloy-id", "id"),
        ("x-agent-id", "00000000-0000-4000-8000-000000000000"),
        ("content-type", "application/x-protobuf; mine"),
    ] {
        assert_eq!(seen.headers.get_all(name).iter().count(), 1, "{name}");
        assert_eq!(seen.header(name), value, "{name}");
    }
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn a_request_is_a_snappy_block_of_exactly_these_bytes() {
    let (world, backend) = (host(ID), Backend::willing().await);
    let mut unit = start(&world, &endpoint(&backend.url(), "", QUICK)).await;
    let series: &[Series<'_>] = &[
        (&[("b", "2"), ("__name__", "m"), ("a", "1")], 1.5, 1_700_000_000_000),
        (&[("__name__", "z")], 0.0, 1_700_000_000_000),
    ];
    push(&receiver(&world), series).await;
    until("there is a request", || !backend.seen().is_empty()).await;
    let message = snap::raw::Decoder::new().decompress_vec(&backend.seen()[0].body).unwrap();
    // 1700000000000 as a variable-length integer.
    let time = b"\x10\x80\xd0\x95\xff\xbc\x31";
    let mut expected = b"\x0a\x31".to_vec();
    expected
        .extend_from_slice(b"\x0a\x0d\x0a\x08__name__\x12\x01m\x0a\x06\x0a\x01a\x12\x011\x0a\x06\x0a\x01b\x12\x012");
    expected.extend_from_slice(b"\x12\x10\x09");
    expected.extend_from_slice(&1.5f64.to_le_bytes());
    expected.extend_from_slice(time);
    expected.extend_from_slice(b"\x0a\x21\x0a\x0d\x0a\x08__name__\x12\x01z");
    expected.extend_from_slice(b"\x12\x10\x09\0\0\0\0\0\0\0\0");
    expected.extend_from_slice(time);
    assert_eq!(message, expected);
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn external_labels_are_added_where_absent_and_then_rules_apply() {
    let (world, backend) = (host(ID), Backend::willing().await);
    let rules = "write_relabel_config {\nsource_labels = [\"cluster\"]\nregex = \"(.*)\"\ntarget_label = \"seen\"\n}\n\
                 write_relabel_config {\nsource_labels = [\"__name__\"]\nregex = \"drop_.*\"\naction = \"drop\"\n}";
    let body = format!(
        "external_labels = {{ cluster = \"outer\", zone = \"z\", \"A\" = \"first\" }}\n{}",
        endpoint(&backend.url(), &format!("name = \"n\"\n{rules}"), QUICK)
    );
    let mut unit = start(&world, &body).await;
    let series: &[Series<'_>] = &[
        (&[("__name__", "plain")], 1.0, 1000),
        (&[("__name__", "own"), ("cluster", "inner")], 2.0, 1000),
        (&[("__name__", "drop_me")], 3.0, 1000),
    ];
    push(&receiver(&world), series).await;
    backend.has("own", 1).await;
    let labels: Vec<String> = backend
        .entries()
        .iter()
        .map(|entry| entry.labels.iter().map(|(name, value)| format!("{name}={value} ")).collect())
        .collect();
    assert_eq!(
        labels,
        [
            "A=first __name__=plain cluster=outer seen=outer zone=z ",
            "A=first __name__=own cluster=inner seen=inner zone=z ",
        ]
    );
    assert_eq!(dropped(&world, "samples", "n", &backend.url(), "dropped_series"), 1.0);
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn staleness_and_other_values_keep_their_bits() {
    let (world, backend) = (host(ID), Backend::willing().await);
    let mut unit = start(&world, &endpoint(&backend.url(), "", QUICK)).await;
    let values = [STALE_NAN, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 5e-324, f64::MAX];
    for value in values {
        push(&receiver(&world), &[(&[("__name__", "v")], value, now_ms())]).await;
    }
    backend.has("v", values.len()).await;
    let bits: Vec<u64> = backend.entries().iter().map(|entry| entry.samples[0].0).collect();
    assert_eq!(bits, values.map(f64::to_bits));
    assert_eq!(bits[0], STALE_NAN_BITS);
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn samples_of_a_series_stay_in_order_over_a_slow_peer_and_a_change_of_shards() {
    let (world, calls) = (host(ID), AtomicUsize::new(0));
    let backend = Backend::start(move |_| {
        // Every third request fails, so that what follows it may not overtake it.
        let call = calls.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(3));
        answer(if call % 3 == 0 { 503 } else { 200 }, &[], "")
    })
    .await;
    let with_shards = |shards: u16| {
        let queue = format!("{QUICK}\nmin_shards = {shards}\nmax_samples_per_send = 25");
        endpoint(&backend.url(), "name = \"n\"", &queue)
    };
    let mut unit = start(&world, &with_shards(1)).await;
    let to = receiver(&world);
    let (series, rounds) = (20, 30);
    for round in 0..rounds {
        match round {
            10 => unit.update(&with_shards(4)).await.unwrap(),
            20 => unit.update(&with_shards(2)).await.unwrap(),
            _ => {}
        }
        let to = to.clone();
        push_many(&to, series, round..round + 1).await;
    }
    let last = format!("many_{}", series - 1);
    until("all has come", || backend.entries().len() >= series * rounds).await;
    assert_eq!(backend.series().len(), series);
    for (name, values) in backend.series() {
        assert_eq!(values, numbers(rounds), "{name}");
    }
    assert!(!backend.values(&last).is_empty());
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn as_many_shards_as_asked_for_are_used_from_the_start() {
    let (world, backend) = (host(ID), Backend::willing().await);
    let queue = format!("{QUICK}\nmin_shards = 4\nmax_shards = 8");
    let mut unit = start(&world, &endpoint(&backend.url(), "name = \"n\"", &queue)).await;
    assert_eq!(metric(&world, "shards", "n", &backend.url()), Some(4.0));
    push_many(&receiver(&world), 100, 0..1).await;
    until("all has come", || backend.entries().len() == 100).await;
    assert_eq!(backend.requests().len(), 4);
    let queue = format!("{QUICK}\nmin_shards = 1\nmax_shards = 2");
    unit.update(&endpoint(&backend.url(), "name = \"n\"", &queue)).await.unwrap();
    assert_eq!(metric(&world, "shards", "n", &backend.url()), Some(2.0));
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn a_request_has_at_most_max_samples_per_send() {
    let (world, backend) = (host(ID), Backend::willing().await);
    let (small, large) = (format!("{QUICK}\nmax_samples_per_send = 7"), format!("{QUICK}\nmax_samples_per_send = 50"));
    let other = Backend::willing().await;
    let body =
        endpoint(&backend.url(), "name = \"small\"", &small) + &endpoint(&other.url(), "name = \"large\"", &large);
    let mut unit = start(&world, &body).await;
    push_many(&receiver(&world), 10, 0..10).await;
    for (backend, most) in [(&backend, 7), (&other, 50)] {
        until("all has come", || backend.entries().len() == 100).await;
        let sizes: Vec<usize> = backend.requests().iter().map(Vec::len).collect();
        assert!(sizes.iter().all(|size| *size <= most), "{sizes:?} of {most}");
    }
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn a_request_that_is_not_full_goes_after_batch_send_deadline() {
    let (world, backend) = (host(ID), Backend::willing().await);
    let mut unit = start(&world, &endpoint(&backend.url(), "", "batch_send_deadline = \"2s\"")).await;
    let started = Instant::now();
    push_number(&receiver(&world), "a", 0).await;
    push_number(&receiver(&world), "a", 1).await;
    backend.has("a", 2).await;
    assert!(started.elapsed() >= Duration::from_secs(2), "{:?}", started.elapsed());
    assert_eq!(backend.requests().len(), 1);
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn what_fails_is_tried_again_until_it_is_taken() {
    for status in [500, 502, 503, 504, 429] {
        let (world, calls) = (host(ID), AtomicUsize::new(0));
        let backend = Backend::start(move |_| {
            let status = if calls.fetch_add(1, Ordering::Relaxed) < 3 { status } else { 204 };
            answer(status, &[], "")
        })
        .await;
        let mut unit = start(&world, &endpoint(&backend.url(), "name = \"n\"", QUICK)).await;
        push_number(&receiver(&world), "a", 0).await;
        backend.has("a", 1).await;
        let attempts: Vec<String> = backend.seen().iter().map(|seen| seen.header("retry-attempt").to_owned()).collect();
        assert_eq!(attempts, ["", "1", "2", "3"], "{status}");
        let of = |name| metric(&world, name, "n", &backend.url());
        until("the attempts are counted", || of("samples_total") == Some(4.0)).await;
        assert_eq!(of("samples_retried_total"), Some(3.0));
        assert_eq!(of("samples_failed_total"), Some(0.0));
        balanced(&unit.world).await;
        unit.drain().await;
    }
}

#[tokio::test]
async fn waits_grow_from_min_backoff_to_max_backoff() {
    let (world, times) = (host(ID), Arc::new(Mutex::new(Vec::new())));
    let record = Arc::clone(&times);
    let backend = Backend::start(move |_| {
        let mut times = record.lock();
        times.push(Instant::now());
        answer(if times.len() < 10 { 500 } else { 200 }, &[], "")
    })
    .await;
    let queue = "batch_send_deadline = \"10ms\"\nmin_backoff = \"40ms\"\nmax_backoff = \"100ms\"";
    let mut unit = start(&world, &endpoint(&backend.url(), "", queue)).await;
    push_number(&receiver(&world), "a", 0).await;
    backend.has("a", 1).await;
    let times = times.lock().clone();
    let waits: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (wait, least_ms) in waits.iter().zip([40, 80, 100, 100, 100, 100, 100, 100, 100]) {
        assert!(*wait >= Duration::from_millis(least_ms), "{waits:?}");
    }
    // It would be ten seconds otherwise.
    assert!(waits[8] < Duration::from_secs(5), "the waits stop growing: {waits:?}");
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn retry_after_says_when_to_come_again() {
    for (status, is_date) in [(429, false), (503, true)] {
        let (world, times) = (host(ID), Arc::new(Mutex::new(Vec::new())));
        let record = Arc::clone(&times);
        let backend = Backend::start(move |_| {
            let mut times = record.lock();
            times.push(Instant::now());
            let after = if is_date { httpdate(SystemTime::now() + Duration::from_secs(2)) } else { "1".to_owned() };
            let status = if times.len() == 1 { status } else { 200 };
            answer(status, &[("retry-after", &after)], "")
        })
        .await;
        let mut unit = start(&world, &endpoint(&backend.url(), "", QUICK)).await;
        push_number(&receiver(&world), "a", 0).await;
        backend.has("a", 1).await;
        let times = times.lock().clone();
        // A date has whole seconds, so that of the two seconds at least one is left.
        assert!(times[1] - times[0] >= Duration::from_millis(900), "{:?}", times[1] - times[0]);
        balanced(&unit.world).await;
        unit.drain().await;
    }
}

/// A time as HTTP writes it, `Sun, 06 Nov 1994 08:49:37 GMT`. The day of the week is not looked at by anybody, but has to be
/// right; it is computed from the number of days, as the date is.
fn httpdate(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap().as_secs();
    let (days, rest) = (seconds / 86400, seconds % 86400);
    let weekday = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][(days % 7) as usize];
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (mut year, mut day) = (1970, days);
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let names = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let lengths = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while day >= lengths[month] {
        day -= lengths[month];
        month += 1;
    }
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{weekday}, {:02} {} {year} {hour:02}:{minute:02}:{second:02} GMT", day + 1, names[month])
}

#[tokio::test]
async fn a_timeout_and_a_refused_connection_are_tried_again() {
    let (address, url) = nobody();
    let world = host(ID);
    let mut unit = start(&world, &endpoint(&url, "name = \"n\"", QUICK)).await;
    push_number(&receiver(&world), "a", 0).await;
    until("it is tried again", || metric(&world, "samples_retried_total", "n", &url) >= Some(2.0)).await;
    assert!(world.health_text().starts_with("unhealthy"), "{}", world.health_text());
    // Now somebody listens there who never answers.
    let hole = TcpListener::bind(address).await.unwrap();
    unit.update(&endpoint(&url, "name = \"n\"\nremote_timeout = \"50ms\"", QUICK)).await.unwrap();
    let before = metric(&world, "samples_retried_total", "n", &url).unwrap();
    until("timeouts pass", || metric(&world, "samples_retried_total", "n", &url).unwrap() >= before + 3.0).await;
    drop(hole);
    assert_eq!(metric(&world, "samples_failed_total", "n", &url), Some(0.0));
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn an_answer_whose_text_never_ends_counts_by_its_status() {
    for status in ["200 OK", "400 Bad Request"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/push", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&requests);
        let serving = tokio::spawn(async move {
            let mut connections = Vec::new();
            while let Ok((mut connection, _)) = listener.accept().await {
                connection.readable().await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                let head = format!("HTTP/1.1 {status}\r\ncontent-length: 10\r\n\r\nonly");
                connection.write_all(head.as_bytes()).await.unwrap();
                connections.push(connection);
            }
        });
        let world = host(ID);
        let mut unit = start(&world, &endpoint(&url, "name = \"n\"\nremote_timeout = \"1s\"", QUICK)).await;
        push_number(&receiver(&world), "a", 0).await;
        until("nothing waits", || metric(&world, "samples_pending", "n", &url) == Some(0.0)).await;
        assert_eq!(requests.load(Ordering::Relaxed), 1, "{status}");
        balanced(&unit.world).await;
        unit.drain().await;
        serving.abort();
    }
}

#[tokio::test]
async fn settings_that_change_end_the_wait_that_the_peer_asked_for() {
    let (world, backend) = (host(ID), Backend::start(|_| answer(503, &[("retry-after", "3600")], "")).await);
    let mut unit = start(&world, &endpoint(&backend.url(), "", QUICK)).await;
    push_number(&receiver(&world), "a", 0).await;
    until("it was tried", || !backend.seen().is_empty()).await;
    backend.turn(200);
    unit.update(&endpoint(&backend.url(), "headers = { \"X-Scope-OrgID\" = \"t\" }", QUICK)).await.unwrap();
    backend.has("a", 1).await;
    assert_eq!(backend.seen().len(), 2);
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn max_shards_holds_for_an_endpoint_whose_sibling_wants_more() {
    let (world, one) = (host(ID), Backend::willing().await);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/push", listener.local_addr().unwrap());
    let open = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&open);
    let holding = tokio::spawn(async move {
        let mut connections = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            connections.push(connection);
        }
    });
    let body = endpoint(&one.url(), "name = \"one\"", &format!("{QUICK}\nmin_shards = 8"))
        + &endpoint(&url, "name = \"other\"", &format!("{QUICK}\nmax_shards = 2"));
    let mut unit = start(&world, &body).await;
    push_many(&receiver(&world), 40, 0..3).await;
    until("all has come", || one.entries().len() == 120).await;
    assert!(one.requests().len() >= 8);
    until("it is tried", || open.load(Ordering::Relaxed) >= 2).await;
    stays("no more are under way", Duration::from_millis(300), || open.load(Ordering::Relaxed) == 2).await;
    holding.abort();
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn what_is_refused_is_dropped_counted_and_logged() {
    for status in [400, 401, 404, 415] {
        let (world, backend) = (host(ID), Backend::answering(status).await);
        let mut unit = start(&world, &endpoint(&backend.url(), "name = \"n\"", QUICK)).await;
        let to = receiver(&world);
        push_number(&to, "a", 0).await;
        let failed = || metric(&world, "samples_failed_total", "n", &backend.url());
        until("it is counted", || failed() == Some(1.0)).await;
        assert_eq!(backend.seen().len(), 1, "{status} is not tried again");
        let logs = world.logs();
        let wanted = format!("server returned HTTP status {status} ");
        assert!(
            logs.contains("non-recoverable error") && logs.contains(&wanted) && logs.contains(": because"),
            "{logs}"
        );
        assert_eq!(metric(&world, "samples_retried_total", "n", &backend.url()), Some(0.0));
        backend.turn(200);
        push_number(&to, "a", 1).await;
        backend.has("a", 1).await;
        assert_eq!(backend.values("a"), [1.0]);
        balanced(&unit.world).await;
        unit.drain().await;
    }
}

#[tokio::test]
async fn retry_on_http_429_decides_what_becomes_of_429() {
    let (world, backend) = (host(ID), Backend::answering(429).await);
    let queue = format!("{QUICK}\nretry_on_http_429 = false");
    let mut unit = start(&world, &endpoint(&backend.url(), "name = \"n\"", &queue)).await;
    push_number(&receiver(&world), "a", 0).await;
    let failed = || metric(&world, "samples_failed_total", "n", &backend.url());
    until("it is dropped", || failed() == Some(1.0)).await;
    assert_eq!(backend.seen().len(), 1);
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn a_request_that_is_too_large_is_halved() {
    let (world, backend) = (host(ID), Backend::answering(500).await);
    let queue = format!("{QUICK}\nmax_samples_per_send = 100");
    let mut unit = start(&world, &endpoint(&backend.url(), "name = \"n\"", &queue)).await;
    let to = receiver(&world);
    // The first record is on its way and fails, so that the others gather behind it.
    push_number(&to, "first", 0).await;
    until("the first request is seen", || !backend.seen().is_empty()).await;
    for round in 0..8 {
        push_number(&to, "a", round).await;
    }
    push_many(&to, 5, 0..1).await;
    *backend.answer.lock() = Box::new(|seen| {
        let too_large = decode(&seen.body).len() > 4;
        answer(if too_large { 413 } else { 200 }, &[], "")
    });
    let failed = || metric(&world, "samples_failed_total", "n", &backend.url());
    until("what cannot be made smaller is dropped", || failed() == Some(5.0)).await;
    backend.has("a", 8).await;
    assert_eq!(backend.values("a"), numbers(8));
    assert!(backend.series().keys().all(|name| !name.starts_with("many_")));
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn a_black_hole_does_not_delay_another_endpoint_of_its_lane() {
    let ((hole, holding), backend, world) = (black_hole().await, Backend::willing().await, host(ID));
    let slow = endpoint(&hole, "name = \"hole\"\nremote_timeout = \"200ms\"", QUICK);
    let body = slow + &endpoint(&backend.url(), "name = \"live\"", QUICK);
    let mut unit = start(&world, &body).await;
    assert_eq!(queues(&world).len(), 1, "both share a lane");
    let to = receiver(&world);
    for round in 0..5 {
        push_number(&to, "a", round).await;
    }
    backend.has("a", 5).await;
    assert_eq!(backend.values("a"), numbers(5));
    assert_eq!(metric(&world, "samples_pending", "hole", &hole), Some(5.0));
    until("nothing waits for the other", || metric(&world, "samples_pending", "live", &backend.url()) == Some(0.0))
        .await;
    balanced(&unit.world).await;
    unit.drain().await;
    holding.abort();
}

#[tokio::test]
async fn an_endpoint_whose_settings_change_keeps_its_place() {
    let (world, backend) = (host(ID), Backend::answering(503).await);
    let mut unit = start(&world, &endpoint(&backend.url(), "", QUICK)).await;
    let to = receiver(&world);
    for round in 0..3 {
        push_number(&to, "a", round).await;
    }
    until("it was tried", || backend.seen().len() >= 2).await;
    *backend.answer.lock() = Box::new(|seen| {
        let authorized = seen.header("authorization") == "Basic dTpw" && seen.header("x-scope-orgid") == "t";
        answer(if authorized { 200 } else { 503 }, &[], "")
    });
    let attributes = "headers = { \"X-Scope-OrgID\" = \"t\" }\nbasic_auth {\nusername = \"u\"\npassword = \"p\"\n}";
    let queue = format!("{QUICK}\nmax_samples_per_send = 2");
    unit.update(&endpoint(&backend.url(), attributes, &queue)).await.unwrap();
    push_number(&to, "a", 3).await;
    backend.has("a", 4).await;
    assert_eq!(backend.values("a"), numbers(4));
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn an_endpoint_that_moves_is_told_of_under_its_new_url() {
    let (world, old, new) = (host(ID), Backend::answering(503).await, Backend::willing().await);
    let mut unit = start(&world, &endpoint(&old.url(), "name = \"n\"", QUICK)).await;
    let to = receiver(&world);
    for round in 0..3 {
        push_number(&to, "a", round).await;
    }
    until("it was tried", || !old.seen().is_empty()).await;
    unit.update(&endpoint(&new.url(), "name = \"n\"", QUICK)).await.unwrap();
    push_number(&to, "a", 3).await;
    new.has("a", 4).await;
    assert_eq!(new.values("a"), numbers(4));
    until("it is counted", || metric(&world, "samples_total", "n", &new.url()) == Some(4.0)).await;
    until("nothing is told of the old one", || !world.metrics().text().contains(&old.url())).await;
    until("it is healthy", || world.health_text().starts_with("healthy")).await;
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn rules_that_change_leave_what_waits_to_be_sent() {
    let (world, backend) = (host(ID), Backend::answering(503).await);
    let rule = "write_relabel_config {\ntarget_label = \"new\"\nreplacement = \"yes\"\n}";
    let (before, after) = (endpoint(&backend.url(), "", QUICK), endpoint(&backend.url(), rule, QUICK));
    let mut unit = start(&world, &before).await;
    let to = receiver(&world);
    for round in 0..3 {
        push_number(&to, "a", round).await;
    }
    until("it was tried", || !backend.seen().is_empty()).await;
    unit.update(&after).await.unwrap();
    for round in 3..6 {
        push_number(&to, "a", round).await;
    }
    let tried = backend.seen().len();
    until("it is tried on", || backend.seen().len() >= tried + 4).await;
    backend.turn(200);
    backend.has("a", 6).await;
    assert_eq!(backend.values("a"), numbers(6));
    let new: Vec<bool> = backend.entries().iter().map(|entry| entry.label("new").is_some()).collect();
    assert_eq!(new, [false, false, false, true, true, true]);
    until("the queue of the old rules is gone", || queues(&world).len() == 1).await;
    let remote_name = world.metrics().text();
    assert!(remote_name.contains("prometheus_remote_storage_samples_total{"), "the endpoint's metrics are still there");
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn rules_can_go_and_come_back_while_the_peer_takes_nothing() {
    let (world, backend) = (host(ID), Backend::answering(503).await);
    let rule = "write_relabel_config {\ntarget_label = \"new\"\nreplacement = \"yes\"\n}";
    let (plain, ruled) = (endpoint(&backend.url(), "", QUICK), endpoint(&backend.url(), rule, QUICK));
    let mut unit = start(&world, &plain).await;
    let to = receiver(&world);
    for round in 0..6 {
        push_number(&to, "a", round).await;
        unit.update(if round % 2 == 0 { &ruled } else { &plain }).await.unwrap();
    }
    push_number(&to, "a", 6).await;
    backend.turn(200);
    until("all has come", || backend.values("a").len() >= 7).await;
    let mut values = backend.values("a");
    values.sort_by(f64::total_cmp);
    values.dedup();
    assert_eq!(values, numbers(7));
    until("one queue is left", || queues(&world).len() == 1).await;
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn an_endpoint_that_leaves_a_shared_lane_gets_what_waits_for_it() {
    let (world, one, other) = (host(ID), Backend::willing().await, Backend::answering(503).await);
    let rule = "name = \"other\"\nwrite_relabel_config {\ntarget_label = \"new\"\nreplacement = \"yes\"\n}";
    let first = endpoint(&one.url(), "name = \"one\"", QUICK);
    let mut unit = start(&world, &(first.clone() + &endpoint(&other.url(), "name = \"other\"", QUICK))).await;
    let to = receiver(&world);
    for round in 0..3 {
        push_number(&to, "a", round).await;
    }
    until("it was tried", || !other.seen().is_empty()).await;
    assert_eq!(queues(&world).len(), 1);
    unit.update(&(first + &endpoint(&other.url(), rule, QUICK))).await.unwrap();
    assert_eq!(queues(&world).len(), 2);
    other.turn(200);
    other.has("a", 3).await;
    push_number(&to, "a", 3).await;
    until("what is new comes by the new rules", || other.entries().iter().any(|entry| entry.label("new").is_some()))
        .await;
    one.has("a", 4).await;
    assert_eq!(one.values("a"), numbers(4));
    assert_eq!(other.values("a")[..3], numbers(3));
    let labels = [("remote_name", "other"), ("url", &*other.url())];
    assert!(world.metrics().get("prometheus_remote_storage_samples_total", &labels) >= Some(4.0));
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn an_endpoint_that_leaves_a_shared_lane_gets_what_is_in_flight() {
    let (world, one, other) = (host(ID), Backend::willing().await, Backend::willing().await);
    let first = endpoint(&one.url(), "name = \"one\"", QUICK);
    let leaving = |round: usize| {
        let rule = format!(
            "name = \"other\"\nwrite_relabel_config {{\ntarget_label = \"round\"\nreplacement = \"{round}\"\n}}"
        );
        first.clone() + &endpoint(&other.url(), &rule, QUICK)
    };
    let shared = first.clone() + &endpoint(&other.url(), "name = \"other\"", QUICK);
    let mut unit = start(&world, &shared).await;
    let to = receiver(&world);
    for round in 0..6 {
        let to = to.clone();
        let pushing = tokio::spawn(async move { push_number(&to, "a", round).await });
        tokio::time::sleep(Duration::from_millis(10)).await;
        unit.update(&if round % 2 == 0 { leaving(round) } else { shared.clone() }).await.unwrap();
        pushing.await.unwrap();
    }
    until("all has come", || numbers(6).iter().all(|number| other.values("a").contains(number))).await;
    one.has("a", 6).await;
    assert_eq!(one.values("a"), numbers(6));
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn an_endpoint_that_leaves_a_shared_lane_twice_gets_what_waits_from_both_times() {
    let (world, one, other) = (host(ID), Backend::willing().await, Backend::answering(503).await);
    let queue = format!("{QUICK}\nmax_samples_per_send = 1");
    let rule = "name = \"other\"\nwrite_relabel_config {\ntarget_label = \"new\"\nreplacement = \"yes\"\n}";
    let first = endpoint(&one.url(), "name = \"one\"", &queue);
    let shared = first.clone() + &endpoint(&other.url(), "name = \"other\"", &queue);
    let apart = first + &endpoint(&other.url(), rule, &queue);
    let mut unit = start(&world, &shared).await;
    let to = receiver(&world);
    push_number(&to, "a", 0).await;
    until("it was tried", || !other.seen().is_empty()).await;
    unit.update(&apart).await.unwrap();
    unit.update(&shared).await.unwrap();
    for round in 1..5 {
        push_number(&to, "a", round).await;
    }
    unit.update(&apart).await.unwrap();
    let tried = other.seen().len();
    until("it is tried on", || other.seen().len() >= tried + 4).await;
    other.turn(200);
    until("all has come", || numbers(5).iter().all(|number| other.values("a").contains(number))).await;
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_leaves_a_shared_lane_gets_what_waits_whatever_else_comes() {
    let (world, one) = (host(ID), Backend::willing().await);
    // It takes nothing of one series.
    let other = Backend::start(|seen| {
        let is_refused = decode(&seen.body).iter().any(|entry| entry.name() == "slow");
        answer(if is_refused { 503 } else { 200 }, &[], "")
    })
    .await;
    let queue = format!("{QUICK}\nmin_shards = 8");
    let rule = "name = \"other\"\nwrite_relabel_config {\ntarget_label = \"new\"\nreplacement = \"yes\"\n}";
    let first = endpoint(&one.url(), "name = \"one\"", &queue);
    let mut unit = start(&world, &(first.clone() + &endpoint(&other.url(), "name = \"other\"", &queue))).await;
    let to = receiver(&world);
    push_number(&to, "slow", 0).await;
    until("it was tried", || !other.seen().is_empty()).await;
    unit.update(&(first + &endpoint(&other.url(), rule, &queue))).await.unwrap();
    for round in 0..5 {
        push_many(&to, 40, round..round + 1).await;
    }
    one.has("many_0", 5).await;
    let tried = other.seen().len();
    until("it is tried on", || other.seen().len() >= tried + 10).await;
    other.turn(200);
    other.has("slow", 1).await;
    until("what is new comes by the new rules", || {
        let new = other.entries().into_iter().filter(|entry| entry.label("new").is_some());
        new.count() == 200
    })
    .await;
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn an_endpoint_that_left_a_shared_lane_gets_what_waits_for_it_after_a_restart() {
    let (world, one, other) = (host(ID), Backend::willing().await, Backend::answering(503).await);
    let rule = "name = \"other\"\nwrite_relabel_config {\ntarget_label = \"new\"\nreplacement = \"yes\"\n}";
    let first = endpoint(&one.url(), "name = \"one\"", QUICK);
    let before = first.clone() + &endpoint(&other.url(), "name = \"other\"", QUICK);
    let after = first + &endpoint(&other.url(), rule, QUICK);
    let mut unit = start(&world, &before).await;
    for round in 0..3 {
        push_number(&receiver(&world), "a", round).await;
    }
    until("it was tried", || !other.seen().is_empty()).await;
    unit.update(&after).await.unwrap();
    balanced(&unit.world).await;
    unit.drain().await;
    drop(unit);
    other.turn(200);
    let mut unit = start(&world, &after).await;
    push_number(&receiver(&world), "a", 3).await;
    other.has("a", 4).await;
    one.has("a", 4).await;
    assert_eq!(one.values("a"), numbers(4));
    assert_eq!(other.values("a"), numbers(4));
    let new: Vec<bool> = other.entries().iter().map(|entry| entry.label("new").is_some()).collect();
    assert_eq!(new, [false, false, false, true]);
    balanced(&unit.world).await;
    unit.drain().await;
    drop(unit);
    // Nothing of it is left in the lane: the next start neither warns nor sends anything.
    let (logged, seen) = (world.logs().len(), other.seen().len());
    let mut unit = start(&world, &after).await;
    push_number(&receiver(&world), "a", 4).await;
    other.has("a", 5).await;
    assert_eq!((other.seen().len(), &world.logs()[logged..]), (seen + 1, ""));
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn what_a_lane_took_since_an_endpoint_left_it_is_not_for_that_endpoint_after_a_restart_either() {
    let (world, one, other) = (host(ID), Backend::willing().await, Backend::answering(503).await);
    let rule = "name = \"other\"\nwrite_relabel_config {\ntarget_label = \"new\"\nreplacement = \"yes\"\n}";
    let first = endpoint(&one.url(), "name = \"one\"", QUICK);
    let before = first.clone() + &endpoint(&other.url(), "name = \"other\"", QUICK);
    let after = first + &endpoint(&other.url(), rule, QUICK);
    let mut unit = start(&world, &before).await;
    push_number(&receiver(&world), "a", 0).await;
    until("it was tried", || !other.seen().is_empty()).await;
    unit.update(&after).await.unwrap();
    // Nothing is in flight, so that the tasks that were spawned find the end at once.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    for round in 1..4 {
        push_number(&receiver(&world), "a", round).await;
    }
    one.has("a", 4).await;
    balanced(&unit.world).await;
    unit.drain().await;
    drop(unit);
    let mut unit = start(&world, &after).await;
    other.turn(200);
    push_number(&receiver(&world), "a", 4).await;
    other.has("a", 5).await;
    assert_eq!(other.values("a"), numbers(5));
    let new: Vec<bool> = other.entries().iter().map(|entry| entry.label("new").is_some()).collect();
    assert_eq!(new, [false, true, true, true, true]);
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn what_waits_in_a_shared_lane_for_an_endpoint_that_is_gone_is_kept_for_its_return() {
    let (world, one, other) = (host(ID), Backend::willing().await, Backend::answering(503).await);
    let first = endpoint(&one.url(), "name = \"one\"", QUICK);
    let both = first.clone() + &endpoint(&other.url(), "name = \"other\"", QUICK);
    let mut unit = start(&world, &both).await;
    push_number(&receiver(&world), "a", 0).await;
    until("it was tried", || !other.seen().is_empty()).await;
    balanced(&unit.world).await;
    unit.drain().await;
    drop(unit);
    let mut unit = start(&world, &first).await;
    assert!(world.logs().contains("an endpoint is gone; what waits for it is kept until it is too old"));
    balanced(&unit.world).await;
    unit.drain().await;
    drop(unit);
    other.turn(200);
    let mut unit = start(&world, &both).await;
    other.has("a", 1).await;
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn batches_in_flight_outlive_a_change_of_rules() {
    let (world, backend) = (host(ID), Backend::willing().await);
    let rule = |round: usize| {
        let rule = format!("write_relabel_config {{\ntarget_label = \"round\"\nreplacement = \"{round}\"\n}}");
        endpoint(&backend.url(), &rule, QUICK)
    };
    let mut unit = start(&world, &rule(0)).await;
    let to = receiver(&world);
    let pushing = tokio::spawn(async move {
        for round in 0..20 {
            push_number(&to, "a", round).await;
        }
    });
    let mut round = 1;
    while !pushing.is_finished() {
        unit.update(&rule(round)).await.unwrap();
        round += 1;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    pushing.await.unwrap();
    backend.has("a", 20).await;
    assert_eq!(backend.values("a"), numbers(20));
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn an_endpoint_that_goes_leaves_the_others_alone_and_takes_its_metrics_along() {
    let (world, gone, stays_on) = (host(ID), Backend::willing().await, Backend::willing().await);
    let one = endpoint(&stays_on.url(), "name = \"one\"", QUICK);
    let other = endpoint(&gone.url(), "name = \"other\"", "batch_send_deadline = \"1h\"");
    let mut unit = start(&world, &format!("{one}{other}")).await;
    let to = receiver(&world);
    push_number(&to, "a", 0).await;
    stays_on.has("a", 1).await;
    assert!(gone.seen().is_empty());
    unit.update(&one).await.unwrap();
    // What waits for it is sent when it goes.
    gone.has("a", 1).await;
    push_number(&to, "a", 1).await;
    stays_on.has("a", 2).await;
    until("its metrics are gone", || !world.metrics().text().contains("remote_name=\"other\"")).await;
    assert_eq!(metric(&world, "samples_total", "one", &stays_on.url()), Some(2.0));
    assert_eq!(gone.values("a"), [0.0]);
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn an_endpoint_that_goes_while_it_fails_takes_its_bad_health_along() {
    let (world, bad, good) = (host(ID), Backend::answering(500).await, Backend::willing().await);
    let one = endpoint(&good.url(), "name = \"good\"", QUICK);
    let other = endpoint(&bad.url(), "name = \"bad\"", QUICK);
    let mut unit = start(&world, &format!("{one}{other}")).await;
    push_number(&receiver(&world), "a", 0).await;
    until("it is unhealthy", || world.health_text().starts_with("unhealthy")).await;
    unit.update(&one).await.unwrap();
    until("it is healthy", || world.health_text().starts_with("healthy")).await;
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn after_a_restart_everything_arrives_in_order_and_at_most_one_request_twice() {
    let (world, backend) = (host(ID), Backend::answering(503).await);
    let body = endpoint(&backend.url(), "", &format!("{QUICK}\nmax_samples_per_send = 3"));
    let mut unit = start(&world, &body).await;
    for round in 0..10 {
        push_number(&receiver(&world), "a", round).await;
    }
    until("it was tried", || !backend.seen().is_empty()).await;
    let started = Instant::now();
    balanced(&unit.world).await;
    unit.drain().await;
    assert!(started.elapsed() < Duration::from_secs(30), "a peer that fails does not hold up the end");
    drop(unit);
    backend.turn(200);
    let mut unit = start(&world, &body).await;
    push_number(&receiver(&world), "a", 10).await;
    until("the last has come", || backend.values("a").contains(&10.0)).await;
    assert_eq!(backend.values("a"), numbers(11));
    let waited = || {
        let metrics = world.metrics().text();
        let line =
            metrics.lines().find(|line| line.starts_with("prometheus_wal_watcher_samples_sent_pre_tailing_total{"));
        line.is_some_and(|line| line.ends_with(" 10"))
    };
    until("what waited is counted", waited).await;
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn after_a_kill_everything_arrives_in_order_and_at_most_one_request_twice() {
    let (killed, backend) = (host(ID), Backend::willing().await);
    let body = endpoint(&backend.url(), "", &format!("{QUICK}\nmax_samples_per_send = 3"));
    let mut unit = start(&killed, &body).await;
    let to = receiver(&killed);
    for round in 0..5 {
        push_number(&to, "a", round).await;
    }
    backend.has("a", 5).await;
    backend.turn(503);
    for round in 5..10 {
        push_number(&to, "a", round).await;
    }
    // What is on disk at this moment is what a process leaves that is killed at this moment.
    let world = host(ID);
    copy(&killed.path(ID), &world.path(ID));
    balanced(&unit.world).await;
    unit.drain().await;
    backend.turn(200);
    let mut unit = start(&world, &body).await;
    until("the last has come", || backend.values("a").contains(&9.0)).await;
    let values = backend.values("a");
    let again = values.len() - 10;
    assert!(again <= 3, "{values:?}");
    let (first, second) = values.split_at(5);
    assert_eq!(first, &numbers(10)[..5]);
    assert_eq!(second, &numbers(10)[5 - again..]);
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn what_waited_under_other_external_labels_is_sent_after_a_restart_and_its_queue_removed() {
    let (world, backend) = (host(ID), Backend::answering(503).await);
    let body =
        |region: &str| format!("external_labels = {{ region = {region:?} }}\n{}", endpoint(&backend.url(), "", QUICK));
    let mut unit = start(&world, &body("old")).await;
    for round in 0..3 {
        push_number(&receiver(&world), "a", round).await;
    }
    balanced(&unit.world).await;
    unit.drain().await;
    drop(unit);
    let mut unit = start(&world, &body("new")).await;
    assert_eq!(queues(&world).len(), 2);
    for round in 3..5 {
        push_number(&receiver(&world), "a", round).await;
    }
    // A reload goes back to the old labels while their queue is still being sent, and forth.
    unit.update(&body("old")).await.unwrap();
    unit.update(&body("new")).await.unwrap();
    backend.turn(200);
    until("the last has come", || backend.values("a").contains(&4.0)).await;
    // A request whose answer comes when its endpoint goes is sent again.
    let values = backend.values("a");
    assert!(values == numbers(5) || values == [&numbers(3)[..], &numbers(5)].concat(), "{values:?}");
    let regions: Vec<String> =
        backend.entries().iter().map(|entry| entry.label("region").unwrap_or_default().to_owned()).collect();
    let (old, new) = regions.split_at(regions.len() - 2);
    assert!(old.iter().all(|region| region == "old") && new == ["new", "new"], "{regions:?}");
    until("the old queue is removed", || queues(&world).len() == 1).await;
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn a_shutdown_first_sends_what_waits() {
    let (world, backend) = (host(ID), Backend::willing().await);
    let queue = "batch_send_deadline = \"1h\"\nmax_samples_per_send = 1000\nmin_shards = 3";
    let mut unit = start(&world, &endpoint(&backend.url(), "", queue)).await;
    push_many(&receiver(&world), 10, 0..5).await;
    assert!(backend.seen().is_empty());
    let started = Instant::now();
    balanced(&unit.world).await;
    unit.drain().await;
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    assert_eq!(backend.entries().len(), 50);
    for (name, values) in backend.series() {
        assert_eq!(values, numbers(5), "{name}");
    }
}

#[tokio::test]
async fn a_shutdown_sends_what_waits_whatever_becomes_of_what_other_rules_left() {
    let ((hole, holding), backend, world) = (black_hole().await, Backend::willing().await, host(ID));
    let willing = endpoint(&backend.url(), "name = \"live\"", "batch_send_deadline = \"1h\"");
    let rule = "name = \"hole\"\nwrite_relabel_config {\ntarget_label = \"new\"\nreplacement = \"yes\"\n}";
    let slow = format!("remote_timeout = \"10m\"\n{rule}");
    let before = willing.clone() + &endpoint(&hole, "name = \"hole\"\nremote_timeout = \"10m\"", QUICK);
    let mut unit = start(&world, &before).await;
    push_number(&receiver(&world), "a", 0).await;
    unit.update(&(willing + &endpoint(&hole, &slow, QUICK))).await.unwrap();
    let draining = tokio::spawn(async move { unit.drain().await });
    backend.has("a", 1).await;
    assert!(!draining.is_finished(), "a request hangs");
    draining.abort();
    holding.abort();
}

#[tokio::test]
async fn a_shutdown_sends_nothing_that_is_newer_than_what_other_rules_left() {
    let world = host(ID);
    let backend = Backend::start(|seen| {
        let is_new = decode(&seen.body).iter().all(|entry| entry.label("new").is_some());
        answer(if is_new { 200 } else { 503 }, &[], "")
    })
    .await;
    let rule = "write_relabel_config {\ntarget_label = \"new\"\nreplacement = \"yes\"\n}";
    let mut unit = start(&world, &endpoint(&backend.url(), "", QUICK)).await;
    push_number(&receiver(&world), "a", 0).await;
    until("it was tried", || !backend.seen().is_empty()).await;
    unit.update(&endpoint(&backend.url(), rule, QUICK)).await.unwrap();
    push_number(&receiver(&world), "a", 1).await;
    balanced(&unit.world).await;
    unit.drain().await;
    drop(unit);
    backend.turn(200);
    let mut unit = start(&world, &endpoint(&backend.url(), rule, QUICK)).await;
    backend.has("a", 2).await;
    assert_eq!(backend.values("a"), numbers(2));
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn after_the_end_nothing_is_taken() {
    let (world, backend) = (host(ID), Backend::willing().await);
    let mut unit = start(&world, &endpoint(&backend.url(), "", QUICK)).await;
    let to = receiver(&world);
    balanced(&unit.world).await;
    unit.drain().await;
    let batch = MetricsBatch::of(vec![part(&[(&[("__name__", "a")], 0.0, 1)])]);
    assert!(to.consume(Arc::new(batch)).await.is_err());
}

#[tokio::test]
async fn samples_older_than_sample_age_limit_are_dropped_and_counted() {
    let (world, backend) = (host(ID), Backend::willing().await);
    let queue = format!("{QUICK}\nsample_age_limit = \"1m\"");
    let mut unit = start(&world, &endpoint(&backend.url(), "name = \"n\"", &queue)).await;
    let to = receiver(&world);
    push(&to, &[(&[("__name__", "a")], 0.0, now_ms() - 3_600_000)]).await;
    until("it is counted", || dropped(&world, "samples", "n", &backend.url(), "too_old") == 1.0).await;
    push_number(&to, "a", 1).await;
    backend.has("a", 1).await;
    assert_eq!(backend.values("a"), [1.0]);
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn samples_that_become_too_old_while_they_fail_are_dropped_and_counted() {
    let (world, backend) = (host(ID), Backend::answering(500).await);
    let queue = format!("{QUICK}\nsample_age_limit = \"3s\"");
    let mut unit = start(&world, &endpoint(&backend.url(), "name = \"n\"", &queue)).await;
    let to = receiver(&world);
    push_number(&to, "a", 0).await;
    until("it is tried", || !backend.seen().is_empty()).await;
    until("it is counted", || dropped(&world, "samples", "n", &backend.url(), "too_old") == 1.0).await;
    backend.turn(200);
    push_number(&to, "a", 1).await;
    backend.has("a", 1).await;
    assert_eq!(backend.values("a"), [1.0]);
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn the_cap_in_bytes_drops_the_oldest_and_counts_it() {
    let (world, backend) = (host(ID), Backend::answering(500).await);
    // With one sample a request, little is read ahead of the one that fails.
    let queue = format!("{QUICK}\nmax_samples_per_send = 1");
    let body = format!("{}\nwal {{ max_bytes = \"20KiB\" }}", endpoint(&backend.url(), "name = \"n\"", &queue));
    let mut unit = start(&world, &body).await;
    let to = receiver(&world);
    // Labels that do not compress, so that a few batches fill the queue.
    let rounds = 12;
    for round in 0..rounds {
        let mut state = round as u64 + 1;
        let noise: String = (0..3000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                char::from(b'!' + (state >> 58) as u8)
            })
            .collect();
        push(&to, &[(&[("__name__", "a"), ("noise", &noise)], round as f64, now_ms())]).await;
    }
    let lost = || dropped(&world, "samples", "n", &backend.url(), "overflow");
    until("the oldest are dropped", || lost() > 0.0).await;
    let wal_bytes = world.metrics().get("prometheus_tsdb_wal_storage_size_bytes", &[]).unwrap();
    assert!(wal_bytes > 0.0 && wal_bytes <= 20.0 * 1024.0, "{wal_bytes}");
    backend.turn(200);
    until("the newest has come", || backend.values("a").contains(&((rounds - 1) as f64))).await;
    until("nothing waits", || metric(&world, "samples_pending", "n", &backend.url()) == Some(0.0)).await;
    let values = backend.values("a");
    assert!(values.is_sorted(), "{values:?}");
    assert_eq!(values.len() as f64 + lost(), rounds as f64, "what was not sent was counted");
    // A batch that can never be held is dropped and counted; what comes after it is taken.
    let mut state = 7u64;
    let large: String = (0..60_000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b'!' + (state >> 58) as u8)
        })
        .collect();
    push(&to, &[(&[("__name__", "large"), ("noise", &large)], 0.0, now_ms())]).await;
    until("it is counted", || dropped(&world, "samples", "n", &backend.url(), "too_large") == 1.0).await;
    push_number(&to, "after", 1).await;
    backend.has("after", 1).await;
    balanced(&unit.world).await;
    unit.drain().await;
}

fn histogram(schema: i32) -> Arc<Histogram> {
    Arc::new(Histogram {
        schema,
        zero_threshold: 0.0,
        sum: 3.5,
        reset_hint: ResetHint::Unknown,
        positive_spans: vec![Span { offset: 0, length: 2 }],
        negative_spans: Vec::new(),
        counts: HistogramCounts::Int {
            count: 3,
            zero_count: 0,
            positive_deltas: vec![1, 1],
            negative_deltas: Vec::new(),
        },
        custom_values: if schema == CUSTOM_BUCKETS_SCHEMA { vec![1.0] } else { Vec::new() },
    })
}

/// A sample, an exemplar, a histogram and one with bounds of its own, of a series each.
fn all_kinds() -> Arc<MetricsBatch> {
    let series: &[Series<'_>] = &[
        (&[("__name__", "sample")], 1.0, 5000),
        (&[("__name__", "histogram")], 0.0, 5000),
        (&[("__name__", "bounds")], 0.0, 5000),
    ];
    let mut part = part(series);
    part.samples.truncate(1);
    part.histograms = vec![
        HistogramSample { index: 1, timestamp_ms: 5001, histogram: histogram(3) },
        HistogramSample { index: 2, timestamp_ms: 5001, histogram: histogram(CUSTOM_BUCKETS_SCHEMA) },
    ];
    part.exemplars =
        vec![Exemplar { index: 0, timestamp_ms: 4999, value: 0.25, labels: vec![("trace_id".into(), "t1".into())] }];
    Arc::new(MetricsBatch::of(vec![part]))
}

#[tokio::test]
async fn flags_decide_about_histograms_and_exemplars() {
    for (attributes, histograms, exemplars) in [
        ("", 0, 1),
        ("send_exemplars = false", 0, 0),
        ("send_native_histograms = true", 1, 1),
        ("send_native_histograms = true\nsend_exemplars = false", 1, 0),
    ] {
        let (world, backend) = (host(ID), Backend::willing().await);
        let attributes = format!("name = \"n\"\n{attributes}");
        let mut unit = start(&world, &endpoint(&backend.url(), &attributes, QUICK)).await;
        receiver(&world).consume(all_kinds()).await.unwrap();
        until("there is a request", || !backend.entries().is_empty()).await;
        let entries = backend.entries();
        assert_eq!(entries.len(), 1 + histograms + exemplars, "{attributes}");
        assert_eq!(entries[0].samples, [(1.0f64.to_bits(), 5000)]);
        let found: Vec<&Entry> = entries.iter().filter(|entry| !entry.histograms.is_empty()).collect();
        assert_eq!(found.len(), histograms);
        for entry in found {
            assert_eq!(entry.name(), "histogram");
            let (fields, time_ms) = &entry.histograms[0];
            assert_eq!(*time_ms, 5001);
            assert_eq!(*fields, [1, 3, 4, 6, 11, 12, 15]);
        }
        let found: Vec<&Entry> = entries.iter().filter(|entry| !entry.exemplars.is_empty()).collect();
        assert_eq!(found.len(), exemplars);
        for entry in found {
            let labels = vec![("trace_id".to_owned(), "t1".to_owned())];
            assert_eq!((entry.name(), &entry.exemplars), ("sample", &vec![(labels, 0.25f64.to_bits(), 4999)]));
        }
        let of = |name| metric(&world, name, "n", &backend.url());
        until("the request is counted", || of("samples_total") == Some(1.0)).await;
        assert_eq!(of("histograms_total"), Some(histograms as f64));
        assert_eq!(of("exemplars_total"), Some(exemplars as f64));
        let unsendable = dropped(&world, "histograms", "n", &backend.url(), "nhcb_in_rw1_not_supported");
        assert_eq!(
            unsendable, histograms as f64,
            "histograms with bounds of their own are counted where others are sent"
        );
        balanced(&unit.world).await;
        unit.drain().await;
    }
}

#[tokio::test]
async fn metrics_tell_the_truth() {
    let (world, backend) = (host(ID), Backend::answering(500).await);
    let queue = format!("{QUICK}\nmin_shards = 1\nmax_shards = 9\ncapacity = 777\nmax_samples_per_send = 55");
    let mut unit = start(&world, &endpoint(&backend.url(), "name = \"n\"", &queue)).await;
    let to = receiver(&world);
    push(&to, &[(&[("__name__", "a")], 0.0, 1_700_000_000_500), (&[("__name__", "b")], 0.0, 1_700_000_001_500)]).await;
    let of = |name| metric(&world, name, "n", &backend.url());
    let own = |name| world.metrics().get(name, &[]);
    until("it is retried", || of("samples_retried_total") >= Some(2.0)).await;
    for (name, value) in [
        ("samples_pending", 2.0),
        ("samples_failed_total", 0.0),
        ("enqueue_retries_total", 0.0),
        ("shards", 1.0),
        ("shards_min", 1.0),
        ("shards_max", 9.0),
        ("shard_capacity", 777.0),
        ("max_samples_per_send", 55.0),
        ("queue_highest_timestamp_seconds", 1_700_000_001.5),
        ("queue_highest_sent_timestamp_seconds", 0.0),
    ] {
        assert_eq!(of(name), Some(value), "{name}");
    }
    for (name, value) in [
        ("prometheus_remote_storage_highest_timestamp_in_seconds", 1_700_000_001.5),
        ("prometheus_remote_storage_samples_in_total", 2.0),
        ("prometheus_remote_write_wal_samples_appended_total", 2.0),
        ("prometheus_remote_write_wal_corruptions_total", 0.0),
        ("prometheus_remote_write_wal_storage_active_series", 2.0),
        ("prometheus_tsdb_wal_writes_failed_total", 0.0),
    ] {
        assert_eq!(own(name), Some(value), "{name}");
    }
    assert!(own("prometheus_remote_write_data_replay_duration_seconds") > Some(0.0));
    let consumer = |name: &str| world.metrics().get(&format!("prometheus_wal_watcher_{name}"), &[("consumer", "n")]);
    assert_eq!(consumer("current_segment"), own("prometheus_tsdb_wal_segment_current"));
    assert_eq!(consumer("record_decode_failures_total"), Some(0.0));
    backend.turn(200);
    backend.has("a", 1).await;
    until("nothing waits", || of("samples_pending") == Some(0.0)).await;
    assert_eq!(of("queue_highest_sent_timestamp_seconds"), Some(1_700_000_001.5));
    let seen = backend.seen();
    let bytes: usize = seen.iter().map(|seen| seen.body.len()).sum();
    assert_eq!(of("bytes_total"), Some(bytes as f64));
    assert_eq!(of("samples_total"), Some(2.0 * seen.len() as f64));
    assert_eq!(of("sent_batch_duration_seconds"), Some(seen.len() as f64));
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn samples_in_count_once_however_many_endpoints_there_are() {
    let (world, one, other) = (host(ID), Backend::willing().await, Backend::willing().await);
    let rule = "name = \"other\"\nsend_native_histograms = true\n\
                write_relabel_config {\nregex = \"b\"\nsource_labels = [\"__name__\"]\naction = \"drop\"\n}";
    let body = endpoint(&one.url(), "name = \"one\"", QUICK) + &endpoint(&other.url(), rule, QUICK);
    let mut unit = start(&world, &body).await;
    let to = receiver(&world);
    push(&to, &[(&[("__name__", "a")], 0.0, 1), (&[("__name__", "b")], 0.0, 1)]).await;
    to.consume(all_kinds()).await.unwrap();
    one.has("b", 1).await;
    other.has("a", 1).await;
    let count = |name: &str| world.metrics().get(&format!("prometheus_remote_storage_{name}_in_total"), &[]);
    assert_eq!(count("samples"), Some(3.0));
    assert_eq!(count("histograms"), Some(2.0));
    assert_eq!(count("exemplars"), Some(1.0));
    // A reload that changes lanes does not take back what was counted.
    unit.update(&endpoint(&one.url(), "name = \"one\"\nsend_exemplars = false", QUICK)).await.unwrap();
    assert_eq!(count("samples"), Some(3.0));
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn health_is_bad_while_any_endpoint_fails() {
    let (world, one, other) = (host(ID), Backend::answering(500).await, Backend::answering(500).await);
    let body = endpoint(&one.url(), "name = \"one\"", QUICK) + &endpoint(&other.url(), "name = \"other\"", QUICK);
    let mut unit = start(&world, &body).await;
    push_number(&receiver(&world), "a", 0).await;
    until("both have failed", || one.seen().len() > 1 && other.seen().len() > 1).await;
    until("it is unhealthy", || world.health_text().contains("server returned HTTP status 500")).await;
    one.turn(200);
    one.has("a", 1).await;
    let of_other = || {
        let health = world.health_text();
        health.starts_with("unhealthy") && health.contains(&other.url())
    };
    until("the other one is what is wrong", of_other).await;
    stays("the other one is what is wrong", Duration::from_millis(100), of_other).await;
    other.turn(200);
    until("it is healthy", || world.health_text().starts_with("healthy")).await;
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn secrets_of_a_url_are_never_shown() {
    let (world, backend) = (host(ID), Backend::answering(500).await);
    let url = |path: &str| format!("http://me:hunter2@{}{path}?token=topsecret&x=also", backend.server.address());
    let mut unit = start(&world, &endpoint(&url("/push"), "", QUICK)).await;
    push_number(&receiver(&world), "a", 0).await;
    until("it is unhealthy", || world.health_text().starts_with("unhealthy")).await;
    let seen = &backend.seen()[0];
    assert_eq!(
        (&*seen.target, seen.header("authorization")),
        ("/push?token=topsecret&x=also", "Basic bWU6aHVudGVyMg==")
    );
    backend.turn(400);
    until("it is refused", || world.logs().contains("non-recoverable error")).await;
    let (_, refused) = nobody();
    let refused = refused.replace("http://", "http://me:hunter2@") + "?token=topsecret&x=also";
    unit.update(&endpoint(&refused, "", QUICK)).await.unwrap();
    push_number(&receiver(&world), "a", 1).await;
    until("it is unhealthy again", || world.health_text().starts_with("unhealthy")).await;
    let invalid = refusal(&endpoint("ftp://me:hunter2@host/?token=topsecret&x=also", "", "")).await;
    let arguments = corten_config::encode::json(&unit.shown_arguments());
    assert!(arguments.contains("(secret)"), "{arguments}");
    for shown in [world.logs(), world.metrics().text(), world.health_text(), invalid, arguments] {
        for secret in ["hunter2", "topsecret", "=also"] {
            assert!(!shown.contains(secret), "{secret} in {shown}");
        }
    }
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn endpoints_of_one_url_need_no_names() {
    let (world, backend) = (host(ID), Backend::willing().await);
    let tenant = |id: &str| endpoint(&backend.url(), &format!("headers = {{ \"X-Scope-OrgID\" = {id:?} }}"), QUICK);
    let mut unit = start(&world, &(tenant("one") + &tenant("two"))).await;
    push_number(&receiver(&world), "a", 0).await;
    backend.has("a", 2).await;
    let mut tenants: Vec<String> = backend.seen().iter().map(|seen| seen.header("x-scope-orgid").to_owned()).collect();
    tenants.sort();
    assert_eq!(tenants, ["one", "two"]);
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn without_endpoints_everything_is_taken() {
    let world = host(ID);
    let mut unit = start(&world, "").await;
    push_number(&receiver(&world), "a", 0).await;
    assert_eq!(world.health_text(), "healthy: component evaluated");
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn a_configuration_that_cannot_be_is_refused() {
    let url = "http://h/p";
    for (body, wanted) in [
        (
            endpoint("ftp://h", "", ""),
            "cannot parse remote_write url \"ftp://h/\": want http:// or https:// with a host",
        ),
        (endpoint("h:80", "", ""), "want http:// or https:// with a host"),
        (endpoint("/push", "", ""), "want http:// or https:// with a host"),
        (endpoint(url, "headers = { \"a b\" = \"c\" }", ""), "\"a b\" is not a header, or its value is none"),
        (endpoint(url, "headers = { \"a\" = \"c\\n\" }", ""), "\"a\" is not a header, or its value is none"),
        (endpoint(url, "", "min_shards = 0"), "min_shards must be greater than 0"),
        (endpoint(url, "", "min_shards = 5\nmax_shards = 4"), "max_shards must not be less than min_shards"),
        (endpoint(url, "", "max_shards = 1025"), "max_shards must not be greater than 1024"),
        (endpoint(url, "", "max_samples_per_send = 0"), "max_samples_per_send must be greater than 0"),
        (
            endpoint(url, "", "min_backoff = \"2s\"\nmax_backoff = \"1s\""),
            "max_backoff must not be less than min_backoff",
        ),
        ("wal { truncate_frequency = \"0s\" }".to_owned(), "truncate_frequency must not be 0"),
        (
            "wal {\nmin_keepalive_time = \"8h\"\n}".to_owned(),
            "min_keepalive_time must be smaller than max_keepalive_time",
        ),
        (endpoint(url, "", "") + &endpoint(url, "", ""), "duplicate remote write configs"),
        (
            endpoint(url, "name = \"n\"", "") + &endpoint("http://other", "name = \"n\"", ""),
            "duplicate remote write configs: two endpoints have the name \"n\"",
        ),
        (
            endpoint(url, "protobuf_message = \"x\"", ""),
            "unknown type for remote write protobuf message x, supported: prometheus.WriteRequest, io.prometheus",
        ),
        (endpoint(url, "write_relabel_config {\naction = \"replace\"\n}", ""), "requires 'target_label' value"),
        (endpoint(url, "bearer_token = \"a\"\nbasic_auth {\nusername = \"u\"\n}", ""), "at most one of"),
        (String::from("endpoint { }"), "missing required attribute \"url\""),
    ] {
        let error = refusal(&body).await;
        assert!(error.contains(wanted), "{body}\ngives {error:?}\ninstead of {wanted:?}");
    }
}

#[tokio::test]
async fn a_reload_that_is_refused_does_not_stand_in_the_way_of_the_next() {
    let (world, backend) = (host(ID), Backend::willing().await);
    let (good, bad) = (endpoint(&backend.url(), "", QUICK), "tls_config {\nca_file = \"/not/there\"\n}");
    let mut unit = start(&world, &good).await;
    for round in 0..20 {
        let labels = format!("external_labels = {{ round = \"{round}\" }}\n");
        let refused = unit.update(&(labels.clone() + &endpoint(&backend.url(), bad, QUICK))).await.unwrap_err();
        assert!(refused.contains("/not/there"), "{refused}");
        unit.update(&(labels + &good)).await.unwrap();
    }
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn a_reload_that_is_refused_changes_nothing() {
    let (world, backend) = (host(ID), Backend::willing().await);
    let mut unit = start(&world, &endpoint(&backend.url(), "", QUICK)).await;
    let to = receiver(&world);
    push_number(&to, "a", 0).await;
    unit.update(&endpoint("ftp://h", "", "")).await.unwrap_err();
    push_number(&to, "a", 1).await;
    backend.has("a", 2).await;
    assert_eq!(backend.values("a"), numbers(2));
    balanced(&unit.world).await;
    unit.drain().await;
}
