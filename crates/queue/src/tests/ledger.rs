//! Whatever happens: appended = delivered + dropped by reason + pending, for each reader and at each moment.

use std::time::Duration;

use proptest::prelude::*;

use super::{Faulty, eager, number_of, numbered, options, run, until};
use crate::{AppendError, Options, Outcome, Queue, Reader, ReaderOptions, Run, Totals, keeper};

#[derive(Clone, Debug)]
enum Op {
    /// Lengths of the bodies.
    Append(Vec<usize>),
    Partitions(u16),
    Next,
    Deliver,
    Refuse,
    Forget,
    Hours(u64),
    Expire,
    Truncate,
    Full(u16),
    Space,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        10 => prop::collection::vec(8..600usize, 1..4).prop_map(Op::Append),
        1 => (1..4u16).prop_map(Op::Partitions),
        6 => Just(Op::Next),
        4 => Just(Op::Deliver),
        1 => Just(Op::Refuse),
        1 => Just(Op::Forget),
        1 => (1..6u64).prop_map(Op::Hours),
        1 => Just(Op::Expire),
        1 => Just(Op::Truncate),
        1 => (0..3000u16).prop_map(Op::Full),
        2 => Just(Op::Space),
    ]
}

fn check(queue: &Queue, reader: &Reader, op: &Op) {
    // The writer goes on by itself while the disk is full: only figures of one moment have to agree.
    let (stats, lag) = loop {
        let (stats, lag) = (reader.stats(), reader.lag());
        if stats == reader.stats() {
            break (stats, lag);
        }
    };
    let caps = queue.stats();
    assert!(caps.disk_bytes <= 16 << 10 && caps.memory_bytes <= 3 << 10, "after {op:?}: {caps:?}");
    let mut sum = stats.delivered + lag.pending;
    for (_, totals) in &stats.dropped {
        sum += *totals;
    }
    assert_eq!(sum, queue.stats().appended, "after {op:?}: {stats:?}, {lag:?}");
    assert_eq!((stats.appended, stats.restored), (sum, Totals::default()), "after {op:?}");
}

/// What a handle says that was waiting when it was made, with what came since, is delivered, dropped or pending.
fn check_handle(reader: &Reader) {
    // It may be reading ahead meanwhile.
    let (stats, lag) = loop {
        let (stats, lag) = (reader.stats(), reader.lag());
        if stats == reader.stats() && lag == reader.lag() {
            break (stats, lag);
        }
    };
    let became = stats.dropped.iter().fold(stats.delivered + lag.pending, |sum, (_, totals)| sum + *totals);
    assert_eq!(stats.restored + stats.appended, became, "{stats:?}, {lag:?}");
}

/// Settles all that there is.
async fn drain(reader: &Reader, highest: &mut [Option<u64>]) {
    reader.flush();
    while let Some(run) = reader.next().await {
        in_order(&run, highest);
        reader.settle(run, Outcome::Delivered);
    }
}

/// Nothing comes twice and nothing out of order, whatever is left out.
fn in_order(run: &Run, highest: &mut [Option<u64>]) {
    let highest = &mut highest[usize::from(run.partitions * 4 + run.partition)];
    for record in &run.records {
        let number = number_of(&record.body);
        assert!(highest.is_none_or(|highest| highest < number), "{number} after {highest:?}");
        *highest = Some(number);
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Lengths of the bodies, shared out among so many partitions.
    Append(Vec<usize>),
    Partitions(u16),
    /// Hands out so many runs and settles the last of them first.
    Settle(usize),
    /// Another handle of the same name.
    Again,
    /// The process is killed, or ends.
    Restart(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec(8..600usize, 1..6).prop_map(Step::Append),
        1 => (1..4u16).prop_map(Step::Partitions),
        4 => (1..5usize).prop_map(Step::Settle),
        1 => Just(Step::Again),
        1 => any::<bool>().prop_map(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    /// Also where partitions were settled unevenly before, and what was settled is passed over.
    #[test]
    fn what_a_handle_finds_is_in_its_books(steps in prop::collection::vec(step(), 1..60), overtakes in any::<bool>()) {
        let dir = tempfile::tempdir().expect("directory");
        run(async {
            let limits = Options { segment_bytes_max: 4096, ..options() };
            let mut queue = Queue::open(dir.path(), limits.clone()).expect("open");
            let reader_options = ReaderOptions { items_max: 2, overtake_after: overtakes.then_some(Duration::ZERO), ..eager() };
            let mut reader = queue.reader("r", reader_options.clone());
            let (mut number, mut partitions) = (0, 2);
            let mut unsettled = 0;
            for step in steps {
                match step {
                    Step::Append(lens) => {
                        let record = |len: &usize| {
                            number += 1;
                            numbered(number, (number % u64::from(partitions)) as u16, partitions, *len)
                        };
                        unsettled += lens.len() as u64;
                        queue.append(lens.iter().map(record).collect()).await.expect("append");
                    }
                    Step::Partitions(wanted) => partitions = wanted,
                    Step::Settle(runs) => {
                        let mut out = Vec::new();
                        for _ in 0..runs {
                            match tokio::time::timeout(Duration::from_millis(2), reader.next()).await {
                                Ok(Some(run)) => out.push(run),
                                _ => break,
                            }
                        }
                        // The first stays out, so that later ones are settled before it.
                        while out.len() > 1 || runs == 1 && !out.is_empty() {
                            let Some(run) = out.pop() else { break };
                            unsettled -= run.records.len() as u64;
                            reader.settle(run, Outcome::Delivered);
                        }
                    }
                    Step::Again => reader = queue.reader("r", reader_options.clone()),
                    Step::Restart(killed) => {
                        if killed { queue.abandon() } else { queue.close().await }
                        queue = Queue::open(dir.path(), limits.clone()).expect("open");
                        reader = queue.reader("r", reader_options.clone());
                    }
                }
                check_handle(&reader);
            }
            reader.flush();
            while let Some(run) = reader.next().await {
                unsettled -= run.records.len() as u64;
                reader.settle(run, Outcome::Delivered);
                check_handle(&reader);
            }
            assert_eq!((unsettled, reader.lag().pending.records), (0, 0));
            let stats = reader.stats();
            assert_eq!(stats.restored + stats.appended, stats.delivered);
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_appended_is_delivered_dropped_or_pending(
        ops in prop::collection::vec(op(), 1..120),
        items_max in 1..6u32,
        overtakes in any::<bool>(),
        segment_bytes_max in 4096..8192u64,
    ) {
        let dir = tempfile::tempdir().expect("directory");
        run(async {
            let disk = Faulty::new();
            let limits = Options {
                segment_bytes_max,
                bytes_max: 16 << 10,
                memory_bytes_max: 3 << 10,
                keep_settled_min: Duration::from_secs(3600),
                ..options()
            };
            let queue = Queue::open_with(dir.path(), limits, disk.clone()).expect("open");
            let reader_options = ReaderOptions { items_max, overtake_after: overtakes.then_some(Duration::ZERO), ..eager() };
            let busy = queue.reader("busy", reader_options.clone());
            let idle = queue.reader("idle", reader_options);
            busy.flush();
            let mut highest = [None; 16];
            let (mut number, mut partitions, mut out) = (0, 1, None);
            for op in ops {
                match &op {
                    Op::Append(lens) => {
                        let record = |len: &usize| {
                            number += 1;
                            numbered(number, (number % u64::from(partitions)) as u16, partitions, *len)
                        };
                        let answer = queue.append(lens.iter().map(record).collect()).await;
                        assert!(matches!(answer, Ok(_) | Err(AppendError::TooLarge { .. })), "{answer:?}");
                    }
                    Op::Partitions(wanted) => partitions = *wanted,
                    Op::Next if out.is_none() => {
                        out = busy.next().await;
                        if let Some(run) = &out {
                            assert!(run.records.len() <= items_max as usize);
                        }
                    }
                    Op::Deliver | Op::Refuse => {
                        if let Some(run) = out.take() {
                            in_order(&run, &mut highest);
                            let refuse = matches!(op, Op::Refuse);
                            busy.settle(run, if refuse { Outcome::Dropped("refused") } else { Outcome::Delivered });
                        }
                    }
                    Op::Forget => out = None,
                    Op::Next => {}
                    Op::Hours(hours) => queue.shared().advance_clock(Duration::from_secs(hours * 3600)),
                    Op::Expire => keeper::expire(queue.shared()),
                    Op::Truncate => keeper::truncate(queue.shared(), Duration::ZERO),
                    Op::Full(left) => disk.fill(i64::from(*left)),
                    Op::Space => {
                        disk.clear();
                        until(|| queue.stats().degraded.is_none()).await;
                    }
                }
                check(&queue, &busy, &op);
                check(&queue, &idle, &op);
            }
            drop(out);
            drain(&busy, &mut highest).await;
            drain(&idle, &mut [None; 16]).await;
            for reader in [&busy, &idle] {
                check(&queue, reader, &Op::Next);
                assert_eq!(reader.lag().pending.records, 0);
            }
            let stats = queue.stats();
            assert_eq!((stats.damaged_records, stats.missing_segments), (0, 0));
        });
    }
}
