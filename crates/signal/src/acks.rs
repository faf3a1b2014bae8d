//! What tells the source of a batch that its data is safe.
//!
//! A source that must not lose anything hands a batch on with [`Acks`]. Each stage passes them on with what it makes of
//! the batch, and whoever ends the way of the data says so: a sink when the data is on disk or delivered, a stage when it
//! drops something on purpose. A share that is dropped without a word has failed, so that data that somebody forgot is
//! sent again rather than lost.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// All of it is safe, or was dropped on purpose and counted.
    Safe,
    /// A part of it was lost on its way. The source sends it again.
    Failed,
}

/// A source that wants to know what becomes of its batches.
pub trait Settle: Send + Sync + 'static {
    /// Called once for a batch, by whoever lets go of it last. Must not block.
    fn settled(&self, serial: u64, how: Settled);

    /// A stage keeps data of the batch for a while that only time or further data ends. Whoever waits for an answer does
    /// not wait for that. Must not block.
    fn held(&self, serial: u64) {
        let _ = serial;
    }
}

/// What all shares of a batch have in common. The last one to go tells the source.
struct Token {
    serial: u64,
    to: Arc<dyn Settle>,
    failed: AtomicBool,
}

impl Drop for Token {
    fn drop(&mut self) {
        let how = if *self.failed.get_mut() { Settled::Failed } else { Settled::Safe };
        self.to.settled(self.serial, how);
    }
}

/// A share of a batch. Dropped while it is open, the batch has failed.
struct Ack {
    token: Arc<Token>,
    open: bool,
}

impl Ack {
    fn close(mut self) {
        self.open = false;
    }
}

impl Clone for Ack {
    fn clone(&self) -> Self {
        Ack { token: Arc::clone(&self.token), open: true }
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        if self.open {
            // The count of the token's owners orders this before the drop that reads it.
            self.token.failed.store(true, Ordering::Relaxed);
        }
    }
}

#[derive(Clone, Default)]
enum List {
    #[default]
    None,
    One(Ack),
    Many(Vec<Ack>),
}

/// Shares of the batches that some data came from. A copy is a further share of each: a batch is safe when all of its
/// shares are.
#[derive(Clone, Default)]
pub struct Acks(List);

impl Acks {
    /// No source wants to know.
    pub const NONE: Acks = Acks(List::None);

    /// The first share of a batch, which its source knows by a number.
    pub fn new(serial: u64, to: Arc<dyn Settle>) -> Self {
        let token = Arc::new(Token { serial, to, failed: AtomicBool::new(false) });
        Acks(List::One(Ack { token, open: true }))
    }

    /// Whether no source wants to know.
    pub fn is_none(&self) -> bool {
        matches!(self.0, List::None)
    }

    /// Takes over the shares of other data that goes on together with this.
    pub fn join(&mut self, other: Acks) {
        self.0 = match (std::mem::take(&mut self.0), other.0) {
            (list, List::None) | (List::None, list) => list,
            (List::One(a), List::One(b)) => {
                if Arc::ptr_eq(&a.token, &b.token) {
                    // Both are open, and one of them is enough to say how it ended.
                    b.close();
                    List::One(a)
                } else {
                    List::Many(vec![a, b])
                }
            }
            (List::One(one), List::Many(mut many)) | (List::Many(mut many), List::One(one)) => {
                push(&mut many, one);
                List::Many(many)
            }
            (List::Many(mut many), List::Many(others)) => {
                others.into_iter().for_each(|ack| push(&mut many, ack));
                List::Many(many)
            }
        };
    }

    /// The data is safe, or was dropped on purpose.
    pub fn safe(self) {
        match self.0 {
            List::None => {}
            List::One(ack) => ack.close(),
            List::Many(many) => many.into_iter().for_each(Ack::close),
        }
    }

    /// The data was lost. The same as dropping this, said aloud.
    pub fn fail(self) {
        drop(self);
    }

    /// Tells the sources that their data is kept for a while.
    pub fn hold(&self) {
        let tell = |ack: &Ack| ack.token.to.held(ack.token.serial);
        match &self.0 {
            List::None => {}
            List::One(ack) => tell(ack),
            List::Many(many) => many.iter().for_each(tell),
        }
    }
}

/// Adds a share unless one of the newest is of the same batch, as they are where the entries of a few batches are joined
/// one by one.
fn push(many: &mut Vec<Ack>, ack: Ack) {
    if many.iter().rev().take(4).any(|known| Arc::ptr_eq(&known.token, &ack.token)) {
        ack.close();
    } else {
        many.push(ack);
    }
}

impl fmt::Debug for Acks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shares = match &self.0 {
            List::None => 0,
            List::One(_) => 1,
            List::Many(many) => many.len(),
        };
        write!(f, "Acks({shares})")
    }
}

/// How many batches a [`Window`] remembers, those included that are safe behind one that a stage keeps.
const BATCHES_KEPT_MAX: usize = 16 << 10;

/// The batches in flight of a source that has a position: how far everything is safe, and how much is on its way.
///
/// What a stage keeps counts as on its way no more, and neither does what is safe meanwhile: that the source goes on is what
/// ends it.
#[derive(Debug)]
pub struct Window<P> {
    shared: Arc<Shared<P>>,
    batches_max: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Shared<P> {
    state: Mutex<State<P>>,
    changed: Notify,
}

#[derive(Debug)]
struct State<P> {
    /// The number of the first batch of the list.
    first: u64,
    batches: VecDeque<InFlight<P>>,
    /// How many of them count as on their way, and how many bytes.
    open: usize,
    bytes: usize,
    /// How many of them a stage keeps.
    kept: usize,
    settled_to: Option<P>,
    failed: bool,
}

#[derive(Debug)]
struct InFlight<P> {
    position: P,
    bytes: usize,
    /// Counts as on its way.
    open: bool,
    /// A stage keeps some of it.
    kept: bool,
    settled: Option<Settled>,
}

impl<P> State<P> {
    fn remove_first(&mut self) -> Option<P> {
        if !self.batches.is_empty() {
            self.close(0);
        }
        let batch = self.batches.pop_front()?;
        self.first += 1;
        Some(batch.position)
    }

    /// The place of a batch. What was in flight before a reset is of no interest any more.
    fn find(&self, serial: u64) -> Option<usize> {
        let at = serial.checked_sub(self.first)? as usize;
        (at < self.batches.len()).then_some(at)
    }

    /// A batch counts as on its way no more.
    fn close(&mut self, at: usize) {
        let batch = &mut self.batches[at];
        if std::mem::take(&mut batch.open) {
            self.open -= 1;
            self.bytes -= batch.bytes;
        }
    }
}

impl<P: Send + 'static> Settle for Shared<P> {
    fn settled(&self, serial: u64, how: Settled) {
        let mut state = self.state.lock();
        let Some(at) = state.find(serial) else { return };
        state.batches[at].settled = Some(how);
        state.kept -= usize::from(std::mem::take(&mut state.batches[at].kept));
        if state.kept > 0 {
            state.close(at);
        }
        state.failed |= how == Settled::Failed;
        while state.batches.front().is_some_and(|batch| batch.settled == Some(Settled::Safe)) {
            state.settled_to = state.remove_first();
        }
        drop(state);
        self.changed.notify_waiters();
    }

    fn held(&self, serial: u64) {
        let mut state = self.state.lock();
        let Some(at) = state.find(serial).filter(|at| !state.batches[*at].kept) else { return };
        state.batches[at].kept = true;
        state.kept += 1;
        state.close(at);
        if state.kept == 1 {
            // What is safe already may wait for this one for long.
            for at in 0..state.batches.len() {
                if state.batches[at].settled.is_some() {
                    state.close(at);
                }
            }
        }
        drop(state);
        self.changed.notify_waiters();
    }
}

impl<P: Clone + Send + 'static> Window<P> {
    /// A window of at most so many batches and bytes. A batch that is larger goes alone.
    pub fn new(batches_max: usize, bytes_max: usize) -> Self {
        let state =
            State { first: 0, batches: VecDeque::new(), open: 0, bytes: 0, kept: 0, settled_to: None, failed: false };
        Window { shared: Arc::new(Shared { state: Mutex::new(state), changed: Notify::new() }), batches_max, bytes_max }
    }

    /// Waits for room, and lets a batch in whose end is at a position. What is returned goes with the batch.
    pub async fn push(&self, position: P, bytes: usize) -> Acks {
        loop {
            let changed = self.changed();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(acks) = self.try_push(position.clone(), bytes) {
                return acks;
            }
            changed.await;
        }
    }

    /// Lets a batch in if there is room.
    pub fn try_push(&self, position: P, bytes: usize) -> Option<Acks> {
        let mut state = self.shared.state.lock();
        let fits = state.open < self.batches_max && state.bytes.saturating_add(bytes) <= self.bytes_max;
        if (!fits && state.open > 0) || state.batches.len() >= BATCHES_KEPT_MAX {
            return None;
        }
        let serial = state.first + state.batches.len() as u64;
        state.batches.push_back(InFlight { position, bytes, open: true, kept: false, settled: None });
        state.open += 1;
        state.bytes += bytes;
        drop(state);
        Some(Acks::new(serial, Arc::clone(&self.shared) as Arc<dyn Settle>))
    }

    /// The end of the last batch before which everything is safe.
    pub fn settled_to(&self) -> Option<P> {
        self.shared.state.lock().settled_to.clone()
    }

    /// Whether a batch in flight has failed. Then the source waits a while, calls [`reset`](Self::reset) and reads again
    /// from [`settled_to`](Self::settled_to).
    pub fn has_failed(&self) -> bool {
        self.shared.state.lock().failed
    }

    /// Whether nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.shared.state.lock().batches.is_empty()
    }

    /// How many batches are in flight.
    pub fn len(&self) -> usize {
        self.shared.state.lock().batches.len()
    }

    /// Becomes ready when a batch was settled after the call.
    pub fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.shared.changed.notified()
    }

    /// Forgets what is in flight. Where everything is safe up to stays known.
    pub fn reset(&self) {
        let mut state = self.shared.state.lock();
        state.first += state.batches.len() as u64;
        state.batches.clear();
        (state.open, state.bytes, state.kept) = (0, 0, 0);
        state.failed = false;
        drop(state);
        self.shared.changed.notify_waiters();
    }

    /// Waits until nothing is in flight, something failed, or the time is over; whether nothing is in flight.
    pub async fn settle(&self, wait_max: Duration) -> bool {
        let all = async {
            loop {
                let changed = self.changed();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if self.is_empty() || self.has_failed() {
                    return;
                }
                changed.await;
            }
        };
        let _ = tokio::time::timeout(wait_max, all).await;
        self.is_empty()
    }
}

/// What somebody who pushed data is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is safe.
    Safe,
    /// A stage keeps some of it for a while.
    Held,
    /// A part of it was lost on its way.
    Failed,
    /// The time was over.
    Late,
}

/// Waits for what becomes of one batch.
#[derive(Debug)]
pub struct Waiter(watch::Receiver<Option<Answer>>);

struct Tell(watch::Sender<Option<Answer>>);

impl Tell {
    fn tell(&self, answer: Answer) {
        self.0.send_if_modified(|told| told.is_none() && told.replace(answer).is_none());
    }
}

impl Settle for Tell {
    fn settled(&self, _: u64, how: Settled) {
        self.tell(match how {
            Settled::Safe => Answer::Safe,
            Settled::Failed => Answer::Failed,
        });
    }

    fn held(&self, _: u64) {
        self.tell(Answer::Held);
    }
}

/// A batch that somebody waits for: what goes with it, and what waits.
pub fn waiter() -> (Acks, Waiter) {
    let (sender, receiver) = watch::channel(None);
    (Acks::new(0, Arc::new(Tell(sender))), Waiter(receiver))
}

impl Waiter {
    /// Waits at most so long. What was told first counts.
    pub async fn wait(&mut self, limit: Duration) -> Answer {
        match tokio::time::timeout(limit, self.0.wait_for(Option::is_some)).await {
            Ok(Ok(answer)) => answer.unwrap_or(Answer::Failed),
            Ok(Err(_)) => Answer::Failed,
            Err(_) => Answer::Late,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Notes(Mutex<Vec<(u64, Settled)>>);

    impl Settle for Notes {
        fn settled(&self, serial: u64, how: Settled) {
            self.0.lock().push((serial, how));
        }
    }

    fn acks(serial: u64, notes: &Arc<Notes>) -> Acks {
        Acks::new(serial, Arc::clone(notes) as Arc<dyn Settle>)
    }

    #[test]
    fn a_batch_is_settled_once_when_its_last_share_goes() {
        let notes = Arc::new(Notes::default());
        let first = acks(7, &notes);
        let second = first.clone();
        first.safe();
        assert_eq!(*notes.0.lock(), []);
        second.safe();
        assert_eq!(*notes.0.lock(), [(7, Settled::Safe)]);
    }

    #[test]
    fn a_share_that_is_dropped_without_a_word_has_failed() {
        let notes = Arc::new(Notes::default());
        let first = acks(7, &notes);
        drop(first.clone());
        first.safe();
        assert_eq!(*notes.0.lock(), [(7, Settled::Failed)]);
    }

    #[test]
    fn joined_shares_settle_together() {
        let notes = Arc::new(Notes::default());
        let (a, b, c) = (acks(1, &notes), acks(2, &notes), acks(3, &notes));
        let mut joined = Acks::NONE;
        for share in [a.clone(), a, b.clone(), b, c] {
            joined.join(share);
        }
        let copy = joined.clone();
        joined.safe();
        assert_eq!(*notes.0.lock(), []);
        copy.safe();
        assert_eq!(*notes.0.lock(), [(1, Settled::Safe), (2, Settled::Safe), (3, Settled::Safe)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_is_told_what_happened_first() {
        let (acks, mut waiter) = waiter();
        acks.hold();
        acks.safe();
        assert_eq!(waiter.wait(Duration::from_secs(1)).await, Answer::Held);
        let (acks, mut waiter) = super::waiter();
        assert_eq!(waiter.wait(Duration::from_secs(1)).await, Answer::Late);
        acks.fail();
        assert_eq!(waiter.wait(Duration::from_secs(1)).await, Answer::Failed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_window_is_bounded_by_batches_and_by_bytes() {
        for (batches_max, bytes_max) in [(1, 1000), (9, 15)] {
            let window = Window::new(batches_max, bytes_max);
            let first = window.push(1, 10).await;
            assert!(tokio::time::timeout(Duration::from_secs(1), window.push(2, 10)).await.is_err());
            let (second, ()) = tokio::join!(window.push(2, 10), async { first.safe() });
            assert_eq!(window.settled_to(), Some(1));
            second.safe();
            assert!(window.settle(Duration::from_secs(1)).await);
        }
        // What is larger than the window goes alone.
        assert!(Window::new(9, 15).try_push(1, 100).is_some());
    }

    #[test]
    fn what_a_stage_keeps_takes_no_room() {
        let window = Window::new(2, 1000);
        let first = window.try_push(0, 1).unwrap();
        let second = window.try_push(1, 1).unwrap();
        second.safe();
        assert!(window.try_push(2, 1).is_none(), "what is safe behind others that are on their way counts");
        first.hold();
        first.hold();
        for position in 2..100 {
            window.try_push(position, 1).unwrap().safe();
        }
        assert_eq!((window.settled_to(), window.len()), (None, 100));
        first.safe();
        assert_eq!((window.settled_to(), window.len()), (Some(99), 0));
        let kept = (100..200).map(|position| {
            let acks = window.try_push(position, 1).unwrap();
            acks.hold();
            acks
        });
        kept.collect::<Vec<_>>().into_iter().for_each(Acks::safe);
        assert_eq!((window.settled_to(), window.len()), (Some(199), 0));
        let [_a, _b] = [1, 2].map(|position| window.try_push(position, 1).unwrap());
        assert!(window.try_push(3, 1).is_none());
    }

    #[test]
    fn after_a_failure_the_settled_prefix_stays_and_old_batches_count_no_more() {
        let window = Window::new(9, 1000);
        let [a, b, c] = [1, 2, 3].map(|position| window.try_push(position, 1).unwrap());
        a.safe();
        b.fail();
        assert!(window.has_failed());
        window.reset();
        c.safe();
        assert_eq!((window.settled_to(), window.has_failed(), window.len()), (Some(1), false, 0));
        window.try_push(2, 1).unwrap().safe();
        assert_eq!(window.settled_to(), Some(2));
    }

    proptest! {
        #[test]
        fn the_position_is_the_end_of_the_settled_prefix(order in Just((0..20usize).collect::<Vec<_>>()).prop_shuffle()) {
            let window = Window::new(100, 1000);
            let mut open: Vec<_> = (0..20).map(|position| window.try_push(position, 1)).collect();
            let mut settled = [false; 20];
            for at in order {
                open[at].take().unwrap().safe();
                settled[at] = true;
                let prefix = settled.iter().take_while(|settled| **settled).count();
                prop_assert_eq!(window.settled_to(), prefix.checked_sub(1));
            }
            prop_assert!(window.is_empty());
        }
    }
}
