//! What connectors have in common that look at spans and send metrics from time to time.

use std::sync::Arc;
use std::time::Duration;

use corten_component::log::Level;
use corten_component::{Component, Context, Error, Task};
use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_otlp::{Batch, OtlpMetrics, Span, Traces};
use corten_signal::flow::BoxFuture;
use corten_signal::ledger::{Kind, Pass, Row};
use corten_signal::{Consume, ConsumeError, Fanout};
use tokio::time::Instant;

use crate::flow::{Inlets, Input, Output, Stages};
use crate::periodic::{Collect, Periodic};
use crate::resend::{Patience, Resend};
use crate::shown::{attr, show};

/// Looks at spans.
pub(crate) trait Observe: Collect {
    /// Looks at the spans of a batch. What it keeps of them is in memory. Those that it leaves out it tells to `pass`; how many
    /// these are.
    fn observe(&self, batch: &Batch<Span>, pass: &mut Pass<'_>) -> usize;

    /// How much there is in memory, of what.
    fn counts(&self) -> Vec<(&'static str, usize)>;
}

/// What makes one of these connectors.
pub(crate) trait Connector: Sized + Send + Sync + 'static {
    /// The component's name.
    const NAME: &'static str;
    /// What the log says of metrics that were not taken.
    const FAILED: &'static str;
    /// Its arguments.
    type Arguments: Arguments + Clone + PartialEq + Send + Sync;
    /// What is made of the arguments.
    type Settings: Send;
    /// What is collected.
    type State: Observe;

    /// Where metrics go.
    fn output(arguments: &Self::Arguments) -> &Output;

    /// How often they go there; 0 is with every batch.
    fn interval(arguments: &Self::Arguments) -> Duration;

    /// Makes what is needed of the arguments.
    ///
    /// # Errors
    ///
    /// What is wrong with the arguments that their own check cannot know.
    fn settings(arguments: &Self::Arguments, cx: &Context<TracesToMetrics<Self>>) -> Result<Self::Settings, Error>;

    /// Nothing collected yet.
    fn state(settings: Self::Settings, cx: &Context<TracesToMetrics<Self>>) -> Self::State;

    /// Whether what is collected fits other settings.
    fn fits(state: &Self::State, settings: &Self::Settings) -> bool;

    /// Goes on with what is collected under other settings, which it fits.
    fn go_on(state: &Self::State, settings: Self::Settings);

    /// What else runs all the time.
    fn tasks(_: &Self::Arguments, _: &Arc<Self::State>, _: &Context<TracesToMetrics<Self>>) -> Vec<Task> {
        Vec::new()
    }
}

/// Why spans are left out: there is no room, or nothing says which service they are of.
pub(crate) const NO_ROOM: &str = "no room";
pub(crate) const NO_SERVICE: &str = "no service.name";

/// The rule of the reference's connectors about their outputs.
pub(crate) fn check_output(output: &Output) -> Result<(), CheckErrors> {
    let mut errors = CheckErrors::new();
    errors.require(!output.metrics.is_empty(), &["output"], "no connectors were created");
    errors.into_result()
}

/// A component that looks at spans and sends metrics from time to time.
pub(crate) struct TracesToMetrics<K: Connector> {
    inlets: Arc<Inlets>,
    state: Arc<K::State>,
    turn: Arc<tokio::sync::Mutex<()>>,
    tasks: Vec<Task>,
}

/// What is to be put in place.
pub(crate) struct Prepared<K: Connector> {
    inlets: Arc<Inlets>,
    arguments: K::Arguments,
    settings: K::Settings,
}

impl<K: Connector> Component for TracesToMetrics<K> {
    const NAME: &'static str = K::NAME;
    type Arguments = K::Arguments;
    type Exports = Input;
    type Prepared = Prepared<K>;

    async fn prepare(
        arguments: K::Arguments,
        cx: &Context<Self>,
        current: Option<&Self>,
    ) -> Result<(Prepared<K>, Input), Error> {
        let settings = K::settings(&arguments, cx)?;
        let inlets = current.map_or_else(|| Inlets::of(cx.ledger()), |current| Arc::clone(&current.inlets));
        let exports = inlets.exports();
        Ok((Prepared { inlets, arguments, settings }, exports))
    }

    fn commit(current: Option<Self>, prepared: Prepared<K>, cx: &Context<Self>) -> Self {
        let Prepared { inlets, arguments, settings } = prepared;
        let output = K::output(&arguments);
        for (consumers, name) in [(&output.logs, "logs"), (&output.traces, "traces")] {
            if !consumers.is_empty() {
                cx.logger().warn(
                    "the connector makes metrics only: nothing goes to these consumers",
                    &[("output", name.into())],
                );
            }
        }
        // What ran until now sends what it has once more.
        let (before, turn) = match current {
            Some(current) => (Some(Arc::clone(&current.state)), Arc::clone(&current.turn)),
            None => (None, Arc::default()),
        };
        let state = match before.filter(|state| K::fits(state, &settings)) {
            Some(state) => {
                K::go_on(&state, settings);
                state
            }
            None => Arc::new(K::state(settings, cx)),
        };
        let shown = Arc::clone(&state);
        show(cx, move || shown.counts().into_iter().map(|(name, count)| attr(name, count as u64)).collect());
        let interval = K::interval(&arguments);
        let mut tasks = K::tasks(&arguments, &state, cx);
        let forward = output.metrics(cx);
        let resend = Resend::new(cx.logger().clone(), Level::Error, K::FAILED);
        if let Some(forward) = &forward {
            let periodic = Periodic {
                // Without an interval everything is sent at once, and what is left is sent at the end.
                interval: if interval.is_zero() { Duration::from_secs(86_400) } else { interval },
                forward: forward.clone(),
                row: Arc::clone(cx.ledger().row_of::<OtlpMetrics>()),
                resend: resend.clone(),
                early: Arc::default(),
                turn: Arc::clone(&turn),
            };
            let collector = Arc::clone(&state);
            tasks.push(cx.spawn("flush", move |stop| periodic.clone().run(Arc::clone(&collector), stop)));
        }
        inlets.attach(Stages {
            traces: forward.map(|forward| -> Arc<dyn Consume<Traces>> {
                let at_once = interval.is_zero().then_some((forward, resend));
                let [row, made] = [Kind::OtelTrace, Kind::OtelMetric].map(|kind| Arc::clone(cx.ledger().row(kind)));
                Arc::new(Stage { state: Arc::clone(&state), at_once, row, made })
            }),
            ..Stages::default()
        });
        TracesToMetrics { inlets, state, turn, tasks }
    }

    async fn drain(self, _: &Context<Self>) {
        self.inlets.close();
        for task in self.tasks {
            task.stop().await;
        }
    }
}

struct Stage<C> {
    state: Arc<C>,
    /// Where metrics go with every batch.
    at_once: Option<(Fanout<OtlpMetrics>, Resend)>,
    /// Where spans and points are counted.
    row: Arc<Row>,
    made: Arc<Row>,
}

impl<C: Observe> Consume<Traces> for Stage<C> {
    fn consume(&self, batch: Batch<Span>) -> BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(async move {
            let mut pass = self.row.pass();
            let left_out = self.state.observe(&batch, &mut pass);
            pass.merged(Kind::OtelMetric.as_str(), batch.items().saturating_sub(left_out));
            // The spans are counted, and that is all that is ever made of them.
            batch.acks.safe();
            let Some((forward, resend)) = &self.at_once else { return pass.end(Ok(())) };
            let Some((metrics, kept)) = self.state.collect() else { return pass.end(Ok(())) };
            let points = metrics.items();
            // There is one attempt: what is not taken goes with the next spans.
            let patience = Patience { until: Some(Instant::now()), stop: None };
            match resend.send(&self.made, forward, metrics, patience).await {
                Ok(()) => self.state.count(points, &self.made),
                Err(unsent) => self.state.put_back(unsent.batch, kept, &self.made),
            }
            pass.end(Ok(()))
        })
    }
}
