//! Ended spans as telemetry.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use corten_component::metrics::Counter;
use corten_component::trace::{Attribute, Ended};
use corten_component::{Component, Context, Task};
use corten_otlp::traces::Status;
use corten_otlp::{Arena, Batch, Data, OfResource, OfScope, Span, Traces, Value};
use corten_signal::ledger::{Row, reason_of};
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

/// Why spans go nowhere: none of them finds room any more, or the block ended.
const NO_ROOM: &str = "queue full";
const SHUTDOWN: &str = "shutdown";

/// Where it is counted what becomes of spans, over all changes of the arguments.
#[derive(Debug)]
pub(super) struct Books {
    /// Those that come nowhere: who ends a span counts it here that finds no room.
    pub(super) dropped: Counter,
    /// How many of them were counted here because they did find room.
    not_taken: AtomicU64,
    /// How many of those that found no room are in the row.
    counted: parking_lot::Mutex<u64>,
    row: Arc<Row>,
}

impl Books {
    pub(super) fn new<C: Component>(cx: &Context<C>, dropped: Counter) -> Self {
        let row = Arc::clone(cx.ledger().row_of::<Traces>());
        Books { dropped, not_taken: AtomicU64::new(0), counted: parking_lot::Mutex::new(0), row }
    }

    /// Counts what found no room since the last time.
    fn count_no_room(&self) {
        let mut counted = self.counted.lock();
        let no_room = self.dropped.get().saturating_sub(self.not_taken.load(Ordering::Acquire));
        let new = no_room.saturating_sub(*counted) as usize;
        *counted = no_room.max(*counted);
        self.row.received(new);
        self.row.dropped(NO_ROOM, new);
    }

    fn lose(&self, spans: usize, reason: &'static str) {
        // In this order: these are not to be taken for others.
        self.not_taken.fetch_add(spans as u64, Ordering::AcqRel);
        self.dropped.add(spans as u64);
        self.row.received(spans);
        self.row.dropped(reason, spans);
    }
}

/// Spans on their way. Let go of without a word they have come nowhere.
struct OnTheirWay<'b> {
    books: &'b Books,
    spans: usize,
}

impl Drop for OnTheirWay<'_> {
    fn drop(&mut self) {
        if self.spans > 0 {
            self.books.lose(self.spans, SHUTDOWN);
        }
    }
}

/// Hands ended spans on.
pub(super) struct Pump {
    fanout: Fanout<Traces>,
    version: String,
    books: Arc<Books>,
}

impl Pump {
    pub(super) fn new<C: Component>(cx: &Context<C>, write_to: Vec<Receiver<Traces>>, books: Arc<Books>) -> Self {
        Pump { fanout: Fanout::of(cx.ledger(), write_to), version: cx.services().version.clone(), books }
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
                if tokio::time::timeout(LAST_SPANS_WAIT_MAX, rest).await.is_err() {
                    let left = std::iter::from_fn(|| arriving.try_recv().ok()).count();
                    pump.books.lose(left, SHUTDOWN);
                }
                pump.books.count_no_room();
                Ok(())
            }
        })
    }

    async fn hand_on(&self, spans: &mut Vec<Ended>) {
        let mut way = OnTheirWay { books: &self.books, spans: spans.len() };
        let batch = Batch::of(self.data(spans.drain(..)), Arc::default());
        let outcome = self.fanout.consume(batch).await;
        let count = std::mem::take(&mut way.spans);
        match outcome {
            Ok(()) => self.books.row.received(count),
            Err(error) => self.books.lose(count, reason_of(&error)),
        }
        self.books.count_no_room();
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
