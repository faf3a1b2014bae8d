//! `prometheus.scrape`.

mod cache;
mod fetch;
mod limit;
mod metrics;
mod protocol;
mod spec;
mod target;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use corten_component::targets::{LastTime, ShownTarget, TargetState, TargetView};
use corten_component::{Component, Context, DebugInfo, Error, Field, Forward, Stop, Task};
use corten_config::encode::Item;
use corten_config::schema::Stability;
use corten_config::{Arguments, CheckErrors, StringEnum, Value};
use corten_net::{Client, ClientConfig, ClientOptions};
use corten_signal::target::{Target, TargetBuilder};
use corten_signal::{Metrics, Receiver};
use http::HeaderValue;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use cache::SeriesRules;
use fetch::FetchSettings;
use limit::Limit;
use metrics::ScrapeMetrics;
use protocol::Protocol;
use spec::{TargetDefaults, TargetSpec};
use target::{Estate, FailureLog, LastScrape, LoopSettings, Order, TargetLoop};

/// Scrapes targets at an interval and forwards what they expose.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Config {
    /// What to scrape.
    targets: Vec<Target>,
    /// Where to send the samples.
    forward_to: Vec<Receiver<Metrics>>,
    /// The value of the `job` label of targets that have none.
    #[arg(default_with = String::new, default_text = "component name")]
    job_name: String,
    /// Whether labels that a target exposes win over the target's own. Otherwise they are renamed, with `exported_` before
    /// their names.
    #[arg(default = false)]
    honor_labels: bool,
    /// Whether times that a target exposes are used.
    #[arg(default = true)]
    honor_timestamps: bool,
    /// Whether series with exposed times get staleness markers, too.
    #[arg(default = false)]
    track_timestamps_staleness: bool,
    /// Query parameters of the request.
    #[arg(optional)]
    params: BTreeMap<String, Vec<String>>,
    /// Whether the classic series of a histogram that is also exposed as a native one are kept.
    #[arg(default = false)]
    scrape_classic_histograms: bool,
    /// Whether native histograms are scraped. Protocol buffers are then asked for first.
    #[arg(default = false)]
    scrape_native_histograms: bool,
    /// File to which failed scrapes are written, one JSON object a line.
    #[arg(default = "")]
    scrape_failure_log_file: String,
    /// How often to scrape.
    #[arg(default = "60s")]
    scrape_interval: Duration,
    /// How long a scrape may take.
    #[arg(default = "10s")]
    scrape_timeout: Duration,
    /// The formats to ask for, the most wanted first.
    #[arg(default = ["OpenMetricsText1.0.0", "OpenMetricsText0.0.1", "PrometheusText1.0.0", "PrometheusText0.0.4"])]
    scrape_protocols: Vec<Protocol>,
    /// The path of the request.
    #[arg(default = "/metrics")]
    metrics_path: String,
    /// The scheme of the request.
    #[arg(default = "http")]
    scheme: String,
    /// A body that is this long or longer, once decompressed, fails the scrape: bytes, or a number with a unit such as
    /// `10MiB`. 0 is no limit.
    #[arg(optional)]
    body_size_limit: corten_component::size::ByteSize,
    /// A scrape with more samples fails. 0 is no limit.
    #[arg(optional)]
    sample_limit: Limit,
    /// If there are more targets, none is scraped. 0 is no limit.
    #[arg(optional)]
    target_limit: Limit,
    /// A series with more labels fails the scrape. 0 is no limit.
    #[arg(optional)]
    label_limit: Limit,
    /// A label with a longer name, in bytes, fails the scrape. 0 is no limit.
    #[arg(optional)]
    label_name_length_limit: Limit,
    /// A label with a longer value, in bytes, fails the scrape. 0 is no limit.
    #[arg(optional)]
    label_value_length_limit: Limit,
    #[flatten]
    client: ClientConfig,
    /// Whether to add series about timeout, sample limit and body size of each scrape.
    #[arg(default = false)]
    extra_metrics: bool,
    /// Whether to ask for protocol buffers first, and scrape native histograms.
    #[arg(default = false, deprecated = "use `scrape_protocols` instead")]
    enable_protobuf_negotiation: bool,
    /// Which names are accepted: `legacy` or `utf8`.
    #[arg(default = "legacy")]
    metric_name_validation_scheme: NameValidation,
    /// How a target is asked to write names that are not legacy: `underscores`, `dots`, `values` or, with the validation
    /// scheme `utf8`, `allow-utf-8`. The default is `underscores` for `legacy` and `allow-utf-8` for `utf8`.
    #[arg(default_with = String::new, default_text = "underscores")]
    metric_name_escaping_scheme: String,
    /// The format of an answer that does not name a known one. Empty makes such a scrape fail.
    #[arg(default = "PrometheusText0.0.4")]
    scrape_fallback_protocol: String,
    /// Whether classic histograms become native ones with their own bounds.
    #[arg(default = false)]
    convert_classic_histograms_to_nhcb: bool,
    /// Whether to ask for compression.
    #[arg(default = true)]
    enable_compression: bool,
    /// The most buckets of a native histogram; neighbours are merged to stay within. 0 is no limit.
    #[arg(default = 0)]
    native_histogram_bucket_limit: Limit,
    /// The smallest growth from one bucket of a native histogram to the next; neighbours are merged to stay above. 0 is
    /// no limit.
    #[arg(default = 0.0)]
    native_histogram_min_bucket_factor: f64,
    /// Whether to forward type, help and unit of metrics.
    #[arg(default = false)]
    honor_metadata: bool,
    /// Whether to add type and unit of metrics as labels.
    #[arg(default = false)]
    enable_type_and_unit_labels: bool,
    /// Whether the start of a series makes a sample of value zero.
    #[arg(default = false)]
    start_timestamp_zero_ingestion: bool,
    /// How targets are shared among the processes of a cluster.
    #[block]
    clustering: Option<Clustering>,
}

/// How targets are shared among the processes of a cluster.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Clustering {
    /// Whether they are shared. A process without a cluster scrapes all.
    enabled: bool,
}

/// Which names are accepted.
#[derive(StringEnum, Clone, Copy, Debug, PartialEq, Eq)]
#[string_enum(refusal = refuse_name_validation)]
pub(crate) enum NameValidation {
    /// Letters, digits and underscores, and colons in metric names.
    Legacy,
    /// Any UTF-8 text.
    Utf8,
}

fn refuse_name_validation(text: &str) -> String {
    format!("invalid metric_name_validation_scheme {text:?}: must be either \"utf8\" or \"legacy\"")
}

impl Config {
    fn check_build(&self, minimum: Stability) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        for (wanted, name) in [
            (self.honor_metadata, "honor_metadata"),
            (self.enable_type_and_unit_labels, "enable_type_and_unit_labels"),
            (self.start_timestamp_zero_ingestion, "start_timestamp_zero_ingestion"),
        ] {
            let text = format!(
                "{name} is an experimental feature, and must be enabled by setting the stability.level flag to \
                 experimental"
            );
            errors.require(!wanted || minimum == Stability::Experimental, &[name], &text);
        }
        errors.into_result()
    }

    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        let span = |duration: Duration| corten_config::duration::format(duration.as_nanos() as i64);
        if self.scrape_timeout > self.scrape_interval {
            let text = format!(
                "scrape_timeout ({}) greater than scrape_interval ({}) for scrape config with job name {:?}",
                span(self.scrape_timeout),
                span(self.scrape_interval),
                self.job_name
            );
            errors.push(&["scrape_timeout", "scrape_interval", "job_name"], text);
        }
        for (name, value) in [("scrape_interval", self.scrape_interval), ("scrape_timeout", self.scrape_timeout)] {
            if value.is_zero() {
                errors.push(
                    if name == "scrape_interval" { &["scrape_interval"] } else { &["scrape_timeout"] },
                    format!("{name} must be greater than 0"),
                );
            }
        }
        errors.require(
            !self.enable_protobuf_negotiation || self.scrape_protocols == Protocol::DEFAULT,
            &["enable_protobuf_negotiation", "scrape_protocols"],
            "both enable_protobuf_negotiation and scrape_protocols are set, only one can be set at a time",
        );
        errors.require(
            !self.scrape_native_histograms || self.protocols().contains(&Protocol::Protobuf),
            &["scrape_native_histograms", "scrape_protocols"],
            "scrape_native_histograms is set to true, but PrometheusProto is not in scrape_protocols",
        );
        for (at, protocol) in self.scrape_protocols.iter().enumerate() {
            if self.scrape_protocols[..at].contains(protocol) {
                let text = format!(
                    "duplicate scrape protocol {:?}: make sure the scrape protocols provided are unique",
                    protocol.as_str()
                );
                errors.push(&["scrape_protocols"], text);
            }
        }
        if !self.scrape_fallback_protocol.is_empty()
            && let Err(error) = Protocol::parse(&self.scrape_fallback_protocol)
        {
            let error = error.split_once(": ").map_or(error.as_str(), |(_, rest)| rest).to_owned();
            let text = format!("invalid scrape_fallback_protocol {:?}: {error}", self.scrape_fallback_protocol);
            errors.push(&["scrape_fallback_protocol"], text);
        }
        let escaping = self.metric_name_escaping_scheme.as_str();
        if !matches!(escaping, "" | "allow-utf-8" | "underscores" | "dots" | "values") {
            let text = format!(
                "invalid metric_name_escaping_scheme: {escaping:?}, supported values: [allow-utf-8 underscores dots values]"
            );
            errors.push(&["metric_name_escaping_scheme"], text);
        }
        errors.require(
            escaping != "allow-utf-8" || self.metric_name_validation_scheme == NameValidation::Utf8,
            &["metric_name_escaping_scheme", "metric_name_validation_scheme"],
            "metric_name_escaping_scheme cannot be set to 'allow-utf-8' while metric_name_validation_scheme is not set to \
             'utf8'",
        );
        errors.into_result()
    }

    fn native_histograms(&self) -> bool {
        self.scrape_native_histograms || self.enable_protobuf_negotiation
    }

    /// The formats to ask for: protocol buffers first where native histograms are wanted and the user says nothing else.
    fn protocols(&self) -> Vec<Protocol> {
        if self.native_histograms() && self.scrape_protocols == Protocol::DEFAULT {
            Protocol::PROTOBUF_FIRST.to_vec()
        } else {
            self.scrape_protocols.clone()
        }
    }

    fn escaping(&self) -> &str {
        match (self.metric_name_escaping_scheme.as_str(), self.metric_name_validation_scheme) {
            ("", NameValidation::Legacy) => "underscores",
            ("", NameValidation::Utf8) => "allow-utf-8",
            (scheme, _) => scheme,
        }
    }
}

/// The component.
pub struct Scrape {
    plans: watch::Sender<Arc<Plan>>,
    pools: Arc<Pools>,
    manager: Task,
}

/// Everything that a configuration asks for.
#[derive(Clone)]
pub struct Plan {
    config: Config,
    job: String,
    client: Client,
    forward: Arc<Forward>,
    failure_log: Option<Arc<FailureLog>>,
    fixed: Fixed,
}

/// The settings that are those of the first evaluation: as in the reference, a change takes a restart.
#[derive(Clone, Copy, PartialEq)]
struct Fixed {
    metadata: bool,
    type_and_unit_labels: bool,
    start_timestamp_zeros: bool,
}

/// The loops, by the identity of their targets.
#[derive(Default)]
struct Pools {
    loops: Mutex<HashMap<u128, RunningLoop>>,
    /// A loop has ended.
    ended: Arc<Notify>,
    /// The targets that nobody scrapes here.
    aside: Mutex<Vec<Arc<Aside>>>,
}

struct RunningLoop {
    job: String,
    shown: Arc<Scraped>,
    orders: watch::Sender<Order>,
    estate: Estate,
    handle: JoinHandle<()>,
    /// Whether it takes no more orders.
    ended: Arc<AtomicBool>,
    ending: bool,
}

/// A target that is scraped, for whoever looks.
struct Scraped {
    url: String,
    discovered: Target,
    /// Those that stand on samples.
    labels: Target,
    last: Arc<Mutex<LastScrape>>,
}

/// A target that is not scraped, for whoever looks.
struct Aside {
    discovered: Target,
    state: TargetState,
    why: String,
}

impl ShownTarget for Scraped {
    fn state(&self) -> TargetState {
        let last = self.last.lock();
        match (&last.at, &last.error) {
            (None, _) => TargetState::Unknown,
            (Some(_), None) => TargetState::Up,
            (Some(_), Some(_)) => TargetState::Down,
        }
    }

    fn url(&self) -> &str {
        &self.url
    }

    fn discovered(&self) -> &Target {
        &self.discovered
    }

    fn labels(&self) -> Option<&Target> {
        Some(&self.labels)
    }

    fn last(&self) -> LastTime {
        let LastScrape { at, duration, error, samples } = self.last.lock().clone();
        let (took, samples) = (at.map(|_| duration), at.map(|_| samples));
        LastTime { at, took, samples, error }
    }
}

impl ShownTarget for Aside {
    fn state(&self) -> TargetState {
        self.state
    }

    fn url(&self) -> &str {
        ""
    }

    fn discovered(&self) -> &Target {
        &self.discovered
    }

    fn labels(&self) -> Option<&Target> {
        None
    }

    fn last(&self) -> LastTime {
        LastTime { error: Some(self.why.clone()), ..LastTime::default() }
    }
}

impl TargetView for Pools {
    fn targets(&self) -> Vec<Arc<dyn ShownTarget>> {
        let mut targets: Vec<Arc<dyn ShownTarget>> = Vec::new();
        let running = self.loops.lock();
        targets.reserve(running.len());
        for running in running.values().filter(|running| !running.ending) {
            targets.push(Arc::clone(&running.shown) as Arc<dyn ShownTarget>);
        }
        drop(running);
        targets.extend(self.aside.lock().iter().map(|aside| Arc::clone(aside) as Arc<dyn ShownTarget>));
        targets
    }
}

impl Component for Scrape {
    const NAME: &'static str = "prometheus.scrape";
    type Arguments = Config;
    type Exports = ();
    type Prepared = Plan;

    async fn prepare(config: Config, cx: &Context<Self>, current: Option<&Self>) -> Result<(Plan, ()), Error> {
        let services = cx.services();
        let user_agent = HeaderValue::from_str(&services.user_agent).map_err(|error| Error::new(error.to_string()))?;
        let options = ClientOptions {
            user_agent,
            dialer: Some(Arc::clone(&services.dialer)),
            read_buffer_bytes_max: READ_BUFFER_BYTES_MAX,
            observe: cx.observe_requests(),
            ..ClientOptions::default()
        };
        let before = current.map(|current| Arc::clone(&current.plans.borrow()));
        let client = match &before {
            // Connections are kept where nothing about them changed.
            Some(before) if before.config.client == config.client => before.client.clone(),
            _ => Client::new(config.client.clone(), options).await.map_err(|error| Error::new(error.to_string()))?,
        };
        let failure_log = match config.scrape_failure_log_file.as_str() {
            "" => None,
            path => Some(Arc::new(FailureLog::open(path)?)),
        };
        let wanted = Fixed {
            metadata: config.honor_metadata,
            type_and_unit_labels: config.enable_type_and_unit_labels,
            start_timestamp_zeros: config.start_timestamp_zero_ingestion,
        };
        let fixed = before.as_ref().map_or(wanted, |before| before.fixed);
        if fixed != wanted {
            cx.logger().warn(
                "honor_metadata, enable_type_and_unit_labels and start_timestamp_zero_ingestion cannot change at runtime; \
                 restart to apply the change",
                &[],
            );
        }
        let job = if config.job_name.is_empty() { cx.id().to_owned() } else { config.job_name.clone() };
        let forward = match &before {
            Some(before) if before.config.forward_to == config.forward_to => Arc::clone(&before.forward),
            _ => Arc::new(Forward::new(cx.metrics(), cx.ledger(), config.forward_to.clone())),
        };
        Ok((Plan { config, job, client, forward, failure_log, fixed }, ()))
    }

    fn commit(current: Option<Self>, plan: Plan, cx: &Context<Self>) -> Self {
        let plan = Arc::new(plan);
        if let Some(current) = current {
            current.plans.send_replace(plan);
            return current;
        }
        let (plans, changes) = watch::channel(plan);
        let pools = Arc::new(Pools::default());
        cx.show_debug_info(Arc::clone(&pools) as Arc<dyn DebugInfo>);
        let context = cx.clone();
        let managed = Arc::clone(&pools);
        let metrics = ScrapeMetrics::new(cx.metrics());
        metrics.pools.inc();
        let manager = cx.spawn("scrape manager", move |stop| {
            manage(context.clone(), changes.clone(), Arc::clone(&managed), metrics.clone(), stop)
        });
        Scrape { plans, pools, manager }
    }

    async fn drain(self, _: &Context<Self>) {
        self.manager.stop().await;
        let loops: Vec<RunningLoop> = self.pools.loops.lock().drain().map(|(_, running)| running).collect();
        for running in &loops {
            running.orders.send_replace(Order::Leave);
        }
        for running in loops {
            // A scrape that is under way is finished, so that what it brought is not lost, unless the target hangs.
            let _ = running.handle.await;
        }
    }
}

/// The largest read buffer of a connection to a target: see [`ClientOptions::read_buffer_bytes_max`].
const READ_BUFFER_BYTES_MAX: usize = 32 << 10;

/// Keeps the loops as the configuration and the cluster say.
async fn manage(
    cx: Context<Scrape>,
    mut plans: watch::Receiver<Arc<Plan>>,
    pools: Arc<Pools>,
    metrics: ScrapeMetrics,
    mut stop: Stop,
) -> Result<(), String> {
    let ownership = Arc::clone(&cx.services().ownership);
    let mut ring = ownership.changed();
    let seed = seed();
    let mut plan = Arc::clone(&plans.borrow_and_update());
    sync(&cx, &plan, &pools, &metrics, seed);
    loop {
        tokio::select! {
            () = stop.wait() => return Ok(()),
            changed = plans.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let before = std::mem::replace(&mut plan, Arc::clone(&plans.borrow_and_update()));
                if before.job != plan.job {
                    metrics.forget(&before.job);
                }
                let started = Instant::now();
                sync(&cx, &plan, &pools, &metrics, seed);
                let interval = corten_config::duration::format(plan.config.scrape_interval.as_nanos() as i64);
                metrics.reloads.inc();
                metrics.reload_length.with(&[&interval]).observe(started.elapsed().as_secs_f64());
                continue;
            }
            changed = ring.changed() => if changed.is_err() { ring = ownership.changed() },
            // Loops that have ended are forgotten. One whose target came back just then is started again.
            () = pools.ended.notified() => {}
        }
        sync(&cx, &plan, &pools, &metrics, seed);
    }
}

/// Differs from host to host, so that not all of a fleet scrape a target at the same time, and stays the same over
/// restarts, so that a target's times do.
fn seed() -> u64 {
    let host = corten_os::host::hostname().unwrap_or_default();
    xxhash_rust::xxh3::xxh3_64(host.as_bytes())
}

fn sync(cx: &Context<Scrape>, plan: &Arc<Plan>, pools: &Pools, metrics: &ScrapeMetrics, seed: u64) {
    let started = Instant::now();
    let config = &plan.config;
    let defaults = TargetDefaults {
        job: plan.job.clone(),
        scheme: config.scheme.clone(),
        metrics_path: config.metrics_path.clone(),
        params: config.params.iter().map(|(name, values)| (name.clone(), values.clone())).collect(),
        interval: config.scrape_interval,
        timeout: config.scrape_timeout,
        native_histograms: config.native_histograms(),
        classic_histograms: config.scrape_classic_histograms,
        convert_to_nhcb: config.convert_classic_histograms_to_nhcb,
    };
    let shared = config.clustering.as_ref().is_some_and(|clustering| clustering.enabled);
    let mut wanted: HashMap<u128, TargetSpec> = HashMap::with_capacity(config.targets.len());
    let sync_failed = metrics.sync_failed.with(&[&plan.job]);
    let mut aside: Vec<Arc<Aside>> = Vec::new();
    let mut put_aside = |target: &Target, state: TargetState, why: &str| {
        aside.push(Arc::new(Aside { discovered: target.clone(), state, why: why.to_owned() }));
    };
    for target in &config.targets {
        if shared && !cx.services().ownership.owns(target.non_meta_hash()) {
            put_aside(target, TargetState::Dropped, "another member of the cluster scrapes it");
            continue;
        }
        match TargetSpec::new(target, &defaults) {
            Ok(spec) => match wanted.entry(spec.identity) {
                Entry::Vacant(place) => drop(place.insert(spec)),
                Entry::Occupied(_) => put_aside(target, TargetState::Dropped, "it is the same as another target"),
            },
            Err(error) => {
                sync_failed.inc();
                put_aside(target, TargetState::Refused, &error);
                cx.logger().error(
                    "Creating target failed",
                    &[
                        ("scrape_pool", Field::from(&plan.job)),
                        ("target", Field::from(target.labels().to_string())),
                        ("err", Field::from(error)),
                    ],
                );
            }
        }
    }
    let forced_error = (config.target_limit.0 > 0 && wanted.len() as u64 > config.target_limit.0).then(|| {
        metrics.target_limit_exceeded.inc();
        format!("target_limit exceeded (number of targets: {}, limit: {})", wanted.len(), config.target_limit.0)
    });
    let count = wanted.len();
    *pools.aside.lock() = aside;
    let mut loops = pools.loops.lock();
    loops.retain(|_, running| !running.ended.load(Ordering::Acquire) && !running.handle.is_finished());
    // The loops that are no longer wanted, by their labels: a new one of the same labels goes on with their series.
    let mut heirless: HashMap<Target, u128> = HashMap::new();
    for (identity, running) in loops.iter_mut().filter(|(identity, _)| !wanted.contains_key(identity)) {
        if running.job == plan.job {
            heirless.insert(running.shown.labels.clone(), *identity);
        } else {
            // As in the reference, the series of a job that has another name now just stop.
            running.ending = true;
            running.orders.send_replace(Order::Leave);
        }
    }
    let mut new = Vec::new();
    for (identity, spec) in wanted {
        let settings = Arc::new(loop_settings(plan, &spec, forced_error.clone()));
        match loops.get_mut(&identity) {
            Some(running) => {
                running.ending = false;
                running.job.clone_from(&plan.job);
                if running.shown.discovered != spec.discovered {
                    let Scraped { url, labels, last, .. } = &*running.shown;
                    let (url, labels, last) = (url.clone(), labels.clone(), Arc::clone(last));
                    running.shown = Arc::new(Scraped { url, discovered: spec.discovered, labels, last });
                }
                running.orders.send_replace(Order::Run(settings));
            }
            None => new.push((identity, spec, settings)),
        }
    }
    for (identity, spec, settings) in new {
        let labels = shown_labels(&spec);
        let before = heirless.remove(&labels).and_then(|before| loops.get_mut(&before));
        let estate = before.map_or_else(Estate::default, |before| {
            before.ending = true;
            before.orders.send_replace(Order::HandOver);
            Arc::clone(&before.estate)
        });
        let (orders, receiver) = watch::channel(Order::Run(settings));
        let last = Arc::new(Mutex::new(LastScrape::default()));
        let ended = Arc::new(AtomicBool::new(false));
        let url = corten_net::redact_url(&spec.uri.to_string());
        let shown = Scraped { url, discovered: spec.discovered.clone(), labels, last: Arc::clone(&last) };
        let target = TargetLoop {
            spec,
            estate: Arc::clone(&estate),
            seed,
            metrics: metrics.clone(),
            row: Arc::clone(cx.ledger().row_of::<Metrics>()),
            logger: cx.logger().clone(),
            last,
        };
        let over = Over { ended: Arc::clone(&ended), tell: Arc::clone(&pools.ended) };
        let handle = tokio::spawn(async move {
            let _over = over;
            target.run(receiver).await;
        });
        let job = plan.job.clone();
        let shown = Arc::new(shown);
        loops.insert(identity, RunningLoop { job, shown, orders, estate, handle, ended, ending: false });
    }
    for identity in heirless.into_values() {
        if let Some(running) = loops.get_mut(&identity).filter(|running| !running.ending) {
            running.ending = true;
            running.orders.send_replace(Order::End);
        }
    }
    drop(loops);
    metrics.targets.set(count as f64);
    metrics.pool_targets.with(&[&plan.job]).set(count as f64);
    metrics.target_limit.with(&[&plan.job]).set(config.target_limit.0 as f64);
    metrics.syncs.with(&[&plan.job]).inc();
    let took = started.elapsed().as_secs_f64();
    metrics.sync_length.with(&[&plan.job]).observe(took);
    metrics.sync_length_histogram.with(&[&plan.job]).observe(took);
}

/// The labels that stand on samples of a target, secret where the target is.
fn shown_labels(spec: &TargetSpec) -> Target {
    let mut builder = TargetBuilder::new();
    builder.start_from(&spec.discovered);
    builder.labels_mut().clear();
    for (name, value) in spec.labels.iter() {
        builder.set(name, value);
    }
    // They are about those of a target, and as such not too long.
    builder.build().unwrap_or_default()
}

/// Says that a loop is over when it is, also when it panicked.
struct Over {
    ended: Arc<AtomicBool>,
    tell: Arc<Notify>,
}

impl Drop for Over {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        self.tell.notify_one();
    }
}

fn loop_settings(plan: &Plan, spec: &TargetSpec, forced_error: Option<String>) -> LoopSettings {
    let config = &plan.config;
    let accept = protocol::accept(&config.protocols(), config.escaping());
    LoopSettings {
        job: plan.job.clone(),
        discovered: spec.discovered.clone(),
        client: plan.client.clone(),
        forward: Arc::clone(&plan.forward),
        fetch: FetchSettings {
            accept: HeaderValue::from_str(&accept).unwrap_or(HeaderValue::from_static("*/*")),
            compression: config.enable_compression,
            fallback: Protocol::parse(&config.scrape_fallback_protocol).ok(),
            body_bytes_max: config.body_size_limit.bytes(),
            classic_histograms: spec.classic_histograms,
            native_histograms: spec.native_histograms,
            convert_to_nhcb: spec.convert_to_nhcb,
            start_timestamps: plan.fixed.start_timestamp_zeros,
        },
        rules: SeriesRules {
            honor_labels: config.honor_labels,
            honor_timestamps: config.honor_timestamps,
            track_timestamps_staleness: config.track_timestamps_staleness,
            sample_limit: config.sample_limit.0,
            label_limit: config.label_limit.0,
            label_name_length_limit: config.label_name_length_limit.0,
            label_value_length_limit: config.label_value_length_limit.0,
            utf8_names: config.metric_name_validation_scheme == NameValidation::Utf8,
            bucket_limit: config.native_histogram_bucket_limit.0,
            min_bucket_factor: config.native_histogram_min_bucket_factor,
            metadata: plan.fixed.metadata,
            type_and_unit_labels: plan.fixed.type_and_unit_labels,
            start_timestamp_zeros: plan.fixed.start_timestamp_zeros,
        },
        interval: spec.interval,
        timeout: spec.timeout,
        extra_metrics: config.extra_metrics,
        forced_error,
        failure_log: plan.failure_log.clone(),
    }
}

impl DebugInfo for Pools {
    fn debug_info(&self) -> Vec<Item> {
        let loops = self.loops.lock();
        let mut targets: Vec<&RunningLoop> = loops.values().filter(|running| !running.ending).collect();
        targets.sort_by(|a, b| {
            let (a, b) = (&a.shown, &b.shown);
            a.url.cmp(&b.url).then_with(|| a.labels.iter().cmp(b.labels.iter()))
        });
        targets.into_iter().map(RunningLoop::debug_info).collect()
    }

    fn targets(&self) -> Option<&dyn TargetView> {
        Some(self)
    }
}

impl RunningLoop {
    fn debug_info(&self) -> Item {
        let health = self.shown.state().as_str();
        let last = self.shown.last.lock().clone();
        let attr = |name: &str, value: Value| Item::Attr { name: name.to_owned(), value };
        let mut body = vec![
            attr("job", Value::string(self.job.as_str())),
            attr("url", Value::string(self.shown.url.as_str())),
            attr("health", Value::string(health)),
            attr(
                "labels",
                Value::object(
                    self.shown.labels.iter().map(|(name, value)| (Arc::from(name), Value::string(value))).collect(),
                ),
            ),
        ];
        if let Some(error) = &last.error {
            body.push(attr("last_error", Value::string(error.as_str())));
        }
        // The reference's time before the first scrape.
        let at = last.at.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), corten_component::log::rfc3339);
        body.push(attr("last_scrape", Value::string(at)));
        if last.at.is_some() {
            let took = corten_config::duration::format(last.duration.as_nanos() as i64);
            body.push(attr("last_scrape_duration", Value::string(took)));
            body.push(attr("last_scrape_samples", Value::from(last.samples)));
        }
        Item::Block { name: "target".to_owned(), label: None, body }
    }
}
