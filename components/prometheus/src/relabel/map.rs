//! Where the series of a block are after relabelling.
//!
//! A map is made once for a block and then costs a sample one look into a table, whatever the rules are.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use corten_signal::metrics::{Exemplar, HistogramSample, SeriesMetadata};
use corten_signal::{BlockBuilder, LabelError, Labels, LabelsBuilder, Sample, SeriesBlock, SeriesPart};
use parking_lot::Mutex;

/// The most blocks that the series of one block become. Each is larger than a mebibyte, so that this bounds what rules
/// can make of a block.
const OUT_BLOCKS_MAX: usize = 1 << 10;

/// The place of a series that is dropped.
const DROPPED: u32 = u32::MAX;

/// How far the number of a block stands above the index of a series in a place.
const INDEX_BITS: u32 = 16;

/// Where the series of a block are after relabelling, and why those are nowhere that are dropped.
#[derive(Debug)]
pub(crate) struct BlockMap {
    places: Places,
    dropped_by: DroppedBy,
}

/// Why a series is dropped: the number of a rule, or one of those below.
pub(crate) type Why = u8;

/// A rule whose number is too high.
pub(crate) const LATE_RULE: Why = 251;
/// No label was left.
pub(crate) const NO_LABELS: Why = 252;
/// The labels were refused.
pub(crate) const REFUSED: Why = 253;
/// Nobody said.
const UNSAID: Why = 254;
/// It is not dropped.
const KEPT: Why = 255;

/// The rule with this number, counted from zero.
pub(crate) fn why_of_rule(number: usize) -> Why {
    Why::try_from(number).unwrap_or(LATE_RULE).min(LATE_RULE)
}

/// Why series of a block are dropped.
#[derive(Debug)]
enum DroppedBy {
    /// None is.
    Nothing,
    /// All that are.
    One(Why),
    /// For each series.
    Each(Box<[Why]>),
}

/// Counts what is dropped, by why. Most often there is one reason or none.
#[derive(Debug, Default)]
pub(crate) struct DropCounts(Vec<(Why, usize)>);

impl DropCounts {
    fn add(&mut self, why: Why, items: usize) {
        if items == 0 {
            return;
        }
        match self.0.iter_mut().find(|(known, _)| *known == why) {
            Some((_, count)) => *count += items,
            None => self.0.push((why, items)),
        }
    }

    /// How much was dropped for each reason.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Why, usize)> + '_ {
        self.0.iter().copied()
    }
}

#[derive(Debug)]
enum Places {
    /// All stay as they are.
    Same,
    /// None is left.
    Nothing,
    /// Those whose bit is set stay as they are, and the others are dropped.
    Kept(Box<[u64]>),
    /// They stand in other blocks: for each its place, as the number of the block and the index there.
    Moved { places: Box<[u32]>, blocks: Box<[Arc<SeriesBlock>]> },
}

/// What belongs to a series.
trait Item {
    fn index_mut(&mut self) -> &mut u32;
}

macro_rules! items {
    ($($item:ty),*) => {
        $(impl Item for $item {
            fn index_mut(&mut self) -> &mut u32 {
                &mut self.index
            }
        })*
    };
}

items!(Sample, HistogramSample, Exemplar, SeriesMetadata);

impl BlockMap {
    /// Whether all series stay as they are.
    pub(crate) fn is_same(&self) -> bool {
        matches!(self.places, Places::Same)
    }

    /// Relabels a part, appends what is left of it, and counts what is not.
    pub(crate) fn apply_counted(&self, part: SeriesPart, out: &mut Vec<SeriesPart>, counts: &mut DropCounts) {
        match &self.dropped_by {
            DroppedBy::Nothing => self.apply(part, out),
            DroppedBy::One(why) => {
                let (before, parts_before) = (part.items(), out.len());
                self.apply(part, out);
                let left: usize = out[parts_before..].iter().map(SeriesPart::items).sum();
                counts.add(*why, before - left);
            }
            DroppedBy::Each(whys) => {
                let samples = part.samples.iter().map(|sample| sample.index);
                let histograms = part.histograms.iter().map(|histogram| histogram.index);
                let exemplars = part.exemplars.iter().map(|exemplar| exemplar.index);
                for index in samples.chain(histograms).chain(exemplars) {
                    let why = whys[index as usize];
                    counts.add(why, usize::from(why != KEPT));
                }
                self.apply(part, out);
            }
        }
    }

    /// Relabels a part and appends what is left of it.
    pub(crate) fn apply(&self, mut part: SeriesPart, out: &mut Vec<SeriesPart>) {
        match &self.places {
            Places::Same => {}
            Places::Nothing => return,
            Places::Kept(bits) => {
                retain_part(&mut part, |index| bits[index as usize / 64] >> (index % 64) & 1 == 1);
            }
            Places::Moved { places, blocks } => match &**blocks {
                [block] => {
                    part.block = Arc::clone(block);
                    move_part(&mut part, places);
                }
                _ => return split_part(part, places, blocks, out),
            },
        }
        push_part(part, out);
    }
}

fn push_part(part: SeriesPart, out: &mut Vec<SeriesPart>) {
    if part.items() > 0 || !part.metadata.is_empty() {
        out.push(part);
    }
}

fn retain_part(part: &mut SeriesPart, keeps: impl Fn(u32) -> bool) {
    part.samples.retain(|sample| keeps(sample.index));
    part.histograms.retain(|histogram| keeps(histogram.index));
    part.exemplars.retain(|exemplar| keeps(exemplar.index));
    part.metadata.retain(|metadata| keeps(metadata.index));
}

/// Moves a part into a single block, where a place is an index.
fn move_part(part: &mut SeriesPart, places: &[u32]) {
    fn list<T: Item>(items: &mut Vec<T>, places: &[u32]) {
        items.retain_mut(|item| {
            let index = item.index_mut();
            *index = places[*index as usize];
            *index != DROPPED
        });
    }
    list(&mut part.samples, places);
    list(&mut part.histograms, places);
    list(&mut part.exemplars, places);
    list(&mut part.metadata, places);
}

/// Moves a part into several blocks. What belongs to one series stays together and in order.
fn split_part(part: SeriesPart, places: &[u32], blocks: &[Arc<SeriesBlock>], out: &mut Vec<SeriesPart>) {
    fn list<T: Item>(
        items: Vec<T>,
        places: &[u32],
        parts: &mut [SeriesPart],
        list_of: fn(&mut SeriesPart) -> &mut Vec<T>,
    ) {
        for mut item in items {
            let index = item.index_mut();
            let place = places[*index as usize];
            if place != DROPPED {
                *index = place & ((1 << INDEX_BITS) - 1);
                list_of(&mut parts[(place >> INDEX_BITS) as usize]).push(item);
            }
        }
    }
    let empty = |block| SeriesPart::of_samples(Arc::clone(block), part.base_ms, Vec::new());
    let mut parts: Vec<SeriesPart> = blocks.iter().map(empty).collect();
    list(part.samples, places, &mut parts, |part| &mut part.samples);
    list(part.histograms, places, &mut parts, |part| &mut part.histograms);
    list(part.exemplars, places, &mut parts, |part| &mut part.exemplars);
    list(part.metadata, places, &mut parts, |part| &mut part.metadata);
    for part in parts {
        push_part(part, out);
    }
}

/// Makes the map of a block. A series that is not put anywhere is dropped.
pub(crate) struct MapBuilder<'a> {
    block: &'a SeriesBlock,
    places: Vec<u32>,
    building: BlockBuilder,
    blocks: Vec<Arc<SeriesBlock>>,
    kept: usize,
    changed: bool,
    /// Why what is dropped is, as far as somebody said so. Without a series until there are two reasons.
    whys: Vec<Why>,
    /// The first reason that somebody gave.
    why: Option<Why>,
}

/// Why a series cannot be put anywhere.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PlaceError {
    /// Its labels make no set.
    Labels(LabelError),
    /// The series of one block have become too many bytes.
    Crowded,
}

impl std::fmt::Display for PlaceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PlaceError::Labels(error) => error.fmt(f),
            PlaceError::Crowded => write!(f, "the rules make more than {OUT_BLOCKS_MAX} blocks of one"),
        }
    }
}

impl<'a> MapBuilder<'a> {
    /// A builder in which all series of a block are dropped.
    pub(crate) fn new(block: &'a SeriesBlock) -> Self {
        MapBuilder {
            block,
            places: vec![DROPPED; block.len()],
            building: BlockBuilder::new(),
            blocks: Vec::new(),
            kept: 0,
            changed: false,
            whys: Vec::new(),
            why: None,
        }
    }

    /// Says why a series is dropped.
    pub(crate) fn drop_for(&mut self, index: u32, why: Why) {
        let first = *self.why.get_or_insert(why);
        if self.whys.is_empty() {
            if why == first {
                return;
            }
            // All that were dropped so far were for the first reason; those that come get theirs.
            self.whys = vec![first; self.block.len()];
        }
        self.whys[index as usize] = why;
    }

    /// Why series are dropped, of which so many are.
    fn dropped_by(&mut self) -> DroppedBy {
        if self.kept == self.block.len() {
            return DroppedBy::Nothing;
        }
        if self.whys.is_empty() {
            return DroppedBy::One(self.why.unwrap_or(UNSAID));
        }
        let places = self.places.iter().zip(&self.whys);
        DroppedBy::Each(places.map(|(place, why)| if *place == DROPPED { *why } else { KEPT }).collect())
    }

    /// Leaves a series as it is.
    pub(crate) fn keep(&mut self, index: u32) -> Result<(), PlaceError> {
        self.put_labels(index, self.block.labels(index))
    }

    /// Gives a series these labels.
    pub(crate) fn put_labels(&mut self, index: u32, labels: Labels<'_>) -> Result<(), PlaceError> {
        self.make_room()?;
        let at = self.building.push_labels(labels);
        self.note(index, at);
        Ok(())
    }

    /// Gives a series these labels and returns them as a set. A series without labels is dropped.
    pub(crate) fn put(&mut self, index: u32, labels: &mut LabelsBuilder) -> Result<Option<Labels<'_>>, PlaceError> {
        self.make_room()?;
        let at = self.building.push(labels).map_err(PlaceError::Labels)?;
        if self.building.labels(at).is_empty() {
            self.building.pop();
            return Ok(None);
        }
        self.note(index, at);
        Ok(Some(self.building.labels(at)))
    }

    fn note(&mut self, index: u32, at: u32) {
        self.changed |= self.building.labels(at) != self.block.labels(index);
        self.kept += 1;
        self.places[index as usize] = (self.blocks.len() as u32) << INDEX_BITS | at;
    }

    fn make_room(&mut self) -> Result<(), PlaceError> {
        if self.building.is_full() {
            if self.blocks.len() + 1 >= OUT_BLOCKS_MAX {
                return Err(PlaceError::Crowded);
            }
            let full = std::mem::take(&mut self.building);
            self.blocks.push(full.finish(self.block.is_lasting()));
        }
        Ok(())
    }

    /// The map. Where no label has changed it refers to the block itself, so that what others keep of the block holds,
    /// and no label is copied; unless most of the series are dropped, which others should not have to look at.
    pub(crate) fn finish(mut self) -> BlockMap {
        let dropped_by = self.dropped_by();
        BlockMap { places: self.places(), dropped_by }
    }

    fn places(self) -> Places {
        let len = self.block.len();
        if self.kept == 0 {
            return Places::Nothing;
        }
        if !self.changed && self.kept == len {
            return Places::Same;
        }
        if !self.changed && self.kept * 2 >= len {
            let mut bits = vec![0; len.div_ceil(64)];
            for (index, _) in self.places.iter().enumerate().filter(|(_, place)| **place != DROPPED) {
                bits[index / 64] |= 1 << (index % 64);
            }
            return Places::Kept(bits.into());
        }
        let MapBuilder { block, places, building, mut blocks, .. } = self;
        if !building.is_empty() {
            blocks.push(building.finish(block.is_lasting()));
        }
        Places::Moved { places: places.into(), blocks: blocks.into() }
    }
}

/// The maps of the blocks that live.
#[derive(Debug, Default)]
pub(crate) struct BlockMaps(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    /// By the number of the block.
    by_block: HashMap<u64, Entry>,
    /// How many there may be before somebody looks which of them are of no use.
    sweep_at: usize,
}

#[derive(Debug)]
struct Entry {
    block: Weak<SeriesBlock>,
    map: Arc<BlockMap>,
}

/// How many maps there are before it is worth a look which are of no use.
const SWEEP_AT_MIN: usize = 64;

impl BlockMaps {
    /// The map of a block, if it was made.
    pub(crate) fn get(&self, block: &SeriesBlock) -> Option<Arc<BlockMap>> {
        self.0.lock().by_block.get(&block.id()).map(|entry| Arc::clone(&entry.map))
    }

    /// Keeps the map of a block as long as the block lives, and returns it. Where somebody else was faster theirs is
    /// returned: a series must not change its place.
    pub(crate) fn insert(&self, block: &Arc<SeriesBlock>, map: BlockMap) -> Arc<BlockMap> {
        let mut entries = self.0.lock();
        let dead = if entries.by_block.len() >= entries.sweep_at { entries.sweep() } else { Vec::new() };
        let entry = entries.by_block.entry(block.id());
        let map = Arc::clone(&entry.or_insert_with(|| Entry { block: Arc::downgrade(block), map: Arc::new(map) }).map);
        drop(entries);
        // Blocks are freed while nobody waits for the lock.
        drop(dead);
        map
    }

    /// Forgets the maps of blocks that are gone.
    pub(crate) fn sweep(&self) {
        let dead = self.0.lock().sweep();
        drop(dead);
    }

    /// How many maps there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.lock().by_block.len()
    }
}

impl Entries {
    /// Takes out what is of no use.
    fn sweep(&mut self) -> Vec<Entry> {
        let dead =
            self.by_block.extract_if(|_, entry| entry.block.strong_count() == 0).map(|(_, entry)| entry).collect();
        let live = self.by_block.len();
        self.sweep_at = (live * 2).max(SWEEP_AT_MIN);
        if self.by_block.capacity() > self.sweep_at * 4 {
            self.by_block.shrink_to(self.sweep_at);
        }
        dead
    }
}

#[cfg(test)]
mod tests {
    use corten_signal::metrics::Metadata;
    use corten_signal::series::ARENA_BYTES_SOFT_MAX;

    use super::*;

    fn block(series: usize) -> Arc<SeriesBlock> {
        let (mut block, mut labels) = (BlockBuilder::new(), LabelsBuilder::new());
        for number in 0..series {
            labels.clear();
            labels.push("__name__", "up");
            labels.push("number", &number.to_string());
            block.push(&mut labels).unwrap();
        }
        block.finish(true)
    }

    /// A part with one item of each kind for each series.
    fn part(block: &Arc<SeriesBlock>) -> SeriesPart {
        let indexes = || 0..block.len() as u32;
        let metadata = Arc::new(Metadata::default());
        SeriesPart {
            samples: indexes().map(|index| Sample { value: f64::from(index), index, offset_ms: 0 }).collect(),
            exemplars: indexes()
                .map(|index| Exemplar { index, timestamp_ms: 7, value: f64::from(index), labels: Vec::new() })
                .collect(),
            metadata: indexes().map(|index| SeriesMetadata { index, metadata: Arc::clone(&metadata) }).collect(),
            ..SeriesPart::of_samples(Arc::clone(block), 5, Vec::new())
        }
    }

    fn applied(map: &BlockMap, part: SeriesPart) -> Vec<SeriesPart> {
        let mut out = Vec::new();
        map.apply(part, &mut out);
        out
    }

    /// The map in which a function says which series stay.
    fn keeping(block: &SeriesBlock, keeps: impl Fn(u32) -> bool) -> BlockMap {
        let mut map = MapBuilder::new(block);
        for index in (0..block.len() as u32).filter(|index| keeps(*index)) {
            map.keep(index).unwrap();
        }
        map.finish()
    }

    #[test]
    fn a_block_that_stays_as_it_is_is_handed_on_itself() {
        let block = block(100);
        let map = keeping(&block, |_| true);
        assert!(map.is_same());
        let parts = applied(&map, part(&block));
        assert!(parts.len() == 1 && Arc::ptr_eq(&parts[0].block, &block) && parts[0].samples.len() == 100);
        assert!(keeping(&block, |_| true).is_same());
        assert!(applied(&keeping(&block, |_| false), part(&block)).is_empty());
    }

    #[test]
    fn series_that_are_only_dropped_leave_the_block_as_it_is() {
        let block = block(100);
        let map = keeping(&block, |index| index % 3 > 0);
        assert!(matches!(map.places, Places::Kept(_)));
        let parts = applied(&map, part(&block));
        assert!(Arc::ptr_eq(&parts[0].block, &block));
        assert_eq!((parts[0].samples.len(), parts[0].exemplars.len(), parts[0].metadata.len()), (66, 66, 66));
        assert!(parts[0].samples.iter().all(|sample| sample.index % 3 > 0 && sample.value == f64::from(sample.index)));
    }

    #[test]
    fn few_series_of_many_get_a_block_of_their_own() {
        let block = block(100);
        let map = keeping(&block, |index| index % 3 == 1);
        let parts = applied(&map, part(&block));
        assert!(!Arc::ptr_eq(&parts[0].block, &block) && parts[0].block.is_lasting());
        assert_eq!((parts[0].block.len(), parts[0].samples.len(), parts[0].base_ms), (33, 33, 5));
        for sample in &parts[0].samples {
            assert_eq!(parts[0].block.labels(sample.index), block.labels(sample.value as u32));
        }
    }

    #[test]
    fn series_that_grow_become_several_blocks() {
        let block = block(40);
        let mut map = MapBuilder::new(&block);
        let mut labels = LabelsBuilder::new();
        let long = "x".repeat(ARENA_BYTES_SOFT_MAX / 8);
        for index in 0..39 {
            labels.clear();
            labels.extend_from(block.labels(index));
            labels.push("long", &long);
            assert!(map.put(index, &mut labels).unwrap().is_some());
        }
        let parts = applied(&map.finish(), part(&block));
        assert!(parts.len() == 5, "{}", parts.len());
        let mut seen = Vec::new();
        for part in &parts {
            assert!(part.block.len() <= 8 && part.base_ms == 5 && part.exemplars.len() == part.samples.len());
            for (sample, metadata) in part.samples.iter().zip(&part.metadata) {
                assert_eq!(part.block.labels(sample.index).get("number"), Some(&*sample.value.to_string()));
                assert_eq!(metadata.index, sample.index);
                seen.push(sample.value);
            }
        }
        assert!(seen.len() == 39 && seen.is_sorted());
    }

    #[test]
    fn a_series_without_labels_is_dropped_and_one_with_too_many_refused() {
        let block = block(2);
        let mut map = MapBuilder::new(&block);
        let mut labels = LabelsBuilder::new();
        assert_eq!(map.put(0, &mut labels), Ok(None));
        labels.push("a", &"x".repeat(17 << 20));
        assert!(matches!(map.put(1, &mut labels), Err(PlaceError::Labels(LabelError::TooLong(_)))));
        assert!(matches!(map.finish().places, Places::Nothing));
    }

    #[test]
    fn what_is_dropped_counts_for_what_dropped_it() {
        let block = block(10);
        let counted = |map: BlockMap| {
            let (mut out, mut counts) = (Vec::new(), DropCounts::default());
            map.apply_counted(part(&block), &mut out, &mut counts);
            let mut counts: Vec<_> = counts.iter().collect();
            counts.sort_unstable();
            counts
        };
        let dropping = |why: &dyn Fn(u32) -> Option<Why>| {
            let mut map = MapBuilder::new(&block);
            for index in 0..10 {
                match why(index) {
                    Some(why) => map.drop_for(index, why),
                    None => map.keep(index).unwrap(),
                }
            }
            map.finish()
        };
        // Each series has two items.
        assert_eq!(counted(dropping(&|_| None)), []);
        let one = dropping(&|index| (index < 3).then_some(1));
        assert!(matches!(one.dropped_by, DroppedBy::One(1)));
        assert_eq!(counted(one), [(1, 6)]);
        assert_eq!(counted(dropping(&|_| Some(0))), [(0, 20)]);
        let several = |index| match index {
            0 | 9 => Some(why_of_rule(4)),
            3 => Some(why_of_rule(1000)),
            7 => Some(NO_LABELS),
            _ => None,
        };
        assert_eq!(counted(dropping(&several)), [(4, 4), (LATE_RULE, 2), (NO_LABELS, 2)]);
        let all = |index| if index == 5 { Some(1) } else { several(index).or(Some(0)) };
        assert_eq!(counted(dropping(&all)), [(0, 10), (1, 2), (4, 4), (LATE_RULE, 2), (NO_LABELS, 2)]);
    }

    #[test]
    fn a_map_lives_as_long_as_its_block() {
        let maps = BlockMaps::default();
        let (stays, goes) = (block(3), block(3));
        let first = maps.insert(&stays, keeping(&stays, |index| index == 0));
        assert!(Arc::ptr_eq(&first, &maps.insert(&stays, keeping(&stays, |_| true))), "the first map counts");
        let made = match &maps.insert(&goes, keeping(&goes, |index| index == 0)).places {
            Places::Moved { blocks, .. } => Arc::downgrade(&blocks[0]),
            other => panic!("most of the series are dropped: {other:?}"),
        };
        maps.sweep();
        assert!(maps.get(&goes).is_some() && made.upgrade().is_some());
        drop(goes);
        maps.sweep();
        assert!(maps.len() == 1 && maps.get(&stays).is_some() && made.upgrade().is_none());
    }

    #[test]
    fn blocks_that_come_and_go_leave_few_maps() {
        let maps = BlockMaps::default();
        let live: Vec<_> = (0..50).map(|_| block(1)).collect();
        for block in &live {
            maps.insert(block, keeping(block, |_| true));
        }
        for _ in 0..10_000 {
            let block = block(1);
            maps.insert(&block, keeping(&block, |_| false));
            assert!(maps.len() <= 2 * live.len() + 1, "{}", maps.len());
        }
        assert!(live.iter().all(|block| maps.get(block).is_some()));
    }
}
