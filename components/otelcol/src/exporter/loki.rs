//! `otelcol.exporter.loki`.

mod convert;
mod json;
mod logfmt;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use corten_component::metrics::{Counter, Registry};
use corten_component::{Component, Context, Error, Logger};
use corten_config::Arguments;
use corten_otlp::{Batch, LogRecord, OtlpLogs};
use corten_signal::flow::BoxFuture;
use corten_signal::ledger::{Kind, Row};
use corten_signal::{Consume, ConsumeError, Entries, EntriesBuilder, Fanout, Logs, LogsBatch, Receiver};
use parking_lot::Mutex;

use self::convert::{Common, Converter};
use crate::flow::{Inlets, Input, Stages, fanout};

/// Converts logs of OpenTelemetry to log entries of Loki, and forwards them to components that take those.
///
/// Every entry has the label `exporter` with the value `OTLP`. The resource's `service.namespace` and `service.name` become
/// the label `job`, and its `service.instance.id` the label `instance`. A record with a severity gets the label `level`.
///
/// Attributes of a resource or of a record say what else becomes of its records:
///
/// * `loki.resource.labels` names attributes of the resource that become labels, and `loki.attribute.labels`, which only
///   counts in a record, names attributes of the record: names with commas between them, or a list.
/// * `loki.format` is what a line looks like: `json` with body, ids and attributes, which is the default; `logfmt` with the
///   same; or `raw`, which is the body alone.
///
/// An attribute that becomes a label is left out of the line. The time of an entry is that of the record, or else when it was
/// observed, or else now.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct LokiArguments {
    /// Where to send entries.
    forward_to: Vec<Receiver<Logs>>,
}

/// How often the log tells of records that could not be converted.
const FAILURES_EVERY: Duration = Duration::from_secs(10);

/// The component.
pub struct LokiExporter {
    inlets: Arc<Inlets>,
}

/// What is to be put in place.
pub struct Prepared {
    inlets: Arc<Inlets>,
    arguments: LokiArguments,
}

impl Component for LokiExporter {
    const NAME: &'static str = "otelcol.exporter.loki";
    type Arguments = LokiArguments;
    type Exports = Input;
    type Prepared = Prepared;

    async fn prepare(
        arguments: LokiArguments,
        cx: &Context<Self>,
        current: Option<&Self>,
    ) -> Result<(Prepared, Input), Error> {
        let inlets = current.map_or_else(|| Inlets::of(cx.ledger()), |current| Arc::clone(&current.inlets));
        let exports = inlets.exports();
        Ok((Prepared { inlets, arguments }, exports))
    }

    fn commit(_: Option<Self>, prepared: Prepared, cx: &Context<Self>) -> Self {
        let Prepared { inlets, arguments } = prepared;
        inlets.attach(Stages {
            logs: Some(Arc::new(Stage {
                work: Mutex::new(Vec::new()),
                metrics: ExporterMetrics::new(cx.metrics()),
                forward: fanout(cx, arguments.forward_to),
                rows: [Kind::OtelLog, Kind::LokiLog].map(|kind| Arc::clone(cx.ledger().row(kind))),
                logger: cx.logger().clone(),
                told: Mutex::new(None),
            })),
            ..Stages::default()
        });
        LokiExporter { inlets }
    }

    async fn drain(self, _: &Context<Self>) {
        self.inlets.close();
    }
}

/// What the component tells of its work.
#[derive(Clone, Debug)]
struct ExporterMetrics {
    total: Counter,
    failed: Counter,
    processed: Counter,
}

impl ExporterMetrics {
    fn new(registry: &Registry) -> Self {
        ExporterMetrics {
            total: registry.counter(
                "otelcol_exporter_loki_entries_total",
                "Total number of log entries passed through the converter",
            ),
            failed: registry
                .counter("otelcol_exporter_loki_entries_failed", "Total number of log entries failed to convert"),
            processed: registry.counter(
                "otelcol_exporter_loki_entries_processed",
                "Total number of log entries successfully converted",
            ),
        }
    }
}

/// Why a record is dropped.
const NOT_CONVERTED: &str = "failed to convert";

/// What batches are converted with: one for each batch that is converted at the same time.
#[derive(Default)]
struct Work {
    converter: Converter,
    builder: EntriesBuilder,
}

struct Stage {
    /// What is not in use.
    work: Mutex<Vec<Work>>,
    metrics: ExporterMetrics,
    forward: Fanout<Logs>,
    /// The books of records, and those of entries.
    rows: [Arc<Row>; 2],
    logger: Logger,
    /// When the log told of a failure last.
    told: Mutex<Option<Instant>>,
}

impl Consume<OtlpLogs> for Stage {
    fn consume(&self, batch: Batch<LogRecord>) -> BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(async move {
            let [records, entries] = &self.rows;
            let (mut records, mut entries) = (records.pass(), entries.pass());
            let made = self.convert(&batch);
            let converted = made.iter().map(Entries::len).sum();
            records.merged(Kind::LokiLog.as_str(), converted);
            records.dropped(NOT_CONVERTED, batch.items().saturating_sub(converted));
            entries.created(Kind::OtelLog.as_str(), converted);
            let mut acks = batch.acks;
            let mut made = made.into_iter().peekable();
            if made.peek().is_none() {
                std::mem::take(&mut acks).safe();
            }
            while let Some(part) = made.next() {
                let items = part.len();
                // Each batch of entries has a share in what becomes of the records.
                let share = if made.peek().is_some() { acks.clone() } else { std::mem::take(&mut acks) };
                self.forward.consume(LogsBatch { entries: Arc::new(part), acks: share }).await?;
                entries.handed_on(items);
            }
            records.end(entries.end(Ok(())))
        })
    }
}

impl Stage {
    /// The entries that a batch becomes: one batch of them, unless there are very many.
    fn convert(&self, batch: &Batch<LogRecord>) -> Vec<Entries> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (now_ns, now_ms) = (now.as_nanos() as i64, now.as_millis() as i64);
        let mut work = self.work.lock().pop().unwrap_or_default();
        let Work { converter, builder } = &mut work;
        let mut made = Vec::new();
        let mut failed = 0;
        for data in batch.data() {
            for (of, scope) in data.scopes() {
                let mut common = Common::new(&data.arena, of, scope);
                for record in &scope.records {
                    match converter.convert(&mut common, record, now_ns) {
                        Ok((stream, time_ns, line)) => {
                            let part = builder.stream(&stream);
                            let line = builder.own(line);
                            builder.push(part, time_ns, line);
                        }
                        Err(error) => {
                            failed += 1;
                            self.tell(&error);
                        }
                    }
                    if builder.is_full() {
                        made.push(builder.finish(now_ms));
                    }
                }
            }
        }
        if !builder.is_empty() {
            made.push(builder.finish(now_ms));
        }
        self.metrics.total.add(batch.items() as u64);
        self.metrics.failed.add(failed);
        self.metrics.processed.add(batch.items() as u64 - failed);
        let mut spare = self.work.lock();
        if spare.len() < WORK_MAX {
            spare.push(work);
        }
        made
    }

    fn tell(&self, error: &str) {
        let mut told = self.told.lock();
        if told.is_none_or(|at| at.elapsed() >= FAILURES_EVERY) {
            *told = Some(Instant::now());
            self.logger.error("failed to convert log to loki entry", &[("err", error.into())]);
        }
    }
}

/// How many of what batches are converted with are kept.
const WORK_MAX: usize = 4;

#[cfg(test)]
mod tests;
