//! What tests of sources need: a receiver that keeps what it is sent, and clients.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use corten_config::Value;
use corten_config::decode::Decode as _;
use corten_net::{Body, Client, ClientConfig, ClientOptions};
use corten_signal::flow::BoxFuture;
use corten_signal::{Acks, Consume, ConsumeError, Fanout, Inlet, Logs, LogsBatch, Receiver};
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

    /// As the receivers of a source.
    pub(super) fn fanout(&self) -> Fanout<Logs> {
        Fanout::new([self.receiver.clone()])
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
        let mut shown = Vec::new();
        for batch in &*self.batches.lock() {
            for (stream, entries) in batch.entries.parts() {
                for entry in entries {
                    let mut text = format!("{} ", stream.canonical());
                    text.push_str(&String::from_utf8_lossy(batch.entries.line(entry)));
                    for (name, value) in batch.entries.metadata(entry) {
                        let (name, value) = (String::from_utf8_lossy(name), String::from_utf8_lossy(value));
                        text.push_str(&format!(" {name}={value}"));
                    }
                    shown.push((entry.timestamp_ns, text));
                }
            }
        }
        shown
    }

    /// How often something was sent.
    pub(super) fn batches(&self) -> usize {
        self.batches.lock().len()
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
