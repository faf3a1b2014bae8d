//! OTLP that comes while the program is killed, and while what it sends to fails in every way. The ledger is exact: who sends
//! notes what was answered with success, the endpoint notes what it took.

use std::collections::BTreeSet;
use std::io::{BufReader, Write as _};
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use super::disk::after;
use super::net::{Client, Server, read_request};
use super::{Pusher, Rng, expect_ready, lock, post_json, resident_max, rounds, shared, until};
use crate::otlp::listening;
use crate::otlp::script::Script;
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

/// Sends numbered records.
fn push(client: &mut Client, numbers: Range<u64>) -> std::io::Result<u16> {
    let records: Vec<String> = numbers.map(|number| format!(r#"{{"body":{{"intValue":"{number}"}}}}"#)).collect();
    send(client, &request(&records.join(",")))
}

fn request(records: &str) -> String {
    format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{records}]}}]}}]}}"#)
}

fn send(client: &mut Client, body: &str) -> std::io::Result<u16> {
    post_json(client, "/v1/logs", body)
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
    let sender = |sender| Pusher::start((sender as u64) << 32, RECORDS, 200, &to, push);
    let senders: Vec<Pusher> = (0..SENDERS).map(sender).collect();
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
        sender.ask_to_stop();
    }
    sink.mood.store(0, Ordering::Release);
    folder.write(&durable(&sink));
    let corten = Corten::start_in(folder, &arguments);
    let mut accepted = BTreeSet::new();
    for sender in senders {
        accepted.append(&mut sender.accepted());
    }
    until("all that was accepted arrives", || {
        let missing = accepted.difference(&lock(&sink.taken)).count();
        if missing == 0 { Ok(()) } else { Err(format!("{missing} of {} are missing", accepted.len())) }
    });
    assert!(accepted.len() > 1_000, "few records were accepted: {}", accepted.len());
    expect_ready(&corten);
    corten.end();
}

/// Other arguments for all on the way in each round, and one component that is there in every other round only.
fn reloaded(sink: &Sink, round: u64) -> String {
    let (to, more) = match round % 2 {
        0 => ("otelcol.processor.batch.all.input", String::new()),
        _ => (
            "otelcol.processor.attributes.some.input",
            format!(
                "otelcol.processor.attributes \"some\" {{
	action {{
		key    = \"round\"
		action = \"upsert\"
		value  = {round}
	}}
	output {{
		logs = [otelcol.processor.batch.all.input]
	}}
}}
"
            ),
        ),
    };
    format!(
        "{more}otelcol.receiver.otlp \"in\" {{
	http {{
		endpoint     = \"127.0.0.1:0\"
		idle_timeout = \"{}s\"
	}}
	output {{
		logs = [{to}]
	}}
}}
otelcol.processor.batch \"all\" {{
	timeout = \"{}ms\"
	output {{
		logs = [otelcol.exporter.otlphttp.out.input]
	}}
}}
otelcol.exporter.otlphttp \"out\" {{
	encoding = \"json\"
	client {{
		endpoint    = \"http://{}\"
		compression = \"none\"
		timeout     = \"{}s\"
	}}
}}
",
        60 + round,
        10 + round,
        sink.server.address,
        10 + round
    )
}

/// Sends numbered records in two pieces, so that there is always something under way.
fn push_slowly(address: SocketAddr, numbers: Range<u64>) -> std::io::Result<u16> {
    let records: Vec<String> = numbers.map(|number| format!(r#"{{"body":{{"intValue":"{number}"}}}}"#)).collect();
    let body = request(&records.join(","));
    let head = format!(
        "POST /v1/logs HTTP/1.1\r\nHost: corten\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut client = Client::connect(address)?;
    client.send(format!("{head}{}", &body[..9]).as_bytes())?;
    std::thread::sleep(Duration::from_millis(10));
    client.send(&body.as_bytes()[9..])?;
    Ok(client.answer()?.status)
}

#[test]
fn reloads_refuse_no_request_and_lose_no_record() {
    let (sink, stop) = (Sink::start(), Arc::new(AtomicBool::new(false)));
    let corten = Corten::start_in(Folder::new(&reloaded(&sink, 0)), &[]);
    let address = receiver(&corten);
    let senders: Vec<JoinHandle<BTreeSet<u64>>> = (0..SENDERS as u64)
        .map(|sender| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut next = sender << 32;
                while !stop.load(Ordering::Relaxed) {
                    let status = push_slowly(address, next..next + RECORDS);
                    assert_eq!(status.expect("an answer"), 200);
                    next += RECORDS;
                }
                (sender << 32..next).collect()
            })
        })
        .collect();
    for round in 1..=rounds(50) {
        let reloaded = corten.reload(&reloaded(&sink, round));
        assert_eq!(reloaded.status, 200, "{reloaded:?}");
    }
    stop.store(true, Ordering::Relaxed);
    let mut accepted = BTreeSet::new();
    for sender in senders {
        accepted.append(&mut sender.join().expect("every request is taken"));
    }
    assert!(accepted.len() > 1_000, "few records were sent: {}", accepted.len());
    until("all of them arrive", || {
        let missing = accepted.difference(&lock(&sink.taken)).count();
        if missing == 0 { Ok(()) } else { Err(format!("{missing} of {} are missing", accepted.len())) }
    });
    corten.end();
}

/// The memory of the overloaded program, and what its limiter is told.
const MEMORY_BYTES_MAX: u64 = 256 << 20;

/// Takes logs over HTTP and gRPC behind a limiter, for an endpoint.
fn limited(sink: &Sink) -> String {
    format!(
        "otelcol.receiver.otlp \"in\" {{
	grpc {{
		endpoint = \"127.0.0.1:0\"
	}}
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
    )
}

/// A control group of Linux with a limit on memory, beyond which the system kills. Where none can be made, only the memory that
/// the program had is looked at.
struct Group(PathBuf);

impl Group {
    fn new(name: &str, bytes_max: u64) -> Option<Self> {
        // The first version has a tree for each resource, the second one for all.
        let places = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        let group = places.iter().find_map(|(tree, limit)| {
            let path = Path::new(tree).join(format!("corten-{name}-{}", std::process::id()));
            std::fs::create_dir(&path).ok()?;
            let group = Group(path);
            std::fs::OpenOptions::new().write(true).open(group.0.join(limit)).ok()?;
            std::fs::write(group.0.join(limit), bytes_max.to_string()).ok().map(|()| group)
        });
        if group.is_none() {
            // Past the test runner, which keeps what tests print that pass.
            let _ = writeln!(std::io::stderr(), "not run: no control group can be made here; memory is measured");
        }
        group
    }

    /// What a shell does to become a part of it.
    fn joined(&self) -> String {
        format!("echo $$ > '{}'", self.0.join("cgroup.procs").display())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // It stays if the program still ends.
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Starts the program behind a limiter, in a group if there is one.
fn start_limited(sink: &Sink, group: Option<&Group>) -> Corten {
    sink.mood.store(2, Ordering::Release);
    let folder = Folder::new(&limited(sink));
    match group {
        Some(group) => Corten::start_by(after(&group.joined(), &folder, &[], &[]), folder),
        None => Corten::start_in(folder, &[]),
    }
}

/// What it took arrives, it had no more memory than it may, and it lives.
fn expect_recovered(sink: &Sink, corten: Corten) {
    until("what it took arrives", || if lock(&sink.taken).contains(&1) { Ok(()) } else { Err(String::new()) });
    if let Some(bytes) = resident_max(&corten) {
        assert!(bytes < MEMORY_BYTES_MAX, "it had {} MiB", bytes >> 20);
    }
    expect_ready(&corten);
    corten.end();
}

/// Senders of large requests, which all wait for nobody, to an endpoint that takes nothing.
#[test]
fn a_flood_is_refused_within_the_memory_and_is_over_when_it_is_over() {
    let (sink, group) = (Sink::start(), Group::new("http", MEMORY_BYTES_MAX));
    let corten = start_limited(&sink, group.as_ref());
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
    until("it takes requests again", || {
        match Client::connect(address).and_then(|mut client| send(&mut client, &record)) {
            Ok(200) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    expect_recovered(&sink, corten);
}

/// The same over gRPC, by OpenTelemetry's own messages and the client that goes with them.
#[test]
fn a_flood_over_grpc_is_told_to_come_later_and_is_over_when_it_is_over() {
    let (sink, group) = (Sink::start(), Group::new("grpc", MEMORY_BYTES_MAX));
    let corten = start_limited(&sink, group.as_ref());
    let address = listening(&corten, "Starting GRPC server");
    let Some(flood) = Script::start("flood.py", "opentelemetry-python", &[&address]) else { return };
    let outcomes = flood.await_said("the flood is over", |said| said["outcomes"].is_object());
    let outcomes = outcomes["outcomes"].as_object().expect("outcomes");
    let refused = &outcomes["UNAVAILABLE: data refused due to high memory usage"];
    assert!(
        refused.as_u64() >= Some(200)
            && outcomes.keys().all(|name| name == "OK" || name.starts_with("UNAVAILABLE: data refused")),
        "{outcomes:?}"
    );
    sink.mood.store(0, Ordering::Release);
    let after = flood.await_said("it takes requests again", |said| !said["last"].is_null());
    assert!(after["last"] == "OK", "{after}");
    expect_recovered(&sink, corten);
}
