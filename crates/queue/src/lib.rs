//! The durable queue that every sink uses.
//!
//! A queue is one stream of records in a directory: batches that are already encoded and compressed. It knows bytes,
//! counts, partitions and times; it knows no signal, no protocol and no encoding. Writing is one system call for all
//! records that wait; each endpoint reads with a cursor of its own and gets runs of records to send as one request.
//! The files are specified at the top of `format.rs`.
//!
//! What is promised: a record whose append was answered with `Ok` survives the end of the process at once and that of
//! the machine after [`Options::sync_every`]. Each reader gets each record in the order of its partition; after a
//! crash at most the run that was out comes again in each partition. Whatever a reader does not get is counted, by
//! reason and by kind: appended = delivered + dropped + pending.

mod cursor;
mod format;
mod keeper;
mod queue;
mod reader;
mod storage;
mod types;
mod writer;

pub use queue::Queue;
pub use reader::Reader;
pub use types::{
    APPEND_BYTES_MAX, AppendError, Appended, Counts, Hold, Lag, Mark, NewRecord, Options, Outcome, PARTITIONS_MAX,
    ReaderOptions, ReaderStats, Record, Run, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, Start, Stats, TENANT_BYTES_MAX,
    Totals, default_bytes_max, reason,
};

#[cfg(test)]
mod tests;
