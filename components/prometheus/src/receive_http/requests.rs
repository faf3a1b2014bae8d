//! Requests: what is taken of them, and how they are answered.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::thread::available_parallelism;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use corten_component::log::Logger;
use corten_component::metrics::{Counter, Gauge, Histogram, Registry, Vector};
use corten_net::{
    BodyError, ConnectionInfo, Error, ErrorKind, ReceiverHttp, ServerBody, TlsSwitch, empty_body, http_error,
    read_body_within,
};
use corten_signal::{ConsumeError, MetricsBatch, SeriesPart};
use corten_wire::remote_write::{DecodeOptions, Decoded, decode_write_request};
use corten_wire::remote_write2::decode_request;
use corten_wire::snappy::{SnappyError, decompress};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use crate::forward::Forward;

/// Where requests are sent to, and how the reference names the route in metrics.
const PATH: &str = "/api/v1/metrics/write";
const ROUTE: &str = "api_v1_metrics_write";

/// The longest body, in bytes, compressed as well as decompressed.
pub(super) const BODY_BYTES_MAX: usize = 32 << 20;

/// How many bytes of all requests under way may be in memory: bodies, and what was made of them. A request beyond that
/// is answered with 503. It leaves room for two of the longest bodies, whatever they hold.
const HELD_BYTES_MAX: usize = 640 << 20;

/// Bodies that are longer, in bytes before decompression, are read off the threads that serve connections, because they
/// take milliseconds.
const INLINE_BYTES_MAX: usize = 8 << 10;

/// How far ahead of the clock a time may lie, in milliseconds.
const AHEAD_MS_MAX: i64 = 10 * 60 * 1000;

/// How long receivers may take to accept a batch: shorter than senders wait by default, so that they hear that they are
/// to slow down.
const CONSUME_WAIT_MAX: Duration = Duration::from_secs(20);

/// How many bytes of the body of a refused request are still read, and for how long, so that the client hears why it was
/// refused in place of a reset connection.
const DISCARD_BYTES_MAX: usize = 128 << 20;
const DISCARD_WAIT_MAX: Duration = Duration::from_secs(2);

/// The longest text of a refusal, in bytes.
const REFUSAL_BYTES_MAX: usize = 64 << 10;

/// How often a refusal is logged at most; further ones are counted.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// A message of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// `prometheus.WriteRequest`.
    V1,
    /// `io.prometheus.write.v2.Request`.
    V2,
}

impl Message {
    /// The message of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        [Message::V1, Message::V2].into_iter().find(|message| message.name() == name)
    }

    /// The name in the configuration and in content types.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Message::V1 => "prometheus.WriteRequest",
            Message::V2 => "io.prometheus.write.v2.Request",
        }
    }

    /// The message that a content type names. Parameters are taken literally, as in the reference: a space before a name
    /// belongs to it.
    pub(super) fn of_content_type(content_type: &str) -> Result<Self, String> {
        const MEDIA: &str = "application/x-protobuf";
        let shown = content_type.trim();
        let mut parts = shown.split(';');
        if parts.next() != Some(MEDIA) && !shown.is_empty() {
            return Err(format!("expected {MEDIA} as the first (media) part, got {shown} content-type"));
        }
        for part in parts {
            let mut pair = part.split('=');
            let (Some(name), Some(value), None) = (pair.next(), pair.next(), pair.next()) else {
                return Err(format!(
                    "as per https://www.rfc-editor.org/rfc/rfc9110#parameter expected parameters to be key-values, got \
                     {part} in {shown} content-type"
                ));
            };
            if name == "proto" {
                return Self::named(value).ok_or_else(|| {
                    format!(
                        "got {shown} content type; unknown type for remote write protobuf message {value}, supported: \
                         {}, {}",
                        Message::V1.name(),
                        Message::V2.name()
                    )
                });
            }
        }
        Ok(Message::V1)
    }
}

/// What requests are taken with, until other arguments come.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) accepted: Vec<Message>,
    pub(super) append_metadata: bool,
    pub(super) type_and_unit_labels: bool,
    pub(super) forward: Forward,
    /// How long requests under way may go on when their server stops.
    pub(super) drain_wait_max: Duration,
    pub(super) http: ReceiverHttp,
    pub(super) tls: TlsSwitch,
}

/// What all requests of the component share, over all changes of its arguments.
pub(super) struct Shared {
    settings: watch::Sender<Arc<Settings>>,
    pub(super) metrics: ServerMetrics,
    pub(super) logger: Logger,
    held_bytes: Arc<AtomicUsize>,
    /// A permit for each core: so many bodies are read at a time.
    readers: Arc<Semaphore>,
    complaints: Mutex<Complaints>,
}

/// When a refusal was last logged, and how many were not.
#[derive(Default)]
struct Complaints {
    last: Option<Instant>,
    left_out: u64,
}

/// What the component tells of its work, by the reference's names.
#[derive(Clone)]
pub(super) struct ServerMetrics {
    pub(super) connections: Gauge,
    pub(super) connections_limit: Gauge,
    duration: Vector<Histogram>,
    request_bytes: Vector<Histogram>,
    response_bytes: Vector<Histogram>,
    in_flight: Vector<Gauge>,
    invalid_labels: Counter,
    without_metadata: Counter,
}

/// The bounds of the sizes of messages, in bytes: powers of four.
const SIZE_BUCKETS: &[f64] = &[
    4.0,
    16.0,
    64.0,
    256.0,
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262144.0,
    1048576.0,
    4194304.0,
    16777216.0,
    67108864.0,
    268435456.0,
    1073741824.0,
];
/// The bounds of the duration of requests, in seconds.
const DURATION_BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0];

impl ServerMetrics {
    fn new(registry: &Registry) -> Self {
        ServerMetrics {
            connections: registry
                .gauges(
                    "prometheus_receive_http_tcp_connections",
                    "Current number of accepted TCP connections.",
                    &["protocol"],
                )
                .with(&["http"]),
            connections_limit: registry
                .gauges(
                    "prometheus_receive_http_tcp_connections_limit",
                    "The max number of TCP connections that can be accepted (0 means no limit).",
                    &["protocol"],
                )
                .with(&["http"]),
            duration: registry.histograms(
                "prometheus_receive_http_request_duration_seconds",
                "Time (in seconds) spent serving HTTP requests.",
                &["method", "route", "status_code", "ws"],
                DURATION_BUCKETS,
            ),
            request_bytes: registry.histograms(
                "prometheus_receive_http_request_message_bytes",
                "Size (in bytes) of messages received in the request.",
                &["method", "route"],
                SIZE_BUCKETS,
            ),
            response_bytes: registry.histograms(
                "prometheus_receive_http_response_message_bytes",
                "Size (in bytes) of messages sent in response.",
                &["method", "route"],
                SIZE_BUCKETS,
            ),
            in_flight: registry.gauges(
                "prometheus_receive_http_inflight_requests",
                "Current number of inflight requests.",
                &["method", "route"],
            ),
            invalid_labels: registry.counter(
                "prometheus_api_remote_write_invalid_labels_samples_total",
                "The total number of received remote write samples and histogram samples which were rejected due to \
                 invalid labels.",
            ),
            without_metadata: registry.counter(
                "prometheus_api_remote_write_without_metadata_appended_samples_total",
                "The total number of received remote write samples (and histogram samples) which were ingested without \
                 corresponding metadata.",
            ),
        }
    }
}

/// Counts a request as under way, also when its client goes away in the middle.
struct InFlight(Gauge);

impl InFlight {
    fn begin(gauge: Gauge) -> Self {
        gauge.add(1.0);
        InFlight(gauge)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.add(-1.0);
    }
}

/// Bytes in memory that count for [`HELD_BYTES_MAX`] until this is dropped.
struct Held {
    all: Arc<AtomicUsize>,
    bytes: usize,
}

impl Held {
    /// Counts further bytes, if there is room for them: whether there was.
    fn grow(&mut self, bytes: usize) -> bool {
        let fits = |all: usize| all.checked_add(bytes).filter(|all| *all <= HELD_BYTES_MAX);
        let grown = self.all.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
        self.bytes += if grown { bytes } else { 0 };
        grown
    }

    /// Forgets what was counted.
    fn release(&mut self) {
        self.all.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release();
    }
}

/// The body of a request, which counts what arrives.
struct Metered {
    inner: Incoming,
    read_bytes: u64,
    held: Held,
    /// Whether there was no room for what arrived.
    crowded: bool,
}

impl HttpBody for Metered {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            other => return Poll::Ready(other.map(|frame| frame.map_err(BodyError::into_error))),
        };
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        self.read_bytes += bytes as u64;
        if !self.held.grow(bytes) {
            self.crowded = true;
            return Poll::Ready(Some(Err(Error::new(ErrorKind::TooLarge, "too many bytes of requests in memory"))));
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Metered {
    /// Reads on and keeps nothing, within limits.
    async fn discard(&mut self) {
        let mut left = DISCARD_BYTES_MAX;
        let rest = async {
            while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut self.inner).poll_frame(cx)).await {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                self.read_bytes += bytes as u64;
                left = left.saturating_sub(bytes);
                if left == 0 {
                    break;
                }
            }
        };
        // What comes later is cut off.
        let _ = tokio::time::timeout(DISCARD_WAIT_MAX, rest).await;
    }
}

/// How many samples, histograms and exemplars were written: what version 2 of the protocol answers with.
#[derive(Clone, Copy, Debug, Default)]
struct Written {
    samples: u64,
    histograms: u64,
    exemplars: u64,
}

/// An answer.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    /// Why the request, or a part of it, was refused; empty where nothing is to be said.
    text: String,
    retry_after: Option<Duration>,
    written: Option<Written>,
}

impl Answer {
    fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Answer { status, text: text.into(), retry_after: None, written: None }
    }

    /// There is no room now.
    fn crowded() -> Self {
        let text = "too many requests are under way";
        Answer { retry_after: Some(Duration::from_secs(1)), ..Answer::new(StatusCode::SERVICE_UNAVAILABLE, text) }
    }

    fn of_failure(error: &ConsumeError) -> Self {
        let status = match error {
            ConsumeError::Retry { .. } => StatusCode::SERVICE_UNAVAILABLE,
            ConsumeError::Refused { .. } => StatusCode::BAD_REQUEST,
            ConsumeError::Exited { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let retry_after = if let ConsumeError::Retry { after, .. } = error { *after } else { None };
        Answer { retry_after, ..Answer::new(status, error.to_string()) }
    }

    fn into_response(mut self) -> Response<ServerBody> {
        const SAMPLES: HeaderName = HeaderName::from_static("x-prometheus-remote-write-samples-written");
        const HISTOGRAMS: HeaderName = HeaderName::from_static("x-prometheus-remote-write-histograms-written");
        const EXEMPLARS: HeaderName = HeaderName::from_static("x-prometheus-remote-write-exemplars-written");
        if self.text.len() > REFUSAL_BYTES_MAX {
            self.text.truncate(self.text.floor_char_boundary(REFUSAL_BYTES_MAX));
        }
        let mut response = if self.text.is_empty() {
            let mut response = Response::new(empty_body());
            *response.status_mut() = self.status;
            response
        } else {
            http_error(self.status, &self.text)
        };
        let headers = response.headers_mut();
        if let Some(written) = self.written {
            headers.insert(SAMPLES, written.samples.into());
            headers.insert(HISTOGRAMS, written.histograms.into());
            headers.insert(EXEMPLARS, written.exemplars.into());
        }
        if let Some(after) = self.retry_after {
            // Rounded up: who comes too early comes in vain.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        response
    }
}

impl Shared {
    pub(super) fn new(settings: Settings, registry: &Registry, logger: Logger) -> Self {
        let cores = available_parallelism().map_or(1, std::num::NonZero::get);
        Shared {
            settings: watch::Sender::new(Arc::new(settings)),
            metrics: ServerMetrics::new(registry),
            logger,
            held_bytes: Arc::default(),
            readers: Arc::new(Semaphore::new(cores)),
            complaints: Mutex::default(),
        }
    }

    /// What requests are taken with now.
    pub(super) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.borrow())
    }

    /// Takes requests with other settings from here on.
    pub(super) fn set(&self, settings: Settings) {
        self.settings.send_replace(Arc::new(settings));
    }

    /// Follows the settings.
    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<Settings>> {
        self.settings.subscribe()
    }

    /// Answers a request.
    pub(super) async fn handle(&self, request: Request<Incoming>) -> Response<ServerBody> {
        let started = Instant::now();
        let (parts, body) = request.into_parts();
        let route = if parts.uri.path() == PATH && parts.method == Method::POST { ROUTE } else { "other" };
        let method = method_label(&parts.method);
        let _in_flight = InFlight::begin(self.metrics.in_flight.with(&[method, route]));
        let held = Held { all: Arc::clone(&self.held_bytes), bytes: 0 };
        let mut body = Metered { inner: body, read_bytes: 0, held, crowded: false };
        let answer = self.answer(&parts, &mut body).await;
        // Whoever was too slow once is not waited for again.
        if !body.is_end_stream() && answer.status != StatusCode::REQUEST_TIMEOUT {
            body.discard().await;
        }
        if route == ROUTE && !answer.status.is_success() {
            self.complain(&parts, &answer);
        }
        let status = answer.status;
        let response = answer.into_response();
        let metrics = &self.metrics;
        metrics.request_bytes.with(&[method, route]).observe(body.read_bytes as f64);
        let sent = response.body().size_hint().exact().unwrap_or(0);
        metrics.response_bytes.with(&[method, route]).observe(sent as f64);
        metrics.duration.with(&[method, route, status.as_str(), "false"]).observe_duration(started.elapsed());
        response
    }

    async fn answer(&self, parts: &Parts, body: &mut Metered) -> Answer {
        if parts.uri.path() != PATH {
            return Answer::new(StatusCode::NOT_FOUND, "404 page not found");
        }
        if parts.method != Method::POST {
            return Answer::new(StatusCode::METHOD_NOT_ALLOWED, "");
        }
        let settings = self.settings();
        let message = match message(&parts.headers, &settings.accepted) {
            Ok(message) => message,
            Err(text) => return Answer::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text),
        };
        let answer = match self.body(&settings, body).await {
            Ok(bytes) => self.write(&settings, message, bytes, &mut body.held).await,
            Err(answer) => answer,
        };
        // Version 2 says in any case how much was written.
        let written = (message == Message::V2).then(|| answer.written.unwrap_or_default());
        Answer { written, ..answer }
    }

    /// Reads the body, as it arrives.
    async fn body(&self, settings: &Settings, body: &mut Metered) -> Result<Bytes, Answer> {
        let outcome = read_body_within(&mut *body, BODY_BYTES_MAX, settings.http.body_limit()).await;
        let error = match outcome {
            Ok(bytes) => return Ok(bytes),
            Err(error) => error,
        };
        body.held.release();
        if body.crowded {
            return Err(Answer::crowded());
        }
        Err(match error.kind() {
            ErrorKind::TooLarge => {
                let text = format!("request body exceeds the {BODY_BYTES_MAX} bytes limit");
                Answer::new(StatusCode::PAYLOAD_TOO_LARGE, text)
            }
            ErrorKind::Timeout => Answer::new(StatusCode::REQUEST_TIMEOUT, error.to_string()),
            _ => Answer::new(StatusCode::BAD_REQUEST, error.to_string()),
        })
    }

    /// Hands on what a body holds.
    async fn write(&self, settings: &Settings, message: Message, body: Bytes, held: &mut Held) -> Answer {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let options = DecodeOptions {
            latest_ms: i64::try_from(now_ms).unwrap_or(i64::MAX).saturating_add(AHEAD_MS_MAX),
            metadata: settings.append_metadata,
            type_and_unit_labels: settings.type_and_unit_labels,
            ..DecodeOptions::default()
        };
        // The semaphore is never closed, so that a permit always comes.
        let permit = Arc::clone(&self.readers).acquire_owned().await.ok();
        let is_long = body.len() > INLINE_BYTES_MAX;
        let read = move || {
            let outcome = read(&body, message, &options);
            drop(permit);
            outcome
        };
        // What it takes while it is read is limited by the number of readers; afterwards it counts as what it is.
        let outcome = if is_long {
            tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| {
                Err(Answer::new(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot read the request: {error}")))
            })
        } else {
            read()
        };
        let decoded = match outcome {
            Ok(decoded) => decoded,
            Err(answer) => return answer,
        };
        held.release();
        if !held.grow(size_bytes(&decoded.parts)) {
            return Answer::crowded();
        }
        self.metrics.invalid_labels.add(decoded.invalid);
        let without_metadata = without_metadata(&decoded.parts);
        let written =
            Written { samples: decoded.samples, histograms: decoded.histograms, exemplars: decoded.exemplars };
        let batch = Arc::new(MetricsBatch { parts: decoded.parts });
        match tokio::time::timeout(CONSUME_WAIT_MAX, settings.forward.consume(batch)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Answer::of_failure(&error),
            Err(_) => {
                let text = format!("the receivers did not take the metrics within {CONSUME_WAIT_MAX:?}");
                let retry_after = Some(Duration::from_secs(5));
                return Answer { retry_after, ..Answer::new(StatusCode::TOO_MANY_REQUESTS, text) };
            }
        }
        self.metrics.without_metadata.add(without_metadata);
        let answer = match message {
            Message::V1 => {
                if decoded.errors_total > 0 {
                    self.warn("left out series with invalid labels", &decoded.errors[..1], decoded.errors_total);
                }
                Answer::new(StatusCode::NO_CONTENT, "")
            }
            Message::V2 if decoded.errors_total == 0 => Answer::new(StatusCode::NO_CONTENT, ""),
            Message::V2 => Answer::new(StatusCode::BAD_REQUEST, joined(&decoded.errors, decoded.errors_total)),
        };
        Answer { written: Some(written), ..answer }
    }

    /// Logs that a request was refused.
    fn complain(&self, parts: &Parts, answer: &Answer) {
        let peer = parts.extensions.get::<ConnectionInfo>().map(|info| info.peer.to_string()).unwrap_or_default();
        let (status, first) = (answer.status.as_u16(), answer.text.lines().next().unwrap_or_default());
        self.warn("refused a remote write request", &[format!("{status} to {peer}: {first}")], 1);
    }

    /// Logs a problem that clients cause, not more often than is good for the log.
    pub(super) fn warn(&self, message: &str, problem: &[String], count: u64) {
        const SHOWN_BYTES_MAX: usize = 1 << 10;
        let left_out = {
            let mut complaints = self.complaints.lock();
            if complaints.last.is_some_and(|last| last.elapsed() < LOG_EVERY) {
                complaints.left_out += 1;
                return;
            }
            complaints.last = Some(Instant::now());
            std::mem::take(&mut complaints.left_out)
        };
        let problem = problem.first().map_or("", String::as_str);
        let problem = &problem[..problem.floor_char_boundary(SHOWN_BYTES_MAX)];
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX).into();
        self.logger
            .warn(message, &[("err", problem.into()), ("count", number(count)), ("lines_left_out", number(left_out))]);
    }
}

/// The message of a request, if its headers say nothing that is not accepted.
fn message(headers: &HeaderMap, accepted: &[Message]) -> Result<Message, String> {
    let text = |name: HeaderName| {
        headers.get(name).map_or(std::borrow::Cow::Borrowed(""), |value| String::from_utf8_lossy(value.as_bytes()))
    };
    let encoding = text(header::CONTENT_ENCODING);
    if !matches!(&*encoding, "" | "snappy") {
        return Err(format!(
            "{encoding} encoding (compression) is not accepted by this server; only snappy is acceptable"
        ));
    }
    let message = Message::of_content_type(&text(header::CONTENT_TYPE))?;
    if !accepted.contains(&message) {
        let accepted: Vec<&str> = accepted.iter().map(|message| message.name()).collect();
        return Err(format!(
            "{} protobuf message is not accepted by this server; only accepts {}",
            message.name(),
            accepted.join(", ")
        ));
    }
    Ok(message)
}

/// Decompresses and reads a body.
fn read(body: &[u8], message: Message, options: &DecodeOptions) -> Result<Decoded, Answer> {
    let bad = |text: String| Answer::new(StatusCode::BAD_REQUEST, text);
    let raw = decompress(body, BODY_BYTES_MAX).map_err(|error| match error {
        SnappyError::TooLong { .. } => bad(format!("decoded size exceeds the {BODY_BYTES_MAX} bytes limit")),
        SnappyError::Corrupt => bad(error.to_string()),
    })?;
    let decoded = match message {
        Message::V1 => decode_write_request(&raw, options),
        Message::V2 => decode_request(&raw, options),
    };
    decoded.map_err(|error| bad(error.to_string()))
}

/// What parts take in memory, without the insides of histograms, which are small beside them.
fn size_bytes(parts: &[SeriesPart]) -> usize {
    // The parts of one block stand beside each other.
    let mut last = None;
    let mut sum = 0;
    for part in parts {
        if last != Some(part.block.id()) {
            last = Some(part.block.id());
            sum += part.block.size_bytes();
        }
        sum += size_of_val(&*part.samples)
            + part.histograms.len() * 512
            + part.exemplars.len() * 256
            + part.metadata.len() * 256;
    }
    sum
}

/// How many samples and histograms are of series of which nothing is known.
fn without_metadata(parts: &[SeriesPart]) -> u64 {
    let mut known: HashMap<u64, Vec<u32>> = HashMap::new();
    for part in parts.iter().filter(|part| !part.metadata.is_empty()) {
        known.entry(part.block.id()).or_default().extend(part.metadata.iter().map(|metadata| metadata.index));
    }
    known.values_mut().for_each(|series| series.sort_unstable());
    let mut count = 0;
    for part in parts {
        let series = known.get(&part.block.id());
        let is_known = |index: u32| series.is_some_and(|series| series.binary_search(&index).is_ok());
        count += part.samples.iter().filter(|sample| !is_known(sample.index)).count();
        count += part.histograms.iter().filter(|sample| !is_known(sample.index)).count();
    }
    count as u64
}

/// Errors as the reference joins them, and how many there are beyond those that were kept.
fn joined(errors: &[String], total: u64) -> String {
    let mut text = String::new();
    for error in errors {
        if text.len() > REFUSAL_BYTES_MAX {
            break;
        }
        text.push_str(if text.is_empty() { "" } else { "\n" });
        text.push_str(error);
    }
    let more = total.saturating_sub(errors.len() as u64);
    if more > 0 {
        text.push_str(&format!("\nand {more} more"));
    }
    text
}

/// A method as the value of a label: clients can make up others without end.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "CONNECT" => "CONNECT",
        "DELETE" => "DELETE",
        "GET" => "GET",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        "PATCH" => "PATCH",
        "POST" => "POST",
        "PUT" => "PUT",
        "TRACE" => "TRACE",
        _ => "other",
    }
}

#[cfg(test)]
impl Shared {
    /// Hands on a body: status, `Retry-After`, and how many bytes still count as held.
    pub(super) async fn write_for_test(&self, message: Message, body: Bytes) -> (u16, Option<Duration>, usize) {
        let mut held = Held { all: Arc::clone(&self.held_bytes), bytes: 0 };
        let answer = self.write(&self.settings(), message, body, &mut held).await;
        drop(held);
        (answer.status.as_u16(), answer.retry_after, self.held_bytes.load(Ordering::Relaxed))
    }
}

/// Reads a body as requests are read: the status where it is refused.
#[cfg(test)]
pub(super) fn read_for_test(body: &[u8], message: Message) -> Result<(), u16> {
    read(body, message, &DecodeOptions::default()).map(|_| ()).map_err(|answer| answer.status.as_u16())
}
