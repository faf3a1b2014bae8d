//! What processors have in common that know the series of metrics, and change their points by what came before.

use std::sync::Arc;
use std::time::{Duration, Instant};

use corten_component::{Component, Context, Error};
use corten_config::Arguments;
use corten_config::schema::Stability;
use corten_net::Backoff;
use corten_otlp::{Arena, Batch, Data, Metric, OtlpMetrics};
use corten_signal::flow::BoxFuture;
use corten_signal::{Consume, ConsumeError, Fanout};

use crate::flow::{Inlets, Input, Output, Stages};
use crate::identity::Hasher;
use crate::process::ProcessMetrics;

/// How many series are known at most. The one whose last point is longest ago makes room.
pub(crate) const SERIES_MAX: usize = 1 << 20;

/// What makes one of these processors.
pub(crate) trait Tracker: Sized + Send + Sync + 'static {
    /// The component's name.
    const NAME: &'static str;
    /// The level below which a user cannot have it.
    const STABILITY: Stability = Stability::GenerallyAvailable;
    /// What OpenTelemetry calls it, if it counts items in and out.
    const COUNTS_AS: Option<&'static str> = None;
    /// Its arguments.
    type Arguments: Arguments + Clone + PartialEq + Send + Sync;
    /// What is known.
    type State: Track;

    /// Where points go.
    fn output(arguments: &Self::Arguments) -> &Output;

    /// Nothing known yet.
    ///
    /// # Errors
    ///
    /// What is wrong with the arguments that their own check cannot know.
    fn state(arguments: &Self::Arguments, cx: &Context<Tracking<Self>>) -> Result<Self::State, Error>;

    /// Goes on with what is known under other arguments, which the other state was made of.
    ///
    /// # Errors
    ///
    /// The other state, if what is known does not fit.
    fn go_on(state: &Self::State, other: Self::State) -> Result<(), Self::State>;
}

/// Changes points by what came before.
pub(crate) trait Track: Send + Sync + 'static {
    /// Changes points. What has none left goes.
    fn track(&self, batch: Batch<Metric>) -> Batch<Metric>;
}

/// Looks at every metric, with the hash of its scope, and keeps those of which `keep` says so. Scopes and resources that have
/// none left go.
pub(crate) fn retain_metrics(
    data: &mut Data<Metric>,
    hasher: &mut Hasher,
    mut keep: impl FnMut(&mut Hasher, &Arena, u128, &mut Metric) -> bool,
) {
    let Data { arena, resources } = data;
    for of in resources {
        let resource = hasher.resource(arena, of);
        for scope in &mut of.scopes {
            let hash = hasher.scope(resource, arena, scope);
            scope.records.retain_mut(|metric| keep(hasher, arena, hash, metric));
        }
    }
    data.prune();
}

/// The labels of what processors count that are not told apart by their ids.
pub(crate) const SCOPE_LABELS: [&str; 3] = ["otel_scope_name", "otel_scope_version", "otel_scope_schema_url"];

/// A component that knows series.
pub(crate) struct Tracking<K: Tracker> {
    inlets: Arc<Inlets>,
    state: Arc<K::State>,
}

/// What is to be put in place.
pub(crate) struct Prepared<K: Tracker> {
    inlets: Arc<Inlets>,
    output: Output,
    state: K::State,
}

impl<K: Tracker> Component for Tracking<K> {
    const NAME: &'static str = K::NAME;
    const STABILITY: Stability = K::STABILITY;
    type Arguments = K::Arguments;
    type Exports = Input;
    type Prepared = Prepared<K>;

    async fn prepare(
        arguments: K::Arguments,
        cx: &Context<Self>,
        current: Option<&Self>,
    ) -> Result<(Prepared<K>, Input), Error> {
        let state = K::state(&arguments, cx)?;
        let inlets = current.map_or_else(|| Inlets::new(cx.id()), |current| Arc::clone(&current.inlets));
        let exports = inlets.exports();
        Ok((Prepared { inlets, output: K::output(&arguments).clone(), state }, exports))
    }

    fn commit(current: Option<Self>, prepared: Prepared<K>, cx: &Context<Self>) -> Self {
        let Prepared { inlets, output, state } = prepared;
        let state = match current {
            None => Err(state),
            Some(current) => K::go_on(&current.state, state).map(|()| current.state),
        };
        let state = state.unwrap_or_else(Arc::new);
        inlets.attach(Stages {
            metrics: output.metrics(cx).map(|forward| -> Arc<dyn Consume<OtlpMetrics>> {
                let metrics = K::COUNTS_AS.map(|kind| ProcessMetrics::new::<_, OtlpMetrics>(cx, kind));
                Arc::new(Stage { state: Arc::clone(&state), forward, metrics })
            }),
            ..Stages::default()
        });
        Tracking { inlets, state }
    }

    async fn drain(self, _: &Context<Self>) {
        self.inlets.close();
    }
}

struct Stage<T> {
    state: Arc<T>,
    forward: Fanout<OtlpMetrics>,
    metrics: Option<ProcessMetrics>,
}

/// The waits between attempts where what follows asks for a further one, and how long attempts go on.
const RETRY_WAIT_MIN: Duration = Duration::from_millis(50);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(5);
const RETRY_FOR_MAX: Duration = Duration::from_secs(60);

impl<T: Track> Consume<OtlpMetrics> for Stage<T> {
    fn consume(&self, batch: Batch<Metric>) -> BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(async move {
            let begun = Instant::now();
            let incoming = batch.items();
            let batch = self.state.track(batch);
            if let Some(metrics) = &self.metrics {
                metrics.observe(incoming, batch.items(), begun);
            }
            if batch.is_empty() {
                batch.acks.safe();
                return Ok(());
            }
            // The points are known from now on and would come to something else the next time: they are tried again here.
            let until = tokio::time::Instant::now() + RETRY_FOR_MAX;
            let mut waits = Backoff::new(RETRY_WAIT_MIN, RETRY_WAIT_MAX);
            loop {
                match self.forward.offer(&batch).await {
                    Err(ConsumeError::Retry { after, reason }) => {
                        let wait = waits.next_wait_after(after);
                        if tokio::time::Instant::now() + wait > until {
                            return Err(ConsumeError::Retry { after, reason });
                        }
                        tokio::time::sleep(wait).await;
                    }
                    Err(error) => return Err(error),
                    Ok(()) => {
                        batch.acks.safe();
                        return Ok(());
                    }
                }
            }
        })
    }
}
