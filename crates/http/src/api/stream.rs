//! Streams: what changes about the graph, as server-sent events, and the streams of the reference's API.
//!
//! A stream holds a place in the looks of [`Live`] and what it said last of each edge; it makes the next events when the
//! connection has taken the ones before. Whoever does not read is cut off by the server's limit on stalled writes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use corten_component::Health;
use corten_net::{BasicAuthFilter, ServerBody, http_error};
use corten_runtime::{Controller, LastLoad};
use corten_signal::ledger::{Kind, LedgerSnapshot};
use futures_util::stream::{self, Stream};
use http::{HeaderValue, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::config::last_load;
use super::live::{EdgeCounts, EndCounts, Look, Way, per_second};
use super::{Answer, Failure, Live, Own, Query, millis};

/// How often a stream says that it is alive when there is nothing else to say. Only then the server finds out that nobody
/// reads any more.
pub(super) const PING_EVERY: Duration = Duration::from_secs(5);
/// What follows each message of the reference's streams.
pub(super) const DELIMITER: &str = "|;|";
/// The spans of time that the reference's graph takes, in seconds.
const WINDOWS: std::ops::RangeInclusive<u64> = 1..=60;
const WINDOW: u64 = 5;

impl Own {
    /// A place among those who watch.
    pub(super) fn stream_permit(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let permit = Arc::clone(&self.streams).try_acquire_owned();
        permit.map_err(|_| Failure::busy("too many streams are open"))
    }

    fn access(&self) -> Access {
        let auth = Arc::clone(&self.services.server.auth);
        Access { then: auth.load_full(), auth }
    }

    pub(super) fn stream(&self, query: &Query) -> Result<Answer, Failure> {
        let permit = self.stream_permit()?;
        let component = Some(query.get("component")).filter(|id| !id.is_empty()).map(str::to_owned);
        if let Some(id) = &component
            && self.controller.node(id).is_none()
        {
            return Err(Failure::not_found("component not found"));
        }
        let before = self.live.latest();
        let events = Events {
            looks: self.live.watch(&self.controller),
            loads: self.controller.last_load(),
            live: Arc::clone(&self.live),
            controller: Arc::clone(&self.controller),
            stopped: self.stopped.clone(),
            access: self.access(),
            component,
            first: true,
            means: HashMap::new(),
            before,
            edges: HashMap::new(),
            ends: HashMap::new(),
            drops: HashMap::new(),
            healths: Arc::default(),
            _permit: permit,
        };
        let texts = stream::unfold(events, |mut events| async move {
            let text = events.next().await?;
            Some((text, events))
        });
        Ok(event_stream(texts))
    }
}

/// Who could send requests when a stream began. Whoever opened one while everybody could is asked again once that is over.
pub(super) struct Access {
    auth: Arc<ArcSwapOption<BasicAuthFilter>>,
    then: Option<Arc<BasicAuthFilter>>,
}

impl Access {
    fn has_changed(&self) -> bool {
        match (&*self.auth.load(), &self.then) {
            (Some(now), Some(then)) => !Arc::ptr_eq(now, then),
            (now, then) => now.is_some() != then.is_some(),
        }
    }
}

/// A response of server-sent events.
pub(super) fn event_stream(texts: impl Stream<Item = String> + Send + 'static) -> Answer {
    let mut answer = Response::new(body_of(texts));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // Proxies that gather answers would hold it back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    answer
}

/// A body of texts as they come.
pub(super) fn body_of(texts: impl Stream<Item = String> + Send + 'static) -> ServerBody {
    use futures_util::StreamExt as _;
    let frames = texts.map(|text| Ok::<_, Infallible>(Frame::data(Bytes::from(text))));
    StreamBody::new(frames).map_err(|never| match never {}).boxed_unsync()
}

/// Waits until something is so, or until nobody can say any more.
pub(super) async fn becomes(of: &mut watch::Receiver<bool>, wanted: bool) {
    let _ = of.wait_for(|now| *now == wanted).await;
}

/// One event.
fn event(name: &str, data: &Value) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}

/// A stream of what changes.
struct Events {
    looks: watch::Receiver<Arc<Look>>,
    loads: watch::Receiver<Option<Arc<LastLoad>>>,
    live: Arc<Live>,
    controller: Arc<Controller>,
    stopped: watch::Receiver<bool>,
    access: Access,
    /// Only what concerns this component is told.
    component: Option<String>,
    first: bool,
    /// What is told at first of each way, instead of what passed since the last look.
    means: HashMap<Way, [f64; 4]>,
    /// The look that was told last.
    before: Arc<Look>,
    /// What was told last of edges, ends and reasons, by their numbers. What was never told is zero.
    edges: HashMap<usize, [f64; 5]>,
    ends: HashMap<usize, Value>,
    drops: HashMap<usize, (f64, u64)>,
    healths: Arc<Vec<(String, Health)>>,
    _permit: OwnedSemaphorePermit,
}

impl Events {
    /// The next events; nothing when the server stops.
    async fn next(&mut self) -> Option<String> {
        if std::mem::take(&mut self.first) {
            self.looks.mark_unchanged();
            let mut out = event("graph", &json!({ "generation": self.looks.borrow().generation }));
            self.tell_load(&mut out);
            self.means = self.live.means();
            self.tell(&mut out);
            self.means = HashMap::new();
            return Some(out);
        }
        let ping = tokio::time::Instant::now() + PING_EVERY;
        loop {
            let mut out = String::new();
            tokio::select! {
                biased;
                () = becomes(&mut self.stopped, true) => return None,
                changed = self.loads.changed() => {
                    changed.ok()?;
                    self.tell_load(&mut out);
                }
                changed = self.looks.changed() => {
                    changed.ok()?;
                    self.tell(&mut out);
                }
                () = tokio::time::sleep_until(ping) => out.push_str(": ping\n\n"),
            }
            if self.access.has_changed() {
                return None;
            }
            if !out.is_empty() {
                return Some(out);
            }
        }
    }

    fn tell_load(&mut self, out: &mut String) {
        let last = self.loads.borrow_and_update().clone();
        out.extend(last.map(|last| event("load", &last_load(&self.controller, &last))));
    }

    fn concerns(&self, id: &str) -> bool {
        self.component.as_ref().is_none_or(|wanted| wanted == id)
    }

    /// Writes what has changed since the last look that was told.
    fn tell(&mut self, out: &mut String) {
        let now = Arc::clone(&self.looks.borrow_and_update());
        if now.generation != self.before.generation {
            // A number may mean another edge now.
            self.edges.clear();
            self.ends.clear();
            self.drops.clear();
            if !out.contains("event: graph") {
                out.push_str(&event("graph", &json!({ "generation": now.generation })));
            }
        }
        let before = Arc::clone(&self.before);
        let same = before.generation == now.generation;
        let seconds = if same { now.at.duration_since(before.at).as_secs_f64() } else { 0.0 };
        let t = millis(now.time);
        let live = Arc::clone(&self.live);
        let told = live.known(|index| {
            if index.generation != now.generation {
                // There is a newer look already, and that one will be told.
                return None;
            }
            let edges = self.changed_edges(&now, &before, seconds, index);
            let ends = self.changed_ends(&now, &before, seconds, index);
            Some((edges, ends, self.changed_drops(&now, &before, seconds, index)))
        });
        if let Some((edges, ends, drops)) = told {
            for (name, changed) in [("edges", edges), ("ends", ends), ("drops", drops)] {
                if !changed.is_empty() {
                    out.push_str(&event(name, &json!({ "t": t, "d": changed })));
                }
            }
        }
        if !Arc::ptr_eq(&self.healths, &now.healths) {
            let known: HashMap<&str, &Health> = self.healths.iter().map(|(id, health)| (id.as_str(), health)).collect();
            let changed: Vec<Value> = now
                .healths
                .iter()
                .filter(|(id, health)| self.concerns(id) && known.get(id.as_str()) != Some(&health))
                .map(|(id, health)| {
                    let message = self.controller.secrets().redacted(&health.message);
                    let at = corten_component::log::rfc3339(health.updated);
                    json!([id, { "state": health.state.as_str(), "message": message, "at": at }])
                })
                .collect();
            self.healths = Arc::clone(&now.healths);
            if !changed.is_empty() {
                out.push_str(&event("health", &Value::Array(changed)));
            }
        }
        self.before = now;
    }

    fn changed_edges(&mut self, now: &Look, before: &Look, seconds: f64, index: &super::live::Index) -> Vec<Value> {
        let mut changed = Vec::new();
        for (number, counts) in now.edges.iter().enumerate() {
            let Some(way) = index.edges.get(number) else { continue };
            if !(self.concerns(&way.from) || self.concerns(&way.to)) {
                continue;
            }
            let old = before.edges.get(number).copied().unwrap_or_default();
            let rate = |of: fn(&EdgeCounts) -> u64| per_second(of(counts).saturating_sub(of(&old)), seconds);
            let [items, bytes, lost, refused] = self.means.get(way).copied().unwrap_or_else(|| {
                [
                    rate(|counts| counts.items),
                    rate(|counts| counts.bytes),
                    rate(|counts| counts.lost),
                    rate(|counts| counts.refused),
                ]
            });
            let rates = [items, bytes, lost, refused, counts.in_flight as f64];
            if self.edges.get(&number).copied().unwrap_or_default() != rates {
                self.edges.insert(number, rates);
                let [items, bytes, lost, refused, in_flight] = rates;
                changed.push(json!([number, items, bytes, lost, refused, in_flight]));
            }
        }
        changed
    }

    fn changed_ends(&mut self, now: &Look, before: &Look, seconds: f64, index: &super::live::Index) -> Vec<Value> {
        let mut changed = Vec::new();
        for (number, counts) in now.ends.iter().enumerate() {
            let Some((component, name)) = index.ends.get(number).filter(|(component, _)| self.concerns(component))
            else {
                continue;
            };
            let old = before.ends.get(number).cloned().unwrap_or_default();
            let rate = |of: fn(&EndCounts) -> u64| per_second(of(counts).saturating_sub(of(&old)), seconds);
            let row = json!([
                &**component,
                &**name,
                counts.pending,
                counts.pending_bytes,
                counts.oldest_ms,
                counts.last_answer.as_deref(),
                rate(|counts| counts.delivered),
                rate(|counts| counts.dropped),
            ]);
            if self.ends.get(&number) != Some(&row) {
                self.ends.insert(number, row.clone());
                changed.push(row);
            }
        }
        changed
    }

    fn changed_drops(&mut self, now: &Look, before: &Look, seconds: f64, index: &super::live::Index) -> Vec<Value> {
        let mut changed = Vec::new();
        for (number, total) in now.drops.iter().enumerate() {
            let Some((component, kind, reason)) =
                index.drops.get(number).filter(|(component, ..)| self.concerns(component))
            else {
                continue;
            };
            let old = before.drops.get(number).copied().unwrap_or_default();
            let rate = per_second(total.saturating_sub(old), seconds);
            if self.drops.get(&number).copied().unwrap_or_default() != (rate, *total) {
                self.drops.insert(number, (rate, *total));
                changed.push(json!([&**component, kind, &**reason, rate, total]));
            }
        }
        changed
    }
}

impl Own {
    /// `api/v0/web/graph`: how much went where, each few seconds.
    pub(super) fn reference_graph(&self, module: &str, uri: &Uri) -> Answer {
        let window = Query::of(uri).ok().map(|query| match query.get("window") {
            "" => Some(WINDOW),
            text => text.parse().ok().filter(|window| WINDOWS.contains(window)),
        });
        let Some(Some(window)) = window else {
            return http_error(StatusCode::BAD_REQUEST, "Invalid window: must be an integer between 1 and 60");
        };
        if !module.is_empty() {
            // There are no modules.
            return http_error(StatusCode::INTERNAL_SERVER_ERROR, "module not found");
        }
        let permit = match self.stream_permit() {
            Ok(permit) => permit,
            Err(Failure(status, text)) => return http_error(status, &text),
        };
        let (controller, access) = (Arc::clone(&self.controller), self.access());
        let before = Feeds::of(&controller);
        let state = (controller, self.stopped.clone(), access, before, permit);
        let texts = stream::unfold(state, move |(controller, mut stopped, access, before, permit)| async move {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(window)) => {}
                () = becomes(&mut stopped, true) => return None,
            }
            if access.has_changed() {
                return None;
            }
            let now = Feeds::of(&controller);
            let text = format!("{}{DELIMITER}", now.since(&before, window));
            Some((text, (controller, stopped, access, now, permit)))
        });
        let mut answer = Response::new(body_of(texts));
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        answer
    }
}

/// What each component handed on, and to whom.
struct Feeds(BTreeMap<(Arc<str>, Kind), Feed>);

type Feed = (u64, BTreeSet<Arc<str>>);

impl Feeds {
    fn of(controller: &Controller) -> Self {
        let books: Vec<LedgerSnapshot> = controller.nodes().iter().map(|node| node.host.ledger.snapshot()).collect();
        let mut feeds: BTreeMap<(Arc<str>, Kind), Feed> = BTreeMap::new();
        for books in &books {
            for edge in &books.edges {
                let out = books.rows.iter().find(|row| row.kind == edge.kind).map_or(0, |row| row.out);
                let feed = feeds.entry((Arc::clone(&books.component), edge.kind)).or_default();
                feed.0 = out;
                feed.1.insert(Arc::clone(&edge.to));
            }
        }
        Feeds(feeds)
    }

    fn since(&self, before: &Feeds, window: u64) -> Value {
        let feeds = self.0.iter().filter_map(|((component, kind), (out, targets))| {
            let old = before.0.get(&(Arc::clone(component), *kind)).map_or(0, |(out, _)| *out);
            let count = out.checked_sub(old).filter(|count| *count > 0)?;
            let targets: Vec<&str> = targets.iter().map(|target| &**target).collect();
            let rate = per_second(count, window as f64);
            Some(json!({ "componentID": &**component, "targetComponentIDs": targets, "type": kind.as_str(), "rate": rate }))
        });
        feeds.collect()
    }
}
