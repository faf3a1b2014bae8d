//! A disk that is full or fails, and how little of a good one is read.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Faulty, append, drain, dropped, eager, numbered, options, run, simple, until};
use crate::{AppendError, Options, Outcome, Queue, ReaderOptions, keeper, reason};

#[test]
fn records_are_delivered_from_memory_while_the_disk_is_full() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let disk = Faulty::new();
        let queue = Queue::open_with(dir.path(), options(), disk.clone()).unwrap();
        let reader = queue.reader("r", eager());
        append(&queue, 0..5).await;
        // A part of a record fits.
        disk.fill(100);
        append(&queue, 5..10).await;
        let stats = queue.stats();
        assert!(stats.degraded.is_some() && stats.write_errors > 0, "{stats:?}");
        assert_eq!(stats.memory_bytes, 5 * 172);
        let late = queue.reader("late", eager());
        assert_eq!(drain(&reader).await, (0..10).collect::<Vec<_>>());
        append(&queue, 10..12).await;
        assert_eq!(drain(&late).await, (0..12).collect::<Vec<_>>());
        assert_eq!(drain(&reader).await, [10, 11]);
        // What every reader has settled needs no memory.
        append(&queue, [12]).await;
        assert_eq!(queue.stats().memory_bytes, 172);
        disk.clear();
        until(|| queue.stats().degraded.is_none()).await;
        assert_eq!(queue.stats().memory_bytes, 0);
        append(&queue, 13..15).await;
        queue.abandon();
        let queue = Queue::open(dir.path(), options()).unwrap();
        assert_eq!(drain(&queue.reader("r", eager())).await, [12, 13, 14]);
        let again = queue.reader("again", eager());
        assert_eq!(drain(&again).await, [0, 1, 2, 3, 4, 12, 13, 14], "what was settled in memory never was on disk");
        assert!(again.stats().dropped.is_empty());
        assert_eq!((queue.stats().damaged_records, queue.stats().torn_tails), (0, 0));
    });
}

#[test]
fn beyond_the_limit_in_memory_the_oldest_go_counted_and_the_disk_gets_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let disk = Faulty::new();
        let limits = Options { memory_bytes_max: 172 * 30, segment_bytes_max: 4096, ..options() };
        let queue = Queue::open_with(dir.path(), limits, disk.clone()).unwrap();
        let reader = queue.reader("r", ReaderOptions { items_max: 5, ..eager() });
        append(&queue, 0..3).await;
        disk.fill(0);
        let run = reader.next().await.unwrap();
        append(&queue, 3..103).await;
        assert!(queue.stats().memory_bytes <= 172 * 30);
        let too_large = queue.append((0..31).map(simple).collect()).await;
        assert!(matches!(too_large, Err(AppendError::TooLarge { .. })), "{too_large:?}");
        disk.clear();
        until(|| queue.stats().degraded.is_none()).await;
        reader.settle(run, Outcome::Delivered);
        let lost = dropped(&reader, reason::MEMORY).samples;
        assert!((60..=70).contains(&lost), "{lost}");
        let mut delivered = 3 + drain(&reader).await.len() as u64;
        assert_eq!(delivered + lost, 103);
        assert_eq!(reader.lag().pending.records, 0);
        append(&queue, 103..105).await;
        delivered += drain(&reader).await.len() as u64;
        assert_eq!(delivered + lost, 105);
        assert_eq!(queue.stats().dropped, [(reason::MEMORY, dropped(&reader, reason::MEMORY))]);
        // The hole in the segment is no damage.
        queue.close().await;
        let queue = Queue::open(dir.path(), options()).unwrap();
        let again = queue.reader("again", eager());
        let all = drain(&again).await;
        assert_eq!((all[..3].to_vec(), all[3..].to_vec()), (vec![0, 1, 2], (73..105).collect::<Vec<_>>()));
        assert!(again.stats().dropped.is_empty(), "{:?}", again.stats());
    });
}

#[test]
fn the_lag_is_exact_when_memory_gave_up_what_was_settled_and_after_a_crash() {
    // It reads no more than four records ahead.
    let two = || ReaderOptions { items_max: 2, ..eager() };
    for taken in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        run(async {
            let disk = Faulty::new();
            let queue = Queue::open_with(dir.path(), options(), disk.clone()).unwrap();
            let reader = queue.reader("r", two());
            disk.fill(0);
            append(&queue, 0..10).await;
            let first = reader.next().await.unwrap();
            reader.settle(first, Outcome::Delivered);
            let second = if taken { reader.next().await } else { None };
            append(&queue, 10..11).await;
            assert_eq!(queue.stats().memory_bytes, 9 * 172);
            assert_eq!((reader.lag().pending.records, reader.lag().pending.bytes), (9, 900));
            // A new handle goes on where the records are that the old one has read and not settled.
            let reader = queue.reader("r", two());
            assert_eq!(reader.lag().pending.records, 9);
            drop(second);
            disk.clear();
            until(|| queue.stats().degraded.is_none()).await;
            let second = reader.next().await.unwrap();
            reader.settle(second, Outcome::Delivered);
            assert_eq!(reader.lag().pending.records, 7);
            queue.abandon();
            let queue = Queue::open(dir.path(), options()).unwrap();
            let reader = queue.reader("r", eager());
            assert_eq!(reader.lag().pending.records, 7);
            assert_eq!(drain(&reader).await, (4..11).collect::<Vec<_>>());
            assert!(reader.stats().dropped.is_empty());
        });
    }
}

#[test]
fn what_comes_out_of_memory_in_many_segments_stays_within_the_cap_with_their_footers() {
    for body_len in (3780..3900).step_by(10) {
        let dir = tempfile::tempdir().unwrap();
        run(async {
            let disk = Faulty::new();
            let limits =
                Options { segment_bytes_max: 4096, bytes_max: 16 << 10, memory_bytes_max: 16 << 10, ..options() };
            let queue = Queue::open_with(dir.path(), limits, disk.clone()).unwrap();
            let _reader = queue.reader("r", eager());
            disk.fill(0);
            for number in 0..4 {
                queue.append(vec![numbered(number, 0, 1, body_len)]).await.unwrap();
            }
            disk.clear();
            until(|| queue.stats().degraded.is_none()).await;
            let bytes = queue.stats().disk_bytes;
            assert!(bytes <= 16 << 10, "{bytes} with bodies of {body_len}");
        });
    }
}

#[test]
fn a_queue_that_may_not_drop_refuses_when_the_memory_is_full() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let disk = Faulty::new();
        let limits = Options { memory_bytes_max: 172 * 3, block_on_overflow: true, ..options() };
        let queue = Queue::open_with(dir.path(), limits, disk.clone()).unwrap();
        let reader = queue.reader("r", eager());
        disk.fill(0);
        append(&queue, 0..3).await;
        assert!(matches!(queue.append(vec![simple(3)]).await, Err(AppendError::Overflow)));
        let waiting = tokio::spawn({
            let queue = queue.clone();
            async move { queue.space().await }
        });
        disk.clear();
        waiting.await.unwrap();
        until(|| queue.stats().degraded.is_none()).await;
        append(&queue, [3]).await;
        assert_eq!(drain(&reader).await, [0, 1, 2, 3]);
    });
}

#[test]
fn what_is_in_memory_when_the_queue_closes_is_written_or_counted() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let disk = Faulty::new();
        let queue = Queue::open_with(dir.path(), options(), disk.clone()).unwrap();
        let reader = queue.reader("r", ReaderOptions { items_max: 1, ..eager() });
        disk.fill(0);
        append(&queue, 0..10).await;
        queue.close().await;
        assert!(dropped(&reader, reason::MEMORY).samples >= 8, "all but what the reader holds");

        let queue = Queue::open_with(dir.path(), options(), disk.clone()).unwrap();
        append(&queue, 10..20).await;
        disk.clear();
        queue.close().await;
        let queue = Queue::open(dir.path(), options()).unwrap();
        assert_eq!(drain(&queue.reader("r", eager())).await, (10..20).collect::<Vec<_>>());
    });
}

#[test]
fn a_directory_that_somebody_deleted_is_made_again() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("queue");
    run(async {
        let queue = Queue::open(&dir, Options { segment_bytes_max: 4096, ..options() }).unwrap();
        let reader = queue.reader("r", ReaderOptions { items_max: 1, ..eager() });
        append(&queue, 0..30).await;
        std::fs::remove_dir_all(&dir).unwrap();
        append(&queue, 30..100).await;
        let all = drain(&reader).await;
        let lost = dropped(&reader, reason::MISSING).samples;
        assert_eq!(all.len() as u64 + lost, 100);
        assert_eq!(all.last(), Some(&99));
        assert!(queue.stats().missing_segments > 0);
        assert!(queue.stats().damaged_records == 0, "{:?}", queue.stats());
    });
}

#[test]
fn opening_reads_one_footer_a_segment_and_only_the_segment_that_was_not_closed() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let small = Options { segment_bytes_max: 64 << 10, bytes_max: 1 << 30, ..options() };
        let queue = Queue::open(dir.path(), small.clone()).unwrap();
        let batch = || (0..10).map(|number| super::numbered(number, 0, 1, 4000)).collect::<Vec<_>>();
        while queue.stats().segments < 200 {
            queue.append(batch()).await.unwrap();
        }
        queue.abandon();
        let disk = Faulty::new();
        let queue = Queue::open_with(dir.path(), small.clone(), disk.clone()).unwrap();
        let figures = |disk: &Faulty| (disk.reads.load(Ordering::SeqCst), disk.read_bytes.load(Ordering::SeqCst));
        let (reads, read_bytes) = figures(&disk);
        assert_eq!(reads, 201, "a footer each, and one chunk of the last");
        assert!(read_bytes <= 201 * 128 + (64 << 10), "{read_bytes}");
        assert_eq!(queue.stats().segments, 200);
        queue.close().await;
        let disk = Faulty::new();
        let queue = Queue::open_with(dir.path(), small, disk.clone()).unwrap();
        assert_eq!(figures(&disk), (200, 200 * 128));
        assert!(queue.stats().disk_bytes > 7 << 20);
    });
}

#[test]
fn a_place_that_cannot_be_read_is_tried_again_and_then_given_up() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let disk = Faulty::new();
        let queue =
            Queue::open_with(dir.path(), Options { segment_bytes_max: 4096, ..options() }, disk.clone()).unwrap();
        append(&queue, 0..30).await;
        disk.bad_reads.store(1, Ordering::SeqCst);
        let reader = queue.reader("r", eager());
        assert_eq!(drain(&queue.reader("lucky", eager())).await, (0..30).collect::<Vec<_>>());
        assert_eq!(queue.stats().read_errors, 1);
        disk.bad_reads.store(5, Ordering::SeqCst);
        let all = drain(&reader).await;
        assert_eq!(queue.stats().read_errors, 6);
        let lost = dropped(&reader, reason::DAMAGED).samples;
        assert_eq!((all, lost), ((lost..30).collect::<Vec<_>>(), 23), "the first segment is given up, no more");
        assert_eq!(queue.stats().damaged_records, 1);
    });
}

#[test]
fn what_is_written_is_synced_off_the_writers_path() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let soon = Options { sync_every: Duration::from_millis(1), ..options() };
        let queue = Queue::open(dir.path(), soon).unwrap();
        let reader = queue.reader("r", eager());
        append(&queue, 0..3).await;
        until(|| queue.stats().syncs > 0).await;
        drain(&reader).await;
        queue.close().await;

        let never = Queue::open(dir.path(), options()).unwrap();
        append(&never, 0..3).await;
        keeper::expire(never.shared());
        assert_eq!(never.stats().syncs, 0);
    });
}

#[test]
fn an_append_is_answered_after_the_sync_where_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let queue = Queue::open(dir.path(), Options { sync_appends: true, ..options() }).unwrap();
        append(&queue, 0..1).await;
        assert_eq!(queue.stats().syncs, 1);
        append(&queue, 1..2).await;
        assert_eq!(queue.stats().syncs, 2);
    });
}

#[test]
fn a_directory_that_was_deleted_while_the_disk_took_nothing_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let path = dir.path().join("queue");
        let disk = Faulty::new();
        let queue = Queue::open_with(&path, options(), disk.clone()).unwrap();
        let reader = queue.reader("r", eager());
        append(&queue, 0..3).await;
        disk.fill(0);
        append(&queue, 3..6).await;
        std::fs::remove_dir_all(&path).unwrap();
        disk.clear();
        until(|| queue.stats().degraded.is_none()).await;
        append(&queue, 6..9).await;
        // What was on disk alone is gone with it.
        let got = drain(&reader).await;
        assert_eq!(got[got.len() - 6..], [3, 4, 5, 6, 7, 8]);
    });
}
