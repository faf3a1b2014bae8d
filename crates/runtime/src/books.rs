//! The books of all components as metrics.

use std::collections::BTreeMap;
use std::sync::Arc;

use corten_component::metrics::{Kind as Type, Label, Snapshot, Value};
use corten_signal::ledger::{EdgeSnapshot, EndSnapshot, Kind, Ledger, LedgerSnapshot, RowSnapshot, open_sums};

use crate::controller::{Node, component_labels};

/// Adds what the books of these components say. Reasons and rows for which nothing was counted are not told.
pub(crate) fn gather(nodes: &[Arc<Node>], into: &mut Snapshot) {
    let mut open: BTreeMap<Kind, f64> = BTreeMap::new();
    for node in nodes {
        let (path, id) = component_labels(&node.host.id);
        let own = [("component_path".into(), path.into()), ("component_id".into(), id.into())];
        let books = node.host.ledger.snapshot();
        for row in &books.rows {
            open.entry(row.kind).or_default();
        }
        tell(books, &own, into);
    }
    let ledgers: Vec<Arc<Ledger>> = nodes.iter().map(|node| Arc::clone(&node.host.ledger)).collect();
    for sum in open_sums(&ledgers) {
        *open.entry(sum.kind).or_default() += sum.difference.unsigned_abs() as f64;
    }
    for (kind, items) in open {
        let help = "Items of which the books of all components do not say what became of them: zero at rest.";
        let labels = vec![("signal".into(), kind.as_str().into())];
        into.add_shared("corten_balance_open_items", help, Type::Gauge, labels, Value::Number(items));
    }
}

/// Adds what the books of one component say, without labels that name it.
pub(crate) fn gather_own(node: &Node, into: &mut Snapshot) {
    tell(node.host.ledger.snapshot(), &[], into);
}

fn tell(books: LedgerSnapshot, own: &[Label], into: &mut Snapshot) {
    let mut teller = Teller { own, into };
    books.rows.iter().filter(|row| !row.is_zero()).for_each(|row| teller.row(row));
    joined_edges(books.edges).iter().for_each(|edge| teller.edge(edge));
    joined_ends(books.ends).iter().for_each(|end| teller.end(end));
}

/// A receiver that is named twice has two ways, which have the same labels.
fn joined_edges(edges: Vec<EdgeSnapshot>) -> Vec<EdgeSnapshot> {
    let mut joined: Vec<EdgeSnapshot> = Vec::with_capacity(edges.len());
    for edge in edges {
        let Some(sum) = joined.iter_mut().find(|known| known.to == edge.to && known.kind == edge.kind) else {
            joined.push(edge);
            continue;
        };
        sum.sent += edge.sent;
        sum.taken += edge.taken;
        sum.refused += edge.refused;
        sum.in_flight += edge.in_flight;
        sum.bytes += edge.bytes;
        sum.batches += edge.batches;
        add_reasons(&mut sum.lost, &edge.lost);
    }
    joined
}

/// The same for endpoints of one name.
fn joined_ends(ends: Vec<EndSnapshot>) -> Vec<EndSnapshot> {
    let mut joined: Vec<EndSnapshot> = Vec::with_capacity(ends.len());
    for end in ends {
        let Some(sum) = joined.iter_mut().find(|known| known.name == end.name && known.kind == end.kind) else {
            joined.push(end);
            continue;
        };
        sum.offered += end.offered;
        sum.restored += end.restored;
        sum.delivered += end.delivered;
        sum.pending += end.pending;
        sum.oldest_ms = sum.oldest_ms.into_iter().chain(end.oldest_ms).min();
        add_reasons(&mut sum.dropped, &end.dropped);
    }
    joined
}

fn add_reasons(sum: &mut Vec<(String, u64)>, more: &[(String, u64)]) {
    for (reason, count) in more {
        match sum.iter_mut().find(|(known, _)| known == reason) {
            Some((_, sum)) => *sum += count,
            None => sum.push((reason.clone(), *count)),
        }
    }
}

struct Teller<'a> {
    own: &'a [Label],
    into: &'a mut Snapshot,
}

impl Teller<'_> {
    fn tell(&mut self, name: &str, help: &str, ty: Type, labels: &[(&str, &str)], value: f64) {
        let more = labels.iter().map(|(name, value)| (Arc::from(*name), Arc::from(*value)));
        let labels = self.own.iter().cloned().chain(more).collect();
        self.into.add_shared(name, help, ty, labels, Value::Number(value));
    }

    fn counts(&mut self, name: &str, help: &str, labels: &[(&str, &str)], by: &str, counts: &[(String, u64)]) {
        for (reason, count) in counts {
            let labels: Vec<(&str, &str)> = labels.iter().copied().chain([(by, reason.as_str())]).collect();
            self.tell(name, help, Type::Counter, &labels, *count as f64);
        }
    }

    fn row(&mut self, row: &RowSnapshot) {
        let signal = ("signal", row.kind.as_str());
        for (way, count) in [("taken", row.taken), ("received", row.received), ("out", row.out)] {
            let help = "Items that the component took from others, received from outside, or handed on.";
            self.tell("corten_component_items_total", help, Type::Counter, &[signal, ("way", way)], count as f64);
        }
        let help = "Items that the component dropped.";
        self.counts("corten_component_dropped_items_total", help, &[signal], "reason", &row.dropped);
        let help = "Items that went on within others.";
        self.counts("corten_component_merged_items_total", help, &[signal], "why", &row.merged);
        let help = "Items that the component made.";
        self.counts("corten_component_created_items_total", help, &[signal], "why", &row.created);
        let help = "Items that the component keeps.";
        self.tell("corten_component_held_items", help, Type::Gauge, &[signal], row.held as f64);
    }

    fn edge(&mut self, edge: &EdgeSnapshot) {
        let labels = [("signal", edge.kind.as_str()), ("to", &*edge.to)];
        for (way, count) in [("sent", edge.sent), ("taken", edge.taken), ("refused", edge.refused)] {
            let help = "Items that were sent to another component, that it took, or that it gave back.";
            let labels: Vec<(&str, &str)> = labels.iter().copied().chain([("way", way)]).collect();
            self.tell("corten_edge_items_total", help, Type::Counter, &labels, count as f64);
        }
        let help = "Items that were dropped on the way to one component while others took them.";
        self.counts("corten_edge_lost_items_total", help, &labels, "reason", &edge.lost);
        let help = "Bytes that were sent to another component, about.";
        self.tell("corten_edge_bytes_total", help, Type::Counter, &labels, edge.bytes as f64);
        let help = "Items of which another component has not said yet whether it takes them.";
        self.tell("corten_edge_in_flight_items", help, Type::Gauge, &labels, edge.in_flight as f64);
    }

    fn end(&mut self, end: &EndSnapshot) {
        let labels = [("signal", end.kind.as_str()), ("end", end.name.as_str())];
        for (way, count) in [("offered", end.offered), ("restored", end.restored), ("delivered", end.delivered)] {
            let help = "Items that were given to an endpoint, that were waiting for it from a process before, or that it took.";
            let labels: Vec<(&str, &str)> = labels.iter().copied().chain([("way", way)]).collect();
            self.tell("corten_end_items_total", help, Type::Counter, &labels, count as f64);
        }
        let help = "Items for an endpoint that were dropped.";
        self.counts("corten_end_dropped_items_total", help, &labels, "reason", &end.dropped);
        let help = "Items that wait for an endpoint.";
        self.tell("corten_end_pending_items", help, Type::Gauge, &labels, end.pending as f64);
        if let Some(age_ms) = end.age_ms() {
            let help = "How old the oldest item is that waits for an endpoint.";
            let age = age_ms as f64 / 1_000.0;
            self.tell("corten_end_oldest_seconds", help, Type::Gauge, &labels, age);
        }
    }
}
