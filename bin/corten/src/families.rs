//! The components and blocks that the program has.

use corten_component::Definition;
use corten_runtime::{Catalog, NodeKind};

/// The components of each family.
const FAMILIES: &[&[Definition]] = &[
    corten_discovery::COMPONENTS,
    corten_exporter::COMPONENTS,
    corten_local::COMPONENTS,
    corten_loki::COMPONENTS,
    corten_otelcol::COMPONENTS,
    corten_prometheus::COMPONENTS,
    corten_remote::COMPONENTS,
];

/// All components and blocks, by their names.
pub(crate) fn catalog() -> Catalog {
    let catalog = Catalog::default()
        .with(NodeKind::ConfigBlock, corten_runtime::blocks::BLOCKS)
        .with(NodeKind::Service, corten_http::BLOCKS);
    FAMILIES.iter().fold(catalog, |catalog, family| catalog.with(NodeKind::Component, family))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_tables_of_all_components_are_in_order() {
        let catalog = catalog();
        let defects = catalog.iter().flat_map(|(_, definition)| {
            let found = [definition.arguments.defects(), definition.exports.defects()].concat();
            found.into_iter().map(|defect| format!("{}: {defect}", definition.name)).collect::<Vec<_>>()
        });
        assert_eq!(defects.collect::<Vec<_>>(), [""; 0]);
    }

    #[test]
    fn each_family_is_sorted_and_no_name_stands_twice() {
        let mut all = BTreeSet::new();
        for family in FAMILIES {
            assert!(family.is_sorted_by(|a, b| a.name < b.name), "{family:?}");
            for definition in *family {
                assert!(all.insert(definition.name), "{} stands twice", definition.name);
            }
        }
    }
}
