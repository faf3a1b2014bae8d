//! The flags of `corten run`.
//!
//! A flag of the reference is accepted when this program does what it asks for, and refused when it asks for what the
//! program does not have. None is accepted and ignored but those that ask for nothing.

use std::path::PathBuf;
use std::time::Duration;

use clap::ArgMatches;
use clap::parser::ValueSource;
use corten_config::duration;
use corten_config::schema::Stability;
use corten_http::Graphql;
use corten_syntax::quote;

use crate::cli::{stability, truth};
use crate::{output, version};

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlagKind {
    Text,
    Truth,
    Duration,
    Count,
    Bytes,
    Stability,
    /// A truth value that nobody asks for any more.
    NoEffect,
}

/// A flag.
#[derive(Debug)]
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    pub(crate) kind: FlagKind,
    pub(crate) default: &'static str,
    pub(crate) help: &'static str,
}

const fn flag(name: &'static str, kind: FlagKind, default: &'static str, help: &'static str) -> Flag {
    Flag { name, kind, default, help }
}

/// All flags of `corten run`, sorted by name.
pub(crate) const FLAGS: &[Flag] = &[
    flag("cluster.advertise-address", FlagKind::Text, "", "Address by which other nodes reach this one"),
    flag("cluster.advertise-interfaces", FlagKind::Text, "eth0,en0", "Interfaces whose address is advertised"),
    flag("cluster.discover-peers", FlagKind::Text, "", "Where to look for peers"),
    flag("cluster.enable-tls", FlagKind::Truth, "false", "Whether peers talk over TLS"),
    flag("cluster.enabled", FlagKind::Truth, "false", "Whether to form a cluster; not implemented"),
    flag("cluster.join-addresses", FlagKind::Text, "", "Peers to join, separated by commas"),
    flag("cluster.max-join-peers", FlagKind::Count, "5", "How many peers to join at a time"),
    flag("cluster.name", FlagKind::Text, "", "The name that all nodes of a cluster have"),
    flag("cluster.node-name", FlagKind::Text, "", "The name of this node; the host's by default"),
    flag("cluster.rejoin-interval", FlagKind::Duration, "60s", "How often to join again"),
    flag("cluster.tls-ca-path", FlagKind::Text, "", "The certificate authority of peers"),
    flag("cluster.tls-cert-path", FlagKind::Text, "", "The certificate shown to peers"),
    flag("cluster.tls-key-path", FlagKind::Text, "", "The key of the certificate shown to peers"),
    flag("cluster.tls-server-name", FlagKind::Text, "", "The name that peers' certificates have"),
    flag("cluster.use-discovery-v1", FlagKind::NoEffect, "false", "No effect"),
    flag("cluster.wait-for-size", FlagKind::Count, "0", "How many nodes to wait for"),
    flag("cluster.wait-timeout", FlagKind::Duration, "0", "How long to wait for nodes"),
    flag(
        "config.bypass-conversion-errors",
        FlagKind::Truth,
        "false",
        "Whether to load what could not be converted whole",
    ),
    flag("config.extra-args", FlagKind::Text, "", "Arguments of the format that is converted"),
    flag("config.format", FlagKind::Text, "alloy", "The format of the configuration; only alloy is implemented"),
    flag("disable-reporting", FlagKind::Truth, "false", "Whether to report no usage; none is ever reported"),
    flag(
        "feature.community-components.enabled",
        FlagKind::Truth,
        "false",
        "Whether components of the community may be used; there are none yet",
    ),
    flag(
        "feature.component-shutdown-deadline",
        FlagKind::Duration,
        "10m",
        "How long components may take to end; 0 sets no limit",
    ),
    flag(
        "feature.prometheus.direct-fanout.enabled",
        FlagKind::Truth,
        "false",
        "Whether samples go from component to component without a store of labels, which they always do",
    ),
    flag("feature.prometheus.metric-validation-scheme", FlagKind::NoEffect, "false", "No effect"),
    flag(
        "server.http.allowed-hosts",
        FlagKind::Text,
        "",
        "Names by which the web interface is reached besides localhost and the host's, as through a proxy, separated by \
         commas; * allows all",
    ),
    flag(
        "server.http.disable-ledger-metrics",
        FlagKind::Truth,
        "false",
        "Whether to leave out of the metrics what became of every item: some ten lines for each way between two components",
    ),
    flag("server.http.disable-support-bundle", FlagKind::Truth, "false", "Whether to refuse to make support bundles"),
    flag(
        "server.http.enable-graphql",
        FlagKind::Truth,
        "false",
        "Whether to answer queries of GraphQL, at /graphql below the prefix of the web interface",
    ),
    flag(
        "server.http.enable-graphql-playground",
        FlagKind::Truth,
        "false",
        "Whether to serve a page to try such queries on, at /graphql/playground",
    ),
    flag(
        "server.http.enable-pprof",
        FlagKind::Truth,
        "true",
        "Whether to serve profiles in the reference's form; there are none",
    ),
    flag("server.http.listen-addr", FlagKind::Text, "127.0.0.1:12345", "Address to listen at for HTTP"),
    flag(
        "server.http.memory-addr",
        FlagKind::Text,
        "alloy.internal:12345",
        "Address by which components reach the HTTP server within the process",
    ),
    flag("server.http.ui-path-prefix", FlagKind::Text, "/", "Prefix of the paths of the web interface"),
    flag(
        "stability.level",
        FlagKind::Stability,
        "generally-available",
        "The least stable features to allow: experimental, public-preview or generally-available",
    ),
    flag("storage.path", FlagKind::Text, "data-alloy/", "Folder for data"),
    flag(
        "storage.queue.max-bytes",
        FlagKind::Bytes,
        "",
        "The most bytes that the queue of one sink may occupy on disk, as 10GiB; by default 5GiB, at most a tenth of the free space",
    ),
    flag("windows.priority", FlagKind::Text, "normal", "The priority of the process on Windows"),
];

/// The flags that need the experimental level when they are on.
const EXPERIMENTAL: &[&str] = &[
    "feature.prometheus.direct-fanout.enabled",
    "server.http.enable-graphql",
    "server.http.enable-graphql-playground",
];

/// What is said of a flag that nobody asks for any more, in the words of the reference.
const NO_EFFECT: &str = "This flag is deprecated and has no effect.";

/// What `corten run` was asked to do.
#[derive(Debug)]
pub(crate) struct RunOptions {
    pub(crate) path: PathBuf,
    pub(crate) storage_path: PathBuf,
    pub(crate) listen_address: String,
    pub(crate) memory_address: String,
    pub(crate) allowed_hosts: Vec<String>,
    pub(crate) ui_path_prefix: String,
    /// The flags with their values, for support bundles; nothing where those are not wanted.
    pub(crate) support_bundle: Option<Vec<String>>,
    pub(crate) graphql: Option<Graphql>,
    pub(crate) ledger_metrics: bool,
    pub(crate) stability: Stability,
    pub(crate) shutdown_deadline: Duration,
    pub(crate) queue_bytes_max: Option<u64>,
    pub(crate) node_name: String,
    /// The address by which others reach this node; its port is added where it has none.
    pub(crate) advertise_address: Option<String>,
}

/// Reads the flags.
pub(crate) fn options(matches: &ArgMatches, path: &str) -> Result<RunOptions, String> {
    for flag in FLAGS.iter().filter(|flag| flag.kind == FlagKind::NoEffect) {
        if matches.value_source(flag.name) == Some(ValueSource::CommandLine) {
            output::error(&format!("Flag --{} has been deprecated, {NO_EFFECT}\n", flag.name));
        }
    }
    if path.is_empty() {
        return Err("path argument not provided".to_owned());
    }
    let level = stability(matches)?;
    for name in EXPERIMENTAL {
        if truth(matches, name) && level > Stability::Experimental {
            return Err(format!(
                "'--{name}' can only be used at experimental stability level. Use --stability.level=experimental to enable."
            ));
        }
    }
    if truth(matches, "cluster.enabled") {
        return Err("--cluster.enabled is not implemented".to_owned());
    }
    let (graphql, playground) =
        (truth(matches, "server.http.enable-graphql"), truth(matches, "server.http.enable-graphql-playground"));
    if playground && !graphql {
        output::error(
            "Flag --server.http.enable-graphql-playground has no effect without --server.http.enable-graphql\n",
        );
    }
    check_config_format(matches)?;
    let text = |name: &str| matches.get_one::<String>(name).cloned().unwrap_or_default();
    if text("windows.priority") != "normal" {
        return Err("--windows.priority is only available on Windows".to_owned());
    }
    let (join, discover) = (text("cluster.join-addresses"), text("cluster.discover-peers"));
    if !join.is_empty() && !discover.is_empty() {
        let join: Vec<String> = join.split(',').map(quote).collect();
        return Err(format!(
            "at most one of join peers and discover peers may be set, got join peers [{}] and discover peers {}",
            join.join(" "),
            quote(&discover)
        ));
    }
    let deadline = matches.get_one::<i64>("feature.component-shutdown-deadline").copied().unwrap_or_default();
    let deadline =
        u64::try_from(deadline).map_err(|_| "--feature.component-shutdown-deadline must not be negative".to_owned())?;
    let or = |value: String, default: fn() -> String| if value.is_empty() { default() } else { value };
    Ok(RunOptions {
        path: PathBuf::from(path),
        storage_path: PathBuf::from(text("storage.path")),
        listen_address: text("server.http.listen-addr"),
        memory_address: text("server.http.memory-addr"),
        allowed_hosts: allowed_hosts(&text("server.http.allowed-hosts"))?,
        ui_path_prefix: text("server.http.ui-path-prefix"),
        support_bundle: (!truth(matches, "server.http.disable-support-bundle")).then(|| values(matches)),
        graphql: graphql.then_some(Graphql { playground }),
        ledger_metrics: !truth(matches, "server.http.disable-ledger-metrics"),
        stability: level,
        shutdown_deadline: Duration::from_nanos(deadline),
        queue_bytes_max: matches.get_one::<u64>("storage.queue.max-bytes").copied(),
        node_name: or(text("cluster.node-name"), || version::constant("hostname")),
        advertise_address: Some(text("cluster.advertise-address")).filter(|address| !address.is_empty()),
    })
}

/// All flags with their values, as `name=value`.
fn values(matches: &ArgMatches) -> Vec<String> {
    let value = |flag: &Flag| match flag.kind {
        FlagKind::Truth | FlagKind::NoEffect => truth(matches, flag.name).to_string(),
        FlagKind::Duration => matches.get_one::<i64>(flag.name).copied().map(duration::format).unwrap_or_default(),
        FlagKind::Text | FlagKind::Count | FlagKind::Bytes | FlagKind::Stability => {
            let given = matches.get_raw(flag.name).and_then(Iterator::last);
            given.map_or_else(String::new, |text| text.to_string_lossy().into_owned())
        }
    };
    FLAGS.iter().map(|flag| format!("{}={}", flag.name, value(flag))).collect()
}

/// Reads the names by which the program may be reached.
fn allowed_hosts(text: &str) -> Result<Vec<String>, String> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    let strange = |name: &&str| *name != "*" && name.contains(['*', '/', '@', ' ']);
    match names.clone().find(strange) {
        Some(name) => Err(format!("--server.http.allowed-hosts: {} is not the name of a host", quote(name))),
        None => Ok(names.map(str::to_owned).collect()),
    }
}

/// Refuses formats that cannot be loaded.
pub(crate) fn check_config_format(matches: &ArgMatches) -> Result<(), String> {
    match matches.get_one::<String>("config.format").map(String::as_str) {
        None | Some("alloy") => Ok(()),
        Some(format @ ("otelcol" | "prometheus" | "promtail" | "static")) => {
            Err(format!("--config.format={format} is not implemented, only alloy is"))
        }
        Some(format) => Err(format!("unrecognized config format {}", quote(format))),
    }
}
