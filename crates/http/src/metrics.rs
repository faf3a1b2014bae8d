//! The metrics of everything in the process, gathered when somebody asks.

use std::sync::{Arc, OnceLock, Weak};

use corten_component::metrics::{Kind, Registry, Snapshot, Value};
use corten_runtime::Controller;

/// What is known of how the program was built.
#[derive(Clone, Copy, Debug, Default)]
pub struct BuildInfo {
    /// The version, `v1.2.3`.
    pub version: &'static str,
    /// The commit.
    pub revision: &'static str,
    /// The branch.
    pub branch: &'static str,
    /// Who built it.
    pub user: &'static str,
    /// When.
    pub date: &'static str,
}

/// Gathers the metrics of the controller with all components, of the process and of the machine.
///
/// Components hold it through their services, so that it is there before the controller and does not keep it alive.
#[derive(Debug)]
pub struct Gatherer {
    build: BuildInfo,
    registry: Registry,
    controller: OnceLock<Weak<Controller>>,
}

impl Gatherer {
    /// A gatherer of what is in a registry, until it knows the controller.
    pub fn new(build: BuildInfo, registry: Registry) -> Arc<Self> {
        Arc::new(Gatherer { build, registry, controller: OnceLock::new() })
    }

    /// Adds the metrics of a controller, once.
    pub fn watch(&self, controller: &Arc<Controller>) {
        // A second controller is none of the root scope's.
        let _ = self.controller.set(Arc::downgrade(controller));
    }

    /// All metrics as they are now.
    pub fn gather(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        self.registry.gather(&[], &mut snapshot);
        if let Some(controller) = self.controller.get().and_then(Weak::upgrade) {
            controller.gather(&mut snapshot);
        }
        self.add_build(&mut snapshot);
        add_process(&mut snapshot);
        snapshot
    }

    fn add_build(&self, snapshot: &mut Snapshot) {
        let labels = [
            ("branch", self.build.branch.to_owned()),
            ("goarch", constant("arch")),
            ("goos", constant("os")),
            // What was built with another compiler has no version of Go's; the label is there for queries that list it.
            ("goversion", String::new()),
            ("revision", self.build.revision.to_owned()),
            ("tags", String::new()),
            ("version", self.build.version.to_owned()),
        ];
        let help = "A metric with a constant '1' value labeled by version, revision, branch, goversion from which alloy was \
                    built, and the goos and goarch for the build.";
        let labels = labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        snapshot.add("alloy_build_info", help, Kind::Gauge, labels, Value::Number(1.0));
    }
}

/// A constant of the language: `os`, `arch`.
pub(crate) fn constant(name: &str) -> String {
    let value = corten_config::stdlib::lookup("constants").and_then(|constants| constants.field(name));
    value.and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The metrics that client libraries have about a process, and those of the reference about the same.
fn add_process(snapshot: &mut Snapshot) {
    let process = corten_os::process::process_stats();
    let network = corten_os::process::network_stats();
    // Client libraries write "no limit" as the largest number that the system knows.
    let unlimited = |limit: f64| if limit.is_finite() { limit } else { u64::MAX as f64 };
    let rows = [
        (
            "process_cpu_seconds_total",
            "Total user and system CPU time spent in seconds.",
            Kind::Counter,
            process.cpu_seconds,
        ),
        ("process_open_fds", "Number of open file descriptors.", Kind::Gauge, process.open_files),
        (
            "process_max_fds",
            "Maximum number of open file descriptors.",
            Kind::Gauge,
            process.open_files_max.map(unlimited),
        ),
        ("process_virtual_memory_bytes", "Virtual memory size in bytes.", Kind::Gauge, process.virtual_bytes),
        (
            "process_virtual_memory_max_bytes",
            "Maximum amount of virtual memory available in bytes.",
            Kind::Gauge,
            process.virtual_bytes_max.map(unlimited),
        ),
        ("process_resident_memory_bytes", "Resident memory size in bytes.", Kind::Gauge, process.resident_bytes),
        (
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            Kind::Gauge,
            process.start_time_seconds,
        ),
        (
            "process_network_receive_bytes_total",
            "Number of bytes received by the process over the network.",
            Kind::Counter,
            process.network_received_bytes,
        ),
        (
            "process_network_transmit_bytes_total",
            "Number of bytes sent by the process over the network.",
            Kind::Counter,
            process.network_transmitted_bytes,
        ),
        (
            "alloy_resources_process_start_time_seconds",
            "Start time of the process since Unix epoch in seconds.",
            Kind::Gauge,
            process.start_time_seconds,
        ),
        (
            "alloy_resources_process_cpu_seconds_total",
            "Total user and system CPU time spent in seconds.",
            Kind::Counter,
            process.cpu_seconds,
        ),
        (
            "alloy_resources_process_resident_memory_bytes",
            "Current resident memory size in bytes.",
            Kind::Gauge,
            process.resident_bytes,
        ),
        (
            "alloy_resources_process_virtual_memory_bytes",
            "Current virtual memory size in bytes.",
            Kind::Gauge,
            process.virtual_bytes,
        ),
        (
            "alloy_resources_machine_rx_bytes_total",
            "Total bytes, host-wide, received across all network interfaces.",
            Kind::Counter,
            network.map(|network| network.received_bytes),
        ),
        (
            "alloy_resources_machine_tx_bytes_total",
            "Total bytes, host-wide, sent across all given network interface.",
            Kind::Counter,
            network.map(|network| network.transmitted_bytes),
        ),
    ];
    for (name, help, kind, value) in rows {
        if let Some(value) = value {
            snapshot.add(name, help, kind, Vec::new(), Value::Number(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_and_process_are_among_the_metrics() {
        let registry = Registry::new();
        registry.counter("own_total", "Own.").inc();
        let build = BuildInfo { version: "v1.2.3", revision: "abc", branch: "main", ..BuildInfo::default() };
        let text = Gatherer::new(build, registry).gather().to_text();
        assert!(text.contains("own_total 1\n"), "{text}");
        let labels = format!("goos=\"{}\",goversion=\"\",revision=\"abc\",tags=\"\",version=\"v1.2.3\"}} 1", {
            if cfg!(target_os = "macos") { "darwin" } else { std::env::consts::OS }
        });
        assert!(text.contains(&labels), "{text}");
        #[cfg(target_os = "linux")]
        for name in ["process_resident_memory_bytes ", "process_open_fds ", "alloy_resources_machine_rx_bytes_total "] {
            assert!(text.lines().any(|line| line.starts_with(name)), "{name}: {text}");
        }
    }
}
