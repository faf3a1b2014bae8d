//! Syslog messages.

use corten_golang::time::{Civil, Time, Zone};
use corten_wire::syslog::{Message, Stamp, facility, rfc3164, rfc5424};

use super::{Parse, Parser, Transform};
use crate::build::{Built, Fields};
use crate::entry::Entry;
use crate::field::Field;
use crate::time::TimeReader;
use crate::value::{Map, Text, Value};

/// What severities are called, with those of entries.
const SEVERITIES: [(&str, u8); 8] = [
    ("emerg", 21),
    ("alert", 19),
    ("crit", 18),
    ("err", 17),
    ("warning", 13),
    ("notice", 10),
    ("info", 9),
    ("debug", 5),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Rfc3164,
    Rfc5424,
    /// Whatever it is.
    Any,
}

/// How a message is told from what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    None,
    /// Its length stands before it.
    Octets,
    /// A byte stands behind it.
    Trailer(u8),
}

/// Reads syslog messages.
pub(super) struct Syslog {
    parser: Parser<Line>,
    timestamp: Field,
    severity: Field,
}

struct Line {
    protocol: Protocol,
    framing: Framing,
    zone: Zone,
    skip_priority: bool,
    octets_max: usize,
}

impl Syslog {
    pub(super) fn new(fields: &Fields<'_>) -> Built<Self> {
        let name = fields.text_or("protocol", "")?.to_lowercase();
        let octets = fields.bool_or("enable_octet_counting", false)?;
        let trailer = fields.text("non_transparent_framing_trailer")?;
        let protocol = match &*name {
            "rfc3164" => Protocol::Rfc3164,
            "rfc5424" => Protocol::Rfc5424,
            "none" => Protocol::Any,
            "" => return Err("missing field 'protocol'".to_owned()),
            other => return Err(format!("unsupported protocol version: {other}")),
        };
        let framing = match (trailer.as_deref(), octets, protocol) {
            (Some(_), true, _) => {
                return Err("only one of octet_counting or non_transparent_framing can be enabled".to_owned());
            }
            (Some(_), _, Protocol::Any) => {
                return Err("non_transparent_framing is not compatible with protocol none".to_owned());
            }
            (Some(_), _, Protocol::Rfc3164) => {
                return Err("non_transparent_framing is only compatible with protocol rfc5424".to_owned());
            }
            (Some("NUL"), ..) => Framing::Trailer(0),
            (Some("LF"), ..) => Framing::Trailer(b'\n'),
            (Some(other), ..) => {
                return Err(format!("invalid non_transparent_framing_trailer '{other}'. Must be either 'LF' or 'NUL'"));
            }
            (None, true, _) => Framing::Octets,
            (None, false, _) => Framing::None,
        };
        let location = match fields.text_or("location", "")? {
            none if none.is_empty() => "UTC".to_owned(),
            some => some,
        };
        let zone = Zone::load(&location).map_err(|error| format!("failed to load location {location}: {error}"))?;
        let line = Line {
            protocol,
            framing,
            zone,
            skip_priority: fields.bool_or("allow_skip_pri_header", false)?,
            octets_max: usize::try_from(fields.int_or("max_octets", 0)?).unwrap_or(0),
        };
        let mut parser = Parser::new(fields, line)?;
        if parser.sub.time.is_none() && protocol != Protocol::Any {
            parser.sub.time = Some((Field::attribute("timestamp"), TimeReader::native()));
        }
        Ok(Syslog { parser, timestamp: Field::attribute("timestamp"), severity: Field::attribute("severity") })
    }
}

impl Transform for Syslog {
    fn transform(&mut self, entry: &mut Entry) -> Result<(), String> {
        let line = &self.parser.parse;
        // Looked at before it may be replaced by what it says.
        let without_priority = match &entry.body {
            Value::Str(text) => line.lacks_priority(text),
            other if line.skip_priority && line.framing != Framing::Octets && line.protocol != Protocol::Any => {
                return Err(format!("unable to convert type '{}' to bytes", other.go_type()));
            }
            _ => false,
        };
        let is_any = line.protocol == Protocol::Any;
        self.parser.transform(entry)?;
        if is_any || !without_priority {
            match self.severity.delete(entry) {
                Some(Value::Int(severity)) => {
                    let known = usize::try_from(severity).ok().and_then(|severity| SEVERITIES.get(severity));
                    let Some((name, number)) = known else { return Err(format!("invalid severity '{severity}'")) };
                    entry.severity = *number;
                    entry.severity_text = Text::of(name);
                }
                Some(_) => return Err("severity field is not an int".to_owned()),
                None if is_any => {}
                None => return Err("severity field does not exist".to_owned()),
            }
        }
        if !is_any && self.timestamp.delete(entry).is_none() {
            return Err("failed to cleanup timestamp".to_owned());
        }
        Ok(())
    }
}

/// Whether there is a priority anywhere in a message.
fn has_priority(text: &[u8]) -> bool {
    memchr::memchr_iter(b'<', text).any(|at| {
        let digits = text[at + 1..].iter().take(4).take_while(|byte| byte.is_ascii_digit()).count();
        (1..=3).contains(&digits) && text.get(at + 1 + digits) == Some(&b'>')
    })
}

/// A line without the count before it.
fn without_count(text: &[u8]) -> Option<(usize, usize)> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let is_count = (1..=9).contains(&digits) && text[0] != b'0';
    let count = std::str::from_utf8(&text[..digits]).ok()?.parse().ok()?;
    (is_count && text.get(digits).is_some_and(|byte| byte.is_ascii_whitespace())).then_some((count, digits + 1))
}

impl Line {
    fn lacks_priority(&self, text: &[u8]) -> bool {
        self.framing != Framing::Octets && self.skip_priority && text.len() > 1 && text[0] != b'<'
    }

    /// The part of a text that is the message.
    fn framed<'a>(&self, text: &'a [u8]) -> Result<&'a [u8], String> {
        match self.framing {
            Framing::None => Ok(text),
            Framing::Octets => {
                // Of several messages the last one counts.
                let mut rest = text;
                loop {
                    let Some((count, start)) = without_count(rest) else {
                        return Err("found the message length is not a number, expecting a MSGLEN".to_owned());
                    };
                    if self.octets_max > 0 && count > self.octets_max {
                        let max = self.octets_max;
                        return Err(format!("message too long to parse. was size {count}, max length {max}"));
                    }
                    let Some((message, behind)) = rest[start..].split_at_checked(count) else {
                        return Err(format!("found EOF, expecting a SYSLOGMSG containing {count} octets"));
                    };
                    if behind.is_empty() {
                        return Ok(message);
                    }
                    rest = behind;
                }
            }
            Framing::Trailer(trailer) => match memchr::memchr(trailer, text) {
                Some(end) => Ok(&text[..end]),
                None => Ok(text),
            },
        }
    }

    fn put_priority(priority: u8, map: &mut Map) {
        map.put(Text::of("priority"), Value::Int(i64::from(priority)));
        map.put(Text::of("severity"), Value::Int(i64::from(priority % 8)));
        map.put(Text::of("facility"), Value::Int(i64::from(priority / 8)));
        map.put(Text::of("facility_text"), Value::Str(Text::of(facility(priority))));
    }

    fn time(&self, stamp: &Stamp) -> Time {
        let [hour, minute, second] = stamp.time.map(u32::from);
        let (month, day) = (u32::from(stamp.month), u32::from(stamp.day));
        let civil = Civil { year: i64::from(stamp.year), month, day, hour, minute, second };
        if self.protocol == Protocol::Rfc5424 {
            let mut time = Time::utc(civil.seconds() - i64::from(stamp.offset_minutes) * 60, stamp.nanos);
            time.offset = stamp.offset_minutes * 60;
            return time;
        }
        let seconds = self.zone.seconds_of(&civil);
        let (offset, zone) = self.zone.at(seconds);
        Time { seconds, nanoseconds: stamp.nanos, offset, zone }
    }

    fn fields(&self, message: &Message<'_>, without_priority: bool) -> Map {
        let mut map = Map::with_capacity(12);
        if let Some(stamp) = &message.timestamp {
            map.put(Text::of("timestamp"), Value::Time(self.time(stamp)));
        }
        for (name, part) in [
            ("hostname", message.hostname),
            ("appname", message.app_name),
            ("proc_id", message.proc_id),
            ("msg_id", message.msg_id),
            ("message", message.text),
        ] {
            if let Some(part) = part {
                map.put(Text::of(name), Value::str(part));
            }
        }
        if self.protocol == Protocol::Rfc5424 {
            if let Some(elements) = &message.structured_data {
                let of_element = elements.iter().map(|(id, parameters)| {
                    let pairs = parameters.iter().map(|(name, value)| (Text::from(*name), Value::str(&**value)));
                    (Text::from(*id), Value::Map(pairs.collect()))
                });
                map.put(Text::of("structured_data"), Value::Map(of_element.collect()));
            }
            map.put(Text::of("version"), Value::Int(i64::from(message.version)));
        }
        if let (false, Some(priority)) = (without_priority, message.priority) {
            Self::put_priority(priority, &mut map);
        }
        map
    }
}

impl Parse for Line {
    fn parse(&mut self, value: &Value, _: &Entry) -> Result<Value, String> {
        let Value::Str(text) = value else {
            return Err(format!("unable to convert type '{}' to bytes", value.go_type()));
        };
        if self.protocol == Protocol::Any {
            let start = match self.framing {
                Framing::Octets => without_count(text).map_or(0, |(_, start)| start),
                _ => 0,
            };
            let text = text.part(start..text.len());
            let mut map = Map::default();
            let digits = text.iter().skip(1).take_while(|byte| byte.is_ascii_digit()).count();
            if text.starts_with(b"<") && (1..=3).contains(&digits) && text.get(digits + 1) == Some(&b'>') {
                let number = std::str::from_utf8(&text[1..=digits]).ok().and_then(|text| text.parse().ok());
                if let Some(priority) = number.filter(|priority| *priority <= 191) {
                    Self::put_priority(priority, &mut map);
                }
            }
            map.put(Text::of("message"), Value::Str(text));
            return Ok(Value::Map(map));
        }
        let without_priority = self.lacks_priority(text);
        let framed = self.framed(text)?;
        let prefixed;
        let input = if self.framing == Framing::None && self.skip_priority && !has_priority(framed) {
            prefixed = [b"<0>", framed].concat();
            &prefixed
        } else {
            framed
        };
        let message = match self.protocol {
            Protocol::Rfc3164 => rfc3164::parse(input, &rfc3164::Options::default()),
            _ => rfc5424::parse(input),
        };
        let message = message.map_err(|error| error.to_string())?;
        Ok(Value::Map(self.fields(&message, without_priority)))
    }
}
