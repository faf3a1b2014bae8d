//! What is told of an endpoint as an end of its sink: what it was given, and what became of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock, Weak};

use corten_queue::{Outcome, Reader, ReaderStats, Record};
use corten_signal::ledger::{End, EndSnapshot};
use corten_signal::{Kind, Ledger};
use parking_lot::Mutex;

use crate::sender::{Lost, SendState, points, totals_of};

/// What a lane was given, and what became of it before its queue had it.
///
/// At rest `offered = dropped + waiting + what was appended to the queue since it was opened`.
pub trait LaneBooks: Send + Sync + 'static {
    /// How many items the lane was given, and those that were appended to its queue before there was a lane.
    fn offered(&self) -> u64;
    /// How many of them wait to be written to the queue.
    fn waiting(&self) -> u64;
    /// How many of them were dropped before that, by reason. A reason stands there once.
    fn dropped(&self) -> Vec<(&'static str, u64)>;
    /// How many bytes the queue may hold.
    fn capacity_bytes(&self) -> Option<u64>;
}

/// How what became of the items of records differs from what the queue was told of the records as a whole: some of a record
/// may have been taken and some not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Corrections {
    delivered: i64,
    dropped: BTreeMap<&'static str, i64>,
}

impl Corrections {
    /// Items had this outcome; fewer where it is negative.
    pub(crate) fn add(&mut self, outcome: Outcome, items: i64) {
        match outcome {
            _ if items == 0 => {}
            Outcome::Delivered => self.delivered += items,
            Outcome::Dropped(reason) => *self.dropped.entry(reason).or_default() += items,
        }
    }

    /// Items had another outcome than their record.
    pub(crate) fn change(&mut self, from: Outcome, to: Outcome, items: u64) {
        let items = i64::try_from(items).unwrap_or(i64::MAX);
        self.add(from, -items);
        self.add(to, items);
    }

    /// Of records that were dropped only this was lost; the peer has the rest.
    pub(crate) fn take_what_was_written(&mut self, records: &[Record], lost: &Lost) {
        let written = points(&totals_of(records)).saturating_sub(points(&lost.totals));
        self.change(Outcome::Dropped(lost.reason), Outcome::Delivered, written);
    }

    pub(crate) fn join(&mut self, other: Corrections) {
        self.delivered += other.delivered;
        for (reason, items) in other.dropped {
            *self.dropped.entry(reason).or_default() += items;
        }
    }
}

/// An endpoint that is sent what its queue holds, as an end of the sink.
pub struct QueueEnd {
    kind: Kind,
    name: Mutex<String>,
    url: String,
    reader: Reader,
    state: Arc<SendState>,
    /// The lane that writes the queue; none where nobody does any more.
    lane: Option<Arc<dyn LaneBooks>>,
    /// What the lane had dropped when the endpoint joined it, and when the endpoint left it.
    before: Vec<(&'static str, u64)>,
    at_end: OnceLock<Vec<(&'static str, u64)>>,
}

impl fmt::Debug for QueueEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueEnd").field("name", &*self.name.lock()).finish_non_exhaustive()
    }
}

/// The ends of a sink, those included that only finish what they have.
#[derive(Debug, Default)]
pub struct Ends(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// Whoever looks at them has no share.
    ends: Vec<Arc<QueueEnd>>,
    /// How many were given another name.
    renamed: u64,
}

impl Ends {
    /// Keeps the books of an endpoint, until they are forgotten.
    pub fn keep(&self, end: QueueEnd, ledger: &Ledger) -> Arc<QueueEnd> {
        let end = Arc::new(end);
        let shown: Arc<dyn End> = Arc::clone(&end) as Arc<dyn End>;
        ledger.add_end(Arc::downgrade(&shown));
        self.0.lock().ends.push(Arc::clone(&end));
        end
    }

    /// Names an end for what is still sent to it, which was taken under another configuration: that of one that came after it
    /// may be the same.
    pub fn rename(&self, end: &QueueEnd) {
        let mut kept = self.0.lock();
        kept.renamed += 1;
        let mut name = end.name.lock();
        *name = format!("{name} (earlier configuration {})", kept.renamed);
    }

    /// Forgets an end.
    pub fn forget(&self, end: &Weak<QueueEnd>) {
        self.0.lock().ends.retain(|other| !std::ptr::eq(Arc::as_ptr(other), end.as_ptr()));
    }

    /// Forgets the ends of which others have taken over what waits.
    pub fn forget_ended(&self) {
        self.0.lock().ends.retain(|end| !end.has_ended());
    }

    /// Forgets all of them.
    pub fn clear(&self) {
        self.0.lock().ends.clear();
    }
}

/// How many there are of all reasons.
fn sum(counts: &[(&'static str, u64)]) -> u64 {
    counts.iter().map(|(_, count)| count).sum()
}

impl QueueEnd {
    /// The end that a reader sends to. It is made when the reader is. `url` must show no secret.
    pub fn new(
        kind: Kind,
        name: String,
        url: String,
        reader: &Reader,
        state: &Arc<SendState>,
        lane: Option<Arc<dyn LaneBooks>>,
    ) -> Self {
        QueueEnd {
            kind,
            name: Mutex::new(name),
            url,
            reader: reader.clone(),
            state: Arc::clone(state),
            before: lane.as_ref().map(|lane| lane.dropped()).unwrap_or_default(),
            lane,
            at_end: OnceLock::new(),
        }
    }

    /// Whether another reader has taken over what waits.
    fn has_ended(&self) -> bool {
        self.reader.has_ended()
    }

    /// What the lane dropped of what was for this end.
    fn dropped_by_lane(&self, lane: &dyn LaneBooks, has_end: bool) -> Vec<(&'static str, u64)> {
        let now = if has_end { self.at_end.get_or_init(|| lane.dropped()).clone() } else { lane.dropped() };
        let before =
            |reason: &str| self.before.iter().find(|(known, _)| *known == reason).map_or(0, |(_, count)| *count);
        now.into_iter().map(|(reason, count)| (reason, count.saturating_sub(before(reason)))).collect()
    }
}

impl End for QueueEnd {
    fn snapshot(&self) -> EndSnapshot {
        let (stats, lag) = (self.reader.stats(), self.reader.lag());
        let ReaderStats { restored, appended, appended_before, has_end, .. } = &stats;
        let corrections = self.state.corrections.lock().clone();
        let lane = self.lane.as_deref();
        let of_lane = lane.map(|lane| self.dropped_by_lane(lane, *has_end)).unwrap_or_default();
        let delivered = points(&stats.delivered).saturating_add_signed(corrections.delivered);
        let mut dropped: BTreeMap<&'static str, u64> = of_lane.iter().copied().collect();
        for (reason, totals) in &stats.dropped {
            *dropped.entry(reason).or_default() += points(totals);
        }
        for (reason, items) in &corrections.dropped {
            let count = dropped.entry(reason).or_default();
            *count = count.saturating_add_signed(*items);
        }
        let settled = delivered + dropped.values().sum::<u64>();
        let (mut restored, mut pending) = (points(restored), points(&lag.pending));
        let offered = match (lane, has_end) {
            (Some(lane), false) => {
                pending += lane.waiting();
                lane.offered().saturating_sub(points(appended_before) + sum(&self.before))
            }
            // What the queue knows of the segment in which the reader ends is said of the whole of it.
            (Some(_), true) => {
                let offered = points(appended) + sum(&of_lane);
                pending = (offered + restored).saturating_sub(settled);
                offered
            }
            (None, false) => points(appended),
            (None, true) => {
                restored = settled + pending;
                0
            }
        };
        EndSnapshot {
            kind: self.kind,
            name: self.name.lock().clone(),
            url: self.url.clone(),
            offered,
            restored,
            delivered,
            dropped: dropped
                .into_iter()
                .filter(|(_, count)| *count > 0)
                .map(|(r, count)| (r.to_owned(), count))
                .collect(),
            pending,
            pending_bytes: lag.pending.bytes,
            in_flight: points(&lag.in_flight),
            oldest_ms: lag.oldest_created_ms,
            capacity_bytes: lane.and_then(LaneBooks::capacity_bytes),
            retries: self.state.retries(),
            last_answer: self.state.last_answer(),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use corten_queue::{Counts, NewRecord, Options, Queue, ReaderOptions, Start, Totals};

    use super::*;

    async fn append(queue: &Queue, samples: u32) {
        let record = NewRecord {
            encoding: 0,
            tenant: None,
            partition: 0,
            partitions: 1,
            // What is known of series is no item.
            counts: Counts { metadata: 1, ..Counts::samples(samples) },
            lowest_ms: 0,
            highest_ms: 0,
            raw_len: 1,
            body: Bytes::from_static(b"x"),
            hold: None,
        };
        queue.append(vec![record]).await.unwrap();
    }

    /// What a lane says that drops three for each item of its queue.
    struct Books(Queue);

    impl LaneBooks for Books {
        fn offered(&self) -> u64 {
            points(&self.0.stats().appended) * 4
        }

        fn waiting(&self) -> u64 {
            0
        }

        fn dropped(&self) -> Vec<(&'static str, u64)> {
            vec![("rule", points(&self.0.stats().appended) * 3)]
        }

        fn capacity_bytes(&self) -> Option<u64> {
            Some(7)
        }
    }

    /// What was offered, restored, delivered, dropped, and waits.
    fn shown(end: &QueueEnd) -> (u64, u64, u64, Vec<(String, u64)>, u64) {
        let shown = end.snapshot();
        assert_eq!(shown.difference(), 0, "{shown:?}");
        (shown.offered, shown.restored, shown.delivered, shown.dropped, shown.pending)
    }

    fn counts(counts: &[(&str, u64)]) -> Vec<(String, u64)> {
        counts.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect()
    }

    #[tokio::test]
    async fn an_end_is_told_of_what_came_since_it_joined_and_up_to_where_it_left() {
        let dir = tempfile::tempdir().unwrap();
        let queue = Queue::open(dir.path(), Options::default()).unwrap();
        append(&queue, 5).await;
        let options =
            ReaderOptions { wait_max: std::time::Duration::ZERO, start: Start::Oldest, ..ReaderOptions::default() };
        let reader = queue.reader("r", options.clone());
        let books = Some(Arc::new(Books(queue.clone())) as Arc<dyn LaneBooks>);
        let state = Arc::new(SendState::default());
        let end = QueueEnd::new(Kind::LokiLog, "r".to_owned(), String::new(), &reader, &state, books);
        assert_eq!(shown(&end), (0, 5, 0, counts(&[]), 5));
        append(&queue, 2).await;
        assert_eq!(shown(&end), (8, 5, 0, counts(&[("rule", 6)]), 7));
        let run = reader.next().await.unwrap();
        // Of the first record two items were taken and two were not, and one was too old.
        let mut corrections = Corrections::default();
        let lost = Lost { reason: "refused", totals: Totals { samples: 2, ..Totals::default() } };
        corrections.take_what_was_written(&run.records[..1], &lost);
        corrections.change(Outcome::Delivered, Outcome::Dropped("too_old"), 1);
        state.corrections.lock().join(corrections);
        let settled = run.records.len();
        reader.settle_each(run, &[Outcome::Dropped("refused"), Outcome::Delivered][..settled]);
        if settled == 1 {
            reader.settle(reader.next().await.unwrap(), Outcome::Delivered);
        }
        let dropped = counts(&[("refused", 2), ("rule", 6), ("too_old", 1)]);
        assert_eq!(shown(&end), (8, 5, 4, dropped.clone(), 0));
        append(&queue, 1).await;
        reader.end_at(queue.end());
        assert_eq!(shown(&end), (12, 5, 4, counts(&[("refused", 2), ("rule", 9), ("too_old", 1)]), 1));
        // What comes then is not for it.
        append(&queue, 10).await;
        assert_eq!(shown(&end), (12, 5, 4, counts(&[("refused", 2), ("rule", 9), ("too_old", 1)]), 1));
        assert!(!end.has_ended());
        let _ = queue.reader("r", options);
        assert!(end.has_ended());
    }
}
