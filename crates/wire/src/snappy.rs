//! The snappy block format, in pieces that can be joined.
//!
//! A snappy block is a length and a run of elements, and the elements of a piece refer only to that piece. So pieces that
//! were compressed apart join into one block: the sum of their lengths, then their elements one after another.

use std::fmt;

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

/// Why a block was not decompressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnappyError {
    /// The block says that it is longer than the limit.
    TooLong {
        /// What it says, in bytes.
        len: usize,
        /// The limit, in bytes.
        len_max: usize,
    },
    /// The block is broken.
    Corrupt,
}

impl fmt::Display for SnappyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SnappyError::TooLong { len, len_max } => {
                write!(f, "snappy: decoded block of {len} bytes is longer than the limit of {len_max} bytes")
            }
            SnappyError::Corrupt => f.write_str("snappy: corrupt input"),
        }
    }
}

impl std::error::Error for SnappyError {}

/// Decompresses a block of at most `len_max` bytes. Memory is taken only after the length that the block says was
/// compared with the limit.
///
/// # Errors
///
/// Where the block is longer or broken.
pub fn decompress(block: &[u8], len_max: usize) -> Result<Vec<u8>, SnappyError> {
    let len = snap::raw::decompress_len(block).map_err(|_| SnappyError::Corrupt)?;
    if len > len_max {
        return Err(SnappyError::TooLong { len, len_max });
    }
    snap::raw::Decoder::new().decompress_vec(block).map_err(|_| SnappyError::Corrupt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_block_is_decompressed_within_its_limit() {
        let block = join(3, [&Compressor::new().piece(b"abc")[..]].into_iter());
        assert_eq!(decompress(&block, 3), Ok(b"abc".to_vec()));
        assert_eq!(decompress(&block, 2), Err(SnappyError::TooLong { len: 3, len_max: 2 }));
        // A length of 4 GiB, of which nothing follows.
        assert_eq!(
            decompress(b"\xff\xff\xff\xff\x0f", 32 << 20),
            Err(SnappyError::TooLong { len: u32::MAX as usize, len_max: 32 << 20 })
        );
        for broken in [&b""[..], b"\x03", b"\x03\x08ab", b"\xff\xff\xff\xff\xff\xff", b"\x05\x08abc"] {
            assert_eq!(decompress(broken, 1 << 20), Err(SnappyError::Corrupt), "{broken:x?}");
        }
    }

    proptest! {
        #[test]
        fn joined_pieces_are_one_block(pieces in proptest::collection::vec(proptest::collection::vec(0u8..4, 0..2000), 0..5)) {
            let mut compressor = Compressor::new();
            let compressed: Vec<Vec<u8>> = pieces.iter().map(|p| compressor.piece(p)).collect();
            let whole: Vec<u8> = pieces.concat();
            let block = join(whole.len() as u64, compressed.iter().map(Vec::as_slice));
            prop_assert_eq!(decompress(&block, whole.len()), Ok(whole));
        }

        #[test]
        fn no_bytes_make_it_panic(block: Vec<u8>) {
            let _ = decompress(&block, 1 << 20);
        }
    }
}
