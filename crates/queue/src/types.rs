//! The values that go in and come out of a queue: options, records, runs, figures.

use std::fmt;
use std::io;
use std::ops::{Add, AddAssign};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::format::Position;
use crate::reader::Ticket;

/// The most partitions a record may name. The cursor files are laid out for it.
pub const PARTITIONS_MAX: u16 = 1024;
/// The longest tenant name, in bytes.
pub const TENANT_BYTES_MAX: usize = 1024;
/// The most bytes that one append may add to the log, headers included.
pub const APPEND_BYTES_MAX: u64 = 512 << 20;
/// The largest segment that [`Options::segment_bytes_max`] may ask for; offsets are stored in 32 bits.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// The smallest segment; a smaller [`Options::segment_bytes_max`] is raised to it.
pub const SEGMENT_BYTES_MIN: u64 = 4 << 10;

/// The limits of one queue. All of them can be changed while it runs, with [`crate::Queue::set_options`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// A segment is closed before it would grow beyond this, in bytes. Values outside of
    /// [`SEGMENT_BYTES_MIN`]`..=`[`SEGMENT_BYTES_MAX`] and values over a quarter of `bytes_max` are brought back
    /// into that range, because whole segments are the unit in which space is freed.
    pub segment_bytes_max: u64,
    /// All segments together, in bytes. Beyond it the oldest segment goes at once, settled or not.
    pub bytes_max: u64,
    /// Records that are not settled this long after their creation are dropped and counted as [`reason::EXPIRED`].
    pub age_max: Duration,
    /// A settled segment is kept until its newest record is this old.
    pub keep_settled_min: Duration,
    /// How often settled segments are deleted. The caps in bytes and age do not wait for it.
    pub truncate_every: Duration,
    /// How much waits in memory while the disk refuses to take it, in bytes, headers included. Beyond it the oldest
    /// records go, counted as [`reason::MEMORY`].
    pub memory_bytes_max: usize,
    /// Where a cap would drop what is not settled, refuse the append with [`AppendError::Overflow`] instead.
    pub block_on_overflow: bool,
    /// How often written data is forced to the medium. Zero: never, not even when a segment closes.
    pub sync_every: Duration,
    /// Whether an append is answered only when its records were forced to the medium.
    pub sync_appends: bool,
}

impl Options {
    /// The largest `bytes_max` that is chosen without being asked for.
    pub const BYTES_MAX_DEFAULT: u64 = 5 << 30;
    /// The smallest `bytes_max` that is chosen without being asked for. A disk that is full refuses by itself, and records are
    /// held in memory until it takes them; a cap that nothing fits into would drop them.
    pub const BYTES_MAX_DEFAULT_LEAST: u64 = 32 << 20;
}

impl Default for Options {
    fn default() -> Self {
        Options {
            segment_bytes_max: 16 << 20,
            bytes_max: Self::BYTES_MAX_DEFAULT,
            age_max: Duration::from_secs(8 * 3600),
            keep_settled_min: Duration::from_secs(5 * 60),
            truncate_every: Duration::from_secs(2 * 3600),
            memory_bytes_max: 16 << 20,
            block_on_overflow: false,
            sync_every: Duration::from_secs(1),
            sync_appends: false,
        }
    }
}

/// The cap in bytes for a queue in `dir` whose user gave none: [`Options::BYTES_MAX_DEFAULT`], and at most a tenth of
/// what the file system that holds `dir` (or the nearest parent that exists) has free now for the queue, with what the queue
/// takes already. It never takes away from that: a disk that others have filled is no reason to drop what waits. And it is at
/// least [`Options::BYTES_MAX_DEFAULT_LEAST`].
pub fn default_bytes_max(dir: &Path) -> u64 {
    let free = crate::storage::free_bytes(dir);
    free.map_or(Options::BYTES_MAX_DEFAULT, |free| bytes_max(free, crate::storage::segment_bytes(dir)))
}

/// The same, from what is free and what the queue takes.
pub(crate) fn bytes_max(free: u64, used: u64) -> u64 {
    let tenth = free.saturating_add(used) / 10;
    tenth.max(used).clamp(Options::BYTES_MAX_DEFAULT_LEAST, Options::BYTES_MAX_DEFAULT)
}

/// What a record, a run or a drop holds, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Samples, log entries, spans or profiles: the main kind of the signal.
    pub samples: u32,
    /// Native histograms.
    pub histograms: u32,
    /// Exemplars.
    pub exemplars: u32,
    /// Metadata entries.
    pub metadata: u32,
}

impl Counts {
    /// Only samples.
    pub const fn samples(samples: u32) -> Self {
        Counts { samples, histograms: 0, exemplars: 0, metadata: 0 }
    }

    /// The sum over all kinds.
    pub const fn items(&self) -> u64 {
        self.samples as u64 + self.histograms as u64 + self.exemplars as u64 + self.metadata as u64
    }
}

/// Sums of [`Counts`] over many records, with their number and size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Records.
    pub records: u64,
    /// Bytes of the bodies.
    pub bytes: u64,
    /// Samples, or whatever the main kind of the signal is.
    pub samples: u64,
    /// Native histograms.
    pub histograms: u64,
    /// Exemplars.
    pub exemplars: u64,
    /// Metadata entries.
    pub metadata: u64,
}

impl Totals {
    /// The sum over all kinds.
    pub const fn items(&self) -> u64 {
        self.samples + self.histograms + self.exemplars + self.metadata
    }

    /// Adds a record with this length of its body, in bytes.
    pub fn record(&mut self, counts: &Counts, body_len: usize) {
        self.records += 1;
        self.bytes += body_len as u64;
        self.samples += u64::from(counts.samples);
        self.histograms += u64::from(counts.histograms);
        self.exemplars += u64::from(counts.exemplars);
        self.metadata += u64::from(counts.metadata);
    }

    /// What is in `self` and not in `part`; never below zero, because a damaged file may claim anything.
    pub fn without(&self, part: &Totals) -> Totals {
        Totals {
            records: self.records.saturating_sub(part.records),
            bytes: self.bytes.saturating_sub(part.bytes),
            samples: self.samples.saturating_sub(part.samples),
            histograms: self.histograms.saturating_sub(part.histograms),
            exemplars: self.exemplars.saturating_sub(part.exemplars),
            metadata: self.metadata.saturating_sub(part.metadata),
        }
    }
}

impl Add for Totals {
    type Output = Totals;

    fn add(self, other: Totals) -> Totals {
        Totals {
            records: self.records.saturating_add(other.records),
            bytes: self.bytes.saturating_add(other.bytes),
            samples: self.samples.saturating_add(other.samples),
            histograms: self.histograms.saturating_add(other.histograms),
            exemplars: self.exemplars.saturating_add(other.exemplars),
            metadata: self.metadata.saturating_add(other.metadata),
        }
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Totals) {
        *self = *self + other;
    }
}

/// A record to append: one batch, already encoded.
#[derive(Clone, Debug)]
pub struct NewRecord {
    /// What the body is, as the sink numbers it. Records of different encodings never share a run.
    pub encoding: u8,
    /// Whose data this is. Records of different tenants never share a run.
    pub tenant: Option<Arc<str>>,
    /// The partition, below `partitions`. Order is kept within a partition.
    pub partition: u16,
    /// The number of partitions at the time of writing, 1 to [`PARTITIONS_MAX`].
    pub partitions: u16,
    /// What the body holds.
    pub counts: Counts,
    /// The lowest timestamp of the body, in milliseconds since 1970.
    pub lowest_ms: i64,
    /// The highest timestamp of the body, in milliseconds since 1970.
    pub highest_ms: i64,
    /// The length of the body before compression, in bytes.
    pub raw_len: u32,
    /// The bytes to deliver. They should be an allocation of about their own size, because a record that is delivered
    /// soon is not read back: the reader holds these bytes.
    pub body: Bytes,
    /// Told when the record is settled, where the append was answered without being durable.
    pub hold: Option<Arc<dyn Hold>>,
}

/// Whoever wants to know what becomes of a record that is in memory only.
///
/// It is told once, when the record is safe: on disk after all, or settled by every reader, or dropped within the queue's
/// caps. It is let go without being told when the record is lost with the queue, and also when the append failed or was
/// answered as durable.
pub trait Hold: fmt::Debug + Send + Sync + 'static {
    /// The record is safe. Must not block.
    fn settled(&self);
}

/// What became of records that were appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Whether they were handed to the operating system. If not, they are lost with the process, unless the disk recovers
    /// or they are delivered before.
    pub durable: bool,
}

/// A record as a reader hands it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What the body is, as the sink numbers it.
    pub encoding: u8,
    /// Whose data this is.
    pub tenant: Option<Arc<str>>,
    /// The partition, below `partitions`.
    pub partition: u16,
    /// The number of partitions at the time of writing.
    pub partitions: u16,
    /// What the body holds.
    pub counts: Counts,
    /// The lowest timestamp of the body, in milliseconds since 1970.
    pub lowest_ms: i64,
    /// The highest timestamp of the body, in milliseconds since 1970.
    pub highest_ms: i64,
    /// When the record was appended, in milliseconds since 1970.
    pub created_ms: i64,
    /// The length of the body before compression, in bytes.
    pub raw_len: u32,
    /// The bytes to deliver.
    pub body: Bytes,
}

/// Where a reader whose name has no cursor yet starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// At the oldest record that exists.
    Oldest,
    /// After the newest record that exists.
    #[default]
    Newest,
}

/// How a reader cuts its runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReaderOptions {
    /// The most items (the sum of all counts) in one run. A larger record goes alone.
    pub items_max: u32,
    /// The most bytes of bodies in one run. A larger record goes alone.
    pub bytes_max: usize,
    /// The most bytes of bodies before compression in one run. A larger record goes alone.
    pub raw_bytes_max: u64,
    /// A run with so many items is handed out at once, although more would fit.
    pub items_min: u32,
    /// A run with so many bytes of bodies is handed out at once, although more would fit.
    pub bytes_min: usize,
    /// A run that is not full is handed out when its first record was created this long ago.
    pub wait_max: Duration,
    /// Records whose highest timestamp is older than this are skipped and counted as [`reason::TOO_OLD`].
    pub age_max: Option<Duration>,
    /// A partition whose run is out for longer than this is passed over, so that the others go on however much waits for it.
    /// Without it they go on only within the room for reading ahead, which all partitions share.
    pub overtake_after: Option<Duration>,
    /// Where a name that is seen for the first time starts.
    pub start: Start,
}

impl Default for ReaderOptions {
    fn default() -> Self {
        ReaderOptions {
            items_max: 2000,
            bytes_max: 4 << 20,
            raw_bytes_max: u64::MAX,
            items_min: u32::MAX,
            bytes_min: usize::MAX,
            wait_max: Duration::from_secs(5),
            age_max: None,
            overtake_after: None,
            start: Start::Newest,
        }
    }
}

/// What became of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The peer has it.
    Delivered,
    /// It will never be delivered, for this reason, which becomes a key of [`ReaderStats::dropped`].
    Dropped(&'static str),
}

/// The reasons for which the queue itself drops records.
pub mod reason {
    /// The record's highest timestamp is older than the reader wants.
    pub const TOO_OLD: &str = "too_old";
    /// The record waited longer than the queue keeps what is not settled.
    pub const EXPIRED: &str = "expired";
    /// The cap in bytes made the oldest segment go.
    pub const OVERFLOW: &str = "overflow";
    /// The disk refused the record and the memory that stands in for it was full.
    pub const MEMORY: &str = "memory_overflow";
    /// The bytes on disk are not those that were written.
    pub const DAMAGED: &str = "damaged";
    /// The segment's file is gone.
    pub const MISSING: &str = "missing_segment";
}

/// Consecutive records of one (tenant, encoding, partition k of n), to be sent as one request.
///
/// It ends in [`crate::Reader::settle`] or [`crate::Reader::release`]. Where it is dropped without either, as by a
/// task that panicked, its records are handed out again.
#[derive(Debug)]
pub struct Run {
    /// The records, oldest first; never empty.
    pub records: Vec<Record>,
    /// The partition that all records are of.
    pub partition: u16,
    /// The number of partitions that all records were written with.
    pub partitions: u16,
    pub(crate) ticket: Ticket,
}

impl Run {
    /// The sums over all records.
    pub fn counts(&self) -> Totals {
        let mut totals = Totals::default();
        for record in &self.records {
            totals.record(&record.counts, record.body.len());
        }
        totals
    }

    /// The length of all bodies before compression, in bytes.
    pub fn raw_len(&self) -> u64 {
        self.records.iter().map(|record| u64::from(record.raw_len)).sum()
    }

    /// The length of all bodies as they stand, in bytes.
    pub fn body_len(&self) -> usize {
        self.records.iter().map(|record| record.body.len()).sum()
    }

    /// The bodies in order; the bytes are shared, not copied.
    pub fn bodies(&self) -> impl ExactSizeIterator<Item = Bytes> + '_ {
        self.records.iter().map(|record| record.body.clone())
    }

    /// What the bodies are, as the sink numbers it.
    pub fn encoding(&self) -> u8 {
        self.records.first().map_or(0, |record| record.encoding)
    }

    /// Whose data this is.
    pub fn tenant(&self) -> Option<&Arc<str>> {
        self.records.first().and_then(|record| record.tenant.as_ref())
    }

    /// The highest timestamp of all records, in milliseconds since 1970.
    pub fn highest_ms(&self) -> i64 {
        self.records.iter().map(|record| record.highest_ms).max().unwrap_or(i64::MIN)
    }

    /// When the oldest record was appended, in milliseconds since 1970.
    pub fn created_ms(&self) -> i64 {
        self.records.iter().map(|record| record.created_ms).min().unwrap_or(i64::MAX)
    }
}

/// Why records were not appended. None of them was.
#[derive(Debug)]
pub enum AppendError {
    /// The queue is full, and it was asked to refuse rather than to drop. [`crate::Queue::space`] tells when to try
    /// again.
    Overflow,
    /// The records are larger than the queue or a segment can ever hold.
    TooLarge {
        /// What was asked for, in bytes, headers included.
        bytes: u64,
        /// What there can be, in bytes.
        bytes_max: u64,
    },
    /// A record contradicts itself.
    Invalid(&'static str),
    /// The queue was closed.
    Closed,
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AppendError::Overflow => f.write_str("queue is full"),
            AppendError::TooLarge { bytes, bytes_max } => {
                write!(f, "records of {bytes} bytes exceed the limit of {bytes_max} bytes")
            }
            AppendError::Invalid(what) => f.write_str(what),
            AppendError::Closed => f.write_str("queue is closed"),
        }
    }
}

impl std::error::Error for AppendError {}

impl From<AppendError> for io::Error {
    fn from(error: AppendError) -> io::Error {
        io::Error::other(error)
    }
}

/// Figures of a queue. Counters start at zero when it is opened.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Bytes of all segments on disk.
    pub disk_bytes: u64,
    /// Segments on disk.
    pub segments: usize,
    /// The number of the segment that is written now, or would be created next.
    pub segment_current: u64,
    /// How long ago the oldest record was created that some reader has not settled.
    pub oldest_unsettled_age: Option<Duration>,
    /// What was appended, since the queue was opened.
    pub appended: Totals,
    /// Bytes written to segments since the queue was opened, headers and footers included.
    pub written_bytes: u64,
    /// Write calls that added records to segments.
    pub writes: u64,
    /// The highest timestamp of any record that is in the queue or was appended since it was opened.
    pub highest_ms: Option<i64>,
    /// What was dropped by reason, summed over all readers, sorted by reason.
    pub dropped: Vec<(&'static str, Totals)>,
    /// Records whose bytes were found damaged, each counted once.
    pub damaged_records: u64,
    /// Bytes that were skipped because they were damaged.
    pub damaged_bytes: u64,
    /// Segments that ended within a record when the queue was opened.
    pub torn_tails: u64,
    /// Segments whose file was gone when a reader came to it.
    pub missing_segments: u64,
    /// Cursor files of which no slot was whole.
    pub damaged_cursors: u64,
    /// Segments that were deleted because all readers had settled them.
    pub truncated_segments: u64,
    /// Segments that were deleted although a reader had not settled them.
    pub dropped_segments: u64,
    /// Bytes of the records that wait in memory because the disk refuses them.
    pub memory_bytes: usize,
    /// Why the disk refuses, while it does. Appended records are then safe in memory only.
    pub degraded: Option<String>,
    /// Writes of segments that failed.
    pub write_errors: u64,
    /// Reads of segments that failed.
    pub read_errors: u64,
    /// Writes of cursors that failed.
    pub cursor_errors: u64,
    /// Times that a file was forced to the medium.
    pub syncs: u64,
    /// Times that this failed.
    pub sync_errors: u64,
    /// The longest that it took.
    pub sync_longest: Duration,
}

/// A place in a queue, between two records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub(crate) at: Position,
    /// What had been appended since the queue was opened, if that is known.
    pub(crate) appended: Option<Totals>,
}

/// How far a reader is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// What is appended and not settled.
    pub pending: Totals,
    /// What of it is handed out at this moment.
    pub in_flight: Totals,
    /// When the oldest record that is not settled was created, in milliseconds since 1970. Where that record was not
    /// read yet, the oldest creation time of its segment stands for it.
    pub oldest_created_ms: Option<i64>,
    /// The highest timestamp of any record that was appended, in milliseconds since 1970.
    pub highest_appended_ms: Option<i64>,
    /// The highest timestamp of any record that was delivered, in milliseconds since 1970.
    pub highest_delivered_ms: Option<i64>,
}

/// Counters of one reader, from zero when its handle was made. `restored + appended` is what was delivered, dropped or is
/// pending, as long as nothing stands behind the end of a reader that has one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReaderStats {
    /// What was waiting for it when its handle was made. While what was settled before is passed over, it goes down with what
    /// is pending.
    pub restored: Totals,
    /// What was appended since, up to the reader's end if it has one.
    pub appended: Totals,
    /// What had been appended before, since the queue was opened.
    pub appended_before: Totals,
    /// Whether the reader has an end: see [`crate::Reader::end_at`].
    pub has_end: bool,
    /// What was settled as delivered.
    pub delivered: Totals,
    /// What was dropped by reason, sorted by reason.
    pub dropped: Vec<(&'static str, Totals)>,
    /// The number of partitions of the records that are handed out now; zero before the first record.
    pub partitions: u16,
    /// Bytes of bodies held in memory, handed out or about to be.
    pub memory_bytes: usize,
    /// The number of the segment that is read now.
    pub segment: u64,
}
