//! Looks at the books of all components: each second while somebody watches, and now and then for the history.
//!
//! There is one look for all who watch. Whoever is slow sees fewer of them, and nothing waits for him.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use corten_component::Health;
use corten_config::value::{Data, Value as ConfigValue};
use corten_runtime::Controller;
use corten_signal::ledger::{Kind, LedgerSnapshot};
use corten_signal::target::Target;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use super::millis;

/// How often the books are looked at while somebody watches.
const WATCHED_EVERY: Duration = Duration::from_secs(1);
/// How often they are looked at for the history.
const HISTORY_EVERY: Duration = Duration::from_secs(5);
/// How many looks the history holds: ten minutes.
const HISTORY_LOOKS_MAX: usize = 120;
/// Of how many looks the rates are the mean that whoever begins to watch is told: a minute.
const MEAN_LOOKS: usize = 12;
/// Of how many ways there is a history. Each takes 1.9 kB.
const HISTORY_WAYS_MAX: usize = 4_000;
/// Who asks sooner after the last look gets that one.
const FRESH: Duration = Duration::from_millis(200);

/// What the streams call an edge: its number is its place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Way {
    pub(super) from: Arc<str>,
    /// A component, or `component#end`.
    pub(super) to: Arc<str>,
    pub(super) kind: &'static str,
}

/// The numbers of edges, ends and reasons. They stay until another configuration is loaded; new ones come last.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    /// Grows when edges have come or have gone.
    pub(super) generation: u64,
    /// Which configuration it is of.
    load: u64,
    pub(super) edges: Vec<Way>,
    numbers: HashMap<Way, usize>,
    /// The component and the name of each end.
    pub(super) ends: Vec<(Arc<str>, Arc<str>)>,
    end_numbers: HashMap<(Arc<str>, Arc<str>), usize>,
    /// The component, the kind and the reason of each way to drop something.
    pub(super) drops: Vec<(Arc<str>, &'static str, Arc<str>)>,
    drop_numbers: HashMap<(Arc<str>, &'static str, Arc<str>), usize>,
    /// The names of components, ends and reasons, which all of that shares.
    names: HashMap<String, Arc<str>>,
}

impl Index {
    fn name(&mut self, text: &str) -> Arc<str> {
        match self.names.get(text) {
            Some(name) => Arc::clone(name),
            None => {
                let name: Arc<str> = text.into();
                self.names.insert(text.to_owned(), Arc::clone(&name));
                name
            }
        }
    }

    fn edge(&mut self, from: &str, to: &str, kind: &'static str) -> usize {
        let way = Way { from: self.name(from), to: self.name(to), kind };
        if let Some(number) = self.numbers.get(&way) {
            return *number;
        }
        self.edges.push(way.clone());
        self.numbers.insert(way, self.edges.len() - 1);
        self.edges.len() - 1
    }

    fn end(&mut self, component: &str, name: &str) -> usize {
        let end = (self.name(component), self.name(name));
        if let Some(number) = self.end_numbers.get(&end) {
            return *number;
        }
        self.ends.push(end.clone());
        self.end_numbers.insert(end, self.ends.len() - 1);
        self.ends.len() - 1
    }

    fn reason(&mut self, component: &str, kind: &'static str, reason: &str) -> usize {
        let key = (self.name(component), kind, self.name(reason));
        if let Some(number) = self.drop_numbers.get(&key) {
            return *number;
        }
        self.drops.push(key.clone());
        self.drop_numbers.insert(key, self.drops.len() - 1);
        self.drops.len() - 1
    }
}

/// What an edge has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct EdgeCounts {
    pub(super) items: u64,
    pub(super) bytes: u64,
    pub(super) lost: u64,
    pub(super) refused: u64,
    /// How many are on their way. Targets do not pass but are there: how many there are.
    pub(super) in_flight: i64,
}

/// What an end has counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct EndCounts {
    pub(super) pending: u64,
    pub(super) pending_bytes: u64,
    /// How long the oldest of what waits has been waiting.
    pub(super) oldest_ms: Option<i64>,
    pub(super) last_answer: Option<Arc<str>>,
    pub(super) delivered: u64,
    pub(super) dropped: u64,
}

/// One look at all books. Numbers are those of the index of its generation.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) generation: u64,
    pub(super) at: Instant,
    pub(super) time: SystemTime,
    pub(super) edges: Vec<EdgeCounts>,
    pub(super) ends: Vec<EndCounts>,
    /// How many were dropped, by the numbers of reasons.
    pub(super) drops: Vec<u64>,
    pub(super) healths: Arc<Vec<(String, Health)>>,
}

#[derive(Debug, Default)]
struct History {
    /// When the looks were, the newest last.
    times: VecDeque<i64>,
    last: Option<Arc<Look>>,
    /// What was counted per second: items, bytes, lost, refused. The newest last; shorter where the way is younger.
    ways: BTreeMap<Way, VecDeque<[f32; 4]>>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Live {
    latest: watch::Sender<Arc<Look>>,
    index: Mutex<Index>,
    history: Mutex<History>,
    wanted: Notify,
}

impl Live {
    /// Looks at the books of a controller until the server stops.
    pub(crate) fn start(controller: &Arc<Controller>, stopped: watch::Receiver<bool>) -> Arc<Self> {
        let nothing = Look {
            generation: 0,
            at: Instant::now(),
            time: SystemTime::now(),
            edges: Vec::new(),
            ends: Vec::new(),
            drops: Vec::new(),
            healths: Arc::default(),
        };
        let live = Arc::new(Live {
            latest: watch::Sender::new(Arc::new(nothing)),
            index: Mutex::default(),
            history: Mutex::default(),
            wanted: Notify::new(),
        });
        live.look(controller);
        tokio::spawn(run(Arc::downgrade(&live), Arc::downgrade(controller), stopped));
        live
    }

    /// The looks from now on. The one that there is now is of now.
    pub(super) fn watch(&self, controller: &Controller) -> watch::Receiver<Arc<Look>> {
        let looks = self.latest.subscribe();
        self.wanted.notify_one();
        self.look_if_old(controller);
        looks
    }

    /// The look before that of now, to tell how much a second there is.
    pub(super) fn latest(&self) -> Arc<Look> {
        Arc::clone(&self.latest.borrow())
    }

    /// The numbers of what there is now.
    pub(super) fn index(&self, controller: &Controller) -> Index {
        self.look_if_old(controller);
        self.index.lock().clone()
    }

    fn look_if_old(&self, controller: &Controller) {
        let old = self.latest.borrow().at.elapsed() > FRESH;
        if old || self.index.lock().load != controller.generation().borrow().0 {
            self.look(controller);
        }
    }

    /// The numbers of what there was at the last look.
    pub(super) fn known<T>(&self, read: impl FnOnce(&Index) -> T) -> T {
        read(&self.index.lock())
    }

    /// Looks at all books.
    fn look(&self, controller: &Controller) {
        let load = controller.generation().borrow().0;
        let nodes = controller.nodes();
        let books: Vec<LedgerSnapshot> = nodes.iter().map(|node| node.host.ledger.snapshot()).collect();
        let mut index = self.index.lock();
        let index = &mut *index;
        if index.load != load || index.generation == 0 {
            *index = Index { generation: index.generation + 1, load, ..Index::default() };
            for node in &nodes {
                for (to, kind) in node.data_flow() {
                    index.edge(&node.id, &to, kind);
                }
            }
        }
        let known = index.edges.len();
        let mut edges = vec![EdgeCounts::default(); known];
        let mut ends: Vec<EndCounts> = vec![EndCounts::default(); index.ends.len()];
        let mut drops = vec![0; index.drops.len()];
        for books in &books {
            for edge in &books.edges {
                let number = index.edge(&edge.from, &edge.to, edge.kind.as_str());
                let counts = place(&mut edges, number);
                let lost: u64 = edge.lost.iter().map(|(_, count)| count).sum();
                counts.items += edge.taken;
                counts.bytes += edge.bytes;
                counts.lost += lost;
                counts.refused += edge.refused;
                counts.in_flight += edge.in_flight;
                for (reason, count) in &edge.lost {
                    *place(&mut drops, index.reason(&edge.from, edge.kind.as_str(), reason)) += count;
                }
            }
            for row in &books.rows {
                for (reason, count) in &row.dropped {
                    *place(&mut drops, index.reason(&books.component, row.kind.as_str(), reason)) += count;
                }
            }
            for end in &books.ends {
                let to = format!("{}#{}", books.component, end.name);
                let number = index.edge(&books.component, &to, end.kind.as_str());
                let dropped: u64 = end.dropped.iter().map(|(_, count)| count).sum();
                let counts = place(&mut edges, number);
                counts.items += end.delivered;
                counts.lost += dropped;
                counts.refused += end.retries;
                counts.in_flight += i64::try_from(end.in_flight).unwrap_or(i64::MAX);
                for (reason, count) in &end.dropped {
                    *place(&mut drops, index.reason(&books.component, end.kind.as_str(), reason)) += count;
                }
                *place(&mut ends, index.end(&books.component, &end.name)) = EndCounts {
                    pending: end.pending,
                    pending_bytes: end.pending_bytes,
                    oldest_ms: end.age_ms(),
                    last_answer: end.last_answer.as_ref().map(|(_, text)| controller.secrets().redacted(text).into()),
                    delivered: end.delivered,
                    dropped,
                };
            }
        }
        // Several may use the targets of one.
        let mut targets: HashMap<Arc<str>, i64> = HashMap::new();
        for (number, way) in index.edges.iter().enumerate().filter(|(_, way)| way.kind == Kind::Target.as_str()) {
            let of_node = || controller.node(&way.from).map_or(0, |node| targets_of(&node.exports()));
            let count = *targets.entry(Arc::clone(&way.from)).or_insert_with(of_node);
            place(&mut edges, number).in_flight = count;
        }
        // Whoever knows the numbers of before has to ask for the graph again.
        index.generation += u64::from(index.edges.len() > known);
        let healths: Vec<(String, Health)> =
            nodes.iter().map(|node| (node.host.id.clone(), node.host.health.current())).collect();
        let generation = index.generation;
        self.latest.send_modify(|latest| {
            let healths = if *latest.healths == healths { Arc::clone(&latest.healths) } else { Arc::new(healths) };
            let (at, time) = (Instant::now(), SystemTime::now());
            *latest = Arc::new(Look { generation, at, time, edges, ends, drops, healths });
        });
    }

    /// Notes the rates since the last time.
    fn remember(&self) {
        let now = self.latest();
        let index = self.index.lock();
        let mut history = self.history.lock();
        let history = &mut *history;
        let last = history.last.replace(Arc::clone(&now));
        history.times.push_back(millis(now.time));
        if history.times.len() > HISTORY_LOOKS_MAX {
            history.times.pop_front();
        }
        // Numbers of another generation may mean other edges, but those of the same load only grow.
        let last = last.filter(|last| last.edges.len() <= now.edges.len());
        let seconds = last.as_ref().map_or(0.0, |last| now.at.duration_since(last.at).as_secs_f64());
        history.ways.retain(|way, _| index.numbers.contains_key(way));
        for (number, way) in index.edges.iter().enumerate() {
            let counts = now.edges.get(number).copied().unwrap_or_default();
            let before = last.as_ref().and_then(|last| last.edges.get(number)).copied().unwrap_or_default();
            let rate = |now: u64, before: u64| per_second(now.saturating_sub(before), seconds) as f32;
            let rates = [
                rate(counts.items, before.items),
                rate(counts.bytes, before.bytes),
                rate(counts.lost, before.lost),
                rate(counts.refused, before.refused),
            ];
            let known = history.ways.contains_key(way);
            if !known && (rates == [0.0; 4] || history.ways.len() >= HISTORY_WAYS_MAX) {
                continue;
            }
            let ring = history.ways.entry(way.clone()).or_default();
            ring.push_back(rates);
            if ring.len() > HISTORY_LOOKS_MAX {
                ring.pop_front();
            }
        }
    }

    /// How much passed per second in the last minute: items, bytes, lost and refused of each way that is known. Scrapes may
    /// be a minute apart, and whoever begins to watch knows of none.
    pub(super) fn means(&self) -> HashMap<Way, [f64; 4]> {
        let history = self.history.lock();
        // Before the first of the looks there was none to tell a rate from.
        let looks = history.times.len().saturating_sub(1).min(MEAN_LOOKS);
        let mean = |ring: &VecDeque<[f32; 4]>| {
            let mut sums = [0.0; 4];
            for rates in ring.iter().rev().take(looks) {
                for (sum, rate) in sums.iter_mut().zip(rates) {
                    *sum += f64::from(*rate);
                }
            }
            sums.map(|sum| (sum / looks as f64 * 1_000.0).round() / 1_000.0)
        };
        match looks {
            0 => HashMap::new(),
            _ => history.ways.iter().map(|(way, ring)| (way.clone(), mean(ring))).collect(),
        }
    }

    /// The last minutes of the edges of a component.
    pub(super) fn history(&self, id: &str) -> Value {
        let history = self.history.lock();
        let looks = history.times.len();
        let of_end = format!("{id}#");
        let ways =
            history.ways.iter().filter(|(way, _)| *way.from == *id || *way.to == *id || way.to.starts_with(&of_end));
        let series: Vec<Value> = ways
            .map(|(way, ring)| {
                // A way that is younger than the history was not used before.
                let before = looks.saturating_sub(ring.len());
                let of = |at: usize| -> Vec<f32> {
                    let values = ring.iter().skip(ring.len().saturating_sub(looks)).map(|rates| rates[at]);
                    std::iter::repeat_n(0.0, before).chain(values).collect()
                };
                let edge = format!("{}>{} {}", way.from, way.to, way.kind);
                json!({ "edge": edge, "items": of(0), "bytes": of(1), "lost": of(2) })
            })
            .collect();
        json!({
            "stepMs": HISTORY_EVERY.as_millis() as u64,
            "t0": history.times.front().copied().unwrap_or_else(|| millis(SystemTime::now())),
            "series": series,
        })
    }
}

/// How many targets a component has for others.
fn targets_of(exports: &ConfigValue) -> i64 {
    fn count(value: &ConfigValue) -> i64 {
        match &value.data {
            Data::Capsule(capsule) => i64::from(capsule.as_any().is::<Target>()),
            Data::Array(values) => values.iter().map(count).sum(),
            _ => 0,
        }
    }
    exports.entries().iter().map(|(_, value)| count(value)).sum()
}

/// How much a second that is, to three places.
pub(super) fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds <= 0.0 {
        return 0.0;
    }
    (count as f64 / seconds * 1_000.0).round() / 1_000.0
}

/// The element of that number.
fn place<T: Default + Clone>(list: &mut Vec<T>, number: usize) -> &mut T {
    if list.len() <= number {
        list.resize(number + 1, T::default());
    }
    &mut list[number]
}

async fn run(live: Weak<Live>, controller: Weak<Controller>, mut stopped: watch::Receiver<bool>) {
    let mut remembered = Instant::now();
    loop {
        let (Some(this), Some(controller)) = (live.upgrade(), controller.upgrade()) else { return };
        let due = HISTORY_EVERY.saturating_sub(remembered.elapsed());
        if due.is_zero() {
            // Whoever watches has just had a look, perhaps: two that follow closely would say little of the rates.
            if this.latest.borrow().at.elapsed() >= WATCHED_EVERY / 2 {
                this.look(&controller);
            }
            this.remember();
            remembered = Instant::now();
            continue;
        }
        let watched = this.latest.receiver_count() > 0;
        let age = this.latest.borrow().at.elapsed();
        if watched && age >= WATCHED_EVERY {
            this.look(&controller);
            continue;
        }
        let wait = if watched { due.min(WATCHED_EVERY - age) } else { due };
        drop(controller);
        let wanted = this.wanted.notified();
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            // Somebody watches from now on: the next look is due in a second.
            () = wanted => {}
            _ = stopped.wait_for(|stopped| *stopped) => return,
        }
    }
}
