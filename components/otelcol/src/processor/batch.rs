//! `otelcol.processor.batch`.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use corten_component::log::Level;
use corten_component::metrics::{Counter, Gauge, Histogram};
use corten_component::{Component, Context, Error};
use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_otlp::{Batch, Consumer, Metadata, OtlpSignal, RequestContext};
use corten_signal::flow::BoxFuture;
use corten_signal::ledger::{Ledger, Row};
use corten_signal::{Consume, ConsumeError, Fanout};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::flow::{DebugMetrics, Inlets, Input, MakeStage, Output, Stages};
use crate::metrics::{PROCESSOR, ScopedMetrics};
use crate::resend::{Patience, Resend, SHUTDOWN, Unsent, ended};
use crate::shown::show_held;

/// Joins spans, data points and log records to larger batches, so that what follows has fewer and larger requests to make.
///
/// A batch is sent when it has `send_batch_size` items or when it is as old as `timeout`, whichever comes first.
///
/// Whoever sends to the component is told that it took the data as soon as they wait here. Sources that keep what they
/// sent until it is safe keep it until the batch got on.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct BatchArguments {
    /// How long data waits for a batch to become full, at most. With 0 nothing waits, and only `send_batch_max_size` counts.
    #[arg(default = "200ms")]
    timeout: Duration,
    /// How many spans, data points or log records make a batch that is sent at once. With 0 nothing waits.
    #[arg(default = 2000)]
    send_batch_size: u32,
    /// How many spans, data points or log records a batch has at most; 0 sets no limit.
    #[arg(default = 3000)]
    send_batch_max_size: u32,
    /// Names of headers: requests that differ in their values do not get into the same batch, and batches keep them. The
    /// receiver has to be told to keep headers, with `include_metadata`.
    #[arg(optional)]
    metadata_keys: Vec<String>,
    /// How many different combinations of the values of those headers there may be.
    #[arg(default = 1000)]
    metadata_cardinality_limit: u32,
    /// Where to send batches.
    #[block]
    output: Output,
    /// Which metrics of its own the component has.
    #[block(optional)]
    debug_metrics: DebugMetrics,
}

impl BatchArguments {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        errors.require(
            self.send_batch_max_size == 0 || self.send_batch_max_size >= self.send_batch_size,
            &["send_batch_max_size"],
            "send_batch_max_size must be greater or equal to send_batch_size when not 0",
        );
        let mut seen: Vec<String> = Vec::new();
        for key in &self.metadata_keys {
            let lower = key.to_ascii_lowercase();
            if seen.contains(&lower) {
                errors
                    .push(&["metadata_keys"], format!("duplicate entry in metadata_keys: {key:?} (case-insensitive)"));
            }
            seen.push(lower);
        }
        errors.into_result()
    }
}

/// The component.
pub struct BatchProcessor {
    inlets: Arc<Inlets>,
    /// Where workers send to: where the arguments say now, whatever they said when a worker began.
    exits: Arc<Inlets>,
    /// Closed when the last worker has ended, with those of arguments before.
    workers: mpsc::Receiver<()>,
    /// Tells workers to give up what is not taken.
    ending: watch::Sender<bool>,
}

/// What is to be put in place.
pub struct Prepared {
    inlets: Arc<Inlets>,
    arguments: BatchArguments,
}

impl Component for BatchProcessor {
    const NAME: &'static str = "otelcol.processor.batch";
    type Arguments = BatchArguments;
    type Exports = Input;
    type Prepared = Prepared;

    async fn prepare(
        arguments: BatchArguments,
        cx: &Context<Self>,
        current: Option<&Self>,
    ) -> Result<(Prepared, Input), Error> {
        let inlets = current.map_or_else(|| Inlets::of(cx.ledger()), |current| Arc::clone(&current.inlets));
        let exports = inlets.exports();
        Ok((Prepared { inlets, arguments }, exports))
    }

    fn commit(current: Option<Self>, prepared: Prepared, cx: &Context<Self>) -> Self {
        let Prepared { inlets, arguments } = prepared;
        let exits = current.as_ref().map_or_else(|| Inlets::new(cx.id()), |current| Arc::clone(&current.exits));
        let Stages { traces, metrics, logs } = arguments.output.stages(cx, &Through);
        // What workers still have of a signal that goes nowhere any more is not kept for ever.
        exits.attach(Stages {
            traces: traces.or(Some(Arc::new(Nowhere))),
            metrics: metrics.or(Some(Arc::new(Nowhere))),
            logs: logs.or(Some(Arc::new(Nowhere))),
        });
        if current.is_none() {
            show_held(cx);
        }
        let ending = current.as_ref().map_or_else(|| watch::Sender::new(false), |current| current.ending.clone());
        let scoped = ScopedMetrics::new(cx, "go.opentelemetry.io/collector/processor/batchprocessor", "batch");
        let (worker, workers) = mpsc::channel(1);
        let before = current.map(|current| Arc::new(tokio::sync::Mutex::new(current.workers)));
        if let Some(before) = before.clone() {
            // These do not end before those, even if none ever begins.
            let worker = worker.clone();
            tokio::spawn(async move {
                let _ = before.lock().await.recv().await;
                drop(worker);
            });
        }
        let make = Make {
            settings: Settings {
                wait: (arguments.send_batch_size > 0 && !arguments.timeout.is_zero()).then_some(arguments.timeout),
                size: arguments.send_batch_size as usize,
                size_max: match arguments.send_batch_max_size {
                    0 => usize::MAX,
                    size => size as usize,
                },
                keys: arguments.metadata_keys.iter().map(|key| key.to_ascii_lowercase()).collect(),
                combinations_max: arguments.metadata_cardinality_limit as usize,
                ending: ending.subscribe(),
                before,
            },
            metrics: Metrics::new(&scoped),
            resend: Resend::new(cx.logger().clone(), Level::Warn, "Sender failed"),
            to: exits.exports().input,
            ledger: Arc::clone(cx.ledger()),
            worker,
        };
        inlets.attach(arguments.output.stages(cx, &make));
        BatchProcessor { inlets, exits, workers, ending }
    }

    async fn drain(mut self, _: &Context<Self>) {
        self.inlets.close();
        // Nothing is ever sent: the channel ends with the last worker, after it has sent what it had.
        if tokio::time::timeout(DRAIN_WAIT_MAX, self.workers.recv()).await.is_err() {
            // What is still not taken would hold up the reload or the stop for ever.
            self.exits.close();
            self.ending.send_replace(true);
            let _ = self.workers.recv().await;
        }
    }
}

#[derive(Clone)]
struct Settings {
    /// How long data waits; `None` if it does not.
    wait: Option<Duration>,
    size: usize,
    size_max: usize,
    keys: Vec<String>,
    combinations_max: usize,
    /// Set when what is not taken is given up.
    ending: watch::Receiver<bool>,
    /// The workers of the settings before, which send what they have before anything newer is sent.
    before: Option<Arc<tokio::sync::Mutex<mpsc::Receiver<()>>>>,
}

#[derive(Clone, Debug)]
struct Metrics {
    sizes: Histogram,
    bytes: Histogram,
    by_size: Counter,
    by_timeout: Counter,
    combinations: Gauge,
}

const SIZE_BUCKETS: &[f64] = &[
    10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1000.0, 2000.0, 3000.0, 4000.0, 5000.0, 6000.0, 7000.0, 8000.0,
    9000.0, 10000.0, 20000.0, 30000.0, 50000.0, 100000.0,
];
const BYTES_BUCKETS: &[f64] = &[
    10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1000.0, 2000.0, 3000.0, 4000.0, 5000.0, 6000.0, 7000.0, 8000.0,
    9000.0, 10000.0, 20000.0, 30000.0, 50000.0, 100000.0, 200000.0, 300000.0, 400000.0, 500000.0, 600000.0, 700000.0,
    800000.0, 900000.0, 1e6, 2e6, 3e6, 4e6, 5e6, 6e6, 7e6, 8e6, 9e6,
];

impl Metrics {
    fn new(scoped: &ScopedMetrics<'_>) -> Self {
        Metrics {
            sizes: scoped.histogram(
                "otelcol_processor_batch_batch_send_size",
                "Number of units in the batch",
                PROCESSOR,
                SIZE_BUCKETS,
            ),
            bytes: scoped.histogram(
                "otelcol_processor_batch_batch_send_size_bytes",
                "Number of bytes in batch that was sent",
                PROCESSOR,
                BYTES_BUCKETS,
            ),
            by_size: scoped.counter(
                "otelcol_processor_batch_batch_size_trigger_send_total",
                "Number of times the batch was sent due to a size trigger",
                PROCESSOR,
            ),
            by_timeout: scoped.counter(
                "otelcol_processor_batch_timeout_trigger_send_total",
                "Number of times the batch was sent due to a timeout trigger",
                PROCESSOR,
            ),
            combinations: scoped.gauge(
                "otelcol_processor_batch_metadata_cardinality",
                "Number of distinct metadata value combinations being processed",
                PROCESSOR,
            ),
        }
    }
}

/// Hands batches on to where the arguments say.
struct Through;

impl MakeStage for Through {
    fn stage<S: OtlpSignal>(&self, forward: Fanout<S>) -> Arc<dyn Consume<S>> {
        Arc::new(Exit(forward))
    }
}

struct Exit<S: OtlpSignal>(Fanout<S>);

impl<S: OtlpSignal> Consume<S> for Exit<S> {
    fn consume(&self, batch: S::Batch) -> BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(self.0.consume(batch))
    }
}

struct Nowhere;

impl<S: OtlpSignal> Consume<S> for Nowhere {
    fn consume(&self, _: S::Batch) -> BoxFuture<'_, Result<(), ConsumeError>> {
        let refused = ConsumeError::Refused { reason: "telemetry type is not supported".to_owned() };
        Box::pin(std::future::ready(Err(refused)))
    }
}

struct Make {
    settings: Settings,
    metrics: Metrics,
    resend: Resend,
    to: Consumer,
    ledger: Arc<Ledger>,
    worker: mpsc::Sender<()>,
}

impl MakeStage for Make {
    fn stage<S: OtlpSignal>(&self, _: Fanout<S>) -> Arc<dyn Consume<S>> {
        Arc::new(Stage {
            settings: self.settings.clone(),
            metrics: self.metrics.clone(),
            resend: self.resend.clone(),
            forward: Fanout::new([S::of(&self.to).clone()]),
            row: Arc::clone(self.ledger.row_of::<S>()),
            worker: self.worker.clone(),
            shards: Mutex::default(),
        })
    }
}

/// A signal's part of the component.
struct Stage<S: OtlpSignal> {
    settings: Settings,
    metrics: Metrics,
    resend: Resend,
    forward: Fanout<S>,
    row: Arc<Row>,
    worker: mpsc::Sender<()>,
    /// By the values of the headers of `metadata_keys`.
    shards: Mutex<HashMap<Metadata, mpsc::Sender<S::Batch>>>,
}

impl<S: OtlpSignal> Consume<S> for Stage<S> {
    fn consume(&self, batch: S::Batch) -> BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(async move {
            let shard = self.shard(&batch.context)?;
            // Only time or further data make it go on: nobody is to wait for that.
            batch.acks.hold();
            let items = batch.items();
            let sent = shard.send(batch).await.map_err(|_| ConsumeError::Retry {
                after: None,
                reason: "the batches cannot be sent any more".to_owned(),
            });
            if sent.is_ok() {
                self.row.held(items as i64);
            }
            sent
        })
    }
}

impl<S: OtlpSignal> Stage<S> {
    /// The worker that a request's data go to.
    fn shard(&self, context: &RequestContext) -> Result<mpsc::Sender<S::Batch>, ConsumeError> {
        let metadata = context.metadata.only(&self.settings.keys);
        let mut shards = self.shards.lock();
        // One whose worker is gone is made anew: a batch that made it panic must not end the others.
        if let Some(shard) = shards.get(&metadata).filter(|shard| !shard.is_closed()) {
            return Ok(shard.clone());
        }
        shards.remove(&metadata);
        if shards.len() >= self.settings.combinations_max.max(1) && !self.settings.keys.is_empty() {
            return Err(ConsumeError::Retry {
                after: None,
                reason: "too many batcher metadata-value combinations".to_owned(),
            });
        }
        let slots = available_parallelism().map_or(1, std::num::NonZero::get);
        let (shard, arriving) = mpsc::channel(slots);
        let worker = Worker::<S> {
            arriving,
            pending: Batch::empty(Arc::new(RequestContext { metadata: metadata.clone(), ..RequestContext::default() })),
            settings: self.settings.clone(),
            metrics: self.metrics.clone(),
            resend: self.resend.clone(),
            forward: self.forward.clone(),
            row: Arc::clone(&self.row),
            held: 0,
            deadline: None,
        };
        let alive = self.worker.clone();
        tokio::spawn(async move {
            worker.run().await;
            drop(alive);
        });
        shards.insert(metadata, shard.clone());
        self.metrics.combinations.set(shards.len() as f64);
        Ok(shard)
    }
}

/// Joins batches and sends them on.
struct Worker<S: OtlpSignal> {
    arriving: mpsc::Receiver<S::Batch>,
    pending: Batch<S::Record>,
    settings: Settings,
    metrics: Metrics,
    resend: Resend,
    forward: Fanout<S>,
    row: Arc<Row>,
    /// How many items it has, with those that are on their way.
    held: usize,
    /// When what is pending is sent.
    deadline: Option<Instant>,
}

/// How long a component that ends waits until what it has is taken.
const DRAIN_WAIT_MAX: Duration = Duration::from_secs(10);

impl<S: OtlpSignal> Worker<S> {
    async fn run(mut self) {
        if let Some(before) = self.settings.before.take() {
            let _ = before.lock().await.recv().await;
        }
        loop {
            let arrived = match self.deadline {
                None => self.arriving.recv().await,
                Some(deadline) => match tokio::time::timeout_at(deadline, self.arriving.recv()).await {
                    Ok(arrived) => arrived,
                    Err(_) => {
                        self.send(false).await;
                        self.deadline = self.next_deadline();
                        continue;
                    }
                },
            };
            let Some(batch) = arrived else { break };
            self.held += batch.items();
            self.pending.join(batch);
            let mut sent = false;
            while self.pending.items() > 0
                && (self.settings.wait.is_none() || self.pending.items() >= self.settings.size)
            {
                self.send(true).await;
                sent = true;
            }
            if self.settings.wait.is_none() {
                // What has no items, such as a resource by itself, waits for nothing either.
                self.pending.take_front(usize::MAX).acks.safe();
            }
            if sent || self.deadline.is_none() {
                self.deadline = self.next_deadline();
            }
        }
        while !self.pending.is_empty() {
            self.send(false).await;
        }
    }

    /// When what is pending now has waited long enough.
    fn next_deadline(&self) -> Option<Instant> {
        self.settings.wait.filter(|_| !self.pending.is_empty()).map(|wait| Instant::now() + wait)
    }

    /// Sends one batch.
    async fn send(&mut self, by_size: bool) {
        let batch = self.pending.take_front(self.settings.size_max);
        if batch.items() == 0 {
            // A resource without anything is nothing.
            batch.acks.safe();
            return;
        }
        let counter = if by_size { &self.metrics.by_size } else { &self.metrics.by_timeout };
        counter.inc();
        self.metrics.sizes.observe(batch.items() as f64);
        self.metrics.bytes.observe(batch.message_len() as f64);
        let items = batch.items();
        let outcome = {
            let stop = std::pin::pin!(ended(&mut self.settings.ending));
            let patience = Patience { until: None, stop: Some((stop, Duration::ZERO)) };
            self.resend.send(&self.row, &self.forward, batch, patience).await
        };
        if let Err(Unsent { batch, why }) = outcome {
            // At the end the way out is closed, too.
            let why = if *self.settings.ending.borrow() { SHUTDOWN } else { why };
            self.row.dropped(why, items);
            // Whoever keeps what it sent until it is safe sends it again.
            batch.acks.fail();
        }
        self.row.held(-(items as i64));
        self.held -= items;
    }
}

impl<S: OtlpSignal> Drop for Worker<S> {
    /// Counts what a worker still has that panicked.
    fn drop(&mut self) {
        self.arriving.close();
        while let Ok(batch) = self.arriving.try_recv() {
            self.held += batch.items();
        }
        self.row.dropped("failed", self.held);
        self.row.held(-(self.held as i64));
    }
}

#[cfg(test)]
mod tests {
    use corten_component::Definition;
    use corten_otlp::{LogRecord, OtlpLogs, Span, Traces};
    use corten_signal::acks::{Answer, Settle, Settled, waiter};
    use corten_signal::{Acks, Receiver};
    use corten_testkit::{OtlpSink, Unit, host, otlp, stays, until};

    use super::*;

    fn balance(unit: &Unit) -> String {
        unit.world.balance_of(corten_signal::Kind::OtelLog)
    }

    async fn start(sink: &OtlpSink, body: &str) -> Unit {
        let definition = Definition::of::<BatchProcessor>();
        let body = with_output(body);
        Unit::start_with(host("otelcol.processor.batch.a"), &definition, &body, &[("sink", sink.value())])
            .await
            .unwrap()
    }

    fn with_output(body: &str) -> String {
        format!("{body}\noutput {{\n logs = [sink]\n}}")
    }

    fn logs(bodies: std::ops::Range<usize>) -> Batch<LogRecord> {
        let records: Vec<_> = bodies.map(|n| format!(r#"{{"body":{{"stringValue":"{n}"}}}}"#)).collect();
        otlp(&format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{}]}}]}}]}}"#, records.join(",")))
    }

    fn entrance(unit: &Unit) -> Receiver<OtlpLogs> {
        unit.world.consumer("input").logs
    }

    fn metric(unit: &Unit, name: &str) -> Option<f64> {
        let labels = [
            ("processor", "batch/otelcol.processor.batch.a"),
            ("otel_scope_name", "go.opentelemetry.io/collector/processor/batchprocessor"),
            ("otel_scope_version", ""),
            ("otel_scope_schema_url", ""),
        ];
        unit.world.metrics().get(name, &labels)
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_is_sent_when_it_is_full_and_has_no_more_than_it_may() {
        let sink = OtlpSink::default();
        let unit = start(&sink, "timeout = \"1h\"\nsend_batch_size = 10\nsend_batch_max_size = 12").await;
        let to = entrance(&unit);
        to.consume(logs(0..9)).await.unwrap();
        stays("nothing is sent", Duration::from_secs(1), || sink.items() == 0).await;
        assert_eq!(balance(&unit), "taken 9, held 9");
        assert!(
            crate::testing::told(&unit.world)
                .ends_with(&["pending.signal = \"logs\"".into(), "pending.items = 9".into()])
        );
        to.consume(logs(9..34)).await.unwrap();
        until("the full ones are sent", || sink.sizes() == [12, 12, 10]).await;
        to.consume(logs(34..35)).await.unwrap();
        let mut unit = unit;
        unit.drain().await;
        assert_eq!(sink.sizes(), [12, 12, 10, 1]);
        let all: String = sink.batches().iter().map(|batch| batch.json.clone()).collect();
        let bodies: Vec<usize> = all
            .split("stringValue\":\"")
            .skip(1)
            .map(|rest| rest[..rest.find('"').unwrap()].parse().unwrap())
            .collect();
        assert_eq!(bodies, (0..35).collect::<Vec<_>>());
        assert_eq!(metric(&unit, "otelcol_processor_batch_batch_size_trigger_send_total"), Some(3.0));
        assert_eq!(metric(&unit, "otelcol_processor_batch_timeout_trigger_send_total"), Some(1.0));
        let text = unit.world.metrics().text();
        let sizes = text
            .lines()
            .filter(|line| line.starts_with("otelcol_processor_batch_batch_send_size_") && !line.contains("bytes"));
        let sizes: Vec<&str> =
            sizes.filter(|line| !line.contains("_bucket")).filter_map(|line| line.rsplit(' ').next()).collect();
        assert_eq!(sizes, ["35", "4"], "{text}");
        assert_eq!(metric(&unit, "otelcol_processor_batch_metadata_cardinality"), Some(1.0));
        assert_eq!(balance(&unit), "taken 35, out 35");
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_is_not_full_is_sent_in_time() {
        let sink = OtlpSink::default();
        let unit = start(&sink, "timeout = \"10s\"").await;
        let began = Instant::now();
        entrance(&unit).consume(logs(0..3)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(6)).await;
        entrance(&unit).consume(logs(3..4)).await.unwrap();
        until("it is sent", || sink.sizes() == [4]).await;
        assert!((10..11).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_wait_everything_goes_on_at_once() {
        for body in ["timeout = \"0s\"\nsend_batch_max_size = 0", "send_batch_size = 0\nsend_batch_max_size = 0"] {
            let sink = OtlpSink::default();
            let unit = start(&sink, body).await;
            entrance(&unit).consume(logs(0..7)).await.unwrap();
            until("it is sent", || sink.sizes() == [7]).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_no_items_is_safe_and_not_kept() {
        for body in ["timeout = \"0s\"", "timeout = \"1s\""] {
            let sink = OtlpSink::default();
            let unit = start(&sink, body).await;
            let (settled, acks) = noted();
            let mut batch = otlp::<LogRecord>(r#"{"resourceLogs":[{"schemaUrl":"x"}]}"#);
            batch.acks = acks;
            entrance(&unit).consume(batch).await.unwrap();
            until("it is safe", || *settled.0.lock() == [Settled::Safe]).await;
            assert!(sink.sizes().is_empty());
        }
    }

    #[derive(Default)]
    struct Notes(Mutex<Vec<Settled>>);

    impl Settle for Notes {
        fn settled(&self, _: u64, how: Settled) {
            self.0.lock().push(how);
        }
    }

    fn noted() -> (Arc<Notes>, Acks) {
        let notes = Arc::new(Notes::default());
        (Arc::clone(&notes), Acks::new(0, notes))
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_is_told_at_once_and_who_waits_for_safety_when_it_got_on() {
        let sink = OtlpSink::default();
        let unit = start(&sink, "").await;
        sink.keep_acks();
        let (acks, mut told) = waiter();
        let mut batch = logs(0..3);
        batch.acks = acks;
        entrance(&unit).consume(batch).await.unwrap();
        assert_eq!(told.wait(Duration::from_millis(1)).await, Answer::Held);
        until("it is sent", || sink.sizes() == [3]).await;
        let (settled, acks) = noted();
        let mut batch = logs(3..4);
        batch.acks = acks;
        entrance(&unit).consume(batch).await.unwrap();
        until("it is sent, too", || sink.sizes() == [3, 1]).await;
        assert!(settled.0.lock().is_empty());
        sink.settle(true);
        until("it is safe", || *settled.0.lock() == [Settled::Safe]).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_for_now_is_sent_again_and_what_is_refused_for_good_is_dropped() {
        let sink = OtlpSink::default();
        let unit = start(&sink, "").await;
        sink.answer_with(Some(ConsumeError::Retry { after: None, reason: "busy".into() }));
        entrance(&unit).consume(logs(0..3)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        sink.answer_with(None);
        until("it is sent", || sink.sizes() == [3]).await;
        sink.answer_with(Some(ConsumeError::Refused { reason: "never".into() }));
        entrance(&unit).consume(logs(3..5)).await.unwrap();
        until("it is dropped", || unit.world.logs().contains("Sender failed")).await;
        assert!(unit.world.logs().contains("dropped_items=2"), "{}", unit.world.logs());
        sink.answer_with(None);
        entrance(&unit).consume(logs(5..6)).await.unwrap();
        until("the next is sent", || sink.sizes() == [3, 1]).await;
        tokio::task::yield_now().await;
        assert_eq!(balance(&unit), "taken 6, out 4, dropped {refused: 2}");
    }

    #[tokio::test(start_paused = true)]
    async fn requests_of_different_tenants_do_not_mix() {
        let sink = OtlpSink::default();
        let unit = start(&sink, "metadata_keys = [\"X-Tenant\"]\nmetadata_cardinality_limit = 2").await;
        let of = |tenant: &str, other: &str| {
            let mut metadata = Metadata::default();
            metadata.add("x-tenant", tenant);
            metadata.add("other", other);
            let mut batch = logs(0..1);
            batch.context = Arc::new(RequestContext { metadata, ..RequestContext::default() });
            batch
        };
        for (tenant, other) in [("a", "1"), ("b", "2"), ("a", "3")] {
            entrance(&unit).consume(of(tenant, other)).await.unwrap();
        }
        let error = entrance(&unit).consume(of("c", "1")).await.unwrap_err();
        assert_eq!(error.to_string(), "too many batcher metadata-value combinations");
        until("they are sent", || sink.items() == 3).await;
        tokio::task::yield_now().await;
        assert_eq!(balance(&unit), "taken 3, out 3");
        let mut seen: Vec<_> = sink.batches().into_iter().map(|batch| (batch.metadata, batch.items)).collect();
        seen.sort();
        assert_eq!(seen, [(vec!["x-tenant=a".to_owned()], 2), (vec!["x-tenant=b".to_owned()], 1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_signal_without_an_output_is_not_taken() {
        let sink = OtlpSink::default();
        let unit = start(&sink, "").await;
        let spans = otlp::<Span>(r#"{"resourceSpans":[]}"#);
        let to: Receiver<Traces> = unit.world.consumer("input").traces;
        assert_eq!(to.consume(spans).await.unwrap_err().to_string(), "telemetry type is not supported");
    }

    #[tokio::test(start_paused = true)]
    async fn other_arguments_lose_nothing_and_keep_the_order() {
        let sink = OtlpSink::default();
        let mut unit = start(&sink, "timeout = \"1h\"").await;
        let to = entrance(&unit);
        to.consume(logs(0..3)).await.unwrap();
        sink.answer_with(Some(ConsumeError::Retry { after: None, reason: "busy".into() }));
        unit.update(&with_output("timeout = \"1s\"")).await.unwrap();
        to.consume(logs(3..4)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(30)).await;
        sink.answer_with(None);
        until("both are sent", || sink.sizes() == [3, 1]).await;
        tokio::task::yield_now().await;
        assert_eq!(balance(&unit), "taken 4, out 4");
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_goes_where_changed_arguments_say() {
        let (dead, alive) = (OtlpSink::default(), OtlpSink::default());
        let definition = Definition::of::<BatchProcessor>();
        let to = |signal: &str, sink: &str| format!("output {{\n {signal} = [{sink}]\n}}");
        let names = [("dead", dead.value()), ("alive", alive.value())];
        let host = host("otelcol.processor.batch.a");
        let mut unit = Unit::start_with(host, &definition, &to("logs", "dead"), &names).await.unwrap();
        dead.answer_with(Some(ConsumeError::Retry { after: None, reason: "busy".into() }));
        entrance(&unit).consume(logs(0..3)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(unit.world.logs().contains("level=warn msg=\"the batch was not taken\""), "{}", unit.world.logs());
        unit.update(&to("logs", "alive")).await.unwrap();
        entrance(&unit).consume(logs(3..4)).await.unwrap();
        until("both are sent", || alive.sizes() == [3, 1]).await;
        unit.update(&to("logs", "dead")).await.unwrap();
        entrance(&unit).consume(logs(4..6)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(30)).await;
        unit.update(&to("traces", "alive")).await.unwrap();
        until("what goes nowhere is dropped", || unit.world.logs().contains("dropped_items=2")).await;
        let spans = otlp::<Span>(r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"a"}]}]}]}"#);
        unit.world.consumer("input").traces.consume(spans).await.unwrap();
        until("other signals go on", || alive.sizes() == [3, 1, 1]).await;
        tokio::task::yield_now().await;
        assert_eq!(balance(&unit), "taken 6, out 4, dropped {refused: 2}");
        assert_eq!(unit.world.balance_of(corten_signal::Kind::OtelTrace), "taken 1, out 1");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_never_taken_does_not_hold_up_the_end() {
        let sink = OtlpSink::default();
        let mut unit = start(&sink, "").await;
        sink.answer_with(Some(ConsumeError::Retry { after: Some(Duration::from_secs(86_400)), reason: "busy".into() }));
        let (settled, acks) = noted();
        let mut batch = logs(0..3);
        batch.acks = acks;
        entrance(&unit).consume(batch).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let began = Instant::now();
        unit.drain().await;
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        assert!(unit.world.logs().contains("Sender failed"), "{}", unit.world.logs());
        assert_eq!(*settled.0.lock(), [Settled::Failed]);
        assert_eq!(balance(&unit), "taken 3, dropped {shutdown: 3}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_since_before_a_change_is_sent_before_the_end() {
        let sink = OtlpSink::default();
        let mut unit = start(&sink, "timeout = \"1h\"").await;
        entrance(&unit).consume(logs(0..3)).await.unwrap();
        sink.answer_with(Some(ConsumeError::Retry { after: None, reason: "busy".into() }));
        for timeout in ["1m", "2m"] {
            unit.update(&with_output(&format!("timeout = \"{timeout}\""))).await.unwrap();
        }
        tokio::join!(unit.drain(), async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            sink.answer_with(None);
        });
        assert_eq!((sink.sizes(), &*balance(&unit)), (vec![3], "taken 3, out 3"));
    }

    /// Panics with the first batch.
    struct Panics(std::sync::atomic::AtomicBool);

    impl Consume<OtlpLogs> for Panics {
        fn consume(&self, _: Batch<LogRecord>) -> BoxFuture<'_, Result<(), ConsumeError>> {
            let first = !self.0.swap(true, std::sync::atomic::Ordering::Relaxed);
            assert!(!first, "a batch that cannot be borne");
            Box::pin(std::future::ready(Ok(())))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_panic_costs_is_counted() {
        let inlet = corten_signal::Inlet::<OtlpLogs>::new("otelcol.test.panics");
        inlet.attach(Arc::new(Panics(false.into())));
        let to = Consumer { logs: inlet.receiver(), ..OtlpSink::default().consumer() };
        let sink = corten_config::Value::capsule(Arc::new(to));
        let world = host("otelcol.processor.batch.a");
        let body = with_output("");
        let unit =
            Unit::start_with(world, &Definition::of::<BatchProcessor>(), &body, &[("sink", sink)]).await.unwrap();
        entrance(&unit).consume(logs(0..3)).await.unwrap();
        until("the worker has panicked", || balance(&unit) == "taken 3, dropped {failed: 3}").await;
        entrance(&unit).consume(logs(3..4)).await.unwrap();
        until("another one goes on", || balance(&unit) == "taken 4, out 1, dropped {failed: 3}").await;
    }

    #[tokio::test]
    async fn what_contradicts_itself_is_refused() {
        let sink = OtlpSink::default();
        let definition = Definition::of::<BatchProcessor>();
        for (body, want) in [
            ("send_batch_max_size = 5", "send_batch_max_size must be greater or equal to send_batch_size when not 0"),
            ("metadata_keys = [\"a\", \"A\"]", "duplicate entry in metadata_keys: \"A\" (case-insensitive)"),
        ] {
            let names = [("sink", sink.value())];
            let unit =
                Unit::start_with(host("otelcol.processor.batch.a"), &definition, &with_output(body), &names).await;
            let error = unit.unwrap_err();
            assert!(error.contains(want), "{error}");
        }
    }
}
