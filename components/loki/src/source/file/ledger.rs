//! What is on its way: how far the lines of each file are safe, and how much may be on its way at once.

use std::collections::VecDeque;
use std::sync::Arc;

use corten_files::identity::Mark;
use corten_signal::Acks;
use corten_signal::acks::{Settle, Settled};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// How many batches of a file may be on their way.
const BATCHES_MAX: usize = 16;
/// How many batches of a file may be remembered. Those that a stage keeps, and those that are safe meanwhile, count as
/// on their way no more: a file whose lines are joined slowly must be read on, for the next line ends what is kept.
const BATCHES_KEPT_MAX: usize = 16 << 10;
/// How much text of a file may be on its way, in bytes.
const FILE_BYTES_MAX: usize = 8 << 20;
/// How much text of all files may be on its way, in bytes. What stages keep for a while is theirs.
const ALL_BYTES_MAX: usize = 16 << 20;

/// The number of a batch: the lane in the upper bits, the place in the lane in the lower ones.
const SEQUENCE_BITS: u32 = 40;
/// How many lanes there can be: one a file.
const LANES_MAX: usize = 1 << (64 - SEQUENCE_BITS);

/// The batches on their way of all files of a component. Each file has a lane.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    lanes: Vec<Lane>,
    free: Vec<u32>,
    /// How much text of all files counts, in bytes.
    bytes: usize,
    /// Lanes that something happened to since [`Ledger::take_touched`].
    touched: Vec<u32>,
}

/// The lane of a file that nothing is read from keeps no batches, and no room for them.
#[derive(Debug, Default)]
struct Lane {
    /// The number of the first batch of the list. Numbers go on when the lane becomes another file's.
    first: u64,
    batches: VecDeque<Batch>,
    /// How many of them count as on their way, and how much text.
    open: usize,
    bytes: usize,
    /// How many of them a stage keeps.
    kept: usize,
    touched: bool,
    /// What is safe and was not asked for yet.
    safe: Vec<(u32, Mark)>,
}

#[derive(Debug)]
struct Batch {
    /// The number of the file among those of its name, and where its lines end.
    end: (u32, Mark),
    bytes: usize,
    /// Counts as on its way.
    open: bool,
    /// A stage keeps some of it.
    kept: bool,
    settled: Option<Settled>,
}

/// What happened in a lane.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    /// The ends of batches that are safe, each in its place.
    pub(super) safe: Vec<(u32, Mark)>,
    /// Whether a batch was lost. Then nothing is on its way any more, and all that is not safe is to be read again.
    pub(super) lost: bool,
    /// Whether nothing is on its way.
    pub(super) empty: bool,
}

impl Ledger {
    /// A lane for a file.
    pub(super) fn open(&self) -> Option<u32> {
        let mut state = self.state.lock();
        if let Some(free) = state.free.pop() {
            return Some(free);
        }
        if state.lanes.len() >= LANES_MAX {
            return None;
        }
        state.lanes.push(Lane::default());
        Some((state.lanes.len() - 1) as u32)
    }

    /// The file of a lane is read no more. What is on its way is forgotten.
    pub(super) fn close(&self, lane: u32) {
        let mut state = self.state.lock();
        state.reset(lane);
        state.free.push(lane);
    }

    /// Whether a batch of the lane may be read.
    pub(super) fn has_room(&self, lane: u32) -> bool {
        self.state.lock().has_room(lane)
    }

    /// Whether the file of a lane is not read on for want of room. Where others take all of it, that is only so if there is
    /// something on its way, or the file is behind.
    pub(super) fn is_held_up(&self, lane: u32, is_behind: bool) -> bool {
        let state = self.state.lock();
        (is_behind || !state.lanes[lane as usize].batches.is_empty()) && !state.has_room(lane)
    }

    /// Notes a batch; what goes with it, and its number.
    pub(super) fn push(self: &Arc<Self>, lane: u32, end: (u32, Mark), bytes: usize) -> (Acks, u64) {
        let mut state = self.state.lock();
        state.bytes += bytes;
        let own = &mut state.lanes[lane as usize];
        let sequence = own.first + own.batches.len() as u64;
        own.batches.push_back(Batch { end, bytes, open: true, kept: false, settled: None });
        own.open += 1;
        own.bytes += bytes;
        drop(state);
        let serial = (u64::from(lane) << SEQUENCE_BITS) | sequence;
        (Acks::new(serial, Arc::clone(self) as Arc<dyn Settle>), serial)
    }

    /// A batch will never be taken by anybody: that it was lost is no reason to read it again.
    pub(super) fn give_up(&self, serial: u64) {
        self.settle(serial, Settled::Safe);
    }

    /// The lanes that something happened to since the last call.
    pub(super) fn take_touched(&self, into: &mut Vec<u32>) {
        let mut state = self.state.lock();
        into.append(&mut state.touched);
        for lane in into.iter() {
            state.lanes[*lane as usize].touched = false;
        }
    }

    /// What happened in a lane since the last call.
    pub(super) fn news(&self, lane: u32) -> News {
        let mut state = self.state.lock();
        let own = &mut state.lanes[lane as usize];
        let safe = std::mem::take(&mut own.safe);
        let failed = own.batches.iter().any(|batch| batch.settled == Some(Settled::Failed));
        let lost = failed && own.batches.iter().all(|batch| batch.settled.is_some());
        if lost {
            state.reset(lane);
        }
        let batches = &mut state.lanes[lane as usize].batches;
        let empty = batches.is_empty();
        if empty {
            *batches = VecDeque::new();
        }
        News { safe, lost, empty }
    }

    /// Waits until something happened.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn settle(&self, serial: u64, how: Settled) {
        let (lane, sequence) = ((serial >> SEQUENCE_BITS) as u32, serial & ((1 << SEQUENCE_BITS) - 1));
        let mut state = self.state.lock();
        let State { lanes, bytes, touched, .. } = &mut *state;
        let Some(own) = lanes.get_mut(lane as usize) else { return };
        // Batches that were forgotten have smaller numbers.
        let Some(at) = sequence.checked_sub(own.first) else { return };
        let Some(batch) = own.batches.get_mut(at as usize) else { return };
        batch.settled = Some(how);
        own.kept -= usize::from(std::mem::take(&mut batch.kept));
        if own.kept > 0 {
            own.close(at as usize, bytes);
        }
        while own.batches.front().is_some_and(|batch| batch.settled == Some(Settled::Safe)) {
            own.close(0, bytes);
            own.first += 1;
            own.safe.extend(own.batches.pop_front().map(|batch| batch.end));
        }
        if !own.touched {
            own.touched = true;
            touched.push(lane);
        }
        drop(state);
        self.changed.notify_one();
    }
}

impl Lane {
    /// A batch counts as on its way no more.
    fn close(&mut self, at: usize, all_bytes: &mut usize) {
        let batch = &mut self.batches[at];
        if std::mem::take(&mut batch.open) {
            self.open -= 1;
            self.bytes -= batch.bytes;
            *all_bytes -= batch.bytes;
        }
    }
}

impl State {
    fn has_room(&self, lane: u32) -> bool {
        let own = &self.lanes[lane as usize];
        let lost = own.batches.iter().any(|batch| batch.settled == Some(Settled::Failed));
        !lost
            && own.batches.len() < BATCHES_KEPT_MAX
            && own.open < BATCHES_MAX
            && own.bytes < FILE_BYTES_MAX
            && self.bytes < ALL_BYTES_MAX
    }

    fn reset(&mut self, lane: u32) {
        let own = &mut self.lanes[lane as usize];
        own.first += own.batches.len() as u64;
        for batch in own.batches.drain(..) {
            self.bytes -= if batch.open { batch.bytes } else { 0 };
        }
        (own.open, own.bytes, own.kept) = (0, 0, 0);
        own.safe.clear();
    }
}

impl Settle for Ledger {
    fn settled(&self, serial: u64, how: Settled) {
        self.settle(serial, how);
    }

    fn held(&self, serial: u64) {
        let (lane, sequence) = ((serial >> SEQUENCE_BITS) as usize, serial & ((1 << SEQUENCE_BITS) - 1));
        let mut state = self.state.lock();
        let State { lanes, bytes, touched, .. } = &mut *state;
        let Some(own) = lanes.get_mut(lane) else { return };
        let Some(at) = sequence.checked_sub(own.first) else { return };
        let Some(batch) = own.batches.get_mut(at as usize).filter(|batch| !batch.kept) else { return };
        batch.kept = true;
        own.kept += 1;
        own.close(at as usize, bytes);
        if own.kept == 1 {
            // What is safe already may wait for this one for long.
            for at in 0..own.batches.len() {
                if own.batches[at].settled.is_some() {
                    own.close(at, bytes);
                }
            }
        }
        if !own.touched {
            own.touched = true;
            touched.push(lane as u32);
        }
        drop(state);
        self.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(offset: u64) -> Mark {
        Mark { offset, ..Mark::default() }
    }

    #[test]
    fn what_is_safe_is_told_in_order_and_a_loss_when_nothing_is_on_its_way() {
        let ledger = Arc::new(Ledger::default());
        let lane = ledger.open().unwrap();
        let [a, b, c, d] = [1, 2, 3, 4].map(|n| ledger.push(lane, (1, mark(n)), 10).0);
        b.safe();
        assert_eq!(ledger.news(lane), News::default());
        a.safe();
        assert_eq!(ledger.news(lane).safe, [(1, mark(1)), (1, mark(2))]);
        drop(c);
        assert!(!ledger.has_room(lane));
        assert_eq!(ledger.news(lane), News::default());
        d.safe();
        assert_eq!(ledger.news(lane), News { safe: vec![], lost: true, empty: true });
        assert!(ledger.has_room(lane));
        let mut touched = Vec::new();
        ledger.take_touched(&mut touched);
        assert_eq!(touched, [lane]);
        assert_eq!(ledger.state.lock().bytes, 0);
    }

    #[test]
    fn what_nobody_will_ever_take_is_not_read_again() {
        let ledger = Arc::new(Ledger::default());
        let lane = ledger.open().unwrap();
        let (acks, serial) = ledger.push(lane, (1, mark(5)), 10);
        acks.fail();
        ledger.give_up(serial);
        assert_eq!(ledger.news(lane), News { safe: vec![(1, mark(5))], lost: false, empty: true });
    }

    #[test]
    fn late_news_of_a_file_do_not_reach_the_next_one_of_its_lane() {
        let ledger = Arc::new(Ledger::default());
        let lane = ledger.open().unwrap();
        let (late, _) = ledger.push(lane, (1, mark(5)), 10);
        ledger.close(lane);
        assert_eq!(ledger.open(), Some(lane));
        let (acks, _) = ledger.push(lane, (1, mark(7)), 10);
        drop(late);
        acks.safe();
        assert_eq!(ledger.news(lane), News { safe: vec![(1, mark(7))], lost: false, empty: true });
    }

    #[test]
    fn there_is_room_for_so_much_and_what_stages_keep_is_theirs() {
        let ledger = Arc::new(Ledger::default());
        let lanes: Vec<u32> = (0..3).map(|_| ledger.open().unwrap()).collect();
        let first = ledger.push(lanes[0], (1, mark(1)), FILE_BYTES_MAX).0;
        assert!(!ledger.has_room(lanes[0]) && ledger.has_room(lanes[1]));
        let _second = ledger.push(lanes[1], (1, mark(1)), FILE_BYTES_MAX);
        assert!(!ledger.has_room(lanes[2]));
        first.hold();
        first.hold();
        assert!(ledger.has_room(lanes[2]));
        first.safe();
        assert!(ledger.has_room(lanes[0]));
        assert_eq!(ledger.state.lock().bytes, FILE_BYTES_MAX);
        let batches: Vec<_> = (0..BATCHES_MAX).map(|n| ledger.push(lanes[2], (1, mark(n as u64)), 1)).collect();
        assert!(!ledger.has_room(lanes[2]));
        drop(batches);
    }

    #[test]
    fn a_file_is_read_on_while_a_stage_keeps_its_lines() {
        let ledger = Arc::new(Ledger::default());
        let lane = ledger.open().unwrap();
        let push = |at: u64| ledger.push(lane, (1, mark(at)), 1 << 20).0;
        let partial = push(0);
        let second = push(1);
        second.safe();
        partial.hold();
        let mut touched = Vec::new();
        ledger.take_touched(&mut touched);
        assert_eq!(touched, [lane], "who waits for room hears of it");
        // As a line whose end does not come, between others.
        for at in 2..100 {
            assert!(ledger.has_room(lane), "{at}");
            push(at).safe();
        }
        // As a block whose lines come slowly.
        let block: Vec<_> = (100..200)
            .map(|at| {
                assert!(ledger.has_room(lane), "{at}");
                let acks = push(at);
                acks.hold();
                acks
            })
            .collect();
        assert_eq!((ledger.news(lane), ledger.state.lock().bytes), (News::default(), 0));
        partial.safe();
        block.into_iter().for_each(Acks::safe);
        assert_eq!(ledger.news(lane).safe.len(), 200);
        let _open: Vec<_> = (0..8).map(push).collect();
        assert!(!ledger.has_room(lane));
    }
}
