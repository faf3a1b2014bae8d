//! Times in entries, by layout.

use std::time::{SystemTime, UNIX_EPOCH};

use corten_golang::time::{Layout, Strptime, Time, Zone, in_recent_year, parse_recent};
use corten_signal::regex::GoRegex;

use crate::value::{Text, Value};

/// The time now.
pub fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::utc(i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos())
}

/// Units of counts since the Unix epoch.
#[derive(Clone, Copy, Debug)]
struct Unit {
    name: &'static str,
    /// How many there are in a second.
    in_second: i64,
    /// Whether seconds stand before a point, and the count behind it.
    is_split: bool,
}

const UNITS: [Unit; 7] = [
    Unit { name: "s", in_second: 1, is_split: false },
    Unit { name: "ms", in_second: 1_000, is_split: false },
    Unit { name: "us", in_second: 1_000_000, is_split: false },
    Unit { name: "ns", in_second: 1_000_000_000, is_split: false },
    Unit { name: "s.ms", in_second: 1_000, is_split: true },
    Unit { name: "s.us", in_second: 1_000_000, is_split: true },
    Unit { name: "s.ns", in_second: 1_000_000_000, is_split: true },
];

#[derive(Debug)]
enum Kind {
    Go(Layout),
    Strptime(Strptime),
    Epoch(Unit),
    /// It is a time already.
    Native,
}

/// Reads times of a layout.
#[derive(Debug)]
pub struct TimeReader {
    kind: Kind,
    zone: Zone,
    /// Zones by abbreviations that the text may name.
    zones: Vec<(Text, Zone)>,
}

/// What a layout is given as.
#[derive(Clone, Debug, Default)]
pub(crate) struct TimeConfig {
    pub(crate) layout: String,
    pub(crate) layout_type: String,
    pub(crate) location: String,
    pub(crate) zone_locations: Vec<(Text, String)>,
}

impl TimeReader {
    /// Reads what has a time already.
    pub(crate) fn native() -> Self {
        TimeReader { kind: Kind::Native, zone: Zone::UTC, zones: Vec::new() }
    }

    /// Reads a layout of Go's.
    pub(crate) fn go(layout: &str, zone: Zone) -> Self {
        TimeReader { kind: Kind::Go(Layout::new(layout)), zone, zones: Vec::new() }
    }

    /// Reads a layout of directives, in a zone; the empty name is UTC.
    ///
    /// # Errors
    ///
    /// What is wrong with layout or zone.
    pub fn strptime(layout: &str, location: &str) -> Result<Self, String> {
        let kind = Kind::Strptime(Strptime::new(layout).map_err(|error| error.to_string())?);
        let zone = Zone::load(location)
            .map_err(|error| format!("load location {location}: failed to load location {location}: {error}"))?;
        Ok(TimeReader { kind, zone, zones: Vec::new() })
    }

    pub(crate) fn new(config: &TimeConfig) -> Result<Self, String> {
        if config.layout.is_empty() && config.layout_type != "native" {
            return Err("missing required configuration parameter `layout`".to_owned());
        }
        let (kind, directive) = match &*config.layout_type {
            "native" => return Ok(Self::native()),
            "epoch" => {
                let unit = UNITS.iter().find(|unit| unit.name == config.layout);
                let unit = unit.ok_or_else(|| "invalid `layout` for `epoch` type".to_owned())?;
                return Ok(TimeReader { kind: Kind::Epoch(*unit), zone: Zone::UTC, zones: Vec::new() });
            }
            "gotime" => {
                // Nines are fractions of a second only behind a point or a comma.
                let refused = GoRegex::new("[^.,9]9+").map_err(|error| error.to_string())?;
                if let Some(found) = refused.find(&config.layout) {
                    return Err(format!(
                        "invalid gotime layout: invalid fractional seconds directive: '{}'. must be preceded with '.' or ','",
                        &config.layout[found]
                    ));
                }
                (Kind::Go(Layout::new(&config.layout)), "MST")
            }
            "strptime" => {
                let layout = Strptime::new(&config.layout);
                (Kind::Strptime(layout.map_err(|error| format!("invalid strptime layout: {error}"))?), "%Z")
            }
            other => return Err(format!("unsupported layout_type {other}")),
        };
        let load = |name: &str| Zone::load(name).map_err(|error| format!("failed to load location {name}: {error}"));
        let zone = if !config.location.is_empty() {
            load(&config.location).map_err(|error| format!("invalid 'location': {error}"))?
        } else if config.layout.ends_with('Z') {
            Zone::UTC
        } else {
            load("Local")?
        };
        let mut zones = Vec::new();
        for (abbreviation, name) in &config.zone_locations {
            let zone = Zone::load(name).map_err(|error| {
                format!(
                    "invalid 'location': invalid time_zone_locations entry {:?}: failed to load location {name:?}: {error}",
                    abbreviation.lossy()
                )
            })?;
            zones.push((abbreviation.clone(), zone));
        }
        if !zones.is_empty() && !config.layout.contains(directive) {
            return Err(format!(
                "'time_zone_locations' requires the layout to contain a timezone abbreviation directive (%Z for strptime / MST for gotime), but layout {:?} has none",
                config.layout
            ));
        }
        Ok(TimeReader { kind, zone, zones })
    }

    /// The zone that counts for a text that names none.
    fn zone_of(&self, text: &[u8]) -> &Zone {
        if !self.zones.is_empty() {
            for word in text.split(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'_')) {
                let is_name = (2..=5).contains(&word.len()) && word.iter().all(u8::is_ascii_uppercase);
                if let Some((_, zone)) = self.zones.iter().find(|(name, _)| is_name && **name == *word) {
                    return zone;
                }
            }
        }
        &self.zone
    }

    /// Reads a time.
    ///
    /// # Errors
    ///
    /// Why the value is no time of the layout.
    pub fn read(&self, value: &Value) -> Result<Time, String> {
        let text: &[u8] = match (value, &self.kind) {
            (_, Kind::Epoch(unit)) => return epoch(value, *unit),
            (Value::Time(time), Kind::Native) => return Ok(in_recent_year(*time, &now(), &self.zone)),
            (other, Kind::Native) => {
                return Err(format!(
                    "native time.Time field required, but found {other:?} of type {}",
                    other.go_type()
                ));
            }
            (Value::Str(text), _) => text,
            (Value::Bytes(bytes), _) => bytes,
            (other, _) => return Err(format!("type {} cannot be parsed as a time", other.go_type())),
        };
        let zone = self.zone_of(text);
        let read = match &self.kind {
            Kind::Strptime(layout) => layout.parse(text, zone, &now()),
            Kind::Go(layout) => parse_recent(layout, text, zone, &now()),
            Kind::Epoch(_) | Kind::Native => return Err(String::new()),
        };
        read.map_err(|error| format!("parsing time {:?}: {error}", String::from_utf8_lossy(text)))
    }
}

/// Reads a count since the Unix epoch.
fn epoch(value: &Value, unit: Unit) -> Result<Time, String> {
    let text = match value {
        Value::Str(text) => text.lossy().into_owned(),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Int(number) if unit.is_split => format!("{number}.0"),
        Value::Int(number) => number.to_string(),
        Value::Float(number) if unit.is_split => {
            let digits = unit.in_second.ilog10() as usize;
            format!("{number:10.digits$}")
        }
        Value::Float(number) => (*number as i64).to_string(),
        other => return Err(format!("type {} cannot be parsed as a time", other.go_type())),
    };
    let wrong = || format!("invalid value '{text}' for layout '{}'", unit.name);
    let number = |text: &str| corten_golang::parse_int(text.as_bytes(), 10).map_err(|_| wrong());
    let mut time = if unit.is_split {
        let mut parts = text.split('.');
        let (Some(seconds), Some(rest), None) = (parts.next(), parts.next(), parts.next()) else { return Err(wrong()) };
        let (seconds, rest) = (number(seconds)?, number(rest)?);
        let ns = rest.saturating_mul(1_000_000_000 / unit.in_second);
        Time::utc(seconds.saturating_add(ns.div_euclid(1_000_000_000)), ns.rem_euclid(1_000_000_000) as u32)
    } else {
        let count = number(&text)?;
        let (seconds, rest) = (count.div_euclid(unit.in_second), count.rem_euclid(unit.in_second));
        Time::utc(seconds, (rest * (1_000_000_000 / unit.in_second)) as u32)
    };
    // A time before the year 1 counts as one without a year.
    if time.civil().year <= 0 {
        time = in_recent_year(time, &now(), &Zone::UTC);
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_count_is_a_time_or_refused(
            number in prop_oneof![any::<i64>(), Just(i64::MAX), Just(i64::MIN), Just(-62_135_596_801)], fraction: u64, float: f64,
        ) {
            for unit in UNITS {
                let config = TimeConfig {
                    layout: unit.name.to_owned(),
                    layout_type: "epoch".to_owned(),
                    ..TimeConfig::default()
                };
                let reader = TimeReader::new(&config).unwrap();
                let texts = [number.to_string(), format!("{number}.{fraction}"), format!("{number}.-{fraction}")];
                for value in texts.map(Value::str).into_iter().chain([Value::Int(number), Value::Float(float)]) {
                    if let Ok(time) = reader.read(&value) {
                        prop_assert!(time.nanoseconds < 1_000_000_000);
                        let _ = (time.unix_ns(), crate::expr::go_text(&Value::Time(time)));
                    }
                }
            }
        }
    }
}
