//! One file of the journal.
//!
//! The format is described in systemd's `JOURNAL_FILE_FORMAT`. A file is only ever read at offsets that were checked against
//! its length, with bounds on everything that it says of itself: it may be damaged, and it may be written while it is read.

use std::{
    fmt, fs,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use crate::cursor::Cursor;

/// Bytes that are read at a time.
const CHUNK_BYTES: u64 = 16 << 10;

/// Chunks that are kept of a file.
const CHUNKS_MAX: usize = 16;

/// Fields of an entry; journald itself takes 1,024.
const ITEMS_MAX: u64 = 4096;

/// The largest field that is read, decompressed.
const FIELD_BYTES_MAX: usize = 64 << 20;

/// All fields of one entry together; what is beyond is left out.
const ENTRY_BYTES_MAX: usize = 96 << 20;

/// The smallest header, that of the first systemd.
const HEADER_BYTES_MIN: u64 = 208;

/// The part of the header that is read.
const HEADER_BYTES: usize = 208;

const INCOMPATIBLE_XZ: u32 = 1;
const INCOMPATIBLE_LZ4: u32 = 2;
const INCOMPATIBLE_KEYED_HASH: u32 = 4;
const INCOMPATIBLE_ZSTD: u32 = 8;
const INCOMPATIBLE_COMPACT: u32 = 16;

const OBJECT_DATA: u8 = 1;
const OBJECT_ENTRY: u8 = 3;
const OBJECT_ENTRY_ARRAY: u8 = 6;

const OBJECT_XZ: u8 = 1;
const OBJECT_LZ4: u8 = 2;
const OBJECT_ZSTD: u8 = 4;

const ARCHIVED: u8 = 2;

/// Why a file cannot be read.
#[derive(Debug)]
pub enum FileError {
    /// The system says so.
    Io(io::Error),
    /// It is not a file of the journal, or one of a later systemd.
    Format(&'static str),
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Format(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for FileError {}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A place in the file does not hold what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damaged;

type Read1<T> = Result<T, Damaged>;

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    incompatible: u32,
    archived: bool,
    file_id: u128,
    sequence: u128,
    header_bytes: u64,
    entries: u64,
    first_array: u64,
    first_realtime_us: u64,
    last_realtime_us: u64,
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// Ids are sixteen bytes in the order in which their digits are written.
fn id(bytes: &[u8], at: usize) -> u128 {
    bytes.get(at..at + 16).and_then(|bytes| bytes.try_into().ok()).map_or(0, u128::from_be_bytes)
}

impl Header {
    fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self, FileError> {
        if &bytes[..8] != b"LPKSHHRH" {
            return Err(FileError::Format("not a journal file"));
        }
        let header = Self {
            incompatible: le32(bytes, 12),
            archived: bytes[16] == ARCHIVED,
            file_id: id(bytes, 24),
            sequence: id(bytes, 72),
            header_bytes: le64(bytes, 88),
            entries: le64(bytes, 152),
            first_array: le64(bytes, 176),
            first_realtime_us: le64(bytes, 184),
            last_realtime_us: le64(bytes, 192),
        };
        let known =
            INCOMPATIBLE_XZ | INCOMPATIBLE_LZ4 | INCOMPATIBLE_KEYED_HASH | INCOMPATIBLE_ZSTD | INCOMPATIBLE_COMPACT;
        if header.incompatible & !known != 0 {
            return Err(FileError::Format("journal file of a later format"));
        }
        if header.header_bytes < HEADER_BYTES_MIN || !header.header_bytes.is_multiple_of(8) {
            return Err(FileError::Format("journal file with a damaged header"));
        }
        Ok(header)
    }

    fn compact(&self) -> bool {
        self.incompatible & INCOMPATIBLE_COMPACT != 0
    }
}

/// Where an entry is, and what orders it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) offset: u64,
    pub(crate) cursor: Cursor,
}

/// The fields of an entry, in the order of the file: names and values in one buffer.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    bytes: Vec<u8>,
    /// Where each name begins, and where its value begins and ends.
    list: Vec<(usize, usize, usize)>,
    /// Fields that could not be read, or for which there was no room.
    damaged: usize,
}

impl Fields {
    fn clear(&mut self) {
        self.bytes.clear();
        self.list.clear();
        self.damaged = 0;
    }

    /// Fields that are missing because they could not be read.
    pub fn damaged(&self) -> usize {
        self.damaged
    }

    /// Names and values; a name may come more than once.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> + Clone {
        self.list.iter().filter_map(|&(name, value, end)| {
            // Names were checked when they were read.
            Some((std::str::from_utf8(&self.bytes[name..value - 1]).ok()?, &self.bytes[value..end]))
        })
    }

    /// The first value of a name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    fn push(&mut self, from: usize) -> bool {
        let equals = self.bytes[from..].iter().position(|&byte| byte == b'=');
        let named = equals.filter(|&at| at > 0 && self.bytes[from..from + at].is_ascii());
        match named {
            Some(at) => self.list.push((from, from + at + 1, self.bytes.len())),
            None => self.bytes.truncate(from),
        }
        named.is_some()
    }
}

/// The place in the chain of arrays at which the next entry stands.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    array: u64,
    /// Items in the array, and the next of them.
    items: u64,
    item: u64,
    /// Entries before this place.
    passed: u64,
}

/// An open file, and how far it was read.
#[derive(Debug)]
pub(crate) struct JournalFile {
    path: PathBuf,
    handle: fs::File,
    bytes: u64,
    header: Header,
    chunks: Vec<(u64, Vec<u8>)>,
    place: Place,
    scratch: Vec<u8>,
    /// Places that were passed over because they do not hold what they should.
    pub(crate) damaged: u64,
}

impl JournalFile {
    pub(crate) fn open(path: &Path) -> Result<Self, FileError> {
        let mut handle = fs::File::open(path)?;
        let (header, bytes) = read_header(&mut handle)?;
        let mut file = Self {
            path: path.to_owned(),
            handle,
            bytes,
            header,
            chunks: Vec::new(),
            place: Place::default(),
            scratch: Vec::new(),
            damaged: 0,
        };
        file.rewind();
        Ok(file)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A file is known by its id, whatever its name: rotation renames it.
    pub(crate) fn file_id(&self) -> u128 {
        self.header.file_id
    }

    pub(crate) fn renamed(&mut self, path: &Path) {
        path.clone_into(&mut self.path);
    }

    /// Whether nothing will be added.
    pub(crate) fn archived(&self) -> bool {
        self.header.archived
    }

    /// How many entries it has.
    pub(crate) fn entries(&self) -> u64 {
        self.header.entries
    }

    /// How many of its entries were read or passed over.
    pub(crate) fn passed(&self) -> u64 {
        self.place.passed
    }

    pub(crate) fn last_realtime_us(&self) -> u64 {
        self.header.last_realtime_us
    }

    /// Forgets what was read of the file's content.
    pub(crate) fn forget(&mut self) {
        self.chunks = Vec::new();
    }

    /// Looks whether something was added; what was read before the change is forgotten.
    pub(crate) fn refresh(&mut self) -> Result<bool, FileError> {
        let (header, bytes) = read_header(&mut self.handle)?;
        if header.file_id != self.header.file_id {
            return Err(FileError::Format("journal file was overwritten"));
        }
        let changed = header != self.header || bytes != self.bytes;
        if changed {
            self.chunks.clear();
        }
        (self.header, self.bytes) = (header, bytes);
        if self.place.array == 0 && self.place.passed == 0 {
            self.rewind();
        }
        Ok(changed)
    }

    /// Goes to the first entry.
    pub(crate) fn rewind(&mut self) {
        self.place = Place { array: self.header.first_array, items: 0, item: 0, passed: 0 };
        self.place.items = self.array_items(self.place.array).unwrap_or(0);
    }

    /// Goes to the first entry for which `wanted` holds; it must hold for all that follow that one.
    ///
    /// Arrays double in size, so that looking at the last entry of each, then halving within one, reads few places.
    pub(crate) fn seek(&mut self, wanted: impl Fn(&Cursor) -> bool) {
        self.rewind();
        loop {
            let left = self.header.entries.saturating_sub(self.place.passed);
            let used = self.place.items.min(left);
            if used == 0 {
                return;
            }
            let array = self.place;
            let holds = |file: &mut Self, item: u64| -> Option<bool> {
                let offset = file.item(array, item).ok().filter(|&offset| offset != 0)?;
                Some(wanted(&file.entry(offset).ok()?.cursor))
            };
            // Where the last place is damaged, the array is looked through.
            if holds(self, used - 1).unwrap_or(true) {
                let (mut low, mut high) = (0, used - 1);
                while low < high {
                    let middle = low + (high - low) / 2;
                    // A damaged entry is taken for one that is wanted: what is read too early is passed over later.
                    if holds(self, middle).unwrap_or(true) { high = middle } else { low = middle + 1 }
                }
                self.place.item = low;
                self.place.passed += low;
                return;
            }
            self.place.item = used;
            self.place.passed += used;
            if used < self.place.items || !self.next_array() {
                return;
            }
        }
    }

    /// Goes behind so many entries, or the last that there are.
    pub(crate) fn skip(&mut self, entries: u64) {
        self.rewind();
        let entries = entries.min(self.header.entries);
        loop {
            let within = self.place.items.min(entries - self.place.passed);
            self.place.item = within;
            self.place.passed += within;
            if self.place.passed >= entries || !self.next_array() {
                return;
            }
        }
    }

    /// The next entry that can be read.
    pub(crate) fn next(&mut self) -> Option<Found> {
        while let Some(offset) = self.next_offset() {
            match self.entry(offset) {
                Ok(found) => return Some(found),
                Err(Damaged) => self.damaged += 1,
            }
        }
        None
    }

    fn next_offset(&mut self) -> Option<u64> {
        loop {
            if self.place.passed >= self.header.entries {
                return None;
            }
            if self.place.item < self.place.items {
                let offset = self.item(self.place, self.place.item);
                self.place.item += 1;
                self.place.passed += 1;
                match offset {
                    Ok(offset) if offset != 0 => return Some(offset),
                    _ => self.damaged += 1,
                }
            } else if !self.next_array() {
                return None;
            }
        }
    }

    /// Goes to the next array; false if there is none (yet).
    fn next_array(&mut self) -> bool {
        // Nothing was there when the file was new.
        if self.place.array == 0 {
            self.place.array = self.header.first_array;
            self.place.items = self.array_items(self.place.array).unwrap_or(0);
            return self.place.items > 0;
        }
        let Ok(next) = self.u64_at(self.place.array + 16) else { return false };
        // Arrays are only ever added behind: what points back is damage, and would be a loop.
        if next <= self.place.array {
            return false;
        }
        match self.array_items(next) {
            Ok(items) if items > 0 => {
                self.place = Place { array: next, items, item: 0, passed: self.place.passed };
                true
            }
            _ => false,
        }
    }

    fn item_bytes(&self) -> u64 {
        if self.header.compact() { 4 } else { 8 }
    }

    fn array_items(&mut self, offset: u64) -> Read1<u64> {
        let (_, size) = self.object(offset, OBJECT_ENTRY_ARRAY, 24)?;
        Ok((size - 24) / self.item_bytes())
    }

    fn item(&mut self, place: Place, item: u64) -> Read1<u64> {
        let at = place.array + 24 + item * self.item_bytes();
        if self.header.compact() { self.u32_at(at).map(u64::from) } else { self.u64_at(at) }
    }

    /// Reads an object's header: its flags and its size, which lies within the file.
    fn object(&mut self, offset: u64, kind: u8, size_min: u64) -> Read1<(u8, u64)> {
        if offset < self.header.header_bytes || !offset.is_multiple_of(8) {
            return Err(Damaged);
        }
        let mut head = [0; 16];
        self.read(offset, &mut head)?;
        let size = le64(&head, 8);
        let end = offset.checked_add(size).ok_or(Damaged)?;
        if head[0] != kind || size < size_min || end > self.bytes {
            return Err(Damaged);
        }
        Ok((head[1], size))
    }

    fn entry(&mut self, offset: u64) -> Read1<Found> {
        self.object(offset, OBJECT_ENTRY, 64)?;
        let mut bytes = [0; 48];
        self.read(offset + 16, &mut bytes)?;
        Ok(Found {
            offset,
            cursor: Cursor {
                sequence: self.header.sequence,
                number: le64(&bytes, 0),
                realtime_us: le64(&bytes, 8),
                monotonic_us: le64(&bytes, 16),
                boot: id(&bytes, 24),
                hash: le64(&bytes, 40),
            },
        })
    }

    /// Reads the fields of an entry. A field that cannot be read is left out and counted.
    pub(crate) fn fields(&mut self, offset: u64, fields: &mut Fields) -> Read1<()> {
        fields.clear();
        let (_, size) = self.object(offset, OBJECT_ENTRY, 64)?;
        let item_bytes = if self.header.compact() { 4 } else { 16 };
        let items = (size - 64) / item_bytes;
        if items > ITEMS_MAX {
            return Err(Damaged);
        }
        for item in 0..items {
            let at = offset + 64 + item * item_bytes;
            let data = if self.header.compact() { self.u32_at(at).map(u64::from) } else { self.u64_at(at) };
            let from = fields.bytes.len();
            let read = data.and_then(|data| self.data(data, &mut fields.bytes));
            if read.is_err() {
                fields.bytes.truncate(from);
            }
            if read.is_err() || !fields.push(from) {
                fields.damaged += 1;
            }
        }
        Ok(())
    }

    /// Appends `NAME=value`.
    fn data(&mut self, offset: u64, out: &mut Vec<u8>) -> Read1<()> {
        let head = if self.header.compact() { 72 } else { 64 };
        let (flags, size) = self.object(offset, OBJECT_DATA, head)?;
        let stored = usize::try_from(size - head).map_err(|_| Damaged)?;
        let room = FIELD_BYTES_MAX.min(ENTRY_BYTES_MAX.saturating_sub(out.len()));
        if stored > room {
            return Err(Damaged);
        }
        let from = out.len();
        if flags & (OBJECT_XZ | OBJECT_LZ4 | OBJECT_ZSTD) == 0 {
            out.resize(from + stored, 0);
            return self.read(offset + head, &mut out[from..]);
        }
        let mut packed = std::mem::take(&mut self.scratch);
        packed.clear();
        packed.resize(stored, 0);
        let read = self.read(offset + head, &mut packed);
        let unpacked = read.and_then(|()| match flags & (OBJECT_XZ | OBJECT_LZ4 | OBJECT_ZSTD) {
            OBJECT_LZ4 => unpack_lz4(&packed, room, out),
            OBJECT_ZSTD => unpack_zstd(&packed, room, out),
            OBJECT_XZ => unpack_xz(&packed, room, out),
            _ => Err(Damaged),
        });
        self.scratch = packed;
        unpacked
    }

    fn u64_at(&mut self, offset: u64) -> Read1<u64> {
        let mut bytes = [0; 8];
        self.read(offset, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn u32_at(&mut self, offset: u64) -> Read1<u32> {
        let mut bytes = [0; 4];
        self.read(offset, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Reads bytes that must all be there.
    fn read(&mut self, offset: u64, out: &mut [u8]) -> Read1<()> {
        let end = offset.checked_add(out.len() as u64).ok_or(Damaged)?;
        if end > self.bytes {
            return Err(Damaged);
        }
        // What is large is read past the chunks, which it would push out.
        if out.len() as u64 >= CHUNK_BYTES {
            return read_at(&mut self.handle, offset, out);
        }
        let (mut offset, mut out) = (offset, out);
        while !out.is_empty() {
            let chunk = self.chunk(offset / CHUNK_BYTES)?;
            let within = (offset % CHUNK_BYTES) as usize;
            let length = out.len().min(chunk.len().saturating_sub(within));
            if length == 0 {
                return Err(Damaged);
            }
            out[..length].copy_from_slice(&chunk[within..within + length]);
            offset += length as u64;
            out = &mut out[length..];
        }
        Ok(())
    }

    /// A chunk of the file; the one that was used last stands first.
    fn chunk(&mut self, number: u64) -> Read1<&[u8]> {
        match self.chunks.iter().position(|(known, _)| *known == number) {
            Some(0) => {}
            Some(at) => self.chunks[..=at].rotate_right(1),
            None => {
                let at = number * CHUNK_BYTES;
                let length = CHUNK_BYTES.min(self.bytes.saturating_sub(at)) as usize;
                let mut bytes = if self.chunks.len() < CHUNKS_MAX {
                    Vec::with_capacity(length)
                } else {
                    self.chunks.pop().map(|(_, bytes)| bytes).unwrap_or_default()
                };
                bytes.clear();
                // There may be less: journald cuts off what it did not need of a file when it archives it.
                self.handle.seek(SeekFrom::Start(at)).map_err(|_| Damaged)?;
                (&mut self.handle).take(length as u64).read_to_end(&mut bytes).map_err(|_| Damaged)?;
                self.chunks.insert(0, (number, bytes));
            }
        }
        Ok(&self.chunks[0].1)
    }
}

fn read_header(handle: &mut fs::File) -> Result<(Header, u64), FileError> {
    if !handle.metadata()?.is_file() {
        return Err(FileError::Format("not a journal file"));
    }
    let mut bytes = [0; HEADER_BYTES];
    handle.seek(SeekFrom::Start(0))?;
    handle.read_exact(&mut bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => FileError::Format("journal file without a header"),
        _ => FileError::Io(error),
    })?;
    let header = Header::parse(&bytes)?;
    // The length is asked for after that: journald may make the file longer at any time, and what the header tells of is
    // within what the file was long then. Were it asked for first, entries of a longer file would be taken for damage.
    Ok((header, handle.metadata()?.len()))
}

/// A place that cannot be read is as good as damaged: the file may have been cut off meanwhile.
fn read_at(handle: &mut fs::File, offset: u64, out: &mut [u8]) -> Read1<()> {
    handle.seek(SeekFrom::Start(offset)).map_err(|_| Damaged)?;
    handle.read_exact(out).map_err(|_| Damaged)
}

/// Eight bytes of the length, then a block of LZ4.
fn unpack_lz4(packed: &[u8], room: usize, out: &mut Vec<u8>) -> Read1<()> {
    let (length, block) = packed.split_first_chunk::<8>().ok_or(Damaged)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| Damaged)?;
    // A byte of LZ4 stands for 255 at most: what claims more is not worth the memory.
    if length > room || length / 255 > block.len() {
        return Err(Damaged);
    }
    let from = out.len();
    out.resize(from + length, 0);
    match lz4_flex::block::decompress_into(block, &mut out[from..]) {
        Ok(unpacked) if unpacked == length => Ok(()),
        _ => Err(Damaged),
    }
}

/// A frame of Zstandard.
fn unpack_zstd(packed: &[u8], room: usize, out: &mut Vec<u8>) -> Read1<()> {
    let decoder = ruzstd::decoding::StreamingDecoder::new_with_max_window_size(packed, room.max(1 << 10) as u64);
    let mut limited = decoder.map_err(|_| Damaged)?.take(room as u64 + 1);
    let from = out.len();
    limited.read_to_end(out).map_err(|_| Damaged)?;
    if out.len() - from > room { Err(Damaged) } else { Ok(()) }
}

/// What a stream of xz begins with, without the flags that follow.
const XZ_MAGIC: &[u8] = b"\xfd7zXZ\0";

/// Magic, flags and their checksum.
const XZ_HEADER_BYTES: usize = 12;

/// A filter's number, that of LZMA2, and how long its properties are.
const XZ_LZMA2: [u8; 2] = [0x21, 1];

/// The smallest dictionary that there is.
const XZ_DICTIONARY_MIN: u64 = 4 << 10;

/// A stream of xz as systemd 219 and older write it: one block, compressed with LZMA2 and nothing else. The checksums, which
/// are of the headers only, are not looked at.
fn unpack_xz(packed: &[u8], room: usize, out: &mut Vec<u8>) -> Read1<()> {
    let after = packed.strip_prefix(XZ_MAGIC).ok_or(Damaged)?;
    let check_bytes = match after.get(..2) {
        Some([0, 0]) => 0,
        Some([0, 1]) => 4,
        Some([0, 4]) => 8,
        Some([0, 10]) => 32,
        _ => return Err(Damaged),
    };
    let block = packed.get(XZ_HEADER_BYTES..).ok_or(Damaged)?;
    let header_bytes =
        block.first().filter(|&&size| size > 0).map(|&size| (usize::from(size) + 1) * 4).ok_or(Damaged)?;
    let (header, data) = block.split_at_checked(header_bytes).ok_or(Damaged)?;
    let flags = header[1];
    let mut rest = &header[2..];
    let mut size = |is_there: u8| (flags & is_there != 0).then(|| xz_number(&mut rest)).transpose();
    let (_, unpacked) = (size(0x40)?, size(0x80)?);
    // More than one filter, or one that is not known here.
    if flags & 0x3f != 0 || !rest.starts_with(&XZ_LZMA2) {
        return Err(Damaged);
    }
    let exponent = *rest.get(2).filter(|&&exponent| exponent <= 40).ok_or(Damaged)?;
    // Nothing can be further back than what there is.
    let most = unpacked.unwrap_or(u64::MAX).min(room as u64);
    if unpacked.is_some_and(|unpacked| unpacked > most) {
        return Err(Damaged);
    }
    let dictionary = (u64::from(2 | (exponent & 1)) << (exponent / 2 + 11)).min(most.max(XZ_DICTIONARY_MIN));
    let dictionary = u32::try_from(dictionary).map_err(|_| Damaged)?;
    let mut decoder = lzma_rust2::Lzma2Reader::new(data, dictionary, None);
    let from = out.len();
    (&mut decoder).take(room as u64 + 1).read_to_end(out).map_err(|_| Damaged)?;
    let length = out.len() - from;
    if length > room || unpacked.is_some_and(|unpacked| unpacked != length as u64) {
        return Err(Damaged);
    }
    // The index of the stream follows, not another block.
    let left = decoder.inner().len();
    let index = (data.len() - left).next_multiple_of(4) + check_bytes;
    if data.get(index) == Some(&0) { Ok(()) } else { Err(Damaged) }
}

/// A number of xz: seven bits a byte, the lowest first.
fn xz_number(bytes: &mut &[u8]) -> Read1<u64> {
    let mut number = 0;
    for shift in (0..63).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(Damaged)?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(Damaged)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    /// Writes a file of one entry whose data objects have the given payloads.
    fn file(incompatible: u32, data: &[(u8, Vec<u8>)]) -> tempfile::NamedTempFile {
        let mut out = vec![0_u8; HEADER_BYTES];
        let mut places = Vec::new();
        let object = |out: &mut Vec<u8>, kind: u8, flags: u8, body: &[u8]| {
            out.resize(out.len().next_multiple_of(8), 0);
            let at = out.len() as u64;
            out.extend([kind, flags, 0, 0, 0, 0, 0, 0]);
            out.extend((16 + body.len() as u64).to_le_bytes());
            out.extend(body);
            at
        };
        for (flags, payload) in data {
            places.push(object(&mut out, OBJECT_DATA, *flags, &[&[0; 48][..], payload].concat()));
        }
        let mut entry = vec![0; 48];
        for place in places {
            entry.extend(place.to_le_bytes());
            entry.extend([0; 8]);
        }
        let entry = object(&mut out, OBJECT_ENTRY, 0, &entry);
        let array = object(&mut out, OBJECT_ENTRY_ARRAY, 0, &[&[0; 8][..], &entry.to_le_bytes(), &[0; 8]].concat());
        out[..8].copy_from_slice(b"LPKSHHRH");
        out[12..16].copy_from_slice(&incompatible.to_le_bytes());
        out[88..96].copy_from_slice(&(HEADER_BYTES as u64).to_le_bytes());
        out[152..160].copy_from_slice(&1_u64.to_le_bytes());
        out[176..184].copy_from_slice(&array.to_le_bytes());
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&out).unwrap();
        file
    }

    fn read(incompatible: u32, data: &[(u8, Vec<u8>)]) -> (Vec<(String, Vec<u8>)>, usize) {
        let file = file(incompatible, data);
        let mut file = JournalFile::open(file.path()).unwrap();
        let found = file.next().unwrap();
        let mut fields = Fields::default();
        file.fields(found.offset, &mut fields).unwrap();
        assert!(file.next().is_none());
        (fields.iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect(), fields.damaged())
    }

    fn lz4(length: u64, text: &[u8]) -> (u8, Vec<u8>) {
        (OBJECT_LZ4, [&length.to_le_bytes()[..], &lz4_flex::block::compress(text)].concat())
    }

    #[test]
    fn fields_compressed_with_lz4_are_read() {
        let long = [b"MESSAGE=", &b"again and ".repeat(500)[..]].concat();
        let data = [(0, b"A=1".to_vec()), lz4(long.len() as u64, &long)];
        let (fields, damaged) = read(INCOMPATIBLE_LZ4, &data);
        assert_eq!(damaged, 0);
        assert_eq!(fields, [("A".to_owned(), b"1".to_vec()), ("MESSAGE".to_owned(), long[8..].to_vec())]);
    }

    #[test]
    fn what_is_no_field_is_left_out_and_counted() {
        let data = [
            (0, b"no equals sign".to_vec()),
            (0, b"=no name".to_vec()),
            lz4(1 << 40, b"A=bomb"),
            lz4(7, b"A=short"),
            lz4(9, b"A=short"),
            (OBJECT_ZSTD, b"A=not zstd".to_vec()),
            (OBJECT_XZ, b"A=xz".to_vec()),
            (0, b"B=".to_vec()),
        ];
        let (fields, damaged) = read(INCOMPATIBLE_LZ4 | INCOMPATIBLE_ZSTD, &data);
        let wanted = [("A".to_owned(), b"short".to_vec()), ("B".to_owned(), Vec::new())];
        assert_eq!((fields, damaged), (wanted.to_vec(), 6));
    }

    /// A stream of xz whose block has these flags, sizes, filters and data.
    fn xz(flags: u8, header: &[u8], data: &[u8]) -> (u8, Vec<u8>) {
        let size = (2 + header.len() + 4).div_ceil(4);
        let mut out = [XZ_MAGIC, &[0; 6], &[(size - 1) as u8, flags], header].concat();
        out.resize(XZ_HEADER_BYTES + size * 4, 0);
        out.extend(data);
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend([0; 8]);
        (OBJECT_XZ, out)
    }

    /// A chunk of LZMA2 that is not compressed, and the end.
    const CHUNK: &[u8] = b"\x01\0\x04A=far\0";

    #[test]
    fn fields_compressed_with_xz_are_read() {
        let cases: [(u8, &[u8], &[u8], bool); 11] = [
            (0, &[0x21, 1, 16], CHUNK, true),
            (0xc0, &[7, 5, 0x21, 1, 16], CHUNK, true),
            (0x80, &[5, 0x21, 1, 40], CHUNK, true),
            // Another size, one that is too large, one that does not end, and none.
            (0x80, &[6, 0x21, 1, 16], CHUNK, false),
            (0x80, &[0xff, 0xff, 0xff, 0xff, 0x7f, 0x21, 1, 16], CHUNK, false),
            (0x80, &[0xff; 12], CHUNK, false),
            (0x80, &[], CHUNK, false),
            // More filters, another one, and no such dictionary.
            (1, &[0x21, 1, 16], CHUNK, false),
            (0, &[0x03, 1, 16], CHUNK, false),
            (0, &[0x21, 1, 41], CHUNK, false),
            // What follows is not the index.
            (0, &[0x21, 1, 16], b"\x01\0\x04A=far\0\0\0\0\x02", false),
        ];
        for (flags, header, data, is_good) in cases {
            let (fields, damaged) = read(INCOMPATIBLE_XZ, &[xz(flags, header, data)]);
            let wanted = if is_good { vec![("A".to_owned(), b"far".to_vec())] } else { Vec::new() };
            assert_eq!((fields, damaged), (wanted, usize::from(!is_good)), "{flags} {header:?} {data:?}");
        }
        let whole = xz(0, &[0x21, 1, 16], CHUNK).1;
        for end in 0..whole.len() - 8 {
            let (fields, damaged) = read(INCOMPATIBLE_XZ, &[(OBJECT_XZ, whole[..end].to_vec())]);
            assert_eq!((fields.len(), damaged), (0, 1), "{end} of {}", whole.len());
        }
    }

    #[test]
    fn later_formats_are_refused_with_their_reason() {
        let error = |flags| JournalFile::open(file(flags, &[]).path()).unwrap_err().to_string();
        assert_eq!(error(1 << 9), "journal file of a later format");
        assert_eq!(JournalFile::open(Path::new("/dev/null")).unwrap_err().to_string(), "not a journal file");
    }

    proptest! {
        #[test]
        fn what_is_no_xz_is_refused(
            header in proptest::collection::vec(any::<u8>(), 0..20),
            data in proptest::collection::vec(any::<u8>(), 0..200),
            flags in any::<u8>(),
            room in 0_usize..2000,
        ) {
            let mut out = b"before".to_vec();
            let whole = [b"\x21\x01\x10", &header[..]].concat();
            for (_, packed) in [xz(flags, &header, &data), xz(0, &whole, &data), xz(0, &[0x21, 1, 16], &data)] {
                if unpack_xz(&packed, room, &mut out).is_ok() {
                    prop_assert!(out.len() <= 6 + room);
                }
                prop_assert!(out.starts_with(b"before"));
                out.truncate(6);
            }
        }
    }

    #[test]
    fn a_file_that_is_cut_off_behind_its_last_object_loses_nothing() {
        let file = file(0, &[(0, b"A=1".to_vec())]);
        let bytes = fs::read(file.path()).unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        let mut journal = JournalFile::open(file.path()).unwrap();
        journal.forget();
        // As journald does when it archives a file, after it was looked at.
        file.as_file().set_len(bytes.len() as u64).unwrap();
        let found = journal.next().unwrap();
        let mut fields = Fields::default();
        journal.fields(found.offset, &mut fields).unwrap();
        assert_eq!((fields.get("A"), fields.damaged(), journal.damaged), (Some(&b"1"[..]), 0, 0));
    }

    #[test]
    fn an_array_that_points_back_ends_the_file() {
        let file = file(0, &[(0, b"A=1".to_vec())]);
        let mut bytes = fs::read(file.path()).unwrap();
        let array = le64(&bytes, 176) as usize;
        bytes[152..160].copy_from_slice(&u64::MAX.to_le_bytes());
        bytes[array + 16..array + 24].copy_from_slice(&(array as u64).to_le_bytes());
        fs::write(file.path(), bytes).unwrap();
        let mut file = JournalFile::open(file.path()).unwrap();
        assert!(file.next().is_some());
        assert!(file.next().is_none() && file.next().is_none());
        assert_eq!(file.damaged, 1);
    }
}
