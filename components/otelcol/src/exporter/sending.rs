//! What exporters have in common that send requests: a queue for each signal, joining and splitting, retries, and what is
//! said and counted of all that.
//!
//! An exporter gives a [`Push`] for each signal, which is mostly a [`Post`]. A queue outlives a change of the arguments: what waits in it is sent with
//! the new ones.

mod books;
mod durable;
mod memory;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use corten_component::local_end::Since;
use corten_component::metrics::{Counter, Gauge, Histogram, Registry, Vector};
use corten_component::{Component, Context, Error, Logger};
use corten_otlp::{Batch, OtlpLogs, OtlpMetrics, OtlpSignal, RequestContext, Traces};
use corten_signal::flow::BoxFuture;
use corten_signal::ledger::End;
use corten_signal::{Acks, Consume, ConsumeError, Ledger};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::counted::{Names, SCOPE};
use super::ends::{HandedOn, ShownEnds};
use super::queue::QueueArguments;
use super::retry::RetryArguments;
use crate::flow::Stages;
use crate::metrics::{EXPORTER, ScopedMetrics};
pub(crate) use books::UNROUTABLE;
use books::{Books, PERMANENT, RETRIES_OFF, RETRIES_OVER, SHUTDOWN};
use durable::{Durable, DurableLane};
use memory::{Memory, MemoryLane};

/// How long what waits in memory is still sent when the component ends, and how long requests under way may take then.
const DRAIN_WAIT_MAX: Duration = Duration::from_secs(60);

/// Brings batches of a signal to where they go.
pub(crate) trait Push<S: OtlpSignal>: Send + Sync + 'static {
    /// Tries once.
    ///
    /// # Errors
    ///
    /// Why not all was taken. What is left of the attempt's batch is what was not.
    fn attempt<'a>(self: Arc<Self>, attempt: &'a mut Attempt<S>) -> BoxFuture<'a, Result<(), Failure>>;

    /// Whether it hands batches to somebody who says what becomes of them. Otherwise what it took is safe.
    fn hands_on(&self) -> bool;

    /// Whether requests differ by what their telemetry came with, so that what came with different requests is not joined.
    fn reads_context(&self) -> bool;

    /// What names the server in metrics.
    fn server(&self) -> ServerName<'_>;

    /// Where the server is, without secrets.
    fn url(&self) -> String;
}

/// A batch, from the first attempt to the last.
pub(crate) struct Attempt<S: OtlpSignal> {
    /// What is still to be sent.
    pub(crate) batch: Batch<S::Record>,
    /// The body of the request, once it was made.
    body: Option<Vec<Bytes>>,
    /// What was handed on, where that is what is done with it.
    pub(crate) handed_on: HandedOn,
    /// How many items the server rejected of what it took.
    rejected: usize,
    /// How many items can go nowhere.
    pub(crate) unroutable: usize,
}

/// Sends requests of a signal.
pub(crate) trait Post<S: OtlpSignal>: Send + Sync + 'static {
    /// Makes the body of a request, packed. It may take some computing.
    fn pack(self: Arc<Self>, batch: Batch<S::Record>) -> BoxFuture<'static, Result<Vec<Bytes>, Failure>>;

    /// Sends a body, once. How many items of it the server rejects.
    ///
    /// # Errors
    ///
    /// Why the server did not take it.
    fn send<'a>(&'a self, body: Vec<Bytes>, context: &'a RequestContext) -> BoxFuture<'a, Result<usize, Failure>>;

    /// Whether requests differ by what their telemetry came with, so that what came with different requests is not joined.
    fn reads_context(&self) -> bool;

    /// What names the server in metrics.
    fn server(&self) -> ServerName<'_>;

    /// Where the server is, without secrets.
    fn url(&self) -> String;
}

impl<S: OtlpSignal, P: Post<S>> Push<S> for P {
    fn attempt<'a>(self: Arc<Self>, attempt: &'a mut Attempt<S>) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let body = match &attempt.body {
                Some(body) => body.clone(),
                None => Arc::clone(&self).pack(attempt.batch.clone()).await?,
            };
            let body = attempt.body.insert(body).clone();
            attempt.rejected = self.send(body, &attempt.batch.context).await?.min(attempt.batch.items());
            Ok(())
        })
    }

    fn hands_on(&self) -> bool {
        false
    }

    fn reads_context(&self) -> bool {
        Post::reads_context(self)
    }

    fn server(&self) -> ServerName<'_> {
        Post::server(self)
    }

    fn url(&self) -> String {
        Post::url(self)
    }
}

/// What names a server in metrics; empty where it is not known.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ServerName<'a> {
    pub(crate) address: &'a str,
    pub(crate) port: &'a str,
    pub(crate) path: &'a str,
}

/// How each of the signals is sent; nothing for one that is not taken.
#[derive(Clone, Default)]
pub(crate) struct Pushes {
    pub(crate) traces: Option<Arc<dyn Push<Traces>>>,
    pub(crate) metrics: Option<Arc<dyn Push<OtlpMetrics>>>,
    pub(crate) logs: Option<Arc<dyn Push<OtlpLogs>>>,
}

impl Pushes {
    /// The same for every signal.
    pub(crate) fn all<P: Push<Traces> + Push<OtlpMetrics> + Push<OtlpLogs>>(push: &Arc<P>) -> Self {
        Pushes { traces: Some(push.clone()), metrics: Some(push.clone()), logs: Some(push.clone()) }
    }
}

/// Why a request was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Whether it never will be.
    pub(crate) permanent: bool,
    /// How long the server asks to wait.
    pub(crate) after: Option<Duration>,
    /// Why, in the words of the reference.
    pub(crate) text: String,
    /// What kind of failure it is, in metrics.
    pub(crate) kind: &'static str,
    /// Whether the text says already what else is known.
    pub(crate) is_whole: bool,
    /// Why what is not sent is dropped; empty as long as that is not known.
    pub(crate) reason: &'static str,
}

/// The kind of a failure that has none of its own.
pub(crate) const OTHER: &str = "_OTHER";

impl Failure {
    /// One that may pass.
    pub(crate) fn passing(text: impl Into<String>) -> Self {
        Failure { permanent: false, after: None, text: text.into(), kind: OTHER, is_whole: false, reason: "" }
    }

    /// One that will not pass.
    pub(crate) fn permanent(text: impl Into<String>) -> Self {
        Failure { permanent: true, ..Failure::passing(text) }
    }

    /// The failure as a reason for dropping what is not sent, unless there is one already.
    fn because(self, reason: &'static str) -> Self {
        Failure { reason: if self.reason.is_empty() { reason } else { self.reason }, ..self }
    }

    /// What stands before the text in an error.
    fn within(self, words: &str) -> Self {
        Failure { text: format!("{words}: {self}"), is_whole: true, ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.permanent, self.after) {
            _ if self.is_whole => f.write_str(&self.text),
            (true, _) => write!(f, "Permanent error: {}", self.text),
            (false, Some(after)) => {
                let after = corten_config::duration::format(after.as_nanos().try_into().unwrap_or(i64::MAX));
                write!(f, "Throttle ({after}), error: {}", self.text)
            }
            (false, None) => f.write_str(&self.text),
        }
    }
}

impl From<Failure> for ConsumeError {
    fn from(failure: Failure) -> Self {
        match failure.permanent {
            true => ConsumeError::Refused { reason: failure.text },
            false => ConsumeError::Retry { after: failure.after, reason: failure.text },
        }
    }
}

/// What decides how telemetry of a signal is sent.
pub(crate) struct Settings<S: OtlpSignal> {
    push: Arc<dyn Push<S>>,
    queue: QueueArguments,
    retry: RetryArguments,
    metrics: Metrics,
}

impl<S: OtlpSignal> Settings<S> {
    fn new(owner: &Owner, push: Arc<dyn Push<S>>, queue: &QueueArguments, retry: &RetryArguments) -> Self {
        let metrics = Metrics::new::<S>(owner, push.server(), queue.enabled && queue.batch.is_some());
        Settings { push, queue: queue.clone(), retry: retry.clone(), metrics }
    }

    /// What is said behind each failure.
    fn advice(&self) -> String {
        let mut advice = String::new();
        if !self.retry.enabled {
            advice.push_str(" Try enabling retry_on_failure config option to retry on retryable errors.");
        }
        if !self.queue.enabled {
            advice.push_str(" Try enabling sending_queue to survive temporary failures.");
        }
        advice
    }
}

/// Who sends: what names the component in metrics, logs and folders.
#[derive(Clone)]
pub(crate) struct Owner {
    /// The component's name in a configuration, without its beginning: `otlp`.
    kind: &'static str,
    /// The component's id, or what else tells apart what one component sends.
    id: String,
    registry: Registry,
    ledger: Arc<Ledger>,
    logger: Logger,
    queue_bytes_max: Option<u64>,
}

impl Owner {
    /// The component of a context.
    pub(crate) fn of<C: Component>(cx: &Context<C>, kind: &'static str) -> Self {
        Owner {
            kind,
            id: cx.id().to_owned(),
            registry: cx.metrics().clone(),
            ledger: Arc::clone(cx.ledger()),
            logger: cx.logger().clone(),
            queue_bytes_max: cx.services().queue_bytes_max,
        }
    }

    /// A part of the component that sends by itself, to one of several servers. Its metrics are not shown: servers come
    /// and go, and the component counts what it sends itself. Its books are those of the component.
    pub(crate) fn part(&self, name: &str) -> Self {
        Owner { id: format!("{}_{name}", self.id), registry: Registry::new(), ..self.clone() }
    }

    /// What OpenTelemetry calls it.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.kind, self.id)
    }

    pub(crate) fn logger(&self) -> &Logger {
        &self.logger
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }
}

/// The metrics of a signal.
#[derive(Clone)]
pub(crate) struct Metrics {
    sent: Counter,
    failed: Vector<Counter>,
    failed_labels: Vec<String>,
    enqueue_failed: Counter,
    size: Gauge,
    capacity: Gauge,
    in_flight: Gauge,
    /// How many items and bytes requests have, where they are joined.
    joined: Option<(Histogram, Histogram)>,
}

const SIZE_BUCKETS: &[f64] = &[
    10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1000.0, 2000.0, 3000.0, 4000.0, 5000.0, 6000.0, 7000.0, 8000.0,
    9000.0, 10000.0, 20000.0, 30000.0, 50000.0, 100000.0,
];
const BYTES_BUCKETS: &[f64] = &[
    128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0, 65536.0, 131072.0, 262144.0, 524288.0,
    1048576.0, 2097152.0, 4194304.0, 8388608.0, 16777216.0,
];

impl Metrics {
    fn new<S: OtlpSignal>(owner: &Owner, server: ServerName<'_>, joins: bool) -> Self {
        let scoped = ScopedMetrics::named(&owner.registry, SCOPE, owner.name());
        let Names { sent, failed, enqueue_failed } = Names::of::<S>();
        let to = [("server_address", server.address), ("server_port", server.port), ("url_path", server.path)];
        let signal = [("data_type", S::NAME)];
        let mut failed_names = EXPORTER.to_vec();
        failed_names.extend(to.iter().map(|(name, _)| *name));
        failed_names.extend(["error_type", "error_permanent"]);
        let failed_labels = [scoped.id(), SCOPE, "", "", server.address, server.port, server.path];
        Metrics {
            sent: scoped.counter_of(sent.0, sent.1, EXPORTER, &to),
            failed: owner.registry.counters(failed.0, failed.1, &failed_names),
            failed_labels: failed_labels.iter().map(|label| (*label).to_owned()).collect(),
            enqueue_failed: scoped.counter(enqueue_failed.0, enqueue_failed.1, EXPORTER),
            size: scoped.gauge_of(
                "otelcol_exporter_queue_size",
                "Current size of the retry queue (in batches).",
                EXPORTER,
                &signal,
            ),
            capacity: scoped.gauge_of(
                "otelcol_exporter_queue_capacity",
                "Fixed capacity of the retry queue (in batches).",
                EXPORTER,
                &signal,
            ),
            in_flight: scoped.gauge_of(
                "otelcol_exporter_in_flight_requests",
                "Number of export requests currently in-flight (including retry backoff).",
                EXPORTER,
                &signal,
            ),
            joined: joins.then(|| {
                let items = scoped.histogram_of(
                    "otelcol_exporter_queue_batch_send_size",
                    "Number of units in the batch",
                    EXPORTER,
                    &to,
                    SIZE_BUCKETS,
                );
                let bytes = scoped.histogram_of(
                    "otelcol_exporter_queue_batch_send_size_bytes",
                    "Number of bytes in batch that was sent",
                    EXPORTER,
                    &to,
                    BYTES_BUCKETS,
                );
                (items, bytes)
            }),
        }
    }

    fn failed(&self, items: usize, failure: &Failure) {
        let mut labels: Vec<&str> = self.failed_labels.iter().map(String::as_str).collect();
        labels.extend([failure.kind, if failure.permanent { "true" } else { "false" }]);
        self.failed.with(&labels).add(items as u64);
    }
}

/// How full a queue is, and with what.
#[derive(Debug)]
struct Room {
    used: AtomicU64,
    freed: Notify,
    shown: Gauge,
    /// Items that wait, with those that are being sent.
    items: AtomicU64,
    in_flight: AtomicU64,
    bytes: AtomicU64,
    /// When the batches came that are not done with.
    since: Since,
}

impl Room {
    fn new(shown: Gauge) -> Self {
        Room {
            used: AtomicU64::new(0),
            freed: Notify::new(),
            shown,
            items: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            since: Since::default(),
        }
    }

    /// Takes room for so much, if there is as much.
    fn take(&self, size: u64, capacity: u64) -> bool {
        let taken = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
            used.checked_add(size).filter(|used| *used <= capacity)
        });
        self.show();
        taken.is_ok()
    }

    fn free(&self, size: u64) {
        self.used.fetch_sub(size, Ordering::AcqRel);
        self.show();
        self.freed.notify_waiters();
    }

    fn show(&self) {
        self.shown.set(self.used.load(Ordering::Acquire) as f64);
    }
}

/// Sends batches of one signal, whatever queue they come from.
struct Sender<S: OtlpSignal> {
    settings: watch::Receiver<Arc<Settings<S>>>,
    /// Set when the component ends: nothing is tried again.
    ending: watch::Receiver<bool>,
    books: Arc<Books<S>>,
    logger: Logger,
    /// When it was said last that something was rejected, and how much was since.
    rejected: Arc<Mutex<(Option<Instant>, usize)>>,
}

impl<S: OtlpSignal> Clone for Sender<S> {
    fn clone(&self) -> Self {
        Sender {
            settings: self.settings.clone(),
            ending: self.ending.clone(),
            books: Arc::clone(&self.books),
            logger: self.logger.clone(),
            rejected: Arc::clone(&self.rejected),
        }
    }
}

/// How often the log says that telemetry is rejected.
const REJECTED_EVERY: Duration = Duration::from_secs(1);

impl<S: OtlpSignal> Sender<S> {
    fn current(&self) -> Arc<Settings<S>> {
        Arc::clone(&self.settings.borrow())
    }

    /// Sends a batch, again and again as far as it is worth it. No outcome if the component ends and `keeps` says that
    /// somebody keeps the batch beyond that.
    async fn deliver(&self, batch: Batch<S::Record>, keeps: bool) -> Sent {
        let items = batch.items();
        let handed_on = HandedOn::nothing(self.books.row());
        let mut attempt = Attempt { batch, body: None, handed_on, rejected: 0, unroutable: 0 };
        let settings = self.current();
        if let Some((sizes, bytes)) = &settings.metrics.joined {
            sizes.observe(items as f64);
            bytes.observe(attempt.batch.message_len() as f64);
        }
        let metrics = settings.metrics.clone();
        drop(settings);
        metrics.in_flight.add(1.0);
        let in_flight = InFlight(&metrics.in_flight);
        let outcome = self.attempts(&mut attempt, keeps).await;
        drop(in_flight);
        let left = if matches!(outcome, Some(Ok(()))) { 0 } else { attempt.batch.items() };
        metrics.sent.add(items.saturating_sub(left) as u64);
        if let Some(Err(failure)) = &outcome {
            metrics.failed(left, failure);
        }
        let Attempt { handed_on, rejected, unroutable, .. } = attempt;
        Sent { outcome, rejected, unroutable, left, handed_on }
    }

    async fn attempts(&self, attempt: &mut Attempt<S>, keeps: bool) -> Option<Result<(), Failure>> {
        let mut watched = self.settings.clone();
        let mut ending = self.ending.clone();
        let begun = Instant::now();
        let mut settings = Arc::clone(&watched.borrow_and_update());
        let mut waits = settings.retry.waits();
        loop {
            let ends = *ending.borrow_and_update();
            let outcome = Arc::clone(&settings.push).attempt(attempt).await;
            self.books.answered(&outcome, attempt.rejected);
            let Err(failure) = outcome else { return Some(Ok(())) };
            if failure.permanent {
                let failure = failure.because(PERMANENT);
                return Some(Err(match settings.retry.enabled {
                    true => failure.within("not retryable error"),
                    false => failure,
                }));
            }
            if !settings.retry.enabled {
                return Some(Err(failure.because(RETRIES_OFF)));
            }
            if ends {
                let failure = Failure { kind: "Shutdown", ..failure.within("interrupted due to shutdown") };
                return (!keeps).then_some(Err(failure.because(SHUTDOWN)));
            }
            let wait = waits.next(&settings.retry).max(failure.after.unwrap_or_default());
            let elapsed_max = settings.retry.max_elapsed_time;
            if !elapsed_max.is_zero() && begun.elapsed() + wait > elapsed_max {
                return Some(Err(failure.because(RETRIES_OVER).within("no more retries left")));
            }
            let fields = [("error", failure.to_string().into()), ("interval", wait.into())];
            self.logger.info("Exporting failed. Will retry the request after interval.", &fields);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = changed(&mut watched) => {
                    settings = Arc::clone(&watched.borrow_and_update());
                    waits = settings.retry.waits();
                    attempt.body = None;
                }
                _ = ending.wait_for(|ending| *ending) => {
                    if keeps {
                        return None;
                    }
                }
            }
            self.books.retried();
        }
    }

    /// Says that what was queued is lost.
    fn dropped(&self, failure: &Failure, items: usize) {
        let message = format!("Exporting failed. Dropping data.{}", self.current().advice());
        self.logger.error(&message, &[("error", failure.to_string().into()), ("dropped_items", items.into())]);
    }

    /// Says that what somebody sent is not taken.
    fn rejected(&self, failure: &Failure, items: usize) {
        let items = {
            let mut rejected = self.rejected.lock();
            rejected.1 += items;
            if rejected.0.is_some_and(|at| at.elapsed() < REJECTED_EVERY) {
                return;
            }
            rejected.0 = Some(Instant::now());
            std::mem::take(&mut rejected.1)
        };
        let message = format!("Exporting failed. Rejecting data.{}", self.current().advice());
        self.logger.error(&message, &[("error", failure.to_string().into()), ("rejected_items", items.into())]);
    }
}

/// What became of a batch.
struct Sent {
    /// How it ended. `None` if somebody keeps it until the component starts again.
    outcome: Option<Result<(), Failure>>,
    rejected: usize,
    unroutable: usize,
    /// How many items were not taken.
    left: usize,
    handed_on: HandedOn,
}

/// Counts a request as under way until it is dropped.
struct InFlight<'a>(&'a Gauge);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.add(-1.0);
    }
}

/// Why a queue does not take anything.
fn full() -> Failure {
    Failure::passing("sending queue is full")
}

/// What telemetry of one signal goes through.
enum Way<S: OtlpSignal> {
    /// Whoever sends it waits for the outcome.
    Direct,
    Memory(Arc<Memory<S>>),
    Durable(Arc<Durable<S>>),
}

/// What takes telemetry of one signal.
struct Entrance<S: OtlpSignal> {
    sender: Sender<S>,
    way: Way<S>,
}

impl<S: OtlpSignal> Consume<S> for Entrance<S> {
    fn consume(&self, mut batch: S::Batch) -> BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(async move {
            let items = batch.items();
            let mut pass = self.sender.books.row().pass();
            let outcome = match &self.way {
                Way::Direct => {
                    let hands_on = self.sender.current().push.hands_on();
                    let acks = if hands_on { Acks::NONE } else { std::mem::take(&mut batch.acks) };
                    let sent = self.sender.deliver(batch, false).await;
                    match sent.outcome {
                        Some(Err(failure)) => Err(failure),
                        _ => {
                            self.sender.books.passed(items, &sent.dropped(), &mut pass);
                            sent.handed_on.for_good();
                            acks.safe();
                            Ok(())
                        }
                    }
                }
                Way::Memory(memory) => memory.offer(&self.sender, batch, &mut pass).await,
                Way::Durable(durable) => durable.offer(&self.sender, batch).await,
            };
            pass.end(outcome.map_err(|failure| {
                self.sender.rejected(&failure, items);
                failure.into()
            }))
        })
    }
}

/// The queue of a signal at work.
enum Lane<S: OtlpSignal> {
    Memory(MemoryLane<S>),
    Durable(DurableLane<S>),
}

impl<S: OtlpSignal> Lane<S> {
    /// Takes nothing more and ends when all is sent.
    fn leave(&self) {
        match self {
            Lane::Memory(lane) => lane.memory.leave(true),
            Lane::Durable(lane) => lane.durable.leave(true),
        };
        self.task().wake.notify_one();
    }

    /// Goes on, if it has not ended yet. Whether it does.
    fn stay(&self) -> bool {
        match self {
            Lane::Memory(lane) => lane.memory.leave(false),
            Lane::Durable(lane) => lane.durable.leave(false),
        }
    }

    fn task(&self) -> &LaneTask {
        match self {
            Lane::Memory(lane) => &lane.task,
            Lane::Durable(lane) => &lane.task,
        }
    }

    fn has_ended(&self) -> bool {
        self.task().handle.is_finished()
    }

    /// Whether it is the queue in a folder.
    fn is_in(&self, folder: &Path) -> bool {
        matches!(self, Lane::Durable(lane) if lane.durable.folder() == folder)
    }

    /// Does what changed settings mean for it.
    fn adapt(&self, needed: Option<Needed>) {
        match (self, needed) {
            (Lane::Durable(lane), Some(needed)) => lane.durable.set_options(needed.options),
            (Lane::Memory(lane), _) => lane.memory.adapt(),
            (Lane::Durable(_), None) => {}
        }
    }

    async fn drain(self) {
        match self {
            Lane::Memory(lane) => lane.drain().await,
            Lane::Durable(lane) => lane.drain().await,
        }
    }
}

/// The task that sends what a queue holds. It ends with this.
struct LaneTask {
    /// Tells it that nothing more comes.
    wake: Arc<Notify>,
    handle: JoinHandle<()>,
}

impl LaneTask {
    fn start<F: Future<Output = ()> + Send + 'static>(run: impl FnOnce(Arc<Notify>) -> F) -> Self {
        let wake = Arc::new(Notify::new());
        LaneTask { handle: tokio::spawn(run(Arc::clone(&wake))), wake }
    }

    /// Waits until it has ended, for a while.
    async fn ended(&mut self) {
        // What it does not get done in time is given up.
        let _ = tokio::time::timeout(DRAIN_WAIT_MAX, &mut self.handle).await;
    }
}

impl Drop for LaneTask {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

/// Waits for other settings; for ever where there will be none.
async fn changed<T>(watched: &mut watch::Receiver<T>) {
    if watched.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The part of an exporter that is of one signal.
struct Part<S: OtlpSignal> {
    settings: watch::Sender<Arc<Settings<S>>>,
    sender: Sender<S>,
    current: Option<Lane<S>>,
    /// Queues that are not the current one any more, as long as they hold something.
    leaving: Vec<Lane<S>>,
}

/// The queue on disk that some arguments need.
struct Needed {
    folder: PathBuf,
    options: corten_queue::Options,
    /// Nothing if it is open already.
    opened: Option<corten_queue::Queue>,
}

impl<S: OtlpSignal> Part<S> {
    /// Finds or opens the queue on disk that some arguments need.
    async fn needed(current: Option<&Self>, owner: &Owner, queue: &QueueArguments) -> Result<Option<Needed>, Error> {
        let Some(storage) = queue.storage.as_ref().filter(|_| queue.enabled) else { return Ok(None) };
        let storage = Arc::clone(storage.storage()?);
        let client = format!("exporter_{}_{}_{}", owner.kind, owner.id, S::NAME);
        let (folder, options) = durable::place(Arc::clone(&storage), client, owner.queue_bytes_max).await?;
        let lanes = current.into_iter().flat_map(|current| current.current.iter().chain(&current.leaving));
        for lane in lanes {
            // It must not end before it is put in place.
            if lane.is_in(&folder) && lane.stay() {
                return Ok(Some(Needed { folder, options, opened: None }));
            }
        }
        let opened = durable::open(&folder, &options, storage.wait_max()).await?;
        Ok(Some(Needed { folder, options, opened: Some(opened) }))
    }

    fn commit(
        current: Option<Self>,
        owner: &Owner,
        settings: Settings<S>,
        needed: Option<Needed>,
        ending: &watch::Sender<bool>,
    ) -> Self {
        let enabled = settings.queue.enabled;
        let shown = settings.metrics.size.clone();
        settings.metrics.capacity.set(if enabled { settings.queue.capacity() as f64 } else { 0.0 });
        let settings = Arc::new(settings);
        let mut part = match current {
            Some(part) => {
                part.settings.send_replace(settings);
                part
            }
            None => {
                let (settings, watched) = watch::channel(settings);
                let sender = Sender {
                    books: Books::new(owner, watched.clone()),
                    settings: watched,
                    ending: ending.subscribe(),
                    logger: owner.logger.clone(),
                    rejected: Arc::default(),
                };
                Part { settings, sender, current: None, leaving: Vec::new() }
            }
        };
        part.leaving.extend(part.current.take());
        part.leaving.retain(|lane| !lane.has_ended());
        part.current = enabled.then(|| part.lane(needed, shown));
        part.leaving.iter().for_each(Lane::leave);
        part
    }

    /// The queue to be used from now on: one that there is already, or a new one.
    fn lane(&mut self, needed: Option<Needed>, shown: Gauge) -> Lane<S> {
        let known = self.leaving.iter().position(|lane| {
            let fits = match &needed {
                Some(needed) => lane.is_in(&needed.folder),
                None => matches!(lane, Lane::Memory(_)),
            };
            fits && lane.stay()
        });
        if let Some(known) = known {
            let lane = self.leaving.remove(known);
            lane.adapt(needed);
            return lane;
        }
        match needed.and_then(|needed| Some((needed.folder, needed.options, needed.opened?))) {
            Some((folder, options, queue)) => {
                Lane::Durable(DurableLane::start((folder, &options), queue, self.sender.clone(), shown))
            }
            None => Lane::Memory(MemoryLane::start(self.sender.clone(), shown)),
        }
    }

    fn stage(&self) -> Arc<dyn Consume<S>> {
        let way = match &self.current {
            None => Way::Direct,
            Some(Lane::Memory(lane)) => Way::Memory(Arc::clone(&lane.memory)),
            Some(Lane::Durable(lane)) => Way::Durable(Arc::clone(&lane.durable)),
        };
        Arc::new(Entrance { sender: self.sender.clone(), way })
    }

    async fn drain(self) {
        // The settings are there until the last lane has ended.
        let Part { settings: _settings, current, leaving, .. } = self;
        let mut lanes: JoinSet<()> = current.into_iter().chain(leaving).map(Lane::drain).collect();
        while lanes.join_next().await.is_some() {}
    }
}

/// An exporter at work, but for how it sends: to be held by a component, or by one that has several exporters.
pub(crate) struct Sending {
    traces: Option<Part<Traces>>,
    metrics: Option<Part<OtlpMetrics>>,
    logs: Option<Part<OtlpLogs>>,
    ending: watch::Sender<bool>,
}

/// What is to be put in place.
pub(crate) struct PreparedSending {
    owner: Owner,
    pushes: Pushes,
    queue: QueueArguments,
    retry: RetryArguments,
    traces: Option<Needed>,
    metrics: Option<Needed>,
    logs: Option<Needed>,
}

impl Sending {
    /// Does what can fail: opens queues on disk. Changes nothing of what runs.
    ///
    /// # Errors
    ///
    /// Why a queue cannot be opened, or that `storage` is no storage.
    pub(crate) async fn prepare(
        owner: Owner,
        pushes: Pushes,
        queue: &QueueArguments,
        retry: &RetryArguments,
        current: Option<&Sending>,
    ) -> Result<PreparedSending, Error> {
        let of = |part: bool| part.then_some(queue);
        let traces = match of(pushes.traces.is_some()) {
            Some(queue) => Part::needed(current.and_then(|current| current.traces.as_ref()), &owner, queue).await?,
            None => None,
        };
        let metrics = match of(pushes.metrics.is_some()) {
            Some(queue) => Part::needed(current.and_then(|current| current.metrics.as_ref()), &owner, queue).await?,
            None => None,
        };
        let logs = match of(pushes.logs.is_some()) {
            Some(queue) => Part::needed(current.and_then(|current| current.logs.as_ref()), &owner, queue).await?,
            None => None,
        };
        Ok(PreparedSending { owner, pushes, queue: queue.clone(), retry: retry.clone(), traces, metrics, logs })
    }

    /// Puts in place what was prepared. What waits is sent with the new arguments; a queue that is not used any more is
    /// sent until it is empty.
    pub(crate) fn commit(current: Option<Self>, prepared: PreparedSending) -> Self {
        let PreparedSending { owner, pushes, queue, retry, traces, metrics, logs } = prepared;
        let Sending { traces: old_traces, metrics: old_metrics, logs: old_logs, ending } = current
            .unwrap_or_else(|| Sending { traces: None, metrics: None, logs: None, ending: watch::Sender::new(false) });
        let traces = pushes
            .traces
            .map(|push| Part::commit(old_traces, &owner, Settings::new(&owner, push, &queue, &retry), traces, &ending));
        let metrics = pushes.metrics.map(|push| {
            Part::commit(old_metrics, &owner, Settings::new(&owner, push, &queue, &retry), metrics, &ending)
        });
        let logs = pushes
            .logs
            .map(|push| Part::commit(old_logs, &owner, Settings::new(&owner, push, &queue, &retry), logs, &ending));
        Sending { traces, metrics, logs, ending }
    }

    /// What takes telemetry; nothing for a signal that is not sent.
    pub(crate) fn stages(&self) -> Stages {
        Stages {
            traces: self.traces.as_ref().map(Part::stage),
            metrics: self.metrics.as_ref().map(Part::stage),
            logs: self.logs.as_ref().map(Part::stage),
        }
    }

    /// The books of the servers, signal by signal.
    pub(crate) fn ends(&self) -> Vec<Weak<dyn End>> {
        fn end<S: OtlpSignal>(part: &Part<S>) -> Weak<dyn End> {
            let books: Arc<dyn End> = Arc::clone(&part.sender.books) as Arc<dyn End>;
            Arc::downgrade(&books)
        }
        let parts = [self.traces.as_ref().map(end), self.metrics.as_ref().map(end), self.logs.as_ref().map(end)];
        parts.into_iter().flatten().collect()
    }

    /// Tells of the servers where somebody asks for the inner state of the component.
    pub(crate) fn show<C: Component>(&self, cx: &Context<C>) {
        let shown = Arc::new(ShownEnds::default());
        shown.set(self.ends());
        cx.show_debug_info(shown);
    }

    /// Ends: what waits in memory is sent, once and for a while; what waits on disk stays there. Nothing may be sent to the
    /// stages any more.
    pub(crate) async fn drain(self) {
        self.ending.send_replace(true);
        let Sending { traces, metrics, logs, ending: _ending } = self;
        let traces = async {
            if let Some(part) = traces {
                part.drain().await;
            }
        };
        let metrics = async {
            if let Some(part) = metrics {
                part.drain().await;
            }
        };
        let logs = async {
            if let Some(part) = logs {
                part.drain().await;
            }
        };
        tokio::join!(traces, metrics, logs);
    }
}

#[cfg(test)]
mod tests;
