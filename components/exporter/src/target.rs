//! The targets under which exporters are scraped.

use corten_component::{Component, Context, Error};
use corten_config::Exports;
use corten_signal::target::Target;

/// What others can refer to.
#[derive(Exports, Clone, Debug, PartialEq)]
pub struct ExporterExports {
    /// The targets to scrape.
    targets: Vec<Target>,
}

impl ExporterExports {
    /// The one target of an exporter: `name` is what its job is called by, and `instance` what is exported.
    ///
    /// # Errors
    ///
    /// When the labels are longer than a target's may be.
    pub(crate) fn of<C: Component>(cx: &Context<C>, name: &str, instance: &str) -> Result<Self, Error> {
        let id = cx.id();
        // A component without a label has its name for an id.
        let component = if id == C::NAME { id } else { id.rsplit_once('.').map_or(id, |(component, _)| component) };
        let target = Target::new([
            ("__address__", cx.services().memory_address.as_str()),
            ("__meta_component_id", id),
            ("__meta_component_name", component),
            ("__metrics_path__", &format!("/api/v0/component/{id}/metrics")),
            ("__scheme__", "http"),
            ("instance", if instance.is_empty() { "unknown" } else { instance }),
            ("job", &format!("integrations/{name}")),
        ]);
        Ok(ExporterExports { targets: vec![target.map_err(|error| Error::new(error.to_string()))?] })
    }
}

/// The instance of what exports the machine or the process: its name in the environment, or else the system's.
pub(crate) fn host_instance() -> String {
    let from_environment = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty());
    from_environment.or_else(corten_os::host::hostname).unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use corten_config::Exports as _;
    use corten_testkit::{host, labels};

    use super::*;
    use crate::self_::SelfExporter;

    #[test]
    fn a_target_leads_to_the_component() {
        for (id, name) in [
            ("prometheus.exporter.self.a", "prometheus.exporter.self"),
            ("mod.x.y/prometheus.exporter.self.a", "mod.x.y/prometheus.exporter.self"),
            ("prometheus.exporter.self", "prometheus.exporter.self"),
        ] {
            let world = host(id);
            let exports = ExporterExports::of(&world.context::<SelfExporter>(), "self", "here").unwrap();
            let targets = exports.to_value().field("targets").unwrap();
            let address = &world.host().services.memory_address;
            let expected = format!(
                "__address__={address} __meta_component_id={id} __meta_component_name={name} \
                 __metrics_path__=/api/v0/component/{id}/metrics __scheme__=http instance=here job=integrations/self"
            );
            assert_eq!(labels(&targets), [expected]);
        }
    }

    #[test]
    fn the_host_has_a_name() {
        let expected =
            std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty()).or_else(corten_os::host::hostname);
        assert_eq!(Some(host_instance()), expected.or_else(|| Some("unknown".to_owned())));
    }
}
