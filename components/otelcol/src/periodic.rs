//! What components have in common that collect for a while and send metrics from time to time.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use corten_component::{Logger, Stop};
use corten_net::Backoff;
use corten_otlp::{Batch, Metric, OtlpMetrics};
use corten_signal::{ConsumeError, Fanout};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// Collects, and hands out what there is to send.
pub(crate) trait Collect: Send + Sync + 'static {
    /// What is needed, besides the batch, to take it back.
    type Kept: Send;

    /// What is to be sent now; nothing if there is nothing.
    fn collect(&self) -> Option<(Batch<Metric>, Self::Kept)>;

    /// Takes back what nobody took in time, to go with the next collection.
    fn put_back(&self, batch: Batch<Metric>, kept: Self::Kept);
}

/// Sends what a collector has, from time to time and when it is asked to stop.
#[derive(Clone)]
pub(crate) struct Periodic {
    pub(crate) interval: Duration,
    pub(crate) forward: Fanout<OtlpMetrics>,
    pub(crate) logger: Logger,
    /// What the log says of what was not taken.
    pub(crate) failed: &'static str,
    /// Held while something is sent, so that what came first goes first over a change of arguments.
    pub(crate) turn: Arc<tokio::sync::Mutex<()>>,
}

/// The waits between attempts where what follows asks for a further one.
const RETRY_WAIT_MIN: Duration = Duration::from_millis(50);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long attempts go on once the component is to stop.
const STOP_WAIT_MAX: Duration = Duration::from_secs(5);

impl Periodic {
    /// Runs until it is asked to stop; what there is then is sent, too.
    pub(crate) async fn run<C: Collect>(self, collector: Arc<C>, mut stop: Stop) -> Result<(), String> {
        let mut ticks = interval_at(Instant::now() + self.interval, self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let stopping = tokio::select! {
                _ = ticks.tick() => false,
                () = stop.wait() => true,
            };
            let turn = self.turn.lock().await;
            self.send(&*collector, &mut stop).await;
            drop(turn);
            if stopping {
                return Ok(());
            }
        }
    }

    /// Sends what there is, and tries again until it is time for the next collection.
    async fn send<C: Collect>(&self, collector: &C, stop: &mut Stop) {
        let Some((batch, kept)) = collector.collect() else { return };
        let mut until = Instant::now() + self.interval;
        if stop.is_set() {
            until = until.min(Instant::now() + STOP_WAIT_MAX);
        }
        let mut waits = Backoff::new(RETRY_WAIT_MIN, RETRY_WAIT_MAX);
        loop {
            let Err(error) = self.forward.offer(&batch).await else {
                batch.acks.safe();
                return;
            };
            if let ConsumeError::Retry { after, .. } = error {
                let wait = waits.next_wait_after(after);
                if Instant::now() + wait < until {
                    if stop.is_set() {
                        tokio::time::sleep(wait).await;
                    } else if !stop.sleep(wait).await {
                        until = until.min(Instant::now() + STOP_WAIT_MAX);
                    }
                    continue;
                }
            }
            let fields = [("error", error.to_string().into()), ("items", batch.items().into())];
            self.logger.error(self.failed, &fields);
            match error {
                ConsumeError::Retry { .. } => collector.put_back(batch, kept),
                // It will never be taken: there is nothing to try again.
                ConsumeError::Refused { .. } => batch.acks.safe(),
                ConsumeError::Exited { .. } => batch.acks.fail(),
            }
            return;
        }
    }
}

/// Now, in nanoseconds since the Unix epoch.
pub(crate) fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
