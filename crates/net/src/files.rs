//! Files named in a configuration: secrets, which are read again for every request, and TLS material, which is read
//! again when it has changed.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::error::describe_io;
use crate::{Error, ErrorKind, Secret};

/// The largest file that is taken for a password or token.
const SECRET_FILE_BYTES_MAX: u64 = 1 << 20;
/// The largest file that is taken for TLS material. The bundles of operating systems are below half a megabyte.
const TLS_FILE_BYTES_MAX: u64 = 16 << 20;

/// Runs file work away from the threads that serve connections: a file may lie on a network file system that hangs.
pub(crate) async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Error::new(ErrorKind::Auth, "reading files was interrupted by shutdown"))
}

fn read_limited(path: &Path, limit_bytes: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    fs::File::open(path)?.take(limit_bytes + 1).read_to_end(&mut content)?;
    if content.len() as u64 > limit_bytes {
        return Err(io::Error::other(format!("file is larger than {limit_bytes} bytes")));
    }
    Ok(content)
}

fn unreadable(kind: ErrorKind, path: &Path, error: &io::Error) -> Error {
    Error::new(kind, format!("unable to read file {}: {}", path.display(), describe_io(error)))
}

/// Reads a secret from its file and trims white space around it, as editors and `echo` leave a line end.
pub(crate) fn read_secret(path: &Path) -> Result<Secret, Error> {
    let content =
        read_limited(path, SECRET_FILE_BYTES_MAX).map_err(|error| unreadable(ErrorKind::Auth, path, &error))?;
    match std::str::from_utf8(&content) {
        Ok(text) => Ok(Secret::new(text.trim())),
        // The bytes themselves must not be shown.
        Err(_) => Err(Error::new(ErrorKind::Auth, format!("file {} is not valid UTF-8", path.display()))),
    }
}

/// Reads a file with a certificate, a key or certificate authorities.
pub(crate) fn read_tls_file(path: &Path) -> Result<Vec<u8>, Error> {
    read_limited(path, TLS_FILE_BYTES_MAX).map_err(|error| unreadable(ErrorKind::Tls, path, &error))
}

/// What is remembered of files, to tell cheaply whether any of them has changed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stamps {
    files: Vec<(PathBuf, Option<Stamp>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    len_bytes: u64,
    modified: SystemTime,
}

/// A file changed more recently than this before it was looked at may change again without a new modification time,
/// because clocks of file systems are coarse; so its stamp proves nothing.
const STAMP_AGE_MIN: Duration = Duration::from_secs(2);

impl Stamps {
    /// Looks at the files. To be called before they are read, so that a change in between is noticed afterwards.
    pub(crate) fn take<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> Self {
        let now = SystemTime::now();
        Self { files: paths.into_iter().map(|path| (path.clone(), Stamp::of(path, now))).collect() }
    }

    /// Whether there are no files to look at.
    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Whether every file is certainly as it was.
    pub(crate) fn unchanged(&self) -> bool {
        let now = SystemTime::now();
        self.files.iter().all(|(path, stamp)| stamp.is_some() && *stamp == Stamp::of(path, now))
    }
}

impl Stamp {
    /// `None` when the file cannot be looked at or changed too recently.
    fn of(path: &Path, now: SystemTime) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        let modified = metadata.modified().ok()?;
        // A modification time in the future is not young: it cannot be compared, so it is taken as it stands.
        if now.duration_since(modified).is_ok_and(|age| age < STAMP_AGE_MIN) {
            return None;
        }
        Some(Self { len_bytes: metadata.len(), modified })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_file_is_trimmed_and_its_errors_name_the_file_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        fs::write(&path, "  hunter2\r\n\n").unwrap();
        assert_eq!(read_secret(&path).unwrap().expose(), "hunter2");
        fs::write(&path, b"hunter2\xff").unwrap();
        assert_eq!(read_secret(&path).unwrap_err().to_string(), format!("file {} is not valid UTF-8", path.display()));
        let missing = folder.path().join("missing");
        assert_eq!(
            read_secret(&missing).unwrap_err().to_string(),
            format!("unable to read file {}: no such file or directory", missing.display())
        );
        fs::write(&path, vec![b'x'; SECRET_FILE_BYTES_MAX as usize + 1]).unwrap();
        assert!(read_secret(&path).unwrap_err().to_string().ends_with("file is larger than 1048576 bytes"));
    }

    #[test]
    fn a_stamp_proves_nothing_about_a_young_missing_or_changed_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cert");
        let old = SystemTime::now() - Duration::from_secs(60);
        let write = |content: &str, modified| {
            fs::write(&path, content).unwrap();
            fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        };

        assert!(!Stamps::take([&path]).unchanged());
        write("one", SystemTime::now());
        assert!(!Stamps::take([&path]).unchanged());

        write("one", old);
        let stamps = Stamps::take([&path]);
        assert!(stamps.unchanged());
        write("four", old);
        assert!(!stamps.unchanged());
        write("two", old - Duration::from_secs(1));
        assert!(!stamps.unchanged());
        fs::remove_file(&path).unwrap();
        assert!(!stamps.unchanged());
        assert!(Stamps::default().is_empty());
    }
}
