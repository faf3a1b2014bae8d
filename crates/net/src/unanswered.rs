//! Connections with TLS on which the server has said nothing yet.
//!
//! With TLS 1.3 a server that does not take the client's certificate says so after the client's side of the handshake is
//! done (RFC 8446, 4.4.2.4), and closes. The client may be writing its first request by then and be told "broken pipe",
//! or whatever the HTTP layer makes of that, while the reason has come and waits to be read. So here a write that fails
//! before anything has been read does not end the connection: the next read does, with what the server said.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::client::TlsStream;

use crate::connect::BoxIo;

/// A connection whose first failure to write waits for what can be read.
pub(crate) struct Unanswered<T = TlsStream<BoxIo>> {
    io: T,
    /// Whether anything has been read: from then on a failure to write is told at once.
    is_answered: bool,
    /// Why nothing more can be written. What is written from then on is thrown away, until the next read tells.
    failed: Option<io::Error>,
}

impl<T> Unanswered<T> {
    pub(crate) fn new(io: T) -> Self {
        Self { io, is_answered: false, failed: None }
    }

    /// The outcome of a write, or what to tell in place of its failure.
    fn written<R>(&mut self, outcome: io::Result<R>, pretended: R) -> io::Result<R> {
        match outcome {
            Err(error) if !self.is_answered && is_closed(&error) => {
                self.failed = Some(error);
                Ok(pretended)
            }
            outcome => outcome,
        }
    }
}

/// Whether the peer has closed: then what it sent before can still be read, and reading ends.
fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset)
}

impl<T: AsyncRead + Unpin> AsyncRead for Unanswered<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let outcome = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
        self.is_answered |= buf.filled().len() > before;
        let says_why = match &outcome {
            // After an answer its end is one, too.
            Ok(()) => self.is_answered || buf.remaining() == 0,
            // So TLS tells an alert.
            Err(error) => error.kind() == io::ErrorKind::InvalidData,
        };
        match self.failed.take_if(|_| !says_why) {
            Some(failed) => Poll::Ready(Err(failed)),
            None => Poll::Ready(outcome),
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Unanswered<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.failed.is_some() {
            return Poll::Ready(Ok(bytes.len()));
        }
        let outcome = ready!(Pin::new(&mut self.io).poll_write(cx, bytes));
        Poll::Ready(self.written(outcome, bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.failed.is_some() {
            return Poll::Ready(Ok(()));
        }
        let outcome = ready!(Pin::new(&mut self.io).poll_flush(cx));
        Poll::Ready(self.written(outcome, ()))
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
        let len = bufs.iter().map(|buf| buf.len()).sum();
        if self.failed.is_some() {
            return Poll::Ready(Ok(len));
        }
        let outcome = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, bufs));
        Poll::Ready(self.written(outcome, len))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A peer that does what it is told; after it, it takes nothing and has ended.
    #[derive(Default)]
    struct Scripted {
        reads: VecDeque<io::Result<&'static [u8]>>,
        writes: VecDeque<io::Result<usize>>,
    }

    impl AsyncRead for Scripted {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            buf.put_slice(self.reads.pop_front().unwrap_or(Ok(b""))?);
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Scripted {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(self.writes.pop_front().unwrap_or(Err(io::ErrorKind::BrokenPipe.into())))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(if self.writes.is_empty() { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) })
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn peer<const R: usize, const W: usize>(
        reads: [io::Result<&'static [u8]>; R],
        writes: [io::Result<usize>; W],
    ) -> Unanswered<Scripted> {
        Unanswered::new(Scripted { reads: reads.into(), writes: writes.into() })
    }

    async fn write(io: &mut Unanswered<Scripted>) -> io::Result<()> {
        io.write_all(b"one").await?;
        io.write_all(b"two").await?;
        io.flush().await
    }

    #[tokio::test]
    async fn what_the_server_said_comes_before_the_failure_to_write() {
        let alert = io::Error::new(io::ErrorKind::InvalidData, "alert");
        let mut io = peer([Err(alert)], []);
        write(&mut io).await.unwrap();
        assert_eq!(io.read(&mut [0]).await.unwrap_err().to_string(), "alert");
        // An answer is one, too, and may be whole where the connection ends; where it does not end well the failure is told.
        for (end, told) in
            [(Ok(&b""[..]), Ok(0)), (Err(io::ErrorKind::ConnectionReset), Err(io::ErrorKind::BrokenPipe))]
        {
            let mut io = peer([Ok(b"no"), end.map_err(io::Error::from)], [Ok(2)]);
            write(&mut io).await.unwrap();
            let mut answer = [0; 2];
            io.read_exact(&mut answer).await.unwrap();
            assert_eq!((&answer, io.read(&mut [0]).await.map_err(|error| error.kind())), (b"no", told));
        }
    }

    #[tokio::test]
    async fn a_server_that_said_nothing_leaves_the_failure_to_write() {
        for end in [Ok(&b""[..]), Err(io::ErrorKind::UnexpectedEof.into()), Err(io::ErrorKind::ConnectionReset.into())]
        {
            let mut io = peer([end], [Ok(3)]);
            write(&mut io).await.unwrap();
            assert_eq!(io.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        }
    }

    #[tokio::test]
    async fn other_failures_and_those_after_an_answer_are_told_at_once() {
        let mut io = peer([], [Err(io::ErrorKind::StorageFull.into())]);
        assert_eq!(write(&mut io).await.unwrap_err().kind(), io::ErrorKind::StorageFull);
        let mut io = peer([Ok(b"hi")], []);
        io.read_exact(&mut [0; 2]).await.unwrap();
        assert_eq!(write(&mut io).await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
