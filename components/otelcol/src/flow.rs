//! How telemetry enters the components of the family, and leaves them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use corten_component::{Component, Context};
use corten_config::{Arguments, Exports, StringEnum};
use corten_otlp::{Consumer, OtlpLogs, OtlpMetrics, OtlpSignal, Traces};
use corten_signal::flow::BoxFuture;
use corten_signal::{Consume, ConsumeError, Fanout, Inlet, Ledger, Receiver, Signal};
use parking_lot::Mutex;

/// Where a component sends its output.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// Where to send metrics.
    #[arg(optional)]
    pub(crate) metrics: Vec<Consumer>,
    /// Where to send logs.
    #[arg(optional)]
    pub(crate) logs: Vec<Consumer>,
    /// Where to send traces.
    #[arg(optional)]
    pub(crate) traces: Vec<Consumer>,
}

/// Which metrics of its own a component has.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub struct DebugMetrics {
    /// Whether metrics have no labels for the peers of connections.
    #[arg(default = true)]
    disable_high_cardinality_metrics: bool,
    /// Has no effect. It is there for the sake of configurations that have it.
    #[arg(default = "detailed", deprecated = "it has no effect")]
    level: DebugLevel,
}

/// How much a component once told of itself.
#[derive(StringEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[string_enum(refusal = refuse_debug_level)]
enum DebugLevel {
    /// Nothing.
    None,
    /// The least.
    Basic,
    /// More.
    Normal,
    /// All.
    #[default]
    Detailed,
}

fn refuse_debug_level(text: &str) -> String {
    format!("unrecognized debug level {text:?}")
}

impl DebugMetrics {
    /// Whether metrics have labels for the peers of connections.
    pub(crate) fn names_peers(&self) -> bool {
        !self.disable_high_cardinality_metrics
    }
}

/// What a component exports that takes telemetry.
#[derive(Exports, Clone, Debug, PartialEq)]
pub struct Input {
    /// Takes telemetry.
    pub input: Consumer,
}

/// The entrances of a component: one for each signal.
pub(crate) struct Inlets {
    traces: Inlet<Traces>,
    metrics: Inlet<OtlpMetrics>,
    logs: Inlet<OtlpLogs>,
}

impl Inlets {
    /// The entrances of a component. What it takes is counted.
    pub(crate) fn of(ledger: &Ledger) -> Arc<Self> {
        Arc::new(Inlets { traces: Inlet::of(ledger), metrics: Inlet::of(ledger), logs: Inlet::of(ledger) })
    }

    /// Entrances that keep no books.
    pub(crate) fn new(component: &str) -> Arc<Self> {
        Arc::new(Inlets { traces: Inlet::new(component), metrics: Inlet::new(component), logs: Inlet::new(component) })
    }

    pub(crate) fn exports(&self) -> Input {
        Input {
            input: Consumer {
                traces: self.traces.receiver(),
                metrics: self.metrics.receiver(),
                logs: self.logs.receiver(),
            },
        }
    }

    /// Puts in place a stage for each signal that has somewhere to go. What comes of another one is not taken.
    pub(crate) fn attach(&self, stages: Stages) {
        self.traces.attach(stages.traces.unwrap_or_else(|| Arc::new(Unsupported)));
        self.metrics.attach(stages.metrics.unwrap_or_else(|| Arc::new(Unsupported)));
        self.logs.attach(stages.logs.unwrap_or_else(|| Arc::new(Unsupported)));
    }

    pub(crate) fn close(&self) {
        self.traces.close();
        self.metrics.close();
        self.logs.close();
    }
}

/// What runs behind the entrances; nothing for a signal that is not taken.
#[derive(Default)]
pub(crate) struct Stages {
    pub(crate) traces: Option<Arc<dyn Consume<Traces>>>,
    pub(crate) metrics: Option<Arc<dyn Consume<OtlpMetrics>>>,
    pub(crate) logs: Option<Arc<dyn Consume<OtlpLogs>>>,
}

impl Output {
    /// The consumers of a signal; `None` where there are none. What one of several does not take is counted and logged.
    fn fanout<C: Component, S: OtlpSignal>(&self, cx: &Context<C>, consumers: &[Consumer]) -> Option<Fanout<S>> {
        let receivers: Vec<Receiver<S>> = consumers.iter().map(|consumer| S::of(consumer).clone()).collect();
        (!receivers.is_empty()).then(|| fanout(cx, receivers))
    }

    /// Where traces go; `None` where they go nowhere.
    pub(crate) fn traces<C: Component>(&self, cx: &Context<C>) -> Option<Fanout<Traces>> {
        self.fanout(cx, &self.traces)
    }

    /// Where metrics go; `None` where they go nowhere.
    pub(crate) fn metrics<C: Component>(&self, cx: &Context<C>) -> Option<Fanout<OtlpMetrics>> {
        self.fanout(cx, &self.metrics)
    }

    /// Where logs go; `None` where they go nowhere.
    pub(crate) fn logs<C: Component>(&self, cx: &Context<C>) -> Option<Fanout<OtlpLogs>> {
        self.fanout(cx, &self.logs)
    }

    /// Makes a stage for each signal that has consumers.
    pub(crate) fn stages<C: Component>(&self, cx: &Context<C>, make: &impl MakeStage) -> Stages {
        Stages {
            traces: self.traces(cx).map(|to| make.stage(to)),
            metrics: self.metrics(cx).map(|to| make.stage(to)),
            logs: self.logs(cx).map(|to| make.stage(to)),
        }
    }
}

/// Makes the stage of a signal.
pub(crate) trait MakeStage {
    fn stage<S: OtlpSignal>(&self, forward: Fanout<S>) -> Arc<dyn Consume<S>>;
}

/// How often the log says that something is dropped for a receiver.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// Hands batches to some receivers. What one of several does not take is counted and logged.
pub(crate) fn fanout<C: Component, S: Signal>(cx: &Context<C>, receivers: Vec<Receiver<S>>) -> Fanout<S> {
    let dropped = cx.metrics().counters(
        "corten_forward_dropped_items_total",
        "Spans, data points and log records that one of several consumers did not take in time or refused, while others took them.",
        &["receiver", "signal"],
    );
    let logger = cx.logger().clone();
    let warned = Mutex::new(None::<Instant>);
    Fanout::of(cx.ledger(), receivers).with_on_lost(Arc::new(move |component, items, why| {
        dropped.with(&[component, S::NAME]).add(items as u64);
        let mut warned = warned.lock();
        if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            *warned = Some(Instant::now());
            let fields = [
                ("receiver", component.into()),
                ("signal", S::NAME.into()),
                ("items", items.into()),
                ("err", why.into()),
            ];
            logger.warn("dropped telemetry for one of several consumers", &fields);
        }
    }))
}

/// Takes nothing: there is nowhere to send it.
struct Unsupported;

impl<S: OtlpSignal> Consume<S> for Unsupported {
    fn consume(&self, _: S::Batch) -> BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(async {
            Err(ConsumeError::Retry { after: None, reason: "telemetry type is not supported".to_owned() })
        })
    }

    fn takes_anything(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use corten_otlp::{Batch, LogRecord};
    use corten_testkit::otlp;

    use super::*;

    /// Keeps the batches that it is handed.
    #[derive(Default)]
    struct Kept(Mutex<Vec<Batch<LogRecord>>>);

    impl Consume<OtlpLogs> for Kept {
        fn consume(&self, batch: Batch<LogRecord>) -> BoxFuture<'_, Result<(), ConsumeError>> {
            self.0.lock().push(batch);
            Box::pin(async { Ok(()) })
        }
    }

    #[tokio::test]
    async fn all_consumers_share_the_message_and_what_one_of_them_decodes() {
        let kept = [Arc::new(Kept::default()), Arc::new(Kept::default())];
        let inlets = kept.clone().map(|kept| {
            let inlet = Inlet::<OtlpLogs>::new("otelcol.exporter.a");
            inlet.attach(kept);
            inlet
        });
        let batch = otlp(r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"a"}}]}]}]}"#);
        let place = |batch: &Batch<LogRecord>| batch.message().next().unwrap().as_ptr();
        let was = place(&batch);
        Fanout::new(inlets.iter().map(Inlet::receiver)).consume(batch).await.unwrap();
        let [one, other] = kept.map(|kept| kept.0.lock().pop().unwrap());
        assert_eq!([place(&one), place(&other)], [was; 2]);
        assert!(Arc::ptr_eq(one.data().next().unwrap(), other.data().next().unwrap()));
    }
}
