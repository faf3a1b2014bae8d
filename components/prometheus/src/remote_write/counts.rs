//! How many samples, histograms and exemplars.

use std::sync::atomic::{AtomicU64, Ordering};

use corten_queue::{Counts, Totals};
use corten_signal::SeriesPart;

/// Counters of items by kind.
#[derive(Default)]
pub(super) struct ItemCounters {
    samples: AtomicU64,
    histograms: AtomicU64,
    exemplars: AtomicU64,
}

impl ItemCounters {
    pub(super) fn add(&self, counts: &Counts) {
        self.samples.fetch_add(u64::from(counts.samples), Ordering::Relaxed);
        self.histograms.fetch_add(u64::from(counts.histograms), Ordering::Relaxed);
        self.exemplars.fetch_add(u64::from(counts.exemplars), Ordering::Relaxed);
    }

    /// The sums so far; of the fields only those of the kinds are set.
    pub(super) fn get(&self) -> Totals {
        Totals {
            samples: self.samples.load(Ordering::Relaxed),
            histograms: self.histograms.load(Ordering::Relaxed),
            exemplars: self.exemplars.load(Ordering::Relaxed),
            ..Totals::default()
        }
    }
}

/// How many items a part holds.
pub(super) fn counts_of(part: &SeriesPart) -> Counts {
    Counts {
        samples: part.samples.len() as u32,
        histograms: part.histograms.len() as u32,
        exemplars: part.exemplars.len() as u32,
        metadata: part.metadata.len() as u32,
    }
}
