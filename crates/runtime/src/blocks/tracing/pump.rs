//! Ended spans as telemetry.

use std::sync::Arc;
use std::time::Duration;

use corten_component::metrics::Counter;
use corten_component::trace::{Attribute, Ended};
use corten_component::{Component, Context, Task};
use corten_otlp::traces::Status;
use corten_otlp::{Arena, Batch, Data, OfResource, OfScope, Span, Traces, Value};
use corten_signal::{Fanout, Receiver};
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;

use super::SERVICE_NAME;

/// How many spans are sent at a time, at most, and how long the first of them waits.
const BATCH_SPANS_MAX: usize = 512;
const BATCH_WAIT: Duration = Duration::from_secs(5);

/// How long the receivers may take for what is left when the block ends.
const LAST_SPANS_WAIT_MAX: Duration = Duration::from_secs(2);

/// OpenTelemetry's number for what failed.
const STATUS_ERROR: i32 = 2;

/// Hands ended spans on.
pub(super) struct Pump {
    fanout: Fanout<Traces>,
    version: String,
    dropped: Counter,
}

impl Pump {
    pub(super) fn new<C: Component>(cx: &Context<C>, write_to: Vec<Receiver<Traces>>, dropped: Counter) -> Self {
        Pump { fanout: Fanout::new(write_to), version: cx.services().version.clone(), dropped }
    }

    pub(super) fn start<C: Component>(self, cx: &Context<C>, arriving: mpsc::Receiver<Ended>) -> Task {
        let pump = Arc::new(self);
        let arriving = Arc::new(Mutex::new(arriving));
        cx.spawn("write_to", move |mut stop| {
            let (pump, arriving) = (Arc::clone(&pump), Arc::clone(&arriving));
            async move {
                let mut arriving = arriving.lock().await;
                let mut spans = Vec::with_capacity(BATCH_SPANS_MAX);
                while let Some(first) = tokio::select! {
                    first = arriving.recv() => first,
                    () = stop.wait() => None,
                } {
                    spans.push(first);
                    let full_at = Instant::now() + BATCH_WAIT;
                    while spans.len() < BATCH_SPANS_MAX {
                        let room = BATCH_SPANS_MAX - spans.len();
                        tokio::select! {
                            count = arriving.recv_many(&mut spans, room) => if count == 0 { break },
                            () = tokio::time::sleep_until(full_at) => break,
                            () = stop.wait() => break,
                        }
                    }
                    pump.hand_on(&mut spans).await;
                }
                // What ended before the stop.
                arriving.close();
                let rest = async {
                    while arriving.recv_many(&mut spans, BATCH_SPANS_MAX).await > 0 {
                        pump.hand_on(&mut spans).await;
                    }
                };
                let _ = tokio::time::timeout(LAST_SPANS_WAIT_MAX, rest).await;
                Ok(())
            }
        })
    }

    async fn hand_on(&self, spans: &mut Vec<Ended>) {
        let count = spans.len() as u64;
        let batch = Batch::of(self.data(spans.drain(..)), Arc::default());
        if self.fanout.consume(batch).await.is_err() {
            self.dropped.add(count);
        }
    }

    fn data(&self, spans: impl Iterator<Item = Ended>) -> Data<Span> {
        let mut data = Data::default();
        let arena = &mut data.arena;
        let mut of = OfResource::default();
        for (key, value) in [("service.name", SERVICE_NAME), ("service.version", &self.version)] {
            let value = arena.own_str(value);
            arena.put(&mut of.resource.attributes, key.as_bytes(), value);
        }
        let mut scope = OfScope::default();
        scope.scope.name = arena.own(b"corten");
        scope.scope.version = arena.own(self.version.as_bytes());
        scope.records = spans.map(|span| record(arena, span)).collect();
        of.scopes.push(scope);
        data.resources.push(of);
        data
    }
}

fn record(arena: &mut Arena, ended: Ended) -> Span {
    let mut span = Span {
        trace_id: ended.trace_id,
        span_id: ended.span_id,
        parent_span_id: ended.parent_span_id,
        name: arena.own(ended.name.as_bytes()),
        kind: ended.kind as i32,
        start_time_ns: ended.start_ns,
        end_time_ns: ended.end_ns,
        ..Span::default()
    };
    for (key, value) in ended.attributes {
        let value = match value {
            Attribute::Text(text) => arena.own_str(&text),
            Attribute::Int(number) => Value::Int(number),
        };
        arena.put(&mut span.attributes, key.as_bytes(), value);
    }
    if let Some(failure) = ended.failure {
        span.status = Status { code: STATUS_ERROR, message: arena.own(failure.as_bytes()) };
    }
    span
}
