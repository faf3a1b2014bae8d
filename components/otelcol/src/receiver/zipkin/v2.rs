//! Spans of Zipkin's version 2 as traces, as the reference translates them.

use std::borrow::Cow;

use corten_otlp::traces::{Event, Link};
use corten_otlp::{Arena, Data, Map, OfResource, OfScope, Resource, Scope, Span, Value};
use corten_wire::zipkin::{Endpoint, Span as ZipkinSpan};
use indexmap::IndexMap;

use super::{Parsed, START_TIME_ABSENT, parsed};

/// What stands for a service that is not named, where spans are ordered by service.
const NO_SERVICE: &str = "OTLPResourceNoServiceName";
/// Says under which key the name of the service belongs.
const SERVICE_NAME_SOURCE: &str = "otlp.service.name.source";
/// How many links a span may have.
const LINKS_MAX: usize = 128;

/// Tags that are known of the resource and not of the span.
const RESOURCE_KEYS: &[&str] = &[
    "cloud.provider",
    "cloud.account.id",
    "cloud.region",
    "cloud.availability_zone",
    "cloud.platform",
    "aws.ecs.container.arn",
    "aws.ecs.cluster.arn",
    "aws.ecs.launchtype",
    "aws.ecs.task.arn",
    "aws.ecs.task.family",
    "aws.ecs.task.revision",
    "aws.eks.cluster.arn",
    "aws.log.group.names",
    "aws.log.group.arns",
    "aws.log.stream.names",
    "aws.log.stream.arns",
    "container.name",
    "container.id",
    "container.runtime",
    "container.image.name",
    "container.image.tag",
    "deployment.environment",
    "device.id",
    "device.model.identifier",
    "device.model.name",
    "device.manufacturer",
    "faas.name",
    "faas.id",
    "cloud.resource_id",
    "faas.version",
    "faas.instance",
    "faas.max_memory",
    "host.id",
    "host.name",
    "host.type",
    "host.arch",
    "host.image.name",
    "host.image.id",
    "host.image.version",
    "k8s.cluster.name",
    "k8s.node.name",
    "k8s.node.uid",
    "k8s.namespace.name",
    "k8s.pod.uid",
    "k8s.pod.name",
    "k8s.container.name",
    "k8s.container.restart_count",
    "k8s.replicaset.uid",
    "k8s.replicaset.name",
    "k8s.deployment.uid",
    "k8s.deployment.name",
    "k8s.statefulset.uid",
    "k8s.statefulset.name",
    "k8s.daemonset.uid",
    "k8s.daemonset.name",
    "k8s.job.uid",
    "k8s.job.name",
    "k8s.cronjob.uid",
    "k8s.cronjob.name",
    "os.type",
    "os.description",
    "os.name",
    "os.version",
    "process.pid",
    "process.executable.name",
    "process.executable.path",
    "process.command",
    "process.command_line",
    "process.command_args",
    "process.owner",
    "process.runtime.name",
    "process.runtime.version",
    "process.runtime.description",
    "service.name",
    "service.namespace",
    "service.instance.id",
    "service.version",
    "telemetry.sdk.name",
    "telemetry.sdk.language",
    "telemetry.sdk.version",
    "telemetry.auto.version",
    "webengine.name",
    "webengine.version",
    "webengine.description",
    "opencensus.starttime",
    "opencensus.exporterversion",
    "opencensus.resourcetype",
];

const SCOPE_NAME: &str = "otel.scope.name";
const SCOPE_VERSION: &str = "otel.scope.version";
const LIBRARY_NAME: &str = "otel.library.name";
const LIBRARY_VERSION: &str = "otel.library.version";

/// The tags of a span; nothing in place of those that were used up.
struct Tags<'a>(IndexMap<&'a str, Option<&'a str>>);

impl<'a> Tags<'a> {
    fn of(span: &'a ZipkinSpan<'_>) -> Self {
        Tags(span.tags.iter().map(|(key, value)| (&**key, Some(&**value))).collect())
    }

    fn get(&self, key: &str) -> Option<&'a str> {
        self.0.get(key).copied().flatten()
    }

    fn take(&mut self, key: &str) -> Option<&'a str> {
        self.0.get_mut(key).and_then(Option::take)
    }
}

/// Translates spans. Those of one service and scope follow each other.
pub(super) fn translate(spans: Vec<ZipkinSpan<'_>>, parse_string_tags: bool) -> Result<Data<Span>, String> {
    let mut spans: Vec<_> = spans.iter().map(|span| (service(span), scope(span), span)).collect();
    spans.sort_by_key(|(service, scope, _)| (*service, *scope));
    let mut data = Data::<Span>::default();
    let (mut of_service, mut of_scope) = (None, None);
    for (service, scope, span) in spans {
        let mut tags = Tags::of(span);
        if of_service != Some(service) {
            of_service = Some(service);
            of_scope = None;
            let resource =
                Resource { attributes: resource(&mut data.arena, &mut tags, service), ..Resource::default() };
            data.resources.push(OfResource { resource, ..OfResource::default() });
        }
        let Some(resource) = data.resources.last_mut() else { continue };
        if of_scope != Some(scope) {
            of_scope = Some(scope);
            let scope = scope_of(&mut data.arena, &mut tags, scope);
            resource.scopes.push(OfScope { scope, ..OfScope::default() });
        }
        let Some(scope) = resource.scopes.last_mut() else { continue };
        scope.records.push(translate_span(&mut data.arena, span, tags, parse_string_tags)?);
    }
    Ok(data)
}

fn service<'a>(span: &'a ZipkinSpan<'_>) -> &'a str {
    let name = span.local.as_ref().map_or("", |endpoint| &*endpoint.service_name);
    if name.is_empty() { NO_SERVICE } else { name }
}

fn scope<'a>(span: &'a ZipkinSpan<'_>) -> &'a str {
    let tag = |wanted: &str| span.tags.iter().rev().find(|(key, _)| key == wanted).map(|(_, value)| &**value);
    tag(SCOPE_NAME).or_else(|| tag(LIBRARY_NAME)).unwrap_or_default()
}

fn resource(arena: &mut Arena, tags: &mut Tags<'_>, service: &str) -> Map {
    let mut attributes = Map::default();
    if service == NO_SERVICE {
        return attributes;
    }
    let key = tags.take(SERVICE_NAME_SOURCE).filter(|key| !key.is_empty()).unwrap_or("service.name");
    put(arena, &mut attributes, key, service);
    for key in RESOURCE_KEYS {
        if let Some(value) = tags.take(key) {
            put(arena, &mut attributes, key, value);
        }
    }
    attributes
}

fn scope_of(arena: &mut Arena, tags: &mut Tags<'_>, scope: &str) -> Scope {
    let mut made = Scope::default();
    if scope.is_empty() {
        return made;
    }
    for (old, new, field) in
        [(LIBRARY_NAME, SCOPE_NAME, &mut made.name), (LIBRARY_VERSION, SCOPE_VERSION, &mut made.version)]
    {
        let (old, new) = (tags.take(old), tags.take(new));
        if let Some(text) = new.or(old) {
            *field = arena.own(text.as_bytes());
        }
    }
    made
}

fn put(arena: &mut Arena, map: &mut Map, key: &str, value: &str) {
    let value = arena.own_str(value);
    arena.put(map, key.as_bytes(), value);
}

fn translate_span(
    arena: &mut Arena,
    span: &ZipkinSpan<'_>,
    mut tags: Tags<'_>,
    parse_string_tags: bool,
) -> Result<Span, String> {
    let mut made = Span { trace_id: span.trace_id, span_id: span.id.to_be_bytes(), ..Span::default() };
    if let Some(state) = tags.take("w3c.tracestate") {
        made.trace_state = arena.own(state.as_bytes());
    }
    if let Some(parent) = span.parent_id.filter(|parent| *parent != span.id) {
        made.parent_span_id = parent.to_be_bytes();
    }
    made.name = arena.own(span.name.as_bytes());
    made.kind = match &*span.kind {
        "SERVER" => 2,
        "CLIENT" => 3,
        "PRODUCER" => 4,
        "CONSUMER" => 5,
        _ => i32::from(tags.take("span.kind") == Some("internal")),
    };
    if let Some(code) = tags.take("otel.status_code") {
        made.status.code = match code {
            "STATUS_CODE_OK" | "Ok" => 1,
            "STATUS_CODE_ERROR" | "Error" => 2,
            _ => 0,
        };
        if let Some(text) = tags.take("otel.status_description") {
            made.status.message = arena.own(text.as_bytes());
        }
    }
    if let Some(error) = tags.get("error") {
        made.status.code = 2;
        if error == "true" {
            tags.take("error");
        }
    }
    for at in 0..LINKS_MAX {
        let Some(text) = tags.take(&format!("otlp.link.{at}")) else { break };
        made.links.extend(link(arena, text)?);
    }
    let mut attributes = Map::default();
    for (key, value) in tags.0.iter().filter_map(|(key, value)| Some((*key, (*value)?))) {
        if is_of_span(key) {
            let value = match if parse_string_tags { parsed(value) } else { Parsed::Text } {
                Parsed::Int(value) => Value::Int(value),
                Parsed::Double(value) => Value::Double(value),
                Parsed::Bool(value) => Value::Bool(value),
                Parsed::Text => arena.own_str(value),
            };
            let key = arena.own(key.as_bytes());
            arena.push(&mut attributes, key, value);
        }
    }
    if let Some(local) = &span.local {
        endpoint(arena, &mut attributes, local, None, "network.local.address", "net.host.port");
    }
    if let Some(remote) = &span.remote {
        let service = Some("service.peer.name");
        endpoint(arena, &mut attributes, remote, service, "network.peer.address", "net.peer.port");
    }
    if span.timestamp_us.is_none() {
        arena.put(&mut attributes, START_TIME_ABSENT.as_bytes(), Value::Bool(true));
    }
    made.attributes = attributes;
    let start = span.timestamp_us.unwrap_or(0);
    made.start_time_ns = start.saturating_mul(1000);
    made.end_time_ns = start.saturating_add(span.duration_us).saturating_mul(1000);
    let events = span.annotations.iter().map(|(time, text)| event(arena, *time, text));
    made.events = events.collect::<Result<_, _>>()?;
    Ok(made)
}

fn is_of_span(key: &str) -> bool {
    const OTHERS: [&str; 5] = [SERVICE_NAME_SOURCE, SCOPE_NAME, SCOPE_VERSION, LIBRARY_NAME, LIBRARY_VERSION];
    !RESOURCE_KEYS.contains(&key) && !OTHERS.contains(&key)
}

fn endpoint(
    arena: &mut Arena,
    attributes: &mut Map,
    endpoint: &Endpoint<'_>,
    service: Option<&str>,
    address: &str,
    port: &str,
) {
    if let Some(key) = service.filter(|_| !endpoint.service_name.is_empty()) {
        put(arena, attributes, key, &endpoint.service_name);
    }
    for text in [&endpoint.ipv4, &endpoint.ipv6].into_iter().flatten() {
        put(arena, attributes, address, text);
    }
    if endpoint.port > 0 {
        arena.put(attributes, port.as_bytes(), Value::Int(i64::from(endpoint.port)));
    }
}

/// A link that another translator put into a tag: trace, span, state, attributes as JSON, and how many were dropped.
fn link(arena: &mut Arena, text: &str) -> Result<Option<Link>, String> {
    let mut parts = text.splitn(4, '|');
    let (Some(trace), Some(span), Some(state), Some(rest)) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Ok(None);
    };
    let Some((json, dropped)) = rest.rsplit_once('|') else { return Ok(None) };
    Ok(Some(Link {
        trace_id: id(trace)?,
        span_id: id(span)?,
        trace_state: arena.own(state.as_bytes()),
        attributes: json_attributes(arena, json)?,
        dropped_attributes: count(dropped)?,
        flags: 0,
    }))
}

/// An event, which may have attributes as JSON behind its name, and how many were dropped.
fn event(arena: &mut Arena, time_us: u64, text: &str) -> Result<Event, String> {
    let (name, rest) = text.split_once('|').unwrap_or((text, ""));
    let mut event =
        Event { time_ns: time_us.saturating_mul(1000), name: arena.own(name.as_bytes()), ..Event::default() };
    if let Some((json, dropped)) = rest.rsplit_once('|') {
        event.attributes = json_attributes(arena, json)?;
        event.dropped_attributes = count(dropped)?;
    }
    Ok(event)
}

fn count(text: &str) -> Result<u32, String> {
    let problem = |problem| format!("strconv.ParseUint: parsing {text:?}: {problem}");
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(problem("invalid syntax"));
    }
    text.parse().map_err(|_| problem("value out of range"))
}

/// An id in hexadecimal digits, with or without quotes. None is zeros.
fn id<const N: usize>(text: &str) -> Result<[u8; N], String> {
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let mut id = [0; N];
    if text.is_empty() {
        return Ok(id);
    }
    if text.len() != 2 * N {
        return Err("invalid length for ID".to_owned());
    }
    for (byte, digits) in id.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |at: usize| char::from(digits[at]).to_digit(16).map(|digit| digit as u8);
        let both = digit(0).zip(digit(1)).map(|(high, low)| high << 4 | low);
        *byte = both.ok_or_else(|| format!("cannot unmarshal ID from string '{text}'"))?;
    }
    Ok(id)
}

/// Texts, numbers and truth values of an object; the rest is left out.
fn json_attributes(arena: &mut Arena, json: &str) -> Result<Map, String> {
    let object: Option<serde_json::Map<String, serde_json::Value>> =
        serde_json::from_str(json).map_err(|error| error.to_string())?;
    let mut attributes = Map::default();
    for (key, value) in object.unwrap_or_default() {
        let value = match value {
            serde_json::Value::String(text) => arena.own_str(&text),
            serde_json::Value::Bool(value) => Value::Bool(value),
            serde_json::Value::Number(number) => match number.as_f64().unwrap_or(f64::NAN) {
                whole if whole % 1.0 == 0.0 => Value::Int(whole as i64),
                number => Value::Double(number),
            },
            _ => continue,
        };
        let key = Cow::from(key);
        let key = arena.own(key.as_bytes());
        arena.push(&mut attributes, key, value);
    }
    Ok(attributes)
}
