//! What is known of metrics besides their samples: type, help, unit.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use corten_signal::labels::METRIC_NAME;
use corten_signal::metrics::Metadata;
use corten_signal::{Labels, SeriesPart};

/// The most metrics of which something is known, and the most bytes that this takes. Beyond either, what came first is
/// forgotten.
const METRICS_MAX: usize = 1 << 16;
const BYTES_MAX: usize = 32 << 20;

/// What is known of metrics, by the names of their series. It comes with the first samples of a series and when it
/// changes, so it is remembered.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    by_name: HashMap<Arc<str>, Arc<Metadata>>,
    /// The names in the order in which they came.
    order: VecDeque<Arc<str>>,
    bytes: usize,
    changes: u64,
}

impl Known {
    /// Takes what a part says of its series.
    pub(super) fn note(&mut self, part: &SeriesPart) {
        let mut last: Option<(&str, &Arc<Metadata>)> = None;
        for known in &part.metadata {
            let Some(name) = part.block.labels(known.index).get(METRIC_NAME) else { continue };
            // Series of one metric stand beside each other.
            if last.is_some_and(|(have, of_it)| have == name && Arc::ptr_eq(of_it, &known.metadata)) {
                continue;
            }
            last = Some((name, &known.metadata));
            self.note_one(name, &known.metadata);
        }
    }

    fn note_one(&mut self, name: &str, metadata: &Arc<Metadata>) {
        match self.by_name.get_mut(name) {
            Some(known) if known == metadata => return,
            Some(known) => {
                self.bytes -= size(name, known);
                *known = Arc::clone(metadata);
            }
            None => {
                let name: Arc<str> = Arc::from(name);
                self.order.push_back(Arc::clone(&name));
                self.by_name.insert(name, Arc::clone(metadata));
            }
        }
        self.bytes += size(name, metadata);
        self.changes += 1;
        while self.by_name.len() > METRICS_MAX || self.bytes > BYTES_MAX {
            let Some(first) = self.order.pop_front() else { return };
            if let Some(forgotten) = self.by_name.remove(&first) {
                self.bytes -= size(&first, &forgotten);
            }
        }
    }

    /// How often something new was learned.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// What is known of each family, one entry each, in the order in which they came.
    pub(super) fn families(&self) -> Vec<Arc<Metadata>> {
        let mut places: HashMap<&str, usize> = HashMap::new();
        let mut families: Vec<Arc<Metadata>> = Vec::new();
        for metadata in self.order.iter().filter_map(|name| self.by_name.get(name)) {
            match places.get(&*metadata.family) {
                Some(place) => families[*place] = Arc::clone(metadata),
                None => {
                    places.insert(&metadata.family, families.len());
                    families.push(Arc::clone(metadata));
                }
            }
        }
        families
    }

    /// Answers what is known of series, one after another.
    pub(super) fn of_series(&self) -> OfSeries<'_> {
        OfSeries { known: self, last: None }
    }
}

/// What a metric takes, about, in bytes.
fn size(name: &str, metadata: &Metadata) -> usize {
    2 * name.len() + metadata.family.len() + metadata.help.len() + metadata.unit.len() + 128
}

/// Answers what is known of series. It remembers the last answer, because series of one metric stand beside each other.
pub(super) struct OfSeries<'k> {
    known: &'k Known,
    last: Option<(&'k str, &'k Metadata)>,
}

impl<'k> OfSeries<'k> {
    pub(super) fn get(&mut self, labels: Labels<'_>) -> Option<&'k Metadata> {
        if self.known.by_name.is_empty() {
            return None;
        }
        let name = labels.get(METRIC_NAME)?;
        if let Some((have, metadata)) = self.last
            && have == name
        {
            return Some(metadata);
        }
        let (name, metadata) = self.known.by_name.get_key_value(name)?;
        self.last = Some((name, metadata));
        Some(metadata)
    }
}

#[cfg(test)]
mod tests {
    use corten_signal::metrics::{MetricType, SeriesMetadata};
    use corten_signal::{BlockBuilder, LabelsBuilder};

    use super::*;

    fn metadata(family: &str, help: &str) -> Arc<Metadata> {
        let (family, help) = (family.to_owned(), help.to_owned());
        Arc::new(Metadata { family, metric_type: MetricType::Counter, help, unit: String::new() })
    }

    /// A part that says something of series with these names.
    fn part(known: &[(String, Arc<Metadata>)]) -> SeriesPart {
        let (mut block, mut metadata) = (BlockBuilder::new(), Vec::new());
        for (name, known) in known {
            let mut labels = LabelsBuilder::new();
            labels.push("__name__", name);
            let index = block.push(&mut labels).unwrap();
            metadata.push(SeriesMetadata { index, metadata: Arc::clone(known) });
        }
        let mut part = SeriesPart::of_samples(block.finish(true), 0, Vec::new());
        part.metadata = metadata;
        part
    }

    #[test]
    fn the_last_word_counts_and_a_family_stands_once() {
        let mut known = Known::default();
        let (old, new, other) = (metadata("a", "old"), metadata("a", "new"), metadata("b", "b"));
        known.note(&part(&[("a_sum".into(), old.clone()), ("a_count".into(), old), ("b".into(), other.clone())]));
        assert_eq!(known.changes(), 3);
        let again = part(&[("a_sum".into(), new.clone()), ("a_count".into(), new.clone())]);
        known.note(&again);
        known.note(&again);
        assert_eq!(known.changes(), 5, "what is known already is no change");
        assert_eq!(known.families(), [new.clone(), other]);
        let mut of_series = known.of_series();
        assert_eq!(of_series.get(again.block.labels(1)), Some(&*new));
        assert_eq!(of_series.get(again.block.labels(0)), Some(&*new));
    }

    #[test]
    fn memory_is_bounded_and_the_first_goes_first() {
        let mut known = Known::default();
        let long = "h".repeat(1 << 20);
        for number in 0..100 {
            let name = format!("m{number}");
            known.note(&part(&[(name.clone(), metadata(&name, &long))]));
            assert!(known.bytes <= BYTES_MAX);
        }
        let left: Vec<String> = known.families().iter().map(|family| family.family.clone()).collect();
        assert_eq!((left.len(), &*left[0], &*left[30]), (31, "m69", "m99"));
        for number in 0..METRICS_MAX + 10 {
            let name = format!("n{number}");
            known.note_one(&name, &metadata(&name, ""));
        }
        assert_eq!((known.by_name.len(), known.order.len()), (METRICS_MAX, METRICS_MAX));
        assert!(known.by_name.contains_key("n10") && !known.by_name.contains_key("n9"));
    }
}
