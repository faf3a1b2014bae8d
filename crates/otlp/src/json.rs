//! OTLP in JSON, as the protocol's specification 1.9 maps it: written from messages, and read into messages.
//!
//! Both go by the tables of the messages, so that there is one mapping for all of them. Names are read in camel case and
//! in snake case; ids are hexadecimal; whole numbers of 64 bits are strings, and read as numbers, too.

use std::borrow::Cow;
use std::fmt;
use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use corten_golang::json::{Form, push_string};
use corten_golang::push_hex;
use corten_signal::labels::put_varint;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::arena::write_json_double;
use crate::proto::{BYTES, FIXED32, FIXED64, Malformed, Reader, VARINT};
use crate::schema::{Field, Kind, Message, Presence};

/// Reads a message in JSON and writes it as a message.
///
/// # Errors
///
/// What is wrong, with line and column.
pub(crate) fn read(schema: &'static Message, json: &[u8]) -> Result<Vec<u8>, String> {
    read_whole(schema, json).or_else(|error| match without_lone_surrogates(json) {
        Some(json) => read_whole(schema, &json),
        None => Err(error),
    })
}

/// Puts a replacement character in place of each half of a pair that stands alone; `None` if there is none.
///
/// Languages whose texts are UTF-16 write those where a text was cut, and one of them must not cost a whole request.
fn without_lone_surrogates(json: &[u8]) -> Option<Vec<u8>> {
    let unit = |at: usize| {
        let digits = json.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let mut out = Vec::with_capacity(json.len());
    let (mut at, mut changed) = (0, false);
    while at < json.len() {
        let (taken, lone) = match (json[at], unit(at)) {
            (b'\\', Some(0xd800..0xdc00)) if matches!(unit(at + 6), Some(0xdc00..0xe000)) => (12, false),
            (b'\\', Some(0xd800..0xe000)) => (6, true),
            // An escape that is no number takes the character behind it along, which may be a backslash.
            (b'\\', _) => (2.min(json.len() - at), false),
            _ => (1, false),
        };
        out.extend_from_slice(if lone { b"\\ufffd" } else { &json[at..at + taken] });
        changed |= lone;
        at += taken;
    }
    changed.then_some(out)
}

fn read_whole(schema: &'static Message, json: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut reader = serde_json::Deserializer::from_slice(json);
    MessageSeed { schema, out: &mut out }.deserialize(&mut reader).map_err(|error| error.to_string())?;
    reader.end().map_err(|error| error.to_string())?;
    Ok(out)
}

struct MessageSeed<'a> {
    schema: &'static Message,
    out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for MessageSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// The name of a field, in its own case.
fn camel(name: &str) -> Cow<'_, str> {
    if !name.contains('_') {
        return Cow::Borrowed(name);
    }
    let mut camel = String::with_capacity(name.len());
    let mut up = false;
    for char in name.chars() {
        match char {
            '_' => up = true,
            char if std::mem::take(&mut up) => camel.push(char.to_ascii_uppercase()),
            char => camel.push(char),
        }
    }
    Cow::Owned(camel)
}

impl<'de> Visitor<'de> for MessageSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with the fields of {}", self.schema.name)
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Cow<'_, str>>()? {
            let name = camel(&name);
            match self.schema.fields.iter().find(|field| field.name == name) {
                Some(field) if field.presence == Presence::Repeated => {
                    map.next_value_seed(ListSeed { field, out: self.out })?;
                }
                Some(field) => map.next_value_seed(FieldSeed { field, out: self.out, element: false })?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

struct ListSeed<'a> {
    field: &'static Field,
    out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for ListSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ListSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list in {}", self.field.name)
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(FieldSeed { field: self.field, out: self.out, element: true })?.is_some() {}
        Ok(())
    }
}

struct FieldSeed<'a> {
    field: &'static Field,
    out: &'a mut Vec<u8>,
    /// Whether it is one of a list, of which none is left out.
    element: bool,
}

impl FieldSeed<'_> {
    fn put_tag(&mut self, wire_type: u32) {
        put_varint(self.out, u64::from(self.field.number << 3 | wire_type));
    }

    fn is_left_out(&self, zero: bool) -> bool {
        zero && !self.element && self.field.presence == Presence::Implicit
    }

    fn put_varint(&mut self, value: u64) {
        if !self.is_left_out(value == 0) {
            self.put_tag(VARINT);
            put_varint(self.out, value);
        }
    }

    fn put_fixed64(&mut self, value: u64) {
        if !self.is_left_out(value == 0) {
            self.put_tag(FIXED64);
            self.out.extend_from_slice(&value.to_le_bytes());
        }
    }

    fn put_bytes(&mut self, bytes: &[u8]) {
        if !self.is_left_out(bytes.is_empty()) {
            self.put_tag(BYTES);
            put_varint(self.out, bytes.len() as u64);
            self.out.extend_from_slice(bytes);
        }
    }

    /// A whole number, whichever way it was written.
    fn number<E: de::Error>(mut self, value: i128) -> Result<(), E> {
        let name = self.field.name;
        let fits =
            |fits: bool| if fits { Ok(()) } else { Err(E::custom(format!("{value} is out of range for {name}"))) };
        match self.field.kind {
            Kind::Int32 | Kind::Enum(_) => {
                fits(i32::try_from(value).is_ok())?;
                self.put_varint(value as i64 as u64);
            }
            Kind::Uint32 => {
                fits(u32::try_from(value).is_ok())?;
                self.put_varint(value as u64);
            }
            Kind::Int64 => {
                fits(i64::try_from(value).is_ok())?;
                self.put_varint(value as u64);
            }
            Kind::Uint64 => {
                fits(u64::try_from(value).is_ok())?;
                self.put_varint(value as u64);
            }
            Kind::Sint32 => {
                fits(i32::try_from(value).is_ok())?;
                let value = value as i32;
                self.put_varint(u64::from(((value << 1) ^ (value >> 31)) as u32));
            }
            Kind::Fixed32 => {
                fits(u32::try_from(value).is_ok())?;
                if !self.is_left_out(value == 0) {
                    self.put_tag(FIXED32);
                    self.out.extend_from_slice(&(value as u32).to_le_bytes());
                }
            }
            Kind::Fixed64 => {
                fits(u64::try_from(value).is_ok())?;
                self.put_fixed64(value as u64);
            }
            Kind::Sfixed64 => {
                fits(i64::try_from(value).is_ok())?;
                self.put_fixed64(value as u64);
            }
            Kind::Double => self.put_fixed64((value as f64).to_bits()),
            Kind::String | Kind::Bytes | Kind::Id(..) | Kind::Bool | Kind::Message(_) => {
                return Err(E::invalid_type(de::Unexpected::Other("number"), &self));
            }
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for FieldSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for FieldSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.field.kind {
            Kind::String => "a string",
            Kind::Bytes => "bytes in base 64",
            Kind::Id(..) => "a hexadecimal id",
            Kind::Bool => "true or false",
            Kind::Double => "a number",
            Kind::Message(_) => "an object",
            Kind::Enum(_) => "a whole number or a name",
            _ => "a whole number",
        })?;
        write!(f, " in {}", self.field.name)
    }

    fn visit_unit<E>(mut self) -> Result<(), E> {
        if self.element && matches!(self.field.kind, Kind::Message(_)) {
            self.put_bytes(b"");
        }
        Ok(())
    }

    fn visit_bool<E: de::Error>(mut self, value: bool) -> Result<(), E> {
        if !matches!(self.field.kind, Kind::Bool) {
            return Err(E::invalid_type(de::Unexpected::Bool(value), &self));
        }
        self.put_varint(u64::from(value));
        Ok(())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
        self.number(i128::from(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<(), E> {
        self.number(i128::from(value))
    }

    fn visit_f64<E: de::Error>(mut self, value: f64) -> Result<(), E> {
        if !matches!(self.field.kind, Kind::Double) {
            return Err(E::invalid_type(de::Unexpected::Float(value), &self));
        }
        self.put_fixed64(value.to_bits());
        Ok(())
    }

    fn visit_str<E: de::Error>(mut self, value: &str) -> Result<(), E> {
        let name = self.field.name;
        match self.field.kind {
            Kind::String => self.put_bytes(value.as_bytes()),
            Kind::Bytes => {
                let decoded = STANDARD.decode(value).or_else(|_| STANDARD_NO_PAD.decode(value));
                let decoded = decoded.map_err(|error| E::custom(format!("{name} is not in base 64: {error}")))?;
                self.put_bytes(&decoded);
            }
            Kind::Id(id, len) => {
                let decoded = from_hex(value).ok_or_else(|| E::custom(format!("{name} is not hexadecimal")))?;
                if decoded.len() != len && !decoded.is_empty() {
                    return Err(E::custom(Malformed::WrongIdLength { id, len: decoded.len() }));
                }
                self.put_bytes(&decoded);
            }
            Kind::Enum(names) => match names.iter().find(|(known, _)| *known == value) {
                Some((_, number)) => self.put_varint(i64::from(*number) as u64),
                None => return Err(E::custom(format!("{value:?} is not known for {name}"))),
            },
            Kind::Double => {
                let parsed = match value {
                    "Infinity" => Ok(f64::INFINITY),
                    "-Infinity" => Ok(f64::NEG_INFINITY),
                    other => other.parse(),
                };
                let parsed = parsed.map_err(|_| E::invalid_value(de::Unexpected::Str(value), &self))?;
                self.put_fixed64(parsed.to_bits());
            }
            Kind::Bool | Kind::Message(_) => return Err(E::invalid_type(de::Unexpected::Str(value), &self)),
            _ => {
                let parsed = value.parse().map_err(|_| E::invalid_value(de::Unexpected::Str(value), &self))?;
                self.number::<E>(parsed)?;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, map: A) -> Result<(), A::Error> {
        let Kind::Message(schema) = self.field.kind else {
            return Err(de::Error::invalid_type(de::Unexpected::Map, &self));
        };
        let mut inner = Vec::new();
        MessageSeed { schema, out: &mut inner }.visit_map(map)?;
        self.put_bytes(&inner);
        Ok(())
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

/// Writes a message that was checked as JSON.
pub(crate) fn write(schema: &'static Message, message: &[u8], out: &mut Vec<u8>) {
    write_message(schema, message, Reader::new(message, 0, message.len()), out);
}

/// A field's value in a message.
#[derive(Clone, Copy)]
enum Raw<'a> {
    Number(u64),
    Message(Reader<'a>, (usize, usize)),
}

fn write_message(schema: &'static Message, buffer: &[u8], mut reader: Reader<'_>, out: &mut Vec<u8>) {
    let mut values: Vec<(usize, Raw<'_>)> = Vec::new();
    while let Ok(Some((number, wire_type))) = reader.field() {
        let Some(at) = schema.place(number) else {
            if reader.skip(wire_type).is_err() {
                break;
            }
            continue;
        };
        let raw = match wire_type {
            VARINT => reader.varint().map(Raw::Number),
            FIXED64 => reader.fixed64().map(Raw::Number),
            FIXED32 => reader.fixed32().map(|value| Raw::Number(u64::from(value))),
            _ => {
                let mut ahead = reader;
                reader.bytes().and_then(|range| Ok(Raw::Message(ahead.message()?, range)))
            }
        };
        let Ok(raw) = raw else { break };
        values.push((at, raw));
    }
    values.sort_by_key(|(at, _)| *at);
    out.push(b'{');
    let mut first = true;
    for (at, field) in schema.fields.iter().enumerate() {
        let start = values.partition_point(|(place, _)| *place < at);
        let values = &values[start..][..values[start..].partition_point(|(place, _)| *place == at)];
        let Some((_, last)) = values.last() else {
            if field.presence == Presence::Always {
                write_name(field.name, &mut first, out);
                let empty = Reader::new(&[], 0, 0);
                write_value(field, buffer, Raw::Message(empty, (0, 0)), out);
            }
            continue;
        };
        if field.presence == Presence::Repeated {
            write_name(field.name, &mut first, out);
            out.push(b'[');
            let mut first = true;
            for (_, value) in values {
                write_elements(field, buffer, *value, &mut first, out);
            }
            out.push(b']');
        } else if field.presence != Presence::Implicit || !is_unset(field, buffer, *last) {
            write_name(field.name, &mut first, out);
            write_value(field, buffer, *last, out);
        }
    }
    out.push(b'}');
}

/// Whether a value is the one that is not written. An id of zeros is none, and a zero below zero is zero.
fn is_unset(field: &Field, buffer: &[u8], value: Raw<'_>) -> bool {
    match value {
        Raw::Number(bits) if matches!(field.kind, Kind::Double) => f64::from_bits(bits) == 0.0,
        Raw::Number(number) => number == 0,
        Raw::Message(_, (start, end)) => {
            start == end || (matches!(field.kind, Kind::Id(..)) && buffer[start..end].iter().all(|byte| *byte == 0))
        }
    }
}

fn write_name(name: &str, first: &mut bool, out: &mut Vec<u8>) {
    comma(first, out);
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn comma(first: &mut bool, out: &mut Vec<u8>) {
    if !std::mem::take(first) {
        out.push(b',');
    }
}

/// Writes a value of a repeated field, which may be a packed list of values.
fn write_elements(field: &'static Field, buffer: &[u8], value: Raw<'_>, first: &mut bool, out: &mut Vec<u8>) {
    let Raw::Message(mut packed, _) = value else {
        comma(first, out);
        return write_value(field, buffer, value, out);
    };
    let next: fn(&mut Reader<'_>) -> Result<u64, Malformed> = match field.kind {
        Kind::Uint64 => |packed| packed.varint(),
        Kind::Fixed64 | Kind::Double => |packed| packed.fixed64(),
        _ => {
            comma(first, out);
            return write_value(field, buffer, value, out);
        }
    };
    while !packed.is_empty() {
        let Ok(number) = next(&mut packed) else { break };
        comma(first, out);
        write_value(field, buffer, Raw::Number(number), out);
    }
}

fn write_value(field: &'static Field, buffer: &[u8], value: Raw<'_>, out: &mut Vec<u8>) {
    match (field.kind, value) {
        (Kind::Message(schema), Raw::Message(reader, _)) => write_message(schema, buffer, reader, out),
        (Kind::String, Raw::Message(_, (start, end))) => push_string(&buffer[start..end], Form::ITERATOR, out),
        (Kind::Bytes, Raw::Message(_, (start, end))) => {
            out.push(b'"');
            out.extend_from_slice(STANDARD.encode(&buffer[start..end]).as_bytes());
            out.push(b'"');
        }
        (Kind::Id(..), Raw::Message(_, (start, end))) => {
            out.push(b'"');
            push_hex(&buffer[start..end], out);
            out.push(b'"');
        }
        (Kind::Bool, Raw::Number(number)) => out.extend_from_slice(if number == 0 { b"false" } else { b"true" }),
        (Kind::Double, Raw::Number(bits)) => write_json_double(f64::from_bits(bits), Form::ITERATOR, out),
        (Kind::Int32 | Kind::Enum(_), Raw::Number(number)) => write_display(number as i32, out),
        (Kind::Uint32 | Kind::Fixed32, Raw::Number(number)) => write_display(number as u32, out),
        (Kind::Sint32, Raw::Number(number)) => {
            let number = number as u32;
            write_display((number >> 1) as i32 ^ -((number & 1) as i32), out);
        }
        (Kind::Int64 | Kind::Sfixed64, Raw::Number(number)) => write_quoted(number as i64, out),
        (Kind::Uint64 | Kind::Fixed64, Raw::Number(number)) => write_quoted(number, out),
        // The message was checked: a field has the wire type of its kind.
        _ => out.extend_from_slice(b"null"),
    }
}

fn write_display(value: impl fmt::Display, out: &mut Vec<u8>) {
    _ = write!(out, "{value}");
}

fn write_quoted(value: impl fmt::Display, out: &mut Vec<u8>) {
    _ = write!(out, "\"{value}\"");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::schema::{LOGS, METRICS, TRACES};
    use crate::walk;

    /// Each line has the first letter of its signal, a request, a tab, and the same request as the reference's library
    /// (`pdata` 1.64) writes it.
    const RECORDED: &str = include_str!("../tests/data/json.txt");

    #[test]
    fn messages_are_written_as_the_reference_writes_them() {
        for line in RECORDED.lines() {
            let (signal, request) = line.split_at(1);
            let (request, wanted) = request.split_once('\t').unwrap();
            let schema = match signal {
                "l" => &LOGS,
                "t" => &TRACES,
                _ => &METRICS,
            };
            let mut out = Vec::new();
            write(schema, &read(schema, request.as_bytes()).unwrap(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), wanted, "{request}");
        }
        assert!(RECORDED.lines().count() > 150);
    }

    #[test]
    fn half_a_pair_costs_a_character_and_no_request() {
        let text = |json: &str| {
            let json = format!(r#"{{"resourceLogs":[{{"schemaUrl":"{json}"}}]}}"#);
            let message = read(&LOGS, json.as_bytes()).unwrap();
            String::from_utf8(message[4..].to_vec()).unwrap()
        };
        assert_eq!(text(r"a\ud83dz"), "a\u{fffd}z");
        assert_eq!(text(r"a\ude80\ud83d"), "a\u{fffd}\u{fffd}");
        assert_eq!(text(r"\ud83d\ude80 \\ud83d \ud83d"), "\u{1f680} \\ud83d \u{fffd}");
        assert!(read(&LOGS, br#"{"resourceLogs":"\ud83d""#).is_err());
        assert!(read(&LOGS, br#"{"resourceLogs":[{"schemaUrl":"\ud8"}]}"#).is_err());
    }

    fn again(schema: &'static Message, json: &str) -> String {
        let message = read(schema, json.as_bytes()).unwrap_or_else(|error| panic!("{json}: {error}"));
        walk::check(schema, &message).unwrap();
        let mut out = Vec::new();
        write(schema, &message, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_read_is_written_as_the_specification_says() {
        for (schema, read, written) in [
            (&LOGS, "{}", "{}"),
            (&LOGS, r#"{"resourceLogs":null,"later":[{"a":1}]}"#, "{}"),
            (
                &LOGS,
                r#"{"resource_logs":[{"scope_logs":[{"log_records":[{"time_unix_nano":1,"severityNumber":"SEVERITY_NUMBER_WARN","body":{"intValue":"-5"},"traceId":"0102030405060708090A0B0C0D0E0F10","spanId":"","flags":1,"attributes":[{"key":"a","value":{"bytesValue":"AAE="}},{"key":"b","value":{"doubleValue":"-Infinity"}},{"key":"c"}]}]}]}]}"#,
                r#"{"resourceLogs":[{"resource":{},"scopeLogs":[{"scope":{},"logRecords":[{"timeUnixNano":"1","severityNumber":13,"body":{"intValue":"-5"},"attributes":[{"key":"a","value":{"bytesValue":"AAE="}},{"key":"b","value":{"doubleValue":"-Infinity"}},{"key":"c","value":{}}],"flags":1,"traceId":"0102030405060708090a0b0c0d0e0f10"}]}]}]}"#,
            ),
            (
                &TRACES,
                r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"a","kind":2,"startTimeUnixNano":"0","flags":256,"links":[{}],"status":null}]}]}]}"#,
                r#"{"resourceSpans":[{"resource":{},"scopeSpans":[{"scope":{},"spans":[{"flags":256,"name":"a","kind":2,"links":[{}],"status":{}}]}]}]}"#,
            ),
            (
                &METRICS,
                r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"m","histogram":{"aggregationTemporality":2,"dataPoints":[{"count":"3","sum":0,"bucketCounts":["1",2],"explicitBounds":[0.5]}]}}]}]}]}"#,
                r#"{"resourceMetrics":[{"resource":{},"scopeMetrics":[{"scope":{},"metrics":[{"name":"m","histogram":{"dataPoints":[{"count":"3","sum":0,"bucketCounts":["1","2"],"explicitBounds":[0.5]}],"aggregationTemporality":2}}]}]}]}"#,
            ),
            (
                &METRICS,
                r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"gauge":{"dataPoints":[{"asInt":"0"},{"asDouble":-0.5}]}},{"exponentialHistogram":{"dataPoints":[{"scale":-3,"positive":{"offset":-1,"bucketCounts":[1,300]}}]}}]}]}]}"#,
                r#"{"resourceMetrics":[{"resource":{},"scopeMetrics":[{"scope":{},"metrics":[{"gauge":{"dataPoints":[{"asInt":"0"},{"asDouble":-0.5}]}},{"exponentialHistogram":{"dataPoints":[{"scale":-3,"positive":{"offset":-1,"bucketCounts":["1","300"]},"negative":{}}]}}]}]}]}"#,
            ),
        ] {
            assert_eq!(again(schema, read), written);
            assert_eq!(again(schema, written), written);
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_place() {
        for (json, want) in [
            ("[]", "invalid type: sequence, expected an object with the fields of TracesData at line 1 column 2"),
            ("{} x", "trailing characters at line 1 column 4"),
            (r#"{"resourceSpans":{}}"#, "invalid type: map, expected a list in resourceSpans at line 1 column 19"),
            (
                r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"ff"}]}]}]}"#,
                "a trace id has 1 bytes at line 1 column 58",
            ),
            (
                r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"x"}]}]}]}"#,
                "traceId is not hexadecimal at line 1 column 57",
            ),
            (
                r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"kind":"SPAN_KIND_OTHER"}]}]}]}"#,
                "\"SPAN_KIND_OTHER\" is not known for kind at line 1 column 68",
            ),
            (
                r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"droppedLinksCount":-1}]}]}]}"#,
                "-1 is out of range for droppedLinksCount at line 1 column 66",
            ),
            (
                r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"startTimeUnixNano":1.5}]}]}]}"#,
                "invalid type: floating point `1.5`, expected a whole number in startTimeUnixNano at line 1 column 67",
            ),
        ] {
            assert_eq!(read(&TRACES, json.as_bytes()), Err(want.to_owned()), "{json}");
        }
    }

    #[test]
    fn nesting_without_end_is_refused() {
        let value =
            |depth: usize| format!("{}{{}}{}", r#"{"arrayValue":{"values":["#.repeat(depth), "]}}".repeat(depth));
        let json = format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"body":{}}}]}}]}}]}}"#, value(10_000));
        assert!(read(&LOGS, json.as_bytes()).unwrap_err().starts_with("recursion limit exceeded"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(json in r#"(\{|\}|\[|\]|:|,|"(resourceSpans|scope_spans|spans|attributes|key|value|[a-z_]{0,9})"|[0-9.-]{1,5}|null|true){0,40}"#) {
            for schema in [&LOGS, &METRICS, &TRACES] {
                let _ = read(schema, json.as_bytes());
            }
        }

        #[test]
        fn no_message_makes_it_panic(message: Vec<u8>) {
            for schema in [&LOGS, &METRICS, &TRACES] {
                write(schema, &message, &mut Vec::new());
            }
        }
    }
}
