//! The program's own lines as log entries.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use corten_component::log::{Tee, TeeLine};
use corten_component::metrics::Counter;
use corten_component::{Component, Context, Task};
use corten_signal::ledger::{Row, reason_of};
use corten_signal::{EntriesBuilder, Fanout, Logs, LogsBatch, Receiver, Stream};
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, mpsc};

/// How many lines wait to be handed on at most.
const LINES_MAX: usize = 1024;
/// How many lines are handed on at a time.
const BATCH_LINES_MAX: usize = 256;
/// How long the receivers may take for what is left when the block ends.
const LAST_LINES_WAIT_MAX: Duration = Duration::from_secs(2);

/// Of the lines of one kind that a component writes that only logs lead to, one goes on in such a span.
const REPEAT_WAIT_MIN: Duration = Duration::from_secs(1);
/// How many kinds of lines are told apart.
const KINDS_MAX: usize = 1000;

/// The label of the entries: the reference's name, by which dashboards find them.
const LABEL: (&str, &str) = ("component", "alloy");

tokio::task_local! {
    /// Set while a component works on the program's own lines: what it logs by that is not sent to it again.
    static WORKING_ON_OWN_LINES: ();
}

/// Why lines go nowhere: none of them finds room any more, one like it went on a moment ago, or the block ended.
const NO_ROOM: &str = "queue full";
const REPEATED: &str = "repeated";
const SHUTDOWN: &str = "shutdown";

/// Counts lines that go nowhere.
fn lose(row: &Row, lines: usize, reason: &'static str) {
    row.received(lines);
    row.dropped(reason, lines);
}

/// Takes the lines.
#[derive(Debug)]
pub(super) struct Tap {
    lines: mpsc::Sender<(i64, String)>,
    dropped: Counter,
    row: Arc<Row>,
    /// When a line of a kind went on last, by component and message.
    recent: Mutex<HashMap<(String, String), Instant>>,
}

impl Tee for Tap {
    fn line(&self, line: &TeeLine<'_>) {
        if WORKING_ON_OWN_LINES.try_with(|()| ()).is_ok() {
            return;
        }
        if self.repeats(line) {
            return lose(&self.row, 1, REPEATED);
        }
        let since = line.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let timestamp_ns = i64::try_from(since.as_nanos()).unwrap_or(i64::MAX);
        if self.lines.try_send((timestamp_ns, line.text.to_owned())).is_err() {
            self.dropped.inc();
            lose(&self.row, 1, NO_ROOM);
        }
    }
}

impl Tap {
    /// Whether the line may come of lines like it that went on a moment ago.
    fn repeats(&self, line: &TeeLine<'_>) -> bool {
        let Some(id) = line.component.filter(|id| is_led_to_by_logs(id)) else { return false };
        let now = Instant::now();
        let mut recent = self.recent.lock();
        if recent.len() >= KINDS_MAX {
            recent.retain(|_, at| now.duration_since(*at) < REPEAT_WAIT_MIN);
        }
        let is_full = recent.len() >= KINDS_MAX;
        let kind = (id.to_owned(), line.message.to_owned());
        match recent.get_mut(&kind) {
            Some(at) if now.duration_since(*at) < REPEAT_WAIT_MIN => true,
            Some(at) => {
                *at = now;
                false
            }
            None if is_full => true,
            None => {
                recent.insert(kind, now);
                false
            }
        }
    }
}

/// Whether what a component does may be the consequence of a log entry.
fn is_led_to_by_logs(id: &str) -> bool {
    let name = id.rsplit('/').next().unwrap_or(id);
    (name.starts_with("loki.") && !name.starts_with("loki.source.")) || name.starts_with("otelcol.")
}

/// Starts to hand lines on.
pub(super) fn start<C: Component>(cx: &Context<C>, write_to: Vec<Receiver<Logs>>) -> (Tap, Task) {
    let dropped = cx.metrics().counter(
        "corten_logging_dropped_lines_total",
        "Lines of the program's own log that the receivers of write_to did not take in time.",
    );
    let (sender, receiver) = mpsc::channel(LINES_MAX);
    let receiver = Arc::new(AsyncMutex::new(receiver));
    let fanout = Fanout::of(cx.ledger(), write_to);
    let row = Arc::clone(cx.ledger().row_of::<Logs>());
    let books = Books { dropped: dropped.clone(), row: Arc::clone(&row) };
    let pump = cx.spawn("write_to", move |mut stop| {
        let (receiver, fanout, books) = (Arc::clone(&receiver), fanout.clone(), books.clone());
        async move {
            let mut receiver = receiver.lock().await;
            let mut lines = Vec::with_capacity(BATCH_LINES_MAX);
            loop {
                tokio::select! {
                    biased;
                    count = receiver.recv_many(&mut lines, BATCH_LINES_MAX) => {
                        if count == 0 {
                            return Ok(());
                        }
                        hand_on(&mut lines, &fanout, &books).await;
                    }
                    () = stop.wait() => break,
                }
            }
            // What was written before the stop.
            receiver.close();
            let rest = async {
                while receiver.recv_many(&mut lines, BATCH_LINES_MAX).await > 0 {
                    hand_on(&mut lines, &fanout, &books).await;
                }
            };
            if tokio::time::timeout(LAST_LINES_WAIT_MAX, rest).await.is_err() {
                let left = std::iter::from_fn(|| receiver.try_recv().ok()).count();
                books.lose(left, SHUTDOWN);
            }
            Ok(())
        }
    });
    (Tap { lines: sender, dropped, row, recent: Mutex::default() }, pump)
}

/// Where it is counted what becomes of lines.
#[derive(Clone)]
struct Books {
    dropped: Counter,
    row: Arc<Row>,
}

impl Books {
    fn lose(&self, lines: usize, reason: &'static str) {
        self.dropped.add(lines as u64);
        lose(&self.row, lines, reason);
    }
}

/// Lines on their way. Let go of without a word they have come nowhere.
struct OnTheirWay<'b> {
    books: &'b Books,
    lines: usize,
}

impl Drop for OnTheirWay<'_> {
    fn drop(&mut self) {
        if self.lines > 0 {
            self.books.lose(self.lines, SHUTDOWN);
        }
    }
}

async fn hand_on(lines: &mut Vec<(i64, String)>, fanout: &Fanout<Logs>, books: &Books) {
    let mut way = OnTheirWay { books, lines: lines.len() };
    let mut builder = EntriesBuilder::new();
    // One label of a few bytes is a label set.
    let Ok(stream) = Stream::of([LABEL]) else { return };
    let part = builder.stream(&stream);
    for (timestamp_ns, text) in lines.drain(..) {
        let line = builder.own(text.as_bytes());
        builder.push(part, timestamp_ns, line);
    }
    let batch = LogsBatch::of(builder.finish(0));
    let outcome = WORKING_ON_OWN_LINES.scope((), fanout.consume(batch)).await;
    let count = std::mem::take(&mut way.lines);
    match outcome {
        Ok(()) => books.row.received(count),
        Err(error) => books.lose(count, reason_of(&error)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn tap() -> (Tap, mpsc::Receiver<(i64, String)>) {
        let (lines, receiver) = mpsc::channel(3);
        let row = Arc::clone(corten_signal::Ledger::new("logging").row_of::<Logs>());
        (Tap { lines, dropped: Counter::default(), row, recent: Mutex::default() }, receiver)
    }

    fn line<'a>(component: Option<&'a str>, message: &'a str) -> TeeLine<'a> {
        TeeLine { time: SystemTime::now(), component, message, text: "level=info msg=x\n" }
    }

    #[test]
    fn what_finds_no_room_is_dropped_and_counted() {
        let (tap, mut receiver) = tap();
        for _ in 0..5 {
            tap.line(&line(Some("prometheus.scrape.a"), "m"));
        }
        assert_eq!(tap.dropped.get(), 2);
        assert_eq!((tap.row.snapshot().received, tap.row.snapshot().dropped), (2, vec![(NO_ROOM.to_owned(), 2)]));
        assert!(receiver.try_recv().unwrap().1.ends_with("msg=x\n"));
    }

    #[test]
    fn of_lines_that_may_come_of_others_one_of_a_kind_goes_on() {
        let (tap, mut receiver) = tap();
        for id in ["loki.write.a", "m.x/loki.write.a", "loki.write.a", "m.x/loki.write.a"] {
            tap.line(&line(Some(id), "m"));
        }
        tap.line(&line(Some("loki.write.a"), "other"));
        let count = std::iter::from_fn(|| receiver.try_recv().ok()).count();
        assert_eq!((count, tap.dropped.get()), (3, 0));
        assert_eq!(tap.row.snapshot().dropped, [(REPEATED.to_owned(), 2)]);
        for id in ["loki.source.file.a", "prometheus.scrape.a"] {
            assert!(!is_led_to_by_logs(id));
        }
    }

    #[tokio::test]
    async fn what_is_logged_because_of_a_line_does_not_go_on() {
        let (tap, mut receiver) = tap();
        WORKING_ON_OWN_LINES.scope((), async { tap.line(&line(None, "m")) }).await;
        assert!(receiver.try_recv().is_err());
    }
}
