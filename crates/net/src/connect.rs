//! How a connection comes about: in memory, directly or through a proxy, with TLS or without.

use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tower_service::Service;

use crate::config::TlsConfig;
use crate::error::{describe_io, find_cause};
use crate::files::off_thread;
use crate::proxy::{Proxy, ProxyKind, ProxyRules, authority, http_connect, socks5_connect};
use crate::tls::{ClientTls, FurtherTls, Material, client_tls};
use crate::unanswered::Unanswered;
use crate::{ClientOptions, Error, ErrorKind};

/// How long a TLS handshake may take.
const TLS_HANDSHAKE_MS_MAX: u64 = 10_000;

/// Connects addresses that are served by this very process.
///
/// An address such as `alloy.internal:12345` is answered without a socket; everything else is dialled normally. An
/// internal address is never reached through a proxy.
pub trait Dialer: Send + Sync + 'static {
    /// A connection to `authority` (`host:port`, the port always present), or `None` when it is not internal.
    fn dial_internal(&self, authority: &str) -> Option<DuplexStream>;
}

/// A byte stream of any kind.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A byte stream of any kind, on the heap.
pub(crate) type BoxIo = Box<dyn Io>;

/// Whether a connection has already carried a response: then a request that finds it closed may simply try again.
#[derive(Clone, Debug, Default)]
pub(crate) struct UsedBefore(Arc<AtomicBool>);

impl UsedBefore {
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// An established connection.
pub(crate) struct Conn {
    io: TokioIo<BoxIo>,
    /// Plain HTTP through a proxy names the whole URL in the request.
    absolute_form: bool,
    http2: bool,
    used: UsedBefore,
}

impl Conn {
    /// The stream, and whether requests on it name the whole URL.
    pub(crate) fn into_parts(self) -> (BoxIo, bool) {
        (self.io.into_inner(), self.absolute_form)
    }
}

impl Connection for Conn {
    fn connected(&self) -> Connected {
        let connected = Connected::new().proxy(self.absolute_form).extra(self.used.clone());
        if self.http2 { connected.negotiated_h2() } else { connected }
    }
}

impl Read for Conn {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl Write for Conn {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}

/// What all connections of a client have in common, whatever their TLS.
pub(crate) struct Dialling {
    pub(crate) dialer: Option<Arc<dyn Dialer>>,
    pub(crate) proxies: ProxyRules,
    tcp: HttpConnector<Resolver>,
    connect_timeout: Duration,
    /// All connections go to this socket, whatever the host of the URL.
    unix_socket: Option<PathBuf>,
    /// All connections go to this host, whatever the host of the URL.
    connect_to: Option<(String, u16)>,
    /// Proxies are asked to connect on also for what is not encrypted.
    tunnels: bool,
    io_max: IoMax,
}

/// How many bytes one call of the system reads and writes at most; zero sets no limit.
#[derive(Clone, Copy, Debug, Default)]
struct IoMax {
    read: usize,
    write: usize,
}

impl Dialling {
    pub(crate) fn new(
        dialer: Option<Arc<dyn Dialer>>,
        proxies: ProxyRules,
        connect_timeout: Duration,
        random_address: bool,
    ) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(Resolver { inner: GaiResolver::new(), random_address });
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // As Go's dialer does, so that a peer that vanished is noticed on connections that wait.
        tcp.set_keepalive(Some(Duration::from_secs(15)));
        tcp.set_keepalive_interval(Some(Duration::from_secs(15)));
        Self {
            dialer,
            proxies,
            tcp,
            connect_timeout,
            unix_socket: None,
            connect_to: None,
            tunnels: false,
            io_max: IoMax::default(),
        }
    }

    /// Does what else the options say.
    pub(crate) fn with_options(mut self, options: &ClientOptions) -> Self {
        self.unix_socket = options.unix_socket.clone();
        self.connect_to = options.connect_to.clone();
        self.tunnels = options.http2_prior_knowledge;
        self.io_max = IoMax { read: options.read_bytes_max, write: options.write_bytes_max };
        self
    }

    /// A connection to the socket, where there is one.
    async fn dial_unix(&self) -> Option<Result<BoxIo, Error>> {
        let path = self.unix_socket.as_ref()?;
        Some(match tokio::time::timeout(self.connect_timeout, connect_unix(path)).await {
            Ok(Ok(io)) => Ok(io),
            Ok(Err(error)) => {
                let text = format!("dial unix {}: {}", path.display(), describe_io(&error));
                Err(Error::new(ErrorKind::Connect, text))
            }
            Err(_) => Err(Error::new(ErrorKind::Timeout, format!("dial unix {}: i/o timeout", path.display()))),
        })
    }

    async fn dial(&self, host: &str, port: u16) -> Result<BoxIo, Error> {
        let target = authority(host, port);
        let uri: Uri = format!("http://{target}")
            .parse()
            .map_err(|_| Error::new(ErrorKind::Request, "host of the url is not valid"))?;
        let mut tcp = self.tcp.clone();
        // The limit covers name resolution too, which the connector's own does not.
        match tokio::time::timeout(self.connect_timeout, tcp.call(uri)).await {
            Ok(Ok(stream)) => Ok(Box::new(stream.into_inner())),
            Ok(Err(error)) => {
                let text = match find_cause::<io::Error>(&error) {
                    Some(io) => describe_io(io),
                    None => error.to_string(),
                };
                Err(Error::new(ErrorKind::Connect, format!("dial tcp {target}: {text}")))
            }
            Err(_) => Err(Error::new(ErrorKind::Timeout, format!("dial tcp {target}: i/o timeout"))),
        }
    }
}

#[cfg(unix)]
async fn connect_unix(path: &std::path::Path) -> io::Result<BoxIo> {
    Ok(Box::new(tokio::net::UnixStream::connect(path).await?))
}

#[cfg(not(unix))]
async fn connect_unix(_: &std::path::Path) -> io::Result<BoxIo> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no unix sockets"))
}

impl IoMax {
    fn limit(self, io: BoxIo) -> BoxIo {
        if self.read == 0 && self.write == 0 {
            return io;
        }
        let or_all = |max: usize| if max == 0 { usize::MAX } else { max };
        Box::new(Limited { io, read_max: or_all(self.read), write_max: or_all(self.write) })
    }
}

/// A byte stream of which only so much is read and written at once.
struct Limited {
    io: BoxIo,
    read_max: usize,
    write_max: usize,
}

impl AsyncRead for Limited {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() <= self.read_max {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(self.read_max));
        let read = Pin::new(&mut self.io).poll_read(cx, &mut part);
        let count = part.filled().len();
        buf.advance(count);
        read
    }
}

impl AsyncWrite for Limited {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let part = &bytes[..bytes.len().min(self.write_max)];
        Pin::new(&mut self.io).poll_write(cx, part)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut room = self.write_max;
        let whole = bufs.iter().take_while(|buf| {
            let fits = buf.len() <= room;
            room -= if fits { buf.len() } else { 0 };
            fits
        });
        match whole.count() {
            // The first that has anything is too long by itself.
            0 => {
                let first = bufs.first().map_or(&[][..], |buf| &buf[..]);
                self.poll_write(cx, first)
            }
            whole => Pin::new(&mut self.io).poll_write_vectored(cx, &bufs[..whole]),
        }
    }
}

/// Makes connections for one state of the TLS material.
#[derive(Clone)]
pub(crate) struct Connector {
    dialling: Arc<Dialling>,
    tls: Arc<LazyTls>,
}

/// TLS that is made with the first connection that needs it, because reading the system's roots costs time and memory
/// that a client of plain HTTP should not spend.
pub(crate) struct LazyTls {
    config: TlsConfig,
    further: FurtherTls,
    http2: bool,
    made: OnceCell<ClientTls>,
}

impl LazyTls {
    pub(crate) fn new(config: TlsConfig, further: FurtherTls, http2: bool, made: Option<ClientTls>) -> Self {
        Self { config, further, http2, made: OnceCell::new_with(made) }
    }

    async fn get(&self) -> Result<&ClientTls, Error> {
        self.made
            .get_or_try_init(|| async {
                let (config, further, http2) = (self.config.clone(), self.further.clone(), self.http2);
                off_thread(move || client_tls(&config, &further, &Material::read(&config)?, http2)).await?
            })
            .await
    }
}

impl Connector {
    pub(crate) fn new(dialling: Arc<Dialling>, tls: LazyTls) -> Self {
        Self { dialling, tls: Arc::new(tls) }
    }

    pub(crate) async fn connect(self, uri: Uri) -> Result<Conn, Error> {
        let https = uri.scheme_str() == Some("https");
        let host = uri.host().ok_or_else(|| Error::new(ErrorKind::Request, "url has no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let dialling = &self.dialling;
        let (to, port) = match &dialling.connect_to {
            Some((to, port)) => (to.as_str(), *port),
            None => (host, uri.port_u16().unwrap_or(if https { 443 } else { 80 })),
        };
        let target = authority(to, port);

        let mut absolute_form = false;
        let internal = dialling.dialer.as_ref().and_then(|dialer| dialer.dial_internal(&target));
        let io: BoxIo = match (dialling.dial_unix().await, internal) {
            (Some(dialled), _) => dialled?,
            (None, Some(stream)) => Box::new(stream),
            (None, None) => match dialling.proxies.select(https || dialling.tunnels, to, port) {
                None => dialling.dial(to, port).await?,
                Some(proxy) => {
                    let tunnels = https || dialling.tunnels;
                    absolute_form = !tunnels && proxy.kind != ProxyKind::Socks5;
                    self.through(proxy, tunnels, to, port).await?
                }
            },
        };
        let io = dialling.io_max.limit(io);
        if !https {
            return Ok(Conn { io: TokioIo::new(io), absolute_form, http2: false, used: UsedBefore::default() });
        }
        let tls = self.tls.get().await?;
        let name = match &tls.server_name {
            Some(name) => name.clone(),
            None => server_name(host)?,
        };
        let stream = handshake(tls.origin.clone(), name, io).await?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let io: BoxIo = Box::new(Unanswered::new(stream));
        Ok(Conn { io: TokioIo::new(io), absolute_form, http2, used: UsedBefore::default() })
    }

    async fn through(&self, proxy: &Proxy, tunnels: bool, host: &str, port: u16) -> Result<BoxIo, Error> {
        let connect = async {
            let mut io = self
                .dialling
                .dial(&proxy.host, proxy.port)
                .await
                .map_err(|error| error.context(format_args!("proxy {}", proxy.authority())))?;
            if proxy.kind == ProxyKind::Https {
                let tls = self.tls.get().await?;
                io = Box::new(handshake(tls.proxy.clone(), server_name(&proxy.host)?, io).await?);
            }
            match proxy.kind {
                ProxyKind::Socks5 => socks5_connect(io, proxy, host, port).await,
                _ if tunnels => {
                    http_connect(io, proxy, &authority(host, port), &self.dialling.proxies.connect_headers).await
                }
                _ => Ok(io),
            }
        };
        // The proxy's answer has no limit of its own: it is part of connecting, and comes on top of dialling.
        match tokio::time::timeout(self.dialling.connect_timeout.saturating_mul(2), connect).await {
            Ok(outcome) => outcome,
            Err(_) => {
                Err(Error::new(ErrorKind::Timeout, format!("proxy {} did not answer in time", proxy.authority())))
            }
        }
    }
}

fn server_name(host: &str) -> Result<ServerName<'static>, Error> {
    ServerName::try_from(host.to_owned())
        .map_err(|_| Error::new(ErrorKind::Request, "host of the url is not valid for tls"))
}

async fn handshake(
    config: Arc<rustls::ClientConfig>,
    name: ServerName<'static>,
    io: BoxIo,
) -> Result<tokio_rustls::client::TlsStream<BoxIo>, Error> {
    let handshake = TlsConnector::from(config).connect(name, io);
    match tokio::time::timeout(Duration::from_millis(TLS_HANDSHAKE_MS_MAX), handshake).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(Error::new(ErrorKind::Tls, format!("tls handshake: {}", describe_tls(&error)))),
        Err(_) => Err(Error::new(ErrorKind::Timeout, "tls handshake timeout")),
    }
}

/// A failed handshake in words. A peer that answers in plain text gets a hint, because it is the usual mistake.
pub(crate) fn describe_tls(error: &io::Error) -> String {
    match find_cause::<rustls::Error>(error) {
        Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) => {
            "first record does not look like a tls handshake".to_owned()
        }
        Some(tls) => tls.to_string(),
        None => describe_io(error),
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

impl Service<Uri> for Connector {
    type Response = Conn;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Conn, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

/// The system's name resolution; for a client that spreads its connections, one of the addresses by chance.
#[derive(Clone)]
pub(crate) struct Resolver {
    inner: GaiResolver,
    random_address: bool,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, io::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let found = self.inner.call(name);
        let random_address = self.random_address;
        Box::pin(async move {
            let mut addresses: Vec<SocketAddr> = found.await?.collect();
            if random_address && addresses.len() > 1 {
                let one = pick(&addresses, RandomState::new().hash_one(()));
                addresses = vec![one];
            }
            Ok(addresses.into_iter())
        })
    }
}

/// One of several, chosen by a random number. There is at least one.
fn pick(addresses: &[SocketAddr], random: u64) -> SocketAddr {
    addresses[(random % addresses.len() as u64) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_picked_in_turn_of_the_random_number() {
        let addresses: Vec<SocketAddr> = (1..=3).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
        let ports: Vec<u16> = (0..6).map(|random| pick(&addresses, random).port()).collect();
        assert_eq!(ports, [1, 2, 3, 1, 2, 3]);
    }
}
