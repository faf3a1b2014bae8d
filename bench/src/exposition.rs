//! The pages that the targets serve: exposition text 0.0.4, rendered once and rewritten in place.
//!
//! Everything that changes has a fixed width (counters ten digits, gauges two digits before the point and six
//! behind, the `pod` label ten characters), so that a scrape costs the target a few bytes per changed series and one
//! copy of the page. The sequence number stands in the last line: a page that was cut off has none.

use std::io::Write;

/// The most series that one target may have; it keeps offsets within 32 bits.
pub(crate) const SERIES_MAX: usize = 5_000_000;

/// Series that share one name, HELP and TYPE.
pub(crate) const FAMILY_SERIES: usize = 20;

/// Names of all series begin with this; the sink tells by it what the target served from what the agent added.
pub(crate) const PREFIX: &str = "bench_";

/// The gauge that carries the number of the scrape, with the target's number in the label `target`.
pub(crate) const SEQUENCE: &str = "bench_seq";

/// The families that the relabel scenario drops begin with this.
pub(crate) const DEBUG_PREFIX: &str = "bench_debug_";

/// What a page looks like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Series in the page, the sequence number's among them.
    pub(crate) series: usize,
    /// Share of the series whose value differs at each scrape, 0 to 1.
    pub(crate) change: f64,
    /// Share of the series that are replaced by new ones at each scrape, 0 to 1.
    pub(crate) churn: f64,
    /// Two pages of one seed, shape and number are the same, scrape by scrape.
    pub(crate) seed: u64,
}

/// A value that is rewritten at each scrape.
#[derive(Debug)]
struct Slot {
    offset: u32,
    gauge: bool,
    /// The counter, or the gauge in millionths.
    value: u64,
}

/// One target's page.
#[derive(Debug)]
pub(crate) struct Page {
    target: usize,
    seed: u64,
    body: Vec<u8>,
    /// Where the last line begins.
    tail: usize,
    slots: Vec<Slot>,
    /// Where each series' `pod` value stands.
    pods: Vec<u32>,
    replaced_each: f64,
    /// Part of a series that is still owed, since the share need not make whole ones.
    replaced_owed: f64,
    next_replaced: usize,
    generation: u64,
    sequence: u64,
}

const COUNTER_LOW: u64 = 1_000_000_000;
const COUNTER_HIGH: u64 = 10_000_000_000;
const GAUGE_LOW: u64 = 10_000_000;
const GAUGE_HIGH: u64 = 100_000_000;
const POD_CHARS: usize = 10;
const PODS: usize = 4;

const SUBSYSTEMS: [&str; 8] = ["http", "grpc", "disk", "queue", "cache", "db_client", "runtime", "net"];
const THINGS: [&str; 8] =
    ["requests", "responses", "operations", "retries", "connections", "messages", "lookups", "errors"];
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "DELETE", "PATCH"];
const BOUNDS: [&str; 18] = [
    "0.001", "0.0025", "0.005", "0.0075", "0.01", "0.025", "0.05", "0.075", "0.1", "0.25", "0.5", "0.75", "1", "2.5",
    "5", "7.5", "10", "+Inf",
];

impl Page {
    /// Renders the page of one target.
    pub(crate) fn new(target: usize, shape: Shape) -> Self {
        let series = shape.series.clamp(1, SERIES_MAX);
        let mut page = Self {
            target,
            seed: mix(shape.seed ^ mix(target as u64)),
            body: Vec::with_capacity(series * 128),
            tail: 0,
            slots: Vec::new(),
            pods: Vec::with_capacity(series - 1),
            replaced_each: shape.churn.clamp(0.0, 1.0) * (series - 1) as f64,
            replaced_owed: 0.0,
            next_replaced: 0,
            generation: 0,
            sequence: 0,
        };
        let mut family = 0;
        while page.pods.len() < series - 1 {
            page.family(family, (series - 1 - page.pods.len()).min(FAMILY_SERIES), shape.change.clamp(0.0, 1.0));
            family += 1;
        }
        page.tail = page.body.len();
        page
    }

    /// Of five families three are counters, one is gauges and one is a histogram; every tenth is for debugging.
    fn family(&mut self, family: usize, series: usize, change: f64) {
        let (subsystem, thing) = (SUBSYSTEMS[family % 8], THINGS[family / 8 % 8]);
        let kind = match family % 5 {
            3 => "gauge",
            // A histogram needs all of its buckets, its sum and its count.
            4 if series == FAMILY_SERIES => "histogram",
            _ => "counter",
        };
        let prefix = if is_debug(family) { DEBUG_PREFIX } else { PREFIX };
        let unit = match kind {
            "gauge" => "ratio",
            "histogram" => "seconds",
            _ => "total",
        };
        let name = format!("{prefix}{subsystem}_{thing}_f{family:03}_{unit}");
        self.text(&format!("# HELP {name} What family {family} of the bench says about {subsystem} {thing}.\n"));
        self.text(&format!("# TYPE {name} {kind}\n"));
        for index in 0..series {
            let service = (family / 3) % 17;
            let pod_gap = " ".repeat(POD_CHARS);
            let (suffix, last) = match (kind, index) {
                ("histogram", 18) => ("_sum", String::new()),
                ("histogram", 19) => ("_count", String::new()),
                ("histogram", _) => ("_bucket", format!(",le=\"{}\"", BOUNDS[index])),
                _ => ("", format!(",code=\"{}\"", 200 + index)),
            };
            let method = METHODS[if kind == "histogram" { family / 5 % 5 } else { index % 5 }];
            let route = if kind == "histogram" { 0 } else { index / 5 };
            self.text(&format!(
                "{name}{suffix}{{service=\"svc-{service:02}\",method=\"{method}\",route=\"/api/v1/items/{route}\",pod=\""
            ));
            let pod_at = self.body.len();
            self.text(&pod_gap);
            self.text(&format!("\"{last}}} "));
            self.pods.push(pod_at as u32);
            // A page tells of few pods, until churn gives a series one of its own.
            let pod = mix(self.seed ^ (family % PODS) as u64);
            write_pod(&mut self.body[pod_at..pod_at + POD_CHARS], pod);

            let gauge = kind == "gauge";
            let random = mix(self.seed ^ (self.pods.len() as u64).rotate_left(32));
            let value = if gauge {
                GAUGE_LOW + random % (GAUGE_HIGH - GAUGE_LOW)
            } else {
                COUNTER_LOW + random % 4_000_000_000
            };
            let slot = Slot { offset: self.body.len() as u32, gauge, value };
            self.text(if gauge { "00.000000\n" } else { "0000000000\n" });
            slot.write(&mut self.body);
            if unit_interval(mix(random)) < change {
                self.slots.push(slot);
            }
        }
    }

    fn text(&mut self, text: &str) {
        self.body.extend_from_slice(text.as_bytes());
    }

    /// Moves on to the next scrape and gives its page.
    pub(crate) fn advance(&mut self) -> &[u8] {
        self.sequence += 1;
        if self.sequence > 1 {
            for (index, slot) in self.slots.iter_mut().enumerate() {
                slot.advance(mix(self.seed ^ self.sequence.rotate_left(40) ^ index as u64));
                slot.write(&mut self.body);
            }
            self.replace();
        }
        self.body.truncate(self.tail);
        let (target, sequence) = (self.target, self.sequence);
        // Writing to a vector cannot fail.
        let _ = write!(
            self.body,
            "# HELP {SEQUENCE} Number of this scrape of this target.\n# TYPE {SEQUENCE} gauge\n\
             {SEQUENCE}{{target=\"{target}\"}} {sequence}\n"
        );
        &self.body
    }

    /// Gives the next series in turn a new identity.
    fn replace(&mut self) {
        if self.pods.is_empty() {
            return;
        }
        self.replaced_owed += self.replaced_each;
        while self.replaced_owed >= 1.0 {
            self.replaced_owed -= 1.0;
            self.generation += 1;
            let at = self.pods[self.next_replaced] as usize;
            write_pod(&mut self.body[at..at + POD_CHARS], mix(self.seed ^ mix(self.generation | 1 << 62)));
            self.next_replaced = (self.next_replaced + 1) % self.pods.len();
        }
    }
}

impl Slot {
    fn advance(&mut self, random: u64) {
        if self.gauge {
            self.value = GAUGE_LOW + random % (GAUGE_HIGH - GAUGE_LOW);
        } else {
            self.value += 1 + random % 1000;
            if self.value >= COUNTER_HIGH {
                // A reset, as of a process that started again.
                self.value = COUNTER_LOW;
            }
        }
    }

    fn write(&self, body: &mut [u8]) {
        let at = self.offset as usize;
        if self.gauge {
            digits(&mut body[at..at + 2], self.value / 1_000_000);
            digits(&mut body[at + 3..at + 9], self.value % 1_000_000);
        } else {
            digits(&mut body[at..at + 10], self.value);
        }
    }
}

/// Every tenth family is for debugging.
fn is_debug(family: usize) -> bool {
    family % 10 == 7
}

/// Fills the field with the number, with zeros in front.
fn digits(field: &mut [u8], mut value: u64) {
    for digit in field.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

fn write_pod(field: &mut [u8], mut random: u64) {
    for char in field {
        *char = b"bcdfghjklmnpqrstvwxz2456789acegh"[(random % 32) as usize];
        random /= 32;
    }
}

/// The finaliser of splitmix64: turns numbers that are alike into ones that are not.
pub(crate) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number from 0 to just under 1.
fn unit_interval(random: u64) -> f64 {
    (random >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const SHAPE: Shape = Shape { series: 1000, change: 0.5, churn: 0.0, seed: 1 };

    /// The series (without values) and the values of a page.
    fn read(page: &[u8]) -> Vec<(String, f64)> {
        let text = std::str::from_utf8(page).unwrap();
        assert!(text.ends_with('\n'));
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| {
                let (series, value) = line.rsplit_once(' ').unwrap();
                (series.to_owned(), value.parse().unwrap())
            })
            .collect()
    }

    #[test]
    fn a_page_has_the_promised_number_of_distinct_series_in_families_of_twenty() {
        let mut page = Page::new(7, SHAPE);
        let text = String::from_utf8(page.advance().to_vec()).unwrap();
        let series = read(text.as_bytes());
        assert_eq!(series.len(), 1000);
        assert_eq!(series.iter().map(|(name, _)| name).collect::<HashSet<_>>().len(), 1000);
        // 999 series in families of 20, and the sequence number's family.
        assert_eq!(text.matches("# TYPE ").count(), 51);
        assert_eq!(text.matches("# HELP ").count(), 51);
        assert!(text.contains(" histogram\n") && text.contains(" gauge\n") && text.contains(" counter\n"));
        assert_eq!(series.last().unwrap(), &("bench_seq{target=\"7\"}".to_owned(), 1.0));
        let five = series.iter().filter(|(name, _)| name.matches("=\"").count() == 5).count();
        assert!(five > 950, "{five} series have five labels");
    }

    #[test]
    fn the_promised_share_of_values_changes_and_the_names_stay() {
        let mut page = Page::new(0, SHAPE);
        let (first, second) = (read(page.advance()), read(page.advance()));
        let changed = first.iter().zip(&second).filter(|(a, b)| a.1 != b.1).count();
        assert!((450..=550).contains(&changed), "{changed} of 1000 changed");
        assert!(first.iter().zip(&second).all(|(a, b)| a.0 == b.0));
        assert_eq!(second.last().unwrap().1, 2.0);
        let mut still = Page::new(0, Shape { change: 0.0, ..SHAPE });
        let (first, second) = (read(still.advance()), read(still.advance()));
        assert_eq!(first[..999], second[..999]);
    }

    #[test]
    fn churn_replaces_the_promised_share_of_series_by_new_ones() {
        let mut page = Page::new(0, Shape { churn: 0.05, ..SHAPE });
        let mut seen: HashSet<String> = HashSet::new();
        for scrape in 0..40 {
            let series = read(page.advance());
            assert_eq!(series.len(), 1000);
            let new = series.into_iter().filter(|(name, _)| seen.insert(name.clone())).count();
            if scrape > 0 {
                assert!((49..=50).contains(&new), "{new} new series in scrape {scrape}");
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_pages() {
        let shape = Shape { churn: 0.01, ..SHAPE };
        let (mut a, mut b, mut other) =
            (Page::new(3, shape), Page::new(3, shape), Page::new(3, Shape { seed: 2, ..shape }));
        for _ in 0..5 {
            assert_eq!(a.advance(), b.advance());
            assert_ne!(a.body, other.advance());
        }
    }

    #[test]
    fn counters_only_rise() {
        let mut page = Page::new(1, SHAPE);
        let mut before = read(page.advance());
        for _ in 0..20 {
            let now = read(page.advance());
            for ((name, old), (_, new)) in before.iter().zip(&now) {
                assert!(name.contains("ratio") || old <= new, "{name} fell from {old} to {new}");
            }
            before = now;
        }
    }

    /// How many of a page's series belong to the families for debugging.
    fn debug_series(series: usize) -> usize {
        let (families, rest) = ((series - 1) / FAMILY_SERIES, (series - 1) % FAMILY_SERIES);
        let whole = (0..families).filter(|&family| is_debug(family)).count() * FAMILY_SERIES;
        whole + if is_debug(families) { rest } else { 0 }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_shape_gives_whole_pages(
            series in 1_usize..300, change in 0.0..1.0, churn in 0.0..1.0, seed in any::<u64>(), target in 0_usize..5000,
        ) {
            let mut page = Page::new(target, Shape { series, change, churn, seed });
            for sequence in 1..4 {
                let lines = read(page.advance());
                prop_assert_eq!(lines.len(), series);
                prop_assert_eq!(lines.iter().map(|(name, _)| name).collect::<HashSet<_>>().len(), series);
                prop_assert_eq!(lines[series - 1].1, f64::from(sequence));
                let debug = lines.iter().filter(|(name, _)| name.starts_with(DEBUG_PREFIX)).count();
                prop_assert_eq!(debug, debug_series(series));
            }
        }
    }
}
