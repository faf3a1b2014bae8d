//! `otelcol.processor.tail_sampling`.

mod policy;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::available_parallelism;
use std::time::Duration;

use corten_component::log::Level;
use corten_component::metrics::{Counter, Gauge, Histogram, Vector};
use corten_component::{Component, Context, Error, Logger};
use corten_config::Arguments;
use corten_config::arguments::{CheckErrors, CheckStep};
use corten_config::decode::SignedDuration;
use corten_config::encode::Item;
use corten_otlp::{Batch, Edit, Span, TracePart, Traces};
use corten_ottl::EvalError;
use corten_signal::flow::BoxFuture;
use corten_signal::ledger::Row;
use corten_signal::{Acks, Consume, ConsumeError, Fanout};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use self::policy::{Policy, PolicyArguments, Seen, Vote};
use crate::flow::{DebugMetrics, Inlets, Input, Output, Stages};
use crate::identity::{Hasher, Recent};
use crate::resend::{Patience, Resend, SHUTDOWN, Unsent, ended};
use crate::shown::{attr, show};

/// Keeps spans until their traces are whole, and then sends those traces on that a policy wants.
///
/// A trace is decided about so long after its first span as `decision_wait` says. All policies are asked in the order in which
/// they are written, those of type `drop` first. A trace that one of those drops is dropped; any other is sampled if one of the
/// policies samples it. Spans that come later share the fate of their trace as long as that is remembered.
///
/// All spans of a trace have to come to the same instance. Spans are kept in memory: sources that keep what they sent until
/// it is safe keep it until the decision. A change of the configuration keeps the traces that are not decided about; at the
/// end they are decided about at once.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct TailSamplingArguments {
    /// A policy.
    #[block(name = "policy", required)]
    policies: Vec<PolicyArguments>,
    /// How long after its first span a trace is decided about; in whole seconds, at least one.
    #[arg(default = "30s")]
    decision_wait: SignedDuration,
    /// How long after its root span a trace is decided about, if that is earlier; in whole seconds. With 0 only
    /// `decision_wait` counts.
    #[arg(default = "0s")]
    decision_wait_after_root_received: SignedDuration,
    /// How many traces are in memory. Their spans take 64 KiB a trace in the mean at most; beyond that it is as if there were too
    /// many traces. One trace may be as large as it may be by itself in any case.
    #[arg(default = 50000)]
    num_traces: u64,
    /// Whether further traces wait until there is room in memory. Otherwise the oldest one makes room; if it was not decided
    /// about, it is dropped.
    #[arg(default = false)]
    block_on_overflow: bool,
    /// For how many new traces a second memory is taken at the start.
    #[arg(default = 0)]
    expected_new_traces_per_sec: u64,
    /// Whether policies after the first one that samples a trace are not asked.
    #[arg(default = false)]
    sample_on_first_match: bool,
    /// Whether traces that are not decided about are dropped at the end.
    #[arg(default = false)]
    drop_pending_traces_on_shutdown: bool,
    /// How large a trace may be, in bytes. A larger one is dropped at once. With 0 there is no limit but that of half a GiB.
    #[arg(default = 0)]
    maximum_trace_size_bytes: u64,
    /// For how many traces that are no longer in memory the decision is remembered.
    #[arg(optional)]
    decision_cache: DecisionCache,
    /// Where to send traces that are sampled.
    #[block]
    output: Output,
    /// Which metrics of its own the component has.
    #[block(optional)]
    debug_metrics: DebugMetrics,
}

/// For how many traces that are no longer in memory the decision is remembered. Where it is remembered, a trace leaves memory
/// as soon as it is decided about.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub struct DecisionCache {
    /// For how many traces that were sampled. 0 remembers none.
    #[arg(default = 0)]
    sampled_cache_size: i64,
    /// For how many traces that were not sampled. 0 remembers none.
    #[arg(default = 0)]
    non_sampled_cache_size: i64,
}

impl TailSamplingArguments {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        let wait_ms = self.decision_wait.nanoseconds / 1_000_000;
        errors.require(wait_ms > 0, &["decision_wait"], "decision_wait must be greater than zero");
        errors.require(self.num_traces > 0, &["num_traces"], "num_traces must be greater than zero");
        for (number, policy) in self.policies.iter().enumerate() {
            let name = &policy.shared.name;
            if self.policies[..number].iter().any(|known| known.shared.name == *name) {
                let within = [CheckStep::Block(number), CheckStep::Field("name")];
                errors.push_within(&["policy"], &within, format!("duplicate policy name {name:?}"));
            }
        }
        errors.into_result()
    }
}

/// The component.
pub struct TailSamplingProcessor {
    inlets: Arc<Inlets>,
    arriving: mpsc::Sender<Vec<Part>>,
    settings: mpsc::UnboundedSender<Settings>,
    sampler: JoinHandle<()>,
    /// Tells the sampler to give up what is not taken.
    ending: watch::Sender<bool>,
}

/// What is to be put in place.
pub struct Prepared {
    inlets: Arc<Inlets>,
    arguments: TailSamplingArguments,
    policies: Vec<Policy>,
}

/// Spans of one trace, which are on their way.
type Part = (TracePart, Acks);

impl Component for TailSamplingProcessor {
    const NAME: &'static str = "otelcol.processor.tail_sampling";
    type Arguments = TailSamplingArguments;
    type Exports = Input;
    type Prepared = Prepared;

    async fn prepare(
        arguments: TailSamplingArguments,
        cx: &Context<Self>,
        current: Option<&Self>,
    ) -> Result<(Prepared, Input), Error> {
        let policies = arguments.policies.iter().map(|policy| policy.policy(cx.logger()));
        let policies = policies.collect::<Result<Vec<_>, _>>().map_err(|errors| Error::new(errors.to_string()))?;
        let inlets = current.map_or_else(|| Inlets::of(cx.ledger()), |current| Arc::clone(&current.inlets));
        let exports = inlets.exports();
        Ok((Prepared { inlets, arguments, policies }, exports))
    }

    fn commit(current: Option<Self>, prepared: Prepared, cx: &Context<Self>) -> Self {
        let Prepared { inlets, arguments, policies } = prepared;
        // One that panicked is replaced.
        let current = current.filter(|running| !running.sampler.is_finished());
        let ending = current.as_ref().map_or_else(|| watch::Sender::new(false), |running| running.ending.clone());
        let settings = Settings::new(&arguments, policies, ending.subscribe(), cx);
        let takes_traces = settings.forward.is_some();
        let running = match current {
            Some(running) => {
                // It ends only when nothing arrives any more.
                let _ = running.settings.send(settings);
                running
            }
            None => {
                let slots = available_parallelism().map_or(1, std::num::NonZero::get);
                let (arriving, parts) = mpsc::channel(slots);
                let (sender, receiver) = mpsc::unbounded_channel();
                let figures = Arc::new(Figures::default());
                let (shown, row) = (Arc::clone(&figures), Arc::clone(cx.ledger().row_of::<Traces>()));
                show(cx, move || shown.tell(&row));
                let sampler = tokio::spawn(Sampler::new(settings, figures, parts, receiver).run());
                TailSamplingProcessor { inlets, arriving, settings: sender, sampler, ending }
            }
        };
        let row = Arc::clone(cx.ledger().row_of::<Traces>());
        let stage = || Arc::new(Stage { arriving: running.arriving.clone(), row }) as _;
        running.inlets.attach(Stages { traces: takes_traces.then(stage), ..Stages::default() });
        running
    }

    async fn drain(mut self, _: &Context<Self>) {
        self.inlets.close();
        drop(self.arriving);
        // It ends when all that arrived is decided about. If it panicked, there is nothing left.
        if tokio::time::timeout(DRAIN_WAIT_MAX, &mut self.sampler).await.is_err() {
            // Somebody who does not answer would hold up the reload or the stop for ever.
            self.ending.send_replace(true);
            let _ = self.sampler.await;
        }
    }
}

/// Takes spans apart by their traces.
struct Stage {
    arriving: mpsc::Sender<Vec<Part>>,
    row: Arc<Row>,
}

impl Consume<Traces> for Stage {
    fn consume(&self, batch: Batch<Span>) -> BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(async move {
            let parts = batch.by_trace();
            if parts.is_empty() {
                batch.acks.safe();
                return Ok(());
            }
            // Only time makes it go on: nobody is to wait for that.
            batch.acks.hold();
            let parts: Vec<Part> = parts.into_iter().map(|part| (part, batch.acks.clone())).collect();
            let spans = spans_of(&parts);
            batch.acks.safe();
            self.arriving.send(parts).await.map_err(|_| ConsumeError::Retry {
                after: None,
                reason: "traces cannot be decided about any more".to_owned(),
            })?;
            self.row.held(spans as i64);
            Ok(())
        })
    }
}

fn spans_of(parts: &[Part]) -> usize {
    parts.iter().map(|(part, _)| part.spans).sum()
}

/// What a sampler was told.
struct Settings {
    /// How many ticks a trace waits.
    wait: u64,
    /// How many ticks it waits after its root; nothing where that does not count.
    root_wait: Option<u64>,
    traces_max: usize,
    traces_expected: usize,
    blocks: bool,
    first_match: bool,
    drops_pending: bool,
    trace_bytes_max: usize,
    /// How much memory the spans of all traces take at most, in bytes.
    bytes_max: usize,
    sampled_max: usize,
    not_sampled_max: usize,
    policies: Vec<Asked>,
    forward: Option<Fanout<Traces>>,
    row: Arc<Row>,
    /// Set when what is not taken is given up.
    ending: watch::Receiver<bool>,
    resend: Resend,
    metrics: Metrics,
    logger: Logger,
}

/// A policy with its metrics.
struct Asked {
    policy: Policy,
    label: String,
    drops: bool,
    /// Why spans are dropped that it does not want.
    reason: String,
    time_us: Counter,
    asked: Counter,
    /// What was not yet added to the time, in nanoseconds.
    time_rest_ns: u64,
}

/// The largest trace, whatever is configured, in bytes.
const TRACE_BYTES_MAX: u64 = 1 << 29;
/// How large traces are in the mean at most, in bytes.
const MEAN_TRACE_BYTES_MAX: usize = 64 << 10;
/// For how many traces memory is taken before they come.
const EXPECTED_MAX: u64 = 1 << 20;

impl Settings {
    fn new(
        arguments: &TailSamplingArguments,
        policies: Vec<Policy>,
        ending: watch::Receiver<bool>,
        cx: &Context<TailSamplingProcessor>,
    ) -> Self {
        let seconds = |duration: SignedDuration| u64::try_from(duration.nanoseconds / 1_000_000_000).unwrap_or(0);
        let size = |size: i64| usize::try_from(size).unwrap_or(0);
        let metrics = Metrics::new(cx);
        let named = arguments.policies.iter().map(|policy| policy.shared.name.as_str());
        let mut policies: Vec<Asked> =
            named.zip(policies).map(|(name, policy)| metrics.asked(policy, cx.id(), name)).collect();
        // A trace that is dropped is dropped whatever others say.
        policies.sort_by_key(|asked| !asked.drops);
        let wait = seconds(arguments.decision_wait).max(1);
        let root_wait = arguments.decision_wait_after_root_received;
        let traces_max = usize::try_from(arguments.num_traces).unwrap_or(usize::MAX);
        let trace_bytes_max = match arguments.maximum_trace_size_bytes {
            0 => TRACE_BYTES_MAX as usize,
            max => max.min(TRACE_BYTES_MAX) as usize,
        };
        let expected = arguments.expected_new_traces_per_sec.saturating_mul(wait.saturating_add(1));
        Settings {
            wait,
            root_wait: (root_wait.nanoseconds > 0).then(|| seconds(root_wait)),
            traces_max,
            traces_expected: (expected.min(EXPECTED_MAX) as usize).min(traces_max),
            blocks: arguments.block_on_overflow,
            first_match: arguments.sample_on_first_match,
            drops_pending: arguments.drop_pending_traces_on_shutdown,
            trace_bytes_max,
            bytes_max: traces_max.saturating_mul(MEAN_TRACE_BYTES_MAX).max(trace_bytes_max),
            sampled_max: size(arguments.decision_cache.sampled_cache_size),
            not_sampled_max: size(arguments.decision_cache.non_sampled_cache_size),
            policies,
            forward: arguments.output.traces(cx),
            row: Arc::clone(cx.ledger().row_of::<Traces>()),
            ending,
            resend: Resend::new(cx.logger().clone(), Level::Warn, "Error sending spans to destination"),
            metrics,
            logger: cx.logger().clone(),
        }
    }
}

/// The metrics of the component. Unlike those of other processors they do not name it, but the policies do.
struct Metrics {
    traces: Vector<Counter>,
    spans: Vector<Counter>,
    asked: Vector<Counter>,
    time: Vector<Counter>,
    decided: Vector<Counter>,
    from_cache: Vector<Counter>,
    new_traces: Counter,
    errors: Counter,
    too_early: Counter,
    too_large: Counter,
    in_memory: Gauge,
    tick_ms: Histogram,
    late_s: Histogram,
    removal_s: Histogram,
}

const SCOPE: [&str; 3] =
    ["github.com/open-telemetry/opentelemetry-collector-contrib/processor/tailsamplingprocessor", "", ""];
const TICK_BUCKETS: &[f64] = &[
    1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 150.0, 200.0, 300.0, 400.0, 500.0, 750.0, 1000.0, 2000.0, 3000.0,
    4000.0, 5000.0, 10000.0, 20000.0, 30000.0, 50000.0,
];
const AGE_BUCKETS: &[f64] =
    &[0.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1000.0, 2500.0, 5000.0, 7500.0, 10000.0];

macro_rules! scoped {
    ($($further:literal),*) => {
        &["otel_scope_name", "otel_scope_version", "otel_scope_schema_url" $(, $further)*]
    };
}

impl Metrics {
    fn new(cx: &Context<TailSamplingProcessor>) -> Self {
        let all = cx.metrics();
        let counter = |name, help| all.counters(name, help, scoped!()).with(&SCOPE);
        let histogram = |name, help, bounds| all.histograms(name, help, scoped!(), bounds).with(&SCOPE);
        Metrics {
            traces: all.counters(
                "otelcol_processor_tail_sampling_count_traces_sampled_total",
                "Count of traces that were sampled or not per sampling policy",
                scoped!("policy", "sampled", "decision"),
            ),
            spans: all.counters(
                "otelcol_processor_tail_sampling_count_spans_sampled_total",
                "Count of spans that were sampled or not per sampling policy",
                scoped!("policy", "sampled", "decision"),
            ),
            asked: all.counters(
                "otelcol_processor_tail_sampling_sampling_policy_execution_count_total",
                "Total number of executions of a specific sampling policy",
                scoped!("policy"),
            ),
            time: all.counters(
                "otelcol_processor_tail_sampling_sampling_policy_execution_time_sum_microseconds_total",
                "Total time spent (in microseconds) executing a specific sampling policy",
                scoped!("policy"),
            ),
            decided: all.counters(
                "otelcol_processor_tail_sampling_global_count_traces_sampled_total",
                "Global count of traces that were sampled or not by at least one policy",
                scoped!("sampled", "decision"),
            ),
            from_cache: all.counters(
                "otelcol_processor_tail_sampling_early_releases_from_cache_decision_total",
                "Number of spans that were able to be immediately released due to a decision cache hit.",
                scoped!("sampled"),
            ),
            new_traces: counter(
                "otelcol_processor_tail_sampling_new_trace_id_received_total",
                "Counts the arrival of new traces",
            ),
            errors: counter(
                "otelcol_processor_tail_sampling_sampling_policy_evaluation_error_total",
                "Count of sampling policy evaluation errors",
            ),
            too_early: counter(
                "otelcol_processor_tail_sampling_sampling_trace_dropped_too_early_total",
                "Count of traces that needed to be dropped before the configured wait time",
            ),
            too_large: counter(
                "otelcol_processor_tail_sampling_traces_dropped_too_large_total",
                "Count of traces that were dropped because they were too large",
            ),
            in_memory: all
                .gauges(
                    "otelcol_processor_tail_sampling_sampling_traces_on_memory",
                    "Tracks the number of traces current on memory",
                    scoped!(),
                )
                .with(&SCOPE),
            tick_ms: histogram(
                "otelcol_processor_tail_sampling_sampling_decision_timer_latency_milliseconds",
                "Latency (in milliseconds) of each run of the sampling decision timer",
                TICK_BUCKETS,
            ),
            late_s: histogram(
                "otelcol_processor_tail_sampling_sampling_late_span_age_seconds",
                "Time (in seconds) from the sampling decision was taken and the arrival of a late span",
                AGE_BUCKETS,
            ),
            removal_s: histogram(
                "otelcol_processor_tail_sampling_sampling_trace_removal_age_seconds",
                "Time (in seconds) from arrival of a new trace until its removal from memory",
                AGE_BUCKETS,
            ),
        }
    }

    fn asked(&self, policy: Policy, component: &str, name: &str) -> Asked {
        let label = format!("{component}.{name}");
        let [scope, version, url] = SCOPE;
        let labels = [scope, version, url, &label];
        Asked {
            time_us: self.time.with(&labels),
            asked: self.asked.with(&labels),
            drops: matches!(policy, Policy::Drop(_)),
            policy,
            label,
            reason: format!("dropped by {name}"),
            time_rest_ns: 0,
        }
    }

    fn voted(&self, policy: &str, vote: Vote, spans: u64) {
        let ([scope, version, url], [sampled, decision]) = (SCOPE, labels(vote));
        let labels = [scope, version, url, policy, sampled, decision];
        self.traces.with(&labels).inc();
        self.spans.with(&labels).add(spans);
    }

    fn decided(&self, vote: Vote) {
        let ([scope, version, url], [sampled, decision]) = (SCOPE, labels(vote));
        self.decided.with(&[scope, version, url, sampled, decision]).inc();
    }

    fn released(&self, sampled: bool, spans: usize) {
        let [scope, version, url] = SCOPE;
        let sampled = if sampled { "true" } else { "false" };
        self.from_cache.with(&[scope, version, url, sampled]).add(spans as u64);
    }
}

/// Whether a trace was sampled, and what became of it.
fn labels(vote: Vote) -> [&'static str; 2] {
    match vote {
        Vote::Sampled => ["true", "sampled"],
        Vote::NotSampled => ["false", "not_sampled"],
        Vote::Dropped => ["false", "dropped"],
    }
}

/// A trace in memory.
struct Trace {
    /// Its spans as they were received, as long as it is not decided about.
    message: Vec<u8>,
    spans: u64,
    acks: Acks,
    arrived: Instant,
    /// Its place among the traces of its kind: those that are decided about, and the others.
    number: u64,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    /// It is decided about with this tick.
    Undecided(u64),
    /// It was decided about, and when; it was too large where no time is known.
    Decided(Vote, Option<Instant>),
}

/// What is told of a sampler, as it was with the last tick.
#[derive(Debug, Default)]
struct Figures {
    traces: AtomicUsize,
    undecided: AtomicUsize,
    bytes: AtomicUsize,
    remembered: AtomicUsize,
}

impl Figures {
    fn set(&self, sampler: &Sampler) {
        self.traces.store(sampler.traces.len(), Ordering::Relaxed);
        self.undecided.store(sampler.undecided.len(), Ordering::Relaxed);
        self.bytes.store(sampler.bytes, Ordering::Relaxed);
        self.remembered.store(sampler.sampled.len() + sampler.not_sampled.len(), Ordering::Relaxed);
    }

    fn tell(&self, row: &Row) -> Vec<Item> {
        let number = |name: &str, number: &AtomicUsize| attr(name, number.load(Ordering::Relaxed) as u64);
        vec![
            number("traces_in_memory", &self.traces),
            number("undecided_traces", &self.undecided),
            attr("spans_in_memory", row.snapshot().held),
            number("bytes_in_memory", &self.bytes),
            number("remembered_decisions", &self.remembered),
        ]
    }
}

/// Keeps traces and decides about them. Ticks count time, one a second.
struct Sampler {
    settings: Settings,
    figures: Arc<Figures>,
    parts: mpsc::Receiver<Vec<Part>>,
    changes: mpsc::UnboundedReceiver<Settings>,
    ticks: Interval,
    /// The number of the next tick.
    tick: u64,
    /// The number of the next trace.
    number: u64,
    traces: HashMap<[u8; 16], Trace>,
    /// How much memory their spans take, in bytes.
    bytes: usize,
    /// How many spans it has, with those that are on their way.
    spans: usize,
    /// The traces to be decided about, by tick and number.
    due: BTreeMap<(u64, u64), [u8; 16]>,
    /// The traces in memory by number: those that are not decided about, and those that are.
    undecided: BTreeMap<u64, [u8; 16]>,
    decided: BTreeMap<u64, [u8; 16]>,
    /// The decisions about traces that are no longer in memory.
    sampled: Recent<()>,
    not_sampled: Recent<()>,
    hasher: Hasher,
    /// Whether it is worth waiting for whoever takes traces: the last one was taken.
    patient: bool,
}

/// Why spans are dropped: no policy samples their trace, or none did when they came; or another trace needed the room before
/// it was decided about theirs.
const NOT_SAMPLED: &str = "not sampled";
const LATE: &str = "late, not sampled";
const TOO_EARLY: &str = "too early";
/// How long the end waits until what is left is taken: for who only takes his time, longer than one trace is sent again.
const DRAIN_WAIT_MAX: Duration = Duration::from_secs(60);
/// How long traces are sent again that are not taken for now.
const RETRY_MAX: Duration = Duration::from_secs(30);

impl Sampler {
    fn new(
        settings: Settings,
        figures: Arc<Figures>,
        parts: mpsc::Receiver<Vec<Part>>,
        changes: mpsc::UnboundedReceiver<Settings>,
    ) -> Self {
        let second = Duration::from_secs(1);
        let mut ticks = tokio::time::interval_at(Instant::now() + second, second);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Sampler {
            traces: HashMap::with_capacity(settings.traces_expected),
            settings,
            figures,
            parts,
            changes,
            ticks,
            bytes: 0,
            spans: 0,
            tick: 0,
            number: 0,
            due: BTreeMap::new(),
            undecided: BTreeMap::new(),
            decided: BTreeMap::new(),
            sampled: Recent::default(),
            not_sampled: Recent::default(),
            hasher: Hasher::default(),
            patient: true,
        }
    }

    async fn run(mut self) {
        loop {
            tokio::select! {
                biased;
                Some(settings) = self.changes.recv() => self.settings = settings,
                _ = self.ticks.tick() => self.decide_due().await,
                parts = self.parts.recv() => match parts {
                    Some(parts) => {
                        self.spans += spans_of(&parts);
                        for (part, acks) in parts {
                            self.arrived(part, acks).await;
                        }
                    }
                    None => break,
                },
            }
        }
        while let Some((_, id)) = self.due.pop_first() {
            if self.settings.drops_pending {
                self.forget(id, SHUTDOWN);
            } else {
                self.decide(id).await;
            }
        }
    }

    async fn arrived(&mut self, part: TracePart, acks: Acks) {
        let id = part.trace_id;
        let hash = self.hash(id);
        if self.sampled.get(hash).is_some() {
            self.settings.metrics.released(true, part.spans);
            return self.forward(part.message, part.spans, acks).await;
        }
        if self.not_sampled.get(hash).is_some() {
            self.settings.metrics.released(false, part.spans);
            self.drop_spans(LATE, part.spans);
            return acks.safe();
        }
        while !self.traces.contains_key(&id) && self.traces.len() >= self.settings.traces_max {
            self.make_room().await;
        }
        let waits = |trace: &Trace| matches!(trace.state, State::Undecided(_));
        while self.bytes.saturating_add(part.message.len()) > self.settings.bytes_max
            && !self.undecided.is_empty()
            && self.traces.get(&id).is_none_or(waits)
        {
            self.make_room_for_spans().await;
        }
        let trace = self.traces.entry(id).or_insert_with(|| {
            let (number, tick) = (self.number, self.tick.saturating_add(self.settings.wait));
            self.number += 1;
            self.settings.metrics.new_traces.inc();
            self.due.insert((tick, number), id);
            self.undecided.insert(number, id);
            let (message, arrived) = (Vec::new(), Instant::now());
            Trace { message, spans: 0, acks: Acks::NONE, arrived, number, state: State::Undecided(tick) }
        });
        trace.spans += part.spans as u64;
        match trace.state {
            State::Undecided(tick) => {
                let earlier =
                    self.settings.root_wait.filter(|_| part.has_root).map(|wait| self.tick.saturating_add(wait));
                if let Some(earlier) = earlier.filter(|earlier| *earlier < tick) {
                    self.due.remove(&(tick, trace.number));
                    self.due.insert((earlier, trace.number), id);
                    trace.state = State::Undecided(earlier);
                }
                trace.message.extend_from_slice(&part.message);
                self.bytes += part.message.len();
                trace.acks.join(acks);
                if trace.message.len() > self.settings.trace_bytes_max {
                    self.settings.metrics.too_large.inc();
                    let spans = trace.spans;
                    let (_, acks) = self.decided(id, Vote::NotSampled, None);
                    self.drop_spans("too large", spans as usize);
                    acks.safe();
                }
            }
            State::Decided(vote, at) => {
                if let Some(at) = at {
                    self.settings.metrics.late_s.observe(at.elapsed().as_secs() as f64);
                }
                match vote {
                    Vote::Sampled => self.forward(part.message, part.spans, acks).await,
                    Vote::NotSampled | Vote::Dropped => {
                        self.drop_spans(LATE, part.spans);
                        acks.safe();
                    }
                }
            }
        }
    }

    /// Makes room for a trace, or waits until there may be some.
    async fn make_room(&mut self) {
        // What was decided about has no spans any more.
        if let Some((_, id)) = self.decided.pop_first() {
            return self.forget(id, TOO_EARLY);
        }
        self.make_room_for_spans().await;
    }

    /// Drops the oldest trace that is not decided about, or waits until there may be room.
    async fn make_room_for_spans(&mut self) {
        if self.settings.blocks {
            tokio::select! {
                biased;
                Some(settings) = self.changes.recv() => self.settings = settings,
                _ = self.ticks.tick() => self.decide_due().await,
            }
            return;
        }
        if let Some((_, id)) = self.undecided.pop_first() {
            self.settings.metrics.too_early.inc();
            self.forget(id, TOO_EARLY);
        }
    }

    /// Counts spans as dropped.
    fn drop_spans(&mut self, why: impl Into<Cow<'static, str>>, spans: usize) {
        self.settings.row.dropped(why, spans);
        self.are_gone(spans);
    }

    /// Counts spans as no longer here.
    fn are_gone(&mut self, spans: usize) {
        self.settings.row.held(-(spans as i64));
        self.spans = self.spans.saturating_sub(spans);
    }

    /// Takes a trace out of memory. Spans that it still has are dropped.
    fn forget(&mut self, id: [u8; 16], why: &'static str) {
        let Some(trace) = self.traces.remove(&id) else { return };
        self.bytes = self.bytes.saturating_sub(trace.message.len());
        match trace.state {
            State::Undecided(tick) => {
                self.due.remove(&(tick, trace.number));
                self.undecided.remove(&trace.number);
                self.drop_spans(why, trace.spans as usize);
            }
            State::Decided(..) => {
                self.decided.remove(&trace.number);
            }
        }
        trace.acks.safe();
        self.settings.metrics.removal_s.observe(trace.arrived.elapsed().as_secs() as f64);
    }

    /// Decides about the traces whose time has come.
    async fn decide_due(&mut self) {
        let began = Instant::now();
        while let Some(first) = self.due.first_entry()
            && first.key().0 <= self.tick
        {
            let id = first.remove();
            self.decide(id).await;
        }
        self.tick += 1;
        self.settings.metrics.tick_ms.observe(began.elapsed().as_millis() as f64);
        self.settings.metrics.in_memory.set(self.traces.len() as f64);
        self.figures.set(self);
    }

    async fn decide(&mut self, id: [u8; 16]) {
        let now = Instant::now();
        let Some(trace) = self.traces.get_mut(&id) else { return };
        let (message, spans) = (std::mem::take(&mut trace.message), trace.spans);
        self.bytes = self.bytes.saturating_sub(message.len());
        let bytes = message.len() as u64;
        // What was received piece by piece is a request as a whole.
        let mut batch = Batch::received(message.into(), Arc::default()).unwrap_or_default();
        let (mut vote, mut why) = (Vote::NotSampled, Cow::Borrowed(NOT_SAMPLED));
        let asked = batch.edit(|data| {
            (vote, why) = self.settings.ask(&mut Seen { id, data, spans, bytes, now });
            Ok::<_, EvalError>(Edit::Same)
        });
        debug_assert!(asked.is_ok());
        self.settings.metrics.decided(vote);
        let acks;
        (vote, acks) = self.decided(id, vote, Some(now));
        if vote == Vote::Sampled {
            batch.acks = acks;
            self.send(batch, spans as usize).await;
        } else {
            self.drop_spans(why, spans as usize);
            acks.safe();
        }
    }

    /// Notes what was decided about a trace. It leaves memory if the decision is remembered elsewhere.
    fn decided(&mut self, id: [u8; 16], vote: Vote, at: Option<Instant>) -> (Vote, Acks) {
        let hash = self.hash(id);
        let Some(trace) = self.traces.get_mut(&id) else { return (vote, Acks::NONE) };
        if let State::Undecided(tick) = trace.state {
            self.due.remove(&(tick, trace.number));
            self.undecided.remove(&trace.number);
        }
        let acks = std::mem::replace(&mut trace.acks, Acks::NONE);
        let message = std::mem::take(&mut trace.message);
        self.bytes = self.bytes.saturating_sub(message.len());
        trace.state = State::Decided(vote, at);
        self.decided.insert(trace.number, id);
        let (cache, max) = match vote {
            Vote::Sampled => (&mut self.sampled, self.settings.sampled_max),
            Vote::NotSampled | Vote::Dropped => (&mut self.not_sampled, self.settings.not_sampled_max),
        };
        if max > 0 {
            // A change of the configuration may have made the limit smaller.
            while cache.len() >= max
                && let Some(oldest) = { cache.hashes().next() }
            {
                cache.remove(oldest);
            }
            cache.insert(hash, (), max);
            self.forget(id, NOT_SAMPLED);
        }
        (vote, acks)
    }

    /// Trace ids are of others' choosing: their hashes are not.
    fn hash(&mut self, id: [u8; 16]) -> u128 {
        self.hasher.clear();
        self.hasher.hash(u128::from_ne_bytes(id));
        self.hasher.finish()
    }

    async fn forward(&mut self, message: Vec<u8>, spans: usize, acks: Acks) {
        let mut batch = Batch::received(message.into(), Arc::default()).unwrap_or_default();
        batch.acks = acks;
        self.send(batch, spans).await;
    }

    /// Sends spans on, of which there were so many. What is not taken in time is lost.
    async fn send(&mut self, batch: Batch<Span>, spans: usize) {
        let row = &self.settings.row;
        let items = batch.items();
        // The message was looked at when it was received: there are as many.
        row.dropped("malformed", spans.saturating_sub(items));
        let Some(forward) = &self.settings.forward else {
            row.dropped("no receiver", items);
            self.are_gone(spans);
            return batch.acks.safe();
        };
        // Where the last trace was not taken, there is one attempt for each, so that they do not pile up.
        let longer = if self.patient { RETRY_MAX } else { Duration::ZERO };
        let mut ending = self.settings.ending.clone();
        let stop = std::pin::pin!(ended(&mut ending));
        let patience = Patience { until: Some(Instant::now() + longer), stop: Some((stop, Duration::ZERO)) };
        let outcome = self.settings.resend.send(row, forward, batch, patience).await;
        self.patient = outcome.is_ok();
        if let Err(Unsent { batch, why }) = outcome {
            row.dropped(why, items);
            // Whoever keeps what it sent until it is safe sends it again.
            batch.acks.fail();
        }
        self.are_gone(spans);
    }
}

impl Drop for Sampler {
    /// Counts what a sampler still has that panicked.
    fn drop(&mut self) {
        self.parts.close();
        while let Ok(parts) = self.parts.try_recv() {
            self.spans += spans_of(&parts);
        }
        self.drop_spans("failed", self.spans);
    }
}

impl Settings {
    /// Asks the policies about a trace, and why it is dropped if it is.
    fn ask(&mut self, seen: &mut Seen<'_>) -> (Vote, Cow<'static, str>) {
        let mut decision = Vote::NotSampled;
        for asked in &mut self.policies {
            let began = std::time::Instant::now();
            let vote = asked.policy.vote(seen);
            asked.time_rest_ns += u64::try_from(began.elapsed().as_nanos()).unwrap_or(0);
            asked.time_us.add(asked.time_rest_ns / 1_000);
            asked.time_rest_ns %= 1_000;
            asked.asked.inc();
            let vote = match vote {
                Ok(vote) => vote,
                Err(error) => {
                    self.metrics.errors.inc();
                    self.logger.debug("Sampling policy error", &[("error", error.to_string().into())]);
                    continue;
                }
            };
            self.metrics.voted(&asked.label, vote, seen.spans);
            match vote {
                Vote::Dropped => return (Vote::Dropped, asked.reason.clone().into()),
                Vote::Sampled => decision = Vote::Sampled,
                Vote::NotSampled => {}
            }
            if vote == Vote::Sampled && self.first_match {
                break;
            }
        }
        (decision, NOT_SAMPLED.into())
    }
}

#[cfg(test)]
mod tests {
    use corten_component::Definition;
    use corten_signal::acks::{Answer, waiter};
    use corten_testkit::{OtlpSink, Unit, host, otlp, until};

    use super::*;

    fn with_output(body: &str) -> String {
        format!("{body}\noutput {{\n traces = [sink]\n}}")
    }

    async fn start(sink: &OtlpSink, body: &str) -> Result<Unit, String> {
        let definition = Definition::of::<TailSamplingProcessor>();
        let host = host("otelcol.processor.tail_sampling.a");
        Unit::start_with(host, &definition, &with_output(body), &[("sink", sink.value())]).await
    }

    /// Samples traces that have a span that failed.
    const ERRORS: &str =
        "policy {\nname = \"errors\"\ntype = \"status_code\"\nstatus_code { status_codes = [\"ERROR\"] }\n}";

    /// A span of a trace: `a!` failed, `b^` has no parent.
    fn span(text: &str) -> Batch<Span> {
        let trace = format!("{:032x}", text.as_bytes()[0]);
        let code = if text.contains('!') { 2 } else { 0 };
        let parent = if text.contains('^') { "" } else { "0000000000000001" };
        otlp(&format!(
            r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"traceId":"{trace}","parentSpanId":"{parent}","name":"{text}","status":{{"code":{code}}}}}]}}]}}]}}"#
        ))
    }

    async fn send(unit: &Unit, texts: &str) {
        for text in texts.split_whitespace() {
            unit.world.consumer("input").traces.consume(span(text)).await.unwrap();
        }
    }

    /// The names of spans that arrived, a word a batch.
    fn arrived(sink: &OtlpSink) -> Vec<String> {
        let names = |json: String| {
            let names = json.split("\"name\":\"").skip(1).map(|rest| rest[..rest.find('"').unwrap()].to_owned());
            names.collect::<Vec<_>>().join("+")
        };
        sink.batches().into_iter().map(|batch| names(batch.json)).collect()
    }

    fn metric(unit: &Unit, name: &str, further: &[(&str, &str)]) -> Option<f64> {
        let mut labels = vec![("otel_scope_name", SCOPE[0]), ("otel_scope_version", ""), ("otel_scope_schema_url", "")];
        labels.extend(further);
        unit.world.metrics().get(&format!("otelcol_processor_tail_sampling_{name}"), &labels)
    }

    fn balance(unit: &Unit) -> String {
        unit.world.balance_of(corten_signal::Kind::OtelTrace)
    }

    async fn seconds(seconds: f64) {
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_trace_is_decided_about_when_its_time_has_come() {
        let sink = OtlpSink::default();
        let unit = start(&sink, &format!("decision_wait = \"5s\"\n{ERRORS}")).await.unwrap();
        seconds(0.5).await;
        send(&unit, "a b c").await;
        seconds(3.0).await;
        send(&unit, "a! c").await;
        seconds(2.4).await;
        assert!(arrived(&sink).is_empty());
        assert_eq!(balance(&unit), "taken 5, held 5");
        seconds(0.2).await;
        assert_eq!(arrived(&sink), ["a+a!"]);
        // Late spans share the fate of their trace.
        send(&unit, "a b!").await;
        until("the late one is sent", || arrived(&sink) == ["a+a!", "a"]).await;
        seconds(0.1).await;
        assert_eq!(balance(&unit), "taken 7, out 3, dropped {late, not sampled: 1, not sampled: 3}");
        let policy = ("policy", "otelcol.processor.tail_sampling.a.errors");
        for (name, further, expected) in [
            ("new_trace_id_received_total", &[][..], 3.0),
            ("global_count_traces_sampled_total", &[("sampled", "true"), ("decision", "sampled")][..], 1.0),
            ("global_count_traces_sampled_total", &[("sampled", "false"), ("decision", "not_sampled")], 2.0),
            ("count_traces_sampled_total", &[policy, ("sampled", "true"), ("decision", "sampled")], 1.0),
            ("count_spans_sampled_total", &[policy, ("sampled", "false"), ("decision", "not_sampled")], 3.0),
            ("sampling_policy_execution_count_total", &[policy], 3.0),
            ("sampling_traces_on_memory", &[], 3.0),
            ("sampling_trace_dropped_too_early_total", &[], 0.0),
        ] {
            assert_eq!(metric(&unit, name, further), Some(expected), "{name} {further:?}");
        }
        let told = crate::testing::told(&unit.world);
        assert_eq!(told[..3], ["traces_in_memory = 3", "undecided_traces = 0", "spans_in_memory = 0"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_root_brings_the_decision_forward() {
        let sink = OtlpSink::default();
        let body = format!("decision_wait = \"60s\"\ndecision_wait_after_root_received = \"2s\"\n{ERRORS}");
        let unit = start(&sink, &body).await.unwrap();
        seconds(0.5).await;
        send(&unit, "a! b! b^").await;
        seconds(2.4).await;
        assert!(arrived(&sink).is_empty());
        seconds(0.2).await;
        assert_eq!(arrived(&sink), ["b!+b^"]);
        seconds(58.5).await;
        assert_eq!(arrived(&sink), ["b!+b^", "a!"]);
    }

    #[tokio::test(start_paused = true)]
    async fn policies_that_drop_come_first_and_the_first_match_may_end_it() {
        let sampled = |name: &str| format!("policy {{\nname = \"{name}\"\ntype = \"always_sample\"\n}}");
        let drop = "policy {\nname = \"drop\"\ntype = \"drop\"\ndrop { drop_sub_policy {\nname = \"x\"\ntype = \"status_code\"\nstatus_code { status_codes = [\"ERROR\"] }\n}\n}\n}";
        for (first_match, asked) in [(false, 1.0), (true, 0.0)] {
            let sink = OtlpSink::default();
            let (one, two) = (sampled("one"), sampled("two"));
            let body = format!("decision_wait = \"1s\"\nsample_on_first_match = {first_match}\n{one}\n{two}\n{drop}");
            let unit = start(&sink, &body).await.unwrap();
            send(&unit, "a b!").await;
            seconds(3.0).await;
            assert_eq!(arrived(&sink), ["a"]);
            let of = |name| metric(&unit, "sampling_policy_execution_count_total", &[("policy", name)]);
            assert_eq!(of("otelcol.processor.tail_sampling.a.drop"), Some(2.0));
            assert_eq!(of("otelcol.processor.tail_sampling.a.one"), Some(1.0));
            assert_eq!(of("otelcol.processor.tail_sampling.a.two"), Some(asked));
            let dropped =
                metric(&unit, "global_count_traces_sampled_total", &[("sampled", "false"), ("decision", "dropped")]);
            assert_eq!(dropped, Some(1.0));
            assert_eq!(balance(&unit), "taken 2, out 1, dropped {dropped by drop: 1}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_trace_makes_room_or_the_newest_waits() {
        let sink = OtlpSink::default();
        let unit = start(&sink, &format!("decision_wait = \"1s\"\nnum_traces = 2\n{ERRORS}")).await.unwrap();
        send(&unit, "a! b! c!").await;
        seconds(3.0).await;
        assert_eq!(arrived(&sink), ["b!", "c!"]);
        assert_eq!(metric(&unit, "sampling_trace_dropped_too_early_total", &[]), Some(1.0));
        // What was decided about goes first.
        send(&unit, "d! e!").await;
        seconds(3.0).await;
        assert_eq!(arrived(&sink), ["b!", "c!", "d!", "e!"]);
        assert_eq!(metric(&unit, "sampling_trace_dropped_too_early_total", &[]), Some(1.0));
        assert_eq!(balance(&unit), "taken 5, out 4, dropped {too early: 1}");

        let sink = OtlpSink::default();
        let body = format!("decision_wait = \"1s\"\nnum_traces = 2\nblock_on_overflow = true\n{ERRORS}");
        let unit = start(&sink, &body).await.unwrap();
        send(&unit, "a! b! c! d!").await;
        seconds(6.0).await;
        assert_eq!(arrived(&sink), ["a!", "b!", "c!", "d!"]);
        assert_eq!(balance(&unit), "taken 4, out 4");
    }

    #[tokio::test(start_paused = true)]
    async fn spans_of_all_traces_are_bounded_in_bytes() {
        for (blocks, wanted) in [(false, "b b c d"), (true, "a b b c d")] {
            let sink = OtlpSink::default();
            let body = format!(
                "decision_wait = \"5s\"\nnum_traces = 3\nmaximum_trace_size_bytes = 180000\nblock_on_overflow = {blocks}
                policy {{\n name = \"all\"\n type = \"always_sample\"\n}}"
            );
            let unit = start(&sink, &body).await.unwrap();
            let to = unit.world.consumer("input").traces;
            for trace in ["a", "b", "b", "c"] {
                let text = "x".repeat(if trace == "c" { 1_000 } else { 80_000 });
                let spans = otlp::<Span>(&format!(
                    r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"traceId":"{:032x}","name":"{trace}",
                    "attributes":[{{"key":"k","value":{{"stringValue":"{text}"}}}}]}}]}}]}}]}}"#,
                    trace.as_bytes()[0]
                ));
                to.consume(spans).await.unwrap();
            }
            seconds(20.0).await;
            to.consume(otlp::<Span>(
                r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"00000000000000000000000000000001","name":"d"}]}]}]}"#,
            ))
            .await
            .unwrap();
            seconds(20.0).await;
            let mut names: Vec<String> = Vec::new();
            for batch in sink.batches() {
                let json: serde_json::Value = serde_json::from_str(&batch.json).unwrap();
                for of in json["resourceSpans"].as_array().unwrap() {
                    for span in of["scopeSpans"][0]["spans"].as_array().unwrap() {
                        names.push(span["name"].as_str().unwrap().to_owned());
                    }
                }
            }
            names.sort();
            assert_eq!(names.join(" "), wanted, "blocks: {blocks}");
            let dropped = if blocks { "" } else { ", dropped {too early: 1}" };
            assert_eq!(balance(&unit), format!("taken 5, out {}{dropped}", names.len()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn decisions_are_remembered_longer_than_traces() {
        let sink = OtlpSink::default();
        let cache = "decision_cache = { sampled_cache_size = 1, non_sampled_cache_size = 10 }";
        let unit = start(&sink, &format!("decision_wait = \"1s\"\n{cache}\n{ERRORS}")).await.unwrap();
        send(&unit, "a! b c!").await;
        seconds(3.0).await;
        assert_eq!(arrived(&sink), ["a!", "c!"]);
        assert_eq!(metric(&unit, "sampling_traces_on_memory", &[]), Some(0.0));
        // Of the sampled ones only the last is remembered.
        send(&unit, "c b! a").await;
        seconds(3.0).await;
        assert_eq!(arrived(&sink), ["a!", "c!", "c"]);
        let early = |sampled| metric(&unit, "early_releases_from_cache_decision_total", &[("sampled", sampled)]);
        assert_eq!((early("true"), early("false")), (Some(1.0), Some(1.0)));
        assert_eq!(balance(&unit), "taken 6, out 3, dropped {late, not sampled: 1, not sampled: 2}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_trace_that_is_too_large_is_dropped_at_once() {
        let sink = OtlpSink::default();
        let size = span("a!").message_len() + 10;
        let body = format!("decision_wait = \"1s\"\nmaximum_trace_size_bytes = {size}\n{ERRORS}");
        let unit = start(&sink, &body).await.unwrap();
        send(&unit, "a! b! b! b!").await;
        seconds(3.0).await;
        assert_eq!(arrived(&sink), ["a!"]);
        assert_eq!(metric(&unit, "traces_dropped_too_large_total", &[]), Some(1.0));
        assert_eq!(balance(&unit), "taken 4, out 1, dropped {late, not sampled: 1, too large: 2}");
    }

    #[tokio::test(start_paused = true)]
    async fn data_are_held_until_the_decision_and_safe_after_it() {
        let sink = OtlpSink::default();
        let unit = start(&sink, &format!("decision_wait = \"1s\"\n{ERRORS}")).await.unwrap();
        sink.keep_acks();
        let (acks, mut told) = waiter();
        let mut batch = span("a!");
        batch.join(span("b"));
        batch.acks = acks;
        unit.world.consumer("input").traces.consume(batch).await.unwrap();
        assert_eq!(told.wait(Duration::from_millis(1)).await, Answer::Held);
        let (acks, settled) = noted();
        let mut batch = span("a!");
        batch.join(span("b"));
        batch.acks = acks;
        unit.world.consumer("input").traces.consume(batch).await.unwrap();
        seconds(3.0).await;
        assert_eq!(arrived(&sink), ["a!+a!"]);
        assert_eq!(*settled.0.lock(), []);
        sink.settle(true);
        assert_eq!(*settled.0.lock(), [corten_signal::acks::Settled::Safe]);
    }

    #[derive(Default)]
    struct Notes(parking_lot::Mutex<Vec<corten_signal::acks::Settled>>);

    impl corten_signal::acks::Settle for Notes {
        fn settled(&self, _: u64, how: corten_signal::acks::Settled) {
            self.0.lock().push(how);
        }
    }

    fn noted() -> (Acks, Arc<Notes>) {
        let notes = Arc::new(Notes::default());
        (Acks::new(0, notes.clone()), notes)
    }

    #[tokio::test(start_paused = true)]
    async fn undecided_traces_survive_a_change_and_are_decided_about_at_the_end() {
        for (drops, expected) in [(false, &["a!+a", "b!"][..]), (true, &[])] {
            let sink = OtlpSink::default();
            let mut unit = start(&sink, ERRORS).await.unwrap();
            send(&unit, "a! b!").await;
            let body = format!("drop_pending_traces_on_shutdown = {drops}\n{ERRORS}");
            unit.update(&with_output(&body)).await.unwrap();
            send(&unit, "a").await;
            unit.drain().await;
            assert_eq!(arrived(&sink), expected);
            assert_eq!(balance(&unit), if drops { "taken 3, dropped {shutdown: 3}" } else { "taken 3, out 3" });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_taken_for_now_is_sent_again_for_a_while() {
        let sink = OtlpSink::default();
        let unit = start(&sink, &format!("decision_wait = \"1s\"\n{ERRORS}")).await.unwrap();
        sink.answer_with(Some(ConsumeError::Retry { after: None, reason: "busy".into() }));
        send(&unit, "a! b!").await;
        seconds(10.0).await;
        sink.answer_with(None);
        until("they are sent", || arrived(&sink) == ["a!", "b!"]).await;
        sink.answer_with(Some(ConsumeError::Retry { after: None, reason: "busy".into() }));
        let (acks, settled) = noted();
        let mut batch = span("c!");
        batch.acks = acks;
        unit.world.consumer("input").traces.consume(batch).await.unwrap();
        seconds(60.0).await;
        assert_eq!(*settled.0.lock(), [corten_signal::acks::Settled::Failed]);
        assert!(unit.world.logs().contains("Error sending spans to destination"), "{}", unit.world.logs());
        assert_eq!(balance(&unit), "taken 3, out 2, dropped {not taken: 1}");
        sink.answer_with(Some(ConsumeError::Refused { reason: "never".into() }));
        send(&unit, "d!").await;
        seconds(3.0).await;
        assert_eq!(balance(&unit), "taken 4, out 2, dropped {not taken: 1, refused: 1}");
    }

    /// Never answers.
    struct Hangs;

    impl Consume<Traces> for Hangs {
        fn consume(&self, _: Batch<Span>) -> BoxFuture<'_, Result<(), ConsumeError>> {
            Box::pin(std::future::pending())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_answers_does_not_hold_up_the_end() {
        let inlet = corten_signal::Inlet::<Traces>::new("otelcol.test.hangs");
        inlet.attach(Arc::new(Hangs));
        let to = corten_otlp::Consumer { traces: inlet.receiver(), ..OtlpSink::default().consumer() };
        let sink = corten_config::Value::capsule(Arc::new(to));
        let definition = Definition::of::<TailSamplingProcessor>();
        let world = host("otelcol.processor.tail_sampling.a");
        let mut unit = Unit::start_with(world, &definition, &with_output(ERRORS), &[("sink", sink)]).await.unwrap();
        send(&unit, "a! b! c").await;
        let began = Instant::now();
        unit.drain().await;
        assert!(began.elapsed() < 2 * DRAIN_WAIT_MAX, "{:?}", began.elapsed());
        assert_eq!(balance(&unit), "taken 3, dropped {not sampled: 1, shutdown: 2}");
    }

    #[tokio::test(start_paused = true)]
    async fn conditions_that_fail_are_counted_and_have_no_say() {
        let sink = OtlpSink::default();
        let body = format!(
            "decision_wait = \"1s\"\npolicy {{\nname = \"fails\"\ntype = \"ottl_condition\"\nottl_condition {{\nerror_mode = \"propagate\"\nspan = [`Int(\"1\") / 0 == 1`]\n}}\n}}\n{ERRORS}"
        );
        let unit = start(&sink, &body).await.unwrap();
        send(&unit, "a! b").await;
        seconds(3.0).await;
        assert_eq!(arrived(&sink), ["a!"]);
        assert_eq!(metric(&unit, "sampling_policy_evaluation_error_total", &[]), Some(2.0));
    }

    #[tokio::test]
    async fn what_cannot_work_is_refused() {
        for (body, expected) in [
            (format!("decision_wait = \"0s\"\n{ERRORS}"), "decision_wait must be greater than zero"),
            (format!("decision_wait = \"-5s\"\n{ERRORS}"), "decision_wait must be greater than zero"),
            (format!("num_traces = 0\n{ERRORS}"), "num_traces must be greater than zero"),
            (String::new(), "missing required block \"policy\""),
            (format!("{ERRORS}\n{ERRORS}"), "test:8:8: duplicate policy name \"errors\""),
            ("policy {\nname = \"\"\ntype = \"always_sample\"\n}".into(), "policy name cannot be empty"),
        ] {
            let error = start(&OtlpSink::default(), &body).await.unwrap_err();
            assert!(error.contains(expected), "{body}: {error}");
        }
    }
}
