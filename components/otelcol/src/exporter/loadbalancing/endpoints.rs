//! The endpoints that there are, an exporter for each, and bringing telemetry to them.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwap;
use corten_component::metrics::{Counter, Gauge, Histogram, Registry, Vector};
use corten_component::{Error, Logger, Services};
use corten_otlp::{Batch, OtlpLogs, OtlpMetrics, OtlpSignal, Traces};
use corten_signal::ConsumeError;
use corten_signal::flow::BoxFuture;
use tokio::sync::RwLock;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::OtlpProtocol;
use super::keys::{Key, Routed, Split};
use super::ring::Ring;
use crate::exporter::ends::{HandedOn, ShownEnds};
use crate::exporter::otlp;
use crate::exporter::sending::{
    Attempt, Failure, Owner, PreparedSending, Push, Pushes, Sending, ServerName, UNROUTABLE,
};
use crate::flow::Stages;

/// The port of endpoints that have none.
const PORT: &str = "4317";
/// How long what is under way to an endpoint that is gone may take.
const LEAVE_WAIT_MAX: Duration = Duration::from_secs(60);

/// The endpoint as it is connected to.
fn with_port(endpoint: &str) -> String {
    match endpoint.parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]:{PORT}"),
        Err(_) if endpoint.contains(':') => endpoint.to_owned(),
        Err(_) => format!("{endpoint}:{PORT}"),
    }
}

const SCOPE: &str = "github.com/open-telemetry/opentelemetry-collector-contrib/exporter/loadbalancingexporter";
const LATENCY_BUCKETS: &[f64] = &[5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0];

/// What the component counts.
#[derive(Clone)]
pub(super) struct LoadMetrics {
    resolutions: Vector<Counter>,
    backends: Vector<Gauge>,
    updates: Vector<Counter>,
    latency: Vector<Histogram>,
    outcome: Vector<Counter>,
    unroutable: Counter,
}

impl LoadMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let labels = |further: &[&'static str]| {
            [&["otel_scope_name", "otel_scope_version", "otel_scope_schema_url"], further].concat()
        };
        LoadMetrics {
            resolutions: registry.counters(
                "otelcol_loadbalancer_num_resolutions_total",
                "Number of times the resolver has triggered new resolutions. [Development]",
                &labels(&["resolver", "success"]),
            ),
            backends: registry.gauges(
                "otelcol_loadbalancer_num_backends",
                "Current number of backends in use. [Development]",
                &labels(&["resolver"]),
            ),
            updates: registry.counters(
                "otelcol_loadbalancer_num_backend_updates_total",
                "Number of times the list of backends was updated. [Development]",
                &labels(&["resolver"]),
            ),
            latency: registry.histograms(
                "otelcol_loadbalancer_backend_latency_milliseconds",
                "Response latency in ms for the backends. [Development]",
                &labels(&["endpoint"]),
                LATENCY_BUCKETS,
            ),
            outcome: registry.counters(
                "otelcol_loadbalancer_backend_outcome_total",
                "Number of successes and failures for each endpoint. [Development]",
                &labels(&["endpoint", "success"]),
            ),
            unroutable: registry.counter(
                "corten_loadbalancer_unroutable_points_total",
                "Data points that were dropped because their resource has no service to tell them apart by.",
            ),
        }
    }

    /// Counts a look for endpoints.
    pub(super) fn resolved(&self, resolver: &str, success: bool) {
        self.resolutions.with(&[SCOPE, "", "", resolver, if success { "true" } else { "false" }]).inc();
    }

    /// Counts that endpoints are others, and how many there are.
    pub(super) fn updated(&self, resolver: &str, backends: usize) {
        self.backends.with(&[SCOPE, "", "", resolver]).set(backends as f64);
        self.updates.with(&[SCOPE, "", "", resolver]).inc();
    }

    fn forget(&self, endpoint: &str) {
        self.latency.remove(&[SCOPE, "", "", endpoint]);
        for success in ["true", "false"] {
            self.outcome.remove(&[SCOPE, "", "", endpoint, success]);
        }
    }
}

/// Where telemetry enters the exporter of an endpoint.
struct Door {
    endpoint: String,
    stages: Stages,
    /// Held to be read while something goes in, and to be written when the exporter ends.
    open: RwLock<()>,
    latency: Histogram,
    taken: Counter,
    failed: Counter,
}

impl Door {
    fn new(endpoint: &str, stages: Stages, metrics: &LoadMetrics) -> Arc<Self> {
        Arc::new(Door {
            endpoint: endpoint.to_owned(),
            stages,
            open: RwLock::new(()),
            latency: metrics.latency.with(&[SCOPE, "", "", endpoint]),
            taken: metrics.outcome.with(&[SCOPE, "", "", endpoint, "true"]),
            failed: metrics.outcome.with(&[SCOPE, "", "", endpoint, "false"]),
        })
    }

    async fn take<S: Routed>(&self, batch: Batch<S::Record>) -> Result<(), Failure> {
        let _inside = self.open.try_read().map_err(|_| missing(&self.endpoint))?;
        let stage = S::stage(&self.stages).ok_or_else(|| missing(&self.endpoint))?;
        stage.consume(batch).await.map_err(|error| match error {
            ConsumeError::Retry { after, reason } => Failure { after, ..Failure::passing(reason) },
            ConsumeError::Refused { reason } => Failure::permanent(reason),
            gone @ ConsumeError::Exited { .. } => Failure::passing(gone.to_string()),
        })
    }

    fn observe(&self, begun: Instant, outcome: &Result<(), Failure>) {
        self.latency.observe(begun.elapsed().as_millis() as f64);
        if outcome.is_ok() { &self.taken } else { &self.failed }.inc();
    }
}

fn missing(endpoint: &str) -> Failure {
    Failure::passing(format!("couldn't find the exporter for the endpoint {endpoint:?}"))
}

/// Which endpoint has what, and where telemetry enters.
#[derive(Default)]
pub(super) struct Routes {
    ring: Ring,
    /// The endpoints of the ring, by number, as numbers of doors. Two may be one.
    door_of: Vec<u32>,
    /// The names of endpoints, and where telemetry enters; nothing where the exporter could not be made.
    doors: Vec<(String, Option<Arc<Door>>)>,
}

/// What makes the exporters of endpoints.
pub(super) struct Maker {
    pub(super) owner: Owner,
    pub(super) services: Arc<Services>,
    pub(super) otlp: OtlpProtocol,
    pub(super) names_peers: bool,
}

impl Maker {
    /// Looks at what is wrong with the arguments, whatever the endpoint. Whether requests differ by what their telemetry came
    /// with.
    pub(super) async fn check(&self) -> Result<bool, Error> {
        if let Some(storage) = self.otlp.queue.storage.as_ref().filter(|_| self.otlp.queue.enabled) {
            storage.storage()?;
        }
        Ok(self.pushes("placeholder:4317").await?.logs.is_some_and(|logs| logs.reads_context()))
    }

    async fn pushes(&self, endpoint: &str) -> Result<Pushes, Error> {
        let part = self.owner.part(endpoint);
        otlp::pushes(&part, endpoint, &self.otlp.client, self.otlp.timeout, self.names_peers, &self.services).await
    }

    async fn prepare(&self, endpoint: &str, current: Option<&Sending>) -> Result<PreparedSending, Error> {
        let pushes = self.pushes(endpoint).await?;
        Sending::prepare(self.owner.part(endpoint), pushes, &self.otlp.queue, &self.otlp.retry, current).await
    }
}

/// The exporters of the endpoints, and what they are made with.
pub(super) struct Endpoints {
    /// As they were found, sorted.
    found: Vec<String>,
    exporters: BTreeMap<String, Exporter>,
    routes: Arc<ArcSwap<Routes>>,
    metrics: LoadMetrics,
    /// The exporters of endpoints that are gone, as long as they hold something.
    leaving: JoinSet<()>,
    shown: Arc<ShownEnds>,
}

struct Exporter {
    sending: Sending,
    door: Arc<Door>,
}

/// What is to be put in place.
pub(super) struct PreparedEndpoints {
    found: Vec<String>,
    exporters: BTreeMap<String, PreparedSending>,
}

impl Endpoints {
    pub(super) fn new(metrics: LoadMetrics) -> Self {
        Endpoints {
            found: Vec::new(),
            exporters: BTreeMap::new(),
            routes: Arc::default(),
            metrics,
            leaving: JoinSet::new(),
            shown: Arc::default(),
        }
    }

    pub(super) fn routes(&self) -> Arc<ArcSwap<Routes>> {
        Arc::clone(&self.routes)
    }

    pub(super) fn metrics(&self) -> &LoadMetrics {
        &self.metrics
    }

    /// What is told of the servers.
    pub(super) fn shown(&self) -> &Arc<ShownEnds> {
        &self.shown
    }

    pub(super) fn found(&self) -> &[String] {
        &self.found
    }

    /// Whether there is an exporter for each of these endpoints, and for no other.
    pub(super) fn are(&self, found: &[String]) -> bool {
        self.found == found && self.is_whole()
    }

    /// Whether there is an exporter for each endpoint.
    pub(super) fn is_whole(&self) -> bool {
        self.found.iter().all(|endpoint| self.exporters.contains_key(&with_port(endpoint)))
    }

    /// Prepares the exporters of these endpoints: of those that there is none for, or, for other arguments, of all. One that
    /// cannot be made is missing; that is logged.
    pub(super) async fn prepare(&self, mut found: Vec<String>, maker: &Maker, all: bool) -> PreparedEndpoints {
        found.sort();
        let mut exporters = BTreeMap::new();
        for endpoint in found.iter().map(|endpoint| with_port(endpoint)) {
            let current = self.exporters.get(&endpoint).map(|exporter| &exporter.sending);
            if exporters.contains_key(&endpoint) || current.is_some() && !all {
                continue;
            }
            match maker.prepare(&endpoint, current).await {
                Ok(sending) => {
                    exporters.insert(endpoint, sending);
                }
                Err(error) => {
                    let fields = [("endpoint", endpoint.into()), ("error", error.to_string().into())];
                    maker.owner.logger().error("failed to create new exporter for endpoint", &fields);
                }
            }
        }
        PreparedEndpoints { found, exporters }
    }

    /// Puts in place what was prepared. What waits for endpoints that are gone is still sent.
    pub(super) fn commit(&mut self, prepared: PreparedEndpoints) {
        for (endpoint, sending) in prepared.exporters {
            let current = self.exporters.remove(&endpoint).map(|exporter| exporter.sending);
            let sending = Sending::commit(current, sending);
            let door = Door::new(&endpoint, sending.stages(), &self.metrics);
            self.exporters.insert(endpoint, Exporter { sending, door });
        }
        self.found = prepared.found;
        self.show();
        let names: Vec<String> = self.found.iter().map(|endpoint| with_port(endpoint)).collect();
        let gone: Vec<String> = self.exporters.keys().filter(|endpoint| !names.contains(endpoint)).cloned().collect();
        while self.leaving.try_join_next().is_some() {}
        for endpoint in gone {
            self.metrics.forget(&endpoint);
            if let Some(Exporter { sending, door }) = self.exporters.remove(&endpoint) {
                self.leaving.spawn(async move {
                    // Those who are not through by then are told to try again.
                    let _closed = tokio::time::timeout(LEAVE_WAIT_MAX, door.open.write()).await;
                    sending.drain().await;
                });
            }
        }
    }

    fn show(&self) {
        self.shown.set(self.exporters.values().flat_map(|exporter| exporter.sending.ends()).collect());
        let mut doors: Vec<(String, Option<Arc<Door>>)> = Vec::new();
        let door_of = self.found.iter().map(|endpoint| {
            let endpoint = with_port(endpoint);
            let known = doors.iter().position(|(known, _)| *known == endpoint);
            known.unwrap_or_else(|| {
                let door = self.exporters.get(&endpoint).map(|exporter| Arc::clone(&exporter.door));
                doors.push((endpoint, door));
                doors.len() - 1
            }) as u32
        });
        let door_of = door_of.collect();
        self.routes.store(Arc::new(Routes { ring: Ring::new(&self.found), door_of, doors }));
    }

    /// Ends all exporters.
    pub(super) async fn drain(&mut self) {
        self.routes.store(Arc::default());
        for (_, exporter) in std::mem::take(&mut self.exporters) {
            self.leaving.spawn(exporter.sending.drain());
        }
        while self.leaving.join_next().await.is_some() {}
    }
}

/// What goes to one door, by number.
type Share<S> = (usize, Batch<<S as OtlpSignal>::Record>);

/// What goes to one endpoint, and why it was not taken.
type Refused<S> = (Batch<<S as OtlpSignal>::Record>, Failure);

/// Brings batches to the endpoints that have them.
pub(super) struct Router {
    pub(super) key: Key,
    /// How long that may take.
    pub(super) timeout: Duration,
    pub(super) routes: Arc<ArcSwap<Routes>>,
    pub(super) metrics: LoadMetrics,
    pub(super) logger: Logger,
    /// Whether exporters add what telemetry came with.
    pub(super) reads_context: bool,
}

impl Router {
    /// Splits a batch into what goes to each door, by number; and how many items go nowhere.
    fn split<S: Routed>(&self, routes: &Routes, batch: &Batch<S::Record>) -> Result<(Vec<Share<S>>, usize), Failure> {
        let choose = |key: &[u8]| {
            let endpoint = routes.ring.choose(key).unwrap_or_default();
            routes.door_of.get(endpoint as usize).copied().unwrap_or_default()
        };
        let Split { parts, lost } = S::split(self.key, batch, routes.doors.len(), &choose);
        let items = parts.iter().map(Batch::items).sum();
        let unroutable = batch.items().saturating_sub(items);
        if let Some(why) = lost {
            let fields = [("error", (&why).into()), ("dropped_items", unroutable.into())];
            self.logger.error("failed to export metric", &fields);
            self.metrics.unroutable.add(unroutable as u64);
            if items == 0 {
                return Err(Failure { reason: UNROUTABLE, ..Failure::permanent(why) });
            }
        }
        Ok((parts.into_iter().enumerate().filter(|(_, part)| part.items() > 0).collect(), unroutable))
    }

    /// Hands each part in at its door, all at once; what was not taken, and why.
    async fn deliver<S: Routed>(
        &self,
        routes: &Routes,
        parts: Vec<Share<S>>,
        handed_on: &mut HandedOn,
    ) -> Vec<Refused<S>> {
        let begun = Instant::now();
        let mut failed = Vec::new();
        let mut running = Vec::with_capacity(parts.len());
        for (at, part) in parts {
            match routes.doors.get(at) {
                Some((_, Some(door))) => {
                    let taking: BoxFuture<'_, _> = Box::pin(door.take::<S>(part.clone()));
                    running.push((door, part, taking));
                }
                Some((endpoint, None)) => failed.push((part, missing(endpoint))),
                None => failed.push((part, missing(""))),
            }
        }
        let mut ended = |door: &Door, part: Batch<S::Record>, outcome: Result<(), Failure>| {
            door.observe(begun, &outcome);
            match outcome {
                Ok(()) => {
                    handed_on.add(part.items());
                    part.acks.safe();
                }
                Err(failure) => {
                    let message = format!("failed to export {}", S::NAME);
                    let fields = [("endpoint", (&door.endpoint).into()), ("error", failure.to_string().into())];
                    self.logger.debug(&message, &fields);
                    failed.push((part, failure));
                }
            }
        };
        let all = poll_fn(|cx| {
            let mut at = 0;
            while let Some((_, _, taking)) = running.get_mut(at) {
                match taking.as_mut().poll(cx) {
                    Poll::Pending => at += 1,
                    Poll::Ready(outcome) => {
                        let (door, part, _) = running.swap_remove(at);
                        ended(door, part, outcome);
                    }
                }
            }
            if running.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        });
        // What is not taken in time is seen below.
        let _ = tokio::time::timeout(self.timeout, all).await;
        for (door, part, taking) in running {
            drop(taking);
            ended(door, part, Err(Failure::passing("context deadline exceeded")));
        }
        failed
    }
}

impl Router {
    async fn attempt<S: Routed>(&self, attempt: &mut Attempt<S>) -> Result<(), Failure> {
        let routes = self.routes.load_full();
        if routes.doors.is_empty() {
            return Err(missing(""));
        }
        let (mut parts, unroutable) = self.split::<S>(&routes, &attempt.batch)?;
        attempt.unroutable += unroutable;
        let rest = Batch::empty(Arc::clone(&attempt.batch.context));
        let batch = std::mem::replace(&mut attempt.batch, rest);
        parts.iter_mut().for_each(|(_, part)| part.acks = batch.acks.clone());
        batch.acks.safe();
        let mut failures = Vec::new();
        for (part, failure) in self.deliver::<S>(&routes, parts, &mut attempt.handed_on).await {
            attempt.batch.join(part);
            failures.push(failure);
        }
        joined(failures).map_or(Ok(()), Err)
    }
}

macro_rules! push {
    ($($signal:ty),+) => {$(
        impl Push<$signal> for Router {
            fn attempt<'a>(self: Arc<Self>, attempt: &'a mut Attempt<$signal>) -> BoxFuture<'a, Result<(), Failure>> {
                Box::pin(async move { Router::attempt(&self, attempt).await })
            }

            fn hands_on(&self) -> bool {
                true
            }

            fn reads_context(&self) -> bool {
                self.reads_context
            }

            fn server(&self) -> ServerName<'_> {
                ServerName::default()
            }

            fn url(&self) -> String {
                String::new()
            }
        }
    )+};
}

// The compiler does not see that nobody else can say how requests of a further signal are sent.
push!(Traces, OtlpMetrics, OtlpLogs);

/// One failure for several. It passes if one of them may.
fn joined(mut failures: Vec<Failure>) -> Option<Failure> {
    if failures.len() < 2 {
        return failures.pop();
    }
    let texts: Vec<String> = failures.iter().map(Failure::to_string).collect();
    let permanent = failures.iter().all(|failure| failure.permanent);
    let after = failures.iter().filter_map(|failure| failure.after).max();
    let text = texts.join("; ");
    Some(if permanent { Failure::permanent(text) } else { Failure { after, ..Failure::passing(text) } })
}
