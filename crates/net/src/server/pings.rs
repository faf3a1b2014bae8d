//! Clients of HTTP/2 that ping too often, and what gRPC's servers do about them.
//!
//! The library answers pings and tells nobody. So the frames are followed as they pass: of each only the head is looked
//! at.

use std::time::Duration;

use tokio::time::Instant;

/// How often clients may ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PingPolicy {
    /// How much time has to pass between two pings, in milliseconds.
    pub gap_ms_min: u64,
    /// Whether that is also so while there is no request; otherwise two hours have to pass then.
    pub without_request: bool,
}

/// How much time has to pass between pings while there is no request, where the policy does not permit them.
const IDLE_GAP_MIN: Duration = Duration::from_secs(2 * 60 * 60);
/// How many pings may come too early before the connection is closed.
const STRIKES_MAX: u32 = 2;

/// A `GOAWAY` for all streams: `ENHANCE_YOUR_CALM`, with the text that gRPC's clients know.
const FAREWELL: &[u8] = b"\0\0\x16\x07\0\0\0\0\0\x7f\xff\xff\xff\0\0\0\x0btoo_many_pings";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PING: u8 = 6;
const ACK: u8 = 1;

/// The length of what a client begins a connection with.
const PREFACE_BYTES: usize = 24;
const HEAD_BYTES: usize = 9;

/// What of a stream of frames has passed.
#[derive(Debug, Default)]
struct Frames {
    /// What is to be passed over before the next head.
    skip: usize,
    head: [u8; HEAD_BYTES],
    len: usize,
}

impl Frames {
    /// Follows further bytes; `on` gets the types and flags of frames that begin.
    fn pass(&mut self, mut bytes: &[u8], mut on: impl FnMut(u8, u8)) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return;
            }
            let taken = (HEAD_BYTES - self.len).min(bytes.len());
            self.head[self.len..self.len + taken].copy_from_slice(&bytes[..taken]);
            self.len += taken;
            bytes = &bytes[taken..];
            if self.len == HEAD_BYTES {
                let [a, b, c, kind, flags, ..] = self.head;
                self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
                self.len = 0;
                on(kind, flags);
            }
        }
    }

    /// Whether no frame has begun and not ended.
    fn is_between(&self) -> bool {
        self.skip == 0 && self.len == 0
    }
}

/// The pings of one connection.
#[derive(Debug)]
pub(super) struct Pings {
    policy: PingPolicy,
    read: Frames,
    written: Frames,
    last: Option<Instant>,
    strikes: u32,
    /// Something was answered since the last ping: the client may have a reason to ping.
    answered: bool,
}

impl Pings {
    pub(super) fn new(policy: PingPolicy) -> Self {
        let read = Frames { skip: PREFACE_BYTES, ..Frames::default() };
        Pings { policy, read, written: Frames::default(), last: None, strikes: 0, answered: false }
    }

    /// Follows what has come in. After too many pings it is an error, with what to say to the client if that can be said.
    pub(super) fn read(&mut self, bytes: &[u8], has_requests: bool) -> Result<(), Option<&'static [u8]>> {
        let mut pings = 0u32;
        self.read.pass(bytes, |kind, flags| pings += u32::from(kind == PING && flags & ACK == 0));
        for _ in 0..pings {
            let now = Instant::now();
            let since = self.last.replace(now).map(|last| now - last);
            if std::mem::take(&mut self.answered) {
                self.strikes = 0;
                continue;
            }
            let gap = if has_requests || self.policy.without_request {
                Duration::from_millis(self.policy.gap_ms_min)
            } else {
                IDLE_GAP_MIN
            };
            self.strikes += u32::from(since.is_some_and(|since| since < gap));
        }
        if self.strikes > STRIKES_MAX { Err(self.written.is_between().then_some(FAREWELL)) } else { Ok(()) }
    }

    /// Follows what was written.
    pub(super) fn written(&mut self, bytes: &[u8]) {
        let answered = &mut self.answered;
        self.written.pass(bytes, |kind, _| *answered |= matches!(kind, DATA | HEADERS));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, len: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, len, kind, flags, 0, 0, 0, 0];
        frame.extend((0..len).map(|_| PING));
        frame
    }

    fn ping() -> Vec<u8> {
        frame(PING, 0, 8)
    }

    fn pings(gap_ms_min: u64, without_request: bool) -> Pings {
        let mut pings = Pings::new(PingPolicy { gap_ms_min, without_request });
        pings.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", false).unwrap();
        pings
    }

    #[tokio::test(start_paused = true)]
    async fn the_third_ping_that_comes_too_early_ends_it() {
        for (has_requests, without_request, wait_ms, ends) in [
            (true, false, 999, true),
            (true, false, 1000, false),
            (false, true, 1000, false),
            (false, true, 999, true),
            (false, false, 1000, true),
            (false, false, 2 * 60 * 60 * 1000, false),
        ] {
            let mut pings = pings(1000, without_request);
            for count in 1..=6 {
                let outcome = pings.read(&ping(), has_requests);
                assert_eq!(outcome.is_err(), ends && count > 3, "{has_requests} {without_request} {wait_ms} {count}");
                tokio::time::advance(Duration::from_millis(wait_ms)).await;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_ping_after_an_answer_is_none_too_many_and_an_answer_to_a_ping_is_no_ping() {
        let mut pings = pings(1000, false);
        for _ in 0..20 {
            assert_eq!(pings.read(&ping(), true), Ok(()));
            assert_eq!(pings.read(&frame(PING, ACK, 8), true), Ok(()));
            pings.written(&frame(HEADERS, 4, 20));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_farewell_does_not_go_into_the_middle_of_a_frame() {
        let mut pings = pings(1000, false);
        pings.written(&frame(PING, ACK, 8)[..12]);
        assert_eq!(pings.read(&ping().repeat(4), true), Err(None));
        pings.written(&frame(PING, ACK, 8)[12..]);
        assert_eq!(pings.read(&ping(), true), Err(Some(FAREWELL)));
    }

    proptest! {
        #[test]
        fn frames_are_the_same_in_whatever_pieces_they_come(
            frames in proptest::collection::vec((0u8..10, any::<u8>(), 0u8..40), 0..20),
            cuts in proptest::collection::vec(1usize..30, 1..20),
        ) {
            let bytes: Vec<u8> = frames.iter().flat_map(|(kind, flags, len)| frame(*kind, *flags, *len)).collect();
            let (mut scan, mut seen) = (Frames::default(), Vec::new());
            let (mut rest, mut cuts) = (&bytes[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                scan.pass(piece, |kind, flags| seen.push((kind, flags)));
                rest = behind;
            }
            prop_assert!(scan.is_between());
            prop_assert_eq!(seen, frames.iter().map(|(kind, flags, _)| (*kind, *flags)).collect::<Vec<_>>());
        }
    }
}
