//! Logs in tests: batches to send, and something that keeps what it gets.

use std::sync::Arc;

use corten_config::value::Value;
use corten_signal::acks::{Acks, Waiter, waiter};
use corten_signal::flow::{BoxFuture, Consume, ConsumeError, Inlet, Receiver};
use corten_signal::{Entries, EntriesBuilder, Logs, LogsBatch, Stream};
use parking_lot::Mutex;

/// A log entry as tests look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// All labels, as `{a="b"}`.
    pub stream: String,
    /// The time, in nanoseconds since the Unix epoch.
    pub timestamp_ns: i64,
    /// The line; what is not UTF-8 in it is U+FFFD.
    pub line: String,
    /// The structured metadata, as (name, value).
    pub metadata: Vec<(String, String)>,
}

/// The entries of a batch, by stream.
pub fn log_lines(entries: &Entries) -> Vec<LogLine> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let lines = entries.parts().flat_map(|(stream, list)| {
        list.iter().map(move |entry| LogLine {
            stream: stream.canonical(),
            timestamp_ns: entry.timestamp_ns,
            line: text(entries.line(entry)),
            metadata: entries.metadata(entry).map(|(n, v)| (text(n), text(v))).collect(),
        })
    });
    lines.collect()
}

/// A batch of one stream, of whose fate nobody wants to know. The lines are a nanosecond apart, from 1 on.
///
/// # Panics
///
/// When the labels are no label set.
pub fn logs(labels: &[(&str, &str)], lines: &[&str]) -> LogsBatch {
    let mut builder = EntriesBuilder::new();
    let part = builder.stream(&Stream::of(labels.iter().copied()).expect("labels of a stream"));
    for (at, line) in lines.iter().enumerate() {
        let line = builder.own(line.as_bytes());
        builder.push(part, at as i64 + 1, line);
    }
    LogsBatch::of(builder.finish(0))
}

/// As [`logs`], with what waits for the batch's fate.
///
/// # Panics
///
/// As [`logs`].
pub fn awaited_logs(labels: &[(&str, &str)], lines: &[&str]) -> (LogsBatch, Waiter) {
    let (acks, waiter) = waiter();
    (LogsBatch { acks, ..logs(labels, lines) }, waiter)
}

/// Keeps the log entries that it is sent, and says that they are safe unless it is told otherwise.
#[derive(Clone)]
pub struct LogsSink {
    inlet: Arc<Inlet<Logs>>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    lines: Vec<LogLine>,
    answer: Option<ConsumeError>,
    keeps_acks: bool,
    acks: Vec<Acks>,
}

struct Stage(Arc<Mutex<State>>);

impl Consume<Logs> for Stage {
    fn consume(&self, batch: LogsBatch) -> BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(async move {
            let mut state = self.0.lock();
            if let Some(error) = &state.answer {
                return Err(error.clone());
            }
            state.lines.extend(log_lines(&batch.entries));
            if state.keeps_acks {
                state.acks.push(batch.acks);
            } else {
                batch.acks.safe();
            }
            Ok(())
        })
    }
}

impl std::fmt::Debug for LogsSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogsSink").field("lines", &self.len()).finish_non_exhaustive()
    }
}

impl Default for LogsSink {
    fn default() -> Self {
        Self::new("loki.write.sink")
    }
}

impl LogsSink {
    /// A sink that seems to be a component of this id.
    pub fn new(id: &str) -> Self {
        let (inlet, state) = (Arc::new(Inlet::new(id)), Arc::default());
        inlet.attach(Arc::new(Stage(Arc::clone(&state))));
        LogsSink { inlet, state }
    }

    /// The way to it.
    pub fn receiver(&self) -> Receiver<Logs> {
        self.inlet.receiver()
    }

    /// The way to it as a value, for [`Unit::start_with`](crate::Unit::start_with).
    pub fn value(&self) -> Value {
        Value::capsule(Arc::new(self.receiver()))
    }

    /// What it got so far.
    pub fn lines(&self) -> Vec<LogLine> {
        self.state.lock().lines.clone()
    }

    /// The texts of the lines that it got so far.
    pub fn texts(&self) -> Vec<String> {
        self.state.lock().lines.iter().map(|line| line.line.clone()).collect()
    }

    /// How many entries it got so far.
    pub fn len(&self) -> usize {
        self.state.lock().lines.len()
    }

    /// Whether it got nothing so far.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Refuses everything with an error from now on; takes everything again with `None`.
    pub fn answer_with(&self, error: Option<ConsumeError>) {
        self.state.lock().answer = error;
    }

    /// Says nothing of the entries' safety from now on, until [`settle`](Self::settle).
    pub fn keep_acks(&self) {
        self.state.lock().keeps_acks = true;
    }

    /// Says of all that it keeps that it is safe, or that it was lost.
    pub fn settle(&self, safe: bool) {
        let acks = std::mem::take(&mut self.state.lock().acks);
        acks.into_iter().for_each(|acks| if safe { acks.safe() } else { acks.fail() });
    }
}
