//! Which connections are idle, slow or stalled.
//!
//! Reads and writes only note when something began; the task of a connection looks at the notes a few times within the
//! smallest limit. That costs no timer for each read and treats both protocols alike.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::ServerLimits;
use super::pings::{PingPolicy, Pings};

/// What a connection has been doing. Moments are milliseconds since it began, plus one; zero is none.
pub(super) struct Activity {
    began: Instant,
    /// Requests from the end of their head to the end of their response.
    under_way: AtomicU32,
    /// Since when there has been no request.
    idle_since: AtomicU64,
    /// Since when the head of a request has been arriving.
    head_since: AtomicU64,
    /// Since when the client has not taken anything of what is to be written.
    blocked_since: AtomicU64,
    http2: AtomicBool,
}

/// What to do with a connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Verdict {
    Fine,
    /// Close it in good order.
    Idle,
    /// End it.
    TooSlow,
}

impl Activity {
    pub(super) fn new(http2: bool) -> Self {
        Self {
            began: Instant::now(),
            under_way: AtomicU32::new(0),
            idle_since: AtomicU64::new(1),
            head_since: AtomicU64::new(0),
            blocked_since: AtomicU64::new(0),
            http2: AtomicBool::new(http2),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    pub(super) fn verdict(&self, limits: &ServerLimits) -> Verdict {
        let now = self.now();
        let longer_than = |since: &AtomicU64, limit_ms: Option<u64>| {
            let since = since.load(Ordering::Relaxed);
            since != 0 && limit_ms.is_some_and(|limit| now.saturating_sub(since) > limit)
        };
        if longer_than(&self.blocked_since, limits.write_stall_ms_max) {
            return Verdict::TooSlow;
        }
        if self.under_way.load(Ordering::Relaxed) > 0 || self.blocked_since.load(Ordering::Relaxed) != 0 {
            return Verdict::Fine;
        }
        if longer_than(&self.head_since, limits.header_ms_max) {
            return Verdict::TooSlow;
        }
        if longer_than(&self.idle_since, limits.idle_ms_max) { Verdict::Idle } else { Verdict::Fine }
    }

    /// Bytes have come in.
    fn read(&self, bytes: &[u8]) {
        if self.under_way.load(Ordering::Relaxed) > 0
            || self.head_since.load(Ordering::Relaxed) != 0
            || self.http2.load(Ordering::Relaxed)
        {
            return;
        }
        // The preface of HTTP/2 in clear text: from here on bytes without a request are not a slow head, they may be
        // a ping.
        if bytes.starts_with(b"PRI ") {
            self.http2.store(true, Ordering::Relaxed);
        } else {
            self.head_since.store(self.now(), Ordering::Relaxed);
        }
    }

    fn written<T>(&self, outcome: &Poll<io::Result<T>>) {
        match outcome {
            Poll::Ready(_) => {
                if self.blocked_since.load(Ordering::Relaxed) != 0 {
                    self.blocked_since.store(0, Ordering::Relaxed);
                }
            }
            Poll::Pending => {
                if self.blocked_since.load(Ordering::Relaxed) == 0 {
                    self.blocked_since.store(self.now(), Ordering::Relaxed);
                }
            }
        }
    }
}

/// A request from the end of its head to the end of its response.
pub(super) struct UnderWay(Arc<Activity>);

impl UnderWay {
    pub(super) fn begin(activity: Arc<Activity>, http2: bool) -> Self {
        activity.under_way.fetch_add(1, Ordering::Relaxed);
        activity.head_since.store(0, Ordering::Relaxed);
        if http2 {
            activity.http2.store(true, Ordering::Relaxed);
        }
        Self(activity)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.idle_since.store(self.0.now(), Ordering::Relaxed);
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A byte stream that notes what happens.
pub(super) struct Watched<I> {
    inner: I,
    activity: Arc<Activity>,
    pings: Option<Box<Pings>>,
}

impl<I> Watched<I> {
    pub(super) fn new(inner: I, activity: Arc<Activity>, pings: Option<PingPolicy>) -> Self {
        Self { inner, activity, pings: pings.map(|policy| Box::new(Pings::new(policy))) }
    }
}

impl<I: AsyncWrite + Unpin> Watched<I> {
    /// Looks for pings in what was read: an error where there are too many of them. The client is told, if that can be
    /// done at once.
    fn count_pings(&mut self, cx: &mut Context<'_>, new: std::ops::Range<usize>, buf: &ReadBuf<'_>) -> io::Result<()> {
        let Some(pings) = &mut self.pings else { return Ok(()) };
        let streams = self.activity.under_way.load(Ordering::Relaxed);
        let Err(farewell) = pings.read(&buf.filled()[new], streams > 0) else { return Ok(()) };
        if let Some(farewell) = farewell {
            let _ = Pin::new(&mut self.inner).poll_write(cx, farewell);
            let _ = Pin::new(&mut self.inner).poll_flush(cx);
        }
        Err(io::Error::new(io::ErrorKind::ConnectionAborted, "too many pings"))
    }

    fn note_written<'a>(&mut self, outcome: &Poll<io::Result<usize>>, bufs: impl Iterator<Item = &'a [u8]>) {
        self.activity.written(outcome);
        if let (Some(pings), Poll::Ready(Ok(len))) = (&mut self.pings, outcome) {
            let mut left = *len;
            for buf in bufs {
                let (written, _) = buf.split_at(left.min(buf.len()));
                pings.written(written);
                left -= written.len();
            }
        }
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for Watched<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let outcome = Pin::new(&mut self.inner).poll_read(cx, buf);
        let new = buf.filled().get(before..).unwrap_or_default();
        if !new.is_empty() {
            self.activity.read(new);
            let new = before..buf.filled().len();
            self.count_pings(cx, new, buf)?;
        }
        outcome
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.note_written(&outcome, std::iter::once(buf));
        outcome
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_flush(cx);
        self.activity.written(&outcome);
        outcome
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.activity.written(&outcome);
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.note_written(&outcome, bufs.iter().map(|buf| &**buf));
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LIMITS: ServerLimits = ServerLimits {
        connections_max: None,
        header_ms_max: Some(30_000),
        idle_ms_max: Some(120_000),
        write_stall_ms_max: Some(60_000),
        tls_handshake_ms_max: 10_000,
        head_bytes_max: 8_192,
        http2_streams_max: 1,
        drain_ms_max: 1,
        age_ms_max: None,
        age_grace_ms_max: None,
        keep_alive: true,
        http2: super::super::Http2Limits::DEFAULT,
    };

    #[tokio::test(start_paused = true)]
    async fn each_limit_counts_from_its_own_beginning() {
        let after = |ms| tokio::time::advance(Duration::from_millis(ms));
        let activity = Arc::new(Activity::new(false));
        after(120_000).await;
        assert_eq!(activity.verdict(&LIMITS), Verdict::Fine);
        after(1).await;
        assert_eq!(activity.verdict(&LIMITS), Verdict::Idle);

        activity.read(b"GET / HT");
        after(30_000).await;
        activity.read(b"TP/1.1");
        assert_eq!(activity.verdict(&LIMITS), Verdict::Idle, "the head is not late yet");
        after(1).await;
        assert_eq!(activity.verdict(&LIMITS), Verdict::TooSlow);

        let request = UnderWay::begin(activity.clone(), false);
        after(3_600_000).await;
        assert_eq!(activity.verdict(&LIMITS), Verdict::Fine, "an answer may take its time");
        activity.written::<()>(&Poll::Pending);
        after(60_001).await;
        assert_eq!(activity.verdict(&LIMITS), Verdict::TooSlow);
        activity.written(&Poll::Ready(Ok(1)));
        drop(request);
        assert_eq!(activity.verdict(&LIMITS), Verdict::Fine, "idleness starts with the end of the request");
        after(120_001).await;
        assert_eq!(activity.verdict(&LIMITS), Verdict::Idle);
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_of_http2_without_a_request_are_no_slow_head() {
        let activity = Activity::new(false);
        activity.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        activity.read(b"ping");
        tokio::time::advance(Duration::from_millis(60_000)).await;
        assert_eq!(activity.verdict(&LIMITS), Verdict::Fine);
    }
}
