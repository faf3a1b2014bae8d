//! Reading files as they grow, over all that rotation does to them.
//!
//! A [`Tail`] follows a name. It is a state machine that does nothing by itself: whoever has it calls
//! [`poll`](Tail::poll) from time to time, gets lines, and says which of them are safe. A file that waits costs its open
//! handle and some numbers; no text is kept between two calls.
//!
//! What happens to the file under the name:
//!
//! - *It grows.* Lines are handed out when their ends are there. A place is known by the bytes before it as well.
//! - *The name goes to another file.* The old one is read to its end, and for a while on: who writes to it may not know
//!   yet. Files that had the name in between, while nobody looked, are found beside it by their names and times.
//! - *It is cut, or its content is another one.* Reading begins anew. If there is a copy of what it was, as a rotation by
//!   copying leaves it, the rest of the old content is read there.
//! - *It goes away.* What is left is read, and its last line is handed out without an end.

mod buffers;
mod code_pages;
mod encoding;
mod lines;
mod piece;
mod siblings;
mod unpack;

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

pub use self::buffers::Buffers;
pub use self::encoding::Encoding;
pub use self::lines::Line;
use self::piece::{Life, Outcome, Piece};
use self::siblings::{Sibling, bases, leads_to, siblings};
pub use self::unpack::{Packing, UNPACKING_MAX, Unpack, Unpacking};
use crate::identity::{Digest, FileFacts, FileId, HEAD_BYTES_MAX, Mark, has_head, read_head};
use crate::positions::{Positions, Record};

/// How long a file that lost its name is read on, in milliseconds after it grew last.
pub const LINGER_MS: u64 = 10_000;
/// How long the last line of a file that lost its name waits for its end, in milliseconds.
pub const UNENDED_WAIT_MS: u64 = 2_000;
/// How many files that lost a name are read at once.
pub const OLD_MAX: usize = 16;
/// Within this time, in milliseconds, a name does not go to two files one after the other unseen.
const ROTATION_MS_MIN: u64 = 1_000;
/// How far the clock of a file system may be behind, in milliseconds.
const CLOCK_SLACK_MS: u64 = 2_000;

/// Where to begin with a file that nothing is known of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Begin {
    /// At its beginning.
    #[default]
    Beginning,
    /// After the last line that has an end.
    End,
    /// Not at all.
    Skip,
}

/// How files are read.
#[derive(Clone, Debug)]
pub struct Options {
    /// How they are encoded, unless they say so themselves.
    pub encoding: Encoding,
    /// How many bytes are read at once.
    pub turn_bytes: usize,
    /// The longest line, in bytes. A longer one comes in pieces.
    pub line_bytes_max: usize,
    /// Where to begin when nothing is known.
    pub unknown: Begin,
    /// Where to begin when what was known cannot be read any more.
    pub damaged: Begin,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            encoding: Encoding::RAW,
            turn_bytes: 256 << 10,
            line_bytes_max: 64 << 20,
            unknown: Begin::Beginning,
            damaged: Begin::Beginning,
        }
    }
}

/// What tails have in common.
pub struct World<'a> {
    /// The time, in milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// All positions.
    pub positions: &'a Mutex<Positions>,
    /// Whether a file is read under this name as well.
    pub is_target: &'a (dyn Fn(&str) -> bool + Sync),
    /// How to read.
    pub options: &'a Options,
    /// Where to read to.
    pub buffers: &'a Buffers,
    /// How many files are being unpacked.
    pub unpacking: &'a Unpacking,
}

impl std::fmt::Debug for World<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("now_ms", &self.now_ms).finish_non_exhaustive()
    }
}

/// Lines of one file.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// Which of the files that have or had the name: what is to be said of the chunk is said with this number.
    pub piece: u32,
    /// What the lines are in.
    pub text: Bytes,
    /// The lines, in order.
    pub lines: Vec<Line>,
    /// Where the next line begins.
    pub end: Mark,
    /// How many bytes of the file were read.
    pub bytes: u64,
    /// Whether there was more to read.
    pub more: bool,
}

/// What a poll found.
#[derive(Debug)]
pub enum Step {
    /// Lines. There may be more.
    Chunk(Chunk),
    /// A part of a long line. There is more.
    More,
    /// Nothing new.
    Quiet,
    /// Nothing new, and there is no file of the name.
    Missing,
    /// The file is read to its end under a name that it had before. It is this name's then.
    Waits,
    /// It is not known how far the file was read, and it is not to be read then.
    Skipped(String),
}

/// What happened to a tail since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// How often the name went to another file, or away.
    pub rotated: u64,
    /// How often the content was another one all of a sudden.
    pub truncated: u64,
    /// How often the rest of such a content was found in a copy.
    pub recovered: u64,
}

/// Follows a name.
#[derive(Debug)]
pub struct Tail {
    name: Arc<str>,
    /// The labels that it is read with, as the reference writes them: positions of the reference depend on them.
    labels: Vec<String>,
    live: Option<Piece>,
    /// Files that had the name, in order.
    old: Vec<Piece>,
    numbers: u32,
    /// When the name was seen to lead to the live file, or to nothing, in milliseconds since the Unix epoch.
    looked_ms: u64,
    /// Whether a file was open under this name since the tail was made.
    began: bool,
    counts: Counts,
}

impl Tail {
    /// Follows a name that is read with these labels.
    pub fn new(name: impl Into<Arc<str>>, labels: Vec<String>) -> Self {
        Tail {
            name: name.into(),
            labels,
            live: None,
            old: Vec::new(),
            numbers: 0,
            looked_ms: 0,
            began: false,
            counts: Counts::default(),
        }
    }

    /// The name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// How large the file of the name was when it was looked at last, in bytes.
    pub fn size(&self) -> u64 {
        self.live.as_ref().map_or(0, |live| live.facts.size)
    }

    /// Where the next line of the file begins.
    pub fn offset(&self) -> u64 {
        self.live.as_ref().map_or(0, |live| live.read.offset)
    }

    /// Whether a file of the name is open.
    pub fn is_open(&self) -> bool {
        self.live.is_some()
    }

    /// Whether there are files that lost the name and are still being read.
    pub fn lingers(&self) -> bool {
        !self.old.is_empty()
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Looks at the files and reads a turn at most.
    ///
    /// # Errors
    ///
    /// Why the name, or a file that has or had it, cannot be read. The next poll tries again.
    pub fn poll(&mut self, world: &World<'_>) -> io::Result<Step> {
        self.clear_away(world);
        let mut looked = self.look(world);
        for at in 0..self.old.len() {
            match self.read_old(at, world) {
                Ok(Outcome::Chunk(chunk)) => return Ok(Step::Chunk(chunk)),
                Ok(Outcome::More) => return Ok(Step::More),
                Ok(Outcome::Nothing | Outcome::Replaced) => {}
                Err(error) => looked = looked.and(Err(error)),
            }
        }
        let step = looked?;
        if let Some(step) = step {
            return Ok(step);
        }
        let Some(live) = &mut self.live else { return Ok(Step::Missing) };
        Ok(match live.read_if_changed(world)? {
            Outcome::Chunk(chunk) => Step::Chunk(chunk),
            Outcome::More => Step::More,
            Outcome::Nothing => Step::Quiet,
            Outcome::Replaced => {
                self.begin_anew(world, None);
                Step::More
            }
        })
    }

    /// What was handed out of a file up to here is safe; to be said once for each chunk, in order.
    pub fn settle(&mut self, piece: u32, mark: Mark) {
        if let Some(piece) = self.pieces().find(|have| have.number == piece) {
            piece.settle(mark);
        }
    }

    /// Something that was handed out was lost on its way, and nothing is on its way any more: what is not safe is read
    /// again.
    pub fn rewind(&mut self) {
        self.pieces().for_each(Piece::rewind);
    }

    /// Notes what changed about how far the files were read.
    pub fn note(&mut self, positions: &mut Positions, now_ms: u64) {
        let name = Arc::clone(&self.name);
        for piece in self.pieces() {
            if piece.unsaved {
                piece.unsaved = false;
                positions.put(&name, piece.record(now_ms, false));
            }
        }
    }

    /// Notes how far the files were read, and reads them no more.
    pub fn close(mut self, positions: &mut Positions, now_ms: u64) {
        self.note(positions, now_ms);
        let name = Arc::clone(&self.name);
        self.pieces().for_each(|piece| positions.let_go(&name, piece.facts.id));
    }

    fn pieces(&mut self) -> impl Iterator<Item = &mut Piece> {
        self.old.iter_mut().chain(&mut self.live)
    }

    fn next_number(&mut self) -> u32 {
        self.numbers += 1;
        self.numbers
    }

    /// Forgets old files that were read to their ends, and of which all is safe.
    fn clear_away(&mut self, world: &World<'_>) {
        if !self.old.iter().any(Piece::is_over) {
            return;
        }
        let mut positions = world.positions.lock();
        for piece in self.old.extract_if(.., |piece| piece.is_over()) {
            positions.put(&self.name, piece.record(world.now_ms, true));
            positions.let_go(&self.name, piece.facts.id);
        }
    }

    /// Looks where the name leads. A step if there is no live file to be read afterwards.
    fn look(&mut self, world: &World<'_>) -> io::Result<Option<Step>> {
        let facts = match std::fs::metadata(&*self.name) {
            Ok(metadata) if metadata.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            // To open a pipe may take forever.
            Ok(metadata) if !metadata.is_file() => return Err(io::Error::other("is not a regular file")),
            Ok(metadata) => FileFacts::of(&metadata),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                self.retire(world);
                if !self.began && self.looked_ms == 0 {
                    // What had the name before may have more.
                    let known = self.known(world, FileFacts::default());
                    let earlier = self.earlier(world, None, &known);
                    self.adopt(world, earlier);
                }
                self.looked_ms = world.now_ms;
                return Ok(Some(Step::Missing));
            }
            Err(error) => return Err(error),
        };
        match &mut self.live {
            Some(live) if live.facts.id == facts.id => {
                live.facts = facts;
                self.looked_ms = world.now_ms;
                return Ok(None);
            }
            Some(_) => self.retire(world),
            None => {}
        }
        if self.old.len() >= OLD_MAX {
            // The old ones first: their lines are the older ones, and handles are not without number.
            return Ok(Some(Step::Quiet));
        }
        let step = self.open(world)?;
        self.looked_ms = world.now_ms;
        Ok(step)
    }

    /// The live file has lost the name.
    fn retire(&mut self, world: &World<'_>) {
        if let Some(mut live) = self.live.take() {
            live.life = Life::Old { grew_ms: world.now_ms, caught_up: false };
            self.old.push(live);
            self.counts.rotated += 1;
        }
    }

    /// Reads from a file that lost the name.
    fn read_old(&mut self, at: usize, world: &World<'_>) -> io::Result<Outcome> {
        let piece = &mut self.old[at];
        let Life::Old { grew_ms, caught_up } = piece.life else { return Ok(Outcome::Nothing) };
        piece.look()?;
        if piece.facts.size < piece.read.offset {
            self.begin_anew(world, Some(at));
            return Ok(Outcome::More);
        }
        // What was compressed grows no more.
        let quiet_ms = if piece.is_unpacked { u64::MAX } else { world.now_ms.saturating_sub(grew_ms) };
        let unended = piece.facts.size > piece.read.offset;
        let is_gone = piece.facts.names == 0;
        let outcome = if !caught_up || piece.has_grown() {
            piece.life = Life::Old { grew_ms: world.now_ms, caught_up: false };
            piece.read(world, false)?
        } else if unended && (is_gone || quiet_ms >= UNENDED_WAIT_MS) {
            piece.read(world, true)?
        } else if quiet_ms >= LINGER_MS {
            piece.life = Life::Ended;
            Outcome::Nothing
        } else {
            Outcome::Nothing
        };
        match outcome {
            Outcome::Nothing if !caught_up && piece.life != Life::Ended => {
                piece.life = Life::Old { grew_ms: world.now_ms, caught_up: true };
                // The last line of a file that is gone waits for nothing.
                if is_gone && piece.facts.size > piece.read.offset {
                    return piece.read(world, true);
                }
            }
            Outcome::Replaced => {
                self.begin_anew(world, Some(at));
                return Ok(Outcome::More);
            }
            _ => {}
        }
        Ok(outcome)
    }

    /// Opens the file of the name. A step if it is not to be read now.
    fn open(&mut self, world: &World<'_>) -> io::Result<Option<Step>> {
        let file = match File::open(&*self.name) {
            Ok(file) => file,
            // It went while it was looked at.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(Step::Missing)),
            Err(error) => return Err(error),
        };
        let facts = FileFacts::of(&file.metadata()?);
        let known = self.known(world, facts);
        if known.held_elsewhere {
            return Ok(Some(Step::Waits));
        }
        let file = match self.go_on(world, file, facts)? {
            Some(file) => file,
            None => return Ok(None),
        };
        let earlier = self.earlier(world, Some(&file), &known);
        let place = match self.place(world, &file, facts, &known, &earlier)? {
            Place::At(place) => place,
            Place::Skip(why) => return Ok(Some(Step::Skipped(why))),
        };
        let mut live = Piece::new(self.next_number(), file, facts, place.mark, place.head);
        live.prepare(world.options)?;
        let replaced = known.own().filter(|_| !place.known);
        self.adopt(world, earlier);
        let mut positions = world.positions.lock();
        if let Some(record) = replaced {
            // Who reads the copy of the old content under its own name finds how far it was read.
            positions.put(&self.name, record.without_number());
            self.counts.truncated += 1;
        }
        positions.hold(&self.name, facts.id);
        positions.put(&self.name, live.record(world.now_ms, false));
        positions.make_newest(&self.name, facts.id);
        drop(positions);
        self.live = Some(live);
        self.began = true;
        Ok(None)
    }

    /// Reads files that had the name before.
    fn adopt(&mut self, world: &World<'_>, earlier: Vec<Earlier>) {
        for Earlier { file, facts, is_unpacked, mark, head, .. } in earlier {
            let mut piece = Piece::new(self.next_number(), file, facts, mark, head);
            piece.is_unpacked = is_unpacked;
            if piece.prepare(world.options).is_err() {
                continue;
            }
            piece.life = Life::Old { grew_ms: world.now_ms, caught_up: false };
            let mut positions = world.positions.lock();
            positions.hold(&self.name, piece.facts.id);
            positions.put(&self.name, piece.record(world.now_ms, false));
            self.old.push(piece);
        }
    }

    /// What is known of the file and of the name.
    fn known(&self, world: &World<'_>, facts: FileFacts) -> Known {
        let positions = world.positions.lock();
        let records = positions.records(&self.name).to_vec();
        let others: Vec<(Arc<str>, Record)> = positions
            .of_file(facts.id)
            .filter(|(name, record)| **name != self.name && is_same(record, facts))
            .map(|(name, record)| (Arc::clone(name), *record))
            .collect();
        let holders: Vec<Arc<str>> =
            positions.holders(facts.id).iter().filter(|name| **name != self.name).map(Arc::clone).collect();
        // Of the name that a copy was made of.
        let folder = Path::new(&*self.name).parent();
        let file_name = Path::new(&*self.name).file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let mut copied = Vec::new();
        if others.is_empty() && facts.size > 0 {
            for base in bases(file_name) {
                let base = folder.map_or_else(|| base.clone().into(), |folder| folder.join(&base));
                copied.extend_from_slice(base.to_str().map_or(&[], |base| positions.records(base)));
            }
        }
        drop(positions);
        // A file that is still found under the other name has two names, and is read under both.
        let leads_elsewhere = |name: &Arc<str>| !leads_to(name, facts.id);
        Known {
            facts,
            records,
            held_elsewhere: holders.iter().any(leads_elsewhere),
            moved: others.into_iter().filter(|(name, _)| leads_elsewhere(name)).map(|(_, record)| record).collect(),
            copied,
        }
    }

    /// Where to begin with the file of the name.
    fn place(
        &self,
        world: &World<'_>,
        file: &File,
        facts: FileFacts,
        known: &Known,
        earlier: &[Earlier],
    ) -> io::Result<Place> {
        let at = |record: &Record| Ok(Place::At(Beginning { mark: record.mark, head: record.head, known: true }));
        if let Some(record) = known.own()
            && fits(file, facts, &record)?
        {
            return at(&record);
        }
        // The one that was read furthest.
        let mut moved: Vec<&Record> = known.moved.iter().collect();
        moved.sort_by_key(|record| std::cmp::Reverse(record.mark.offset));
        for record in moved {
            if fits(file, facts, record)? {
                return at(record);
            }
        }
        if let Some(last) = known.records.last().filter(|last| !is_same(last, facts)) {
            // File systems may be numbered anew when a machine starts.
            let is_renumbered = last.id.inode == facts.id.inode && last.birth_ns == facts.birth_ns && last.birth_ns > 0;
            // Whoever saves a file by writing another and giving it the name leaves nothing of the old one. What is short
            // may be a greeting that every such file begins with.
            let is_gone = !self.began && earlier.iter().all(|earlier| !is_same(last, earlier.facts));
            let is_rewritten = is_gone && last.mark.offset > HEAD_BYTES_MAX as u64;
            if (is_renumbered || is_rewritten) && fits(file, facts, last)? {
                return at(last);
            }
        }
        for record in known.copied.iter().rev().filter(|record| record.mark.offset > 0) {
            if fits(file, facts, record)? {
                return at(record);
            }
        }
        if !known.records.is_empty() {
            return Ok(Place::At(Beginning::default()));
        }
        let imported = world.positions.lock().imported(&self.name, &self.labels);
        let begin = match imported {
            Some(Ok(offset)) if offset > 0 => {
                // What was cut since then begins anew.
                let mark = Mark::read(file, offset)?.unwrap_or_default();
                return Ok(Place::At(Beginning { mark, head: read_head(file, mark.offset)?, ..Beginning::default() }));
            }
            Some(Err(_)) => world.options.damaged,
            Some(Ok(_)) | None => world.options.unknown,
        };
        match begin {
            Begin::End if !self.began => {
                let offset = piece::end_of_last_line(file, facts.size, world.options)?;
                let mark = Mark::read(file, offset)?.unwrap_or_default();
                Ok(Place::At(Beginning { mark, head: read_head(file, mark.offset)?, ..Beginning::default() }))
            }
            Begin::Skip => Ok(Place::Skip(imported.and_then(Result::err).unwrap_or_default())),
            Begin::Beginning | Begin::End => Ok(Place::At(Beginning::default())),
        }
    }

    /// Whoever saves a file by writing another and giving it the name leaves nothing of the old one, and the content goes
    /// on: then the file is the live one from now on. Else gives it back.
    fn go_on(&mut self, world: &World<'_>, file: File, facts: FileFacts) -> io::Result<Option<File>> {
        let Some(old) = self.old.last_mut().filter(|old| old.read.offset > HEAD_BYTES_MAX as u64) else {
            return Ok(Some(file));
        };
        old.look()?;
        let record = Record { mark: old.read, head: old.head, ..Record::default() };
        if old.facts.names > 0 || !fits(&file, facts, &record)? {
            return Ok(Some(file));
        }
        let Some(mut live) = self.old.pop() else { return Ok(Some(file)) };
        let mut positions = world.positions.lock();
        positions.let_go(&self.name, live.facts.id);
        positions.remove(&self.name, live.facts.id);
        live.replace_file(file, facts);
        live.life = Life::Live;
        positions.hold(&self.name, facts.id);
        positions.put(&self.name, live.record(world.now_ms, false));
        positions.make_newest(&self.name, facts.id);
        drop(positions);
        self.live = Some(live);
        Ok(None)
    }

    /// The files that had the name before, were not read to their ends, and are not open: with where to go on.
    fn earlier(&self, world: &World<'_>, file: Option<&File>, known: &Known) -> Vec<Earlier> {
        let facts = known.facts;
        let mut found: Vec<Earlier> = Vec::new();
        let mut since_ms = None;
        let mut unread: Vec<Record> = Vec::new();
        let mut anew = Vec::new();
        if self.began || (self.looked_ms > 0 && known.records.is_empty()) {
            // The file before is open. It is known when the name was last looked at, and when it lost the name.
            let looked_long_ago = world.now_ms.saturating_sub(self.looked_ms) >= ROTATION_MS_MIN;
            let changed_ms = self.old.last().and_then(|old| old.changed_ms());
            let long_ago = changed_ms.is_none_or(|changed| world.now_ms.saturating_sub(changed) >= ROTATION_MS_MIN);
            if looked_long_ago && long_ago {
                since_ms = Some(self.looked_ms);
            }
        } else {
            let is_open = |record: &Record| self.old.iter().any(|old| is_same(record, old.facts));
            let is_unread = |record: &&Record| !record.done && !is_same(record, facts) && !is_open(record);
            unread.extend(known.records.iter().filter(is_unread));
            // Its number is enough to know a file by, whatever its name is now.
            let beside = if unread.is_empty() { Vec::new() } else { siblings(Path::new(&*self.name), |_| true) };
            for sibling in beside {
                let Some(at) = unread.iter().position(|record| is_same(record, sibling.facts)) else { continue };
                let record = unread[at];
                if (world.is_target)(&sibling.path.to_string_lossy()) {
                    // Who reads it under its own name finds how far it was read.
                    unread.remove(at);
                    continue;
                }
                let Ok(mut earlier) = Earlier::open(&sibling, &record, world) else { continue };
                if earlier.fits(&record) {
                    unread.remove(at);
                    found.push(earlier);
                } else {
                    // It was cut before it lost the name. What it was may be found in a copy, and comes first.
                    (earlier.mark, earlier.head) = Default::default();
                    anew.push(earlier);
                }
            }
            since_ms = known.records.last().filter(|last| !is_same(last, facts)).map(|last| last.seen_ms);
            let fits_own = |record: &Record| file.is_none_or(|file| fits(file, facts, record).unwrap_or(true));
            if let Some(cut) = known.own().filter(|record| !fits_own(record)) {
                since_ms = Some(since_ms.map_or(cut.seen_ms, |since| since.min(cut.seen_ms)));
                unread.push(cut);
            }
        }
        if let Some(since_ms) = since_ms {
            let read = self.old.iter().map(|old| Record { mark: old.read, ..old.record(0, false) });
            let read: Vec<Record> = known.records.iter().copied().chain(read).collect();
            found.extend(self.rotated_since(world, since_ms, facts.id, &unread, &read));
        }
        found.append(&mut anew);
        found.truncate(OLD_MAX.saturating_sub(self.old.len()));
        found
    }

    /// The files that have rotated names, were written to since a time, and are not known. Those that are copies of what is
    /// wanted are read on from there, those that are copies of what was read are left out, and all others are read whole.
    fn rotated_since(
        &self,
        world: &World<'_>,
        since_ms: u64,
        live: FileId,
        wanted: &[Record],
        read: &[Record],
    ) -> Vec<Earlier> {
        let path = Path::new(&*self.name);
        let own_name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let since_ns = since_ms.saturating_sub(CLOCK_SLACK_MS).saturating_mul(1_000_000);
        let mut beside = siblings(path, |name| bases(name).iter().any(|base| base == own_name));
        beside.retain(|sibling| sibling.facts.modified_ns >= since_ns && sibling.facts.id != live);
        beside.retain(|sibling| !(world.is_target)(&sibling.path.to_string_lossy()));
        {
            let positions = world.positions.lock();
            beside.retain(|sibling| {
                !positions.of_file(sibling.facts.id).any(|(_, record)| is_same(record, sibling.facts))
            });
        }
        beside.sort_by_key(|sibling| sibling.facts.modified_ns);
        let mut wanted: Vec<Record> = wanted.to_vec();
        let mut found = Vec::new();
        for sibling in beside {
            let Ok(mut earlier) = Earlier::open(&sibling, &Record::default(), world) else { continue };
            let is_copy = |record: &Record| record.mark.offset > 0 && earlier.fits(record);
            if let Some(at) = wanted.iter().position(is_copy) {
                let record = wanted.remove(at);
                (earlier.mark, earlier.head, earlier.of) = (record.mark, record.head, Some(record.id));
                found.push(earlier);
            } else if !read.iter().any(is_copy) {
                found.push(earlier);
            }
        }
        found
    }

    /// The live file, or an old one, has another content. What was left of the one before is read in its copy.
    fn begin_anew(&mut self, world: &World<'_>, old: Option<usize>) {
        let taken = match old {
            Some(at) => Some(self.old.remove(at)),
            None => self.live.take(),
        };
        let Some(before) = taken else { return };
        self.counts.truncated += 1;
        let (life, facts) = (before.life, before.facts);
        // What is read up to, not what is safe: the copy goes on where the file ended, with the same number.
        let record = Record { mark: before.read, ..before.record(self.looked_ms, false) };
        let live = self.live.as_ref().map_or(facts.id, |live| live.facts.id);
        let mut read = world.positions.lock().records(&self.name).to_vec();
        read.extend(self.old.iter().map(|old| Record { mark: old.read, ..old.record(0, false) }));
        let copies = self.rotated_since(world, self.looked_ms, live, &[record], &read);
        let mut at = old.unwrap_or(self.old.len());
        let number = self.next_number();
        let mut before = Some(before);
        let mut file = None;
        {
            let mut positions = world.positions.lock();
            positions.let_go(&self.name, facts.id);
            positions.put(&self.name, record.without_number());
        }
        for copy in copies {
            let mut piece = match before.take_if(|_| copy.of == Some(record.id)) {
                Some(mut piece) => {
                    self.counts.recovered += 1;
                    file = Some(piece.replace_file(copy.file, copy.facts));
                    piece
                }
                None => Piece::new(self.next_number(), copy.file, copy.facts, copy.mark, copy.head),
            };
            if piece.prepare(world.options).is_err() {
                continue;
            }
            piece.is_unpacked = copy.is_unpacked;
            piece.life = Life::Old { grew_ms: world.now_ms, caught_up: false };
            let mut positions = world.positions.lock();
            positions.hold(&self.name, piece.facts.id);
            positions.put(&self.name, piece.record(world.now_ms, false));
            self.old.insert(at, piece);
            at += 1;
        }
        let Some(file) = file.or_else(|| before.map(Piece::into_file)) else { return };
        let mut anew = Piece::new(number, file, facts, Mark::default(), Digest::default());
        // Who writes at a place of his own leaves a hole before it.
        anew.skips_holes = true;
        anew.life = life;
        let mut positions = world.positions.lock();
        positions.hold(&self.name, facts.id);
        positions.put(&self.name, anew.record(world.now_ms, false));
        if old.is_some() {
            self.old.insert(at, anew);
        } else {
            self.live = Some(anew);
        }
        if let Some(live) = &self.live {
            positions.make_newest(&self.name, live.facts.id);
        }
    }
}

/// A file that had the name before, or a copy of what had it.
struct Earlier {
    file: File,
    facts: FileFacts,
    /// The file is what was compressed in the one that the facts are of.
    is_unpacked: bool,
    mark: Mark,
    head: Digest,
    /// Whose copy it is.
    of: Option<FileId>,
}

impl Earlier {
    fn open(sibling: &Sibling, record: &Record, world: &World<'_>) -> io::Result<Self> {
        let (file, facts, is_unpacked) = match Packing::of_name(&sibling.path) {
            None => (sibling.open()?, sibling.facts, false),
            Some(packing) => {
                let folder = world.positions.lock().folder();
                let file = unpack::unpacked(&sibling.path, packing, &folder)?;
                let size = file.metadata()?.len();
                (file, FileFacts { size, ..sibling.facts }, true)
            }
        };
        Ok(Earlier { file, facts, is_unpacked, mark: record.mark, head: record.head, of: None })
    }

    fn fits(&self, record: &Record) -> bool {
        fits(&self.file, self.facts, record).unwrap_or(false)
    }
}

/// What is known of a file that is to be opened.
struct Known {
    facts: FileFacts,
    /// Of the files that had the name, the newest last.
    records: Vec<Record>,
    /// Of the file, under names that lead elsewhere now.
    moved: Vec<Record>,
    /// Of files that had the name that the file may be a rotated copy of.
    copied: Vec<Record>,
    /// It is being read under a name that leads elsewhere now.
    held_elsewhere: bool,
}

impl Known {
    fn own(&self) -> Option<Record> {
        self.records.iter().find(|record| is_same(record, self.facts)).copied()
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Beginning {
    mark: Mark,
    head: Digest,
    /// It was read before, up to the mark.
    known: bool,
}

enum Place {
    At(Beginning),
    Skip(String),
}

/// Whether it is the same file, as far as the system says. Numbers are given again to others.
fn is_same(record: &Record, facts: FileFacts) -> bool {
    let is_of_age = record.birth_ns == facts.birth_ns || record.birth_ns == 0 || facts.birth_ns == 0;
    record.id == facts.id && is_of_age
}

/// Whether a file has the content that was read.
fn fits(file: &File, facts: FileFacts, record: &Record) -> io::Result<bool> {
    Ok(facts.size >= record.mark.offset && has_head(file, &record.head)? && record.mark.is_in(file)?)
}

#[cfg(test)]
mod tests;
