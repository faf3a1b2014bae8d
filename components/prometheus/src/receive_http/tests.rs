//! What the component does, seen from its clients and its receivers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use corten_component::Definition;
use corten_component::Logger;
use corten_component::log::LogSink;
use corten_component::metrics::Registry;
use corten_config::Value;
use corten_config::arguments::Record as _;
use corten_config::decode::Decode as _;
use corten_net::{Body, Client, ClientConfig, ClientOptions, Secret, TlsConfig};
use corten_signal::flow::BoxFuture;
use corten_signal::metrics::{
    Exemplar, Histogram, HistogramCounts, Metadata, MetricType, ResetHint, STALE_NAN, STALE_NAN_BITS, Span,
};
use corten_signal::{BlockBuilder, Consume, ConsumeError, Inlet, LabelsBuilder, MetricsBatch, SeriesBlock, SeriesPart};
use corten_testkit::{Unit, World, host, stays, until, until_some};
use corten_wire::remote_write::{push_exemplar, push_histogram, push_metadata, push_sample};
use corten_wire::remote_write2::RequestEncoder;
use corten_wire::snappy::{Compressor, join};
use http::{HeaderMap, Method, Request};
use parking_lot::Mutex;
use proptest::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::requests::{BODY_BYTES_MAX, Settings, Shared};
use super::*;

const RECEIVE: Definition = Definition::of::<ReceiveHttp>();
const PATH: &str = "/api/v1/metrics/write";
/// An `http` block that takes a port of loopback that is free.
const HTTP: &str = "http {\n listen_address = \"127.0.0.1\"\n listen_port = 0\n }";
const BOTH: &str =
    "accepted_remote_write_protobuf_messages = [\"prometheus.WriteRequest\", \"io.prometheus.write.v2.Request\"]";
const V2: (&str, &str) = ("content-type", "application/x-protobuf;proto=io.prometheus.write.v2.Request");

/// Keeps what it is sent, and answers as it is told.
#[derive(Clone)]
struct Sink {
    batches: Arc<Mutex<Vec<Arc<MetricsBatch>>>>,
    answer: Arc<Mutex<Result<(), ConsumeError>>>,
    /// A permit for each batch that may be accepted.
    gate: Arc<Semaphore>,
}

impl Consume<Metrics> for Sink {
    fn consume(&self, batch: Arc<MetricsBatch>) -> BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(async move {
            self.batches.lock().push(batch);
            self.gate.acquire().await.unwrap().forget();
            self.answer.lock().clone()
        })
    }
}

impl Sink {
    fn new() -> Self {
        let gate = Arc::new(Semaphore::new(1 << 20));
        Sink { batches: Arc::default(), answer: Arc::new(Mutex::new(Ok(()))), gate }
    }

    /// One that accepts nothing until its gate gets permits.
    fn shut() -> Self {
        Sink { gate: Arc::new(Semaphore::new(0)), ..Sink::new() }
    }

    fn receiver(&self) -> Receiver<Metrics> {
        let inlet = Inlet::new("prometheus.echo.sink");
        inlet.attach(Arc::new(self.clone()));
        inlet.receiver()
    }

    fn value(&self) -> Value {
        self.receiver().to_value()
    }

    /// What was sent, in lines.
    fn shown(&self) -> Vec<String> {
        self.batches.lock().iter().flat_map(|batch| batch.parts.iter().flat_map(shown)).collect()
    }
}

fn shown(part: &SeriesPart) -> Vec<String> {
    let labels = |index: u32| part.block.labels(index).to_string();
    let samples = part
        .samples
        .iter()
        .map(|sample| format!("{} {:x} @{}", labels(sample.index), sample.value.to_bits(), part.timestamp_ms(sample)));
    let histograms = part.histograms.iter().map(|sample| {
        let (histogram, time) = (&sample.histogram, sample.timestamp_ms);
        format!("{} histogram {:x} {:?} @{time}", labels(sample.index), histogram.sum.to_bits(), histogram.counts)
    });
    let exemplars = part.exemplars.iter().map(|exemplar| {
        format!(
            "{} exemplar {:?} {} @{}",
            labels(exemplar.index),
            exemplar.labels,
            exemplar.value,
            exemplar.timestamp_ms
        )
    });
    let metadata = part.metadata.iter().map(|known| {
        let metadata = &known.metadata;
        format!("{} {:?} {:?} {:?}", labels(known.index), metadata.metric_type, metadata.help, metadata.unit)
    });
    samples.chain(histograms).chain(exemplars).chain(metadata).collect()
}

/// A block of one series, `up{job="a"}` as `up,job=a`.
fn series(text: &str) -> Arc<SeriesBlock> {
    let (mut block, mut labels) = (BlockBuilder::new(), LabelsBuilder::new());
    for (at, label) in text.split(',').enumerate() {
        let (name, value) = label.split_once('=').unwrap_or(("__name__", label));
        assert!(at > 0 || name == "__name__" || text.starts_with("no"), "{text}");
        labels.push(name, value);
    }
    block.push(&mut labels).unwrap();
    block.finish(false)
}

fn compressed(raw: &[u8]) -> Bytes {
    join(raw.len() as u64, [&Compressor::new().piece(raw)[..]].into_iter()).into()
}

/// A request of version 1, uncompressed: a sample of each series at each time.
fn raw_v1(samples: &[(&str, f64, i64)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value, time_ms) in samples {
        push_sample(&mut out, series(name).labels(0), *value, *time_ms);
    }
    out
}

fn v1(samples: &[(&str, f64, i64)]) -> Bytes {
    compressed(&raw_v1(samples))
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as i64
}

/// A histogram of whole counts.
fn histogram(sum: f64) -> Histogram {
    Histogram {
        schema: 2,
        zero_threshold: 0.5,
        sum,
        reset_hint: ResetHint::No,
        positive_spans: vec![Span { offset: 1, length: 2 }],
        negative_spans: Vec::new(),
        counts: HistogramCounts::Int {
            count: 5,
            zero_count: 1,
            positive_deltas: vec![1, 2],
            negative_deltas: Vec::new(),
        },
        custom_values: Vec::new(),
    }
}

struct Running {
    unit: Unit,
    client: Client,
}

/// Whatever a test does: each item is somewhere.
impl Drop for Running {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = self.unit.world.balance();
        }
    }
}

/// What a request was answered with.
#[derive(Debug)]
struct Answered {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Answered {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Samples, histograms and exemplars that the answer says were written.
    fn written(&self) -> [&str; 3] {
        ["samples", "histograms", "exemplars"]
            .map(|kind| self.header(&format!("x-prometheus-remote-write-{kind}-written")))
    }
}

async fn client(config: ClientConfig) -> Client {
    Client::new(config, ClientOptions::default()).await.unwrap()
}

/// The address of the listener that was opened last.
fn address(world: &World) -> Option<SocketAddr> {
    let logs = world.logs();
    let line = logs.lines().rfind(|line| line.contains("listening for remote write requests"))?;
    line.split("addr=").nth(1)?.trim().trim_matches('"').parse().ok()
}

async fn send(client: &Client, method: Method, url: &str, headers: &[(&str, &str)], body: Bytes) -> Answered {
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = client.request(request.body(Body::from(body)).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let text = String::from_utf8(body.read(1 << 20).await.unwrap().to_vec()).unwrap();
    Answered { status: parts.status.as_u16(), headers: parts.headers, text }
}

impl Running {
    async fn start(body: &str, names: &[(&str, Value)]) -> Self {
        let unit = Unit::start_with(host("prometheus.receive_http.a"), &RECEIVE, body, names).await.unwrap();
        Running { unit, client: client(ClientConfig::default()).await }
    }

    /// With one receiver and a port that the system chooses.
    async fn into_sink(more: &str, sink: &Sink) -> Self {
        let running = Self::start(&format!("forward_to = [sink]\n{HTTP}\n{more}"), &[("sink", sink.value())]).await;
        running.address().await;
        running
    }

    async fn address(&self) -> SocketAddr {
        until_some("the component listens", || address(&self.unit.world)).await
    }

    async fn post(&self, headers: &[(&str, &str)], body: Bytes) -> Answered {
        let url = format!("http://{}{PATH}", self.address().await);
        send(&self.client, Method::POST, &url, headers, body).await
    }

    fn metric(&self, name: &str) -> f64 {
        self.unit.world.metric(name).unwrap()
    }

    /// Writes bytes and reads until the other side closes.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address().await).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // A reset after the answer is as good as a close.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}

#[test]
fn the_table_of_the_arguments_is_in_order() {
    assert_eq!(Config::SCHEMA.defects(), [""; 0]);
}

#[tokio::test]
async fn arguments_are_refused_in_the_words_of_the_reference() {
    let experimental =
        "an experimental feature, and must be enabled by setting the stability.level flag to experimental";
    for (body, error) in [
        ("accepted_remote_write_protobuf_messages = []", "accepted_remote_write_protobuf_messages must not be empty"),
        (
            "accepted_remote_write_protobuf_messages = [\"v3\"]",
            "unsupported protocol version \"v3\": valid values are \"prometheus.WriteRequest\" and \
             \"io.prometheus.write.v2.Request\"",
        ),
        ("append_metadata = true", &format!("append_metadata is {experimental}")),
        ("enable_type_and_unit_labels = true", &format!("enable_type_and_unit_labels is {experimental}")),
        (BOTH, &format!("using \"io.prometheus.write.v2.Request\" in supported_protocol_versions is {experimental}")),
        ("http {\n tls {\n }\n }", "must specify either cert_pem or cert_file"),
        ("http {\n listen_port = 70000\n }", "invalid listen_port 70000: a port is a number from 0 to 65535"),
        ("http {\n listen_port = -1\n }", "invalid listen_port -1: a port is a number from 0 to 65535"),
    ] {
        let world = World::with("prometheus.receive_http.a", |services| {
            services.stability = Stability::GenerallyAvailable;
        });
        let refused = Unit::start(world, &RECEIVE, &format!("forward_to = []\n{body}")).await.unwrap_err();
        assert!(refused.contains(error), "{body}: {refused}");
    }
}

#[tokio::test]
async fn each_request_has_the_status_of_the_reference() {
    let proto = |rest: &str| format!("application/x-protobuf{rest}");
    let good = v1(&[("up", 1.0, 5)]);
    for (both, method, path, encoding, content_type, status) in [
        (false, "POST", PATH, "snappy", proto(""), 204),
        (false, "POST", PATH, "", String::new(), 204),
        (false, "POST", "/api/v1/metrics/write?a=b", "snappy", proto(""), 204),
        (false, "POST", PATH, "snappy", proto(";proto=prometheus.WriteRequest"), 204),
        (false, "POST", PATH, "snappy", proto(";charset=utf-8"), 204),
        (false, "POST", PATH, "snappy", proto("; proto=io.prometheus.write.v2.Request"), 204),
        (false, "GET", PATH, "snappy", proto(""), 405),
        (false, "PUT", PATH, "snappy", proto(""), 405),
        (false, "POST", "/api/v1/write", "snappy", proto(""), 404),
        (false, "POST", "/api/v1/push", "snappy", proto(""), 404),
        (false, "POST", "/api/v1/metrics/write/", "snappy", proto(""), 404),
        (false, "GET", "/", "", String::new(), 404),
        (false, "POST", PATH, "gzip", proto(""), 415),
        (false, "POST", PATH, "Snappy", proto(""), 415),
        (false, "POST", PATH, "snappy", "text/plain".to_owned(), 415),
        (false, "POST", PATH, "snappy", proto(";proto"), 415),
        (false, "POST", PATH, "snappy", proto(";proto=a=b"), 415),
        (false, "POST", PATH, "snappy", proto(";proto=other"), 415),
        (false, "POST", PATH, "snappy", proto(" ;proto=prometheus.WriteRequest"), 415),
        (false, "POST", PATH, "snappy", V2.1.to_owned(), 415),
        (true, "POST", PATH, "snappy", proto(""), 204),
        (true, "POST", PATH, "snappy", V2.1.to_owned(), 204),
    ] {
        let sink = Sink::new();
        let running = Running::into_sink(if both { BOTH } else { "" }, &sink).await;
        let is_v2 = content_type == V2.1;
        let body = if is_v2 {
            v2(|encoder| encoder.push_sample(series("up").labels(0), 1.0, 5, 0, None))
        } else {
            good.clone()
        };
        let mut headers = Vec::new();
        headers.extend(Some(("content-encoding", encoding)).filter(|_| !encoding.is_empty()));
        headers.extend(Some(("content-type", &*content_type)).filter(|_| !content_type.is_empty()));
        let url = format!("http://{}{path}", running.address().await);
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let answer = send(&running.client, method.clone(), &url, &headers, body).await;
        let case = format!("{method} {path} {encoding} {content_type}: {answer:?}");
        assert_eq!(answer.status, status, "{case}");
        assert_eq!(sink.shown().len(), usize::from(status == 204), "{case}");
        assert_eq!(answer.text.is_empty(), matches!(status, 204 | 405), "{case}");
        assert_eq!(answer.written(), if is_v2 && status == 204 { ["1", "0", "0"] } else { [""; 3] }, "{case}");
        let route = if method == Method::POST && path.starts_with(PATH) && !path.ends_with('/') {
            "api_v1_metrics_write"
        } else {
            "other"
        };
        let code = status.to_string();
        let labels = [("method", method.as_str()), ("route", route), ("status_code", &*code), ("ws", "false")];
        let metrics = running.unit.world.metrics();
        assert_eq!(metrics.get("prometheus_receive_http_request_duration_seconds", &labels), Some(1.0), "{case}");
        assert_eq!(metrics.get("prometheus_receive_http_inflight_requests", &labels[..2]), Some(0.0), "{case}");
    }
}

#[tokio::test]
async fn texts_of_refusals_are_those_of_the_reference() {
    let running = Running::into_sink("", &Sink::new()).await;
    for (headers, text) in [
        (
            ("content-encoding", "zstd"),
            "zstd encoding (compression) is not accepted by this server; only snappy is acceptable\n",
        ),
        (
            V2,
            "io.prometheus.write.v2.Request protobuf message is not accepted by this server; only accepts \
             prometheus.WriteRequest\n",
        ),
        (
            ("content-type", "text/plain"),
            "expected application/x-protobuf as the first (media) part, got text/plain content-type\n",
        ),
        (
            ("content-type", "application/x-protobuf;proto=x"),
            "got application/x-protobuf;proto=x content type; unknown type for remote write protobuf message x, \
             supported: prometheus.WriteRequest, io.prometheus.write.v2.Request\n",
        ),
    ] {
        assert_eq!(running.post(&[headers], v1(&[("up", 1.0, 1)])).await.text, text);
    }
}

#[tokio::test]
async fn what_version_1_brings_is_handed_on_as_it_is() {
    let sink = Sink::new();
    let running = Running::into_sink("", &sink).await;
    let mut raw = raw_v1(&[("up,job=a", STALE_NAN, 1_000), ("up,job=b", -1.5, -7), ("up,job=a", 2.0, 900)]);
    let labels = series("h,job=a");
    assert!(push_histogram(&mut raw, labels.labels(0), &histogram(STALE_NAN), 70));
    let trace = vec![("trace_id".into(), "x".into())];
    push_exemplar(&mut raw, labels.labels(0), &Exemplar { index: 0, timestamp_ms: 71, value: 3.0, labels: trace });
    push_metadata(&mut raw, &Metadata { family: "h".to_owned(), ..Metadata::default() });
    let answer = running.post(&[], compressed(&raw)).await;
    assert_eq!((answer.status, &*answer.text), (204, ""));
    let mut got = sink.shown();
    got.sort();
    let counts = "Int { count: 5, zero_count: 1, positive_deltas: [1, 2], negative_deltas: [] }";
    let mut want = vec![
        format!("{{__name__=\"up\", job=\"a\"}} {STALE_NAN_BITS:x} @1000"),
        format!("{{__name__=\"up\", job=\"b\"}} {:x} @-7", (-1.5f64).to_bits()),
        format!("{{__name__=\"up\", job=\"a\"}} {:x} @900", 2.0f64.to_bits()),
        format!("{{__name__=\"h\", job=\"a\"}} histogram {STALE_NAN_BITS:x} {counts} @70"),
        "{__name__=\"h\", job=\"a\"} exemplar [(\"trace_id\", \"x\")] 3 @71".to_owned(),
    ];
    want.sort();
    assert_eq!(got, want);
    assert_eq!(sink.batches.lock().len(), 1, "one request is one batch");
    assert_eq!(running.metric("prometheus_forwarded_samples_total"), 3.0);
    assert_eq!(running.metric("prometheus_api_remote_write_without_metadata_appended_samples_total"), 4.0);
    let labels = [("method", "POST"), ("route", "api_v1_metrics_write")];
    let metrics = running.unit.world.metrics();
    assert_eq!(metrics.get("prometheus_receive_http_request_message_bytes", &labels), Some(1.0));
    assert_eq!(metrics.get("prometheus_receive_http_response_message_bytes", &labels), Some(1.0));
    let text = metrics.text();
    let sum = format!(
        "prometheus_receive_http_request_message_bytes_sum{{method=\"POST\",route=\"api_v1_metrics_write\"}} {}",
        compressed(&raw).len()
    );
    assert!(text.contains(&sum), "{text}");
}

#[tokio::test]
async fn series_with_labels_that_are_not_valid_are_left_out_of_version_1() {
    let sink = Sink::new();
    let running = Running::into_sink("", &sink).await;
    let mut raw = raw_v1(&[("up", 1.0, 1), ("no=name", 1.0, 1)]);
    // A name that is not UTF-8, and one that stands twice.
    raw.extend_from_slice(b"\x0a\x10\x0a\x0e\x0a\x08__name__\x12\x02\xff\xfe");
    raw.extend_from_slice(b"\x0a\x1e\x0a\x0d\x0a\x08__name__\x12\x01a\x0a\x0d\x0a\x08__name__\x12\x01b");
    let answer = running.post(&[], compressed(&raw)).await;
    assert_eq!((answer.status, sink.shown().len()), (204, 1), "{}", answer.text);
    assert_eq!(running.metric("prometheus_api_remote_write_invalid_labels_samples_total"), 3.0);
    let books = running.unit.world.balance_of(corten_signal::Kind::PrometheusMetric);
    assert_eq!(books, "received 2, out 1, dropped {invalid labels: 1}");
    let logs = running.unit.world.logs();
    assert!(logs.contains("level=warn msg=\"left out series with invalid labels\""), "{logs}");
}

#[tokio::test]
async fn one_sample_too_far_ahead_refuses_all_of_version_1() {
    let sink = Sink::new();
    let running = Running::into_sink("", &sink).await;
    let ahead = |minutes: i64| v1(&[("up", 1.0, now_ms()), ("up", 1.0, now_ms() + minutes * 60_000)]);
    let answer = running.post(&[], ahead(11)).await;
    assert_eq!((answer.status, sink.shown().len()), (400, 0));
    assert_eq!(answer.text, "out of bounds: timestamp is too far in the future\n");
    assert_eq!(running.post(&[], ahead(9)).await.status, 204);
    assert_eq!(sink.shown().len(), 2);
}

/// A request of version 2.
fn v2(write: impl FnOnce(&mut RequestEncoder)) -> Bytes {
    let (mut encoder, mut out) = (RequestEncoder::new(), Vec::new());
    write(&mut encoder);
    encoder.finish_into(&mut out);
    compressed(&out)
}

fn counter() -> Metadata {
    let (help, unit) = ("Bytes.".to_owned(), "bytes".to_owned());
    Metadata { family: "sent".to_owned(), metric_type: MetricType::Counter, help, unit }
}

#[tokio::test]
async fn version_2_brings_metadata_and_is_told_what_was_written() {
    let body = v2(|encoder| {
        encoder.push_sample(series("sent,job=a").labels(0), STALE_NAN, 5, 0, Some(&counter()));
        encoder.push_histogram(series("h").labels(0), &histogram(1.0), 6, 0, None);
    });
    let counts = "Int { count: 5, zero_count: 1, positive_deltas: [1, 2], negative_deltas: [] }";
    let sample = |labels: &str| format!("{{__name__=\"sent\", {labels}}} {STALE_NAN_BITS:x} @5");
    let known = |labels: &str| format!("{{__name__=\"sent\", {labels}}} Counter \"Bytes.\" \"bytes\"");
    let histogram = format!("{{__name__=\"h\"}} histogram {:x} {counts} @6", 1.0f64.to_bits());
    let (plain, typed) = ("job=\"a\"", "__type__=\"counter\", __unit__=\"bytes\", job=\"a\"");
    for (more, want, without_metadata) in [
        ("", vec![sample(plain), histogram.clone()], 2.0),
        ("append_metadata = true", vec![sample(plain), histogram.clone(), known(plain)], 1.0),
        ("enable_type_and_unit_labels = true", vec![sample(typed), histogram.clone()], 2.0),
    ] {
        let sink = Sink::new();
        let running = Running::into_sink(&format!("{BOTH}\n{more}"), &sink).await;
        let answer = running.post(&[V2], body.clone()).await;
        assert_eq!((answer.status, &*answer.text, answer.written()), (204, "", ["1", "1", "0"]));
        assert_eq!(sink.shown(), want, "{more}");
        let metric = running.metric("prometheus_api_remote_write_without_metadata_appended_samples_total");
        assert_eq!(metric, without_metadata, "{more}");
    }
}

#[tokio::test]
async fn what_is_right_of_version_2_is_written_and_the_rest_is_told() {
    let sink = Sink::new();
    let running = Running::into_sink(BOTH, &sink).await;
    let body = v2(|encoder| {
        encoder.push_sample(series("up").labels(0), 1.0, 5, 0, None);
        encoder.push_sample(series("no=name").labels(0), 1.0, 5, 0, None);
        encoder.push_sample(series("up").labels(0), 1.0, now_ms() + 660_000, 0, None);
    });
    let answer = running.post(&[V2], body.clone()).await;
    assert_eq!((answer.status, answer.written(), sink.shown().len()), (400, ["1", "0", "0"], 1));
    assert_eq!(
        answer.text,
        "invalid metric name or labels, got {no=\"name\"}\n\
         out of bounds: timestamp is too far in the future for series {__name__=\"up\"}\n"
    );
    assert_eq!(running.metric("prometheus_api_remote_write_invalid_labels_samples_total"), 1.0);
    // What the receivers say goes before it.
    *sink.answer.lock() = Err(ConsumeError::Retry { after: None, reason: "busy".to_owned() });
    let answer = running.post(&[V2], body).await;
    assert_eq!((answer.status, answer.written(), &*answer.text), (503, ["0", "0", "0"], "busy\n"));
    let books = running.unit.world.balance_of(corten_signal::Kind::PrometheusMetric);
    assert_eq!(books, "received 3, out 1, dropped {invalid labels: 1, invalid: 1}");
}

#[tokio::test]
async fn bodies_that_cannot_be_read_are_refused() {
    let sink = Sink::new();
    let running = Running::into_sink(BOTH, &sink).await;
    let good = raw_v1(&[("up,job=a", 1.0, 5)]);
    let corrupt = "snappy: corrupt input\n";
    let decoded = "decoded size exceeds the 33554432 bytes limit\n";
    let long = vec![0; BODY_BYTES_MAX + 1];
    for (body, status, text) in [
        (Bytes::new(), 400, Some(corrupt)),
        (Bytes::from_static(b"\x07garbage"), 400, Some(corrupt)),
        (compressed(&good).slice(..compressed(&good).len() - 1), 400, Some(corrupt)),
        (compressed(&good[..good.len() - 1]), 400, None),
        (compressed(b"\x0a\xff\xff\xff\xff\x0f"), 400, None),
        // 4 GiB of which nothing follows, and a bomb that really is one: 1.6 MB of 32 MiB and a byte.
        (Bytes::from_static(b"\xff\xff\xff\xff\x0f"), 400, Some(decoded)),
        (compressed(&long), 400, Some(decoded)),
    ] {
        for headers in [&[][..], &[V2]] {
            let answer = running.post(headers, body.clone()).await;
            assert_eq!(answer.status, status, "{answer:?}");
            assert!(text.is_none_or(|text| answer.text == text), "{answer:?}");
        }
    }
    assert_eq!(sink.shown().len(), 0);
    assert_eq!(running.post(&[], compressed(&good)).await.status, 204, "the server is well");
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused_and_not_kept() {
    let sink = Sink::new();
    let running = Running::into_sink("", &sink).await;
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n");
    let chunk = vec![0; 1 << 20];
    // Announced and sent whole, announced with nothing sent, and not announced.
    for (framing, chunks) in [
        ("content-length: 104857600\r\n\r\n", 100),
        ("content-length: 104857600\r\n\r\n", 0),
        ("transfer-encoding: chunked\r\n\r\n", 40),
    ] {
        let stream = TcpStream::connect(running.address().await).await.unwrap();
        let (mut reader, mut writer) = stream.into_split();
        let chunk = chunk.clone();
        let begin = format!("{head}{framing}");
        let sending = tokio::spawn(async move {
            writer.write_all(begin.as_bytes()).await.unwrap();
            for _ in 0..chunks {
                if chunks == 40 && writer.write_all(b"100000\r\n").await.is_err() {
                    return;
                }
                if writer.write_all(&chunk).await.is_err() || (chunks == 40 && writer.write_all(b"\r\n").await.is_err())
                {
                    return;
                }
            }
            if chunks == 40 {
                let _ = writer.write_all(b"0\r\n\r\n").await;
            }
            // The connection stays open: the server is to end it.
            std::future::pending::<()>().await;
        });
        let mut answer = Vec::new();
        let _ = reader.read_to_end(&mut answer).await;
        sending.abort();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with("HTTP/1.1 413 "), "{framing}{chunks}: {answer}");
        assert!(answer.ends_with("request body exceeds the 33554432 bytes limit\n"), "{answer}");
    }
    assert_eq!(running.post(&[], v1(&[("up", 1.0, 5)])).await.status, 204);
}

#[tokio::test]
async fn a_client_that_sends_slowly_is_given_up() {
    let sink = Sink::new();
    let http = HTTP.replace("listen_port", "server_read_timeout = \"500ms\"\n listen_port");
    let running = Running::start(&format!("forward_to = [sink]\n{http}"), &[("sink", sink.value())]).await;
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: a\r\n");
    let answer = running.raw(format!("{head}content-length: 100\r\n\r\nab").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert_eq!(running.raw(head.as_bytes()).await, "", "the head did not even arrive");
    assert_eq!(sink.shown().len(), 0);
    until("no connection is left", || connections(&running) == 0.0).await;
}

fn connections(running: &Running) -> f64 {
    let metrics = running.unit.world.metrics();
    metrics.get("prometheus_receive_http_tcp_connections", &[("protocol", "http")]).unwrap()
}

#[tokio::test]
async fn a_client_that_goes_away_in_the_middle_leaves_nothing_behind() {
    let running = Running::into_sink("", &Sink::new()).await;
    let mut stream = TcpStream::connect(running.address().await).await.unwrap();
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nab");
    stream.write_all(head.as_bytes()).await.unwrap();
    let in_flight = || {
        let labels = [("method", "POST"), ("route", "api_v1_metrics_write")];
        running.unit.world.metrics().get("prometheus_receive_http_inflight_requests", &labels)
    };
    until("the request is under way", || in_flight() == Some(1.0)).await;
    drop(stream);
    until("it is not any more", || in_flight() == Some(0.0) && connections(&running) == 0.0).await;
}

#[tokio::test]
async fn each_failure_of_the_receivers_has_a_status() {
    let sink = Sink::new();
    let running = Running::into_sink("", &sink).await;
    let retry = |after: Option<Duration>| ConsumeError::Retry { after, reason: "busy".to_owned() };
    for (error, status, retry_after, text) in [
        (retry(None), 503, "", "busy\n"),
        (retry(Some(Duration::from_secs(7))), 503, "7", "busy\n"),
        (retry(Some(Duration::from_millis(1))), 503, "1", "busy\n"),
        (ConsumeError::Refused { reason: "no".to_owned() }, 400, "", "no\n"),
        (ConsumeError::Exited { component: "a.b".to_owned() }, 500, "", "a.b has exited\n"),
    ] {
        *sink.answer.lock() = Err(error);
        let answer = running.post(&[], v1(&[("up", 1.0, 5)])).await;
        assert_eq!((answer.status, answer.header("retry-after"), &*answer.text), (status, retry_after, text));
    }
    assert_eq!(running.metric("prometheus_api_remote_write_without_metadata_appended_samples_total"), 0.0);
    assert_eq!(running.unit.world.balance_of(corten_signal::Kind::PrometheusMetric), "");
}

#[tokio::test(start_paused = true)]
async fn receivers_that_take_nothing_in_time_are_429() {
    let (sink, ledger) = (Sink::shut(), corten_signal::Ledger::new("prometheus.receive_http.a"));
    let settings = Settings {
        accepted: vec![Message::V1],
        append_metadata: false,
        type_and_unit_labels: false,
        forward: Forward::new(&Registry::new(), &ledger, [sink.receiver()]),
        listen: ListenSettings::prepare(&Default::default(), Duration::ZERO, None).await.unwrap(),
    };
    let shared = Shared::new(settings, &Registry::new(), &ledger, Logger::new(LogSink::memory().0));
    let answer = shared.write_for_test(Message::V1, v1(&[("up", 1.0, 5)])).await;
    assert_eq!(answer, (429, Some(Duration::from_secs(5)), 0));
    // What is given back to the sender is not in the books.
    let snapshot = ledger.snapshot();
    assert_eq!((snapshot.open_sums(), snapshot.rows[0].received), (Vec::new(), 0));
}

#[tokio::test]
async fn a_request_is_answered_only_when_it_is_safe() {
    let sink = Sink::shut();
    let running = Arc::new(Running::into_sink("", &sink).await);
    let sender = Arc::clone(&running);
    let request = tokio::spawn(async move { sender.post(&[], v1(&[("up", 1.0, 5)])).await.status });
    until("the receiver has it", || sink.shown().len() == 1).await;
    stays("not answered", Duration::from_millis(50), || !request.is_finished()).await;
    sink.gate.add_permits(1);
    assert_eq!(request.await.unwrap(), 204);
}

#[tokio::test]
async fn an_address_in_use_makes_the_component_unhealthy_until_it_is_free() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    let sink = Sink::new();
    let http = HTTP.replace("= 0", &format!("= {port}"));
    let running = Running::start(&format!("forward_to = [sink]\n{http}"), &[("sink", sink.value())]).await;
    let health = || running.unit.world.health_text();
    let text = format!("unhealthy: cannot listen on 127.0.0.1:{port}: ");
    until("it cannot listen", || health().starts_with(&text)).await;
    drop(other);
    assert_eq!(running.post(&[], v1(&[("up", 1.0, 5)])).await.status, 204);
    until("it is well", || health() == "healthy: component evaluated").await;
}

#[tokio::test]
async fn the_port_stays_open_unless_the_address_changes() {
    let (first, second) = (Sink::new(), Sink::new());
    let names = [("first", first.value()), ("second", second.value())];
    let config = |to: &str, http: &str| format!("forward_to = [{to}]\n{http}");
    let mut running = Running::start(&config("first", HTTP), &names).await;
    let before = running.address().await;
    assert_eq!(running.post(&[], v1(&[("up", 1.0, 5)])).await.status, 204);

    running.unit.update(&config("second", HTTP)).await.unwrap();
    assert_eq!(running.post(&[], v1(&[("up", 1.0, 5)])).await.status, 204);
    assert_eq!((first.shown().len(), second.shown().len(), running.address().await), (1, 1, before));

    let limited = HTTP.replace("listen_port", "conn_limit = 3\n listen_port");
    running.unit.update(&config("second", &limited)).await.unwrap();
    let limit = || {
        let metrics = running.unit.world.metrics();
        metrics.get("prometheus_receive_http_tcp_connections_limit", &[("protocol", "http")])
    };
    until("the limit is in place", || limit() == Some(3.0)).await;
    assert_eq!(running.post(&[], v1(&[("up", 1.0, 5)])).await.status, 204);
    assert_eq!(running.address().await, before);

    // All addresses and one of them cannot be listened on at a time with one port.
    let everywhere = format!("http {{\n listen_address = \"0.0.0.0\"\n listen_port = {}\n }}", before.port());
    running.unit.update(&config("second", &everywhere)).await.unwrap();
    until("it listens on all addresses", || address(&running.unit.world).unwrap().ip().is_unspecified()).await;
    let url = format!("http://{before}{PATH}");
    assert_eq!(send(&running.client, Method::POST, &url, &[], v1(&[("up", 1.0, 5)])).await.status, 204);

    let elsewhere = HTTP.replace("127.0.0.1", "127.0.0.2");
    running.unit.update(&config("second", &elsewhere)).await.unwrap();
    until("it listens elsewhere", || address(&running.unit.world).unwrap().ip().to_string() == "127.0.0.2").await;
    assert_eq!(running.post(&[], v1(&[("up", 1.0, 5)])).await.status, 204);
    until("the old port is closed", || std::net::TcpStream::connect(before).is_err()).await;
}

#[tokio::test]
async fn an_address_that_cannot_be_had_leaves_the_old_one_open() {
    let sink = Sink::new();
    let names = [("sink", sink.value())];
    let mut running = Running::start(&format!("forward_to = [sink]\n{HTTP}"), &names).await;
    running.address().await;
    // An address for documentation, which no interface has.
    let nowhere = HTTP.replace("127.0.0.1", "192.0.2.1");
    running.unit.update(&format!("forward_to = [sink]\n{nowhere}")).await.unwrap();
    until("it cannot listen", || {
        running.unit.world.health_text().starts_with("unhealthy: cannot listen on 192.0.2.1:0")
    })
    .await;
    assert_eq!(running.post(&[], v1(&[("up", 1.0, 5)])).await.status, 204);
    running.unit.update(&format!("forward_to = [sink]\n{HTTP}")).await.unwrap();
    until("it is well", || running.unit.world.health_text() == "healthy: component evaluated").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_under_load_lose_nothing() {
    const SENDERS: usize = 4;
    let (first, second) = (Sink::new(), Sink::new());
    let names = [("first", first.value()), ("second", second.value())];
    let mut running = Running::start(&format!("forward_to = [first]\n{HTTP}"), &names).await;
    let url = format!("http://{}{PATH}", running.address().await);
    let enough = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let (enough, client, url) = (Arc::clone(&enough), running.client.clone(), url.clone());
            tokio::spawn(async move {
                let mut sent = 0;
                while !enough.load(std::sync::atomic::Ordering::Relaxed) {
                    let body = v1(&[(&format!("up,sender={sender}"), f64::from(sent), i64::from(sent))]);
                    assert_eq!(send(&client, Method::POST, &url, &[], body).await.status, 204);
                    sent += 1;
                }
                sent as usize
            })
        })
        .collect();
    for round in 0..20 {
        let to = if round % 2 == 0 { "second" } else { "first" };
        let before = first.shown().len() + second.shown().len();
        // With another limit another server takes over the port.
        let http = HTTP.replace("listen_port", &format!("conn_limit = {}\n listen_port", 100 + round / 4));
        running.unit.update(&format!("forward_to = [{to}]\n{http}")).await.unwrap();
        until("requests go on", || first.shown().len() + second.shown().len() > before + 2 * SENDERS).await;
    }
    enough.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut sent = 0;
    for sender in senders {
        sent += sender.await.unwrap();
    }
    let mut got: BTreeMap<String, usize> = BTreeMap::new();
    for line in first.shown().into_iter().chain(second.shown()) {
        *got.entry(line).or_default() += 1;
    }
    assert_eq!((got.len(), got.values().max()), (sent, Some(&1)), "each sample once");
    assert!(!first.shown().is_empty() && !second.shown().is_empty());
}

#[tokio::test]
async fn further_connections_wait_beyond_the_limit() {
    let sink = Sink::new();
    let http = HTTP.replace("listen_port", "conn_limit = 1\n listen_port");
    let running = Running::start(&format!("forward_to = [sink]\n{http}"), &[("sink", sink.value())]).await;
    let holder = TcpStream::connect(running.address().await).await.unwrap();
    until("the connection is accepted", || connections(&running) == 1.0).await;
    let running = Arc::new(running);
    let sender = Arc::clone(&running);
    let request = tokio::spawn(async move { sender.post(&[], v1(&[("up", 1.0, 5)])).await.status });
    stays("the other one waits", Duration::from_millis(100), || sink.shown().is_empty()).await;
    drop(holder);
    assert_eq!(request.await.unwrap(), 204);
}

#[tokio::test]
async fn what_is_under_way_at_the_end_is_answered() {
    let sink = Sink::shut();
    let mut running = Running::into_sink("", &sink).await;
    let at = running.address().await;
    let (client, url) = (running.client.clone(), format!("http://{at}{PATH}"));
    let request =
        tokio::spawn(async move { send(&client, Method::POST, &url, &[], v1(&[("up", 1.0, 5)])).await.status });
    until("the receiver has it", || sink.shown().len() == 1).await;
    let end = async {
        until("nobody can connect", || std::net::TcpStream::connect(at).is_err()).await;
        sink.gate.add_permits(1);
    };
    tokio::join!(running.unit.drain(), end);
    assert_eq!(request.await.unwrap(), 204);
    assert_eq!(connections(&running), 0.0);
}

#[tokio::test]
async fn what_is_under_way_at_the_end_is_waited_for_as_long_as_configured() {
    let sink = Sink::shut();
    let mut running = Running::into_sink("graceful_shutdown_timeout = \"50ms\"", &sink).await;
    let at = running.address().await;
    let (client, url) = (running.client.clone(), format!("http://{at}{PATH}"));
    let request = tokio::spawn(async move {
        let request = Request::post(&url).body(Body::from(v1(&[("up", 1.0, 5)]))).unwrap();
        client.request(request).await.map(|response| response.status())
    });
    until("the receiver has it", || sink.shown().len() == 1).await;
    // The receivers never take it: without the limit this would be half a minute.
    let ended = tokio::time::timeout(Duration::from_secs(25), running.unit.drain()).await;
    assert!(ended.is_ok());
    assert!(request.await.unwrap().is_err());
}

/// A certificate authority, and what it issues: certificate and key, as PEM.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, host: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

#[tokio::test]
async fn only_clients_with_a_certificate_get_in_where_one_is_wanted() {
    let (authority, clients, strangers) =
        (Authority::new("ca"), Authority::new("clients"), Authority::new("strangers"));
    let sink = Sink::new();
    let (cert, key) = authority.issue("localhost");
    let names = [
        ("sink", sink.value()),
        ("cert", Value::string(cert)),
        ("key", Value::string(key)),
        ("ca", Value::string(clients.0.pem())),
    ];
    let tls = |more: &str| {
        let tls = format!("tls {{\n cert_pem = cert\n key_pem = key\n{more}\n }}\n listen_port");
        format!("forward_to = [sink]\n{}", HTTP.replace("listen_port", &tls))
    };
    let mut running = Running::start(&tls(""), &names).await;
    let url = format!("https://localhost:{}{PATH}", running.address().await.port());
    let send = async |identity: Option<&(String, String)>| {
        let mut config = ClientConfig {
            tls_config: TlsConfig { ca_pem: authority.0.pem(), ..TlsConfig::default() },
            ..ClientConfig::default()
        };
        if let Some((cert, key)) = identity {
            config.tls_config.cert_pem = cert.clone();
            config.tls_config.key_pem = Secret::new(key.as_str());
        }
        let request = Request::post(&url).body(Body::from(v1(&[("up", 1.0, 5)]))).unwrap();
        client(config).await.request(request).await.map(|response| response.status().as_u16()).ok()
    };
    assert_eq!(send(None).await, Some(204));
    let before = running.address().await;
    running.unit.update(&tls("client_auth_type = \"RequireAndVerifyClientCert\"\n client_ca_pem = ca")).await.unwrap();
    until("the new server is there", || running.unit.world.logs().matches("listening for").count() == 2).await;
    let (known, stranger) = (clients.issue("client"), strangers.issue("stranger"));
    assert_eq!(send(None).await, None);
    assert_eq!(send(Some(&stranger)).await, None);
    assert_eq!(send(Some(&known)).await, Some(204));
    assert_eq!((sink.shown().len(), running.address().await), (2, before));
}

proptest! {
    #[test]
    fn no_content_type_makes_it_panic(text in "\\PC*", rest in "(;[a-z= ]*)*") {
        let _ = Message::of_content_type(&text);
        let _ = Message::of_content_type(&format!("application/x-protobuf{rest}"));
    }

    #[test]
    fn no_body_makes_it_panic(body: Vec<u8>, wrapped: bool, second: bool) {
        let body = if wrapped { compressed(&body).to_vec() } else { body };
        let message = if second { Message::V2 } else { Message::V1 };
        if let Err(status) = super::requests::read_for_test(&body, message) {
            prop_assert_eq!(status, 400);
        }
    }
}
