//! Listeners: TCP, with or without TLS, and UDP.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use corten_component::listen::connection_slots;
use corten_component::{Logger, Stop};
use corten_net::{Backoff, ServerTls, TlsAcceptor};
use corten_signal::Stream;
use corten_wire::syslog::frame::{FrameError, Framer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::super::bind::{self, BindError};
use super::super::shown::LastError;
use super::entry::{Intake, Reading, Sender};
use super::names::Names;
use super::{ListenerArguments, ListenerInfo, Shared};

/// The waits between attempts to listen: doubling from the first to the second.
const BIND_WAIT_MIN: Duration = Duration::from_millis(50);
const BIND_WAIT_MAX: Duration = Duration::from_secs(30);

/// How often an address may be in use before that is trouble: the listener that a changed one takes over from may need a
/// moment to let go of it.
const PATIENT_ATTEMPTS: u32 = 6;

/// How long a TCP connection has to be quiet until its last message is taken to be whole, which only the next one would
/// tell.
const QUIET: Duration = Duration::from_millis(200);

/// How many connections a listener serves at a time; further ones wait. While they do, whoever sends no whole message for
/// as long as a connection may be idle is closed, because single bytes are no reason to keep others out.
pub(super) const CONNECTIONS_MAX: usize = if cfg!(test) { 8 } else { 10_000 };

/// How much is read at a time, in bytes: the more often there is as much, the more, and the less the more connections there
/// are, because what was read of each may have to wait for a receiver.
const READ_BYTES_MIN: usize = 4 << 10;
const READ_BYTES_MAX: usize = 64 << 10;
const READ_BYTES_OF_ALL: usize = 64 << 20;

/// How much all connections of a listener may keep because it is no whole message yet, in bytes. Whoever exceeds it with a
/// message that is longer than a connection may always keep is closed.
const PENDING_BYTES_MAX: usize = 256 << 20;
const PENDING_BYTES_FREE: usize = 16 << 10;

/// How long a connection is still read when the listener stops, and how long it may be quiet then. Senders are told of the end,
/// and what they had sent before should not be lost.
const LAST_READ_MAX: Duration = Duration::from_secs(1);
const LAST_QUIET_MAX: Duration = Duration::from_millis(100);
const LAST_PACKETS_QUIET_MAX: Duration = Duration::from_millis(20);

/// How long a TLS handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// How many packets may wait to be read, whatever is configured.
const QUEUE_MAX: usize = 1 << 20;

/// How many packets become one batch at most.
const PACKETS_MAX: usize = 1_000;

/// What a connection needs.
struct Listener {
    shared: Arc<Shared>,
    reading: Arc<Reading>,
    names: Names,
    idle_max: Duration,
    info: Arc<ListenerInfo>,
    /// What all connections keep because it is no whole message yet, in bytes.
    pending_bytes: AtomicUsize,
}

/// What one connection keeps because it is no whole message yet.
struct Pending<'a> {
    all: &'a AtomicUsize,
    own: usize,
}

impl Pending<'_> {
    /// Notes how much it is; whether all connections together keep no more than they may. One that keeps little may always.
    fn set(&mut self, bytes: usize) -> bool {
        let before = self.all.fetch_add(bytes, Ordering::Relaxed) - self.own;
        self.all.fetch_sub(self.own, Ordering::Relaxed);
        self.own = bytes;
        bytes <= PENDING_BYTES_FREE || before + bytes <= PENDING_BYTES_MAX
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(self.own, Ordering::Relaxed);
    }
}

/// The socket of a listener once it is open. A listener that takes over from another at the same address goes on with its
/// socket, so that nobody is refused meanwhile and no packet is lost.
pub(super) type Slot = Arc<Mutex<Option<Socket>>>;

/// Listens until it is to stop.
pub(super) async fn run(
    shared: Arc<Shared>,
    arguments: Arc<ListenerArguments>,
    slot: Slot,
    logger: Logger,
    mut stop: Stop,
) -> Result<(), String> {
    let number = shared.started.fetch_add(1, Ordering::Relaxed);
    let name = (format!("{} {}", arguments.protocol, arguments.address), number);
    let cache_size = usize::try_from(arguments.udp_host_cache_size).ok().filter(|size| *size > 0).unwrap_or(128);
    let idle_max = if arguments.idle_timeout.is_zero() { Duration::from_secs(120) } else { arguments.idle_timeout };
    let info = Arc::new(ListenerInfo {
        protocol: arguments.protocol.clone(),
        address: Mutex::new(arguments.address.clone()),
        labels: shown_labels(&arguments),
        is_ready: AtomicBool::new(false),
        connections: AtomicUsize::new(0),
        last_error: LastError::default(),
    });
    shared.infos.lock().insert(number, Arc::clone(&info));
    let listener = Arc::new(Listener {
        info: Arc::clone(&info),
        shared: Arc::clone(&shared),
        reading: Arc::new(Reading::new(&arguments)),
        names: Names::system(cache_size),
        idle_max,
        pending_bytes: AtomicUsize::new(0),
    });
    let mut waits = Backoff::new(BIND_WAIT_MIN, BIND_WAIT_MAX);
    let mut attempts = 0;
    loop {
        let opened = open(&arguments, &slot).await;
        let error = match opened {
            Ok((socket, tls)) => {
                shared.trouble(&name, None);
                *info.address.lock() = socket.address();
                info.is_ready.store(true, Ordering::Relaxed);
                let protocol = &arguments.protocol;
                logger.info(
                    "syslog listening on address",
                    &[("addr", socket.address().into()), ("protocol", protocol.into()), ("tls", tls.is_some().into())],
                );
                match socket {
                    Socket::Tcp(socket) => listener.tcp(socket, tls, stop).await,
                    Socket::Udp(socket) => {
                        let queue = usize::try_from(arguments.udp_queue_size).ok().filter(|size| *size > 0);
                        listener.udp(socket, queue.unwrap_or(10).min(QUEUE_MAX), stop).await;
                    }
                }
                break;
            }
            Err(error) => error,
        };
        let wait = waits.next_wait();
        attempts += 1;
        if !error.is_in_use || attempts > PATIENT_ATTEMPTS {
            let text = error.text;
            info.last_error.note(&text);
            logger.error(
                "failed to create syslog listener with provided config",
                &[("addr", (&arguments.address).into()), ("err", (&text).into()), ("retry_after", wait.into())],
            );
            shared.trouble(&name, Some(text));
        }
        if !stop.sleep(wait).await {
            break;
        }
    }
    shared.trouble(&name, None);
    shared.infos.lock().remove(&number);
    Ok(())
}

/// The labels of a listener's entries, as they are configured.
fn shown_labels(arguments: &ListenerArguments) -> String {
    let labels = arguments.labels.iter().map(|(name, value)| (&**name, &**value));
    Stream::of(labels).map(|stream| stream.canonical()).unwrap_or_default()
}

/// An open socket.
#[derive(Clone, Debug)]
pub(super) enum Socket {
    Tcp(Arc<TcpListener>),
    Udp(Arc<UdpSocket>),
}

impl Socket {
    fn address(&self) -> String {
        let address = match self {
            Socket::Tcp(socket) => socket.local_addr(),
            Socket::Udp(socket) => socket.local_addr(),
        };
        address.map_or_else(|error| error.to_string(), |address| address.to_string())
    }
}

/// Opens the socket of a listener, unless it is open already, and reads what its TLS needs.
async fn open(arguments: &ListenerArguments, slot: &Slot) -> Result<(Socket, Option<Arc<TlsAcceptor>>), BindError> {
    let is_udp = arguments.protocol == "udp";
    // What is said of TLS is not for UDP.
    let tls = match if is_udp { None } else { tls(arguments)? } {
        Some(tls) => Some(Arc::new(TlsAcceptor::new(tls).await.map_err(|error| error.to_string())?)),
        None => None,
    };
    let known = slot.lock().clone();
    let socket = match known {
        Some(socket) => socket,
        None if is_udp => Socket::Udp(Arc::new(bind::udp(&arguments.address).await?)),
        None => Socket::Tcp(Arc::new(bind::tcp(&arguments.address).await?)),
    };
    *slot.lock() = Some(socket.clone());
    Ok((socket, tls))
}

/// TLS of a listener, where it has any.
fn tls(arguments: &ListenerArguments) -> Result<Option<ServerTls>, String> {
    let Some(tls) = &arguments.tls_config else { return Ok(None) };
    let has_ca = !tls.ca_pem.is_empty() || !tls.ca_file.is_empty();
    let has_cert = !tls.cert_pem.is_empty() || !tls.cert_file.is_empty();
    let has_key = !tls.key_pem.is_empty() || !tls.key_file.is_empty();
    match (has_cert, has_key) {
        (false, false) if !has_ca => return Ok(None),
        (true, true) => {}
        _ => return Err("certificate and key must be configured".to_owned()),
    }
    Ok(Some(ServerTls {
        cert_pem: tls.cert_pem.clone(),
        cert_file: tls.cert_file.clone(),
        key_pem: tls.key_pem.clone(),
        key_file: tls.key_file.clone(),
        client_ca_pem: tls.ca_pem.clone(),
        client_ca_file: tls.ca_file.clone(),
        client_auth_type: if has_ca { "RequireAndVerifyClientCert" } else { "NoClientCert" }.to_owned(),
        min_version: tls.min_version.clone(),
        ..ServerTls::default()
    }))
}

impl Listener {
    async fn sender(&self, address: IpAddr, remember: bool) -> Sender {
        let address = address.to_canonical();
        let hostname = match (self.shared.settings().wants_names, remember) {
            (false, _) => String::new(),
            (true, true) => self.names.remembered(address).await,
            (true, false) => self.names.find(address).await,
        };
        Sender { address: address.to_string(), hostname }
    }

    async fn tcp(self: Arc<Self>, socket: Arc<TcpListener>, tls: Option<Arc<TlsAcceptor>>, mut stop: Stop) {
        let (permits, slots) = (Arc::new(Semaphore::new(CONNECTIONS_MAX)), connection_slots());
        let mut connections = JoinSet::new();
        let mut waits = Backoff::new(Duration::from_millis(5), Duration::from_secs(1));
        loop {
            if permits.available_permits() == 0 || slots.available_permits() == 0 {
                let count = self.info.connections.load(Ordering::Relaxed);
                let text = format!("{count} connections are open, further ones wait");
                self.shared.complaints.warn("too many syslog connections", &text, 1);
            }
            let accepted = async {
                // The semaphores are never closed, so that a permit always comes.
                let permit = Arc::clone(&permits).acquire_owned().await.ok();
                let slot = Arc::clone(&slots).acquire_owned().await.ok();
                (socket.accept().await, (permit, slot))
            };
            let (accepted, permit) = tokio::select! {
                () = stop.wait() => break,
                accepted = accepted => accepted,
                _ = connections.join_next(), if !connections.is_empty() => continue,
            };
            match accepted {
                Ok((stream, peer)) => {
                    waits = Backoff::new(Duration::from_millis(5), Duration::from_secs(1));
                    let (listener, tls, stop) = (Arc::clone(&self), tls.clone(), stop.clone());
                    self.info.connections.fetch_add(1, Ordering::Relaxed);
                    connections.spawn(async move {
                        listener.connection(stream, peer, tls, stop).await;
                        listener.info.connections.fetch_sub(1, Ordering::Relaxed);
                        drop(permit);
                    });
                }
                Err(error) => {
                    // Out of file descriptors, for one: connections that end make room.
                    self.shared.complaints.warn("failed to accept syslog connection", &error.to_string(), 1);
                    stop.sleep(waits.next_wait()).await;
                }
            }
        }
        // Whoever connects from here on is refused, or comes to the listener that takes over.
        drop(socket);
        while connections.join_next().await.is_some() {}
    }

    async fn connection(&self, stream: TcpStream, peer: SocketAddr, tls: Option<Arc<TlsAcceptor>>, mut stop: Stop) {
        let Some(tls) = tls else {
            return self.messages(stream, peer.ip(), stop).await;
        };
        let handshake = tokio::select! {
            handshake = timeout(HANDSHAKE_MAX, tls.accept(stream)) => handshake,
            () = stop.wait() => return,
        };
        match handshake {
            Ok(Ok(stream)) => self.messages(stream, peer.ip(), stop).await,
            Ok(Err(error)) => {
                self.shared.complaints.warn("connection failed", &format!("{peer}: {error}"), 1);
            }
            Err(_) => self.shared.complaints.warn("connection failed", &format!("{peer}: tls handshake timeout"), 1),
        }
    }

    /// Whether further connections have to wait.
    fn is_crowded(&self) -> bool {
        self.info.connections.load(Ordering::Relaxed) >= CONNECTIONS_MAX || connection_slots().available_permits() == 0
    }

    /// How much is read of a connection at a time, at most.
    fn read_bytes_max(&self) -> usize {
        let share = READ_BYTES_OF_ALL / self.info.connections.load(Ordering::Relaxed).max(1);
        share.clamp(READ_BYTES_MIN, READ_BYTES_MAX)
    }

    /// Reads the messages of a connection until it ends, is idle for too long, or the listener stops.
    async fn messages(&self, mut stream: impl AsyncRead + AsyncWrite + Send + Unpin, peer: IpAddr, mut stop: Stop) {
        let sender = self.sender(peer, false).await;
        let mut intake = Intake::new(Arc::clone(&self.shared), Arc::clone(&self.reading), Arc::clone(&self.info));
        let mut framer = self.reading.framer();
        let mut buffer = vec![0; READ_BYTES_MIN];
        let mut pending = Pending { all: &self.pending_bytes, own: 0 };
        let mut last = Instant::now();
        // When there was a whole message last.
        let mut last_whole = last;
        let mut is_cut = false;
        let mut end = None;
        loop {
            let quiet = async {
                // What is kept may be whole.
                if framer.pending_bytes() > 0 && last.elapsed() < QUIET {
                    sleep_until(last + QUIET).await;
                } else {
                    std::future::pending::<()>().await;
                }
            };
            let wait = match end {
                None => self.idle_max.saturating_sub(last.elapsed()),
                Some(end) => LAST_QUIET_MAX.min(end - Instant::now()),
            };
            let read = tokio::select! {
                () = stop.wait(), if end.is_none() => {
                    end = Some(Instant::now() + LAST_READ_MAX);
                    let _ = timeout(LAST_QUIET_MAX, stream.shutdown()).await;
                    continue;
                }
                read = timeout(wait, stream.read(&mut buffer)) => Some(read),
                () = quiet => None,
            };
            match read {
                None => {
                    if let Some(frame) = framer.quiet() {
                        intake.take(&framer, &frame, &sender);
                    }
                }
                Some(Ok(Ok(len))) if len > 0 => {
                    last = Instant::now();
                    framer.feed(&buffer[..len]);
                    let kept = framer.pending_bytes();
                    if !self.take_all(&mut framer, &mut intake, &sender, &mut stop).await {
                        return;
                    }
                    if framer.pending_bytes() < kept {
                        last_whole = last;
                    }
                    let len_max = self.read_bytes_max();
                    if len == buffer.len() && len < len_max {
                        buffer.resize((len * 2).min(len_max), 0);
                    } else if buffer.len() > len_max {
                        buffer = vec![0; len_max];
                    }
                }
                // Closed properly, by an error, or idle for too long, which is nobody's fault.
                Some(Ok(_)) => break,
                Some(Err(_)) => {
                    is_cut = true;
                    break;
                }
            }
            let waits = Instant::now();
            let taken = intake.hand_on(&mut stop).await;
            if !taken && stop.is_set() {
                // There is no time for more.
                return;
            }
            if end.is_some_and(|end| Instant::now() >= end) {
                is_cut = true;
                break;
            }
            // While receivers take nothing, nobody is idle.
            last += waits.elapsed();
            last_whole += waits.elapsed();
            if last_whole.elapsed() > self.idle_max && self.is_crowded() {
                let text = format!("{peer}: no whole message within {:?}", self.idle_max);
                return self.shared.complaints.warn("closed a syslog connection in favor of others", &text, 1);
            }
            if !pending.set(framer.pending_bytes()) {
                let len_max = PENDING_BYTES_MAX;
                return intake.broken(FrameError::TooLong { len: framer.pending_bytes() as u64, len_max });
            }
        }
        let (frames, error) = framer.finish();
        for frame in &frames {
            intake.take(&framer, frame, &sender);
        }
        if let Some(error) = error.filter(|_| !is_cut && !stop.is_set()) {
            intake.broken(error);
        }
        intake.hand_on(&mut stop).await;
    }

    /// Takes the messages that are whole; whether further ones can be told apart.
    async fn take_all(&self, framer: &mut Framer, intake: &mut Intake, sender: &Sender, stop: &mut Stop) -> bool {
        while let Some(frame) = framer.next_frame() {
            match frame {
                Ok(frame) => intake.take(framer, &frame, sender),
                Err(error) => {
                    intake.broken(error);
                    intake.hand_on(stop).await;
                    return false;
                }
            }
            if intake.is_full() {
                intake.hand_on(stop).await;
            }
        }
        true
    }

    async fn udp(self: Arc<Self>, socket: Arc<UdpSocket>, queue: usize, mut stop: Stop) {
        let (packets, queued) = mpsc::channel(queue);
        let reader = Arc::clone(&self);
        let mut work = JoinSet::new();
        let working = stop.clone();
        work.spawn(async move { reader.packets(queued, working).await });
        let mut buffer = vec![0; self.reading.bytes_max.min(usize::from(u16::MAX))];
        loop {
            let received = tokio::select! {
                () = stop.wait() => break,
                received = socket.recv_from(&mut buffer) => received,
            };
            match received {
                // Where the queue is full, what comes meanwhile waits in the system, as far as that has room.
                Ok((len, from)) => {
                    let sending = packets.send((from.ip(), buffer[..len].to_vec()));
                    tokio::pin!(sending);
                    let is_sent = tokio::select! {
                        sent = &mut sending => sent.is_ok(),
                        () = stop.wait() => timeout(LAST_READ_MAX, sending).await.is_ok(),
                    };
                    if !is_sent {
                        break;
                    }
                }
                Err(error) => {
                    self.shared.complaints.warn("failed to read packets", &error.to_string(), 1);
                    stop.sleep(Duration::from_millis(100)).await;
                }
            }
        }
        // What has arrived by now is taken, within a limit.
        let end = Instant::now() + LAST_READ_MAX;
        while let Ok(Ok((len, from))) = timeout(LAST_PACKETS_QUIET_MAX, socket.recv_from(&mut buffer)).await {
            let sending = packets.send((from.ip(), buffer[..len].to_vec()));
            if Instant::now() >= end || !matches!(timeout_at(end, sending).await, Ok(Ok(()))) {
                break;
            }
        }
        drop((socket, packets));
        while work.join_next().await.is_some() {}
    }

    async fn packets(&self, mut queued: mpsc::Receiver<(IpAddr, Vec<u8>)>, mut stop: Stop) {
        let mut intake = Intake::new(Arc::clone(&self.shared), Arc::clone(&self.reading), Arc::clone(&self.info));
        while let Some(first) = queued.recv().await {
            let mut next = Some(first);
            let mut count = 0;
            while let Some((from, packet)) = next {
                let sender = self.sender(from, true).await;
                let mut framer = self.reading.framer();
                framer.feed(&packet);
                let mut told_apart = true;
                while let Some(frame) = framer.next_frame() {
                    match frame {
                        Ok(frame) => intake.take(&framer, &frame, &sender),
                        Err(error) => {
                            told_apart = false;
                            intake.broken(error);
                        }
                    }
                }
                let (frames, error) = framer.finish();
                for frame in &frames {
                    intake.take(&framer, frame, &sender);
                }
                if let Some(error) = error.filter(|_| told_apart) {
                    intake.broken(error);
                }
                count += 1;
                next = if count < PACKETS_MAX && !intake.is_full() { queued.try_recv().ok() } else { None };
            }
            if !intake.hand_on(&mut stop).await && stop.is_set() {
                return;
            }
        }
    }
}
