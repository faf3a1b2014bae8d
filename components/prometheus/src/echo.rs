//! `prometheus.echo`.

use std::sync::Arc;

use corten_component::log::{Level, Logger};
use corten_component::{Component, Context, Error, LocalEnd};
use corten_config::{Arguments, Exports};
use corten_signal::flow::BoxFuture;
use corten_signal::{Consume, ConsumeError, Inlet, Metrics, MetricsBatch, Receiver};
use corten_wire::text_encode::{TextFormat, encode_batch};

/// Writes the metrics that it is sent to the log, one line a batch, to look at what flows through a pipeline.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct EchoArguments {
    /// How the metrics are written: `text` for the Prometheus text format, `openmetrics` for OpenMetrics.
    #[arg(default = "text")]
    format: String,
}

/// What others can refer to.
#[derive(Exports, Clone, Debug, PartialEq)]
pub struct EchoExports {
    /// Takes the metrics that are to be written.
    receiver: Receiver<Metrics>,
}

/// The component.
pub struct Echo {
    inlet: Arc<Inlet<Metrics>>,
    log: Arc<LocalEnd>,
}

/// What is to be put in place.
pub struct Prepared {
    inlet: Arc<Inlet<Metrics>>,
    format: String,
}

impl Component for Echo {
    const NAME: &'static str = "prometheus.echo";
    type Arguments = EchoArguments;
    type Exports = EchoExports;
    type Prepared = Prepared;

    async fn prepare(
        arguments: EchoArguments,
        cx: &Context<Self>,
        current: Option<&Self>,
    ) -> Result<(Prepared, EchoExports), Error> {
        let inlet = current.map_or_else(|| Arc::new(Inlet::of(cx.ledger())), |current| Arc::clone(&current.inlet));
        let exports = EchoExports { receiver: inlet.receiver() };
        Ok((Prepared { inlet, format: arguments.format }, exports))
    }

    fn commit(current: Option<Self>, Prepared { inlet, format }: Prepared, cx: &Context<Self>) -> Self {
        let log = current.map_or_else(|| LocalEnd::new::<Metrics>(cx.ledger(), "log"), |current| current.log);
        log.show();
        let format = match format.as_str() {
            "text" | "" => TextFormat::Prometheus,
            "openmetrics" => TextFormat::OpenMetrics,
            _ => {
                cx.logger().warn("unknown format, using text", &[("format", format.into())]);
                TextFormat::Prometheus
            }
        };
        inlet.attach(Arc::new(Stage { format, logger: cx.logger().clone(), log: Arc::clone(&log) }));
        Echo { inlet, log }
    }

    async fn drain(self, _: &Context<Self>) {
        self.inlet.close();
    }
}

struct Stage {
    format: TextFormat,
    logger: Logger,
    log: Arc<LocalEnd>,
}

impl Consume<Metrics> for Stage {
    fn consume(&self, batch: Arc<MetricsBatch>) -> BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(async move {
            let items = batch.items();
            let is_written = self.logger.takes(Level::Info);
            if is_written {
                self.logger.info("received metrics", &[("metrics", encode_batch(&batch, self.format).into())]);
            }
            let taken = self.log.take(items, 0);
            match is_written {
                true => taken.delivered(),
                false => taken.below_level(),
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use corten_component::Definition;
    use corten_component::log::Format;
    use corten_signal::{BlockBuilder, Kind, LabelsBuilder, Sample, SeriesPart};
    use corten_testkit::{Unit, World, host};

    use super::*;

    const ECHO: Definition = Definition::of::<Echo>();

    async fn start(body: &str) -> Unit {
        Unit::start(host("prometheus.echo.a"), &ECHO, body).await.unwrap()
    }

    fn receiver(world: &World) -> Receiver<Metrics> {
        let exports = world.exports();
        let receiver = exports.last().and_then(|exports| exports.field("receiver")).unwrap();
        let receiver = receiver.as_capsule().and_then(|capsule| capsule.as_any().downcast_ref::<Receiver<Metrics>>());
        receiver.unwrap().clone()
    }

    /// A batch of two samples of one series.
    fn batch() -> Arc<MetricsBatch> {
        let (mut block, mut labels) = (BlockBuilder::new(), LabelsBuilder::new());
        labels.push("__name__", "test_metric");
        labels.push("job", "a");
        let index = block.push(&mut labels).unwrap();
        let samples = [41.0, 42.0].map(|value| Sample { value, index, offset_ms: value as i32 });
        let part = SeriesPart::of_samples(block.finish(false), 1000, samples.to_vec());
        Arc::new(MetricsBatch::of(vec![part]))
    }

    #[tokio::test]
    async fn a_batch_is_a_line_with_its_text() {
        for (body, expected) in [
            ("", r#"# TYPE test_metric untyped\ntest_metric{job=\"a\"} 42 1042\n"#),
            ("format = \"text\"", r#"# TYPE test_metric untyped\ntest_metric{job=\"a\"} 42 1042\n"#),
            ("format = \"openmetrics\"", r#"# TYPE test_metric unknown\ntest_metric{job=\"a\"} 42.0 1.042\n"#),
        ] {
            let unit = start(body).await;
            receiver(&unit.world).consume(batch()).await.unwrap();
            let line =
                format!("level=info msg=\"received metrics\" component_id=prometheus.echo.a metrics=\"{expected}\"\n");
            assert!(unit.world.logs().ends_with(&line), "{body}: {}", unit.world.logs());
            assert_eq!(unit.world.balance_of(Kind::PrometheusMetric), "taken 2, out 2");
        }
    }

    #[tokio::test]
    async fn a_format_that_is_not_known_is_text() {
        let unit = start("format = \"yaml\"").await;
        assert!(unit.world.logs().contains("level=warn msg=\"unknown format, using text\""), "{}", unit.world.logs());
        assert!(unit.world.logs().contains("format=yaml"));
        receiver(&unit.world).consume(batch()).await.unwrap();
        assert!(unit.world.logs().contains("test_metric untyped"));
    }

    #[tokio::test]
    async fn another_format_applies_from_the_next_batch_on() {
        let mut unit = start("").await;
        let entrance = receiver(&unit.world);
        unit.update("format = \"openmetrics\"").await.unwrap();
        assert_eq!(receiver(&unit.world), entrance);
        entrance.consume(batch()).await.unwrap();
        assert!(unit.world.logs().contains("test_metric unknown"), "{}", unit.world.logs());
        assert_eq!(unit.world.balance().ends.iter().map(|end| end.delivered).collect::<Vec<_>>(), [2]);
        unit.drain().await;
        assert_eq!(entrance.consume(batch()).await.unwrap_err().to_string(), "prometheus.echo.a has exited");
    }

    #[tokio::test]
    async fn nothing_is_written_below_the_level() {
        let unit = start("").await;
        unit.world.host().logger.sink().configure(Level::Warn, Format::Logfmt);
        receiver(&unit.world).consume(batch()).await.unwrap();
        assert_eq!(unit.world.logs(), "");
        let end = &unit.world.balance().ends[0];
        assert_eq!((end.offered, end.delivered, &*end.dropped), (2, 0, &[("log level".to_owned(), 2)][..]));
    }
}
