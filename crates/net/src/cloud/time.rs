//! Dates of the proleptic Gregorian calendar, in UTC.

use std::time::{Duration, SystemTime};

/// Seconds since 1970; what is before counts as 1970.
pub(super) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The basic format of ISO 8601, `20150830T123600Z`.
pub(super) fn basic_date_time(time: SystemTime) -> String {
    let seconds = unix_seconds(time);
    let (year, month, day) = date_of((seconds / 86_400) as i64);
    let second = seconds % 86_400;
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", second / 3_600, second / 60 % 60, second % 60)
}

/// Reads RFC 3339, `2015-08-30T12:36:00.5+02:00`. Fractions of a second are dropped.
pub(super) fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    let bytes = text.as_bytes();
    let digits = |from: usize, to: usize| {
        let part = bytes.get(from..to).filter(|part| part.iter().all(u8::is_ascii_digit))?;
        Some(part.iter().fold(0_i64, |value, digit| value * 10 + i64::from(digit - b'0')))
    };
    let is = |at: usize, expected: &[u8]| bytes.get(at).is_some_and(|byte| expected.contains(byte));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":")) {
        return None;
    }
    let (year, month, day) = (digits(0, 4)?, digits(5, 7)?, digits(8, 10)?);
    let (hour, minute, second) = (digits(11, 13)?, digits(14, 16)?, digits(17, 19)?);
    if !((1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60) {
        return None;
    }
    let mut at = 19;
    if is(at, b".") {
        at += 1;
        while is(at, b"0123456789") {
            at += 1;
        }
    }
    let offset_minutes = match bytes.get(at)? {
        b'Z' | b'z' if bytes.len() == at + 1 => 0,
        sign @ (b'+' | b'-') if bytes.len() == at + 6 && is(at + 3, b":") => {
            let minutes = digits(at + 1, at + 3)? * 60 + digits(at + 4, at + 6)?;
            if *sign == b'+' { minutes } else { -minutes }
        }
        _ => return None,
    };
    let seconds = days_of(year, month, day) * 86_400 + hour * 3_600 + (minute - offset_minutes) * 60 + second;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

/// Days since 1970 of a date. Years are counted from March, so that the leap day is a year's last; an era is 400 years.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468
}

/// The date of a number of days since 1970.
fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_times() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2015-08-30T12:36:00Z", Some(1_440_938_160)),
            ("2000-02-29T23:59:59.999z", Some(951_868_799)),
            ("2015-08-30T14:36:00+02:00", Some(1_440_938_160)),
            ("2015-08-30T11:06:00.5-01:30", Some(1_440_938_160)),
            ("1969-12-31T23:59:59Z", None),
            ("2015-13-30T12:36:00Z", None),
            ("2015-08-30T12:36:00", None),
            ("2015-08-30T12:36:00Zx", None),
            ("2015-08-30T12:36:00+0200", None),
            ("", None),
        ] {
            assert_eq!(parse_rfc3339(text).map(unix_seconds), seconds, "{text}");
        }
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_440_938_160);
        assert_eq!(basic_date_time(time), "20150830T123600Z");
    }

    proptest! {
        #[test]
        fn a_time_is_read_as_it_was_written(seconds in 0_u64..253_402_300_800) {
            let text = basic_date_time(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
            let (date, time) = text.split_once('T').unwrap();
            let extended = format!(
                "{}-{}-{}T{}:{}:{}", &date[..4], &date[4..6], &date[6..], &time[..2], &time[2..4], &time[4..]
            );
            prop_assert_eq!(parse_rfc3339(&extended).map(unix_seconds), Some(seconds));
        }

        #[test]
        fn any_text_is_read_without_panic(text in any::<String>(), near in "[0-9TZ:.+-]{0,30}") {
            parse_rfc3339(&text);
            parse_rfc3339(&near);
        }
    }
}
