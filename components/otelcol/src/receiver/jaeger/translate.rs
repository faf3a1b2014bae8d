//! Jaeger's spans as traces, as the reference translates them.

use std::borrow::Cow;

use corten_otlp::traces::{Event, Link};
use corten_otlp::{Arena, Data, Map, OfResource, OfScope, Span, Value};
use corten_wire::jaeger::{Batch, Process, Reference, Span as JaegerSpan, Tag, TagValue};
use indexmap::IndexMap;

/// What stands for a service that is not named.
const NO_SERVICE: &[u8] = b"OTLPResourceNoServiceName";

/// Attributes on their way to being such: of two of one key the last counts.
#[derive(Default)]
struct Attributes<'a>(IndexMap<Cow<'a, [u8]>, TagValue<'a>>);

impl<'a> Attributes<'a> {
    fn of(tags: Vec<Tag<'a>>) -> Self {
        let mut attributes = IndexMap::with_capacity(tags.len());
        for Tag { key, value } in tags {
            // As in the reference, both conventions become the older one.
            let key: &[u8] = if key == b"http.response.status_code" { b"http.status_code" } else { key };
            let value = match value {
                TagValue::Unknown(name) => TagValue::Unknown(format!("<Unknown Jaeger TagType {name:?}>")),
                value => value,
            };
            attributes.insert(Cow::Borrowed(key), value);
        }
        Attributes(attributes)
    }

    fn get(&self, key: &[u8]) -> Option<&TagValue<'a>> {
        self.0.get(key)
    }

    fn take(&mut self, key: &[u8]) -> Option<TagValue<'a>> {
        self.0.shift_remove(key)
    }

    fn into_map(self, arena: &mut Arena) -> Map {
        let mut map = Map::default();
        for (key, value) in self.0 {
            let value = match value {
                TagValue::Text(text) => Value::Str(arena.own(text)),
                TagValue::Bool(value) => Value::Bool(value),
                TagValue::Int(value) => Value::Int(value),
                TagValue::Double(value) => Value::Double(value),
                TagValue::Bytes(bytes) => Value::Bytes(arena.own(bytes)),
                TagValue::Unknown(text) => arena.own_str(&text),
            };
            let key = arena.own(&key);
            arena.push(&mut map, key, value);
        }
        map
    }
}

/// The text of a value; empty where it is none.
fn text<'a>(value: &TagValue<'a>) -> Cow<'a, [u8]> {
    match value {
        TagValue::Text(text) => Cow::Borrowed(text),
        TagValue::Unknown(text) => Cow::Owned(text.clone().into_bytes()),
        _ => Cow::Borrowed(b""),
    }
}

/// Translates what came in Thrift: one resource with one scope.
pub(super) fn of_thrift(batch: Batch<'_>) -> Data<Span> {
    let mut data = Data::<Span>::default();
    let Batch { process, spans } = batch;
    let mut of = OfResource::default();
    if let Some(process) = process {
        of.resource.attributes = resource(&mut data.arena, process);
    }
    if !spans.is_empty() {
        let spans = spans.into_iter().filter(|span| *span != JaegerSpan::default());
        let records = spans.map(|span| translate_span(&mut data.arena, span, false)).collect();
        of.scopes.push(OfScope { records, ..OfScope::default() });
    }
    data.resources.push(of);
    data
}

/// Translates what came in protocol buffers: a resource for each process, with its scopes.
pub(super) fn of_proto(batch: Batch<'_>) -> Data<Span> {
    let mut data = Data::<Span>::default();
    let Batch { process, spans } = batch;
    let mut groups: Vec<(Option<Process<'_>>, Vec<JaegerSpan<'_>>)> = vec![(process, Vec::new())];
    for mut span in spans {
        let process = span.process.take();
        // Spans of one process mostly follow each other.
        let at = match &process {
            None => Some(0),
            Some(own) if is_same(&groups[groups.len() - 1].0, own) => Some(groups.len() - 1),
            Some(own) => groups.iter().take(PROCESSES_COMPARED_MAX).position(|(known, _)| is_same(known, own)),
        };
        match at {
            Some(at) => groups[at].1.push(span),
            None => groups.push((process, vec![span])),
        }
    }
    for (process, spans) in groups {
        if process.is_none() && spans.is_empty() {
            continue;
        }
        let mut of = OfResource::default();
        if let Some(process) = process.filter(|process| process.service_name != NO_SERVICE) {
            of.resource.attributes = resource(&mut data.arena, process);
        }
        let mut scopes: IndexMap<(&[u8], &[u8]), Vec<Span>> = IndexMap::new();
        for mut span in spans.into_iter().filter(|span| *span != JaegerSpan::default()) {
            let scope = scope(&mut span.tags);
            let made = translate_span(&mut data.arena, span, true);
            scopes.entry(scope).or_default().push(made);
        }
        for ((name, version), records) in scopes {
            let mut scope = OfScope { records, ..OfScope::default() };
            scope.scope.name = data.arena.own(name);
            scope.scope.version = data.arena.own(version);
            of.scopes.push(scope);
        }
        data.resources.push(of);
    }
    data
}

/// Whether a process is a known one. Of one that is not there nothing is known, which is the same as an empty one.
fn is_same(known: &Option<Process<'_>>, process: &Process<'_>) -> bool {
    known.as_ref().map_or_else(|| *process == Process::default(), |known| known == process)
}

/// With how many processes of a batch another one is compared. Beyond that one may stand there twice.
const PROCESSES_COMPARED_MAX: usize = 64;

fn resource(arena: &mut Arena, process: Process<'_>) -> Map {
    let mut attributes = Attributes::default();
    if !process.service_name.is_empty() {
        attributes.0.insert(Cow::Borrowed(b"service.name"), TagValue::Text(process.service_name));
    }
    attributes.0.extend(Attributes::of(process.tags).0);
    if attributes.get(b"host.name").is_none()
        && let Some(name) = attributes.take(b"hostname")
    {
        attributes.0.insert(Cow::Borrowed(b"host.name"), name);
    }
    if attributes.get(b"opencensus.exporterversion").is_none()
        && let Some(version) = attributes.take(b"jaeger.version")
    {
        let version = Value::Str(arena.own(&[b"Jaeger-", &*text(&version)].concat()));
        let mut map = attributes.into_map(arena);
        arena.put(&mut map, b"opencensus.exporterversion", version);
        return map;
    }
    attributes.into_map(arena)
}

/// The scope that tags name, which is taken out of them.
fn scope<'a>(tags: &mut Vec<Tag<'a>>) -> (&'a [u8], &'a [u8]) {
    let mut take = |key: &[u8]| {
        let at = tags.iter().position(|tag| tag.key == key)?;
        match tags.remove(at).value {
            TagValue::Text(text) => Some(text),
            _ => Some(&b""[..]),
        }
    };
    match take(b"otel.scope.name") {
        Some(name) => (name, take(b"otel.scope.version").unwrap_or_default()),
        None => (b"", b""),
    }
}

/// The span within which another one took place: what it says itself, or a reference to a span of the same trace.
fn parent(span: &JaegerSpan<'_>) -> [u8; 8] {
    if span.parent_span_id != [0; 8] {
        return span.parent_span_id;
    }
    let same_trace = |reference: &&Reference| reference.trace_id == span.trace_id;
    let found = span.references.iter().filter(same_trace).find(|reference| reference.is_parent);
    found.or_else(|| span.references.iter().find(same_trace)).map_or([0; 8], |reference| reference.span_id)
}

fn translate_span(arena: &mut Arena, span: JaegerSpan<'_>, has_trace_state: bool) -> Span {
    let parent = parent(&span);
    let mut made = Span {
        trace_id: span.trace_id,
        span_id: span.span_id,
        parent_span_id: parent,
        name: arena.own(span.operation),
        start_time_ns: span.start_ns,
        end_time_ns: span.end_ns,
        flags: span.flags & 1,
        ..Span::default()
    };
    let mut attributes = Attributes::of(span.tags);
    if let Some(kind) = attributes.take(b"span.kind") {
        made.kind = match &*text(&kind) {
            b"internal" => 1,
            b"server" => 2,
            b"client" => 3,
            b"producer" => 4,
            b"consumer" => 5,
            _ => 0,
        };
    }
    if let Some((code, message)) = status(&mut attributes, made.kind) {
        made.status.code = code;
        made.status.message = arena.own(&message);
    }
    if has_trace_state && let Some(state) = attributes.take(b"w3c.tracestate") {
        made.trace_state = arena.own(&text(&state));
    }
    made.attributes = attributes.into_map(arena);
    for log in span.logs {
        let mut event = Event { time_ns: log.time_ns, ..Event::default() };
        let mut fields = Attributes::of(log.fields);
        if let Some(name) = fields.take(b"event") {
            event.name = arena.own(&text(&name));
        }
        event.attributes = fields.into_map(arena);
        made.events.push(event);
    }
    for reference in span.references {
        if reference.span_id == parent && reference.is_parent {
            continue;
        }
        let mut link = Link { trace_id: reference.trace_id, span_id: reference.span_id, ..Link::default() };
        let kind = arena.own_str(if reference.is_parent { "child_of" } else { "follows_from" });
        arena.put(&mut link.attributes, b"opentracing.ref_type", kind);
        made.links.push(link);
    }
    made
}

/// How a span ended, where tags say that. Some of them are taken out.
fn status<'a>(attributes: &mut Attributes<'a>, kind: i32) -> Option<(i32, Cow<'a, [u8]>)> {
    const HTTP_MESSAGE: &[u8] = b"http.status_message";
    let mut found = None;
    if attributes.get(b"error") == Some(&TagValue::Bool(true)) {
        attributes.take(b"error");
        let message = attributes.take(b"otel.status_description");
        let message = message.as_ref().or_else(|| attributes.get(HTTP_MESSAGE)).map(text).unwrap_or_default();
        found = Some((2, message));
    }
    if let Some(code) = attributes.take(b"otel.status_code") {
        if found.is_none() {
            let code = match &*text(&code) {
                code if code.eq_ignore_ascii_case(b"OK") => 1,
                code if code.eq_ignore_ascii_case(b"ERROR") => 2,
                _ => 0,
            };
            let message = attributes.take(b"otel.status_description");
            found = Some((code, message.as_ref().map(text).unwrap_or_default()));
        }
        return found;
    }
    if found.is_none()
        && let Some(code) = attributes.get(b"http.status_code")
    {
        let code = match code {
            TagValue::Int(code) => *code,
            TagValue::Text(text) => std::str::from_utf8(text).ok()?.parse().ok()?,
            _ => return None,
        };
        const SERVER: i32 = 2;
        const CLIENT: i32 = 3;
        let is_error = match (code, kind) {
            (400..500, CLIENT) => true,
            (400..500, SERVER) => false,
            // As in the reference, which leaves out the last one.
            _ => !(100..399).contains(&code),
        };
        found = is_error.then(|| (2, attributes.get(HTTP_MESSAGE).map(text).unwrap_or_default()));
    }
    found
}
