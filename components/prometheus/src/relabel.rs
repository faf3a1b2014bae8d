//! `prometheus.relabel`.

mod cache;
pub(crate) mod map;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use corten_component::log::Logger;
use corten_component::metrics::{Counter, Kind, Registry};
use corten_component::{Component, Context, Error, Forward, Task};
use corten_config::arguments::CheckErrors;
use corten_config::decode::SignedDuration;
use corten_config::duration;
use corten_config::{Arguments, Exports};
use corten_signal::flow::BoxFuture;
use corten_signal::ledger::Row;
use corten_signal::metrics::is_stale;
use corten_signal::relabel::{NameScheme, RelabelRules, RelabelScratch, Rule, Rules};
use corten_signal::{
    Consume, ConsumeError, Inlet, LabelsBuilder, Metrics, MetricsBatch, Receiver, SeriesBlock, SeriesPart,
};

use self::cache::{Cache, Outcome, Retention};
use self::map::{
    BlockMap, BlockMaps, DropCounts, LATE_RULE, MapBuilder, NO_LABELS, PlaceError, REFUSED, Why, why_of_rule,
};

/// The shortest `cache_ttl`, in nanoseconds.
const CACHE_TTL_NS_MIN: i64 = 60_000_000_000;

/// How often it is looked at what is of no use any more.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// How many series are relabelled before others get a turn on the thread.
const SERIES_PER_TURN: u32 = 256;

/// Rewrites the label sets of metrics with rules, and drops those that the rules drop.
///
/// The rules are applied in order to the label set of each series. A series whose labels are all gone is dropped. What
/// comes out is sent to all receivers of `forward_to`.
///
/// The outcome is worked out once for each series of a scrape, and kept as long as the scrape knows the series. Label
/// sets that are pushed are remembered up to the limits that `max_cache_size` or `cache_ttl` sets. Any change of the
/// arguments has all outcomes worked out anew.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct RelabelArguments {
    /// Where to send what is kept.
    forward_to: Vec<Receiver<Metrics>>,
    /// How many pushed label sets to remember the outcome for. Set it to 0 to use `cache_ttl`.
    #[arg(default = 100000)]
    max_cache_size: i64,
    /// How long to remember the outcome for a pushed label set after it was last seen, at least one minute. 0 means that
    /// `max_cache_size` is used.
    #[arg(default = "0s")]
    cache_ttl: SignedDuration,
    /// Rules to apply, in order.
    #[block(name = "rule")]
    rules: Vec<Rule>,
}

impl RelabelArguments {
    fn check(&self) -> Result<(), CheckErrors> {
        let (size, ttl) = (self.max_cache_size, self.cache_ttl.nanoseconds);
        let shown = duration::format(ttl);
        let message = if size < 0 {
            format!("max_cache_size must be >= 0; got {size}")
        } else if ttl < 0 {
            format!("cache_ttl must be >= 0; got {shown}")
        } else if size > 0 && ttl > 0 {
            "max_cache_size and cache_ttl are mutually exclusive: set max_cache_size = 0 to use cache_ttl, or unset \
             cache_ttl to keep the bounded LRU cache"
                .to_owned()
        } else if size == 0 && ttl == 0 {
            "one of max_cache_size or cache_ttl must be set".to_owned()
        } else if ttl > 0 && ttl < CACHE_TTL_NS_MIN {
            format!("cache_ttl must be at least {} when set; got {shown}", duration::format(CACHE_TTL_NS_MIN))
        } else {
            return Ok(());
        };
        Err(CheckErrors::of(&["max_cache_size", "cache_ttl"], message))
    }

    /// How long label sets are remembered; the numbers were found valid.
    fn retention(&self) -> Retention {
        match u64::try_from(self.cache_ttl.nanoseconds) {
            Ok(ttl @ 1..) => Retention::Ttl(Duration::from_nanos(ttl)),
            _ => Retention::Size(usize::try_from(self.max_cache_size).unwrap_or(0)),
        }
    }
}

/// What others can refer to.
#[derive(Exports, Clone, Debug, PartialEq)]
pub struct RelabelExports {
    /// Takes the metrics that are to be relabelled.
    receiver: Receiver<Metrics>,
    /// The rules, for components that apply them themselves.
    rules: RelabelRules,
}

/// The component.
pub struct Relabel {
    inlet: Arc<Inlet<Metrics>>,
    sweeper: Task,
}

/// What is to be put in place.
pub struct Prepared {
    inlet: Arc<Inlet<Metrics>>,
    rules: Rules,
    retention: Retention,
    forward_to: Vec<Receiver<Metrics>>,
}

impl Component for Relabel {
    const NAME: &'static str = "prometheus.relabel";
    type Arguments = RelabelArguments;
    type Exports = RelabelExports;
    type Prepared = Prepared;

    async fn prepare(
        arguments: RelabelArguments,
        cx: &Context<Self>,
        current: Option<&Self>,
    ) -> Result<(Prepared, RelabelExports), Error> {
        let rules = Rules::new(&arguments.rules, NameScheme::Legacy)
            .map_err(|(place, error)| Error::new(format!("rule {}: {error}", place + 1)))?;
        let inlet = current.map_or_else(|| Arc::new(Inlet::of(cx.ledger())), |current| Arc::clone(&current.inlet));
        let exports =
            RelabelExports { receiver: inlet.receiver(), rules: RelabelRules(arguments.rules.as_slice().into()) };
        let retention = arguments.retention();
        Ok((Prepared { inlet, rules, retention, forward_to: arguments.forward_to }, exports))
    }

    fn commit(_: Option<Self>, prepared: Prepared, cx: &Context<Self>) -> Self {
        let forward = Forward::new(cx.metrics(), cx.ledger(), prepared.forward_to);
        let row = Arc::clone(cx.ledger().row_of::<Metrics>());
        let stage =
            Arc::new(Stage::new(prepared.rules, prepared.retention, forward, row, cx.metrics(), cx.logger().clone()));
        prepared.inlet.attach(Arc::clone(&stage) as Arc<dyn Consume<Metrics>>);
        let sweeper = cx.spawn("sweep", move |mut stop| {
            let stage = Arc::clone(&stage);
            async move {
                while stop.sleep(SWEEP_EVERY).await {
                    stage.sweep();
                }
                Ok(())
            }
        });
        Relabel { inlet: prepared.inlet, sweeper }
    }

    async fn drain(self, _: &Context<Self>) {
        self.inlet.close();
        self.sweeper.stop().await;
    }
}

/// What the component tells of its work. An item is a sample, a histogram, an exemplar, or what is known of a series.
#[derive(Clone, Debug)]
struct RelabelMetrics {
    processed: Counter,
    written: Counter,
    hits: Counter,
    misses: Counter,
    deletes: Counter,
}

impl RelabelMetrics {
    fn new(registry: &Registry) -> Self {
        RelabelMetrics {
            processed: registry
                .counter("alloy_prometheus_relabel_metrics_processed", "Total number of metrics processed"),
            written: registry.counter("alloy_prometheus_relabel_metrics_written", "Total number of metrics written"),
            hits: registry.counter("alloy_prometheus_relabel_cache_hits", "Total number of cache hits"),
            misses: registry.counter("alloy_prometheus_relabel_cache_misses", "Total number of cache misses"),
            deletes: registry.counter("alloy_prometheus_relabel_cache_deletes", "Total number of cache deletes"),
        }
    }
}

/// Relabels batches with one set of rules.
struct Stage {
    rules: Rules,
    maps: BlockMaps,
    cache: Arc<Cache>,
    forward: Forward,
    row: Arc<Row>,
    metrics: RelabelMetrics,
    logger: Logger,
}

impl Consume<Metrics> for Stage {
    fn consume(&self, batch: Arc<MetricsBatch>) -> BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(async move {
            let mut counts = DropCounts::default();
            let batch = self.relabel(batch, &mut counts).await;
            let mut pass = self.row.pass();
            for (why, items) in counts.iter() {
                pass.dropped(self.reason(why), items);
            }
            pass.end(self.forward.consume(batch).await)
        })
    }

    fn wants_origin(&self) -> bool {
        self.forward.wants_origin()
    }
}

impl Stage {
    fn new(
        rules: Rules,
        retention: Retention,
        forward: Forward,
        row: Arc<Row>,
        registry: &Registry,
        logger: Logger,
    ) -> Self {
        let evictions = registry.counter(
            "alloy_prometheus_relabel_cache_ttl_evictions",
            "Number of relabel cache entries removed by the periodic TTL scan. Always 0 when cache_ttl is unset.",
        );
        let cache = Arc::new(Cache::new(retention, evictions));
        let counted = Arc::clone(&cache);
        // Registered again, the size is that of the cache in use.
        let help = "Total size of relabel cache.";
        registry.read("alloy_prometheus_relabel_cache_size", help, Kind::Gauge, &[], move || counted.len() as f64);
        Stage { rules, maps: BlockMaps::default(), cache, forward, row, metrics: RelabelMetrics::new(registry), logger }
    }

    /// How what is dropped is counted.
    fn reason(&self, why: Why) -> Cow<'static, str> {
        match why {
            NO_LABELS => "no labels left".into(),
            REFUSED => "labels too long".into(),
            LATE_RULE.. => "rule".into(),
            _ => self.rules.reason(usize::from(why)).into(),
        }
    }

    /// What is left of a batch: the batch itself where nothing changes. What is dropped is counted.
    async fn relabel(&self, batch: Arc<MetricsBatch>, counts: &mut DropCounts) -> Arc<MetricsBatch> {
        if self.rules.is_empty() {
            batch.parts.iter().for_each(|part| self.count(part, 0));
            self.metrics.written.add(samples(&batch));
            return batch;
        }
        let mut maps = Vec::with_capacity(batch.parts.len());
        // The maps of the blocks that this batch alone refers to, often in several parts.
        let mut passing: HashMap<u64, Arc<BlockMap>> = HashMap::new();
        for part in &batch.parts {
            let block = &part.block;
            let known =
                if block.is_lasting() { self.maps.get(block) } else { passing.get(&block.id()).map(Arc::clone) };
            let (map, applied) = match known {
                Some(map) => (map, 0),
                None if block.is_lasting() => {
                    let (map, applied) = self.map_lasting(block).await;
                    (self.maps.insert(block, map), applied)
                }
                None => {
                    let (map, applied) = self.map_passing(block).await;
                    let map = Arc::new(map);
                    passing.insert(block.id(), Arc::clone(&map));
                    (map, applied)
                }
            };
            self.count(part, applied);
            maps.push(map);
        }
        self.forget_ended(&batch);
        let batch = if maps.iter().all(|map| map.is_same()) { batch } else { apply(batch, &maps, counts) };
        self.metrics.written.add(samples(&batch));
        batch
    }

    /// Counts the items of a part; for `applied` series the rules had to be applied.
    fn count(&self, part: &SeriesPart, applied: u64) {
        let items = (part.items() + part.metadata.len()) as u64;
        let misses = applied.min(items);
        self.metrics.processed.add(items);
        self.metrics.misses.add(misses);
        self.metrics.hits.add(items - misses);
    }

    /// Applies the rules to each series of a block; the map, and for how many series that was.
    async fn map_lasting(&self, block: &SeriesBlock) -> (BlockMap, u64) {
        let mut map = MapBuilder::new(block);
        let mut work = Work::default();
        for index in 0..block.len() as u32 {
            if index > 0 && index % SERIES_PER_TURN == 0 {
                tokio::task::yield_now().await;
            }
            self.apply_rules(index, block, &mut map, &mut work);
        }
        self.report(&work);
        (map.finish(), block.len() as u64)
    }

    /// Looks up what becomes of each series of a block; the map, and for how many series that was not known.
    async fn map_passing(&self, block: &SeriesBlock) -> (BlockMap, u64) {
        let mut map = MapBuilder::new(block);
        let mut work = Work::default();
        let mut unknown = Vec::new();
        let mut found = Vec::new();
        let mut applied = 0;
        let series = block.len() as u32;
        for start in (0..series).step_by(SERIES_PER_TURN as usize) {
            if start > 0 {
                tokio::task::yield_now().await;
            }
            // Others look up their series while the rules are applied here.
            let turn = start..series.min(start + SERIES_PER_TURN);
            self.look_up(turn, block, &mut map, &mut work, &mut unknown);
            applied += unknown.len() as u64;
            for index in unknown.drain(..) {
                let outcome = self.apply_rules(index, block, &mut map, &mut work);
                found.extend(outcome.map(|outcome| (index, outcome)));
            }
            if !found.is_empty() {
                let mut cache = self.cache.lock();
                for (index, outcome) in found.drain(..) {
                    cache.insert(block.hash64(index), block.labels(index), outcome);
                }
            }
        }
        self.report(&work);
        (map.finish(), applied)
    }

    /// Puts the series that are remembered into a map, and the others into a list.
    fn look_up(
        &self,
        indexes: std::ops::Range<u32>,
        block: &SeriesBlock,
        map: &mut MapBuilder<'_>,
        work: &mut Work,
        unknown: &mut Vec<u32>,
    ) {
        let mut cache = self.cache.lock();
        for index in indexes {
            let put = match cache.get(block.hash64(index), block.labels(index)) {
                None => {
                    unknown.push(index);
                    Ok(())
                }
                Some(Outcome::Dropped(why)) => {
                    let why = *why;
                    map.drop_for(index, why);
                    Ok(())
                }
                Some(Outcome::Unchanged) => map.keep(index),
                Some(Outcome::Changed(labels)) => map.put_labels(index, labels.labels()),
            };
            if let Err(error) = put {
                map.drop_for(index, REFUSED);
                work.refuse(error);
            }
        }
    }

    /// Applies the rules to a series; what became of it, unless it was refused.
    fn apply_rules(
        &self,
        index: u32,
        block: &SeriesBlock,
        map: &mut MapBuilder<'_>,
        work: &mut Work,
    ) -> Option<Outcome> {
        let before = block.labels(index);
        work.labels.clear();
        work.labels.extend_from(before);
        if let Err(rule) = self.rules.apply_why(&mut work.labels, &mut work.scratch) {
            let why = why_of_rule(rule);
            map.drop_for(index, why);
            return Some(Outcome::Dropped(why));
        }
        let outcome = match map.put(index, &mut work.labels) {
            Ok(Some(_)) if block.is_lasting() => return None,
            Ok(after) => Outcome::of(before, after),
            Err(error) => {
                map.drop_for(index, REFUSED);
                work.refuse(error);
                None
            }
        };
        if let Some(Outcome::Dropped(why)) = &outcome {
            map.drop_for(index, *why);
        }
        // Who makes a map that lasts has no use for the outcome.
        outcome.filter(|_| !block.is_lasting())
    }

    /// Forgets the sets whose series end with this batch: nobody will ask for them again.
    fn forget_ended(&self, batch: &MetricsBatch) {
        for part in batch.parts.iter().filter(|part| !part.block.is_lasting()) {
            let mut ended = part.samples.iter().filter(|sample| is_stale(sample.value)).peekable();
            if ended.peek().is_none() {
                continue;
            }
            let mut cache = self.cache.lock();
            for sample in ended {
                if cache.remove(part.block.hash64(sample.index), part.block.labels(sample.index)) {
                    self.metrics.deletes.inc();
                }
            }
        }
    }

    fn report(&self, work: &Work) {
        if let Some(error) = &work.error {
            self.logger.warn(
                "dropped series whose new labels are too long",
                &[("series", work.refused.into()), ("err", error.to_string().into())],
            );
        }
    }

    fn sweep(&self) {
        self.maps.sweep();
        self.cache.expire();
    }
}

/// What the making of a map needs besides the map.
#[derive(Default)]
struct Work {
    labels: LabelsBuilder,
    scratch: RelabelScratch,
    /// How many series were refused, and why the first of them was.
    refused: u64,
    error: Option<PlaceError>,
}

impl Work {
    fn refuse(&mut self, error: PlaceError) {
        self.refused += 1;
        self.error.get_or_insert(error);
    }
}

fn samples(batch: &MetricsBatch) -> u64 {
    batch.parts.iter().map(|part| part.samples.len() as u64).sum()
}

/// Applies a map to each part. A batch that nobody else has is changed in place.
fn apply(batch: Arc<MetricsBatch>, maps: &[Arc<BlockMap>], counts: &mut DropCounts) -> Arc<MetricsBatch> {
    let mut batch = Arc::try_unwrap(batch).unwrap_or_else(|shared| shared.as_ref().clone());
    let mut parts = Vec::with_capacity(batch.parts.len());
    for (part, map) in std::mem::take(&mut batch.parts).into_iter().zip(maps) {
        map.apply_counted(part, &mut parts, counts);
    }
    batch.parts = parts;
    Arc::new(batch)
}

#[cfg(test)]
mod tests {
    use corten_component::Definition;
    use corten_component::log::LogSink;
    use corten_config::decode::Decode as _;
    use corten_config::value::Value;
    use corten_signal::BlockBuilder;
    use corten_signal::Sample;
    use corten_signal::metrics::{Exemplar, Histogram, HistogramCounts, HistogramSample, Metadata, SeriesMetadata};
    use corten_signal::metrics::{ResetHint, STALE_NAN};
    use corten_signal::relabel::Action;
    use corten_testkit::{Unit, World, host, load, until};
    use parking_lot::Mutex;
    use proptest::prelude::*;

    use super::*;

    const RELABEL: Definition = Definition::of::<Relabel>();

    /// Keeps what it is sent.
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<Arc<MetricsBatch>>>>);

    impl Consume<Metrics> for Sink {
        fn consume(&self, batch: Arc<MetricsBatch>) -> BoxFuture<'_, Result<(), ConsumeError>> {
            self.0.lock().push(batch);
            Box::pin(async { Ok(()) })
        }
    }

    impl Sink {
        /// The sink behind an inlet, and the name under which arguments refer to it.
        fn named(name: &str) -> (Self, (&str, Value)) {
            let (sink, inlet) = (Sink::default(), Inlet::new(format!("prometheus.echo.{name}")));
            inlet.attach(Arc::new(sink.clone()));
            (sink, (name, inlet.receiver().to_value()))
        }

        fn last(&self) -> Arc<MetricsBatch> {
            Arc::clone(self.0.lock().last().expect("something was sent"))
        }

        fn len(&self) -> usize {
            self.0.lock().len()
        }
    }

    /// A block of series, each written as `a=1,b=2`.
    fn block(lasting: bool, series: &[&str]) -> Arc<SeriesBlock> {
        let (mut block, mut labels) = (BlockBuilder::new(), LabelsBuilder::new());
        for text in series {
            labels.clear();
            for pair in text.split(',').filter(|pair| !pair.is_empty()) {
                let (name, value) = pair.split_once('=').unwrap();
                labels.push(name, value);
            }
            block.push(&mut labels).unwrap();
        }
        block.finish(lasting)
    }

    /// A batch with a sample for each series of a block, whose value is the index of the series.
    fn batch_of(block: &Arc<SeriesBlock>) -> Arc<MetricsBatch> {
        let samples = (0..block.len() as u32).map(|index| Sample { value: f64::from(index), index, offset_ms: 1 });
        let part = SeriesPart::of_samples(Arc::clone(block), 1000, samples.collect());
        Arc::new(MetricsBatch::of(vec![part]))
    }

    /// The samples of a batch as `a=1,b=2 value`.
    fn shown(batch: &MetricsBatch) -> Vec<String> {
        let sample = |part: &SeriesPart, sample: &Sample| {
            let labels: Vec<_> =
                part.block.labels(sample.index).iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("{} {}", labels.join(","), sample.value)
        };
        batch.parts.iter().flat_map(|part| part.samples.iter().map(|s| sample(part, s)).collect::<Vec<_>>()).collect()
    }

    async fn start(body: &str, names: &[(&str, Value)]) -> Unit {
        let world = host("prometheus.relabel.a");
        Unit::start_with(world, &RELABEL, body, names).await.unwrap()
    }

    fn receiver(world: &World) -> Receiver<Metrics> {
        receiver_in(world.exports().last().unwrap())
    }

    fn receiver_in(exports: &Value) -> Receiver<Metrics> {
        let receiver = exports.field("receiver").unwrap();
        let receiver = receiver.as_capsule().and_then(|capsule| capsule.as_any().downcast_ref::<Receiver<Metrics>>());
        receiver.unwrap().clone()
    }

    /// The value of one of the component's own metrics.
    fn metric(world: &World, name: &str) -> u64 {
        world.metric(&format!("alloy_prometheus_relabel_{name}")).unwrap() as u64
    }

    const ADD: &str = "rule {\n target_label = \"cluster\"\n replacement = \"eu\"\n }";

    #[tokio::test]
    async fn exactly_one_limit_of_the_cache_is_to_be_set() {
        for (body, expected) in [
            ("max_cache_size = -1", "max_cache_size must be >= 0; got -1"),
            ("max_cache_size = 0\ncache_ttl = \"-1m30s\"", "cache_ttl must be >= 0; got -1m30s"),
            (
                "cache_ttl = \"1h\"",
                "max_cache_size and cache_ttl are mutually exclusive: set max_cache_size = 0 to use cache_ttl, or unset \
                 cache_ttl to keep the bounded LRU cache",
            ),
            ("max_cache_size = 0", "one of max_cache_size or cache_ttl must be set"),
            ("max_cache_size = 0\ncache_ttl = \"59s\"", "cache_ttl must be at least 1m0s when set; got 59s"),
        ] {
            let body = format!("forward_to = []\n{body}");
            let error = Unit::start(host("prometheus.relabel.a"), &RELABEL, &body).await.unwrap_err();
            assert!(error.contains(expected), "{body}: {error}");
        }
        for body in ["", "max_cache_size = 1", "max_cache_size = 0\ncache_ttl = \"1m\""] {
            start(&format!("forward_to = []\n{body}"), &[]).await;
        }
    }

    #[tokio::test]
    async fn series_are_rewritten_and_dropped() {
        let (sink, name) = Sink::named("sink");
        let body = format!(
            "forward_to = [sink]\n{ADD}\nrule {{\n source_labels = [\"__name__\"]\n regex = \"go_.*\"\n action = \"drop\"\n }}
             rule {{\n regex = \"empty|empty_too\"\n action = \"labeldrop\"\n }}"
        );
        let unit = start(&body, &[name]).await;
        for (round, lasting) in [true, true, false, false].into_iter().enumerate() {
            let block = block(lasting, &["__name__=up", "__name__=go_info", "__name__=up,cluster=us,empty=1"]);
            receiver(&unit.world).consume(batch_of(&block)).await.unwrap();
            assert_eq!(shown(&sink.last()), ["__name__=up,cluster=eu 0", "__name__=up,cluster=eu 2"], "{round}");
            let part = &sink.last().parts[0];
            assert_eq!((part.base_ms, part.samples[0].offset_ms, part.block.is_lasting()), (1000, 1, lasting));
        }
        let counts = |name| metric(&unit.world, name);
        assert_eq!((counts("metrics_processed"), counts("metrics_written")), (12, 8));
        // The two blocks that last are two, and of the series that are pushed the second round is known.
        assert_eq!((counts("cache_misses"), counts("cache_hits"), counts("cache_size")), (9, 3, 3));
        assert_eq!(unit.world.metric("prometheus_forwarded_samples_total"), Some(8.0));
        assert_eq!(unit.world.metric("prometheus_fanout_latency"), Some(4.0));
        assert_eq!(
            unit.world.balance_of(corten_signal::Kind::PrometheusMetric),
            "taken 12, out 8, dropped {rule 2 drop: 4}"
        );
    }

    #[tokio::test]
    async fn what_is_dropped_counts_for_its_rule() {
        let (_, name) = Sink::named("sink");
        let rules = "rule {\n source_labels = [\"a\"]\n regex = \"1\"\n action = \"drop\"\n }\n\
                     rule {\n source_labels = [\"a\"]\n regex = \"2|3|4\"\n action = \"keep\"\n }\n\
                     rule {\n source_labels = [\"a\"]\n target_label = \"b\"\n action = \"dropequal\"\n }\n\
                     rule {\n regex = \"a|b\"\n action = \"labeldrop\"\n }";
        let unit = start(&format!("forward_to = [sink]\n{rules}"), &[name]).await;
        let series = ["a=1,c=1", "a=1,c=2", "a=2,b=2,c=1", "a=3", "a=4,c=1", "a=5"];
        let blocks = [block(true, &series), block(false, &series), block(true, &series[..2]), block(true, &["c=1"])];
        for block in &blocks {
            for _ in 0..2 {
                receiver(&unit.world).consume(batch_of(block)).await.unwrap();
            }
        }
        assert_eq!(
            unit.world.balance_of(corten_signal::Kind::PrometheusMetric),
            "taken 30, out 4, dropped {no labels left: 4, rule 1 drop: 12, rule 2 keep: 6, rule 3 dropequal: 4}"
        );
    }

    #[tokio::test]
    async fn what_the_next_component_refuses_was_neither_taken_nor_dropped() {
        let gone = Inlet::<Metrics>::of(&corten_signal::Ledger::new("prometheus.echo.gone"));
        gone.close();
        let rules = "rule {\n source_labels = [\"a\"]\n regex = \"1\"\n action = \"drop\"\n }";
        let unit = start(&format!("forward_to = [gone]\n{rules}"), &[("gone", gone.receiver().to_value())]).await;
        receiver(&unit.world).consume(batch_of(&block(true, &["a=1", "a=2"]))).await.unwrap_err();
        assert_eq!(unit.world.balance_of(corten_signal::Kind::PrometheusMetric), "");
        let edge = &unit.world.balance().edges[0];
        assert_eq!((edge.sent, edge.refused), (1, 1));
    }

    #[tokio::test]
    async fn a_series_without_labels_is_dropped() {
        let (sink, name) = Sink::named("sink");
        let unit = start("forward_to = [sink]\nrule {\n regex = \"a\"\n action = \"labelkeep\"\n }", &[name]).await;
        for lasting in [true, false] {
            let block = block(lasting, &["b=1", "a=1,b=1"]);
            receiver(&unit.world).consume(batch_of(&block)).await.unwrap();
            assert_eq!(shown(&sink.last()), ["a=1 1"]);
        }
        receiver(&unit.world).consume(batch_of(&block(true, &["b=1"]))).await.unwrap();
        assert_eq!(sink.len(), 2, "a batch of which nothing is left goes nowhere");
    }

    #[tokio::test]
    async fn names_that_are_not_legacy_are_not_written() {
        let (sink, name) = Sink::named("sink");
        let body = "forward_to = [sink]\nrule {\n target_label = \"a-b\"\n replacement = \"x\"\n }";
        let unit = start(body, &[name]).await;
        receiver(&unit.world).consume(batch_of(&block(true, &["a=1"]))).await.unwrap();
        assert_eq!(shown(&sink.last()), ["a=1 0"]);
    }

    #[tokio::test]
    async fn a_batch_in_which_nothing_changes_is_handed_on_itself() {
        for rules in ["", "rule {\n regex = \"none\"\n action = \"labeldrop\"\n }"] {
            let (sink, name) = Sink::named("sink");
            let unit = start(&format!("forward_to = [sink]\n{rules}"), &[name]).await;
            for lasting in [true, false] {
                let batch = batch_of(&block(lasting, &["a=1", "b=2"]));
                receiver(&unit.world).consume(Arc::clone(&batch)).await.unwrap();
                assert!(Arc::ptr_eq(&sink.last(), &batch));
            }
            assert_eq!((metric(&unit.world, "metrics_processed"), metric(&unit.world, "metrics_written")), (4, 4));
        }
    }

    #[tokio::test]
    async fn series_of_a_lasting_block_keep_their_places_and_are_not_in_the_cache() {
        let (sink, name) = Sink::named("sink");
        let unit = start(&format!("forward_to = [sink]\n{ADD}"), &[name]).await;
        let block = block(true, &["a=1", "a=2"]);
        for _ in 0..3 {
            receiver(&unit.world).consume(batch_of(&block)).await.unwrap();
        }
        let sent = sink.0.lock();
        assert!(sent.iter().all(|batch| Arc::ptr_eq(&batch.parts[0].block, &sent[0].parts[0].block)));
        let counts = |name| metric(&unit.world, name);
        assert_eq!((counts("cache_misses"), counts("cache_hits"), counts("cache_size")), (2, 4, 0));
    }

    #[tokio::test]
    async fn a_batch_that_others_have_is_not_changed() {
        let (sink, name) = Sink::named("sink");
        let unit = start(&format!("forward_to = [sink]\n{ADD}"), &[name]).await;
        let batch = batch_of(&block(true, &["a=1"]));
        receiver(&unit.world).consume(Arc::clone(&batch)).await.unwrap();
        assert_eq!((shown(&batch), shown(&sink.last())), (vec!["a=1 0".into()], vec!["a=1,cluster=eu 0".into()]));
    }

    /// A batch with an item of each kind for each of three series.
    fn all_kinds(lasting: bool) -> Arc<MetricsBatch> {
        let block = block(lasting, &["a=0", "a=1", "a=2"]);
        let indexes = || 0..3u32;
        let histogram = |index: u32| Histogram {
            schema: 0,
            zero_threshold: 0.0,
            sum: f64::from(index),
            reset_hint: ResetHint::Unknown,
            positive_spans: Vec::new(),
            negative_spans: Vec::new(),
            counts: HistogramCounts::Int {
                count: 0,
                zero_count: 0,
                positive_deltas: Vec::new(),
                negative_deltas: Vec::new(),
            },
            custom_values: Vec::new(),
        };
        let metadata = |index| Metadata { family: format!("family_{index}"), ..Metadata::default() };
        let part = SeriesPart {
            histograms: indexes()
                .map(|index| HistogramSample { index, timestamp_ms: 5, histogram: Arc::new(histogram(index)) })
                .collect(),
            exemplars: indexes()
                .map(|index| Exemplar { index, timestamp_ms: 5, value: f64::from(index), labels: Vec::new() })
                .collect(),
            metadata: indexes().map(|index| SeriesMetadata { index, metadata: Arc::new(metadata(index)) }).collect(),
            ..SeriesPart::of_samples(block, 0, Vec::new())
        };
        Arc::new(MetricsBatch::of(vec![part]))
    }

    #[tokio::test]
    async fn everything_that_belongs_to_a_series_goes_with_it() {
        let rules = [
            "rule {\n source_labels = [\"a\"]\n regex = \"1\"\n action = \"drop\"\n }",
            "rule {\n source_labels = [\"a\"]\n regex = \"1\"\n action = \"drop\"\n }\nrule {\n source_labels = [\"a\"]\n \
             target_label = \"b\"\n }",
        ];
        for (rules, lasting) in [(rules[0], true), (rules[0], false), (rules[1], true), (rules[1], false)] {
            let (sink, name) = Sink::named("sink");
            let unit = start(&format!("forward_to = [sink]\n{rules}"), &[name]).await;
            receiver(&unit.world).consume(all_kinds(lasting)).await.unwrap();
            let batch = sink.last();
            let part = &batch.parts[0];
            let label = |index| part.block.labels(index).get("a").unwrap().parse::<f64>().unwrap();
            let histograms: Vec<_> = part.histograms.iter().map(|h| (label(h.index), h.histogram.sum)).collect();
            assert_eq!(histograms, [(0.0, 0.0), (2.0, 2.0)]);
            let exemplars: Vec<_> = part.exemplars.iter().map(|e| (label(e.index), e.value)).collect();
            assert_eq!(exemplars, [(0.0, 0.0), (2.0, 2.0)]);
            let families: Vec<_> = part.metadata.iter().map(|m| (label(m.index), m.metadata.family.as_str())).collect();
            assert_eq!(families, [(0.0, "family_0"), (2.0, "family_2")]);
            // Samples alone count as written.
            assert_eq!((metric(&unit.world, "metrics_processed"), metric(&unit.world, "metrics_written")), (9, 0));
        }
    }

    #[tokio::test]
    async fn a_staleness_marker_is_forwarded_and_its_set_forgotten() {
        let (sink, name) = Sink::named("sink");
        let unit = start(&format!("forward_to = [sink]\n{ADD}"), &[name]).await;
        let counts = |name| metric(&unit.world, name);
        let pushed = block(false, &["a=1", "a=2"]);
        receiver(&unit.world).consume(batch_of(&pushed)).await.unwrap();
        assert_eq!((counts("cache_size"), counts("cache_deletes")), (2, 0));
        let ended = |block: &Arc<SeriesBlock>| {
            let samples = vec![Sample { value: STALE_NAN, index: 0, offset_ms: 0 }];
            Arc::new(MetricsBatch::of(vec![SeriesPart::of_samples(Arc::clone(block), 0, samples)]))
        };
        receiver(&unit.world).consume(ended(&pushed)).await.unwrap();
        let batch = sink.last();
        assert!(is_stale(batch.parts[0].samples[0].value));
        assert_eq!(batch.parts[0].block.labels(0).to_string(), r#"{a="1", cluster="eu"}"#);
        assert_eq!((counts("cache_size"), counts("cache_deletes")), (1, 1));
        receiver(&unit.world).consume(ended(&block(true, &["a=2"]))).await.unwrap();
        assert_eq!((counts("cache_size"), counts("cache_deletes")), (1, 1), "a block that lasts has no set to forget");
    }

    #[tokio::test(start_paused = true)]
    async fn sets_that_are_not_seen_for_long_are_forgotten() {
        let (_, name) = Sink::named("sink");
        let body = format!("forward_to = [sink]\nmax_cache_size = 0\ncache_ttl = \"1m\"\n{ADD}");
        let unit = start(&body, &[name]).await;
        receiver(&unit.world).consume(batch_of(&block(false, &["a=1", "a=2"]))).await.unwrap();
        tokio::time::sleep(Duration::from_secs(50)).await;
        receiver(&unit.world).consume(batch_of(&block(false, &["a=1"]))).await.unwrap();
        assert_eq!(metric(&unit.world, "cache_size"), 2);
        until("one is forgotten", || metric(&unit.world, "cache_size") == 1).await;
        until("both are forgotten", || metric(&unit.world, "cache_size") == 0).await;
        assert_eq!(metric(&unit.world, "cache_ttl_evictions"), 2);
    }

    #[tokio::test]
    async fn another_receiver_has_everything_worked_out_anew() {
        let (sink, name) = Sink::named("sink");
        let (other, other_name) = Sink::named("other");
        let mut unit = start(&format!("forward_to = [sink]\n{ADD}"), &[name, other_name]).await;
        let entrance = receiver(&unit.world);
        let (lasts, pushed) = (block(true, &["a=1"]), block(false, &["a=1"]));
        for block in [&lasts, &pushed] {
            entrance.consume(batch_of(block)).await.unwrap();
        }
        unit.update(&format!("forward_to = [other]\n{ADD}")).await.unwrap();
        assert_eq!(receiver(&unit.world), entrance);
        assert_eq!(metric(&unit.world, "cache_size"), 0);
        for block in [&lasts, &pushed] {
            entrance.consume(batch_of(block)).await.unwrap();
        }
        assert_eq!((sink.len(), other.len(), metric(&unit.world, "cache_misses")), (2, 2, 4));
        assert!(!Arc::ptr_eq(&sink.0.lock()[0].parts[0].block, &other.0.lock()[0].parts[0].block));
        assert_eq!(unit.world.metric("prometheus_forwarded_samples_total"), Some(4.0), "counters go on");
    }

    #[tokio::test]
    async fn new_rules_apply_from_the_next_batch_on() {
        let (sink, name) = Sink::named("sink");
        let mut unit = start(&format!("forward_to = [sink]\n{ADD}"), &[name]).await;
        let entrance = receiver(&unit.world);
        let block = block(true, &["a=1"]);
        entrance.consume(batch_of(&block)).await.unwrap();
        unit.update(&format!("forward_to = [sink]\n{}", ADD.replace("eu", "us"))).await.unwrap();
        entrance.consume(batch_of(&block)).await.unwrap();
        assert_eq!(shown(&sink.last()), ["a=1,cluster=us 0"]);
        let error = unit.update("forward_to = [sink]\nrule {\n regex = \"(\"\n }").await.unwrap_err();
        assert!(error.contains("missing closing )"), "{error}");
        entrance.consume(batch_of(&block)).await.unwrap();
        assert_eq!(shown(&sink.last()), ["a=1,cluster=us 0"], "what is wrong changes nothing");
    }

    #[tokio::test]
    async fn a_component_that_is_gone_says_so() {
        let (sink, name) = Sink::named("sink");
        let mut unit = start("forward_to = [sink]", &[name]).await;
        let entrance = receiver(&unit.world);
        unit.drain().await;
        let error = entrance.consume(batch_of(&block(true, &["a=1"]))).await.unwrap_err();
        assert_eq!((error.to_string().as_str(), sink.len()), ("prometheus.relabel.a has exited", 0));
    }

    #[tokio::test]
    async fn the_refusal_of_a_receiver_is_handed_back() {
        let gone = Inlet::<Metrics>::new("prometheus.echo.gone");
        gone.close();
        let unit = start("forward_to = [gone]", &[("gone", gone.receiver().to_value())]).await;
        let error = receiver(&unit.world).consume(batch_of(&block(true, &["a=1"]))).await.unwrap_err();
        assert_eq!(error.to_string(), "prometheus.echo.gone has exited");
    }

    #[tokio::test]
    async fn the_rules_are_exported_as_they_are_written() {
        let unit = start(&format!("forward_to = []\n{ADD}"), &[]).await;
        let exports = unit.world.exports();
        let rules = exports.last().and_then(|exports| exports.field("rules")).unwrap();
        let rules = rules.as_capsule().and_then(|capsule| capsule.as_any().downcast_ref::<RelabelRules>()).unwrap();
        let expected = Rule { target_label: "cluster".to_owned(), replacement: "eu".to_owned(), ..Rule::default() };
        assert_eq!(*rules.0, [expected]);
    }

    #[tokio::test]
    async fn a_receiver_outlives_reloads_and_ends_with_the_component() {
        let echoes = "prometheus.echo \"a\" { }\nprometheus.echo \"b\" { }\n";
        let relabel = |to: &str, rule: &str| {
            format!("{echoes}prometheus.relabel \"x\" {{\n forward_to = [prometheus.echo.{to}.receiver]\n {rule}\n }}")
        };
        let families: &[&[Definition]] = &[&[Definition::of::<crate::echo::Echo>(), RELABEL]];
        let pipeline = load(&relabel("a", ADD), families).await.unwrap();
        let entrance = || receiver_in(&pipeline.exports("prometheus.relabel.x"));
        let first = entrance();
        let block = block(true, &["__name__=up"]);
        let send = async |name: &str, cluster: &str| {
            first.consume(batch_of(&block)).await.unwrap();
            let line =
                format!("component_id=prometheus.echo.{name} metrics=\"# TYPE up untyped\\nup{{cluster=\\\"{cluster}");
            assert!(pipeline.logs().lines().last().unwrap().contains(&line), "{}", pipeline.logs());
        };
        send("a", "eu").await;
        pipeline.reload(&relabel("b", ADD)).await.unwrap();
        assert_eq!(entrance(), first);
        send("b", "eu").await;
        pipeline.reload(&relabel("b", &ADD.replace("eu", "us"))).await.unwrap();
        send("b", "us").await;
        assert!(pipeline.reload(&relabel("b", "rule { action = \"Replace\" }")).await.is_err());
        send("b", "us").await;
        pipeline.reload(echoes).await.unwrap();
        let error = first.consume(batch_of(&block)).await.unwrap_err();
        assert_eq!(error.to_string(), "prometheus.relabel.x has exited");
        pipeline.shutdown().await;
    }

    fn stage(rules: &[Rule], sink: &Sink, cache_size: usize) -> Stage {
        let inlet = Inlet::new("prometheus.echo.sink");
        inlet.attach(Arc::new(sink.clone()));
        let registry = Registry::new();
        let ledger = corten_signal::Ledger::new("prometheus.relabel.a");
        let forward = Forward::new(&registry, &ledger, [inlet.receiver()]);
        let rules = Rules::new(rules, NameScheme::Legacy).unwrap();
        let row = Arc::clone(ledger.row_of::<Metrics>());
        Stage::new(rules, Retention::Size(cache_size), forward, row, &registry, Logger::new(LogSink::memory().0))
    }

    #[tokio::test]
    async fn two_batches_at_once_find_one_map() {
        let (sink, rule) =
            (Sink::default(), Rule { target_label: "b".into(), replacement: "1".into(), ..Rule::default() });
        let stage = stage(&[rule], &sink, 10);
        let series: Vec<String> = (0..1000).map(|number| format!("a={number}")).collect();
        let block = block(true, &series.iter().map(String::as_str).collect::<Vec<_>>());
        // Both begin to make the map, because each lets the other have its turn.
        let (one, two) = tokio::join!(stage.consume(batch_of(&block)), stage.consume(batch_of(&block)));
        assert_eq!((one, two), (Ok(()), Ok(())));
        let sent = sink.0.lock();
        assert!(sent.len() == 2 && Arc::ptr_eq(&sent[0].parts[0].block, &sent[1].parts[0].block));
        drop(block);
        stage.sweep();
        assert_eq!(stage.maps.len(), 0);
    }

    #[tokio::test]
    async fn a_series_that_becomes_too_long_is_dropped_and_told_of() {
        let (sink, lines) = (Sink::default(), LogSink::memory());
        // Each rule doubles what it can; together they pass the limit on a label set.
        let rules: Vec<Rule> = (0..20)
            .map(|number| Rule {
                source_labels: vec!["a".to_owned()],
                target_label: format!("b{number}"),
                ..Rule::default()
            })
            .collect();
        let mut stage = stage(&rules, &sink, 10);
        stage.logger = Logger::new(lines.0);
        let long = format!("a={}", "x".repeat(1 << 20));
        for lasting in [true, false] {
            stage.consume(batch_of(&block(lasting, &["a=1", &long]))).await.unwrap();
            assert_eq!(sink.last().parts[0].samples.len(), 1);
        }
        let lines = String::from_utf8(lines.1.lock().clone()).unwrap();
        assert_eq!(lines.matches("dropped series whose new labels are too long\" series=1").count(), 2, "{lines}");
    }

    fn rule() -> impl Strategy<Value = Rule> {
        let regex = prop_oneof![Just("(.*)"), Just("[12]"), Just("(.+);(.+)"), Just("a|b"), Just("")];
        let action = prop_oneof![
            Just(Action::Replace),
            Just(Action::Keep),
            Just(Action::Drop),
            Just(Action::LabelMap),
            Just(Action::LabelDrop),
            Just(Action::HashMod),
        ];
        (regex, action, proptest::collection::vec("[abcd]", 0..3), "[abc]", "[$]1|x|").prop_map(
            |(regex, action, source_labels, target_label, replacement)| {
                let names_only = action == Action::LabelDrop;
                Rule {
                    regex: regex.into(),
                    modulus: if action == Action::HashMod { 3 } else { 0 },
                    source_labels: if names_only { Vec::new() } else { source_labels },
                    target_label: if names_only { String::new() } else { target_label },
                    replacement: match action {
                        Action::LabelMap => "l_$1".to_owned(),
                        Action::Replace => replacement,
                        _ => "$1".to_owned(),
                    },
                    action,
                    ..Rule::default()
                }
            },
        )
    }

    proptest! {
        #[test]
        fn by_index_and_by_cache_the_rules_do_the_same(
            rules in proptest::collection::vec(rule(), 0..5),
            series in proptest::collection::vec(proptest::collection::btree_map("[abcd]", "[123]", 1..4), 1..20),
            cache_size in 1usize..8,
        ) {
            let texts: Vec<String> = series
                .iter()
                .map(|labels| labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(","))
                .collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let compiled = Rules::new(&rules, NameScheme::Legacy).unwrap();
            let mut expected = Vec::new();
            for (number, labels) in series.iter().enumerate() {
                let mut builder = LabelsBuilder::new();
                labels.iter().for_each(|(name, value)| builder.push(name, value));
                if compiled.apply(&mut builder, &mut RelabelScratch::new()) && !builder.is_empty() {
                    let mut labels: Vec<_> = builder.iter().map(|(name, value)| format!("{name}={value}")).collect();
                    labels.sort();
                    expected.push(format!("{} {number}", labels.join(",")));
                }
            }
            let sink = Sink::default();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let stage = stage(&rules, &sink, cache_size);
                let lasts = block(true, &texts);
                for block in [&lasts, &lasts, &block(false, &texts), &block(false, &texts)] {
                    let before = sink.len();
                    stage.consume(batch_of(block)).await.unwrap();
                    let got = if sink.len() > before { shown(&sink.last()) } else { Vec::new() };
                    let sorted = |mut lines: Vec<String>| {
                        lines.sort();
                        lines
                    };
                    prop_assert_eq!(sorted(got), sorted(expected.clone()));
                    prop_assert!(stage.cache.len() <= cache_size);
                }
                Ok(())
            })?;
        }
    }
}
