//! The test starts itself again as a child that appends and settles, and kills it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use corten_queue::{Counts, NewRecord, Options, Outcome, Queue, Reader, ReaderOptions, Run, Start};

const DIR: &str = "CORTEN_QUEUE_TEST_DIR";
const FIRST: &str = "CORTEN_QUEUE_TEST_FIRST";
const PARTITIONS: u16 = 4;
const ITEMS_MAX: u32 = 7;

fn reader_options() -> ReaderOptions {
    ReaderOptions { items_max: ITEMS_MAX, wait_max: Duration::ZERO, start: Start::Oldest, ..ReaderOptions::default() }
}

fn options() -> Options {
    Options { segment_bytes_max: 64 << 10, sync_every: Duration::from_millis(20), ..Options::default() }
}

fn record(partition: u16, number: u64) -> NewRecord {
    let mut body = number.to_le_bytes().to_vec();
    body.extend((0..number % 997).map(|index| (index ^ number) as u8));
    NewRecord {
        encoding: 0,
        tenant: None,
        partition,
        partitions: PARTITIONS,
        counts: Counts::samples(1),
        lowest_ms: 0,
        highest_ms: 0,
        raw_len: 0,
        body: Bytes::from(body),
        hold: None,
    }
}

fn numbers(run: &Run) -> Vec<u64> {
    let number = |body: Bytes| {
        let number = u64::from_le_bytes(body[..8].try_into().expect("eight bytes"));
        assert_eq!(body, record(0, number).body);
        number
    };
    run.bodies().map(number).collect()
}

/// Past the test harness, which keeps what is printed; one write, so that lines are whole.
fn say(what: &str, partition: u16, numbers: &[u64]) {
    let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
    let line = format!("\n{what} {partition} {}\n", numbers.join(" "));
    std::io::stdout().lock().write_all(line.as_bytes()).expect("parent listens");
}

/// Appends and settles, and says so after each, until it is killed.
async fn child(dir: PathBuf, first: u64) {
    let queue = Queue::open(&dir, options()).expect("open");
    let reader = queue.reader("moving", reader_options());
    queue.reader("all", reader_options());
    for partition in 0..PARTITIONS {
        let queue = queue.clone();
        tokio::spawn(async move {
            let mut next = first;
            loop {
                let batch: Vec<u64> = (next..next + 1 + next % 5).collect();
                queue.append(batch.iter().map(|number| record(partition, *number)).collect()).await.expect("append");
                say("appended", partition, &batch);
                next += batch.len() as u64;
            }
        });
    }
    while let Some(run) = reader.next().await {
        let (partition, numbers) = (run.partition, numbers(&run));
        reader.settle(run, Outcome::Delivered);
        say("settled", partition, &numbers);
    }
}

type Seen = BTreeMap<u16, Vec<u64>>;

async fn drain(reader: &Reader) -> Seen {
    reader.flush();
    let mut seen = Seen::new();
    while let Some(run) = reader.next().await {
        seen.entry(run.partition).or_default().extend(numbers(&run));
        reader.settle(run, Outcome::Delivered);
    }
    seen
}

/// Kills a child after so many acknowledged appends; answers what it said that it appended and settled.
fn killed(dir: &Path, first: u64, appends: usize) -> (Seen, Seen) {
    let mut child = Command::new(std::env::current_exe().expect("own path"))
        .args(["--exact", "kill::what_was_acknowledged_survives_a_kill", "--nocapture"])
        .env(DIR, dir)
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("child starts");
    let (mut appended, mut settled) = (Seen::new(), Seen::new());
    let mut heard = 0;
    let mut lines = BufReader::new(child.stdout.take().expect("pipe"));
    let mut line = String::new();
    // The last line may have been cut by the kill; then nothing was promised.
    while {
        line.clear();
        lines.read_line(&mut line).expect("pipe")
    } > 0
        && line.ends_with('\n')
    {
        let mut words = line.split_whitespace();
        let seen = match words.next() {
            Some("appended") => {
                heard += 1;
                if heard == appends {
                    child.kill().expect("kill");
                }
                &mut appended
            }
            Some("settled") => &mut settled,
            _ => continue,
        };
        let mut words = words.map(|word| word.parse::<u64>().expect("number"));
        let partition = words.next().expect("partition") as u16;
        seen.entry(partition).or_default().extend(words);
    }
    assert!(heard >= appends, "the child ended by itself");
    child.wait().expect("child");
    (appended, settled)
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    if let (Some(dir), Ok(first)) = (std::env::var_os(DIR), std::env::var(FIRST)) {
        runtime.block_on(child(dir.into(), first.parse().expect("number")));
        return;
    }
    let dir = tempfile::tempdir().expect("directory");
    for round in 0..4u64 {
        let first = round * 1_000_000;
        let (appended, settled) = killed(dir.path(), first, 300 + 211 * round as usize);
        runtime.block_on(async {
            let queue = Queue::open(dir.path(), options()).expect("open");
            let all = drain(&queue.reader("all", reader_options())).await;
            let again = drain(&queue.reader("moving", reader_options())).await;
            let stats = queue.stats();
            assert_eq!((stats.damaged_records, stats.damaged_cursors), (0, 0), "{stats:?}");
            for partition in 0..PARTITIONS {
                let of = |seen: &Seen| seen.get(&partition).cloned().unwrap_or_default();
                let (all, again, appended, settled) = (of(&all), of(&again), of(&appended), of(&settled));
                // In order and without a hole; nobody but the child knows about the last ones.
                assert!(all.len() >= appended.len());
                assert_eq!(all[..appended.len()], appended, "partition {partition}");
                assert!(all.iter().copied().eq(first..first + all.len() as u64), "partition {partition}");
                // What was settled does not come again; the cursor may have moved without the child telling.
                assert!(again.iter().all(|number| !settled.contains(number)), "partition {partition}");
                let known: BTreeSet<u64> = settled.into_iter().chain(again).collect();
                let untold = all.iter().filter(|number| !known.contains(number)).count();
                assert!(untold <= ITEMS_MAX as usize, "partition {partition}: {untold}");
            }
            queue.close().await;
        });
    }
}
