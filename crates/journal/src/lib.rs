//! Reads the files of the systemd journal, without systemd's library.
//!
//! All of this blocks: it belongs on a thread for that. It follows files that grow, that journald rotates and that it removes,
//! and joins the entries of all files in the order in which `journalctl` shows them. The files are untrusted: nothing that they
//! hold makes the reader panic, loop or take more memory than its limits, and what is damaged is passed over and counted.
//!
//! ```no_run
//! use corten_journal::{Journal, Matches, Start};
//!
//! let mut journal = Journal::open(None, Matches::parse("PRIORITY=3").unwrap()).unwrap();
//! journal.seek(Start::Realtime(0));
//! while let Some(entry) = journal.next_entry() {
//!     println!("{}: {:?}", entry.cursor, entry.fields.get("MESSAGE"));
//! }
//! ```

mod cursor;
mod directory;
mod file;
mod matches;

use std::{
    collections::{HashMap, VecDeque},
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::file::{Found, JournalFile};
pub use crate::{
    cursor::{BadCursor, Cursor},
    directory::OpenError,
    file::{Fields, FileError},
    matches::{BadMatch, Matches},
};

/// Files that are known at a time, the ones that changed last; journald itself keeps 100. Each that is read holds a descriptor
/// and at most 256 KiB of its content.
const FILES_MAX: usize = 512;

/// Files that were read to their end and are known: more than there can be at a time.
const DONE_MAX: usize = 2 * FILES_MAX;

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the first entry of that time, in microseconds since the epoch, or later.
    Realtime(u64),
    /// Behind an entry. Where it is gone, at the one that follows.
    After(Cursor),
}

/// One entry.
#[derive(Debug)]
pub struct Entry<'a> {
    /// Its place.
    pub cursor: Cursor,
    /// Its fields.
    pub fields: &'a Fields,
}

/// The journal of a machine, or of a folder.
#[derive(Debug)]
pub struct Journal {
    folders: Vec<PathBuf>,
    deep: bool,
    matches: Matches,
    start: Start,
    files: Vec<Followed>,
    /// The folders as they were looked through.
    looked: HashMap<PathBuf, Option<SystemTime>>,
    /// Files that cannot be read, by path, with what they were like then: they are tried again when they change.
    bad: HashMap<PathBuf, Bad>,
    /// The ids of files that were read to their end, and how many entries that were, the last of them. Under whatever name
    /// such a file is seen again, because a listing missed it for once or its folder was away, it is read on.
    done: VecDeque<(u128, u64)>,
    last: Option<Cursor>,
    fields: Fields,
    damaged: u64,
    problems: Vec<(PathBuf, FileError)>,
}

/// When a file that cannot be read was changed, and how long it is.
#[derive(Debug, PartialEq)]
struct Bad(Option<SystemTime>, u64);

impl Bad {
    /// A file as it is now.
    fn now(path: &Path) -> Self {
        Self(directory::modified(path), directory::bytes(path))
    }
}

#[derive(Debug)]
struct Followed {
    file: JournalFile,
    head: Option<Found>,
    /// Its name is gone, so that nothing will be added.
    gone: bool,
}

impl Journal {
    /// Opens the journal of this machine, or that in a folder: its files, and those in its folders named by a machine.
    ///
    /// # Errors
    ///
    /// If there is no such folder, or it cannot be listed.
    pub fn open(path: Option<&Path>, matches: Matches) -> Result<Self, OpenError> {
        let folders = directory::roots(path)?;
        let mut journal = Self {
            folders,
            deep: path.is_some(),
            matches,
            start: Start::Realtime(0),
            files: Vec::new(),
            looked: HashMap::new(),
            bad: HashMap::new(),
            done: VecDeque::new(),
            last: None,
            fields: Fields::default(),
            damaged: 0,
            problems: Vec::new(),
        };
        journal.refresh();
        Ok(journal)
    }

    /// Says where to begin, or to go on.
    pub fn seek(&mut self, start: Start) {
        self.start = start;
        self.last = match start {
            Start::After(cursor) => Some(cursor),
            Start::Realtime(_) => None,
        };
        self.files.clear();
        self.bad.clear();
        self.done.clear();
        self.looked.clear();
        self.refresh();
    }

    /// Looks for new files and new entries; whether there may be some.
    pub fn refresh(&mut self) -> bool {
        let mut changed = self.look_for_files();
        let (problems, bad) = (&mut self.problems, &mut self.bad);
        self.files.retain_mut(|followed| match followed.file.refresh() {
            Ok(new) => {
                changed |= new;
                true
            }
            Err(error) => {
                // What the system refuses now it may give later. What is no journal any more is looked at when it changes.
                let keep = matches!(error, FileError::Io(_));
                let path = followed.file.path().to_owned();
                if !keep {
                    bad.insert(path.clone(), Bad::now(&path));
                }
                problems.push((path, error));
                keep
            }
        });
        self.problems.truncate(FILES_MAX);
        changed
    }

    /// The next entry that is wanted; `None` when there is none yet.
    pub fn next_entry(&mut self) -> Option<Entry<'_>> {
        loop {
            let (index, found) = self.earliest()?;
            let followed = &mut self.files[index];
            followed.head = None;
            self.last = Some(found.cursor);
            let read = followed.file.fields(found.offset, &mut self.fields);
            self.damaged += self.fields.damaged() as u64 + u64::from(read.is_err());
            if read.is_err() || !self.matches.wants(self.fields.iter()) {
                continue;
            }
            return Some(Entry { cursor: found.cursor, fields: &self.fields });
        }
    }

    /// Entries and fields that were passed over because they are damaged, since the journal was opened.
    pub fn damaged(&self) -> u64 {
        self.damaged + self.files.iter().map(|followed| followed.file.damaged).sum::<u64>()
    }

    /// Files that cannot be read, and why, since the last call.
    pub fn take_problems(&mut self) -> Vec<(PathBuf, FileError)> {
        std::mem::take(&mut self.problems)
    }

    /// Files that are open.
    pub fn files(&self) -> usize {
        self.files.len()
    }

    /// The file whose next entry is the earliest, and that entry.
    fn earliest(&mut self) -> Option<(usize, Found)> {
        let mut best: Option<(usize, Found)> = None;
        let mut index = 0;
        while index < self.files.len() {
            let followed = &mut self.files[index];
            loop {
                if followed.head.is_none() {
                    followed.head = followed.file.next();
                }
                // An entry that is in two files comes once.
                match (&followed.head, &self.last) {
                    (Some(head), Some(last)) if head.cursor.order(last).is_eq() => followed.head = None,
                    _ => break,
                }
            }
            match followed.head {
                None if followed.file.archived() || followed.gone => {
                    let done = self.files.swap_remove(index).file;
                    self.damaged += done.damaged;
                    self.finish(done.file_id(), done.passed());
                    continue;
                }
                Some(head) if best.is_none_or(|(_, best)| head.cursor.order(&best.cursor).is_lt()) => {
                    best = Some((index, head));
                }
                _ => {}
            }
            index += 1;
        }
        // The last file may have moved to the place of one that was closed; the index of the best is then another.
        let (_, found) = best?;
        let index = self.files.iter().position(|followed| {
            followed.head.is_some_and(|head| head.offset == found.offset && head.cursor == found.cursor)
        })?;
        Some((index, found))
    }

    /// Opens files that are new, and forgets those that are gone and read.
    fn look_for_files(&mut self) -> bool {
        let folders = directory::folders(&self.folders, self.deep);
        let now: HashMap<PathBuf, Option<SystemTime>> =
            folders.into_iter().map(|folder| (folder.clone(), directory::modified(&folder))).collect();
        let mut changed = false;
        if now == self.looked {
            for path in self.bad.keys().cloned().collect::<Vec<_>>() {
                changed |= self.open_file(path);
            }
            return changed;
        }
        let mut paths: Vec<PathBuf> = now.keys().flat_map(|folder| directory::files(folder)).collect();
        self.looked = now;
        // A hostile folder must not cost all descriptors.
        paths.sort_by_cached_key(|path| std::cmp::Reverse(directory::modified(path)));
        paths.truncate(FILES_MAX);
        paths.sort();
        self.bad.retain(|path, _| paths.binary_search(path).is_ok());
        for path in &paths {
            if self.files.iter().any(|followed| followed.file.path() == path) && !self.replaced(path) {
                continue;
            }
            changed |= self.open_file(path.clone());
        }
        for followed in &mut self.files {
            followed.gone = paths.binary_search_by(|path| path.as_path().cmp(followed.file.path())).is_err();
        }
        changed
    }

    /// Whether another file has taken the name of one that is followed.
    fn replaced(&self, path: &Path) -> bool {
        let Ok(file) = JournalFile::open(path) else { return false };
        !self.files.iter().any(|followed| followed.file.path() == path && followed.file.file_id() == file.file_id())
    }

    fn open_file(&mut self, path: PathBuf) -> bool {
        if self.bad.get(&path).is_some_and(|bad| *bad == Bad::now(&path)) {
            return false;
        }
        let mut file = match JournalFile::open(&path) {
            Ok(file) => file,
            Err(error) => {
                self.bad.insert(path.clone(), Bad::now(&path));
                self.problems.push((path, error));
                return false;
            }
        };
        let id = file.file_id();
        self.bad.remove(&path);
        let read = self.done.iter().position(|(known, _)| *known == id);
        let read = read.map(|at| (at, self.done[at].1));
        if file.archived() && read.is_some_and(|(_, entries)| entries >= file.entries()) {
            return false;
        }
        if let Some(followed) = self.files.iter_mut().find(|followed| followed.file.file_id() == id) {
            followed.file.renamed(&path);
            return false;
        }
        match self.start {
            _ if let Some((at, entries)) = read => {
                self.done.remove(at);
                file.skip(entries);
            }
            // Nothing of an archived file that ends earlier is wanted: it need not be held open.
            Start::Realtime(from) if file.archived() && file.last_realtime_us() < from => {
                self.finish(id, u64::MAX);
                return false;
            }
            Start::Realtime(0) => {}
            Start::Realtime(from) => file.seek(|cursor| cursor.realtime_us >= from),
            Start::After(after) => file.seek(|cursor| cursor.order(&after).is_gt()),
        }
        let head = file.next();
        // Its turn may come long after.
        file.forget();
        self.files.push(Followed { file, head, gone: false });
        true
    }

    /// Notes that so many entries of a file were read, or are not wanted.
    fn finish(&mut self, id: u128, entries: u64) {
        if self.done.len() == DONE_MAX {
            self.done.pop_front();
        }
        self.done.push_back((id, entries));
    }
}
