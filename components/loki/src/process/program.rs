//! The compiled pipeline, and what drives entries through it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use corten_component::Logger;
use corten_component::metrics::{Counter, Registry, Vector};
use corten_signal::Ledger;
use corten_signal::acks::{Acks, Settle, Settled};
use corten_signal::ledger::{Row, reason_of};
use corten_signal::logs::{Entries, EntriesBuilder, Logs, LogsBatch, Sharing, Stream};
use corten_signal::{ConsumeError, Fanout};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Duration, Instant};

use super::stage::{Build as _, Compile, Emit, Held, Names, Next, Reason, Stage, StageError, Work};
use super::stages::StageConfig;
use super::work::Tally;

/// After how many entries others get a turn on the thread.
const ENTRIES_PER_TURN: usize = 512;

/// How long entries that passed may wait for those of their batch that wait at a stage. A part that went on is sent a second
/// time if the source ends before the rest has passed, so it goes on only if that takes longer.
const WITHHELD_MAX: Duration = Duration::from_secs(5);

/// How many workers are kept for the next batches.
const WORKERS_KEPT_MAX: usize = 4;

/// A stage in its place. Stages within a stage stand behind it.
struct Op {
    stage: Box<dyn Stage>,
    /// Of a stage with stages within: where entries go on that pass them by.
    behind: Option<usize>,
}

/// A compiled pipeline, with the state of its stages.
pub(super) struct Program {
    names: Arc<Names>,
    ops: Vec<Op>,
    ordered: bool,
    holds: bool,
    reasons: Vec<DropReason>,
    dropped: Vector<Counter>,
    /// Where it is counted what becomes of the entries.
    row: Arc<Row>,
    logger: Logger,
    empty: Stream,
    workers: Mutex<Vec<Worker>>,
    /// Batches of an ordered pipeline pass one after the other; a lock is fair.
    gate: tokio::sync::Mutex<()>,
    /// Told when a deadline may have come nearer.
    wake: Notify,
    closing: AtomicBool,
    closed: Notify,
}

/// Why stages drop entries.
struct DropReason {
    name: Box<str>,
    /// Nothing where the metric of dropped lines leaves it out.
    counter: Option<OnceLock<Counter>>,
}

/// What is counted as the reason of entries whose pipeline ended before they went on.
const SHUTDOWN: &str = "shutdown";
/// What is counted as the reason of entries whose sender gave up.
const GIVEN_UP: &str = "given up";
/// What is counted as the reason of entries that stages drop for too many reasons.
const OTHER: &str = "other";

/// What was done with entries while a batch passed, or while held ones went on.
#[derive(Debug, Default)]
struct Counts {
    /// Handed on.
    out: usize,
    held: i64,
    created: usize,
    merged: Vec<(&'static str, usize)>,
    /// By the place of the reason.
    dropped: Vec<usize>,
}

impl Counts {
    /// What was made, less what went on, was dropped or is kept: without a batch, what was kept before and is lost.
    fn lost(&self) -> i64 {
        let merged: usize = self.merged.iter().map(|(_, count)| count).sum();
        let dropped: usize = self.dropped.iter().sum();
        self.created as i64 - (self.out + merged + dropped) as i64 - self.held
    }
}

/// A worker that carries entries through a pipeline, and what is counted of that. Let go of without a word it has failed.
struct Run<'p> {
    program: &'p Program,
    /// Nothing once it has been given back.
    worker: Option<Worker>,
    counts: Counts,
    /// Whether it carries entries of a batch, which its sender sends again if that fails. If not, what was kept goes on.
    has_batch: bool,
    ended: bool,
}

impl<'p> Run<'p> {
    fn new(program: &'p Program, source: Arc<Entries>, acks: Acks, has_batch: bool) -> Self {
        let mut worker = program.worker();
        worker.work.begin(source, acks);
        Run { program, worker: Some(worker), counts: Counts::default(), has_batch, ended: false }
    }

    /// The worker is not needed any more. One that was not given back because its future was dropped had entries of its
    /// own, which have failed then.
    fn recycle(&mut self) {
        if let Some(mut worker) = self.worker.take() {
            self.counts = worker.take_counts();
            self.program.recycle(worker);
        }
    }

    /// It is known what became of the entries.
    fn end(mut self, outcome: Result<(), ConsumeError>) -> Result<(), ConsumeError> {
        self.finish(outcome.as_ref().err().map(reason_of));
        outcome
    }

    fn finish(&mut self, failed: Option<&'static str>) {
        self.ended = true;
        if let Some(mut worker) = self.worker.take() {
            self.counts = worker.take_counts();
        }
        let (row, counts) = (&*self.program.row, &self.counts);
        // What stages keep they keep, whatever becomes of the batch.
        row.held(counts.held);
        match failed {
            Some(reason) if self.has_batch => {
                let stays = counts.out as i64 + counts.held;
                if stays >= 0 {
                    row.pass().handed_on(stays as usize);
                } else {
                    row.dropped(reason, stays.unsigned_abs() as usize);
                }
                return;
            }
            Some(reason) => row.dropped(reason, usize::try_from(counts.lost()).unwrap_or(0)),
            None => {}
        }
        if counts.created > 0 {
            row.created("split", counts.created);
        }
        counts.merged.iter().for_each(|(stage, count)| row.merged(stage, *count));
        for (at, count) in counts.dropped.iter().enumerate().filter(|(_, count)| **count > 0) {
            let name = self.program.reasons.get(at).map_or(OTHER, |reason| &reason.name);
            row.dropped(name.to_owned(), *count);
        }
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.finish(Some(if self.has_batch { GIVEN_UP } else { SHUTDOWN }));
        }
    }
}

/// What carries entries through a pipeline.
struct Worker {
    work: Work,
    out: EntriesBuilder,
    /// Those of entries that were held before and go out now.
    out_acks: Acks,
    emit: Emit,
    /// Entries that go on at a stage, the next one last.
    pending: Vec<(usize, Held)>,
    /// How many entries it has handed on.
    handed_on: usize,
    /// How many it has dropped, by the place of the reason.
    dropped: Vec<usize>,
}

/// Why entries do not go on for the moment.
enum Halt {
    /// The entry that was loaded waits at a stage, so long.
    Wait { at: usize, wait: Duration },
    /// The batch that goes out is full, and entries are still pending.
    Full,
}

impl Program {
    /// Compiles a pipeline.
    ///
    /// # Errors
    ///
    /// The first stage that cannot be compiled.
    pub(super) fn new(
        stages: &[StageConfig],
        registry: &Registry,
        logger: &Logger,
        ledger: &Ledger,
    ) -> Result<Self, StageError> {
        let mut cx = Compile::new(registry, Some(logger));
        let mut ops = Vec::new();
        compile(stages, &mut cx, &mut ops)?;
        Self::of(ops, cx, logger, ledger)
    }

    /// As [`new`](Self::new), with a stage behind all others.
    #[cfg(test)]
    pub(super) fn with_last(
        stages: &[StageConfig],
        last: impl FnOnce(&mut Compile<'_>) -> Box<dyn Stage>,
        registry: &Registry,
        logger: &Logger,
        ledger: &Ledger,
    ) -> Result<Self, StageError> {
        let mut cx = Compile::new(registry, Some(logger));
        let mut ops = Vec::new();
        compile(stages, &mut cx, &mut ops)?;
        ops.push(Op { stage: last(&mut cx), behind: None });
        Self::of(ops, cx, logger, ledger)
    }

    fn of(ops: Vec<Op>, cx: Compile<'_>, logger: &Logger, ledger: &Ledger) -> Result<Self, StageError> {
        let holds = ops.iter().any(|op| op.stage.holds());
        let ordered = holds || ops.iter().any(|op| op.stage.ordered());
        let dropped = cx.registry().counters(
            "loki_process_dropped_lines_total",
            "A count of all log lines dropped as a result of a pipeline stage",
            &["reason"],
        );
        let empty = Stream::of([]).map_err(|error| StageError::of(&[], error.to_string()))?;
        let reasons = cx.reasons.into_iter();
        let reasons = reasons.map(|(name, counted)| DropReason { name, counter: counted.then(OnceLock::new) });
        Ok(Program {
            names: Arc::new(cx.names),
            ops,
            ordered,
            holds,
            reasons: reasons.collect(),
            dropped,
            row: Arc::clone(ledger.row_of::<Logs>()),
            logger: logger.clone(),
            empty,
            workers: Mutex::default(),
            gate: tokio::sync::Mutex::new(()),
            wake: Notify::new(),
            closing: AtomicBool::new(false),
            closed: Notify::new(),
        })
    }

    /// Whether time alone may make entries go on.
    pub(super) fn holds(&self) -> bool {
        self.holds
    }

    /// Carries a batch through and hands on what comes out. `Ok` means that all of it went on, was dropped on purpose or is
    /// held.
    ///
    /// # Errors
    ///
    /// Those of the receivers, and [`ConsumeError::Retry`] when the pipeline ended while entries waited.
    pub(super) async fn consume(&self, batch: LogsBatch, forward: &Fanout<Logs>) -> Result<(), ConsumeError> {
        if self.ops.is_empty() {
            return forward.consume(batch).await;
        }
        let gate = if self.ordered { Some(self.gate.lock().await) } else { None };
        let mut run = Run::new(self, Arc::clone(&batch.entries), batch.acks, true);
        let outcome = match &mut run.worker {
            Some(worker) => worker.run(self, &batch.entries, forward).await,
            None => Ok(LogsBatch::default()),
        };
        let out = match outcome {
            Ok(out) => out,
            Err(error) => return run.end(Err(error)),
        };
        run.recycle();
        if self.holds {
            self.wake.notify_one();
        }
        // What holds entries back also keeps the order in which they go on.
        let gate = gate.filter(|_| self.holds);
        let entries = out.entries.len();
        let mut answer = hand_on(out, forward).await;
        if answer.is_ok() {
            run.counts.out += entries;
        }
        if self.holds && self.closing.load(Ordering::Acquire) {
            // The batch came in when the pipeline had handed everything on already.
            let held = self.hand_on_held(forward, None).await;
            answer = held.and(answer);
        }
        drop(gate);
        run.end(answer)
    }

    /// When [`tick`](Self::tick) wants to be called.
    fn deadline(&self) -> Option<Instant> {
        self.ops.iter().filter_map(|op| op.stage.deadline()).min()
    }

    /// Waits until held entries are due. Never ready in a pipeline that is closed.
    pub(super) async fn due(&self) {
        loop {
            let wake = self.wake.notified();
            match self.deadline() {
                Some(deadline) if deadline <= Instant::now() => return,
                Some(deadline) => {
                    let _ = tokio::time::timeout_at(deadline, wake).await;
                }
                None => wake.await,
            }
        }
    }

    /// Hands on the held entries that are due.
    ///
    /// # Errors
    ///
    /// Those of the receivers.
    pub(super) async fn tick(&self, forward: &Fanout<Logs>) -> Result<(), ConsumeError> {
        let _gate = self.gate.lock().await;
        self.hand_on_held(forward, Some(Instant::now())).await
    }

    /// Hands on all held entries: the pipeline ends. Batches that still come in are not held back any more, and an entry
    /// that waits for a limit is given back.
    ///
    /// # Errors
    ///
    /// Those of the receivers.
    pub(super) async fn close(&self, forward: &Fanout<Logs>) -> Result<(), ConsumeError> {
        self.closing.store(true, Ordering::Release);
        self.closed.notify_waiters();
        let _gate = self.gate.lock().await;
        self.hand_on_held(forward, None).await
    }

    /// Hands on what is due at a time, or everything.
    async fn hand_on_held(&self, forward: &Fanout<Logs>, due: Option<Instant>) -> Result<(), ConsumeError> {
        let mut run = Run::new(self, Arc::default(), Acks::NONE, false);
        let outcome = match &mut run.worker {
            Some(worker) => worker.release(self, forward, due).await,
            None => Ok(LogsBatch::default()),
        };
        let out = match outcome {
            Ok(out) => out,
            Err(error) => return run.end(Err(error)),
        };
        run.recycle();
        let entries = out.entries.len();
        let outcome = hand_on_until_taken(out, forward).await;
        if outcome.is_ok() {
            run.counts.out += entries;
        }
        run.end(outcome)
    }

    /// How many entries the stages hold.
    pub(super) fn held(&self) -> usize {
        self.ops.iter().map(|op| op.stage.held()).sum()
    }

    fn worker(&self) -> Worker {
        self.workers.lock().pop().unwrap_or_else(|| Worker {
            work: Work::new(Arc::clone(&self.names), self.empty.clone()),
            out: EntriesBuilder::new(),
            out_acks: Acks::NONE,
            emit: Emit::default(),
            pending: Vec::new(),
            handed_on: 0,
            dropped: Vec::new(),
        })
    }

    fn recycle(&self, worker: Worker) {
        let mut workers = self.workers.lock();
        if workers.len() < WORKERS_KEPT_MAX {
            workers.push(worker);
        }
    }

    fn count_drop(&self, reason: Reason) {
        if let Some(DropReason { name, counter: Some(counter) }) = self.reasons.get(usize::from(reason.0)) {
            counter.get_or_init(|| self.dropped.with(&[name])).inc();
        }
    }

    /// Waits, unless the pipeline ends meanwhile.
    async fn pause(&self, wait: Duration) -> Result<(), ConsumeError> {
        let closed = self.closed.notified();
        tokio::pin!(closed);
        closed.as_mut().enable();
        let given_back = || ConsumeError::Retry { after: None, reason: "the pipeline ends".to_owned() };
        if self.closing.load(Ordering::Acquire) {
            return Err(given_back());
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => Ok(()),
            () = closed => Err(given_back()),
        }
    }
}

impl Drop for Program {
    /// What stages keep to the end has failed.
    fn drop(&mut self) {
        let left = self.held();
        self.row.held(-(left as i64));
        self.row.dropped(SHUTDOWN, left);
    }
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Program").field("stages", &self.ops.len()).finish_non_exhaustive()
    }
}

fn compile(stages: &[StageConfig], cx: &mut Compile<'_>, ops: &mut Vec<Op>) -> Result<(), StageError> {
    for stage in stages {
        let at = ops.len();
        ops.push(Op { stage: stage.build(cx)?, behind: None });
        if let Some(nested) = stage.nested() {
            compile(nested, cx, ops)?;
            ops[at].behind = Some(ops.len());
        }
    }
    Ok(())
}

/// Hands a batch on; an empty one is settled by what becomes of its entries, which were dropped or are held.
async fn hand_on(batch: LogsBatch, forward: &Fanout<Logs>) -> Result<(), ConsumeError> {
    if batch.entries.is_empty() {
        batch.acks.safe();
        return Ok(());
    }
    forward.consume(batch).await
}

/// How long it is tried to hand on what was held: whoever sent it may be unable to send it again.
const HELD_WAIT_MAX: Duration = Duration::from_secs(60);

/// The waits between the attempts.
const RETRY_WAIT_MIN: Duration = Duration::from_millis(50);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(5);

/// As [`hand_on`], again and again as long as the receiver asks for that.
async fn hand_on_until_taken(batch: LogsBatch, forward: &Fanout<Logs>) -> Result<(), ConsumeError> {
    let LogsBatch { entries, acks } = batch;
    let until = Instant::now() + HELD_WAIT_MAX;
    let mut wait = RETRY_WAIT_MIN;
    loop {
        // An attempt that is refused fails its own acks, not the sources'.
        let attempt = Arc::new(Attempt(Mutex::new(AttemptState { acks: acks.clone(), ..AttemptState::default() })));
        let own = Acks::new(0, Arc::clone(&attempt) as Arc<dyn Settle>);
        let outcome = hand_on(LogsBatch { entries: Arc::clone(&entries), acks: own }, forward).await;
        attempt.answered(outcome.is_ok());
        match outcome {
            Err(ConsumeError::Retry { after, .. }) if Instant::now() < until => {
                tokio::time::sleep(after.unwrap_or(wait)).await;
                wait = (wait * 2).min(RETRY_WAIT_MAX);
            }
            Ok(()) => {
                acks.safe();
                return Ok(());
            }
            Err(error) => {
                acks.fail();
                return Err(error);
            }
        }
    }
}

/// Tells the sources what became of an attempt to hand entries on, if it was taken.
struct Attempt(Mutex<AttemptState>);

#[derive(Default)]
struct AttemptState {
    acks: Acks,
    settled: Option<Settled>,
    taken: Option<bool>,
}

impl AttemptState {
    fn tell(&mut self) {
        match (self.settled, self.taken) {
            (Some(Settled::Failed), Some(true)) => std::mem::take(&mut self.acks).fail(),
            (Some(_), Some(_)) => std::mem::take(&mut self.acks).safe(),
            _ => {}
        }
    }
}

impl Attempt {
    fn answered(&self, taken: bool) {
        let mut state = self.0.lock();
        state.taken = Some(taken);
        if !taken {
            state.settled.get_or_insert(Settled::Failed);
        }
        state.tell();
    }
}

impl Settle for Attempt {
    fn settled(&self, _: u64, how: Settled) {
        let mut state = self.0.lock();
        state.settled = Some(how);
        state.tell();
    }

    fn held(&self, _: u64) {
        self.0.lock().acks.hold();
    }
}

impl Worker {
    /// Carries the entries of a batch through. What comes back goes out last.
    async fn run(
        &mut self,
        program: &Program,
        entries: &Entries,
        forward: &Fanout<Logs>,
    ) -> Result<LogsBatch, ConsumeError> {
        let mut sharing = self.out.share_text(entries.text());
        let mut left = ENTRIES_PER_TURN;
        let (mut began, mut handed_on) = (Instant::now(), false);
        for (stream, list) in entries.parts() {
            for entry in list {
                if !self.work.is_at(stream) {
                    self.work.begin_stream(stream);
                }
                self.work.load(stream, entry);
                let mut halt = self.advance(program, Some(0), &sharing);
                loop {
                    let is_late =
                        matches!(halt, Some(Halt::Wait { wait, .. }) if began.elapsed() + wait >= WITHHELD_MAX);
                    if self.out.is_full() || (is_late && !self.out.is_empty()) {
                        let batch = self.cut(entries.created_ms());
                        let cut = batch.entries.len();
                        hand_on(batch, forward).await?;
                        self.handed_on += cut;
                        sharing = self.out.share_text(entries.text());
                        (began, handed_on) = (Instant::now(), true);
                    }
                    let at = match halt {
                        None => break,
                        Some(Halt::Full) => None,
                        Some(Halt::Wait { at, wait }) => match program.pause(wait).await {
                            Ok(()) => Some(at),
                            // What went on must not come a second time with the rest, which waits no longer then.
                            Err(_) if handed_on => Some(at + 1),
                            Err(error) => return Err(error),
                        },
                    };
                    halt = self.advance(program, at, &sharing);
                }
                left -= 1;
                if left == 0 {
                    left = ENTRIES_PER_TURN;
                    tokio::task::yield_now().await;
                }
            }
        }
        Ok(self.finish(program, entries.created_ms()))
    }

    /// Carries the held entries on that are due at a time, or all. What comes back goes out last.
    async fn release(
        &mut self,
        program: &Program,
        forward: &Fanout<Logs>,
        due: Option<Instant>,
    ) -> Result<LogsBatch, ConsumeError> {
        for (at, op) in program.ops.iter().enumerate().filter(|(_, op)| op.stage.holds()) {
            match due {
                Some(now) => op.stage.flush(now, &mut self.emit),
                None => op.stage.close(&mut self.emit),
            }
            self.push_emitted(at + 1);
            if let Some((at, held)) = self.pending.pop() {
                self.work.load_held(held);
                self.carry(program, at, forward, due.is_none()).await?;
            }
        }
        Ok(self.finish(program, 0))
    }

    /// What was counted since the last time.
    fn take_counts(&mut self) -> Counts {
        let Tally { held, merged } = std::mem::take(&mut self.work.tally);
        Counts {
            out: std::mem::take(&mut self.handed_on),
            held: held - std::mem::take(&mut self.emit.released) as i64,
            created: std::mem::take(&mut self.emit.created),
            merged,
            dropped: std::mem::take(&mut self.dropped),
        }
    }

    fn count_drop(&mut self, program: &Program, reason: Reason) {
        program.count_drop(reason);
        // What has no place of its own is counted behind all that have.
        let at = usize::from(reason.0).min(program.reasons.len());
        if self.dropped.is_empty() {
            self.dropped.resize(program.reasons.len() + 1, 0);
        }
        self.dropped[at] += 1;
    }

    /// Carries the entry that was loaded, and those that are pending, to their ends. `closing`: nobody waits any more.
    async fn carry(
        &mut self,
        program: &Program,
        at: usize,
        forward: &Fanout<Logs>,
        closing: bool,
    ) -> Result<(), ConsumeError> {
        let sharing = Sharing::default();
        let mut halt = self.advance(program, Some(at), &sharing);
        loop {
            if self.out.is_full() {
                let batch = self.cut(0);
                let cut = batch.entries.len();
                hand_on_until_taken(batch, forward).await?;
                self.handed_on += cut;
            }
            let at = match halt {
                None => return Ok(()),
                Some(Halt::Full) => None,
                Some(Halt::Wait { at, wait }) => {
                    if closing {
                        tokio::time::sleep(wait).await;
                    } else {
                        program.pause(wait).await?;
                    }
                    Some(at)
                }
            };
            halt = self.advance(program, at, &sharing);
        }
    }

    /// Carries the entry that was loaded on from a stage, if there is one, and then all that came of it, until one has to
    /// wait.
    fn advance(&mut self, program: &Program, mut at: Option<usize>, sharing: &Sharing) -> Option<Halt> {
        loop {
            if let Some(at) = at
                && let Some((at, wait)) = self.pass(program, at, sharing)
            {
                return Some(Halt::Wait { at, wait });
            }
            if self.out.is_full() && !self.pending.is_empty() {
                return Some(Halt::Full);
            }
            let (next, held) = self.pending.pop()?;
            self.work.load_held(held);
            at = Some(next);
        }
    }

    /// Carries one entry to its end, or to where it has to let others pass first, which are pending then, with it. Where it
    /// has to wait itself: at which stage, and how long.
    fn pass(&mut self, program: &Program, mut at: usize, sharing: &Sharing) -> Option<(usize, Duration)> {
        while let Some(op) = program.ops.get(at) {
            let next = op.stage.run(&mut self.work, &mut self.emit);
            match next {
                Next::Keep => {
                    at += 1;
                    if op.behind.is_some() {
                        self.work.extract_labels();
                    }
                }
                Next::Skip => at = op.behind.unwrap_or(at + 1),
                Next::Drop(reason) => {
                    self.count_drop(program, reason);
                    self.work.drop_entry();
                }
                Next::Held => {}
                Next::Wait(wait) => return Some((at, wait)),
            }
            let goes_on = matches!(next, Next::Keep | Next::Skip);
            if !self.emit.list.is_empty() {
                if goes_on {
                    let held = self.work.set_aside();
                    self.pending.push((at, held));
                }
                self.push_emitted(if goes_on { at } else { at + 1 });
                return None;
            }
            if !goes_on {
                return None;
            }
        }
        self.work.finish(&mut self.out, sharing, &mut self.out_acks);
        None
    }

    /// Puts what a stage emitted in front of all that is pending.
    fn push_emitted(&mut self, at: usize) {
        self.pending.extend(self.emit.list.drain(..).rev().map(|held| (at, held)));
    }

    /// What went out so far, with a share of the batch's acks.
    fn cut(&mut self, created_ms: i64) -> LogsBatch {
        let mut acks = std::mem::take(&mut self.out_acks);
        acks.join(self.work.batch_acks());
        LogsBatch { entries: Arc::new(self.out.finish(created_ms)), acks }
    }

    /// What went out, with the batch's acks.
    fn finish(&mut self, program: &Program, created_ms: i64) -> LogsBatch {
        let (mut acks, refused) = self.work.end();
        acks.join(std::mem::take(&mut self.out_acks));
        if refused > 0 {
            let message = "labels were not changed because the label set would be too large";
            program.logger.warn(message, &[("entries", refused.into())]);
        }
        LogsBatch { entries: Arc::new(self.out.finish(created_ms)), acks }
    }
}
