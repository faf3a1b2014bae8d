//! The calls into the file system, behind a trait so that tests can make them fail.

use std::fs::{DirEntry, File, OpenOptions};
use std::io::{self, IoSlice, Read, Seek, SeekFrom, Write};
use std::path::Path;

use crate::format::segment_of_file_name;

/// The file system as a queue's segments need it. The calls are one a batch of records or one a chunk of a file, so
/// that their being dynamic costs nothing.
pub(crate) trait Storage: Send + Sync + 'static {
    /// Creates a file that does not exist yet, for writing.
    fn create(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).open(path)
    }

    /// Opens a file for reading.
    fn open(&self, path: &Path) -> io::Result<File> {
        File::open(path)
    }

    /// Writes as much as the system takes at once where the file stands.
    fn write(&self, mut file: &File, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        file.write_vectored(slices)
    }

    /// Reads `len` bytes from `at` on, or fewer where the file ends.
    fn read(&self, mut file: &File, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(len);
        file.seek(SeekFrom::Start(at))?;
        file.take(len as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Cuts a file.
    fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }

    /// Forces the content of a file to the medium.
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    /// Deletes a file; it may be gone already.
    fn remove(&self, path: &Path) -> io::Result<()> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// The real file system.
pub(crate) struct Disk;

impl Storage for Disk {}

/// Writes all of `slices` where the file stands.
pub(crate) fn write_all(storage: &dyn Storage, file: &File, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    // Empty slices in front would make a write of nothing look like a full disk.
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match storage.write(file, slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut slices, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Forces the entries of a directory to the medium, where the system can.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}

/// How many bytes the segments in `dir` have.
pub(crate) fn segment_bytes(dir: &Path) -> u64 {
    let is_segment = |entry: &DirEntry| entry.file_name().to_str().and_then(segment_of_file_name).is_some();
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().filter(is_segment);
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

/// What is free for an unprivileged user on the file system of `dir`, or of its nearest parent that exists.
#[cfg(unix)]
pub(crate) fn free_bytes(dir: &Path) -> Option<u64> {
    let existing = dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    let stat = rustix::fs::statvfs(existing).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Unknown where there is no `statvfs`.
#[cfg(not(unix))]
pub(crate) fn free_bytes(_dir: &Path) -> Option<u64> {
    None
}
