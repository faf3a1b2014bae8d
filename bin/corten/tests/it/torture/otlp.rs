//! OTLP that comes while the program is killed, and while what it sends to fails in every way. The ledger is exact: who sends
//! notes what was answered with success, the endpoint notes what it took.

use std::collections::BTreeSet;
use std::io::{BufReader, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use super::net::{Client, Server, read_request};
use super::{Rng, expect_ready, lock, resident_max, rounds, shared, until, until_within};
use crate::otlp::listening;
use crate::support::{Corten, Folder};

/// Who sends, each by a thread.
const SENDERS: usize = 6;

/// How many records a request has.
const RECORDS: u64 = 20;

/// What the endpoint does: takes everything, fails every other time, asks to wait, is gone behind a gateway, hangs.
const MOODS: u64 = 5;

struct Sink {
    server: Server,
    mood: Arc<AtomicU64>,
    taken: Arc<Mutex<BTreeSet<u64>>>,
}

impl Sink {
    fn start() -> Self {
        let (mood, taken, asked) = (Arc::new(AtomicU64::new(0)), shared(BTreeSet::new()), AtomicU64::new(0));
        let server = Server::start({
            let (mood, taken) = (Arc::clone(&mood), Arc::clone(&taken));
            move |mut stream| {
                let mut reader = BufReader::new(stream.try_clone().expect("a connection"));
                while let Some(body) = read_request(&mut reader) {
                    let is_odd = asked.fetch_add(1, Ordering::Relaxed) % 2 == 1;
                    let answer = match mood.load(Ordering::Acquire) {
                        1 if is_odd => "503 Told",
                        2 => "429 Told",
                        3 => "502 Told",
                        4 => {
                            std::thread::sleep(Duration::from_secs(3));
                            return;
                        }
                        _ => {
                            lock(&taken).extend(numbers(&body));
                            "200 Told"
                        }
                    };
                    if stream.write_all(format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n").as_bytes()).is_err() {
                        return;
                    }
                }
            }
        });
        Sink { server, mood, taken }
    }
}

/// The numbers that the records of a request carry as their bodies.
fn numbers(body: &[u8]) -> Vec<u64> {
    let request: Value = serde_json::from_slice(body).expect("a body in JSON");
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut numbers = Vec::new();
    for resource in list(&request["resourceLogs"]) {
        for scope in list(&resource["scopeLogs"]) {
            for record in list(&scope["logRecords"]) {
                let number = record["body"]["intValue"].as_str().and_then(|number| number.parse().ok());
                numbers.push(number.unwrap_or_else(|| panic!("no number in {record}")));
            }
        }
    }
    numbers
}

/// Sends numbered records, one request after the other.
struct Sender {
    accepted: Arc<Mutex<BTreeSet<u64>>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Sender {
    fn start(sender: usize, to: &Arc<Mutex<Option<SocketAddr>>>) -> Self {
        let (accepted, stop) = (shared(BTreeSet::new()), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (accepted, stop, to) = (Arc::clone(&accepted), Arc::clone(&stop), Arc::clone(to));
            move || {
                let mut next = (sender as u64) << 32;
                while !stop.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(5));
                    let Some(mut client) = lock(&to).and_then(|address| Client::connect(address).ok()) else {
                        continue;
                    };
                    while !stop.load(Ordering::Relaxed) {
                        let numbers = next..next + RECORDS;
                        next += RECORDS;
                        let records: Vec<String> =
                            numbers.clone().map(|number| format!(r#"{{"body":{{"intValue":"{number}"}}}}"#)).collect();
                        match send(&mut client, &request(&records.join(","))) {
                            Ok(200) => lock(&accepted).extend(numbers),
                            // Nobody knows whether it was taken.
                            Ok(_) | Err(_) => break,
                        }
                    }
                }
            }
        });
        Sender { accepted, stop, thread }
    }
}

fn request(records: &str) -> String {
    format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{records}]}}]}}]}}"#)
}

fn send(client: &mut Client, body: &str) -> std::io::Result<u16> {
    let head = format!(
        "POST /v1/logs HTTP/1.1\r\nHost: corten\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    client.send(head.as_bytes())?;
    client.send(body.as_bytes())?;
    Ok(client.answer()?.status)
}

/// What is taken is on disk before it is answered.
fn durable(sink: &Sink) -> String {
    format!(
        "otelcol.receiver.otlp \"in\" {{
	http {{
		endpoint = \"127.0.0.1:0\"
	}}
	output {{
		logs = [otelcol.exporter.otlphttp.out.input]
	}}
}}
otelcol.storage.file \"queue\" {{ }}
otelcol.exporter.otlphttp \"out\" {{
	encoding = \"json\"
	client {{
		endpoint    = \"http://{}\"
		compression = \"none\"
		timeout     = \"1s\"
	}}
	sending_queue {{
		storage    = otelcol.storage.file.queue.handler
		queue_size = 100000
	}}
	retry_on_failure {{
		initial_interval = \"10ms\"
		max_interval     = \"100ms\"
		max_elapsed_time = \"0s\"
	}}
}}
",
        sink.server.address
    )
}

/// Where the program listens.
fn receiver(corten: &Corten) -> SocketAddr {
    listening(corten, "Starting HTTP server").parse().expect("an address")
}

#[test]
fn what_was_accepted_arrives_however_often_the_program_is_killed() {
    let mut rng = Rng::new("otlp");
    let (sink, to) = (Sink::start(), shared(None));
    let senders: Vec<Sender> = (0..SENDERS).map(|sender| Sender::start(sender, &to)).collect();
    let mut folder = Folder::new("");
    let arguments = ["--stability.level=public-preview"];
    for _ in 0..rounds(20) {
        folder.write(&durable(&sink));
        let corten = Corten::start_in(folder, &arguments);
        *lock(&to) = Some(receiver(&corten));
        for _ in 0..rng.between(1, 3) {
            sink.mood.store(rng.below(MOODS), Ordering::Release);
            std::thread::sleep(rng.millis(20, 400));
        }
        folder = corten.kill();
        *lock(&to) = None;
    }
    for sender in &senders {
        sender.stop.store(true, Ordering::Relaxed);
    }
    sink.mood.store(0, Ordering::Release);
    folder.write(&durable(&sink));
    let corten = Corten::start_in(folder, &arguments);
    let mut accepted = BTreeSet::new();
    for sender in senders {
        sender.thread.join().expect("it sends to its end");
        accepted.append(&mut lock(&sender.accepted));
    }
    until("all that was accepted arrives", || {
        let missing = accepted.difference(&lock(&sink.taken)).count();
        if missing == 0 { Ok(()) } else { Err(format!("{missing} of {} are missing", accepted.len())) }
    });
    assert!(accepted.len() > 1_000, "few records were accepted: {}", accepted.len());
    expect_ready(&corten);
    corten.end();
}

/// The memory of the overloaded program, and what its limiter is told.
const MEMORY_BYTES_MAX: u64 = 256 << 20;

/// Senders of large requests, which all wait for nobody, to an endpoint that takes nothing.
#[test]
fn a_flood_is_refused_within_the_memory_and_is_over_when_it_is_over() {
    let sink = Sink::start();
    sink.mood.store(2, Ordering::Release);
    let corten = Corten::start(&format!(
        "otelcol.receiver.otlp \"in\" {{
	http {{
		endpoint = \"127.0.0.1:0\"
	}}
	output {{
		logs = [otelcol.processor.memory_limiter.all.input]
	}}
}}
otelcol.processor.memory_limiter \"all\" {{
	check_interval = \"100ms\"
	limit          = \"180MiB\"
	spike_limit    = \"60MiB\"
	output {{
		logs = [otelcol.exporter.otlphttp.out.input]
	}}
}}
otelcol.exporter.otlphttp \"out\" {{
	encoding = \"json\"
	client {{
		endpoint    = \"http://{}\"
		compression = \"none\"
	}}
	retry_on_failure {{
		initial_interval = \"100ms\"
		max_interval     = \"1s\"
	}}
}}
",
        sink.server.address
    ));
    let address = receiver(&corten);
    let (refused, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let floods: Vec<JoinHandle<()>> = (0..8_u64)
        .map(|flood| {
            let (refused, stop) = (Arc::clone(&refused), Arc::clone(&stop));
            std::thread::spawn(move || {
                let filler = "x".repeat(5_000);
                let mut number = (flood + 1) << 32;
                while !stop.load(Ordering::Relaxed) {
                    let Ok(mut client) = Client::connect(address) else { continue };
                    let records: Vec<String> = (0..100)
                        .map(|_| {
                            number += 1;
                            format!(r#"{{"body":{{"intValue":"{number}"}},"severityText":"{filler}"}}"#)
                        })
                        .collect();
                    let body = request(&records.join(","));
                    while !stop.load(Ordering::Relaxed) {
                        match send(&mut client, &body) {
                            Ok(503) => drop(refused.fetch_add(1, Ordering::Relaxed)),
                            Ok(200) => {}
                            Ok(status) => panic!("status {status}"),
                            Err(_) => break,
                        }
                    }
                }
            })
        })
        .collect();
    until("requests are refused", || {
        let refused = refused.load(Ordering::Relaxed);
        if refused > 200 { Ok(()) } else { Err(format!("{refused} were")) }
    });
    stop.store(true, Ordering::Relaxed);
    for flood in floods {
        flood.join().expect("it is answered");
    }
    sink.mood.store(0, Ordering::Release);
    let record = request(r#"{"body":{"intValue":"1"}}"#);
    until_within(Duration::from_secs(30), "it takes requests again", || {
        match Client::connect(address).and_then(|mut client| send(&mut client, &record)) {
            Ok(200) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    until("what it took arrives", || if lock(&sink.taken).contains(&1) { Ok(()) } else { Err(String::new()) });
    if let Some(bytes) = resident_max(&corten) {
        assert!(bytes < MEMORY_BYTES_MAX, "it had {} MiB", bytes >> 20);
    }
    expect_ready(&corten);
    corten.end();
}
