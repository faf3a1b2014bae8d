//! `otelcol.exporter.otlphttp`.

use std::sync::Arc;

use bytes::Bytes;
use corten_component::{Component, Context, Error};
use corten_config::arguments::CheckErrors;
use corten_config::schema::Stability;
use corten_config::{Arguments, StringEnum};
use corten_net::grpc::{Code, Status};
use corten_net::redact_url;
use corten_otlp::{Batch, OtlpSignal, PartialSuccess, RequestContext, RpcStatus};
use corten_signal::flow::BoxFuture;
use http::{HeaderMap, StatusCode, Uri, header};

use super::compression::{computed, sendable};
use super::http_client::{HttpClient, HttpClientArguments, asked_wait};
use super::queue::QueueArguments;
use super::rejected::{Rejected, SHOWN_BYTES_MAX};
use super::retry::RetryArguments;
use super::sending::{Failure, Owner, Post, PreparedSending, Pushes, Sending, ServerName};
use crate::flow::{DebugMetrics, Inlets, Input};

/// Sends telemetry to a server over HTTP, in OpenTelemetry's own protocol.
///
/// What was received is sent as it is, without being decoded, unless a component on its way changed it.
///
/// Requests that fail for a reason that may pass are sent again: when the server cannot be reached, does not answer in time or
/// answers with the status 429, 502, 503 or 504. After 429 and 503 no sooner than it asks with `Retry-After`. What is given
/// up is counted and logged. Redirects are followed where they ask for the same request, with 307 and 308.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct OtlpHttpArguments {
    /// The URL for traces, as it is written. Without it that is `/v1/traces` below the `endpoint` of the client.
    #[arg(default_with = String::new, default_text = "client.endpoint + \"/v1/traces\"")]
    traces_endpoint: String,
    /// The URL for metrics, as it is written. Without it that is `/v1/metrics` below the `endpoint` of the client.
    #[arg(default_with = String::new, default_text = "client.endpoint + \"/v1/metrics\"")]
    metrics_endpoint: String,
    /// The URL for logs, as it is written. Without it that is `/v1/logs` below the `endpoint` of the client.
    #[arg(default_with = String::new, default_text = "client.endpoint + \"/v1/logs\"")]
    logs_endpoint: String,
    /// What requests are written in.
    #[arg(default = "proto")]
    encoding: Encoding,
    /// Keeps telemetry until it is sent.
    #[block(default)]
    sending_queue: QueueArguments,
    /// When a request that failed is sent again.
    #[block(default)]
    retry_on_failure: RetryArguments,
    /// Which metrics of its own the component has.
    #[block(default)]
    debug_metrics: DebugMetrics,
    /// How to talk to the server.
    #[block]
    client: HttpClientArguments,
}

/// What requests are written in.
#[derive(StringEnum, Clone, Copy, Debug, PartialEq, Eq)]
#[string_enum(refusal = invalid_encoding)]
pub enum Encoding {
    /// Protocol buffers.
    Proto,
    /// JSON.
    Json,
}

fn invalid_encoding(text: &str) -> String {
    format!("invalid encoding type {text}")
}

impl Encoding {
    fn content_type(self) -> &'static str {
        match self {
            Encoding::Proto => PROTO,
            Encoding::Json => JSON,
        }
    }
}

const PROTO: &str = "application/x-protobuf";
const JSON: &str = "application/json";

impl OtlpHttpArguments {
    fn check(&self) -> Result<(), CheckErrors> {
        let endpoints = [&self.client.endpoint, &self.traces_endpoint, &self.metrics_endpoint, &self.logs_endpoint];
        let mut errors = CheckErrors::new();
        errors.require(
            endpoints.iter().any(|endpoint| !endpoint.is_empty()),
            &["client", "traces_endpoint", "metrics_endpoint", "logs_endpoint"],
            "at least one endpoint must be specified",
        );
        errors.into_result()
    }

    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        // That there is none at all was said.
        if self.check().is_ok() {
            for (signal, field, own) in [
                ("traces", "traces_endpoint", &self.traces_endpoint),
                ("metrics", "metrics_endpoint", &self.metrics_endpoint),
                ("logs", "logs_endpoint", &self.logs_endpoint),
            ] {
                if let Err(text) = signal_uri(&self.client.endpoint, own, signal) {
                    errors.push(&[field, "client"], text);
                }
            }
        }
        errors.into_result()
    }
}

/// Where requests of a signal go.
fn signal_uri(endpoint: &str, own: &str, signal: &str) -> Result<Uri, String> {
    let (text, field) = match (own, endpoint) {
        ("", "") => return Err(format!("either endpoint or {signal}_endpoint must be specified")),
        ("", endpoint) => {
            (format!("{}/v1/{signal}", endpoint.strip_suffix('/').unwrap_or(endpoint)), "endpoint".to_owned())
        }
        (own, _) => (own.to_owned(), format!("{signal}_endpoint")),
    };
    let uri = text.parse::<Uri>().map_err(|_| format!("{field} must be a valid URL"))?;
    // What is no port would be passed over, and that of the scheme be used.
    let has_place = uri.authority().is_some_and(|authority| {
        let (host, port) = (authority.host(), authority.port_u16());
        !host.is_empty() && (port.is_some() || authority.as_str().trim_end_matches(':').ends_with(host))
    });
    match uri.scheme_str() {
        Some("http" | "https") if has_place => Ok(uri),
        _ => Err(format!("{field} must be a valid URL")),
    }
}

/// The component.
pub struct OtlpHttpExporter {
    inlets: Arc<Inlets>,
    sending: Sending,
}

/// What is to be put in place.
pub struct Prepared {
    inlets: Arc<Inlets>,
    sending: PreparedSending,
}

impl Component for OtlpHttpExporter {
    const NAME: &'static str = "otelcol.exporter.otlphttp";
    type Arguments = OtlpHttpArguments;
    type Exports = Input;
    type Prepared = Prepared;

    async fn prepare(
        arguments: OtlpHttpArguments,
        cx: &Context<Self>,
        current: Option<&Self>,
    ) -> Result<(Prepared, Input), Error> {
        let owner = Owner::of(cx, "otlphttp");
        let endpoint = &arguments.client.endpoint;
        let traces = signal_uri(endpoint, &arguments.traces_endpoint, "traces")?;
        let metrics = signal_uri(endpoint, &arguments.metrics_endpoint, "metrics")?;
        let logs = signal_uri(endpoint, &arguments.logs_endpoint, "logs")?;
        let to = [&traces, &metrics, &logs];
        let client = HttpClient::new(&arguments.client, &to, cx.services(), cx.metrics(), owner.name()).await?;
        let encoding = arguments.encoding;
        let shared = Arc::new(Shared { client, encoding, rejected: Rejected::new(&owner) });
        let pushes = Pushes {
            traces: Some(Arc::new(OtlpHttp::new(&shared, traces))),
            metrics: Some(Arc::new(OtlpHttp::new(&shared, metrics))),
            logs: Some(Arc::new(OtlpHttp::new(&shared, logs))),
        };
        let sending = current.map(|current| &current.sending);
        let OtlpHttpArguments { sending_queue, retry_on_failure, .. } = arguments;
        let sending = Sending::prepare(owner, pushes, &sending_queue, &retry_on_failure, sending).await?;
        let inlets = current.map_or_else(|| Inlets::of(cx.ledger()), |current| Arc::clone(&current.inlets));
        let exports = inlets.exports();
        Ok((Prepared { inlets, sending }, exports))
    }

    fn commit(current: Option<Self>, prepared: Prepared, cx: &Context<Self>) -> Self {
        let Prepared { inlets, sending } = prepared;
        let sending = Sending::commit(current.map(|current| current.sending), sending);
        sending.show(cx);
        inlets.attach(sending.stages());
        OtlpHttpExporter { inlets, sending }
    }

    async fn drain(self, _: &Context<Self>) {
        self.inlets.close();
        self.sending.drain().await;
    }
}

/// What the signals have in common.
struct Shared {
    client: HttpClient,
    encoding: Encoding,
    rejected: Rejected,
}

/// Sends export requests of a signal to a server.
struct OtlpHttp {
    shared: Arc<Shared>,
    uri: Uri,
    /// The address for errors and logs.
    shown: String,
    port: String,
}

impl OtlpHttp {
    fn new(shared: &Arc<Shared>, uri: Uri) -> Self {
        let shown = redact_url(&uri.to_string());
        let port = uri.port_u16().map(|port| port.to_string()).unwrap_or_default();
        OtlpHttp { shared: Arc::clone(shared), uri, shown, port }
    }
}

impl<S: OtlpSignal> Post<S> for OtlpHttp {
    fn pack(self: Arc<Self>, batch: Batch<S::Record>) -> BoxFuture<'static, Result<Vec<Bytes>, Failure>> {
        let encoding = self.shared.encoding;
        let computes = self.shared.client.packs() || encoding == Encoding::Json;
        let bytes = if computes { batch.held_bytes() } else { 0 };
        Box::pin(async move {
            let packed = computed(bytes, move || {
                let pieces = match encoding {
                    Encoding::Proto => batch.message().cloned().collect(),
                    Encoding::Json => vec![batch.to_json().into()],
                };
                self.shared.client.pack(pieces)
            });
            sendable(packed.await)
        })
    }

    fn send<'a>(&'a self, body: Vec<Bytes>, context: &'a RequestContext) -> BoxFuture<'a, Result<usize, Failure>> {
        Box::pin(async move {
            let shared = &self.shared;
            let answer = shared.client.post(&self.uri, shared.encoding.content_type(), body, context).await?;
            if !answer.status.is_success() {
                return Err(refused(&self.shown, answer.status, &answer.headers, answer.body.ok()));
            }
            let body = answer.body.map_err(Failure::permanent)?;
            let content_type = answer.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
            let partial = match content_type {
                _ if body.is_empty() => None,
                Some(PROTO) => PartialSuccess::read::<S::Record>(&body)
                    .map_err(|error| Failure::permanent(format!("error parsing protobuf response: {error}")))?,
                Some(JSON) => PartialSuccess::read_json::<S::Record>(&body)
                    .map_err(|error| Failure::permanent(format!("error parsing json response: {error}")))?,
                _ => None,
            };
            Ok(shared.rejected.say::<S>(partial))
        })
    }

    fn reads_context(&self) -> bool {
        self.shared.client.reads_context()
    }

    fn server(&self) -> ServerName<'_> {
        let path = if self.uri.path() == "/" { "" } else { self.uri.path() };
        ServerName { address: self.uri.host().unwrap_or_default(), port: &self.port, path }
    }

    fn url(&self) -> String {
        self.shown.clone()
    }
}

/// What an answer means that is not a success.
fn refused(url: &str, status: StatusCode, headers: &HeaderMap, body: Option<Bytes>) -> Failure {
    let number = status.as_u16();
    let code = match number {
        400 => Code::INVALID_ARGUMENT,
        401 => Code::UNAUTHENTICATED,
        403 => Code::PERMISSION_DENIED,
        404 => Code::UNIMPLEMENTED,
        429 => Code::RESOURCE_EXHAUSTED,
        502..=504 => Code::UNAVAILABLE,
        _ => Code::UNKNOWN,
    };
    let mut text = format!("error exporting items, request to {url} responded with HTTP Status Code {number}");
    // The answer is to be a status of gRPC, also where the request is JSON.
    let said = body.filter(|_| (400..600).contains(&number)).and_then(|body| RpcStatus::read(&body).ok());
    if let Some(said) = said {
        let end = said.message.floor_char_boundary(SHOWN_BYTES_MAX);
        text = format!("{text}, Message={}, Details=[]", &said.message[..end]);
    }
    let passes = matches!(number, 429 | 502..=504);
    Failure {
        permanent: !passes,
        after: if matches!(number, 429 | 503) { asked_wait(headers) } else { None },
        kind: code.shown(),
        ..Failure::passing(Status::new(code, text).to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use corten_coding::Coding;
    use corten_component::Definition;
    use corten_otlp::RequestContext;
    use corten_signal::acks::{Answer, waiter};
    use corten_signal::{ConsumeError, Kind};
    use corten_testkit::{Seen, Server, Unit, World, answer, host, otlp, stays, until};
    use http::HeaderValue;
    use parking_lot::Mutex;

    use super::super::testing::{
        books, entrance, logs, metric, numbers, refused, send, settles, start, with_acks, with_header,
    };
    use super::*;
    use crate::auth::{AuthError, ClientAuth, Handler};
    use crate::storage::file::FileStorage;

    const ID: &str = "otelcol.exporter.otlphttp.a";
    const DEFINITION: Definition = Definition::of::<OtlpHttpExporter>();
    /// Retries follow each other at once.
    const SOON: &str = "retry_on_failure {\n initial_interval = \"1ms\"\n max_interval = \"1ms\"\n}\n";

    fn client(server: &Server, more: &str) -> String {
        format!("client {{\n endpoint = \"{}\"\n compression = \"none\"\n{more}\n}}\n", server.url(""))
    }

    async fn exporter(body: &str) -> Unit {
        start(host(ID), &DEFINITION, body, &[]).await.unwrap()
    }

    /// A server that says `503` as long as it is told so.
    async fn flaky() -> (Server, Arc<AtomicBool>) {
        let down = Arc::new(AtomicBool::new(true));
        let is_down = Arc::clone(&down);
        let server = Server::start(move |_| answer(if is_down.load(Ordering::SeqCst) { 503 } else { 200 }, &[], ""));
        (server.await, down)
    }

    fn received(server: &Server) -> Vec<Vec<usize>> {
        server.seen().iter().map(|seen| numbers(&seen.body)).collect()
    }

    /// A storage in the folder of a world, which outlives the exporters that use it.
    async fn storage(world: &World, body: &str) -> Handler {
        let directory = world.path("storage");
        let body = format!("directory = {:?}\n{body}", directory.display().to_string());
        let unit = Unit::start(host("otelcol.storage.file.a"), &Definition::of::<FileStorage>(), &body).await.unwrap();
        let exports = unit.world.exports();
        let handler = exports.last().and_then(|exports| exports.field("handler")).unwrap();
        handler.as_capsule().unwrap().as_any().downcast_ref::<Handler>().unwrap().clone()
    }

    #[tokio::test]
    async fn each_signal_goes_to_its_address_as_it_was_received() {
        let server = Server::start(|_| answer(200, &[], "")).await;
        let body = format!("traces_endpoint = \"{}\"\n{}", server.url("/t?x=1"), client(&server, ""));
        let unit = exporter(&body).await;
        let to = unit.world.consumer("input");
        let spans = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"a"}]}]}]}"#;
        to.traces.consume(otlp(spans)).await.unwrap();
        let points = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"a","gauge":{"dataPoints":[{"asInt":"1"}]}}]}]}]}"#;
        to.metrics.consume(otlp(points)).await.unwrap();
        to.logs.consume(logs(0..3)).await.unwrap();
        until("all have arrived", || server.seen().len() == 3).await;
        let mut seen = server.seen();
        seen.sort_by_key(|seen| seen.target.clone());
        let targets: Vec<&str> = seen.iter().map(|seen| seen.target.as_str()).collect();
        assert_eq!(targets, ["/t?x=1", "/v1/logs", "/v1/metrics"]);
        assert_eq!(numbers(&seen[1].body), [0, 1, 2]);
        assert_eq!(seen[1].header("content-type"), "application/x-protobuf");
        assert_eq!(seen[1].header("content-encoding"), "");
        assert_eq!(seen[1].header("user-agent"), "Corten/v0.0.0 (test; binary)");
        until("they are counted", || metric(&unit, "otelcol_exporter_sent_log_records_total") == 3.0).await;
        until("they are counted", || metric(&unit, "otelcol_exporter_sent_spans_total") == 1.0).await;
        until("they are counted", || metric(&unit, "otelcol_exporter_sent_metric_points_total") == 1.0).await;
        let labels = [
            ("exporter", "otlphttp/otelcol.exporter.otlphttp.a"),
            ("otel_scope_name", "go.opentelemetry.io/collector/exporter/exporterhelper"),
            ("otel_scope_version", ""),
            ("otel_scope_schema_url", ""),
            ("server_address", "127.0.0.1"),
            ("server_port", &server.address().port().to_string()),
            ("url_path", "/v1/logs"),
        ];
        assert_eq!(unit.world.metrics().get("otelcol_exporter_sent_log_records_total", &labels), Some(3.0));
        assert_eq!(metric(&unit, "http_client_request_duration_seconds_count"), 3.0);
    }

    #[tokio::test]
    async fn each_status_has_its_meaning() {
        let status = Arc::new(Mutex::new((200u16, None::<&str>, Vec::new())));
        let said = Arc::clone(&status);
        let server = Server::start(move |_| {
            let (status, retry_after, body) = said.lock().clone();
            let headers: Vec<(&str, &str)> = retry_after.map(|after| ("retry-after", after)).into_iter().collect();
            answer(status, &headers, body)
        });
        let server = server.await;
        let unit = exporter(&format!(
            "sending_queue {{\n enabled = false\n}}\nretry_on_failure {{\n enabled = false\n}}\n{}",
            client(&server, "")
        ))
        .await;
        let url = server.url("/v1/logs");
        let text = |number: u16, code: &str, more: &str| {
            format!(
                "rpc error: code = {code} desc = error exporting items, request to {url} responded with HTTP Status Code {number}{more}"
            )
        };
        let empty = ", Message=, Details=[]";
        let said = ", Message=too much, Details=[]";
        let status_body = RpcStatus { code: 8, message: "too much".into(), retry_delay_ms: None }.encode();
        let seconds = Duration::from_secs;
        for (number, retry_after, body, code, more, passes, after) in [
            (400, None, vec![], "InvalidArgument", empty, false, None),
            (401, None, vec![], "Unauthenticated", empty, false, None),
            (403, None, b"no".to_vec(), "PermissionDenied", "", false, None),
            (404, None, vec![], "Unimplemented", empty, false, None),
            (413, None, vec![], "Unknown", empty, false, None),
            (429, None, status_body.clone(), "ResourceExhausted", said, true, None),
            (429, Some("7"), vec![], "ResourceExhausted", empty, true, Some(seconds(7))),
            (500, Some("7"), vec![], "Unknown", empty, false, None),
            (501, None, vec![], "Unknown", empty, false, None),
            (502, Some("7"), vec![], "Unavailable", empty, true, None),
            (503, Some("9"), vec![], "Unavailable", empty, true, Some(seconds(9))),
            (503, Some("soon"), vec![], "Unavailable", empty, true, None),
            (504, None, vec![], "Unavailable", empty, true, None),
            (304, None, vec![], "Unknown", "", false, None),
        ] {
            *status.lock() = (number, retry_after, body);
            let error = send(&unit, 0..1).await.unwrap_err();
            let reason = text(number, code, more);
            let want = match passes {
                true => ConsumeError::Retry { after, reason },
                false => ConsumeError::Refused { reason },
            };
            assert_eq!(error, want, "{number}");
        }
        for number in [200, 202, 204] {
            *status.lock() = (number, None, vec![]);
            assert_eq!(send(&unit, 0..1).await, Ok(()), "{number}");
        }
        assert!(unit.world.logs().contains(
            "msg=\"Exporting failed. Rejecting data. Try enabling retry_on_failure config option to retry on retryable \
             errors. Try enabling sending_queue to survive temporary failures.\""
        ));
        assert_eq!(metric(&unit, "otelcol_exporter_send_failed_log_records_total"), 14.0);
        assert_eq!(metric(&unit, "otelcol_exporter_sent_log_records_total"), 3.0);
        assert_eq!(books(&unit, Kind::OtelLog), "taken 3, out 3 | offered 3, delivered 3");
    }

    #[tokio::test]
    async fn an_answer_that_is_no_answer_is_an_error_and_a_partial_success_is_not() {
        let said = Arc::new(Mutex::new((PROTO, Vec::new())));
        let says = Arc::clone(&said);
        let server = Server::start(move |_| {
            let (content_type, body) = says.lock().clone();
            answer(200, &[("content-type", content_type)], body)
        });
        let server = server.await;
        let unit = exporter(&format!("sending_queue {{\n enabled = false\n}}\n{}", client(&server, ""))).await;
        for (content_type, body, error) in [
            (PROTO, &b"\x0a\x06\x08\x03\x12\x02no"[..], ""),
            (JSON, br#"{"partialSuccess":{"rejectedLogRecords":"4","errorMessage":"no"}}"#, ""),
            (JSON, b"{}", ""),
            ("text/plain", b"\xff", ""),
            (PROTO, b"\xff", "error parsing protobuf response: "),
            (JSON, b"{", "error parsing json response: "),
        ] {
            *said.lock() = (content_type, body.to_vec());
            match send(&unit, 0..5).await {
                Ok(()) => assert_eq!(error, "", "{body:?}"),
                Err(ConsumeError::Refused { reason }) => {
                    assert!(reason.starts_with(&format!("not retryable error: Permanent error: {error}")), "{reason}");
                }
                Err(other) => panic!("{other:?}"),
            }
        }
        let logged = unit.world.logs();
        assert!(logged.contains("msg=\"Partial success response\""), "{logged}");
        assert!(logged.contains("message=no dropped_log_records=3"), "{logged}");
        assert_eq!(metric(&unit, "corten_exporter_rejected_items_total"), 7.0);
        let want = "taken 20, out 20 | offered 20, delivered 13, dropped {rejected: 7}";
        assert_eq!(books(&unit, Kind::OtelLog), want);
    }

    #[tokio::test]
    async fn a_redirect_is_followed_only_with_the_body() {
        let server = Server::start(|seen: &Seen| match seen.target.as_str() {
            "/taken" | "/login" => answer(200, &[], ""),
            "/v1/traces" => answer(307, &[("location", "/taken")], ""),
            "/v1/metrics" => answer(308, &[("location", "/taken")], ""),
            // What asks for a GET would answer that, and nobody would have the records.
            _ => answer(302, &[("location", "/login")], ""),
        });
        let server = server.await;
        let unit = exporter(&format!("sending_queue {{\n enabled = false\n}}\n{}", client(&server, ""))).await;
        let error = send(&unit, 0..3).await.unwrap_err().to_string();
        assert!(error.ends_with("responded with HTTP Status Code 302"), "{error}");
        assert_eq!(server.seen().len(), 1);
        let to = unit.world.consumer("input");
        to.traces.consume(otlp(r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"a"}]}]}]}"#)).await.unwrap();
        let seen = server.seen();
        let seen: Vec<(&str, &str)> = seen[1..].iter().map(|seen| (seen.method.as_str(), &*seen.target)).collect();
        assert_eq!(seen, [("POST", "/v1/traces"), ("POST", "/taken")]);
        assert_eq!(server.seen()[1].body, server.seen()[2].body);
    }

    #[test]
    fn of_what_a_server_says_the_beginning_is_shown() {
        let body = RpcStatus { code: 8, message: "ä".repeat(30_000), retry_delay_ms: None }.encode();
        let failure = super::refused("http://a", StatusCode::TOO_MANY_REQUESTS, &HeaderMap::new(), Some(body.into()));
        assert!((SHOWN_BYTES_MAX..SHOWN_BYTES_MAX + 200).contains(&failure.text.len()), "{}", failure.text.len());
    }

    #[tokio::test]
    async fn what_may_pass_is_sent_again_until_it_is_taken() {
        let calls = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&calls);
        let server =
            Server::start(move |_| answer(if count.fetch_add(1, Ordering::SeqCst) < 3 { 503 } else { 200 }, &[], ""));
        let server = server.await;
        let unit = exporter(&format!("{SOON}{}", client(&server, ""))).await;
        let (acks, mut told) = waiter();
        entrance(&unit).consume(with_acks(0..2, acks)).await.unwrap();
        assert_eq!(told.wait(Duration::from_secs(20)).await, Answer::Held);
        until("it is taken", || metric(&unit, "otelcol_exporter_sent_log_records_total") == 2.0).await;
        assert_eq!(received(&server), vec![vec![0, 1]; 4]);
        assert_eq!(metric(&unit, "otelcol_exporter_send_failed_log_records_total"), 0.0);
        assert_eq!(metric(&unit, "otelcol_exporter_queue_size"), 0.0);
        assert_eq!(metric(&unit, "otelcol_exporter_queue_capacity"), 3000.0);
        assert!(unit.world.logs().contains("msg=\"Exporting failed. Will retry the request after interval.\""));
        settles(&unit, Kind::OtelLog, "taken 2, out 2 | offered 2, delivered 2").await;
        let end = unit.world.balance().ends.remove(0);
        assert_eq!((end.retries, end.in_flight, end.pending_bytes, end.oldest_ms), (3, 0, 0, None));
        assert_eq!((end.url, end.capacity_bytes), (server.url("/v1/logs"), None));
        assert_eq!(end.name, format!("{} (logs)", server.address()));
        assert_eq!(end.last_answer.map(|(_, text)| text).as_deref(), Some("ok"));
    }

    #[tokio::test]
    async fn what_is_given_up_is_counted_and_logged_and_its_source_goes_on() {
        let server = Server::start(|seen: &Seen| match seen.target.as_str() {
            "/v1/traces" => answer(400, &[], ""),
            _ => answer(429, &[("retry-after", "3600")], ""),
        });
        let server = server.await;
        let unit = exporter(&format!("{SOON}{}", client(&server, ""))).await;
        let (acks, mut told) = waiter();
        entrance(&unit).consume(with_acks(0..2, acks)).await.unwrap();
        let (spans_acks, mut spans_told) = waiter();
        let mut spans: corten_otlp::Batch<corten_otlp::Span> =
            otlp(r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"a"}]}]}]}"#);
        spans.acks = spans_acks;
        unit.world.consumer("input").traces.consume(spans).await.unwrap();
        until("it is given up", || metric(&unit, "otelcol_exporter_send_failed_log_records_total") == 2.0).await;
        until("it is given up", || metric(&unit, "otelcol_exporter_send_failed_spans_total") == 1.0).await;
        until("both are said", || unit.world.logs().matches("Exporting failed. Dropping data.").count() == 2).await;
        let logged = unit.world.logs();
        assert!(logged.contains("error=\"no more retries left: Throttle (1h0m0s), error: rpc error: "), "{logged}");
        assert!(logged.contains("error=\"not retryable error: Permanent error: rpc error: "), "{logged}");
        assert!(logged.contains("dropped_items=2"), "{logged}");
        // Whether it was told before is a matter of time.
        for told in [&mut told, &mut spans_told] {
            assert_ne!(told.wait(Duration::from_secs(20)).await, Answer::Failed);
        }
        let failed = unit.world.metrics().text();
        assert!(failed.contains("error_permanent=\"false\",error_type=\"ResourceExhausted\""), "{failed}");
        settles(&unit, Kind::OtelLog, "taken 2, out 2 | offered 2, dropped {no more retries: 2}").await;
        settles(&unit, Kind::OtelTrace, "taken 1, out 1 | offered 1, dropped {permanent error: 1}").await;
        let answers: Vec<String> =
            unit.world.balance().ends.into_iter().filter_map(|end| Some(end.last_answer?.1)).collect();
        assert!(answers.iter().any(|answer| answer.starts_with("Throttle (1h0m0s), error: ")), "{answers:?}");
    }

    #[tokio::test]
    async fn requests_are_packed_as_they_are_told() {
        let server = Server::start(|_| answer(200, &[], "")).await;
        for (compression, params, name, coding, magic) in [
            ("gzip", "", "gzip", Coding::Gzip, &[0x1f, 0x8b][..]),
            ("gzip", "compression_params {\n level = 9\n}", "gzip", Coding::Gzip, &[0x1f, 0x8b]),
            ("zlib", "", "zlib", Coding::Zlib, &[0x78]),
            ("deflate", "", "deflate", Coding::Zlib, &[0x78]),
            ("snappy", "", "snappy", Coding::Snappy, &[]),
            ("zstd", "", "zstd", Coding::Zstd, &[0x28, 0xb5, 0x2f, 0xfd]),
        ] {
            let body = format!(
                "client {{\n endpoint = \"{}\"\n compression = \"{compression}\"\n{params}\n}}",
                server.url("")
            );
            let unit = exporter(&body).await;
            let sent = server.seen().len();
            // Once so small that it is packed at once, and once on another thread.
            for count in [3, 5000] {
                send(&unit, 0..count).await.unwrap();
            }
            until("both have arrived", || server.seen().len() == sent + 2).await;
            let mut lengths = Vec::new();
            for seen in &server.seen()[sent..] {
                assert_eq!(seen.header("content-encoding"), name);
                assert!(seen.body.starts_with(magic), "{compression}: {:?}", &seen.body[..4]);
                lengths.push(numbers(&coding.unpack(&seen.body, 1 << 20).unwrap()).len());
            }
            lengths.sort();
            assert_eq!(lengths, [3, 5000], "{compression}");
        }
    }

    #[tokio::test]
    async fn json_is_written_where_it_is_asked_for() {
        let server = Server::start(|_| answer(200, &[("content-type", JSON)], "{}")).await;
        let unit = exporter(&format!("encoding = \"json\"\n{}", client(&server, ""))).await;
        send(&unit, 0..2).await.unwrap();
        until("it has arrived", || server.seen().len() == 1).await;
        let seen = &server.seen()[0];
        assert_eq!((seen.header("content-type"), &seen.body[..]), (JSON, &logs(0..2).to_json()[..]));
    }

    #[tokio::test]
    async fn a_queue_that_is_full_refuses_or_lets_wait() {
        for (sizer, size) in [("requests", 2), ("items", 6), ("bytes", 2 * logs(0..3).message_len())] {
            let (server, down) = flaky().await;
            let queue = |more: &str| {
                format!(
                    "{SOON}sending_queue {{\n queue_size = {size}\n sizer = \"{sizer}\"\n num_consumers = 1\n{more}\n}}\n{}",
                    client(&server, "")
                )
            };
            let mut unit = exporter(&queue("")).await;
            send(&unit, 0..3).await.unwrap();
            send(&unit, 3..6).await.unwrap();
            let full = ConsumeError::Retry { after: None, reason: "sending queue is full".to_owned() };
            assert_eq!(send(&unit, 6..9).await, Err(full), "{sizer}");
            assert_eq!(metric(&unit, "otelcol_exporter_enqueue_failed_log_records_total"), 3.0);
            assert_eq!(metric(&unit, "otelcol_exporter_queue_size"), size as f64);
            assert!(unit.world.logs().contains("Exporting failed. Rejecting data."));
            if sizer == "items" {
                let large = ConsumeError::Refused { reason: "element size too large".to_owned() };
                assert_eq!(send(&unit, 0..7).await, Err(large));
            }
            unit.update(&queue("block_on_overflow = true")).await.unwrap();
            let waits = tokio::time::timeout(Duration::from_millis(50), send(&unit, 6..9)).await;
            assert!(waits.is_err(), "{sizer}: it waits for room");
            settles(&unit, Kind::OtelLog, "taken 6, out 6 | offered 6, pending 6").await;
            let end = unit.world.balance().ends.remove(0);
            assert_eq!(end.capacity_bytes, (sizer == "bytes").then_some(size as u64));
            assert_eq!((end.pending_bytes, end.oldest_ms.is_some()), (2 * logs(0..3).message_len() as u64, true));
            let to = entrance(&unit);
            let waiting = tokio::spawn(async move { to.consume(logs(9..12)).await });
            down.store(false, Ordering::SeqCst);
            waiting.await.unwrap().unwrap();
            until("the rest is taken", || metric(&unit, "otelcol_exporter_sent_log_records_total") == 9.0).await;
            settles(&unit, Kind::OtelLog, "taken 9, out 9 | offered 9, delivered 9").await;
        }
    }

    #[tokio::test]
    async fn whoever_waits_for_the_result_is_told_it() {
        let status = Arc::new(AtomicUsize::new(200));
        let says = Arc::clone(&status);
        let server = Server::start(move |_| answer(says.load(Ordering::SeqCst) as u16, &[], "")).await;
        let unit = exporter(&format!(
            "sending_queue {{\n wait_for_result = true\n batch {{\n max_size = 2\n min_size = 1\n flush_timeout = \"1ms\"\n }}\n}}\n{}",
            client(&server, "")
        ))
        .await;
        let (acks, mut told) = waiter();
        entrance(&unit).consume(with_acks(0..5, acks)).await.unwrap();
        assert_eq!(told.wait(Duration::from_secs(20)).await, Answer::Safe);
        let mut parts = received(&server);
        parts.sort();
        assert_eq!(parts, [vec![0, 1], vec![2, 3], vec![4]]);
        status.store(400, Ordering::SeqCst);
        let error = send(&unit, 0..1).await.unwrap_err();
        assert!(matches!(&error, ConsumeError::Refused { reason } if reason.starts_with("not retryable error: ")));
        let want = "taken 5, out 6, created {sent again: 1} | offered 6, delivered 5, dropped {permanent error: 1}";
        settles(&unit, Kind::OtelLog, want).await;
    }

    #[tokio::test]
    async fn whoever_gives_up_waiting_sends_again_what_the_queue_has() {
        let (server, down) = flaky().await;
        let unit =
            exporter(&format!("{SOON}sending_queue {{\n wait_for_result = true\n}}\n{}", client(&server, ""))).await;
        let waits = tokio::time::timeout(Duration::from_millis(50), send(&unit, 0..3)).await;
        assert!(waits.is_err(), "{waits:?}");
        settles(&unit, Kind::OtelLog, "out 3, created {sent again: 3} | offered 3, pending 3").await;
        down.store(false, Ordering::SeqCst);
        settles(&unit, Kind::OtelLog, "out 3, created {sent again: 3} | offered 3, delivered 3").await;
    }

    #[tokio::test]
    async fn what_waits_is_joined_and_split() {
        let (server, down) = flaky().await;
        let body = |batch: &str| {
            format!("{SOON}sending_queue {{\n num_consumers = 1\n batch {{\n{batch}\n }}\n}}\n{}", client(&server, ""))
        };
        down.store(false, Ordering::SeqCst);
        let mut unit = exporter(&body("min_size = 10\n max_size = 12\n flush_timeout = \"1h\"")).await;
        send(&unit, 0..9).await.unwrap();
        stays("too little waits", Duration::from_millis(50), || server.seen().is_empty()).await;
        send(&unit, 9..34).await.unwrap();
        until("what is enough is sent", || server.seen().len() == 3).await;
        let sizes: Vec<usize> = received(&server).iter().map(Vec::len).collect();
        assert_eq!(sizes, [12, 12, 10]);
        assert_eq!(received(&server).concat(), (0..34).collect::<Vec<_>>());
        assert_eq!(metric(&unit, "otelcol_exporter_queue_batch_send_size_count"), 3.0);
        until("nothing waits", || metric(&unit, "otelcol_exporter_queue_size") == 0.0).await;
        send(&unit, 34..35).await.unwrap();
        unit.update(&body("min_size = 10\n flush_timeout = \"10ms\"")).await.unwrap();
        until("what is not enough is sent in time", || server.seen().len() == 4).await;
        settles(&unit, Kind::OtelLog, "taken 35, out 35 | offered 35, delivered 35").await;
    }

    #[tokio::test]
    async fn what_came_with_different_headers_is_not_joined_where_that_matters() {
        let server = Server::start(|_| answer(200, &[], "")).await;
        let body = format!(
            "sending_queue {{\n num_consumers = 1\n batch {{\n min_size = 4\n max_size = 4\n flush_timeout = \"10ms\"\n }}\n}}\n{}",
            client(&server, "auth = auth")
        );
        let auth = Handler::new("otelcol.auth.test.a", Some(Arc::new(Tenant)), None);
        let unit = start(host(ID), &DEFINITION, &body, &[("auth", auth)]).await.unwrap();
        for (at, tenant) in ["a", "a", "b", "a"].iter().enumerate() {
            entrance(&unit).consume(with_header(at..at + 1, "x-tenant", tenant)).await.unwrap();
        }
        until("all have arrived", || received(&server).concat().len() == 4).await;
        let seen: Vec<(String, Vec<usize>)> =
            server.seen().iter().map(|seen| (seen.header("x-tenant").to_owned(), numbers(&seen.body))).collect();
        for (tenant, numbers) in &seen {
            let fits = numbers.iter().all(|number| (*number == 2) == (tenant == "b"));
            assert!(fits, "{seen:?}");
        }
    }

    /// Passes on a header of what the telemetry came with; without it there are no credentials.
    #[derive(Debug)]
    struct Tenant;

    impl ClientAuth for Tenant {
        fn authorize<'a>(
            &'a self,
            headers: &'a mut HeaderMap,
            context: &'a RequestContext,
        ) -> BoxFuture<'a, Result<(), AuthError>> {
            Box::pin(async move {
                let [tenant] = context.metadata.get("x-tenant") else {
                    return Err(AuthError { retry: false, reason: "no tenant".to_owned() });
                };
                headers.insert("x-tenant", HeaderValue::from_str(tenant).unwrap());
                Ok(())
            })
        }
    }

    #[tokio::test]
    async fn requests_carry_headers_and_credentials() {
        let server = Server::start(|_| answer(200, &[("set-cookie", "session=7; Path=/")], "")).await;
        let auth = Handler::new("otelcol.auth.test.a", Some(Arc::new(Tenant)), None);
        let more = "headers = {\"x-a\" = \"1\", \"user-agent\" = \"mine\"}\nauth = auth\ncookies {\n enabled = true\n}";
        let body = format!("sending_queue {{\n enabled = false\n}}\n{}", client(&server, more));
        let unit = start(host(ID), &DEFINITION, &body, &[("auth", auth)]).await.unwrap();
        for number in 0..2 {
            entrance(&unit).consume(with_header(number..number + 1, "X-Tenant", "t")).await.unwrap();
        }
        let seen = server.seen();
        let of = |at: usize, name: &str| seen[at].header(name).to_owned();
        assert_eq!([of(0, "x-a"), of(0, "user-agent"), of(0, "x-tenant")], ["1", "mine", "t"]);
        assert_eq!([of(0, "cookie"), of(1, "cookie")], ["", "session=7"]);
        let error = send(&unit, 0..1).await.unwrap_err();
        let reason = "not retryable error: Permanent error: failed to make an HTTP request: no tenant".to_owned();
        assert_eq!(error, ConsumeError::Refused { reason });
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_takes_no_longer_than_it_may() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let unit = exporter(&format!(
            "sending_queue {{\n enabled = false\n}}\nretry_on_failure {{\n enabled = false\n}}\nclient {{\n endpoint = \"http://{}\"\n timeout = \"50ms\"\n}}",
            listener.local_addr().unwrap()
        ))
        .await;
        for _ in 0..4 {
            let error = send(&unit, 0..1).await.unwrap_err();
            assert!(
                matches!(&error, ConsumeError::Retry { reason, .. } if reason.contains("context deadline exceeded")),
                "{error:?}"
            );
        }
        let text = unit.world.metrics().text();
        assert!(text.contains("error_type=\"Deadline_Exceeded\""), "{text}");
    }

    #[tokio::test]
    async fn what_waits_goes_on_with_other_arguments_after_a_reload() {
        let (dead, _) = flaky().await;
        let server = Server::start(|_| answer(200, &[], "")).await;
        let body = |server: &Server, more: &str| {
            let retry = "retry_on_failure {\n initial_interval = \"1h\"\n max_elapsed_time = \"0s\"\n}\n";
            format!("{retry}sending_queue {{\n num_consumers = 2\n{more}\n}}\n{}", client(server, ""))
        };
        let world = host(ID);
        let handler = storage(&world, "").await;
        let mut unit = start(world, &DEFINITION, &body(&dead, ""), &[("storage", handler)]).await.unwrap();
        for number in 0..5 {
            send(&unit, number..number + 1).await.unwrap();
        }
        until("some are under way", || dead.seen().len() == 2).await;
        // To another server, with a queue on disk from now on, and back to one in memory.
        unit.update(&body(&dead, "storage = storage")).await.unwrap();
        for number in 5..8 {
            send(&unit, number..number + 1).await.unwrap();
        }
        unit.update(&body(&dead, "enabled = true")).await.unwrap();
        for number in 8..10 {
            send(&unit, number..number + 1).await.unwrap();
        }
        unit.update(&body(&server, "storage = storage")).await.unwrap();
        until("all have arrived", || received(&server).concat().len() >= 10).await;
        let mut all = received(&server).concat();
        all.sort();
        assert_eq!(all, (0..10).collect::<Vec<_>>());
        send(&unit, 10..11).await.unwrap();
        until("it goes on", || received(&server).concat().len() == 11).await;
        settles(&unit, Kind::OtelLog, "taken 11, out 11 | offered 11, delivered 11").await;
        unit.drain().await;
        assert_eq!(metric(&unit, "otelcol_exporter_send_failed_log_records_total"), 0.0);
    }

    #[tokio::test]
    async fn what_is_on_disk_survives_the_component_and_is_sent_in_order() {
        let (server, down) = flaky().await;
        let body = |more: &str| {
            format!(
                "retry_on_failure {{\n initial_interval = \"10ms\"\n max_interval = \"10ms\"\n max_elapsed_time = \"0s\"\n}}\n\
                 sending_queue {{\n num_consumers = 1\n queue_size = 50\n storage = storage\n{more}\n}}\n{}",
                client(&server, "auth = auth")
            )
        };
        let world = host(ID);
        let handler = storage(&world, "fsync = true").await;
        let auth = Handler::new("otelcol.auth.test.a", Some(Arc::new(Tenant)), None);
        let handlers = [("storage", handler), ("auth", auth)];
        for round in 0..3 {
            let mut unit = start(world.clone(), &DEFINITION, &body(""), &handlers).await.unwrap();
            for number in 0..10 {
                let number = round * 10 + number;
                let (acks, mut told) = waiter();
                let mut batch = with_header(number..number + 1, "x-tenant", "t");
                batch.acks = acks;
                entrance(&unit).consume(batch).await.unwrap();
                assert_eq!(told.wait(Duration::from_secs(20)).await, Answer::Safe, "it is safe once it is written");
            }
            assert_eq!(metric(&unit, "otelcol_exporter_queue_size"), f64::from(round as u32 * 10 + 10));
            let taken = round * 10 + 10;
            let restored = if round > 0 { format!("restored {}, ", round * 10) } else { String::new() };
            let want = format!("taken {taken}, out {taken} | offered 10, {restored}pending {taken}");
            settles(&unit, Kind::OtelLog, &want).await;
            unit.drain().await;
        }
        let before = server.seen().len();
        down.store(false, Ordering::SeqCst);
        let joined = "batch {\n min_size = 7\n max_size = 7\n flush_timeout = \"10ms\"\n}";
        let mut unit = start(world.clone(), &DEFINITION, &body(joined), &handlers).await.unwrap();
        until("all have arrived", || metric(&unit, "otelcol_exporter_sent_log_records_total") == 30.0).await;
        let sent = received(&server)[before..].to_vec();
        assert_eq!(sent.concat(), (0..30).collect::<Vec<_>>());
        assert!(sent.len() <= 6, "what waits is joined: {sent:?}");
        assert!(server.seen().iter().all(|seen| seen.header("x-tenant") == "t"), "metadata are kept");
        settles(&unit, Kind::OtelLog, "taken 30, out 30 | restored 30, delivered 30").await;
        unit.drain().await;
    }

    #[tokio::test]
    async fn what_was_taken_is_on_disk_however_the_process_ends() {
        let (server, down) = flaky().await;
        let body = format!(
            "{}sending_queue {{\n num_consumers = 3\n storage = storage\n}}\n{}",
            SOON.replace("}", " max_elapsed_time = \"0s\"\n}"),
            client(&server, "")
        );
        let (world, after) = (host(ID), host(ID));
        let handler = storage(&world, "").await;
        let unit = start(world.clone(), &DEFINITION, &body, &[("storage", handler)]).await.unwrap();
        for number in 0..20 {
            send(&unit, number..number + 1).await.unwrap();
        }
        // What is there at this moment is what a process that is killed leaves.
        let name = "storage/exporter_otlphttp_otelcol.exporter.otlphttp.a_logs.queue";
        let (from, to) = (world.path(name), after.path(name));
        std::fs::create_dir_all(&to).unwrap();
        for file in std::fs::read_dir(&from).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
        let mut unit = unit;
        unit.drain().await;
        let before = server.seen().len();
        down.store(false, Ordering::SeqCst);
        let handler = storage(&after, "").await;
        let mut unit = start(after.clone(), &DEFINITION, &body, &[("storage", handler)]).await.unwrap();
        until("all have arrived", || metric(&unit, "otelcol_exporter_sent_log_records_total") == 20.0).await;
        let mut all = received(&server)[before..].concat();
        all.sort();
        assert_eq!(all, (0..20).collect::<Vec<_>>());
        settles(&unit, Kind::OtelLog, " | restored 20, delivered 20").await;
        unit.drain().await;
    }

    #[tokio::test]
    async fn what_the_disk_lost_is_said_and_counted() {
        let (server, down) = flaky().await;
        let body = format!("{SOON}sending_queue {{\n storage = storage\n}}\n{}", client(&server, ""));
        let world = host(ID);
        let handler = storage(&world, "").await;
        let mut unit = start(world.clone(), &DEFINITION, &body, &[("storage", handler.clone())]).await.unwrap();
        for number in 0..20 {
            send(&unit, number..number + 1).await.unwrap();
        }
        unit.drain().await;
        let name = "storage/exporter_otlphttp_otelcol.exporter.otlphttp.a_logs.queue/00000001.seg";
        let mut segment = std::fs::read(world.path(name)).unwrap();
        let half = segment.len() / 2;
        segment[half..half + 100].fill(0x5a);
        std::fs::write(world.path(name), segment).unwrap();
        down.store(false, Ordering::SeqCst);
        let unit = start(world, &DEFINITION, &body, &[("storage", handler)]).await.unwrap();
        until("all are accounted for", || {
            let [sent, lost] = ["sent", "send_failed"]
                .map(|name| metric(&unit, &format!("otelcol_exporter_{name}_log_records_total")));
            sent >= 10.0 && lost >= 1.0 && sent + lost == 20.0
        })
        .await;
        let logged = unit.world.logs();
        assert!(logged.contains("lost in the queue on disk: damaged"), "{logged}");
        let lost = metric(&unit, "otelcol_exporter_send_failed_log_records_total") as u64;
        let want = format!("taken 20, out 20 | restored 20, delivered {}, dropped {{damaged: {lost}}}", 20 - lost);
        settles(&unit, Kind::OtelLog, &want).await;
    }

    #[tokio::test]
    async fn what_is_no_message_in_the_queue_is_said_and_counted_and_holds_up_nothing() {
        let server = Server::start(|_| answer(200, &[], "")).await;
        let world = host(ID);
        let handler = storage(&world, "").await;
        let folder = world.path("storage/exporter_otlphttp_otelcol.exporter.otlphttp.a_logs.queue");
        let queue = corten_queue::Queue::open(&folder, corten_queue::Options::default()).unwrap();
        // What a program of a later version may write.
        let record = corten_queue::NewRecord {
            encoding: 1,
            tenant: None,
            partition: 0,
            partitions: 1,
            counts: corten_queue::Counts::samples(7),
            lowest_ms: 0,
            highest_ms: 0,
            raw_len: 3,
            body: Bytes::from_static(b"\x63no"),
            hold: None,
        };
        queue.append(vec![record]).await.unwrap();
        queue.close().await;
        let body = format!("sending_queue {{\n storage = storage\n}}\n{}", client(&server, ""));
        let unit = start(world, &DEFINITION, &body, &[("storage", handler)]).await.unwrap();
        until("it is counted", || metric(&unit, "otelcol_exporter_send_failed_log_records_total") == 7.0).await;
        assert!(unit.world.logs().contains("dropped_items=7"), "{}", unit.world.logs());
        send(&unit, 0..2).await.unwrap();
        until("the rest is sent", || metric(&unit, "otelcol_exporter_sent_log_records_total") == 2.0).await;
        let want = "taken 2, out 2 | offered 2, restored 7, delivered 2, dropped {malformed: 7}";
        settles(&unit, Kind::OtelLog, want).await;
    }

    #[tokio::test]
    async fn a_queue_that_cannot_be_opened_is_an_error_that_names_it() {
        let server = Server::start(|_| answer(200, &[], "")).await;
        let world = host(ID);
        let handler = storage(&world, "").await;
        let folder = world.path("storage/exporter_otlphttp_otelcol.exporter.otlphttp.a_traces.queue");
        std::fs::create_dir_all(folder.join("lock")).unwrap();
        let body = format!("sending_queue {{\n storage = storage\n}}\n{}", client(&server, ""));
        let error = start(world, &DEFINITION, &body, &[("storage", handler)]).await.map(drop).unwrap_err();
        assert!(error.contains(&format!("opening the queue {}: ", folder.display())), "{error}");
    }

    #[tokio::test]
    async fn a_disk_that_takes_nothing_is_said() {
        let (server, _down) = flaky().await;
        let world = host(ID);
        let handler = storage(&world, "").await;
        let body = format!("sending_queue {{\n storage = storage\n}}\n{}", client(&server, ""));
        let unit = start(world.clone(), &DEFINITION, &body, &[("storage", handler)]).await.unwrap();
        // The folder is gone, and a file stands in its place.
        let folder = world.path("storage/exporter_otlphttp_otelcol.exporter.otlphttp.a_logs.queue");
        std::fs::remove_dir_all(&folder).unwrap();
        std::fs::write(&folder, "").unwrap();
        send(&unit, 0..1).await.unwrap();
        until("it is said", || unit.world.logs().contains("the disk does not take the sending queue")).await;
        settles(&unit, Kind::OtelLog, "taken 1, out 1 | offered 1, pending 1").await;
    }

    #[tokio::test]
    async fn a_queue_on_disk_that_is_full_refuses() {
        let (server, _down) = flaky().await;
        let world = host(ID);
        let handler = storage(&world, "").await;
        let body = format!("sending_queue {{\n queue_size = 2\n storage = storage\n}}\n{}", client(&server, ""));
        let mut unit = start(world, &DEFINITION, &body, &[("storage", handler)]).await.unwrap();
        send(&unit, 0..1).await.unwrap();
        send(&unit, 1..2).await.unwrap();
        let full = ConsumeError::Retry { after: None, reason: "sending queue is full".to_owned() };
        assert_eq!(send(&unit, 2..3).await, Err(full));
        settles(&unit, Kind::OtelLog, "taken 2, out 2 | offered 2, pending 2").await;
        let began = Instant::now();
        unit.drain().await;
        assert!(began.elapsed() < Duration::from_secs(30), "what waits on disk is not waited for");
    }

    #[tokio::test]
    async fn what_is_in_memory_is_tried_once_more_at_the_end() {
        let (server, down) = flaky().await;
        let body = format!(
            "retry_on_failure {{\n initial_interval = \"1h\"\n max_elapsed_time = \"0s\"\n}}\nsending_queue {{\n num_consumers = 2\n}}\n{}",
            client(&server, "")
        );
        for (stays_down, sent) in [(false, 5.0), (true, 0.0)] {
            down.store(true, Ordering::SeqCst);
            let before = server.seen().len();
            let mut unit = exporter(&body).await;
            for number in 0..5 {
                send(&unit, number..number + 1).await.unwrap();
            }
            until("two are under way", || server.seen().len() == before + 2).await;
            down.store(stays_down, Ordering::SeqCst);
            unit.drain().await;
            assert_eq!(metric(&unit, "otelcol_exporter_sent_log_records_total"), sent);
            assert_eq!(metric(&unit, "otelcol_exporter_send_failed_log_records_total"), 5.0 - sent);
            assert_eq!(server.seen().len(), before + 7);
            assert_eq!(unit.world.balance_of(Kind::OtelLog), "taken 5, out 5");
            let logged = unit.world.logs();
            assert_eq!(
                logged.matches("interrupted due to shutdown").count(),
                if stays_down { 5 } else { 0 },
                "{logged}"
            );
        }
    }

    #[tokio::test]
    async fn what_is_wrong_is_said() {
        let fine = "client {\n endpoint = \"http://a\"\n}";
        for (body, text) in [
            (fine.to_owned(), ""),
            ("client {\n endpoint = \"\"\n}".to_owned(), "at least one endpoint must be specified"),
            (
                "logs_endpoint = \"http://a\"\nclient {\n endpoint = \"\"\n}".to_owned(),
                "either endpoint or traces_endpoint must be specified",
            ),
            (format!("encoding = \"xml\"\n{fine}"), "invalid encoding type xml"),
            (format!("traces_endpoint = \"a b\"\n{fine}"), "traces_endpoint must be a valid URL"),
            ("client {\n endpoint = \"a\"\n}".to_owned(), "endpoint must be a valid URL"),
            ("client {\n endpoint = \"http://a:99999\"\n}".to_owned(), "endpoint must be a valid URL"),
            (
                "client {\n endpoint = \"http://a\"\n compression = \"lz4\"\n}".to_owned(),
                "unrecognized compression type \"lz4\"",
            ),
            (
                "client {\n endpoint = \"http://a\"\n compression_params {\n level = 12\n }\n}".to_owned(),
                "unsupported parameters {Level:+12} for compression type \"gzip\"",
            ),
            (format!("sending_queue {{\n queue_size = 0\n}}\n{fine}"), "queue_size must be greater than zero"),
            (format!("sending_queue {{\n sizer = \"x\"\n}}\n{fine}"), "invalid sizer: x"),
            (
                format!("sending_queue {{\n batch {{\n sizer = \"requests\"\n }}\n}}\n{fine}"),
                "`batch` supports only `items` or `bytes` sizer",
            ),
            (
                format!("sending_queue {{\n batch {{\n min_size = 4000\n }}\n}}\n{fine}"),
                "`max_size` must be greater or equal to `min_size`",
            ),
            (
                format!("sending_queue {{\n sizer = \"items\"\n queue_size = 10\n batch {{\n }}\n}}\n{fine}"),
                "`min_size` must be less than or equal to `queue_size`",
            ),
            (format!("retry_on_failure {{\n multiplier = 1.0\n}}\n{fine}"), "multiplier must be greater than 1.0"),
        ] {
            let error = refused(ID, &DEFINITION, &body).await;
            assert!(if text.is_empty() { error.is_empty() } else { error.contains(text) }, "{body}: {error}");
        }
        let no_storage = Handler::new("otelcol.auth.test.a", None, None);
        let body = format!("sending_queue {{\n storage = storage\n}}\n{fine}");
        let error = start(host(ID), &DEFINITION, &body, &[("storage", no_storage)]).await.unwrap_err();
        assert_eq!(error, "requested extension is not a storage extension");
    }
}
