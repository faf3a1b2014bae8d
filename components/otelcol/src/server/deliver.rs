//! How telemetry that was received is handed on, and what its sender is told.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use corten_component::metrics::Counter;
use corten_component::{Component, Context};
use corten_net::Backoff;
use corten_net::grpc::Code;
use corten_otlp::{Batch, OtlpSignal, RpcStatus};
use corten_signal::acks::{self, Answer};
use corten_signal::{ConsumeError, Fanout};

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
    accepted: Counter,
    refused: Counter,
}

impl ReceiverMetrics {
    /// The metrics of a receiver that OpenTelemetry calls `kind`, for one signal and transport.
    pub(crate) fn new<C: Component, S: OtlpSignal>(cx: &Context<C>, kind: &str, transport: &str) -> Self {
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
        ReceiverMetrics {
            accepted: scoped.counter_of(accepted, accepted_help, RECEIVER, labels),
            refused: scoped.counter_of(refused, refused_help, RECEIVER, labels),
        }
    }

    /// Counts items of which it is known now whether they got on.
    pub(crate) fn count(&self, items: usize, accepted: bool) {
        let counter = if accepted { &self.accepted } else { &self.refused };
        counter.add(items as u64);
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
        let outcome = self.deliver(batch).await;
        self.metrics.count(items, outcome.is_ok());
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
                Err(error) if error.code == Code::UNAVAILABLE.0 && tokio::time::Instant::now() < end => {
                    let after = error.retry_delay_ms.map(Duration::from_millis);
                    tokio::time::sleep_until((tokio::time::Instant::now() + waits.next_wait_after(after)).min(end))
                        .await;
                }
                outcome => break outcome,
            }
        };
        self.metrics.count(items, outcome.is_ok());
        outcome
    }

    async fn deliver(&self, mut batch: Batch<S::Record>) -> Result<(), RpcStatus> {
        let (acks, mut waiter) = acks::waiter();
        batch.acks = acks;
        let began = tokio::time::Instant::now();
        let forward = self.onward.0.load_full();
        match tokio::time::timeout(SAFE_WAIT_MAX, forward.consume(batch)).await {
            Ok(Ok(())) => match waiter.wait(SAFE_WAIT_MAX.saturating_sub(began.elapsed())).await {
                Answer::Safe | Answer::Held => Ok(()),
                Answer::Failed => Err(unavailable("the telemetry was lost on its way", None)),
                Answer::Late => Err(too_late()),
            },
            Ok(Err(error)) => Err(refusal(&error)),
            Err(_) => Err(too_late()),
        }
    }
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
