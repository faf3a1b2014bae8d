//! Sends what a lane's queue holds to one endpoint.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use corten_component::metrics::{Counter, Histogram};
use corten_component::{Field, Health, HealthState, Logger};
use corten_net::{Backoff, Body, Client, retry_after};
use corten_queue::{Outcome, Reader, Record, Run, Totals, reason};
use corten_wire::snappy;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderValue, Request, StatusCode, Uri};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What decides how requests are made.
#[derive(Clone)]
pub(super) struct SendSettings {
    pub(super) client: Client,
    pub(super) uri: Uri,
    pub(super) timeout: Duration,
    pub(super) backoff_min: Duration,
    pub(super) backoff_max: Duration,
    pub(super) retry_on_429: bool,
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
    pub(super) duration: Histogram,
}

/// A counter for each kind of item.
#[derive(Clone)]
pub(super) struct KindCounters {
    pub(super) samples: Counter,
    pub(super) histograms: Counter,
    pub(super) exemplars: Counter,
}

impl KindCounters {
    fn add(&self, totals: &Totals) {
        self.samples.add(totals.samples);
        self.histograms.add(totals.histograms);
        self.exemplars.add(totals.exemplars);
    }
}

/// How much some records hold.
fn totals(records: &[Record]) -> Totals {
    let mut totals = Totals::default();
    for record in records {
        totals.samples += u64::from(record.counts.samples);
        totals.histograms += u64::from(record.counts.histograms);
        totals.exemplars += u64::from(record.counts.exemplars);
    }
    totals
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

/// Sends to one endpoint.
pub(super) struct Sender {
    pub(super) reader: Reader,
    pub(super) settings: watch::Receiver<Arc<SendSettings>>,
    pub(super) metrics: SendMetrics,
    pub(super) state: Arc<SendState>,
    pub(super) logger: Logger,
    /// Set when the program ends or the endpoint goes: what can be sent at once is, and nothing is tried again.
    pub(super) ending: watch::Receiver<bool>,
    /// Whether the endpoint is the one for which the component's health is reported.
    pub(super) report: Arc<dyn Fn(Option<Health>) + Send + Sync>,
}

impl Sender {
    /// Sends until the queue is closed, or all is handed out after a flush. At most one request of a partition is under
    /// way at a time; the reader sees to that.
    pub(super) async fn run(self) {
        let sender = Arc::new(self);
        let mut requests = JoinSet::new();
        while let Some(run) = sender.reader.next().await {
            while requests.try_join_next().is_some() {}
            let sender = Arc::clone(&sender);
            requests.spawn(async move { sender.send(run).await });
        }
        while requests.join_next().await.is_some() {}
    }

    async fn send(&self, run: Run) {
        let mut outcomes = Vec::with_capacity(run.records.len());
        match self.send_records(&run.records, &mut outcomes).await {
            Ok(()) => self.reader.settle_each(run, &outcomes),
            Err(GivenUp) => self.reader.release(run),
        }
    }

    /// Sends records as one request, or in halves where the peer finds that too large; what became of each.
    async fn send_records(&self, records: &[Record], outcomes: &mut Vec<Outcome>) -> Result<(), GivenUp> {
        let mut open = vec![records];
        while let Some(records) = open.pop() {
            match self.send_request(records).await? {
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
                Answer::Taken => outcomes.extend(records.iter().map(|_| Outcome::Delivered)),
                Answer::TooLarge if records.len() > 1 => {
                    let (first, second) = records.split_at(records.len() / 2);
                    open.extend([second, first]);
                }
                Answer::TooLarge | Answer::Refused => {
                    self.metrics.failed.add(&totals(records));
                    outcomes.extend(records.iter().map(|_| Outcome::Dropped("refused")));
                }
            }
        }
        Ok(())
    }

    async fn send_request(&self, records: &[Record]) -> Result<Answer, GivenUp> {
        let raw_len = records.iter().map(|record| u64::from(record.raw_len)).sum();
        let totals = totals(records);
        let samples = totals.items();
        let highest_ms = records.iter().map(|record| record.highest_ms).max().unwrap_or_default();
        let body = Bytes::from(snappy::join(raw_len, records.iter().map(|record| record.body.as_ref())));
        let mut backoff: Option<Backoff> = None;
        let mut attempt = 0u64;
        loop {
            let settings = Arc::clone(&self.settings.borrow());
            let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
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
            let attempted = self.attempt(&settings, body.clone(), attempt).await;
            let took = started.elapsed();
            self.metrics.duration.observe(took.as_secs_f64());
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
            let backoff = backoff.get_or_insert_with(|| Backoff::new(settings.backoff_min, settings.backoff_max));
            let wait = backoff.next_wait_after(wait);
            let mut ending = self.ending.clone();
            let ended = tokio::time::timeout(wait, ending.wait_for(|ending| *ending)).await.is_ok();
            if ended {
                return Err(GivenUp);
            }
            attempt += 1;
        }
    }

    fn note_failure(&self, settings: &SendSettings, error: &str, samples: u64) {
        *self.state.last_error.lock() = Some((SystemTime::now(), error.to_owned()));
        if self.state.failing.swap(true, Ordering::Relaxed) {
            return;
        }
        let url = corten_net::redact_url(&settings.uri.to_string());
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

    async fn attempt(&self, settings: &SendSettings, body: Bytes, attempt: u64) -> Attempt {
        let mut request = Request::post(&settings.uri)
            .header(CONTENT_ENCODING, "snappy")
            .header(CONTENT_TYPE, "application/x-protobuf")
            .header("X-Prometheus-Remote-Write-Version", "0.1.0")
            .header("X-Agent-Id", &settings.installation_id)
            .header("X-Alloy-Id", &settings.installation_id);
        if attempt > 0 {
            request = request.header("Retry-Attempt", attempt);
        }
        let request = match request.body(Body::from(body)) {
            Ok(request) => request,
            Err(error) => return Attempt::Again { after: None, error: error.to_string() },
        };
        let exchange = async {
            let response = settings.client.request(request).await.map_err(|error| error.to_string())?;
            let (parts, body) = response.into_parts();
            // The answer is read even where it does not matter, so that its connection can be used again.
            let text = body.read_start(ERROR_BODY_BYTES_MAX).await;
            Ok::<_, String>((parts, text))
        };
        let (parts, text) = match tokio::time::timeout(settings.timeout, exchange).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Attempt::Again { after: None, error },
            Err(_) => return Attempt::Again { after: None, error: "context deadline exceeded".to_owned() },
        };
        let status = parts.status;
        if status.is_success() {
            return Attempt::Done(Answer::Taken);
        }
        let line = text.lines().next().unwrap_or_default();
        let error = format!("server returned HTTP status {status}: {line}");
        let again = status.is_server_error() || (status == StatusCode::TOO_MANY_REQUESTS && settings.retry_on_429);
        if again {
            return Attempt::Again { after: retry_after(&parts.headers, SystemTime::now()), error };
        }
        *self.state.last_error.lock() = Some((SystemTime::now(), error.clone()));
        self.logger.error(
            "non-recoverable error",
            &[
                ("remote_name", Field::from(self.reader.name())),
                ("url", Field::from(corten_net::redact_url(&settings.uri.to_string()))),
                ("err", Field::from(&error)),
            ],
        );
        Attempt::Done(if status == StatusCode::PAYLOAD_TOO_LARGE { Answer::TooLarge } else { Answer::Refused })
    }
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
    Taken,
    TooLarge,
    Refused,
    /// Some of the records, or all, are too old by now.
    Aged {
        now_ms: i64,
        age_max: Duration,
    },
}
