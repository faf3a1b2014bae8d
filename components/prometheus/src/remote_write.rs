//! `prometheus.remote_write`.

mod lane;
mod sender;
mod transform;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use corten_component::metrics::{Counter, DEFAULT_BUCKETS, Gauge, Histogram, Refresh, Vector};
use corten_component::{Component, Context, DebugInfo, Error, Field, Health, Logger, Task, Url};
use corten_config::encode::Item;
use corten_config::{Arguments, CheckErrors, Exports, StringEnum, Value};
use corten_net::{AzureAdConfig, Client, ClientConfig, ClientOptions, GoogleIamConfig, SigV4Config};
use corten_queue::{Options, Queue, Reader, ReaderOptions, Start, default_bytes_max};
use corten_signal::flow::BoxFuture;
use corten_signal::relabel::{NameScheme, Rule, Rules};
use corten_signal::{Consume, ConsumeError, Inlet, Metrics, MetricsBatch, Receiver};
use http::header::{HeaderName, USER_AGENT};
use http::{HeaderMap, HeaderValue, Uri};
use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, watch};
use tokio::task::{JoinHandle, JoinSet};
use xxhash_rust::xxh3::xxh3_64;

use lane::{Kinds, Lane};
use sender::{KindCounters, SendMetrics, SendSettings, SendState, Sender};
use transform::Transform;

/// Sends samples to remote write endpoints, through a queue on disk.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Config {
    /// Labels to add to series that do not have them.
    #[arg(optional)]
    external_labels: BTreeMap<String, String>,
    /// Where to send samples.
    #[block(name = "endpoint")]
    endpoints: Vec<Endpoint>,
    /// How long samples are kept on disk.
    #[block(default)]
    wal: Wal,
}

/// Where to send samples.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// The name of the endpoint in metrics. Also names its place in the queue: an endpoint that keeps its name keeps what
    /// waits for it, whatever else changes. Without one its URL stands for it.
    #[arg(default = "")]
    name: String,
    /// The URL to send to.
    url: Url,
    /// How long a request may take.
    #[arg(default = "30s")]
    remote_timeout: Duration,
    /// Headers of every request. They win over headers of the same name.
    #[arg(optional)]
    headers: BTreeMap<String, String>,
    /// Whether to send exemplars.
    #[arg(default = true)]
    send_exemplars: bool,
    /// Whether to send native histograms. Those with bounds of their own cannot be sent by version 1 of the protocol.
    #[arg(default = false)]
    send_native_histograms: bool,
    /// The version of the protocol, by the name of its message.
    #[arg(default = "prometheus.WriteRequest")]
    protobuf_message: ProtobufMessage,
    /// Whether each new connection takes one of the host's addresses by chance.
    #[arg(default = false)]
    round_robin_dns: bool,
    #[flatten(defaults(enable_http2 = false))]
    client: ClientConfig,
    /// Signs requests for AWS, by signature version 4.
    #[block]
    sigv4: Option<SigV4Config>,
    /// Authentication by Microsoft Entra ID.
    #[block]
    azuread: Option<AzureAdConfig>,
    /// Authentication by Google Cloud.
    #[block]
    google_iam: Option<GoogleIamConfig>,
    /// How requests are made of samples.
    #[block(default)]
    queue_config: QueueConfig,
    /// Rules for the labels of series before they are sent.
    #[block(name = "write_relabel_config")]
    write_relabel_configs: Vec<Rule>,
}

/// A version of the protocol.
#[derive(StringEnum, Clone, Copy, Debug, PartialEq, Eq)]
#[string_enum(refusal = refuse_message)]
pub(crate) enum ProtobufMessage {
    /// Remote write 1.
    #[value(name = "prometheus.WriteRequest")]
    V1,
}

fn refuse_message(text: &str) -> String {
    if text == "io.prometheus.write.v2.Request" {
        return "remote write 2 is not implemented yet; use \"prometheus.WriteRequest\"".to_owned();
    }
    format!("unknown type for remote write protobuf message {text}, supported: prometheus.WriteRequest")
}

/// How requests are made of samples.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct QueueConfig {
    /// How many samples a request under way may have waiting in memory behind it while the disk takes nothing.
    #[arg(default = 10000)]
    capacity: u32,
    /// The most requests under way at a time. Series are shared out among them, so that the samples of one stay in order.
    #[arg(default = 50)]
    max_shards: u16,
    /// The fewest requests that may be under way at a time.
    #[arg(default = 1)]
    min_shards: u16,
    /// The most samples in a request.
    #[arg(default = 2000)]
    max_samples_per_send: u32,
    /// How long samples wait until a request is full.
    #[arg(default = "5s")]
    batch_send_deadline: Duration,
    /// The first wait after a request that failed. Each further wait is twice as long.
    #[arg(default = "30ms")]
    min_backoff: Duration,
    /// The longest wait after a request that failed.
    #[arg(default = "5s")]
    max_backoff: Duration,
    /// Whether a request that is answered with the status 429 is sent again.
    #[arg(default = true)]
    retry_on_http_429: bool,
    /// Samples that are older are not sent. 0 sends all.
    #[arg(default = "0s")]
    sample_age_limit: Duration,
}

/// How long samples are kept on disk.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Wal {
    /// How often what is no longer needed is deleted.
    #[arg(default = "2h")]
    truncate_frequency: Duration,
    /// How long samples are kept at least, also when they were sent.
    #[arg(default = "5m")]
    min_keepalive_time: Duration,
    /// How long samples are kept at most, also when they were not sent.
    #[arg(default = "8h")]
    max_keepalive_time: Duration,
    /// The most bytes on disk; the oldest go first, sent or not. By default what the flag `--storage.queue.max-bytes`
    /// says.
    max_bytes: Option<crate::size::ByteSize>,
}

impl Config {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        for (at, endpoint) in self.endpoints.iter().enumerate() {
            let before = &self.endpoints[..at];
            if before.contains(endpoint) {
                let url = endpoint.shown_url();
                errors.push(
                    &["endpoint"],
                    format!("duplicate remote write configs are not allowed, found duplicate for URL: {url}"),
                );
            } else if !endpoint.name.is_empty() && before.iter().any(|other| other.name == endpoint.name) {
                let name = &endpoint.name;
                errors.push(
                    &["endpoint"],
                    format!("duplicate remote write configs: two endpoints have the name {name:?}"),
                );
            }
        }
        errors.into_result()
    }

    /// What names the place of each endpoint in the queue, in order. Those of one URL that have no names are told apart by
    /// their order.
    fn identities(&self) -> Vec<String> {
        let mut identities: Vec<String> = Vec::with_capacity(self.endpoints.len());
        for endpoint in &self.endpoints {
            let identity = endpoint.identity();
            let mut distinct = identity.clone();
            let mut number = 1;
            while identities.contains(&distinct) {
                number += 1;
                distinct = format!("{identity}#{number}");
            }
            identities.push(distinct);
        }
        identities
    }
}

impl Endpoint {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        match self.url.expose().parse::<Uri>() {
            Ok(uri) if matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some() => {}
            _ => {
                let url = self.url.to_string();
                errors.push(
                    &["url"],
                    format!("cannot parse remote_write url {url:?}: want http:// or https:// with a host"),
                );
            }
        }
        for (name, value) in &self.headers {
            if HeaderName::try_from(name.as_str()).is_err() || HeaderValue::try_from(value.as_str()).is_err() {
                errors.push(&["headers"], format!("{name:?} is not a header, or its value is none"));
            }
        }
        let methods = [self.sigv4.is_some(), self.azuread.is_some(), self.google_iam.is_some(), self.client.has_auth()];
        errors.require(
            methods.into_iter().filter(|used| *used).count() <= 1,
            &["sigv4", "azuread", "google_iam"],
            "at most one of sigv4, azuread, google_iam, basic_auth, oauth2, bearer_token & bearer_token_file must be \
             configured",
        );
        errors.into_result()
    }

    /// What names the endpoint's place in the queue: never credentials, never tuning.
    fn identity(&self) -> String {
        if !self.name.is_empty() {
            return format!("name:{}", self.name);
        }
        let Ok(uri) = self.url.expose().parse::<Uri>() else { return String::new() };
        let scheme = uri.scheme_str().unwrap_or("http");
        let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
        format!("{scheme}://{}:{port}{}", uri.host().unwrap_or_default(), uri.path())
    }

    /// The name of the endpoint in metrics.
    fn remote_name(&self, identity: &str) -> String {
        if self.name.is_empty() { format!("{:06x}", xxh3_64(identity.as_bytes()) >> 40) } else { self.name.clone() }
    }

    fn shown_url(&self) -> String {
        self.url.to_string()
    }
}

impl QueueConfig {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        errors.require(self.min_shards > 0, &["min_shards"], "min_shards must be greater than 0");
        errors.require(
            self.max_shards >= self.min_shards,
            &["max_shards", "min_shards"],
            "max_shards must not be less than min_shards",
        );
        errors.require(
            self.max_shards <= corten_queue::PARTITIONS_MAX,
            &["max_shards"],
            "max_shards must not be greater than 1024",
        );
        errors.require(
            self.max_samples_per_send > 0,
            &["max_samples_per_send"],
            "max_samples_per_send must be greater than 0",
        );
        errors.require(
            self.max_backoff >= self.min_backoff,
            &["max_backoff", "min_backoff"],
            "max_backoff must not be less than min_backoff",
        );
        errors.into_result()
    }
}

impl Wal {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        errors.require(!self.truncate_frequency.is_zero(), &["truncate_frequency"], "truncate_frequency must not be 0");
        errors.require(
            self.max_keepalive_time > self.min_keepalive_time,
            &["max_keepalive_time", "min_keepalive_time"],
            "min_keepalive_time must be smaller than max_keepalive_time",
        );
        errors.into_result()
    }
}

/// What others refer to.
#[derive(Exports, Clone, Debug, PartialEq)]
pub struct Exported {
    /// Takes the samples that are to be sent.
    receiver: Receiver<Metrics>,
}

/// The component.
pub struct RemoteWrite {
    inlet: Inlet<Metrics>,
    stage: Arc<Stage>,
    lanes: HashMap<u64, Arc<Lane>>,
    endpoints: HashMap<(u64, String), RunningEndpoint>,
    /// How requests are made, by the identity of the endpoint; shared by all that is sent to it.
    settings: HashMap<String, watch::Sender<Arc<SendSettings>>>,
    /// What is still sent that was taken under another configuration.
    leftovers: Vec<RunningLeftover>,
    /// The queues of other configurations that are open.
    old_queues: OldQueues,
    /// Senders of other configurations that come first, by the identity of the endpoint. A channel closes when its sender
    /// has ended.
    predecessors: HashMap<String, Vec<watch::Receiver<()>>>,
    shared: Arc<SharedMetrics>,
    keeper: Task,
}

/// A queue of another configuration, for as long as it is open. Whoever locks it and takes it out owns it: a configuration
/// that comes back, or the task that closes it.
type OldQueue = Arc<tokio::sync::Mutex<Option<Queue>>>;

/// The queues of other configurations that are open, by their keys.
type OldQueues = Arc<Mutex<HashMap<u64, OldQueue>>>;

/// What waits in a queue of another configuration is being sent.
struct RunningLeftover {
    /// The lane whose queue it is; none where single endpoints leave a lane that stays.
    key: Option<u64>,
    stop: watch::Sender<bool>,
    handle: JoinHandle<()>,
}

/// An endpoint that is sent to.
struct RunningEndpoint {
    info: Arc<EndpointInfo>,
    ending: watch::Sender<bool>,
    /// Closes when the sender has ended.
    done: watch::Receiver<()>,
    handle: JoinHandle<()>,
}

/// A sender that ends once it has sent what waits for it.
struct Departing {
    identity: String,
    reader: Reader,
    ending: watch::Sender<bool>,
    handle: JoinHandle<()>,
    /// Whether the endpoint is still in the configuration. What waits for one that is not is sent only for a while.
    stays: bool,
    info: Option<Arc<EndpointInfo>>,
}

/// What is known of an endpoint by those who only look.
struct EndpointInfo {
    remote_name: String,
    url: String,
    lane: Arc<Lane>,
    reader: Reader,
    state: Arc<SendState>,
    queue_config: Mutex<QueueConfig>,
    rates: Mutex<Rates>,
    desired_shards: Mutex<f64>,
}

/// What was prepared.
pub struct Prepared {
    lanes: Vec<(u64, PreparedLane)>,
    endpoints: Vec<PreparedEndpoint>,
    /// Queues of earlier configurations in which something waits.
    leftovers: Vec<Leftover>,
}

/// A queue that was written under another configuration, before the program was started.
struct Leftover {
    key: u64,
    dir: PathBuf,
    queue: Queue,
}

/// A lane that is to be.
enum PreparedLane {
    /// One that runs already.
    Kept(Arc<Lane>),
    /// One whose queue was opened.
    New(Queue, Transform, Kinds),
    /// One whose queue is open still, because its configuration comes back. It is not closed as long as this holds it.
    Back(OwnedMutexGuard<Option<Queue>>, Transform, Kinds),
}

struct PreparedEndpoint {
    lane: u64,
    identity: String,
    config: Endpoint,
    settings: SendSettings,
    queue_options: Options,
}

impl Component for RemoteWrite {
    const NAME: &'static str = "prometheus.remote_write";
    type Arguments = Config;
    type Exports = Exported;
    type Prepared = (Prepared, Option<Inlet<Metrics>>);

    async fn prepare(
        config: Config,
        cx: &Context<Self>,
        current: Option<&Self>,
    ) -> Result<(Self::Prepared, Exported), Error> {
        let services = cx.services();
        let root = cx.data_dir().join("queue");
        let bytes_max = config.wal.max_bytes.map(|size| size.bytes()).or(services.queue_bytes_max);
        let external: Vec<(String, String)> =
            config.external_labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let mut prepared = Prepared { lanes: Vec::new(), endpoints: Vec::new(), leftovers: Vec::new() };
        for (endpoint, identity) in config.endpoints.iter().zip(config.identities()) {
            let rules = Rules::new(&endpoint.write_relabel_configs, NameScheme::Legacy)
                .map_err(|(at, error)| Error::new(format!("write_relabel_config {}: {error}", at + 1)))?;
            let kinds = Kinds { histograms: endpoint.send_native_histograms, exemplars: endpoint.send_exemplars };
            let key = lane_key(&external, &endpoint.write_relabel_configs, kinds);
            let dir = root.join(format!("{key:016x}"));
            let queue_options = queue_options(&config.wal, &endpoint.queue_config, bytes_max, &dir);
            if !prepared.lanes.iter().any(|(have, _)| *have == key) {
                let running = current.and_then(|current| current.lanes.get(&key));
                let lane = match running {
                    Some(lane) => PreparedLane::Kept(Arc::clone(lane)),
                    None => {
                        let transform = Transform::new(external.clone(), rules);
                        match current.and_then(|current| current.old_queue(key)) {
                            // The wait is for a queue that is being closed.
                            Some(old) => match old.lock_owned().await {
                                guard if guard.is_some() => PreparedLane::Back(guard, transform, kinds),
                                _ => PreparedLane::New(open_queue(dir, queue_options.clone()).await?, transform, kinds),
                            },
                            None => PreparedLane::New(open_queue(dir, queue_options.clone()).await?, transform, kinds),
                        }
                    }
                };
                prepared.lanes.push((key, lane));
            }
            let settings = send_settings(endpoint, services).await?;
            prepared.endpoints.push(PreparedEndpoint {
                lane: key,
                identity,
                config: endpoint.clone(),
                settings,
                queue_options,
            });
        }
        if current.is_none() {
            let keys: Vec<u64> = prepared.lanes.iter().map(|(key, _)| *key).collect();
            prepared.leftovers = open_leftovers(&root, &keys, &config.wal, bytes_max, cx).await;
        }
        let inlet = current.is_none().then(|| Inlet::new(cx.id()));
        let receiver = match (&inlet, current) {
            (Some(inlet), _) => inlet.receiver(),
            (None, Some(current)) => current.inlet.receiver(),
            (None, None) => Receiver::NOWHERE,
        };
        Ok(((prepared, inlet), Exported { receiver }))
    }

    fn commit(current: Option<Self>, (prepared, inlet): Self::Prepared, cx: &Context<Self>) -> Self {
        let mut component = match (current, inlet) {
            (Some(current), _) => current,
            (None, inlet) => Self::start(inlet.unwrap_or_else(|| Inlet::new(cx.id())), cx),
        };
        let make = |queue, transform, kinds| {
            Arc::new(Lane::new(Arc::from(cx.id()), queue, transform, kinds, cx.logger().clone()))
        };
        let mut lanes = HashMap::new();
        for (key, lane) in prepared.lanes {
            let lane = match lane {
                PreparedLane::Kept(lane) => lane,
                PreparedLane::New(queue, transform, kinds) => make(queue, transform, kinds),
                PreparedLane::Back(mut guard, transform, kinds) => match guard.take() {
                    Some(queue) => {
                        component.take_back(key);
                        make(queue, transform, kinds)
                    }
                    // It is locked since it was seen there.
                    None => continue,
                },
            };
            lanes.insert(key, lane);
        }
        for (key, lane) in &lanes {
            set_lane_limits(lane, prepared.endpoints.iter().filter(|endpoint| endpoint.lane == *key));
        }
        let identities: Vec<String> = prepared.endpoints.iter().map(|endpoint| endpoint.identity.clone()).collect();
        for endpoint in &prepared.endpoints {
            let settings = Arc::new(endpoint.settings.clone());
            match component.settings.get(&endpoint.identity) {
                Some(sender) => drop(sender.send_replace(settings)),
                None => drop(component.settings.insert(endpoint.identity.clone(), watch::Sender::new(settings))),
            }
        }
        component.settings.retain(|identity, _| identities.contains(identity));
        for leftover in prepared.leftovers {
            component.send_leftover(leftover, &identities, &prepared.endpoints, cx);
        }
        // As long as this is locked, nothing of an endpoint is forgotten that comes back.
        let shared = Arc::clone(&component.shared);
        let mut infos = shared.endpoints.lock();
        let mut before = std::mem::take(&mut component.endpoints);
        let mut starting = Vec::new();
        for endpoint in prepared.endpoints {
            let Some(lane) = lanes.get(&endpoint.lane) else { continue };
            let place = (endpoint.lane, endpoint.identity.clone());
            // A sender goes on only with the lane that it was started with.
            let running = before.remove(&place).filter(|running| Arc::ptr_eq(&running.info.lane, lane));
            match running {
                Some(running) => {
                    running.change(&endpoint.config.queue_config);
                    component.endpoints.insert(place, running);
                }
                None => starting.push((place, endpoint)),
            }
        }
        let mut gone: HashMap<u64, Vec<Departing>> = HashMap::new();
        for ((key, identity), running) in before {
            let stays = identities.contains(&identity);
            component.predecessors.entry(identity.clone()).or_default().push(running.done);
            gone.entry(key).or_default().push(Departing {
                identity,
                reader: running.info.reader.clone(),
                ending: running.ending,
                handle: running.handle,
                stays,
                info: Some(running.info),
            });
        }
        for (place, endpoint) in starting {
            let running = component.start_endpoint(endpoint, &lanes[&place.0], cx);
            component.endpoints.insert(place, running);
        }
        *infos = component.endpoints.values().map(|endpoint| Arc::clone(&endpoint.info)).collect();
        shared.failing.keep(&infos, cx);
        drop(infos);
        let stage = Arc::new(Stage { lanes: lanes.values().cloned().collect(), shared: Arc::clone(&shared) });
        component.inlet.attach(Arc::clone(&stage) as Arc<dyn Consume<Metrics>>);
        let stage_before = Arc::downgrade(&std::mem::replace(&mut component.stage, stage));
        let lanes_before = std::mem::replace(&mut component.lanes, lanes);
        component.leftovers.retain(|leftover| !leftover.handle.is_finished());
        for (key, lane) in lanes_before {
            let departing = gone.remove(&key).unwrap_or_default();
            let is_unused = !component.lanes.contains_key(&key);
            if is_unused || !departing.is_empty() {
                component.retire(key, lane, is_unused, departing, stage_before.clone(), cx);
            }
        }
        component
    }

    async fn drain(self, cx: &Context<Self>) {
        self.inlet.close();
        self.keeper.stop().await;
        for lane in self.lanes.values() {
            lane.close().await;
        }
        let deadline = tokio::time::Instant::now() + FLUSH_WAIT_MAX;
        for leftover in &self.leftovers {
            leftover.stop.send_replace(true);
        }
        for mut leftover in self.leftovers {
            // What was not sent waits for the next start.
            if tokio::time::timeout_at(deadline, &mut leftover.handle).await.is_err() {
                leftover.handle.abort();
            }
        }
        for running in self.endpoints.values() {
            running.info.reader.flush();
            // What the peer takes is still sent; what it refuses for now waits on disk.
            running.ending.send_replace(true);
        }
        for mut running in self.endpoints.into_values() {
            if tokio::time::timeout_at(deadline, &mut running.handle).await.is_err() {
                running.handle.abort();
            }
        }
        self.shared.failing.keep(&[], cx);
        for lane in self.lanes.into_values() {
            lane.queue().clone().close().await;
        }
    }
}

/// Sets what depends on all endpoints of a lane: records that none of them finds too large, and as many partitions and as
/// much memory as the one that wants most.
fn set_lane_limits<'e>(lane: &Lane, endpoints: impl Iterator<Item = &'e PreparedEndpoint> + Clone) {
    let of = || endpoints.clone().map(|endpoint| &endpoint.config.queue_config);
    lane.set_samples_max(of().map(|queue| u64::from(queue.max_samples_per_send)).min().unwrap_or(1));
    let fewest = of().map(|queue| queue.min_shards).max().unwrap_or(1);
    let most = of().map(|queue| queue.max_shards).max().unwrap_or(1);
    lane.set_partitions(lane.partitions().clamp(fewest, most.max(fewest)));
    let options = endpoints.map(|endpoint| &endpoint.queue_options).max_by_key(|options| options.memory_bytes_max);
    if let Some(options) = options {
        lane.queue().set_options(options.clone());
    }
}

/// How long what waits is still sent when the program ends or an endpoint goes, as long as the peer takes it.
const FLUSH_WAIT_MAX: Duration = Duration::from_secs(60);

/// Hands batches to all lanes.
struct Stage {
    lanes: Vec<Arc<Lane>>,
    shared: Arc<SharedMetrics>,
}

impl Consume<Metrics> for Stage {
    fn consume(&self, batch: Arc<MetricsBatch>) -> BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(async move {
            let mut result = Ok(());
            self.shared.received.count(&batch);
            for lane in &self.lanes {
                let taken = lane.take(&batch).await;
                result = result.and(taken);
            }
            result
        })
    }
}

/// What decides the bytes of a lane.
fn lane_key(external: &[(String, String)], rules: &[Rule], kinds: Kinds) -> u64 {
    xxh3_64(format!("v1 {external:?} {rules:?} {kinds:?}").as_bytes())
}

/// What a sample takes in a record, about, in bytes.
const SAMPLE_BYTES: usize = 32;

fn queue_options(wal: &Wal, queue: &QueueConfig, bytes_max: Option<u64>, dir: &std::path::Path) -> Options {
    Options {
        memory_bytes_max: queue.capacity as usize * usize::from(queue.max_shards) * SAMPLE_BYTES,
        bytes_max: bytes_max.unwrap_or_else(|| default_bytes_max(dir)),
        age_max: wal.max_keepalive_time,
        keep_settled_min: wal.min_keepalive_time,
        truncate_every: wal.truncate_frequency,
        ..Options::default()
    }
}

/// Opens the queues of earlier configurations. One that cannot be opened is reported and left alone.
async fn open_leftovers(
    root: &std::path::Path,
    keys: &[u64],
    wal: &Wal,
    bytes_max: Option<u64>,
    cx: &Context<RemoteWrite>,
) -> Vec<Leftover> {
    let names: Vec<String> = std::fs::read_dir(root)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| u64::from_str_radix(name, 16).is_ok_and(|key| name.len() == 16 && !keys.contains(&key)))
        .collect();
    let mut leftovers = Vec::new();
    for name in names {
        let dir = root.join(&name);
        let Ok(key) = u64::from_str_radix(&name, 16) else { continue };
        let options = Options {
            bytes_max: bytes_max.unwrap_or(Options::BYTES_MAX_DEFAULT),
            age_max: wal.max_keepalive_time,
            keep_settled_min: wal.min_keepalive_time,
            truncate_every: wal.truncate_frequency,
            ..Options::default()
        };
        match open_queue(dir.clone(), options).await {
            Ok(queue) => leftovers.push(Leftover { key, dir, queue }),
            Err(error) => cx.logger().error(
                "failed to open the queue of an earlier configuration",
                &[("err", Field::from(error.to_string()))],
            ),
        }
    }
    leftovers
}

impl RemoteWrite {
    /// The queue with this key, if it is open because another configuration used it.
    fn old_queue(&self, key: u64) -> Option<OldQueue> {
        self.old_queues.lock().get(&key).cloned()
    }

    /// A configuration comes back: what is being sent from its queue is left to its new senders.
    fn take_back(&mut self, key: u64) {
        self.old_queues.lock().remove(&key);
        for leftover in self.leftovers.iter().filter(|leftover| leftover.key == Some(key)) {
            leftover.stop.send_replace(true);
        }
    }

    /// Sends what waits in a queue of an earlier configuration to those endpoints that are still there, and removes the
    /// queue once nothing waits in it.
    fn send_leftover(
        &mut self,
        leftover: Leftover,
        identities: &[String],
        endpoints: &[PreparedEndpoint],
        cx: &Context<Self>,
    ) {
        let Leftover { key, dir, queue } = leftover;
        let mut departing = Vec::new();
        let mut all_have_owners = true;
        for name in queue.reader_names() {
            let endpoint = endpoints.iter().find(|endpoint| endpoint.identity == name);
            let (Some(endpoint), true, Some(settings)) =
                (endpoint, identities.contains(&name), self.settings.get(&name))
            else {
                all_have_owners = false;
                cx.logger().warn(
                    "an endpoint is gone; what waits for it is kept until it is too old",
                    &[("queue", Field::from(dir.display().to_string())), ("endpoint", Field::from(&name))],
                );
                continue;
            };
            let (remote_name, url) = (endpoint.config.remote_name(&name), endpoint.config.shown_url());
            let reader = queue.reader(&name, reader_options(&endpoint.config.queue_config));
            reader.flush();
            let (ending, ending_of_sender) = watch::channel(false);
            let (alive, done) = watch::channel(());
            let sender = Sender {
                reader: reader.clone(),
                settings: settings.subscribe(),
                metrics: self.shared.send_metrics(&[&remote_name, &url]),
                state: Arc::new(SendState::default()),
                logger: cx.logger().clone(),
                ending: ending_of_sender,
                report: self.shared.failing.reporter(&remote_name, &url, cx),
            };
            let handle = tokio::spawn(async move {
                sender.run().await;
                drop(alive);
            });
            self.predecessors.entry(name.clone()).or_default().push(done);
            departing.push(Departing { identity: name, reader, ending, handle, stays: true, info: None });
        }
        self.see_off(Leftover { key, dir, queue }, all_have_owners, departing, None, cx.logger().clone());
    }

    /// Ends senders whose lane is used no more, or not by them: what waits for them is sent, and for endpoints that are gone
    /// from the configuration at least for a while.
    fn retire(
        &mut self,
        key: u64,
        lane: Arc<Lane>,
        is_unused: bool,
        departing: Vec<Departing>,
        stage: Weak<Stage>,
        cx: &Context<Self>,
    ) {
        if is_unused {
            let queue = lane.queue().clone();
            let dir = cx.data_dir().join("queue").join(format!("{key:016x}"));
            self.see_off(Leftover { key, dir, queue }, true, departing, Some((lane, stage)), cx.logger().clone());
            return;
        }
        let (stop, stopped) = watch::channel(false);
        let (shared, logger) = (Arc::clone(&self.shared), cx.logger().clone());
        let handle = tokio::spawn(async move {
            let senders = departing.into_iter().map(|departing| {
                let (lane, stopped) = (Arc::clone(&lane), stopped.clone());
                let (shared, logger) = (Arc::clone(&shared), logger.clone());
                async move {
                    let reader = departing.reader.clone();
                    let identity = departing.identity.clone();
                    // The lane goes on, and what it takes from now on is not for this sender.
                    let last = settled(&reader) + reader.lag().pending.records;
                    reader.flush();
                    departing.depart(stopped.clone(), Some(last), &logger, &shared).await;
                    let infos = shared.endpoints.lock();
                    let is_back =
                        infos.iter().any(|info| Arc::ptr_eq(&info.lane, &lane) && info.reader.name() == identity);
                    let waits_for_the_next_start = *stopped.borrow() && reader.lag().pending.records > 0;
                    if !is_back && !waits_for_the_next_start {
                        lane.queue().remove_reader(&identity);
                    }
                }
            });
            let mut set: JoinSet<()> = senders.collect();
            while set.join_next().await.is_some() {}
        });
        self.leftovers.push(RunningLeftover { key: None, stop, handle });
    }

    /// Watches over the senders of a queue that is written no more, and removes it once nothing waits in it.
    fn see_off(
        &mut self,
        leftover: Leftover,
        all_have_owners: bool,
        departing: Vec<Departing>,
        lane: Option<(Arc<Lane>, Weak<Stage>)>,
        logger: Logger,
    ) {
        let Leftover { key, dir, queue } = leftover;
        let slot: OldQueue = Arc::new(tokio::sync::Mutex::new(Some(queue)));
        self.old_queues.lock().insert(key, Arc::clone(&slot));
        let (stop, mut stopped) = watch::channel(false);
        let shared = Arc::clone(&self.shared);
        let old_queues = Arc::clone(&self.old_queues);
        let handle = tokio::spawn(async move {
            if let Some((lane, stage)) = lane {
                // Batches in flight finish where they entered.
                let end = tokio::time::Instant::now() + FLUSH_WAIT_MAX;
                while stage.strong_count() > 0 && tokio::time::Instant::now() < end && !*stopped.borrow() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                lane.close().await;
            }
            let mut nothing_waits = all_have_owners;
            let mut senders = JoinSet::new();
            for departing in departing {
                departing.reader.flush();
                let (stopped, shared, logger) = (stopped.clone(), Arc::clone(&shared), logger.clone());
                senders.spawn(async move {
                    let (reader, stays) = (departing.reader.clone(), departing.stays);
                    departing.depart(stopped, None, &logger, &shared).await;
                    !stays || reader.lag().pending.records == 0
                });
            }
            while let Some(sent) = senders.join_next().await {
                nothing_waits &= sent.unwrap_or(false);
            }
            if !nothing_waits {
                // The queue stays open until the program ends, so that its age is watched.
                let _ = stopped.wait_for(|stop| *stop).await;
            }
            // Where it was taken out, its configuration is back.
            let mut guard = slot.lock().await;
            let Some(queue) = guard.take() else { return };
            queue.close().await;
            if nothing_waits {
                let _ = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(dir)).await;
            }
            let mut old_queues = old_queues.lock();
            if old_queues.get(&key).is_some_and(|have| Arc::ptr_eq(have, &slot)) {
                old_queues.remove(&key);
            }
        });
        self.leftovers.push(RunningLeftover { key: Some(key), stop, handle });
    }
}

/// How many records a reader has settled since its handle was made.
fn settled(reader: &Reader) -> u64 {
    let stats = reader.stats();
    stats.delivered.records + stats.dropped.iter().map(|(_, totals)| totals.records).sum::<u64>()
}

impl Departing {
    /// Waits until the sender has sent what waits for it, up to `last` records; until it has had its time, if the endpoint is
    /// gone; or until all stops.
    async fn depart(
        mut self,
        mut stopped: watch::Receiver<bool>,
        last: Option<u64>,
        logger: &Logger,
        shared: &SharedMetrics,
    ) {
        let reader = self.reader.clone();
        let is_through = async {
            match last {
                Some(last) => {
                    while settled(&reader) < last {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
                None => std::future::pending().await,
            }
        };
        let has_had_its_time = async {
            match self.stays {
                true => std::future::pending().await,
                false => tokio::time::sleep(FLUSH_WAIT_MAX).await,
            }
        };
        tokio::select! {
            _ = &mut self.handle => {}
            // What comes from now on is not for this sender.
            () = is_through => self.handle.abort(),
            () = has_had_its_time => {}
            _ = stopped.wait_for(|stop| *stop) => {}
        }
        self.ending.send_replace(true);
        if !self.handle.is_finished() && tokio::time::timeout(FLUSH_WAIT_MAX, &mut self.handle).await.is_err() {
            self.handle.abort();
        }
        let left = self.reader.lag().pending;
        if !self.stays && !*stopped.borrow() && left.records > 0 && last.is_none() {
            let fields = [("endpoint", Field::from(&self.identity)), ("count", Field::from(left.items()))];
            logger.warn("an endpoint is gone; what it did not take in time is dropped", &fields);
        }
        if let Some(info) = &self.info {
            shared.forget(info);
        }
    }
}

async fn open_queue(dir: PathBuf, options: Options) -> Result<Queue, Error> {
    let shown = dir.display().to_string();
    let opened = tokio::task::spawn_blocking(move || Queue::open(&dir, options)).await;
    let opened = opened.map_err(|error| Error::new(format!("opening the queue {shown}: {error}")))?;
    opened.map_err(|error| Error::new(format!("opening the queue {shown}: {error}")))
}

async fn send_settings(endpoint: &Endpoint, services: &corten_component::Services) -> Result<SendSettings, Error> {
    let invalid = |error: &dyn std::fmt::Display| Error::new(error.to_string());
    let mut headers = HeaderMap::new();
    for (name, value) in &endpoint.headers {
        let name = HeaderName::try_from(name.as_str()).map_err(|e| invalid(&e))?;
        headers.insert(name, HeaderValue::try_from(value.as_str()).map_err(|e| invalid(&e))?);
    }
    let user_agent = HeaderValue::from_str(&services.user_agent).map_err(|e| invalid(&e))?;
    let user_agent = headers.remove(USER_AGENT).unwrap_or(user_agent);
    let mut options = ClientOptions {
        user_agent,
        dialer: Some(Arc::clone(&services.dialer)),
        headers,
        random_address: endpoint.round_robin_dns,
        ..ClientOptions::default()
    };
    let mut uri: Uri = endpoint.url.expose().parse().map_err(|e| invalid(&e))?;
    if let Some(sigv4) = &endpoint.sigv4 {
        options.sign = Some(sigv4.signer(&options).await.map_err(|e| invalid(&e))?);
        uri = SigV4Config::clean_uri(&uri);
    } else if let Some(azuread) = &endpoint.azuread {
        options.sign = Some(azuread.signer(&options).await.map_err(|e| invalid(&e))?);
    } else if let Some(google_iam) = &endpoint.google_iam {
        options.sign = Some(google_iam.signer(&options).await.map_err(|e| invalid(&e))?);
    }
    let client = Client::new(endpoint.client.clone(), options).await.map_err(|e| invalid(&e))?;
    let queue = &endpoint.queue_config;
    Ok(SendSettings {
        client,
        uri,
        timeout: endpoint.remote_timeout,
        backoff_min: queue.min_backoff,
        backoff_max: queue.max_backoff,
        retry_on_429: queue.retry_on_http_429,
        age_max: (!queue.sample_age_limit.is_zero()).then_some(queue.sample_age_limit),
        installation_id: HeaderValue::from_str(&services.installation_id).map_err(|e| invalid(&e))?,
    })
}

fn reader_options(queue: &QueueConfig) -> ReaderOptions {
    ReaderOptions {
        items_max: queue.max_samples_per_send,
        wait_max: queue.batch_send_deadline,
        age_max: (!queue.sample_age_limit.is_zero()).then_some(queue.sample_age_limit),
        start: Start::Newest,
        ..ReaderOptions::default()
    }
}

impl RunningEndpoint {
    /// Takes other settings; connections and place in the queue stay.
    fn change(&self, queue_config: &QueueConfig) {
        self.info.reader.set_options(reader_options(queue_config));
        *self.info.queue_config.lock() = queue_config.clone();
    }
}

/// The endpoints whose requests fail. The component is as bad as the worst of them.
#[derive(Default)]
struct Failing(Mutex<FailingEndpoints>);

#[derive(Default)]
struct FailingEndpoints {
    /// Name and URL of those that are in the configuration.
    live: Vec<(String, String)>,
    failing: BTreeMap<(String, String), Health>,
}

impl Failing {
    /// These are the endpoints of the configuration now.
    fn keep(&self, infos: &[Arc<EndpointInfo>], cx: &Context<RemoteWrite>) {
        let mut state = self.0.lock();
        let state = &mut *state;
        state.live = infos.iter().map(|info| (info.remote_name.clone(), info.url.clone())).collect();
        let live = &state.live;
        state.failing.retain(|endpoint, _| live.contains(endpoint));
        cx.report_health(state.failing.values().next().cloned());
    }

    /// What the sender of an endpoint tells how it is.
    fn reporter(
        self: &Arc<Self>,
        remote_name: &str,
        url: &str,
        cx: &Context<RemoteWrite>,
    ) -> Arc<dyn Fn(Option<Health>) + Send + Sync> {
        let (failing, context) = (Arc::clone(self), cx.clone());
        let endpoint = (remote_name.to_owned(), url.to_owned());
        Arc::new(move |health| {
            let mut state = failing.0.lock();
            match health {
                Some(health) if state.live.contains(&endpoint) => drop(state.failing.insert(endpoint.clone(), health)),
                _ => drop(state.failing.remove(&endpoint)),
            }
            context.report_health(state.failing.values().next().cloned());
        })
    }
}

/// What came in, once each, whatever became of it.
#[derive(Default)]
struct Received {
    samples: AtomicU64,
    histograms: AtomicU64,
    exemplars: AtomicU64,
}

impl Received {
    fn count(&self, batch: &MetricsBatch) {
        for part in &batch.parts {
            self.samples.fetch_add(part.samples.len() as u64, Ordering::Relaxed);
            self.histograms.fetch_add(part.histograms.len() as u64, Ordering::Relaxed);
            self.exemplars.fetch_add(part.exemplars.len() as u64, Ordering::Relaxed);
        }
    }
}

/// The metrics of all endpoints.
struct SharedMetrics {
    endpoints: Mutex<Vec<Arc<EndpointInfo>>>,
    failing: Arc<Failing>,
    received: Received,
    sent: KindVectors,
    failed: KindVectors,
    retried: KindVectors,
    bytes: Vector<Counter>,
    duration: Vector<Histogram>,
    dropped: Vector<Gauge>,
    histograms_dropped: Vector<Gauge>,
    pending: Vector<Gauge>,
    shard_capacity: Vector<Gauge>,
    shards: Vector<Gauge>,
    shards_min: Vector<Gauge>,
    shards_max: Vector<Gauge>,
    shards_desired: Vector<Gauge>,
    max_samples_per_send: Vector<Gauge>,
    highest_received: Gauge,
    queue_highest: Vector<Gauge>,
    queue_highest_sent: Vector<Gauge>,
    samples_in: Gauge,
    histograms_in: Gauge,
    exemplars_in: Gauge,
    wal_bytes: Gauge,
    wal_segment: Gauge,
    wal_corruptions: Gauge,
    wal_samples: Gauge,
}

/// A family for each kind of item.
struct KindVectors {
    samples: Vector<Counter>,
    histograms: Vector<Counter>,
    exemplars: Vector<Counter>,
}

impl KindVectors {
    fn with(&self, labels: &[&str]) -> KindCounters {
        KindCounters {
            samples: self.samples.with(labels),
            histograms: self.histograms.with(labels),
            exemplars: self.exemplars.with(labels),
        }
    }
}

const ENDPOINT_LABELS: &[&str] = &["remote_name", "url"];

impl SharedMetrics {
    fn new(registry: &corten_component::metrics::Registry) -> Arc<Self> {
        let shared = Arc::new(SharedMetrics {
            endpoints: Mutex::default(),
            failing: Arc::default(),
            received: Received::default(),
            sent: KindVectors {
                samples: registry.counters(
                    "prometheus_remote_storage_samples_total",
                    "Total number of samples sent to remote storage.",
                    ENDPOINT_LABELS,
                ),
                histograms: registry.counters(
                    "prometheus_remote_storage_histograms_total",
                    "Total number of histograms sent to remote storage.",
                    ENDPOINT_LABELS,
                ),
                exemplars: registry.counters(
                    "prometheus_remote_storage_exemplars_total",
                    "Total number of exemplars sent to remote storage.",
                    ENDPOINT_LABELS,
                ),
            },
            failed: KindVectors {
                samples: registry.counters(
                    "prometheus_remote_storage_samples_failed_total",
                    "Total number of samples which failed on send to remote storage, non-recoverable errors.",
                    ENDPOINT_LABELS,
                ),
                histograms: registry.counters(
                    "prometheus_remote_storage_histograms_failed_total",
                    "Total number of histograms which failed on send to remote storage, non-recoverable errors.",
                    ENDPOINT_LABELS,
                ),
                exemplars: registry.counters(
                    "prometheus_remote_storage_exemplars_failed_total",
                    "Total number of exemplars which failed on send to remote storage, non-recoverable errors.",
                    ENDPOINT_LABELS,
                ),
            },
            retried: KindVectors {
                samples: registry.counters(
                    "prometheus_remote_storage_samples_retried_total",
                    "Total number of samples which failed on send to remote storage but were retried because the send \
                     error was recoverable.",
                    ENDPOINT_LABELS,
                ),
                histograms: registry.counters(
                    "prometheus_remote_storage_histograms_retried_total",
                    "Total number of histograms which failed on send to remote storage but were retried because the send \
                     error was recoverable.",
                    ENDPOINT_LABELS,
                ),
                exemplars: registry.counters(
                    "prometheus_remote_storage_exemplars_retried_total",
                    "Total number of exemplars which failed on send to remote storage but were retried because the send \
                     error was recoverable.",
                    ENDPOINT_LABELS,
                ),
            },
            bytes: registry.counters(
                "prometheus_remote_storage_bytes_total",
                "The total number of bytes of data (not metadata) sent by the queue after compression. Note that when \
                 exemplars over remote write is enabled the exemplars included in a remote write request count towards \
                 this metric.",
                ENDPOINT_LABELS,
            ),
            duration: registry.histograms(
                "prometheus_remote_storage_sent_batch_duration_seconds",
                "Duration of send calls to the remote storage.",
                ENDPOINT_LABELS,
                DEFAULT_BUCKETS,
            ),
            dropped: registry.counter_values(
                "prometheus_remote_storage_samples_dropped_total",
                "Total number of samples which were dropped after being read from the WAL before being sent via remote \
                 write, either via relabelling, due to being too old or unintentionally because of an unknown reference \
                 ID.",
                &["remote_name", "url", "reason"],
            ),
            histograms_dropped: registry.counter_values(
                "prometheus_remote_storage_histograms_dropped_total",
                "Total number of histograms which were dropped after being read from the WAL before being sent via remote \
                 write, either via relabelling, due to being too old or unintentionally because of an unknown reference \
                 ID.",
                &["remote_name", "url", "reason"],
            ),
            shard_capacity: registry.gauges(
                "prometheus_remote_storage_shard_capacity",
                "The capacity of each shard of the queue used for parallel sending to the remote storage.",
                ENDPOINT_LABELS,
            ),
            pending: registry.gauges(
                "prometheus_remote_storage_samples_pending",
                "The number of samples pending in the queues shards to be sent to the remote storage.",
                ENDPOINT_LABELS,
            ),
            shards: registry.gauges(
                "prometheus_remote_storage_shards",
                "The number of shards used for parallel sending to the remote storage.",
                ENDPOINT_LABELS,
            ),
            shards_min: registry.gauges(
                "prometheus_remote_storage_shards_min",
                "The minimum number of shards that the queue is allowed to run.",
                ENDPOINT_LABELS,
            ),
            shards_max: registry.gauges(
                "prometheus_remote_storage_shards_max",
                "The maximum number of shards that the queue is allowed to run.",
                ENDPOINT_LABELS,
            ),
            shards_desired: registry.gauges(
                "prometheus_remote_storage_shards_desired",
                "The number of shards that the queues shard calculation wants to run based on the rate of samples in vs. \
                 samples out.",
                ENDPOINT_LABELS,
            ),
            max_samples_per_send: registry.gauges(
                "prometheus_remote_storage_max_samples_per_send",
                "The maximum number of samples to be sent, in a single request, to the remote storage. Note that, when \
                 sending of exemplars over remote write is enabled, exemplars count towards this limt.",
                ENDPOINT_LABELS,
            ),
            highest_received: registry.gauge(
                "prometheus_remote_storage_highest_timestamp_in_seconds",
                "Highest timestamp that has come into the remote storage via the Appender interface, in seconds since \
                 epoch. Initialized to 0 when no data has been received yet.",
            ),
            queue_highest: registry.gauges(
                "prometheus_remote_storage_queue_highest_timestamp_seconds",
                "Highest timestamp that was enqueued, in seconds since epoch.",
                ENDPOINT_LABELS,
            ),
            queue_highest_sent: registry.gauges(
                "prometheus_remote_storage_queue_highest_sent_timestamp_seconds",
                "Timestamp from a WAL sample, the highest timestamp successfully sent by this queue, in seconds since \
                 epoch.",
                ENDPOINT_LABELS,
            ),
            samples_in: registry
                .counter_values(
                    "prometheus_remote_storage_samples_in_total",
                    "Samples in to remote storage, compare to samples out for queue managers.",
                    &[],
                )
                .with(&[]),
            histograms_in: registry
                .counter_values(
                    "prometheus_remote_storage_histograms_in_total",
                    "HistogramSamples in to remote storage, compare to histograms out for queue managers.",
                    &[],
                )
                .with(&[]),
            exemplars_in: registry
                .counter_values(
                    "prometheus_remote_storage_exemplars_in_total",
                    "Exemplars in to remote storage, compare to exemplars out for queue managers.",
                    &[],
                )
                .with(&[]),
            wal_bytes: registry.gauge(
                "prometheus_tsdb_wal_storage_size_bytes",
                "Size of the write log directory.",
            ),
            wal_segment: registry.gauge(
                "prometheus_tsdb_wal_segment_current",
                "Write log segment index that TSDB is currently writing to.",
            ),
            wal_corruptions: registry.counter_values(
                "prometheus_remote_write_wal_corruptions_total",
                "Total number of WAL corruptions.",
                &[],
            ).with(&[]),
            wal_samples: registry.counter_values(
                "prometheus_remote_write_wal_samples_appended_total",
                "Total number of samples appended to the WAL",
                &[],
            ).with(&[]),
        });
        let weak = Arc::downgrade(&shared);
        registry.before_gathering(weak);
        shared
    }

    fn send_metrics(&self, labels: &[&str]) -> SendMetrics {
        SendMetrics {
            sent: self.sent.with(labels),
            failed: self.failed.with(labels),
            retried: self.retried.with(labels),
            bytes: self.bytes.with(labels),
            duration: self.duration.with(labels),
        }
    }

    /// Forgets the metrics of an endpoint, unless it is in the configuration.
    fn forget(&self, info: &EndpointInfo) {
        let infos = self.endpoints.lock();
        if infos.iter().any(|other| other.remote_name == info.remote_name && other.url == info.url) {
            return;
        }
        let labels = [info.remote_name.as_str(), info.url.as_str()];
        for kinds in [&self.sent, &self.failed, &self.retried] {
            for counters in [&kinds.samples, &kinds.histograms, &kinds.exemplars] {
                counters.remove(&labels);
            }
        }
        self.bytes.remove(&labels);
        self.duration.remove(&labels);
        for gauges in [
            &self.pending,
            &self.shards,
            &self.shards_min,
            &self.shards_max,
            &self.shards_desired,
            &self.shard_capacity,
            &self.max_samples_per_send,
            &self.queue_highest,
            &self.queue_highest_sent,
        ] {
            gauges.remove(&labels);
        }
        for reason in [
            "dropped_series",
            "too_large",
            "too_old",
            "expired",
            "overflow",
            "memory_overflow",
            "damaged",
            "missing_segment",
        ] {
            self.dropped.remove(&[&info.remote_name, &info.url, reason]);
        }
        self.histograms_dropped.remove(&[&info.remote_name, &info.url, "nhcb_in_rw1_not_supported"]);
    }
}

impl Refresh for SharedMetrics {
    fn refresh(&self) {
        let endpoints = self.endpoints.lock().clone();
        let mut lanes: Vec<&Arc<Lane>> = Vec::new();
        for info in &endpoints {
            if !lanes.iter().any(|lane| Arc::ptr_eq(lane, &info.lane)) {
                lanes.push(&info.lane);
            }
            let labels = [info.remote_name.as_str(), info.url.as_str()];
            let (lag, stats) = (info.reader.lag(), info.reader.stats());
            let config = info.queue_config.lock().clone();
            self.pending.with(&labels).set(lag.pending.samples as f64);
            self.shards.with(&labels).set(f64::from(info.lane.partitions()));
            self.shards_min.with(&labels).set(f64::from(config.min_shards));
            self.shards_max.with(&labels).set(f64::from(config.max_shards));
            self.shards_desired.with(&labels).set(*info.desired_shards.lock());
            self.shard_capacity.with(&labels).set(f64::from(config.capacity));
            let unsendable = info.lane.unsendable() as f64;
            self.histograms_dropped.with(&[labels[0], labels[1], "nhcb_in_rw1_not_supported"]).set(unsendable);
            self.max_samples_per_send.with(&labels).set(f64::from(config.max_samples_per_send));
            self.queue_highest.with(&labels).set(seconds(lag.highest_appended_ms.unwrap_or_default()));
            let sent = info.state.highest_sent_ms.load(Ordering::Relaxed) as i64;
            self.queue_highest_sent.with(&labels).set(seconds(sent));
            self.dropped.with(&[labels[0], labels[1], "dropped_series"]).set(info.lane.dropped() as f64);
            self.dropped.with(&[labels[0], labels[1], "too_large"]).set(info.lane.too_large() as f64);
            for (reason, totals) in &stats.dropped {
                if *reason != "refused" {
                    self.dropped.with(&[labels[0], labels[1], reason]).set(totals.samples as f64);
                }
            }
        }
        let (mut bytes, mut segment, mut damaged, mut highest) = (0, 0, 0, i64::MIN);
        let samples = self.received.samples.load(Ordering::Relaxed);
        for lane in lanes {
            let stats = lane.queue().stats();
            bytes += stats.disk_bytes;
            segment = segment.max(stats.segment_current);
            damaged += stats.damaged_records + stats.torn_tails;
            highest = highest.max(stats.highest_ms.unwrap_or(i64::MIN));
        }
        self.wal_bytes.set(bytes as f64);
        self.wal_segment.set(segment as f64);
        self.wal_corruptions.set(damaged as f64);
        self.wal_samples.set(samples as f64);
        self.samples_in.set(samples as f64);
        self.histograms_in.set(self.received.histograms.load(Ordering::Relaxed) as f64);
        self.exemplars_in.set(self.received.exemplars.load(Ordering::Relaxed) as f64);
        self.highest_received.set(if highest == i64::MIN { 0.0 } else { seconds(highest) });
    }
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

impl DebugInfo for SharedMetrics {
    fn debug_info(&self) -> Vec<Item> {
        let endpoints = self.endpoints.lock().clone();
        endpoints.iter().map(|info| info.debug_info()).collect()
    }
}

impl EndpointInfo {
    fn debug_info(&self) -> Item {
        let attr = |name: &str, value: Value| Item::Attr { name: name.to_owned(), value };
        let lag = self.reader.lag();
        let mut body = vec![
            attr("name", Value::from(self.remote_name.as_str())),
            attr("url", Value::from(self.url.as_str())),
            attr("samples_pending", Value::from(lag.pending.samples)),
            attr("shards", Value::from(u64::from(self.lane.partitions()))),
        ];
        if let Some((at, error)) = &*self.state.last_error.lock() {
            body.push(attr("last_error", Value::from(error.as_str())));
            body.push(attr("last_error_at", Value::from(corten_component::log::rfc3339(*at))));
        }
        Item::Block { name: "endpoint".to_owned(), label: None, body }
    }
}

/// How often the number of partitions is chosen anew.
const RESHARD_EVERY: Duration = Duration::from_secs(10);

/// The weight of the newest measurement in a rate.
const RATE_WEIGHT: f64 = 0.2;

/// Measurements of an endpoint, smoothed, a second.
#[derive(Default)]
struct Rates {
    measured: Option<(Instant, u64, u64, u64)>,
    taken: f64,
    sent: f64,
    sending: f64,
    smooth: bool,
}

impl RemoteWrite {
    /// Starts the sender of an endpoint. It begins when those have ended that send what the endpoint was to get before.
    fn start_endpoint(&mut self, endpoint: PreparedEndpoint, lane: &Arc<Lane>, cx: &Context<Self>) -> RunningEndpoint {
        let identity = endpoint.identity;
        let (remote_name, url) = (endpoint.config.remote_name(&identity), endpoint.config.shown_url());
        let reader = lane.queue().reader(&identity, reader_options(&endpoint.config.queue_config));
        let state = Arc::new(SendState::default());
        let settings = self.settings.entry(identity.clone());
        let settings = settings.or_insert_with(|| watch::Sender::new(Arc::new(endpoint.settings))).subscribe();
        let (ending, ending_of_sender) = watch::channel(false);
        let (alive, done) = watch::channel(());
        let sender = Sender {
            reader: reader.clone(),
            settings,
            metrics: self.shared.send_metrics(&[&remote_name, &url]),
            state: Arc::clone(&state),
            logger: cx.logger().clone(),
            ending: ending_of_sender,
            report: self.shared.failing.reporter(&remote_name, &url, cx),
        };
        let predecessors = self.predecessors.entry(identity).or_default();
        predecessors.retain(|predecessor| predecessor.has_changed().is_ok());
        let predecessors = predecessors.clone();
        let info = Arc::new(EndpointInfo {
            remote_name,
            url,
            lane: Arc::clone(lane),
            reader,
            state,
            queue_config: Mutex::new(endpoint.config.queue_config),
            rates: Mutex::default(),
            desired_shards: Mutex::new(1.0),
        });
        let handle = tokio::spawn(async move {
            for mut predecessor in predecessors {
                while predecessor.changed().await.is_ok() {}
            }
            sender.run().await;
            drop(alive);
        });
        RunningEndpoint { info, ending, done, handle }
    }

    fn start(inlet: Inlet<Metrics>, cx: &Context<Self>) -> Self {
        let shared = SharedMetrics::new(cx.metrics());
        cx.show_debug_info(Arc::clone(&shared) as Arc<dyn DebugInfo>);
        let context = cx.clone();
        let watched = Arc::clone(&shared);
        let keeper = cx.spawn("shard keeper", move |mut stop| {
            let (context, shared) = (context.clone(), Arc::clone(&watched));
            async move {
                while stop.sleep(RESHARD_EVERY).await {
                    let endpoints = shared.endpoints.lock().clone();
                    choose_partitions(&endpoints, &context);
                }
                Ok(())
            }
        });
        RemoteWrite {
            inlet,
            stage: Arc::new(Stage { lanes: Vec::new(), shared: Arc::clone(&shared) }),
            lanes: HashMap::new(),
            endpoints: HashMap::new(),
            settings: HashMap::new(),
            leftovers: Vec::new(),
            old_queues: OldQueues::default(),
            predecessors: HashMap::new(),
            shared,
            keeper,
        }
    }
}

/// Chooses for each lane among how many partitions its series are shared out: as many requests as it takes to send what
/// comes in, and a twentieth of what waits each second.
fn choose_partitions(endpoints: &[Arc<EndpointInfo>], cx: &Context<RemoteWrite>) {
    for info in endpoints {
        info.measure();
    }
    for info in endpoints {
        let of_lane = || endpoints.iter().filter(|other| Arc::ptr_eq(&other.lane, &info.lane));
        if !of_lane().next().is_some_and(|first| Arc::ptr_eq(first, info)) {
            continue;
        }
        info.lane.sweep();
        let wanted = of_lane().map(|info| info.wanted_shards()).max().unwrap_or(1);
        let now = info.lane.partitions();
        if wanted != now {
            let fields = [("from", Field::from(now)), ("to", Field::from(wanted))];
            cx.logger().info("Remote storage resharding", &fields);
            info.lane.set_partitions(wanted);
        }
    }
}

impl EndpointInfo {
    fn measure(&self) {
        let taken = self.lane.taken();
        let sent = self.state.sent.load(Ordering::Relaxed);
        let sending = self.state.sending_nanos.load(Ordering::Relaxed);
        let mut rates = self.rates.lock();
        if let Some((at, taken_before, sent_before, sending_before)) =
            rates.measured.replace((Instant::now(), taken, sent, sending))
        {
            let seconds = at.elapsed().as_secs_f64().max(0.001);
            let weight = if std::mem::replace(&mut rates.smooth, true) { RATE_WEIGHT } else { 1.0 };
            let step = |rate: &mut f64, delta: f64| *rate += weight * (delta / seconds - *rate);
            step(&mut rates.taken, taken.saturating_sub(taken_before) as f64);
            step(&mut rates.sent, sent.saturating_sub(sent_before) as f64);
            step(&mut rates.sending, sending.saturating_sub(sending_before) as f64 / 1e9);
        }
    }

    fn wanted_shards(&self) -> u16 {
        let config = self.queue_config.lock().clone();
        let clamp = |shards: u16| shards.clamp(config.min_shards, config.max_shards);
        let now = clamp(self.lane.partitions());
        let rates = self.rates.lock();
        if rates.sent <= 0.0 || self.state.failing.load(Ordering::Relaxed) {
            // Nothing is known of how fast the endpoint is, or it takes nothing: more requests would not help it.
            return now;
        }
        let lag = self.reader.lag();
        let waiting = lag.pending.samples as f64;
        let backlog = (waiting - rates.taken * config.batch_send_deadline.as_secs_f64()).max(0.0);
        let desired = rates.sending / rates.sent * (rates.taken + 0.05 * backlog);
        *self.desired_shards.lock() = desired;
        let current = f64::from(now);
        if desired > current * 0.7 && desired < current * 1.3 {
            return now;
        }
        clamp(desired.ceil().clamp(1.0, f64::from(u16::MAX)) as u16)
    }
}
