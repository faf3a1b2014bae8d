//! `otelcol.receiver.jaeger`.

mod translate;
mod udp;

use std::sync::Arc;

use corten_component::listen::{self, Report};
use corten_component::{Component, Context, Error};
use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_net::{ServerBody, http_error, media_type};
use corten_otlp::{Batch, RpcStatus, Traces};
use corten_signal::flow::BoxFuture;
use corten_wire::jaeger::{Protocol, read_batch, read_post_spans};
use http::{Method, Response, StatusCode, header};

use self::udp::{UdpArguments, UdpServer};
use crate::flow::{DebugMetrics, Output};
use crate::server::{
    Entrance, GrpcCall, GrpcServer, GrpcServerArguments, GrpcService, HttpRequest, HttpServer, HttpServerArguments,
    HttpService, Leaving, Onward, PreparedGrpc, PreparedHttp, ReceiverMetrics, Shown, Unread, bare, crowded,
};

/// Receives spans as Jaeger's clients send them, and sends them on as traces.
///
/// Requests over gRPC and HTTP are answered when all receivers have the traces safe; where a stage on the way keeps them for
/// a while, when they have reached it. Who sends over UDP hears nothing: what cannot be handed on is tried again for half a
/// minute.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct JaegerArguments {
    /// What is received over.
    #[block]
    protocols: Protocols,
    /// Where to send traces.
    #[block]
    output: Output,
    /// Which metrics of its own the component has.
    #[block(optional)]
    debug_metrics: DebugMetrics,
}

/// What is received over: one of these at least.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Protocols {
    /// Receives over gRPC, as Jaeger's collector does: calls of `PostSpans`.
    #[block(defaults(endpoint = "0.0.0.0:14250"))]
    grpc: Option<GrpcServerArguments>,
    /// Receives Thrift over HTTP, as Jaeger's collector does: `POST /api/traces`.
    #[block(defaults(endpoint = "0.0.0.0:14268"))]
    thrift_http: Option<HttpServerArguments>,
    /// Receives Thrift's binary protocol over UDP, as Jaeger's agent does.
    #[block(defaults(endpoint = "0.0.0.0:6832"))]
    thrift_binary: Option<UdpArguments>,
    /// Receives Thrift's compact protocol over UDP, as Jaeger's agent does.
    #[block(defaults(endpoint = "0.0.0.0:6831"))]
    thrift_compact: Option<UdpArguments>,
}

impl Protocols {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        let has_any = self.grpc.is_some()
            || self.thrift_http.is_some()
            || self.thrift_binary.is_some()
            || self.thrift_compact.is_some();
        errors.require(has_any, &[], "at least one protocol must be enabled");
        errors.into_result()
    }
}

/// The component.
pub struct JaegerReceiver {
    grpc: Option<GrpcServer>,
    http: Option<HttpServer>,
    binary: Option<UdpServer>,
    compact: Option<UdpServer>,
    onward: Onward<Traces>,
    reports: [Report; 4],
    leaving: Leaving,
    shown: Arc<Shown>,
}

impl Component for JaegerReceiver {
    const NAME: &'static str = "otelcol.receiver.jaeger";
    type Arguments = JaegerArguments;
    type Exports = ();
    type Prepared = JaegerArguments;

    async fn prepare(
        arguments: JaegerArguments,
        _: &Context<Self>,
        _: Option<&Self>,
    ) -> Result<(JaegerArguments, ()), Error> {
        Ok((arguments, ()))
    }

    fn commit(current: Option<Self>, arguments: JaegerArguments, cx: &Context<Self>) -> Self {
        let now = current.unwrap_or_else(|| JaegerReceiver {
            grpc: None,
            http: None,
            binary: None,
            compact: None,
            onward: Onward::default(),
            reports: listen::reports(cx),
            leaving: Leaving::default(),
            shown: Shown::new(cx),
        });
        let JaegerReceiver { grpc, http, binary, compact, onward, reports, leaving, shown } = now;
        let JaegerArguments { protocols, output, .. } = arguments;
        // Without somewhere to send anything there is nothing to listen for.
        let protocols = onward.follow(output.traces(cx)).map(|_| protocols);
        let (grpc_block, http_block, binary_block, compact_block) = match protocols {
            Some(Protocols { grpc, thrift_http, thrift_binary, thrift_compact }) => {
                (grpc, thrift_http, thrift_binary, thrift_compact)
            }
            None => (None, None, None, None),
        };
        let (grpc_block, http_block) = (grpc_block.map(PreparedGrpc::new), http_block.map(PreparedHttp::new));
        shown.listen([
            ("grpc", grpc_block.as_ref().map(PreparedGrpc::address)),
            ("thrift_http", http_block.as_ref().map(PreparedHttp::address)),
            ("thrift_binary", binary_block.as_ref().map(UdpArguments::address)),
            ("thrift_compact", compact_block.as_ref().map(UdpArguments::address)),
        ]);
        let entrance = |transport| {
            let metrics = ReceiverMetrics::new::<_, Traces>(cx, "jaeger", transport, &shown);
            Entrance::new(onward.clone(), metrics)
        };
        let service = || Arc::new(Collector(entrance("grpc"))) as Arc<dyn GrpcService>;
        let grpc = GrpcServer::commit(grpc, grpc_block, service, (&reports[0], &leaving), cx);
        let service = || Arc::new(ThriftHttp(entrance("collector_http"))) as Arc<dyn HttpService>;
        let http = HttpServer::commit(http, http_block, service, (&reports[1], &leaving), cx);
        let service = || entrance("udp_thrift_binary");
        let binary = UdpServer::commit(binary, binary_block, Protocol::Binary, service, (&reports[2], &leaving), cx);
        let service = || entrance("udp_thrift_compact");
        let compact =
            UdpServer::commit(compact, compact_block, Protocol::Compact, service, (&reports[3], &leaving), cx);
        JaegerReceiver { grpc, http, binary, compact, onward, reports, leaving, shown }
    }

    async fn drain(self, _: &Context<Self>) {
        self.leaving.add(self.grpc);
        self.leaving.add(self.http);
        self.leaving.add(self.binary);
        self.leaving.add(self.compact);
        self.leaving.gone().await;
    }
}

/// Takes spans over gRPC.
struct Collector(Entrance<Traces>);

impl GrpcService for Collector {
    fn methods(&self) -> &[(&'static str, &'static str)] {
        &[("jaeger.api_v2.CollectorService", "PostSpans")]
    }

    fn call(&self, _: usize, call: GrpcCall) -> BoxFuture<'_, Result<Vec<u8>, RpcStatus>> {
        Box::pin(async move {
            let read = |message: bytes::Bytes| {
                let batch = read_post_spans(&message).map_err(|error| error.to_string())?;
                Ok(translate::of_proto(batch))
            };
            let data = call.read(16, read).await?;
            self.0.take(Batch::of(data, Arc::clone(&call.context))).await?;
            Ok(Vec::new())
        })
    }
}

/// Takes spans over HTTP.
struct ThriftHttp(Entrance<Traces>);

const PATH: &str = "/api/traces";

impl HttpService for ThriftHttp {
    fn route(&self, path: &str) -> Option<&str> {
        (path == PATH).then_some(PATH)
    }

    fn answer<'a>(&'a self, request: &'a mut HttpRequest) -> BoxFuture<'a, Response<ServerBody>> {
        Box::pin(async move {
            if request.parts.method != Method::POST {
                return bare(StatusCode::METHOD_NOT_ALLOWED);
            }
            let unread = |text: &str| escaped(&format!("Unable to process request body: {text}"));
            let read = |body: bytes::Bytes| match read_batch(&body, Protocol::Binary) {
                Ok(batch) => Ok(translate::of_thrift(batch)),
                Err(error) => Err(error.to_string()),
            };
            let read = match request.read(16, read).await {
                Ok(read) => read,
                Err(Unread::Bad(text)) => return http_error(StatusCode::INTERNAL_SERVER_ERROR, &unread(&text)),
                Err(Unread::Crowded) => return crowded(),
            };
            let kind = request.parts.headers.get(header::CONTENT_TYPE);
            match media_type(&kind.map(|kind| String::from_utf8_lossy(kind.as_bytes())).unwrap_or_default()) {
                Ok(kind) if matches!(&*kind, "application/x-thrift" | "application/vnd.apache.thrift.binary") => {}
                Ok(kind) => {
                    return http_error(StatusCode::BAD_REQUEST, &escaped(&format!("Unsupported content type: {kind}")));
                }
                Err(text) => {
                    return http_error(
                        StatusCode::BAD_REQUEST,
                        &escaped(&format!("Cannot parse content type: {text}")),
                    );
                }
            }
            let data = match read {
                Ok(data) => data,
                Err(text) => return http_error(StatusCode::BAD_REQUEST, &unread(&text)),
            };
            match self.0.take(Batch::of(data, Arc::clone(&request.context))).await {
                Ok(()) => bare(StatusCode::ACCEPTED),
                Err(status) => {
                    let text = format!("Cannot submit Jaeger batch: {}", status.message);
                    http_error(StatusCode::INTERNAL_SERVER_ERROR, &text)
                }
            }
        })
    }
}

/// A text as it stands in HTML.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests;
