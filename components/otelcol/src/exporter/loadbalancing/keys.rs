//! What telemetry is told apart by, and the batches that go to each endpoint.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use corten_otlp::metrics::Points;
use corten_otlp::{
    Arena, Batch, Data, LogRecord, Map, Metric, OfResource, OfScope, OtlpLogs, OtlpMetrics, OtlpSignal, Resource, Span,
    Traces, Value,
};
use corten_signal::Consume;

use super::identity::{Identity, map_hash};
use crate::flow::Stages;

/// What telemetry is told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    TraceId,
    Service,
    Resource,
    Metric,
    Stream,
}

impl Key {
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "traceID" => Key::TraceId,
            "service" => Key::Service,
            "resource" => Key::Resource,
            "metric" => Key::Metric,
            "streamID" => Key::Stream,
            _ => return None,
        })
    }

    /// Whether traces and logs have it.
    pub(super) fn is_of_traces(self) -> bool {
        matches!(self, Key::TraceId | Key::Service)
    }

    /// Whether metrics have it.
    pub(super) fn is_of_metrics(self) -> bool {
        self != Key::TraceId
    }
}

/// The group of what has no key.
const NOWHERE: u32 = u32::MAX;

const SERVICE: &[u8] = b"service.name";

/// Finds the endpoint of a key.
pub(super) type Choose<'a> = &'a dyn Fn(&[u8]) -> u32;

/// What became of a batch.
pub(super) struct Split<S: OtlpSignal> {
    /// What goes to each endpoint, without acknowledgements.
    pub(super) parts: Vec<Batch<S::Record>>,
    /// Why some of it goes nowhere.
    pub(super) lost: Option<String>,
}

/// A signal whose batches are split.
pub(super) trait Routed: OtlpSignal {
    /// Splits a batch into what goes to each of so many endpoints.
    fn split(key: Key, batch: &Batch<Self::Record>, endpoints: usize, choose: Choose<'_>) -> Split<Self>;

    /// What takes the signal.
    fn stage(stages: &Stages) -> Option<&Arc<dyn Consume<Self>>>;
}

impl Routed for Traces {
    fn split(key: Key, batch: &Batch<Span>, endpoints: usize, choose: Choose<'_>) -> Split<Self> {
        let parts = batch.split(endpoints, |data, assigned| {
            if key == Key::TraceId {
                let spans = data.scopes().flat_map(|(_, of)| &of.records);
                assigned.extend(spans.map(|span| choose(&span.trace_id)));
            } else {
                by_service_of_spans(data, assigned, choose);
            }
        });
        Split { parts, lost: None }
    }

    fn stage(stages: &Stages) -> Option<&Arc<dyn Consume<Self>>> {
        stages.traces.as_ref()
    }
}

/// The service of spans may be said by the resource, the scope or, of a trace in a scope, by its first span.
fn by_service_of_spans(data: &Data<Span>, assigned: &mut Vec<u32>, choose: Choose<'_>) {
    let arena = &data.arena;
    let endpoint = |service: Option<Value>| {
        let mut key = b"service.name=".to_vec();
        if let Some(service) = service {
            arena.write_text(service, &mut key);
        }
        key.push(b'|');
        choose(&key)
    };
    for of in &data.resources {
        let of_resource = arena.get(of.resource.attributes, SERVICE).map(|service| endpoint(Some(service)));
        for scope in &of.scopes {
            let service = || arena.get(scope.scope.attributes, SERVICE);
            let of_all = of_resource.or_else(|| service().map(|service| endpoint(Some(service))));
            if let Some(of_all) = of_all {
                assigned.extend(scope.records.iter().map(|_| of_all));
                continue;
            }
            let mut of_trace = HashMap::new();
            assigned.extend(scope.records.iter().map(|span| {
                *of_trace.entry(span.trace_id).or_insert_with(|| endpoint(arena.get(span.attributes, SERVICE)))
            }));
        }
    }
}

impl Routed for OtlpLogs {
    fn split(key: Key, batch: &Batch<LogRecord>, endpoints: usize, choose: Choose<'_>) -> Split<Self> {
        // What belongs to no trace goes anywhere, and stays together.
        let anywhere = std::cell::OnceCell::new();
        let parts = batch.split(endpoints, |data, assigned| {
            if key == Key::TraceId {
                let records = data.scopes().flat_map(|(_, of)| &of.records);
                assigned.extend(records.map(|record| match record.trace_id == [0; 16] {
                    true => *anywhere.get_or_init(|| choose(&RandomState::new().hash_one(0).to_le_bytes())),
                    false => choose(&hex(&record.trace_id)),
                }));
            } else {
                each_resource(data, assigned, |arena, of| {
                    choose(arena.get(of.attributes, SERVICE).map_or(&[][..], |service| text(arena, service)))
                });
            }
        });
        Split { parts, lost: None }
    }

    fn stage(stages: &Stages) -> Option<&Arc<dyn Consume<Self>>> {
        stages.logs.as_ref()
    }
}

fn hex(id: &[u8; 16]) -> [u8; 32] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 32];
    for (digits, byte) in text.chunks_exact_mut(2).zip(id) {
        digits[0] = DIGITS[usize::from(byte >> 4)];
        digits[1] = DIGITS[usize::from(byte & 15)];
    }
    text
}

/// A value that is a text; any other one is none.
fn text(arena: &Arena, value: Value) -> &[u8] {
    match value {
        Value::Str(text) => arena.bytes(text),
        _ => &[],
    }
}

/// All of a resource goes to one endpoint.
fn each_resource<R>(data: &Data<R>, assigned: &mut Vec<u32>, mut endpoint: impl FnMut(&Arena, &Resource) -> u32) {
    for of in &data.resources {
        let records: usize = of.scopes.iter().map(|scope| scope.records.len()).sum();
        if records > 0 {
            let endpoint = endpoint(&data.arena, &of.resource);
            assigned.resize(assigned.len() + records, endpoint);
        }
    }
}

impl Routed for OtlpMetrics {
    fn split(key: Key, batch: &Batch<Metric>, endpoints: usize, choose: Choose<'_>) -> Split<Self> {
        let (mut buffer, mut lost) = (Vec::new(), None);
        let parts = match key {
            Key::Stream => by_stream(batch, endpoints, choose),
            Key::Resource => batch.split(endpoints, |data, assigned| {
                each_resource(data, assigned, |arena, of| {
                    choose(&Identity::of_resource(map_hash(arena, of.attributes, &mut buffer)).named("resource"))
                });
            }),
            Key::Metric => batch.split(endpoints, |data, assigned| {
                let metrics = data.scopes().flat_map(|(_, of)| &of.records);
                assigned.extend(metrics.map(|metric| choose(data.arena.bytes(metric.name))));
            }),
            // Metrics have no traces.
            Key::Service | Key::TraceId => batch.split(endpoints, |data, assigned| {
                each_resource(data, assigned, |arena, of| match arena.get(of.attributes, SERVICE) {
                    Some(service) => choose(text(arena, service)),
                    None => {
                        lost.get_or_insert_with(|| nameless(arena, of.attributes));
                        NOWHERE
                    }
                });
            }),
        };
        Split { parts, lost }
    }

    fn stage(stages: &Stages) -> Option<&Arc<dyn Consume<Self>>> {
        stages.metrics.as_ref()
    }
}

/// Says that a resource has no service.
fn nameless(arena: &Arena, attributes: Map) -> String {
    let pairs = arena.pairs(attributes).iter();
    let mut shown: Vec<String> =
        pairs.map(|pair| format!("{}:{}", arena.text(pair.key), arena.to_text(pair.value))).collect();
    shown.sort();
    format!("unable to get service name from resource metric with attributes: map[{}]", shown.join(" "))
}

/// The points of a metric may go to different endpoints.
fn by_stream(batch: &Batch<Metric>, endpoints: usize, choose: Choose<'_>) -> Vec<Batch<Metric>> {
    let mut parts = vec![Batch::empty(Arc::clone(&batch.context)); endpoints];
    let mut buffer = Vec::new();
    let assigned: Vec<Vec<u32>> = batch.data().map(|data| streams(data, choose, &mut buffer)).collect();
    let mut all = assigned.iter().flatten();
    if let Some(first) = all.next()
        && all.all(|endpoint| endpoint == first)
        && let Some(part) = parts.get_mut(*first as usize)
    {
        *part = batch.clone();
        std::mem::take(&mut part.acks).safe();
        return parts;
    }
    for (data, assigned) in batch.data().zip(&assigned) {
        split_points(data, assigned, &mut parts);
    }
    parts
}

/// The endpoint of each point.
fn streams(data: &Data<Metric>, choose: Choose<'_>, buffer: &mut Vec<u8>) -> Vec<u32> {
    let arena = &data.arena;
    let mut assigned = Vec::with_capacity(data.items());
    for of in &data.resources {
        let of_resource = Identity::of_resource(map_hash(arena, of.resource.attributes, buffer));
        for scope in &of.scopes {
            let of_scope = of_resource.scope(arena, &scope.scope, buffer);
            for metric in &scope.records {
                let of_metric = of_scope.metric(arena, metric);
                each_attributes(&metric.points, |attributes| {
                    assigned.push(choose(&of_metric.stream(map_hash(arena, attributes, buffer)).named("stream")));
                });
            }
        }
    }
    assigned
}

fn each_attributes(points: &Points, mut look: impl FnMut(Map)) {
    match points {
        Points::None => {}
        Points::Gauge(points) | Points::Sum { points, .. } => points.iter().for_each(|point| look(point.attributes)),
        Points::Histogram { points, .. } => points.iter().for_each(|point| look(point.attributes)),
        Points::Exponential { points, .. } => points.iter().for_each(|point| look(point.attributes)),
        Points::Summary(points) => points.iter().for_each(|point| look(point.attributes)),
    }
}

/// Adds to each endpoint's part the points that it is assigned, in their metrics.
fn split_points(data: &Data<Metric>, assigned: &[u32], parts: &mut [Batch<Metric>]) {
    let mut made: Vec<Option<Data<Metric>>> = vec![None; parts.len()];
    // The last resource and scope that were begun for each endpoint.
    let mut begun = vec![(usize::MAX, usize::MAX); parts.len()];
    let mut rest = assigned;
    for (at, of) in data.resources.iter().enumerate() {
        for (scope_at, scope) in of.scopes.iter().enumerate() {
            for metric in &scope.records {
                let (own, others) = rest.split_at(metric.points.len().min(rest.len()));
                rest = others;
                let mut chosen = own.to_vec();
                chosen.sort_unstable();
                chosen.dedup();
                for endpoint in chosen {
                    let (Some(made), Some(begun)) = (made.get_mut(endpoint as usize), begun.get_mut(endpoint as usize))
                    else {
                        continue;
                    };
                    let made = made.get_or_insert_default();
                    if begun.0 != at {
                        made.resources.push(resource_of(of, &data.arena, &mut made.arena));
                    }
                    let Some(resource) = made.resources.last_mut() else { continue };
                    if *begun != (at, scope_at) {
                        resource.scopes.push(OfScope {
                            scope: scope.scope.carried(&data.arena, &mut made.arena),
                            schema_url: made.arena.carry_text(&data.arena, scope.schema_url),
                            records: Vec::new(),
                        });
                        *begun = (at, scope_at);
                    }
                    let Some(scope) = resource.scopes.last_mut() else { continue };
                    let picked = Metric { points: pick(&metric.points, own, endpoint), ..*metric };
                    scope.records.push(corten_otlp::Record::carried(&picked, &data.arena, &mut made.arena));
                }
            }
        }
    }
    for (part, made) in parts.iter_mut().zip(made) {
        if let Some(made) = made {
            part.join(Batch::of(made, Arc::default()));
        }
    }
}

/// A resource without what it recorded.
fn resource_of(of: &OfResource<Metric>, from: &Arena, to: &mut Arena) -> OfResource<Metric> {
    OfResource {
        resource: Resource {
            attributes: to.carry_map(from, of.resource.attributes),
            dropped_attributes: of.resource.dropped_attributes,
            entities: of.resource.entities.iter().map(|entity| to.carry_text(from, *entity)).collect(),
        },
        schema_url: to.carry_text(from, of.schema_url),
        scopes: Vec::new(),
    }
}

/// The points that go to an endpoint.
fn pick(points: &Points, assigned: &[u32], endpoint: u32) -> Points {
    fn of<P: Clone>(points: &[P], assigned: &[u32], endpoint: u32) -> Vec<P> {
        let chosen = points.iter().zip(assigned).filter(|(_, assigned)| **assigned == endpoint);
        chosen.map(|(point, _)| point.clone()).collect()
    }
    match points {
        Points::None => Points::None,
        Points::Gauge(points) => Points::Gauge(of(points, assigned, endpoint)),
        Points::Sum { points, temporality, monotonic } => {
            Points::Sum { points: of(points, assigned, endpoint), temporality: *temporality, monotonic: *monotonic }
        }
        Points::Histogram { points, temporality } => {
            Points::Histogram { points: of(points, assigned, endpoint), temporality: *temporality }
        }
        Points::Exponential { points, temporality } => {
            Points::Exponential { points: of(points, assigned, endpoint), temporality: *temporality }
        }
        Points::Summary(points) => Points::Summary(of(points, assigned, endpoint)),
    }
}

#[cfg(test)]
mod tests {
    use corten_testkit::otlp;
    use parking_lot::Mutex;

    use super::*;

    /// The keys of a batch, in the order in which they are asked for, and the JSON of what each of two endpoints gets, which
    /// have the keys in turn.
    fn keys<S: Routed>(key: Key, json: &str) -> (Vec<String>, Vec<String>, Option<String>) {
        let asked = Mutex::new(Vec::<String>::new());
        let choose = |key: &[u8]| {
            let mut asked = asked.lock();
            let shown = match std::str::from_utf8(key) {
                Ok(text) if !text.contains('\0') => text.to_owned(),
                _ => format!("{key:02x?}"),
            };
            let known = asked.iter().position(|known| *known == shown);
            (known.unwrap_or_else(|| {
                asked.push(shown);
                asked.len() - 1
            }) % 2) as u32
        };
        let split = S::split(key, &otlp(json), 2, &choose);
        let json = |part: &Batch<S::Record>| String::from_utf8(part.to_json()).unwrap();
        let parts = split.parts.iter().map(json).collect();
        (asked.into_inner(), parts, split.lost)
    }

    fn spans(resources: &str) -> String {
        format!(r#"{{"resourceSpans":[{resources}]}}"#)
    }

    #[test]
    fn spans_go_by_their_traces() {
        let (a, b) = ("0a".repeat(16), "41".repeat(16));
        let span = |trace: &str, name: &str| format!(r#"{{"traceId":"{trace}","name":"{name}"}}"#);
        let scope = |spans: &[String]| format!(r#"{{"scopeSpans":[{{"spans":[{}]}}]}}"#, spans.join(","));
        let (asked, parts, _) = keys::<Traces>(
            Key::TraceId,
            &spans(&scope(&[span(&a, "1"), span(&b, "2"), span(&a, "3"), r#"{"name":"4"}"#.to_owned()])),
        );
        assert_eq!(asked, ["\n".repeat(16), "A".repeat(16), format!("{:02x?}", [0u8; 16])]);
        let want = |spans: &[String]| String::from_utf8(otlp::<Span>(&self::spans(&scope(spans))).to_json()).unwrap();
        assert_eq!(parts, [want(&[span(&a, "1"), span(&a, "3"), span("", "4")]), want(&[span(&b, "2")])]);
    }

    #[test]
    fn the_service_of_spans_is_looked_for_in_the_resource_the_scope_and_the_first_span_of_a_trace() {
        let service = |name: &str| format!(r#""attributes":[{{"key":"service.name","value":{name}}}]"#);
        let text = |name: &str| service(&format!(r#"{{"stringValue":"{name}"}}"#));
        let (a, b) = ("0a".repeat(16), "0b".repeat(16));
        let (asked, ..) = keys::<Traces>(
            Key::Service,
            &spans(&format!(
                r#"{{"resource":{{{}}},"scopeSpans":[{{"spans":[{{}}]}}]}},
                {{"resource":{{{}}},"scopeSpans":[{{"spans":[{{}}]}}]}},
                {{"scopeSpans":[
                    {{"scope":{{{}}},"spans":[{{}}]}},
                    {{"spans":[{{"traceId":"{a}",{}}},{{"traceId":"{b}"}},{{"traceId":"{a}",{}}}]}}
                ]}}"#,
                text("of resource"),
                service(r#"{"intValue":"7"}"#),
                text("of scope"),
                text("of span"),
                text("not asked"),
            )),
        );
        let names = ["of resource", "7", "of scope", "of span", ""];
        assert_eq!(asked, names.map(|name| format!("service.name={name}|")));
    }

    #[test]
    fn log_records_go_by_the_text_of_their_traces_and_those_without_stay_together() {
        let a = "0a".repeat(16);
        let logs = format!(
            r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{}},{{"traceId":"{a}"}},{{}}]}}]}},{{"scopeLogs":[{{"logRecords":[{{}}]}}]}}]}}"#
        );
        let (asked, parts, _) = keys::<OtlpLogs>(Key::TraceId, &logs);
        assert_eq!((asked.len(), &asked[1]), (2, &a));
        assert_eq!(parts[0].matches("resourceLogs\":[{").count(), 1);
        assert!(parts[1].contains(&a));
    }

    #[test]
    fn log_records_go_by_their_service() {
        let of = |attributes: &str| {
            format!(r#"{{"resource":{{"attributes":[{attributes}]}},"scopeLogs":[{{"logRecords":[{{}}]}}]}}"#)
        };
        let a = of(r#"{"key":"service.name","value":{"stringValue":"a"}}"#);
        let seven = of(r#"{"key":"service.name","value":{"intValue":"7"}}"#);
        let (asked, ..) =
            keys::<OtlpLogs>(Key::Service, &format!(r#"{{"resourceLogs":[{a},{seven},{},{a}]}}"#, of("")));
        assert_eq!(asked, ["a", ""]);
    }

    /// What the reference's own hashes were recorded of.
    const METRICS: &str = r#"{"resourceMetrics":[
        {"scopeMetrics":[{"metrics":[{"name":"a","gauge":{"dataPoints":[{"asInt":"1"}]}}]}]},
        {"resource":{"attributes":[
            {"key":"service.name","value":{"stringValue":"checkout"}},
            {"key":"b","value":{"boolValue":true}},
            {"key":"a","value":{"intValue":"-7"}},
            {"key":"d","value":{"doubleValue":1.5}},
            {"key":"c","value":{"arrayValue":{"values":[{"stringValue":"x"},{"boolValue":false},{}]}}},
            {"key":"e","value":{"kvlistValue":{"values":[{"key":"z","value":{"bytesValue":"AAEC"}},{"key":"y","value":{"stringValue":""}}]}}}
        ]},
        "scopeMetrics":[{"scope":{"name":"lib","version":"1.2","attributes":[{"key":"s","value":{"stringValue":"t"}}]},"metrics":[
            {"name":"g","unit":"s","gauge":{"dataPoints":[{"attributes":[{"key":"k","value":{"stringValue":"1"}}],"asInt":"1"},{"attributes":[{"key":"k","value":{"intValue":"1"}}],"asInt":"2"}]}},
            {"name":"s","unit":"By","sum":{"aggregationTemporality":2,"isMonotonic":true,"dataPoints":[{"attributes":[{"key":"b","value":{"stringValue":"1"}},{"key":"a","value":{"stringValue":"2"}}],"asInt":"3"}]}},
            {"name":"s","unit":"By","sum":{"aggregationTemporality":1,"dataPoints":[{"asInt":"4"}]}},
            {"name":"h","histogram":{"aggregationTemporality":1,"dataPoints":[{"count":"1","bucketCounts":["1"]}]}},
            {"name":"e","exponentialHistogram":{"aggregationTemporality":2,"dataPoints":[{"count":"1"}]}},
            {"name":"y","summary":{"dataPoints":[{"count":"1"}]}}
        ]}]}
    ]}"#;

    #[test]
    fn metrics_go_by_what_they_are_told_to() {
        let (asked, ..) = keys::<OtlpMetrics>(Key::Resource, METRICS);
        assert_eq!(asked, ["resource/88201fb960ff6465", "resource/af7c54d3fc4eaf8f"]);
        let (asked, ..) = keys::<OtlpMetrics>(Key::Metric, METRICS);
        assert_eq!(asked, ["a", "g", "s", "h", "e", "y"]);
        let (asked, parts, lost) = keys::<OtlpMetrics>(Key::Service, METRICS);
        assert_eq!((asked, &*parts[1]), (vec!["checkout".to_owned()], "{}"));
        assert!(!parts[0].contains("\"a\",\"gauge"));
        assert_eq!(lost.as_deref(), Some("unable to get service name from resource metric with attributes: map[]"));
    }

    #[test]
    fn points_go_by_their_streams() {
        let (asked, parts, _) = keys::<OtlpMetrics>(Key::Stream, METRICS);
        let ids = [
            "927c2fd77291366f",
            "315167052e37042e",
            "1868e19ffbf76a25",
            "15f559a514095f5a",
            "30b31928e9bca375",
            "f30c6a5a680f3fd7",
            "5cb27298ae53f6ba",
            "e355da9afbd50956",
        ];
        assert_eq!(asked, ids.map(|id| format!("stream/{id}")));
        let numbers = |json: &str| {
            let numbers = json.split("asInt\":\"").skip(1);
            numbers.map(|rest| rest[..1].parse().unwrap()).collect::<Vec<i32>>()
        };
        assert_eq!((numbers(&parts[0]), numbers(&parts[1])), (vec![1, 2, 4], vec![1, 3]));
        assert_eq!(parts[1].matches("\"lib\"").count(), 1);
        let items = |json: &str| otlp::<Metric>(json).items();
        assert_eq!(items(&parts[0]) + items(&parts[1]), 8);
    }
    #[test]
    fn what_goes_to_one_endpoint_stays_the_message_that_it_is() {
        let batch: Batch<Metric> = otlp(METRICS);
        for key in [Key::Stream, Key::Metric, Key::Resource] {
            let split = OtlpMetrics::split(key, &batch, 3, &|_| 1);
            let places: Vec<Vec<*const u8>> =
                split.parts.iter().map(|part| part.message().map(|piece| piece.as_ptr()).collect()).collect();
            let own: Vec<*const u8> = batch.message().map(|piece| piece.as_ptr()).collect();
            assert_eq!(places, [vec![], own, vec![]], "{key:?}");
        }
    }
}
