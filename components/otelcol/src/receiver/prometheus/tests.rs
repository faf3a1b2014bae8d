use std::collections::{BTreeMap, HashMap};

use corten_component::Definition;
use corten_otlp::{Data, Metric};
use corten_signal::metrics::{
    Exemplar, Histogram, HistogramCounts, HistogramSample, Metadata, MetricType, Origin, ResetHint, STALE_NAN,
    ScrapedTarget, Span,
};
use corten_signal::target::Target;
use corten_signal::{BlockBuilder, LabelsBuilder, Sample, SeriesPart};
use corten_testkit::{OtlpSink, Unit, host};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::transaction::Lost;
use super::*;

/// What the reference's receiver made of these series.
const RECORDED: &str = include_str!("../../../tests/data/receiver_prometheus.jsonl");

fn number(text: &Json) -> f64 {
    match text.as_str().unwrap() {
        "stale" => STALE_NAN,
        text => text.parse().unwrap(),
    }
}

fn metric_type(name: &str) -> MetricType {
    match name {
        "counter" => MetricType::Counter,
        "gauge" => MetricType::Gauge,
        "histogram" => MetricType::Histogram,
        "gaugehistogram" => MetricType::GaugeHistogram,
        "summary" => MetricType::Summary,
        "info" => MetricType::Info,
        "stateset" => MetricType::StateSet,
        _ => MetricType::Unknown,
    }
}

fn histogram(json: &Json) -> Histogram {
    let list = |name: &str| json.get(name).and_then(Json::as_array).cloned().unwrap_or_default();
    let spans = |name: &str| {
        let spans = list(name).into_iter();
        spans.map(|s| Span { offset: s[0].as_i64().unwrap() as i32, length: s[1].as_u64().unwrap() as u32 }).collect()
    };
    let ints = |name: &str| list(name).iter().map(|value| value.as_i64().unwrap()).collect();
    let floats = |name: &str| list(name).iter().map(|value| value.as_f64().unwrap()).collect();
    let long = |name: &str| json.get(name).map_or(0, |value| value.as_u64().unwrap());
    let double = |name: &str| json.get(name).map_or(0.0, |value| value.as_f64().unwrap());
    let counts = if json.get("float").is_some() {
        HistogramCounts::Float {
            count: double("countf"),
            zero_count: double("zcf"),
            positive_counts: floats("pc"),
            negative_counts: floats("nc"),
        }
    } else {
        HistogramCounts::Int {
            count: long("count"),
            zero_count: long("zc"),
            positive_deltas: ints("pd"),
            negative_deltas: ints("nd"),
        }
    };
    Histogram {
        schema: json["schema"].as_i64().unwrap() as i32,
        zero_threshold: double("zt"),
        sum: number(&json["sum"]),
        reset_hint: if json["hint"] == 3 { ResetHint::Gauge } else { ResetHint::Unknown },
        positive_spans: spans("ps"),
        negative_spans: spans("ns"),
        counts,
        custom_values: floats("custom"),
    }
}

/// A batch of the items of a case. Each item has a series of its own in the block, unless one before has it.
fn batch(case: &Json) -> MetricsBatch {
    let (mut block, mut labels) = (BlockBuilder::new(), LabelsBuilder::new());
    let mut indexes: HashMap<String, u32> = HashMap::new();
    let mut part = SeriesPart::of_samples(BlockBuilder::new().finish(true), 0, Vec::new());
    let mut base = None;
    let mut parts = Vec::new();
    for item in case["items"].as_array().unwrap() {
        labels.clear();
        for pair in item["l"].as_array().unwrap() {
            labels.push(pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
        }
        let index = *indexes.entry(item["l"].to_string()).or_insert_with(|| block.push(&mut labels).unwrap());
        let timestamp_ms = item["t"].as_i64().unwrap_or_default();
        if let Some(native) = item.get("h") {
            part.histograms.push(HistogramSample { index, timestamp_ms, histogram: Arc::new(histogram(native)) });
        } else if let Some(exemplar) = item.get("e") {
            let labels = exemplar["l"].as_array().unwrap().iter();
            let text = |json: &Json| json.as_str().unwrap().into();
            let mut labels: Vec<(Box<str>, Box<str>)> = labels.map(|pair| (text(&pair[0]), text(&pair[1]))).collect();
            labels.sort();
            let timestamp_ms = exemplar["t"].as_i64().unwrap();
            part.exemplars.push(Exemplar { index, timestamp_ms, value: number(&exemplar["v"]), labels });
        } else {
            let base_ms = *base.get_or_insert(timestamp_ms);
            let value = number(&item["v"]);
            match i32::try_from(timestamp_ms - base_ms) {
                Ok(offset_ms) => part.samples.push(Sample { value, index, offset_ms }),
                Err(_) => parts.push((timestamp_ms, Sample { value, index, offset_ms: 0 })),
            }
        }
    }
    let block = block.finish(true);
    part.block = Arc::clone(&block);
    part.base_ms = base.unwrap_or_default();
    let far = parts.into_iter().map(|(time, sample)| SeriesPart::of_samples(Arc::clone(&block), time, vec![sample]));
    let mut batch = MetricsBatch::of(far.chain([part]).collect());
    if case["origin"].as_bool().unwrap() {
        let text = |json: &Json| json.as_str().unwrap_or_default().to_owned();
        let found = case["discovered"].as_object().unwrap();
        let found = Target::new(found.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap()))).unwrap();
        let families = case["metadata"].as_array().unwrap().iter().map(|known| {
            let metadata = Metadata {
                family: text(&known[0]),
                metric_type: metric_type(known[1].as_str().unwrap()),
                help: text(&known[2]),
                unit: text(&known[3]),
            };
            (metadata.family.clone().into(), Arc::new(metadata))
        });
        batch.origin = Some(Origin {
            target: Arc::new(ScrapedTarget {
                scheme: found.get("__scheme__").unwrap_or("http").to_owned(),
                discovered: found,
                job: text(&case["target"]["job"]),
                instance: text(&case["target"]["instance"]),
            }),
            families: Arc::new(families.collect()),
        });
    }
    batch
}

/// Brings what stands in no order into one, and numbers into one form.
fn ordered(json: &Json) -> Json {
    let text = |json: &Json, path: &str| json.pointer(path).and_then(Json::as_str).unwrap_or_default().to_owned();
    match json {
        Json::Number(number) => json!(number.as_f64().unwrap() + 0.0),
        Json::Array(list) => Json::Array(list.iter().map(ordered).collect()),
        Json::Object(object) => {
            let mut object: BTreeMap<String, Json> =
                object.iter().map(|(name, value)| (name.clone(), ordered(value))).collect();
            for (name, value) in &mut object {
                let Json::Array(list) = value else { continue };
                match name.as_str() {
                    "resourceMetrics" => list.sort_by_key(|of| of["resource"].to_string()),
                    "scopeMetrics" => list.sort_by_key(|of| of["scope"].to_string() + &text(of, "/schemaUrl")),
                    "metrics" => list.sort_by_key(|metric| (text(metric, "/name"), metric.get("histogram").is_some())),
                    "attributes" => list.sort_by_key(|pair| text(pair, "/key")),
                    "dataPoints" => list.sort_by_key(|point| point["attributes"].to_string()),
                    _ => {}
                }
            }
            json!(object)
        }
        other => other.clone(),
    }
}

fn shown(data: Data<Metric>) -> Json {
    if data.resources.is_empty() {
        return Json::Null;
    }
    ordered(&serde_json::from_slice(&Batch::of(data, Arc::default()).to_json()).unwrap())
}

#[test]
fn series_become_what_the_reference_makes_of_them() {
    let mut differences = Vec::new();
    for line in RECORDED.lines() {
        let case: Json = serde_json::from_str(line).unwrap();
        let want = &case["want"];
        let error = want["errs"][0].as_str().filter(|error| *error != "commit: there's no data to build");
        match (convert(&batch(&case), "VERSION"), error) {
            (Err(got), Some(want)) if got == want => {}
            (Ok(converted), None) => {
                let (got, want) = (shown(converted.data), ordered(&want["out"][0]));
                if got != want {
                    differences.push(format!("{}:\n   got {got}\n  want {want}", case["name"]));
                }
            }
            (got, want) => {
                differences.push(format!("{}: got {:?} want {want:?}", case["name"], got.map(|got| shown(got.data))));
            }
        }
    }
    assert!(differences.is_empty(), "{} differences\n{}", differences.len(), differences.join("\n"));
}

fn case(items: Json) -> Json {
    json!({
        "origin": true,
        "target": {"job": "j", "instance": "h:80"},
        "discovered": {},
        "metadata": [["c_total", "counter", "", ""], ["h", "histogram", "", ""], ["n", "histogram", "", ""]],
        "items": items,
    })
}

#[test]
fn a_sample_of_zero_before_another_says_when_a_series_began() {
    let sample = |name: &str, t: i64, v: &str| json!({"l": [["__name__", name]], "t": t, "v": v});
    let bucket = |t: i64, v: &str| json!({"l": [["__name__", "h_bucket"], ["le", "1"]], "t": t, "v": v});
    let native = |t: i64, count: u64| json!({"l": [["__name__", "n"]], "t": t, "h": {"schema": 0, "sum": "1", "count": count, "hint": 0}});
    let items = json!([
        sample("c_total", 1_500, "0"),
        sample("c_total", 9_000, "5"),
        sample("h_sum", 1_500, "0"),
        sample("h_sum", 9_000, "5"),
        sample("h_count", 1_500, "0"),
        sample("h_count", 9_000, "6"),
        bucket(1_500, "0"),
        bucket(9_000, "4"),
        native(1_500, 0),
        native(9_000, 7),
    ]);
    let converted = convert(&batch(&case(items)), "VERSION").unwrap();
    assert_eq!(converted.warnings, []);
    let shown = shown(converted.data);
    let metrics = shown.pointer("/resourceMetrics/0/scopeMetrics/0/metrics").unwrap().as_array().unwrap();
    for (metric, kind) in metrics.iter().zip(["sum", "histogram", "exponentialHistogram"]) {
        let points = metric[kind]["dataPoints"].as_array().unwrap();
        assert_eq!(points.len(), 1, "{metric}");
        let times = (points[0]["startTimeUnixNano"].as_str(), points[0]["timeUnixNano"].as_str());
        assert_eq!(times, (Some("1500000000"), Some("9000000000")), "{metric}");
    }
    assert_eq!(metrics.len(), 3);
    assert_eq!(metrics[1]["histogram"]["dataPoints"][0]["bucketCounts"], json!(["4", "2"]));
}

#[test]
fn what_cannot_be_converted_is_told_of() {
    let items = json!([
        {"l": [["__name__", "h_bucket"]], "t": 1, "v": "1"},
        {"l": [["__name__", "up"]], "t": 1, "v": "0"},
        {"l": [["__name__", "g"]], "t": 1, "v": "1"},
        {"l": [["__name__", "g"]], "t": 2, "v": "1"},
    ]);
    let warning =
        |what, error: &str, labels: &str| Warning { what, error: error.to_owned(), labels: labels.to_owned() };
    let converted = convert(&batch(&case(items)), "VERSION").unwrap();
    assert_eq!((converted.samples, converted.lost), (2, Lost { malformed: 2, ..Lost::default() }));
    assert_eq!(
        converted.warnings,
        [
            warning(
                "failed to add datapoint",
                "'le' label on histogram metric is missing or empty",
                r#"{__name__="h_bucket"}"#
            ),
            warning("Failed to scrape Prometheus endpoint", "", r#"{__name__="up"}"#),
            warning(
                "failed to add datapoint",
                "inconsistent timestamps on metric points for metric g",
                r#"{__name__="g"}"#
            ),
        ]
    );
}

#[test]
fn a_series_that_was_pushed_has_a_point_for_each_of_its_times() {
    let native =
        |count: u64| json!({"schema": 0, "sum": "1", "count": count, "hint": 0, "ps": [[0, 1]], "pd": [count]});
    let gauge = json!([["__name__", "g_total"], ["instance", "i"], ["job", "j"]]);
    let histogram = json!([["__name__", "n"], ["instance", "i"], ["job", "j"]]);
    let items = json!([
        {"l": gauge, "t": 1, "v": "1"},
        {"l": gauge, "t": 2, "v": "3"},
        {"l": gauge, "t": 3, "v": "0"},
        {"l": histogram, "t": 1, "h": native(1)},
        {"l": histogram, "t": 2, "h": native(2)},
    ]);
    let mut case = case(items);
    case["origin"] = json!(false);
    let converted = convert(&batch(&case), "VERSION").unwrap();
    assert_eq!(converted.warnings, []);
    let shown = shown(converted.data);
    let points = |metric: usize, kind: &str, value: &str| {
        let metric = &shown["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][metric];
        let points = metric[kind]["dataPoints"].as_array().unwrap().iter();
        points.map(|point| json!([point["timeUnixNano"], point[value]])).collect::<Vec<_>>()
    };
    let want = json!([["1000000", 1.0], ["2000000", 3.0], ["3000000", 0.0]]);
    assert_eq!(json!(points(0, "gauge", "asDouble")), want);
    let want = json!([["1000000", "1"], ["2000000", "2"]]);
    assert_eq!(json!(points(1, "exponentialHistogram", "count")), want);
}

#[test]
fn empty_buckets_between_others_have_a_limit_for_a_batch() {
    let items: Vec<Json> = (0..200)
        .map(|number| {
            json!({"l": [["__name__", "n"], ["number", number.to_string()]], "t": 1, "h": {
                "schema": 0, "sum": "1", "count": 2, "hint": 0, "ps": [[0, 1], [60_000, 1]], "pd": [1, 0],
            }})
        })
        .collect();
    let converted = convert(&batch(&case(json!(items))), "VERSION").unwrap();
    let kept = families::GAPS_MAX / 60_000;
    assert_eq!(converted.data.items(), kept);
    assert_eq!((converted.samples, converted.lost.too_many_buckets), (kept, 200 - kept));
    let error = format!("{} native histograms have too many buckets and are left out", 200 - kept);
    assert_eq!(converted.warnings.iter().map(|warning| &*warning.error).collect::<Vec<_>>(), [error]);
}

#[test]
fn a_native_histogram_with_vast_gaps_is_dropped() {
    let items = json!([{"l": [["__name__", "n"]], "t": 1, "h": {
        "schema": 0, "sum": "1", "count": 2, "hint": 0, "ps": [[0, 1], [2_147_483_647u32, 1]], "pd": [1, 0],
    }}]);
    assert_eq!(shown(convert(&batch(&case(items)), "VERSION").unwrap().data), Json::Null);
}

proptest! {
    #[test]
    fn any_series_can_be_converted(
        items in proptest::collection::vec((0..14usize, 0..4u8, 0..5usize, 0..4i64, 0..9usize), 0..40), origin: bool,
    ) {
        let names = [
            "c_total", "c_created", "h_bucket", "h_sum", "h_count", "h", "n", "g", "up", "target_info", "otel_scope_info", "s",
            "n_count", "_sum",
        ];
        let values = ["0", "1", "stale", "NaN", "-Inf", "1e300", "-5", "2.5", "0"];
        let items: Vec<Json> = items.iter().map(|(name, kind, label, time, value)| {
            let mut labels = vec![json!(["__name__", names[*name]]), json!(["job", "j"]), json!(["instance", "[::1]:8"])];
            let label = [None, Some(["le", "1"]), Some(["le", "x"]), Some(["quantile", "NaN"]), Some(["otel_scope_name", "l"])][*label];
            labels.extend(label.map(|label| json!(label)));
            let (time, value) = (time * 1_000_000_000_000, values[*value]);
            match kind {
                0 => json!({"l": labels, "e": {"l": [["trace_id", value], ["Span_ID", "abc"]], "t": time, "v": value}}),
                1 => json!({"l": labels, "t": time, "h": {
                    "schema": if value == "0" { -53 } else { 3 }, "sum": value, "count": time as u64, "hint": 0,
                    "ps": [[-3, 2], [time % 100, 3], [-1, 900]], "pd": [1, -5, 7], "custom": [1, 2], "ns": [[5, 1]], "nd": [],
                }}),
                _ => json!({"l": labels, "t": time, "v": value}),
            }
        }).collect();
        let mut case = case(json!(items));
        case["origin"] = json!(origin);
        let batch = batch(&case);
        let converted = convert(&batch, "VERSION").unwrap();
        // Each sample is a part of a point or lost.
        let Lost { malformed, too_many_buckets, incomplete, no_series, other_family } = converted.lost;
        let lost = malformed + too_many_buckets + incomplete + no_series + other_family;
        prop_assert_eq!(converted.samples + lost, batch.items());
        for (_, of) in converted.data.scopes() {
            for metric in &of.records {
                prop_assert!(!metric.points.is_empty());
            }
        }
        // What was made can be written and read.
        let made = Batch::of(converted.data, Arc::default());
        let json = made.to_json();
        prop_assert_eq!(Batch::<Metric>::received_json(&json, Arc::default()).unwrap().items(), made.items());
    }
}

#[tokio::test]
async fn series_are_forwarded_and_the_answer_goes_back() {
    let sink = OtlpSink::default();
    let definition = Definition::of::<PrometheusReceiver>();
    let world = host("otelcol.receiver.prometheus.a");
    let body = "output {\n metrics = [sink]\n}\ndebug_metrics {\n disable_high_cardinality_metrics = false\n level = \"basic\"\n}";
    let mut unit = Unit::start_with(world, &definition, body, &[("sink", sink.value())]).await.unwrap();
    let to: Receiver<Metrics> = unit.world.receiver("receiver");
    assert!(to.wants_origin());
    let good = batch(&case(
        json!([{"l": [["__name__", "g"]], "t": 1, "v": "1"}, {"l": [["__name__", "up"]], "t": 1, "v": "0"}]),
    ));
    let good = Arc::new(good);
    to.consume(Arc::clone(&good)).await.unwrap();
    assert_eq!(sink.sizes(), [2]);
    assert!(sink.batches()[0].json.contains(&unit.world.host().services.version));
    assert!(unit.world.logs().contains("Failed to scrape Prometheus endpoint"), "{}", unit.world.logs());
    // What was pushed says itself where it comes from, or is refused.
    let pushed = Arc::new(MetricsBatch::of(good.parts.clone()));
    let refused = ConsumeError::Refused { reason: "job or instance cannot be found from labels".to_owned() };
    assert_eq!(to.consume(pushed).await, Err(refused));
    let refusal = ConsumeError::Retry { after: None, reason: "full".to_owned() };
    sink.answer_with(Some(refusal.clone()));
    assert_eq!(to.consume(Arc::clone(&good)).await, Err(refusal));
    unit.update("output {\n logs = [sink]\n}").await.unwrap();
    to.consume(Arc::clone(&good)).await.unwrap();
    assert_eq!(sink.sizes(), [2]);
    let [samples, points] = [Kind::PrometheusMetric, Kind::OtelMetric].map(|kind| unit.world.balance_of(kind));
    assert_eq!(samples, "taken 4, dropped {no receiver: 2}, merged {otel_metric: 2}");
    assert_eq!(points, "out 2, created {prometheus_metric: 2}");
    let error = unit.update("output { }\ndebug_metrics {\n level = \"much\"\n}").await.unwrap_err();
    assert!(error.contains("unrecognized debug level \"much\""), "{error}");
    unit.drain().await;
    assert!(to.consume(good).await.is_err());
}
