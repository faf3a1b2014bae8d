//! Sockets at addresses of the form `host:port`.

use std::io;
use std::net::SocketAddr;

use socket2::SockRef;
use tokio::net::{TcpListener, UdpSocket, lookup_host};

/// How much the system keeps of packets that were not read yet, in bytes.
const UDP_BUFFER_BYTES: usize = 1 << 20;

/// Why a socket could not be opened.
pub(super) struct BindError {
    pub(super) text: String,
    /// Whether somebody else has the address.
    pub(super) is_in_use: bool,
}

impl From<io::Error> for BindError {
    fn from(error: io::Error) -> Self {
        BindError { text: error.to_string(), is_in_use: error.kind() == io::ErrorKind::AddrInUse }
    }
}

impl From<String> for BindError {
    fn from(text: String) -> Self {
        BindError { text, is_in_use: false }
    }
}

/// Listens for connections.
pub(super) async fn tcp(address: &str) -> Result<TcpListener, BindError> {
    let addresses = addresses(address).await?;
    match TcpListener::bind(&addresses[..]).await {
        Err(error) => Ok(TcpListener::bind(&ipv4_instead(&addresses)[..]).await.map_err(|_| error)?),
        Ok(socket) => Ok(socket),
    }
}

/// Listens for packets.
pub(super) async fn udp(address: &str) -> Result<UdpSocket, BindError> {
    let addresses = addresses(address).await?;
    let socket = match UdpSocket::bind(&addresses[..]).await {
        Err(error) => UdpSocket::bind(&ipv4_instead(&addresses)[..]).await.map_err(|_| error)?,
        Ok(socket) => socket,
    };
    // What the system does not give is its own to limit.
    let _ = SockRef::from(&socket).set_recv_buffer_size(UDP_BUFFER_BYTES);
    Ok(socket)
}

/// The addresses that `host:port` means; all where there is no host.
async fn addresses(text: &str) -> Result<Vec<SocketAddr>, String> {
    let (host, port) = text.rsplit_once(':').ok_or_else(|| format!("address {text}: missing port in address"))?;
    let port: u16 = match port {
        "" => 0,
        port => port.parse().map_err(|_| format!("address {text}: invalid port"))?,
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() {
        return Ok(vec![SocketAddr::from(([0u16; 8], port))]);
    }
    let found = lookup_host((host, port)).await.map_err(|error| format!("address {text}: {error}"))?;
    Ok(found.collect())
}

/// All addresses are those of IPv4 where there is no IPv6.
fn ipv4_instead(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let all = |address: &&SocketAddr| address.is_ipv6() && address.ip().is_unspecified();
    addresses.iter().filter(all).map(|address| SocketAddr::from(([0, 0, 0, 0], address.port()))).collect()
}
