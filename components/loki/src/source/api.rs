//! `loki.source.api`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use corten_component::listen::{self, Exchange, ListenSettings, Report, RequestMetricNames};
use corten_component::metrics::Counter;
use corten_component::size::ByteSize;
use corten_component::{Component, Context, Error, Task, request_metric_names};
use corten_config::Arguments;
use corten_net::{ReceiverHttp, ServerBody, media_type};
use corten_signal::logs::{BufferId, Span, TENANT_LABEL};
use corten_signal::relabel::{NameScheme, RelabelRules};
use corten_signal::{Entries, EntriesBuilder, Fanout, LabelsBuilder, Logs, Receiver, Stream};
use corten_wire::snappy::{SnappyError, decompress};
use corten_wire::{loki_json, loki_push};
use flate2::read::{DeflateDecoder, MultiGzDecoder};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use parking_lot::Mutex;

use super::grpc::{self, GrpcArguments, GrpcServer};
use super::http::{Answer, Door, TENANT_HEADER, inflate, now_ns, tenant, text};
use super::{OnDrop, SourceLabels};
use crate::dropped::{Drops, Why};
use crate::forward::fanout;

/// Receives log entries that clients push over HTTP, and sends them on.
///
/// - `POST /loki/api/v1/push` and `/api/v1/push` take the requests of Loki's push protocol, as protocol buffers or JSON.
/// - `POST /loki/api/v1/raw` and `/api/v1/raw` take text, in which each line is an entry. Such entries have the labels of
///   `labels` and no others; relabelling rules, tenants and times do not apply.
/// - `GET /ready` says that the component runs.
///
/// Requests are answered when all receivers have the entries safe, so that a client that sends again what was not answered
/// loses nothing; where a stage on the way keeps entries for a while, when they have reached it.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct ApiArguments {
    /// Where to send the entries.
    forward_to: Vec<Receiver<Logs>>,
    /// Labels to set on all entries.
    #[arg(optional)]
    labels: BTreeMap<String, String>,
    /// Rules that rewrite the labels of pushed streams, as a `loki.relabel` component exports them.
    #[arg(optional)]
    relabel_rules: RelabelRules,
    /// Whether entries keep the time that they come with; otherwise, and where they come without one, they get the time at
    /// which they are received.
    #[arg(default = false)]
    use_incoming_timestamp: bool,
    /// The largest request, before as well as after decompression.
    #[arg(default = "100MiB")]
    max_send_message_size: ByteSize,
    /// How long requests that are under way may go on when the server stops.
    #[arg(default = "30s")]
    graceful_shutdown_timeout: Duration,
    /// Where and how to listen.
    #[block]
    http: Option<ReceiverHttp>,
    /// Where and how to listen for gRPC, over which nothing is received.
    #[block]
    grpc: Option<GrpcArguments>,
}

/// What the metrics of the server are called.
const NAMES: RequestMetricNames = request_metric_names!("loki_source_api");

/// The component.
pub struct Api {
    shared: Arc<Shared>,
    server: Task,
    report: Report,
    grpc: Option<GrpcServer>,
}

/// What is to be put in place.
pub struct Prepared {
    arguments: ApiArguments,
    labels: SourceLabels,
    raw: Stream,
    listen: ListenSettings,
    grpc: Option<ListenSettings>,
}

impl Component for Api {
    const NAME: &'static str = "loki.source.api";
    type Arguments = ApiArguments;
    type Exports = ();
    type Prepared = Prepared;

    async fn prepare(
        arguments: ApiArguments,
        _: &Context<Self>,
        current: Option<&Self>,
    ) -> Result<(Prepared, ()), Error> {
        let labels = SourceLabels::new(&arguments.relabel_rules, OnDrop::DropEntry, false)?;
        let raw = Stream::of(arguments.labels.iter().map(|(name, value)| (&**name, &**value)));
        let raw = raw.map_err(|error| Error::new(format!("labels: {error}")))?;
        let before = current.map(|current| current.shared.door.listening.settings());
        let http = arguments.http.clone().unwrap_or_default();
        let listen = ListenSettings::prepare(&http, arguments.graceful_shutdown_timeout, before.as_deref()).await?;
        let before = current.and_then(|current| current.grpc.as_ref());
        let grpc = grpc::prepare(arguments.grpc.as_ref(), arguments.graceful_shutdown_timeout, before).await?;
        Ok((Prepared { arguments, labels, raw, listen, grpc }, ()))
    }

    fn commit(current: Option<Self>, prepared: Prepared, cx: &Context<Self>) -> Self {
        let Prepared { arguments, labels, raw, listen, grpc } = prepared;
        let bytes_max = match arguments.max_send_message_size.bytes() {
            0 => MESSAGE_BYTES_DEFAULT,
            bytes => usize::try_from(bytes).unwrap_or(usize::MAX),
        };
        let settings = Arc::new(Settings {
            forward: fanout(cx, arguments.forward_to),
            reading: Arc::new(Reading {
                labels,
                fixed: arguments.labels.into_iter().collect(),
                raw,
                use_incoming_timestamp: arguments.use_incoming_timestamp,
                bytes_max,
            }),
        });
        if let Some(mut current) = current {
            *current.shared.settings.lock() = settings;
            current.shared.door.set_body_bytes_max(bytes_max);
            current.shared.door.listening.set(listen);
            current.grpc = GrpcServer::commit(current.grpc.take(), grpc, NAMES, &current.report, cx);
            return current;
        }
        let door = Door::new(
            listen,
            cx.metrics(),
            cx.ledger(),
            NAMES,
            cx.logger().clone(),
            "listening for pushed log entries",
        );
        door.set_body_bytes_max(bytes_max);
        let written = cx.metrics().counter("loki_source_api_entries_written", "Total number of entries written.");
        cx.show_debug_info(door.debug_info());
        let shared = Arc::new(Shared { settings: Mutex::new(settings), door, written });
        let [report, of_grpc] = listen::reports(cx);
        let grpc = GrpcServer::commit(None, grpc, NAMES, &of_grpc, cx);
        let serving = Arc::clone(&shared);
        let server = cx.spawn("server", move |stop| {
            let shared = Arc::clone(&serving);
            let handler = move |request| {
                let shared = Arc::clone(&shared);
                async move { shared.handle(request).await }
            };
            Arc::clone(&serving.door.listening).run(Arc::new(handler), Arc::clone(&report), stop)
        });
        Api { shared, server, report: of_grpc, grpc }
    }

    async fn drain(self, _: &Context<Self>) {
        // Requests under way are answered, within a limit; whoever connects is refused.
        self.server.stop().await;
        if let Some(grpc) = self.grpc {
            grpc.drain().await;
        }
    }
}

/// How many entries a request may have: far more than there is room for in one of the usual size, unless it is all heads.
const REQUEST_ENTRIES_MAX: usize = 8 << 20;

/// The limit where it is written as 0.
const MESSAGE_BYTES_DEFAULT: usize = 100 << 20;

/// What requests are taken with, until other arguments come.
struct Settings {
    forward: Fanout<Logs>,
    reading: Arc<Reading>,
}

/// How requests are read.
struct Reading {
    labels: SourceLabels,
    fixed: Vec<(String, String)>,
    /// The stream of lines of plain text.
    raw: Stream,
    use_incoming_timestamp: bool,
    bytes_max: usize,
}

/// What all requests share, over all changes of the arguments.
struct Shared {
    settings: Mutex<Arc<Settings>>,
    door: Door,
    written: Counter,
}

/// Where a request goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Push,
    Raw,
    Ready,
}

/// Paths, what they lead to and with which method, and how metrics call them.
const ROUTES: [(&str, Route, Method, &str); 5] = [
    ("/api/v1/push", Route::Push, Method::POST, "api_v1_push"),
    ("/loki/api/v1/push", Route::Push, Method::POST, "loki_api_v1_push"),
    ("/api/v1/raw", Route::Raw, Method::POST, "api_v1_raw"),
    ("/loki/api/v1/raw", Route::Raw, Method::POST, "loki_api_v1_raw"),
    ("/ready", Route::Ready, Method::GET, "ready"),
];

impl Shared {
    async fn handle(&self, request: Request<Incoming>) -> Response<ServerBody> {
        let found = ROUTES.iter().find(|(path, ..)| *path == request.uri().path());
        let allowed = found.filter(|(_, _, method, _)| method == request.method());
        let mut exchange = self.door.begin(request, |_| allowed.map_or("other", |(_, _, _, name)| name));
        let answer = match (found, allowed) {
            (_, Some((_, Route::Ready, ..))) => Answer::new(StatusCode::OK, "ready"),
            (_, Some((_, route, ..))) => self.take(*route, &mut exchange).await.unwrap_or_else(|answer| answer),
            (Some(_), None) => Answer::wrong_method(),
            (None, None) => Answer::not_found(),
        };
        if allowed.is_some() && !answer.status.is_success() {
            self.door.complain(&exchange.parts, answer.status, &answer.text);
        }
        exchange.finish(answer.into_response()).await
    }

    /// Takes what a request brings.
    async fn take(&self, route: Route, exchange: &mut Exchange) -> Result<Answer, Answer> {
        let settings = Arc::clone(&*self.settings.lock());
        let reading = Arc::clone(&settings.reading);
        let push = match route {
            Route::Raw => None,
            _ => Some(Push::of(&exchange.parts.headers)?),
        };
        let body = self.door.body(exchange, reading.bytes_max).await?;
        let read = self.door.read(body.len(), move || match push {
            Some(push) => reading.push(body, &push),
            None => reading.raw(body),
        });
        let Read { batches, bad, mut drops } = read.await?;
        self.door.hold(&mut exchange.body.held, &batches)?;
        let entries = batches.iter().map(Entries::len).sum::<usize>() as u64;
        self.door.deliver(&settings.forward, batches).await?;
        self.written.add(entries);
        drops.count(&self.door.row, settings.reading.labels.rules());
        // What was good of a request is taken also where something else of it was not.
        Ok(bad.map_or_else(|| Answer::new(StatusCode::NO_CONTENT, ""), Answer::bad))
    }
}

/// What the headers of a push say of its body.
struct Push {
    encoding: Encoding,
    is_json: bool,
    tenant: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    None,
    Gzip,
    Deflate,
}

impl Push {
    fn of(headers: &HeaderMap) -> Result<Self, Answer> {
        let encoding = match &*text(headers, &header::CONTENT_ENCODING) {
            // What is protocol buffers is compressed with snappy in any case, and what is JSON is not.
            "" | "snappy" => Encoding::None,
            "gzip" => Encoding::Gzip,
            "deflate" => Encoding::Deflate,
            other => return Err(Answer::bad(format!("Content-Encoding {other:?} not supported"))),
        };
        let media_type = media_type(&text(headers, &header::CONTENT_TYPE)).map_err(Answer::bad)?;
        let tenant = tenant(&text(headers, &TENANT_HEADER)).map(str::to_owned);
        Ok(Push { encoding, is_json: media_type == "application/json", tenant })
    }
}

/// What was read of a request.
#[derive(Debug)]
struct Read {
    batches: Vec<Entries>,
    /// Why a stream of it was not taken.
    bad: Option<String>,
    /// What was not taken of it.
    drops: Drops,
}

/// Collects the entries of one request.
struct Collect<'a> {
    reading: &'a Reading,
    body: Bytes,
    builder: EntriesBuilder,
    shared: Option<BufferId>,
    batches: Vec<Entries>,
    drops: Drops,
    now_ns: i64,
    /// How many more entries there may be, and whether there were too many.
    left: usize,
    is_over: bool,
}

impl<'a> Collect<'a> {
    fn new(reading: &'a Reading, body: Bytes) -> Self {
        let mut builder = EntriesBuilder::new();
        let shared = builder.share(&body);
        Collect {
            reading,
            body,
            builder,
            shared,
            batches: Vec::new(),
            drops: Drops::default(),
            now_ns: now_ns(),
            left: REQUEST_ENTRIES_MAX,
            is_over: false,
        }
    }

    /// The place of a text, which lies in the body mostly.
    fn span(&mut self, text: &[u8]) -> Span {
        let start = (text.as_ptr() as usize).wrapping_sub(self.body.as_ptr() as usize);
        match self.shared {
            Some(buffer) if start <= self.body.len() && text.len() <= self.body.len() - start => {
                self.builder.span(buffer, start..start + text.len())
            }
            _ => self.builder.own(text),
        }
    }

    fn push<'t>(
        &mut self,
        stream: &Stream,
        timestamp_ns: Option<i64>,
        line: &[u8],
        metadata: impl Iterator<Item = (&'t [u8], &'t [u8])>,
    ) {
        if self.left == 0 {
            self.is_over = true;
            return;
        }
        self.left -= 1;
        if self.builder.is_full() {
            self.finish_batch();
        }
        let part = self.builder.stream(stream);
        let line = self.span(line);
        let timestamp_ns = timestamp_ns.filter(|_| self.reading.use_incoming_timestamp);
        self.builder.push(part, timestamp_ns.unwrap_or(self.now_ns), line);
        for (name, value) in metadata {
            let (name, value) = (self.span(name), self.span(value));
            self.builder.push_metadata(name, value);
        }
    }

    fn finish_batch(&mut self) {
        self.batches.push(self.builder.finish(self.now_ns / 1_000_000));
        self.shared = self.builder.share(&self.body);
    }

    fn finish(mut self, bad: Option<String>) -> Result<Read, Answer> {
        if self.is_over {
            let text = format!("request has more than {REQUEST_ENTRIES_MAX} entries");
            return Err(Answer::new(StatusCode::PAYLOAD_TOO_LARGE, text));
        }
        if !self.builder.is_empty() {
            self.finish_batch();
        }
        Ok(Read { batches: self.batches, bad, drops: self.drops })
    }
}

/// What is compressed, and why there is no more of it if it is broken.
fn inflated(from: impl std::io::Read, bytes_max: usize) -> Result<(Bytes, Option<Answer>), Answer> {
    inflate(from, bytes_max).map(|(body, broken)| (body.into(), broken))
}

impl Reading {
    /// Lines of plain text.
    fn raw(&self, body: Bytes) -> Result<Read, Answer> {
        let mut collect = Collect::new(self, body.clone());
        for line in body.split(|b| *b == b'\n') {
            let end = line.iter().rposition(|b| *b != b'\r').map_or(0, |at| at + 1);
            if end > 0 {
                let now = now_ns();
                collect.now_ns = now;
                collect.push(&self.raw, Some(now), &line[..end], std::iter::empty());
            }
        }
        collect.finish(None)
    }

    fn push(&self, body: Bytes, push: &Push) -> Result<Read, Answer> {
        let (body, broken) = match push.encoding {
            Encoding::None => (body, None),
            Encoding::Gzip => inflated(MultiGzDecoder::new(&body[..]), self.bytes_max)?,
            Encoding::Deflate => inflated(DeflateDecoder::new(&body[..]), self.bytes_max)?,
        };
        match broken {
            None if !push.is_json => self.protobuf(&body, push),
            None => self.json(body, push),
            Some(broken) if push.is_json => self.json(body, push).map_err(|_| broken),
            Some(broken) => Err(broken),
        }
    }

    fn protobuf(&self, body: &[u8], push: &Push) -> Result<Read, Answer> {
        let raw = decompress(body, self.bytes_max).map_err(|error| match error {
            SnappyError::TooLong { len, len_max } => {
                Answer::bad(format!("received message larger than max ({len} vs {len_max})"))
            }
            SnappyError::Corrupt => Answer::bad(error.to_string()),
        })?;
        // A request that is broken somewhere is refused as a whole, before anything of it is taken.
        loki_push::check(&raw).map_err(|error| Answer::bad(error.to_string()))?;
        let raw = Bytes::from(raw);
        let mut collect = Collect::new(self, raw.clone());
        let (mut bad, mut labels) = (None, LabelsBuilder::new());
        for stream in loki_push::streams(&raw) {
            let stream = stream.map_err(|error| Answer::bad(error.to_string()))?;
            labels.clear();
            let parsed = std::str::from_utf8(stream.labels)
                .map_err(|_| "labels are not valid UTF-8".to_owned())
                .and_then(|text| loki_push::parse_selector(text, &mut labels).map_err(|error| error.to_string()));
            let stream_of = parsed.and_then(|()| self.stream(&mut labels, push));
            match stream_of {
                Ok(Err(why)) => collect.drops.add(why, stream.entries().count()),
                Err(error) => {
                    collect.drops.add(Why::INVALID_LABELS, stream.entries().count());
                    bad = Some(error);
                }
                Ok(Ok(target)) => {
                    for entry in stream.entries() {
                        let entry = entry.map_err(|error| Answer::bad(error.to_string()))?;
                        collect.push(&target, entry.timestamp_ns, entry.line, entry.metadata.iter().copied());
                    }
                }
            }
        }
        collect.finish(bad)
    }

    fn json(&self, body: Bytes, push: &Push) -> Result<Read, Answer> {
        let refuse = |error: loki_json::JsonError| Answer::bad(error.to_string());
        let streams = loki_json::streams(&body).map_err(refuse)?;
        let mut collect = Collect::new(self, body.clone());
        let (mut bad, mut labels) = (None, LabelsBuilder::new());
        for stream in &streams {
            labels.clear();
            let parsed = stream.labels(&body).map_err(refuse)?.iter().try_for_each(|(name, value)| {
                if !NameScheme::Legacy.is_valid(name) {
                    return Err(format!("invalid label name {name:?}"));
                }
                labels.remove(name);
                labels.push(name, value);
                Ok(())
            });
            let target = match parsed.and_then(|()| self.stream(&mut labels, push)) {
                Ok(target) => target,
                Err(error) => {
                    bad = Some(error);
                    Err(Why::INVALID_LABELS)
                }
            };
            // The entries are read also where they are not taken, because a broken request is refused as a whole.
            let outcome = stream.entries(&body, |entry| match &target {
                Ok(target) => {
                    let metadata = entry.metadata.iter().map(|(name, value)| (&**name, &**value));
                    collect.push(target, entry.timestamp_ns, &entry.line, metadata);
                }
                Err(why) => collect.drops.add(*why, 1),
            });
            outcome.map_err(refuse)?;
        }
        collect.finish(bad)
    }

    /// The stream of entries that come with some labels, or why they are dropped.
    fn stream(&self, labels: &mut LabelsBuilder, push: &Push) -> Result<Result<Stream, Why>, String> {
        for (name, value) in &self.fixed {
            labels.set(name, value);
        }
        let tenant = push.tenant.as_deref().map(|tenant| (TENANT_LABEL, tenant));
        self.labels.stream(labels, tenant.as_slice()).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests;
