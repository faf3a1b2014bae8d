//! `otlpsink`: takes OTLP over HTTP and gRPC, and remote write 1, and proves that nothing is missing.
//!
//! A log record and a span carry their number as their time (see `message`): one that is lost or comes twice shows. Metrics
//! are counted by their points; of the sums that are called `calls` the last value of each series is kept.

use std::{
    collections::HashMap,
    convert::Infallible,
    io::Read as _,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use flate2::read::GzDecoder;
use http_body_util::{BodyExt, Full, Limited, combinators::BoxBody};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use super::message::{Signal, TIME_OF_FIRST_NS};
use crate::{
    args::Args,
    error::{Context, Result},
    sink::{BODY_BYTES_MAX, decompress, lock},
    target::Listening,
    wire::{self, Fields, Value, WireError},
};

/// The highest number of an item; others count as damaged.
const NUMBER_MAX: u64 = 1 << 32;

/// Series of which the last value is kept; others are not.
const SERIES_MAX: usize = 1 << 20;

/// The settings of the command.
#[derive(Debug)]
pub(crate) struct Settings {
    listen: String,
}

impl Settings {
    /// Takes the settings from the command line.
    pub(crate) fn take(args: &mut Args) -> Result<Self> {
        Ok(Self { listen: args.text("--listen")?.unwrap_or_else(|| "127.0.0.1:0".to_owned()) })
    }
}

/// What `GET /stats` answers; all counts since the start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Stats {
    /// Requests that were taken.
    pub(crate) requests: u64,
    /// Requests that could not be read.
    pub(crate) malformed: u64,
    /// Why the last one could not.
    pub(crate) malformed_last: String,
    /// Bytes of bodies as they came.
    pub(crate) wire_bytes: u64,
    /// Bytes of the requests after decompression.
    pub(crate) decoded_bytes: u64,
    /// Different log records and spans.
    pub(crate) items: u64,
    /// Log records and spans that came again.
    pub(crate) duplicate: u64,
    /// Log records and spans without a number.
    pub(crate) damaged: u64,
    /// Log records with the attribute that a renamed one has.
    pub(crate) renamed: u64,
    /// Points of metrics, of whatever type.
    pub(crate) points: u64,
    /// The sum over the last values of all series that are called `calls`.
    pub(crate) calls: u64,
    /// Samples of remote write.
    pub(crate) samples: u64,
}

/// The name that the attribute `http.route` gets where one is renamed.
pub(crate) const RENAMED: &str = "url.template";

#[derive(Debug, Default)]
struct Counts {
    stats: Stats,
    /// A bit for each number that came.
    seen: Vec<u64>,
    calls: HashMap<Vec<u8>, u64>,
}

/// What came over which protocol.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Otlp(Signal),
    RemoteWrite,
}

impl Kind {
    fn of(path: &str) -> Option<(Self, bool)> {
        for signal in [Signal::Logs, Signal::Traces, Signal::Metrics] {
            if path == signal.method() {
                return Some((Kind::Otlp(signal), true));
            }
            if path.strip_prefix("/v1/") == Some(signal.name()) {
                return Some((Kind::Otlp(signal), false));
            }
        }
        (path == "/api/v1/write").then_some((Kind::RemoteWrite, false))
    }
}

impl Counts {
    fn request(&mut self, kind: Kind, request: &[u8], wire_bytes: usize) -> std::result::Result<(), WireError> {
        match kind {
            Kind::Otlp(signal) => self.otlp(signal, request)?,
            Kind::RemoteWrite => {
                let mut samples = 0;
                wire::walk(request, |series| series.contents(|_| samples += 1).map(drop))?;
                self.stats.samples += samples;
            }
        }
        self.stats.requests += 1;
        self.stats.wire_bytes += wire_bytes as u64;
        self.stats.decoded_bytes += request.len() as u64;
        Ok(())
    }

    /// Resources (1), their scopes (2), and what those recorded (2), in all three messages.
    fn otlp(&mut self, signal: Signal, request: &[u8]) -> std::result::Result<(), WireError> {
        for of in parts(request, 1) {
            let of = of?;
            let resource = parts(of, 1).next().transpose()?.unwrap_or_default();
            for scope in parts(of, 2) {
                for item in parts(scope?, 2) {
                    match signal {
                        Signal::Logs => self.record(item?, 1, 6)?,
                        Signal::Traces => self.record(item?, 7, 9)?,
                        Signal::Metrics => self.metric(resource, item?)?,
                    }
                }
            }
        }
        Ok(())
    }

    /// Counts a log record or a span, whose time and whose attributes have those fields.
    fn record(&mut self, record: &[u8], time: u64, attributes: u64) -> std::result::Result<(), WireError> {
        let mut number = None;
        for field in Fields::new(record) {
            match field? {
                (field, Value::Fixed64(ns)) if field == time => number = ns.checked_sub(TIME_OF_FIRST_NS),
                (field, Value::Bytes(attribute)) if field == attributes => {
                    let name = parts(attribute, 1).next().transpose()?;
                    self.stats.renamed += u64::from(name == Some(RENAMED.as_bytes()));
                }
                _ => {}
            }
        }
        let Some(number) = number.filter(|number| *number < NUMBER_MAX) else {
            self.stats.damaged += 1;
            return Ok(());
        };
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        if self.seen[word] & bit == 0 {
            self.seen[word] |= bit;
            self.stats.items += 1;
        } else {
            self.stats.duplicate += 1;
        }
        Ok(())
    }

    fn metric(&mut self, resource: &[u8], metric: &[u8]) -> std::result::Result<(), WireError> {
        let name = parts(metric, 1).next().transpose()?.unwrap_or_default();
        let calls = name.ends_with(b".calls");
        for field in Fields::new(metric) {
            // Gauge, sum, histogram, exponential histogram and summary; each has its points in field 1.
            let (5 | 7 | 9 | 10 | 11, Value::Bytes(data)) = field? else { continue };
            for point in parts(data, 1) {
                let point = point?;
                self.stats.points += 1;
                if calls {
                    self.call(resource, point)?;
                }
            }
        }
        Ok(())
    }

    /// Keeps the last value of a series, which is its resource and the attributes of the point.
    fn call(&mut self, resource: &[u8], point: &[u8]) -> std::result::Result<(), WireError> {
        let mut series = resource.to_vec();
        let mut value = 0;
        for field in Fields::new(point) {
            match field? {
                (6, Value::Fixed64(bits)) => value = bits,
                (7, Value::Bytes(attribute)) => series.extend_from_slice(attribute),
                _ => {}
            }
        }
        if self.calls.len() < SERIES_MAX || self.calls.contains_key(&series) {
            let last = self.calls.insert(series, value).unwrap_or_default();
            self.stats.calls = self.stats.calls.wrapping_sub(last).wrapping_add(value);
        }
        Ok(())
    }
}

/// The messages in the field of that number.
fn parts(message: &[u8], number: u64) -> impl Iterator<Item = std::result::Result<&[u8], WireError>> {
    Fields::new(message).filter_map(move |field| match field {
        Ok((field, Value::Bytes(part))) if field == number => Some(Ok(part)),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    })
}

type Answer = Response<BoxBody<Bytes, Infallible>>;

fn answer(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()).boxed());
    *answer.status_mut() = status;
    answer
}

/// The answer to a call of gRPC that succeeded: an empty message, and the status behind it.
fn grpc_answer() -> Answer {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(Bytes::from_static(&[0; 5])).with_trailers(async move { Some(Ok(trailers)) });
    let mut answer = Response::new(body.boxed());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    answer
}

/// Serves until the process ends; `announce` is told where.
pub(crate) async fn run(settings: Settings, announce: impl FnOnce(&Listening) -> Result<()>) -> Result<()> {
    let listener =
        TcpListener::bind(&settings.listen).await.context(format!("cannot listen on {}", settings.listen))?;
    announce(&Listening { address: listener.local_addr().context("cannot find the port")? })?;
    let counts = Arc::new(Mutex::new(Counts::default()));
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        // Without it, small answers would wait for acknowledgements; a failure costs only time.
        let _ = stream.set_nodelay(true);
        let counts = Arc::clone(&counts);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let counts = Arc::clone(&counts);
                async move { Ok::<_, Infallible>(serve(request, &counts).await) }
            });
            // A connection that breaks is the client's affair: it shows as an item that is missing.
            let mut server = auto::Builder::new(TokioExecutor::new());
            // Requests of hundreds of kilobytes come in one piece.
            server.http2().initial_stream_window_size(4 << 20).initial_connection_window_size(16 << 20);
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn serve(request: Request<Incoming>, counts: &Mutex<Counts>) -> Answer {
    if request.uri().path() == "/stats" {
        let stats = lock(counts).stats.clone();
        return answer(StatusCode::OK, serde_json::to_vec(&stats).unwrap_or_default());
    }
    let Some((kind, grpc)) = Kind::of(request.uri().path()) else {
        return answer(StatusCode::NOT_FOUND, "no such path");
    };
    let (head, body) = request.into_parts();
    let taken = async {
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|error| error.to_string())?.to_bytes();
        let request = unpacked(kind, grpc, &head.headers, &body)?;
        lock(counts).request(kind, &request, body.len()).map_err(|error| error.to_string())
    };
    match taken.await {
        Ok(()) if grpc => grpc_answer(),
        Ok(()) => answer(StatusCode::OK, ""),
        Err(error) => {
            let stats = &mut lock(counts).stats;
            stats.malformed += 1;
            stats.malformed_last.clone_from(&error);
            answer(StatusCode::BAD_REQUEST, error)
        }
    }
}

/// The message of a body.
fn unpacked(kind: Kind, grpc: bool, headers: &HeaderMap, body: &[u8]) -> std::result::Result<Vec<u8>, String> {
    let named = |header: &str| headers.get(header).and_then(|value| value.to_str().ok()).unwrap_or("identity");
    if kind == Kind::RemoteWrite {
        return decompress(body);
    }
    let (packed, coding) = match grpc {
        false => (body, named(CONTENT_ENCODING.as_str())),
        true => {
            let (&[flag, a, b, c, d], message) = body.split_first_chunk().ok_or("a call without a message")?;
            if u32::from_be_bytes([a, b, c, d]) as usize != message.len() {
                return Err("a call that is not one message".to_owned());
            }
            (message, if flag == 1 { named("grpc-encoding") } else { "identity" })
        }
    };
    match coding {
        "identity" => Ok(packed.to_vec()),
        "gzip" => {
            let mut out = Vec::new();
            GzDecoder::new(packed)
                .take(BODY_BYTES_MAX as u64)
                .read_to_end(&mut out)
                .map_err(|error| error.to_string())?;
            Ok(out)
        }
        other => Err(format!("cannot read {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;
    use crate::otlp::message::{LOG_BYTES, Template};

    #[test]
    fn each_log_record_counts_once() {
        let template = Template::new(Signal::Logs, 100, 3, 7);
        let mut counts = Counts::default();
        counts.request(Kind::Otlp(Signal::Logs), &template.request(0, 0), 9).unwrap();
        counts.request(Kind::Otlp(Signal::Logs), &template.request(50, 0), 9).unwrap();
        let stats = &counts.stats;
        assert_eq!((stats.items, stats.duplicate, stats.damaged, stats.wire_bytes), (150, 50, 0, 18));
    }

    #[test]
    fn log_records_are_as_long_as_is_said() {
        let request = Template::new(Signal::Logs, 50, 0, 1).request(0, 0);
        let of = parts(&request, 1).next().unwrap().unwrap();
        let scope = parts(of, 2).next().unwrap().unwrap();
        assert!(parts(scope, 2).all(|record| record.unwrap().len() == LOG_BYTES));
        assert_eq!(parts(scope, 2).count(), 50);
    }

    #[test]
    fn spans_and_points_are_counted() {
        let mut counts = Counts::default();
        let spans = Template::new(Signal::Traces, 30, 0, 1).request(1000, 0);
        counts.request(Kind::Otlp(Signal::Traces), &spans, 0).unwrap();
        let points = Template::new(Signal::Metrics, 50, 0, 1).request(0, 5);
        counts.request(Kind::Otlp(Signal::Metrics), &points, 0).unwrap();
        assert_eq!((counts.stats.items, counts.stats.points, counts.stats.damaged), (30, 50, 0));
    }

    #[test]
    fn a_body_is_read_in_each_form() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"message").unwrap();
        let packed = gzip.finish().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        let kind = Kind::Otlp(Signal::Logs);
        assert_eq!(unpacked(kind, false, &headers, &packed).unwrap(), b"message");
        assert_eq!(unpacked(kind, true, &headers, b"\0\0\0\0\x02ab").unwrap(), b"ab");
        assert!(unpacked(kind, true, &headers, b"\0\0\0\0\x03ab").is_err());
    }

    proptest! {
        #[test]
        fn nothing_that_comes_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut counts = Counts::default();
            for kind in [Kind::Otlp(Signal::Logs), Kind::Otlp(Signal::Traces), Kind::Otlp(Signal::Metrics), Kind::RemoteWrite] {
                let _ = counts.request(kind, &bytes, 0);
                let _ = unpacked(kind, true, &HeaderMap::new(), &bytes);
            }
        }
    }
}
