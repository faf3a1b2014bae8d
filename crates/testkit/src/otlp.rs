//! A destination for OpenTelemetry's signals that keeps what it is sent.

use std::sync::Arc;

use corten_config::Value;
use corten_otlp::{Batch, Consumer, OtlpLogs, OtlpMetrics, OtlpSignal, Record, Traces};
use corten_signal::flow::BoxFuture;
use corten_signal::{Acks, Consume, ConsumeError, Inlet};
use parking_lot::Mutex;

/// A batch of what is written in OTLP's JSON.
pub fn otlp<R: Record>(json: &str) -> Batch<R> {
    Batch::received_json(json.as_bytes(), Arc::default()).unwrap()
}

/// Keeps the telemetry that it is sent, and says that it is safe unless it is told otherwise.
#[derive(Clone)]
pub struct OtlpSink {
    inlets: Arc<(Inlet<Traces>, Inlet<OtlpMetrics>, Inlet<OtlpLogs>)>,
    state: Arc<Mutex<State>>,
}

/// A batch that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// `traces`, `metrics` or `logs`.
    pub signal: &'static str,
    /// How many items it had.
    pub items: usize,
    /// What it said, in OTLP's JSON.
    pub json: String,
    /// The headers that it came with, `name=value`.
    pub metadata: Vec<String>,
}

#[derive(Default)]
struct State {
    batches: Vec<Arrived>,
    answer: Option<ConsumeError>,
    keeps_acks: bool,
    acks: Vec<Acks>,
}

struct Stage(Arc<Mutex<State>>);

impl<S: OtlpSignal> Consume<S> for Stage {
    fn consume(&self, batch: S::Batch) -> BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(async move {
            let mut state = self.0.lock();
            if let Some(error) = &state.answer {
                return Err(error.clone());
            }
            let metadata = batch.context.metadata.iter();
            let metadata =
                metadata.flat_map(|(name, values)| values.iter().map(move |value| format!("{name}={value}")));
            state.batches.push(Arrived {
                signal: S::NAME,
                items: batch.items(),
                json: String::from_utf8(batch.to_json()).unwrap(),
                metadata: metadata.collect(),
            });
            if state.keeps_acks {
                state.acks.push(batch.acks);
            } else {
                batch.acks.safe();
            }
            Ok(())
        })
    }
}

impl std::fmt::Debug for OtlpSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OtlpSink").field("batches", &self.batches().len()).finish_non_exhaustive()
    }
}

impl Default for OtlpSink {
    fn default() -> Self {
        Self::new("otelcol.exporter.sink")
    }
}

impl OtlpSink {
    /// A sink that seems to be a component of this id.
    pub fn new(id: &str) -> Self {
        let inlets = Arc::new((Inlet::new(id), Inlet::new(id), Inlet::new(id)));
        let state = Arc::<Mutex<State>>::default();
        inlets.0.attach(Arc::new(Stage(Arc::clone(&state))));
        inlets.1.attach(Arc::new(Stage(Arc::clone(&state))));
        inlets.2.attach(Arc::new(Stage(Arc::clone(&state))));
        OtlpSink { inlets, state }
    }

    /// The way to it.
    pub fn consumer(&self) -> Consumer {
        let (traces, metrics, logs) = &*self.inlets;
        Consumer { traces: traces.receiver(), metrics: metrics.receiver(), logs: logs.receiver() }
    }

    /// The way to it as a value, for [`Unit::start_with`](crate::Unit::start_with).
    pub fn value(&self) -> Value {
        Value::capsule(Arc::new(self.consumer()))
    }

    /// What it got so far.
    pub fn batches(&self) -> Vec<Arrived> {
        self.state.lock().batches.clone()
    }

    /// How many items of each batch it got so far.
    pub fn sizes(&self) -> Vec<usize> {
        self.state.lock().batches.iter().map(|batch| batch.items).collect()
    }

    /// How many items it got so far.
    pub fn items(&self) -> usize {
        self.sizes().iter().sum()
    }

    /// Refuses everything with an error from now on; takes everything again with `None`.
    pub fn answer_with(&self, error: Option<ConsumeError>) {
        self.state.lock().answer = error;
    }

    /// Says nothing of safety from now on, until [`settle`](Self::settle).
    pub fn keep_acks(&self) {
        self.state.lock().keeps_acks = true;
    }

    /// Says of all that it keeps that it is safe, or that it was lost.
    pub fn settle(&self, safe: bool) {
        let acks = std::mem::take(&mut self.state.lock().acks);
        acks.into_iter().for_each(|acks| if safe { acks.safe() } else { acks.fail() });
    }
}
