//! What components have in common that collect for a while and send metrics from time to time.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use corten_component::{Logger, Stop};
use corten_otlp::{Batch, Metric, OtlpMetrics};
use corten_signal::Fanout;
use corten_signal::ledger::{Kind, Row};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::resend::{Patience, Resend, SHUTDOWN, Unsent};

/// Collects, and hands out what there is to send.
pub(crate) trait Collect: Send + Sync + 'static {
    /// What is needed, besides the batch, to take it back.
    type Kept: Send;

    /// What is to be sent now; nothing if there is nothing.
    fn collect(&self) -> Option<(Batch<Metric>, Self::Kept)>;

    /// Takes back what nobody took in time, to go with the next collection.
    fn put_back(&self, batch: Batch<Metric>, kept: Self::Kept, row: &Row);

    /// Counts where points came from that were sent or dropped.
    fn count(&self, points: usize, row: &Row) {
        row.created(Kind::OtelTrace.as_str(), points);
    }
}

/// Sends what a collector has, from time to time and when it is asked to stop.
#[derive(Clone)]
pub(crate) struct Periodic {
    pub(crate) interval: Duration,
    pub(crate) forward: Fanout<OtlpMetrics>,
    /// Where the component counts points.
    pub(crate) row: Arc<Row>,
    pub(crate) resend: Resend,
    /// Told by the collector when what it has should not wait for its time.
    pub(crate) early: Arc<Notify>,
    /// Held while something is sent, so that what came first goes first over a change of arguments.
    pub(crate) turn: Arc<tokio::sync::Mutex<()>>,
}

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
                () = self.early.notified() => false,
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

    /// Sends what there is, and tries again until it is time for the next collection. What nobody took goes with that one, and
    /// with the one of other arguments if this is the last of these.
    async fn send<C: Collect>(&self, collector: &C, stop: &mut Stop) {
        let Some((batch, kept)) = collector.collect() else { return };
        let mut leaving = Leaving { collector, row: &self.row, points: batch.items(), why: "unfinished" };
        let stopping = std::pin::pin!(stop.wait());
        let patience = Patience { until: Some(Instant::now() + self.interval), stop: Some((stopping, STOP_WAIT_MAX)) };
        match self.resend.send(&self.row, &self.forward, batch, patience).await {
            Ok(()) => leaving.why = "",
            Err(Unsent { batch, .. }) => {
                leaving.points = 0;
                collector.put_back(batch, kept, &self.row);
            }
        }
    }
}

/// Points that leave a collector. They are dropped unless it is said that they were sent, as they are where a panic ends it.
struct Leaving<'a, C: Collect> {
    collector: &'a C,
    row: &'a Row,
    points: usize,
    /// Why they are dropped; empty where they are not.
    why: &'static str,
}

impl<C: Collect> Drop for Leaving<'_, C> {
    fn drop(&mut self) {
        if self.points > 0 {
            self.collector.count(self.points, self.row);
        }
        if !self.why.is_empty() {
            self.row.dropped(self.why, self.points);
        }
    }
}

/// Drops what a collector still has when nothing will ever be sent again, and says so.
pub(crate) fn give_up<C: Collect>(collector: &C, logger: &Logger, failed: &str, row: &Row) {
    let Some((batch, _)) = collector.collect() else { return };
    drop(Leaving { collector, row, points: batch.items(), why: SHUTDOWN });
    let fields = [("error", "the component has ended".into()), ("dropped_items", batch.items().into())];
    logger.error(failed, &fields);
    // Whoever keeps what it sent until it is safe sends it again.
    batch.acks.fail();
}

/// Now, in nanoseconds since the Unix epoch.
pub(crate) fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
