//! Handing batches to several receivers, none of which stops the others.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::acks::{Acks, Settle, Settled};
use crate::flow::{ConsumeError, Receiver, Signal};
use crate::ledger::{Flight, Ledger, Route, Spread, reason_of};

/// How long a batch waits for one of several receivers before that one is served apart from the others.
pub const BRANCH_WAIT_MAX: Duration = Duration::from_secs(1);
/// How much a receiver that is served apart may have before it, in bytes. Less than what sources have in flight, so that
/// they go on.
pub const BRANCH_BYTES_MAX: usize = 4 << 20;
/// How many batches a receiver that is served apart may have before it.
pub const BRANCH_BATCHES_MAX: usize = 8;

/// The waits between attempts where a receiver asks for a further one.
const RETRY_WAIT_MIN: Duration = Duration::from_millis(50);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(5);

/// Told when a batch was dropped for one receiver: the component that did not get it, how many items, and why.
pub type OnLost = Arc<dyn Fn(&str, usize, &str) + Send + Sync>;

/// The receivers of a `forward_to`.
///
/// One receiver is called directly: what it says goes to the producer. Several are called at the same time, and one that
/// does not take a batch within [`BRANCH_WAIT_MAX`] gets a buffer of its own; once that has been full for as long, batches
/// are dropped for that receiver alone.
pub struct Fanout<S: Signal> {
    branches: Arc<[Branch<S>]>,
    on_lost: Option<OnLost>,
    /// Where the component that hands on counts that.
    route: Option<Arc<Route>>,
}

impl<S: Signal> Clone for Fanout<S> {
    fn clone(&self) -> Self {
        Fanout { branches: Arc::clone(&self.branches), on_lost: self.on_lost.clone(), route: self.route.clone() }
    }
}

impl<S: Signal> fmt::Debug for Fanout<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.branches.iter().map(|branch| &branch.receiver)).finish()
    }
}

struct Branch<S: Signal> {
    receiver: Receiver<S>,
    state: Arc<Mutex<BranchState<S>>>,
    room: Arc<Notify>,
}

struct BranchState<S: Signal> {
    /// Deliveries that took too long. While there are any, batches go to the buffer.
    slow: usize,
    buffer: VecDeque<Held<S>>,
    bytes: usize,
    full_since: Option<Instant>,
}

impl<S: Signal> BranchState<S> {
    fn has_room(&self, bytes: usize) -> bool {
        self.buffer.is_empty()
            || (self.buffer.len() < BRANCH_BATCHES_MAX && self.bytes.saturating_add(bytes) <= BRANCH_BYTES_MAX)
    }
}

/// A batch in the buffer of a receiver.
struct Held<S: Signal> {
    batch: S::Batch,
    acks: Acks,
    flight: Option<Flight>,
}

/// What happens to a batch at a receiver.
enum Offer<S: Signal> {
    /// It is delivered here and now.
    Deliver(Delivery<S>),
    /// It was put into the receiver's buffer, or dropped.
    Done,
    /// The buffer is full: wait for room until then.
    Wait(S::Batch, Acks, Instant),
}

type Delivery<S> = Pin<Box<dyn Future<Output = Result<(), Undelivered<S>>> + Send>>;

/// A batch that a receiver will never take.
struct Undelivered<S: Signal> {
    batch: S::Batch,
    error: ConsumeError,
}

impl<S: Signal> Fanout<S> {
    /// Hands batches to all of these that lead somewhere, and keeps no books of it.
    pub fn new(receivers: impl IntoIterator<Item = Receiver<S>>) -> Self {
        Self::with(receivers, None)
    }

    /// Hands batches of a component to all of these that lead somewhere. What becomes of them is counted.
    pub fn of(ledger: &Ledger, receivers: impl IntoIterator<Item = Receiver<S>>) -> Self {
        Self::with(receivers, Some(ledger))
    }

    fn with(receivers: impl IntoIterator<Item = Receiver<S>>, ledger: Option<&Ledger>) -> Self {
        let receivers: Vec<_> = receivers.into_iter().filter(Receiver::leads_somewhere).collect();
        let route = ledger.map(|ledger| ledger.route_to(&receivers));
        let branches = receivers.into_iter().map(|receiver| Branch {
            receiver,
            state: Arc::new(Mutex::new(BranchState { slow: 0, buffer: VecDeque::new(), bytes: 0, full_since: None })),
            room: Arc::default(),
        });
        Fanout { branches: branches.collect(), on_lost: None, route }
    }

    /// Tells of batches that were dropped for one of several receivers.
    pub fn with_on_lost(mut self, on_lost: OnLost) -> Self {
        self.on_lost = Some(on_lost);
        self
    }

    /// Whether there is no receiver.
    pub fn is_empty(&self) -> bool {
        self.branches.is_empty()
    }

    /// Hands a batch to every receiver.
    ///
    /// # Errors
    ///
    /// What the receiver says where there is one. Where there are several: that no one of them takes the batch.
    pub async fn consume(&self, batch: S::Batch) -> Result<(), ConsumeError> {
        match &*self.branches {
            [] => {
                if let Some(route) = &self.route {
                    route.row().dropped("no receiver", S::items(&batch));
                }
                S::unwanted(batch);
                Ok(())
            }
            [only] => self.consume_by(only, batch).await,
            [first, ..] if !self.branches.iter().any(|branch| branch.receiver.takes_anything()) => {
                self.ask(first, batch).await
            }
            _ => self.consume_all(batch).await,
        }
    }

    /// Hands a copy of a batch to every receiver, for who offers it again when they do not take it: what a receiver drops
    /// without having taken it is no loss. What becomes of a copy that was taken is told to whoever waits for the batch.
    ///
    /// # Errors
    ///
    /// As [`Fanout::consume`].
    pub async fn offer(&self, batch: &S::Batch) -> Result<(), ConsumeError> {
        let mut copy = batch.clone();
        let acks = S::acks(&mut copy).map(std::mem::take).unwrap_or_default();
        if acks.is_none() {
            return self.consume(copy).await;
        }
        let relay = Relay::before::<S>(&mut copy, acks);
        let outcome = self.consume(copy).await;
        relay.answered(outcome.is_ok());
        outcome
    }

    /// Hands a batch to one receiver, whose answer is the producer's.
    async fn consume_by(&self, branch: &Branch<S>, batch: S::Batch) -> Result<(), ConsumeError> {
        let Some(route) = &self.route else { return branch.receiver.consume(batch).await };
        let items = S::items(&batch);
        let flight = route.ways()[0].as_ref().map(|way| way.send::<S>(&batch));
        branch.receiver.consume(batch).await?;
        if let Some(flight) = flight {
            flight.taken();
        }
        route.out(items);
        Ok(())
    }

    /// A batch sets out to all receivers.
    fn spread(&self, batch: &S::Batch) -> Spread<'_> {
        if let Some(route) = &self.route {
            return route.spread::<S>(batch);
        }
        let mut spread = Spread::new(None, S::items(batch));
        self.branches.iter().for_each(|_| spread.push(None));
        spread
    }

    /// Hands a batch to the first of several receivers that take nothing, for what it says. Where it takes the batch all the
    /// same, because it has begun to take something, the others have not got it.
    async fn ask(&self, first: &Branch<S>, batch: S::Batch) -> Result<(), ConsumeError> {
        let mut spread = self.spread(&batch);
        for other in 1..self.branches.len() {
            spread.failed(other, NOT_SUPPORTED);
        }
        let outcome = first.receiver.consume(batch).await;
        if outcome.is_ok() {
            spread.taken(0);
        }
        spread.end(outcome)
    }

    async fn consume_all(&self, mut batch: S::Batch) -> Result<(), ConsumeError> {
        let acks = S::acks(&mut batch).map(std::mem::take).unwrap_or_default();
        let mut spread = self.spread(&batch);
        let mut running: Vec<(usize, Delivery<S>)> = Vec::with_capacity(self.branches.len());
        let mut waiting = Vec::new();
        let mut errors = Vec::new();
        let mut offered = 0;
        for (at, branch) in self.branches.iter().enumerate() {
            // One that never takes anything must not hold up those that do.
            if !branch.receiver.takes_anything() {
                self.tell(&branch.receiver, &batch, NOT_SUPPORTED);
                spread.failed(at, NOT_SUPPORTED);
                continue;
            }
            offered += 1;
            match branch.offer(batch.clone(), acks.clone(), || spread.apart(at)) {
                Offer::Deliver(delivery) => running.push((at, delivery)),
                Offer::Done => {}
                Offer::Wait(batch, acks, until) => waiting.push((at, batch, acks, until)),
            }
        }
        let deliveries = poll_fn(|cx| {
            running.retain_mut(|(at, delivery)| match delivery.as_mut().poll(cx) {
                Poll::Pending => true,
                Poll::Ready(Ok(())) => {
                    spread.taken(*at);
                    false
                }
                Poll::Ready(Err(lost)) => {
                    spread.failed(*at, reason_of(&lost.error));
                    errors.push((*at, lost));
                    false
                }
            });
            if running.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        });
        if tokio::time::timeout(BRANCH_WAIT_MAX, deliveries).await.is_err() {
            for (at, delivery) in running {
                self.branches[at].finish_apart(delivery, spread.apart(at), self.on_lost.clone());
            }
        }
        for (at, batch, acks, until) in waiting {
            let branch = &self.branches[at];
            if let Some(lost) = branch.wait_for_room(batch, acks, until, &mut spread, at, &self.on_lost).await {
                self.tell(&branch.receiver, &lost.batch, &lost.why);
            }
        }
        if errors.len() == offered {
            // Nobody has it: the producer may send it again without anybody getting it twice.
            acks.fail();
            return spread.end(errors.pop().map_or(Ok(()), |(_, lost)| Err(lost.error)));
        }
        for (at, lost) in errors {
            self.tell(&self.branches[at].receiver, &lost.batch, &lost.error.to_string());
        }
        acks.safe();
        spread.end(Ok(()))
    }

    fn tell(&self, receiver: &Receiver<S>, batch: &S::Batch, why: &str) {
        if let Some(on_lost) = &self.on_lost {
            on_lost(receiver.component(), S::items(batch), why);
        }
    }
}

/// Why a batch was dropped for a receiver, in counts and logs.
const NOT_SUPPORTED: &str = "telemetry type is not supported";
const BUFFER_FULL: &str = "its buffer is full";

/// A batch that is lost for a receiver.
struct Lost<S: Signal> {
    batch: S::Batch,
    why: String,
}

impl<S: Signal> Branch<S> {
    /// Offers a batch. What is counted of it goes with it into the buffer.
    fn offer(&self, batch: S::Batch, acks: Acks, flight: impl FnOnce() -> Option<Flight>) -> Offer<S> {
        let mut state = self.state.lock();
        if state.slow == 0 {
            return Offer::Deliver(deliver(self.receiver.clone(), batch, acks));
        }
        let bytes = S::bytes(&batch);
        if state.has_room(bytes) {
            state.bytes += bytes;
            state.buffer.push_back(Held { batch, acks, flight: flight() });
            return Offer::Done;
        }
        let since = *state.full_since.get_or_insert_with(Instant::now);
        Offer::Wait(batch, acks, since + BRANCH_WAIT_MAX)
    }

    /// Puts a batch into the buffer as soon as it has room. Gives it back if it is lost for this receiver, which is the one
    /// at this place of those that the batch is handed to.
    async fn wait_for_room(
        &self,
        batch: S::Batch,
        acks: Acks,
        until: Instant,
        spread: &mut Spread<'_>,
        at: usize,
        on_lost: &Option<OnLost>,
    ) -> Option<Lost<S>> {
        let bytes = S::bytes(&batch);
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            {
                let mut state = self.state.lock();
                if state.slow > 0 && state.has_room(bytes) {
                    state.bytes += bytes;
                    state.buffer.push_back(Held { batch, acks, flight: spread.apart(at) });
                    return None;
                }
                if state.slow == 0 {
                    break;
                }
            }
            if tokio::time::timeout_at(until, room).await.is_err() {
                acks.safe();
                spread.failed(at, BUFFER_FULL);
                return Some(Lost { batch, why: BUFFER_FULL.to_owned() });
            }
        }
        // The receiver has caught up meanwhile. That does not mean that it takes this one, too.
        let mut delivery = deliver(self.receiver.clone(), batch, acks);
        match tokio::time::timeout(BRANCH_WAIT_MAX, delivery.as_mut()).await {
            Ok(Ok(())) => {
                spread.taken(at);
                None
            }
            Ok(Err(lost)) => {
                spread.failed(at, reason_of(&lost.error));
                Some(Lost { batch: lost.batch, why: lost.error.to_string() })
            }
            Err(_) => {
                self.finish_apart(delivery, spread.apart(at), on_lost.clone());
                None
            }
        }
    }

    /// Goes on with a delivery that takes long, and then with what has come since.
    fn finish_apart(&self, delivery: Delivery<S>, flight: Option<Flight>, on_lost: Option<OnLost>) {
        self.state.lock().slow += 1;
        let (receiver, state, room) = (self.receiver.clone(), Arc::clone(&self.state), Arc::clone(&self.room));
        tokio::spawn(async move {
            let (mut delivery, mut flight) = (delivery, flight);
            loop {
                // In a task of its own, so that a panic of the receiver costs this batch, which its source sends again, and
                // not all that come after it.
                match (tokio::spawn(delivery).await, flight) {
                    (Ok(Ok(())), Some(flight)) => flight.taken(),
                    (Ok(Err(lost)), flight) => {
                        if let Some(flight) = flight {
                            flight.lost(reason_of(&lost.error));
                        }
                        if let Some(on_lost) = &on_lost {
                            on_lost(receiver.component(), S::items(&lost.batch), &lost.error.to_string());
                        }
                    }
                    _ => {}
                }
                let next = {
                    let mut state = state.lock();
                    let next = if state.slow > 1 { None } else { state.buffer.pop_front() };
                    match &next {
                        Some(held) => {
                            state.bytes -= S::bytes(&held.batch);
                            state.full_since = None;
                        }
                        None => state.slow -= 1,
                    }
                    next
                };
                room.notify_waiters();
                let Some(held) = next else { return };
                flight = held.flight;
                delivery = deliver(receiver.clone(), held.batch, held.acks);
            }
        });
    }
}

/// Hands a batch to a receiver, again and again as long as it asks for that.
fn deliver<S: Signal>(receiver: Receiver<S>, batch: S::Batch, acks: Acks) -> Delivery<S> {
    Box::pin(async move {
        let mut wait = RETRY_WAIT_MIN;
        loop {
            let mut copy = batch.clone();
            let relay = Relay::before::<S>(&mut copy, acks.clone());
            let outcome = receiver.consume(copy).await;
            relay.answered(outcome.is_ok());
            match outcome {
                Ok(()) => {
                    acks.safe();
                    return Ok(());
                }
                Err(ConsumeError::Retry { after, .. }) => {
                    tokio::time::sleep(after.unwrap_or(wait)).await;
                    wait = (wait * 2).min(RETRY_WAIT_MAX);
                }
                Err(error) => {
                    acks.safe();
                    return Err(Undelivered { batch, error });
                }
            }
        }
    })
}

/// Stands between a receiver's share of a batch and the source: what a receiver drops because it does not take the batch
/// is no loss.
struct Relay(Mutex<RelayState>);

#[derive(Default)]
struct RelayState {
    to: Option<Acks>,
    settled: Option<Settled>,
    accepted: Option<bool>,
}

impl RelayState {
    fn tell(&mut self) {
        match (self.settled, self.accepted) {
            (Some(Settled::Failed), Some(true)) => self.to.take().map(Acks::fail),
            (Some(_), Some(_)) => self.to.take().map(Acks::safe),
            _ => None,
        };
    }
}

impl Relay {
    /// Puts a relay between a copy of a batch and who waits for it.
    fn before<S: Signal>(copy: &mut S::Batch, to: Acks) -> Arc<Self> {
        let relay = Arc::new(Relay(Mutex::new(RelayState { to: Some(to), ..RelayState::default() })));
        if let Some(own) = S::acks(copy) {
            *own = Acks::new(0, Arc::clone(&relay) as Arc<dyn Settle>);
        }
        relay
    }

    fn answered(&self, accepted: bool) {
        let mut state = self.0.lock();
        state.accepted = Some(accepted);
        if !accepted {
            state.settled.get_or_insert(Settled::Failed);
        }
        state.tell();
    }
}

impl Settle for Relay {
    fn settled(&self, _: u64, how: Settled) {
        let mut state = self.0.lock();
        state.settled = Some(how);
        state.tell();
    }

    fn held(&self, _: u64) {
        if let Some(to) = &self.0.lock().to {
            to.hold();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::acks::{Answer, waiter};
    use crate::flow::{BoxFuture, Consume, Inlet};
    use crate::logs::{EntriesBuilder, Logs, LogsBatch, Stream};

    #[derive(Default)]
    struct Sink {
        lines: Mutex<Vec<String>>,
        blocked: AtomicBool,
        opened: Notify,
        answer: Mutex<Option<ConsumeError>>,
        loses: AtomicBool,
        panics: AtomicBool,
    }

    impl Consume<Logs> for Arc<Sink> {
        fn consume(&self, batch: LogsBatch) -> BoxFuture<'_, Result<(), ConsumeError>> {
            Box::pin(async move {
                while self.blocked.load(Ordering::Relaxed) {
                    self.opened.notified().await;
                }
                assert!(!self.panics.swap(false, Ordering::Relaxed), "as told");
                if let Some(error) = self.answer.lock().clone() {
                    return Err(error);
                }
                let entries = &batch.entries;
                let lines = entries.parts().flat_map(|(_, list)| list.iter().map(|entry| entries.line(entry).to_vec()));
                self.lines.lock().extend(lines.map(|line| String::from_utf8(line).unwrap()));
                if !self.loses.load(Ordering::Relaxed) {
                    batch.acks.safe();
                }
                Ok(())
            })
        }
    }

    impl Sink {
        fn open(&self) {
            self.blocked.store(false, Ordering::Relaxed);
            self.opened.notify_waiters();
        }
    }

    struct Pair {
        sinks: [Arc<Sink>; 2],
        fanout: Fanout<Logs>,
        lost: Arc<Mutex<Vec<(String, usize)>>>,
        _inlets: [Inlet<Logs>; 2],
    }

    fn pair() -> Pair {
        let sinks: [Arc<Sink>; 2] = Default::default();
        let inlets = ["loki.write.a", "loki.write.b"].map(Inlet::new);
        for (inlet, sink) in inlets.iter().zip(&sinks) {
            inlet.attach(Arc::new(Arc::clone(sink)));
        }
        let lost: Arc<Mutex<Vec<_>>> = Arc::default();
        let noted = Arc::clone(&lost);
        let fanout = Fanout::new(inlets.iter().map(Inlet::receiver).chain([Receiver::NOWHERE]))
            .with_on_lost(Arc::new(move |component, items, _| noted.lock().push((component.to_owned(), items))));
        Pair { sinks, fanout, lost, _inlets: inlets }
    }

    fn batch(line: &str) -> (LogsBatch, crate::acks::Waiter) {
        let (acks, waiter) = waiter();
        let mut builder = EntriesBuilder::new();
        let part = builder.stream(&Stream::of([("a", "b")]).unwrap());
        let line = builder.own(line.as_bytes());
        builder.push(part, 0, line);
        (LogsBatch { acks, ..LogsBatch::of(builder.finish(0)) }, waiter)
    }

    const SHORT: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn a_batch_is_safe_when_all_receivers_have_it_safe() {
        let pair = pair();
        let (sent, mut waiter) = batch("x");
        pair.fanout.consume(sent).await.unwrap();
        assert_eq!(waiter.wait(SHORT).await, Answer::Safe);
        pair.sinks[1].loses.store(true, Ordering::Relaxed);
        let (sent, mut waiter) = batch("y");
        pair.fanout.consume(sent).await.unwrap();
        assert_eq!(waiter.wait(SHORT).await, Answer::Failed);
        assert_eq!(*pair.sinks[0].lines.lock(), ["x", "y"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_is_offered_again_until_it_is_taken_is_not_lost() {
        let pair = pair();
        let one = Fanout::new([pair._inlets[0].receiver()]);
        let (sent, mut waiter) = batch("x");
        *pair.sinks[0].answer.lock() = Some(ConsumeError::Retry { after: None, reason: "later".to_owned() });
        assert!(one.offer(&sent).await.is_err());
        assert_eq!(waiter.wait(SHORT).await, Answer::Late);
        *pair.sinks[0].answer.lock() = None;
        one.offer(&sent).await.unwrap();
        assert_eq!(waiter.wait(SHORT).await, Answer::Late);
        sent.acks.safe();
        assert_eq!(waiter.wait(SHORT).await, Answer::Safe);
        // A copy that was taken and then lost is a loss.
        let (sent, mut waiter) = batch("y");
        pair.sinks[0].loses.store(true, Ordering::Relaxed);
        one.offer(&sent).await.unwrap();
        sent.acks.safe();
        assert_eq!(waiter.wait(SHORT).await, Answer::Failed);
    }

    struct Nothing;

    impl Consume<Logs> for Nothing {
        fn consume(&self, _: LogsBatch) -> BoxFuture<'_, Result<(), ConsumeError>> {
            Box::pin(async { Err(ConsumeError::Retry { after: None, reason: "not wired".to_owned() }) })
        }

        fn takes_anything(&self) -> bool {
            false
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_receiver_that_never_takes_anything_is_passed_over_and_alone_it_says_why() {
        let pair = pair();
        pair._inlets[1].attach(Arc::new(Nothing));
        let (sent, mut waiter) = batch("x");
        let began = Instant::now();
        pair.fanout.consume(sent).await.unwrap();
        assert_eq!((waiter.wait(SHORT).await, began.elapsed()), (Answer::Safe, Duration::ZERO));
        assert_eq!(*pair.lost.lock(), [("loki.write.b".to_owned(), 1)]);
        pair._inlets[0].attach(Arc::new(Nothing));
        let (sent, _waiter) = batch("y");
        assert_eq!(pair.fanout.consume(sent).await.unwrap_err().to_string(), "not wired");
    }

    #[tokio::test(start_paused = true)]
    async fn a_blocked_receiver_does_not_stop_the_others_and_gets_its_batches_later_in_order() {
        let pair = pair();
        pair.sinks[1].blocked.store(true, Ordering::Relaxed);
        let mut waiters = Vec::new();
        for line in ["0", "1", "2", "3"] {
            let (sent, waiter) = batch(line);
            pair.fanout.consume(sent).await.unwrap();
            waiters.push(waiter);
        }
        assert_eq!(pair.sinks[0].lines.lock().len(), 4);
        assert_eq!(waiters[0].wait(SHORT).await, Answer::Late);
        pair.sinks[1].open();
        for waiter in &mut waiters {
            assert_eq!(waiter.wait(Duration::from_secs(1)).await, Answer::Safe);
        }
        assert_eq!(*pair.sinks[1].lines.lock(), ["0", "1", "2", "3"]);
        assert_eq!(*pair.lost.lock(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_buffer_drops_for_its_receiver_alone_and_the_source_goes_on() {
        let pair = pair();
        pair.sinks[1].blocked.store(true, Ordering::Relaxed);
        let mut last = None;
        for at in 0..BRANCH_BATCHES_MAX + 3 {
            let (sent, waiter) = batch(&at.to_string());
            pair.fanout.consume(sent).await.unwrap();
            last = Some(waiter);
        }
        assert_eq!(pair.sinks[0].lines.lock().len(), BRANCH_BATCHES_MAX + 3);
        assert_eq!(*pair.lost.lock(), [("loki.write.b".to_owned(), 1), ("loki.write.b".to_owned(), 1)]);
        assert_eq!(last.unwrap().wait(SHORT).await, Answer::Safe);
    }

    #[tokio::test(start_paused = true)]
    async fn a_receiver_that_has_just_caught_up_and_blocks_again_does_not_stop_the_others() {
        let pair = pair();
        let branch = &pair.fanout.branches[1];
        pair.sinks[1].blocked.store(true, Ordering::Relaxed);
        let (sent, mut waiter) = batch("x");
        let LogsBatch { entries, acks } = sent;
        let held = LogsBatch { entries, acks: Acks::NONE };
        let mut spread = Spread::new(None, 1);
        spread.push(None);
        let wait = branch.wait_for_room(held, acks, Instant::now(), &mut spread, 0, &None);
        assert!(tokio::time::timeout(BRANCH_WAIT_MAX * 2, wait).await.unwrap().is_none());
        let (next, mut next_waiter) = batch("y");
        pair.fanout.consume(next).await.unwrap();
        assert_eq!((waiter.wait(SHORT).await, pair.sinks[0].lines.lock().len()), (Answer::Late, 1));
        pair.sinks[1].open();
        assert_eq!(waiter.wait(Duration::from_secs(1)).await, Answer::Safe);
        assert_eq!(next_waiter.wait(Duration::from_secs(1)).await, Answer::Safe);
        assert_eq!(*pair.sinks[1].lines.lock(), ["x", "y"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_receiver_that_panics_apart_from_the_others_costs_one_attempt_of_one_batch() {
        let pair = pair();
        pair.sinks[1].blocked.store(true, Ordering::Relaxed);
        let mut waiters = Vec::new();
        for line in ["0", "1", "2"] {
            let (sent, waiter) = batch(line);
            pair.fanout.consume(sent).await.unwrap();
            waiters.push(waiter);
        }
        pair.sinks[1].panics.store(true, Ordering::Relaxed);
        pair.sinks[1].open();
        let mut answers = Vec::new();
        for waiter in &mut waiters {
            answers.push(waiter.wait(Duration::from_secs(1)).await);
        }
        assert_eq!(answers, [Answer::Failed, Answer::Safe, Answer::Safe]);
        let (sent, mut waiter) = batch("3");
        pair.fanout.consume(sent).await.unwrap();
        assert_eq!(waiter.wait(SHORT).await, Answer::Safe);
        assert_eq!(*pair.sinks[1].lines.lock(), ["1", "2", "3"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_receiver_that_asks_for_a_further_attempt_gets_it_alone() {
        let pair = pair();
        *pair.sinks[1].answer.lock() = Some(ConsumeError::Retry { after: None, reason: "busy".to_owned() });
        let (sent, mut waiter) = batch("x");
        pair.fanout.consume(sent).await.unwrap();
        assert_eq!(waiter.wait(SHORT).await, Answer::Late);
        *pair.sinks[1].answer.lock() = None;
        assert_eq!(waiter.wait(Duration::from_secs(60)).await, Answer::Safe);
        assert_eq!(pair.sinks.each_ref().map(|sink| sink.lines.lock().len()), [1, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_of_two_refuses_is_lost_for_it_alone_and_what_both_refuse_goes_back() {
        let pair = pair();
        let refused = ConsumeError::Refused { reason: "no".to_owned() };
        *pair.sinks[1].answer.lock() = Some(refused.clone());
        let (sent, mut waiter) = batch("x");
        pair.fanout.consume(sent).await.unwrap();
        assert_eq!(waiter.wait(SHORT).await, Answer::Safe);
        assert_eq!(pair.lost.lock().len(), 1);
        *pair.sinks[0].answer.lock() = Some(refused.clone());
        let (sent, mut waiter) = batch("y");
        assert_eq!(pair.fanout.consume(sent).await, Err(refused));
        assert_eq!(waiter.wait(SHORT).await, Answer::Failed);
    }

    #[tokio::test]
    async fn without_receivers_everything_is_safe() {
        let (sent, mut waiter) = batch("x");
        Fanout::<Logs>::new([]).consume(sent).await.unwrap();
        assert_eq!(waiter.wait(Duration::from_secs(1)).await, Answer::Safe);
    }
}
