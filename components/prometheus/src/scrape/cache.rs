//! What a scrape remembers of a target's series.
//!
//! A target exposes nearly the same lines in nearly the same order each time. The cache keeps, in the order of the last
//! scrape, a keyed hash of the text of each series and where its label set lies, and predicts the next line from that: a
//! steady line costs one hash and one comparison, and nobody looks at its labels. The text itself is not kept.

use std::collections::HashMap;
use std::sync::Arc;

use corten_signal::labels::METRIC_NAME;
use corten_signal::metrics::{
    Exemplar, Histogram, HistogramCounts, HistogramSample, Metadata, MetricType, ResetHint, STALE_NAN, SeriesMetadata,
};
use corten_signal::{BlockBuilder, Labels, LabelsBuilder, Sample, SeriesBlock, SeriesPart};
use corten_wire::exposition::{
    ParseError, TextSink, exemplar_fits, is_legacy_label_name, is_legacy_metric_name, read_exemplar_labels,
    read_series, type_name, unescape, unescape_help,
};
use corten_wire::histogram::{limit_buckets, limit_schema, schema_for_factor, validate};
use corten_wire::nhcb::NhcbTally;
use hashbrown::HashTable;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

/// How the labels of a target and those that it exposes are joined, and what is accepted of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SeriesRules {
    /// Whether exposed labels win over the target's.
    pub(crate) honor_labels: bool,
    /// Whether exposed times are used.
    pub(crate) honor_timestamps: bool,
    /// Whether series with exposed times get staleness markers, too.
    pub(crate) track_timestamps_staleness: bool,
    /// The most samples in a scrape; 0 is no limit.
    pub(crate) sample_limit: u64,
    /// The most labels of a series; 0 is no limit.
    pub(crate) label_limit: u64,
    /// The longest label name in bytes; 0 is no limit.
    pub(crate) label_name_length_limit: u64,
    /// The longest label value in bytes; 0 is no limit.
    pub(crate) label_value_length_limit: u64,
    /// Whether names may be any UTF-8 text.
    pub(crate) utf8_names: bool,
    /// The most buckets of a native histogram; 0 is no limit.
    pub(crate) bucket_limit: u64,
    /// The smallest growth from one bucket of a native histogram to the next; 0 is no limit.
    pub(crate) min_bucket_factor: f64,
    /// Whether what is known of families is handed on.
    pub(crate) metadata: bool,
    /// Whether type and unit are added as labels.
    pub(crate) type_and_unit_labels: bool,
    /// Whether the start of a series makes a sample of value zero.
    pub(crate) start_timestamp_zeros: bool,
}

/// Why what a target exposes was refused as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ExpositionError {
    /// The text is broken.
    Parse(ParseError),
    /// A series is not acceptable.
    Series(String),
    /// A series has more or longer labels than the limits.
    LabelLimit(String),
    /// A native histogram has more buckets than the limit, and cannot have fewer.
    BucketLimit(String),
    /// More samples than the limit.
    SampleLimit,
}

impl From<ParseError> for ExpositionError {
    fn from(error: ParseError) -> Self {
        ExpositionError::Parse(error)
    }
}

impl std::fmt::Display for ExpositionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ExpositionError::Parse(error) => error.fmt(f),
            ExpositionError::Series(message)
            | ExpositionError::LabelLimit(message)
            | ExpositionError::BucketLimit(message) => f.write_str(message),
            ExpositionError::SampleLimit => f.write_str("sample limit exceeded"),
        }
    }
}

/// A text of a series that was seen in the last scrape.
#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: [u64; 2],
    text_len: u32,
    at: Place,
}

/// Where a series lies: (block, index within the block).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Place {
    block: u16,
    index: u16,
}

/// A block of series of the target. `seen` holds, for each series, the number of the scrape that saw it last, shifted
/// by one, and in its lowest bit whether the sample had a time of its own.
struct Table {
    block: Arc<SeriesBlock>,
    seen: Vec<u32>,
    dead: u32,
    taken: Taken,
    samples_before: usize,
}

/// What the scrape under way brought for the series of a table.
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

/// The exemplar of a series that was handed on last.
#[derive(Clone, Copy, PartialEq)]
struct LastExemplar {
    timestamp_ms: i64,
    fingerprint: u64,
}

/// What is known of the families of a target.
#[derive(Default)]
struct Families {
    by_name: HashMap<Box<str>, Arc<Metadata>>,
    /// The families of which something else was said than in the scrape before.
    changed: Vec<Box<str>>,
    /// Whether anything was said that is not in `told`.
    news: bool,
    /// What was known after the last scrape that succeeded, for those who want to know where samples come from.
    told: Arc<HashMap<Box<str>, Arc<Metadata>>>,
    /// The unit of the family that was named last.
    unit: String,
    unit_of: String,
}

/// The series of one target.
pub(crate) struct SeriesCache {
    seed: u64,
    rules: SeriesRules,
    /// The target's public labels.
    target: LabelsBuilder,
    entries: Vec<Entry>,
    free: Vec<u32>,
    by_text: HashTable<u32>,
    by_labels: HashTable<Place>,
    tables: Vec<Table>,
    /// The entries in the order of the last successful scrape.
    order: Vec<u32>,
    /// Whether the series of `order` still count as present: not after a failed scrape, which marked them as ended.
    order_is_live: bool,
    scrape: Scrape,
    scratch: LabelsBuilder,
    exemplars: HashMap<Place, LastExemplar>,
    families: Families,
    /// Whether somebody wants to know of families.
    families_wanted: bool,
    /// The time of the last scrape that succeeded.
    committed_ms: i64,
    /// Whether the series of the next scrape may have been sent before, by another cache.
    follows: bool,
}

/// The state of the scrape that is under way.
#[derive(Default)]
struct Scrape {
    number: u32,
    base_ms: i64,
    /// Where in `order` the next line is expected.
    cursor: usize,
    /// The order of this scrape, once it differs from the last.
    new_order: Option<Vec<u32>>,
    current: Option<Current>,
    building: BlockBuilder,
    building_seen: Vec<u32>,
    building_taken: Taken,
    /// How many tables there were before this scrape.
    tables_before: usize,
    /// The entries that this scrape made.
    made: Vec<u32>,
    scraped: u64,
    kept: u64,
    added: u64,
    duplicates: u64,
    out_of_bounds: u64,
    /// How many samples count for the limit.
    limited: u64,
    over_limit: bool,
    latest_accepted_ms: i64,
    /// Samples whose own time lies too far from the scrape's for an offset.
    far: Vec<(Place, i64, f64)>,
    /// The series whose exemplars come now, and those exemplars.
    exemplars_of: Option<(Place, bool)>,
    exemplars: Vec<Exemplar>,
    start_ms: Option<i64>,
    bad_exemplars: u64,
    exemplars_seen: u64,
    exemplars_same: u64,
    exemplars_left_out: u64,
    stale: u64,
    starts: u64,
    nhcb: NhcbTally,
}

#[derive(Clone, Copy, Debug)]
struct Current {
    entry: u32,
    predicted: bool,
}

/// What a scrape brought.
#[derive(Debug, Default)]
pub(crate) struct Scraped {
    /// The samples and staleness markers.
    pub(crate) parts: Vec<SeriesPart>,
    /// How many samples were in the exposition.
    pub(crate) scraped: u64,
    /// How many of them were kept.
    pub(crate) kept: u64,
    /// How many series are new.
    pub(crate) added: u64,
    /// How many samples were dropped because their series stood twice in the exposition.
    pub(crate) duplicates: u64,
    /// How many samples were dropped because their time lies too far ahead.
    pub(crate) out_of_bounds: u64,
    /// How many exemplars were dropped because they are older than the one before.
    pub(crate) old_exemplars: u64,
    /// How many exemplars were in the exposition.
    pub(crate) exemplars: u64,
    /// How many of them are the same as the one before.
    pub(crate) same_exemplars: u64,
    /// How many of them were dropped for what they are, or because their sample was.
    pub(crate) exemplars_left_out: u64,
    /// How many staleness markers were made.
    pub(crate) stale: u64,
    /// How many samples of value zero were made where series begin.
    pub(crate) starts: u64,
    /// What became of classic histograms.
    pub(crate) nhcb: NhcbTally,
}

impl Scraped {
    /// How many samples, histograms and exemplars the exposition had.
    pub(crate) fn received(&self) -> u64 {
        let NhcbTally { made, joined, left_out } = self.nhcb;
        (self.scraped + self.exemplars + joined + left_out).saturating_sub(made)
    }
}

/// In place of the number of a scrape: the series has ended, or was never sent.
const ENDED: u32 = u32::MAX;

/// How far ahead of the scrape the time of a sample may lie, in milliseconds.
const AHEAD_MS_MAX: i64 = 10 * 60 * 1000;

/// The most blocks that a target's series stand in: an index fits into 16 bits. With the size of a block this bounds
/// the memory for one target.
const TABLES_MAX: usize = u16::MAX as usize;

/// How far around the expected line a known series is looked for before the prediction gives up on it.
const RESYNC_BACK: usize = 8;
const RESYNC_AHEAD: usize = 64;

impl SeriesCache {
    /// An empty cache for a target with these public labels.
    pub(crate) fn new(seed: u64, target: LabelsBuilder, rules: SeriesRules) -> Self {
        SeriesCache {
            seed,
            rules,
            target,
            entries: Vec::new(),
            free: Vec::new(),
            by_text: HashTable::new(),
            by_labels: HashTable::new(),
            tables: Vec::new(),
            order: Vec::new(),
            order_is_live: false,
            scrape: Scrape::default(),
            scratch: LabelsBuilder::new(),
            exemplars: HashMap::new(),
            families: Families::default(),
            families_wanted: false,
            committed_ms: i64::MIN,
            follows: false,
        }
    }

    /// Begins a scrape whose samples have this time unless they bring their own.
    pub(crate) fn begin(&mut self, base_ms: i64) {
        // The number is kept shifted by one; it wraps after two thousand million scrapes of a target.
        let number = (self.scrape.number + 1) % (u32::MAX >> 1);
        self.scrape = Scrape {
            number: number.max(1),
            base_ms,
            tables_before: self.tables.len(),
            latest_accepted_ms: base_ms + AHEAD_MS_MAX,
            ..Scrape::default()
        };
        for table in &mut self.tables {
            table.taken.samples = Vec::with_capacity(table.samples_before);
        }
    }

    /// Whether to note what is said of families, beyond what the rules ask for.
    pub(crate) fn set_families_wanted(&mut self, wanted: bool) {
        if wanted && !self.families_wanted {
            self.families.news = true;
        }
        if !wanted {
            self.families.told = Arc::default();
        }
        self.families_wanted = wanted;
    }

    /// What is known of families, by their names.
    pub(crate) fn families(&self) -> Arc<HashMap<Box<str>, Arc<Metadata>>> {
        Arc::clone(&self.families.told)
    }

    /// Ends a scrape that succeeded: its samples, and staleness markers for the series that are gone.
    pub(crate) fn succeed(&mut self) -> Scraped {
        self.flush_exemplars();
        self.seal_building();
        let unchanged = self.scrape.new_order.is_none() && self.scrape.cursor == self.order.len();
        if !unchanged {
            let order = match self.scrape.new_order.take() {
                Some(order) => order,
                None => self.order[..self.scrape.cursor].to_vec(),
            };
            let before = std::mem::replace(&mut self.order, order);
            self.forget_missing(&before);
        }
        self.order_is_live = true;
        self.push_changed_metadata();
        if std::mem::take(&mut self.families.news) && self.families_wanted {
            self.families.told = Arc::new(self.families.by_name.clone());
        }
        self.committed_ms = self.scrape.base_ms;
        self.follows = false;
        let scraped = self.take_scraped();
        self.rebuild_when_wasteful();
        scraped
    }

    /// Ends a scrape that failed: nothing of it counts, and every series of the one before has ended.
    pub(crate) fn fail(&mut self) -> Scraped {
        for id in std::mem::take(&mut self.scrape.made) {
            self.remove_entry(id);
            self.free.push(id);
        }
        let tables_before = self.scrape.tables_before;
        self.by_labels.retain(|place| usize::from(place.block) < tables_before);
        self.tables.truncate(tables_before);
        self.scrape.building = BlockBuilder::new();
        for table in &mut self.tables {
            table.taken = Taken::default();
        }
        self.scrape.building_taken = Taken::default();
        self.scrape.far.clear();
        self.exemplars.retain(|place, _| usize::from(place.block) < tables_before);
        // What was said of families in this scrape was not handed on: it counts as said anew.
        let told = std::mem::take(&mut self.families.told);
        self.families = Families { told, ..Families::default() };
        let scrape = &self.scrape;
        let (exemplars, nhcb) = (scrape.exemplars_seen, scrape.nhcb);
        let mut scraped = Scraped { scraped: scrape.scraped, exemplars, nhcb, ..Scraped::default() };
        scraped.parts = self.end_all();
        scraped.stale = self.scrape.stale;
        scraped
    }

    /// Staleness markers for every series of the last scrape; afterwards there are none.
    pub(crate) fn end_all(&mut self) -> Vec<SeriesPart> {
        if std::mem::take(&mut self.order_is_live) {
            let order = std::mem::take(&mut self.order);
            for id in &order {
                let place = self.entries[*id as usize].at;
                self.push_stale(place);
            }
            self.order = order;
        }
        self.take_parts()
    }

    /// Staleness markers for those series of the last scrape that another cache does not have; afterwards there are none.
    pub(crate) fn end_missing(&mut self, other: &SeriesCache) -> Vec<SeriesPart> {
        if !std::mem::take(&mut self.order_is_live) {
            return Vec::new();
        }
        let order = std::mem::take(&mut self.order);
        for id in &order {
            let place = self.entries[*id as usize].at;
            let table = &self.tables[usize::from(place.block)];
            let labels = table.block.labels(u32::from(place.index));
            if !other.has(labels) {
                self.push_stale(place);
            }
        }
        self.take_parts()
    }

    /// Whether the last scrape had a series of these labels.
    fn has(&self, labels: Labels<'_>) -> bool {
        self.order_is_live
            && self
                .by_labels
                .find(labels.hash64(), |p| labels_at(&self.tables, &self.scrape.building, *p) == labels)
                .is_some()
    }

    /// Whether the last scrape left series that have not ended.
    pub(crate) fn is_live(&self) -> bool {
        self.order_is_live
    }

    /// Begins where another cache of the same target stopped, as far as it is known what was sent by then.
    pub(crate) fn follow(&mut self, other: &SeriesCache) {
        self.committed_ms = self.committed_ms.max(other.committed_ms);
        self.follows |= other.is_live() || other.follows;
    }

    /// Changes the most samples that a scrape may have.
    pub(crate) fn set_sample_limit(&mut self, sample_limit: u64) {
        self.rules.sample_limit = sample_limit;
    }

    /// What the cache occupies, in bytes, without the allocator's share.
    #[cfg(test)]
    fn size_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
            + self.order.capacity() * 4
            + self.by_text.capacity() * 5
            + self.by_labels.capacity() * 5
            + self.tables.iter().map(|t| t.block.size_bytes() + t.seen.capacity() * 4).sum::<usize>()
    }

    fn take_scraped(&mut self) -> Scraped {
        let scrape = &self.scrape;
        Scraped {
            scraped: scrape.scraped,
            kept: scrape.kept,
            added: scrape.added,
            duplicates: scrape.duplicates,
            out_of_bounds: scrape.out_of_bounds,
            old_exemplars: scrape.bad_exemplars,
            exemplars: scrape.exemplars_seen,
            same_exemplars: scrape.exemplars_same,
            exemplars_left_out: scrape.exemplars_left_out,
            stale: scrape.stale,
            starts: scrape.starts,
            nhcb: scrape.nhcb,
            parts: self.take_parts(),
        }
    }

    fn take_parts(&mut self) -> Vec<SeriesPart> {
        let base_ms = self.scrape.base_ms;
        let mut parts: Vec<SeriesPart> = Vec::new();
        // Times that are too far for an offset lie in the past, so that they come first.
        for (place, time_ms, value) in std::mem::take(&mut self.scrape.far) {
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
                    base_ms,
                    samples: taken.samples,
                    histograms: taken.histograms,
                    exemplars: taken.exemplars,
                    metadata: taken.metadata,
                });
            }
        }
        parts
    }

    /// Forgets the texts that stood in the order before and do not stand in this one, and ends their series.
    fn forget_missing(&mut self, before: &[u32]) {
        let mut present = IdSet::for_ids_below(self.entries.len());
        for &id in &self.order {
            present.insert(id);
        }
        for &id in before {
            // A text can stand in an order twice; it is forgotten once.
            if !present.insert(id) {
                continue;
            }
            let place = self.entries[id as usize].at;
            self.remove_entry(id);
            self.free.push(id);
            let table = &mut self.tables[usize::from(place.block)];
            if table.seen[usize::from(place.index)] >> 1 == self.scrape.number {
                // The series has another text now.
                continue;
            }
            table.dead += 1;
            let hash = table.block.hash64(u32::from(place.index));
            if let Ok(found) = self.by_labels.find_entry(hash, |p| *p == place) {
                found.remove();
            }
            self.exemplars.remove(&place);
            if self.order_is_live {
                self.push_stale(place);
            }
        }
    }

    fn push_stale(&mut self, place: Place) {
        let table = &mut self.tables[usize::from(place.block)];
        let seen = &mut table.seen[usize::from(place.index)];
        let has_time = *seen & 1 == 1;
        if *seen != ENDED && (!has_time || self.rules.track_timestamps_staleness) {
            table.taken.samples.push(Sample { value: STALE_NAN, index: u32::from(place.index), offset_ms: 0 });
            self.scrape.stale += 1;
        }
        // Whatever text refers to the series as well: it is marked once.
        *seen = ENDED;
    }

    fn remove_entry(&mut self, id: u32) {
        let hash = self.entries[id as usize].hash[0];
        if let Ok(found) = self.by_text.find_entry(hash, |other| *other == id) {
            found.remove();
        }
    }

    /// Copies what is alive into new blocks once a third of what the blocks hold is not.
    fn rebuild_when_wasteful(&mut self) {
        let total: usize = self.tables.iter().map(|t| t.block.len()).sum();
        let dead: usize = self.tables.iter().map(|t| t.dead as usize).sum();
        let crowded = self.tables.len() > TABLES_MAX / 2;
        if total == 0 || (dead * 3 <= total && !crowded) {
            return;
        }
        let old = std::mem::take(&mut self.tables);
        let mut moved: Vec<Vec<Place>> = old.iter().map(|t| vec![NOWHERE; t.block.len()]).collect();
        self.by_labels.clear();
        self.scrape.tables_before = 0;
        let order = std::mem::take(&mut self.order);
        let mut visited = IdSet::for_ids_below(self.entries.len());
        for &id in &order {
            // A text can stand in an order twice; its entry is moved once.
            if !visited.insert(id) {
                continue;
            }
            let at = self.entries[id as usize].at;
            let (block, index) = (usize::from(at.block), usize::from(at.index));
            if moved[block][index] == NOWHERE {
                if self.scrape.building.is_full() {
                    self.seal_building();
                }
                let table = &old[block];
                self.scrape.building.push_labels(table.block.labels(u32::from(at.index)));
                self.scrape.building_seen.push(table.seen[index]);
                moved[block][index] = self.building_place();
                self.index_labels(moved[block][index]);
            }
            self.entries[id as usize].at = moved[block][index];
        }
        self.order = order;
        self.seal_building();
        for table in &mut self.tables {
            table.samples_before = table.block.len();
        }
        let exemplars = std::mem::take(&mut self.exemplars);
        self.exemplars = exemplars
            .into_iter()
            .map(|(place, last)| (moved[usize::from(place.block)][usize::from(place.index)], last))
            .filter(|(place, _)| *place != NOWHERE)
            .collect();
    }

    fn building_place(&self) -> Place {
        Place { block: self.tables.len() as u16, index: (self.scrape.building.len() - 1) as u16 }
    }

    fn index_labels(&mut self, place: Place) {
        let (tables, building) = (&self.tables, &self.scrape.building);
        let hash_of = |p: &Place| match tables.get(usize::from(p.block)) {
            Some(table) => table.block.hash64(u32::from(p.index)),
            None => building.hash64(u32::from(p.index)),
        };
        self.by_labels.insert_unique(hash_of(&place), place, hash_of);
    }

    fn seal_building(&mut self) {
        if self.scrape.building.is_empty() {
            return;
        }
        let building = std::mem::take(&mut self.scrape.building);
        self.tables.push(Table {
            block: building.finish(true),
            seen: std::mem::take(&mut self.scrape.building_seen),
            dead: 0,
            taken: std::mem::take(&mut self.scrape.building_taken),
            samples_before: 0,
        });
    }

    fn hash(&self, text: &[u8], metric_type: MetricType) -> [u64; 2] {
        // The type decides how some labels are written, so that one text is two series under two types.
        let salt = if self.rules.type_and_unit_labels {
            // Type and unit are labels then.
            metric_type as u64 | xxh3_64(self.families.unit.as_bytes()) << 8
        } else {
            match metric_type {
                MetricType::Histogram => 1,
                MetricType::Summary => 2,
                _ => 0,
            }
        };
        let hash = xxh3_128_with_seed(text, self.seed ^ salt);
        [hash as u64, (hash >> 64) as u64]
    }

    fn find_text(&self, hash: [u64; 2], len: usize) -> Option<u32> {
        self.by_text
            .find(hash[0], |id| {
                let entry = &self.entries[*id as usize];
                entry.hash == hash && entry.text_len as usize == len
            })
            .copied()
    }

    /// Reads the labels of a series that was not seen before and finds or makes its place.
    fn place_new(&mut self, text: &[u8], metric_type: MetricType) -> Result<Place, ExpositionError> {
        let mut labels = std::mem::take(&mut self.scratch);
        labels.clear();
        let read = self.read_labels(text, metric_type, &mut labels);
        self.scratch = labels;
        read?;
        if self.scrape.building.is_full() {
            self.seal_building();
        }
        if self.tables.len() >= TABLES_MAX {
            return Err(ExpositionError::Series(format!("the target has more than {TABLES_MAX} blocks of series")));
        }
        let building = &mut self.scrape.building;
        let index = building.push(&mut self.scratch).map_err(|e| ExpositionError::Series(e.to_string()))?;
        let (tables, building) = (&self.tables, &self.scrape.building);
        let new = building.labels(index);
        let same = self.by_labels.find(building.hash64(index), |p| labels_at(tables, building, *p) == new).copied();
        if let Some(place) = same {
            self.scrape.building.pop();
            return Ok(place);
        }
        self.scrape.building_seen.push(0);
        let place = self.building_place();
        self.index_labels(place);
        self.scrape.added += 1;
        if self.rules.metadata
            && let Some(metadata) = self.families.of_series(text)
        {
            let index = u32::from(place.index);
            self.scrape.building_taken.metadata.push(SeriesMetadata { index, metadata });
        }
        Ok(place)
    }

    fn read_labels(
        &self,
        text: &[u8],
        metric_type: MetricType,
        labels: &mut LabelsBuilder,
    ) -> Result<(), ExpositionError> {
        read_series(text, metric_type, labels)?;
        if self.rules.type_and_unit_labels {
            labels.retain(|name, _| name != TYPE_LABEL && name != UNIT_LABEL);
            if metric_type != MetricType::Unknown {
                labels.push(TYPE_LABEL, type_name(metric_type));
            }
            let metric = labels.get(METRIC_NAME).unwrap_or_default();
            if !self.families.unit.is_empty() && metric.starts_with(&self.families.unit_of) {
                labels.push(UNIT_LABEL, &self.families.unit);
            }
        }
        join_target_labels(labels, &self.target, self.rules.honor_labels);
        if labels.get(METRIC_NAME).is_none_or(str::is_empty) {
            return Err(ExpositionError::Series("missing metric name (__name__ label)".to_owned()));
        }
        let is_invalid = |(name, value): (&str, &str)| {
            !value.is_empty()
                && if name == METRIC_NAME { !is_legacy_metric_name(value) } else { !is_legacy_label_name(name) }
        };
        if !self.rules.utf8_names && labels.iter().any(is_invalid) {
            let shown = shown_labels(labels);
            return Err(ExpositionError::Series(format!("invalid metric name or label names: {shown}")));
        }
        self.check_limits(labels)
    }

    fn check_limits(&self, labels: &LabelsBuilder) -> Result<(), ExpositionError> {
        let rules = &self.rules;
        let metric = labels.get(METRIC_NAME).unwrap_or_default();
        let count = labels.iter().filter(|(_, value)| !value.is_empty()).count() as u64;
        if rules.label_limit > 0 && count > rules.label_limit {
            return Err(ExpositionError::LabelLimit(format!(
                "label_limit exceeded (metric: {metric:.50}, number of labels: {count}, limit: {})",
                rules.label_limit
            )));
        }
        for (name, value) in labels.iter().filter(|(_, value)| !value.is_empty()) {
            let (len, limit) = (name.len() as u64, rules.label_name_length_limit);
            if limit > 0 && len > limit {
                return Err(ExpositionError::LabelLimit(format!(
                    "label_name_length_limit exceeded (metric: {metric:.50}, label name: {name:.50}, length: {len}, \
                     limit: {limit})"
                )));
            }
            let (len, limit) = (value.len() as u64, rules.label_value_length_limit);
            if limit > 0 && len > limit {
                let shown: String = value.chars().take(50).collect();
                return Err(ExpositionError::LabelLimit(format!(
                    "label_value_length_limit exceeded (metric: {metric:.50}, label name: {name:.50}, value: {shown:?}, \
                     length: {len}, limit: {limit})"
                )));
            }
        }
        Ok(())
    }

    /// Notes that an entry stands next in the order of this scrape, and where the next line is expected.
    fn advance(&mut self, current: Current) {
        let cursor = self.scrape.cursor;
        if current.predicted {
            if let Some(order) = &mut self.scrape.new_order {
                order.push(current.entry);
            }
            self.scrape.cursor = cursor + 1;
            return;
        }
        if self.scrape.new_order.is_none() {
            let mut order = Vec::with_capacity(self.order.len() + 16);
            order.extend_from_slice(&self.order[..cursor.min(self.order.len())]);
            self.scrape.new_order = Some(order);
        }
        if let Some(order) = &mut self.scrape.new_order {
            order.push(current.entry);
        }
        let start = cursor.saturating_sub(RESYNC_BACK).min(self.order.len());
        let end = (cursor + RESYNC_AHEAD).min(self.order.len());
        let found = self.order[start..end].iter().position(|id| *id == current.entry);
        // A text that is not near stands most likely where another stood before.
        self.scrape.cursor = found.map_or(cursor + 1, |at| start + at + 1);
    }
}

/// A set of entry numbers.
struct IdSet(Vec<u64>);

impl IdSet {
    fn for_ids_below(count: usize) -> Self {
        IdSet(vec![0; count.div_ceil(64)])
    }

    /// Adds a number; whether it is new.
    fn insert(&mut self, id: u32) -> bool {
        let word = &mut self.0[id as usize / 64];
        let before = *word;
        *word |= 1 << (id % 64);
        *word != before
    }
}

const TYPE_LABEL: &str = "__type__";
const UNIT_LABEL: &str = "__unit__";

const NOWHERE: Place = Place { block: u16::MAX, index: u16::MAX };

fn labels_at<'a>(tables: &'a [Table], building: &'a BlockBuilder, place: Place) -> Labels<'a> {
    match tables.get(usize::from(place.block)) {
        Some(table) => table.block.labels(u32::from(place.index)),
        None => building.labels(u32::from(place.index)),
    }
}

impl TextSink for SeriesCache {
    type Error = ExpositionError;

    #[inline]
    fn recognise(&mut self, line: &[u8], metric_type: MetricType) -> Option<usize> {
        let id = *self.order.get(self.scrape.cursor)?;
        let entry = &self.entries[id as usize];
        let len = entry.text_len as usize;
        if !matches!(line.get(len), Some(b' ' | b'\t')) || self.hash(&line[..len], metric_type) != entry.hash {
            return None;
        }
        self.scrape.current = Some(Current { entry: id, predicted: true });
        Some(len)
    }

    fn series(&mut self, text: &[u8], metric_type: MetricType) -> Result<(), ExpositionError> {
        let hash = self.hash(text, metric_type);
        let entry = match self.find_text(hash, text.len()) {
            Some(id) => id,
            None => {
                let at = self.place_new(text, metric_type)?;
                let new = Entry { hash, text_len: text.len() as u32, at };
                let id = match self.free.pop() {
                    Some(id) => {
                        self.entries[id as usize] = new;
                        id
                    }
                    None => {
                        self.entries.push(new);
                        (self.entries.len() - 1) as u32
                    }
                };
                let entries = &self.entries;
                self.by_text.insert_unique(hash[0], id, |id| entries[*id as usize].hash[0]);
                self.scrape.made.push(id);
                id
            }
        };
        self.scrape.current = Some(Current { entry, predicted: false });
        Ok(())
    }

    #[inline]
    fn sample(&mut self, value: f64, timestamp_ms: Option<i64>) -> Result<(), ExpositionError> {
        let Some((place, timestamp_ms)) = self.admit(timestamp_ms)? else { return Ok(()) };
        if let Some(start_ms) = self.scrape.start_ms.take() {
            self.push_start(place, start_ms, timestamp_ms.unwrap_or(self.scrape.base_ms));
        }
        let index = u32::from(place.index);
        match timestamp_ms.map(|time| i32::try_from(time.saturating_sub(self.scrape.base_ms))) {
            None => self.taken(place).samples.push(Sample { value, index, offset_ms: 0 }),
            Some(Ok(offset_ms)) => self.taken(place).samples.push(Sample { value, index, offset_ms }),
            Some(Err(_)) => self.scrape.far.push((place, timestamp_ms.unwrap_or_default(), value)),
        }
        Ok(())
    }

    fn start_timestamp(&mut self, start_ms: i64) -> Result<(), ExpositionError> {
        self.scrape.start_ms = Some(start_ms).filter(|_| self.rules.start_timestamp_zeros);
        Ok(())
    }

    fn histogram(&mut self, mut histogram: Histogram, timestamp_ms: Option<i64>) -> Result<(), ExpositionError> {
        let Some((place, timestamp_ms)) = self.admit(timestamp_ms)? else { return Ok(()) };
        let too_many = |error: &dyn std::fmt::Display| ExpositionError::BucketLimit(error.to_string());
        if self.rules.min_bucket_factor > 1.0 {
            limit_schema(&mut histogram, schema_for_factor(self.rules.min_bucket_factor)).map_err(|e| too_many(&e))?;
        }
        if self.rules.bucket_limit > 0 {
            let limit = usize::try_from(self.rules.bucket_limit).unwrap_or(usize::MAX);
            limit_buckets(&mut histogram, limit).map_err(|e| too_many(&e))?;
        }
        validate(&histogram).map_err(|error| ExpositionError::Series(error.to_string()))?;
        let timestamp_ms = timestamp_ms.unwrap_or(self.scrape.base_ms);
        let index = u32::from(place.index);
        if let Some(start_ms) = self.scrape.start_ms.take()
            && self.starts_now(place, start_ms, timestamp_ms)
        {
            let empty = Arc::new(empty_like(&histogram));
            self.scrape.starts += 1;
            self.taken(place).histograms.push(HistogramSample { index, timestamp_ms: start_ms, histogram: empty });
        }
        let histogram = Arc::new(histogram);
        self.taken(place).histograms.push(HistogramSample { index, timestamp_ms, histogram });
        if let Some((_, of_histogram)) = &mut self.scrape.exemplars_of {
            *of_histogram = true;
        }
        Ok(())
    }

    fn exemplar(&mut self, labels: &[u8], value: f64, timestamp_ms: Option<i64>) -> Result<(), ExpositionError> {
        self.scrape.exemplars_seen += 1;
        let Some((place, of_histogram)) = self.scrape.exemplars_of else {
            self.scrape.exemplars_left_out += 1;
            return Ok(());
        };
        // Without a time of its own an exemplar of a native histogram cannot be told from the one before.
        if of_histogram && timestamp_ms.is_none() {
            self.scrape.exemplars_left_out += 1;
            return Ok(());
        }
        let labels = read_exemplar_labels(labels)?;
        if !exemplar_fits(labels.iter().map(|(name, value)| (&**name, &**value))) {
            self.scrape.exemplars_left_out += 1;
            return Ok(());
        }
        let timestamp_ms = timestamp_ms.unwrap_or(self.scrape.base_ms);
        self.scrape.exemplars.push(Exemplar { index: u32::from(place.index), timestamp_ms, value, labels });
        Ok(())
    }

    fn family_type(&mut self, name: &[u8], metric_type: MetricType) {
        if self.rules.metadata || self.rules.type_and_unit_labels || self.families_wanted {
            self.families.say(name, |metadata| metadata.metric_type = metric_type);
        }
    }

    fn family_help(&mut self, name: &[u8], help: &[u8]) {
        if self.rules.metadata || self.families_wanted {
            let help = unescape_help(&String::from_utf8_lossy(help)).into_owned();
            self.families.say(name, |metadata| metadata.help = help);
        }
    }

    fn family_unit(&mut self, name: &[u8], unit: &[u8]) {
        if self.rules.metadata || self.rules.type_and_unit_labels || self.families_wanted {
            let unit = String::from_utf8_lossy(unit).into_owned();
            self.families.unit.clone_from(&unit);
            self.families.say(name, |metadata| metadata.unit = unit);
        }
    }
}

/// A histogram without observations that can stand before another.
fn empty_like(histogram: &Histogram) -> Histogram {
    let counts = match histogram.counts {
        HistogramCounts::Int { .. } => {
            HistogramCounts::Int { count: 0, zero_count: 0, positive_deltas: Vec::new(), negative_deltas: Vec::new() }
        }
        HistogramCounts::Float { .. } => HistogramCounts::Float {
            count: 0.0,
            zero_count: 0.0,
            positive_counts: Vec::new(),
            negative_counts: Vec::new(),
        },
    };
    Histogram {
        schema: histogram.schema,
        zero_threshold: histogram.zero_threshold,
        sum: 0.0,
        reset_hint: ResetHint::Yes,
        positive_spans: Vec::new(),
        negative_spans: Vec::new(),
        counts,
        custom_values: histogram.custom_values.clone(),
    }
}

impl Families {
    /// Notes something of a family.
    fn say(&mut self, name: &[u8], note: impl FnOnce(&mut Metadata)) {
        let name = String::from_utf8_lossy(name);
        let name = unescape(&name);
        if self.unit_of != *name {
            // The family before has ended, and with it its unit.
            if self.by_name.get(&*name).is_none_or(|metadata| metadata.unit != self.unit) {
                self.unit.clear();
            }
            self.unit_of = name.clone().into_owned();
        }
        let known = self.by_name.get(&*name);
        let mut metadata =
            known.map_or_else(|| Metadata { family: name.to_string(), ..Metadata::default() }, |m| (**m).clone());
        note(&mut metadata);
        if known.is_none_or(|known| **known != metadata) {
            if known.is_some() && !self.changed.contains(&Box::from(&*name)) {
                self.changed.push(Box::from(&*name));
            }
            self.news = true;
            self.by_name.insert(Box::from(&*name), Arc::new(metadata));
        }
    }

    /// What is known of the family of a series, whose text this is.
    fn of_series(&self, text: &[u8]) -> Option<Arc<Metadata>> {
        let text = std::str::from_utf8(text).ok()?;
        let mut labels = LabelsBuilder::new();
        let name = match text.find(['{', ' ', '\t']) {
            Some(0) => {
                read_series(text.as_bytes(), MetricType::Unknown, &mut labels).ok()?;
                labels.get(METRIC_NAME)?
            }
            Some(end) => &text[..end],
            None => text,
        };
        self.of_metric(name)
    }

    /// What is known of the family of a metric of this name.
    fn of_metric(&self, name: &str) -> Option<Arc<Metadata>> {
        if let Some(metadata) = self.by_name.get(name) {
            return Some(Arc::clone(metadata));
        }
        let (stem, suffix) = name.rsplit_once('_')?;
        let metadata = self.by_name.get(stem)?;
        let belongs = match metadata.metric_type {
            MetricType::Counter => suffix == "total",
            MetricType::Histogram => matches!(suffix, "bucket" | "sum" | "count"),
            MetricType::GaugeHistogram => matches!(suffix, "bucket" | "gsum" | "gcount"),
            MetricType::Summary => matches!(suffix, "sum" | "count"),
            MetricType::Info => suffix == "info",
            _ => false,
        };
        belongs.then(|| Arc::clone(metadata))
    }
}

impl SeriesCache {
    /// Counts a sample or histogram of the current series and decides whether it is kept: then its place, and the time
    /// that it brought.
    #[inline]
    fn admit(&mut self, timestamp_ms: Option<i64>) -> Result<Option<(Place, Option<i64>)>, ExpositionError> {
        let Some(current) = self.scrape.current.take() else {
            return Err(ExpositionError::Series("a sample without a series".to_owned()));
        };
        if !self.scrape.exemplars.is_empty() {
            self.flush_exemplars();
        }
        self.scrape.exemplars_of = None;
        self.scrape.scraped += 1;
        self.advance(current);
        let timestamp_ms = timestamp_ms.filter(|_| self.rules.honor_timestamps);
        let place = self.entries[current.entry as usize].at;
        let number = self.scrape.number;
        let seen = match self.tables.get_mut(usize::from(place.block)) {
            Some(table) => &mut table.seen[usize::from(place.index)],
            None => &mut self.scrape.building_seen[usize::from(place.index)],
        };
        if timestamp_ms.is_none() && *seen >> 1 == number {
            self.scrape.duplicates += 1;
            return Ok(None);
        }
        // What stands twice does not count for the limit.
        self.scrape.limited += 1;
        if self.rules.sample_limit > 0 && self.scrape.limited > self.rules.sample_limit {
            self.scrape.over_limit = true;
            return Ok(None);
        }
        match timestamp_ms {
            Some(time) if time > self.scrape.latest_accepted_ms => {
                self.scrape.out_of_bounds += 1;
                if *seen == 0 {
                    // What was never sent does not end either.
                    *seen = ENDED;
                }
                return Ok(None);
            }
            _ => {}
        }
        *seen = number << 1 | u32::from(timestamp_ms.is_some());
        self.scrape.exemplars_of = Some((place, false));
        self.scrape.kept += 1;
        Ok(Some((place, timestamp_ms)))
    }

    #[inline]
    fn taken(&mut self, place: Place) -> &mut Taken {
        match self.tables.get_mut(usize::from(place.block)) {
            Some(table) => &mut table.taken,
            None => &mut self.scrape.building_taken,
        }
    }

    /// Whether a series that says when it began to count began after what was handed on of it, and before this sample.
    fn starts_now(&self, place: Place, start_ms: i64, timestamp_ms: i64) -> bool {
        let is_new = !self.follows && usize::from(place.block) >= self.scrape.tables_before;
        start_ms < timestamp_ms && (is_new || start_ms > self.committed_ms)
    }

    fn push_start(&mut self, place: Place, start_ms: i64, timestamp_ms: i64) {
        if self.starts_now(place, start_ms, timestamp_ms) {
            self.scrape.starts += 1;
            match i32::try_from(start_ms.saturating_sub(self.scrape.base_ms)) {
                Ok(offset_ms) => {
                    let index = u32::from(place.index);
                    self.taken(place).samples.push(Sample { value: 0.0, index, offset_ms });
                }
                Err(_) => self.scrape.far.push((place, start_ms, 0.0)),
            }
        }
    }

    /// Hands on the exemplars of a series, oldest first: those that are not older than the last one, and not the same.
    fn flush_exemplars(&mut self) {
        let mut exemplars = std::mem::take(&mut self.scrape.exemplars);
        let Some((place, _)) = self.scrape.exemplars_of else { return };
        exemplars.sort_by(|a, b| {
            let order = a.timestamp_ms.cmp(&b.timestamp_ms).then_with(|| a.value.total_cmp(&b.value));
            order.then_with(|| a.labels.cmp(&b.labels))
        });
        for exemplar in exemplars {
            let last = LastExemplar { timestamp_ms: exemplar.timestamp_ms, fingerprint: fingerprint(&exemplar) };
            match self.exemplars.get(&place) {
                Some(before) if *before == last => {
                    self.scrape.exemplars_same += 1;
                    continue;
                }
                Some(before) if last.timestamp_ms < before.timestamp_ms => {
                    self.scrape.bad_exemplars += 1;
                    continue;
                }
                _ => {}
            }
            self.exemplars.insert(place, last);
            self.taken(place).exemplars.push(exemplar);
        }
    }

    /// Hands on what is known of the series of families of which something else is said now.
    fn push_changed_metadata(&mut self) {
        let changed = std::mem::take(&mut self.families.changed);
        if changed.is_empty() || !self.rules.metadata {
            return;
        }
        let order = std::mem::take(&mut self.order);
        for id in &order {
            let place = self.entries[*id as usize].at;
            // Series of this scrape were given theirs when they were made.
            if usize::from(place.block) >= self.scrape.tables_before {
                continue;
            }
            let table = &mut self.tables[usize::from(place.block)];
            let name = table.block.labels(u32::from(place.index)).get(METRIC_NAME).unwrap_or_default();
            if let Some(metadata) = self.families.of_metric(name)
                && changed.iter().any(|family| **family == *metadata.family)
            {
                table.taken.metadata.push(SeriesMetadata { index: u32::from(place.index), metadata });
            }
        }
        self.order = order;
    }
}

fn fingerprint(exemplar: &Exemplar) -> u64 {
    let mut bytes = exemplar.value.to_bits().to_le_bytes().to_vec();
    for (name, value) in &exemplar.labels {
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0xff);
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0xff);
    }
    xxh3_64(&bytes)
}

impl SeriesCache {
    /// What became of classic histograms on their way here.
    pub(crate) fn set_nhcb(&mut self, tally: NhcbTally) {
        self.scrape.nhcb = tally;
    }

    /// Whether the scrape under way has more samples than its limit.
    pub(crate) fn is_over_limit(&self) -> bool {
        self.scrape.over_limit
    }
}

/// Labels as an error shows them, cut off where they are long.
fn shown_labels(labels: &LabelsBuilder) -> String {
    const SHOWN_BYTES_MAX: usize = 1 << 10;
    let mut sorted: Vec<(&str, &str)> = labels.iter().filter(|(_, value)| !value.is_empty()).collect();
    sorted.sort_unstable();
    let mut shown = String::from("{");
    for (at, (name, value)) in sorted.into_iter().enumerate() {
        if shown.len() > SHOWN_BYTES_MAX {
            shown.push_str(", ...");
            break;
        }
        shown.push_str(if at == 0 { "" } else { ", " });
        match is_legacy_label_name(name) {
            true => shown.push_str(&name[..name.floor_char_boundary(SHOWN_BYTES_MAX)]),
            false => shown.push_str(&format!("{:?}", &name[..name.floor_char_boundary(SHOWN_BYTES_MAX)])),
        }
        shown.push_str(&format!("={:?}", &value[..value.floor_char_boundary(SHOWN_BYTES_MAX)]));
    }
    shown.push('}');
    shown
}

/// Joins the exposed labels of a series with the target's. Where both have a name, either the exposed one wins, or it is
/// kept under a name with `exported_` before it, as often as needed.
fn join_target_labels(labels: &mut LabelsBuilder, target: &LabelsBuilder, honor_labels: bool) {
    if honor_labels {
        for (name, value) in target.iter() {
            // An exposed label without a value counts as present, and then disappears.
            if labels.get(name).is_none() {
                labels.push(name, value);
            }
        }
        return;
    }
    let mut conflicts: Vec<(String, String)> = Vec::new();
    for (name, _) in target.iter() {
        if let Some(value) = labels.get(name) {
            if !value.is_empty() {
                conflicts.push((name.to_owned(), value.to_owned()));
            }
            labels.remove(name);
        }
    }
    for (name, value) in target.iter() {
        labels.push(name, value);
    }
    conflicts.sort_by(|a, b| a.0.len().cmp(&b.0.len()).then_with(|| a.0.cmp(&b.0)));
    for (name, value) in conflicts {
        let mut exported = format!("exported_{name}");
        while labels.get(&exported).is_some_and(|taken| !taken.is_empty()) {
            exported.insert_str(0, "exported_");
        }
        labels.set(&exported, &value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_signal::metrics::is_stale;
    use corten_wire::text::TextParser;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn target(labels: &[(&str, &str)]) -> LabelsBuilder {
        let mut builder = LabelsBuilder::new();
        for (name, value) in labels {
            builder.push(name, value);
        }
        builder
    }

    fn cache(rules: SeriesRules) -> SeriesCache {
        SeriesCache::new(42, target(&[("job", "j")]), rules)
    }

    fn timestamped() -> SeriesRules {
        SeriesRules { honor_timestamps: true, ..SeriesRules::default() }
    }

    fn feed(cache: &mut SeriesCache, time_ms: i64, body: &str) -> Result<(), ExpositionError> {
        cache.begin(time_ms);
        let mut parser = TextParser::new();
        parser.feed(body.as_bytes(), cache)?;
        parser.finish(cache)
    }

    fn scrape(cache: &mut SeriesCache, time_ms: i64, body: &str) -> Scraped {
        feed(cache, time_ms, body).unwrap();
        let scraped = cache.succeed();
        check_books(&scraped);
        scraped
    }

    /// Each item is somewhere.
    fn check_books(scraped: &Scraped) {
        let out: usize = scraped.parts.iter().map(SeriesPart::items).sum();
        let exemplars = scraped.old_exemplars + scraped.same_exemplars + scraped.exemplars_left_out;
        let dropped = scraped.duplicates + scraped.out_of_bounds + exemplars + scraped.nhcb.left_out;
        let made = scraped.stale + scraped.starts + scraped.nhcb.made;
        assert_eq!(scraped.received() + made, out as u64 + dropped + scraped.nhcb.joined, "{scraped:?}");
    }

    /// One line a sample: labels, value or `stale`, time.
    fn lines(parts: &[SeriesPart]) -> Vec<String> {
        let mut lines: Vec<String> = parts
            .iter()
            .flat_map(|part| {
                part.samples.iter().map(|sample| {
                    let value = if is_stale(sample.value) { "stale".to_owned() } else { sample.value.to_string() };
                    format!("{} {value} @{}", part.block.labels(sample.index), part.timestamp_ms(sample))
                })
            })
            .collect();
        lines.sort();
        lines
    }

    #[test]
    fn a_series_that_is_gone_gets_one_marker() {
        let mut cache = cache(SeriesRules::default());
        scrape(&mut cache, 1, "a 1\nb 2\nc 3\n");
        let second = scrape(&mut cache, 2, "a 1\nc 3\n");
        assert_eq!(
            lines(&second.parts),
            [
                r#"{__name__="a", job="j"} 1 @2"#,
                r#"{__name__="b", job="j"} stale @2"#,
                r#"{__name__="c", job="j"} 3 @2"#
            ]
        );
        assert_eq!(lines(&scrape(&mut cache, 3, "a 1\nc 3\n").parts).len(), 2);
        assert_eq!(lines(&scrape(&mut cache, 4, "").parts).len(), 2);
        assert_eq!(lines(&scrape(&mut cache, 5, "").parts).len(), 0);
    }

    #[test]
    fn a_failed_scrape_ends_the_series_of_the_one_before() {
        let mut cache = cache(SeriesRules::default());
        scrape(&mut cache, 1, "a 1\nb 2\n");
        assert!(feed(&mut cache, 2, "b 3\nnew 1\nbroken\n").is_err());
        let failed = cache.fail();
        assert_eq!(
            lines(&failed.parts),
            [r#"{__name__="a", job="j"} stale @2"#, r#"{__name__="b", job="j"} stale @2"#]
        );
        cache.begin(3);
        assert!(cache.fail().parts.is_empty(), "what has ended does not end again");
        let recovered = scrape(&mut cache, 4, "a 1\n");
        assert_eq!(lines(&recovered.parts), [r#"{__name__="a", job="j"} 1 @4"#]);
    }

    #[test]
    fn a_series_with_its_own_time_gets_no_marker_unless_asked_for() {
        for (track, want) in [(false, 0), (true, 1)] {
            let mut cache = cache(SeriesRules { track_timestamps_staleness: track, ..timestamped() });
            let first = scrape(&mut cache, 1000, "a 1 500\na 2 700\n");
            assert_eq!(lines(&first.parts), [r#"{__name__="a", job="j"} 1 @500"#, r#"{__name__="a", job="j"} 2 @700"#]);
            assert_eq!(scrape(&mut cache, 2000, "").parts.len(), want);
        }
    }

    #[test]
    fn times_of_any_distance_are_kept_and_those_far_ahead_are_dropped() {
        let mut cache = cache(timestamped());
        let now = 1_700_000_000_000;
        let scraped = scrape(&mut cache, now, &format!("a 1 1\nb 1 {}\nc 1 {}\n", now + 600_000, now + 600_001));
        assert_eq!(
            lines(&scraped.parts),
            [
                r#"{__name__="a", job="j"} 1 @1"#.to_owned(),
                format!(r#"{{__name__="b", job="j"}} 1 @{}"#, now + 600_000)
            ]
        );
        assert_eq!((scraped.kept, scraped.out_of_bounds), (2, 1));
    }

    #[test]
    fn exposed_times_are_ignored_when_told_so() {
        let mut cache = cache(SeriesRules::default());
        assert_eq!(lines(&scrape(&mut cache, 9, "a 1 5\n").parts), [r#"{__name__="a", job="j"} 1 @9"#]);
        assert_eq!(scrape(&mut cache, 10, "").parts.len(), 1);
    }

    #[test]
    fn a_series_that_stands_twice_is_taken_once() {
        let mut cache = cache(SeriesRules::default());
        let scraped = scrape(&mut cache, 1, "a{x=\"1\",y=\"2\"} 1\na{y=\"2\",x=\"1\"} 2\na{x=\"1\",y=\"2\"} 3\n");
        assert_eq!(lines(&scraped.parts), [r#"{__name__="a", job="j", x="1", y="2"} 1 @1"#]);
        assert_eq!((scraped.scraped, scraped.kept, scraped.added, scraped.duplicates), (3, 1, 1, 2));
        // With its other text alone it is still the same series.
        let second = scrape(&mut cache, 2, "a{y=\"2\",x=\"1\"} 5\n");
        assert_eq!(lines(&second.parts), [r#"{__name__="a", job="j", x="1", y="2"} 5 @2"#]);
        assert_eq!(second.added, 0);
    }

    #[test]
    fn labels_of_the_target_win_unless_exposed_ones_are_honoured() {
        let body = "a{job=\"x\",exported_job=\"y\"} 1\nb{job=\"\"} 1\n";
        let mut other = cache(SeriesRules::default());
        assert_eq!(
            lines(&scrape(&mut other, 1, body).parts),
            [
                r#"{__name__="a", exported_exported_job="x", exported_job="y", job="j"} 1 @1"#,
                r#"{__name__="b", job="j"} 1 @1"#
            ]
        );
        let mut honoured = cache(SeriesRules { honor_labels: true, ..SeriesRules::default() });
        assert_eq!(
            lines(&scrape(&mut honoured, 1, body).parts),
            [r#"{__name__="a", exported_job="y", job="x"} 1 @1"#, r#"{__name__="b"} 1 @1"#]
        );
    }

    #[test]
    fn what_breaks_a_limit_fails_the_scrape() {
        for (rules, body, want) in [
            (
                SeriesRules { label_limit: 2, ..SeriesRules::default() },
                "a{x=\"1\"} 1\n",
                "label_limit exceeded (metric: a, number of labels: 3, limit: 2)",
            ),
            (
                SeriesRules { label_name_length_limit: 8, ..SeriesRules::default() },
                "a{abcdefghi=\"1\"} 1\n",
                "label_name_length_limit exceeded (metric: a, label name: abcdefghi, length: 9, limit: 8)",
            ),
            (
                SeriesRules { label_value_length_limit: 2, ..SeriesRules::default() },
                "a{x=\"123\"} 1\n",
                "label_value_length_limit exceeded (metric: a, label name: x, value: \"123\", length: 3, limit: 2)",
            ),
            (
                SeriesRules::default(),
                "{\"a.b\"} 1\n",
                "invalid metric name or label names: {__name__=\"a.b\", job=\"j\"}",
            ),
            (
                SeriesRules::default(),
                "a{\"x.y\"=\"1\"} 1\n",
                "invalid metric name or label names: {__name__=\"a\", job=\"j\", \"x.y\"=\"1\"}",
            ),
            (SeriesRules::default(), "a{x=\"1\",x=\"2\"} 1\n", "label name \"x\" is not unique: invalid sample"),
        ] {
            let mut cache = cache(rules);
            assert_eq!(feed(&mut cache, 1, body).unwrap_err().to_string(), want);
        }
        let mut open = cache(SeriesRules { utf8_names: true, ..SeriesRules::default() });
        assert_eq!(scrape(&mut open, 1, "{\"a.b\",\"x.y\"=\"1\"} 1\n").kept, 1);
    }

    #[test]
    fn the_sample_limit_is_noticed_and_samples_are_still_counted() {
        let mut cache = cache(SeriesRules { sample_limit: 2, ..SeriesRules::default() });
        feed(&mut cache, 1, "a 1\nb 1\nc 1\n").unwrap();
        assert!(cache.is_over_limit());
        assert_eq!(cache.fail().scraped, 3);
    }

    #[test]
    fn a_type_that_changes_changes_the_series() {
        let mut cache = cache(SeriesRules::default());
        let line = "a{le=\"1\"} 1\n";
        assert_eq!(
            lines(&scrape(&mut cache, 1, &format!("# TYPE a histogram\n{line}")).parts),
            [r#"{__name__="a", job="j", le="1.0"} 1 @1"#]
        );
        assert_eq!(
            lines(&scrape(&mut cache, 2, line).parts),
            [r#"{__name__="a", job="j", le="1"} 1 @2"#, r#"{__name__="a", job="j", le="1.0"} stale @2"#]
        );
    }

    #[test]
    fn a_name_that_begins_another_is_not_taken_for_it() {
        let mut cache = cache(SeriesRules::default());
        scrape(&mut cache, 1, "foo 1\n");
        let second = scrape(&mut cache, 2, "foobar 2\nfoo {a=\"b\"} 3\n");
        assert_eq!(
            lines(&second.parts),
            [
                r#"{__name__="foo", a="b", job="j"} 3 @2"#,
                r#"{__name__="foo", job="j"} stale @2"#,
                r#"{__name__="foobar", job="j"} 2 @2"#
            ]
        );
    }

    #[test]
    fn memory_does_not_grow_with_series_that_come_and_go() {
        let mut cache = cache(SeriesRules::default());
        let mut sizes = Vec::new();
        for round in 0..400 {
            let body: String =
                (0..100).map(|i| format!("a{{i=\"{i}\",r=\"{}\"}} 1\n", if i % 4 == 0 { round } else { 0 })).collect();
            scrape(&mut cache, round, &body);
            sizes.push(cache.size_bytes());
        }
        assert!(sizes[399] <= *sizes[50..100].iter().max().unwrap(), "{sizes:?}");
    }

    /// The same without prediction: a map from label set to whether the last sample had its own time.
    #[derive(Default)]
    struct Model {
        last: BTreeMap<String, ()>,
    }

    impl Model {
        fn scrape(&mut self, time_ms: i64, series: &[(u8, i32)]) -> Vec<String> {
            let mut now = BTreeMap::new();
            let mut out = Vec::new();
            for (name, value) in series {
                let labels = format!(r#"{{__name__="m{name}", job="j"}}"#);
                if now.insert(labels.clone(), ()).is_none() {
                    out.push(format!("{labels} {value} @{time_ms}"));
                }
            }
            for labels in self.last.keys().filter(|labels| !now.contains_key(*labels)) {
                out.push(format!("{labels} stale @{time_ms}"));
            }
            self.last = now;
            out.sort();
            out
        }

        fn fail(&mut self, time_ms: i64) -> Vec<String> {
            std::mem::take(&mut self.last).keys().map(|labels| format!("{labels} stale @{time_ms}")).collect()
        }
    }

    proptest! {
        #[test]
        fn prediction_makes_no_difference(
            scrapes in proptest::collection::vec((proptest::collection::vec((0u8..30, -5i32..5), 0..40), 0u8..6), 1..30),
        ) {
            let mut cache = cache(SeriesRules::default());
            let mut model = Model::default();
            for (time_ms, (series, luck)) in scrapes.iter().enumerate() {
                let time_ms = time_ms as i64;
                let body: String = series.iter().map(|(name, value)| format!("m{name} {value}\n")).collect();
                if *luck == 0 {
                    prop_assert!(feed(&mut cache, time_ms, &(body + "broken")).is_err());
                    prop_assert_eq!(lines(&cache.fail().parts), model.fail(time_ms));
                } else {
                    prop_assert_eq!(lines(&scrape(&mut cache, time_ms, &body).parts), model.scrape(time_ms, series));
                }
            }
        }
    }
}
