//! Sockets that connections come from: of the network, and in the file system.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use corten_net::Peer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use super::Address;

/// What is listened on.
pub(super) enum Socket {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(unix::File),
}

impl Socket {
    pub(super) async fn bind(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => Ok(Socket::Tcp(bind_tcp(address).await?)),
            #[cfg(unix)]
            Address::Unix(path) => Ok(Socket::Unix(unix::File::bind(path)?)),
            #[cfg(not(unix))]
            Address::Unix(_) => Err(io::Error::new(io::ErrorKind::Unsupported, "there are no such sockets here")),
        }
    }

    pub(super) async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Socket::Tcp(socket) => {
                let (stream, address) = socket.accept().await?;
                // Responses are written whole: waiting for more to fill a packet only delays them.
                let _ = stream.set_nodelay(true);
                Ok((Stream::Tcp(stream), Peer::Network(address)))
            }
            #[cfg(unix)]
            Socket::Unix(file) => Ok((Stream::Unix(file.accept().await?), Peer::Local)),
        }
    }
}

async fn bind_tcp(address: &str) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        // All addresses are those of IPv4 where there is no IPv6.
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => match address.strip_prefix("[::]:") {
            Some(port) => TcpListener::bind(format!("0.0.0.0:{port}")).await.map_err(|_| error),
            None => Err(error),
        },
        outcome => outcome,
    }
}

/// The address that it has.
impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Socket::Tcp(socket) => socket.local_addr().map_or(Ok(()), |address| address.fmt(f)),
            #[cfg(unix)]
            Socket::Unix(file) => file.fmt(f),
        }
    }
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
    use std::path::{Path, PathBuf};

    use tokio::net::{UnixListener, UnixStream};

    use super::{fmt, io};

    /// A socket in the file system. Its file goes with it.
    pub(in crate::listen) struct File {
        listener: UnixListener,
        path: PathBuf,
        /// Device and number of the file: another process may have made one of that name since.
        identity: Option<(u64, u64)>,
    }

    impl File {
        pub(super) fn bind(path: &Path) -> io::Result<Self> {
            let listener = match UnixListener::bind(path) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left_over(path) => {
                    std::fs::remove_file(path)?;
                    UnixListener::bind(path)?
                }
                outcome => outcome?,
            };
            Ok(File { listener, identity: identity(path), path: path.to_owned() })
        }

        pub(super) async fn accept(&self) -> io::Result<UnixStream> {
            Ok(self.listener.accept().await?.0)
        }
    }

    fn identity(path: &Path) -> Option<(u64, u64)> {
        std::fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
    }

    /// Whether the file is a socket that nobody listens on any more: whoever did was killed.
    fn is_left_over(path: &Path) -> bool {
        // Another file refuses connections, too.
        let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
        let answer = || std::os::unix::net::UnixStream::connect(path);
        is_socket && answer().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    }

    impl fmt::Display for File {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.path.display().fmt(f)
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            if self.identity.is_some() && self.identity == identity(&self.path) {
                let _ = std::fs::remove_file(&self.path);
            }
        }
    }
}

/// A connection.
pub(super) enum Stream {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(tokio::net::UnixStream),
}

/// Calls a method of whatever stream it is.
macro_rules! either {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream {
            Stream::Tcp($inner) => $call,
            #[cfg(unix)]
            Stream::Unix($inner) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(&mut *self, inner => Pin::new(inner).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        either!(&mut *self, inner => Pin::new(inner).poll_write(cx, buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(&mut *self, inner => Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(&mut *self, inner => Pin::new(inner).poll_shutdown(cx))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(&mut *self, inner => Pin::new(inner).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        either!(self, inner => inner.is_write_vectored())
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_file_that_nobody_listens_on_is_taken_over_and_goes_with_the_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let address = Address::Unix(path.clone());
        let socket = Socket::bind(&address).await.unwrap();
        assert_eq!(Socket::bind(&address).await.err().map(|error| error.kind()), Some(io::ErrorKind::AddrInUse));
        let client = tokio::net::UnixStream::connect(&path);
        let (accepted, connected) = tokio::join!(socket.accept(), client);
        assert_eq!(accepted.unwrap().1, Peer::Local);
        connected.unwrap();
        drop(socket);
        assert!(!path.exists());
        std::fs::write(&path, "a file").unwrap();
        assert!(Socket::bind(&address).await.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"a file");
    }
}
