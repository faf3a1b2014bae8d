//! The server: HTTP/1.1, HTTP/2 over TLS and HTTP/2 in clear text on one listener.

mod auth;
mod config;
mod pings;
mod tls;
mod watch;

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch as signal};

pub use self::auth::BasicAuthFilter;
pub use self::config::{ReceiverHttp, ReceiverTls};
pub use self::pings::PingPolicy;
pub(crate) use self::tls::crypto;
pub use self::tls::{
    Follow, ServerTls, TlsAcceptor, TlsSource, TlsSwitch, WindowsCertificateFilter, WindowsClientFilter,
    WindowsServerFilter,
};
use self::watch::{Activity, UnderWay, Verdict, Watched};
use crate::connect::describe_tls;
use crate::error::describe_io;
use crate::{Error, ErrorKind};

/// What the body of a server's response may fail with while it is sent: then the connection is closed.
pub type BodyFailure = Box<dyn std::error::Error + Send + Sync>;
/// The body of a server's response.
pub type ServerBody = UnsyncBoxBody<Bytes, BodyFailure>;

/// A body without bytes.
pub fn empty_body() -> ServerBody {
    Empty::new().map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// A body that is in memory.
pub fn full_body(bytes: impl Into<Bytes>) -> ServerBody {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// The reference's plain form of an error: the text and a line end, as `text/plain`.
pub fn http_error(status: StatusCode, text: &str) -> Response<ServerBody> {
    let mut response = Response::new(full_body(format!("{text}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// What answers requests. Implemented by every function from a request to a future of a response.
///
/// A [`ConnectionInfo`] stands among the request's extensions. Bodies are read with [`crate::read_body_within`], which
/// limits size and time.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request.
    fn handle(&self, request: Request<Incoming>) -> Pin<Box<dyn Future<Output = Response<ServerBody>> + Send>>;
}

impl<F, R> Handler for F
where
    F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
    R: Future<Output = Response<ServerBody>> + Send + 'static,
{
    fn handle(&self, request: Request<Incoming>) -> Pin<Box<dyn Future<Output = Response<ServerBody>> + Send>> {
        Box::pin(self(request))
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A client on the network.
    Network(SocketAddr),
    /// Another process on this host, over a socket in the file system.
    Local,
    /// This process: see [`crate::memory`].
    Internal,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(address) => address.fmt(f),
            Self::Local => f.write_str("local"),
            Self::Internal => f.write_str("internal"),
        }
    }
}

/// What is known of the connection that a request came over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// Who sent the request.
    pub peer: Peer,
    /// Whether the connection is encrypted.
    pub tls: bool,
}

/// Where connections come from.
pub trait Listener: Send + 'static {
    /// A connection.
    type Io: AsyncRead + AsyncWrite + Send + Unpin + 'static;
    /// The next connection. Called again after an error, some time later. Must be safe to drop while it waits.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Io, Peer)>> + Send;
}

impl Listener for TcpListener {
    type Io = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, Peer)> {
        let (stream, address) = TcpListener::accept(self).await?;
        // Responses are written whole: waiting for more to fill a packet only delays them.
        let _ = stream.set_nodelay(true);
        Ok((stream, Peer::Network(address)))
    }
}

/// The limits of a server. `None` sets no limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ServerLimits {
    /// How many connections are served at a time; further ones wait to be accepted.
    pub connections_max: Option<usize>,
    /// How long a client may take from the first byte of a request of HTTP/1.1 to the end of its headers, and for the
    /// preface of HTTP/2.
    pub header_ms_max: Option<u64>,
    /// How long a connection may be without a request.
    pub idle_ms_max: Option<u64>,
    /// How long a client may refuse to take any byte of a response.
    pub write_stall_ms_max: Option<u64>,
    /// How long a TLS handshake may take.
    pub tls_handshake_ms_max: u64,
    /// The largest head of a request: longer ones are answered with 431. At least 8192.
    pub head_bytes_max: usize,
    /// How many requests one HTTP/2 connection may have under way.
    pub http2_streams_max: u32,
    /// How long requests under way may go on after the server was told to stop.
    pub drain_ms_max: u64,
    /// How old a connection may grow until it takes no further requests.
    pub age_ms_max: Option<u64>,
    /// How long requests under way may go on on a connection that is too old.
    pub age_grace_ms_max: Option<u64>,
    /// Whether a connection of HTTP/1.1 takes further requests after the first.
    pub keep_alive: bool,
    /// What is limited of HTTP/2.
    pub http2: Http2Limits,
}

/// How a server speaks HTTP/2. `None` is the library's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Http2Limits {
    /// Whether nothing else is spoken.
    pub only: bool,
    /// How many bytes of a connection and of a stream may have arrived that are not read yet.
    pub window_bytes: Option<u32>,
    /// How many bytes of a response may wait to be written.
    pub send_buffer_bytes: Option<usize>,
    /// After how long without a sign of life a connection is pinged; `None` for never.
    pub ping_after_ms: Option<u64>,
    /// How long the answer to a ping may take until the connection is closed.
    pub ping_answer_ms_max: u64,
    /// How often clients may ping; `None` for as often as they like.
    pub pings: Option<PingPolicy>,
}

impl Http2Limits {
    /// What counts unless something else is said.
    pub const DEFAULT: Self = Http2Limits {
        only: false,
        window_bytes: None,
        send_buffer_bytes: None,
        ping_after_ms: None,
        ping_answer_ms_max: 20_000,
        pings: None,
    };
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections_max: None,
            header_ms_max: Some(30_000),
            idle_ms_max: Some(300_000),
            write_stall_ms_max: Some(60_000),
            tls_handshake_ms_max: 10_000,
            head_bytes_max: 64 << 10,
            http2_streams_max: 250,
            drain_ms_max: 10_000,
            age_ms_max: None,
            age_grace_ms_max: None,
            keep_alive: true,
            http2: Http2Limits::DEFAULT,
        }
    }
}

impl ServerLimits {
    /// How often connections are looked at: a limit may be exceeded by a quarter of the smallest one.
    fn look_every(&self) -> Duration {
        let all = [self.header_ms_max, self.idle_ms_max, self.write_stall_ms_max];
        let smallest = all.into_iter().flatten().min();
        Duration::from_millis(smallest.map_or(5_000, |ms| (ms / 4).clamp(5, 5_000)))
    }
}

/// What is told of connections that failed, and of which peer if it is known.
pub type OnError = Arc<dyn Fn(Option<Peer>, &Error) + Send + Sync>;

/// How to serve.
#[derive(Clone, Default)]
pub struct ServeOptions {
    /// The limits.
    pub limits: ServerLimits,
    /// TLS; empty for none. It may be switched while the server runs and then counts for new connections.
    pub tls: TlsSwitch,
    /// Called for connections that could not be accepted, failed TLS handshakes and TLS files that cannot be used.
    pub on_error: Option<OnError>,
}

impl fmt::Debug for ServeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServeOptions").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// What connections are told.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Serving,
    /// Finish what is under way.
    Stopping,
    /// End now.
    Aborting,
}

/// Serves until `stop` is ready, then lets requests under way finish, within the limit, and returns. A handler that
/// panics takes down its connection only.
pub async fn serve<L: Listener>(
    mut listener: L,
    handler: Arc<dyn Handler>,
    options: ServeOptions,
    stop: impl Future<Output = ()> + Send,
) {
    const RETRY_MS_MIN: u64 = 5;
    const RETRY_MS_MAX: u64 = 1_000;

    let limits = options.limits;
    let server = Arc::new(Server { handler, options });
    let permits = Arc::new(Semaphore::new(
        limits.connections_max.map_or(Semaphore::MAX_PERMITS, |max| max.clamp(1, Semaphore::MAX_PERMITS)),
    ));
    let (phase, receiver) = signal::channel(Phase::Serving);
    let mut stop = pin!(stop);
    let mut retry_ms = RETRY_MS_MIN;
    loop {
        let accept = async {
            // The semaphore is never closed, so that a permit always comes.
            let permit = permits.clone().acquire_owned().await.ok();
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            accepted = accept => accepted,
            () = &mut stop => break,
        };
        match accepted {
            Ok((io, peer)) => {
                retry_ms = RETRY_MS_MIN;
                let (server, phase) = (server.clone(), receiver.clone());
                tokio::spawn(async move {
                    server.connection(io, peer, phase).await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of file descriptors, for one: connections that end make room.
                let text = format!("accept: {}", describe_io(&error));
                server.report(None, &Error::new(ErrorKind::Connect, text));
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(retry_ms)) => {}
                    () = &mut stop => break,
                }
                retry_ms = (retry_ms * 2).min(RETRY_MS_MAX);
            }
        }
    }
    // Nobody else connects from here on, and whoever tries is refused rather than left waiting.
    drop(listener);
    drop(receiver);
    phase.send_replace(Phase::Stopping);
    let drain = Duration::from_millis(limits.drain_ms_max);
    if tokio::time::timeout(drain, phase.closed()).await.is_err() {
        phase.send_replace(Phase::Aborting);
        phase.closed().await;
    }
}

struct Server {
    handler: Arc<dyn Handler>,
    options: ServeOptions,
}

impl Server {
    fn report(&self, peer: Option<Peer>, error: &Error) {
        if let Some(on_error) = &self.options.on_error {
            on_error(peer, error);
        }
    }

    async fn connection<I>(&self, io: I, peer: Peer, mut phase: signal::Receiver<Phase>)
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        // Within the process nothing is gained by encryption: the listener there is always plain.
        let tls = if peer == Peer::Internal { None } else { self.options.tls.current() };
        let Some(tls) = tls else {
            return self.requests(io, ConnectionInfo { peer, tls: false }, false, phase).await;
        };
        let limit = Duration::from_millis(self.options.limits.tls_handshake_ms_max);
        let handshake = async {
            let (config, problem) = tls.config().await;
            if let Some(problem) = problem {
                self.report(Some(peer), &problem);
            }
            tokio_rustls::TlsAcceptor::from(config).accept(io).await
        };
        let outcome = tokio::select! {
            outcome = tokio::time::timeout(limit, handshake) => outcome,
            // There is no request yet whose end would be waited for.
            _ = phase.changed() => return,
        };
        match outcome {
            Ok(Ok(stream)) => {
                let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                self.requests(stream, ConnectionInfo { peer, tls: true }, http2, phase).await;
            }
            Ok(Err(error)) => {
                let text = format!("tls handshake: {}", describe_tls(&error));
                self.report(Some(peer), &Error::new(ErrorKind::Tls, text));
            }
            Err(_) => self.report(Some(peer), &Error::new(ErrorKind::Timeout, "tls handshake timeout")),
        }
    }

    async fn requests<I>(&self, io: I, info: ConnectionInfo, http2: bool, mut phase: signal::Receiver<Phase>)
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let limits = &self.options.limits;
        let activity = Arc::new(Activity::new(http2));
        let service = Requests { handler: self.handler.clone(), info, activity: activity.clone() };
        let mut builder = auto::Builder::new(TokioExecutor::new());
        if limits.http2.only {
            builder = builder.http2_only();
        }
        // The limit of hyper for reading a head would count the time between requests too, so it is off: see `watch`.
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            // A client may close its side as soon as it has asked, and still wants the answer.
            .half_close(true)
            .keep_alive(limits.keep_alive)
            .max_buf_size(limits.head_bytes_max.max(8_192));
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.http2_streams_max)
            .max_header_list_size(u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX))
            .keep_alive_interval(limits.http2.ping_after_ms.map(Duration::from_millis))
            .keep_alive_timeout(Duration::from_millis(limits.http2.ping_answer_ms_max));
        if let Some(bytes) = limits.http2.window_bytes {
            builder.http2().initial_stream_window_size(bytes).initial_connection_window_size(bytes);
        }
        if let Some(bytes) = limits.http2.send_buffer_bytes {
            builder.http2().max_send_buf_size(bytes);
        }
        let io = TokioIo::new(Watched::new(io, activity.clone(), limits.http2.pings));
        let mut connection = pin!(builder.serve_connection(io, service));

        let mut looks = tokio::time::interval(limits.look_every());
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let watched = info.peer != Peer::Internal;
        let mut closing = false;
        let mut aging = false;
        let mut ages = limits.age_ms_max.map(|ms| Box::pin(tokio::time::sleep(Duration::from_millis(ms))));
        loop {
            let old = async {
                match &mut ages {
                    Some(ages) => ages.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // A connection that breaks is the client's business and nothing to report.
                _ = connection.as_mut() => return,
                changed = phase.changed() => {
                    if changed.is_err() || *phase.borrow_and_update() == Phase::Aborting {
                        return;
                    }
                    connection.as_mut().graceful_shutdown();
                }
                () = old => {
                    if aging {
                        return;
                    }
                    aging = true;
                    connection.as_mut().graceful_shutdown();
                    let grace = limits.age_grace_ms_max;
                    ages = grace.map(|ms| Box::pin(tokio::time::sleep(Duration::from_millis(ms))));
                }
                _ = looks.tick(), if watched => match activity.verdict(limits) {
                    Verdict::Fine => {}
                    // Asked to close once before, and still there.
                    Verdict::Idle if closing => return,
                    Verdict::Idle => {
                        closing = true;
                        connection.as_mut().graceful_shutdown();
                    }
                    Verdict::TooSlow => return,
                },
            }
        }
    }
}

/// Hands the requests of one connection to the handler.
struct Requests {
    handler: Arc<dyn Handler>,
    info: ConnectionInfo,
    activity: Arc<Activity>,
}

impl hyper::service::Service<Request<Incoming>> for Requests {
    type Response = Response<Counted>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let under_way = UnderWay::begin(self.activity.clone(), request.version() == Version::HTTP_2);
        request.extensions_mut().insert(self.info);
        let response = self.handler.handle(request);
        Box::pin(async move { Ok(response.await.map(|inner| Counted { inner, _under_way: under_way })) })
    }
}

/// A response's body, which keeps its request under way until it is sent or given up.
struct Counted {
    inner: ServerBody,
    _under_way: UnderWay,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = BodyFailure;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFailure>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
