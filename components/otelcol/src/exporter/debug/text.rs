//! Telemetry as a text for people, line by line as the OpenTelemetry Collector's debug exporter writes it.

use std::fmt::Write as _;
use std::sync::LazyLock;

use corten_golang::time::{Layout, Time};
use corten_otlp::metrics::{
    Buckets, Exemplar, ExponentialPoint, HistogramPoint, Number, NumberPoint, Points, SummaryPoint,
};
use corten_otlp::{Arena, Data, LogRecord, Map, Metric, OfResource, OfScope, Record, Resource, Span, Text, Value};
use corten_wire::float::go_float;

/// How long a text gets: what is beyond is left out.
pub(super) const TEXT_BYTES_MAX: usize = 16 << 20;

/// What can be written.
pub(super) trait Shown: Record {
    /// What a summary begins with.
    const SUMMARY: &'static str;
    /// What a summary calls resources.
    const RESOURCES: &'static str;
    /// What a short text calls a resource and a scope.
    const SHORT: [&'static str; 2];
    /// What a long text calls a resource and a scope.
    const LONG: [&'static str; 2];
    /// What a long text calls a record.
    const RECORD: &'static str;

    /// What a summary says of records.
    fn counts(records: usize, items: usize) -> Vec<(&'static str, usize)>;

    /// One line for each item.
    fn short(&self, arena: &Arena, out: &mut String);

    /// All that it says.
    fn long(&self, out: &mut Lines<'_>);
}

/// One line for each resource, each scope and each item.
pub(super) fn short<'a, R: Shown>(parts: impl Iterator<Item = &'a Data<R>>) -> String {
    let mut out = String::new();
    each(parts, &mut out, |out, arena, level| match level {
        Level::Resource(at, of) => {
            _ = write!(out, "{} #{at}", R::SHORT[0]);
            if !of.schema_url.is_empty() {
                _ = write!(out, " [{}]", arena.text(of.schema_url));
            }
            spaced(arena, of.resource.attributes, out);
            out.push('\n');
        }
        Level::Scope(at, of) => {
            _ = write!(out, "{} #{at}", R::SHORT[1]);
            let mut details = arena.text(of.scope.name).into_owned();
            if !of.scope.version.is_empty() {
                _ = write!(details, "@{}", arena.text(of.scope.version));
            }
            if !of.schema_url.is_empty() {
                let space = if details.is_empty() { "" } else { " " };
                _ = write!(details, "{space}[{}]", arena.text(of.schema_url));
            }
            if !details.is_empty() {
                _ = write!(out, " {details}");
            }
            spaced(arena, of.scope.attributes, out);
            out.push('\n');
        }
        Level::Record(_, record) => record.short(arena, out),
    });
    out
}

/// All that the telemetry says.
pub(super) fn long<'a, R: Shown>(parts: impl Iterator<Item = &'a Data<R>>) -> String {
    let mut out = String::new();
    each(parts, &mut out, |out, arena, level| {
        let mut lines = Lines { arena, out };
        match level {
            Level::Resource(at, of) => {
                lines.line(format_args!("{} #{at}", R::LONG[0]));
                lines.line(format_args!("Resource SchemaURL: {}", arena.text(of.schema_url)));
                lines.attributes("Resource attributes", of.resource.attributes);
                lines.entities(&of.resource);
            }
            Level::Scope(at, of) => {
                lines.line(format_args!("{} #{at}", R::LONG[1]));
                lines.line(format_args!("{} SchemaURL: {}", R::LONG[1], arena.text(of.schema_url)));
                let (name, version) = (arena.text(of.scope.name), arena.text(of.scope.version));
                lines.line(format_args!("InstrumentationScope {name} {version}"));
                lines.attributes("InstrumentationScope attributes", of.scope.attributes);
            }
            Level::Record(at, record) => {
                lines.line(format_args!("{} #{at}", R::RECORD));
                record.long(&mut lines);
            }
        }
    });
    out
}

enum Level<'a, R> {
    Resource(usize, &'a OfResource<R>),
    Scope(usize, &'a OfScope<R>),
    Record(usize, &'a R),
}

fn each<'a, R: Record>(
    parts: impl Iterator<Item = &'a Data<R>>,
    out: &mut String,
    mut write: impl FnMut(&mut String, &Arena, Level<'_, R>),
) {
    let resources = parts.flat_map(|data| data.resources.iter().map(|of| (&data.arena, of)));
    let is_full = |out: &mut String| {
        let is_full = out.len() >= TEXT_BYTES_MAX;
        if is_full {
            out.push_str("… (the rest is left out)\n");
        }
        is_full
    };
    for (at, (arena, of)) in resources.enumerate() {
        if is_full(out) {
            return;
        }
        write(out, arena, Level::Resource(at, of));
        for (at, of) in of.scopes.iter().enumerate() {
            if is_full(out) {
                return;
            }
            write(out, arena, Level::Scope(at, of));
            for (at, record) in of.records.iter().enumerate() {
                if is_full(out) {
                    return;
                }
                write(out, arena, Level::Record(at, record));
            }
        }
    }
}

/// Attributes with a space before each.
fn spaced(arena: &Arena, map: Map, out: &mut String) {
    for pair in arena.pairs(map) {
        _ = write!(out, " {}={}", arena.text(pair.key), arena.to_text(pair.value));
    }
}

/// Attributes with something between.
fn joined(arena: &Arena, map: Map, between: char) -> String {
    let mut out = String::new();
    for (at, pair) in arena.pairs(map).iter().enumerate() {
        if at > 0 {
            out.push(between);
        }
        _ = write!(out, "{}={}", arena.text(pair.key), arena.to_text(pair.value));
    }
    out
}

/// Lines of a long text.
pub(super) struct Lines<'a> {
    arena: &'a Arena,
    out: &'a mut String,
}

impl Lines<'_> {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        if self.out.len() < TEXT_BYTES_MAX {
            _ = self.out.write_fmt(line);
            self.out.push('\n');
        }
    }

    fn field(&mut self, name: &str, value: &str) {
        self.line(format_args!("    {name:<15}: {value}"));
    }

    fn text(&mut self, name: &str, text: Text) {
        let text = self.arena.text(text);
        self.line(format_args!("{name}: {text}"));
    }

    fn time(&mut self, name: &str, time_ns: u64) {
        self.line(format_args!("{name}: {}", time(time_ns)));
    }

    fn attributes(&mut self, header: &str, map: Map) {
        if map.is_empty() {
            return;
        }
        self.line(format_args!("{header}:"));
        // Below a line that is set in already, they are set in further.
        let before = header.split_once("->").map_or("", |(before, _)| before);
        for pair in self.arena.pairs(map) {
            let (key, value) = (self.arena.text(pair.key), typed(self.arena, pair.value));
            self.line(format_args!("{before}     -> {key}: {value}"));
        }
    }

    fn entities(&mut self, resource: &Resource) {
        if resource.entities.is_empty() {
            return;
        }
        self.line(format_args!("Resource entity refs:"));
        for (at, entity) in resource.entities.iter().enumerate() {
            let fields = fields(self.arena.bytes(*entity));
            let all = |number| {
                let of = fields.iter().filter(move |(field, _)| *field == number);
                of.map(|(_, text)| String::from_utf8_lossy(text)).collect::<Vec<_>>()
            };
            self.line(format_args!("     -> Entity ref #{at}:"));
            self.line(format_args!("          -> Type: {}", all(2).last().map_or("", |kind| kind)));
            if let Some(url) = all(1).last().filter(|url| !url.is_empty()) {
                self.line(format_args!("          -> Schema URL: {url}"));
            }
            for (header, keys) in [("ID keys", all(3)), ("Description keys", all(4))] {
                if !keys.is_empty() {
                    self.line(format_args!("          -> {header}:"));
                }
                for key in keys {
                    self.line(format_args!("               -> {key}"));
                }
            }
        }
    }

    fn exemplars(&mut self, exemplars: &[Exemplar]) {
        if !exemplars.is_empty() {
            self.line(format_args!("Exemplars:"));
        }
        for (at, exemplar) in exemplars.iter().enumerate() {
            self.line(format_args!("Exemplar #{at}"));
            self.line(format_args!("     -> Trace ID: {}", hex(&exemplar.trace_id)));
            self.line(format_args!("     -> Span ID: {}", hex(&exemplar.span_id)));
            self.time("     -> Timestamp", exemplar.time_ns);
            self.number("     -> Value", exemplar.value);
            self.attributes("     -> FilteredAttributes", exemplar.filtered_attributes);
        }
    }

    fn number(&mut self, name: &str, number: Number) {
        match number {
            Number::None => {}
            Number::Int(value) => self.line(format_args!("{name}: {value}")),
            Number::Double(value) => self.line(format_args!("{name}: {}", fixed(value))),
        }
    }

    fn point(&mut self, kind: &str, at: usize, attributes: Map, start_time_ns: u64, time_ns: u64) {
        self.line(format_args!("{kind} #{at}"));
        self.attributes("Data point attributes", attributes);
        self.time("StartTimestamp", start_time_ns);
        self.time("Timestamp", time_ns);
    }

    fn sums(&mut self, count: u64, sums: [(&str, Option<f64>); 3]) {
        self.line(format_args!("Count: {count}"));
        for (name, value) in sums {
            if let Some(value) = value {
                self.line(format_args!("{name}: {}", fixed(value)));
            }
        }
    }

    fn number_points(&mut self, points: &[NumberPoint]) {
        for (at, point) in points.iter().enumerate() {
            self.point("NumberDataPoints", at, point.attributes, point.start_time_ns, point.time_ns);
            self.number("Value", point.value);
            self.exemplars(&point.exemplars);
        }
    }

    fn histogram_points(&mut self, points: &[HistogramPoint]) {
        for (at, point) in points.iter().enumerate() {
            self.point("HistogramDataPoints", at, point.attributes, point.start_time_ns, point.time_ns);
            self.sums(point.count, [("Sum", point.sum), ("Min", point.min), ("Max", point.max)]);
            for (at, bound) in point.explicit_bounds.iter().enumerate() {
                self.line(format_args!("ExplicitBounds #{at}: {}", fixed(*bound)));
            }
            for (at, count) in point.bucket_counts.iter().enumerate() {
                self.line(format_args!("Buckets #{at}, Count: {count}"));
            }
            self.exemplars(&point.exemplars);
        }
    }

    fn exponential_points(&mut self, points: &[ExponentialPoint]) {
        for (at, point) in points.iter().enumerate() {
            self.point("ExponentialHistogramDataPoints", at, point.attributes, point.start_time_ns, point.time_ns);
            self.sums(point.count, [("Sum", point.sum), ("Min", point.min), ("Max", point.max)]);
            let bound = bounds(point.scale);
            for (at, count) in point.negative.counts.iter().enumerate().rev() {
                let (lower, upper) = (bound(&point.negative, at), bound(&point.negative, at + 1));
                self.line(format_args!("Bucket [{}, {}), Count: {count}", fixed(-upper), fixed(-lower)));
            }
            if point.zero_count != 0 {
                self.line(format_args!("Bucket [0, 0], Count: {}", point.zero_count));
            }
            for (at, count) in point.positive.counts.iter().enumerate() {
                let (lower, upper) = (bound(&point.positive, at), bound(&point.positive, at + 1));
                self.line(format_args!("Bucket ({}, {}], Count: {count}", fixed(lower), fixed(upper)));
            }
            self.exemplars(&point.exemplars);
        }
    }

    fn summary_points(&mut self, points: &[SummaryPoint]) {
        for (at, point) in points.iter().enumerate() {
            self.point("SummaryDataPoints", at, point.attributes, point.start_time_ns, point.time_ns);
            self.sums(point.count, [("Sum", Some(point.sum)), ("", None), ("", None)]);
            for (at, (quantile, value)) in point.quantiles.iter().enumerate() {
                let (quantile, value) = (fixed(*quantile), fixed(*value));
                self.line(format_args!("QuantileValue #{at}: Quantile {quantile}, Value {value}"));
            }
        }
    }
}

/// The lower bound of a bucket of a scale.
fn bounds(scale: i32) -> impl Fn(&Buckets, usize) -> f64 {
    let factor = std::f64::consts::LN_2 * (-f64::from(scale)).exp2();
    move |buckets, at| ((f64::from(buckets.offset) + at as f64) * factor).exp()
}

impl Shown for Span {
    const SUMMARY: &'static str = "Traces";
    const RESOURCES: &'static str = "resource spans";
    const SHORT: [&'static str; 2] = ["ResourceTraces", "ScopeTraces"];
    const LONG: [&'static str; 2] = ["ResourceSpans", "ScopeSpans"];
    const RECORD: &'static str = "Span";

    fn counts(_: usize, items: usize) -> Vec<(&'static str, usize)> {
        vec![("spans", items)]
    }

    fn short(&self, arena: &Arena, out: &mut String) {
        _ = write!(out, "{} {} {}", arena.text(self.name), hex(&self.trace_id), hex(&self.span_id));
        spaced(arena, self.attributes, out);
        out.push('\n');
    }

    fn long(&self, out: &mut Lines<'_>) {
        let arena = out.arena;
        out.field("Trace ID", &hex(&self.trace_id));
        out.field("Parent ID", &hex(&self.parent_span_id));
        out.field("ID", &hex(&self.span_id));
        out.field("Name", &arena.text(self.name));
        const KINDS: [&str; 6] = ["Unspecified", "Internal", "Server", "Client", "Producer", "Consumer"];
        out.field("Kind", named(&KINDS, self.kind));
        if !self.trace_state.is_empty() {
            out.field("TraceState", &arena.text(self.trace_state));
        }
        out.field("Start time", &time(self.start_time_ns));
        out.field("End time", &time(self.end_time_ns));
        out.field("Status code", named(&["Unset", "Ok", "Error"], self.status.code));
        out.field("Status message", &arena.text(self.status.message));
        out.field("DroppedAttributesCount", &self.dropped_attributes.to_string());
        out.field("DroppedEventsCount", &self.dropped_events.to_string());
        out.field("DroppedLinksCount", &self.dropped_links.to_string());
        out.attributes("Attributes", self.attributes);
        if !self.events.is_empty() {
            out.line(format_args!("Events:"));
        }
        for (at, event) in self.events.iter().enumerate() {
            out.line(format_args!("SpanEvent #{at}"));
            out.text("     -> Name", event.name);
            out.time("     -> Timestamp", event.time_ns);
            out.line(format_args!("     -> DroppedAttributesCount: {}", event.dropped_attributes));
            out.attributes("     -> Attributes:", event.attributes);
        }
        if !self.links.is_empty() {
            out.line(format_args!("Links:"));
        }
        for (at, link) in self.links.iter().enumerate() {
            out.line(format_args!("SpanLink #{at}"));
            out.line(format_args!("     -> Trace ID: {}", hex(&link.trace_id)));
            out.line(format_args!("     -> ID: {}", hex(&link.span_id)));
            out.text("     -> TraceState", link.trace_state);
            out.line(format_args!("     -> DroppedAttributesCount: {}", link.dropped_attributes));
            out.attributes("     -> Attributes:", link.attributes);
        }
    }
}

impl Shown for LogRecord {
    const SUMMARY: &'static str = "Logs";
    const RESOURCES: &'static str = "resource logs";
    const SHORT: [&'static str; 2] = ["ResourceLog", "ScopeLog"];
    const LONG: [&'static str; 2] = ["ResourceLog", "ScopeLogs"];
    const RECORD: &'static str = "LogRecord";

    fn counts(_: usize, items: usize) -> Vec<(&'static str, usize)> {
        vec![("log records", items)]
    }

    fn short(&self, arena: &Arena, out: &mut String) {
        _ = writeln!(out, "{} {}", arena.to_text(self.body), joined(arena, self.attributes, ' '));
    }

    fn long(&self, out: &mut Lines<'_>) {
        out.time("ObservedTimestamp", self.observed_time_ns);
        out.time("Timestamp", self.time_ns);
        out.text("SeverityText", self.severity_text);
        out.line(format_args!("SeverityNumber: {}({})", severity(self.severity), self.severity));
        if !self.event_name.is_empty() {
            out.text("EventName", self.event_name);
        }
        let body = typed(out.arena, self.body);
        out.line(format_args!("Body: {body}"));
        out.attributes("Attributes", self.attributes);
        out.line(format_args!("Trace ID: {}", hex(&self.trace_id)));
        out.line(format_args!("Span ID: {}", hex(&self.span_id)));
        out.line(format_args!("Flags: {}", self.flags));
    }
}

impl Shown for Metric {
    const SUMMARY: &'static str = "Metrics";
    const RESOURCES: &'static str = "resource metrics";
    const SHORT: [&'static str; 2] = ["ResourceMetrics", "ScopeMetrics"];
    const LONG: [&'static str; 2] = ["ResourceMetrics", "ScopeMetrics"];
    const RECORD: &'static str = "Metric";

    fn counts(records: usize, items: usize) -> Vec<(&'static str, usize)> {
        vec![("metrics", records), ("data points", items)]
    }

    fn short(&self, arena: &Arena, out: &mut String) {
        let name = arena.text(self.name);
        let mut line = |attributes, value: String| {
            if out.len() < TEXT_BYTES_MAX {
                _ = writeln!(out, "{name}{{{}}} {value}", joined(arena, attributes, ','));
            }
        };
        match &self.points {
            Points::None => {}
            Points::Gauge(points) | Points::Sum { points, .. } => {
                for point in points {
                    line(
                        point.attributes,
                        match point.value {
                            Number::None => String::new(),
                            Number::Int(value) => value.to_string(),
                            Number::Double(value) => go_float(value),
                        },
                    );
                }
            }
            Points::Histogram { points, .. } => {
                for point in points {
                    let mut value = counted(point.count, point.sum, point.min, point.max);
                    for (at, count) in point.bucket_counts.iter().enumerate() {
                        match point.explicit_bounds.get(at) {
                            Some(bound) => _ = write!(value, " le{}={count}", go_float(*bound)),
                            None => _ = write!(value, " {count}"),
                        }
                    }
                    line(point.attributes, value);
                }
            }
            Points::Exponential { points, .. } => {
                for point in points {
                    let mut value = counted(point.count, point.sum, point.min, point.max);
                    let bound = bounds(point.scale);
                    for (at, count) in point.negative.counts.iter().enumerate().rev() {
                        _ = write!(value, " le{}={count}", go_float(-bound(&point.negative, at)));
                    }
                    if point.zero_count != 0 {
                        _ = write!(value, " zero={}", point.zero_count);
                    }
                    for (at, count) in point.positive.counts.iter().enumerate() {
                        _ = write!(value, " le{}={count}", go_float(bound(&point.positive, at + 1)));
                    }
                    line(point.attributes, value);
                }
            }
            Points::Summary(points) => {
                for point in points {
                    let mut value = format!("count={} sum={}", point.count, fixed(point.sum));
                    for (quantile, of) in &point.quantiles {
                        _ = write!(value, " q{}={}", go_float(*quantile), go_float(*of));
                    }
                    line(point.attributes, value);
                }
            }
        }
    }

    fn long(&self, out: &mut Lines<'_>) {
        out.line(format_args!("Descriptor:"));
        out.text("     -> Name", self.name);
        out.text("     -> Description", self.description);
        out.text("     -> Unit", self.unit);
        let kind = match &self.points {
            Points::None => "Empty",
            Points::Gauge(_) => "Gauge",
            Points::Sum { .. } => "Sum",
            Points::Histogram { .. } => "Histogram",
            Points::Exponential { .. } => "ExponentialHistogram",
            Points::Summary(_) => "Summary",
        };
        out.line(format_args!("     -> DataType: {kind}"));
        out.attributes("     -> Metadata", self.metadata);
        let temporality = |out: &mut Lines<'_>, temporality| {
            let name = named(&["Unspecified", "Delta", "Cumulative"], temporality);
            out.line(format_args!("     -> AggregationTemporality: {name}"));
        };
        match &self.points {
            Points::None => {}
            Points::Gauge(points) => out.number_points(points),
            Points::Sum { points, temporality: of, monotonic } => {
                out.line(format_args!("     -> IsMonotonic: {monotonic}"));
                temporality(out, *of);
                out.number_points(points);
            }
            Points::Histogram { points, temporality: of } => {
                temporality(out, *of);
                out.histogram_points(points);
            }
            Points::Exponential { points, temporality: of } => {
                temporality(out, *of);
                out.exponential_points(points);
            }
            Points::Summary(points) => out.summary_points(points),
        }
    }
}

fn counted(count: u64, sum: Option<f64>, min: Option<f64>, max: Option<f64>) -> String {
    let mut out = format!("count={count}");
    for (name, value) in [("sum", sum), ("min", min), ("max", max)] {
        if let Some(value) = value {
            _ = write!(out, " {name}={}", go_float(value));
        }
    }
    out
}

/// A value with its type.
fn typed(arena: &Arena, value: Value) -> String {
    let kind = match value {
        Value::Empty => "Empty",
        Value::Str(_) => "Str",
        Value::Bool(_) => "Bool",
        Value::Int(_) => "Int",
        Value::Double(_) => "Double",
        Value::Bytes(_) => "Bytes",
        Value::List(_) => "Slice",
        Value::Map(_) => "Map",
    };
    format!("{kind}({})", arena.to_text(value))
}

/// The name of a number; empty if it has none.
fn named<'a>(names: &[&'a str], number: i32) -> &'a str {
    usize::try_from(number).ok().and_then(|at| names.get(at)).copied().unwrap_or_default()
}

fn severity(number: i32) -> String {
    match number {
        0 => "Unspecified".to_owned(),
        1..=24 => {
            let name = named(&["Trace", "Debug", "Info", "Warn", "Error", "Fatal"], (number - 1) / 4);
            match (number - 1) % 4 {
                0 => name.to_owned(),
                further => format!("{name}{}", further + 1),
            }
        }
        _ => String::new(),
    }
}

/// An identifier; empty if it is none.
fn hex(id: &[u8]) -> String {
    if id.iter().all(|byte| *byte == 0) {
        return String::new();
    }
    corten_golang::hex(id)
}

/// A time, in UTC.
fn time(time_ns: u64) -> String {
    static LAYOUT: LazyLock<Layout> = LazyLock::new(|| Layout::new("2006-01-02 15:04:05.999999999 -0700 MST"));
    // What is beyond the year 2262 wraps around, as in the reference.
    LAYOUT.format(&Time::from_unix_ns(time_ns as i64))
}

/// A number with six digits after its point.
fn fixed(value: f64) -> String {
    match value {
        v if v.is_nan() => "NaN".to_owned(),
        v if v.is_infinite() => if v > 0.0 { "+Inf" } else { "-Inf" }.to_owned(),
        v => format!("{v:.6}"),
    }
}

/// The fields of a message of protocol buffers that have a length, as far as it can be read.
fn fields(mut message: &[u8]) -> Vec<(u64, &[u8])> {
    fn varint(bytes: &mut &[u8]) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = bytes.split_first()?;
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
    let mut found = Vec::new();
    while let Some(key) = varint(&mut message).filter(|key| key & 7 == 2) {
        let Some(len) = varint(&mut message).and_then(|len| usize::try_from(len).ok()) else { break };
        let Some((text, rest)) = message.split_at_checked(len) else { break };
        found.push((key >> 3, text));
        message = rest;
    }
    found
}

#[cfg(test)]
mod tests {
    use corten_otlp::Batch;
    use corten_testkit::otlp;

    use super::*;

    fn texts<R: Shown>(json: &str) -> (String, String) {
        let batch: Batch<R> = otlp(json);
        let parts = || batch.data().map(|data| &**data);
        (short(parts()), long(parts()))
    }

    #[test]
    fn spans() {
        let (short, long) = texts::<Span>(
            r#"{"resourceSpans":[{"schemaUrl":"https://s","resource":{"attributes":[
                {"key":"service.name","value":{"stringValue":"shop"}}],
                "entityRefs":[{"type":"service","schemaUrl":"u","idKeys":["service.name"],"descriptionKeys":["a","b"]}]},
              "scopeSpans":[{"scope":{"name":"lib","version":"1.2"},"schemaUrl":"https://t","spans":[
                {"traceId":"0102030405060708090a0b0c0d0e0f10","spanId":"1112131415161718","name":"operationA","kind":2,
                 "traceState":"ot=th:0","startTimeUnixNano":"1581452772000000321","endTimeUnixNano":"1581452773000000789",
                 "droppedAttributesCount":1,"droppedEventsCount":1,
                 "status":{"code":2,"message":"status-cancelled"},
                 "events":[{"name":"event-with-attr","timeUnixNano":"1581452773000000123","droppedAttributesCount":2,
                   "attributes":[{"key":"span-event-attr","value":{"stringValue":"span-event-attr-val"}}]}],
                 "attributes":[{"key":"n","value":{"intValue":"7"}},{"key":"b","value":{"boolValue":true}}]},
                {"name":"operationB","kind":99,"links":[{"droppedAttributesCount":4,
                   "attributes":[{"key":"l","value":{"doubleValue":1.5}}]}]}]},{"spans":[]}]}]}"#,
        );
        assert_eq!(
            short,
            "ResourceTraces #0 [https://s] service.name=shop\nScopeTraces #0 lib@1.2 [https://t]\n\
             operationA 0102030405060708090a0b0c0d0e0f10 1112131415161718 n=7 b=true\noperationB  \nScopeTraces #1\n"
        );
        assert_eq!(
            long,
            "ResourceSpans #0\nResource SchemaURL: https://s\nResource attributes:\n     -> service.name: Str(shop)\n\
             Resource entity refs:\n     -> Entity ref #0:\n          -> Type: service\n          -> Schema URL: u\n\
             \u{20}         -> ID keys:\n               -> service.name\n          -> Description keys:\n\
             \u{20}              -> a\n               -> b\n\
             ScopeSpans #0\nScopeSpans SchemaURL: https://t\nInstrumentationScope lib 1.2\nSpan #0\n\
             \u{20}   Trace ID       : 0102030405060708090a0b0c0d0e0f10\n    Parent ID      : \n\
             \u{20}   ID             : 1112131415161718\n    Name           : operationA\n    Kind           : Server\n\
             \u{20}   TraceState     : ot=th:0\n    Start time     : 2020-02-11 20:26:12.000000321 +0000 UTC\n\
             \u{20}   End time       : 2020-02-11 20:26:13.000000789 +0000 UTC\n    Status code    : Error\n\
             \u{20}   Status message : status-cancelled\n    DroppedAttributesCount: 1\n    DroppedEventsCount: 1\n\
             \u{20}   DroppedLinksCount: 0\nAttributes:\n     -> n: Int(7)\n     -> b: Bool(true)\nEvents:\n\
             SpanEvent #0\n     -> Name: event-with-attr\n     -> Timestamp: 2020-02-11 20:26:13.000000123 +0000 UTC\n\
             \u{20}    -> DroppedAttributesCount: 2\n     -> Attributes::\n\
             \u{20}         -> span-event-attr: Str(span-event-attr-val)\nSpan #1\n    Trace ID       : \n\
             \u{20}   Parent ID      : \n    ID             : \n    Name           : operationB\n    Kind           : \n\
             \u{20}   Start time     : 1970-01-01 00:00:00 +0000 UTC\n\
             \u{20}   End time       : 1970-01-01 00:00:00 +0000 UTC\n    Status code    : Unset\n\
             \u{20}   Status message : \n    DroppedAttributesCount: 0\n    DroppedEventsCount: 0\n\
             \u{20}   DroppedLinksCount: 0\nLinks:\nSpanLink #0\n     -> Trace ID: \n     -> ID: \n\
             \u{20}    -> TraceState: \n     -> DroppedAttributesCount: 4\n     -> Attributes::\n\
             \u{20}         -> l: Double(1.5)\nScopeSpans #1\nScopeSpans SchemaURL: \nInstrumentationScope  \n"
        );
    }

    #[test]
    fn log_records() {
        let (short, long) = texts::<LogRecord>(
            r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"1581452773000000789","severityNumber":10,
              "severityText":"INFO","eventName":"e","flags":1,
              "body":{"kvlistValue":{"values":[{"key":"k","value":{"stringValue":"v"}}]}},
              "attributes":[{"key":"a","value":{"arrayValue":{"values":[{"intValue":"1"},{"stringValue":"x"}]}}},
                {"key":"b","value":{"bytesValue":"AQI="}},{"key":"c"}]}]}]}]}"#,
        );
        assert_eq!(short, "ResourceLog #0\nScopeLog #0\n{\"k\":\"v\"} a=[1,\"x\"] b=AQI= c=\n");
        assert_eq!(
            long,
            "ResourceLog #0\nResource SchemaURL: \nScopeLogs #0\nScopeLogs SchemaURL: \nInstrumentationScope  \n\
             LogRecord #0\nObservedTimestamp: 1970-01-01 00:00:00 +0000 UTC\n\
             Timestamp: 2020-02-11 20:26:13.000000789 +0000 UTC\nSeverityText: INFO\nSeverityNumber: Info2(10)\n\
             EventName: e\nBody: Map({\"k\":\"v\"})\nAttributes:\n     -> a: Slice([1,\"x\"])\n     -> b: Bytes(AQI=)\n\
             \u{20}    -> c: Empty()\nTrace ID: \nSpan ID: \nFlags: 1\n"
        );
    }

    #[test]
    fn metrics() {
        let (short, long) = texts::<Metric>(
            r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[
              {"name":"g","unit":"1","metadata":[{"key":"m","value":{"intValue":"1"}}],"gauge":{"dataPoints":[
                {"asInt":"123","attributes":[{"key":"a","value":{"stringValue":"b"}},{"key":"c","value":{"intValue":"1"}}]},
                {"asDouble":1e21},{}]}},
              {"name":"s","sum":{"aggregationTemporality":2,"isMonotonic":true,"dataPoints":[{"asDouble":1.23}]}},
              {"name":"h","histogram":{"aggregationTemporality":1,"dataPoints":[{"count":"3","sum":15,"min":1,"max":9,
                "explicitBounds":[0.5,10],"bucketCounts":["1","2","0"],
                "exemplars":[{"asInt":"15","spanId":"1112131415161718"}]}]}},
              {"name":"e","exponentialHistogram":{"dataPoints":[{"count":"5","sum":0.15,"scale":1,"zeroCount":"1",
                "positive":{"offset":1,"bucketCounts":["1","1"]},"negative":{"offset":-1,"bucketCounts":["1","1"]}}]}},
              {"name":"q","summary":{"dataPoints":[{"count":"1","sum":15,
                "quantileValues":[{"quantile":0.01,"value":15}]}]}},
              {"name":"none"}]}]}]}"#,
        );
        assert_eq!(
            short,
            "ResourceMetrics #0\nScopeMetrics #0\ng{a=b,c=1} 123\ng{} 1e+21\ng{} \ns{} 1.23\n\
             h{} count=3 sum=15 min=1 max=9 le0.5=1 le10=2 0\n\
             e{} count=5 sum=0.15 le-1=1 le-0.7071067811865476=1 zero=1 le2=1 le2.82842712474619=1\n\
             q{} count=1 sum=15.000000 q0.01=15\n"
        );
        let times = "StartTimestamp: 1970-01-01 00:00:00 +0000 UTC\nTimestamp: 1970-01-01 00:00:00 +0000 UTC\n";
        let descriptor = |at: usize, name: &str, unit: &str, kind: &str| {
            format!(
                "Metric #{at}\nDescriptor:\n     -> Name: {name}\n     -> Description: \n     -> Unit: {unit}\n     \
                 -> DataType: {kind}\n"
            )
        };
        let expected = [
            "ResourceMetrics #0\nResource SchemaURL: \nScopeMetrics #0\nScopeMetrics SchemaURL: \n\
             InstrumentationScope  \n",
            &descriptor(0, "g", "1", "Gauge"),
            "     -> Metadata:\n          -> m: Int(1)\nNumberDataPoints #0\nData point attributes:\n     -> a: Str(b)\n\
             \u{20}    -> c: Int(1)\n",
            times,
            "Value: 123\nNumberDataPoints #1\n",
            times,
            "Value: 1000000000000000000000.000000\nNumberDataPoints #2\n",
            times,
            &descriptor(1, "s", "", "Sum"),
            "     -> IsMonotonic: true\n     -> AggregationTemporality: Cumulative\nNumberDataPoints #0\n",
            times,
            "Value: 1.230000\n",
            &descriptor(2, "h", "", "Histogram"),
            "     -> AggregationTemporality: Delta\nHistogramDataPoints #0\n",
            times,
            "Count: 3\nSum: 15.000000\nMin: 1.000000\nMax: 9.000000\nExplicitBounds #0: 0.500000\n\
             ExplicitBounds #1: 10.000000\nBuckets #0, Count: 1\nBuckets #1, Count: 2\nBuckets #2, Count: 0\nExemplars:\n\
             Exemplar #0\n     -> Trace ID: \n     -> Span ID: 1112131415161718\n\
             \u{20}    -> Timestamp: 1970-01-01 00:00:00 +0000 UTC\n     -> Value: 15\n",
            &descriptor(3, "e", "", "ExponentialHistogram"),
            "     -> AggregationTemporality: Unspecified\nExponentialHistogramDataPoints #0\n",
            times,
            "Count: 5\nSum: 0.150000\nBucket [-1.414214, -1.000000), Count: 1\nBucket [-1.000000, -0.707107), Count: 1\n\
             Bucket [0, 0], Count: 1\nBucket (1.414214, 2.000000], Count: 1\nBucket (2.000000, 2.828427], Count: 1\n",
            &descriptor(4, "q", "", "Summary"),
            "SummaryDataPoints #0\n",
            times,
            "Count: 1\nSum: 15.000000\nQuantileValue #0: Quantile 0.010000, Value 15.000000\n",
            &descriptor(5, "none", "", "Empty"),
        ];
        assert_eq!(long, expected.concat());
    }

    #[test]
    fn numbers_are_printed_as_go_prints_them() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1e-4, "0.0001"),
            (1.5e-5, "1.5e-05"),
            (999_999.5, "999999.5"),
            (1e6, "1e+06"),
            (1e20, "1e+20"),
            (-2.5e100, "-2.5e+100"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            assert_eq!(go_float(value), text);
        }
        assert_eq!(fixed(f64::INFINITY), "+Inf");
    }

    #[test]
    fn a_text_that_gets_too_long_is_cut() {
        let bucket = r#""1","#.repeat(400_000);
        let points = format!(r#"{{"bucketCounts":[{}"1"]}},"#, bucket).repeat(5);
        let json = format!(
            r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"a","histogram":{{"dataPoints":[{}{{}}]}}}},
               {{"name":"b"}}]}}]}}]}}"#,
            points
        );
        let (_, long) = texts::<Metric>(&json);
        assert!((TEXT_BYTES_MAX..TEXT_BYTES_MAX + 1000).contains(&long.len()), "{}", long.len());
        assert!(long.ends_with("… (the rest is left out)\n"));
    }

    #[test]
    fn a_text_of_scopes_without_records_is_cut_too() {
        let scopes = r#"{},"#.repeat(400_000);
        let json = format!(r#"{{"resourceLogs":[{{"scopeLogs":[{scopes}{{}}]}}]}}"#);
        let (_, long) = texts::<LogRecord>(&json);
        assert!((TEXT_BYTES_MAX..TEXT_BYTES_MAX + 1000).contains(&long.len()), "{}", long.len());
        assert!(long.ends_with("… (the rest is left out)\n"));
    }

    proptest::proptest! {
        #[test]
        fn fields_of_anything_are_read_without_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..40)) {
            fields(&bytes);
        }
    }
}
