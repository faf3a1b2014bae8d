//! The program's own spans, as OpenTelemetry's library for Python decodes them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::listening;
use super::script::Script;
use crate::support::{Corten, Folder, exchange};
use crate::torture::until;

/// The exporter of a name.
fn exporter(collector: &Script, over: &str) -> String {
    match over {
        "grpc" => format!(
            "otelcol.exporter.otlp \"grpc\" {{\nclient {{\nendpoint = \"{}\"\ntls {{\ninsecure = true\n}}\n}}\n}}\n",
            collector.address("grpc")
        ),
        path => format!(
            "otelcol.exporter.otlphttp \"{path}\" {{\nclient {{\nendpoint = \"http://{}/{path}\"\n}}\n}}\n",
            collector.address("http")
        ),
    }
}

fn tracing(arguments: &str, to: &str) -> String {
    format!("tracing {{\n{arguments}\nwrite_to = [{to}]\n}}\n")
}

/// All spans that came so far.
fn spans(collector: &Script) -> Vec<Value> {
    collector.said().into_iter().filter(|line| !line["span"].is_null()).collect()
}

fn named(collector: &Script, name: &str) -> Vec<Value> {
    spans(collector).into_iter().filter(|span| span["span"] == name).collect()
}

/// Asks whether the program is ready, so many times, perhaps as a part of a trace.
fn ask(corten: &Corten, times: usize, traceparent: Option<&str>) {
    let header = traceparent.map_or(String::new(), |value| format!("traceparent: {value}\r\n"));
    for _ in 0..times {
        let request = format!("GET /-/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n");
        let answer = exchange(&corten.address, &request).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

/// Waits until all that the collector said so far is read: what it says of one more request comes last.
fn hear(collector: &Script, mark: &str) {
    let head = format!("GET /{mark} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    exchange(collector.address("http"), &head).expect("an answer");
    collector.await_said(mark, |line| line["page"] == format!("/{mark}"));
}

/// A trace that somebody else began.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

#[test]
fn loads_evaluations_and_requests_are_spans_over_http_and_grpc() {
    let Some(collector) = Script::start("collect.py", "opentelemetry-python", &[]) else { return };
    let watched = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(&watched, "a 1\n").expect("it is written");
    let (file, http) = (watched.path().display(), collector.address("http"));
    let both = "otelcol.exporter.otlphttp.http.input, otelcol.exporter.otlp.grpc.input";
    let config = |interval: &str| {
        let scrape = |name: &str, target: &str, to: &str| {
            format!(
                "prometheus.scrape \"{name}\" {{\ntargets = [{{\"__address__\" = \"{target}\"}}]\nforward_to = [{to}]\n\
                 scrape_interval = \"{interval}\"\nscrape_timeout = \"{interval}\"\n}}\n"
            )
        };
        [
            tracing("sampling_fraction = 1\nsend_traceparent = true", both),
            exporter(&collector, "http"),
            exporter(&collector, "grpc"),
            scrape("page", http, "prometheus.remote_write.page.receiver"),
            scrape("nobody", "127.0.0.1:1", ""),
            format!(
                "prometheus.remote_write \"page\" {{\nendpoint {{\nurl = \"http://{http}/write\"\nqueue_config {{\n\
                 batch_send_deadline = \"100ms\"\n}}\n}}\n}}\n\
                 local.file \"watched\" {{\nfilename = \"{file}\"\npoll_frequency = \"50ms\"\ndetector = \"poll\"\n}}\n\
                 prometheus.exporter.static \"of\" {{\ntext = local.file.watched.content\n}}\n"
            ),
        ]
        .concat()
    };
    let folder = Folder::new(&config("200ms"));
    let corten = Corten::start_in(folder, &["--stability.level=experimental"]);
    ask(&corten, 1, Some(&format!("00-{TRACE}-{PARENT}-01")));
    ask(&corten, 3, Some(&format!("00-{TRACE}-{PARENT}-00")));
    assert_eq!(corten.reload(&config("250ms")).status, 200);
    std::fs::write(&watched, "a 2\n").expect("it is written");
    let at = |span: &Value, key: &str| span[key].as_u64().expect("a time");
    let awaited = |name: &str, over: &str, key: &str, value: Value| {
        collector.await_said(&format!("a span {name} of {value} over {over}"), |line| {
            line["span"] == name && line["over"] == over && line["attributes"][key] == value
        })
    };
    for over in ["/http/v1/traces", "grpc"] {
        // A reload, and the nodes that it evaluates.
        let reload = awaited("GraphEvaluate", over, "alloy.controller_id", json!(""));
        assert_eq!((&reload["parent"], &reload["kind"]), (&json!(""), &json!(1)));
        for node in ["prometheus.scrape.page", "local.file.watched", "tracing", "otelcol.exporter.otlp.grpc"] {
            let span = collector.await_said(&format!("the evaluation of {node}"), |line| {
                line["over"] == over && line["trace"] == reload["trace"] && line["attributes"]["node_id"] == node
            });
            assert_eq!((&span["span"], &span["parent"]), (&json!("EvaluateNode"), &reload["id"]), "{span}");
            assert!(at(&reload, "start") <= at(&span, "start"), "{span}");
            assert!(at(&span, "start") <= at(&span, "end") && at(&span, "end") <= at(&reload, "end"), "{span}");
        }
        // An export that changed.
        let alone = collector.await_said("an evaluation by itself", |line| {
            line["over"] == over
                && line["span"] == "EvaluateNode"
                && line["parent"] == ""
                && line["attributes"]["node_id"] == "prometheus.exporter.static.of"
        });
        assert_eq!(alone["attributes"]["alloy.controller_id"], "");
        // Scrapes, of what is there and of what is not.
        // One may take too long on a busy machine.
        let scrape = collector.await_said("a scrape that succeeds", |line| {
            line["over"] == over
                && line["span"] == "HTTP GET"
                && line["attributes"]["alloy.component_id"] == "prometheus.scrape.page"
                && line["status"] == json!([0, ""])
        });
        assert_eq!(scrape["kind"], 3);
        assert_eq!(scrape["attributes"]["http.response.status_code"], 200);
        assert_eq!(scrape["attributes"]["url.path"], "/metrics");
        let failed = awaited("HTTP GET", over, "alloy.component_id", json!("prometheus.scrape.nobody"));
        assert_eq!((&failed["status"][0], &failed["attributes"]["server.port"]), (&json!(2), &json!(1)));
        assert!(failed["status"][1].as_str().is_some_and(|why| why.contains("refused")), "{failed}");
        // What is served is a part of the trace of who asks, and kept if that is.
        let served = collector.await_said("what was served", |line| line["over"] == over && line["trace"] == TRACE);
        assert_eq!((&served["span"], &served["kind"]), (&json!("GET /-/ready"), &json!(2)));
        assert_eq!((&served["parent"], &served["status"]), (&json!(PARENT), &json!([0, ""])));
        assert_eq!(served["attributes"]["http.response.status_code"], 200);
    }
    for line in spans(&collector) {
        assert_eq!(line["resource"]["service.name"], "alloy", "{line}");
        let version = line["resource"]["service.version"].as_str().expect("a version");
        assert_eq!(line["scope"], json!(["corten", version]), "{line}");
        let ids = ["trace", "id"].map(|key| line[key].as_str().expect("an id").len());
        assert!(ids == [32, 16] && at(&line, "start") > 0 && at(&line, "start") <= at(&line, "end"), "{line}");
    }
    // Targets and endpoints are told of the span that their request is, but for those that get the spans themselves.
    for (path, component) in [("/metrics", "prometheus.scrape.page"), ("/write", "prometheus.remote_write.page")] {
        let request = collector.await_said(path, |line| line["page"] == path && !line["traceparent"].is_null());
        let told: Vec<&str> = request["traceparent"].as_str().expect("a header").split('-').collect();
        let [version, trace, id, flags] = told[..] else { panic!("four parts: {request}") };
        assert_eq!((version, flags), ("00", "01"));
        let span = collector.await_said(&format!("the span that {path} was told of"), |line| {
            line["trace"] == trace && line["id"] == id
        });
        assert_eq!((&span["attributes"]["alloy.component_id"], &span["kind"]), (&json!(component), &json!(3)));
    }
    let untold = |line: &Value| line["page"] != "/http/v1/traces" || line["traceparent"].is_null();
    assert!(collector.said().iter().all(untold));
    // At the end all are handed on.
    ask(&corten, 1, Some(&format!("00-{}-{PARENT}-01", TRACE.replace('0', "1"))));
    corten.end();
    hear(&collector, "end");
    assert_eq!(named(&collector, "GET /-/ready").len(), 4, "two spans, over two ways each");
    // Nothing makes two of one.
    let all: Vec<Value> = spans(&collector);
    let ids: BTreeSet<(String, String)> =
        all.iter().map(|span| (span["over"].to_string(), span["id"].to_string())).collect();
    assert_eq!(ids.len(), all.len());
}

#[test]
fn the_part_of_traces_that_is_asked_for_is_kept() {
    let Some(collector) = Script::start("collect.py", "opentelemetry-python", &[]) else { return };
    let config = |fraction: &str, name: &str| {
        let to = format!("otelcol.exporter.otlphttp.{name}.input");
        tracing(&format!("sampling_fraction = {fraction}"), &to) + &exporter(&collector, name)
    };
    const ASKED: usize = 400;
    for fraction in ["0", "1", "0.5"] {
        let name = format!("of_{}", fraction.replace('.', "_"));
        let corten = Corten::start(&config(fraction, &name));
        ask(&corten, ASKED, None);
        // Who asks has decided.
        ask(&corten, 2, Some(&format!("00-{TRACE}-{PARENT}-01")));
        ask(&corten, 5, Some(&format!("00-{TRACE}-{PARENT}-00")));
        let dropped = until("the metrics are there", || {
            let body = corten.get("/metrics").body;
            let line = body.lines().find(|line| line.starts_with("corten_tracing_dropped_spans_total"));
            line.map(str::to_owned).ok_or(body)
        });
        assert!(dropped.ends_with(" 0"), "{dropped}");
        corten.end();
        hear(&collector, &format!("end-of-{name}"));
        let over = format!("/{name}/v1/traces");
        let asked = named(&collector, "GET /-/ready");
        let (led, own): (Vec<Value>, Vec<Value>) =
            asked.into_iter().filter(|span| span["over"] == over).partition(|span| span["trace"] == TRACE);
        assert_eq!(led.len(), 2, "{fraction}");
        match fraction {
            "0" => assert!(own.is_empty(), "{own:?}"),
            "1" => assert_eq!(own.len(), ASKED),
            // Six standard deviations to each side.
            _ => assert!((140..=260).contains(&own.len()), "{}", own.len()),
        }
        let traces: BTreeSet<&str> = own.iter().filter_map(|span| span["trace"].as_str()).collect();
        assert_eq!(traces.len(), own.len(), "each is a trace of its own");
        // The lower half of an id decides, but for its last bit, as in other languages' libraries.
        let low = |trace: &str| u64::from_str_radix(&trace[16..], 16).expect("an id") >> 1;
        assert!(fraction != "0.5" || traces.iter().all(|trace| low(trace) < 1 << 62), "{traces:?}");
    }
}

#[test]
fn a_reload_sends_spans_elsewhere_and_loses_none() {
    let Some(collector) = Script::start("collect.py", "opentelemetry-python", &[]) else { return };
    let config = |name: &str, fraction: &str| {
        tracing(&format!("sampling_fraction = {fraction}"), &format!("otelcol.exporter.otlphttp.{name}.input"))
            + &exporter(&collector, "first")
            + &exporter(&collector, "second")
    };
    let corten = Corten::start(&config("first", "1"));
    ask(&corten, 5, None);
    assert_eq!(corten.reload(&config("second", "1")).status, 200);
    ask(&corten, 7, None);
    // None are made any more, and those that were are sent.
    let without = exporter(&collector, "first") + &exporter(&collector, "second");
    assert_eq!(corten.reload(&without).status, 200);
    ask(&corten, 11, None);
    assert_eq!(corten.reload(&config("first", "1")).status, 200);
    ask(&corten, 13, None);
    corten.end();
    hear(&collector, "end");
    let asked = named(&collector, "GET /-/ready");
    let to = |name: &str| asked.iter().filter(|span| span["over"] == format!("/{name}/v1/traces")).count();
    assert_eq!((to("first"), to("second")), (18, 7));
}

#[test]
fn a_jaeger_server_decides_by_the_name_of_the_first_span() {
    let Some(collector) = Script::start("collect.py", "opentelemetry-python", &[]) else { return };
    let sampler = format!(
        "sampling_fraction = 0\nsampler {{\njaeger_remote {{\nurl = \"http://{}/sampling\"\nrefresh_interval = \"100ms\"\n\
         max_operations = 1\n}}\n}}",
        collector.address("http")
    );
    let corten =
        Corten::start(&(tracing(&sampler, "otelcol.exporter.otlphttp.http.input") + &exporter(&collector, "http")));
    let asked = || collector.said().iter().filter(|line| line["page"] == "/sampling?service=alloy").count();
    // The second time, the first answer is in place.
    until("it was asked twice", || if asked() >= 2 { Ok(()) } else { Err(format!("{}", asked())) });
    ask(&corten, 20, None);
    for _ in 0..20 {
        assert_eq!(corten.get("/-/healthy").status, 200);
    }
    corten.end();
    hear(&collector, "end");
    let of: BTreeSet<String> = spans(&collector).iter().map(|span| span["span"].to_string()).collect();
    assert_eq!((named(&collector, "GET /-/ready").len(), of.len()), (20, 1), "{of:?}");
}

#[test]
fn spans_that_come_back_to_the_program_make_no_further_ones() {
    let Some(collector) = Script::start("collect.py", "opentelemetry-python", &[]) else { return };
    // From the block to the program's own receiver, and from there to the collector.
    let config = |own: &str| {
        format!(
            "{}otelcol.exporter.otlphttp \"own\" {{\nclient {{\nendpoint = \"http://{own}\"\n}}\n}}\n\
             otelcol.receiver.otlp \"own\" {{\nhttp {{\nendpoint = \"127.0.0.1:0\"\n}}\noutput {{\n\
             traces = [otelcol.exporter.otlp.grpc.input]\n}}\n}}\n{}",
            tracing("sampling_fraction = 1\nsend_traceparent = true", "otelcol.exporter.otlphttp.own.input"),
            exporter(&collector, "grpc"),
        )
    };
    let corten = Corten::start(&config("127.0.0.1:1"));
    let own = listening(&corten, "Starting HTTP server");
    assert_eq!(corten.reload(&config(&own)).status, 200);
    // Two times around: what a batch of spans would make would be in the next one.
    for round in 1..=2 {
        ask(&corten, 1, None);
        until("the span came around", || {
            let came = named(&collector, "GET /-/ready").len();
            if came == round { Ok(()) } else { Err(format!("{came} of {round}")) }
        });
    }
    corten.end();
    hear(&collector, "end");
    let known = ["GraphEvaluate", "EvaluateNode", "GET /-/reload", "GET /-/ready"];
    // Whoever ends the program asks for its balance first, of which there may be a span by then.
    let is_known = |span: &Value| {
        known.iter().any(|name| span["span"] == *name) || span["attributes"]["url.path"] == "/api/v0/corten/balance"
    };
    let others: Vec<Value> = spans(&collector).into_iter().filter(|span| !is_known(span)).collect();
    assert!(others.is_empty(), "{others:#?}");
}
