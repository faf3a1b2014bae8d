//! Times and durations.

use std::time::{SystemTime, UNIX_EPOCH};

use corten_golang::time::{Strptime, Time, Zone};

use super::Kind::{ConstText, Duration, Int, Text, Time as TimeKind};
use super::{Function, Got, Param, Prepared, const_str, optional, param, plain};
use crate::error::EvalError;
use crate::item::Item;
use crate::program::Call;
use crate::value::Val;

/// How times are read or written.
#[derive(Debug)]
pub(crate) struct Reader {
    layout: Strptime,
    zone: Zone,
}

const TIME: Param = param("time", TimeKind);
const DURATION: Param = param("duration", Duration);

macro_rules! of_time {
    ($name:literal, $time:ident => $result:expr) => {
        Function {
            name: $name,
            params: &[TIME],
            prepare: plain,
            run: |call, item| {
                let $time = call.time(0, item)?;
                Ok(Val::Int($result))
            },
        }
    };
}

macro_rules! of_duration {
    ($name:literal, $duration:ident => $result:expr) => {
        Function {
            name: $name,
            params: &[DURATION],
            prepare: plain,
            run: |call, item| {
                let $duration = call.duration(0, item)?;
                Ok($result)
            },
        }
    };
}

pub(super) const FUNCTIONS: &[Function] = &[
    of_time!("Day", time => i64::from(time.civil().day)),
    of_time!("Month", time => i64::from(time.civil().month)),
    of_time!("Year", time => time.civil().year),
    of_time!("Hour", time => i64::from(time.civil().hour)),
    of_time!("Minute", time => i64::from(time.civil().minute)),
    of_time!("Second", time => i64::from(time.civil().second)),
    of_time!("Nanosecond", time => i64::from(time.nanoseconds)),
    of_time!("Weekday", time => i64::from(time.civil().weekday())),
    of_time!("UnixSeconds", time => time.seconds),
    of_time!("UnixMilli", time => parts(&time, 1_000)),
    of_time!("UnixMicro", time => parts(&time, 1_000_000)),
    of_time!("UnixNano", time => parts(&time, 1_000_000_000)),
    of_duration!("Hours", duration => Val::Double(in_units(duration, 3_600_000_000_000))),
    of_duration!("Minutes", duration => Val::Double(in_units(duration, 60_000_000_000))),
    of_duration!("Seconds", duration => Val::Double(in_units(duration, 1_000_000_000))),
    of_duration!("Milliseconds", duration => Val::Int(duration / 1_000_000)),
    of_duration!("Microseconds", duration => Val::Int(duration / 1_000)),
    of_duration!("Nanoseconds", duration => Val::Int(duration)),
    Function { name: "Now", params: &[], prepare: plain, run: |_, _| Ok(Val::Time(now().within(local()))) },
    Function {
        name: "Duration",
        params: &[param("duration", Text)],
        prepare: plain,
        run: |call, item| {
            let text = call.owned(0, item)?;
            let parsed = parse_duration(&text);
            let wrong = || EvalError::new(format!("time: invalid duration {:?}", String::from_utf8_lossy(&text)));
            parsed.map(Val::Duration).ok_or_else(wrong)
        },
    },
    Function {
        name: "Unix",
        params: &[param("seconds", Int), optional("nanoseconds", Int)],
        prepare: plain,
        run: |call, item| {
            let seconds = call.int(0, item)?;
            let ns = if call.has(1) { call.int(1, item)? } else { 0 };
            let seconds = seconds.saturating_add(ns.div_euclid(1_000_000_000));
            let time = Time::utc(seconds, ns.rem_euclid(1_000_000_000) as u32);
            Ok(Val::Time(time.within(local())))
        },
    },
    Function {
        name: "TruncateTime",
        params: &[TIME, param("duration", Duration)],
        prepare: plain,
        run: |call, item| {
            let time = call.time(0, item)?;
            let step = call.duration(1, item)?;
            if step <= 0 {
                return Ok(Val::Time(time));
            }
            // Steps are counted from the first of January of the year 1.
            const EPOCH_SECONDS: i128 = 62_135_596_800;
            let ns = (i128::from(time.seconds) + EPOCH_SECONDS) * 1_000_000_000 + i128::from(time.nanoseconds);
            let ns = ns - ns.rem_euclid(i128::from(step)) - EPOCH_SECONDS * 1_000_000_000;
            let seconds = ns.div_euclid(1_000_000_000) as i64;
            Ok(Val::Time(Time { seconds, nanoseconds: ns.rem_euclid(1_000_000_000) as u32, ..time }))
        },
    },
    Function {
        name: "Time",
        params: &[
            param("time", Text),
            param("format", ConstText),
            optional("location", ConstText),
            optional("locale", ConstText),
        ],
        prepare: |args| {
            let layout = layout(args, 1)?;
            let zone = match const_str(args, 2).filter(|name| !name.is_empty()) {
                Some(name) => {
                    Zone::load(&name).map_err(|error| (2, format!("failed to load location {name}: {error}")))?
                }
                None if layout.ends_in_z() => Zone::UTC,
                None => local().clone(),
            };
            if let Some(locale) = const_str(args, 3)
                && locale != "en"
                && !locale.starts_with("en-")
            {
                return Err((3, format!("names of months and days are only read in English, not in {locale:?}")));
            }
            Ok(Prepared::Time(Box::new(Reader { layout, zone })))
        },
        run: |call, item| {
            let Prepared::Time(reader) = &call.prepared else { return Err("there is no layout".into()) };
            let value = call.text(0, item)?;
            let text = value.text(item.arena).unwrap_or_default();
            if text.is_empty() {
                return Err("time cannot be nil".into());
            }
            let now = now().within(&reader.zone);
            let time = reader.layout.parse(text, &reader.zone, &now).map_err(|error| {
                EvalError::new(format!("parsing time {:?}: {error}", String::from_utf8_lossy(text)))
            })?;
            Ok(Val::Time(time))
        },
    },
    Function {
        name: "FormatTime",
        params: &[TIME, param("format", ConstText)],
        prepare: |args| Ok(Prepared::Time(Box::new(Reader { layout: layout(args, 1)?, zone: Zone::UTC }))),
        run: format_time,
    },
];

fn format_time<'p>(call: &'p Call, item: &mut Item<'_>) -> Got<'p> {
    let Prepared::Time(reader) = &call.prepared else { return Err("there is no layout".into()) };
    let time = call.time(0, item)?;
    Ok(Val::from(reader.layout.format(&time)))
}

fn layout(args: &[Option<super::Arg>], at: usize) -> Result<Strptime, super::Refused> {
    let layout = const_str(args, at).unwrap_or_default();
    if layout.is_empty() {
        return Err((at, "the format cannot be empty".to_owned()));
    }
    Strptime::new(&layout).map_err(|error| (at, error.to_string()))
}

fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::utc(since.as_secs() as i64, since.subsec_nanos())
}

/// The zone of the machine.
fn local() -> &'static Zone {
    static LOCAL: std::sync::LazyLock<Zone> = std::sync::LazyLock::new(|| Zone::load("Local").unwrap_or(Zone::UTC));
    &LOCAL
}

/// How many parts of a second, of so many each, since the epoch.
fn parts(time: &Time, per_second: i64) -> i64 {
    let part = i64::from(time.nanoseconds) / (1_000_000_000 / per_second);
    time.seconds.wrapping_mul(per_second).wrapping_add(part)
}

/// As Go divides: what is whole and what is not each by itself.
fn in_units(duration: i64, unit: i64) -> f64 {
    (duration / unit) as f64 + (duration % unit) as f64 / unit as f64
}

/// A time as Go prints it.
pub(super) fn time_text(time: &Time) -> String {
    static LAYOUT: std::sync::LazyLock<corten_golang::time::Layout> =
        std::sync::LazyLock::new(|| corten_golang::time::Layout::new("2006-01-02 15:04:05.999999999 -0700 MST"));
    LAYOUT.format(time)
}

/// A duration as Go prints it: `1h30m0s`, `1.5ms`.
pub(super) fn duration_text(duration: i64) -> String {
    let ns = duration.unsigned_abs();
    let sign = if duration < 0 { "-" } else { "" };
    let in_unit = |unit: u64, digits: usize, name: &str| {
        let fraction = format!("{:0digits$}", ns % unit);
        let fraction = fraction.trim_end_matches('0');
        let point = if fraction.is_empty() { "" } else { "." };
        format!("{}{point}{fraction}{name}", ns / unit)
    };
    let text = match ns {
        0 => "0s".to_owned(),
        1..1_000 => format!("{ns}ns"),
        1_000..1_000_000 => in_unit(1_000, 3, "µs"),
        1_000_000..1_000_000_000 => in_unit(1_000_000, 6, "ms"),
        _ => {
            let seconds = ns / 1_000_000_000;
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            let whole_minutes = (seconds / 60) * 60_000_000_000;
            let rest = ns - whole_minutes;
            let fraction = format!("{:09}", rest % 1_000_000_000);
            let fraction = fraction.trim_end_matches('0');
            let point = if fraction.is_empty() { "" } else { "." };
            let seconds = format!("{}{point}{fraction}s", rest / 1_000_000_000);
            match (hours, minutes) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    };
    format!("{sign}{text}")
}

/// A duration as Go reads it: `1h30m`, `-1.5s`, `300ms`.
fn parse_duration(text: &[u8]) -> Option<i64> {
    let (negative, mut rest) = match text.first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == b"0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut sum: u64 = 0;
    while !rest.is_empty() {
        let digits = |bytes: &[u8]| bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let whole_len = digits(rest);
        let mut whole: u64 = 0;
        for digit in &rest[..whole_len] {
            whole = whole.checked_mul(10)?.checked_add(u64::from(digit - b'0')).filter(|value| *value <= 1 << 63)?;
        }
        rest = &rest[whole_len..];
        let (mut fraction, mut scale, mut fraction_len) = (0u64, 1f64, 0);
        if rest.first() == Some(&b'.') {
            fraction_len = digits(&rest[1..]);
            for digit in &rest[1..=fraction_len] {
                // Digits beyond what fits are not counted.
                if fraction < (u64::MAX >> 1) / 10 {
                    fraction = fraction * 10 + u64::from(digit - b'0');
                    scale *= 10.0;
                }
            }
            rest = &rest[1 + fraction_len..];
        }
        if whole_len == 0 && fraction_len == 0 {
            return None;
        }
        let unit_len = rest.iter().take_while(|byte| **byte != b'.' && !byte.is_ascii_digit()).count();
        let unit: u64 = match &rest[..unit_len] {
            b"ns" => 1,
            b"us" | b"\xc2\xb5s" | b"\xce\xbcs" => 1_000,
            b"ms" => 1_000_000,
            b"s" => 1_000_000_000,
            b"m" => 60_000_000_000,
            b"h" => 3_600_000_000_000,
            _ => return None,
        };
        rest = &rest[unit_len..];
        let part = whole.checked_mul(unit)?.checked_add((fraction as f64 * (unit as f64 / scale)) as u64)?;
        sum = sum.checked_add(part).filter(|sum| *sum <= 1 << 63)?;
    }
    match negative {
        true => Some((sum as i64).wrapping_neg()),
        false => i64::try_from(sum).ok(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1h30m", Some(5_400_000_000_000)),
            ("-1.5s", Some(-1_500_000_000)),
            ("300ms", Some(300_000_000)),
            (".5us", Some(500)),
            ("1µs", Some(1_000)),
            ("2562047h47m16.854775807s", Some(i64::MAX)),
            ("-9223372036854775808ns", Some(i64::MIN)),
            ("9223372036854775808ns", None),
            ("1", None),
            ("", None),
            ("1d", None),
            (".s", None),
            ("1.2.3s", None),
        ] {
            assert_eq!(parse_duration(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn durations_are_printed_as_go_prints_them() {
        for (duration, expected) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (-2_000_000, "-2ms"),
            (1_000_000_000, "1s"),
            (5_400_000_000_000, "1h30m0s"),
            (61_500_000_000, "1m1.5s"),
            (i64::MIN, "-2562047h47m16.854775808s"),
        ] {
            assert_eq!(duration_text(duration), expected);
        }
    }

    proptest! {
        #[test]
        fn no_duration_panics(text in prop_oneof![any::<Vec<u8>>(), "[-+]?([0-9.]{0,25}(h|m|s|ms|us|ns)?){0,3}".prop_map(String::into_bytes)]) {
            let _ = parse_duration(&text);
        }
    }
}
