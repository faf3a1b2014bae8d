//! The snappy block format, in pieces that can be joined.
//!
//! A snappy block is a length and a run of elements, and the elements of a piece refer only to that piece. So pieces that
//! were compressed apart join into one block: the sum of their lengths, then their elements one after another.

use corten_signal::labels::put_varint;

/// Compresses pieces; keeps its tables from piece to piece.
pub struct Compressor {
    encoder: snap::raw::Encoder,
    block: Vec<u8>,
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}

/// The most bytes that one piece holds before compression: the format counts in 32 bits.
pub const PIECE_BYTES_MAX: usize = 1 << 30;

impl Default for Compressor {
    fn default() -> Self {
        Compressor { encoder: snap::raw::Encoder::new(), block: Vec::new() }
    }
}

impl Compressor {
    /// A new compressor.
    pub fn new() -> Self {
        Self::default()
    }

    /// The elements of `raw`, without the length that begins a block.
    ///
    /// # Panics
    ///
    /// When `raw` is longer than [`PIECE_BYTES_MAX`].
    pub fn piece(&mut self, raw: &[u8]) -> Vec<u8> {
        assert!(raw.len() <= PIECE_BYTES_MAX, "a piece holds at most {PIECE_BYTES_MAX} bytes");
        let needed = snap::raw::max_compress_len(raw.len());
        if self.block.len() < needed {
            self.block.resize(needed, 0);
        }
        // The output is large enough and the input within the limit, which are the two errors there are.
        let len = self.encoder.compress(raw, &mut self.block).unwrap_or_default();
        let header = self.block[..len].iter().take_while(|b| **b >= 0x80).count() + 1;
        self.block[header.min(len)..len].to_vec()
    }
}

/// Joins pieces into one block. `raw_len` is the sum of their lengths before compression.
pub fn join<'a>(raw_len: u64, pieces: impl Iterator<Item = &'a [u8]> + Clone) -> Vec<u8> {
    let mut block = Vec::with_capacity(10 + pieces.clone().map(<[u8]>::len).sum::<usize>());
    put_varint(&mut block, raw_len);
    for piece in pieces {
        block.extend_from_slice(piece);
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn joined_pieces_are_one_block(pieces in proptest::collection::vec(proptest::collection::vec(0u8..4, 0..2000), 0..5)) {
            let mut compressor = Compressor::new();
            let compressed: Vec<Vec<u8>> = pieces.iter().map(|p| compressor.piece(p)).collect();
            let whole: Vec<u8> = pieces.concat();
            let block = join(whole.len() as u64, compressed.iter().map(Vec::as_slice));
            prop_assert_eq!(snap::raw::Decoder::new().decompress_vec(&block).unwrap(), whole);
        }
    }
}
