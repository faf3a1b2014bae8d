//! The families of `stage.metrics`.

use std::borrow::Cow;
use std::collections::HashMap;

use corten_component::Logger;
use corten_component::metrics::{Collect, Kind, Snapshot, Value};
use corten_signal::Labels;
use parking_lot::Mutex;

use super::stage::now_ns;

/// The most series that a family has. Entries that would make more are not counted.
const SERIES_MAX: usize = 1_000_000;

/// How much memory the series of a family may take, in bytes. Entries that would take more are not counted.
const SERIES_BYTES_MAX: usize = 512 << 20;

/// The labels of a series are a string each, and its key repeats them.
const LABEL_BYTES: usize = 2 * size_of::<String>() + 16;

/// For how many seconds a family that is full is not searched again for series that can be forgotten.
const SEARCH_PAUSE_S: i64 = 10;

/// What a family holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum FamilyKind {
    Counter,
    Gauge,
    /// With the upper bounds of its buckets but the last, which has none.
    Histogram(Vec<f64>),
}

/// A family, with one series for each label set that was seen lately.
pub(super) struct Family {
    name: String,
    help: String,
    kind: FamilyKind,
    /// For how many seconds a series is kept that nothing changes.
    idle_max_s: i64,
    state: Mutex<State>,
    logger: Option<Logger>,
}

#[derive(Default)]
struct State {
    /// By the encoded label set.
    series: HashMap<Box<[u8]>, Series>,
    key: Vec<u8>,
    /// How much memory the series take, in bytes, about.
    bytes: usize,
    is_full: bool,
    /// When it was last searched for series that can be forgotten, in seconds since the Unix epoch.
    searched_s: i64,
}

struct Series {
    labels: Vec<(String, String)>,
    cell: Cell,
    /// When it was changed, in seconds since the Unix epoch.
    changed_s: i64,
}

impl Series {
    /// How much memory it takes, in bytes, about, with a key of this length.
    fn bytes(&self, key: usize) -> usize {
        let cell = match &self.cell {
            Cell::Number(_) => 0,
            Cell::Histogram { counts, .. } => counts.len() * size_of::<u64>(),
        };
        size_of::<Series>() + 2 * key + self.labels.len() * LABEL_BYTES + cell
    }
}

/// The value of a series.
#[derive(Clone, Debug, PartialEq)]
enum Cell {
    Number(f64),
    /// How many observations there were by bucket, and their sum.
    Histogram {
        counts: Vec<u64>,
        sum: f64,
    },
}

/// A change of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Change {
    Add(f64),
    Set(f64),
    Observe(f64),
}

impl Family {
    /// A family without series. What may not stand in a name is replaced by underscores, as the reference does for
    /// scrapers that do not ask for other names.
    pub(super) fn new(name: &str, help: &str, kind: FamilyKind, idle_max_s: i64, logger: Option<Logger>) -> Self {
        let name = escaped(name).into_owned();
        Family { name, help: help.to_owned(), kind, idle_max_s, state: Mutex::default(), logger }
    }

    /// Changes the series of a label set, at so many seconds since the Unix epoch. It is made if it is not there.
    pub(super) fn change(&self, labels: Labels<'_>, change: Change, now_s: i64) {
        // The reference would end here.
        if matches!((&self.kind, change), (FamilyKind::Counter, Change::Add(value)) if value < 0.0) {
            return;
        }
        let mut state = self.state.lock();
        let State { series, key, bytes, is_full, searched_s } = &mut *state;
        key.clear();
        for (name, value) in self.exported(labels) {
            for text in [&*name, value] {
                key.extend_from_slice(&(text.len() as u32).to_le_bytes());
                key.extend_from_slice(text.as_bytes());
            }
        }
        if !series.contains_key(key.as_slice()) {
            let mut labels: Vec<(String, String)> =
                self.exported(labels).map(|(name, value)| (name.into_owned(), value.to_owned())).collect();
            labels.sort();
            labels.dedup_by(|(a, _), (b, _)| a == b);
            let cell = match &self.kind {
                FamilyKind::Histogram(bounds) => Cell::Histogram { counts: vec![0; bounds.len() + 1], sum: 0.0 },
                FamilyKind::Counter | FamilyKind::Gauge => Cell::Number(0.0),
            };
            let made = Series { labels, cell, changed_s: now_s };
            let more = made.bytes(key.len());
            let fits = |series: &HashMap<Box<[u8]>, Series>, bytes: usize| {
                series.len() < SERIES_MAX && bytes.saturating_add(more) <= SERIES_BYTES_MAX
            };
            if !fits(series, *bytes) && now_s.saturating_sub(*searched_s) >= SEARCH_PAUSE_S {
                // Nobody asks for the metrics: what is idle would otherwise stay for ever.
                *searched_s = now_s;
                series.retain(|key, series| {
                    let stays = now_s - series.changed_s < self.idle_max_s;
                    *bytes -= if stays { 0 } else { series.bytes(key.len()) };
                    stays
                });
            }
            if !fits(series, *bytes) {
                if !std::mem::replace(is_full, true)
                    && let Some(logger) = &self.logger
                {
                    let message = "metric has too many series; entries with further label sets are not counted";
                    logger.warn(message, &[("metric", self.name.as_str().into()), ("series", series.len().into())]);
                }
                return;
            }
            *bytes += more;
            series.insert(key.as_slice().into(), made);
        }
        let Some(series) = series.get_mut(key.as_slice()) else { return };
        series.changed_s = now_s;
        match (&mut series.cell, change, &self.kind) {
            (Cell::Number(number), Change::Add(value), _) => *number += value,
            (Cell::Number(number), Change::Set(value), _) => *number = value,
            (Cell::Histogram { counts, sum }, Change::Observe(value), FamilyKind::Histogram(bounds)) => {
                // What is no number lies above all bounds.
                counts[bounds.iter().position(|bound| value <= *bound).unwrap_or(bounds.len())] += 1;
                *sum += value;
            }
            _ => {}
        }
    }

    /// The labels that series have: those that are not internal.
    fn exported<'l>(&self, labels: Labels<'l>) -> impl Iterator<Item = (Cow<'l, str>, &'l str)> {
        let is_histogram = matches!(self.kind, FamilyKind::Histogram(_));
        labels
            .iter()
            .filter(move |(name, _)| !(name.is_empty() || name.starts_with("__") || is_histogram && *name == "le"))
            .map(|(name, value)| (escaped(name), value))
    }

    /// Adds the series to a snapshot. Those that nothing changed for long are then forgotten.
    pub(super) fn collect(&self, now_s: i64, into: &mut Snapshot) {
        let kind = match self.kind {
            FamilyKind::Counter => Kind::Counter,
            FamilyKind::Gauge => Kind::Gauge,
            FamilyKind::Histogram(_) => Kind::Histogram,
        };
        let mut state = self.state.lock();
        let State { series, bytes, is_full, .. } = &mut *state;
        series.retain(|key, series| {
            into.add(&self.name, &self.help, kind, series.labels.clone(), self.value(&series.cell));
            let stays = now_s - series.changed_s < self.idle_max_s;
            if !stays {
                *bytes -= series.bytes(key.len());
                // There is room again.
                *is_full = false;
            }
            stays
        });
    }

    fn value(&self, cell: &Cell) -> Value {
        match (cell, &self.kind) {
            (Cell::Histogram { counts, sum }, FamilyKind::Histogram(bounds)) => {
                let mut count = 0;
                let bounds = bounds.iter().copied().chain([f64::INFINITY]);
                let buckets = bounds.zip(counts).map(|(bound, more)| {
                    count += more;
                    (bound, count)
                });
                Value::Histogram { buckets: buckets.collect(), sum: *sum, count: counts.iter().sum() }
            }
            // A negative zero is shown as zero.
            (Cell::Number(number), _) => Value::Number(*number + 0.0),
            (Cell::Histogram { sum, .. }, _) => Value::Number(*sum),
        }
    }
}

/// Families that are gathered together.
pub(super) struct Families(pub(super) Vec<Family>);

impl Collect for Families {
    fn collect(&self, into: &mut Snapshot) {
        let now_s = now_s();
        self.0.iter().for_each(|family| family.collect(now_s, into));
    }
}

/// The time in seconds since the Unix epoch.
pub(super) fn now_s() -> i64 {
    now_ns().div_euclid(1_000_000_000)
}

/// A name with an underscore for each character that may not stand in names of metrics or labels.
fn escaped(name: &str) -> Cow<'_, str> {
    let stays = |(at, character): (usize, char)| {
        character.is_ascii_alphabetic() || "_:".contains(character) || (at > 0 && character.is_ascii_digit())
    };
    if name.char_indices().all(stays) {
        return Cow::Borrowed(name);
    }
    name.char_indices().map(|(at, character)| if stays((at, character)) { character } else { '_' }).collect()
}

/// Reads a number as Go's `strconv.ParseFloat` does, with underscores and hexadecimal digits.
pub(super) fn parse_float(text: &str) -> Option<f64> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let sign = if text.starts_with('-') { -1.0 } else { 1.0 };
    if digits.eq_ignore_ascii_case("inf") || digits.eq_ignore_ascii_case("infinity") {
        return Some(sign * f64::INFINITY);
    }
    if text.eq_ignore_ascii_case("nan") {
        return Some(f64::NAN);
    }
    let plain;
    let digits = if digits.contains('_') {
        if !underscores_stand_well(digits) {
            return None;
        }
        plain = digits.replace('_', "");
        plain.as_str()
    } else {
        digits
    };
    let value = match digits.get(..2) {
        Some("0x" | "0X") => parse_hexadecimal(&digits[2..])?,
        // Rust reads names of infinities as well, and a further sign.
        _ if digits.starts_with(|first: char| first == '.' || first.is_ascii_digit()) => digits.parse().ok()?,
        _ => return None,
    };
    value.is_finite().then_some(sign * value)
}

/// Whether each underscore stands between digits, or between the prefix of a base and a digit.
fn underscores_stand_well(digits: &str) -> bool {
    let bytes = digits.as_bytes();
    let is_prefixed = matches!(bytes, [b'0', b'x' | b'X' | b'o' | b'O' | b'b' | b'B', ..]);
    let is_hexadecimal = matches!(bytes, [b'0', b'x' | b'X', ..]);
    let is_digit = |at: usize| {
        (is_prefixed && at == 1)
            || bytes.get(at).is_some_and(|byte| byte.is_ascii_digit() || (is_hexadecimal && byte.is_ascii_hexdigit()))
    };
    let underscores = (0..bytes.len()).filter(|at| bytes[*at] == b'_');
    underscores.into_iter().all(|at| at > 0 && is_digit(at - 1) && is_digit(at + 1))
}

/// Reads hexadecimal digits with an exponent of two, which must be there: `1.8p-3`.
fn parse_hexadecimal(text: &str) -> Option<f64> {
    let (mantissa, exponent) = text.split_once(['p', 'P'])?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.len() + fraction.len() == 0 {
        return None;
    }
    let is_signed = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
    if is_signed.is_empty() || !is_signed.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // What is beyond all floats either way is beyond them with any digits that fit here.
    let mut exponent = exponent.parse::<i64>().unwrap_or(if exponent.starts_with('-') { -100_000 } else { 100_000 });
    exponent = exponent.clamp(-100_000, 100_000);
    let (mut bits, mut sticky) = (0u64, false);
    for (at, digit) in whole.bytes().chain(fraction.bytes()).enumerate() {
        let digit = u64::from(char::from(digit).to_digit(16)?);
        if bits >> 59 == 0 {
            bits = bits << 4 | digit;
            exponent -= if at < whole.len() { 0 } else { 4 };
        } else {
            sticky |= digit != 0;
            exponent += if at < whole.len() { 4 } else { 0 };
        }
    }
    if bits == 0 {
        return Some(0.0);
    }
    // Below 60 bits, what was left out cannot decide more than a tie.
    let mut value = (bits | u64::from(sticky)) as f64;
    while exponent != 0 && value != 0.0 && value.is_finite() {
        let step = exponent.clamp(-1000, 1000);
        value *= 2f64.powi(step as i32);
        exponent -= step;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use corten_signal::logs::Stream;
    use proptest::prelude::*;

    use super::*;

    fn labels(list: &[(&str, &str)]) -> Stream {
        Stream::of(list.iter().copied()).unwrap()
    }

    fn text(family: &Family, now_s: i64) -> String {
        let mut snapshot = Snapshot::default();
        family.collect(now_s, &mut snapshot);
        snapshot.to_text()
    }

    #[test]
    fn a_series_has_the_labels_that_are_not_internal() {
        let family = Family::new("my metric-x", "", FamilyKind::Counter, 10, None);
        for list in [&[("a", "1"), ("__b", "2")][..], &[("a", "1"), ("__b", "3")], &[], &[("a.b", "1")]] {
            family.change(labels(list).labels(), Change::Add(1.0), 0);
        }
        assert_eq!(
            text(&family, 1),
            "# HELP my_metric_x \n# TYPE my_metric_x counter\nmy_metric_x 1\nmy_metric_x{a=\"1\"} 2\n\
             my_metric_x{a_b=\"1\"} 1\n"
        );
    }

    #[test]
    fn a_series_that_nothing_changes_is_shown_once_more_and_begins_anew() {
        let family = Family::new("c", "C.", FamilyKind::Counter, 10, None);
        let (one, two) = (labels(&[("a", "1")]), labels(&[("a", "2")]));
        let shown = |now_s| text(&family, now_s).lines().skip(2).collect::<Vec<_>>().join(" ");
        family.change(one.labels(), Change::Add(1.0), 100);
        family.change(two.labels(), Change::Add(5.0), 105);
        assert_eq!(shown(109), "c{a=\"1\"} 1 c{a=\"2\"} 5");
        assert_eq!(shown(110), "c{a=\"1\"} 1 c{a=\"2\"} 5");
        assert_eq!(shown(114), "c{a=\"2\"} 5");
        family.change(one.labels(), Change::Add(1.0), 114);
        family.change(two.labels(), Change::Add(1.0), 114);
        assert_eq!(shown(124), "c{a=\"1\"} 1 c{a=\"2\"} 6");
        assert_eq!(text(&family, 125), "");
    }

    #[test]
    fn series_are_bounded_in_memory_and_what_is_idle_makes_room() {
        let family = Family::new("c", "", FamilyKind::Counter, 60, None);
        let value = "x".repeat(16 << 10);
        let change = |at: u32, now_s: i64| {
            let at = at.to_string();
            family.change(labels(&[("a", &at), ("b", &value)]).labels(), Change::Add(1.0), now_s);
            family.state.lock().series.len()
        };
        let all = (0..30_000).fold(0, |_, at| change(at, 100));
        assert!((10_000..SERIES_BYTES_MAX / (32 << 10) + 1).contains(&all), "{all}");
        // What is there goes on, further series have no room, unless others are idle.
        assert_eq!(change(0, 159), all);
        assert_eq!(change(50_000, 159), all);
        assert_eq!(change(50_001, 169), 2);
        let state = family.state.lock();
        assert_eq!(state.bytes, state.series.iter().map(|(key, series)| series.bytes(key.len())).sum::<usize>());
    }

    #[test]
    fn kinds_change_as_they_are_told() {
        let none = labels(&[]);
        let value = |kind: FamilyKind, changes: &[Change]| {
            let family = Family::new("m", "", kind, 10, None);
            changes.iter().for_each(|change| family.change(none.labels(), *change, 0));
            text(&family, 0).lines().skip(2).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(value(FamilyKind::Counter, &[Change::Add(2.0), Change::Add(-1.0)]), "m 2");
        assert_eq!(value(FamilyKind::Counter, &[Change::Add(-1.0)]), "");
        assert_eq!(value(FamilyKind::Gauge, &[Change::Set(5.0), Change::Add(-7.0)]), "m -2");
        let observed = [0.5, 1.0, 1.5, f64::NAN].map(Change::Observe);
        assert_eq!(
            value(FamilyKind::Histogram(vec![1.0, 2.0]), &observed),
            "m_bucket{le=\"1\"} 2 m_bucket{le=\"2\"} 3 m_bucket{le=\"+Inf\"} 4 m_sum NaN m_count 4"
        );
    }

    #[test]
    fn numbers_are_read_as_go_reads_them() {
        for (text, expected) in [
            ("1_000", Some(1000.0)),
            ("0x1p4", Some(16.0)),
            ("0x_1p4", Some(16.0)),
            ("0x1.8p-1", Some(0.75)),
            ("-0x.8p1", Some(-1.0)),
            ("0x1fffffffffffffp0", Some(9_007_199_254_740_991.0)),
            ("0x1p-1074", Some(5e-324)),
            ("0x1p5000", None),
            ("0x10", None),
            ("0xp1", None),
            ("0x1p", None),
            ("0x1p+-1", None),
            ("+5", Some(5.0)),
            (".5", Some(0.5)),
            ("5.", Some(5.0)),
            ("1e400", None),
            ("1e-400", Some(0.0)),
            ("-inf", Some(f64::NEG_INFINITY)),
            ("Infinity", Some(f64::INFINITY)),
            ("+-1", None),
            ("+nan", None),
            ("1_", None),
            ("_1", None),
            ("0_1", Some(1.0)),
            ("1__0", None),
            ("1_e1", None),
            ("0b1", None),
            ("", None),
            (" 1", None),
            ("1e", None),
            (".", None),
        ] {
            assert_eq!(parse_float(text), expected, "{text}");
        }
        assert!(parse_float("NaN").is_some_and(f64::is_nan));
    }

    proptest! {
        #[test]
        fn no_text_makes_reading_a_number_panic(text in "[0-9a-fxpXP_.+-]{0,12}|\\PC{0,8}") {
            let _ = parse_float(&text);
        }

        #[test]
        fn a_hexadecimal_number_is_read_exactly(bits in 0..1u64 << 53, exponent in -20..20i32) {
            prop_assert_eq!(parse_float(&format!("0x{bits:x}p{exponent}")), Some(bits as f64 * 2f64.powi(exponent)));
        }
    }
}
