//! Request bodies, which are in memory and can be sent again, and response bodies, which stream.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};

use crate::http1::StreamedBody;
use crate::{Error, ErrorKind};

/// The body of a request: nothing, or a run of byte strings that is sent as one.
///
/// A clone shares the bytes, which is what lets a redirect or a retry send them again. A run is sent without being
/// joined, so that a request glued from records of a queue copies none of them.
#[derive(Clone, Debug, Default)]
pub struct Body {
    chunks: Chunks,
    /// The next chunk to send.
    next: usize,
    /// The bytes from `next` on.
    left_bytes: u64,
}

#[derive(Clone, Debug, Default)]
enum Chunks {
    #[default]
    None,
    One(Bytes),
    Many(Arc<[Bytes]>),
}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.left_bytes == 0
    }

    /// How many bytes are sent.
    pub fn len_bytes(&self) -> u64 {
        self.left_bytes
    }

    /// The bytes, in order: for a signature.
    pub fn chunks(&self) -> impl Iterator<Item = &Bytes> {
        self.as_slice().iter().skip(self.next)
    }

    fn as_slice(&self) -> &[Bytes] {
        match &self.chunks {
            Chunks::None => &[],
            Chunks::One(one) => std::slice::from_ref(one),
            Chunks::Many(many) => many,
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() {
            return Self::empty();
        }
        Self { left_bytes: bytes.len() as u64, chunks: Chunks::One(bytes), next: 0 }
    }
}

impl From<Vec<Bytes>> for Body {
    fn from(mut chunks: Vec<Bytes>) -> Self {
        chunks.retain(|chunk| !chunk.is_empty());
        if chunks.len() < 2 {
            return chunks.pop().map(Self::from).unwrap_or_default();
        }
        let left_bytes = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        Self { chunks: Chunks::Many(chunks.into()), next: 0, left_bytes }
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(chunk) = self.as_slice().get(self.next).cloned() else { return Poll::Ready(None) };
        self.next += 1;
        self.left_bytes -= chunk.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.left_bytes == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left_bytes)
    }
}

/// The body of a response, as it arrives.
#[derive(Debug)]
pub struct ResponseBody {
    inner: Inner,
    trailers: Option<HeaderMap>,
}

#[derive(Debug)]
enum Inner {
    /// Of a connection that is negotiated: HTTP/2, and HTTP/1.1 where HTTP/2 was offered.
    Negotiated(Incoming),
    Streamed(StreamedBody),
}

impl ResponseBody {
    pub(crate) fn negotiated(body: Incoming) -> Self {
        Self { inner: Inner::Negotiated(body), trailers: None }
    }

    pub(crate) fn streamed(body: StreamedBody) -> Self {
        Self { inner: Inner::Streamed(body), trailers: None }
    }

    /// The next bytes, or `None` at the end. What a chunk holds is up to the network; none is empty.
    ///
    /// A chunk keeps the connection's read buffer alive: what is to be kept longer than the request is copied.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        std::future::poll_fn(|cx| self.poll_chunk(cx)).await
    }

    /// As [`ResponseBody::chunk`], for hand-written state machines.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Error>> {
        let incoming = match &mut self.inner {
            Inner::Streamed(body) => {
                return body.poll_chunk(cx).map_err(|error| error.context("reading body"));
            }
            Inner::Negotiated(incoming) => incoming,
        };
        loop {
            match ready!(Pin::new(&mut *incoming).poll_frame(cx)) {
                None => return Poll::Ready(Ok(None)),
                Some(Err(error)) => return Poll::Ready(Err(Error::from_hyper(&error).context("reading body"))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Poll::Ready(Ok(Some(data))),
                    Ok(_) => {}
                    Err(frame) => self.trailers = frame.into_trailers().ok().or(self.trailers.take()),
                },
            }
        }
    }

    /// The headers that stand behind the body, once all of it was read, where there are any and the connection was
    /// negotiated.
    pub fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_ref()
    }

    /// The whole body, or an error of kind [`ErrorKind::TooLarge`] when it is longer than `limit_bytes`.
    pub async fn read(self, limit_bytes: usize) -> Result<Bytes, Error> {
        read_body_limited(self, limit_bytes).await
    }

    /// The beginning of the body as text, at most `limit_bytes` of it, for an error message. What fails to arrive is
    /// left out.
    pub async fn read_start(mut self, limit_bytes: usize) -> String {
        let mut start = Vec::new();
        while let Ok(Some(chunk)) = self.chunk().await {
            let take = chunk.len().min(limit_bytes - start.len());
            start.extend_from_slice(&chunk[..take]);
            if start.len() == limit_bytes {
                break;
            }
        }
        String::from_utf8_lossy(&start).into_owned()
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.poll_chunk(cx).map(|outcome| outcome.transpose().map(|chunk| chunk.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Negotiated(incoming) => incoming.is_end_stream(),
            Inner::Streamed(body) => body.is_done(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Negotiated(incoming) => incoming.size_hint(),
            Inner::Streamed(body) => {
                let (left, all) = body.left_bytes();
                let mut hint = SizeHint::new();
                hint.set_lower(left);
                if all {
                    hint.set_upper(left);
                }
                hint
            }
        }
    }
}

/// What reading a body can fail with, made an [`Error`].
pub trait BodyError {
    /// The error, without a secret in its text.
    fn into_error(self) -> Error;
}

impl BodyError for Error {
    fn into_error(self) -> Error {
        self
    }
}

impl BodyError for Infallible {
    fn into_error(self) -> Error {
        match self {}
    }
}

impl BodyError for hyper::Error {
    fn into_error(self) -> Error {
        Error::from_hyper(&self).context("reading body")
    }
}

/// Reads a body whole, of a request or a response.
///
/// One that is longer than `limit_bytes` gives an error of kind [`ErrorKind::TooLarge`]: before anything is read where
/// its announced length says so. A body that arrives as one chunk is not copied.
pub async fn read_body_limited<B>(mut body: B, limit_bytes: usize) -> Result<Bytes, Error>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: BodyError,
{
    let too_large = || Error::new(ErrorKind::TooLarge, format!("body is larger than the limit of {limit_bytes} bytes"));
    if body.size_hint().lower() > limit_bytes as u64 {
        return Err(too_large());
    }
    let mut first = Bytes::new();
    let mut joined = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(chunk) = frame.map_err(BodyError::into_error)?.into_data() else { continue };
        if chunk.len() > limit_bytes - joined.len().max(first.len()) {
            return Err(too_large());
        }
        if joined.is_empty() && first.is_empty() {
            first = chunk;
            continue;
        }
        if joined.is_empty() {
            // The announced length is the peer's word: it is believed up to a bound, then the buffer grows by need.
            const RESERVE_BYTES_MAX: u64 = 1 << 20;
            let rest = body.size_hint().lower().min(RESERVE_BYTES_MAX) as usize;
            joined.reserve(first.len() + chunk.len() + rest);
            joined.extend_from_slice(&first);
            first = Bytes::new();
        }
        joined.extend_from_slice(&chunk);
    }
    Ok(if joined.is_empty() { first } else { joined.freeze() })
}

/// As [`read_body_limited`], but the whole body must have arrived within `limit`, else the error is of kind
/// [`ErrorKind::Timeout`]: what a server uses against clients that send slowly on purpose.
pub async fn read_body_within<B>(body: B, limit_bytes: usize, limit: Duration) -> Result<Bytes, Error>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: BodyError,
{
    match tokio::time::timeout(limit, read_body_limited(body, limit_bytes)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::new(ErrorKind::Timeout, format!("body did not arrive within {limit:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(future)
    }

    fn chunks(parts: &[&'static str]) -> Body {
        parts.iter().map(|part| Bytes::from_static(part.as_bytes())).collect::<Vec<_>>().into()
    }

    #[test]
    fn a_run_of_chunks_is_one_body_and_a_clone_sends_it_again() {
        let body = chunks(&["one ", "", "two ", "three"]);
        assert_eq!(body.len_bytes(), 13);
        assert_eq!(body.chunks().count(), 3);
        let copy = body.clone();
        assert_eq!(run(read_body_limited(body, 100)).unwrap(), "one two three");
        assert_eq!(run(read_body_limited(copy, 100)).unwrap(), "one two three");
        assert!(chunks(&[""]).is_empty());
    }

    #[test]
    fn a_body_of_exactly_the_limit_passes_and_one_byte_more_does_not() {
        for parts in [&["abcd"][..], &["ab", "cd"][..]] {
            assert_eq!(run(read_body_limited(chunks(parts), 4)).unwrap(), "abcd");
            assert_eq!(run(read_body_limited(chunks(parts), 3)).unwrap_err().kind(), ErrorKind::TooLarge);
        }
        assert_eq!(run(read_body_limited(Body::empty(), 0)).unwrap(), "");
    }

    /// A body that announces nothing about its length.
    struct Unannounced(Body);

    impl HttpBody for Unannounced {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Pin::new(&mut self.0).poll_frame(cx)
        }
    }

    #[test]
    fn the_limit_counts_what_arrives_not_only_what_was_announced() {
        let outcome = run(read_body_limited(Unannounced(chunks(&["ab", "cd", "ef"])), 5));
        assert_eq!(outcome.unwrap_err().to_string(), "body is larger than the limit of 5 bytes");
        assert_eq!(run(read_body_limited(Unannounced(chunks(&["ab", "cd", "e"])), 5)).unwrap(), "abcde");
    }

    #[test]
    fn a_body_that_does_not_arrive_in_time_is_given_up() {
        struct Never;
        impl HttpBody for Never {
            type Data = Bytes;
            type Error = Infallible;
            fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
                Poll::Pending
            }
        }
        let outcome = run(read_body_within(Never, 10, Duration::from_secs(30)));
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Timeout);
    }
}
