//! Whatever those do that a component sends to, and whoever gives up waiting for it: each item is somewhere.

use std::sync::Arc;
use std::time::Duration;

use corten_component::{Component, Definition};
use corten_config::Value;
use corten_otlp::{Batch, Consumer, LogRecord, Metric, OtlpLogs, OtlpMetrics, Span, Traces};
use corten_signal::ledger::open_sums;
use corten_signal::{
    BlockBuilder, Fanout, Inlet, LabelsBuilder, Ledger, Logs, LogsBatch, Metrics, MetricsBatch, Sample, SeriesPart,
    Signal,
};
use corten_testkit::{Deed, Fickle, Unit, World, host, logs, otlp};
use proptest::prelude::*;

use crate::connector::count::CountConnector;
use crate::connector::host_info::HostInfoConnector;
use crate::connector::servicegraph::ServiceGraphConnector;
use crate::connector::spanlogs::SpanLogsConnector;
use crate::connector::spanmetrics::SpanMetricsConnector;
use crate::exporter::loki::LokiExporter;
use crate::exporter::prometheus::PrometheusExporter;
use crate::processor::batch::BatchProcessor;
use crate::processor::cumulativetodelta::CumulativeToDeltaProcessor;
use crate::processor::deltatocumulative::DeltaToCumulativeProcessor;
use crate::processor::filter::FilterProcessor;
use crate::processor::groupbyattrs::GroupByAttrsProcessor;
use crate::processor::interval::IntervalProcessor;
use crate::processor::metric_start_time::MetricStartTimeProcessor;
use crate::processor::probabilistic_sampler::ProbabilisticSampler;
use crate::processor::tail_sampling::TailSamplingProcessor;
use crate::processor::transform::TransformProcessor;
use crate::receiver::loki::LokiReceiver;
use crate::receiver::prometheus::PrometheusReceiver;

/// A sink with books of its own, for all signals, as others see it.
struct Taker {
    ledger: Arc<Ledger>,
    /// As a consumer of OpenTelemetry's signals, and as a receiver of log entries and of samples.
    values: [Value; 3],
    _of_consumer: (Inlet<Traces>, Inlet<OtlpMetrics>, Inlet<OtlpLogs>),
    _others: (Inlet<Logs>, Inlet<Metrics>),
}

impl Taker {
    fn new(name: &str, deeds: &[Deed]) -> Self {
        fn inlet<S: Signal>(ledger: &Ledger, sink: &Fickle) -> Inlet<S> {
            let inlet = Inlet::of(ledger);
            inlet.attach(sink.counting::<S>(ledger));
            inlet
        }
        let (ledger, sink) = (Ledger::new(name), Fickle::new(deeds));
        let (inlets, others) = (
            (inlet(&ledger, &sink), inlet(&ledger, &sink), inlet(&ledger, &sink)),
            (inlet(&ledger, &sink), inlet(&ledger, &sink)),
        );
        let consumer =
            Consumer { traces: inlets.0.receiver(), metrics: inlets.1.receiver(), logs: inlets.2.receiver() };
        let values = [
            Value::capsule(Arc::new(consumer)),
            Value::capsule(Arc::new(others.0.receiver())),
            Value::capsule(Arc::new(others.1.receiver())),
        ];
        Taker { ledger, values, _of_consumer: inlets, _others: others }
    }
}

/// What happens to a component.
#[derive(Clone, Debug)]
enum Step {
    /// Somebody sends items, and waits so long for the answer.
    Send {
        items: Vec<(u8, u8)>,
        wait: Duration,
    },
    Wait(Duration),
    /// It gets the other arguments of two.
    Change,
}

fn step() -> impl Strategy<Value = Step> {
    let wait = prop_oneof![Just(1), Just(40)].prop_map(Duration::from_secs);
    let send = (prop::collection::vec((0u8..6, any::<u8>()), 0..7), wait);
    prop_oneof![
        6 => send.prop_map(|(items, wait)| Step::Send { items, wait }),
        2 => (0u64..15_000).prop_map(|wait| Step::Wait(Duration::from_millis(wait))),
        1 => Just(Step::Change),
    ]
}

fn joined(items: &[(u8, u8)], item: impl Fn(usize, u8, u8) -> String) -> String {
    let items: Vec<String> = items.iter().enumerate().map(|(at, (series, value))| item(at, *series, *value)).collect();
    items.join(",")
}

fn spans(items: &[(u8, u8)]) -> Batch<Span> {
    let spans = joined(items, |_, series, value| {
        let (kind, code, id) = (2 + value % 3, value % 4 / 3 * 2, 1 + value % 4);
        format!(
            r#"{{"traceId":"{:032x}","spanId":"{id:016x}","parentSpanId":"{id:016x}","name":"n{series}","kind":{kind},"status":{{"code":{code}}}}}"#,
            series + 1
        )
    });
    let service = match items.first() {
        Some((0, _)) => "",
        _ => r#"{"key":"service.name","value":{"stringValue":"shop"}},{"key":"host.id","value":{"stringValue":"h"}}"#,
    };
    otlp(&format!(
        r#"{{"resourceSpans":[{{"resource":{{"attributes":[{service}]}},"scopeSpans":[{{"spans":[{spans}]}}]}}]}}"#
    ))
}

/// Points of gauges, and of sums that count since a time or since the last point.
fn points(items: &[(u8, u8)], time: usize) -> Batch<Metric> {
    let point = |at: usize, series: u8, value: u8| {
        let (flags, time) =
            (u8::from(value == 7), (time + at).saturating_sub(usize::from(value.is_multiple_of(5)) * 9) + 1);
        format!(
            r#"{{"asInt":"{value}","startTimeUnixNano":"{}","timeUnixNano":"{time}","flags":{flags},
            "attributes":[{{"key":"k","value":{{"intValue":"{series}"}}}}]}}"#,
            value % 3
        )
    };
    let metrics = ["1", "2"].map(|temporality| {
        let points = joined(items, point);
        format!(r#"{{"name":"s","sum":{{"aggregationTemporality":{temporality},"isMonotonic":true,"dataPoints":[{points}]}}}}"#)
    });
    let gauge = format!(r#"{{"name":"g","gauge":{{"dataPoints":[{}]}}}}"#, joined(items, point));
    let [sums, counts] = metrics;
    otlp(&format!(r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{gauge},{sums},{counts}]}}]}}]}}"#))
}

fn records(items: &[(u8, u8)]) -> Batch<LogRecord> {
    let record =
        |_, series: u8, value: u8| format!(r#"{{"severityNumber":{},"body":{{"stringValue":"{value}"}}}}"#, series + 1);
    otlp(&format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{}]}}]}}]}}"#, joined(items, record)))
}

/// Log entries.
fn entries(items: &[(u8, u8)]) -> LogsBatch {
    let lines: Vec<String> = items.iter().map(|(_, value)| value.to_string()).collect();
    logs(&[("app", "shop")], &lines.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Samples of gauges, of counters and of what is no series of OpenTelemetry.
fn samples(items: &[(u8, u8)], time: usize) -> Arc<MetricsBatch> {
    let (mut block, mut labels) = (BlockBuilder::new(), LabelsBuilder::new());
    let samples = items.iter().enumerate().filter_map(|(at, (series, value))| {
        labels.clear();
        labels.push("__name__", ["up", "a_total", "b_bucket", "c_sum", "d", ""][usize::from(*series) % 6]);
        labels.push("job", "j");
        labels.push("instance", &at.to_string());
        let index = block.push(&mut labels).ok()?;
        Some(Sample { value: f64::from(*value), index, offset_ms: at as i32 })
    });
    let samples: Vec<Sample> = samples.collect();
    Arc::new(MetricsBatch::of(vec![SeriesPart::of_samples(block.finish(false), time as i64, samples)]))
}

/// Sends a batch, as a source does that gives up after a while; whether it was taken.
async fn send<S: Signal>(source: &Arc<Ledger>, to: &Fanout<S>, batch: S::Batch, wait: Duration) -> bool {
    let (source, to) = (Arc::clone(source), to.clone());
    // In a task of its own, as a panic of a component is.
    let call = tokio::spawn(async move {
        let items = S::items(&batch);
        let taken = matches!(tokio::time::timeout(wait, to.consume(batch)).await, Ok(Ok(())));
        if taken {
            source.row_of::<S>().received(items);
        }
        taken
    });
    call.await.unwrap_or(false)
}

/// What a component is sent, by signal.
#[derive(Default)]
struct Doors {
    traces: Option<Fanout<Traces>>,
    metrics: Option<Fanout<OtlpMetrics>>,
    records: Option<Fanout<OtlpLogs>>,
    entries: Option<Fanout<Logs>>,
    samples: Option<Fanout<Metrics>>,
}

impl Doors {
    /// Those of a consumer of OpenTelemetry's signals.
    fn of_consumer(world: &World, source: &Ledger) -> Self {
        let to = world.consumer("input");
        Doors {
            traces: Some(Fanout::of(source, [to.traces])),
            metrics: Some(Fanout::of(source, [to.metrics])),
            records: Some(Fanout::of(source, [to.logs])),
            ..Doors::default()
        }
    }

    /// Sends the same items as all signals; whether all took them.
    async fn send(&self, source: &Arc<Ledger>, items: &[(u8, u8)], time: usize, wait: Duration) -> bool {
        async fn one<S: Signal>(
            source: &Arc<Ledger>,
            to: &Option<Fanout<S>>,
            batch: impl FnOnce() -> S::Batch,
            wait: Duration,
        ) -> bool {
            match to {
                Some(to) => send(source, to, batch(), wait).await,
                None => true,
            }
        }
        let all = tokio::join!(
            one(source, &self.traces, || spans(items), wait),
            one(source, &self.metrics, || points(items, time), wait),
            one(source, &self.records, || records(items), wait),
            one(source, &self.entries, || entries(items), wait),
            one(source, &self.samples, || samples(items, time), wait),
        );
        all == (true, true, true, true, true)
    }
}

/// Does all that with a component that sends to an `output`, ends the component, and looks whether each item is somewhere and
/// nothing is kept.
async fn lives<C: Component>(bodies: [&str; 2], sinks: &[Vec<Deed>], steps: &[Step]) -> Result<(), TestCaseError> {
    let list = output(sinks);
    lives_behind::<C>(bodies.map(|body| format!("{body}\n{list}")), sinks, steps, Doors::of_consumer).await
}

/// An `output` block of all sinks.
fn output(sinks: &[Vec<Deed>]) -> String {
    let list = ["a", "b"][..sinks.len()].join(", ");
    format!("output {{\n traces = [{list}]\n metrics = [{list}]\n logs = [{list}]\n}}")
}

/// A `forward_to` of all sinks, which take entries or samples.
fn forward_to(sinks: &[Vec<Deed>], what: &str) -> String {
    let list: Vec<String> = ["a", "b"][..sinks.len()].iter().map(|name| format!("{what}_{name}")).collect();
    format!("forward_to = [{}]", list.join(", "))
}

async fn lives_behind<C: Component>(
    bodies: [String; 2],
    sinks: &[Vec<Deed>],
    steps: &[Step],
    doors: impl FnOnce(&World, &Ledger) -> Doors,
) -> Result<(), TestCaseError> {
    let sinks: Vec<_> =
        sinks.iter().enumerate().map(|(at, deeds)| Taker::new(&format!("test.sink.{at}"), deeds)).collect();
    const NAMES: [[&str; 3]; 2] = [["a", "entries_a", "samples_a"], ["b", "entries_b", "samples_b"]];
    let names = NAMES.iter().zip(&sinks).flat_map(|(names, taker)| names.iter().copied().zip(taker.values.clone()));
    let names: Vec<_> = names.collect();
    let world = host(&format!("{}.a", C::NAME));
    let mut unit = Unit::start_with(world.clone(), &Definition::of::<C>(), &bodies[0], &names).await.unwrap();
    let source = Ledger::new("test.source");
    let doors = doors(&unit.world, &source);
    let mut arguments = 0;
    for (time, step) in steps.iter().enumerate() {
        match step {
            Step::Wait(wait) => tokio::time::sleep(*wait).await,
            Step::Change => {
                arguments = 1 - arguments;
                unit.update(&bodies[arguments]).await.unwrap();
            }
            // What is not taken is offered once more.
            Step::Send { items, wait } => {
                _ = doors.send(&source, items, time * 10, *wait).await
                    || doors.send(&source, items, time * 10, *wait).await;
            }
        }
    }
    unit.drain().await;
    // Deliveries apart from the others go on for a while; those that hang are in flight.
    tokio::time::sleep(Duration::from_secs(600)).await;
    let ledgers: Vec<_> =
        [&source, &world.host().ledger].into_iter().chain(sinks.iter().map(|taker| &taker.ledger)).cloned().collect();
    prop_assert_eq!(open_sums(&ledgers), [], "{:#?}", world.host().ledger.snapshot());
    let held: Vec<i64> = world.host().ledger.snapshot().rows.iter().map(|row| row.held).collect();
    prop_assert!(held.iter().all(|held| *held == 0), "{held:?}");
    Ok(())
}

/// Tests of so many stories each, with sinks and steps by chance.
macro_rules! stories {
    ($($name:ident: |$sinks:ident, $steps:ident| $story:expr;)*) => {
        proptest! {
            #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

            $(#[test]
            fn $name(
                $sinks in prop::collection::vec(Deed::some(), 1..3),
                $steps in prop::collection::vec(step(), 1..16),
            ) {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
                runtime.block_on($story)?;
            })*
        }
    };
}

macro_rules! bridges {
    ($($name:ident: $component:ty, $to:expr, [$one:expr, $other:expr], $doors:expr;)*) => {
        stories! {
            $($name: |sinks, steps| {
                let to: fn(&[Vec<Deed>]) -> String = $to;
                let bodies = [$one, $other].map(|body: &str| format!("{body}\n{}", to(&sinks)));
                lives_behind::<$component>(bodies, &sinks, &steps, $doors)
            };)*
        }
    };
}

bridges! {
    receiver_loki: LokiReceiver, output, ["", "// The same."], |world, source| Doors {
        entries: Some(Fanout::of(source, [world.receiver("receiver")])), ..Doors::default()
    };
    receiver_prometheus: PrometheusReceiver, output, ["", "// The same."], |world, source| Doors {
        samples: Some(Fanout::of(source, [world.receiver("receiver")])), ..Doors::default()
    };
    exporter_loki: LokiExporter, |sinks| forward_to(sinks, "entries"), ["", "// The same."], |world, source| Doors {
        records: Doors::of_consumer(world, source).records, ..Doors::default()
    };
    exporter_prometheus: PrometheusExporter, |sinks| forward_to(sinks, "samples"),
        ["", "add_metric_suffixes = false\ngc_frequency = \"1s\""], |world, source| Doors {
            metrics: Doors::of_consumer(world, source).metrics, ..Doors::default()
        };
}

macro_rules! lives {
    ($($name:ident: $component:ty, [$one:expr, $other:expr];)*) => {
        stories! {
            $($name: |sinks, steps| lives::<$component>([$one, $other], &sinks, &steps);)*
        }
    };
}

const POLICY: &str =
    "policy {\nname = \"errors\"\ntype = \"status_code\"\nstatus_code { status_codes = [\"ERROR\"] }\n}";

lives! {
    batch: BatchProcessor, [
        "timeout = \"1s\"\nsend_batch_size = 5\nsend_batch_max_size = 7", "timeout = \"0s\"\nsend_batch_max_size = 3000"
    ];
    tail_sampling: TailSamplingProcessor, [
        &format!("decision_wait = \"2s\"\nnum_traces = 3\n{POLICY}"),
        &format!(
            "decision_wait = \"1s\"\nmaximum_trace_size_bytes = 300\ndrop_pending_traces_on_shutdown = true
            decision_cache = {{ sampled_cache_size = 1, non_sampled_cache_size = 2 }}\n{POLICY}"
        )
    ];
    interval: IntervalProcessor, ["interval = \"5s\"", "interval = \"3s\"\npassthrough {\n gauge = true\n}"];
    cumulativetodelta: CumulativeToDeltaProcessor, ["", "initial_value = \"drop\""];
    deltatocumulative: DeltaToCumulativeProcessor, ["", "max_streams = 2"];
    metric_start_time: MetricStartTimeProcessor, ["strategy = \"subtract_initial_point\"", ""];
    filter: FilterProcessor, [
        "traces { span = [`name == \"n1\"`] }\nmetrics { datapoint = [`value_int > 100`] }\nlogs { log_record = [`severity_number > 3`] }",
        "error_mode = \"propagate\"\nlogs { log_record = [`Int(\"1\") / 0 == 1`] }"
    ];
    transform: TransformProcessor, [
        "metric_statements { context = \"metric\"\n statements = [`aggregate_on_attributes(\"sum\", [])`] }",
        "metric_statements { context = \"metric\"\n statements = [`copy_metric(name=\"n\") where name == \"g\"`] }"
    ];
    groupbyattrs: GroupByAttrsProcessor, ["keys = [\"k\"]", ""];
    probabilistic_sampler: ProbabilisticSampler, ["sampling_percentage = 30", "sampling_percentage = 0"];
    count: CountConnector, ["", "logs { conditions = [`severity_number > 3`] }"];
    spanlogs: SpanLogsConnector, ["spans = true\nroots = true", "processes = true"];
    spanmetrics: SpanMetricsConnector, [
        "metrics_flush_interval = \"4s\"\nhistogram {\n explicit { }\n}",
        "metrics_flush_interval = \"2s\"\naggregation_temporality = \"DELTA\"\nhistogram {\n exponential { }\n}"
    ];
    servicegraph: ServiceGraphConnector, [
        "metrics_flush_interval = \"0s\"\nstore {\n max_items = 2\n ttl = \"1s\"\n}", "metrics_flush_interval = \"3s\""
    ];
    host_info: HostInfoConnector, ["metrics_flush_interval = \"3s\"", "metrics_flush_interval = \"7s\""];
}
