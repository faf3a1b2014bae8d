//! The queue in memory.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use corten_component::metrics::Gauge;
use corten_otlp::{Batch, OtlpSignal};
use corten_signal::ledger::Pass;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::super::queue::{Joining, Sizer};
use super::books::{Dropped, SHUTDOWN, Waiting, Waits};
use super::{Failure, LaneTask, Room, Sender, changed, full};

/// Batches that wait in memory. They are shared with whoever else has them.
pub(super) struct Memory<S: OtlpSignal> {
    state: Mutex<State<S>>,
    arrived: Notify,
    room: Arc<Room>,
}

struct State<S: OtlpSignal> {
    entries: VecDeque<Entry<S>>,
    /// It ends when nothing waits.
    leaves: bool,
    /// Nothing is taken any more.
    closed: bool,
}

struct Entry<S: OtlpSignal> {
    batch: Batch<S::Record>,
    ticket: Arc<Ticket>,
}

/// The room that a batch takes in the queue, until the last part of it is sent; and who waits for the outcome.
struct Ticket {
    size: u64,
    bytes: u64,
    number: u64,
    room: Arc<Room>,
    failure: Mutex<Option<Failure>>,
    reply: Option<oneshot::Sender<Result<(), Failure>>>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.room.since.remove(self.number);
        self.room.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.room.free(self.size);
        if let Some(reply) = self.reply.take() {
            // Whoever asked may be gone.
            let _ = reply.send(self.failure.get_mut().take().map_or(Ok(()), Err));
        }
    }
}

/// Why nothing is taken: whoever sends finds the queue that is used now with the next attempt.
fn gone() -> Failure {
    Failure::passing("the sending queue is not used any more")
}

impl<S: OtlpSignal> Memory<S> {
    /// Takes a batch, and waits for what settings say to wait for.
    pub(super) async fn offer(
        &self,
        sender: &Sender<S>,
        batch: Batch<S::Record>,
        pass: &mut Pass<'_>,
    ) -> Result<(), Failure> {
        let items = batch.items();
        let offered = loop {
            let freed = self.room.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if self.state.lock().closed {
                break Err(gone());
            }
            let settings = sender.current();
            let queue = &settings.queue;
            let size = queue.sizer().of(&batch);
            if size == 0 {
                batch.acks.safe();
                return Ok(());
            }
            if queue.joining().sizer == Sizer::Bytes {
                // The message is made here, and not where others wait for it.
                batch.message_len();
            }
            let failure = if size > queue.capacity() {
                Failure::permanent("element size too large")
            } else if self.room.take(size, queue.capacity()) {
                let (reply, answer) = oneshot::channel();
                let (reply, answer) = (queue.wait_for_result.then_some(reply), queue.wait_for_result.then_some(answer));
                break self.push(sender, batch, size, reply).map(|()| answer);
            } else if queue.block_on_overflow {
                freed.await;
                continue;
            } else {
                full()
            };
            settings.metrics.enqueue_failed.add(items as u64);
            return Err(failure);
        };
        match offered? {
            None => Ok(()),
            // Whoever waits may give up, or be told that it failed, and then sends again what the queue has.
            Some(answer) => {
                pass.handed_on(items);
                answer.await.unwrap_or_else(|_| Err(gone()))
            }
        }
    }

    fn push(
        &self,
        sender: &Sender<S>,
        batch: Batch<S::Record>,
        size: u64,
        reply: Option<oneshot::Sender<Result<(), Failure>>>,
    ) -> Result<(), Failure> {
        let mut state = self.state.lock();
        if state.closed {
            drop(state);
            self.room.free(size);
            return Err(gone());
        }
        if reply.is_none() {
            batch.acks.hold();
        }
        let (items, bytes, room) = (batch.items(), batch.weight() as u64, Arc::clone(&self.room));
        let number = room.since.add();
        room.bytes.fetch_add(bytes, Ordering::Relaxed);
        room.items.fetch_add(items as u64, Ordering::Relaxed);
        sender.books.queued(items);
        let ticket = Ticket { size, bytes, number, room, failure: Mutex::default(), reply };
        state.entries.push_back(Entry { batch, ticket: Arc::new(ticket) });
        drop(state);
        self.arrived.notify_one();
        Ok(())
    }

    /// Lets those look again who wait for room.
    pub(super) fn adapt(&self) {
        self.room.freed.notify_waiters();
    }

    /// Adds to a request what waits, until it has enough. Whether it has, or what waits cannot be joined with it.
    fn fill(&self, pending: &mut Option<Pending<S>>, sender: &Sender<S>, joining: &Joining, joins_all: bool) -> bool {
        let mut state = self.state.lock();
        loop {
            let Some(ready) = pending else {
                let Some(entry) = state.entries.pop_front() else { return false };
                *pending = Some(Pending::new(entry, sender));
                continue;
            };
            if joining.sizer.of(&ready.request.batch) >= joining.min {
                return true;
            }
            let Some(next) = state.entries.front() else { return false };
            if !joins_all && !is_same_context(&ready.request.batch, &next.batch) {
                return true;
            }
            if let Some(entry) = state.entries.pop_front() {
                ready.join(entry);
            }
        }
    }

    /// Ends when nothing waits, or goes on if it has not ended. Whether it has not.
    pub(super) fn leave(&self, leaves: bool) -> bool {
        let mut state = self.state.lock();
        state.leaves = leaves;
        !state.closed
    }

    /// Takes nothing more, if nothing waits and it is to end. Whether that is so.
    fn close_if_done(&self, ends: bool) -> bool {
        let mut state = self.state.lock();
        state.closed |= (ends || state.leaves) && state.entries.is_empty();
        state.closed
    }

    /// Takes nothing more, and gives up what waits: how many items those are.
    fn close(&self) -> usize {
        let mut state = self.state.lock();
        state.closed = true;
        let entries = std::mem::take(&mut state.entries);
        drop(state);
        self.room.freed.notify_waiters();
        let failure = gone();
        entries.iter().for_each(|entry| *entry.ticket.failure.lock() = Some(failure.clone()));
        let items = entries.iter().map(|entry| entry.batch.items()).sum();
        self.room.items.fetch_sub(items as u64, Ordering::Relaxed);
        items
    }
}

/// Whether what is sent with one batch fits the other.
fn is_same_context<R>(a: &Batch<R>, b: &Batch<R>) -> bool {
    let same_auth = match (&a.context.auth, &b.context.auth) {
        (None, None) => true,
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        _ => false,
    };
    Arc::ptr_eq(&a.context, &b.context) || same_auth && a.context.metadata == b.context.metadata
}

/// What is being joined to a request.
struct Pending<S: OtlpSignal> {
    request: Request<S>,
    /// How many items came last.
    last_items: usize,
    since: Instant,
}

impl<S: OtlpSignal> Pending<S> {
    fn new(entry: Entry<S>, sender: &Sender<S>) -> Self {
        let last_items = entry.batch.items();
        let request = Request { batch: entry.batch, tickets: vec![entry.ticket], sender: sender.clone(), done: false };
        Pending { request, last_items, since: Instant::now() }
    }

    fn join(&mut self, entry: Entry<S>) {
        self.last_items = entry.batch.items();
        self.request.batch.join(entry.batch);
        self.request.tickets.push(entry.ticket);
    }

    /// Takes what makes one request; what is left, if anything is.
    fn split(mut self, joining: &Joining) -> (Request<S>, Option<Self>) {
        let rest = &mut self.request;
        let batch = joining.take(&mut rest.batch);
        if rest.batch.is_empty() {
            rest.batch = batch;
            return (self.request, None);
        }
        let front = Request { batch, tickets: rest.tickets.clone(), sender: rest.sender.clone(), done: false };
        if rest.batch.items() <= self.last_items {
            // All that came before is sent.
            rest.tickets.drain(..rest.tickets.len() - 1);
        }
        self.since = Instant::now();
        (front, Some(self))
    }
}

/// A request that is sent.
struct Request<S: OtlpSignal> {
    batch: Batch<S::Record>,
    tickets: Vec<Arc<Ticket>>,
    sender: Sender<S>,
    done: bool,
}

/// Counts items as under way until it is dropped.
struct InFlight(Arc<Room>, u64);

impl InFlight {
    fn new(room: &Arc<Room>, items: usize) -> Self {
        room.in_flight.fetch_add(items as u64, Ordering::Relaxed);
        InFlight(Arc::clone(room), items as u64)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(self.1, Ordering::Relaxed);
    }
}

impl<S: OtlpSignal> Request<S> {
    /// The request is done with.
    fn settle(&mut self, dropped: &Dropped) {
        self.done = true;
        let items = self.batch.items();
        self.sender.books.settled(items, dropped);
        if let Some(ticket) = self.tickets.first() {
            ticket.room.items.fetch_sub(items as u64, Ordering::Relaxed);
        }
    }

    async fn send(mut self) {
        // What is sent carries no acknowledgements: they are this request's to give.
        let acks = std::mem::take(&mut self.batch.acks);
        let batch = self.batch.clone();
        self.batch.acks = acks;
        let in_flight = self.tickets.first().map(|ticket| InFlight::new(&ticket.room, batch.items()));
        let sent = self.sender.deliver(batch, false).await;
        drop(in_flight);
        self.settle(&sent.dropped());
        match sent.outcome {
            Some(Ok(())) | None => std::mem::take(&mut self.batch.acks).safe(),
            Some(Err(failure)) => self.fail(&failure, sent.left),
        }
        sent.handed_on.for_good();
    }

    fn fail(&mut self, failure: &Failure, left: usize) {
        self.sender.dropped(failure, left);
        self.tickets.iter().for_each(|ticket| *ticket.failure.lock() = Some(failure.clone()));
        // Whoever waits for the outcome decides; for the others it was dropped on purpose.
        if self.tickets.iter().all(|ticket| ticket.reply.is_none()) {
            std::mem::take(&mut self.batch.acks).safe();
        }
    }
}

impl<S: OtlpSignal> Drop for Request<S> {
    fn drop(&mut self) {
        if !self.done {
            let failure = Failure { kind: "Shutdown", ..Failure::passing("the request was given up") };
            self.sender.current().metrics.failed(self.batch.items(), &failure);
            self.sender.dropped(&failure, self.batch.items());
            self.settle(&vec![(SHUTDOWN, self.batch.items())]);
            self.tickets.iter().for_each(|ticket| *ticket.failure.lock() = Some(failure.clone()));
        }
    }
}

/// A queue in memory and what sends it.
pub(super) struct MemoryLane<S: OtlpSignal> {
    pub(super) memory: Arc<Memory<S>>,
    pub(super) task: LaneTask,
    sender: Sender<S>,
}

impl<S: OtlpSignal> MemoryLane<S> {
    pub(super) fn start(sender: Sender<S>, shown: Gauge) -> Self {
        let room = Arc::new(Room::new(shown));
        let state = Mutex::new(State { entries: VecDeque::new(), leaves: false, closed: false });
        let memory = Arc::new(Memory { state, arrived: Notify::new(), room });
        let queue: Arc<dyn Waits> = Arc::clone(&memory) as Arc<dyn Waits>;
        sender.books.add_queue(Arc::downgrade(&queue));
        let task = LaneTask::start(|wake| run(Arc::clone(&memory), sender.clone(), wake));
        MemoryLane { memory, task, sender }
    }

    pub(super) async fn drain(mut self) {
        self.task.ended().await;
        drop(self.task);
        let items = self.memory.close();
        if items > 0 {
            let failure = Failure { kind: "Shutdown", ..Failure::passing("interrupted due to shutdown") };
            self.sender.current().metrics.failed(items, &failure);
            self.sender.dropped(&failure, items);
            self.sender.books.settled(items, &vec![(SHUTDOWN, items)]);
        }
    }
}

impl<S: OtlpSignal> Waits for Memory<S> {
    fn waiting(&self) -> Waiting {
        Waiting {
            items: self.room.items.load(Ordering::Relaxed),
            bytes: self.room.bytes.load(Ordering::Relaxed),
            in_flight: self.room.in_flight.load(Ordering::Relaxed),
            oldest_ms: self.room.since.oldest_ms(),
            ..Waiting::default()
        }
    }
}

/// Sends what waits, so many requests at a time, until nothing more comes.
async fn run<S: OtlpSignal>(memory: Arc<Memory<S>>, sender: Sender<S>, wake: Arc<Notify>) {
    let (mut settings, mut ending) = (sender.settings.clone(), sender.ending.clone());
    let mut requests = JoinSet::new();
    let mut pending: Option<Pending<S>> = None;
    loop {
        while requests.try_join_next().is_some() {}
        let now = Arc::clone(&settings.borrow_and_update());
        if requests.len() >= now.queue.consumers() {
            tokio::select! {
                _ = requests.join_next() => {}
                () = changed(&mut settings) => {}
            }
            continue;
        }
        let joining = now.queue.joining();
        let ends = *ending.borrow_and_update();
        let arrived = memory.arrived.notified();
        let is_due = memory.fill(&mut pending, &sender, &joining, !now.push.reads_context());
        drop(now);
        let deadline = pending.as_ref().map(|pending| pending.since + joining.wait);
        if let Some(ready) = pending.take_if(|_| is_due || ends || deadline.is_some_and(|at| at <= Instant::now())) {
            let (request, rest) = ready.split(&joining);
            requests.spawn(request.send());
            pending = rest;
            continue;
        }
        if pending.is_none() && requests.is_empty() && memory.close_if_done(ends) {
            return;
        }
        tokio::select! {
            () = arrived => {}
            () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {}
            Some(_) = requests.join_next() => {}
            () = changed(&mut settings) => {}
            () = changed(&mut ending) => {}
            () = wake.notified() => {}
        }
    }
}
