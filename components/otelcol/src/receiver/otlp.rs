//! `otelcol.receiver.otlp`.

use std::sync::Arc;

use bytes::Bytes;
use corten_component::listen::{self, Report};
use corten_component::{Component, Context, Error};
use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_net::grpc::Code;
use corten_net::{ServerBody, full_body, media_type};
use corten_otlp::{Batch, OtlpLogs, OtlpMetrics, OtlpSignal, RpcStatus, Traces};
use corten_signal::flow::BoxFuture;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use crate::flow::{DebugMetrics, Output};
use crate::server::{
    CROWDED, CROWDED_AFTER, Entrance, GrpcCall, GrpcServer, GrpcServerArguments, GrpcService, HttpRequest, HttpServer,
    HttpServerArguments, HttpService, Leaving, Onward, PreparedGrpc, PreparedHttp, ReceiverMetrics, Shown, Unread,
    unavailable,
};

/// Receives telemetry in OTLP, over gRPC and over HTTP, and sends it on.
///
/// Over gRPC it takes the calls `Export` of OTLP's services for traces, metrics and logs; over HTTP `POST` requests in
/// protocol buffers (`application/x-protobuf`) and JSON (`application/json`). A signal that is sent nowhere is not received:
/// gRPC answers with `UNIMPLEMENTED`, HTTP with 404.
///
/// Requests are answered when all receivers have the telemetry safe, so that a client that sends again what was not answered
/// loses nothing; where a stage on the way keeps telemetry for a while, when it has reached it. Who is to try again is told
/// so with `UNAVAILABLE` or 503; what will never be taken is answered with `INTERNAL` or 500.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct OtlpArguments {
    /// Receives over gRPC.
    #[block(defaults(endpoint = "0.0.0.0:4317"))]
    grpc: Option<GrpcServerArguments>,
    /// Receives over HTTP.
    #[block]
    http: Option<OtlpHttpArguments>,
    /// Where to send telemetry.
    #[block]
    output: Output,
    /// Which metrics of its own the component has.
    #[block(optional)]
    debug_metrics: DebugMetrics,
}

/// How to receive OTLP over HTTP.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct OtlpHttpArguments {
    /// Where and how to listen.
    #[flatten(defaults(endpoint = "0.0.0.0:4318"))]
    server: HttpServerArguments,
    /// The path that traces are sent to.
    #[arg(default = "/v1/traces")]
    traces_url_path: String,
    /// The path that metrics are sent to.
    #[arg(default = "/v1/metrics")]
    metrics_url_path: String,
    /// The path that logs are sent to.
    #[arg(default = "/v1/logs")]
    logs_url_path: String,
}

impl OtlpHttpArguments {
    fn paths(&self) -> [(&'static str, &str); 3] {
        [
            ("traces_url_path", &self.traces_url_path),
            ("metrics_url_path", &self.metrics_url_path),
            ("logs_url_path", &self.logs_url_path),
        ]
    }

    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        let paths = self.paths();
        for (at, (name, path)) in paths.iter().enumerate() {
            errors.require(!path.is_empty(), &[name], &format!("{name} cannot be empty"));
            for (other, same) in &paths[..at] {
                errors.require(
                    path.is_empty() || rooted(path) != rooted(same),
                    &[name, other],
                    &format!("{other} and {name} cannot be the same"),
                );
            }
        }
        errors.into_result()
    }
}

/// A path with a slash before it.
fn rooted(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

/// The component.
pub struct OtlpReceiver {
    grpc: Option<GrpcServer>,
    http: Option<HttpServer>,
    onward: (Onward<Traces>, Onward<OtlpMetrics>, Onward<OtlpLogs>),
    reports: [Report; 2],
    leaving: Leaving,
    shown: Arc<Shown>,
}

impl Component for OtlpReceiver {
    const NAME: &'static str = "otelcol.receiver.otlp";
    type Arguments = OtlpArguments;
    type Exports = ();
    type Prepared = OtlpArguments;

    async fn prepare(
        arguments: OtlpArguments,
        _: &Context<Self>,
        _: Option<&Self>,
    ) -> Result<(OtlpArguments, ()), Error> {
        Ok((arguments, ()))
    }

    fn commit(current: Option<Self>, arguments: OtlpArguments, cx: &Context<Self>) -> Self {
        let now = current.unwrap_or_else(|| OtlpReceiver {
            grpc: None,
            http: None,
            onward: Default::default(),
            reports: listen::reports(cx),
            leaving: Leaving::default(),
            shown: Shown::new(cx),
        });
        let OtlpReceiver { grpc, http, onward, reports, leaving, shown } = now;
        let OtlpArguments { grpc: grpc_block, http: http_block, output, .. } = arguments;
        let ways = Ways {
            traces: onward.0.follow(output.traces(cx)),
            metrics: onward.1.follow(output.metrics(cx)),
            logs: onward.2.follow(output.logs(cx)),
            shown: Arc::clone(&shown),
        };
        let leads_somewhere = ways.traces.is_some() || ways.metrics.is_some() || ways.logs.is_some();
        let prepared = grpc_block.filter(|_| leads_somewhere).map(PreparedGrpc::new);
        let grpc_address = prepared.as_ref().map(PreparedGrpc::address);
        let service = || Arc::new(ways.grpc(cx)) as Arc<dyn GrpcService>;
        let grpc = GrpcServer::commit(grpc, prepared, service, (&reports[0], &leaving), cx);
        let (prepared, paths) = match http_block.filter(|_| leads_somewhere) {
            Some(block) => {
                let paths = block.paths().map(|(_, path)| rooted(path));
                (Some(PreparedHttp::new(block.server)), paths)
            }
            None => Default::default(),
        };
        shown.listen([("grpc", grpc_address), ("http", prepared.as_ref().map(PreparedHttp::address))]);
        let service = || Arc::new(ways.http(paths, cx)) as Arc<dyn HttpService>;
        let http = HttpServer::commit(http, prepared, service, (&reports[1], &leaving), cx);
        OtlpReceiver { grpc, http, onward, reports, leaving, shown }
    }

    async fn drain(self, _: &Context<Self>) {
        // Requests under way are answered, within a limit; whoever connects is refused.
        self.leaving.add(self.grpc);
        self.leaving.add(self.http);
        self.leaving.gone().await;
    }
}

/// Where the signals go; nothing for one that goes nowhere.
struct Ways {
    traces: Option<Onward<Traces>>,
    metrics: Option<Onward<OtlpMetrics>>,
    logs: Option<Onward<OtlpLogs>>,
    shown: Arc<Shown>,
}

/// The way into the program for one signal over one transport.
type Way = Box<dyn Export>;

impl Ways {
    fn all(&self, transport: &str, cx: &Context<OtlpReceiver>) -> [Option<Way>; 3] {
        let make = Make { transport, shown: &self.shown, cx };
        [make.way(&self.traces), make.way(&self.metrics), make.way(&self.logs)]
    }

    fn grpc(&self, cx: &Context<OtlpReceiver>) -> Services {
        const METHODS: [(&str, &str); 3] = [
            ("opentelemetry.proto.collector.trace.v1.TraceService", "Export"),
            ("opentelemetry.proto.collector.metrics.v1.MetricsService", "Export"),
            ("opentelemetry.proto.collector.logs.v1.LogsService", "Export"),
        ];
        let ways = self.all("grpc", cx);
        let (methods, ways) = METHODS.into_iter().zip(ways).filter_map(|(method, way)| Some((method, way?))).unzip();
        Services { methods, ways }
    }

    fn http(&self, paths: [String; 3], cx: &Context<OtlpReceiver>) -> Routes {
        let ways = self.all("http", cx);
        Routes(paths.into_iter().zip(ways).filter_map(|(path, way)| Some((path, way?))).collect())
    }
}

/// Makes ways over a transport.
struct Make<'a> {
    transport: &'a str,
    shown: &'a Shown,
    cx: &'a Context<OtlpReceiver>,
}

impl Make<'_> {
    fn way<S: OtlpSignal>(&self, to: &Option<Onward<S>>) -> Option<Way> {
        let metrics = || ReceiverMetrics::new::<_, S>(self.cx, "otlp", self.transport, self.shown);
        to.clone().map(|to| Box::new(Entrance::new(to, metrics())) as Way)
    }
}

/// What an export is answered with that succeeded: nothing was left out.
const DONE: &[u8] = b"\x0a\0";
const DONE_JSON: &[u8] = br#"{"partialSuccess":{}}"#;

/// How much longer it takes to read a byte of JSON than one of a message.
const JSON_EFFORT: usize = 16;

/// Takes exports of one signal.
trait Export: Send + Sync + 'static {
    fn call(&self, call: GrpcCall) -> BoxFuture<'_, Result<Vec<u8>, RpcStatus>>;

    fn post<'a>(&'a self, request: &'a mut HttpRequest, encoding: Encoding) -> BoxFuture<'a, Result<(), RpcStatus>>;
}

impl<S: OtlpSignal> Export for Entrance<S> {
    fn call(&self, call: GrpcCall) -> BoxFuture<'_, Result<Vec<u8>, RpcStatus>> {
        Box::pin(async move {
            let context = Arc::clone(&call.context);
            let read = |message| Batch::received(message, context).map_err(|malformed| malformed.to_string());
            self.take(call.read(1, read).await?).await?;
            Ok(DONE.to_vec())
        })
    }

    fn post<'a>(&'a self, request: &'a mut HttpRequest, encoding: Encoding) -> BoxFuture<'a, Result<(), RpcStatus>> {
        Box::pin(async move {
            let context = Arc::clone(&request.context);
            let read = match encoding {
                Encoding::Protobuf => {
                    let read = |body: Bytes| Batch::received(body, context).map_err(|malformed| malformed.to_string());
                    request.read(1, read).await
                }
                Encoding::Json => request.read(JSON_EFFORT, move |body| Batch::received_json(&body, context)).await,
            };
            let batch = match read {
                Ok(Ok(batch)) => batch,
                Ok(Err(text)) | Err(Unread::Bad(text)) => return Err(status(Code::INVALID_ARGUMENT, text)),
                Err(Unread::Crowded) => return Err(unavailable(CROWDED, Some(CROWDED_AFTER))),
            };
            self.take(batch).await
        })
    }
}

fn status(code: Code, message: impl Into<String>) -> RpcStatus {
    RpcStatus { code: code.0, message: message.into(), retry_delay_ms: None }
}

/// The services of gRPC.
struct Services {
    methods: Vec<(&'static str, &'static str)>,
    ways: Vec<Way>,
}

impl GrpcService for Services {
    fn methods(&self) -> &[(&'static str, &'static str)] {
        &self.methods
    }

    fn call(&self, method: usize, call: GrpcCall) -> BoxFuture<'_, Result<Vec<u8>, RpcStatus>> {
        self.ways[method].call(call)
    }
}

/// What requests of HTTP and their answers are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Protobuf,
    Json,
}

impl Encoding {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let kind = headers.get(header::CONTENT_TYPE)?;
        match &*media_type(kind.to_str().ok()?).ok()? {
            "application/x-protobuf" => Some(Encoding::Protobuf),
            "application/json" => Some(Encoding::Json),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Encoding::Protobuf => "application/x-protobuf",
            Encoding::Json => "application/json",
        }
    }

    /// The answer to a request that failed.
    fn refusal(self, code: StatusCode, status: &RpcStatus) -> Response<ServerBody> {
        let body = match self {
            Encoding::Protobuf => status.encode(),
            Encoding::Json => status.to_json(),
        };
        let mut response = answer(code, self.name(), body);
        if let Some(delay_ms) = status.retry_delay_ms
            && matches!(code, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
        {
            // Rounded up: who comes too early comes in vain.
            response.headers_mut().insert(header::RETRY_AFTER, delay_ms.div_ceil(1000).into());
        }
        response
    }
}

fn answer(code: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<ServerBody> {
    let mut response = Response::new(full_body(body));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// The code of HTTP for one of gRPC.
fn http_code(code: Code) -> StatusCode {
    match code {
        Code::CANCELLED
        | Code::DEADLINE_EXCEEDED
        | Code::ABORTED
        | Code::OUT_OF_RANGE
        | Code::UNAVAILABLE
        | Code::DATA_LOSS => StatusCode::SERVICE_UNAVAILABLE,
        Code::RESOURCE_EXHAUSTED => StatusCode::TOO_MANY_REQUESTS,
        Code::INVALID_ARGUMENT => StatusCode::BAD_REQUEST,
        Code::UNAUTHENTICATED => StatusCode::UNAUTHORIZED,
        Code::PERMISSION_DENIED => StatusCode::FORBIDDEN,
        Code::UNIMPLEMENTED => StatusCode::NOT_FOUND,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The code of gRPC for one that the server itself answers with.
fn rpc_code(code: StatusCode) -> Code {
    match code.as_u16() {
        400 => Code::INVALID_ARGUMENT,
        401 => Code::UNAUTHENTICATED,
        403 => Code::PERMISSION_DENIED,
        404 => Code::UNIMPLEMENTED,
        429 => Code::RESOURCE_EXHAUSTED,
        502..=504 => Code::UNAVAILABLE,
        _ => Code::UNKNOWN,
    }
}

/// The paths of HTTP.
struct Routes(Vec<(String, Way)>);

impl Routes {
    fn find(&self, path: &str) -> Option<&(String, Way)> {
        // One that ends with a slash leads to all that is below it.
        self.0.iter().find(|(route, _)| route == path || route.ends_with('/') && path.starts_with(route.as_str()))
    }
}

impl HttpService for Routes {
    fn route(&self, path: &str) -> Option<&str> {
        self.find(path).map(|(route, _)| route.as_str())
    }

    fn refusal(&self, parts: &Parts, code: StatusCode, text: &str) -> Response<ServerBody> {
        let encoding = match parts.headers.get(header::CONTENT_TYPE) {
            Some(kind) if !kind.is_empty() => Encoding::of(&parts.headers),
            _ => Some(Encoding::Json),
        };
        match encoding {
            Some(encoding) => encoding.refusal(code, &status(rpc_code(code), text)),
            None => {
                const TEXT: &[u8] = br#"{"code": 13, "message": "failed to marshal error message"}"#;
                answer(StatusCode::INTERNAL_SERVER_ERROR, "application/json", TEXT)
            }
        }
    }

    fn answer<'a>(&'a self, request: &'a mut HttpRequest) -> BoxFuture<'a, Response<ServerBody>> {
        Box::pin(async move {
            if request.parts.method != Method::POST {
                let text = "405 method not allowed, supported: [POST]";
                return answer(StatusCode::METHOD_NOT_ALLOWED, "text/plain", text);
            }
            let Some(encoding) = Encoding::of(&request.parts.headers) else {
                let text = "415 unsupported media type, supported: [application/json, application/x-protobuf]";
                return answer(StatusCode::UNSUPPORTED_MEDIA_TYPE, "text/plain", text);
            };
            let Some((_, way)) = self.find(request.parts.uri.path()) else {
                return self.refusal(&request.parts, StatusCode::NOT_FOUND, "404 page not found");
            };
            match way.post(request, encoding).await {
                Ok(()) => {
                    let body = if encoding == Encoding::Json { DONE_JSON } else { DONE };
                    answer(StatusCode::OK, encoding.name(), body)
                }
                Err(status) => encoding.refusal(http_code(Code(status.code)), &status),
            }
        })
    }
}

#[cfg(test)]
mod tests;
