//! `otelcol.receiver.prometheus`.

mod families;
mod resource;
mod transaction;

use std::sync::Arc;
use std::time::{Duration, Instant};

use corten_component::{Component, Context, Error, Logger};
use corten_config::{Arguments, Exports};
use corten_otlp::{Batch, OtlpMetrics};
use corten_signal::flow::BoxFuture;
use corten_signal::ledger::{Kind, Row};
use corten_signal::{Consume, ConsumeError, Fanout, Inlet, Metrics, MetricsBatch, Receiver};
use parking_lot::Mutex;

use self::transaction::{Converted, Warning, convert};
use crate::flow::{DebugMetrics, Output};

/// Takes series of components of Prometheus, and forwards them as metrics of OpenTelemetry.
///
/// Series that share `job` and `instance` become metrics of one resource, whose attributes `service.name` and
/// `service.instance.id` these are. Where a series has neither they are those of the target that it was scraped from; a batch
/// with a series without one is refused. The labels of `target_info` become attributes of the resource.
///
/// What kind of a metric a series belongs to is what its target says of it, which only `prometheus.scrape` knows. A series of
/// which nothing is known, because it was pushed for example, becomes a gauge.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct PrometheusArguments {
    /// Where to send metrics. Consumers of other signals get nothing.
    #[block]
    output: Output,
    /// Which metrics of its own the component has: none that this could change.
    #[block(optional)]
    debug_metrics: DebugMetrics,
}

/// What the component exports.
#[derive(Exports, Clone, Debug, PartialEq)]
pub struct Exported {
    /// Takes series.
    receiver: Receiver<Metrics>,
}

/// How often the log tells of series that could not be converted.
const WARNINGS_EVERY: Duration = Duration::from_secs(10);

/// The component.
pub struct PrometheusReceiver {
    inlet: Arc<Inlet<Metrics>>,
}

/// What is to be put in place.
pub struct Prepared {
    inlet: Arc<Inlet<Metrics>>,
    output: Output,
}

impl Component for PrometheusReceiver {
    const NAME: &'static str = "otelcol.receiver.prometheus";
    type Arguments = PrometheusArguments;
    type Exports = Exported;
    type Prepared = Prepared;

    async fn prepare(
        arguments: PrometheusArguments,
        cx: &Context<Self>,
        current: Option<&Self>,
    ) -> Result<(Prepared, Exported), Error> {
        let inlet = current.map_or_else(|| Arc::new(Inlet::of(cx.ledger())), |current| Arc::clone(&current.inlet));
        let exported = Exported { receiver: inlet.receiver() };
        Ok((Prepared { inlet, output: arguments.output }, exported))
    }

    fn commit(_: Option<Self>, prepared: Prepared, cx: &Context<Self>) -> Self {
        let Prepared { inlet, output } = prepared;
        inlet.attach(Arc::new(Stage {
            forward: output.metrics(cx),
            row: Arc::clone(cx.ledger().row_of::<Metrics>()),
            made: Arc::clone(cx.ledger().row_of::<OtlpMetrics>()),
            version: cx.services().version.clone(),
            logger: cx.logger().clone(),
            told: Mutex::new(None),
        }));
        PrometheusReceiver { inlet }
    }

    async fn drain(self, _: &Context<Self>) {
        self.inlet.close();
    }
}

struct Stage {
    /// Nothing where nobody wants metrics.
    forward: Option<Fanout<OtlpMetrics>>,
    /// Where samples and points are counted.
    row: Arc<Row>,
    made: Arc<Row>,
    version: String,
    logger: Logger,
    /// When the log told of something last.
    told: Mutex<Option<Instant>>,
}

impl Consume<Metrics> for Stage {
    fn consume(&self, batch: Arc<MetricsBatch>) -> BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(async move {
            let converted = convert(&batch, &self.version).map_err(|reason| ConsumeError::Refused { reason })?;
            let items = batch.items();
            drop(batch);
            let Converted { data, warnings, samples, lost } = converted;
            self.tell(&warnings);
            let mut pass = self.row.pass();
            let Some(forward) = &self.forward else {
                pass.dropped("no receiver", items);
                return pass.end(Ok(()));
            };
            lost.tell(&mut pass);
            pass.merged(Kind::OtelMetric.as_str(), samples);
            if data.resources.is_empty() {
                return pass.end(Ok(()));
            }
            let points = Batch::of(data, Arc::default());
            let mut made = self.made.pass();
            made.created(Kind::PrometheusMetric.as_str(), points.items());
            made.end(pass.end(forward.consume(points).await))
        })
    }

    fn wants_origin(&self) -> bool {
        true
    }
}

impl Stage {
    fn tell(&self, warnings: &[Warning]) {
        if warnings.is_empty() {
            return;
        }
        let mut told = self.told.lock();
        if told.is_some_and(|at| at.elapsed() < WARNINGS_EVERY) {
            return;
        }
        *told = Some(Instant::now());
        for Warning { what, error, labels } in warnings {
            let fields = [("err", error.into()), ("labels", labels.into())];
            // What was said of the target needs no reason.
            let fields = if error.is_empty() { &fields[1..] } else { &fields[..] };
            self.logger.warn(what, fields);
        }
    }
}

#[cfg(test)]
mod tests;
