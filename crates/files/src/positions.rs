//! How far files were read, kept over restarts.
//!
//! Positions are lines of text that are appended to one file, `files.positions`. A later line takes the place of an
//! earlier one about the same file under the same name. Each line begins with the CRC-32C of its rest, in hexadecimal:
//!
//! ```text
//! 8f3a11c0 at 2049 131 1763700000000000000 1024:9ae016241c0a33d7 70211 1024:17b7cc6ad0c4a0f1 1763700001234 0 /var/log/a
//! ```
//!
//! The fields of `at` are the device and the number of the file, its time of birth in nanoseconds, how many bytes of its
//! head are known and their hash, the offset, how many bytes before it are known and their hash, when it was seen last
//! in milliseconds, whether it was read to its end for good, and the name, in which `\`, line feeds and carriage returns
//! are escaped. `no` with device, number and name takes a line back. `old` with an offset, the escaped labels, a tab and
//! the name is what was taken over from a file of the reference: it knows names only. `bad` is such an entry whose
//! offset could not be read.
//!
//! Positions in the files of the reference and of its predecessor are read once, when there is no file of ours, and
//! those files are never written.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use saphyr_parser::{Event, Parser};

use crate::identity::{Digest, FileId, Mark};
use crate::read::{io_error_text, read_limited};

/// The name of the file in the folder of its component.
pub const FILE_NAME: &str = "files.positions";
/// The name of the reference's file, in the same folder.
pub const REFERENCE_FILE_NAME: &str = "positions.yml";
/// How long a position is kept that nobody reads from any more, in milliseconds before the last sign of life in the file.
pub const KEEP_MS: u64 = 7 * 24 * 3600 * 1000;
/// How many earlier files of one name are remembered.
pub const EARLIER_MAX: usize = 32;
/// How many positions there are at most; those that were not seen for the longest time go first.
pub const RECORDS_MAX: usize = 1_000_000;
/// The largest file that is read, in bytes.
const FILE_BYTES_MAX: usize = 1 << 30;
/// A file that has grown by so many bytes is written anew with what counts.
const COMPACT_BYTES: u64 = 4 << 20;
/// For how many changes there is room that is kept.
const UNSAVED_KEPT_MAX: usize = 256;
/// How far a sign of life may be ahead of the clock, in milliseconds.
const CLOCK_SLACK_MS: u64 = 3600 * 1000;
/// How old the sign of life of a file that is being read may get, in milliseconds.
const TOUCH_MS: u64 = 24 * 3600 * 1000;

/// How far a file was read under a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The number of the file.
    pub id: FileId,
    /// When it was made, in nanoseconds since the Unix epoch; 0 if that is not known.
    pub birth_ns: u64,
    /// Its first bytes.
    pub head: Digest,
    /// Where reading goes on.
    pub mark: Mark,
    /// When the file was last known to have the name, in milliseconds since the Unix epoch.
    pub seen_ms: u64,
    /// Whether the name went to another file, and this one was read to its end.
    pub done: bool,
}

impl Record {
    /// What is known of a file that is not there any more, or has another content: its copies are known by it. In the
    /// place of the number stands one that no file has.
    #[must_use]
    pub fn without_number(self) -> Self {
        Record { id: FileId { device: 0, inode: self.birth_ns ^ self.mark.window.hash }, done: true, ..self }
    }
}

/// A position that knows a name only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// The labels that the lines were read with, as `{a="b"}`.
    pub labels: String,
    /// The offset, or why there is none.
    pub offset: Result<u64, String>,
}

/// A name of a file.
#[derive(Debug)]
struct Named {
    name: Arc<str>,
    /// Whether there is a record of the file under the name.
    known: bool,
    /// How often the file is being read under the name.
    held: u32,
}

/// All positions of a component. There may be many, most of which nothing happens to: what is kept for each is in lists of
/// just the length that they need.
#[derive(Debug, Default)]
pub struct Positions {
    /// What is known of the files that had a name, the newest last.
    names: HashMap<Arc<str>, Vec<Record>>,
    imports: HashMap<Arc<str>, Vec<Import>>,
    by_id: HashMap<FileId, Vec<Named>>,
    records: usize,
    unsaved: HashSet<(Arc<str>, FileId)>,
    removed: Vec<(Arc<str>, FileId)>,
    file: Option<PositionsFile>,
    path: Option<PathBuf>,
    rewrite: bool,
}

#[derive(Debug)]
struct PositionsFile {
    file: File,
    written: u64,
    /// The last append failed: there may be half a line.
    torn: bool,
}

/// What was found when positions were loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// How many lines were damaged.
    pub damaged: usize,
    /// How many positions were taken over from a file of the reference or its predecessor, and from which.
    pub converted: Option<(usize, PathBuf)>,
    /// What was wrong with a file of the reference's predecessor that is left aside therefore.
    pub ignored: Option<String>,
}

impl Positions {
    /// Positions that are never saved.
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// Reads the positions of a component from its folder; the first time those of the reference from the same folder,
    /// or else those of its predecessor from a file of any name. Nothing is written before the first
    /// [`save`](Self::save).
    ///
    /// # Errors
    ///
    /// A file that cannot be read, and one of the reference that is no YAML.
    pub fn load(folder: &Path, legacy: Option<&Path>) -> Result<(Self, Loaded), String> {
        let path = folder.join(FILE_NAME);
        let mut positions = Positions { path: Some(path.clone()), rewrite: true, ..Self::default() };
        let mut loaded = Loaded::default();
        if exists(&path)? {
            let (content, _) = read_limited(&path, FILE_BYTES_MAX)?;
            loaded.damaged = positions.read(&content);
            positions.expire();
            return Ok((positions, loaded));
        }
        let reference = folder.join(REFERENCE_FILE_NAME);
        if exists(&reference)? {
            let (content, _) = read_limited(&reference, FILE_BYTES_MAX)?;
            let entries = parse_yaml(&content)
                .map_err(|error| format!("invalid yaml positions file [{}]: {error}", reference.display()))?;
            if !entries.is_empty() {
                loaded.converted = Some((positions.import(entries), reference));
                return Ok((positions, loaded));
            }
        }
        if let Some(legacy) = legacy {
            if exists(legacy)? {
                let (content, _) = read_limited(legacy, FILE_BYTES_MAX)?;
                match parse_yaml(&content) {
                    Ok(entries) if entries.is_empty() => {}
                    Ok(entries) => loaded.converted = Some((positions.import(entries), legacy.to_owned())),
                    Err(error) => {
                        let text = format!("invalid yaml legacy positions file [{}]: {error}", legacy.display());
                        loaded.ignored = Some(text);
                    }
                }
            } else {
                loaded.ignored = Some(format!("legacy positions file [{}] does not exist", legacy.display()));
            }
        }
        Ok((positions, loaded))
    }

    /// Takes over what was read from a file of the reference; how many there were. Cursors of other sources are not
    /// offsets of files.
    fn import(&mut self, entries: Vec<(String, String, String)>) -> usize {
        let mut count = 0;
        for (name, labels, offset) in entries {
            if name.starts_with("cursor-") || name.starts_with("journal-") {
                continue;
            }
            let offset = offset.trim().parse::<i64>().ok().and_then(|offset| u64::try_from(offset).ok());
            let offset = offset.ok_or_else(|| "the position is no offset".to_owned());
            self.imports.entry(name.into()).or_default().push(Import { labels, offset });
            count += 1;
        }
        count
    }

    /// Reads lines; how many were damaged.
    fn read(&mut self, content: &[u8]) -> usize {
        let mut damaged = 0;
        // A last line without an end was being written when the process was killed. What it said, the file says itself.
        let end = memchr::memrchr(b'\n', content).map_or(0, |end| end + 1);
        for line in content[..end].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match parse_line(line) {
                Ok(Line::At(name, record)) => {
                    self.set(&name, record);
                }
                Ok(Line::No(name, id)) => self.forget(&name, id),
                Ok(Line::Old(name, import)) => self.imports.entry(name).or_default().push(import),
                Err(name) => {
                    damaged += 1;
                    if let Some(name) = name {
                        let import = Import { labels: String::new(), offset: Err("the position is damaged".into()) };
                        self.imports.entry(name.into()).or_default().push(import);
                    }
                }
            }
        }
        // What is known for certain counts more than what is not.
        self.imports.retain(|name, _| !self.names.contains_key(name));
        self.removed.clear();
        self.unsaved.clear();
        damaged
    }

    /// Takes out what nobody has read from for long. How long is measured from the last sign of life, so that a process
    /// that did not run for a year finds all that it left.
    fn expire(&mut self) {
        // A clock that was wrong for a while may have left signs of a life that is yet to come. They say nothing about the
        // others.
        let clock_ms = UNIX_EPOCH.elapsed().map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        let seen = self.names.values().flatten().map(|record| record.seen_ms);
        let newest = seen.filter(|seen_ms| *seen_ms <= clock_ms.saturating_add(CLOCK_SLACK_MS)).max();
        let oldest = newest.unwrap_or(0).saturating_sub(KEEP_MS);
        self.forget_where(|record| record.seen_ms < oldest);
        if self.records > RECORDS_MAX {
            let mut seen: Vec<u64> = self.names.values().flatten().map(|record| record.seen_ms).collect();
            seen.sort_unstable();
            let oldest = seen[seen.len() - RECORDS_MAX];
            self.forget_where(|record| record.seen_ms < oldest);
        }
    }

    fn forget_where(&mut self, old: impl Fn(&Record) -> bool) {
        let gone: Vec<(Arc<str>, FileId)> = self
            .names
            .iter()
            .flat_map(|(name, records)| records.iter().map(move |record| (name, record)))
            .filter(|(name, record)| old(record) && self.holders(record.id).all(|holder| holder != *name))
            .map(|(name, record)| (Arc::clone(name), record.id))
            .collect();
        for (name, id) in gone {
            self.remove(&name, id);
        }
    }

    /// What is known of the files that had a name, the newest last.
    pub fn records(&self, name: &str) -> &[Record] {
        self.names.get(name).map_or(&[], Vec::as_slice)
    }

    /// What is known of a file under all its names.
    pub fn of_file(&self, id: FileId) -> impl Iterator<Item = (&Arc<str>, &Record)> {
        let names = self.by_id.get(&id).into_iter().flatten().filter(|named| named.known).map(|named| &named.name);
        names.filter_map(move |name| Some((name, self.records(name).iter().find(|record| record.id == id)?)))
    }

    /// What is known of files that are not compressed and begin with these bytes, with whether they are being read; the one
    /// that was read furthest first.
    pub(crate) fn with_head(&self, first: &[u8]) -> Vec<(Record, bool)> {
        let begins = |record: &&Record| {
            let len = usize::from(record.head.len);
            record.mark.window.len > 0 && len > 0 && len <= first.len() && record.head.is_of(&first[..len])
        };
        let found = self.names.values().flatten().filter(begins);
        let mut found: Vec<(Record, bool)> =
            found.map(|record| (*record, self.holders(record.id).next().is_some())).collect();
        found.sort_by_key(|(record, _)| std::cmp::Reverse(record.mark.offset));
        found
    }

    /// The offset that was taken over from a file of the reference for a name: that of the labels, or else the lowest of
    /// the name's. Of several labels the lowest.
    pub fn imported(&self, name: &str, labels: &[String]) -> Option<Result<u64, String>> {
        let imports = self.imports.get(name)?;
        let of_labels = imports.iter().filter(|import| labels.contains(&import.labels)).map(|import| &import.offset);
        let mut chosen: Vec<_> = of_labels.collect();
        if chosen.is_empty() {
            chosen = imports.iter().map(|import| &import.offset).collect();
        }
        let unreadable = chosen.iter().find(|offset| offset.is_err());
        unreadable.copied().cloned().or_else(|| Some(Ok(chosen.into_iter().flatten().copied().min()?)))
    }

    /// Notes how far a file was read under a name.
    pub fn put(&mut self, name: &Arc<str>, record: Record) {
        // Systems give numbers again. Copies of the file before may still be there, and are known by its content.
        let is_before = |have: &&Record| have.id == record.id && have.birth_ns != record.birth_ns;
        let before = self.records(name).iter().find(is_before).filter(|before| before.mark.offset > 0).copied();
        if let Some(before) = before {
            let record = before.without_number();
            self.set(name, record);
            self.unsaved.insert((Arc::clone(name), record.id));
        }
        if self.set(name, record) {
            self.unsaved.insert((Arc::clone(name), record.id));
        }
    }

    /// Whether that was news.
    fn set(&mut self, name: &Arc<str>, record: Record) -> bool {
        self.imports.remove(name);
        let records = self.names.entry(Arc::clone(name)).or_default();
        if let Some(at) = records.iter().position(|have| have.id == record.id) {
            let same = records[at] == record;
            records[at] = record;
            return !same;
        }
        // Most names have one file for long.
        records.reserve_exact(1);
        records.push(record);
        self.records += 1;
        let oldest = (records.len() > EARLIER_MAX).then(|| records[0].id);
        self.named(name, record.id).known = true;
        if let Some(oldest) = oldest {
            self.remove(name, oldest);
        }
        true
    }

    /// The name among those of a file.
    fn named(&mut self, name: &Arc<str>, id: FileId) -> &mut Named {
        let names = self.by_id.entry(id).or_default();
        let at = names.iter().position(|named| named.name == *name).unwrap_or_else(|| {
            names.reserve_exact(1);
            names.push(Named { name: Arc::clone(name), known: false, held: 0 });
            names.len() - 1
        });
        &mut names[at]
    }

    /// Changes what is known of a name among those of a file, if it is one.
    fn change_named(&mut self, name: &str, id: FileId, change: impl FnOnce(&mut Named)) {
        let Some(names) = self.by_id.get_mut(&id) else { return };
        let Some(at) = names.iter().position(|named| *named.name == *name) else { return };
        change(&mut names[at]);
        if !names[at].known && names[at].held == 0 {
            names.remove(at);
        }
        if names.is_empty() {
            self.by_id.remove(&id);
        }
    }

    /// Makes a file that is known under a name the newest of that name.
    pub fn make_newest(&mut self, name: &str, id: FileId) {
        if let Some(records) = self.names.get_mut(name)
            && let Some(at) = records.iter().position(|record| record.id == id)
        {
            records[at..].rotate_left(1);
        }
    }

    /// Forgets a file under a name.
    pub fn remove(&mut self, name: &Arc<str>, id: FileId) {
        self.forget(name, id);
        self.unsaved.remove(&(Arc::clone(name), id));
        self.removed.push((Arc::clone(name), id));
    }

    fn forget(&mut self, name: &Arc<str>, id: FileId) {
        let Some(records) = self.names.get_mut(name) else { return };
        let before = records.len();
        records.retain(|record| record.id != id);
        self.records -= before - records.len();
        if records.is_empty() {
            self.names.remove(name);
        }
        self.change_named(name, id, |named| named.known = false);
    }

    /// Notes that a file is being read under a name.
    pub fn hold(&mut self, name: &Arc<str>, id: FileId) {
        self.named(name, id).held += 1;
    }

    /// Notes that a file is not read under a name any more.
    pub fn let_go(&mut self, name: &Arc<str>, id: FileId) {
        self.change_named(name, id, |named| named.held = named.held.saturating_sub(1));
    }

    /// Notes that nothing is being read.
    pub fn let_all_go(&mut self) {
        self.by_id.retain(|_, names| {
            names.iter_mut().for_each(|named| named.held = 0);
            names.retain(|named| named.known);
            !names.is_empty()
        });
    }

    /// The names that a file is being read under.
    pub fn holders(&self, id: FileId) -> impl Iterator<Item = &Arc<str>> {
        let names = self.by_id.get(&id).into_iter().flatten();
        names.filter(|named| named.held > 0).map(|named| &named.name)
    }

    /// The folder that positions are in; one for temporary files if they are never saved.
    pub fn folder(&self) -> PathBuf {
        self.path.as_ref().and_then(|path| path.parent()).map_or_else(std::env::temp_dir, Path::to_owned)
    }

    /// How many positions there are.
    pub fn len(&self) -> usize {
        self.records
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Notes that the files that are being read are alive, once a day, so that their positions do not expire.
    pub fn touch(&mut self, now_ms: u64) {
        let is_held = |named: &&Named| named.held > 0;
        for Named { name, .. } in self.by_id.values().flatten().filter(is_held) {
            let Some(record) = self.names.get_mut(name).and_then(|records| records.last_mut()) else { continue };
            let is_read = self.by_id.get(&record.id).is_some_and(|names| names.iter().any(|named| named.held > 0));
            if record.seen_ms.saturating_add(TOUCH_MS) < now_ms && is_read {
                record.seen_ms = now_ms;
                self.unsaved.insert((Arc::clone(name), record.id));
            }
        }
    }

    /// Writes what changed since the last time. What could not be written is written the next time.
    ///
    /// # Errors
    ///
    /// Why nothing could be written.
    pub fn save(&mut self) -> Result<(), String> {
        let Some(path) = self.path.clone() else { return Ok(()) };
        if self.file.as_ref().is_none_or(|file| file.written > COMPACT_BYTES) || self.rewrite {
            return self.write_anew(&path).map_err(|error| format!("write {}: {error}", path.display()));
        }
        if self.unsaved.is_empty() && self.removed.is_empty() {
            return Ok(());
        }
        let mut text = String::new();
        for (name, id) in &self.removed {
            // What was forgotten and is known again is written below.
            let Some(rest) = self.of_file(*id).all(|(have, _)| have != name).then(|| no_line(name, *id)) else {
                continue;
            };
            put_line(&mut text, &rest);
        }
        for (name, id) in &self.unsaved {
            let record = self.records(name).iter().find(|record| record.id == *id);
            if let Some(record) = record {
                put_line(&mut text, &at_line(name, record));
            }
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        if file.torn {
            text.insert(0, '\n');
        }
        file.torn = true;
        file.file
            .write_all(text.as_bytes())
            .map_err(|error| format!("write {}: {}", path.display(), io_error_text(&error)))?;
        file.torn = false;
        file.written += text.len() as u64;
        self.all_is_saved();
        Ok(())
    }

    fn all_is_saved(&mut self) {
        self.unsaved.clear();
        self.removed.clear();
        // Once, when all files are new, there are many.
        self.unsaved.shrink_to(UNSAVED_KEPT_MAX);
        self.removed.shrink_to(UNSAVED_KEPT_MAX);
    }

    /// Writes all that counts into a new file, which then takes the place of the old one.
    fn write_anew(&mut self, path: &Path) -> Result<(), String> {
        let told = |error: io::Error| io_error_text(&error);
        self.expire();
        let mut text = String::new();
        for (name, import) in self.imports.iter().flat_map(|(name, list)| list.iter().map(move |one| (name, one))) {
            put_line(&mut text, &old_line(name, import));
        }
        for (name, record) in self.names.iter().flat_map(|(name, list)| list.iter().map(move |one| (name, one))) {
            put_line(&mut text, &at_line(name, record));
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(told)?;
        }
        let new = path.with_extension("positions.new");
        let mut file = private(&new).map_err(told)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_data()).map_err(told)?;
        drop(file);
        std::fs::rename(&new, path).map_err(told)?;
        let file = OpenOptions::new().append(true).open(path).map_err(told)?;
        self.file = Some(PositionsFile { file, written: 0, torn: false });
        self.rewrite = false;
        self.all_is_saved();
        Ok(())
    }
}

fn exists(path: &Path) -> Result<bool, String> {
    match std::fs::metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(format!("stat {}: {}", path.display(), io_error_text(&error))),
    }
}

/// A new file that only its owner may read: it names the files of others.
fn private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    options.open(path)
}

fn put_line(out: &mut String, rest: &str) {
    let _ = writeln!(out, "{:08x} {rest}", crc32c::crc32c(rest.as_bytes()));
}

fn at_line(name: &str, record: &Record) -> String {
    let Record { id, birth_ns, head, mark, seen_ms, done } = record;
    let mut out = format!("at {} {} {birth_ns} {}:{:016x} ", id.device, id.inode, head.len, head.hash);
    let _ = write!(out, "{} {}:{:016x} ", mark.offset, mark.window.len, mark.window.hash);
    let _ = write!(out, "{seen_ms} {} ", u8::from(*done));
    escape(&mut out, name);
    out
}

fn no_line(name: &str, id: FileId) -> String {
    let mut out = format!("no {} {} ", id.device, id.inode);
    escape(&mut out, name);
    out
}

fn old_line(name: &str, import: &Import) -> String {
    let mut out = match import.offset {
        Ok(offset) => format!("old {offset} "),
        Err(_) => "bad 0 ".to_owned(),
    };
    escape(&mut out, &import.labels);
    out.push('\t');
    escape(&mut out, name);
    out
}

fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c => out.push(c),
        }
    }
}

fn unescape(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        out.push(match c {
            '\\' => match characters.next()? {
                '\\' => '\\',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                _ => return None,
            },
            c => c,
        });
    }
    Some(out)
}

enum Line {
    At(Arc<str>, Record),
    No(Arc<str>, FileId),
    Old(Arc<str>, Import),
}

/// Reads a line; of a damaged one the name, if it can be guessed.
fn parse_line(line: &[u8]) -> Result<Line, Option<String>> {
    let text = std::str::from_utf8(line).map_err(|_| None)?;
    let parsed = text.split_once(' ').and_then(|(crc, rest)| {
        let is_whole = crc.len() == 8 && u32::from_str_radix(crc, 16) == Ok(crc32c::crc32c(rest.as_bytes()));
        is_whole.then(|| parse_rest(rest))?
    });
    // Names are absolute as a rule, and the last field.
    parsed.ok_or_else(|| text.split_once(" /").and_then(|(_, name)| unescape(&format!("/{name}"))))
}

fn parse_rest(rest: &str) -> Option<Line> {
    let (kind, rest) = rest.split_once(' ')?;
    match kind {
        "at" => {
            let mut fields = rest.splitn(9, ' ');
            let mut number = || fields.next()?.parse::<u64>().ok();
            let (device, inode, birth_ns) = (number()?, number()?, number()?);
            let head = parse_digest(fields.next()?)?;
            let offset = fields.next()?.parse().ok()?;
            let window = parse_digest(fields.next()?)?;
            let seen_ms = fields.next()?.parse().ok()?;
            let done = match fields.next()? {
                "0" => false,
                "1" => true,
                _ => return None,
            };
            let name = unescape(fields.next()?)?;
            let mark = Mark { offset, window };
            let record = Record { id: FileId { device, inode }, birth_ns, head, mark, seen_ms, done };
            Some(Line::At(name.into(), record))
        }
        "no" => {
            let mut fields = rest.splitn(3, ' ');
            let id = FileId { device: fields.next()?.parse().ok()?, inode: fields.next()?.parse().ok()? };
            Some(Line::No(unescape(fields.next()?)?.into(), id))
        }
        "old" | "bad" => {
            let (offset, rest) = rest.split_once(' ')?;
            let offset = offset.parse().ok()?;
            let (labels, name) = rest.split_once('\t')?;
            let offset = if kind == "old" { Ok(offset) } else { Err("the position is no offset".to_owned()) };
            Some(Line::Old(unescape(name)?.into(), Import { labels: unescape(labels)?, offset }))
        }
        _ => None,
    }
}

fn parse_digest(text: &str) -> Option<Digest> {
    let (len, hash) = text.split_once(':')?;
    Some(Digest { len: len.parse().ok()?, hash: u64::from_str_radix(hash, 16).ok()? })
}

/// How deep the YAML of a positions file may be nested. It needs three levels.
const YAML_DEPTH_MAX: usize = 16;

/// The entries of a positions file of the reference, or of its predecessor, as (path, labels, position). The labels of
/// the predecessor's are `{}`.
///
/// # Errors
///
/// What is no YAML, or not of that form.
pub fn parse_yaml(content: &[u8]) -> Result<Vec<(String, String, String)>, String> {
    let text = std::str::from_utf8(content).map_err(|_| "it is not UTF-8".to_owned())?;
    let mut events = Parser::new_from_str(text);
    let mut entries = Vec::new();
    let top = node(&mut events, 0)?;
    let top = match top {
        Node::Map(top) => top,
        Node::Scalar(text) if text.is_empty() || text == "~" || text == "null" => return Ok(entries),
        _ => return Err("it is no mapping".to_owned()),
    };
    let positions = top.into_iter().find(|(key, _)| matches!(key, Node::Scalar(text) if text == "positions"));
    let positions = match positions {
        None => return Ok(entries),
        Some((_, Node::Map(positions))) => positions,
        Some((_, Node::Scalar(text))) if text.is_empty() || text == "~" || text == "null" => return Ok(entries),
        Some(_) => return Err("positions is no mapping".to_owned()),
    };
    for (key, value) in positions {
        let Node::Scalar(value) = value else { return Err("a position is no text".to_owned()) };
        match key {
            Node::Scalar(path) => entries.push((path, "{}".to_owned(), value)),
            Node::Map(fields) => {
                let (mut path, mut labels) = (String::new(), String::new());
                for (name, text) in fields {
                    match (name, text) {
                        (Node::Scalar(name), Node::Scalar(text)) if name == "path" => path = text,
                        (Node::Scalar(name), Node::Scalar(text)) if name == "labels" => labels = text,
                        _ => return Err("a key has a field that is neither path nor labels".to_owned()),
                    }
                }
                entries.push((path, labels, value));
            }
            Node::List => return Err("a key is a list".to_owned()),
        }
    }
    Ok(entries)
}

enum Node {
    Scalar(String),
    Map(Vec<(Node, Node)>),
    /// What is in it does not matter.
    List,
}

/// The next value of a YAML text. A text without one is empty.
fn node(events: &mut Parser<'_, saphyr_parser::StrInput<'_>>, depth: usize) -> Result<Node, String> {
    node_or_end(events, depth).map(|node| node.unwrap_or_else(|| Node::Scalar(String::new())))
}

/// As [`node`]; nothing at the end of what is around it.
fn node_or_end(events: &mut Parser<'_, saphyr_parser::StrInput<'_>>, depth: usize) -> Result<Option<Node>, String> {
    if depth > YAML_DEPTH_MAX {
        return Err("it is nested too deeply".to_owned());
    }
    loop {
        let Some(event) = events.next_event() else { return Ok(None) };
        let (event, _) = event.map_err(|error| format!("yaml: line {}: {}", error.marker().line(), error.info()))?;
        return Ok(Some(match event {
            Event::Nothing | Event::StreamStart | Event::DocumentStart(_) => continue,
            Event::StreamEnd | Event::DocumentEnd | Event::SequenceEnd | Event::MappingEnd => return Ok(None),
            Event::Scalar(text, ..) => Node::Scalar(text.into_owned()),
            Event::Alias(_) => return Err("it has an alias".to_owned()),
            Event::SequenceStart(..) => {
                while node_or_end(events, depth + 1)?.is_some() {}
                Node::List
            }
            Event::MappingStart(..) => {
                let mut pairs = Vec::new();
                while let Some(key) = node_or_end(events, depth + 1)? {
                    let value = node_or_end(events, depth + 1)?;
                    pairs.push((key, value.unwrap_or_else(|| Node::Scalar(String::new()))));
                }
                Node::Map(pairs)
            }
        }));
    }
}
