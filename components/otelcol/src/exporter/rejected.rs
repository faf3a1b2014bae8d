//! What a server says that it did not take of a request that it took.

use corten_component::Logger;
use corten_component::metrics::{Counter, Vector};
use corten_otlp::{OtlpSignal, PartialSuccess};

use super::sending::Owner;

/// How much of what a server says stands in the log, in bytes.
pub(crate) const SHOWN_BYTES_MAX: usize = 4 << 10;

/// Says and counts what servers do not take.
pub(crate) struct Rejected {
    name: String,
    logger: Logger,
    items: Vector<Counter>,
}

impl Rejected {
    pub(crate) fn new(owner: &Owner) -> Self {
        Rejected {
            name: owner.name(),
            logger: owner.logger().clone(),
            items: owner.registry().counters(
                "corten_exporter_rejected_items_total",
                "Spans, data points and log records that the server did not take of requests that it took.",
                &["exporter", "signal"],
            ),
        }
    }

    /// Says what an answer says, if it says anything. How many items are rejected.
    pub(crate) fn say<S: OtlpSignal>(&self, partial: Option<PartialSuccess>) -> usize {
        let Some(PartialSuccess { rejected, mut message }) = partial else { return 0 };
        message.truncate(message.floor_char_boundary(SHOWN_BYTES_MAX));
        let dropped = match S::NAME {
            "traces" => "dropped_spans",
            "metrics" => "dropped_data_points",
            _ => "dropped_log_records",
        };
        let fields = [("message", message.into()), (dropped, rejected.into())];
        self.logger.warn("Partial success response", &fields);
        let rejected = u64::try_from(rejected).unwrap_or_default();
        self.items.with(&[&self.name, S::NAME]).add(rejected);
        usize::try_from(rejected).unwrap_or(usize::MAX)
    }
}
