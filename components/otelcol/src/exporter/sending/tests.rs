//! Whatever happens, what came is delivered, dropped or waits.

use corten_component::Definition;
use corten_signal::ledger::{Row, RowSnapshot};
use corten_signal::{Receiver, Signal};
use corten_testkit::{Unit, World, host};
use proptest::prelude::*;

use super::super::debug::DebugExporter;
use super::super::queue::BatchArguments;
use super::super::testing::{end_line, logs};
use super::*;
use crate::auth::Handler;
use crate::flow::Inlets;
use crate::storage::file::FileStorage;

/// How long anything may take that is waited for.
const LIMIT: Duration = Duration::from_secs(120);

/// What becomes of an attempt.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Takes,
    /// All but one item.
    Rejects,
    Fails,
    Refuses,
    /// Not before some time.
    Late,
}

/// Does with each attempt what it is told, one after the other, and then takes all.
struct Scripted {
    answers: Mutex<Vec<Answer>>,
    /// Whether it hands batches on to others of the component, one item in each attempt that does not take all.
    hands_on: bool,
    row: Arc<Row>,
}

impl Push<OtlpLogs> for Scripted {
    fn attempt<'a>(self: Arc<Self>, attempt: &'a mut Attempt<OtlpLogs>) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let answer = self.answers.lock().pop().unwrap_or(Answer::Takes);
            tokio::task::yield_now().await;
            let hand_on = |attempt: &mut Attempt<OtlpLogs>, items: usize| {
                if self.hands_on {
                    let front = attempt.batch.take_front(items);
                    self.row.out(front.items());
                    attempt.handed_on.add(front.items());
                }
            };
            match answer {
                Answer::Late => tokio::time::sleep(Duration::from_millis(5)).await,
                Answer::Fails => {
                    hand_on(attempt, 1);
                    return Err(Failure::passing("busy"));
                }
                Answer::Refuses => {
                    hand_on(attempt, 1);
                    return Err(Failure::permanent("no"));
                }
                Answer::Rejects if self.hands_on => {
                    attempt.unroutable += attempt.batch.take_front(1).items();
                }
                Answer::Rejects => attempt.rejected = attempt.batch.items().min(1),
                Answer::Takes => {}
            }
            hand_on(attempt, usize::MAX);
            Ok(())
        })
    }

    fn hands_on(&self) -> bool {
        self.hands_on
    }

    fn reads_context(&self) -> bool {
        false
    }

    fn server(&self) -> ServerName<'_> {
        ServerName::default()
    }

    fn url(&self) -> String {
        String::new()
    }
}

#[derive(Clone, Debug)]
enum Op {
    Send(usize),
    /// Whoever sends it does not wait for the outcome.
    GiveUp(usize),
    Reload(usize),
    Wait,
}

/// The queues that there are: none, in memory, with waiting for the outcome, full after a few, joining, and on disk.
const QUEUES: usize = 7;

fn queue(which: usize, storage: &Handler) -> QueueArguments {
    let queue = QueueArguments { num_consumers: 2, ..QueueArguments::default() };
    let joined =
        BatchArguments { flush_timeout: Duration::from_millis(2), min_size: 4, max_size: 3, sizer: "items".to_owned() };
    match which {
        0 => QueueArguments { enabled: false, ..queue },
        1 => queue,
        2 => QueueArguments { wait_for_result: true, ..queue },
        3 => QueueArguments { queue_size: 3, sizer: "items".to_owned(), ..queue },
        4 => QueueArguments { batch: Some(joined), wait_for_result: true, ..queue },
        5 => QueueArguments { storage: Some(storage.clone()), ..queue },
        _ => QueueArguments { storage: Some(storage.clone()), batch: Some(joined), block_on_overflow: true, ..queue },
    }
}

async fn storage(world: &World) -> Handler {
    let body = format!("directory = {:?}", world.path("storage").display().to_string());
    let unit = Unit::start(host("otelcol.storage.file.a"), &Definition::of::<FileStorage>(), &body).await.unwrap();
    let exports = unit.world.exports();
    let handler = exports.last().and_then(|exports| exports.field("handler")).unwrap();
    handler.as_capsule().unwrap().as_any().downcast_ref::<Handler>().unwrap().clone()
}

/// An exporter in the middle of its life.
struct Exporter {
    world: World,
    inlets: Arc<Inlets>,
    sending: Option<Sending>,
    storage: Handler,
    push: Arc<Scripted>,
}

impl Exporter {
    async fn start(answers: Vec<Answer>, hands_on: bool, which: usize) -> Self {
        let world = host("otelcol.exporter.otlp.a");
        let cx = world.context::<DebugExporter>();
        let inlets = Inlets::of(cx.ledger());
        let push =
            Scripted { answers: Mutex::new(answers), hands_on, row: Arc::clone(cx.ledger().row_of::<OtlpLogs>()) };
        let storage = storage(&world).await;
        let mut exporter = Exporter { world, inlets, sending: None, storage, push: Arc::new(push) };
        exporter.reload(which).await;
        exporter
    }

    async fn reload(&mut self, which: usize) {
        let cx = self.world.context::<DebugExporter>();
        let pushes = Pushes { logs: Some(Arc::clone(&self.push) as Arc<dyn Push<OtlpLogs>>), ..Pushes::default() };
        let soon = Duration::from_millis(1);
        let retry = RetryArguments { initial_interval: soon, max_interval: soon, ..RetryArguments::default() };
        let queue = queue(which, &self.storage);
        let prepared = Sending::prepare(Owner::of(&cx, "otlp"), pushes, &queue, &retry, self.sending.as_ref()).await;
        let sending = Sending::commit(self.sending.take(), prepared.unwrap());
        self.inlets.attach(sending.stages());
        self.sending = Some(sending);
    }

    fn entrance(&self) -> Receiver<OtlpLogs> {
        self.inlets.exports().input.logs
    }

    fn end(&self) -> Option<Arc<dyn End>> {
        self.sending.as_ref().and_then(|sending| sending.ends().first().and_then(Weak::upgrade))
    }

    /// Waits until nothing is under way and all sums are even.
    async fn rest(&self, may_leave: bool) -> Result<(), TestCaseError> {
        let ledger = Arc::clone(self.world.context::<DebugExporter>().ledger());
        let began = std::time::Instant::now();
        loop {
            let end = self.end().map(|end| end.snapshot());
            let held = ledger.row_of::<OtlpLogs>().snapshot().held;
            let waits = end.as_ref().map_or(0, |end| end.pending + end.in_flight) as i64 + held;
            let is_even =
                end.as_ref().is_none_or(|end| end.difference() == 0) && ledger.snapshot().open_sums().is_empty();
            // What a call that was given up left on disk behind the end of its queue waits there until that is used again.
            if is_even && (waits == 0 || may_leave && began.elapsed() > Duration::from_secs(1)) {
                return Ok(());
            }
            prop_assert!(began.elapsed() < LIMIT, "{:?} {:?}", ledger.snapshot(), end);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (1..6usize).prop_map(Op::Send),
        2 => (1..6usize).prop_map(Op::GiveUp),
        2 => (0..QUEUES).prop_map(Op::Reload),
        1 => Just(Op::Wait),
    ]
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        3 => Just(Answer::Takes),
        1 => Just(Answer::Rejects),
        2 => Just(Answer::Fails),
        1 => Just(Answer::Refuses),
        1 => Just(Answer::Late),
    ]
}

async fn play(
    hands_on: bool,
    which: usize,
    ops: Vec<Op>,
    answers: Vec<Answer>,
    ends_busy: bool,
) -> Result<(), TestCaseError> {
    let mut exporter = Exporter::start(answers, hands_on, which).await;
    let mut sent: JoinSet<()> = JoinSet::new();
    let may_leave = ops.iter().any(|op| matches!(op, Op::GiveUp(_)));
    for op in ops {
        match op {
            Op::Send(items) => {
                let to = exporter.entrance();
                sent.spawn(async move { drop(to.consume(logs(0..items)).await) });
                tokio::task::yield_now().await;
            }
            Op::GiveUp(items) => {
                let to = exporter.entrance();
                drop(tokio::time::timeout(Duration::from_micros(300), to.consume(logs(0..items))).await);
            }
            Op::Reload(which) => exporter.reload(which).await,
            Op::Wait => tokio::time::sleep(Duration::from_millis(3)).await,
        }
    }
    if !ends_busy {
        while tokio::time::timeout(LIMIT, sent.join_next()).await.expect("all are answered").is_some() {}
        exporter.rest(may_leave).await?;
    }
    let end = exporter.end();
    exporter.inlets.close();
    exporter.sending.take().unwrap().drain().await;
    while tokio::time::timeout(LIMIT, sent.join_next()).await.expect("all are answered").is_some() {}
    let snapshot = exporter.world.context::<DebugExporter>().ledger().snapshot();
    prop_assert_eq!(snapshot.open_sums(), []);
    if let Some(end) = end.map(|end| end.snapshot()).filter(|_| !hands_on) {
        prop_assert_eq!(end.difference(), 0, "{}", end_line(&end));
        let row: Option<&RowSnapshot> = snapshot.rows.iter().find(|row| row.kind == OtlpLogs::KIND);
        prop_assert_eq!(Some(end.offered), row.map(|row| row.out), "{:?}", row);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_came_is_delivered_dropped_or_waits(
        hands_on: bool, which in 0..QUEUES, ops in proptest::collection::vec(op(), 1..20),
        answers in proptest::collection::vec(answer(), 0..30), ends_busy: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(play(hands_on, which, ops, answers, ends_busy))?;
    }
}

#[tokio::test]
async fn what_waits_in_memory_when_the_component_ends_is_dropped() {
    let answers = vec![Answer::Fails; 1000];
    let mut exporter = Exporter::start(answers, false, 1).await;
    for items in 1..4 {
        exporter.entrance().consume(logs(0..items)).await.unwrap();
    }
    let end = exporter.end().unwrap();
    exporter.inlets.close();
    exporter.sending.take().unwrap().drain().await;
    assert_eq!(end_line(&end.snapshot()), "offered 6, dropped {shutdown: 6}");
}
