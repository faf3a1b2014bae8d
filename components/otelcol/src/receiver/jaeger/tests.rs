use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use corten_component::Definition;
use corten_net::grpc::{Call, Status};
use corten_net::{Body, Client, ClientConfig, ClientOptions};
use corten_otlp::{Data, Span};
use corten_signal::ConsumeError;
use corten_testkit::{OtlpSink, Unit, host, stays, until, until_some};
use corten_wire::jaeger::read_emit_batch;
use http::{HeaderMap, Request, Uri};
use serde_json::Value;
use tokio::net::UdpSocket;

use super::*;

/// What the reference's translator (v0.158.0) made of spans: `[format, input in base 64, traces or error]`.
const RECORDED: &str = include_str!("recorded.json");

/// Brings into one order what has none: attributes, and resources.
fn ordered(value: &mut Value) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                ordered(value);
                if let ("attributes" | "resourceSpans", Value::Array(all)) = (&**key, value) {
                    all.sort_by_key(Value::to_string);
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

fn decoded(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

fn cases() -> Vec<(String, Vec<u8>, Value)> {
    let cases: Vec<(String, String, Value)> = serde_json::from_str(RECORDED).unwrap();
    cases.into_iter().map(|(format, input, want)| (format, decoded(&input), want)).collect()
}

#[test]
fn spans_become_what_the_reference_makes_of_them() {
    let cases = cases();
    assert!(cases.len() > 20);
    for (format, input, mut want) in cases {
        let made = match &*format {
            "jaeger_proto" => read_post_spans(&input).map(translate::of_proto).map_err(|error| error.to_string()),
            "jaeger_thrift" => {
                read_batch(&input, Protocol::Binary).map(translate::of_thrift).map_err(|error| error.to_string())
            }
            _ => read_batch(&input, Protocol::Compact).map(translate::of_thrift).map_err(|error| error.to_string()),
        };
        match made {
            Ok(data) => {
                ordered(&mut want);
                let have = shown(data);
                assert_eq!(have, want["ok"], "{format} {}", String::from_utf8_lossy(&input));
            }
            Err(error) => assert!(want["error"].is_string(), "{error}: {format} {want}"),
        }
    }
}

const DEFINITION: Definition = Definition::of::<JaegerReceiver>();
const ANY: &str = "endpoint = \"127.0.0.1:0\"";

/// A batch of one span, in Thrift's protocols and in protocol buffers.
const BINARY: &[u8] = b"\x0c\0\x01\x0b\0\x01\0\0\0\x01s\0\x0f\0\x02\x0c\0\0\0\x01\x0a\0\x01\0\0\0\0\0\0\0\x01\x0a\0\x02\0\0\0\0\0\0\0\0\x0a\0\x03\0\0\0\0\0\0\0\x02\x0a\0\x04\0\0\0\0\0\0\0\0\x0b\0\x05\0\0\0\x01a\x08\0\x07\0\0\0\0\x0a\0\x08\0\0\0\0\0\0\0\x05\x0a\0\x09\0\0\0\0\0\0\0\x01\0\0";
const COMPACT: &[u8] = b"\x1c\x18\x01s\0\x19\x1c\x16\x02\x16\0\x16\x04\x16\0\x18\x01a\x25\0\x16\x0a\x16\x02\0\0";
const MESSAGE: &[u8] = b"\x0a\x26\x0a\x1f\x0a\x100123456789abcdef\x12\x0801234567\x1a\x01a\x12\x03\x0a\x01s";

fn emit(protocol: Protocol) -> Vec<u8> {
    match protocol {
        Protocol::Binary => [b"\x80\x01\0\x04\0\0\0\x09emitBatch\0\0\0\0\x0c\0\x01", BINARY, b"\0"].concat(),
        Protocol::Compact => [b"\x82\x81\0\x09emitBatch\x1c", COMPACT, b"\0"].concat(),
    }
}

#[test]
fn what_the_tests_send_can_be_read() {
    for protocol in [Protocol::Binary, Protocol::Compact] {
        assert_eq!(read_emit_batch(&emit(protocol), protocol).unwrap().spans.len(), 1);
    }
    assert_eq!(read_post_spans(MESSAGE).unwrap().spans.len(), 1);
}

async fn start(sink: &OtlpSink, protocols: &str) -> Unit {
    let body = format!("protocols {{\n{protocols}\n}}\noutput {{\n traces = [sink]\n}}");
    let names = [("sink", sink.value())];
    Unit::start_with(host("otelcol.receiver.jaeger.a"), &DEFINITION, &body, &names).await.unwrap()
}

async fn address(unit: &Unit, what: &str) -> SocketAddr {
    let look = || {
        let logs = unit.world.logs();
        let line = logs.lines().rfind(|line| line.contains(what))?;
        line.split("addr=").nth(1)?.split_whitespace().next()?.parse().ok()
    };
    until_some("it listens", look).await
}

async fn post(to: SocketAddr, method: &str, path: &str, kind: &str, body: &[u8]) -> (u16, String) {
    let client = Client::new(ClientConfig::default(), ClientOptions::default()).await.unwrap();
    let request = Request::builder().method(method).uri(format!("http://{to}{path}")).header("content-type", kind);
    let response = client.request(request.body(Body::from(body.to_vec())).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    (parts.status.as_u16(), String::from_utf8(body.read(1 << 20).await.unwrap().to_vec()).unwrap())
}

fn metric(unit: &Unit, name: &str, transport: &str) -> Option<f64> {
    let labels = [
        ("receiver", "jaeger/otelcol.receiver.jaeger.a"),
        ("transport", transport),
        ("otel_scope_name", "go.opentelemetry.io/collector/receiver/receiverhelper"),
        ("otel_scope_version", ""),
        ("otel_scope_schema_url", ""),
    ];
    unit.world.metrics().get(name, &labels)
}

#[tokio::test]
async fn thrift_over_http_is_answered_as_the_reference_does() {
    let sink = OtlpSink::default();
    let unit = start(&sink, &format!("thrift_http {{\n {ANY}\n max_request_body_size = \"1KiB\"\n}}")).await;
    let to = address(&unit, "Starting HTTP server").await;
    let thrift = "application/x-thrift";
    for (method, path, kind, body, status, text) in [
        ("POST", "/api/traces", thrift, BINARY, 202, ""),
        ("POST", "/api/traces?format=jaeger.thrift", "application/vnd.apache.thrift.binary; x=y", BINARY, 202, ""),
        ("GET", "/api/traces", thrift, b"", 405, ""),
        ("POST", "/api/trace", thrift, BINARY, 404, "404 page not found\n"),
        ("POST", "/api/traces", "", BINARY, 400, "Cannot parse content type: mime: no media type\n"),
        (
            "POST",
            "/api/traces",
            "text/<a>",
            BINARY,
            400,
            "Cannot parse content type: mime: unexpected content after media subtype\n",
        ),
        ("POST", "/api/traces", "application/json", BINARY, 400, "Unsupported content type: application/json\n"),
        (
            "POST",
            "/api/traces",
            thrift,
            b"\x0c",
            400,
            "Unable to process request body: unexpected end of the message\n",
        ),
        (
            "POST",
            "/api/traces",
            thrift,
            b"\0",
            400,
            "Unable to process request body: Required field Process is not set\n",
        ),
        (
            "POST",
            "/api/traces",
            thrift,
            &[0; 1025],
            500,
            "Unable to process request body: http: request body too large\n",
        ),
    ] {
        assert_eq!(post(to, method, path, kind, body).await, (status, text.to_owned()), "{method} {path} {kind}");
    }
    assert_eq!(sink.sizes(), [1, 1]);
    sink.answer_with(Some(ConsumeError::Retry { after: None, reason: "<busy>".into() }));
    let got = post(to, "POST", "/api/traces", thrift, BINARY).await;
    assert_eq!(got, (500, "Cannot submit Jaeger batch: <busy>\n".to_owned()));
    assert_eq!(metric(&unit, "otelcol_receiver_accepted_spans_total", "collector_http"), Some(2.0));
    assert_eq!(metric(&unit, "otelcol_receiver_refused_spans_total", "collector_http"), Some(1.0));
    assert_eq!(escaped("a<b>&\"'"), "a&lt;b&gt;&amp;&#34;&#39;");
}

async fn call(to: SocketAddr, message: &'static [u8]) -> Result<Bytes, Status> {
    let uri: Uri = format!("http://{to}").parse().unwrap();
    let options = ClientOptions { http2_prior_knowledge: true, ..ClientOptions::default() };
    let client = Client::new(ClientConfig::default(), options).await.unwrap();
    let method = "/jaeger.api_v2.CollectorService/PostSpans";
    let (headers, timeout) = (HeaderMap::new(), Duration::from_secs(20));
    let call = Call { server: &uri, method, encoding: None, headers, timeout, answer_bytes_max: 99 };
    call.send(&client, vec![Bytes::from_static(message)]).await
}

#[tokio::test]
async fn headers_go_with_the_spans_where_they_are_to() {
    for (argument, kept) in [("", false), ("include_metadata = true", true)] {
        let sink = OtlpSink::default();
        let block = format!("{{\n {ANY}\n {argument}\n}}");
        let unit = start(&sink, &format!("grpc {block}\nthrift_http {block}")).await;
        let http = address(&unit, "Starting HTTP server").await;
        post(http, "POST", "/api/traces", "application/x-thrift", BINARY).await;
        call(address(&unit, "Starting GRPC server").await, MESSAGE).await.unwrap();
        let kinds = ["content-type=application/x-thrift", "content-type=application/grpc"];
        for (batch, kind) in sink.batches().iter().zip(kinds) {
            assert_eq!(batch.metadata.iter().any(|have| have == kind), kept, "{:?}", batch.metadata);
        }
        assert_eq!(sink.sizes(), [1, 1]);
    }
}

#[tokio::test]
async fn calls_of_the_collector_are_taken() {
    let sink = OtlpSink::default();
    let unit = start(&sink, &format!("grpc {{\n {ANY}\n}}")).await;
    let to = address(&unit, "Starting GRPC server").await;
    assert_eq!(call(to, MESSAGE).await.unwrap(), "");
    assert_eq!(sink.sizes(), [1]);
    assert_eq!(call(to, b"\x0a\x05").await.unwrap_err().code.0, 13);
    sink.answer_with(Some(ConsumeError::Retry { after: None, reason: "busy".into() }));
    let error = call(to, MESSAGE).await.unwrap_err();
    assert_eq!((error.code.0, &*error.message), (14, "busy"));
    assert_eq!(metric(&unit, "otelcol_receiver_accepted_spans_total", "grpc"), Some(1.0));
}

#[tokio::test]
async fn packets_of_both_protocols_are_taken_and_what_is_none_harms_nobody() {
    let sink = OtlpSink::default();
    let both = format!("thrift_binary {{\n {ANY}\n}}\nthrift_compact {{\n {ANY}\n socket_buffer_size = \"64KiB\"\n}}");
    let mut unit = start(&sink, &both).await;
    let binary = address(&unit, "Binary Thrift").await;
    let compact = address(&unit, "Compact Thrift").await;
    let from = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for (to, packet) in [
        (binary, b"garbage".to_vec()),
        (compact, b"\x82\x81\0\x0femitZipkinBatch\0".to_vec()),
        (compact, emit(Protocol::Binary)),
        (binary, emit(Protocol::Binary)),
        (compact, emit(Protocol::Compact)),
    ] {
        from.send_to(&packet, to).await.unwrap();
    }
    until("both are there", || sink.items() == 2).await;
    until("the others are complained of", || unit.world.logs().contains("Processor failed")).await;
    for transport in ["udp_thrift_binary", "udp_thrift_compact"] {
        until("they are counted", || metric(&unit, "otelcol_receiver_accepted_spans_total", transport) == Some(1.0))
            .await;
    }
    // What is not taken now is tried again.
    sink.answer_with(Some(ConsumeError::Retry { after: None, reason: "busy".into() }));
    from.send_to(&emit(Protocol::Compact), compact).await.unwrap();
    stays("it is not there", Duration::from_millis(150), || sink.items() == 2).await;
    sink.answer_with(None);
    until("it is there", || sink.items() == 3).await;
    // Other arguments keep the socket.
    let other = both.replace("thrift_compact {", "thrift_compact {\n workers = 1\n queue_size = 5");
    unit.update(&format!("protocols {{\n{other}\n}}\noutput {{\n traces = [sink]\n}}")).await.unwrap();
    from.send_to(&emit(Protocol::Compact), compact).await.unwrap();
    until("it is there, too", || sink.items() == 4).await;
    // What is never taken is lost.
    sink.answer_with(Some(ConsumeError::Refused { reason: "never".into() }));
    from.send_to(&emit(Protocol::Compact), compact).await.unwrap();
    let row = unit.world.host().ledger.row(corten_signal::Kind::OtelTrace);
    until("it is lost", || !row.snapshot().dropped.is_empty()).await;
    unit.drain().await;
    let balance = unit.world.balance_of(corten_signal::Kind::OtelTrace);
    assert_eq!(balance, "received 5, out 4, dropped {refused: 1}");
}

#[tokio::test]
async fn what_is_under_way_goes_on_when_its_protocol_is_configured_no_more() {
    let sink = OtlpSink::default();
    let compact = format!("thrift_compact {{\n {ANY}\n}}");
    let all = format!("thrift_http {{\n {ANY}\n}}\nthrift_binary {{\n {ANY}\n}}\n{compact}");
    let mut unit = start(&sink, &all).await;
    let http = address(&unit, "Starting HTTP server").await;
    let binary = address(&unit, "Starting UDP server for Binary Thrift").await;
    sink.keep_acks();
    let from = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    from.send_to(&emit(Protocol::Binary), binary).await.unwrap();
    let posted = tokio::spawn(async move { post(http, "POST", "/api/traces", "application/x-thrift", BINARY).await });
    until("both are under way", || sink.items() == 2).await;
    unit.update(&format!("protocols {{\n{compact}\n}}\noutput {{\n traces = [sink]\n}}")).await.unwrap();
    while tokio::net::TcpStream::connect(http).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!posted.is_finished());
    sink.settle(true);
    assert_eq!(posted.await.unwrap(), (202, String::new()));
    let accepted = || metric(&unit, "otelcol_receiver_accepted_spans_total", "udp_thrift_binary") == Some(1.0);
    until("the packet is accepted, too", accepted).await;
    unit.drain().await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_no_error_of_the_configuration_and_is_tried_again() {
    let other = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = other.local_addr().unwrap();
    let sink = OtlpSink::default();
    let unit = start(&sink, &format!("thrift_compact {{\n endpoint = \"{to}\"\n}}")).await;
    let text = format!("unhealthy: cannot listen on {to}: ");
    until("it is unhealthy", || unit.world.health_text().starts_with(&text)).await;
    drop(other);
    until("it is healthy", || unit.world.health_text().starts_with("healthy")).await;
}

#[tokio::test]
async fn what_contradicts_itself_is_refused() {
    for (body, want) in [
        ("", "at least one protocol must be enabled"),
        ("thrift_binary {\n workers = 0\n}", "number of processors must be greater than 0, called with 0"),
    ] {
        let sink = OtlpSink::default();
        let body = format!("protocols {{\n{body}\n}}\noutput {{\n traces = [sink]\n}}");
        let names = [("sink", sink.value())];
        let unit = Unit::start_with(host("otelcol.receiver.jaeger.a"), &DEFINITION, &body, &names).await;
        let error = unit.unwrap_err();
        assert!(error.contains(want), "{error}");
    }
}
