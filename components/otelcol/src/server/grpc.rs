//! Calls of gRPC, up to what answers them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bytes::Bytes;
use corten_component::listen::{ListenSettings, Listening, Memory, Report};
use corten_component::{Component, Context, Task};
use corten_net::grpc::{self, Code, Status};
use corten_net::{ConnectionInfo, ServerBody};
use corten_otlp::{Metadata, RequestContext, RpcStatus};
use corten_signal::flow::BoxFuture;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use parking_lot::Mutex;

use super::arguments::GrpcServerArguments;
use super::deliver::unavailable;
use super::http::{CROWDED, CROWDED_AFTER, Unread, request_context};
use super::leaving::Leaving;
use super::readers::{Readers, by_itself, held_bytes_max};
use super::telemetry::CallMetrics;

/// How long a message may take to arrive where the client does not say how long it waits.
const MESSAGE_WAIT_MAX: Duration = Duration::from_secs(120);

/// What answers calls.
pub(crate) trait GrpcService: Send + Sync + 'static {
    /// The methods that there are: service and name.
    fn methods(&self) -> &[(&'static str, &'static str)];

    /// Answers a call of one of them.
    fn call(&self, method: usize, call: GrpcCall) -> BoxFuture<'_, Result<Vec<u8>, RpcStatus>>;
}

/// A call that was let in.
pub(crate) struct GrpcCall {
    /// The message, unpacked.
    pub(crate) message: Bytes,
    /// What goes with the telemetry.
    pub(crate) context: Arc<RequestContext>,
    readers: Readers,
}

impl GrpcCall {
    /// Makes something of the message. How expensive that is, compared to a look at each byte, is said by `effort`.
    ///
    /// # Errors
    ///
    /// It is malformed.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        effort: usize,
        make: impl FnOnce(Bytes) -> Result<T, String> + Send + 'static,
    ) -> Result<T, RpcStatus> {
        let message = self.message.clone();
        let made = self.readers.read(message.len(), effort, || make(message)).await;
        let made = made.unwrap_or_else(|error| match error {
            Unread::Bad(why) => Err(why),
            Unread::Crowded => Err(CROWDED.to_owned()),
        });
        made.map_err(|error| RpcStatus {
            code: Code::INTERNAL.0,
            message: format!("grpc: error unmarshalling request: {error}"),
            retry_delay_ms: None,
        })
    }
}

/// A server that follows its arguments.
pub(crate) struct GrpcServer {
    shared: Arc<Shared>,
    task: Task,
}

impl From<GrpcServer> for Task {
    fn from(server: GrpcServer) -> Task {
        server.task
    }
}

/// What is to be put in place.
pub(crate) struct PreparedGrpc {
    arguments: GrpcServerArguments,
    listen: ListenSettings,
}

impl PreparedGrpc {
    pub(crate) fn new(arguments: GrpcServerArguments) -> Self {
        PreparedGrpc { listen: arguments.listen(), arguments }
    }

    /// Where it is to listen.
    pub(crate) fn address(&self) -> String {
        self.listen.address.to_string()
    }
}

/// What all calls share, over all changes of the arguments.
struct Shared {
    door: Mutex<Arc<Door>>,
    listening: Arc<Listening>,
    memory: Memory,
    readers: Readers,
    metrics: CallMetrics,
}

/// What calls are let in by, until other arguments come.
struct Door {
    arguments: GrpcServerArguments,
    service: Arc<dyn GrpcService>,
}

impl GrpcServer {
    /// Puts what was prepared in place; without it there is no server.
    pub(crate) fn commit<C: Component>(
        current: Option<Self>,
        prepared: Option<PreparedGrpc>,
        service: impl FnOnce() -> Arc<dyn GrpcService>,
        (report, leaving): (&Report, &Leaving),
        cx: &Context<C>,
    ) -> Option<Self> {
        let Some(PreparedGrpc { arguments, listen }) = prepared else {
            leaving.add(current);
            return None;
        };
        let held_bytes_max = held_bytes_max(arguments.message_bytes_max());
        let door = Arc::new(Door { service: service(), arguments });
        if let Some(current) = current {
            current.shared.memory.set_max(held_bytes_max);
            *current.shared.door.lock() = door;
            current.shared.listening.set(listen);
            return Some(current);
        }
        let shared = Arc::new(Shared {
            door: Mutex::new(door),
            listening: Arc::new(Listening::unmetered(listen, cx.logger().clone(), "Starting GRPC server")),
            memory: Memory::new(held_bytes_max),
            readers: Readers::default(),
            metrics: CallMetrics::new(cx.metrics()),
        });
        let (serving, report) = (Arc::clone(&shared), Arc::clone(report));
        let task = cx.spawn("grpc server", move |stop| {
            let (shared, report) = (Arc::clone(&serving), Arc::clone(&report));
            let listening = Arc::clone(&shared.listening);
            let handler = move |request| {
                let shared = Arc::clone(&shared);
                async move { shared.answer(request).await }
            };
            async move {
                let outcome = listening.run(Arc::new(handler), Arc::clone(&report), stop).await;
                // What is not listened on any more is no trouble.
                report(None);
                outcome
            }
        });
        Some(GrpcServer { shared, task })
    }
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> Response<ServerBody> {
        let began = Instant::now();
        let door = Arc::clone(&*self.door.lock());
        let (parts, body) = request.into_parts();
        if let Err((status, refusal)) = check(&parts) {
            let mut response = grpc::answer(Err(refusal), None);
            *response.status_mut() = status;
            return response;
        }
        let method = match find(door.service.methods(), parts.uri.path()) {
            Ok(method) => method,
            Err(text) => return grpc::answer(Err(Status::new(Code::UNIMPLEMENTED, text)), None),
        };
        let mut message_len = None;
        let limit = grpc::timeout(&parts.headers);
        let work = self.call(&door, &parts, body, method, &mut message_len);
        let outcome = match limit {
            None => work.await,
            Some(limit) => tokio::time::timeout(limit, work)
                .await
                .unwrap_or_else(|_| Err(Status::new(Code::DEADLINE_EXCEEDED, "context deadline exceeded"))),
        };
        let code = outcome.as_ref().map_or_else(|status| status.code, |_| Code::OK);
        if let Err(status) = &outcome {
            let peer = parts.extensions.get::<ConnectionInfo>().map(|info| info.peer.to_string());
            let peer = peer.unwrap_or_default();
            self.listening.warn("refused a call", &format!("{} to {peer}: {}", code.shown(), status.message), 1);
        }
        let answer_len = outcome.as_ref().map_or(0, Vec::len);
        self.metrics.observe(door.service.methods()[method], code, began.elapsed(), message_len, answer_len);
        grpc::answer(outcome, grpc::answer_coding(&parts.headers))
    }

    async fn call(
        &self,
        door: &Door,
        parts: &Parts,
        body: Incoming,
        method: usize,
        message_len: &mut Option<usize>,
    ) -> Result<Vec<u8>, Status> {
        grpc::message_coding(&parts.headers)?;
        let with_metadata = door.arguments.includes_metadata();
        let context = request_context(parts, with_metadata, door.arguments.auth(), |context| {
            if !context.metadata.is_empty() || with_metadata {
                context.metadata = metadata(parts, &context.metadata);
            }
        });
        let context = context.await.map_err(|text| Status::new(Code::UNAUTHENTICATED, text))?;
        let bytes_max = door.arguments.message_bytes_max();
        let mut body = self.memory.body(body);
        let crowded = || of_rpc(unavailable(CROWDED, Some(CROWDED_AFTER)));
        let sent = match tokio::time::timeout(MESSAGE_WAIT_MAX, grpc::receive(&mut body, bytes_max)).await {
            Ok(Ok(sent)) => sent,
            Ok(Err(_)) if body.is_crowded() => return Err(crowded()),
            Ok(Err(status)) => return Err(status),
            Err(_) => return Err(Status::new(Code::DEADLINE_EXCEEDED, "the message did not arrive in time")),
        };
        let (len, is_packed) = (sent.len(), grpc::is_packed(&sent));
        let sent = if is_packed { sent } else { by_itself(sent) };
        let headers = parts.headers.clone();
        let unpack = move || grpc::unframed(sent, &headers, bytes_max);
        let effort = if is_packed { Readers::UNPACK_EFFORT } else { 0 };
        let message = self.readers.read(len, effort, unpack).await;
        let message = message.unwrap_or_else(|_| Err(Status::new(Code::INTERNAL, "cannot read the message")))?;
        if is_packed {
            // From here on what was unpacked is in memory, and what was packed is not.
            body.held.release();
            if !body.held.grow(message.len()) {
                return Err(crowded());
            }
        }
        *message_len = Some(message.len());
        let call = GrpcCall { message, context: Arc::new(context), readers: self.readers.clone() };
        door.service.call(method, call).await.map_err(of_rpc)
    }
}

/// Whether a request is a call at all.
fn check(parts: &Parts) -> Result<(), (StatusCode, Status)> {
    if !grpc::is_grpc(&parts.headers) {
        let kind = parts.headers.get(http::header::CONTENT_TYPE);
        let kind = kind.map(|kind| String::from_utf8_lossy(kind.as_bytes())).unwrap_or_default();
        let text = format!("invalid gRPC request content-type {kind:?}");
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, Status::new(Code::INVALID_ARGUMENT, text)));
    }
    if parts.method != Method::POST {
        let text = format!("Received a HEADERS frame with :method {:?} which should be POST", parts.method.as_str());
        return Err((StatusCode::METHOD_NOT_ALLOWED, Status::new(Code::INTERNAL, text)));
    }
    Ok(())
}

/// The method that a path names.
fn find(methods: &[(&str, &str)], path: &str) -> Result<usize, String> {
    let Some((service, name)) = path.strip_prefix('/').and_then(|path| path.rsplit_once('/')) else {
        return Err(format!("malformed method name: {path:?}"));
    };
    if let Some(at) = methods.iter().position(|method| *method == (service, name)) {
        return Ok(at);
    }
    Err(if methods.iter().any(|(known, _)| *known == service) {
        format!("unknown method {name} for service {service}")
    } else {
        format!("unknown service {service}")
    })
}

/// The headers that count as metadata in gRPC, as the reference's library has them.
fn metadata(parts: &Parts, headers: &Metadata) -> Metadata {
    const LEFT_OUT: [&str; 7] =
        ["grpc-encoding", "grpc-message", "grpc-message-type", "grpc-status", "grpc-timeout", "host", "te"];
    let mut metadata = Metadata::default();
    for (name, values) in headers.iter().filter(|(name, _)| !LEFT_OUT.contains(name)) {
        for value in values {
            let binary = name.ends_with("-bin").then(|| value.trim_end_matches('='));
            let binary = binary.and_then(|text| STANDARD_NO_PAD.decode(text).or_else(|_| STANDARD.decode(text)).ok());
            metadata
                .add(name, binary.map_or_else(|| value.clone(), |bytes| String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
    let authority = parts.uri.authority().map(|authority| authority.as_str().to_owned());
    if let Some(authority) = authority.or_else(|| headers.get("host").first().cloned()) {
        metadata.add(":authority", authority.clone());
        metadata.add("host", authority);
    }
    metadata
}

/// As gRPC writes it: when to try again stands in the details.
fn of_rpc(status: RpcStatus) -> Status {
    let details = if status.retry_delay_ms.is_some() { status.encode().into() } else { Bytes::new() };
    Status { code: Code(status.code), message: status.message, details }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_method_or_says_what_is_unknown() {
        let methods = [("a.b.C", "Export"), ("a.b.D", "Export")];
        for (path, want) in [
            ("/a.b.D/Export", Ok(1)),
            ("/a.b.D/Other", Err("unknown method Other for service a.b.D")),
            ("/a.b.E/Export", Err("unknown service a.b.E")),
            ("/x/a.b.D/Export", Err("unknown service x/a.b.D")),
            ("/Export", Err("malformed method name: \"/Export\"")),
            ("*", Err("malformed method name: \"*\"")),
        ] {
            assert_eq!(find(&methods, path), want.map_err(str::to_owned), "{path}");
        }
    }

    #[test]
    fn metadata_is_what_the_client_said_and_not_how() {
        let request = Request::builder()
            .uri("http://host:1/a.b.C/Export")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("grpc-timeout", "1S")
            .header("user-agent", "me")
            .header("X-Scope-OrgID", "t")
            .header("trace-bin", "AAE=");
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let headers = super::super::http::metadata(&parts.headers);
        let metadata = metadata(&parts, &headers);
        let shown: Vec<_> = metadata.iter().map(|(name, values)| format!("{name}={}", values.join(","))).collect();
        let want = [
            ":authority=host:1",
            "content-type=application/grpc",
            "host=host:1",
            "trace-bin=\0\u{1}",
            "user-agent=me",
            "x-scope-orgid=t",
        ];
        assert_eq!(shown, want);
    }
}
