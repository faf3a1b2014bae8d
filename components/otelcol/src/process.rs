//! What processors have in common that change a batch at once, keep nothing of it and send it on.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Instant;

use corten_component::metrics::{Counter, Histogram};
use corten_component::{Component, Context, Error};
use corten_config::Arguments;
use corten_config::schema::Stability;
use corten_otlp::metrics::Points;
use corten_otlp::{LogRecord, Map, Metric, OtlpLogs, OtlpMetrics, OtlpSignal, Record, Span, Traces};
use corten_signal::flow::BoxFuture;
use corten_signal::ledger::{Pass, Row};
use corten_signal::{Consume, ConsumeError, Fanout};

use crate::flow::{Inlets, Input, Output, Stages};
use crate::metrics::{PROCESSOR, ScopedMetrics};

/// Changes the batches of a signal.
pub(crate) trait Process<S: OtlpSignal>: Send + Sync + 'static {
    /// Changes a batch. One that has nothing left, not even a resource, is not sent on: what came of it is safe. Items that
    /// it drops or makes it tells to `pass`.
    ///
    /// # Errors
    ///
    /// Why the batch is not taken. Whoever sent it is told.
    fn process(&self, batch: S::Batch, pass: &mut Pass<'_>) -> Result<S::Batch, ConsumeError>;
}

/// What a processor does with each of the signals; nothing where it does not take one.
#[derive(Default)]
pub(crate) struct Processes {
    pub(crate) traces: Option<Arc<dyn Process<Traces>>>,
    pub(crate) metrics: Option<Arc<dyn Process<OtlpMetrics>>>,
    pub(crate) logs: Option<Arc<dyn Process<OtlpLogs>>>,
}

impl Processes {
    /// The same for every signal.
    pub(crate) fn all<P: Process<Traces> + Process<OtlpMetrics> + Process<OtlpLogs>>(process: P) -> Self {
        let process = Arc::new(process);
        Processes { traces: Some(process.clone()), metrics: Some(process.clone()), logs: Some(process) }
    }
}

/// What has attributes of its own: a span, a log record, or every point of a metric.
pub(crate) trait Attributed: Record {
    /// Changes the attributes.
    fn each_attributes(&mut self, change: impl FnMut(&mut Map));
}

impl Attributed for Span {
    fn each_attributes(&mut self, mut change: impl FnMut(&mut Map)) {
        change(&mut self.attributes);
    }
}

impl Attributed for LogRecord {
    fn each_attributes(&mut self, mut change: impl FnMut(&mut Map)) {
        change(&mut self.attributes);
    }
}

impl Attributed for Metric {
    fn each_attributes(&mut self, mut change: impl FnMut(&mut Map)) {
        match &mut self.points {
            Points::None => {}
            Points::Gauge(points) | Points::Sum { points, .. } => {
                points.iter_mut().for_each(|point| change(&mut point.attributes));
            }
            Points::Histogram { points, .. } => points.iter_mut().for_each(|point| change(&mut point.attributes)),
            Points::Exponential { points, .. } => points.iter_mut().for_each(|point| change(&mut point.attributes)),
            Points::Summary(points) => points.iter_mut().for_each(|point| change(&mut point.attributes)),
        }
    }
}

/// What makes one of these processors.
pub(crate) trait Kind: Sized + Send + Sync + 'static {
    /// The component's name.
    const NAME: &'static str;
    /// The level below which a user cannot have it.
    const STABILITY: Stability = Stability::GenerallyAvailable;
    /// What OpenTelemetry calls it.
    const TYPE: &'static str;
    /// Its arguments.
    type Arguments: Arguments + Clone + PartialEq + Send + Sync;

    /// Where it sends what it made.
    fn output(arguments: &Self::Arguments) -> &Output;

    /// Makes what it does with batches.
    ///
    /// # Errors
    ///
    /// What is wrong with the arguments that their own check cannot know.
    fn processes(arguments: &Self::Arguments, cx: &Context<Processor<Self>>) -> Result<Processes, Error>;
}

/// A component that changes a batch at once, keeps nothing of it and sends it on.
pub(crate) struct Processor<K> {
    inlets: Arc<Inlets>,
    kind: PhantomData<K>,
}

/// What is to be put in place.
pub(crate) struct Prepared {
    inlets: Arc<Inlets>,
    output: Output,
    processes: Processes,
}

impl<K: Kind> Component for Processor<K> {
    const NAME: &'static str = K::NAME;
    const STABILITY: Stability = K::STABILITY;
    type Arguments = K::Arguments;
    type Exports = Input;
    type Prepared = Prepared;

    async fn prepare(
        arguments: K::Arguments,
        cx: &Context<Self>,
        current: Option<&Self>,
    ) -> Result<(Prepared, Input), Error> {
        let processes = K::processes(&arguments, cx)?;
        let inlets = current.map_or_else(|| Inlets::of(cx.ledger()), |current| Arc::clone(&current.inlets));
        let exports = inlets.exports();
        Ok((Prepared { inlets, output: K::output(&arguments).clone(), processes }, exports))
    }

    fn commit(_: Option<Self>, prepared: Prepared, cx: &Context<Self>) -> Self {
        let Prepared { inlets, output, processes } = prepared;
        inlets.attach(Stages {
            traces: processes.traces.zip(output.traces(cx)).map(|(process, to)| stage::<K, Traces>(cx, process, to)),
            metrics: processes.metrics.zip(output.metrics(cx)).map(|(process, to)| stage::<K, _>(cx, process, to)),
            logs: processes.logs.zip(output.logs(cx)).map(|(process, to)| stage::<K, _>(cx, process, to)),
        });
        Processor { inlets, kind: PhantomData }
    }

    async fn drain(self, _: &Context<Self>) {
        self.inlets.close();
    }
}

fn stage<K: Kind, S: OtlpSignal>(
    cx: &Context<Processor<K>>,
    process: Arc<dyn Process<S>>,
    forward: Fanout<S>,
) -> Arc<dyn Consume<S>> {
    let row = Arc::clone(cx.ledger().row_of::<S>());
    Arc::new(Stage { process, forward, row, metrics: ProcessMetrics::new::<_, S>(cx, K::TYPE) })
}

struct Stage<S: OtlpSignal> {
    process: Arc<dyn Process<S>>,
    forward: Fanout<S>,
    row: Arc<Row>,
    metrics: ProcessMetrics,
}

impl<S: OtlpSignal> Consume<S> for Stage<S> {
    fn consume(&self, batch: S::Batch) -> BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(async move {
            let begun = Instant::now();
            let incoming = batch.items();
            let mut pass = self.row.pass();
            let made = self.process.process(batch, &mut pass);
            self.metrics.observe(incoming, made.as_ref().map_or(0, |batch| batch.items()), begun);
            let batch = made?;
            if batch.is_empty() {
                batch.acks.safe();
                return pass.end(Ok(()));
            }
            pass.end(self.forward.consume(batch).await)
        })
    }
}

/// The metrics that every processor has, of one signal.
#[derive(Clone, Debug)]
pub(crate) struct ProcessMetrics {
    incoming: Counter,
    outgoing: Counter,
    duration: Histogram,
}

const DURATION_BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

impl ProcessMetrics {
    /// The metrics of a processor that OpenTelemetry calls `kind`.
    pub(crate) fn new<C: Component, S: OtlpSignal>(cx: &Context<C>, kind: &str) -> Self {
        let scoped = ScopedMetrics::new(cx, "go.opentelemetry.io/collector/processor/processorhelper", kind);
        let signal = &[("otel_signal", S::NAME)];
        ProcessMetrics {
            incoming: scoped.counter_of(
                "otelcol_processor_incoming_items_total",
                "Number of items passed to the processor.",
                PROCESSOR,
                signal,
            ),
            outgoing: scoped.counter_of(
                "otelcol_processor_outgoing_items_total",
                "Number of items emitted from the processor.",
                PROCESSOR,
                signal,
            ),
            duration: scoped.histogram_of(
                "otelcol_processor_internal_duration_seconds",
                "Duration of time taken to process a batch of telemetry data through the processor.",
                PROCESSOR,
                signal,
                DURATION_BUCKETS,
            ),
        }
    }

    /// Counts a batch that the processor began to look at then.
    pub(crate) fn observe(&self, incoming: usize, outgoing: usize, begun: Instant) {
        self.incoming.add(incoming as u64);
        self.outgoing.add(outgoing as u64);
        self.duration.observe(begun.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
pub(crate) mod recorded {
    //! What the processors of the reference made of telemetry, recorded: each case is a configuration, what went in and what
    //! came out, or why the configuration was refused.

    use std::sync::Arc;

    use corten_component::Definition;
    use corten_otlp::{Batch, LogRecord, Metric, Record, RequestContext, Span};
    use corten_testkit::{OtlpSink, Unit, host, otlp};
    use serde_json::Value;

    /// Runs the cases of a file. `body` is what a configuration says besides its output.
    pub(crate) async fn check<C: corten_component::Component>(cases: &str) {
        let cases: Vec<Value> = serde_json::from_str(cases).unwrap();
        assert!(!cases.is_empty());
        for case in &cases {
            let text = |field: &str| case[field].as_str().unwrap_or_default();
            let sink = OtlpSink::default();
            let body = format!("{}\noutput {{\n{} = [sink]\n}}", text("body"), text("signal"));
            let host = host(&format!("{}.a", C::NAME));
            let unit = Unit::start_with(host, &Definition::of::<C>(), &body, &[("sink", sink.value())]).await;
            if let Some(error) = case.get("error").and_then(Value::as_str) {
                let refused = unit.expect_err(&format!("refused: {error}"));
                assert!(refused.contains(error), "want {error}\ngot {refused}");
                continue;
            }
            let unit = unit.unwrap_or_else(|error| panic!("{error}: {body}"));
            let to = unit.world.consumer("input");
            let (sent, want) = match text("signal") {
                "traces" => (to.traces.consume(batch::<Span>(case)).await, normal::<Span>(&case["out"].to_string())),
                "logs" => {
                    (to.logs.consume(batch::<LogRecord>(case)).await, normal::<LogRecord>(&case["out"].to_string()))
                }
                _ => (to.metrics.consume(batch::<Metric>(case)).await, normal::<Metric>(&case["out"].to_string())),
            };
            sent.unwrap();
            let got = sink.batches().pop().map_or("{}".to_owned(), |arrived| arrived.json);
            let got: Value = match text("signal") {
                "traces" => normal::<Span>(&got),
                "logs" => normal::<LogRecord>(&got),
                _ => normal::<Metric>(&got),
            };
            assert_eq!(got, want, "{body}\n{}", case["in"]);
            unit.world.balance();
        }
    }

    fn batch<R: Record>(case: &Value) -> Batch<R> {
        let mut context = RequestContext::default();
        for (name, values) in case["metadata"].as_object().into_iter().flatten() {
            for value in values.as_array().into_iter().flatten() {
                context.metadata.add(name, value.as_str().unwrap());
            }
        }
        let mut batch = otlp::<R>(&case["in"].to_string());
        batch.context = Arc::new(context);
        batch
    }

    /// What a message says, with attributes in the order of their keys.
    fn normal<R: Record>(json: &str) -> Value {
        let mut value = serde_json::from_slice(&otlp::<R>(json).to_json()).unwrap();
        sort(&mut value);
        value
    }

    fn sort(value: &mut Value) {
        match value {
            Value::Array(items) => {
                items.iter_mut().for_each(sort);
                if items.iter().all(|item| item.get("key").is_some()) {
                    items.sort_by(|a, b| a["key"].as_str().cmp(&b["key"].as_str()));
                }
            }
            Value::Object(fields) => fields.values_mut().for_each(sort),
            _ => {}
        }
    }
}

#[cfg(test)]
pub(crate) mod hostile {
    //! Telemetry such as no program means to send.

    use std::sync::Arc;
    use std::time::Duration;

    use corten_component::{Component, Definition};
    use corten_otlp::metrics::{
        Buckets, ExponentialPoint, HistogramPoint, Metric, Number, NumberPoint, Points, SummaryPoint,
    };
    use corten_otlp::{Arena, Batch, Data, LogRecord, Map, OfResource, OfScope, Pair, Record, Span, Value};
    use corten_testkit::{OtlpSink, Unit, host};

    /// Sends it through a component with each of some configurations, which name no output, and looks whether the component
    /// goes on.
    pub(crate) async fn survives<C: Component>(bodies: &[&str]) {
        for body in bodies {
            let sink = OtlpSink::default();
            let body = format!("{body}\noutput {{\ntraces = [sink]\nmetrics = [sink]\nlogs = [sink]\n}}");
            let host = host(&format!("{}.a", C::NAME));
            let definition = Definition::of::<C>();
            let unit = Unit::start_with(host, &definition, &body, &[("sink", sink.value())]).await.unwrap();
            let to = unit.world.consumer("input");
            let sent = async {
                // What is not taken is refused: either will do.
                let _ = to.traces.consume(Batch::of(data(span), Arc::default())).await;
                let _ = to.logs.consume(Batch::of(data(record), Arc::default())).await;
                let _ = to.metrics.consume(Batch::of(data(metric), Arc::default())).await;
                let two = || Batch::of(data(record), Arc::default());
                let mut joined = two();
                joined.join(two());
                let _ = to.logs.consume(joined).await;
            };
            tokio::time::timeout(Duration::from_secs(60), sent).await.expect("it takes no time");
            unit.world.balance();
        }
    }

    const TEXTS: [&[u8]; 12] = [
        b"",
        b"\xff\xfe",
        b"\0",
        b"SELECT '\\",
        b"{\"a\":[[[",
        b"$func$$func$$func$",
        b"set \"\\\" a\n \n",
        b"ot=th:;rv:,,ot=",
        b"service.name",
        b"sampling.priority",
        b"/a/1/\xc3/%00?",
        b"a",
    ];

    fn data<R: Record>(make: fn(&mut Arena, usize) -> R) -> Data<R> {
        let mut data = Data::default();
        for resource in 0..3 {
            let mut of = OfResource::default();
            of.resource.attributes = attributes(&mut data.arena, resource);
            for (scope, name) in TEXTS.into_iter().take(3).enumerate() {
                let mut scope_of = OfScope::default();
                scope_of.scope.name = data.arena.own(name);
                scope_of.scope.attributes = attributes(&mut data.arena, scope);
                scope_of.records = (0..TEXTS.len()).map(|number| make(&mut data.arena, number)).collect();
                of.scopes.push(scope_of);
            }
            data.resources.push(of);
        }
        data.resources.push(OfResource::default());
        data
    }

    fn value(arena: &mut Arena, number: usize) -> Value {
        let text = TEXTS[number % TEXTS.len()];
        match number % 9 {
            0 | 1 => Value::Str(arena.own(text)),
            2 => Value::Bytes(arena.own(text)),
            3 => Value::Double([f64::NAN, f64::INFINITY, -0.0, f64::MIN_POSITIVE][number % 4]),
            4 => Value::Int([i64::MIN, i64::MAX, -1, 0][number % 4]),
            5 => Value::Empty,
            6 => Value::Bool(true),
            7 => {
                let mut value = Value::Str(arena.own(text));
                for _ in 0..90 {
                    value = Value::List(arena.list(&[value]));
                }
                value
            }
            _ => {
                let mut value = Value::Str(arena.own(text));
                for _ in 0..90 {
                    let key = arena.own(text);
                    value = Value::Map(arena.map(&[Pair { key, value }, Pair { key, value: Value::Empty }]));
                }
                value
            }
        }
    }

    fn attributes(arena: &mut Arena, number: usize) -> Map {
        let mut pairs: Vec<Pair> = (0..12)
            .map(|at| Pair { key: arena.own(TEXTS[(number + at) % TEXTS.len()]), value: value(arena, number + at) })
            .collect();
        if number == 0 {
            pairs.extend((0..2000).map(|at| Pair { key: arena.own(&[b'k', at as u8]), value: Value::Int(at) }));
        }
        arena.map(&pairs)
    }

    fn span(arena: &mut Arena, number: usize) -> Span {
        Span {
            name: arena.own(TEXTS[number % TEXTS.len()]),
            trace_state: arena.own(TEXTS[(number + 5) % TEXTS.len()]),
            kind: [i32::MIN, -1, 0, 2, 3, i32::MAX][number % 6],
            start_time_ns: u64::MAX,
            end_time_ns: 0,
            attributes: attributes(arena, number),
            ..Span::default()
        }
    }

    fn record(arena: &mut Arena, number: usize) -> LogRecord {
        LogRecord {
            severity: [i32::MIN, 0, i32::MAX][number % 3],
            time_ns: u64::MAX,
            body: value(arena, number),
            attributes: attributes(arena, number),
            ..LogRecord::default()
        }
    }

    fn metric(arena: &mut Arena, number: usize) -> Metric {
        let attributes = attributes(arena, number);
        let counts = vec![u64::MAX; 1000];
        Metric {
            name: arena.own(TEXTS[number % TEXTS.len()]),
            points: match number % 6 {
                0 => Points::None,
                1 => Points::Gauge(vec![
                    NumberPoint {
                        attributes,
                        time_ns: u64::MAX,
                        value: Number::Double(f64::NAN),
                        ..Default::default()
                    },
                    NumberPoint::default(),
                ]),
                2 => Points::Sum { points: Vec::new(), temporality: i32::MAX, monotonic: true },
                3 => Points::Histogram {
                    points: vec![HistogramPoint { attributes, bucket_counts: counts, ..Default::default() }],
                    temporality: -1,
                },
                4 => Points::Exponential {
                    points: vec![ExponentialPoint {
                        attributes,
                        scale: i32::MIN,
                        positive: Buckets { offset: i32::MAX, counts },
                        ..Default::default()
                    }],
                    temporality: 2,
                },
                _ => Points::Summary(vec![SummaryPoint { attributes, count: u64::MAX, ..Default::default() }]),
            },
            ..Metric::default()
        }
    }
}
