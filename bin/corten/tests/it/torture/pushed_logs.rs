//! Logs that are pushed while the program is killed and what it sends to fails in every way. The ledger is exact: who pushes
//! notes what was answered with success, the endpoint notes what it took.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufReader, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::net::{Client, Server, read_request};
use super::{Pusher, Rng, expect_ready, lock, post_json, rounds, shared, until};
use crate::loki::decode;
use crate::support::{Corten, Folder};

/// How many streams are pushed, each by a thread.
const STREAMS: usize = 6;

/// How many lines a push has.
const LINES: u64 = 20;

/// What the endpoint does: takes everything, fails every other time, asks to wait, finds what is large too large, hangs.
const MOODS: u64 = 5;

/// The numbers of the lines of each stream, in the order in which they came.
type Book = BTreeMap<String, Vec<u64>>;

struct Sink {
    server: Server,
    mood: Arc<AtomicU64>,
    book: Arc<Mutex<Book>>,
}

impl Sink {
    fn start() -> Self {
        let (mood, book, asked) = (Arc::new(AtomicU64::new(0)), shared(Book::new()), AtomicU64::new(0));
        let server = Server::start({
            let (mood, book) = (Arc::clone(&mood), Arc::clone(&book));
            move |mut stream| {
                let mut reader = BufReader::new(stream.try_clone().expect("a connection"));
                while let Some(body) = read_request(&mut reader) {
                    let entries = decode(&body);
                    let is_odd = asked.fetch_add(1, Ordering::Relaxed) % 2 == 1;
                    let answer = match mood.load(Ordering::Acquire) {
                        1 if is_odd => "500 Told",
                        2 => "429 Told",
                        3 if entries.len() > 7 => "413 Told",
                        4 => {
                            std::thread::sleep(Duration::from_secs(3));
                            return;
                        }
                        _ => {
                            let mut book = lock(&book);
                            for entry in entries {
                                book.entry(entry.stream).or_default().push(entry.line.parse().expect("a number"));
                            }
                            "204 Told"
                        }
                    };
                    if stream.write_all(format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n").as_bytes()).is_err() {
                        return;
                    }
                }
            }
        });
        Sink { server, mood, book }
    }
}

/// Pushes numbered lines of one stream.
fn push(client: &mut Client, stream: usize, numbers: std::ops::Range<u64>) -> std::io::Result<u16> {
    let values: Vec<String> = numbers.map(|number| format!("[\"{number}\", \"{number}\"]")).collect();
    let labels = format!("{{\"s\": \"{stream}\", \"__tenant_id__\": \"t{}\"}}", stream % 3);
    let body = format!("{{\"streams\": [{{\"stream\": {labels}, \"values\": [{}]}}]}}", values.join(", "));
    post_json(client, "/loki/api/v1/push", &body)
}

fn config(sink: &Sink, shards: u64) -> String {
    format!(
        "loki.source.api \"in\" {{
	http {{
		listen_address = \"127.0.0.1\"
		listen_port    = 0
	}}
	use_incoming_timestamp = true
	forward_to             = [loki.write.out.receiver]
}}
loki.write \"out\" {{
	endpoint {{
		url                = \"http://{}/loki/api/v1/push\"
		batch_wait         = \"20ms\"
		batch_size         = \"2KiB\"
		remote_timeout     = \"1s\"
		min_backoff_period = \"10ms\"
		max_backoff_period = \"100ms\"
		queue_config {{
			min_shards = {shards}
		}}
	}}
}}
",
        sink.server.address
    )
}

/// Where the program listens for pushes.
fn receiver(corten: &Corten) -> SocketAddr {
    let line = corten.line("addr=127.0.0.1:");
    let address = line.split("addr=").nth(1).expect("an address").split_whitespace().next().expect("an address");
    address.parse().expect("an address")
}

#[test]
fn what_was_accepted_arrives_in_the_order_of_its_stream_however_often_the_program_is_killed() {
    let mut rng = Rng::new("pushed_logs");
    let (sink, to) = (Sink::start(), shared(None));
    let pusher = |stream| Pusher::start(1, LINES, 204, &to, move |client, numbers| push(client, stream, numbers));
    let pushers: Vec<Pusher> = (0..STREAMS).map(pusher).collect();
    let mut folder = Folder::new("");
    let arguments = ["--stability.level=experimental".to_owned()];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // The order of a stream holds where it keeps its partition.
    let shards = rng.between(1, 3);
    for _ in 0..rounds(20) {
        folder.write(&config(&sink, shards));
        let corten = Corten::start_in(folder, &arguments);
        *lock(&to) = Some(receiver(&corten));
        for _ in 0..rng.between(1, 3) {
            sink.mood.store(rng.below(MOODS), Ordering::Release);
            std::thread::sleep(rng.millis(20, 400));
        }
        folder = corten.kill();
        *lock(&to) = None;
    }
    for pusher in &pushers {
        pusher.ask_to_stop();
    }
    sink.mood.store(0, Ordering::Release);
    folder.write(&config(&sink, shards));
    let corten = Corten::start_in(folder, &arguments);
    let accepted: Vec<BTreeSet<u64>> = pushers.into_iter().map(Pusher::accepted).collect();
    until("all that was accepted arrives", || {
        let book = lock(&sink.book).clone();
        let missing: Vec<usize> = accepted
            .iter()
            .enumerate()
            .map(|(stream, accepted)| {
                let taken = book.get(&format!("{{s=\"{stream}\"}}")).into_iter().flatten().copied();
                accepted.difference(&taken.collect()).count()
            })
            .collect();
        if missing.iter().all(|missing| *missing == 0) { Ok(()) } else { Err(format!("missing: {missing:?}")) }
    });
    assert!(accepted.iter().map(BTreeSet::len).sum::<usize>() > 1_000, "few pushes were accepted");
    for (stream, numbers) in lock(&sink.book).iter() {
        let mut highest = 0;
        let mut seen = BTreeSet::new();
        for number in numbers {
            // What comes again came in order, too, and what is new is newer than all before.
            assert!(!seen.insert(*number) || *number > highest, "{stream}: {number} comes after {highest}");
            highest = highest.max(*number);
        }
    }
    expect_ready(&corten);
    corten.end();
}
