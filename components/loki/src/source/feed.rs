//! How a source that reads on from a cursor hands on what it reads: in order, with a bound on what is on its way, and so that the
//! cursor moves on only behind what is safe.

use std::sync::Arc;
use std::time::Duration;

use corten_component::{Logger, Stop};
use corten_signal::acks::Window;
use corten_signal::ledger::Row;
use corten_signal::{Acks, ConsumeError, Entries, Fanout, Logs, LogsBatch};

/// Batches and bytes on their way.
const BATCHES_MAX: usize = 16;
const BYTES_MAX: usize = 8 << 20;

/// The waits before what was not taken, or was lost on its way, is read again.
const RETRY_MIN: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// How long what is on its way may take when the source ends.
const SETTLE_WAIT_MAX: Duration = Duration::from_secs(5);

/// What became of a batch that was handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// It is on its way.
    Taken,
    /// Something is lost: read again from [`Feed::settled_to`], after this time.
    Again(Duration),
    /// The source is to stop.
    Stopped,
}

/// What is on its way.
#[derive(Debug)]
pub(super) struct Feed<P> {
    /// Where it is counted what is received.
    row: Arc<Row>,
    window: Window<P>,
    failures: u32,
    /// Something was taken since the last failure.
    taken: bool,
    told: Option<String>,
}

impl<P: Clone + Send + 'static> Feed<P> {
    pub(super) fn new(row: Arc<Row>) -> Self {
        Feed { row, window: Window::new(BATCHES_MAX, BYTES_MAX), failures: 0, taken: false, told: None }
    }

    /// The place up to which everything is safe.
    pub(super) fn settled_to(&self) -> Option<P> {
        self.window.settled_to()
    }

    /// Whether something is lost: then the source reads again, after the time that is returned.
    pub(super) fn take_failure(&mut self) -> Option<Duration> {
        self.window.has_failed().then(|| self.fail(None))
    }

    fn fail(&mut self, asked: Option<Duration>) -> Duration {
        let wait = RETRY_MIN * 2_u32.pow(self.failures.min(10));
        self.failures += 1;
        self.taken = false;
        self.window.reset();
        asked.unwrap_or(wait).min(RETRY_MAX)
    }

    /// Moves on to a place before which nothing was worth sending.
    pub(super) async fn skip_to(&mut self, position: P, stop: &mut Stop) -> Sent {
        match self.room(position, 0, stop).await {
            Ok(acks) => {
                acks.safe();
                Sent::Taken
            }
            Err(sent) => sent,
        }
    }

    /// Hands on what was read before a place.
    pub(super) async fn send(
        &mut self,
        forward: &Fanout<Logs>,
        entries: Entries,
        position: P,
        logger: &Logger,
        stop: &mut Stop,
    ) -> Sent {
        let acks = match self.room(position.clone(), entries.held_bytes(), stop).await {
            Ok(acks) => acks,
            Err(sent) => return sent,
        };
        let count = entries.len();
        let batch = LogsBatch { acks, ..LogsBatch::of(entries) };
        let taken = tokio::select! {
            taken = forward.consume(batch) => taken,
            () = stop.wait() => return Sent::Stopped,
        };
        match taken {
            Ok(()) => {
                self.row.received(count);
                self.taken = true;
                self.told = None;
                Sent::Taken
            }
            Err(ConsumeError::Refused { reason }) => {
                // It will never be taken. What was sent before it counts still.
                self.row.received(count);
                self.row.dropped("refused", count);
                self.tell(logger, "entries were refused", reason);
                if !self.wait_for_others(stop).await {
                    return Sent::Stopped;
                }
                self.window.reset();
                self.skip_to(position, stop).await
            }
            Err(error) => {
                let asked = if let ConsumeError::Retry { after, .. } = &error { *after } else { None };
                self.tell(logger, "entries are not taken, trying again", error.to_string());
                Sent::Again(self.fail(asked))
            }
        }
    }

    /// Waits for room. What fails meanwhile comes first.
    async fn room(&mut self, position: P, bytes: usize, stop: &mut Stop) -> Result<Acks, Sent> {
        // What was taken is safe by now.
        if self.taken && self.window.is_empty() && !self.window.has_failed() {
            self.failures = 0;
        }
        loop {
            let failed = {
                let changed = self.window.changed();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if self.window.has_failed() {
                    true
                } else if let Some(acks) = self.window.try_push(position.clone(), bytes) {
                    return Ok(acks);
                } else {
                    tokio::select! {
                        () = changed => {}
                        () = stop.wait() => return Err(Sent::Stopped),
                    }
                    false
                }
            };
            if failed {
                return Err(Sent::Again(self.fail(None)));
            }
        }
    }

    /// Waits until only the batch that was refused is left; false if the source is to stop.
    async fn wait_for_others(&self, stop: &mut Stop) -> bool {
        let others = async {
            loop {
                let changed = self.window.changed();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if self.window.len() <= 1 {
                    return;
                }
                changed.await;
            }
        };
        tokio::select! {
            // What is not settled by then is sent a second time only if the process is killed before it is.
            _ = tokio::time::timeout(SETTLE_WAIT_MAX, others) => true,
            () = stop.wait() => false,
        }
    }

    fn tell(&mut self, logger: &Logger, message: &str, why: String) {
        if self.told.as_ref() != Some(&why) {
            logger.warn(message, &[("err", (&why).into())]);
            self.told = Some(why);
        }
    }

    /// Waits for what is on its way, for a while.
    pub(super) async fn end(&self) {
        self.window.settle(SETTLE_WAIT_MAX).await;
    }
}

#[cfg(test)]
mod tests {
    use corten_component::log::LogSink;
    use corten_component::task::Stopper;
    use corten_signal::{EntriesBuilder, Ledger, Stream};

    use super::super::testing::{Sink, Then};
    use super::*;

    fn entries() -> Entries {
        let mut builder = EntriesBuilder::new();
        let part = builder.stream(&Stream::of([("a", "b")]).unwrap());
        let line = builder.own(b"line");
        builder.push(part, 1, line);
        builder.finish(1)
    }

    struct Case {
        sink: Sink,
        feed: Feed<u32>,
        stop: Stop,
        ledger: Arc<Ledger>,
        _stopper: Stopper,
    }

    impl Case {
        fn new(then: Then) -> Self {
            let (stopper, stop) = Stop::pair();
            let ledger = Ledger::new("loki.source.docker.a");
            Case {
                sink: Sink::that(then),
                feed: Feed::new(Arc::clone(ledger.row_of::<Logs>())),
                stop,
                ledger,
                _stopper: stopper,
            }
        }

        async fn send(&mut self, position: u32) -> Sent {
            let forward = Fanout::of(&self.ledger, [self.sink.receiver()]);
            self.feed.send(&forward, entries(), position, &Logger::new(LogSink::memory().0), &mut self.stop).await
        }

        /// What was received, what of it went on, and what was dropped.
        fn balance(&self) -> (u64, u64, Vec<(String, u64)>) {
            assert_eq!(self.ledger.snapshot().open_sums(), []);
            let row = self.ledger.row_of::<Logs>().snapshot();
            (row.received, row.out, row.dropped)
        }
    }

    #[tokio::test]
    async fn the_place_moves_on_with_what_is_safe() {
        let mut case = Case::new(Then::Keep);
        assert_eq!(case.send(1).await, Sent::Taken);
        assert_eq!(case.feed.skip_to(2, &mut case.stop).await, Sent::Taken);
        assert_eq!(case.feed.settled_to(), None);
        case.sink.settle();
        assert_eq!(case.feed.settled_to(), Some(2));
        case.feed.end().await;
    }

    #[tokio::test]
    async fn what_is_lost_is_read_again_with_growing_waits() {
        let mut case = Case::new(Then::Fail);
        assert_eq!(case.send(1).await, Sent::Taken);
        assert_eq!(case.feed.take_failure(), Some(RETRY_MIN));
        assert_eq!(case.feed.take_failure(), None);
        let refusal = ConsumeError::Retry { after: None, reason: "full".to_owned() };
        *case.sink.then.lock() = Then::Refuse(refusal);
        assert_eq!(case.send(1).await, Sent::Again(RETRY_MIN * 2));
        assert_eq!(case.send(1).await, Sent::Again(RETRY_MIN * 4));
        assert_eq!(case.feed.settled_to(), None);
        *case.sink.then.lock() = Then::Safe;
        assert_eq!(case.send(1).await, Sent::Taken);
        assert_eq!(case.send(2).await, Sent::Taken);
        *case.sink.then.lock() = Then::Fail;
        assert_eq!(case.send(3).await, Sent::Taken);
        assert_eq!(case.feed.take_failure(), Some(RETRY_MIN));
        assert_eq!(case.feed.settled_to(), Some(2));
        // What was not taken was not received; what was lost behind is received a second time.
        assert_eq!(case.balance(), (4, 4, vec![]));
    }

    #[tokio::test]
    async fn what_is_refused_for_good_is_passed_over() {
        let mut case = Case::new(Then::Refuse(ConsumeError::Refused { reason: "no".to_owned() }));
        assert_eq!(case.send(1).await, Sent::Taken);
        assert_eq!(case.feed.settled_to(), Some(1));
        assert_eq!(case.balance(), (1, 0, vec![("refused".to_owned(), 1)]));
    }

    #[tokio::test]
    async fn a_full_window_waits_until_it_is_told_to_stop() {
        let mut case = Case::new(Then::Keep);
        for position in 0..BATCHES_MAX as u32 {
            assert_eq!(case.send(position).await, Sent::Taken);
        }
        case._stopper.stop();
        assert_eq!(case.send(99).await, Sent::Stopped);
    }
}
