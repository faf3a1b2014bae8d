//! What the tests of components have in common that keep something of what they saw.

use std::time::Duration;

use corten_component::{Component, Definition};
use corten_config::encode::Item;
use corten_otlp::{Batch, Metric, Span};
use corten_signal::ConsumeError;
use corten_testkit::{OtlpSink, Unit, World, host, otlp};
use serde_json::Value;

/// A configuration whose metrics go to the sink.
pub(crate) fn with_output(body: &str) -> String {
    format!("{body}\noutput {{\n metrics = [sink]\n}}")
}

/// A component whose metrics go to a sink.
pub(crate) async fn start<C: Component>(sink: &OtlpSink, body: &str) -> Result<Unit, String> {
    start_to::<C>(sink.value(), body).await
}

/// A component whose metrics go there.
pub(crate) async fn start_to<C: Component>(sink: corten_config::Value, body: &str) -> Result<Unit, String> {
    let world = host(&format!("{}.a", C::NAME));
    Unit::start_with(world, &Definition::of::<C>(), &with_output(body), &[("sink", sink)]).await
}

/// What a component tells of its inner state, a line an attribute; those of a block have its name before them.
pub(crate) fn told(world: &World) -> Vec<String> {
    fn lines(within: &str, items: &[Item], into: &mut Vec<String>) {
        for item in items {
            match item {
                Item::Attr { name, value } => into.push(format!("{within}{name} = {value}")),
                Item::Block { name, body, .. } => lines(&format!("{within}{name}."), body, into),
            }
        }
    }
    let mut told = Vec::new();
    lines("", &world.host().debug_info.lock().as_ref().map(|info| info.debug_info()).unwrap_or_default(), &mut told);
    told
}

/// What makes it seem that nobody takes anything for now.
pub(crate) fn busy() -> Option<ConsumeError> {
    Some(ConsumeError::Retry { after: None, reason: "busy".to_owned() })
}

/// A metric with one point, as JSON says it.
pub(crate) fn metric(name: &str, kind: &str, temporality: i32, point: &str) -> Batch<Metric> {
    let monotonic = if kind == "sum" { r#""isMonotonic":true,"# } else { "" };
    otlp(&format!(
        r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"{name}","{kind}":{{{monotonic}
        "aggregationTemporality":{temporality},"dataPoints":[{point}]}}}}]}}]}}]}}"#
    ))
}

/// A point of a sum of this series.
pub(crate) fn sum(temporality: i32, series: u32, value: i64, start_ns: u64, time_ns: u64) -> Batch<Metric> {
    let point = format!(
        r#"{{"asInt":"{value}","startTimeUnixNano":"{start_ns}","timeUnixNano":"{time_ns}",
        "attributes":[{{"key":"k","value":{{"intValue":"{series}"}}}}]}}"#
    );
    metric("m", "sum", temporality, &point)
}

/// Sends metrics to a component.
pub(crate) async fn send(unit: &Unit, metrics: Batch<Metric>) -> Result<(), ConsumeError> {
    unit.world.consumer("input").metrics.consume(metrics).await
}

/// The points of the first metric of what arrived.
pub(crate) fn points(sink: &OtlpSink) -> Vec<Value> {
    let of = |batch: corten_testkit::Arrived| {
        let json: Value = serde_json::from_str(&batch.json).unwrap();
        let metric = json["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0].clone();
        let kinds = ["gauge", "sum", "histogram", "exponentialHistogram", "summary"];
        kinds.iter().find_map(|kind| metric[*kind]["dataPoints"].as_array().cloned()).unwrap()
    };
    sink.batches().into_iter().flat_map(of).collect()
}

/// Start, time and value of the points of sums that arrived.
pub(crate) fn arrived(sink: &OtlpSink) -> Vec<(u64, u64, i64)> {
    let number = |point: &Value, name: &str| point[name].as_str().map_or(0, |text| text.parse().unwrap());
    let of = |point: Value| {
        let value = point["asInt"].as_str().unwrap().parse().unwrap();
        (number(&point, "startTimeUnixNano"), number(&point, "timeUnixNano"), value)
    };
    points(sink).into_iter().map(of).collect()
}

/// How what was sent is compared with what was recorded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compared {
    /// All of it, but for metrics without points.
    Whole,
    /// Without times, and in an order of its own: the reference's is random.
    WithoutTimes,
}

/// Replays what the reference made of some input, recorded from OpenTelemetry's collector v0.158: `tests/data/*.json`. A case
/// has arguments, steps, and what was sent: until the component ended, or until the last step.
pub(crate) async fn replay<C: Component>(cases: &str, compared: Compared) {
    let cases: Vec<Value> = serde_json::from_str(cases).unwrap();
    let mut wrong = Vec::new();
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        let sink = OtlpSink::default();
        let unit = start::<C>(&sink, case["alloy"].as_str().unwrap()).await;
        let mut unit = unit.unwrap_or_else(|error| panic!("{name}: {error}"));
        let to = unit.world.consumer("input");
        for step in case["steps"].as_array().unwrap() {
            if let Some(metrics) = step.get("metrics") {
                to.metrics.consume(otlp::<Metric>(&metrics.to_string())).await.unwrap();
            }
            if let Some(spans) = step.get("traces") {
                to.traces.consume(otlp::<Span>(&spans.to_string())).await.unwrap();
            }
            if let Some(time) = step.get("sleep").and_then(Value::as_str) {
                tokio::time::sleep(duration(time)).await;
            }
            if let Some(time) = step.get("advance").and_then(Value::as_str) {
                // What is due at the same moment comes first.
                tokio::time::sleep(duration(time) + Duration::from_millis(1)).await;
            }
        }
        let recorded = match compared {
            Compared::Whole => {
                unit.drain().await;
                &case["sent"]
            }
            Compared::WithoutTimes => &case["flushes"],
        };
        unit.world.balance();
        let sent = sink.batches().into_iter().map(|batch| serde_json::from_str(&batch.json).unwrap());
        let sent: Vec<Value> = sent.filter_map(|batch| comparable(batch, compared)).collect();
        let wanted = recorded.as_array().unwrap().iter().map(same_form);
        let wanted: Vec<Value> = wanted.filter_map(|batch| comparable(batch, compared)).collect();
        if sent != wanted {
            let show = |batches: &[Value]| batches.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
            wrong.push(format!("{name}\nsent:\n{}\nwanted:\n{}", show(&sent), show(&wanted)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

fn duration(text: &str) -> Duration {
    Duration::from_nanos(corten_config::duration::parse(text).unwrap().unsigned_abs())
}

/// In the form in which we write it.
fn same_form(batch: &Value) -> Value {
    serde_json::from_slice(&otlp::<Metric>(&batch.to_string()).to_json()).unwrap()
}

fn comparable(batch: Value, compared: Compared) -> Option<Value> {
    match compared {
        Compared::Whole => with_points(batch),
        Compared::WithoutTimes => Some(without_times(batch)),
    }
}

/// Without metrics that have no points, and without what has no metrics then; nothing if there are none at all.
fn with_points(mut batch: Value) -> Option<Value> {
    let has_points = |metric: &Value| {
        let kinds = ["gauge", "sum", "histogram", "exponentialHistogram", "summary"];
        kinds.iter().any(|kind| metric[*kind]["dataPoints"].as_array().is_some_and(|points| !points.is_empty()))
    };
    let resources = batch["resourceMetrics"].as_array_mut()?;
    for resource in &mut *resources {
        let Some(scopes) = resource["scopeMetrics"].as_array_mut() else { continue };
        scopes.retain_mut(|scope| match scope["metrics"].as_array_mut() {
            Some(metrics) => {
                metrics.retain(has_points);
                !metrics.is_empty()
            }
            None => false,
        });
    }
    resources.retain(|resource| resource["scopeMetrics"].as_array().is_some_and(|scopes| !scopes.is_empty()));
    (!resources.is_empty()).then_some(batch)
}

/// Without times, resources and points in the order of their texts.
fn without_times(mut value: Value) -> Value {
    match &mut value {
        Value::Object(object) => {
            object.retain(|key, value| !key.ends_with("imeUnixNano") && !value.is_null());
            for (key, value) in object.iter_mut() {
                *value = without_times(value.take());
                if ["resourceMetrics", "dataPoints"].contains(&&**key)
                    && let Value::Array(array) = value
                {
                    array.sort_by_key(Value::to_string);
                }
            }
        }
        Value::Array(array) => array.iter_mut().for_each(|value| *value = without_times(value.take())),
        _ => {}
    }
    value
}
