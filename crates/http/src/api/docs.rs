//! What a component or block may be told, from the tables that also decode it.

use corten_config::schema::{ListedArgument, ListedBlock};
use corten_runtime::Catalog;
use serde_json::{Value, json};

/// The reference of a component or block; nothing where there is none of that name.
pub(super) fn docs(catalog: &Catalog, name: &str) -> Option<Value> {
    let (_, definition) = catalog.definition(name)?;
    let listing = definition.arguments.listing();
    let doc = definition.arguments.doc.trim();
    let exports: Vec<Value> = definition
        .exports
        .exports()
        .iter()
        .map(|export| json!({ "name": export.name, "type": export.ty, "doc": export.doc }))
        .collect();
    Some(json!({
        "name": definition.name,
        "stability": definition.stability.name(),
        "summary": doc.split("\n\n").next().unwrap_or_default(),
        "arguments": {
            "doc": doc,
            "attributes": attributes(&listing.arguments),
            "blocks": blocks(&listing.blocks, ""),
        },
        "exports": exports,
    }))
}

fn attributes(arguments: &[ListedArgument]) -> Vec<Value> {
    arguments.iter().map(attribute).collect()
}

fn attribute(argument: &ListedArgument) -> Value {
    let mut doc = argument.doc.to_owned();
    for word in &argument.values {
        doc.push_str(&format!("\n\n- `{}`: {}", word.value, word.doc));
    }
    for field in &argument.object_fields {
        doc.push_str(&format!("\n\n- `{}` ({}): {}", field.name, field.ty, field.doc));
    }
    if let Some(instead) = argument.deprecated {
        doc.push_str(&format!("\n\nDeprecated: {instead}"));
    }
    json!({
        "name": argument.name,
        "type": argument.ty,
        "required": argument.required,
        "default": argument.default,
        "doc": doc,
    })
}

/// The blocks right within a path, each with those within it.
fn blocks(all: &[ListedBlock], path: &str) -> Vec<Value> {
    let within = |block: &&ListedBlock| {
        let rest = match path {
            "" => Some(block.path.as_str()),
            path => block.path.strip_prefix(path).and_then(|rest| rest.strip_prefix(" > ")),
        };
        rest.is_some_and(|rest| !rest.contains(" > "))
    };
    all.iter().filter(within).map(|found| block(all, found)).collect()
}

fn block(all: &[ListedBlock], block: &ListedBlock) -> Value {
    let mut doc = block.doc.to_owned();
    if let Some(other) = &block.same_as {
        doc.push_str(&format!("\n\nIt takes what `{other}` takes."));
    }
    if !block.same_groups.is_empty() {
        doc.push_str(&format!("\n\nIt takes {}, too.", block.same_groups.join(", ")));
    }
    if let Some(instead) = block.deprecated {
        doc.push_str(&format!("\n\nDeprecated: {instead}"));
    }
    let mut attributes = attributes(&block.arguments);
    if let Some(ty) = &block.any_attribute {
        let any =
            json!({ "name": "*", "type": ty, "required": false, "default": null, "doc": "Attributes of any name." });
        attributes.push(any);
    }
    json!({
        "name": block.path.rsplit(" > ").next().unwrap_or_default(),
        "required": block.required,
        "many": block.repeatable,
        "doc": doc,
        "attributes": attributes,
        "blocks": blocks(all, &block.path),
    })
}
