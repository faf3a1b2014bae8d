//! Times as values of templates.

use std::sync::LazyLock;

use crate::time::{Civil, Layout, Time, Zone};

/// An instant and the zone by which it is shown.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    pub(crate) time: Time,
    pub(crate) zone: Zone,
}

impl PartialEq for Moment {
    fn eq(&self, other: &Self) -> bool {
        self.time == other.time
    }
}

impl Moment {
    /// An instant in a zone.
    pub(crate) fn new(seconds: i64, nanoseconds: u32, zone: Zone) -> Self {
        Moment { time: Time::utc(seconds, nanoseconds).within(&zone), zone }
    }

    /// The first moment of the year 1, which stands for none.
    pub(crate) fn zero() -> Self {
        Moment { time: Time::utc(ZERO_SECONDS, 0), zone: Zone::UTC }
    }

    /// Nanoseconds since the Unix epoch.
    pub(crate) fn ns(&self) -> i128 {
        i128::from(self.time.seconds) * 1_000_000_000 + i128::from(self.time.nanoseconds)
    }

    /// The instant so many nanoseconds after the Unix epoch, in the same zone.
    pub(crate) fn at_ns(&self, ns: i128) -> Self {
        let seconds = ns.div_euclid(1_000_000_000);
        let seconds = i64::try_from(seconds).unwrap_or(if seconds < 0 { i64::MIN } else { i64::MAX });
        self.at(seconds, ns.rem_euclid(1_000_000_000) as u32)
    }

    /// Another instant in the same zone.
    fn at(&self, seconds: i64, nanoseconds: u32) -> Self {
        match self.is_of_its_own() {
            true => Moment { time: Time { seconds, nanoseconds, ..self.time }, zone: self.zone.clone() },
            false => Moment::new(seconds, nanoseconds, self.zone.clone()),
        }
    }

    /// The instant when clocks of the zone show this.
    pub(crate) fn at_civil(&self, civil: &Civil) -> Self {
        let seconds = match self.is_of_its_own() {
            true => civil.seconds() - i64::from(self.time.offset),
            false => self.zone.seconds_of(civil),
        };
        self.at(seconds, self.time.nanoseconds)
    }

    /// Whether it was read with an offset or an abbreviation that the zone does not have then: it keeps those.
    fn is_of_its_own(&self) -> bool {
        self.time.within(&self.zone) != self.time
    }

    /// As Go's `Time.String` shows it.
    pub(crate) fn text(&self) -> String {
        static LAYOUT: LazyLock<Layout> = LazyLock::new(|| Layout::new("2006-01-02 15:04:05.999999999 -0700 MST"));
        LAYOUT.format(&self.time)
    }

    /// As JSON has it.
    pub(crate) fn rfc3339(&self) -> String {
        static LAYOUT: LazyLock<Layout> = LazyLock::new(|| Layout::new("2006-01-02T15:04:05.999999999Z07:00"));
        LAYOUT.format(&self.time)
    }
}

/// Seconds from the Unix epoch to the first moment of the year 1.
pub(crate) const ZERO_SECONDS: i64 = -62_135_596_800;

/// A span of time as Go writes it.
pub(crate) fn duration_text(ns: i64) -> String {
    corten_config::duration::format(ns)
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// The name of a month, from 1 on.
pub(crate) fn month_text(month: i64) -> String {
    let name = usize::try_from(month - 1).ok().and_then(|index| MONTHS.get(index));
    name.map_or_else(|| format!("%!Month({month})"), |name| (*name).to_owned())
}

/// The name of a day of the week, 0 is Sunday.
pub(crate) fn weekday_text(day: i64) -> String {
    let name = usize::try_from(day).ok().and_then(|index| WEEKDAYS.get(index));
    name.map_or_else(|| format!("%!Weekday({day})"), |name| (*name).to_owned())
}
