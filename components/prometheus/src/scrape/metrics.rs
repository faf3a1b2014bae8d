//! The metrics of `prometheus.scrape`.

use std::time::Duration;

use corten_component::metrics::{Counter, Gauge, Histogram, Registry, Summary, Vector};

/// What a `prometheus.scrape` tells of itself. All are the component's own; the name of the job is a label where the
/// reference has it.
#[derive(Clone)]
pub(crate) struct ScrapeMetrics {
    pub(crate) targets: Gauge,
    pub(crate) pools: Counter,
    pub(crate) reloads: Counter,
    pub(crate) reload_length: Vector<Summary>,
    pub(crate) target_limit_exceeded: Counter,
    pub(crate) target_limit: Vector<Gauge>,
    pub(crate) pool_targets: Vector<Gauge>,
    pub(crate) syncs: Vector<Counter>,
    pub(crate) sync_length: Vector<Summary>,
    pub(crate) sync_length_histogram: Vector<Histogram>,
    pub(crate) sync_failed: Vector<Counter>,
    pub(crate) body_size_exceeded: Counter,
    interval_length: Vector<Summary>,
    interval_length_histogram: Vector<Histogram>,
    pub(crate) sample_limit_exceeded: Counter,
    pub(crate) duplicates: Counter,
    pub(crate) out_of_bounds: Counter,
    pub(crate) label_limits_exceeded: Counter,
    pub(crate) bucket_limit_exceeded: Counter,
    pub(crate) old_exemplars: Counter,
    pub(crate) duration: Histogram,
}

/// The metrics of one length of intervals.
pub(crate) struct IntervalLengths {
    summary: Summary,
    histogram: Histogram,
}

impl IntervalLengths {
    /// Notes how many seconds lay between two scrapes.
    pub(crate) fn observe(&self, seconds: f64) {
        self.summary.observe(seconds);
        self.histogram.observe(seconds);
    }
}

const QUANTILES: &[f64] = &[0.01, 0.05, 0.5, 0.9, 0.99];
/// What the reference counts and what does not happen here: a pool is prepared before it is put in place, the cache of a
/// target is as large as its last scrape, and times out of order are for the receiver to judge.
const NEVER: [(&str, &str); 4] = [
    ("prometheus_target_scrape_pools_failed_total", "Total number of scrape pool creations that failed."),
    ("prometheus_target_scrape_pool_reloads_failed_total", "Total number of failed scrape pool reloads."),
    (
        "prometheus_target_scrapes_cache_flush_forced_total",
        "How many times a scrape cache was flushed due to getting big while scrapes are failing.",
    ),
    (
        "prometheus_target_scrapes_sample_out_of_order_total",
        "Total number of samples rejected due to not being out of the expected order.",
    ),
];
const LENGTH_BUCKETS: &[f64] = &[0.01, 0.1, 1.0, 10.0];
const INTERVAL_BUCKETS: &[f64] = &[0.01, 0.1, 1.0, 10.0, 30.0, 60.0, 120.0, 300.0];

impl ScrapeMetrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        // The program is a ring of one until there is a cluster: nothing ever moves.
        registry.counter(
            "prometheus_scrape_targets_moved_total",
            "Number of targets that have moved from this cluster node to another one",
        );
        // What cannot happen here is told all the same: whoever watches it sees that it does not.
        for (name, help) in NEVER {
            registry.counter(name, help);
        }
        ScrapeMetrics {
            targets: registry
                .gauge("prometheus_scrape_targets_gauge", "Number of targets this component is configured to scrape"),
            pools: registry
                .counter("prometheus_target_scrape_pools_total", "Total number of scrape pool creation attempts."),
            reloads: registry
                .counter("prometheus_target_scrape_pool_reloads_total", "Total number of scrape pool reloads."),
            reload_length: registry.summaries(
                "prometheus_target_reload_length_seconds",
                "Actual interval to reload the scrape pool with a given configuration.",
                &["interval"],
                QUANTILES,
            ),
            target_limit_exceeded: registry.counter(
                "prometheus_target_scrape_pool_exceeded_target_limit_total",
                "Total number of times scrape pools hit the target limit, during sync or config reload.",
            ),
            target_limit: registry.gauges(
                "prometheus_target_scrape_pool_target_limit",
                "Maximum number of targets allowed in this scrape pool.",
                &["scrape_job"],
            ),
            pool_targets: registry.gauges(
                "prometheus_target_scrape_pool_targets",
                "Current number of targets in this scrape pool.",
                &["scrape_job"],
            ),
            syncs: registry.counters(
                "prometheus_target_scrape_pool_sync_total",
                "Total number of syncs that were executed on a scrape pool.",
                &["scrape_job"],
            ),
            sync_length: registry.summaries(
                "prometheus_target_sync_length_seconds",
                "Actual interval to sync the scrape pool.",
                &["scrape_job"],
                QUANTILES,
            ),
            sync_length_histogram: registry.histograms(
                "prometheus_target_sync_length_histogram_seconds",
                "Actual interval to sync the scrape pool.",
                &["scrape_job"],
                LENGTH_BUCKETS,
            ),
            sync_failed: registry.counters(
                "prometheus_target_sync_failed_total",
                "Total number of target sync failures.",
                &["scrape_job"],
            ),
            body_size_exceeded: registry.counter(
                "prometheus_target_scrapes_exceeded_body_size_limit_total",
                "Total number of scrapes that hit the body size limit",
            ),
            interval_length: registry.summaries(
                "prometheus_target_interval_length_seconds",
                "Actual intervals between scrapes.",
                &["interval"],
                QUANTILES,
            ),
            interval_length_histogram: registry.histograms(
                "prometheus_target_interval_length_histogram_seconds",
                "Actual intervals between scrapes.",
                &["interval"],
                INTERVAL_BUCKETS,
            ),
            sample_limit_exceeded: registry.counter(
                "prometheus_target_scrapes_exceeded_sample_limit_total",
                "Total number of scrapes that hit the sample limit and were rejected.",
            ),
            duplicates: registry.counter(
                "prometheus_target_scrapes_sample_duplicate_timestamp_total",
                "Total number of samples rejected due to duplicate timestamps but different values.",
            ),
            out_of_bounds: registry.counter(
                "prometheus_target_scrapes_sample_out_of_bounds_total",
                "Total number of samples rejected due to timestamp falling outside of the time bounds.",
            ),
            label_limits_exceeded: registry.counter(
                "prometheus_target_scrape_pool_exceeded_label_limits_total",
                "Total number of times scrape pools hit the label limits, during sync or config reload.",
            ),
            bucket_limit_exceeded: registry.counter(
                "prometheus_target_scrapes_exceeded_native_histogram_bucket_limit_total",
                "Total number of scrapes that hit the native histogram bucket limit and were rejected.",
            ),
            old_exemplars: registry.counter(
                "prometheus_target_scrapes_exemplar_out_of_order_total",
                "Total number of exemplar rejected due to not being out of the expected order.",
            ),
            duration: registry.histogram(
                "prometheus_target_scrape_duration_seconds",
                "Total duration of the scrape from start to commit completion in seconds.",
                INTERVAL_BUCKETS,
            ),
        }
    }

    /// Removes what is told of a job that has another name now.
    pub(crate) fn forget(&self, job: &str) {
        self.target_limit.remove(&[job]);
        self.pool_targets.remove(&[job]);
        self.syncs.remove(&[job]);
        self.sync_length.remove(&[job]);
        self.sync_length_histogram.remove(&[job]);
        self.sync_failed.remove(&[job]);
    }

    /// Where the lengths of intervals of this length are noted.
    pub(crate) fn interval_lengths(&self, interval: Duration) -> IntervalLengths {
        let interval = corten_config::duration::format(i64::try_from(interval.as_nanos()).unwrap_or(i64::MAX));
        IntervalLengths {
            summary: self.interval_length.with(&[&interval]),
            histogram: self.interval_length_histogram.with(&[&interval]),
        }
    }
}
