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
        .with(NodeKind::Service, corten_http::BLOCKS)
        .with(NodeKind::Service, corten_runtime::blocks::SERVICES);
    FAMILIES.iter().fold(catalog, |catalog, family| catalog.with(NodeKind::Component, family))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use corten_runtime::graph::role_of;

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
    fn what_a_component_does_with_data_is_told_by_its_tables() {
        let catalog = catalog();
        for (name, role, kinds) in [
            ("discovery.http", "source", &["target"][..]),
            ("discovery.relabel", "stage", &["target"]),
            ("http", "value", &[]),
            ("local.file", "value", &[]),
            ("logging", "source", &["loki_log"]),
            ("loki.process", "stage", &["loki_log"]),
            ("loki.source.file", "source", &["loki_log", "target"]),
            ("loki.write", "sink", &["loki_log"]),
            ("otelcol.auth.basic", "value", &[]),
            ("otelcol.connector.spanmetrics", "stage", &["otel_log", "otel_metric", "otel_trace"]),
            ("otelcol.exporter.otlp", "sink", &["otel_log", "otel_metric", "otel_trace"]),
            ("otelcol.exporter.prometheus", "stage", &["otel_log", "otel_metric", "otel_trace", "prometheus_metric"]),
            ("otelcol.processor.batch", "stage", &["otel_log", "otel_metric", "otel_trace"]),
            ("otelcol.receiver.loki", "stage", &["loki_log", "otel_log", "otel_metric", "otel_trace"]),
            ("otelcol.receiver.otlp", "source", &["otel_log", "otel_metric", "otel_trace"]),
            ("prometheus.exporter.self", "source", &["target"]),
            ("prometheus.relabel", "stage", &["prometheus_metric"]),
            ("prometheus.remote_write", "sink", &["prometheus_metric"]),
            ("prometheus.scrape", "source", &["prometheus_metric", "target"]),
        ] {
            let (_, definition) = catalog.get(name).unwrap_or_else(|| panic!("there is no {name}"));
            let (found, carried) = role_of(definition);
            assert_eq!((found.as_str(), carried.into_iter().collect::<Vec<_>>()), (role, kinds.to_vec()), "{name}");
        }
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
