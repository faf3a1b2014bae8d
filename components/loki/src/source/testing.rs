//! What tests of sources need: a receiver that keeps what it is sent, and clients.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use corten_config::Value;
use corten_config::decode::Decode as _;
use corten_config::encode::Item;
use corten_net::{Body, Client, ClientConfig, ClientOptions};
use corten_signal::flow::BoxFuture;
use corten_signal::relabel::{Action, RelabelRules, Rule};
use corten_signal::{Acks, Consume, ConsumeError, Entries, Inlet, Kind, Logs, LogsBatch, Receiver, Stream};
use corten_testkit::{World, until_some};
use http::{HeaderMap, Method, Request};
use parking_lot::Mutex;

/// What a [`Sink`] does with what it is sent.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Then {
    /// All is safe.
    Safe,
    /// It is kept, as a stage does that waits for further lines.
    Hold,
    /// It is lost.
    Fail,
    /// It is kept without a word, until [`Sink::settle`].
    Keep,
    /// It is not taken.
    Refuse(ConsumeError),
}

/// Waits until the books of the component say this and all sums are even.
pub(super) async fn until_balance(world: &World, expected: &str) {
    let is_it = async {
        let is_even = || world.host().ledger.snapshot().open_sums().is_empty();
        while !is_even() || world.balance_of(Kind::LokiLog) != expected {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(30), is_it).await;
    assert!(waited.is_ok(), "expected {expected}: {:#?}", world.host().ledger.snapshot());
}

/// What the component tells whoever looks, each block as `name: a=1 b="x"`.
pub(super) fn debug_info(world: &World) -> Vec<String> {
    let info = world.host().debug_info.lock().clone();
    let shown = |item: Item| match item {
        Item::Block { name, body, .. } => {
            let attrs = body.into_iter().filter_map(|item| match item {
                Item::Attr { name, value } => Some(format!(" {name}={value}")),
                _ => None,
            });
            format!("{name}:{}", attrs.collect::<String>())
        }
        _ => String::new(),
    };
    info.map_or_else(Vec::new, |info| info.debug_info()).into_iter().map(shown).collect()
}

/// Keeps what it is sent, and does with it as it is told.
#[derive(Clone)]
pub(super) struct Sink {
    batches: Arc<Mutex<Vec<LogsBatch>>>,
    kept: Arc<Mutex<Vec<Acks>>>,
    pub(super) then: Arc<Mutex<Then>>,
    receiver: Receiver<Logs>,
    asked: Arc<AtomicUsize>,
}

struct Stage(Sink);

impl Consume<Logs> for Stage {
    fn consume(&self, mut batch: LogsBatch) -> BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(async move {
            self.0.asked.fetch_add(1, Ordering::Relaxed);
            let acks = std::mem::take(&mut batch.acks);
            let then = self.0.then.lock().clone();
            if let Then::Refuse(error) = then {
                return Err(error);
            }
            self.0.batches.lock().push(batch);
            match then {
                Then::Safe => acks.safe(),
                Then::Fail => acks.fail(),
                Then::Hold => {
                    acks.hold();
                    self.0.kept.lock().push(acks);
                }
                _ => self.0.kept.lock().push(acks),
            }
            Ok(())
        })
    }
}

impl Sink {
    pub(super) fn new() -> Self {
        Self::that(Then::Safe)
    }

    pub(super) fn that(then: Then) -> Self {
        let inlet = Inlet::new("loki.echo.sink");
        let receiver = inlet.receiver();
        let then = Arc::new(Mutex::new(then));
        let sink = Sink { batches: Arc::default(), kept: Arc::default(), then, receiver, asked: Arc::default() };
        inlet.attach(Arc::new(Stage(sink.clone())));
        sink
    }

    /// As a receiver.
    pub(super) fn receiver(&self) -> Receiver<Logs> {
        self.receiver.clone()
    }

    /// How often it was asked to take something.
    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// As a value of the configuration.
    pub(super) fn value(&self) -> Value {
        self.receiver.to_value()
    }

    /// What is kept is safe from here on.
    pub(super) fn settle(&self) {
        self.kept.lock().drain(..).for_each(Acks::safe);
    }

    /// What was sent, in lines of labels, line and metadata, without times.
    pub(super) fn shown(&self) -> Vec<String> {
        self.entries().into_iter().map(|(_, text)| text).collect()
    }

    /// What was sent, with times in nanoseconds.
    pub(super) fn entries(&self) -> Vec<(i64, String)> {
        self.batches.lock().iter().flat_map(|batch| shown(&batch.entries)).collect()
    }

    /// How often something was sent.
    pub(super) fn batches(&self) -> usize {
        self.batches.lock().len()
    }
}

/// Entries with their times, in lines of labels, line and metadata.
pub(super) fn shown(entries: &Entries) -> Vec<(i64, String)> {
    let mut shown = Vec::new();
    for (stream, list) in entries.parts() {
        for entry in list {
            let metadata: Vec<_> = entries.metadata(entry).collect();
            shown.push((entry.timestamp_ns, show(stream, entries.line(entry), &metadata)));
        }
    }
    shown
}

fn show(stream: &Stream, line: &[u8], metadata: &[(&[u8], &[u8])]) -> String {
    let mut text = format!("{} {}", stream.canonical(), String::from_utf8_lossy(line));
    for (name, value) in metadata {
        text.push_str(&format!(" {}={}", String::from_utf8_lossy(name), String::from_utf8_lossy(value)));
    }
    text
}

/// What the reference answered to something that a source was sent.
///
/// A case with `differs` says what is done otherwise on purpose, as `docs/differences.md` does, and has what comes out here
/// as `ours`. Texts of errors are our own; a time that is the one of the recording stands for the time of the receipt.
pub(super) struct Case(serde_json::Value);

/// A name, labels and a value of a metric.
type Series = (String, Vec<(String, String)>, f64);

/// When the cases were recorded.
const RECORDED_AT_NS: i64 = 1_787_313_600_000_000_000;

/// The cases of a file, and how many of them differ from the reference.
pub(super) fn recorded(file: &str) -> (Vec<Case>, usize) {
    let mut file: serde_json::Value = serde_json::from_str(file).unwrap();
    assert_eq!(file["now"], "2026-08-21T12:00:00Z");
    let cases: Vec<serde_json::Value> = serde_json::from_value(file["cases"].take()).unwrap();
    let cases: Vec<Case> = cases.into_iter().map(Case).collect();
    let differ = cases.iter().filter(|case| case.0.get("differs").is_some()).count();
    (cases, differ)
}

/// A text, or what is no text as base64.
fn bytes(json: &serde_json::Value) -> Vec<u8> {
    match json.as_str() {
        Some(text) => text.into(),
        None => base64::engine::general_purpose::STANDARD.decode(json["b64"].as_str().unwrap()).unwrap(),
    }
}

fn lossy(json: &serde_json::Value) -> String {
    String::from_utf8_lossy(&bytes(json)).into_owned()
}

impl Case {
    pub(super) fn json(&self) -> &serde_json::Value {
        &self.0
    }

    pub(super) fn uses_incoming_timestamp(&self) -> bool {
        self.0["use_incoming_timestamp"].as_bool().unwrap()
    }

    pub(super) fn body(&self) -> Vec<u8> {
        bytes(&self.0["body"])
    }

    pub(super) fn datagrams(&self) -> Vec<Vec<u8>> {
        self.0["datagrams"].as_array().unwrap().iter().map(bytes).collect()
    }

    /// How many errors are to be told of.
    pub(super) fn errors(&self) -> usize {
        self.output()["errors"].as_array().map_or(0, Vec::len)
    }

    /// What is to come out.
    fn output(&self) -> &serde_json::Value {
        self.0.get("ours").unwrap_or(&self.0["output"])
    }

    fn pairs(&self, of: &str) -> Vec<(String, String)> {
        let pairs = self.0[of].as_object().into_iter().flatten();
        pairs.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect()
    }

    pub(super) fn headers(&self) -> Vec<(String, String)> {
        self.pairs("headers")
    }

    /// The argument `labels`.
    pub(super) fn labels(&self) -> Vec<(String, String)> {
        self.pairs("labels")
    }

    /// The argument `relabel_rules` of all cases, where they apply.
    pub(super) fn rules() -> RelabelRules {
        let rule = Rule {
            action: Action::LabelMap,
            regex: "__(.+)".into(),
            replacement: "meta_$1".to_owned(),
            ..Rule::default()
        };
        RelabelRules([rule].into())
    }

    /// The arguments of a source that receives over HTTP.
    pub(super) fn arguments(&self) -> String {
        let mut text = format!(
            "forward_to = [sink]\nrelabel_rules = rules\nuse_incoming_timestamp = {}\n\
             http {{\n listen_address = \"127.0.0.1\"\n listen_port = 0\n }}\n",
            self.uses_incoming_timestamp()
        );
        if let Some(labels) = self.0.get("labels") {
            let labels: Vec<_> =
                labels.as_object().unwrap().iter().map(|(name, value)| format!("\"{name}\" = {value}")).collect();
            text.push_str(&format!("labels = {{ {} }}\n", labels.join(", ")));
        }
        if let Some(key) = self.0.get("access_key") {
            text.push_str(&format!("access_key = {key}\n"));
        }
        text
    }

    /// Metrics of the reference by name and labels, but for what it counts only after it has answered.
    pub(super) fn metrics(&self) -> Vec<Series> {
        let lines = self.0["output"]["metrics"].as_str().unwrap().lines();
        let lines = lines.filter(|line| !line.starts_with('#') && !line.contains("_entries_"));
        lines
            .map(|line| {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
                let labels = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty());
                let labels = labels.map(|label| {
                    let (name, value) = label.split_once('=').unwrap();
                    (name.to_owned(), value.trim_matches('"').to_owned())
                });
                (name.to_owned(), labels.collect(), value.parse().unwrap())
            })
            .collect()
    }

    /// How what came out differs from what is recorded. A source without HTTP has no status.
    pub(super) fn difference(&self, status: Option<u16>, mut entries: Vec<(i64, String)>) -> Option<String> {
        let output = self.output();
        let mut expected: Vec<_> =
            output["entries"].as_array().unwrap().iter().map(|entry| self.expected(entry)).collect();
        // Entries of different streams have no order.
        entries.sort_by(|a, b| a.1.cmp(&b.1));
        expected.sort_by(|a, b| a.1.cmp(&b.1));
        for ((is, text), (stated, expected)) in entries.iter_mut().zip(&mut expected) {
            if text == expected && *stated == RECORDED_AT_NS && (super::http::now_ns() - *is).abs() < 60_000_000_000 {
                *stated = *is;
            }
        }
        let expected_status = output["status"].as_u64().map(|status| u16::try_from(status).unwrap());
        let is_same = (status, &entries) == (expected_status, &expected);
        (!is_same).then(|| format!("{}\n  is     {status:?} {entries:?}", self.0))
    }

    fn expected(&self, entry: &serde_json::Value) -> (i64, String) {
        let labels = entry["labels"].as_object().unwrap();
        let labels: Vec<_> = labels.iter().map(|(name, value)| (name.clone(), lossy(value))).collect();
        let stream = Stream::of(labels.iter().map(|(name, value)| (&**name, &**value))).unwrap();
        let metadata = entry["metadata"].as_array().into_iter().flatten();
        let metadata: Vec<_> = metadata.map(|pair| (bytes(&pair[0]), bytes(&pair[1]))).collect();
        let metadata: Vec<_> = metadata.iter().map(|(name, value)| (&**name, &**value)).collect();
        let time = if entry["now"] == true { RECORDED_AT_NS } else { entry["ns"].as_i64().unwrap_or(i64::MIN) };
        (time, show(&stream, &bytes(&entry["line"]), &metadata))
    }
}

/// What a request was answered with.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

pub(super) async fn client() -> Client {
    Client::new(ClientConfig::default(), ClientOptions::default()).await.unwrap()
}

/// Sends a request and reads the answer.
pub(super) async fn send(
    client: &Client,
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    body: impl Into<Body>,
) -> Answered {
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = client.request(request.body(body.into()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let text = String::from_utf8(body.read(1 << 20).await.unwrap().to_vec()).unwrap();
    Answered { status: parts.status.as_u16(), headers: parts.headers, text }
}

/// The address that the log named last, in a line with this text.
pub(super) async fn address(world: &World, text: &str) -> SocketAddr {
    until_some("the component listens", || {
        let logs = world.logs();
        let line = logs.lines().rfind(|line| line.contains(text))?;
        let after = line.split("addr=").nth(1)?;
        after.split_whitespace().next()?.trim_matches('"').parse().ok()
    })
    .await
}

/// A short time in which nothing is to happen.
pub(super) const MOMENT: Duration = Duration::from_millis(50);
