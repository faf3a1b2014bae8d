//! `loki.write`.

mod arguments;
mod group;
mod lane;
mod metrics;
mod protocol;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use corten_component::{Component, Context, DebugInfo, Error, Field, Health, HealthState, Task};
use corten_config::Exports;
use corten_net::{Client, ClientOptions};
use corten_queue::{Options, PARTITIONS_MAX, Queue, Reader, ReaderOptions, Start, Totals, default_bytes_max};
use corten_signal::flow::BoxFuture;
use corten_signal::ledger::Row;
use corten_signal::logs::StreamCache;
use corten_signal::{Consume, ConsumeError, Inlet, Kind, LabelsBuilder, Logs, LogsBatch, Receiver, Stream};
use corten_sink::{
    BACKOFF_MIN, Departing, Failing, Lane, LaneBooks, Leaving, Pace, QueueEnd, SendState, Sender, client_options,
    leave_lane, open_queue,
};
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderName, USER_AGENT};
use http::{HeaderMap, HeaderValue, Uri};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::arguments::url_identity;
pub use self::arguments::{Config, Endpoint, QueueConfig, Wal};
use self::group::{Limits, Place};
use self::lane::{LogsLane, books};
use self::metrics::{EndpointInfo, INGESTER_ERROR, STREAM_LIMITED, SharedMetrics, TOO_LARGE};
use self::protocol::{Own, PushProtocol, Settings};

/// How large the queue on disk may be unless somebody says otherwise, in bytes.
const QUEUE_BYTES_MAX: u64 = 512 << 20;

/// How much of one request's records is read ahead, compressed, in bytes.
const READ_BYTES_MAX: usize = 512 << 10;

/// How many partitions tenants are shared out among at most, so that one that is refused does not stop the others.
const SLOTS_MAX: u16 = 64;

/// How long the request of a tenant may take, with its attempts, before the others are sent whatever waits for it.
const OVERTAKE_AFTER: Duration = Duration::from_secs(2);

/// How often a request is sent at most where what waits is in memory.
const ATTEMPTS_IN_MEMORY: u64 = 10;

/// How often it is looked whether the queue has dropped something.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How long the queue keeps what waits for an endpoint that is gone from the configuration.
const GONE_AGE_MAX: Duration = Duration::from_secs(8 * 3600);

/// As good as for ever.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// What names the queue among those whose health is told of. It comes before all endpoints: that something was dropped is
/// worse than that something waits.
const QUEUE: &str = "!queue";

/// What others can refer to.
#[derive(Exports, Clone, Debug, PartialEq)]
pub struct Exported {
    /// Takes the entries that are to be sent.
    receiver: Receiver<Logs>,
}

/// The component.
pub struct Write {
    inlet: Inlet<Logs>,
    stage: Arc<Stage>,
    lane: Arc<LogsLane>,
    is_on_disk: bool,
    /// The queue on disk while it is not the one that is written, because something of it may still be sent.
    parked: Option<Queue>,
    /// The lane that wrote it.
    parked_lane: Option<Arc<LogsLane>>,
    endpoints: HashMap<String, Running>,
    leaving: Vec<Leaving>,
    /// Senders that come first, by the identity of the endpoint. A channel closes when its sender has ended.
    predecessors: HashMap<String, Vec<watch::Receiver<()>>>,
    /// The endpoints that are in the configuration. While it is locked, nobody's place in the queue is forgotten.
    present: Arc<Mutex<HashSet<String>>>,
    shared: Arc<SharedMetrics>,
    failing: Arc<Failing<String>>,
    drain_timeout: Duration,
    keeper: Task,
}

/// An endpoint that is sent to.
struct Running {
    reader: Reader,
    segment_at_start: u64,
    settings: watch::Sender<Arc<Settings>>,
    state: Arc<SendState>,
    end: Arc<QueueEnd>,
    ending: watch::Sender<bool>,
    /// Closes when the sender has ended.
    done: watch::Receiver<()>,
    handle: JoinHandle<()>,
}

/// What was prepared.
pub struct Prepared {
    config: Config,
    /// By the identities of the endpoints.
    settings: Vec<(String, Settings)>,
    options: Options,
    queue: Queue,
    /// Whether it is the one that runs.
    is_kept: bool,
    /// The queue on disk of a configuration with one, where this one has none.
    leftover: Option<Queue>,
    inlet: Option<Inlet<Logs>>,
}

impl Component for Write {
    const NAME: &'static str = "loki.write";
    type Arguments = Config;
    type Exports = Exported;
    type Prepared = Prepared;

    async fn prepare(
        config: Config,
        cx: &Context<Self>,
        current: Option<&Self>,
    ) -> Result<(Prepared, Exported), Error> {
        let mut settings = Vec::new();
        for (endpoint, identity) in config.endpoints.iter().zip(config.identities()) {
            settings.push((identity, send_settings(endpoint, &config, cx).await?));
        }
        let dir = queue_dir(cx);
        let options = queue_options(&config, cx.services().queue_bytes_max, &dir);
        let kept = current.filter(|current| current.is_on_disk == config.is_on_disk());
        let parked = current.and_then(|current| current.parked.clone());
        let queue = match (kept, config.is_on_disk(), parked) {
            (Some(current), _, _) => current.lane.queue().clone(),
            (None, true, Some(parked)) => parked,
            (None, true, None) => open_queue(dir, options.clone(), &mut Duration::default()).await?,
            (None, false, _) => Queue::in_memory(options.clone()).map_err(|error| Error::new(error.to_string()))?,
        };
        let has_leftover = current.is_none() && !config.is_on_disk() && queue_dir(cx).exists();
        let leftover = match has_leftover {
            // What cannot be opened is no reason not to take what comes.
            true => match open_queue(queue_dir(cx), options.clone(), &mut Duration::default()).await {
                Ok(queue) => Some(queue),
                Err(error) => {
                    let fields = [("err", Field::from(error.to_string()))];
                    cx.logger().error("failed to open the queue of an earlier configuration", &fields);
                    None
                }
            },
            false => None,
        };
        let inlet = current.is_none().then(|| Inlet::of(cx.ledger()));
        let receiver = match (&inlet, current) {
            (Some(inlet), _) => inlet.receiver(),
            (None, Some(current)) => current.inlet.receiver(),
            (None, None) => Receiver::NOWHERE,
        };
        let is_kept = kept.is_some();
        let prepared = Prepared { config, settings, options, queue, is_kept, leftover, inlet };
        Ok((prepared, Exported { receiver }))
    }

    fn commit(current: Option<Self>, prepared: Prepared, cx: &Context<Self>) -> Self {
        let Prepared { config, settings, options, queue, is_kept, leftover, inlet } = prepared;
        let capacity = if config.is_on_disk() { options.bytes_max } else { options.memory_bytes_max as u64 };
        queue.set_options(options);
        let mut component = match current {
            Some(current) => current,
            None => Self::start(inlet.unwrap_or_else(|| Inlet::of(cx.ledger())), &queue, &config, cx),
        };
        if let Some(leftover) = leftover {
            component.send_leftover(leftover, &config, &settings, cx);
        }
        let component = component.change(&config, settings, queue, is_kept, cx);
        component.lane.set_capacity(capacity);
        component
    }

    async fn drain(self, _: &Context<Self>) {
        self.inlet.close();
        self.keeper.stop().await;
        let deadline = tokio::time::Instant::now() + self.drain_timeout;
        // Where the queue is full and waits for room, that is as long as a peer that takes nothing pleases.
        let _ = tokio::time::timeout_at(deadline, self.lane.close()).await;
        for running in self.endpoints.values() {
            running.reader.flush();
            // What the peer takes is still sent; what it refuses for now waits on disk.
            running.ending.send_replace(self.is_on_disk);
        }
        for leaving in &self.leaving {
            leaving.stop.send_replace(true);
        }
        for leaving in self.leaving {
            let mut handle = leaving.handle;
            // What was not sent waits for the next start.
            if tokio::time::timeout_at(deadline, &mut handle).await.is_err() {
                handle.abort();
            }
        }
        for mut running in self.endpoints.into_values() {
            if tokio::time::timeout_at(deadline, &mut running.handle).await.is_err() {
                running.handle.abort();
            }
        }
        self.failing.keep(Vec::new());
        self.shared.set_endpoints(Vec::new(), None);
        if let Some(parked) = self.parked {
            parked.close().await;
        }
        self.lane.queue().clone().close().await;
    }
}

impl Write {
    /// A component without endpoints, which takes nothing yet.
    fn start(inlet: Inlet<Logs>, queue: &Queue, config: &Config, cx: &Context<Self>) -> Self {
        let shared = SharedMetrics::new(cx.metrics());
        cx.show_debug_info(Arc::clone(&shared) as Arc<dyn DebugInfo>);
        let failing = Failing::new(Arc::clone(cx.health()));
        let (watched, report, logger) = (Arc::clone(&shared), failing.reporter(QUEUE.to_owned()), cx.logger().clone());
        let keeper = cx.spawn("queue keeper", move |mut stop| {
            let (shared, report, logger) = (Arc::clone(&watched), Arc::clone(&report), logger.clone());
            async move {
                loop {
                    let goes_on = stop.sleep(LOOK_EVERY).await;
                    let mut health = None;
                    for ((host, reason), entries) in shared.take_lost() {
                        let fields = [("host", host.into()), ("reason", reason.into()), ("count", entries.into())];
                        logger.error("entries that waited in the queue were dropped", &fields);
                        if reason == metrics::QUEUE_IS_FULL {
                            let text = format!("the queue is full: {entries} entries were dropped");
                            health = Some(Health::now(HealthState::Unhealthy, text));
                        }
                    }
                    report(health);
                    if !goes_on {
                        return Ok(());
                    }
                }
            }
        });
        let lane = new_lane(queue.clone(), None, &shared, cx);
        Write {
            inlet,
            stage: Arc::new(Stage::new(&lane, config, &shared, None, cx)),
            lane,
            is_on_disk: config.is_on_disk(),
            parked: None,
            parked_lane: None,
            endpoints: HashMap::new(),
            leaving: Vec::new(),
            predecessors: HashMap::new(),
            present: Arc::default(),
            shared,
            failing,
            drain_timeout: Duration::ZERO,
            keeper,
        }
    }

    /// Takes another configuration, and perhaps another queue.
    fn change(
        mut self,
        config: &Config,
        settings: Vec<(String, Settings)>,
        queue: Queue,
        is_kept: bool,
        cx: &Context<Self>,
    ) -> Self {
        let is_first = self.endpoints.is_empty();
        let mut lane_before = None;
        if !is_kept && !is_first {
            // Of the queue that is written again. One in memory is always another.
            let wrote = self.parked_lane.take().filter(|_| config.is_on_disk());
            let lane = new_lane(queue, wrote, &self.shared, cx);
            let before = std::mem::replace(&mut self.lane, lane);
            self.parked = self.is_on_disk.then(|| before.queue().clone());
            self.parked_lane = self.is_on_disk.then(|| Arc::clone(&before));
            self.is_on_disk = config.is_on_disk();
            lane_before = Some(before);
        }
        // As long as this is locked, nothing of an endpoint is forgotten that comes back.
        let present = Arc::clone(&self.present);
        let mut present = present.lock();
        *present = settings.iter().map(|(identity, _)| identity.clone()).collect();
        let mut before = std::mem::take(&mut self.endpoints);
        if lane_before.is_none() {
            self.rename(&settings, &present, &mut before);
        }
        let mut infos = Vec::new();
        // Who reads first gets what is there, if nobody knows where reading ended: rather twice than never.
        let knows_nobody = self.lane.queue().reader_names().is_empty();
        let mut starting = Vec::new();
        for ((identity, settings), endpoint) in settings.into_iter().zip(&config.endpoints) {
            let mut options = reader_options(endpoint);
            options.start = if knows_nobody { Start::Oldest } else { Start::Newest };
            let running = if lane_before.is_none() { before.remove(&identity) } else { None };
            match running {
                Some(running) => {
                    running.reader.set_options(options);
                    infos.push(running.info(&identity, &settings));
                    running.settings.send_replace(Arc::new(settings));
                    self.endpoints.insert(identity, running);
                }
                None => starting.push((identity, settings, options)),
            }
        }
        let mut gone = Vec::new();
        for (identity, running) in before {
            self.predecessors.entry(identity.clone()).or_default().push(running.done);
            let stays = present.contains(&identity);
            let Running { reader, ending, handle, end, .. } = running;
            // What comes after it may have its name.
            self.shared.ends.rename(&end);
            let (shared, end) = (Arc::clone(&self.shared), Arc::downgrade(&end));
            let forget: Box<dyn FnOnce() + Send> = Box::new(move || shared.ends.forget(&end));
            gone.push(Departing { identity, reader, ending, handle, stays, gone: Some(forget) });
        }
        for (identity, settings, options) in starting {
            let (queue, lane) = (self.lane.queue().clone(), Some(books(&self.lane)));
            let running = self.start_endpoint(&queue, lane, &identity, settings.clone(), options, cx);
            infos.push(running.info(&identity, &settings));
            self.endpoints.insert(identity, running);
        }
        // Some have taken over what others had not sent yet.
        self.shared.ends.forget_ended();
        drop(present);
        self.failing.keep(self.endpoints.keys().cloned().chain([QUEUE.to_owned()]).collect());
        self.shared.set_endpoints(infos, Some(self.lane.queue().clone()));
        let drains = config.endpoints.iter().map(|endpoint| endpoint.queue_config.drain_timeout).max();
        self.drain_timeout = if self.is_on_disk { config.wal.drain_timeout } else { drains.unwrap_or_default() };
        if is_first || lane_before.is_some() {
            self.send_orphans(config, cx);
        }
        let before = (!is_first).then_some(&*self.stage);
        let stage = Arc::new(Stage::new(&self.lane, config, &self.shared, before, cx));
        self.inlet.attach(Arc::clone(&stage) as Arc<dyn Consume<Logs>>);
        let stage_before: Weak<dyn Send + Sync> = Arc::<Stage>::downgrade(&std::mem::replace(&mut self.stage, stage));
        match lane_before {
            Some(lane) => self.leave_queue(lane.queue().clone(), Some(lane), gone, stage_before, cx),
            None if gone.is_empty() => {}
            None => {
                let (queue, logger) = (self.lane.queue().clone(), cx.logger().clone());
                let forget = self.forgetter(queue.clone());
                self.leaving.push(leave_lane(queue, gone, true, stage_before, forget, logger));
            }
        }
        self.leaving.retain(|leaving| !leaving.handle.is_finished());
        self
    }

    /// Gives what waits for an endpoint that has another name now to that name. What is in `before` was running.
    fn rename(
        &mut self,
        settings: &[(String, Settings)],
        present: &HashSet<String>,
        before: &mut HashMap<String, Running>,
    ) {
        let queue = self.lane.queue().clone();
        let known = queue.reader_names();
        let gone: Vec<(&String, String)> = known
            .iter()
            .filter(|identity| !present.contains(*identity))
            .map(|identity| {
                // The name of one that does not run says nothing of its URL, unless it is the URL.
                let url = before.get(identity).map(|running| url_identity(&running.settings.borrow().url));
                (identity, url.unwrap_or_else(|| identity.clone()))
            })
            .collect();
        let new = settings.iter().filter(|(identity, _)| !known.contains(identity));
        let new: Vec<(&String, String)> =
            new.map(|(identity, settings)| (identity, url_identity(&settings.url))).collect();
        for (to, url) in &new {
            let mut of_url = gone.iter().filter(|(_, gone_url)| gone_url == url);
            let (Some((from, _)), None) = (of_url.next(), of_url.next()) else { continue };
            if new.iter().filter(|(_, other)| other == url).count() > 1 || !queue.rename_reader(from, to) {
                continue;
            }
            let before_it = self.predecessors.remove(*from).unwrap_or_default();
            self.predecessors.entry((*to).clone()).or_default().extend(before_it);
            if let Some(running) = before.remove(*from) {
                // What it has under way is handed out again; it only has to end before.
                running.ending.send_replace(true);
                self.predecessors.entry((*to).clone()).or_default().push(running.done);
                let (stop, _) = watch::channel(false);
                self.leaving.push(Leaving { stop, handle: running.handle });
            }
        }
    }

    /// Starts the sender of an endpoint. It begins when those have ended that send what the endpoint was to get before.
    fn start_endpoint(
        &mut self,
        queue: &Queue,
        lane: Option<Arc<dyn LaneBooks>>,
        identity: &str,
        settings: Settings,
        options: ReaderOptions,
        cx: &Context<Self>,
    ) -> Running {
        let reader = queue.reader(identity, options);
        let state = Arc::new(SendState::default());
        let end = QueueEnd::new(Kind::LokiLog, identity.to_owned(), settings.url.to_string(), &reader, &state, lane);
        let end = self.shared.ends.keep(end, cx.ledger());
        let (settings, settings_of_sender) = watch::channel(Arc::new(settings));
        let (ending, ending_of_sender) = watch::channel(false);
        let (alive, done) = watch::channel(());
        let sender = Sender {
            reader: reader.clone(),
            settings: settings_of_sender,
            protocol: PushProtocol { metrics: Arc::clone(&self.shared), logger: cx.logger().clone() },
            state: Arc::clone(&state),
            ending: ending_of_sender,
            pace: Pace::default(),
            report: self.failing.reporter(identity.to_owned()),
        };
        let predecessors = self.predecessors.entry(identity.to_owned()).or_default();
        predecessors.retain(|predecessor| predecessor.has_changed().is_ok());
        let predecessors = predecessors.clone();
        let handle = tokio::spawn(async move {
            sender.run_after(predecessors).await;
            drop(alive);
        });
        Running { segment_at_start: reader.stats().segment, reader, settings, state, end, ending, done, handle }
    }

    /// What forgets the place of an endpoint in a queue that goes on without it, unless it is back, or was and left again:
    /// then the reader is no longer the one who has it.
    fn forgetter(&self, queue: Queue) -> impl Fn(&str, &Reader) + Send + Sync + 'static {
        let present = Arc::clone(&self.present);
        move |identity, reader| {
            let present = present.lock();
            if !reader.has_ended() && !present.contains(identity) {
                queue.remove_reader(identity);
            }
        }
    }

    /// Sends what waits in a queue that is written no more, by this lane if there was one.
    fn leave_queue(
        &mut self,
        queue: Queue,
        lane: Option<Arc<LogsLane>>,
        senders: Vec<Departing>,
        stage: Weak<dyn Send + Sync>,
        cx: &Context<Self>,
    ) {
        let logger = cx.logger().clone();
        let (stop, mut stopped) = watch::channel(false);
        let handle = tokio::spawn(async move {
            corten_sink::finished(&stage, &mut stopped).await;
            if let Some(lane) = &lane {
                lane.close().await;
            }
            let mut departing = tokio::task::JoinSet::new();
            for sender in senders {
                sender.reader.flush();
                let (stopped, logger) = (stopped.clone(), logger.clone());
                departing.spawn(async move { sender.depart(stopped, &logger).await });
            }
            while departing.join_next().await.is_some() {}
            // It would close itself without a handle.
            drop(queue);
        });
        self.leaving.push(Leaving { stop, handle });
    }

    /// Sends what waits on disk from a time when the queue was there.
    fn send_leftover(&mut self, queue: Queue, config: &Config, settings: &[(String, Settings)], cx: &Context<Self>) {
        let mut senders = Vec::new();
        for ((identity, settings), endpoint) in settings.iter().zip(&config.endpoints) {
            if queue.lag(identity).is_none_or(|lag| lag.pending.records == 0) {
                continue;
            }
            let running = self.start_endpoint(&queue, None, identity, settings.clone(), reader_options(endpoint), cx);
            self.predecessors.entry(identity.clone()).or_default().push(running.done);
            let Running { reader, ending, handle, settings, end, .. } = running;
            self.shared.ends.rename(&end);
            let (shared, end) = (Arc::clone(&self.shared), Arc::downgrade(&end));
            // Later changes of the endpoint are not for what is left.
            let gone: Box<dyn FnOnce() + Send> = Box::new(move || {
                drop(settings);
                shared.ends.forget(&end);
            });
            senders.push(Departing {
                identity: identity.clone(),
                reader,
                ending,
                handle,
                stays: true,
                gone: Some(gone),
            });
        }
        self.parked = Some(queue.clone());
        self.leave_queue(queue, None, senders, Weak::<Stage>::new(), cx);
    }

    /// What waits for endpoints that left the configuration while the program did not run is kept for a while: a cursor keeps
    /// also from being deleted what comes from now on.
    fn send_orphans(&mut self, config: &Config, cx: &Context<Self>) {
        let queue = self.lane.queue();
        for name in queue.reader_names() {
            if self.endpoints.contains_key(&name) {
                continue;
            }
            if queue.lag(&name).is_none_or(|lag| lag.pending.records == 0) {
                queue.remove_reader(&name);
                continue;
            }
            let fields = [("endpoint", Field::from(&name))];
            cx.logger().warn("an endpoint is gone; what waits for it is kept until it is too old", &fields);
            let age_max = config.wal.max_segment_age.unwrap_or(GONE_AGE_MAX);
            let (stop, mut stopped) = watch::channel(false);
            let (queue, present) = (queue.clone(), Arc::clone(&self.present));
            let handle = tokio::spawn(async move {
                if tokio::time::timeout(age_max, stopped.wait_for(|stop| *stop)).await.is_err() {
                    let present = present.lock();
                    if !present.contains(&name) {
                        queue.remove_reader(&name);
                    }
                }
            });
            self.leaving.push(Leaving { stop, handle });
        }
    }
}

impl Running {
    fn info(&self, identity: &str, settings: &Settings) -> Arc<EndpointInfo> {
        Arc::new(EndpointInfo {
            identity: identity.to_owned(),
            url: settings.url.to_string(),
            host: settings.own.host.clone(),
            tenant_id: settings.own.tenant_id.clone(),
            reader: self.reader.clone(),
            segment_at_start: self.segment_at_start,
            state: Arc::clone(&self.state),
            end: Arc::clone(&self.end),
        })
    }
}

/// A lane into a queue. What no record can hold is counted.
fn new_lane(
    queue: Queue,
    before: Option<Arc<LogsLane>>,
    shared: &Arc<SharedMetrics>,
    cx: &Context<Write>,
) -> Arc<LogsLane> {
    let lane = Lane::new(Arc::from(cx.id()), queue, "entries", cx.logger().clone());
    let shared = Arc::downgrade(shared);
    lane.on_too_large(Box::new(move |tenant, lost| {
        if let Some(shared) = shared.upgrade() {
            shared.dropped_before(tenant, TOO_LARGE, lost);
        }
    }));
    Arc::new(LogsLane::new(lane, before))
}

/// Where the queue on disk is.
fn queue_dir(cx: &Context<Write>) -> PathBuf {
    cx.data_dir().join("queue").join("logs")
}

/// The limits of the queue.
fn queue_options(config: &Config, bytes_max: Option<u64>, dir: &Path) -> Options {
    let capacity = |endpoint: &Endpoint| {
        let queue = &endpoint.queue_config;
        queue.capacity.bytes().saturating_mul(u64::from(queue.min_shards.max(1)))
    };
    let capacity = config.endpoints.iter().map(capacity).max().unwrap_or_default();
    let capacity = usize::try_from(capacity).unwrap_or(usize::MAX);
    let defaults = Options::default();
    Options {
        bytes_max: bytes_max.unwrap_or_else(|| QUEUE_BYTES_MAX.min(default_bytes_max(dir))),
        age_max: config.wal.max_segment_age.unwrap_or(NEVER),
        keep_settled_min: Duration::ZERO,
        truncate_every: Duration::from_secs(60),
        memory_bytes_max: if config.is_on_disk() { capacity.max(defaults.memory_bytes_max) } else { capacity },
        block_on_overflow: config.blocks(),
        ..defaults
    }
}

fn reader_options(endpoint: &Endpoint) -> ReaderOptions {
    let batch_bytes = endpoint.batch_size.bytes();
    ReaderOptions {
        items_max: u32::MAX,
        bytes_max: READ_BYTES_MAX.min(usize::try_from(batch_bytes).unwrap_or(usize::MAX)).max(1),
        raw_bytes_max: batch_bytes,
        wait_max: endpoint.batch_wait,
        age_max: None,
        overtake_after: Some(OVERTAKE_AFTER),
        ..ReaderOptions::default()
    }
}

async fn send_settings(endpoint: &Endpoint, config: &Config, cx: &Context<Write>) -> Result<Settings, Error> {
    let invalid = |error: &dyn std::fmt::Display| Error::new(error.to_string());
    let mut headers = HeaderMap::new();
    let mut authorization = HeaderMap::new();
    for (name, value) in &endpoint.headers {
        let name = HeaderName::try_from(name.as_str()).map_err(|e| invalid(&e))?;
        let value = HeaderValue::try_from(value.as_str()).map_err(|e| invalid(&e))?;
        if name == AUTHORIZATION {
            // It wins over the configured authentication.
            authorization.insert(name, value);
        } else if ![USER_AGENT, CONTENT_TYPE, CONTENT_ENCODING, HOST].contains(&name)
            && !["x-agent-id", "x-alloy-id"].contains(&name.as_str())
        {
            headers.insert(name, value);
        }
    }
    let common = client_options(&std::collections::BTreeMap::new(), cx)?;
    let options = ClientOptions { headers: authorization, ..common };
    let client = Client::new(endpoint.client.clone(), options).await.map_err(|e| invalid(&e))?;
    // An address that leads nowhere is found out when it is used.
    let uri: Uri = endpoint.url.to_uri().unwrap_or_default();
    let host = uri.authority().map_or("", |authority| authority.as_str());
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host).to_owned();
    let attempts_max = match endpoint.max_backoff_retries {
        Some(0) => None,
        Some(attempts) => Some(u64::from(attempts)),
        None => (!config.is_on_disk()).then_some(ATTEMPTS_IN_MEMORY),
    };
    Ok(Settings {
        client,
        url: endpoint.url.clone(),
        uri,
        timeout: endpoint.remote_timeout,
        wait_max: endpoint.batch_wait,
        backoff_min: endpoint.min_backoff_period.max(BACKOFF_MIN),
        backoff_max: endpoint.max_backoff_period.max(endpoint.min_backoff_period),
        attempts_max,
        requests_max: usize::from(PARTITIONS_MAX),
        age_max: None,
        own: Own {
            host,
            tenant_id: endpoint.tenant_id.clone(),
            retry_on_429: endpoint.retry_on_http_429,
            headers,
            installation_id: HeaderValue::from_str(&cx.services().installation_id).map_err(|e| invalid(&e))?,
        },
    })
}

/// Takes batches into the lane.
struct Stage {
    lane: Arc<LogsLane>,
    row: Arc<Row>,
    record_bytes_max: usize,
    streams_max: Option<usize>,
    shards: u16,
    /// Among how many partitions tenants are shared out. It only grows, because a change is a barrier in the queue.
    slots: AtomicU16,
    external: Vec<(String, String)>,
    /// Streams with the external labels, by the labels without.
    streams: Mutex<StreamCache>,
    shared: Arc<SharedMetrics>,
    logger: corten_component::Logger,
    /// Whether it was said that a tenant cannot be sent.
    has_refused: AtomicBool,
}

impl Stage {
    fn new(
        lane: &Arc<LogsLane>,
        config: &Config,
        shared: &Arc<SharedMetrics>,
        before: Option<&Stage>,
        cx: &Context<Write>,
    ) -> Self {
        let shards = config.shards().min(PARTITIONS_MAX);
        let stage = Stage {
            lane: Arc::clone(lane),
            row: Arc::clone(cx.ledger().row_of::<Logs>()),
            record_bytes_max: config.record_bytes_max(),
            streams_max: config.max_streams.and_then(|max| usize::try_from(max).ok()).filter(|max| *max > 0),
            shards,
            slots: AtomicU16::new(1),
            external: config.external_labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            streams: Mutex::default(),
            shared: Arc::clone(shared),
            logger: cx.logger().clone(),
            has_refused: AtomicBool::new(false),
        };
        // As many as there were before, so that nothing has to wait for what waits for a peer that takes nothing.
        let slots = match before {
            Some(before) => before.slots.load(Ordering::Relaxed),
            None => {
                let endpoints = shared.endpoints.lock();
                endpoints.iter().map(|endpoint| endpoint.reader.stats().partitions).max().unwrap_or(1) / shards
            }
        };
        stage.grow(slots);
        if let Some(before) = before.filter(|before| before.shards != shards)
            && before.partitions() == stage.partitions()
        {
            // Streams change their partitions, and only another number of them makes those wait for what came before.
            let slots = stage.slots.load(Ordering::Relaxed);
            let others = if slots < stage.slots_max() { slots * 2 } else { slots / 2 };
            stage.slots.store(others.max(1), Ordering::Relaxed);
        }
        stage
    }

    fn slots_max(&self) -> u16 {
        let most = (PARTITIONS_MAX / self.shards).clamp(1, SLOTS_MAX);
        // A power of two, as all numbers of slots.
        1 << most.ilog2()
    }

    fn partitions(&self) -> u16 {
        self.slots.load(Ordering::Relaxed) * self.shards
    }

    /// There are to be so many slots from now on, as far as there can be.
    fn grow(&self, slots: u16) {
        let slots = slots.clamp(1, self.slots_max());
        self.slots.fetch_max(1 << slots.ilog2(), Ordering::Relaxed);
    }

    /// The stream with the external labels that it does not have.
    fn with_external<'s>(&self, stream: &'s Stream) -> Cow<'s, Stream> {
        if self.external.is_empty() {
            return Cow::Borrowed(stream);
        }
        let make = || {
            let mut labels = LabelsBuilder::new();
            for (name, value) in stream.labels().iter() {
                labels.push(name, value);
            }
            for (name, value) in &self.external {
                if stream.labels().get(name).is_none() {
                    labels.push(name, value);
                }
            }
            Stream::new(&mut labels)
        };
        match self.streams.lock().get_or_make(stream.labels().as_encoded(), make) {
            Ok(with) => Cow::Owned(with),
            // They are too long together; the entries are worth more than the labels.
            Err(_) => Cow::Borrowed(stream),
        }
    }

    /// Whether requests can name a tenant.
    fn can_name(&self, tenant: &str) -> bool {
        let can = tenant.len() <= corten_queue::TENANT_BYTES_MAX && HeaderValue::from_str(tenant).is_ok();
        if !can && !self.has_refused.swap(true, Ordering::Relaxed) {
            let fields = [("tenant", Field::from(tenant.escape_debug().to_string()))];
            self.logger.error("dropped entries whose tenant cannot stand in a header", &fields);
        }
        can
    }

    async fn take(&self, batch: LogsBatch) -> Result<(), ConsumeError> {
        let LogsBatch { entries, acks } = batch;
        // What is in the lane goes on, also where the rest does not get there any more.
        let mut pass = self.row.pass();
        for (stream, list) in entries.parts() {
            let stream = self.with_external(stream);
            let tenant = stream.tenant().cloned();
            if let Some(name) = &tenant
                && !self.can_name(name)
            {
                let bytes = list.iter().map(|entry| entries.size(entry) as u64).sum();
                let lost = Totals { samples: list.len() as u64, bytes, ..Totals::default() };
                self.shared.dropped_before(&tenant, INGESTER_ERROR, &lost);
                self.lane.refuse_tenant(list.len());
                self.row.out(list.len());
                pass.handed_on(list.len());
                continue;
            }
            self.shared.note_tenant(&tenant);
            if tenant.is_some() {
                // All at once, and with the first: what comes after a change has to wait for all that came before it.
                self.grow(SLOTS_MAX);
            }
            let limits = Limits {
                record_bytes_max: self.record_bytes_max,
                streams_max: self.streams_max,
                slots: self.slots.load(Ordering::Relaxed),
                shards: self.shards,
            };
            let place = Place { stream: &stream, tenant: &tenant };
            let mut rest = list;
            while !rest.is_empty() {
                self.lane.sink().wait_room().await?;
                let taken = self.lane.fill(|group| {
                    let taken = group.push(&place, &entries, rest, &limits);
                    if taken.entries > 0 {
                        group.join(&acks);
                    }
                    taken
                });
                self.row.out(taken.entries);
                pass.handed_on(taken.entries);
                if taken.stream_limited.samples > 0 {
                    self.shared.dropped_before(&tenant, STREAM_LIMITED, &taken.stream_limited);
                }
                rest = &rest[taken.entries..];
            }
        }
        // The records have shares of their own.
        acks.safe();
        pass.end(Ok(()))
    }
}

impl Consume<Logs> for Stage {
    fn consume(&self, batch: LogsBatch) -> BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(self.take(batch))
    }
}
