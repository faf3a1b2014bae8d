//! OpenTelemetry's own libraries, as applications have them, and the first pipelines.

mod balancing;
mod pipelines;
pub(crate) mod script;
mod sigv4;
mod tracing;
mod whole;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Corten, WAIT_MAX, fetched, not_run};
use crate::torture::net::{Server, read_request};

/// Takes OTLP in JSON over HTTP, whatever comes, and keeps it.
pub(crate) struct Backend {
    server: Server,
    requests: Arc<Mutex<Vec<Value>>>,
}

impl Backend {
    pub(crate) fn start() -> Self {
        let requests: Arc<Mutex<Vec<Value>>> = Arc::default();
        let kept = Arc::clone(&requests);
        let server = Server::start(move |mut stream| {
            let mut reader = BufReader::new(stream.try_clone().expect("a connection"));
            while let Some(body) = read_request(&mut reader) {
                kept.lock().expect("requests").push(serde_json::from_slice(&body).expect("a body in JSON"));
                let answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
                if stream.write_all(answer).is_err() {
                    return;
                }
            }
        });
        Backend { server, requests }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// What is recorded in the requests so far, with its resource: `spans`, `metrics` or `logRecords`.
    pub(crate) fn recorded(&self, what: &str) -> Vec<(Value, Value)> {
        self.recorded_by(what).into_iter().map(|(resource, _, item)| (resource, item)).collect()
    }

    /// As [`Backend::recorded`], with the scope that recorded it.
    fn recorded_by(&self, what: &str) -> Vec<(Value, Value, Value)> {
        assert!(["spans", "metrics", "logRecords"].contains(&what), "nothing is ever recorded as {what:?}");
        let of = ["resourceSpans", "resourceMetrics", "resourceLogs"];
        let scopes = ["scopeSpans", "scopeMetrics", "scopeLogs"];
        let requests = self.requests.lock().expect("requests");
        let resources = requests.iter().flat_map(|request| of.iter().flat_map(|key| list(&request[*key])));
        let scoped = resources.flat_map(|resource| {
            let scopes = scopes.iter().flat_map(|key| list(&resource[*key]));
            scopes.map(move |scope| (&resource["resource"], scope))
        });
        let all =
            scoped.flat_map(|(resource, scope)| list(&scope[what]).iter().map(move |item| (resource, scope, item)));
        all.map(|(resource, scope, item)| (resource.clone(), scope["scope"].clone(), item.clone())).collect()
    }

    /// Waits until so much of that has come, and gives it.
    pub(crate) fn await_recorded(&self, what: &str, count: usize) -> Vec<(Value, Value)> {
        let started = Instant::now();
        loop {
            let recorded = self.recorded(what);
            if recorded.len() >= count {
                return recorded;
            }
            assert!(started.elapsed() < WAIT_MAX, "{} of {count} {what}: {recorded:?}", recorded.len());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A request with JSON, after which the connection ends.
fn request(signal: &str, body: &str) -> String {
    format!(
        "POST /v1/{signal} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The value of an attribute, as it stands in the JSON.
pub(crate) fn attribute<'v>(of: &'v Value, key: &str) -> &'v Value {
    list(&of["attributes"]).iter().find(|pair| pair["key"] == key).map_or(&Value::Null, |pair| &pair["value"])
}

/// A library of another language; none if it cannot be had.
fn library(name: &str) -> Option<String> {
    fetched(name).map(|(_, dir)| dir.join(name).display().to_string())
}

/// The address in the line that says that a receiver listens.
pub(crate) fn listening(corten: &Corten, text: &str) -> String {
    let line = corten.line(text);
    let field = line.split(" addr=").nth(1).unwrap_or_else(|| panic!("no address in {line}"));
    field.split(' ').next().expect("an address").to_owned()
}

/// Takes all signals and sends them on as JSON.
fn config(backend: SocketAddr) -> String {
    let all = |to: &str| format!("output {{\nmetrics = [{to}]\nlogs = [{to}]\ntraces = [{to}]\n}}");
    format!(
        "otelcol.receiver.otlp \"in\" {{\ngrpc {{\nendpoint = \"127.0.0.1:0\"\n}}\nhttp {{\nendpoint = \"127.0.0.1:0\"\n}}\n{}\n}}\n\
         otelcol.processor.batch \"all\" {{\n{}\n}}\n\
         otelcol.exporter.otlphttp \"out\" {{\nclient {{\nendpoint = \"http://{backend}\"\ncompression = \"none\"\n}}\n\
         encoding = \"json\"\n}}\n",
        all("otelcol.processor.batch.all.input"),
        all("otelcol.exporter.otlphttp.out.input")
    )
}

/// Sends with a library and looks at what arrived.
fn delivers(program: &str, script: &str, language: &str, protocol: &str) {
    let Some(packages) = library(&format!("opentelemetry-{language}")) else { return };
    let backend = Backend::start();
    let corten = Corten::start(&config(backend.address()));
    let (grpc, http) = (listening(&corten, "Starting GRPC server"), listening(&corten, "Starting HTTP server"));
    let endpoint = match (protocol, language) {
        ("grpc", "node") => grpc,
        ("grpc", _) => format!("http://{grpc}"),
        _ => format!("http://{http}"),
    };
    let mut command = Command::new(program);
    command.args([script, &packages, protocol, &endpoint]).stdin(Stdio::null());
    let output = match command.env("PYTHONDONTWRITEBYTECODE", "1").output() {
        Ok(output) => output,
        Err(error) => return not_run(&format!("not run: {program}: {error}")).unwrap_or_default(),
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    expect_spans(&backend);
    expect_logs(&backend);
    expect_metrics(&backend, language);
    let instance = format!("{language}-{protocol}");
    for (what, signal) in [("spans", "a span"), ("logRecords", "a log record"), ("metrics", "a metric")] {
        for (resource, scope, _) in backend.recorded_by(what) {
            assert_eq!(attribute(&resource, "service.name")["stringValue"], "shop", "{signal}: {resource}");
            assert_eq!(attribute(&resource, "service.instance.id")["stringValue"], *instance, "{signal}: {resource}");
            assert_eq!(scope["name"], "shop", "{signal}: {scope}");
            // Python's standard logger knows no version.
            let version = if (what, language) == ("logRecords", "python") { Value::Null } else { "1.2.3".into() };
            assert!(scope["version"] == version || (version.is_null() && scope["version"] == ""), "{signal}: {scope}");
        }
    }
    corten.end();
}

/// 500 orders, each with its payment.
fn expect_spans(backend: &Backend) {
    let spans = backend.await_recorded("spans", 1000);
    assert_eq!(spans.len(), 1000);
    let named = |name: &'static str| spans.iter().map(|(_, span)| span).filter(move |span| span["name"] == name);
    let numbers: BTreeSet<i64> = named("order").map(|span| int(&attribute(span, "number")["intValue"])).collect();
    assert_eq!(numbers, (0..500).collect());
    assert!(named("order").all(|span| span["kind"] == 2 && span["parentSpanId"].is_null()));
    let orders: BTreeMap<&str, &Value> = named("order").map(|span| (id(span, "spanId"), span)).collect();
    let pays: Vec<&Value> = named("pay").collect();
    assert_eq!((pays.len(), orders.len()), (500, 500));
    for pay in &pays {
        let order = orders[id(pay, "parentSpanId")];
        assert_eq!((&pay["traceId"], &pay["kind"]), (&order["traceId"], &1.into()), "{pay}");
        let time = |span: &Value, key: &str| int(&span[key]);
        let (begins, ends) = (time(pay, "startTimeUnixNano"), time(pay, "endTimeUnixNano"));
        // Node reads two clocks for the beginning of a span, and counts from there. Whoever is interrupted in between is
        // off by that time.
        let slack = 1_000_000_000;
        assert!(time(order, "startTimeUnixNano") <= begins + slack && begins <= ends, "{pay} in {order}");
        assert!(ends <= time(order, "endTimeUnixNano") + slack, "{pay} in {order}");
        assert!(begins > 1_700_000_000_000_000_000, "{pay}");
        let amounts = &attribute(pay, "amounts")["arrayValue"]["values"];
        assert_eq!((&amounts[0]["doubleValue"], &amounts[1]["doubleValue"]), (&1.5.into(), &2.5.into()));
        assert_eq!((list(amounts).len(), &attribute(pay, "ok")["boolValue"]), (2, &true.into()));
        let [event] = list(&pay["events"]) else { panic!("one event: {pay}") };
        assert_eq!((&event["name"], &attribute(event, "currency")["stringValue"]), (&"charged".into(), &"€".into()));
        assert!((begins - slack..=ends + slack).contains(&time(event, "timeUnixNano")), "{pay}");
        let [link] = list(&pay["links"]) else { panic!("one link: {pay}") };
        assert_eq!((&link["traceId"], &link["spanId"]), (&order["traceId"], &order["spanId"]), "{pay}");
        assert_eq!(attribute(link, "why")["stringValue"], "paid", "{pay}");
    }
    let failed: Vec<&&Value> = pays.iter().filter(|span| span["status"]["code"] == 2).collect();
    assert_eq!(failed.len(), 5);
    for span in failed {
        assert_eq!(span["status"]["message"], "no funds");
        assert_eq!(int(&attribute(orders[id(span, "parentSpanId")], "number")["intValue"]) % 100, 0);
    }
}

/// A line of each payment.
fn expect_logs(backend: &Backend) {
    let logs = backend.await_recorded("logRecords", 500);
    assert_eq!(logs.len(), 500);
    let spans = backend.recorded("spans");
    let trace_of: BTreeMap<&str, &Value> = spans
        .iter()
        .filter(|(_, span)| span["name"] == "pay")
        .map(|(_, span)| (id(span, "spanId"), &span["traceId"]))
        .collect();
    let mut numbers = BTreeSet::new();
    for (_, log) in &logs {
        let number = int(&attribute(log, "n")["intValue"]);
        assert_eq!(log["body"]["stringValue"], *format!("order {number}"), "{log}");
        assert_eq!((&log["severityNumber"], &log["severityText"]), (&13.into(), &"WARN".into()), "{log}");
        assert_eq!(&log["traceId"], trace_of[id(log, "spanId")], "{log}");
        assert_eq!(log["flags"].as_u64().map(|flags| flags & 1), Some(1), "it is of a trace that is kept: {log}");
        assert!(int(&log["timeUnixNano"]) > 1_700_000_000_000_000_000, "{log}");
        assert!(int(&log["observedTimeUnixNano"]) > 1_700_000_000_000_000_000, "{log}");
        numbers.insert(number);
    }
    assert_eq!(numbers, (0..500).collect());
}

/// An instrument of each kind.
fn expect_metrics(backend: &Backend, language: &str) {
    let metrics = backend.await_recorded("metrics", 5);
    // A library may tell of them once more when it ends.
    let names: BTreeSet<&str> = metrics.iter().filter_map(|(_, metric)| metric["name"].as_str()).collect();
    assert_eq!(names, BTreeSet::from(["latency", "load", "open", "orders", "size"]));
    let metric = |name: &str| {
        let found = metrics.iter().map(|(_, metric)| metric).find(|metric| metric["name"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {metrics:?}"))
    };
    // Not every library tells integers from others.
    let number = |point: &Value| point["asInt"].as_str().map_or(point["asDouble"].as_f64(), |text| text.parse().ok());
    let times = |point: &Value| (int(&point["startTimeUnixNano"]), int(&point["timeUnixNano"]));
    let orders = metric("orders");
    assert_eq!((&orders["description"], &orders["unit"]), (&"Orders that were taken".into(), &"1".into()));
    assert_eq!((&orders["sum"]["isMonotonic"], &orders["sum"]["aggregationTemporality"]), (&true.into(), &2.into()));
    let points = list(&orders["sum"]["dataPoints"]);
    let kinds: BTreeSet<&str> =
        points.iter().map(|point| attribute(point, "kind")["stringValue"].as_str().expect("a kind")).collect();
    assert_eq!((points.len(), kinds), (2, BTreeSet::from(["app", "web"])));
    assert!(points.iter().all(|point| number(point) == Some(100.0)), "{points:?}");
    assert!(points.iter().all(|point| (1..=times(point).1).contains(&times(point).0)), "{points:?}");
    let open = &metric("open")["sum"];
    assert!(open["isMonotonic"] != true && open["aggregationTemporality"] == 2, "{open}");
    assert_eq!(number(&open["dataPoints"][0]), Some(-3.0));
    let load = &metric("load")["gauge"]["dataPoints"][0];
    assert_eq!((number(load), int(&attribute(load, "cpu")["intValue"])), (Some(0.25), 1));

    let latency = metric("latency");
    assert_eq!((&latency["unit"], &latency["histogram"]["aggregationTemporality"]), (&"ms".into(), &2.into()));
    let latency = &latency["histogram"]["dataPoints"][0];
    assert_eq!(attribute(latency, "kind")["stringValue"], "web");
    assert_eq!((&latency["count"], latency["sum"].as_f64()), (&"100".into(), Some(4950.0)));
    assert_eq!((latency["min"].as_f64(), latency["max"].as_f64()), (Some(0.0), Some(99.0)));
    let bounds: Vec<f64> = list(&latency["explicitBounds"]).iter().filter_map(Value::as_f64).collect();
    assert_eq!(bounds, [0, 5, 10, 25, 50, 75, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10000].map(f64::from));
    let counts: Vec<i64> = list(&latency["bucketCounts"]).iter().map(int).collect();
    assert_eq!(counts, [1, 5, 5, 15, 25, 25, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    // Node's library has no exemplars.
    if language == "python" {
        let spans = backend.recorded("spans");
        let exemplars = list(&latency["exemplars"]);
        assert!(exemplars.len() >= 7, "one in each bucket: {latency}");
        for exemplar in exemplars {
            assert!(number(exemplar).is_some_and(|value| (0.0..100.0).contains(&value)), "{exemplar}");
            let taken = 1_700_000_000_000_000_000..=times(latency).1;
            assert!(taken.contains(&int(&exemplar["timeUnixNano"])), "{exemplar} in {latency}");
            let of = |key: &str| spans.iter().any(|(_, span)| span["name"] == "pay" && span[key] == exemplar[key]);
            assert!(of("spanId") && of("traceId"), "{exemplar}");
        }
    }

    let size = &metric("size")["exponentialHistogram"];
    assert_eq!(size["aggregationTemporality"], 2);
    let size = &size["dataPoints"][0];
    assert_eq!((&size["count"], size["sum"].as_f64()), (&"100".into(), Some(5050.0)));
    assert_eq!((size["min"].as_f64(), size["max"].as_f64()), (Some(1.0), Some(100.0)));
    let scale = size["scale"].as_i64().unwrap_or_default() as i32;
    let offset = size["positive"]["offset"].as_i64().unwrap_or_default();
    let counts: Vec<i64> = list(&size["positive"]["bucketCounts"]).iter().map(int).collect();
    // A bucket ends with its upper bound.
    let place = |value: f64| (value.log2() * 2_f64.powi(scale)).ceil() as i64 - 1 - offset;
    let mut expected = vec![0; counts.len()];
    (1..=100).for_each(|value| expected[usize::try_from(place(f64::from(value))).expect("a place")] += 1);
    assert_eq!(counts, expected, "scale {scale}, offset {offset}");
}

/// The id of a span, in hexadecimal digits.
fn id<'v>(of: &'v Value, key: &str) -> &'v str {
    of[key].as_str().unwrap_or_else(|| panic!("no {key} in {of}"))
}

/// A number of 64 bits, which is a text in JSON.
fn int(value: &Value) -> i64 {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("a number, not {value}"))
}

fn python(protocol: &str) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/otlp/sdk.py");
    delivers("python3", script, "python", protocol);
}

fn node(protocol: &str) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/otlp/sdk.js");
    delivers("node", script, "node", protocol);
}

#[test]
fn an_application_in_python_delivers_all_signals_over_grpc() {
    python("grpc");
}

#[test]
fn an_application_in_python_delivers_all_signals_over_http() {
    python("http");
}

#[test]
fn an_application_in_node_delivers_all_signals_over_grpc() {
    node("grpc");
}

#[test]
fn an_application_in_node_delivers_all_signals_over_http() {
    node("http");
}
