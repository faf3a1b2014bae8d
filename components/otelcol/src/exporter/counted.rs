//! The metrics of exporters that send at once, without a queue.

use corten_component::metrics::Counter;
use corten_component::{Component, Context};
use corten_otlp::OtlpSignal;
use corten_signal::ConsumeError;

use crate::metrics::{EXPORTER, ScopedMetrics};

/// The name of a metric, and what it is.
type Name = (&'static str, &'static str);

/// The metrics of a signal that every exporter has.
pub(crate) struct Names {
    pub(crate) sent: Name,
    pub(crate) failed: Name,
    pub(crate) enqueue_failed: Name,
}

impl Names {
    pub(crate) fn of<S: OtlpSignal>() -> &'static Self {
        match S::NAME {
            "traces" => &Names {
                sent: ("otelcol_exporter_sent_spans_total", "Number of spans successfully sent to destination."),
                failed: (
                    "otelcol_exporter_send_failed_spans_total",
                    "Number of spans in failed attempts to send to destination.",
                ),
                enqueue_failed: (
                    "otelcol_exporter_enqueue_failed_spans_total",
                    "Number of spans failed to be added to the sending queue.",
                ),
            },
            "metrics" => &Names {
                sent: (
                    "otelcol_exporter_sent_metric_points_total",
                    "Number of metric points successfully sent to destination.",
                ),
                failed: (
                    "otelcol_exporter_send_failed_metric_points_total",
                    "Number of metric points in failed attempts to send to destination.",
                ),
                enqueue_failed: (
                    "otelcol_exporter_enqueue_failed_metric_points_total",
                    "Number of metric points failed to be added to the sending queue.",
                ),
            },
            _ => &Names {
                sent: (
                    "otelcol_exporter_sent_log_records_total",
                    "Number of log record successfully sent to destination.",
                ),
                failed: (
                    "otelcol_exporter_send_failed_log_records_total",
                    "Number of log records in failed attempts to send to destination.",
                ),
                enqueue_failed: (
                    "otelcol_exporter_enqueue_failed_log_records_total",
                    "Number of log records failed to be added to the sending queue.",
                ),
            },
        }
    }
}

/// The scope of the metrics of exporters.
pub(crate) const SCOPE: &str = "go.opentelemetry.io/collector/exporter/exporterhelper";

/// How many items of a signal were sent, and how many could not be.
#[derive(Clone, Debug)]
pub(crate) struct Counted {
    sent: Counter,
    failed: Counter,
    refused: Counter,
}

impl Counted {
    /// The metrics of an exporter that OpenTelemetry calls `kind`.
    pub(crate) fn new<C: Component, S: OtlpSignal>(cx: &Context<C>, kind: &str) -> Self {
        let scoped = ScopedMetrics::new(cx, SCOPE, kind);
        let Names { sent, failed, .. } = Names::of::<S>();
        let failures = |permanent| {
            scoped.counter_of(failed.0, failed.1, EXPORTER, &[("error_type", "_OTHER"), ("error_permanent", permanent)])
        };
        Counted { sent: scoped.counter(sent.0, sent.1, EXPORTER), failed: failures("false"), refused: failures("true") }
    }

    /// Counts items that never will be sent.
    pub(crate) fn refused(&self, items: usize) {
        self.refused.add(items as u64);
    }

    /// Counts what came of some items.
    pub(crate) fn count(&self, items: usize, outcome: &Result<(), ConsumeError>) {
        match outcome {
            Ok(()) => &self.sent,
            Err(ConsumeError::Refused { .. }) => &self.refused,
            Err(_) => &self.failed,
        }
        .add(items as u64);
    }
}
