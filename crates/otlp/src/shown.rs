//! How spans, data points and log records look: as OTLP's JSON, with the resource and scope that they stand in.
//!
//! A part of a batch that is a message is read item by item and stays a message; one that was decoded is looked at as it is.
//! Neither is made of the other. All that a look costs but for that is to pass over the lengths of what stands beside.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::LazyLock;

use corten_golang::hex;
use corten_golang::time::{Layout, Time};
use corten_signal::tap::{Fields, Item, Look, push_quoted};

use crate::arena::{Arena, Map, Text, Value, lossy};
use crate::batch::Batch;
use crate::data::{Data, OfResource, OfScope, Range, Record, Source, encode_record, id_bytes};
use crate::json;
use crate::logs::LogRecord;
use crate::metrics::{Exemplar, Metric, NO_RECORDED_VALUE, Number, Points};
use crate::proto::Malformed;
use crate::schema::{Kind, Message, SEVERITIES, SPAN_KINDS, STATUS_CODES};
use crate::traces::Span;

/// Offers the items of a batch, one after the other, until no more are wanted.
pub(crate) fn show<R: Shown>(batch: &Batch<R>, look: &mut Look<'_>) {
    let mut goes_on = true;
    for part in batch.parts() {
        if let Some(data) = part.data_if_there() {
            goes_on = show_data(data, look);
        } else if let Some(message) = part.message_if_there() {
            // The message was looked at when it was received, so that it can be read.
            let _ = Data::<R>::each(message, &mut |source, of, scope, range| {
                goes_on =
                    R::each_item(source, range, &mut |arena, record| look(&Seen { arena, of, scope, record, at: 0 }))?;
                Ok(goes_on)
            });
        }
        if !goes_on {
            return;
        }
    }
}

fn show_data<R: Shown>(data: &Data<R>, look: &mut Look<'_>) -> bool {
    let mut records = data.scopes().flat_map(|(of, scope)| scope.records.iter().map(move |record| (of, scope, record)));
    records.all(|(of, scope, record)| {
        (0..record.items()).all(|at| look(&Seen { arena: &data.arena, of, scope, record, at }))
    })
}

/// Records of which it is known how they look.
pub(crate) trait Shown: Record {
    /// What an item is called.
    const NAME: &'static str;

    /// Reads the items of a record, until one is not wanted any more. Whether more are.
    fn each_item(
        source: &mut Source<'_>,
        range: Range,
        take: &mut dyn FnMut(&Arena, &Self) -> bool,
    ) -> Result<bool, Malformed> {
        let record = Self::read(source, range)?;
        Ok(take(source.arena, &record))
    }

    /// The record without its items but one.
    fn alone(&self, _at: usize) -> Cow<'_, Self> {
        Cow::Borrowed(self)
    }

    /// The attributes of an item.
    fn attributes(&self, at: usize) -> Map;

    /// A part of an item that is no attribute.
    fn part(&self, at: usize, arena: &Arena, name: &str) -> Option<String>;

    /// Offers the texts of an item that are not in its attributes, until one is accepted. Whether one was.
    fn any_text(&self, at: usize, arena: &Arena, accept: &mut Accept<'_>) -> bool;

    /// Writes the item on one line, without what it stands in.
    fn write_line(&self, at: usize, arena: &Arena, out: &mut String);
}

type Accept<'a> = dyn FnMut(&[u8]) -> bool + 'a;

/// An item of a record, while it is looked at.
struct Seen<'b, R> {
    arena: &'b Arena,
    of: &'b OfResource<R>,
    scope: &'b OfScope<R>,
    record: &'b R,
    at: usize,
}

/// The schema of a field that is a message.
fn inner(message: &'static Message, number: u32) -> &'static Message {
    match message.field(number).map(|field| field.kind) {
        Some(Kind::Message(inner)) => inner,
        _ => message,
    }
}

impl<R: Shown> Item for Seen<'_, R> {
    fn any_text(&self, accept: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        let (arena, scope) = (self.arena, &self.scope.scope);
        self.record.any_text(self.at, arena, accept)
            || any_of_map(arena, self.record.attributes(self.at), accept)
            || any_of_map(arena, self.of.resource.attributes, accept)
            || any_of_map(arena, scope.attributes, accept)
            || any_of(arena, &[scope.name, scope.version, self.scope.schema_url, self.of.schema_url], accept)
    }

    fn field(&self, name: &str) -> Option<String> {
        let maps =
            [self.record.attributes(self.at), self.scope.scope.attributes, self.of.resource.attributes].into_iter();
        let mut found = maps.filter_map(|map| self.arena.get(map, name.as_bytes()));
        found.next().map(|value| self.arena.to_text(value)).or_else(|| self.record.part(self.at, self.arena, name))
    }

    fn text(&self) -> String {
        let mut out = String::new();
        self.record.write_line(self.at, self.arena, &mut out);
        if !self.of.resource.attributes.is_empty() {
            out.push_str(" {");
            write_attributes(self.arena, self.of.resource.attributes, "", ", ", &mut out);
            out.push('}');
        }
        out
    }

    fn fields(&self, out: &mut Fields<'_>) {
        let of_resource = inner(R::SCHEMA.0, 1);
        let of_scope = inner(of_resource, 2);
        let mut json = Vec::new();
        let mut part = |out: &mut Fields<'_>, name: &str, schema: &'static Message, message: Vec<u8>| {
            json.clear();
            json::write(schema, &message, &mut json);
            out.json(name, &lossy(&json));
        };
        let url = |out: &mut Fields<'_>, name: &str, url: Text| {
            if !url.is_empty() {
                out.text(name, &self.arena.text(url));
            }
        };
        out.members(|out| {
            part(out, "resource", inner(of_resource, 1), self.of.resource.encode(self.arena));
            url(out, "resourceSchemaUrl", self.of.schema_url);
            part(out, "scope", inner(of_scope, 1), self.scope.scope.encode(self.arena));
            url(out, "schemaUrl", self.scope.schema_url);
            part(out, R::NAME, inner(of_scope, 2), encode_record(&*self.record.alone(self.at), self.arena));
        });
    }
}

fn any_of(arena: &Arena, texts: &[Text], accept: &mut Accept<'_>) -> bool {
    texts.iter().any(|text| !text.is_empty() && accept(arena.bytes(*text)))
}

fn any_of_map(arena: &Arena, map: Map, accept: &mut Accept<'_>) -> bool {
    let mut pairs = arena.pairs(map).iter();
    pairs.any(|pair| accept(arena.bytes(pair.key)) || any_of_value(arena, pair.value, accept))
}

fn any_of_value(arena: &Arena, value: Value, accept: &mut Accept<'_>) -> bool {
    match value {
        Value::Empty => false,
        Value::Str(text) => accept(arena.bytes(text)),
        Value::List(list) => arena.values(list).iter().any(|value| any_of_value(arena, *value, accept)),
        Value::Map(map) => any_of_map(arena, map, accept),
        other => accept(arena.to_text(other).as_bytes()),
    }
}

fn any_id(id: &[u8], accept: &mut Accept<'_>) -> bool {
    let id = id_bytes(id);
    !id.is_empty() && accept(hex(id).as_bytes())
}

/// An id, in hexadecimal digits; empty if there is none.
fn id(id: &[u8]) -> String {
    hex(id_bytes(id))
}

/// Writes attributes, with something before each and between two.
fn write_attributes(arena: &Arena, map: Map, before: &str, between: &str, out: &mut String) {
    for (at, pair) in arena.pairs(map).iter().enumerate() {
        if at > 0 {
            out.push_str(between);
        }
        out.push_str(before);
        out.push_str(&one_line(&arena.text(pair.key)));
        out.push('=');
        match pair.value {
            Value::Str(text) => push_quoted(out, &arena.text(text)),
            value => out.push_str(&arena.to_text(value)),
        }
    }
}

/// A text without ends of lines and other characters that nobody sees.
fn one_line(text: &str) -> Cow<'_, str> {
    // Most texts are plain; those with other letters are looked at by character.
    if text.bytes().all(|byte| (b' '..0x7f).contains(&byte)) || !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for char in text.chars() {
        if char.is_control() { out.extend(char.escape_default()) } else { out.push(char) }
    }
    Cow::Owned(out)
}

/// A time as RFC 3339 has it.
fn time(time_ns: u64) -> String {
    static LAYOUT: LazyLock<Layout> = LazyLock::new(|| Layout::new("2006-01-02T15:04:05.999999999Z07:00"));
    let (seconds, rest) = (time_ns / 1_000_000_000, time_ns % 1_000_000_000);
    LAYOUT.format(&Time::utc(seconds as i64, rest as u32))
}

/// The name of a number, without what all names of it begin with.
fn name_of(names: &'static [(&'static str, i32)], prefix: &str, number: i32) -> Cow<'static, str> {
    let found = names.iter().find(|(_, known)| *known == number);
    found.map_or_else(|| number.to_string().into(), |(name, _)| name.strip_prefix(prefix).unwrap_or(name).into())
}

impl Shown for LogRecord {
    const NAME: &'static str = "logRecord";

    fn attributes(&self, _: usize) -> Map {
        self.attributes
    }

    fn part(&self, _: usize, arena: &Arena, name: &str) -> Option<String> {
        Some(match name {
            "body" => arena.to_text(self.body),
            "severity" => self.severity(arena).into_owned(),
            "trace_id" => id(&self.trace_id),
            "span_id" => id(&self.span_id),
            "name" => arena.text(self.event_name).into_owned(),
            _ => return None,
        })
    }

    fn any_text(&self, _: usize, arena: &Arena, accept: &mut Accept<'_>) -> bool {
        any_of_value(arena, self.body, accept)
            || accept(self.severity(arena).as_bytes())
            || any_of(arena, &[self.event_name], accept)
            || any_id(&self.trace_id, accept)
            || any_id(&self.span_id, accept)
    }

    fn write_line(&self, _: usize, arena: &Arena, out: &mut String) {
        let at = if self.time_ns == 0 { self.observed_time_ns } else { self.time_ns };
        let _ = write!(out, "{} {}", time(at), one_line(&self.severity(arena)));
        for text in [arena.text(self.event_name), arena.to_text(self.body).into()] {
            if !text.is_empty() {
                let _ = write!(out, " {}", one_line(&text));
            }
        }
        write_attributes(arena, self.attributes, " ", "", out);
    }
}

impl LogRecord {
    /// How severe it is, as its source says it or else as OpenTelemetry does.
    fn severity<'a>(&self, arena: &'a Arena) -> Cow<'a, str> {
        if self.severity_text.is_empty() {
            name_of(SEVERITIES, "SEVERITY_NUMBER_", self.severity)
        } else {
            arena.text(self.severity_text)
        }
    }
}

impl Span {
    fn shown_kind(&self) -> String {
        name_of(SPAN_KINDS, "SPAN_KIND_", self.kind).to_lowercase()
    }

    fn shown_status(&self) -> String {
        name_of(STATUS_CODES, "STATUS_CODE_", self.status.code).to_lowercase()
    }
}

impl Shown for Span {
    const NAME: &'static str = "span";

    fn attributes(&self, _: usize) -> Map {
        self.attributes
    }

    fn part(&self, _: usize, arena: &Arena, name: &str) -> Option<String> {
        Some(match name {
            "name" => arena.text(self.name).into_owned(),
            "kind" => self.shown_kind(),
            "status" => self.shown_status(),
            "trace_id" => id(&self.trace_id),
            "span_id" => id(&self.span_id),
            "parent_span_id" => id(&self.parent_span_id),
            _ => return None,
        })
    }

    fn any_text(&self, _: usize, arena: &Arena, accept: &mut Accept<'_>) -> bool {
        any_of(arena, &[self.name, self.status.message, self.trace_state], accept)
            || accept(self.shown_kind().as_bytes())
            || accept(self.shown_status().as_bytes())
            || any_id(&self.trace_id, accept)
            || any_id(&self.span_id, accept)
            || any_id(&self.parent_span_id, accept)
            || self
                .events
                .iter()
                .any(|event| any_of(arena, &[event.name], accept) || any_of_map(arena, event.attributes, accept))
            || self.links.iter().any(|link| {
                any_id(&link.trace_id, accept)
                    || any_id(&link.span_id, accept)
                    || any_of(arena, &[link.trace_state], accept)
                    || any_of_map(arena, link.attributes, accept)
            })
    }

    fn write_line(&self, _: usize, arena: &Arena, out: &mut String) {
        let _ = write!(out, "{}/{} {}", id(&self.trace_id), id(&self.span_id), one_line(&arena.text(self.name)));
        let took = self.end_time_ns.checked_sub(self.start_time_ns).map(|took| i64::try_from(took).unwrap_or(i64::MAX));
        let took = took.map_or_else(|| "ends before it begins".to_owned(), corten_config::duration::format);
        let _ = write!(out, " {} {took} {}", self.shown_kind(), self.shown_status());
        if !self.status.message.is_empty() {
            let _ = write!(out, ": {}", one_line(&arena.text(self.status.message)));
        }
        write_attributes(arena, self.attributes, " ", "", out);
    }
}

/// What the points of a metric have in common.
struct Common<'m> {
    attributes: Map,
    time_ns: u64,
    flags: u32,
    exemplars: &'m [Exemplar],
    value: PointValue,
}

enum PointValue {
    Number(Number),
    Sum(u64, Option<f64>),
}

impl Metric {
    fn common(&self, at: usize) -> Option<Common<'_>> {
        Some(match &self.points {
            Points::None => return None,
            Points::Gauge(points) | Points::Sum { points, .. } => {
                let point = points.get(at)?;
                let value = PointValue::Number(point.value);
                let (attributes, time_ns, flags) = (point.attributes, point.time_ns, point.flags);
                Common { attributes, time_ns, flags, exemplars: &point.exemplars, value }
            }
            Points::Histogram { points, .. } => {
                let point = points.get(at)?;
                let value = PointValue::Sum(point.count, point.sum);
                let (attributes, time_ns, flags) = (point.attributes, point.time_ns, point.flags);
                Common { attributes, time_ns, flags, exemplars: &point.exemplars, value }
            }
            Points::Exponential { points, .. } => {
                let point = points.get(at)?;
                let value = PointValue::Sum(point.count, point.sum);
                let (attributes, time_ns, flags) = (point.attributes, point.time_ns, point.flags);
                Common { attributes, time_ns, flags, exemplars: &point.exemplars, value }
            }
            Points::Summary(points) => {
                let point = points.get(at)?;
                let value = PointValue::Sum(point.count, Some(point.sum));
                let (attributes, time_ns, flags) = (point.attributes, point.time_ns, point.flags);
                Common { attributes, time_ns, flags, exemplars: &[], value }
            }
        })
    }

    fn shown_kind(&self) -> &'static str {
        match &self.points {
            Points::None => "none",
            Points::Gauge(_) => "gauge",
            Points::Sum { .. } => "sum",
            Points::Histogram { .. } => "histogram",
            Points::Exponential { .. } => "exponential histogram",
            Points::Summary(_) => "summary",
        }
    }
}

impl Common<'_> {
    fn shown_value(&self, arena: &Arena) -> String {
        let double = |value| arena.to_text(Value::Double(value));
        match self.value {
            _ if self.flags & NO_RECORDED_VALUE != 0 => "no value".to_owned(),
            PointValue::Number(Number::None) => "no value".to_owned(),
            PointValue::Number(Number::Int(value)) => value.to_string(),
            PointValue::Number(Number::Double(value)) => double(value),
            PointValue::Sum(count, None) => format!("count={count}"),
            PointValue::Sum(count, Some(sum)) => format!("count={count} sum={}", double(sum)),
        }
    }
}

impl Shown for Metric {
    const NAME: &'static str = "metric";

    fn each_item(
        source: &mut Source<'_>,
        range: Range,
        take: &mut dyn FnMut(&Arena, &Self) -> bool,
    ) -> Result<bool, Malformed> {
        Metric::each_point(source, range, take)
    }

    fn alone(&self, at: usize) -> Cow<'_, Self> {
        if self.points.len() == 1 { Cow::Borrowed(self) } else { Cow::Owned(self.with_point(at)) }
    }

    fn attributes(&self, at: usize) -> Map {
        self.common(at).map(|point| point.attributes).unwrap_or_default()
    }

    fn part(&self, at: usize, arena: &Arena, name: &str) -> Option<String> {
        Some(match name {
            "name" => arena.text(self.name).into_owned(),
            "unit" => arena.text(self.unit).into_owned(),
            "kind" => self.shown_kind().to_owned(),
            "value" => self.common(at)?.shown_value(arena),
            _ => return None,
        })
    }

    fn any_text(&self, at: usize, arena: &Arena, accept: &mut Accept<'_>) -> bool {
        let Some(point) = self.common(at) else { return false };
        any_of(arena, &[self.name, self.description, self.unit], accept)
            || accept(self.shown_kind().as_bytes())
            || accept(point.shown_value(arena).as_bytes())
            || any_of_map(arena, self.metadata, accept)
            || point.exemplars.iter().any(|exemplar| {
                any_id(&exemplar.trace_id, accept)
                    || any_id(&exemplar.span_id, accept)
                    || any_of_map(arena, exemplar.filtered_attributes, accept)
            })
    }

    fn write_line(&self, at: usize, arena: &Arena, out: &mut String) {
        let Some(point) = self.common(at) else { return };
        out.push_str(&one_line(&arena.text(self.name)));
        out.push('{');
        write_attributes(arena, point.attributes, "", ", ", out);
        let _ = write!(out, "}} {}", point.shown_value(arena));
        if !self.unit.is_empty() {
            let _ = write!(out, " {}", one_line(&arena.text(self.unit)));
        }
        let _ = write!(out, " @{}", time(point.time_ns));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use corten_signal::tap::Redact;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::batch::Part;
    use crate::batch::tests::{data, metric, record, span};

    /// The structure of an item.
    fn structure(item: &dyn Item) -> serde_json::Value {
        let nothing: Redact = Arc::new(|_: &mut String| 0);
        serde_json::from_str(&Fields::of(item, &nothing, usize::MAX, usize::MAX)).unwrap()
    }

    type Looks = Vec<(String, serde_json::Value, Vec<Vec<u8>>)>;

    fn looks<R: Shown>(batch: &Batch<R>, enough: usize) -> Looks {
        let mut seen = Looks::new();
        show(batch, &mut |item: &dyn Item| {
            let mut texts = Vec::new();
            assert!(!item.any_text(&mut |text| {
                texts.push(text.to_owned());
                false
            }));
            seen.push((item.text(), structure(item), texts));
            seen.len() < enough
        });
        seen
    }

    fn received<R: Shown>(json: &str) -> Batch<R> {
        Batch::received_json(json.as_bytes(), Arc::default()).unwrap()
    }

    const LOG: &str = r#"{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]},
        "scopeLogs":[{"scope":{"name":"lib","attributes":[{"key":"a","value":{"stringValue":"of the scope"}}]},
        "logRecords":[{"timeUnixNano":"1700000000000000001","severityNumber":17,"body":{"stringValue":"it\nfailed"},
        "attributes":[{"key":"a","value":{"intValue":"5"}}],"traceId":"0102030405060708090a0b0c0d0e0f10"}],"schemaUrl":"u"}]}]}"#;

    #[test]
    fn a_record_is_shown_with_its_resource_and_scope() {
        let batch = received::<LogRecord>(LOG);
        let mut seen = 0;
        show(&batch, &mut |item: &dyn Item| {
            seen += 1;
            let line = r#"2023-11-14T22:13:20.000000001Z ERROR it\nfailed a=5 {service.name="shop"}"#;
            assert_eq!(item.text(), line);
            let attribute = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
            assert_eq!(
                structure(item),
                json!({
                    "resource": {"attributes": [attribute("service.name", "shop")]},
                    "scope": {"name": "lib", "attributes": [attribute("a", "of the scope")]},
                    "schemaUrl": "u",
                    "logRecord": {
                        "timeUnixNano": "1700000000000000001",
                        "severityNumber": 17,
                        "body": {"stringValue": "it\nfailed"},
                        "attributes": [{"key": "a", "value": {"intValue": "5"}}],
                        "traceId": "0102030405060708090a0b0c0d0e0f10",
                    },
                })
            );
            for (name, value) in [
                ("a", Some("5")),
                ("service.name", Some("shop")),
                ("severity", Some("ERROR")),
                ("body", Some("it\nfailed")),
                ("trace_id", Some("0102030405060708090a0b0c0d0e0f10")),
                ("span_id", Some("")),
                ("value", None),
            ] {
                assert_eq!(item.field(name).as_deref(), value, "{name}");
            }
            for wanted in ["service.name", "shop", "of the scope", "5", "ERROR", "0102030405060708090a0b0c0d0e0f10"] {
                assert!(item.any_text(&mut |text| text == wanted.as_bytes()), "{wanted}");
            }
            assert!(!item.any_text(&mut |text| text.windows(9).any(|at| at == b"logRecord")));
            true
        });
        assert_eq!(seen, 1);
    }

    #[test]
    fn a_span_is_shown_on_one_line() {
        let json = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"0102030405060708090a0b0c0d0e0f10",
            "spanId":"0102030405060708","name":"GET /","kind":2,"startTimeUnixNano":"1000","endTimeUnixNano":"1501000",
            "attributes":[{"key":"http.route","value":{"stringValue":"/"}}],"status":{"code":2,"message":"broken"}}]}]}]}"#;
        let batch = received::<Span>(json);
        show(&batch, &mut |item: &dyn Item| {
            assert_eq!(
                item.text(),
                r#"0102030405060708090a0b0c0d0e0f10/0102030405060708 GET / server 1.5ms error: broken http.route="/""#
            );
            assert_eq!(structure(item)["span"]["name"], "GET /");
            for (name, value) in [("kind", "server"), ("status", "error"), ("name", "GET /"), ("http.route", "/")] {
                assert_eq!(item.field(name).as_deref(), Some(value));
            }
            true
        });
    }

    #[test]
    fn points_are_shown_one_by_one() {
        let json = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[
            {"name":"requests","unit":"1","sum":{"dataPoints":[
                {"attributes":[{"key":"method","value":{"stringValue":"GET"}}],"timeUnixNano":"1500000000","asInt":"5"},
                {"timeUnixNano":"2000000000","asDouble":0.5}],"aggregationTemporality":2,"isMonotonic":true}},
            {"name":"empty","gauge":{}},
            {"name":"took","histogram":{"dataPoints":[{"timeUnixNano":"0","count":"3","sum":1.5,"bucketCounts":["3"]}]}},
            {"name":"gone","gauge":{"dataPoints":[{"flags":1}]}}]}]}]}"#;
        let mut batch = received::<Metric>(json);
        let all = looks(&batch, 9);
        let lines: Vec<&str> = all.iter().map(|(line, ..)| line.as_str()).collect();
        assert_eq!(
            lines,
            [
                r#"requests{method="GET"} 5 1 @1970-01-01T00:00:01.5Z"#,
                "requests{} 0.5 1 @1970-01-01T00:00:02Z",
                "took{} count=3 sum=1.5 @1970-01-01T00:00:00Z",
                "gone{} no value @1970-01-01T00:00:00Z",
            ]
        );
        let second = &all[1].1["metric"]["sum"];
        assert_eq!(second["dataPoints"], json!([{"timeUnixNano": "2000000000", "asDouble": 0.5}]));
        assert_eq!((&second["aggregationTemporality"], &second["isMonotonic"]), (&json!(2), &json!(true)));
        assert_eq!(looks(&batch, 2).len(), 2);
        let data = batch.take_data();
        assert_eq!(looks(&batch.with(data), 9), all);
    }

    #[test]
    fn what_stands_behind_the_items_that_are_wanted_is_not_read() {
        let mut message = data(record, &[vec![3]]).encode();
        message.extend(data(record, &[vec![2]]).encode());
        // No field has this number.
        message.push(0);
        let mut batch = Batch::<LogRecord>::empty(Arc::default());
        batch.push(Part::of_message(message.into(), 5));
        batch.push(Part::of_message(Bytes::from_static(b"\xff"), 1));
        assert_eq!([1, 4, 9].map(|enough| looks(&batch, enough).len()), [1, 4, 5]);
    }

    #[test]
    fn what_is_nested_too_deeply_for_json_is_shown_as_text() {
        let mut value = Value::Bool(true);
        let mut data = data(record, &[vec![1]]);
        for _ in 0..200 {
            value = Value::List(data.arena.list(&[value]));
        }
        data.resources[0].scopes[0].records[0].body = value;
        let looks = looks(&Batch::of(data, Arc::default()), 1);
        assert!(looks[0].1["logRecord"].as_str().is_some_and(|text| text.contains("arrayValue")));
    }

    /// Looks at both forms of a batch, and says that neither was made of the other.
    fn both_ways<R: Shown>(made: Data<R>, enough: usize) -> Result<(), TestCaseError> {
        let message = Bytes::from(made.encode());
        let mut bytes = Batch::<R>::received(message.clone(), Arc::default()).unwrap();
        bytes.join(Batch::received(message, Arc::default()).unwrap());
        let mut decoded = Batch::of(made.clone(), Arc::default());
        decoded.join(Batch::of(made, Arc::default()));
        let of_bytes = looks(&bytes, enough);
        prop_assert_eq!(of_bytes.len(), enough.min(bytes.items()).max(usize::from(bytes.items() > 0)));
        prop_assert_eq!(&of_bytes, &looks(&decoded, enough));
        prop_assert!(bytes.parts().iter().all(|part| part.data_if_there().is_none()));
        prop_assert!(decoded.parts().iter().all(|part| part.message_if_there().is_none()));
        // Decoded from what was received it looks the same again.
        bytes.data().for_each(drop);
        prop_assert_eq!(&of_bytes, &looks(&bytes, enough));
        Ok(())
    }

    /// A hostile message: one that is right, with some bytes changed.
    fn changed(mut message: Vec<u8>, changes: &[(usize, u8)]) -> Bytes {
        for (at, byte) in changes {
            let at = at % message.len().max(1);
            if let Some(old) = message.get_mut(at) {
                *old = *byte;
            }
        }
        message.into()
    }

    fn survives<R: Shown>(message: Bytes) -> Result<(), TestCaseError> {
        // Whatever a message is, one that was not looked at when it was received included.
        let mut unchecked = Batch::<R>::empty(Arc::default());
        unchecked.push(Part::of_message(message.clone(), 1));
        looks(&unchecked, 5);
        if let Ok(batch) = Batch::<R>::received(message, Arc::default()) {
            let of_bytes = looks(&batch, usize::MAX);
            batch.data().for_each(drop);
            prop_assert_eq!(of_bytes, looks(&batch, usize::MAX));
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn bytes_and_what_they_say_look_the_same(
            sizes in proptest::collection::vec(proptest::collection::vec(0usize..4, 0..4), 0..4), enough in 1usize..30,
        ) {
            both_ways(data(span, &sizes), enough)?;
            both_ways(data(record, &sizes), enough)?;
            both_ways(data(metric, &sizes), enough)?;
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            survives::<Span>(bytes.clone().into())?;
            survives::<LogRecord>(bytes.clone().into())?;
            survives::<Metric>(bytes.into())?;
        }

        #[test]
        fn changed_messages_look_the_same_either_way(
            changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..5),
        ) {
            let sizes = [vec![2, 1], vec![3]];
            survives::<Span>(changed(data(span, &sizes).encode(), &changes))?;
            survives::<LogRecord>(changed(data(record, &sizes).encode(), &changes))?;
            survives::<Metric>(changed(data(metric, &sizes).encode(), &changes))?;
        }
    }
}
