//! Remote write requests and what is made of the answers.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use corten_component::metrics::{Counter, Histogram};
use corten_component::{Field, Logger};
use corten_net::retry_after;
use corten_queue::{Record, Totals};
use corten_sink::{Event, Lost, Protocol, SendSettings, Sender, Verdict, points, totals_of};
use corten_wire::remote_write2::RequestEncoder;
use corten_wire::snappy::{self, Compressor};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::request::Builder;
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Request, StatusCode};

use super::arguments::ProtobufMessage;
use super::lane::ENCODING_V2;

/// What of the settings only remote write looks at.
#[derive(Clone, Debug)]
pub(super) struct Own {
    pub(super) retry_on_429: bool,
    pub(super) installation_id: HeaderValue,
}

/// How requests are made to an endpoint.
pub(super) type Settings = SendSettings<Own>;

/// The counters of an endpoint.
#[derive(Clone)]
pub(super) struct SendMetrics {
    pub(super) sent: KindCounters,
    pub(super) failed: KindCounters,
    pub(super) retried: KindCounters,
    pub(super) bytes: Counter,
    pub(super) metadata_bytes: Counter,
    pub(super) duration: Histogram,
}

/// A counter for each kind of item.
#[derive(Clone)]
pub(super) struct KindCounters {
    pub(super) samples: Counter,
    pub(super) histograms: Counter,
    pub(super) exemplars: Counter,
    pub(super) metadata: Counter,
}

impl KindCounters {
    pub(super) fn add(&self, totals: &Totals) {
        self.samples.add(totals.samples);
        self.histograms.add(totals.histograms);
        self.exemplars.add(totals.exemplars);
        self.metadata.add(totals.metadata);
    }
}

/// The body of a request made of records that are pieces of one.
fn body_of(records: &[Record]) -> Bytes {
    let raw_len = records.iter().map(|record| u64::from(record.raw_len)).sum();
    Bytes::from(snappy::join(raw_len, records.iter().map(|record| record.body.as_ref())))
}

/// The body of a request made of records that are whole requests of version 2, whose strings are numbered anew. Nothing
/// where one of them cannot be read.
fn join_v2(records: &[Record]) -> Option<Bytes> {
    let mut encoder = RequestEncoder::new();
    for record in records {
        let raw = snappy::decompress(&body_of(std::slice::from_ref(record)), record.raw_len as usize).ok()?;
        encoder.push_request(&raw).ok()?;
    }
    let mut raw = Vec::new();
    encoder.finish_into(&mut raw);
    let piece = Compressor::new().piece(&raw);
    Some(Bytes::from(snappy::join(raw.len() as u64, std::iter::once(&*piece))))
}

/// Why a record that the peer refused was dropped.
pub(super) const REFUSED: &str = "refused";

/// Sends to one endpoint.
pub(super) type RemoteSender = Sender<RemoteWriteProtocol>;

/// Remote write, in both versions: the encoding of the records says which it is.
pub(super) struct RemoteWriteProtocol {
    pub(super) metrics: SendMetrics,
    pub(super) logger: Logger,
    /// What names the endpoint's place in the queue.
    pub(super) identity: Arc<str>,
}

fn version(records: &[Record]) -> ProtobufMessage {
    match records.first() {
        Some(record) if record.encoding == ENCODING_V2 => ProtobufMessage::V2,
        _ => ProtobufMessage::V1,
    }
}

impl Protocol for RemoteWriteProtocol {
    type Settings = Own;

    const UNANSWERED: &'static str = REFUSED;

    fn body(&self, records: &[Record]) -> Option<Bytes> {
        match version(records) {
            ProtobufMessage::V2 if records.len() > 1 => join_v2(records),
            _ => Some(body_of(records)),
        }
    }

    fn request(&self, settings: &Settings, records: &[Record], attempt: u64) -> Builder {
        request(settings, version(records), attempt)
    }

    fn judge(&self, settings: &Settings, records: &[Record], head: &Parts, text: &str) -> Verdict {
        let totals = totals_of(records);
        match judge(settings, head, text) {
            Posted::Again { error } => {
                let after = retry_after(&head.headers, SystemTime::now());
                Verdict::Again { after, reason: REFUSED, error }
            }
            // So answers who takes it for a request of version 1, which looks empty then.
            Posted::Taken(written)
                if version(records) == ProtobufMessage::V2
                    && points(&totals) > 0
                    && written.unwrap_or_default().is_nothing() =>
            {
                Verdict::Refused(Lost { reason: REFUSED, totals }, nothing_written(&totals))
            }
            Posted::Taken(written) => Verdict::Taken(written.map(|written| {
                let totals = Totals { metadata: 0, ..unwritten(&totals, written) };
                Lost { reason: REFUSED, totals }
            })),
            Posted::Refused { written, error } => {
                let lost = Lost { reason: REFUSED, totals: unwritten(&totals, written.unwrap_or_default()) };
                match head.status {
                    StatusCode::PAYLOAD_TOO_LARGE => Verdict::TooLarge(lost, error),
                    _ => Verdict::Refused(lost, error),
                }
            }
        }
    }

    fn count(&self, settings: &Settings, records: &[Record], event: Event<'_>) {
        match event {
            Event::Attempt { number, bytes } => {
                let totals = totals_of(records);
                if number > 0 {
                    self.metrics.retried.add(&totals);
                }
                self.metrics.sent.add(&totals);
                self.metrics.bytes.add(bytes as u64);
            }
            Event::Answered { took, .. } => self.metrics.duration.observe(took.as_secs_f64()),
            Event::Taken { lost, .. } => self.count_unwritten(settings, lost),
            Event::Dropped(lost) => self.metrics.failed.add(&lost.totals),
        }
    }

    fn warn(&self, settings: &Settings, records: &[Record], error: &str) {
        self.logger.warn(
            "Failed to send batch, retrying",
            &[
                ("remote_name", Field::from(&*self.identity)),
                ("url", Field::from(settings.url.to_string())),
                ("count", Field::from(points(&totals_of(records)))),
                ("err", Field::from(error)),
            ],
        );
    }

    fn refuse(&self, settings: &Settings, _: &[Record], error: &str) {
        self.logger.error(
            "non-recoverable error",
            &[
                ("remote_name", Field::from(&*self.identity)),
                ("url", Field::from(settings.url.to_string())),
                ("err", Field::from(error)),
            ],
        );
    }
}

impl RemoteWriteProtocol {
    /// Counts what the peer took without writing all of it.
    fn count_unwritten(&self, settings: &Settings, lost: Option<&Lost>) {
        let Some(Lost { totals: lost, .. }) = lost.filter(|lost| points(&lost.totals) > 0) else { return };
        self.metrics.failed.add(lost);
        self.logger.error(
            "we got 2xx status code from the Receiver yet statistics indicate some data was not written; investigation \
             needed",
            &[
                ("remote_name", Field::from(&*self.identity)),
                ("url", Field::from(settings.url.to_string())),
                ("failedSampleCount", Field::from(lost.samples)),
                ("failedHistogramCount", Field::from(lost.histograms)),
                ("failedExemplarCount", Field::from(lost.exemplars)),
            ],
        );
    }
}

/// What became of a request.
pub(super) enum Posted {
    /// The peer took it, and perhaps said how much of it was written.
    Taken(Option<Written>),
    /// It is worth another try.
    Again { error: String },
    /// It is not.
    Refused { written: Option<Written>, error: String },
}

/// The head of a request.
pub(super) fn request(settings: &Settings, protocol: ProtobufMessage, attempt: u64) -> Builder {
    let (content_type, version) = match protocol {
        ProtobufMessage::V1 => ("application/x-protobuf", "0.1.0"),
        ProtobufMessage::V2 => ("application/x-protobuf;proto=io.prometheus.write.v2.Request", "2.0.0"),
    };
    let request = Request::post(&settings.uri)
        .header(CONTENT_ENCODING, "snappy")
        .header(CONTENT_TYPE, content_type)
        .header("X-Prometheus-Remote-Write-Version", version)
        .header("X-Agent-Id", &settings.own.installation_id)
        .header("X-Alloy-Id", &settings.own.installation_id);
    if attempt > 0 { request.header("Retry-Attempt", attempt) } else { request }
}

/// What an answer means.
pub(super) fn judge(settings: &Settings, head: &Parts, text: &str) -> Posted {
    let status = head.status;
    let written = Written::read(&head.headers);
    if status.is_success() {
        return Posted::Taken(written);
    }
    let line = text.lines().next().unwrap_or_default();
    let error = format!("server returned HTTP status {status}: {line}");
    if status.is_server_error() || (status == StatusCode::TOO_MANY_REQUESTS && settings.own.retry_on_429) {
        return Posted::Again { error };
    }
    Posted::Refused { written, error }
}

/// How much of a request the peer says that it has written.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Written {
    samples: u64,
    histograms: u64,
    exemplars: u64,
}

impl Written {
    /// Reads the headers of an answer; none if it has none of them. What is no number counts as 0.
    fn read(headers: &HeaderMap) -> Option<Self> {
        let read = |kind: &str| headers.get(format!("x-prometheus-remote-write-{kind}-written"));
        let headers = [read("samples"), read("histograms"), read("exemplars")];
        headers.iter().any(Option::is_some).then(|| {
            let [samples, histograms, exemplars] =
                headers.map(|value| value.and_then(|v| v.to_str().ok()?.trim().parse().ok()).unwrap_or(0));
            Written { samples, histograms, exemplars }
        })
    }

    fn is_nothing(&self) -> bool {
        *self == Written::default()
    }
}

/// What of a request was not written.
fn unwritten(sent: &Totals, written: Written) -> Totals {
    Totals {
        samples: sent.samples.saturating_sub(written.samples),
        histograms: sent.histograms.saturating_sub(written.histograms),
        exemplars: sent.exemplars.saturating_sub(written.exemplars),
        ..*sent
    }
}

/// The reference's words, whose misspelling is kept.
fn nothing_written(sent: &Totals) -> String {
    format!(
        "sent v2 request with {} samples, {} histograms and {} exemplars; got 2xx, but PRW 2.0 response header statistics \
         indicate 0 samples, 0 histograms and 0 exemplars were accepted; assumining failure e.g. the target only supports \
         PRW 1.0 prometheus.WriteRequest, but does not check the Content-Type header correctly",
        sent.samples, sent.histograms, sent.exemplars
    )
}

#[cfg(test)]
mod tests {
    use corten_component::log::LogSink;
    use corten_component::metrics::Registry;
    use std::time::{Duration, Instant};

    use corten_component::Url;
    use corten_component::health::HealthBoard;
    use corten_net::{Client, ClientConfig, ClientOptions};
    use corten_queue::{Counts, NewRecord, Options, Queue, ReaderOptions};
    use corten_sink::Pace;
    use corten_testkit::{Server, answer};
    use tokio::sync::watch;

    use super::*;
    use crate::remote_write::metrics::SharedMetrics;

    /// A sender of what waits in a queue of four records, each of which came a tenth of a second after the one before,
    /// and what tells it to end.
    async fn sender(dir: &std::path::Path, url: &str, pace: Pace) -> (RemoteSender, watch::Sender<bool>, Queue) {
        let queue = Queue::open(dir, Options::default()).unwrap();
        let options = ReaderOptions { items_max: 1, ..ReaderOptions::default() };
        let reader = queue.reader("r", options);
        for _ in 0..4 {
            let record = NewRecord {
                encoding: 1,
                tenant: None,
                partition: 0,
                partitions: 1,
                counts: Counts::samples(1),
                lowest_ms: 0,
                highest_ms: 0,
                raw_len: 0,
                body: Bytes::new(),
                hold: None,
            };
            queue.append(vec![record]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        reader.flush();
        let (ending, ending_of_sender) = watch::channel(false);
        let settings = SendSettings {
            client: Client::new(ClientConfig::default(), ClientOptions::default()).await.unwrap(),
            url: Url::from(url),
            uri: url.parse().unwrap(),
            timeout: Duration::from_secs(10),
            wait_max: Duration::ZERO,
            backoff_min: Duration::from_millis(1),
            backoff_max: Duration::from_millis(1),
            attempts_max: None,
            requests_max: 1,
            age_max: None,
            own: Own { retry_on_429: true, installation_id: HeaderValue::from_static("id") },
        };
        let board = Arc::new(HealthBoard::new("component created"));
        let metrics = SharedMetrics::new(&Registry::new(), Arc::default(), board).send_metrics(&["r", "u"]);
        let sender = Sender {
            reader,
            settings: watch::channel(Arc::new(settings)).1,
            protocol: RemoteWriteProtocol {
                metrics,
                logger: Logger::new(LogSink::memory().0),
                identity: Arc::from("r"),
            },
            state: Arc::default(),
            ending: ending_of_sender,
            pace,
            report: Arc::new(|_| {}),
        };
        (sender, ending, queue)
    }

    #[tokio::test]
    async fn a_backlog_is_sent_at_its_pace() {
        let (dir, server) = (tempfile::tempdir().unwrap(), Server::start(|_| answer(200, &[], "")).await);
        // As fast as it came.
        let pace = Pace::new(1, Duration::ZERO, Duration::ZERO);
        let (sender, _ending, _queue) = sender(dir.path(), &server.url("/"), pace).await;
        let started = Instant::now();
        sender.run().await;
        assert_eq!(server.seen().len(), 4);
        // The times of the records are cut to milliseconds.
        assert!(started.elapsed() >= Duration::from_millis(290), "{:?}", started.elapsed());
    }

    #[tokio::test]
    async fn a_sender_that_ends_leaves_the_backlog_for_later() {
        let (dir, server) = (tempfile::tempdir().unwrap(), Server::start(|_| answer(200, &[], "")).await);
        // No other record came a minute later, and so this waits for hours.
        let pace = Pace::new(1, Duration::ZERO, Duration::ZERO);
        pace.next(0, i64::MAX, tokio::time::Instant::now() + Duration::from_secs(7200));
        let (sender, ending, _queue) = sender(dir.path(), &server.url("/"), pace).await;
        let reader = sender.reader.clone();
        let running = tokio::spawn(sender.run());
        ending.send_replace(true);
        tokio::time::timeout(Duration::from_secs(10), running).await.unwrap().unwrap();
        assert_eq!((server.seen().len(), reader.lag().pending.records), (0, 4));
    }

    #[test]
    fn headers_say_how_much_was_written() {
        let headers = |pairs: &[(&'static str, &str)]| {
            let pairs = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            Written::read(&pairs.collect::<HeaderMap>())
        };
        let samples = "x-prometheus-remote-write-samples-written";
        assert_eq!(headers(&[("content-type", "text/plain")]), None);
        assert_eq!(headers(&[(samples, "x")]), Some(Written::default()));
        assert_eq!(headers(&[(samples, "-1")]), Some(Written::default()));
        let written = headers(&[(samples, "3"), ("X-Prometheus-Remote-Write-Exemplars-Written", " 2")]);
        assert_eq!(written, Some(Written { samples: 3, histograms: 0, exemplars: 2 }));
        let sent = Totals { samples: 4, histograms: 1, exemplars: 1, metadata: 1, ..Totals::default() };
        let lost = unwritten(&sent, written.unwrap());
        assert_eq!(lost, Totals { samples: 1, histograms: 1, exemplars: 0, metadata: 1, ..Totals::default() });
    }
}
