//! Operators in their order.

use corten_signal::Acks;

use crate::build::{self, BuildError};
use crate::entry::Entry;
use crate::expr::Program;
use crate::operators::{Kind, Next, Recombined};
use crate::value::Value;

/// How many operators a pipeline may have.
const OPERATORS_MAX: usize = 1_000;

/// What becomes of an entry for which an operator fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// It goes on.
    Send,
    /// It goes on, and nothing is said.
    SendQuiet,
    /// It is dropped.
    Drop,
    /// It is dropped, and nothing is said.
    DropQuiet,
}

impl OnError {
    /// As configurations write it.
    pub fn as_str(self) -> &'static str {
        match self {
            OnError::Send => "send",
            OnError::SendQuiet => "send_quiet",
            OnError::Drop => "drop",
            OnError::DropQuiet => "drop_quiet",
        }
    }

    /// Whether nothing is said.
    pub fn is_quiet(self) -> bool {
        matches!(self, OnError::SendQuiet | OnError::DropQuiet)
    }
}

/// An operator has failed.
#[derive(Debug)]
pub struct Failure<'a> {
    /// What the operator is called.
    pub operator: &'a str,
    /// Its type.
    pub kind: &'a str,
    /// What became of the entry.
    pub action: OnError,
    /// Why.
    pub error: String,
}

/// What comes out of a pipeline.
#[derive(Default)]
pub struct Output<'a> {
    /// Entries, in order.
    pub entries: Vec<Entry>,
    /// What they came with that did not come now: operators kept something for a while.
    pub acks: Acks,
    /// Is told of failures.
    pub on_failure: Option<&'a mut dyn FnMut(Failure<'_>)>,
}

impl std::fmt::Debug for Output<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output").field("entries", &self.entries.len()).finish_non_exhaustive()
    }
}

impl Output<'_> {
    fn failed(&mut self, node: &Node, error: String) {
        if let Some(tell) = &mut self.on_failure {
            tell(Failure { operator: &node.id, kind: &node.kind, action: node.on_error, error });
        }
    }
}

/// An operator, and where its entries go.
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) on_error: OnError,
    pub(crate) when: Option<Program>,
    pub(crate) own: Kind,
    /// The places of those behind it.
    pub(crate) outputs: Vec<usize>,
    /// How many entries it dropped on purpose, and because it failed, that are not told yet.
    pub(crate) dropped: [usize; 2],
}

/// What became of entries that did not come out of a pipeline as they went in: as many go in as come out, are dropped, joined
/// to others or kept, less the copies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Dropped: the ids of operators, or with `failed` behind them where the operator did not mean to.
    pub dropped: Vec<(String, usize)>,
    /// Went on within another entry.
    pub joined: usize,
    /// Made because an operator sends to several.
    pub copied: usize,
    /// How many more operators keep than before; below zero if these are fewer.
    pub kept: i64,
}

/// Where entries leave the pipeline.
const END: usize = usize::MAX;

/// What entries come with.
pub(crate) struct Source<'a> {
    pub(crate) acks: &'a Acks,
    /// Different for each call.
    pub(crate) turn: u64,
}

/// Operators in their order.
pub struct Pipeline {
    nodes: Vec<Node>,
    turn: u64,
    unknown: Vec<String>,
    /// What is not told yet, without what was dropped.
    counts: Counts,
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.nodes.iter().map(|node| &node.id)).finish()
    }
}

impl Pipeline {
    /// Builds the operators that a configuration lists. Each sends to the next, but where it says something else, and the
    /// last one out of the pipeline.
    ///
    /// # Errors
    ///
    /// What is wrong with which of them.
    pub fn new(configs: &[Value]) -> Result<Self, BuildError> {
        let about_all = |message: String| BuildError { operator: None, name: String::new(), message };
        if configs.len() > OPERATORS_MAX {
            return Err(about_all(format!("there are at most {OPERATORS_MAX} operators")));
        }
        let mut built = Vec::with_capacity(configs.len());
        for (at, config) in configs.iter().enumerate() {
            built.push(build::operator(at, config)?);
        }
        let mut unknown = Vec::new();
        for (at, operator) in built.iter().enumerate() {
            let names = operator.unknown.iter();
            unknown.extend(names.map(|name| format!("operator {} ({}): {name}", at + 1, operator.node.kind)));
        }
        rename(&mut built);
        let ids: Vec<String> = built.iter().map(|operator| operator.node.id.clone()).collect();
        let count = built.len();
        let mut nodes = Vec::with_capacity(count);
        for (at, mut operator) in built.into_iter().enumerate() {
            let failed = |message: String| BuildError { operator: Some(at), name: ids[at].clone(), message };
            if ids[..at].contains(&ids[at]) {
                return Err(failed(format!("operator with id '{}' already exists in pipeline", ids[at])));
            }
            let find = |outputs: &[String]| {
                let mut found = Vec::new();
                for output in outputs {
                    let Some(place) = ids.iter().position(|id| id == output) else {
                        return Err(failed(format!("operator '{output}' does not exist")));
                    };
                    if found.contains(&place) {
                        return Err(failed(
                            "operators cannot be connected, because a connection already exists".to_owned(),
                        ));
                    }
                    found.push(place);
                }
                Ok(found)
            };
            if let Kind::Router(router) = &mut operator.node.own {
                for route in &mut router.routes {
                    route.outputs = find(&route.names).map_err(|mut error| {
                        error.message = format!("failed to set outputs on route: {}", error.message);
                        error
                    })?;
                }
            } else if operator.node.own.goes_on() {
                operator.node.outputs = match find(&operator.outputs)? {
                    none if none.is_empty() => vec![if at + 1 < count { at + 1 } else { END }],
                    named => named,
                };
            }
            nodes.push(operator.node);
        }
        let pipeline = Pipeline { nodes, turn: 0, unknown, counts: Counts::default() };
        match pipeline.cycle() {
            Some(at) => Err(BuildError {
                operator: Some(at),
                name: ids[at].clone(),
                message: "pipeline has a circular dependency".to_owned(),
            }),
            None => Ok(pipeline),
        }
    }

    /// As [`new`](Self::new), for what reads the headers of files: each entry has to come out.
    ///
    /// # Errors
    ///
    /// What is wrong with which of them.
    pub fn for_headers(configs: &[Value]) -> Result<Self, BuildError> {
        if configs.is_empty() {
            return Err(BuildError {
                operator: None,
                name: String::new(),
                message: "at least one operator must be specified for `metadata_operators`".to_owned(),
            });
        }
        let pipeline = Self::new(configs)?;
        for (at, node) in pipeline.nodes.iter().enumerate() {
            if let Some(message) = build::not_for_headers(&node.kind) {
                return Err(BuildError { operator: Some(at), name: node.id.clone(), message });
            }
        }
        Ok(pipeline)
    }

    /// What operators are given and do not know.
    pub fn unknown(&self) -> &[String] {
        &self.unknown
    }

    /// Whether entries come out as they went in.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// An operator that sends to itself in the end.
    fn cycle(&self) -> Option<usize> {
        // What nothing open leads to is taken away, until nothing is left or everything has something before it.
        let mut before = vec![0; self.nodes.len()];
        let outputs = |at: usize| {
            let node = &self.nodes[at];
            let routed = match &node.own {
                Kind::Router(router) => router.routes.iter().flat_map(|route| &route.outputs).copied().collect(),
                _ => Vec::new(),
            };
            node.outputs.iter().copied().filter(|output| *output != END).chain(routed)
        };
        for at in 0..self.nodes.len() {
            outputs(at).for_each(|output| before[output] += 1);
        }
        let mut free: Vec<usize> = (0..self.nodes.len()).filter(|at| before[*at] == 0).collect();
        let mut done = vec![false; self.nodes.len()];
        while let Some(at) = free.pop() {
            done[at] = true;
            for output in outputs(at) {
                before[output] -= 1;
                if before[output] == 0 {
                    free.push(output);
                }
            }
        }
        done.iter().position(|done| !done)
    }

    /// Runs entries, which come with `acks`, through the operators. The caller's share of them is for what comes out, or
    /// is dropped; what operators keep has shares of its own.
    pub fn run(&mut self, entries: impl IntoIterator<Item = Entry>, acks: &Acks, out: &mut Output<'_>) {
        self.turn += 1;
        let source = Source { acks, turn: self.turn };
        for entry in entries {
            self.go(if self.nodes.is_empty() { END } else { 0 }, entry, &source, out);
        }
    }

    fn go(&mut self, mut at: usize, mut entry: Entry, source: &Source<'_>, out: &mut Output<'_>) {
        while at != END {
            let node = &mut self.nodes[at];
            let skipped = match &node.when {
                None => false,
                Some(when) => match when.holds(&entry) {
                    Ok(holds) => !holds,
                    Err(error) => {
                        let node = &self.nodes[at];
                        out.failed(node, format!("running if expr: {error}"));
                        match self.after_failure(at, entry, source, out) {
                            Some(next) => (at, entry) = next,
                            None => return,
                        }
                        continue;
                    }
                },
            };
            if !skipped {
                let node = &mut self.nodes[at];
                match node.own.run(&mut entry, source) {
                    Ok(Next::On) => {}
                    Ok(Next::Dropped) => {
                        node.dropped[0] += 1;
                        return;
                    }
                    Ok(Next::Route(route)) => {
                        let outputs = match &node.own {
                            Kind::Router(router) => router.routes[route].outputs.clone(),
                            _ => Vec::new(),
                        };
                        return self.send(at, &outputs, entry, source, out);
                    }
                    Ok(Next::Keep) => {
                        let mut flushed = Vec::new();
                        self.counts.kept += 1;
                        node.own.keep(entry, source, &mut flushed);
                        return self.flushed(at, flushed, source, out);
                    }
                    Err(error) => {
                        let node = &self.nodes[at];
                        out.failed(node, error);
                        match self.after_failure(at, entry, source, out) {
                            Some(next) => (at, entry) = next,
                            None => return,
                        }
                        continue;
                    }
                }
            }
            match &*self.nodes[at].outputs {
                [only] => at = *only,
                // None at all, as behind a router that does not look at the entry, or several.
                others => {
                    let outputs = others.to_vec();
                    return self.send(at, &outputs, entry, source, out);
                }
            }
        }
        out.entries.push(entry);
    }

    /// Where an entry goes on for which an operator failed.
    fn after_failure(
        &mut self,
        at: usize,
        entry: Entry,
        source: &Source<'_>,
        out: &mut Output<'_>,
    ) -> Option<(usize, Entry)> {
        let node = &mut self.nodes[at];
        if matches!(node.on_error, OnError::Drop | OnError::DropQuiet) || node.own.drops_failures() {
            node.dropped[1] += 1;
            return None;
        }
        match &*node.outputs {
            [only] => Some((*only, entry)),
            outputs => {
                let outputs = outputs.to_vec();
                self.send(at, &outputs, entry, source, out);
                None
            }
        }
    }

    /// Sends on an entry from an operator.
    fn send(&mut self, at: usize, outputs: &[usize], entry: Entry, source: &Source<'_>, out: &mut Output<'_>) {
        let Some((last, others)) = outputs.split_last() else {
            self.nodes[at].dropped[0] += 1;
            return;
        };
        self.counts.copied += others.len();
        for output in others {
            self.go(*output, entry.clone(), source, out);
        }
        self.go(*last, entry, source, out);
    }

    /// Sends on what an operator had kept.
    fn flushed(&mut self, at: usize, flushed: Vec<Recombined>, source: &Source<'_>, out: &mut Output<'_>) {
        if flushed.is_empty() {
            return;
        }
        let outputs = self.nodes[at].outputs.clone();
        for Recombined { entry, acks, entries } in flushed {
            self.counts.kept -= entries as i64;
            self.counts.joined += entries.saturating_sub(1);
            // What goes on may be kept again: it is all one share then.
            let own = Source { acks: &acks, turn: source.turn };
            self.send(at, &outputs, entry, &own, out);
            out.acks.join(acks);
        }
    }

    /// Sends on what operators have kept for too long, at a time in nanoseconds since the Unix epoch; with `all`, whatever
    /// they keep.
    pub fn flush(&mut self, now_ns: u64, all: bool, out: &mut Output<'_>) {
        self.turn += 1;
        let source = Source { acks: &Acks::NONE, turn: self.turn };
        for at in 0..self.nodes.len() {
            let mut flushed = Vec::new();
            self.nodes[at].own.flush(now_ns, all, &mut flushed);
            self.flushed(at, flushed, &source, out);
        }
    }

    /// What became of entries since this was asked last.
    pub fn take_counts(&mut self) -> Counts {
        let mut counts = std::mem::take(&mut self.counts);
        for node in &mut self.nodes {
            let [dropped, failed] = std::mem::take(&mut node.dropped);
            if dropped > 0 {
                counts.dropped.push((node.id.clone(), dropped));
            }
            if failed > 0 {
                counts.dropped.push((format!("{} failed", node.id), failed));
            }
        }
        counts
    }

    /// Whether operators keep something.
    pub fn keeps(&self) -> bool {
        self.nodes.iter().any(|node| node.own.keeps())
    }
}

/// Tells operators of the same type apart that have no names.
fn rename(built: &mut [build::Operator]) {
    let mut counts: Vec<(String, usize)> = Vec::new();
    for at in 0..built.len() {
        let kind = built[at].node.kind.clone();
        if kind != built[at].node.id {
            continue;
        }
        let place = match counts.iter().position(|(known, _)| *known == kind) {
            Some(place) => place,
            None => {
                counts.push((kind, 1));
                continue;
            }
        };
        loop {
            let id = format!("{kind}{}", counts[place].1);
            counts[place].1 += 1;
            if !built.iter().any(|other| other.node.id == id) {
                built[at].node.id = id;
                break;
            }
        }
    }
}
