//! Layouts in the manner of `strptime`, as the OpenTelemetry collector reads them: directives stand for elements of Go's
//! layouts.

use std::fmt;

use super::{Layout, ParseError, Time, Zone};

/// A layout of directives.
///
/// | directive | stands for |
/// |---|---|
/// | `%Y` `%y` | the year, the year of the century |
/// | `%m` `%o` `%q` | the month: with a zero, plain (written behind an underscore), plain |
/// | `%b` `%h` `%B` | the name of the month, short and long |
/// | `%d` `%e` `%g` | the day: with a zero, with a space, plain |
/// | `%a` `%A` | the name of the day, short and long |
/// | `%H` `%I` `%l` | the hour; of half a day, with a zero and plain |
/// | `%p` `%P` | `AM` and `am` |
/// | `%M` `%S` | the minute, the second |
/// | `%L` `%f` `%s` | milliseconds, microseconds, nanoseconds of the second, behind a point or a comma |
/// | `%Z` `%z` | the name of the zone, its offset |
/// | `%w` `%i` `%j` `%k` | offsets: `-070000`, `-07`, `-07:00`, `-07:00:00` |
/// | `%D` `%x` `%F` `%T` `%X` `%r` `%R` `%c` | dates and times at once |
/// | `%n` `%t` `%%` | a line break, a tab, a percent sign |
#[derive(Debug)]
pub struct Strptime {
    /// What is tried one after the other.
    readers: Vec<Layout>,
    writer: Layout,
    ends_in_z: bool,
    begins_with_number: bool,
}

/// Why a layout is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StrptimeError(String);

impl fmt::Display for StrptimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StrptimeError {}

/// Directives with what they are written as, and what they are read as if that is less strict.
const DIRECTIVES: &[(char, &str, &[&str])] = &[
    ('Y', "2006", &[]),
    ('y', "06", &[]),
    ('m', "01", &["1"]),
    ('o', "_1", &["1"]),
    ('q', "1", &[]),
    ('b', "Jan", &[]),
    ('h', "Jan", &[]),
    ('B', "January", &[]),
    ('d', "02", &["2"]),
    ('e', "_2", &["2"]),
    ('g', "2", &[]),
    ('a', "Mon", &[]),
    ('A', "Monday", &[]),
    ('H', "15", &[]),
    ('l', "3", &[]),
    ('I', "03", &["3"]),
    ('p', "PM", &[]),
    ('P', "pm", &[]),
    ('M', "04", &["4"]),
    ('S', "05", &["5"]),
    ('L', "999", &[]),
    ('f', "999999", &[]),
    ('s', "999999999", &[]),
    ('Z', "MST", &[]),
    ('z', "Z0700", &["Z0700", "Z07:00", "Z07"]),
    ('w', "-070000", &[]),
    ('i', "-07", &[]),
    ('j', "-07:00", &[]),
    ('k', "-07:00:00", &[]),
    ('D', "01/02/2006", &["1/2/2006", "1/2/06"]),
    ('x', "01/02/2006", &["1/2/2006", "1/2/06"]),
    ('F', "2006-01-02", &["2006-1-2"]),
    ('T', "15:04:05", &["15:4:5"]),
    ('X', "15:04:05", &["15:4:5"]),
    ('r', "03:04:05 pm", &["3:4:5 pm"]),
    ('R', "15:04", &["15:4"]),
    ('n', "\n", &[]),
    ('t', "\t", &[]),
    ('%', "%", &[]),
    ('c', "Mon Jan 02 15:04:05 2006", &["Mon Jan 2 15:4:5 2006"]),
];

/// The most ways to read a layout that are tried.
const READERS_MAX: usize = 32;

impl Strptime {
    /// Reads a layout.
    ///
    /// # Errors
    ///
    /// A directive that nobody knows, a decimal digit, or fractional seconds that do not stand behind a point or a comma.
    pub fn new(layout: &str) -> Result<Self, StrptimeError> {
        if layout.contains(|character: char| character.is_ascii_digit()) {
            return Err(StrptimeError("a layout of directives has no digits".to_owned()));
        }
        let (mut written, mut read) = (String::new(), vec![String::new()]);
        let mut before = None;
        let mut characters = layout.chars();
        while let Some(character) = characters.next() {
            // A percent sign by itself at the end, or before a line break, is a percent sign.
            let directive =
                (character == '%').then(|| characters.clone().next()).flatten().filter(|next| *next != '\n');
            let Some(directive) = directive else {
                written.push(character);
                read.iter_mut().for_each(|read| read.push(character));
                before = Some(character);
                continue;
            };
            characters.next();
            let known = DIRECTIVES.iter().find(|(known, ..)| *known == directive);
            let Some((_, write, reads)) = known else {
                return Err(StrptimeError(format!("there is no directive %{directive}")));
            };
            if matches!(directive, 'L' | 'f' | 's') && before.is_some_and(|before| !matches!(before, '.' | ',')) {
                return Err(StrptimeError(format!("%{directive} has to stand behind a point or a comma")));
            }
            written.push_str(write);
            let reads = if reads.is_empty() { &[*write][..] } else { reads };
            read = reads.iter().flat_map(|more| read.iter().map(move |so_far| format!("{so_far}{more}"))).collect();
            read.truncate(READERS_MAX);
            before = Some(directive);
        }
        let readers = read.iter().map(|layout| Layout::new(layout)).collect();
        let begins_with_number = written.starts_with(|first: char| first.is_ascii_digit());
        Ok(Strptime { readers, writer: Layout::new(&written), ends_in_z: layout.ends_with('Z'), begins_with_number })
    }

    /// Whether the layout ends in `Z`: what it reads is UTC then, unless the text says otherwise.
    pub fn ends_in_z(&self) -> bool {
        self.ends_in_z
    }

    /// Reads a time. What names no zone is one of `zone`; what has no year is of the one that is nearest to `now`, but at
    /// most seven days after it.
    ///
    /// # Errors
    ///
    /// Why the text is not a time of the layout.
    pub fn parse(&self, text: &[u8], zone: &Zone, now: &Time) -> Result<Time, ParseError> {
        let mut failed = ParseError::Mismatch;
        // A number may have spaces before it.
        let text = if self.begins_with_number { text.trim_ascii_start() } else { text };
        for layout in &self.readers {
            match layout.parse(text, Some(zone)) {
                Ok(time) => return in_named_zone(layout, text, time, zone).map(|time| in_recent_year(time, now, zone)),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Writes a time.
    pub fn format(&self, time: &Time) -> String {
        self.writer.format(time)
    }
}

/// Reads a time of a layout of Go's as [`Strptime::parse`] does.
///
/// # Errors
///
/// Why the text is not a time of the layout.
pub fn parse_recent(layout: &Layout, text: &[u8], zone: &Zone, now: &Time) -> Result<Time, ParseError> {
    let time = layout.parse(text, Some(zone))?;
    in_named_zone(layout, text, time, zone).map(|time| in_recent_year(time, now, zone))
}

/// An abbreviation that the zone does not have is looked up as the name of one.
fn in_named_zone(layout: &Layout, text: &[u8], time: Time, zone: &Zone) -> Result<Time, ParseError> {
    let name = time.zone.as_str();
    if time.offset != 0 || name == "UTC" || name == zone.at(time.seconds).1.as_str() {
        return Ok(time);
    }
    let named = Zone::load(name).map_err(|_| ParseError::OutOfRange("zone"))?;
    layout.parse(text, Some(&named))
}

/// Gives a time without a year the one of `now`, or the one before if that would be more than seven days later.
pub fn in_recent_year(time: Time, now: &Time, zone: &Zone) -> Time {
    let mut civil = time.civil();
    if civil.year > 0 {
        return time;
    }
    let at = |civil: &super::Civil| {
        let seconds = match time.zone == zone.at(time.seconds).1 {
            true => zone.seconds_of(civil),
            false => civil.seconds() - i64::from(time.offset),
        };
        let moved = Time { seconds, ..time };
        if time.zone == zone.at(time.seconds).1 { moved.within(zone) } else { moved }
    };
    civil.year = now.civil().year;
    let this_year = at(&civil);
    if this_year.seconds <= now.seconds + 7 * 86_400 {
        return this_year;
    }
    civil.year -= 1;
    at(&civil)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::parse_rfc3339;
    use super::*;

    #[test]
    fn directives_are_read_and_written() {
        let now = Time::from_unix_ns(parse_rfc3339("2026-03-01T00:00:00Z").unwrap());
        let berlin = Zone::load("Europe/Berlin").unwrap();
        for (layout, text, zone, expected) in [
            ("%Y-%m-%d", "2023-04-12", &Zone::UTC, "2023-04-12T00:00:00Z"),
            ("%Y-%m-%d", "2023-4-2", &Zone::UTC, "2023-04-02T00:00:00Z"),
            ("%m/%d/%Y %I:%M:%S %p", "02/05/2024 3:04:05 PM", &Zone::UTC, "2024-02-05T15:04:05Z"),
            ("%d/%b/%Y:%H:%M:%S %z", "10/Oct/2000:13:55:36 -0700", &Zone::UTC, "2000-10-10T20:55:36Z"),
            ("%FT%T%z", "2020-01-02T03:04:05Z", &berlin, "2020-01-02T03:04:05Z"),
            ("%FT%T%z", "2020-01-02T03:04:05+02:00", &berlin, "2020-01-02T01:04:05Z"),
            ("%FT%T%z", "2020-01-02T03:04:05+02", &berlin, "2020-01-02T01:04:05Z"),
            ("%FT%T", "2020-07-02T03:04:05", &berlin, "2020-07-02T01:04:05Z"),
            ("%FT%T.%L", "2020-07-02T03:04:05.123", &Zone::UTC, "2020-07-02T03:04:05.123Z"),
            ("%FT%T,%f", "2020-07-02T03:04:05,123456", &Zone::UTC, "2020-07-02T03:04:05.123456Z"),
            ("%D", "1/2/21", &Zone::UTC, "2021-01-02T00:00:00Z"),
            ("%b %e %H:%M:%S", "Feb  7 03:04:05", &Zone::UTC, "2026-02-07T03:04:05Z"),
            ("%b %e %H:%M:%S", "Mar  8 03:04:05", &Zone::UTC, "2025-03-08T03:04:05Z"),
            ("%b %e %H:%M:%S", "Mar  7 03:04:05", &Zone::UTC, "2026-03-07T03:04:05Z"),
            ("%F %T %Z", "2023-09-01 10:00:00 EST", &Zone::UTC, "2023-09-01T15:00:00Z"),
            ("%A %a %Y%%", "Monday Mon 2023%", &Zone::UTC, "2023-01-01T00:00:00Z"),
        ] {
            let strptime = Strptime::new(layout).unwrap();
            let time = strptime.parse(text.as_bytes(), zone, &now).map_err(|error| format!("{layout} {text}: {error}"));
            assert_eq!(time.unwrap().unix_ns(), parse_rfc3339(expected).unwrap(), "{layout} {text}");
        }
        let time = Time::from_unix_ns(parse_rfc3339("2023-02-05T15:04:05.123456789Z").unwrap());
        for (layout, expected) in [
            ("%Y-%m-%d %H:%M:%S.%s", "2023-02-05 15:04:05.123456789"),
            ("%e %o %q %g %l %P %Z %z", " 5 _2 2 5 3 pm UTC Z"),
            ("%F%t%R%n%%", "2023-02-05\t15:04\n%"),
        ] {
            assert_eq!(Strptime::new(layout).unwrap().format(&time), expected);
        }
    }

    #[test]
    fn layouts_that_mean_nothing_are_refused() {
        for layout in ["%Y-01", "%Q", "%H%L", "x%f"] {
            assert!(Strptime::new(layout).is_err(), "{layout}");
        }
        assert!(Strptime::new("%L").is_ok() && Strptime::new("%T.%L").is_ok() && Strptime::new("a%").is_ok());
    }

    proptest! {
        #[test]
        fn no_layout_and_no_text_panics(layout in "(%[a-zA-Z%]|[ -~]|é){0,8}", text in any::<Vec<u8>>()) {
            if let Ok(strptime) = Strptime::new(&layout) {
                let _ = strptime.parse(&text, &Zone::UTC, &Time::utc(0, 0));
            }
        }

        #[test]
        fn what_is_written_is_read(seconds in -62_000_000_000i64..200_000_000_000, nanoseconds in 0u32..1_000_000_000) {
            let time = Time::utc(seconds, nanoseconds);
            let strptime = Strptime::new("%Y-%m-%d %H:%M:%S.%s %z").unwrap();
            let read = strptime.parse(strptime.format(&time).as_bytes(), &Zone::UTC, &time).unwrap();
            prop_assert_eq!((read.seconds, read.nanoseconds), (seconds, nanoseconds));
        }
    }
}
