//! `prometheus.scrape`, from the configuration to what a receiver gets.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use corten_component::Definition;
use corten_config::decode::Decode as _;
use corten_config::encode;
use corten_config::schema::Stability;
use corten_config::value::Value;
use corten_net::Dialer;
use corten_prometheus::relabel::Relabel;
use corten_prometheus::scrape::Scrape;
use corten_signal::flow::BoxFuture;
use corten_signal::metrics::{CUSTOM_BUCKETS_SCHEMA, HistogramCounts, MetricType, Origin, ResetHint};
use corten_signal::target::Target;
use corten_signal::{Consume, ConsumeError, Inlet, Metrics, MetricsBatch};
use corten_testkit::{Server, Unit, World, answer, host, stays, until, until_some, unused_address};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::TcpListener;

use crate::collect::{Batch, Collector};

const SCRAPE: Definition = Definition::of::<Scrape>();
const ID: &str = "prometheus.scrape.a";

/// The labels that the series of [`Rig::start`]'s target carry.
const L: &str = r#"{instance="i",job="j"}"#;

struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

/// A target that exposes what the test says.
struct Exposer {
    server: Server,
    reply: Arc<Mutex<Reply>>,
}

const TEXT: &str = "text/plain; version=0.0.4";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROTOBUF: &str = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

impl Exposer {
    async fn start(body: &str) -> Self {
        let reply = Reply { status: 200, headers: vec![("content-type", TEXT.to_owned())], body: body.into() };
        let reply = Arc::new(Mutex::new(reply));
        let answers = Arc::clone(&reply);
        let server = Server::start(move |_| {
            let reply = answers.lock();
            let headers: Vec<(&str, &str)> =
                reply.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            answer(reply.status, &headers, reply.body.clone())
        })
        .await;
        Exposer { server, reply }
    }

    /// Exposes another text of the same type.
    fn set(&self, body: &str) {
        self.reply.lock().body = body.into();
    }

    fn set_all(&self, status: u16, headers: &[(&'static str, &str)], body: impl Into<Vec<u8>>) {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        *self.reply.lock() = Reply { status, headers, body: body.into() };
    }

    fn target(&self) -> String {
        target(&self.server.address().to_string(), "i", "")
    }
}

fn target(address: &str, instance: &str, more: &str) -> String {
    format!("{{\"__address__\" = {address:?}, \"instance\" = {instance:?}, {more}}}")
}

/// Short, but long enough for an answer on a busy machine.
const INTERVAL: &str = "200ms";

fn body_of(targets: &[String], more: &str) -> String {
    let spans = if more.contains("scrape_interval") {
        String::new()
    } else {
        format!("scrape_interval = \"{INTERVAL}\"\nscrape_timeout = \"{INTERVAL}\"\n")
    };
    let job = if more.contains("job_name") { "" } else { "job_name = \"j\"\n" };
    format!("targets = [{}]\nforward_to = [sink]\n{job}{spans}{more}", targets.join(", "))
}

/// A `prometheus.scrape` that runs, and what it forwards to.
struct Rig {
    unit: Unit,
    sink: Collector,
}

impl Rig {
    async fn try_start(world: World, targets: &[String], more: &str) -> Result<Self, String> {
        let sink = Collector::new();
        let names = [("sink", sink.receiver())];
        let unit = Unit::start_with(world, &SCRAPE, &body_of(targets, more), &names).await?;
        Ok(Rig { unit, sink })
    }

    async fn start(targets: &[String], more: &str) -> Self {
        Self::try_start(host(ID), targets, more).await.unwrap()
    }

    async fn of(exposer: &Exposer, more: &str) -> Self {
        Self::start(&[exposer.target()], more).await
    }

    async fn update(&mut self, targets: &[String], more: &str) {
        self.unit.update(&body_of(targets, more)).await.unwrap();
    }

    /// A scrape that succeeded, after the first `skip` batches.
    async fn up(&self, skip: usize) -> Batch {
        self.sink.wait("a scrape succeeds", skip, Batch::is_up).await
    }

    /// A scrape that failed, after the first `skip` batches.
    async fn down(&self, skip: usize) -> Batch {
        self.sink.wait("a scrape fails", skip, |batch| batch.value("up") == "0").await
    }

    fn metric(&self, name: &str) -> f64 {
        self.unit.world.metric(name).unwrap_or_else(|| panic!("there is no {name}"))
    }

    fn debug_info(&self) -> String {
        let info = self.unit.world.host().debug_info.lock().clone();
        encode::json(&info.map(|info| info.debug_info()).unwrap_or_default())
    }

    /// Waits until the debug information says this.
    async fn tells(&self, text: &str) {
        let text = serde_json::json!(text).to_string();
        until(&format!("it tells {text}"), || self.debug_info().contains(text.trim_matches('"'))).await;
    }
}

/// Whatever a test does: each item is somewhere. A scrape does not wait between its counts.
impl Drop for Rig {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = self.unit.world.balance();
        }
    }
}

/// Lines with the labels of the target of a rig: `a 1` becomes `a{instance="i",job="j"} 1`.
fn lines(texts: &[&str]) -> Vec<String> {
    let line = |text: &&str| {
        let (name, value) = text.rsplit_once(' ').unwrap();
        if name.contains('{') { (*text).to_owned() } else { format!("{name}{L} {value}") }
    };
    texts.iter().map(line).collect()
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

// What became of every sample.

#[tokio::test]
async fn what_becomes_of_each_sample_is_counted() {
    let ahead = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() + 3_600_000;
    let histogram = |last: u64| {
        format!("# TYPE h histogram\nh_bucket{{le=\"1\"}} 1\nh_bucket{{le=\"+Inf\"}} {last}\nh_sum 3\nh_count {last}\n")
    };
    let exemplars = format!(
        "# TYPE c counter\nc_total 1 # {{t=\"1\"}} 1 1.0\nd 2\n# TYPE e counter\ne_total 1 # {{t=\"{}\"}} 1 1.0\n# EOF\n",
        "x".repeat(200)
    );
    let cases = [
        (
            "",
            TEXT,
            format!("a 1\na 2\nb 3\nc 1 {ahead}\n"),
            "received 4, out 7, created {report: 5}, dropped {duplicate: 1, out of bounds: 1}",
        ),
        (
            "sample_limit = 1",
            TEXT,
            "a 1\nb 2\n".to_owned(),
            "received 2, out 5, created {report: 5}, dropped {sample limit: 2}",
        ),
        (
            "label_limit = 3",
            TEXT,
            "a 1\nb{x=\"1\"} 1\n".to_owned(),
            "received 1, out 5, created {report: 5}, dropped {label limit: 1}",
        ),
        ("", TEXT, "a 1\n=\n".to_owned(), "received 1, out 5, created {report: 5}, dropped {scrape failed: 1}"),
        ("", OPEN_METRICS, exemplars, "received 5, out 9, created {report: 5}, dropped {exemplar left out: 1}"),
        (
            "convert_classic_histograms_to_nhcb = true\nscrape_native_histograms = true",
            TEXT,
            histogram(2) + "a 1\n",
            "received 5, out 7, created {nhcb: 1, report: 5}, merged {nhcb: 4}",
        ),
        (
            "convert_classic_histograms_to_nhcb = true\nscrape_native_histograms = true",
            TEXT,
            histogram(0) + "a 1\n",
            "received 5, out 6, created {report: 5}, dropped {no histogram: 4}",
        ),
        (
            "convert_classic_histograms_to_nhcb = true\nscrape_native_histograms = true\nscrape_classic_histograms = true",
            TEXT,
            histogram(2),
            "received 4, out 10, created {nhcb: 1, report: 5}",
        ),
    ];
    let (local, mut running) = (tokio::task::LocalSet::new(), tokio::task::JoinSet::new());
    for (more, content_type, body, expected) in cases {
        let case = async move {
            let exposer = Exposer::start("").await;
            exposer.set_all(200, &[("content-type", content_type)], body.clone());
            // Long enough for one scrape alone.
            let more = format!("{more}\nscrape_interval = \"2s\"\nscrape_timeout = \"2s\"");
            let mut rig = Rig::of(&exposer, &more).await;
            until("there is a scrape", || rig.sink.count() > 0).await;
            rig.unit.drain().await;
            assert_eq!(rig.unit.world.balance_of(corten_signal::Kind::PrometheusMetric), expected, "{body}");
        };
        running.spawn_local_on(case, &local);
    }
    local.await;
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test]
async fn what_nobody_takes_is_dropped() {
    let exposer = Exposer::start("a 1\nb 2\n").await;
    let gone = Inlet::<Metrics>::of(&corten_signal::Ledger::new("prometheus.echo.gone"));
    gone.close();
    let (sink, gone) = (Collector::new(), gone.receiver().to_value());
    let names = [("sink", gone.clone())];
    let body = body_of(&[exposer.target()], "");
    let unit = Unit::start_with(host(ID), &SCRAPE, &body, &names).await.unwrap();
    let books = || unit.world.balance_of(corten_signal::Kind::PrometheusMetric);
    until("there is a scrape", || !books().is_empty()).await;
    let counts = books();
    assert!(counts.starts_with("received 2, created {report: 5}, dropped {exited: 7}"), "{counts}");
    drop(unit);
    // One takes it: for the other it is lost, and nothing is made twice.
    let names = [("gone", gone), ("sink", sink.receiver())];
    let body = body.replace("[sink]", "[gone, sink]");
    let unit = Unit::start_with(host(ID), &SCRAPE, &body, &names).await.unwrap();
    until("there is a scrape", || sink.count() > 0).await;
    let counts = unit.world.balance_of(corten_signal::Kind::PrometheusMetric);
    assert!(counts.starts_with("received 2, out 7, created {report: 5}"), "{counts}");
    let edges = unit.world.balance().edges;
    assert_eq!((&*edges[0].to, edges[0].lost.clone()), ("prometheus.echo.gone", vec![("exited".to_owned(), 7)]));
}

// The request.

#[tokio::test]
async fn a_request_says_what_is_wanted() {
    let exposer = Exposer::start("a 1\n").await;
    let rig = Rig::of(
        &exposer,
        "scrape_interval = \"300ms\"\nscrape_timeout = \"250ms\"\nhttp_headers = { \"X-Scope\" = [\"a\", \"b\"] }",
    )
    .await;
    rig.up(0).await;
    let seen = &exposer.server.seen()[0];
    assert_eq!((seen.method.as_str(), seen.target.as_str(), seen.body.len()), ("GET", "/metrics", 0));
    assert_eq!(
        seen.header("accept"),
        "application/openmetrics-text;version=1.0.0;escaping=underscores;q=0.6,\
         application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=underscores;q=0.4,\
         text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
    );
    assert_eq!(seen.header("accept-encoding"), "gzip");
    assert_eq!(seen.header("x-prometheus-scrape-timeout-seconds"), "0.25");
    assert_eq!(seen.header("user-agent"), "Corten/v0.0.0 (test; binary)");
    assert_eq!(seen.header("host"), exposer.server.address().to_string());
    let scopes: Vec<_> = seen.headers.get_all("x-scope").iter().collect();
    assert_eq!(scopes, ["a", "b"]);
}

#[tokio::test]
async fn native_histograms_are_asked_for_as_protocol_buffers() {
    let exposer = Exposer::start("a 1\n").await;
    let rig = Rig::of(&exposer, "scrape_native_histograms = true\nenable_compression = false").await;
    rig.up(0).await;
    let seen = &exposer.server.seen()[0];
    assert_eq!(
        seen.header("accept"),
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
         application/openmetrics-text;version=1.0.0;escaping=underscores;q=0.5,\
         application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=underscores;q=0.3,\
         text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
    );
    assert_eq!(seen.header("accept-encoding"), "identity");
}

#[tokio::test]
async fn labels_of_a_target_make_its_url() {
    let exposer = Exposer::start("a 1\n").await;
    let more = "\"__metrics_path__\" = \"/probe\", \"__param_module\" = \"http\", \"__param_x\" = \"a b\"";
    let target = target(&exposer.server.address().to_string(), "i", more);
    let rig = Rig::start(&[target], "params = { \"module\" = [\"icmp\", \"dns\"], \"debug\" = [\"1\"] }").await;
    let batch = rig.up(0).await;
    assert_eq!(exposer.server.seen()[0].target, "/probe?debug=1&module=http&module=dns&x=a+b");
    assert_eq!(batch.lines(), lines(&["a 1"]), "no label of the request stands on a sample");
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let exposer = Exposer::start("a 1\n").await;
    let rig = Rig::of(&exposer, "").await;
    until("there are four scrapes", || rig.sink.count() >= 4).await;
    let peers: std::collections::BTreeSet<String> = exposer.server.seen().into_iter().map(|seen| seen.peer).collect();
    // A scrape that takes too long gives its connection up.
    let failed = rig.sink.batches().iter().filter(|batch| !batch.is_up()).count();
    assert!(peers.len() <= 1 + failed, "{peers:?}");
}

/// Answers for one address within the process.
struct Inside(AtomicUsize);

impl Dialer for Inside {
    fn dial_internal(&self, authority: &str) -> Option<DuplexStream> {
        if authority != "corten.internal:12345" {
            return None;
        }
        self.0.fetch_add(1, Ordering::Relaxed);
        let (ours, mut theirs) = tokio::io::duplex(64 << 10);
        tokio::spawn(async move {
            let mut request = Vec::new();
            while theirs.read_buf(&mut request).await.is_ok_and(|read| read > 0) {
                if request.ends_with(b"\r\n\r\n") {
                    request.clear();
                    let answer = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 4\r\n\r\na 1\n";
                    if theirs.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
        });
        Some(ours)
    }
}

#[tokio::test]
async fn a_target_within_the_process_is_scraped_without_a_socket() {
    let inside = Arc::new(Inside(AtomicUsize::new(0)));
    let dialer = Arc::clone(&inside);
    let world = World::with(ID, |services| services.dialer = dialer);
    let targets = [target("corten.internal:12345", "i", "\"job\" = \"integrations/x\"")];
    let rig = Rig::try_start(world, &targets, "").await.unwrap();
    let batch = rig.up(0).await;
    assert_eq!(batch.lines(), [r#"a{instance="i",job="integrations/x"} 1"#]);
    rig.up(1).await;
    assert_eq!(inside.0.load(Ordering::Relaxed), 1, "the connection is used again");
}

// The answer.

#[tokio::test]
async fn a_status_other_than_200_ends_the_series() {
    let exposer = Exposer::start("a 1\nb 2\n").await;
    let rig = Rig::of(&exposer, "").await;
    assert_eq!(rig.up(0).await.lines(), lines(&["a 1", "b 2"]));
    exposer.set_all(503, &[], "a 1\n");
    let batch = rig.down(0).await;
    assert_eq!(batch.lines(), lines(&["a stale", "b stale"]));
    assert_eq!(batch.samples.iter().filter(|got| got.time_ms != batch.time_ms()).count(), 0);
    assert_eq!(batch.value("scrape_samples_scraped"), "0");
    rig.tells("server returned HTTP status 503 Service Unavailable").await;
    exposer.set_all(204, &[], "");
    rig.tells("server returned HTTP status 204 No Content").await;
    // Markers are written once.
    let after = rig.sink.count();
    let again = rig.down(after).await;
    assert_eq!(again.lines(), lines(&[]));
    exposer.set_all(200, &[("content-type", TEXT)], "a 3\n");
    assert_eq!(rig.up(after).await.lines(), lines(&["a 3"]));
}

#[tokio::test]
async fn an_empty_body_is_a_scrape_without_samples() {
    let exposer = Exposer::start("a 1\n").await;
    let rig = Rig::of(&exposer, "").await;
    rig.up(0).await;
    exposer.set("");
    let batch = rig.sink.wait("the series ends", 0, Batch::has_marker).await;
    assert_eq!((batch.value("up"), batch.lines()), ("1", lines(&["a stale"])));
}

#[tokio::test]
async fn a_body_may_be_compressed() {
    let exposer = Exposer::start("").await;
    let headers = [("content-type", TEXT), ("content-encoding", "gzip")];
    exposer.set_all(200, &headers, gzip(b"a 1\nb 2\n"));
    let rig = Rig::of(&exposer, "extra_metrics = true").await;
    let batch = rig.up(0).await;
    assert_eq!(batch.lines(), lines(&["a 1", "b 2"]));
    assert_eq!(batch.value("scrape_body_size_bytes"), "8");
    exposer.set_all(200, &headers, b"a 1\n".to_vec());
    assert_eq!(rig.down(0).await.lines(), lines(&["a stale", "b stale"]), "what is not compressed is no answer");
    let cut = &gzip(b"a 1\nb 2\n")[..20];
    exposer.set_all(200, &headers, cut.to_vec());
    let skip = rig.sink.count();
    rig.down(skip + 1).await;
}

#[tokio::test]
async fn a_bomb_is_not_read_beyond_the_limit() {
    let exposer = Exposer::start("a 1\n").await;
    let rig = Rig::of(&exposer, "body_size_limit = \"64KiB\"\nextra_metrics = true").await;
    rig.up(0).await;
    let bomb = gzip(&vec![b'\n'; 32 << 20]);
    exposer.set_all(200, &[("content-type", TEXT), ("content-encoding", "gzip")], bomb);
    let batch = rig.down(0).await;
    assert_eq!(batch.lines(), lines(&["a stale"]));
    assert_eq!(batch.value("scrape_body_size_bytes"), "-1");
    rig.tells("body size limit exceeded").await;
    assert!(rig.metric("prometheus_target_scrapes_exceeded_body_size_limit_total") >= 1.0);
}

#[tokio::test]
async fn a_body_of_just_the_limit_fails() {
    let exposer = Exposer::start("a 1\nb 2\n").await;
    let mut rig = Rig::of(&exposer, "body_size_limit = \"8B\"\nextra_metrics = true").await;
    assert_eq!(rig.down(0).await.value("scrape_body_size_bytes"), "-1");
    rig.update(&[exposer.target()], "body_size_limit = \"9B\"\nextra_metrics = true").await;
    assert_eq!(rig.up(0).await.value("scrape_body_size_bytes"), "8");
}

#[tokio::test]
async fn an_answer_without_a_known_type_is_read_as_the_fallback_says() {
    for headers in [&[][..], &[("content-type", "")], &[("content-type", "application/json")]] {
        let exposer = Exposer::start("").await;
        exposer.set_all(200, headers, "# TYPE a counter\na_total 1\n# EOF\n");
        let mut rig = Rig::of(&exposer, "").await;
        assert_eq!(rig.up(0).await.lines(), lines(&["a_total 1"]), "{headers:?}");
        // Without the end that OpenMetrics asks for.
        exposer.set_all(200, headers, "a 1\n");
        rig.up(1).await;
        rig.update(&[exposer.target()], "scrape_fallback_protocol = \"OpenMetricsText1.0.0\"").await;
        rig.down(0).await;
    }
}

#[tokio::test]
async fn without_a_fallback_an_answer_needs_a_known_type() {
    let exposer = Exposer::start("").await;
    exposer.set_all(200, &[], "a 1\n");
    let rig = Rig::of(&exposer, "scrape_fallback_protocol = \"\"").await;
    rig.down(0).await;
    rig.tells(
        "non-compliant scrape target sending blank Content-Type and no fallback_scrape_protocol specified for target",
    )
    .await;
    exposer.set_all(200, &[("content-type", "application/json")], "a 1\n");
    let text =
        "received unsupported Content-Type \"application/json\" and no fallback_scrape_protocol specified for target";
    rig.tells(text).await;
    exposer.set_all(200, &[("content-type", "application/json")], "");
    let skip = rig.sink.count();
    assert_eq!(rig.up(skip).await.lines(), lines(&[]));
    exposer.set_all(200, &[("content-type", "text/plain")], "a 1\n");
    rig.up(0).await;
}

#[tokio::test]
async fn open_metrics_bring_exemplars_and_need_their_end() {
    let exposer = Exposer::start("").await;
    let text = "# TYPE a counter\na_total 1 # {trace_id=\"x\"} 0.5 1520879607.789\n\
                # TYPE h histogram\nh_bucket{le=\"1\"} 1 # {trace_id=\"y\"} 0.7\nh_bucket{le=\"+Inf\"} 1\nh_count 1\nh_sum 1\n";
    let (whole, cut) = (format!("{text}# EOF\n"), text);
    exposer.set_all(200, &[("content-type", OPEN_METRICS)], whole);
    let rig = Rig::of(&exposer, "").await;
    let batch = rig.up(0).await;
    let of_bucket = r#"h_bucket{instance="i",job="j",le="1.0"}"#;
    assert_eq!(
        batch.exemplars,
        [
            format!("a_total{L} {{trace_id=\"x\"}} 0.5 @1520879607789"),
            format!("{of_bucket} {{trace_id=\"y\"}} 0.7 @{}", batch.time_ms()),
        ]
    );
    assert!(batch.lines().contains(&format!("{of_bucket} 1")), "{:?}", batch.lines());
    exposer.set_all(200, &[("content-type", OPEN_METRICS)], cut);
    let batch = rig.down(0).await;
    assert_eq!((batch.lines().len(), batch.exemplars.len()), (5, 0));
    assert!(batch.lines().iter().all(|line| line.ends_with(" stale")));
    assert_eq!(batch.value("scrape_samples_scraped"), "5", "as many as were read");
}

// Histograms.

/// Writes protocol buffers.
#[derive(Default)]
struct Proto(Vec<u8>);

impl Proto {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn int(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    fn signed(self, field: u64, value: i64) -> Self {
        self.int(field, (value << 1 ^ value >> 63) as u64)
    }

    fn double(mut self, field: u64, value: f64) -> Self {
        self.varint(field << 3 | 1);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn bytes(mut self, field: u64, value: impl AsRef<[u8]>) -> Self {
        self.varint(field << 3 | 2);
        self.varint(value.as_ref().len() as u64);
        self.0.extend(value.as_ref());
        self
    }

    fn delimited(self) -> Vec<u8> {
        let mut out = Proto::default();
        out.varint(self.0.len() as u64);
        out.0.extend(self.0);
        out.0
    }
}

/// A family `h` with one histogram, native and classic, whose buckets above zero hold 1 and 2 observations.
fn native_family(count: u64) -> Vec<u8> {
    let bucket = |upto: f64, count: u64| Proto::default().int(1, count).double(2, upto).0;
    let histogram = Proto::default()
        .int(1, count)
        .double(2, 4.5)
        .bytes(3, bucket(1.0, 1))
        .bytes(3, bucket(f64::INFINITY, count))
        .signed(5, 3)
        .double(6, 0.001)
        .int(7, 0)
        .bytes(12, Proto::default().signed(1, 0).int(2, 2).0)
        .signed(13, 1)
        .signed(13, 1)
        .0;
    Proto::default().bytes(1, "h").int(3, 4).bytes(4, Proto::default().bytes(7, histogram).0).delimited()
}

#[tokio::test]
async fn native_histograms_are_forwarded_when_asked_for() {
    let exposer = Exposer::start("").await;
    let headers = [("content-type", PROTOBUF)];
    exposer.set_all(200, &headers, native_family(3));
    let mut rig = Rig::of(&exposer, "scrape_native_histograms = true").await;
    let batch = rig.up(0).await;
    assert_eq!(batch.lines(), lines(&[]), "the classic series are left out");
    let (series, histogram, time_ms) = &batch.histograms[0];
    assert_eq!((series.as_str(), *time_ms), (format!("h{L}").as_str(), batch.time_ms()));
    assert_eq!((histogram.schema, histogram.sum), (3, 4.5));
    let HistogramCounts::Int { count, positive_deltas, .. } = &histogram.counts else { panic!("{histogram:?}") };
    assert_eq!((*count, positive_deltas.as_slice()), (3, &[1, 1][..]));

    rig.update(&[exposer.target()], "scrape_native_histograms = true\nscrape_classic_histograms = true").await;
    let both = rig.sink.wait("classic series are kept", 0, |batch| !batch.lines().is_empty()).await;
    assert_eq!(both.histograms.len(), 1);
    let classic = [
        r#"h_bucket{instance="i",job="j",le="+Inf"} 3"#,
        r#"h_bucket{instance="i",job="j",le="1.0"} 1"#,
        "h_count 3",
        "h_sum 4.5",
    ];
    assert_eq!(both.lines(), lines(&classic));

    // A native histogram ends with a marker that is a number.
    rig.update(&[exposer.target()], "scrape_native_histograms = false").await;
    let plain = rig.sink.wait("only classic series are left", 0, |batch| batch.value("h") == "stale").await;
    assert!(plain.histograms.is_empty());
    let mut expected = lines(&classic);
    expected.push(format!("h{L} stale"));
    expected.sort();
    assert_eq!(plain.lines(), expected);
}

#[tokio::test]
async fn a_histogram_that_cannot_be_reduced_to_the_bucket_limit_fails() {
    let exposer = Exposer::start("").await;
    exposer.set_all(200, &[("content-type", OPEN_METRICS)], CLASSIC);
    let more = "convert_classic_histograms_to_nhcb = true\nnative_histogram_bucket_limit = 1";
    let rig = Rig::of(&exposer, more).await;
    rig.down(0).await;
    assert!(rig.metric("prometheus_target_scrapes_exceeded_native_histogram_bucket_limit_total") >= 1.0);
}

const CLASSIC: &str = "# TYPE h histogram\nh_bucket{le=\"0.5\"} 1\nh_bucket{le=\"1\"} 3\nh_bucket{le=\"+Inf\"} 4\n\
                       h_count 4\nh_sum 7\n# EOF\n";

#[tokio::test]
async fn classic_histograms_become_native_ones_with_their_own_bounds() {
    let exposer = Exposer::start("").await;
    exposer.set_all(200, &[("content-type", OPEN_METRICS)], CLASSIC);
    let rig = Rig::of(&exposer, "convert_classic_histograms_to_nhcb = true").await;
    let batch = rig.up(0).await;
    assert_eq!(batch.lines(), lines(&[]));
    let (series, histogram, _) = &batch.histograms[0];
    assert_eq!(series, &format!("h{L}"));
    assert_eq!((histogram.schema, histogram.custom_values.as_slice()), (CUSTOM_BUCKETS_SCHEMA, &[0.5, 1.0][..]));
    let HistogramCounts::Int { count, positive_deltas, .. } = &histogram.counts else { panic!("{histogram:?}") };
    assert_eq!((*count, positive_deltas.as_slice()), (4, &[1, 1, -1][..]));
}

#[tokio::test]
async fn one_target_may_convert_its_histograms() {
    let exposer = Exposer::start("").await;
    exposer.set_all(200, &[("content-type", OPEN_METRICS)], CLASSIC);
    let more = "\"__convert_classic_histograms_to_nhcb__\" = \"t\", \"__always_scrape_classic_histograms__\" = \"1\"";
    let rig = Rig::start(&[target(&exposer.server.address().to_string(), "i", more)], "").await;
    let batch = rig.up(0).await;
    assert_eq!((batch.histograms.len(), batch.lines().len()), (1, 5));
}

// Labels and times.

#[tokio::test]
async fn labels_of_the_target_win_unless_exposed_ones_are_honoured() {
    let exposer = Exposer::start("a{job=\"x\",exported_job=\"y\",instance=\"\"} 1\n").await;
    let mut rig = Rig::of(&exposer, "").await;
    let expected = r#"a{exported_exported_job="x",exported_job="y",instance="i",job="j"} 1"#;
    assert_eq!(rig.up(0).await.lines(), [expected]);
    rig.update(&[exposer.target()], "honor_labels = true").await;
    let batch = rig.sink.wait("exposed labels are honoured", 0, Batch::has_marker).await;
    let marker = expected.replace(" 1", " stale");
    assert_eq!(batch.lines(), [marker.as_str(), r#"a{exported_job="y",job="x"} 1"#]);
}

#[tokio::test]
async fn exposed_times_are_used_if_honoured() {
    let exposer = Exposer::start("a 1 1000\nb 2\n").await;
    let mut rig = Rig::of(&exposer, "").await;
    let times = |batch: &Batch| -> Vec<i64> {
        let exposed = batch.samples.iter().filter(|got| ["a", "b"].contains(&got.name()));
        exposed.map(|got| got.time_ms).collect()
    };
    let batch = rig.up(0).await;
    let mut of_first = times(&batch);
    of_first.sort_unstable();
    assert_eq!(of_first, [1000, batch.time_ms()]);
    // A series with a time of its own ends without a marker.
    exposer.set("");
    let batch = rig.sink.wait("the other ends", 0, Batch::has_marker).await;
    assert_eq!(batch.lines(), lines(&["b stale"]));
    exposer.set("a 1 1000\nb 2\n");
    let skip = rig.sink.count();
    rig.update(&[exposer.target()], "honor_timestamps = false").await;
    let what = "times are those of the scrape";
    rig.sink.wait(what, skip, |batch| times(batch) == [batch.time_ms(), batch.time_ms()]).await;
}

#[tokio::test]
async fn the_first_and_the_last_time_that_can_be_written_harm_nobody() {
    let exposer = Exposer::start("").await;
    let body = "a 1 -9223372036854775\nb 2 9223372036854775\nc 3 0.001\nd 4\n# EOF\n";
    exposer.set_all(200, &[("content-type", OPEN_METRICS)], body);
    let rig = Rig::of(&exposer, "").await;
    for skip in 0..2 {
        let batch = rig.up(skip).await;
        assert_eq!(batch.lines(), lines(&["a 1", "c 3", "d 4"]));
        let time = |name: &str| batch.samples.iter().find(|got| got.name() == name).unwrap().time_ms;
        let times = ["a", "c", "d"].map(time);
        assert_eq!(times[1..], [1, batch.time_ms()]);
        assert!(times[0] < -9_223_372_036_854_774_000, "{}", times[0]);
    }
}

#[tokio::test]
async fn series_with_times_end_with_markers_if_they_are_tracked() {
    let exposer = Exposer::start("a 1 1000\n").await;
    let rig = Rig::of(&exposer, "track_timestamps_staleness = true").await;
    rig.up(0).await;
    exposer.set("");
    let batch = rig.sink.wait("the series ends", 0, Batch::has_marker).await;
    assert_eq!(batch.lines(), lines(&["a stale"]));
    assert!(batch.samples.iter().all(|got| got.time_ms == batch.time_ms()));
}

#[tokio::test]
async fn job_and_instance_have_defaults() {
    let exposer = Exposer::start("a 1\n").await;
    let address = exposer.server.address().to_string();
    let plain = format!("{{\"__address__\" = {address:?}, \"__meta_x\" = \"y\", \"__z\" = \"1\", \"empty\" = \"\"}}");
    let own = format!("{{\"__address__\" = {address:?}, \"job\" = \"integrations/x\", \"instance\" = \"k\"}}");
    let mut rig = Rig::start(&[plain.clone(), own.clone()], "job_name = \"\"").await;
    let default = format!("a{{instance={address:?},job={ID:?}}} 1");
    rig.sink.wait("the defaults stand", 0, |batch| batch.lines() == [default.as_str()]).await;
    let kept = r#"a{instance="k",job="integrations/x"} 1"#;
    rig.sink.wait("a target's own labels stand", 0, |batch| batch.lines() == [kept]).await;
    rig.update(&[plain, own], "job_name = \"named\"").await;
    let named = format!("a{{instance={address:?},job=\"named\"}} 1");
    let skip = rig.sink.count();
    rig.sink.wait("the job is named", skip, |batch| batch.lines() == [named.as_str()]).await;
    rig.sink.wait("a target's own labels stand", skip, |batch| batch.lines() == [kept]).await;
    let metrics = rig.unit.world.metrics();
    let count = |job: &str| metrics.get("prometheus_target_scrape_pool_targets", &[("scrape_job", job)]);
    assert_eq!((count("named"), count(ID)), (Some(2.0), None));
    // Nor does the old job end with markers.
    until("there are some more", || rig.sink.count() > skip + 8).await;
    assert!(!rig.sink.any(0, Batch::has_marker));
}

#[tokio::test]
async fn labels_beyond_the_limits_fail_the_scrape() {
    for (limit, body, text) in [
        ("label_limit = 3", "a{b=\"1\"} 1\n", "label_limit exceeded (metric: a, number of labels: 4, limit: 3)"),
        (
            "label_name_length_limit = 8",
            "a{bbbbbbbbb=\"1\"} 1\n",
            "label_name_length_limit exceeded (metric: a, label name: bbbbbbbbb, length: 9, limit: 8)",
        ),
        (
            "label_value_length_limit = 3",
            "a{b=\"1234\"} 1\n",
            "label_value_length_limit exceeded (metric: a, label name: b, value: \"1234\", length: 4, limit: 3)",
        ),
    ] {
        let exposer = Exposer::start("a 1\n").await;
        let rig = Rig::of(&exposer, limit).await;
        rig.up(0).await;
        exposer.set(body);
        assert_eq!(rig.down(0).await.lines(), lines(&["a stale"]), "{limit}");
        rig.tells(text).await;
        assert!(rig.metric("prometheus_target_scrape_pool_exceeded_label_limits_total") >= 1.0, "{limit}");
    }
}

#[tokio::test]
async fn names_beyond_ascii_fail_the_scrape_unless_allowed() {
    let exposer = Exposer::start("a 1\n{\"my.metric\"} 2\n").await;
    let mut rig = Rig::of(&exposer, "").await;
    assert_eq!(rig.down(0).await.lines(), lines(&[]));
    rig.tells(r#"invalid metric name or label names: {__name__="my.metric", instance="i", job="j"}"#).await;
    rig.update(&[exposer.target()], "metric_name_validation_scheme = \"utf8\"").await;
    assert_eq!(rig.up(0).await.lines(), lines(&["a 1", "my.metric 2"]));
    let accept = exposer.server.seen().last().map(|seen| seen.header("accept").to_owned()).unwrap_or_default();
    assert!(accept.contains(";escaping=allow-utf-8;"), "{accept}");
}

#[tokio::test]
async fn a_label_that_stands_twice_fails_the_scrape() {
    let exposer = Exposer::start("a 1\n").await;
    let rig = Rig::of(&exposer, "").await;
    rig.up(0).await;
    exposer.set("a 1\nb{c=\"1\",c=\"2\"} 1\n");
    assert_eq!(rig.down(0).await.lines(), lines(&["a stale"]));
}

#[tokio::test]
async fn more_samples_than_the_limit_store_nothing() {
    let exposer = Exposer::start("a 1\nb 2\n").await;
    let rig = Rig::of(&exposer, "sample_limit = 2\nextra_metrics = true").await;
    rig.up(0).await;
    exposer.set("a 1\nc 2\nd 3\n");
    let batch = rig.down(0).await;
    assert_eq!(batch.lines(), lines(&["a stale", "b stale"]));
    assert_eq!((batch.value("scrape_samples_scraped"), batch.value("scrape_sample_limit")), ("3", "2"));
    rig.tells("sample limit exceeded").await;
    assert!(rig.metric("prometheus_target_scrapes_exceeded_sample_limit_total") >= 1.0);
    let skip = rig.sink.count();
    assert_eq!(rig.down(skip).await.lines(), lines(&[]));
    exposer.set("c 1\n");
    assert_eq!(rig.up(skip).await.lines(), lines(&["c 1"]));
}

#[tokio::test]
async fn what_stands_twice_does_not_count_for_the_limit() {
    let exposer = Exposer::start("a 1\na 2\nb 3\n").await;
    let rig = Rig::of(&exposer, "sample_limit = 2\nextra_metrics = true").await;
    let batch = rig.up(0).await;
    assert_eq!((batch.lines(), batch.value("scrape_samples_scraped")), (lines(&["a 1", "b 3"]), "3"));
    let body = "a 1\na 2\nb 3\nc 4\n";
    exposer.set(body);
    let batch = rig.down(0).await;
    // All of it is read, to be counted.
    assert_eq!(batch.value("scrape_samples_scraped"), "4");
    assert_eq!(batch.value("scrape_body_size_bytes"), body.len().to_string());
}

#[tokio::test]
async fn limits_are_not_negative() {
    for limit in [
        "sample_limit",
        "target_limit",
        "label_limit",
        "label_name_length_limit",
        "label_value_length_limit",
        "native_histogram_bucket_limit",
    ] {
        let error = Rig::try_start(host(ID), &[], &format!("{limit} = -1")).await.err().unwrap();
        assert!(error.contains("a limit must not be negative; 0 is no limit"), "{limit}: {error}");
    }
}

#[tokio::test]
async fn more_targets_than_the_limit_are_not_asked_at_all() {
    let exposer = Exposer::start("a 1\n").await;
    let address = exposer.server.address().to_string();
    let (one, two) = (target(&address, "i", ""), target(&address, "k", ""));
    let mut rig = Rig::start(std::slice::from_ref(&one), "target_limit = 1").await;
    rig.up(0).await;
    rig.update(&[one.clone(), two], "target_limit = 1").await;
    let batch = rig.sink.wait("the first fails", 0, |batch| batch.is_of("i") && !batch.is_up()).await;
    assert_eq!(batch.lines(), lines(&["a stale"]));
    rig.sink.wait("the second fails", 0, |batch| batch.is_of("k") && !batch.is_up()).await;
    rig.tells("target_limit exceeded (number of targets: 2, limit: 1)").await;
    let asked = exposer.server.seen().len();
    let skip = rig.sink.count();
    until("there are more scrapes", || rig.sink.count() >= skip + 4).await;
    assert_eq!(exposer.server.seen().len(), asked);
    assert!(rig.metric("prometheus_target_scrape_pool_exceeded_target_limit_total") >= 1.0);
    rig.update(&[one], "target_limit = 1").await;
    assert_eq!(rig.up(skip).await.lines(), lines(&["a 1"]));
}

#[tokio::test]
async fn a_series_that_stands_twice_counts_once() {
    let exposer = Exposer::start("a 1\na 2\nb{c=\"1\"} 3\nb{ c=\"1\" } 4\n").await;
    let rig = Rig::of(&exposer, "").await;
    let expected = lines(&["a 1", r#"b{c="1",instance="i",job="j"} 3"#]);
    for skip in 0..3 {
        assert_eq!(rig.up(skip).await.lines(), expected);
    }
    assert!(rig.metric("prometheus_target_scrapes_sample_duplicate_timestamp_total") >= 6.0);
    exposer.set("");
    let batch = rig.sink.wait("the series end", 0, Batch::has_marker).await;
    assert_eq!(batch.lines().len(), 2, "each ends once");
}

#[tokio::test]
async fn samples_far_ahead_are_dropped() {
    let exposer = Exposer::start("a 1 99999999999999\nb 2\n").await;
    let rig = Rig::of(&exposer, "track_timestamps_staleness = true").await;
    assert_eq!(rig.up(0).await.lines(), lines(&["b 2"]));
    assert!(rig.metric("prometheus_target_scrapes_sample_out_of_bounds_total") >= 1.0);
    exposer.set("");
    let batch = rig.sink.wait("the other ends", 0, Batch::has_marker).await;
    assert_eq!(batch.lines(), lines(&["b stale"]), "what was never sent does not end");
}

// The series that a scrape makes itself.

#[tokio::test]
async fn a_scrape_reports_on_itself_last_and_in_order() {
    let exposer = Exposer::start("a 1\nb 2\n").await;
    let mut rig = Rig::of(&exposer, "").await;
    let first = rig.up(0).await;
    let names = |batch: &Batch| -> Vec<String> { batch.samples.iter().map(|got| got.name().to_owned()).collect() };
    let five = [
        "up",
        "scrape_duration_seconds",
        "scrape_samples_scraped",
        "scrape_samples_post_metric_relabeling",
        "scrape_series_added",
    ];
    assert_eq!(names(&first)[2..], five);
    let report = first.report();
    assert_eq!(
        (report[0].as_str(), report[2].as_str()),
        (format!("up{L} 1").as_str(), format!("scrape_samples_scraped{L} 2").as_str())
    );
    assert_eq!((first.value("scrape_samples_post_metric_relabeling"), first.value("scrape_series_added")), ("2", "2"));
    let took: f64 = first.value("scrape_duration_seconds").parse().unwrap();
    assert!(took > 0.0 && took < 1.0, "{took}");
    assert_eq!(rig.up(1).await.value("scrape_series_added"), "0");

    rig.update(&[exposer.target()], "extra_metrics = true\nsample_limit = 7").await;
    let more = rig.sink.wait("there are eight", 0, |batch| batch.report().len() == 8).await;
    let eight = [&five[..], &["scrape_timeout_seconds", "scrape_sample_limit", "scrape_body_size_bytes"]].concat();
    assert_eq!(names(&more)[2..], eight);
    assert_eq!(
        (more.value("scrape_timeout_seconds"), more.value("scrape_sample_limit"), more.value("scrape_body_size_bytes")),
        ("0.2", "7", "8")
    );
    assert!(!rig.sink.any(0, Batch::has_marker));

    rig.update(&[exposer.target()], "").await;
    let less = rig.sink.wait("those on request end", 0, Batch::has_marker).await;
    let ended: Vec<&str> = less.samples.iter().filter(|got| got.value == "stale").map(|got| got.name()).collect();
    assert_eq!(ended, eight[5..]);
    assert_eq!(less.lines(), lines(&["a 1", "b 2"]));
}

// Which targets are scraped, and when.

#[tokio::test]
async fn a_target_may_have_its_own_interval_and_a_bad_one_harms_no_other() {
    let exposer = Exposer::start("a 1\n").await;
    let address = exposer.server.address().to_string();
    let own = "\"__scrape_interval__\" = \"400ms\", \"__scrape_timeout__\" = \"350ms\"";
    let targets = [
        target(&address, "own", own),
        target(&address, "zero", "\"__scrape_interval__\" = \"0s\""),
        target(&address, "text", "\"__scrape_interval__\" = \"often\""),
        target(&address, "long", "\"__scrape_timeout__\" = \"1m\""),
        target(&address, "flag", "\"__scrape_native_histograms__\" = \"maybe\""),
        target("a/b", "slash", ""),
        "{\"instance\" = \"lost\"}".to_owned(),
    ];
    let rig = Rig::start(&targets, "extra_metrics = true").await;
    let batch = rig.up(0).await;
    assert_eq!(batch.value("scrape_timeout_seconds"), "0.35");
    assert_eq!(exposer.server.seen()[0].header("x-prometheus-scrape-timeout-seconds"), "0.35");
    rig.up(3).await;
    let batches = rig.sink.batches();
    assert!(batches.iter().all(|batch| batch.is_of("own")));
    // Three intervals of its own, the first of which may have begun late.
    let between = batches[3].time_ms() - batches[0].time_ms();
    assert!(between >= 700, "{between}");
    let failed = rig.unit.world.metrics().get("prometheus_target_sync_failed_total", &[("scrape_job", "j")]);
    assert_eq!(failed, Some(6.0));
    assert_eq!(rig.metric("prometheus_scrape_targets_gauge"), 1.0);
    let logs = rig.unit.world.logs();
    for text in ["no address", "is not a valid hostname", "scrape interval cannot be 0", "Creating target failed"] {
        assert!(logs.contains(text), "{text}: {logs}");
    }
}

#[tokio::test]
async fn a_target_that_is_named_twice_is_scraped_once() {
    let exposer = Exposer::start("a 1\n").await;
    let address = exposer.server.address().to_string();
    let targets = [target(&address, "i", "\"__meta_x\" = \"1\""), target(&address, "i", "\"__meta_x\" = \"2\"")];
    let rig = Rig::start(&targets, "").await;
    until("there are some scrapes", || rig.sink.count() >= 8).await;
    // On a busy machine one may be late, and the next one is in time all the same.
    let times: Vec<i64> = rig.sink.batches().iter().map(Batch::time_ms).collect();
    let span = times[times.len() - 1] - times[0];
    assert!(times.len() as i64 - 1 <= span / 200 + 2, "{times:?}");
    assert_eq!(rig.metric("prometheus_scrape_targets_gauge"), 1.0);
}

#[tokio::test]
async fn the_series_of_a_target_that_is_gone_end_after_two_more_ticks() {
    let (stays_there, goes) = (Exposer::start("a 1\n").await, Exposer::start("a 1\nb 2\n").await);
    let staying = target(&stays_there.server.address().to_string(), "k", "");
    let mut rig = Rig::start(&[goes.target(), staying.clone()], "").await;
    rig.sink.wait("it is scraped", 0, |batch| batch.is_of("i") && batch.is_up()).await;
    rig.update(&[staying], "").await;
    let ended = rig.sink.wait("it ends", 0, |batch| batch.is_of("i") && batch.has_marker()).await;
    let batches = rig.sink.batches();
    let last = batches.iter().rfind(|batch| batch.is_of("i") && batch.is_up()).unwrap().time_ms();
    let at = batches.iter().position(|batch| batch.has_marker()).unwrap();
    let newest_before = batches[..at].iter().filter(|batch| batch.is_of("k")).map(Batch::time_ms).max().unwrap();
    assert_eq!(ended.lines(), lines(&["a stale", "b stale"]));
    assert_eq!(ended.report().len(), 5);
    let times: Vec<i64> = ended.samples.iter().map(|got| got.time_ms).collect();
    assert!(times.iter().all(|time| *time == times[0]));
    assert!(times[0] > last, "at a tick after: {} {last}", times[0]);
    assert!(newest_before >= times[0], "later than that tick: {newest_before} {}", times[0]);
    let skip = rig.sink.count();
    until("the other goes on", || rig.sink.count() >= skip + 3).await;
    assert!(!rig.sink.any(skip, |batch| batch.is_of("i") || batch.has_marker()));
}

#[tokio::test]
async fn a_target_that_comes_back_in_time_goes_on() {
    let exposer = Exposer::start("a 1\n").await;
    let mut rig = Rig::of(&exposer, "").await;
    rig.up(0).await;
    for _ in 0..3 {
        rig.update(&[], "").await;
        tokio::task::yield_now().await;
        rig.update(&[exposer.target()], "").await;
    }
    let skip = rig.sink.count();
    until("it is scraped again", || rig.sink.count() >= skip + 4).await;
    assert!(!rig.sink.any(0, Batch::has_marker));
    assert!(rig.sink.batches()[1..].iter().all(|batch| batch.value("scrape_series_added") == "0"));
}

#[tokio::test]
async fn a_target_that_comes_back_late_begins_anew() {
    let exposer = Exposer::start("a 1\n").await;
    let mut rig = Rig::of(&exposer, "").await;
    rig.up(0).await;
    rig.update(&[], "").await;
    rig.sink.wait("it ends", 0, Batch::has_marker).await;
    let skip = rig.sink.count();
    rig.update(&[exposer.target()], "").await;
    let batch = rig.up(skip).await;
    assert_eq!((batch.lines(), batch.value("scrape_series_added")), (lines(&["a 1"]), "1"));
}

#[tokio::test]
async fn nothing_ends_when_the_component_does() {
    let exposer = Exposer::start("a 1\n").await;
    let mut rig = Rig::of(&exposer, "").await;
    rig.up(0).await;
    rig.unit.drain().await;
    let (count, asked) = (rig.sink.count(), exposer.server.seen().len());
    stays("all is quiet", Duration::from_millis(800), || rig.sink.count() == count).await;
    assert_eq!(exposer.server.seen().len(), asked);
    assert!(!rig.sink.any(0, Batch::has_marker));
}

#[tokio::test]
async fn a_target_that_hangs_does_not_keep_the_component_from_ending() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    let hang = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            open.push(stream);
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let spans = "scrape_interval = \"60s\"\nscrape_timeout = \"60s\"";
    // Of so many targets one is soon asked.
    let targets: Vec<String> = (0..300).map(|at| target(&address, &format!("i{at}"), "")).collect();
    let mut rig = Rig::start(&targets, spans).await;
    until("a request is under way", || accepted.load(Ordering::SeqCst) > 0).await;
    let started = std::time::Instant::now();
    rig.unit.drain().await;
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert_eq!(rig.sink.count(), 0);
    hang.abort();
}

#[tokio::test]
async fn nothing_ends_when_only_times_limits_or_the_client_change() {
    let exposer = Exposer::start("a 1\nb 2\n").await;
    let mut rig = Rig::of(&exposer, "").await;
    for change in [
        "scrape_interval = \"300ms\"\nscrape_timeout = \"300ms\"",
        "scrape_interval = \"300ms\"\nscrape_timeout = \"250ms\"",
        "sample_limit = 10",
        "http_headers = { \"X\" = [\"y\"] }",
        "basic_auth {\n username = \"u\"\n password = \"p\"\n}",
    ] {
        let skip = rig.sink.count();
        rig.up(skip).await;
        rig.update(&[exposer.target()], change).await;
        let skip = rig.sink.count() + 1;
        let batch = rig.up(skip).await;
        assert_eq!((batch.lines(), batch.value("scrape_series_added")), (lines(&["a 1", "b 2"]), "0"), "{change}");
        assert!(!rig.sink.any(0, Batch::has_marker), "{change}");
    }
    assert_eq!(exposer.server.seen().last().unwrap().header("authorization"), "Basic dTpw");
}

#[tokio::test]
async fn other_changes_end_only_the_series_that_vanish() {
    let exposer = Exposer::start("a 1\nb{job=\"x\"} 2\n").await;
    let mut rig = Rig::of(&exposer, "").await;
    rig.up(0).await;
    rig.update(&[exposer.target()], "honor_labels = true").await;
    let batch = rig.sink.wait("a series ends", 0, Batch::has_marker).await;
    assert_eq!(
        batch.lines(),
        [
            format!("a{L} 1"),
            r#"b{exported_job="x",instance="i",job="j"} stale"#.to_owned(),
            r#"b{instance="i",job="x"} 2"#.to_owned(),
        ]
    );
    assert_eq!(batch.value("up"), "1");
    // Where a request goes does not matter either, as long as the labels stay.
    let skip = rig.sink.count();
    rig.update(&[exposer.target()], "honor_labels = true\nmetrics_path = \"/other\"").await;
    until("the other path is asked", || exposer.server.seen().iter().any(|seen| seen.target == "/other")).await;
    until("there are more scrapes", || rig.sink.count() >= skip + 6).await;
    assert!(!rig.sink.any(skip, Batch::has_marker));
    // What the new place does not expose ends.
    exposer.set("a 3\n");
    rig.update(&[exposer.target()], "honor_labels = true\nmetrics_path = \"/third\"").await;
    let batch = rig.sink.wait("what is not there ends", skip, Batch::has_marker).await;
    assert_eq!(batch.lines(), [format!("a{L} 3"), r#"b{instance="i",job="x"} stale"#.to_owned()]);
}

// Targets that do not behave.

#[tokio::test]
async fn a_target_that_dribbles_times_out_and_others_go_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let slow = listener.local_addr().unwrap().to_string();
    let dribble = tokio::spawn(async move {
        let mut open = tokio::task::JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            open.spawn(async move {
                let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n";
                if stream.write_all(head).await.is_err() {
                    return;
                }
                while stream.write_all(b"1\r\n#\r\n").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            });
        }
    });
    let good = Exposer::start("a 1\n").await;
    let rig = Rig::start(&[good.target(), target(&slow, "slow", "")], "").await;
    let batch = rig.sink.wait("the slow one fails", 0, |batch| batch.is_of("slow")).await;
    assert_eq!(batch.value("up"), "0");
    let took: f64 = batch.value("scrape_duration_seconds").parse().unwrap();
    assert!((0.2..5.0).contains(&took), "{took}");
    rig.tells("context deadline exceeded").await;
    let skip = rig.sink.count();
    rig.sink.wait("the good one goes on", skip, |batch| batch.is_of("i") && batch.is_up()).await;
    rig.sink.wait("the slow one is tried again", skip, |batch| batch.is_of("slow")).await;
    dribble.abort();
}

#[tokio::test]
async fn garbage_and_endless_lines_of_one_target_disturb_no_other() {
    let good = Exposer::start("a 1\n").await;
    let bad = Exposer::start("").await;
    let rig = Rig::start(
        &[good.target(), target(&bad.server.address().to_string(), "bad", "")],
        "body_size_limit = \"1MiB\"",
    )
    .await;
    for body in [vec![0xff; 5000], b"a{ 1\n".to_vec(), vec![b'x'; 2 << 20], b"a{b=\"".repeat(1000), vec![0; 100]] {
        bad.set_all(200, &[("content-type", TEXT)], body.clone());
        // The scrape that is under way may have the body before.
        let skip = rig.sink.count() + 2;
        let shown = String::from_utf8_lossy(&body[..5]).into_owned();
        rig.sink.wait(&format!("{shown:?} fails"), skip, |batch| batch.is_of("bad") && !batch.is_up()).await;
        rig.sink.wait("the good one goes on", skip, |batch| batch.is_of("i") && batch.is_up()).await;
    }
    bad.set_all(200, &[("content-type", TEXT)], "b 1\n");
    rig.sink.wait("the bad one is good", 0, |batch| batch.is_of("bad") && batch.is_up()).await;
}

#[tokio::test]
async fn a_target_that_is_not_there_is_down() {
    let rig = Rig::start(&[target(&unused_address().to_string(), "i", "")], "").await;
    assert_eq!(rig.down(0).await.lines(), lines(&[]));
    rig.tells("refused").await;
}

// What it tells.

#[tokio::test]
async fn debug_information_tells_of_each_target() {
    let exposer = Exposer::start("a 1\n").await;
    let rig = Rig::of(&exposer, "").await;
    let url = exposer.server.url("/metrics");
    let json = |rig: &Rig| -> serde_json::Value { serde_json::from_str(&rig.debug_info()).unwrap() };
    let field = |info: &serde_json::Value, name: &str| -> String {
        let body = info[0]["body"].as_array().unwrap();
        let found = body.iter().find(|item| item["name"] == name);
        found.map_or_else(String::new, |item| item["value"]["value"].to_string())
    };
    rig.up(0).await;
    until("it is known to be up", || field(&json(&rig), "health") == "\"up\"").await;
    let info = json(&rig);
    assert_eq!((info[0]["name"].as_str(), info[0]["type"].as_str()), (Some("target"), Some("block")));
    assert_eq!((field(&info, "job"), field(&info, "url")), ("\"j\"".to_owned(), format!("{url:?}")));
    assert!(field(&info, "labels").contains("instance"), "{info}");
    assert!(!field(&info, "last_scrape").is_empty() && !field(&info, "last_scrape_duration").is_empty());
    assert_eq!(field(&info, "last_error"), "");
    exposer.set_all(500, &[], "");
    until("it is known to be down", || field(&json(&rig), "health") == "\"down\"").await;
    assert_eq!(field(&json(&rig), "last_error"), "\"server returned HTTP status 500 Internal Server Error\"");
}

#[tokio::test]
async fn all_targets_are_shown_with_what_became_of_them() {
    let exposer = Exposer::start("a 1\nb 2\n").await;
    let address = exposer.server.address().to_string();
    let of = |more: &str| target(&address, "i", more);
    let mut rig = Rig::start(
        &[
            of("\"__meta_zone\" = \"north\""),
            of("\"__meta_zone\" = \"south\""),
            target("a/b", "no", ""),
            target(&address, "down", "\"__param_x\" = \"1\", \"__scheme__\" = \"https\""),
        ],
        "",
    )
    .await;
    let shown = |rig: &Rig| {
        let info = rig.unit.world.host().debug_info.lock().clone().unwrap();
        let mut targets: Vec<String> = Vec::new();
        for target in info.targets().unwrap().targets() {
            let (last, zone) = (target.last(), target.discovered().get("__meta_zone").unwrap_or("-"));
            let labels = target.labels().map_or_else(|| "-".to_owned(), Target::to_string);
            let (samples, why) = (last.samples.unwrap_or_default(), last.error.unwrap_or_default());
            assert_eq!(last.at.is_some(), last.took.is_some());
            let why = if why.len() > 60 { String::new() } else { why };
            targets.push(format!("{} {zone} {:?} {labels} {samples} {why}", target.state().as_str(), target.url()));
        }
        targets.sort();
        targets
    };
    let url = exposer.server.url("/metrics");
    let urls = format!("https://{address}/metrics?x=xxxxx");
    let expected = [
        format!("down - {urls:?} {{instance=\"down\", job=\"j\"}} 0 "),
        "dropped south \"\" - 0 it is the same as another target".to_owned(),
        "refused - \"\" - 0 \"a/b\" is not a valid hostname".to_owned(),
        format!("up north {url:?} {{instance=\"i\", job=\"j\"}} 2 "),
    ];
    let same = |rig: &Rig| shown(rig).iter().zip(&expected).all(|(a, b)| a.starts_with(b.as_str()));
    let is_done = |shown: &[String]| shown.len() == 4 && shown[0].starts_with("down") && shown[3].starts_with("up");
    until("both were scraped", || is_done(&shown(&rig))).await;
    assert!(same(&rig), "{:#?}", shown(&rig));
    // What only discovery says of it changes, and it is scraped on as it was.
    rig.update(&[of("\"__meta_zone\" = \"east\"")], "").await;
    until("it is known", || shown(&rig).len() == 1 && shown(&rig)[0].starts_with("up east")).await;
}

#[tokio::test]
async fn failed_scrapes_are_written_to_a_file() {
    let exposer = Exposer::start("").await;
    exposer.set_all(500, &[], "");
    let world = host(ID);
    let path = world.path("failures.json");
    let more = format!("scrape_failure_log_file = {:?}", path.to_str().unwrap());
    let rig = Rig::try_start(world, &[exposer.target()], &more).await.unwrap();
    let read = || std::fs::read_to_string(&path).unwrap_or_default();
    until("two lines are written", || read().lines().count() >= 2).await;
    let line: serde_json::Value = serde_json::from_str(read().lines().next().unwrap()).unwrap();
    assert_eq!(line["job_name"], "j");
    assert_eq!(line["target"], exposer.server.url("/metrics"));
    assert_eq!(line["msg"], "server returned HTTP status 500 Internal Server Error");
    drop(rig);

    let more = "scrape_failure_log_file = \"/no/such/folder/x\"";
    let error = Rig::try_start(host(ID), &[exposer.target()], more).await.err().unwrap();
    assert!(error.contains("could not open scrape failure log file"), "{error}");
}

// Metadata and start times.

#[tokio::test]
async fn experimental_arguments_are_refused_below_that_stability() {
    for name in ["honor_metadata", "enable_type_and_unit_labels", "start_timestamp_zero_ingestion"] {
        let world = World::with(ID, |services| services.stability = Stability::PublicPreview);
        let error = Rig::try_start(world, &[], &format!("{name} = true")).await.err().unwrap();
        let refusal = format!(
            "{name} is an experimental feature, and must be enabled by setting the stability.level flag to experimental"
        );
        assert!(error.ends_with(&refusal), "{error}");
    }
}

#[tokio::test]
async fn metadata_are_forwarded_when_new_and_when_they_change() {
    let body =
        |help: &str| format!("# HELP a {help}\n# TYPE a counter\na_total 1\nb 2\n# TYPE h histogram\nh_count 1\n");
    let exposer = Exposer::start(&body("Some.")).await;
    let rig = Rig::of(&exposer, "honor_metadata = true").await;
    let first = rig.up(0).await;
    let of_target = |batch: &Batch| -> Vec<String> {
        let exposed = batch.metadata.iter().filter(|line| !line.starts_with("up{") && !line.starts_with("scrape_"));
        exposed.cloned().collect()
    };
    // The text format names the family of a counter like its series.
    assert_eq!(
        of_target(&first),
        [format!("a_total{L} a counter \"Some.\" \"\""), format!("h_count{L} h histogram \"\" \"\""),]
    );
    let up = format!(
        "up{L} up gauge \"Health of the scrape target. 1 means the target is healthy, 0 if the scrape failed.\" \"targets\""
    );
    assert!(first.metadata.contains(&up), "{:?}", first.metadata);
    assert!(rig.up(1).await.metadata.is_empty());
    exposer.set(&body("Other."));
    let changed = rig.sink.wait("what is new is told", 1, |batch| !batch.metadata.is_empty()).await;
    assert_eq!(changed.metadata, [format!("a_total{L} a counter \"Other.\" \"\"")]);
}

#[tokio::test]
async fn type_and_unit_become_labels_when_asked_for() {
    let exposer = Exposer::start("").await;
    let body = "# TYPE a_seconds counter\n# UNIT a_seconds seconds\na_seconds_total 1\n# TYPE b unknown\nb{__type__=\"x\"} 2\n\
                # EOF\n";
    exposer.set_all(200, &[("content-type", OPEN_METRICS)], body);
    let rig = Rig::of(&exposer, "enable_type_and_unit_labels = true").await;
    let expected = [
        r#"a_seconds_total{__type__="counter",__unit__="seconds",instance="i",job="j"} 1"#.to_owned(),
        format!("b{L} 2"),
    ];
    for skip in 0..2 {
        assert_eq!(rig.up(skip).await.lines(), expected);
    }
}

#[tokio::test]
async fn the_start_of_a_series_makes_a_zero_once() {
    let exposer = Exposer::start("").await;
    let body = |start: &str| format!("# TYPE a counter\na_total 5\na_created {start}\n# EOF\n");
    exposer.set_all(200, &[("content-type", OPEN_METRICS)], body("1500000000.5"));
    let rig = Rig::of(&exposer, "start_timestamp_zero_ingestion = true").await;
    let first = rig.up(0).await;
    let times: Vec<(String, i64)> = first.samples[..2].iter().map(|got| (got.to_string(), got.time_ms)).collect();
    assert_eq!(times, [(format!("a_total{L} 0"), 1_500_000_000_500), (format!("a_total{L} 5"), first.time_ms()),]);
    assert_eq!(rig.up(1).await.lines(), lines(&["a_total 5"]));
    // A later start is a new one; so is one of a moment ago.
    let recent = (first.time_ms() - 1) as f64 / 1000.0;
    exposer.set_all(200, &[("content-type", OPEN_METRICS)], body(&recent.to_string()));
    let skip = rig.sink.count();
    let later = first.time_ms() + 1;
    let again = rig.sink.wait("it was scraped", skip + 1, Batch::is_up).await;
    assert_eq!(again.lines(), lines(&["a_total 5"]), "what began before the last scrape has begun already");
    exposer.set_all(200, &[("content-type", OPEN_METRICS)], body(&((again.time_ms() + 1) as f64 / 1000.0).to_string()));
    let restarted = rig.sink.wait("it starts again", skip, |batch| batch.lines().len() == 2).await;
    assert_eq!(restarted.samples[0].value, "0");
    assert!(restarted.samples[0].time_ms > later && restarted.samples[1].value == "5");
    assert!(restarted.samples[0].time_ms < restarted.samples[1].time_ms);
}

#[tokio::test]
async fn a_change_of_the_configuration_starts_no_series_again() {
    let exposer = Exposer::start("").await;
    let body = "# TYPE a counter\na_total 5\na_created 1500000000\n# EOF\n";
    exposer.set_all(200, &[("content-type", OPEN_METRICS)], body);
    let more = "start_timestamp_zero_ingestion = true";
    let mut rig = Rig::of(&exposer, more).await;
    assert_eq!(rig.up(0).await.lines().len(), 2);
    for change in ["honor_labels = true", "honor_labels = true\nmetrics_path = \"/x\""] {
        rig.update(&[exposer.target()], &format!("{more}\n{change}")).await;
        let skip = rig.sink.count();
        until("there are more scrapes", || rig.sink.count() >= skip + 4).await;
        assert!(!rig.sink.any(1, |batch| batch.lines().len() != 1), "{change}");
    }
}

#[tokio::test]
async fn the_start_of_a_native_histogram_is_an_empty_one() {
    let exposer = Exposer::start("").await;
    let start = Proto::default().int(1, 1_500_000_000).0;
    let histogram = Proto::default()
        .int(1, 1)
        .double(2, 1.0)
        .signed(5, 0)
        .double(6, 0.001)
        .bytes(12, Proto::default().signed(1, 0).int(2, 1).0)
        .signed(13, 1)
        .bytes(15, start)
        .0;
    let family = Proto::default().bytes(1, "h").int(3, 4).bytes(4, Proto::default().bytes(7, histogram).0).delimited();
    exposer.set_all(200, &[("content-type", PROTOBUF)], family);
    let more = "start_timestamp_zero_ingestion = true\nscrape_native_histograms = true";
    let rig = Rig::of(&exposer, more).await;
    let first = rig.up(0).await;
    assert_eq!(first.histograms.len(), 2, "{:?}", first.histograms);
    let (_, empty, time_ms) = &first.histograms[0];
    assert_eq!((*time_ms, empty.reset_hint, empty.sum), (1_500_000_000_000, ResetHint::Yes, 0.0));
    assert_eq!(rig.up(1).await.histograms.len(), 1);
}

// Reloads.

#[tokio::test]
async fn reloads_under_load_lose_nothing() {
    let body: String = (0..500).map(|at| format!("a{{n=\"{at}\"}} {at}\n")).collect();
    let exposer = Exposer::start(&body).await;
    let address = exposer.server.address().to_string();
    let targets: Vec<String> = (0..5).map(|at| target(&address, &format!("i{at}"), "")).collect();
    let mut rig = Rig::start(&targets, "sample_limit = 1000").await;
    until("all are scraped", || rig.sink.count() >= 10).await;
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    for at in 0..200 {
        rig.update(&targets, &format!("sample_limit = {}", 1001 + at)).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let skip = rig.sink.count();
    until("there are some more", || rig.sink.count() >= skip + 10).await;
    let now = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    // Scrapes that overlap need a connection each, and a connection is a task at either end.
    assert!(now <= tasks + 2 * targets.len(), "{now} tasks after {tasks}");
    rig.unit.drain().await;
    let batches = rig.sink.batches();
    assert_eq!(batches.len(), exposer.server.seen().len(), "one batch an answer");
    // On a busy machine one may take too long, which no reload is to blame for.
    let took = |batch: &Batch| batch.value("scrape_duration_seconds").parse::<f64>().unwrap();
    let is_whole = |batch: &Batch| batch.is_up() && batch.lines().len() == 500 && !batch.has_marker();
    assert!(batches.iter().all(|batch| is_whole(batch) || !batch.is_up() && took(batch) >= 0.2));
    for at in 0..5 {
        let times: Vec<i64> = batches.iter().filter(|b| b.is_of(&format!("i{at}"))).map(Batch::time_ms).collect();
        assert!(times.windows(2).all(|pair| pair[1] > pair[0]), "{times:?}");
        let span = times[times.len() - 1] - times[0];
        assert!(times.len() as i64 >= span / 400 - 2, "{} scrapes in {span} ms", times.len());
    }
}

#[tokio::test]
async fn loops_of_targets_that_are_gone_end() {
    let exposer = Exposer::start("a 1\n").await;
    let address = exposer.server.address().to_string();
    let of = |at: usize| target(&address, &format!("i{at}"), "");
    let mut rig = Rig::start(&[of(0)], "").await;
    rig.up(0).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    for at in 1..=200 {
        rig.update(&[of(at)], "").await;
        tokio::task::yield_now().await;
    }
    rig.sink.wait("the last is scraped", 0, |batch| batch.is_of("i200") && batch.is_up()).await;
    rig.sink.wait("the first ends", 0, |batch| batch.is_of("i0") && batch.has_marker()).await;
    until("all other loops have ended", || tasks() <= before).await;
    assert_eq!(rig.metric("prometheus_scrape_targets_gauge"), 1.0);
    let skip = rig.sink.count();
    until_some("the last goes on", || (rig.sink.count() >= skip + 3).then_some(())).await;
    assert!(!rig.sink.any(skip, |batch| !batch.is_of("i200")));
}

/// Keeps where samples come from, if it asks for that.
struct Asking {
    asks: bool,
    origins: Arc<Mutex<Vec<Option<Origin>>>>,
}

impl Consume<Metrics> for Asking {
    fn consume(&self, batch: Arc<MetricsBatch>) -> BoxFuture<'_, Result<(), ConsumeError>> {
        self.origins.lock().push(batch.origin.clone());
        Box::pin(async { Ok(()) })
    }

    fn wants_origin(&self) -> bool {
        self.asks
    }
}

#[tokio::test]
async fn where_samples_come_from_is_said_to_those_who_ask_behind_rules_too() {
    let exposer = Exposer::start("# HELP a Some.\n# TYPE a counter\na 1\n").await;
    let target = |namespace: &str| {
        let more = format!(r#""__meta_kubernetes_namespace" = "{namespace}", "job" = "other""#);
        target(&exposer.server.address().to_string(), "i", &more)
    };
    for asks in [true, false] {
        let (inlet, origins) = (Inlet::new("otelcol.receiver.prometheus.a"), Arc::<Mutex<Vec<_>>>::default());
        inlet.attach(Arc::new(Asking { asks, origins: Arc::clone(&origins) }));
        let body = "forward_to = [sink]\nrule {\n target_label = \"x\"\n replacement = \"y\"\n}";
        let names = [("sink", Value::capsule(Arc::new(inlet.receiver())))];
        let rules = Definition::of::<Relabel>();
        let rules = Unit::start_with(host("prometheus.relabel.a"), &rules, body, &names).await.unwrap();
        let names = [("sink", Value::capsule(Arc::new(rules.world.receiver::<Metrics>("receiver"))))];
        let mut unit = Unit::start_with(host(ID), &SCRAPE, &body_of(&[target("ns")], ""), &names).await.unwrap();
        until("it was scraped", || !origins.lock().is_empty()).await;
        let Some(first) = origins.lock()[0].clone() else {
            assert!(!asks);
            continue;
        };
        assert!(asks);
        assert_eq!((&*first.target.job, &*first.target.instance, &*first.target.scheme), ("other", "i", "http"));
        assert_eq!(first.target.discovered.get("__meta_kubernetes_namespace"), Some("ns"));
        let family = &first.families["a"];
        assert_eq!((family.metric_type, &*family.help), (MetricType::Counter, "Some."));
        // What was said is still known when a scrape fails, and is known anew when it changes.
        exposer.set_all(500, &[], "");
        let count = origins.lock().len();
        until("a scrape failed", || origins.lock().len() > count + 1).await;
        assert!(origins.lock().last().unwrap().as_ref().unwrap().families.contains_key("a"));
        exposer.set_all(200, &[("content-type", TEXT)], "# TYPE a gauge\na 1\n# TYPE b gauge\nb 1\n");
        let changed = |origin: &Option<Origin>| origin.as_ref().is_some_and(|origin| origin.families.contains_key("b"));
        until("what is new is known", || origins.lock().iter().any(changed)).await;
        let last = origins.lock().last().unwrap().clone().unwrap();
        assert_eq!(last.families["a"].metric_type, MetricType::Gauge);
        // What discovery says of the target is what it said last.
        unit.update(&body_of(&[target("moved")], "")).await.unwrap();
        let moved = |origin: &Option<Origin>| {
            let found = origin.as_ref().map(|origin| &origin.target.discovered);
            found.is_some_and(|found| found.get("__meta_kubernetes_namespace") == Some("moved"))
        };
        until("the change is known", || origins.lock().iter().any(moved)).await;
        exposer.set_all(200, &[("content-type", TEXT)], "# HELP a Some.\n# TYPE a counter\na 1\n");
    }
}
