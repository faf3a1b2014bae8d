//! Replays what the reference made of some input: `tests/data/connector_*.json`, recorded from OpenTelemetry's collector v0.158.

use std::time::Duration;

use corten_component::Component;
use corten_component::Definition;
use corten_otlp::{Metric, Span};
use corten_testkit::{OtlpSink, Unit, host, otlp};
use serde_json::Value;

/// Runs all cases. A case has arguments, steps, and what was sent, without times.
pub(crate) async fn replay<C: Component>(cases: &str) {
    let cases: Value = serde_json::from_str(cases).unwrap();
    let mut wrong = Vec::new();
    for case in cases.as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let sink = OtlpSink::default();
        let body = format!("{}\noutput {{\n metrics = [sink]\n}}", case["alloy"].as_str().unwrap());
        let definition = Definition::of::<C>();
        let unit =
            Unit::start_with(host(&format!("{}.a", C::NAME)), &definition, &body, &[("sink", sink.value())]).await;
        let unit = unit.unwrap_or_else(|error| panic!("{name}: {error}"));
        let traces = unit.world.consumer("input").traces;
        for step in case["steps"].as_array().unwrap() {
            if let Some(spans) = step.get("traces") {
                traces.consume(otlp::<Span>(&spans.to_string())).await.unwrap();
            }
            if let Some(time) = step.get("advance").and_then(Value::as_str) {
                tokio::time::sleep(Duration::from_nanos(corten_config::duration::parse(time).unwrap() as u64)).await;
                // What is due at the same moment comes first.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        let sent: Vec<Value> =
            sink.batches().iter().map(|batch| comparable(serde_json::from_str(&batch.json).unwrap())).collect();
        let wanted: Vec<Value> =
            case["flushes"].as_array().unwrap().iter().map(|flush| comparable(same_form(flush))).collect();
        if sent != wanted {
            let show = |flushes: &[Value]| flushes.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
            wrong.push(format!("{name}\nsent:\n{}\nwanted:\n{}", show(&sent), show(&wanted)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// In the form in which we write it.
fn same_form(flush: &Value) -> Value {
    serde_json::from_slice(&otlp::<Metric>(&flush.to_string()).to_json()).unwrap()
}

/// Without times, and in an order of its own: the reference's is random.
fn comparable(mut value: Value) -> Value {
    match &mut value {
        Value::Object(object) => {
            object.retain(|key, value| !key.ends_with("imeUnixNano") && !value.is_null());
            for (key, value) in object.iter_mut() {
                *value = comparable(value.take());
                if ["resourceMetrics", "dataPoints"].contains(&&**key)
                    && let Value::Array(array) = value
                {
                    array.sort_by_key(Value::to_string);
                }
            }
        }
        Value::Array(array) => array.iter_mut().for_each(|value| *value = comparable(value.take())),
        _ => {}
    }
    value
}
