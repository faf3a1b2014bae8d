//! `otelcol.processor.interval`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use corten_component::log::Level;
use corten_component::{Component, Context, Error, Logger, Task};
use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_config::decode::SignedDuration;
use corten_config::schema::Stability;
use corten_otlp::metrics::{
    CUMULATIVE, Exemplar, ExponentialPoint, HistogramPoint, Metric, NumberPoint, Points, SummaryPoint,
};
use corten_otlp::{Arena, Batch, Data, Map, OfResource, OfScope, OtlpMetrics, Record, Resource, Scope};
use corten_signal::flow::BoxFuture;
use corten_signal::ledger::Row;
use corten_signal::{Acks, Consume, ConsumeError, Fanout};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::tracking::{BYTES_MAX, SERIES_MAX};
use crate::flow::{DebugMetrics, Inlets, Input, Output, Stages};
use crate::identity::{ByHash, Hasher};
use crate::periodic::{self, Collect, Periodic};
use crate::resend::{Resend, Seldom};
use crate::shown::show_held;

/// Sends the newest point of each series from time to time instead of all of them: of gauges, summaries, and of sums and
/// histograms that count since a fixed time and never go down. Others go on at once.
///
/// Points wait in memory; sources that keep what they sent until it is safe keep it until it got on. What waits is sent when
/// the component ends, and before its time when it takes 256 MiB: whoever sends then is told to try again until it got on. A
/// million series wait at most; points of further ones go on at once. The log says so.
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

/// What the log says of points that were not taken.
const FAILED: &str = "Metrics export failed";

/// The component.
pub(crate) struct IntervalProcessor {
    inlets: Arc<Inlets>,
    newest: Arc<Newest>,
    row: Arc<Row>,
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
        let inlets = current.map_or_else(|| Inlets::of(cx.ledger()), |current| Arc::clone(&current.inlets));
        let exports = inlets.exports();
        Ok(((inlets, arguments), exports))
    }

    fn commit(current: Option<Self>, (inlets, arguments): Self::Prepared, cx: &Context<Self>) -> Self {
        if current.is_none() {
            show_held(cx);
        }
        // What waits goes on waiting; the task that ends sends it once more.
        let (newest, turn) = match current {
            Some(current) => (Arc::clone(&current.newest), Arc::clone(&current.turn)),
            None => (Arc::default(), Arc::default()),
        };
        newest.inner.lock().passthrough = arguments.passthrough;
        let forward = arguments.output.metrics(cx);
        let row = Arc::clone(cx.ledger().row_of::<OtlpMetrics>());
        let task = forward.clone().map(|forward| {
            let periodic = Periodic {
                interval: Duration::from_nanos(arguments.interval.nanoseconds.unsigned_abs()),
                forward,
                row: Arc::clone(&row),
                resend: Resend::new(cx.logger().clone(), Level::Error, FAILED),
                early: Arc::clone(&newest.early),
                turn: Arc::clone(&turn),
            };
            let collector = Arc::clone(&newest);
            cx.spawn("export", move |stop| periodic.clone().run(Arc::clone(&collector), stop))
        });
        inlets.attach(Stages {
            metrics: forward.map(|forward| -> Arc<dyn Consume<OtlpMetrics>> {
                let said = Seldom::default();
                let row = Arc::clone(&row);
                Arc::new(Stage { newest: Arc::clone(&newest), forward, row, logger: cx.logger().clone(), said })
            }),
            ..Stages::default()
        });
        IntervalProcessor { inlets, newest, row, turn, task }
    }

    async fn drain(self, cx: &Context<Self>) {
        self.inlets.close();
        if let Some(task) = self.task {
            task.stop().await;
        }
        periodic::give_up(&*self.newest, cx.logger(), FAILED, &self.row);
    }
}

struct Stage {
    newest: Arc<Newest>,
    forward: Fanout<OtlpMetrics>,
    row: Arc<Row>,
    logger: Logger,
    said: Seldom,
}

/// Why points do not go on: there is a newer one of their series.
const SUPERSEDED: &str = "superseded";
/// How often the log says that there are too many points.
const SAY_EVERY: Duration = Duration::from_secs(60);

impl Stage {
    fn say(&self, message: &str, newest: &Inner) {
        if self.said.is_time(SAY_EVERY) {
            let series = newest.points + newest.away.points.load(Ordering::Relaxed);
            let bytes = newest.held_bytes() + newest.away.bytes.load(Ordering::Relaxed);
            self.logger.warn(message, &[("series", series.into()), ("bytes", bytes.into())]);
        }
    }
}

impl Consume<OtlpMetrics> for Stage {
    fn consume(&self, mut batch: Batch<Metric>) -> BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(async move {
            let mut pass = self.row.pass();
            let rest = {
                let mut newest = self.newest.inner.lock();
                if newest.is_full() {
                    if newest.is_urgent() {
                        self.newest.early.notify_one();
                    }
                    self.say("too much waits for the interval: it is sent before its time", &newest);
                    let reason = "too much waits for the interval to end".to_owned();
                    return Err(ConsumeError::Retry { after: None, reason });
                }
                let mut parts = batch.take_data();
                (newest.changed, newest.superseded) = (false, 0);
                let before = newest.points;
                parts.iter_mut().for_each(|data| newest.take(data));
                // They stay even if the rest is not taken: sent again they are the same.
                let new = newest.points - before;
                self.row.held(new as i64);
                pass.handed_on(new);
                pass.merged(SUPERSEDED, newest.superseded);
                if newest.changed {
                    batch.acks.hold();
                    newest.acks.join(batch.acks.clone());
                }
                if newest.is_urgent() {
                    self.newest.early.notify_one();
                }
                if newest.room() == 0 {
                    self.say("too many series: points of further ones do not wait", &newest);
                }
                drop(newest);
                batch.with(parts)
            };
            if rest.is_empty() {
                rest.acks.safe();
                return pass.end(Ok(()));
            }
            pass.end(self.forward.consume(rest).await)
        })
    }
}

/// The newest points.
#[derive(Default)]
pub(crate) struct Newest {
    inner: Mutex<Inner>,
    /// Told when what there is should not wait any longer.
    early: Arc<Notify>,
}

/// How much was collected, and is on its way.
#[derive(Debug, Default)]
struct Away {
    points: AtomicUsize,
    bytes: AtomicUsize,
}

/// What is on its way counts until this is dropped: it may have to be taken back.
pub(crate) struct OnItsWay {
    away: Arc<Away>,
    points: usize,
    bytes: usize,
}

impl Drop for OnItsWay {
    fn drop(&mut self) {
        self.away.points.fetch_sub(self.points, Ordering::Relaxed);
        self.away.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

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
    /// How much memory points take besides their attributes, in bytes.
    bytes: usize,
    away: Arc<Away>,
    /// Whether a point came that waits, or did so already.
    changed: bool,
    /// For how many of the last points there was a newer one, or of how many that waited.
    superseded: usize,
    /// How much memory there was when what is no longer used was last left out.
    compacted_bytes: usize,
    acks: Acks,
    series_max: usize,
    bytes_max: usize,
}

impl Default for Inner {
    fn default() -> Self {
        Inner {
            passthrough: PassThrough::default(),
            hasher: Hasher::default(),
            data: Data::default(),
            resources: ByHash::default(),
            scopes: ByHash::default(),
            metrics: ByHash::default(),
            series: ByHash::default(),
            points: 0,
            bytes: 0,
            away: Arc::default(),
            changed: false,
            superseded: 0,
            compacted_bytes: 0,
            acks: Acks::NONE,
            series_max: SERIES_MAX,
            bytes_max: BYTES_MAX,
        }
    }
}

/// How much memory may be used before it is looked at whether all of it is needed.
const BYTES_MIN: usize = 1 << 20;

/// What a resource, a scope or a metric takes besides its texts and attributes, about, in bytes.
const OVERHEAD_BYTES: usize = 256;

impl Inner {
    /// How much memory what waits takes, in bytes, about.
    fn held_bytes(&self) -> usize {
        let places = self.resources.len() + self.scopes.len() + self.metrics.len();
        self.data.arena.held_bytes() + self.bytes + places * OVERHEAD_BYTES
    }

    /// For how many further series there is room.
    fn room(&self) -> usize {
        let away = self.away.points.load(Ordering::Relaxed);
        self.series_max.saturating_sub(self.points.saturating_add(away))
    }

    /// Whether there is too much for more to wait.
    fn is_full(&self) -> bool {
        self.held_bytes().saturating_add(self.away.bytes.load(Ordering::Relaxed)) >= self.bytes_max
    }

    /// Whether what waits should not wait any longer.
    fn is_urgent(&self) -> bool {
        self.held_bytes() >= self.bytes_max
    }

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
                    !self.waits(&metric.points) || metric.points.is_empty() || !self.keep(arena, &place, metric)
                });
            }
        }
        data.prune();
        let held = self.data.arena.held_bytes();
        if held > BYTES_MIN.max(self.compacted_bytes.saturating_mul(2)) {
            self.compact();
        }
    }

    /// Keeps the points of a metric, and leaves those for which there is no room. Whether it keeps all.
    fn keep(&mut self, from: &Arena, place: &Place<'_>, metric: &mut Metric) -> bool {
        let (resource, scope) = place.hashes;
        let hash = self.hasher.metric(scope, from, metric);
        let known = self.metrics.get(&hash).copied();
        let room = self.room();
        if known.is_none() && room == 0 {
            return false;
        }
        let (at, of, nth) = known.unwrap_or_else(|| self.new_metric(from, place, metric, (resource, scope, hash)));
        let Data { arena, resources } = &mut self.data;
        let Some(own) = resources
            .get_mut(at as usize)
            .and_then(|of_resource| of_resource.scopes.get_mut(of as usize))
            .and_then(|scope| scope.records.get_mut(nth as usize))
        else {
            return false;
        };
        let mut keeping = Keeping {
            arena,
            from,
            hasher: &mut self.hasher,
            series: &mut self.series,
            hash,
            room,
            bytes: &mut self.bytes,
            changed: &mut self.changed,
            superseded: &mut self.superseded,
        };
        let before = own.points.len();
        match (&mut own.points, &mut metric.points) {
            (Points::Gauge(own), Points::Gauge(points)) => keeping.keep(own, points),
            (Points::Sum { points: own, .. }, Points::Sum { points, .. }) => keeping.keep(own, points),
            (Points::Histogram { points: own, .. }, Points::Histogram { points, .. }) => keeping.keep(own, points),
            (Points::Exponential { points: own, .. }, Points::Exponential { points, .. }) => keeping.keep(own, points),
            (Points::Summary(own), Points::Summary(points)) => keeping.keep(own, points),
            // What is told apart by its hash is of one kind.
            _ => {}
        }
        self.points += own.points.len() - before;
        metric.points.is_empty()
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
    /// For how many further series there is room.
    room: usize,
    bytes: &'a mut usize,
    changed: &'a mut bool,
    superseded: &'a mut usize,
}

impl Keeping<'_> {
    /// Keeps points, and leaves those for which there is no room.
    fn keep<P: Point>(&mut self, own: &mut Vec<P>, points: &mut Vec<P>) {
        points.retain(|point| {
            let hash = self.hasher.series(self.hash, self.from, point.attributes());
            match self.series.get(&hash).and_then(|at| own.get_mut(*at as usize)) {
                Some(known) if point.time_ns() > known.time_ns() => {
                    // Its attributes are there already.
                    let newer = point.with(known.attributes(), self.exemplars(point));
                    *self.bytes = (*self.bytes + newer.held_bytes()).saturating_sub(known.held_bytes());
                    *known = newer;
                    *self.changed = true;
                    *self.superseded += 1;
                    false
                }
                Some(known) => {
                    // Who sends the same again is told when it got on.
                    *self.changed |= point.time_ns() == known.time_ns();
                    *self.superseded += 1;
                    false
                }
                None if self.room == 0 => true,
                None => {
                    let attributes = self.arena.carry_map(self.from, point.attributes());
                    let point = point.with(attributes, self.exemplars(point));
                    *self.bytes += point.held_bytes();
                    self.series.insert(hash, own.len() as u32);
                    own.push(point);
                    self.room -= 1;
                    *self.changed = true;
                    false
                }
            }
        });
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
    /// How much memory it takes besides what is in an arena, with its places in maps, in bytes, about.
    fn held_bytes(&self) -> usize;
    /// The same with attributes and exemplars from another arena.
    fn with(&self, attributes: Map, exemplars: Vec<Exemplar>) -> Self;
}

macro_rules! point {
    ($($point:ident: |$of:ident| $numbers:expr;)*) => {
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

            fn held_bytes(&self) -> usize {
                let $of = self;
                let numbers: usize = $numbers;
                PLACE_BYTES + size_of::<Self>() + numbers * size_of::<u64>() + size_of_val(&*self.exemplars)
            }

            fn with(&self, attributes: Map, exemplars: Vec<Exemplar>) -> Self {
                Self { attributes, exemplars, ..self.clone() }
            }
        })*
    };
}

point! {
    NumberPoint: |_point| 0;
    HistogramPoint: |point| point.bucket_counts.len() + point.explicit_bounds.len();
    ExponentialPoint: |point| point.positive.counts.len() + point.negative.counts.len();
}

/// What the place of a point in the map of series takes, in bytes.
const PLACE_BYTES: usize = 64;

impl Point for SummaryPoint {
    fn attributes(&self) -> Map {
        self.attributes
    }

    fn time_ns(&self) -> u64 {
        self.time_ns
    }

    fn exemplars(&self) -> &[Exemplar] {
        &[]
    }

    fn held_bytes(&self) -> usize {
        PLACE_BYTES + size_of::<Self>() + size_of_val(&*self.quantiles)
    }

    fn with(&self, attributes: Map, _: Vec<Exemplar>) -> Self {
        Self { attributes, ..self.clone() }
    }
}

impl Collect for Newest {
    type Kept = OnItsWay;

    fn collect(&self) -> Option<(Batch<Metric>, OnItsWay)> {
        let mut inner = self.inner.lock();
        let bytes = inner.held_bytes();
        let Inner { passthrough, hasher, data, acks, points, away, series_max, bytes_max, .. } =
            std::mem::take(&mut *inner);
        (inner.passthrough, inner.hasher) = (passthrough, hasher);
        (inner.series_max, inner.bytes_max) = (series_max, bytes_max);
        inner.away = Arc::clone(&away);
        if points == 0 {
            drop(inner);
            acks.safe();
            return None;
        }
        away.points.fetch_add(points, Ordering::Relaxed);
        away.bytes.fetch_add(bytes, Ordering::Relaxed);
        drop(inner);
        let mut batch = Batch::of(data, Arc::default());
        batch.acks = acks;
        Some((batch, OnItsWay { away, points, bytes }))
    }

    /// Points that nobody took wait again, but for those of which there is a newer one.
    fn put_back(&self, mut batch: Batch<Metric>, kept: OnItsWay, row: &Row) {
        let mut parts = batch.take_data();
        let mut inner = self.inner.lock();
        drop(kept);
        let passthrough = std::mem::take(&mut inner.passthrough);
        // There is room for what was there: no more came meanwhile than there may be besides it.
        let series_max = std::mem::replace(&mut inner.series_max, usize::MAX);
        inner.superseded = 0;
        parts.iter_mut().for_each(|data| inner.take(data));
        (inner.passthrough, inner.series_max) = (passthrough, series_max);
        inner.acks.join(batch.acks);
        row.merged(SUPERSEDED, inner.superseded);
        row.held(-(inner.superseded as i64));
    }

    fn count(&self, points: usize, row: &Row) {
        row.held(-(points as i64));
    }
}

#[cfg(test)]
mod tests {
    use corten_signal::ConsumeError;
    use corten_testkit::{OtlpSink, Unit, otlp};

    use super::*;
    use crate::testing::{self, Compared, arrived, busy, start};

    #[tokio::test(start_paused = true)]
    async fn points_are_those_of_the_reference() {
        testing::replay::<IntervalProcessor>(include_str!("../../tests/data/processor_interval.json"), Compared::Whole)
            .await;
    }

    #[tokio::test]
    async fn what_contradicts_itself_is_refused() {
        for (body, want) in [
            ("interval = \"0s\"", "interval must be greater than 0"),
            ("interval = \"-1s\"", "interval must be greater than 0"),
        ] {
            let error = start::<IntervalProcessor>(&OtlpSink::default(), body).await.unwrap_err();
            assert!(error.contains(want), "{body}: {error}");
        }
    }

    /// Sends a point of a sum of this series.
    async fn send(unit: &Unit, series: u32, value: i64, start_ns: u64, time_ns: u64) -> Result<(), ConsumeError> {
        testing::send(unit, testing::sum(CUMULATIVE, series, value, start_ns, time_ns)).await
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_took_waits_again_unless_there_is_something_newer() {
        let sink = OtlpSink::default();
        let unit = start::<IntervalProcessor>(&sink, "interval = \"10s\"").await.unwrap();
        send(&unit, 1, 1, 0, 1).await.unwrap();
        send(&unit, 2, 2, 0, 1).await.unwrap();
        sink.answer_with(busy());
        tokio::time::sleep(Duration::from_secs(15)).await;
        send(&unit, 1, 3, 0, 2).await.unwrap();
        tokio::time::sleep(Duration::from_secs(30)).await;
        sink.answer_with(None);
        tokio::time::sleep(Duration::from_secs(20)).await;
        let mut points = arrived(&sink);
        points.sort_unstable();
        assert_eq!(points, [(0, 1, 2), (0, 2, 3)]);
        assert!(unit.world.logs().contains("Metrics export failed"));
        assert_eq!(balance(&unit), "taken 3, out 2, merged {superseded: 1}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_gone_for_now_gets_it_with_the_next_interval_and_what_is_lost_is_said() {
        let sink = OtlpSink::default();
        let mut unit = start::<IntervalProcessor>(&sink, "interval = \"10s\"").await.unwrap();
        let gone = || Some(ConsumeError::Exited { component: "gone".into() });
        sink.answer_with(gone());
        send(&unit, 1, 1, 0, 1).await.unwrap();
        tokio::time::sleep(Duration::from_secs(11)).await;
        let logs = unit.world.logs();
        assert!(logs.contains("Metrics export failed") && logs.contains("error=\"gone has exited\" items=1"), "{logs}");
        sink.answer_with(None);
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(arrived(&sink), [(0, 1, 1)]);
        sink.answer_with(gone());
        send(&unit, 1, 2, 0, 2).await.unwrap();
        send(&unit, 2, 2, 0, 2).await.unwrap();
        unit.drain().await;
        assert!(unit.world.logs().contains("dropped_items=2"), "{}", unit.world.logs());
        assert_eq!(balance(&unit), "taken 3, out 1, dropped {shutdown: 2}");
    }

    fn balance(unit: &Unit) -> String {
        unit.world.balance_of(corten_signal::Kind::OtelMetric)
    }

    /// A stage that is not part of a component.
    fn stage(sink: &OtlpSink, world: &corten_testkit::World) -> Stage {
        let forward = Fanout::of(&world.host().ledger, [sink.consumer().metrics]);
        let row = Arc::clone(world.host().ledger.row_of::<OtlpMetrics>());
        Stage { newest: Arc::default(), forward, row, logger: world.host().logger.clone(), said: Seldom::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn series_that_are_too_many_do_not_wait_and_those_that_wait_stay_the_newest() {
        let (sink, world) = (OtlpSink::default(), corten_testkit::host("otelcol.processor.interval.a"));
        let stage = stage(&sink, &world);
        stage.newest.inner.lock().series_max = 2;
        for (series, value, time) in [(1, 1, 1), (2, 2, 1), (3, 3, 1), (1, 4, 2), (3, 5, 2), (2, 6, 2)] {
            stage.consume(testing::sum(CUMULATIVE, series, value, 0, time)).await.unwrap();
        }
        assert_eq!(arrived(&sink), [(0, 1, 3), (0, 2, 5)]);
        assert!(world.logs().contains("too many series"), "{}", world.logs());
        let (batch, on_its_way) = stage.newest.collect().unwrap();
        // What is on its way may come back: there is no room for others yet.
        stage.consume(testing::sum(CUMULATIVE, 4, 7, 0, 1)).await.unwrap();
        assert_eq!(arrived(&sink)[2..], [(0, 1, 7)]);
        stage.forward.consume(batch).await.unwrap();
        assert_eq!(arrived(&sink)[3..], [(0, 2, 4), (0, 2, 6)]);
        drop(on_its_way);
        stage.consume(testing::sum(CUMULATIVE, 4, 8, 0, 2)).await.unwrap();
        assert_eq!(arrived(&sink).len(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_too_much_memory_is_sent_before_its_time_and_is_no_more_than_that() {
        let (sink, world) = (OtlpSink::default(), corten_testkit::host("otelcol.processor.interval.a"));
        let stage = stage(&sink, &world);
        stage.newest.inner.lock().bytes_max = 1 << 20;
        let large = |number: u32| {
            let text = "x".repeat(10_000);
            let attributes = format!(r#""attributes":[{{"key":"{number}","value":{{"stringValue":"{text}"}}}}]"#);
            let ranges = vec!["\"1\""; 1000].join(",");
            let point = match number % 3 {
                0 => format!(r#"{{"timeUnixNano":"1",{attributes}}}"#),
                1 => format!(r#"{{"timeUnixNano":"{number}","bucketCounts":[{ranges}]}}"#),
                _ => format!(r#"{{"timeUnixNano":"{number}","exemplars":[{{"filteredA{}}}]}}"#, &attributes[2..]),
            };
            let kind = ["gauge", "histogram", "exponentialHistogram"][number as usize % 3];
            testing::metric(&number.to_string(), kind, CUMULATIVE, &point)
        };
        let mut refused = 0;
        for number in 0..1000 {
            if let Err(error) = stage.consume(large(number)).await {
                assert!(matches!(error, ConsumeError::Retry { .. }), "{error}");
                refused += 1;
            }
            assert!(stage.newest.inner.lock().held_bytes() < 3 << 20);
        }
        assert!((500..990).contains(&refused), "{refused}");
        assert!(world.logs().contains("too much waits for the interval"), "{}", world.logs());
        // Whoever sends from time to time was told.
        tokio::time::timeout(Duration::from_secs(1), stage.newest.early.notified()).await.unwrap();
        assert!(stage.newest.collect().is_some());
        stage.consume(large(1000)).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_takes_for_long_does_not_become_more_and_more() {
        let (sink, world) = (OtlpSink::default(), corten_testkit::host("otelcol.processor.interval.a"));
        let stage = stage(&sink, &world);
        stage.newest.inner.lock().bytes_max = 1 << 20;
        let (stopper, stop) = corten_component::Stop::pair();
        let periodic = Periodic {
            interval: Duration::from_secs(3600),
            forward: stage.forward.clone(),
            row: Arc::clone(&stage.row),
            resend: Resend::new(world.host().logger.clone(), Level::Error, FAILED),
            early: Arc::clone(&stage.newest.early),
            turn: Arc::default(),
        };
        let task = tokio::spawn(periodic.run(Arc::clone(&stage.newest), stop));
        // Each hour brings other series.
        let send = async |hour: u32| {
            let mut taken = 0;
            for number in 0..200 {
                let text = format!("{hour}.{number}.{}", "x".repeat(10_000));
                let point = format!(
                    r#"{{"timeUnixNano":"1","attributes":[{{"key":"k","value":{{"stringValue":"{text}"}}}}]}}"#
                );
                taken += usize::from(stage.consume(testing::metric("m", "gauge", 0, &point)).await.is_ok());
            }
            taken
        };
        let first = send(0).await;
        assert!((20..200).contains(&first), "{first}");
        // It does not wait for the hour to end.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(sink.items(), first);
        sink.answer_with(busy());
        let mut taken = 0;
        for hour in 1..=5 {
            taken += send(hour).await;
            tokio::time::sleep(Duration::from_secs(3601)).await;
        }
        assert!((20..first + first / 2).contains(&taken), "{taken} {first}");
        sink.answer_with(None);
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(sink.items(), first + taken);
        assert_eq!(stage.consume(testing::sum(CUMULATIVE, 1, 1, 0, 1)).await, Ok(()));
        stopper.stop();
        task.await.unwrap().unwrap();
        assert_eq!(sink.items(), first + taken + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_the_same_again_waits_for_it_as_before() {
        use corten_signal::acks::{Answer, waiter};
        let sink = OtlpSink::default();
        let unit = start::<IntervalProcessor>(&sink, "").await.unwrap();
        let batch = || {
            otlp::<Metric>(
                r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[
                {"name":"waits","gauge":{"dataPoints":[{"timeUnixNano":"1","asInt":"1"}]}},
                {"name":"goes on","sum":{"dataPoints":[{"asInt":"1"}]}}]}]}]}"#,
            )
        };
        sink.answer_with(busy());
        assert!(testing::send(&unit, batch()).await.is_err());
        sink.answer_with(None);
        let (acks, mut told) = waiter();
        let mut again = batch();
        again.acks = acks;
        testing::send(&unit, again).await.unwrap();
        assert_eq!(sink.sizes(), [1]);
        assert_eq!(told.wait(Duration::from_millis(1)).await, Answer::Held);
        assert_eq!(balance(&unit), "taken 2, out 1, created {sent again: 1}, merged {superseded: 1}, held 1");
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
        let unit = start::<IntervalProcessor>(&sink, "").await.unwrap();
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
        assert_eq!(balance(&unit), "taken 2, out 2");
    }

    #[tokio::test(start_paused = true)]
    async fn what_older_points_had_is_left_out_of_memory() {
        let sink = OtlpSink::default();
        let mut unit = start::<IntervalProcessor>(&sink, "interval = \"1h\"").await.unwrap();
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
        assert_eq!(balance(&unit), "taken 399, out 1, merged {superseded: 398}");
        assert!(batches[0].json.contains(r#""asInt":"399""#) && batches[0].json.contains(r#""stringValue":"v""#));
    }
}
