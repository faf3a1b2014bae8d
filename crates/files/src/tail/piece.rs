//! One file that is read.

use std::fs::File;
use std::io;

use bytes::{Bytes, BytesMut};

use super::encoding::{Encoding, MARK_BYTES_MAX};
use super::lines::Line;
use super::{Chunk, Options, World};
use crate::handles::Handle;
use crate::identity::{Digest, FileFacts, HEAD_BYTES_MAX, Mark, read_at};
use crate::positions::Record;

/// An unfinished line of so many bytes is not read again when its file grows: it is remembered up to where there is no
/// end of it.
const SCANNED_BYTES_MIN: usize = 64 << 10;
/// How many turns of a line without an end are read at once.
const SCANS_MAX: usize = 16;

/// What a file is to its tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// It has the name.
    Live,
    /// It had the name.
    Old {
        /// When it was seen to have grown last, in milliseconds since the Unix epoch.
        grew_ms: u64,
        /// Whether all of it was read since.
        caught_up: bool,
    },
    /// It had the name, and was read to its end for good.
    Ended,
}

/// What a turn of reading found.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Lines.
    Chunk(Chunk),
    /// A part of a long line.
    More,
    /// Nothing that has an end.
    Nothing,
    /// The content is another one than the one that was read.
    Replaced,
}

/// One file that is read.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) number: u32,
    file: File,
    pub(super) facts: FileFacts,
    /// Known from the beginning of the file.
    encoding: Option<Encoding>,
    /// How long the mark of the encoding at the beginning is.
    bom_bytes: u64,
    pub(super) head: Digest,
    /// Where the next line begins.
    pub(super) read: Mark,
    /// Places on the way to `read`, each at least twice as far as the one before: a copy that was made earlier is known by
    /// them.
    trail: Vec<Mark>,
    /// Up to here it is known where lines end: behind `read` while a long line has no end.
    scan: Mark,
    /// Up to here the content was looked at.
    seen: u64,
    /// When the content that was looked at had been changed last.
    seen_modified_ns: u64,
    /// When the content was looked at last and was still the one that is read, in milliseconds since the Unix epoch.
    pub(super) checked_ms: u64,
    /// When something new was seen or handed out last, in milliseconds since the Unix epoch.
    moved_ms: u64,
    /// Up to here all is safe.
    pub(super) settled: Mark,
    /// Zeros at the beginning are no text.
    pub(super) skips_holes: bool,
    /// Reading began anew because the file was cut.
    pub(super) was_cut: bool,
    pub(super) life: Life,
    /// The file is what was compressed in the one that it stands for.
    pub(super) is_unpacked: bool,
    /// The file never had the name: it was found beside it. It may be written over with the next copy.
    pub(super) is_copy: bool,
    /// How many chunks are on their way.
    on_way: u32,
    /// Something changed that is to be kept.
    pub(super) unsaved: bool,
    _handle: Handle,
}

impl Piece {
    /// A file that is read from a place on.
    pub(super) fn new(number: u32, file: File, facts: FileFacts, mark: Mark, head: Digest, handle: Handle) -> Self {
        Piece {
            number,
            file,
            facts,
            encoding: None,
            bom_bytes: 0,
            head,
            read: mark,
            trail: Vec::new(),
            scan: mark,
            seen: mark.offset,
            seen_modified_ns: 0,
            checked_ms: 0,
            moved_ms: 0,
            settled: mark,
            skips_holes: false,
            was_cut: false,
            life: Life::Live,
            is_unpacked: false,
            is_copy: false,
            on_way: 0,
            unsaved: false,
            _handle: handle,
        }
    }

    /// Finds out how a file is encoded that is not read from its beginning.
    pub(super) fn prepare(&mut self, options: &Options) -> io::Result<()> {
        if self.read.offset > 0 {
            let mut first = [0; MARK_BYTES_MAX];
            let read = read_at(&self.file, &mut first, 0)?;
            self.decide(&first[..read], options);
        }
        Ok(())
    }

    fn decide(&mut self, first: &[u8], options: &Options) {
        let (encoding, bom_bytes) = Encoding::of_mark(first).unwrap_or((options.encoding, 0));
        self.encoding = Some(encoding);
        self.bom_bytes = bom_bytes as u64;
    }

    /// How far it was read, to be kept.
    pub(super) fn record(&self, seen_ms: u64, done: bool) -> Record {
        let FileFacts { id, birth_ns, .. } = self.facts;
        Record { id, birth_ns, head: self.head, mark: self.settled, seen_ms, done }
    }

    /// What was read, as it was known on the way.
    pub(super) fn records_on_the_way(&self) -> impl DoubleEndedIterator<Item = Record> + ExactSizeIterator {
        let record = self.record(0, true);
        let read = self.trail.partition_point(|mark| mark.offset <= self.read.offset);
        self.trail[..read].iter().map(move |mark| Record { mark: *mark, ..record })
    }

    pub(super) fn settle(&mut self, mark: Mark) {
        self.on_way = self.on_way.saturating_sub(1);
        // What was read beyond the end of the copy that it goes on in is nowhere any more.
        self.settled = if mark.offset > self.read.offset { self.read } else { mark };
        self.unsaved = true;
    }

    pub(super) fn rewind(&mut self) {
        self.on_way = 0;
        if self.read == self.settled {
            return;
        }
        self.read = self.settled;
        self.scan = self.settled;
        self.seen = self.settled.offset;
        if self.life != Life::Live {
            self.life = Life::Old { grew_ms: 0, caught_up: false };
        }
    }

    /// Whether all of it was read, and is safe.
    pub(super) fn is_done(&self) -> bool {
        self.on_way == 0 && self.read == self.settled && self.read.offset == self.facts.size
    }

    /// Whether its last line has waited for its end for so long that it gets none.
    pub(super) fn has_waited(&self, world: &World<'_>) -> bool {
        let is_over = |max: u64| world.now_ms.saturating_sub(self.moved_ms.min(world.now_ms)) > max;
        self.facts.size > self.read.offset && world.options.unended_ms.is_some_and(is_over)
    }

    /// Whether nothing is to be done any more.
    pub(super) fn is_over(&self) -> bool {
        self.life == Life::Ended && self.on_way == 0
    }

    /// Goes on in another file of the same content. Gives the one before.
    pub(super) fn replace_file(&mut self, file: File, facts: FileFacts) -> File {
        self.facts = facts;
        self.scan = self.read;
        self.seen = self.read.offset;
        self.seen_modified_ns = 0;
        if u64::from(self.head.len) > facts.size {
            // It was copied before all of the head was there. All that stands before the place is one as well.
            self.head = self.read.window;
        }
        std::mem::replace(&mut self.file, file)
    }

    /// Up to where it was read, if not all of that is safe: with how far it is.
    pub(super) fn unsafe_until(&self) -> Option<(Mark, Mark)> {
        (self.read != self.settled).then_some((self.settled, self.read))
    }

    /// It goes on in a copy that ends before what was read.
    pub(super) fn ends_at(&mut self, mark: Mark) {
        self.read = mark;
        if self.settled.offset > mark.offset {
            self.settled = mark;
        }
    }

    /// Nothing of its content was read, and what was there before is gone.
    pub(super) fn begins_anew(&mut self) {
        self.was_cut = true;
        self.seen_modified_ns = self.facts.modified_ns;
    }

    pub(super) fn into_file(self) -> (File, Handle) {
        (self.file, self._handle)
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// It is known how it is now.
    pub(super) fn looked_at(&mut self, now_ms: u64) {
        self.seen_modified_ns = self.facts.modified_ns;
        self.checked_ms = now_ms;
        // Unless there is something to read.
        self.seen = self.seen.min(self.read.offset);
    }

    /// Whether it may have been written to and cut while nobody looked, so that nothing of that is left.
    pub(super) fn may_have_been_cut(&self) -> bool {
        // What was cut before is cut again, and what was written to and has nothing was cut.
        (self.was_cut || self.facts.size == 0)
            && self.read.offset == 0
            && self.seen_modified_ns > 0
            && self.facts.modified_ns != self.seen_modified_ns
    }

    /// Asks how large the file is now.
    pub(super) fn look(&mut self) -> io::Result<()> {
        let facts = FileFacts::of(&self.file.metadata()?);
        let FileFacts { id, birth_ns, .. } = if self.is_unpacked { self.facts } else { facts };
        self.facts = FileFacts { id, birth_ns, ..facts };
        Ok(())
    }

    /// When it was given its present name, about, in milliseconds since the Unix epoch.
    pub(super) fn changed_ms(&self) -> Option<u64> {
        let changed_ns = FileFacts::of(&self.file.metadata().ok()?).changed_ns;
        (changed_ns > 0).then_some(changed_ns / 1_000_000)
    }

    pub(super) fn has_grown(&self) -> bool {
        self.facts.size > self.seen
    }

    /// Reads a turn if the file is not as it was when it was looked at last.
    pub(super) fn read_if_changed(&mut self, world: &World<'_>) -> io::Result<Outcome> {
        if self.facts.size < self.read.offset {
            return Ok(Outcome::Replaced);
        }
        if self.facts.size < self.seen {
            self.scan = self.read;
            self.seen = self.read.offset;
        } else if self.facts.size == self.seen && self.facts.modified_ns == self.seen_modified_ns {
            self.checked_ms = world.now_ms;
            return Ok(Outcome::Nothing);
        }
        self.read(world, false)
    }

    /// Reads a turn of the bytes that there are; `unended` also a last line that has no end.
    pub(super) fn read(&mut self, world: &World<'_>, unended: bool) -> io::Result<Outcome> {
        if !world.options.locks {
            return self.read_unlocked(world, unended);
        }
        if !crate::handles::lock(&self.file)? {
            return Ok(Outcome::Nothing);
        }
        let outcome = self.read_unlocked(world, unended);
        crate::handles::unlock(&self.file);
        outcome
    }

    fn read_unlocked(&mut self, world: &World<'_>, unended: bool) -> io::Result<Outcome> {
        let World { options, buffers, .. } = world;
        if options.forgets {
            crate::handles::forget(&self.file);
        }
        let modified_ns = self.facts.modified_ns;
        let mut want = options.turn_bytes;
        let mut scans = 0;
        while scans < SCANS_MAX {
            let from = self.scan;
            let window = usize::from(from.window.len);
            let available = usize::try_from(self.facts.size.saturating_sub(from.offset)).unwrap_or(usize::MAX);
            // What is read from the beginning once more, because it was lost on its way, is known by its first bytes.
            let head = if from.offset == 0 { usize::from(self.head.len) } else { 0 };
            let asked = window + available.min(want.max(head));
            let mut buffer = buffers.take(asked);
            let end = read_at(&self.file, &mut buffer[..asked], from.offset - window as u64)?;
            let has_head = end >= head && (head == 0 || self.head.is_of(&buffer[..head]));
            if end < window || !from.window.is_of(&buffer[..window]) || !has_head {
                buffers.give_back(buffer);
                return Ok(Outcome::Replaced);
            }
            self.checked_ms = world.now_ms;
            let seen = from.offset + (end - window) as u64;
            if seen != self.seen {
                self.moved_ms = world.now_ms;
            }
            self.seen = seen;
            let at_end = end < asked || available <= want.max(head);
            if at_end {
                self.seen_modified_ns = modified_ns;
            }
            let Some((start, encoding)) = self.start(&buffer[..end], window, from, unended, options) else {
                buffers.give_back(buffer);
                return Ok(Outcome::Nothing);
            };
            if self.skips_holes && end > start {
                let zeros = buffer[start..end].iter().take_while(|byte| **byte == 0).count();
                self.skips_holes = start + zeros == end;
                if zeros > 0 {
                    self.read = mark_at(&buffer[..start + zeros], from, window);
                    self.scan = self.read;
                    scans += 1;
                    buffers.give_back(buffer);
                    if at_end && self.skips_holes {
                        return Ok(Outcome::Nothing);
                    }
                    continue;
                }
            }
            let ends = encoding.ends();
            let mut lines = Vec::new();
            let next = match &options.split {
                Some(split) => split.split(&buffer[..end], start, at_end, encoding, &mut lines),
                None => ends.split(&buffer, start, end, &mut lines),
            };
            let begun = from.offset - self.read.offset;
            let have = begun as usize + (end - start);
            if !lines.is_empty() {
                if begun == 0 {
                    return Ok(Outcome::Chunk(self.chunk(world, buffer, next, lines, encoding)));
                }
                // The line began in an earlier turn: once more, from its beginning. That is no scan: it has an end, and the
                // next one would not know where.
                want = begun as usize + (next - window);
            } else if have >= options.line_bytes_max {
                let cut = start + options.line_bytes_max / ends.unit * ends.unit;
                if begun == 0 {
                    lines.push(Line { at: start as u32, len: (cut - start) as u32 });
                    return Ok(Outcome::Chunk(self.chunk(world, buffer, cut, lines, encoding)));
                }
                want = options.line_bytes_max + MARK_BYTES_MAX + start - window;
            } else if at_end && unended && have > 0 {
                if begun == 0 {
                    match &options.split {
                        Some(split) => split.rest(&buffer[..end], start, encoding, &mut lines),
                        None => ends.put(&buffer, start, end, &mut lines),
                    }
                    return Ok(Outcome::Chunk(self.chunk(world, buffer, end, lines, encoding)));
                }
                want = have + start - window;
            } else if options.split.is_some() {
                // What there is may mean something else with what follows it: all of it is looked at again.
                buffers.give_back(buffer);
                if at_end {
                    return Ok(Outcome::Nothing);
                }
                want = want.saturating_mul(2);
                scans += 1;
                continue;
            } else {
                if end - start >= SCANNED_BYTES_MIN.min(options.turn_bytes / 2) {
                    let whole = start + (end - start) / ends.unit * ends.unit;
                    self.scan = mark_at(&buffer[..whole], from, window);
                }
                buffers.give_back(buffer);
                if at_end {
                    return Ok(Outcome::Nothing);
                }
                scans += 1;
                continue;
            }
            self.scan = self.read;
            buffers.give_back(buffer);
        }
        Ok(Outcome::More)
    }

    /// Where text begins in a buffer, and how it is encoded. Nothing while that cannot be told.
    fn start(
        &mut self,
        buffer: &[u8],
        window: usize,
        from: Mark,
        unended: bool,
        options: &Options,
    ) -> Option<(usize, Encoding)> {
        if from.offset == 0 {
            if buffer.len() < MARK_BYTES_MAX && !unended && Encoding::may_be_mark(buffer) {
                return None;
            }
            self.decide(buffer, options);
        }
        let skipped = self.bom_bytes.saturating_sub(from.offset) as usize;
        Some(((window + skipped).min(buffer.len()), self.encoding?))
    }

    /// Hands out lines; the next one begins at `next` in the buffer, which was read at `scan`.
    fn chunk(
        &mut self,
        world: &World<'_>,
        buffer: BytesMut,
        next: usize,
        lines: Vec<Line>,
        encoding: Encoding,
    ) -> Chunk {
        let from = self.scan;
        let end = mark_at(&buffer[..next], from, usize::from(from.window.len));
        // While the head is not whole, the buffer begins with it.
        let known = usize::from(self.head.len);
        if known < HEAD_BYTES_MAX && from.offset == u64::from(from.window.len) && next > known {
            self.head = Digest::of_first(&buffer[..next]);
        }
        if end.offset >= self.trail.last().map_or(1, |last| last.offset.saturating_mul(2)) {
            self.trail.reserve_exact(1);
            self.trail.push(end);
        }
        let bytes = end.offset - self.read.offset;
        self.read = end;
        self.scan = end;
        self.moved_ms = world.now_ms;
        self.on_way += 1;
        self.unsaved = true;
        let (text, lines) = if encoding.is_raw() {
            (world.buffers.fill(buffer), lines)
        } else {
            let decoded = decode(&buffer, &lines, encoding);
            world.buffers.give_back(buffer);
            decoded
        };
        // Old files have others after them.
        let more = self.seen < self.facts.size || self.life != Life::Live;
        Chunk { piece: self.number, text, lines, end, bytes, more }
    }
}

/// The place at the end of a buffer that was read at `from`, with `window` bytes before it.
fn mark_at(buffer: &[u8], from: Mark, window: usize) -> Mark {
    Mark { offset: from.offset + (buffer.len() - window) as u64, window: Digest::of_last(buffer) }
}

pub(super) fn decode(buffer: &[u8], lines: &[Line], encoding: Encoding) -> (Bytes, Vec<Line>) {
    let mut text = Vec::with_capacity(buffer.len());
    let decoded = lines.iter().map(|line| {
        let at = text.len();
        encoding.decode(line.of(buffer), &mut text);
        Line { at: at as u32, len: (text.len() - at) as u32 }
    });
    let lines = decoded.collect();
    (text.into(), lines)
}

/// How much is read at once to find the end of the last line.
const BACK_BYTES: usize = 64 << 10;

/// Where the last line begins that has no end, or the next one. 0 if there is no end at all.
pub(super) fn end_of_last_line(file: &File, size: u64, options: &Options) -> io::Result<u64> {
    let mut buffer = vec![0; BACK_BYTES];
    let read = read_at(file, &mut buffer[..MARK_BYTES_MAX], 0)?;
    let (encoding, _) = Encoding::of_mark(&buffer[..read]).unwrap_or((options.encoding, 0));
    let ends = encoding.ends();
    let mut end = size / ends.unit as u64 * ends.unit as u64;
    while end > 0 {
        let len = end.min(BACK_BYTES as u64) as usize;
        let start = end - len as u64;
        let read = read_at(file, &mut buffer[..len], start)?;
        let mut lines = Vec::new();
        let next = ends.split(&buffer, 0, read, &mut lines);
        if !lines.is_empty() {
            return Ok(start + next as u64);
        }
        end = start;
    }
    Ok(0)
}
