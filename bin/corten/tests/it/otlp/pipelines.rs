//! The examples of OpenTelemetry, with other addresses.

use std::path::Path;

use serde_json::{Value, json};

use super::{Backend, attribute, listening};
use crate::loki::Loki;
use crate::support::{Corten, Folder, corten, exchange};
use crate::torture::sink::{Mood, Sink};
use crate::torture::until;

/// An example whose receivers take ports that the system chooses, with other changes.
fn example(name: &str, changes: &[(&str, &str)]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
    let mut text = std::fs::read_to_string(path).expect("the example");
    let ports = [
        ("grpc { }", "grpc {\n\t\tendpoint = \"127.0.0.1:0\"\n\t}"),
        ("http { }", "http {\n\t\tendpoint = \"127.0.0.1:0\"\n\t}"),
    ];
    for (from, to) in ports.iter().chain(changes) {
        assert!(text.contains(from), "{name} has no {from}");
        text = text.replace(from, to);
    }
    text
}

/// What sends to a backend in JSON.
fn as_json(backend: &Backend) -> String {
    format!("\"http://{}\"\n\t\tcompression = \"none\"\n\t}}\n\n\tencoding = \"json\"\n", backend.address())
}

/// Sends a request in JSON.
fn send(corten: &Corten, signal: &str, request: &Value) {
    let address = listening(corten, "Starting HTTP server");
    let answer = exchange(&address, &super::request(signal, &request.to_string()));
    let answer = answer.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

fn span(name: &str, more: &Value) -> Value {
    let mut span = json!({
        "traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331", "name": name, "kind": 2,
        "startTimeUnixNano": "1700000000000000000", "endTimeUnixNano": "1700000000250000000",
        "attributes": [text("http.request.method", "GET"), text("http.route", "/cart"),
            {"key": "http.response.status_code", "value": {"intValue": "500"}}],
        "status": {"code": 2},
    });
    for (key, value) in more.as_object().expect("fields") {
        span[key] = value.clone();
    }
    json!({"resourceSpans": [{
        "resource": {"attributes": [text("service.name", "shop")]}, "scopeSpans": [{"spans": [span]}],
    }]})
}

#[test]
fn all_signals_get_their_host_and_go_where_they_belong() {
    let (backend, prometheus) = (Backend::start(), Sink::start(Mood::Works, 1));
    let folder = Folder::new(&example(
        "otlp.alloy",
        &[
            ("http://127.0.0.1:9009/api/v1/push", &format!("http://{}/api/v1/write", prometheus.address)),
            ("\"http://127.0.0.1:4328\"\n\t}\n", &as_json(&backend)),
        ],
    ));
    let arguments = folder.run_arguments(&[]);
    let mut command = corten(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    command.env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=staging,host.name=box");
    let corten = Corten::start_by(command, folder);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_nanos();
    let resource = json!({"attributes": [text("service.name", "shop")]});
    send(
        &corten,
        "metrics",
        &json!({"resourceMetrics": [{"resource": resource, "scopeMetrics": [{"metrics": [{
            "name": "orders", "sum": {"aggregationTemporality": 2, "isMonotonic": true, "dataPoints": [
                {"asInt": "5", "timeUnixNano": now.to_string(), "attributes": [text("kind", "web")]},
            ]},
        }]}]}]}),
    );
    send(
        &corten,
        "logs",
        &json!({"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": [
            {"body": {"stringValue": "paid"}},
        ]}]}]}),
    );
    send(&corten, "traces", &span("GET /cart", &json!({})));

    for (what, name) in [("logRecords", "log"), ("spans", "span")] {
        let (resource, _) = &backend.await_recorded(what, 1)[0];
        assert_eq!(attribute(resource, "host.name")["stringValue"], "box", "{name}: {resource}");
        assert_eq!(attribute(resource, "deployment.environment")["stringValue"], "staging", "{name}");
    }
    let series =
        "__name__=\"orders_total\",deployment_environment=\"staging\",host_name=\"box\",job=\"shop\",kind=\"web\"";
    until("the sample arrives", || {
        let names = prometheus.names();
        if names.iter().any(|name| name.contains(series)) { Ok(()) } else { Err(format!("{names:#?}")) }
    });
    // What counts hosts tells of them at the end, too.
    corten.end();
    let names = prometheus.names();
    let host = "__name__=\"traces_host_info\",grafana_host_id=\"box\"";
    assert!(names.iter().any(|name| name.contains(host)), "{names:#?}");
}

#[test]
fn traces_reach_a_server_whose_certificate_nobody_checks() {
    let backend = Backend::start();
    let cert = rcgen::generate_simple_self_signed(["elsewhere.example.com".to_owned()]).expect("a certificate");
    let tempo = Corten::start(&format!(
        "otelcol.receiver.otlp \"in\" {{\n\tgrpc {{\n\t\tendpoint = \"127.0.0.1:0\"\n\n\t\ttls {{\n\t\t\tcert_pem = {:?}\n\
         \t\t\tkey_pem = {:?}\n\t\t}}\n\t}}\n\n\toutput {{\n\t\ttraces = [otelcol.exporter.otlphttp.out.input]\n\t}}\n}}\n\
         otelcol.exporter.otlphttp \"out\" {{\n\tclient {{\n\t\tendpoint = {}}}\n",
        cert.cert.pem(),
        cert.signing_key.serialize_pem(),
        as_json(&backend),
    ));
    let address = listening(&tempo, "Starting GRPC server");
    let corten = Corten::start(&example("otlp-traces.alloy", &[("127.0.0.1:4327", &address)]));
    send(&corten, "traces", &span("GET /cart", &json!({})));
    let spans = backend.await_recorded("spans", 1);
    assert_eq!(spans[0].1["name"], "GET /cart");
    assert_eq!(attribute(&spans[0].0, "service.name")["stringValue"], "shop");
    corten.end();
    tempo.end();
}

#[test]
fn a_root_span_becomes_a_line_with_labels() {
    let loki = Loki::start();
    let corten = Corten::start(&example("otlp-spanlogs.alloy", &[("127.0.0.1:3100", &loki.address().to_string())]));
    send(&corten, "traces", &span("part", &json!({"parentSpanId": "b7ad6b7169203330"})));
    send(&corten, "traces", &span("GET /cart", &json!({})));
    let entry = loki.entry("GET /cart");
    assert_eq!(
        entry.line,
        "span=\"GET /cart\" dur=250000000ns status=Error http.request.method=GET http.response.status_code=500 svc=shop \
         tid=0af7651916cd43dd8448eb211c80319c"
    );
    assert_eq!(entry.stream, "{exporter=\"OTLP\", service=\"shop\", status=\"Error\"}");
    corten.end();
    assert!(loki.entries().iter().all(|entry| !entry.line.contains("span=part")));
}

#[test]
fn spans_become_rates_errors_and_durations() {
    let (backend, prometheus) = (Backend::start(), Sink::start(Mood::Works, 1));
    let corten = Corten::start(&example(
        "otlp-spanmetrics.alloy",
        &[
            ("http://127.0.0.1:9009/api/v1/push", &format!("http://{}/api/v1/write", prometheus.address)),
            ("\"http://127.0.0.1:4328\"\n\t}\n", &as_json(&backend)),
            ("\"15s\"", "\"100ms\""),
        ],
    ));
    for _ in 0..3 {
        send(&corten, "traces", &span("GET /cart", &json!({})));
    }
    assert_eq!(backend.await_recorded("spans", 3).len(), 3);
    let labels = "http_request_method=\"GET\",http_route=\"/cart\",job=\"shop\"";
    let common = "service_name=\"shop\",span_kind=\"SPAN_KIND_SERVER\",span_name=\"GET /cart\",status_code=\"STATUS_CODE_ERROR\"";
    for (name, between, value) in [
        ("traces_span_metrics_calls_total", "", 3.0),
        ("traces_span_metrics_duration_seconds_count", "", 3.0),
        ("traces_span_metrics_duration_seconds_sum", "", 0.75),
        ("traces_span_metrics_duration_seconds_bucket", "le=\"0.1\",", 0.0),
        ("traces_span_metrics_duration_seconds_bucket", "le=\"0.5\",", 3.0),
    ] {
        let series = format!("__name__=\"{name}\",{labels},{between}{common}");
        until(&format!("{name} arrives"), || match prometheus.of(&series).last() {
            Some((last, _)) if *last == value => Ok(()),
            last => Err(format!("{last:?} of {:#?}", prometheus.names())),
        });
    }
    corten.end();
}

#[test]
fn what_applications_send_is_shown() {
    let folder = Folder::new(&example("otlp-look.alloy", &[]));
    let printed = folder.path().join("printed");
    let arguments = folder.run_arguments(&["--stability.level=experimental"]);
    let command = corten(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let corten = Corten::start_printing(command, folder, &printed);
    // What the README sends.
    let readme = include_str!("../../../../../README.md");
    let request = readme.split("-d '").nth(1).and_then(|rest| rest.split('\'').next()).expect("a request");
    send(&corten, "logs", &serde_json::from_str(request).expect("JSON"));
    send(&corten, "traces", &span("GET /cart", &json!({})));
    until("it is printed", || {
        let text = std::fs::read_to_string(&printed).expect("a text");
        let is_whole = text.contains("Body: Str(it works)\n") && text.contains("     -> http.route: Str(/cart)\n");
        if is_whole { Ok(()) } else { Err(text) }
    });
    corten.end();
}
