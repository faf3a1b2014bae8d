//! The listeners of the API.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;

use corten_component::{Logger, Services};
use corten_net::memory::MemoryListener;
use corten_net::{Http2Limits, ServeOptions, ServerLimits, TlsSwitch, serve};
use corten_runtime::Controller;
use tokio::net::{TcpListener, TcpSocket, lookup_host};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::hosts::{HostNames, Hosts};
use crate::metrics::BuildInfo;
use crate::reload::Reloader;
use crate::routes::{Api, Peer};

/// How many connections may wait to be accepted.
const BACKLOG_MAX: u32 = 1_024;

/// The limits of the API: it is asked by people, probes and scrapers, which are few. Only queries of
/// GraphQL have bodies that are read, within a limit of their own.
const LIMITS: ServerLimits = ServerLimits {
    connections_max: Some(2_048),
    header_ms_max: Some(30_000),
    idle_ms_max: Some(300_000),
    write_stall_ms_max: Some(60_000),
    tls_handshake_ms_max: 10_000,
    head_bytes_max: 64 << 10,
    http2_streams_max: 250,
    drain_ms_max: 5_000,
    age_ms_max: None,
    age_grace_ms_max: None,
    keep_alive: true,
    http2: Http2Limits::DEFAULT,
};

/// What the server needs to know besides the controller.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// The prefix of the web interface and of the API behind it.
    pub ui_path_prefix: String,
    /// The flags that the program was started with, as `name=value`, for support bundles; nothing where bundles may not be
    /// asked for.
    pub support_bundle: Option<Vec<String>>,
    /// Whether GraphQL is served.
    pub graphql: Option<Graphql>,
    /// How the program was built.
    pub build: BuildInfo,
    /// This process among its peers.
    pub peer: Peer,
    /// By which names it is reached.
    pub hosts: HostNames,
    /// Writes the server's lines.
    pub logger: Logger,
}

/// How GraphQL is served.
#[derive(Clone, Copy, Debug, Default)]
pub struct Graphql {
    /// Whether there is a page to try queries on.
    pub playground: bool,
}

/// An address that is taken but not listened at yet.
#[derive(Debug)]
pub struct Bound(TcpSocket);

impl Bound {
    /// The address, with the port that the system chose if it was asked to.
    ///
    /// # Errors
    ///
    /// The system does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// Takes an address. Who connects is refused until the server starts.
///
/// # Errors
///
/// An address that is none, is in use or may not be used.
pub async fn bind(address: &str) -> io::Result<Bound> {
    let candidates: Vec<SocketAddr> = match address.strip_prefix(':').map(str::parse) {
        // Without a host all addresses are meant, of both families where the system has them.
        Some(Ok(port)) => vec![(Ipv6Addr::UNSPECIFIED, port).into(), ([0, 0, 0, 0], port).into()],
        _ => {
            let mut found: Vec<SocketAddr> = lookup_host(address).await?.collect();
            // A name that has addresses of both families means that of IPv4, as in the reference.
            found.sort_by_key(SocketAddr::is_ipv6);
            found
        }
    };
    let mut failure = io::Error::new(io::ErrorKind::InvalidInput, "no address found");
    for candidate in candidates {
        match take(candidate) {
            Ok(socket) => return Ok(Bound(socket)),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn take(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restarted process takes its port again although connections of the last one are still winding down.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// The running server.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Server {
    /// Starts to serve, on an address and within the process.
    ///
    /// # Errors
    ///
    /// The system refuses to listen.
    pub fn start(
        bound: Bound,
        memory: MemoryListener,
        controller: Arc<Controller>,
        services: &Arc<Services>,
        reloader: Reloader,
        options: ServerOptions,
    ) -> io::Result<Server> {
        let listener: TcpListener = bound.0.listen(BACKLOG_MAX)?;
        let address = listener.local_addr()?;
        let logger = options.logger.clone();
        let (stop, stopped) = watch::channel(false);
        let hosts = Hosts::of(&options.hosts, address).map(Arc::new);
        let api = Arc::new(Api::new(controller, services, reloader, options, stopped.clone()));
        let handler = |hosts: Option<Arc<Hosts>>| {
            let api = Arc::clone(&api);
            Arc::new(move |request| {
                let (api, hosts) = (Arc::clone(&api), hosts.clone());
                async move { api.answer(request, hosts.as_deref()).await }
            })
        };
        let failures = logger.clone();
        let outside = ServeOptions {
            limits: LIMITS,
            tls: services.server.tls.clone(),
            on_error: Some(Arc::new(move |peer: Option<corten_net::Peer>, error: &corten_net::Error| {
                let peer = peer.map_or_else(String::new, |peer| peer.to_string());
                failures
                    .warn("http connection failed", &[("remote_addr", peer.into()), ("err", error.to_string().into())]);
            })),
        };
        // Within the process there is nobody to be slow or numerous on purpose.
        let inside = ServeOptions {
            limits: ServerLimits { connections_max: None, ..LIMITS },
            tls: TlsSwitch::default(),
            on_error: None,
        };
        let wait = |mut stopped: watch::Receiver<bool>| async move {
            // A server that was dropped without being stopped ends as well.
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        let tasks = vec![
            tokio::spawn(serve(listener, handler(hosts), outside, wait(stopped.clone()))),
            // No browser is within the process.
            tokio::spawn(serve(memory, handler(None), inside, wait(stopped))),
        ];
        logger.info("now listening for http traffic", &[("addr", address.to_string().into())]);
        Ok(Server { address, stop, tasks })
    }

    /// The address that is listened at.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no further requests, and waits for those under way within a limit.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        for task in self.tasks {
            // A server that panicked has ended, too.
            let _ = task.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn an_address_in_use_cannot_be_taken() {
        run(async {
            let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = other.local_addr().unwrap().to_string();
            assert_eq!(bind(&address).await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
            assert!(bind("127.0.0.1:0").await.is_ok());
            assert!(bind(":0").await.is_ok());
            assert!(bind("nonsense").await.is_err());
            assert!(bind("127.0.0.1:99999").await.is_err());
        });
    }

    #[test]
    fn who_connects_before_the_server_starts_is_refused() {
        run(async {
            let bound = bind("127.0.0.1:0").await.unwrap();
            let address = bound.address().unwrap();
            let refused = tokio::net::TcpStream::connect(address).await.unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        });
    }
}
