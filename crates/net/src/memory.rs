//! Connections within the process: a listener that is reached by a [`Dialer`] instead of a socket.

use std::io;

use tokio::io::DuplexStream;
use tokio::sync::mpsc;

use crate::Dialer;
use crate::server::{Listener, Peer};

/// How many bytes may be under way in one direction of a connection before the writer waits.
const STREAM_BYTES_MAX: usize = 64 << 10;
/// How many connections may wait to be accepted before dialling fails.
const BACKLOG_MAX: usize = 4_096;

/// A pair for one address: what serves it and what connects to it.
///
/// `authority` is compared without regard to case and must hold the port, as in `alloy.internal:12345`.
pub fn listen(authority: &str) -> (MemoryListener, MemoryDialer) {
    let (sender, receiver) = mpsc::channel(BACKLOG_MAX);
    (MemoryListener { receiver }, MemoryDialer { authority: authority.to_owned(), sender })
}

/// Connects to a [`MemoryListener`].
#[derive(Clone, Debug)]
pub struct MemoryDialer {
    authority: String,
    sender: mpsc::Sender<DuplexStream>,
}

impl Dialer for MemoryDialer {
    fn dial_internal(&self, authority: &str) -> Option<DuplexStream> {
        if !authority.eq_ignore_ascii_case(&self.authority) {
            return None;
        }
        let (ours, theirs) = tokio::io::duplex(STREAM_BYTES_MAX);
        // A listener that is gone or overrun drops its end: the caller sees a closed connection, not a DNS query for a
        // name that exists only in this process.
        let _ = self.sender.try_send(theirs);
        Some(ours)
    }
}

/// Accepts what a [`MemoryDialer`] connects.
#[derive(Debug)]
pub struct MemoryListener {
    receiver: mpsc::Receiver<DuplexStream>,
}

impl Listener for MemoryListener {
    type Io = DuplexStream;

    async fn accept(&mut self) -> io::Result<(DuplexStream, Peer)> {
        match self.receiver.recv().await {
            Some(stream) => Ok((stream, Peer::Internal)),
            // Nobody can connect any more, which is no reason to stop: the server ends when it is told to.
            None => std::future::pending().await,
        }
    }
}
