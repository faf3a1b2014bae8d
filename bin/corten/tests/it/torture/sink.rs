//! An endpoint of remote write that notes what it takes, and fails as it is told.

use std::collections::HashMap;
use std::io::{BufReader, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::net::{Door, read_request};
use super::{Rng, lock, until, wire};

/// How the endpoint answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Works,
    /// Takes so long for each request.
    Slow(Duration),
    /// Answers with the status 500.
    Fails,
    /// Answers with the status 429 and asks to wait for a second.
    Waits,
    /// Reads and never answers.
    Hangs,
    /// Each request meets another one of these moods.
    Mixed,
    /// The port is closed.
    Gone,
}

impl Mood {
    pub(super) const ALL: [Mood; 6] = [Mood::Works, Mood::Fails, Mood::Waits, Mood::Hangs, Mood::Mixed, Mood::Gone];

    pub(super) fn any(rng: &mut Rng) -> Mood {
        Mood::ALL[rng.below(Mood::ALL.len() as u64) as usize]
    }
}

/// A request that was answered with success.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    /// The series by their numbers, with value and time.
    pub(super) samples: Vec<(u32, f64, i64)>,
    /// Whether the answer may have come too late to be heard.
    pub(super) late: bool,
}

pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    door: Mutex<Option<Door>>,
}

struct State {
    /// Locked while an answer is given, so that what was noted was also answered.
    mood: Mutex<Mood>,
    changed: Condvar,
    book: Mutex<Book>,
    connections: Mutex<Vec<TcpStream>>,
    rng: Mutex<Rng>,
}

/// What was taken.
#[derive(Default)]
struct Book {
    numbers: HashMap<String, u32>,
    names: Vec<String>,
    taken: Vec<Taken>,
}

/// An answer that took longer is perhaps not heard: requests time out after [`TIMEOUT`].
const LATE: Duration = Duration::from_secs(10);

/// How long the program waits for an answer. Nothing here takes so long but on a machine with too much to do.
pub(super) const TIMEOUT: &str = "20s";

impl Sink {
    pub(crate) fn start(mood: Mood, seed: u64) -> Self {
        let (listener, address) = listener();
        Self::at(listener, address, mood, seed)
    }

    /// An endpoint that works, at the address of an earlier one that is gone.
    pub(super) fn again(address: SocketAddr, seed: u64) -> Self {
        Self::at(listener_at(address), address, Mood::Works, seed)
    }

    fn at(listener: TcpListener, address: SocketAddr, mood: Mood, seed: u64) -> Self {
        let state = Arc::new(State {
            mood: Mutex::new(Mood::Works),
            changed: Condvar::new(),
            book: Mutex::default(),
            connections: Mutex::default(),
            rng: Mutex::new(Rng(seed)),
        });
        let door = Door::open(listener, serve(&state));
        let sink = Sink { address, state, door: Mutex::new(Some(door)) };
        sink.set(mood);
        sink
    }

    pub(super) fn set(&self, mood: Mood) {
        *lock(&self.state.mood) = mood;
        self.state.changed.notify_all();
        let mut door = lock(&self.door);
        if mood == Mood::Gone {
            if let Some(door) = door.take() {
                door.close();
            }
            for connection in lock(&self.state.connections).drain(..) {
                // It may be closed already.
                let _ = connection.shutdown(Shutdown::Both);
            }
        } else if door.is_none() {
            *door = Some(Door::open(listener_at(self.address), serve(&self.state)));
        }
    }

    /// How many requests it took.
    pub(super) fn len(&self) -> usize {
        lock(&self.state.book).taken.len()
    }

    /// All that was taken, in order.
    pub(super) fn taken(&self) -> Vec<Taken> {
        lock(&self.state.book).taken.clone()
    }

    /// The number of a series.
    pub(super) fn number(&self, series: &str) -> Option<u32> {
        lock(&self.state.book).numbers.get(series).copied()
    }

    /// The names of the series, by their numbers.
    pub(crate) fn names(&self) -> Vec<String> {
        lock(&self.state.book).names.clone()
    }

    /// The values and times of the series that a text stands in, in order.
    pub(crate) fn of(&self, text: &str) -> Vec<(f64, i64)> {
        let book = lock(&self.state.book);
        let is_meant: Vec<bool> = book.names.iter().map(|name| name.contains(text)).collect();
        let all = book.taken.iter().flat_map(|taken| &taken.samples);
        all.filter(|(series, _, _)| is_meant[*series as usize]).map(|(_, value, time_ms)| (*value, *time_ms)).collect()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.set(Mood::Gone);
    }
}

/// A port that can be closed and opened again. The system gives none away below 32768 when it is asked for any, and here
/// none is given twice, so that nobody else gets it meanwhile.
fn listener() -> (TcpListener, SocketAddr) {
    static GIVEN: AtomicU64 = AtomicU64::new(0);
    for _ in 0..1000 {
        let number = u64::from(std::process::id()) * 131 + GIVEN.fetch_add(1, Ordering::Relaxed);
        let address = SocketAddr::from(([127, 0, 0, 1], 10_000 + (number % 22_000) as u16));
        if let Ok(listener) = TcpListener::bind(address) {
            return (listener, address);
        }
    }
    panic!("no port is free");
}

/// The same port once more. For a moment it may still be open in a process that is about to become the program, started by
/// another test.
fn listener_at(address: SocketAddr) -> TcpListener {
    until("the port is free", || TcpListener::bind(address).map_err(|error| error.to_string()))
}

/// Whether nobody waits for an answer any more.
fn is_closed(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a connection");
    let peeked = stream.peek(&mut [0]);
    stream.set_nonblocking(false).expect("a connection");
    !peeked.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

fn serve(state: &Arc<State>) -> impl Fn(TcpStream) + Send + Sync + 'static {
    let state = Arc::clone(state);
    move |stream| {
        lock(&state.connections).push(stream.try_clone().expect("a connection"));
        if *lock(&state.mood) == Mood::Gone {
            return;
        }
        state.connection(stream);
    }
}

impl State {
    fn connection(&self, mut stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().expect("a connection"));
        while let Some(body) = read_request(&mut reader) {
            let read = Instant::now();
            let samples = wire::decode(&body);
            let mut met = *lock(&self.mood);
            let told = met;
            if met == Mood::Mixed {
                met = [Mood::Works, Mood::Fails, Mood::Waits, Mood::Hangs][lock(&self.rng).below(4) as usize];
            }
            if let Mood::Slow(time) = met {
                std::thread::sleep(time);
                if is_closed(&stream) {
                    return;
                }
            }
            let mood = lock(&self.mood);
            if met == Mood::Hangs {
                // Until something else is wanted; then the connection is closed without an answer.
                drop(self.changed.wait_while(mood, |mood| *mood == told));
                let _ = stream.shutdown(Shutdown::Both);
                return;
            }
            if *mood == Mood::Gone {
                return;
            }
            let answer = match met {
                Mood::Fails => "HTTP/1.1 500 Told\r\nContent-Length: 0\r\n\r\n",
                Mood::Waits => "HTTP/1.1 429 Told\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n",
                _ => {
                    self.note(&samples, read.elapsed() > LATE);
                    "HTTP/1.1 204 Told\r\n\r\n"
                }
            };
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }

    fn note(&self, samples: &[wire::Sample], late: bool) {
        let mut book = lock(&self.book);
        let book = &mut *book;
        let mut noted = Vec::with_capacity(samples.len());
        for sample in samples {
            let number = match book.numbers.get(&sample.series) {
                Some(number) => *number,
                None => {
                    let number = book.names.len() as u32;
                    book.names.push(sample.series.clone());
                    book.numbers.insert(sample.series.clone(), number);
                    number
                }
            };
            noted.push((number, sample.value, sample.time_ms));
        }
        book.taken.push(Taken { samples: noted, late });
    }
}
