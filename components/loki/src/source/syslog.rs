//! `loki.source.syslog`.

mod entry;
mod listener;
mod names;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use corten_component::listen::Complaints;
use corten_component::metrics::{Counter, Registry};
use corten_component::{Component, Context, DebugInfo, Error, Health, HealthState, Task};
use corten_config::encode::Item;
use corten_config::schema::Stability;
use corten_config::{Arguments, CheckErrors, StringEnum};
use corten_net::TlsConfig;
use corten_signal::ledger::Row;
use corten_signal::relabel::RelabelRules;
use corten_signal::{Fanout, Logs, Receiver};
use parking_lot::Mutex;

use self::listener::Slot;
use super::shown::{LastError, attr, block};
use super::{OnDrop, SourceLabels};
use crate::forward::fanout;

/// Receives log entries as syslog messages over TCP and UDP, and sends them on.
///
/// What a message says of itself are internal labels, `__syslog_message_hostname` and the like, which
/// `relabel_rules` can make labels of the entry: `__syslog_connection_ip_address` and `__syslog_connection_hostname`
/// of the sender, and of the message `__syslog_message_severity`, `_facility`, `_hostname`, `_app_name`, `_proc_id`,
/// `_msg_id`, `_msg_counter`, `_sequence` and, with `label_structured_data`, `_sd_<id>_<name>`. Rules cannot drop
/// messages.
///
/// A listener that cannot listen makes the component unhealthy and tries again, while the others listen. A change of the
/// arguments leaves alone the listeners that stay as they are.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct SyslogArguments {
    /// Where to send the entries.
    forward_to: Vec<Receiver<Logs>>,
    /// Rules that make labels of internal labels, as a `loki.relabel` component exports them.
    #[arg(optional)]
    relabel_rules: RelabelRules,
    /// Where and how to listen.
    #[block(name = "listener", required)]
    listeners: Vec<ListenerArguments>,
}

impl SyslogArguments {
    fn check_build(&self, minimum: Stability) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        if minimum != Stability::Experimental {
            for listener in &self.listeners {
                let text = "\"raw\" syslog format is available only at experimental stability level";
                errors.require(listener.syslog_format != Format::Raw, &["listener"], text);
                let text = "rfc3164_cisco_components block is available only at experimental stability level";
                errors.require(listener.rfc3164_cisco_components.is_none(), &["listener"], text);
            }
        }
        errors.into_result()
    }
}

/// A listener.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct ListenerArguments {
    /// The address to listen on, `host:port`.
    address: String,
    /// The protocol to listen with: `tcp` or `udp`.
    #[arg(default = "tcp")]
    protocol: String,
    /// How long a TCP connection may be without data before it is closed.
    #[arg(default = "120s")]
    idle_timeout: Duration,
    /// Whether structured data of RFC 5424 becomes internal labels, `__syslog_message_sd_<id>_<name>`.
    #[arg(default = false)]
    label_structured_data: bool,
    /// Labels for all entries of the listener.
    #[arg(optional)]
    labels: BTreeMap<String, String>,
    /// The longest message, in bytes, whose length is announced, and the longest packet of UDP: the rest of a longer
    /// one is cut off.
    #[arg(default = 8192)]
    max_message_length: i64,
    /// What messages look like: `rfc5424`, `rfc3164`, or `raw` for lines that are taken as they are, which is
    /// experimental.
    #[arg(default = "rfc5424")]
    syslog_format: Format,
    /// Whether the time of RFC 3164, which has no year, is one of this year or a year beside it; otherwise its year
    /// is 0.
    #[arg(default = false)]
    rfc3164_default_to_current_year: bool,
    /// Whether messages of RFC 5424 that have no text are sent on; otherwise they are dropped and counted.
    #[arg(default = false)]
    rfc5424_allow_empty_msg: bool,
    /// How many packets of UDP may wait to be read.
    #[arg(default = 10)]
    udp_queue_size: i64,
    /// For how many senders over UDP the name of the host is remembered.
    #[arg(default = 128)]
    udp_host_cache_size: i64,
    /// Whether entries get the time of their message; otherwise, and where it has none, the time at which they are
    /// received.
    #[arg(default = false)]
    use_incoming_timestamp: bool,
    /// Whether the line is the whole message of RFC 5424; otherwise it is its text.
    #[arg(default = false)]
    use_rfc5424_message: bool,
    /// How lines are told apart where the format is `raw`.
    #[block]
    raw_format_options: Option<RawFormatOptions>,
    /// What Cisco's devices add to messages of RFC 3164. Experimental.
    #[block]
    rfc3164_cisco_components: Option<CiscoComponents>,
    /// TLS of a TCP listener: it has to have a certificate and a key. With certificate authorities, clients have to show a
    /// certificate of one of them. `server_name` and `insecure_skip_verify` are for clients and change nothing here.
    #[block]
    tls_config: Option<TlsConfig>,
}

/// What messages look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, StringEnum)]
#[string_enum(refusal = unknown_format)]
pub enum Format {
    /// RFC 5424.
    #[value(name = "rfc5424")]
    Rfc5424,
    /// RFC 3164.
    #[value(name = "rfc3164")]
    Rfc3164,
    /// Lines as they are.
    #[value(name = "raw")]
    Raw,
}

fn unknown_format(text: &str) -> String {
    format!("unknown syslog format: {text}")
}

/// How lines are told apart.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct RawFormatOptions {
    /// Whether a zero byte ends a line; otherwise a line end does.
    #[arg(default = false)]
    use_null_terminator_delimiter: bool,
}

/// What Cisco's devices add to messages.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct CiscoComponents {
    /// Whether there is all of it.
    #[arg(default = false)]
    enable_all: bool,
    /// Whether messages begin with a counter.
    #[arg(default = false)]
    message_counter: bool,
    /// Whether a sequence number follows.
    #[arg(default = false)]
    sequence_number: bool,
    /// Whether the name of the host stands before the time.
    #[arg(default = false)]
    hostname: bool,
    /// Whether times have fractions of seconds.
    #[arg(default = false)]
    second_fractions: bool,
}

impl CiscoComponents {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        let any =
            self.enable_all || self.message_counter || self.sequence_number || self.hostname || self.second_fractions;
        errors.require(any, &[], "at least one option in rfc3164_cisco_components has to be enabled");
        errors.into_result()
    }
}

impl ListenerArguments {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        let format = self.syslog_format;
        if !matches!(&*self.protocol, "tcp" | "udp") {
            let text = format!("syslog listener protocol should be either 'tcp' or 'udp', got {}", self.protocol);
            errors.push(&["protocol"], text);
        }
        errors.require(
            self.rfc3164_cisco_components.is_none() || format == Format::Rfc3164,
            &["rfc3164_cisco_components", "syslog_format"],
            "rfc3164_cisco_components has no effect when syslog format is not \"rfc3164\"",
        );
        let raw = format == Format::Raw;
        for (argument, is_set, refused) in [
            ("rfc5424_allow_empty_msg", self.rfc5424_allow_empty_msg, format != Format::Rfc5424),
            ("use_rfc5424_message", self.use_rfc5424_message, raw),
            ("rfc3164_default_to_current_year", self.rfc3164_default_to_current_year, raw),
            ("use_incoming_timestamp", self.use_incoming_timestamp, raw),
        ] {
            let format = format.as_str();
            let text = format!("\"{argument}\" has no effect when syslog format is set to \"{format}\"");
            errors.require(!(is_set && refused), &[argument, "syslog_format"], &text);
        }
        errors.require(
            self.raw_format_options.is_none() || raw,
            &["raw_format_options", "syslog_format"],
            "raw_format_options has no effect when syslog format is not \"raw\"",
        );
        errors.into_result()
    }
}

/// The component.
pub struct Syslog {
    shared: Arc<Shared>,
    listeners: Vec<Running>,
}

/// A listener that runs.
struct Running {
    arguments: ListenerArguments,
    task: Task,
    slot: Slot,
}

impl Running {
    /// Asks the listener to stop. Nobody takes over from it.
    fn close(&self) {
        self.slot.lock().take();
        self.task.ask_to_stop();
    }
}

/// What is to be put in place.
pub struct Prepared {
    arguments: SyslogArguments,
    settings: Settings,
}

/// What entries are sent on with, until other arguments come.
struct Settings {
    labels: SourceLabels,
    /// Whether a rule may look at the name of the sender's host, which takes time to find out.
    wants_names: bool,
    forward: Fanout<Logs>,
}

/// What all listeners share, over all changes of the arguments.
struct Shared {
    settings: Mutex<Arc<Settings>>,
    metrics: Metrics,
    complaints: Complaints,
    row: Arc<Row>,
    /// How many listeners there have been.
    started: AtomicU64,
    /// The listeners that cannot listen, and why.
    troubles: Mutex<BTreeMap<(String, u64), String>>,
    /// The listeners that run, by their numbers.
    infos: Mutex<BTreeMap<u64, Arc<ListenerInfo>>>,
    report: Box<dyn Fn(Option<Health>) + Send + Sync>,
}

/// What is told of a listener.
struct ListenerInfo {
    protocol: String,
    /// As it is configured, and then as it is.
    address: Mutex<String>,
    labels: String,
    is_ready: AtomicBool,
    /// How many connections there are.
    connections: AtomicUsize,
    last_error: LastError,
}

impl DebugInfo for Shared {
    fn debug_info(&self) -> Vec<Item> {
        let infos: Vec<Arc<ListenerInfo>> = self.infos.lock().values().cloned().collect();
        let shown = |info: Arc<ListenerInfo>| {
            let mut body = vec![
                attr("type", info.protocol.as_str()),
                attr("ready", info.is_ready.load(Ordering::Relaxed)),
                attr("listen_address", info.address.lock().as_str()),
                attr("labels", info.labels.as_str()),
            ];
            if info.protocol == "tcp" {
                body.push(attr("connections", info.connections.load(Ordering::Relaxed) as u64));
            }
            info.last_error.show(&mut body);
            block("listeners_info", body)
        };
        infos.into_iter().map(shown).collect()
    }
}

struct Metrics {
    entries: Counter,
    parsing_errors: Counter,
    empty_messages: Counter,
}

impl Metrics {
    fn new(registry: &Registry) -> Self {
        Metrics {
            entries: registry.counter(
                "loki_source_syslog_entries_total",
                "Total number of successful entries sent to the syslog target",
            ),
            parsing_errors: registry.counter(
                "loki_source_syslog_parsing_errors_total",
                "Total number of parsing errors while receiving syslog messages",
            ),
            empty_messages: registry.counter(
                "loki_source_syslog_empty_messages_total",
                "Total number of empty messages received from syslog",
            ),
        }
    }
}

impl Shared {
    fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.lock())
    }

    /// Notes why a listener cannot listen, or that it can. The number tells it from the one that it takes over from.
    fn trouble(&self, listener: &(String, u64), error: Option<String>) {
        let mut troubles = self.troubles.lock();
        match error {
            Some(error) => troubles.insert(listener.clone(), error),
            None => troubles.remove(listener),
        };
        let first = troubles.iter().next();
        let health = first.map(|((listener, _), error)| {
            Health::now(HealthState::Unhealthy, format!("cannot listen on {listener}: {error}"))
        });
        (self.report)(health);
    }
}

impl Component for Syslog {
    const NAME: &'static str = "loki.source.syslog";
    type Arguments = SyslogArguments;
    type Exports = ();
    type Prepared = Prepared;

    async fn prepare(
        arguments: SyslogArguments,
        cx: &Context<Self>,
        _: Option<&Self>,
    ) -> Result<(Prepared, ()), Error> {
        let settings = Settings {
            labels: SourceLabels::new(&arguments.relabel_rules, OnDrop::GoOn, false)?,
            wants_names: names::are_wanted(&arguments.relabel_rules),
            forward: fanout(cx, arguments.forward_to.clone()),
        };
        Ok((Prepared { arguments, settings }, ()))
    }

    fn commit(current: Option<Self>, prepared: Prepared, cx: &Context<Self>) -> Self {
        let Prepared { arguments, settings } = prepared;
        let settings = Arc::new(settings);
        let (shared, mut before) = match current {
            Some(current) => {
                *current.shared.settings.lock() = settings;
                (current.shared, current.listeners)
            }
            None => {
                let context = cx.clone();
                let shared = Shared {
                    settings: Mutex::new(settings),
                    metrics: Metrics::new(cx.metrics()),
                    complaints: Complaints::new(cx.logger().clone()),
                    row: Arc::clone(cx.ledger().row_of::<Logs>()),
                    started: AtomicU64::new(0),
                    troubles: Mutex::default(),
                    infos: Mutex::default(),
                    report: Box::new(move |health| context.report_health(health)),
                };
                let shared = Arc::new(shared);
                cx.show_debug_info(Arc::clone(&shared) as Arc<dyn DebugInfo>);
                (shared, Vec::new())
            }
        };
        let kept: Vec<_> = arguments
            .listeners
            .iter()
            .map(|listener| {
                let at = before.iter().position(|before| before.arguments == *listener);
                at.map(|at| before.swap_remove(at))
            })
            .collect();
        let slots: Vec<Slot> = arguments
            .listeners
            .iter()
            .zip(&kept)
            .map(|(listener, kept)| {
                let same = |before: &Running| {
                    kept.is_none()
                        && before.arguments.protocol == listener.protocol
                        && before.arguments.address == listener.address
                };
                let at = before.iter().position(same);
                at.map_or_else(Slot::default, |at| before.swap_remove(at).slot)
            })
            .collect();
        // What is gone is asked to stop first: another may want its address.
        before.iter().for_each(Running::close);
        drop(before);
        let listeners = arguments.listeners.into_iter().zip(kept).zip(slots).map(|((listener, kept), slot)| {
            kept.unwrap_or_else(|| {
                let (shared, arguments) = (Arc::clone(&shared), Arc::new(listener.clone()));
                let (logger, at) = (cx.logger().clone(), Arc::clone(&slot));
                let name = format!("{} {}", listener.protocol, listener.address);
                let task = cx.spawn(name, move |stop| {
                    let (shared, arguments) = (Arc::clone(&shared), Arc::clone(&arguments));
                    listener::run(shared, arguments, Arc::clone(&at), logger.clone(), stop)
                });
                Running { arguments: listener, task, slot }
            })
        });
        Syslog { listeners: listeners.collect(), shared: Arc::clone(&shared) }
    }

    async fn drain(self, _: &Context<Self>) {
        self.listeners.iter().for_each(Running::close);
        let tasks: Vec<Task> = self.listeners.into_iter().map(|listener| listener.task).collect();
        for task in tasks {
            task.stop().await;
        }
    }
}

#[cfg(test)]
mod tests;
