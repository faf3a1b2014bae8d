use std::net::SocketAddr;
use std::time::Duration;

use corten_coding::Coding;
use corten_component::Definition;
use corten_config::Value;
use corten_net::grpc::{Call, Status, pack};
use corten_net::{Body, Client, ClientConfig, ClientOptions, Secret, TlsConfig};
use corten_otlp::{AuthData, LogRecord, Metadata, Metric, Record, Span};
use corten_signal::ConsumeError;
use corten_testkit::{OtlpSink, Unit, host, otlp, until, until_some};
use http::{Request, Uri};
use parking_lot::Mutex;
use proptest::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::auth::{Handler, ServerAuth};
use crate::testing::told;

const DEFINITION: Definition = Definition::of::<OtlpReceiver>();
const ALL: &str = "output {\n traces = [sink]\n metrics = [sink]\n logs = [sink]\n}";
const ANY: &str = "endpoint = \"127.0.0.1:0\"";
const LIMIT: Duration = Duration::from_secs(60);

const TRACES: &str = r#"{"resourceSpans":[{"resource":{},"scopeSpans":[{"scope":{},"spans":[{"traceId":"0102030405060708090a0b0c0d0e0f10","spanId":"0102030405060708","name":"a","status":{}}]}]}]}"#;
const METRICS: &str = r#"{"resourceMetrics":[{"resource":{},"scopeMetrics":[{"scope":{},"metrics":[{"name":"m","gauge":{"dataPoints":[{"asInt":"7"},{"asInt":"8"}]}}]}]}]}"#;
const LOGS: &str = r#"{"resourceLogs":[{"resource":{},"scopeLogs":[{"scope":{},"logRecords":[{"timeUnixNano":"5","body":{"stringValue":"hello"}}]}]}]}"#;

/// A component that runs, and what it sends to.
struct Running {
    unit: Unit,
    sink: OtlpSink,
}

/// An answer of HTTP.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

async fn client(config: ClientConfig, http2_prior_knowledge: bool) -> Client {
    Client::new(config, ClientOptions { http2_prior_knowledge, ..ClientOptions::default() }).await.unwrap()
}

async fn send(client: &Client, request: Request<Body>) -> Result<Answer, corten_net::Error> {
    let response = client.request(request).await?;
    let (parts, body) = response.into_parts();
    let body = body.read(1 << 20).await?.to_vec();
    Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
}

impl Running {
    async fn start(body: &str) -> Self {
        Self::start_with(body, &[]).await
    }

    async fn start_with(body: &str, names: &[(&str, Value)]) -> Self {
        let sink = OtlpSink::default();
        let mut all = vec![("sink", sink.value())];
        all.extend(names.iter().cloned());
        let unit = Unit::start_with(host("otelcol.receiver.otlp.a"), &DEFINITION, body, &all).await.unwrap();
        Running { unit, sink }
    }

    /// One that receives over both protocols.
    async fn both() -> Self {
        Self::start(&format!("grpc {{\n {ANY}\n}}\nhttp {{\n {ANY}\n}}\n{ALL}")).await
    }

    /// Where it listened last.
    async fn address(&self, what: &str) -> SocketAddr {
        let look = || {
            let logs = self.unit.world.logs();
            let line = logs.lines().rfind(|line| line.contains(what))?;
            line.split("addr=").nth(1)?.split_whitespace().next()?.parse().ok()
        };
        until_some("it listens", look).await
    }

    async fn http(&self) -> SocketAddr {
        self.address("Starting HTTP server").await
    }

    async fn grpc(&self) -> SocketAddr {
        self.address("Starting GRPC server").await
    }

    async fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.http().await));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        send(&client(ClientConfig::default(), false).await, request.body(body.into()).unwrap()).await.unwrap()
    }

    async fn post(&self, path: &str, kind: &str, encoding: &str, body: impl Into<Body>) -> Answer {
        let headers = [("content-type", kind), ("content-encoding", encoding)];
        let headers = if encoding.is_empty() { &headers[..1] } else { &headers };
        self.request("POST", path, headers, body).await
    }

    async fn call(&self, method: &str, call: CallOf<'_>, message: impl Into<Bytes>) -> Result<Bytes, Status> {
        let uri: Uri = format!("http://{}", self.grpc().await).parse().unwrap();
        let client = client(ClientConfig::default(), true).await;
        let mut headers = HeaderMap::new();
        for (name, value) in call.headers {
            headers.insert(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        let message = vec![message.into()];
        let (message, encoding) = match call.coding {
            Some((coding, name)) => (pack(coding, &message).unwrap(), Some(name)),
            None => (message, None),
        };
        let sent = Call { server: &uri, method, encoding, headers, timeout: LIMIT, answer_bytes_max: 1 << 20 };
        sent.send(&client, message).await
    }

    fn metric(&self, name: &str, transport: &str) -> f64 {
        let labels = [
            ("receiver", "otlp/otelcol.receiver.otlp.a"),
            ("transport", transport),
            ("otel_scope_name", "go.opentelemetry.io/collector/receiver/receiverhelper"),
            ("otel_scope_version", ""),
            ("otel_scope_schema_url", ""),
        ];
        self.unit.world.metrics().get(name, &labels).unwrap_or_default()
    }
}

/// How to make a call.
#[derive(Clone, Copy, Default)]
struct CallOf<'a> {
    coding: Option<(Coding, &'static str)>,
    headers: &'a [(&'a str, &'a str)],
}

const SPANS: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const POINTS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
const RECORDS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

fn message<R: Record>(json: &str) -> Vec<u8> {
    otlp::<R>(json).message().flat_map(|piece| piece.to_vec()).collect()
}

/// A signal: method, path, what is sent in JSON and as a message.
fn signals() -> [(&'static str, &'static str, &'static str, Vec<u8>); 3] {
    [
        (SPANS, "/v1/traces", TRACES, message::<Span>(TRACES)),
        (POINTS, "/v1/metrics", METRICS, message::<Metric>(METRICS)),
        (RECORDS, "/v1/logs", LOGS, message::<LogRecord>(LOGS)),
    ]
}

#[tokio::test]
async fn every_signal_arrives_over_each_protocol_in_each_encoding_and_packing() {
    let running = Running::both().await;
    let mut want = Vec::new();
    for (method, path, json, message) in signals() {
        for (name, coding) in [
            ("", None),
            ("gzip", Some(Coding::Gzip)),
            ("zlib", Some(Coding::Zlib)),
            ("deflate", Some(Coding::Zlib)),
            ("zstd", Some(Coding::Zstd)),
            ("snappy", Some(Coding::Snappy)),
            ("snappy", Some(Coding::SnappyFramed)),
            ("lz4", Some(Coding::Lz4)),
        ] {
            let pack =
                |bytes: &[u8]| coding.map_or_else(|| bytes.to_vec(), |coding| coding.pack(None, [bytes]).unwrap());
            let answer = running.post(path, "application/x-protobuf; x=y", name, pack(&message)).await;
            assert_eq!((answer.status, &*answer.body), (200, &b"\x0a\0"[..]), "{path} {name}");
            assert_eq!(answer.header("content-type"), PROTOBUF);
            let answer = running.post(path, "Application/JSON; charset=utf-8", name, pack(json.as_bytes())).await;
            assert_eq!((answer.status, &*answer.text()), (200, r#"{"partialSuccess":{}}"#), "{path} {name}");
            assert_eq!(answer.header("content-type"), JSON);
            want.extend([json, json]);
        }
        for coding in
            [None, Some((Coding::Gzip, "gzip")), Some((Coding::Zstd, "zstd")), Some((Coding::SnappyFramed, "snappy"))]
        {
            let call = CallOf { coding, ..CallOf::default() };
            assert_eq!(running.call(method, call, message.clone()).await.unwrap(), &b"\x0a\0"[..]);
            want.push(json);
        }
    }
    let got: Vec<String> = running.sink.batches().into_iter().map(|batch| batch.json).collect();
    assert_eq!(got, want);
    for (name, grpc, http) in [
        ("otelcol_receiver_accepted_spans_total", 4.0, 16.0),
        ("otelcol_receiver_accepted_metric_points_total", 8.0, 32.0),
        ("otelcol_receiver_accepted_log_records_total", 4.0, 16.0),
        ("otelcol_receiver_refused_spans_total", 0.0, 0.0),
    ] {
        assert_eq!((running.metric(name, "grpc"), running.metric(name, "http")), (grpc, http), "{name}");
    }
    let text = running.unit.world.metrics().text();
    for line in [
        "rpc_server_duration_milliseconds_count{otel_scope_name=\"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc\",otel_scope_schema_url=\"\",otel_scope_version=\"\",rpc_grpc_status_code=\"0\",rpc_method=\"Export\",rpc_service=\"opentelemetry.proto.collector.trace.v1.TraceService\",rpc_system=\"grpc\"} 4",
        "rpc_server_call_duration_seconds_count{otel_scope_name=\"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc\",otel_scope_schema_url=\"\",otel_scope_version=\"\",rpc_method=\"opentelemetry.proto.collector.logs.v1.LogsService/Export\",rpc_response_status_code=\"OK\",rpc_system_name=\"grpc\"} 4",
        "http_server_request_duration_seconds_count{http_request_method=\"POST\",http_response_status_code=\"200\",http_route=\"/v1/metrics\",network_protocol_name=\"http\",network_protocol_version=\"1.1\",otel_scope_name=\"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp\",otel_scope_schema_url=\"\",otel_scope_version=\"\",server_address=\"127.0.0.1\",server_port=\"0\",url_scheme=\"http\"} 16",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[tokio::test]
async fn a_request_that_is_none_is_answered_with_the_status_and_the_body_of_the_reference() {
    let limits = format!("http {{\n {ANY}\n max_request_body_size = \"1KiB\"\n}}\n{ALL}");
    let running = Running::start(&limits).await;
    let proto = |code: u8, text: &str| [&[8, code, 18, text.len() as u8], text.as_bytes()].concat();
    let json =
        |code: u8, text: &str| format!(r#"{{"code":{code},"message":{}}}"#, serde_json::json!(text)).into_bytes();
    let large = vec![b' '; 1025];
    let bomb = Coding::Gzip.pack(None, [&vec![0; 1 << 20][..]]).unwrap();
    let huge = Coding::Snappy.pack(None, [&vec![0; 4096][..]]).unwrap();
    let post = |kind, encoding| vec![("content-type", kind), ("content-encoding", encoding)];
    for (method, path, headers, body, status, kind, want) in [
        (
            "POST",
            "/v1/other",
            vec![("content-type", JSON)],
            &b"{}"[..],
            404,
            "text/plain; charset=utf-8",
            b"404 page not found\n".to_vec(),
        ),
        (
            "POST",
            "/",
            vec![("content-type", JSON)],
            b"{}",
            404,
            "text/plain; charset=utf-8",
            b"404 page not found\n".to_vec(),
        ),
        (
            "POST",
            "/v1/traces/",
            vec![("content-type", JSON)],
            b"{}",
            404,
            "text/plain; charset=utf-8",
            b"404 page not found\n".to_vec(),
        ),
        ("GET", "/v1/traces", vec![], b"", 405, "text/plain", b"405 method not allowed, supported: [POST]".to_vec()),
        (
            "PUT",
            "/v1/logs",
            vec![("content-type", JSON)],
            b"{}",
            405,
            "text/plain",
            b"405 method not allowed, supported: [POST]".to_vec(),
        ),
        (
            "POST",
            "/v1/logs",
            vec![],
            b"{}",
            415,
            "text/plain",
            b"415 unsupported media type, supported: [application/json, application/x-protobuf]".to_vec(),
        ),
        (
            "POST",
            "/v1/logs",
            vec![("content-type", "text/plain")],
            b"{}",
            415,
            "text/plain",
            b"415 unsupported media type, supported: [application/json, application/x-protobuf]".to_vec(),
        ),
        (
            "POST",
            "/v1/logs",
            vec![("content-type", "application/protobuf")],
            b"{}",
            415,
            "text/plain",
            b"415 unsupported media type, supported: [application/json, application/x-protobuf]".to_vec(),
        ),
        ("POST", "/v1/logs", post(PROTOBUF, "br"), b"", 400, PROTOBUF, proto(3, "unsupported Content-Encoding: br")),
        ("POST", "/v1/logs", post(JSON, "GZIP"), b"", 400, JSON, json(3, "unsupported Content-Encoding: GZIP")),
        ("POST", "/nowhere", post(JSON, "identity"), b"", 400, JSON, json(3, "unsupported Content-Encoding: identity")),
        (
            "GET",
            "/v1/logs",
            vec![("content-encoding", "x-snappy-framed")],
            b"",
            400,
            JSON,
            json(3, "unsupported Content-Encoding: x-snappy-framed"),
        ),
        (
            "POST",
            "/v1/logs",
            post("text/html", "br"),
            b"",
            500,
            JSON,
            br#"{"code": 13, "message": "failed to marshal error message"}"#.to_vec(),
        ),
        (
            "POST",
            "/v1/logs",
            vec![("content-type", JSON)],
            b"{",
            400,
            JSON,
            json(3, "EOF while parsing an object at line 1 column 1"),
        ),
        (
            "POST",
            "/v1/logs",
            vec![("content-type", JSON)],
            b"",
            400,
            JSON,
            json(3, "EOF while parsing a value at line 1 column 0"),
        ),
        (
            "POST",
            "/v1/logs",
            vec![("content-type", PROTOBUF)],
            b"\x0a\x05x",
            400,
            PROTOBUF,
            proto(3, "unexpected end of the message"),
        ),
        (
            "POST",
            "/v1/traces",
            vec![("content-type", PROTOBUF)],
            &large,
            400,
            PROTOBUF,
            proto(3, "http: request body too large"),
        ),
        (
            "POST",
            "/v1/traces",
            vec![("content-type", JSON)],
            &large,
            400,
            JSON,
            json(3, "http: request body too large"),
        ),
        ("POST", "/v1/traces", post(JSON, "gzip"), &bomb, 400, JSON, json(3, "http: request body too large")),
        ("POST", "/v1/traces", post(JSON, "snappy"), &huge, 400, JSON, json(3, "http: request body too large")),
        (
            "POST",
            "/v1/traces",
            post(JSON, "gzip"),
            b"this is not gzip at all",
            400,
            JSON,
            json(3, "invalid gzip: invalid gzip header"),
        ),
        ("POST", "/v1/traces", vec![("content-type", PROTOBUF)], b"", 200, PROTOBUF, b"\x0a\0".to_vec()),
    ] {
        let answer = running.request(method, path, &headers, body.to_vec()).await;
        let got = (answer.status, answer.header("content-type"), answer.text());
        assert_eq!(got, (status, kind, String::from_utf8(want).unwrap()), "{method} {path} {headers:?}");
        assert_eq!(answer.header("retry-after"), "");
    }
    assert_eq!(running.sink.items(), 0);
    let whole = format!("{LOGS}{}", " ".repeat(1024 - LOGS.len()));
    assert_eq!(running.post("/v1/logs", JSON, "", whole).await.status, 200);
    assert_eq!(running.sink.items(), 1);
}

#[tokio::test]
async fn a_call_that_is_none_is_answered_with_the_status_of_the_reference() {
    let limits = format!("grpc {{\n {ANY}\n max_recv_msg_size = \"1536KiB\"\n}}\noutput {{\n traces = [sink]\n}}");
    let running = Running::start(&limits).await;
    let brotli = Some((Coding::Gzip, "br"));
    let zeros = vec![0; 2 << 20];
    let of = |coding| CallOf { coding, ..CallOf::default() };
    let too_large = format!("grpc: received message larger than max ({} vs. {})", 2 << 20, 1 << 20);
    let bomb = format!("grpc: received message after decompression larger than max {}", 1 << 20);
    for (method, call, message, code, text) in [
        ("/a.B/Export", of(None), &b""[..], 12, "unknown service a.B"),
        (RECORDS, of(None), b"", 12, "unknown service opentelemetry.proto.collector.logs.v1.LogsService"),
        (
            "/opentelemetry.proto.collector.trace.v1.TraceService/Import",
            of(None),
            b"",
            12,
            "unknown method Import for service opentelemetry.proto.collector.trace.v1.TraceService",
        ),
        ("/Export", of(None), b"", 12, "malformed method name: \"/Export\""),
        (SPANS, of(brotli), b"x", 12, "grpc: Decompressor is not installed for grpc-encoding \"br\""),
        (SPANS, of(None), &zeros, 8, &too_large),
        (SPANS, of(Some((Coding::Gzip, "gzip"))), &zeros, 8, &bomb),
        (SPANS, of(None), b"\x0a\x05x", 13, "grpc: error unmarshalling request: unexpected end of the message"),
    ] {
        let error = running.call(method, call, message.to_vec()).await.unwrap_err();
        assert_eq!((error.code.0, &*error.message), (code, text), "{method}");
    }
    let http2 = client(ClientConfig::default(), true).await;
    let uri = format!("http://{}{SPANS}", running.grpc().await);
    for (method, kind, status, code, text) in [
        ("POST", JSON, 415, "3", "invalid gRPC request content-type \"application/json\""),
        ("GET", "application/grpc", 405, "13", "Received a HEADERS frame with :method \"GET\" which should be POST"),
    ] {
        let request = Request::builder().method(method).uri(&uri).header("content-type", kind);
        let answer = send(&http2, request.body(Body::empty()).unwrap()).await.unwrap();
        let got = (answer.status, answer.header("grpc-status"), answer.header("grpc-message"));
        assert_eq!(got, (status, code, text));
    }
    // HTTP/1.1 is not spoken there.
    let http1 = client(ClientConfig::default(), false).await;
    assert!(send(&http1, Request::post(&uri).body(Body::empty()).unwrap()).await.is_err());
    assert!(running.call(SPANS, of(None), message::<Span>(TRACES)).await.is_ok());
}

#[tokio::test]
async fn what_is_not_taken_is_answered_with_what_its_sender_is_to_do() {
    let running = Running::both().await;
    let retry = |after| ConsumeError::Retry { after, reason: "busy".to_owned() };
    for (error, code, text, details, status, retry_after) in [
        (retry(None), 14, "busy", None, 503, ""),
        (retry(Some(Duration::from_millis(1500))), 14, "busy", Some(1500), 503, "2"),
        (ConsumeError::Refused { reason: "never".to_owned() }, 13, "never", None, 500, ""),
        (ConsumeError::Exited { component: "a.b".to_owned() }, 14, "a.b has exited", None, 503, ""),
    ] {
        running.sink.answer_with(Some(error));
        for (method, path, json, message) in signals() {
            let refused = running.call(method, CallOf::default(), message.clone()).await.unwrap_err();
            assert_eq!((refused.code.0, &*refused.message), (code, text));
            let known = (!refused.details.is_empty()).then(|| RpcStatus::read(&refused.details).unwrap());
            assert_eq!(known.and_then(|status| status.retry_delay_ms), details);

            let answer = running.post(path, JSON, "", json).await;
            let want = format!(r#"{{"code":{code},"message":"{text}"}}"#);
            assert_eq!((answer.status, answer.text(), answer.header("retry-after")), (status, want, retry_after));

            let answer = running.post(path, PROTOBUF, "", message).await;
            let want = RpcStatus { code, message: text.to_owned(), retry_delay_ms: details };
            assert_eq!((answer.status, RpcStatus::read(&answer.body)), (status, Ok(want)));
        }
    }
    assert_eq!(running.metric("otelcol_receiver_refused_metric_points_total", "http"), 16.0);
    assert_eq!(running.metric("otelcol_receiver_refused_spans_total", "grpc"), 4.0);
    assert!(running.unit.world.balance().rows.iter().all(|row| (row.received, row.out) == (0, 0)));
    let told = told(&running.unit.world);
    let way = told.iter().position(|line| line == "requests.signal = \"traces\"").unwrap();
    for line in ["requests = 4", "accepted_items = 0", "refused_items = 4", "last_refusal = \"a.b has exited\""] {
        assert!(told[way..way + 6].contains(&format!("requests.{line}")), "{told:?}");
    }
    assert_eq!(told[..2], ["listener.protocol = \"grpc\"", "listener.address = \"127.0.0.1:0\""]);
    // What has no items is taken without asking anybody.
    for (path, body) in [
        ("/v1/traces", r#"{"resourceSpans":[{"resource":{}}]}"#),
        ("/v1/metrics", r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"empty"}]}]}]}"#),
        ("/v1/logs", "{}"),
    ] {
        assert_eq!(running.post(path, JSON, "", body).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_request_is_answered_when_the_telemetry_is_safe_and_what_was_lost_is_to_be_sent_again() {
    let running = Running::both().await;
    running.sink.keep_acks();
    for (safe, status, code, items) in [(true, 200, None, 2), (false, 503, Some(14), 4)] {
        let work = async {
            let call = running.call(RECORDS, CallOf::default(), message::<LogRecord>(LOGS));
            tokio::join!(running.post("/v1/logs", JSON, "", LOGS), call)
        };
        tokio::pin!(work);
        tokio::select! {
            early = &mut work => panic!("{early:?}"),
            () = until("both are under way", || running.sink.items() == items) => {}
        }
        let early = tokio::time::timeout(Duration::from_millis(100), &mut work).await;
        assert!(early.is_err());
        running.sink.settle(safe);
        let (answer, called) = work.await;
        assert_eq!((answer.status, called.err().map(|status| status.code.0)), (status, code));
    }
    // What was lost on its way was taken, and is taken again.
    assert_eq!(running.unit.world.balance_of(corten_signal::Kind::OtelLog), "received 4, out 4");
}

#[tokio::test]
async fn what_is_under_way_is_answered_when_its_protocol_is_configured_no_more() {
    let mut running = Running::both().await;
    running.sink.keep_acks();
    let (http, grpc) = (running.http().await, running.grpc().await);
    let post = Request::post(format!("http://{http}/v1/logs")).header("content-type", JSON).body(LOGS.into()).unwrap();
    let post = tokio::spawn(async move { send(&client(ClientConfig::default(), false).await, post).await });
    let call = tokio::spawn(async move {
        let uri: Uri = format!("http://{grpc}").parse().unwrap();
        let headers = HeaderMap::new();
        let call =
            Call { server: &uri, method: RECORDS, encoding: None, headers, timeout: LIMIT, answer_bytes_max: 99 };
        call.send(&client(ClientConfig::default(), true).await, vec![message::<LogRecord>(LOGS).into()]).await
    });
    until("both are under way", || running.sink.items() == 2).await;
    running.unit.update(ALL).await.unwrap();
    for address in [http, grpc] {
        while TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    // It is waited for at the end, too.
    let Running { mut unit, sink } = running;
    let drain = unit.drain();
    tokio::pin!(drain);
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut drain).await.is_err());
    assert!(!post.is_finished() && !call.is_finished());
    sink.settle(true);
    assert_eq!(post.await.unwrap().unwrap().status, 200);
    assert!(call.await.unwrap().is_ok());
    drain.await;
}

#[tokio::test]
async fn what_is_under_way_goes_where_all_goes_when_it_has_arrived() {
    let (keys, before) = (Arc::new(Keys::default()), OtlpSink::default());
    let handler = Handler::new("otelcol.auth.keys", None, Some(Arc::clone(&keys) as Arc<dyn ServerAuth>));
    let names = [("before", before.value()), ("keys", Value::capsule(Arc::new(handler)))];
    let server = format!("{{\n {ANY}\n auth = keys\n}}");
    let to = |sink: &str| format!("grpc {server}\nhttp {server}\noutput {{\n logs = [{sink}]\n}}");
    let mut running = Running::start_with(&to("before"), &names).await;
    let len = LOGS.len();
    let head = format!(
        "POST /v1/logs HTTP/1.1\r\nHost: a\r\nAuthorization: key\r\nContent-Type: application/json\r\n\
         Content-Length: {len}\r\n\r\n{}",
        &LOGS[..9]
    );
    let mut http = TcpStream::connect(running.http().await).await.unwrap();
    http.write_all(head.as_bytes()).await.unwrap();
    let message = message::<LogRecord>(LOGS);
    let sent = [&[0, 0, 0, 0, message.len() as u8][..], &message].concat();
    let headers = [&call_headers(), &b"\0\x0dauthorization\x03key"[..]].concat();
    let mut grpc = http2(running.grpc().await).await;
    grpc.write_all(&[frame(1, 4, 1, &headers), frame(0, 0, 1, &sent[..9])].concat()).await.unwrap();
    until("both are under way", || keys.0.lock().len() == 2).await;
    running.unit.update(&to("sink")).await.unwrap();
    http.write_all(&LOGS.as_bytes()[9..]).await.unwrap();
    grpc.write_all(&frame(0, 1, 1, &sent[9..])).await.unwrap();
    until("both are there", || running.sink.items() + before.items() == 2).await;
    assert_eq!(running.sink.items(), 2);
    let mut answer = vec![0; 12];
    http.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 200");
}

#[tokio::test]
async fn without_somewhere_to_send_anything_there_is_no_server() {
    let mut running = Running::both().await;
    let (http, grpc) = (running.http().await, running.grpc().await);
    let one = format!("grpc {{\n {ANY}\n}}\nhttp {{\n {ANY}\n}}\noutput {{\n logs = [sink]\n}}");
    running.unit.update(&one).await.unwrap();
    assert_eq!(running.post("/v1/traces", JSON, "", TRACES).await.status, 404);
    assert_eq!(running.post("/v1/logs", JSON, "", LOGS).await.status, 200);
    let none = format!("grpc {{\n {ANY}\n}}\nhttp {{\n {ANY}\n}}\noutput {{ }}");
    running.unit.update(&none).await.unwrap();
    for address in [http, grpc] {
        while TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    running.unit.drain().await;
}

#[tokio::test]
async fn paths_are_what_they_are_configured_to_be() {
    let paths = "traces_url_path = \"t\"\n metrics_url_path = \"/m/\"\n logs_url_path = \"/a/b\"";
    let running = Running::start(&format!("http {{\n {ANY}\n {paths}\n}}\n{ALL}")).await;
    for (path, body, status) in [
        ("/t", TRACES, 200),
        ("/m/", METRICS, 200),
        ("/m/x", METRICS, 200),
        ("/a/b?x=y", LOGS, 200),
        ("/a/b/", LOGS, 404),
    ] {
        assert_eq!(running.post(path, JSON, "", body).await.status, status, "{path}");
    }
}

#[tokio::test]
async fn what_contradicts_itself_is_refused() {
    for (body, want) in [
        ("http {\n logs_url_path = \"\"\n}", "logs_url_path cannot be empty"),
        ("http {\n logs_url_path = \"v1/traces\"\n}", "traces_url_path and logs_url_path cannot be the same"),
        ("http {\n compression_algorithms = [\"br\"]\n}", "unsupported compression type \"br\""),
        ("grpc {\n transport = \"udp\"\n}", "invalid transport type \"udp\""),
        ("grpc {\n tls { }\n}", "TLS configuration must include both certificate and key for server connections"),
        ("http {\n auth = client\n}", "otelcol.auth.a does not support server authentication"),
    ] {
        let names = [
            ("sink", OtlpSink::default().value()),
            ("client", Value::capsule(Arc::new(Handler::new("otelcol.auth.a", None, None)))),
        ];
        let body = format!("{body}\n{ALL}");
        let unit = Unit::start_with(host("otelcol.receiver.otlp.a"), &DEFINITION, &body, &names).await;
        let error = unit.unwrap_err();
        assert!(error.contains(want), "{error}");
    }
}

/// Lets those in who have the right key.
#[derive(Debug, Default)]
struct Keys(Mutex<Vec<Vec<String>>>);

#[derive(Debug)]
struct Known;

impl AuthData for Known {
    fn attribute(&self, _: &str) -> Option<String> {
        None
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

impl ServerAuth for Keys {
    fn authenticate<'a>(&'a self, headers: &'a Metadata) -> BoxFuture<'a, Result<Arc<dyn AuthData>, String>> {
        self.0.lock().push(headers.get("Authorization").to_vec());
        Box::pin(async move {
            match headers.get("Authorization") {
                [key] if key == "key" => Ok(Arc::new(Known) as Arc<dyn AuthData>),
                _ => Err("who are you?".to_owned()),
            }
        })
    }
}

#[tokio::test]
async fn who_does_not_authenticate_is_told_so_before_anything_is_read() {
    let keys = Arc::new(Keys::default());
    let handler = Handler::new("otelcol.auth.keys", None, Some(keys));
    let names = [("keys", Value::capsule(Arc::new(handler)))];
    let body = format!("grpc {{\n {ANY}\n auth = keys\n}}\nhttp {{\n {ANY}\n auth = keys\n}}\n{ALL}");
    let running = Running::start_with(&body, &names).await;
    let json = r#"{"code":16,"message":"who are you?"}"#;
    for (path, kind, status, want) in [
        ("/v1/logs", JSON, 401, json),
        ("/v1/logs", PROTOBUF, 401, "\u{8}\u{10}\u{12}\u{c}who are you?"),
        ("/nowhere", JSON, 401, json),
        ("/v1/logs", "", 401, json),
        ("/v1/logs", "text/plain", 500, r#"{"code": 13, "message": "failed to marshal error message"}"#),
    ] {
        let answer = running.post(path, kind, "", "garbage").await;
        assert_eq!((answer.status, &*answer.text()), (status, want), "{path} {kind}");
    }
    let error = running.call(RECORDS, CallOf::default(), &b"garbage"[..]).await.unwrap_err();
    assert_eq!((error.code.0, &*error.message), (16, "who are you?"));
    let key = [("content-type", JSON), ("authorization", "key")];
    assert_eq!(running.request("POST", "/v1/logs", &key, LOGS).await.status, 200);
    let call = CallOf { headers: &key[1..], ..CallOf::default() };
    assert!(running.call(RECORDS, call, message::<LogRecord>(LOGS)).await.is_ok());
    assert_eq!(running.sink.items(), 2);
    assert!(running.sink.batches().iter().all(|batch| batch.metadata.is_empty()));
}

#[tokio::test]
async fn headers_go_with_the_telemetry_where_they_are_to() {
    let on = "include_metadata = true";
    let running = Running::start(&format!("grpc {{\n {ANY}\n {on}\n}}\nhttp {{\n {ANY}\n {on}\n}}\n{ALL}")).await;
    let headers = [("content-type", JSON), ("x-scope-orgid", "t"), ("X-Scope-OrgID", "u")];
    running.request("POST", "/v1/logs", &headers, LOGS).await;
    let call = CallOf { headers: &[("x-scope-orgid", "v")], ..CallOf::default() };
    running.call(RECORDS, call, message::<LogRecord>(LOGS)).await.unwrap();
    let [http, grpc] = [running.http().await, running.grpc().await];
    let [by_http, by_grpc] = running.sink.batches().try_into().unwrap();
    for want in ["x-scope-orgid=t", "x-scope-orgid=u", "content-type=application/json", &format!("host={http}")] {
        assert!(by_http.metadata.iter().any(|have| have == want), "{want} {:?}", by_http.metadata);
    }
    for want in ["x-scope-orgid=v", "content-type=application/grpc", &format!(":authority={grpc}")] {
        assert!(by_grpc.metadata.iter().any(|have| have == want), "{want} {:?}", by_grpc.metadata);
    }
    assert!(!by_grpc.metadata.iter().any(|have| have.starts_with("te=") || have.starts_with("grpc-timeout")));
}

#[tokio::test]
async fn web_pages_may_send_where_they_are_allowed_to_and_ask_without_authentication() {
    let handler = Handler::new("otelcol.auth.keys", None, Some(Arc::new(Keys::default())));
    let names = [("keys", Value::capsule(Arc::new(handler)))];
    let cors = "cors {\n allowed_origins = [\"https://*.example\"]\n max_age = 60\n }";
    let body = format!("http {{\n {ANY}\n auth = keys\n {cors}\n}}\n{ALL}");
    let running = Running::start_with(&body, &names).await;
    let asks = [
        ("origin", "https://a.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type"),
    ];
    let answer = running.request("OPTIONS", "/v1/traces", &asks, "").await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (204, "https://a.example"));
    assert_eq!(answer.header("access-control-max-age"), "60");
    let page = [("content-type", JSON), ("origin", "https://a.example"), ("authorization", "key")];
    let answer = running.request("POST", "/v1/traces", &page, TRACES).await;
    assert_eq!((answer.status, answer.header("access-control-allow-credentials")), (200, "true"));
    let answer = running.request("POST", "/v1/traces", &page[..2], TRACES).await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (401, "https://a.example"));

    let lonely = format!("http {{\n {ANY}\n cors {{\n allowed_headers = [\"x\"]\n }}\n}}\n{ALL}");
    let running = Running::start(&lonely).await;
    assert!(running.unit.world.logs().contains("specifies allowed headers but no allowed origins"));
    assert_eq!(running.request("OPTIONS", "/v1/traces", &asks, "").await.status, 405);
}

#[tokio::test]
async fn compression_can_be_restricted_and_extended() {
    let packed = |coding: Coding| coding.pack(None, [LOGS.as_bytes()]).unwrap();
    for (list, gzip, plain, framed) in [
        ("[\"gzip\"]", 200, 400, 400),
        ("[\"\"]", 400, 200, 400),
        ("[]", 200, 200, 200),
        ("[\"x-snappy-framed\"]", 400, 400, 200),
    ] {
        let running = Running::start(&format!("http {{\n {ANY}\n compression_algorithms = {list}\n}}\n{ALL}")).await;
        let got = [
            running.post("/v1/logs", JSON, "gzip", packed(Coding::Gzip)).await.status,
            running.post("/v1/logs", JSON, "", LOGS).await.status,
            running.post("/v1/logs", JSON, "x-snappy-framed", packed(Coding::SnappyFramed)).await.status,
        ];
        assert_eq!(got, [gzip, plain, framed], "{list}");
    }
}

/// A certificate authority, and what it issues: certificate and key, as PEM.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, host: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

/// How a client comes that trusts an authority, with a certificate of its own or without.
fn secured(authority: &Authority, identity: Option<&(String, String)>) -> ClientConfig {
    let mut config = ClientConfig {
        tls_config: TlsConfig { ca_pem: authority.0.pem(), ..TlsConfig::default() },
        ..ClientConfig::default()
    };
    if let Some((cert, key)) = identity {
        config.tls_config.cert_pem = cert.clone();
        config.tls_config.key_pem = Secret::new(key.as_str());
    }
    config
}

#[tokio::test]
async fn over_tls_only_clients_get_in_that_show_a_certificate_where_one_is_wanted() {
    let (authority, clients, strangers) =
        (Authority::new("ca"), Authority::new("clients"), Authority::new("strangers"));
    let sink = OtlpSink::default();
    let world = host("otelcol.receiver.otlp.a");
    let (cert, key) = authority.issue("localhost");
    let ca = world.write("clients.pem", clients.0.pem());
    let names = [("sink", sink.value()), ("cert", Value::string(cert)), ("key", Value::string(key))];
    let body = |more: &str| {
        let tls = format!("tls {{\n cert_pem = cert\n key_pem = key\n {more}\n }}");
        format!("grpc {{\n {ANY}\n {tls}\n}}\nhttp {{\n {ANY}\n {tls}\n}}\n{ALL}")
    };
    let unit = Unit::start_with(world, &DEFINITION, &body(""), &names).await.unwrap();
    let mut running = Running { unit, sink };
    let (http, grpc) = (running.http().await.port(), running.grpc().await.port());
    let arrives = async |identity: Option<&(String, String)>| {
        let over = client(secured(&authority, identity), false).await;
        let request = Request::post(format!("https://localhost:{http}/v1/logs")).header("content-type", JSON);
        let posted = send(&over, request.body(LOGS.into()).unwrap()).await.map(|answer| answer.status);
        let over = client(secured(&authority, identity), true).await;
        let uri: Uri = format!("https://localhost:{grpc}").parse().unwrap();
        let headers = HeaderMap::new();
        let call =
            Call { server: &uri, method: RECORDS, encoding: None, headers, timeout: LIMIT, answer_bytes_max: 99 };
        let called = call.send(&over, vec![message::<LogRecord>(LOGS).into()]).await;
        (posted.is_ok_and(|status| status == 200), called.is_ok())
    };
    assert_eq!(arrives(None).await, (true, true));
    running.unit.update(&body(&format!("client_ca_file = {ca:?}"))).await.unwrap();
    let both = || running.unit.world.logs().matches("Starting ").count() == 4;
    until("the new servers are there", both).await;
    let (known, stranger) = (clients.issue("client"), strangers.issue("stranger"));
    assert_eq!(arrives(None).await, (false, false));
    assert_eq!(arrives(Some(&stranger)).await, (false, false));
    assert_eq!(arrives(Some(&known)).await, (true, true));
}

#[tokio::test]
async fn a_new_certificate_is_read_when_its_time_has_come_and_not_without_one() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    for (interval, follows) in [("1ms", true), ("0s", false), ("1h", false)] {
        let world = host("otelcol.receiver.otlp.a");
        let write = |authority: &Authority| {
            let (cert, key) = authority.issue("localhost");
            (world.write("cert.pem", cert), world.write("key.pem", key))
        };
        let (cert, key) = write(&old);
        let sink = OtlpSink::default();
        let tls = format!("tls {{\n cert_file = {cert:?}\n key_file = {key:?}\n reload_interval = {interval:?}\n }}");
        let body = format!("http {{\n {ANY}\n {tls}\n}}\n{ALL}");
        let unit = Unit::start_with(world.clone(), &DEFINITION, &body, &[("sink", sink.value())]).await.unwrap();
        let running = Running { unit, sink };
        let url = format!("https://localhost:{}/v1/logs", running.http().await.port());
        let trusted = async |authority: &Authority| {
            let request = Request::post(&url).header("content-type", JSON).body(Body::from(LOGS)).unwrap();
            send(&client(secured(authority, None), false).await, request).await.is_ok()
        };
        assert_eq!((trusted(&old).await, trusted(&new).await), (true, false));
        write(&new);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!((trusted(&old).await, trusted(&new).await), (!follows, follows), "{interval}");
    }
}

#[tokio::test]
async fn tls_that_cannot_be_read_is_no_error_of_the_configuration_and_is_tried_again() {
    let authority = Authority::new("ca");
    let world = host("otelcol.receiver.otlp.a");
    let (cert, key) = (world.path("cert.pem"), world.path("key.pem"));
    let tls = format!("tls {{\n cert_file = {cert:?}\n key_file = {key:?}\n }}");
    let sink = OtlpSink::default();
    let body = format!("http {{\n {ANY}\n {tls}\n}}\n{ALL}");
    let unit = Unit::start_with(world.clone(), &DEFINITION, &body, &[("sink", sink.value())]).await.unwrap();
    let running = Running { unit, sink };
    until("it is unhealthy", || {
        world.health_text().starts_with("unhealthy: cannot listen on 127.0.0.1:0: failed to read cert_file")
    })
    .await;
    let (cert_pem, key_pem) = authority.issue("localhost");
    world.write("key.pem", key_pem);
    world.write("cert.pem", cert_pem);
    let url = format!("https://localhost:{}/v1/logs", running.http().await.port());
    let request = Request::post(&url).header("content-type", JSON).body(Body::from(LOGS)).unwrap();
    assert_eq!(send(&client(secured(&authority, None), false).await, request).await.unwrap().status, 200);
    until("it is healthy", || world.health_text().starts_with("healthy")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_arguments_refuse_nobody() {
    let mut running = Running::both().await;
    let body = |at: usize| {
        let grpc = ["max_recv_msg_size = \"2MiB\"", "max_concurrent_streams = 7"][at % 2];
        let http = ["idle_timeout = \"7s\"", "max_request_body_size = \"1MiB\""][at % 2];
        format!("grpc {{\n {ANY}\n {grpc}\n}}\nhttp {{\n {ANY}\n {http}\n}}\n{ALL}")
    };
    let (http, grpc) = (running.http().await, running.grpc().await);
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut clients = tokio::task::JoinSet::new();
    for keeps in [true, false, true, false] {
        let stop = Arc::clone(&stop);
        clients.spawn(async move {
            let (mut over, mut over2) =
                (client(ClientConfig::default(), false).await, client(ClientConfig::default(), true).await);
            let uri: Uri = format!("http://{grpc}").parse().unwrap();
            let mut sent = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                if !keeps {
                    over = client(ClientConfig::default(), false).await;
                    over2 = client(ClientConfig::default(), true).await;
                }
                let request = Request::post(format!("http://{http}/v1/logs")).header("content-type", JSON);
                let answer = send(&over, request.body(LOGS.into()).unwrap()).await;
                assert_eq!(answer.map(|answer| answer.status).map_err(|error| error.to_string()), Ok(200));
                let headers = HeaderMap::new();
                let call = Call {
                    server: &uri,
                    method: RECORDS,
                    encoding: None,
                    headers,
                    timeout: LIMIT,
                    answer_bytes_max: 99,
                };
                call.send(&over2, vec![message::<LogRecord>(LOGS).into()]).await.unwrap();
                sent += 2;
            }
            sent
        });
    }
    // And as often again as a slow machine needs to send something meanwhile.
    for at in 0..2_000 {
        if at >= 20 && running.sink.items() > 50 {
            break;
        }
        running.unit.update(&body(at)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let sent: usize = clients.join_all().await.into_iter().sum();
    assert!(sent > 50, "{sent}");
    assert_eq!(running.sink.items(), sent);
    assert_eq!((running.http().await, running.grpc().await), (http, grpc));
}

#[tokio::test]
async fn hostile_telemetry_is_refused_and_the_rest_goes_on() {
    let limit = "max_request_body_size = \"1MiB\"";
    let running = Running::start(&format!("grpc {{\n {ANY}\n}}\nhttp {{\n {ANY}\n {limit}\n}}\n{ALL}")).await;
    let good = message::<Span>(TRACES);
    let tag = |mut inner: Vec<u8>, tags: &[u8]| {
        for tag in tags {
            let mut outer = vec![*tag];
            let mut len = inner.len();
            while len > 127 {
                outer.push(len as u8 | 128);
                len >>= 7;
            }
            outer.push(len as u8);
            outer.append(&mut inner);
            inner = outer;
        }
        inner
    };
    // An attribute of lists in lists.
    let deep = tag(tag(Vec::new(), &[0x0a, 0x2a].repeat(2000)), &[0x12, 0x4a, 0x12, 0x12, 0x0a]);
    let mut hostile: Vec<Vec<u8>> = (1..good.len()).map(|len| good[..len].to_vec()).collect();
    hostile.extend([deep, vec![0xff; 100], vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0x7f], vec![0x0b], vec![0x0a, 1, 0x80]]);
    for bytes in &hostile {
        let answer = running.post("/v1/traces", PROTOBUF, "", bytes.clone()).await;
        assert_eq!((answer.status, RpcStatus::read(&answer.body).unwrap().code), (400, 3), "{bytes:?}");
        let error = running.call(SPANS, CallOf::default(), bytes.clone()).await.unwrap_err();
        assert_eq!(error.code, Code::INTERNAL, "{bytes:?}");
    }
    let deep = format!(
        r#"{{"resourceSpans":[{{"resource":{{"attributes":[{{"key":"a","value":{}{{}}{}}}]}}}}]}}"#,
        r#"{"arrayValue":{"values":["#.repeat(5000),
        "]}}".repeat(5000)
    );
    for json in
        [&deep, "[[[[", "{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":[{\"traceId\":\"00\"}]}]}]}", "nul", "\u{0}"]
    {
        assert_eq!(running.post("/v1/traces", JSON, "", json.to_owned()).await.status, 400);
    }
    for (name, coding) in
        [("gzip", Coding::Gzip), ("zstd", Coding::Zstd), ("snappy", Coding::Snappy), ("lz4", Coding::Lz4)]
    {
        let bomb = coding.pack(None, [&vec![0u8; 4 << 20][..]]).unwrap();
        let answer = running.post("/v1/traces", PROTOBUF, name, bomb.clone()).await;
        assert_eq!(answer.status, 400, "{name} {}", answer.text());
        let packed = coding.pack(None, [&good[..]]).unwrap();
        for bytes in [&packed[..packed.len() - 1], &packed[..1], &[]] {
            let answer = running.post("/v1/traces", PROTOBUF, name, bytes.to_vec()).await;
            // Some have no end that can be missing.
            assert!(answer.status == 400 || name == "lz4" || name == "zstd", "{name} {bytes:?} {}", answer.text());
        }
    }
    let before = running.sink.items();
    assert_eq!(running.post("/v1/traces", JSON, "", TRACES).await.status, 200);
    assert_eq!(running.sink.items(), before + 1);
}

#[tokio::test]
async fn a_body_that_is_announced_to_be_too_long_is_refused_before_it_comes() {
    let running = Running::both().await;
    let mut stream = TcpStream::connect(running.http().await).await.unwrap();
    let head =
        "POST /v1/logs HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 400");
}

#[tokio::test]
async fn a_body_that_takes_too_long_is_refused_where_that_is_limited() {
    let running = Running::start(&format!("http {{\n {ANY}\n read_timeout = \"500ms\"\n}}\n{ALL}")).await;
    let mut stream = TcpStream::connect(running.http().await).await.unwrap();
    let head = "POST /v1/logs HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn a_thousand_connections_that_say_nothing_keep_nobody_out() {
    let running = Running::both().await;
    let (http, grpc) = (running.http().await, running.grpc().await);
    let mut idle = Vec::new();
    // Both ends of each are open in this process.
    corten_os::limits::raise_open_files_limit();
    for _ in 0..500 {
        idle.push(TcpStream::connect(http).await.unwrap());
        idle.push(TcpStream::connect(grpc).await.unwrap());
    }
    assert_eq!(running.post("/v1/logs", JSON, "", LOGS).await.status, 200);
    assert!(running.call(RECORDS, CallOf::default(), message::<LogRecord>(LOGS)).await.is_ok());
}

#[tokio::test]
async fn connections_are_closed_after_a_request_where_they_are_not_to_be_kept() {
    for (kept, closes) in [("true", false), ("false", true)] {
        let running = Running::start(&format!("http {{\n {ANY}\n keep_alives_enabled = {kept}\n}}\n{ALL}")).await;
        let mut stream = TcpStream::connect(running.http().await).await.unwrap();
        stream.write_all(b"GET /v1/logs HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut answer = vec![0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, b"HTTP/1.1 405");
        let wait = if closes { LIMIT } else { Duration::from_millis(300) };
        let ended = tokio::time::timeout(wait, stream.read_to_end(&mut answer)).await.is_ok();
        assert_eq!(ended, closes);
    }
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The beginning of a connection.
async fn http2(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&frame(4, 0, 0, b"")).await.unwrap();
    stream
}

/// The headers of a call, written out.
fn call_headers() -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", RECORDS),
        (":authority", "a"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        out.extend([0, name.len() as u8]);
        out.extend(name.as_bytes());
        out.push(value.len() as u8);
        out.extend(value.as_bytes());
    }
    out
}

#[tokio::test]
async fn who_pings_too_often_is_told_so_and_who_may_is_not() {
    const CALM: &[u8] = b"\0\0\0\x0btoo_many_pings";
    let ack = frame(6, 1, 0, b"12345678");
    for (policy, ends) in [
        ("", true),
        ("enforcement_policy {\n permit_without_stream = true\n }", true),
        ("enforcement_policy {\n min_time = \"1ms\"\n permit_without_stream = true\n }", false),
    ] {
        let running = Running::start(&format!("grpc {{\n {ANY}\n keepalive {{\n {policy}\n }}\n}}\n{ALL}")).await;
        let mut stream = http2(running.grpc().await).await;
        let mut answer = Vec::new();
        for ping in 1..=8 {
            // Who was told has been hung up on.
            let _ = stream.write_all(&frame(6, 0, 0, b"12345678")).await;
            // Each is answered before the next one is sent, so that they come as far apart as they are sent.
            while answer.windows(ack.len()).filter(|bytes| *bytes == ack).count() < ping
                && matches!(stream.read_buf(&mut answer).await, Ok(1..))
            {}
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let wait = if ends { LIMIT } else { Duration::from_millis(300) };
        let ended = tokio::time::timeout(wait, stream.read_to_end(&mut answer)).await;
        assert_eq!(answer.windows(CALM.len()).any(|bytes| bytes == CALM), ends, "{policy} {answer:?}");
        assert_eq!(ended.is_ok(), ends, "{policy}");
    }
}

#[tokio::test]
async fn connections_end_when_they_are_idle_too_old_or_dead() {
    for parameters in [
        "max_connection_idle = \"50ms\"",
        "max_connection_age = \"50ms\"\n max_connection_age_grace = \"50ms\"",
        "time = \"1s\"\n timeout = \"50ms\"",
    ] {
        let keepalive = format!("keepalive {{\n server_parameters {{\n {parameters}\n }}\n }}");
        let running = Running::start(&format!("grpc {{\n {ANY}\n {keepalive}\n}}\n{ALL}")).await;
        let mut stream = http2(running.grpc().await).await;
        stream.write_all(&frame(4, 1, 0, b"")).await.unwrap();
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(LIMIT, stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "{parameters}");
    }
}

#[tokio::test]
async fn calls_that_are_given_up_one_after_the_other_harm_nobody() {
    let running = Running::both().await;
    let mut stream = http2(running.grpc().await).await;
    for stream_id in (1..4001).step_by(2) {
        let mut both = frame(1, 4, stream_id, &call_headers());
        both.extend(frame(3, 0, stream_id, &8u32.to_be_bytes()));
        if stream.write_all(&both).await.is_err() {
            break;
        }
    }
    assert!(running.call(RECORDS, CallOf::default(), message::<LogRecord>(LOGS)).await.is_ok());
    assert_eq!(running.sink.items(), 1);
}

#[tokio::test]
async fn a_call_ends_when_its_client_waits_no_longer() {
    let running = Running::both().await;
    running.sink.keep_acks();
    let uri: Uri = format!("http://{}", running.grpc().await).parse().unwrap();
    let over = client(ClientConfig::default(), true).await;
    let request = Request::post(format!("{uri}{}", &RECORDS[1..]))
        .header("content-type", "application/grpc")
        .header("grpc-timeout", "50m");
    let message = message::<LogRecord>(LOGS);
    let sent = [&[0, 0, 0, 0, message.len() as u8][..], &message].concat();
    let answer = send(&over, request.body(sent.into()).unwrap()).await.unwrap();
    assert_eq!((answer.header("grpc-status"), answer.header("grpc-message")), ("4", "context deadline exceeded"));
}

#[cfg(unix)]
#[tokio::test]
async fn a_socket_in_the_file_system_is_listened_on() {
    let sink = OtlpSink::default();
    let world = host("otelcol.receiver.otlp.a");
    let path = world.path("s");
    let body = format!("grpc {{\n endpoint = {path:?}\n transport = \"unix\"\n}}\n{ALL}");
    let mut unit = Unit::start_with(world, &DEFINITION, &body, &[("sink", sink.value())]).await.unwrap();
    until("it listens", || path.exists()).await;
    let options =
        ClientOptions { http2_prior_knowledge: true, unix_socket: Some(path.clone()), ..ClientOptions::default() };
    let over = Client::new(ClientConfig::default(), options).await.unwrap();
    let uri: Uri = "http://localhost".parse().unwrap();
    let headers = HeaderMap::new();
    let call = Call { server: &uri, method: RECORDS, encoding: None, headers, timeout: LIMIT, answer_bytes_max: 99 };
    call.send(&over, vec![message::<LogRecord>(LOGS).into()]).await.unwrap();
    assert_eq!(sink.items(), 1);
    unit.drain().await;
    assert!(!path.exists());
}

#[test]
fn codes_of_both_protocols_stand_for_each_other() {
    for (code, status) in [
        (Code::CANCELLED, 503),
        (Code::UNKNOWN, 500),
        (Code::INVALID_ARGUMENT, 400),
        (Code::DEADLINE_EXCEEDED, 503),
        (Code::NOT_FOUND, 500),
        (Code::ALREADY_EXISTS, 500),
        (Code::PERMISSION_DENIED, 403),
        (Code::RESOURCE_EXHAUSTED, 429),
        (Code::FAILED_PRECONDITION, 500),
        (Code::ABORTED, 503),
        (Code::OUT_OF_RANGE, 503),
        (Code::UNIMPLEMENTED, 404),
        (Code::INTERNAL, 500),
        (Code::UNAVAILABLE, 503),
        (Code::DATA_LOSS, 503),
        (Code::UNAUTHENTICATED, 401),
        (Code(99), 500),
    ] {
        assert_eq!(http_code(code).as_u16(), status, "{code:?}");
    }
    for (status, code) in [
        (400, Code::INVALID_ARGUMENT),
        (401, Code::UNAUTHENTICATED),
        (403, Code::PERMISSION_DENIED),
        (404, Code::UNIMPLEMENTED),
        (429, Code::RESOURCE_EXHAUSTED),
        (502, Code::UNAVAILABLE),
        (503, Code::UNAVAILABLE),
        (504, Code::UNAVAILABLE),
        (500, Code::UNKNOWN),
        (413, Code::UNKNOWN),
    ] {
        assert_eq!(rpc_code(StatusCode::from_u16(status).unwrap()), code, "{status}");
    }
}

proptest! {
    #[test]
    fn no_content_type_makes_it_panic(text in "[ -~]{0,40}") {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_str(&text).unwrap());
        let _ = Encoding::of(&headers);
    }
}
