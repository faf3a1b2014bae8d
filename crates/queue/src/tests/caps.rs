//! The caps in bytes and age.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Faulty, append, drain, dropped, eager, options, run, simple, until};
use crate::{AppendError, NewRecord, Options, Outcome, Queue, ReaderOptions, keeper, reason};

fn small() -> Options {
    // Four segments of about 23 records.
    Options { segment_bytes_max: 4096, bytes_max: 16 << 10, ..options() }
}

#[test]
fn the_oldest_goes_when_there_is_no_room_and_each_reader_counts_what_it_loses() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let queue = Queue::open(dir.path(), small()).unwrap();
        let quick = queue.reader("quick", eager());
        let slow = queue.reader("slow", eager());
        for number in 0..300 {
            append(&queue, [number]).await;
            let run = quick.next().await.unwrap();
            quick.settle(run, Outcome::Delivered);
            assert!(queue.stats().disk_bytes <= 16 << 10);
        }
        let all = drain(&slow).await;
        let lost = dropped(&slow, reason::OVERFLOW);
        assert!(lost.samples > 200 && all.len() as u64 + lost.samples == 300, "{lost:?}");
        assert_eq!(lost.bytes, lost.samples * 100);
        assert_eq!(all, (lost.samples..300).collect::<Vec<_>>());
        assert!(quick.stats().dropped.is_empty());
        assert_eq!(quick.stats().delivered.samples, 300);
        assert_eq!(queue.stats().dropped, [(reason::OVERFLOW, lost)]);
    });
}

#[test]
fn a_reader_in_the_middle_of_what_goes_counts_only_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let queue = Queue::open(dir.path(), small()).unwrap();
        let reader = queue.reader("r", ReaderOptions { items_max: 5, ..eager() });
        append(&queue, 0..10).await;
        let run = reader.next().await.unwrap();
        append(&queue, 10..400).await;
        reader.settle(run, Outcome::Delivered);
        let delivered = 5 + drain(&reader).await.len() as u64;
        assert_eq!(delivered + dropped(&reader, reason::OVERFLOW).samples, 400);
        assert_eq!(reader.lag().pending.records, 0);
    });
}

#[test]
fn what_was_read_ahead_of_a_segment_that_goes_is_counted_and_not_lost_in_silence_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let queue = Queue::open(dir.path(), small()).unwrap();
        let reader = queue.reader("r", ReaderOptions { items_max: 5, ..eager() });
        append(&queue, 0..20).await;
        let run = reader.next().await.unwrap();
        append(&queue, 20..200).await;
        reader.settle(run, Outcome::Delivered);
        let counted = dropped(&reader, reason::OVERFLOW).samples;
        assert_eq!(5 + counted + reader.lag().pending.samples, 200);
        queue.abandon();
        let queue = Queue::open(dir.path(), small()).unwrap();
        let rest = drain(&queue.reader("r", eager())).await;
        assert_eq!(rest, (5 + counted..200).collect::<Vec<_>>());
    });
}

#[test]
fn a_queue_that_may_not_drop_refuses_until_something_is_settled() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let queue = Queue::open(dir.path(), Options { block_on_overflow: true, ..small() }).unwrap();
        let reader = queue.reader("r", eager());
        let mut appended = 0;
        let refused = loop {
            match queue.append(vec![simple(appended)]).await {
                Ok(_) => appended += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, AppendError::Overflow), "{refused}");
        assert!(appended > 50, "{appended}");
        tokio::select! {
            biased;
            () = queue.space() => panic!("nothing was settled"),
            () = tokio::task::yield_now() => {}
        }
        let waiting = tokio::spawn({
            let queue = queue.clone();
            async move {
                loop {
                    match queue.append(vec![simple(appended)]).await {
                        Err(AppendError::Overflow) => queue.space().await,
                        answer => return answer,
                    }
                }
            }
        });
        let mut all = Vec::new();
        while all.len() as u64 <= appended {
            let run = reader.next().await.unwrap();
            all.extend(super::numbers(&run));
            reader.settle(run, Outcome::Delivered);
        }
        waiting.await.unwrap().unwrap();
        assert_eq!(all, (0..=appended).collect::<Vec<_>>());
        assert!(queue.stats().dropped.is_empty());
    });
}

#[test]
fn a_lower_cap_acts_with_the_next_append() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let queue = Queue::open(dir.path(), Options { bytes_max: 1 << 20, ..small() }).unwrap();
        append(&queue, 0..300).await;
        assert!(queue.stats().disk_bytes > 16 << 10);
        queue.set_options(small());
        append(&queue, [300]).await;
        assert!(queue.stats().disk_bytes <= 16 << 10);
    });
}

#[test]
fn what_is_not_settled_in_time_is_dropped_and_counted_on_disk_and_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let day = Duration::from_secs(24 * 3600);
        let queue = Queue::open(dir.path(), Options { segment_bytes_max: 4096, ..options() }).unwrap();
        let reader = queue.reader("r", ReaderOptions { items_max: 2, ..eager() });
        append(&queue, 0..1).await;
        let run = reader.next().await.unwrap();
        append(&queue, 1..100).await;
        queue.shared().advance_clock(day);
        append(&queue, 100..103).await;
        keeper::expire(queue.shared());
        let stats = queue.stats();
        assert!(stats.dropped_segments >= 3, "{stats:?}");
        reader.settle(run, Outcome::Delivered);
        assert_eq!(drain(&reader).await, [100, 101, 102]);
        assert_eq!(dropped(&reader, reason::EXPIRED).samples, 99);
    });
}

#[test]
fn what_goes_while_it_is_read_is_lost_and_not_handed_out_too() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let disk = Faulty::new();
        let options = Options { segment_bytes_max: 4096, ..options() };
        let queue = Queue::open_with(dir.path(), options, disk.clone()).unwrap();
        append(&queue, 0..30).await;
        let reader = queue.reader("r", eager());
        disk.gate.store(true, Ordering::SeqCst);
        let reading = tokio::spawn(async move { (drain(&reader).await, reader) });
        // Each read takes one from the number of bad ones to come.
        until(|| disk.bad_reads.load(Ordering::SeqCst) < 0).await;
        queue.shared().advance_clock(Duration::from_secs(9 * 3600));
        keeper::expire(queue.shared());
        append(&queue, [30]).await;
        disk.gate.store(false, Ordering::SeqCst);
        let (all, reader) = reading.await.unwrap();
        assert_eq!(all, [30]);
        assert_eq!((dropped(&reader, reason::EXPIRED).samples, reader.stats().delivered.samples), (30, 1));
    });
}

#[test]
fn an_old_segment_is_closed_so_that_it_can_go() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let queue = Queue::open(dir.path(), options()).unwrap();
        queue.reader("r", eager());
        append(&queue, 0..3).await;
        let first = queue.stats().segment_current;
        queue.shared().advance_clock(Duration::from_secs(2 * 3600));
        keeper::expire(queue.shared());
        until(|| queue.stats().segment_current > first).await;
        queue.shared().advance_clock(Duration::from_secs(7 * 3600));
        keeper::expire(queue.shared());
        assert_eq!((queue.stats().segments, queue.stats().disk_bytes), (0, 0));
        assert_eq!(queue.stats().oldest_unsettled_age, None);
    });
}

#[test]
fn a_reader_skips_what_is_too_old_for_it() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let queue = Queue::open(dir.path(), options()).unwrap();
        let now_ms = queue.shared().now_ms();
        let at = |number: u64, age_s: i64| NewRecord { highest_ms: now_ms - age_s * 1000, ..simple(number) };
        queue.append(vec![at(0, 10), at(1, 1000), at(2, -5), at(3, 700), at(4, 599 - 60)]).await.unwrap();
        let choosy = ReaderOptions { age_max: Some(Duration::from_secs(600)), ..eager() };
        let reader = queue.reader("r", choosy);
        assert_eq!(drain(&reader).await, [0, 2, 4]);
        assert_eq!(dropped(&reader, reason::TOO_OLD).samples, 2);
        queue.append(vec![at(5, 1000)]).await.unwrap();
        assert_eq!(drain(&reader).await, [0; 0]);
        assert_eq!(dropped(&reader, reason::TOO_OLD).samples, 3);
        assert_eq!(drain(&queue.reader("all", eager())).await, [0, 1, 2, 3, 4, 5]);
        queue.close().await;
        let queue = Queue::open(dir.path(), options()).unwrap();
        assert_eq!(queue.reader("r", eager()).lag().pending.records, 0, "what was skipped is not looked at again");
    });
}

#[test]
fn the_cap_that_nobody_chose_is_at_most_a_tenth_of_what_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let free = crate::storage::free_bytes(dir.path()).unwrap();
    let chosen = crate::default_bytes_max(&dir.path().join("not/there/yet"));
    assert!(
        chosen == Options::BYTES_MAX_DEFAULT || chosen <= (free / 10).max(32 << 20) + (1 << 30),
        "{chosen} of {free}"
    );
    assert!(chosen > 0);
}

#[test]
fn the_cap_that_nobody_chose_leaves_what_is_there_whatever_else_fills_the_disk() {
    let (dir, max) = (tempfile::tempdir().unwrap(), Options::BYTES_MAX_DEFAULT);
    for (free, used, chosen) in [
        (1 << 30, 0, (1 << 30) / 10),
        (0, 1 << 30, 1 << 30),
        (9 << 30, 1 << 30, 1 << 30),
        (max, 2 * max, max),
        // A full disk is no reason for a cap that nothing fits into.
        (0, 0, 32 << 20),
        (100 << 20, 1 << 20, 32 << 20),
    ] {
        assert_eq!(crate::types::bytes_max(free, used), chosen, "{free} and {used}");
    }
    // A hole counts as what it will be.
    std::fs::File::create(dir.path().join("00000001.seg")).unwrap().set_len(max).unwrap();
    assert_eq!(crate::default_bytes_max(dir.path()), max);
}
