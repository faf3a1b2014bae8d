//! Listeners of components that receive over HTTP: how they follow the configuration, and what is told of requests.
//!
//! A component keeps a [`Listening`], whose task opens the port, serves, and follows changes of the arguments without
//! refusing anybody while one server takes over from the other.

mod requests;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Cx, Poll};
use std::time::{Duration, Instant};

use corten_net::{
    Backoff, Handler, Listener, Peer, ReceiverHttp, ServeOptions, ServerLimits, TlsAcceptor, TlsSwitch, serve,
};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

pub use self::requests::{Exchange, HeldBytes, MeteredBody, RequestMetricNames, RequestMetrics, Requests};
use crate::context::Context;
use crate::definition::{Component, Error};
use crate::health::{Health, HealthState};
use crate::log::Logger;
use crate::metrics::Gauge;
use crate::task::Stop;

/// The waits between attempts to listen: doubling from the first to the second.
const BIND_WAIT_MIN: Duration = Duration::from_millis(500);
const BIND_WAIT_MAX: Duration = Duration::from_secs(30);

/// How often a problem that clients cause is logged at most; further ones are counted.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Where and how to listen, until other arguments come.
#[derive(Clone, Debug)]
pub struct ListenSettings {
    /// The `http` block.
    pub http: ReceiverHttp,
    /// Its TLS, read.
    pub tls: TlsSwitch,
    /// How long requests under way may go on when their server stops.
    pub drain_wait_max: Duration,
    /// What is limited beyond the block.
    pub more: MoreLimits,
}

/// Limits that the `http` block does not have; `None` for those of any server.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MoreLimits {
    /// How many requests one HTTP/2 connection may have under way.
    pub http2_streams_max: Option<u32>,
    /// How old a connection may grow until it takes no further requests, in milliseconds.
    pub age_ms_max: Option<u64>,
    /// How long requests under way may go on on a connection that is too old, in milliseconds.
    pub age_grace_ms_max: Option<u64>,
}

/// Says that a listener cannot listen, or, with `None`, that it can.
pub type Report = Arc<dyn Fn(Option<Health>) + Send + Sync>;

/// How the one listener of a component reports.
pub fn report<C: Component>(cx: &Context<C>) -> Report {
    let cx = cx.clone();
    Arc::new(move |health| cx.report_health(health))
}

/// How two listeners of a component report: what is worst of either counts.
pub fn reports<C: Component>(cx: &Context<C>) -> [Report; 2] {
    let known: Arc<Mutex<[Option<Health>; 2]>> = Arc::default();
    [0, 1].map(|at| {
        let (known, cx) = (Arc::clone(&known), cx.clone());
        let report: Report = Arc::new(move |health| {
            let mut known = known.lock();
            known[at] = health;
            cx.report_health(Health::worst(known.iter().flatten()).cloned());
        });
        report
    })
}

impl ListenSettings {
    /// Reads what the block needs. TLS that did not change is kept.
    ///
    /// # Errors
    ///
    /// TLS that cannot be used.
    pub async fn prepare(
        http: ReceiverHttp,
        drain_wait_max: Duration,
        before: Option<&ListenSettings>,
    ) -> Result<Self, Error> {
        let tls = match (before, &http.tls) {
            (Some(before), _) if before.http.tls == http.tls => before.tls.clone(),
            (_, Some(tls)) => {
                let acceptor = TlsAcceptor::new(tls.server_tls()).await;
                TlsSwitch::new(acceptor.map_err(|error| Error::new(error.to_string()))?)
            }
            (_, None) => TlsSwitch::default(),
        };
        Ok(ListenSettings { http, tls, drain_wait_max, more: MoreLimits::default() })
    }
}

/// Logs problems that clients cause, not more often than is good for the log.
#[derive(Debug)]
pub struct Complaints {
    logger: Logger,
    state: Mutex<ComplaintsState>,
}

#[derive(Debug, Default)]
struct ComplaintsState {
    last: Option<Instant>,
    left_out: u64,
}

impl Complaints {
    /// Nothing was logged yet.
    pub fn new(logger: Logger) -> Self {
        Complaints { logger, state: Mutex::default() }
    }

    /// Logs a problem that occurred so many times, or counts it where another one was logged a moment ago.
    pub fn warn(&self, message: &str, problem: &str, count: u64) {
        const SHOWN_BYTES_MAX: usize = 1 << 10;
        let left_out = {
            let mut state = self.state.lock();
            if state.last.is_some_and(|last| last.elapsed() < LOG_EVERY) {
                state.left_out += 1;
                return;
            }
            state.last = Some(Instant::now());
            std::mem::take(&mut state.left_out)
        };
        let problem = &problem[..problem.floor_char_boundary(SHOWN_BYTES_MAX)];
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX).into();
        self.logger
            .warn(message, &[("err", problem.into()), ("count", number(count)), ("lines_left_out", number(left_out))]);
    }
}

/// A listener that follows its component's arguments.
#[derive(Debug)]
pub struct Listening {
    settings: watch::Sender<Arc<ListenSettings>>,
    connections: Gauge,
    connections_limit: Gauge,
    logger: Logger,
    /// What the log says when the port is open.
    opened: &'static str,
    complaints: Complaints,
}

impl Listening {
    /// A listener that [`run`](Self::run) opens. `opened` is what the log says then.
    pub fn new(settings: ListenSettings, metrics: &RequestMetrics, logger: Logger, opened: &'static str) -> Self {
        Listening {
            settings: watch::Sender::new(Arc::new(settings)),
            connections: metrics.connections.clone(),
            connections_limit: metrics.connections_limit.clone(),
            complaints: Complaints::new(logger.clone()),
            logger,
            opened,
        }
    }

    /// The settings now.
    pub fn settings(&self) -> Arc<ListenSettings> {
        Arc::clone(&self.settings.borrow())
    }

    /// Listens with other settings from here on.
    pub fn set(&self, settings: ListenSettings) {
        self.settings.send_replace(Arc::new(settings));
    }

    /// Logs a problem that clients cause: see [`Complaints::warn`].
    pub fn warn(&self, message: &str, problem: &str, count: u64) {
        self.complaints.warn(message, problem, count);
    }

    /// Keeps the server as it is configured until it is to stop; then answers what is under way. The component is
    /// unhealthy while it cannot listen.
    ///
    /// # Errors
    ///
    /// None: it is what a component's task returns.
    pub async fn run(self: Arc<Self>, handler: Arc<dyn Handler>, report: Report, mut stop: Stop) -> Result<(), String> {
        let mut settings = self.settings.subscribe();
        let mut servers = JoinSet::new();
        let (mut serving, mut retired) = (None, Vec::new());
        let mut waits = Backoff::new(BIND_WAIT_MIN, BIND_WAIT_MAX);
        loop {
            let wanted = Arc::clone(&settings.borrow_and_update());
            let failure = apply(&mut serving, &mut retired, &wanted, &self, &handler, &mut servers).await.err();
            let wait = match failure {
                None => {
                    waits = Backoff::new(BIND_WAIT_MIN, BIND_WAIT_MAX);
                    report(None);
                    None
                }
                Some(error) => {
                    let wait = waits.next_wait();
                    let text = format!("cannot listen on {}: {error}", wanted.http.address());
                    self.logger.error("cannot listen", &[("err", (&text).into()), ("retry_after", wait.into())]);
                    report(Some(Health::now(HealthState::Unhealthy, text)));
                    Some(wait)
                }
            };
            let again = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.wait() => break,
                changed = settings.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    waits = Backoff::new(BIND_WAIT_MIN, BIND_WAIT_MAX);
                }
                // Mostly one that was told to; one that ended by itself is started again.
                _ = servers.join_next(), if !servers.is_empty() => {}
                () = again => {}
            }
        }
        drop((serving, retired));
        while servers.join_next().await.is_some() {}
        Ok(())
    }
}

/// What a server is to do. One whose sender is gone stops.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Serving,
    /// Serve the connections that there are as long as they last, and take no others.
    Retired,
}

/// A server that accepts connections.
struct Serving {
    socket: Arc<TcpListener>,
    /// The address as it was configured: the port may be one that the system chose.
    address: String,
    http: ReceiverHttp,
    drain_wait_max: Duration,
    more: MoreLimits,
    mode: watch::Sender<Mode>,
    closed: oneshot::Receiver<()>,
}

impl Serving {
    /// Begins to accept connections. The server runs among `servers`.
    fn start(
        socket: Arc<TcpListener>,
        settings: &ListenSettings,
        listening: &Arc<Listening>,
        handler: &Arc<dyn Handler>,
        servers: &mut JoinSet<()>,
    ) -> Self {
        let drain_ms_max = u64::try_from(settings.drain_wait_max.as_millis()).unwrap_or(u64::MAX);
        let MoreLimits { http2_streams_max, age_ms_max, age_grace_ms_max } = settings.more;
        let limits = settings.http.limits();
        let limits = ServerLimits {
            drain_ms_max,
            http2_streams_max: http2_streams_max.unwrap_or(limits.http2_streams_max),
            age_ms_max,
            age_grace_ms_max,
            ..limits
        };
        listening.connections_limit.set(limits.connections_max.unwrap_or(0) as f64);
        let told = Arc::clone(listening);
        let options = ServeOptions {
            limits,
            tls: settings.tls.clone(),
            on_error: Some(Arc::new(move |peer: Option<Peer>, error: &corten_net::Error| {
                let peer = peer.map_or_else(|| "listener".to_owned(), |peer| peer.to_string());
                told.warn("connection failed", &format!("{peer}: {error}"), 1);
            })),
        };
        let (mode, modes) = watch::channel(Mode::Serving);
        let (closes, closed) = oneshot::channel::<()>();
        let open = Arc::new(Open { all: listening.connections.clone(), own: watch::Sender::new(0) });
        let end = end(modes.clone(), open.own.subscribe());
        let door = Door { socket: Some(Arc::clone(&socket)), open, modes, _closes: closes };
        servers.spawn(serve(door, Arc::clone(handler), options, end));
        let (http, drain_wait_max, more) = (settings.http.clone(), settings.drain_wait_max, settings.more);
        Serving { socket, address: http.address(), http, drain_wait_max, more, mode, closed }
    }

    /// Whether the server ended by itself: it panicked.
    fn has_ended(&mut self) -> bool {
        matches!(self.closed.try_recv(), Err(oneshot::error::TryRecvError::Closed))
    }

    /// Takes no further connections and waits until the port is free. Requests under way go on.
    async fn close(self) {
        let Serving { socket, mode, closed, .. } = self;
        drop(socket);
        drop(mode);
        let _ = closed.await;
    }
}

/// Ready when a server is to stop: when it is told to, or was retired and has no connections left.
async fn end(mut modes: watch::Receiver<Mode>, mut open: watch::Receiver<usize>) {
    if modes.wait_for(|mode| *mode == Mode::Retired).await.is_err() {
        return;
    }
    tokio::select! {
        // Nothing comes after retirement but the end.
        _ = modes.changed() => {}
        _ = open.wait_for(|open| *open == 0) => {}
    }
}

/// Makes the server what is wanted. On an error what served goes on, unless it stood in the way of the new address.
async fn apply(
    serving: &mut Option<Serving>,
    retired: &mut Vec<watch::Sender<Mode>>,
    wanted: &ListenSettings,
    listening: &Arc<Listening>,
    handler: &Arc<dyn Handler>,
    servers: &mut JoinSet<()>,
) -> io::Result<()> {
    retired.retain(|mode| mode.receiver_count() > 0);
    let socket = match serving.take() {
        Some(mut now) if now.address == wanted.http.address() => {
            let is_same =
                now.http == wanted.http && now.drain_wait_max == wanted.drain_wait_max && now.more == wanted.more;
            if is_same && !now.has_ended() {
                *serving = Some(now);
                return Ok(());
            }
            if now.http.tls == wanted.http.tls {
                now.mode.send_replace(Mode::Retired);
                retired.push(now.mode);
            } else {
                // Who got in by what is no longer enough has to come in again.
                retired.clear();
            }
            // The socket stays open, so that nobody is refused while one server takes over from the other.
            now.socket
        }
        Some(now) => match bind(&wanted.http).await {
            Ok(socket) => {
                retired.clear();
                Arc::new(socket)
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                // Perhaps this server is in the way itself (all addresses and one of them), or keeps another component
                // from the address that it is to have in exchange for this one.
                retired.clear();
                now.close().await;
                Arc::new(bind(&wanted.http).await?)
            }
            Err(error) => {
                *serving = Some(now);
                return Err(error);
            }
        },
        None => Arc::new(bind(&wanted.http).await?),
    };
    if let Ok(address) = socket.local_addr() {
        listening.logger.info(listening.opened, &[("addr", address.to_string().into())]);
    }
    *serving = Some(Serving::start(socket, wanted, listening, handler, servers));
    Ok(())
}

async fn bind(http: &ReceiverHttp) -> io::Result<TcpListener> {
    match TcpListener::bind(http.address()).await {
        // All addresses are those of IPv4 where there is no IPv6.
        Err(error) if http.listen_address.is_empty() && error.kind() != io::ErrorKind::AddrInUse => {
            TcpListener::bind(("0.0.0.0", http.port())).await.map_err(|_| error)
        }
        outcome => outcome,
    }
}

/// How many connections are open.
struct Open {
    /// Of the component.
    all: Gauge,
    /// Of one server.
    own: watch::Sender<usize>,
}

/// Takes connections of a socket that may outlive it, and counts them.
struct Door {
    /// Nothing once the server was retired.
    socket: Option<Arc<TcpListener>>,
    open: Arc<Open>,
    modes: watch::Receiver<Mode>,
    /// Dropped with the door: then the port is let go.
    _closes: oneshot::Sender<()>,
}

impl Listener for Door {
    type Io = Connection;

    async fn accept(&mut self) -> io::Result<(Connection, Peer)> {
        let Some(socket) = &self.socket else { return std::future::pending().await };
        let ends = async {
            // An error means that the server is to stop, which takes no connections either.
            let _ = self.modes.wait_for(|mode| *mode == Mode::Retired).await;
        };
        let (stream, address) = tokio::select! {
            // In this order, so that a retired server that has no connections gets none.
            biased;
            () = ends => {
                self.socket = None;
                return std::future::pending().await;
            }
            accepted = socket.accept() => accepted?,
        };
        // Responses are written whole: waiting for more to fill a packet only delays them.
        let _ = stream.set_nodelay(true);
        self.open.all.add(1.0);
        self.open.own.send_modify(|open| *open += 1);
        Ok((Connection { stream, open: Arc::clone(&self.open) }, Peer::Network(address)))
    }
}

/// A connection that is counted as long as it is open.
struct Connection {
    stream: TcpStream,
    open: Arc<Open>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.open.all.add(-1.0);
        self.open.own.send_modify(|open| *open -= 1);
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Cx<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Cx<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Cx<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
