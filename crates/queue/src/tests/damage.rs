//! Files that are not what was written.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Faulty, append, drain, dropped, eager, numbered, numbers, options, run, simple};
use crate::cursor::CursorFile;
use crate::format::{CURSOR_NAME_LEN, CURSOR_SLOT_LEN};
use crate::keeper;
use crate::{Options, Outcome, Queue, Reader, ReaderOptions, Start, reason};

const RECORDS: u64 = 8;

fn segments(dir: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|extension| extension == "seg")).collect();
    paths.sort();
    paths
}

/// A directory with one segment of a few records, closed or not.
async fn made(dir: &Path, closed: bool) -> PathBuf {
    let queue = Queue::open(dir, options()).unwrap();
    append(&queue, 0..RECORDS).await;
    if closed {
        queue.close().await;
    } else {
        queue.abandon();
    }
    segments(dir).remove(0)
}

#[test]
fn a_flipped_bit_anywhere_in_a_segment_costs_at_most_its_record_and_is_counted() {
    run(async {
        for closed in [true, false] {
            let made_dir = tempfile::tempdir().unwrap();
            let whole = fs::read(made(made_dir.path(), closed).await).unwrap();
            for at in 0..whole.len() {
                let dir = tempfile::tempdir().unwrap();
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << (at % 8);
                fs::write(dir.path().join("00000001.seg"), bytes).unwrap();
                let queue = Queue::open(dir.path(), options()).unwrap();
                let reader = queue.reader("r", eager());
                let mut all: BTreeSet<u64> = drain(&reader).await.into_iter().collect();
                // It is counted at once, and once.
                let dropped_first = dropped(&reader, reason::DAMAGED).samples;
                append(&queue, [RECORDS]).await;
                all.extend(drain(&reader).await);
                let lost: Vec<u64> = (0..=RECORDS).filter(|number| !all.contains(number)).collect();
                let stats = queue.stats();
                assert!(lost.len() <= 1, "byte {at}: lost {lost:?}");
                if !lost.is_empty() {
                    assert!(stats.damaged_bytes > 0, "byte {at}: {stats:?}");
                    assert!(stats.damaged_records + stats.torn_tails == 1, "byte {at}: {stats:?}");
                    if closed {
                        assert_eq!(dropped_first, 1, "byte {at}");
                        assert_eq!(dropped(&reader, reason::DAMAGED).samples, 1, "byte {at}");
                    }
                }
                assert_eq!(reader.lag().pending.records, 0, "byte {at}");
            }
        }
    });
}

#[test]
fn a_segment_that_was_cut_anywhere_gives_all_records_before_the_cut() {
    run(async {
        for closed in [true, false] {
            let made_dir = tempfile::tempdir().unwrap();
            let whole = fs::read(made(made_dir.path(), closed).await).unwrap();
            for len in 0..whole.len() {
                let dir = tempfile::tempdir().unwrap();
                fs::write(dir.path().join("00000001.seg"), &whole[..len]).unwrap();
                let queue = Queue::open(dir.path(), options()).unwrap();
                let reader = queue.reader("r", eager());
                append(&queue, [RECORDS]).await;
                let expected = (len.saturating_sub(64) / 172).min(RECORDS as usize) as u64;
                let mut all: Vec<u64> = (0..expected).collect();
                all.push(RECORDS);
                assert_eq!(drain(&reader).await, all, "cut at {len}");
                let whole_len = 64 + 172 * expected as usize;
                assert_eq!(queue.stats().torn_tails, u64::from(len > whole_len), "cut at {len}");
                queue.close().await;
                // It was mended.
                let queue = Queue::open(dir.path(), options()).unwrap();
                assert_eq!(queue.stats().torn_tails, 0, "cut at {len}");
            }
        }
    });
}

#[test]
fn two_readers_count_one_damage_once_and_each_what_it_loses() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let path = made(dir.path(), true).await;
        let mut bytes = fs::read(&path).unwrap();
        bytes[64 + 172 * 2 + 100] ^= 1;
        bytes[64 + 172 * 5 + 3] ^= 1;
        fs::write(&path, bytes).unwrap();
        let queue = Queue::open(dir.path(), options()).unwrap();
        let (a, b) = (queue.reader("a", eager()), queue.reader("b", eager()));
        append(&queue, [RECORDS]).await;
        assert_eq!(drain(&a).await, [0, 1, 3, 4, 6, 7, 8]);
        assert_eq!(drain(&b).await, [0, 1, 3, 4, 6, 7, 8]);
        let stats = queue.stats();
        assert_eq!((stats.damaged_records, stats.damaged_bytes), (2, 2 * 172));
        for reader in [a, b] {
            let lost = dropped(&reader, reason::DAMAGED);
            assert_eq!((lost.records, lost.samples, lost.bytes), (2, 2, 200));
        }
    });
}

/// What was there for a reader when it was made is what became of it since and what still waits.
fn assert_closes(reader: &Reader, what: &str) {
    let (stats, pending) = (reader.stats(), reader.lag().pending);
    let dropped: u64 = stats.dropped.iter().map(|(_, totals)| totals.samples).sum();
    let (came, went) = (stats.restored.samples + stats.appended.samples, stats.delivered.samples + dropped);
    assert_eq!(came, went + pending.samples, "{what}: {stats:?} {pending:?}");
}

#[test]
fn damage_to_what_was_settled_leaves_the_books_even() {
    run(async {
        for closed in [true, false] {
            let made_dir = tempfile::tempdir().unwrap();
            let queue = Queue::open(made_dir.path(), options()).unwrap();
            append(&queue, 0..RECORDS).await;
            for (name, settled) in [("none", 0), ("some", 3), ("most", 6)] {
                let reader = queue.reader(name, ReaderOptions { items_max: 1, ..eager() });
                for _ in 0..settled {
                    let run = reader.next().await.unwrap();
                    reader.settle(run, Outcome::Delivered);
                }
            }
            if closed {
                queue.close().await;
            } else {
                queue.abandon();
            }
            for damaged in 0..RECORDS {
                let dir = tempfile::tempdir().unwrap();
                for entry in fs::read_dir(made_dir.path()).unwrap() {
                    let path = entry.unwrap().path();
                    fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
                }
                let path = segments(dir.path()).remove(0);
                let mut bytes = fs::read(&path).unwrap();
                bytes[64 + 172 * damaged as usize + 3] ^= 1;
                fs::write(&path, bytes).unwrap();
                // The second time it is closed in any case.
                for life in 0..2 {
                    let queue = Queue::open(dir.path(), options()).unwrap();
                    for (name, settled) in [("none", 0), ("some", 3), ("most", 6)] {
                        let what = format!("closed {closed}, record {damaged}, life {life}, {name}");
                        let reader = queue.reader(name, eager());
                        assert_closes(&reader, &what);
                        let expected: Vec<u64> = (settled..RECORDS).filter(|number| *number != damaged).collect();
                        if life == 0 {
                            let run = reader.next().await;
                            assert_eq!(run.as_ref().map_or(Vec::new(), numbers), expected, "{what}");
                            assert_closes(&reader, &what);
                        } else {
                            assert_eq!(drain(&reader).await, expected, "{what}");
                            assert_eq!(reader.lag().pending.records, 0, "{what}");
                            assert_closes(&reader, &what);
                        }
                    }
                    queue.abandon();
                }
            }
        }
    });
}

#[test]
fn readers_beyond_the_end_of_what_is_left_have_even_books() {
    run(async {
        let made_dir = tempfile::tempdir().unwrap();
        let queue = Queue::open(made_dir.path(), options()).unwrap();
        append(&queue, 0..RECORDS).await;
        for (name, settled) in [("some", 3), ("more", 5), ("most", 6)] {
            let reader = queue.reader(name, ReaderOptions { items_max: 1, ..eager() });
            for _ in 0..settled {
                let run = reader.next().await.unwrap();
                reader.settle(run, Outcome::Delivered);
            }
        }
        queue.abandon();
        for left in 1..RECORDS {
            let dir = tempfile::tempdir().unwrap();
            for entry in fs::read_dir(made_dir.path()).unwrap() {
                let path = entry.unwrap().path();
                fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
            }
            let path = segments(dir.path()).remove(0);
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, &bytes[..64 + 172 * left as usize]).unwrap();
            for (name, settled) in [("some", 3), ("more", 5), ("most", 6)] {
                // What is known of what is lost is as much as whoever was furthest had settled.
                let lost = 6_u64.saturating_sub(left.max(settled));
                let queue = Queue::open(dir.path(), options()).unwrap();
                let what = format!("{left} left, {name}");
                let reader = queue.reader(name, eager());
                assert_closes(&reader, &what);
                assert_eq!(reader.stats().restored.samples, left.saturating_sub(settled) + lost, "{what}");
                if left <= 3 && name == "more" {
                    // All have settled what is left: it may go before anybody looks.
                    queue.shared().advance_clock(Duration::from_secs(301));
                    keeper::truncate(queue.shared(), Duration::ZERO);
                    assert_eq!(queue.stats().truncated_segments, 1, "{what}");
                    assert_closes(&reader, &what);
                }
                if left > settled {
                    let run = reader.next().await;
                    assert_eq!(run.as_ref().map_or(Vec::new(), numbers), (settled..left).collect::<Vec<_>>(), "{what}");
                    assert_closes(&reader, &what);
                    reader.settle(run.unwrap(), Outcome::Delivered);
                    assert_closes(&reader, &what);
                }
                assert_eq!(drain(&reader).await, [], "{what}");
                assert_eq!(
                    (reader.lag().pending.samples, dropped(&reader, reason::DAMAGED).samples),
                    (0, lost),
                    "{what}"
                );
                assert_closes(&reader, &what);
                queue.abandon();
            }
        }
    });
}

#[test]
fn damage_to_what_was_settled_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let queue = Queue::open(dir.path(), options()).unwrap();
        let reader = queue.reader("r", eager());
        queue.append(vec![numbered(0, 0, 2, 100), numbered(1, 1, 2, 100), numbered(2, 1, 2, 100)]).await.unwrap();
        let first = reader.next().await.unwrap();
        let second = reader.next().await.unwrap();
        assert_eq!((numbers(&first), numbers(&second)), (vec![0], vec![1, 2]));
        reader.settle(second, Outcome::Delivered);
        queue.abandon();
        let path = segments(dir.path()).remove(0);
        let mut bytes = fs::read(&path).unwrap();
        bytes[64 + 172 + 100] ^= 1;
        fs::write(&path, bytes).unwrap();
        let queue = Queue::open(dir.path(), options()).unwrap();
        let reader = queue.reader("r", eager());
        assert_eq!(drain(&reader).await, [0]);
        assert!(reader.stats().dropped.is_empty());
        assert_eq!(queue.stats().damaged_records, 1);
    });
}

#[test]
fn a_segment_that_vanished_is_skipped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let queue = Queue::open(dir.path(), Options { segment_bytes_max: 4096, ..options() }).unwrap();
        append(&queue, 0..100).await;
        fs::remove_file(&segments(dir.path())[1]).unwrap();
        let (a, b) = (queue.reader("a", eager()), queue.reader("b", eager()));
        let all = drain(&a).await;
        let lost = dropped(&a, reason::MISSING).samples;
        assert!(lost > 20 && all.len() as u64 + lost == 100, "{lost}");
        assert_eq!(drain(&b).await, all);
        assert_eq!(dropped(&b, reason::MISSING).samples, lost);
        assert_eq!(queue.stats().missing_segments, 1);
    });
}

#[test]
fn a_segment_of_another_version_is_passed_over_and_kept_if_nothing_of_it_is_understood() {
    run(async {
        for understood in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let path = made(dir.path(), true).await;
            let mut bytes = fs::read(&path).unwrap();
            bytes[8] = 2;
            let checksum = crc32c::crc32c(&bytes[..60]).to_le_bytes();
            bytes[60..64].copy_from_slice(&checksum);
            if !understood {
                bytes[64..].fill(b'?');
            }
            fs::write(&path, &bytes).unwrap();
            let queue = Queue::open(dir.path(), options()).unwrap();
            let reader = queue.reader("r", eager());
            append(&queue, [RECORDS]).await;
            assert_eq!(drain(&reader).await, [RECORDS]);
            assert_eq!(dropped(&reader, reason::DAMAGED).samples, if understood { RECORDS } else { 0 });
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
    });
}

#[test]
fn a_segment_that_cannot_be_read_does_not_stop_the_queue() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let path = made(dir.path(), true).await;
        let disk = Faulty::new();
        disk.bad_reads.store(2, Ordering::SeqCst);
        let queue = Queue::open_with(dir.path(), options(), disk).unwrap();
        append(&queue, [RECORDS]).await;
        assert_eq!(drain(&queue.reader("r", eager())).await, [RECORDS]);
        assert_eq!(queue.stats().read_errors, 1);
        assert!(path.exists());
    });
}

#[test]
fn files_that_are_not_the_queues_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["1.seg", "0000000x.seg", "note.txt", "99999999999999999999999.seg"] {
        fs::write(dir.path().join(name), "something").unwrap();
    }
    run(async {
        let queue = Queue::open(dir.path(), options()).unwrap();
        append(&queue, 0..3).await;
        assert_eq!(drain(&queue.reader("r", eager())).await, [0, 1, 2]);
        queue.close().await;
    });
    assert_eq!(fs::read(dir.path().join("1.seg")).unwrap(), b"something");
}

/// A queue of which the reader `r` has settled one run after the other; answers its cursor's file.
async fn with_cursor(dir: &Path) -> PathBuf {
    let queue = Queue::open(dir, options()).unwrap();
    let reader = queue.reader("r", ReaderOptions { items_max: 2, ..eager() });
    append(&queue, 0..RECORDS).await;
    for _ in 0..3 {
        let run = reader.next().await.unwrap();
        reader.settle(run, Outcome::Delivered);
    }
    queue.abandon();
    CursorFile::path(dir, "r")
}

#[test]
fn a_flipped_bit_in_a_cursor_repeats_at_most_one_run() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let path = with_cursor(dir.path()).await;
        let whole = fs::read(&path).unwrap();
        let slots = [CURSOR_NAME_LEN, CURSOR_NAME_LEN + CURSOR_SLOT_LEN];
        let used = (0..20).chain(slots.iter().flat_map(|slot| *slot..slot + 120));
        let mut seen = BTreeSet::new();
        for at in used {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            fs::write(&path, bytes).unwrap();
            let queue = Queue::open(dir.path(), options()).unwrap();
            assert_eq!(queue.reader_names(), ["r"], "byte {at}");
            assert_eq!(queue.stats().damaged_cursors, 0, "byte {at}");
            let reader = queue.reader("r", ReaderOptions { start: Start::Newest, ..eager() });
            let run = reader.next().await.unwrap();
            assert!(numbers(&run) == [6, 7] || numbers(&run) == [4, 5, 6, 7], "byte {at}: {:?}", numbers(&run));
            seen.insert(numbers(&run)[0]);
            queue.abandon();
        }
        assert_eq!(seen.len(), 2);
    });
}

#[test]
fn a_cursor_without_a_whole_slot_starts_with_the_oldest_and_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let path = with_cursor(dir.path()).await;
        let whole = fs::read(&path).unwrap();
        let mut bad: Vec<Vec<u8>> =
            [0, 10, CURSOR_NAME_LEN, CURSOR_NAME_LEN + 50].iter().map(|len| whole[..*len].to_vec()).collect();
        bad.push(vec![0; whole.len()]);
        bad.push(vec![0xFF; whole.len()]);
        for bytes in bad {
            fs::write(&path, &bytes).unwrap();
            let queue = Queue::open(dir.path(), options()).unwrap();
            assert_eq!(queue.stats().damaged_cursors, 1);
            let reader = queue.reader("r", ReaderOptions { start: Start::Newest, ..eager() });
            assert_eq!(drain(&reader).await, (0..RECORDS).collect::<Vec<_>>());
            queue.abandon();
            let queue = Queue::open(dir.path(), options()).unwrap();
            assert_eq!(queue.stats().damaged_cursors, 0, "settling has mended it");
            queue.abandon();
        }
    });
}

#[test]
fn a_cursor_ahead_of_the_log_hides_nothing_that_is_appended_later() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        with_cursor(dir.path()).await;
        // The machine lost power: the cursor reached the medium, the segment did not.
        fs::remove_file(segments(dir.path()).remove(0)).unwrap();
        let queue = Queue::open(dir.path(), options()).unwrap();
        let reader = queue.reader("r", eager());
        queue.append((10..14).map(simple).collect()).await.unwrap();
        assert_eq!(drain(&reader).await, [10, 11, 12, 13]);
    });
}
