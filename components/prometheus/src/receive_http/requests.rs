//! Requests: what is taken of them, and how they are answered.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use corten_component::listen::{HeldBytes, ListenSettings, Listening, MeteredBody, RequestMetrics, Requests};
use corten_component::log::Logger;
use corten_component::metrics::{Counter, Registry};
use corten_component::{Forward, request_metric_names};
use corten_net::{ConnectionInfo, ErrorKind, ServerBody, empty_body, http_error};
use corten_signal::ledger::Row;
use corten_signal::{ConsumeError, Ledger, Metrics, MetricsBatch, SeriesPart};
use corten_wire::remote_write::{DecodeOptions, Decoded, decode_write_request};
use corten_wire::remote_write2::decode_request;
use corten_wire::snappy::{SnappyError, decompress};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

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

/// The longest text of a refusal, in bytes.
const REFUSAL_BYTES_MAX: usize = 64 << 10;

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
    /// Where and how to listen.
    pub(super) listen: ListenSettings,
}

/// What all requests of the component share, over all changes of its arguments.
pub(super) struct Shared {
    settings: Mutex<Arc<Settings>>,
    pub(super) listening: Arc<Listening>,
    requests: Requests,
    metrics: SampleMetrics,
    /// Where it is counted what becomes of samples.
    row: Arc<Row>,
    /// A permit for each core: so many bodies are read at a time.
    readers: Arc<Semaphore>,
}

/// What the component tells of samples, by the reference's names.
struct SampleMetrics {
    invalid_labels: Counter,
    without_metadata: Counter,
}

impl SampleMetrics {
    fn new(registry: &Registry) -> Self {
        SampleMetrics {
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
    pub(super) fn new(settings: Settings, registry: &Registry, ledger: &Ledger, logger: Logger) -> Self {
        let cores = available_parallelism().map_or(1, std::num::NonZero::get);
        let metrics = RequestMetrics::new(registry, request_metric_names!("prometheus_receive_http"));
        let listening =
            Listening::new(settings.listen.clone(), &metrics, logger, "listening for remote write requests");
        Shared {
            settings: Mutex::new(Arc::new(settings)),
            listening: Arc::new(listening),
            requests: Requests::new(metrics, HELD_BYTES_MAX),
            metrics: SampleMetrics::new(registry),
            row: Arc::clone(ledger.row_of::<Metrics>()),
            readers: Arc::new(Semaphore::new(cores)),
        }
    }

    /// What requests are taken with now.
    pub(super) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.lock())
    }

    /// Takes requests with other settings from here on.
    pub(super) fn set(&self, settings: Settings) {
        let listen = settings.listen.clone();
        *self.settings.lock() = Arc::new(settings);
        self.listening.set(listen);
    }

    /// Answers a request.
    pub(super) async fn handle(&self, request: Request<Incoming>) -> Response<ServerBody> {
        let mut exchange = self.requests.begin(request, |parts| {
            if parts.uri.path() == PATH && parts.method == Method::POST { ROUTE } else { "other" }
        });
        let answer = self.answer(&exchange.parts, &mut exchange.body).await;
        if exchange.route == ROUTE && !answer.status.is_success() {
            self.complain(&exchange.parts, &answer);
        }
        exchange.finish(answer.into_response()).await
    }

    async fn answer(&self, parts: &Parts, body: &mut MeteredBody) -> Answer {
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
    async fn body(&self, settings: &Settings, body: &mut MeteredBody) -> Result<Bytes, Answer> {
        let error = match body.read(BODY_BYTES_MAX, settings.listen.body_wait_max).await {
            Ok(bytes) => return Ok(bytes),
            Err(error) => error,
        };
        if body.is_crowded() {
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
    async fn write(&self, settings: &Settings, message: Message, body: Bytes, held: &mut HeldBytes) -> Answer {
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
        let mut decoded = match outcome {
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
        let batch = Arc::new(MetricsBatch::of(std::mem::take(&mut decoded.parts)));
        let items = batch.items();
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
        self.enter(message, items, &decoded);
        let answer = match message {
            Message::V1 => {
                if decoded.errors_total > 0 {
                    let first = decoded.errors.first().map_or("", String::as_str);
                    self.listening.warn("left out series with invalid labels", first, decoded.errors_total);
                }
                Answer::new(StatusCode::NO_CONTENT, "")
            }
            Message::V2 if decoded.errors_total == 0 => Answer::new(StatusCode::NO_CONTENT, ""),
            Message::V2 => Answer::new(StatusCode::BAD_REQUEST, joined(&decoded.errors, decoded.errors_total)),
        };
        Answer { written: Some(written), ..answer }
    }

    /// Enters a request that was taken in the books: what of it was handed on, and what was left out.
    fn enter(&self, message: Message, items: usize, decoded: &Decoded) {
        let seen = usize::try_from(decoded.seen).unwrap_or(usize::MAX).max(items);
        let of_exemplars = (decoded.exemplars_left_out as usize).min(seen - items);
        let left_out = seen - items - of_exemplars;
        let of_labels = match message {
            Message::V1 => left_out,
            Message::V2 => left_out.min(decoded.invalid as usize),
        };
        self.row.received(seen);
        self.row.dropped("exemplar left out", of_exemplars);
        self.row.dropped("invalid labels", of_labels);
        self.row.dropped("invalid", left_out - of_labels);
    }

    /// Logs that a request was refused.
    fn complain(&self, parts: &Parts, answer: &Answer) {
        let peer = parts.extensions.get::<ConnectionInfo>().map(|info| info.peer.to_string()).unwrap_or_default();
        let (status, first) = (answer.status.as_u16(), answer.text.lines().next().unwrap_or_default());
        self.listening.warn("refused a remote write request", &format!("{status} to {peer}: {first}"), 1);
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

#[cfg(test)]
impl Shared {
    /// Hands on a body: status, `Retry-After`, and how many bytes still count as held.
    pub(super) async fn write_for_test(&self, message: Message, body: Bytes) -> (u16, Option<Duration>, usize) {
        let mut held = self.requests.hold();
        let answer = self.write(&self.settings(), message, body, &mut held).await;
        drop(held);
        (answer.status.as_u16(), answer.retry_after, self.requests.held_bytes())
    }
}

/// Reads a body as requests are read: the status where it is refused.
#[cfg(test)]
pub(super) fn read_for_test(body: &[u8], message: Message) -> Result<(), u16> {
    read(body, message, &DecodeOptions::default()).map(|_| ()).map_err(|answer| answer.status.as_u16())
}
