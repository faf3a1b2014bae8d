//! What became of the telemetry of one signal: the books of a server, or of what waits to be handed on within the component.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use corten_otlp::OtlpSignal;
use corten_signal::Ledger;
use corten_signal::ledger::{End, EndSnapshot, Pass, Row};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::super::ends::{HandedOn, end_name};
use super::super::queue::Sizer;
use super::{Failure, Owner, Sent, Settings};

/// Why telemetry was dropped: the server refused it for good.
pub(crate) const PERMANENT: &str = "permanent error";
/// The server did not take it when it was tried for the last time.
pub(super) const RETRIES_OVER: &str = "no more retries";
/// The server did not take it, and it is tried once only.
pub(super) const RETRIES_OFF: &str = "retries disabled";
/// The component ended.
pub(super) const SHUTDOWN: &str = "shutdown";
/// The server took the request, but not all that was in it.
pub(super) const REJECTED: &str = "rejected";
/// There is nothing to tell by where it is to go.
pub(crate) const UNROUTABLE: &str = "unroutable";
/// What was read from disk is no telemetry.
pub(super) const MALFORMED: &str = "malformed";
/// Why items were made: they waited on disk when the component started.
const RESTORED: &str = "restored";
/// What became of items that seemed to wait on disk.
const SENT_BEFORE: &str = "sent before";

/// What a queue holds.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) items: u64,
    pub(super) bytes: u64,
    pub(super) in_flight: u64,
    pub(super) oldest_ms: Option<i64>,
    pub(super) capacity_bytes: Option<u64>,
    /// What was there when the queue was opened.
    pub(super) restored: u64,
    /// What the queue lost itself.
    pub(super) lost: Vec<(&'static str, u64)>,
}

/// A queue whose content belongs to the books of a server.
pub(super) trait Waits: Send + Sync + 'static {
    fn waiting(&self) -> Waiting;
}

/// What was dropped, by reason.
pub(super) type Dropped = Vec<(&'static str, usize)>;

/// The books of one signal of an exporter.
pub(super) struct Books<S: OtlpSignal> {
    ledger: Arc<Ledger>,
    row: Arc<Row>,
    /// Whether it is a server that telemetry is sent to. Otherwise it goes to other exporters of the component, and what waits
    /// for that is held by the component.
    is_end: bool,
    /// Whether the server is shown: it is as soon as there was something for it.
    is_shown: AtomicBool,
    settings: watch::Receiver<Arc<Settings<S>>>,
    offered: AtomicU64,
    delivered: AtomicU64,
    /// What was there when queues were opened that are gone.
    restored: AtomicU64,
    /// What was left in them, on disk.
    left: AtomicU64,
    dropped: Mutex<BTreeMap<&'static str, u64>>,
    retries: AtomicU64,
    last_answer: Mutex<Option<(SystemTime, Cow<'static, str>)>>,
    queues: Mutex<Vec<Weak<dyn Waits>>>,
}

impl<S: OtlpSignal> Books<S> {
    pub(super) fn new(owner: &Owner, settings: watch::Receiver<Arc<Settings<S>>>) -> Arc<Self> {
        let is_end = !settings.borrow().push.hands_on();
        Arc::new(Books {
            ledger: Arc::clone(&owner.ledger),
            row: Arc::clone(owner.ledger.row_of::<S>()),
            is_end,
            is_shown: AtomicBool::new(false),
            settings,
            offered: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            restored: AtomicU64::new(0),
            left: AtomicU64::new(0),
            dropped: Mutex::default(),
            retries: AtomicU64::new(0),
            last_answer: Mutex::default(),
            queues: Mutex::default(),
        })
    }

    pub(super) fn row(&self) -> &Arc<Row> {
        &self.row
    }

    fn show(self: &Arc<Self>) {
        if !self.is_shown.load(Ordering::Relaxed) && !self.is_shown.swap(true, Ordering::Relaxed) {
            let end: Arc<dyn End> = Arc::clone(self) as Arc<dyn End>;
            self.ledger.add_end(Arc::downgrade(&end));
        }
    }

    /// Adds a queue. Where it holds something already, that was there before.
    pub(super) fn add_queue(self: &Arc<Self>, queue: Weak<dyn Waits>) {
        let restored = queue.upgrade().map_or(0, |queue| queue.waiting().restored);
        let mut queues = self.queues.lock();
        queues.retain(|queue| queue.strong_count() > 0);
        queues.push(queue);
        drop(queues);
        if restored > 0 {
            self.restored_now(restored);
        }
    }

    /// Items were found in a queue.
    fn restored_now(self: &Arc<Self>, items: u64) {
        if self.is_end {
            self.show();
        } else {
            self.row.created(RESTORED, usize::try_from(items).unwrap_or(usize::MAX));
            self.row.held(items as i64);
        }
    }

    /// Items that were found in a queue had been sent before.
    pub(super) fn not_restored(&self, items: u64) {
        if !self.is_end && items > 0 {
            self.row.merged(SENT_BEFORE, usize::try_from(items).unwrap_or(usize::MAX));
            self.row.held(-(items as i64));
        }
    }

    /// A queue took items.
    pub(super) fn queued(self: &Arc<Self>, items: usize) {
        if self.is_end {
            if items > 0 {
                self.show();
            }
            self.row.out(items);
            self.offered.fetch_add(items as u64, Ordering::Relaxed);
        } else {
            self.row.held(items as i64);
        }
    }

    /// A queue took items although whoever sent them did not wait for it, and will send them again.
    pub(super) fn queued_in_vain(self: &Arc<Self>, items: usize) {
        self.queued(items);
        HandedOn::nothing(&self.row).add(items);
    }

    /// Items that came from a queue are done with. What was not dropped was delivered.
    pub(super) fn settled(&self, items: usize, dropped: &Dropped) {
        let lost: usize = dropped.iter().map(|(_, items)| items).sum();
        if self.is_end {
            self.delivered.fetch_add(items.saturating_sub(lost) as u64, Ordering::Relaxed);
            self.count_dropped(dropped);
            return;
        }
        self.row.held(-(items as i64));
        for (reason, items) in dropped {
            self.row.dropped(*reason, *items);
        }
    }

    /// Items went through without a queue. Whoever sent them is told that they were taken.
    pub(super) fn passed(self: &Arc<Self>, items: usize, dropped: &Dropped, pass: &mut Pass<'_>) {
        if self.is_end {
            self.queued(items);
            self.settled(items, dropped);
            return;
        }
        for (reason, items) in dropped {
            pass.dropped(*reason, *items);
        }
    }

    /// A queue lost items by itself.
    pub(super) fn lost(&self, reason: &'static str, items: usize) {
        // Those of a server are read from its queues.
        if !self.is_end {
            self.row.held(-(items as i64));
            self.row.dropped(reason, items);
        }
    }

    /// A queue ends. What is told of it stays.
    pub(super) fn close_queue(&self, waiting: &Waiting) {
        if self.is_end {
            self.restored.fetch_add(waiting.restored, Ordering::Relaxed);
            self.left.fetch_add(waiting.items, Ordering::Relaxed);
            let mut dropped = self.dropped.lock();
            for (reason, items) in &waiting.lost {
                *dropped.entry(reason).or_default() += items;
            }
        }
    }

    fn count_dropped(&self, by_reason: &Dropped) {
        if by_reason.is_empty() {
            return;
        }
        let mut dropped = self.dropped.lock();
        for (reason, items) in by_reason {
            *dropped.entry(reason).or_default() += *items as u64;
        }
    }

    /// Something is sent again.
    pub(super) fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// The server has answered, or it is known why it does not.
    pub(super) fn answered(&self, outcome: &Result<(), Failure>, rejected: usize) {
        if !self.is_end {
            return;
        }
        let text = match outcome {
            Ok(()) if rejected == 0 => Cow::Borrowed("ok"),
            Ok(()) => Cow::Owned(format!("partial success: {rejected} rejected")),
            Err(failure) => Cow::Owned(failure.to_string()),
        };
        *self.last_answer.lock() = Some((SystemTime::now(), text));
    }
}

/// The name of a server, and of what is sent to it.
fn name_of<S: OtlpSignal>(settings: &Settings<S>) -> String {
    let server = settings.push.server();
    let address = match server.address {
        address if address.contains(':') && !address.starts_with('[') => format!("[{address}]"),
        address => address.to_owned(),
    };
    let port = if server.port.is_empty() { String::new() } else { format!(":{}", server.port) };
    end_name::<S>(&format!("{address}{port}"))
}

impl<S: OtlpSignal> End for Books<S> {
    fn snapshot(&self) -> EndSnapshot {
        let queues: Vec<Arc<dyn Waits>> = self.queues.lock().iter().filter_map(Weak::upgrade).collect();
        let waiting: Vec<Waiting> = queues.iter().map(|queue| queue.waiting()).collect();
        let settings = Arc::clone(&self.settings.borrow());
        let mut dropped = self.dropped.lock().clone();
        for (reason, items) in waiting.iter().flat_map(|waiting| &waiting.lost) {
            *dropped.entry(reason).or_default() += items;
        }
        let sum = |of: fn(&Waiting) -> u64| waiting.iter().map(of).sum::<u64>();
        let capacity =
            (settings.queue.enabled && settings.queue.sizer() == Sizer::Bytes).then(|| settings.queue.capacity());
        EndSnapshot {
            kind: S::KIND,
            name: name_of(&settings),
            url: settings.push.url(),
            offered: self.offered.load(Ordering::Relaxed),
            restored: self.restored.load(Ordering::Relaxed) + sum(|waiting| waiting.restored),
            delivered: self.delivered.load(Ordering::Relaxed),
            dropped: dropped.into_iter().map(|(reason, items)| (reason.to_owned(), items)).collect(),
            pending: self.left.load(Ordering::Relaxed) + sum(|waiting| waiting.items),
            pending_bytes: sum(|waiting| waiting.bytes),
            in_flight: sum(|waiting| waiting.in_flight),
            oldest_ms: waiting.iter().filter_map(|waiting| waiting.oldest_ms).min(),
            capacity_bytes: waiting.iter().filter_map(|waiting| waiting.capacity_bytes).chain(capacity).min(),
            retries: self.retries.load(Ordering::Relaxed),
            last_answer: self.last_answer.lock().as_ref().map(|(at, text)| (*at, text.to_string())),
        }
    }
}

impl Sent {
    /// What was dropped of a batch that is done with.
    pub(super) fn dropped(&self) -> Dropped {
        let reason = match &self.outcome {
            Some(Err(failure)) => failure.reason,
            _ => SHUTDOWN,
        };
        let all = [(REJECTED, self.rejected), (UNROUTABLE, self.unroutable), (reason, self.left)];
        all.into_iter().filter(|(_, items)| *items > 0).collect()
    }
}
