//! `otelcol.receiver.zipkin`.

mod v1;
mod v2;

use std::sync::Arc;

use corten_component::listen::{self, Report};
use corten_component::{Component, Context, Error};
use corten_config::Arguments;
use corten_net::grpc::Code;
use corten_net::{ServerBody, full_body, http_error, media_type};
use corten_otlp::{Batch, Data, Span, Traces};
use corten_signal::flow::BoxFuture;
use corten_wire::zipkin;
use http::{HeaderValue, Response, StatusCode, header};

use crate::flow::{DebugMetrics, Output};
use crate::server::{
    Entrance, HttpRequest, HttpServer, HttpServerArguments, HttpService, Leaving, Onward, PreparedHttp,
    ReceiverMetrics, Shown, Unread, bare, crowded,
};

/// Receives spans as Zipkin's clients send them over HTTP, and sends them on as traces.
///
/// - Requests whose path has `api/v1/spans` in it bring spans of version 1, in JSON or, with the content type
///   `application/x-thrift`, in Thrift.
/// - All others bring spans of version 2, in JSON or, with the content type `application/x-protobuf`, in protocol buffers.
///
/// Requests are answered with 202 when all receivers have the traces safe; where a stage on the way keeps them for a while,
/// when they have reached it. What cannot be read or will never be taken is answered with 400, and 500 asks to try again.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct ZipkinArguments {
    /// Whether tags that look like numbers or truth values become such.
    #[arg(default = false)]
    parse_string_tags: bool,
    /// Where and how to listen.
    #[flatten(defaults(endpoint = "0.0.0.0:9411"))]
    server: HttpServerArguments,
    /// Where to send traces.
    #[block]
    output: Output,
    /// Which metrics of its own the component has.
    #[block(optional)]
    debug_metrics: DebugMetrics,
}

/// The component.
pub struct ZipkinReceiver {
    http: Option<HttpServer>,
    onward: Onward<Traces>,
    report: Report,
    leaving: Leaving,
    shown: Arc<Shown>,
}

impl Component for ZipkinReceiver {
    const NAME: &'static str = "otelcol.receiver.zipkin";
    type Arguments = ZipkinArguments;
    type Exports = ();
    type Prepared = ZipkinArguments;

    async fn prepare(
        arguments: ZipkinArguments,
        _: &Context<Self>,
        _: Option<&Self>,
    ) -> Result<(ZipkinArguments, ()), Error> {
        Ok((arguments, ()))
    }

    fn commit(current: Option<Self>, arguments: ZipkinArguments, cx: &Context<Self>) -> Self {
        let now = current.unwrap_or_else(|| ZipkinReceiver {
            http: None,
            onward: Onward::default(),
            report: listen::report(cx),
            leaving: Leaving::default(),
            shown: Shown::new(cx),
        });
        let ZipkinReceiver { http, onward, report, leaving, shown } = now;
        let ZipkinArguments { parse_string_tags, server, output, .. } = arguments;
        let prepared = onward.follow(output.traces(cx)).map(|_| PreparedHttp::new(server));
        shown.listen([("http", prepared.as_ref().map(PreparedHttp::address))]);
        let service = || {
            let entrances = Format::ALL.map(|format| {
                let metrics = ReceiverMetrics::new::<_, Traces>(cx, "zipkin", format.transport(), &shown);
                Entrance::new(onward.clone(), metrics)
            });
            Arc::new(Spans { entrances, parse_string_tags }) as Arc<dyn HttpService>
        };
        let http = HttpServer::commit(http, prepared, service, (&report, &leaving), cx);
        ZipkinReceiver { http, onward, report, leaving, shown }
    }

    async fn drain(self, _: &Context<Self>) {
        self.leaving.add(self.http);
        self.leaving.gone().await;
    }
}

/// How spans are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    ThriftV1,
    JsonV1,
    Json,
    Protobuf,
}

impl Format {
    const ALL: [Format; 4] = [Format::ThriftV1, Format::JsonV1, Format::Json, Format::Protobuf];

    fn of(path: &str, headers: &http::HeaderMap) -> Self {
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| media_type(kind.to_str().ok()?).ok());
        match (is_v1(path), kind.as_deref()) {
            (true, Some("application/x-thrift")) => Format::ThriftV1,
            (true, _) => Format::JsonV1,
            (false, Some("application/x-protobuf")) => Format::Protobuf,
            (false, _) => Format::Json,
        }
    }

    /// What metrics call it.
    fn transport(self) -> &'static str {
        match self {
            Format::ThriftV1 => "http_v1_thrift",
            Format::JsonV1 => "http_v1_json",
            Format::Json => "http_v2_json",
            Format::Protobuf => "http_v2_proto",
        }
    }

    /// How much longer it takes to read a byte than to look at it.
    fn effort(self) -> usize {
        if matches!(self, Format::JsonV1 | Format::Json) { 32 } else { 16 }
    }

    fn read(self, body: &[u8], parse_string_tags: bool) -> Result<Data<Span>, String> {
        match self {
            Format::ThriftV1 => {
                let spans = zipkin::read_thrift_v1(body).map_err(|error| error.to_string())?;
                Ok(v1::translate(spans, false, None))
            }
            Format::JsonV1 => Ok(v1::translate(zipkin::read_json_v1(body)?, parse_string_tags, Some(v1::now_ns()))),
            Format::Json => v2::translate(zipkin::read_json(body)?, parse_string_tags),
            Format::Protobuf => v2::translate(zipkin::read_proto(body)?, parse_string_tags),
        }
    }
}

fn is_v1(path: &str) -> bool {
    path.contains("api/v1/spans")
}

struct Spans {
    /// In the order of the formats.
    entrances: [Entrance<Traces>; 4],
    parse_string_tags: bool,
}

impl HttpService for Spans {
    fn route(&self, path: &str) -> Option<&str> {
        Some(if is_v1(path) { "/api/v1/spans" } else { "/api/v2/spans" })
    }

    fn answer<'a>(&'a self, request: &'a mut HttpRequest) -> BoxFuture<'a, Response<ServerBody>> {
        Box::pin(async move {
            let format = Format::of(request.parts.uri.path(), &request.parts.headers);
            let parse_string_tags = self.parse_string_tags;
            let data = match request.read(format.effort(), move |body| format.read(&body, parse_string_tags)).await {
                Ok(Ok(data)) => data,
                Ok(Err(text)) | Err(Unread::Bad(text)) => return http_error(StatusCode::BAD_REQUEST, &text),
                Err(Unread::Crowded) => return crowded(),
            };
            let batch = Batch::of(data, Arc::clone(&request.context));
            match self.entrances[format as usize].take(batch).await {
                Ok(()) => bare(StatusCode::ACCEPTED),
                Err(status) if Code(status.code) == Code::INTERNAL => {
                    refusal(StatusCode::BAD_REQUEST, "\"Bad Request\"")
                }
                Err(_) => refusal(StatusCode::INTERNAL_SERVER_ERROR, "\"Internal Server Error\""),
            }
        })
    }
}

fn refusal(status: StatusCode, text: &'static str) -> Response<ServerBody> {
    let mut response = Response::new(full_body(text));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// The key that says that a span came without a start.
const START_TIME_ABSENT: &str = "otel.zipkin.absentField.startTime";

/// What a tag is that may be more than a text.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Parsed {
    Int(i64),
    Double(f64),
    Bool(bool),
    Text,
}

fn parsed(text: &str) -> Parsed {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let digits = text.strip_prefix('-').unwrap_or(text);
    if is_number(digits) {
        // What is too large is the largest that there is.
        let extreme = if digits.len() == text.len() { i64::MAX } else { i64::MIN };
        return Parsed::Int(text.parse().unwrap_or(extreme));
    }
    match (digits.split_once('.'), text) {
        (Some((whole, fraction)), _) if is_number(whole) && is_number(fraction) => {
            text.parse().map_or(Parsed::Text, Parsed::Double)
        }
        (_, "true") => Parsed::Bool(true),
        (_, "false") => Parsed::Bool(false),
        _ => Parsed::Text,
    }
}

#[cfg(test)]
mod tests;
