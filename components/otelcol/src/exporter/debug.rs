//! `otelcol.exporter.debug`.

mod text;

use std::fs::{File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use corten_component::log::Level;
use corten_component::{Component, Context, Error, Health, HealthBoard, HealthState, LocalEnd, Logger};
use corten_config::arguments::CheckErrors;
use corten_config::schema::Stability;
use corten_config::{Arguments, StringEnum};
use corten_files::io_error_text;
use corten_otlp::{Batch, OtlpLogs, OtlpMetrics, OtlpSignal, Traces};
use corten_signal::flow::BoxFuture;
use corten_signal::{Consume, ConsumeError};
use parking_lot::Mutex;

use self::text::Shown;
use super::counted::Counted;
use super::ends::LocalEnds;
use crate::flow::{DebugMetrics, Inlets, Input, Stages};

/// Writes telemetry to the log of the program, or to its output, for people to read.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct DebugArguments {
    /// How much is written: `basic`, a line for each batch; `normal`, a further line for each span, data point or log record;
    /// or `detailed`, all that they say.
    #[arg(default = "basic")]
    verbosity: Verbosity,
    /// How many equal messages are written in each second before sampling begins.
    #[arg(default = 2)]
    sampling_initial: i64,
    /// Of further equal messages in a second, one of how many is written; 0 writes none of them.
    #[arg(default = 1)]
    sampling_thereafter: i64,
    /// Whether to write to the log of the program; otherwise to `output_paths`, without a time and with real line ends.
    #[arg(default = true)]
    use_internal_logger: bool,
    /// Where to write where that is not the log of the program: `stdout`, `stderr` and names of files, which grow.
    #[arg(default = ["stdout"])]
    output_paths: Vec<String>,
    /// Which metrics of its own the component has.
    #[block(optional)]
    debug_metrics: DebugMetrics,
}

impl DebugArguments {
    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        errors.require(
            self.use_internal_logger || !self.output_paths.is_empty(),
            &["output_paths", "use_internal_logger"],
            "output_paths must not be empty when use_internal_logger is false",
        );
        errors.into_result()
    }
}

/// How much is written.
#[derive(StringEnum, Clone, Copy, Debug, PartialEq, Eq)]
#[string_enum(ignore_case, refusal = invalid_verbosity)]
pub enum Verbosity {
    /// A line for each batch.
    Basic,
    /// A further line for each item.
    Normal,
    /// All there is.
    Detailed,
}

fn invalid_verbosity(text: &str) -> String {
    format!("error in conversion to config arguments, invalid verbosity {text:?}")
}

/// The component.
pub struct DebugExporter {
    inlets: Arc<Inlets>,
    ends: Arc<LocalEnds>,
}

/// What is to be put in place.
pub struct Prepared {
    inlets: Arc<Inlets>,
    arguments: DebugArguments,
}

impl Component for DebugExporter {
    const NAME: &'static str = "otelcol.exporter.debug";
    const STABILITY: Stability = Stability::Experimental;
    type Arguments = DebugArguments;
    type Exports = Input;
    type Prepared = Prepared;

    async fn prepare(
        arguments: DebugArguments,
        cx: &Context<Self>,
        current: Option<&Self>,
    ) -> Result<(Prepared, Input), Error> {
        let inlets = current.map_or_else(|| Inlets::of(cx.ledger()), |current| Arc::clone(&current.inlets));
        let exports = inlets.exports();
        Ok((Prepared { inlets, arguments }, exports))
    }

    fn commit(current: Option<Self>, prepared: Prepared, cx: &Context<Self>) -> Self {
        let Prepared { inlets, arguments } = prepared;
        let ends = current.map_or_else(|| LocalEnds::new(cx, "log"), |current| current.ends);
        let to = Arc::new(if arguments.use_internal_logger {
            To::Log(cx.logger().clone())
        } else {
            let outputs = arguments.output_paths.iter().map(|path| Output { path: path.clone(), file: None });
            To::Outputs(Arc::new(Mutex::new(outputs.collect())), Arc::clone(cx.health()))
        });
        cx.report_health(Some(started()));
        inlets.attach(Stages {
            traces: Some(Arc::new(Stage::new::<Traces>(&arguments, &to, &ends.traces, cx))),
            metrics: Some(Arc::new(Stage::new::<OtlpMetrics>(&arguments, &to, &ends.metrics, cx))),
            logs: Some(Arc::new(Stage::new::<OtlpLogs>(&arguments, &to, &ends.logs, cx))),
        });
        DebugExporter { inlets, ends }
    }

    async fn drain(self, _: &Context<Self>) {
        self.inlets.close();
    }
}

fn started() -> Health {
    Health::now(HealthState::Healthy, "started scheduled components")
}

/// Writes what comes of a signal.
struct Stage {
    verbosity: Verbosity,
    sampler: Mutex<Sampler>,
    to: Arc<To>,
    end: Arc<LocalEnd>,
    counted: Counted,
}

impl Stage {
    fn new<S: OtlpSignal>(
        arguments: &DebugArguments,
        to: &Arc<To>,
        end: &Arc<LocalEnd>,
        cx: &Context<DebugExporter>,
    ) -> Self {
        // Negative numbers are large ones, as in the reference.
        let (initial, thereafter) = (arguments.sampling_initial as u64, arguments.sampling_thereafter as u64);
        let sampler = Sampler { initial, thereafter, counts: vec![Count::default(); COUNTS] };
        let counted = Counted::new::<_, S>(cx, "debug");
        let (to, end) = (Arc::clone(to), Arc::clone(end));
        Stage { verbosity: arguments.verbosity, sampler: Mutex::new(sampler), to, end, counted }
    }

    /// Writes what is to be written of a batch, unless lines of that level are not written. Whether they are, or why
    /// writing failed.
    async fn show<R: Shown>(&self, batch: &Batch<R>) -> Result<bool, String> {
        if !self.to.takes() {
            return Ok(false);
        }
        let resources = batch.data().map(|data| data.resources.len()).sum();
        let records = batch.data().flat_map(|data| data.scopes()).map(|(_, of)| of.records.len()).sum();
        let mut counts = vec![(R::RESOURCES, resources)];
        counts.extend(R::counts(records, batch.items()));
        let summary = self.write(R::SUMMARY, &counts).await;
        let parts = batch.data().map(|data| &**data);
        let items = match self.verbosity {
            Verbosity::Basic => Ok(()),
            Verbosity::Normal => self.write(&text::short(parts), &[]).await,
            Verbosity::Detailed => self.write(&text::long(parts), &[]).await,
        };
        summary.and(items).map(|()| true)
    }

    async fn write(&self, message: &str, counts: &[(&'static str, usize)]) -> Result<(), String> {
        let takes = self.sampler.lock().takes(message, Instant::now());
        if takes { self.to.write(message, counts).await } else { Ok(()) }
    }
}

impl<S: OtlpSignal> Consume<S> for Stage
where
    S::Record: Shown,
{
    fn consume(&self, batch: S::Batch) -> BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(async move {
            let written = self.show(&batch).await;
            let taken = self.end.take(batch.items(), 0);
            match written {
                Ok(true) => taken.delivered(),
                Ok(false) => taken.below_level(),
                Err(why) => self.end.failed(&why),
            }
            self.counted.count(batch.items(), &Ok(()));
            batch.acks.safe();
            Ok(())
        })
    }
}

/// How many messages are told apart; others share their counts, as in the reference.
const COUNTS: usize = 4096;
const SAMPLING_SPAN: Duration = Duration::from_secs(1);

/// Writes the first of equal messages in each second, and one of several after that.
struct Sampler {
    initial: u64,
    thereafter: u64,
    counts: Vec<Count>,
}

#[derive(Clone, Copy, Default)]
struct Count {
    since: Option<Instant>,
    messages: u64,
}

impl Sampler {
    fn takes(&mut self, message: &str, now: Instant) -> bool {
        let mut hasher = DefaultHasher::new();
        message.hash(&mut hasher);
        let count = &mut self.counts[hasher.finish() as usize % COUNTS];
        if count.since.is_none_or(|since| now.duration_since(since) > SAMPLING_SPAN) {
            *count = Count { since: Some(now), messages: 0 };
        }
        count.messages += 1;
        let further = count.messages.saturating_sub(self.initial);
        further == 0 || further.checked_rem(self.thereafter) == Some(0)
    }
}

/// Where messages go.
enum To {
    Log(Logger),
    Outputs(Arc<Mutex<Vec<Output>>>, Arc<HealthBoard>),
}

/// A file or one of the program's outputs.
struct Output {
    path: String,
    file: Option<File>,
}

impl To {
    fn takes(&self) -> bool {
        match self {
            To::Log(logger) => logger.takes(Level::Info),
            To::Outputs(..) => true,
        }
    }

    async fn write(&self, message: &str, counts: &[(&'static str, usize)]) -> Result<(), String> {
        match self {
            To::Log(logger) => {
                let fields: Vec<_> = counts.iter().map(|(name, count)| (*name, (*count).into())).collect();
                logger.info(message, &fields);
                Ok(())
            }
            To::Outputs(outputs, health) => {
                let mut line = message.to_owned();
                for (at, (name, count)) in counts.iter().enumerate() {
                    let before = if at == 0 { "\t{" } else { ", " };
                    line.push_str(&format!("{before}{name:?}: {count}"));
                }
                line.push_str(if counts.is_empty() { "\n" } else { "}\n" });
                let outputs = Arc::clone(outputs);
                // A pipe that nobody reads, or a slow disk, must not hold up the threads that serve connections.
                let written = tokio::task::spawn_blocking(move || {
                    let mut outputs = outputs.lock();
                    let failures = outputs.iter_mut().filter_map(|output| output.write(&line).err());
                    failures.last()
                });
                let Ok(failure) = written.await else { return Err("writing was broken off".to_owned()) };
                let outcome = failure.clone().map_or(Ok(()), Err);
                let health_now = failure.map_or_else(started, |error| Health::now(HealthState::Unhealthy, error));
                if health.current().message != health_now.message {
                    health.set_reported(Some(health_now));
                }
                outcome
            }
        }
    }
}

impl Output {
    fn write(&mut self, line: &str) -> Result<(), String> {
        let written = match &*self.path {
            "stdout" => io::stdout().lock().write_all(line.as_bytes()),
            "stderr" => io::stderr().lock().write_all(line.as_bytes()),
            path => {
                let open = |path: &str| OpenOptions::new().append(true).create(true).open(path);
                let file = match &mut self.file {
                    Some(file) => Ok(file),
                    none => open(path.strip_prefix("file://").unwrap_or(path)).map(|file| none.insert(file)),
                };
                file.and_then(|file| file.write_all(line.as_bytes()))
            }
        };
        written.map_err(|error| {
            self.file = None;
            format!("cannot write to {}: {}", self.path, io_error_text(&error))
        })
    }
}

#[cfg(test)]
mod tests {
    use corten_component::Definition;
    use corten_otlp::{LogRecord, Metric, Span};
    use corten_signal::Kind;
    use corten_testkit::{Unit, World, host, otlp};

    use super::super::testing::books;
    use super::*;

    async fn start(world: World, body: &str) -> Result<Unit, String> {
        Unit::start(world, &Definition::of::<DebugExporter>(), body).await
    }

    const SPANS: &str = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"a"},{"name":"b"}]}]}]}"#;
    const METRICS: &str =
        r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"m","gauge":{"dataPoints":[{},{}]}}]}]}]}"#;
    const LOGS: &str = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"x"}}]}]}]}"#;

    async fn send(unit: &Unit) {
        let to = unit.world.consumer("input");
        to.traces.consume(otlp::<Span>(SPANS)).await.unwrap();
        to.metrics.consume(otlp::<Metric>(METRICS)).await.unwrap();
        to.logs.consume(otlp::<LogRecord>(LOGS)).await.unwrap();
    }

    #[tokio::test]
    async fn a_line_in_the_log_for_each_batch() {
        let unit = start(host("otelcol.exporter.debug.a"), "").await.unwrap();
        send(&unit).await;
        let logs = unit.world.logs();
        let lines: Vec<&str> = logs.lines().filter_map(|line| line.split_once(" msg=").map(|(_, rest)| rest)).collect();
        assert_eq!(lines.len(), 3, "{logs}");
        assert!(lines[0].starts_with("Traces component_id=otelcol.exporter.debug.a resource"), "{logs}");
        assert!(lines[0].ends_with("spans=1 spans=2"), "{logs}");
        assert!(
            lines[1].ends_with("metrics=1 metrics=1 data_points=2") || lines[1].contains("\"data points\"=2"),
            "{logs}"
        );
        assert!(lines[2].starts_with("Logs "), "{logs}");
        let labels = [
            ("exporter", "debug/otelcol.exporter.debug.a"),
            ("otel_scope_name", "go.opentelemetry.io/collector/exporter/exporterhelper"),
            ("otel_scope_version", ""),
            ("otel_scope_schema_url", ""),
        ];
        assert_eq!(unit.world.metrics().get("otelcol_exporter_sent_spans_total", &labels), Some(2.0));
        assert_eq!(books(&unit, Kind::OtelTrace), "taken 2, out 2 | offered 2, delivered 2");
        assert_eq!(books(&unit, Kind::OtelMetric), "taken 2, out 2 | offered 2, delivered 2");
        assert_eq!(books(&unit, Kind::OtelLog), "taken 1, out 1 | offered 1, delivered 1");
        assert_eq!(unit.world.balance().ends[0].name, "log (traces)");
        unit.world.host().logger.sink().configure(Level::Warn, corten_component::log::Format::Logfmt);
        send(&unit).await;
        assert_eq!(books(&unit, Kind::OtelLog), "taken 2, out 2 | offered 2, delivered 1, dropped {log level: 1}");
    }

    #[tokio::test]
    async fn other_outputs_get_the_text_alone() {
        let world = host("otelcol.exporter.debug.a");
        let path = world.path("out");
        let body =
            format!("use_internal_logger = false\nverbosity = \"NORMAL\"\noutput_paths = [{path:?}, \"stderr\"]");
        let unit = start(world, &body).await.unwrap();
        send(&unit).await;
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "Traces\t{\"resource spans\": 1, \"spans\": 2}\nResourceTraces #0\nScopeTraces #0\na  \nb  \n\n\
             Metrics\t{\"resource metrics\": 1, \"metrics\": 1, \"data points\": 2}\nResourceMetrics #0\nScopeMetrics #0\n\
             m{} \nm{} \n\nLogs\t{\"resource logs\": 1, \"log records\": 1}\nResourceLog #0\nScopeLog #0\nx \n\n"
        );
    }

    #[tokio::test]
    async fn an_output_that_cannot_be_written_is_the_components_health_until_it_can() {
        let world = host("otelcol.exporter.debug.a");
        let path = world.path("folder/out");
        let body = format!("use_internal_logger = false\noutput_paths = [{path:?}]");
        let unit = start(world.clone(), &body).await.unwrap();
        send(&unit).await;
        let text = format!("unhealthy: cannot write to {}: no such file or directory", path.display());
        assert_eq!(world.health_text(), text);
        let want = "taken 1, out 1 | offered 1, dropped {write failed: 1}";
        assert_eq!(books(&unit, Kind::OtelLog), want);
        let answer = world.balance().ends[0].last_answer.clone().map(|(_, text)| format!("unhealthy: {text}"));
        assert_eq!(answer.as_ref(), Some(&text));
        world.write("folder/other", "");
        send(&unit).await;
        assert_eq!(world.health_text(), "healthy: started scheduled components");
        assert_eq!(books(&unit, Kind::OtelLog), "taken 2, out 2 | offered 2, delivered 1, dropped {write failed: 1}");
    }

    #[test]
    fn the_first_of_equal_messages_and_one_of_some_are_written() {
        let began = Instant::now();
        for (initial, thereafter, want) in
            [(2, 1, "xxxxxxx"), (2, 3, "xx--x--"), (0, 2, "-x-x-x-"), (1, 0, "x------"), (-1, 1, "xxxxxxx")]
        {
            let (initial, thereafter) = (i64::from(initial) as u64, thereafter);
            let mut sampler = Sampler { initial, thereafter, counts: vec![Count::default(); COUNTS] };
            let mut taken = |at| (0..7).map(|_| if sampler.takes("a", at) { 'x' } else { '-' }).collect::<String>();
            assert_eq!(taken(began), want);
            assert_eq!(taken(began + Duration::from_secs(2)), want);
        }
    }

    #[tokio::test]
    async fn what_makes_no_sense_is_refused() {
        for (body, why) in [
            ("verbosity = \"loud\"", "error in conversion to config arguments, invalid verbosity \"loud\""),
            (
                "use_internal_logger = false\noutput_paths = []",
                "output_paths must not be empty when use_internal_logger is false",
            ),
        ] {
            let error = start(host("otelcol.exporter.debug.a"), body).await.map(|_| ()).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
