//! Tests of the whole queue, by what they are about.

mod basics;
mod caps;
mod damage;
mod disk;
mod ledger;
mod memory;
mod model;

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use crate::storage::{Disk, Storage};
use crate::{Counts, Hold, NewRecord, Options, Outcome, Queue, Reader, ReaderOptions, Run, Start, Totals};

/// Runs a test on a runtime of its own; a test that hangs fails.
fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(180), test).await.expect("test hangs") })
}

/// Nothing happens by time alone.
fn options() -> Options {
    Options { sync_every: Duration::ZERO, ..Options::default() }
}

/// From the oldest record, without waiting.
fn eager() -> ReaderOptions {
    ReaderOptions { wait_max: Duration::ZERO, start: Start::Oldest, items_max: 100, ..ReaderOptions::default() }
}

/// A record that holds its number and then bytes that depend on it.
fn numbered(number: u64, partition: u16, partitions: u16, body_len: usize) -> NewRecord {
    let mut body = number.to_le_bytes().to_vec();
    body.extend((8..body_len.max(8)).map(|index| (index as u64 ^ number) as u8));
    NewRecord {
        encoding: 1,
        tenant: None,
        partition,
        partitions,
        counts: Counts::samples(1),
        lowest_ms: number as i64,
        highest_ms: number as i64 + 1,
        raw_len: 2 * body.len() as u32,
        body: Bytes::from(body),
        hold: None,
    }
}

/// Counts how often it is told.
#[derive(Debug, Default)]
struct Told(AtomicU64);

impl Told {
    fn new() -> Arc<Told> {
        Arc::default()
    }

    fn times(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Hold for Told {
    fn settled(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn simple(number: u64) -> NewRecord {
    numbered(number, 0, 1, 100)
}

/// The number in a body; fails if the body is not the one that was made from it.
fn number_of(body: &Bytes) -> u64 {
    let number = u64::from_le_bytes(body[..8].try_into().expect("eight bytes"));
    assert_eq!(*body, numbered(number, 0, 1, body.len()).body, "body of record {number}");
    number
}

fn numbers(run: &Run) -> Vec<u64> {
    run.records.iter().map(|record| number_of(&record.body)).collect()
}

async fn append(queue: &Queue, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        queue.append(vec![simple(number)]).await.expect("append");
    }
}

/// Everything that the reader has to hand out, each settled as delivered.
async fn drain(reader: &Reader) -> Vec<u64> {
    reader.flush();
    let mut all = Vec::new();
    while let Some(run) = reader.next().await {
        all.extend(numbers(&run));
        reader.settle(run, Outcome::Delivered);
    }
    all
}

fn dropped(reader: &Reader, reason: &str) -> Totals {
    reader.stats().dropped.iter().find(|(key, _)| *key == reason).map_or(Totals::default(), |(_, totals)| *totals)
}

/// Waits until `condition` holds; whoever calls has a limit on time around it.
async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A disk that can be full, and that counts what is read.
#[derive(Default)]
struct Faulty {
    /// How many bytes can still be written, if it is not `i64::MAX`.
    left: AtomicI64,
    reads: AtomicU64,
    read_bytes: AtomicU64,
    /// Reads to let fail.
    bad_reads: AtomicI64,
    /// Reads wait while it is shut.
    gate: AtomicBool,
}

impl Faulty {
    fn new() -> Arc<Faulty> {
        let faulty = Faulty::default();
        faulty.left.store(i64::MAX, Ordering::SeqCst);
        Arc::new(faulty)
    }

    fn fill(&self, left: i64) {
        self.left.store(left, Ordering::SeqCst);
    }

    fn clear(&self) {
        self.fill(i64::MAX);
    }
}

impl Storage for Faulty {
    fn write(&self, mut file: &File, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let left = self.left.load(Ordering::SeqCst);
        if left == i64::MAX {
            return Disk.write(file, slices);
        }
        if left <= 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        let written = file.write(&all[..all.len().min(left as usize)])?;
        self.left.fetch_sub(written as i64, Ordering::SeqCst);
        Ok(written)
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        Disk.create(path)
    }

    fn read(&self, file: &File, at: u64, len: usize) -> io::Result<Vec<u8>> {
        if self.bad_reads.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Err(io::Error::other("bad sector"));
        }
        let bytes = Disk.read(file, at, len)?;
        while self.gate.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.read_bytes.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        Ok(bytes)
    }
}
