//! The books of all components, and whether they are even.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use corten_component::SecretBook;
use corten_component::log::rfc3339;
use corten_runtime::Controller;
use corten_signal::ledger::{EdgeSnapshot, EndSnapshot, Kind, Ledger, LedgerSnapshot, RowSnapshot, open_sums};
use serde_json::{Value, json};

/// What all books say; also the rows in which nothing was ever counted where `all` are wanted.
pub(super) fn balance(controller: &Controller, all: bool) -> Value {
    let nodes = controller.nodes();
    let ledgers: Vec<Arc<Ledger>> = nodes.iter().map(|node| Arc::clone(&node.host.ledger)).collect();
    let mut books: Vec<LedgerSnapshot> = ledgers.iter().map(|ledger| ledger.snapshot()).collect();
    if !all {
        books.iter_mut().for_each(|books| books.rows.retain(|row| !row.is_zero()));
    }
    let open = open_sums(&ledgers);
    let mut program: BTreeMap<Kind, RowSnapshot> = BTreeMap::new();
    for row in books.iter().flat_map(|books| &books.rows) {
        match program.get_mut(&row.kind) {
            Some(sum) => add(sum, row),
            None => _ = program.insert(row.kind, row.clone()),
        }
    }
    let component = |books: &LedgerSnapshot| json!({ "id": &*books.component, "rows": books.rows.iter().map(row).collect::<Vec<_>>() });
    let ends = |books: &LedgerSnapshot| {
        books.ends.iter().map(|known| end(&books.component, known, controller.secrets())).collect::<Vec<_>>()
    };
    json!({
        "at": rfc3339(SystemTime::now()),
        "closes": open.is_empty(),
        "open": open
            .iter()
            .map(|open| json!({ "where": open.place, "kind": open.kind.as_str(), "difference": open.difference }))
            .collect::<Vec<_>>(),
        "program": program.values().map(row).collect::<Vec<_>>(),
        "components": books.iter().filter(|books| !books.rows.is_empty()).map(component).collect::<Vec<_>>(),
        "edges": books.iter().flat_map(|books| &books.edges).map(edge).collect::<Vec<_>>(),
        "ends": books.iter().flat_map(ends).collect::<Vec<_>>(),
    })
}

/// Adds a row to a sum of rows.
fn add(sum: &mut RowSnapshot, row: &RowSnapshot) {
    fn reasons(into: &mut Vec<(String, u64)>, more: &[(String, u64)]) {
        for (reason, count) in more {
            match into.iter_mut().find(|(known, _)| known == reason) {
                Some((_, sum)) => *sum += count,
                None => into.push((reason.clone(), *count)),
            }
        }
    }
    sum.taken += row.taken;
    sum.received += row.received;
    sum.out += row.out;
    sum.held += row.held;
    sum.gone += row.gone;
    reasons(&mut sum.created, &row.created);
    reasons(&mut sum.dropped, &row.dropped);
    reasons(&mut sum.merged, &row.merged);
}

/// Rows, but for those in which nothing was ever counted.
pub(super) fn used_rows(rows: &[RowSnapshot]) -> Vec<Value> {
    rows.iter().filter(|row| !row.is_zero()).map(row).collect()
}

fn row(row: &RowSnapshot) -> Value {
    json!({
        "kind": row.kind.as_str(),
        "taken": row.taken,
        "received": row.received,
        "created": row.created,
        "out": row.out,
        "dropped": row.dropped,
        "merged": row.merged,
        "held": row.held,
        "difference": row.difference(),
    })
}

pub(super) fn edge(edge: &EdgeSnapshot) -> Value {
    json!({
        "from": &*edge.from,
        "to": &*edge.to,
        "kind": edge.kind.as_str(),
        "sent": edge.sent,
        "taken": edge.taken,
        "refused": edge.refused,
        "lost": edge.lost,
        "inFlight": edge.in_flight,
        "bytes": edge.bytes,
        "batches": edge.batches,
    })
}

pub(super) fn end(component: &str, end: &EndSnapshot, book: &SecretBook) -> Value {
    let answer = end.last_answer.as_ref();
    json!({
        "component": component,
        "name": end.name,
        "url": book.redacted(&end.url),
        "kind": end.kind.as_str(),
        "offered": end.offered,
        "restored": end.restored,
        "delivered": end.delivered,
        "dropped": end.dropped,
        "pending": end.pending,
        "pendingBytes": end.pending_bytes,
        "capacityBytes": end.capacity_bytes,
        "inFlight": end.in_flight,
        "oldestMs": end.age_ms(),
        "retries": end.retries,
        "lastAnswer": answer.map(|(at, text)| json!({ "at": rfc3339(*at), "text": book.redacted(text) })),
    })
}
