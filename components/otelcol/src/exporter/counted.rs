//! The metrics of exporters that send at once, without a queue.

use corten_component::metrics::Counter;
use corten_component::{Component, Context};
use corten_otlp::OtlpSignal;
use corten_signal::ConsumeError;

use crate::metrics::{EXPORTER, ScopedMetrics};

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
        let scoped = ScopedMetrics::new(cx, "go.opentelemetry.io/collector/exporter/exporterhelper", kind);
        let [sent, failed] = match S::NAME {
            "traces" => [
                ("otelcol_exporter_sent_spans_total", "Number of spans successfully sent to destination."),
                (
                    "otelcol_exporter_send_failed_spans_total",
                    "Number of spans in failed attempts to send to destination.",
                ),
            ],
            "metrics" => [
                (
                    "otelcol_exporter_sent_metric_points_total",
                    "Number of metric points successfully sent to destination.",
                ),
                (
                    "otelcol_exporter_send_failed_metric_points_total",
                    "Number of metric points in failed attempts to send to destination.",
                ),
            ],
            _ => [
                ("otelcol_exporter_sent_log_records_total", "Number of log record successfully sent to destination."),
                (
                    "otelcol_exporter_send_failed_log_records_total",
                    "Number of log records in failed attempts to send to destination.",
                ),
            ],
        };
        let failures = |permanent| {
            scoped.counter_of(failed.0, failed.1, EXPORTER, &[("error_type", "_OTHER"), ("error_permanent", permanent)])
        };
        Counted { sent: scoped.counter(sent.0, sent.1, EXPORTER), failed: failures("false"), refused: failures("true") }
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
