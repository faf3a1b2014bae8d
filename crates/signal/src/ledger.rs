//! What became of every item: the books that each component keeps of what it took and what it handed on.
//!
//! For a component and a kind of data, `taken + received + created = out + dropped + merged + held`. For the way from one
//! component to another, `sent = taken + refused + lost + in flight`, and what a component took is what the ways to it
//! say. For a sink and each of its ends, `offered + restored = delivered + dropped + pending`. All of it is counted
//! where it happens and nothing is derived from something else, so that a sum that is not even shows a loss that nobody
//! has counted.
//!
//! What makes the sums even at rest is one rule: **a stage that does not answer with `Ok` has taken nothing**. What it
//! did to a batch counts when it says that it took the batch: see [`Pass`]. What it had handed on all the same before it
//! failed will be sent again, and counts as [created](Row::created).

use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, RwLock};

use crate::flow::{ConsumeError, Receiver, Signal};
use crate::tap::Watchers;

/// A kind of data that goes from component to component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Something to collect from.
    Target,
    /// Samples, histograms and exemplars of Prometheus.
    PrometheusMetric,
    /// Log entries of Loki.
    LokiLog,
    /// Data points of OpenTelemetry.
    OtelMetric,
    /// Log records of OpenTelemetry.
    OtelLog,
    /// Spans of OpenTelemetry.
    OtelTrace,
}

impl Kind {
    /// All of them, in order.
    pub const ALL: [Kind; 6] =
        [Kind::Target, Kind::PrometheusMetric, Kind::LokiLog, Kind::OtelMetric, Kind::OtelLog, Kind::OtelTrace];

    /// Its name, in lower case with underscores.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Target => "target",
            Kind::PrometheusMetric => "prometheus_metric",
            Kind::LokiLog => "loki_log",
            Kind::OtelMetric => "otel_metric",
            Kind::OtelLog => "otel_log",
            Kind::OtelTrace => "otel_trace",
        }
    }
}

/// How many reasons are counted apart; what comes beyond is counted as `other`.
const REASONS_MAX: usize = 100;
const OTHER: &str = "other";
/// What a stage had handed on of a batch that it did not take after all: its producer sends it again.
const SENT_AGAIN: &str = "sent again";

/// Counts by reason.
#[derive(Default)]
struct Reasons(RwLock<Vec<(Cow<'static, str>, AtomicU64)>>);

impl Reasons {
    fn add(&self, reason: Cow<'static, str>, items: u64) {
        if items == 0 {
            return;
        }
        let find = |list: &[(Cow<'static, str>, AtomicU64)], reason: &str| {
            let found = list.iter().find(|(known, _)| known == reason);
            found.map(|(_, count)| count.fetch_add(items, Ordering::Relaxed)).is_some()
        };
        if find(&self.0.read(), &reason) {
            return;
        }
        let mut list = self.0.write();
        let reason = if list.len() >= REASONS_MAX { Cow::Borrowed(OTHER) } else { reason };
        if !find(&list, &reason) {
            list.push((reason, AtomicU64::new(items)));
        }
    }

    fn snapshot(&self) -> Vec<(String, u64)> {
        let list = self.0.read();
        list.iter().map(|(reason, count)| (reason.to_string(), count.load(Ordering::Relaxed))).collect()
    }
}

/// What a component did with the items of a kind.
pub struct Row {
    kind: Kind,
    taken: AtomicU64,
    received: AtomicU64,
    out: AtomicU64,
    created: Reasons,
    dropped: Reasons,
    merged: Reasons,
    held: AtomicI64,
    /// What ways that are gone said that the component took.
    gone: AtomicU64,
    /// The ways to the component, whoever has them: also those of a component that is gone, while something is under way.
    ways: Mutex<Vec<Weak<Edge>>>,
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.snapshot().fmt(f)
    }
}

impl Row {
    fn new(kind: Kind) -> Self {
        Row {
            kind,
            taken: AtomicU64::new(0),
            received: AtomicU64::new(0),
            out: AtomicU64::new(0),
            created: Reasons::default(),
            dropped: Reasons::default(),
            merged: Reasons::default(),
            held: AtomicI64::new(0),
            gone: AtomicU64::new(0),
            ways: Mutex::default(),
        }
    }

    /// What the ways to the component say that it took.
    fn came(&self) -> u64 {
        let (ways, gone): (Vec<Arc<Edge>>, u64) = {
            let ways = self.ways.lock();
            (ways.iter().filter_map(Weak::upgrade).collect(), self.gone.load(Ordering::Relaxed))
        };
        ways.iter().map(|edge| edge.taken.load(Ordering::Relaxed)).sum::<u64>() + gone
    }

    /// Collects what a stage does with the items of a batch, until it is known whether it takes the batch.
    pub fn pass(&self) -> Pass<'_> {
        Pass { row: self, entries: Vec::new(), handed_on: 0, ended: false }
    }

    pub(crate) fn taken(&self, items: usize) {
        self.taken.fetch_add(items as u64, Ordering::Relaxed);
    }

    /// Items came from outside: a file, a socket, a target. Counted when the next component took them, or together with
    /// what was dropped of them.
    pub fn received(&self, items: usize) {
        self.received.fetch_add(items as u64, Ordering::Relaxed);
    }

    /// Items were handed on, once however many receivers there are. [`Fanout`](crate::Fanout) counts what it hands on
    /// itself: this is for what ends a way, as a sink does.
    pub fn out(&self, items: usize) {
        self.out.fetch_add(items as u64, Ordering::Relaxed);
    }

    /// Items that were taken before were dropped.
    pub fn dropped(&self, reason: impl Into<Cow<'static, str>>, items: usize) {
        self.dropped.add(reason.into(), items as u64);
    }

    /// Items that were taken before go on within others.
    pub fn merged(&self, why: &'static str, items: usize) {
        self.merged.add(Cow::Borrowed(why), items as u64);
    }

    /// Items were made that were neither taken nor received.
    pub fn created(&self, why: &'static str, items: usize) {
        self.created.add(Cow::Borrowed(why), items as u64);
    }

    /// Items that were taken before are kept, or, where this is negative, are kept no more.
    pub fn held(&self, items: i64) {
        self.held.fetch_add(items, Ordering::Relaxed);
    }

    /// The counts of now.
    pub fn snapshot(&self) -> RowSnapshot {
        RowSnapshot {
            kind: self.kind,
            taken: self.taken.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
            created: self.created.snapshot(),
            out: self.out.load(Ordering::Relaxed),
            dropped: self.dropped.snapshot(),
            merged: self.merged.snapshot(),
            held: self.held.load(Ordering::Relaxed),
            gone: self.gone.load(Ordering::Relaxed),
        }
    }
}

/// The counts of a [`Row`] at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowSnapshot {
    /// What was counted.
    pub kind: Kind,
    /// From other components.
    pub taken: u64,
    /// From outside.
    pub received: u64,
    /// Made here, by why.
    pub created: Vec<(String, u64)>,
    /// Handed on.
    pub out: u64,
    /// Dropped, by reason.
    pub dropped: Vec<(String, u64)>,
    /// Gone on within other items, by why.
    pub merged: Vec<(String, u64)>,
    /// Kept.
    pub held: i64,
    /// How much of what was taken came over ways that are gone.
    pub gone: u64,
}

fn sum(counts: &[(String, u64)]) -> i128 {
    counts.iter().map(|(_, count)| i128::from(*count)).sum()
}

fn narrow(difference: i128) -> i64 {
    difference.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

impl RowSnapshot {
    /// Whether nothing was ever counted.
    pub fn is_zero(&self) -> bool {
        let RowSnapshot { kind: _, taken, received, created, out, dropped, merged, held, gone } = self;
        let reasons = [created, dropped, merged];
        [*taken, *received, *out, *gone] == [0; 4] && *held == 0 && reasons.iter().all(|counts| sum(counts) == 0)
    }

    /// What came in and was made, less what went out and what became of the rest: zero, but for what is under way.
    pub fn difference(&self) -> i64 {
        let came = i128::from(self.taken) + i128::from(self.received) + sum(&self.created);
        let went = i128::from(self.out) + sum(&self.dropped) + sum(&self.merged) + i128::from(self.held);
        narrow(came - went)
    }
}

enum Fate {
    Dropped,
    Merged,
    Created,
}

/// What a stage does with the items of a batch. It counts when the stage [takes](Pass::end) the batch, and is forgotten
/// when it does not.
#[must_use = "it counts when the outcome is known"]
pub struct Pass<'r> {
    row: &'r Row,
    /// Does not allocate as long as everything goes on as it is.
    entries: Vec<(Fate, Cow<'static, str>, u64)>,
    handed_on: u64,
    ended: bool,
}

impl Pass<'_> {
    fn add(&mut self, fate: Fate, reason: Cow<'static, str>, items: usize) {
        if items > 0 {
            self.entries.push((fate, reason, items as u64));
        }
    }

    /// Items are dropped.
    pub fn dropped(&mut self, reason: impl Into<Cow<'static, str>>, items: usize) {
        self.add(Fate::Dropped, reason.into(), items);
    }

    /// Items go on within others.
    pub fn merged(&mut self, why: &'static str, items: usize) {
        self.add(Fate::Merged, Cow::Borrowed(why), items);
    }

    /// Items are made.
    pub fn created(&mut self, why: &'static str, items: usize) {
        self.add(Fate::Created, Cow::Borrowed(why), items);
    }

    /// Items were handed on although the stage may still refuse the batch, because it hands on more than once.
    pub fn handed_on(&mut self, items: usize) {
        self.handed_on += items as u64;
    }

    /// The stage has answered. What it says is given back.
    pub fn end<T>(mut self, outcome: Result<T, ConsumeError>) -> Result<T, ConsumeError> {
        if outcome.is_ok() {
            self.ended = true;
            for (fate, reason, items) in self.entries.drain(..) {
                match fate {
                    Fate::Dropped => self.row.dropped.add(reason, items),
                    Fate::Merged => self.row.merged.add(reason, items),
                    Fate::Created => self.row.created.add(reason, items),
                }
            }
        }
        outcome
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.row.created.add(Cow::Borrowed(SENT_AGAIN), self.handed_on);
        }
    }
}

/// The way from a component to another one.
pub struct Edge {
    from: Arc<str>,
    to: Arc<str>,
    kind: Kind,
    /// Tells this way from another one between the same two, where a receiver is named twice, or two of one component are.
    ordinal: usize,
    /// What the destination took. Gone with the destination.
    destination: Weak<Row>,
    /// How much was handed on by routes that it was part of and that are gone.
    handed_on: AtomicU64,
    sent: AtomicU64,
    taken: AtomicU64,
    refused: AtomicU64,
    lost: Reasons,
    in_flight: AtomicI64,
    /// How much of what is in flight was counted as handed on, because its producer was told that it was taken.
    owed: AtomicI64,
    bytes: AtomicU64,
    batches: AtomicU64,
    watchers: Watchers,
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}>{} {}", self.from, self.to, self.kind.as_str())
    }
}

impl Edge {
    /// The component that sends.
    pub fn from(&self) -> &Arc<str> {
        &self.from
    }

    /// The component that takes.
    pub fn to(&self) -> &Arc<str> {
        &self.to
    }

    /// What goes over it.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Who looks at what passes.
    pub(crate) fn watchers(&self) -> &Watchers {
        &self.watchers
    }

    /// A batch sets out. Whoever looks at the edge sees it.
    pub fn send<S: Signal>(self: &Arc<Self>, batch: &S::Batch) -> Flight {
        if self.watchers.any() {
            self.watchers.look::<S>(self, batch);
        }
        let items = S::items(batch) as u64;
        self.sent.fetch_add(items, Ordering::Relaxed);
        self.in_flight.fetch_add(items as i64, Ordering::Relaxed);
        self.bytes.fetch_add(S::weight(batch) as u64, Ordering::Relaxed);
        self.batches.fetch_add(1, Ordering::Relaxed);
        Flight { edge: Arc::clone(self), items, apart: false }
    }

    /// The counts of now.
    pub fn snapshot(&self) -> EdgeSnapshot {
        EdgeSnapshot {
            from: Arc::clone(&self.from),
            to: Arc::clone(&self.to),
            kind: self.kind,
            sent: self.sent.load(Ordering::Relaxed),
            taken: self.taken.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            lost: self.lost.snapshot(),
            in_flight: self.in_flight.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            batches: self.batches.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        if let Some(row) = self.destination.upgrade() {
            let mut ways = row.ways.lock();
            ways.retain(|way| way.strong_count() > 0);
            row.gone.fetch_add(*self.taken.get_mut(), Ordering::Relaxed);
        }
    }
}

/// The counts of an [`Edge`] at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeSnapshot {
    /// The component that sends.
    pub from: Arc<str>,
    /// The component that takes.
    pub to: Arc<str>,
    /// What was counted.
    pub kind: Kind,
    /// Set out.
    pub sent: u64,
    /// Were taken.
    pub taken: u64,
    /// Were given back to the producer, who sends them again or drops them.
    pub refused: u64,
    /// Were dropped for this destination while others took them, by reason.
    pub lost: Vec<(String, u64)>,
    /// Neither was said yet.
    pub in_flight: i64,
    /// How many bytes set out, about.
    pub bytes: u64,
    /// How many batches set out.
    pub batches: u64,
}

impl EdgeSnapshot {
    /// What set out, less what became of it: zero at all times, but for the moment between two counts.
    pub fn difference(&self) -> i64 {
        let became = i128::from(self.taken) + i128::from(self.refused) + sum(&self.lost) + i128::from(self.in_flight);
        narrow(i128::from(self.sent) - became)
    }
}

/// The ways that all go to whoever hands on to the same receivers, and how much was handed on over all of them. A reload
/// that changes the receivers makes another route, which has the ways that stay, too: so each way can be asked whether
/// all went over it that should have, however old it is.
pub struct Route {
    row: Arc<Row>,
    ways: Box<[Option<Arc<Edge>>]>,
    out: AtomicU64,
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ways.iter().flatten()).finish()
    }
}

impl Route {
    /// The books of the component that hands on.
    pub fn row(&self) -> &Row {
        &self.row
    }

    /// The way to each receiver, where that keeps books.
    pub fn ways(&self) -> &[Option<Arc<Edge>>] {
        &self.ways
    }

    /// Items were handed on over all ways.
    pub fn out(&self, items: usize) {
        self.row.out(items);
        self.out.fetch_add(items as u64, Ordering::Relaxed);
    }

    /// A batch sets out to all receivers, also to those whose turn does not come because the producer gives up before.
    pub fn spread<S: Signal>(&self, batch: &S::Batch) -> Spread<'_> {
        let mut spread = Spread::new(Some(&self.row), S::items(batch));
        spread.route = Some(self);
        for way in &self.ways {
            spread.push(way.as_ref().map(|way| way.send::<S>(batch)));
        }
        spread
    }
}

/// A batch on its way over an edge. Let go of without a word it was refused, as a call that is given up is; where the
/// producer has been told that the batch was taken, it is lost.
#[must_use = "what becomes of it is to be said"]
pub struct Flight {
    edge: Arc<Edge>,
    items: u64,
    apart: bool,
}

/// Why a receiver has not got a batch that was being delivered apart from its producer when that was broken off.
const UNFINISHED: &str = "unfinished";

impl Flight {
    fn land(&mut self) -> u64 {
        let items = std::mem::take(&mut self.items);
        self.edge.in_flight.fetch_sub(items as i64, Ordering::Relaxed);
        if self.apart {
            self.edge.owed.fetch_sub(items as i64, Ordering::Relaxed);
        }
        items
    }

    /// The receiver took it.
    pub fn taken(mut self) {
        let items = self.land();
        self.edge.taken.fetch_add(items, Ordering::Relaxed);
    }

    /// It is dropped for the receiver alone.
    pub fn lost(mut self, reason: &'static str) {
        let items = self.land();
        self.edge.lost.add(Cow::Borrowed(reason), items);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let items = self.land();
        if self.apart {
            self.edge.lost.add(Cow::Borrowed(UNFINISHED), items);
        } else {
            self.edge.refused.fetch_add(items, Ordering::Relaxed);
        }
    }
}

/// How an error is counted.
pub fn reason_of(error: &ConsumeError) -> &'static str {
    match error {
        ConsumeError::Retry { .. } => "not taken",
        ConsumeError::Refused { .. } => "refused",
        ConsumeError::Exited { .. } => "exited",
    }
}

/// A batch that is handed to several receivers. Taken by one of them it is handed on, and lost for those that did not take
/// it; taken by none it is given back, and refused.
#[must_use = "the producer is told something"]
pub struct Spread<'r> {
    row: Option<&'r Row>,
    /// Where the receivers are other components.
    route: Option<&'r Route>,
    items: u64,
    took: bool,
    /// The way to each receiver, and why that did not take the batch. Nothing once that is counted.
    flights: Vec<(Option<Flight>, &'static str)>,
    ended: bool,
}

/// Why a receiver has not got a batch whose producer gave up before it did.
const GIVEN_UP: &str = "given up";

impl<'r> Spread<'r> {
    /// Nobody has the batch yet. Without a row nothing is counted.
    pub fn new(row: Option<&'r Row>, items: usize) -> Self {
        Spread { row, route: None, items: items as u64, took: false, flights: Vec::new(), ended: false }
    }

    /// The batch sets out to the next of the receivers.
    pub fn push(&mut self, flight: Option<Flight>) {
        self.flights.push((flight, GIVEN_UP));
    }

    /// The receiver at this place took it.
    pub fn taken(&mut self, at: usize) {
        self.took = true;
        if let Some(flight) = self.flights[at].0.take() {
            flight.taken();
        }
    }

    /// The receiver at this place did not take it.
    pub fn failed(&mut self, at: usize, reason: &'static str) {
        self.flights[at].1 = reason;
    }

    /// The receiver at this place will have it later: the producer is told that the batch was taken.
    pub(crate) fn apart(&mut self, at: usize) -> Option<Flight> {
        self.took = true;
        let mut flight = self.flights[at].0.take();
        if let Some(flight) = &mut flight {
            flight.apart = true;
            flight.edge.owed.fetch_add(flight.items as i64, Ordering::Relaxed);
        }
        flight
    }

    /// What the producer is told.
    pub fn end<T, E>(mut self, outcome: Result<T, E>) -> Result<T, E> {
        self.finish(outcome.is_ok());
        outcome
    }

    fn finish(&mut self, ok: bool) {
        self.ended = true;
        let Some(row) = self.row else { return };
        if self.took || ok {
            match self.route {
                Some(route) => route.out(self.items as usize),
                None => row.out(self.items as usize),
            }
            for (flight, reason) in self.flights.drain(..) {
                if let Some(flight) = flight {
                    flight.lost(reason);
                }
            }
            if !ok {
                row.created.add(Cow::Borrowed(SENT_AGAIN), self.items);
            }
        }
    }
}

impl Drop for Spread<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.finish(false);
        }
    }
}

/// Where a sink delivers to.
pub trait End: Send + Sync + 'static {
    /// The counts of now.
    fn snapshot(&self) -> EndSnapshot;
}

/// The counts of an [`End`] at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndSnapshot {
    /// What was counted.
    pub kind: Kind,
    /// Tells the end from others of the sink.
    pub name: String,
    /// Where it is; empty where that is not a URL.
    pub url: String,
    /// What the sink gave it.
    pub offered: u64,
    /// What was waiting from a process before.
    pub restored: u64,
    /// What the other side took.
    pub delivered: u64,
    /// What was dropped, by reason.
    pub dropped: Vec<(String, u64)>,
    /// What waits, with what is under way.
    pub pending: u64,
    /// How many bytes wait.
    pub pending_bytes: u64,
    /// How much of what waits is under way.
    pub in_flight: u64,
    /// When the oldest that waits was made, in milliseconds since the Unix epoch.
    pub oldest_ms: Option<i64>,
    /// How many bytes may wait.
    pub capacity_bytes: Option<u64>,
    /// How often something was sent again.
    pub retries: u64,
    /// What the other side said last, and when.
    pub last_answer: Option<(SystemTime, String)>,
}

impl EndSnapshot {
    /// How long the oldest of what waits has been waiting, in milliseconds.
    pub fn age_ms(&self) -> Option<i64> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        self.oldest_ms.map(|oldest| now.saturating_sub(oldest).max(0))
    }

    /// What came, less what became of it: zero, but for the moment between two counts.
    pub fn difference(&self) -> i64 {
        let came = i128::from(self.offered) + i128::from(self.restored);
        narrow(came - i128::from(self.delivered) - sum(&self.dropped) - i128::from(self.pending))
    }
}

/// The ways from a component.
#[derive(Default)]
struct Ways {
    edges: Vec<Arc<Edge>>,
    routes: Vec<Arc<Route>>,
    /// How much went over routes that are gone, by kind; none where nobody has asked for ways.
    handed_on: [Option<u64>; Kind::ALL.len()],
}

impl Ways {
    /// Forgets what nobody uses any more. What went over a route is noted for each of its ways.
    fn tidy(&mut self) {
        self.routes.retain_mut(|route| {
            let Some(gone) = Arc::get_mut(route) else { return true };
            let out = *gone.out.get_mut();
            *self.handed_on[gone.row.kind as usize].get_or_insert_default() += out;
            for way in gone.ways.iter().flatten() {
                way.handed_on.fetch_add(out, Ordering::Relaxed);
            }
            false
        });
        self.edges.retain(|edge| Arc::strong_count(edge) > 1);
    }

    /// How much was to go over a way.
    fn over(&self, edge: &Arc<Edge>) -> u64 {
        let has = |route: &&Arc<Route>| route.ways.iter().flatten().any(|way| Arc::ptr_eq(way, edge));
        let now: u64 = self.routes.iter().filter(has).map(|route| route.out.load(Ordering::Relaxed)).sum();
        now + edge.handed_on.load(Ordering::Relaxed)
    }

    /// How much was handed on to other components.
    fn over_all(&self, kind: Kind) -> Option<u64> {
        let routes = self.routes.iter().filter(|route| route.row.kind == kind);
        let now: u64 = routes.map(|route| route.out.load(Ordering::Relaxed)).sum();
        self.handed_on[kind as usize].map(|gone| now + gone)
    }
}

/// The books of a component.
pub struct Ledger {
    component: Arc<str>,
    rows: [OnceLock<Arc<Row>>; Kind::ALL.len()],
    ways: Mutex<Ways>,
    ends: Mutex<Vec<Weak<dyn End>>>,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.snapshot().fmt(f)
    }
}

impl Ledger {
    /// The books of a component that has done nothing yet.
    pub fn new(component: impl Into<Arc<str>>) -> Arc<Self> {
        Arc::new(Ledger {
            component: component.into(),
            rows: Default::default(),
            ways: Mutex::default(),
            ends: Mutex::default(),
        })
    }

    /// The component.
    pub fn component(&self) -> &Arc<str> {
        &self.component
    }

    /// What the component does with items of a kind.
    pub fn row(&self, kind: Kind) -> &Arc<Row> {
        self.rows[kind as usize].get_or_init(|| Arc::new(Row::new(kind)))
    }

    /// What the component does with items of a signal.
    pub fn row_of<S: Signal>(&self) -> &Arc<Row> {
        self.row(S::KIND)
    }

    /// The ways to these receivers, each the one that there was before, if there was one. Ways that nobody uses any more
    /// are forgotten.
    pub fn route_to<S: Signal>(&self, receivers: &[Receiver<S>]) -> Arc<Route> {
        let mut ways = self.ways.lock();
        ways.handed_on[S::KIND as usize].get_or_insert_default();
        let mut to: Vec<Option<Arc<Edge>>> = Vec::with_capacity(receivers.len());
        for (at, receiver) in receivers.iter().enumerate() {
            let Some(destination) = receiver.row() else {
                to.push(None);
                continue;
            };
            let same = |other: &&Receiver<S>| other.row().is_some_and(|row| Arc::ptr_eq(row, destination));
            let ordinal = receivers[..at].iter().filter(same).count();
            let known = ways.edges.iter().find(|edge| {
                edge.ordinal == ordinal && std::ptr::eq(edge.destination.as_ptr(), Arc::as_ptr(destination))
            });
            to.push(Some(known.cloned().unwrap_or_else(|| {
                let edge = Arc::new(Edge {
                    from: Arc::clone(&self.component),
                    to: receiver.component_arc(),
                    kind: S::KIND,
                    ordinal,
                    destination: Arc::downgrade(destination),
                    handed_on: AtomicU64::new(0),
                    sent: AtomicU64::new(0),
                    taken: AtomicU64::new(0),
                    refused: AtomicU64::new(0),
                    lost: Reasons::default(),
                    in_flight: AtomicI64::new(0),
                    owed: AtomicI64::new(0),
                    bytes: AtomicU64::new(0),
                    batches: AtomicU64::new(0),
                    watchers: Watchers::default(),
                });
                destination.ways.lock().push(Arc::downgrade(&edge));
                ways.edges.push(Arc::clone(&edge));
                edge
            })));
        }
        let row = Arc::clone(self.row_of::<S>());
        let route = Arc::new(Route { row, ways: to.into(), out: AtomicU64::new(0) });
        ways.routes.push(Arc::clone(&route));
        ways.tidy();
        route
    }

    /// The ways that are in use.
    pub fn edges(&self) -> Vec<Arc<Edge>> {
        let mut ways = self.ways.lock();
        ways.tidy();
        ways.edges.clone()
    }

    /// Where the component delivers to, as long as that lives.
    pub fn add_end(&self, end: Weak<dyn End>) {
        let mut ends = self.ends.lock();
        ends.retain(|end| end.strong_count() > 0);
        ends.push(end);
    }

    /// The counts of now.
    pub fn snapshot(&self) -> LedgerSnapshot {
        let ends: Vec<Arc<dyn End>> = self.ends.lock().iter().filter_map(Weak::upgrade).collect();
        LedgerSnapshot {
            component: Arc::clone(&self.component),
            rows: self.rows.iter().filter_map(OnceLock::get).map(|row| row.snapshot()).collect(),
            edges: self.edges().iter().map(|edge| edge.snapshot()).collect(),
            ends: ends.iter().map(|end| end.snapshot()).collect(),
        }
    }
}

/// The counts of a [`Ledger`] at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerSnapshot {
    /// The component.
    pub component: Arc<str>,
    /// What it did, by kind; only kinds that it has to do with.
    pub rows: Vec<RowSnapshot>,
    /// The ways to other components.
    pub edges: Vec<EdgeSnapshot>,
    /// Where it delivers to.
    pub ends: Vec<EndSnapshot>,
}

/// A sum that is not even.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The component, the way `from>to` or the end `component#end`, and which sum it is.
    pub place: String,
    /// What was counted.
    pub kind: Kind,
    /// By how much what came is more than what became of it.
    pub difference: i64,
}

impl LedgerSnapshot {
    /// The component's own sums that are not even. Empty at rest.
    pub fn open_sums(&self) -> Vec<Open> {
        let rows = self.rows.iter().map(|row| (self.component.to_string(), row.kind, row.difference()));
        let edges = self.edges.iter().map(|edge| (format!("{}>{}", edge.from, edge.to), edge.kind, edge.difference()));
        let ends = self.ends.iter().map(|end| (format!("{}#{}", self.component, end.name), end.kind, end.difference()));
        let all = rows.chain(edges).chain(ends).filter(|(_, _, difference)| *difference != 0);
        all.map(|(place, kind, difference)| Open { place, kind, difference }).collect()
    }
}

/// The sums that are not even, of all components that hand on to one another: their own, and whether each took what was
/// counted on the ways to it and handed on what was counted on the ways from it. Empty at rest.
pub fn open_sums(ledgers: &[Arc<Ledger>]) -> Vec<Open> {
    let mut open = Vec::new();
    for ledger in ledgers {
        let snapshot = ledger.snapshot();
        open.extend(snapshot.open_sums());
        let mut note = |place: String, kind: Kind, difference: i128| {
            if difference != 0 {
                open.push(Open { place, kind, difference: narrow(difference) });
            }
        };
        for row in ledger.rows.iter().filter_map(OnceLock::get) {
            let now = row.snapshot();
            let difference = i128::from(row.came()) - i128::from(now.taken);
            note(format!("{} (taken)", snapshot.component), now.kind, difference);
        }
        let mut ways = ledger.ways.lock();
        ways.tidy();
        // What is on its way is counted as handed on when all receivers have answered.
        let underway = |kind: Kind| {
            ways.edges.iter().any(|way| {
                way.kind == kind && way.in_flight.load(Ordering::Relaxed) != way.owed.load(Ordering::Relaxed)
            })
        };
        for kind in Kind::ALL.into_iter().filter(|kind| !underway(*kind)) {
            let Some(handed_on) = ways.over_all(kind) else { continue };
            let out = ledger.row(kind).out.load(Ordering::Relaxed);
            note(format!("{} (out)", snapshot.component), kind, i128::from(out) - i128::from(handed_on));
            for edge in ways.edges.iter().filter(|edge| edge.kind == kind) {
                let now = edge.snapshot();
                let became = i128::from(now.taken) + sum(&now.lost) + i128::from(now.in_flight);
                note(format!("{}>{} (out)", now.from, now.to), kind, i128::from(ways.over(edge)) - became);
            }
        }
    }
    open
}

#[cfg(test)]
mod tests;
