//! Printing times.

use std::io::Write as _;

use super::layout::{Element, Layout, Offset, Padding};
use super::parse::{DAYS, MONTHS};
use super::{Civil, Time};

impl Layout {
    /// The time in this layout.
    pub fn format(&self, time: &Time) -> String {
        let mut out = Vec::new();
        self.write(time, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    /// Appends the time in this layout.
    pub fn write(&self, time: &Time, out: &mut Vec<u8>) {
        let civil = time.civil();
        for (prefix, element) in &self.parts {
            out.extend_from_slice(prefix);
            write_element(*element, time, &civil, out);
        }
        out.extend_from_slice(&self.end);
    }
}

fn write_element(element: Element, time: &Time, civil: &Civil, out: &mut Vec<u8>) {
    let twelve = (civil.hour + 11) % 12 + 1;
    let month = MONTHS[civil.month as usize - 1];
    let day = DAYS[civil.weekday() as usize];
    // Writing to memory does not fail.
    let _ = match element {
        Element::January => write!(out, "{month}"),
        Element::Jan => write!(out, "{}", &month[..3]),
        Element::Month { padded } => write_number(out, civil.month, padded),
        Element::Monday => write!(out, "{day}"),
        Element::Mon => write!(out, "{}", &day[..3]),
        Element::Day(Padding::Space) => write!(out, "{:2}", civil.day),
        Element::Day(padding) => write_number(out, civil.day, padding == Padding::Zero),
        Element::YearDay(Padding::Zero) => write!(out, "{:03}", civil.year_day()),
        Element::YearDay(_) => write!(out, "{:3}", civil.year_day()),
        Element::Hour => write_number(out, civil.hour, true),
        Element::Hour12 { padded } => write_number(out, twelve, padded),
        Element::Minute { padded } => write_number(out, civil.minute, padded),
        Element::Second { padded } => write_number(out, civil.second, padded),
        Element::LongYear if civil.year < 0 => write!(out, "-{:04}", civil.year.unsigned_abs()),
        Element::LongYear => write!(out, "{:04}", civil.year),
        Element::Year => write!(out, "{:02}", civil.year.max(0) % 100),
        Element::HalfDay { upper } => out.write_all(match (civil.hour >= 12, upper) {
            (true, true) => b"PM",
            (true, false) => b"pm",
            (false, true) => b"AM",
            (false, false) => b"am",
        }),
        Element::ZoneName if time.zone.as_str().is_empty() => {
            write_offset(out, time.offset, Offset::Minutes);
            Ok(())
        }
        Element::ZoneName => write!(out, "{}", time.zone.as_str()),
        Element::Offset { z: true, .. } if time.offset == 0 => write!(out, "Z"),
        Element::Offset { form, .. } => {
            write_offset(out, time.offset, form);
            Ok(())
        }
        Element::Fraction { digits } => write_fraction(out, b'.', digits, time.nanoseconds, false),
        Element::FractionComma { digits } => write_fraction(out, b',', digits, time.nanoseconds, false),
        Element::OptionalFraction { digits, comma } => {
            write_fraction(out, if comma { b',' } else { b'.' }, digits, time.nanoseconds, true)
        }
    };
}

fn write_number(out: &mut Vec<u8>, value: u32, padded: bool) -> std::io::Result<()> {
    if padded { write!(out, "{value:02}") } else { write!(out, "{value}") }
}

fn write_offset(out: &mut Vec<u8>, offset: i32, form: Offset) {
    // An offset of less than a minute has no sign of its own: Go prints that of its seconds.
    let (sign, offset) = if offset / 60 < 0 { (b'-', -offset) } else { (b'+', offset) };
    out.push(sign);
    let (hours, minutes, seconds) = (offset / 3600, offset / 60 % 60, offset % 60);
    let _ = match form {
        Offset::Hours => write!(out, "{hours:02}"),
        Offset::Minutes => write!(out, "{hours:02}{minutes:02}"),
        Offset::ColonMinutes => write!(out, "{hours:02}:{minutes:02}"),
        Offset::Seconds => write!(out, "{hours:02}{minutes:02}{seconds:02}"),
        Offset::ColonSeconds => write!(out, "{hours:02}:{minutes:02}:{seconds:02}"),
    };
}

fn write_fraction(out: &mut Vec<u8>, mark: u8, digits: u8, nanoseconds: u32, optional: bool) -> std::io::Result<()> {
    let text = format!("{nanoseconds:09}");
    let mut shown = &text[..usize::from(digits).min(9)];
    if optional {
        shown = shown.trim_end_matches('0');
        if shown.is_empty() {
            return Ok(());
        }
    }
    out.push(mark);
    out.write_all(shown.as_bytes())
}
