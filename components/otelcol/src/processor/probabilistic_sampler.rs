//! `otelcol.processor.probabilistic_sampler`.

mod consistent;

use std::sync::Arc;

use corten_component::metrics::Counter;
use corten_component::{Context, Error, Logger};
use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_otlp::{Arena, Batch, LogRecord, OtlpLogs, Span, Traces, Value};
use corten_signal::ConsumeError;
use corten_signal::ledger::Pass;

use self::consistent::{DIGITS, PROBABILITY_MIN, RANDOMNESS_MAX, Said, Threshold, TraceState};
use crate::flow::{DebugMetrics, Output};
use crate::metrics::{PROCESSOR, ScopedMetrics};
use crate::process::{Kind, Process, Processes, Processor};

/// Lets a share of spans and log records pass, the same ones wherever it is done with the same settings.
///
/// A span is dropped if its attribute `sampling.priority` is 0, and kept if it is greater, whatever the share.
///
/// What passes says with what probability: spans in the member `ot` of their trace state, as `th` and `rv`, log records in
/// the attributes `sampling.threshold` and `sampling.randomness`. It takes traces and logs.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct SamplerArguments {
    /// How many of a hundred pass. 100 and more let everything pass, 0 nothing.
    #[arg(default = 0)]
    sampling_percentage: f64,
    /// What to hash besides the trace id, with `hash_seed`: samplers one after the other need different seeds.
    #[arg(default = 0)]
    hash_seed: u32,
    /// How to choose: `hash_seed` takes a hash of the trace id; `proportional` lets the share pass of what arrives, on top of
    /// the sampling before; `equalizing` samples until the share is reached, so that what was sampled so much before
    /// passes. The last two read and write what OpenTelemetry specifies, and take the lowest 56 bits of the trace id.
    /// Left empty, and with any other word, it is `hash_seed`.
    #[arg(optional)]
    mode: String,
    /// Whether to drop what has nothing to choose by, such as a trace id, or whose trace state is malformed.
    #[arg(default = true)]
    fail_closed: bool,
    /// How many hexadecimal digits of the threshold are written, 1 to 14.
    #[arg(default = 4)]
    sampling_precision: i64,
    /// What to choose log records by with `hash_seed`: `traceID`, and `from_attribute` where there is none, or `record`, for
    /// `from_attribute` only.
    #[arg(default = "traceID")]
    attribute_source: String,
    /// Key of the attribute of log records to choose by.
    #[arg(optional)]
    from_attribute: String,
    /// Key of an attribute of log records whose value, a number, takes the place of `sampling_percentage`.
    #[arg(optional)]
    sampling_priority: String,
    /// Where to send what passes.
    #[block]
    output: Output,
    /// Which metrics of its own the component has.
    #[block(optional)]
    debug_metrics: DebugMetrics,
}

impl SamplerArguments {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        let percentage = self.sampling_percentage as f32;
        let ratio = f64::from(percentage) / 100.0;
        if !percentage.is_finite() {
            let shown = if percentage.is_nan() {
                "NaN"
            } else if percentage > 0.0 {
                "+Inf"
            } else {
                "-Inf"
            };
            errors.push(&["sampling_percentage"], format!("sampling rate is invalid: {shown}%"));
        } else if ratio < 0.0 {
            errors.push(&["sampling_percentage"], format!("sampling rate is negative: {percentage:.6}%"));
        } else if ratio != 0.0 && ratio < PROBABILITY_MIN {
            errors.push(&["sampling_percentage"], format!("sampling rate is too small: {percentage:e}%"));
        }
        if !["", "traceID", "record"].contains(&&*self.attribute_source) {
            let error = format!("invalid attribute source: {}. Expected: traceID or record", self.attribute_source);
            errors.push(&["attribute_source"], error);
        }
        if self.sampling_precision == 0 {
            errors.push(&["sampling_precision"], "invalid sampling precision: 0");
        } else if self.sampling_precision > DIGITS as i64 {
            let error = format!("sampling precision is too great, should be <= 14: {}", self.sampling_precision);
            errors.push(&["sampling_precision"], error);
        }
        errors.into_result()
    }
}

/// The component.
pub(crate) type ProbabilisticSampler = Processor<Probabilistic>;

/// What makes it.
pub(crate) struct Probabilistic;

impl Kind for Probabilistic {
    const NAME: &'static str = "otelcol.processor.probabilistic_sampler";
    const TYPE: &'static str = "probabilistic_sampler";
    type Arguments = SamplerArguments;

    fn output(arguments: &SamplerArguments) -> &Output {
        &arguments.output
    }

    fn processes(arguments: &SamplerArguments, cx: &Context<Processor<Self>>) -> Result<Processes, Error> {
        if !["", "hash_seed", "proportional", "equalizing"].contains(&&*arguments.mode) {
            let fields = [("mode", arguments.mode.as_str().into())];
            cx.logger().warn("unsupported sampler mode, hash_seed is used", &fields);
        }
        let scope = "github.com/open-telemetry/opentelemetry-collector-contrib/processor/probabilisticsamplerprocessor";
        let scoped = ScopedMetrics::new(cx, scope, Self::TYPE);
        let sample = |name, help| Sample {
            mode: Mode::new(arguments),
            fail_closed: arguments.fail_closed,
            precision: arguments.sampling_precision,
            priority: Some(&*arguments.sampling_priority)
                .filter(|key| !key.is_empty())
                .map(|key| key.as_bytes().into()),
            counters: Policy::ALL.map(|policy| {
                let policy = policy.name(&arguments.from_attribute);
                ["false", "true"].map(|sampled| {
                    scoped.counter_of(name, help, PROCESSOR, &[("policy", policy), ("sampled", sampled)])
                })
            }),
            logger: cx.logger().clone(),
        };
        Ok(Processes {
            traces: Some(Arc::new(sample(
                "otelcol_processor_probabilistic_sampler_count_traces_sampled_total",
                "Count of traces that were sampled or not",
            ))),
            logs: Some(Arc::new(sample(
                "otelcol_processor_probabilistic_sampler_count_logs_sampled_total",
                "Count of logs that were sampled or not",
            ))),
            metrics: None,
        })
    }
}

/// How to choose.
#[derive(Debug)]
enum Mode {
    /// Nothing passes.
    Never,
    Hash {
        seed: u32,
        threshold: Threshold,
        /// Whether log records are chosen by their trace ids.
        by_trace_id: bool,
        attribute: Box<[u8]>,
    },
    Equalizing(Threshold),
    Proportional {
        ratio: f64,
        precision: i64,
    },
}

const HASH_BUCKETS: u32 = 1 << 14;

impl Mode {
    fn new(arguments: &SamplerArguments) -> Self {
        let percentage = (arguments.sampling_percentage as f32).min(100.0);
        if percentage == 0.0 {
            return Mode::Never;
        }
        let precision = arguments.sampling_precision;
        let ratio = (f64::from(percentage) / 100.0).max(PROBABILITY_MIN);
        match &*arguments.mode {
            "equalizing" => Mode::Equalizing(Threshold::of(ratio, precision).unwrap_or(Threshold::ALWAYS)),
            "proportional" => Mode::Proportional { ratio, precision },
            _ => {
                // The multiplication has the precision that it always had, so that the same ids pass as ever.
                let accepted = (percentage * (HASH_BUCKETS as f32 / 100.0)) as u32;
                if accepted == 0 {
                    return Mode::Never;
                }
                Mode::Hash {
                    seed: arguments.hash_seed,
                    threshold: Threshold::new(u64::from(HASH_BUCKETS - accepted.min(HASH_BUCKETS)) << 42),
                    by_trace_id: arguments.attribute_source == "traceID",
                    attribute: arguments.from_attribute.as_bytes().into(),
                }
            }
        }
    }
}

/// What a choice was made by.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Policy {
    MissingRandomness,
    TraceIdHash,
    TraceIdW3c,
    SamplingRandomness,
    SamplingPriority,
    Attribute,
}

impl Policy {
    const ALL: [Policy; 6] = [
        Policy::MissingRandomness,
        Policy::TraceIdHash,
        Policy::TraceIdW3c,
        Policy::SamplingRandomness,
        Policy::SamplingPriority,
        Policy::Attribute,
    ];

    /// Why items are dropped that it does not choose.
    fn reason(self) -> &'static str {
        match self {
            Policy::MissingRandomness => "not sampled: missing_randomness",
            Policy::TraceIdHash => "not sampled: trace_id_hash",
            Policy::TraceIdW3c => "not sampled: trace_id_w3c",
            Policy::SamplingRandomness => "not sampled: sampling_randomness",
            Policy::SamplingPriority => "not sampled: sampling_priority",
            Policy::Attribute => "not sampled: attribute",
        }
    }

    fn name(self, attribute: &str) -> &str {
        match self {
            Policy::MissingRandomness => "missing_randomness",
            Policy::TraceIdHash => "trace_id_hash",
            Policy::TraceIdW3c => "trace_id_w3c",
            Policy::SamplingRandomness => "sampling_randomness",
            Policy::SamplingPriority => "sampling_priority",
            Policy::Attribute => attribute,
        }
    }
}

/// The hash of bytes and a seed, FNV-1a of 32 bits.
fn fnv(seed: u32, bytes: &[u8]) -> u32 {
    let bytes = seed.to_le_bytes().into_iter().chain(bytes.iter().copied());
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// 56 bits of randomness of a hash: the highest 14 decide, turned round so that the greater ones pass.
fn randomness_of(seed: u32, bytes: &[u8]) -> u64 {
    let hash = fnv(seed, bytes);
    let bucket = u64::from(hash & (HASH_BUCKETS - 1));
    let unused = u64::from(hash >> 18);
    (u64::from(HASH_BUCKETS) - 1 - bucket) << 42 | (unused ^ unused << 10) << 14 | bucket
}

/// Chooses items of a signal.
struct Sample {
    mode: Mode,
    fail_closed: bool,
    precision: i64,
    /// The attribute of log records that takes the place of the percentage.
    priority: Option<Box<[u8]>>,
    /// Of what was dropped and of what passed, by policies.
    counters: [[Counter; 2]; 6],
    logger: Logger,
}

/// What a choice is made by.
struct Drawn {
    policy: Policy,
    randomness: u64,
    /// What the item says; nothing if that is to stay as it is.
    said: Option<Said>,
    /// Randomness that is to be written.
    made: Option<u64>,
    problem: Option<&'static str>,
}

/// What is to be written to an item that passes.
struct Passing {
    made: Option<u64>,
    /// Nothing where what it says holds.
    threshold: Option<Threshold>,
}

const MISSING: &str = "missing randomness";
const MALFORMED: &str = "malformed sampling information";

/// What becomes of a batch.
#[derive(Default)]
struct Tally {
    counts: [[u64; 2]; 6],
    problem: Option<&'static str>,
}

impl Sample {
    fn draw(&self, said: Said, is_good: bool, trace_id: &[u8; 16], hashed: impl FnOnce() -> Hashed) -> Drawn {
        let mut drawn = Drawn {
            policy: Policy::MissingRandomness,
            randomness: RANDOMNESS_MAX,
            said: Some(said),
            made: None,
            problem: (!is_good).then_some(MALFORMED),
        };
        match &self.mode {
            Mode::Never => drawn.policy = Policy::SamplingPriority,
            Mode::Hash { .. } => {
                let hashed = hashed();
                (drawn.policy, drawn.randomness) = (hashed.policy, hashed.randomness);
                if is_good && said == Said::default() {
                    drawn.made = hashed.is_written.then_some(hashed.randomness);
                } else {
                    drawn.said = None;
                    drawn.problem = drawn.problem.or(Some(if said.randomness.is_some() {
                        "item has sampling randomness, equalizing or proportional mode recommended"
                    } else {
                        "item has sampling threshold, equalizing or proportional mode recommended"
                    }));
                }
            }
            Mode::Equalizing(_) | Mode::Proportional { .. } if !is_good => drawn.said = None,
            Mode::Equalizing(_) | Mode::Proportional { .. } => {
                if let Some(randomness) = said.randomness {
                    (drawn.policy, drawn.randomness) = (Policy::SamplingRandomness, randomness);
                } else if *trace_id != [0; 16] {
                    (drawn.policy, drawn.randomness) = (Policy::TraceIdW3c, consistent::of_trace_id(trace_id));
                }
            }
        }
        drawn
    }

    /// Chooses: what is to be written to an item that passes, nothing of it if what it says is to stay.
    fn choose(
        &self,
        mut drawn: Drawn,
        priority: impl FnOnce() -> Option<Threshold>,
        tally: &mut Tally,
    ) -> Option<Option<Passing>> {
        if drawn.problem.is_none() {
            let threshold = drawn.said.and_then(|said| said.threshold);
            if drawn.policy == Policy::MissingRandomness {
                drawn.problem = Some(MISSING);
            } else if threshold.is_some_and(|threshold| !threshold.samples(drawn.randomness)) {
                // What it says is not true.
                drawn.said = Some(Said { threshold: None, ..drawn.said.unwrap_or_default() });
                drawn.problem = Some("inconsistent arriving threshold: item should not have been sampled");
            }
        }
        let before = drawn.said.and_then(|said| said.threshold);
        let mut threshold = match &self.mode {
            _ if drawn.problem.is_some() && self.fail_closed => Threshold::NEVER,
            _ if drawn.problem.is_some() => Threshold::ALWAYS,
            Mode::Never => Threshold::NEVER,
            Mode::Hash { threshold, .. } => *threshold,
            Mode::Equalizing(threshold) => before.map_or(*threshold, |before| before.max(*threshold)),
            Mode::Proportional { ratio, precision } => {
                let before = before.map_or(1.0, Threshold::probability);
                Threshold::of(before * ratio, *precision).unwrap_or(Threshold::NEVER)
            }
        };
        if let Some(instead) = priority() {
            threshold = instead;
            drawn.policy = Policy::SamplingPriority;
        }
        let passes = threshold.samples(drawn.randomness);
        tally.counts[drawn.policy as usize][usize::from(passes)] += 1;
        tally.problem = tally.problem.or(drawn.problem);
        // The probability never rises.
        let threshold = before.is_none_or(|before| before <= threshold).then_some(threshold);
        passes.then(|| drawn.said.map(|_| Passing { made: drawn.made, threshold }))
    }

    fn tell(&self, tally: &Tally, pass: &mut Pass<'_>) {
        for (policy, counts) in Policy::ALL.into_iter().zip(tally.counts) {
            pass.dropped(policy.reason(), counts[0] as usize);
        }
        for (counters, counts) in self.counters.iter().zip(tally.counts) {
            for (counter, count) in counters.iter().zip(counts) {
                counter.add(count);
            }
        }
        if let Some(problem) = tally.problem {
            self.logger.debug("some items could not be sampled by what they say", &[("err", problem.into())]);
        }
    }

    fn span_passes(&self, span: &mut Span, arena: &mut Arena, scratch: &mut Vec<u8>, tally: &mut Tally) -> bool {
        let (state, is_good) = TraceState::parse(arena.bytes(span.trace_state));
        let drawn = self.draw(state.said, is_good, &span.trace_id, || {
            let Mode::Hash { seed, .. } = &self.mode else { return Hashed::MISSING };
            let hashed = if span.trace_id == [0; 16] {
                Hashed::MISSING
            } else {
                Hashed::new(Policy::TraceIdHash, randomness_of(*seed, &span.trace_id))
            };
            // Spans are told even that there is none.
            Hashed { is_written: true, ..hashed }
        });
        let Some(passing) = self.choose(drawn, || span_priority(span, arena), tally) else { return false };
        if let Some(passing) = passing {
            scratch.clear();
            state.write(passing.made, passing.threshold, scratch);
            span.trace_state = arena.own(scratch);
        }
        true
    }

    fn log_passes(&self, record: &mut LogRecord, arena: &mut Arena, scratch: &mut Vec<u8>, tally: &mut Tally) -> bool {
        let mut is_good = true;
        let text = |key| match arena.get(record.attributes, key) {
            Some(Value::Str(text)) => arena.bytes(text),
            _ => b"",
        };
        let (threshold, randomness) = (text(THRESHOLD), text(RANDOMNESS));
        let said =
            Said { threshold: Threshold::parse(threshold), randomness: consistent::parse_randomness(randomness) };
        is_good &= threshold.is_empty() || said.threshold.is_some();
        is_good &= randomness.is_empty() || said.randomness.is_some();
        let drawn = self.draw(said, is_good, &record.trace_id, || self.hash_of_log(record, arena, scratch));
        let Some(passing) = self.choose(drawn, || self.log_priority(record, arena), tally) else { return false };
        if let Some(passing) = passing {
            if let Some(made) = passing.made {
                scratch.clear();
                consistent::write_randomness(made, scratch);
                let value = Value::Str(arena.own(scratch));
                arena.put(&mut record.attributes, RANDOMNESS, value);
            }
            if let Some(threshold) = passing.threshold {
                scratch.clear();
                threshold.write(scratch);
                let value = Value::Str(arena.own(scratch));
                arena.put(&mut record.attributes, THRESHOLD, value);
            }
        }
        true
    }

    fn hash_of_log(&self, record: &LogRecord, arena: &Arena, scratch: &mut Vec<u8>) -> Hashed {
        let Mode::Hash { seed, by_trace_id, attribute, .. } = &self.mode else { return Hashed::MISSING };
        if *by_trace_id && record.trace_id != [0; 16] {
            return Hashed::new(Policy::TraceIdHash, randomness_of(*seed, &record.trace_id));
        }
        if attribute.is_empty() {
            return Hashed::MISSING;
        }
        let bytes = match arena.get(record.attributes, attribute) {
            Some(Value::Bytes(text) | Value::Str(text)) => arena.bytes(text),
            value => {
                scratch.clear();
                arena.write_text(value.unwrap_or_default(), scratch);
                scratch
            }
        };
        if bytes.is_empty() { Hashed::MISSING } else { Hashed::new(Policy::Attribute, randomness_of(*seed, bytes)) }
    }

    fn log_priority(&self, record: &LogRecord, arena: &Arena) -> Option<Threshold> {
        let probability = match arena.get(record.attributes, self.priority.as_deref()?)? {
            Value::Double(percentage) => percentage / 100.0,
            Value::Int(percentage) => percentage as f64 / 100.0,
            _ => return None,
        };
        Threshold::of(probability, self.precision)
    }
}

const THRESHOLD: &[u8] = b"sampling.threshold";
const RANDOMNESS: &[u8] = b"sampling.randomness";

/// Randomness by a hash.
struct Hashed {
    policy: Policy,
    randomness: u64,
    /// Whether the item is told of it.
    is_written: bool,
}

impl Hashed {
    const MISSING: Hashed = Hashed { policy: Policy::MissingRandomness, randomness: RANDOMNESS_MAX, is_written: false };

    fn new(policy: Policy, randomness: u64) -> Self {
        Hashed { policy, randomness, is_written: true }
    }
}

/// What the attribute `sampling.priority` of a span wants.
fn span_priority(span: &Span, arena: &Arena) -> Option<Threshold> {
    let priority = match arena.get(span.attributes, b"sampling.priority")? {
        Value::Int(priority) => priority as f64,
        Value::Double(priority) => priority,
        Value::Str(text) => corten_golang::parse_float(arena.bytes(text)).ok()?,
        _ => return None,
    };
    if priority == 0.0 { Some(Threshold::NEVER) } else { (priority > 0.0).then_some(Threshold::ALWAYS) }
}

impl Process<Traces> for Sample {
    fn process(&self, mut batch: Batch<Span>, pass: &mut Pass<'_>) -> Result<Batch<Span>, ConsumeError> {
        let mut data = batch.take_data();
        let (mut scratch, mut tally) = (Vec::new(), Tally::default());
        for part in &mut data {
            let arena = &mut part.arena;
            for of in part.resources.iter_mut().flat_map(|of| &mut of.scopes) {
                of.records.retain_mut(|span| self.span_passes(span, arena, &mut scratch, &mut tally));
            }
            part.prune();
        }
        self.tell(&tally, pass);
        Ok(batch.with(data))
    }
}

impl Process<OtlpLogs> for Sample {
    fn process(&self, mut batch: Batch<LogRecord>, pass: &mut Pass<'_>) -> Result<Batch<LogRecord>, ConsumeError> {
        let mut data = batch.take_data();
        let (mut scratch, mut tally) = (Vec::new(), Tally::default());
        for part in &mut data {
            let arena = &mut part.arena;
            for of in part.resources.iter_mut().flat_map(|of| &mut of.scopes) {
                of.records.retain_mut(|record| self.log_passes(record, arena, &mut scratch, &mut tally));
            }
            part.prune();
        }
        self.tell(&tally, pass);
        Ok(batch.with(data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_component::Definition;
    use corten_signal::acks::{Answer, waiter};
    use corten_testkit::{OtlpSink, Unit, host, otlp};

    use crate::process::{hostile, recorded};

    #[tokio::test]
    async fn the_same_items_pass_as_in_the_reference_and_say_the_same() {
        recorded::check::<ProbabilisticSampler>(include_str!("../../tests/data/processor_probabilistic_sampler.json"))
            .await;
    }

    #[tokio::test]
    async fn hostile_telemetry_does_no_harm() {
        hostile::survives::<ProbabilisticSampler>(&[
            "sampling_percentage = 50\nfail_closed = false\nfrom_attribute = \"a\"\nsampling_priority = \"service.name\"",
            "sampling_percentage = 1e-14\nmode = \"proportional\"\nfail_closed = false",
            "sampling_percentage = 99.999\nmode = \"equalizing\"\nsampling_precision = -100\nfail_closed = false",
            "sampling_percentage = 0",
        ])
        .await;
    }

    #[tokio::test]
    async fn what_is_dropped_is_safe_and_counted_by_what_it_was_dropped_for() {
        let sink = OtlpSink::default();
        let body = "sampling_percentage = 0\noutput {\ntraces = [sink]\n}";
        let definition = Definition::of::<ProbabilisticSampler>();
        let host = host("otelcol.processor.probabilistic_sampler.a");
        let unit = Unit::start_with(host, &definition, body, &[("sink", sink.value())]).await.unwrap();
        let mut batch = otlp::<Span>(r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"a"}]}]}]}"#);
        let (acks, mut told) = waiter();
        batch.acks = acks;
        unit.world.consumer("input").traces.consume(batch).await.unwrap();
        assert_eq!(told.wait(std::time::Duration::from_secs(60)).await, Answer::Safe);
        assert!(sink.batches().is_empty());
        let text = unit.world.metrics().text();
        let counted = text.lines().find(|line| {
            line.contains("count_traces_sampled_total")
                && line.contains("policy=\"sampling_priority\"")
                && line.contains("sampled=\"false\"")
        });
        assert!(counted.is_some_and(|line| line.ends_with(" 1")), "{text}");
        let balance = unit.world.balance_of(corten_signal::Kind::OtelTrace);
        assert_eq!(balance, "taken 1, dropped {not sampled: sampling_priority: 1}");
    }

    #[tokio::test]
    async fn what_makes_no_sense_is_refused() {
        let sink = OtlpSink::default();
        for (body, want) in [
            ("sampling_percentage = -1", "sampling rate is negative: -1.000000%"),
            ("sampling_percentage = 1e-20", "sampling rate is too small: 1e-20%"),
            ("sampling_precision = 0", "invalid sampling precision: 0"),
            ("sampling_precision = 15", "sampling precision is too great, should be <= 14: 15"),
            ("attribute_source = \"span\"", "invalid attribute source: span. Expected: traceID or record"),
        ] {
            let body = format!("{body}\noutput {{\ntraces = [sink]\n}}");
            let definition = Definition::of::<ProbabilisticSampler>();
            let host = host("otelcol.processor.probabilistic_sampler.a");
            let error = Unit::start_with(host, &definition, &body, &[("sink", sink.value())]).await.unwrap_err();
            assert!(error.contains(want), "{error}");
        }
    }
}
