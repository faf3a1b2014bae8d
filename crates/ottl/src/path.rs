//! Paths: which there are, and what they read and write.

use std::net::SocketAddr;

use corten_golang::time::Time;
use corten_otlp::metrics::{Buckets, Number, Points};
use corten_otlp::{Arena, Map, Text, Value};

use crate::ast;
use crate::context::{Context, Level};
use crate::error::{EvalError, Fault};
use crate::item::{Item, Record};
use crate::trace_state;
use crate::value::{Val, copy_map, hex, unhex};

/// What a path leads to, without its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaf {
    Cache,
    ResourceAttributes,
    ResourceDropped,
    ResourceSchema,
    ScopeName,
    ScopeVersion,
    ScopeAttributes,
    ScopeDropped,
    ScopeSchema,
    SpanTraceId,
    SpanTraceIdText,
    SpanId,
    SpanIdText,
    SpanParent,
    SpanParentText,
    SpanState,
    SpanName,
    SpanKind,
    SpanKindText,
    SpanKindOldText,
    SpanStartNs,
    SpanEndNs,
    SpanStart,
    SpanEnd,
    SpanAttributes,
    SpanDropped,
    SpanEvents,
    SpanDroppedEvents,
    SpanLinks,
    SpanDroppedLinks,
    SpanStatus,
    SpanStatusCode,
    SpanStatusMessage,
    SpanFlags,
    EventName,
    EventNs,
    EventTime,
    EventAttributes,
    EventDropped,
    EventIndex,
    MetricName,
    MetricDescription,
    MetricUnit,
    MetricType,
    MetricTemporality,
    MetricMonotonic,
    MetricPoints,
    MetricMetadata,
    PointAttributes,
    PointStartNs,
    PointNs,
    PointStart,
    PointTime,
    PointDouble,
    PointInt,
    PointExemplars,
    PointFlags,
    PointCount,
    PointSum,
    PointBucketCounts,
    PointBounds,
    PointScale,
    PointZeroCount,
    PointPositive,
    PointPositiveOffset,
    PointPositiveCounts,
    PointNegative,
    PointNegativeOffset,
    PointNegativeCounts,
    PointQuantiles,
    ExemplarNs,
    ExemplarTime,
    ExemplarDouble,
    ExemplarInt,
    ExemplarTraceId,
    ExemplarTraceIdText,
    ExemplarSpanId,
    ExemplarSpanIdText,
    ExemplarAttributes,
    LogNs,
    LogObservedNs,
    LogTime,
    LogObserved,
    LogSeverity,
    LogSeverityText,
    LogBody,
    LogBodyText,
    LogAttributes,
    LogDropped,
    LogFlags,
    LogTraceId,
    LogTraceIdText,
    LogSpanId,
    LogSpanIdText,
    LogEventName,
    ClientAddress,
    ClientMetadata,
    ClientAuth,
}

use Context::{DataPoint, Exemplar, Log, Metric, Resource, Scope, Span, SpanEvent};

/// The paths of each level, and whether they take keys.
const PATHS: &[(Level, &str, Leaf, bool)] = &[
    (Level::Of(Resource), "attributes", Leaf::ResourceAttributes, true),
    (Level::Of(Resource), "dropped_attributes_count", Leaf::ResourceDropped, false),
    (Level::Of(Resource), "schema_url", Leaf::ResourceSchema, false),
    (Level::Of(Scope), "name", Leaf::ScopeName, false),
    (Level::Of(Scope), "version", Leaf::ScopeVersion, false),
    (Level::Of(Scope), "attributes", Leaf::ScopeAttributes, true),
    (Level::Of(Scope), "dropped_attributes_count", Leaf::ScopeDropped, false),
    (Level::Of(Scope), "schema_url", Leaf::ScopeSchema, false),
    (Level::Of(Span), "trace_id", Leaf::SpanTraceId, false),
    (Level::Of(Span), "trace_id.string", Leaf::SpanTraceIdText, false),
    (Level::Of(Span), "span_id", Leaf::SpanId, false),
    (Level::Of(Span), "span_id.string", Leaf::SpanIdText, false),
    (Level::Of(Span), "parent_span_id", Leaf::SpanParent, false),
    (Level::Of(Span), "parent_span_id.string", Leaf::SpanParentText, false),
    (Level::Of(Span), "trace_state", Leaf::SpanState, true),
    (Level::Of(Span), "name", Leaf::SpanName, false),
    (Level::Of(Span), "kind", Leaf::SpanKind, false),
    (Level::Of(Span), "kind.string", Leaf::SpanKindText, false),
    (Level::Of(Span), "kind.deprecated_string", Leaf::SpanKindOldText, false),
    (Level::Of(Span), "start_time_unix_nano", Leaf::SpanStartNs, false),
    (Level::Of(Span), "end_time_unix_nano", Leaf::SpanEndNs, false),
    (Level::Of(Span), "start_time", Leaf::SpanStart, false),
    (Level::Of(Span), "end_time", Leaf::SpanEnd, false),
    (Level::Of(Span), "attributes", Leaf::SpanAttributes, true),
    (Level::Of(Span), "dropped_attributes_count", Leaf::SpanDropped, false),
    (Level::Of(Span), "events", Leaf::SpanEvents, false),
    (Level::Of(Span), "dropped_events_count", Leaf::SpanDroppedEvents, false),
    (Level::Of(Span), "links", Leaf::SpanLinks, false),
    (Level::Of(Span), "dropped_links_count", Leaf::SpanDroppedLinks, false),
    (Level::Of(Span), "status", Leaf::SpanStatus, false),
    (Level::Of(Span), "status.code", Leaf::SpanStatusCode, false),
    (Level::Of(Span), "status.message", Leaf::SpanStatusMessage, false),
    (Level::Of(Span), "flags", Leaf::SpanFlags, false),
    (Level::Of(SpanEvent), "name", Leaf::EventName, false),
    (Level::Of(SpanEvent), "time_unix_nano", Leaf::EventNs, false),
    (Level::Of(SpanEvent), "time", Leaf::EventTime, false),
    (Level::Of(SpanEvent), "attributes", Leaf::EventAttributes, true),
    (Level::Of(SpanEvent), "dropped_attributes_count", Leaf::EventDropped, false),
    (Level::Of(SpanEvent), "event_index", Leaf::EventIndex, false),
    (Level::Of(Metric), "name", Leaf::MetricName, false),
    (Level::Of(Metric), "description", Leaf::MetricDescription, false),
    (Level::Of(Metric), "unit", Leaf::MetricUnit, false),
    (Level::Of(Metric), "type", Leaf::MetricType, false),
    (Level::Of(Metric), "aggregation_temporality", Leaf::MetricTemporality, false),
    (Level::Of(Metric), "is_monotonic", Leaf::MetricMonotonic, false),
    (Level::Of(Metric), "data_points", Leaf::MetricPoints, false),
    (Level::Of(Metric), "metadata", Leaf::MetricMetadata, true),
    (Level::Of(DataPoint), "attributes", Leaf::PointAttributes, true),
    (Level::Of(DataPoint), "start_time_unix_nano", Leaf::PointStartNs, false),
    (Level::Of(DataPoint), "time_unix_nano", Leaf::PointNs, false),
    (Level::Of(DataPoint), "start_time", Leaf::PointStart, false),
    (Level::Of(DataPoint), "time", Leaf::PointTime, false),
    (Level::Of(DataPoint), "value_double", Leaf::PointDouble, false),
    (Level::Of(DataPoint), "value_int", Leaf::PointInt, false),
    (Level::Of(DataPoint), "exemplars", Leaf::PointExemplars, false),
    (Level::Of(DataPoint), "flags", Leaf::PointFlags, false),
    (Level::Of(DataPoint), "count", Leaf::PointCount, false),
    (Level::Of(DataPoint), "sum", Leaf::PointSum, false),
    (Level::Of(DataPoint), "bucket_counts", Leaf::PointBucketCounts, false),
    (Level::Of(DataPoint), "explicit_bounds", Leaf::PointBounds, false),
    (Level::Of(DataPoint), "scale", Leaf::PointScale, false),
    (Level::Of(DataPoint), "zero_count", Leaf::PointZeroCount, false),
    (Level::Of(DataPoint), "positive", Leaf::PointPositive, false),
    (Level::Of(DataPoint), "positive.offset", Leaf::PointPositiveOffset, false),
    (Level::Of(DataPoint), "positive.bucket_counts", Leaf::PointPositiveCounts, false),
    (Level::Of(DataPoint), "negative", Leaf::PointNegative, false),
    (Level::Of(DataPoint), "negative.offset", Leaf::PointNegativeOffset, false),
    (Level::Of(DataPoint), "negative.bucket_counts", Leaf::PointNegativeCounts, false),
    (Level::Of(DataPoint), "quantile_values", Leaf::PointQuantiles, false),
    (Level::Of(Exemplar), "time_unix_nano", Leaf::ExemplarNs, false),
    (Level::Of(Exemplar), "time", Leaf::ExemplarTime, false),
    (Level::Of(Exemplar), "double_value", Leaf::ExemplarDouble, false),
    (Level::Of(Exemplar), "int_value", Leaf::ExemplarInt, false),
    (Level::Of(Exemplar), "trace_id", Leaf::ExemplarTraceId, false),
    (Level::Of(Exemplar), "trace_id.string", Leaf::ExemplarTraceIdText, false),
    (Level::Of(Exemplar), "span_id", Leaf::ExemplarSpanId, false),
    (Level::Of(Exemplar), "span_id.string", Leaf::ExemplarSpanIdText, false),
    (Level::Of(Exemplar), "filtered_attributes", Leaf::ExemplarAttributes, true),
    (Level::Of(Log), "time_unix_nano", Leaf::LogNs, false),
    (Level::Of(Log), "observed_time_unix_nano", Leaf::LogObservedNs, false),
    (Level::Of(Log), "time", Leaf::LogTime, false),
    (Level::Of(Log), "observed_time", Leaf::LogObserved, false),
    (Level::Of(Log), "severity_number", Leaf::LogSeverity, false),
    (Level::Of(Log), "severity_text", Leaf::LogSeverityText, false),
    (Level::Of(Log), "body", Leaf::LogBody, true),
    (Level::Of(Log), "body.string", Leaf::LogBodyText, false),
    (Level::Of(Log), "attributes", Leaf::LogAttributes, true),
    (Level::Of(Log), "dropped_attributes_count", Leaf::LogDropped, false),
    (Level::Of(Log), "flags", Leaf::LogFlags, false),
    (Level::Of(Log), "trace_id", Leaf::LogTraceId, false),
    (Level::Of(Log), "trace_id.string", Leaf::LogTraceIdText, false),
    (Level::Of(Log), "span_id", Leaf::LogSpanId, false),
    (Level::Of(Log), "span_id.string", Leaf::LogSpanIdText, false),
    (Level::Of(Log), "event_name", Leaf::LogEventName, false),
    (Level::Otelcol, "client.addr", Leaf::ClientAddress, false),
    (Level::Otelcol, "client.metadata", Leaf::ClientMetadata, true),
    (Level::Otelcol, "client.auth.attributes", Leaf::ClientAuth, true),
];

/// Whether paths must begin with what they are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prefix {
    /// A path without one is of the context itself.
    Optional,
    /// The context was found by the paths, so all have one.
    Required,
}

/// Finds what a path leads to. The keys are those of its last field.
pub(crate) fn resolve(path: &ast::Path, context: Context, prefix: Prefix) -> Result<Leaf, Fault> {
    let first = &path.fields[0];
    let known = context.levels().iter().find(|(name, _)| *name == first.name && path.fields.len() > 1);
    let names = || {
        let names: Vec<_> = context.levels().iter().map(|(name, _)| *name).collect();
        names.join(", ")
    };
    let (level, fields) = match (known, prefix) {
        (Some((_, level)), _) => {
            if let Some(key) = first.keys.first() {
                return Err(Fault::new(key.at, format!("{} cannot be indexed", first.name)));
            }
            (*level, &path.fields[1..])
        }
        (None, Prefix::Optional) => (Level::Of(context), &path.fields[..]),
        (None, Prefix::Required) => {
            let what = format!("the path begins with none of {}: write {}.{path}", names(), context.name());
            return Err(Fault::new(path.at, what));
        }
    };
    let at = fields[0].at;
    if fields[0].name == "cache" {
        if level != Level::Of(context) {
            let what = format!("the cache is the one of {context}, and of nothing else: write {context}.cache");
            return Err(Fault::new(path.at, what));
        }
        if let Some(field) = fields.get(1) {
            return Err(Fault::new(field.at, "the cache has no fields: index it, as in cache[\"key\"]"));
        }
        return Ok(Leaf::Cache);
    }
    let mut name = String::new();
    let mut found = None;
    for field in fields {
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(&field.name);
        let next = PATHS.iter().find(|(of, known, ..)| *of == level && *known == name);
        let leads_on = PATHS.iter().any(|(of, known, ..)| {
            *of == level && known.strip_prefix(&*name).is_some_and(|rest| rest.starts_with('.'))
        });
        if next.is_none() && !leads_on {
            return Err(Fault::new(field.at, unknown(level, context, &name, field.at == at)));
        }
        found = next;
        let is_last = std::ptr::eq(field, &fields[fields.len() - 1]);
        if let Some(key) = field.keys.first() {
            let keyed = is_last && next.is_some_and(|(_, _, _, keyed)| *keyed);
            if !keyed {
                return Err(Fault::new(key.at, format!("{} cannot be indexed", field.name)));
            }
        }
    }
    let Some((_, _, leaf, _)) = found else {
        return Err(Fault::new(at, unknown(level, context, &name, false)));
    };
    if *leaf == Leaf::SpanState && fields[fields.len() - 1].keys.len() > 1 {
        let key = &fields[fields.len() - 1].keys[1];
        return Err(Fault::new(key.at, "trace_state takes exactly one key"));
    }
    Ok(*leaf)
}

fn unknown(level: Level, context: Context, name: &str, is_first: bool) -> String {
    let of = match level {
        Level::Of(of) => of.name(),
        Level::Otelcol => "otelcol",
    };
    if level == Level::Otelcol && name.starts_with("grpc") {
        return "the metadata of gRPC is not kept apart here: use otelcol.client.metadata".to_owned();
    }
    let mut known: Vec<&str> =
        PATHS.iter().filter(|(level_of, ..)| *level_of == level).map(|(_, name, ..)| *name).collect();
    known.push("cache");
    if is_first && Context::of_name(name).is_some_and(|named| named != context) {
        return format!("{name} cannot be reached from {context}");
    }
    format!("{of} has no {name}; it has {}", known.join(", "))
}

/// Whether a leaf can only be read.
pub(crate) fn read_only(leaf: Leaf) -> Option<&'static str> {
    match leaf {
        Leaf::EventIndex => Some("event_index"),
        Leaf::ClientAddress => Some("otelcol.client.addr"),
        Leaf::ClientMetadata => Some("otelcol.client.metadata"),
        Leaf::ClientAuth => Some("otelcol.client.auth.attributes"),
        _ => None,
    }
}

type Got<'p> = Result<Val<'p>, EvalError>;

/// What is expected at a path is not there, because the item is of another kind.
fn absent<T>() -> Result<T, EvalError> {
    Err("the item has no such part".into())
}

fn instant<'p>(ns: u64) -> Val<'p> {
    Val::Time(Time::from_unix_ns(ns as i64))
}

/// Evaluates an expression with what the kinds of points have in common.
macro_rules! for_point {
    ($item:expr, $point:ident => $result:expr) => {
        match $item.points() {
            Some((Points::Gauge(points) | Points::Sum { points, .. }, at)) => points.get_mut(at).map(|$point| $result),
            Some((Points::Histogram { points, .. }, at)) => points.get_mut(at).map(|$point| $result),
            Some((Points::Exponential { points, .. }, at)) => points.get_mut(at).map(|$point| $result),
            Some((Points::Summary(points), at)) => points.get_mut(at).map(|$point| $result),
            Some((Points::None, _)) | None => None,
        }
    };
}

/// As `for_point`, with each kind for itself; others give nothing.
macro_rules! of_point {
    ($item:expr, $($kind:ident $point:ident => $result:expr),+) => {
        match $item.points() {
            $(Some((of_point!(@ $kind points), at)) => points.get_mut(at).map(|$point| $result),)+
            _ => None,
        }
    };
    (@ Number $points:ident) => { Points::Gauge($points) | Points::Sum { points: $points, .. } };
    (@ Histogram $points:ident) => { Points::Histogram { points: $points, .. } };
    (@ Exponential $points:ident) => { Points::Exponential { points: $points, .. } };
    (@ Summary $points:ident) => { Points::Summary($points) };
}

/// Reads what a path without keys leads to.
pub(crate) fn get<'p>(leaf: Leaf, item: &mut Item<'_>) -> Got<'p> {
    if let Some(map) = root_map(leaf, item) {
        return Ok(Val::Map(map));
    }
    if let Some(value) = get_of_log(leaf, item).or_else(|| get_of_exemplar(leaf, item)) {
        return Ok(value);
    }
    match leaf {
        Leaf::ResourceDropped => return Ok(Val::Int(i64::from(item.resource.dropped_attributes))),
        Leaf::ResourceSchema => return Ok(Val::Text(*item.resource_schema_url)),
        Leaf::ClientAddress => {
            let peer = item.request.and_then(|request| request.peer);
            let shown = peer.map(|peer| match (peer.ip().to_canonical(), peer.port()) {
                (address, 0) => address.to_string(),
                (address, port) => SocketAddr::new(address, port).to_string(),
            });
            return Ok(shown.map_or(Val::Nil, Val::from));
        }
        Leaf::ClientMetadata => {
            let Some(request) = item.request else { return Ok(Val::Map(Map::default())) };
            let mut map = Map::default();
            for (name, values) in request.metadata.iter() {
                let values = texts(item.arena, values);
                item.arena.put(&mut map, name.as_bytes(), values);
            }
            return Ok(Val::Map(map));
        }
        Leaf::ClientAuth => {
            let auth = item.request.and_then(|request| request.auth.as_ref());
            let mut map = Map::default();
            for (name, value) in auth
                .iter()
                .flat_map(|auth| auth.names().into_iter().map(|name| (auth.attribute(&name), name)))
                .filter_map(|(value, name)| value.map(|value| (name, value)))
            {
                let value = item.arena.own_str(&value);
                item.arena.put(&mut map, name.as_bytes(), value);
            }
            return Ok(Val::Map(map));
        }
        Leaf::ScopeName | Leaf::ScopeVersion | Leaf::ScopeDropped | Leaf::ScopeSchema => {
            let Some((scope, schema_url)) = &item.scope else { return absent() };
            return Ok(match leaf {
                Leaf::ScopeName => Val::Text(scope.name),
                Leaf::ScopeVersion => Val::Text(scope.version),
                Leaf::ScopeDropped => Val::Int(i64::from(scope.dropped_attributes)),
                _ => Val::Text(**schema_url),
            });
        }
        Leaf::EventName | Leaf::EventNs | Leaf::EventTime | Leaf::EventDropped | Leaf::EventIndex => {
            let Record::SpanEvent(span, at) = &item.record else { return absent() };
            let Some(event) = span.events.get(*at) else { return absent() };
            return Ok(match leaf {
                Leaf::EventName => Val::Text(event.name),
                Leaf::EventNs => Val::Int(event.time_ns as i64),
                Leaf::EventTime => instant(event.time_ns),
                Leaf::EventDropped => Val::Int(i64::from(event.dropped_attributes)),
                _ => Val::Int(*at as i64),
            });
        }
        _ => {}
    }
    if let Some(metric) = item.metric() {
        match leaf {
            Leaf::MetricName => return Ok(Val::Text(metric.name)),
            Leaf::MetricDescription => return Ok(Val::Text(metric.description)),
            Leaf::MetricUnit => return Ok(Val::Text(metric.unit)),
            Leaf::MetricType => {
                return Ok(Val::Int(match &metric.points {
                    Points::None => 0,
                    Points::Gauge(_) => 1,
                    Points::Sum { .. } => 2,
                    Points::Histogram { .. } => 3,
                    Points::Exponential { .. } => 4,
                    Points::Summary(_) => 5,
                }));
            }
            Leaf::MetricTemporality => {
                return Ok(match &metric.points {
                    Points::Sum { temporality, .. }
                    | Points::Histogram { temporality, .. }
                    | Points::Exponential { temporality, .. } => Val::Int(i64::from(*temporality)),
                    _ => Val::Nil,
                });
            }
            Leaf::MetricMonotonic => {
                return Ok(match &metric.points {
                    Points::Sum { monotonic, .. } => Val::Bool(*monotonic),
                    _ => Val::Nil,
                });
            }
            Leaf::MetricPoints => {
                let name = match &metric.points {
                    Points::None => return Ok(Val::Nil),
                    Points::Gauge(_) | Points::Sum { .. } => "pmetric.NumberDataPointSlice",
                    Points::Histogram { .. } => "pmetric.HistogramDataPointSlice",
                    Points::Exponential { .. } => "pmetric.ExponentialHistogramDataPointSlice",
                    Points::Summary(_) => "pmetric.SummaryDataPointSlice",
                };
                return Ok(Val::Parts(name, metric.points.len()));
            }
            _ => return get_of_point(leaf, item),
        }
    }
    let Some(span) = item.span() else { return absent() };
    Ok(match leaf {
        Leaf::SpanTraceId => Val::TraceId(span.trace_id),
        Leaf::SpanTraceIdText => Val::from(hex(&span.trace_id)),
        Leaf::SpanId => Val::SpanId(span.span_id),
        Leaf::SpanIdText => Val::from(hex(&span.span_id)),
        Leaf::SpanParent => Val::SpanId(span.parent_span_id),
        Leaf::SpanParentText => Val::from(hex(&span.parent_span_id)),
        Leaf::SpanState => Val::Text(span.trace_state),
        Leaf::SpanName => Val::Text(span.name),
        Leaf::SpanKind => Val::Int(i64::from(span.kind)),
        Leaf::SpanKindText => Val::from(kind_name(KIND_NAMES, span.kind)),
        Leaf::SpanKindOldText => Val::from(kind_name(OLD_KIND_NAMES, span.kind)),
        Leaf::SpanStartNs => Val::Int(span.start_time_ns as i64),
        Leaf::SpanEndNs => Val::Int(span.end_time_ns as i64),
        Leaf::SpanStart => instant(span.start_time_ns),
        Leaf::SpanEnd => instant(span.end_time_ns),
        Leaf::SpanDropped => Val::Int(i64::from(span.dropped_attributes)),
        Leaf::SpanEvents => Val::Parts("ptrace.SpanEventSlice", span.events.len()),
        Leaf::SpanDroppedEvents => Val::Int(i64::from(span.dropped_events)),
        Leaf::SpanLinks => Val::Parts("ptrace.SpanLinkSlice", span.links.len()),
        Leaf::SpanDroppedLinks => Val::Int(i64::from(span.dropped_links)),
        Leaf::SpanStatus => Val::Parts("ptrace.Status", usize::from(span.status.code != 0)),
        Leaf::SpanStatusCode => Val::Int(i64::from(span.status.code)),
        Leaf::SpanStatusMessage => Val::Text(span.status.message),
        Leaf::SpanFlags => Val::Int(i64::from(span.flags)),
        _ => return absent(),
    })
}

fn get_of_log<'p>(leaf: Leaf, item: &Item<'_>) -> Option<Val<'p>> {
    let Record::Log(log) = &item.record else { return None };
    Some(match leaf {
        Leaf::LogNs => Val::Int(log.time_ns as i64),
        Leaf::LogObservedNs => Val::Int(log.observed_time_ns as i64),
        Leaf::LogTime => instant(log.time_ns),
        Leaf::LogObserved => instant(log.observed_time_ns),
        Leaf::LogSeverity => Val::Int(i64::from(log.severity)),
        Leaf::LogSeverityText => Val::Text(log.severity_text),
        Leaf::LogBody => Val::from(log.body),
        Leaf::LogBodyText => match log.body {
            Value::Str(text) => Val::Text(text),
            body => {
                let mut text = Vec::new();
                item.arena.write_text(body, &mut text);
                Val::from(text)
            }
        },
        Leaf::LogDropped => Val::Int(i64::from(log.dropped_attributes)),
        Leaf::LogFlags => Val::Int(i64::from(log.flags)),
        Leaf::LogTraceId => Val::TraceId(log.trace_id),
        Leaf::LogTraceIdText => Val::from(hex(&log.trace_id)),
        Leaf::LogSpanId => Val::SpanId(log.span_id),
        Leaf::LogSpanIdText => Val::from(hex(&log.span_id)),
        Leaf::LogEventName => Val::Text(log.event_name),
        _ => return None,
    })
}

fn get_of_exemplar<'p>(leaf: Leaf, item: &mut Item<'_>) -> Option<Val<'p>> {
    let exemplar = item.exemplar()?;
    Some(match leaf {
        Leaf::ExemplarNs => Val::Int(exemplar.time_ns as i64),
        Leaf::ExemplarTime => instant(exemplar.time_ns),
        Leaf::ExemplarDouble => Val::Double(double_of(exemplar.value)),
        Leaf::ExemplarInt => Val::Int(int_of(exemplar.value)),
        Leaf::ExemplarTraceId => Val::TraceId(exemplar.trace_id),
        Leaf::ExemplarTraceIdText => Val::from(hex(&exemplar.trace_id)),
        Leaf::ExemplarSpanId => Val::SpanId(exemplar.span_id),
        Leaf::ExemplarSpanIdText => Val::from(hex(&exemplar.span_id)),
        _ => return None,
    })
}

/// A number of the other type reads as 0.
fn double_of(number: Number) -> f64 {
    match number {
        Number::Double(value) => value,
        _ => 0.0,
    }
}

/// As [`double_of`].
fn int_of(number: Number) -> i64 {
    match number {
        Number::Int(value) => value,
        _ => 0,
    }
}

/// The fields that only some points have give no value for others.
fn get_of_point<'p>(leaf: Leaf, item: &mut Item<'_>) -> Got<'p> {
    let found = match leaf {
        Leaf::PointStartNs => for_point!(item, point => Val::Int(point.start_time_ns as i64)),
        Leaf::PointNs => for_point!(item, point => Val::Int(point.time_ns as i64)),
        Leaf::PointStart => for_point!(item, point => instant(point.start_time_ns)),
        Leaf::PointTime => for_point!(item, point => instant(point.time_ns)),
        Leaf::PointFlags => for_point!(item, point => Val::Int(i64::from(point.flags))),
        Leaf::PointDouble => of_point!(item, Number point => Val::Double(double_of(point.value))),
        Leaf::PointInt => of_point!(item, Number point => Val::Int(int_of(point.value))),
        Leaf::PointExemplars => of_point!(item,
            Number point => Val::Parts("pmetric.ExemplarSlice", point.exemplars.len()),
            Histogram point => Val::Parts("pmetric.ExemplarSlice", point.exemplars.len()),
            Exponential point => Val::Parts("pmetric.ExemplarSlice", point.exemplars.len())),
        Leaf::PointCount => of_point!(item,
            Histogram point => Val::Int(point.count as i64),
            Exponential point => Val::Int(point.count as i64),
            Summary point => Val::Int(point.count as i64)),
        Leaf::PointSum => of_point!(item,
            Histogram point => Val::Double(point.sum.unwrap_or(0.0)),
            Exponential point => Val::Double(point.sum.unwrap_or(0.0)),
            Summary point => Val::Double(point.sum)),
        Leaf::PointScale => of_point!(item, Exponential point => Val::Int(i64::from(point.scale))),
        Leaf::PointZeroCount => of_point!(item, Exponential point => Val::Int(point.zero_count as i64)),
        Leaf::PointPositiveOffset => {
            of_point!(item, Exponential point => Val::Int(i64::from(point.positive.offset)))
        }
        Leaf::PointNegativeOffset => {
            of_point!(item, Exponential point => Val::Int(i64::from(point.negative.offset)))
        }
        Leaf::PointPositive => of_point!(item, Exponential point => Val::Parts(POSITIVE, point.positive.counts.len())),
        Leaf::PointNegative => of_point!(item, Exponential point => Val::Parts(NEGATIVE, point.negative.counts.len())),
        Leaf::PointQuantiles => of_point!(item,
            Summary point => Val::Parts("pmetric.SummaryDataPointValueAtQuantileSlice", point.quantiles.len())),
        Leaf::PointBounds => {
            let bounds = of_point!(item, Histogram point => point.explicit_bounds.clone());
            bounds.map(|bounds| {
                let values: Vec<Value> = bounds.into_iter().map(Value::Double).collect();
                Val::List(item.arena.list(&values))
            })
        }
        Leaf::PointBucketCounts => counts(of_point!(item, Histogram point => point.bucket_counts.clone()), item.arena),
        Leaf::PointPositiveCounts => {
            counts(of_point!(item, Exponential point => point.positive.counts.clone()), item.arena)
        }
        Leaf::PointNegativeCounts => {
            counts(of_point!(item, Exponential point => point.negative.counts.clone()), item.arena)
        }
        _ => return absent(),
    };
    Ok(found.unwrap_or_default())
}

/// What the ranges of an exponential histogram are called, above 0 and below.
const POSITIVE: &str = "pmetric.ExponentialHistogramDataPointBuckets";
/// The same to all who read it.
const NEGATIVE: &str = "pmetric.ExponentialHistogramDataPointBuckets (negative)";

fn counts<'p>(counts: Option<Vec<u64>>, arena: &mut Arena) -> Option<Val<'p>> {
    let values: Vec<Value> = counts?.into_iter().map(|count| Value::Int(count as i64)).collect();
    Some(Val::List(arena.list(&values)))
}

/// Texts as a list.
/// The values of a header of the request, whose name may be written in either case.
pub(crate) fn header(item: &mut Item<'_>, name: &[u8]) -> Option<Value> {
    let values = item.request?.metadata.get(std::str::from_utf8(name).ok()?);
    (!values.is_empty()).then(|| texts(item.arena, values))
}

pub(crate) fn texts(arena: &mut Arena, texts: &[String]) -> Value {
    let values: Vec<Value> = texts.iter().map(|text| arena.own_str(text)).collect();
    Value::List(arena.list(&values))
}

const KIND_NAMES: &[&str] = &["Unspecified", "Internal", "Server", "Client", "Producer", "Consumer"];
const OLD_KIND_NAMES: &[&str] = &[
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];

fn kind_name(names: &'static [&'static str], kind: i32) -> &'static str {
    usize::try_from(kind).ok().and_then(|kind| names.get(kind)).copied().unwrap_or_default()
}

/// The attributes, or the like, that a path leads to.
pub(crate) fn root_map(leaf: Leaf, item: &mut Item<'_>) -> Option<Map> {
    match leaf {
        Leaf::Cache => Some(item.cache),
        Leaf::ResourceAttributes => Some(item.resource.attributes),
        Leaf::ScopeAttributes => item.scope.as_ref().map(|(scope, _)| scope.attributes),
        Leaf::SpanAttributes => item.span().map(|span| span.attributes),
        Leaf::EventAttributes => match &item.record {
            Record::SpanEvent(span, at) => span.events.get(*at).map(|event| event.attributes),
            _ => None,
        },
        Leaf::MetricMetadata => item.metric().map(|metric| metric.metadata),
        Leaf::PointAttributes => for_point!(item, point => point.attributes),
        Leaf::ExemplarAttributes => item.exemplar().map(|exemplar| exemplar.filtered_attributes),
        Leaf::LogAttributes => match &item.record {
            Record::Log(log) => Some(log.attributes),
            _ => None,
        },
        _ => None,
    }
}

/// Puts back attributes that were changed.
pub(crate) fn set_root_map(leaf: Leaf, item: &mut Item<'_>, map: Map) -> Result<(), EvalError> {
    match leaf {
        Leaf::Cache => item.cache = map,
        Leaf::ResourceAttributes => item.resource.attributes = map,
        Leaf::ScopeAttributes => match &mut item.scope {
            Some((scope, _)) => scope.attributes = map,
            None => return absent(),
        },
        Leaf::SpanAttributes => match item.span() {
            Some(span) => span.attributes = map,
            None => return absent(),
        },
        Leaf::EventAttributes => match &mut item.record {
            Record::SpanEvent(span, at) if *at < span.events.len() => span.events[*at].attributes = map,
            _ => return absent(),
        },
        Leaf::MetricMetadata => match item.metric() {
            Some(metric) => metric.metadata = map,
            None => return absent(),
        },
        Leaf::PointAttributes => {
            if for_point!(item, point => point.attributes = map).is_none() {
                return absent();
            }
        }
        Leaf::ExemplarAttributes => match item.exemplar() {
            Some(exemplar) => exemplar.filtered_attributes = map,
            None => return absent(),
        },
        Leaf::LogAttributes => match &mut item.record {
            Record::Log(log) => log.attributes = map,
            _ => return absent(),
        },
        _ => return absent(),
    }
    Ok(())
}

/// Refuses a value of another type than can be written.
fn expects<T>(expected: &str, found: &Val<'_>) -> Result<T, EvalError> {
    if matches!(found, Val::Nil) {
        return Err("setting a value to nil is not supported".into());
    }
    Err(format!("expects {expected} but got {}", found.type_name()).into())
}

fn int(value: &Val<'_>) -> Result<i64, EvalError> {
    match value {
        Val::Int(value) => Ok(*value),
        other => expects("int64", other),
    }
}

fn double(value: &Val<'_>) -> Result<f64, EvalError> {
    match value {
        Val::Double(value) => Ok(*value),
        other => expects("float64", other),
    }
}

fn time(value: &Val<'_>) -> Result<u64, EvalError> {
    match value {
        Val::Time(time) => Ok(time.unix_ns() as u64),
        other => expects("time.Time", other),
    }
}

fn text(value: &Val<'_>, arena: &mut Arena) -> Result<Text, EvalError> {
    match value {
        Val::Text(text) => Ok(*text),
        Val::Str(text) => Ok(arena.own(text)),
        other => expects("string", other),
    }
}

fn trace_id(value: &Val<'_>) -> Result<[u8; 16], EvalError> {
    match value {
        Val::TraceId(id) => Ok(*id),
        other => expects("pcommon.TraceID", other),
    }
}

fn span_id(value: &Val<'_>) -> Result<[u8; 8], EvalError> {
    match value {
        Val::SpanId(id) => Ok(*id),
        other => expects("pcommon.SpanID", other),
    }
}

/// An id of hexadecimal digits.
fn id_of_text<const N: usize>(value: &Val<'_>, arena: &Arena, what: &str) -> Result<[u8; N], EvalError> {
    let Some(digits) = value.text(arena) else { return expects("string", value) };
    if digits.len() / 2 != N {
        return Err(format!("{what} ids must be {} hex characters", 2 * N).into());
    }
    let id = unhex(digits).and_then(|id| id.try_into().ok());
    id.ok_or_else(|| format!("{what} ids must be hex characters").into())
}

/// Writes what a path without keys leads to.
pub(crate) fn set(leaf: Leaf, item: &mut Item<'_>, value: Val<'_>) -> Result<(), EvalError> {
    if let Some(name) = read_only(leaf) {
        return Err(format!("{name} is read-only and cannot be modified").into());
    }
    if root_map(leaf, item).is_some() {
        let map = match value {
            Val::Nil => Map::default(),
            Val::Map(map) => copy_map(item.arena, map),
            other => {
                return Err(
                    format!("unsupported type provided for setting a pcommon.Map: {}", other.type_name()).into()
                );
            }
        };
        return set_root_map(leaf, item, map);
    }
    match leaf {
        Leaf::ResourceDropped => item.resource.dropped_attributes = int(&value)? as u32,
        Leaf::ResourceSchema => *item.resource_schema_url = text(&value, item.arena)?,
        Leaf::ScopeName | Leaf::ScopeVersion | Leaf::ScopeDropped | Leaf::ScopeSchema => {
            let Some((scope, schema_url)) = &mut item.scope else { return absent() };
            match leaf {
                Leaf::ScopeName => scope.name = text(&value, item.arena)?,
                Leaf::ScopeVersion => scope.version = text(&value, item.arena)?,
                Leaf::ScopeDropped => scope.dropped_attributes = int(&value)? as u32,
                _ => **schema_url = text(&value, item.arena)?,
            }
        }
        Leaf::EventName | Leaf::EventNs | Leaf::EventTime | Leaf::EventDropped => {
            let Record::SpanEvent(span, at) = &mut item.record else { return absent() };
            let Some(event) = span.events.get_mut(*at) else { return absent() };
            match leaf {
                Leaf::EventName => event.name = text(&value, item.arena)?,
                Leaf::EventNs => event.time_ns = int(&value)? as u64,
                Leaf::EventTime => event.time_ns = time(&value)?,
                _ => event.dropped_attributes = int(&value)? as u32,
            }
        }
        _ => match &mut item.record {
            Record::Log(_) => return set_of_log(leaf, item, value),
            Record::Span(_) | Record::SpanEvent(..) => return set_of_span(leaf, item, value),
            Record::Metric(..) | Record::DataPoint(..) => return set_of_metric(leaf, item, value),
            Record::Exemplar(..) => return set_of_exemplar(leaf, item, value),
            Record::None => return absent(),
        },
    }
    Ok(())
}

fn set_of_log(leaf: Leaf, item: &mut Item<'_>, value: Val<'_>) -> Result<(), EvalError> {
    let Record::Log(log) = &mut item.record else { return absent() };
    let arena = &mut *item.arena;
    match leaf {
        Leaf::LogNs => log.time_ns = int(&value)? as u64,
        Leaf::LogObservedNs => log.observed_time_ns = int(&value)? as u64,
        Leaf::LogTime => log.time_ns = time(&value)?,
        Leaf::LogObserved => log.observed_time_ns = time(&value)?,
        Leaf::LogSeverity => log.severity = int(&value)? as i32,
        Leaf::LogSeverityText => log.severity_text = text(&value, arena)?,
        Leaf::LogBody => log.body = value.into_value(arena)?,
        Leaf::LogBodyText => log.body = Value::Str(text(&value, arena)?),
        Leaf::LogDropped => log.dropped_attributes = int(&value)? as u32,
        Leaf::LogFlags => log.flags = int(&value)? as u32,
        Leaf::LogTraceId => log.trace_id = trace_id(&value)?,
        Leaf::LogTraceIdText => log.trace_id = id_of_text(&value, arena, "trace")?,
        Leaf::LogSpanId => log.span_id = span_id(&value)?,
        Leaf::LogSpanIdText => log.span_id = id_of_text(&value, arena, "span")?,
        Leaf::LogEventName => log.event_name = text(&value, arena)?,
        _ => return absent(),
    }
    Ok(())
}

/// Parts of an item are only ever written to where they were read.
fn same_parts(value: &Val<'_>, name: &str) -> Result<(), EvalError> {
    match value {
        Val::Parts(found, _) if *found == name => Ok(()),
        other => expects(name, other),
    }
}

fn set_of_span(leaf: Leaf, item: &mut Item<'_>, value: Val<'_>) -> Result<(), EvalError> {
    let (Record::Span(span) | Record::SpanEvent(span, _)) = &mut item.record else { return absent() };
    let arena = &mut *item.arena;
    let kind = |names: &[&str], what: &str, arena: &Arena| {
        let Some(name) = value.text(arena) else { return expects("string", &value) };
        let found = names.iter().position(|known| known.as_bytes() == name);
        let unknown = || EvalError::new(format!("unknown span kind {what}, {}", String::from_utf8_lossy(name)));
        found.map(|kind| kind as i32).ok_or_else(unknown)
    };
    match leaf {
        Leaf::SpanTraceId => span.trace_id = trace_id(&value)?,
        Leaf::SpanTraceIdText => span.trace_id = id_of_text(&value, arena, "trace")?,
        Leaf::SpanId => span.span_id = span_id(&value)?,
        Leaf::SpanIdText => span.span_id = id_of_text(&value, arena, "span")?,
        Leaf::SpanParent => span.parent_span_id = span_id(&value)?,
        Leaf::SpanParentText => span.parent_span_id = id_of_text(&value, arena, "span")?,
        Leaf::SpanState => span.trace_state = text(&value, arena)?,
        Leaf::SpanName => span.name = text(&value, arena)?,
        Leaf::SpanKind => span.kind = int(&value)? as i32,
        Leaf::SpanKindText => span.kind = kind(KIND_NAMES, "string", arena)?,
        Leaf::SpanKindOldText => span.kind = kind(OLD_KIND_NAMES, "deprecated string", arena)?,
        Leaf::SpanStartNs => span.start_time_ns = int(&value)? as u64,
        Leaf::SpanEndNs => span.end_time_ns = int(&value)? as u64,
        Leaf::SpanStart => span.start_time_ns = time(&value)?,
        Leaf::SpanEnd => span.end_time_ns = time(&value)?,
        Leaf::SpanDropped => span.dropped_attributes = int(&value)? as u32,
        Leaf::SpanEvents => same_parts(&value, "ptrace.SpanEventSlice")?,
        Leaf::SpanDroppedEvents => span.dropped_events = int(&value)? as u32,
        Leaf::SpanLinks => same_parts(&value, "ptrace.SpanLinkSlice")?,
        Leaf::SpanDroppedLinks => span.dropped_links = int(&value)? as u32,
        Leaf::SpanStatus => same_parts(&value, "ptrace.Status")?,
        Leaf::SpanStatusCode => span.status.code = int(&value)? as i32,
        Leaf::SpanStatusMessage => span.status.message = text(&value, arena)?,
        Leaf::SpanFlags => {
            let flags = int(&value)?;
            let out_of_range = |_| EvalError::new(format!("value {flags} is out of range for uint32"));
            span.flags = u32::try_from(flags).map_err(out_of_range)?;
        }
        _ => return absent(),
    }
    Ok(())
}

fn set_of_exemplar(leaf: Leaf, item: &mut Item<'_>, value: Val<'_>) -> Result<(), EvalError> {
    let trace_id = match leaf {
        Leaf::ExemplarTraceId => Some(trace_id(&value)?),
        Leaf::ExemplarTraceIdText => Some(id_of_text(&value, item.arena, "trace")?),
        _ => None,
    };
    let span_id = match leaf {
        Leaf::ExemplarSpanId => Some(span_id(&value)?),
        Leaf::ExemplarSpanIdText => Some(id_of_text(&value, item.arena, "span")?),
        _ => None,
    };
    let Some(exemplar) = item.exemplar() else { return absent() };
    match (leaf, trace_id, span_id) {
        (_, Some(id), _) => exemplar.trace_id = id,
        (_, _, Some(id)) => exemplar.span_id = id,
        (Leaf::ExemplarNs, ..) => exemplar.time_ns = int(&value)? as u64,
        (Leaf::ExemplarTime, ..) => exemplar.time_ns = time(&value)?,
        (Leaf::ExemplarDouble, ..) => exemplar.value = Number::Double(double(&value)?),
        (Leaf::ExemplarInt, ..) => exemplar.value = Number::Int(int(&value)?),
        _ => return set_of_metric(leaf, item, value),
    }
    Ok(())
}

fn set_of_metric(leaf: Leaf, item: &mut Item<'_>, value: Val<'_>) -> Result<(), EvalError> {
    let name = match leaf {
        Leaf::MetricName | Leaf::MetricDescription | Leaf::MetricUnit => Some(text(&value, item.arena)?),
        _ => None,
    };
    let Some(metric) = item.metric() else { return absent() };
    match (leaf, name) {
        (Leaf::MetricName, Some(name)) => metric.name = name,
        (Leaf::MetricDescription, Some(description)) => metric.description = description,
        (Leaf::MetricUnit, Some(unit)) => metric.unit = unit,
        // It can be written to, and nothing happens.
        (Leaf::MetricType, _) => {}
        (Leaf::MetricTemporality, _) => {
            let new = int(&value)? as i32;
            if let Points::Sum { temporality, .. }
            | Points::Histogram { temporality, .. }
            | Points::Exponential { temporality, .. } = &mut metric.points
            {
                *temporality = new;
            }
        }
        (Leaf::MetricMonotonic, _) => {
            let Val::Bool(new) = value else { return expects("bool", &value) };
            if let Points::Sum { monotonic, .. } = &mut metric.points {
                *monotonic = new;
            }
        }
        (Leaf::MetricPoints, _) => {
            let Val::Parts(..) = value else { return expects("the points of a metric", &value) };
        }
        _ => return set_of_point(leaf, item, value),
    }
    Ok(())
}

fn set_of_point(leaf: Leaf, item: &mut Item<'_>, value: Val<'_>) -> Result<(), EvalError> {
    let done = match leaf {
        Leaf::PointStartNs => {
            let ns = int(&value)? as u64;
            for_point!(item, point => point.start_time_ns = ns)
        }
        Leaf::PointNs => {
            let ns = int(&value)? as u64;
            for_point!(item, point => point.time_ns = ns)
        }
        Leaf::PointStart => {
            let ns = time(&value)?;
            for_point!(item, point => point.start_time_ns = ns)
        }
        Leaf::PointTime => {
            let ns = time(&value)?;
            for_point!(item, point => point.time_ns = ns)
        }
        Leaf::PointFlags => {
            let flags = int(&value)? as u32;
            for_point!(item, point => point.flags = flags)
        }
        Leaf::PointDouble => {
            let new = double(&value)?;
            of_point!(item, Number point => point.value = Number::Double(new))
        }
        Leaf::PointInt => {
            let new = int(&value)?;
            of_point!(item, Number point => point.value = Number::Int(new))
        }
        Leaf::PointExemplars => {
            same_parts(&value, "pmetric.ExemplarSlice")?;
            Some(())
        }
        Leaf::PointQuantiles => {
            same_parts(&value, "pmetric.SummaryDataPointValueAtQuantileSlice")?;
            Some(())
        }
        Leaf::PointCount => {
            let new = int(&value)? as u64;
            of_point!(item,
                Histogram point => point.count = new,
                Exponential point => point.count = new,
                Summary point => point.count = new)
        }
        Leaf::PointSum => {
            let new = double(&value)?;
            of_point!(item,
                Histogram point => point.sum = Some(new),
                Exponential point => point.sum = Some(new),
                Summary point => point.sum = new)
        }
        Leaf::PointScale => {
            let new = int(&value)? as i32;
            of_point!(item, Exponential point => point.scale = new)
        }
        Leaf::PointZeroCount => {
            let new = int(&value)? as u64;
            of_point!(item, Exponential point => point.zero_count = new)
        }
        Leaf::PointPositiveOffset => {
            let new = int(&value)? as i32;
            of_point!(item, Exponential point => point.positive.offset = new)
        }
        Leaf::PointNegativeOffset => {
            let new = int(&value)? as i32;
            of_point!(item, Exponential point => point.negative.offset = new)
        }
        Leaf::PointPositive | Leaf::PointNegative => {
            let from_positive = match &value {
                Val::Parts(POSITIVE, _) => true,
                Val::Parts(NEGATIVE, _) => false,
                other => return expects(POSITIVE, other),
            };
            of_point!(item, Exponential point => {
                let from: Buckets = if from_positive { point.positive.clone() } else { point.negative.clone() };
                let to = if leaf == Leaf::PointPositive { &mut point.positive } else { &mut point.negative };
                *to = from;
            })
        }
        Leaf::PointBounds => {
            let bounds = numbers(&value, item.arena, |value| match value {
                Value::Double(value) => Some(*value),
                _ => None,
            })?;
            of_point!(item, Histogram point => point.explicit_bounds = bounds)
        }
        Leaf::PointBucketCounts | Leaf::PointPositiveCounts | Leaf::PointNegativeCounts => {
            let counts = numbers(&value, item.arena, |value| match value {
                Value::Int(value) => Some(*value as u64),
                _ => None,
            })?;
            match leaf {
                Leaf::PointBucketCounts => of_point!(item, Histogram point => point.bucket_counts = counts),
                Leaf::PointPositiveCounts => of_point!(item, Exponential point => point.positive.counts = counts),
                _ => of_point!(item, Exponential point => point.negative.counts = counts),
            }
        }
        _ => None,
    };
    done.ok_or_else(|| "the point is of a kind that has no such part".into())
}

/// The numbers of a list, all of one type.
fn numbers<T>(value: &Val<'_>, arena: &Arena, number: impl Fn(&Value) -> Option<T>) -> Result<Vec<T>, EvalError> {
    match value {
        Val::Nil => Ok(Vec::new()),
        Val::List(list) => {
            let numbers: Option<Vec<T>> = arena.values(*list).iter().map(number).collect();
            numbers.ok_or_else(|| "the list holds values of another type".into())
        }
        other => expects("a list of numbers", other),
    }
}

/// One entry of a W3C trace state.
pub(crate) fn trace_state_entry<'p>(item: &mut Item<'_>, key: &[u8]) -> Got<'p> {
    let Some(span) = item.span() else { return absent() };
    let state = span.trace_state;
    let state = item.arena.bytes(state);
    let entries = trace_state::parse(state);
    let found = entries.map(|entries| entries.iter().find(|(known, _)| *known == key).map(|(_, value)| value.to_vec()));
    // What cannot be read has no entries, and one that is not there is empty.
    Ok(found.map_or(Val::Nil, |value| Val::from(value.unwrap_or_default())))
}

/// Gives an entry of a W3C trace state a value, and moves it to the front.
pub(crate) fn set_trace_state_entry(item: &mut Item<'_>, key: &[u8], value: &Val<'_>) -> Result<(), EvalError> {
    let Some(value) = value.text(item.arena).map(<[u8]>::to_vec) else { return expects("string", value) };
    let Some(span) = item.span() else { return absent() };
    let state = span.trace_state;
    let Some(new) = trace_state::insert(item.arena.bytes(state), key, &value) else { return Ok(()) };
    let new = item.arena.own(&new);
    if let Some(span) = item.span() {
        span.trace_state = new;
    }
    Ok(())
}
