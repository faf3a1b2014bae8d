//! `otelcol.processor.memory_limiter`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use corten_component::metrics::Counter;
use corten_component::size::ByteSize;
use corten_component::{Component, Context, Error, Logger, Stop, Task};
use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_config::encode::Item;
use corten_os::memory;
use corten_otlp::OtlpSignal;
use corten_signal::flow::BoxFuture;
use corten_signal::{Consume, ConsumeError, Fanout};
use tokio::sync::Notify;

use crate::flow::{DebugMetrics, Inlets, Input, MakeStage, Output};
use crate::metrics::{PROCESSOR, ScopedMetrics};
use crate::process::ProcessMetrics;
use crate::shown::{attr, show};

/// Refuses telemetry while the process has too much memory, so that whoever sends it tries again later and the process is
/// not killed.
///
/// It belongs right behind the receivers. What counts is the memory that the process has for its data, with what the
/// allocator keeps of what was freed, and without the program itself. From `limit` less `spike_limit` on, memory that is
/// free is given back to the system, and if that does not help, telemetry is refused until there is less again. Memory
/// is looked at every `check_interval`, and whenever a quarter of `spike_limit` arrived since.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct MemoryLimiterArguments {
    /// How often to look at the memory, at least.
    check_interval: Duration,
    /// The most memory that the process is to have, in whole mebibytes.
    #[arg(optional)]
    limit: ByteSize,
    /// How much memory is left for what arrives before the next look, in whole mebibytes. It is less than `limit`.
    #[arg(default_with = ByteSize::default, default_text = "20% of limit")]
    spike_limit: ByteSize,
    /// The most memory that the process is to have, as a percentage of what its control group allows or, if that is less,
    /// of what the machine has. It stands in place of `limit`: only one of the two may be set.
    #[arg(default = 0)]
    limit_percentage: u32,
    /// How much memory is left for what arrives before the next look, as a percentage of the same.
    #[arg(default = 0)]
    spike_limit_percentage: u32,
    /// Where to send what is taken.
    #[block]
    output: Output,
    /// Which metrics of its own the component has.
    #[block(optional)]
    debug_metrics: DebugMetrics,
}

const MIB: u64 = 1 << 20;

impl MemoryLimiterArguments {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        errors.require(!self.check_interval.is_zero(), &["check_interval"], "check_interval must be greater than zero");
        let (limit, percentages) = (self.limit.bytes(), [self.limit_percentage, self.spike_limit_percentage]);
        if limit > 0 && self.limit_percentage > 0 {
            let error = "either limit or limit_percentage must be set, but not both";
            errors.push(&["limit", "limit_percentage"], error);
        } else if limit > 0 {
            let holds = self.spike_limit.bytes() < limit;
            errors.require(holds, &["spike_limit", "limit"], "spike_limit must be less than limit");
        } else if self.limit_percentage > 0 {
            errors.require(
                percentages.iter().all(|percentage| (1..=100).contains(percentage)),
                &["limit_percentage", "spike_limit_percentage"],
                "limit_percentage and spike_limit_percentage must be greater than 0 and and less or equal than 100",
            );
        } else {
            let error = "either limit or limit_percentage must be set to greater than zero";
            errors.push(&["limit", "limit_percentage"], error);
        }
        errors.into_result()
    }
}

/// The component.
pub struct MemoryLimiter {
    inlets: Arc<Inlets>,
    _task: Task,
}

/// What is to be put in place.
pub struct Prepared {
    inlets: Arc<Inlets>,
    output: Output,
    limits: Limits,
    check_interval: Duration,
}

impl Component for MemoryLimiter {
    const NAME: &'static str = "otelcol.processor.memory_limiter";
    type Arguments = MemoryLimiterArguments;
    type Exports = Input;
    type Prepared = Prepared;

    async fn prepare(
        arguments: MemoryLimiterArguments,
        cx: &Context<Self>,
        current: Option<&Self>,
    ) -> Result<(Prepared, Input), Error> {
        memory::data_bytes().ok_or("the system does not tell how much memory the process has")?;
        let limits = Limits::new(&arguments, memory::bytes_max)?;
        let inlets = current.map_or_else(|| Inlets::of(cx.ledger()), |current| Arc::clone(&current.inlets));
        let exports = inlets.exports();
        let MemoryLimiterArguments { output, check_interval, .. } = arguments;
        Ok((Prepared { inlets, output, limits, check_interval }, exports))
    }

    fn commit(_: Option<Self>, prepared: Prepared, cx: &Context<Self>) -> Self {
        let Prepared { inlets, output, limits, check_interval } = prepared;
        let fields = [
            ("limit_mib", (limits.hard / MIB).into()),
            ("spike_limit_mib", ((limits.hard - limits.soft) / MIB).into()),
            ("check_interval", check_interval.into()),
        ];
        cx.logger().info("Memory limiter configured", &fields);
        let gate = Arc::new(Gate::new(limits, cx.logger().clone(), System));
        let looked_at = Arc::clone(&gate);
        show(cx, move || looked_at.shown());
        inlets.attach(output.stages(cx, &Make { gate: &gate, cx }));
        let task = cx.spawn("watch memory", move |stop| watch(Arc::clone(&gate), check_interval, stop));
        MemoryLimiter { inlets, _task: task }
    }

    async fn drain(self, _: &Context<Self>) {
        self.inlets.close();
    }
}

/// Looks at the memory at intervals, and when a gate asks for it.
async fn watch(gate: Arc<Gate<System>>, interval: Duration, mut stop: Stop) -> Result<(), String> {
    loop {
        let looks = Arc::clone(&gate);
        // The allocator may take a while.
        tokio::task::spawn_blocking(move || looks.check()).await.map_err(|error| error.to_string())?;
        tokio::select! {
            goes_on = stop.sleep(interval) => if !goes_on {
                return Ok(());
            },
            () = gate.asked.notified() => {}
        }
    }
}

/// From how much memory on something happens, in bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Limits {
    /// From here on telemetry is refused.
    soft: u64,
    /// What is to be the most.
    hard: u64,
}

impl Limits {
    fn new(arguments: &MemoryLimiterArguments, bytes_max: impl FnOnce() -> Option<u64>) -> Result<Self, Error> {
        let (hard, spike) = if arguments.limit.bytes() > 0 {
            let whole = |size: ByteSize| size.bytes() / MIB * MIB;
            (whole(arguments.limit), whole(arguments.spike_limit))
        } else {
            let total = bytes_max().ok_or("failed to get total memory, use fixed memory settings (limit_mib)")?;
            let share = |percentage: u32| (u128::from(total) * u128::from(percentage) / 100) as u64;
            (share(arguments.limit_percentage), share(arguments.spike_limit_percentage))
        };
        let spike = match spike {
            0 => hard / 5 / MIB * MIB,
            // Percentages may contradict each other: then there is no room for what arrives meanwhile.
            spike if spike >= hard => 0,
            spike => spike,
        };
        Ok(Limits { soft: hard - spike, hard })
    }
}

/// The memory of a process.
trait Memory: Send + Sync + 'static {
    /// How much there is, in bytes.
    fn bytes(&self) -> u64;
    /// Gives back what is free.
    fn release(&self);
}

/// The memory of this process.
struct System;

impl Memory for System {
    fn bytes(&self) -> u64 {
        memory::data_bytes().unwrap_or_default()
    }

    fn release(&self) {
        memory::release_free();
    }
}

/// Lets telemetry in or not.
struct Gate<M> {
    refuses: AtomicBool,
    limits: Limits,
    /// How many bytes were let in since the last look.
    taken_bytes: AtomicU64,
    /// Somebody wants the memory to be looked at.
    asked: Notify,
    logger: Logger,
    memory: M,
}

/// A part of what may arrive between two looks after which there is one more.
const LOOKS_PER_SPIKE: u64 = 4;
/// The least that has to arrive for that.
const LOOK_BYTES_MIN: u64 = MIB;

impl<M: Memory> Gate<M> {
    fn new(limits: Limits, logger: Logger, memory: M) -> Self {
        Gate {
            refuses: AtomicBool::new(false),
            limits,
            taken_bytes: AtomicU64::new(0),
            asked: Notify::new(),
            logger,
            memory,
        }
    }

    fn shown(&self) -> Vec<Item> {
        vec![
            attr("is_refusing", self.refuses.load(Ordering::Relaxed)),
            attr("memory_bytes", self.memory.bytes()),
            attr("refuses_from_bytes", self.limits.soft),
            attr("limit_bytes", self.limits.hard),
        ]
    }

    /// Whether telemetry of so many bytes is let in.
    fn takes(&self, bytes: usize) -> bool {
        if self.refuses.load(Ordering::Relaxed) {
            return false;
        }
        let look_bytes = ((self.limits.hard - self.limits.soft) / LOOKS_PER_SPIKE).max(LOOK_BYTES_MIN);
        let taken = self.taken_bytes.fetch_add(bytes as u64, Ordering::Relaxed).saturating_add(bytes as u64);
        if taken < look_bytes {
            return true;
        }
        self.taken_bytes.store(0, Ordering::Relaxed);
        let bytes = self.memory.bytes();
        if bytes < self.limits.soft {
            return true;
        }
        // What can be given back is given back by the task, which lets in what comes after that.
        self.refuse(bytes);
        self.asked.notify_one();
        false
    }

    fn refuse(&self, bytes: u64) {
        if !self.refuses.swap(true, Ordering::Relaxed) {
            self.tell(Logger::warn, "Memory usage is above soft limit. Refusing data.", bytes);
        }
    }

    fn tell(&self, log: fn(&Logger, &str, &[(&str, corten_component::log::Field)]), message: &str, bytes: u64) {
        log(&self.logger, message, &[("cur_mem_mib", (bytes / MIB).into())]);
    }

    /// Looks at the memory, gives back what is free if there is too much, and lets telemetry in or not.
    fn check(&self) {
        self.taken_bytes.store(0, Ordering::Relaxed);
        let mut bytes = self.memory.bytes();
        if bytes >= self.limits.soft {
            let begun = Instant::now();
            self.memory.release();
            let before = bytes;
            bytes = self.memory.bytes();
            let fields = [
                ("cur_mem_mib", (bytes / MIB).into()),
                ("released_mib", (before.saturating_sub(bytes) / MIB).into()),
                ("duration", begun.elapsed().into()),
            ];
            self.logger.debug("Memory usage was above soft limit. Gave back what is free.", &fields);
        }
        if bytes >= self.limits.soft {
            self.refuse(bytes);
        } else if self.refuses.swap(false, Ordering::Relaxed) {
            self.tell(Logger::info, "Memory usage back within limits. Resuming normal operation.", bytes);
        }
    }
}

struct Make<'a> {
    gate: &'a Arc<Gate<System>>,
    cx: &'a Context<MemoryLimiter>,
}

impl MakeStage for Make<'_> {
    fn stage<S: OtlpSignal>(&self, forward: Fanout<S>) -> Arc<dyn Consume<S>> {
        let (accepted, refused) = match S::NAME {
            "traces" => (
                "otelcol_processor_memory_limiter_accepted_spans_total",
                "otelcol_processor_memory_limiter_refused_spans_total",
            ),
            "metrics" => (
                "otelcol_processor_memory_limiter_accepted_metric_points_total",
                "otelcol_processor_memory_limiter_refused_metric_points_total",
            ),
            _ => (
                "otelcol_processor_memory_limiter_accepted_log_records_total",
                "otelcol_processor_memory_limiter_refused_log_records_total",
            ),
        };
        let scope = "go.opentelemetry.io/collector/processor/memorylimiterprocessor";
        let scoped = ScopedMetrics::new(self.cx, scope, "memory_limiter");
        Arc::new(Stage {
            gate: Arc::clone(self.gate),
            forward,
            accepted: scoped.counter(accepted, "Number of items that were let in.", PROCESSOR),
            refused: scoped.counter(refused, "Number of items that were refused for want of memory.", PROCESSOR),
            metrics: ProcessMetrics::new::<_, S>(self.cx, "memory_limiter"),
        })
    }
}

/// A signal's part of the component.
struct Stage<S: OtlpSignal> {
    gate: Arc<Gate<System>>,
    forward: Fanout<S>,
    accepted: Counter,
    refused: Counter,
    metrics: ProcessMetrics,
}

impl<S: OtlpSignal> Consume<S> for Stage<S> {
    fn consume(&self, batch: S::Batch) -> BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(async move {
            let begun = Instant::now();
            let items = batch.items();
            if !self.gate.takes(batch.held_bytes()) {
                self.refused.add(items as u64);
                self.metrics.observe(items, 0, begun);
                let reason = "data refused due to high memory usage".to_owned();
                return Err(ConsumeError::Retry { after: None, reason });
            }
            self.accepted.add(items as u64);
            self.metrics.observe(items, items, begun);
            self.forward.consume(batch).await
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use corten_component::Definition;
    use corten_component::log::LogSink;
    use corten_otlp::{LogRecord, OtlpLogs};
    use corten_signal::Receiver;
    use corten_testkit::{OtlpSink, Unit, host, otlp, until};

    use super::*;

    async fn start(sink: &OtlpSink, body: &str) -> Result<Unit, String> {
        let body = format!("{body}\noutput {{\n logs = [sink]\n}}");
        let host = host("otelcol.processor.memory_limiter.a");
        Unit::start_with(host, &Definition::of::<MemoryLimiter>(), &body, &[("sink", sink.value())]).await
    }

    fn counted(unit: &Unit, what: &str) -> Option<f64> {
        let labels = [
            ("processor", "memory_limiter/otelcol.processor.memory_limiter.a"),
            ("otel_scope_name", "go.opentelemetry.io/collector/processor/memorylimiterprocessor"),
            ("otel_scope_version", ""),
            ("otel_scope_schema_url", ""),
        ];
        let name = format!("otelcol_processor_memory_limiter_{what}_log_records_total");
        unit.world.metrics().get(&name, &labels)
    }

    const RECORD: &str = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"x"}}]}]}]}"#;

    #[tokio::test]
    async fn telemetry_is_refused_for_now_where_memory_is_short_and_goes_on_where_it_is_not() {
        let sink = OtlpSink::default();
        let mut unit = start(&sink, "check_interval = \"10ms\"\nlimit = \"1GiB\"").await.unwrap();
        let to: Receiver<OtlpLogs> = unit.world.consumer("input").logs;
        to.consume(otlp::<LogRecord>(RECORD)).await.unwrap();
        assert_eq!((sink.items(), counted(&unit, "accepted"), counted(&unit, "refused")), (1, Some(1.0), Some(0.0)));

        let body = "check_interval = \"10ms\"\nlimit = \"1MiB\"\noutput {\n logs = [sink]\n}";
        unit.update(body).await.unwrap();
        until("it refuses", || unit.world.logs().contains("Memory usage is above soft limit. Refusing data.")).await;
        let error = to.consume(otlp::<LogRecord>(RECORD)).await.unwrap_err();
        assert_eq!(error.to_string(), "data refused due to high memory usage");
        assert!(matches!(error, ConsumeError::Retry { .. }));
        assert_eq!((sink.items(), counted(&unit, "refused")), (1, Some(1.0)));

        unit.update(&body.replace("limit = \"1MiB\"", "limit_percentage = 100\nspike_limit_percentage = 1"))
            .await
            .unwrap();
        until("it takes telemetry again", || sink.items() == 1).await;
        to.consume(otlp::<LogRecord>(RECORD)).await.unwrap();
        assert_eq!(sink.items(), 2);
        assert_eq!(unit.world.balance_of(corten_signal::Kind::OtelLog), "taken 2, out 2");
        assert_eq!(crate::testing::told(&unit.world)[0], "is_refusing = false");
    }

    #[tokio::test]
    async fn what_contradicts_itself_is_refused() {
        let sink = OtlpSink::default();
        for (body, want) in [
            ("check_interval = \"0s\"\nlimit = \"1MiB\"", "check_interval must be greater than zero"),
            ("check_interval = \"1s\"", "either limit or limit_percentage must be set to greater than zero"),
            (
                "check_interval = \"1s\"\nlimit = \"1MiB\"\nlimit_percentage = 1",
                "either limit or limit_percentage must be set, but not both",
            ),
            (
                "check_interval = \"1s\"\nlimit = \"1MiB\"\nspike_limit = \"1MiB\"",
                "spike_limit must be less than limit",
            ),
            (
                "check_interval = \"1s\"\nlimit_percentage = 1",
                "limit_percentage and spike_limit_percentage must be greater than 0 and and less or equal than 100",
            ),
        ] {
            let error = start(&sink, body).await.unwrap_err();
            assert!(error.contains(want), "{error}");
        }
    }

    fn arguments(limit: &str, spike: &str, percentages: [u32; 2]) -> MemoryLimiterArguments {
        use corten_config::decode::TextType;
        MemoryLimiterArguments {
            check_interval: Duration::from_secs(1),
            limit: ByteSize::parse(limit).unwrap(),
            spike_limit: ByteSize::parse(spike).unwrap(),
            limit_percentage: percentages[0],
            spike_limit_percentage: percentages[1],
            output: Output::default(),
            debug_metrics: DebugMetrics::default(),
        }
    }

    #[test]
    fn limits_are_whole_mebibytes_or_shares_of_the_memory() {
        for (limit, spike, percentages, soft, hard) in [
            ("100MiB", "0", [0, 0], 80 * MIB, 100 * MIB),
            ("256MiB", "0", [0, 0], 205 * MIB, 256 * MIB),
            ("1537KiB", "1025KiB", [0, 0], MIB, MIB),
            ("100MiB", "30MiB", [0, 0], 70 * MIB, 100 * MIB),
            ("0", "0", [50, 20], 300, 500),
            ("0", "0", [20, 50], 200, 200),
        ] {
            let limits = Limits::new(&arguments(limit, spike, percentages), || Some(1000)).unwrap();
            assert_eq!(limits, Limits { soft, hard }, "{limit} {spike} {percentages:?}");
        }
        assert!(Limits::new(&arguments("0", "0", [1, 1]), || None).is_err());
    }

    #[derive(Default)]
    struct Told {
        bytes: AtomicU64,
        /// What there is after what is free was given back.
        live_bytes: AtomicU64,
        looks: AtomicUsize,
    }

    impl Memory for Arc<Told> {
        fn bytes(&self) -> u64 {
            self.looks.fetch_add(1, Ordering::Relaxed);
            self.bytes.load(Ordering::Relaxed)
        }

        fn release(&self) {
            self.bytes.fetch_min(self.live_bytes.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    #[test]
    fn the_gate_closes_between_checks_and_opens_when_free_memory_was_given_back() {
        let told = Arc::new(Told::default());
        let limits = Limits { soft: 80 * MIB, hard: 120 * MIB };
        let gate = Gate::new(limits, Logger::new(LogSink::memory().0), Arc::clone(&told));
        assert!((0..9).all(|_| gate.takes(MIB as usize)));
        assert_eq!(told.looks.load(Ordering::Relaxed), 0);
        told.bytes.store(80 * MIB, Ordering::Relaxed);
        told.live_bytes.store(80 * MIB, Ordering::Relaxed);
        assert!(!gate.takes(MIB as usize), "a quarter of the spike has arrived");
        gate.check();
        assert!(!gate.takes(0));
        told.live_bytes.store(79 * MIB, Ordering::Relaxed);
        gate.check();
        assert!(gate.takes(0));
    }
}
