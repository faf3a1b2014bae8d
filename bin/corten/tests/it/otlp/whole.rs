//! Every field of OpenTelemetry's messages, compared by its own library.

use super::listening;
use super::script::Script;
use crate::support::{Corten, exchange};
use crate::torture::until;

/// How messages leave: over gRPC, and over HTTP as protocol buffers and as JSON, as they came and changed.
const WAYS: [&str; 6] = ["plain/grpc", "plain/proto", "plain/json", "changed/grpc", "changed/proto", "changed/json"];

/// The exporter of a way, and its name.
fn exporter(way: &str, to: &Script) -> (String, String) {
    let name = way.replace('/', "_");
    let config = match way.rsplit('/').next() {
        Some("grpc") => format!(
            "otelcol.exporter.otlp \"{name}\" {{\nclient {{\nendpoint = \"{}\"\nheaders = {{way = \"{way}\"}}\ntls {{\n\
             insecure = true\n}}\n}}\n}}\n",
            to.address("grpc")
        ),
        form => format!(
            "otelcol.exporter.otlphttp \"{name}\" {{\nclient {{\nendpoint = \"http://{}/{way}\"\n}}\nencoding = \"{}\"\n}}\n",
            to.address("http"),
            form.unwrap_or_default()
        ),
    };
    let kind = if way.ends_with("grpc") { "otlp" } else { "otlphttp" };
    (config, format!("otelcol.exporter.{kind}.{name}.input"))
}

fn output(to: &str) -> String {
    format!("output {{\nmetrics = [{to}]\nlogs = [{to}]\ntraces = [{to}]\n}}\n")
}

#[test]
fn no_field_is_lost_or_changed_however_a_message_comes_and_leaves() {
    let Some(peer) = Script::start("whole.py", "opentelemetry-python", &[]) else { return };
    let (exporters, names): (Vec<String>, Vec<String>) = WAYS.iter().map(|way| exporter(way, &peer)).unzip();
    let of = |start: &str| {
        let names = names.iter().zip(WAYS).filter(|(_, way)| way.starts_with(start)).map(|(name, _)| name.as_str());
        names.collect::<Vec<_>>().join(", ")
    };
    let statements = [("metric", "datapoint"), ("log", "log"), ("trace", "span")].map(|(signal, record)| {
        let of = |context: &str| {
            format!(
                "{signal}_statements {{\ncontext = \"{context}\"\nstatements = [`set(attributes[\"added\"], \"x\")`]\n}}\n"
            )
        };
        of("resource") + &of(record)
    });
    let corten = Corten::start(&format!(
        "{}otelcol.processor.transform \"all\" {{\n{}{}}}\notelcol.receiver.otlp \"in\" {{\ngrpc {{\n\
         endpoint = \"127.0.0.1:0\"\n}}\nhttp {{\nendpoint = \"127.0.0.1:0\"\n}}\n{}}}\n",
        exporters.concat(),
        statements.concat(),
        output(&of("changed")),
        output(&format!("otelcol.processor.transform.all.input, {}", of("plain"))),
    ));
    let (grpc, http) = (listening(&corten, "Starting GRPC server"), listening(&corten, "Starting HTTP server"));
    let head = format!("GET /send?grpc={grpc}&http={http} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    exchange(peer.address("http"), &head).expect("an answer");
    let sent = peer.await_said("all is sent", |said| !said["sent"].is_null());
    assert_eq!(sent["sent"], true, "{sent}");
    for way in WAYS {
        for signal in ["traces", "metrics", "logs"] {
            // Each came over gRPC, and over HTTP in two forms.
            let came = until(&format!("{signal} come by {way}"), || {
                let all = peer.said();
                let came: Vec<_> =
                    all.into_iter().filter(|said| said["way"] == way && said["signal"] == signal).collect();
                if came.len() >= 3 { Ok(came) } else { Err(format!("{} came", came.len())) }
            });
            assert_eq!(came.len(), 3, "{way}");
            for said in came {
                let diff: Vec<&str> = super::list(&said["diff"]).iter().filter_map(|line| line.as_str()).collect();
                assert!(said["same"] == true, "{signal} by {way}:\n{}", diff.join("\n"));
            }
        }
    }
    corten.end();
}
