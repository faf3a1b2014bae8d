//! Zones.

use std::fmt;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{Abbreviation, Civil};

/// A zone by which times are read and shown.
#[derive(Clone, Debug)]
pub struct Zone {
    known: Known,
    /// The abbreviations that were ever in use, with their offsets.
    names: Vec<(Abbreviation, i32)>,
}

#[derive(Clone, Debug)]
enum Known {
    Utc,
    Named(TimeZone),
}

/// A zone that nobody knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneError(String);

impl fmt::Display for ZoneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ZoneError {}

impl Zone {
    /// Coordinated universal time.
    pub const UTC: Zone = Zone { known: Known::Utc, names: Vec::new() };

    /// The zone of a name of the IANA database. The empty name and `UTC` are UTC, `Local` is what the environment variable
    /// `TZ` names, or else the file `/etc/localtime` leads to, or else UTC.
    ///
    /// # Errors
    ///
    /// A name that the database does not have, in Go's words.
    pub fn load(name: &str) -> Result<Self, ZoneError> {
        match name {
            "" | "UTC" => return Ok(Self::UTC),
            "Local" => return Ok(local()),
            _ => {}
        }
        if name.contains("..") || name.starts_with(['/', '\\']) {
            return Err(ZoneError("time: invalid location name".to_owned()));
        }
        let unknown = || ZoneError(format!("unknown time zone {name}"));
        let zone = TimeZone::get(name).map_err(|_| unknown())?;
        // The database is looked up without regard to case, Go's is not.
        if zone.iana_name().is_some_and(|known| known != name) {
            return Err(unknown());
        }
        let mut names: Vec<(Abbreviation, i32)> = Vec::new();
        let mut add = |name: &str, offset: i32| {
            let pair = (Abbreviation::new(name), offset);
            if !names.contains(&pair) {
                names.push(pair);
            }
        };
        let start = Timestamp::MIN;
        let info = zone.to_offset_info(start);
        add(info.abbreviation(), info.offset().seconds());
        // Transitions go on for ever where a rule makes them; names do not.
        for transition in zone.following(start).take(TRANSITIONS_MAX) {
            add(transition.abbreviation(), transition.offset().seconds());
        }
        Ok(Zone { known: Known::Named(zone), names })
    }

    /// The offset that is in use so many seconds after the Unix epoch, in seconds east of UTC, and what it is called.
    pub fn at(&self, seconds: i64) -> (i32, Abbreviation) {
        match &self.known {
            Known::Utc => (0, Abbreviation::new("UTC")),
            Known::Named(zone) => {
                let end = if seconds < 0 { Timestamp::MIN } else { Timestamp::MAX };
                let info = zone.to_offset_info(Timestamp::from_second(seconds).unwrap_or(end));
                (info.offset().seconds(), Abbreviation::new(info.abbreviation()))
            }
        }
    }

    /// When clocks of the zone show this, in seconds since the Unix epoch. Where they show it twice or never, it is Go's
    /// choice.
    pub fn seconds_of(&self, civil: &Civil) -> i64 {
        let local = civil.seconds();
        let (guess, _) = self.at(local);
        if guess == 0 {
            return local;
        }
        let (offset, _) = self.at(local - i64::from(guess));
        local - i64::from(offset)
    }

    /// The offset of an abbreviation: the one that is in use when clocks show this, else any that ever was.
    pub(super) fn offset_of(&self, name: &str, local: i64) -> Option<i32> {
        let named = || self.names.iter().filter(|(known, _)| known.as_str() == name).map(|(_, offset)| *offset);
        named().find(|offset| self.at(local - i64::from(*offset)).1.as_str() == name).or_else(|| named().next())
    }
}

/// The most changes of a zone's offset that are looked at for its names.
const TRANSITIONS_MAX: usize = 1000;

fn local() -> Zone {
    let named = match std::env::var("TZ") {
        Ok(name) => Some(name.trim_start_matches(':').to_owned()),
        Err(_) => std::fs::read_link("/etc/localtime")
            .ok()
            .and_then(|path| Some(path.to_str()?.split_once("zoneinfo/")?.1.to_owned())),
    };
    named.filter(|name| name != "Local").and_then(|name| Zone::load(&name).ok()).unwrap_or(Zone::UTC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_known_by_their_exact_names() {
        for (name, expected) in [
            ("", Ok(())),
            ("UTC", Ok(())),
            ("Europe/Berlin", Ok(())),
            ("US/Eastern", Ok(())),
            ("europe/berlin", Err("unknown time zone europe/berlin")),
            ("Nowhere", Err("unknown time zone Nowhere")),
            ("../etc/passwd", Err("time: invalid location name")),
            ("/etc/passwd", Err("time: invalid location name")),
        ] {
            let found = Zone::load(name).map(drop).map_err(|error| error.to_string());
            assert_eq!(found, expected.map_err(str::to_owned), "{name}");
        }
    }
}
