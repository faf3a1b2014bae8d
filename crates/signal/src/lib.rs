//! The signals that flow between components: label sets and series blocks, batches, and how batches are handed on.
//!
//! This crate knows no component, no wire format besides the one in which it stores label sets (the label list of
//! remote write 1), and no I/O.

pub mod acks;
pub mod fanout;
pub mod flow;
pub mod labels;
pub mod ledger;
pub mod logs;
pub mod metrics;
pub mod regex;
pub mod relabel;
pub mod series;
pub mod tap;
pub mod target;

pub use acks::Acks;
pub use fanout::Fanout;
pub use flow::{Consume, ConsumeError, Inlet, Receiver, Signal};
pub use labels::{LabelError, Labels, LabelsBuilder};
pub use ledger::{Kind, Ledger};
pub use logs::{Entries, EntriesBuilder, Logs, LogsBatch, Stream};
pub use metrics::{Metrics, MetricsBatch, Sample, SeriesPart};
pub use series::{BlockBuilder, SeriesBlock};
