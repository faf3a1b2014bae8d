//! The graph: what there is, and what goes where.

use corten_component::Health;
use corten_component::log::rfc3339;
use corten_runtime::graph::role_of;
use corten_runtime::{Node, NodeKind};
use corten_signal::ledger::{EndSnapshot, LedgerSnapshot};
use serde_json::{Value, json};

use super::Own;

impl Own {
    pub(super) fn graph(&self) -> Value {
        let index = self.live.index(&self.controller);
        let loaded = self.controller.generation().borrow().1;
        let nodes: Vec<Value> = self.controller.nodes().iter().map(|node| self.node(node)).collect();
        let edges: Vec<Value> = index
            .edges
            .iter()
            .enumerate()
            .map(|(i, edge)| json!({ "i": i, "from": &*edge.from, "to": &*edge.to, "kind": edge.kind }))
            .collect();
        json!({
            "generation": index.generation,
            "loadedAt": rfc3339(loaded),
            "version": self.services.version,
            "liveDebugging": self.live_debugging(),
            "nodes": nodes,
            "edges": edges,
        })
    }

    /// Whether anybody may look at data.
    pub(super) fn live_debugging(&self) -> bool {
        *self.services.server.live_debugging.borrow()
    }

    /// What the graph shows of a component or block.
    fn node(&self, node: &Node) -> Value {
        self.node_with(node, &node.host.ledger.snapshot())
    }

    /// The same of one whose books were looked at before.
    pub(super) fn node_with(&self, node: &Node, books: &LedgerSnapshot) -> Value {
        let (module, _) = node.host.id.rsplit_once('/').unwrap_or_default();
        let block = node.block();
        let (role, kinds) = role_of(&node.definition);
        let mut kinds: Vec<&str> = kinds.into_iter().collect();
        for kind in books.rows.iter().map(|row| row.kind.as_str()) {
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        let end = |end: &EndSnapshot| json!({ "name": end.name, "url": self.secrets().redacted(&end.url), "kind": end.kind.as_str() });
        json!({
            "id": node.host.id,
            "module": module,
            "name": node.definition.name,
            "label": block.label().unwrap_or_default(),
            "kind": match node.kind {
                NodeKind::Component => "component",
                NodeKind::ConfigBlock => "config",
                NodeKind::Service => "service",
            },
            "role": role.as_str(),
            "kinds": kinds,
            "health": self.health(&node.host.health.current()),
            "file": &**block.source.name(),
            "line": block.source.line(block.span.start),
            "endLine": block.source.line(block.span.end.saturating_sub(1)),
            "ends": books.ends.iter().map(end).collect::<Vec<_>>(),
        })
    }

    pub(super) fn health(&self, health: &Health) -> Value {
        json!({
            "state": health.state.as_str(),
            "message": self.secrets().redacted(&health.message),
            "at": rfc3339(health.updated),
        })
    }
}
