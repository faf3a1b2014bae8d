//! `corten schema`: all that a configuration may say, as JSON.

use corten_component::Definition;
use corten_config::stdlib;
use corten_runtime::NodeKind;
use serde_json::{Map, Value, json};

use crate::{families, output};

pub(crate) fn main() -> Result<(), String> {
    let catalog = families::catalog();
    let of_kind = |wanted: fn(NodeKind) -> bool| -> Map<String, Value> {
        let wanted = catalog.iter().filter(|(kind, _)| wanted(*kind));
        wanted.map(|(_, definition)| (definition.name.to_owned(), entry(definition))).collect()
    };
    let mut functions: Map<String, Value> = stdlib::FUNCTIONS
        .iter()
        .map(|function| {
            let about = json!({
                "signature": function.signature,
                "doc": function.doc,
                "stability": function.stability.name(),
            });
            (function.name.to_owned(), about)
        })
        .collect();
    let aliases = stdlib::ALIASES.iter();
    functions.extend(
        aliases.map(|(alias, name)| {
            ((*alias).to_owned(), json!({ "deprecated_alias_of": name, "stability": "deprecated" }))
        }),
    );
    let constants: Vec<&str> = stdlib::CONSTANTS.iter().map(|(name, _)| *name).collect();
    let schema = json!({
        "components": of_kind(|kind| kind == NodeKind::Component),
        "config_blocks": of_kind(|kind| kind != NodeKind::Component),
        "stdlib": functions,
        "constants": constants,
    });
    let text = serde_json::to_string_pretty(&schema).map_err(|error| error.to_string())?;
    output::print(&format!("{text}\n"));
    Ok(())
}

fn entry(definition: &Definition) -> Value {
    let listing = definition.arguments.listing();
    json!({
        "stability": definition.stability.name(),
        "doc": definition.arguments.doc,
        "arguments": listing.arguments,
        "blocks": listing.blocks,
        "exports": definition.exports.exports(),
    })
}
