//! The durable queue that every sink uses.
//!
//! A queue is one stream of records in a directory: batches that are already encoded and compressed. It knows bytes,
//! counts, partitions and times; it knows no signal, no protocol and no encoding. Writing is one system call for all
//! records that wait; each endpoint reads with a cursor of its own and gets runs of records to send as one request.
//! [`mod@format`] specifies the files.

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
    APPEND_BYTES_MAX, AppendError, Counts, Lag, NewRecord, Options, Outcome, PARTITIONS_MAX, ReaderOptions,
    ReaderStats, Record, Run, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, Start, Stats, TENANT_BYTES_MAX, Totals,
    default_bytes_max, reason,
};

#[cfg(test)]
mod tests;
