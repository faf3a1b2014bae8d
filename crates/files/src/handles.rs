//! How many files may be open, and opening them without waiting.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many handles are left to the rest of the process at most and, if it may have so many, at least.
const LEFT_MAX: usize = 1024;
const LEFT_MIN: usize = 128;

/// How many files are being read.
static OPEN: AtomicUsize = AtomicUsize::new(0);
/// How many may be. The limit is one of the process, and so is this.
static OPEN_MAX: LazyLock<usize> = LazyLock::new(|| open_max(process_limit()));

/// How many files may be read by a process that may open so many.
fn open_max(limit: usize) -> usize {
    limit - (limit / 4).clamp(LEFT_MIN.min(limit / 2), LEFT_MAX)
}

#[cfg(unix)]
fn process_limit() -> usize {
    use rustix::process::{Resource, getrlimit};
    let limit = getrlimit(Resource::Nofile).current;
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

#[cfg(not(unix))]
fn process_limit() -> usize {
    usize::MAX
}

/// Counts a file as one that is being read.
#[derive(Debug)]
pub(crate) struct Handle(());

impl Handle {
    /// For a file that may as well be read later.
    ///
    /// # Errors
    ///
    /// So many files are being read that there would be too few handles for the rest of the process.
    pub(crate) fn new() -> io::Result<Self> {
        let one_more = |open: usize| (open < *OPEN_MAX).then_some(open + 1);
        OPEN.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).map_err(|open| {
            io::Error::other(format!("too many open files: {open} are being read, and no more may be"))
        })?;
        Ok(Handle(()))
    }

    /// For a file that is there now and may not be later.
    pub(crate) fn always() -> Self {
        OPEN.fetch_add(1, Ordering::Relaxed);
        Handle(())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Opens a plain file. Nothing else: to open a pipe may take forever, also one that took the place of a file just now.
///
/// # Errors
///
/// Those of opening, and that it is no plain file.
pub(crate) fn open_plain(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32);
    }
    let file = options.open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if metadata.is_file() { Ok(file) } else { Err(io::Error::other("is not a regular file")) }
}

/// Takes a lock on a file that others share; whether it was to be had.
///
/// # Errors
///
/// Those of the system.
#[cfg(unix)]
pub(crate) fn lock(file: &File) -> io::Result<bool> {
    match rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(true),
        Err(error) if error == rustix::io::Errno::WOULDBLOCK => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Where files cannot be locked, they are read without.
#[cfg(not(unix))]
pub(crate) fn lock(_: &File) -> io::Result<bool> {
    Ok(true)
}

/// Gives the lock on a file back.
pub(crate) fn unlock(file: &File) {
    // It ends with the handle at the latest.
    #[cfg(unix)]
    let _ = rustix::fs::flock(file, rustix::fs::FlockOperation::Unlock);
    #[cfg(not(unix))]
    let _ = file;
}

/// Tells the system that it need not keep in memory what was read from a file. It may not care.
pub(crate) fn forget(file: &File) {
    #[cfg(target_os = "linux")]
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_handles_for_the_rest_of_the_process() {
        for (limit, expected) in [(0, 0), (10, 5), (200, 100), (256, 128), (1024, 768), (20_000, 18_976)] {
            assert_eq!(open_max(limit), expected, "{limit}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_no_plain_file_is_not_opened_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
        assert_eq!(open_plain(&pipe).unwrap_err().to_string(), "is not a regular file");
        assert_eq!(open_plain(dir.path()).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        std::fs::write(dir.path().join("a"), "1").unwrap();
        assert!(open_plain(&dir.path().join("a")).is_ok());
    }
}
