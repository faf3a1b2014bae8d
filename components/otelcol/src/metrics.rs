//! What the metrics of the family have in common: labels that name the part of the reference's program that exposes the
//! same.

use corten_component::metrics::{Counter, Gauge, Histogram, Registry};
use corten_component::{Component, Context};

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

    fn values(&self) -> [&str; 4] {
        [&self.id, self.scope, "", ""]
    }

    pub(crate) fn counter(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str; 4],
    ) -> Counter {
        self.registry.counters(name, help, labels).with(&self.values())
    }

    pub(crate) fn gauge(&self, name: &'static str, help: &'static str, labels: &'static [&'static str; 4]) -> Gauge {
        self.registry.gauges(name, help, labels).with(&self.values())
    }

    pub(crate) fn histogram(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str; 4],
        bounds: &'static [f64],
    ) -> Histogram {
        self.registry.histograms(name, help, labels, bounds).with(&self.values())
    }
}

/// The labels of a processor's metrics.
pub(crate) const PROCESSOR: &[&str; 4] =
    &["processor", "otel_scope_name", "otel_scope_version", "otel_scope_schema_url"];
