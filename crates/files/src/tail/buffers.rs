//! Buffers that files are read into, used again when nobody refers to their text any more.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

/// Shorter ones are made as they are needed, in just the right size, so that a line that waits does not keep more memory
/// than it has.
const SMALL_BYTES_MAX: usize = 64 << 10;
/// How many of those in use are known.
const KEPT_MAX: usize = 64;
/// How many of the oldest are looked at.
const LOOKS_MAX: usize = 8;

/// Buffers of one size, and smaller ones.
#[derive(Debug)]
pub struct Buffers {
    large_bytes: usize,
    /// Those that were handed out, the oldest first. Who was handed one has it for himself again when all others are
    /// done with it.
    kept: Mutex<VecDeque<Bytes>>,
}

impl Buffers {
    /// Buffers for turns of so many bytes.
    pub fn new(large_bytes: usize) -> Self {
        Buffers { large_bytes: large_bytes + crate::identity::WINDOW_BYTES_MAX, kept: Mutex::default() }
    }

    /// A buffer of at least so many bytes, with anything in it.
    pub(crate) fn take(&self, len: usize) -> BytesMut {
        if len <= SMALL_BYTES_MAX || len > self.large_bytes {
            return BytesMut::zeroed(len);
        }
        let mut kept = self.kept.lock();
        for _ in 0..kept.len().min(LOOKS_MAX) {
            let Some(oldest) = kept.pop_front() else { break };
            match oldest.try_into_mut() {
                Ok(buffer) if buffer.len() >= len => return buffer,
                Ok(_) => {}
                Err(used) => kept.push_back(used),
            }
        }
        drop(kept);
        BytesMut::zeroed(self.large_bytes)
    }

    /// The text of a buffer that was filled.
    pub(crate) fn fill(&self, buffer: BytesMut) -> Bytes {
        let text = buffer.freeze();
        self.keep(&text);
        text
    }

    /// Takes back a buffer that was not used.
    pub(crate) fn give_back(&self, buffer: BytesMut) {
        if buffer.len() == self.large_bytes {
            let mut kept = self.kept.lock();
            if kept.len() < KEPT_MAX {
                kept.push_front(buffer.freeze());
            }
        }
    }

    fn keep(&self, text: &Bytes) {
        if text.len() == self.large_bytes {
            let mut kept = self.kept.lock();
            if kept.len() < KEPT_MAX {
                kept.push_back(text.clone());
            }
        }
    }

    /// Lets go of all buffers that nobody uses: there has been nothing to read for a while.
    pub fn shrink(&self) {
        self.kept.lock().retain(|buffer| !buffer.is_unique());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_when_nobody_refers_to_it() {
        let buffers = Buffers::new(100_000);
        let first = buffers.fill(buffers.take(90_000));
        let place = first.as_ptr();
        let second = buffers.take(90_000);
        assert_ne!(second.as_ptr(), place);
        buffers.give_back(second);
        drop(first);
        let taken = [buffers.take(90_000), buffers.take(90_000)];
        assert!(taken.iter().any(|buffer| buffer.as_ptr() == place));
        assert_eq!(buffers.take(1000).len(), 1000);
        assert_eq!(buffers.take(1_000_000).len(), 1_000_000);
        buffers.shrink();
        assert!(buffers.kept.lock().is_empty());
    }
}
