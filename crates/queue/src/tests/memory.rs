//! A queue without a disk.

use std::sync::Arc;
use std::time::Duration;

use super::{Told, drain, dropped, eager, numbers, options, run, simple, until};
use crate::{AppendError, NewRecord, Options, Outcome, Queue, ReaderOptions, reason};

fn held(number: u64) -> (NewRecord, Arc<Told>) {
    let hold = Told::new();
    (NewRecord { hold: Some(hold.clone()), ..simple(number) }, hold)
}

fn times(holds: &[Arc<Told>]) -> Vec<u64> {
    holds.iter().map(|hold| hold.times()).collect()
}

/// Appends records that are not durable.
async fn append(queue: &Queue, from: std::ops::Range<u64>) -> Vec<Arc<Told>> {
    let mut holds = Vec::new();
    for number in from {
        let (record, hold) = held(number);
        assert!(!queue.append(vec![record]).await.expect("append").durable);
        holds.push(hold);
    }
    holds
}

#[test]
fn records_are_handed_out_in_order_and_safe_once_every_reader_has_settled_them() {
    run(async {
        let queue = Queue::in_memory(options()).unwrap();
        let [a, b] = ["a", "b"].map(|name| queue.reader(name, ReaderOptions { items_max: 2, ..eager() }));
        let holds = append(&queue, 0..5).await;
        for reader in [&a, &b] {
            assert_eq!(times(&holds), [0; 5]);
            let run = reader.next().await.unwrap();
            assert_eq!(numbers(&run), [0, 1]);
            reader.settle(run, Outcome::Delivered);
        }
        assert_eq!(times(&holds), [1, 1, 0, 0, 0]);
        // A new handle of a name goes on where the old one was.
        let a = queue.reader("a", eager());
        assert_eq!(drain(&a).await, [2, 3, 4]);
        let run = b.next().await.unwrap();
        b.settle(run, Outcome::Dropped("refused"));
        assert_eq!(times(&holds), [1, 1, 1, 1, 0]);
        // Nobody waits for the last one any more.
        queue.remove_reader("b");
        assert_eq!(times(&holds), [1; 5]);
        let stats = queue.stats();
        assert_eq!((stats.degraded, stats.disk_bytes, stats.write_errors, stats.cursor_errors), (None, 0, 0, 0));
        queue.close().await;
    });
}

#[test]
fn a_full_memory_gives_up_the_oldest_which_is_safe_then() {
    run(async {
        let queue = Queue::in_memory(Options { memory_bytes_max: 10 * 172, ..options() }).unwrap();
        let reader = queue.reader("r", ReaderOptions { items_max: 1, ..eager() });
        let holds = append(&queue, 0..30).await;
        // Some were read ahead and are still to come.
        until(|| dropped(&reader, reason::MEMORY).samples > 0).await;
        let lost = dropped(&reader, reason::MEMORY).samples;
        let got = drain(&reader).await;
        assert_eq!((got.len() as u64 + lost, *got.last().unwrap()), (30, 29));
        assert_eq!(times(&holds), [1; 30]);
        assert!(queue.stats().memory_bytes <= 10 * 172);
        let (record, hold) = held(99);
        let large = NewRecord { body: vec![0; 2000].into(), ..record };
        assert!(matches!(queue.append(vec![large]).await, Err(AppendError::TooLarge { .. })));
        assert_eq!(hold.times(), 0);
    });
}

#[test]
fn a_full_memory_makes_appends_wait_if_it_is_asked_to() {
    run(async {
        let options = Options { memory_bytes_max: 3 * 172, block_on_overflow: true, ..options() };
        let queue = Queue::in_memory(options).unwrap();
        let reader = queue.reader("r", ReaderOptions { items_max: 1, ..eager() });
        append(&queue, 0..3).await;
        assert!(matches!(queue.append(vec![simple(3)]).await, Err(AppendError::Overflow)));
        let waiting = {
            let queue = queue.clone();
            tokio::spawn(async move {
                while let Err(AppendError::Overflow) = queue.append(vec![simple(3)]).await {
                    queue.space().await;
                }
            })
        };
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(!waiting.is_finished());
        let first = reader.next().await.unwrap();
        reader.settle(first, Outcome::Delivered);
        waiting.await.unwrap();
        assert_eq!(drain(&reader).await, [1, 2, 3]);
        assert!(dropped(&reader, reason::MEMORY).samples == 0);
    });
}

#[test]
fn what_is_in_memory_when_the_queue_ends_is_lost_and_nobody_is_told() {
    run(async {
        for is_killed in [false, true] {
            let queue = Queue::in_memory(options()).unwrap();
            let reader = queue.reader("r", eager());
            let holds = append(&queue, 0..3).await;
            let taken = reader.next().await.unwrap();
            if is_killed {
                queue.abandon()
            } else {
                queue.close().await
            }
            reader.settle(taken, Outcome::Delivered);
            assert!(reader.next().await.is_none());
            drop(reader);
            assert_eq!(times(&holds), [0; 3]);
            // They are let go.
            until(|| holds.iter().all(|hold| Arc::strong_count(hold) == 1)).await;
        }
    });
}

#[test]
fn what_is_too_old_is_safe_although_nobody_settles_it() {
    run(async {
        let queue = Queue::in_memory(options()).unwrap();
        let reader = queue.reader("r", ReaderOptions { age_max: Some(Duration::from_secs(60)), ..eager() });
        let holds = append(&queue, 0..3).await;
        let next = tokio::time::timeout(Duration::from_millis(100), reader.next());
        assert!(next.await.is_err());
        until(|| times(&holds) == [1; 3]).await;
        assert_eq!(dropped(&reader, reason::TOO_OLD).samples, 3);
    });
}
