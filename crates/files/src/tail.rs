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
mod reader;
mod siblings;
mod unpack;

use std::fmt;
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
pub use self::reader::{Reader, Unpacked};
use self::siblings::{Sibling, bases, leads_to, siblings};
pub use self::unpack::{Packing, UNPACKING_MAX, Unpack, Unpacking};
use crate::handles::{Handle, open_plain};
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
/// How many places on the way to where a file was read are remembered when it is cut.
const TRAIL_MAX: usize = 2;
/// How often the files beside a name are listed while they get other names.
const LISTS_MAX: usize = 4;
/// How long, in milliseconds after it was written to last, a copy of a file is expected to be followed by the cut.
const COPY_WAIT_MS: u64 = 10_000;

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

/// Finds what is handed out in what was read, where that is something else than lines.
pub trait Split: fmt::Debug + Send + Sync {
    /// Adds what there is in `text[from..]`, which goes on where it was left off, and which is all that there is now if it
    /// is `at_end`. Where it goes on next: what has no end yet is asked for again with what follows it.
    fn split(&self, text: &[u8], from: usize, at_end: bool, encoding: Encoding, lines: &mut Vec<Line>) -> usize;

    /// Adds what is left, `text[from..]`, which gets no end.
    fn rest(&self, text: &[u8], from: usize, encoding: Encoding, lines: &mut Vec<Line>);
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
    /// What is handed out instead of lines.
    pub split: Option<Arc<dyn Split>>,
    /// How long a last line waits for its end, in milliseconds; without, it waits as long as its file has its name.
    pub unended_ms: Option<u64>,
    /// Reads a file only with a lock on it that others share, and not at all while somebody has it for himself.
    pub locks: bool,
    /// Lets the system forget what was read.
    pub forgets: bool,
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
            split: None,
            unended_ms: None,
            locks: false,
            forgets: false,
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
    labels: Arc<[String]>,
    live: Option<Piece>,
    /// Files that had the name, in order.
    old: Vec<Piece>,
    numbers: u32,
    /// When the name was seen to lead to the live file, or to nothing, in milliseconds since the Unix epoch.
    looked_ms: u64,
    /// There were more files that had the name before than are read at once.
    missed: Option<Missed>,
    /// Whether a file was open under this name since the tail was made.
    began: bool,
    /// There was no file of the name before the first one.
    was_missing: bool,
    counts: Counts,
}

impl Tail {
    /// Follows a name that is read with these labels.
    pub fn new(name: impl Into<Arc<str>>, labels: impl Into<Arc<[String]>>) -> Self {
        Tail {
            name: name.into(),
            labels: labels.into(),
            live: None,
            old: Vec::new(),
            numbers: 0,
            looked_ms: 0,
            missed: None,
            began: false,
            was_missing: false,
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

    /// The file of a chunk, while it is open.
    pub fn file(&self, piece: u32) -> Option<&File> {
        self.old.iter().chain(&self.live).find(|have| have.number == piece).map(Piece::file)
    }

    /// Whether all of the file of the name was read, and is safe.
    pub fn is_done(&self) -> bool {
        self.old.is_empty() && self.live.as_ref().is_some_and(Piece::is_done)
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
        if self.live.as_ref().is_some_and(Piece::may_have_been_cut) && self.read_unseen(world) {
            return Ok(Step::More);
        }
        let Some(live) = &mut self.live else { return Ok(Step::Missing) };
        let outcome = match live.read_if_changed(world)? {
            Outcome::Nothing if live.has_waited(world) => live.read(world, true)?,
            other => other,
        };
        Ok(match outcome {
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
                // What is on its way may become safe long after the file was looked at last.
                let seen_ms = if piece.life == Life::Live { piece.checked_ms.min(now_ms) } else { now_ms };
                positions.put(&name, piece.record(seen_ms, false));
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
                self.was_missing |= !self.began;
                if !self.began && self.looked_ms == 0 {
                    if self.old.len() >= OLD_MAX {
                        return Ok(Some(Step::Missing));
                    }
                    // What had the name before may have more.
                    let known = self.known(world, FileFacts::default());
                    let (earlier, more) = self.earlier(world, None, &known);
                    self.adopt(world, earlier);
                    if more {
                        return Ok(Some(Step::More));
                    }
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
        if let Some(at) = self.old.iter().position(|old| old.facts.id == facts.id && !old.is_unpacked) {
            // It lost the name and has it again.
            let mut live = self.old.remove(at);
            (live.life, live.facts, live.is_copy) = (Life::Live, facts, false);
            self.live = Some(live);
            world.positions.lock().make_newest(&self.name, facts.id);
            self.looked_ms = world.now_ms;
            return Ok(None);
        }
        if self.old.len() >= OLD_MAX {
            // The old ones first: their lines are the older ones, and handles are not without number.
            return Ok(Some(Step::Quiet));
        }
        let step = self.open(world)?;
        if !matches!(step, Some(Step::More)) {
            self.looked_ms = world.now_ms;
        }
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
            self.replaced(world, at);
            return Ok(Outcome::More);
        }
        // Clocks are set back.
        let grew_ms = grew_ms.min(world.now_ms);
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
            piece.life = Life::Old { grew_ms, caught_up };
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
                self.replaced(world, at);
                return Ok(Outcome::More);
            }
            _ => {}
        }
        Ok(outcome)
    }

    /// An old file has another content.
    fn replaced(&mut self, world: &World<'_>, at: usize) {
        if !self.old[at].is_copy {
            return self.begin_anew(world, Some(at));
        }
        // A copy that was written over is the copy of something else: whose it is finds it when that is cut.
        let copy = self.old.remove(at);
        world.positions.lock().let_go(&self.name, copy.facts.id);
    }

    /// Opens the file of the name. A step if it is not to be read now.
    fn open(&mut self, world: &World<'_>) -> io::Result<Option<Step>> {
        let handle = Handle::new()?;
        let file = match open_plain(Path::new(&*self.name)) {
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
        if known.is_copy_in_the_making(world, &file)? {
            return Ok(Some(Step::Waits));
        }
        let (earlier, more) = self.earlier(world, Some(&file), &known);
        if more {
            self.adopt(world, earlier);
            return Ok(Some(Step::More));
        }
        let place = match self.place(world, &file, facts, &known, &earlier)? {
            Place::At(place) => place,
            Place::Skip(why) => return Ok(Some(Step::Skipped(why))),
        };
        let mut live = Piece::new(self.next_number(), file, facts, place.mark, place.head, handle);
        live.prepare(world.options)?;
        live.checked_ms = world.now_ms;
        if known.own().is_some() && live.read.offset == 0 {
            // It is at its beginning again, or still: it may be cut before anything of it is read.
            live.begins_anew();
        }
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
        self.missed = None;
        Ok(None)
    }

    /// Reads files that had the name before.
    fn adopt(&mut self, world: &World<'_>, earlier: Vec<Earlier>) {
        for Earlier { file, facts, is_unpacked, is_copy, mark, head, .. } in earlier {
            let mut piece = Piece::new(self.next_number(), file, facts, mark, head, Handle::always());
            (piece.is_unpacked, piece.is_copy, piece.checked_ms) = (is_unpacked, is_copy, world.now_ms);
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
            positions.holders(facts.id).filter(|name| **name != self.name).map(Arc::clone).collect();
        // Of the name that a copy was made of.
        let folder = Path::new(&*self.name).parent();
        let file_name = Path::new(&*self.name).file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let mut copied = Vec::new();
        if others.is_empty() && facts.size > 0 {
            for base in bases(file_name) {
                let base = folder.map_or_else(|| base.clone().into(), |folder| folder.join(&base));
                let Some(base) = base.to_str() else { continue };
                let of_base = positions.records(base).iter();
                copied.extend(of_base.map(|record| Copied {
                    record: *record,
                    name: base.to_owned(),
                    is_read: positions.holders(record.id).any(|holder| **holder == *base),
                }));
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
        if known.copied.iter().any(|copied| copied.is_read && copied.begins_with(file, facts)) {
            // Nothing was cut: all of it is read there.
            let mark = Mark::read(file, facts.size)?.unwrap_or_default();
            return Ok(Place::At(Beginning { mark, head: read_head(file, mark.offset)?, ..Beginning::default() }));
        }
        let mut copied: Vec<&Record> = known.copied.iter().map(|copied| &copied.record).collect();
        copied.sort_by_key(|record| std::cmp::Reverse(record.mark.offset));
        for record in copied.iter().filter(|record| record.mark.offset > 0) {
            if !is_copy_of(file, facts, record)? {
                continue;
            }
            // It was read on after it was copied.
            let is_further = |further: &&&Record| {
                (further.birth_ns, further.head) == (record.birth_ns, record.head) && further.mark.offset >= facts.size
            };
            if record.done && copied.iter().any(|further| further.done && is_further(&further)) {
                let mark = Mark::read(file, facts.size)?.unwrap_or_default();
                return Ok(Place::At(Beginning { mark, head: read_head(file, mark.offset)?, known: true }));
            }
            return at(&Record { head: head_in(facts, record), ..**record });
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
            // What was not there when it was looked for first is new as a whole.
            Begin::End if !self.began && !self.was_missing => {
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

    /// The files that had the name before, were not read to their ends, and are not open: with where to go on. Whether
    /// there are more than may be read now.
    fn earlier(&mut self, world: &World<'_>, file: Option<&File>, known: &Known) -> (Vec<Earlier>, bool) {
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
            for _ in 0..LISTS_MAX {
                let beside = if unread.is_empty() { Vec::new() } else { siblings(Path::new(&*self.name), |_| true) };
                let mut moved = false;
                for sibling in beside {
                    let Some(at) = unread.iter().position(|record| is_same(record, sibling.facts)) else { continue };
                    if anew.iter().any(|earlier: &Earlier| earlier.facts.id == sibling.facts.id) {
                        continue;
                    }
                    let record = unread[at];
                    if (world.is_target)(&sibling.path.to_string_lossy()) {
                        // Who reads it under its own name finds how far it was read.
                        unread.remove(at);
                        continue;
                    }
                    let Ok(mut earlier) = Earlier::open(&sibling, &record, world) else {
                        moved |= !leads_to(&sibling.path.to_string_lossy(), sibling.facts.id);
                        continue;
                    };
                    if earlier.fits(&record) {
                        unread.remove(at);
                        found.push(earlier);
                    } else {
                        // It was cut before it lost the name. What it was may be found in a copy, and comes first.
                        (earlier.mark, earlier.head) = Default::default();
                        anew.push(earlier);
                    }
                }
                if !moved {
                    break;
                }
            }
            since_ms = known.records.last().filter(|last| !is_same(last, facts)).map(|last| last.seen_ms);
            let fits_own = |record: &Record| file.is_none_or(|file| fits(file, facts, record).unwrap_or(true));
            if let Some(cut) = known.own().filter(|record| !fits_own(record)) {
                since_ms = Some(since_ms.map_or(cut.seen_ms, |since| since.min(cut.seen_ms)));
                unread.push(cut);
            }
            // Everything begins with nothing: what nothing is safe of may have been cut as well, if it was changed since.
            let is_changed = |record: &Record| facts.modified_ns >= since_ns(record.seen_ms, CLOCK_SLACK_MS);
            let at_beginning = known.own().filter(|record| record.mark.offset == 0 && is_changed(record));
            if let Some(begun) = at_beginning {
                since_ms = Some(since_ms.map_or(begun.seen_ms, |since| since.min(begun.seen_ms)));
            }
        }
        if let Some(missed) = &self.missed {
            since_ms = Some(since_ms.map_or(missed.since_ms, |since| since.min(missed.since_ms)));
        }
        if let Some(since_ms) = since_ms {
            let read = self.old.iter().map(|old| Record { mark: old.read, ..old.record(0, false) });
            let read: Vec<Record> = known.records.iter().copied().chain(read).collect();
            let mut rotated = self.rotated_since(world, since_ms, file.map(|file| (file, facts)), &unread, &read, None);
            let is_known = |id| found.iter().chain(&anew).any(|earlier| earlier.facts.id == id);
            rotated.retain(|earlier| !is_known(earlier.facts.id));
            found.append(&mut rotated);
        }
        found.append(&mut anew);
        let room = OLD_MAX.saturating_sub(self.old.len());
        let more = found.len() > room;
        if more {
            found.truncate(room);
            let missed =
                self.missed.get_or_insert(Missed { since_ms: since_ms.unwrap_or(world.now_ms), read: Vec::new() });
            missed.read.extend(found.iter().map(|earlier| (earlier.facts.id, earlier.facts.birth_ns)));
        }
        (found, more)
    }

    /// The files that have rotated names, were written to since a time, and are not known. Those that are copies of what is
    /// wanted are read on from there, those that are copies of what was read are left out, and all others are read whole.
    /// `on_way` is from where to where what was read of what is wanted is not safe: its copy is read on even if it ends
    /// before that.
    fn rotated_since(
        &self,
        world: &World<'_>,
        since_ms: u64,
        live: Option<(&File, FileFacts)>,
        wanted: &[Record],
        read: &[Record],
        on_way: Option<(Mark, Mark)>,
    ) -> Vec<Earlier> {
        let sought = Sought { since_ms, wanted, read, on_way };
        for _ in 1..LISTS_MAX {
            if let Some(found) = self.rotated(world, live, &sought, true) {
                return found;
            }
        }
        self.rotated(world, live, &sought, false).unwrap_or_default()
    }

    /// As [`rotated_since`](Self::rotated_since); nothing if files got other names meanwhile and that matters.
    fn rotated(
        &self,
        world: &World<'_>,
        live: Option<(&File, FileFacts)>,
        sought: &Sought<'_>,
        matters: bool,
    ) -> Option<Vec<Earlier>> {
        let path = Path::new(&*self.name);
        let own_name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // What is known by its content may be older: it takes a while until what was copied is cut.
        let (since_ns, copied_ns) =
            (since_ns(sought.since_ms, CLOCK_SLACK_MS), since_ns(sought.since_ms, COPY_WAIT_MS));
        let mut beside = siblings(path, |name| bases(name).iter().any(|base| base == own_name));
        let is_live = |id| live.is_some_and(|(_, facts)| facts.id == id);
        beside.retain(|sibling| sibling.facts.modified_ns >= copied_ns && !is_live(sibling.facts.id));
        beside.retain(|sibling| !(world.is_target)(&sibling.path.to_string_lossy()));
        let was_missed = |facts: FileFacts| {
            self.missed.as_ref().is_some_and(|missed| missed.read.contains(&(facts.id, facts.birth_ns)))
        };
        // What is open and had the name itself is read there, whatever is in it now.
        let is_open = |id| self.old.iter().any(|old| old.facts.id == id && !old.is_copy);
        beside.retain(|sibling| !was_missed(sibling.facts) && !is_open(sibling.facts.id));
        beside.sort_by_key(|sibling| sibling.facts.modified_ns);
        let mut wanted: Vec<Record> = sought.wanted.to_vec();
        let mut found = Vec::new();
        for sibling in beside {
            let known: Vec<Record> = {
                let positions = world.positions.lock();
                let of_file = positions.of_file(sibling.facts.id).map(|(_, record)| *record);
                of_file.filter(|record| is_same(record, sibling.facts)).collect()
            };
            let Ok(mut earlier) = Earlier::open(&sibling, &Record::default(), world) else {
                if matters && !leads_to(&sibling.path.to_string_lossy(), sibling.facts.id) {
                    return None;
                }
                continue;
            };
            // What is known of it may be of a content that was written over.
            if known.iter().any(|record| earlier.fits(record)) {
                continue;
            }
            // Whoever copies the file of the name may be about to cut it. Then this is found again.
            if live.is_some_and(|(file, _)| earlier.is_beginning_of(file)) {
                continue;
            }
            let is_copy = |record: &Record| record.mark.offset > 0 && earlier.is_copy_of(record);
            if let Some(at) = wanted.iter().position(is_copy) {
                let record = wanted.remove(at);
                (earlier.mark, earlier.head) = (record.mark, head_in(earlier.facts, &record));
                earlier.of = Some(record.id);
                found.push(earlier);
                continue;
            }
            let size = earlier.facts.size;
            let read: Vec<&Record> = sought.read.iter().filter(|record| is_copy(record)).collect();
            let Some(furthest) = read.iter().max_by_key(|record| record.mark.offset) else {
                if sibling.facts.modified_ns >= since_ns {
                    found.push(earlier);
                }
                continue;
            };
            if let Some(at) = wanted.iter().position(|wanted| sought.is_on_way(wanted, &read, size)) {
                // It ends before what was read, and not all that it has is safe.
                let Ok(Some(mark)) = Mark::read(&earlier.file, size) else { continue };
                let record = Record { mark, ..wanted.remove(at) };
                (earlier.mark, earlier.head) = (mark, head_in(earlier.facts, &record));
                earlier.of = Some(record.id);
                found.push(earlier);
            } else if read.iter().all(|record| record.done && !sought.is_read(record, size)) {
                // It was not found when what it is a copy of was cut.
                (earlier.mark, earlier.head) = (furthest.mark, head_in(earlier.facts, furthest));
                found.push(earlier);
            }
        }
        Some(found)
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
        let since_ms = before.checked_ms;
        let live = self.live.as_ref().unwrap_or(&before);
        let live = Some((live.file(), live.facts));
        let mut read = world.positions.lock().records(&self.name).to_vec();
        read.extend(self.old.iter().map(|old| Record { mark: old.read, ..old.record(0, false) }));
        // It may have been read on after it was copied. What is safe is known in any case, also of a file that was read on
        // from there in one turn.
        read.extend(before.records_on_the_way());
        read.push(before.record(0, true));
        read.push(Record { done: true, ..record });
        let mut copies = self.rotated_since(world, since_ms, live, &[record], &read, before.unsafe_until());
        copies.retain(|copy| copy.facts.id != facts.id);
        let mut at = old.unwrap_or(self.old.len());
        at -= self.forget_overwritten(world, &copies, at);
        let number = self.next_number();
        let on_the_way: Vec<Record> = before.records_on_the_way().rev().take(TRAIL_MAX).rev().collect();
        let mut before = Some(before);
        let mut file = None;
        let mut pieces = Vec::new();
        for copy in copies {
            let mut piece = match before.take_if(|_| copy.of == Some(record.id)) {
                Some(mut piece) => {
                    self.counts.recovered += 1;
                    if copy.mark.offset < piece.read.offset {
                        piece.ends_at(copy.mark);
                    }
                    file = Some(piece.replace_file(copy.file, copy.facts));
                    piece
                }
                None => Piece::new(self.next_number(), copy.file, copy.facts, copy.mark, copy.head, Handle::always()),
            };
            if piece.prepare(world.options).is_err() {
                continue;
            }
            (piece.is_unpacked, piece.is_copy, piece.checked_ms) = (copy.is_unpacked, true, world.now_ms);
            piece.life = Life::Old { grew_ms: world.now_ms, caught_up: false };
            pieces.push(piece);
        }
        let file = match (file, before) {
            (Some(file), _) => (file, Handle::always()),
            (None, Some(before)) => before.into_file(),
            (None, None) => return,
        };
        let mut anew = Piece::new(number, file.0, facts, Mark::default(), Digest::default(), file.1);
        // Who writes at a place of his own leaves a hole before it.
        anew.skips_holes = true;
        anew.begins_anew();
        (anew.life, anew.checked_ms) = (life, world.now_ms);
        // All at once: whoever saves in between must not save that the copies are known by what was read, and not that
        // some of it is on its way still.
        let mut positions = world.positions.lock();
        positions.let_go(&self.name, facts.id);
        // Who reads the copy under its own name finds how far it was read.
        for earlier in on_the_way {
            positions.put(&self.name, Record { seen_ms: record.seen_ms, ..earlier }.without_number());
        }
        positions.put(&self.name, record.without_number());
        for piece in pieces {
            positions.hold(&self.name, piece.facts.id);
            positions.put(&self.name, piece.record(world.now_ms, false));
            self.old.insert(at, piece);
            at += 1;
        }
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

    /// The live file was cut, and is at its beginning still: what was written to it and cut again since may be in a copy.
    /// Whether there is one.
    fn read_unseen(&mut self, world: &World<'_>) -> bool {
        let Some(live) = &self.live else { return false };
        let mut read = world.positions.lock().records(&self.name).to_vec();
        read.extend(self.old.iter().map(|old| Record { mark: old.read, ..old.record(0, false) }));
        let of_live = Some((live.file(), live.facts));
        let copies = self.rotated_since(world, live.checked_ms, of_live, &[], &read, None);
        let found = !copies.is_empty();
        self.forget_overwritten(world, &copies, 0);
        self.adopt(world, copies);
        if let Some(live) = &mut self.live {
            live.looked_at(world.now_ms);
            world.positions.lock().make_newest(&self.name, live.facts.id);
        }
        self.counts.truncated += u64::from(found);
        found
    }

    /// Reads copies no more that these were written over; how many of them stood before a place.
    fn forget_overwritten(&mut self, world: &World<'_>, copies: &[Earlier], before: usize) -> usize {
        let is_overwritten = |old: &Piece| old.is_copy && copies.iter().any(|copy| copy.facts.id == old.facts.id);
        let count = self.old.iter().take(before).filter(|old| is_overwritten(old)).count();
        for old in self.old.extract_if(.., |old| is_overwritten(old)) {
            world.positions.lock().let_go(&self.name, old.facts.id);
        }
        count
    }
}

/// What is known of the files that had the name while they are read one after the other.
#[derive(Debug)]
struct Missed {
    /// Since when they were written to, in milliseconds since the Unix epoch.
    since_ms: u64,
    /// Those that were begun with: their numbers, and when they were made.
    read: Vec<(FileId, u64)>,
}

/// What is looked for among the files beside a name.
struct Sought<'a> {
    /// Since when they were written to, in milliseconds since the Unix epoch.
    since_ms: u64,
    /// What was not read to its end.
    wanted: &'a [Record],
    /// What was read, or is being read.
    read: &'a [Record],
    /// Up to where what is wanted is safe, and up to where it was read, if that is more.
    on_way: Option<(Mark, Mark)>,
}

impl Sought<'_> {
    /// Whether a copy of so many bytes that fits what was read is a copy of what is wanted, and has something that was read
    /// and is not safe.
    fn is_on_way(&self, wanted: &Record, read: &[&Record], size: u64) -> bool {
        let is_of = |record: &&Record| (record.birth_ns, record.head) == (wanted.birth_ns, wanted.head);
        self.on_way.is_some_and(|(safe, end)| {
            wanted.mark == end && (safe.offset..end.offset).contains(&size) && read.iter().any(is_of)
        })
    }

    /// Whether all of a copy of so many bytes was read that fits what is known of a file: it may have been read on after
    /// it was copied.
    fn is_read(&self, record: &Record, size: u64) -> bool {
        let is_of = |other: &&Record| (other.birth_ns, other.head) == (record.birth_ns, record.head);
        self.read.iter().filter(is_of).any(|other| !other.done || other.mark.offset >= size)
    }
}

/// A file that had the name before, or a copy of what had it.
struct Earlier {
    file: File,
    facts: FileFacts,
    /// The file is what was compressed in the one that the facts are of.
    is_unpacked: bool,
    /// It was found by its name and time, not by its number.
    is_copy: bool,
    mark: Mark,
    head: Digest,
    /// Whose copy it is.
    of: Option<FileId>,
}

impl Earlier {
    fn open(sibling: &Sibling, record: &Record, world: &World<'_>) -> io::Result<Self> {
        let (file, facts, is_unpacked) = match Packing::of_name(&sibling.path) {
            None => {
                let (file, facts) = sibling.open()?;
                (file, facts, false)
            }
            Some(packing) => {
                let folder = world.positions.lock().folder();
                let file = unpack::unpacked(&sibling.path, packing, &folder)?;
                let size = file.metadata()?.len();
                if !leads_to(&sibling.path.to_string_lossy(), sibling.facts.id) {
                    return Err(io::ErrorKind::NotFound.into());
                }
                (file, FileFacts { size, ..sibling.facts }, true)
            }
        };
        let is_copy = record.id == FileId::default();
        Ok(Earlier { file, facts, is_unpacked, is_copy, mark: record.mark, head: record.head, of: None })
    }

    /// Whether all of it is what a file begins with.
    fn is_beginning_of(&self, file: &File) -> bool {
        // It may have grown since it was looked at, and been copied then.
        let begins = || begins_with(file, FileFacts::of(&file.metadata()?), &self.file, self.facts);
        begins().unwrap_or(false)
    }

    fn fits(&self, record: &Record) -> bool {
        fits(&self.file, self.facts, record).unwrap_or(false)
    }

    fn is_copy_of(&self, record: &Record) -> bool {
        is_copy_of(&self.file, self.facts, record).unwrap_or(false)
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
    copied: Vec<Copied>,
    /// It is being read under a name that leads elsewhere now.
    held_elsewhere: bool,
}

/// What is known of a file that another may be a copy of.
struct Copied {
    record: Record,
    name: String,
    /// It is being read.
    is_read: bool,
}

impl Copied {
    /// Whether the file begins with all of the other.
    fn begins_with(&self, copy: &File, facts: FileFacts) -> bool {
        let begins = || -> io::Result<bool> {
            let file = open_plain(Path::new(&self.name))?;
            let of = FileFacts::of(&file.metadata()?);
            Ok(of.id == self.record.id && begins_with(&file, of, copy, facts)?)
        };
        begins().unwrap_or(false)
    }
}

impl Known {
    fn own(&self) -> Option<Record> {
        self.records.iter().find(|record| is_same(record, self.facts)).copied()
    }

    /// Whether it is the copy of a file that is not known to have been cut yet: where to go on in the copy will be known
    /// when it is.
    fn is_copy_in_the_making(&self, world: &World<'_>, file: &File) -> io::Result<bool> {
        let is_new = world.now_ms.saturating_sub(self.facts.modified_ns / 1_000_000) < COPY_WAIT_MS;
        if !is_new || self.own().is_some() {
            return Ok(false);
        }
        let mut waits = false;
        for copied in &self.copied {
            let is_copy = copied.record.mark.offset > 0 && is_copy_of(file, self.facts, &copied.record)?;
            if is_copy && !copied.is_read {
                return Ok(false);
            }
            waits |= copied.is_read && (is_copy || copied.begins_with(file, self.facts));
        }
        Ok(waits)
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

/// A time with some slack, in nanoseconds since the Unix epoch.
fn since_ns(since_ms: u64, slack_ms: u64) -> u64 {
    since_ms.saturating_sub(slack_ms).saturating_mul(1_000_000)
}

/// Whether a file has the content that was read.
fn fits(file: &File, facts: FileFacts, record: &Record) -> io::Result<bool> {
    Ok(facts.size >= record.mark.offset && has_head(file, &record.head)? && record.mark.is_in(file)?)
}

/// Whether a file is a copy of the content that was read, or of its beginning.
fn is_copy_of(file: &File, facts: FileFacts, record: &Record) -> io::Result<bool> {
    // What was written to after the other was gone may begin with the same line, and is no copy of it.
    let is_later =
        record.done && record.seen_ms > 0 && facts.modified_ns >= since_ns(record.seen_ms.saturating_add(1), 0);
    let is_in = 0 < record.mark.offset && record.mark.offset <= facts.size;
    if is_in && facts.size < u64::from(record.head.len) && !is_later {
        // It was made before all of the head was there. What stands before the place is all that can be compared.
        return record.mark.is_in(file);
    }
    fits(file, facts, record)
}

/// The head of what was read, as far as it is in a file that is a copy of it.
fn head_in(facts: FileFacts, record: &Record) -> Digest {
    // All that stands before the place is a head as well.
    if facts.size < u64::from(record.head.len) { record.mark.window } else { record.head }
}

/// Whether all of a second file is what the first begins with. Nothing is not.
fn begins_with(file: &File, facts: FileFacts, copy: &File, copy_facts: FileFacts) -> io::Result<bool> {
    let size = copy_facts.size;
    if size == 0 || size > facts.size {
        return Ok(false);
    }
    let Some(mark) = Mark::read(copy, size)? else { return Ok(false) };
    fits(file, facts, &Record { mark, head: read_head(copy, size)?, ..Record::default() })
}

#[cfg(test)]
mod tests;
