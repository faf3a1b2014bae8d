//! The metrics of `prometheus.scrape`.

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
    pub(crate) sync_failed: Counter,
    pub(crate) body_size_exceeded: Counter,
    pub(crate) interval_length: Vector<Summary>,
    pub(crate) interval_length_histogram: Vector<Histogram>,
    pub(crate) sample_limit_exceeded: Counter,
    pub(crate) duplicates: Counter,
    pub(crate) out_of_bounds: Counter,
    pub(crate) label_limits_exceeded: Counter,
    pub(crate) bucket_limit_exceeded: Counter,
    pub(crate) old_exemplars: Counter,
    pub(crate) duration: Histogram,
}

const QUANTILES: &[f64] = &[0.01, 0.05, 0.5, 0.9, 0.99];
const LENGTH_BUCKETS: &[f64] = &[0.01, 0.1, 1.0, 10.0];
const INTERVAL_BUCKETS: &[f64] = &[0.01, 0.1, 1.0, 10.0, 30.0, 60.0, 120.0, 300.0];

impl ScrapeMetrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        // The program is a ring of one until there is a cluster: nothing ever moves.
        registry.counter(
            "prometheus_scrape_targets_moved_total",
            "Number of targets that have moved from this cluster node to another one",
        );
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
            sync_failed: registry
                .counter("prometheus_target_sync_failed_total", "Total number of target sync failures."),
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
    }
}
