//! The requests that are sent: made once from a seed, and told apart by the times of their items.
//!
//! The messages are `ExportLogsServiceRequest`, `ExportTraceServiceRequest` and `ExportMetricsServiceRequest` of
//! OpenTelemetry's protocol 1.x. A log record carries its number as its time, a span as its start: 8 bytes at a known place,
//! which are all that changes between two sendings of a request.

use crate::exposition::mix;

/// A signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    Logs,
    Traces,
    Metrics,
}

impl Signal {
    /// The signal of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        [Signal::Logs, Signal::Traces, Signal::Metrics].into_iter().find(|signal| signal.name() == name)
    }

    /// Its name, as in the paths of the protocol.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Signal::Logs => "logs",
            Signal::Traces => "traces",
            Signal::Metrics => "metrics",
        }
    }

    /// The method of gRPC that takes it.
    pub(crate) fn method(self) -> &'static str {
        match self {
            Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
            Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        }
    }
}

/// The time of the item that has the number 0, in nanoseconds since the epoch: in November 2023, so that numbers are times.
pub(crate) const TIME_OF_FIRST_NS: u64 = 1_700_000_000_000_000_000;

/// How long an encoded log record is, in bytes.
pub(crate) const LOG_BYTES: usize = 272;

/// Every so many items has what the condition of a filter looks for.
pub(crate) const DROPPED_EVERY: u64 = 10;

/// A request, and where in it the times are that change.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    /// The place of each item's number, and further places with what is added to it.
    numbers: Vec<usize>,
    ends: Vec<(usize, u64)>,
    /// Places of the time of the sending.
    now: Vec<usize>,
}

impl Template {
    /// Makes the request with that index. Its items differ from those of other requests, and all follow from the seed.
    pub(crate) fn new(signal: Signal, items: usize, index: usize, seed: u64) -> Self {
        let mut random = Random(mix(seed ^ mix(index as u64)));
        match signal {
            Signal::Logs => Self::wrap(index, items, |at| log(&mut random, at as u64)),
            Signal::Traces => Self::wrap(index, items, |_| span(&mut random)),
            Signal::Metrics => {
                Self::wrap(index, items.div_ceil(POINTS), |at| metric(&mut random, at, POINTS.min(items - at * POINTS)))
            }
        }
    }

    /// Puts items into one scope of one resource. In all three messages the fields have the same numbers.
    fn wrap(index: usize, count: usize, mut item: impl FnMut(usize) -> Item) -> Self {
        let mut scope = Vec::new();
        bytes(&mut scope, 1, &[field(1, b"bench"), field(2, b"1.0.0")].concat());
        let (mut numbers, mut ends, mut now) = (Vec::new(), Vec::new(), Vec::new());
        for at in 0..count {
            let item = item(at);
            key(&mut scope, 2, 2);
            varint(&mut scope, item.bytes.len() as u64);
            let begin = scope.len();
            numbers.extend(item.number.map(|place| begin + place));
            ends.extend(item.end.map(|(place, after)| (begin + place, after)));
            now.extend(item.now.iter().map(|place| begin + place));
            scope.extend_from_slice(&item.bytes);
        }
        let resource = [
            text(1, "service.name", &format!("checkout-{}", index % 8)),
            text(1, "service.namespace", "shop"),
            text(1, "service.instance.id", &format!("0b5e6a1c-{index:04x}-4f6e-9d55-3f3fa0b6a1d7")),
            text(1, "host.name", &format!("node-{:03}.example.com", index % 50)),
            text(1, "deployment.environment", "production"),
        ]
        .concat();
        let mut of = Vec::new();
        bytes(&mut of, 1, &resource);
        key(&mut of, 2, 2);
        varint(&mut of, scope.len() as u64);
        let within = of.len();
        of.extend_from_slice(&scope);
        let mut whole = Vec::new();
        key(&mut whole, 1, 2);
        varint(&mut whole, of.len() as u64);
        let offset = whole.len() + within;
        whole.extend_from_slice(&of);
        Self {
            bytes: whole,
            numbers: numbers.into_iter().map(|place| place + offset).collect(),
            ends: ends.into_iter().map(|(place, after)| (place + offset, after)).collect(),
            now: now.into_iter().map(|place| place + offset).collect(),
        }
    }

    /// The request with items from that number on, sent at that time.
    pub(crate) fn request(&self, first: u64, now_ns: u64) -> Vec<u8> {
        let mut request = self.bytes.clone();
        let mut put = |place: usize, time: u64| request[place..place + 8].copy_from_slice(&time.to_le_bytes());
        for (&place, number) in self.numbers.iter().zip(first..) {
            put(place, TIME_OF_FIRST_NS + number);
        }
        for (&(place, after), number) in self.ends.iter().zip(first..) {
            put(place, TIME_OF_FIRST_NS + number + after);
        }
        for &place in &self.now {
            put(place, now_ns);
        }
        request
    }
}

/// An encoded item and the places of its times.
struct Item {
    bytes: Vec<u8>,
    number: Option<usize>,
    end: Option<(usize, u64)>,
    now: Vec<usize>,
}

const METHODS: &[&str] = &["GET", "POST", "PUT", "DELETE"];
const ROUTES: &[&str] = &["/api/v1/cart", "/api/v1/orders/{id}", "/api/v1/users/{id}", "/api/v1/search", "/healthz"];
const STATUSES: &[u64] = &[200, 201, 204, 404, 500];

/// A log record of exactly [`LOG_BYTES`].
fn log(random: &mut Random, at: u64) -> Item {
    let mut out = Vec::new();
    let number = fixed64(&mut out, 1, 0);
    let dropped = at.is_multiple_of(DROPPED_EVERY);
    let (severity, level) = if dropped { (5, "DEBUG") } else { (9, "INFO") };
    key(&mut out, 2, 0);
    varint(&mut out, severity);
    bytes(&mut out, 3, level.as_bytes());
    let route = random.pick(ROUTES);
    let tail: Vec<u8> = [
        text(6, "http.request.method", random.pick(METHODS)),
        text(6, "http.route", route),
        int(6, "http.response.status_code", random.pick(STATUSES)),
        text(6, "log.level", level),
        field(9, &random.bytes::<16>()),
        field(10, &random.bytes::<8>()),
    ]
    .concat();
    let mut body = format!("handled {route} for user {} in {} us", random.next() % 100_000, random.next() % 1_000_000);
    // The body is as long as what is missing, which is less than 128 bytes: its lengths have a byte each.
    let missing = LOG_BYTES - out.len() - tail.len() - 4;
    while body.len() < missing {
        body.push_str(random.pick(WORDS));
    }
    body.truncate(missing);
    bytes(&mut out, 5, &field(1, body.as_bytes()));
    out.extend_from_slice(&tail);
    Item { bytes: out, number: Some(number), end: None, now: Vec::new() }
}

const WORDS: &[&str] = &[" ok", " cache=hit", " cache=miss", " retry", " upstream", " pool", " shard", " tenant"];

fn span(random: &mut Random) -> Item {
    let mut out = Vec::new();
    bytes(&mut out, 1, &random.bytes::<16>());
    bytes(&mut out, 2, &random.bytes::<8>());
    bytes(&mut out, 4, &random.bytes::<8>());
    let (method, route) = (random.pick(METHODS), random.pick(ROUTES));
    bytes(&mut out, 5, format!("{method} {route}").as_bytes());
    key(&mut out, 6, 0);
    varint(&mut out, 2 + random.next() % 2);
    let number = fixed64(&mut out, 7, 0);
    let end = fixed64(&mut out, 8, 0);
    out.extend(text(9, "http.request.method", method));
    out.extend(text(9, "http.route", route));
    out.extend(int(9, "http.response.status_code", random.pick(STATUSES)));
    out.extend(text(9, "server.address", "shop.example.com"));
    out.extend(text(9, "user.id", &format!("{}", random.next() % 100_000)));
    bytes(&mut out, 15, &[]);
    Item { bytes: out, number: Some(number), end: Some((end, 1_000 + random.next() % 50_000_000)), now: Vec::new() }
}

/// Points of a metric.
const POINTS: usize = 20;

fn metric(random: &mut Random, at: usize, points: usize) -> Item {
    let mut list = Vec::new();
    let mut places = Vec::new();
    for point in 0..points {
        let mut out = Vec::new();
        fixed64(&mut out, 2, TIME_OF_FIRST_NS);
        let now = fixed64(&mut out, 3, 0);
        fixed64(&mut out, 4, (random.next() as f64 / 1e12).to_bits());
        out.extend(text(7, "http.request.method", METHODS[point % METHODS.len()]));
        out.extend(text(7, "http.route", ROUTES[point / METHODS.len() % ROUTES.len()]));
        out.extend(text(7, "pool", &format!("pool-{}", at % 10)));
        key(&mut list, 1, 2);
        varint(&mut list, out.len() as u64);
        places.push(list.len() + now);
        list.extend_from_slice(&out);
    }
    // Half of them are sums, cumulative (2) and monotonic (3), the others gauges.
    let sum = at.is_multiple_of(2);
    if sum {
        list.extend_from_slice(&[2 << 3, 2, 3 << 3, 1]);
    }
    let mut out = field(1, format!("http.server.measure_{at}").as_bytes());
    out.extend(field(2, b"What the server measured of its requests."));
    out.extend(field(3, b"By"));
    key(&mut out, if sum { 7 } else { 5 }, 2);
    varint(&mut out, list.len() as u64);
    let begin = out.len();
    out.extend_from_slice(&list);
    Item { bytes: out, number: None, end: None, now: places.into_iter().map(|place| begin + place).collect() }
}

/// An attribute in the field of that number.
fn text(number: u64, name: &str, value: &str) -> Vec<u8> {
    attribute(number, name, &field(1, value.as_bytes()))
}

fn int(number: u64, name: &str, value: u64) -> Vec<u8> {
    let mut of = Vec::new();
    key(&mut of, 3, 0);
    varint(&mut of, value);
    attribute(number, name, &of)
}

fn attribute(number: u64, name: &str, value: &[u8]) -> Vec<u8> {
    field(number, &[field(1, name.as_bytes()), field(2, value)].concat())
}

fn field(number: u64, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    bytes(&mut out, number, value);
    out
}

fn bytes(out: &mut Vec<u8>, number: u64, value: &[u8]) {
    key(out, number, 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// Writes the field and gives the place of its value.
fn fixed64(out: &mut Vec<u8>, number: u64, value: u64) -> usize {
    key(out, number, 1);
    let place = out.len();
    out.extend_from_slice(&value.to_le_bytes());
    place
}

fn key(out: &mut Vec<u8>, number: u64, wire_type: u64) {
    varint(out, number << 3 | wire_type);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Numbers that follow from a seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(self.0) >> 1
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.next() as usize % of.len()]
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.next() as u8)
    }
}
