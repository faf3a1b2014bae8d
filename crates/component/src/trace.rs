//! Spans of the program's own work. The `tracing` block says which of them are kept and where they go.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use corten_net::{ObserveRequests, RequestSpan};
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use tokio::sync::mpsc;

use crate::metrics::Counter;

/// The header of W3C's Trace Context, level 1.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Makes spans. Copies share what is configured.
#[derive(Clone, Default)]
pub struct Tracer(Arc<ArcSwapOption<Tracing>>);

/// What the `tracing` block sets.
pub struct Tracing {
    /// Decides which traces are kept. What came with a decision keeps it.
    pub sampler: Arc<dyn Sampler>,
    /// Where ended spans go; nothing waits for room.
    pub ended: mpsc::Sender<Ended>,
    /// Counts spans for which there was no room.
    pub dropped: Counter,
    /// Whether requests tell their receiver of the trace that they belong to.
    pub send_traceparent: bool,
}

/// Decides which traces are kept.
pub trait Sampler: Send + Sync + 'static {
    /// Whether to keep the trace with that id, which begins with a span of that name.
    fn keeps(&self, trace_id: [u8; 16], name: &str) -> bool;
}

/// A trace is kept if its id is among the lowest of all; the upper half of an id is not looked at, as in other languages'
/// libraries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio(u64);

impl Ratio {
    /// Keeps that part of all traces, from 0 to 1.
    pub fn new(fraction: f64) -> Self {
        Ratio((fraction.clamp(0.0, 1.0) * (1_u64 << 63) as f64) as u64)
    }
}

impl Sampler for Ratio {
    fn keeps(&self, trace_id: [u8; 16], _: &str) -> bool {
        let [.., a, b, c, d, e, f, g, h] = trace_id;
        u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1 < self.0
    }
}

/// What a span is, by OpenTelemetry's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// Work within the program.
    Internal = 1,
    /// A request that the program serves.
    Server = 2,
    /// A request that the program sends.
    Client = 3,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// A text.
    Text(String),
    /// A number.
    Int(i64),
}

/// A span that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// The trace that it belongs to.
    pub trace_id: [u8; 16],
    /// Its own id.
    pub span_id: [u8; 8],
    /// The span that it is a part of; zeros if of none.
    pub parent_span_id: [u8; 8],
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: SpanKind,
    /// When it began, in nanoseconds since the Unix epoch.
    pub start_ns: u64,
    /// When it ended, in nanoseconds since the Unix epoch.
    pub end_ns: u64,
    /// What else is known of it.
    pub attributes: Vec<(&'static str, Attribute)>,
    /// Why it failed, if it did.
    pub failure: Option<String>,
}

impl Tracer {
    /// Puts other settings in place. With `None` no spans are made.
    pub fn configure(&self, tracing: Option<Arc<Tracing>>) {
        self.0.store(tracing);
    }

    /// Begins a trace.
    pub fn root(&self, name: &str, kind: SpanKind) -> Span {
        match self.0.load_full() {
            Some(tracing) => {
                let trace_id = random_id();
                let kept = tracing.sampler.keeps(trace_id, name);
                Span::begin(tracing, Trace { trace_id, kept }, [0; 8], name, kind)
            }
            None => Span(None),
        }
    }

    /// Begins a span of a request that may tell which trace it belongs to, and whether that is kept.
    pub fn served(&self, name: &str, headers: &HeaderMap) -> Span {
        let told = headers.get(TRACEPARENT).and_then(|value| read_traceparent(value.as_bytes()));
        match (self.0.load_full(), told) {
            (Some(tracing), Some((trace, parent))) => Span::begin(tracing, trace, parent, name, SpanKind::Server),
            _ => self.root(name, SpanKind::Server),
        }
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tracer({})", if self.0.load().is_some() { "on" } else { "off" })
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Trace {
    trace_id: [u8; 16],
    kept: bool,
}

/// A piece of work that goes on. It ends when it is dropped.
pub struct Span(Option<Box<Running>>);

struct Running {
    tracing: Arc<Tracing>,
    trace: Trace,
    began: Instant,
    /// What is told of it, but for the end.
    ended: Ended,
}

impl Span {
    fn begin(tracing: Arc<Tracing>, trace: Trace, parent: [u8; 8], name: &str, kind: SpanKind) -> Self {
        if !trace.kept && !tracing.send_traceparent {
            return Span(None);
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let ended = Ended {
            trace_id: trace.trace_id,
            span_id: random_id(),
            parent_span_id: parent,
            name: name.to_owned(),
            kind,
            start_ns: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX),
            end_ns: 0,
            attributes: Vec::new(),
            failure: None,
        };
        Span(Some(Box::new(Running { tracing, trace, began: Instant::now(), ended })))
    }

    /// Begins a part of it.
    #[must_use]
    pub fn child(&self, name: &str, kind: SpanKind) -> Span {
        match &self.0 {
            Some(running) => {
                Self::begin(Arc::clone(&running.tracing), running.trace, running.ended.span_id, name, kind)
            }
            None => Span(None),
        }
    }

    /// Adds what is known of it.
    pub fn text(&mut self, key: &'static str, value: impl Into<String>) {
        self.add(key, || Attribute::Text(value.into()));
    }

    /// Adds a number.
    pub fn int(&mut self, key: &'static str, value: i64) {
        self.add(key, || Attribute::Int(value));
    }

    fn add(&mut self, key: &'static str, value: impl FnOnce() -> Attribute) {
        if let Some(running) = self.0.as_mut().filter(|running| running.trace.kept) {
            running.ended.attributes.push((key, value()));
        }
    }

    /// Notes that it failed, and why.
    pub fn fail(&mut self, why: impl fmt::Display) {
        if let Some(running) = &mut self.0 {
            running.ended.failure = Some(why.to_string());
        }
    }

    /// The id of its trace in hexadecimal digits; `None` where there is no trace.
    pub fn trace_id(&self) -> Option<String> {
        self.0.as_ref().map(|running| hex(&running.trace.trace_id))
    }

    /// Tells the receiver of a request, if receivers are to be told.
    fn tell(&self, headers: &mut HeaderMap) {
        let Some(running) = self.0.as_ref().filter(|running| running.tracing.send_traceparent) else { return };
        let (trace, span) = (hex(&running.trace.trace_id), hex(&running.ended.span_id));
        if let Ok(value) = HeaderValue::try_from(format!("00-{trace}-{span}-0{}", u8::from(running.trace.kept))) {
            headers.insert(TRACEPARENT, value);
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let Some(running) = self.0.take().filter(|running| running.trace.kept) else { return };
        let Running { tracing, began, mut ended, .. } = *running;
        ended.end_ns = ended.start_ns.saturating_add(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
        if tracing.ended.try_send(ended).is_err() {
            tracing.dropped.inc();
        }
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Span({:?})", self.0.as_ref().map(|running| &running.ended.name))
    }
}

/// Makes a span of each request that the clients of a component send.
#[derive(Clone, Debug)]
pub(crate) struct Requests {
    pub(crate) tracer: Tracer,
    pub(crate) component: String,
}

impl ObserveRequests for Requests {
    fn begin(&self, method: &Method, uri: &Uri, headers: &mut HeaderMap) -> Option<Box<dyn RequestSpan>> {
        self.tracer.0.load().as_ref()?;
        let mut span = self.tracer.root(&format!("HTTP {method}"), SpanKind::Client);
        span.tell(headers);
        span.text("alloy.component_id", &*self.component);
        span.text("http.request.method", method.as_str());
        span.text("server.address", uri.host().unwrap_or_default());
        span.text("url.path", uri.path());
        if let Some(port) = uri.port_u16() {
            span.int("server.port", i64::from(port));
        }
        Some(Box::new(span))
    }
}

impl RequestSpan for Span {
    fn answered(mut self: Box<Self>, status: StatusCode) {
        self.int("http.response.status_code", i64::from(status.as_u16()));
        if status.is_client_error() || status.is_server_error() {
            self.fail(status);
        }
    }

    fn failed(mut self: Box<Self>, error: &corten_net::Error) {
        self.fail(error);
    }
}

/// An id for what belongs together although nobody traces it, as that of a trace.
pub fn untraced_id() -> String {
    hex(&random_id::<16>())
}

/// Reads version 00, and the front of later ones.
fn read_traceparent(text: &[u8]) -> Option<(Trace, [u8; 8])> {
    let text = std::str::from_utf8(text).ok()?;
    let mut parts = text.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let [version] = unhex::<1>(version)?;
    if version == 0xff || (version == 0 && parts.next().is_some()) {
        return None;
    }
    let [flags] = unhex::<1>(flags)?;
    let (trace_id, parent) = (unhex::<16>(trace)?, unhex::<8>(parent)?);
    (trace_id != [0; 16] && parent != [0; 8]).then_some((Trace { trace_id, kept: flags & 1 == 1 }, parent))
}

/// Reads digits in lower case, as the specification wants them.
fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut out = [0; N];
    for (out, [high, low]) in out.iter_mut().zip(pairs) {
        *out = digit(*high)? << 4 | digit(*low)?;
    }
    Some(out)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An id that nobody has had: a keyed hash of a count, the key of which is random.
fn random_id<const N: usize>() -> [u8; N] {
    static KEYED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let mut id = [0; N];
    for part in id.chunks_mut(8) {
        let hash = KEYED.hash_one(COUNT.fetch_add(1, Ordering::Relaxed)).to_be_bytes();
        part.copy_from_slice(&hash[..part.len()]);
    }
    id
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct All(bool);

    impl Sampler for All {
        fn keeps(&self, _: [u8; 16], _: &str) -> bool {
            self.0
        }
    }

    fn tracer(kept: bool, send_traceparent: bool, room: usize) -> (Tracer, mpsc::Receiver<Ended>, Counter) {
        let (sender, ended) = mpsc::channel(room);
        let (tracer, dropped) = (Tracer::default(), Counter::default());
        tracer.configure(Some(Arc::new(Tracing {
            sampler: Arc::new(All(kept)),
            ended: sender,
            dropped: dropped.clone(),
            send_traceparent,
        })));
        (tracer, ended, dropped)
    }

    #[test]
    fn parts_belong_to_the_trace_of_the_whole() {
        let (tracer, mut ended, _) = tracer(true, false, 8);
        {
            let mut root = tracer.root("whole", SpanKind::Internal);
            root.text("a", "b");
            root.child("part", SpanKind::Client).fail("no luck");
        }
        let (part, whole) = (ended.try_recv().unwrap(), ended.try_recv().unwrap());
        assert_eq!((&*part.name, &*whole.name), ("part", "whole"));
        assert_eq!((part.trace_id, part.parent_span_id), (whole.trace_id, whole.span_id));
        assert_eq!(part.failure.as_deref(), Some("no luck"));
        assert_eq!(whole.attributes, [("a", Attribute::Text("b".to_owned()))]);
        assert!(whole.end_ns >= whole.start_ns && whole.parent_span_id == [0; 8]);
    }

    #[test]
    fn without_a_configuration_or_without_a_yes_nothing_is_made() {
        assert!(Tracer::default().root("x", SpanKind::Internal).trace_id().is_none());
        let (tracer, mut ended, _) = tracer(false, false, 8);
        drop(tracer.root("x", SpanKind::Internal));
        assert!(ended.try_recv().is_err());
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let (tracer, _ended, dropped) = tracer(true, false, 1);
        for _ in 0..3 {
            drop(tracer.root("x", SpanKind::Internal));
        }
        assert_eq!(dropped.get(), 2);
    }

    #[test]
    fn the_decision_of_a_request_is_kept_and_passed_on() {
        let (tracer, mut ended, _) = tracer(false, true, 8);
        let mut headers = HeaderMap::new();
        let value = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        headers.insert(TRACEPARENT, HeaderValue::from_static(value));
        let span = tracer.served("GET /x", &headers);
        span.tell(&mut headers);
        drop(span);
        let ended = ended.try_recv().unwrap();
        assert_eq!((hex(&ended.trace_id), hex(&ended.parent_span_id)), (value[3..35].into(), value[36..52].into()));
        let told = format!("00-{}-{}-01", &value[3..35], hex(&ended.span_id));
        assert_eq!(headers[TRACEPARENT].to_str().unwrap(), told);
    }

    #[test]
    fn receivers_are_told_also_of_traces_that_are_not_kept() {
        let (tracer, mut ended, _) = tracer(false, true, 8);
        let requests = Requests { tracer, component: "prometheus.scrape.a".to_owned() };
        let mut headers = HeaderMap::new();
        drop(requests.begin(&Method::GET, &Uri::from_static("http://h/p"), &mut headers));
        assert!(headers[TRACEPARENT].to_str().unwrap().ends_with("-00"));
        assert!(ended.try_recv().is_err());
    }

    #[test]
    fn a_request_that_is_answered_with_an_error_has_failed() {
        let (tracer, mut ended, _) = tracer(true, false, 8);
        let requests = Requests { tracer, component: "prometheus.scrape.a".to_owned() };
        let mut headers = HeaderMap::new();
        let span = requests.begin(&Method::POST, &Uri::from_static("http://h:81/p?q=secret"), &mut headers).unwrap();
        span.answered(StatusCode::BAD_GATEWAY);
        let ended = ended.try_recv().unwrap();
        assert!(headers.is_empty());
        assert_eq!((&*ended.name, ended.kind), ("HTTP POST", SpanKind::Client));
        assert_eq!(ended.failure.as_deref(), Some("502 Bad Gateway"));
        assert!(ended.attributes.contains(&("url.path", Attribute::Text("/p".to_owned()))));
        assert!(ended.attributes.contains(&("server.port", Attribute::Int(81))));
    }

    #[test]
    fn a_ratio_keeps_its_part() {
        let kept = |fraction| (0..10_000).filter(|_| Ratio::new(fraction).keeps(random_id(), "x")).count();
        assert_eq!((kept(0.0), kept(1.0)), (0, 10_000));
        assert!((2_200..2_800).contains(&kept(0.25)));
    }

    #[test]
    fn what_is_no_traceparent_is_not_taken_for_one() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        assert!(read_traceparent(good.as_bytes()).is_some());
        assert!(read_traceparent(format!("cc{}-more", &good[2..]).as_bytes()).is_some());
        for bad in [
            "",
            "00",
            &good[1..],
            &good.replace("0af", "0AF"),
            &format!("{good}-x"),
            &format!("ff{}", &good[2..]),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        ] {
            assert!(read_traceparent(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic(bytes: Vec<u8>) {
            let _ = read_traceparent(&bytes);
        }
    }
}
