//! Queues that were written under another configuration, and senders that end.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use corten_component::{Context, Field, Logger};
use corten_queue::{Options, Queue, Reader, default_bytes_max};
use corten_signal::Kind;
use corten_sink::{Departing, Leaving, QueueEnd, finished, leave_lane, open_queue};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::arguments::{QueueConfig, Wal};
use super::endpoint::reader_options;
use super::lane::{Lane, LaneKey};
use super::{PreparedEndpoint, RemoteWrite, Stage};

/// A queue of another configuration, for as long as it is open. Whoever locks it and takes it out owns it: a configuration
/// that comes back, or the task that closes it.
pub(super) type OldQueue = Arc<tokio::sync::Mutex<Option<Queue>>>;

/// The queues of other configurations that are open, by their keys.
pub(super) type OldQueues = Arc<Mutex<HashMap<LaneKey, OldQueue>>>;

/// What waits in a queue of another configuration is being sent.
pub(super) struct RunningLeftover {
    /// The lane whose queue it is; none where single endpoints leave a lane that stays.
    pub(super) key: Option<LaneKey>,
    pub(super) stop: watch::Sender<bool>,
    pub(super) handle: JoinHandle<()>,
}

/// A queue that was written under another configuration, before the program was started.
pub(super) struct Leftover {
    pub(super) key: LaneKey,
    pub(super) dir: PathBuf,
    pub(super) queue: Queue,
}

/// What a sample takes in a record, about, in bytes.
pub(super) const SAMPLE_BYTES: usize = 32;

pub(super) fn queue_options(wal: &Wal, queue: &QueueConfig, bytes_max: Option<u64>, dir: &Path) -> Options {
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
pub(super) async fn open_leftovers(
    root: &Path,
    keys: &[LaneKey],
    wal: &Wal,
    bytes_max: Option<u64>,
    took: &mut Duration,
    cx: &Context<RemoteWrite>,
) -> Vec<Leftover> {
    let found: Vec<LaneKey> = std::fs::read_dir(root)
        .into_iter()
        .flatten()
        .filter_map(|entry| LaneKey::of_folder(entry.ok()?.file_name().to_str()?))
        .filter(|key| !keys.contains(key))
        .collect();
    let mut leftovers = Vec::new();
    for key in found {
        let dir = root.join(key.folder());
        let options = Options {
            bytes_max: bytes_max.unwrap_or(Options::BYTES_MAX_DEFAULT),
            age_max: wal.max_keepalive_time,
            keep_settled_min: wal.min_keepalive_time,
            truncate_every: wal.truncate_frequency,
            ..Options::default()
        };
        match open_queue(dir.clone(), options, took).await {
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
    pub(super) fn old_queue(&self, key: LaneKey) -> Option<OldQueue> {
        self.old_queues.lock().get(&key).cloned()
    }

    /// A configuration comes back: what is being sent from its queue is left to its new senders.
    pub(super) fn take_back(&mut self, key: LaneKey) {
        self.old_queues.lock().remove(&key);
        for leftover in self.leftovers.iter().filter(|leftover| leftover.key == Some(key)) {
            leftover.stop.send_replace(true);
        }
    }

    /// Sends what waits in a queue of an earlier configuration to those endpoints that are still there, and removes the
    /// queue once nothing waits in it.
    pub(super) fn send_leftover(&mut self, leftover: Leftover, endpoints: &[PreparedEndpoint], cx: &Context<Self>) {
        let Leftover { key, dir, queue } = leftover;
        let mut departing = Vec::new();
        let mut all_have_owners = true;
        for name in queue.reader_names() {
            match self.departing(&queue, &name, endpoints, cx) {
                Some(sender) => departing.push(sender),
                None => {
                    all_have_owners = false;
                    warn_of_gone(&dir, &name, cx);
                }
            }
        }
        self.see_off(Leftover { key, dir, queue }, all_have_owners, departing, None, cx.logger().clone());
    }

    /// Sends what waits in the queue of a lane for endpoints that left it before the program was started, or before the
    /// lane came back: nobody else has a cursor of theirs in hand. What waits for an endpoint that is gone from the
    /// configuration is kept until it is too old.
    pub(super) fn send_orphans(
        &mut self,
        key: LaneKey,
        lane: &Arc<Lane>,
        endpoints: &[PreparedEndpoint],
        age_max: Duration,
        cx: &Context<Self>,
    ) {
        let (mut senders, end) = (Vec::new(), lane.queue().end());
        for name in lane.queue().reader_names() {
            if endpoints.iter().any(|endpoint| endpoint.lane == key && endpoint.identity == name) {
                continue;
            }
            if lane.queue().lag(&name).is_none_or(|lag| lag.pending.records == 0) {
                lane.queue().remove_reader(&name);
                continue;
            }
            match self.departing(lane.queue(), &name, endpoints, cx) {
                Some(departing) => {
                    // What the lane takes from now on is not for this sender, and not what it took since it was left.
                    if lane.queue().end_of(&name).is_none() {
                        departing.reader.end_at(end);
                    }
                    senders.push(departing);
                }
                None => {
                    warn_of_gone(&queue_dir(key, cx), &name, cx);
                    self.forget_later(lane, name, age_max);
                }
            }
        }
        if !senders.is_empty() {
            self.leave_lane(lane, senders, false, Weak::<Stage>::new(), cx);
        }
    }

    /// A sender of what waits under a name in a queue that others write, or nobody; none if the endpoint is not in the
    /// configuration.
    fn departing(
        &mut self,
        queue: &Queue,
        name: &str,
        endpoints: &[PreparedEndpoint],
        cx: &Context<Self>,
    ) -> Option<Departing> {
        let endpoint = endpoints.iter().find(|endpoint| endpoint.identity == name)?;
        let settings = self.settings.get(name)?.subscribe();
        let (remote_name, url) = (endpoint.config.remote_name(name), endpoint.config.shown_url());
        let end = queue.end_of(name);
        let reader = queue.reader(name, reader_options(&endpoint.config.queue_config));
        if let Some(end) = end {
            reader.end_at(end);
        }
        reader.flush();
        let (ending, ending_of_sender) = watch::channel(false);
        let (alive, done) = watch::channel(());
        let state = Arc::default();
        let end = QueueEnd::new(Kind::PrometheusMetric, remote_name.clone(), url.clone(), &reader, &state, None);
        let end = self.shared.ends.keep(end, cx.ledger());
        self.shared.ends.rename(&end);
        let (shared, end) = (Arc::clone(&self.shared), Arc::downgrade(&end));
        let gone: Box<dyn FnOnce() + Send> = Box::new(move || shared.ends.forget(&end));
        let sender = self.sender(&reader, settings, &state, ending_of_sender, (&remote_name, &url), cx);
        let predecessors = self.predecessors.entry(name.to_owned()).or_default();
        let before = predecessors.clone();
        predecessors.push(done);
        let handle = tokio::spawn(async move {
            sender.run_after(before).await;
            drop(alive);
        });
        Some(Departing { identity: name.to_owned(), reader, ending, handle, stays: true, gone: Some(gone) })
    }

    /// Forgets the cursor of an endpoint that is gone, once all is too old that may wait for it now: a cursor keeps also
    /// from being deleted what the lane takes from now on.
    fn forget_later(&mut self, lane: &Arc<Lane>, name: String, age_max: Duration) {
        let (stop, mut stopped) = watch::channel(false);
        let (lane, shared) = (Arc::clone(lane), Arc::clone(&self.shared));
        let handle = tokio::spawn(async move {
            if tokio::time::timeout(age_max, stopped.wait_for(|stop| *stop)).await.is_err() {
                shared.forget_cursor(&lane, &name, None);
            }
        });
        self.leftovers.push(RunningLeftover { key: None, stop, handle });
    }

    /// Ends senders whose lane is used no more, or not by them: what waits for them is sent, and for endpoints that are gone
    /// from the configuration at least for a while.
    pub(super) fn retire(
        &mut self,
        key: LaneKey,
        lane: Arc<Lane>,
        is_unused: bool,
        departing: Vec<Departing>,
        stage: Weak<dyn Send + Sync>,
        cx: &Context<Self>,
    ) {
        if is_unused {
            let queue = lane.queue().clone();
            let dir = queue_dir(key, cx);
            self.see_off(Leftover { key, dir, queue }, true, departing, Some((lane, stage)), cx.logger().clone());
            return;
        }
        self.leave_lane(&lane, departing, true, stage, cx);
    }

    /// Ends senders whose lane goes on without them. If they leave it now, what was taken before is for them: by `stage`.
    fn leave_lane(
        &mut self,
        lane: &Arc<Lane>,
        senders: Vec<Departing>,
        leave_now: bool,
        stage: Weak<dyn Send + Sync>,
        cx: &Context<Self>,
    ) {
        let (of_lane, shared) = (Arc::clone(lane), Arc::clone(&self.shared));
        let forget = move |identity: &str, reader: &Reader| shared.forget_cursor(&of_lane, identity, Some(reader));
        let queue = lane.queue().clone();
        let Leaving { stop, handle } = leave_lane(queue, senders, leave_now, stage, forget, cx.logger().clone());
        self.leftovers.push(RunningLeftover { key: None, stop, handle });
    }

    /// Watches over the senders of a queue that is written no more, and removes it once nothing waits in it.
    pub(super) fn see_off(
        &mut self,
        leftover: Leftover,
        all_have_owners: bool,
        departing: Vec<Departing>,
        lane: Option<(Arc<Lane>, Weak<dyn Send + Sync>)>,
        logger: Logger,
    ) {
        let Leftover { key, dir, queue } = leftover;
        let slot: OldQueue = Arc::new(tokio::sync::Mutex::new(Some(queue)));
        self.old_queues.lock().insert(key, Arc::clone(&slot));
        let (stop, mut stopped) = watch::channel(false);
        let old_queues = Arc::clone(&self.old_queues);
        let handle = tokio::spawn(async move {
            if let Some((lane, stage)) = lane {
                finished(&stage, &mut stopped).await;
                lane.close().await;
            }
            let mut nothing_waits = all_have_owners;
            let mut senders = JoinSet::new();
            for departing in departing {
                departing.reader.flush();
                let (stopped, logger) = (stopped.clone(), logger.clone());
                senders.spawn(async move {
                    let (reader, stays) = (departing.reader.clone(), departing.stays);
                    departing.depart(stopped, &logger).await;
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

/// Where the queue with this key lies.
fn queue_dir(key: LaneKey, cx: &Context<RemoteWrite>) -> PathBuf {
    cx.data_dir().join("queue").join(key.folder())
}

fn warn_of_gone(dir: &Path, name: &str, cx: &Context<RemoteWrite>) {
    let fields = [("queue", Field::from(dir.display().to_string())), ("endpoint", Field::from(name))];
    cx.logger().warn("an endpoint is gone; what waits for it is kept until it is too old", &fields);
}
