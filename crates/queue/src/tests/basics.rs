//! What a queue does while all is well.

use std::io;
use std::time::Duration;

use super::{append, drain, dropped, eager, number_of, numbered, numbers, options, run, simple, until};
use crate::{AppendError, Counts, NewRecord, Options, Outcome, Queue, ReaderOptions, Start, keeper, reason};

#[test]
fn a_record_comes_out_as_it_went_in_from_memory_and_from_disk() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let new = NewRecord {
            encoding: 7,
            tenant: Some("tenänt".into()),
            partition: 3,
            partitions: 5,
            counts: Counts { samples: 1, histograms: 2, exemplars: 3, metadata: 4 },
            lowest_ms: -5,
            highest_ms: 1_700_000_000_000,
            raw_len: 99,
            body: vec![1, 2, 3].into(),
            hold: None,
        };
        let queue = Queue::open(dir.path(), options()).unwrap();
        let from_memory = queue.reader("memory", eager());
        let task = tokio::spawn(async move { from_memory.next().await.map(|run| run.records.clone()) });
        queue.append(vec![new.clone()]).await.unwrap();
        let from_memory = task.await.unwrap().unwrap();
        let from_disk = queue.reader("disk", eager()).next().await.unwrap().records.clone();
        assert_eq!(from_memory, from_disk);
        let [record] = &from_disk[..] else { panic!("one record: {from_disk:?}") };
        assert_eq!((record.encoding, record.tenant.as_deref()), (7, Some("tenänt")));
        assert_eq!((record.partition, record.partitions, record.counts), (3, 5, new.counts));
        assert_eq!((record.lowest_ms, record.highest_ms, record.raw_len), (-5, 1_700_000_000_000, 99));
        assert_eq!(record.body, new.body);
        assert!(record.created_ms > 1_700_000_000_000);
    });
}

#[test]
fn a_batch_is_contiguous_whoever_appends_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let queue = Queue::open(dir.path(), Options { segment_bytes_max: 4096, ..options() }).unwrap();
        let reader = queue.reader("r", eager());
        let tasks: Vec<_> = (0..20)
            .map(|task| {
                let queue = queue.clone();
                tokio::spawn(
                    async move { queue.append((0..10).map(|index| simple(task * 10 + index)).collect()).await },
                )
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        let all = drain(&reader).await;
        assert_eq!(all.len(), 200);
        for batch in all.chunks(10) {
            assert!(batch[0].is_multiple_of(10) && batch.windows(2).all(|pair| pair[1] == pair[0] + 1), "{batch:?}");
        }
        assert!(queue.stats().writes < 20, "appends that wait together are written together");
    });
}

#[test]
fn a_run_holds_as_much_before_compression_as_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let queue = Queue::open(dir.path(), options()).unwrap();
        let long = ReaderOptions { raw_bytes_max: 1000, wait_max: Duration::from_secs(3600), ..eager() };
        let reader = queue.reader("r", long.clone());
        let of = |number, raw_len| NewRecord { raw_len, ..simple(number) };
        // As many as fit; one that is too large alone; what is not full waits.
        let records = [400, 600, 1, 999, 1, 5000, 500, 501, 498].iter().enumerate();
        queue.append(records.map(|(number, raw_len)| of(number as u64, *raw_len)).collect()).await.unwrap();
        for expected in [vec![0, 1], vec![2, 3], vec![4], vec![5], vec![6]] {
            let run = reader.next().await.unwrap();
            assert_eq!(numbers(&run), expected);
            reader.settle(run, Outcome::Delivered);
        }
        assert!(tokio::time::timeout(Duration::from_millis(50), reader.next()).await.is_err());
        reader.set_options(ReaderOptions { raw_bytes_max: 999, ..long });
        assert_eq!(numbers(&reader.next().await.unwrap()), [7, 8]);
    });
}

#[test]
fn a_run_that_has_as_much_as_is_worth_it_waits_for_no_more() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let queue = Queue::open(dir.path(), options()).unwrap();
        let patient = ReaderOptions {
            items_min: 3,
            items_max: 5,
            wait_max: Duration::from_secs(3600),
            ..ReaderOptions::default()
        };
        let reader = queue.reader("r", ReaderOptions { start: crate::Start::Oldest, ..patient.clone() });
        append(&queue, 0..2).await;
        assert!(tokio::time::timeout(Duration::from_millis(50), reader.next()).await.is_err());
        append(&queue, 2..3).await;
        let run = reader.next().await.unwrap();
        assert_eq!(numbers(&run), [0, 1, 2]);
        reader.settle(run, Outcome::Delivered);
        append(&queue, 3..10).await;
        let run = reader.next().await.unwrap();
        assert_eq!(numbers(&run), [3, 4, 5, 6, 7]);
        reader.settle(run, Outcome::Delivered);
        reader.set_options(ReaderOptions { items_min: u32::MAX, bytes_min: 10, ..patient });
        assert_eq!(numbers(&reader.next().await.unwrap()), [8, 9]);
    });
}

#[test]
fn a_run_ends_at_each_limit_and_at_each_change() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let queue = Queue::open(dir.path(), options()).unwrap();
        let options = ReaderOptions { items_max: 3, bytes_max: 1000, wait_max: Duration::ZERO, ..eager() };
        let many = |number, samples| NewRecord { counts: Counts::samples(samples), ..simple(number) };
        let records = vec![
            many(0, 1),
            many(1, 2),
            // Too many items for the run before; alone larger than any run may be.
            many(2, 9),
            // Too many bytes.
            numbered(3, 0, 1, 900),
            numbered(4, 0, 1, 200),
            NewRecord { encoding: 2, ..simple(5) },
            NewRecord { tenant: Some("a".into()), ..simple(6) },
            NewRecord { tenant: Some("".into()), ..simple(7) },
            numbered(8, 0, 1, 5000),
            simple(9),
        ];
        queue.append(records).await.unwrap();
        let reader = queue.reader("r", options);
        let mut runs = Vec::new();
        reader.flush();
        while let Some(run) = reader.next().await {
            runs.push(numbers(&run));
            reader.settle(run, Outcome::Delivered);
        }
        let expected: [&[u64]; 8] = [&[0, 1], &[2], &[3], &[4], &[5], &[6], &[7], &[8]];
        assert_eq!(runs[..8], expected);
        assert_eq!(runs[8..], [[9]]);
    });
}

#[test]
fn a_record_may_be_larger_than_what_is_read_at_once() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        for partitions in [1, 3] {
            let queue = Queue::open(&dir.path().join(partitions.to_string()), options()).unwrap();
            let chunk = crate::reader::CHUNK_BYTES;
            let lens = [10, chunk - 100, chunk, 3 * chunk, 20, 7 * chunk / 2, 30];
            for (number, len) in (0..).zip(lens) {
                queue.append(vec![numbered(number, 0, partitions, len)]).await.unwrap();
            }
            assert_eq!(drain(&queue.reader("r", eager())).await, [0, 1, 2, 3, 4, 5, 6]);
        }
    });
}

#[test]
fn a_run_that_is_not_full_waits_until_it_is() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let queue = Queue::open(dir.path(), options()).unwrap();
        let hour = Duration::from_secs(3600);
        let reader = queue.reader("r", ReaderOptions { items_max: 10, wait_max: hour, ..eager() });
        let waiting = tokio::spawn({
            let reader = reader.clone();
            async move { reader.next().await.map(|run| (numbers(&run), reader.settle(run, Outcome::Delivered)).0) }
        });
        append(&queue, 0..15).await;
        assert_eq!(waiting.await.unwrap().unwrap(), (0..10).collect::<Vec<_>>());
        // What waits an hour comes at once when the reader is flushed, or was created an hour ago.
        queue.shared().advance_clock(hour);
        let again = queue.reader("r", ReaderOptions { items_max: 10, wait_max: hour, ..eager() });
        assert_eq!(numbers(&again.next().await.unwrap()), (10..15).collect::<Vec<_>>());
        assert!(reader.next().await.is_none(), "a handle that was replaced ends");
        assert_eq!(drain(&queue.reader("r", ReaderOptions { wait_max: hour, ..eager() })).await.len(), 5);
    });
}

#[test]
fn partitions_are_handed_out_side_by_side_and_one_run_each() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let queue = Queue::open(dir.path(), options()).unwrap();
        let reader = queue.reader("r", ReaderOptions { items_max: 2, ..eager() });
        for number in 0..12 {
            queue.append(vec![numbered(number, (number % 3) as u16, 3, 50)]).await.unwrap();
        }
        let mut out = Vec::new();
        for _ in 0..3 {
            out.push(reader.next().await.unwrap());
        }
        out.sort_by_key(|run| run.partition);
        assert_eq!(out.iter().map(numbers).collect::<Vec<_>>(), [[0, 3], [1, 4], [2, 5]]);
        assert_eq!(reader.lag().in_flight.samples, 6);
        assert_eq!(reader.lag().pending.samples, 12);
        let second = out.remove(1);
        reader.settle(second, Outcome::Delivered);
        assert_eq!(numbers(&reader.next().await.unwrap()), [7, 10]);
    });
}

#[test]
fn records_of_another_number_of_partitions_wait_for_those_before() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let queue = Queue::open(dir.path(), options()).unwrap();
        let hour = Duration::from_secs(3600);
        let reader = queue.reader("r", ReaderOptions { wait_max: hour, ..eager() });
        queue.append(vec![numbered(0, 0, 2, 50), numbered(1, 1, 2, 50)]).await.unwrap();
        queue.append(vec![numbered(2, 0, 3, 50), numbered(3, 2, 3, 50)]).await.unwrap();
        // They wait for no deadline: no further record can join them.
        let first = reader.next().await.unwrap();
        let second = reader.next().await.unwrap();
        assert_eq!((first.partitions, second.partitions), (2, 2));
        reader.settle(first, Outcome::Delivered);
        assert_eq!(reader.stats().partitions, 2);
        reader.settle(second, Outcome::Delivered);
        reader.flush();
        let third = reader.next().await.unwrap();
        assert_eq!((third.partition, third.partitions, numbers(&third)), (0, 3, vec![2]));
        assert_eq!(numbers(&reader.next().await.unwrap()), [3]);
    });
}

#[test]
fn a_slow_partition_does_not_stop_another_within_the_room() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let queue = Queue::open(dir.path(), options()).unwrap();
        for number in 0..200 {
            queue.append(vec![numbered(number, (number % 2) as u16, 2, 2000)]).await.unwrap();
        }
        let reader = queue.reader("r", ReaderOptions { items_max: 10, ..eager() });
        let stuck = reader.next().await.unwrap();
        let mut delivered = 0;
        while delivered < 20 {
            let run = reader.next().await.unwrap();
            assert_ne!(run.partition, stuck.partition);
            delivered += run.records.len();
            reader.settle(run, Outcome::Delivered);
        }
        // Four runs of ten, and what one chunk of a file had more.
        assert!(reader.stats().memory_bytes < 40 * 2300 + crate::reader::CHUNK_BYTES * 2);
    });
}

#[test]
fn a_partition_whose_run_is_out_for_long_is_overtaken_and_then_goes_on_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let options = || Options { segment_bytes_max: 100_000, ..options() };
    let reader_options =
        || ReaderOptions { items_max: 10, bytes_max: 20_000, overtake_after: Some(Duration::ZERO), ..eager() };
    run(async {
        let queue = Queue::open(dir.path(), options()).unwrap();
        let reader = queue.reader("r", reader_options());
        // Far more than may be read ahead waits for the first of four partitions.
        let last = |number: u64| number % 100 == 99;
        let of = |number: u64| if last(number) { 1 + (number / 100 % 3) as u16 } else { 0 };
        for number in 0..1000 {
            queue.append(vec![numbered(number, of(number), 4, 2000)]).await.unwrap();
        }
        let stuck = reader.next().await.unwrap();
        assert_eq!(numbers(&stuck), (0..10).collect::<Vec<_>>());
        let mut delivered = Vec::new();
        while delivered.len() < 10 {
            let run = reader.next().await.unwrap();
            delivered.extend(numbers(&run));
            reader.settle(run, Outcome::Delivered);
            assert!(reader.stats().memory_bytes < 16 * 23_000 + crate::reader::CHUNK_BYTES);
        }
        delivered.sort_unstable();
        assert_eq!(delivered, (0..1000).filter(|number| last(*number)).collect::<Vec<_>>());
        assert_eq!(reader.lag().pending.records, 990);
        // What was overtaken comes again after a crash, and what overtook it does not.
        queue.abandon();
        let queue = Queue::open(dir.path(), options()).unwrap();
        let reader = queue.reader("r", reader_options());
        let mut delivered = Vec::new();
        for round in 0..99 {
            let run = reader.next().await.unwrap();
            delivered.extend(numbers(&run));
            // And others go on while the one that was stuck has much to catch up on.
            let number = 1000 + round;
            queue.append(vec![numbered(number, 1, 4, 2000)]).await.unwrap();
            let other = reader.next().await.unwrap();
            assert_eq!((other.partition, numbers(&other)), (1, vec![number]));
            reader.settle(other, Outcome::Delivered);
            reader.settle(run, Outcome::Delivered);
        }
        assert_eq!(delivered, (0..1000).filter(|number| !last(*number)).collect::<Vec<_>>());
        assert_eq!(reader.lag().pending.records, 0);
        assert!(reader.stats().dropped.is_empty());
        queue.close().await;
    });
}

#[test]
fn a_reader_goes_on_under_another_name_also_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let queue = Queue::open(dir.path(), options()).unwrap();
        let old = queue.reader("old", ReaderOptions { items_max: 2, ..eager() });
        append(&queue, 0..6).await;
        let settled = old.next().await.unwrap();
        old.settle(settled, Outcome::Delivered);
        let out = old.next().await.unwrap();
        assert!(queue.rename_reader("old", "new"));
        assert!(old.has_ended() && !queue.rename_reader("old", "newer"));
        old.settle(out, Outcome::Delivered);
        assert_eq!(queue.reader_names(), ["new"]);
        queue.abandon();
        let queue = Queue::open(dir.path(), options()).unwrap();
        assert_eq!(queue.reader_names(), ["new"]);
        let _other = queue.reader("other", eager());
        assert!(!queue.rename_reader("new", "other"), "there is one");
        assert_eq!(drain(&queue.reader("new", eager())).await, [2, 3, 4, 5]);
    });
}

#[test]
fn many_partitions_that_are_stuck_have_small_runs() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let queue = Queue::open(dir.path(), options()).unwrap();
        let overtaking = ReaderOptions { bytes_max: 1 << 20, overtake_after: Some(Duration::ZERO), ..eager() };
        let reader = queue.reader("r", overtaking);
        for partition in 0..64 {
            queue.append((0..40).map(|number| numbered(number, partition, 64, 30_000)).collect()).await.unwrap();
        }
        let mut stuck = Vec::new();
        while stuck.len() < 64 {
            stuck.push(reader.next().await.unwrap());
        }
        let large = stuck.iter().filter(|run| run.body_len() > 100_000).count();
        assert!((8..=9).contains(&large), "{large}");
        assert!(reader.stats().memory_bytes < 18 << 20, "{:?}", reader.stats());
        let mut next = vec![0; 64];
        let mut settle = |run: crate::Run| {
            for number in numbers(&run) {
                assert_eq!(number, next[usize::from(run.partition)]);
                next[usize::from(run.partition)] += 1;
            }
            reader.settle(run, Outcome::Delivered);
            next.iter().sum::<u64>()
        };
        let mut delivered = stuck.into_iter().map(&mut settle).max().unwrap();
        while delivered < 64 * 40 {
            delivered = settle(reader.next().await.unwrap());
        }
    });
}

#[test]
fn what_goes_of_a_partition_that_is_overtaken_is_counted_once() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let limits = Options { segment_bytes_max: 8192, bytes_max: 40_000, ..options() };
        let queue = Queue::open(dir.path(), limits).unwrap();
        let overtaking = ReaderOptions { items_max: 2, overtake_after: Some(Duration::ZERO), ..eager() };
        let reader = queue.reader("r", overtaking);
        queue.append(vec![numbered(0, 0, 2, 1000)]).await.unwrap();
        let stuck = reader.next().await.unwrap();
        for number in 1..100 {
            queue.append(vec![numbered(number, (number % 2) as u16, 2, 1000)]).await.unwrap();
            if number % 2 == 1 {
                let run = reader.next().await.unwrap();
                assert_eq!(numbers(&run), [number]);
                reader.settle(run, Outcome::Delivered);
            }
        }
        let stats = reader.stats();
        let dropped = dropped(&reader, reason::OVERFLOW).samples;
        assert_eq!(stats.delivered.samples, 50);
        assert!(dropped > 20, "{stats:?}");
        assert_eq!(dropped + reader.lag().pending.samples, 50);
        reader.settle(stuck, Outcome::Delivered);
        let rest = drain(&reader).await;
        assert_eq!(rest.len() as u64 + dropped + 1, 50);
        assert!(rest.is_sorted() && rest.iter().all(|number| number % 2 == 0));
        assert_eq!(reader.lag().pending.records, 0);
    });
}

#[test]
fn readers_have_their_own_cursors_and_a_new_one_starts_where_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let queue = Queue::open(dir.path(), options()).unwrap();
        let a = queue.reader("https://a:9090/api/v1/write", eager());
        append(&queue, 0..10).await;
        let newest = queue.reader("new", ReaderOptions { start: Start::Newest, ..eager() });
        append(&queue, 10..20).await;
        assert_eq!(drain(&a).await, (0..20).collect::<Vec<_>>());
        assert_eq!(drain(&newest).await, (10..20).collect::<Vec<_>>());
        assert_eq!(drain(&queue.reader("old", eager())).await, (0..20).collect::<Vec<_>>());
        append(&queue, 20..22).await;
        queue.close().await;

        let queue = Queue::open(dir.path(), options()).unwrap();
        let mut names = queue.reader_names();
        names.sort();
        assert_eq!(names, ["https://a:9090/api/v1/write", "new", "old"]);
        queue.remove_reader("old");
        // With a cursor, where to start says nothing.
        let a = queue.reader("https://a:9090/api/v1/write", ReaderOptions { start: Start::Newest, ..eager() });
        assert_eq!(a.lag().highest_delivered_ms, Some(20));
        assert_eq!(drain(&a).await, [20, 21]);
        assert_eq!(drain(&queue.reader("old", ReaderOptions { start: Start::Newest, ..eager() })).await, [0; 0]);
    });
}

#[test]
fn settle_counts_by_outcome_and_moves_the_lag() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let queue = Queue::open(dir.path(), options()).unwrap();
        let reader = queue.reader("r", eager());
        append(&queue, 0..3).await;
        assert_eq!(reader.lag().pending.samples, 3);
        assert_eq!((reader.lag().highest_appended_ms, reader.lag().highest_delivered_ms), (Some(3), None));
        let run = reader.next().await.unwrap();
        assert_eq!((run.counts().samples, run.raw_len(), run.body_len()), (3, 600, 300));
        assert_eq!(run.bodies().map(|body| number_of(&body)).collect::<Vec<_>>(), [0, 1, 2]);
        reader.settle_each(run, &[Outcome::Delivered, Outcome::Dropped("refused")]);
        assert_eq!((reader.stats().delivered.samples, dropped(&reader, "refused").samples), (1, 2));
        assert_eq!((reader.lag().pending.samples, reader.lag().highest_delivered_ms), (0, Some(1)));
        assert_eq!(reader.lag().oldest_created_ms, None);
        assert_eq!(queue.stats().dropped, [("refused", dropped(&reader, "refused"))]);
    });
}

#[test]
fn a_dropped_run_comes_again_and_a_released_one_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let queue = Queue::open(dir.path(), options()).unwrap();
        let reader = queue.reader("r", eager());
        append(&queue, 0..3).await;
        drop(reader.next().await.unwrap());
        let run = reader.next().await.unwrap();
        assert_eq!(numbers(&run), [0, 1, 2]);
        reader.release(run);
        assert_eq!((reader.stats().memory_bytes, reader.lag().in_flight.records), (0, 0));
        append(&queue, 3..5).await;
        reader.flush();
        assert!(reader.next().await.is_none(), "a partition whose run was released hands out nothing");
        assert_eq!(reader.lag().pending.samples, 5);
        queue.close().await;
        let queue = Queue::open(dir.path(), options()).unwrap();
        assert_eq!(drain(&queue.reader("r", eager())).await, [0, 1, 2, 3, 4]);
    });
}

#[test]
fn what_stands_behind_its_end_is_not_for_a_reader_also_after_reopening() {
    for (before, segment_bytes_max) in [(0, 4096), (3, 4096), (100, 4096), (100, 1 << 20)] {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { segment_bytes_max, ..options() };
        run(async {
            let queue = Queue::open(dir.path(), options.clone()).unwrap();
            let reader = queue.reader("r", eager());
            append(&queue, 0..before).await;
            assert_eq!(queue.end_of("r"), None);
            reader.end_at(queue.end());
            append(&queue, before..before + 100).await;
            if before == 3 {
                assert_eq!(drain(&reader).await, [0, 1, 2]);
                assert_eq!(reader.lag().pending.records, 0);
            }
            queue.close().await;
        });
        run(async {
            let queue = Queue::open(dir.path(), options).unwrap();
            let end = queue.end_of("r").unwrap();
            let reader = queue.reader("r", eager());
            reader.end_at(end);
            let rest = drain(&reader).await;
            assert_eq!(rest, if before == 3 { vec![] } else { (0..before).collect::<Vec<_>>() });
            assert_eq!(reader.lag().pending.records, 0);
            // Whoever takes the name again goes on behind the end.
            let reader = queue.reader("r", eager());
            assert_eq!(queue.end_of("r"), None);
            assert_eq!(drain(&reader).await, (before..before + 100).collect::<Vec<_>>());
            queue.close().await;
        });
    }
}

#[test]
fn a_dropped_call_of_next_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let queue = Queue::open(dir.path(), options()).unwrap();
        append(&queue, 0..100).await;
        let reader = queue.reader("r", ReaderOptions { items_max: 7, ..eager() });
        let mut all = Vec::new();
        while all.len() < 100 {
            tokio::select! {
                biased;
                () = tokio::task::yield_now() => {}
                run = reader.next() => {
                    let run = run.unwrap();
                    all.extend(numbers(&run));
                    reader.settle(run, Outcome::Delivered);
                }
            }
        }
        assert_eq!(all, (0..100).collect::<Vec<_>>());
    });
}

#[test]
fn a_directory_is_open_once_and_free_after_close() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let queue = Queue::open(dir.path(), options()).unwrap();
        let second = Queue::open(dir.path(), options()).unwrap_err();
        assert_eq!(
            (second.kind(), second.to_string().as_str()),
            (std::io::ErrorKind::ResourceBusy, "queue directory is in use")
        );
        let other = queue.clone();
        let reader = queue.reader("r", eager());
        queue.close().await;
        assert!(reader.next().await.is_none());
        assert!(matches!(other.append(vec![simple(0)]).await, Err(AppendError::Closed)));
        Queue::open(dir.path(), options()).unwrap();
    });
}

#[test]
fn a_queue_whose_handles_are_gone_closes_itself() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let queue = Queue::open(dir.path(), options()).unwrap();
        let reader = queue.reader("r", eager());
        append(&queue, 0..3).await;
        drop(queue);
        while reader.next().await.is_some() {}
        // The directory is given back when the last reader has ended.
        let mut queue = None;
        until(|| match Queue::open(dir.path(), options()) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => false,
            opened => queue.replace(opened.unwrap()).is_none(),
        })
        .await;
        let queue = queue.unwrap();
        assert_eq!(queue.stats().torn_tails, 0);
        assert_eq!(drain(&queue.reader("r", eager())).await, [0, 1, 2]);
    });
}

#[test]
fn records_that_contradict_themselves_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let queue = Queue::open(dir.path(), Options { bytes_max: 100_000, ..options() }).unwrap();
        let bad = [
            numbered(0, 1, 1, 10),
            numbered(0, 0, 0, 10),
            numbered(0, 0, 1025, 10),
            NewRecord { tenant: Some("x".repeat(1025).into()), ..simple(0) },
        ];
        for record in bad {
            let answer = queue.append(vec![simple(1), record]).await;
            assert!(matches!(answer, Err(AppendError::Invalid(_))), "{answer:?}");
        }
        let answer = queue.append(vec![numbered(0, 0, 1, 100_000)]).await;
        assert!(matches!(answer, Err(AppendError::TooLarge { bytes: 100_072, .. })), "{answer:?}");
        queue.append(Vec::new()).await.unwrap();
        assert_eq!(queue.stats().appended.records, 0);
    });
}

#[test]
fn settled_segments_go_when_they_are_old_enough_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let options = Options { segment_bytes_max: 4096, ..options() };
        let queue = Queue::open(dir.path(), options).unwrap();
        let a = queue.reader("a", eager());
        let b = queue.reader("b", ReaderOptions { items_max: 30, ..eager() });
        append(&queue, 0..100).await;
        let segments = queue.stats().segments;
        assert!(segments >= 4, "{segments}");
        drain(&a).await;
        let run = b.next().await.unwrap();
        b.settle(run, Outcome::Delivered);
        keeper::truncate(queue.shared(), Duration::ZERO);
        assert_eq!(queue.stats().segments, segments, "all are younger than five minutes");
        queue.shared().advance_clock(Duration::from_secs(301));
        keeper::truncate(queue.shared(), Duration::ZERO);
        let stats = queue.stats();
        assert_eq!((stats.segments, stats.truncated_segments), (segments - 1, 1), "the slower reader decides");
        assert_eq!(drain(&b).await, (30..100).collect::<Vec<_>>());
        assert_eq!(stats.disk_bytes, disk_bytes(dir.path()));
        keeper::truncate(queue.shared(), Duration::ZERO);
        assert_eq!(queue.stats().segments, 1, "only the one that is written is left");
        assert!(queue.stats().dropped.is_empty());
    });
}

fn disk_bytes(dir: &std::path::Path) -> u64 {
    let segments = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let segments = segments.filter(|path| path.extension().is_some_and(|extension| extension == "seg"));
    segments.map(|path| path.metadata().unwrap().len()).sum()
}

#[test]
fn many_callers_of_next_share_the_partitions() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let queue = Queue::open(dir.path(), options()).unwrap();
        let reader = queue.reader("r", ReaderOptions { items_max: 5, ..eager() });
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let reader = reader.clone();
                tokio::spawn(async move {
                    let mut all = Vec::new();
                    while let Some(run) = reader.next().await {
                        tokio::task::yield_now().await;
                        all.extend(numbers(&run));
                        reader.settle(run, Outcome::Delivered);
                    }
                    all
                })
            })
            .collect();
        for number in 0..500 {
            queue.append(vec![numbered(number, (number % 8) as u16, 8, 60)]).await.unwrap();
        }
        reader.flush();
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.unwrap());
        }
        all.sort_unstable();
        assert_eq!(all, (0..500).collect::<Vec<_>>());
    });
}
