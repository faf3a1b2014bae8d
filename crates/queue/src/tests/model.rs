//! Random operations on a queue and on a list that does the same.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use proptest::prelude::*;

use super::{Faulty, Told, eager, number_of, numbered, options, run, until};
use crate::{Options, Outcome, Queue, Reader, ReaderOptions, Run, keeper};

const READERS: usize = 2;

#[derive(Clone, Debug)]
enum Op {
    /// Partition (of the current number), length of the body, tenant.
    Append(Vec<(u16, usize, bool)>),
    Partitions(u16),
    Next(usize),
    Settle(usize, usize),
    /// Drop a run, as a task that panics does.
    Forget(usize, usize),
    Release(usize, usize),
    Replace(usize),
    Crash,
    Close,
    Truncate,
    /// The disk is full after this many bytes.
    Full(u16),
    /// It is not full any more.
    Space,
}

fn op() -> impl Strategy<Value = Op> {
    let record = (any::<u16>(), prop_oneof![4 => 8..300usize, 1 => 300..3000usize], proptest::bool::weighted(0.2));
    prop_oneof![
        8 => prop::collection::vec(record, 1..6).prop_map(Op::Append),
        1 => (1..5u16).prop_map(Op::Partitions),
        10 => (0..READERS).prop_map(Op::Next),
        8 => (0..READERS, any::<usize>()).prop_map(|(reader, which)| Op::Settle(reader, which)),
        1 => (0..READERS, any::<usize>()).prop_map(|(reader, which)| Op::Forget(reader, which)),
        1 => (0..READERS, any::<usize>()).prop_map(|(reader, which)| Op::Release(reader, which)),
        1 => (0..READERS).prop_map(Op::Replace),
        1 => Just(Op::Crash),
        1 => Just(Op::Close),
        1 => Just(Op::Truncate),
        1 => (0..3000u16).prop_map(Op::Full),
        2 => Just(Op::Space),
    ]
}

/// A record as the model knows it.
struct Logged {
    partition: u16,
    partitions: u16,
    tenant: bool,
    hold: Arc<Told>,
    /// What its append said.
    durable: bool,
}

#[derive(Default)]
struct ReaderModel {
    settled: Vec<bool>,
    /// By partition; without a run where it was released.
    out: BTreeMap<u16, Option<Run>>,
}

impl ReaderModel {
    /// The numbers that come next in each partition of the oldest number of partitions that is not settled.
    fn next(&self, log: &[Logged]) -> BTreeMap<u16, Vec<u64>> {
        let mut next: BTreeMap<u16, Vec<u64>> = BTreeMap::new();
        let mut partitions = None;
        for (number, logged) in log.iter().enumerate().filter(|(number, _)| !self.settled[*number]) {
            if *partitions.get_or_insert(logged.partitions) != logged.partitions {
                break;
            }
            next.entry(logged.partition).or_default().push(number as u64);
        }
        next
    }
}

struct World<'a> {
    dir: &'a Path,
    storage: Arc<Faulty>,
    reader_options: ReaderOptions,
    queue: Option<Queue>,
    readers: Vec<Reader>,
    models: Vec<ReaderModel>,
    log: Vec<Logged>,
    partitions: u16,
    /// How many records were there when the disk last took everything.
    saved: usize,
}

impl World<'_> {
    fn open(&mut self) {
        let options = Options { segment_bytes_max: 4096, keep_settled_min: Duration::ZERO, ..options() };
        let queue = Queue::open_with(self.dir, options, self.storage.clone()).expect("open");
        self.readers =
            (0..READERS).map(|index| queue.reader(&format!("reader {index}"), self.reader_options.clone())).collect();
        for model in &mut self.models {
            model.out.clear();
        }
        self.queue = Some(queue);
    }

    fn queue(&self) -> &Queue {
        self.queue.as_ref().expect("queue is open")
    }

    async fn make_space(&mut self) {
        self.storage.clear();
        until(|| self.queue().stats().degraded.is_none()).await;
        self.saved = self.log.len();
    }

    /// Who holds a record is told when it is safe, and only if its append did not say so.
    fn check_holds(&self) {
        let mut all_settled = true;
        for (number, logged) in self.log.iter().enumerate() {
            let is_settled = self.models.iter().all(|model| model.settled[number]);
            all_settled &= is_settled;
            let told = logged.hold.times();
            match logged.durable {
                true => assert_eq!(told, 0, "record {number} was durable"),
                false if number < self.saved || all_settled => assert_eq!(told, 1, "record {number} is safe"),
                false => assert!(told == 0 || told == 1 && is_settled, "record {number} is not safe, told {told}"),
            }
        }
    }

    /// Whether the model is sure that the reader hands out a run without anything more happening.
    fn is_available(&self, index: usize) -> bool {
        let model = &self.models[index];
        let next = model.next(&self.log);
        let Some((_, first)) = next.iter().min_by_key(|(_, numbers)| numbers[0]) else { return false };
        let partitions = usize::from(self.log[first[0] as usize].partitions);
        let room = 2 * partitions * self.reader_options.items_max as usize;
        next.iter().any(|(partition, numbers)| {
            let before = next.values().flatten().filter(|number| **number < numbers[0]).count();
            !model.out.contains_key(partition) && before < room
        })
    }

    async fn next(&mut self, index: usize) -> Option<usize> {
        let run = self.readers[index].next().await?;
        let expected = self.models[index].next(&self.log);
        let numbers: Vec<u64> = run.records.iter().map(|record| number_of(&record.body)).collect();
        assert!(!numbers.is_empty());
        assert!(!self.models[index].out.contains_key(&run.partition), "two runs of a partition are out");
        let expected = expected.get(&run.partition).expect("partition has records");
        assert_eq!(numbers, expected[..numbers.len()], "order of partition {}", run.partition);
        for number in &numbers {
            let logged = &self.log[*number as usize];
            assert_eq!((logged.partition, logged.partitions), (run.partition, run.partitions));
            assert_eq!(logged.tenant, run.tenant().is_some());
        }
        assert!(numbers.len() <= self.reader_options.items_max as usize);
        let len = numbers.len();
        self.models[index].out.insert(run.partition, Some(run));
        Some(len)
    }

    fn settle(&mut self, index: usize, partition: u16) {
        let model = &mut self.models[index];
        if let Some(Some(run)) = model.out.remove(&partition) {
            for record in &run.records {
                model.settled[number_of(&record.body) as usize] = true;
            }
            self.readers[index].settle(run, Outcome::Delivered);
        }
    }

    fn check_lag(&self) {
        for (reader, model) in self.readers.iter().zip(&self.models) {
            let unsettled = model.settled.iter().filter(|settled| !**settled).count() as u64;
            let lag = reader.lag();
            // What a partition settled ahead of another is known to be settled only when it is read again.
            assert!(lag.pending.samples >= unsettled, "{lag:?} of {unsettled}");
            assert!(lag.pending.samples <= model.settled.len() as u64, "{lag:?} of {unsettled}");
        }
    }

    async fn apply(&mut self, op: Op) {
        match op {
            Op::Append(records) => {
                let mut batch = Vec::new();
                for (partition, len, tenant) in records {
                    let partition = partition % self.partitions;
                    let mut record = numbered(self.log.len() as u64, partition, self.partitions, len);
                    record.tenant = tenant.then(|| "someone".into());
                    let hold = Told::new();
                    record.hold = Some(hold.clone());
                    batch.push(record);
                    self.log.push(Logged { partition, partitions: self.partitions, tenant, hold, durable: false });
                    for model in &mut self.models {
                        model.settled.push(false);
                    }
                }
                let len = batch.len();
                let durable = self.queue().append(batch).await.expect("append").durable;
                self.log.iter_mut().rev().take(len).for_each(|logged| logged.durable = durable);
            }
            Op::Partitions(partitions) => self.partitions = partitions,
            Op::Next(index) => {
                if self.is_available(index) {
                    self.next(index).await.expect("a run");
                }
            }
            Op::Settle(index, which) => {
                if let Some(partition) = pick(&self.models[index], which) {
                    self.settle(index, partition);
                }
            }
            Op::Forget(index, which) => {
                if let Some(partition) = pick(&self.models[index], which) {
                    self.models[index].out.remove(&partition);
                }
            }
            Op::Release(index, which) => {
                if let Some(partition) = pick(&self.models[index], which) {
                    let run = self.models[index].out.insert(partition, None).flatten().expect("run");
                    self.readers[index].release(run);
                }
            }
            Op::Replace(index) => {
                let old = self.models[index].out.values_mut().next().and_then(Option::take);
                let name = self.readers[index].name().to_owned();
                self.readers[index] = self.queue().reader(&name, self.reader_options.clone());
                self.models[index].out.clear();
                if let Some(old) = old {
                    // It belongs to the handle that is no more, and changes nothing.
                    self.readers[index].settle(old, Outcome::Delivered);
                }
            }
            Op::Crash => {
                self.make_space().await;
                self.queue.take().expect("queue is open").abandon();
                self.open();
            }
            Op::Close => {
                self.make_space().await;
                self.queue.take().expect("queue is open").close().await;
                self.open();
            }
            Op::Truncate => keeper::truncate(self.queue().shared(), Duration::ZERO),
            // What was full does not take more: the model would not know what of it is safe.
            Op::Full(left) => self.storage.fill(self.storage.left.load(Ordering::SeqCst).min(i64::from(left))),
            Op::Space => self.make_space().await,
        }
    }
}

fn pick(model: &ReaderModel, which: usize) -> Option<u16> {
    let out: Vec<u16> = model.out.iter().filter(|(_, run)| run.is_some()).map(|(partition, _)| *partition).collect();
    (!out.is_empty()).then(|| out[which % out.len()])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_record_is_handed_out_in_order_until_it_is_settled(
        ops in prop::collection::vec(op(), 1..80),
        items_max in 1..6u32,
        overtakes in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().expect("directory");
        run(async {
            let mut world = World {
                dir: dir.path(),
                storage: Faulty::new(),
                reader_options: ReaderOptions { items_max, overtake_after: overtakes.then_some(Duration::ZERO), ..eager() },
                queue: None,
                readers: Vec::new(),
                models: (0..READERS).map(|_| ReaderModel::default()).collect(),
                log: Vec::new(),
                partitions: 2,
                saved: 0,
            };
            world.open();
            for op in ops {
                world.apply(op).await;
                world.check_lag();
                world.check_holds();
            }
            world.apply(Op::Crash).await;
            for index in 0..READERS {
                world.readers[index].flush();
                while world.next(index).await.is_some() {
                    let partition = *world.models[index].out.keys().next().expect("run");
                    world.settle(index, partition);
                }
                assert!(world.models[index].settled.iter().all(|settled| *settled), "records were lost");
                assert!(world.readers[index].stats().dropped.is_empty());
                assert_eq!(world.readers[index].lag().pending.records, 0);
            }
            let stats = world.queue().stats();
            assert_eq!((stats.damaged_records, stats.damaged_bytes, stats.torn_tails), (0, 0, 0));
            world.queue.take().expect("queue is open").close().await;
            // Everything is settled and nothing has to be kept.
            let left = std::fs::read_dir(dir.path()).expect("list").filter(|entry| {
                entry.as_ref().expect("entry").path().extension().is_some_and(|extension| extension == "seg")
            });
            assert_eq!(left.count(), 0);
        });
    }
}
