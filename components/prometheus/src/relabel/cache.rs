//! What rules made of label sets that come without a lasting block.
//!
//! A set is found by its hash and compared as a whole, so that no two sets are ever taken for one.

use std::time::Duration;

use corten_component::metrics::Counter;
use corten_signal::Labels;
use corten_signal::target::Target;
use hashbrown::HashTable;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::map::{NO_LABELS, Why};

/// The longest label set that is remembered, in its encoded form before and after the rules together, in bytes. With
/// the number of sets this bounds the memory.
const REMEMBERED_BYTES_MAX: usize = 64 << 10;

/// How long sets are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retention {
    /// Until there are more than this many.
    Size(usize),
    /// Until they were not seen for this long.
    Ttl(Duration),
}

/// What rules made of a label set.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Outcome {
    /// It is dropped, and why.
    Dropped(Why),
    /// It stays as it is.
    Unchanged,
    /// It became another: a target is a label set that owns its bytes.
    Changed(Target),
}

impl Outcome {
    /// What became of one set when rules made another of it, or dropped it.
    pub(super) fn of(before: Labels<'_>, after: Option<Labels<'_>>) -> Option<Self> {
        match after {
            None => Some(Outcome::Dropped(NO_LABELS)),
            Some(after) if after == before => Some(Outcome::Unchanged),
            // A set that is longer than any can be is none to remember.
            Some(after) => Target::new(after.iter()).ok().map(Outcome::Changed),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Outcome::Dropped(_) | Outcome::Unchanged => 0,
            Outcome::Changed(labels) => labels.labels().as_encoded().len(),
        }
    }
}

/// Remembers what rules made of label sets.
#[derive(Debug)]
pub(super) struct Cache {
    retention: Retention,
    evictions: Counter,
    started: Instant,
    sets: Mutex<Sets>,
}

#[derive(Debug)]
struct Sets {
    /// By hash, where in `entries`.
    by_hash: HashTable<u32>,
    entries: Vec<Entry>,
    /// The state of the generator that says which entry makes room for another.
    random: u64,
}

#[derive(Debug)]
struct Entry {
    hash: u64,
    labels: Box<[u8]>,
    outcome: Outcome,
    /// When the set was last seen, in milliseconds since the cache was made.
    seen_ms: u64,
}

impl Cache {
    /// An empty cache. `evictions` counts the sets that were not seen for too long.
    pub(super) fn new(retention: Retention, evictions: Counter) -> Self {
        let sets = Sets { by_hash: HashTable::new(), entries: Vec::new(), random: 0x9e37_79b9_7f4a_7c15 };
        Cache { retention, evictions, started: Instant::now(), sets: Mutex::new(sets) }
    }

    /// How many sets are remembered.
    pub(super) fn len(&self) -> usize {
        self.sets.lock().entries.len()
    }

    /// The cache for several look-ups and changes in a row.
    pub(super) fn lock(&self) -> CacheGuard<'_> {
        let sets_max = match self.retention {
            Retention::Size(sets) => sets,
            Retention::Ttl(_) => usize::MAX,
        };
        // The number of an entry has 32 bits.
        let sets_max = sets_max.min(u32::MAX as usize);
        CacheGuard { sets_max, now_ms: self.started.elapsed().as_millis() as u64, sets: self.sets.lock() }
    }

    /// Forgets what was not seen for too long.
    pub(super) fn expire(&self) {
        let Retention::Ttl(ttl) = self.retention else { return };
        let now_ms = self.started.elapsed().as_millis() as u64;
        let ttl_ms = ttl.as_millis() as u64;
        let mut sets = self.sets.lock();
        let mut at = 0;
        while let Some(entry) = sets.entries.get(at) {
            if now_ms.saturating_sub(entry.seen_ms) > ttl_ms {
                sets.remove_at(at);
                self.evictions.inc();
            } else {
                at += 1;
            }
        }
        sets.shrink();
    }
}

/// The cache, for who has it alone.
pub(super) struct CacheGuard<'a> {
    sets_max: usize,
    now_ms: u64,
    sets: MutexGuard<'a, Sets>,
}

impl CacheGuard<'_> {
    /// What became of a set.
    pub(super) fn get(&mut self, hash: u64, labels: Labels<'_>) -> Option<&Outcome> {
        let at = self.sets.find(hash, labels)?;
        let entry = &mut self.sets.entries[at];
        entry.seen_ms = self.now_ms;
        Some(&entry.outcome)
    }

    /// Remembers what became of a set, in place of another if there are too many. What is known already stays.
    pub(super) fn insert(&mut self, hash: u64, labels: Labels<'_>, outcome: Outcome) {
        let long = labels.as_encoded().len() + outcome.bytes() > REMEMBERED_BYTES_MAX;
        if long || self.sets_max == 0 || self.get(hash, labels).is_some() {
            return;
        }
        let sets = &mut *self.sets;
        if sets.entries.len() >= self.sets_max {
            // Whoever sends sets sends all of them again and again, in the same order. Where they are a few too many,
            // the one that was not used for longest is the one that comes next; any other is a better choice.
            let at = sets.random_entry();
            sets.remove_at(at);
        }
        sets.entries.push(Entry { hash, labels: labels.as_encoded().into(), outcome, seen_ms: self.now_ms });
        let Sets { by_hash, entries, .. } = sets;
        by_hash.insert_unique(hash, (entries.len() - 1) as u32, |at| entries[*at as usize].hash);
    }

    /// Forgets a set; whether it was known.
    pub(super) fn remove(&mut self, hash: u64, labels: Labels<'_>) -> bool {
        let found = self.sets.find(hash, labels);
        if let Some(at) = found {
            self.sets.remove_at(at);
        }
        found.is_some()
    }
}

impl Sets {
    fn find(&self, hash: u64, labels: Labels<'_>) -> Option<usize> {
        let same = |at: &u32| {
            let entry = &self.entries[*at as usize];
            entry.hash == hash && *entry.labels == *labels.as_encoded()
        };
        self.by_hash.find(hash, same).map(|at| *at as usize)
    }

    /// Removes an entry and moves the last one into its place.
    fn remove_at(&mut self, at: usize) {
        let Sets { by_hash, entries, .. } = self;
        if let Ok(found) = by_hash.find_entry(entries[at].hash, |other| *other as usize == at) {
            found.remove();
        }
        entries.swap_remove(at);
        if let Some(moved) = entries.get(at) {
            let was = entries.len();
            if let Some(place) = by_hash.find_mut(moved.hash, |other| *other as usize == was) {
                *place = at as u32;
            }
        }
    }

    /// A place of an entry, each as likely as the others (Marsaglia's xorshift with multiplication).
    fn random_entry(&mut self) -> usize {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        let random = self.random.wrapping_mul(0x2545_f491_4f6c_dd1d);
        ((u128::from(random) * self.entries.len() as u128) >> 64) as usize
    }

    /// Gives back memory once most of it is of no use.
    fn shrink(&mut self) {
        let wanted = self.entries.len() * 2;
        if self.entries.capacity() > (wanted * 2).max(1024) {
            let Sets { by_hash, entries, .. } = self;
            entries.shrink_to(wanted);
            by_hash.shrink_to(wanted, |at| entries[*at as usize].hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use corten_signal::{BlockBuilder, LabelsBuilder, SeriesBlock};
    use proptest::prelude::*;

    use super::*;

    /// A block of this many series.
    fn sets(count: usize) -> Arc<SeriesBlock> {
        let (mut block, mut labels) = (BlockBuilder::new(), LabelsBuilder::new());
        for number in 0..count {
            labels.clear();
            labels.push("number", &number.to_string());
            block.push(&mut labels).unwrap();
        }
        block.finish(false)
    }

    fn cache(retention: Retention) -> Cache {
        Cache::new(retention, Counter::default())
    }

    /// Looks for each set of a block, and puts in what is not there; how many were there.
    fn walk(cache: &Cache, block: &SeriesBlock) -> usize {
        let mut hits = 0;
        let mut cache = cache.lock();
        for index in 0..block.len() as u32 {
            let (hash, labels) = (block.hash64(index), block.labels(index));
            match cache.get(hash, labels) {
                Some(outcome) => {
                    assert_eq!(*outcome, Outcome::Changed(Target::new(labels.iter()).unwrap()));
                    hits += 1;
                }
                None => cache.insert(hash, labels, Outcome::Changed(Target::new(labels.iter()).unwrap())),
            }
        }
        hits
    }

    #[tokio::test]
    async fn a_walk_that_is_a_little_too_long_finds_more_than_half() {
        let cache = cache(Retention::Size(2000));
        let block = sets(2200);
        assert_eq!(walk(&cache, &block), 0);
        for round in 0..20 {
            let hits = walk(&cache, &block);
            assert!(hits > 1300, "round {round}: {hits}");
            assert_eq!(cache.len(), 2000);
        }
        let short = sets(1900);
        walk(&cache, &short);
        for _ in 0..200 {
            walk(&cache, &short);
        }
        assert_eq!(walk(&cache, &short), 1900, "a walk that fits is found whole");
    }

    #[tokio::test]
    async fn sets_of_one_hash_are_told_apart() {
        let cache = cache(Retention::Size(10));
        let block = sets(3);
        let mut sets = cache.lock();
        sets.insert(7, block.labels(0), Outcome::Dropped(0));
        assert_eq!(sets.get(7, block.labels(1)), None);
        sets.insert(7, block.labels(1), Outcome::Unchanged);
        assert_eq!(sets.get(7, block.labels(0)), Some(&Outcome::Dropped(0)));
        assert_eq!(sets.get(7, block.labels(1)), Some(&Outcome::Unchanged));
        assert!(sets.remove(7, block.labels(0)) && !sets.remove(7, block.labels(2)));
        assert_eq!(sets.get(7, block.labels(0)), None);
        assert_eq!(sets.get(7, block.labels(1)), Some(&Outcome::Unchanged));
    }

    #[tokio::test]
    async fn what_is_known_stays_and_what_is_too_long_is_not_remembered() {
        let cache = cache(Retention::Size(10));
        let block = sets(1);
        let (hash, labels) = (block.hash64(0), block.labels(0));
        let mut sets = cache.lock();
        sets.insert(hash, labels, Outcome::Dropped(0));
        sets.insert(hash, labels, Outcome::Unchanged);
        assert_eq!(sets.get(hash, labels), Some(&Outcome::Dropped(0)));
        let long = "x".repeat(REMEMBERED_BYTES_MAX);
        sets.insert(1, block.labels(0), Outcome::Changed(Target::new([("a", long.as_str())]).unwrap()));
        assert_eq!(sets.get(1, labels), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_set_that_is_seen_again_and_again_stays() {
        let evictions = Counter::default();
        let cache = Cache::new(Retention::Ttl(Duration::from_secs(60)), evictions.clone());
        let (all, few) = (sets(5000), sets(3));
        assert_eq!(walk(&cache, &all), 0);
        for _ in 0..3 {
            tokio::time::advance(Duration::from_secs(30)).await;
            assert_eq!(walk(&cache, &few), 3);
            cache.expire();
        }
        assert_eq!((cache.len(), evictions.get()), (3, 4997));
        assert!(cache.sets.lock().entries.capacity() < 1024, "the memory is given back");
        assert_eq!(walk(&cache, &few), 3);
        tokio::time::advance(Duration::from_secs(60)).await;
        cache.expire();
        assert_eq!(cache.len(), 3, "the time is not over before its end");
        tokio::time::advance(Duration::from_millis(1)).await;
        cache.expire();
        assert_eq!((cache.len(), evictions.get()), (0, 5000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_cache_with_a_size_forgets_nothing_with_time() {
        let cache = cache(Retention::Size(10));
        walk(&cache, &sets(10));
        tokio::time::advance(Duration::from_secs(1_000_000)).await;
        cache.expire();
        assert_eq!(cache.len(), 10);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u32),
        Get(u32),
        Remove(u32),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..40u32).prop_map(Step::Insert),
            2 => (0..40u32).prop_map(Step::Get),
            1 => (0..40u32).prop_map(Step::Remove),
            1 => (0..40u64).prop_map(Step::Wait),
        ]
    }

    proptest! {
        /// What is found is what was put in, with few hashes for many sets, and what is within the limits is found.
        #[test]
        fn what_is_found_is_what_was_put_in(
            steps in proptest::collection::vec(step(), 0..200),
            size in 1usize..50,
            by_size: bool,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let ttl = Duration::from_secs(60);
                let cache = cache(if by_size { Retention::Size(size) } else { Retention::Ttl(ttl) });
                let block = sets(40);
                // For each set that is there, when it was last seen.
                let mut model: HashMap<u32, Instant> = HashMap::new();
                for step in steps {
                    match step {
                        Step::Insert(set) => {
                            let outcome = Outcome::Changed(Target::new([("set", set.to_string().as_str())]).unwrap());
                            cache.lock().insert(u64::from(set % 3), block.labels(set), outcome);
                            model.insert(set, Instant::now());
                        }
                        Step::Get(set) => {
                            let mut cache = cache.lock();
                            let found = cache.get(u64::from(set % 3), block.labels(set));
                            let all_fit = !by_size || size >= 40;
                            prop_assert!(found.is_none() || model.contains_key(&set));
                            prop_assert!(found.is_some() || !all_fit || !model.contains_key(&set));
                            if let Some(outcome) = found {
                                let labels = Target::new([("set", set.to_string().as_str())]).unwrap();
                                prop_assert_eq!(outcome, &Outcome::Changed(labels));
                                model.insert(set, Instant::now());
                            }
                        }
                        Step::Remove(set) => {
                            cache.lock().remove(u64::from(set % 3), block.labels(set));
                            model.remove(&set);
                        }
                        Step::Wait(seconds) => {
                            tokio::time::advance(Duration::from_secs(seconds)).await;
                            cache.expire();
                            model.retain(|_, seen| by_size || seen.elapsed() <= ttl);
                        }
                    }
                    prop_assert!(cache.len() <= model.len() && (!by_size || cache.len() <= size));
                }
                Ok(())
            })?;
        }
    }
}
