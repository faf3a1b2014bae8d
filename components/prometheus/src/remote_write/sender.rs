//! Sends what a lane's queue holds to one endpoint.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use corten_component::metrics::{Counter, Histogram};
use corten_component::{Field, Health, HealthState, Logger, Url};
use corten_net::{Backoff, Body, Client, retry_after};
use corten_queue::{Outcome, Reader, Record, Run, Totals, reason};
use corten_wire::remote_write2::RequestEncoder;
use corten_wire::snappy::{self, Compressor};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::arguments::ProtobufMessage;
use super::lane::ENCODING_V2;
use super::pace::Pace;

/// What decides how requests are made.
#[derive(Clone)]
pub(super) struct SendSettings {
    pub(super) client: Client,
    /// The address as it was configured, for whoever looks.
    pub(super) url: Url,
    /// The address of requests.
    pub(super) uri: Uri,
    pub(super) timeout: Duration,
    /// How long samples wait for others before they are sent.
    pub(super) wait_max: Duration,
    pub(super) backoff_min: Duration,
    pub(super) backoff_max: Duration,
    pub(super) retry_on_429: bool,
    /// How many requests may be under way at a time.
    pub(super) requests_max: usize,
    /// Records that are older are not tried again.
    pub(super) age_max: Option<Duration>,
    pub(super) installation_id: HeaderValue,
}

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

/// How much some records hold.
fn totals(records: &[Record]) -> Totals {
    let mut totals = Totals::default();
    for record in records {
        totals.samples += u64::from(record.counts.samples);
        totals.histograms += u64::from(record.counts.histograms);
        totals.exemplars += u64::from(record.counts.exemplars);
        totals.metadata += u64::from(record.counts.metadata);
    }
    totals
}

/// How many samples, histograms and exemplars there are.
fn points(totals: &Totals) -> u64 {
    totals.samples + totals.histograms + totals.exemplars
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

/// What an endpoint tells of its requests, for the choice of partitions and for whoever looks.
#[derive(Default)]
pub(super) struct SendState {
    pub(super) sent: AtomicU64,
    pub(super) sending_nanos: AtomicU64,
    /// Whether the last attempt failed and will be repeated.
    pub(super) failing: AtomicBool,
    pub(super) last_error: Mutex<Option<(SystemTime, String)>>,
    pub(super) highest_sent_ms: AtomicU64,
}

/// How much of an answer is looked at for an error message, in bytes.
const ERROR_BODY_BYTES_MAX: usize = 1024;

/// Why a record that the peer refused was dropped.
pub(super) const REFUSED: &str = "refused";

/// Sends to one endpoint.
pub(super) struct Sender {
    pub(super) reader: Reader,
    pub(super) settings: watch::Receiver<Arc<SendSettings>>,
    pub(super) metrics: SendMetrics,
    pub(super) state: Arc<SendState>,
    pub(super) logger: Logger,
    /// Set when the program ends or the endpoint goes: what can be sent at once is, and nothing is tried again.
    pub(super) ending: watch::Receiver<bool>,
    /// How fast a backlog is sent.
    pub(super) pace: Pace,
    /// Whether the endpoint is the one for which the component's health is reported.
    pub(super) report: Arc<dyn Fn(Option<Health>) + Send + Sync>,
}

impl Sender {
    /// Sends once those have ended that send what came before.
    pub(super) async fn run_after(self, predecessors: Vec<watch::Receiver<()>>) {
        let had_predecessors = !predecessors.is_empty();
        for mut predecessor in predecessors {
            while predecessor.changed().await.is_ok() {}
        }
        // They may have left something for the next start, and that is older than all this.
        if !(had_predecessors && *self.ending.borrow()) {
            self.run().await;
        }
    }

    /// Sends until the queue is closed, or all is handed out after a flush. At most one request of a partition is under
    /// way at a time; the reader sees to that.
    pub(super) async fn run(self) {
        let sender = Arc::new(self);
        let mut requests = JoinSet::new();
        while let Some(run) = sender.reader.next().await {
            let sending = Arc::clone(&sender);
            requests.spawn(async move { sending.send(run).await });
            while requests.try_join_next().is_some() {}
            // The lane has as many partitions as the one of its endpoints wants that wants most.
            while requests.len() >= sender.settings.borrow().requests_max {
                requests.join_next().await;
            }
        }
        while requests.join_next().await.is_some() {}
    }

    async fn send(&self, run: Run) {
        if !self.keep_pace(&run).await {
            return self.reader.release(run);
        }
        let mut outcomes = Vec::with_capacity(run.records.len());
        let protocol = if run.encoding() == ENCODING_V2 { ProtobufMessage::V2 } else { ProtobufMessage::V1 };
        match self.send_records(protocol, &run.records, &mut outcomes).await {
            Ok(()) => self.reader.settle_each(run, &outcomes),
            Err(GivenUp) => self.reader.release(run),
        }
    }

    /// Waits until it is time for a run; whether it still is to be sent then.
    async fn keep_pace(&self, run: &Run) -> bool {
        let created_ms = run.records.iter().map(|record| record.created_ms).max().unwrap_or(i64::MAX);
        // What waited for its request to become full is no backlog.
        let waited_ms = i64::try_from(self.settings.borrow().wait_max.as_millis()).unwrap_or(i64::MAX);
        let due_ms = created_ms.saturating_add(waited_ms);
        let Some(at) = self.pace.next(due_ms, now_ms(), tokio::time::Instant::now()) else { return true };
        let mut ending = self.ending.clone();
        tokio::time::timeout_at(at, ending.wait_for(|ending| *ending)).await.is_err()
    }

    /// Sends records as one request, or in halves where the peer finds that too large; what became of each.
    async fn send_records(
        &self,
        protocol: ProtobufMessage,
        records: &[Record],
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), GivenUp> {
        let mut open = vec![records];
        while let Some(records) = open.pop() {
            match self.send_request(protocol, records).await? {
                // The age of each decides, and what is left is one request again.
                Answer::Aged { now_ms, age_max } => {
                    let same_age = |a: &Record, b: &Record| is_aged(a, now_ms, age_max) == is_aged(b, now_ms, age_max);
                    let groups: Vec<&[Record]> = records.chunk_by(same_age).collect();
                    if let [all] = groups[..] {
                        outcomes.extend(all.iter().map(|_| Outcome::Dropped(reason::TOO_OLD)));
                    } else {
                        open.extend(groups.into_iter().rev());
                    }
                }
                Answer::Taken(written) => {
                    self.count_unwritten(records, written);
                    outcomes.extend(records.iter().map(|_| Outcome::Delivered));
                }
                Answer::TooLarge(_) if records.len() > 1 => {
                    let (first, second) = records.split_at(records.len() / 2);
                    open.extend([second, first]);
                }
                Answer::TooLarge(written) | Answer::Refused(written) => {
                    self.metrics.failed.add(&unwritten(&totals(records), written.unwrap_or_default()));
                    outcomes.extend(records.iter().map(|_| Outcome::Dropped(REFUSED)));
                }
            }
        }
        Ok(())
    }

    /// Counts what the peer took without writing all of it.
    fn count_unwritten(&self, records: &[Record], written: Option<Written>) {
        let Some(written) = written else { return };
        let lost = Totals { metadata: 0, ..unwritten(&totals(records), written) };
        if points(&lost) == 0 {
            return;
        }
        self.metrics.failed.add(&lost);
        self.logger.error(
            "we got 2xx status code from the Receiver yet statistics indicate some data was not written; investigation \
             needed",
            &[
                ("remote_name", Field::from(self.reader.name())),
                ("url", Field::from(self.settings.borrow().url.to_string())),
                ("failedSampleCount", Field::from(lost.samples)),
                ("failedHistogramCount", Field::from(lost.histograms)),
                ("failedExemplarCount", Field::from(lost.exemplars)),
            ],
        );
    }

    async fn send_request(&self, protocol: ProtobufMessage, records: &[Record]) -> Result<Answer, GivenUp> {
        let body = match protocol {
            ProtobufMessage::V2 if records.len() > 1 => match join_v2(records) {
                Some(body) => body,
                // Each goes alone then.
                None => return Ok(Answer::TooLarge(None)),
            },
            _ => body_of(records),
        };
        let totals = totals(records);
        let samples = points(&totals);
        let highest_ms = records.iter().map(|record| record.highest_ms).max().unwrap_or_default();
        let mut watched = self.settings.clone();
        let mut backoff: Option<Backoff> = None;
        let mut attempt = 0u64;
        loop {
            let settings = Arc::clone(&watched.borrow_and_update());
            let now_ms = now_ms();
            if let Some(age_max) = settings.age_max
                && records.iter().any(|record| is_aged(record, now_ms, age_max))
            {
                return Ok(Answer::Aged { now_ms, age_max });
            }
            if attempt > 0 {
                self.metrics.retried.add(&totals);
            }
            self.metrics.sent.add(&totals);
            self.metrics.bytes.add(body.len() as u64);
            let started = Instant::now();
            let attempted = self.attempt(&settings, protocol, body.clone(), attempt).await;
            let took = started.elapsed();
            self.metrics.duration.observe(took.as_secs_f64());
            let attempted = match attempted {
                // So answers who takes it for a request of version 1, which looks empty then.
                Attempt::Done(Answer::Taken(written))
                    if protocol == ProtobufMessage::V2 && samples > 0 && written.unwrap_or_default().is_nothing() =>
                {
                    self.note_refusal(&settings, &nothing_written(&totals));
                    Attempt::Done(Answer::Refused(None))
                }
                attempted => attempted,
            };
            let (wait, error) = match attempted {
                Attempt::Done(answer) => {
                    self.state.sent.fetch_add(samples, Ordering::Relaxed);
                    self.state.sending_nanos.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
                    self.state.highest_sent_ms.fetch_max(highest_ms.max(0) as u64, Ordering::Relaxed);
                    if self.state.failing.swap(false, Ordering::Relaxed) {
                        (self.report)(None);
                    }
                    return Ok(answer);
                }
                Attempt::Again { after, error } => (after, error),
            };
            if *self.ending.borrow() {
                return Err(GivenUp);
            }
            self.note_failure(&settings, &error, samples);
            let waits = backoff.get_or_insert_with(|| Backoff::new(settings.backoff_min, settings.backoff_max));
            let wait = waits.next_wait_after(wait);
            let mut ending = self.ending.clone();
            tokio::select! {
                biased;
                _ = ending.wait_for(|ending| *ending) => return Err(GivenUp),
                () = tokio::time::sleep(wait) => {}
                // Whoever changes them wants to see what comes of it, also where the peer asked for a wait of hours.
                () = changed(&mut watched) => backoff = None,
            }
            attempt += 1;
        }
    }

    fn note_failure(&self, settings: &SendSettings, error: &str, samples: u64) {
        *self.state.last_error.lock() = Some((SystemTime::now(), error.to_owned()));
        if self.state.failing.swap(true, Ordering::Relaxed) {
            return;
        }
        let url = settings.url.to_string();
        self.logger.warn(
            "Failed to send batch, retrying",
            &[
                ("remote_name", Field::from(self.reader.name())),
                ("url", Field::from(&url)),
                ("count", Field::from(samples)),
                ("err", Field::from(error)),
            ],
        );
        (self.report)(Some(Health::now(HealthState::Unhealthy, format!("{url}: {error}"))));
    }

    /// Notes what will not be tried again.
    fn note_refusal(&self, settings: &SendSettings, error: &str) {
        *self.state.last_error.lock() = Some((SystemTime::now(), error.to_owned()));
        self.logger.error(
            "non-recoverable error",
            &[
                ("remote_name", Field::from(self.reader.name())),
                ("url", Field::from(settings.url.to_string())),
                ("err", Field::from(error)),
            ],
        );
    }

    async fn attempt(&self, settings: &SendSettings, protocol: ProtobufMessage, body: Bytes, attempt: u64) -> Attempt {
        match settings.post(protocol, body, attempt).await {
            Posted::Again { after, error } => Attempt::Again { after, error },
            Posted::Taken(written) => Attempt::Done(Answer::Taken(written)),
            Posted::Refused { status, written, error } => {
                self.note_refusal(settings, &error);
                let too_large = status == StatusCode::PAYLOAD_TOO_LARGE;
                Attempt::Done(if too_large { Answer::TooLarge(written) } else { Answer::Refused(written) })
            }
        }
    }
}

/// What became of a request.
pub(super) enum Posted {
    /// The peer took it, and perhaps said how much of it was written.
    Taken(Option<Written>),
    /// It is worth another try.
    Again { after: Option<Duration>, error: String },
    /// It is not.
    Refused { status: StatusCode, written: Option<Written>, error: String },
}

impl SendSettings {
    /// Sends a request once.
    pub(super) async fn post(&self, protocol: ProtobufMessage, body: Bytes, attempt: u64) -> Posted {
        let (content_type, version) = match protocol {
            ProtobufMessage::V1 => ("application/x-protobuf", "0.1.0"),
            ProtobufMessage::V2 => ("application/x-protobuf;proto=io.prometheus.write.v2.Request", "2.0.0"),
        };
        let mut request = Request::post(&self.uri)
            .header(CONTENT_ENCODING, "snappy")
            .header(CONTENT_TYPE, content_type)
            .header("X-Prometheus-Remote-Write-Version", version)
            .header("X-Agent-Id", &self.installation_id)
            .header("X-Alloy-Id", &self.installation_id);
        if attempt > 0 {
            request = request.header("Retry-Attempt", attempt);
        }
        let request = match request.body(Body::from(body)) {
            Ok(request) => request,
            Err(error) => return Posted::Again { after: None, error: error.to_string() },
        };
        let started = Instant::now();
        let (parts, body) = match tokio::time::timeout(self.timeout, self.client.request(request)).await {
            Ok(Ok(response)) => response.into_parts(),
            Ok(Err(error)) => return Posted::Again { after: None, error: self.url.in_error(&error) },
            Err(_) => return Posted::Again { after: None, error: "context deadline exceeded".to_owned() },
        };
        // The rest is read even where it does not matter, so that its connection can be used again. The peer has decided
        // already: that it does not end its text is no reason to send all again.
        let left = self.timeout.saturating_sub(started.elapsed());
        let text = tokio::time::timeout(left, body.read_start(ERROR_BODY_BYTES_MAX)).await.unwrap_or_default();
        let status = parts.status;
        let written = Written::read(&parts.headers);
        if status.is_success() {
            return Posted::Taken(written);
        }
        let line = text.lines().next().unwrap_or_default();
        let error = format!("server returned HTTP status {status}: {line}");
        if status.is_server_error() || (status == StatusCode::TOO_MANY_REQUESTS && self.retry_on_429) {
            return Posted::Again { after: retry_after(&parts.headers, SystemTime::now()), error };
        }
        Posted::Refused { status, written, error }
    }
}

/// Waits for other settings; for ever where there will be none.
async fn changed(settings: &mut watch::Receiver<Arc<SendSettings>>) {
    if settings.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
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

/// The time of day, in milliseconds since the Unix epoch.
fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64
}

/// Whether the newest sample of a record is older than samples may be.
fn is_aged(record: &Record, now_ms: i64, age_max: Duration) -> bool {
    u128::try_from(now_ms.saturating_sub(record.highest_ms)).is_ok_and(|age_ms| age_ms > age_max.as_millis())
}

/// The run is not settled: the program ends, and what it holds is sent after the next start.
struct GivenUp;

enum Attempt {
    Done(Answer),
    Again { after: Option<Duration>, error: String },
}

enum Answer {
    Taken(Option<Written>),
    TooLarge(Option<Written>),
    Refused(Option<Written>),
    /// Some of the records, or all, are too old by now.
    Aged {
        now_ms: i64,
        age_max: Duration,
    },
}

#[cfg(test)]
mod tests {
    use corten_component::log::LogSink;
    use corten_component::metrics::Registry;
    use corten_net::{ClientConfig, ClientOptions};
    use corten_queue::{Counts, NewRecord, Options, Queue, ReaderOptions};
    use corten_testkit::{Server, answer};

    use super::*;
    use crate::remote_write::metrics::SharedMetrics;

    /// A sender of what waits in a queue of four records, each of which came a tenth of a second after the one before,
    /// and what tells it to end.
    async fn sender(dir: &std::path::Path, url: &str, pace: Pace) -> (Sender, watch::Sender<bool>, Queue) {
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
            retry_on_429: true,
            requests_max: 1,
            age_max: None,
            installation_id: HeaderValue::from_static("id"),
        };
        let sender = Sender {
            reader,
            settings: watch::channel(Arc::new(settings)).1,
            metrics: SharedMetrics::new(&Registry::new(), Arc::default()).send_metrics(&["r", "u"]),
            state: Arc::default(),
            logger: Logger::new(LogSink::memory().0),
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
