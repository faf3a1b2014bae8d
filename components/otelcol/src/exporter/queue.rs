//! The `sending_queue` block.

use std::time::Duration;

use bytes::Bytes;
use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_otlp::{Batch, Record};

use crate::auth::Handler;

/// Keeps telemetry until it is sent.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct QueueArguments {
    /// Whether there is a queue. Without one whoever sends telemetry waits until it was exported, and is told the outcome.
    #[arg(default = true)]
    pub enabled: bool,
    /// How many requests may be under way at a time, for each signal.
    #[arg(default = 10)]
    pub num_consumers: i64,
    /// How much the queue holds, with what is under way; in what, `sizer` says.
    #[arg(default = 1000)]
    pub queue_size: i64,
    /// Whether whoever sends telemetry waits while the queue is full. Otherwise it is refused, and may be sent again later.
    #[arg(default = false)]
    pub block_on_overflow: bool,
    /// What `queue_size` counts: `requests`; `items`, which are spans, data points and log records; or `bytes` of messages.
    #[arg(default = "requests")]
    pub sizer: String,
    /// Whether whoever sends telemetry waits until it was exported, and is told the outcome.
    #[arg(default = false)]
    pub wait_for_result: bool,
    /// Joins what waits to larger requests.
    #[block]
    pub batch: Option<BatchArguments>,
    /// Where the queue is kept, from a component whose name begins with `otelcol.storage.`. Without it the queue is in memory
    /// and ends with the process. What waits there survives restarts, however the process ends.
    pub storage: Option<Handler>,
}

impl Default for QueueArguments {
    fn default() -> Self {
        QueueArguments {
            enabled: true,
            num_consumers: 10,
            queue_size: 1000,
            block_on_overflow: false,
            sizer: "requests".to_owned(),
            wait_for_result: false,
            batch: None,
            storage: None,
        }
    }
}

/// How what waits is joined to larger requests.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct BatchArguments {
    /// How long what waits for others does so at most.
    #[arg(default = "200ms")]
    pub flush_timeout: Duration,
    /// How much is sent at once, without waiting for more.
    #[arg(default = 2000)]
    pub min_size: i64,
    /// How much one request holds at most; what is larger is split. 0 sets no limit.
    #[arg(default = 3000)]
    pub max_size: i64,
    /// What the sizes count: `items`, which are spans, data points and log records, or `bytes` of messages.
    #[arg(default = "items")]
    pub sizer: String,
}

impl QueueArguments {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        if !self.enabled {
            return errors.into_result();
        }
        errors.require(self.queue_size > 0, &["queue_size"], "queue_size must be greater than zero");
        errors.require(self.num_consumers > 0, &["num_consumers"], "`num_consumers` must be positive");
        if Sizer::named(&self.sizer).is_none() {
            errors.push(&["sizer"], format!("invalid sizer: {}", self.sizer));
        }
        if let Some(batch) = &self.batch {
            errors.require(
                batch.sizer != self.sizer || batch.min_size <= self.queue_size,
                &["batch", "queue_size", "sizer"],
                "`min_size` must be less than or equal to `queue_size`",
            );
        }
        errors.require(
            self.storage.is_none() || !self.wait_for_result,
            &["wait_for_result", "storage"],
            "`wait_for_result` is not supported with a persistent queue configured with `storage`",
        );
        errors.into_result()
    }

    /// The most requests under way at a time.
    pub(crate) fn consumers(&self) -> usize {
        usize::try_from(self.num_consumers).unwrap_or(usize::MAX).clamp(1, CONSUMERS_MAX)
    }

    /// What the queue holds at most.
    pub(crate) fn capacity(&self) -> u64 {
        u64::try_from(self.queue_size).unwrap_or_default()
    }

    /// What the queue counts.
    pub(crate) fn sizer(&self) -> Sizer {
        Sizer::named(&self.sizer).unwrap_or(Sizer::Requests)
    }

    /// How requests are joined and split.
    pub(crate) fn joining(&self) -> Joining {
        match &self.batch {
            None => Joining { sizer: Sizer::Requests, min: 0, max: u64::MAX, wait: Duration::ZERO },
            Some(batch) => Joining {
                sizer: Sizer::named(&batch.sizer).unwrap_or(Sizer::Items),
                min: u64::try_from(batch.min_size).unwrap_or_default(),
                max: u64::try_from(batch.max_size).ok().filter(|max| *max > 0).unwrap_or(u64::MAX),
                wait: batch.flush_timeout,
            },
        }
    }
}

/// The most requests under way at a time, whatever is asked for: as many as a queue on disk has partitions.
const CONSUMERS_MAX: usize = corten_queue::PARTITIONS_MAX as usize;

impl BatchArguments {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        errors.require(
            matches!(self.sizer.as_str(), "items" | "bytes"),
            &["sizer"],
            "`batch` supports only `items` or `bytes` sizer",
        );
        errors.require(!self.flush_timeout.is_zero(), &["flush_timeout"], "`flush_timeout` must be positive");
        errors.require(self.min_size >= 0, &["min_size"], "`min_size` must be non-negative");
        errors.require(self.max_size >= 0, &["max_size"], "`max_size` must be non-negative");
        errors.require(
            self.max_size <= 0 || self.max_size >= self.min_size,
            &["max_size", "min_size"],
            "`max_size` must be greater or equal to `min_size`",
        );
        errors.into_result()
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sizer {
    Requests,
    Items,
    Bytes,
}

impl Sizer {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "requests" => Sizer::Requests,
            "items" => Sizer::Items,
            "bytes" => Sizer::Bytes,
            _ => return None,
        })
    }

    /// How much a batch is.
    pub(crate) fn of<R: Record>(self, batch: &Batch<R>) -> u64 {
        match self {
            Sizer::Requests => 1,
            Sizer::Items => batch.items() as u64,
            Sizer::Bytes => batch.message_len() as u64,
        }
    }
}

/// How requests are joined and split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Joining {
    pub(crate) sizer: Sizer,
    /// As much is not kept waiting.
    pub(crate) min: u64,
    /// One request has no more.
    pub(crate) max: u64,
    /// Nothing waits longer.
    pub(crate) wait: Duration,
}

impl Joining {
    /// Takes from the front what makes one request; at least one item, however large it is.
    pub(crate) fn take<R: Record>(&self, batch: &mut Batch<R>) -> Batch<R> {
        let items_max = match self.sizer {
            Sizer::Requests => usize::MAX,
            Sizer::Items => usize::try_from(self.max).unwrap_or(usize::MAX).max(1),
            Sizer::Bytes => return self.take_bytes(batch),
        };
        batch.take_front(items_max)
    }

    fn take_bytes<R: Record>(&self, batch: &mut Batch<R>) -> Batch<R> {
        let max = usize::try_from(self.max).unwrap_or(usize::MAX);
        let fits = |batch: &Batch<R>| batch.message().map(Bytes::len).sum::<usize>() <= max || batch.items() <= 1;
        let mut items = usize::MAX;
        if !fits(batch) {
            let share = batch.items() as u128 * max as u128 / batch.message_len() as u128;
            items = usize::try_from(share).unwrap_or(usize::MAX).max(1);
        }
        let mut front = batch.take_front(items);
        while !fits(&front) {
            let mut rest = front;
            front = rest.take_front((rest.items() / 2).max(1));
            rest.join(std::mem::take(batch));
            *batch = rest;
        }
        front
    }
}

#[cfg(test)]
mod tests {
    use corten_otlp::LogRecord;
    use corten_testkit::otlp;
    use proptest::prelude::*;

    use super::*;

    fn logs(lengths: &[usize]) -> Batch<LogRecord> {
        let record = |len: &usize| format!(r#"{{"body":{{"stringValue":"{}"}}}}"#, "x".repeat(*len));
        let records: Vec<_> = lengths.iter().map(record).collect();
        otlp(&format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{}]}}]}}]}}"#, records.join(",")))
    }

    proptest! {
        #[test]
        fn what_is_split_by_bytes_is_whole_and_within_the_limit(lengths in proptest::collection::vec(0usize..300, 1..40), max in 1u64..2000) {
            let joining = Joining { sizer: Sizer::Bytes, min: 0, max, wait: Duration::ZERO };
            let mut batch = logs(&lengths);
            let mut items = 0;
            while batch.items() > 0 {
                let part = joining.take(&mut batch);
                prop_assert!(part.items() == 1 || part.items() > 0 && part.message_len() as u64 <= max);
                items += part.items();
            }
            prop_assert_eq!(items, lengths.len());
        }
    }
}
