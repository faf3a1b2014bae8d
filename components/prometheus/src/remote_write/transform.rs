//! What happens to series on their way into a lane: external labels, then relabelling.
//!
//! Both depend on the label set alone, so they are done once for each series of a block.

use std::borrow::Cow;
use std::sync::Arc;

use corten_queue::{Counts, Totals};
use corten_signal::relabel::{RelabelScratch, Rules};
use corten_signal::{LabelsBuilder, SeriesPart};

use super::counts::{ItemCounters, counts_of};
use crate::relabel::map::{BlockMaps, MapBuilder};

/// External labels and relabelling rules.
pub(super) struct Transform {
    external: Vec<(String, String)>,
    rules: Rules,
    maps: BlockMaps,
    dropped: ItemCounters,
}

impl Transform {
    pub(super) fn new(external: Vec<(String, String)>, rules: Rules) -> Self {
        Transform { external, rules, maps: BlockMaps::default(), dropped: ItemCounters::default() }
    }

    /// What was dropped.
    pub(super) fn dropped(&self) -> Totals {
        self.dropped.get()
    }

    /// Forgets what was computed for blocks that are gone.
    pub(super) fn sweep(&self) {
        self.maps.sweep();
    }

    /// The samples under the labels that they are sent with.
    pub(super) fn apply<'p>(&self, part: &'p SeriesPart) -> Cow<'p, [SeriesPart]> {
        if self.external.is_empty() && self.rules.is_empty() {
            return Cow::Borrowed(std::slice::from_ref(part));
        }
        let map = match self.maps.get(&part.block) {
            Some(map) => map,
            None => {
                let mut builder = MapBuilder::new(&part.block);
                let (mut labels, mut scratch) = (LabelsBuilder::new(), RelabelScratch::default());
                for index in 0..part.block.len() as u32 {
                    labels.clear();
                    labels.extend_from(part.block.labels(index));
                    for (name, value) in &self.external {
                        if labels.get(name).is_none() {
                            labels.push(name, value);
                        }
                    }
                    if self.rules.apply(&mut labels, &mut scratch) {
                        // A series whose labels make no set cannot be sent; it counts as dropped.
                        let _ = builder.put(index, &mut labels);
                    }
                }
                let map = builder.finish();
                if part.block.is_lasting() { self.maps.insert(&part.block, map) } else { Arc::new(map) }
            }
        };
        if map.is_same() {
            return Cow::Borrowed(std::slice::from_ref(part));
        }
        let mut out = Vec::new();
        map.apply(part.clone(), &mut out);
        let kept = out.iter().map(counts_of);
        let dropped = kept.fold(counts_of(part), |left, kept| Counts {
            samples: left.samples - kept.samples,
            histograms: left.histograms - kept.histograms,
            exemplars: left.exemplars - kept.exemplars,
            metadata: 0,
        });
        self.dropped.add(&dropped);
        Cow::Owned(out)
    }
}
