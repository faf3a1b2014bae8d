//! What is told of requests, and how much of them may be in memory.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use corten_net::{BodyError, Error, ErrorKind, ServerBody, read_body_within};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};

use crate::metrics::{Gauge, Histogram, Registry, Vector};

/// How many bytes of the body of a refused request are still read, and for how long, so that the client hears why it was
/// refused in place of a reset connection.
const DISCARD_BYTES_MAX: usize = 128 << 20;
const DISCARD_WAIT_MAX: Duration = Duration::from_secs(2);

/// The bounds of the sizes of messages, in bytes: powers of four.
const SIZE_BUCKETS: &[f64] = &[
    4.0,
    16.0,
    64.0,
    256.0,
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262144.0,
    1048576.0,
    4194304.0,
    16777216.0,
    67108864.0,
    268435456.0,
    1073741824.0,
];
/// The bounds of the duration of requests, in seconds.
const DURATION_BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0];

/// The names of the metrics of a listener: see [`request_metric_names`](crate::request_metric_names).
#[derive(Clone, Copy, Debug)]
pub struct RequestMetricNames {
    /// Open connections.
    pub connections: &'static str,
    /// How many there may be.
    pub connections_limit: &'static str,
    /// How long requests take.
    pub duration: &'static str,
    /// How large requests are.
    pub request_bytes: &'static str,
    /// How large responses are.
    pub response_bytes: &'static str,
    /// Requests under way.
    pub in_flight: &'static str,
}

/// The names of the metrics of a listener, which begin with the given word.
#[macro_export]
macro_rules! request_metric_names {
    ($prefix:literal) => {
        $crate::listen::RequestMetricNames {
            connections: concat!($prefix, "_tcp_connections"),
            connections_limit: concat!($prefix, "_tcp_connections_limit"),
            duration: concat!($prefix, "_request_duration_seconds"),
            request_bytes: concat!($prefix, "_request_message_bytes"),
            response_bytes: concat!($prefix, "_response_message_bytes"),
            in_flight: concat!($prefix, "_inflight_requests"),
        }
    };
}

/// What a listener tells of its connections and requests.
#[derive(Clone)]
pub struct RequestMetrics {
    pub(super) connections: Gauge,
    pub(super) connections_limit: Gauge,
    duration: Vector<Histogram>,
    request_bytes: Vector<Histogram>,
    response_bytes: Vector<Histogram>,
    in_flight: Vector<Gauge>,
}

impl RequestMetrics {
    /// The metrics of these names.
    pub fn new(registry: &Registry, names: RequestMetricNames) -> Self {
        Self::of_protocol(registry, names, "http")
    }

    /// The metrics of a listener for another protocol than `http`.
    pub fn of_protocol(registry: &Registry, names: RequestMetricNames, protocol: &str) -> Self {
        let help = "Current number of accepted TCP connections.";
        let connections = registry.gauges(names.connections, help, &["protocol"]);
        let help = "The max number of TCP connections that can be accepted (0 means no limit).";
        let limits = registry.gauges(names.connections_limit, help, &["protocol"]);
        RequestMetrics {
            connections: connections.with(&[protocol]),
            connections_limit: limits.with(&[protocol]),
            duration: registry.histograms(
                names.duration,
                "Time (in seconds) spent serving HTTP requests.",
                &["method", "route", "status_code", "ws"],
                DURATION_BUCKETS,
            ),
            request_bytes: registry.histograms(
                names.request_bytes,
                "Size (in bytes) of messages received in the request.",
                &["method", "route"],
                SIZE_BUCKETS,
            ),
            response_bytes: registry.histograms(
                names.response_bytes,
                "Size (in bytes) of messages sent in response.",
                &["method", "route"],
                SIZE_BUCKETS,
            ),
            in_flight: registry.gauges(names.in_flight, "Current number of inflight requests.", &["method", "route"]),
        }
    }
}

impl std::fmt::Debug for RequestMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestMetrics").finish_non_exhaustive()
    }
}

/// Counts a request as under way, also when its client goes away in the middle.
#[derive(Debug)]
struct InFlight(Gauge);

impl InFlight {
    fn begin(gauge: Gauge) -> Self {
        gauge.add(1.0);
        InFlight(gauge)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.add(-1.0);
    }
}

/// The requests of a component: how many bytes of them are in memory, and what is told of them.
#[derive(Clone, Debug)]
pub struct Requests {
    metrics: RequestMetrics,
    memory: Memory,
}

/// How many bytes of requests are in memory, and how many may be. A clone counts the same.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Held>);

#[derive(Debug)]
struct Held {
    bytes: AtomicUsize,
    bytes_max: AtomicUsize,
}

impl Memory {
    /// So many bytes may be in memory at a time: bodies, and what was made of them.
    pub fn new(bytes_max: usize) -> Self {
        Memory(Arc::new(Held { bytes: AtomicUsize::new(0), bytes_max: AtomicUsize::new(bytes_max) }))
    }

    /// So many bytes may be in memory from here on.
    pub fn set_max(&self, bytes_max: usize) {
        self.0.bytes_max.store(bytes_max, Ordering::Relaxed);
    }

    /// How many bytes are in memory.
    pub fn held_bytes(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Nothing yet, which can grow.
    pub fn hold(&self) -> HeldBytes {
        HeldBytes { all: Arc::clone(&self.0), bytes: 0 }
    }

    /// The body of a request, whose bytes count.
    pub fn body(&self, body: Incoming) -> MeteredBody {
        MeteredBody { inner: body, read_bytes: 0, held: self.hold(), crowded: false }
    }
}

impl Requests {
    /// Requests of which so many bytes may be in memory at a time.
    pub fn new(metrics: RequestMetrics, held_bytes_max: usize) -> Self {
        Requests { metrics, memory: Memory::new(held_bytes_max) }
    }

    /// So many bytes may be in memory from here on.
    pub fn set_held_bytes_max(&self, bytes_max: usize) {
        self.memory.set_max(bytes_max);
    }

    /// How many bytes are in memory.
    pub fn held_bytes(&self) -> usize {
        self.memory.held_bytes()
    }

    /// Nothing yet, which can grow.
    pub fn hold(&self) -> HeldBytes {
        self.memory.hold()
    }

    /// Begins to answer a request. `route` says how metrics call where it goes to.
    pub fn begin(&self, request: Request<Incoming>, route: impl FnOnce(&Parts) -> &'static str) -> Exchange {
        let started = Instant::now();
        let (parts, body) = request.into_parts();
        let (route, method) = (route(&parts), method_label(&parts.method));
        let in_flight = InFlight::begin(self.metrics.in_flight.with(&[method, route]));
        let body = self.memory.body(body);
        Exchange { parts, body, route, method, started, metrics: self.metrics.clone(), _in_flight: in_flight }
    }
}

/// A request that is answered.
#[derive(Debug)]
pub struct Exchange {
    /// The head.
    pub parts: Parts,
    /// The body.
    pub body: MeteredBody,
    /// How metrics call where it goes to.
    pub route: &'static str,
    method: &'static str,
    started: Instant,
    metrics: RequestMetrics,
    _in_flight: InFlight,
}

impl Exchange {
    /// Counts the response, and reads what is left of the request so that the client hears it.
    pub async fn finish(mut self, response: Response<ServerBody>) -> Response<ServerBody> {
        let status = response.status();
        // Whoever was too slow once is not waited for again.
        if !self.body.is_end_stream() && status != StatusCode::REQUEST_TIMEOUT {
            self.body.discard().await;
        }
        let Exchange { metrics, method, route, .. } = &self;
        metrics.request_bytes.with(&[method, route]).observe(self.body.read_bytes as f64);
        let sent = response.body().size_hint().exact().unwrap_or(0);
        metrics.response_bytes.with(&[method, route]).observe(sent as f64);
        metrics.duration.with(&[method, route, status.as_str(), "false"]).observe_duration(self.started.elapsed());
        response
    }
}

/// Bytes in memory that count for the limit of [`Requests`] until this is dropped.
#[derive(Debug)]
pub struct HeldBytes {
    all: Arc<Held>,
    bytes: usize,
}

impl HeldBytes {
    /// Counts further bytes, if there is room for them: whether there was.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let all_max = self.all_max();
        let fits = |all: usize| all.checked_add(bytes).filter(|all| *all <= all_max);
        let grown = self.all.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
        self.bytes += if grown { bytes } else { 0 };
        grown
    }

    /// How many bytes all requests together may hold: more than that has no room even when there is no other.
    pub fn all_max(&self) -> usize {
        self.all.bytes_max.load(Ordering::Relaxed)
    }

    /// Forgets what was counted.
    pub fn release(&mut self) {
        self.all.bytes.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.release();
    }
}

/// The body of a request, which counts what arrives.
#[derive(Debug)]
pub struct MeteredBody {
    inner: Incoming,
    read_bytes: u64,
    /// What of it is in memory.
    pub held: HeldBytes,
    /// Whether there was no room for what arrived.
    crowded: bool,
}

impl HttpBody for MeteredBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            other => return Poll::Ready(other.map(|frame| frame.map_err(BodyError::into_error))),
        };
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        self.read_bytes += bytes as u64;
        if !self.held.grow(bytes) {
            self.crowded = true;
            return Poll::Ready(Some(Err(Error::new(ErrorKind::TooLarge, "too many bytes of requests in memory"))));
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl MeteredBody {
    /// Reads the body, within limits of size and time. What it takes in memory is counted until `held` is released.
    ///
    /// # Errors
    ///
    /// Those of [`read_body_within`]. After one that [`is_crowded`](Self::is_crowded) there was no room; nothing counts
    /// as held then.
    pub async fn read(&mut self, bytes_max: usize, limit: Duration) -> Result<Bytes, Error> {
        let outcome = read_body_within(&mut *self, bytes_max, limit).await;
        if outcome.is_err() {
            self.held.release();
        }
        outcome
    }

    /// Whether there was no room for what arrived, because of other requests.
    pub fn is_crowded(&self) -> bool {
        self.crowded
    }

    /// How many bytes have arrived.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes
    }

    /// Reads on and keeps nothing, within limits, so that the client hears the answer in place of a reset connection.
    pub async fn discard(&mut self) {
        let mut left = DISCARD_BYTES_MAX;
        let rest = async {
            while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut self.inner).poll_frame(cx)).await {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                self.read_bytes += bytes as u64;
                left = left.saturating_sub(bytes);
                if left == 0 {
                    break;
                }
            }
        };
        // What comes later is cut off.
        let _ = tokio::time::timeout(DISCARD_WAIT_MAX, rest).await;
    }
}

/// A method as the value of a label: clients can make up others without end.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "CONNECT" => "CONNECT",
        "DELETE" => "DELETE",
        "GET" => "GET",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        "PATCH" => "PATCH",
        "POST" => "POST",
        "PUT" => "PUT",
        "TRACE" => "TRACE",
        _ => "other",
    }
}
