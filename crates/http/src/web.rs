//! The JSON that the web interface reads.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use corten_component::log::rfc3339;
use corten_config::encode::{self, Item};
use corten_runtime::{Controller, Node};

use crate::api::{mask_debug_info, mask_items};
use crate::routes::Peer;

/// All components, without arguments and exports.
pub(crate) fn list(controller: &Controller) -> String {
    let nodes = controller.components();
    let watched = watched(&nodes);
    let components = nodes.iter().map(|node| component(controller, node, &nodes, &watched, &Bodies::default()));
    format!("[{}]", components.collect::<Vec<_>>().join(","))
}

/// One component with its arguments, exports and inner state.
pub(crate) async fn details(controller: &Controller, id: &str) -> Option<String> {
    let node = controller.component(id)?;
    let nodes = controller.components();
    let info = node.host.debug_info.lock().clone();
    let bodies = Bodies {
        arguments: mask_items(node.arguments().await, controller.secrets()),
        exports: mask_items(exports(&node), controller.secrets()),
        debug_info: mask_debug_info(info.map(|info| info.debug_info()).unwrap_or_default(), controller.secrets()),
    };
    Some(component(controller, &node, &nodes, &watched(&nodes), &bodies))
}

/// The peers of the process, which are itself.
pub(crate) fn peers(this: &Peer) -> String {
    let (name, address) = (string(&this.name), string(&this.address));
    format!(r#"[{{"name":{name},"addr":{address},"isSelf":true,"state":"participant"}}]"#)
}

#[derive(Default)]
struct Bodies {
    arguments: Vec<Item>,
    exports: Vec<Item>,
    debug_info: Vec<Item>,
}

/// What a component exports.
pub(crate) fn exports(node: &Node) -> Vec<Item> {
    let values = node.exports();
    let fields = node.definition.exports.fields.iter();
    fields
        .filter_map(|field| Some(Item::Attr { name: field.name.to_owned(), value: values.field(field.name)? }))
        .collect()
}

fn component(
    controller: &Controller,
    node: &Node,
    nodes: &[Arc<Node>],
    watched: &HashSet<Arc<str>>,
    bodies: &Bodies,
) -> String {
    // What configures the program may refer to components, too, but is none.
    let components = |ids: Vec<Arc<str>>| -> BTreeSet<String> {
        let known = |id: &Arc<str>| nodes.iter().any(|node| *node.id == **id);
        ids.into_iter().filter(known).map(|id| id.to_string()).collect()
    };
    let (module, local) = node.host.id.rsplit_once('/').unwrap_or(("", &node.host.id));
    let block = node.block();
    let label = block.label().filter(|label| !label.is_empty());
    let label = label.map_or_else(String::new, |label| format!(r#""label":{},"#, string(label)));
    let health = node.host.health.current();
    format!(
        concat!(
            r#"{{"name":{},"type":"block","localID":{},"moduleID":{},{}"#,
            r#""referencesTo":{},"referencedBy":{},"dataFlowEdgesTo":{},"#,
            r#""health":{{"state":"{}","message":{},"updatedTime":"{}"}},"#,
            r#""original":"","arguments":{},"exports":{},"debugInfo":{},"liveDebuggingEnabled":{}}}"#,
        ),
        string(node.definition.name),
        string(local),
        string(module),
        label,
        strings(&components(node.references_to())),
        strings(&components(node.referenced_by())),
        strings(&node.sends_to().iter().map(ToString::to_string).collect()),
        health.state.as_str(),
        string(&controller.secrets().redacted(&health.message)),
        rfc3339(health.updated),
        encode::json(&bodies.arguments),
        encode::json(&bodies.exports),
        encode::json(&bodies.debug_info),
        watched.contains(&*node.id),
    )
}

/// The components that data comes to or goes from.
fn watched(nodes: &[Arc<Node>]) -> HashSet<Arc<str>> {
    let mut watched = HashSet::new();
    for node in nodes {
        for (to, _) in node.data_flow() {
            watched.insert(to);
            watched.insert(node.id.as_str().into());
        }
    }
    watched
}

fn strings(texts: &BTreeSet<String>) -> String {
    format!("[{}]", texts.iter().map(|text| string(text)).collect::<Vec<_>>().join(","))
}

fn string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_peer_is_this_process() {
        let peer = Peer { name: "a\"b".to_owned(), address: "127.0.0.1:12345".to_owned() };
        assert_eq!(peers(&peer), r#"[{"name":"a\"b","addr":"127.0.0.1:12345","isSelf":true,"state":"participant"}]"#);
    }
}
