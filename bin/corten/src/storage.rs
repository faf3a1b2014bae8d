//! The folder for data.

use std::fs::{File, TryLockError};
use std::path::Path;

use corten_runtime::source::io_error_text;
use corten_syntax::quote;

/// The file that is locked while a process uses the folder. What is in it does not matter.
const LOCK: &str = "corten.lock";

/// Makes the folder if there is none, and takes it for this process until the lock is dropped: two processes that write
/// the same queues would damage them.
pub(crate) fn take(path: &Path) -> Result<File, String> {
    let shown = quote(&path.display().to_string());
    let failed =
        |what: &str, error: &std::io::Error| format!("failed to {what} storage path {shown}: {}", io_error_text(error));
    std::fs::create_dir_all(path).map_err(|error| failed("create", &error))?;
    let options = || File::options().create(true).truncate(false).write(true).open(path.join(LOCK));
    let file = options().map_err(|error| failed("lock", &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(format!("storage path {shown} is in use by another process")),
        Err(TryLockError::Error(error)) => Err(failed("lock", &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_used_by_one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let lock = take(&path).unwrap();
        let refused = take(&path).unwrap_err();
        assert_eq!(
            refused,
            format!("storage path {} is in use by another process", quote(&path.display().to_string()))
        );
        drop(lock);
        assert!(take(&path).is_ok());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let refused = take(&file.join("below")).unwrap_err();
        assert!(
            refused.starts_with("failed to create storage path ") && refused.ends_with(": not a directory"),
            "{refused}"
        );
    }
}
