//! The resource that a target becomes.

use std::net::IpAddr;

use corten_otlp::{Arena, Map};
use corten_signal::metrics::Origin;

/// What discovery in Kubernetes says of targets, and what OpenTelemetry calls it.
const KUBERNETES: [(&str, &str); 7] = [
    ("__meta_kubernetes_namespace", "k8s.namespace.name"),
    ("__meta_kubernetes_pod_name", "k8s.pod.name"),
    ("__meta_kubernetes_pod_uid", "k8s.pod.uid"),
    ("__meta_kubernetes_pod_container_name", "k8s.container.name"),
    // Only one of the names of nodes is there.
    ("__meta_kubernetes_endpoint_node_name", "k8s.node.name"),
    ("__meta_kubernetes_node_name", "k8s.node.name"),
    ("__meta_kubernetes_pod_node_name", "k8s.node.name"),
];

/// What controls pods in Kubernetes, and what OpenTelemetry calls its name.
const CONTROLLERS: [(&str, &str); 5] = [
    ("CronJob", "k8s.cronjob.name"),
    ("DaemonSet", "k8s.daemonset.name"),
    ("Job", "k8s.job.name"),
    ("ReplicaSet", "k8s.replicaset.name"),
    ("StatefulSet", "k8s.statefulset.name"),
];

/// The attributes of the resource of series with these labels. The conventions have two names for much of it.
pub(super) fn attributes(arena: &mut Arena, job: &str, instance: &str, origin: Option<&Origin>) -> Map {
    let (host, port) = split_host_port(instance).unwrap_or((instance, ""));
    // Who was not scraped is taken to be reached by the scheme that scrapers take without being told.
    let scheme = origin.map_or("http", |origin| &origin.target.scheme);
    let mut map = Map::default();
    let mut put = |name: &str, value: &str| {
        let value = arena.own_str(value);
        arena.put(&mut map, name.as_bytes(), value);
    };
    put("service.name", job);
    if names_a_host(host) {
        put("net.host.name", host);
        put("server.address", host);
    }
    put("service.instance.id", instance);
    put("net.host.port", port);
    put("http.scheme", scheme);
    put("server.port", port);
    put("url.scheme", scheme);
    let Some(target) = origin.map(|origin| &origin.target.discovered) else { return map };
    let get = |name: &str| target.get(name).filter(|value| !value.is_empty());
    for (label, attribute) in KUBERNETES {
        if let Some(value) = get(label) {
            put(attribute, value);
        }
    }
    let controller = get("__meta_kubernetes_pod_controller_kind").zip(get("__meta_kubernetes_pod_controller_name"));
    if let Some((kind, name)) = controller
        && let Some((_, attribute)) = CONTROLLERS.iter().find(|(known, _)| *known == kind)
    {
        put(attribute, name);
    }
    map
}

/// Splits `host:port` or `[host]:port`; nothing if it is neither.
fn split_host_port(address: &str) -> Option<(&str, &str)> {
    let (host, port) = address.rsplit_once(':')?;
    let bare = match host.strip_prefix('[') {
        Some(host) => host.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    (!bare.contains(['[', ']']) && !port.contains(['[', ']'])).then_some((bare, port))
}

/// Whether a host can be told from others by its name: not the one that everybody is to themselves.
fn names_a_host(host: &str) -> bool {
    match host.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(address) => !address.is_loopback() && !address.is_unspecified(),
        Err(_) => host != "localhost",
    }
}
