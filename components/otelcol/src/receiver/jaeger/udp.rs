//! Packets of UDP, as clients send them to Jaeger's agent.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use corten_component::listen::{Complaints, Report};
use corten_component::size::ByteSize;
use corten_component::task::Stop;
use corten_component::{Component, Context, Health, HealthState, Logger, Task};
use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_net::Backoff;
use corten_otlp::{Batch, Traces};
use corten_wire::jaeger::{Protocol, read_emit_batch};
use socket2::SockRef;
use tokio::net::UdpSocket;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;

use super::translate;
use crate::server::{Entrance, Leaving};

/// Where and how to receive packets.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(crate) struct UdpArguments {
    /// The address and port to receive on, `host:port`.
    #[arg(optional)]
    endpoint: String,
    /// How many packets may wait to be read. Further ones are dropped.
    #[arg(default = 1000)]
    queue_size: u32,
    /// The largest packet. What is longer is cut off, and so cannot be read.
    #[arg(default = "65KiB")]
    max_packet_size: ByteSize,
    /// How many packets are read at a time.
    #[arg(default = 10)]
    workers: u32,
    /// How many bytes may wait in the system until they are received. Not written or 0, the system decides.
    #[arg(optional)]
    socket_buffer_size: ByteSize,
}

/// No packet is longer.
const PACKET_BYTES_MAX: u64 = 64 << 10;
/// The waits between attempts to listen: doubling from the first to the second.
const BIND_WAIT_MIN: Duration = Duration::from_millis(500);
const BIND_WAIT_MAX: Duration = Duration::from_secs(30);

impl UdpArguments {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        let text = format!("number of processors must be greater than 0, called with {}", self.workers);
        errors.require(self.workers > 0, &["workers"], &text);
        errors.into_result()
    }

    /// Where to listen.
    pub(super) fn address(&self) -> String {
        self.endpoint.clone()
    }

    async fn bind(&self) -> io::Result<UdpSocket> {
        let socket = match self.endpoint.rsplit_once(':') {
            // As in the reference, all addresses are those of both families, where the system has both.
            Some(("" | "0.0.0.0", port)) => match UdpSocket::bind(format!("[::]:{port}")).await {
                Ok(socket) => socket,
                Err(_) => UdpSocket::bind(format!("0.0.0.0:{port}")).await?,
            },
            _ => UdpSocket::bind(&self.endpoint).await?,
        };
        let bytes = usize::try_from(self.socket_buffer_size.bytes()).unwrap_or(usize::MAX);
        if bytes > 0 {
            SockRef::from(&socket).set_recv_buffer_size(bytes)?;
        }
        Ok(socket)
    }
}

/// A server that follows its arguments.
pub(super) struct UdpServer {
    settings: watch::Sender<Arc<Settings>>,
    task: Task,
}

impl From<UdpServer> for Task {
    fn from(server: UdpServer) -> Task {
        server.task
    }
}

struct Settings {
    arguments: UdpArguments,
    protocol: Protocol,
    entrance: Entrance<Traces>,
}

impl UdpServer {
    /// Puts arguments in place; without them there is no server.
    pub(super) fn commit<C: Component>(
        current: Option<Self>,
        arguments: Option<UdpArguments>,
        protocol: Protocol,
        entrance: impl FnOnce() -> Entrance<Traces>,
        (report, leaving): (&Report, &Leaving),
        cx: &Context<C>,
    ) -> Option<Self> {
        let Some(arguments) = arguments else {
            leaving.add(current);
            return None;
        };
        let settings = Arc::new(Settings { arguments, protocol, entrance: entrance() });
        if let Some(current) = current {
            current.settings.send_replace(settings);
            return Some(current);
        }
        let settings = watch::Sender::new(settings);
        let (following, report, logger) = (settings.subscribe(), Arc::clone(report), cx.logger().clone());
        let complaints = Arc::new(Complaints::new(logger.clone()));
        let task = cx.spawn("udp server", move |stop| {
            let (following, complaints) = (following.clone(), Arc::clone(&complaints));
            let (report, logger) = (Arc::clone(&report), logger.clone());
            async move {
                run(following, &complaints, &report, &logger, stop).await;
                // What is not listened on any more is no trouble.
                report(None);
                Ok(())
            }
        });
        Some(UdpServer { settings, task })
    }
}

/// Receives packets, on the socket that the settings say, until it is to stop.
async fn run(
    mut following: watch::Receiver<Arc<Settings>>,
    complaints: &Arc<Complaints>,
    report: &Report,
    logger: &Logger,
    mut stop: Stop,
) {
    let mut open: Option<(UdpArguments, UdpSocket)> = None;
    let mut workers = JoinSet::new();
    let mut waits = Backoff::new(BIND_WAIT_MIN, BIND_WAIT_MAX);
    while !stop.is_set() {
        let settings = Arc::clone(&following.borrow_and_update());
        let wanted = &settings.arguments;
        let is_same = |(now, _): &(UdpArguments, UdpSocket)| {
            now.endpoint == wanted.endpoint && now.socket_buffer_size == wanted.socket_buffer_size
        };
        // The socket stays open where it can, so that no packet is lost.
        let kept = open.take().filter(is_same);
        let socket = match kept {
            Some((_, socket)) => Ok(socket),
            None => wanted.bind().await.inspect(|socket| {
                let text = if settings.protocol == Protocol::Binary {
                    "Starting UDP server for Binary Thrift"
                } else {
                    "Starting UDP server for Compact Thrift"
                };
                let address = socket.local_addr().map(|address| address.to_string()).unwrap_or_default();
                logger.info(text, &[("addr", address.into())]);
            }),
        };
        let socket = match socket {
            Ok(socket) => socket,
            Err(error) => {
                let wait = waits.next_wait();
                let text = format!("cannot listen on {}: {error}", wanted.endpoint);
                logger.error("cannot listen", &[("err", (&text).into()), ("retry_after", wait.into())]);
                report(Some(Health::now(HealthState::Unhealthy, text)));
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    _ = following.changed() => {}
                    () = stop.wait() => {}
                }
                continue;
            }
        };
        waits = Backoff::new(BIND_WAIT_MIN, BIND_WAIT_MAX);
        report(None);
        // Those of the settings before end when they have read what waits.
        let (sender, receiver) = mpsc::channel(wanted.queue_size.max(1) as usize);
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..wanted.workers {
            let (settings, receiver) = (Arc::clone(&settings), Arc::clone(&receiver));
            workers.spawn(work(settings, receiver, Arc::clone(complaints)));
        }
        tokio::select! {
            () = receive(&socket, &settings, &sender, complaints) => {}
            _ = following.changed() => {}
            () = stop.wait() => {}
        }
        while workers.try_join_next().is_some() {}
        open = Some((wanted.clone(), socket));
    }
    drop(open);
    while workers.join_next().await.is_some() {}
}

/// Puts packets into the queue. Ends when there is none any more.
async fn receive(socket: &UdpSocket, settings: &Settings, queue: &mpsc::Sender<Bytes>, complaints: &Complaints) {
    let bytes_max = settings.arguments.max_packet_size.bytes().clamp(1, PACKET_BYTES_MAX);
    let mut buffer = vec![0; usize::try_from(bytes_max).unwrap_or_default()];
    loop {
        match socket.recv(&mut buffer).await {
            Ok(len) => match queue.try_send(Bytes::copy_from_slice(&buffer[..len])) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(_)) => complaints.warn("dropped a packet", "the queue is full", 1),
                Err(mpsc::error::TrySendError::Closed(_)) => return,
            },
            // Some systems say here that nobody took what was sent from this socket.
            Err(error) => {
                complaints.warn("cannot receive", &error.to_string(), 1);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// Reads packets of the queue and hands on what is in them.
async fn work(settings: Arc<Settings>, queue: Arc<Mutex<mpsc::Receiver<Bytes>>>, complaints: Arc<Complaints>) {
    loop {
        let packet = queue.lock().await.recv().await;
        let Some(packet) = packet else { return };
        let data = match read_emit_batch(&packet, settings.protocol) {
            Ok(batch) => translate::of_thrift(batch),
            Err(error) => {
                complaints.warn("Processor failed", &error.to_string(), 1);
                continue;
            }
        };
        if let Err(status) = settings.entrance.take_patiently(Batch::of(data, Arc::default())).await {
            complaints.warn("Processor failed", &status.message, 1);
        }
    }
}
