//! `otelcol.processor.filter`.

use corten_component::metrics::Counter;
use corten_component::{Context as Cx, Error, Logger};
use corten_config::Arguments;
use corten_config::arguments::{CheckErrors, CheckStep};
use corten_otlp::{LogRecord, Metric, OtlpSignal, Span};
use corten_ottl::{Conditions, Context, EvalError, Item, OttlError, Walk, compile_conditions, infer_conditions, sift};
use corten_signal::ConsumeError;
use corten_signal::ledger::Pass;

use crate::flow::{DebugMetrics, Output};
use crate::metrics::{FILTER, ScopedMetrics};
use crate::process::{Kind, Process, Processes, Processor};
use crate::statements::{AnyOf, ContextConditions, ErrorMode, known_context, refuse};

/// Drops spans, events of spans, metrics, data points and log records that meet conditions.
///
/// Conditions are written in OTTL. What meets one of them is dropped; scopes and resources that have nothing left are
/// dropped, too. A batch of which nothing is dropped goes on as it was received.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct FilterArguments {
    /// What happens when a condition cannot be evaluated: with `ignore` the log says so and the condition is not met, with
    /// `silent` the log says nothing, with `propagate` the whole batch is refused.
    #[arg(default = "ignore")]
    error_mode: ErrorMode,
    /// Conditions for spans and their events. `trace_conditions` is newer, and cannot be used together with it.
    #[block(optional)]
    traces: TraceFilters,
    /// Conditions for metrics and data points. `metric_conditions` is newer, and cannot be used together with it.
    #[block(optional)]
    metrics: MetricFilters,
    /// Conditions for log records. `log_conditions` is newer, and cannot be used together with it.
    #[block(optional)]
    logs: LogFilters,
    /// Conditions for traces: for resources, scopes, spans and events of spans.
    #[block]
    trace_conditions: Vec<ContextConditions>,
    /// Conditions for metrics: for resources, scopes, metrics and data points.
    #[block]
    metric_conditions: Vec<ContextConditions>,
    /// Conditions for logs: for resources, scopes and log records.
    #[block]
    log_conditions: Vec<ContextConditions>,
    /// Where to send what is not dropped.
    #[block]
    output: Output,
    /// Which metrics of its own the component has.
    #[block(optional)]
    debug_metrics: DebugMetrics,
}

/// Conditions for spans and their events.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub struct TraceFilters {
    /// Conditions for spans. One that is met drops the span.
    #[arg(optional)]
    span: Vec<String>,
    /// Conditions for events of spans. One that is met drops the event.
    #[arg(optional)]
    spanevent: Vec<String>,
}

/// Conditions for metrics and data points.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub struct MetricFilters {
    /// Conditions for metrics. One that is met drops the metric.
    #[arg(optional)]
    metric: Vec<String>,
    /// Conditions for data points. One that is met drops the point, and a metric that has no points left is dropped, too.
    #[arg(optional)]
    datapoint: Vec<String>,
}

/// Conditions for log records.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub struct LogFilters {
    /// Conditions for log records. One that is met drops the record.
    #[arg(optional)]
    log_record: Vec<String>,
}

/// The conditions of one context in the older blocks.
type Older<'a> = (Context, &'static str, &'a [String]);

impl FilterArguments {
    fn check(&self) -> Result<(), CheckErrors> {
        self.compile().map(drop)
    }

    fn compile(&self) -> Result<Compiled, CheckErrors> {
        let mut errors = CheckErrors::new();
        let (traces, metrics, logs) = (&self.traces, &self.metrics, &self.logs);
        let older: &[Older<'_>] =
            &[(Context::Span, "span", &traces.span), (Context::SpanEvent, "spanevent", &traces.spanevent)];
        let traces = signal::<Span>(
            ("traces", older),
            ("trace_conditions", &self.trace_conditions),
            r#"cannot use context inferred trace conditions "trace_conditions" and the settings "traces.resource", "traces.span", "traces.spanevent" at the same time"#,
            &mut errors,
        );
        let older: &[Older<'_>] =
            &[(Context::Metric, "metric", &metrics.metric), (Context::DataPoint, "datapoint", &metrics.datapoint)];
        let metrics = signal::<Metric>(
            ("metrics", older),
            ("metric_conditions", &self.metric_conditions),
            r#"cannot use context inferred metric conditions "metric_conditions" and the settings "metrics.resource", "metrics.metric", "metrics.datapoint", "metrics.include", "metrics.exclude" at the same time"#,
            &mut errors,
        );
        let older: &[Older<'_>] = &[(Context::Log, "log_record", &logs.log_record)];
        let logs = signal::<LogRecord>(
            ("logs", older),
            ("log_conditions", &self.log_conditions),
            r#"cannot use context inferred log conditions "log_conditions" and the settings "logs.resource", "logs.log", "logs.include", "logs.exclude" at the same time"#,
            &mut errors,
        );
        errors.into_result()?;
        Ok(Compiled { traces, metrics, logs })
    }
}

/// The rules of each signal.
struct Compiled {
    traces: Vec<Vec<Conditions>>,
    metrics: Vec<Vec<Conditions>>,
    logs: Vec<Vec<Conditions>>,
}

/// Compiles the rules of a signal: those of the older block, which are one rule, or those of each of the newer blocks.
fn signal<R: Walk>(
    (block, older): (&'static str, &[Older<'_>]),
    (blocks, newer): (&'static str, &[ContextConditions]),
    both: &str,
    errors: &mut CheckErrors,
) -> Vec<Vec<Conditions>> {
    let mut rule = Vec::new();
    for (context, field, sources) in older.iter().filter(|(_, _, sources)| !sources.is_empty()) {
        match compile_conditions(*context, sources) {
            Ok(conditions) => rule.push(conditions),
            Err(mistakes) => refuse(errors, block, &mistakes, |_| vec![CheckStep::Field(field)]),
        }
    }
    let mut rules = if rule.is_empty() { Vec::new() } else { vec![rule] };
    if !newer.is_empty() && older.iter().any(|(_, _, sources)| !sources.is_empty()) {
        errors.push(&[blocks, block], both);
    }
    for (number, group) in newer.iter().enumerate() {
        let way = [CheckStep::Block(number), CheckStep::Field("conditions")];
        match of_group::<R>(group) {
            Ok(rule) => rules.push(rule),
            Err(Refusal::Context(what)) => {
                errors.push_within(&[blocks], &[CheckStep::Block(number), CheckStep::Field("context")], what);
            }
            Err(Refusal::Conditions(mistakes)) => refuse(errors, blocks, &mistakes, |_| way.to_vec()),
        }
    }
    rules
}

enum Refusal {
    Context(String),
    Conditions(Vec<OttlError>),
}

fn of_group<R: Walk>(group: &ContextConditions) -> Result<Vec<Conditions>, Refusal> {
    if let Some(context) = group.context.map(Context::from) {
        known_context(context, R::DROPPED, "conditions", &group.conditions).map_err(Refusal::Context)?;
        return compile_conditions(context, &group.conditions).map(|all| vec![all]).map_err(Refusal::Conditions);
    }
    let (mut rule, mut mistakes) = (Vec::new(), Vec::new());
    for (index, source) in group.conditions.iter().enumerate() {
        match infer_conditions(R::DROPPED, &[source]) {
            Ok(conditions) => rule.push(conditions),
            Err(found) => mistakes.extend(found.into_iter().map(|mistake| OttlError { index, ..mistake })),
        }
    }
    if mistakes.is_empty() { Ok(rule) } else { Err(Refusal::Conditions(mistakes)) }
}

/// The component.
pub(crate) type FilterProcessor = Processor<Filter>;

/// What the component is made with.
pub(crate) struct Filter;

impl Kind for Filter {
    const NAME: &'static str = "otelcol.processor.filter";
    const TYPE: &'static str = "filter";
    type Arguments = FilterArguments;

    fn output(arguments: &FilterArguments) -> &Output {
        &arguments.output
    }

    fn processes(arguments: &FilterArguments, cx: &Cx<Processor<Self>>) -> Result<Processes, Error> {
        let compiled = arguments.compile().map_err(|errors| Error::new(errors.to_string()))?;
        let mode = arguments.error_mode;
        let scoped = ScopedMetrics::new(
            cx,
            "github.com/open-telemetry/opentelemetry-collector-contrib/processor/filterprocessor",
            Self::TYPE,
        );
        let sieve = |rules, name, help| {
            std::sync::Arc::new(Sieve::new(rules, mode, cx.logger(), scoped.counter(name, help, FILTER)))
        };
        Ok(Processes {
            traces: Some(sieve(
                compiled.traces,
                "otelcol_processor_filter_spans_filtered_total",
                "Number of spans dropped by the filter processor",
            )),
            metrics: Some(sieve(
                compiled.metrics,
                "otelcol_processor_filter_datapoints_filtered_total",
                "Number of metric data points dropped by the filter processor",
            )),
            logs: Some(sieve(
                compiled.logs,
                "otelcol_processor_filter_logs_filtered_total",
                "Number of logs dropped by the filter processor",
            )),
        })
    }
}

/// The rules of a signal, one after the other.
struct Sieve {
    rules: Vec<Rule>,
    dropped: Counter,
}

/// Conditions that are evaluated in one go over the batch.
struct Rule {
    contexts: Vec<Context>,
    conditions: Vec<AnyOf>,
}

impl Sieve {
    fn new(rules: Vec<Vec<Conditions>>, mode: ErrorMode, logger: &Logger, dropped: Counter) -> Self {
        let rule = |conditions: Vec<Conditions>| {
            let conditions: Vec<AnyOf> = conditions.into_iter().map(|of| AnyOf::new(of, mode, Some(logger))).collect();
            let mut contexts = Vec::new();
            for context in conditions.iter().map(AnyOf::context) {
                if !contexts.contains(&context) {
                    contexts.push(context);
                }
            }
            Rule { contexts, conditions }
        };
        Sieve { rules: rules.into_iter().map(rule).collect(), dropped }
    }
}

impl Rule {
    fn drops(&self, item: &mut Item<'_>) -> Result<bool, EvalError> {
        let context = item.context();
        for conditions in self.conditions.iter().filter(|of| of.context() == context) {
            if conditions.holds(item)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl<S: OtlpSignal<Record: Walk>> Process<S> for Sieve {
    fn process(&self, mut batch: S::Batch, pass: &mut Pass<'_>) -> Result<S::Batch, ConsumeError> {
        let before = batch.items();
        let context = std::sync::Arc::clone(&batch.context);
        for rule in &self.rules {
            batch
                .edit(|data| sift(data, &rule.contexts, Some(&context), |item| rule.drops(item)))
                .map_err(|error| ConsumeError::Refused { reason: error.to_string() })?;
        }
        let dropped = before - batch.items();
        self.dropped.add(dropped as u64);
        pass.dropped("condition", dropped);
        Ok(batch)
    }
}

#[cfg(test)]
mod tests {
    use corten_component::Definition;
    use corten_otlp::{Batch, Data};
    use corten_testkit::{OtlpSink, Unit, host, otlp};

    use super::*;
    use crate::statements::place;

    async fn start(sink: &OtlpSink, body: &str) -> Result<Unit, String> {
        let definition = Definition::of::<FilterProcessor>();
        let body = format!("{body}\noutput {{\n metrics = [sink]\n logs = [sink]\n traces = [sink]\n}}");
        Unit::start_with(host("otelcol.processor.filter.a"), &definition, &body, &[("sink", sink.value())]).await
    }

    const LOGS: &str = r#"{"resourceLogs":[
        {"resource":{"attributes":[{"key":"env","value":{"stringValue":"prod"}}]},"scopeLogs":[
            {"scope":{"name":"a"},"logRecords":[
                {"severityNumber":5,"body":{"stringValue":"r0"},"attributes":[{"key":"n","value":{"intValue":"0"}}]},
                {"severityNumber":9,"body":{"stringValue":"r1"},"attributes":[{"key":"n","value":{"intValue":"1"}}]}]},
            {"scope":{"name":"b"},"logRecords":[{"severityNumber":9,"body":{"stringValue":"r2"}}]}]},
        {"resource":{"attributes":[{"key":"env","value":{"stringValue":"dev"}}]},"scopeLogs":[
            {"scope":{"name":"a"},"logRecords":[{"severityNumber":17,"body":{"stringValue":"r3"}}]}]}]}"#;

    const SPANS: &str = r#"{"resourceSpans":[{"scopeSpans":[{"scope":{"name":"a"},"spans":[
        {"name":"s0","kind":2,"events":[{"name":"e0"},{"name":"e1"},{"name":"e2"}]},
        {"name":"s1","kind":3,"events":[{"name":"e1"}]}]}]}]}"#;

    const METRICS: &str = r#"{"resourceMetrics":[{"scopeMetrics":[{"scope":{"name":"a"},"metrics":[
        {"name":"m0","gauge":{"dataPoints":[
            {"asInt":"1","attributes":[{"key":"d","value":{"stringValue":"p0"}}]},
            {"asInt":"2","attributes":[{"key":"d","value":{"stringValue":"p1"}}]}]}},
        {"name":"m1","sum":{"dataPoints":[{"asInt":"3","attributes":[{"key":"d","value":{"stringValue":"p2"}}]}]}},
        {"name":"m2","histogram":{"dataPoints":[{"count":"4","attributes":[{"key":"d","value":{"stringValue":"p3"}}]}]}},
        {"name":"m3"}]}]}]}"#;

    /// Which of the names `r0`, `s1`, `e2` and so on are left, by signal.
    async fn left(body: &str) -> Result<(Vec<String>, Unit), String> {
        let sink = OtlpSink::default();
        let unit = start(&sink, body).await?;
        let to = unit.world.consumer("input");
        to.logs.consume(otlp(LOGS)).await.map_err(|error| error.to_string())?;
        to.traces.consume(otlp(SPANS)).await.map_err(|error| error.to_string())?;
        to.metrics.consume(otlp(METRICS)).await.map_err(|error| error.to_string())?;
        let names = sink.batches().into_iter().flat_map(|batch| {
            let parts: Vec<String> = batch.json.split('"').map(str::to_owned).collect();
            let name = |part: &String| part.len() == 2 && part.as_bytes()[1].is_ascii_digit();
            parts.into_iter().filter(name).collect::<Vec<_>>()
        });
        unit.world.balance();
        Ok((names.collect(), unit))
    }

    const ALL: &str = "r0 r1 r2 r3 s0 e0 e1 e2 s1 e1 m0 p0 p1 m1 p2 m2 p3 m3";

    #[tokio::test]
    async fn what_meets_a_condition_is_dropped_and_nothing_else() {
        for (body, gone) in [
            ("", ""),
            ("logs { log_record = [`attributes[\"n\"] == 1`] }", "r1"),
            ("logs { log_record = [`attributes[\"n\"] == 1`, `severity_number >= SEVERITY_NUMBER_ERROR`] }", "r1 r3"),
            ("logs { log_record = [`resource.attributes[\"env\"] == \"prod\"`] }", "r0 r1 r2"),
            ("log_conditions { conditions = [`log.attributes[\"n\"] == 0`, `scope.name == \"b\"`] }", "r0 r2"),
            (
                "log_conditions { conditions = [`resource.attributes[\"env\"] == \"dev\"`] }\nlog_conditions { context = \"scope\"\n conditions = [`name == \"b\"`] }",
                "r2 r3",
            ),
            ("log_conditions { context = \"log\"\n conditions = [`body == \"r0\"`] }", "r0"),
            ("traces { span = [`name == \"s1\"`] }", "s1 e1"),
            ("traces { spanevent = [`name == \"e1\"`] }", "e1 e1"),
            ("traces { span = [`kind == SPAN_KIND_SERVER`]\n spanevent = [`name == \"e1\"`] }", "s0 e0 e1 e2 e1"),
            ("trace_conditions { conditions = [`spanevent.name == \"e0\"`, `span.name == \"s1\"`] }", "e0 s1 e1"),
            ("metrics { metric = [`name == \"m1\"`] }", "m1 p2"),
            ("metrics { datapoint = [`attributes[\"d\"] == \"p0\"`] }", "p0"),
            ("metrics { datapoint = [`attributes[\"d\"] != \"p0\"`] }", "p1 m1 p2 m2 p3"),
            (
                "metrics { metric = [`HasAttrOnDatapoint(\"d\", \"p2\")`]\n datapoint = [`metric.name == \"m2\"`] }",
                "m1 p2 m2 p3",
            ),
            ("metrics { metric = [`HasAttrKeyOnDatapoint(\"d\")`] }", "m0 p0 p1 m1 p2 m2 p3"),
            (
                "metric_conditions { conditions = [`datapoint.value_int == 2`, `metric.type == METRIC_DATA_TYPE_SUM`] }",
                "p1 m1 p2",
            ),
            ("metrics { metric = [`true`] }", "m0 p0 p1 m1 p2 m2 p3 m3"),
        ] {
            let mut expected: Vec<&str> = ALL.split(' ').collect();
            for name in gone.split(' ').filter(|name| !name.is_empty()) {
                // Of equal names of events the later one is of the span that is gone.
                let at = match gone {
                    "e1 e1" => expected.iter().position(|known| *known == name),
                    _ => expected.iter().rposition(|known| *known == name),
                };
                expected.remove(at.unwrap());
            }
            assert_eq!(left(body).await.unwrap().0, expected, "{body}");
        }
    }

    #[tokio::test]
    async fn what_is_dropped_is_counted() {
        let body = "logs { log_record = [`severity_number > 5`] }\ntraces { span = [`true`] }\nmetrics { metric = [`name == \"m0\"`] }";
        let (_, unit) = left(body).await.unwrap();
        let scope = "github.com/open-telemetry/opentelemetry-collector-contrib/processor/filterprocessor";
        let labels = [
            ("filter", "filter/otelcol.processor.filter.a"),
            ("otel_scope_name", scope),
            ("otel_scope_version", ""),
            ("otel_scope_schema_url", ""),
        ];
        for (what, expected) in [("logs", 3.0), ("spans", 2.0), ("datapoints", 2.0)] {
            let name = format!("otelcol_processor_filter_{what}_filtered_total");
            assert_eq!(unit.world.metrics().get(&name, &labels), Some(expected), "{name}");
        }
        use corten_signal::Kind;
        for (kind, expected) in [
            (Kind::OtelLog, "taken 4, out 1, dropped {condition: 3}"),
            (Kind::OtelTrace, "taken 2, dropped {condition: 2}"),
            (Kind::OtelMetric, "taken 4, out 2, dropped {condition: 2}"),
        ] {
            assert_eq!(unit.world.balance_of(kind), expected);
        }
    }

    #[tokio::test]
    async fn a_condition_that_fails_is_not_met_or_refuses_the_batch() {
        let condition = "logs { log_record = [`Int(attributes[\"n\"]) / 0 == 1`, `body == \"r2\"`] }";
        let failure = "failed to eval condition";
        let (names, unit) = left(condition).await.unwrap();
        assert_eq!(names[..3], ["r0", "r1", "r3"]);
        assert_eq!(unit.world.logs().matches(failure).count(), 1, "{}", unit.world.logs());
        let (names, unit) = left(&format!("error_mode = \"silent\"\n{condition}")).await.unwrap();
        assert_eq!(names[..3], ["r0", "r1", "r3"]);
        assert!(!unit.world.logs().contains(failure));
        let error = left(&format!("error_mode = \"propagate\"\n{condition}")).await.unwrap_err();
        assert_eq!(error, "failed to eval condition: Int(attributes[\"n\"]) / 0 == 1, attempted to divide by 0");
    }

    #[tokio::test]
    async fn mistakes_are_refused_at_their_place() {
        for (body, what) in [
            ("logs { log_record = [`body == \"a\"`, `§bodi == 1`] }", "column 1 of `bodi == 1`"),
            ("logs {\n log_record = [\"attributes[\\\"é\\\"] == §Nope()\"]\n}", "there is no function Nope"),
            ("trace_conditions { conditions = [`span.name == 1`, `span.name == §Len()`] }", "Len takes 1"),
            (
                "log_conditions { conditions = [`log.body == 1`] }\nlog_conditions { conditions = [`§body == 1`] }",
                "nothing tells",
            ),
            (
                "log_conditions { context = §\"span\"\n conditions = [`name == 1`] }",
                "unknown context \"span\" for conditions: [name == 1]",
            ),
            (
                "metric_conditions { conditions = [`§exemplar.int_value == 1`] }",
                "paths of exemplar cannot be used here, only those of resource, scope, metric, datapoint",
            ),
            ("log_conditions { context = §\"spam\"\n conditions = [`name == 1`] }", "unknown context spam"),
            ("error_mode = §\"Nope\"", "unknown error mode nope"),
            (
                "§log_conditions { conditions = [`log.body == 1`] }\nlogs { log_record = [`body == 1`] }",
                "cannot use context inferred log conditions \"log_conditions\" and the settings \"logs.resource\", \"logs.log\", \"logs.include\", \"logs.exclude\" at the same time",
            ),
        ] {
            let error = start(&OtlpSink::default(), &body.replace('§', "")).await.unwrap_err();
            assert!(error.contains(&format!(":{}: ", place(body))) && error.contains(what), "{body}: {error}");
        }
    }

    /// The batch that a processor makes of one that was received.
    fn sifted(body: &str, batch: Batch<LogRecord>) -> Batch<LogRecord> {
        let rules = vec![vec![compile_conditions(Context::Log, &[body]).unwrap()]];
        let world = host("otelcol.processor.filter.b");
        let cx = world.context::<FilterProcessor>();
        let scoped = ScopedMetrics::new(&cx, "s", "filter");
        let sieve = Sieve::new(rules, ErrorMode::Ignore, cx.logger(), scoped.counter("c_total", "h", FILTER));
        {
            let ledger = corten_signal::Ledger::new("a");
            let mut pass = ledger.row(corten_signal::Kind::OtelLog).pass();
            Process::<corten_otlp::OtlpLogs>::process(&sieve, batch, &mut pass).unwrap()
        }
    }

    #[test]
    fn what_nothing_is_dropped_of_stays_the_bytes_that_it_was() {
        let batch = otlp::<LogRecord>(LOGS);
        let before = batch.message().next().unwrap().as_ptr();
        let batch = sifted("attributes[\"n\"] == 7", batch);
        assert_eq!(batch.message().next().unwrap().as_ptr(), before);
        // What is cut says the same as what is written anew.
        let batch = sifted("attributes[\"n\"] == 1", batch);
        let written = batch.data().next().unwrap().encode();
        let again: Data<LogRecord> = Batch::received(written.into(), Default::default()).unwrap().take_data().remove(0);
        assert_eq!((again.items(), batch.items()), (3, 3));
        let json = |data: Data<LogRecord>| String::from_utf8(Batch::of(data, Default::default()).to_json()).unwrap();
        assert_eq!(json(again), String::from_utf8(batch.to_json()).unwrap());
    }
}
