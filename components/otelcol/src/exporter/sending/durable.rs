//! The queue on disk.
//!
//! A record is a batch with what it came with, but for who its sender showed to be:
//!
//! ```text
//! version  u8   1
//! peer     u32 length, then `address:port` as text; empty if it is not known
//! names    u32 number, then for each
//!   name     u32 length, then text
//!   values   u32 number, then for each a u32 length and text
//! message  the rest: an export request of OTLP
//! ```
//!
//! Numbers are little endian. As many partitions as there may be requests under way let those go on side by side.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use corten_component::Error;
use corten_component::local_end::now_ms;
use corten_component::metrics::Gauge;
use corten_otlp::{Batch, Metadata, OtlpSignal, RequestContext};
use corten_queue::{
    AppendError, Counts, Hold, NewRecord, Options, Outcome, Queue, Reader, ReaderOptions, Run, Start, Totals,
};
use corten_signal::Acks;
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::super::ends::HandedOn;
use super::super::queue::{Joining, QueueArguments, Sizer};
use super::books::{Books, Dropped, MALFORMED, Waiting, Waits};
use super::{Failure, LaneTask, Sender, changed, full};
use crate::auth::Storage;

/// What the body of a record is.
const ENCODING: u8 = 1;
/// The first byte of a body.
const VERSION: u8 = 1;
/// The name of what reads the queue.
const READER: &str = "exporter";
/// What waits is kept so long: the reference has no limit.
const AGE_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How often what was sent is removed from disk.
const TRUNCATE_EVERY: Duration = Duration::from_secs(60);
/// One request is made of so many bytes of records at most, unless one record alone has more.
const RUN_BYTES_MAX: usize = 16 << 20;
/// How often it is looked whether the disk lost something.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked whether a queue can be opened that somebody else uses.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// What is dropped was not taken by the server.
const NOT_SENT: &str = "send_failed";

/// The folder and the options of the queue of a client.
pub(super) async fn place(
    storage: Arc<dyn Storage>,
    client: String,
    bytes_max: Option<u64>,
) -> Result<(PathBuf, Options), Error> {
    let placed = move || {
        let folder = storage.folder(&client)?;
        let options = Options {
            bytes_max: bytes_max.unwrap_or_else(|| corten_queue::default_bytes_max(&folder)),
            age_max: AGE_MAX,
            keep_settled_min: Duration::ZERO,
            truncate_every: storage.frees_every().unwrap_or(TRUNCATE_EVERY),
            block_on_overflow: true,
            sync_appends: storage.syncs(),
            ..Options::default()
        };
        Ok::<_, String>((folder, options))
    };
    let placed = tokio::task::spawn_blocking(placed).await.map_err(|error| Error::new(error.to_string()))?;
    placed.map_err(Error::new)
}

/// Opens a queue; one that is in use is waited for.
pub(super) async fn open(folder: &Path, options: &Options, wait_max: Duration) -> Result<Queue, Error> {
    let started = Instant::now();
    loop {
        let (dir, options) = (folder.to_owned(), options.clone());
        let opened = tokio::task::spawn_blocking(move || Queue::open(&dir, options)).await;
        let opened = opened.map_err(|error| Error::new(error.to_string()))?;
        match opened {
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy && started.elapsed() < wait_max => {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Err(error) => return Err(Error::new(format!("opening the queue {}: {error}", folder.display()))),
            Ok(queue) => return Ok(queue),
        }
    }
}

/// Batches that wait on disk.
pub(super) struct Durable<S: OtlpSignal> {
    folder: PathBuf,
    queue: Queue,
    reader: Reader,
    /// What is being written.
    writing: Mutex<Writing>,
    freed: Notify,
    shown: Gauge,
    books: Arc<Books<S>>,
    /// How many bytes the queue may have.
    bytes_max: AtomicU64,
}

/// What is being written, and where the next record goes.
struct Writing {
    /// How much of the room is taken by records that are being written.
    reserved: u64,
    /// It ends when nothing waits.
    leaves: bool,
    /// Nothing is taken any more.
    closed: bool,
    partition: u16,
    /// How much the partition got that is to make one request, and since when.
    filled: u64,
    since: Instant,
    /// How many are writing.
    writers: usize,
    /// How many items were taken, of which whoever sent them knows or not.
    taken: u64,
    /// How many items of those that were found at the start had been sent before.
    sent_before: u64,
    /// What was found at the start.
    found: u64,
}

impl Writing {
    /// The partition of the next record, of so many.
    fn next_partition(&mut self, partitions: u16, joining: &Joining, size: u64) -> u16 {
        if self.filled >= joining.min || self.since.elapsed() >= joining.wait || self.partition >= partitions {
            self.partition = (self.partition + 1) % partitions;
            self.filled = 0;
            self.since = Instant::now();
        }
        self.filled = self.filled.saturating_add(size);
        self.partition
    }
}

/// The share of a batch in what its source is told, until it is safe.
#[derive(Debug, Default)]
struct HeldAcks(Mutex<Acks>);

impl HeldAcks {
    fn safe(&self) {
        std::mem::take(&mut *self.0.lock()).safe();
    }
}

impl Hold for HeldAcks {
    fn settled(&self) {
        self.safe();
    }
}

fn gone() -> Failure {
    Failure::passing("the sending queue is not used any more")
}

fn size_of(totals: &Totals, sizer: Sizer) -> u64 {
    match sizer {
        Sizer::Requests => totals.records,
        Sizer::Items => totals.items(),
        Sizer::Bytes => totals.bytes,
    }
}

/// How runs are cut.
fn reader_options(queue: &QueueArguments) -> ReaderOptions {
    let joining = queue.joining();
    let options = ReaderOptions {
        items_max: 1,
        bytes_max: RUN_BYTES_MAX,
        wait_max: joining.wait,
        start: Start::Oldest,
        ..ReaderOptions::default()
    };
    let (items, bytes) =
        (|size| u32::try_from(size).unwrap_or(u32::MAX), |size| usize::try_from(size).unwrap_or(usize::MAX));
    match joining.sizer {
        Sizer::Requests => options,
        Sizer::Items => ReaderOptions { items_min: items(joining.min), items_max: items(joining.max), ..options },
        Sizer::Bytes => ReaderOptions {
            bytes_min: bytes(joining.min),
            bytes_max: bytes(joining.max).min(RUN_BYTES_MAX),
            items_max: u32::MAX,
            ..options
        },
    }
}

impl<S: OtlpSignal> Durable<S> {
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Does what changed settings mean for it.
    pub(super) fn set_options(&self, options: Options) {
        self.bytes_max.store(options.bytes_max, Ordering::Relaxed);
        self.queue.set_options(options);
        self.freed.notify_waiters();
    }

    /// Takes a batch once it is written.
    pub(super) async fn offer(&self, sender: &Sender<S>, mut batch: Batch<S::Record>) -> Result<(), Failure> {
        let items = batch.items();
        let message_len = batch.message_len();
        if message_len == 0 {
            batch.acks.safe();
            return Ok(());
        }
        let acks = std::mem::take(&mut batch.acks);
        let body = Bytes::from(encode(&batch));
        let held = Arc::new(HeldAcks(Mutex::new(acks)));
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            let settings = sender.current();
            let queue = &settings.queue;
            let size = match queue.sizer() {
                Sizer::Bytes => body.len() as u64,
                sizer => sizer.of(&batch),
            };
            let fail = |failure: Failure| {
                settings.metrics.enqueue_failed.add(items as u64);
                Err(failure)
            };
            if size > queue.capacity() {
                return fail(Failure::permanent("element size too large"));
            }
            let joining = queue.joining();
            let partitions = u16::try_from(queue.consumers()).unwrap_or(u16::MAX);
            let partition = {
                let mut writing = self.writing.lock();
                if writing.closed {
                    drop(writing);
                    return fail(gone());
                }
                let used = size_of(&self.reader.lag().pending, queue.sizer()).saturating_add(writing.reserved);
                (used.saturating_add(size) <= queue.capacity()).then(|| {
                    writing.reserved += size;
                    writing.writers += 1;
                    writing.next_partition(partitions, &joining, joining.sizer.of(&batch))
                })
            };
            let Some(partition) = partition else {
                if !queue.block_on_overflow {
                    return fail(full());
                }
                freed.await;
                continue;
            };
            let reserved = Reserved { durable: self, size };
            let now_ms = now_ms();
            let record = NewRecord {
                encoding: ENCODING,
                tenant: settings.push.reads_context().then(|| group(&batch.context)),
                partition,
                partitions,
                counts: Counts::samples(u32::try_from(items).unwrap_or(u32::MAX)),
                lowest_ms: now_ms,
                highest_ms: now_ms,
                raw_len: u32::try_from(message_len).unwrap_or(u32::MAX),
                body: body.clone(),
                hold: Some(Arc::clone(&held) as Arc<dyn Hold>),
            };
            let appended = self.queue.append(vec![record]).await;
            if appended.is_ok() {
                self.writing.lock().taken += items as u64;
                self.books.queued(items);
            }
            drop(reserved);
            self.show(queue);
            match appended {
                Ok(appended) if appended.durable => {
                    held.safe();
                    return Ok(());
                }
                // The disk does not take it now: it is safe when it is sent, or when the disk does.
                Ok(_) => {
                    held.0.lock().hold();
                    return Ok(());
                }
                Err(AppendError::Overflow) if queue.block_on_overflow => self.queue.space().await,
                Err(AppendError::Overflow) => return fail(full()),
                Err(AppendError::Closed) => return fail(gone()),
                // It is too large for the memory that stands in for the disk, and not for the disk.
                Err(AppendError::TooLarge { .. }) if self.queue.degraded().borrow().is_some() => return fail(full()),
                Err(error @ (AppendError::TooLarge { .. } | AppendError::Invalid(_))) => {
                    return fail(Failure::permanent(error.to_string()));
                }
            }
        }
    }

    fn show(&self, queue: &QueueArguments) {
        self.shown.set(size_of(&self.reader.lag().pending, queue.sizer()) as f64);
    }

    /// Ends when nothing waits, or goes on if it has not ended. Whether it has not.
    pub(super) fn leave(&self, leaves: bool) -> bool {
        let mut writing = self.writing.lock();
        writing.leaves = leaves;
        !writing.closed
    }

    /// Takes nothing more, if nothing waits and it is to end. Whether that is so.
    fn close_if_done(&self) -> bool {
        let mut writing = self.writing.lock();
        writing.closed |= writing.leaves && writing.reserved == 0 && self.reader.lag().pending.records == 0;
        writing.closed
    }

    /// Brings the books to what the queue says. A call that was given up may have left its records in the queue, and what
    /// seemed to wait at the start may turn out to have been sent before.
    fn reconcile(&self) {
        let mut writing = self.writing.lock();
        let stats = self.reader.stats();
        let sent_before = writing.found.saturating_sub(stats.restored.items());
        let more = sent_before.saturating_sub(writing.sent_before);
        writing.sent_before += more;
        let taken = stats.appended.items().saturating_sub(writing.taken);
        // What is being written is counted by whoever writes it.
        let in_vain = if writing.writers == 0 { taken } else { 0 };
        writing.taken += in_vain;
        drop(writing);
        self.books.not_restored(more);
        if in_vain > 0 {
            self.books.queued_in_vain(usize::try_from(in_vain).unwrap_or(usize::MAX));
        }
    }

    /// Sends what a run holds.
    async fn send(self: Arc<Self>, run: Run, sender: Sender<S>) {
        let items = usize::try_from(run.counts().items()).unwrap_or(usize::MAX);
        // Where the run is sent once more, what was handed on of it is, too.
        let mut handed_on = HandedOn::nothing(self.books.row());
        let mut lost = Dropped::new();
        let mut batch = Batch::<S::Record>::default();
        for record in &run.records {
            match decode::<S>(&record.body) {
                Some(read) if batch.is_empty() => batch = read,
                Some(read) => batch.join(read),
                None => {
                    let items = usize::try_from(record.counts.items()).unwrap_or(usize::MAX);
                    let failure = Failure::permanent("what was read from the sending queue is no message");
                    sender.current().metrics.failed(items, &failure);
                    sender.dropped(&failure, items);
                    lost.push((MALFORMED, items));
                }
            }
        }
        let mut outcome = Outcome::Delivered;
        while batch.items() > 0 {
            let queue = sender.current().queue.clone();
            let part = queue.joining().take(&mut batch);
            let sent = sender.deliver(part, true).await;
            lost.extend(sent.dropped());
            handed_on.join(sent.handed_on);
            match sent.outcome {
                Some(Ok(())) => {}
                Some(Err(failure)) => {
                    sender.dropped(&failure, sent.left);
                    outcome = Outcome::Dropped(NOT_SENT);
                }
                None => return self.reader.release(run),
            }
        }
        self.reconcile();
        self.books.settled(items, &lost);
        handed_on.for_good();
        self.reader.settle(run, outcome);
        self.show(&sender.current().queue);
        self.freed.notify_waiters();
    }
}

impl<S: OtlpSignal> Waits for Durable<S> {
    fn waiting(&self) -> Waiting {
        self.reconcile();
        let (stats, lag) = (self.reader.stats(), self.reader.lag());
        // What a server did not take was counted with its request.
        let lost = stats.dropped.iter().filter(|(reason, _)| *reason != NOT_SENT);
        Waiting {
            items: lag.pending.items(),
            bytes: lag.pending.bytes,
            in_flight: lag.in_flight.items(),
            oldest_ms: lag.oldest_created_ms,
            capacity_bytes: Some(self.bytes_max.load(Ordering::Relaxed)),
            restored: stats.restored.items(),
            lost: lost.map(|(reason, totals)| (*reason, totals.items())).collect(),
        }
    }
}

impl<S: OtlpSignal> Drop for Durable<S> {
    fn drop(&mut self) {
        let waiting = self.waiting();
        self.books.close_queue(&waiting);
    }
}

/// Room that is taken while a record is written.
struct Reserved<'a, S: OtlpSignal> {
    durable: &'a Durable<S>,
    size: u64,
}

impl<S: OtlpSignal> Drop for Reserved<'_, S> {
    fn drop(&mut self) {
        let mut writing = self.durable.writing.lock();
        writing.reserved = writing.reserved.saturating_sub(self.size);
        writing.writers = writing.writers.saturating_sub(1);
        drop(writing);
        self.durable.freed.notify_waiters();
    }
}

/// A queue on disk and what sends it.
pub(super) struct DurableLane<S: OtlpSignal> {
    pub(super) durable: Arc<Durable<S>>,
    pub(super) task: LaneTask,
}

impl<S: OtlpSignal> DurableLane<S> {
    pub(super) fn start((folder, options): (PathBuf, &Options), queue: Queue, sender: Sender<S>, shown: Gauge) -> Self {
        let settings = sender.current();
        let reader = queue.reader(READER, reader_options(&settings.queue));
        let writing = Writing {
            reserved: 0,
            leaves: false,
            closed: false,
            partition: 0,
            filled: 0,
            since: Instant::now(),
            writers: 0,
            taken: 0,
            sent_before: 0,
            found: reader.stats().restored.items(),
        };
        let durable = Arc::new(Durable {
            folder,
            queue,
            reader,
            writing: Mutex::new(writing),
            freed: Notify::new(),
            shown,
            books: Arc::clone(&sender.books),
            bytes_max: AtomicU64::new(options.bytes_max),
        });
        let waits: Arc<dyn Waits> = Arc::clone(&durable) as Arc<dyn Waits>;
        sender.books.add_queue(Arc::downgrade(&waits));
        durable.show(&settings.queue);
        let task = LaneTask::start(|wake| run(Arc::clone(&durable), sender, wake));
        DurableLane { durable, task }
    }

    pub(super) async fn drain(mut self) {
        self.durable.writing.lock().closed = true;
        self.durable.freed.notify_waiters();
        self.task.ended().await;
        self.durable.queue.clone().close().await;
    }
}

/// Sends what waits, so many requests at a time, until the component ends or nothing more comes.
async fn run<S: OtlpSignal>(durable: Arc<Durable<S>>, sender: Sender<S>, wake: Arc<Notify>) {
    let (mut settings, mut ending) = (sender.settings.clone(), sender.ending.clone());
    let mut requests = JoinSet::new();
    let mut options = reader_options(&sender.current().queue);
    let mut degraded = durable.queue.degraded();
    let mut told = Told::default();
    let mut look = tokio::time::interval(TELL_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !*ending.borrow_and_update() {
        told.tell(&durable, &sender);
        while requests.try_join_next().is_some() {}
        let now = Arc::clone(&settings.borrow_and_update());
        let wanted = reader_options(&now.queue);
        if wanted != options {
            durable.reader.set_options(wanted.clone());
            options = wanted;
        }
        let has_room = requests.len() < now.queue.consumers();
        drop(now);
        if requests.is_empty() && durable.close_if_done() {
            break;
        }
        tokio::select! {
            run = durable.reader.next(), if has_room => match run {
                Some(run) => {
                    requests.spawn(Arc::clone(&durable).send(run, sender.clone()));
                }
                None => break,
            },
            Some(_) = requests.join_next() => {}
            () = changed(&mut settings) => {}
            () = changed(&mut ending) => {}
            () = changed(&mut degraded) => {}
            _ = look.tick() => {}
            () = wake.notified() => {}
        }
    }
    // Those under way are answered or given up; what is not sent waits for the next start.
    while requests.join_next().await.is_some() {}
    told.tell(&durable, &sender);
    durable.queue.clone().close().await;
}

/// What was said of the disk.
#[derive(Default)]
struct Told {
    /// That it takes nothing.
    degraded: bool,
    /// How many items it lost, for each reason.
    lost: BTreeMap<&'static str, u64>,
}

impl Told {
    /// Says when the disk takes nothing any more, and when it does again; and counts what it lost.
    fn tell<S: OtlpSignal>(&mut self, durable: &Durable<S>, sender: &Sender<S>) {
        let degraded = durable.queue.degraded().borrow().clone();
        match (&degraded, self.degraded) {
            (Some(error), false) => {
                let fields = [("error", error.as_str().into()), ("signal", S::NAME.into())];
                sender.logger.error("the disk does not take the sending queue, which is held in memory", &fields);
            }
            (None, true) => {
                sender.logger.info("the disk takes the sending queue again", &[("signal", S::NAME.into())]);
            }
            _ => {}
        }
        self.degraded = degraded.is_some();
        durable.reconcile();
        for (reason, totals) in durable.reader.stats().dropped {
            let before = self.lost.entry(reason).or_default();
            let items = usize::try_from(totals.items().saturating_sub(*before)).unwrap_or(usize::MAX);
            // What a server did not take was counted with its request.
            if items == 0 || reason == NOT_SENT {
                continue;
            }
            *before = totals.items();
            sender.books.lost(reason, items);
            let failure =
                Failure { kind: reason, ..Failure::permanent(format!("lost in the queue on disk: {reason}")) };
            sender.current().metrics.failed(items, &failure);
            sender.dropped(&failure, items);
        }
    }
}

/// What is equal for batches that may be joined.
fn group(context: &RequestContext) -> Arc<str> {
    let mut text = Vec::new();
    put_metadata(&mut text, &context.metadata);
    let hash = digest(&SHA256, &text);
    corten_golang::hex(hash.as_ref()).into()
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    // Nothing that came with a request is longer than that.
    out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_len(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn put_metadata(out: &mut Vec<u8>, metadata: &Metadata) {
    put_len(out, metadata.iter().count());
    for (name, values) in metadata.iter() {
        put_text(out, name);
        put_len(out, values.len());
        values.iter().for_each(|value| put_text(out, value));
    }
}

/// The body of a record.
fn encode<R: corten_otlp::Record>(batch: &Batch<R>) -> Vec<u8> {
    let mut out = Vec::with_capacity(batch.message_len() + 64);
    out.push(VERSION);
    put_text(&mut out, &batch.context.peer.map(|peer| peer.to_string()).unwrap_or_default());
    put_metadata(&mut out, &batch.context.metadata);
    batch.message().for_each(|piece| out.extend_from_slice(piece));
    out
}

/// What a body holds; `None` if it is none.
fn decode<S: OtlpSignal>(body: &Bytes) -> Option<Batch<S::Record>> {
    let mut rest = Rest(body);
    if rest.take(1)? != [VERSION] {
        return None;
    }
    let mut context = RequestContext { peer: rest.text()?.parse().ok(), ..RequestContext::default() };
    for _ in 0..rest.len()? {
        let name = rest.text()?;
        for _ in 0..rest.len()? {
            context.metadata.add(name, rest.text()?);
        }
    }
    let message = body.slice(body.len() - rest.0.len()..);
    Batch::received(message, Arc::new(context)).ok()
}

/// What is left to be read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn len(&mut self) -> Option<usize> {
        let bytes = self.take(4)?.first_chunk::<4>()?;
        Some(u32::from_le_bytes(*bytes) as usize)
    }

    fn text(&mut self) -> Option<&'a str> {
        let len = self.len()?;
        std::str::from_utf8(self.take(len)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use corten_otlp::{AuthData, LogRecord, OtlpLogs};
    use corten_testkit::otlp;
    use proptest::prelude::*;

    use super::*;

    fn logs(context: RequestContext) -> Batch<LogRecord> {
        let mut batch: Batch<LogRecord> =
            otlp(r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"a"}}]}]}]}"#);
        batch.context = Arc::new(context);
        batch
    }

    #[derive(Debug)]
    struct Sender;

    impl AuthData for Sender {
        fn attribute(&self, _: &str) -> Option<String> {
            Some("somebody".to_owned())
        }

        fn names(&self) -> Vec<String> {
            vec!["subject".to_owned()]
        }

        fn as_any(&self) -> &dyn std::any::Any {
            self
        }
    }

    #[test]
    fn who_sent_it_is_not_written() {
        let known = RequestContext { auth: Some(Arc::new(Sender)), ..RequestContext::default() };
        let body = Bytes::from(encode(&logs(known)));
        assert_eq!(body, encode(&logs(RequestContext::default())));
        assert!(decode::<OtlpLogs>(&body).unwrap().context.auth.is_none());
    }

    proptest! {
        #[test]
        fn a_record_is_read_back(names in proptest::collection::vec(("[a-z]{0,9}", "\\PC{0,20}"), 0..6), port in proptest::option::of(0u16..)) {
            let peer = port.map(|port| ([127, 0, 0, 1], port).into());
            let mut context = RequestContext { peer, ..RequestContext::default() };
            names.iter().for_each(|(name, value)| context.metadata.add(name, value.as_str()));
            let batch = logs(context.clone());
            let read = decode::<OtlpLogs>(&encode(&batch).into()).unwrap();
            prop_assert_eq!(read.to_json(), batch.to_json());
            prop_assert_eq!((read.context.peer, &read.context.metadata), (context.peer, &context.metadata));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, at: usize, with: u8) {
            let _ = decode::<OtlpLogs>(&bytes.into());
            let mut context = RequestContext::default();
            context.metadata.add("name", "value");
            let mut body = encode(&logs(context));
            let at = at % body.len();
            body[at] = with;
            let _ = decode::<OtlpLogs>(&body.into());
        }
    }
}
