//! The choice of how many requests are under way at a time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use corten_component::{Context, Field};

use super::RemoteWrite;
use super::endpoint::EndpointInfo;

/// How often the number of partitions is chosen anew.
pub(super) const RESHARD_EVERY: Duration = Duration::from_secs(10);

/// The weight of the newest measurement in a rate.
pub(super) const RATE_WEIGHT: f64 = 0.2;

/// Measurements of an endpoint, smoothed, a second.
#[derive(Default)]
pub(super) struct Rates {
    pub(super) measured: Option<(Instant, u64, u64, u64)>,
    pub(super) taken: f64,
    pub(super) sent: f64,
    pub(super) sending: f64,
    pub(super) smooth: bool,
}

/// Chooses for each lane among how many partitions its series are shared out: as many requests as it takes to send what
/// comes in, and a twentieth of what waits each second, as far as the pace of a backlog allows.
pub(super) fn choose_partitions(endpoints: &[Arc<EndpointInfo>], cx: &Context<RemoteWrite>) {
    for info in endpoints {
        info.measure();
    }
    for info in endpoints {
        let of_lane = || endpoints.iter().filter(|other| Arc::ptr_eq(&other.lane, &info.lane));
        if !of_lane().next().is_some_and(|first| Arc::ptr_eq(first, info)) {
            continue;
        }
        info.lane.sweep();
        let wanted = of_lane().map(|info| info.wanted_shards()).max().unwrap_or(1);
        let now = info.lane.partitions();
        if wanted != now {
            let fields = [("from", Field::from(now)), ("to", Field::from(wanted))];
            cx.logger().info("Remote storage resharding", &fields);
            info.lane.set_partitions(wanted);
        }
    }
}

impl EndpointInfo {
    pub(super) fn measure(&self) {
        let taken = self.lane.taken();
        let sent = self.state.sent.load(Ordering::Relaxed);
        let sending = self.state.sending_nanos.load(Ordering::Relaxed);
        let mut rates = self.rates.lock();
        if let Some((at, taken_before, sent_before, sending_before)) =
            rates.measured.replace((Instant::now(), taken, sent, sending))
        {
            let seconds = at.elapsed().as_secs_f64().max(0.001);
            let weight = if std::mem::replace(&mut rates.smooth, true) { RATE_WEIGHT } else { 1.0 };
            let step = |rate: &mut f64, delta: f64| *rate += weight * (delta / seconds - *rate);
            step(&mut rates.taken, taken.saturating_sub(taken_before) as f64);
            step(&mut rates.sent, sent.saturating_sub(sent_before) as f64);
            step(&mut rates.sending, sending.saturating_sub(sending_before) as f64 / 1e9);
        }
    }

    pub(super) fn wanted_shards(&self) -> u16 {
        let config = self.queue_config.lock().clone();
        let clamp = |shards: u16| shards.clamp(config.min_shards, config.max_shards);
        let now = clamp(self.lane.partitions());
        let rates = self.rates.lock();
        if rates.sent <= 0.0 || self.state.failing.load(Ordering::Relaxed) {
            // Nothing is known of how fast the endpoint is, or it takes nothing: more requests would not help it.
            return now;
        }
        let lag = self.reader.lag();
        let waiting = (lag.pending.samples + lag.pending.histograms + lag.pending.exemplars) as f64;
        let backlog = (waiting - rates.taken * config.batch_send_deadline.as_secs_f64()).max(0.0);
        // A backlog is sent four times as fast as it came; more requests would only wait.
        let desired = rates.sending / rates.sent * (rates.taken + (0.05 * backlog).min(3.0 * rates.taken));
        *self.desired_shards.lock() = desired;
        let current = f64::from(now);
        if desired > current * 0.7 && desired < current * 1.3 {
            return now;
        }
        clamp(desired.ceil().clamp(1.0, f64::from(u16::MAX)) as u16)
    }
}
