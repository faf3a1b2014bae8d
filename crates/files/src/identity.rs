//! Which file is which, and how far it was read.
//!
//! A name is not enough: names are given to other files by rotation. The number of a file is not enough either: systems
//! give it to the next file. So a position comes with the file's number, its first bytes, and the bytes before the
//! position.

use std::fs::{File, Metadata};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::time::{SystemTime, UNIX_EPOCH};

use xxhash_rust::xxh3::xxh3_64;

/// How many of a file's first bytes tell it from others.
pub const HEAD_BYTES_MAX: usize = 1024;
/// How many bytes before a position tell whether it is still the end of what was read.
pub const WINDOW_BYTES_MAX: usize = 1024;

/// The number of a file: no two files that exist at the same time have the same. Where the system gives none, all are
/// zero and the time of birth has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId {
    /// The file system.
    pub device: u64,
    /// The number within the file system.
    pub inode: u64,
}

/// What the system says of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileFacts {
    /// Its number.
    pub id: FileId,
    /// When it was made, in nanoseconds since the Unix epoch; 0 if the system does not say.
    pub birth_ns: u64,
    /// Its size in bytes.
    pub size: u64,
    /// When its content was last changed, in nanoseconds since the Unix epoch.
    pub modified_ns: u64,
    /// When its content, name or owner was last changed, in nanoseconds since the Unix epoch; 0 if the system does not
    /// say.
    pub changed_ns: u64,
    /// How many names it has; 1 if the system does not say.
    pub names: u64,
}

impl FileFacts {
    /// Those of a file.
    pub fn of(metadata: &Metadata) -> Self {
        let (id, changed_ns, names) = from_system(metadata);
        FileFacts {
            id,
            birth_ns: metadata.created().map_or(0, nanoseconds),
            size: metadata.len(),
            modified_ns: metadata.modified().map_or(0, nanoseconds),
            changed_ns,
            names,
        }
    }
}

#[cfg(unix)]
fn from_system(metadata: &Metadata) -> (FileId, u64, u64) {
    use std::os::unix::fs::MetadataExt as _;
    let seconds = u64::try_from(metadata.ctime()).unwrap_or(0);
    let changed_ns = seconds.saturating_mul(1_000_000_000).saturating_add(metadata.ctime_nsec().unsigned_abs());
    (FileId { device: metadata.dev(), inode: metadata.ino() }, changed_ns, metadata.nlink())
}

#[cfg(not(unix))]
fn from_system(metadata: &Metadata) -> (FileId, u64, u64) {
    // The time of birth stays with a file that gets another name, and is as good as different for any two.
    (FileId { device: 0, inode: metadata.created().map_or(0, nanoseconds) }, 0, 1)
}

fn nanoseconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// A number for some bytes, with how many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// How many bytes.
    pub len: u16,
    /// Their hash; 0 of none.
    pub hash: u64,
}

impl Digest {
    /// That of the first bytes, at most [`HEAD_BYTES_MAX`].
    pub fn of_first(bytes: &[u8]) -> Self {
        Self::of(&bytes[..bytes.len().min(HEAD_BYTES_MAX)])
    }

    /// That of the last bytes, at most [`WINDOW_BYTES_MAX`].
    pub fn of_last(bytes: &[u8]) -> Self {
        Self::of(&bytes[bytes.len().saturating_sub(WINDOW_BYTES_MAX)..])
    }

    fn of(bytes: &[u8]) -> Self {
        if bytes.is_empty() { Digest::default() } else { Digest { len: bytes.len() as u16, hash: xxh3_64(bytes) } }
    }

    /// Whether it is that of these bytes.
    pub fn is_of(&self, bytes: &[u8]) -> bool {
        *self == Self::of(bytes)
    }
}

/// A place in a file, with what stands before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The place, in bytes from the beginning.
    pub offset: u64,
    /// The bytes before it: as many as there are, at most [`WINDOW_BYTES_MAX`].
    pub window: Digest,
}

impl Mark {
    /// A place in a file as the file is now. Nothing if the file is shorter.
    ///
    /// # Errors
    ///
    /// Those of reading.
    pub fn read(file: &File, offset: u64) -> io::Result<Option<Self>> {
        let len = window_len(offset);
        let mut bytes = [0; WINDOW_BYTES_MAX];
        let window = &mut bytes[..len];
        if read_at(file, window, offset - len as u64)? < len {
            return Ok(None);
        }
        Ok(Some(Mark { offset, window: Digest::of(window) }))
    }

    /// Whether this file has this place, and the same bytes before it.
    ///
    /// # Errors
    ///
    /// Those of reading.
    pub fn is_in(&self, file: &File) -> io::Result<bool> {
        Ok(Self::read(file, self.offset)? == Some(*self))
    }
}

/// How many bytes before a place are looked at.
pub(crate) fn window_len(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX).min(WINDOW_BYTES_MAX)
}

/// The first bytes of a file before a place, as a number.
///
/// # Errors
///
/// Those of reading.
pub fn read_head(file: &File, end: u64) -> io::Result<Digest> {
    let len = usize::try_from(end).unwrap_or(usize::MAX).min(HEAD_BYTES_MAX);
    let mut bytes = [0; HEAD_BYTES_MAX];
    let read = read_at(file, &mut bytes[..len], 0)?;
    Ok(Digest::of(&bytes[..read]))
}

/// Whether a file begins with what a number stands for. No bytes are the beginning of every file.
///
/// # Errors
///
/// Those of reading.
pub fn has_head(file: &File, head: &Digest) -> io::Result<bool> {
    Ok(read_head(file, u64::from(head.len))? == *head)
}

/// Reads at a place until the buffer is full or the file ends; how many bytes were read. The caller is the only one who
/// uses this file's handle.
pub(crate) fn read_at(mut file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    if buffer.is_empty() {
        return Ok(0);
    }
    file.seek(SeekFrom::Start(offset))?;
    let mut done = 0;
    while done < buffer.len() {
        match file.read(&mut buffer[done..]) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &[u8]) -> (tempfile::TempDir, File) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, content).unwrap();
        let file = File::open(&path).unwrap();
        (dir, file)
    }

    #[test]
    fn a_mark_is_in_the_file_that_it_was_read_from_and_in_a_longer_one() {
        let text: Vec<u8> = (0..5_000u32).map(|n| (n % 251) as u8).collect();
        let (_dir, whole) = file(&text);
        for offset in [0, 1, 100, 1024, 1025, 4999, 5000] {
            let mark = Mark::read(&whole, offset).unwrap().unwrap();
            assert_eq!(mark.window, Digest::of_last(&text[..offset as usize]));
            assert!(mark.is_in(&whole).unwrap());
            let (_dir, cut) = file(&text[..offset as usize]);
            assert!(mark.is_in(&cut).unwrap());
            if offset > 0 {
                let (_dir, shorter) = file(&text[..offset as usize - 1]);
                assert!(!mark.is_in(&shorter).unwrap());
                let mut other = text.clone();
                other[offset as usize - 1] ^= 1;
                let (_dir, other) = file(&other);
                assert!(!mark.is_in(&other).unwrap());
            }
        }
        assert_eq!(Mark::read(&whole, 5001).unwrap(), None);
    }

    #[test]
    fn a_head_is_the_beginning_of_a_file_that_grew() {
        let (_dir, short) = file(b"abc");
        let head = read_head(&short, 3).unwrap();
        for (content, has) in [(&b"abcdef"[..], true), (b"abc", true), (b"ab", false), (b"abd", false)] {
            let (_dir, other) = file(content);
            assert_eq!(has_head(&other, &head).unwrap(), has, "{content:?}");
        }
        assert!(has_head(&short, &Digest::default()).unwrap());
    }

    #[cfg(unix)]
    #[test]
    fn a_number_stays_with_the_file_and_not_with_the_name() {
        let dir = tempfile::tempdir().unwrap();
        let id = |name: &str| FileFacts::of(&std::fs::metadata(dir.path().join(name)).unwrap()).id;
        std::fs::write(dir.path().join("a"), "1").unwrap();
        let first = id("a");
        std::fs::rename(dir.path().join("a"), dir.path().join("b")).unwrap();
        std::fs::write(dir.path().join("a"), "2").unwrap();
        assert_eq!(id("b"), first);
        assert_ne!(id("a"), first);
    }
}
