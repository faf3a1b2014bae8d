//! Times of messages.

use std::fmt;

/// A time as a message states it. Days are those of the calendar; the year may be 0, where a message does not say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The year, from 0.
    pub year: i32,
    /// The month, from 1.
    pub month: u8,
    /// The day, from 1.
    pub day: u8,
    /// Hours, minutes, seconds.
    pub time: [u8; 3],
    /// Nanoseconds.
    pub nanos: u32,
    /// How far the clock was ahead of UTC, in minutes.
    pub offset_minutes: i32,
}

const MONTHS: [&[u8]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// The number of a month by its short name.
pub(super) fn month(name: &[u8]) -> Option<u8> {
    MONTHS.iter().position(|month| *month == name).map(|at| at as u8 + 1)
}

fn is_leap(year: i32) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of(year: i32, month: u8) -> u8 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a day of the proleptic Gregorian calendar.
fn days_since_epoch(year: i32, month: u8, day: u8) -> i64 {
    // Years begin in March, so that the day that not all have is the last.
    let year = i64::from(year) - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let month = (i64::from(month) + 9) % 12;
    let of_year = (153 * month + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year and month of a time, in UTC.
fn year_and_month(unix_s: i64) -> (i32, u8) {
    let days = unix_s.div_euclid(86_400) + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = ((5 * of_year + 2) / 153 + 2) % 12 + 1;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (i32::try_from(year).unwrap_or_default(), month as u8)
}

impl Stamp {
    /// Whether the month has such a day.
    pub(super) fn is_a_day(&self) -> bool {
        self.day <= days_of(self.year, self.month)
    }

    /// Reads a time after RFC 3339. As Go takes it, the hour may have one digit, and a comma may stand for the point; digits
    /// of a second beyond nanoseconds are cut off.
    pub fn parse_rfc3339(text: &[u8]) -> Option<Self> {
        let number = |range: std::ops::Range<usize>, low: u32, high: u32| {
            let digits = text.get(range).filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
            let value = digits.iter().fold(0, |value, digit| value * 10 + u32::from(digit - b'0'));
            (low..=high).contains(&value).then_some(value)
        };
        let hour = 11..if text.get(12) == Some(&b':') { 12 } else { 13 };
        let minute = hour.end + 1;
        let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (hour.end, b':'), (minute + 2, b':')];
        if separators.iter().any(|(at, separator)| text.get(*at) != Some(separator)) {
            return None;
        }
        let year = number(0..4, 0, 9999)? as i32;
        let (month, day) = (number(5..7, 1, 12)? as u8, number(8..10, 1, 31)? as u8);
        let (minute, second) = (minute..minute + 2, minute + 3..minute + 5);
        let mut at = second.end;
        let time = [number(hour, 0, 23)? as u8, number(minute, 0, 59)? as u8, number(second, 0, 59)? as u8];
        let mut nanos = 0;
        if let Some(b'.' | b',') = text.get(at) {
            let digits = text[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits == 0 {
                return None;
            }
            for place in 0..9 {
                let digit = if place < digits { u32::from(text[at + 1 + place] - b'0') } else { 0 };
                nanos = nanos * 10 + digit;
            }
            at += 1 + digits;
        }
        let sign = match (text.get(at)?, text.len() - at) {
            (b'Z', 1) => 0,
            (b'+', 6) => 1,
            (b'-', 6) => -1,
            _ => return None,
        };
        let mut offset_minutes = 0;
        if sign != 0 {
            if text[at + 3] != b':' {
                return None;
            }
            let (hours, minutes) = (number(at + 1..at + 3, 0, 24)? as i32, number(at + 4..at + 6, 0, 60)? as i32);
            offset_minutes = sign * (hours * 60 + minutes);
        }
        let stamp = Stamp { year, month, day, time, nanos, offset_minutes };
        stamp.is_a_day().then_some(stamp)
    }

    /// The time in nanoseconds since the Unix epoch. What 64 bits do not hold becomes the nearest that they do, as does a
    /// time of the year 0.
    pub fn unix_ns(&self) -> i64 {
        let [hour, minute, second] = self.time.map(i64::from);
        let seconds = days_since_epoch(self.year, self.month, self.day) * 86_400 + hour * 3_600 + minute * 60 + second
            - i64::from(self.offset_minutes) * 60;
        let nanos = i128::from(seconds) * 1_000_000_000 + i128::from(self.nanos);
        nanos.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
    }

    /// The same in the year in which it most likely is, for messages that do not state the year: that of `now_s`, seconds
    /// since the Unix epoch, but the one before for December seen in January, and the one after for January seen in
    /// December. February 29 of a year that has none is March 1.
    #[must_use]
    pub fn in_year_near(mut self, now_s: i64) -> Self {
        let (year, month) = year_and_month(now_s);
        self.year += match (self.month, month) {
            (12, 1) => year - 1,
            (1, 12) => year + 1,
            _ => year,
        };
        if !self.is_a_day() {
            (self.month, self.day) = (3, 1);
        }
        self
    }
}

/// As RFC 3339, with as many digits of a second as there are, up to six.
impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stamp { year, month, day, time: [hour, minute, second], .. } = self;
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        let micros = self.nanos / 1_000;
        if micros > 0 {
            let digits = format!("{micros:06}");
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        match self.offset_minutes {
            0 => f.write_str("Z"),
            offset => {
                let sign = if offset < 0 { '-' } else { '+' };
                write!(f, "{sign}{:02}:{:02}", offset.abs() / 60, offset.abs() % 60)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(year: i32, month: u8, day: u8) -> Stamp {
        Stamp { year, month, day, time: [1, 2, 3], nanos: 0, offset_minutes: 0 }
    }

    #[test]
    fn times_count_from_the_epoch() {
        for (stamp, expected) in [
            (stamp(1970, 1, 1), 3_723),
            (stamp(1969, 12, 31), 3_723 - 86_400),
            (stamp(2000, 2, 29), 951_786_123),
            (stamp(2024, 3, 1), 1_709_254_923),
            (Stamp { offset_minutes: 90, ..stamp(1970, 1, 1) }, 3_723 - 5_400),
        ] {
            assert_eq!(stamp.unix_ns(), expected * 1_000_000_000, "{stamp}");
        }
        assert_eq!(Stamp { nanos: 5, ..stamp(0, 1, 1) }.unix_ns(), i64::MIN);
        assert_eq!(stamp(9999, 1, 1).unix_ns(), i64::MAX);
    }

    #[test]
    fn the_calendar_is_that_of_the_clock() {
        for day in (-800_000..800_000).step_by(13) {
            let (year, month) = year_and_month(day * 86_400);
            let first = days_since_epoch(year, month, 1);
            assert!((first..first + i64::from(days_of(year, month))).contains(&day), "{day} {year} {month}");
        }
    }

    #[test]
    fn a_year_that_is_not_stated_is_the_nearest() {
        // 2023-01-02, 2023-12-31, 2024-06-01
        for (month, day, now, expected) in [
            (12, 31, 1_672_617_600, "2022-12-31T01:02:03Z"),
            (1, 1, 1_672_617_600, "2023-01-01T01:02:03Z"),
            (1, 1, 1_703_980_800, "2024-01-01T01:02:03Z"),
            (12, 31, 1_703_980_800, "2023-12-31T01:02:03Z"),
            (2, 29, 1_703_980_800, "2023-03-01T01:02:03Z"),
            (2, 29, 1_717_200_000, "2024-02-29T01:02:03Z"),
        ] {
            assert_eq!(stamp(0, month, day).in_year_near(now).to_string(), expected);
        }
    }

    #[test]
    fn times_after_rfc_3339_are_read() {
        for (text, expected) in [
            ("2024-02-29T01:02:03Z", Some("2024-02-29T01:02:03Z")),
            ("2024-01-01T01:02:03.1234567899-05:30", Some("2024-01-01T01:02:03.123456-05:30")),
            ("2024-01-01T1:02:03,5+24:60", Some("2024-01-01T01:02:03.5+25:00")),
            ("2024-01-01T:02:03Z", None),
            ("2024-01-01T001:02:03Z", None),
            ("2024-01-01T1:2:03Z", None),
            ("2024-01-01T1:02:03+25:00", None),
            ("2024-01-01T1:02:03+1:00", None),
            ("2023-02-29T01:02:03Z", None),
            ("2024-01-01T01:02:03", None),
            ("2024-01-01T01:02:03.Z", None),
            ("2024-01-01T24:02:03Z", None),
            ("2024-01-01T01:02:03+0100", None),
            ("2024-01-01T01:02:03Zx", None),
            ("", None),
        ] {
            let stamp = Stamp::parse_rfc3339(text.as_bytes());
            assert_eq!(stamp.map(|stamp| stamp.to_string()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn digits_of_a_second_are_as_many_as_there_are() {
        for (nanos, offset_minutes, expected) in [
            (0, 0, "2024-01-01T01:02:03Z"),
            (500_000_000, 330, "2024-01-01T01:02:03.5+05:30"),
            (1_000, -720, "2024-01-01T01:02:03.000001-12:00"),
            (999, 0, "2024-01-01T01:02:03Z"),
        ] {
            assert_eq!(Stamp { nanos, offset_minutes, ..stamp(2024, 1, 1) }.to_string(), expected);
        }
    }
}
