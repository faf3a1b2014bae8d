use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::acks::Acks;
use crate::flow::{BoxFuture, Consume, Inlet};
use crate::logs::{EntriesBuilder, Logs, LogsBatch, Stream};
use crate::tap::{Filter, Side, TapOptions, Taps};
use crate::{Fanout, Receiver};

fn batch(items: usize) -> LogsBatch {
    let mut builder = EntriesBuilder::new();
    let part = builder.stream(&Stream::of([("app", "a")]).unwrap());
    for at in 0..items {
        let line = builder.own(format!("line {at}").as_bytes());
        builder.push(part, at as i64, line);
    }
    LogsBatch { entries: Arc::new(builder.finish(0)), acks: Acks::NONE }
}

/// What a sink does with the next batch.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Take,
    Refuse,
    Busy,
    Late,
    Hang,
    Panic,
}

/// A sink that does one after the other, and takes everything in the end.
struct Sink {
    deeds: Vec<Deed>,
    at: AtomicUsize,
    row: Arc<Row>,
}

impl Consume<Logs> for Sink {
    fn consume(&self, batch: LogsBatch) -> BoxFuture<'_, Result<(), ConsumeError>> {
        let deed = self.deeds.get(self.at.fetch_add(1, Ordering::Relaxed)).copied().unwrap_or(Deed::Take);
        Box::pin(async move {
            match deed {
                Deed::Take => {}
                Deed::Refuse => return Err(ConsumeError::Refused { reason: "no".to_owned() }),
                Deed::Busy => return Err(ConsumeError::Retry { after: None, reason: "busy".to_owned() }),
                Deed::Late => tokio::time::sleep(Duration::from_secs(2)).await,
                Deed::Hang => std::future::pending().await,
                Deed::Panic => panic!("a deed"),
            }
            self.row.out(batch.entries.len());
            batch.acks.safe();
            Ok(())
        })
    }
}

/// A stage that drops one of each batch, and hands the rest on.
struct Stage {
    row: Arc<Row>,
    forward: Fanout<Logs>,
}

impl Consume<Logs> for Stage {
    fn consume(&self, sent: LogsBatch) -> BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(async move {
            let items = sent.entries.len();
            let mut pass = self.row.pass();
            pass.dropped("first", 1.min(items));
            pass.end(self.forward.consume(batch(items.saturating_sub(1))).await)
        })
    }
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    prop::collection::vec(
        prop_oneof![
            4 => Just(Deed::Take),
            1 => Just(Deed::Refuse),
            1 => Just(Deed::Busy),
            1 => Just(Deed::Late),
            1 => Just(Deed::Hang),
            1 => Just(Deed::Panic),
        ],
        0..12,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever one to three sinks behind a stage do, and whether the producer waits for the answer or gives up, each item
    /// is somewhere.
    #[test]
    fn every_sum_is_even_at_rest(
        sinks in prop::collection::vec(deeds(), 1..4),
        batches in prop::collection::vec((0usize..5, any::<bool>()), 1..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let ends: Vec<_> = sinks.iter().enumerate().map(|(at, _)| Ledger::new(format!("loki.write.{at}"))).collect();
            let inlets: Vec<_> = ends.iter().map(|ledger| Inlet::<Logs>::of(ledger)).collect();
            for ((inlet, deeds), ledger) in inlets.iter().zip(&sinks).zip(&ends) {
                let row = Arc::clone(ledger.row_of::<Logs>());
                inlet.attach(Arc::new(Sink { deeds: deeds.clone(), at: AtomicUsize::new(0), row }));
            }
            let (source, stage) = (Ledger::new("loki.source.file.a"), Ledger::new("loki.process.a"));
            let middle = Inlet::<Logs>::of(&stage);
            middle.attach(Arc::new(Stage {
                row: Arc::clone(stage.row_of::<Logs>()),
                forward: Fanout::of(&stage, inlets.iter().map(Inlet::receiver)),
            }));
            let forward = Fanout::of(&source, [middle.receiver()]);
            for (items, patient) in batches {
                let row = source.row_of::<Logs>();
                let (forward, sent) = (forward.clone(), batch(items));
                // In a task of its own, as a panic of a component is.
                let call = tokio::spawn(async move {
                    let wait = Duration::from_secs(if patient { 30 } else { 1 });
                    tokio::time::timeout(wait, forward.consume(sent)).await
                });
                if let Ok(Ok(Ok(()))) = call.await {
                    row.received(items);
                }
            }
            // Deliveries apart go on for a while; those that hang are in flight.
            tokio::time::sleep(Duration::from_secs(600)).await;
            let all: Vec<_> = [&source, &stage].into_iter().chain(&ends).cloned().collect();
            prop_assert_eq!(open_sums(&all), []);
            Ok(())
        })?;
    }
}

/// What happens to a stage with sinks behind it.
#[derive(Clone, Debug)]
enum Event {
    /// A batch of so many items, from a producer who waits for the answer or does not.
    Send(usize, bool),
    /// The stage hands on to the inlets of these numbers, some by a second fan-out.
    Route(Vec<usize>, Vec<usize>),
    /// What stands behind an inlet is another one.
    Swap(usize, Vec<Deed>, bool),
    /// A sink is gone.
    Close(usize),
    /// A sink is gone, and there is another one of its name.
    Replace(usize),
    /// So many milliseconds pass.
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let inlets = || prop::collection::vec(0..INLETS, 0..4);
    prop_oneof![
        6 => (0usize..5, any::<bool>()).prop_map(|(items, patient)| Event::Send(items, patient)),
        1 => (inlets(), inlets()).prop_map(|(one, two)| Event::Route(one, two)),
        1 => inlets().prop_map(|both| Event::Route(both.clone(), both)),
        1 => (0..INLETS, deeds(), prop::bool::weighted(0.8)).prop_map(|(at, deeds, told)| Event::Swap(at, deeds, told)),
        1 => (0..SINKS).prop_map(Event::Close),
        1 => (0..SINKS).prop_map(Event::Replace),
        2 => (0u64..3000).prop_map(Event::Wait),
    ]
}

const SINKS: usize = 3;
/// The last sink has two.
const INLETS: usize = 4;

/// Hands on by two fan-outs, which may have the same receivers.
struct Twice {
    row: Arc<Row>,
    forward: [Fanout<Logs>; 2],
}

impl Consume<Logs> for Twice {
    fn consume(&self, sent: LogsBatch) -> BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(async move {
            let items = sent.entries.len();
            let mut pass = self.row.pass();
            pass.created("copy", items);
            if let Err(error) = self.forward[0].consume(batch(items)).await {
                return pass.end(Err(error));
            }
            pass.handed_on(items);
            pass.end(self.forward[1].consume(batch(items)).await)
        })
    }
}

/// One that says that it takes nothing, or has something to say.
struct Told(Sink, bool);

impl Consume<Logs> for Told {
    fn consume(&self, batch: LogsBatch) -> BoxFuture<'_, Result<(), ConsumeError>> {
        self.0.consume(batch)
    }

    fn takes_anything(&self) -> bool {
        self.1
    }
}

fn attach(inlet: &Inlet<Logs>, ledger: &Ledger, deeds: &[Deed], told: bool) {
    let row = Arc::clone(ledger.row_of::<Logs>());
    inlet.attach(Arc::new(Told(Sink { deeds: deeds.to_vec(), at: AtomicUsize::new(0), row }, told)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever is put in place of what while batches are under way, each item is somewhere.
    #[test]
    fn every_sum_is_even_after_reloads(
        first in prop::collection::vec((deeds(), prop::bool::weighted(0.7)), INLETS),
        start in [prop::collection::vec(0..INLETS, 1..4), prop::collection::vec(0..INLETS, 0..4)],
        events in prop::collection::vec(event(), 1..25),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let sink = |at: usize| at.min(SINKS - 1);
            let mut ledgers: Vec<_> = (0..SINKS).map(|at| Ledger::new(format!("loki.write.{at}"))).collect();
            let mut inlets: Vec<_> = (0..INLETS).map(|at| Inlet::<Logs>::of(&ledgers[sink(at)])).collect();
            (0..INLETS).for_each(|at| attach(&inlets[at], &ledgers[sink(at)], &first[at].0, first[at].1));
            let (source, stage) = (Ledger::new("loki.source.file.a"), Ledger::new("loki.process.a"));
            let middle = Inlet::<Logs>::of(&stage);
            let route = |inlets: &[Inlet<Logs>], one: &[usize], two: &[usize]| {
                let fanout = |to: &[usize]| Fanout::of(&stage, to.iter().map(|at| inlets[*at].receiver()));
                middle.attach(Arc::new(Twice {
                    row: Arc::clone(stage.row_of::<Logs>()),
                    forward: [fanout(one), fanout(two)],
                }));
            };
            route(&inlets, &start[0], &start[1]);
            let forward = Fanout::of(&source, [middle.receiver()]);
            for event in events {
                match event {
                    Event::Send(items, patient) => {
                        let (row, forward) = (Arc::clone(source.row_of::<Logs>()), forward.clone());
                        tokio::spawn(async move {
                            let wait = Duration::from_millis(if patient { 30_000 } else { 500 });
                            if let Ok(Ok(())) = tokio::time::timeout(wait, forward.consume(batch(items))).await {
                                row.received(items);
                            }
                        });
                    }
                    Event::Route(one, two) => route(&inlets, &one, &two),
                    Event::Swap(at, deeds, told) => attach(&inlets[at], &ledgers[sink(at)], &deeds, told),
                    Event::Close(at) => (0..INLETS).filter(|inlet| sink(*inlet) == at).for_each(|at| inlets[at].close()),
                    Event::Replace(gone) => {
                        ledgers[gone] = Ledger::new(format!("loki.write.{gone}"));
                        for at in (0..INLETS).filter(|inlet| sink(*inlet) == gone) {
                            inlets[at].close();
                            inlets[at] = Inlet::of(&ledgers[gone]);
                            attach(&inlets[at], &ledgers[gone], &[], true);
                        }
                    }
                    Event::Wait(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
                }
            }
            tokio::time::sleep(Duration::from_secs(600)).await;
            let all: Vec<_> = [&source, &stage].into_iter().chain(&ledgers).cloned().collect();
            prop_assert_eq!(open_sums(&all), []);
            // The stage is gone, but not what is under way from it.
            middle.close();
            drop((source, stage, all, middle, forward));
            prop_assert_eq!(open_sums(&ledgers), []);
            Ok(())
        })?;
    }
}

#[test]
fn a_loss_that_nobody_counts_is_seen() {
    let ledger = Ledger::new("loki.process.a");
    let row = ledger.row_of::<Logs>();
    row.received(3);
    row.out(2);
    let open = ledger.snapshot().open_sums();
    assert_eq!(open, [Open { place: "loki.process.a".to_owned(), kind: Kind::LokiLog, difference: 1 }]);
}

#[test]
fn reasons_are_bounded() {
    let row = Row::new(Kind::LokiLog);
    for at in 0..REASONS_MAX + 20 {
        row.dropped(format!("reason {at}"), 1);
    }
    let dropped = row.snapshot().dropped;
    assert_eq!(dropped.len(), REASONS_MAX + 1);
    assert_eq!(dropped.last(), Some(&(OTHER.to_owned(), 20)));
}

#[test]
fn what_a_stage_does_counts_only_when_it_takes_the_batch() {
    let row = Row::new(Kind::LokiLog);
    let mut pass = row.pass();
    pass.dropped("a", 2);
    pass.handed_on(1);
    let refused = Err::<(), _>(ConsumeError::Refused { reason: "no".to_owned() });
    assert_eq!(pass.end(refused.clone()), refused);
    assert_eq!((row.snapshot().dropped, row.snapshot().created), (vec![], vec![(SENT_AGAIN.to_owned(), 1)]));
    let mut pass = row.pass();
    pass.dropped("a", 2);
    pass.merged("b", 1);
    pass.end(Ok(())).unwrap();
    assert_eq!((row.snapshot().dropped, row.snapshot().merged), (vec![("a".to_owned(), 2)], vec![("b".to_owned(), 1)]));
}

#[tokio::test]
async fn a_reload_keeps_the_ways_that_stay_and_the_sums() {
    let (source, sinks) =
        (Ledger::new("loki.source.file.a"), ["a", "b"].map(|name| Ledger::new(format!("loki.write.{name}"))));
    let inlets = sinks.each_ref().map(|ledger| Inlet::<Logs>::of(ledger));
    for (inlet, ledger) in inlets.iter().zip(&sinks) {
        inlet.attach(Arc::new(Sink {
            deeds: vec![],
            at: AtomicUsize::new(0),
            row: Arc::clone(ledger.row_of::<Logs>()),
        }));
    }
    let receivers: Vec<Receiver<Logs>> = inlets.iter().map(Inlet::receiver).collect();
    let all = [&source, &sinks[0], &sinks[1]].map(Arc::clone);
    for (which, taken) in
        [(&receivers[..1], [2, 0]), (&receivers[..], [4, 2]), (&receivers[1..], [4, 4]), (&receivers[..], [6, 6])]
    {
        let forward = Fanout::of(&source, which.iter().cloned());
        forward.consume(batch(2)).await.unwrap();
        source.row_of::<Logs>().received(2);
        assert_eq!(sinks.each_ref().map(|sink| sink.row_of::<Logs>().snapshot().taken), taken);
        assert_eq!(open_sums(&all), []);
        assert_eq!(source.edges().len(), which.len());
    }
    let [first, rest @ ..] = all;
    drop((source, first));
    assert_eq!(open_sums(&rest), [], "what ways took that are gone is not forgotten");
}

#[tokio::test]
async fn what_does_not_go_over_a_way_that_a_reload_added_is_seen() {
    let source = Ledger::new("loki.source.file.a");
    let sinks = ["a", "b"].map(|name| Ledger::new(format!("loki.write.{name}")));
    let inlets = sinks.each_ref().map(|ledger| Inlet::<Logs>::of(ledger));
    inlets.iter().zip(&sinks).for_each(|(inlet, ledger)| attach(inlet, ledger, &[], true));
    let receivers: Vec<Receiver<Logs>> = inlets.iter().map(Inlet::receiver).collect();
    let row = source.row_of::<Logs>();
    let open = || {
        let open = open_sums(&[Arc::clone(&source)]).into_iter();
        open.map(|open| (open.place, open.difference)).collect::<Vec<_>>()
    };
    // What was handed on before, and by whoever still has the receivers of before, is not asked of the way to `b`.
    let before = Fanout::of(&source, receivers[..1].iter().cloned());
    before.consume(batch(3)).await.unwrap();
    let both = Fanout::of(&source, receivers.iter().cloned());
    before.consume(batch(2)).await.unwrap();
    both.consume(batch(4)).await.unwrap();
    row.received(9);
    assert_eq!(open(), []);
    // Half a batch that nobody has counted as lost.
    let way = Arc::clone(&source.edges()[1]);
    way.taken.fetch_sub(2, Ordering::Relaxed);
    way.sent.fetch_sub(2, Ordering::Relaxed);
    assert_eq!(open(), [("loki.source.file.a>loki.write.b (out)".to_owned(), 2)]);
    drop((before, both));
    let alone = Fanout::of(&source, receivers[1..].iter().cloned());
    alone.consume(batch(1)).await.unwrap();
    row.received(1);
    assert_eq!(open(), [("loki.source.file.a>loki.write.b (out)".to_owned(), 2)], "also after a further reload");
    // What is counted as handed on, and was not.
    row.received(1);
    row.out(1);
    assert_eq!(open()[0], ("loki.source.file.a (out)".to_owned(), 1));
}

#[test]
fn a_row_in_which_nothing_was_counted_is_told_from_others() {
    let rows: [fn(&Row); 6] = [
        |row| row.taken(1),
        |row| row.received(1),
        |row| row.out(1),
        |row| row.created("a", 1),
        |row| row.dropped("a", 1),
        |row| row.held(-1),
    ];
    for count in rows {
        let row = Row::new(Kind::LokiLog);
        assert!(row.snapshot().is_zero());
        count(&row);
        assert!(!row.snapshot().is_zero());
    }
}

#[tokio::test]
async fn who_looks_sees_what_passes_and_nobody_else_is_looked_at() {
    let (source, sink) = (Ledger::new("loki.source.file.a"), Ledger::new("loki.write.a"));
    let inlet = Inlet::<Logs>::of(&sink);
    inlet.attach(Arc::new(Sink { deeds: vec![], at: AtomicUsize::new(0), row: Arc::clone(sink.row_of::<Logs>()) }));
    let forward = Fanout::of(&source, [inlet.receiver()]);
    forward.consume(batch(1)).await.unwrap();
    let redact = |text: &mut String| {
        let found = text.contains("line 2");
        *text = text.replace("line 2", "(secret)");
        u32::from(found)
    };
    let taps = Arc::new(Taps::new(Arc::new(redact)));
    let edge = source.edges().remove(0);
    let watch = |filter: &str, items_per_s_max: u32| {
        let options = TapOptions { filter: Filter::parse(filter).unwrap(), items_per_s_max, ..TapOptions::default() };
        taps.watch(vec![(Side::Out, Arc::clone(&edge))], options)
    };
    let (all, some) = (watch("", 2), watch("app=a line=~\".* 1|.secret.\"", 100));
    assert_eq!(taps.watching(), 2);
    forward.consume(batch(3)).await.unwrap();
    let texts = |seen: Vec<crate::tap::Seen>| {
        seen.into_iter().map(|seen| (seen.number, seen.text, seen.secrets)).collect::<Vec<_>>()
    };
    assert_eq!(
        texts(all.next().await),
        [(1, "{app=\"a\"} line 0".to_owned(), 0), (2, "{app=\"a\"} line 1".to_owned(), 0)]
    );
    let counts = all.counts();
    assert_eq!((counts.passed, counts.matched, counts.missed), (3, 3, 1));
    let seen = some.next().await;
    assert_eq!(fields(&seen[1])["line"], "(secret)");
    assert_eq!(texts(seen), [(1, "{app=\"a\"} line 1".to_owned(), 0), (2, "{app=\"a\"} (secret)".to_owned(), 1)]);
    drop((all, some));
    assert_eq!((taps.watching(), edge.watchers().any()), (0, false));
}

#[tokio::test]
async fn what_goes_in_does_not_hide_what_comes_out() {
    let (source, stage, sink) =
        (Ledger::new("loki.source.file.a"), Ledger::new("loki.process.a"), Ledger::new("loki.write.a"));
    let (middle, end) = (Inlet::<Logs>::of(&stage), Inlet::<Logs>::of(&sink));
    end.attach(Arc::new(Sink { deeds: vec![], at: AtomicUsize::new(0), row: Arc::clone(sink.row_of::<Logs>()) }));
    let forward = Fanout::of(&stage, [end.receiver()]);
    middle.attach(Arc::new(Stage { row: Arc::clone(stage.row_of::<Logs>()), forward }));
    let forward = Fanout::of(&source, [middle.receiver()]);
    let edges = vec![(Side::In, source.edges().remove(0)), (Side::Out, stage.edges().remove(0))];
    let options = TapOptions { items_per_s_max: 4, ..TapOptions::default() };
    let watch = Arc::new(Taps::default()).watch(edges, options);
    forward.consume(batch(10)).await.unwrap();
    let sides: Vec<Side> = watch.next().await.iter().map(|seen| seen.side).collect();
    assert_eq!(sides, [Side::In, Side::In, Side::Out, Side::Out]);
}

/// The structure of what was seen.
fn fields(seen: &crate::tap::Seen) -> serde_json::Value {
    serde_json::from_str(&seen.fields).unwrap()
}

fn edge(name: &str) -> (Arc<Ledger>, Inlet<Logs>, Arc<Edge>, Fanout<Logs>) {
    let sink = Ledger::new("loki.write.a");
    let inlet = Inlet::<Logs>::of(&sink);
    inlet.attach(Arc::new(Sink { deeds: vec![], at: AtomicUsize::new(0), row: Arc::clone(sink.row_of::<Logs>()) }));
    let source = Ledger::new(name);
    let forward = Fanout::of(&source, [inlet.receiver()]);
    let edge = source.edges().remove(0);
    (sink, inlet, edge, forward)
}

#[tokio::test]
async fn neither_a_large_batch_nor_another_way_hides_the_rest() {
    let ways: Vec<_> = ["a", "b", "c"].map(|name| edge(&format!("loki.source.file.{name}"))).into_iter().collect();
    let edges = ways.iter().map(|(_, _, edge, _)| (Side::In, Arc::clone(edge))).collect();
    let options = TapOptions { items_per_s_max: 20, ..TapOptions::default() };
    // A new second brings new shares.
    for _ in 0..50 {
        let started = std::time::Instant::now();
        let taps = Arc::new(Taps::default());
        let watch = taps.watch(Vec::clone(&edges), options.clone());
        for (way, items) in [(0, 1000), (0, 1), (0, 1000), (1, 1000), (2, 1000)] {
            ways[way].3.consume(batch(items)).await.unwrap();
        }
        let (seen, counts) = (watch.next().await, watch.counts());
        if started.elapsed() >= Duration::from_secs(1) || counts.limited {
            continue;
        }
        let shown = ["a", "b", "c"].map(|name| seen.iter().filter(|seen| seen.from.ends_with(name)).count());
        assert_eq!((shown, seen.len()), ([14 + 1 + 3, 1, 1], 20));
        assert_eq!((counts.passed, counts.matched, counts.missed), (4001, 4001, 4001 - 20));
        return;
    }
    panic!("the machine is too slow");
}

#[tokio::test]
async fn who_looks_for_long_does_not_blind_others() {
    let slow = Arc::new(Taps::new(Arc::new(|text: &mut String| {
        if text.contains("slow") {
            std::thread::sleep(Duration::from_millis(30));
        }
        0
    })));
    let (ways, quick) = (["a", "b"].map(|name| edge(&format!("loki.source.file.{name}"))), edge("loki.source.file.q"));
    let watch = |edges: Vec<(Side, Arc<Edge>)>, filter: &str| {
        slow.watch(edges, TapOptions { filter: Filter::parse(filter).unwrap(), ..TapOptions::default() })
    };
    let sides = vec![(Side::In, Arc::clone(&ways[0].2)), (Side::Out, Arc::clone(&ways[1].2))];
    let (one, other) = (watch(sides, "line!~slow.*"), watch(vec![(Side::Out, Arc::clone(&quick.2))], ""));
    let mut builder = EntriesBuilder::new();
    let part = builder.stream(&Stream::of([("app", "a")]).unwrap());
    let line = builder.own(b"slow");
    (0..10).for_each(|at| builder.push(part, at, line));
    let sent = LogsBatch { entries: Arc::new(builder.finish(0)), acks: Acks::NONE };
    ways[0].3.consume(sent).await.unwrap();
    assert!(one.counts().limited && one.counts().looked < 10);
    ways[1].3.consume(batch(1)).await.unwrap();
    quick.3.consume(batch(1)).await.unwrap();
    assert_eq!((one.next().await[0].side, other.next().await.len()), (Side::Out, 1));
}

#[tokio::test]
async fn what_is_not_looked_at_is_missed_where_everything_is_wanted() {
    let (_sink, _inlet, edge, forward) = edge("loki.source.file.a");
    let slow = Arc::new(Taps::new(Arc::new(|_: &mut String| {
        std::thread::sleep(Duration::from_millis(5));
        0
    })));
    let watch = slow.watch(vec![(Side::Out, edge)], TapOptions::default());
    forward.consume(batch(50)).await.unwrap();
    forward.consume(batch(50)).await.unwrap();
    let (counts, seen) = (watch.counts(), watch.next().await);
    assert!(counts.limited && counts.looked < 10, "{counts:?}");
    assert_eq!((counts.passed, counts.matched, counts.missed), (100, 100, 100 - seen.len() as u64));
}

#[tokio::test]
async fn long_items_are_bounded_and_no_half_secret_is_shown() {
    use crate::tap::Redact;
    let secret = "s".repeat(100);
    let searched = Arc::new(AtomicUsize::new(0));
    let redact: Redact = Arc::new({
        let (searched, secret) = (Arc::clone(&searched), secret.clone());
        move |text: &mut String| {
            searched.fetch_max(text.len(), Ordering::Relaxed);
            let found = text.matches(&secret).count();
            *text = text.replace(&secret, "(x)");
            found as u32
        }
    });
    let (_sink, _inlet, edge, forward) = edge("loki.source.file.a");
    let watch = Arc::new(Taps::new(redact)).watch(vec![(Side::Out, edge)], TapOptions::default());
    let mut builder = EntriesBuilder::new();
    let part = builder.stream(&Stream::of([("app", "a")]).unwrap());
    let line = builder.own(secret.repeat(10_000).as_bytes());
    builder.push(part, 0, line);
    for at in 0..1000 {
        let (name, value) = (builder.own(format!("name{at}").as_bytes()), builder.own(&b"long ".repeat(2000)));
        builder.push_metadata(name, value);
    }
    forward.consume(LogsBatch { entries: Arc::new(builder.finish(0)), acks: Acks::NONE }).await.unwrap();
    let seen = watch.next().await.remove(0);
    let max = TapOptions::default().item_bytes_max;
    assert!(searched.load(Ordering::Relaxed) < 4 * max, "{searched:?}");
    assert!(!seen.text.contains("ss") && seen.text.ends_with('…') && seen.text.len() <= max + 3);
    assert!(seen.fields.len() < 6 * max, "{}", seen.fields.len());
}

#[tokio::test]
async fn what_has_the_name_of_a_secret_is_masked_in_the_structure_too() {
    // As it is told of the text of a label.
    let redact = |text: &mut String| {
        let found = text.contains("token=");
        *text = text.replace("hush", "(secret)");
        u32::from(found)
    };
    let (_sink, _inlet, edge, forward) = edge("loki.source.file.a");
    let watch = Arc::new(Taps::new(Arc::new(redact))).watch(vec![(Side::Out, edge)], TapOptions::default());
    let mut builder = EntriesBuilder::new();
    let part = builder.stream(&Stream::of([("token", "abc"), ("hush", "b")]).unwrap());
    let line = builder.own(b"x");
    builder.push(part, 0, line);
    forward.consume(LogsBatch { entries: Arc::new(builder.finish(0)), acks: Acks::NONE }).await.unwrap();
    let seen = watch.next().await.remove(0);
    assert_eq!(fields(&seen)["labels"], serde_json::json!({"token": "(secret)", "(secret)": "b"}));
}

#[tokio::test]
async fn a_filter_does_not_find_out_secrets() {
    let redact = |text: &mut String| {
        let found = text.contains("pin=");
        let end = text.find("pin=").map(|at| at + 4);
        end.into_iter().for_each(|end| text.replace_range(end..end + 1, "(secret)"));
        u32::from(found)
    };
    let (_sink, _inlet, edge, forward) = edge("loki.source.file.a");
    let taps = Arc::new(Taps::new(Arc::new(redact)));
    let filters = [
        ("", true),
        ("pin=7", false),
        ("pin=~[0-9]+", false),
        ("pin!=7", true),
        ("pin!~[0-9]+", true),
        ("\"pin=7\"", false),
        ("7", false),
        ("line=~.*7", false),
        ("line!~.*7", true),
        ("line=~.*secret.", true),
        ("\"pin=\" app=a", true),
    ];
    let options = |filter: &str| TapOptions { filter: Filter::parse(filter).unwrap(), ..TapOptions::default() };
    let watches = filters.map(|(filter, _)| taps.watch(vec![(Side::Out, Arc::clone(&edge))], options(filter)));
    let mut builder = EntriesBuilder::new();
    let part = builder.stream(&Stream::of([("app", "a"), ("pin", "7")]).unwrap());
    let line = builder.own(b"pin=7");
    builder.push(part, 0, line);
    forward.consume(LogsBatch { entries: Arc::new(builder.finish(0)), acks: Acks::NONE }).await.unwrap();
    for ((filter, shown), watch) in filters.iter().zip(watches) {
        assert_eq!(watch.counts().matched, u64::from(*shown), "{filter}");
    }
}

#[test]
fn who_goes_does_not_blind_who_comes() {
    let (_sink, _inlet, edge, _forward) = edge("loki.source.file.a");
    let taps = Arc::new(Taps::default());
    let done = Arc::new(AtomicBool::new(false));
    let watch = |edge: &Arc<Edge>| taps.watch(vec![(Side::Out, Arc::clone(edge))], TapOptions::default());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                drop(watch(&edge));
            }
        });
        for _ in 0..50_000 {
            let stays = watch(&edge);
            let blind = (0..20).any(|_| !edge.watchers().any());
            drop(stays);
            if blind {
                done.store(true, Ordering::Relaxed);
                panic!("nobody looks although somebody does");
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(!edge.watchers().any());
}

#[test]
fn filters_say_what_is_wrong_with_them() {
    for (filter, error) in [
        ("=a", "a name is missing before `=a`"),
        ("a=\"b", "the quote of `\"b` is not closed"),
        ("\"a\"b", "a blank is missing before `b`"),
        ("a=~(", "`(`: error parsing regexp: missing closing ): `^(?s:()$`"),
    ] {
        assert_eq!(Filter::parse(filter).unwrap_err(), error, "{filter}");
    }
}

proptest! {
    #[test]
    fn no_filter_is_too_strange_to_read(filter in ".{0,60}") {
        let _ = Filter::parse(&filter);
    }
}
