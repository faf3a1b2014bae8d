//! OpenTelemetry's own libraries, as applications have them, and the first pipelines.

mod pipelines;

use std::collections::BTreeSet;
use std::io::{BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::Corten;
use crate::torture::net::{Server, read_request};

/// How long anything may take that is waited for.
const WAIT_MAX: Duration = Duration::from_secs(30);

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

    /// What is recorded in the requests so far, with its resource: `Spans`, `Metrics` or `LogRecords`.
    pub(crate) fn recorded(&self, what: &str) -> Vec<(Value, Value)> {
        let of = ["resourceSpans", "resourceMetrics", "resourceLogs"];
        let scopes = ["scopeSpans", "scopeMetrics", "scopeLogs"];
        let requests = self.requests.lock().expect("requests");
        let resources = requests.iter().flat_map(|request| of.iter().flat_map(|key| list(&request[*key])));
        let scoped = resources.flat_map(|resource| {
            let scopes = scopes.iter().flat_map(|key| list(&resource[*key]));
            scopes.map(move |scope| (&resource["resource"], scope))
        });
        let all = scoped.flat_map(|(resource, scope)| list(&scope[what]).iter().map(move |item| (resource, item)));
        all.map(|(resource, item)| (resource.clone(), item.clone())).collect()
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

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The value of an attribute, as it stands in the JSON.
pub(crate) fn attribute<'v>(of: &'v Value, key: &str) -> &'v Value {
    list(&of["attributes"]).iter().find(|pair| pair["key"] == key).map_or(&Value::Null, |pair| &pair["value"])
}

/// A library of another language; none if it cannot be had.
fn library(name: &str) -> Option<String> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the build directory").join("peers");
    match xtask::peers::named(name).expect("a peer").find(&dir) {
        Ok(_) => Some(dir.join(name).display().to_string()),
        Err(error) => not_run(&error),
    }
}

fn not_run<T>(error: &str) -> Option<T> {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{error}");
    // Past the test runner, which keeps what tests print that pass.
    let _ = writeln!(std::io::stderr(), "{error}");
    None
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

    let spans = backend.await_recorded("spans", 1000);
    assert_eq!(spans.len(), 1000);
    let instance = format!("{language}-{protocol}");
    assert!(spans.iter().all(|(resource, _)| attribute(resource, "service.instance.id")["stringValue"] == *instance));
    let named = |name: &'static str| spans.iter().map(|(_, span)| span).filter(move |span| span["name"] == name);
    let numbers: BTreeSet<i64> = named("order").map(|span| int(&attribute(span, "number")["intValue"])).collect();
    assert_eq!(numbers, (0..500).collect());
    assert!(named("order").all(|span| span["kind"] == 2 && span["parentSpanId"].is_null()));
    let orders: BTreeSet<&str> = named("order").map(|span| span["spanId"].as_str().expect("an id")).collect();
    let pays: Vec<&Value> = named("pay").collect();
    assert_eq!(pays.len(), 500);
    assert!(pays.iter().all(|span| orders.contains(span["parentSpanId"].as_str().expect("an id"))));
    let amounts = &attribute(pays[0], "amounts")["arrayValue"]["values"];
    assert_eq!((&amounts[0]["doubleValue"], &amounts[1]["doubleValue"]), (&1.5.into(), &2.5.into()));
    assert_eq!(attribute(pays[0], "ok")["boolValue"], true);
    assert!(pays.iter().all(|span| attribute(&span["events"][0], "currency")["stringValue"] == "€"));
    let failed: Vec<&&Value> = pays.iter().filter(|span| span["status"]["code"] == 2).collect();
    assert_eq!(failed.len(), 5);
    assert!(failed.iter().all(|span| span["status"]["message"] == "no funds"));

    let logs = backend.await_recorded("logRecords", 500);
    assert_eq!(logs.len(), 500);
    let bodies: BTreeSet<&str> =
        logs.iter().map(|(_, log)| log["body"]["stringValue"].as_str().expect("a text")).collect();
    assert_eq!(bodies, (0..500).map(|n| format!("order {n}")).collect::<Vec<_>>().iter().map(String::as_str).collect());
    let pay_ids: BTreeSet<&str> = pays.iter().map(|span| span["spanId"].as_str().expect("an id")).collect();
    assert!(
        logs.iter().all(|(_, log)| {
            log["severityNumber"] == 13 && pay_ids.contains(log["spanId"].as_str().expect("an id"))
        })
    );

    let metrics = backend.await_recorded("metrics", 2);
    let metric = |name: &str| {
        let found = metrics.iter().map(|(_, metric)| metric).find(|metric| metric["name"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {metrics:?}"))
    };
    let orders = metric("orders");
    assert_eq!((&orders["description"], &orders["unit"]), (&"Orders that were taken".into(), &"1".into()));
    assert_eq!((&orders["sum"]["isMonotonic"], &orders["sum"]["aggregationTemporality"]), (&true.into(), &2.into()));
    let points = list(&orders["sum"]["dataPoints"]);
    assert_eq!(points.len(), 2);
    assert!(
        points.iter().all(|point| point["asInt"] == "100" || point["asDouble"].as_f64() == Some(100.0)),
        "{points:?}"
    );
    let latency = &metric("latency")["histogram"]["dataPoints"][0];
    assert_eq!((&latency["count"], latency["sum"].as_f64()), (&"100".into(), Some(4950.0)));
    let buckets: i64 = list(&latency["bucketCounts"]).iter().map(int).sum();
    assert_eq!((buckets, latency["max"].as_f64()), (100, Some(99.0)));
    corten.end();
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
