//! `otelcol.processor.groupbyattrs`.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::mem::{discriminant, take};
use std::sync::Arc;

use corten_component::metrics::{Counter, Histogram};
use corten_component::{Context, Error};
use corten_config::Arguments;
use corten_otlp::metrics::Points;
use corten_otlp::{
    Arena, Data, LogRecord, Map, Metric, OfResource, OfScope, OtlpSignal, Pair, Record, Resource, Scope, Span,
};
use corten_signal::ConsumeError;
use corten_signal::ledger::Pass;

use crate::flow::{DebugMetrics, Output};
use crate::identity::Hasher;
use crate::metrics::{PROCESSOR, ScopedMetrics};
use crate::process::{Kind, Process, Processes, Processor};

/// Moves attributes of spans, log records and data points to their resources, and joins what has the same resource and the
/// same scope after that.
///
/// Without keys, it joins what has the same resource and scope already, which makes large batches of small ones smaller.
/// Resources are told apart by their attributes, scopes by name and version, and metrics by name and type. Resources keep
/// nothing but their attributes.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct GroupByAttrsArguments {
    /// Keys of the attributes to move. What has none of them stays with its resource.
    #[arg(optional)]
    keys: Vec<String>,
    /// Where to send what was grouped.
    #[block]
    output: Output,
    /// Which metrics of its own the component has.
    #[block(optional)]
    debug_metrics: DebugMetrics,
}

/// The component.
pub(crate) type GroupByAttrsProcessor = Processor<GroupByAttrs>;

/// What makes it.
pub(crate) struct GroupByAttrs;

impl Kind for GroupByAttrs {
    const NAME: &'static str = "otelcol.processor.groupbyattrs";
    const TYPE: &'static str = "groupbyattrs";
    type Arguments = GroupByAttrsArguments;

    fn output(arguments: &GroupByAttrsArguments) -> &Output {
        &arguments.output
    }

    fn processes(arguments: &GroupByAttrsArguments, cx: &Context<Processor<Self>>) -> Result<Processes, Error> {
        let mut keys: Vec<Box<[u8]>> = Vec::with_capacity(arguments.keys.len());
        for key in arguments.keys.iter().filter(|key| !key.is_empty()) {
            if keys.iter().any(|known| **known == *key.as_bytes()) {
                cx.logger().warn("A grouping key is already present", &[("key", key.as_str().into())]);
            } else {
                keys.push(key.as_bytes().into());
            }
        }
        let scope = "github.com/open-telemetry/opentelemetry-collector-contrib/processor/groupbyattrsprocessor";
        let scoped = ScopedMetrics::new(cx, scope, Self::TYPE);
        let grouping = |names: [&'static str; 6]| Group {
            keys: keys.clone(),
            grouped: scoped.counter(names[0], names[1], PROCESSOR),
            others: scoped.counter(names[2], names[3], PROCESSOR),
            groups: scoped.histogram(names[4], names[5], PROCESSOR, GROUPS_BUCKETS),
        };
        Ok(Processes {
            traces: Some(Arc::new(grouping([
                "otelcol_processor_groupbyattrs_num_grouped_spans_total",
                "Number of spans that had attributes grouped",
                "otelcol_processor_groupbyattrs_num_non_grouped_spans_total",
                "Number of spans that did not have attributes grouped",
                "otelcol_processor_groupbyattrs_span_groups",
                "Distribution of groups extracted for spans",
            ]))),
            metrics: Some(Arc::new(grouping([
                "otelcol_processor_groupbyattrs_num_grouped_metrics_total",
                "Number of metrics that had attributes grouped",
                "otelcol_processor_groupbyattrs_num_non_grouped_metrics_total",
                "Number of metrics that did not have attributes grouped",
                "otelcol_processor_groupbyattrs_metric_groups",
                "Distribution of groups extracted for metrics",
            ]))),
            logs: Some(Arc::new(grouping([
                "otelcol_processor_groupbyattrs_num_grouped_logs_total",
                "Number of logs that had attributes grouped",
                "otelcol_processor_groupbyattrs_num_non_grouped_logs_total",
                "Number of logs that did not have attributes grouped",
                "otelcol_processor_groupbyattrs_log_groups",
                "Distribution of groups extracted for logs",
            ]))),
        })
    }
}

const GROUPS_BUCKETS: &[f64] =
    &[0.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1000.0, 2500.0, 5000.0, 7500.0, 10000.0];

/// Groups the records of a signal.
struct Group {
    keys: Vec<Box<[u8]>>,
    grouped: Counter,
    others: Counter,
    groups: Histogram,
}

impl<S: OtlpSignal<Record: Grouped>> Process<S> for Group {
    fn process(&self, mut batch: S::Batch, _: &mut Pass<'_>) -> Result<S::Batch, ConsumeError> {
        let mut parts = batch.take_data().into_iter();
        let Some(mut first) = parts.next() else { return Ok(batch) };
        for part in parts {
            join(&mut first, &part);
        }
        let mut groups = Groups::new(&self.keys, take(&mut first.resources));
        if !groups.group(&mut first.arena) {
            let reason = format!("the groups would have more than {COPIES_MAX} attributes of resources");
            return Err(ConsumeError::Refused { reason });
        }
        self.grouped.add(groups.grouped);
        self.others.add(groups.others);
        self.groups.observe(groups.made.len() as f64);
        first.resources = groups.made;
        Ok(batch.with([first]))
    }
}

/// Brings the content of another part into this one.
fn join<R: Record>(into: &mut Data<R>, part: &Data<R>) {
    let Data { arena, resources } = into;
    resources.extend(part.resources.iter().map(|of| {
        OfResource {
            resource: Resource {
                attributes: arena.carry_map(&part.arena, of.resource.attributes),
                ..Resource::default()
            },
            scopes: of
                .scopes
                .iter()
                .map(|of| OfScope {
                    scope: of.scope.carried(&part.arena, arena),
                    records: of.records.iter().map(|record| record.carried(&part.arena, arena)).collect(),
                    ..OfScope::default()
                })
                .collect(),
            ..OfResource::default()
        }
    }));
}

/// The resources that are made, and where in them things are.
struct Groups<'a, R> {
    keys: &'a [Box<[u8]>],
    from: Vec<OfResource<R>>,
    made: Vec<OfResource<R>>,
    names: RandomState,
    hasher: Hasher,
    /// Resources by the hashes of their attributes, which nobody can foresee and which are long enough to be relied on.
    resources: HashMap<u128, usize>,
    /// Scopes by their resources and the hashes of their names.
    scopes: HashMap<(usize, u64), Vec<usize>>,
    /// Metrics by their resources, their scopes and the hashes of their names.
    metrics: HashMap<(usize, usize, u64), Vec<usize>>,
    /// The attributes to move of the record that is looked at.
    moved: Vec<Pair>,
    grouped: u64,
    others: u64,
    /// How many attributes of resources were copied.
    copies: usize,
}

/// How many attributes of resources are copied for the groups of a batch. Each group has those of the resource that it comes
/// from, so that a small request can ask for the product of the two.
const COPIES_MAX: usize = 2 << 20;

/// The resource and the scope that a record comes from, and where those without attributes to move go.
struct Origin {
    attributes: Map,
    hash: u128,
    scope: Scope,
    /// Places of the resource and of the scope; found when the first record needs them.
    unmoved: Option<(usize, usize)>,
}

impl<'a, R: Grouped> Groups<'a, R> {
    fn new(keys: &'a [Box<[u8]>], from: Vec<OfResource<R>>) -> Self {
        Groups {
            keys,
            from,
            made: Vec::new(),
            names: RandomState::new(),
            hasher: Hasher::default(),
            resources: HashMap::new(),
            scopes: HashMap::new(),
            metrics: HashMap::new(),
            moved: Vec::new(),
            grouped: 0,
            others: 0,
            copies: 0,
        }
    }

    /// Places all records; `false` if the resources would get too much.
    fn group(&mut self, arena: &mut Arena) -> bool {
        for of in take(&mut self.from) {
            let attributes = of.resource.attributes;
            let hash = self.hasher.attributes(arena, attributes);
            for of in of.scopes {
                let mut origin = Origin { attributes, hash, scope: of.scope, unmoved: None };
                for record in of.records {
                    record.place(self, &mut origin, arena);
                    if self.copies > COPIES_MAX {
                        return false;
                    }
                }
            }
        }
        true
    }

    /// Takes the attributes to move from a record, and finds the resource and the scope that it goes to.
    fn place(&mut self, attributes: &mut Map, origin: &mut Origin, arena: &mut Arena) -> (usize, usize) {
        let mut moved = take(&mut self.moved);
        moved.clear();
        for key in self.keys {
            if let Some(at) = arena.position(*attributes, key) {
                moved.push(arena.pairs(*attributes)[at]);
                arena.remove(attributes, key);
            }
        }
        let place = if moved.is_empty() {
            self.others += 1;
            *origin.unmoved.get_or_insert_with(|| {
                let resource = self.resource(origin.attributes, origin.hash, &moved, arena);
                (resource, self.scope(resource, origin.scope, arena))
            })
        } else {
            self.grouped += 1;
            let resource = self.resource(origin.attributes, origin.hash, &moved, arena);
            (resource, self.scope(resource, origin.scope, arena))
        };
        self.moved = moved;
        place
    }

    /// The resource that has attributes and, instead of those of the same keys, others.
    fn resource(&mut self, attributes: Map, mut hash: u128, moved: &[Pair], arena: &mut Arena) -> usize {
        for pair in moved {
            if let Some(at) = arena.position(attributes, arena.bytes(pair.key)) {
                hash = hash.wrapping_sub(self.hasher.pair(arena, &arena.pairs(attributes)[at]));
            }
            hash = hash.wrapping_add(self.hasher.pair(arena, pair));
        }
        *self.resources.entry(hash).or_insert_with(|| {
            let mut made = attributes;
            if !moved.is_empty() {
                self.copies += attributes.len();
                made = arena.copy_map(attributes);
                for pair in moved {
                    match arena.position(made, arena.bytes(pair.key)) {
                        Some(at) => arena.pairs_mut(made)[at].value = pair.value,
                        None => arena.push(&mut made, pair.key, pair.value),
                    }
                }
            }
            let resource = Resource { attributes: made, ..Resource::default() };
            self.made.push(OfResource { resource, ..OfResource::default() });
            self.made.len() - 1
        })
    }

    fn scope(&mut self, resource: usize, scope: Scope, arena: &Arena) -> usize {
        let name = (arena.bytes(scope.name), arena.bytes(scope.version));
        let alike = self.scopes.entry((resource, self.names.hash_one(name))).or_default();
        let made = &mut self.made[resource].scopes;
        let is_same = |of: &OfScope<R>| (arena.bytes(of.scope.name), arena.bytes(of.scope.version)) == name;
        if let Some(at) = alike.iter().find(|at| is_same(&made[**at])) {
            return *at;
        }
        alike.push(made.len());
        made.push(OfScope { scope, ..OfScope::default() });
        made.len() - 1
    }
}

/// What can be grouped.
trait Grouped: Record {
    /// Puts a record where it belongs.
    fn place(self, groups: &mut Groups<'_, Self>, origin: &mut Origin, arena: &mut Arena);
}

impl Grouped for Span {
    fn place(mut self, groups: &mut Groups<'_, Self>, origin: &mut Origin, arena: &mut Arena) {
        let (resource, scope) = groups.place(&mut self.attributes, origin, arena);
        groups.made[resource].scopes[scope].records.push(self);
    }
}

impl Grouped for LogRecord {
    fn place(mut self, groups: &mut Groups<'_, Self>, origin: &mut Origin, arena: &mut Arena) {
        let (resource, scope) = groups.place(&mut self.attributes, origin, arena);
        groups.made[resource].scopes[scope].records.push(self);
    }
}

impl Grouped for Metric {
    fn place(mut self, groups: &mut Groups<'_, Self>, origin: &mut Origin, arena: &mut Arena) {
        macro_rules! place {
            ($taken:expr, $into:pat => $points:ident) => {
                for mut point in take($taken) {
                    let place = groups.place(&mut point.attributes, origin, arena);
                    if let $into = groups.metric(place, &self, arena) {
                        $points.push(point);
                    }
                }
            };
        }
        // What is left without points says what a metric is like that is made for them.
        let mut points = take(&mut self.points);
        self.points = without_points(&points);
        match &mut points {
            Points::None => {}
            Points::Gauge(taken) => place!(taken, Points::Gauge(points) => points),
            Points::Sum { points: taken, .. } => place!(taken, Points::Sum { points, .. } => points),
            Points::Histogram { points: taken, .. } => place!(taken, Points::Histogram { points, .. } => points),
            Points::Exponential { points: taken, .. } => place!(taken, Points::Exponential { points, .. } => points),
            Points::Summary(taken) => place!(taken, Points::Summary(points) => points),
        }
    }
}

impl Groups<'_, Metric> {
    /// The points of the metric at a place that has the name and the type of this one.
    fn metric(&mut self, (resource, scope): (usize, usize), like: &Metric, arena: &Arena) -> &mut Points {
        let name = arena.bytes(like.name);
        let kind = discriminant(&like.points);
        let alike = self.metrics.entry((resource, scope, self.names.hash_one((name, kind)))).or_default();
        let made = &mut self.made[resource].scopes[scope].records;
        let is_same = |metric: &Metric| arena.bytes(metric.name) == name && discriminant(&metric.points) == kind;
        let at = alike.iter().copied().find(|at| is_same(&made[*at])).unwrap_or_else(|| {
            alike.push(made.len());
            made.push(like.clone());
            made.len() - 1
        });
        &mut made[at].points
    }
}

/// The same type of points, but none.
fn without_points(points: &Points) -> Points {
    match points {
        Points::None => Points::None,
        Points::Gauge(_) => Points::Gauge(Vec::new()),
        Points::Sum { temporality, monotonic, .. } => {
            Points::Sum { points: Vec::new(), temporality: *temporality, monotonic: *monotonic }
        }
        Points::Histogram { temporality, .. } => Points::Histogram { points: Vec::new(), temporality: *temporality },
        Points::Exponential { temporality, .. } => {
            Points::Exponential { points: Vec::new(), temporality: *temporality }
        }
        Points::Summary(_) => Points::Summary(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_component::Definition;
    use corten_otlp::Value;
    use corten_testkit::{OtlpSink, Unit, host, otlp};

    use crate::process::{hostile, recorded};

    #[tokio::test]
    async fn texts_within_lists_and_maps_that_are_no_utf_8_are_told_apart() {
        let sink = OtlpSink::default();
        let definition = Definition::of::<GroupByAttrsProcessor>();
        let body = "keys = [\"k\"]\noutput {\n logs = [sink]\n}";
        let world = host("otelcol.processor.groupbyattrs.a");
        let unit = Unit::start_with(world, &definition, body, &[("sink", sink.value())]).await.unwrap();
        let mut data = Data::<LogRecord>::default();
        let mut scope = OfScope::default();
        for text in [b"\xff".as_slice(), b"\xfe", b"\xef\xbf\xbd", b"\xff"] {
            for in_map in [false, true] {
                let value = Value::Str(data.arena.own(text));
                let key = data.arena.own(b"k");
                let value = if in_map {
                    Value::Map(data.arena.map(&[Pair { key, value }]))
                } else {
                    Value::List(data.arena.list(&[value]))
                };
                let attributes = data.arena.map(&[Pair { key, value }]);
                scope.records.push(LogRecord { attributes, ..LogRecord::default() });
            }
        }
        data.resources.push(OfResource { scopes: vec![scope], ..OfResource::default() });
        unit.world.consumer("input").logs.consume(corten_otlp::Batch::of(data, Arc::default())).await.unwrap();
        let json: serde_json::Value = serde_json::from_str(&sink.batches()[0].json).unwrap();
        let sizes = json["resourceLogs"].as_array().unwrap().iter();
        let sizes: Vec<_> = sizes.map(|of| of["scopeLogs"][0]["logRecords"].as_array().unwrap().len()).collect();
        assert_eq!(sizes, [2, 2, 1, 1, 1, 1]);
    }

    #[tokio::test]
    async fn records_are_grouped_as_they_are_in_the_reference() {
        recorded::check::<GroupByAttrsProcessor>(include_str!("../../tests/data/processor_groupbyattrs.json")).await;
    }

    #[tokio::test]
    async fn hostile_telemetry_does_no_harm() {
        hostile::survives::<GroupByAttrsProcessor>(&["", "keys = [\"a\", \"service.name\", \"\"]"]).await;
    }

    #[tokio::test]
    async fn a_small_request_cannot_ask_for_endless_copies_of_its_resource() {
        let sink = OtlpSink::default();
        let body = "keys = [\"n\"]\noutput {\nlogs = [sink]\n}";
        let definition = Definition::of::<GroupByAttrsProcessor>();
        let host = host("otelcol.processor.groupbyattrs.a");
        let unit = Unit::start_with(host, &definition, body, &[("sink", sink.value())]).await.unwrap();
        let attribute = |key: &str, value: usize| format!(r#"{{"key":"{key}","value":{{"stringValue":"{value}"}}}}"#);
        let of_resource: Vec<String> = (0..2_000).map(|at| attribute(&format!("k{at}"), at)).collect();
        let records: Vec<String> =
            (0..2_000).map(|at| format!(r#"{{"attributes":[{}]}}"#, attribute("n", at))).collect();
        let batch = otlp::<LogRecord>(&format!(
            r#"{{"resourceLogs":[{{"resource":{{"attributes":[{}]}},"scopeLogs":[{{"logRecords":[{}]}}]}}]}}"#,
            of_resource.join(","),
            records.join(",")
        ));
        let error = unit.world.consumer("input").logs.consume(batch).await.unwrap_err();
        assert!(matches!(error, ConsumeError::Refused { .. }), "{error}");
        assert_eq!(sink.items(), 0);
    }

    #[tokio::test]
    async fn what_was_joined_is_grouped_together_and_counted() {
        let sink = OtlpSink::default();
        let body = "keys = [\"host\"]\noutput {\nlogs = [sink]\n}";
        let definition = Definition::of::<GroupByAttrsProcessor>();
        let host = host("otelcol.processor.groupbyattrs.a");
        let unit = Unit::start_with(host, &definition, body, &[("sink", sink.value())]).await.unwrap();
        let batch = |host: &str, body: &str| {
            let attribute = format!(r#"{{"key":"host","value":{{"stringValue":"{host}"}}}}"#);
            otlp::<LogRecord>(&format!(
                r#"{{"resourceLogs":[{{"scopeLogs":[{{"scope":{{"name":"l"}},"logRecords":[
                {{"body":{{"stringValue":"{body}"}},"attributes":[{attribute}]}},{{"body":{{"stringValue":"-"}}}}]}}]}}]}}"#
            ))
        };
        let mut joined = batch("a", "1");
        joined.join(batch("b", "2"));
        joined.join(batch("a", "3"));
        unit.world.consumer("input").logs.consume(joined).await.unwrap();
        let arrived = sink.batches();
        assert_eq!(arrived[0].items, 6);
        let groups: Vec<Vec<&str>> = arrived[0]
            .json
            .split("\"resource\"")
            .skip(1)
            .map(|group| group.split("\"stringValue\":\"").skip(1).filter_map(|text| text.split('"').next()).collect())
            .collect();
        assert_eq!(groups, [vec!["a", "1", "3"], vec!["-", "-", "-"], vec!["b", "2"]]);
        let text = unit.world.metrics().text();
        for (name, want) in
            [("num_grouped_logs_total", "3"), ("num_non_grouped_logs_total", "3"), ("log_groups_sum", "3")]
        {
            let name = format!("otelcol_processor_groupbyattrs_{name}{{");
            let line = text.lines().find(|line| line.starts_with(&name)).unwrap();
            assert_eq!(line.rsplit(' ').next(), Some(want), "{line}");
        }
    }
}
