//! One component with all that is known of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use corten_component::metrics::{Kind, Label, Snapshot, Value as MetricValue};
use corten_config::encode::Item;
use corten_runtime::{Controller, Node};
use serde_json::{Map, Value, json};

use super::{Own, balance, body, millis};
use crate::web;

/// How long a component whose arguments are being changed is waited for.
const ARGUMENTS_WAIT: Duration = Duration::from_secs(1);

impl Own {
    pub(super) async fn component(&self, node: &Arc<Node>) -> Value {
        let nodes = self.controller.nodes();
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
        let into: Vec<Value> = nodes
            .iter()
            .flat_map(|other| other.host.ledger.edges())
            .filter(|edge| **edge.to() == *node.host.id)
            .map(|edge| balance::edge(&edge.snapshot()))
            .collect();
        let senders = nodes.iter().filter(|other| other.data_flow().iter().any(|(to, _)| **to == *node.id));
        let mut value = self.node_with(node, &books);
        let secrets = self.secrets();
        let more = json!({
            "source": self.controller.shown_block(node),
            "arguments": body::body(arguments, secrets),
            "exports": body::body(web::exports(node), secrets),
            "references": texts(node.references_to()),
            "referencedBy": texts(node.referenced_by()),
            "sendsTo": ids(node.data_flow().iter().map(|(to, _)| to.to_string()).collect()),
            "receivesFrom": ids(senders.map(|sender| sender.id.clone()).collect()),
            "healthHistory": node.host.health.history().iter().map(|health| self.health(health)).collect::<Vec<_>>(),
            "debugInfo": body::body(body::mask_debug_info(info, secrets), secrets),
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
