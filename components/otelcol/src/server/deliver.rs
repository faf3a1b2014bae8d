//! How telemetry that was received is handed on, and what its sender is told.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use corten_component::{Component, Context};
use corten_net::Backoff;
use corten_net::grpc::Code;
use corten_otlp::{Batch, OtlpSignal, RpcStatus};
use corten_signal::acks::{self, Answer};
use corten_signal::ledger::Row;
use corten_signal::{ConsumeError, Fanout};

use super::shown::{Shown, Told};
use crate::metrics::{RECEIVER, ScopedMetrics};

/// How long it may take until telemetry is safe. Clients wait ten seconds by default, and some for as long as they are made
/// to wait.
const SAFE_WAIT_MAX: Duration = Duration::from_secs(30);

/// The waits between attempts where nobody is there who could try again.
const RETRY_WAIT_MIN: Duration = Duration::from_millis(100);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(5);

/// Where the telemetry of one signal goes: what is under way when that changes goes where all else goes from then on, since
/// where it went before may be gone.
pub(crate) struct Onward<S: OtlpSignal>(Arc<ArcSwap<Fanout<S>>>);

impl<S: OtlpSignal> Onward<S> {
    /// Goes there from now on. Nothing changes for what is under way if there is nowhere to go.
    pub(crate) fn follow(&self, forward: Option<Fanout<S>>) -> Option<Self> {
        self.0.store(Arc::new(forward?));
        Some(self.clone())
    }
}

impl<S: OtlpSignal> Default for Onward<S> {
    fn default() -> Self {
        Onward(Arc::new(ArcSwap::from_pointee(Fanout::new([]))))
    }
}

impl<S: OtlpSignal> Clone for Onward<S> {
    fn clone(&self) -> Self {
        Onward(Arc::clone(&self.0))
    }
}

/// The way into the program for the telemetry of one signal that comes over one transport.
pub(crate) struct Entrance<S: OtlpSignal> {
    onward: Onward<S>,
    metrics: ReceiverMetrics,
}

/// What a receiver tells of what it received.
#[derive(Clone, Debug)]
pub(crate) struct ReceiverMetrics {
    told: Arc<Told>,
    row: Arc<Row>,
}

impl ReceiverMetrics {
    /// The metrics of a receiver that OpenTelemetry calls `kind`, for one signal and transport. They are `shown`, too.
    pub(crate) fn new<C: Component, S: OtlpSignal>(
        cx: &Context<C>,
        kind: &str,
        transport: &str,
        shown: &Shown,
    ) -> Self {
        let scoped = ScopedMetrics::new(cx, "go.opentelemetry.io/collector/receiver/receiverhelper", kind);
        let [(accepted, accepted_help), (refused, refused_help)] = match S::NAME {
            "traces" => [
                ("otelcol_receiver_accepted_spans_total", "Number of spans successfully pushed into the pipeline."),
                ("otelcol_receiver_refused_spans_total", "Number of spans that could not be pushed into the pipeline."),
            ],
            "metrics" => [
                (
                    "otelcol_receiver_accepted_metric_points_total",
                    "Number of metric points successfully pushed into the pipeline.",
                ),
                (
                    "otelcol_receiver_refused_metric_points_total",
                    "Number of metric points that could not be pushed into the pipeline.",
                ),
            ],
            _ => [
                (
                    "otelcol_receiver_accepted_log_records_total",
                    "Number of log records successfully pushed into the pipeline.",
                ),
                (
                    "otelcol_receiver_refused_log_records_total",
                    "Number of log records that could not be pushed into the pipeline.",
                ),
            ],
        };
        let labels = &[("transport", transport)];
        let counters = (
            scoped.counter_of(accepted, accepted_help, RECEIVER, labels),
            scoped.counter_of(refused, refused_help, RECEIVER, labels),
        );
        ReceiverMetrics { told: shown.told(transport, S::NAME, counters), row: Arc::clone(cx.ledger().row_of::<S>()) }
    }
}

impl<S: OtlpSignal> Entrance<S> {
    /// Telemetry is handed on to where `onward` goes at the time.
    pub(crate) fn new(onward: Onward<S>, metrics: ReceiverMetrics) -> Self {
        Entrance { onward, metrics }
    }

    /// Hands telemetry on, and waits until it is safe, or until a stage keeps it that only time makes go on.
    ///
    /// # Errors
    ///
    /// What the sender is to be told: to try again, or that the telemetry will never be taken.
    pub(crate) async fn take(&self, batch: Batch<S::Record>) -> Result<(), RpcStatus> {
        let items = batch.items();
        if items == 0 {
            return Ok(());
        }
        let outcome = self.deliver(batch).await.map_err(|failed| failed.status);
        self.metrics.told.count(items, outcome.as_ref().err());
        outcome
    }

    /// As [`take`](Self::take), for telemetry whose sender is not told anything: it is tried again for a while.
    pub(crate) async fn take_patiently(&self, batch: Batch<S::Record>) -> Result<(), RpcStatus> {
        let items = batch.items();
        if items == 0 {
            return Ok(());
        }
        let end = tokio::time::Instant::now() + SAFE_WAIT_MAX;
        let mut waits = Backoff::new(RETRY_WAIT_MIN, RETRY_WAIT_MAX);
        let outcome = loop {
            match self.deliver(batch.clone()).await {
                Err(Failed { status, .. }) if may_try_again(&status) && tokio::time::Instant::now() < end => {
                    let after = status.retry_delay_ms.map(Duration::from_millis);
                    tokio::time::sleep_until((tokio::time::Instant::now() + waits.next_wait_after(after)).min(end))
                        .await;
                }
                outcome => break outcome,
            }
        };
        self.metrics.told.count(items, outcome.as_ref().err().map(|failed| &failed.status));
        outcome.map_err(|Failed { status, was_taken }| {
            if !was_taken {
                // Nobody will send it again.
                self.metrics.row.received(items);
                self.metrics.row.dropped(if may_try_again(&status) { "not taken" } else { "refused" }, items);
            }
            status
        })
    }

    async fn deliver(&self, mut batch: Batch<S::Record>) -> Result<(), Failed> {
        let items = batch.items();
        let (acks, mut waiter) = acks::waiter();
        batch.acks = acks;
        let began = tokio::time::Instant::now();
        let forward = self.onward.0.load_full();
        match tokio::time::timeout(SAFE_WAIT_MAX, forward.consume(batch)).await {
            Ok(Ok(())) => {
                self.metrics.row.received(items);
                let status = match waiter.wait(SAFE_WAIT_MAX.saturating_sub(began.elapsed())).await {
                    Answer::Safe | Answer::Held => return Ok(()),
                    Answer::Failed => unavailable("the telemetry was lost on its way", None),
                    Answer::Late => too_late(),
                };
                Err(Failed { status, was_taken: true })
            }
            Ok(Err(error)) => Err(Failed { status: refusal(&error), was_taken: false }),
            Err(_) => Err(Failed { status: too_late(), was_taken: false }),
        }
    }
}

/// Telemetry is not safe.
struct Failed {
    /// What its sender is told.
    status: RpcStatus,
    /// Whether it was taken all the same, and lost or kept for too long.
    was_taken: bool,
}

fn may_try_again(status: &RpcStatus) -> bool {
    status.code == Code::UNAVAILABLE.0
}

fn too_late() -> RpcStatus {
    unavailable(format!("the receivers did not take the telemetry within {SAFE_WAIT_MAX:?}"), None)
}

/// The sender is to try again.
pub(crate) fn unavailable(message: impl Into<String>, after: Option<Duration>) -> RpcStatus {
    let retry_delay_ms = after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
    RpcStatus { code: Code::UNAVAILABLE.0, message: message.into(), retry_delay_ms }
}

fn refusal(error: &ConsumeError) -> RpcStatus {
    match error {
        ConsumeError::Retry { after, .. } => unavailable(error.to_string(), *after),
        ConsumeError::Exited { .. } => unavailable(error.to_string(), None),
        ConsumeError::Refused { .. } => {
            RpcStatus { code: Code::INTERNAL.0, message: error.to_string(), retry_delay_ms: None }
        }
    }
}
