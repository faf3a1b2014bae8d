//! One component with all that is known of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use corten_component::metrics::{Kind, Label, Snapshot, Value as MetricValue};
use corten_config::encode::Item;
use corten_runtime::{Controller, Node};
use corten_signal::ledger::Edge;
use serde_json::{Map, Value, json};

use super::{Own, balance, body, millis};
use crate::web;

/// How long a component whose arguments are being changed is waited for.
const ARGUMENTS_WAIT: Duration = Duration::from_secs(1);

/// What comes to whom: gathered once, however many are asked about then.
#[derive(Default)]
pub(super) struct Arrivals {
    edges: HashMap<Arc<str>, Vec<Arc<Edge>>>,
    senders: HashMap<Arc<str>, Vec<String>>,
}

impl Arrivals {
    pub(super) fn of(nodes: &[Arc<Node>]) -> Self {
        Self::gathered(nodes.iter().map(|node| (&*node.id, node.host.ledger.edges(), node.data_flow())))
    }

    /// Of the id of each node, its ways out, and where its data goes.
    fn gathered<'n>(
        nodes: impl IntoIterator<Item = (&'n str, Vec<Arc<Edge>>, BTreeSet<(Arc<str>, &'static str)>)>,
    ) -> Self {
        let mut arrivals = Arrivals::default();
        for (id, edges, flow) in nodes {
            for edge in edges {
                arrivals.edges.entry(Arc::clone(edge.to())).or_default().push(edge);
            }
            for (to, _) in flow {
                arrivals.senders.entry(to).or_default().push(id.to_owned());
            }
        }
        arrivals
    }
}

impl Own {
    /// One component with all that is known of it; `arrivals` are those of all.
    pub(super) async fn component(&self, node: &Arc<Node>, arrivals: &Arrivals) -> Value {
        let arguments = tokio::time::timeout(ARGUMENTS_WAIT, node.arguments()).await;
        let arguments: Vec<Item> = arguments.unwrap_or_default();
        let info = node.host.debug_info.lock().clone();
        let info = info.map(|info| info.debug_info()).unwrap_or_default();
        let ids = |mut ids: Vec<String>| {
            ids.sort();
            ids.dedup();
            ids
        };
        let texts = |of: Vec<Arc<str>>| ids(of.iter().map(ToString::to_string).collect());
        let books = node.host.ledger.snapshot();
        let into = arrivals.edges.get(&*node.host.id).into_iter().flatten();
        let into: Vec<Value> = into.map(|edge| balance::edge(&edge.snapshot())).collect();
        let senders = arrivals.senders.get(&*node.id).cloned().unwrap_or_default();
        let mut value = self.node_with(node, &books);
        let secrets = self.secrets();
        let more = json!({
            "source": self.controller.shown_block(node),
            "arguments": body::body(arguments, secrets),
            "exports": body::body(web::exports(node), secrets),
            "references": texts(node.references_to()),
            "referencedBy": texts(node.referenced_by()),
            "sendsTo": ids(node.data_flow().iter().map(|(to, _)| to.to_string()).collect()),
            "receivesFrom": ids(senders),
            "healthHistory": node.host.health.history().iter().map(|health| self.health(health)).collect::<Vec<_>>(),
            "debugInfo": body::state(info, secrets),
            "rows": balance::used_rows(&books.rows),
            "edgesIn": into,
            "edgesOut": books.edges.iter().map(balance::edge).collect::<Vec<_>>(),
            "ends": books.ends.iter().map(|end| balance::end(&books.component, end, secrets)).collect::<Vec<_>>(),
            "liveDebugging": self.live_debugging(),
        });
        if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
            value.extend(more);
        }
        value
    }
}

/// The metrics of a component, and what its books say.
pub(super) fn metrics(controller: &Controller, node: &Node) -> Value {
    let mut snapshot = Snapshot::default();
    controller.gather_component(node, &mut snapshot);
    let families: Vec<Value> = snapshot
        .families()
        .map(|family| {
            let ty = match family.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
                Kind::Summary => "summary",
            };
            let series: Vec<Value> = family.metrics.iter().map(|(labels, value)| series(labels, value)).collect();
            json!({ "name": family.name, "help": family.help, "type": ty, "series": series })
        })
        .collect();
    json!({ "t": millis(SystemTime::now()), "families": families })
}

fn series(labels: &[Label], value: &MetricValue) -> Value {
    let labels: Map<String, Value> = labels.iter().map(|(name, value)| (name.to_string(), (&**value).into())).collect();
    let mut out = BTreeMap::from([("labels", Value::Object(labels))]);
    // What JSON has no number for is `null`.
    match value {
        MetricValue::Number(number) => _ = out.insert("value", json!(number)),
        MetricValue::Histogram { buckets, sum, count } => {
            out.insert("value", json!(count));
            out.insert("sum", json!(sum));
            let bound = |bound: f64| if bound.is_finite() { bound.to_string() } else { "+Inf".to_owned() };
            out.insert("buckets", buckets.iter().map(|(upper, count)| json!([bound(*upper), count])).collect());
        }
        MetricValue::Summary { quantiles, sum, count } => {
            out.insert("value", json!(count));
            out.insert("sum", json!(sum));
            out.insert("buckets", quantiles.iter().map(|(at, value)| json!([at.to_string(), value])).collect());
        }
    }
    json!(out)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use corten_signal::ledger::Ledger;
    use corten_signal::{Fanout, Inlet, Logs};

    use super::*;

    #[test]
    fn what_comes_to_whom_is_asked_once_of_each() {
        let ledgers: Vec<Arc<Ledger>> = ["a", "b", "c"].map(Ledger::new).into();
        let inlets: Vec<Inlet<Logs>> = ledgers.iter().map(|ledger| Inlet::of(ledger)).collect();
        // Each sends to itself and to those after it.
        let fanouts: Vec<Fanout<Logs>> =
            (0..3).map(|at| Fanout::of(&ledgers[at], inlets[at..].iter().map(Inlet::receiver))).collect();
        let asked = Cell::new(0);
        let nodes = ledgers.iter().enumerate().map(|(at, ledger)| {
            asked.set(asked.get() + 1);
            let flow = ledgers[at..].iter().map(|to| (Arc::clone(to.component()), "loki_log")).collect();
            (&**ledger.component(), ledger.edges(), flow)
        });
        let arrivals = Arrivals::gathered(nodes);
        for (to, froms) in [("a", vec!["a"]), ("b", vec!["a", "b"]), ("c", vec!["a", "b", "c"])] {
            let edges: Vec<&str> = arrivals.edges[to].iter().map(|edge| &**edge.from()).collect();
            assert_eq!(
                (edges, &arrivals.senders[to]),
                (froms.clone(), &froms.iter().map(ToString::to_string).collect())
            );
        }
        assert_eq!(asked.get(), 3);
        drop(fanouts);
    }
}
