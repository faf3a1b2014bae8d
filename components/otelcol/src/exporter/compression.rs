//! How messages are packed.

use std::sync::LazyLock;

use bytes::Bytes;
use corten_coding::{Coding, PackError};
use corten_config::StringEnum;
use tokio::sync::Semaphore;

use super::sending::Failure;

/// How messages are packed.
#[derive(StringEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[string_enum(refusal = unrecognized)]
pub enum Compression {
    /// As `gzip`.
    #[default]
    Gzip,
    /// As `zlib`, which is what HTTP means with `deflate`. gRPC does not know it.
    Zlib,
    /// The same under its other name.
    Deflate,
    /// As a block of snappy; with gRPC as a stream of it.
    Snappy,
    /// As `zstd`.
    Zstd,
    /// Not at all.
    None,
    /// Not at all.
    #[value(name = "")]
    Empty,
}

fn unrecognized(text: &str) -> String {
    format!("unrecognized compression type {text:?}")
}

impl Compression {
    /// The coding, and what HTTP calls it.
    pub(crate) fn of_http(self) -> Option<(Coding, &'static str)> {
        match self {
            Compression::Gzip => Some((Coding::Gzip, "gzip")),
            Compression::Zlib => Some((Coding::Zlib, "zlib")),
            Compression::Deflate => Some((Coding::Zlib, "deflate")),
            Compression::Snappy => Some((Coding::Snappy, "snappy")),
            Compression::Zstd => Some((Coding::Zstd, "zstd")),
            Compression::None | Compression::Empty => None,
        }
    }

    /// The coding, and what gRPC calls it.
    ///
    /// # Errors
    ///
    /// That gRPC does not know it.
    pub(crate) fn of_grpc(self) -> Result<Option<(Coding, &'static str)>, String> {
        Ok(match self {
            Compression::Gzip => Some((Coding::Gzip, "gzip")),
            Compression::Snappy => Some((Coding::SnappyFramed, "snappy")),
            Compression::Zstd => Some((Coding::Zstd, "zstd")),
            Compression::None | Compression::Empty => None,
            Compression::Zlib => return Err("unsupported compression type \"zlib\"".to_owned()),
            Compression::Deflate => return Err("unsupported compression type \"deflate\"".to_owned()),
        })
    }
}

/// Messages of this size are packed on a thread that serves no connections, in bytes: it takes a millisecond or so.
const OFF_THREAD_BYTES_MIN: usize = 32 << 10;

/// As many messages are packed at a time as there are cores. More would be done no earlier, and each thread keeps the memory
/// that it packed in: when the component ends everything that waits is sent at once, in no more than was there before.
static COMPUTING: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(corten_os::limits::cores()));

/// Runs what takes some computing, for so many bytes; `None` if it panicked.
pub(crate) async fn computed<T: Send + 'static>(
    bytes: usize,
    compute: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    if bytes < OFF_THREAD_BYTES_MIN {
        return Some(compute());
    }
    // The semaphore is never closed.
    let permit = COMPUTING.acquire().await.ok();
    // Whoever asked may go away while this is computed: the core is busy until it is done.
    let computing = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        compute()
    });
    computing.await.ok()
}

/// How hard to try where nothing is said. Measured with a thousand log records and with a thousand points, 260 kB each: 5 packs
/// to 101 and 103 parts in a hundred of what 6 does, in 66 and 47 parts of its time; 4 takes little less time, and packs to
/// 103 and 114 parts.
const LEVEL: u32 = 5;

/// Packs a message that stands in pieces.
///
/// # Errors
///
/// It cannot be packed in this way.
pub(crate) fn packed(coding: Option<Coding>, level: Option<u32>, pieces: Vec<Bytes>) -> Result<Vec<Bytes>, PackError> {
    Ok(match coding {
        Some(coding) => vec![coding.pack(level.or(Some(LEVEL)), pieces.iter().map(|piece| &piece[..]))?.into()],
        None => pieces,
    })
}

/// What a message was packed to, if it was. To pack it again is to fail again.
pub(crate) fn sendable(packed: Option<Result<Vec<Bytes>, PackError>>) -> Result<Vec<Bytes>, Failure> {
    match packed {
        Some(packed) => packed.map_err(|error| Failure::permanent(error.to_string())),
        None => Err(Failure::permanent("the message cannot be packed")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn no_more_is_computed_at_a_time_than_there_are_cores() {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let tasks = (0..4 * corten_os::limits::cores()).map(|_| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            tokio::spawn(computed(OFF_THREAD_BYTES_MIN, move || {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::sleep(std::time::Duration::from_millis(5));
                now.fetch_sub(1, Ordering::SeqCst);
            }))
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.expect("the task ends").expect("it is computed");
        }
        assert!((1..=corten_os::limits::cores()).contains(&most.load(Ordering::SeqCst)));
    }

    #[test]
    fn what_cannot_be_packed_is_not_sent_empty_and_not_tried_again() {
        let failed = sendable(Some(Err(PackError("no".into()))));
        assert_eq!(failed, Err(Failure::permanent("the message cannot be packed: no")));
        assert_eq!(sendable(None), Err(Failure::permanent("the message cannot be packed")));
        assert_eq!(sendable(Some(Ok(vec![]))), Ok(vec![]));
    }
}
