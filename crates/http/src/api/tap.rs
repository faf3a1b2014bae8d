//! Data on its way, for whoever is allowed to look: the tap, and the reference's stream of the same.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use corten_component::SecretBook;
use corten_config::value::Value as ConfigValue;
use corten_net::http_error;
use corten_runtime::Node;
use corten_signal::ledger::{Edge, Kind};
use corten_signal::tap::{Fields, Filter, Item, Seen, Side, TapCounts, TapOptions, Watch, push_json};
use corten_signal::target::Target;
use corten_syntax::quote;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::labels::{shown_labels, shown_value};
use super::stream::{DELIMITER, PING_EVERY, becomes, body_of, event_stream};
use super::{Answer, DISABLED, Failure, Own, Query, millis};

/// The most items a second that may be asked for.
const RATE_MAX: u32 = 1_000;
/// How many are shown unless asked for more.
const RATE: u32 = 30;
/// How often it is told how much was seen.
const STAT_EVERY: Duration = Duration::from_secs(1);
/// How long items are gathered before they are sent.
const GATHER: Duration = Duration::from_millis(100);
/// How many targets of all lists are shown at once.
const LIST_ITEMS_MAX: usize = 1_000;
/// The kind of data that is a list of targets.
const TARGET: &str = "target";
const NDJSON: &str = "application/x-ndjson";

impl Own {
    /// The ways into and out of a component.
    fn ways(&self, node: &Node, into: bool, out: bool) -> Vec<(Side, Arc<Edge>)> {
        let mut ways = Vec::new();
        if into {
            let edges = self.controller.nodes().into_iter().flat_map(|other| other.host.ledger.edges());
            ways.extend(edges.filter(|edge| **edge.to() == *node.host.id).map(|edge| (Side::In, edge)));
        }
        if out {
            ways.extend(node.host.ledger.edges().into_iter().map(|edge| (Side::Out, edge)));
        }
        ways
    }

    /// The targets that a component uses, and those that it has for others.
    fn lists(&self, node: &Arc<Node>, into: bool, out: bool) -> Vec<List> {
        let list = |side, from: &Arc<Node>, to: &str| List {
            side,
            from: from.host.id.as_str().into(),
            to: to.into(),
            exporter: Arc::clone(from),
            shown: None,
        };
        let mut lists = Vec::new();
        for other in self.controller.nodes().iter().filter(|_| into) {
            let uses = other.data_flow().into_iter().any(|(to, kind)| kind == TARGET && *to == *node.id);
            lists.extend(uses.then(|| list(Side::In, other, &node.host.id)));
        }
        for (to, kind) in node.data_flow().into_iter().filter(|_| out) {
            lists.extend((kind == TARGET).then(|| list(Side::Out, node, &to)));
        }
        lists
    }

    fn look(
        &self,
        ways: Vec<(Side, Arc<Edge>)>,
        lists: Vec<List>,
        options: TapOptions,
        node: &Arc<Node>,
    ) -> Result<Tap, Failure> {
        let permit = Arc::clone(&self.taps).try_acquire_owned();
        let permit = permit.map_err(|_| Failure::busy("too many look at data already"))?;
        Ok(Tap {
            lists,
            filter: options.filter.clone(),
            number: 0,
            of_lists: TapCounts::default(),
            watch: self.services.taps.watch(ways, options),
            allowed: self.services.server.live_debugging.subscribe(),
            loads: self.controller.generation(),
            node: Arc::clone(node),
            controller: Arc::clone(&self.controller),
            stopped: self.stopped.clone(),
            told: None,
            ended: false,
            _permit: permit,
        })
    }

    pub(super) fn tap(&self, id: &str, query: &Query, headers: &HeaderMap) -> Result<Answer, Failure> {
        if !self.live_debugging() {
            return Err(Failure(StatusCode::INTERNAL_SERVER_ERROR, DISABLED.to_owned()));
        }
        let node = self.controller.node(id).ok_or_else(|| Failure::not_found("component not found"))?;
        let (into, out) = match query.get("side") {
            "" | "both" => (true, true),
            "in" => (true, false),
            "out" => (false, true),
            _ => return Err(Failure::bad("side is in, out or both")),
        };
        let filter = Filter::parse(query.get("filter"));
        let filter = filter.map_err(|error| Failure::bad(format!("the filter cannot be read: {error}")))?;
        let probability = query.number("prob", 1.0)?;
        if !(0.0..=1.0).contains(&probability) {
            return Err(Failure::bad("prob is a number from 0 to 1"));
        }
        let rate: u32 = query.number("rate", RATE)?;
        if !(1..=RATE_MAX).contains(&rate) {
            return Err(Failure::bad(format!("rate is a number from 1 to {RATE_MAX}")));
        }
        let options = TapOptions { filter, probability, items_per_s_max: rate, ..TapOptions::default() };
        let (ways, lists) = (self.ways(&node, into, out), self.lists(&node, into, out));
        let any = |into, out| !(self.ways(&node, into, out).is_empty() && self.lists(&node, into, out).is_empty());
        if !any(true, true) {
            let text = format!("the component {id:?} hands no data on and takes none");
            return Err(Failure(StatusCode::CONFLICT, text));
        }
        let tap = self.look(ways, lists, options, &node)?;
        let lines = headers.get_all(header::ACCEPT).iter().any(|accept| {
            accept.to_str().is_ok_and(|accept| accept.split(',').any(|range| range.trim().starts_with(NDJSON)))
        });
        let texts = stream::unfold(tap, move |mut tap| async move {
            let events = tap.next().await?;
            let mut text = String::new();
            for told in events {
                match lines {
                    true => {
                        text.push_str("{\"event\":");
                        push_json(&mut text, told.name());
                        text.push_str(",\"data\":");
                        told.write_data(&mut text);
                        text.push_str("}\n");
                    }
                    false => {
                        text.extend(["event: ", told.name(), "\ndata: "]);
                        told.write_data(&mut text);
                        text.push_str("\n\n");
                    }
                }
            }
            Some((text, tap))
        });
        if !lines {
            return Ok(event_stream(texts));
        }
        let mut answer = Response::new(body_of(texts));
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(NDJSON));
        Ok(answer)
    }

    /// `api/v0/web/debug/{id}`.
    pub(super) fn reference_debug(&self, id: &str, uri: &Uri) -> Answer {
        let failed = |text: &str| http_error(StatusCode::INTERNAL_SERVER_ERROR, text);
        let probability = Query::of(uri).and_then(|query| query.number("sampleProb", 1.0));
        let Some(probability) = probability.ok().filter(|probability| (0.0..=1.0).contains(probability)) else {
            return http_error(StatusCode::BAD_REQUEST, "Invalid sample probability");
        };
        if !self.live_debugging() {
            return failed(DISABLED);
        }
        let Some(node) = self.controller.component(id) else { return failed("component not found") };
        let (ways, lists) = (self.ways(&node, true, true), self.lists(&node, true, true));
        if ways.is_empty() && lists.is_empty() {
            return failed(&format!("the component {id:?} does not support live debugging"));
        }
        let options = TapOptions { probability, items_per_s_max: RATE_MAX, ..TapOptions::default() };
        let tap = match self.look(ways, lists, options, &node) {
            Ok(tap) => tap,
            Err(Failure(status, text)) => return http_error(status, &text),
        };
        let texts = stream::unfold((tap, Instant::now()), |(mut tap, mut written)| async move {
            let mut text = String::new();
            while text.is_empty() {
                for told in tap.next().await? {
                    if let Event::Item(_, seen) = told {
                        let side = if seen.side == Side::In { "IN" } else { "OUT" };
                        text.extend(["[", side, "] ", &seen.text, DELIMITER]);
                    }
                }
                if text.is_empty() && written.elapsed() >= PING_EVERY {
                    // An empty message. Who is gone would keep his place for as long as nothing passes.
                    text.push_str(DELIMITER);
                }
            }
            written = Instant::now();
            Some((text, (tap, written)))
        });
        let mut answer = Response::new(body_of(texts));
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        answer
    }
}

/// Targets, which are a value that changes rather than something that passes. They are shown whole whenever they are
/// others.
struct List {
    side: Side,
    from: Arc<str>,
    to: Arc<str>,
    exporter: Arc<Node>,
    /// What was shown last.
    shown: Option<ConfigValue>,
}

/// Calls this with the targets in a value.
fn each_target(value: &ConfigValue, tell: &mut dyn FnMut(&Target)) {
    if let Some(target) = value.as_capsule().and_then(|capsule| capsule.as_any().downcast_ref::<Target>()) {
        tell(target);
    }
    for item in value.items() {
        each_target(&item, tell);
    }
}

/// A target while it is looked at. It is searched for what is shown of it, so that nobody finds out a secret by asking.
struct Looked<'a>(&'a Target, &'a SecretBook);

impl Item for Looked<'_> {
    fn any_text(&self, accept: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        shown_labels(self.0, self.1).any(|label| accept(label.name.as_bytes()) || accept(label.value.as_bytes()))
    }

    fn field(&self, name: &str) -> Option<String> {
        let value = self.0.get(name)?;
        Some(shown_value(self.0, name, value, self.1).0.into_owned())
    }

    fn text(&self) -> String {
        Shown::of(self.0, self.1).text
    }

    fn fields(&self, _: &mut Fields<'_>) {}
}

/// What is shown of a target, in both forms.
#[derive(Debug, PartialEq)]
struct Shown {
    /// On one line.
    text: String,
    /// As JSON.
    fields: String,
    secrets: u32,
}

impl Shown {
    fn of(target: &Target, book: &SecretBook) -> Self {
        let (mut text, mut fields, mut secrets) = ("{".to_owned(), serde_json::Map::new(), 0);
        for label in shown_labels(target, book) {
            if text.len() > 1 {
                text.push_str(", ");
            }
            text.extend([&*label.name, "=", &quote(&label.value)]);
            fields.insert(label.name.into_owned(), label.value.into());
            secrets += label.secrets;
        }
        text.push('}');
        Shown { text, fields: Value::Object(fields).to_string(), secrets }
    }
}

/// Somebody who looks.
struct Tap {
    lists: Vec<List>,
    filter: Filter,
    /// How many items were shown.
    number: u64,
    /// How much was seen of lists.
    of_lists: TapCounts,
    watch: Watch,
    allowed: watch::Receiver<bool>,
    loads: watch::Receiver<(u64, SystemTime)>,
    node: Arc<Node>,
    controller: Arc<corten_runtime::Controller>,
    stopped: watch::Receiver<bool>,
    /// When it was told how much was seen, and how much that was.
    told: Option<(tokio::time::Instant, TapCounts)>,
    ended: bool,
    _permit: OwnedSemaphorePermit,
}

/// What is told.
enum Event {
    /// An item, and which one it is.
    Item(u64, Seen),
    Other(&'static str, Value),
}

impl Event {
    fn name(&self) -> &'static str {
        match self {
            Event::Item(..) => "item",
            Event::Other(name, _) => name,
        }
    }

    /// Writes it as JSON. Of an item the structure is JSON already.
    fn write_data(&self, out: &mut String) {
        let (number, seen) = match self {
            Event::Item(number, seen) => (number, seen),
            Event::Other(_, data) => return out.push_str(&data.to_string()),
        };
        out.reserve(seen.text.len() + seen.fields.len() + 256);
        let side = if seen.side == Side::In { "in" } else { "out" };
        // Writing to a string cannot fail.
        let _ = write!(out, "{{\"n\":{number},\"at\":{},\"secrets\":{}", seen.at_ms, seen.secrets);
        let texts = [
            ("side", side),
            ("from", &seen.from),
            ("to", &seen.to),
            ("kind", seen.kind.as_str()),
            ("text", &seen.text),
        ];
        for (name, text) in texts {
            out.extend([",\"", name, "\":"]);
            push_json(out, text);
        }
        out.extend([",\"fields\":", &seen.fields, "}"]);
    }
}

impl Tap {
    /// The next events; nothing after the last.
    async fn next(&mut self) -> Option<Vec<Event>> {
        if self.ended {
            return None;
        }
        let due = match self.told {
            Some((at, _)) => at + STAT_EVERY,
            None => {
                // Whoever asked sees at once that there is an answer.
                return Some(self.round());
            }
        };
        let reason = tokio::select! {
            biased;
            () = becomes(&mut self.stopped, true) => "stopping",
            () = becomes(&mut self.allowed, false) => "disabled",
            _ = self.loads.changed() => {
                // Its ways may be others now.
                let same = self.controller.node(&self.node.id).is_some_and(|node| Arc::ptr_eq(&node, &self.node));
                if same { "reload" } else { "gone" }
            }
            () = tokio::time::sleep_until(due) => return Some(self.round()),
            seen = self.watch.next() => {
                let mut events: Vec<Event> = seen.into_iter().map(|seen| self.item(seen)).collect();
                // Not one write an item.
                tokio::time::sleep(GATHER).await;
                if tokio::time::Instant::now() >= due {
                    events.extend(self.round());
                }
                return Some(events);
            }
        };
        self.ended = true;
        Some(vec![Event::Other("end", json!({ "reason": reason }))])
    }

    /// What is told each second: targets that are others, and how much was seen.
    fn round(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        let mut lists = std::mem::take(&mut self.lists);
        let mut left = LIST_ITEMS_MAX;
        for list in &mut lists {
            let now = list.exporter.exports();
            if list.shown.as_ref() == Some(&now) {
                continue;
            }
            for (_, value) in now.entries() {
                each_target(&value, &mut |target| {
                    self.of_lists.passed += 1;
                    self.of_lists.looked += 1;
                    if !self.filter.matches(&Looked(target, self.controller.secrets())) {
                        return;
                    }
                    self.of_lists.matched += 1;
                    if left == 0 {
                        self.of_lists.missed += 1;
                        return;
                    }
                    left -= 1;
                    events.push(self.target(list, target));
                });
            }
            list.shown = Some(now);
        }
        self.lists = lists;
        events.push(self.stat());
        events
    }

    fn target(&mut self, list: &List, target: &Target) -> Event {
        let Shown { text, fields, secrets } = Shown::of(target, self.controller.secrets());
        self.item(Seen {
            number: 0,
            side: list.side,
            from: Arc::clone(&list.from),
            to: Arc::clone(&list.to),
            kind: Kind::Target,
            at_ms: millis(SystemTime::now()),
            text,
            fields,
            secrets,
        })
    }

    fn stat(&mut self) -> Event {
        let (seen, lists) = (self.watch.counts(), self.of_lists);
        let now = TapCounts {
            passed: seen.passed + lists.passed,
            looked: seen.looked + lists.looked,
            matched: seen.matched + lists.matched,
            missed: seen.missed + lists.missed,
            limited: seen.limited,
        };
        let before = self.told.map(|(_, counts)| counts).unwrap_or_default();
        self.told = Some((tokio::time::Instant::now(), now));
        let data = json!({
            "t": millis(SystemTime::now()),
            "seen": now.passed - before.passed,
            "looked": now.looked - before.looked,
            "matched": now.matched - before.matched,
            "missed": now.missed - before.missed,
            "limited": now.limited,
        });
        Event::Other("stat", data)
    }

    fn item(&mut self, seen: Seen) -> Event {
        self.number += 1;
        Event::Item(self.number, seen)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What labels and secrets are made of.
    fn part() -> impl Strategy<Value = &'static str> {
        let parts = [
            "job",
            "token",
            "pass",
            "word",
            "_",
            " ",
            "=",
            ":",
            "\"",
            "\\",
            "{",
            "}",
            ", ",
            "\n",
            "?",
            "&",
            "://u:",
            "@h/",
            "Bearer ",
            "Basic ",
            "abcdefgh12345",
            "hunter2-known",
            "é",
        ];
        proptest::sample::select(parts.to_vec())
    }

    fn text() -> impl Strategy<Value = String> {
        proptest::collection::vec(part(), 0..6).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn both_forms_of_a_target_hide_the_same(labels in proptest::collection::btree_map(text(), text(), 0..5)) {
            let book = SecretBook::default();
            book.set([Arc::from("hunter2-known")]);
            let target = Target::new(labels.iter().map(|(name, value)| (&**name, &**value))).unwrap();
            let shown = Shown::of(&target, &book);
            prop_assert!(!shown.text.contains("hunter2-known") && !shown.fields.contains("hunter2-known"));
            let fields: serde_json::Map<String, Value> = serde_json::from_str(&shown.fields).unwrap();
            for (name, value) in &fields {
                let value = value.as_str().expect("a text");
                prop_assert!(shown.text.contains(&format!("{name}={}", quote(value))), "{name} {value} {shown:?}");
            }
            // A filter finds what is shown, and nothing else.
            let looked = Looked(&target, &book);
            for (name, value) in &labels {
                let found = looked.field(name).expect("the label");
                prop_assert!(shown.text.contains(&format!("={}", quote(&found))), "{name} {value} {found}");
            }
        }
    }

    #[test]
    fn what_is_called_a_secret_within_a_label_is_hidden_in_both_forms() {
        let book = SecretBook::default();
        let labels = [("job", "a"), ("note", "level=info password=hush"), ("token", "hush")];
        assert_eq!(
            Shown::of(&Target::new(labels).unwrap(), &book),
            Shown {
                text: r#"{job="a", note="level=info password=(secret)", token="(secret)"}"#.to_owned(),
                fields: r#"{"job":"a","note":"level=info password=(secret)","token":"(secret)"}"#.to_owned(),
                secrets: 2,
            }
        );
    }
}
