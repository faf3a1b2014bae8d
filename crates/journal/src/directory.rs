//! Where the files of the journal are.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Where journald keeps its files: on the disk, and until the next boot.
const PLACES: [&str; 2] = ["/var/log/journal", "/run/log/journal"];

const MACHINE_ID: &str = "/etc/machine-id";

/// Why the journal cannot be opened.
#[derive(Debug)]
pub enum OpenError {
    /// The folder cannot be listed.
    Folder(PathBuf, io::Error),
    /// This machine has no id, so that the folder of its journal has no name.
    Machine(io::Error),
    /// This machine has no journal.
    None,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path, error) => write!(f, "cannot open journal {}: {error}", path.display()),
            Self::Machine(error) => write!(f, "cannot read {MACHINE_ID}: {error}"),
            Self::None => write!(f, "no journal of this machine in {} or {}", PLACES[0], PLACES[1]),
        }
    }
}

impl std::error::Error for OpenError {}

/// The folder that was named, or those of this machine. They need not be there yet, but one must.
pub(crate) fn roots(path: Option<&Path>) -> Result<Vec<PathBuf>, OpenError> {
    if let Some(path) = path {
        fs::read_dir(path).map_err(|error| OpenError::Folder(path.to_owned(), error))?;
        return Ok(vec![path.to_owned()]);
    }
    let id = fs::read_to_string(MACHINE_ID).map_err(OpenError::Machine)?;
    let folders: Vec<PathBuf> = PLACES.iter().map(|place| Path::new(place).join(id.trim())).collect();
    match folders.iter().find_map(|folder| match fs::read_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Some(OpenError::Folder(folder.clone(), error)),
        _ => None,
    }) {
        Some(error) => Err(error),
        None if folders.iter().any(|folder| folder.is_dir()) => Ok(folders),
        None => Err(OpenError::None),
    }
}

/// The folders, and where that is wanted those within them that are named by a machine's id, with a namespace or without.
pub(crate) fn folders(roots: &[PathBuf], deep: bool) -> Vec<PathBuf> {
    let mut all = roots.to_vec();
    if deep {
        for root in roots {
            for entry in fs::read_dir(root).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let name = name.to_str().unwrap_or_default();
                let id = name.split_once('.').map_or(name, |(id, _)| id);
                if id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) && entry.path().is_dir() {
                    all.push(entry.path());
                }
            }
        }
    }
    all
}

/// The files of the journal in a folder: those in use, archived, and set aside because they were not closed.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let wanted = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.ends_with(".journal") || name.ends_with(".journal~")
    };
    paths.filter(wanted).collect()
}

/// When a file or folder was changed, if it is there.
pub(crate) fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

/// How long a file is.
pub(crate) fn bytes(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}
