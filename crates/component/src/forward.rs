//! How batches of metrics are handed to the receivers of a `forward_to`. Two families do that.

use std::sync::Arc;
use std::time::{Duration, Instant};

use corten_signal::ledger::{Ledger, Route, reason_of};
use corten_signal::{ConsumeError, Metrics, MetricsBatch, Receiver};

use crate::metrics::{Counter, Histogram, Registry};

/// The bounds of `prometheus_fanout_latency`, in seconds.
const LATENCY_BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// The receivers of a component's `forward_to`, with the metrics that tell of them.
#[derive(Clone, Debug)]
pub struct Forward {
    receivers: Box<[Receiver<Metrics>]>,
    /// The way to each receiver.
    route: Arc<Route>,
    latency: Histogram,
    samples: Counter,
}

impl Forward {
    /// Hands batches to those of the receivers that lead somewhere, in order. The metrics stay those of the registry
    /// when another `Forward` takes the place of this one. What becomes of the batches is counted in the ledger.
    pub fn new(registry: &Registry, ledger: &Ledger, receivers: impl IntoIterator<Item = Receiver<Metrics>>) -> Self {
        let receivers: Box<[_]> = receivers.into_iter().filter(Receiver::leads_somewhere).collect();
        Forward {
            route: ledger.route_to(&receivers),
            receivers,
            latency: registry.histogram(
                "prometheus_fanout_latency",
                "Write latency for sending to direct and indirect components",
                LATENCY_BUCKETS,
            ),
            samples: registry.counter(
                "prometheus_forwarded_samples_total",
                "Total number of samples sent to downstream components.",
            ),
        }
    }

    /// Whether a receiver looks at where a batch comes from.
    pub fn wants_origin(&self) -> bool {
        self.receivers.iter().any(Receiver::wants_origin)
    }

    /// Hands a batch to every receiver, also when one of them refuses it. A batch without parts goes nowhere.
    ///
    /// The last receiver gets the batch itself: where the caller keeps no copy it can be changed in place.
    ///
    /// # Errors
    ///
    /// The refusals of all receivers, as one.
    pub async fn consume(&self, batch: Arc<MetricsBatch>) -> Result<(), ConsumeError> {
        self.hand_on(batch, true).await.map_err(|NotTaken { error, .. }| error)
    }

    /// Hands a batch to every receiver as [`consume`](Self::consume) does, for a producer who does not send it again: what
    /// no receiver took is dropped, and counted so.
    ///
    /// # Errors
    ///
    /// The refusals of all receivers, as one.
    pub async fn consume_once(&self, batch: Arc<MetricsBatch>) -> Result<(), ConsumeError> {
        let items = batch.items();
        self.hand_on(batch, false).await.map_err(|NotTaken { error, by_all }| {
            if by_all {
                self.route.row().dropped(reason_of(&error), items);
            }
            error
        })
    }

    /// Hands a batch to every receiver. A producer who sends it `again` where one of them refuses it gives all of them the
    /// same twice.
    async fn hand_on(&self, batch: Arc<MetricsBatch>, again: bool) -> Result<(), NotTaken> {
        if batch.parts.is_empty() {
            return Ok(());
        }
        let items = batch.items();
        let Some(last) = self.receivers.len().checked_sub(1) else {
            self.route.row().dropped("no receiver", items);
            return Ok(());
        };
        let samples = batch.parts.iter().map(|part| part.samples.len() as u64).sum();
        let started = Instant::now();
        let mut errors = Vec::new();
        // To all at once: where the producer gives up in the middle, those whose turn has not come have lost it, too.
        let mut spread = self.route.spread::<Metrics>(&batch);
        let mut batch = Some(batch);
        for (at, receiver) in self.receivers.iter().enumerate() {
            let Some(batch) = (if at == last { batch.take() } else { batch.clone() }) else { break };
            match receiver.consume(batch).await {
                Ok(()) => spread.taken(at),
                Err(error) => {
                    spread.failed(at, reason_of(&error));
                    errors.push(error);
                }
            }
        }
        self.latency.observe_duration(started.elapsed());
        // What one receiver took was forwarded, whatever the others said.
        let by_all = errors.len() == self.receivers.len();
        if !by_all {
            self.samples.add(samples);
        }
        let outcome = join(errors);
        let is_done = outcome.is_ok() || !by_all && !again;
        let _ = spread.end(if is_done { Ok(()) } else { Err(()) });
        outcome.map_err(|error| NotTaken { error, by_all })
    }
}

/// A batch was refused.
struct NotTaken {
    error: ConsumeError,
    /// Whether nobody took it.
    by_all: bool,
}

/// Several refusals as one. It asks the producer to try again if one of them does so, or if a receiver is gone, whose
/// successor may take the batch: what the others get twice is the same.
fn join(mut errors: Vec<ConsumeError>) -> Result<(), ConsumeError> {
    if errors.len() < 2 {
        return errors.pop().map_or(Ok(()), Err);
    }
    let reason = errors.iter().map(ConsumeError::to_string).collect::<Vec<_>>().join("; ");
    if errors.iter().all(|error| matches!(error, ConsumeError::Refused { .. })) {
        return Err(ConsumeError::Refused { reason });
    }
    let waits = errors.iter().map(|error| match error {
        ConsumeError::Retry { after, .. } => *after,
        ConsumeError::Refused { .. } | ConsumeError::Exited { .. } => None,
    });
    let after: Option<Duration> = waits.max().flatten();
    Err(ConsumeError::Retry { after, reason })
}

#[cfg(test)]
mod tests {
    use corten_signal::flow::BoxFuture;
    use corten_signal::ledger::Row;
    use corten_signal::{BlockBuilder, Consume, Inlet, LabelsBuilder, Sample, SeriesPart};
    use parking_lot::Mutex;

    use super::*;
    use crate::metrics::{Snapshot, Value};

    /// A receiver that answers always the same, and notes how often the batch it got was shared.
    struct Answer(Result<(), ConsumeError>, Arc<Mutex<Vec<usize>>>);

    impl Consume<Metrics> for Answer {
        fn consume(&self, batch: Arc<MetricsBatch>) -> BoxFuture<'_, Result<(), ConsumeError>> {
            self.1.lock().push(Arc::strong_count(&batch));
            Box::pin(async { self.0.clone() })
        }
    }

    fn batch(samples: usize) -> Arc<MetricsBatch> {
        let (mut block, mut labels) = (BlockBuilder::new(), LabelsBuilder::new());
        labels.push("__name__", "up");
        let index = block.push(&mut labels).unwrap();
        let samples = (0..samples).map(|at| Sample { value: 1.0, index, offset_ms: at as i32 }).collect();
        Arc::new(MetricsBatch::of(vec![SeriesPart::of_samples(block.finish(false), 0, samples)]))
    }

    fn retry(seconds: Option<u64>) -> Result<(), ConsumeError> {
        Err(ConsumeError::Retry { after: seconds.map(Duration::from_secs), reason: "busy".to_owned() })
    }

    fn refused(reason: &str) -> Result<(), ConsumeError> {
        Err(ConsumeError::Refused { reason: reason.to_owned() })
    }

    struct Outcome {
        answer: Result<(), ConsumeError>,
        /// How often the batch was shared when each receiver got it, in order.
        shared: Vec<usize>,
        forwarded: u64,
        observations: u64,
    }

    async fn forward(answers: &[Result<(), ConsumeError>], batch: Arc<MetricsBatch>) -> Outcome {
        let seen: Arc<Mutex<Vec<usize>>> = Arc::default();
        let inlets: Vec<_> = answers
            .iter()
            .map(|answer| {
                let inlet = Inlet::new("prometheus.echo.a");
                inlet.attach(Arc::new(Answer(answer.clone(), Arc::clone(&seen))));
                inlet
            })
            .collect();
        let receivers = inlets.iter().map(Inlet::receiver).chain([Receiver::NOWHERE]);
        let registry = Registry::new();
        let answer = Forward::new(&registry, &Ledger::new("prometheus.scrape.a"), receivers).consume(batch).await;
        let mut snapshot = Snapshot::default();
        registry.gather(&[], &mut snapshot);
        let (mut forwarded, mut observations) = (0, 0);
        for family in snapshot.families() {
            match (family.name.as_str(), &family.metrics[0].1) {
                ("prometheus_forwarded_samples_total", Value::Number(number)) => forwarded = *number as u64,
                ("prometheus_fanout_latency", Value::Histogram { count, .. }) => observations = *count,
                other => panic!("{other:?}"),
            }
        }
        let shared = std::mem::take(&mut *seen.lock());
        Outcome { answer, shared, forwarded, observations }
    }

    #[tokio::test]
    async fn samples_count_that_at_least_one_receiver_took() {
        for (answers, forwarded) in [
            (vec![Ok(())], 3),
            (vec![Ok(()), Ok(())], 3),
            (vec![refused("a"), Ok(())], 3),
            (vec![Ok(()), refused("a")], 3),
            (vec![refused("a"), refused("b")], 0),
            (vec![], 0),
        ] {
            let outcome = forward(&answers, batch(3)).await;
            assert_eq!(outcome.forwarded, forwarded, "{answers:?}");
            assert_eq!(outcome.observations, u64::from(!answers.is_empty()), "{answers:?}");
        }
    }

    #[tokio::test]
    async fn what_is_not_sent_again_is_dropped_where_nobody_took_it() {
        for (answers, expected) in [
            (vec![Ok(())], (3, [].as_slice(), [].as_slice())),
            (vec![refused("a"), Ok(())], (3, &[], &[])),
            (vec![refused("a"), retry(None)], (0, &[("not taken", 3)], &[])),
            (vec![refused("a")], (0, &[("refused", 3)], &[])),
            (vec![], (0, &[("no receiver", 3)], &[])),
        ] {
            let inlets = answers.iter().map(|answer| {
                let inlet = Inlet::of(&Ledger::new("prometheus.echo.a"));
                inlet.attach(Arc::new(Answer(answer.clone(), Arc::default())));
                inlet
            });
            let (inlets, ledger) = (Vec::from_iter(inlets), Ledger::new("prometheus.scrape.a"));
            let forward = Forward::new(&Registry::new(), &ledger, inlets.iter().map(Inlet::receiver));
            let answer = forward.consume_once(batch(3)).await;
            assert_eq!(answer.is_ok(), answers.iter().all(Result::is_ok));
            let row = ledger.row_of::<Metrics>().snapshot();
            let counts = |counts: &[(String, u64)]| counts.to_vec();
            let owned = |counts: &[(&str, u64)]| Vec::from_iter(counts.iter().map(|(why, n)| ((*why).to_owned(), *n)));
            let (out, dropped, created) = expected;
            assert_eq!((row.out, counts(&row.dropped), counts(&row.created)), (out, owned(dropped), owned(created)));
        }
    }

    /// A receiver that does one thing after the other: takes a batch, refuses it, asks for it again, never answers, panics.
    struct Deeds(Mutex<std::vec::IntoIter<u8>>, Arc<Row>);

    impl Consume<Metrics> for Deeds {
        fn consume(&self, batch: Arc<MetricsBatch>) -> BoxFuture<'_, Result<(), ConsumeError>> {
            let deed = self.0.lock().next().unwrap_or_default();
            Box::pin(async move {
                match deed {
                    0 | 1 => self.1.out(batch.items()),
                    2 => return refused("no"),
                    3 => return retry(None),
                    4 => std::future::pending().await,
                    _ => panic!("a deed"),
                }
                Ok(())
            })
        }
    }

    proptest::proptest! {
        /// Whatever the receivers do, and which ones a reload puts in place of which, each item is somewhere, also where the
        /// producer gives up in the middle.
        #[test]
        fn every_sum_is_even_at_rest(
            deeds in proptest::collection::vec(proptest::collection::vec(0u8..6, 0..8), 3),
            routes in proptest::collection::vec(
                (proptest::collection::vec(0usize..3, 0..4), proptest::collection::vec(0usize..4, 1..8)),
                1..3,
            ),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let sinks: Vec<_> = (0..3).map(|at| Ledger::new(format!("prometheus.echo.{at}"))).collect();
                let inlets: Vec<_> = sinks.iter().map(|ledger| Inlet::<Metrics>::of(ledger)).collect();
                for ((inlet, ledger), deeds) in inlets.iter().zip(&sinks).zip(deeds) {
                    let row = Arc::clone(ledger.row_of::<Metrics>());
                    inlet.attach(Arc::new(Deeds(Mutex::new(deeds.into_iter()), row)));
                }
                let (source, registry) = (Ledger::new("prometheus.scrape.a"), Registry::new());
                let row = Arc::clone(source.row_of::<Metrics>());
                let mut last = None;
                for (to, batches) in routes {
                    let forward = Forward::new(&registry, &source, to.iter().map(|at| inlets[*at].receiver()));
                    for items in batches {
                        let forward = forward.clone();
                        // In a task of its own, as a panic of a component is.
                        let call = tokio::spawn(async move {
                            tokio::time::timeout(Duration::from_secs(1), forward.consume(batch(items))).await
                        });
                        if let Ok(Ok(Ok(()))) = call.await {
                            row.received(items);
                        }
                    }
                    // Ways that nobody has are not looked at.
                    last = Some(forward);
                }
                let all: Vec<_> = std::iter::once(&source).chain(&sinks).cloned().collect();
                proptest::prop_assert_eq!(corten_signal::ledger::open_sums(&all), []);
                drop(last);
                Ok(())
            })?;
        }
    }

    #[tokio::test]
    async fn every_receiver_is_called_and_the_refusals_are_joined() {
        let exited = || Err(ConsumeError::Exited { component: "prometheus.echo.b".to_owned() });
        let joined = |after: Option<u64>, reason: &str| {
            Err(ConsumeError::Retry { after: after.map(Duration::from_secs), reason: reason.to_owned() })
        };
        for (answers, expected) in [
            (vec![Ok(()), exited(), Ok(())], exited()),
            (vec![refused("a"), Ok(()), refused("b")], refused("a; b")),
            (vec![refused("a"), exited()], joined(None, "a; prometheus.echo.b has exited")),
            (vec![retry(Some(3)), refused("a"), retry(None)], joined(Some(3), "busy; a; busy")),
            (vec![], Ok(())),
        ] {
            let outcome = forward(&answers, batch(1)).await;
            assert_eq!((outcome.answer, outcome.shared.len()), (expected, answers.len()));
        }
    }

    #[tokio::test]
    async fn the_last_receiver_owns_the_batch() {
        let outcome = forward(&[Ok(()), Ok(()), Ok(())], batch(1)).await;
        assert_eq!(outcome.shared, [2, 2, 1]);
    }

    #[tokio::test]
    async fn a_batch_without_parts_goes_nowhere() {
        let outcome = forward(&[refused("a")], Arc::default()).await;
        assert_eq!((outcome.answer, outcome.shared.len(), outcome.observations), (Ok(()), 0, 0));
    }
}
