//! The tables as documentation, and what is wrong with wrong ones.

use std::collections::BTreeMap;

use corten_config::arguments::Record;
use corten_config::{Arguments, Exports};

use crate::example::{Config, Offer};

#[test]
fn a_schema_lists_every_attribute_with_type_default_and_documentation() {
    let listing = Config::SCHEMA.listing();
    let rows: Vec<String> = listing
        .arguments
        .iter()
        .map(|row| {
            let default = row.default.as_deref().unwrap_or("-");
            format!("{}: {} {}{default}", row.name, row.ty, if row.required { "required " } else { "" })
        })
        .collect();
    assert_eq!(
        rows,
        [
            "forward_to: list(MetricsReceiver) required -",
            "max_cache_size: uint 10000",
            "interval: duration \"15s\"",
            "jobs: list(string) [\"api\", \"web\"]",
            "workers: uint number of cores, at most 4",
            "labels: map(string) {}",
            "name: string -",
            "untimed: string \"keep\"",
            "store: object -",
            "extra: any -",
            "type: string -",
            "read_ahead: bool false",
            "url: string required -",
            "timeout: duration \"30s\"",
            "password: secret -",
        ]
    );
    let store = &listing.arguments[8];
    assert_eq!(store.object_fields.iter().map(|field| field.name).collect::<Vec<_>>(), ["path", "entries"]);
    assert_eq!(listing.arguments[7].values.iter().map(|word| word.value).collect::<Vec<_>>(), ["keep", "drop", "ask"]);
    assert_eq!(listing.arguments[1].doc, "How many label sets to remember.");
}

#[test]
fn a_schema_lists_blocks_at_every_depth_and_ends_where_it_repeats() {
    let rows: Vec<String> = Config::SCHEMA
        .listing()
        .blocks
        .iter()
        .map(|row| {
            let mut text = row.path.clone();
            text.push_str(if row.required { " required" } else { "" });
            text.push_str(if row.repeatable { " repeatable" } else { "" });
            text.push_str(if row.labeled { " labeled" } else { "" });
            text.extend(row.any_attribute.iter().map(|ty| format!(" any({ty})")));
            text.extend(row.same_groups.iter().map(|group| format!(" and {group}")));
            format!("{text}: {}", row.arguments.iter().map(|argument| argument.name).collect::<Vec<_>>().join(" "))
        })
        .collect();
    assert_eq!(
        rows,
        [
            "rule repeatable: action regex",
            "tls_config: server_name",
            "positions: path",
            "step.drop repeatable: older_than",
            "step.match repeatable and step.*: selector",
            "step.reset repeatable: ",
            "target repeatable labeled: address",
            "variables any(string): ",
        ]
    );
}

#[test]
fn a_block_within_itself_is_listed_once_more_and_no_deeper() {
    #[derive(Arguments)]
    struct Tree {
        /// A number.
        n: i64,
        /// Branches.
        #[block]
        branch: Vec<Tree>,
        /// Leaves.
        #[block]
        leaf: Vec<Leaf>,
    }
    #[derive(Arguments)]
    struct Leaf {
        /// A tree as an object.
        #[arg(optional)]
        tree: Vec<Tree>,
    }
    let listing = Tree::SCHEMA.listing();
    let rows: Vec<_> = listing.blocks.iter().map(|row| (row.path.as_str(), row.same_as.as_deref())).collect();
    assert_eq!(rows, [("branch", Some("")), ("leaf", None)]);
    assert_eq!(Tree::SCHEMA.defects(), [""; 0]);
}

#[test]
fn listings_have_the_keys_of_the_catalog() {
    let listing = serde_json::to_value(Config::SCHEMA.listing()).expect("it has no map with other keys than text");
    let first = &listing["arguments"][1];
    assert_eq!(first["name"], "max_cache_size");
    assert_eq!(first["type"], "uint");
    assert_eq!(first["default"], "10000");
    assert_eq!(first["required"], false);
    assert_eq!(first["stability"], "generally-available");
    let block = &listing["blocks"][0];
    assert_eq!(block["path"], "rule");
    assert_eq!(block["repeatable"], true);
    assert_eq!(block["arguments"][0]["name"], "action");
    let exports = serde_json::to_value(Offer::SCHEMA.exports()).expect("it has no map with other keys than text");
    assert_eq!(exports[0]["name"], "receiver");
    assert_eq!(exports[0]["type"], "MetricsReceiver");
    assert_eq!(exports[0]["doc"], "Takes samples.");
}

#[test]
fn mistakes_that_the_derive_cannot_see_are_found_in_the_tables() {
    #[derive(Arguments)]
    struct Wrong {
        /// Not a number.
        #[arg(default = "many")]
        number: i64,
        /// Stands in the flattened struct as well.
        name: String,
        #[flatten(defaults(name = "x", nothing = 1))]
        inner: Inner,
        /// Wrong at this place.
        #[block(default, defaults(count = "y"))]
        block: Inner,
        /// Has nothing to set.
        #[block(optional, defaults(a = 1))]
        map: BTreeMap<String, String>,
    }
    #[derive(Arguments)]
    struct Inner {
        /// A name.
        name: String,
        /// A number.
        count: Option<i64>,
    }
    let defects: Vec<String> =
        Wrong::SCHEMA.defects().into_iter().map(|defect| defect.replace(concat!(module_path!(), "::"), "")).collect();
    assert_eq!(
        defects,
        [
            "Wrong: the name \"name\" stands twice",
            "Wrong: default \"many\" of \"number\": should be number, got string",
            "Inner: no attribute \"nothing\" that a default could be for",
            "Inner: default \"y\" of \"count\": should be number, got string",
            "Wrong: block \"map\" takes any attributes, and has defaults",
        ]
    );
}

#[test]
fn exports_of_a_component_without_any_are_empty() {
    assert!(<()>::SCHEMA.exports().is_empty());
    #[derive(Exports)]
    struct None {}
    assert!(None::SCHEMA.exports().is_empty());
}
