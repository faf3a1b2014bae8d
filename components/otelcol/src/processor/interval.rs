//! `otelcol.processor.interval`.

use std::sync::Arc;
use std::time::Duration;

use corten_component::{Component, Context, Error, Task};
use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_config::decode::SignedDuration;
use corten_config::schema::Stability;
use corten_otlp::metrics::{CUMULATIVE, Exemplar, Metric, Points};
use corten_otlp::{Arena, Batch, Data, Map, OfResource, OfScope, OtlpMetrics, Record, Resource, Scope};
use corten_signal::flow::BoxFuture;
use corten_signal::{Acks, Consume, ConsumeError, Fanout};
use parking_lot::Mutex;

use super::tracking::SERIES_MAX;
use crate::flow::{DebugMetrics, Inlets, Input, Output, Stages};
use crate::identity::{ByHash, Hasher};
use crate::periodic::{Collect, Periodic};

/// Sends the newest point of each series from time to time instead of all of them: of gauges, summaries, and of sums and
/// histograms that count since a fixed time and never go down. Others go on at once.
///
/// Points wait in memory; sources that keep what they sent until it is safe keep it until it got on. What waits is sent when
/// the component ends. A million series wait at most; points of further ones go on at once.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct IntervalArguments {
    /// How often points are sent.
    #[arg(default = "60s")]
    interval: SignedDuration,
    /// What does not wait.
    #[block(optional)]
    passthrough: PassThrough,
    /// Where to send metrics.
    #[block]
    output: Output,
    /// Which metrics of its own the component has.
    #[block(optional)]
    debug_metrics: DebugMetrics,
}

/// What does not wait.
#[derive(Arguments, Clone, Copy, Debug, Default, PartialEq)]
pub struct PassThrough {
    /// Whether gauges go on at once.
    #[arg(default = false)]
    gauge: bool,
    /// Whether summaries go on at once.
    #[arg(default = false)]
    summary: bool,
}

impl IntervalArguments {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        errors.require(self.interval.nanoseconds > 0, &["interval"], "interval must be greater than 0");
        errors.into_result()
    }
}

/// The component.
pub(crate) struct IntervalProcessor {
    inlets: Arc<Inlets>,
    newest: Arc<Newest>,
    turn: Arc<tokio::sync::Mutex<()>>,
    task: Option<Task>,
}

impl Component for IntervalProcessor {
    const NAME: &'static str = "otelcol.processor.interval";
    const STABILITY: Stability = Stability::Experimental;
    type Arguments = IntervalArguments;
    type Exports = Input;
    type Prepared = (Arc<Inlets>, IntervalArguments);

    async fn prepare(
        arguments: IntervalArguments,
        cx: &Context<Self>,
        current: Option<&Self>,
    ) -> Result<(Self::Prepared, Input), Error> {
        let inlets = current.map_or_else(|| Inlets::new(cx.id()), |current| Arc::clone(&current.inlets));
        let exports = inlets.exports();
        Ok(((inlets, arguments), exports))
    }

    fn commit(current: Option<Self>, (inlets, arguments): Self::Prepared, cx: &Context<Self>) -> Self {
        // What waits goes on waiting; the task that ends sends it once more.
        let (newest, turn) = match current {
            Some(current) => (Arc::clone(&current.newest), Arc::clone(&current.turn)),
            None => (Arc::default(), Arc::default()),
        };
        newest.0.lock().passthrough = arguments.passthrough;
        let forward = arguments.output.metrics(cx);
        let task = forward.clone().map(|forward| {
            let periodic = Periodic {
                interval: Duration::from_nanos(arguments.interval.nanoseconds.unsigned_abs()),
                forward,
                logger: cx.logger().clone(),
                failed: "Metrics export failed",
                turn: Arc::clone(&turn),
            };
            let collector = Arc::clone(&newest);
            cx.spawn("export", move |stop| periodic.clone().run(Arc::clone(&collector), stop))
        });
        inlets.attach(Stages {
            metrics: forward.map(|forward| -> Arc<dyn Consume<OtlpMetrics>> {
                Arc::new(Stage { newest: Arc::clone(&newest), forward })
            }),
            ..Stages::default()
        });
        IntervalProcessor { inlets, newest, turn, task }
    }

    async fn drain(self, _: &Context<Self>) {
        self.inlets.close();
        if let Some(task) = self.task {
            task.stop().await;
        }
    }
}

struct Stage {
    newest: Arc<Newest>,
    forward: Fanout<OtlpMetrics>,
}

impl Consume<OtlpMetrics> for Stage {
    fn consume(&self, mut batch: Batch<Metric>) -> BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(async move {
            let mut parts = batch.take_data();
            {
                let mut newest = self.newest.0.lock();
                let before = newest.points;
                parts.iter_mut().for_each(|data| newest.take(data));
                if newest.points > before || newest.replaced {
                    newest.replaced = false;
                    batch.acks.hold();
                    newest.acks.join(batch.acks.clone());
                }
            }
            let rest = batch.with(parts);
            if rest.is_empty() {
                rest.acks.safe();
                return Ok(());
            }
            self.forward.consume(rest).await
        })
    }
}

/// The newest points.
#[derive(Default)]
pub(crate) struct Newest(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    passthrough: PassThrough,
    hasher: Hasher,
    data: Data<Metric>,
    /// Where in the data resources, scopes of a resource and metrics of a scope are, by their hashes.
    resources: ByHash<()>,
    scopes: ByHash<(u32, u32)>,
    metrics: ByHash<(u32, u32, u32)>,
    /// Where in its metric a point is.
    series: ByHash<u32>,
    points: usize,
    /// Whether a point took the place of an older one.
    replaced: bool,
    /// How much memory there was when what is no longer used was last left out.
    compacted_bytes: usize,
    acks: Acks,
}

/// How much memory may be used before it is looked at whether all of it is needed.
const BYTES_MIN: usize = 1 << 20;

impl Inner {
    fn waits(&self, points: &Points) -> bool {
        match points {
            Points::Gauge(_) => !self.passthrough.gauge,
            Points::Summary(_) => !self.passthrough.summary,
            Points::Sum { temporality, monotonic, .. } => *monotonic && *temporality == CUMULATIVE,
            Points::Histogram { temporality, .. } | Points::Exponential { temporality, .. } => {
                *temporality == CUMULATIVE
            }
            Points::None => false,
        }
    }

    /// Takes what waits. What is left goes on at once.
    fn take(&mut self, data: &mut Data<Metric>) {
        let Data { arena, resources } = data;
        for of in resources.iter_mut() {
            let resource = self.hasher.resource(arena, of);
            let schema = of.schema_url;
            for scope in &mut of.scopes {
                let hash = self.hasher.scope(resource, arena, scope);
                let (kind, scope_schema) = (scope.scope, scope.schema_url);
                let place =
                    Place { resource: &of.resource, schema, scope: kind, scope_schema, hashes: (resource, hash) };
                scope.records.retain_mut(|metric| {
                    !self.waits(&metric.points)
                        || metric.points.is_empty()
                        || self.points >= SERIES_MAX
                        || !self.keep(arena, &place, metric)
                });
            }
        }
        data.prune();
        let held = self.data.arena.held_bytes();
        if held > BYTES_MIN.max(self.compacted_bytes.saturating_mul(2)) {
            self.compact();
        }
    }

    /// Keeps the points of a metric.
    fn keep(&mut self, from: &Arena, place: &Place<'_>, metric: &Metric) -> bool {
        let (resource, scope) = place.hashes;
        let hash = self.hasher.metric(scope, from, metric);
        let known = self.metrics.get(&hash).copied();
        let (at, of, nth) = known.unwrap_or_else(|| self.new_metric(from, place, metric, (resource, scope, hash)));
        let Data { arena, resources } = &mut self.data;
        let Some(own) = resources
            .get_mut(at as usize)
            .and_then(|of_resource| of_resource.scopes.get_mut(of as usize))
            .and_then(|scope| scope.records.get_mut(nth as usize))
        else {
            return false;
        };
        let mut keeping =
            Keeping { arena, from, hasher: &mut self.hasher, series: &mut self.series, hash, replaced: false };
        let before = own.points.len();
        match (&mut own.points, &metric.points) {
            (Points::Gauge(own), Points::Gauge(points)) => keeping.keep(own, points),
            (Points::Sum { points: own, .. }, Points::Sum { points, .. }) => keeping.keep(own, points),
            (Points::Histogram { points: own, .. }, Points::Histogram { points, .. }) => keeping.keep(own, points),
            (Points::Exponential { points: own, .. }, Points::Exponential { points, .. }) => keeping.keep(own, points),
            (Points::Summary(own), Points::Summary(points)) => keeping.keep(own, points),
            // What is told apart by its hash is of one kind.
            _ => {}
        }
        self.replaced |= keeping.replaced;
        self.points += own.points.len() - before;
        true
    }

    /// A place for a metric.
    fn new_metric(
        &mut self,
        from: &Arena,
        place: &Place<'_>,
        metric: &Metric,
        (resource, scope, hash): (u128, u128, u128),
    ) -> (u32, u32, u32) {
        let Data { arena, resources } = &mut self.data;
        let (at, _) = self.resources.insert_full(resource, ());
        if at == resources.len() {
            resources.push(OfResource {
                resource: carried_resource(place.resource, from, arena),
                schema_url: arena.carry_text(from, place.schema),
                scopes: Vec::new(),
            });
        }
        let scopes = &mut resources[at].scopes;
        let (_, of) = *self.scopes.entry(scope).or_insert_with(|| {
            scopes.push(OfScope {
                scope: carried_scope(&place.scope, from, arena),
                schema_url: arena.carry_text(from, place.scope_schema),
                records: Vec::new(),
            });
            (at as u32, scopes.len() as u32 - 1)
        });
        let records = &mut scopes[of as usize].records;
        records.push(Metric {
            name: arena.carry_text(from, metric.name),
            description: arena.carry_text(from, metric.description),
            unit: arena.carry_text(from, metric.unit),
            metadata: arena.carry_map(from, metric.metadata),
            points: match &metric.points {
                Points::None => Points::None,
                Points::Gauge(_) => Points::Gauge(Vec::new()),
                Points::Sum { temporality, monotonic, .. } => {
                    Points::Sum { points: Vec::new(), temporality: *temporality, monotonic: *monotonic }
                }
                Points::Histogram { temporality, .. } => {
                    Points::Histogram { points: Vec::new(), temporality: *temporality }
                }
                Points::Exponential { temporality, .. } => {
                    Points::Exponential { points: Vec::new(), temporality: *temporality }
                }
                Points::Summary(_) => Points::Summary(Vec::new()),
            },
        });
        let found = (at as u32, of, records.len() as u32 - 1);
        self.metrics.insert(hash, found);
        found
    }

    /// Leaves out what older points had.
    fn compact(&mut self) {
        let old = std::mem::take(&mut self.data);
        let Data { arena: to, resources } = &mut self.data;
        for of in &old.resources {
            let scopes = of.scopes.iter().map(|scope| OfScope {
                scope: carried_scope(&scope.scope, &old.arena, to),
                schema_url: to.carry_text(&old.arena, scope.schema_url),
                records: scope.records.iter().map(|metric| metric.carried(&old.arena, to)).collect(),
            });
            let scopes = scopes.collect();
            resources.push(OfResource {
                resource: carried_resource(&of.resource, &old.arena, to),
                schema_url: to.carry_text(&old.arena, of.schema_url),
                scopes,
            });
        }
        self.compacted_bytes = self.data.arena.held_bytes();
    }
}

/// What a metric stands in.
struct Place<'a> {
    resource: &'a Resource,
    schema: corten_otlp::Text,
    scope: Scope,
    scope_schema: corten_otlp::Text,
    hashes: (u128, u128),
}

fn carried_resource(resource: &Resource, from: &Arena, to: &mut Arena) -> Resource {
    Resource {
        attributes: to.carry_map(from, resource.attributes),
        dropped_attributes: resource.dropped_attributes,
        entities: resource.entities.iter().map(|entity| to.carry_text(from, *entity)).collect(),
    }
}

fn carried_scope(scope: &Scope, from: &Arena, to: &mut Arena) -> Scope {
    Scope {
        name: to.carry_text(from, scope.name),
        version: to.carry_text(from, scope.version),
        attributes: to.carry_map(from, scope.attributes),
        dropped_attributes: scope.dropped_attributes,
    }
}

/// What keeping the points of a metric needs.
struct Keeping<'a> {
    arena: &'a mut Arena,
    from: &'a Arena,
    hasher: &'a mut Hasher,
    series: &'a mut ByHash<u32>,
    hash: u128,
    replaced: bool,
}

impl Keeping<'_> {
    fn keep<P: Point>(&mut self, own: &mut Vec<P>, points: &[P]) {
        for point in points {
            let hash = self.hasher.series(self.hash, self.from, point.attributes());
            match self.series.get(&hash).and_then(|at| own.get_mut(*at as usize)) {
                Some(known) if point.time_ns() > known.time_ns() => {
                    // Its attributes are there already.
                    *known = point.with(known.attributes(), self.exemplars(point));
                    self.replaced = true;
                }
                Some(_) => {}
                None => {
                    let attributes = self.arena.carry_map(self.from, point.attributes());
                    let exemplars = self.exemplars(point);
                    self.series.insert(hash, own.len() as u32);
                    own.push(point.with(attributes, exemplars));
                }
            }
        }
    }

    fn exemplars<P: Point>(&mut self, point: &P) -> Vec<Exemplar> {
        let exemplars = point.exemplars().iter();
        let carried = exemplars.map(|exemplar| Exemplar {
            filtered_attributes: self.arena.carry_map(self.from, exemplar.filtered_attributes),
            ..*exemplar
        });
        carried.collect()
    }
}

/// A point of any kind.
trait Point {
    fn attributes(&self) -> Map;
    fn time_ns(&self) -> u64;
    fn exemplars(&self) -> &[Exemplar];
    /// The same with attributes and exemplars from another arena.
    fn with(&self, attributes: Map, exemplars: Vec<Exemplar>) -> Self;
}

macro_rules! point {
    ($($point:ty),*) => {
        $(impl Point for $point {
            fn attributes(&self) -> Map {
                self.attributes
            }

            fn time_ns(&self) -> u64 {
                self.time_ns
            }

            fn exemplars(&self) -> &[Exemplar] {
                &self.exemplars
            }

            fn with(&self, attributes: Map, exemplars: Vec<Exemplar>) -> Self {
                Self { attributes, exemplars, ..self.clone() }
            }
        })*
    };
}

point!(corten_otlp::metrics::NumberPoint, corten_otlp::metrics::HistogramPoint, corten_otlp::metrics::ExponentialPoint);

impl Point for corten_otlp::metrics::SummaryPoint {
    fn attributes(&self) -> Map {
        self.attributes
    }

    fn time_ns(&self) -> u64 {
        self.time_ns
    }

    fn exemplars(&self) -> &[Exemplar] {
        &[]
    }

    fn with(&self, attributes: Map, _: Vec<Exemplar>) -> Self {
        Self { attributes, ..self.clone() }
    }
}

impl Collect for Newest {
    type Kept = ();

    fn collect(&self) -> Option<(Batch<Metric>, ())> {
        let mut inner = self.0.lock();
        let Inner { passthrough, hasher, data, acks, points, .. } = std::mem::take(&mut *inner);
        (inner.passthrough, inner.hasher) = (passthrough, hasher);
        drop(inner);
        if points == 0 {
            acks.safe();
            return None;
        }
        let mut batch = Batch::of(data, Arc::default());
        batch.acks = acks;
        Some((batch, ()))
    }

    /// Points that nobody took wait again, but for those of which there is a newer one.
    fn put_back(&self, mut batch: Batch<Metric>, (): ()) {
        let mut parts = batch.take_data();
        let mut inner = self.0.lock();
        let passthrough = std::mem::take(&mut inner.passthrough);
        parts.iter_mut().for_each(|data| inner.take(data));
        (inner.passthrough, inner.replaced) = (passthrough, false);
        inner.acks.join(batch.acks);
    }
}

#[cfg(test)]
mod tests {
    use corten_component::Definition;
    use corten_signal::ConsumeError;
    use corten_testkit::{OtlpSink, Unit, host, otlp};

    use super::*;
    use crate::processor::recorded;

    #[tokio::test(start_paused = true)]
    async fn points_are_those_of_the_reference() {
        recorded::replay::<IntervalProcessor>(include_str!("../../tests/data/processor_interval.json")).await;
    }

    async fn start(sink: &OtlpSink, body: &str) -> Result<Unit, String> {
        let definition = Definition::of::<IntervalProcessor>();
        let world = host("otelcol.processor.interval.a");
        Unit::start_with(world, &definition, &with_output(body), &[("sink", sink.value())]).await
    }

    fn with_output(body: &str) -> String {
        format!("{body}\noutput {{\n metrics = [sink]\n}}")
    }

    #[tokio::test]
    async fn what_contradicts_itself_is_refused() {
        for (body, want) in [
            ("interval = \"0s\"", "interval must be greater than 0"),
            ("interval = \"-1s\"", "interval must be greater than 0"),
        ] {
            let error = start(&OtlpSink::default(), body).await.unwrap_err();
            assert!(error.contains(want), "{body}: {error}");
        }
    }

    /// Sends a point of a sum of this series.
    async fn send(unit: &Unit, series: u32, value: i64, start_ns: u64, time_ns: u64) -> Result<(), ConsumeError> {
        let json = format!(
            r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"m","sum":{{"isMonotonic":true,
            "aggregationTemporality":2,"dataPoints":[{{"asInt":"{value}","startTimeUnixNano":"{start_ns}",
            "timeUnixNano":"{time_ns}","attributes":[{{"key":"k","value":{{"intValue":"{series}"}}}}]}}]}}}}]}}]}}]}}"#
        );
        unit.world.consumer("input").metrics.consume(otlp::<Metric>(&json)).await
    }

    /// Start, time and value of the points that arrived.
    fn arrived(sink: &OtlpSink) -> Vec<(u64, u64, i64)> {
        let points = sink.batches().into_iter().flat_map(|batch| {
            let json: serde_json::Value = serde_json::from_str(&batch.json).unwrap();
            let metric = &json["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0];
            metric["sum"]["dataPoints"].as_array().unwrap().clone()
        });
        let number =
            |point: &serde_json::Value, name: &str| point[name].as_str().map_or(0, |text| text.parse().unwrap());
        let of = |point: serde_json::Value| {
            let value = point["asInt"].as_str().unwrap().parse().unwrap();
            (number(&point, "startTimeUnixNano"), number(&point, "timeUnixNano"), value)
        };
        points.map(of).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_took_waits_again_unless_there_is_something_newer() {
        let sink = OtlpSink::default();
        let unit = start(&sink, "interval = \"10s\"").await.unwrap();
        send(&unit, 1, 1, 0, 1).await.unwrap();
        send(&unit, 2, 2, 0, 1).await.unwrap();
        sink.answer_with(Some(ConsumeError::Retry { after: None, reason: "busy".into() }));
        tokio::time::sleep(Duration::from_secs(15)).await;
        send(&unit, 1, 3, 0, 2).await.unwrap();
        tokio::time::sleep(Duration::from_secs(30)).await;
        sink.answer_with(None);
        tokio::time::sleep(Duration::from_secs(20)).await;
        let mut points = arrived(&sink);
        points.sort_unstable();
        assert_eq!(points, [(0, 1, 2), (0, 2, 3)]);
        assert!(unit.world.logs().contains("Metrics export failed"));
    }

    #[test]
    fn metrics_without_points_do_not_wait() {
        let mut inner = Inner::default();
        let mut batch = otlp::<Metric>(
            r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"m","gauge":{"dataPoints":[]}}]}]}]}"#,
        );
        batch.take_data().iter_mut().for_each(|data| inner.take(data));
        assert_eq!((inner.metrics.len(), inner.data.resources.len()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn sources_are_told_when_points_got_on() {
        use corten_signal::acks::{Answer, waiter};
        let sink = OtlpSink::default();
        let unit = start(&sink, "").await.unwrap();
        let json = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[
            {"name":"waits","gauge":{"dataPoints":[{"asInt":"1"}]}},
            {"name":"goes on","sum":{"dataPoints":[{"asInt":"1"}]}}]}]}]}"#;
        let (acks, mut held) = waiter();
        let (watched, mut told) = waiter();
        let mut batch = otlp::<Metric>(json);
        batch.acks = acks;
        batch.acks.join(watched);
        unit.world.consumer("input").metrics.consume(batch).await.unwrap();
        assert_eq!(held.wait(Duration::from_millis(1)).await, Answer::Held);
        assert_eq!(told.wait(Duration::from_millis(1)).await, Answer::Held);
        assert_eq!(sink.sizes(), [1]);
        tokio::time::sleep(Duration::from_secs(61)).await;
        assert_eq!(sink.sizes(), [1, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_older_points_had_is_left_out_of_memory() {
        let sink = OtlpSink::default();
        let mut unit = start(&sink, "interval = \"1h\"").await.unwrap();
        let text = "x".repeat(10_000);
        for time in 1..400 {
            let json = format!(
                r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"m","gauge":{{"dataPoints":[{{"asInt":"{time}",
                "timeUnixNano":"{time}","attributes":[{{"key":"k","value":{{"stringValue":"v"}}}}],"exemplars":[
                {{"filteredAttributes":[{{"key":"f","value":{{"stringValue":"{text}"}}}}]}}]}}]}}}}]}}]}}]}}"#
            );
            unit.world.consumer("input").metrics.consume(otlp::<Metric>(&json)).await.unwrap();
        }
        unit.drain().await;
        let batches = sink.batches();
        assert_eq!((batches.len(), batches[0].items), (1, 1));
        assert!(batches[0].json.contains(r#""asInt":"399""#) && batches[0].json.contains(r#""stringValue":"v""#));
    }
}
