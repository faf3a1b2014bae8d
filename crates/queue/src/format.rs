//! The files of a queue.
//!
//! All numbers are little endian, all checksums CRC-32C, all offsets count from the start of their file. Version 1.
//! A queue's directory holds:
//!
//! | file | holds |
//! |---|---|
//! | `lock` | nothing; it is locked while the queue is open |
//! | `NNNNNNNN.seg` | a segment: its number in at least eight decimal digits, rising, never used again |
//! | `<reader>.cur` | the cursor of a reader |
//!
//! # Segment
//!
//! A header of 64 bytes, records one after the other, and, once it was closed, a footer of 128 bytes.
//! A segment that is found without a footer was not closed: its tail is cut after the last record that is whole, and
//! the footer is added. A segment is never appended to after the process that created it has ended.
//!
//! | at | bytes | segment header |
//! |---|---|---|
//! | 0 | 8 | magic `CORTNSEG` |
//! | 8 | 2 | version, 1 |
//! | 10 | 2 | length of this header, 64 |
//! | 12 | 4 | zero |
//! | 16 | 8 | number of the segment |
//! | 24 | 8 | creation time, milliseconds since 1970, signed |
//! | 32 | 28 | zero |
//! | 60 | 4 | checksum of the 60 bytes before |
//!
//! Nothing is decided by the segment header but whether this version of the program can read what follows; a damaged
//! one is passed over.
//!
//! | at | bytes | record header |
//! |---|---|---|
//! | 0 | 4 | magic `C5 52 45 43` |
//! | 4 | 2 | length of this header with the tenant, 72 to 1096 |
//! | 6 | 1 | encoding, as the sink numbers it |
//! | 7 | 1 | flags: 1 a tenant follows (it may be empty), 2 this is a gap |
//! | 8 | 4 | length of the body |
//! | 12 | 4 | length of the body before compression |
//! | 16 | 2 | partition |
//! | 18 | 2 | number of partitions, 1 to 1024 |
//! | 20 | 16 | counts: samples, histograms, exemplars, metadata, 4 bytes each |
//! | 36 | 4 | zero |
//! | 40 | 8 | lowest timestamp, milliseconds since 1970, signed |
//! | 48 | 8 | highest timestamp, the same |
//! | 56 | 8 | creation time, the same |
//! | 64 | 4 | checksum of the body |
//! | 68 | 4 | checksum of: segment number (8 bytes), offset of this header (8 bytes), the 68 bytes before, the tenant |
//! | 72 | | tenant, UTF-8; then the body |
//!
//! Because a header's checksum covers where it stands, bytes that only look like a record (one record within the body
//! of another, remains of an older file) are never taken for one when the reader looks for the next header.
//! A gap stands for records that were given up before they reached the disk; its body is not read, has no checksum
//! and may be a hole in the file.
//!
//! | at | bytes | footer |
//! |---|---|---|
//! | 0 | 8 | magic `CORTNEND` |
//! | 8 | 8 | number of the segment |
//! | 16 | 8 | offset of this footer: where the records end |
//! | 24 | 48 | totals, 8 bytes each: records, bytes of bodies, samples, histograms, exemplars, metadata |
//! | 72 | 16 | lowest and highest timestamp |
//! | 88 | 16 | lowest and highest creation time |
//! | 104 | 20 | zero |
//! | 124 | 4 | checksum of the 124 bytes before |
//!
//! # Cursor
//!
//! A block of 4096 bytes with the reader's name, then two slots of 16384 bytes, written in turn; the whole slot with
//! the higher sequence number counts. All space is taken when the file is made, so that a full disk does not stop the
//! cursor.
//!
//! | at | bytes | name block |
//! |---|---|---|
//! | 0 | 8 | magic `CORTNCUR` |
//! | 8 | 2 | version, 1 |
//! | 10 | 2 | length of the name |
//! | 12 | | name, UTF-8, at most 4000 bytes of it |
//! | | 4 | checksum of all before |
//!
//! | at | bytes | slot |
//! |---|---|---|
//! | 0 | 4 | magic `CSLT` |
//! | 4 | 4 | length of the slot with its checksum, 100 + 12 n |
//! | 8 | 8 | sequence number |
//! | 16 | 2 | n: number of partitions of the records that were read last, or 0 |
//! | 18 | 6 | 1 + segment of the position where reading ends for good, or 0 where it does not |
//! | 24 | 12 | position where reading resumes: segment (8 bytes), offset (4 bytes) |
//! | 36 | 4 | offset of the position where reading ends |
//! | 40 | 48 | totals of what stands in that segment before that position, as in the footer |
//! | 88 | 8 | highest timestamp that was delivered, or -2^63 |
//! | 96 | 12 n | for each partition the position before which it is settled; smaller ones than where reading resumes mean nothing |
//! | | 4 | checksum of all before |

use std::sync::Arc;

use bytes::Bytes;

use crate::types::{APPEND_BYTES_MAX, Counts, PARTITIONS_MAX, Record, TENANT_BYTES_MAX, Totals};

pub(crate) const SEGMENT_HEADER_LEN: u32 = 64;
pub(crate) const RECORD_HEADER_LEN: usize = 72;
pub(crate) const FOOTER_LEN: usize = 128;
pub(crate) const CURSOR_NAME_LEN: usize = 4096;
pub(crate) const CURSOR_SLOT_LEN: usize = 16384;
pub(crate) const CURSOR_FILE_LEN: usize = CURSOR_NAME_LEN + 2 * CURSOR_SLOT_LEN;
/// As much of a reader's name as its file keeps.
pub(crate) const CURSOR_NAME_BYTES_MAX: usize = 4000;

const VERSION: u16 = 1;
const SEGMENT_MAGIC: &[u8; 8] = b"CORTNSEG";
const FOOTER_MAGIC: &[u8; 8] = b"CORTNEND";
const CURSOR_MAGIC: &[u8; 8] = b"CORTNCUR";
const SLOT_MAGIC: &[u8; 4] = b"CSLT";
const RECORD_MAGIC: [u8; 4] = [0xC5, b'R', b'E', b'C'];
const FLAG_TENANT: u8 = 1;
const FLAG_GAP: u8 = 2;
const SLOT_FIXED_LEN: usize = 100;

/// A place in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) segment: u64,
    pub(crate) offset: u32,
}

impl Position {
    /// The start of a segment; compares below its first record.
    pub(crate) const fn start_of(segment: u64) -> Self {
        Position { segment, offset: 0 }
    }
}

/// What a footer says about the records of its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) totals: Totals,
    pub(crate) lowest_ms: i64,
    pub(crate) highest_ms: i64,
    pub(crate) created_lowest_ms: i64,
    pub(crate) created_highest_ms: i64,
}

impl Default for Summary {
    fn default() -> Self {
        Summary {
            totals: Totals::default(),
            lowest_ms: i64::MAX,
            highest_ms: i64::MIN,
            created_lowest_ms: i64::MAX,
            created_highest_ms: i64::MIN,
        }
    }
}

impl Summary {
    pub(crate) fn record(&mut self, record: &Record) {
        self.totals.record(&record.counts, record.body.len());
        self.lowest_ms = self.lowest_ms.min(record.lowest_ms);
        self.highest_ms = self.highest_ms.max(record.highest_ms);
        self.created_lowest_ms = self.created_lowest_ms.min(record.created_ms);
        self.created_highest_ms = self.created_highest_ms.max(record.created_ms);
    }
}

/// Reads numbers off the front of a slice whose length was checked before.
struct Cut<'a>(&'a [u8]);

impl Cut<'_> {
    fn array<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk::<N>() {
            Some((head, rest)) => {
                self.0 = rest;
                *head
            }
            None => [0; N],
        }
    }

    fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.array())
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    fn i64(&mut self) -> i64 {
        i64::from_le_bytes(self.array())
    }

    fn totals(&mut self) -> Totals {
        Totals {
            records: self.u64(),
            bytes: self.u64(),
            samples: self.u64(),
            histograms: self.u64(),
            exemplars: self.u64(),
            metadata: self.u64(),
        }
    }

    fn position(&mut self) -> Position {
        Position { segment: self.u64(), offset: self.u32() }
    }
}

fn put_totals(out: &mut Vec<u8>, totals: &Totals) {
    for value in [totals.records, totals.bytes, totals.samples, totals.histograms, totals.exemplars, totals.metadata] {
        out.extend_from_slice(&value.to_le_bytes());
    }
}

fn put_position(out: &mut Vec<u8>, position: Position) {
    out.extend_from_slice(&position.segment.to_le_bytes());
    out.extend_from_slice(&position.offset.to_le_bytes());
}

/// Adds the checksum of everything in `out` from `from` on.
fn put_checksum(out: &mut Vec<u8>, from: usize) {
    let checksum = crc32c::crc32c(&out[from..]);
    out.extend_from_slice(&checksum.to_le_bytes());
}

/// The content of `bytes` without the checksum that it ends in, if that is right.
fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (content, checksum) = bytes.split_last_chunk::<4>()?;
    (crc32c::crc32c(content) == u32::from_le_bytes(*checksum)).then_some(content)
}

pub(crate) fn encode_segment_header(segment: u64, created_ms: i64) -> Vec<u8> {
    let mut out = Vec::with_capacity(SEGMENT_HEADER_LEN as usize);
    out.extend_from_slice(SEGMENT_MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&(SEGMENT_HEADER_LEN as u16).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&segment.to_le_bytes());
    out.extend_from_slice(&created_ms.to_le_bytes());
    out.resize(SEGMENT_HEADER_LEN as usize - 4, 0);
    put_checksum(&mut out, 0);
    out
}

/// Whether a whole segment header says that another version wrote what follows.
pub(crate) fn is_foreign_segment(bytes: &[u8]) -> bool {
    let Some(content) = bytes.get(..SEGMENT_HEADER_LEN as usize).and_then(checked) else { return false };
    let mut cut = Cut(content);
    cut.array::<8>() == *SEGMENT_MAGIC && cut.u16() != VERSION
}

pub(crate) fn encode_footer(segment: u64, records_end: u32, summary: &Summary) -> Vec<u8> {
    let mut out = Vec::with_capacity(FOOTER_LEN);
    out.extend_from_slice(FOOTER_MAGIC);
    out.extend_from_slice(&segment.to_le_bytes());
    out.extend_from_slice(&u64::from(records_end).to_le_bytes());
    put_totals(&mut out, &summary.totals);
    for value in [summary.lowest_ms, summary.highest_ms, summary.created_lowest_ms, summary.created_highest_ms] {
        out.extend_from_slice(&value.to_le_bytes());
    }
    out.resize(FOOTER_LEN - 4, 0);
    put_checksum(&mut out, 0);
    out
}

/// The end of the records and their summary, from the last [`FOOTER_LEN`] bytes of a file of `file_len` bytes.
pub(crate) fn decode_footer(bytes: &[u8], segment: u64, file_len: u64) -> Option<(u32, Summary)> {
    let content = checked(bytes)?;
    if bytes.len() != FOOTER_LEN {
        return None;
    }
    let mut cut = Cut(content);
    if cut.array::<8>() != *FOOTER_MAGIC || cut.u64() != segment {
        return None;
    }
    let records_end = cut.u64();
    if records_end < u64::from(SEGMENT_HEADER_LEN) || records_end.checked_add(FOOTER_LEN as u64) != Some(file_len) {
        return None;
    }
    let summary = Summary {
        totals: cut.totals(),
        lowest_ms: cut.i64(),
        highest_ms: cut.i64(),
        created_lowest_ms: cut.i64(),
        created_highest_ms: cut.i64(),
    };
    Some((u32::try_from(records_end).ok()?, summary))
}

/// The length of the header of a record of this tenant.
pub(crate) fn header_len(tenant: Option<&str>) -> usize {
    RECORD_HEADER_LEN + tenant.map_or(0, str::len)
}

fn header_checksum(segment: u64, offset: u32, fixed: &[u8], tenant: &[u8]) -> u32 {
    let mut place = [0; 16];
    place[..8].copy_from_slice(&segment.to_le_bytes());
    place[8..].copy_from_slice(&u64::from(offset).to_le_bytes());
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&place), fixed);
    crc32c::crc32c_append(checksum, tenant)
}

/// Adds the header of `record`, whose body has the checksum `body_checksum`, as it stands at `offset` of `segment`.
pub(crate) fn encode_record_header(out: &mut Vec<u8>, record: &Record, body_checksum: u32, segment: u64, offset: u32) {
    let flags = if record.tenant.is_some() { FLAG_TENANT } else { 0 };
    put_header(out, record, record.body.len() as u32, flags, body_checksum, segment, offset);
}

/// Adds the header of a gap from `offset` to `end`, which must be at least [`RECORD_HEADER_LEN`] apart.
pub(crate) fn encode_gap_header(out: &mut Vec<u8>, segment: u64, offset: u32, end: u32) {
    let body_len = end.saturating_sub(offset).saturating_sub(RECORD_HEADER_LEN as u32);
    let empty = Record {
        encoding: 0,
        tenant: None,
        partition: 0,
        partitions: 1,
        counts: Counts::default(),
        lowest_ms: 0,
        highest_ms: 0,
        created_ms: 0,
        raw_len: 0,
        body: Bytes::new(),
    };
    put_header(out, &empty, body_len, FLAG_GAP, 0, segment, offset);
}

fn put_header(
    out: &mut Vec<u8>,
    record: &Record,
    body_len: u32,
    flags: u8,
    body_checksum: u32,
    segment: u64,
    offset: u32,
) {
    let tenant = record.tenant.as_deref();
    let mut fixed = [0; RECORD_HEADER_LEN];
    fixed[..4].copy_from_slice(&RECORD_MAGIC);
    fixed[4..6].copy_from_slice(&(header_len(tenant) as u16).to_le_bytes());
    fixed[6] = record.encoding;
    fixed[7] = flags;
    fixed[8..12].copy_from_slice(&body_len.to_le_bytes());
    fixed[12..16].copy_from_slice(&record.raw_len.to_le_bytes());
    fixed[16..18].copy_from_slice(&record.partition.to_le_bytes());
    fixed[18..20].copy_from_slice(&record.partitions.to_le_bytes());
    fixed[20..24].copy_from_slice(&record.counts.samples.to_le_bytes());
    fixed[24..28].copy_from_slice(&record.counts.histograms.to_le_bytes());
    fixed[28..32].copy_from_slice(&record.counts.exemplars.to_le_bytes());
    fixed[32..36].copy_from_slice(&record.counts.metadata.to_le_bytes());
    fixed[40..48].copy_from_slice(&record.lowest_ms.to_le_bytes());
    fixed[48..56].copy_from_slice(&record.highest_ms.to_le_bytes());
    fixed[56..64].copy_from_slice(&record.created_ms.to_le_bytes());
    fixed[64..68].copy_from_slice(&body_checksum.to_le_bytes());
    let tenant = tenant.unwrap_or_default().as_bytes();
    let checksum = header_checksum(segment, offset, &fixed[..68], tenant);
    fixed[68..].copy_from_slice(&checksum.to_le_bytes());
    out.extend_from_slice(&fixed);
    out.extend_from_slice(tenant);
}

struct Header<'a> {
    header_len: usize,
    encoding: u8,
    is_gap: bool,
    tenant: Option<&'a str>,
    body_len: u32,
    raw_len: u32,
    partition: u16,
    partitions: u16,
    counts: Counts,
    lowest_ms: i64,
    highest_ms: i64,
    created_ms: i64,
    body_checksum: u32,
}

enum Decoded<'a> {
    Header(Header<'a>),
    /// That many bytes must be seen to tell.
    Incomplete(usize),
    Invalid,
}

fn decode_record_header(bytes: &[u8], segment: u64, offset: u32) -> Decoded<'_> {
    let seen = bytes.len().min(RECORD_MAGIC.len());
    if bytes[..seen] != RECORD_MAGIC[..seen] {
        return Decoded::Invalid;
    }
    let Some((fixed, rest)) = bytes.split_first_chunk::<RECORD_HEADER_LEN>() else {
        return Decoded::Incomplete(RECORD_HEADER_LEN);
    };
    let mut cut = Cut(&fixed[4..]);
    let header_len = usize::from(cut.u16());
    if !(RECORD_HEADER_LEN..=RECORD_HEADER_LEN + TENANT_BYTES_MAX).contains(&header_len) {
        return Decoded::Invalid;
    }
    let Some(tenant) = rest.get(..header_len - RECORD_HEADER_LEN) else { return Decoded::Incomplete(header_len) };
    let encoding = cut.u8();
    let flags = cut.u8();
    let body_len = cut.u32();
    let raw_len = cut.u32();
    let partition = cut.u16();
    let partitions = cut.u16();
    let counts = Counts { samples: cut.u32(), histograms: cut.u32(), exemplars: cut.u32(), metadata: cut.u32() };
    cut.u32();
    let (lowest_ms, highest_ms, created_ms) = (cut.i64(), cut.i64(), cut.i64());
    let body_checksum = cut.u32();
    if cut.u32() != header_checksum(segment, offset, &fixed[..68], tenant) {
        return Decoded::Invalid;
    }
    let Ok(tenant) = std::str::from_utf8(tenant) else { return Decoded::Invalid };
    let shape_holds = partition < partitions
        && partitions <= PARTITIONS_MAX
        && u64::from(body_len) <= APPEND_BYTES_MAX.max(crate::types::SEGMENT_BYTES_MAX)
        && (tenant.is_empty() || flags & FLAG_TENANT != 0);
    if !shape_holds {
        return Decoded::Invalid;
    }
    Decoded::Header(Header {
        header_len,
        encoding,
        is_gap: flags & FLAG_GAP != 0,
        tenant: (flags & FLAG_TENANT != 0).then_some(tenant),
        body_len,
        raw_len,
        partition,
        partitions,
        counts,
        lowest_ms,
        highest_ms,
        created_ms,
        body_checksum,
    })
}

/// What stands in a part of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// A whole record.
    Record { at: u32, end: u32, record: Record },
    /// A record whose header is whole and whose body is not.
    BadBody { at: u32, end: u32, partition: u16, partitions: u16, counts: Counts, body_len: u32 },
    /// Bytes that are no record. `starts` says that the bytes before them were a record.
    Skipped { at: u32, end: u32, starts: bool },
    /// Records that were given up before they were written.
    Gap { at: u32, end: u32 },
}

/// The result of [`Parser::parse`].
#[derive(Debug)]
pub(crate) struct Parsed {
    /// What was found, in order, without holes.
    pub(crate) items: Vec<Item>,
    /// Where to go on.
    pub(crate) next: u32,
    /// How many bytes from there must be seen to go on; zero if any will do.
    pub(crate) need: usize,
    /// Whether the bytes before `next` are damaged and the next header is being looked for.
    pub(crate) lost: bool,
}

/// Reads the records of one segment from chunks of its file.
pub(crate) struct Parser {
    pub(crate) segment: u64,
    /// Where the records of the segment end.
    pub(crate) end: u32,
    /// Whether the bodies are compared with their checksums.
    pub(crate) verify: bool,
    /// The tenant of the record before, which is most often that of the next.
    pub(crate) tenant: Option<Arc<str>>,
}

impl Parser {
    /// What stands in `chunk`, which begins at the offset `base`. `lost` is what the chunk before answered.
    pub(crate) fn parse(&mut self, chunk: &Bytes, base: u32, mut lost: bool) -> Parsed {
        let mut items = Vec::new();
        let mut at = base;
        let mut need = 0;
        let chunk_end = base.saturating_add(chunk.len() as u32).min(self.end);
        let chunk = chunk.slice(..(chunk_end - base.min(chunk_end)) as usize);
        while at < chunk_end {
            let rest = &chunk[(at - base) as usize..];
            let left = (self.end - at) as usize;
            let header = match decode_record_header(rest, self.segment, at) {
                Decoded::Header(header) if header.header_len + header.body_len as usize <= left => Some(header),
                Decoded::Incomplete(bytes) if bytes <= left => {
                    need = bytes;
                    break;
                }
                Decoded::Header(_) | Decoded::Incomplete(_) | Decoded::Invalid => None,
            };
            let Some(header) = header else {
                let next = match find_magic(&rest[1..]) {
                    Some(found) => at + 1 + found as u32,
                    None if chunk_end == self.end => self.end,
                    // The last bytes may be the start of the next magic.
                    None => (chunk_end - 3).max(at + 1).min(chunk_end),
                };
                match items.last_mut() {
                    Some(Item::Skipped { end, .. }) if *end == at => *end = next,
                    _ => items.push(Item::Skipped { at, end: next, starts: !lost }),
                }
                lost = true;
                at = next;
                continue;
            };
            let len = header.header_len + header.body_len as usize;
            let end = at + len as u32;
            if header.is_gap {
                items.push(Item::Gap { at, end });
            } else if len > rest.len() {
                need = len;
                break;
            } else {
                let start = (at - base) as usize;
                let body = chunk.slice(start + header.header_len..start + len);
                items.push(self.record(header, at, end, body, chunk.len()));
            }
            lost = false;
            at = end;
        }
        Parsed { items, next: at, need, lost }
    }

    fn record(&mut self, header: Header<'_>, at: u32, end: u32, body: Bytes, chunk_len: usize) -> Item {
        if self.verify && crc32c::crc32c(&body) != header.body_checksum {
            return Item::BadBody {
                at,
                end,
                partition: header.partition,
                partitions: header.partitions,
                counts: header.counts,
                body_len: header.body_len,
            };
        }
        // Partitions are settled at their own pace: a slice of the chunk would keep the records of all of them in
        // memory for as long as the slowest needs.
        let body =
            if header.partitions > 1 && body.len() < chunk_len / 2 { Bytes::copy_from_slice(&body) } else { body };
        let tenant = header.tenant.map(|tenant| match &self.tenant {
            Some(known) if **known == *tenant => known.clone(),
            _ => {
                let tenant: Arc<str> = tenant.into();
                self.tenant = Some(tenant.clone());
                tenant
            }
        });
        Item::Record {
            at,
            end,
            record: Record {
                encoding: header.encoding,
                tenant,
                partition: header.partition,
                partitions: header.partitions,
                counts: header.counts,
                lowest_ms: header.lowest_ms,
                highest_ms: header.highest_ms,
                created_ms: header.created_ms,
                raw_len: header.raw_len,
                body,
            },
        }
    }
}

fn find_magic(bytes: &[u8]) -> Option<usize> {
    bytes.windows(RECORD_MAGIC.len()).position(|window| window == RECORD_MAGIC)
}

/// What a cursor's slot holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) sequence: u64,
    /// Where reading resumes.
    pub(crate) resume: Position,
    /// What stands in the segment of `resume` before it.
    pub(crate) before: Totals,
    /// Where reading ends for good.
    pub(crate) end: Option<Position>,
    pub(crate) highest_delivered_ms: Option<i64>,
    /// For each partition, the position before which it is settled.
    pub(crate) settled: Vec<Position>,
}

pub(crate) fn encode_cursor_name(name: &str) -> Vec<u8> {
    let name = &name[..name.floor_char_boundary(CURSOR_NAME_BYTES_MAX)];
    let mut out = Vec::with_capacity(16 + name.len());
    out.extend_from_slice(CURSOR_MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&(name.len() as u16).to_le_bytes());
    out.extend_from_slice(name.as_bytes());
    put_checksum(&mut out, 0);
    out
}

pub(crate) fn decode_cursor_name(bytes: &[u8]) -> Option<String> {
    let mut cut = Cut(bytes.get(..12)?);
    if cut.array::<8>() != *CURSOR_MAGIC || cut.u16() != VERSION {
        return None;
    }
    let name_len = usize::from(cut.u16());
    let content = checked(bytes.get(..12 + name_len + 4)?)?;
    Some(std::str::from_utf8(&content[12..]).ok()?.to_owned())
}

/// Replaces `out` by the slot.
pub(crate) fn encode_slot(out: &mut Vec<u8>, slot: &Slot) {
    out.clear();
    let len = SLOT_FIXED_LEN + 12 * slot.settled.len();
    out.extend_from_slice(SLOT_MAGIC);
    out.extend_from_slice(&(len as u32).to_le_bytes());
    out.extend_from_slice(&slot.sequence.to_le_bytes());
    out.extend_from_slice(&(slot.settled.len() as u16).to_le_bytes());
    let (end_segment, end_offset) = slot.end.map_or((0, 0), |end| (end.segment + 1, end.offset));
    out.extend_from_slice(&end_segment.to_le_bytes()[..6]);
    put_position(out, slot.resume);
    out.extend_from_slice(&end_offset.to_le_bytes());
    put_totals(out, &slot.before);
    out.extend_from_slice(&slot.highest_delivered_ms.unwrap_or(i64::MIN).to_le_bytes());
    for position in &slot.settled {
        put_position(out, *position);
    }
    put_checksum(out, 0);
}

pub(crate) fn decode_slot(bytes: &[u8]) -> Option<Slot> {
    let mut cut = Cut(bytes.get(..8)?);
    if cut.array::<4>() != *SLOT_MAGIC {
        return None;
    }
    let len = cut.u32() as usize;
    let mut cut = Cut(checked(bytes.get(..len)?)?.get(8..)?);
    let sequence = cut.u64();
    let partitions = usize::from(cut.u16());
    if partitions > usize::from(PARTITIONS_MAX) || len != SLOT_FIXED_LEN + 12 * partitions {
        return None;
    }
    let mut end_segment = [0; 8];
    end_segment[..6].copy_from_slice(&cut.array::<6>());
    let resume = cut.position();
    let end_offset = cut.u32();
    let end = u64::from_le_bytes(end_segment).checked_sub(1).map(|segment| Position { segment, offset: end_offset });
    let before = cut.totals();
    let highest = cut.i64();
    let settled = (0..partitions).map(|_| cut.position()).collect();
    let highest_delivered_ms = (highest != i64::MIN).then_some(highest);
    Some(Slot { sequence, resume, before, end, highest_delivered_ms, settled })
}

/// The slot that counts of a cursor file's bytes.
pub(crate) fn decode_slots(bytes: &[u8]) -> Option<Slot> {
    let slot = |number: usize| {
        let start = CURSOR_NAME_LEN + number * CURSOR_SLOT_LEN;
        bytes.get(start..(start + CURSOR_SLOT_LEN).min(bytes.len())).and_then(decode_slot)
    };
    match (slot(0), slot(1)) {
        (Some(a), Some(b)) => Some(if a.sequence > b.sequence { a } else { b }),
        (a, b) => a.or(b),
    }
}

/// The name of a segment's file.
pub(crate) fn segment_file_name(segment: u64) -> String {
    format!("{segment:08}.seg")
}

/// The number of the segment whose file has this name.
pub(crate) fn segment_of_file_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    let number: u64 = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())??;
    (segment_file_name(number) == name && number < u64::MAX).then_some(number)
}

/// The name, without its ending, of the file of a reader's cursor. Different readers have different ones.
pub(crate) fn cursor_stem(name: &str) -> String {
    const STEM_BYTES_MAX: usize = 120;
    let mut stem = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-') {
            stem.push(char::from(byte));
        } else {
            stem.push_str(&format!("%{byte:02X}"));
        }
    }
    if stem.len() > STEM_BYTES_MAX {
        // What is unique about a long name is often its end; two checksums, of both directions, stand for the whole.
        let reversed: Vec<u8> = name.bytes().rev().collect();
        let (a, b) = (crc32c::crc32c(name.as_bytes()), crc32c::crc32c(&reversed));
        stem.truncate(STEM_BYTES_MAX - 18);
        stem.push_str(&format!("~{a:08x}{b:08x}"));
    }
    stem
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> impl Strategy<Value = Record> {
        let counts = any::<(u32, u32, u32, u32)>();
        let tenant = prop::option::of("[a-zä]{0,20}");
        let body = prop::collection::vec(any::<u8>(), 0..200);
        let times = any::<(i64, i64, i64)>();
        (any::<u8>(), tenant, 1..=PARTITIONS_MAX, any::<u16>(), counts, times, any::<u32>(), body).prop_map(
            |(encoding, tenant, partitions, partition, counts, times, raw_len, body)| Record {
                encoding,
                tenant: tenant.map(Into::into),
                partition: partition % partitions,
                partitions,
                counts: Counts { samples: counts.0, histograms: counts.1, exemplars: counts.2, metadata: counts.3 },
                lowest_ms: times.0,
                highest_ms: times.1,
                created_ms: times.2,
                raw_len,
                body: Bytes::from(body),
            },
        )
    }

    /// The records of segment 7 as they stand behind each other from `base` on, and their places.
    fn written(records: &[Record], base: u32) -> (Vec<u8>, Vec<u32>) {
        let mut out = Vec::new();
        let mut places = Vec::new();
        for record in records {
            let at = base + out.len() as u32;
            places.push(at);
            encode_record_header(&mut out, record, crc32c::crc32c(&record.body), 7, at);
            out.extend_from_slice(&record.body);
        }
        (out, places)
    }

    /// Parses in chunks of `chunk_len` bytes as a reader does.
    fn parsed(bytes: &[u8], base: u32, chunk_len: usize) -> Vec<Item> {
        let end = base + bytes.len() as u32;
        let mut parser = Parser { segment: 7, end, verify: true, tenant: None };
        let (mut at, mut lost, mut want) = (base, false, 0);
        let mut items = Vec::new();
        while at < end {
            let start = (at - base) as usize;
            let len = chunk_len.max(want).min(bytes.len() - start);
            let parsed = parser.parse(&Bytes::copy_from_slice(&bytes[start..start + len]), at, lost);
            assert!(parsed.next > at || parsed.need > len, "no progress at {at}");
            items.extend(parsed.items);
            (at, lost, want) = (parsed.next, parsed.lost, parsed.need);
        }
        items
    }

    fn records_of(items: &[Item]) -> Vec<(u32, Record)> {
        let of = |item: &Item| match item {
            Item::Record { at, record, .. } => Some((*at, record.clone())),
            _ => None,
        };
        items.iter().filter_map(of).collect()
    }

    proptest! {
        #[test]
        fn records_are_read_as_they_were_written_whatever_the_chunks(
            records in prop::collection::vec(record(), 0..12),
            base in 0..1000u32,
            chunk_len in 1..2000usize,
        ) {
            let (bytes, places) = written(&records, base);
            let items = parsed(&bytes, base, chunk_len);
            prop_assert_eq!(items.len(), records.len());
            prop_assert_eq!(records_of(&items), places.into_iter().zip(records).collect::<Vec<_>>());
        }

        #[test]
        fn a_flipped_bit_costs_its_record_and_no_other(
            records in prop::collection::vec(record(), 1..8),
            which in any::<prop::sample::Index>(),
            bit in 0..8u32,
            chunk_len in 1..2000usize,
        ) {
            let (mut bytes, places) = written(&records, 64);
            let at = which.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let hit = places.iter().rposition(|place| (*place as usize) <= at + 64).expect("a record");
            let items = parsed(&bytes, 64, chunk_len);
            let mut expected: Vec<_> = places.into_iter().zip(records).collect();
            let damaged = expected.remove(hit);
            prop_assert_eq!(records_of(&items), expected);
            let starts = items.iter().filter(|item| {
                matches!(item, Item::BadBody { .. } | Item::Skipped { starts: true, .. })
            });
            prop_assert_eq!(starts.count(), 1);
            let skipped: u32 = items.iter().map(|item| match item {
                Item::BadBody { at, end, .. } | Item::Skipped { at, end, .. } => end - at,
                _ => 0,
            }).sum();
            prop_assert_eq!(skipped as usize, header_len(damaged.1.tenant.as_deref()) + damaged.1.body.len());
        }

        #[test]
        fn any_bytes_are_parsed_without_panic_and_completely(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(&RECORD_MAGIC)], 0..600),
            chunk_len in 1..700usize,
        ) {
            let items = parsed(&bytes, 64, chunk_len);
            let mut at = 64;
            for item in items {
                let (Item::Record { at: start, end, .. } | Item::BadBody { at: start, end, .. }
                    | Item::Skipped { at: start, end, .. } | Item::Gap { at: start, end }) = item;
                prop_assert_eq!(start, at);
                at = end;
            }
            prop_assert_eq!(at as usize, 64 + bytes.len());
        }

        #[test]
        fn a_record_within_a_body_or_of_another_place_is_never_taken_for_one(inner in record(), outer in record()) {
            let (inside, _) = written(std::slice::from_ref(&inner), 64);
            let outer = Record { body: Bytes::from(inside), ..outer };
            let (mut bytes, _) = written(std::slice::from_ref(&outer), 64);
            bytes[0] ^= 1;
            prop_assert_eq!(records_of(&parsed(&bytes, 64, 4096)), vec![]);
        }

        #[test]
        fn footers_and_slots_come_back_and_a_flipped_bit_is_found(
            numbers in any::<[u64; 6]>(),
            times in any::<[i64; 4]>(),
            end in SEGMENT_HEADER_LEN..u32::MAX - 1000,
            settled in prop::collection::vec(any::<(u64, u32)>(), 0..=usize::from(PARTITIONS_MAX)),
            which in any::<prop::sample::Index>(),
            bit in 0..8u32,
        ) {
            let [records, body_bytes, samples, histograms, exemplars, metadata] = numbers;
            let totals = Totals { records, bytes: body_bytes, samples, histograms, exemplars, metadata };
            let [lowest_ms, highest_ms, created_lowest_ms, created_highest_ms] = times;
            let summary = Summary { totals, lowest_ms, highest_ms, created_lowest_ms, created_highest_ms };
            let mut footer = encode_footer(9, end, &summary);
            let file_len = u64::from(end) + FOOTER_LEN as u64;
            prop_assert_eq!(footer.len(), FOOTER_LEN);
            prop_assert_eq!(decode_footer(&footer, 9, file_len), Some((end, summary)));
            prop_assert_eq!(decode_footer(&footer, 8, file_len), None);
            prop_assert_eq!(decode_footer(&footer, 9, file_len + 1), None);
            footer[which.index(FOOTER_LEN)] ^= 1 << bit;
            prop_assert_eq!(decode_footer(&footer, 9, file_len), None);

            let settled: Vec<_> =
                settled.into_iter().map(|(segment, offset)| Position { segment, offset }).collect();
            let resume = Position { segment: records, offset: end };
            let highest_delivered_ms = (times[0] != i64::MIN).then_some(times[0]);
            let end = settled.first().copied().filter(|end| end.segment < (1 << 48) - 1);
            let slot = Slot { sequence: samples, resume, before: totals, end, highest_delivered_ms, settled };
            let mut bytes = Vec::new();
            encode_slot(&mut bytes, &slot);
            prop_assert!(bytes.len() <= CURSOR_SLOT_LEN);
            prop_assert_eq!(decode_slot(&bytes), Some(slot));
            let at = which.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(decode_slot(&bytes), None);
        }

        #[test]
        fn any_bytes_are_no_footer_slot_or_name(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(decode_footer(&bytes, 0, bytes.len() as u64), None);
            prop_assert_eq!(decode_slot(&bytes), None);
            prop_assert_eq!(decode_slots(&bytes), None);
            prop_assert_eq!(decode_cursor_name(&bytes), None);
            prop_assert!(!is_foreign_segment(&bytes));
        }

        #[test]
        fn names_come_back_and_have_their_own_files(a in "\\PC{0,60}", b in "\\PC{0,60}") {
            prop_assert_eq!(decode_cursor_name(&encode_cursor_name(&a)), Some(a.clone()));
            prop_assert_eq!(cursor_stem(&a) == cursor_stem(&b), a == b);
            prop_assert!(!cursor_stem(&a).contains('/') && cursor_stem(&a).len() <= 120);
        }
    }

    #[test]
    fn long_names_are_told_apart_by_their_ends() {
        let long = "x".repeat(5000);
        assert_ne!(cursor_stem(&format!("{long}a")), cursor_stem(&format!("{long}b")));
        assert_eq!(decode_cursor_name(&encode_cursor_name(&long)), Some("x".repeat(CURSOR_NAME_BYTES_MAX)));
    }

    #[test]
    fn a_gap_is_read_without_its_body() {
        let mut bytes = Vec::new();
        encode_gap_header(&mut bytes, 7, 64, 500);
        bytes.resize(436, 0);
        let record = Record {
            encoding: 1,
            tenant: None,
            partition: 0,
            partitions: 1,
            counts: Counts::samples(1),
            lowest_ms: 0,
            highest_ms: 0,
            created_ms: 0,
            raw_len: 0,
            body: Bytes::from_static(b"body"),
        };
        let (after, _) = written(std::slice::from_ref(&record), 500);
        bytes.extend(after);
        for chunk_len in [80, 100, 436, 1000] {
            let items = parsed(&bytes, 64, chunk_len);
            assert_eq!(items[0], Item::Gap { at: 64, end: 500 });
            assert_eq!(records_of(&items), [(500, record.clone())], "chunks of {chunk_len}");
        }
    }

    #[test]
    fn segment_files_are_known_by_their_names() {
        for (name, id) in [
            ("00000001.seg", Some(1)),
            ("123456789.seg", Some(123_456_789)),
            ("1.seg", None),
            ("000000001.seg", None),
            ("+0000001.seg", None),
            ("00000001.cur", None),
            (".seg", None),
        ] {
            assert_eq!(segment_of_file_name(name), id, "{name}");
        }
    }
}
