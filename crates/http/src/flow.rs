//! Which way telemetry flows between components.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use corten_config::schema::{Schema, Shape};
use corten_runtime::Node;
use corten_runtime::references::traversals;

/// For each component, the components that its telemetry or its targets go to.
///
/// A reference to a receiver sends data to the component that exports it; a reference to anything else takes a value from
/// there.
pub(crate) fn edges(nodes: &[Arc<Node>]) -> BTreeMap<String, BTreeSet<String>> {
    let by_id: BTreeMap<&str, &Arc<Node>> = nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for node in nodes {
        for traversal in traversals(&node.block()) {
            let Some((target, export)) = resolve(&traversal.names, &by_id) else { continue };
            let receiver = export.is_some_and(|name| is_receiver(target.definition.exports, name));
            let (from, to) = if receiver { (node, target) } else { (target, node) };
            edges.entry(from.id.clone()).or_default().insert(to.id.clone());
        }
    }
    edges
}

/// The component that the first names stand for, and the name of its export that follows.
fn resolve<'a>(
    names: &'a [Arc<str>],
    by_id: &BTreeMap<&str, &'a Arc<Node>>,
) -> Option<(&'a Arc<Node>, Option<&'a str>)> {
    let mut id = String::new();
    for (at, name) in names.iter().enumerate() {
        if at > 0 {
            id.push('.');
        }
        id.push_str(name);
        if let Some(node) = by_id.get(id.as_str()) {
            return Some((node, names.get(at + 1).map(|name| &**name)));
        }
    }
    None
}

/// Whether an export takes telemetry: metrics, logs, profiles, or all that OpenTelemetry has.
fn is_receiver(exports: &Schema, name: &str) -> bool {
    match exports.attr(name).map(|ty| ty.shape) {
        Some(Shape::Capsule(info)) => info.shown.ends_with("Receiver") || info.shown == "otelcol.Consumer",
        _ => false,
    }
}
