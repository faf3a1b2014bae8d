//! Spans of Zipkin's version 1 as traces, as the reference translates them.

use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

use corten_otlp::traces::{Event, Status};
use corten_otlp::{Arena, Data, Map, OfResource, OfScope, Span, Value};
use corten_wire::zipkin::{Annotation, BinaryAnnotation, EndpointV1, SpanV1, ValueV1};
use indexmap::IndexMap;

use super::{Parsed, START_TIME_ABSENT, parsed};

const UNKNOWN_SERVICE: &str = "unknown-service";

/// The time now, in nanoseconds since the Unix epoch.
pub(super) fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}

/// Translates spans. Those of one endpoint stand together. `now_ns` is when spans began and ended that do not say it; without
/// it they say nothing.
pub(super) fn translate(spans: Vec<SpanV1<'_>>, parse_string_tags: bool, now_ns: Option<u64>) -> Data<Span> {
    let mut arena = Arena::default();
    let mut groups: IndexMap<EndpointV1<'_>, Vec<Span>> = IndexMap::new();
    for span in spans {
        let (made, endpoint) = translate_span(&mut arena, span, parse_string_tags, now_ns);
        groups.entry(endpoint).or_default().push(made);
    }
    let mut data = Data { arena, resources: Vec::with_capacity(groups.len()) };
    for (endpoint, records) in groups {
        let mut of = OfResource::default();
        let attributes = &mut of.resource.attributes;
        let port = if endpoint.port == 0 { String::new() } else { endpoint.port.to_string() };
        put(&mut data.arena, attributes, "service.name", &endpoint.service_name);
        for (key, value) in [("ipv4", &*endpoint.ipv4), ("ipv6", &endpoint.ipv6), ("port", &port)] {
            if !value.is_empty() {
                put(&mut data.arena, attributes, key, value);
            }
        }
        of.scopes.push(OfScope { records, ..OfScope::default() });
        data.resources.push(of);
    }
    data
}

fn put(arena: &mut Arena, map: &mut Map, key: &str, value: &str) {
    let value = arena.own_str(value);
    arena.put(map, key.as_bytes(), value);
}

/// Microseconds as nanoseconds; what is before the epoch is no time.
fn of_micros(micros: i64) -> u64 {
    u64::try_from(micros).unwrap_or(0).saturating_mul(1000)
}

fn translate_span<'a>(
    arena: &mut Arena,
    span: SpanV1<'a>,
    parse_string_tags: bool,
    now_ns: Option<u64>,
) -> (Span, EndpointV1<'a>) {
    let mut made =
        Span { trace_id: span.trace_id, span_id: span.id, parent_span_id: span.parent_id, ..Span::default() };
    let mut endpoint = annotations(arena, &mut made, span.annotations);
    let service = binary_annotations(arena, &mut made, span.binary_annotations, parse_string_tags, now_ns.is_some());
    if endpoint.service_name == UNKNOWN_SERVICE && !service.is_empty() {
        endpoint.service_name = service;
    }
    if let Some(start) = span.timestamp_us {
        made.start_time_ns = of_micros(start);
        made.end_time_ns = of_micros(start.wrapping_add(span.duration_us));
    }
    made.name = arena.own(span.name.as_bytes());
    if let Some(now) = now_ns
        && made.start_time_ns == 0
    {
        (made.start_time_ns, made.end_time_ns) = (now, now);
        arena.put(&mut made.attributes, START_TIME_ABSENT.as_bytes(), Value::Bool(true));
    }
    (made, endpoint)
}

/// What happened: some of it says what kind of span it is, by whom, and when. The rest are events.
fn annotations<'a>(arena: &mut Arena, span: &mut Span, annotations: Vec<Annotation<'a>>) -> EndpointV1<'a> {
    let (mut endpoint, mut early, mut late) = (None, i64::MAX, i64::MIN);
    for annotation in annotations.into_iter().filter(|annotation| !annotation.value.is_empty()) {
        let kind = match &*annotation.value {
            "cs" | "cr" => Some(3),
            "ms" => Some(4),
            "mr" => Some(5),
            "ss" | "sr" => Some(2),
            _ => None,
        };
        let named =
            |endpoint: &EndpointV1<'_>| !endpoint.service_name.is_empty() && endpoint.service_name != UNKNOWN_SERVICE;
        if kind.is_some() && endpoint.is_none() {
            endpoint = annotation.endpoint.filter(named);
        }
        if let Some(kind) = kind
            && span.kind == 0
        {
            span.kind = kind;
        }
        let time_ns = of_micros(annotation.timestamp_us);
        if annotation.timestamp_us < early {
            early = annotation.timestamp_us;
            span.start_time_ns = time_ns;
        }
        if annotation.timestamp_us > late {
            late = annotation.timestamp_us;
            span.end_time_ns = time_ns;
        }
        if kind.is_none() {
            let name = arena.own(annotation.value.as_bytes());
            span.events.push(Event { time_ns, name, ..Event::default() });
        }
    }
    endpoint.unwrap_or_else(|| EndpointV1 { service_name: UNKNOWN_SERVICE.into(), ..EndpointV1::default() })
}

/// What is known: attributes, and the status. It says which service it was, if no annotation does.
fn binary_annotations<'a>(
    arena: &mut Arena,
    span: &mut Span,
    annotations: Vec<BinaryAnnotation<'a>>,
    parse_string_tags: bool,
    is_json: bool,
) -> Cow<'a, str> {
    let (mut service, mut component) = (Cow::Borrowed(""), Cow::Borrowed(""));
    let mut status = StatusMapper::default();
    let mut attributes: IndexMap<Cow<'_, str>, ValueV1<'_>> = IndexMap::with_capacity(annotations.len());
    for BinaryAnnotation { mut key, mut value, endpoint } in annotations {
        if let Some(endpoint) = endpoint.filter(|endpoint| !is_json || !endpoint.service_name.is_empty()) {
            service = endpoint.service_name;
        }
        if key == "lc" {
            key = "component".into();
            component = match &value {
                ValueV1::Text(text) => text.clone(),
                _ => Cow::Borrowed(""),
            };
        }
        if let ValueV1::Text(text) = &value
            && parse_string_tags
        {
            match parsed(text) {
                Parsed::Int(int) => value = ValueV1::Int(int),
                Parsed::Double(double) => value = ValueV1::Double(double),
                Parsed::Bool(truth) => value = ValueV1::Bool(truth),
                Parsed::Text => {}
            }
        }
        if !status.takes(&key, &value) {
            attributes.insert(key, value);
        }
    }
    for (key, value) in attributes {
        let value = match value {
            ValueV1::Text(text) => arena.own_str(&text),
            ValueV1::Bool(value) => Value::Bool(value),
            ValueV1::Int(value) => Value::Int(value),
            ValueV1::Double(value) => Value::Double(value),
        };
        let key = arena.own(key.as_bytes());
        arena.push(&mut span.attributes, key, value);
    }
    if let Some((code, message)) = status.status() {
        span.status = Status { code, message: arena.own(message.as_bytes()) };
    }
    if service.is_empty() { component } else { service }
}

/// Finds the status of a span in what is known of it.
#[derive(Default)]
struct StatusMapper {
    census: Option<i32>,
    census_message: String,
    otel: Option<i32>,
    otel_message: String,
    http: Option<i32>,
    http_message: String,
    error: bool,
}

impl StatusMapper {
    /// Looks at something that is known: whether it is no attribute.
    fn takes(&mut self, key: &str, value: &ValueV1<'_>) -> bool {
        let text = || match value {
            ValueV1::Text(text) => text.to_string(),
            _ => String::new(),
        };
        match key {
            "census.status_code" => self.census = code(value).map(|code| if code == 0 { 1 } else { 2 }).or(self.census),
            "census.status_description" | "opencensus.status_description" => self.census_message = text(),
            "otel.status_code" => self.otel = code(value).or(self.otel),
            "otel.status_description" => self.otel_message = text(),
            "error" => self.error = true,
            "http.status_code" | "http.response.status_code" => {
                let of_http = |code| if (100..400).contains(&code) { 0 } else { 2 };
                self.http = code(value).map(of_http).or(self.http);
                return false;
            }
            "http.status_message" => {
                self.http_message = text();
                return false;
            }
            _ => return false,
        }
        true
    }

    fn status(self) -> Option<(i32, String)> {
        if let Some(code) = self.census {
            return Some((code, self.census_message));
        }
        if let Some(code) = self.otel {
            return Some((code, self.otel_message));
        }
        if self.error {
            let message = if self.census_message.is_empty() { self.otel_message } else { self.census_message };
            return Some((2, message));
        }
        self.http.map(|code| (code, self.http_message))
    }
}

/// A number of 32 bits.
fn code(value: &ValueV1<'_>) -> Option<i32> {
    match value {
        ValueV1::Int(value) => i32::try_from(*value).ok(),
        ValueV1::Text(text) => text.parse().ok(),
        _ => None,
    }
}
