//! How fast a backlog is sent.
//!
//! After an outage the oldest goes first, and at most [`RATIO`] times as fast as it came: a peer that has just come back
//! is not flooded by all its clients at once. What a record's creation tells is when it came, so that the pace needs no
//! measurement of rates and holds after a restart, too.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How many seconds of what came are sent in a second.
const RATIO: u32 = 4;

/// What came later than this is no backlog, and is sent as fast as the peer takes it.
const AGE_MIN: Duration = Duration::from_secs(60);

/// Where nothing came for longer than this, it counts as this: the program may not have run.
const GAP_MAX: Duration = Duration::from_secs(60);

/// How far ahead of its pace a sender may be.
const AHEAD_MAX: Duration = Duration::from_secs(2);

/// The pace of one sender.
#[derive(Debug)]
pub struct Pace {
    ratio: u32,
    age_min: Duration,
    ahead_max: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When the newest of the backlog that was let through came, in milliseconds since the Unix epoch.
    reached_ms: Option<i64>,
    /// When it was due.
    due: Option<Instant>,
}

impl Default for Pace {
    fn default() -> Self {
        Pace::new(RATIO, AGE_MIN, AHEAD_MAX)
    }
}

impl Pace {
    /// A backlog goes so many times as fast as it came, if it is older than this, and is at most so far ahead of that.
    pub fn new(ratio: u32, age_min: Duration, ahead_max: Duration) -> Self {
        Pace { ratio, age_min, ahead_max, state: Mutex::default() }
    }

    /// When records may be sent that came until `created_ms`; none if at once. It counts as sent then.
    pub fn next(&self, created_ms: i64, now_ms: i64, now: Instant) -> Option<Instant> {
        let millis = |ms: i64| Duration::from_millis(ms.max(0) as u64);
        if millis(now_ms.saturating_sub(created_ms)) < self.age_min {
            return None;
        }
        let mut state = self.state.lock();
        let step = state
            .reached_ms
            .map_or(Duration::ZERO, |reached_ms| millis(created_ms.saturating_sub(reached_ms)).min(GAP_MAX));
        state.reached_ms = state.reached_ms.max(Some(created_ms));
        let due = state.due.map_or(now, |due| due.max(now)) + step / self.ratio;
        state.due = Some(due);
        due.checked_sub(self.ahead_max).filter(|at| *at > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_700_000_000_000;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_young_is_never_held_back() {
        let (pace, now) = (Pace::default(), Instant::now());
        for age_ms in [59_999, 30_000, 1, 0, -5000] {
            assert_eq!(pace.next(NOW_MS - age_ms, NOW_MS, now), None);
        }
    }

    #[test]
    fn a_backlog_goes_four_times_as_fast_as_it_came() {
        let (pace, start) = (Pace::default(), Instant::now());
        let (mut now, mut now_ms) = (start, NOW_MS);
        let first_ms = NOW_MS - 3_600_000;
        // Ten minutes of a record a second, over two partitions, to a peer that takes everything at once.
        for second in 0..=600 {
            for _ in 0..2 {
                if let Some(at) = pace.next(first_ms + second * 1000, now_ms, now) {
                    now_ms += (at - now).as_millis() as i64;
                    now = at;
                }
            }
        }
        assert_eq!(now - start, seconds(150) - AHEAD_MAX);
    }

    #[test]
    fn a_slow_peer_earns_no_burst() {
        let (pace, start) = (Pace::default(), Instant::now());
        let first_ms = NOW_MS - 3_600_000;
        assert_eq!(pace.next(first_ms, NOW_MS, start), None);
        // The peer takes nothing for an hour; then everything is as it was.
        let now = start + seconds(3600);
        assert_eq!(pace.next(first_ms + 4000, NOW_MS, now), None);
        assert_eq!(pace.next(first_ms + 40_000, NOW_MS, now), Some(now + seconds(10) - AHEAD_MAX));
    }

    #[test]
    fn hours_without_data_take_seconds() {
        let (pace, now) = (Pace::default(), Instant::now());
        let first_ms = NOW_MS - 36_000_000;
        assert_eq!(pace.next(first_ms, NOW_MS, now), None);
        assert_eq!(pace.next(first_ms + 18_000_000, NOW_MS, now), Some(now + seconds(15) - AHEAD_MAX));
        // What is older than what was let through costs nothing.
        assert_eq!(pace.next(first_ms + 1000, NOW_MS, now), Some(now + seconds(15) - AHEAD_MAX));
    }
}
