//! Replays what the reference made of some metrics: `tests/data/processor_*.json`, recorded from OpenTelemetry's collector v0.158.

use std::time::Duration;

use corten_component::{Component, Definition};
use corten_otlp::Metric;
use corten_testkit::{OtlpSink, Unit, host, otlp};
use serde_json::Value;

/// Runs all cases. A case has arguments, steps, and what was sent until the component ended.
pub(crate) async fn replay<C: Component>(cases: &str) {
    let cases: Value = serde_json::from_str(cases).unwrap();
    let mut wrong = Vec::new();
    for case in cases.as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let sink = OtlpSink::default();
        let body = format!("{}\noutput {{\n metrics = [sink]\n}}", case["alloy"].as_str().unwrap());
        let definition = Definition::of::<C>();
        let world = host(&format!("{}.a", C::NAME));
        let unit = Unit::start_with(world, &definition, &body, &[("sink", sink.value())]).await;
        let mut unit = unit.unwrap_or_else(|error| panic!("{name}: {error}"));
        let to = unit.world.consumer("input").metrics;
        for step in case["steps"].as_array().unwrap() {
            if let Some(metrics) = step.get("metrics") {
                to.consume(otlp::<Metric>(&metrics.to_string())).await.unwrap();
            }
            if let Some(time) = step.get("sleep").and_then(Value::as_str) {
                let time_ns = corten_config::duration::parse(time).unwrap() as u64;
                tokio::time::sleep(Duration::from_nanos(time_ns)).await;
            }
        }
        unit.drain().await;
        let sent: Vec<Value> = sink.batches().iter().map(|batch| serde_json::from_str(&batch.json).unwrap()).collect();
        let sent: Vec<Value> = sent.into_iter().filter_map(with_points).collect();
        let wanted = case["sent"].as_array().unwrap();
        let wanted: Vec<Value> = wanted.iter().map(same_form).filter_map(with_points).collect();
        if sent != wanted {
            let show = |batches: &[Value]| batches.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
            wrong.push(format!("{name}\nsent:\n{}\nwanted:\n{}", show(&sent), show(&wanted)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// In the form in which we write it.
fn same_form(batch: &Value) -> Value {
    serde_json::from_slice(&otlp::<Metric>(&batch.to_string()).to_json()).unwrap()
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
