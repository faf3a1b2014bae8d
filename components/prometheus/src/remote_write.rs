//! `prometheus.remote_write`.

mod active;
mod arguments;
mod counts;
mod endpoint;
mod lane;
mod leftovers;
mod metadata;
mod metadata_sender;
mod metrics;
mod sender;
mod shards;
mod transform;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use corten_component::{Component, Context, DebugInfo, Error, Task};
use corten_config::Exports;
use corten_queue::{Options, Queue};
use corten_signal::flow::BoxFuture;
use corten_signal::ledger::{Row, Spread, reason_of};
use corten_signal::relabel::{NameScheme, Rules};
use corten_signal::{Consume, ConsumeError, Inlet, Metrics, MetricsBatch, Receiver};
use corten_sink::{Departing, FLUSH_WAIT_MAX, open_queue};
use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, watch};

pub use arguments::{Config, Endpoint, MetadataConfig, ProtobufMessage, QueueConfig, Wal};
use counts::counts_of;
use endpoint::{RunningEndpoint, send_settings};
use lane::{Kinds, Lane, LaneKey};
use leftovers::{Leftover, OldQueues, RunningLeftover, open_leftovers, queue_options};
use metadata::Known;
use metrics::SharedMetrics;
use sender::Settings;
use shards::{RESHARD_EVERY, choose_partitions};
use transform::Transform;

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
    lanes: HashMap<LaneKey, Arc<Lane>>,
    endpoints: HashMap<(LaneKey, String), RunningEndpoint>,
    /// How requests are made, by the identity of the endpoint; shared by all that is sent to it.
    settings: HashMap<String, watch::Sender<Arc<Settings>>>,
    /// What is still sent that was taken under another configuration.
    leftovers: Vec<RunningLeftover>,
    /// The queues of other configurations that are open.
    old_queues: OldQueues,
    /// Senders of other configurations that come first, by the identity of the endpoint. A channel closes when its sender
    /// has ended.
    predecessors: HashMap<String, Vec<watch::Receiver<()>>>,
    shared: Arc<SharedMetrics>,
    /// What is known of metrics as they come in.
    known: Arc<Mutex<Known>>,
    keeper: Task,
}

/// What was prepared.
pub struct Prepared {
    lanes: Vec<(LaneKey, PreparedLane)>,
    endpoints: Vec<PreparedEndpoint>,
    /// Queues of earlier configurations in which something waits.
    leftovers: Vec<Leftover>,
    /// How long at most something waits.
    age_max: Duration,
    /// How long queues took to open.
    took: Duration,
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
    lane: LaneKey,
    identity: String,
    config: Endpoint,
    settings: Settings,
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
        let mut prepared = Prepared {
            lanes: Vec::new(),
            endpoints: Vec::new(),
            leftovers: Vec::new(),
            age_max: config.wal.max_keepalive_time,
            took: Duration::ZERO,
        };
        for (endpoint, identity) in config.endpoints.iter().zip(config.identities()) {
            let rules = Rules::new(&endpoint.write_relabel_configs, NameScheme::Legacy)
                .map_err(|(at, error)| Error::new(format!("write_relabel_config {}: {error}", at + 1)))?;
            let kinds = Kinds { histograms: endpoint.send_native_histograms, exemplars: endpoint.send_exemplars };
            let key = LaneKey::new(endpoint.protobuf_message, &external, &endpoint.write_relabel_configs, kinds);
            let dir = root.join(key.folder());
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
                                _ => PreparedLane::New(
                                    open_queue(dir, queue_options.clone(), &mut prepared.took).await?,
                                    transform,
                                    kinds,
                                ),
                            },
                            None => PreparedLane::New(
                                open_queue(dir, queue_options.clone(), &mut prepared.took).await?,
                                transform,
                                kinds,
                            ),
                        }
                    }
                };
                prepared.lanes.push((key, lane));
            }
            let settings = send_settings(endpoint, cx).await?;
            prepared.endpoints.push(PreparedEndpoint {
                lane: key,
                identity,
                config: endpoint.clone(),
                settings,
                queue_options,
            });
        }
        if current.is_none() {
            let keys: Vec<LaneKey> = prepared.lanes.iter().map(|(key, _)| *key).collect();
            prepared.leftovers = open_leftovers(&root, &keys, &config.wal, bytes_max, &mut prepared.took, cx).await;
        }
        let inlet = current.is_none().then(|| Inlet::of(cx.ledger()));
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
            (None, inlet) => Self::start(inlet.unwrap_or_else(|| Inlet::of(cx.ledger())), cx),
        };
        component.shared.opened(prepared.took);
        let shared_known = Arc::clone(&component.known);
        let make = |key: LaneKey, queue, transform, kinds| {
            // A lane that is new learns what others knew before it.
            let known = match key.protocol {
                ProtobufMessage::V1 => Known::default(),
                ProtobufMessage::V2 => shared_known.lock().clone(),
            };
            Arc::new(Lane::new(Arc::from(cx.id()), key.protocol, queue, transform, kinds, known, cx.logger().clone()))
        };
        let (mut lanes, mut opened) = (HashMap::new(), Vec::new());
        for (key, lane) in prepared.lanes {
            let is_kept = matches!(lane, PreparedLane::Kept(_));
            let lane = match lane {
                PreparedLane::Kept(lane) => lane,
                PreparedLane::New(queue, transform, kinds) => make(key, queue, transform, kinds),
                PreparedLane::Back(mut guard, transform, kinds) => match guard.take() {
                    Some(queue) => {
                        component.take_back(key);
                        make(key, queue, transform, kinds)
                    }
                    // It is locked since it was seen there.
                    None => continue,
                },
            };
            lanes.insert(key, lane);
            if !is_kept {
                opened.push(key);
            }
        }
        for (key, lane) in &lanes {
            set_lane_limits(lane, prepared.endpoints.iter().filter(|endpoint| endpoint.lane == *key));
        }
        let identities: Vec<String> = prepared.endpoints.iter().map(|endpoint| endpoint.identity.clone()).collect();
        for endpoint in &prepared.endpoints {
            let place = (endpoint.lane, endpoint.identity.clone());
            let running = component.endpoints.get(&place);
            if let Some(running) = running.filter(|running| running.info.url != endpoint.config.shown_url()) {
                // Its successor sends to the new URL, and it does not do so too.
                running.ending.send_replace(true);
            }
            let settings = Arc::new(endpoint.settings.clone());
            match component.settings.get(&endpoint.identity) {
                Some(sender) => drop(sender.send_replace(settings)),
                None => drop(component.settings.insert(endpoint.identity.clone(), watch::Sender::new(settings))),
            }
        }
        component.settings.retain(|identity, _| identities.contains(identity));
        for leftover in prepared.leftovers {
            component.send_leftover(leftover, &prepared.endpoints, cx);
        }
        for key in opened {
            component.send_orphans(key, &lanes[&key], &prepared.endpoints, prepared.age_max, cx);
        }
        // As long as this is locked, nothing of an endpoint is forgotten that comes back.
        let shared = Arc::clone(&component.shared);
        let mut infos = shared.endpoints.lock();
        let mut before = std::mem::take(&mut component.endpoints);
        let mut starting = Vec::new();
        for endpoint in prepared.endpoints {
            let Some(lane) = lanes.get(&endpoint.lane) else { continue };
            let place = (endpoint.lane, endpoint.identity.clone());
            // A sender goes on only with the lane that it was started with, and under the URL that its metrics name.
            match before.remove(&place).filter(|running| Arc::ptr_eq(&running.info.lane, lane)) {
                Some(running) if running.info.url == endpoint.config.shown_url() => {
                    running.change(&endpoint.config);
                    component.endpoints.insert(place, running);
                    continue;
                }
                Some(running) => drop(before.insert(place.clone(), running)),
                None => {}
            }
            starting.push((place, endpoint));
        }
        let mut gone: HashMap<LaneKey, Vec<Departing>> = HashMap::new();
        for ((key, identity), running) in before {
            let stays = identities.contains(&identity);
            component.predecessors.entry(identity.clone()).or_default().push(running.done);
            let (shared, info) = (Arc::clone(&shared), Arc::clone(&running.info));
            // What comes after it may have its name, and take over what waits.
            shared.ends.rename(&running.end);
            let end = Arc::downgrade(&running.end);
            let forget = move || {
                shared.ends.forget(&end);
                shared.forget(&info);
            };
            gone.entry(key).or_default().push(Departing {
                identity,
                reader: running.info.reader.clone(),
                ending: running.ending,
                handle: running.handle,
                stays,
                gone: Some(Box::new(forget)),
            });
        }
        for (place, endpoint) in starting {
            let running = component.start_endpoint(endpoint, &lanes[&place.0], cx);
            component.endpoints.insert(place, running);
        }
        // Some have taken over what others had not sent yet.
        shared.ends.forget_ended();
        *infos = component.endpoints.values().map(|endpoint| Arc::clone(&endpoint.info)).collect();
        shared.keep_failing(&infos);
        drop(infos);
        let stage = Arc::new(Stage {
            lanes: lanes.values().cloned().collect(),
            shared: Arc::clone(&shared),
            known: Arc::clone(&component.known),
            row: Arc::clone(cx.ledger().row_of::<Metrics>()),
        });
        component.inlet.attach(Arc::clone(&stage) as Arc<dyn Consume<Metrics>>);
        let stage_before: Weak<dyn Send + Sync> =
            Arc::<Stage>::downgrade(&std::mem::replace(&mut component.stage, stage));
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

    async fn drain(self, _: &Context<Self>) {
        self.inlet.close();
        self.keeper.stop().await;
        for lane in self.lanes.values() {
            lane.close().await;
        }
        let deadline = tokio::time::Instant::now() + FLUSH_WAIT_MAX;
        for running in self.endpoints.values() {
            running.info.reader.flush();
            // What the peer takes is still sent; what it refuses for now waits on disk.
            running.ending.send_replace(true);
        }
        for leftover in &self.leftovers {
            leftover.stop.send_replace(true);
        }
        for mut leftover in self.leftovers {
            // What was not sent waits for the next start.
            if tokio::time::timeout_at(deadline, &mut leftover.handle).await.is_err() {
                leftover.handle.abort();
            }
        }
        for mut running in self.endpoints.into_values() {
            if tokio::time::timeout_at(deadline, &mut running.handle).await.is_err() {
                running.handle.abort();
            }
        }
        self.shared.keep_failing(&[]);
        self.shared.ends.clear();
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
        lane.set_options(options.clone());
    }
}

/// Hands batches to all lanes.
struct Stage {
    lanes: Vec<Arc<Lane>>,
    shared: Arc<SharedMetrics>,
    known: Arc<Mutex<Known>>,
    row: Arc<Row>,
}

/// A batch that is given to all lanes. Where one of them has taken anything of it, it was taken: what the others have not is
/// left out there, also where the producer is told otherwise and sends all of it again.
struct Offer<'s> {
    stage: &'s Stage,
    items: usize,
    /// For each lane, how much it has, and why it has not got all.
    given: Vec<(u64, &'static str)>,
    spread: Option<Spread<'s>>,
}

/// The producer gave up before the lane had all.
const GIVEN_UP: &str = "given up";

impl<'s> Offer<'s> {
    fn new(stage: &'s Stage, items: usize) -> Self {
        let spread = Some(Spread::new(Some(&stage.row), items));
        Offer { stage, items, given: vec![(0, GIVEN_UP); stage.lanes.len()], spread }
    }

    fn end<E>(&mut self, outcome: Result<(), E>) -> Result<(), E> {
        let Some(mut spread) = self.spread.take() else { return outcome };
        if outcome.is_err() && self.given.iter().any(|(given, _)| *given > 0) {
            for (at, (lane, (given, reason))) in self.stage.lanes.iter().zip(&self.given).enumerate() {
                spread.push(None);
                spread.taken(at);
                lane.leave_out(reason, (self.items as u64).saturating_sub(*given));
            }
        }
        spread.end(outcome)
    }
}

impl Drop for Offer<'_> {
    fn drop(&mut self) {
        let _ = self.end(Err(()));
    }
}

impl Consume<Metrics> for Stage {
    fn consume(&self, batch: Arc<MetricsBatch>) -> BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(async move {
            let mut result = Ok(());
            for part in &batch.parts {
                self.shared.received.add(&counts_of(part));
                self.shared.active.note(part);
                if !part.metadata.is_empty() {
                    self.known.lock().note(part);
                }
            }
            let items = batch.items();
            if self.lanes.is_empty() {
                self.row.dropped("no endpoint", items);
            }
            let mut offer = Offer::new(self, items);
            for (lane, (given, reason)) in self.lanes.iter().zip(&mut offer.given) {
                let taken = lane.take(&batch, given).await;
                if let Err(error) = &taken {
                    *reason = reason_of(error);
                }
                result = result.and(taken);
            }
            if self.lanes.is_empty() { result } else { offer.end(result) }
        })
    }
}

impl RemoteWrite {
    fn start(inlet: Inlet<Metrics>, cx: &Context<Self>) -> Self {
        let known: Arc<Mutex<Known>> = Arc::default();
        let shared = SharedMetrics::new(cx.metrics(), Arc::clone(&known), Arc::clone(cx.health()));
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
            stage: Arc::new(Stage {
                lanes: Vec::new(),
                shared: Arc::clone(&shared),
                known: Arc::clone(&known),
                row: Arc::clone(cx.ledger().row_of::<Metrics>()),
            }),
            lanes: HashMap::new(),
            endpoints: HashMap::new(),
            settings: HashMap::new(),
            leftovers: Vec::new(),
            old_queues: OldQueues::default(),
            predecessors: HashMap::new(),
            shared,
            known,
            keeper,
        }
    }
}
