//! Times as Go's package `time` reads and prints them: layouts, zones, and the range of a 64-bit count of seconds.

mod format;
mod layout;
mod parse;
mod strptime;
mod zone;

pub use layout::Layout;
pub use parse::ParseError;
pub use strptime::{Strptime, StrptimeError, in_recent_year, parse_recent};
pub use zone::{Zone, ZoneError};

/// The layouts that Go has names for, by name.
pub const NAMED_LAYOUTS: &[(&str, &str)] = &[
    ("ANSIC", "Mon Jan _2 15:04:05 2006"),
    ("UnixDate", "Mon Jan _2 15:04:05 MST 2006"),
    ("RubyDate", "Mon Jan 02 15:04:05 -0700 2006"),
    ("RFC822", "02 Jan 06 15:04 MST"),
    ("RFC822Z", "02 Jan 06 15:04 -0700"),
    ("RFC850", "Monday, 02-Jan-06 15:04:05 MST"),
    ("RFC1123", "Mon, 02 Jan 2006 15:04:05 MST"),
    ("RFC1123Z", "Mon, 02 Jan 2006 15:04:05 -0700"),
    ("RFC3339", "2006-01-02T15:04:05Z07:00"),
    ("RFC3339Nano", "2006-01-02T15:04:05.999999999Z07:00"),
];

/// A date and a time of day without a zone. Months and days begin at 1; the calendar is the Gregorian one, also before its
/// time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    /// The year; 0 is the one before 1.
    pub year: i64,
    /// The month, from 1 on. Beyond 12 it counts on into the next years.
    pub month: u32,
    /// The day, from 1 on. Beyond the end of the month it counts on into the next.
    pub day: u32,
    /// The hour, from 0 on.
    pub hour: u32,
    /// The minute.
    pub minute: u32,
    /// The second.
    pub second: u32,
}

impl Civil {
    /// Seconds since the Unix epoch, as if it were UTC.
    pub fn seconds(&self) -> i64 {
        let days = days_from_civil(self.year, self.month, self.day);
        days * 86_400 + i64::from(self.hour) * 3600 + i64::from(self.minute) * 60 + i64::from(self.second)
    }

    /// The date and time so many seconds after the Unix epoch in UTC.
    pub fn from_seconds(seconds: i64) -> Self {
        let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400) as u32);
        let (year, month, day) = civil_from_days(days);
        Civil { year, month, day, hour: rest / 3600, minute: rest / 60 % 60, second: rest % 60 }
    }

    /// The day of the week, 0 is Sunday.
    pub fn weekday(&self) -> u32 {
        (days_from_civil(self.year, self.month, self.day) + 4).rem_euclid(7) as u32
    }

    /// The day of the year, from 1 on.
    pub fn year_day(&self) -> u32 {
        (days_from_civil(self.year, self.month, self.day) - days_from_civil(self.year, 1, 1) + 1) as u32
    }
}

/// Days since the Unix epoch. The year is counted from March, so that a leap day is its last.
fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let months = year * 12 + i64::from(month) - 1 - 2;
    let (year, month) = (months.div_euclid(12), months.rem_euclid(12));
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // The months from March on have 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 31 days.
    let days_before_month = (153 * month + 2) / 5;
    // The first of March of the year 0 was 719,468 days before the Unix epoch.
    365 * year + leap_days + days_before_month + i64::from(day) - 1 - 719_468
}

fn civil_from_days(days: i64) -> (i64, u32, u32) {
    // 146,097 days make 400 years.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * month + 2) / 5 + 1) as u32;
    let year = year + era * 400 + i64::from(month >= 10);
    (year, if month < 10 { month + 3 } else { month - 9 } as u32, day)
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(month: u32, year: i64) -> u32 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The abbreviation of a zone, `CEST`; empty where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abbreviation {
    bytes: [u8; 12],
    len: u8,
}

impl Abbreviation {
    /// An abbreviation. What is longer than twelve bytes is cut.
    pub fn new(text: &str) -> Self {
        let mut bytes = [0; 12];
        let len = (0..=text.len().min(12)).rev().find(|len| text.is_char_boundary(*len)).unwrap_or(0);
        bytes[..len].copy_from_slice(&text.as_bytes()[..len]);
        Abbreviation { bytes, len: len as u8 }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }
}

/// An instant, and the offset of the zone in which it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    /// Seconds since the Unix epoch.
    pub seconds: i64,
    /// Nanoseconds of the second.
    pub nanoseconds: u32,
    /// How many seconds the zone is east of UTC.
    pub offset: i32,
    /// What the zone is called.
    pub zone: Abbreviation,
}

impl Time {
    /// An instant in UTC.
    pub fn utc(seconds: i64, nanoseconds: u32) -> Self {
        Time { seconds, nanoseconds, offset: 0, zone: Abbreviation::new("UTC") }
    }

    /// An instant in UTC, so many nanoseconds after the Unix epoch.
    pub fn from_unix_ns(ns: i64) -> Self {
        Self::utc(ns.div_euclid(1_000_000_000), ns.rem_euclid(1_000_000_000) as u32)
    }

    /// Nanoseconds since the Unix epoch. What lies before 1677 or after 2262 becomes the end of that range.
    pub fn unix_ns(&self) -> i64 {
        let ns = i128::from(self.seconds) * 1_000_000_000 + i128::from(self.nanoseconds);
        i64::try_from(ns).unwrap_or(if ns < 0 { i64::MIN } else { i64::MAX })
    }

    /// The same instant in another zone.
    pub fn within(&self, zone: &Zone) -> Self {
        let (offset, name) = zone.at(self.seconds);
        Time { offset, zone: name, ..*self }
    }

    /// What clocks and calendars of the zone show.
    pub fn civil(&self) -> Civil {
        Civil::from_seconds(self.seconds.saturating_add(i64::from(self.offset)))
    }
}

/// Reads a time as RFC 3339 writes it, with or without fractional seconds: nanoseconds since the Unix epoch.
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    static LAYOUT: std::sync::LazyLock<Layout> = std::sync::LazyLock::new(|| Layout::new("2006-01-02T15:04:05Z07:00"));
    LAYOUT.parse(text.as_bytes(), None).ok().map(|time| time.unix_ns())
}

/// The year that a time without one most likely belongs to: this year, or a neighbour around New Year's Eve. The 29th of
/// February becomes the 1st of March in a year that has none.
///
/// `parsed` is in the year 0, and is what clocks of `zone` showed; without a zone its own offset counts.
pub fn with_year(parsed: &Time, zone: Option<&Zone>, now: &Time) -> Time {
    let (now, mut civil) = (now.civil(), parsed.civil());
    civil.year += match (civil.month, now.month) {
        (12, 1) => now.year - 1,
        (1, 12) => now.year + 1,
        _ => now.year,
    };
    let seconds = match zone {
        Some(zone) => zone.seconds_of(&civil),
        None => civil.seconds() - i64::from(parsed.offset),
    };
    let time = Time { seconds, ..*parsed };
    zone.map_or(time, |zone| time.within(zone))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_year_is_found_for_a_time_without_one() {
        let layout = Layout::new("Jan _2 15:04:05");
        let zone = Zone::load("Europe/Berlin").unwrap();
        for (text, now, zone, expected) in [
            ("Aug 12 01:02:03", "2026-08-21T12:00:00Z", None, "2026-08-12T01:02:03Z"),
            ("Dec 31 23:59:59", "2026-01-01T00:00:01Z", None, "2025-12-31T23:59:59Z"),
            ("Jan  1 00:00:00", "2026-12-31T23:59:59Z", None, "2027-01-01T00:00:00Z"),
            ("Feb 29 10:00:00", "2025-03-01T00:00:00Z", None, "2025-03-01T10:00:00Z"),
            ("Feb 29 10:00:00", "2024-03-01T00:00:00Z", None, "2024-02-29T10:00:00Z"),
            ("Aug 12 01:02:03", "2026-08-21T12:00:00Z", Some(&zone), "2026-08-11T23:02:03Z"),
            ("Jan 12 01:02:03", "2026-01-21T12:00:00Z", Some(&zone), "2026-01-12T00:02:03Z"),
        ] {
            let parsed = layout.parse(text.as_bytes(), zone).unwrap();
            assert_eq!(parsed.civil().year, 0);
            let now = Time::from_unix_ns(parse_rfc3339(now).unwrap());
            assert_eq!(with_year(&parsed, zone, &now).unix_ns(), parse_rfc3339(expected).unwrap(), "{text}");
        }
    }

    fn zone_of(case: &serde_json::Value) -> Option<Zone> {
        case.get("location").map(|name| Zone::load(name.as_str().unwrap()).unwrap())
    }

    /// What was recorded: `ns`, or seconds where nanoseconds leave the range.
    fn instant(value: &serde_json::Value) -> (i64, i64) {
        match value.get("ns").and_then(serde_json::Value::as_i64) {
            Some(ns) => (ns.div_euclid(1_000_000_000), ns.rem_euclid(1_000_000_000)),
            None => (value["sec"].as_i64().unwrap(), value.get("nsec").map_or(0, |nsec| nsec.as_i64().unwrap())),
        }
    }

    #[test]
    fn times_are_read_and_printed_as_go_does() {
        let data = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/time.json")).unwrap();
        let cases: Vec<serde_json::Value> = serde_json::from_slice(&data).unwrap();
        let mut wrong = Vec::new();
        for case in &cases {
            let zone = zone_of(case);
            let layout = Layout::new(case["layout"].as_str().unwrap());
            let found = if case["do"] == "parse" {
                match layout.parse(case["value"].as_str().unwrap().as_bytes(), zone.as_ref()) {
                    Ok(time) => {
                        format!("{} {} {} {:?}", time.seconds, time.nanoseconds, time.offset, time.zone.as_str())
                    }
                    Err(_) => "error".to_owned(),
                }
            } else {
                let (seconds, nanoseconds) = instant(case);
                let mut time = Time::utc(seconds, nanoseconds as u32);
                if let Some(zone) = &zone {
                    time = time.within(zone);
                }
                if let Some(offset) = case.get("offset") {
                    (time.offset, time.zone) = (offset.as_i64().unwrap() as i32, Abbreviation::default());
                }
                layout.format(&time)
            };
            let expected = match (case.get("error"), &case["output"]) {
                (Some(_), _) => "error".to_owned(),
                (None, serde_json::Value::String(text)) => text.clone(),
                (None, output) => {
                    let (seconds, nanoseconds) = instant(output);
                    format!("{seconds} {nanoseconds} {} {}", output["offset"], output["zone"])
                }
            };
            if found != expected {
                wrong.push(format!("{case}\n   {found}"));
            }
        }
        assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
        assert!(cases.len() > 3000);
    }

    proptest! {
        #[test]
        fn no_text_and_no_layout_make_it_panic(layout in "[0-9JanMoTZ:., _PM+-]{0,30}", text in ".{0,40}", ns: i64) {
            let layout = Layout::new(&layout);
            let _ = layout.parse(text.as_bytes(), None);
            let printed = layout.format(&Time::from_unix_ns(ns));
            let _ = layout.parse(printed.as_bytes(), None);
        }

        #[test]
        fn seconds_and_dates_say_the_same(seconds in -100_000_000_000_000i64..100_000_000_000_000) {
            let civil = Civil::from_seconds(seconds);
            prop_assert_eq!(civil.seconds(), seconds);
            prop_assert!((1..=12).contains(&civil.month) && (1..=days_in(civil.month, civil.year)).contains(&civil.day));
            prop_assert!((1..=366).contains(&civil.year_day()));
        }
    }
}
