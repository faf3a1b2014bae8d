//! Reading times.

use std::fmt;

use super::layout::{Element, Layout, Offset, Padding};
use super::zone::Zone;
use super::{Abbreviation, Civil, Time, days_in, is_leap};

/// Why a text is not a time of the layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// It looks different.
    Mismatch,
    /// There is more behind it.
    ExtraText,
    /// A part is out of its range: which.
    OutOfRange(&'static str),
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParseError::Mismatch => f.write_str("cannot parse time"),
            ParseError::ExtraText => f.write_str("extra text behind the time"),
            ParseError::OutOfRange(what) => write!(f, "{what} out of range"),
        }
    }
}

impl std::error::Error for ParseError {}

use ParseError::{Mismatch, OutOfRange};

/// The words of months and days, of which the first three letters are the short form.
pub(super) const MONTHS: [&str; 12] = [
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
pub(super) const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// What was read so far.
#[derive(Default)]
struct Found {
    year: i64,
    month: Option<u32>,
    day: Option<u32>,
    year_day: Option<u32>,
    hour: u32,
    minute: u32,
    second: u32,
    nanoseconds: u32,
    afternoon: Option<bool>,
    /// `Z`, or the name `UTC`.
    utc: bool,
    offset: Option<i32>,
    zone: Option<Abbreviation>,
}

impl Layout {
    /// Reads a time, as `time.Parse` does, or `time.ParseInLocation` where there is a zone: the one that counts for a text
    /// that does not name one. Abbreviations are looked up there too; others have the offset zero.
    ///
    /// # Errors
    ///
    /// Why the text is not a time of this layout.
    pub fn parse(&self, text: &[u8], zone: Option<&Zone>) -> Result<Time, ParseError> {
        let mut rest = text;
        let mut found = Found::default();
        for (at, (prefix, element)) in self.parts.iter().enumerate() {
            rest = skip(rest, prefix)?;
            let next = self.parts.get(at + 1).map(|(_, element)| *element);
            found.read(*element, next, &mut rest)?;
        }
        if !skip(rest, &self.end)?.is_empty() {
            return Err(ParseError::ExtraText);
        }
        found.time(zone.unwrap_or(&Zone::UTC))
    }
}

/// Takes what stands between elements from the front. Runs of spaces match runs of spaces.
fn skip<'a>(mut text: &'a [u8], mut prefix: &[u8]) -> Result<&'a [u8], ParseError> {
    fn behind_spaces(bytes: &[u8]) -> &[u8] {
        &bytes[bytes.iter().take_while(|byte| **byte == b' ').count()..]
    }
    while let Some(&first) = prefix.first() {
        if first == b' ' {
            if text.first().is_some_and(|byte| *byte != b' ') {
                return Err(Mismatch);
            }
            (prefix, text) = (behind_spaces(prefix), behind_spaces(text));
        } else if text.first() == Some(&first) {
            (prefix, text) = (&prefix[1..], &text[1..]);
        } else {
            return Err(Mismatch);
        }
    }
    Ok(text)
}

fn digit(text: &[u8], at: usize) -> Option<u32> {
    text.get(at).filter(|byte| byte.is_ascii_digit()).map(|byte| u32::from(byte - b'0'))
}

/// A number of one or two digits; of two where it is padded.
fn number(text: &mut &[u8], padded: bool) -> Result<u32, ParseError> {
    let first = digit(text, 0).ok_or(Mismatch)?;
    match digit(text, 1) {
        Some(second) => {
            *text = &text[2..];
            Ok(first * 10 + second)
        }
        None if padded => Err(Mismatch),
        None => {
            *text = &text[1..];
            Ok(first)
        }
    }
}

/// A number of one to three digits; of three where it is padded.
fn number3(text: &mut &[u8], padded: bool) -> Result<u32, ParseError> {
    let len = text.iter().take(3).take_while(|byte| byte.is_ascii_digit()).count();
    if len == 0 || (padded && len != 3) {
        return Err(Mismatch);
    }
    let value = text[..len].iter().fold(0, |value, byte| value * 10 + u32::from(byte - b'0'));
    *text = &text[len..];
    Ok(value)
}

/// All of a short text as a number; it may have a sign, as Go's own function for this allows.
fn signed(text: &[u8]) -> Result<i64, ParseError> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        all => (false, all),
    };
    // Nothing but a sign is zero there.
    let mut value = 0i64;
    for byte in digits {
        if !byte.is_ascii_digit() {
            return Err(Mismatch);
        }
        value = value.checked_mul(10).and_then(|value| value.checked_add(i64::from(byte - b'0'))).ok_or(Mismatch)?;
    }
    Ok(if negative { -value } else { value })
}

/// The word of a list that the text begins with, of its first letters where they are given. Case does not matter.
fn word(text: &mut &[u8], words: &[&str], letters: usize) -> Result<u32, ParseError> {
    for (at, word) in words.iter().enumerate() {
        let word = &word.as_bytes()[..word.len().min(letters)];
        if text.get(..word.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(word)) {
            *text = &text[word.len()..];
            return Ok(at as u32);
        }
    }
    Err(Mismatch)
}

fn take<'a>(text: &mut &'a [u8], len: usize) -> Result<&'a [u8], ParseError> {
    let (taken, rest) = text.split_at_checked(len).ok_or(Mismatch)?;
    *text = rest;
    Ok(taken)
}

fn is_mark(byte: Option<&u8>) -> bool {
    matches!(byte, Some(b'.' | b','))
}

/// Nanoseconds of a text that begins with a point or comma.
fn fraction(text: &[u8]) -> Result<u32, ParseError> {
    if !is_mark(text.first()) {
        return Err(Mismatch);
    }
    let digits = &text[1..text.len().min(10)];
    let value = signed(digits)?;
    if value < 0 {
        return Err(OutOfRange("fractional second"));
    }
    Ok(value as u32 * 10u32.pow(9 - digits.len() as u32))
}

fn below(value: u32, limit: u32, what: &'static str) -> Result<u32, ParseError> {
    if value < limit { Ok(value) } else { Err(OutOfRange(what)) }
}

impl Found {
    fn read(&mut self, element: Element, next: Option<Element>, text: &mut &[u8]) -> Result<(), ParseError> {
        match element {
            Element::Year => {
                let year = signed(take(text, 2)?)?;
                self.year = year + if year >= 69 { 1900 } else { 2000 };
            }
            Element::LongYear => {
                digit(text, 0).ok_or(Mismatch)?;
                self.year = signed(take(text, 4)?)?;
            }
            Element::Jan => self.month = Some(word(text, &MONTHS, 3)? + 1),
            Element::January => self.month = Some(word(text, &MONTHS, usize::MAX)? + 1),
            Element::Month { padded } => {
                let month = number(text, padded)?;
                if !(1..=12).contains(&month) {
                    return Err(OutOfRange("month"));
                }
                self.month = Some(month);
            }
            Element::Mon => drop(word(text, &DAYS, 3)?),
            Element::Monday => drop(word(text, &DAYS, usize::MAX)?),
            Element::Day(padding) => {
                if padding == Padding::Space && text.first() == Some(&b' ') {
                    *text = &text[1..];
                }
                self.day = Some(number(text, padding == Padding::Zero)?);
            }
            Element::YearDay(padding) => {
                for _ in 0..2 {
                    if padding == Padding::Space && text.first() == Some(&b' ') {
                        *text = &text[1..];
                    }
                }
                self.year_day = Some(number3(text, padding == Padding::Zero)?);
            }
            Element::Hour => self.hour = below(number(text, false)?, 24, "hour")?,
            Element::Hour12 { padded } => self.hour = below(number(text, padded)?, 13, "hour")?,
            Element::Minute { padded } => self.minute = below(number(text, padded)?, 60, "minute")?,
            Element::Second { padded } => {
                self.second = below(number(text, padded)?, 60, "second")?;
                let has_own = matches!(
                    next,
                    Some(Element::Fraction { .. } | Element::FractionComma { .. } | Element::OptionalFraction { .. })
                );
                // A fraction is taken also where the layout has none.
                if !has_own && is_mark(text.first()) && digit(text, 1).is_some() {
                    let digits = text[1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                    self.nanoseconds = fraction(take(text, 1 + digits)?)?;
                }
            }
            Element::HalfDay { upper } => {
                self.afternoon = Some(match (take(text, 2)?, upper) {
                    (b"PM", true) | (b"pm", false) => true,
                    (b"AM", true) | (b"am", false) => false,
                    _ => return Err(Mismatch),
                });
            }
            Element::Offset { z: true, .. } if text.first() == Some(&b'Z') => {
                *text = &text[1..];
                self.utc = true;
            }
            Element::Offset { form, .. } => self.offset = Some(offset(text, form)?),
            Element::ZoneName => {
                if text.starts_with(b"UTC") {
                    *text = &text[3..];
                    self.utc = true;
                } else {
                    let len = zone_name_len(text).ok_or(Mismatch)?;
                    let name = take(text, len)?;
                    self.zone = Some(Abbreviation::new(std::str::from_utf8(name).map_err(|_| Mismatch)?));
                }
            }
            Element::Fraction { digits } | Element::FractionComma { digits } => {
                self.nanoseconds = fraction(take(text, 1 + usize::from(digits))?)?;
            }
            Element::OptionalFraction { .. } => {
                if is_mark(text.first()) && digit(text, 1).is_some() {
                    let digits = text[1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                    self.nanoseconds = fraction(take(text, 1 + digits)?)?;
                }
            }
        }
        Ok(())
    }

    fn time(mut self, zone: &Zone) -> Result<Time, ParseError> {
        match self.afternoon {
            Some(true) if self.hour < 12 => self.hour += 12,
            Some(false) if self.hour == 12 => self.hour = 0,
            _ => {}
        }
        if let Some(year_day) = self.year_day {
            self.set_year_day(year_day)?;
        }
        let (month, day) = (self.month.unwrap_or(1), self.day.unwrap_or(1));
        if day < 1 || day > days_in(month, self.year) {
            return Err(OutOfRange("day"));
        }
        let Found { year, hour, minute, second, nanoseconds, .. } = self;
        let civil = Civil { year, month, day, hour, minute, second };
        let local = civil.seconds();
        if self.utc {
            return Ok(Time::utc(local, nanoseconds));
        }
        if let Some(offset) = self.offset {
            let seconds = local - i64::from(offset);
            let (known, name) = zone.at(seconds);
            // The zone's own name is shown where it has this offset then.
            let of_zone = known == offset && self.zone.is_none_or(|zone| zone == name);
            let zone = if of_zone { name } else { self.zone.unwrap_or_default() };
            return Ok(Time { seconds, nanoseconds, offset, zone });
        }
        if let Some(name) = self.zone {
            if let Some(offset) = zone.offset_of(name.as_str(), local) {
                return Ok(Time { seconds: local - i64::from(offset), nanoseconds, offset: 0, zone: name }.within(zone));
            }
            // An abbreviation that nobody knows does not move the time; only how it is shown.
            let hours = name.as_str().strip_prefix("GMT").filter(|hours| !hours.is_empty());
            let hours = hours.map_or(0, |hours| signed(hours.as_bytes()).unwrap_or(0));
            return Ok(Time { seconds: local, nanoseconds, offset: hours as i32 * 3600, zone: name });
        }
        Ok(Time { seconds: zone.seconds_of(&civil), nanoseconds, offset: 0, zone: Abbreviation::default() }
            .within(zone))
    }

    /// Makes a month and a day of a day of the year.
    fn set_year_day(&mut self, year_day: u32) -> Result<(), ParseError> {
        let last = if is_leap(self.year) { 366 } else { 365 };
        if !(1..=last).contains(&year_day) {
            return Err(OutOfRange("day-of-year"));
        }
        let (mut month, mut day) = (1, year_day);
        while day > days_in(month, self.year) {
            day -= days_in(month, self.year);
            month += 1;
        }
        if self.month.is_some_and(|known| known != month) {
            return Err(OutOfRange("day-of-year does not match month:"));
        }
        if self.day.is_some_and(|known| known != day) {
            return Err(OutOfRange("day-of-year does not match day:"));
        }
        (self.month, self.day) = (Some(month), Some(day));
        Ok(())
    }
}

/// An offset, in seconds east of UTC.
fn offset(text: &mut &[u8], form: Offset) -> Result<i32, ParseError> {
    let (len, minutes_at, seconds_at): (usize, Option<usize>, Option<usize>) = match form {
        Offset::Hours => (3, None, None),
        Offset::Minutes => (5, Some(3), None),
        Offset::ColonMinutes => (6, Some(4), None),
        Offset::Seconds => (7, Some(3), Some(5)),
        Offset::ColonSeconds => (9, Some(4), Some(7)),
    };
    let taken = take(text, len)?;
    let colons: &[usize] = match form {
        Offset::ColonMinutes => &[3],
        Offset::ColonSeconds => &[3, 6],
        _ => &[],
    };
    if colons.iter().any(|at| taken[*at] != b':') {
        return Err(Mismatch);
    }
    let part = |at: Option<usize>| at.map_or(Ok(0), |at| number(&mut &taken[at..at + 2], true));
    let (hours, minutes, seconds) = (part(Some(1))?, part(minutes_at)?, part(seconds_at)?);
    // Some people do write offsets of 24 hours or 60 minutes.
    below(hours, 25, "time zone offset hour")?;
    below(minutes, 61, "time zone offset minute")?;
    below(seconds, 61, "time zone offset second")?;
    let offset = ((hours * 60 + minutes) * 60 + seconds) as i32;
    match taken[0] {
        b'+' => Ok(offset),
        b'-' => Ok(-offset),
        _ => Err(Mismatch),
    }
}

/// How long the abbreviation is that a text begins with.
fn zone_name_len(text: &[u8]) -> Option<usize> {
    if text.len() < 3 {
        return None;
    }
    if text.starts_with(b"ChST") || text.starts_with(b"MeST") {
        return Some(4);
    }
    if text.starts_with(b"GMT") {
        return Some(3 + signed_hours_len(&text[3..]));
    }
    if matches!(text[0], b'+' | b'-') {
        return Some(signed_hours_len(text)).filter(|len| *len > 0);
    }
    let upper = text.iter().take(6).take_while(|byte| byte.is_ascii_uppercase()).count();
    match upper {
        3 => Some(3),
        4 if text[3] == b'T' || text.starts_with(b"WITA") => Some(4),
        5 if text[4] == b'T' => Some(5),
        _ => None,
    }
}

/// How long the hours with a sign are that a text begins with: `+3`, at most 23.
fn signed_hours_len(text: &[u8]) -> usize {
    if !matches!(text.first(), Some(b'+' | b'-')) {
        return 0;
    }
    let digits = text[1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    match signed(&text[1..=digits]) {
        Ok(hours) if digits > 0 && hours <= 23 => 1 + digits,
        _ => 0,
    }
}
