//! `otelcol.exporter.prometheus`.

mod convert;
mod histograms;
mod store;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use corten_component::metrics::Kind;
use corten_component::{Component, Context, Error, Forward, Logger, Task};
use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_config::schema::Stability;
use corten_otlp::{Batch, Metric, OtlpMetrics};
use corten_signal::flow::BoxFuture;
use corten_signal::ledger::{self, Row};
use corten_signal::{Consume, ConsumeError, Metrics, Receiver};
use parking_lot::Mutex;

use self::convert::{Converted, Converter, Options, Problem};
use self::store::Undo;
use crate::flow::{Inlets, Input, Stages};

/// Converts metrics of OpenTelemetry to series of Prometheus, and forwards them to components that take those.
///
/// Names get the unit behind them, and counters the suffix `_total`. Attributes of points become labels, with underscores for
/// characters that may not stand in the name of one; where two become the same, the last one counts. The resource's
/// `service.namespace` and `service.name` become the label `job`, its `service.instance.id` the label `instance`, and all of
/// its attributes those of a series `target_info`.
///
/// Only cumulative values are converted: delta values are dropped, and so are points that are older than the last one of
/// their series. `otelcol.processor.deltatocumulative` makes cumulative values of delta values.
///
/// The component answers a batch when all receivers have taken what became of it.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct PrometheusArguments {
    /// Where to send series.
    forward_to: Vec<Receiver<Metrics>>,
    /// Whether each resource makes a series `target_info`, whose labels are the resource's attributes.
    #[arg(default = true)]
    include_target_info: bool,
    /// Whether each scope makes a series `otel_scope_info`, whose labels are the scope's name, version and attributes.
    #[arg(default = false)]
    include_scope_info: bool,
    /// Has no effect: series do not have labels of their scopes, whatever this says. The argument is there for the sake of
    /// configurations that have it.
    #[arg(default = true)]
    include_scope_labels: bool,
    /// How often series are forgotten that had no point for five minutes.
    #[arg(default = "5m")]
    gc_frequency: Duration,
    /// Whether names of metrics get suffixes for unit and type.
    #[arg(default = true)]
    add_metric_suffixes: bool,
    /// Whether the attributes of the resource become labels of its series. They win over attributes of points.
    #[arg(default = false)]
    resource_to_telemetry_conversion: bool,
    /// Whether to forward type, unit and description of metrics.
    #[arg(default = false)]
    honor_metadata: bool,
    /// Whether histograms with bounds become native histograms that have these bounds, rather than a series for each bound.
    #[arg(default = false)]
    convert_classic_histograms_to_nhcb: bool,
    /// Whether `target_info` has `service.name`, `service.namespace` and `service.instance.id` among its labels, too.
    #[arg(default = false)]
    keep_identifying_resource_attributes: bool,
    /// Whether the start of a series makes a sample of value zero.
    #[arg(default = false)]
    start_timestamp_zero_ingestion: bool,
}

impl PrometheusArguments {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        errors.require(!self.gc_frequency.is_zero(), &["gc_frequency"], "gc_frequency must be greater than 0");
        errors.into_result()
    }

    fn check_build(&self, minimum: Stability) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        for (wanted, name) in [
            (self.convert_classic_histograms_to_nhcb, "convert_classic_histograms_to_nhcb"),
            (self.start_timestamp_zero_ingestion, "start_timestamp_zero_ingestion"),
        ] {
            let text = format!("{name} is experimental and requires setting the stability.level flag to experimental");
            errors.require(!wanted || minimum == Stability::Experimental, &[name], &text);
        }
        errors.into_result()
    }

    fn options(&self) -> Options {
        Options {
            target_info: self.include_target_info,
            scope_info: self.include_scope_info,
            suffixes: self.add_metric_suffixes,
            resource_labels: self.resource_to_telemetry_conversion,
            metadata: self.honor_metadata,
            own_bounds: self.convert_classic_histograms_to_nhcb,
            keep_identifying: self.keep_identifying_resource_attributes,
            start_zeros: self.start_timestamp_zero_ingestion,
        }
    }
}

/// How long a series without points is remembered.
const UNSEEN_MAX: Duration = Duration::from_secs(5 * 60);
/// How often the log tells of what could not be converted.
const PROBLEMS_EVERY: Duration = Duration::from_secs(10);

/// The component.
pub struct PrometheusExporter {
    inlets: Arc<Inlets>,
    options: Options,
    clock: Clock,
    converter: Arc<Mutex<Converter>>,
    collector: Task,
}

/// What is to be put in place.
pub struct Prepared {
    inlets: Arc<Inlets>,
    arguments: PrometheusArguments,
}

impl Component for PrometheusExporter {
    const NAME: &'static str = "otelcol.exporter.prometheus";
    type Arguments = PrometheusArguments;
    type Exports = Input;
    type Prepared = Prepared;

    async fn prepare(
        arguments: PrometheusArguments,
        cx: &Context<Self>,
        current: Option<&Self>,
    ) -> Result<(Prepared, Input), Error> {
        let inlets = current.map_or_else(|| Inlets::of(cx.ledger()), |current| Arc::clone(&current.inlets));
        let exports = inlets.exports();
        Ok((Prepared { inlets, arguments }, exports))
    }

    fn commit(current: Option<Self>, prepared: Prepared, cx: &Context<Self>) -> Self {
        let Prepared { inlets, arguments } = prepared;
        let options = arguments.options();
        let (clock, converter) = match current {
            Some(current) => {
                current.collector.ask_to_stop();
                if current.options == options {
                    // New receivers are told all that is known of families.
                    current.converter.lock().forget_families();
                    (current.clock, current.converter)
                } else {
                    (current.clock, Arc::new(Mutex::new(Converter::new(options.clone()))))
                }
            }
            None => (Clock::start(), Arc::new(Mutex::new(Converter::new(options.clone())))),
        };
        let read = |name, help, of: fn((usize, usize)) -> usize| {
            let converter = Arc::clone(&converter);
            cx.metrics().read(name, help, Kind::Gauge, &[], move || of(converter.lock().size()) as f64);
        };
        read("corten_exporter_prometheus_series", "Series that are remembered.", |(series, _)| series);
        read("corten_exporter_prometheus_series_bytes", "Memory for series, in bytes.", |(_, bytes)| bytes);
        inlets.attach(Stages {
            metrics: Some(Arc::new(Stage {
                clock,
                converter: Arc::clone(&converter),
                forward: Forward::new(cx.metrics(), cx.ledger(), arguments.forward_to),
                rows: [ledger::Kind::OtelMetric, ledger::Kind::PrometheusMetric]
                    .map(|kind| Arc::clone(cx.ledger().row(kind))),
                logger: cx.logger().clone(),
                told: Mutex::new(None),
            })),
            ..Stages::default()
        });
        let (collected, every) = (Arc::clone(&converter), arguments.gc_frequency);
        let collector = cx.spawn("forget series", move |mut stop| {
            let converter = Arc::clone(&collected);
            async move {
                loop {
                    tokio::select! {
                        () = stop.wait() => return Ok::<(), String>(()),
                        () = tokio::time::sleep(every) => converter.lock().forget_unseen(clock.since_s(UNSEEN_MAX)),
                    }
                }
            }
        });
        PrometheusExporter { inlets, options, clock, converter, collector }
    }

    async fn drain(self, _: &Context<Self>) {
        self.inlets.close();
        self.collector.stop().await;
    }
}

/// Counts seconds since a component began, from a time that is later than series are remembered.
#[derive(Clone, Copy, Debug)]
struct Clock(tokio::time::Instant);

impl Clock {
    fn start() -> Self {
        Clock(tokio::time::Instant::now())
    }

    fn now_s(self) -> u32 {
        u32::try_from((self.0.elapsed() + UNSEEN_MAX).as_secs()).unwrap_or(u32::MAX)
    }

    fn since_s(self, ago: Duration) -> u32 {
        self.now_s() - ago.as_secs() as u32
    }
}

struct Stage {
    clock: Clock,
    converter: Arc<Mutex<Converter>>,
    forward: Forward,
    /// The books of points, and those of samples.
    rows: [Arc<Row>; 2],
    logger: Logger,
    /// When the log told of something last.
    told: Mutex<Option<Instant>>,
}

impl Consume<OtlpMetrics> for Stage {
    fn consume(&self, batch: Batch<Metric>) -> BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(async move {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let data = batch.data().map(|data| &**data);
            let [points, samples] = &self.rows;
            let (mut points, mut samples) = (points.pass(), samples.pass());
            let Converted { batch: made, dropped, problems, undo } =
                self.converter.lock().convert(data, now.as_millis() as i64, self.clock.now_s());
            let mut sent = Sent { converter: &self.converter, undo: Some(undo) };
            self.tell(&problems);
            let lost: usize = dropped.iter().map(|(_, items)| items).sum();
            points.merged(ledger::Kind::PrometheusMetric.as_str(), batch.items().saturating_sub(lost));
            dropped.into_iter().for_each(|(reason, items)| points.dropped(reason, items));
            samples.created(ledger::Kind::OtelMetric.as_str(), made.items());
            self.forward.consume(Arc::new(made)).await?;
            sent.undo = None;
            batch.acks.safe();
            points.end(samples.end(Ok(())))
        })
    }
}

/// What was made of a batch, on its way. Where nobody takes it, or nobody waits until somebody does, whoever sent it sends it
/// again.
struct Sent<'a> {
    converter: &'a Mutex<Converter>,
    /// Nothing once it was taken.
    undo: Option<Undo>,
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        if let Some(undo) = self.undo.take() {
            self.converter.lock().undo(undo);
        }
    }
}

impl Stage {
    fn tell(&self, problems: &[Problem]) {
        if problems.is_empty() {
            return;
        }
        let mut told = self.told.lock();
        if told.is_some_and(|at| at.elapsed() < PROBLEMS_EVERY) {
            return;
        }
        *told = Some(Instant::now());
        for Problem { what, family, error } in problems {
            self.logger.error(what, &[("metric_name", family.into()), ("err", error.into())]);
        }
    }
}

#[cfg(test)]
mod tests;
