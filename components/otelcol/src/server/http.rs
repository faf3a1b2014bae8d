//! The way of a request of HTTP up to what answers it, in the order of the reference: what is known of the client, web pages
//! of other origins, authentication, sizes, and how bodies are packed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use corten_coding::{Coding, CodingError};
use corten_component::listen::{ListenSettings, Listening, Memory, MeteredBody, Report};
use corten_component::{Component, Context, Task};
use corten_net::{ConnectionInfo, ErrorKind, Peer, ServerBody, empty_body, http_error};
use corten_otlp::{Metadata, RequestContext};
use corten_signal::flow::BoxFuture;
use http::request::Parts;
use http::{HeaderMap, Request, Response, StatusCode, header};
use hyper::body::{Body as _, Incoming};
use parking_lot::Mutex;

use super::arguments::HttpServerArguments;
use super::cors::{self, Cors};
use super::leaving::Leaving;
use super::readers::{Readers, by_itself, held_bytes_max};
use super::telemetry::{Answered, HttpMetrics};
use crate::auth::Handler;

/// What answers requests that were let in.
pub(crate) trait HttpService: Send + Sync + 'static {
    /// How metrics call where a path leads to; `None` where it leads nowhere.
    fn route(&self, path: &str) -> Option<&str>;

    /// The answer to a request that was not let in, or not read.
    fn refusal(&self, parts: &Parts, status: StatusCode, text: &str) -> Response<ServerBody> {
        let _ = parts;
        http_error(status, text)
    }

    /// Answers a request whose path leads somewhere.
    fn answer<'a>(&'a self, request: &'a mut HttpRequest) -> BoxFuture<'a, Response<ServerBody>>;
}

/// A request that was let in.
pub(crate) struct HttpRequest {
    /// Its head.
    pub(crate) parts: Parts,
    /// What goes with the telemetry.
    pub(crate) context: Arc<RequestContext>,
    body: MeteredBody,
    coding: Option<Coding>,
    bytes_max: usize,
    body_wait_max: Duration,
    /// The body did not arrive in time.
    is_late: bool,
    readers: Readers,
}

/// Why a body cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// It is too long, does not arrive whole or is not packed as it says.
    Bad(String),
    /// There is no room for it now.
    Crowded,
}

/// When somebody for whom there was no room is to come again.
pub(crate) const CROWDED_AFTER: Duration = Duration::from_secs(1);
/// What they are told.
pub(crate) const CROWDED: &str = "too many requests are under way";

/// The answer to a request for which there is no memory now.
pub(crate) fn crowded() -> Response<ServerBody> {
    let mut response = http_error(StatusCode::SERVICE_UNAVAILABLE, CROWDED);
    response.headers_mut().insert(header::RETRY_AFTER, CROWDED_AFTER.as_secs().into());
    response
}

/// An answer that says nothing but its status.
pub(crate) fn bare(status: StatusCode) -> Response<ServerBody> {
    let mut response = Response::new(empty_body());
    *response.status_mut() = status;
    response
}

/// What the reference says of bodies that are too long.
const TOO_LARGE: &str = "http: request body too large";

impl HttpRequest {
    /// Reads the body, unpacks it and makes something of it. How expensive that is, compared to a look at each byte, is
    /// said by `effort`.
    pub(crate) async fn read<T: Send + 'static>(
        &mut self,
        effort: usize,
        make: impl FnOnce(Bytes) -> T + Send + 'static,
    ) -> Result<T, Unread> {
        let (coding, bytes_max) = (self.coding, self.bytes_max);
        let packed = match self.body.read(bytes_max, self.body_wait_max).await {
            Ok(packed) => packed,
            Err(_) if self.body.is_crowded() => return Err(Unread::Crowded),
            Err(error) => {
                self.is_late = error.kind() == ErrorKind::Timeout;
                let is_too_large = error.kind() == ErrorKind::TooLarge;
                return Err(Unread::Bad(if is_too_large { TOO_LARGE.to_owned() } else { error.to_string() }));
            }
        };
        let Some(coding) = coding else {
            let body = by_itself(packed);
            return self.readers.read(body.len(), effort, || make(body)).await;
        };
        let read =
            self.readers.read(packed.len(), Readers::UNPACK_EFFORT, move || match coding.unpack(&packed, bytes_max) {
                Ok(bytes) => {
                    let len = bytes.len();
                    Ok((make(bytes.into()), len))
                }
                Err(CodingError::TooLarge(_)) => Err(Unread::Bad(TOO_LARGE.to_owned())),
                Err(CodingError::Corrupt(why)) => Err(Unread::Bad(why)),
            });
        let (made, len) = read.await??;
        // From here on what was unpacked is in memory, and what was packed is not.
        self.body.held.release();
        if self.body.held.grow(len) { Ok(made) } else { Err(Unread::Crowded) }
    }
}

/// A server that follows its arguments.
pub(crate) struct HttpServer {
    shared: Arc<Shared>,
    task: Task,
}

impl From<HttpServer> for Task {
    fn from(server: HttpServer) -> Task {
        server.task
    }
}

/// What is to be put in place.
pub(crate) struct PreparedHttp {
    arguments: HttpServerArguments,
    listen: ListenSettings,
}

impl PreparedHttp {
    pub(crate) fn new(arguments: HttpServerArguments) -> Self {
        PreparedHttp { listen: arguments.listen(), arguments }
    }

    /// Where it is to listen.
    pub(crate) fn address(&self) -> String {
        self.listen.address.to_string()
    }
}

/// What all requests share, over all changes of the arguments.
struct Shared {
    door: Mutex<Arc<Door>>,
    listening: Arc<Listening>,
    memory: Memory,
    readers: Readers,
    metrics: HttpMetrics,
}

/// What requests are let in by, until other arguments come.
struct Door {
    arguments: HttpServerArguments,
    body_wait_max: Duration,
    cors: Option<Cors>,
    /// Where the server listens, for metrics.
    server: (String, String),
    service: Arc<dyn HttpService>,
}

impl HttpServer {
    /// Puts what was prepared in place; without it there is no server.
    pub(crate) fn commit<C: Component>(
        current: Option<Self>,
        prepared: Option<PreparedHttp>,
        service: impl FnOnce() -> Arc<dyn HttpService>,
        (report, leaving): (&Report, &Leaving),
        cx: &Context<C>,
    ) -> Option<Self> {
        let Some(PreparedHttp { arguments, listen }) = prepared else {
            leaving.add(current);
            return None;
        };
        if let Some(cors) = &arguments.cors
            && cors.allowed_origins.is_empty()
            && !cors::is_default(&cors.allowed_headers)
        {
            let text =
                "The CORS configuration specifies allowed headers but no allowed origins, and is therefore ignored.";
            cx.logger().warn(text, &[]);
        }
        let (host, port) = arguments.endpoint.rsplit_once(':').unwrap_or((&arguments.endpoint, ""));
        let door = Arc::new(Door {
            server: (host.to_owned(), port.to_owned()),
            body_wait_max: listen.body_wait_max,
            cors: arguments.cors.as_ref().and_then(Cors::new),
            service: service(),
            arguments,
        });
        let bytes_max = door.arguments.body_bytes_max();
        if let Some(current) = current {
            current.shared.memory.set_max(held_bytes_max(bytes_max));
            *current.shared.door.lock() = door;
            current.shared.listening.set(listen);
            return Some(current);
        }
        let shared = Arc::new(Shared {
            door: Mutex::new(door),
            listening: Arc::new(Listening::unmetered(listen, cx.logger().clone(), "Starting HTTP server")),
            memory: Memory::new(held_bytes_max(bytes_max)),
            readers: Readers::default(),
            metrics: HttpMetrics::new(cx.metrics()),
        });
        let (serving, report) = (Arc::clone(&shared), Arc::clone(report));
        let task = cx.spawn("http server", move |stop| {
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
        Some(HttpServer { shared, task })
    }
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> Response<ServerBody> {
        let began = Instant::now();
        let door = Arc::clone(&*self.door.lock());
        let (parts, body) = request.into_parts();
        let body = self.memory.body(body);
        let mut request = HttpRequest {
            parts,
            context: Arc::default(),
            body,
            coding: None,
            bytes_max: door.arguments.body_bytes_max(),
            body_wait_max: door.body_wait_max,
            is_late: false,
            readers: self.readers.clone(),
        };
        let mut response = match &door.cors {
            Some(_) if Cors::is_preflight(&request.parts) => bare(StatusCode::NO_CONTENT),
            _ => door.answer(&mut request).await,
        };
        if let Some(cors) = &door.cors {
            response.headers_mut().extend(cors.headers(&request.parts));
        }
        // Whoever was too slow once is not waited for again.
        if !request.body.is_end_stream() && !request.is_late {
            request.body.discard().await;
        }
        let status = response.status();
        let route = door.service.route(request.parts.uri.path());
        if status.is_client_error() || status.is_server_error() {
            let peer = request.parts.extensions.get::<ConnectionInfo>().map(|info| info.peer.to_string());
            let told = format!("{} to {} for {}", status.as_u16(), peer.unwrap_or_default(), request.parts.uri.path());
            self.listening.warn("refused a request", &told, 1);
        }
        self.metrics.observe(&Answered {
            method: &request.parts.method,
            route: route.unwrap_or_default(),
            version: request.parts.version,
            is_encrypted: door.arguments.is_encrypted(),
            server: (&door.server.0, &door.server.1),
            status,
            duration: began.elapsed(),
            request_bytes: request.body.read_bytes(),
            response_bytes: response.body().size_hint().exact().unwrap_or(0),
        });
        response
    }
}

impl Door {
    async fn answer(&self, request: &mut HttpRequest) -> Response<ServerBody> {
        let refusal = |request: &HttpRequest, status, text: &str| self.service.refusal(&request.parts, status, text);
        let handler = self.arguments.auth();
        let with_metadata = self.arguments.includes_metadata();
        let context = request_context(&request.parts, with_metadata, handler, |context| {
            if context.metadata.get("host").is_empty()
                && let Some(authority) = request.parts.uri.authority()
            {
                context.metadata.add("host", authority.as_str());
            }
            // Over HTTP it is only the address that counts.
            context.peer = context.peer.map(|peer| SocketAddr::new(peer.ip(), 0));
        });
        match context.await {
            Ok(context) => request.context = Arc::new(context),
            Err(text) => return refusal(request, StatusCode::UNAUTHORIZED, &text),
        }
        let encoding = request.parts.headers.get(header::CONTENT_ENCODING);
        let encoding = encoding.map_or(Ok(""), |encoding| encoding.to_str()).unwrap_or("?");
        if !self.arguments.takes(encoding) {
            let text = format!("unsupported Content-Encoding: {encoding}");
            return refusal(request, StatusCode::BAD_REQUEST, &text);
        }
        request.coding = Coding::named(encoding);
        if self.service.route(request.parts.uri.path()).is_none() {
            return http_error(StatusCode::NOT_FOUND, "404 page not found");
        }
        self.service.answer(request).await
    }
}

/// What is known of a request: of its client, its headers where they are to be kept, and who its sender showed to be.
/// `complete` adds what is different in protocols.
pub(super) async fn request_context(
    parts: &Parts,
    with_metadata: bool,
    auth: Option<&Handler>,
    complete: impl FnOnce(&mut RequestContext),
) -> Result<RequestContext, String> {
    let mut context = RequestContext::default();
    if let Some(ConnectionInfo { peer: Peer::Network(address), .. }) = parts.extensions.get() {
        context.peer = Some(*address);
    }
    if with_metadata || auth.is_some() {
        context.metadata = metadata(&parts.headers);
    }
    complete(&mut context);
    if let Some(handler) = auth {
        context.auth = Some(handler.server()?.authenticate(&context.metadata).await?);
    }
    if !with_metadata {
        context.metadata = Metadata::default();
    }
    Ok(context)
}

pub(super) fn metadata(headers: &HeaderMap) -> Metadata {
    let mut metadata = Metadata::default();
    for (name, value) in headers {
        metadata.add(name.as_str(), String::from_utf8_lossy(value.as_bytes()));
    }
    metadata
}
