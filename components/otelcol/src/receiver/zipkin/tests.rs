use std::net::SocketAddr;

use corten_component::Definition;
use corten_net::{Body, Client, ClientConfig, ClientOptions};
use corten_signal::ConsumeError;
use corten_testkit::{OtlpSink, Unit, host, until_some};
use http::Request;
use serde_json::Value;

use super::*;

/// What the reference's translators (v0.158.0) made of spans: `[format, input in base 64, traces or error]`.
const RECORDED: &str = include_str!("recorded.json");

/// Brings into one order what has none: attributes, and the spans of a scope.
fn ordered(value: &mut Value) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                ordered(value);
                let by = match &**key {
                    "attributes" => "key",
                    "spans" => "spanId",
                    _ => continue,
                };
                if let Value::Array(all) = value {
                    all.sort_by_key(|one| (one[by].to_string(), one.to_string()));
                }
            }
        }
        Value::Array(all) => all.iter_mut().for_each(ordered),
        _ => {}
    }
}

fn shown(data: Data<Span>) -> Value {
    let mut value = serde_json::from_slice(&Batch::of(data, Arc::default()).to_json()).unwrap();
    ordered(&mut value);
    value
}

#[test]
fn spans_become_what_the_reference_makes_of_them() {
    use base64::Engine as _;
    let cases: Vec<(String, String, Value)> = serde_json::from_str(RECORDED).unwrap();
    assert!(cases.len() > 30);
    for (format, input, mut want) in cases {
        let body = base64::engine::general_purpose::STANDARD.decode(input).unwrap();
        let (format, parse) = match &*format {
            "zipkin_v1_thrift" => (Format::ThriftV1, false),
            "zipkin_v1_json" => (Format::JsonV1, false),
            "zipkin_v1_json_parse" => (Format::JsonV1, true),
            "zipkin_v2_json" => (Format::Json, false),
            "zipkin_v2_json_parse" => (Format::Json, true),
            _ => (Format::Protobuf, false),
        };
        let text = String::from_utf8_lossy(&body);
        match format.read(&body, parse) {
            Ok(data) => {
                ordered(&mut want);
                assert_eq!(shown(data), want["ok"], "{text}");
            }
            Err(error) => assert!(want["error"].is_string(), "{error}: {text}"),
        }
    }
}

#[test]
fn a_span_without_a_time_has_that_of_its_arrival() {
    let json = br#"[{"traceId":"0000000000000001","id":"0000000000000002"}]"#;
    let made = shown(v1::translate(zipkin::read_json_v1(json).unwrap(), false, Some(77)));
    let span = &made["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    assert_eq!((&span["startTimeUnixNano"], &span["endTimeUnixNano"]), (&"77".into(), &"77".into()));
    assert_eq!(span["attributes"][0]["key"], START_TIME_ABSENT);
}

#[test]
fn texts_that_look_like_numbers_become_such() {
    for (text, want) in [
        ("", Parsed::Text),
        ("-", Parsed::Text),
        ("7", Parsed::Int(7)),
        ("-07", Parsed::Int(-7)),
        ("+7", Parsed::Text),
        ("99999999999999999999", Parsed::Int(i64::MAX)),
        ("-99999999999999999999", Parsed::Int(i64::MIN)),
        ("1.5", Parsed::Double(1.5)),
        ("-1.5", Parsed::Double(-1.5)),
        ("1.", Parsed::Text),
        (".5", Parsed::Text),
        ("1e5", Parsed::Text),
        ("true", Parsed::Bool(true)),
        ("True", Parsed::Text),
    ] {
        assert_eq!(parsed(text), want, "{text}");
    }
}

const DEFINITION: Definition = Definition::of::<ZipkinReceiver>();
const SPAN: &str = r#"[{"traceId":"1","id":"2","name":"a","timestamp":5}]"#;
const SPAN_V1: &str = r#"[{"traceId":"0000000000000001","id":"0000000000000002","name":"a","timestamp":5}]"#;

async fn start(sink: &OtlpSink, body: &str) -> (Unit, SocketAddr) {
    let body = format!("endpoint = \"127.0.0.1:0\"\n{body}\noutput {{\n traces = [sink]\n}}");
    let names = [("sink", sink.value())];
    let unit = Unit::start_with(host("otelcol.receiver.zipkin.a"), &DEFINITION, &body, &names).await.unwrap();
    let look = || {
        let logs = unit.world.logs();
        logs.split("addr=").nth(1)?.split_whitespace().next()?.parse().ok()
    };
    let address = until_some("it listens", look).await;
    (unit, address)
}

async fn send(to: SocketAddr, method: &str, path: &str, kind: &str, body: impl Into<Body>) -> (u16, String, String) {
    let client = Client::new(ClientConfig::default(), ClientOptions::default()).await.unwrap();
    let request = Request::builder().method(method).uri(format!("http://{to}{path}")).header("content-type", kind);
    let response = client.request(request.body(body.into()).unwrap()).await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let kind = headers.get("content-type").map(|kind| kind.to_str().unwrap().to_owned()).unwrap_or_default();
    let (_, body) = response.into_parts();
    (status, kind, String::from_utf8(body.read(1 << 20).await.unwrap().to_vec()).unwrap())
}

#[tokio::test]
async fn every_version_and_encoding_is_taken_on_its_path() {
    let sink = OtlpSink::default();
    let (unit, to) = start(&sink, "").await;
    let proto: &[u8] = b"\x0a\x1c\x0a\x100123456789abcdef\x1a\x0801234567";
    let thrift: &[u8] = b"\x0c\0\0\0\x01\x0a\0\x01\0\0\0\0\0\0\0\x01\x0a\0\x04\0\0\0\0\0\0\0\x02\0";
    let plain = "text/plain; charset=utf-8";
    for (method, path, kind, body, want) in [
        ("POST", "/api/v2/spans", "application/json", SPAN.as_bytes(), (202, "", String::new())),
        ("POST", "/api/v2/spans", "", SPAN.as_bytes(), (202, "", String::new())),
        ("PUT", "/anything", "text/html", SPAN.as_bytes(), (202, "", String::new())),
        ("POST", "/api/v2/spans", "application/x-protobuf", proto, (202, "", String::new())),
        ("POST", "/x/api/v1/spans/y", "application/json", SPAN_V1.as_bytes(), (202, "", String::new())),
        ("POST", "/api/v1/spans", "application/x-thrift", thrift, (202, "", String::new())),
        ("POST", "/api/v2/spans", "", b"[]", (202, "", String::new())),
        ("GET", "/", "", b"", (400, plain, "EOF while parsing a value at line 1 column 0\n".to_owned())),
        (
            "POST",
            "/api/v1/spans",
            "application/json",
            SPAN.as_bytes(),
            (400, plain, "zipkinV1 span traceId: hex traceId span has wrong length (expected 16 or 32)\n".to_owned()),
        ),
        (
            "POST",
            "/api/v2/spans",
            "application/x-protobuf",
            b"\x0a",
            (400, plain, "unexpected end of the message\n".to_owned()),
        ),
    ] {
        let (status, kind, text) = send(to, method, path, kind, body.to_vec()).await;
        assert_eq!((status, &*kind, text), want, "{method} {path}");
    }
    assert_eq!(sink.sizes(), [1; 6]);
    for (error, status, text) in [
        (ConsumeError::Refused { reason: "no".into() }, 400, "\"Bad Request\""),
        (ConsumeError::Retry { after: None, reason: "busy".into() }, 500, "\"Internal Server Error\""),
    ] {
        sink.answer_with(Some(error));
        let got = send(to, "POST", "/api/v2/spans", "", SPAN).await;
        assert_eq!(got, (status, plain.to_owned(), text.to_owned()));
    }
    let labels = |transport| {
        [
            ("receiver", "zipkin/otelcol.receiver.zipkin.a"),
            ("transport", transport),
            ("otel_scope_name", "go.opentelemetry.io/collector/receiver/receiverhelper"),
            ("otel_scope_version", ""),
            ("otel_scope_schema_url", ""),
        ]
    };
    for (name, transport, value) in [
        ("otelcol_receiver_accepted_spans_total", "http_v1_thrift", 1.0),
        ("otelcol_receiver_accepted_spans_total", "http_v2_json", 3.0),
        ("otelcol_receiver_refused_spans_total", "http_v2_json", 2.0),
        ("otelcol_receiver_accepted_spans_total", "http_v2_proto", 1.0),
    ] {
        assert_eq!(unit.world.metrics().get(name, &labels(transport)), Some(value), "{name} {transport}");
    }
    assert_eq!(unit.world.balance_of(corten_signal::Kind::OtelTrace), "received 6, out 6");
}

#[tokio::test]
async fn tags_become_numbers_where_they_are_to() {
    let json = r#"[{"traceId":"1","id":"2","timestamp":5,"tags":{"n":"7"}}]"#;
    for (argument, want) in [("", r#""stringValue":"7""#), ("parse_string_tags = true", r#""intValue":"7""#)] {
        let sink = OtlpSink::default();
        let (_unit, to) = start(&sink, argument).await;
        assert_eq!(send(to, "POST", "/api/v2/spans", "application/json", json).await.0, 202);
        assert!(sink.batches()[0].json.contains(want), "{}", sink.batches()[0].json);
    }
}

#[tokio::test]
async fn headers_go_with_the_spans_where_they_are_to() {
    for (argument, kept) in [("", false), ("include_metadata = true", true)] {
        let sink = OtlpSink::default();
        let (_unit, to) = start(&sink, argument).await;
        assert_eq!(send(to, "POST", "/api/v2/spans", "application/json", SPAN).await.0, 202);
        let metadata = &sink.batches()[0].metadata;
        assert_eq!(metadata.contains(&"content-type=application/json".to_owned()), kept, "{metadata:?}");
    }
}
