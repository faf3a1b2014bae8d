//! HTTP/1.1 connections of the client (RFC 9112).
//!
//! A scraper keeps a connection to every target and uses each for some milliseconds every some seconds. So a connection
//! that waits owns its socket and nothing else: no task, no channel and no buffer. Bytes are read into buffers that all
//! connections share, by the task that wants them.

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop::unconstrained;
use tokio::time::Instant;

use crate::connect::{BoxIo, Connector};
use crate::error::describe_io;
use crate::{Body, Error, ErrorKind, ResponseBody};

/// The size of a read buffer, which is also the limit for the head of a response.
const BUFFER_BYTES: usize = 64 << 10;
/// How many read buffers are kept for the next response. Only what is being read at this moment needs one.
const SPARE_BUFFERS_MAX: usize = 4;
/// Pieces of a body up to this size are copied, so that whoever keeps one does not keep a whole buffer.
const COPIED_BYTES_MAX: usize = BUFFER_BYTES / 4;
/// The most header fields of a response.
const FIELDS_MAX: usize = 128;
/// The most bytes of chunk extensions and trailers in a body: nobody reads them.
const EXTRA_BYTES_MAX: usize = 16 << 10;
/// The most interim responses before a response, as in Go's client.
const INTERIM_MAX: u32 = 5;
/// How many pieces are written by one call.
const PIECES_MAX: usize = 64;
/// How often it is looked whether unused connections are to be closed.
const SWEEP_MS: u64 = 30_000;

/// Read buffers that nobody uses.
static SPARE: Mutex<Vec<Box<[u8]>>> = Mutex::new(Vec::new());

/// Nothing that is done under the locks of this file can leave it half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A read buffer and how much of it is filled. Dropped, it serves the next.
struct Buffer {
    bytes: Box<[u8]>,
    len: usize,
}

impl Buffer {
    fn take() -> Self {
        let spare = lock(&SPARE).pop();
        Buffer { bytes: spare.unwrap_or_else(|| vec![0; BUFFER_BYTES].into()), len: 0 }
    }

    fn filled(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Removes bytes from the front.
    fn consume(&mut self, count: usize) {
        self.bytes.copy_within(count..self.len, 0);
        self.len -= count;
    }

    /// What is filled.
    fn into_bytes(self) -> Bytes {
        if self.len <= COPIED_BYTES_MAX { Bytes::copy_from_slice(self.filled()) } else { Bytes::from_owner(self) }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.filled()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut spare = lock(&SPARE);
        if spare.len() < SPARE_BUFFERS_MAX {
            spare.push(std::mem::take(&mut self.bytes));
        }
    }
}

/// Reads what has arrived. While nothing has, no buffer is held.
fn poll_fill(io: &mut BoxIo, slot: &mut Option<Buffer>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    let buffer = slot.get_or_insert_with(Buffer::take);
    let mut space = ReadBuf::new(&mut buffer.bytes[buffer.len..]);
    let outcome = Pin::new(io).poll_read(cx, &mut space);
    let count = space.filled().len();
    buffer.len += count;
    if buffer.len == 0 {
        *slot = None;
    }
    outcome.map_ok(|()| count)
}

/// The connections of a client that nobody uses, by where they lead.
pub(crate) struct Pool {
    connector: Connector,
    idle: Mutex<HashMap<Origin, Vec<Idle>>>,
    per_host_max: usize,
    idle_max: Duration,
    /// Whether a task runs that closes what is no longer used.
    sweeping: AtomicBool,
}

/// Where a connection leads. The same authority means two places, with TLS and without.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Origin {
    uses_tls: bool,
    authority: Authority,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// An established connection.
struct Connection {
    io: BoxIo,
    /// Whether requests name the whole URL, as a proxy wants it.
    absolute_form: bool,
}

impl Connection {
    /// Whether a connection that nobody uses can still be used: its peer has neither closed it nor sent anything.
    fn is_silent(&mut self) -> bool {
        let mut byte = [0];
        let read = poll_fn(|cx| Pin::new(&mut self.io).poll_read(cx, &mut ReadBuf::new(&mut byte)));
        // A task that has had its turn would find every connection silent.
        pin!(unconstrained(read)).poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

impl Pool {
    pub(crate) fn new(connector: Connector, per_host_max: usize, idle_max: Duration) -> Arc<Self> {
        Arc::new(Pool { connector, idle: Mutex::default(), per_host_max, idle_max, sweeping: AtomicBool::new(false) })
    }

    /// Sends a request over a kept or new connection. One that may be repeated is sent again, at most `retries` times,
    /// when a kept connection turns out to be closed by the server, which servers do at any time.
    pub(crate) async fn exchange(
        self: &Arc<Self>,
        request: &Request<Body>,
        mut retries: usize,
    ) -> Result<Response<ResponseBody>, Error> {
        let uri = request.uri();
        let Some(authority) = uri.authority().cloned() else {
            return Err(Error::new(ErrorKind::Request, "no host in request url"));
        };
        let origin = Origin { uses_tls: uri.scheme() == Some(&Scheme::HTTPS), authority };
        loop {
            let (mut connection, kept) = match self.take(&origin) {
                Some(connection) => (connection, true),
                None => {
                    let connected = self.connector.clone().connect(uri.clone()).await?;
                    let (io, absolute_form) = connected.into_parts();
                    (Connection { io, absolute_form }, false)
                }
            };
            match converse(&mut connection, request).await {
                Ok(answer) => return Ok(answer.into_response(connection, Arc::clone(self), origin)),
                Err(Failure::Closed(_)) if kept && retries > 0 => retries -= 1,
                Err(Failure::Closed(error) | Failure::Other(error)) => return Err(error),
            }
        }
    }

    /// A connection that still lives.
    fn take(&self, origin: &Origin) -> Option<Connection> {
        let mut idle = lock(&self.idle);
        let connections = idle.get_mut(origin)?;
        while let Some(Idle { mut connection, .. }) = connections.pop() {
            if connection.is_silent() {
                return Some(connection);
            }
        }
        None
    }

    fn put(self: &Arc<Self>, origin: Origin, mut connection: Connection) {
        if !connection.is_silent() {
            return;
        }
        let mut idle = lock(&self.idle);
        let connections = idle.entry(origin).or_default();
        if connections.len() >= self.per_host_max {
            return;
        }
        connections.push(Idle { connection, since: Instant::now() });
        if !self.sweeping.swap(true, Ordering::Relaxed) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    /// Closes connections that were not used for long, or that the peer closed. Whether any is left.
    fn close_unused(&self) -> bool {
        let mut idle = lock(&self.idle);
        idle.retain(|_, connections| {
            connections.retain_mut(|idle| idle.since.elapsed() < self.idle_max && idle.connection.is_silent());
            !connections.is_empty()
        });
        if idle.is_empty() {
            self.sweeping.store(false, Ordering::Relaxed);
        }
        !idle.is_empty()
    }
}

async fn sweep(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(Duration::from_millis(SWEEP_MS)).await;
        let Some(pool) = pool.upgrade() else { return };
        if !pool.close_unused() {
            return;
        }
    }
}

/// Why a request has no response.
enum Failure {
    /// The connection was closed before anything came.
    Closed(Error),
    Other(Error),
}

/// The head of a response and what came with it.
struct Answer {
    head: Head,
    came: Option<Buffer>,
    /// Whether the request was sent whole, so that the connection can carry another.
    sent: bool,
}

struct Head {
    status: StatusCode,
    version: Version,
    headers: HeaderMap,
    framing: Framing,
    keeps: bool,
}

impl Answer {
    fn into_response(self, connection: Connection, pool: Arc<Pool>, origin: Origin) -> Response<ResponseBody> {
        let Answer { head, came, sent } = self;
        let home = (head.keeps && sent).then_some((pool, origin));
        let mut body = StreamedBody { connection: Some(connection), framing: head.framing, came, home };
        body.finish_when_done();
        let mut response = Response::new(ResponseBody::streamed(body));
        *response.status_mut() = head.status;
        *response.version_mut() = head.version;
        *response.headers_mut() = head.headers;
        response
    }
}

/// Sends a request and reads the head of its response.
async fn converse(connection: &mut Connection, request: &Request<Body>) -> Result<Answer, Failure> {
    let head = request_head(request, connection.absolute_form);
    let mut pieces: Vec<&[u8]> = vec![&head];
    pieces.extend(request.body().chunks().map(|chunk| &chunk[..]));
    let mut reader = HeadReader { came: None, searched: 0, interim: 0, to_head: *request.method() == Method::HEAD };
    let io = &mut connection.io;
    let sent = poll_fn(|cx| match poll_send(io, &mut pieces, cx) {
        Poll::Ready(Ok(())) => Poll::Ready(Ok(None)),
        Poll::Ready(Err(error)) => Poll::Ready(Err(Failure::Closed(broken(&error)))),
        // A server may refuse a request before it has read it whole.
        Poll::Pending => reader.poll_head(io, cx).map_ok(Some),
    })
    .await;
    match sent {
        Ok(Some(head)) => Ok(Answer { head, came: reader.came, sent: false }),
        Ok(None) => {
            let head = poll_fn(|cx| reader.poll_head(io, cx)).await?;
            Ok(Answer { head, came: reader.came, sent: true })
        }
        // What the server said before it closed is more to the point.
        Err(failure @ Failure::Closed(_)) => match poll_fn(|cx| Poll::Ready(reader.poll_head(io, cx))).await {
            Poll::Ready(Ok(head)) => Ok(Answer { head, came: reader.came, sent: false }),
            _ => Err(failure),
        },
        Err(failure) => Err(failure),
    }
}

/// Writes the pieces that are left, and removes what was written.
fn poll_send(io: &mut BoxIo, pieces: &mut Vec<&[u8]>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    while !pieces.is_empty() {
        let mut slices = [IoSlice::new(&[]); PIECES_MAX];
        let count = pieces.len().min(PIECES_MAX);
        for (slice, piece) in slices.iter_mut().zip(pieces.iter()) {
            *slice = IoSlice::new(piece);
        }
        let mut written = ready!(Pin::new(&mut *io).poll_write_vectored(cx, &slices[..count]))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let whole = pieces.iter().take_while(|piece| {
            let fits = piece.len() <= written;
            written -= if fits { piece.len() } else { 0 };
            fits
        });
        let whole = whole.count();
        pieces.drain(..whole);
        if let Some(first) = pieces.first_mut() {
            *first = &first[written..];
        }
    }
    Pin::new(io).poll_flush(cx)
}

/// The head of a request as it is sent.
fn request_head(request: &Request<Body>, absolute_form: bool) -> Vec<u8> {
    let uri = request.uri();
    let mut head = Vec::with_capacity(512);
    head.extend_from_slice(request.method().as_str().as_bytes());
    head.push(b' ');
    if absolute_form {
        head.extend_from_slice(b"http://");
        head.extend_from_slice(authority_of(uri).as_bytes());
    }
    head.extend_from_slice(uri.path().as_bytes());
    if let Some(query) = uri.query() {
        head.push(b'?');
        head.extend_from_slice(query.as_bytes());
    }
    head.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    let headers = request.headers();
    match headers.get(HOST) {
        Some(host) => head.extend_from_slice(host.as_bytes()),
        None => head.extend_from_slice(authority_of(uri).as_bytes()),
    }
    head.extend_from_slice(b"\r\n");
    for (name, value) in headers {
        // How the body is delimited is decided here.
        if *name != HOST && *name != CONTENT_LENGTH && *name != TRANSFER_ENCODING {
            head.extend_from_slice(name.as_str().as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
    }
    let takes_body = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
    if takes_body || !request.body().is_empty() {
        head.extend_from_slice(format!("content-length: {}\r\n", request.body().len_bytes()).as_bytes());
    }
    head.extend_from_slice(b"\r\n");
    head
}

fn authority_of(uri: &Uri) -> &str {
    uri.authority().map_or("", Authority::as_str)
}

fn broken(error: &io::Error) -> Error {
    let kind = if error.kind() == io::ErrorKind::TimedOut { ErrorKind::Timeout } else { ErrorKind::Protocol };
    Error::new(kind, describe_io(error))
}

fn incomplete() -> Error {
    Error::new(ErrorKind::Protocol, "connection closed before the response was complete")
}

fn malformed(what: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Protocol, format!("malformed HTTP response: {what}"))
}

/// Reads the head of a response.
struct HeadReader {
    came: Option<Buffer>,
    /// How much of what came holds no end of a head.
    searched: usize,
    /// How many interim responses were passed over.
    interim: u32,
    /// Whether the request was one whose response never has a body.
    to_head: bool,
}

impl HeadReader {
    fn poll_head(&mut self, io: &mut BoxIo, cx: &mut Context<'_>) -> Poll<Result<Head, Failure>> {
        loop {
            if let Some(head) = self.parse().map_err(Failure::Other)? {
                return Poll::Ready(Ok(head));
            }
            if self.came.as_ref().is_some_and(|came| came.len == BUFFER_BYTES) {
                let text = format!("head of the response is larger than the limit of {BUFFER_BYTES} bytes");
                return Poll::Ready(Err(Failure::Other(Error::new(ErrorKind::TooLarge, text))));
            }
            let nothing_came = self.came.is_none();
            let failure = |error| if nothing_came { Failure::Closed(error) } else { Failure::Other(error) };
            match ready!(poll_fill(io, &mut self.came, cx)) {
                Ok(0) => return Poll::Ready(Err(failure(incomplete()))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(failure(broken(&error)))),
            }
        }
    }

    /// The head, if it is there whole. Interim responses are passed over.
    fn parse(&mut self) -> Result<Option<Head>, Error> {
        while let Some(came) = &mut self.came {
            let filled = came.filled();
            const START: &[u8] = b"HTTP/1.";
            let known = filled.len().min(START.len());
            if filled[..known] != START[..known] {
                return Err(malformed("it does not begin with HTTP/1"));
            }
            let Some(end) = head_end(filled, self.searched) else {
                self.searched = filled.len().saturating_sub(3);
                return Ok(None);
            };
            // Header values are parts of this copy.
            let text = Bytes::copy_from_slice(&filled[..end]);
            came.consume(end);
            self.searched = 0;
            if came.len == 0 {
                self.came = None;
            }
            let head = parse_head(&text, self.to_head)?;
            if !head.status.is_informational() {
                return Ok(Some(head));
            }
            if head.status == StatusCode::SWITCHING_PROTOCOLS {
                return Err(malformed("it switches to another protocol"));
            }
            self.interim += 1;
            if self.interim > INTERIM_MAX {
                return Err(malformed("too many 1xx informational responses"));
            }
        }
        Ok(None)
    }
}

/// Where the first empty line ends. Lines end with or without a carriage return.
fn head_end(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        at += bytes[at..].iter().position(|byte| *byte == b'\n')? + 1;
        match &bytes[at..] {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
}

fn parse_head(text: &Bytes, to_head: bool) -> Result<Head, Error> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut fields);
    match parsed.parse(text) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(malformed("its head has no end")),
        Err(httparse::Error::TooManyHeaders) => {
            let text = format!("response has more than {FIELDS_MAX} header fields");
            return Err(Error::new(ErrorKind::TooLarge, text));
        }
        Err(error) => return Err(malformed(error)),
    }
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or_else(|| malformed("no status"))?;
    let version = if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    let mut headers = HeaderMap::with_capacity(parsed.headers.len());
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(malformed)?;
        let value = HeaderValue::from_maybe_shared(text.slice_ref(field.value)).map_err(malformed)?;
        headers.append(name, value);
    }
    let has_no_body =
        to_head || status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let framing = if has_no_body { Framing::Length(0) } else { Framing::of(&headers)? };
    let says = |what: &str| {
        let values = headers.get_all(CONNECTION).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case(what))
    };
    let keeps = match version {
        Version::HTTP_10 => says("keep-alive") && !headers.contains_key(TRANSFER_ENCODING),
        _ => !says("close"),
    };
    // Both ways to delimit a body at once are a sign of something between that understands only one of them.
    let ambiguous = headers.contains_key(TRANSFER_ENCODING) && headers.contains_key(CONTENT_LENGTH);
    let keeps = keeps && !ambiguous && !matches!(framing, Framing::Close { .. });
    Ok(Head { status, version, headers, framing, keeps })
}

/// How a body ends (RFC 9112, section 6.3).
#[derive(Debug)]
enum Framing {
    /// After so many further bytes.
    Length(u64),
    Chunked(Chunked),
    /// When the connection is closed.
    Close {
        done: bool,
    },
}

impl Framing {
    fn of(headers: &HeaderMap) -> Result<Self, Error> {
        if let Some(encoding) = headers.get(TRANSFER_ENCODING) {
            let single = headers.get_all(TRANSFER_ENCODING).iter().count() == 1;
            if single && encoding.as_bytes().eq_ignore_ascii_case(b"chunked") {
                return Ok(Framing::Chunked(Chunked::default()));
            }
            return Err(malformed("its transfer encoding is not chunked"));
        }
        let mut length = None;
        for value in headers.get_all(CONTENT_LENGTH) {
            let digits = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            let value: u64 =
                digits.and_then(|text| text.parse().ok()).ok_or_else(|| malformed("bad content length"))?;
            if length.is_some_and(|before| before != value) {
                return Err(malformed("it has two content lengths"));
            }
            length = Some(value);
        }
        Ok(length.map_or(Framing::Close { done: false }, Framing::Length))
    }

    fn is_done(&self) -> bool {
        match self {
            Framing::Length(left) => *left == 0,
            Framing::Chunked(chunked) => chunked.is_done(),
            Framing::Close { done } => *done,
        }
    }

    /// Moves the bytes of the body to the front of what came. How many they are, and how many bytes were looked at.
    fn decode(&mut self, came: &mut [u8]) -> Result<(usize, usize), Error> {
        match self {
            Framing::Length(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(came.len());
                *left -= count as u64;
                Ok((count, count))
            }
            Framing::Chunked(chunked) => chunked.decode(came),
            Framing::Close { .. } => Ok((came.len(), came.len())),
        }
    }
}

/// Takes a body out of its chunks (RFC 9112, section 7.1). Extensions and trailers are passed over.
#[derive(Debug, Default)]
struct Chunked {
    state: ChunkState,
    /// How many bytes of extensions and trailers there were.
    extra_bytes: usize,
}

#[derive(Clone, Copy, Debug)]
enum ChunkState {
    /// In the size of a chunk, of which so many digits were read.
    Size {
        size: u64,
        digits: u32,
    },
    /// In what follows the size in its line.
    Extension {
        size: u64,
    },
    Data {
        left: u64,
    },
    /// After the data of a chunk: its line end.
    DataEnd {
        has_return: bool,
    },
    /// In the lines after the last chunk; how long the line is so far.
    Trailer {
        line_bytes: usize,
    },
    Done,
}

impl Default for ChunkState {
    fn default() -> Self {
        ChunkState::Size { size: 0, digits: 0 }
    }
}

impl Chunked {
    fn is_done(&self) -> bool {
        matches!(self.state, ChunkState::Done)
    }

    fn decode(&mut self, came: &mut [u8]) -> Result<(usize, usize), Error> {
        let (mut data, mut at) = (0, 0);
        while at < came.len() && !self.is_done() {
            if let ChunkState::Data { left } = self.state {
                let count = usize::try_from(left).unwrap_or(usize::MAX).min(came.len() - at);
                came.copy_within(at..at + count, data);
                data += count;
                at += count;
                let left = left - count as u64;
                self.state =
                    if left == 0 { ChunkState::DataEnd { has_return: false } } else { ChunkState::Data { left } };
                continue;
            }
            self.state = self.step(came[at])?;
            at += 1;
        }
        Ok((data, at))
    }

    /// What comes after a byte that is not data.
    fn step(&mut self, byte: u8) -> Result<ChunkState, Error> {
        let begin = |size: u64| match size {
            0 => ChunkState::Trailer { line_bytes: 0 },
            left => ChunkState::Data { left },
        };
        Ok(match self.state {
            ChunkState::Size { size, digits } => match (char::from(byte).to_digit(16), byte) {
                (Some(digit), _) if digits < 16 => {
                    ChunkState::Size { size: size << 4 | u64::from(digit), digits: digits + 1 }
                }
                (None, b'\n') if digits > 0 => begin(size),
                (None, b';' | b' ' | b'\t' | b'\r') if digits > 0 => ChunkState::Extension { size },
                _ => return Err(malformed("bad size of a chunk")),
            },
            // Not counted: every chunk has it, and there may be any number of those.
            ChunkState::Extension { size } if byte == b'\n' => begin(size),
            ChunkState::Extension { size } => {
                self.count_extra()?;
                ChunkState::Extension { size }
            }
            ChunkState::DataEnd { has_return: false } if byte == b'\r' => ChunkState::DataEnd { has_return: true },
            ChunkState::DataEnd { .. } if byte == b'\n' => ChunkState::default(),
            ChunkState::DataEnd { .. } => return Err(malformed("a chunk is longer than its size")),
            ChunkState::Trailer { line_bytes } => {
                self.count_extra()?;
                match byte {
                    b'\n' if line_bytes == 0 => ChunkState::Done,
                    b'\n' => ChunkState::Trailer { line_bytes: 0 },
                    b'\r' => ChunkState::Trailer { line_bytes },
                    _ => ChunkState::Trailer { line_bytes: line_bytes + 1 },
                }
            }
            state @ (ChunkState::Data { .. } | ChunkState::Done) => state,
        })
    }

    fn count_extra(&mut self) -> Result<(), Error> {
        self.extra_bytes += 1;
        if self.extra_bytes > EXTRA_BYTES_MAX {
            let text = format!("body has more than {EXTRA_BYTES_MAX} bytes of chunk extensions and trailers");
            return Err(Error::new(ErrorKind::TooLarge, text));
        }
        Ok(())
    }
}

/// The body of a response, read from its connection as it is asked for. A connection whose body was read to its end
/// serves the next request; dropped before, it is closed.
pub(crate) struct StreamedBody {
    connection: Option<Connection>,
    framing: Framing,
    came: Option<Buffer>,
    home: Option<(Arc<Pool>, Origin)>,
}

impl fmt::Debug for StreamedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamedBody").field("framing", &self.framing).finish_non_exhaustive()
    }
}

impl StreamedBody {
    /// The next bytes of the body, at least one, or `None` at its end.
    pub(crate) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Error>> {
        loop {
            if self.framing.is_done() {
                return Poll::Ready(Ok(None));
            }
            let Some(connection) = &mut self.connection else { return Poll::Ready(Ok(None)) };
            if self.came.is_none() {
                let outcome = ready!(poll_fill(&mut connection.io, &mut self.came, cx));
                let outcome = match (outcome, &mut self.framing) {
                    (Ok(0), Framing::Close { done }) => {
                        *done = true;
                        Ok(())
                    }
                    (Ok(0), _) => Err(incomplete()),
                    (Ok(_), _) => Ok(()),
                    (Err(error), _) => Err(broken(&error)),
                };
                if let Err(error) = outcome {
                    return Poll::Ready(Err(self.fail(error)));
                }
            }
            let Some(mut came) = self.came.take() else { continue };
            let len = came.len;
            let (data, looked_at) = match self.framing.decode(&mut came.bytes[..len]) {
                Ok(decoded) => decoded,
                Err(error) => return Poll::Ready(Err(self.fail(error))),
            };
            if looked_at < len {
                // The peer sent more than its response.
                self.home = None;
            }
            came.len = data;
            self.finish_when_done();
            if data > 0 {
                return Poll::Ready(Ok(Some(came.into_bytes())));
            }
        }
    }

    fn fail(&mut self, error: Error) -> Error {
        self.connection = None;
        error
    }

    /// Gives the connection back once the body has ended.
    fn finish_when_done(&mut self) {
        if self.framing.is_done()
            && let Some(connection) = self.connection.take()
            && let Some((pool, origin)) = self.home.take()
            && self.came.is_none()
        {
            pool.put(origin, connection);
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.framing.is_done() || self.connection.is_none()
    }

    /// How many bytes are known to follow, and whether these are all.
    pub(crate) fn left_bytes(&self) -> (u64, bool) {
        match self.framing {
            Framing::Length(left) => (left, true),
            _ => (0, self.is_done()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;
    use crate::connect::{Dialer, Dialling, LazyTls};
    use crate::proxy::ProxyRules;

    /// What is decoded from chunked bytes that arrive in pieces of these sizes.
    fn decode_chunked(bytes: &[u8], sizes: &[usize]) -> Result<(Vec<u8>, usize, bool), Error> {
        let (mut chunked, mut body, mut at) = (Chunked::default(), Vec::new(), 0);
        let mut sizes = sizes.iter().cycle();
        while at < bytes.len() && !chunked.is_done() {
            let size = (*sizes.next().unwrap_or(&1)).clamp(1, bytes.len() - at);
            let mut piece = bytes[at..at + size].to_vec();
            let (data, looked_at) = chunked.decode(&mut piece)?;
            body.extend_from_slice(&piece[..data]);
            at += looked_at;
        }
        Ok((body, at, chunked.is_done()))
    }

    #[test]
    fn chunked_bodies() {
        for (bytes, body) in [
            ("3\r\nabc\r\n0\r\n\r\n", "abc"),
            ("3\nabc\n0\n\n", "abc"),
            ("A;name=value\r\n0123456789\r\n1 \r\nx\r\n000\r\ntrailer: 1\r\nother: 2\r\n\r\n", "0123456789x"),
            ("0\r\n\r\n", ""),
        ] {
            for size in 1..bytes.len() {
                let (decoded, looked_at, done) = decode_chunked(bytes.as_bytes(), &[size]).unwrap();
                assert_eq!((decoded.as_slice(), looked_at, done), (body.as_bytes(), bytes.len(), true), "{bytes:?}");
            }
        }
        for bad in ["\r\n", "g\r\n", "-1\r\n", "3\r\nabcd\r\n", "11111111111111111\r\n", ";x\r\n", "3\r\nabc\r\r\n"] {
            assert!(decode_chunked(bad.as_bytes(), &[4]).is_err(), "{bad:?}");
        }
        let many = format!("{}0\r\n\r\n", "1\r\nx\r\n".repeat(2 * EXTRA_BYTES_MAX));
        assert_eq!(decode_chunked(many.as_bytes(), &[999]).unwrap().0.len(), 2 * EXTRA_BYTES_MAX);
        let endless = format!("1;{}", "x".repeat(EXTRA_BYTES_MAX + 1));
        assert_eq!(decode_chunked(endless.as_bytes(), &[999]).unwrap_err().kind(), ErrorKind::TooLarge);
    }

    #[test]
    fn where_a_head_ends() {
        for (text, end) in [
            ("HTTP/1.1 200 OK\r\n\r\nbody\n\n", Some(19)),
            ("HTTP/1.1 200 OK\na: b\n\nbody", Some(22)),
            ("HTTP/1.1 200 OK\r\na: b\r\n", None),
            ("\n\n", Some(2)),
            ("", None),
        ] {
            assert_eq!(head_end(text.as_bytes(), 0), end, "{text:?}");
        }
    }

    #[test]
    fn how_a_body_is_delimited() {
        let of = |head: &str| {
            parse_head(&Bytes::from(format!("{head}\r\n\r\n")), false)
                .map(|head| (format!("{:?}", head.framing), head.keeps))
                .map_err(|error| error.to_string())
        };
        let close = "Close { done: false }";
        for (head, framing, keeps) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 5", "Length(5)", true),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5", "Length(5)", true),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: x, Close", "Length(5)", false),
            ("HTTP/1.0 200 OK\r\ncontent-length: 5", "Length(5)", false),
            ("HTTP/1.0 200 OK\r\ncontent-length: 5\r\nconnection: keep-alive", "Length(5)", true),
            ("HTTP/1.1 200 OK", close, false),
            ("HTTP/1.1 204 No Content", "Length(0)", true),
            ("HTTP/1.1 304 Not Modified\r\ncontent-length: 5", "Length(0)", true),
        ] {
            assert_eq!(of(head), Ok((framing.to_owned(), keeps)), "{head}");
        }
        assert!(of("HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked").unwrap().0.starts_with("Chunked"));
        let both = of("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 5").unwrap();
        assert!(both.0.starts_with("Chunked") && !both.1);
        for bad in [
            "HTTP/1.1 200 OK\r\ncontent-length: -5",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked",
            "HTTP/1.1 99 OK",
            "HTTP/1.1 200 OK\r\nno colon",
        ] {
            assert!(of(bad).unwrap_err().starts_with("malformed HTTP response: "), "{bad}");
        }
    }

    /// Plays servers, one a connection.
    struct Scripted(Mutex<Vec<DuplexStream>>);

    impl Dialer for Scripted {
        fn dial_internal(&self, _: &str) -> Option<DuplexStream> {
            lock(&self.0).pop()
        }
    }

    /// A pool whose connections lead to what `ends` are the other ends of.
    fn pool(ends: usize) -> (Arc<Pool>, Vec<DuplexStream>) {
        pool_of(ends, 10)
    }

    /// The same, of which so many are kept for a host.
    fn pool_of(ends: usize, per_host_max: usize) -> (Arc<Pool>, Vec<DuplexStream>) {
        let (mut near, far): (Vec<_>, Vec<_>) = (0..ends).map(|_| tokio::io::duplex(16)).unzip();
        near.reverse();
        let proxies = ProxyRules::new(&crate::ProxyConfig::default(), |_| None).unwrap();
        let dialer: Arc<dyn Dialer> = Arc::new(Scripted(Mutex::new(near)));
        let dialling = Arc::new(Dialling::new(Some(dialer), proxies, Duration::from_secs(1), false));
        let connector = Connector::new(
            dialling,
            LazyTls::new(crate::TlsConfig::default(), crate::FurtherTls::default(), false, None),
        );
        (Pool::new(connector, per_host_max, Duration::from_secs(60)), far)
    }

    async fn read_request(server: &mut DuplexStream) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(server.read_u8().await.unwrap());
        }
        String::from_utf8(head).unwrap()
    }

    fn get(uri: &str) -> Request<Body> {
        Request::get(uri).body(Body::empty()).unwrap()
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(future)
    }

    #[test]
    fn a_request_names_its_host_and_what_it_asks_for() {
        run(async {
            let (pool, mut servers) = pool(1);
            let client = tokio::spawn(async move { pool.exchange(&get("http://a.b:80?x=1"), 0).await });
            assert_eq!(read_request(&mut servers[0]).await, "GET /?x=1 HTTP/1.1\r\nhost: a.b:80\r\n\r\n");
            servers[0].write_all(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nto the end").await.unwrap();
            let response = client.await.unwrap().unwrap();
            servers.clear();
            assert_eq!(response.into_body().read(100).await.unwrap(), "to the end");
        });
    }

    #[test]
    fn an_answer_before_the_request_was_sent_whole_counts_and_ends_the_connection() {
        run(async {
            let (pool, mut servers) = pool(1);
            let request = Request::post("http://h/").body(Body::from(vec![b'x'; 100_000])).unwrap();
            let (shared, held) = (pool.clone(), request.clone());
            let client = tokio::spawn(async move { shared.exchange(&held, 0).await });
            servers[0].write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno").await.unwrap();
            let response = client.await.unwrap().unwrap();
            assert_eq!(response.status(), 413);
            assert_eq!(response.into_body().read(100).await.unwrap(), "no");
            assert!(lock(&pool.idle).is_empty());
        });
    }

    #[test]
    fn an_answer_that_ends_with_its_connection_is_whole_where_the_request_could_not_be_written() {
        run(async {
            let (ours, mut server) = tokio::io::duplex(1_000);
            server.write_all(b"HTTP/1.1 413 Too Large\r\nconnection: close\r\n\r\nto the end").await.unwrap();
            drop(server);
            let io: BoxIo = Box::new(crate::unanswered::Unanswered::new(ours));
            let mut connection = Connection { io, absolute_form: false };
            let request = Request::post("https://h/").body(Body::from("too much")).unwrap();
            let answer = converse(&mut connection, &request).await.ok().expect("an answer");
            let (pool, _) = pool(0);
            let origin = Origin { uses_tls: true, authority: Authority::from_static("h") };
            let response = answer.into_response(connection, pool, origin);
            assert_eq!(response.status(), 413);
            assert_eq!(response.into_body().read(100).await.unwrap(), "to the end");
        });
    }

    #[test]
    fn a_connection_waits_only_when_its_response_was_read_to_the_end_and_nothing_followed() {
        for (answer, reads, waits) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwhole", true, 1),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwhole", false, 0),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwhole and more", true, 0),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n", true, 1),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nwhole", true, 0),
        ] {
            run(async {
                let (pool, mut servers) = pool(1);
                let shared = pool.clone();
                let client = tokio::spawn(async move {
                    let response = shared.exchange(&get("http://h/"), 0).await.unwrap();
                    if reads {
                        assert_eq!(response.into_body().read(100).await.unwrap(), "whole");
                    }
                });
                read_request(&mut servers[0]).await;
                let _ = servers[0].write_all(answer.as_bytes()).await;
                client.await.unwrap();
                let waiting: usize = lock(&pool.idle).values().map(Vec::len).sum();
                assert_eq!(waiting, waits, "{answer:?}");
                // What nobody uses for long is closed.
                tokio::time::sleep(Duration::from_secs(120)).await;
                assert!(lock(&pool.idle).is_empty());
            });
        }
    }

    #[test]
    fn a_connection_in_clear_text_never_carries_a_request_that_is_to_be_encrypted() {
        run(async {
            let (pool, mut servers) = pool(2);
            let shared = pool.clone();
            let client = tokio::spawn(async move {
                shared.exchange(&get("http://h/"), 0).await.unwrap();
                let _ = shared.exchange(&get("https://h/"), 0).await;
            });
            read_request(&mut servers[0]).await;
            servers[0].write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            let second = servers.pop().unwrap();
            let (mut first, mut second) = (servers.remove(0), second);
            let (mut a, mut b) = ([0; 1], [0; 1]);
            tokio::select! {
                _ = first.read_exact(&mut a) => panic!("it is sent in clear text"),
                read = second.read_exact(&mut b) => drop(read.unwrap()),
            }
            assert_eq!(b, [0x16], "a handshake of TLS begins");
            client.abort();
        });
    }

    #[test]
    fn connections_that_were_closed_are_noticed_however_many_they_are() {
        run(async {
            let (pool, mut servers) = pool_of(300, 300);
            let mut responses = Vec::new();
            for server in &mut servers {
                let shared = pool.clone();
                let client = tokio::spawn(async move { shared.exchange(&get("http://h/"), 0).await.unwrap() });
                read_request(server).await;
                server.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n").await.unwrap();
                responses.push(client.await.unwrap());
            }
            for (response, server) in responses.into_iter().zip(&mut servers) {
                server.write_all(b"x").await.unwrap();
                response.into_body().read(10).await.unwrap();
            }
            let waiting = || -> usize { lock(&pool.idle).values().map(Vec::len).sum() };
            assert_eq!(waiting(), 300);
            drop(servers);
            pool.close_unused();
            assert_eq!(waiting(), 0);
        });
    }

    #[test]
    fn interim_responses_without_end_are_refused() {
        run(async {
            let (pool, mut servers) = pool(1);
            let client = tokio::spawn(async move { pool.exchange(&get("http://h/"), 0).await });
            read_request(&mut servers[0]).await;
            servers[0].write_all(&b"HTTP/1.1 100 Continue\r\n\r\n".repeat(6)).await.unwrap();
            let error = client.await.unwrap().unwrap_err();
            assert_eq!(error.to_string(), "malformed HTTP response: too many 1xx informational responses");
        });
    }

    #[test]
    fn what_is_not_http_is_refused_at_once() {
        run(async {
            let (pool, mut servers) = pool(1);
            let client = tokio::spawn(async move { pool.exchange(&get("http://h/"), 0).await });
            servers[0].write_all(b"SSH-2.0").await.unwrap();
            let error = client.await.unwrap().unwrap_err();
            assert_eq!(error.to_string(), "malformed HTTP response: it does not begin with HTTP/1");
        });
    }

    /// A response as a server might send it, and its body.
    fn responses() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
        let body = prop::collection::vec(any::<u8>(), 0..40_000);
        (body, prop::collection::vec(1_usize..9_000, 1..6), 0..3).prop_map(|(body, sizes, how)| {
            let mut sent = b"HTTP/1.1 200 OK\r\n".to_vec();
            match how {
                0 => sent.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes()),
                1 => sent.extend_from_slice(b"\r\n"),
                _ => sent.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n"),
            }
            if how < 2 {
                sent.extend_from_slice(&body);
                return (sent, body);
            }
            let (mut at, mut sizes) = (0, sizes.iter().cycle());
            while at < body.len() {
                let size = (*sizes.next().unwrap()).min(body.len() - at);
                sent.extend_from_slice(format!("{size:x}\r\n").as_bytes());
                sent.extend_from_slice(&body[at..at + size]);
                sent.extend_from_slice(b"\r\n");
                at += size;
            }
            sent.extend_from_slice(b"0\r\n\r\n");
            (sent, body)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_body_arrives_as_it_was_sent_however_it_is_cut((sent, body) in responses(), piece in 1_usize..50_000) {
            let read = run(async {
                let (pool, mut servers) = pool(1);
                let mut server = servers.remove(0);
                tokio::spawn(async move {
                    read_request(&mut server).await;
                    for piece in sent.chunks(piece) {
                        let _ = server.write_all(piece).await;
                        tokio::task::yield_now().await;
                    }
                });
                pool.exchange(&get("http://h/"), 0).await.unwrap().into_body().read(1 << 20).await.unwrap()
            });
            prop_assert_eq!(read, body);
        }

        #[test]
        fn a_body_that_breaks_off_is_an_error((sent, _) in responses(), cut in any::<prop::sample::Index>()) {
            let cut = cut.index(sent.len());
            let to_the_end = sent.starts_with(b"HTTP/1.1 200 OK\r\n\r\n") && cut >= 19;
            let outcome = run(async {
                let (pool, mut servers) = pool(1);
                let mut server = servers.remove(0);
                tokio::spawn(async move {
                    read_request(&mut server).await;
                    let _ = server.write_all(&sent[..cut]).await;
                });
                pool.exchange(&get("http://h/"), 0).await?.into_body().read(1 << 20).await
            });
            prop_assert_eq!(outcome.is_ok(), to_the_end);
        }

        #[test]
        fn no_bytes_make_the_parsers_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), start in 0..4) {
            let before = ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "HTTP/1."];
            let sent = [before[start as usize].as_bytes(), &bytes].concat();
            let _ = decode_chunked(&bytes, &[7]);
            run(async {
                let (pool, mut servers) = pool(1);
                let mut server = servers.remove(0);
                tokio::spawn(async move {
                    let _ = server.write_all(&sent).await;
                });
                if let Ok(response) = pool.exchange(&get("http://h/"), 0).await {
                    let _ = response.into_body().read(1 << 20).await;
                }
            });
        }
    }
}
