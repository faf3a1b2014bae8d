//! One request to a target, and the reading of its answer.

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use corten_net::{Body, Client};
use corten_wire::exposition::TextSink;
use corten_wire::nhcb::NhcbSink;
use corten_wire::open_metrics::OpenMetricsParser;
use corten_wire::protobuf_exposition::{ProtobufOptions, ProtobufParser};
use corten_wire::text::TextParser;
use flate2::write::MultiGzDecoder;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderValue, Request, StatusCode, Uri};

use super::cache::{ExpositionError, SeriesCache};
use super::protocol::Protocol;

/// What a request needs beside its URL.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FetchSettings {
    /// The `Accept` header.
    pub(crate) accept: HeaderValue,
    /// Whether to ask for compression.
    pub(crate) compression: bool,
    /// What an answer without a known type is; nothing makes it an error.
    pub(crate) fallback: Option<Protocol>,
    /// The most bytes of a body once it is decompressed; 0 is the limit of [`BODY_BYTES_MAX`].
    pub(crate) body_bytes_max: u64,
    /// Whether classic series of native histograms are kept.
    pub(crate) classic_histograms: bool,
    /// Whether native histograms are read.
    pub(crate) native_histograms: bool,
    /// Whether classic histograms become native ones with their own bounds.
    pub(crate) convert_to_nhcb: bool,
    /// Whether start times are read.
    pub(crate) start_timestamps: bool,
}

/// The most bytes of a body where the user gives no limit. A body is never held whole; what it makes is.
pub(crate) const BODY_BYTES_MAX: u64 = 4 << 30;

/// Compressed bytes are decompressed in pieces of this size, so that what comes out of one stays small whatever the
/// ratio.
const COMPRESSED_PIECE_BYTES: usize = 1 << 10;

/// After so many bytes that came out of compressed ones, others get their turn, and the limit on time is looked at: what is
/// compressed well can keep a thread busy for seconds with what one read brought.
const TURN_BYTES_MAX: usize = 256 << 10;

/// Why a scrape failed.
#[derive(Clone, Debug)]
pub(crate) enum ScrapeError {
    /// The target did not answer as it should.
    Request(String),
    /// The body is longer than the limit.
    BodySize,
    /// What it exposes is not acceptable.
    Exposition(ExpositionError),
    /// No request was made, because there are more targets than the limit.
    TargetLimit(String),
}

impl std::fmt::Display for ScrapeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ScrapeError::Request(message) | ScrapeError::TargetLimit(message) => f.write_str(message),
            ScrapeError::BodySize => f.write_str("body size limit exceeded"),
            ScrapeError::Exposition(error) => error.fmt(f),
        }
    }
}

impl From<ExpositionError> for ScrapeError {
    fn from(error: ExpositionError) -> Self {
        ScrapeError::Exposition(error)
    }
}

impl From<corten_net::Error> for ScrapeError {
    fn from(error: corten_net::Error) -> Self {
        ScrapeError::Request(error.to_string())
    }
}

/// Scrapes a target into its cache. `body_bytes` is how long the body was as far as it was read.
pub(crate) async fn fetch(
    client: &Client,
    uri: &Uri,
    settings: &FetchSettings,
    timeout: Duration,
    cache: &mut SeriesCache,
    body_bytes: &mut u64,
) -> Result<(), ScrapeError> {
    let encoding = if settings.compression { "gzip" } else { "identity" };
    let request = Request::get(uri)
        .header(ACCEPT, &settings.accept)
        .header(ACCEPT_ENCODING, encoding)
        .header("X-Prometheus-Scrape-Timeout-Seconds", timeout.as_secs_f64().to_string())
        .body(Body::empty())
        .map_err(|error| ScrapeError::Request(error.to_string()))?;
    let response = client.request(request).await?;
    let status = response.status();
    if status != StatusCode::OK {
        let reason = status.canonical_reason().unwrap_or_default();
        return Err(ScrapeError::Request(format!("server returned HTTP status {} {reason}", status.as_u16())));
    }
    let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let protocol = Protocol::of_content_type(content_type).or(settings.fallback);
    let unknown = || {
        ScrapeError::Request(if content_type.is_empty() {
            "non-compliant scrape target sending blank Content-Type and no fallback_scrape_protocol specified for target"
                .to_owned()
        } else {
            format!(
                "received unsupported Content-Type {content_type:?} and no fallback_scrape_protocol specified for target"
            )
        })
    };
    let compressed = response.headers().get(CONTENT_ENCODING).is_some_and(|value| value == "gzip");
    let Some(protocol) = protocol else {
        let unknown = unknown();
        let mut body = response.into_body();
        // An empty body is the same in every format.
        while let Some(chunk) = body.chunk().await? {
            if !chunk.is_empty() {
                return Err(unknown);
            }
        }
        return Ok(());
    };
    let mut body = response.into_body();
    let mut reader = BodyReader {
        decoder: compressed.then(|| MultiGzDecoder::new(Vec::new())),
        left: if settings.body_bytes_max > 0 { settings.body_bytes_max } else { BODY_BYTES_MAX },
        parser: BodyParser::new(protocol, settings),
    };
    // The parser of protocol buffers converts by itself, because it sees histograms whole.
    let result = if settings.convert_to_nhcb && protocol != Protocol::Protobuf {
        let mut sink = NhcbSink::new(cache, settings.classic_histograms);
        let read = read_body(&mut body, &mut reader, &mut sink, body_bytes).await;
        let tally = sink.tally();
        cache.set_nhcb(tally);
        read
    } else {
        read_body(&mut body, &mut reader, cache, body_bytes).await
    };
    if result.is_err() {
        // The rest of the body is of no use; reading it would keep the connection, and the next request opens another.
        drop(body);
    }
    result
}

async fn read_body<S: TextSink<Error = ExpositionError>>(
    body: &mut corten_net::ResponseBody,
    reader: &mut BodyReader,
    sink: &mut S,
    body_bytes: &mut u64,
) -> Result<(), ScrapeError> {
    while let Some(chunk) = body.chunk().await? {
        reader.take(&chunk, sink, body_bytes).await?;
    }
    reader.finish(sink, body_bytes)
}

struct BodyReader {
    decoder: Option<MultiGzDecoder<Vec<u8>>>,
    /// How many more bytes the body may have.
    left: u64,
    parser: BodyParser,
}

impl BodyReader {
    async fn take<S: TextSink<Error = ExpositionError>>(
        &mut self,
        chunk: &Bytes,
        sink: &mut S,
        body_bytes: &mut u64,
    ) -> Result<(), ScrapeError> {
        let Some(mut decoder) = self.decoder.take() else { return self.parse(chunk, sink, body_bytes) };
        let mut turn_bytes = 0;
        for piece in chunk.chunks(COMPRESSED_PIECE_BYTES) {
            decoder.write_all(piece).map_err(|error| ScrapeError::Request(format!("gzip: {error}")))?;
            let mut plain = std::mem::take(decoder.get_mut());
            for plain in plain.chunks(TURN_BYTES_MAX) {
                self.parse(plain, sink, body_bytes)?;
                turn_bytes += plain.len();
                if turn_bytes >= TURN_BYTES_MAX {
                    tokio::task::yield_now().await;
                    turn_bytes = 0;
                }
            }
            plain.clear();
            *decoder.get_mut() = plain;
        }
        self.decoder = Some(decoder);
        Ok(())
    }

    fn finish<S: TextSink<Error = ExpositionError>>(
        &mut self,
        sink: &mut S,
        body_bytes: &mut u64,
    ) -> Result<(), ScrapeError> {
        if let Some(decoder) = self.decoder.take() {
            let rest = decoder.finish().map_err(|error| ScrapeError::Request(format!("gzip: {error}")))?;
            self.parse(&rest, sink, body_bytes)?;
        }
        Ok(self.parser.finish(sink)?)
    }

    fn parse<S: TextSink<Error = ExpositionError>>(
        &mut self,
        plain: &[u8],
        sink: &mut S,
        body_bytes: &mut u64,
    ) -> Result<(), ScrapeError> {
        let len = plain.len() as u64;
        // A body of exactly the limit is too long already, as it is for the reference.
        if len >= self.left {
            return Err(ScrapeError::BodySize);
        }
        self.left -= len;
        *body_bytes += len;
        Ok(self.parser.feed(plain, sink)?)
    }
}

enum BodyParser {
    Text(TextParser),
    OpenMetrics(OpenMetricsParser),
    Protobuf(Box<ProtobufParser>),
}

impl BodyParser {
    fn new(protocol: Protocol, settings: &FetchSettings) -> Self {
        match protocol {
            Protocol::Protobuf => BodyParser::Protobuf(Box::new(ProtobufParser::new(ProtobufOptions {
                native: settings.native_histograms,
                keep_classic: settings.classic_histograms,
                convert_classic: settings.convert_to_nhcb,
            }))),
            Protocol::OpenMetrics100 | Protocol::OpenMetrics001 => {
                BodyParser::OpenMetrics(OpenMetricsParser::new(settings.start_timestamps))
            }
            Protocol::Text100 | Protocol::Text004 => BodyParser::Text(TextParser::new()),
        }
    }

    fn feed<S: TextSink>(&mut self, piece: &[u8], sink: &mut S) -> Result<(), S::Error> {
        match self {
            BodyParser::Text(parser) => parser.feed(piece, sink),
            BodyParser::OpenMetrics(parser) => parser.feed(piece, sink),
            BodyParser::Protobuf(parser) => parser.feed(piece, sink),
        }
    }

    fn finish<S: TextSink>(&mut self, sink: &mut S) -> Result<(), S::Error> {
        match self {
            BodyParser::Text(parser) => parser.finish(sink),
            BodyParser::OpenMetrics(parser) => parser.finish(sink),
            BodyParser::Protobuf(parser) => parser.finish(sink),
        }
    }
}
