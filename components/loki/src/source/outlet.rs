//! How sources hand on entries whose senders wait for no answer: a receiver that takes nothing now is asked again, and the
//! source reads no further meanwhile.

use std::time::Duration;

use corten_component::Stop;
use corten_component::listen::Complaints;
use corten_signal::ledger::{Row, reason_of};
use corten_signal::{ConsumeError, Entries, Fanout, Logs, LogsBatch};

/// The waits before a receiver is asked again: doubling from the first to the second.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// How long receivers may still take when the source is to stop.
const STOP_WAIT_MAX: Duration = Duration::from_secs(30);

/// What is counted as the reason of entries that nobody took before the source ended.
const SHUTDOWN: &str = "shutdown";

/// Hands entries on; whether they were taken. `forward` says to whom, which may change while a receiver is waited for.
pub(super) async fn hand_on(
    entries: Entries,
    forward: impl Fn() -> Fanout<Logs>,
    stop: &mut Stop,
    complaints: &Complaints,
    row: &Row,
) -> bool {
    let count = entries.len();
    if count == 0 {
        return true;
    }
    let drop = |why: &str, reason: &'static str| {
        complaints.warn("dropped log entries that nobody takes", why, count as u64);
        row.received(count);
        row.dropped(reason, count);
    };
    let batch = LogsBatch::of(entries);
    let mut wait = RETRY_MIN;
    loop {
        let is_last = stop.is_set();
        let forward = forward();
        let outcome = async {
            let taken = forward.consume(batch.clone());
            tokio::pin!(taken);
            let late = async {
                stop.wait().await;
                tokio::time::sleep(STOP_WAIT_MAX).await;
            };
            tokio::select! {
                taken = &mut taken => Some(taken),
                () = late => None,
            }
        };
        let error = match outcome.await {
            Some(Ok(())) => {
                row.received(count);
                return true;
            }
            Some(Err(error)) => error,
            None => {
                drop("the source ended", SHUTDOWN);
                return false;
            }
        };
        let after = match &error {
            ConsumeError::Refused { .. } => None,
            ConsumeError::Retry { after, .. } => Some(after.unwrap_or(wait).min(RETRY_MAX)),
            ConsumeError::Exited { .. } => Some(wait),
        };
        let Some(after) = after.filter(|_| !is_last) else {
            let is_refused = matches!(error, ConsumeError::Refused { .. });
            drop(&error.to_string(), if is_refused { reason_of(&error) } else { SHUTDOWN });
            return false;
        };
        // Whoever is asked to stop asks once more.
        stop.sleep(after).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
}

#[cfg(test)]
mod tests {
    use corten_component::Logger;
    use corten_component::log::LogSink;
    use corten_signal::{EntriesBuilder, Ledger, Stream};
    use corten_testkit::until;

    use super::super::testing::{Sink, Then};
    use super::*;

    fn entries() -> Entries {
        let mut builder = EntriesBuilder::new();
        let part = builder.stream(&Stream::of([("a", "b")]).unwrap());
        let line = builder.own(b"x");
        builder.push(part, 1, line);
        builder.finish(0)
    }

    #[tokio::test]
    async fn a_receiver_is_asked_until_it_takes_the_entries_or_the_source_stops() {
        let retry = || Then::Refuse(ConsumeError::Retry { after: None, reason: "busy".to_owned() });
        let sink = Sink::that(retry());
        let complaints = Complaints::new(Logger::new(LogSink::memory().0));
        let (stopper, stop) = Stop::pair();
        let ledger = Ledger::new("loki.source.syslog.a");
        let row = ledger.row_of::<Logs>();
        let forward = || Fanout::of(&ledger, [sink.receiver()]);
        let run = async |stop: Stop| hand_on(entries(), forward, &mut stop.clone(), &complaints, row).await;
        let (taken, ()) = tokio::join!(run(stop.clone()), async {
            until("it was asked", || sink.asked() > 1).await;
            *sink.then.lock() = Then::Safe;
        });
        assert!(taken && sink.batches() == 1);

        *sink.then.lock() = Then::Refuse(ConsumeError::Refused { reason: "no".to_owned() });
        assert!(!run(stop.clone()).await);

        *sink.then.lock() = retry();
        let asked = sink.asked();
        let (taken, ()) = tokio::join!(run(stop.clone()), async {
            until("it was asked", || sink.asked() > asked).await;
            stopper.stop();
        });
        assert!(!taken);
        assert_eq!(ledger.snapshot().open_sums(), []);
        let dropped = [("refused".to_owned(), 1), ("shutdown".to_owned(), 1)];
        assert_eq!((row.snapshot().received, row.snapshot().out, &*row.snapshot().dropped), (3, 1, &dropped[..]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_receiver_that_says_nothing_is_waited_for_once_when_the_source_stops() {
        struct Never;
        impl corten_signal::Consume<Logs> for Never {
            fn consume(&self, _: LogsBatch) -> corten_signal::flow::BoxFuture<'_, Result<(), ConsumeError>> {
                Box::pin(std::future::pending())
            }
        }
        let inlet = corten_signal::Inlet::new("loki.echo.never");
        inlet.attach(std::sync::Arc::new(Never));
        let complaints = Complaints::new(Logger::new(LogSink::memory().0));
        let (stopper, mut stop) = Stop::pair();
        let started = tokio::time::Instant::now();
        let ledger = Ledger::new("loki.source.syslog.a");
        let (forward, row) = (Fanout::of(&ledger, [inlet.receiver()]), ledger.row_of::<Logs>());
        let (taken, ()) = tokio::join!(hand_on(entries(), || forward.clone(), &mut stop, &complaints, row), async {
            tokio::time::sleep(Duration::from_secs(100)).await;
            stopper.stop();
        });
        assert!(!taken);
        assert_eq!(started.elapsed().as_secs(), 100 + STOP_WAIT_MAX.as_secs());
        assert_eq!(ledger.snapshot().open_sums(), []);
        assert_eq!(row.snapshot().dropped, [("shutdown".to_owned(), 1)]);
    }
}
