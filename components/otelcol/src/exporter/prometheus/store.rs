//! The series that points become: where their label sets lie, and what was sent of them last.
//!
//! Label sets stand in lasting blocks. The series that a batch brings for the first time make a block of their own, which
//! is joined with the ones before it while they are no more than twice as large: a series is copied a few times in its life,
//! and the blocks stay few.

use std::collections::HashMap;
use std::sync::Arc;

use corten_signal::metrics::{Exemplar, Histogram, HistogramSample, Metadata, SeriesMetadata};
use corten_signal::series::{ARENA_BYTES_SOFT_MAX, SERIES_PER_BLOCK_MAX};
use corten_signal::{BlockBuilder, LabelError, Labels, LabelsBuilder, Sample, SeriesBlock, SeriesPart};
use hashbrown::HashTable;

/// How many series there may be.
const SERIES_MAX: usize = 1 << 22;
/// How many bytes their labels may take.
const LABELS_BYTES_MAX: usize = 1 << 30;

/// Which series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Series(u32);

/// Why a series cannot be made.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum StoreError {
    /// There are too many.
    Full,
    /// Its labels are not acceptable.
    Labels(LabelError),
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StoreError::Full => write!(f, "more than {SERIES_MAX} series, or {LABELS_BYTES_MAX} bytes of labels"),
            StoreError::Labels(error) => error.fmt(f),
        }
    }
}

/// Where the labels of a series lie: (block, index within the block).
#[derive(Clone, Copy, Debug)]
struct Place {
    block: u16,
    index: u16,
}

/// A series.
#[derive(Clone, Copy, Debug)]
struct Slot {
    place: Place,
    /// When a batch had it last, in seconds of the caller's clock.
    seen_s: u32,
    /// Whether what is known of its family was handed on with it.
    described: bool,
    /// The last batch that had a point of it, as far as two bytes can say that.
    batch: u16,
    /// The time of its last point, in nanoseconds since the Unix epoch.
    last_ns: i64,
}

/// A block, and what the batch under way brings for its series.
struct Table {
    block: Arc<SeriesBlock>,
    /// The series by their indexes; [`GONE`] for those that were forgotten.
    series: Vec<u32>,
    gone: usize,
    taken: Taken,
    samples_before: usize,
}

const GONE: u32 = u32::MAX;

#[derive(Default)]
struct Taken {
    samples: Vec<Sample>,
    histograms: Vec<HistogramSample>,
    exemplars: Vec<Exemplar>,
    metadata: Vec<SeriesMetadata>,
}

impl Taken {
    fn is_empty(&self) -> bool {
        self.samples.is_empty() && self.histograms.is_empty() && self.exemplars.is_empty() && self.metadata.is_empty()
    }
}

/// When a series began to count.
#[derive(Clone, Copy, Debug)]
struct Started {
    /// The last start for which there was a sample.
    zero_ms: i64,
    /// The last sample of the batches before this one.
    before_ms: i64,
    /// The last sample.
    last_ms: i64,
    /// The batch that it was in.
    batch: u64,
}

/// What makes a store take the points of a batch once more.
#[derive(Debug, Default)]
pub(super) struct Undo {
    batch: u16,
    /// The series of which the batch had points of different times, and the earlier time each time.
    advanced: Vec<(Series, i64)>,
}

/// The series of a component.
#[derive(Default)]
pub(super) struct Store {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_labels: HashTable<u32>,
    tables: Vec<Table>,
    building: BlockBuilder,
    building_series: Vec<u32>,
    building_taken: Taken,
    label_bytes: usize,
    /// The times of the last exemplars, of the series that had some.
    exemplars_ns: HashMap<u32, i64>,
    /// When series began to count, if that is asked for.
    started: HashMap<u32, Started>,
    /// Samples whose times lie too far from the batch's for an offset.
    far: Vec<(u32, i64, f64)>,
    base_ms: i64,
    now_s: u32,
    batch: u64,
    /// See [`Undo`].
    advanced: Vec<(Series, i64)>,
}

impl Store {
    /// Begins a batch, now.
    pub(super) fn begin(&mut self, base_ms: i64, now_s: u32) {
        self.base_ms = base_ms;
        self.now_s = now_s;
        self.batch += 1;
        for table in &mut self.tables {
            table.taken.samples = Vec::with_capacity(table.samples_before);
        }
    }

    /// Whether so much is remembered that there is no room for another large batch.
    pub(super) fn is_crowded(&self) -> bool {
        self.len() > SERIES_MAX / 8 * 7 || self.label_bytes > LABELS_BYTES_MAX / 8 * 7
    }

    /// How many series there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The series with these labels, made if there is none.
    ///
    /// # Errors
    ///
    /// There are too many series, or the labels are not acceptable.
    pub(super) fn find_or_make(&mut self, labels: &mut LabelsBuilder) -> Result<Series, StoreError> {
        if self.building.is_full() {
            self.seal();
        }
        let index = self.building.push(labels).map_err(StoreError::Labels)?;
        let (hash, new) = (self.building.hash64(index), self.building.labels(index));
        if let Some(series) = self.by_labels.find(hash, |series| self.labels(*series) == new).copied() {
            self.building.pop();
            return Ok(Series(series));
        }
        let bytes = new.as_encoded().len();
        if self.len() >= SERIES_MAX
            || self.label_bytes + bytes > LABELS_BYTES_MAX
            || self.tables.len() >= usize::from(u16::MAX)
        {
            self.building.pop();
            return Err(StoreError::Full);
        }
        self.label_bytes += bytes;
        let slot = Slot {
            place: Place { block: self.tables.len() as u16, index: index as u16 },
            seen_s: self.now_s,
            described: false,
            batch: (self.batch as u16).wrapping_sub(1),
            last_ns: i64::MIN,
        };
        let series = match self.free.pop() {
            Some(free) => {
                self.slots[free as usize] = slot;
                free
            }
            None => {
                self.slots.push(slot);
                self.slots.len() as u32 - 1
            }
        };
        self.building_series.push(series);
        let Self { by_labels, slots, tables, building, .. } = self;
        by_labels.insert_unique(hash, series, |series| {
            let Place { block, index } = slots[*series as usize].place;
            match tables.get(usize::from(block)) {
                Some(table) => table.block.hash64(u32::from(index)),
                None => building.hash64(u32::from(index)),
            }
        });
        Ok(Series(series))
    }

    fn labels(&self, series: u32) -> Labels<'_> {
        let Place { block, index } = self.slots[series as usize].place;
        match self.tables.get(usize::from(block)) {
            Some(table) => table.block.labels(u32::from(index)),
            None => self.building.labels(u32::from(index)),
        }
    }

    /// The batch has the series.
    pub(super) fn touch(&mut self, series: Series) {
        self.slots[series.0 as usize].seen_s = self.now_s;
    }

    /// A point of the series has this time. Whether it is to be sent: not when it is older than the one before.
    #[inline]
    pub(super) fn takes(&mut self, series: Series, time_ns: i64) -> bool {
        let slot = &mut self.slots[series.0 as usize];
        slot.seen_s = self.now_s;
        if time_ns < slot.last_ns {
            return false;
        }
        if slot.batch != self.batch as u16 {
            slot.batch = self.batch as u16;
        } else if time_ns > slot.last_ns {
            self.advanced.push((series, slot.last_ns));
        }
        slot.last_ns = time_ns;
        true
    }

    /// As [`takes`](Self::takes), for an exemplar.
    pub(super) fn takes_exemplar(&mut self, series: Series, time_ns: i64) -> bool {
        let last_ns = self.exemplars_ns.entry(series.0).or_insert(i64::MIN);
        if time_ns < *last_ns {
            return false;
        }
        *last_ns = time_ns;
        true
    }

    /// The series begins to count at this time, before the point. Whether a sample is to be sent that says so: not when it
    /// is known already, or when it would be older than what was sent.
    pub(super) fn takes_start(&mut self, series: Series, start_ms: i64, time_ms: i64) -> bool {
        let started = self.started_in_this_batch(series);
        if start_ms <= started.zero_ms || start_ms >= time_ms || start_ms <= started.before_ms {
            return false;
        }
        started.zero_ms = start_ms;
        true
    }

    /// Notes a sample, for [`takes_start`](Self::takes_start).
    pub(super) fn note_sample(&mut self, series: Series, time_ms: i64) {
        let started = self.started_in_this_batch(series);
        started.last_ms = started.last_ms.max(time_ms);
    }

    fn started_in_this_batch(&mut self, series: Series) -> &mut Started {
        let (batch, never) = (self.batch, i64::MIN);
        // The Unix epoch is no start.
        let new = Started { zero_ms: 0, before_ms: never, last_ms: never, batch };
        let started = self.started.entry(series.0).or_insert(new);
        if started.batch != batch {
            started.before_ms = started.last_ms;
            started.batch = batch;
        }
        started
    }

    fn taken(&mut self, series: Series) -> (u32, &mut Taken) {
        let Place { block, index } = self.slots[series.0 as usize].place;
        let taken = match self.tables.get_mut(usize::from(block)) {
            Some(table) => &mut table.taken,
            None => &mut self.building_taken,
        };
        (u32::from(index), taken)
    }

    /// Adds a sample to the batch.
    #[inline]
    pub(super) fn push(&mut self, series: Series, time_ms: i64, value: f64) {
        match i32::try_from(time_ms.saturating_sub(self.base_ms)) {
            Ok(offset_ms) => {
                let (index, taken) = self.taken(series);
                taken.samples.push(Sample { value, index, offset_ms });
            }
            Err(_) => self.far.push((series.0, time_ms, value)),
        }
    }

    /// Adds a native histogram to the batch.
    pub(super) fn push_histogram(&mut self, series: Series, timestamp_ms: i64, histogram: Histogram) {
        let (index, taken) = self.taken(series);
        taken.histograms.push(HistogramSample { index, timestamp_ms, histogram: Arc::new(histogram) });
    }

    /// Adds an exemplar to the batch.
    pub(super) fn push_exemplar(&mut self, series: Series, exemplar: Exemplar) {
        let (index, taken) = self.taken(series);
        taken.exemplars.push(Exemplar { index, ..exemplar });
    }

    /// Adds to the batch what is known of the series' family, unless it was handed on before and is no `news`.
    pub(super) fn describe(&mut self, series: Series, metadata: &Arc<Metadata>, news: bool) {
        if std::mem::replace(&mut self.slots[series.0 as usize].described, true) && !news {
            return;
        }
        let (index, taken) = self.taken(series);
        taken.metadata.push(SeriesMetadata { index, metadata: Arc::clone(metadata) });
    }

    /// Ends the batch: what it brought.
    pub(super) fn finish(&mut self) -> Vec<SeriesPart> {
        self.seal();
        let mut parts: Vec<SeriesPart> = Vec::with_capacity(self.tables.len());
        for (series, time_ms, value) in std::mem::take(&mut self.far) {
            let place = self.slots[series as usize].place;
            let block = &self.tables[usize::from(place.block)].block;
            let sample = Sample { value, index: u32::from(place.index), offset_ms: 0 };
            match parts.last_mut().filter(|part| part.base_ms == time_ms && part.block.id() == block.id()) {
                Some(part) => part.samples.push(sample),
                None => parts.push(SeriesPart::of_samples(Arc::clone(block), time_ms, vec![sample])),
            }
        }
        for table in &mut self.tables {
            table.samples_before = table.taken.samples.len();
            let taken = std::mem::take(&mut table.taken);
            if !taken.is_empty() {
                parts.push(SeriesPart {
                    block: Arc::clone(&table.block),
                    base_ms: self.base_ms,
                    samples: taken.samples,
                    histograms: taken.histograms,
                    exemplars: taken.exemplars,
                    metadata: taken.metadata,
                });
            }
        }
        self.join_small();
        parts
    }

    /// What undoes the batch that ended last.
    pub(super) fn take_undo(&mut self) -> Undo {
        Undo { batch: self.batch as u16, advanced: std::mem::take(&mut self.advanced) }
    }

    /// Takes the points of a batch once more, which nobody wanted. Those of series that a later batch had are too old by now.
    pub(super) fn undo(&mut self, Undo { batch, advanced }: Undo) {
        // From the last to the first, so that the first time of each series stays. A point of that time is not older.
        for (series, before_ns) in advanced.into_iter().rev() {
            if let Some(slot) = self.slots.get_mut(series.0 as usize).filter(|slot| slot.batch == batch) {
                slot.last_ns = slot.last_ns.min(before_ns);
            }
        }
    }

    /// Makes a block of the new series.
    fn seal(&mut self) {
        if self.building.is_empty() {
            return;
        }
        self.tables.push(Table {
            block: std::mem::take(&mut self.building).finish(true),
            series: std::mem::take(&mut self.building_series),
            gone: 0,
            taken: std::mem::take(&mut self.building_taken),
            samples_before: 0,
        });
    }

    /// Joins the last blocks where they are small.
    fn join_small(&mut self) {
        while let [.., before, last] = &*self.tables {
            let series = before.series.len() + last.series.len();
            let bytes = before.block.size_bytes() + last.block.size_bytes();
            if before.series.len() > 2 * last.series.len()
                || series >= SERIES_PER_BLOCK_MAX
                || bytes >= ARENA_BYTES_SOFT_MAX
            {
                return;
            }
            self.rebuild(self.tables.len() - 2);
        }
    }

    /// Makes new blocks of the series that are left of some blocks and of those behind them.
    fn rebuild(&mut self, from: usize) {
        let mut samples = 0;
        for table in self.tables.split_off(from) {
            samples += table.samples_before;
            for (index, series) in table.series.iter().enumerate().filter(|(_, series)| **series != GONE) {
                if self.building.is_full() {
                    self.seal();
                }
                let at = self.building.push_labels(table.block.labels(index as u32));
                self.building_series.push(*series);
                self.slots[*series as usize].place = Place { block: self.tables.len() as u16, index: at as u16 };
            }
        }
        self.seal();
        if let Some(last) = self.tables.last_mut() {
            last.samples_before = samples.min(last.series.len());
        }
    }

    /// Forgets the series that no batch had since then, between batches.
    pub(super) fn forget_unseen(&mut self, since_s: u32) {
        let mut gone = 0;
        for table in &mut self.tables {
            for (index, series) in table.series.iter_mut().enumerate() {
                if *series == GONE || self.slots[*series as usize].seen_s >= since_s {
                    continue;
                }
                let index = index as u32;
                let hash = table.block.hash64(index);
                if let Ok(found) = self.by_labels.find_entry(hash, |other| other == series) {
                    found.remove();
                }
                self.label_bytes -= table.block.labels(index).as_encoded().len();
                self.exemplars_ns.remove(series);
                self.started.remove(series);
                self.free.push(*series);
                *series = GONE;
                table.gone += 1;
            }
            gone += table.gone;
        }
        let all: usize = self.tables.iter().map(|table| table.series.len()).sum();
        if gone * 3 > all {
            self.rebuild(0);
            self.by_labels.shrink_to(0, |series| {
                let Place { block, index } = self.slots[*series as usize].place;
                self.tables[usize::from(block)].block.hash64(u32::from(index))
            });
        }
    }

    /// Whether the series is still there, after some were forgotten.
    pub(super) fn has(&self, series: Series, since_s: u32) -> bool {
        self.slots[series.0 as usize].seen_s >= since_s
    }

    /// What it takes, in bytes, about.
    pub(super) fn held_bytes(&self) -> usize {
        let table = |table: &Table| table.block.size_bytes() + table.series.capacity() * 4;
        self.tables.iter().map(table).sum::<usize>()
            + self.slots.capacity() * size_of::<Slot>()
            + self.by_labels.capacity() * 5
            + self.exemplars_ns.capacity() * 16
            + self.started.capacity() * 40
    }
}
