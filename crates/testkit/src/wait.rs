//! Waiting for conditions.

use std::time::{Duration, Instant};

/// How long a condition may take to come true, in real time, before the test fails. Long, because a machine that runs
/// tests may have much else to do; a test that passes never waits so long.
const WAIT_MAX: Duration = Duration::from_secs(120);

/// How often a condition is looked at. On a paused clock this is virtual time, which passes at once when nothing else is
/// to be done.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Waits until a condition holds.
///
/// # Panics
///
/// When it does not come true in time. `what` says what was waited for.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    until_some(what, || condition().then_some(())).await;
}

/// Waits until there is something, and gives it.
///
/// # Panics
///
/// When there is nothing in time. `what` says what was waited for.
pub async fn until_some<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < WAIT_MAX, "waited in vain until {what}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Looks at a condition for a span of time, which is virtual on a paused clock.
///
/// # Panics
///
/// As soon as it does not hold. `what` says what should have held.
pub async fn stays(what: &str, span: Duration, mut condition: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + span;
    loop {
        assert!(condition(), "no longer: {what}");
        if tokio::time::Instant::now() >= end {
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_with_the_condition() {
        let started = tokio::time::Instant::now();
        until("a second has passed", || started.elapsed() >= Duration::from_secs(1)).await;
        assert_eq!(until_some("there is a number", || Some(7)).await, 7);
        stays("time is young", Duration::from_secs(60), || started.elapsed() < Duration::from_secs(70)).await;
        assert!(started.elapsed() >= Duration::from_secs(61));
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "no longer: time is young")]
    async fn what_does_not_stay_fails_the_test() {
        let started = tokio::time::Instant::now();
        stays("time is young", Duration::from_secs(60), || started.elapsed() < Duration::from_secs(10)).await;
    }
}
