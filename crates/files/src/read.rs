//! Reading whole files.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::SystemTime;

/// The whole content of a file and when it was last changed.
///
/// # Errors
///
/// What the system says, `open /etc/x: no such file or directory`; a file with more bytes than the limit; and what is no
/// file, because reading a pipe might never end.
pub fn read_limited(path: &Path, bytes_max: usize) -> Result<(Vec<u8>, SystemTime), String> {
    let failed = |step: &str, error: &io::Error| format!("{step} {}: {}", path.display(), io_error_text(error));
    let metadata = std::fs::metadata(path).map_err(|error| failed("open", &error))?;
    if metadata.is_dir() {
        return Err(format!("read {}: is a directory", path.display()));
    }
    if !metadata.is_file() {
        return Err(format!("read {}: is not a regular file", path.display()));
    }
    let file = File::open(path).map_err(|error| failed("open", &error))?;
    let metadata = file.metadata().map_err(|error| failed("stat", &error))?;
    // The size is a hint only: files of the kernel have none, and others grow while they are read.
    let size = usize::try_from(metadata.len()).unwrap_or(usize::MAX).min(bytes_max);
    let mut content = Vec::with_capacity(size);
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut content).map_err(|error| failed("read", &error))?;
    if content.len() > bytes_max {
        return Err(format!("read {}: file is larger than the limit of {bytes_max} bytes", path.display()));
    }
    let modified = metadata.modified().map_err(|error| failed("stat", &error))?;
    Ok((content, modified))
}

/// An error of the system as operators know it: lower case, without its number.
pub fn io_error_text(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_lowercase().chain(characters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, "hello").unwrap();
        assert_eq!(read_limited(&path, 5).unwrap().0, b"hello");
        let error = read_limited(&path, 4).unwrap_err();
        assert_eq!(error, format!("read {}: file is larger than the limit of 4 bytes", path.display()));
    }

    #[test]
    fn errors_read_like_those_of_the_reference() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let error = read_limited(&path, 5).unwrap_err();
        assert_eq!(error, format!("open {}: no such file or directory", path.display()));
        let error = read_limited(dir.path(), 5).unwrap_err();
        assert_eq!(error, format!("read {}: is a directory", dir.path().display()));
    }
}
