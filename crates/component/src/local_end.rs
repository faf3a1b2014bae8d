//! Places on this machine that a component writes its items to: the program's own log, a file.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use corten_signal::ledger::{End, EndSnapshot, Row};
use corten_signal::{Kind, Ledger, Signal};
use parking_lot::Mutex;

/// Why items were dropped: they could not be written, and nobody tries it again.
const WRITE_FAILED: &str = "write failed";
/// Why items were dropped: lines of their level are not written.
const LOG_LEVEL: &str = "log level";

/// Now, in milliseconds since the Unix epoch.
pub fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// When what waits came, in milliseconds since the Unix epoch.
#[derive(Debug, Default)]
pub struct Since {
    by_number: Mutex<BTreeMap<u64, i64>>,
    next: AtomicU64,
}

impl Since {
    /// Something came now. Its number.
    pub fn add(&self) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.by_number.lock().insert(number, now_ms());
        number
    }

    /// What came under that number does not wait any more.
    pub fn remove(&self, number: u64) {
        self.by_number.lock().remove(&number);
    }

    /// When the first came of what waits.
    pub fn oldest_ms(&self) -> Option<i64> {
        self.by_number.lock().first_key_value().map(|(_, since)| *since)
    }
}

/// A place on this machine that items of one signal are written to.
#[derive(Debug)]
pub struct LocalEnd {
    ledger: Arc<Ledger>,
    row: Arc<Row>,
    kind: Kind,
    name: String,
    url: Mutex<String>,
    is_shown: AtomicBool,
    offered: AtomicU64,
    delivered: AtomicU64,
    dropped: AtomicU64,
    below_level: AtomicU64,
    pending: AtomicU64,
    pending_bytes: AtomicU64,
    since: Since,
    last_answer: Mutex<Option<(SystemTime, Cow<'static, str>)>>,
}

impl LocalEnd {
    /// A place of that name. It is seen in the books once there was something for it, or once it is [shown](Self::show).
    pub fn new<S: Signal>(ledger: &Arc<Ledger>, name: impl Into<String>) -> Arc<Self> {
        Arc::new(LocalEnd {
            ledger: Arc::clone(ledger),
            row: Arc::clone(ledger.row_of::<S>()),
            kind: S::KIND,
            name: name.into(),
            url: Mutex::default(),
            is_shown: AtomicBool::new(false),
            offered: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            below_level: AtomicU64::new(0),
            pending: AtomicU64::new(0),
            pending_bytes: AtomicU64::new(0),
            since: Since::default(),
            last_answer: Mutex::default(),
        })
    }

    /// Where the component counts what it does.
    pub fn row(&self) -> &Arc<Row> {
        &self.row
    }

    /// The end is seen in the component's books.
    pub fn show(self: &Arc<Self>) {
        if !self.is_shown.load(Ordering::Relaxed) && !self.is_shown.swap(true, Ordering::Relaxed) {
            let end: Arc<dyn End> = Arc::clone(self) as Arc<dyn End>;
            self.ledger.add_end(Arc::downgrade(&end));
        }
    }

    /// The place has this URL now.
    pub fn set_url(&self, url: &str) {
        url.clone_into(&mut self.url.lock());
    }

    /// The end takes items. They are dropped where it is not said that they are written.
    pub fn take(self: &Arc<Self>, items: usize, bytes: usize) -> Taken {
        if items > 0 {
            self.show();
        }
        self.row.out(items);
        self.offered.fetch_add(items as u64, Ordering::Relaxed);
        self.pending.fetch_add(items as u64, Ordering::Relaxed);
        self.pending_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        Taken { number: self.since.add(), items: items as u64, bytes: bytes as u64, end: Arc::clone(self) }
    }

    /// Why nothing can be written just now.
    pub fn failed(&self, why: &str) {
        *self.last_answer.lock() = Some((SystemTime::now(), Cow::Owned(why.to_owned())));
    }
}

impl End for LocalEnd {
    fn snapshot(&self) -> EndSnapshot {
        let dropped = [(WRITE_FAILED, &self.dropped), (LOG_LEVEL, &self.below_level)];
        let dropped = dropped.map(|(reason, count)| (reason.to_owned(), count.load(Ordering::Relaxed)));
        EndSnapshot {
            kind: self.kind,
            name: self.name.clone(),
            url: self.url.lock().clone(),
            offered: self.offered.load(Ordering::Relaxed),
            restored: 0,
            delivered: self.delivered.load(Ordering::Relaxed),
            dropped: dropped.into_iter().filter(|(_, count)| *count > 0).collect(),
            pending: self.pending.load(Ordering::Relaxed),
            pending_bytes: self.pending_bytes.load(Ordering::Relaxed),
            in_flight: 0,
            oldest_ms: self.since.oldest_ms(),
            capacity_bytes: None,
            retries: 0,
            last_answer: self.last_answer.lock().as_ref().map(|(at, text)| (*at, text.to_string())),
        }
    }
}

/// Items that an end has taken and not written.
#[derive(Debug)]
#[must_use = "they are dropped unless they are written"]
pub struct Taken {
    end: Arc<LocalEnd>,
    /// Which of what came it is, or the first of that.
    number: u64,
    items: u64,
    bytes: u64,
}

impl Taken {
    /// Which end it is.
    pub fn end(&self) -> &Arc<LocalEnd> {
        &self.end
    }

    /// They are written with others, which came before, of the same end.
    pub fn join(&mut self, mut other: Taken) {
        self.items += std::mem::take(&mut other.items);
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// They are written.
    pub fn delivered(mut self) {
        let items = self.land();
        self.end.delivered.fetch_add(items, Ordering::Relaxed);
        *self.end.last_answer.lock() = Some((SystemTime::now(), Cow::Borrowed("ok")));
    }

    /// They are not written, because lines of their level are not.
    pub fn below_level(mut self) {
        let items = self.land();
        self.end.below_level.fetch_add(items, Ordering::Relaxed);
    }

    fn land(&mut self) -> u64 {
        let items = std::mem::take(&mut self.items);
        self.end.pending.fetch_sub(items, Ordering::Relaxed);
        self.end.pending_bytes.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
        items
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let items = self.land();
        self.end.dropped.fetch_add(items, Ordering::Relaxed);
        self.end.since.remove(self.number);
    }
}
