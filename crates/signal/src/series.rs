//! Series blocks: immutable, shared tables of label sets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::labels::{LabelError, Labels, LabelsBuilder};

/// An immutable table of label sets in one arena. A sample refers to its series by (block, index), so that nothing on
/// the path of a sample hashes or allocates labels.
pub struct SeriesBlock {
    id: u64,
    lasting: bool,
    arena: Box<[u8]>,
    ends: Box<[u32]>,
    hashes: Box<[u64]>,
}

impl SeriesBlock {
    /// A number that no other block of this process has or had.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether the source will refer to this block again in later batches, so that what is computed for the whole
    /// block is worth keeping.
    pub fn is_lasting(&self) -> bool {
        self.lasting
    }

    /// How many series the block holds.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether the block holds no series.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The label set of a series.
    pub fn labels(&self, index: u32) -> Labels<'_> {
        let index = index as usize;
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        Labels::from_encoded(&self.arena[start..self.ends[index] as usize])
    }

    /// [`Labels::hash64`] of a series, computed when the block was built.
    pub fn hash64(&self, index: u32) -> u64 {
        self.hashes[index as usize]
    }

    /// What the block occupies, in bytes.
    pub fn size_bytes(&self) -> usize {
        size_of::<Self>() + self.arena.len() + self.ends.len() * 4 + self.hashes.len() * 8
    }
}

impl std::fmt::Debug for SeriesBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SeriesBlock").field("id", &self.id).field("len", &self.len()).finish_non_exhaustive()
    }
}

/// Builds a [`SeriesBlock`].
#[derive(Default)]
pub struct BlockBuilder {
    arena: Vec<u8>,
    ends: Vec<u32>,
    hashes: Vec<u64>,
}

/// The buffers of builders that are done, for the next ones. Blocks live long and buffers grow by doubling: without this
/// every block would leave holes of its own size in the heap.
static SPARE: Mutex<Vec<BlockBuilder>> = Mutex::new(Vec::new());

/// How many such buffers are kept.
const SPARE_MAX: usize = 2;

/// The most series that a block holds: an index fits into 16 bits.
pub const SERIES_PER_BLOCK_MAX: usize = 1 << 16;

/// The arena size beyond which [`BlockBuilder::is_full`] says so, in bytes. Blocks of this size keep the copies small
/// that a growing arena makes.
pub const ARENA_BYTES_SOFT_MAX: usize = 1 << 20;

impl BlockBuilder {
    /// An empty builder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes over buffers that another builder left, before the first series is added.
    fn take_spare(&mut self) {
        if self.ends.capacity() == 0
            && let Some(spare) = SPARE.lock().pop()
        {
            *self = spare;
        }
    }

    /// Whether the next series belongs into another block.
    pub fn is_full(&self) -> bool {
        self.ends.len() >= SERIES_PER_BLOCK_MAX || self.arena.len() >= ARENA_BYTES_SOFT_MAX
    }

    /// How many series were added.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether no series was added.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Adds a label set and returns its index.
    ///
    /// # Errors
    ///
    /// As [`LabelsBuilder::encode_into`].
    ///
    /// # Panics
    ///
    /// When the builder [is full](Self::is_full).
    pub fn push(&mut self, labels: &mut LabelsBuilder) -> Result<u32, LabelError> {
        assert!(!self.is_full(), "a block holds at most {SERIES_PER_BLOCK_MAX} series");
        self.take_spare();
        let start = self.arena.len();
        labels.encode_into(&mut self.arena)?;
        Ok(self.seal(start))
    }

    /// Adds a label set that is already encoded and returns its index.
    ///
    /// # Panics
    ///
    /// When the builder [is full](Self::is_full).
    pub fn push_labels(&mut self, labels: Labels<'_>) -> u32 {
        assert!(!self.is_full(), "a block holds at most {SERIES_PER_BLOCK_MAX} series");
        self.take_spare();
        let start = self.arena.len();
        self.arena.extend_from_slice(labels.as_encoded());
        self.seal(start)
    }

    /// The label set of a series that was added.
    pub fn labels(&self, index: u32) -> Labels<'_> {
        let index = index as usize;
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        Labels::from_encoded(&self.arena[start..self.ends[index] as usize])
    }

    /// The hash of a series that was added.
    pub fn hash64(&self, index: u32) -> u64 {
        self.hashes[index as usize]
    }

    /// Removes the series that was added last.
    pub fn pop(&mut self) {
        self.ends.pop();
        self.hashes.pop();
        self.arena.truncate(self.ends.last().map_or(0, |end| *end as usize));
    }

    fn seal(&mut self, start: usize) -> u32 {
        self.hashes.push(Labels::from_encoded(&self.arena[start..]).hash64());
        self.ends.push(self.arena.len() as u32);
        (self.ends.len() - 1) as u32
    }

    /// The block; `lasting` says whether later batches will refer to it, see [`SeriesBlock::is_lasting`].
    pub fn finish(mut self, lasting: bool) -> Arc<SeriesBlock> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let block = Arc::new(SeriesBlock {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            lasting,
            arena: self.arena.as_slice().into(),
            ends: self.ends.as_slice().into(),
            hashes: self.hashes.as_slice().into(),
        });
        self.arena.clear();
        self.ends.clear();
        self.hashes.clear();
        let mut spare = SPARE.lock();
        // One label set may be far larger than a block should be; such a buffer is not kept.
        if spare.len() < SPARE_MAX && self.arena.capacity() <= 2 * ARENA_BYTES_SOFT_MAX {
            spare.push(self);
        }
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_returns_the_label_sets_that_were_added() {
        let mut builder = BlockBuilder::new();
        let mut labels = LabelsBuilder::new();
        for i in 0..100 {
            labels.clear();
            labels.push("__name__", "up");
            labels.push("instance", &i.to_string());
            assert_eq!(builder.push(&mut labels), Ok(i));
        }
        builder.pop();
        let block = builder.finish(true);
        assert_eq!(block.len(), 99);
        assert_eq!(block.labels(0).to_string(), r#"{__name__="up", instance="0"}"#);
        assert_eq!(block.labels(98).get("instance"), Some("98"));
        assert_eq!(block.hash64(98), block.labels(98).hash64());
    }

    #[test]
    fn no_two_blocks_have_one_id() {
        assert_ne!(BlockBuilder::new().finish(true).id(), BlockBuilder::new().finish(true).id());
    }
}
