//! Sends what a queue holds to one endpoint.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use corten_component::{Health, HealthState, Url};
use corten_net::{Backoff, Body, Client};
use corten_queue::{Outcome, Reader, Record, Run, Totals, reason};
use http::response::Parts;
use http::{Uri, request};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::end::Corrections;
use crate::pace::Pace;

/// The shortest wait after a request that failed: nothing, doubled, is nothing for ever.
pub const BACKOFF_MIN: Duration = Duration::from_millis(1);

/// How much of an answer is looked at for an error message, in bytes.
const ERROR_BODY_BYTES_MAX: usize = 1024;

/// How often a record may be halved: a million parts.
const HALVINGS_MAX: u32 = 20;

/// What decides how requests are made.
#[derive(Clone, Debug)]
pub struct SendSettings<S> {
    /// Sends them.
    pub client: Client,
    /// The address as it was configured, for whoever looks.
    pub url: Url,
    /// The address of requests.
    pub uri: Uri,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// How long items wait for others before they are sent.
    pub wait_max: Duration,
    /// The first wait after a request that failed.
    pub backoff_min: Duration,
    /// The longest.
    pub backoff_max: Duration,
    /// How often a request is sent at most; no end if there is none.
    pub attempts_max: Option<u64>,
    /// How many requests may be under way at a time.
    pub requests_max: usize,
    /// Records that are older are not tried again.
    pub age_max: Option<Duration>,
    /// What only the protocol looks at.
    pub own: S,
}

/// How records become requests, and what the answers mean.
pub trait Protocol: Send + Sync + 'static {
    /// What of the settings only the protocol looks at.
    type Settings: Send + Sync + 'static;

    /// Whether records can be halved. What is too large is no news then, until something is dropped.
    const HALVES: bool = false;

    /// Why something is dropped that was sent too often without an answer.
    const UNANSWERED: &'static str;

    /// The body of a request made of these records. None if they cannot be joined; each is sent alone then.
    fn body(&self, records: &[Record]) -> Option<Bytes>;

    /// The head of a request.
    fn request(&self, settings: &SendSettings<Self::Settings>, records: &[Record], attempt: u64) -> request::Builder;

    /// What an answer means: its head, and the start of its text.
    fn judge(&self, settings: &SendSettings<Self::Settings>, records: &[Record], head: &Parts, text: &str) -> Verdict;

    /// Halves of a record that the peer finds too large; none if it cannot be halved.
    fn halve(&self, record: &Record) -> Option<[Record; 2]> {
        let _ = record;
        None
    }

    /// Counts, and says what only the protocol has words for.
    fn count(&self, settings: &SendSettings<Self::Settings>, records: &[Record], event: Event<'_>);

    /// Says that a request failed and will be sent again. Not said again until one succeeds.
    fn warn(&self, settings: &SendSettings<Self::Settings>, records: &[Record], error: &str);

    /// Says that a request was refused for good.
    fn refuse(&self, settings: &SendSettings<Self::Settings>, records: &[Record], error: &str);
}

/// What of a request is lost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lost {
    /// For which reason.
    pub reason: &'static str,
    /// How much.
    pub totals: Totals,
}

/// What an answer means.
#[derive(Debug)]
pub enum Verdict {
    /// The peer took it, but for what it says is lost.
    Taken(Option<Lost>),
    /// It may take less at a time. What is lost where that cannot be, and the peer's words.
    TooLarge(Lost, String),
    /// It will never take it. What is lost, and the peer's words.
    Refused(Lost, String),
    /// It is worth another try.
    Again {
        /// How long the peer asks to wait.
        after: Option<Duration>,
        /// The reason for which all is lost, once it was tried too often.
        reason: &'static str,
        /// The peer's words.
        error: String,
    },
}

/// What is counted.
#[derive(Debug)]
pub enum Event<'a> {
    /// A request is sent, for the first time (0) or again.
    Attempt {
        /// Which attempt it is.
        number: u64,
        /// The length of the body.
        bytes: usize,
    },
    /// An attempt has ended, with an answer or without.
    Answered {
        /// How long it took.
        took: Duration,
        /// The head of the answer.
        head: Option<&'a Parts>,
    },
    /// A request was taken, but for what is lost.
    Taken {
        /// The length of the body.
        bytes: usize,
        /// What the peer says that it did not write.
        lost: Option<&'a Lost>,
    },
    /// Records will not be sent any more.
    Dropped(&'a Lost),
}

/// How much some records hold.
pub fn totals_of(records: &[Record]) -> Totals {
    let mut totals = Totals::default();
    for record in records {
        totals.record(&record.counts, record.body.len());
    }
    totals
}

/// How much there is besides metadata.
pub fn points(totals: &Totals) -> u64 {
    totals.samples + totals.histograms + totals.exemplars
}

/// What an endpoint tells of its requests, for the choice of partitions and for whoever looks.
#[derive(Debug, Default)]
pub struct SendState {
    /// How many items the peer has answered for.
    pub sent: AtomicU64,
    /// How long those requests took, all together.
    pub sending_nanos: AtomicU64,
    /// Whether the last attempt failed and will be repeated.
    pub failing: AtomicBool,
    /// What failed last, and when.
    pub last_error: Mutex<Option<(SystemTime, String)>>,
    /// The highest timestamp that was sent, in milliseconds since the Unix epoch.
    pub highest_sent_ms: AtomicU64,
    /// How many requests were sent again.
    retries: AtomicU64,
    /// What was answered last, or why nothing was, and when.
    last_answer: Mutex<Option<(SystemTime, String)>>,
    /// What became of parts of records.
    pub(crate) corrections: Mutex<Corrections>,
}

impl SendState {
    /// How many requests were sent again.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// What the peer answered last, or why it did not, and when.
    pub fn last_answer(&self) -> Option<(SystemTime, String)> {
        self.last_answer.lock().clone()
    }

    fn answered(&self, text: String) {
        *self.last_answer.lock() = Some((SystemTime::now(), text));
    }
}

/// Sends to one endpoint.
pub struct Sender<P: Protocol> {
    /// What is to be sent.
    pub reader: Reader,
    /// How; changes are followed.
    pub settings: watch::Receiver<Arc<SendSettings<P::Settings>>>,
    /// What requests and answers mean.
    pub protocol: P,
    /// What is told of requests.
    pub state: Arc<SendState>,
    /// Set when the program ends or the endpoint goes: what can be sent at once is, and nothing is tried again.
    pub ending: watch::Receiver<bool>,
    /// How fast a backlog is sent.
    pub pace: Pace,
    /// Takes how the endpoint is.
    pub report: Arc<dyn Fn(Option<Health>) + Send + Sync>,
}

impl<P: Protocol> fmt::Debug for Sender<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("reader", &self.reader).finish_non_exhaustive()
    }
}

impl<P: Protocol> Sender<P> {
    /// Sends once those have ended that send what came before.
    pub async fn run_after(self, predecessors: Vec<watch::Receiver<()>>) {
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
    pub async fn run(self) {
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
        let mut corrections = Corrections::default();
        match self.send_records(&run.records, &mut outcomes, &mut corrections).await {
            Ok(()) => {
                self.state.corrections.lock().join(corrections);
                self.reader.settle_each(run, &outcomes);
            }
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

    /// Sends records as one request, or in halves where the peer finds that too large; what became of each, and of parts of
    /// them.
    async fn send_records(
        &self,
        records: &[Record],
        outcomes: &mut Vec<Outcome>,
        corrections: &mut Corrections,
    ) -> Result<(), GivenUp> {
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
                Answer::Taken(lost) => {
                    if let Some(lost) = lost {
                        corrections.change(Outcome::Delivered, Outcome::Dropped(lost.reason), points(&lost.totals));
                    }
                    outcomes.extend(records.iter().map(|_| Outcome::Delivered));
                }
                Answer::TooLarge(..) if records.len() > 1 => {
                    let (first, second) = records.split_at(records.len() / 2);
                    open.extend([second, first]);
                }
                Answer::TooLarge(lost, error) => match self.protocol.halve(&records[0]) {
                    Some(halves) => outcomes.push(self.send_halves(&records[0], halves, corrections).await?),
                    None => {
                        outcomes.push(self.drop_too_large(records, &lost, &error));
                        corrections.take_what_was_written(records, &lost);
                    }
                },
                Answer::Refused(lost) => {
                    let outcome = self.drop_records(records, &lost);
                    corrections.take_what_was_written(records, &lost);
                    outcomes.extend(records.iter().map(|_| outcome));
                }
            }
        }
        Ok(())
    }

    /// Sends halves of a record, and halves of those, until only that is dropped which the peer does not take in the smallest
    /// part. The record counts as delivered if any part of it was.
    async fn send_halves(
        &self,
        whole: &Record,
        [first, second]: [Record; 2],
        corrections: &mut Corrections,
    ) -> Result<Outcome, GivenUp> {
        let items = |record: &Record| points(&totals_of(std::slice::from_ref(record))) as i64;
        let mut open = vec![(1, second), (1, first)];
        let mut outcome = None;
        while let Some((halvings, record)) = open.pop() {
            let part = std::slice::from_ref(&record);
            let dropped = match self.send_request(part).await? {
                Answer::Taken(lost) => {
                    outcome = Some(Outcome::Delivered);
                    corrections.add(Outcome::Delivered, items(&record));
                    if let Some(lost) = lost {
                        corrections.change(Outcome::Delivered, Outcome::Dropped(lost.reason), points(&lost.totals));
                    }
                    continue;
                }
                Answer::TooLarge(lost, error) => match self.protocol.halve(&record) {
                    Some([first, second]) if halvings < HALVINGS_MAX => {
                        open.extend([(halvings + 1, second), (halvings + 1, first)]);
                        continue;
                    }
                    _ => {
                        corrections.take_what_was_written(part, &lost);
                        self.drop_too_large(part, &lost, &error)
                    }
                },
                Answer::Refused(lost) => {
                    corrections.take_what_was_written(part, &lost);
                    self.drop_records(part, &lost)
                }
                Answer::Aged { .. } => {
                    self.drop_records(part, &Lost { reason: reason::TOO_OLD, totals: totals_of(part) })
                }
            };
            corrections.add(dropped, items(&record));
            outcome.get_or_insert(dropped);
        }
        let outcome = outcome.unwrap_or(Outcome::Delivered);
        corrections.add(outcome, -items(whole));
        Ok(outcome)
    }

    fn drop_records(&self, records: &[Record], lost: &Lost) -> Outcome {
        let settings = Arc::clone(&self.settings.borrow());
        self.protocol.count(&settings, records, Event::Dropped(lost));
        Outcome::Dropped(lost.reason)
    }

    /// Drops what cannot be halved any more.
    fn drop_too_large(&self, records: &[Record], lost: &Lost, error: &str) -> Outcome {
        if P::HALVES {
            let settings = Arc::clone(&self.settings.borrow());
            self.protocol.refuse(&settings, records, error);
        }
        self.drop_records(records, lost)
    }

    async fn send_request(&self, records: &[Record]) -> Result<Answer, GivenUp> {
        let totals = totals_of(records);
        // Each goes alone then.
        let Some(body) = self.protocol.body(records) else {
            let error = "the records cannot be read".to_owned();
            return Ok(Answer::TooLarge(Lost { reason: UNREADABLE, totals }, error));
        };
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
            self.protocol.count(&settings, records, Event::Attempt { number: attempt, bytes: body.len() });
            if attempt > 0 {
                self.state.retries.fetch_add(1, Ordering::Relaxed);
            }
            let started = Instant::now();
            let request = self.protocol.request(&settings, records, attempt);
            let answered = settings.post(request, body.clone()).await;
            let took = started.elapsed();
            let head = answered.as_ref().ok().map(|(head, _)| head);
            self.protocol.count(&settings, records, Event::Answered { took, head });
            let verdict = match &answered {
                Ok((head, text)) => self.protocol.judge(&settings, records, head, text),
                Err(error) => Verdict::Again { after: None, reason: P::UNANSWERED, error: error.clone() },
            };
            self.state.answered(match (&verdict, head) {
                (Verdict::Taken(_), Some(head)) => head.status.to_string(),
                (Verdict::Taken(_), None) => String::new(),
                (Verdict::TooLarge(_, error) | Verdict::Refused(_, error) | Verdict::Again { error, .. }, _) => {
                    error.clone()
                }
            });
            let answer = match verdict {
                Verdict::Again { after, reason, error } => Err((after, reason, error)),
                Verdict::Taken(lost) => {
                    let event = Event::Taken { bytes: body.len(), lost: lost.as_ref() };
                    self.protocol.count(&settings, records, event);
                    Ok(Answer::Taken(lost))
                }
                Verdict::TooLarge(lost, error) => {
                    match P::HALVES {
                        true => self.note_error(&error),
                        false => self.note_refusal(&settings, records, &error),
                    }
                    Ok(Answer::TooLarge(lost, error))
                }
                Verdict::Refused(lost, error) => {
                    self.note_refusal(&settings, records, &error);
                    Ok(Answer::Refused(lost))
                }
            };
            let (after, reason, error) = match answer {
                Ok(answer) => {
                    self.state.sent.fetch_add(samples, Ordering::Relaxed);
                    self.state.sending_nanos.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
                    self.state.highest_sent_ms.fetch_max(highest_ms.max(0) as u64, Ordering::Relaxed);
                    if self.state.failing.swap(false, Ordering::Relaxed) {
                        (self.report)(None);
                    }
                    return Ok(answer);
                }
                Err(again) => again,
            };
            if *self.ending.borrow() {
                return Err(GivenUp);
            }
            self.note_failure(&settings, records, &error);
            attempt += 1;
            if settings.attempts_max.is_some_and(|attempts_max| attempt >= attempts_max) {
                self.note_refusal(&settings, records, &error);
                return Ok(Answer::Refused(Lost { reason, totals }));
            }
            let waits = backoff.get_or_insert_with(|| Backoff::new(settings.backoff_min, settings.backoff_max));
            let wait = waits.next_wait_after(after);
            let mut ending = self.ending.clone();
            tokio::select! {
                biased;
                _ = ending.wait_for(|ending| *ending) => return Err(GivenUp),
                () = tokio::time::sleep(wait) => {}
                // Whoever changes them wants to see what comes of it, also where the peer asked for a wait of hours.
                () = changed(&mut watched) => backoff = None,
            }
        }
    }

    fn note_error(&self, error: &str) {
        *self.state.last_error.lock() = Some((SystemTime::now(), error.to_owned()));
    }

    fn note_failure(&self, settings: &SendSettings<P::Settings>, records: &[Record], error: &str) {
        self.note_error(error);
        if self.state.failing.swap(true, Ordering::Relaxed) {
            return;
        }
        self.protocol.warn(settings, records, error);
        (self.report)(Some(Health::now(HealthState::Unhealthy, format!("{}: {error}", settings.url))));
    }

    /// Notes what will not be tried again.
    fn note_refusal(&self, settings: &SendSettings<P::Settings>, records: &[Record], error: &str) {
        self.note_error(error);
        self.protocol.refuse(settings, records, error);
    }
}

/// Why a record is dropped of which no request can be made.
const UNREADABLE: &str = "unreadable";

impl<S> SendSettings<S> {
    /// Sends a request once: the head of the answer and the start of its text, or why there is none.
    ///
    /// # Errors
    ///
    /// Words for whoever looks.
    pub async fn post(&self, request: request::Builder, body: Bytes) -> Result<(Parts, String), String> {
        let request = request.body(Body::from(body)).map_err(|error| error.to_string())?;
        let started = Instant::now();
        let (head, body) = match tokio::time::timeout(self.timeout, self.client.request(request)).await {
            Ok(Ok(response)) => response.into_parts(),
            Ok(Err(error)) => return Err(self.url.in_error(&error)),
            Err(_) => return Err("context deadline exceeded".to_owned()),
        };
        // The rest is read even where it does not matter, so that its connection can be used again. The peer has decided
        // already: that it does not end its text is no reason to send all again.
        let left = self.timeout.saturating_sub(started.elapsed());
        let text = tokio::time::timeout(left, body.read_start(ERROR_BODY_BYTES_MAX)).await.unwrap_or_default();
        Ok((head, text))
    }
}

/// Waits for other settings; for ever where there will be none.
async fn changed<S>(settings: &mut watch::Receiver<Arc<SendSettings<S>>>) {
    if settings.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The time of day, in milliseconds since the Unix epoch.
fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64
}

/// Whether the newest item of a record is older than items may be.
fn is_aged(record: &Record, now_ms: i64, age_max: Duration) -> bool {
    u128::try_from(now_ms.saturating_sub(record.highest_ms)).is_ok_and(|age_ms| age_ms > age_max.as_millis())
}

/// The run is not settled: the program ends, and what it holds is sent after the next start.
struct GivenUp;

enum Answer {
    /// But for what is lost.
    Taken(Option<Lost>),
    TooLarge(Lost, String),
    Refused(Lost),
    /// Some of the records, or all, are too old by now.
    Aged {
        now_ms: i64,
        age_max: Duration,
    },
}
