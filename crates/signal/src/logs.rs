//! The logs signal: entries of streams.
//!
//! What a source read stays in the buffer it was read into. An entry is a time and a place in such a buffer, and a stage
//! that changes something makes a new list of entries over the same buffers: nothing is allocated or counted for a line.

mod entries;
mod shown;
mod stream;

use std::sync::Arc;

use corten_config::schema::CapsuleInfo;

pub use self::entries::{
    BUFFER_BYTES_MAX, BufferId, ENTRIES_MAX, Entries, EntriesBuilder, Entry, PartId, Sharing, Span, TEXT_BYTES_MAX,
    Text,
};
pub use self::stream::{STREAMS_MAX, Stream, StreamCache, TENANT_LABEL};
use crate::acks::Acks;
use crate::flow::Signal;
use crate::ledger::Kind;
use crate::tap::Look;

/// Logs: entries of streams.
#[derive(Debug)]
pub enum Logs {}

impl Signal for Logs {
    type Batch = LogsBatch;
    const NAME: &'static str = "logs";
    const RECEIVER: &'static CapsuleInfo =
        &CapsuleInfo { type_name: "loki.LogsReceiver", shown: "LogsReceiver", object_like: false, from: &[] };
    const KIND: Kind = Kind::LokiLog;

    fn items(batch: &Self::Batch) -> usize {
        batch.entries.len()
    }

    fn bytes(batch: &Self::Batch) -> usize {
        batch.entries.held_bytes()
    }

    fn weight(batch: &Self::Batch) -> usize {
        batch.entries.line_bytes()
    }

    fn show(batch: &Self::Batch, look: &mut Look<'_>) {
        shown::show(&batch.entries, look);
    }

    fn acks(batch: &mut Self::Batch) -> Option<&mut Acks> {
        Some(&mut batch.acks)
    }

    fn unwanted(batch: Self::Batch) {
        batch.acks.safe();
    }
}

/// Entries, and who wants to know what becomes of them.
#[derive(Clone, Debug, Default)]
pub struct LogsBatch {
    /// The entries.
    pub entries: Arc<Entries>,
    /// To be passed on with what is made of the entries. Dropping it means that entries were lost.
    pub acks: Acks,
}

impl LogsBatch {
    /// A batch of which no source wants to know what becomes.
    pub fn of(entries: Entries) -> Self {
        LogsBatch { entries: Arc::new(entries), acks: Acks::NONE }
    }

    /// As a batch of other entries, which were made of this one's.
    pub fn with(self, entries: Entries) -> Self {
        LogsBatch { entries: Arc::new(entries), acks: self.acks }
    }
}
