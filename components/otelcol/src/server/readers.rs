//! Where messages are read: short ones where they arrive, long ones off the threads that serve connections.

use std::sync::{Arc, LazyLock};
use std::thread::available_parallelism;

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::http::Unread;

/// How many bytes of all requests under way of a server may be in memory: bodies, and what they were unpacked to. It is an
/// eighth of what the process may have where that is less, and there is room for two bodies in any case.
pub(super) fn held_bytes_max(body_bytes_max: usize) -> usize {
    const HELD_BYTES_MAX: u64 = 256 << 20;
    static SHARE: LazyLock<usize> = LazyLock::new(|| {
        let share = corten_os::memory::bytes_max().map_or(HELD_BYTES_MAX, |bytes| (bytes / 8).min(HELD_BYTES_MAX));
        usize::try_from(share).unwrap_or(usize::MAX)
    });
    body_bytes_max.saturating_mul(2).max(*SHARE)
}

/// A short message by itself: as it arrives it is a part of its connection's buffer, which would be kept with it.
pub(super) fn by_itself(bytes: Bytes) -> Bytes {
    const SHORT_BYTES_MAX: usize = 16 << 10;
    if bytes.len() <= SHORT_BYTES_MAX { Bytes::copy_from_slice(&bytes) } else { bytes }
}

/// What takes longer than a look at so many bytes is not done on a thread that serves connections.
const INLINE_BYTES_MAX: usize = 512 << 10;

/// Reads as many messages at a time as there are cores.
#[derive(Clone, Debug)]
pub(super) struct Readers(Arc<Semaphore>);

impl Default for Readers {
    fn default() -> Self {
        Readers(Arc::new(Semaphore::new(available_parallelism().map_or(1, std::num::NonZero::get))))
    }
}

impl Readers {
    /// How much longer it takes to unpack a byte than to look at it: each becomes several.
    pub(super) const UNPACK_EFFORT: usize = 32;

    /// Makes something of a message of so many bytes.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        bytes: usize,
        effort: usize,
        make: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Unread> {
        if bytes.saturating_mul(effort) <= INLINE_BYTES_MAX {
            return Ok(make());
        }
        // The semaphore is never closed, so that a permit always comes.
        let permit = Arc::clone(&self.0).acquire_owned().await.ok();
        let made = tokio::task::spawn_blocking(move || {
            let made = make();
            drop(permit);
            made
        });
        made.await.map_err(|error| Unread::Bad(format!("cannot read the request: {error}")))
    }
}
