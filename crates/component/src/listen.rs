//! Listeners of components that receive over HTTP: how they follow the configuration, and what is told of requests.
//!
//! A component keeps a [`Listening`], whose task opens the port, serves, and follows changes of the arguments without
//! refusing anybody while one server takes over from the other.

mod requests;
mod socket;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context as Cx, Poll};
use std::time::{Duration, Instant};

use corten_net::{
    Backoff, Handler, Listener, Peer, ReceiverHttp, ServeOptions, ServerLimits, TlsAcceptor, TlsSource, TlsSwitch,
    serve,
};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::JoinSet;

pub use self::requests::{Exchange, HeldBytes, Memory, MeteredBody, RequestMetricNames, RequestMetrics, Requests};
use self::socket::{Socket, Stream};
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
#[derive(Clone, Debug, PartialEq)]
pub struct ListenSettings {
    /// Where.
    pub address: Address,
    /// What is limited.
    pub limits: ServerLimits,
    /// TLS; `None` for none.
    pub tls: Option<TlsSource>,
    /// How long a body may take to arrive.
    pub body_wait_max: Duration,
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A host and a port, as `bind` takes them. `[::]` stands for all addresses of either family.
    Tcp(String),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => f.write_str(address),
            Address::Unix(path) => path.display().fmt(f),
        }
    }
}

/// Says that a listener cannot listen, or, with `None`, that it can.
pub type Report = Arc<dyn Fn(Option<Health>) + Send + Sync>;

/// How the one listener of a component reports.
pub fn report<C: Component>(cx: &Context<C>) -> Report {
    let cx = cx.clone();
    Arc::new(move |health| cx.report_health(health))
}

/// How several listeners of a component report: what is worst of them counts.
pub fn reports<C: Component, const N: usize>(cx: &Context<C>) -> [Report; N] {
    let known = Arc::new(Mutex::new(vec![None::<Health>; N]));
    std::array::from_fn(|at| {
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
    /// What an `http` block says. TLS is tried, unless it is what it was before.
    ///
    /// # Errors
    ///
    /// TLS that cannot be used.
    pub async fn prepare(
        http: &ReceiverHttp,
        drain_wait_max: Duration,
        before: Option<&ListenSettings>,
    ) -> Result<Self, Error> {
        let tls = http.tls.as_ref().map(|tls| TlsSource::from(tls.server_tls()));
        if let Some(tls) = tls.as_ref().filter(|tls| before.and_then(|before| before.tls.as_ref()) != Some(*tls)) {
            TlsAcceptor::new(tls.clone()).await.map_err(|error| Error::new(error.to_string()))?;
        }
        let drain_ms_max = u64::try_from(drain_wait_max.as_millis()).unwrap_or(u64::MAX);
        Ok(ListenSettings {
            address: Address::Tcp(http.address()),
            limits: ServerLimits { drain_ms_max, ..http.limits() },
            tls,
            body_wait_max: http.body_limit(),
        })
    }
}

/// Logs problems that clients cause, not more often than is good for the log: of one kind a line in ten seconds. One kind
/// does not keep another from the log.
#[derive(Debug)]
pub struct Complaints {
    logger: Logger,
    /// By message: when it was logged last, and what was left out since.
    kinds: Mutex<HashMap<&'static str, Told>>,
}

#[derive(Debug)]
struct Told {
    last: Instant,
    lines: u64,
    count: u64,
}

impl Complaints {
    /// Nothing was logged yet.
    pub fn new(logger: Logger) -> Self {
        Complaints { logger, kinds: Mutex::default() }
    }

    /// Logs a problem that occurred so many times, or counts it where one with the same message was logged a moment ago. What
    /// is logged counts what was left out before, too.
    pub fn warn(&self, message: &'static str, problem: &str, count: u64) {
        const SHOWN_BYTES_MAX: usize = 1 << 10;
        let (left_out, count) = {
            let mut kinds = self.kinds.lock();
            if let Some(told) = kinds.get_mut(message) {
                if told.last.elapsed() < LOG_EVERY {
                    told.lines += 1;
                    told.count = told.count.saturating_add(count);
                    return;
                }
                told.last = Instant::now();
                (std::mem::take(&mut told.lines), count.saturating_add(std::mem::take(&mut told.count)))
            } else {
                kinds.insert(message, Told { last: Instant::now(), lines: 0, count: 0 });
                (0, count)
            }
        };
        let problem = &problem[..problem.floor_char_boundary(SHOWN_BYTES_MAX)];
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX).into();
        self.logger
            .warn(message, &[("err", problem.into()), ("count", number(count)), ("lines_left_out", number(left_out))]);
    }
}

/// Room for the connections that others open, over all listeners of components: as many as three quarters of the files that
/// the process may open. Whoever floods a listener must not keep others from their files and from connections of their own.
pub fn connection_slots() -> Arc<Semaphore> {
    /// Each listener that waits for a connection has a place for it.
    const SLOTS_MIN: usize = 64;
    static SLOTS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| {
        let files = corten_os::limits::open_files_limit().unwrap_or(usize::MAX);
        Arc::new(Semaphore::new((files / 4 * 3).clamp(SLOTS_MIN, Semaphore::MAX_PERMITS)))
    });
    Arc::clone(&SLOTS)
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
    slots: Arc<Semaphore>,
}

impl Listening {
    /// A listener that [`run`](Self::run) opens. `opened` is what the log says then.
    pub fn new(settings: ListenSettings, metrics: &RequestMetrics, logger: Logger, opened: &'static str) -> Self {
        let (connections, connections_limit) = (metrics.connections.clone(), metrics.connections_limit.clone());
        Listening { connections, connections_limit, ..Self::unmetered(settings, logger, opened) }
    }

    /// As [`new`](Self::new), without metrics of connections.
    pub fn unmetered(settings: ListenSettings, logger: Logger, opened: &'static str) -> Self {
        Listening {
            settings: watch::Sender::new(Arc::new(settings)),
            connections: Gauge::default(),
            connections_limit: Gauge::default(),
            complaints: Complaints::new(logger.clone()),
            logger,
            opened,
            slots: connection_slots(),
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
    pub fn warn(&self, message: &'static str, problem: &str, count: u64) {
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
                    let text = format!("cannot listen on {}: {error}", wanted.address);
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
    socket: Arc<Socket>,
    /// The port in it may be one that the system chose.
    settings: Arc<ListenSettings>,
    tls: TlsSwitch,
    mode: watch::Sender<Mode>,
    closed: oneshot::Receiver<()>,
}

impl Serving {
    /// Begins to accept connections. The server runs among `servers`.
    fn start(
        socket: Arc<Socket>,
        settings: &Arc<ListenSettings>,
        tls: TlsSwitch,
        listening: &Arc<Listening>,
        handler: &Arc<dyn Handler>,
        servers: &mut JoinSet<()>,
    ) -> Self {
        let limits = settings.limits;
        listening.connections_limit.set(limits.connections_max.unwrap_or(0) as f64);
        let told = Arc::clone(listening);
        let options = ServeOptions {
            limits,
            tls: tls.clone(),
            on_error: Some(Arc::new(move |peer: Option<Peer>, error: &corten_net::Error| {
                let peer = peer.map_or_else(|| "listener".to_owned(), |peer| peer.to_string());
                told.warn("connection failed", &format!("{peer}: {error}"), 1);
            })),
        };
        let (mode, modes) = watch::channel(Mode::Serving);
        let (closes, closed) = oneshot::channel::<()>();
        let open = Arc::new(Open { all: listening.connections.clone(), own: watch::Sender::new(0) });
        let end = end(modes.clone(), open.own.subscribe());
        let (socket_too, listening) = (Some(Arc::clone(&socket)), Arc::clone(listening));
        let door = Door { socket: socket_too, listening, open, modes, _closes: closes };
        servers.spawn(serve(door, Arc::clone(handler), options, end));
        Serving { socket, settings: Arc::clone(settings), tls, mode, closed }
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
    wanted: &Arc<ListenSettings>,
    listening: &Arc<Listening>,
    handler: &Arc<dyn Handler>,
    servers: &mut JoinSet<()>,
) -> io::Result<()> {
    retired.retain(|mode| mode.receiver_count() > 0);
    let tls = match (&serving, &wanted.tls) {
        (Some(now), tls) if now.settings.tls == *tls => now.tls.clone(),
        (_, Some(tls)) => TlsSwitch::new(TlsAcceptor::new(tls.clone()).await.map_err(io::Error::other)?),
        (_, None) => TlsSwitch::default(),
    };
    let socket = match serving.take() {
        Some(mut now) if now.settings.address == wanted.address => {
            if now.settings == *wanted && !now.has_ended() {
                *serving = Some(now);
                return Ok(());
            }
            if now.settings.tls == wanted.tls {
                now.mode.send_replace(Mode::Retired);
                retired.push(now.mode);
            } else {
                // Who got in by what is no longer enough has to come in again.
                retired.clear();
            }
            // The socket stays open, so that nobody is refused while one server takes over from the other.
            now.socket
        }
        Some(now) => match Socket::bind(&wanted.address).await {
            Ok(socket) => {
                retired.clear();
                Arc::new(socket)
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                // Perhaps this server is in the way itself (all addresses and one of them), or keeps another component
                // from the address that it is to have in exchange for this one.
                retired.clear();
                now.close().await;
                Arc::new(Socket::bind(&wanted.address).await?)
            }
            Err(error) => {
                *serving = Some(now);
                return Err(error);
            }
        },
        None => Arc::new(Socket::bind(&wanted.address).await?),
    };
    listening.logger.info(listening.opened, &[("addr", socket.to_string().into())]);
    *serving = Some(Serving::start(socket, wanted, tls, listening, handler, servers));
    Ok(())
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
    socket: Option<Arc<Socket>>,
    listening: Arc<Listening>,
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
        let slots = &self.listening.slots;
        let accepted = async {
            if slots.available_permits() == 0 {
                self.listening.warn("too many connections", "further ones wait until others end", 1);
            }
            // The semaphore is never closed, so that a permit always comes.
            let slot = Arc::clone(slots).acquire_owned().await.ok();
            (socket.accept().await, slot)
        };
        let (accepted, slot) = tokio::select! {
            // In this order, so that a retired server that has no connections gets none.
            biased;
            () = ends => {
                self.socket = None;
                return std::future::pending().await;
            }
            accepted = accepted => accepted,
        };
        let (stream, peer) = accepted?;
        self.open.all.add(1.0);
        self.open.own.send_modify(|open| *open += 1);
        Ok((Connection { stream, open: Arc::clone(&self.open), _slot: slot }, peer))
    }
}

/// A connection that is counted as long as it is open.
struct Connection {
    stream: Stream,
    open: Arc<Open>,
    _slot: Option<OwnedSemaphorePermit>,
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

#[cfg(test)]
mod tests {
    use http::Response;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;
    use crate::log::{Format, Level, LogSink};
    use crate::metrics::Registry;

    #[tokio::test]
    async fn connections_for_which_there_is_no_room_wait() {
        let http = ReceiverHttp { listen_address: "127.0.0.1".to_owned(), listen_port: 0, ..ReceiverHttp::default() };
        let settings = ListenSettings::prepare(&http, Duration::from_secs(1), None).await.unwrap();
        let metrics = RequestMetrics::new(&Registry::new(), crate::request_metric_names!("a"));
        let (sink, lines) = LogSink::memory();
        sink.configure(Level::Debug, Format::Logfmt);
        let listening = Listening::new(settings, &metrics, Logger::new(sink), "listening");
        let listening = Arc::new(Listening { slots: Arc::new(Semaphore::new(2)), ..listening });
        let (stopper, stop) = Stop::pair();
        let handler = |_| async { Response::new(corten_net::empty_body()) };
        let running = tokio::spawn(Arc::clone(&listening).run(Arc::new(handler), Arc::new(|_| {}), stop));
        let logs = || String::from_utf8(lines.lock().clone()).unwrap();
        let wait = async |text: &str| {
            while !logs().contains(text) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        wait("addr=").await;
        let at = logs().split("addr=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
        let (first, second) = (TcpStream::connect(&at).await.unwrap(), TcpStream::connect(&at).await.unwrap());
        wait("too many connections").await;
        let mut third = TcpStream::connect(&at).await.unwrap();
        third.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        let early = tokio::time::timeout(Duration::from_millis(50), third.read_buf(&mut answer)).await;
        assert!(early.is_err());
        drop(first);
        third.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200 OK"));
        drop(second);
        stopper.stop();
        running.await.unwrap().unwrap();
        assert_eq!(listening.slots.available_permits(), 2);
    }

    #[test]
    fn one_kind_of_problem_does_not_keep_another_from_the_log_and_none_is_forgotten() {
        let (sink, lines) = LogSink::memory();
        sink.configure(Level::Debug, Format::Logfmt);
        let complaints = Complaints::new(Logger::new(sink));
        for count in 1..=4 {
            complaints.warn("garbage", "none", count);
        }
        complaints.warn("dropped", "nobody", 7);
        complaints.kinds.lock().get_mut("garbage").unwrap().last -= LOG_EVERY;
        complaints.warn("garbage", "none", 1);
        let text = String::from_utf8(lines.lock().clone()).unwrap();
        let shown: Vec<&str> = text.lines().filter_map(|line| Some(&line[line.find("msg=")?..])).collect();
        let expected = [
            "msg=garbage err=none count=1 lines_left_out=0",
            "msg=dropped err=nobody count=7 lines_left_out=0",
            "msg=garbage err=none count=10 lines_left_out=3",
        ];
        assert_eq!(shown, expected);
    }
}
