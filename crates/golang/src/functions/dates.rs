//! Dates and times.

use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use corten_config::duration;

use super::Type::{self, Any, Duration, Int, Text, Time};
use super::{Answer, Function, any, function, int, text};
use crate::numbers::parse_int;
use crate::template::{Exec, Moment, Value, duration_text};
use crate::time::{Layout, Zone};

const MODIFIED: &[Type] = &[Text, Time];

pub(super) const FUNCTIONS: &[Function] = &[
    function("ago", &[Any], |_, args| {
        let then = match any(args, 0) {
            Value::Time(time) => time.ns(),
            Value::Int(seconds) | Value::Int64(seconds) => i128::from(*seconds) * SECOND,
            _ => now().ns(),
        };
        Ok(Value::from(duration_text(rounded(clamp(now().ns() - then), SECOND as i64))))
    }),
    function("date", &[Text, Any], |_, args| in_zone(text(args, 0), any(args, 1), b"Local")),
    function("dateInZone", ZONED, date_in_zone),
    function("dateModify", MODIFIED, modify_or_keep),
    function("date_in_zone", ZONED, date_in_zone),
    function("date_modify", MODIFIED, modify_or_keep),
    function("duration", &[Any], |_, args| {
        let seconds = match any(args, 0) {
            // A text beyond the range is the end of the range.
            Value::Text(text) => parse_saturating(text),
            Value::Int64(seconds) => *seconds,
            _ => 0,
        };
        Ok(Value::from(duration_text(seconds.wrapping_mul(SECOND as i64))))
    }),
    function("durationRound", &[Any], |_, args| {
        let ns = match any(args, 0) {
            Value::Text(text) => duration::parse(&String::from_utf8_lossy(text)).unwrap_or(0),
            Value::Int64(ns) => *ns,
            Value::Time(time) => clamp(now().ns() - time.ns()),
            _ => 0,
        };
        let ns = ns.unsigned_abs();
        const HOUR: u64 = 3_600_000_000_000;
        let units = [
            (HOUR * 24 * 365, "y"),
            (HOUR * 24 * 30, "mo"),
            (HOUR * 24, "d"),
            (HOUR, "h"),
            (HOUR / 60, "m"),
            (HOUR / 3600, "s"),
        ];
        let unit = units.into_iter().find(|(unit, _)| ns > *unit);
        Ok(Value::from(unit.map_or_else(|| "0s".to_owned(), |(unit, name)| format!("{}{name}", ns / unit))))
    }),
    function("htmlDate", &[Any], |_, args| in_zone(DAY, any(args, 0), b"Local")),
    function("htmlDateInZone", &[Any, Text], |_, args| in_zone(DAY, any(args, 0), text(args, 1))),
    function("mustDateModify", MODIFIED, modify),
    function("mustToDate", &[Text, Text], |_, args| {
        parse(args).map(time).ok_or_else(|| {
            let quoted = crate::text::quote(text(args, 1));
            format!("parsing time {quoted} as {}: cannot parse", crate::text::quote(text(args, 0)))
        })
    }),
    function("must_date_modify", MODIFIED, modify),
    function("now", &[], |_, _| Ok(time(now()))),
    function("toDate", &[Text, Text], |_, args| Ok(time(parse(args).unwrap_or_else(Moment::zero)))),
    function("unixEpoch", &[Time], |_, args| Ok(Value::from(moment(args).time.seconds.to_string()))),
];

const ZONED: &[Type] = &[Text, Any, Text];
const DAY: &[u8] = b"2006-01-02";
const SECOND: i128 = 1_000_000_000;

fn time(moment: Moment) -> Value {
    Value::Time(Rc::new(moment))
}

fn now() -> Moment {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Moment::new(since.as_secs() as i64, since.subsec_nanos(), local())
}

fn local() -> Zone {
    Zone::load("Local").unwrap_or(Zone::UTC)
}

fn clamp(ns: i128) -> i64 {
    i64::try_from(ns).unwrap_or(if ns < 0 { i64::MIN } else { i64::MAX })
}

/// The nearest multiple; halves go away from zero.
fn rounded(ns: i64, unit: i64) -> i64 {
    if unit <= 0 {
        return ns;
    }
    let rest = ns % unit;
    let down = ns - rest;
    if rest.unsigned_abs() * 2 < unit.unsigned_abs() { down } else { down.saturating_add(unit * ns.signum()) }
}

fn parse_saturating(text: &Bytes) -> i64 {
    match parse_int(text, 10) {
        Ok(value) => value,
        Err(crate::numbers::NumberError::Syntax) => 0,
        Err(crate::numbers::NumberError::Range) if text.starts_with(b"-") => i64::MIN,
        Err(crate::numbers::NumberError::Range) => i64::MAX,
    }
}

fn layout(bytes: &[u8]) -> Layout {
    Layout::new(&String::from_utf8_lossy(bytes))
}

fn date_in_zone(_: &mut Exec<'_>, args: &[Value]) -> Answer {
    in_zone(text(args, 0), any(args, 1), text(args, 2))
}

fn in_zone(format: &[u8], date: &Value, zone: &[u8]) -> Answer {
    let moment = match date {
        Value::Time(time) => Moment::clone(time),
        Value::Int(seconds) | Value::Int64(seconds) => Moment::new(*seconds, 0, Zone::UTC),
        _ => now(),
    };
    let zone = std::str::from_utf8(zone).ok().and_then(|name| Zone::load(name).ok()).unwrap_or(Zone::UTC);
    Ok(Value::from(layout(format).format(&moment.time.within(&zone))))
}

fn parse(args: &[Value]) -> Option<Moment> {
    let zone = local();
    let time = layout(text(args, 0)).parse(text(args, 1), Some(&zone)).ok()?;
    Some(Moment { time, zone })
}

fn modify(_: &mut Exec<'_>, args: &[Value]) -> Answer {
    let span = duration::parse(&String::from_utf8_lossy(text(args, 0))).map_err(|error| error.to_string())?;
    let moment = nth_moment(args, 1);
    Ok(time(moment.at_ns(moment.ns() + i128::from(span))))
}

fn modify_or_keep(exec: &mut Exec<'_>, args: &[Value]) -> Answer {
    modify(exec, args).or_else(|_| Ok(any(args, 1).clone()))
}

fn moment(args: &[Value]) -> Moment {
    nth_moment(args, 0)
}

fn nth_moment(args: &[Value], index: usize) -> Moment {
    match any(args, index) {
        Value::Time(time) => Moment::clone(time),
        _ => Moment::zero(),
    }
}

const fn method(name: &'static str, run: super::Run) -> Function {
    function(name, &[], run)
}

fn number(value: impl Into<i64>) -> Answer {
    Ok(Value::Int(value.into()))
}

pub(super) const TIME_METHODS: &[Function] = &[
    function("Add", &[Duration], |_, args| {
        let moment = moment(args);
        Ok(time(moment.at_ns(moment.ns() + i128::from(int(args, 1)))))
    }),
    function("AddDate", &[Int, Int, Int], |_, args| {
        let moment = moment(args);
        let mut civil = moment.time.civil();
        // Years beyond any calendar stay at its end.
        let months = civil.year * 12 + i64::from(civil.month) - 1;
        let months = months.saturating_add(int(args, 1).saturating_mul(12)).saturating_add(int(args, 2));
        let months = months.clamp(-12_000_000, 12_000_000);
        let days = int(args, 3).clamp(-365_000_000, 365_000_000);
        (civil.year, civil.month) = (months.div_euclid(12), months.rem_euclid(12) as u32 + 1);
        let day = i64::from(civil.day);
        civil.day = 1;
        let shown = civil.seconds() + (day - 1 + days) * 86_400;
        let civil = crate::time::Civil::from_seconds(shown);
        Ok(time(moment.at_civil(&civil)))
    }),
    function("After", &[Time], |_, args| Ok(Value::Bool(moment(args).ns() > nth_moment(args, 1).ns()))),
    function("Before", &[Time], |_, args| Ok(Value::Bool(moment(args).ns() < nth_moment(args, 1).ns()))),
    function("Compare", &[Time], |_, args| number(moment(args).ns().cmp(&nth_moment(args, 1).ns()) as i8)),
    method("Day", |_, args| number(moment(args).time.civil().day)),
    function("Equal", &[Time], |_, args| Ok(Value::Bool(moment(args).ns() == nth_moment(args, 1).ns()))),
    function("Format", &[Text], |_, args| Ok(Value::from(layout(text(args, 1)).format(&moment(args).time)))),
    method("Hour", |_, args| number(moment(args).time.civil().hour)),
    method("IsZero", |_, args| Ok(Value::Bool(moment(args).ns() == Moment::zero().ns()))),
    method("Local", |_, args| {
        let moment = moment(args);
        Ok(time(Moment::new(moment.time.seconds, moment.time.nanoseconds, local())))
    }),
    method("Minute", |_, args| number(moment(args).time.civil().minute)),
    method("Month", |_, args| Ok(Value::Month(i64::from(moment(args).time.civil().month)))),
    method("Nanosecond", |_, args| number(moment(args).time.nanoseconds)),
    method("Second", |_, args| number(moment(args).time.civil().second)),
    method("String", |_, args| Ok(Value::from(moment(args).text()))),
    function("Sub", &[Time], |_, args| Ok(Value::Duration(clamp(moment(args).ns() - nth_moment(args, 1).ns())))),
    function("Truncate", &[Duration], |_, args| {
        let (moment, unit) = (moment(args), i128::from(int(args, 1)));
        if unit <= 0 {
            return Ok(time(moment));
        }
        let since = moment.ns() - Moment::zero().ns();
        Ok(time(moment.at_ns(moment.ns() - since.rem_euclid(unit))))
    }),
    method("UTC", |_, args| {
        let moment = moment(args);
        Ok(time(Moment::new(moment.time.seconds, moment.time.nanoseconds, Zone::UTC)))
    }),
    method("Unix", |_, args| Ok(Value::Int64(moment(args).time.seconds))),
    method("UnixMicro", |_, args| Ok(Value::Int64(clamp(moment(args).ns().div_euclid(1000))))),
    method("UnixMilli", |_, args| Ok(Value::Int64(clamp(moment(args).ns().div_euclid(1_000_000))))),
    method("UnixNano", |_, args| Ok(Value::Int64(moment(args).ns() as i64))),
    method("Weekday", |_, args| Ok(Value::Weekday(i64::from(moment(args).time.civil().weekday())))),
    method("Year", |_, args| number(moment(args).time.civil().year)),
    method("YearDay", |_, args| number(moment(args).time.civil().year_day())),
];

pub(super) const DURATION_METHODS: &[Function] = &[
    method("Abs", |_, args| Ok(Value::Duration(int(args, 0).saturating_abs()))),
    method("Hours", |_, args| Ok(Value::Float(parts(args, 3_600_000_000_000)))),
    method("Microseconds", |_, args| Ok(Value::Int64(int(args, 0) / 1000))),
    method("Milliseconds", |_, args| Ok(Value::Int64(int(args, 0) / 1_000_000))),
    method("Minutes", |_, args| Ok(Value::Float(parts(args, 60_000_000_000)))),
    method("Nanoseconds", |_, args| Ok(Value::Int64(int(args, 0)))),
    function("Round", &[Duration], |_, args| Ok(Value::Duration(rounded(int(args, 0), int(args, 1))))),
    method("Seconds", |_, args| Ok(Value::Float(parts(args, 1_000_000_000)))),
    method("String", |_, args| any(args, 0).print().map(Value::Text)),
    function("Truncate", &[Duration], |_, args| {
        let (ns, unit) = (int(args, 0), int(args, 1));
        Ok(Value::Duration(if unit <= 0 { ns } else { ns - ns % unit }))
    }),
];

/// A span in units, whole ones and the rest apart, as Go does for precision.
fn parts(args: &[Value], unit: i64) -> f64 {
    let ns = int(args, 0);
    (ns / unit) as f64 + (ns % unit) as f64 / unit as f64
}

pub(super) const NAMED_METHODS: &[Function] = &[method("String", |_, args| any(args, 0).print().map(Value::Text))];
