//! `otelcol.processor.transform`.

use std::sync::Arc;

use corten_component::{Context as Cx, Error};
use corten_config::Arguments;
use corten_config::arguments::{CheckErrors, CheckStep};
use corten_otlp::{Edit, LogRecord, Metric, OtlpSignal, Span};
use corten_ottl::{Conditions, Context, Part, Program, Walk, compile_conditions, compile_statements, for_each};
use corten_signal::ConsumeError;
use corten_signal::ledger::Pass;

use crate::flow::{DebugMetrics, Output};
use crate::process::{Kind, Process, Processes, Processor};
use crate::statements::{ContextName, ErrorMode, Group, infer, known_context, refuse};

/// Changes telemetry with statements of OTTL.
///
/// Statements are executed in the order in which they are written, group by group, for each item that a group is about. The
/// groups of `statements` come after those that name their context. A batch for which no statement is executed goes on as it
/// was received.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct TransformArguments {
    /// What happens when a statement or a condition cannot be evaluated: with `ignore` the log says so and the next one is
    /// executed, with `silent` the log says nothing, with `propagate` the whole batch is refused. A condition that cannot be
    /// evaluated is not met.
    #[arg(default = "ignore")]
    error_mode: ErrorMode,
    /// Statements whose paths say what they are about.
    #[block(optional)]
    statements: Statements,
    /// Statements about traces.
    #[block]
    trace_statements: Vec<ContextStatements>,
    /// Statements about metrics.
    #[block]
    metric_statements: Vec<ContextStatements>,
    /// Statements about logs.
    #[block]
    log_statements: Vec<ContextStatements>,
    /// Where to send what is made.
    #[block]
    output: Output,
    /// Which metrics of its own the component has.
    #[block(optional)]
    debug_metrics: DebugMetrics,
}

/// Statements whose paths say what they are about, and begin with it: `resource.attributes`, `log.body`. Those of one signal
/// are executed for the most specific of the contexts that they name.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub struct Statements {
    /// Statements about resources, scopes, spans or events of spans.
    #[arg(optional)]
    trace: Vec<String>,
    /// Statements about resources, scopes, metrics or data points.
    #[arg(optional)]
    metric: Vec<String>,
    /// Statements about resources, scopes or log records.
    #[arg(optional)]
    log: Vec<String>,
}

/// Statements about one context.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct ContextStatements {
    /// What the statements are executed for: each `resource`, `scope`, `span`, `spanevent`, `metric`, `datapoint` or `log`.
    context: ContextName,
    /// Conditions of which one has to be met, where there are any.
    #[arg(optional)]
    conditions: Vec<String>,
    /// Statements, in the order in which they are executed.
    statements: Vec<String>,
    /// What happens when one of these statements or conditions cannot be evaluated. Without it, what the component's
    /// `error_mode` says.
    error_mode: Option<ErrorMode>,
}

impl TransformArguments {
    fn check(&self) -> Result<(), CheckErrors> {
        self.compile().map(drop)
    }

    fn compile(&self) -> Result<Compiled, CheckErrors> {
        let mut errors = CheckErrors::new();
        let statements = &self.statements;
        let mut compiled = Compiled {
            traces: self.groups::<Span>("trace_statements", &self.trace_statements, &mut errors),
            metrics: self.groups::<Metric>("metric_statements", &self.metric_statements, &mut errors),
            logs: self.groups::<LogRecord>("log_statements", &self.log_statements, &mut errors),
        };
        compiled.traces.extend(self.inferred::<Span>("trace", &statements.trace, &mut errors));
        compiled.metrics.extend(self.inferred::<Metric>("metric", &statements.metric, &mut errors));
        compiled.logs.extend(self.inferred::<LogRecord>("log", &statements.log, &mut errors));
        errors.into_result().map(|()| compiled)
    }

    fn groups<R: Walk>(
        &self,
        field: &'static str,
        groups: &[ContextStatements],
        errors: &mut CheckErrors,
    ) -> Vec<CompiledGroup> {
        let mut compiled = Vec::new();
        for (number, group) in groups.iter().enumerate() {
            let context = Context::from(group.context);
            if let Err(what) = known_context(context, R::CONTEXTS, "statements", &group.statements) {
                errors.push_within(&[field], &[CheckStep::Block(number), CheckStep::Field("context")], what);
                continue;
            }
            let program = compile_statements(context, &group.statements);
            let conditions = compile_conditions(context, &group.conditions);
            for mistakes in [program.as_ref().err(), conditions.as_ref().err()].into_iter().flatten() {
                refuse(errors, field, mistakes, |part| {
                    let list = if part == Part::Statement { "statements" } else { "conditions" };
                    vec![CheckStep::Block(number), CheckStep::Field(list)]
                });
            }
            let mode = group.error_mode.unwrap_or(self.error_mode);
            compiled.extend(program.ok().zip(conditions.ok()).map(|group| (group, mode)));
        }
        compiled
    }

    fn inferred<R: Walk>(
        &self,
        list: &'static str,
        statements: &[String],
        errors: &mut CheckErrors,
    ) -> Option<CompiledGroup> {
        if statements.is_empty() {
            return None;
        }
        match infer(R::CONTEXTS, statements) {
            Ok(group) => Some((group, self.error_mode)),
            Err(mistakes) => {
                refuse(errors, "statements", &mistakes, |_| vec![CheckStep::Field(list)]);
                None
            }
        }
    }
}

type CompiledGroup = ((Program, Conditions), ErrorMode);

/// The groups of each signal.
struct Compiled {
    traces: Vec<CompiledGroup>,
    metrics: Vec<CompiledGroup>,
    logs: Vec<CompiledGroup>,
}

/// The component.
pub(crate) type TransformProcessor = Processor<Transform>;

/// What the component is made with.
pub(crate) struct Transform;

impl Kind for Transform {
    const NAME: &'static str = "otelcol.processor.transform";
    const TYPE: &'static str = "transform";
    type Arguments = TransformArguments;

    fn output(arguments: &TransformArguments) -> &Output {
        &arguments.output
    }

    fn processes(arguments: &TransformArguments, cx: &Cx<Processor<Self>>) -> Result<Processes, Error> {
        let compiled = arguments.compile().map_err(|errors| Error::new(errors.to_string()))?;
        let groups = |groups: Vec<CompiledGroup>| {
            Arc::new(Groups(groups.into_iter().map(|(group, mode)| Group::new(group, mode, cx.logger())).collect()))
        };
        Ok(Processes {
            traces: Some(groups(compiled.traces)),
            metrics: Some(groups(compiled.metrics)),
            logs: Some(groups(compiled.logs)),
        })
    }
}

/// The groups of a signal, one after the other.
struct Groups(Vec<Group>);

impl<S: OtlpSignal<Record: Walk>> Process<S> for Groups {
    fn process(&self, mut batch: S::Batch, pass: &mut Pass<'_>) -> Result<S::Batch, ConsumeError> {
        if self.0.is_empty() {
            return Ok(batch);
        }
        let (context, before) = (Arc::clone(&batch.context), batch.items());
        let edited = batch.edit(|data| {
            let mut executed = false;
            for group in &self.0 {
                for_each(data, group.context(), Some(&context), |item| {
                    executed |= group.execute(item)?;
                    Ok(())
                })?;
            }
            Ok(if executed { Edit::Changed } else { Edit::Same })
        });
        edited.map_err(|error: corten_ottl::EvalError| ConsumeError::Refused { reason: error.to_string() })?;
        // Functions take points away, make one of several, and make others.
        let after = batch.items();
        pass.dropped("statement", before.saturating_sub(after));
        pass.created("statement", after.saturating_sub(before));
        Ok(batch)
    }
}

#[cfg(test)]
mod tests {
    use corten_component::Definition;
    use corten_otlp::{AuthData, Metadata, RequestContext};
    use corten_testkit::{OtlpSink, Unit, host, otlp};

    use super::*;
    use crate::statements::place;

    async fn start(sink: &OtlpSink, body: &str) -> Result<Unit, String> {
        let definition = Definition::of::<TransformProcessor>();
        let body = format!("{body}\noutput {{\n metrics = [sink]\n logs = [sink]\n traces = [sink]\n}}");
        Unit::start_with(host("otelcol.processor.transform.a"), &definition, &body, &[("sink", sink.value())]).await
    }

    const LOGS: &str = r#"{"resourceLogs":[{"resource":{"attributes":[{"key":"env","value":{"stringValue":"prod"}}]},"scopeLogs":[{"scope":{"name":"a"},"logRecords":[{"body":{"stringValue":"x"}},{"body":{"stringValue":"y"}}]}]}]}"#;
    const SPANS: &str = r#"{"resourceSpans":[{"resource":{},"scopeSpans":[{"scope":{"name":"a"},"spans":[{"name":"x","events":[{"name":"e"}],"status":{}}]}]}]}"#;
    const METRICS: &str = r#"{"resourceMetrics":[{"resource":{"attributes":[{"key":"env","value":{"stringValue":"prod"}}]},"scopeMetrics":[{"scope":{"name":"a"},"metrics":[{"name":"m","gauge":{"dataPoints":[{"asInt":"1"},{"asInt":"2"}]}}]}]}]}"#;
    const EXEMPLARS: &str = r#"{"resourceMetrics":[{"resource":{},"scopeMetrics":[{"scope":{},"metrics":[{"name":"m","gauge":{"dataPoints":[{"exemplars":[{"timeUnixNano":"5","asInt":"1"},{"timeUnixNano":"5","asInt":"2"}],"asInt":"1"},{"asInt":"2"}]}}]}]}]}"#;

    /// What becomes of telemetry, in JSON.
    async fn made(body: &str, signal: &str) -> Result<String, String> {
        let sink = OtlpSink::default();
        let unit = start(&sink, body).await?;
        let to = unit.world.consumer("input");
        let sent = match signal {
            "logs" => to.logs.consume(otlp(LOGS)).await,
            "traces" => to.traces.consume(otlp(SPANS)).await,
            "metrics" => to.metrics.consume(otlp(METRICS)).await,
            _ => to.metrics.consume(otlp(EXEMPLARS)).await,
        };
        let balance = unit.world.balance();
        if let Err(error) = sent {
            // What is refused was not taken.
            assert!(balance.rows.iter().all(|row| row.taken == 0 && row.dropped.is_empty()));
            return Err(error.to_string());
        }
        Ok(sink.batches()[0].json.clone())
    }

    #[tokio::test]
    async fn statements_are_executed_group_by_group() {
        let text = |text: &str| format!(r#"{{"stringValue":"{text}"}}"#);
        for (signal, body, old, new) in [
            ("logs", "", "", String::new()),
            (
                "logs",
                "log_statements { context = \"log\"\n statements = [`set(body, \"z\") where body == \"y\"`] }",
                &*text("y"),
                text("z"),
            ),
            // The groups whose context is to be found come last, wherever they stand.
            (
                "logs",
                "statements { log = [`set(log.body, \"2\") where log.body == \"1\"`] }\nlog_statements { context = \"LOG\"\n statements = [`set(body, \"1\") where body == \"x\"`] }",
                &text("x"),
                text("2"),
            ),
            (
                "logs",
                "log_statements { context = \"log\"\n conditions = [`body == \"a\"`, `body == \"x\"`]\n statements = [`set(cache[\"c\"], \"q\")`, `set(body, cache[\"c\"])`] }",
                &text("x"),
                text("q"),
            ),
            (
                "logs",
                "log_statements { context = \"resource\"\n statements = [`set(attributes[\"env\"], \"dev\")`] }",
                &text("prod"),
                text("dev"),
            ),
            (
                "logs",
                "log_statements { context = \"scope\"\n statements = [`set(name, \"b\")`] }",
                r#""name":"a""#,
                r#""name":"b""#.into(),
            ),
            (
                "traces",
                "trace_statements { context = \"spanevent\"\n statements = [`set(name, Concat([span.name, name], \"\"))`] }",
                r#""name":"e""#,
                r#""name":"xe""#.into(),
            ),
            ("traces", "statements { trace = [`set(span.name, \"y\")`] }", r#""name":"x""#, r#""name":"y""#.into()),
            (
                "metrics",
                "statements { metric = [`set(datapoint.attributes[\"env\"], resource.attributes[\"env\"]) where datapoint.value_int == 2`] }",
                r#"{"asInt":"2"}"#,
                r#"{"attributes":[{"key":"env","value":{"stringValue":"prod"}}],"asInt":"2"}"#.into(),
            ),
            (
                "exemplars",
                "statements { metric = [`set(exemplar.filtered_attributes[\"n\"], metric.name) where exemplar.int_value == 2`] }",
                r#"{"timeUnixNano":"5","asInt":"2"}"#,
                r#"{"filteredAttributes":[{"key":"n","value":{"stringValue":"m"}}],"timeUnixNano":"5","asInt":"2"}"#
                    .into(),
            ),
            (
                "metrics",
                "metric_statements { context = \"metric\"\n statements = [`copy_metric(name=\"n\") where name == \"m\"`, `set(unit, \"s\") where name == \"n\"`] }",
                "]}}]}]}]}",
                r#"]}},{"name":"n","unit":"s","gauge":{"dataPoints":[{"asInt":"1"},{"asInt":"2"}]}}]}]}]}"#.into(),
            ),
        ] {
            let source = match signal {
                "logs" => LOGS,
                "traces" => SPANS,
                "metrics" => METRICS,
                _ => EXEMPLARS,
            };
            let plain = |json: &str| serde_json::from_str::<serde_json::Value>(json).unwrap();
            let found = made(body, signal).await.unwrap();
            let expected = plain(&source.replacen(old, &new, usize::from(!old.is_empty())));
            assert_eq!(plain(&found), expected, "{body}");
        }
    }

    #[derive(Debug)]
    struct Sender;

    impl AuthData for Sender {
        fn attribute(&self, name: &str) -> Option<String> {
            (name == "subject").then(|| "somebody".to_owned())
        }

        fn names(&self) -> Vec<String> {
            vec!["subject".to_owned()]
        }

        fn as_any(&self) -> &dyn std::any::Any {
            self
        }
    }

    #[tokio::test]
    async fn statements_see_who_sent_what_and_how() {
        let set = |key: &str, path: &str| format!("`set(attributes[\"{key}\"], otelcol.client.{path})`");
        let statements = [
            set("from", "addr"),
            set("tenant", "metadata[\"X-Tenant\"][0]"),
            set("other", "metadata[\"other\"]"),
            set("who", "auth.attributes[\"subject\"]"),
        ];
        let body = format!("log_statements {{\n context = \"log\"\n statements = [{}]\n}}", statements.join(", "));
        let sink = OtlpSink::default();
        let unit = start(&sink, &body).await.unwrap();
        // Over HTTP only the address is known.
        for (peer, from) in
            [("10.0.0.7:0", "10.0.0.7"), ("[::ffff:10.0.0.7]:9", "10.0.0.7:9"), ("[fe80::1]:0", "fe80::1")]
        {
            let mut metadata = Metadata::default();
            metadata.add("x-tenant", "t");
            let mut batch = otlp::<LogRecord>(LOGS);
            let auth = Some(Arc::new(Sender) as Arc<dyn AuthData>);
            batch.context = Arc::new(RequestContext { peer: peer.parse().ok(), metadata, auth });
            unit.world.consumer("input").logs.consume(batch).await.unwrap();
            let json: serde_json::Value = serde_json::from_str(&sink.batches().pop().unwrap().json).unwrap();
            let text = |key: &str, text: &str| serde_json::json!({"key": key, "value": {"stringValue": text}});
            let expected = serde_json::json!([text("from", from), text("tenant", "t"), text("who", "somebody")]);
            assert_eq!(json["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]["attributes"], expected);
        }
    }

    #[tokio::test]
    async fn what_fails_is_passed_over_or_refuses_the_batch() {
        let group = "context = \"log\"\n statements = [`set(body, Int(\"7\") / 0)`, `set(severity_text, \"z\")`] }";
        let failure = "failed to execute statement: set(body, Int(\"7\") / 0), attempted to divide by 0";
        assert!(made(&format!("log_statements {{ {group}"), "logs").await.unwrap().contains("\"severityText\":\"z\""));
        let error = made(&format!("error_mode = \"propagate\"\nlog_statements {{ {group}"), "logs").await.unwrap_err();
        assert_eq!(error, failure);
        // A group has its own way.
        for (all, own, refused) in [("propagate", "silent", false), ("ignore", "propagate", true)] {
            let body = format!("error_mode = \"{all}\"\nlog_statements {{ error_mode = \"{own}\"\n {group}");
            assert_eq!(made(&body, "logs").await.is_err(), refused);
        }
        let body = "error_mode = \"propagate\"\nlog_statements { context = \"log\"\n conditions = [`Int(\"1\") / 0 == 1`]\n statements = [`set(body, 1)`] }";
        let error = made(body, "logs").await.unwrap_err();
        assert_eq!(error, "failed to eval condition: Int(\"1\") / 0 == 1, attempted to divide by 0");
    }

    #[tokio::test]
    async fn points_that_statements_take_away_or_make_are_counted() {
        let sink = OtlpSink::default();
        let of =
            |statement: &str| format!("metric_statements {{ context = \"metric\"\n statements = [`{statement}`] }}");
        let mut unit = start(&sink, &of("aggregate_on_attributes(\"sum\", [])")).await.unwrap();
        let to = unit.world.consumer("input").metrics;
        to.consume(otlp(METRICS)).await.unwrap();
        let body = of("copy_metric(name=\"n\") where name == \"m\"");
        unit.update(&format!("{body}\noutput {{\n metrics = [sink]\n}}")).await.unwrap();
        to.consume(otlp(METRICS)).await.unwrap();
        assert_eq!(sink.sizes(), [1, 4]);
        let balance = unit.world.balance_of(corten_signal::Kind::OtelMetric);
        assert_eq!(balance, "taken 4, out 5, created {statement: 2}, dropped {statement: 1}");
    }

    #[tokio::test]
    async fn statements_that_add_metrics_without_end_are_stopped() {
        let body = "metric_statements { context = \"metric\"\n statements = [`copy_metric()`] }";
        let error = made(body, "metrics").await.unwrap_err();
        assert!(error.starts_with("the statements add metrics without end"), "{error}");
    }

    #[test]
    fn what_no_statement_is_executed_for_stays_the_bytes_that_it_was() {
        let world = host("otelcol.processor.transform.a");
        let cx = world.context::<TransformProcessor>();
        let batch = otlp::<LogRecord>(LOGS);
        let before = batch.message().next().unwrap().as_ptr();
        let source = ["set(body, 1) where body == \"nothing\"".to_owned()];
        let group =
            (compile_statements(Context::Log, &source).unwrap(), compile_conditions(Context::Log, &[""; 0]).unwrap());
        let groups = Groups(vec![Group::new(group, ErrorMode::Ignore, cx.logger())]);
        let ledger = corten_signal::Ledger::new("a");
        let mut pass = ledger.row(corten_signal::Kind::OtelLog).pass();
        let batch = Process::<corten_otlp::OtlpLogs>::process(&groups, batch, &mut pass).unwrap();
        assert_eq!(batch.message().next().unwrap().as_ptr(), before);
    }

    #[tokio::test]
    async fn mistakes_are_refused_at_their_place() {
        for (body, what) in [
            ("log_statements { context = \"log\"\n statements = [`set(body, 1)`, `set(§bodi, 1)`] }", "column 5 of"),
            (
                "log_statements { context = \"log\"\n statements = []\n conditions = [`body == §Nope()`] }",
                "no function Nope",
            ),
            (
                "log_statements { context = §\"metric\"\n statements = [`set(name, 1)`] }",
                "unknown context \"metric\" for statements: [set(name, 1)]",
            ),
            ("log_statements { context = §\"logs\"\n statements = [] }", "unknown context logs"),
            ("metric_statements { context = §\"exemplar\"\n statements = [] }", "unknown context exemplar"),
            ("statements { log = [`set(log.body, 1)`, `set(log.body, §bodi)`] }", "column 15 of"),
            ("statements { trace = [`set(span.name, \"a\"`] }", "column"),
            (
                "log_statements { context = \"log\"\n statements = []\n error_mode = §\"maybe\" }",
                "unknown error mode maybe",
            ),
        ] {
            let error = start(&OtlpSink::default(), &body.replace('§', "")).await.unwrap_err();
            let place = if body.contains('§') { format!(":{}: ", place(body)) } else { String::new() };
            assert!(error.contains(&place) && error.contains(what), "{body}: {error}");
        }
    }
}
