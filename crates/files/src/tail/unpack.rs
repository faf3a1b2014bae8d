//! Compressed files, which are read once from beginning to end.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bzip2::read::MultiBzDecoder;
use flate2::read::{MultiGzDecoder, ZlibDecoder};

use super::encoding::Encoding;
use super::lines::Line;
use super::siblings::leads_to;
use super::{Chunk, Step, World};
use crate::handles::open_plain;
use crate::identity::{Digest, FileFacts, HEAD_BYTES_MAX, Mark, has_head, read_head};
use crate::positions::{Positions, Record};

/// How many files are unpacked at the same time: each needs up to some megabytes.
pub const UNPACKING_MAX: usize = 4;
/// How much of a compressed file is read at once, in bytes.
const PACKED_BYTES: usize = 64 << 10;

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// gzip, RFC 1952.
    Gzip,
    /// zlib, RFC 1950.
    Zlib,
    /// bzip2.
    Bzip2,
}

impl Packing {
    /// That of a file with such a name.
    pub(crate) fn of_name(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?;
        [("gz", Packing::Gzip), ("z", Packing::Zlib), ("bz2", Packing::Bzip2)]
            .into_iter()
            .find_map(|(name, packing)| (name == extension).then_some(packing))
    }

    fn decoder(self, file: File) -> Box<dyn Read + Send> {
        let file = BufReader::with_capacity(PACKED_BYTES, file);
        match self {
            Packing::Gzip => Box::new(MultiGzDecoder::new(file)),
            Packing::Zlib => Box::new(ZlibDecoder::new(file)),
            Packing::Bzip2 => Box::new(MultiBzDecoder::new(file)),
        }
    }
}

/// How large a file may be that is unpacked to find out what it is, in bytes.
const UNPACKED_BYTES_MAX: u64 = 1 << 30;

/// What is in a compressed file, as a file in a folder that nobody else sees and that is gone when it is closed.
pub(super) fn unpacked(path: &Path, packing: Packing, folder: &Path) -> io::Result<File> {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let mut from = packing.decoder(open_plain(path)?);
    std::fs::create_dir_all(folder)?;
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = folder.join(format!("unpacked-{}-{number}", std::process::id()));
    let mut file = File::options().read(true).write(true).create_new(true).open(&name)?;
    std::fs::remove_file(&name)?;
    let written = io::copy(&mut from.by_ref().take(UNPACKED_BYTES_MAX + 1), &mut file)?;
    if written > UNPACKED_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(file)
}

/// Counts the files that are being unpacked.
#[derive(Clone, Debug, Default)]
pub struct Unpacking(Arc<AtomicUsize>);

/// The right to unpack a file.
#[derive(Debug)]
struct Permit(Unpacking);

impl Unpacking {
    fn permit(&self) -> Option<Permit> {
        let more = |count: usize| (count < UNPACKING_MAX).then_some(count + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Permit(self.clone()))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Reads the compressed file of a name, once. If the name goes to another file, that one as well.
///
/// Places are counted in bytes of what is unpacked. What was read before is unpacked again to come to a place, so that a
/// file costs nothing while it is not read.
pub struct Unpack {
    name: Arc<str>,
    packing: Packing,
    delay_ms: u64,
    facts: FileFacts,
    /// The number of the file among those that had the name.
    piece: u32,
    /// When the file was seen first.
    seen_ms: u64,
    /// The first bytes of the file as it is compressed.
    head: Digest,
    state: State,
    encoding: Encoding,
    read: u64,
    settled: u64,
    on_way: u32,
    unsaved: bool,
}

enum State {
    /// There is no file.
    None,
    /// It is to be opened.
    New,
    Open {
        from: Box<dyn Read + Send>,
        /// What was unpacked and has no end of a line yet.
        rest: Vec<u8>,
        /// Why there is nothing more.
        broken: Option<String>,
        _permit: Permit,
    },
    Done,
    /// It cannot be read as it is.
    Failed(String),
}

impl std::fmt::Debug for Unpack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unpack").field("name", &self.name).field("read", &self.read).finish_non_exhaustive()
    }
}

impl Unpack {
    /// Reads the file of a name, so many milliseconds after it was seen first.
    pub fn new(name: impl Into<Arc<str>>, packing: Packing, delay_ms: u64) -> Self {
        Unpack {
            name: name.into(),
            packing,
            delay_ms,
            facts: FileFacts::default(),
            piece: 0,
            seen_ms: 0,
            head: Digest::default(),
            state: State::None,
            encoding: Encoding::RAW,
            read: 0,
            settled: 0,
            on_way: 0,
            unsaved: false,
        }
    }

    /// How large the file is, in bytes as it is compressed.
    pub fn size(&self) -> u64 {
        self.facts.size
    }

    /// How much was read, in bytes of what is unpacked.
    pub fn offset(&self) -> u64 {
        self.read
    }

    /// Whether the file is being read.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::New | State::Open { .. })
    }

    /// Whether all of the file was read, and is safe.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done) && self.on_way == 0 && self.read == self.settled
    }

    /// Reads a turn.
    ///
    /// # Errors
    ///
    /// Why the file cannot be read, or unpacked. It is tried again when the file has changed.
    pub fn poll(&mut self, world: &World<'_>) -> io::Result<Step> {
        let facts = match std::fs::metadata(&*self.name) {
            Ok(metadata) if !metadata.is_file() => return Err(io::Error::other("is not a regular file")),
            Ok(metadata) => FileFacts::of(&metadata),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                // What is open is read to its end.
                if !matches!(self.state, State::Open { .. }) {
                    self.forget(world);
                    return Ok(Step::Missing);
                }
                self.facts
            }
            Err(error) => return Err(error),
        };
        let is_other = facts.id != self.facts.id || matches!(self.state, State::None);
        let is_changed = (facts.size, facts.modified_ns) != (self.facts.size, self.facts.modified_ns);
        if is_other && !(self.on_way > 0 || matches!(self.state, State::Open { .. })) {
            if !self.begin(world, facts)? {
                return Ok(Step::Waits);
            }
        } else if let State::Failed(why) = &self.state {
            if !is_changed {
                return Err(io::Error::other(why.clone()));
            }
            self.state = State::New;
        } else if is_changed && !is_other && matches!(self.state, State::Done) {
            if self.on_way > 0 {
                return Ok(Step::Waits);
            }
            // It was compressed into once more, or is another one.
            let is_same = facts.size == self.facts.size && has_head(&open_plain(Path::new(&*self.name))?, &self.head)?;
            if !is_same {
                self.state = State::New;
                self.seen_ms = world.now_ms;
            }
        }
        if !is_other {
            self.facts = facts;
        }
        if matches!(self.state, State::New) {
            if self.on_way > 0 {
                // Where to go on is known when it is known what became of that.
                return Ok(Step::Waits);
            }
            if world.now_ms < self.seen_ms.saturating_add(self.delay_ms) {
                return Ok(Step::Quiet);
            }
            let Some(permit) = world.unpacking.permit() else { return Ok(Step::Waits) };
            if !self.open(world, permit)? {
                return Ok(Step::Waits);
            }
        }
        let outcome = self.turn(world);
        if let Err(error) = &outcome {
            self.state = State::Failed(error.to_string());
            self.read = self.settled;
        }
        outcome
    }

    /// There is no file of the name any more. Who reads it under another name need not wait.
    fn forget(&mut self, world: &World<'_>) {
        if self.on_way == 0 && !matches!(self.state, State::None) {
            let mut positions = world.positions.lock();
            self.note(&mut positions, world.now_ms);
            positions.let_go(&self.name, self.facts.id);
            self.facts = FileFacts::default();
            self.state = State::None;
        }
    }

    /// The name leads to a file that was not read yet, or under another name. Whether it can be begun with: not while it is
    /// still read under a name that it had before.
    fn begin(&mut self, world: &World<'_>, facts: FileFacts) -> io::Result<bool> {
        let file = open_plain(Path::new(&*self.name))?;
        let mut positions = world.positions.lock();
        if positions.holders(facts.id).any(|name| **name != *self.name && !leads_to(name, facts.id)) {
            return Ok(false);
        }
        if self.facts.id != facts.id {
            positions.let_go(&self.name, self.facts.id);
            positions.hold(&self.name, facts.id);
        }
        // Places in the file as it is compressed have something before them.
        let known = positions.of_file(facts.id).filter(|(name, record)| {
            let is_same = record.birth_ns == facts.birth_ns || record.birth_ns == 0 || facts.birth_ns == 0;
            is_same
                && record.mark.window.len == 0
                && (**name == self.name || !leads_to(name, facts.id))
                && has_head(&file, &record.head).unwrap_or(false)
        });
        let known = known.map(|(_, record)| *record).max_by_key(|record| (record.done, record.mark.offset));
        self.facts = facts;
        self.piece += 1;
        self.seen_ms = world.now_ms;
        self.settled = known.map_or(0, |record| record.mark.offset);
        self.read = self.settled;
        self.head = known.map_or_else(Digest::default, |record| record.head);
        let is_done = known.is_some_and(|record| record.done && [0, facts.size].contains(&record.mark.window.hash));
        self.state = if is_done { State::Done } else { State::New };
        positions.put(&self.name, self.record(world.now_ms));
        Ok(true)
    }

    /// Opens the file and goes to where reading goes on. Not while the file is read that it was made of.
    fn open(&mut self, world: &World<'_>, permit: Permit) -> io::Result<bool> {
        let file = open_plain(Path::new(&*self.name))?;
        if !has_head(&file, &self.head)? {
            // It was written over.
            self.piece += 1;
            self.settled = 0;
        }
        let is_new = self.head == Digest::default() && self.settled == 0;
        let head = read_head(&file, self.facts.size)?;
        (&file).seek(SeekFrom::Start(0))?;
        let mut from = self.packing.decoder(file);
        let mut first = Vec::new();
        from.by_ref().take(HEAD_BYTES_MAX as u64).read_to_end(&mut first)?;
        if is_new {
            let (offset, is_read) = self.before_packing(world, &first)?;
            if is_read {
                return Ok(false);
            }
            self.settled = offset;
        }
        self.head = head;
        let (encoding, mark_bytes) = Encoding::of_mark(&first).unwrap_or((world.options.encoding, 0));
        self.encoding = encoding;
        let wanted = self.settled.max(mark_bytes as u64);
        let skipped = wanted.min(first.len() as u64);
        first.drain(..skipped as usize);
        let skipped = skipped + io::copy(&mut from.by_ref().take(wanted - skipped), &mut io::sink())?;
        if self.settled == 0 {
            self.settled = mark_bytes as u64;
        }
        // A file that is shorter than what was read of it is at its end.
        self.read = skipped;
        self.state = State::Open { from, rest: first, broken: None, _permit: permit };
        Ok(true)
    }

    /// How far the file was read that this one was made of, if it was, and whether it is still being read. It is known by
    /// its first bytes, and by those before the place.
    fn before_packing(&self, world: &World<'_>, first: &[u8]) -> io::Result<(u64, bool)> {
        let known = world.positions.lock().with_head(first);
        for (record, is_read) in known {
            let window = u64::from(record.mark.window.len);
            let mut from = self.packing.decoder(open_plain(Path::new(&*self.name))?);
            let before = record.mark.offset - window.min(record.mark.offset);
            io::copy(&mut from.by_ref().take(before), &mut io::sink())?;
            let mut bytes = Vec::new();
            from.take(window).read_to_end(&mut bytes)?;
            if record.mark.window.is_of(&bytes) {
                return Ok((record.mark.offset, is_read));
            }
        }
        Ok((0, false))
    }

    fn turn(&mut self, world: &World<'_>) -> io::Result<Step> {
        let State::Open { from, rest, broken, .. } = &mut self.state else { return Ok(Step::Quiet) };
        if let Some(why) = broken.take() {
            return Err(io::Error::other(why));
        }
        let known = rest.len();
        let outcome = from.by_ref().take(world.options.turn_bytes as u64).read_to_end(rest);
        if let Err(error) = outcome {
            // What came before is text like any other.
            *broken = Some(error.to_string());
        }
        let at_end = rest.len() == known && broken.is_none();
        let ends = self.encoding.ends();
        let mut lines = Vec::new();
        let split = world.options.split.as_deref();
        let mut next = match split {
            Some(split) => split.split(rest, 0, at_end, self.encoding, &mut lines),
            None => ends.split(rest, 0, rest.len(), &mut lines),
        };
        if lines.is_empty() {
            if at_end && !rest.is_empty() {
                match split {
                    Some(split) => split.rest(rest, 0, self.encoding, &mut lines),
                    None => ends.put(rest, 0, rest.len(), &mut lines),
                }
                next = rest.len();
            } else if rest.len() >= world.options.line_bytes_max {
                next = world.options.line_bytes_max / ends.unit * ends.unit;
                lines.push(Line { at: 0, len: next as u32 });
            }
        }
        if lines.is_empty() {
            if at_end {
                self.state = State::Done;
                self.unsaved = true;
                return Ok(Step::Quiet);
            }
            return Ok(Step::More);
        }
        let left = rest.split_off(next);
        let whole = std::mem::replace(rest, left);
        self.read += next as u64;
        self.on_way += 1;
        self.unsaved = true;
        let (text, lines) = if self.encoding.is_raw() {
            (whole.into(), lines)
        } else {
            super::piece::decode(&whole, &lines, self.encoding)
        };
        let end = Mark { offset: self.read, window: Digest::default() };
        Ok(Step::Chunk(Chunk { piece: self.piece, text, lines, end, bytes: next as u64, more: true }))
    }

    /// As [`Tail::settle`](super::Tail::settle).
    pub fn settle(&mut self, piece: u32, mark: Mark) {
        if piece == self.piece {
            self.on_way = self.on_way.saturating_sub(1);
            self.settled = mark.offset;
            self.unsaved = true;
        }
    }

    /// As [`Tail::rewind`](super::Tail::rewind).
    pub fn rewind(&mut self) {
        self.on_way = 0;
        if self.read != self.settled {
            self.read = self.settled;
            self.state = State::New;
        }
    }

    /// As [`Tail::note`](super::Tail::note).
    pub fn note(&mut self, positions: &mut Positions, now_ms: u64) {
        if std::mem::take(&mut self.unsaved) && !matches!(self.state, State::None) {
            positions.put(&self.name, self.record(now_ms));
        }
    }

    /// As [`Tail::close`](super::Tail::close).
    pub fn close(mut self, positions: &mut Positions, now_ms: u64) {
        self.note(positions, now_ms);
        positions.let_go(&self.name, self.facts.id);
    }

    fn record(&self, now_ms: u64) -> Record {
        let FileFacts { id, birth_ns, .. } = self.facts;
        let done = matches!(self.state, State::Done) && self.read == self.settled;
        // In the place of the bytes before the position stands how large the file is, as it is compressed.
        let window = Digest { len: 0, hash: if done { self.facts.size } else { 0 } };
        let mark = Mark { offset: self.settled, window };
        Record { id, birth_ns, head: self.head, mark, seen_ms: now_ms, done }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use flate2::Compression;
    use parking_lot::Mutex;

    use super::super::{Buffers, Options};
    use super::*;

    struct Rig {
        dir: tempfile::TempDir,
        positions: Mutex<Positions>,
        unpacking: Unpacking,
        options: Options,
        now_ms: u64,
    }

    impl Rig {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let options = Options { turn_bytes: 1000, ..Options::default() };
            Rig { dir, positions: Mutex::default(), unpacking: Unpacking::default(), options, now_ms: 1_000 }
        }

        fn path(&self, name: &str) -> String {
            self.dir.path().join(name).to_str().unwrap().to_owned()
        }

        fn step(&self, unpack: &mut Unpack) -> io::Result<Step> {
            let buffers = Buffers::new(1000);
            unpack.poll(&World {
                now_ms: self.now_ms,
                positions: &self.positions,
                is_target: &|_| false,
                options: &self.options,
                buffers: &buffers,
                unpacking: &self.unpacking,
            })
        }

        fn lines(&self, unpack: &mut Unpack, steps: usize) -> Vec<String> {
            let mut got = Vec::new();
            for _ in 0..steps {
                match self.step(unpack).unwrap() {
                    Step::Chunk(chunk) => {
                        got.extend(chunk.lines.iter().map(|l| String::from_utf8_lossy(l.of(&chunk.text)).into_owned()));
                        unpack.settle(chunk.piece, chunk.end);
                        unpack.note(&mut self.positions.lock(), self.now_ms);
                    }
                    Step::More => {}
                    _ => break,
                }
            }
            unpack.note(&mut self.positions.lock(), self.now_ms);
            got
        }
    }

    fn pack(packing: Packing, text: &[u8]) -> Vec<u8> {
        match packing {
            Packing::Gzip => {
                // Two members, as tools that append leave them.
                let (first, second) = text.split_at(text.len() / 2);
                let mut out = Vec::new();
                for part in [first, second] {
                    let mut encoder = flate2::write::GzEncoder::new(out, Compression::fast());
                    encoder.write_all(part).unwrap();
                    out = encoder.finish().unwrap();
                }
                out
            }
            Packing::Zlib => {
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(text).unwrap();
                encoder.finish().unwrap()
            }
            Packing::Bzip2 => {
                let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
                encoder.write_all(text).unwrap();
                encoder.finish().unwrap()
            }
        }
    }

    fn text(lines: usize) -> (Vec<u8>, Vec<String>) {
        let lines: Vec<String> = (0..lines).map(|n| format!("line {n}")).collect();
        // The last one has no end.
        (lines.join("\r\n").into_bytes(), lines)
    }

    #[test]
    fn a_compressed_file_is_read_once_and_its_last_line_needs_no_end() {
        for packing in [Packing::Gzip, Packing::Zlib, Packing::Bzip2] {
            let rig = Rig::new();
            let (content, lines) = text(1000);
            fs::write(rig.path("a"), pack(packing, &content)).unwrap();
            let mut unpack = Unpack::new(rig.path("a"), packing, 0);
            let mut got = rig.lines(&mut unpack, 3);
            // Goes on after a restart, in the middle.
            unpack.close(&mut rig.positions.lock(), 0);
            let mut unpack = Unpack::new(rig.path("a"), packing, 0);
            got.extend(rig.lines(&mut unpack, usize::MAX));
            assert_eq!(got, lines, "{packing:?}");
            assert_eq!(unpack.offset(), content.len() as u64);
            unpack.close(&mut rig.positions.lock(), 0);
            // Also under another name, and the name with another file.
            fs::rename(rig.path("a"), rig.path("b")).unwrap();
            fs::write(rig.path("a"), pack(packing, b"new")).unwrap();
            let [mut a, mut b] = ["a", "b"].map(|name| Unpack::new(rig.path(name), packing, 0));
            assert_eq!(rig.lines(&mut b, usize::MAX), Vec::<String>::new());
            assert_eq!(rig.lines(&mut a, usize::MAX), ["new"]);
            fs::remove_file(rig.path("a")).unwrap();
            fs::rename(rig.path("b"), rig.path("a")).unwrap();
            assert_eq!(rig.lines(&mut a, usize::MAX), Vec::<String>::new());
        }
    }

    #[test]
    fn what_was_lost_is_unpacked_again() {
        let rig = Rig::new();
        let (content, lines) = text(300);
        fs::write(rig.path("a"), pack(Packing::Gzip, &content)).unwrap();
        let mut unpack = Unpack::new(rig.path("a"), Packing::Gzip, 0);
        let mut got = rig.lines(&mut unpack, 1);
        assert!(matches!(rig.step(&mut unpack).unwrap(), Step::Chunk(_)));
        unpack.rewind();
        got.extend(rig.lines(&mut unpack, usize::MAX));
        assert_eq!(got, lines);
    }

    #[test]
    fn a_file_that_is_not_whole_is_tried_again_when_it_has_changed() {
        for cut in [0, 1, 5, 50, 100] {
            let mut rig = Rig::new();
            let (content, lines) = text(300);
            let packed = pack(Packing::Gzip, &content);
            let path = rig.path("a");
            fs::write(&path, &packed[..cut]).unwrap();
            let mut unpack = Unpack::new(&*path, Packing::Gzip, 5_000);
            assert!(matches!(rig.step(&mut unpack).unwrap(), Step::Quiet));
            rig.now_ms += 5_000;
            let mut got = Vec::new();
            let error = loop {
                match rig.step(&mut unpack) {
                    Ok(Step::Chunk(chunk)) => {
                        got.extend(chunk.lines.iter().map(|l| String::from_utf8_lossy(l.of(&chunk.text)).into_owned()));
                        unpack.settle(chunk.piece, chunk.end);
                    }
                    Ok(Step::More) => {}
                    Ok(Step::Quiet) => break None,
                    Ok(step) => panic!("{step:?}"),
                    Err(error) => break Some(error),
                }
            };
            if cut == 0 {
                // Nothing is a whole file of nothing.
                continue;
            }
            assert!(error.is_some(), "{cut}");
            assert!(rig.step(&mut unpack).is_err());
            fs::write(&path, &packed).unwrap();
            got.extend(rig.lines(&mut unpack, usize::MAX));
            assert_eq!(got, lines, "{cut}");
        }
    }

    #[test]
    fn few_files_are_unpacked_at_once() {
        let rig = Rig::new();
        let (content, _) = text(1000);
        let names: Vec<String> = (0..=UNPACKING_MAX).map(|n| rig.path(&n.to_string())).collect();
        names.iter().for_each(|name| fs::write(Path::new(name), pack(Packing::Gzip, &content)).unwrap());
        let mut files: Vec<Unpack> = names.iter().map(|name| Unpack::new(&**name, Packing::Gzip, 0)).collect();
        let (last, others) = files.split_last_mut().unwrap();
        for file in &mut *others {
            assert!(matches!(rig.step(file).unwrap(), Step::Chunk(_)));
        }
        assert!(matches!(rig.step(last).unwrap(), Step::Waits));
        rig.lines(&mut others[0], usize::MAX);
        assert_eq!(rig.lines(last, usize::MAX).len(), 1000);
    }
}
