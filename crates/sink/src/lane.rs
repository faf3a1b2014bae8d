//! A lane: items are encoded and compressed once, and written to the queue.
//!
//! Batches that arrive within a tenth of a second of each other are joined into one group of records. Whoever hands over a
//! batch either waits until its group is written, or gives the lane the shares of the batch, which are settled when its
//! records are durable, or delivered where the disk takes nothing or there is none.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use corten_component::{Field, Logger};
use corten_queue::{AppendError, Appended, Counts, Hold, NewRecord, Queue, Totals};
use corten_signal::{Acks, ConsumeError};
use corten_wire::snappy::Compressor;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// How long items wait for others to share a record with. A record costs two handovers between threads, a write and a
/// read, however many items it holds; a tenth of a second is little beside the seconds for which a request waits.
pub const JOIN_WAIT: Duration = Duration::from_millis(100);

/// The most bytes that a record holds before compression. The format of a request has no limit, its receivers do.
pub const RAW_BYTES_MAX: usize = 4 << 20;

/// How long buffers are kept that nothing was put into. Many of what sends regularly does so every fifteen seconds.
const BUFFERS_KEPT: Duration = Duration::from_secs(20);

/// How many full groups may wait to be written before whoever fills them has to wait.
const FULL_GROUPS_MAX: u64 = 2;

/// What a lane fills: some records that are written together.
pub trait Group: Default + Send + 'static {
    /// Whether nothing was put into it.
    fn is_empty(&self) -> bool;

    /// Makes records of what is in it and leaves it empty; it may keep its buffers for what comes next. Gives the shares of
    /// the batches that are settled by the records.
    fn seal(&mut self, compressor: &mut Compressor, records: &mut Vec<NewRecord>) -> Acks;
}

/// A lane of a sink.
pub struct Lane<G: Group> {
    component: Arc<str>,
    shared: Arc<Shared<G>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

struct Shared<G> {
    queue: Queue,
    /// What the items are called.
    items: &'static str,
    open: Mutex<Open<G>>,
    /// The writer is told when something was put into an empty group, and when one is full.
    wake: Notify,
    full: Notify,
    written: watch::Sender<Written>,
    /// What was in records that are larger than the queue may be.
    too_large: Mutex<Totals>,
    on_too_large: OnceLock<OnTooLarge>,
    /// How often a record had to wait for room in the queue.
    waits: AtomicU64,
    /// How many items were in records that are done with: appended, too large, or not taken because the queue was closed.
    done: AtomicU64,
    /// How many of them were not taken.
    not_taken: AtomicU64,
    logger: Logger,
}

/// Told of records that are larger than the queue may be: whose they were, and what was in them.
pub type OnTooLarge = Box<dyn Fn(&Option<Arc<str>>, &Totals) + Send + Sync>;

/// How far the writer is.
#[derive(Clone, Copy, Default)]
struct Written {
    /// The number of the last group of records that was written.
    group: u64,
    /// What waits is still written, and nothing after it.
    closing: bool,
    /// Nothing is written any more.
    closed: bool,
}

/// The group that is being filled, and those that are full and not yet taken by the writer.
struct Open<G> {
    number: u64,
    filling: G,
    full: Vec<G>,
    /// Its buffers are used again.
    spare: Option<G>,
}

impl<G: Group> fmt::Debug for Lane<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").field("component", &self.component).finish_non_exhaustive()
    }
}

impl<G: Group> Lane<G> {
    /// A lane of a component into this queue. `items` is what log lines call what it takes.
    pub fn new(component: Arc<str>, queue: Queue, items: &'static str, logger: Logger) -> Self {
        let shared = Arc::new(Shared {
            queue,
            items,
            open: Mutex::new(Open { number: 1, filling: G::default(), full: Vec::new(), spare: None }),
            wake: Notify::new(),
            full: Notify::new(),
            written: watch::Sender::default(),
            too_large: Mutex::default(),
            on_too_large: OnceLock::new(),
            waits: AtomicU64::new(0),
            done: AtomicU64::new(0),
            not_taken: AtomicU64::new(0),
            logger,
        });
        tokio::spawn(tell_of_disk(shared.queue.degraded(), items, shared.logger.clone()));
        let writer = tokio::spawn(write_records(Arc::clone(&shared)));
        Lane { component, shared, writer: Mutex::new(Some(writer)) }
    }

    /// The queue behind the lane.
    pub fn queue(&self) -> &Queue {
        &self.shared.queue
    }

    /// Tells of records that are larger than the queue may be; only the first who asks is told.
    pub fn on_too_large(&self, told: OnTooLarge) {
        let _ = self.shared.on_too_large.set(told);
    }

    /// What was dropped because its record is larger than the queue may be.
    pub fn too_large(&self) -> Totals {
        *self.shared.too_large.lock()
    }

    /// How often a record had to wait for room in the queue.
    pub fn waits(&self) -> u64 {
        self.shared.waits.load(Ordering::Relaxed)
    }

    /// Of so many items that were put into groups, how many wait to be written, and how many never will be because the lane
    /// was closed. An item is a sample, a histogram or an exemplar of the records that groups become.
    pub fn unwritten(&self, filled: impl FnOnce() -> u64) -> (u64, u64) {
        let (is_closed, not_taken) =
            (self.shared.written.borrow().closed, self.shared.not_taken.load(Ordering::Acquire));
        let done = self.shared.done.load(Ordering::Acquire);
        let waiting = filled().saturating_sub(done);
        if is_closed { (0, not_taken + waiting) } else { (waiting, not_taken) }
    }

    /// Puts something into the group that is being filled; `fill` says whether that is full now. Returns the number of the
    /// group and whether it is full.
    pub fn fill(&self, fill: impl FnOnce(&mut G) -> bool) -> (u64, bool) {
        let mut open = self.shared.open.lock();
        let open = &mut *open;
        let number = open.number;
        let was_empty = open.filling.is_empty();
        let is_full = fill(&mut open.filling);
        if is_full {
            let next = open.spare.take().unwrap_or_default();
            open.full.push(std::mem::replace(&mut open.filling, next));
            open.number += 1;
            self.shared.full.notify_one();
        }
        if is_full || was_empty {
            self.shared.wake.notify_one();
        }
        (number, is_full)
    }

    /// Waits until a group is written.
    ///
    /// # Errors
    ///
    /// When it will not be, because the lane was closed.
    pub async fn wait_written(&self, group: u64) -> Result<(), ConsumeError> {
        let mut written = self.shared.written.subscribe();
        let done = *written.wait_for(|w| w.group >= group || w.closed).await.map_err(|_| self.gone())?;
        if done.group >= group { Ok(()) } else { Err(self.gone()) }
    }

    /// Waits until there is room: until no more than two full groups wait to be written. Whoever fills a group waits before,
    /// each time; otherwise as many groups could wait as there are who fill them.
    ///
    /// # Errors
    ///
    /// When there will be none, because the lane was closed.
    pub async fn wait_room(&self) -> Result<(), ConsumeError> {
        let mut written = self.shared.written.subscribe();
        loop {
            let last_full = self.shared.open.lock().number.saturating_sub(1);
            let now = *written.borrow_and_update();
            if now.closed {
                return Err(self.gone());
            }
            if last_full.saturating_sub(now.group) <= FULL_GROUPS_MAX {
                return Ok(());
            }
            // Others may have filled groups since, so it is looked again.
            written.changed().await.map_err(|_| self.gone())?;
        }
    }

    fn gone(&self) -> ConsumeError {
        ConsumeError::Exited { component: self.component.to_string() }
    }

    /// Writes what is waiting, and takes nothing any more.
    pub async fn close(&self) {
        self.shared.written.send_if_modified(|written| !std::mem::replace(&mut written.closing, true));
        self.shared.wake.notify_one();
        self.shared.full.notify_one();
        let writer = self.writer.lock().take();
        if let Some(writer) = writer {
            let _ = writer.await;
        }
    }
}

impl<G: Group> Shared<G> {
    /// What is to be written now: the full groups, and with `all` also the one that is being filled. And the number of the
    /// last of them.
    fn take(&self, all: bool) -> (Vec<G>, u64) {
        let mut open = self.open.lock();
        let open = &mut *open;
        let mut groups = std::mem::take(&mut open.full);
        if all && !open.filling.is_empty() {
            let next = open.spare.take().unwrap_or_default();
            groups.push(std::mem::replace(&mut open.filling, next));
            open.number += 1;
        }
        (groups, open.number - 1)
    }

    /// Keeps the buffers of a group for the next one; those of one group are enough as long as it is written before the next
    /// begins.
    fn recycle(&self, mut group: G) {
        let mut open = self.open.lock();
        if open.filling.is_empty() {
            std::mem::swap(&mut open.filling, &mut group);
        }
        open.spare.get_or_insert(group);
    }

    /// Lets go of the buffers that nothing is in.
    fn let_go(&self) {
        let mut open = self.open.lock();
        open.spare = None;
        if open.filling.is_empty() {
            open.filling = G::default();
        }
    }
}

async fn write_records<G: Group>(shared: Arc<Shared<G>>) {
    let mut compressor = Compressor::new();
    loop {
        if tokio::time::timeout(BUFFERS_KEPT, shared.wake.notified()).await.is_err() {
            shared.let_go();
            compressor = Compressor::new();
            shared.wake.notified().await;
        }
        let closing = shared.written.borrow().closing;
        // Others may join until the group is full or the wait is over.
        let full = !closing && tokio::time::timeout(JOIN_WAIT, shared.full.notified()).await.is_ok();
        let (groups, number) = shared.take(!full);
        if full && !shared.open.lock().filling.is_empty() {
            shared.wake.notify_one();
        }
        let (mut records, mut acks) = (Vec::new(), Acks::NONE);
        for mut group in groups {
            acks.join(group.seal(&mut compressor, &mut records));
            shared.recycle(group);
        }
        let mut left = records.iter().map(|record| items(&record.counts)).sum();
        let all: u64 = left;
        let gone = append(&shared, records, acks, &mut left).await.is_err();
        shared.not_taken.fetch_add(left, Ordering::Release);
        shared.done.fetch_add(all, Ordering::Release);
        shared.written.send_if_modified(|written| {
            written.closed |= gone || closing;
            if !gone {
                written.group = number;
            }
            true
        });
        if gone || closing {
            return;
        }
    }
}

/// Says when the disk takes nothing any more, and when it does again; until the queue is closed.
async fn tell_of_disk(mut degraded: watch::Receiver<Option<String>>, items: &'static str, logger: Logger) {
    let mut told = false;
    loop {
        let error = degraded.borrow_and_update().clone();
        match (&error, told) {
            (Some(error), false) => {
                let message = format!("cannot write the queue; {items} are held in memory");
                logger.error(&message, &[("err", Field::from(error))]);
            }
            (None, true) => logger.info("the queue takes records again", &[]),
            _ => {}
        }
        told = error.is_some();
        if degraded.changed().await.is_err() {
            return;
        }
    }
}

/// The shares of the batches in some records: they are safe when all of these are.
#[derive(Debug)]
struct Held {
    records: AtomicUsize,
    acks: Mutex<Acks>,
}

impl Hold for Held {
    fn settled(&self) {
        if self.records.fetch_sub(1, Ordering::AcqRel) == 1 {
            let acks = std::mem::take(&mut *self.acks.lock());
            acks.safe();
        }
    }
}

/// How many items a record holds besides metadata.
fn items(counts: &Counts) -> u64 {
    counts.items() - u64::from(counts.metadata)
}

/// Appends records, for as long as the queue is full and its user wants to wait. Records that it cannot ever hold are
/// dropped: whoever sent them would only send them again. `left` is how many items they hold, and then how many of them were
/// neither appended nor dropped.
async fn append<G>(
    shared: &Shared<G>,
    mut records: Vec<NewRecord>,
    acks: Acks,
    left: &mut u64,
) -> Result<(), AppendError> {
    if records.is_empty() {
        acks.safe();
        return Ok(());
    }
    let mut held = None;
    if !acks.is_none() {
        let hold = Arc::new(Held { records: AtomicUsize::new(records.len()), acks: Mutex::new(acks) });
        for record in &mut records {
            record.hold = Some(Arc::clone(&hold) as Arc<dyn Hold>);
        }
        held = Some(hold);
    }
    let settled = |records: usize| {
        for held in held.iter().flat_map(|held| std::iter::repeat_n(held, records)) {
            held.settled();
        }
    };
    match append_together(shared, &records).await {
        Err(AppendError::TooLarge { .. }) => {}
        Ok(Appended { durable }) => {
            settled(if durable { records.len() } else { 0 });
            *left = 0;
            return Ok(());
        }
        Err(other) => return Err(other),
    }
    for record in records {
        let (counts, body_len, tenant) = (record.counts, record.body.len(), record.tenant.clone());
        match append_together(shared, &[record]).await {
            Err(error @ AppendError::TooLarge { .. }) => {
                shared.too_large.lock().record(&counts, body_len);
                if let Some(told) = shared.on_too_large.get() {
                    let mut lost = Totals::default();
                    lost.record(&counts, body_len);
                    told(&tenant, &lost);
                }
                settled(1);
                let message = format!("dropped {} that do not fit into the queue", shared.items);
                let fields = [("count", Field::from(counts.items())), ("err", Field::from(error.to_string()))];
                shared.logger.error(&message, &fields);
            }
            other => settled(usize::from(other?.durable)),
        }
        *left = left.saturating_sub(items(&counts));
    }
    Ok(())
}

async fn append_together<G>(shared: &Shared<G>, records: &[NewRecord]) -> Result<Appended, AppendError> {
    loop {
        match shared.queue.append(records.to_vec()).await {
            Err(AppendError::Overflow) => {
                shared.waits.fetch_add(1, Ordering::Relaxed);
                shared.queue.space().await;
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use corten_component::log::LogSink;
    use corten_queue::{Options, Outcome, ReaderOptions, Start};
    use corten_signal::acks::{Answer, Waiter, waiter};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// A record for each byte that was put in.
    #[derive(Default)]
    struct Letters(Vec<Vec<u8>>, Acks);

    impl Group for Letters {
        fn is_empty(&self) -> bool {
            self.0.is_empty() && self.1.is_none()
        }

        fn seal(&mut self, _: &mut Compressor, records: &mut Vec<NewRecord>) -> Acks {
            records.extend(self.0.drain(..).map(|body| NewRecord {
                encoding: 0,
                tenant: None,
                partition: 0,
                partitions: 1,
                counts: Counts::samples(1),
                lowest_ms: 0,
                highest_ms: 0,
                raw_len: body.len() as u32,
                body: Bytes::from(body),
                hold: None,
            }));
            std::mem::take(&mut self.1)
        }
    }

    fn lane(queue: &Queue) -> Lane<Letters> {
        Lane::new(Arc::from("a.b.c"), queue.clone(), "letters", Logger::new(LogSink::memory().0))
    }

    /// Puts a batch of so many records into the lane. The group's number, and what waits for the batch.
    fn put(lane: &Lane<Letters>, records: usize, len: usize, is_full: bool) -> (u64, Waiter) {
        let (acks, waiter) = waiter();
        let (number, _) = lane.fill(|group| {
            group.0.extend((0..records).map(|_| vec![b'x'; len]));
            group.1.join(acks);
            is_full
        });
        (number, waiter)
    }

    fn eager() -> ReaderOptions {
        ReaderOptions { wait_max: Duration::ZERO, start: Start::Oldest, items_max: 1, ..ReaderOptions::default() }
    }

    #[tokio::test]
    async fn batches_that_come_together_are_written_together_and_safe_then() {
        let dir = tempfile::tempdir().unwrap();
        let queue = Queue::open(dir.path(), Options::default()).unwrap();
        let lane = lane(&queue);
        let batches: Vec<(u64, Waiter)> = (0..5).map(|_| put(&lane, 2, 10, false)).collect();
        for (number, mut waiter) in batches {
            assert_eq!((number, waiter.wait(LIMIT).await), (1, Answer::Safe));
        }
        let stats = queue.stats();
        assert_eq!((stats.writes, stats.appended.records), (1, 10));
        // What holds nothing is safe, too.
        let (number, mut waiter) = put(&lane, 0, 0, false);
        assert_eq!((number, waiter.wait(LIMIT).await), (2, Answer::Safe));
    }

    #[tokio::test]
    async fn without_a_disk_a_batch_is_safe_once_all_of_its_records_are_delivered() {
        let queue = Queue::in_memory(Options::default()).unwrap();
        let (reader, lane) = (queue.reader("r", eager()), lane(&queue));
        let (number, mut waiter) = put(&lane, 3, 10, true);
        lane.wait_written(number).await.unwrap();
        for left in [2, 1, 0] {
            let run = reader.next().await.unwrap();
            reader.settle(run, Outcome::Delivered);
            let expected = if left == 0 { Answer::Safe } else { Answer::Late };
            assert_eq!(waiter.wait(Duration::from_millis(1)).await, expected);
        }
        let (number, mut waiter) = put(&lane, 1, 10, true);
        lane.wait_written(number).await.unwrap();
        drop(lane);
        queue.close().await;
        assert_eq!(waiter.wait(LIMIT).await, Answer::Failed);
    }

    #[tokio::test(start_paused = true)]
    async fn buffers_that_nothing_is_in_are_let_go_of_and_what_comes_later_is_written() {
        let queue = Queue::in_memory(Options::default()).unwrap();
        let lane = lane(&queue);
        for number in 1..=2 {
            let (group, _waiter) = put(&lane, 1, 10, true);
            assert_eq!(group, number);
            lane.wait_written(number).await.unwrap();
            assert!(lane.shared.open.lock().spare.is_some());
            tokio::time::sleep(BUFFERS_KEPT + JOIN_WAIT).await;
            assert!(lane.shared.open.lock().spare.is_none());
        }
    }

    #[tokio::test]
    async fn records_that_the_queue_cannot_ever_hold_are_dropped_and_the_others_written() {
        let queue = Queue::in_memory(Options { memory_bytes_max: 500, ..Options::default() }).unwrap();
        let (reader, lane) = (queue.reader("r", eager()), lane(&queue));
        let (acks, mut waiter) = waiter();
        lane.fill(|group| {
            group.0 = vec![vec![b'a'; 10], vec![b'x'; 1000], vec![b'b'; 10]];
            group.1.join(acks);
            true
        });
        for letter in [b'a', b'b'] {
            let run = reader.next().await.unwrap();
            assert_eq!(run.records[0].body[0], letter);
            reader.settle(run, Outcome::Delivered);
        }
        assert_eq!(waiter.wait(LIMIT).await, Answer::Safe);
        let too_large = lane.too_large();
        assert_eq!((too_large.samples, too_large.bytes), (1, 1000));
    }

    #[tokio::test]
    async fn what_is_put_in_waits_until_it_is_written_and_is_lost_when_it_never_will_be() {
        let queue = Queue::in_memory(Options { memory_bytes_max: 500, ..Options::default() }).unwrap();
        let lane = lane(&queue);
        let unwritten = |filled| lane.unwritten(|| filled);
        assert_eq!(unwritten(2), (2, 0));
        let (number, _waiter) = put(&lane, 2, 10, true);
        lane.wait_written(number).await.unwrap();
        assert_eq!(unwritten(2), (0, 0));
        // What is too large is done with, too.
        let (number, _waiter) = put(&lane, 1, 1000, true);
        lane.wait_written(number).await.unwrap();
        assert_eq!((unwritten(3), lane.too_large().samples), ((0, 0), 1));
        // A queue that was closed takes nothing of a group, and what comes after that is in none that will be written.
        queue.clone().close().await;
        let (number, _waiter) = put(&lane, 3, 10, true);
        assert!(lane.wait_written(number).await.is_err());
        assert_eq!(unwritten(6), (0, 3));
        let _ = put(&lane, 1, 10, false);
        assert_eq!(unwritten(7), (0, 4));
    }

    #[tokio::test]
    async fn whoever_fills_groups_waits_while_two_of_them_do() {
        let options = Options { memory_bytes_max: 300, block_on_overflow: true, ..Options::default() };
        let queue = Queue::in_memory(options).unwrap();
        let (reader, lane) = (queue.reader("r", eager()), lane(&queue));
        // Each takes 172 bytes: the second waits for room in the queue.
        let (first, mut waiter) = put(&lane, 1, 100, true);
        lane.wait_written(first).await.unwrap();
        for number in 2..=3 {
            let (group, _) = put(&lane, 1, 100, true);
            assert_eq!(group, number);
            lane.wait_room().await.unwrap();
        }
        let (number, _waiter) = put(&lane, 1, 100, true);
        let room = tokio::time::timeout(Duration::from_millis(50), lane.wait_room());
        assert!(room.await.is_err());
        let taking = tokio::spawn(async move {
            for _ in 0..4 {
                let run = reader.next().await.unwrap();
                reader.settle(run, Outcome::Delivered);
            }
        });
        tokio::time::timeout(LIMIT, lane.wait_room()).await.unwrap().unwrap();
        assert_eq!(waiter.wait(LIMIT).await, Answer::Safe);
        assert!(lane.waits() > 0);
        // A lane that is closed writes what it has, as soon as there is room.
        tokio::time::timeout(LIMIT, lane.close()).await.unwrap();
        tokio::time::timeout(LIMIT, taking).await.unwrap().unwrap();
        assert!(lane.wait_written(number + 1).await.is_err());
        assert!(lane.wait_room().await.is_err());
    }

    #[tokio::test]
    async fn however_many_fill_groups_no_more_of_them_wait() {
        let options = Options { memory_bytes_max: 300, block_on_overflow: true, ..Options::default() };
        let queue = Queue::in_memory(options).unwrap();
        let lane = Arc::new(lane(&queue));
        let mut fillers = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let lane = Arc::clone(&lane);
            fillers.spawn(async move {
                while lane.wait_room().await.is_ok() {
                    let _ = put(&lane, 1, 100, true);
                    tokio::task::yield_now().await;
                }
            });
        }
        // The first record fits into the queue, the second waits for room there, and then nobody gets on.
        while lane.waits() == 0 || tokio::time::timeout(Duration::from_millis(5), lane.wait_room()).await.is_ok() {
            tokio::task::yield_now().await;
        }
        assert!(lane.shared.open.lock().number <= 2 + 1 + FULL_GROUPS_MAX + 1);
    }
}
