//! How many series are sent: an estimate, because an exact count would take memory for each.
//!
//! A sketch (HyperLogLog, Flajolet and others 2007) keeps of all hashes the longest run of zeros in each of many groups.
//! Blocks that come again are looked at once, so that the count costs nothing on the path of a sample.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use corten_signal::SeriesPart;
use parking_lot::Mutex;

/// How many bits of a hash choose a group. The estimate is about 0.8 % off.
const GROUP_BITS: u32 = 14;

/// A series counts for one to two such times after its block was last seen.
const WINDOW: Duration = Duration::from_secs(300);

/// Which series came lately.
pub(super) struct ActiveSeries(Mutex<State>);

struct State {
    since: Instant,
    /// The blocks that are in the sketch.
    blocks: HashSet<u64>,
    current: Sketch,
    previous: Sketch,
}

impl Default for ActiveSeries {
    fn default() -> Self {
        ActiveSeries(Mutex::new(State {
            since: Instant::now(),
            blocks: HashSet::new(),
            current: Sketch::default(),
            previous: Sketch::default(),
        }))
    }
}

impl ActiveSeries {
    /// Takes the series of a part.
    pub(super) fn note(&self, part: &SeriesPart) {
        self.0.lock().note(part, Instant::now());
    }

    /// About how many series came lately.
    pub(super) fn count(&self) -> u64 {
        let mut state = self.0.lock();
        state.turn(Instant::now());
        state.current.joined(&state.previous).estimate()
    }
}

impl State {
    fn note(&mut self, part: &SeriesPart, now: Instant) {
        self.turn(now);
        if part.block.is_lasting() && !self.blocks.insert(part.block.id()) {
            return;
        }
        for index in 0..part.block.len() as u32 {
            self.current.add(part.block.hash64(index));
        }
    }

    /// Forgets what is old.
    fn turn(&mut self, now: Instant) {
        let windows = now.saturating_duration_since(self.since).as_secs() / WINDOW.as_secs();
        if windows == 0 {
            return;
        }
        self.since = now;
        self.blocks = HashSet::new();
        let current = std::mem::take(&mut self.current);
        self.previous = if windows == 1 { current } else { Sketch::default() };
    }
}

/// Of each group of hashes the longest run of zeros, plus one. Empty as long as there are none.
#[derive(Clone, Default)]
struct Sketch(Vec<u8>);

impl Sketch {
    fn add(&mut self, hash: u64) {
        if self.0.is_empty() {
            self.0 = vec![0; 1 << GROUP_BITS];
        }
        let group = (hash >> (64 - GROUP_BITS)) as usize;
        let zeros = (hash << GROUP_BITS | 1 << (GROUP_BITS - 1)).leading_zeros() as u8 + 1;
        self.0[group] = self.0[group].max(zeros);
    }

    fn joined(&self, other: &Sketch) -> Sketch {
        match (self.0.is_empty(), other.0.is_empty()) {
            (_, true) => self.clone(),
            (true, _) => other.clone(),
            _ => Sketch(self.0.iter().zip(&other.0).map(|(a, b)| *a.max(b)).collect()),
        }
    }

    fn estimate(&self) -> u64 {
        let groups = self.0.len() as f64;
        let empty = self.0.iter().filter(|zeros| **zeros == 0).count() as f64;
        let sum: f64 = self.0.iter().map(|zeros| (-f64::from(*zeros)).exp2()).sum();
        if self.0.is_empty() {
            return 0;
        }
        let estimate = 0.7213 / (1.0 + 1.079 / groups) * groups * groups / sum;
        // Few series leave groups empty, and their number is the better measure then.
        let estimate = if estimate <= 2.5 * groups && empty > 0.0 { groups * (groups / empty).ln() } else { estimate };
        estimate.round() as u64
    }
}

#[cfg(test)]
mod tests {
    use corten_signal::{BlockBuilder, LabelsBuilder};

    use super::*;

    /// A part with these series.
    fn part(numbers: std::ops::Range<u32>, lasting: bool) -> SeriesPart {
        let (mut block, mut labels) = (BlockBuilder::new(), LabelsBuilder::new());
        for number in numbers {
            labels.clear();
            labels.push("__name__", "up");
            labels.push("number", &number.to_string());
            block.push(&mut labels).unwrap();
        }
        SeriesPart::of_samples(block.finish(lasting), 0, Vec::new())
    }

    #[test]
    fn few_series_are_counted_and_many_are_estimated() {
        for (count, off) in [(0, 0), (1, 0), (2, 0), (100, 2), (1000, 20), (20_000, 600), (200_000, 6000)] {
            let active = ActiveSeries::default();
            for from in (0..count).step_by(10_000) {
                active.note(&part(from..count.min(from + 10_000), true));
            }
            assert!(active.count().abs_diff(u64::from(count)) <= off, "{} of {count}", active.count());
        }
    }

    #[test]
    fn a_series_counts_once_whatever_block_it_is_in() {
        let active = ActiveSeries::default();
        let lasting = part(0..500, true);
        for part in [&lasting, &lasting, &part(250..750, false), &part(250..750, false)] {
            active.note(part);
        }
        assert!(active.count().abs_diff(750) <= 15, "{}", active.count());
    }

    #[test]
    fn what_does_not_come_again_is_forgotten() {
        let active = ActiveSeries::default();
        let (stays, goes) = (part(0..100, true), part(100..300, true));
        let start = Instant::now();
        let mut state = active.0.lock();
        let count = |state: &State| state.current.joined(&state.previous).estimate();
        state.note(&stays, start);
        state.note(&goes, start);
        state.note(&stays, start + WINDOW);
        assert!(count(&state).abs_diff(300) <= 6);
        state.note(&stays, start + 2 * WINDOW);
        assert!(count(&state).abs_diff(100) <= 2);
        state.turn(start + 5 * WINDOW);
        assert_eq!(count(&state), 0);
    }
}
