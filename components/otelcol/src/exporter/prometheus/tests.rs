use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use corten_component::Definition;
use corten_config::decode::Decode as _;
use corten_config::value::Value;
use corten_otlp::metrics::{
    Buckets, Exemplar, ExponentialPoint, HistogramPoint, Number, NumberPoint, Points, SummaryPoint,
};
use corten_otlp::{Arena, Data, LogRecord, Map, OfResource, OfScope};
use corten_signal::acks::{Answer, waiter};
use corten_signal::metrics::{Histogram, HistogramCounts, MetricType, is_stale};
use corten_signal::{Inlet, Kind, MetricsBatch};
use corten_testkit::{Unit, World, host, otlp, until};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

/// What the reference's own converter made of these metrics.
const RECORDED: &str = include_str!("../../../tests/data/exporter_prometheus.jsonl");

/// The time at which everything arrives, in milliseconds.
const NOW_MS: i64 = 1_800_000_000_000;

fn options(given: &Json) -> Options {
    let get = |name: &str, default| given.get(name).map_or(default, |value| value.as_bool().unwrap());
    Options {
        target_info: get("include_target_info", true),
        scope_info: get("include_scope_info", false),
        suffixes: get("add_metric_suffixes", true),
        resource_labels: get("resource_to_telemetry_conversion", false),
        metadata: get("honor_metadata", false),
        own_bounds: get("convert_classic_histograms_to_nhcb", false),
        keep_identifying: get("keep_identifying_resource_attributes", false),
        start_zeros: get("start_timestamp_zero_ingestion", false),
    }
}

fn number(value: f64) -> Json {
    if is_stale(value) {
        return json!("stale");
    }
    // Of equal numbers there is one text; NaN is NaN.
    json!(if value.is_nan() { "NaN".to_owned() } else { format!("{value:?}") })
}

fn time(ms: i64) -> Json {
    if ms == NOW_MS { json!("now") } else { json!(ms) }
}

fn shown_histogram(histogram: &Histogram) -> Json {
    let HistogramCounts::Int { count, zero_count, positive_deltas, negative_deltas } = &histogram.counts else {
        panic!("whole numbers stay whole")
    };
    let spans = |spans: &[corten_signal::metrics::Span]| {
        spans.iter().map(|span| json!([span.offset, span.length])).collect::<Vec<_>>()
    };
    json!({
        "schema": histogram.schema,
        "zt": number(histogram.zero_threshold),
        "zc": zero_count,
        "count": count,
        "sum": number(histogram.sum),
        "ps": spans(&histogram.positive_spans),
        "pd": positive_deltas,
        "ns": spans(&histogram.negative_spans),
        "nd": negative_deltas,
        "custom": histogram.custom_values.iter().map(|bound| number(*bound)).collect::<Vec<_>>(),
        "hint": histogram.reset_hint as u8,
    })
}

/// By series and kind, in order: time and value.
type Shown = BTreeMap<(String, &'static str), Vec<Json>>;

fn shown(batch: &MetricsBatch) -> (Shown, BTreeSet<String>) {
    let (mut shown, mut families) = (Shown::new(), BTreeSet::new());
    for part in &batch.parts {
        let labels = |index: u32| {
            let labels: BTreeMap<_, _> = part.block.labels(index).iter().collect();
            serde_json::to_string(&labels).unwrap()
        };
        for sample in &part.samples {
            let values = shown.entry((labels(sample.index), "sample")).or_default();
            values.push(json!([time(part.timestamp_ms(sample)), number(sample.value)]));
        }
        for histogram in &part.histograms {
            let values = shown.entry((labels(histogram.index), "histogram")).or_default();
            values.push(json!([time(histogram.timestamp_ms), shown_histogram(&histogram.histogram)]));
        }
        for exemplar in &part.exemplars {
            let own: BTreeMap<_, _> = exemplar.labels.iter().map(|(name, value)| (&**name, &**value)).collect();
            let values = shown.entry((labels(exemplar.index), "exemplar")).or_default();
            values.push(json!([exemplar.timestamp_ms, number(exemplar.value), own]));
        }
        for known in &part.metadata {
            let metadata = &known.metadata;
            let metric_type = match metadata.metric_type {
                MetricType::Gauge => "gauge",
                MetricType::Counter => "counter",
                MetricType::Histogram => "histogram",
                MetricType::Summary => "summary",
                other => panic!("{other:?}"),
            };
            families.insert(json!([metadata.family, metric_type, metadata.unit, metadata.help]).to_string());
        }
    }
    (shown, families)
}

fn wanted(items: &[Json]) -> (Shown, BTreeSet<String>) {
    let (mut shown, mut families) = (Shown::new(), BTreeSet::new());
    let number = |text: &Json| match text.as_str().unwrap() {
        "stale" => json!("stale"),
        text => number(text.parse().unwrap()),
    };
    for item in items {
        if let Some(metadata) = item.get("m") {
            families.insert(metadata.to_string());
            continue;
        }
        let labels: BTreeMap<_, _> = item["l"].as_object().unwrap().iter().collect();
        let labels = serde_json::to_string(&labels).unwrap();
        if let Some(exemplar) = item.get("e") {
            let values = shown.entry((labels, "exemplar")).or_default();
            values.push(json!([exemplar["t"], number(&exemplar["v"]), exemplar["l"]]));
        } else if let Some(histogram) = item.get("h") {
            let mut histogram = histogram.clone();
            histogram["sum"] = number(&histogram["sum"]);
            histogram["zt"] = super::tests::number(histogram["zt"].as_f64().unwrap());
            histogram["custom"] = histogram["custom"].as_array().unwrap().iter().map(number).collect();
            shown.entry((labels, "histogram")).or_default().push(json!([item["t"], histogram]));
        } else {
            shown.entry((labels, "sample")).or_default().push(json!([item["t"], number(&item["v"])]));
        }
    }
    (shown, families)
}

#[test]
fn metrics_become_what_the_reference_makes_of_them() {
    let mut differences = Vec::new();
    for line in RECORDED.lines() {
        let case: Json = serde_json::from_str(line).unwrap();
        let name = case["name"].as_str().unwrap();
        let mut converter = Converter::new(options(&case["opts"]));
        let mut said = BTreeSet::new();
        let batches = case["batches"].as_array().unwrap();
        for (at, (batch, want)) in batches.iter().zip(case["want"].as_array().unwrap()).enumerate() {
            let batch: Batch<Metric> = otlp(&batch.to_string());
            let made = converter.convert(batch.data().map(|data| &**data), NOW_MS, 300).batch;
            let (got, families) = shown(&made);
            let (want, wanted_families) = wanted(want.as_array().unwrap());
            for key in got.keys().chain(want.keys()).collect::<BTreeSet<_>>() {
                let (got, want) = (got.get(key), want.get(key));
                if got != want {
                    differences.push(format!("{name} {at}: {key:?}\n   got {got:?}\n  want {want:?}"));
                }
            }
            // What was said before is said again with new series.
            said.extend(wanted_families.iter().cloned());
            if !families.is_subset(&said) || !wanted_families.is_subset(&families) {
                differences.push(format!("{name} {at}: got {families:?}\n  want {wanted_families:?}"));
            }
        }
    }
    assert!(differences.is_empty(), "{} differences\n{}", differences.len(), differences.join("\n"));
}

fn plain() -> Options {
    options(&json!({"include_target_info": false}))
}

fn convert(converter: &mut Converter, metrics: &str, now_s: u32) -> MetricsBatch {
    let batch: Batch<Metric> =
        otlp(&format!(r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{metrics}]}}]}}]}}"#));
    converter.convert(batch.data().map(|data| &**data), NOW_MS, now_s).batch
}

fn gauge(name: &str, series: std::ops::Range<usize>, time_ms: i64) -> String {
    let point = |n: usize| {
        format!(
            r#"{{"asDouble":{n},"timeUnixNano":"{}","attributes":[{{"key":"n","value":{{"intValue":"{n}"}}}}]}}"#,
            time_ms * 1_000_000
        )
    };
    let points: Vec<String> = series.map(point).collect();
    format!(r#"{{"name":"{name}","gauge":{{"dataPoints":[{}]}}}}"#, points.join(","))
}

#[test]
fn points_that_come_again_refer_to_the_same_blocks() {
    let mut converter = Converter::new(plain());
    let mut blocks = Vec::new();
    for round in 0..4 {
        let metrics = format!(
            "{},{}",
            gauge("g", 0..100, NOW_MS + round),
            r#"{"name":"h","histogram":{"aggregationTemporality":2,"dataPoints":[{"timeUnixNano":"1800000000000000000","count":"3","sum":1,"explicitBounds":[1,2],"bucketCounts":["1","1","1"]}]}}"#
        );
        let made = convert(&mut converter, &metrics, 300);
        assert_eq!((made.parts.len(), made.items()), (1, 105));
        assert!(made.parts[0].block.is_lasting());
        blocks.push(made.parts[0].block.id());
    }
    blocks.dedup();
    assert_eq!((blocks.len(), converter.size().0), (1, 105));
}

#[test]
fn blocks_stay_few_where_series_come_one_by_one() {
    let mut converter = Converter::new(plain());
    for n in 0..500 {
        let made = convert(&mut converter, &gauge("g", n..n + 1, NOW_MS), 300);
        assert_eq!(made.items(), 1);
    }
    let all = convert(&mut converter, &gauge("g", 0..500, NOW_MS), 300);
    assert!(all.parts.len() < 10, "{}", all.parts.len());
    let (shown, _) = shown(&all);
    assert_eq!(shown.len(), 500);
    for n in 0..500 {
        let values = &shown[&(format!(r#"{{"__name__":"g","n":"{n}"}}"#), "sample")];
        assert_eq!(values, &[json!(["now", format!("{}.0", n)])]);
    }
}

#[test]
fn series_without_points_are_forgotten_and_begin_anew() {
    let mut converter = Converter::new(plain());
    convert(&mut converter, &gauge("g", 0..1000, NOW_MS), 300);
    convert(&mut converter, &gauge("g", 0..10, NOW_MS + 5), 500);
    let before = converter.size();
    converter.forget_unseen(400);
    let after = converter.size();
    assert_eq!((before.0, after.0), (1000, 10));
    assert!(after.1 < before.1, "{before:?} {after:?}");
    // Those that are still known take no older points, and the others do.
    let made = convert(&mut converter, &gauge("g", 0..20, NOW_MS), 501);
    let names: BTreeSet<String> = shown(&made).0.into_keys().map(|(labels, _)| labels).collect();
    assert_eq!(names, (10..20).map(|n| format!(r#"{{"__name__":"g","n":"{n}"}}"#)).collect());
    assert_eq!(converter.size().0, 20);
}

#[test]
fn a_histogram_with_too_many_bounds_is_dropped_and_told_of() {
    let mut converter = Converter::new(plain());
    let bounds: Vec<String> = (0..20_000).map(|n| n.to_string()).collect();
    let counts = vec!["\"1\""; 20_001].join(",");
    let metric = format!(
        r#"{{"name":"h","histogram":{{"aggregationTemporality":2,"dataPoints":[{{"explicitBounds":[{}],"bucketCounts":[{counts}]}}]}}}}"#,
        bounds.join(",")
    );
    let batch: Batch<Metric> = otlp(&format!(
        r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{metric},{}]}}]}}]}}"#,
        gauge("g", 0..1, NOW_MS)
    ));
    let Converted { batch: made, problems, .. } = converter.convert(batch.data().map(|data| &**data), NOW_MS, 300);
    assert_eq!(made.items(), 1);
    let problem = Problem {
        what: "failed to write metric sample",
        family: "h".to_owned(),
        error: "20000 bounds are more than 10000".to_owned(),
    };
    assert_eq!(problems, [problem]);
}

/// Makes data of a list of numbers: of any list some, and of most lists odd ones.
struct Tape<'a>(std::slice::Iter<'a, u16>);

impl Tape<'_> {
    fn next(&mut self, below: u16) -> u16 {
        self.0.next().map_or(0, |number| number % below)
    }

    fn double(&mut self) -> f64 {
        let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 5e-324, f64::MAX, 0.0, 1.0];
        match self.next(16) {
            at @ 0..8 => odd[at as usize],
            _ => f64::from(self.next(9)) / 2.0,
        }
    }

    fn long(&mut self) -> u64 {
        [0, 1, 2, u64::MAX, i64::MAX as u64, i64::MIN as u64, 1_700_000_000_000_000_000][self.next(7) as usize]
    }

    fn int(&mut self) -> i32 {
        [0, 1, -1, 3, 8, 9, 20, -4, -5, i32::MIN, i32::MAX][self.next(11) as usize]
    }

    fn list<T>(&mut self, mut of: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.next(5)).map(|_| of(self)).collect()
    }

    fn text(&mut self) -> &'static [u8] {
        let texts: [&[u8]; 16] = [
            b"a",
            b"b",
            b"",
            b"a.b",
            b"a_b",
            b"_",
            b"9",
            b"\xff\xc3",
            "\u{e9}".as_bytes(),
            b"le",
            b"quantile",
            b"job",
            b"__name__",
            b"service.name",
            b"instance",
            b"total",
        ];
        texts[self.next(16) as usize]
    }

    fn attributes(&mut self, arena: &mut Arena) -> Map {
        let mut map = Map::default();
        for _ in 0..self.next(4) {
            let key = self.text();
            let value = match self.next(6) {
                0 => corten_otlp::Value::Empty,
                1 => corten_otlp::Value::Double(self.double()),
                2 => corten_otlp::Value::Map(map),
                _ => corten_otlp::Value::Str(arena.own(self.text())),
            };
            let key = arena.own(key);
            arena.push(&mut map, key, value);
        }
        map
    }

    fn exemplar(&mut self) -> Exemplar {
        Exemplar {
            time_ns: self.long(),
            value: Number::Double(self.double()),
            trace_id: [1; 16],
            ..Exemplar::default()
        }
    }

    fn metric(&mut self, arena: &mut Arena) -> Metric {
        let temporality = if self.next(8) == 0 { 1 } else { 2 };
        let number = |tape: &mut Self, arena: &mut Arena| NumberPoint {
            attributes: tape.attributes(arena),
            start_time_ns: tape.long(),
            time_ns: tape.long(),
            value: Number::Double(tape.double()),
            exemplars: tape.list(Self::exemplar),
            flags: tape.next(2).into(),
        };
        let points = match self.next(6) {
            0 => Points::None,
            1 => Points::Gauge(self.list(|tape| number(tape, arena))),
            2 => {
                let monotonic = self.next(2) == 0;
                Points::Sum { points: self.list(|tape| number(tape, arena)), temporality, monotonic }
            }
            3 => Points::Histogram {
                points: self.list(|tape| HistogramPoint {
                    attributes: tape.attributes(arena),
                    start_time_ns: tape.long(),
                    time_ns: tape.long(),
                    count: tape.long(),
                    sum: Some(tape.double()).filter(|_| tape.next(3) > 0),
                    bucket_counts: tape.list(Self::long),
                    explicit_bounds: tape.list(Self::double),
                    exemplars: tape.list(Self::exemplar),
                    flags: tape.next(2).into(),
                    ..HistogramPoint::default()
                }),
                temporality,
            },
            4 => Points::Exponential {
                points: self.list(|tape| ExponentialPoint {
                    attributes: tape.attributes(arena),
                    start_time_ns: tape.long(),
                    time_ns: tape.long(),
                    count: tape.long(),
                    scale: tape.int(),
                    positive: Buckets { offset: tape.int(), counts: tape.list(Self::long) },
                    negative: Buckets { offset: tape.int(), counts: tape.list(Self::long) },
                    ..ExponentialPoint::default()
                }),
                temporality,
            },
            _ => Points::Summary(self.list(|tape| SummaryPoint {
                attributes: tape.attributes(arena),
                start_time_ns: tape.long(),
                time_ns: tape.long(),
                count: tape.long(),
                sum: tape.double(),
                quantiles: tape.list(|tape| (tape.double(), tape.double())),
                flags: 0,
            })),
        };
        let (name, unit) = (arena.own(self.text()), arena.own(self.text()));
        Metric { name, unit, points, ..Metric::default() }
    }

    fn data(&mut self) -> Data<Metric> {
        let mut data = Data::default();
        for _ in 0..=self.next(3) {
            let mut of = OfResource::default();
            of.resource.attributes = self.attributes(&mut data.arena);
            let mut scope = OfScope::default();
            scope.scope.attributes = self.attributes(&mut data.arena);
            for _ in 0..self.next(6) {
                scope.records.push(self.metric(&mut data.arena));
            }
            of.scopes.push(scope);
            data.resources.push(of);
        }
        data
    }
}

fn has_exemplars_alone(batch: &MetricsBatch) -> bool {
    batch.parts.iter().all(|part| part.samples.is_empty() && part.histograms.is_empty())
}

proptest! {
    #[test]
    fn any_metrics_become_sorted_labels_and_times_that_ascend(
        batches in proptest::collection::vec(proptest::collection::vec(any::<u16>(), 0..300), 1..4),
        flags: [bool; 8],
    ) {
        let [target_info, scope_info, suffixes, resource_labels, metadata, own_bounds, keep_identifying, start_zeros] = flags;
        let mut converter = Converter::new(Options {
            target_info, scope_info, suffixes, resource_labels, metadata, own_bounds, keep_identifying, start_zeros,
        });
        let mut last: BTreeMap<String, i64> = BTreeMap::new();
        for (round, tape) in batches.iter().enumerate() {
            let data = Tape(tape.iter()).data();
            let Converted { batch: made, dropped, .. } = converter.convert([&data], NOW_MS, 300 + round as u32);
            let lost: usize = dropped.iter().map(|(_, points)| points).sum();
            prop_assert!(lost <= data.items(), "{:?} of {}", dropped, data.items());
            // A sample came of every other point, and of nothing else but what is said of resources and scopes.
            prop_assert!(lost < data.items() || target_info || scope_info || made.items() == 0 || has_exemplars_alone(&made));
            for part in &made.parts {
                for index in 0..part.block.len() as u32 {
                    let names: Vec<&str> = part.block.labels(index).iter().map(|(name, _)| name).collect();
                    prop_assert!(names.is_sorted_by(|a, b| a < b) && !names.is_empty(), "{:?}", names);
                    prop_assert!(part.block.labels(index).iter().all(|(name, value)| !name.is_empty() && !value.is_empty()));
                }
                let indexes = part.histograms.iter().map(|h| h.index).chain(part.exemplars.iter().map(|e| e.index));
                let indexes = indexes.chain(part.metadata.iter().map(|m| m.index));
                prop_assert!(indexes.chain(part.samples.iter().map(|s| s.index)).all(|at| (at as usize) < part.block.len()));
                for sample in &part.samples {
                    let labels = part.block.labels(sample.index);
                    // Starts of series and what is said of targets have times of their own, and so have times that are far
                    // away in another part.
                    if start_zeros || labels.get("__name__").is_some_and(|name| name.ends_with("_info")) || part.base_ms != NOW_MS {
                        continue;
                    }
                    let time = part.timestamp_ms(sample);
                    let before = last.insert(labels.to_string(), time);
                    prop_assert!(before.is_none_or(|before| before <= time), "{} {:?} {}", labels, before, time);
                }
            }
            if round == 1 {
                converter.forget_unseen(300 + u32::from(tape.first().is_some_and(|first| first % 2 == 0)));
                last.clear();
            }
        }
    }

    #[test]
    fn bounds_ascend_and_counts_with_them(counts in proptest::collection::vec(0..50u64, 1..9)) {
        let mut converter = Converter::new(plain());
        let bounds: Vec<usize> = (1..counts.len()).collect();
        let counts_text: Vec<String> = counts.iter().map(|count| format!("\"{count}\"")).collect();
        let metric = format!(
            r#"{{"name":"h","histogram":{{"aggregationTemporality":2,"dataPoints":[{{"count":"{}","explicitBounds":{bounds:?},"bucketCounts":[{}]}}]}}}}"#,
            counts.iter().sum::<u64>(), counts_text.join(",")
        );
        let made = convert(&mut converter, &metric, 300);
        let part = &made.parts[0];
        let buckets: Vec<(f64, f64)> = part.samples.iter().filter_map(|sample| {
            let bound = part.block.labels(sample.index).get("le")?;
            Some((bound.parse().unwrap(), sample.value))
        }).collect();
        prop_assert_eq!(buckets.len(), counts.len());
        prop_assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{:?}", buckets);
        prop_assert_eq!(buckets.last().map(|last| last.1), Some(counts.iter().sum::<u64>() as f64));
    }
}

/// Keeps what it is sent, and answers what it is told to.
#[derive(Clone, Default)]
struct Sink {
    taken: Arc<Mutex<Vec<Arc<MetricsBatch>>>>,
    refusal: Arc<Mutex<Option<ConsumeError>>>,
    /// Whether it never answers.
    blocks: Arc<AtomicBool>,
}

impl Consume<Metrics> for Sink {
    fn consume(&self, batch: Arc<MetricsBatch>) -> BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(async move {
            if self.blocks.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            if let Some(refusal) = &*self.refusal.lock() {
                return Err(refusal.clone());
            }
            self.taken.lock().push(batch);
            Ok(())
        })
    }
}

impl Sink {
    fn value(&self) -> (Inlet<Metrics>, Value) {
        let inlet = Inlet::new("prometheus.remote_write.a");
        inlet.attach(Arc::new(self.clone()));
        let value = inlet.receiver().to_value();
        (inlet, value)
    }

    fn items(&self) -> Vec<usize> {
        self.taken.lock().iter().map(|batch| batch.items()).collect()
    }
}

const EXPORTER: Definition = Definition::of::<PrometheusExporter>();

async fn start(world: World, body: &str, sink: &Sink) -> Result<Unit, String> {
    let (_inlet, value) = sink.value();
    Unit::start_with(world, &EXPORTER, &format!("forward_to = [sink]\n{body}"), &[("sink", value)]).await
}

fn of_series(series: std::ops::Range<usize>, time_ms: i64) -> Batch<Metric> {
    otlp(&format!(r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{}]}}]}}]}}"#, gauge("g", series, time_ms)))
}

#[tokio::test]
async fn a_batch_is_safe_when_the_receivers_have_taken_it_and_refused_when_they_refuse() {
    let sink = Sink::default();
    let unit = start(host("otelcol.exporter.prometheus.a"), "", &sink).await.unwrap();
    let to = unit.world.consumer("input").metrics;
    let (acks, mut told) = waiter();
    let mut batch = of_series(0..3, 1);
    batch.acks = acks;
    to.consume(batch).await.unwrap();
    assert_eq!(sink.items(), [4]);
    assert_eq!(told.wait(Duration::from_secs(1)).await, Answer::Safe);
    let refusal = ConsumeError::Retry { after: None, reason: "full".to_owned() };
    *sink.refusal.lock() = Some(refusal.clone());
    assert_eq!(to.consume(of_series(0..3, 2)).await, Err(refusal));
    *sink.refusal.lock() = None;
    // Sent again, it is taken: points of the same time are not older.
    to.consume(of_series(0..3, 2)).await.unwrap();
    assert_eq!(sink.items(), [4, 4]);
    assert_eq!(unit.world.metric("prometheus_forwarded_samples_total"), Some(8.0));
    assert_eq!(unit.world.metric("corten_exporter_prometheus_series"), Some(4.0));
    assert_eq!(unit.world.balance_of(Kind::OtelMetric), "taken 6, merged {prometheus_metric: 6}");
    assert_eq!(unit.world.balance_of(Kind::PrometheusMetric), "out 8, created {otel_metric: 8}");
    let logs = unit.world.consumer("input").logs.consume(otlp::<LogRecord>("{}")).await;
    assert_eq!(logs.unwrap_err().to_string(), "telemetry type is not supported");
}

#[tokio::test]
async fn a_batch_that_was_refused_is_taken_whole_when_it_is_sent_again() {
    let sink = Sink::default();
    let unit = start(host("otelcol.exporter.prometheus.a"), "include_target_info = false", &sink).await.unwrap();
    let to = unit.world.consumer("input").metrics;
    let points = || {
        let metrics: Vec<String> = (1..4).map(|time_ms| gauge("g", 0..2, time_ms)).collect();
        otlp(&format!(r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{}]}}]}}]}}"#, metrics.join(",")))
    };
    *sink.refusal.lock() = Some(ConsumeError::Retry { after: None, reason: "full".to_owned() });
    for _ in 0..3 {
        assert!(to.consume(points()).await.is_err());
    }
    *sink.refusal.lock() = None;
    to.consume(points()).await.unwrap();
    assert_eq!(sink.items(), [6]);
    // What was taken is not taken again, but for the last points, which are not older.
    to.consume(points()).await.unwrap();
    assert_eq!(sink.items(), [6, 2]);
    let want = "taken 12, dropped {out of order: 4}, merged {prometheus_metric: 8}";
    assert_eq!(unit.world.balance_of(Kind::OtelMetric), want);
    assert_eq!(unit.world.balance_of(Kind::PrometheusMetric), "out 8, created {otel_metric: 8}");
}

#[tokio::test]
async fn points_of_which_no_sample_comes_are_dropped_and_their_reasons_counted() {
    let sink = Sink::default();
    let body = "include_target_info = false\nconvert_classic_histograms_to_nhcb = true";
    let world = World::with("otelcol.exporter.prometheus.a", |services| {
        services.stability = corten_config::schema::Stability::Experimental;
    });
    let unit = start(world, body, &sink).await.unwrap();
    let quantiles = vec!["{}"; 10_001].join(",");
    let metrics = [
        r#"{"name":"delta","sum":{"aggregationTemporality":1,"dataPoints":[{"asInt":"1"},{"asInt":"2"}]}}"#.to_owned(),
        r#"{"name":"delta","histogram":{"aggregationTemporality":1,"dataPoints":[{}]}}"#.to_owned(),
        format!(r#"{{"name":"wide","summary":{{"dataPoints":[{{"quantileValues":[{quantiles}]}}]}}}}"#),
        r#"{"name":"order","gauge":{"dataPoints":[{"asInt":"1","timeUnixNano":"9"},{"asInt":"2","timeUnixNano":"8"}]}}"#.to_owned(),
        r#"{"name":"bad","exponentialHistogram":{"aggregationTemporality":2,"dataPoints":[{"scale":-100}]}}"#.to_owned(),
        r#"{"name":"nothing"}"#.to_owned(),
    ];
    let batch: Batch<Metric> =
        otlp(&format!(r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{}]}}]}}]}}"#, metrics.join(",")));
    unit.world.consumer("input").metrics.consume(batch).await.unwrap();
    assert_eq!(
        unit.world.balance_of(Kind::OtelMetric),
        "taken 7, dropped {invalid histogram: 1, not cumulative: 3, out of order: 1, too many buckets: 1}, \
         merged {prometheus_metric: 1}"
    );
    assert_eq!(unit.world.balance_of(Kind::PrometheusMetric), "out 1, created {otel_metric: 1}");
}

#[tokio::test]
async fn a_batch_that_nobody_waited_for_is_taken_whole_when_it_is_sent_again() {
    let sink = Sink::default();
    let unit = start(host("otelcol.exporter.prometheus.a"), "include_target_info = false", &sink).await.unwrap();
    let to = unit.world.consumer("input").metrics;
    let points = || {
        let metrics: Vec<String> = (1..4).map(|time_ms| gauge("g", 0..2, time_ms)).collect();
        otlp(&format!(r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{}]}}]}}]}}"#, metrics.join(",")))
    };
    sink.blocks.store(true, Ordering::Relaxed);
    assert!(tokio::time::timeout(Duration::from_millis(20), to.consume(points())).await.is_err());
    sink.blocks.store(false, Ordering::Relaxed);
    to.consume(points()).await.unwrap();
    assert_eq!(sink.items(), [6]);
    assert_eq!(unit.world.balance_of(Kind::OtelMetric), "taken 6, merged {prometheus_metric: 6}");
    assert_eq!(unit.world.balance_of(Kind::PrometheusMetric), "out 6, created {otel_metric: 6}");
}

#[tokio::test]
async fn what_is_known_of_a_family_is_said_again_when_a_batch_was_refused() {
    let sink = Sink::default();
    let unit = start(host("otelcol.exporter.prometheus.a"), "honor_metadata = true", &sink).await.unwrap();
    let to = unit.world.consumer("input").metrics;
    *sink.refusal.lock() = Some(ConsumeError::Retry { after: None, reason: "full".to_owned() });
    assert!(to.consume(of_series(0..1, 1)).await.is_err());
    *sink.refusal.lock() = None;
    for time_ms in 1..3 {
        to.consume(of_series(0..1, time_ms)).await.unwrap();
    }
    let families = |batch: &Arc<MetricsBatch>| batch.parts.iter().map(|part| part.metadata.len()).sum::<usize>();
    assert_eq!(sink.taken.lock().iter().map(families).collect::<Vec<_>>(), [2, 0]);
}

#[tokio::test(start_paused = true)]
async fn series_are_forgotten_as_often_as_asked_for() {
    let sink = Sink::default();
    let unit = start(host("otelcol.exporter.prometheus.a"), "gc_frequency = \"10s\"", &sink).await.unwrap();
    unit.world.consumer("input").metrics.consume(of_series(0..3, 1)).await.unwrap();
    let series = || unit.world.metric("corten_exporter_prometheus_series");
    tokio::time::sleep(Duration::from_secs(4 * 60)).await;
    assert_eq!(series(), Some(4.0));
    tokio::time::sleep(Duration::from_secs(70)).await;
    until("they are forgotten", || series() == Some(0.0)).await;
}

#[tokio::test]
async fn other_receivers_do_not_make_series_anew() {
    let (sink, other) = (Sink::default(), Sink::default());
    let names = [("sink", sink.value().1), ("other", other.value().1)];
    let mut unit = Unit::start_with(host("otelcol.exporter.prometheus.a"), &EXPORTER, "forward_to = [sink]", &names)
        .await
        .unwrap();
    let to = unit.world.consumer("input").metrics;
    to.consume(of_series(0..3, 5)).await.unwrap();
    unit.update("forward_to = [sink, other]").await.unwrap();
    to.consume(of_series(0..3, 4)).await.unwrap();
    // The points are older than those before; what is left is what is said of the target.
    assert_eq!((sink.items(), other.items()), (vec![4, 1], vec![1]));
    unit.update("forward_to = [other]\nadd_metric_suffixes = false").await.unwrap();
    to.consume(of_series(0..3, 4)).await.unwrap();
    assert_eq!((sink.items(), other.items()), (vec![4, 1], vec![1, 4]));
    unit.drain().await;
    assert!(to.consume(of_series(0..3, 4)).await.is_err());
}

#[tokio::test]
async fn what_cannot_work_is_refused() {
    let sink = Sink::default();
    let refused = |body: &'static str, world: World| {
        let sink = sink.clone();
        async move { start(world, body, &sink).await.err().unwrap_or_default() }
    };
    let world = || host("otelcol.exporter.prometheus.a");
    let stable =
        || World::with("otelcol.exporter.prometheus.a", |services| services.stability = Stability::PublicPreview);
    let error = refused("gc_frequency = \"0s\"", world()).await;
    assert!(error.contains("gc_frequency must be greater than 0"), "{error}");
    for name in ["convert_classic_histograms_to_nhcb", "start_timestamp_zero_ingestion"] {
        let sink = sink.clone();
        let error = start(stable(), &format!("{name} = true"), &sink).await.unwrap_err();
        let want = format!("{name} is experimental and requires setting the stability.level flag to experimental");
        assert!(error.contains(&want), "{error}");
    }
    let error = refused("debug_metrics {\n}", world()).await;
    assert!(error.contains("debug_metrics"), "{error}");
}
