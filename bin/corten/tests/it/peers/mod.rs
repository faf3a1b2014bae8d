//! Whole pipelines, from a target to a real Prometheus or VictoriaMetrics, and back by the peer's own API.

mod conformance;
mod delivery;
mod discovery;
mod exemplars;
mod histograms;
mod net;
mod peer;
mod protobuf;
mod receive;
mod staleness;
mod values;

use std::time::{Duration, Instant};

use crate::support::WAIT_MAX;

/// Requests soon, one at a time: a test waits for them.
const QUEUE: &str = "\n\t\t\tbatch_send_deadline = \"100ms\"\n\t\t\tmax_shards = 1\n\t\t";

/// Waits until there is something; what was seen last is told if there never is.
fn until<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) => assert!(started.elapsed() < WAIT_MAX, "waited in vain until {what}: {seen}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
