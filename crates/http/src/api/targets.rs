//! All targets of all components, searched.
//!
//! A search looks at each target where it is; only the page that is asked for becomes JSON.

use std::cmp::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use corten_component::SecretBook;
use corten_component::log::rfc3339;
use corten_component::targets::{FileProgress, LastTime, ShownTarget, TargetState};
use corten_runtime::{Controller, Node};
use corten_signal::tap::{Filter, Item};
use corten_signal::target::Target;
use corten_syntax::{Block, Stmt};
use serde_json::{Map, Value, json};

use super::labels::{shown_labels, shown_value};
use super::{Failure, Own, Query};

/// The most targets of a page.
const PAGE_MAX: usize = 200;
/// How many there are unless asked otherwise.
const PAGE: usize = 50;
/// How long a search may wait for others, and how long it may take, with all that components do for it.
const SEARCH_WAIT: Duration = Duration::from_secs(10);
/// How many targets are looked at before it is looked whether anybody still asks.
const LOOK_EVERY: usize = 4_096;

/// What is asked for.
struct Search {
    filter: Filter,
    /// As `state`, of any number, and others are not counted either; all where there is none.
    only: Vec<TargetState>,
    state: Option<TargetState>,
    component: String,
    sort: Option<(Sort, bool)>,
    offset: usize,
    limit: usize,
    /// The most rows of a component.
    each: usize,
}

#[derive(Clone, Copy)]
enum Sort {
    Url,
    Component,
    State,
    LastScrape,
    Duration,
    Samples,
    Behind,
}

impl Search {
    fn of(query: &Query) -> Result<Self, Failure> {
        let filter = Filter::parse(query.get("q"));
        let state_of = |word: &str| {
            let state = TargetState::ALL.into_iter().find(|state| state.as_str() == word);
            state.ok_or_else(|| Failure::bad("state is up, down, unknown, dropped, refused or found"))
        };
        let state = Some(query.get("state")).filter(|word| !word.is_empty()).map(state_of).transpose()?;
        let only = query.get("only").split(',').filter(|word| !word.is_empty()).map(state_of);
        let sort = query.get("sort");
        let (name, down) = sort.strip_prefix('-').map_or((sort, false), |name| (name, true));
        let sort = match name {
            "" => None,
            "url" => Some(Sort::Url),
            "component" => Some(Sort::Component),
            "state" => Some(Sort::State),
            "lastScrape" => Some(Sort::LastScrape),
            "durationMs" => Some(Sort::Duration),
            "samples" => Some(Sort::Samples),
            "behind" => Some(Sort::Behind),
            _ => return Err(Failure::bad("sort is url, component, state, lastScrape, durationMs, samples or behind")),
        };
        Ok(Search {
            filter: filter.map_err(|error| Failure::bad(format!("the search cannot be read: {error}")))?,
            only: only.collect::<Result<_, _>>()?,
            state,
            component: query.get("component").to_owned(),
            sort: sort.map(|sort| (sort, down)),
            offset: query.number("offset", 0)?,
            limit: query.number("limit", PAGE)?.min(PAGE_MAX),
            each: query.number("each", usize::MAX)?,
        })
    }
}

impl Own {
    pub(super) async fn targets(&self, query: &Query) -> Result<Value, Failure> {
        let search = Search::of(query)?;
        let busy = || Failure::busy("another search takes its time");
        let permit = tokio::time::timeout(SEARCH_WAIT, Arc::clone(&self.searches).acquire_owned()).await;
        let permit = permit.ok().and_then(Result::ok).ok_or_else(busy)?;
        let controller = Arc::clone(&self.controller);
        // Gone with the request, whoever ends it.
        let asker = Arc::new(());
        let asked = Arc::downgrade(&asker);
        let found = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            find(&controller, &search, &asked)
        });
        // A component may take long to say what its targets are: nobody waits for it longer than for all else.
        let found = tokio::time::timeout(SEARCH_WAIT, found).await;
        let found = found.ok().and_then(Result::ok).flatten();
        drop(asker);
        found.ok_or_else(|| Failure::busy("the search took too long"))
    }
}

/// A target and whose it is.
#[derive(Clone)]
struct Found {
    node: Arc<Node>,
    target: Arc<dyn ShownTarget>,
    state: TargetState,
}

/// Searches, until nobody asks any more.
fn find(controller: &Controller, search: &Search, asked: &Weak<()>) -> Option<Value> {
    let is_asked = || asked.strong_count() > 0;
    let started = Instant::now();
    let (mut total, mut components, mut states) = (0, Vec::new(), [0_usize; TargetState::ALL.len()]);
    let (mut matched, mut found): (usize, Vec<Found>) = (0, Vec::new());
    for node in controller.components() {
        if !is_asked() {
            return None;
        }
        let info = node.host.debug_info.lock().clone();
        let targets = info.as_ref().and_then(|info| Some(info.targets()?.targets()));
        let Some(targets) = targets else { continue };
        total += targets.len();
        let (mut count, before) = (0, found.len());
        for (at, target) in targets.into_iter().enumerate() {
            if at % LOOK_EVERY == 0 && !is_asked() {
                return None;
            }
            let state = target.state();
            if !(search.only.is_empty() || search.only.contains(&state)) {
                continue;
            }
            let looked = Looked { id: &node.host.id, target: &*target, book: controller.secrets() };
            if !search.filter.matches(&looked) {
                continue;
            }
            // Counted before the other choices, so that whoever has made one sees what another would show.
            count += 1;
            let chosen = search.component.is_empty() || search.component == node.host.id;
            if chosen {
                states[state as usize] += 1;
                if search.state.is_some_and(|wanted| wanted != state) {
                    continue;
                }
                matched += 1;
                if found.len() - before < search.each {
                    found.push(Found { node: Arc::clone(&node), target, state });
                }
            }
        }
        components.push(json!([node.host.id, count]));
    }
    if let Some((sort, down)) = search.sort.filter(|_| is_asked()) {
        sorted(&mut found, sort, down);
    }
    let rows = found.iter().skip(search.offset).take(search.limit);
    let rows: Vec<Value> = rows.map(|found| row(found, controller.secrets())).collect();
    let states: Map<String, Value> =
        TargetState::ALL.iter().zip(states).map(|(state, count)| (state.as_str().to_owned(), count.into())).collect();
    Some(json!({
        "total": total,
        "matched": matched,
        "states": states,
        "components": components,
        "tookMs": started.elapsed().as_secs_f64() * 1_000.0,
        "rows": rows,
    }))
}

fn sorted(found: &mut [Found], sort: Sort, down: bool) {
    let by = |order: Ordering| if down { order.reverse() } else { order };
    match sort {
        Sort::Url => found.sort_by(|a, b| by(a.target.url().cmp(b.target.url()))),
        Sort::Component => found.sort_by(|a, b| by(a.node.host.id.cmp(&b.node.host.id))),
        Sort::State => found.sort_by_key(|found| if down { 9 - found.state as u8 } else { found.state as u8 }),
        Sort::LastScrape => found.sort_by_cached_key(|found| {
            let at = found.target.last().at.map_or(i64::MIN, super::millis);
            if down { at.saturating_neg() } else { at }
        }),
        Sort::Duration => found.sort_by_cached_key(|found| {
            let took = found.target.last().took.map_or(-1, |took| took.as_nanos() as i64);
            if down { -took } else { took }
        }),
        Sort::Samples => found.sort_by_cached_key(|found| {
            let samples = found.target.last().samples.map_or(-1, |samples| samples as i64);
            if down { -samples } else { samples }
        }),
        Sort::Behind => found.sort_by_cached_key(|found| {
            let behind = found.target.file().and_then(|file| file.behind_bytes).map_or(-1, |bytes| bytes as i64);
            if down { -behind } else { behind }
        }),
    }
}

fn labels(target: &Target, book: &SecretBook) -> Value {
    let labels = shown_labels(target, book);
    Value::Object(labels.map(|label| (label.name.into_owned(), label.value.into())).collect())
}

fn row(found: &Found, book: &SecretBook) -> Value {
    let target = &found.target;
    let LastTime { at, took, samples, error } = target.last();
    let block = found.node.block();
    let rule = target.dropped_by().map(|rule| {
        json!({
            "component": found.node.host.id,
            "index": rule.index,
            "action": rule.action,
            "file": &**block.source.name(),
            "line": line_of_rule(&block, rule.index),
        })
    });
    let mut row = json!({
        "component": found.node.host.id,
        "state": found.state.as_str(),
        "url": book.redacted(target.url()),
        "discovered": labels(target.discovered(), book),
        "labels": target.labels().map(|target| labels(target, book)),
        "rule": rule,
        "lastScrape": at.map(rfc3339),
        "durationMs": took.map(|took| took.as_secs_f64() * 1_000.0),
        "samples": samples,
        "error": error.map(|error| book.redacted(&error)),
    });
    if let Some(FileProgress { offset_bytes, size_bytes, behind_bytes, lines }) = target.file() {
        row["file"] = json!({ "offset": offset_bytes, "size": size_bytes, "behind": behind_bytes, "lines": lines });
    }
    row
}

/// Where a rule is written: the rules of a block are numbered in their order.
fn line_of_rule(block: &Block, index: usize) -> u32 {
    let rules = block.body.iter().filter_map(|statement| match statement {
        Stmt::Block(rule) if &*rule.name == "rule" => Some(rule.span.start),
        _ => None,
    });
    block.source.line(rules.into_iter().nth(index).unwrap_or(block.span.start))
}

/// A target while it is searched: for what is shown of it, so that nobody finds out a secret by asking for it.
struct Looked<'a> {
    id: &'a str,
    target: &'a dyn ShownTarget,
    book: &'a SecretBook,
}

impl Looked<'_> {
    /// Whether a text that is no label is wanted as it is shown. Most are not wanted as they are, which is cheap to find out.
    fn accepts(&self, text: &str, accept: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        accept(text.as_bytes())
            && match self.book.without_secrets(text, false) {
                Some(shown) => accept(shown.as_bytes()),
                None => true,
            }
    }

    /// The sets of labels whose values are shown.
    fn open(&self) -> impl Iterator<Item = &Target> {
        let sets = [self.target.labels(), Some(self.target.discovered())];
        sets.into_iter().flatten().filter(|target| !target.is_sensitive())
    }
}

impl Item for Looked<'_> {
    fn any_text(&self, accept: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        if self.accepts(self.target.url(), accept) || accept(self.id.as_bytes()) {
            return true;
        }
        let mut labels = self.open().flat_map(|target| target.iter().map(move |label| (target, label)));
        labels.any(|(target, label)| {
            accept(label.1.as_bytes()) && accept(shown_value(target, label.0, label.1, self.book).0.as_bytes())
        }) || self.target.last().error.is_some_and(|error| self.accepts(&error, accept))
    }

    fn field(&self, name: &str) -> Option<String> {
        let label = self.open().find_map(|target| {
            let value = target.get(name)?;
            Some(shown_value(target, name, value, self.book).0.into_owned())
        });
        label.or_else(|| match name {
            "component" => Some(self.id.to_owned()),
            "state" => Some(self.target.state().as_str().to_owned()),
            "url" => Some(self.book.redacted(self.target.url())),
            "error" => self.target.last().error.map(|error| self.book.redacted(&error)),
            _ => None,
        })
    }

    fn text(&self) -> String {
        self.target.url().to_owned()
    }

    fn fields(&self, _: &mut corten_signal::tap::Fields<'_>) {}
}
