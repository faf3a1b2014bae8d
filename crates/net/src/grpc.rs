//! gRPC with one message each way, over HTTP/2, as the gRPC project's `PROTOCOL-HTTP2` has it.

use std::fmt::{self, Write as _};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use bytes::{BufMut as _, Bytes, BytesMut};
use corten_coding::{Coding, CodingError, PackError};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Body as HttpBody, Frame};

use crate::{Body, BodyError, Client, Error, ErrorKind, ServerBody, empty_body};

/// What messages are said to be.
pub const CONTENT_TYPE: &str = "application/grpc";
/// What stands before a message: whether it is packed, and its length.
const PREFIX_BYTES: usize = 5;
/// Not what a peer says is written into a header beyond this, in bytes.
const MESSAGE_BYTES_MAX: usize = 4 << 10;

/// How a call ended. The numbers are those of gRPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code(pub i32);

impl Code {
    /// It succeeded.
    pub const OK: Code = Code(0);
    /// The client gave it up.
    pub const CANCELLED: Code = Code(1);
    /// Nothing better is known.
    pub const UNKNOWN: Code = Code(2);
    /// The message can never be taken.
    pub const INVALID_ARGUMENT: Code = Code(3);
    /// There was no answer in time.
    pub const DEADLINE_EXCEEDED: Code = Code(4);
    /// What was asked for does not exist.
    pub const NOT_FOUND: Code = Code(5);
    /// What was to be made exists.
    pub const ALREADY_EXISTS: Code = Code(6);
    /// Whoever asks is known and may not.
    pub const PERMISSION_DENIED: Code = Code(7);
    /// Something is used up.
    pub const RESOURCE_EXHAUSTED: Code = Code(8);
    /// The state of things does not allow it.
    pub const FAILED_PRECONDITION: Code = Code(9);
    /// Something else came between.
    pub const ABORTED: Code = Code(10);
    /// It lies beyond the end.
    pub const OUT_OF_RANGE: Code = Code(11);
    /// There is no such method.
    pub const UNIMPLEMENTED: Code = Code(12);
    /// The server is broken.
    pub const INTERNAL: Code = Code(13);
    /// The server does not take anything at present.
    pub const UNAVAILABLE: Code = Code(14);
    /// Data were lost for good.
    pub const DATA_LOSS: Code = Code(15);
    /// Whoever asks is not known.
    pub const UNAUTHENTICATED: Code = Code(16);

    /// The name, as metrics have it: `UNAVAILABLE`.
    pub fn name(self) -> &'static str {
        const NAMES: [&str; 17] = [
            "OK",
            "CANCELLED",
            "UNKNOWN",
            "INVALID_ARGUMENT",
            "DEADLINE_EXCEEDED",
            "NOT_FOUND",
            "ALREADY_EXISTS",
            "PERMISSION_DENIED",
            "RESOURCE_EXHAUSTED",
            "FAILED_PRECONDITION",
            "ABORTED",
            "OUT_OF_RANGE",
            "UNIMPLEMENTED",
            "INTERNAL",
            "UNAVAILABLE",
            "DATA_LOSS",
            "UNAUTHENTICATED",
        ];
        usize::try_from(self.0).ok().and_then(|at| NAMES.get(at)).copied().unwrap_or("UNKNOWN")
    }

    /// The name, as Go's texts of errors have it: `Unavailable`.
    pub fn shown(self) -> &'static str {
        const NAMES: [&str; 17] = [
            "OK",
            "Canceled",
            "Unknown",
            "InvalidArgument",
            "DeadlineExceeded",
            "NotFound",
            "AlreadyExists",
            "PermissionDenied",
            "ResourceExhausted",
            "FailedPrecondition",
            "Aborted",
            "OutOfRange",
            "Unimplemented",
            "Internal",
            "Unavailable",
            "DataLoss",
            "Unauthenticated",
        ];
        usize::try_from(self.0).ok().and_then(|at| NAMES.get(at)).copied().unwrap_or("Unknown")
    }

    /// What an answer without a code means, by its status of HTTP.
    pub fn of_http(status: StatusCode) -> Self {
        match status.as_u16() {
            400 => Code::INTERNAL,
            401 => Code::UNAUTHENTICATED,
            403 => Code::PERMISSION_DENIED,
            404 => Code::UNIMPLEMENTED,
            429 | 502..=504 => Code::UNAVAILABLE,
            _ => Code::UNKNOWN,
        }
    }
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What kind of failure it is.
    pub code: Code,
    /// What went wrong.
    pub message: String,
    /// A message `google.rpc.Status`, where the server sent one.
    pub details: Bytes,
}

impl Status {
    /// Whether it is said here that the server cannot be reached.
    pub fn is_not_connected(&self) -> bool {
        self.code == Code::UNAVAILABLE && self.message.starts_with(NOT_CONNECTED)
    }

    /// A failure without details.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Status { code, message: message.into(), details: Bytes::new() }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rpc error: code = {} desc = {}", self.code.shown(), self.message)
    }
}

impl std::error::Error for Status {}

/// Decodes binary headers: peers pad them or do not.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
);

/// A call: where to, with what, and within which limits.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// The scheme and the host; the path is not looked at.
    pub server: &'a Uri,
    /// The method: `/package.Service/Method`.
    pub method: &'a str,
    /// How the message is packed, by the name that gRPC has for it; [`pack`] does that.
    pub encoding: Option<&'static str>,
    /// Further headers.
    pub headers: HeaderMap,
    /// How long it may take.
    pub timeout: Duration,
    /// How long the answer may be.
    pub answer_bytes_max: usize,
}

impl Call<'_> {
    /// Sends a message, which stands in pieces, and waits for the one that is answered.
    ///
    /// The client speaks HTTP/2: it was made with `http2_prior_knowledge`, or negotiates it in TLS.
    ///
    /// # Errors
    ///
    /// What the server says, or `Unavailable` where it cannot be reached and `DeadlineExceeded` where it takes too long.
    pub async fn send(self, client: &Client, message: Vec<Bytes>) -> Result<Bytes, Status> {
        let limit = self.timeout;
        match tokio::time::timeout(limit, self.exchange(client, message)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Status::new(Code::DEADLINE_EXCEEDED, "context deadline exceeded")),
        }
    }

    async fn exchange(self, client: &Client, message: Vec<Bytes>) -> Result<Bytes, Status> {
        let invalid = |what: &str| Status::new(Code::INTERNAL, format!("cannot send the call: {what}"));
        let mut to = self.server.clone().into_parts();
        to.path_and_query = Some(self.method.parse().map_err(|_| invalid("the method is not a path"))?);
        let uri = Uri::from_parts(to).map_err(|_| invalid("the server has no host"))?;
        let mut request = Request::new(framed(message, self.encoding.is_some())?);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        *headers = self.headers;
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert("grpc-accept-encoding", HeaderValue::from_static("gzip, zstd, snappy"));
        if let Some(name) = self.encoding {
            headers.insert("grpc-encoding", HeaderValue::from_static(name));
        }
        let timeout = self.timeout.as_millis().clamp(1, 99_999_999);
        if let Ok(value) = HeaderValue::from_str(&format!("{timeout}m")) {
            headers.insert("grpc-timeout", value);
        }

        let response = client.request(request).await.map_err(|error| of_net(&error))?;
        let (parts, mut body) = response.into_parts();
        // A call that fails at once has its status among the headers.
        if let Some(status) = read_status(&parts.headers) {
            return status.map_or_else(|| Err(no_message()), Err);
        }
        if parts.status != StatusCode::OK {
            let text = format!("unexpected HTTP status code received from server: {}", parts.status.as_u16());
            return Err(Status::new(Code::of_http(parts.status), text));
        }
        let mut answer = BytesMut::new();
        while let Some(chunk) = body.chunk().await.map_err(|error| of_net(&error))? {
            if answer.len() + chunk.len() > self.answer_bytes_max.saturating_add(PREFIX_BYTES) {
                return Err(too_large(answer.len() + chunk.len() - PREFIX_BYTES, self.answer_bytes_max));
            }
            answer.extend_from_slice(&chunk);
        }
        match body.trailers().and_then(read_status) {
            Some(Some(status)) => Err(status),
            Some(None) => unframed(answer.freeze(), &parts.headers, self.answer_bytes_max),
            None => Err(Status::new(Code::INTERNAL, "server closed the stream without sending trailers")),
        }
    }
}

fn of_net(error: &Error) -> Status {
    let code = match error.kind() {
        ErrorKind::Config | ErrorKind::Request => Code::INTERNAL,
        ErrorKind::TooLarge => Code::RESOURCE_EXHAUSTED,
        ErrorKind::Auth => Code::UNAUTHENTICATED,
        _ => Code::UNAVAILABLE,
    };
    let reason = error.reason();
    let text = match error.kind() {
        ErrorKind::Connect | ErrorKind::Proxy => format!("{NOT_CONNECTED}Error while dialing: {reason}\""),
        ErrorKind::Tls => format!("{NOT_CONNECTED}authentication handshake failed: {reason}\""),
        ErrorKind::Timeout => format!("{NOT_CONNECTED}{reason}\""),
        _ => reason.to_owned(),
    };
    Status::new(code, text)
}

/// How the message of a status begins that says that there is no connection.
const NOT_CONNECTED: &str = "connection error: desc = \"transport: ";

fn no_message() -> Status {
    Status::new(Code::INTERNAL, "the server answered without a message")
}

/// The status in headers or trailers: `None` if there is none, `Some(None)` for success.
fn read_status(headers: &HeaderMap) -> Option<Option<Status>> {
    let code = headers.get("grpc-status")?;
    let code = code.to_str().ok().and_then(|code| code.parse().ok()).map_or(Code::UNKNOWN, Code);
    if code == Code::OK {
        return Some(None);
    }
    let message = headers.get("grpc-message").map(|message| percent_decoded(message.as_bytes())).unwrap_or_default();
    let details = headers.get("grpc-status-details-bin");
    let details = details.and_then(|details| LENIENT.decode(details.as_bytes()).ok()).unwrap_or_default();
    Some(Some(Status { code, message, details: details.into() }))
}

/// Packs a message that stands in pieces.
///
/// # Errors
///
/// It cannot be packed in this way.
pub fn pack(coding: Coding, message: &[Bytes]) -> Result<Vec<Bytes>, PackError> {
    Ok(vec![coding.pack(None, message.iter().map(|piece| &piece[..]))?.into()])
}

/// The longest message that is sent, in bytes. The prefix has room for twice as much, which peers in Go do not send.
const SENT_BYTES_MAX: u32 = i32::MAX as u32;

/// A message with its prefix, which says whether it is packed.
fn framed(pieces: Vec<Bytes>, is_packed: bool) -> Result<Body, Status> {
    let len: usize = pieces.iter().map(Bytes::len).sum();
    let Some(prefix_len) = u32::try_from(len).ok().filter(|len| *len <= SENT_BYTES_MAX) else {
        let text = format!("trying to send message larger than max ({len} vs. {SENT_BYTES_MAX})");
        return Err(Status::new(Code::RESOURCE_EXHAUSTED, text));
    };
    let mut prefix = BytesMut::with_capacity(PREFIX_BYTES);
    prefix.put_u8(u8::from(is_packed));
    prefix.put_u32(prefix_len);
    let mut all = vec![prefix.freeze()];
    all.extend(pieces);
    Ok(all.into())
}

fn too_large(len: usize, bytes_max: usize) -> Status {
    Status::new(Code::RESOURCE_EXHAUSTED, format!("grpc: received message larger than max ({len} vs. {bytes_max})"))
}

/// Takes the message out of what was sent, which is at most `bytes_max` long when unpacked. One that is not packed is not
/// copied.
///
/// # Errors
///
/// It is no message, is too long, or is packed in a way that is not known.
pub fn unframed(sent: Bytes, headers: &HeaderMap, bytes_max: usize) -> Result<Bytes, Status> {
    let Some((prefix, rest)) = sent.split_first_chunk::<PREFIX_BYTES>() else {
        return Err(Status::new(Code::INTERNAL, "unexpected EOF"));
    };
    let [packed, len @ ..] = *prefix;
    let len = u32::from_be_bytes(len) as usize;
    if len > bytes_max {
        return Err(too_large(len, bytes_max));
    }
    if rest.len() < len {
        return Err(Status::new(Code::INTERNAL, "unexpected EOF"));
    }
    if rest.len() > len {
        return Err(more_than_one());
    }
    let message = sent.slice(PREFIX_BYTES..);
    match packed {
        0 => Ok(message),
        1 => {
            let Some(coding) = message_coding(headers)? else {
                let text = "grpc: compressed flag set with identity or empty encoding";
                return Err(Status::new(Code::INTERNAL, text));
            };
            match coding.unpack(&message, bytes_max) {
                Ok(message) => Ok(message.into()),
                Err(CodingError::TooLarge(_)) => Err(Status::new(
                    Code::RESOURCE_EXHAUSTED,
                    format!("grpc: received message after decompression larger than max {bytes_max}"),
                )),
                Err(error) => {
                    let text = format!("grpc: failed to decompress the received message: {error}");
                    Err(Status::new(Code::INTERNAL, text))
                }
            }
        }
        other => Err(Status::new(Code::INTERNAL, format!("grpc: received unexpected payload format {other}"))),
    }
}

/// How packed messages of a call are packed; `None` where none are.
///
/// # Errors
///
/// In a way that is not known. A server says so also where the message is not packed.
pub fn message_coding(headers: &HeaderMap) -> Result<Option<Coding>, Status> {
    let name = headers.get("grpc-encoding").map_or(Ok(""), |name| name.to_str()).unwrap_or("?");
    if matches!(name, "" | "identity") {
        return Ok(None);
    }
    let text = || format!("grpc: Decompressor is not installed for grpc-encoding {name:?}");
    coding_named(name).map(Some).ok_or_else(|| Status::new(Code::UNIMPLEMENTED, text()))
}

/// Reads what a client sends with a call, for [`unframed`]. A message that is announced to be longer than `bytes_max` is
/// refused before it is read.
///
/// # Errors
///
/// The message is too long, or does not arrive whole.
pub async fn receive<B>(body: &mut B, bytes_max: usize) -> Result<Bytes, Status>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: BodyError,
{
    /// What is announced is believed up to a bound, then memory is taken by need.
    const RESERVE_BYTES_MAX: usize = 1 << 20;
    let mut first = Bytes::new();
    let mut joined = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(chunk) = frame.map_err(broken_off)?.into_data() else { continue };
        if joined.is_empty() && first.is_empty() {
            first = chunk;
        } else {
            if joined.is_empty() {
                let announced = announced(&first).unwrap_or_default().min(RESERVE_BYTES_MAX);
                joined.reserve((PREFIX_BYTES + announced).max(first.len() + chunk.len()));
                joined.extend_from_slice(&std::mem::take(&mut first));
            }
            joined.extend_from_slice(&chunk);
        }
        let sent = if joined.is_empty() { &first[..] } else { &joined[..] };
        let Some(len) = announced(sent) else { continue };
        if len > bytes_max {
            return Err(too_large(len, bytes_max));
        }
        if sent.len() > PREFIX_BYTES + len {
            return Err(more_than_one());
        }
    }
    Ok(if joined.is_empty() { first } else { joined.freeze() })
}

fn broken_off(error: impl BodyError) -> Status {
    Status::new(Code::INTERNAL, error.into_error().to_string())
}

/// The length of a message, as its prefix has it.
fn announced(sent: &[u8]) -> Option<usize> {
    let [_, len @ ..] = sent.first_chunk::<PREFIX_BYTES>()?;
    Some(u32::from_be_bytes(*len) as usize)
}

/// Whether a message that was received is packed.
pub fn is_packed(sent: &[u8]) -> bool {
    sent.first() == Some(&1)
}

fn more_than_one() -> Status {
    Status::new(Code::INTERNAL, "more than one message was sent")
}

fn coding_named(name: &str) -> Option<Coding> {
    match name {
        // gRPC's snappy is the framing format.
        "snappy" => Some(Coding::SnappyFramed),
        "gzip" | "zstd" => Coding::named(name),
        _ => None,
    }
}

/// How a server packs its answer: as the request was packed, if the client says that it can unpack that.
pub fn answer_coding(headers: &HeaderMap) -> Option<(Coding, &'static str)> {
    let name = headers.get("grpc-encoding")?.to_str().ok()?;
    let name = *["gzip", "snappy", "zstd"].iter().find(|known| **known == name)?;
    coding_named(name).map(|coding| (coding, name))
}

/// Whether a request is one of gRPC.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    kind.strip_prefix(CONTENT_TYPE.as_bytes()).is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// How long the client waits, if it says so.
pub fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let unit = text.chars().next_back()?;
    let value: u64 = text.strip_suffix(unit)?.parse().ok().filter(|value| *value < 100_000_000)?;
    Some(match unit {
        'H' => Duration::from_secs(value * 3600),
        'M' => Duration::from_secs(value * 60),
        'S' => Duration::from_secs(value),
        'm' => Duration::from_millis(value),
        'u' => Duration::from_micros(value),
        'n' => Duration::from_nanos(value),
        _ => return None,
    })
}

/// The answer of a server.
pub fn answer(outcome: Result<Vec<u8>, Status>, coding: Option<(Coding, &'static str)>) -> Response<ServerBody> {
    let packed = |message: Vec<u8>| {
        let message = vec![Bytes::from(message)];
        let failed = |error: PackError| Status::new(Code::INTERNAL, format!("grpc: error while compressing: {error}"));
        let message = match coding {
            Some((coding, _)) => pack(coding, &message).map_err(failed)?,
            None => message,
        };
        framed(message, coding.is_some())
    };
    let mut response = match outcome.and_then(packed) {
        Err(status) => {
            let mut response = Response::new(empty_body());
            write_status(&status, response.headers_mut());
            response
        }
        Ok(body) => {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let mut frames: Vec<_> = body.chunks().cloned().map(Frame::data).collect();
            frames.push(Frame::trailers(trailers));
            let frames = frames.into_iter().map(Ok::<_, std::convert::Infallible>);
            let body = StreamBody::new(futures_util::stream::iter(frames));
            let mut response = Response::new(body.map_err(|never| match never {}).boxed_unsync());
            if let Some((_, name)) = coding {
                response.headers_mut().insert("grpc-encoding", HeaderValue::from_static(name));
            }
            response
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    headers.insert("grpc-accept-encoding", HeaderValue::from_static("gzip,snappy,zstd"));
    response
}

fn write_status(status: &Status, headers: &mut HeaderMap) {
    headers.insert("grpc-status", HeaderValue::from(status.code.0));
    let end = status.message.floor_char_boundary(MESSAGE_BYTES_MAX);
    if let Ok(message) = HeaderValue::from_str(&percent_encoded(&status.message[..end])) {
        headers.insert("grpc-message", message);
    }
    if !status.details.is_empty()
        && let Ok(details) = HeaderValue::from_str(&STANDARD_NO_PAD.encode(&status.details))
    {
        headers.insert("grpc-status-details-bin", details);
    }
}

fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            // Writing to a string does not fail.
            _ => _ = write!(out, "%{byte:02X}"),
        }
    }
    out
}

fn percent_decoded(text: &[u8]) -> String {
    let digit = |at: usize| text.get(at).and_then(|digit| char::from(*digit).to_digit(16));
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high << 4 | low) as u8);
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap()))
            .collect::<Vec<(http::HeaderName, _)>>()
            .into_iter()
            .collect()
    }

    fn sent(bytes: &[u8]) -> Bytes {
        Bytes::copy_from_slice(bytes)
    }

    #[test]
    fn a_message_whose_length_does_not_fit_is_not_sent() {
        let piece = Bytes::from(vec![0; 1 << 20]);
        let pieces = |bytes: usize| [vec![piece.clone(); bytes >> 20], vec![piece.slice(..bytes % (1 << 20))]].concat();
        let max = SENT_BYTES_MAX as usize;
        assert_eq!(framed(pieces(max), false).unwrap().len_bytes(), (max + PREFIX_BYTES) as u64);
        for bytes in [max + 1, (1 << 32) + 7] {
            let status = framed(pieces(bytes), false).unwrap_err();
            let text = format!("trying to send message larger than max ({bytes} vs. 2147483647)");
            assert_eq!(status, Status::new(Code::RESOURCE_EXHAUSTED, text));
        }
    }

    #[test]
    fn what_is_no_message_is_refused_with_its_code() {
        for (bytes, names, code, text) in [
            (&b""[..], "", Code::INTERNAL, "unexpected EOF"),
            (b"\0\0\0\0\x02x", "", Code::INTERNAL, "unexpected EOF"),
            (b"\0\0\0\0\x01xy", "", Code::INTERNAL, "more than one message was sent"),
            (b"\0\0\0\0\x11", "", Code::RESOURCE_EXHAUSTED, "grpc: received message larger than max (17 vs. 16)"),
            (b"\x02\0\0\0\0", "", Code::INTERNAL, "grpc: received unexpected payload format 2"),
            (b"\x01\0\0\0\0", "identity", Code::INTERNAL, "grpc: compressed flag set with identity or empty encoding"),
            (
                b"\x01\0\0\0\0",
                "br",
                Code::UNIMPLEMENTED,
                "grpc: Decompressor is not installed for grpc-encoding \"br\"",
            ),
            (
                b"\x01\0\0\0\x01x",
                "gzip",
                Code::INTERNAL,
                "grpc: failed to decompress the received message: invalid gzip: unexpected end of file",
            ),
        ] {
            let headers = if names.is_empty() { HeaderMap::new() } else { headers(&[("grpc-encoding", names)]) };
            let error = unframed(sent(bytes), &headers, 16).unwrap_err();
            assert_eq!((error.code, &*error.message), (code, text), "{bytes:?}");
        }
    }

    #[test]
    fn a_bomb_is_refused() {
        let packed = Coding::Gzip.pack(None, [&vec![0; 1 << 20][..]]).unwrap();
        let body = [&[1, 0, 0][..], &(packed.len() as u16).to_be_bytes(), &packed].concat();
        let error = unframed(sent(&body), &headers(&[("grpc-encoding", "gzip")]), 1 << 16).unwrap_err();
        assert_eq!(error.code, Code::RESOURCE_EXHAUSTED);
    }

    #[test]
    fn a_timeout_is_read_in_its_unit() {
        for (text, want) in [
            ("5S", Some(Duration::from_secs(5))),
            ("2H", Some(Duration::from_secs(7200))),
            ("99999999m", Some(Duration::from_millis(99_999_999))),
            ("100000000m", None),
            ("5", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(timeout(&headers(&[("grpc-timeout", text)])), want, "{text}");
        }
    }

    #[test]
    fn only_grpc_is_grpc() {
        for (kind, want) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc; x=y", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            assert_eq!(is_grpc(&headers(&[("content-type", kind)])), want, "{kind}");
        }
    }

    #[test]
    fn a_status_is_read_as_it_was_written() {
        let status =
            Status { code: Code::UNAVAILABLE, message: "50 % full: \u{e9}\n".into(), details: sent(b"\xff\0") };
        let mut headers = HeaderMap::new();
        write_status(&status, &mut headers);
        assert_eq!(headers["grpc-message"], "50 %25 full: %C3%A9%0A");
        assert_eq!(read_status(&headers), Some(Some(status)));
        assert_eq!(Code::UNAVAILABLE.name(), "UNAVAILABLE");
        assert_eq!(Code(99).name(), "UNKNOWN");
    }

    #[tokio::test]
    async fn a_message_that_is_announced_to_be_too_long_is_not_waited_for() {
        let receive = async |pieces: &[&[u8]]| {
            let mut body = Body::from(pieces.iter().map(|piece| sent(piece)).collect::<Vec<_>>());
            super::receive(&mut body, 16).await
        };
        assert_eq!(receive(&[b"\0\0\0", b"\0\x03a", b"bc"]).await.unwrap(), &b"\0\0\0\0\x03abc"[..]);
        assert_eq!(receive(&[]).await.unwrap(), "");
        for pieces in [&[&b"\0\0\0\0\x11"[..]][..], &[b"\0\0", b"\xff\xff\xff"]] {
            assert_eq!(receive(pieces).await.unwrap_err().code, Code::RESOURCE_EXHAUSTED);
        }
        assert_eq!(receive(&[b"\0\0\0\0\x01", b"ab"]).await.unwrap_err(), more_than_one());
    }

    proptest! {
        #[test]
        fn a_message_in_pieces_arrives_whole(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..99), 0..4), packed: bool) {
            let coding = packed.then_some((Coding::Zstd, "zstd"));
            let all = pieces.concat();
            let pieces: Vec<Bytes> = pieces.into_iter().map(Bytes::from).collect();
            let body = framed(coding.map_or_else(|| pieces.clone(), |(coding, _)| pack(coding, &pieces).unwrap()), packed).unwrap();
            let body: Vec<u8> = body.chunks().flat_map(|chunk| chunk.to_vec()).collect();
            let message = unframed(body.into(), &headers(&[("grpc-encoding", "zstd")]), 1000);
            prop_assert_eq!(message.unwrap(), all);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, text: Vec<u8>) {
            let _ = unframed(bytes.into(), &headers(&[("grpc-encoding", "gzip")]), 1 << 16);
            let _ = percent_decoded(&text);
        }

        #[test]
        fn a_text_survives_the_header(text in "\\PC{0,60}") {
            prop_assert_eq!(percent_decoded(percent_encoded(&text).as_bytes()), text);
        }
    }
}
