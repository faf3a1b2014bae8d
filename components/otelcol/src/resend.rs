//! Sending a batch again for as long as what follows asks for that.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use corten_component::Logger;
use corten_component::log::Level;
use corten_net::Backoff;
use corten_otlp::{Batch, OtlpSignal};
use corten_signal::ledger::{Row, reason_of};
use corten_signal::{ConsumeError, Fanout};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

/// The waits between attempts.
const WAIT_MIN: Duration = Duration::from_millis(50);
const WAIT_MAX: Duration = Duration::from_secs(5);
/// How often the log says that a batch is not taken, once that has lasted for as long.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// Says when it is time to say something again that could be said all the time.
#[derive(Debug, Default)]
pub(crate) struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    /// Whether it was not said for so long. It is said now then.
    pub(crate) fn is_time(&self, every: Duration) -> bool {
        let mut said = self.0.lock();
        let is_time = said.is_none_or(|at| at.elapsed() >= every);
        if is_time {
            *said = Some(Instant::now());
        }
        is_time
    }
}

/// Sends batches, and sends them again where what follows asks for a further attempt.
#[derive(Clone, Debug)]
pub(crate) struct Resend {
    logger: Logger,
    level: Level,
    failed: &'static str,
    warned: Arc<Seldom>,
}

/// How long attempts go on.
#[derive(Default)]
pub(crate) struct Patience<'a> {
    /// There are no further attempts after this; without it, there is no end.
    pub(crate) until: Option<Instant>,
    /// Ready when the component is to stop, and how long attempts go on after that. One that takes longer is given up.
    pub(crate) stop: Option<(Pin<&'a mut (dyn Future<Output = ()> + Send)>, Duration)>,
}

/// A batch that nobody took.
#[derive(Debug)]
pub(crate) struct Unsent<R: corten_otlp::Record> {
    pub(crate) batch: Batch<R>,
    /// Why, as it is counted if the batch is dropped.
    pub(crate) why: &'static str,
}

/// Why a batch was not sent when the component was to stop.
pub(crate) const SHUTDOWN: &str = "shutdown";

/// Waits until it is said that what is not taken is given up; for ever if it never is.
pub(crate) async fn ended(ending: &mut watch::Receiver<bool>) {
    if ending.wait_for(|ending| *ending).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// When attempts end.
struct Ends<'a> {
    patience: Patience<'a>,
    /// When even an attempt that goes on ends.
    last: Option<Instant>,
}

impl Ends<'_> {
    /// Does something; nothing comes of it if the time is over before.
    async fn within<T>(&mut self, done: impl Future<Output = T> + Send) -> Option<T> {
        tokio::pin!(done);
        if let Some((stop, _)) = &mut self.patience.stop {
            tokio::select! {
                biased;
                done = &mut done => return Some(done),
                () = stop => self.stops(),
            }
        }
        match self.last {
            Some(last) => tokio::time::timeout_at(last, done).await.ok(),
            None => Some(done.await),
        }
    }

    /// Waits for the next attempt, which is at once if the component is to stop meanwhile. `false` if there is none.
    async fn wait(&mut self, wait: Duration) -> bool {
        let next = Instant::now() + wait;
        if self.patience.until.is_some_and(|until| next >= until) {
            return false;
        }
        match &mut self.patience.stop {
            Some((stop, _)) => tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = stop => self.stops(),
            },
            None => tokio::time::sleep_until(next).await,
        }
        true
    }

    fn stops(&mut self) {
        if let Some((_, longer)) = self.patience.stop.take() {
            let last = Instant::now() + longer;
            self.last = Some(last);
            self.patience.until = Some(self.patience.until.map_or(last, |until| until.min(last)));
        }
    }
}

impl Resend {
    /// What is given up is said in the log like this.
    pub(crate) fn new(logger: Logger, level: Level, failed: &'static str) -> Self {
        Resend { logger, level, failed, warned: Arc::default() }
    }

    /// Sends a batch. What becomes of it is told to whoever waits for it, and the log says so if it is refused for good: then
    /// `row`, which is the component's, counts it as dropped.
    ///
    /// # Errors
    ///
    /// The batch, if nobody took it in time or who would take it is gone. The log says so.
    pub(crate) async fn send<S: OtlpSignal>(
        &self,
        row: &Row,
        forward: &Fanout<S>,
        batch: Batch<S::Record>,
        patience: Patience<'_>,
    ) -> Result<(), Unsent<S::Record>> {
        let mut waits = Backoff::new(WAIT_MIN, WAIT_MAX);
        let mut ends = Ends { patience, last: None };
        let begun = Instant::now();
        loop {
            let error = match ends.within(forward.offer(&batch)).await {
                Some(Ok(())) => {
                    batch.acks.safe();
                    return Ok(());
                }
                Some(Err(error)) => error,
                None => ConsumeError::Retry { after: None, reason: "it was not taken in time".to_owned() },
            };
            match &error {
                ConsumeError::Retry { after, .. } => {
                    let wait = waits.next_wait_after(*after);
                    let fields = [
                        ("err", error.to_string().into()),
                        ("items", batch.items().into()),
                        ("retry_after", wait.into()),
                    ];
                    if begun.elapsed() >= WARN_EVERY && self.warned.is_time(WARN_EVERY) {
                        self.logger.warn("the batch was not taken", &fields);
                    } else {
                        self.logger.debug("the batch was not taken", &fields);
                    }
                    if ends.wait(wait).await {
                        continue;
                    }
                    self.gives_up(&error, "items", &batch);
                    let why = if ends.last.is_some() { SHUTDOWN } else { reason_of(&error) };
                    return Err(Unsent { batch, why });
                }
                ConsumeError::Refused { .. } => {
                    // It will never be taken: there is nothing to try again.
                    self.gives_up(&error, "dropped_items", &batch);
                    row.dropped(reason_of(&error), batch.items());
                    batch.acks.safe();
                    return Ok(());
                }
                ConsumeError::Exited { .. } => {
                    self.gives_up(&error, "items", &batch);
                    return Err(Unsent { batch, why: reason_of(&error) });
                }
            }
        }
    }

    fn gives_up<R: corten_otlp::Record>(&self, error: &ConsumeError, items: &'static str, batch: &Batch<R>) {
        let fields = [("error", error.to_string().into()), (items, batch.items().into())];
        self.logger.log(self.level, self.failed, &fields);
    }
}

#[cfg(test)]
mod tests {
    use corten_component::Stop;
    use corten_otlp::{LogRecord, OtlpLogs};
    use corten_signal::acks::{Answer, waiter};
    use corten_signal::{Consume, Inlet};
    use corten_testkit::{OtlpSink, World, host, otlp};

    use super::*;

    fn batch() -> Batch<LogRecord> {
        otlp(r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{},{}]}]}]}"#)
    }

    fn retry() -> Option<ConsumeError> {
        Some(ConsumeError::Retry { after: None, reason: "busy".into() })
    }

    fn resend(world: &World) -> Resend {
        Resend::new(world.host().logger.clone(), Level::Warn, "gave up")
    }

    fn row(world: &World) -> &Row {
        world.host().ledger.row(corten_signal::Kind::OtelLog)
    }

    fn to(world: &World, sink: &OtlpSink) -> Fanout<OtlpLogs> {
        Fanout::of(&world.host().ledger, [sink.consumer().logs])
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_taken_at_last_is_safe_and_said_to_wait_meanwhile() {
        let (world, sink) = (host("otelcol.test.a"), OtlpSink::default());
        sink.answer_with(retry());
        let (acks, mut told) = waiter();
        let mut batch = batch();
        batch.acks = acks;
        let (resend, to) = (resend(&world), to(&world, &sink));
        let (sent, ()) = tokio::join!(resend.send(row(&world), &to, batch, Patience::default()), async {
            tokio::time::sleep(Duration::from_secs(100)).await;
            sink.answer_with(None);
        });
        assert!(sent.is_ok());
        assert_eq!(sink.sizes(), [2]);
        assert_eq!(told.wait(Duration::from_millis(1)).await, Answer::Safe);
        let warnings = world.logs().matches("level=warn msg=\"the batch was not taken\"").count();
        assert!((8..=10).contains(&warnings), "{}", world.logs());
        assert!(!world.logs().contains("gave up"));
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_end_when_they_are_to_end() {
        let (world, sink) = (host("otelcol.test.a"), OtlpSink::default());
        sink.answer_with(retry());
        let began = Instant::now();
        let patience = Patience { until: Some(began + Duration::from_secs(20)), stop: None };
        let back = resend(&world).send(row(&world), &to(&world, &sink), batch(), patience).await.unwrap_err();
        assert!((15..=20).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
        assert_eq!((back.batch.items(), back.why), (2, "not taken"));
        assert!(world.logs().contains("level=warn msg=\"gave up\""), "{}", world.logs());
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_asked_to_stop_tries_at_once_and_for_so_long() {
        let (world, sink) = (host("otelcol.test.a"), OtlpSink::default());
        sink.answer_with(Some(ConsumeError::Retry { after: Some(Duration::from_secs(3600)), reason: "busy".into() }));
        let (resend, to) = (resend(&world), to(&world, &sink));
        let (stopper, mut stop) = Stop::pair();
        let began = Instant::now();
        let stopping = std::pin::pin!(stop.wait());
        let patience = Patience { until: None, stop: Some((stopping, Duration::from_secs(5))) };
        let (sent, ()) = tokio::join!(resend.send(row(&world), &to, batch(), patience), async {
            tokio::time::sleep(Duration::from_secs(7)).await;
            sink.answer_with(None);
            stopper.stop();
        });
        assert!(sent.is_ok());
        assert_eq!((sink.sizes(), began.elapsed().as_secs()), (vec![2], 7));
    }

    /// Never answers.
    struct Hangs;

    impl Consume<OtlpLogs> for Hangs {
        fn consume(&self, _: Batch<LogRecord>) -> corten_signal::flow::BoxFuture<'_, Result<(), ConsumeError>> {
            Box::pin(std::future::pending())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_hangs_does_not_hold_up_the_end() {
        let world = host("otelcol.test.a");
        let inlet = Inlet::<OtlpLogs>::new("otelcol.test.hangs");
        inlet.attach(Arc::new(Hangs));
        let began = Instant::now();
        let stopping = std::pin::pin!(tokio::time::sleep(Duration::from_secs(3)));
        let patience = Patience { until: None, stop: Some((stopping, Duration::from_secs(5))) };
        let to = Fanout::of(&world.host().ledger, [inlet.receiver()]);
        let back = resend(&world).send(row(&world), &to, batch(), patience).await.unwrap_err();
        assert_eq!((back.why, began.elapsed().as_secs()), (SHUTDOWN, 8));
        assert!(world.logs().contains("gave up"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_is_dropped_and_what_nobody_is_there_for_comes_back() {
        let (world, sink) = (host("otelcol.test.a"), OtlpSink::default());
        sink.answer_with(Some(ConsumeError::Refused { reason: "never".into() }));
        let (resend, to) = (resend(&world), to(&world, &sink));
        assert!(resend.send(row(&world), &to, batch(), Patience::default()).await.is_ok());
        assert_eq!(row(&world).snapshot().dropped, [("refused".to_owned(), 2)]);
        assert!(world.logs().contains("error=never dropped_items=2"), "{}", world.logs());
        sink.answer_with(Some(ConsumeError::Exited { component: "gone".into() }));
        assert_eq!(resend.send(row(&world), &to, batch(), Patience::default()).await.unwrap_err().why, "exited");
        assert!(world.logs().contains("error=\"gone has exited\" items=2"), "{}", world.logs());
    }
}
