//! What must not break, done to the real binary: kills, damage, full disks, reloads, garbage, overload.
//!
//! Every test of this folder runs with the others, in parallel, and takes some seconds. All that is left to chance comes
//! from a seed, which is printed when a test fails:
//!
//! ```sh
//! CORTEN_TORTURE_SEED=7 cargo test -p corten --test it torture::kill      # the same choices again
//! CORTEN_TORTURE_ROUNDS=50 cargo test -p corten --test it torture::       # a soak: so many times as many rounds
//! ```
//!
//! - `kill.rs`: `kill -9` while the endpoint fails in every way. The ledger is exact: who pushes notes what was answered
//!   with success, the endpoint notes what it took.
//! - `damage.rs`: one flipped bit anywhere in the files of the program.
//! - `disk.rs`: a disk that is full, and has space again. With a file system of 8 MB where the test may mount one, and by
//!   a limit on the size of files in any case.
//! - `reloads.rs`: a thousand reloads under load.
//! - `garbage.rs`: what targets, pushers and clients of the API may send instead of what they should.
//! - `load.rs`: ten times of what the endpoint takes.
//! - `logs.rs`: files that are rotated in every way while the program is killed, stopped and reloaded.
//! - `pushed_logs.rs`: `kill -9` while logs are pushed, and while what they are sent to fails in every way.
//! - `otlp.rs`: the same with OTLP, and a flood beside a limit on memory.
//!
//! The tests share no code with the program: they read and write its protocols by themselves (`wire.rs`).

mod damage;
mod disk;
mod garbage;
mod kill;
mod load;
mod logs;
pub(crate) mod net;
mod otlp;
mod push;
mod pushed_logs;
mod reloads;
pub(crate) mod sink;
mod wire;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use self::net::Client;
use crate::support::{Corten, WAIT_MAX};

/// Waits until there is something; what was seen last is told if there never is.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) => assert!(started.elapsed() < WAIT_MAX, "waited in vain until {what}: {seen}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// How many rounds a test goes: as many as it goes in continuous integration, times what a soak asks for.
fn rounds(usual: u64) -> u64 {
    let times = std::env::var("CORTEN_TORTURE_ROUNDS").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    usual * times
}

/// Numbers by chance, from a seed that is printed (SplitMix64).
#[derive(Debug)]
struct Rng(u64);

impl Rng {
    #[expect(clippy::print_stdout, reason = "the test runner shows it when the test fails")]
    fn new(test: &str) -> Self {
        let given = std::env::var("CORTEN_TORTURE_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
            now.as_nanos() as u64 % 1_000_000
        });
        println!("{test}: CORTEN_TORTURE_SEED={seed}");
        Rng(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below another.
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last - first + 1)
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).collect();
        bytes.truncate(len);
        bytes
    }

    fn millis(&mut self, first: u64, last: u64) -> Duration {
        Duration::from_millis(self.between(first, last))
    }
}

/// A lock that does not care about a panic elsewhere: that panic is the news.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Something that threads share.
fn shared<T>(value: T) -> Arc<Mutex<T>> {
    Arc::new(Mutex::new(value))
}

/// Pushes numbers, one request after the other, over connections to where the program listens at the time.
struct Pusher {
    accepted: Arc<Mutex<BTreeSet<u64>>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Pusher {
    /// Starts with a number and pushes so many at a time. What is answered with the status is accepted.
    fn start(
        first: u64,
        count: u64,
        accepts: u16,
        to: &Arc<Mutex<Option<SocketAddr>>>,
        push: impl Fn(&mut Client, Range<u64>) -> std::io::Result<u16> + Send + 'static,
    ) -> Self {
        let (accepted, stop) = (shared(BTreeSet::new()), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (accepted, stop, to) = (Arc::clone(&accepted), Arc::clone(&stop), Arc::clone(to));
            move || {
                let mut next = first;
                while !stop.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(5));
                    let Some(mut client) = lock(&to).and_then(|address| Client::connect(address).ok()) else {
                        continue;
                    };
                    while !stop.load(Ordering::Relaxed) {
                        let numbers = next..next + count;
                        next += count;
                        match push(&mut client, numbers.clone()) {
                            Ok(status) if status == accepts => lock(&accepted).extend(numbers),
                            // Nobody knows whether it was taken.
                            Ok(_) | Err(_) => break,
                        }
                    }
                }
            }
        });
        Pusher { accepted, stop, thread }
    }

    fn ask_to_stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// What was accepted, when it has stopped.
    fn accepted(self) -> BTreeSet<u64> {
        self.thread.join().expect("it pushes to its end");
        std::mem::take(&mut *lock(&self.accepted))
    }
}

/// Posts a body of JSON.
fn post_json(client: &mut Client, path: &str, body: &str) -> std::io::Result<u16> {
    let len = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: corten\r\nContent-Type: application/json\r\nContent-Length: {len}\r\n\r\n"
    );
    client.send(head.as_bytes())?;
    client.send(body.as_bytes())?;
    Ok(client.answer()?.status)
}

/// The sum of the metrics of a name, over those whose labels hold all these texts. Nothing if there is none.
fn metric(corten: &Corten, name: &str, labels: &[&str]) -> Option<f64> {
    let text = corten.get("/metrics").body;
    let values = text.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (have, rest) = series.split_once('{').unwrap_or((series, ""));
        (have == name && labels.iter().all(|label| rest.contains(label))).then(|| value.parse::<f64>().ok())?
    });
    values.reduce(|a, b| a + b)
}

/// The resident memory of the program, in bytes. Nothing where the system does not tell.
fn resident(corten: &Corten) -> Option<u64> {
    status(corten, "VmRSS:")
}

/// The most resident memory that the program ever had, in bytes. Nothing where the system does not tell.
fn resident_max(corten: &Corten) -> Option<u64> {
    status(corten, "VmHWM:")
}

fn status(corten: &Corten, name: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", corten.pid())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// How many file handles the program has open. Nothing where the system does not tell.
fn handles(corten: &Corten) -> Option<usize> {
    Some(std::fs::read_dir(format!("/proc/{}/fd", corten.pid())).ok()?.count())
}

/// Asserts that the program is alive and answers.
fn expect_ready(corten: &Corten) {
    assert_eq!(corten.get("/-/ready").status, 200, "{:#?}", corten.lines());
}
