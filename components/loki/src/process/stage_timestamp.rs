//! `stage.timestamp`.

use std::collections::HashMap;

use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_config::schema::Stability;
use corten_golang::time::{Layout, NAMED_LAYOUTS, Time, Zone, with_year};
use corten_signal::logs::Stream;

use parking_lot::Mutex;

use super::stage::{Build, Compile, Emit, Next, Slot, Stage, StageError, Work, check, now_ns};

/// For how many label sets the last time is remembered at least.
const STREAMS_REMEMBERED: usize = 10_000;

/// How much memory the label sets of a generation may take, in bytes.
const STREAMS_BYTES_MAX: usize = 32 << 20;

/// Takes the time of the entry from an extracted value.
///
/// A format is a layout of the Go language, or one of the names `ANSIC`, `UnixDate`, `RubyDate`, `RFC822`, `RFC822Z`,
/// `RFC850`, `RFC1123`, `RFC1123Z`, `RFC3339`, `RFC3339Nano`, `Unix`, `UnixMs`, `UnixUs` and `UnixNs`. A layout without a year
/// takes the one that is nearest to now.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct TimestampStage {
    /// Name of the extracted value.
    source: String,
    /// Format of the time.
    format: String,
    /// Formats to try, in order, where the first does not fit.
    #[arg(optional)]
    fallback_formats: Vec<String>,
    /// Name of the time zone, of the IANA database, of times that do not name one. Formats with names take UTC.
    location: Option<String>,
    /// What to do where there is no time: `fudge` takes the last one of the same labels and a nanosecond, `skip` leaves the
    /// entry as it is.
    #[arg(default = "fudge")]
    action_on_failure: String,
    /// What to do with the same time as that of the line before, of the same labels: `fudge` adds a nanosecond, `keep` leaves it
    /// as it is.
    #[arg(default = "fudge")]
    action_on_duplicate_timestamp: String,
}

impl TimestampStage {
    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        check(self)
    }
}

impl Build for TimestampStage {
    fn build(&self, cx: &mut Compile<'_>) -> Result<Box<dyn Stage>, StageError> {
        if self.source.is_empty() {
            return Err(StageError::at("source", "timestamp source value is required if timestamp is specified"));
        }
        if self.format.is_empty() {
            return Err(StageError::at("format", "timestamp format is required"));
        }
        let zone = match &self.location {
            Some(name) => Some(Zone::load(name).map_err(|error| {
                // The reference forgot to fill the place in.
                StageError::at("location", format!("invalid location specified: %v: {error}"))
            })?),
            None => None,
        };
        let choice = |field, value: &str, other: &str, what| match value {
            "" | "fudge" => Ok(true),
            value if value == other => Ok(false),
            _ if other == "skip" => {
                Err(StageError::at(field, format!("invalid action on {what} (supported values are [skip fudge])")))
            }
            _ => Err(StageError::at(field, format!("invalid action on {what} (supported values are [keep fudge])"))),
        };
        let on_failure = choice("action_on_failure", &self.action_on_failure, "skip", "failure")?;
        let on_duplicate = choice(
            "action_on_duplicate_timestamp",
            &self.action_on_duplicate_timestamp,
            "keep",
            "duplicate timestamp",
        )?;
        let formats = std::iter::once(&self.format).chain(&self.fallback_formats);
        Ok(Box::new(Timestamp {
            source: cx.slot(&self.source),
            formats: formats.map(|format| Format::new(format, zone.as_ref())).collect(),
            fudges_failures: on_failure,
            fudges_duplicates: on_duplicate,
            known: Mutex::default(),
        }))
    }
}

/// How a time is written.
enum Format {
    Seconds,
    /// A whole number, of so many nanoseconds.
    Units(i64),
    Layout(Layout, Option<Zone>),
    WithoutYear(Layout, Option<Zone>),
}

impl Format {
    fn new(format: &str, zone: Option<&Zone>) -> Self {
        match format {
            "Unix" => return Format::Seconds,
            "UnixMs" => return Format::Units(1_000_000),
            "UnixUs" => return Format::Units(1000),
            "UnixNs" => return Format::Units(1),
            _ => {}
        }
        if let Some((_, layout)) = NAMED_LAYOUTS.iter().find(|(name, _)| *name == format) {
            return Format::Layout(Layout::new(layout), None);
        }
        let (layout, zone) = (Layout::new(format), zone.cloned());
        if format.contains("06") { Format::Layout(layout, zone) } else { Format::WithoutYear(layout, zone) }
    }

    /// Nanoseconds since the Unix epoch.
    fn parse(&self, text: &[u8]) -> Option<i64> {
        match self {
            Format::Seconds => seconds(text),
            // A number beyond the range wraps around, as in the reference.
            Format::Units(ns) => Some(integer(text)?.wrapping_mul(*ns)),
            Format::Layout(layout, zone) => layout.parse(text, zone.as_ref()).ok().map(|time| time.unix_ns()),
            Format::WithoutYear(layout, zone) => {
                let parsed = layout.parse(text, zone.as_ref()).ok()?;
                if parsed.civil().year != 0 {
                    return None;
                }
                Some(with_year(&parsed, zone.as_ref(), &Time::from_unix_ns(now_ns())).unix_ns())
            }
        }
    }
}

/// A whole number as Go's `ParseInt` reads it.
fn integer(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Seconds with or without a fraction.
fn seconds(text: &[u8]) -> Option<i64> {
    let mut parts = text.split(|byte| *byte == b'.');
    let (whole, fraction, more) = (parts.next()?, parts.next(), parts.next());
    if more.is_some() {
        return None;
    }
    let seconds = integer(whole)?;
    let ns = match fraction {
        Some(fraction) => {
            let power = i32::try_from(fraction.len()).map_or(-300, |len| 9 - len);
            // As in the reference, by way of a double.
            (integer(fraction)? as f64 * 10f64.powi(power)) as i64
        }
        None => 0,
    };
    Some(seconds.saturating_mul(1_000_000_000).saturating_add(ns))
}

struct Timestamp {
    source: Slot,
    formats: Vec<Format>,
    fudges_failures: bool,
    fudges_duplicates: bool,
    known: Mutex<LastTimes>,
}

/// The last time of a label set.
#[derive(Clone, Copy)]
struct Last {
    /// As it was read.
    parsed: i64,
    /// As it went on.
    adjusted: i64,
}

/// The last times by label sets, in two generations.
#[derive(Default)]
struct LastTimes {
    young: HashMap<Stream, Last>,
    old: HashMap<Stream, Last>,
    young_bytes: usize,
}

impl LastTimes {
    fn get(&mut self, stream: &Stream) -> Option<&mut Last> {
        // Twice, as a reference that is given back cannot be looked for a second time.
        if self.young.contains_key(stream) {
            return self.young.get_mut(stream);
        }
        let last = self.old.remove(stream)?;
        self.insert(stream.clone(), last);
        self.young.get_mut(stream)
    }

    fn insert(&mut self, stream: Stream, last: Last) {
        let bytes = stream.held_bytes();
        if self.young.len() >= STREAMS_REMEMBERED || self.young_bytes + bytes > STREAMS_BYTES_MAX {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += bytes;
        self.young.insert(stream, last);
    }
}

impl Stage for Timestamp {
    fn run(&self, work: &mut Work, _: &mut Emit) -> Next {
        let text = work.text_of(work.value(self.source));
        let parsed = text.and_then(|text| {
            let text = work.bytes(text);
            self.formats.iter().find_map(|format| format.parse(text))
        });
        let remembers = self.fudges_failures || self.fudges_duplicates;
        match parsed {
            Some(parsed) if !remembers => work.set_timestamp_ns(parsed),
            None if !self.fudges_failures => {}
            parsed => {
                let stream = work.stream();
                let mut known = self.known.lock();
                match (parsed, known.get(&stream)) {
                    (Some(parsed), Some(last)) => {
                        let is_same = self.fudges_duplicates && parsed == last.parsed;
                        let adjusted = if is_same { last.adjusted.saturating_add(1) } else { parsed };
                        *last = Last { parsed, adjusted };
                        work.set_timestamp_ns(adjusted);
                    }
                    (Some(parsed), None) => {
                        known.insert(stream, Last { parsed, adjusted: parsed });
                        work.set_timestamp_ns(parsed);
                    }
                    (None, Some(last)) => {
                        last.adjusted = last.adjusted.saturating_add(1);
                        work.set_timestamp_ns(last.adjusted);
                    }
                    (None, None) => {}
                }
            }
        }
        Next::Keep
    }

    fn ordered(&self) -> bool {
        self.fudges_failures || self.fudges_duplicates
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value as Json;

    use super::*;
    use crate::process::testing::{recorded, set_clock};

    #[test]
    fn it_does_what_the_reference_does() {
        assert!(recorded("timestamp") >= 20);
    }

    #[tokio::test(start_paused = true)]
    async fn formats_are_read_as_the_reference_does() {
        let data = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/timestamp_formats.json")).unwrap();
        let cases: Vec<Json> = serde_json::from_slice(&data).unwrap();
        let text = |case: &Json, name: &str| case[name].as_str().map(str::to_owned);
        let mut wrong = Vec::new();
        for case in &cases {
            set_clock(corten_golang::time::parse_rfc3339(&text(case, "now").unwrap()).unwrap());
            let zone = text(case, "location").map(|name| Zone::load(&name).unwrap());
            let format = Format::new(&text(case, "format").unwrap(), zone.as_ref());
            let found = format.parse(text(case, "value").unwrap().as_bytes());
            let output = &case["output"];
            let expected = match (output["ns"].as_i64(), output["sec"].as_i64()) {
                (Some(ns), _) => Some(ns),
                // Beyond the range of nanoseconds it is the end of the range.
                (None, Some(seconds)) => Some(if seconds < 0 { i64::MIN } else { i64::MAX }),
                (None, None) => None,
            };
            if found != expected {
                wrong.push(format!("{case}\n    {found:?}"));
            }
        }
        assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    }

    #[test]
    fn last_times_are_bounded() {
        let mut known = LastTimes::default();
        for at in 0..25_000i64 {
            known.insert(Stream::of([("a", at.to_string().as_str())]).unwrap(), Last { parsed: at, adjusted: at });
        }
        assert!(known.young.len() + known.old.len() <= 2 * STREAMS_REMEMBERED);
        let mut get =
            |at: i64| known.get(&Stream::of([("a", at.to_string().as_str())]).unwrap()).map(|last| last.parsed);
        assert!((20_000..25_000).all(|at| get(at) == Some(at)));
        assert_eq!(get(0), None);
    }

    #[test]
    fn last_times_of_large_label_sets_do_not_add_up() {
        let mut known = LastTimes::default();
        let stream =
            |at: i64| Stream::of([("a", "x".repeat(1 << 20).as_str()), ("b", at.to_string().as_str())]).unwrap();
        for at in 0..100 {
            known.insert(stream(at), Last { parsed: at, adjusted: at });
            assert!(known.young.len() + known.old.len() <= 64);
        }
        assert_eq!(known.get(&stream(99)).map(|last| last.parsed), Some(99));
    }

    proptest! {
        #[test]
        fn no_text_makes_a_format_panic(text in proptest::collection::vec(any::<u8>(), 0..40), number in "[-+0-9.]{0,30}") {
            for format in ["Unix", "UnixMs", "UnixNs", "RFC3339", "Jan _2 15:04:05", "2006"] {
                let _ = Format::new(format, None).parse(&text);
                let _ = Format::new(format, None).parse(number.as_bytes());
            }
        }
    }
}
