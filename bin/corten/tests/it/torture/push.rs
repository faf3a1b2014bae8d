//! Who pushes, and the exact ledger of what was accepted.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::net::Client;
use super::sink::Sink;
use super::{lock, shared, wire};
use crate::support::Corten;

/// The component that takes what is pushed, for `prometheus.remote_write.out`.
pub(super) const RECEIVER: &str = "prometheus.receive_http \"push\" {
	http {
		listen_address = \"127.0.0.1\"
		listen_port    = 0
	}
	forward_to = [prometheus.remote_write.out.receiver]
}";

/// Where the receiver of a program listens.
pub(super) fn receiver(corten: &Corten) -> SocketAddr {
    let line = corten.line("listening for remote write requests");
    let address = line.split("addr=").nth(1).expect("an address").split_whitespace().next().expect("an address");
    address.parse().expect("an address")
}

/// Pushes samples whose values are the number of the push, one request after the other.
pub(super) struct Pusher {
    number: usize,
    series: usize,
    ledger: Arc<Mutex<Ledger>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What became of the pushes of one pusher, by their numbers; the first is number 1.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    pub(super) last: u64,
    /// Answered with success.
    pub(super) accepted: Vec<u64>,
    /// Answered otherwise, with the status.
    pub(super) refused: Vec<(u64, u16)>,
    /// Not answered: nobody knows.
    pub(super) unknown: Vec<u64>,
}

/// Where to push to: nothing while the program is down.
pub(super) type Where = Arc<Mutex<Option<SocketAddr>>>;

impl Pusher {
    /// A pusher with so many series in each push.
    pub(super) fn start(number: usize, series: usize, pause: Duration, to: &Where) -> Self {
        let (ledger, stop) = (shared(Ledger::default()), Arc::new(AtomicBool::new(false)));
        let thread = {
            let (ledger, stop, to) = (Arc::clone(&ledger), Arc::clone(&stop), Arc::clone(to));
            std::thread::spawn(move || {
                let mut client: Option<(SocketAddr, Client)> = None;
                while !stop.load(Ordering::Relaxed) {
                    std::thread::sleep(pause);
                    let Some(address) = *lock(&to) else {
                        client = None;
                        std::thread::sleep(Duration::from_millis(2));
                        continue;
                    };
                    if client.as_ref().is_none_or(|(have, _)| *have != address) {
                        client = Client::connect(address).ok().map(|client| (address, client));
                    }
                    let Some((_, connected)) = &mut client else { continue };
                    let push = {
                        let mut ledger = lock(&ledger);
                        ledger.last += 1;
                        ledger.last
                    };
                    let answer = connected.push(&body(number, series, push));
                    let mut ledger = lock(&ledger);
                    match answer {
                        Ok(answer) if answer.status / 100 == 2 => ledger.accepted.push(push),
                        Ok(answer) => ledger.refused.push((push, answer.status)),
                        Err(_) => {
                            ledger.unknown.push(push);
                            client = None;
                        }
                    }
                }
            })
        };
        Pusher { number, series, ledger, stop, thread: Some(thread) }
    }

    pub(super) fn ledger(&self) -> Ledger {
        lock(&self.ledger).clone()
    }

    pub(super) fn accepted(&self) -> usize {
        lock(&self.ledger).accepted.len()
    }

    /// Pushes no more.
    pub(super) fn stop(&mut self) -> Ledger {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("it pushes to its end");
        }
        self.ledger()
    }

    /// The names of its series.
    pub(super) fn names(&self) -> Vec<String> {
        (0..self.series)
            .map(|at| format!("{{__name__=\"torture_push\",pusher=\"{}\",series=\"{at}\"}}", self.number))
            .collect()
    }

    /// Which pushes have not arrived, of those that were accepted, and which of their series are missing.
    pub(super) fn missing(&self, sink: &Sink, seen: &Seen) -> BTreeMap<u64, BTreeSet<usize>> {
        let numbers: Vec<Option<u32>> = self.names().iter().map(|name| sink.number(name)).collect();
        let lost = |push: u64| -> BTreeSet<usize> {
            let is_lost = |at: &usize| numbers[*at].is_none_or(|number| !seen.has(number, push as f64));
            (0..numbers.len()).filter(is_lost).collect()
        };
        let ledger = self.ledger();
        ledger.accepted.iter().map(|push| (*push, lost(*push))).filter(|(_, lost)| !lost.is_empty()).collect()
    }
}

impl Drop for Pusher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The body of a push.
pub(super) fn body(pusher: usize, series: usize, push: u64) -> Vec<u8> {
    let time_ms = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64;
    let mut message = Vec::new();
    for at in 0..series {
        let labels = [("__name__", "torture_push"), ("pusher", &*pusher.to_string()), ("series", &*at.to_string())];
        wire::put_series(&mut message, &labels, push as f64, time_ms);
    }
    wire::compress(&message)
}

/// What an endpoint took, sorted out.
#[derive(Default)]
pub(super) struct Seen {
    /// For each series the bits of the values.
    values: Vec<HashSet<u64>>,
    highest: Vec<f64>,
    /// Which requests brought something again, by their place among all.
    pub(super) repeats: Vec<usize>,
    pub(super) late: usize,
    read: usize,
}

impl Seen {
    pub(super) fn has(&self, series: u32, value: f64) -> bool {
        self.values.get(series as usize).is_some_and(|values| values.contains(&value.to_bits()))
    }

    /// Reads on in what an endpoint took of series whose values rise, and checks their order: a value that is lower than one
    /// before it must be one that was there before.
    pub(super) fn read(&mut self, sink: &Sink) {
        let (taken, names) = (sink.taken(), sink.names());
        self.values.resize_with(names.len(), HashSet::new);
        self.highest.resize(names.len(), f64::NEG_INFINITY);
        for (place, taken) in taken.iter().enumerate().skip(self.read) {
            self.late += usize::from(taken.late);
            let mut repeats = false;
            for (series, value, _) in &taken.samples {
                let name = &names[*series as usize];
                // A marker has no place among the values.
                if !name.contains("\"torture_") || value.is_nan() {
                    continue;
                }
                let (values, highest) = (&mut self.values[*series as usize], &mut self.highest[*series as usize]);
                if *value > *highest {
                    *highest = *value;
                    values.insert(value.to_bits());
                } else {
                    repeats = true;
                    assert!(
                        values.contains(&value.to_bits()),
                        "{name}: {value} comes after {highest} and was not there before"
                    );
                }
            }
            if repeats {
                self.repeats.push(place);
            }
        }
        self.read = taken.len();
    }
}
