//! `loki.source.docker`.

mod tailer;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use corten_component::metrics::Counter;
use corten_component::targets::{LastTime, ShownTarget, TargetState, TargetView};
use corten_component::task::Stopper;
use corten_component::{Component, Context, DebugInfo, Error, Logger, Stop, Task};
use corten_config::encode::Item;
use corten_config::{Arguments, CheckErrors, Exports};
use corten_net::{Client, ClientConfig, ClientOptions};
use corten_signal::ledger::Row;
use corten_signal::relabel::RelabelRules;
use corten_signal::target::Target;
use corten_signal::{Fanout, LabelsBuilder, Logs, Receiver, Stream};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::tailer::Tailer;
use super::cursors::{Cursors, key};
use super::shown::{LastError, attr, block, time_ns};
use super::{OnDrop, SourceLabels};
use crate::forward::fanout;

/// The label that says which container a target is of.
const ID_LABEL: &str = "__meta_docker_container_id";

/// The label with the name of the stream, `stdout` or `stderr`.
const STREAM_LABEL: &str = "__meta_docker_container_log_stream";

/// How often places are saved.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// Containers that are followed.
const CONTAINERS_MAX: usize = 10_000;

/// Reads the logs of Docker containers from the daemon, and sends them on.
///
/// Targets come from `discovery.docker`, or name a container in the label `__meta_docker_container_id`; of several targets of one
/// container, as there is one for each port, one counts. The labels of a line are those of its target and of `labels`, with
/// `__meta_docker_container_log_stream`, which is `stdout` or `stderr`, as `relabel_rules` leave them; those whose names begin
/// with `__` are taken away. Where reading has come to is kept in the component's folder, and moves on when all components
/// behind have the lines safe.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Config {
    /// The address of the daemon, `unix:///var/run/docker.sock`, `tcp://…`, `http://…` or `https://…`.
    host: String,
    /// The containers.
    targets: Vec<Target>,
    /// Where to send the lines.
    forward_to: Vec<Receiver<Logs>>,
    /// Labels to set on all lines.
    #[arg(optional)]
    labels: BTreeMap<String, String>,
    /// Rules that rewrite the labels of lines, as a `loki.relabel` component exports them.
    #[arg(optional)]
    relabel_rules: RelabelRules,
    /// How to connect, where the address begins with `http://`, `https://` or `tcp://`.
    #[block(default)]
    http_client_config: ClientConfig,
    /// How long the daemon may take to answer.
    #[arg(default = "60s")]
    refresh_interval: Duration,
}

/// Nothing.
#[derive(Exports, Clone, Debug, PartialEq)]
pub struct Offer {}

impl Config {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        let positive = !self.refresh_interval.is_zero();
        errors.require(positive, &["refresh_interval"], "refresh_interval must be positive, got \"0s\"");
        if let Err(error) = Daemon::of(&self.host) {
            errors.push(&["host"], error);
        }
        errors.into_result()
    }
}

/// Where the daemon is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Daemon {
    /// What paths are put behind.
    base: String,
    socket: Option<PathBuf>,
}

impl Daemon {
    fn of(host: &str) -> Result<Self, String> {
        let bad = || format!("unable to parse docker host `{host}`");
        let (scheme, rest) = host.split_once("://").filter(|(_, rest)| !rest.is_empty()).ok_or_else(bad)?;
        match scheme {
            "unix" => Ok(Daemon { base: "http://localhost".to_owned(), socket: Some(PathBuf::from(rest)) }),
            "http" | "https" | "tcp" => {
                let scheme = if scheme == "https" { "https" } else { "http" };
                let base = format!("{scheme}://{}", rest.trim_end_matches('/'));
                let parsed =
                    base.parse::<http::Uri>().ok().filter(|uri| uri.host().is_some_and(|host| !host.is_empty()));
                parsed.map(|_| Daemon { base, socket: None }).ok_or_else(bad)
            }
            _ => Err(format!("docker host `{host}`: protocol {scheme:?} is not supported")),
        }
    }
}

/// The component.
#[derive(Debug)]
pub struct Docker {
    settings: watch::Sender<Arc<Settings>>,
    connection: Arc<Connection>,
    task: Task,
}

/// What is to be put in place.
#[derive(Debug)]
pub struct Prepared {
    settings: Settings,
    /// At the first time.
    cursors: Option<Cursors>,
}

/// What lines are read with.
#[derive(Debug)]
struct Settings {
    forward: Fanout<Logs>,
    connection: Arc<Connection>,
    containers: Vec<Container>,
    /// What the containers were taken from.
    targets: Vec<Target>,
}

/// How the daemon is spoken to.
#[derive(Debug)]
struct Connection {
    daemon: Daemon,
    config: ClientConfig,
    answer_wait_max: Duration,
    client: Client,
}

/// A container that is to be read, and the streams of its two outputs.
#[derive(Clone, Debug)]
struct Container {
    id: String,
    /// The labels as the reference writes them into its positions.
    known_as: String,
    stdout: Stream,
    stderr: Stream,
}

impl Container {
    fn is(&self, other: &Container) -> bool {
        self.id == other.id && self.stdout.same(&other.stdout) && self.stderr.same(&other.stderr)
    }
}

impl Component for Docker {
    const NAME: &'static str = "loki.source.docker";
    type Arguments = Config;
    type Exports = Offer;
    type Prepared = Prepared;

    async fn prepare(config: Config, cx: &Context<Self>, current: Option<&Self>) -> Result<(Prepared, Offer), Error> {
        let mut cursors = None;
        if current.is_none() {
            let folder = cx.data_dir();
            let loading = tokio::task::spawn_blocking(move || Cursors::load(&folder));
            cursors = Some(loading.await.map_err(|error| Error::new(error.to_string()))??);
        }
        let daemon = Daemon::of(&config.host)?;
        let answer_wait_max = config.refresh_interval;
        let kept = current.map(|current| &current.connection).filter(|known| {
            known.daemon == daemon
                && known.config == config.http_client_config
                && known.answer_wait_max == answer_wait_max
        });
        let connection = match kept {
            Some(known) => Arc::clone(known),
            None => Arc::new(Connection::new(daemon, config.http_client_config, answer_wait_max, cx).await?),
        };
        let containers = containers(&config.targets, &config.labels, &config.relabel_rules)?;
        let (forward, targets) = (fanout(cx, config.forward_to), config.targets);
        let settings = Settings { forward, connection, containers, targets };
        Ok((Prepared { settings, cursors }, Offer {}))
    }

    fn commit(current: Option<Self>, prepared: Prepared, cx: &Context<Self>) -> Self {
        let connection = Arc::clone(&prepared.settings.connection);
        let settings = Arc::new(prepared.settings);
        if let Some(current) = current {
            current.settings.send_replace(settings);
            return Docker { connection, ..current };
        }
        let (sender, receiver) = watch::channel(settings);
        let registry = cx.metrics();
        let shared = Arc::new(Shared {
            cursors: Mutex::new(prepared.cursors.unwrap_or_default()),
            entries: registry.counter(
                "loki_source_docker_target_entries_total",
                "Total number of successful entries sent to the Docker target",
            ),
            errors: registry.counter(
                "loki_source_docker_target_parsing_errors_total",
                "Total number of parsing errors while receiving Docker messages",
            ),
            logger: cx.logger().clone(),
            row: Arc::clone(cx.ledger().row_of::<Logs>()),
            infos: Mutex::default(),
            targets: Mutex::default(),
        });
        cx.show_debug_info(Arc::clone(&shared) as Arc<dyn DebugInfo>);
        let task = cx.spawn("containers", move |stop| run(Arc::clone(&shared), receiver.clone(), stop));
        Docker { settings: sender, connection, task }
    }

    async fn drain(self, _: &Context<Self>) {
        self.task.stop().await;
    }
}

impl Connection {
    async fn new(
        daemon: Daemon,
        config: ClientConfig,
        answer_wait_max: Duration,
        cx: &Context<Docker>,
    ) -> Result<Self, Error> {
        let services = cx.services();
        let user_agent = services.user_agent.parse().map_err(|_| Error::new("user agent is no header"))?;
        let options = ClientOptions {
            user_agent,
            dialer: Some(Arc::clone(&services.dialer)),
            unix_socket: daemon.socket.clone(),
            ..ClientOptions::default()
        };
        // What is said of HTTP clients is not for sockets, as with the reference.
        let used = if daemon.socket.is_some() { ClientConfig::default() } else { config.clone() };
        let client = Client::new(used, options).await.map_err(|error| Error::new(error.to_string()))?;
        Ok(Connection { daemon, config, answer_wait_max, client })
    }
}

/// The containers of the targets. Of several targets of a container the first in the order of the reference counts.
fn containers(
    targets: &[Target],
    labels: &BTreeMap<String, String>,
    rules: &RelabelRules,
) -> Result<Vec<Container>, Error> {
    let rules = SourceLabels::new(rules, OnDrop::NoLabels, false)?;
    let mut all: Vec<BTreeMap<&str, &str>> = targets
        .iter()
        .map(|target| {
            let own = target.iter().filter(|(_, value)| !value.is_empty());
            own.chain(labels.iter().map(|(name, value)| (&**name, &**value))).collect()
        })
        .filter(|labels: &BTreeMap<&str, &str>| labels.get(ID_LABEL).is_some_and(|id| is_id(id)))
        .collect();
    all.sort_by_cached_key(fingerprint);
    let mut seen = HashSet::new();
    let mut containers = Vec::new();
    for labels in all {
        let id = labels[ID_LABEL];
        if !seen.insert(id) || containers.len() >= CONTAINERS_MAX {
            continue;
        }
        let too_large = |error| Error::new(format!("labels of container {id}: {error}"));
        let known_as = Stream::of(labels.iter().map(|(name, value)| (*name, *value))).map_err(too_large)?.canonical();
        let stream = |output: &str| -> Result<Stream, Error> {
            let mut builder = LabelsBuilder::new();
            for (name, value) in labels.iter().filter(|(name, _)| **name != STREAM_LABEL) {
                builder.push(name, value);
            }
            builder.push(STREAM_LABEL, output);
            let stream = rules.stream(&mut builder, &[]).map_err(too_large)?;
            stream.or_else(|_| Stream::of([]).map_err(too_large))
        };
        containers.push(Container {
            id: id.to_owned(),
            known_as,
            stdout: stream("stdout")?,
            stderr: stream("stderr")?,
        });
    }
    Ok(containers)
}

/// Whether a text can be the name of a container, so that it can stand in a path.
fn is_id(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

/// The hash by which the reference sorts label sets: FNV-1a over names and values with 0xff between.
fn fingerprint(labels: &BTreeMap<&str, &str>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    for (name, value) in labels {
        for text in [name, value] {
            text.bytes().for_each(&mut add);
            add(0xff);
        }
    }
    hash
}

struct Shared {
    cursors: Mutex<Cursors>,
    entries: Counter,
    errors: Counter,
    logger: Logger,
    row: Arc<Row>,
    /// What is told of each container.
    infos: Mutex<BTreeMap<String, Arc<ContainerInfo>>>,
    /// What is wanted.
    targets: Mutex<Vec<Target>>,
}

/// What is told of a container.
#[derive(Debug, Default)]
struct ContainerInfo {
    labels: String,
    /// The labels of what the container writes to its standard output.
    line_labels: Option<Target>,
    is_running: AtomicBool,
    /// The time of the line that was handed on last, in nanoseconds since the Unix epoch; 0 before the first.
    last_line_ns: AtomicI64,
    lines: AtomicU64,
    last_error: LastError,
}

impl DebugInfo for Shared {
    fn debug_info(&self) -> Vec<Item> {
        let infos = self.infos.lock().clone();
        let shown = |(id, info): (String, Arc<ContainerInfo>)| {
            let position = self.cursors.lock().get(&key(&id, "")).map(str::to_owned);
            let mut body = vec![
                attr("labels", info.labels.as_str()),
                attr("id", id),
                attr("is_running", info.is_running.load(Ordering::Relaxed)),
                attr("read_offset", position.unwrap_or_default()),
                attr("lines", info.lines.load(Ordering::Relaxed)),
            ];
            let last_ns = info.last_line_ns.load(Ordering::Relaxed);
            if last_ns != 0 {
                body.push(time_ns("last_line_at", last_ns));
            }
            info.last_error.show(&mut body);
            block("targets_info", body)
        };
        infos.into_iter().map(shown).collect()
    }

    fn targets(&self) -> Option<&dyn TargetView> {
        Some(self)
    }
}

/// A target as it was when somebody looked.
struct ShownContainer {
    id: String,
    target: Target,
    labels: Option<Target>,
    state: TargetState,
    last: LastTime,
}

impl ShownTarget for ShownContainer {
    fn state(&self) -> TargetState {
        self.state
    }

    fn url(&self) -> &str {
        &self.id
    }

    fn discovered(&self) -> &Target {
        &self.target
    }

    fn labels(&self) -> Option<&Target> {
        self.labels.as_ref()
    }

    fn last(&self) -> LastTime {
        self.last.clone()
    }
}

impl TargetView for Shared {
    fn targets(&self) -> Vec<Arc<dyn ShownTarget>> {
        let targets = self.targets.lock().clone();
        let infos = self.infos.lock();
        let mut seen = HashSet::new();
        let shown = |target: &Target| {
            let id = target.get(ID_LABEL).unwrap_or_default();
            let info = infos.get(id);
            let because = |why: &str| LastTime { error: Some(why.to_owned()), ..LastTime::default() };
            let (state, last) = if !is_id(id) {
                (TargetState::Refused, because(&format!("the label {ID_LABEL} names no container")))
            } else if !seen.insert(id.to_owned()) {
                (TargetState::Dropped, because("it is the same container as that of another target"))
            } else {
                info.map_or_else(|| (TargetState::Unknown, LastTime::default()), |info| info.state())
            };
            let labels = info.filter(|_| matches!(state, TargetState::Up | TargetState::Down));
            let labels = labels.and_then(|info| info.line_labels.clone());
            let (id, target) = (id.to_owned(), target.clone());
            Arc::new(ShownContainer { id, target, labels, state, last }) as Arc<dyn ShownTarget>
        };
        targets.iter().map(shown).collect()
    }
}

impl ContainerInfo {
    /// How it is, and when it wrote its last line.
    fn state(&self) -> (TargetState, LastTime) {
        let last_ns = u64::try_from(self.last_line_ns.load(Ordering::Relaxed)).unwrap_or(0);
        let at = (last_ns > 0).then(|| UNIX_EPOCH + Duration::from_nanos(last_ns));
        if self.is_running.load(Ordering::Relaxed) {
            return (TargetState::Up, LastTime { at, ..LastTime::default() });
        }
        let why = self.last_error.text().unwrap_or_else(|| "the container does not run".to_owned());
        (TargetState::Down, LastTime { at, error: Some(why), ..LastTime::default() })
    }
}

impl Shared {
    /// Saves places that moved.
    async fn save(&self) {
        let save = {
            let mut cursors = self.cursors.lock();
            if !cursors.changed() {
                return;
            }
            cursors.take_changes()
        };
        let saved = tokio::task::spawn_blocking(move || save.write()).await;
        if let Err(error) = saved.map_err(|error| error.to_string()).and_then(|saved| saved) {
            self.cursors.lock().not_saved();
            self.logger.error("positions cannot be saved", &[("err", (&error).into())]);
        }
    }
}

/// A tailer that runs.
struct Running {
    container: Container,
    connection: Arc<Connection>,
    stopper: Stopper,
    handle: JoinHandle<()>,
}

/// Keeps a tailer for each container until it is stopped.
async fn run(shared: Arc<Shared>, mut settings: watch::Receiver<Arc<Settings>>, mut stop: Stop) -> Result<(), String> {
    let mut running: HashMap<String, Running> = HashMap::new();
    let outcome = loop {
        let now = Arc::clone(&settings.borrow_and_update());
        shared.targets.lock().clone_from(&now.targets);
        let wanted: HashMap<&str, &Container> = now.containers.iter().map(|one| (&*one.id, one)).collect();
        let keeps = |one: &Running| {
            let same = wanted.get(&*one.container.id).is_some_and(|wanted| wanted.is(&one.container));
            same && Arc::ptr_eq(&one.connection, &now.connection) && !one.handle.is_finished()
        };
        let left: Vec<String> = running.iter().filter(|(_, one)| !keeps(one)).map(|(id, _)| id.clone()).collect();
        let left: Vec<Running> = left.iter().filter_map(|id| running.remove(id)).collect();
        left.iter().for_each(|one| one.stopper.stop());
        for one in left {
            end(one.handle, &shared).await;
            if !wanted.contains_key(&*one.container.id) {
                shared.cursors.lock().remove(&key(&one.container.id, ""));
                shared.infos.lock().remove(&one.container.id);
            }
        }
        for container in &now.containers {
            if running.contains_key(&container.id) {
                continue;
            }
            let (stopper, tailer_stop) = Stop::pair();
            let connection = Arc::clone(&now.connection);
            let tailer = Tailer::new(container.clone(), Arc::clone(&connection), Arc::clone(&shared), settings.clone());
            let handle = tokio::spawn(tailer.run(tailer_stop));
            let container = container.clone();
            running.insert(container.id.clone(), Running { container, connection, stopper, handle });
        }
        drop(now);
        let changed = loop {
            tokio::select! {
                changed = settings.changed() => break changed.is_ok(),
                slept = stop.sleep(SAVE_EVERY) => {
                    if !slept {
                        break false;
                    }
                    shared.save().await;
                }
            }
        };
        if !changed {
            break Ok(());
        }
    };
    running.values().for_each(|one| one.stopper.stop());
    for (_, one) in running {
        end(one.handle, &shared).await;
    }
    shared.save().await;
    outcome
}

async fn end(handle: JoinHandle<()>, shared: &Shared) {
    if let Err(error) = handle.await {
        shared.logger.error("docker tailer failed", &[("err", error.to_string().into())]);
    }
}

#[cfg(test)]
mod tests;
