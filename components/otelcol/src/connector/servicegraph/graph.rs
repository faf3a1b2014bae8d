//! Requests between services: those of which one side is known, and the counts of those that are complete.

use std::time::Duration;

use corten_component::metrics::Counter;
use corten_component::{Component, Context};
use corten_otlp::metrics::{CUMULATIVE, Metric, Number, NumberPoint, Points};
use corten_otlp::{Arena, Batch, Data, Map, OfResource, OfScope, Scope, Span, Text, Value};
use corten_signal::ledger::{Pass, Row};
use indexmap::map::Entry;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::connector::durations::{Counted, Durations, Ranges, points};
use crate::connector::traces_to_metrics::{NO_ROOM, NO_SERVICE, Observe};
use crate::identity::{ByHash, Hasher, Recent};
use crate::periodic::{Collect, now_ns};

/// How long a series without a request is remembered.
const SERIES_AGE_MAX: Duration = Duration::from_secs(15 * 60);
/// How many series there are at most; requests that would make further ones are dropped and counted.
const SERIES_MAX: usize = 1 << 18;
/// How much memory series take at most, in bytes, about; requests that would make further ones are dropped and counted.
const SERIES_BYTES_MAX: usize = 256 << 20;
/// How much memory requests take at most of which one side is known, in bytes, about; further ones are dropped and counted.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// What a series or a request takes in maps, in bytes.
const OVERHEAD_BYTES: usize = 96;

/// What the arguments say.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(super) ranges: Ranges,
    pub(super) dimensions: Vec<String>,
    pub(super) peers: Vec<String>,
    pub(super) with_virtual: bool,
    pub(super) databases: Vec<String>,
    pub(super) edges_max: usize,
    pub(super) age_max: Duration,
}

/// What the component counts of itself.
#[derive(Clone, Debug)]
pub(super) struct OwnMetrics {
    edges: Counter,
    expired: Counter,
    dropped: Counter,
}

impl OwnMetrics {
    pub(super) fn new<C: Component>(cx: &Context<C>) -> Self {
        const SCOPE: &str = "github.com/open-telemetry/opentelemetry-collector-contrib/connector/servicegraphconnector";
        const LABELS: &[&str] = &["otel_scope_name", "otel_scope_version", "otel_scope_schema_url"];
        let counter = |name, help| cx.metrics().counters(name, help, LABELS).with(&[SCOPE, "", ""]);
        OwnMetrics {
            edges: counter("otelcol_connector_servicegraph_total_edges_total", "Total number of unique edges"),
            expired: counter(
                "otelcol_connector_servicegraph_expired_edges_total",
                "Number of edges that expired before finding its matching span",
            ),
            dropped: counter(
                "otelcol_connector_servicegraph_dropped_spans_total",
                "Number of spans dropped when trying to add edges",
            ),
        }
    }
}

/// The requests.
pub(crate) struct Graph {
    inner: Mutex<Inner>,
    metrics: OwnMetrics,
}

struct Inner {
    settings: Settings,
    hasher: Hasher,
    /// Requests of which one side is known, the oldest first.
    waiting: Recent<Edge>,
    waiting_bytes: usize,
    series: ByHash<Series>,
    /// How much memory series take besides their attributes, in bytes.
    series_bytes: usize,
    /// What the attributes of series are in.
    arena: Arena,
}

/// A request. Sides that are not known have no service.
struct Edge {
    kind: Kind,
    client: Side,
    server: Side,
    failed: bool,
    /// Whether the server's span has no parent.
    is_root: bool,
    /// What the client's span says of the server.
    peer: Option<Box<[u8]>>,
    expires: Instant,
}

#[derive(Default)]
struct Side {
    service: Box<[u8]>,
    seconds: f64,
    /// The dimensions, in their order.
    dimensions: Vec<Option<Box<[u8]>>>,
}

impl Side {
    fn heap_bytes(&self) -> usize {
        let texts: usize = self.dimensions.iter().flatten().map(|text| text.len()).sum();
        self.service.len() + size_of_val(&*self.dimensions) + texts
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Unknown,
    Messaging,
    Database,
    Virtual,
}

impl Kind {
    fn name(self) -> &'static [u8] {
        match self {
            Kind::Unknown => b"",
            Kind::Messaging => b"messaging_system",
            Kind::Database => b"database",
            Kind::Virtual => b"virtual_node",
        }
    }
}

struct Series {
    attributes: Map,
    start_ns: u64,
    seen: Instant,
    total: u64,
    failed: u64,
    server: Durations,
    client: Durations,
}

impl Series {
    /// How much memory it takes besides its attributes, in bytes.
    fn held_bytes(&self) -> usize {
        size_of::<Self>() + OVERHEAD_BYTES + self.server.heap_bytes() + self.client.heap_bytes()
    }
}

/// A span with the attributes of its resource.
#[derive(Clone, Copy)]
struct Seen<'a> {
    arena: &'a Arena,
    resource: Map,
    service: Value,
    span: &'a Span,
}

impl Graph {
    pub(super) fn new(settings: Settings, metrics: OwnMetrics) -> Self {
        let inner = Inner {
            settings,
            hasher: Hasher::default(),
            waiting: Recent::default(),
            waiting_bytes: 0,
            series_bytes: 0,
            series: ByHash::default(),
            arena: Arena::default(),
        };
        Graph { inner: Mutex::new(inner), metrics }
    }

    /// Whether other arguments make the same series.
    pub(super) fn fits(&self, settings: &Settings) -> bool {
        let now = &self.inner.lock().settings;
        now.ranges == settings.ranges
            && now.dimensions == settings.dimensions
            && now.with_virtual == settings.with_virtual
    }

    /// Goes on under other arguments that make the same series.
    pub(super) fn go_on(&self, settings: Settings) {
        self.inner.lock().settings = settings;
    }

    /// Ends the wait of requests whose other side did not come in time.
    pub(super) fn expire(&self) {
        let mut inner = self.inner.lock();
        let now = Instant::now();
        while let Some(edge) = inner.waiting.pop_if(|edge| edge.expires < now) {
            inner.waiting_bytes = inner.waiting_bytes.saturating_sub(edge.held_bytes());
            self.metrics.expired.inc();
            inner.expired(edge, &self.metrics);
        }
    }

    /// Forgets series without a request for a while.
    pub(super) fn forget(&self) {
        let mut inner = self.inner.lock();
        let now = Instant::now();
        let before = inner.series.len();
        inner.series.retain(|_, series| now.saturating_duration_since(series.seen) <= SERIES_AGE_MAX);
        if inner.series.len() < before {
            let old = std::mem::take(&mut inner.arena);
            let Inner { series, arena, .. } = &mut *inner;
            series.values_mut().for_each(|series| series.attributes = arena.carry_map(&old, series.attributes));
            inner.series_bytes = inner.series.values().map(Series::held_bytes).sum();
        }
    }
}

impl Observe for Graph {
    fn observe(&self, batch: &Batch<Span>, pass: &mut Pass<'_>) -> usize {
        let (mut no_room, mut no_service) = (0, 0);
        let parts: Vec<_> = batch.data().collect();
        let mut inner = self.inner.lock();
        for data in parts {
            let arena = &data.arena;
            for of in &data.resources {
                let resource = of.resource.attributes;
                let Some(service) = arena.get(resource, b"service.name") else {
                    no_service += of.scopes.iter().map(|scope| scope.records.len()).sum::<usize>();
                    continue;
                };
                for span in of.scopes.iter().flat_map(|scope| &scope.records) {
                    let has_room = inner.observe(Seen { arena, resource, service, span }, &self.metrics);
                    no_room += usize::from(!has_room);
                }
            }
        }
        pass.dropped(NO_ROOM, no_room);
        pass.dropped(NO_SERVICE, no_service);
        no_room + no_service
    }

    fn counts(&self) -> Vec<(&'static str, usize)> {
        let inner = self.inner.lock();
        vec![("series", inner.series.len()), ("waiting_requests", inner.waiting.len())]
    }
}

impl Inner {
    /// Looks at a span; whether there is room for what it says.
    fn observe(&mut self, seen: Seen<'_>, metrics: &OwnMetrics) -> bool {
        const SERVER: i32 = 2;
        const CLIENT: i32 = 3;
        const PRODUCER: i32 = 4;
        const CONSUMER: i32 = 5;
        let span = seen.span;
        let is_client = match span.kind {
            CLIENT | PRODUCER => true,
            SERVER | CONSUMER => false,
            _ => return true,
        };
        let id = if is_client { span.span_id } else { span.parent_span_id };
        self.hasher.text(&span.trace_id);
        self.hasher.text(&id);
        let key = self.hasher.finish();
        let kind = if matches!(span.kind, PRODUCER | CONSUMER) { Kind::Messaging } else { Kind::Unknown };
        if let Some(edge) = self.waiting.peek(key) {
            let bytes = edge.held_bytes();
            edge.set(seen, is_client, kind, &self.settings);
            if !edge.is_complete() {
                self.waiting_bytes = (self.waiting_bytes + edge.held_bytes()).saturating_sub(bytes);
            } else if let Some(edge) = self.waiting.remove(key) {
                self.waiting_bytes = self.waiting_bytes.saturating_sub(bytes);
                return self.count(edge, b"", metrics);
            }
            return true;
        }
        let mut edge = Edge {
            kind,
            client: Side::default(),
            server: Side::default(),
            failed: false,
            is_root: id == [0; 8],
            peer: None,
            expires: Instant::now() + self.settings.age_max,
        };
        edge.set(seen, is_client, kind, &self.settings);
        if edge.is_complete() {
            metrics.edges.inc();
            return self.count(edge, b"", metrics);
        }
        let has_room =
            self.waiting.len() < self.settings.edges_max && self.waiting_bytes + edge.held_bytes() <= WAITING_BYTES_MAX;
        if has_room {
            metrics.edges.inc();
            self.waiting_bytes += edge.held_bytes();
            self.waiting.insert(key, edge, usize::MAX);
        } else {
            metrics.dropped.inc();
        }
        has_room
    }

    /// What becomes of a request whose other side did not come.
    fn expired(&mut self, mut edge: Edge, metrics: &OwnMetrics) {
        if self.settings.peers.is_empty() {
            return;
        }
        edge.kind = Kind::Virtual;
        if edge.client.service.is_empty() && edge.is_root {
            edge.client.service = b"user".as_slice().into();
            let _ = self.count(edge, b"client", metrics);
        } else if edge.server.service.is_empty() {
            edge.server.service = edge.peer.take().unwrap_or_else(|| b"unknown".as_slice().into());
            let _ = self.count(edge, b"server", metrics);
        }
    }

    /// Counts a request; whether there is room for it.
    fn count(&mut self, edge: Edge, virtual_side: &[u8], metrics: &OwnMetrics) -> bool {
        let Inner { settings, hasher, series, series_bytes, arena, .. } = self;
        hasher.text(&edge.client.service);
        hasher.text(&edge.server.service);
        hasher.text(edge.kind.name());
        hasher.text(virtual_side);
        hasher.number(u64::from(edge.failed));
        for value in edge.client.dimensions.iter().chain(&edge.server.dimensions) {
            hasher.number(u64::from(value.is_some()));
            hasher.text(value.as_deref().unwrap_or_default());
        }
        // Dimensions of a side without a span are not there at all.
        hasher.number(edge.client.dimensions.len() as u64);
        let key = hasher.finish();
        let is_full = series.len() >= SERIES_MAX || *series_bytes + arena.held_bytes() >= SERIES_BYTES_MAX;
        if is_full && !series.contains_key(&key) {
            metrics.dropped.inc();
            return false;
        }
        let now = Instant::now();
        let mut before = 0;
        let one = match series.entry(key) {
            Entry::Occupied(known) => {
                let known = known.into_mut();
                before = known.held_bytes();
                known
            }
            Entry::Vacant(new) => new.insert(Series {
                attributes: settings.attributes(arena, &edge, virtual_side),
                start_ns: now_ns(),
                seen: now,
                total: 0,
                failed: 0,
                server: Durations::new(&settings.ranges),
                client: Durations::new(&settings.ranges),
            }),
        };
        one.seen = now;
        one.total = one.total.saturating_add(1);
        one.failed = one.failed.saturating_add(u64::from(edge.failed));
        one.server.observe(&settings.ranges, edge.server.seconds, 1);
        one.client.observe(&settings.ranges, edge.client.seconds, 1);
        *series_bytes = (*series_bytes + one.held_bytes()).saturating_sub(before);
        true
    }
}

impl Edge {
    /// Takes what a span says of its side.
    fn set(&mut self, seen: Seen<'_>, is_client: bool, kind: Kind, settings: &Settings) {
        let Seen { arena, resource, service, span } = seen;
        self.kind = kind;
        self.failed |= span.status.code == 2;
        let first = |name: &String, maps: &[Map]| {
            let found = maps.iter().find_map(|map| arena.get(*map, name.as_bytes()))?;
            Some(text(arena, found))
        };
        let maps = [resource, span.attributes];
        // A span that ends before it begins took no time.
        let seconds = span.end_time_ns.saturating_sub(span.start_time_ns) as f64 / 1e9;
        let side = if is_client { &mut self.client } else { &mut self.server };
        side.service = text(arena, service);
        side.seconds = seconds;
        if side.dimensions.is_empty() {
            side.dimensions = settings.dimensions.iter().map(|_| None).collect();
        }
        for (name, value) in settings.dimensions.iter().zip(&mut side.dimensions) {
            if let Some(found) = first(name, &maps) {
                *value = Some(found);
            }
        }
        if !is_client {
            return;
        }
        if let Some(peer) = settings.peers.iter().find_map(|name| first(name, &[span.attributes])) {
            self.peer = Some(peer);
        }
        if let Some(database) = settings.databases.iter().find_map(|name| first(name, &maps)) {
            self.kind = Kind::Database;
            self.server.service = database;
            self.server.seconds = seconds;
        }
    }

    /// How much memory it takes while it waits, in bytes, about.
    fn held_bytes(&self) -> usize {
        let peer = self.peer.as_ref().map_or(0, |peer| peer.len());
        size_of::<Self>() + OVERHEAD_BYTES + self.client.heap_bytes() + self.server.heap_bytes() + peer
    }

    fn is_complete(&self) -> bool {
        !self.client.service.is_empty() && !self.server.service.is_empty()
    }
}

fn text(arena: &Arena, value: Value) -> Box<[u8]> {
    match value {
        Value::Str(text) => arena.bytes(text).into(),
        other => arena.to_text(other).into_bytes().into(),
    }
}

impl Settings {
    fn attributes(&self, arena: &mut Arena, edge: &Edge, virtual_side: &[u8]) -> Map {
        let mut map = Map::default();
        let mut put = |key: &[u8], value: &[u8]| {
            let value = Value::Str(arena.own(value));
            arena.put(&mut map, key, value);
        };
        put(b"client", &edge.client.service);
        put(b"server", &edge.server.service);
        put(b"connection_type", edge.kind.name());
        arena.put(&mut map, b"failed", Value::Bool(edge.failed));
        let mut put = |key: &[u8], value: &[u8]| {
            let value = Value::Str(arena.own(value));
            arena.put(&mut map, key, value);
        };
        for (side, prefix) in [(&edge.client, "client_"), (&edge.server, "server_")] {
            for (name, value) in self.dimensions.iter().zip(&side.dimensions) {
                if let Some(value) = value {
                    put(format!("{prefix}{name}").as_bytes(), value);
                }
            }
        }
        if self.with_virtual {
            put(b"virtual_node", virtual_side);
        }
        map
    }
}

impl Collect for Graph {
    /// The counts go on whatever becomes of them.
    type Kept = ();

    fn collect(&self) -> Option<(Batch<Metric>, ())> {
        let inner = self.inner.lock();
        if inner.series.is_empty() {
            return None;
        }
        let (now_ns, from, ranges) = (now_ns(), &inner.arena, &inner.settings.ranges);
        let mut data = Data::default();
        let to = &mut data.arena;
        let mut metrics = Vec::new();
        for (name, of) in [
            ("traces_service_graph_request_total", (|series| series.total) as fn(&Series) -> u64),
            ("traces_service_graph_request_failed_total", |series| series.failed),
        ] {
            let counted = inner.series.values().filter(|series| of(series) > 0);
            let points: Vec<_> = counted
                .map(|series| NumberPoint {
                    attributes: to.carry_map(from, series.attributes),
                    start_time_ns: series.start_ns,
                    time_ns: now_ns,
                    value: Number::Int(i64::try_from(of(series)).unwrap_or(i64::MAX)),
                    ..NumberPoint::default()
                })
                .collect();
            if !points.is_empty() {
                metrics.push(Metric {
                    name: to.own(name.as_bytes()),
                    points: Points::Sum { points, temporality: CUMULATIVE, monotonic: true },
                    ..Metric::default()
                });
            }
        }
        for (name, of) in [
            ("traces_service_graph_request_server", (|series| &series.server) as fn(&Series) -> &Durations),
            ("traces_service_graph_request_client", |series| &series.client),
        ] {
            let counted = inner.series.values().map(|series| Counted {
                attributes: series.attributes,
                start_ns: series.start_ns,
                exemplars: Vec::new(),
                durations: of(series),
            });
            metrics.push(Metric {
                name: to.own(name.as_bytes()),
                unit: to.own(b"s"),
                points: points(ranges, CUMULATIVE, counted, (&mut *to, from), now_ns),
                ..Metric::default()
            });
        }
        let scope = Scope { name: to.own(b"traces_service_graph"), ..Scope::default() };
        let scopes = vec![OfScope { scope, schema_url: Text::EMPTY, records: metrics }];
        data.resources.push(OfResource { scopes, ..OfResource::default() });
        Some((Batch::of(data, Default::default()), ()))
    }

    fn put_back(&self, _: Batch<Metric>, (): (), _: &Row) {}
}
