//! The metrics of all endpoints.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use corten_component::metrics::{Counter, DEFAULT_BUCKETS, Gauge, Histogram, Refresh, Registry, Vector};
use corten_component::{DebugInfo, HealthBoard};
use corten_config::encode::Item;
use corten_queue::{Reader, Totals, reason};
use corten_sink::{Ends, Failing};
use parking_lot::Mutex;

use super::active::ActiveSeries;
use super::counts::ItemCounters;
use super::endpoint::EndpointInfo;
use super::lane::Lane;
use super::metadata::Known;
use super::sender::{KindCounters, REFUSED, SendMetrics};

/// The metrics of all endpoints, and of the component.
pub(super) struct SharedMetrics {
    pub(super) endpoints: Mutex<Vec<Arc<EndpointInfo>>>,
    /// Those that are sent to, also those that are only sent what waits still.
    pub(super) ends: Ends,
    /// By name and URL.
    pub(super) failing: Arc<Failing<(String, String)>>,
    /// What came in, once each, whatever became of it.
    pub(super) received: ItemCounters,
    pub(super) active: ActiveSeries,
    pub(super) known: Arc<Mutex<Known>>,
    /// How long queues took to open.
    pub(super) replay_nanos: AtomicU64,
    counters: EndpointCounters,
    /// For each kind, by endpoint and reason.
    dropped: [Vector<Gauge>; 3],
    gauges: EndpointGauges,
    own: OwnMetrics,
}

/// What senders count.
struct EndpointCounters {
    sent: KindVectors,
    failed: KindVectors,
    retried: KindVectors,
    bytes: Vector<Counter>,
    metadata_bytes: Vector<Counter>,
    duration: Vector<Histogram>,
}

/// A family for each kind of item.
struct KindVectors {
    samples: Vector<Counter>,
    histograms: Vector<Counter>,
    exemplars: Vector<Counter>,
    metadata: Vector<Counter>,
}

impl KindVectors {
    fn with(&self, labels: &[&str]) -> KindCounters {
        KindCounters {
            samples: self.samples.with(labels),
            histograms: self.histograms.with(labels),
            exemplars: self.exemplars.with(labels),
            metadata: self.metadata.with(labels),
        }
    }

    fn all(&self) -> [&Vector<Counter>; 4] {
        [&self.samples, &self.histograms, &self.exemplars, &self.metadata]
    }
}

/// What is set by endpoint when somebody looks.
struct EndpointGauges {
    /// Samples, histograms, exemplars.
    pending: [Vector<Gauge>; 3],
    enqueue_retries: Vector<Gauge>,
    shard_capacity: Vector<Gauge>,
    shards: Vector<Gauge>,
    shards_min: Vector<Gauge>,
    shards_max: Vector<Gauge>,
    shards_desired: Vector<Gauge>,
    max_samples_per_send: Vector<Gauge>,
    queue_highest: Vector<Gauge>,
    queue_highest_sent: Vector<Gauge>,
    /// By name alone.
    watcher_segment: Vector<Gauge>,
    watcher_failures: Vector<Gauge>,
    watcher_old: Vector<Gauge>,
}

/// What is set for the component when somebody looks.
struct OwnMetrics {
    highest_received: Gauge,
    /// Samples, histograms, exemplars.
    received: [Gauge; 3],
    replay_seconds: Gauge,
    wal_active_series: Gauge,
    wal_corruptions: Gauge,
    wal_samples: Gauge,
    wal_exemplars: Gauge,
    wal_metadata: Gauge,
    wal_bytes: Gauge,
    wal_segment: Gauge,
    wal_truncations: Gauge,
    wal_writes_failed: Gauge,
}

const ENDPOINT_LABELS: &[&str] = &["remote_name", "url"];
const DROPPED_LABELS: &[&str] = &["remote_name", "url", "reason"];
const CONSUMER_LABELS: &[&str] = &["consumer"];

/// Rules dropped the series.
pub(super) const DROPPED_SERIES: &str = "dropped_series";
/// A record that the queue cannot ever hold.
pub(super) const TOO_LARGE: &str = "too_large";
/// A histogram with bounds of its own in version 1 of the protocol.
pub(super) const CUSTOM_BUCKETS: &str = "nhcb_in_rw1_not_supported";
/// An exemplar without a sample in version 2 of the protocol.
pub(super) const NO_SAMPLE: &str = "no_sample_in_rw2";

/// All reasons for which something is dropped.
const REASONS: &[&str] = &[
    CUSTOM_BUCKETS,
    DROPPED_SERIES,
    NO_SAMPLE,
    TOO_LARGE,
    reason::DAMAGED,
    reason::EXPIRED,
    reason::MEMORY,
    reason::MISSING,
    reason::OVERFLOW,
    reason::TOO_OLD,
];

macro_rules! kind_vectors {
    ($registry:expr, $suffix:literal, $help:literal) => {{
        macro_rules! one {
            ($kind:literal, $of:literal) => {
                $registry.counters(
                    concat!("prometheus_remote_storage_", $kind, $suffix),
                    concat!("Total number of ", $of, $help),
                    ENDPOINT_LABELS,
                )
            };
        }
        KindVectors {
            samples: one!("samples", "samples"),
            histograms: one!("histograms", "histograms"),
            exemplars: one!("exemplars", "exemplars"),
            metadata: one!("metadata", "metadata entries"),
        }
    }};
}

macro_rules! dropped_vector {
    ($registry:expr, $kind:literal) => {
        $registry.counter_values(
            concat!("prometheus_remote_storage_", $kind, "_dropped_total"),
            concat!(
                "Total number of ",
                $kind,
                " which were dropped after being read from the WAL before being sent via remote write, either via \
                 relabelling, due to being too old or unintentionally because of an unknown reference ID."
            ),
            DROPPED_LABELS,
        )
    };
}

macro_rules! pending_vector {
    ($registry:expr, $kind:literal) => {
        $registry.gauges(
            concat!("prometheus_remote_storage_", $kind, "_pending"),
            concat!("The number of ", $kind, " pending in the queues shards to be sent to the remote storage."),
            ENDPOINT_LABELS,
        )
    };
}

impl EndpointCounters {
    fn new(registry: &Registry) -> Self {
        EndpointCounters {
            sent: kind_vectors!(registry, "_total", " sent to remote storage."),
            failed: kind_vectors!(
                registry,
                "_failed_total",
                " which failed on send to remote storage, non-recoverable errors."
            ),
            retried: kind_vectors!(
                registry,
                "_retried_total",
                " which failed on send to remote storage but were retried because the send error was recoverable."
            ),
            bytes: registry.counters(
                "prometheus_remote_storage_bytes_total",
                "The total number of bytes of data (not metadata) sent by the queue after compression. Note that when \
                 exemplars over remote write is enabled the exemplars included in a remote write request count towards \
                 this metric.",
                ENDPOINT_LABELS,
            ),
            metadata_bytes: registry.counters(
                "prometheus_remote_storage_metadata_bytes_total",
                "The total number of bytes of metadata sent by the queue after compression.",
                ENDPOINT_LABELS,
            ),
            duration: registry.histograms(
                "prometheus_remote_storage_sent_batch_duration_seconds",
                "Duration of send calls to the remote storage.",
                ENDPOINT_LABELS,
                DEFAULT_BUCKETS,
            ),
        }
    }
}

impl EndpointGauges {
    fn new(registry: &Registry) -> Self {
        EndpointGauges {
            pending: [
                pending_vector!(registry, "samples"),
                pending_vector!(registry, "histograms"),
                pending_vector!(registry, "exemplars"),
            ],
            enqueue_retries: registry.counter_values(
                "prometheus_remote_storage_enqueue_retries_total",
                "Total number of times enqueue has failed because a shards queue was full.",
                ENDPOINT_LABELS,
            ),
            shard_capacity: registry.gauges(
                "prometheus_remote_storage_shard_capacity",
                "The capacity of each shard of the queue used for parallel sending to the remote storage.",
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
            watcher_segment: registry.gauges(
                "prometheus_wal_watcher_current_segment",
                "Current segment the WAL watcher is reading records from.",
                CONSUMER_LABELS,
            ),
            watcher_failures: registry.counter_values(
                "prometheus_wal_watcher_record_decode_failures_total",
                "Number of records read by the WAL watcher that resulted in an error when decoding.",
                CONSUMER_LABELS,
            ),
            watcher_old: registry.counter_values(
                "prometheus_wal_watcher_samples_sent_pre_tailing_total",
                "Number of sample records read by the WAL watcher and sent to remote write during replay of existing \
                 WAL.",
                CONSUMER_LABELS,
            ),
        }
    }

    /// Those that have the labels of an endpoint.
    fn of_endpoints(&self) -> impl Iterator<Item = &Vector<Gauge>> {
        self.pending.iter().chain([
            &self.enqueue_retries,
            &self.shard_capacity,
            &self.shards,
            &self.shards_min,
            &self.shards_max,
            &self.shards_desired,
            &self.max_samples_per_send,
            &self.queue_highest,
            &self.queue_highest_sent,
        ])
    }

    fn set(&self, info: &EndpointInfo) {
        let labels = [info.remote_name.as_str(), info.url.as_str()];
        let lag = info.reader.lag();
        let config = info.queue_config.lock().clone();
        for (pending, of_kind) in self.pending.iter().zip(kinds(&lag.pending)) {
            pending.with(&labels).set(of_kind as f64);
        }
        let sent = info.state.highest_sent_ms.load(Ordering::Relaxed) as i64;
        for (gauge, value) in [
            (&self.enqueue_retries, info.lane.waits() as f64),
            (&self.shard_capacity, f64::from(config.capacity)),
            (&self.shards, f64::from(info.lane.partitions())),
            (&self.shards_min, f64::from(config.min_shards)),
            (&self.shards_max, f64::from(config.max_shards)),
            (&self.shards_desired, *info.desired_shards.lock()),
            (&self.max_samples_per_send, f64::from(config.max_samples_per_send)),
            (&self.queue_highest, seconds(lag.highest_appended_ms.unwrap_or_default())),
            (&self.queue_highest_sent, seconds(sent)),
        ] {
            gauge.with(&labels).set(value);
        }
    }
}

impl OwnMetrics {
    fn new(registry: &Registry) -> Self {
        let counter = |name, help| registry.counter_values(name, help, &[]).with(&[]);
        OwnMetrics {
            highest_received: registry.gauge(
                "prometheus_remote_storage_highest_timestamp_in_seconds",
                "Highest timestamp that has come into the remote storage via the Appender interface, in seconds since \
                 epoch. Initialized to 0 when no data has been received yet.",
            ),
            received: [
                counter(
                    "prometheus_remote_storage_samples_in_total",
                    "Samples in to remote storage, compare to samples out for queue managers.",
                ),
                counter(
                    "prometheus_remote_storage_histograms_in_total",
                    "HistogramSamples in to remote storage, compare to histograms out for queue managers.",
                ),
                counter(
                    "prometheus_remote_storage_exemplars_in_total",
                    "Exemplars in to remote storage, compare to exemplars out for queue managers.",
                ),
            ],
            replay_seconds: registry.gauge(
                "prometheus_remote_write_data_replay_duration_seconds",
                "Time taken to replay the data on disk.",
            ),
            wal_active_series: registry.gauge(
                "prometheus_remote_write_wal_storage_active_series",
                "Current number of active series being tracked by the WAL storage",
            ),
            wal_corruptions: counter(
                "prometheus_remote_write_wal_corruptions_total",
                "Total number of WAL corruptions.",
            ),
            wal_samples: counter(
                "prometheus_remote_write_wal_samples_appended_total",
                "Total number of samples appended to the WAL",
            ),
            wal_exemplars: counter(
                "prometheus_remote_write_wal_exemplars_appended_total",
                "Total number of exemplars appended to the WAL",
            ),
            wal_metadata: counter(
                "prometheus_remote_write_wal_metadata_updates_total",
                "Total number of metadata entries updated in the WAL",
            ),
            wal_bytes: registry.gauge("prometheus_tsdb_wal_storage_size_bytes", "Size of the write log directory."),
            wal_segment: registry.gauge(
                "prometheus_tsdb_wal_segment_current",
                "Write log segment index that TSDB is currently writing to.",
            ),
            wal_truncations: counter(
                "prometheus_tsdb_wal_truncations_total",
                "Total number of write log truncations that were attempted.",
            ),
            wal_writes_failed: counter(
                "prometheus_tsdb_wal_writes_failed_total",
                "Total number of write log writes that failed.",
            ),
        }
    }
}

/// Samples, histograms, exemplars.
fn kinds(totals: &Totals) -> [u64; 3] {
    [totals.samples, totals.histograms, totals.exemplars]
}

impl SharedMetrics {
    /// These are the endpoints of the configuration now.
    pub(super) fn keep_failing(&self, infos: &[Arc<EndpointInfo>]) {
        self.failing.keep(infos.iter().map(|info| (info.remote_name.clone(), info.url.clone())).collect());
    }

    pub(super) fn new(registry: &Registry, known: Arc<Mutex<Known>>, health: Arc<HealthBoard>) -> Arc<Self> {
        let shared = Arc::new(SharedMetrics {
            endpoints: Mutex::default(),
            ends: Ends::default(),
            failing: Failing::new(health),
            received: ItemCounters::default(),
            active: ActiveSeries::default(),
            known,
            replay_nanos: AtomicU64::new(0),
            counters: EndpointCounters::new(registry),
            dropped: [
                dropped_vector!(registry, "samples"),
                dropped_vector!(registry, "histograms"),
                dropped_vector!(registry, "exemplars"),
            ],
            gauges: EndpointGauges::new(registry),
            own: OwnMetrics::new(registry),
        });
        let weak = Arc::downgrade(&shared);
        registry.before_gathering(weak);
        shared
    }

    pub(super) fn send_metrics(&self, labels: &[&str]) -> SendMetrics {
        let counters = &self.counters;
        SendMetrics {
            sent: counters.sent.with(labels),
            failed: counters.failed.with(labels),
            retried: counters.retried.with(labels),
            bytes: counters.bytes.with(labels),
            metadata_bytes: counters.metadata_bytes.with(labels),
            duration: counters.duration.with(labels),
        }
    }

    /// Notes how long a queue took to open.
    pub(super) fn opened(&self, took: Duration) {
        self.replay_nanos.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Forgets the cursor of an endpoint that has left a lane, unless it is back, or was and left again: then `reader` is no
    /// longer the one who has it.
    pub(super) fn forget_cursor(&self, lane: &Arc<Lane>, identity: &str, reader: Option<&Reader>) {
        // Whoever brings it back holds this lock.
        let infos = self.endpoints.lock();
        if !reader.is_some_and(Reader::has_ended)
            && !infos.iter().any(|info| Arc::ptr_eq(&info.lane, lane) && info.reader.name() == identity)
        {
            lane.queue().remove_reader(identity);
        }
    }

    /// Forgets the metrics of an endpoint, unless it is in the configuration.
    pub(super) fn forget(&self, info: &EndpointInfo) {
        let infos = self.endpoints.lock();
        if infos.iter().any(|other| other.remote_name == info.remote_name && other.url == info.url) {
            return;
        }
        let labels = [info.remote_name.as_str(), info.url.as_str()];
        let counters = &self.counters;
        for vectors in [&counters.sent, &counters.failed, &counters.retried] {
            for vector in vectors.all() {
                vector.remove(&labels);
            }
        }
        counters.bytes.remove(&labels);
        counters.metadata_bytes.remove(&labels);
        counters.duration.remove(&labels);
        for gauges in self.gauges.of_endpoints() {
            gauges.remove(&labels);
        }
        for dropped in &self.dropped {
            for reason in REASONS {
                dropped.remove(&[labels[0], labels[1], reason]);
            }
        }
        if infos.iter().all(|other| other.remote_name != info.remote_name) {
            self.gauges.watcher_segment.remove(&[labels[0]]);
            self.gauges.watcher_failures.remove(&[labels[0]]);
            self.gauges.watcher_old.remove(&[labels[0]]);
        }
    }

    /// Sets what became of what an endpoint was not sent, for each kind that its lane takes, and how far its reader is.
    fn set_read(&self, info: &EndpointInfo) {
        let of_lane = info.lane.kinds();
        let takes = [true, of_lane.histograms, of_lane.exemplars];
        let set = |reason: &str, totals: Totals, always: bool| {
            for ((dropped, of_kind), takes) in self.dropped.iter().zip(kinds(&totals)).zip(takes) {
                if takes && (always || of_kind > 0) {
                    dropped.with(&[&info.remote_name, &info.url, reason]).set(of_kind as f64);
                }
            }
        };
        set(DROPPED_SERIES, info.lane.dropped(), true);
        set(TOO_LARGE, info.lane.too_large(), false);
        let unsendable = info.lane.unsendable();
        set(CUSTOM_BUCKETS, Totals { exemplars: 0, ..unsendable }, false);
        set(NO_SAMPLE, Totals { histograms: 0, ..unsendable }, false);
        let (stats, mut damaged) = (info.reader.stats(), 0);
        for (reason, totals) in &stats.dropped {
            if *reason != REFUSED {
                set(reason, *totals, false);
            }
            if *reason == reason::DAMAGED {
                damaged = totals.records;
            }
        }
        self.gauges.watcher_failures.with(&[&info.remote_name]).set(damaged as f64);
        self.gauges.watcher_segment.with(&[&info.remote_name]).set(stats.segment as f64);
        let old = stats.delivered.records.min(info.waited);
        self.gauges.watcher_old.with(&[&info.remote_name]).set(old as f64);
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
            self.gauges.set(info);
            self.set_read(info);
        }
        let (mut bytes, mut segment, mut damaged, mut highest) = (0, 0, 0, i64::MIN);
        let (mut write_errors, mut truncations) = (0, 0);
        for lane in lanes {
            let stats = lane.queue().stats();
            bytes += stats.disk_bytes;
            segment = segment.max(stats.segment_current);
            damaged += stats.damaged_records + stats.torn_tails;
            write_errors += stats.write_errors;
            truncations += stats.truncated_segments + stats.dropped_segments;
            highest = highest.max(stats.highest_ms.unwrap_or(i64::MIN));
        }
        let own = &self.own;
        let received = self.received.get();
        for (gauge, of_kind) in own.received.iter().zip(kinds(&received)) {
            gauge.set(of_kind as f64);
        }
        for (gauge, value) in [
            (&own.highest_received, if highest == i64::MIN { 0.0 } else { seconds(highest) }),
            (&own.replay_seconds, self.replay_nanos.load(Ordering::Relaxed) as f64 / 1e9),
            (&own.wal_active_series, self.active.count() as f64),
            (&own.wal_corruptions, damaged as f64),
            (&own.wal_samples, (received.samples + received.histograms) as f64),
            (&own.wal_exemplars, received.exemplars as f64),
            (&own.wal_metadata, self.known.lock().changes() as f64),
            (&own.wal_bytes, bytes as f64),
            (&own.wal_segment, segment as f64),
            (&own.wal_truncations, truncations as f64),
            (&own.wal_writes_failed, write_errors as f64),
        ] {
            gauge.set(value);
        }
    }
}

pub(super) fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

impl DebugInfo for SharedMetrics {
    fn debug_info(&self) -> Vec<Item> {
        let endpoints = self.endpoints.lock().clone();
        endpoints.iter().map(|info| info.debug_info()).collect()
    }
}
