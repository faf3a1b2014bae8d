//! What the sources share that receive entries over HTTP: bodies, delivery and answers.

use std::io::Read;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use corten_component::DebugInfo;
use corten_component::listen::{
    Exchange, HeldBytes, ListenSettings, Listening, RequestMetricNames, RequestMetrics, Requests,
};
use corten_component::log::{Logger, rfc3339};
use corten_component::metrics::{Gauge, Registry};
use corten_config::encode::Item;
use corten_net::{ConnectionInfo, ErrorKind, ServerBody, empty_body, full_body, http_error};
use corten_signal::acks::{self, Answer as Settlement};
use corten_signal::ledger::Row;
use corten_signal::{ConsumeError, Entries, Fanout, Ledger, Logs, LogsBatch};
use http::request::Parts;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::shown::{LastError, attr, block};

/// How many bytes of all requests under way may be in memory: bodies, and what was made of them. A request beyond that
/// is answered with 503.
const HELD_BYTES_MAX: usize = 640 << 20;

/// Bodies that are longer, in bytes before decompression, are read off the threads that serve connections, because they
/// take milliseconds.
const INLINE_BYTES_MAX: usize = 8 << 10;

/// How long it may take until entries are safe: shorter than clients wait by default, so that they hear that they are to
/// slow down.
const SAFE_WAIT_MAX: Duration = Duration::from_secs(20);

/// The longest text of a refusal, in bytes.
const REFUSAL_BYTES_MAX: usize = 64 << 10;

/// An answer in plain text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// Empty where nothing is to be said.
    pub(super) text: String,
    retry_after: Option<Duration>,
}

impl Answer {
    pub(super) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Answer { status, text: text.into(), retry_after: None }
    }

    pub(super) fn bad(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    /// There is no room, or the entries did not get on.
    fn unavailable(text: impl Into<String>, retry_after: Option<Duration>) -> Self {
        Answer { retry_after, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, text) }
    }

    /// What is answered where no route leads.
    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "404 page not found")
    }

    /// What is answered where a route wants another method.
    pub(super) fn wrong_method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "")
    }

    pub(super) fn into_response(mut self) -> Response<ServerBody> {
        self.text.truncate(self.text.floor_char_boundary(REFUSAL_BYTES_MAX));
        let mut response = if self.text.is_empty() {
            let mut response = Response::new(empty_body());
            *response.status_mut() = self.status;
            response
        } else if self.status.is_success() {
            let mut response = Response::new(full_body(self.text));
            *response.status_mut() = self.status;
            response
        } else {
            http_error(self.status, &self.text)
        };
        if let Some(after) = self.retry_after {
            // Rounded up: who comes too early comes in vain.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// The entrance of a source that receives over HTTP.
pub(super) struct Door {
    pub(super) listening: Arc<Listening>,
    requests: Requests,
    /// A permit for each core: so many bodies are read at a time.
    readers: Arc<Semaphore>,
    /// Where it is counted what is received.
    pub(super) row: Arc<Row>,
    info: Arc<DoorInfo>,
}

/// What is told of an entrance.
struct DoorInfo {
    listening: Arc<Listening>,
    connections: Gauge,
    /// When entries were taken last.
    last_taken: Mutex<Option<SystemTime>>,
    last_error: LastError,
}

impl DebugInfo for DoorInfo {
    fn debug_info(&self) -> Vec<Item> {
        let mut body = vec![
            attr("listen_address", self.listening.settings().address.to_string()),
            attr("connections", self.connections.get() as u64),
        ];
        if let Some(at) = *self.last_taken.lock() {
            body.push(attr("last_taken_at", rfc3339(at)));
        }
        self.last_error.show(&mut body);
        vec![block("listener_info", body)]
    }
}

impl Door {
    pub(super) fn new(
        listen: ListenSettings,
        registry: &Registry,
        ledger: &Ledger,
        names: RequestMetricNames,
        logger: Logger,
        opened: &'static str,
    ) -> Self {
        let metrics = RequestMetrics::new(registry, names);
        let cores = available_parallelism().map_or(1, std::num::NonZero::get);
        let listening = Arc::new(Listening::new(listen, &metrics, logger, opened));
        // The family is there already.
        let connections = registry.gauges(names.connections, "", &["protocol"]).with(&["http"]);
        Door {
            info: Arc::new(DoorInfo {
                listening: Arc::clone(&listening),
                connections,
                last_taken: Mutex::default(),
                last_error: LastError::default(),
            }),
            listening,
            requests: Requests::new(metrics, HELD_BYTES_MAX),
            readers: Arc::new(Semaphore::new(cores)),
            row: Arc::clone(ledger.row_of::<Logs>()),
        }
    }

    /// What is told of it to whoever looks.
    pub(super) fn debug_info(&self) -> Arc<dyn DebugInfo> {
        Arc::clone(&self.info) as Arc<dyn DebugInfo>
    }

    /// Begins to answer a request.
    pub(super) fn begin(&self, request: Request<Incoming>, route: impl FnOnce(&Parts) -> &'static str) -> Exchange {
        self.requests.begin(request, route)
    }

    /// The body of a request, as it arrived.
    pub(super) async fn body(&self, exchange: &mut Exchange, bytes_max: usize) -> Result<Bytes, Answer> {
        let limit = self.listening.settings().body_wait_max;
        let error = match exchange.body.read(bytes_max, limit).await {
            Ok(bytes) => return Ok(bytes),
            Err(error) => error,
        };
        if exchange.body.is_crowded() {
            let text = "too many requests are under way";
            return Err(Answer::unavailable(text, Some(Duration::from_secs(1))));
        }
        Err(match error.kind() {
            ErrorKind::TooLarge => {
                Answer::new(StatusCode::PAYLOAD_TOO_LARGE, format!("request body exceeds the {bytes_max} bytes limit"))
            }
            ErrorKind::Timeout => Answer::new(StatusCode::REQUEST_TIMEOUT, error.to_string()),
            _ => Answer::bad(error.to_string()),
        })
    }

    /// Makes something of a body. As many bodies are read at a time as there are cores.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        body_bytes: usize,
        read: impl FnOnce() -> Result<T, Answer> + Send + 'static,
    ) -> Result<T, Answer> {
        // The semaphore is never closed, so that a permit always comes.
        let permit = Arc::clone(&self.readers).acquire_owned().await.ok();
        let read = move || {
            let outcome = read();
            drop(permit);
            outcome
        };
        if body_bytes <= INLINE_BYTES_MAX {
            return read();
        }
        tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| {
            Err(Answer::new(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot read the request: {error}")))
        })
    }

    /// Takes requests whose bodies have up to so many bytes: there has to be room for one of them.
    pub(super) fn set_body_bytes_max(&self, bytes_max: usize) {
        self.requests.set_held_bytes_max(HELD_BYTES_MAX.max(bytes_max.saturating_mul(2)));
    }

    /// Counts what was made of a body in place of the body.
    pub(super) fn hold(&self, held: &mut HeldBytes, batches: &[Entries]) -> Result<(), Answer> {
        held.release();
        let bytes = batches.iter().map(Entries::held_bytes).sum();
        if held.grow(bytes) {
            return Ok(());
        }
        if bytes > held.all_max() {
            // There is not going to be room: a client must not try for good.
            let text = format!("the entries of the request take {bytes} bytes, and {} are allowed", held.all_max());
            return Err(Answer::new(StatusCode::PAYLOAD_TOO_LARGE, text));
        }
        Err(Answer::unavailable("too many requests are under way", Some(Duration::from_secs(1))))
    }

    /// Hands entries on, and waits until they are safe, or until a stage keeps them that only time makes go on.
    pub(super) async fn deliver(&self, forward: &Fanout<Logs>, batches: Vec<Entries>) -> Result<(), Answer> {
        if batches.iter().all(Entries::is_empty) {
            return Ok(());
        }
        let (acks, mut waiter) = acks::waiter();
        let started = tokio::time::Instant::now();
        let mut pass = self.row.pass();
        let mut received = 0;
        let all = async {
            for entries in batches {
                let count = entries.len();
                forward.consume(LogsBatch { entries: Arc::new(entries), acks: acks.clone() }).await?;
                pass.handed_on(count);
                received += count;
            }
            Ok(())
        };
        match tokio::time::timeout(SAFE_WAIT_MAX, all).await {
            Ok(Ok(())) => {
                self.row.received(received);
                *self.info.last_taken.lock() = Some(SystemTime::now());
                let _ = pass.end(Ok(()));
                acks.safe();
            }
            // The client sends all of it again.
            Ok(Err(error)) => return Err(refusal(&error)),
            Err(_) => return Err(too_late()),
        }
        match waiter.wait(SAFE_WAIT_MAX.saturating_sub(started.elapsed())).await {
            Settlement::Safe | Settlement::Held => Ok(()),
            Settlement::Failed => Err(Answer::unavailable("the entries were not delivered", None)),
            Settlement::Late => Err(too_late()),
        }
    }

    /// Logs that a request was refused.
    pub(super) fn complain(&self, parts: &Parts, status: StatusCode, text: &str) {
        let peer = parts.extensions.get::<ConnectionInfo>().map(|info| info.peer.to_string()).unwrap_or_default();
        let first = text.lines().next().unwrap_or_default();
        let problem = format!("{} to {peer}: {first}", status.as_u16());
        self.info.last_error.note(&problem);
        self.listening.warn("refused a request", &problem, 1);
    }
}

fn too_late() -> Answer {
    let text = format!("the receivers did not take the entries within {SAFE_WAIT_MAX:?}");
    Answer::unavailable(text, Some(Duration::from_secs(5)))
}

fn refusal(error: &ConsumeError) -> Answer {
    match error {
        ConsumeError::Retry { after, .. } => Answer::unavailable(error.to_string(), *after),
        ConsumeError::Exited { .. } => Answer::unavailable(error.to_string(), None),
        ConsumeError::Refused { .. } => Answer::bad(error.to_string()),
    }
}

/// The value of a header; empty where there is none. Of several the first counts.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> std::borrow::Cow<'a, str> {
    headers.get(name).map_or("".into(), |value| String::from_utf8_lossy(value.as_bytes()))
}

/// Decompresses, up to a limit: what there is, and why there is no more if the compression is broken.
///
/// JSON may be whole where its compression is not, as it has no checksum or something else follows it.
pub(super) fn inflate(from: impl Read, bytes_max: usize) -> Result<(Vec<u8>, Option<Answer>), Answer> {
    let mut out = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    let broken = from.take(limit).read_to_end(&mut out).err().map(|error| Answer::bad(error.to_string()));
    if out.len() > bytes_max {
        return Err(Answer::bad(format!("received message larger than max ({} vs {bytes_max})", out.len())));
    }
    Ok((out, broken))
}

/// The header that names the tenant.
pub(super) const TENANT_HEADER: HeaderName = HeaderName::from_static("x-scope-orgid");

/// The longest name of a tenant, in bytes.
const TENANT_BYTES_MAX: usize = 150;

/// The tenant that a header names, if it names one and no more, in letters that are allowed. What follows a colon is not
/// a part of the name.
pub(super) fn tenant(header: &str) -> Option<&str> {
    let mut names = header.split('|').map(|name| name.split_once(':').map_or(name, |(name, _)| name));
    let first = names.next()?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"!-_.*'()".contains(&b);
    let is_valid =
        |name: &str| name.len() <= TENANT_BYTES_MAX && !matches!(name, "." | "..") && name.bytes().all(allowed);
    (!first.is_empty() && is_valid(first) && names.all(|name| name == first)).then_some(first)
}

/// The time now, in nanoseconds since the Unix epoch.
pub(super) fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[tokio::test]
    async fn what_never_has_room_is_refused_for_good_and_what_has_none_now_is_not() {
        let registry = Registry::new();
        let listen = ListenSettings::prepare(&Default::default(), Duration::ZERO, None).await.unwrap();
        let logger = Logger::new(corten_component::log::LogSink::memory().0);
        let ledger = Ledger::new("loki.source.a");
        let door =
            Door::new(listen, &registry, &ledger, corten_component::request_metric_names!("a"), logger, "listening");
        let mut builder = corten_signal::EntriesBuilder::new();
        let part = builder.stream(&corten_signal::Stream::of([("a", "b")]).unwrap());
        let line = builder.own(&[b'x'; 1000]);
        builder.push(part, 1, line);
        let batches = [builder.finish(0)];
        let bytes = batches[0].held_bytes();
        let status = |outcome: Result<(), Answer>| outcome.map_err(|answer| answer.status.as_u16());
        door.requests.set_held_bytes_max(bytes);
        let (mut first, mut second) = (door.requests.hold(), door.requests.hold());
        assert_eq!(status(door.hold(&mut first, &batches)), Ok(()));
        assert_eq!(status(door.hold(&mut second, &batches)), Err(503));
        first.release();
        assert_eq!(status(door.hold(&mut second, &batches)), Ok(()));
        door.requests.set_held_bytes_max(bytes - 1);
        assert_eq!(status(door.hold(&mut second, &batches)), Err(413));
        // Bodies that are allowed have room in any case.
        door.set_body_bytes_max(HELD_BYTES_MAX);
        assert!(door.requests.hold().grow(HELD_BYTES_MAX + 1));
    }

    #[test]
    fn a_tenant_is_one_name_in_letters_that_are_allowed() {
        let long = "a".repeat(TENANT_BYTES_MAX);
        for (header, expected) in [
            ("a", Some("a")),
            ("a|a", Some("a")),
            ("a|b", None),
            ("team-1_x.y!*'()", Some("team-1_x.y!*'()")),
            ("a:product=x", Some("a")),
            ("a:x|a:y", Some("a")),
            ("", None),
            (":x", None),
            (".", None),
            ("..", None),
            ("a/b", None),
            ("a b", None),
            ("é", None),
            (&long, Some(&*long)),
            (&format!("{long}a"), None),
        ] {
            assert_eq!(tenant(header), expected, "{header}");
        }
    }

    #[test]
    fn a_bomb_is_read_no_further_than_the_limit() {
        assert_eq!(inflate(&[0; 10][..], 10).unwrap().0.len(), 10);
        let endless = std::io::repeat(0);
        assert_eq!(
            inflate(endless, 1 << 20).unwrap_err().text,
            "received message larger than max (1048577 vs 1048576)"
        );
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic(text in any::<String>()) {
            let _ = tenant(&text);
        }
    }
}
