//! The metrics of all endpoints.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use corten_component::DebugInfo;
use corten_component::metrics::{Counter, DEFAULT_BUCKETS, Gauge, Histogram, Refresh, Registry, Vector};
use corten_config::Value;
use corten_config::encode::Item;
use corten_queue::{Queue, Reader, Totals, reason};
use corten_signal::ledger::End as _;
use corten_sink::{Ends, QueueEnd, SendState};
use parking_lot::Mutex;

use super::group::Tenant;

/// The peer does not take it, or not any more.
pub(super) const INGESTER_ERROR: &str = "ingester_error";
/// The peer says that there is too much of it.
pub(super) const RATE_LIMITED: &str = "rate_limited";
/// There are too many streams in a record.
pub(super) const STREAM_LIMITED: &str = "stream_limited";
/// Kept for those who look for it: no entry is too long.
const LINE_TOO_LONG: &str = "line_too_long";
/// A record is larger than the queue may be.
pub(super) const TOO_LARGE: &str = "too_large";
/// The queue made room for what is newer.
pub(super) const QUEUE_IS_FULL: &str = "queue_is_full";

/// The reasons that every tenant has from its first entry on.
const REASONS: [&str; 5] = [INGESTER_ERROR, RATE_LIMITED, STREAM_LIMITED, LINE_TOO_LONG, QUEUE_IS_FULL];

/// How many tenants have metrics of their own; those of further ones are counted as tenant `other`.
const TENANTS_MAX: usize = 10_000;

/// What stands for the tenants beyond.
const OTHER_TENANTS: &str = "other";

const HOST_TENANT: &[&str] = &["host", "tenant"];
const HOST_TENANT_REASON: &[&str] = &["host", "tenant", "reason"];

const LATENCY_BUCKETS: &[f64] = &[0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];
const SIZE_BUCKETS: &[f64] = &[
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    524_288.0,
    1_048_576.0,
    2_097_152.0,
    4_194_304.0,
    8_388_608.0,
    16_777_216.0,
    20_971_520.0,
];

/// The metrics of all endpoints, and of the component.
pub(super) struct SharedMetrics {
    /// Those that are in the configuration.
    pub(super) endpoints: Mutex<Vec<Arc<EndpointInfo>>>,
    /// The queue behind them.
    pub(super) queue: Mutex<Option<Queue>>,
    tenants: Mutex<HashSet<Tenant>>,
    sent_bytes: Vector<Counter>,
    sent_entries: Vector<Counter>,
    retries: Vector<Counter>,
    dropped_bytes: Vector<Counter>,
    dropped_entries: Vector<Counter>,
    request_size: Vector<Histogram>,
    request_duration: Vector<Histogram>,
    latency: Vector<Histogram>,
    /// What of the losses of readers was counted, by the identity of the endpoint and the reason.
    counted: Mutex<HashMap<Loss, (u64, u64)>>,
    /// What the queue dropped since somebody last looked, by the host and the reason.
    lost: Mutex<BTreeMap<(String, &'static str), u64>>,
    wal: WalMetrics,
    pub(super) ends: Ends,
}

/// The identity of an endpoint, and the reason for which entries were not sent to it.
type Loss = (String, &'static str);

/// What is known of an endpoint by those who only look.
pub(super) struct EndpointInfo {
    pub(super) identity: String,
    pub(super) url: String,
    pub(super) host: String,
    pub(super) tenant_id: String,
    pub(super) reader: Reader,
    /// The number of the segment that was read when the sender was started.
    pub(super) segment_at_start: u64,
    pub(super) state: Arc<SendState>,
    pub(super) end: Arc<QueueEnd>,
}

/// What one endpoint counts for one tenant.
#[derive(Clone)]
pub(super) struct TenantMetrics {
    pub(super) sent_bytes: Counter,
    pub(super) sent_entries: Counter,
    pub(super) retries: Counter,
    pub(super) request_size: Histogram,
    pub(super) latency: Histogram,
}

/// What the reference tells of its log on disk, told of the queue.
struct WalMetrics {
    last_read: Vector<Gauge>,
    last_written: Gauge,
    reclaimed_space: Gauge,
    reclaimed_segment: Gauge,
    records_read: Vector<Gauge>,
    decode_failures: Vector<Gauge>,
    segment: Vector<Gauge>,
    marked: Vector<Gauge>,
    replay: Vector<Gauge>,
    dropped_notifications: Vector<Gauge>,
    segment_reads: Vector<Gauge>,
    running: Gauge,
}

const ID: &[&str] = &["id"];
const ID_REASON: &[&str] = &["id", "reason"];

impl WalMetrics {
    fn new(registry: &Registry) -> Self {
        WalMetrics {
            last_read: registry.gauges("loki_write_last_read_timestamp", "Latest timestamp read from the WAL", ID),
            last_written: registry
                .gauge("loki_write_wal_writer_last_written_timestamp", "Latest timestamp that was written to the WAL"),
            reclaimed_space: registry
                .counter_values("loki_write_wal_writer_reclaimed_space", "Number of bytes reclaimed from storage.", &[])
                .with(&[]),
            reclaimed_segment: registry
                .gauge("loki_write_wal_writer_last_reclaimed_segment", "Last reclaimed segment number"),
            records_read: registry.counter_values(
                "loki_write_wal_watcher_records_read_total",
                "Number of records read by the WAL watcher from the WAL.",
                ID,
            ),
            decode_failures: registry.counter_values(
                "loki_write_wal_watcher_record_decode_failures_total",
                "Number of records read by the WAL watcher that resulted in an error when decoding.",
                ID,
            ),
            segment: registry.gauges(
                "loki_write_wal_watcher_current_segment",
                "Current segment the WAL watcher is reading records from.",
                ID,
            ),
            marked: registry.gauges("loki_write_wal_marker_last_marked_segment", "Last marked WAL segment.", ID),
            replay: registry.gauges(
                "loki_write_wal_watcher_replay_segment",
                "Segment the WAL watcher will start replaying the WAL from on startup.",
                ID,
            ),
            dropped_notifications: registry.counter_values(
                "loki_write_wal_watcher_dropped_write_notifications_total",
                "Number of dropped write notifications due to having one already buffered.",
                ID,
            ),
            segment_reads: registry.counter_values(
                "loki_write_wal_watcher_segment_read_total",
                "Number of segment reads triggered by the backup timer firing.",
                ID_REASON,
            ),
            running: registry.gauge("loki_write_wal_watcher_running", "Number of WAL watchers running."),
        }
    }

    fn forget(&self, identity: &str) {
        let gauges = [
            &self.last_read,
            &self.records_read,
            &self.decode_failures,
            &self.segment,
            &self.marked,
            &self.replay,
            &self.dropped_notifications,
        ];
        gauges.iter().for_each(|gauge| gauge.remove(&[identity]));
        ["timer", "notification"].iter().for_each(|reason| self.segment_reads.remove(&[identity, reason]));
    }
}

impl SharedMetrics {
    pub(super) fn new(registry: &Registry) -> Arc<Self> {
        let shared = Arc::new(SharedMetrics {
            endpoints: Mutex::default(),
            queue: Mutex::default(),
            tenants: Mutex::default(),
            sent_bytes: registry.counters("loki_write_sent_bytes_total", "Number of bytes sent.", HOST_TENANT),
            sent_entries: registry.counters(
                "loki_write_sent_entries_total",
                "Number of log entries sent to the ingester.",
                HOST_TENANT,
            ),
            retries: registry.counters(
                "loki_write_batch_retries_total",
                "Number of times batches has had to be retried.",
                HOST_TENANT,
            ),
            dropped_bytes: registry.counters(
                "loki_write_dropped_bytes_total",
                "Number of bytes dropped because failed to be sent to the ingester after all retries.",
                HOST_TENANT_REASON,
            ),
            dropped_entries: registry.counters(
                "loki_write_dropped_entries_total",
                "Number of log entries dropped because failed to be sent to the ingester after all retries.",
                HOST_TENANT_REASON,
            ),
            request_size: registry.histograms(
                "loki_write_request_size_bytes",
                "Number of bytes for requests.",
                HOST_TENANT,
                SIZE_BUCKETS,
            ),
            request_duration: registry.histograms(
                "loki_write_request_duration_seconds",
                "Duration of send requests.",
                &["status_code", "host", "tenant"],
                DEFAULT_BUCKETS,
            ),
            latency: registry.histograms(
                "loki_write_entry_propagation_latency_seconds",
                "Write latency for entries",
                HOST_TENANT,
                LATENCY_BUCKETS,
            ),
            counted: Mutex::default(),
            lost: Mutex::default(),
            wal: WalMetrics::new(registry),
            ends: Ends::default(),
        });
        let weak = Arc::downgrade(&shared);
        registry.before_gathering(weak);
        shared
    }

    /// The name under which a tenant is counted.
    fn shown<'t>(&self, tenant: &'t Tenant, of_endpoint: &'t str) -> &'t str {
        match tenant {
            Some(name) if self.is_known(tenant) => name,
            Some(_) => OTHER_TENANTS,
            None => of_endpoint,
        }
    }

    fn is_known(&self, tenant: &Tenant) -> bool {
        self.tenants.lock().contains(tenant)
    }

    /// Notes that there are entries of a tenant: its counters are there from now on.
    pub(super) fn note_tenant(&self, tenant: &Tenant) {
        {
            let mut tenants = self.tenants.lock();
            if tenants.contains(tenant) || tenants.len() >= TENANTS_MAX {
                return;
            }
            tenants.insert(tenant.clone());
        }
        for endpoint in self.endpoints.lock().iter() {
            self.begin(&endpoint.host, self.shown(tenant, &endpoint.tenant_id));
        }
    }

    fn begin(&self, host: &str, tenant: &str) {
        for counters in [&self.sent_bytes, &self.sent_entries, &self.retries] {
            counters.with(&[host, tenant]);
        }
        for reason in REASONS {
            self.dropped_bytes.with(&[host, tenant, reason]);
            self.dropped_entries.with(&[host, tenant, reason]);
        }
    }

    /// The endpoints of the configuration are others now.
    pub(super) fn set_endpoints(&self, endpoints: Vec<Arc<EndpointInfo>>, queue: Option<Queue>) {
        let before = std::mem::replace(&mut *self.endpoints.lock(), endpoints.clone());
        *self.queue.lock() = queue;
        // Not locked while this goes on: what is shown of a tenant depends on them, too.
        let tenants = self.tenants.lock().clone();
        for tenant in tenants {
            for endpoint in &endpoints {
                self.begin(&endpoint.host, self.shown(&tenant, &endpoint.tenant_id));
            }
        }
        for gone in before.iter().filter(|gone| endpoints.iter().all(|endpoint| endpoint.identity != gone.identity)) {
            self.wal.forget(&gone.identity);
            self.counted.lock().retain(|(identity, _), _| *identity != gone.identity);
        }
    }

    /// The metrics of what an endpoint sends for a tenant.
    pub(super) fn of(&self, host: &str, tenant: &Tenant, of_endpoint: &str) -> TenantMetrics {
        let labels = [host, self.shown(tenant, of_endpoint)];
        TenantMetrics {
            sent_bytes: self.sent_bytes.with(&labels),
            sent_entries: self.sent_entries.with(&labels),
            retries: self.retries.with(&labels),
            request_size: self.request_size.with(&labels),
            latency: self.latency.with(&labels),
        }
    }

    /// Notes how long a request took; the status is -1 where there was no answer.
    pub(super) fn request(&self, status: Option<u16>, host: &str, tenant: &Tenant, of_endpoint: &str, seconds: f64) {
        let status = status.map_or_else(|| "-1".to_owned(), |status| status.to_string());
        self.request_duration.with(&[&status, host, self.shown(tenant, of_endpoint)]).observe(seconds);
    }

    /// Counts what an endpoint was not sent, or did not take.
    pub(super) fn dropped(&self, host: &str, tenant: &str, reason: &str, entries: u64, bytes: u64) {
        self.dropped_entries.with(&[host, tenant, reason]).add(entries);
        self.dropped_bytes.with(&[host, tenant, reason]).add(bytes);
    }

    /// As [`dropped`](Self::dropped), of a tenant of entries.
    pub(super) fn dropped_of(&self, host: &str, tenant: &Tenant, of_endpoint: &str, reason: &str, lost: &Totals) {
        self.dropped(host, self.shown(tenant, of_endpoint), reason, lost.samples, lost.bytes);
    }

    /// Counts for all endpoints what no record holds.
    pub(super) fn dropped_before(&self, tenant: &Tenant, reason: &str, lost: &Totals) {
        for endpoint in self.endpoints.lock().iter() {
            self.dropped_of(&endpoint.host, tenant, &endpoint.tenant_id, reason, lost);
        }
    }

    /// How many entries the queue dropped since the last call, by the host that does not get them and the reason.
    pub(super) fn take_lost(&self) -> BTreeMap<(String, &'static str), u64> {
        let endpoints = self.endpoints.lock().clone();
        endpoints.iter().for_each(|endpoint| self.count_losses(endpoint));
        std::mem::take(&mut self.lost.lock())
    }

    /// Counts what the queue dropped since the last time, as far as nobody else has.
    fn count_losses(&self, endpoint: &EndpointInfo) {
        for (reason, totals) in endpoint.reader.stats().dropped {
            if matches!(reason, INGESTER_ERROR | RATE_LIMITED | UNREADABLE) {
                continue;
            }
            let mut counted = self.counted.lock();
            let counted = counted.entry((endpoint.identity.clone(), reason)).or_default();
            let (entries, bytes) = (totals.samples.saturating_sub(counted.0), totals.bytes.saturating_sub(counted.1));
            *counted = (totals.samples, totals.bytes);
            if entries == 0 {
                continue;
            }
            let is_full = matches!(reason, reason::OVERFLOW | reason::MEMORY);
            let shown = if is_full { QUEUE_IS_FULL } else { reason };
            *self.lost.lock().entry((endpoint.host.clone(), shown)).or_default() += entries;
            self.dropped(&endpoint.host, &endpoint.tenant_id, shown, entries, bytes);
        }
    }
}

/// What a sender drops that cannot make a request of it; counted by the sender.
pub(super) const UNREADABLE: &str = "unreadable";

impl Refresh for SharedMetrics {
    fn refresh(&self) {
        let endpoints = self.endpoints.lock().clone();
        for endpoint in &endpoints {
            self.count_losses(endpoint);
            let id = [endpoint.identity.as_str()];
            let (stats, lag) = (endpoint.reader.stats(), endpoint.reader.lag());
            let damaged = stats.dropped.iter().find(|(reason, _)| *reason == reason::DAMAGED);
            let read = stats.delivered.records + stats.dropped.iter().map(|(_, totals)| totals.records).sum::<u64>();
            for (gauge, value) in [
                (&self.wal.last_read, lag.highest_delivered_ms.unwrap_or_default() as f64 / 1e3),
                (&self.wal.records_read, read as f64),
                (&self.wal.decode_failures, damaged.map_or(0, |(_, totals)| totals.records) as f64),
                (&self.wal.segment, stats.segment as f64),
                (&self.wal.marked, stats.segment.saturating_sub(1) as f64),
                (&self.wal.replay, endpoint.segment_at_start as f64),
                (&self.wal.dropped_notifications, 0.0),
            ] {
                gauge.with(&id).set(value);
            }
            // Nothing polls: a reader is told of what is written.
            let entered = stats.segment.saturating_sub(endpoint.segment_at_start) + 1;
            self.wal.segment_reads.with(&[id[0], "timer"]).set(0.0);
            self.wal.segment_reads.with(&[id[0], "notification"]).set(entered as f64);
        }
        let running = endpoints.iter().filter(|endpoint| !endpoint.reader.has_ended()).count();
        self.wal.running.set(running as f64);
        let Some(queue) = self.queue.lock().clone() else { return };
        let stats = queue.stats();
        self.wal.last_written.set(stats.highest_ms.unwrap_or_default() as f64 / 1e3);
        self.wal.reclaimed_space.set(stats.written_bytes.saturating_sub(stats.disk_bytes) as f64);
        let reclaimed = stats.segment_current.saturating_sub(stats.segments as u64);
        self.wal.reclaimed_segment.set(reclaimed as f64);
    }
}

impl DebugInfo for SharedMetrics {
    fn debug_info(&self) -> Vec<Item> {
        let attr = |name: &str, value: Value| Item::Attr { name: name.to_owned(), value };
        let endpoints = self.endpoints.lock().clone();
        let block = |endpoint: &Arc<EndpointInfo>| {
            let end = endpoint.end.snapshot();
            let dropped = end.dropped.iter().map(|(_, count)| count).sum::<u64>();
            let mut body = vec![
                attr("name", Value::from(endpoint.identity.as_str())),
                attr("url", Value::from(endpoint.url.as_str())),
            ];
            for (name, count) in [
                ("entries_pending", end.pending),
                ("bytes_pending", end.pending_bytes),
                ("entries_in_flight", end.in_flight),
                ("entries_offered", end.offered),
                ("entries_restored", end.restored),
                ("entries_delivered", end.delivered),
                ("entries_dropped", dropped),
                ("retries", end.retries),
            ] {
                body.push(attr(name, Value::from(count)));
            }
            if let Some(bytes) = end.capacity_bytes {
                body.push(attr("bytes_max", Value::from(bytes)));
            }
            if let Some(age_ms) = end.age_ms().filter(|_| end.pending > 0) {
                body.push(attr("oldest_seconds", Value::from(age_ms as f64 / 1e3)));
            }
            if let Some((at, answer)) = end.last_answer {
                body.push(attr("last_answer", Value::from(answer)));
                body.push(attr("last_answer_at", Value::from(corten_component::log::rfc3339(at))));
            }
            if let Some((at, error)) = &*endpoint.state.last_error.lock() {
                body.push(attr("last_error", Value::from(error.as_str())));
                body.push(attr("last_error_at", Value::from(corten_component::log::rfc3339(*at))));
            }
            Item::Block { name: "endpoint".to_owned(), label: None, body }
        };
        endpoints.iter().map(block).collect()
    }
}
