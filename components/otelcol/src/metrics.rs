//! What the metrics of the family have in common: labels that name the part of the reference's program that exposes the
//! same.

use corten_component::metrics::{Counter, Gauge, Histogram, Registry};
use corten_component::{Component, Context};

/// The first labels of a component's metrics: what OpenTelemetry calls the component, and the scope.
pub(crate) type Labels = &'static [&'static str; 4];

/// The labels of a processor's metrics.
pub(crate) const PROCESSOR: Labels = &["processor", "otel_scope_name", "otel_scope_version", "otel_scope_schema_url"];
/// The labels of a receiver's metrics.
pub(crate) const RECEIVER: Labels = &["receiver", "otel_scope_name", "otel_scope_version", "otel_scope_schema_url"];
/// The labels of an exporter's metrics.
pub(crate) const EXPORTER: Labels = &["exporter", "otel_scope_name", "otel_scope_version", "otel_scope_schema_url"];

/// The labels of the metrics of a filter.
pub(crate) const FILTER: Labels = &["filter", "otel_scope_name", "otel_scope_version", "otel_scope_schema_url"];

/// The metrics of one component, whose first labels are of the component and of the scope.
pub(crate) struct ScopedMetrics<'a> {
    registry: &'a Registry,
    scope: &'static str,
    id: String,
}

impl<'a> ScopedMetrics<'a> {
    /// Metrics of a scope, which is a package of the reference. `kind` is what OpenTelemetry calls the component.
    pub(crate) fn new<C: Component>(cx: &'a Context<C>, scope: &'static str, kind: &str) -> Self {
        ScopedMetrics { registry: cx.metrics(), scope, id: format!("{kind}/{}", cx.id()) }
    }

    /// Metrics of a scope in a registry, whose component OpenTelemetry calls `id`.
    pub(crate) fn named(registry: &'a Registry, scope: &'static str, id: String) -> Self {
        ScopedMetrics { registry, scope, id }
    }

    /// What OpenTelemetry calls the component.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn counter(&self, name: &'static str, help: &'static str, labels: Labels) -> Counter {
        self.counter_of(name, help, labels, &[])
    }

    pub(crate) fn gauge(&self, name: &'static str, help: &'static str, labels: Labels) -> Gauge {
        self.gauge_of(name, help, labels, &[])
    }

    pub(crate) fn histogram(
        &self,
        name: &'static str,
        help: &'static str,
        labels: Labels,
        bounds: &'static [f64],
    ) -> Histogram {
        self.histogram_of(name, help, labels, &[], bounds)
    }

    /// A counter with further labels, names and values.
    pub(crate) fn counter_of(
        &self,
        name: &'static str,
        help: &'static str,
        labels: Labels,
        further: &[(&'static str, &str)],
    ) -> Counter {
        let (names, values) = self.all(labels, further);
        self.registry.counters(name, help, &names).with(&values)
    }

    /// A gauge with further labels, names and values.
    pub(crate) fn gauge_of(
        &self,
        name: &'static str,
        help: &'static str,
        labels: Labels,
        further: &[(&'static str, &str)],
    ) -> Gauge {
        let (names, values) = self.all(labels, further);
        self.registry.gauges(name, help, &names).with(&values)
    }

    /// A histogram with further labels, names and values.
    pub(crate) fn histogram_of(
        &self,
        name: &'static str,
        help: &'static str,
        labels: Labels,
        further: &[(&'static str, &str)],
        bounds: &'static [f64],
    ) -> Histogram {
        let (names, values) = self.all(labels, further);
        self.registry.histograms(name, help, &names, bounds).with(&values)
    }

    fn all<'b>(&'b self, labels: Labels, further: &[(&'static str, &'b str)]) -> (Vec<&'static str>, Vec<&'b str>) {
        let names = labels.iter().copied().chain(further.iter().map(|(name, _)| *name)).collect();
        let values =
            [&*self.id, self.scope, "", ""].into_iter().chain(further.iter().map(|(_, value)| *value)).collect();
        (names, values)
    }
}
