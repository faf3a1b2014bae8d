//! When to try again: what the peer asked for, and what we choose ourselves.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::RETRY_AFTER;

/// The longest wait that a peer may ask for, in seconds: a day. A larger figure is a mistake of the peer's, and taking
/// it at its word would stop a sink for good.
pub const RETRY_AFTER_SECONDS_MAX: u64 = 86_400;

/// The wait that a response asks for with `Retry-After`, counted from `now`.
///
/// `None` when the header is absent, unreadable, zero, negative or in the past: then the caller's own backoff counts.
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    parse_retry_after(headers.get(RETRY_AFTER)?.as_bytes(), now)
}

/// Reads the value of a `Retry-After` header: whole seconds or an HTTP date (RFC 9110, 10.2.3).
pub fn parse_retry_after(value: &[u8], now: SystemTime) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?.trim();
    let digits = text.strip_prefix('+').unwrap_or(text);
    let wait = if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than fit in 64 bits ask for longer than the limit anyway.
        Duration::from_secs(digits.parse().unwrap_or(u64::MAX))
    } else {
        httpdate::parse_http_date(text).ok()?.duration_since(now).ok()?
    };
    let wait = wait.min(Duration::from_secs(RETRY_AFTER_SECONDS_MAX));
    (!wait.is_zero()).then_some(wait)
}

/// Waits that double from a lowest to a highest value, without jitter: what the reference's sinks do.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// Starts at `min`. A `max` below `min` counts as `min`.
    pub fn new(min: Duration, max: Duration) -> Self {
        Self { min, max: max.max(min), next: min }
    }

    /// The wait before the next attempt; the one after it is twice as long, up to the highest.
    pub fn next_wait(&mut self) -> Duration {
        self.next_wait_after(None)
    }

    /// As [`Backoff::next_wait`], but what the peer asked for replaces the wait, even beyond the highest; the wait after
    /// it is twice as long again, up to the highest.
    pub fn next_wait_after(&mut self, asked: Option<Duration>) -> Duration {
        let wait = asked.unwrap_or(self.next);
        self.next = wait.saturating_mul(2).clamp(self.min, self.max);
        wait
    }

    /// Starts again at the lowest: after a success.
    pub fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777)
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        for (value, seconds) in [
            ("5", Some(5)),
            (" 120 ", Some(120)),
            ("0", None),
            ("-3", None),
            ("", None),
            ("soon", None),
            ("1.5", None),
            ("99999999999999999999999", Some(RETRY_AFTER_SECONDS_MAX)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08:00:00 GMT", None),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(RETRY_AFTER_SECONDS_MAX)),
        ] {
            assert_eq!(parse_retry_after(value.as_bytes(), now()), seconds.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn the_header_is_read_from_a_response() {
        let mut headers = HeaderMap::new();
        assert_eq!(retry_after(&headers, now()), None);
        headers.insert(RETRY_AFTER, "7".parse().unwrap());
        assert_eq!(retry_after(&headers, now()), Some(Duration::from_secs(7)));
    }

    #[test]
    fn backoff_doubles_to_its_highest_and_starts_again() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(30), ms(100));
        assert_eq!([backoff.next_wait(), backoff.next_wait(), backoff.next_wait()], [ms(30), ms(60), ms(100)]);
        assert_eq!(backoff.next_wait(), ms(100));
        backoff.reset();
        assert_eq!(backoff.next_wait(), ms(30));
    }

    #[test]
    fn what_the_peer_asked_for_replaces_one_wait_and_doubles_the_next() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(30), ms(5_000));
        assert_eq!(backoff.next_wait_after(Some(ms(60_000))), ms(60_000));
        assert_eq!(backoff.next_wait(), ms(5_000));
        backoff.reset();
        assert_eq!(backoff.next_wait_after(Some(ms(1_000))), ms(1_000));
        assert_eq!(backoff.next_wait(), ms(2_000));
    }

    proptest! {
        #[test]
        fn reading_retry_after_never_panics_and_stays_within_its_limit(value in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some(wait) = parse_retry_after(&value, now()) {
                prop_assert!(!wait.is_zero() && wait.as_secs() <= RETRY_AFTER_SECONDS_MAX);
            }
        }

        #[test]
        fn backoff_stays_within_its_bounds(min in 0_u64..10_000, max in 0_u64..10_000, asked in proptest::collection::vec(any::<Option<u64>>(), 0..20)) {
            let mut backoff = Backoff::new(Duration::from_millis(min), Duration::from_millis(max));
            for wait in asked {
                backoff.next_wait_after(wait.map(Duration::from_millis));
                let next = backoff.clone().next_wait();
                prop_assert!(next >= Duration::from_millis(min) && next <= Duration::from_millis(max.max(min)));
            }
        }
    }
}
