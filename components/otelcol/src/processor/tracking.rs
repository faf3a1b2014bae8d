//! What processors have in common that know the series of metrics, and change their points by what came before.
//!
//! What a batch changes of what is known is kept only if the batch was taken by what follows. If it was not, or if its sender
//! did not wait for that, what is known is what it was before, so that the same points come to the same when they are sent
//! again. Batches go one after the other for that; their points would overtake each other otherwise.

use std::sync::Arc;
use std::time::{Duration, Instant};

use corten_component::{Component, Context, Error, Logger};
use corten_config::Arguments;
use corten_config::schema::Stability;
use corten_otlp::{Arena, Batch, Data, Metric, OtlpMetrics};
use corten_signal::flow::BoxFuture;
use corten_signal::ledger::{Pass, Row};
use corten_signal::{Consume, ConsumeError, Fanout};

use crate::flow::{Inlets, Input, Output, Stages};
use crate::identity::{Hasher, Recent};
use crate::process::ProcessMetrics;
use crate::resend::Seldom;
use crate::shown::{attr, show};

/// How many series are known at most.
pub(crate) const SERIES_MAX: usize = 1 << 20;
/// How much memory what is known of series takes at most, in bytes, about.
pub(crate) const BYTES_MAX: usize = 256 << 20;
/// What a series takes besides what is known of it: its hash, its place in the order and room in maps, in bytes.
const OVERHEAD_BYTES: usize = 96;

/// What makes one of these processors.
pub(crate) trait Tracker: Sized + Send + Sync + 'static {
    /// The component's name.
    const NAME: &'static str;
    /// The level below which a user cannot have it.
    const STABILITY: Stability = Stability::GenerallyAvailable;
    /// What OpenTelemetry calls it, if it counts items in and out.
    const COUNTS_AS: Option<&'static str> = None;
    /// Its arguments.
    type Arguments: Arguments + Clone + PartialEq + Send + Sync;
    /// What is known.
    type State: Track;

    /// Where points go.
    fn output(arguments: &Self::Arguments) -> &Output;

    /// Nothing known yet.
    ///
    /// # Errors
    ///
    /// What is wrong with the arguments that their own check cannot know.
    fn state(arguments: &Self::Arguments, cx: &Context<Tracking<Self>>) -> Result<Self::State, Error>;

    /// Goes on with what is known under other arguments, which the other state was made of.
    ///
    /// # Errors
    ///
    /// The other state, if what is known does not fit.
    fn go_on(state: &Self::State, other: Self::State) -> Result<(), Self::State>;
}

/// Changes points by what came before.
pub(crate) trait Track: Send + Sync + 'static {
    /// Changes points. What has none left goes. Points that are dropped it tells to `pass`. Nothing else is tracked until this
    /// is settled.
    fn track(&self, batch: Batch<Metric>, pass: &mut Pass<'_>) -> Batch<Metric>;

    /// How many series are known.
    fn series(&self) -> usize;

    /// Keeps what the last points changed of what is known, because they were taken, or takes it back.
    fn settle(&self, taken: bool);
}

/// What is known of a series.
pub(crate) trait Known: Clone {
    /// How much memory it takes besides itself, in bytes.
    fn heap_bytes(&self) -> usize;
}

/// Series that are known. What was changed since it was last settled can be taken back.
#[derive(Debug)]
pub(crate) struct AllKnown<K> {
    recent: Recent<Entry<K>>,
    bytes: usize,
    /// What was known before the changes, in their order, and its place in the order of series; nothing of a series that was
    /// not known.
    before: Vec<(u128, Option<(u64, K)>)>,
    /// Tells the changes of this time from earlier ones.
    time: u64,
    series_max: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Entry<K> {
    /// The time of its last change.
    time: u64,
    known: K,
}

impl<K> Default for AllKnown<K> {
    fn default() -> Self {
        AllKnown {
            recent: Recent::default(),
            bytes: 0,
            before: Vec::new(),
            time: 1,
            series_max: SERIES_MAX,
            bytes_max: BYTES_MAX,
        }
    }
}

impl<K: Known> AllKnown<K> {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.recent.len()
    }

    fn bytes_of(known: &K) -> usize {
        size_of::<Entry<K>>() + OVERHEAD_BYTES + known.heap_bytes()
    }

    /// Changes what is known of a series; nothing if it is not known.
    #[inline]
    pub(crate) fn change<T>(&mut self, hash: u128, change: impl FnOnce(&mut K) -> T) -> Option<T> {
        let (place, entry) = self.recent.get_with_place(hash)?;
        if entry.time != self.time {
            entry.time = self.time;
            self.before.push((hash, Some((place, entry.known.clone()))));
        }
        let bytes = entry.known.heap_bytes();
        let outcome = change(&mut entry.known);
        self.bytes = (self.bytes + entry.known.heap_bytes()).saturating_sub(bytes);
        Some(outcome)
    }

    /// Adds a series that is not known.
    pub(crate) fn insert(&mut self, hash: u128, known: K) {
        debug_assert!(!self.recent.contains(hash));
        self.before.push((hash, None));
        self.bytes += Self::bytes_of(&known);
        self.recent.insert(hash, Entry { time: self.time, known }, usize::MAX);
    }

    /// Whether there is room for one more series, or for a change of one that is known. So much is known of it then at most;
    /// what is known of one that is changed says how much exactly.
    pub(crate) fn has_room(
        &mut self,
        hash: u128,
        series_max: usize,
        heap_bytes_max: usize,
        changed_bytes: impl FnOnce(&K) -> usize,
    ) -> bool {
        let more = size_of::<Entry<K>>() + OVERHEAD_BYTES + heap_bytes_max;
        if self.bytes + more <= self.bytes_max && self.recent.len() < series_max {
            return true;
        }
        match self.recent.peek(hash) {
            Some(entry) => {
                let (has, needs) = (entry.known.heap_bytes(), changed_bytes(&entry.known));
                needs <= has || self.bytes + (needs - has) <= self.bytes_max
            }
            None => false,
        }
    }

    /// Forgets the series whose last points are longest ago until there are not too many. How many that were.
    pub(crate) fn make_room(&mut self) -> usize {
        let before = self.recent.len();
        while self.recent.len() > self.series_max || self.bytes > self.bytes_max {
            let Some((hash, place, entry)) = self.recent.pop() else { break };
            self.bytes = self.bytes.saturating_sub(Self::bytes_of(&entry.known));
            if entry.time != self.time {
                self.before.push((hash, Some((place, entry.known))));
            }
        }
        before - self.recent.len()
    }

    /// Forgets for good what is such a series; the one whose last point is longest ago comes first, and the first that is
    /// none ends it.
    pub(crate) fn forget_while(&mut self, mut is_such: impl FnMut(&K) -> bool) {
        while let Some(entry) = self.recent.pop_if(|entry| is_such(&entry.known)) {
            self.bytes = self.bytes.saturating_sub(Self::bytes_of(&entry.known));
        }
    }

    /// Forgets for good all but such series.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&K) -> bool) {
        let bytes = &mut self.bytes;
        self.recent.retain(|entry| {
            let kept = keep(&entry.known);
            if !kept {
                *bytes = bytes.saturating_sub(Self::bytes_of(&entry.known));
            }
            kept
        });
    }

    /// Keeps all changes since the last time, or takes them back.
    pub(crate) fn settle(&mut self, taken: bool) {
        self.time += 1;
        let mut before = std::mem::take(&mut self.before);
        if taken {
            before.clear();
        }
        while let Some((hash, known)) = before.pop() {
            if let Some(entry) = self.recent.remove(hash) {
                self.bytes = self.bytes.saturating_sub(Self::bytes_of(&entry.known));
            }
            if let Some((place, known)) = known {
                self.bytes += Self::bytes_of(&known);
                // It was changed at no time that is not settled.
                self.recent.put_back(hash, Entry { time: 0, known }, place);
            }
        }
        before.shrink_to(BEFORE_KEPT_MAX);
        self.before = before;
    }

    #[cfg(test)]
    pub(crate) fn limited(series_max: usize, bytes_max: usize) -> Self {
        AllKnown { series_max, bytes_max, ..Self::default() }
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// For how many changes room is kept once they are settled.
const BEFORE_KEPT_MAX: usize = 1 << 14;

/// Says, not too often, that series were forgotten because there are too many.
#[derive(Debug)]
pub(crate) struct Forgetting {
    logger: Logger,
    said: Seldom,
}

const SAY_EVERY: Duration = Duration::from_secs(60);

impl Forgetting {
    pub(crate) fn new(logger: Logger) -> Self {
        Forgetting { logger, said: Seldom::default() }
    }

    pub(crate) fn say<K: Known>(&self, forgotten: usize, all: &AllKnown<K>) {
        if forgotten > 0 && self.said.is_time(SAY_EVERY) {
            let fields = [("forgotten", forgotten.into()), ("series", all.len().into()), ("bytes", all.bytes.into())];
            self.logger.warn("too many series: those whose last points are longest ago are forgotten", &fields);
        }
    }
}

/// Looks at every metric, with the hash of its scope, and keeps those of which `keep` says so. Scopes and resources that have
/// none left go.
pub(crate) fn retain_metrics(
    data: &mut Data<Metric>,
    hasher: &mut Hasher,
    mut keep: impl FnMut(&mut Hasher, &Arena, u128, &mut Metric) -> bool,
) {
    let Data { arena, resources } = data;
    for of in resources {
        let resource = hasher.resource(arena, of);
        for scope in &mut of.scopes {
            let hash = hasher.scope(resource, arena, scope);
            scope.records.retain_mut(|metric| keep(hasher, arena, hash, metric));
        }
    }
    data.prune();
}

/// The labels of what processors count that are not told apart by their ids.
pub(crate) const SCOPE_LABELS: [&str; 3] = ["otel_scope_name", "otel_scope_version", "otel_scope_schema_url"];

/// A component that knows series.
pub(crate) struct Tracking<K: Tracker> {
    inlets: Arc<Inlets>,
    state: Arc<InTurn<K::State>>,
}

/// What is known, to be changed by one batch at a time.
struct InTurn<T> {
    state: T,
    turn: tokio::sync::Mutex<()>,
}

/// What is to be put in place.
pub(crate) struct Prepared<K: Tracker> {
    inlets: Arc<Inlets>,
    output: Output,
    state: K::State,
}

impl<K: Tracker> Component for Tracking<K> {
    const NAME: &'static str = K::NAME;
    const STABILITY: Stability = K::STABILITY;
    type Arguments = K::Arguments;
    type Exports = Input;
    type Prepared = Prepared<K>;

    async fn prepare(
        arguments: K::Arguments,
        cx: &Context<Self>,
        current: Option<&Self>,
    ) -> Result<(Prepared<K>, Input), Error> {
        let state = K::state(&arguments, cx)?;
        let inlets = current.map_or_else(|| Inlets::of(cx.ledger()), |current| Arc::clone(&current.inlets));
        let exports = inlets.exports();
        Ok((Prepared { inlets, output: K::output(&arguments).clone(), state }, exports))
    }

    fn commit(current: Option<Self>, prepared: Prepared<K>, cx: &Context<Self>) -> Self {
        let Prepared { inlets, output, state } = prepared;
        let state = match current {
            None => Err(state),
            Some(current) => K::go_on(&current.state.state, state).map(|()| current.state),
        };
        let state = state.unwrap_or_else(|state| Arc::new(InTurn { state, turn: tokio::sync::Mutex::default() }));
        let shown = Arc::clone(&state);
        show(cx, move || vec![attr("series", shown.state.series() as u64)]);
        inlets.attach(Stages {
            metrics: output.metrics(cx).map(|forward| -> Arc<dyn Consume<OtlpMetrics>> {
                let metrics = K::COUNTS_AS.map(|kind| ProcessMetrics::new::<_, OtlpMetrics>(cx, kind));
                let row = Arc::clone(cx.ledger().row_of::<OtlpMetrics>());
                Arc::new(Stage { state: Arc::clone(&state), forward, row, metrics })
            }),
            ..Stages::default()
        });
        Tracking { inlets, state }
    }

    async fn drain(self, _: &Context<Self>) {
        self.inlets.close();
    }
}

struct Stage<T> {
    state: Arc<InTurn<T>>,
    forward: Fanout<OtlpMetrics>,
    row: Arc<Row>,
    metrics: Option<ProcessMetrics>,
}

/// A batch that changes what is known. The changes are taken back unless it is said that it was taken: so they are if its
/// sender does not wait for that.
struct Changing<'a, T: Track> {
    state: &'a T,
    taken: bool,
}

impl<T: Track> Drop for Changing<'_, T> {
    fn drop(&mut self) {
        self.state.settle(self.taken);
    }
}

impl<T: Track> Consume<OtlpMetrics> for Stage<T> {
    fn consume(&self, batch: Batch<Metric>) -> BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(async move {
            let _turn = self.state.turn.lock().await;
            let begun = Instant::now();
            let incoming = batch.items();
            let mut changing = Changing { state: &self.state.state, taken: false };
            let mut pass = self.row.pass();
            let batch = changing.state.track(batch, &mut pass);
            if let Some(metrics) = &self.metrics {
                metrics.observe(incoming, batch.items(), begun);
            }
            if batch.is_empty() {
                batch.acks.safe();
                changing.taken = true;
                return pass.end(Ok(()));
            }
            let outcome = self.forward.consume(batch).await;
            // What is refused for good, or a part of it, does not come again.
            changing.taken = matches!(outcome, Ok(()) | Err(ConsumeError::Refused { .. }));
            pass.end(outcome)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

    use corten_config::Value;
    use corten_otlp::Consumer;
    use corten_otlp::metrics::{CUMULATIVE, DELTA};
    use corten_signal::{Inlet, Receiver};
    use corten_testkit::OtlpSink;
    use parking_lot::Mutex;
    use tokio::task::JoinSet;

    use super::*;
    use crate::processor::cumulativetodelta::CumulativeToDeltaProcessor;
    use crate::processor::deltatocumulative::DeltaToCumulativeProcessor;
    use crate::processor::metric_start_time::MetricStartTimeProcessor;
    use crate::testing::{self, send, start_to, sum};

    impl Known for Vec<u8> {
        fn heap_bytes(&self) -> usize {
            self.len()
        }
    }

    fn all(known: &mut AllKnown<Vec<u8>>) -> Vec<(u128, Vec<u8>)> {
        let mut hashes: Vec<u128> = known.recent.hashes().collect();
        hashes.sort_unstable();
        hashes.into_iter().map(|hash| (hash, known.recent.peek(hash).unwrap().known.clone())).collect()
    }

    #[test]
    fn changes_that_are_taken_back_never_were() {
        let mut known = AllKnown::<Vec<u8>>::limited(3, usize::MAX);
        for hash in 0..3 {
            known.insert(hash, vec![0; hash as usize]);
        }
        known.settle(true);
        let (before, bytes) = (all(&mut known), known.bytes);
        for _ in 0..2 {
            assert_eq!(known.change(0, |series| series.push(1)), Some(()));
            assert_eq!(known.change(0, |series| series.push(2)), Some(()));
            known.change(1, Vec::clear);
            // A new one makes an old one go, which comes again, changed.
            known.insert(7, vec![7; 70]);
            assert_eq!(known.make_room(), 1);
            assert_eq!(known.change(2, |_| ()), None);
            known.insert(2, vec![9; 9]);
            assert_eq!(known.make_room(), 1);
            known.change(2, |series| series.push(1));
            assert_eq!(known.change(8, |_| ()), None);
            known.settle(false);
            assert_eq!((all(&mut known), known.bytes), (before.clone(), bytes));
        }
        known.change(0, |series| series.push(1));
        known.settle(true);
        known.settle(false);
        assert_eq!(all(&mut known)[0], (0, vec![1]));
    }

    #[test]
    fn what_was_longest_ago_is_forgotten_first_whatever_was_taken_back() {
        let mut known = AllKnown::<Vec<u8>>::limited(4, usize::MAX);
        for hash in 0..4 {
            known.insert(hash, Vec::new());
        }
        known.settle(true);
        for attempt in 0..10 {
            known.change(2, |series| series.push(1));
            known.insert(7, Vec::new());
            known.insert(8, Vec::new());
            assert_eq!(known.make_room(), 2);
            assert!(known.recent.peek(0).is_none() && known.recent.peek(1).is_none(), "{attempt}");
            known.settle(false);
            assert_eq!(known.recent.hashes().collect::<Vec<_>>(), [0, 1, 2, 3]);
        }
    }

    #[test]
    fn series_are_bounded_in_number_and_in_bytes() {
        let one = size_of::<Entry<Vec<u8>>>() + OVERHEAD_BYTES;
        let mut known = AllKnown::<Vec<u8>>::limited(100, 10 * one + 1000);
        for hash in 0..1000 {
            known.insert(hash, vec![0; 500]);
            known.make_room();
            known.settle(true);
            assert!(known.bytes <= 10 * one + 1000 && known.len() <= 3);
        }
        let mut has_room = |hash, bytes, series_max| known.has_room(hash, series_max, bytes, |_| bytes);
        assert!(has_room(999, 500, 100) && !has_room(5, 501, 100) && !has_room(999, 1 << 20, 100));
        assert!(has_room(999, 500, 0) && !has_room(5, 0, 0));
        // What a known one needs is asked for where the most that it could be is too much.
        assert!(known.has_room(999, 100, 1 << 20, |known| known.len()));
        assert!(!known.has_room(999, 100, 1 << 20, |known| known.len() + (1 << 20)));
        for hash in 2000..3000 {
            known.insert(hash, Vec::new());
            known.make_room();
            known.settle(hash % 2 == 0);
        }
        assert!(known.len() <= 17, "{}", known.len());
        // What grows counts, too.
        assert_eq!(known.change(2998, |series| series.resize(4000, 0)), Some(()));
        assert!(known.make_room() > 0);
        known.settle(true);
        known.retain(|_| false);
        assert_eq!((known.len(), known.bytes), (0, 0));
        known.insert(1, vec![1]);
        known.settle(true);
        known.forget_while(|_| true);
        assert_eq!((known.len(), known.bytes), (0, 0));
    }

    /// Takes some time for each batch, and takes every third.
    #[derive(Default)]
    struct Flaky {
        calls: AtomicUsize,
        taken: Mutex<Vec<Batch<Metric>>>,
    }

    struct Entrance(Arc<Flaky>);

    impl Consume<OtlpMetrics> for Entrance {
        fn consume(&self, batch: Batch<Metric>) -> BoxFuture<'_, Result<(), ConsumeError>> {
            Box::pin(async move {
                for _ in 0..3 {
                    tokio::task::yield_now().await;
                }
                if self.0.calls.fetch_add(1, Ordering::Relaxed) % 3 != 2 {
                    return Err(ConsumeError::Retry { after: None, reason: "busy".to_owned() });
                }
                self.0.taken.lock().push(batch);
                Ok(())
            })
        }
    }

    impl Flaky {
        fn value(self: &Arc<Self>) -> Value {
            let inlet = Inlet::new("otelcol.test.flaky");
            inlet.attach(Arc::new(Entrance(Arc::clone(self))));
            Value::capsule(Arc::new(Consumer { metrics: inlet.receiver(), ..OtlpSink::default().consumer() }))
        }

        /// Series, time and value of the points that were taken.
        fn points(&self) -> Vec<(u64, u64, i64)> {
            let mut points = Vec::new();
            for batch in self.taken.lock().iter() {
                let json: serde_json::Value = serde_json::from_slice(&batch.to_json()).unwrap();
                for point in
                    json["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0]["sum"]["dataPoints"].as_array().unwrap()
                {
                    let number = |value: &serde_json::Value| value.as_str().unwrap().parse::<u64>().unwrap();
                    points.push((
                        number(&point["attributes"][0]["value"]["intValue"]),
                        number(&point["timeUnixNano"]),
                        point["asInt"].as_str().unwrap().parse().unwrap(),
                    ));
                }
            }
            points
        }
    }

    /// Sends until it is taken.
    async fn insist(to: &Receiver<OtlpMetrics>, batch: Batch<Metric>) {
        while to.consume(batch.clone()).await.is_err() {
            tokio::task::yield_now().await;
        }
    }

    const SENDERS: u32 = 8;
    const EACH: i64 = 30;

    #[tokio::test]
    async fn nothing_is_lost_and_nothing_counts_twice_whoever_sends_how_often() {
        let flaky = Arc::new(Flaky::default());
        let body = "initial_value = \"keep\"";
        let unit = start_to::<CumulativeToDeltaProcessor>(flaky.value(), body).await.unwrap();
        let shared = Arc::new(AtomicI64::new(0));
        let mut senders = JoinSet::new();
        for series in 1..=SENDERS {
            let (to, shared) = (unit.world.consumer("input").metrics, Arc::clone(&shared));
            senders.spawn(async move {
                for value in 1..=EACH {
                    insist(&to, sum(CUMULATIVE, series, value * 10, 1, value as u64 + 1)).await;
                    // A series that comes on several ways, in any order.
                    let value = shared.fetch_add(1, Ordering::Relaxed) + 1;
                    insist(&to, sum(CUMULATIVE, 0, value, 1, value as u64 + 1)).await;
                }
            });
        }
        senders.join_all().await;
        let mut sums = BTreeMap::new();
        for (series, _, value) in flaky.points() {
            *sums.entry(series).or_default() += value;
        }
        let mut wanted: BTreeMap<u64, i64> = (1..=SENDERS).map(|series| (u64::from(series), EACH * 10)).collect();
        wanted.insert(0, i64::from(SENDERS) * EACH);
        assert_eq!(sums, wanted);
        // Of a series that comes in any order some points come too late.
        let balance = unit.world.balance_of(corten_signal::Kind::OtelMetric);
        let taken = SENDERS as usize * EACH as usize * 2;
        assert!(balance.starts_with(&format!("taken {taken}, out {}", flaky.points().len())), "{balance}");
    }

    #[tokio::test]
    async fn sums_are_those_of_all_points_whoever_sends_how_often() {
        let flaky = Arc::new(Flaky::default());
        let unit = start_to::<DeltaToCumulativeProcessor>(flaky.value(), "").await.unwrap();
        let mut senders = JoinSet::new();
        for series in 1..=SENDERS {
            let to = unit.world.consumer("input").metrics;
            senders.spawn(async move {
                for time in 1..=EACH as u64 {
                    insist(&to, sum(DELTA, series, 7, time, time + 1)).await;
                }
            });
        }
        senders.join_all().await;
        for series in 1..=u64::from(SENDERS) {
            let values: Vec<i64> =
                flaky.points().into_iter().filter(|point| point.0 == series).map(|point| point.2).collect();
            assert_eq!(values, (1..=EACH).map(|number| number * 7).collect::<Vec<_>>());
        }
        let all = SENDERS as usize * EACH as usize;
        let balance = unit.world.balance_of(corten_signal::Kind::OtelMetric);
        assert_eq!(balance, format!("taken {all}, out {all}"));
    }

    #[tokio::test]
    async fn what_was_first_stays_first_until_it_is_taken() {
        let flaky = Arc::new(Flaky::default());
        let body = "strategy = \"subtract_initial_point\"";
        let unit = start_to::<MetricStartTimeProcessor>(flaky.value(), body).await.unwrap();
        let to = unit.world.consumer("input").metrics;
        // The first point goes nowhere, so that nobody can refuse it.
        insist(&to, sum(CUMULATIVE, 1, 5, 0, 10)).await;
        for (value, time) in [(6, 20), (9, 30), (2, 40), (3, 50)] {
            insist(&to, sum(CUMULATIVE, 1, value, 0, time)).await;
        }
        assert_eq!(flaky.points(), [(1, 20, 1), (1, 30, 4), (1, 40, 2), (1, 50, 3)]);
        let balance = unit.world.balance_of(corten_signal::Kind::OtelMetric);
        assert_eq!(balance, "taken 5, out 4, dropped {initial: 1}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_that_does_not_wait_may_send_again() {
        let sink = OtlpSink::default();
        let hangs = Inlet::new("otelcol.test.hangs");
        struct Hangs;
        impl Consume<OtlpMetrics> for Hangs {
            fn consume(&self, _: Batch<Metric>) -> BoxFuture<'_, Result<(), ConsumeError>> {
                Box::pin(std::future::pending())
            }
        }
        hangs.attach(Arc::new(Hangs));
        let to = Consumer { metrics: hangs.receiver(), ..sink.consumer() };
        let value = Value::capsule(Arc::new(to));
        let body = "initial_value = \"drop\"";
        let unit = start_to::<CumulativeToDeltaProcessor>(value, body).await.unwrap();
        send(&unit, sum(CUMULATIVE, 1, 5, 1, 2)).await.unwrap();
        let batch = sum(CUMULATIVE, 1, 8, 1, 3);
        let gave_up = tokio::time::timeout(Duration::from_secs(1), send(&unit, batch.clone())).await;
        assert!(gave_up.is_err());
        hangs.attach(Arc::new(Fanned(Fanout::new([sink.consumer().metrics]))));
        send(&unit, batch).await.unwrap();
        assert_eq!(testing::arrived(&sink), [(2, 3, 3)]);
        assert_eq!(testing::told(&unit.world), ["series = 1"]);
        let balance = unit.world.balance_of(corten_signal::Kind::OtelMetric);
        assert_eq!(balance, "taken 2, out 1, dropped {initial: 1}");
    }

    struct Fanned(Fanout<OtlpMetrics>);

    impl Consume<OtlpMetrics> for Fanned {
        fn consume(&self, batch: Batch<Metric>) -> BoxFuture<'_, Result<(), ConsumeError>> {
            Box::pin(self.0.consume(batch))
        }
    }
}
