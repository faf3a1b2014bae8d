//! The loop that scrapes one target.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use corten_component::{Field, Forward, Logger};
use corten_net::Client;
use corten_signal::labels::METRIC_NAME;
use corten_signal::ledger::Row;
use corten_signal::metrics::{Metadata, MetricType, Origin, STALE_NAN, ScrapedTarget, SeriesMetadata};
use corten_signal::target::Target;
use corten_signal::{BlockBuilder, LabelsBuilder, MetricsBatch, Sample, SeriesBlock, SeriesPart};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::sleep_until;

use super::cache::{ExpositionError, Scraped, SeriesCache, SeriesRules};
use super::fetch::{FetchSettings, ScrapeError, fetch};
use super::metrics::{IntervalLengths, ScrapeMetrics};
use super::spec::TargetSpec;

/// What decides how a target is scraped. A loop takes changes of it without losing what it remembers, where that can be.
#[derive(Clone)]
pub(crate) struct LoopSettings {
    /// The name of the job, for logs; the label that stands on samples may be another.
    pub(crate) job: String,
    /// The target as it was found last: what only discovery says of it can change.
    pub(crate) discovered: Target,
    pub(crate) client: Client,
    pub(crate) forward: Arc<Forward>,
    pub(crate) fetch: FetchSettings,
    pub(crate) rules: SeriesRules,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    /// Whether the series about the scrape itself are more than five.
    pub(crate) extra_metrics: bool,
    /// Why no request is to be made, if none is.
    pub(crate) forced_error: Option<String>,
    pub(crate) failure_log: Option<Arc<FailureLog>>,
}

/// What a loop is to do.
#[derive(Clone)]
pub(crate) enum Order {
    /// Scrape.
    Run(Arc<LoopSettings>),
    /// The target is gone: end its series after two more intervals, unless it comes back.
    End,
    /// Leave the series to the loop of another target with the same labels, and stop.
    HandOver,
    /// Stop and say nothing.
    Leave,
}

/// What a loop leaves to the next one of the same labels.
pub(crate) struct Legacy {
    cache: SeriesCache,
    report_live: usize,
}

/// Where the loops of one label set, one after the other, leave their series. The one before may still be busy when the
/// next begins, so that what it leaves is looked for at each scrape.
pub(crate) type Estate = Arc<Mutex<Vec<Legacy>>>;

/// A file to which failed scrapes are written, one JSON object a line.
pub(crate) struct FailureLog {
    file: Mutex<std::fs::File>,
}

impl FailureLog {
    /// Opens the file for appending.
    pub(crate) fn open(path: &str) -> Result<Self, String> {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        let file = file.map_err(|error| format!("could not open scrape failure log file {path:?}: {error}"))?;
        Ok(FailureLog { file: Mutex::new(file) })
    }

    fn write(&self, job: &str, target: &str, error: &str) {
        use std::io::Write as _;
        let line = serde_json::json!({
            "time": corten_component::log::rfc3339(SystemTime::now()),
            "level": "ERROR",
            "msg": error,
            "job_name": job,
            "target": target,
        });
        // A full disk keeps nobody from scraping.
        let _ = writeln!(self.file.lock(), "{line}");
    }
}

/// What is known of the last scrape, for whoever looks.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastScrape {
    pub(crate) at: Option<SystemTime>,
    pub(crate) duration: Duration,
    pub(crate) error: Option<String>,
    pub(crate) samples: u64,
}

/// Everything about a loop that does not change.
pub(crate) struct TargetLoop {
    pub(crate) spec: TargetSpec,
    pub(crate) estate: Estate,
    pub(crate) seed: u64,
    pub(crate) metrics: ScrapeMetrics,
    /// Where it is counted what becomes of samples.
    pub(crate) row: Arc<Row>,
    pub(crate) logger: Logger,
    pub(crate) last: Arc<Mutex<LastScrape>>,
}

/// How long a request that is under way may still take once the loop is to leave.
const LEAVE_WAIT_MAX: Duration = Duration::from_millis(500);

/// A time is that of the tick when the scrape begins at most this much later: samples then lie on a regular grid, which
/// compresses better. One hundredth of the interval, if that is less.
const TOLERANCE_MAX: Duration = Duration::from_millis(2);

struct State {
    settings: Arc<LoopSettings>,
    cache: SeriesCache,
    /// The caches from before a change that could not be taken over: their series end unless the next scrape has them.
    before: Vec<SeriesCache>,
    report: Report,
    /// How many of the series about scrapes were written last: those in front.
    report_live: usize,
    last_started: Option<Instant>,
    /// Where samples come from, once somebody wanted to know.
    target: Option<Arc<ScrapedTarget>>,
    /// Where the lengths of intervals are noted, once there was one.
    lengths: Option<IntervalLengths>,
}

impl State {
    /// Where the samples come from, if somebody wants to know.
    fn origin(&mut self, spec: &TargetSpec) -> Option<Origin> {
        if !self.settings.forward.wants_origin() {
            self.target = None;
            return None;
        }
        let label = |name: &str| spec.labels.get(name).unwrap_or_default().to_owned();
        let target = self.target.get_or_insert_with(|| {
            Arc::new(ScrapedTarget {
                discovered: self.settings.discovered.clone(),
                scheme: spec.uri.scheme_str().unwrap_or_default().to_owned(),
                job: label("job"),
                instance: label("instance"),
            })
        });
        Some(Origin { target: Arc::clone(target), families: self.cache.families() })
    }
}

impl TargetLoop {
    /// Runs until the order is to leave, or to end and that is done.
    pub(crate) async fn run(self, mut orders: watch::Receiver<Order>) {
        let Order::Run(settings) = orders.borrow_and_update().clone() else { return };
        let mut state = State {
            cache: SeriesCache::new(self.seed, self.spec.labels.clone(), settings.rules.clone()),
            before: Vec::new(),
            report: Report::new(&self.spec.labels, settings.extra_metrics),
            report_live: 0,
            last_started: None,
            target: None,
            lengths: None,
            settings,
        };
        let mut ticks = Ticks::new(state.settings.interval, self.offset_key());
        loop {
            if ticks.interval != state.settings.interval {
                ticks = Ticks::new(state.settings.interval, self.offset_key());
            }
            tokio::select! {
                biased;
                changed = orders.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let order = orders.borrow_and_update().clone();
                    match order {
                        Order::Leave => return,
                        Order::HandOver => return self.hand_over(state),
                        Order::Run(settings) => {
                            self.take_settings(&mut state, settings);
                        }
                        Order::End => {
                            let Some(back) = self.end(state, &mut ticks, &mut orders).await else { return };
                            state = back;
                        }
                    }
                }
                now_ms = ticks.next() => {
                    // On the heap: what a scrape needs is there while it runs, not in every task that waits for the next.
                    if !Box::pin(self.scrape(&mut state, now_ms, told_to_leave(orders.clone()))).await {
                        return;
                    }
                }
            }
        }
    }

    fn offset_key(&self) -> u64 {
        self.spec.identity as u64 ^ self.seed
    }

    fn take_settings(&self, state: &mut State, settings: Arc<LoopSettings>) {
        let sample_limit = settings.rules.sample_limit;
        let same_series = SeriesRules { sample_limit, ..state.settings.rules.clone() } == settings.rules
            && settings.fetch == state.settings.fetch;
        if same_series {
            state.cache.set_sample_limit(sample_limit);
        } else {
            let cache = SeriesCache::new(self.seed, self.spec.labels.clone(), settings.rules.clone());
            let before = std::mem::replace(&mut state.cache, cache);
            state.cache.follow(&before);
            if before.is_live() {
                state.before.push(before);
            }
        }
        if settings.extra_metrics != state.settings.extra_metrics {
            state.report = Report::new(&self.spec.labels, settings.extra_metrics);
        }
        if settings.interval != state.settings.interval {
            state.lengths = None;
        }
        state.target = None;
        state.settings = settings;
    }

    /// Leaves the series to the next loop.
    fn hand_over(&self, state: State) {
        let State { before, cache, report_live, .. } = state;
        let caches = before.into_iter().chain([cache]).filter(SeriesCache::is_live);
        self.estate.lock().extend(caches.map(|cache| Legacy { cache, report_live }));
    }

    /// Takes what the loop before left, if it has left something by now.
    fn inherit(&self, state: &mut State) {
        for Legacy { cache, report_live } in std::mem::take(&mut *self.estate.lock()) {
            state.cache.follow(&cache);
            state.report_live = state.report_live.max(report_live);
            state.before.push(cache);
        }
    }

    /// Ends the series of a target that is gone, two ticks and a tenth of an interval later, with the time of the first
    /// tick. It gives the state back if the target comes back before.
    async fn end(&self, mut state: State, ticks: &mut Ticks, orders: &mut watch::Receiver<Order>) -> Option<State> {
        let wait = state.settings.interval / 10;
        let ended = async {
            let first_ms = ticks.next().await;
            ticks.next().await;
            tokio::time::sleep(wait).await;
            first_ms
        };
        tokio::pin!(ended);
        let first_ms = loop {
            tokio::select! {
                biased;
                changed = orders.changed() => {
                    if changed.is_err() {
                        return None;
                    }
                    let order = orders.borrow_and_update().clone();
                    match order {
                        Order::Leave => return None,
                        Order::HandOver => {
                            self.hand_over(state);
                            return None;
                        }
                        Order::Run(settings) => {
                            self.take_settings(&mut state, settings);
                            return Some(state);
                        }
                        // It came back and went again before this task ran.
                        Order::End => {}
                    }
                }
                first_ms = &mut ended => break first_ms,
            }
        };
        self.inherit(&mut state);
        let mut parts = Vec::new();
        for cache in state.before.iter_mut().chain([&mut state.cache]) {
            cache.begin(first_ms);
            parts.extend(cache.end_all());
        }
        if state.report_live > 0 {
            let all = Report::new(&self.spec.labels, true);
            parts.push(all.stale(0..state.report_live, first_ms));
        }
        if !parts.is_empty() {
            let origin = state.origin(&self.spec);
            let batch = Arc::new(MetricsBatch { parts, origin });
            let ended = batch.items();
            // Nobody is left to be told of a refusal.
            let _ = state.settings.forward.consume_once(batch).await;
            self.row.created(STALE_MARKER, ended);
        }
        None
    }

    /// Scrapes once; whether it did. A request that is under way when `leave` is ready is given up, nothing of it is sent,
    /// and the state is of no use any more.
    async fn scrape(&self, state: &mut State, now_ms: i64, leave: impl Future<Output = ()>) -> bool {
        let settings = Arc::clone(&state.settings);
        let started = Instant::now();
        if let Some(before) = state.last_started.replace(started) {
            let lengths = state.lengths.get_or_insert_with(|| self.metrics.interval_lengths(settings.interval));
            lengths.observe((started - before).as_secs_f64());
        }
        self.inherit(state);
        state.cache.set_families_wanted(settings.forward.wants_origin());
        state.cache.begin(now_ms);
        let mut body_bytes = 0;
        let fetched = match &settings.forced_error {
            Some(error) => Err(ScrapeError::TargetLimit(error.clone())),
            None => {
                let fetch = fetch(
                    &settings.client,
                    &self.spec.uri,
                    &settings.fetch,
                    settings.timeout,
                    &mut state.cache,
                    &mut body_bytes,
                );
                tokio::select! {
                    fetched = tokio::time::timeout(settings.timeout, fetch) => match fetched {
                        Ok(fetched) => fetched,
                        Err(_) => Err(ScrapeError::Request("context deadline exceeded".to_owned())),
                    },
                    () = leave => return false,
                }
            }
        };
        let fetched = match fetched {
            Ok(()) if state.cache.is_over_limit() => Err(ScrapeError::Exposition(ExpositionError::SampleLimit)),
            fetched => fetched,
        };
        let mut scraped = match &fetched {
            Ok(()) => state.cache.succeed(),
            Err(_) => state.cache.fail(),
        };
        for mut before in std::mem::take(&mut state.before) {
            before.begin(now_ms);
            let ended = before.end_missing(&state.cache);
            scraped.stale += ended.iter().map(|part| part.items() as u64).sum::<u64>();
            scraped.parts.extend(ended);
        }
        let duration = started.elapsed();
        self.count(&scraped, fetched.as_ref().err());
        let report = ReportValues {
            up: fetched.is_ok(),
            duration,
            // Without a whole body there are no samples, whatever was read of it.
            scraped: match &fetched {
                Ok(()) | Err(ScrapeError::Exposition(_)) => scraped.scraped,
                Err(_) => 0,
            },
            added: scraped.added,
            timeout: settings.timeout,
            sample_limit: settings.rules.sample_limit,
            body_bytes: match &fetched {
                // Too many samples are read to the end, to be counted.
                Ok(()) | Err(ScrapeError::Exposition(ExpositionError::SampleLimit)) => body_bytes as f64,
                Err(ScrapeError::BodySize) => -1.0,
                Err(_) => 0.0,
            },
        };
        let mut part = state.report.part(&report, now_ms);
        if settings.rules.metadata && state.report_live < state.report.count {
            part.metadata = state.report.metadata();
        }
        let mut parts = std::mem::take(&mut scraped.parts);
        let report_items = part.items();
        parts.push(part);
        if state.report_live > state.report.count {
            let all = Report::new(&self.spec.labels, true);
            let ended = all.stale(state.report.count..state.report_live, now_ms);
            scraped.stale += ended.items() as u64;
            parts.push(ended);
        }
        state.report_live = state.report.count;
        let origin = state.origin(&self.spec);
        let forwarded = settings.forward.consume_once(Arc::new(MetricsBatch { parts, origin })).await;
        self.row.created("report", report_items);
        self.enter(&scraped, fetched.as_ref().err());
        self.metrics.duration.observe(started.elapsed().as_secs_f64());
        let error = match (fetched, forwarded) {
            (Err(error), _) => Some(error.to_string()),
            (Ok(()), Err(error)) => Some(error.to_string()),
            (Ok(()), Ok(())) => None,
        };
        if let Some(error) = &error {
            let target = corten_net::redact_url(&self.spec.uri.to_string());
            self.logger.debug(
                "Scrape failed",
                &[
                    ("scrape_pool", Field::from(&settings.job)),
                    ("target", Field::from(&target)),
                    ("err", Field::from(error)),
                ],
            );
            if let Some(log) = &settings.failure_log {
                log.write(&settings.job, &target, error);
            }
        }
        let at = UNIX_EPOCH.checked_add(Duration::from_millis(now_ms.unsigned_abs()));
        *self.last.lock() = LastScrape { at, duration, error, samples: scraped.kept };
        true
    }

    /// Enters in the books what came, and what became of it but for what is handed on.
    fn enter(&self, scraped: &Scraped, error: Option<&ScrapeError>) {
        let received = scraped.received() as usize;
        self.row.received(received);
        self.row.created(STALE_MARKER, scraped.stale as usize);
        if let Some(error) = error {
            return self.row.dropped(reason_of(error), received);
        }
        self.row.created("start timestamp", scraped.starts as usize);
        self.row.created(NHCB, scraped.nhcb.made as usize);
        self.row.merged(NHCB, scraped.nhcb.joined as usize);
        for (reason, items) in [
            ("duplicate", scraped.duplicates),
            ("out of bounds", scraped.out_of_bounds),
            ("old exemplar", scraped.old_exemplars),
            ("duplicate exemplar", scraped.same_exemplars),
            ("exemplar left out", scraped.exemplars_left_out),
            ("no histogram", scraped.nhcb.left_out),
        ] {
            self.row.dropped(reason, items as usize);
        }
    }

    fn count(&self, scraped: &Scraped, error: Option<&ScrapeError>) {
        self.metrics.duplicates.add(scraped.duplicates);
        self.metrics.out_of_bounds.add(scraped.out_of_bounds);
        self.metrics.old_exemplars.add(scraped.old_exemplars);
        match error {
            Some(ScrapeError::BodySize) => self.metrics.body_size_exceeded.inc(),
            Some(ScrapeError::Exposition(ExpositionError::SampleLimit)) => self.metrics.sample_limit_exceeded.inc(),
            Some(ScrapeError::Exposition(ExpositionError::BucketLimit(_))) => self.metrics.bucket_limit_exceeded.inc(),
            Some(ScrapeError::Exposition(ExpositionError::LabelLimit(_))) => self.metrics.label_limits_exceeded.inc(),
            _ => {}
        }
    }
}

/// Why a marker is made that says that a series has ended.
const STALE_MARKER: &str = "stale marker";

/// Why a histogram is made of the series of a classic one.
const NHCB: &str = "nhcb";

/// Why what was read of a scrape that failed is dropped.
fn reason_of(error: &ScrapeError) -> &'static str {
    match error {
        ScrapeError::BodySize => "body size limit",
        ScrapeError::Exposition(ExpositionError::SampleLimit) => "sample limit",
        ScrapeError::Exposition(ExpositionError::BucketLimit(_)) => "bucket limit",
        ScrapeError::Exposition(ExpositionError::LabelLimit(_)) => "label limit",
        _ => "scrape failed",
    }
}

/// Ready some time after the order is to leave: a target that answers is still heard, one that hangs keeps nobody.
async fn told_to_leave(mut orders: watch::Receiver<Order>) {
    // An error means that nobody is left to give orders.
    let _ = orders.wait_for(|order| matches!(order, Order::Leave)).await;
    tokio::time::sleep(LEAVE_WAIT_MAX).await;
}

/// The times at which a target is scraped: every interval, each target at its own place within it, the same after a
/// restart.
struct Ticks {
    interval: Duration,
    /// The next time, on the clock that is never set and on the wall.
    next: tokio::time::Instant,
    next_wall: Duration,
}

impl Ticks {
    fn new(interval: Duration, key: u64) -> Self {
        let nanos = interval.as_nanos().max(1);
        let wall = wall_clock();
        let offset = u128::from(key) % nanos;
        let into = (wall.as_nanos() + nanos - offset) % nanos;
        let wait = Duration::from_nanos(u64::try_from(nanos - into).unwrap_or(u64::MAX));
        Ticks { interval, next: tokio::time::Instant::now() + wait, next_wall: wall + wait }
    }

    /// Waits for the next time; its milliseconds since the Unix epoch. Ticks that were missed are left out.
    async fn next(&mut self) -> i64 {
        sleep_until(self.next).await;
        let now = wall_clock();
        let nominal = self.next_wall;
        let tolerance = (self.interval / 100).min(TOLERANCE_MAX);
        let late = now.checked_sub(nominal);
        let time = if late.is_some_and(|late| late <= tolerance) { nominal } else { now };
        loop {
            self.next += self.interval;
            self.next_wall += self.interval;
            if self.next > tokio::time::Instant::now() {
                break;
            }
        }
        if late.is_none_or(|late| late > self.interval) {
            // The wall clock was set: the grid follows it.
            let wait = self.next.saturating_duration_since(tokio::time::Instant::now());
            self.next_wall = now + wait;
        }
        time.as_millis() as i64
    }
}

fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The series that a scrape makes itself.
struct Report {
    block: Arc<SeriesBlock>,
    count: usize,
}

struct ReportValues {
    up: bool,
    duration: Duration,
    scraped: u64,
    added: u64,
    timeout: Duration,
    sample_limit: u64,
    body_bytes: f64,
}

/// Their names, units and meanings, in the order in which they are sent. The last three only on request.
const REPORT_SERIES: [(&str, &str, &str); 8] = [
    ("up", "targets", "Health of the scrape target. 1 means the target is healthy, 0 if the scrape failed."),
    ("scrape_duration_seconds", "seconds", "Duration of the last scrape in seconds."),
    ("scrape_samples_scraped", "samples", "Number of samples last scraped."),
    (
        "scrape_samples_post_metric_relabeling",
        "samples",
        "Number of samples remaining after metric relabeling was applied.",
    ),
    ("scrape_series_added", "series", "Number of series in the last scrape."),
    ("scrape_timeout_seconds", "seconds", "The configured scrape timeout for a target."),
    (
        "scrape_sample_limit",
        "samples",
        "The configured sample limit for a target. Returns zero if there is no limit configured.",
    ),
    (
        "scrape_body_size_bytes",
        "bytes",
        "The uncompressed size of the last scrape response, if successful. Scrapes failing because body_size_limit is exceeded report -1, other scrape failures report 0.",
    ),
];
const REPORT_SERIES_ALWAYS: usize = 5;

impl Report {
    fn new(labels: &LabelsBuilder, extra: bool) -> Self {
        let count = if extra { REPORT_SERIES.len() } else { REPORT_SERIES_ALWAYS };
        let mut block = BlockBuilder::new();
        for (name, _, _) in &REPORT_SERIES[..count] {
            let mut series = labels.clone();
            series.set(METRIC_NAME, name);
            // The labels of a target are unique and within the limit, or it would not have become one.
            let _ = block.push(&mut series);
        }
        let block = block.finish(true);
        Report { count: block.len(), block }
    }

    fn part(&self, values: &ReportValues, now_ms: i64) -> SeriesPart {
        let all = [
            f64::from(u8::from(values.up)),
            values.duration.as_secs_f64(),
            values.scraped as f64,
            values.scraped as f64,
            values.added as f64,
            values.timeout.as_secs_f64(),
            values.sample_limit as f64,
            values.body_bytes,
        ];
        self.samples(all.into_iter(), now_ms)
    }

    /// Markers for some of them.
    fn stale(&self, which: std::ops::Range<usize>, now_ms: i64) -> SeriesPart {
        let samples = which.take_while(|at| *at < self.count);
        let samples = samples.map(|at| Sample { value: STALE_NAN, index: at as u32, offset_ms: 0 }).collect();
        SeriesPart::of_samples(Arc::clone(&self.block), now_ms, samples)
    }

    fn samples(&self, values: impl Iterator<Item = f64>, now_ms: i64) -> SeriesPart {
        let samples = values.take(self.count).enumerate();
        let samples = samples.map(|(at, value)| Sample { value, index: at as u32, offset_ms: 0 }).collect();
        SeriesPart::of_samples(Arc::clone(&self.block), now_ms, samples)
    }

    fn metadata(&self) -> Vec<SeriesMetadata> {
        let of = |(at, (name, unit, help)): (usize, &(&str, &str, &str))| SeriesMetadata {
            index: at as u32,
            metadata: Arc::new(Metadata {
                family: (*name).to_owned(),
                metric_type: MetricType::Gauge,
                help: (*help).to_owned(),
                unit: (*unit).to_owned(),
            }),
        };
        REPORT_SERIES[..self.count].iter().enumerate().map(of).collect()
    }
}
