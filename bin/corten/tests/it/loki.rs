//! A Loki for tests: it decodes what is pushed with code of its own and keeps it.

use std::io::{BufReader, Write as _};
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::support::{Corten, Folder, WAIT_MAX, exchange, free_port};
use crate::torture::net::{Server, read_request};

/// An entry as it was pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The labels as they stand in the request.
    pub(crate) stream: String,
    pub(crate) seconds: u64,
    pub(crate) nanos: u64,
    pub(crate) line: String,
}

/// The server. It takes everything.
pub(crate) struct Loki {
    server: Server,
    book: Arc<(Mutex<Vec<Entry>>, Condvar)>,
}

impl Loki {
    pub(crate) fn start() -> Self {
        let book: Arc<(Mutex<Vec<Entry>>, Condvar)> = Arc::default();
        let kept = Arc::clone(&book);
        let server = Server::start(move |mut stream| {
            let mut reader = BufReader::new(stream.try_clone().expect("a connection"));
            while let Some(body) = read_request(&mut reader) {
                kept.0.lock().expect("entries").extend(decode(&body));
                kept.1.notify_all();
                if stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").is_err() {
                    return;
                }
            }
        });
        Loki { server, book }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// Waits for an entry whose line holds a text.
    pub(crate) fn entry(&self, text: &str) -> Entry {
        let started = Instant::now();
        let mut entries = self.book.0.lock().expect("entries");
        loop {
            if let Some(entry) = entries.iter().find(|entry| entry.line.contains(text)) {
                return entry.clone();
            }
            let left = WAIT_MAX.checked_sub(started.elapsed());
            let left = left.unwrap_or_else(|| panic!("no entry with {text:?} among {entries:#?}"));
            entries = self.book.1.wait_timeout(entries, left).expect("entries").0;
        }
    }

    /// What was pushed so far.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.book.0.lock().expect("entries").clone()
    }
}

/// The entries of a request: `logproto.PushRequest` in a snappy block. Only a correct one is expected here.
pub(crate) fn decode(body: &[u8]) -> Vec<Entry> {
    let request = snap::raw::Decoder::new().decompress_vec(body).expect("a body in snappy");
    let mut entries = Vec::new();
    for (_, stream) in fields(&request) {
        let mut labels = String::new();
        for (number, content) in fields(stream.bytes()) {
            if number == 1 {
                labels = text(content.bytes());
            }
        }
        for (_, content) in fields(stream.bytes()).filter(|(number, _)| *number == 2) {
            let mut entry = Entry { stream: labels.clone(), seconds: 0, nanos: 0, line: String::new() };
            for (number, content) in fields(content.bytes()) {
                match number {
                    1 => {
                        for (number, value) in fields(content.bytes()) {
                            match number {
                                1 => entry.seconds = value.number(),
                                _ => entry.nanos = value.number(),
                            }
                        }
                    }
                    2 => entry.line = text(content.bytes()),
                    _ => {}
                }
            }
            entries.push(entry);
        }
    }
    entries
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[derive(Clone, Copy, Debug)]
enum Content<'m> {
    Number(u64),
    Bytes(&'m [u8]),
}

impl<'m> Content<'m> {
    fn bytes(self) -> &'m [u8] {
        match self {
            Content::Bytes(bytes) => bytes,
            Content::Number(number) => panic!("bytes, not {number}"),
        }
    }

    fn number(self) -> u64 {
        match self {
            Content::Number(number) => number,
            Content::Bytes(bytes) => panic!("a number, not {bytes:?}"),
        }
    }
}

/// The fields of a message, with their numbers.
fn fields(mut message: &[u8]) -> impl Iterator<Item = (u64, Content<'_>)> {
    std::iter::from_fn(move || {
        if message.is_empty() {
            return None;
        }
        let key = varint(&mut message);
        let value = varint(&mut message);
        let content = match key & 7 {
            0 => Content::Number(value),
            2 => {
                let (bytes, rest) = message.split_at(value as usize);
                message = rest;
                Content::Bytes(bytes)
            }
            other => panic!("no field of type {other} stands in a request"),
        };
        Some((key >> 3, content))
    })
}

fn varint(message: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let (byte, rest) = message.split_first().expect("a whole message");
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            break;
        }
    }
    value
}

/// An example with other addresses: that of the Loki, and a free port.
fn example(name: &str, loki: &Loki) -> (String, u16) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
    let text = std::fs::read_to_string(path).expect("the example");
    let port = free_port();
    // One after the other, the second could be found in what the first has put there: the port 35001, say.
    let changed = text.replace("127.0.0.1:3100", "LOKI").replace("3500", &port.to_string());
    let changed = changed.replace("LOKI", &loki.address().to_string());
    assert_ne!(changed, text);
    (changed, port)
}

/// The answer to a request to a port that the program may not listen on yet.
fn listening(address: &str, request: &str) -> String {
    let started = Instant::now();
    loop {
        match exchange(address, request) {
            Ok(answer) => return answer,
            Err(error) => assert!(started.elapsed() < WAIT_MAX, "{address}: {error}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_programs_own_lines_arrive_with_the_labels_of_the_example() {
    let loki = Loki::start();
    let (config, _) = example("logs-own.alloy", &loki);
    let corten = Corten::start(&config);
    let entry = loki.entry("now listening for http traffic");
    let host = entry.stream.strip_prefix("{component=\"alloy\", host=\"").and_then(|rest| rest.strip_suffix("\"}"));
    assert!(host.is_some_and(|host| !host.is_empty()), "{entry:?}");
    assert!(entry.line.starts_with("ts=20") && entry.line.ends_with('\n'), "{entry:?}");
    // Nothing goes round and round.
    corten.reload(&config);
    loki.entry("config reloaded");
    let count = loki.entries().len();
    assert!(count < 100, "{count} lines");
    corten.end();
}

#[test]
fn pushed_lines_get_their_time_from_the_line() {
    let loki = Loki::start();
    let (config, port) = example("logs-push.alloy", &loki);
    let corten = Corten::start(&config);
    let body = r#"{"streams": [{"stream": {"app": "shop"}, "values": [
        ["1", "2026-01-05T10:00:00.5Z WARN disk is nearly full"], ["2", "no time"]]}]}"#;
    let head = format!(
        "POST /loki/api/v1/push HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    let answer = listening(&format!("127.0.0.1:{port}"), &format!("{head}{body}"));
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    let entry = loki.entry("disk is nearly full");
    assert_eq!(entry.stream, r#"{app="shop", level="WARN", source="push"}"#);
    assert_eq!((entry.seconds, entry.nanos), (1_767_607_200, 500_000_000));
    assert_eq!(loki.entry("no time").stream, r#"{app="shop", source="push"}"#);
    corten.end();
}

#[test]
fn json_lines_of_files_become_logfmt() {
    let loki = Loki::start();
    let (config, _) = example("logs-json.alloy", &loki);
    let folder = Folder::new("");
    let path = folder.path().join("shop.json");
    folder.write(&config.replace("/var/log/applications", &folder.path().display().to_string()));
    let lines = "{\"level\": \"info\", \"message\": \"paid \\\"all\\\"\", \"attributes\": {\"service\": \"shop\", \"order\": 7}}\n";
    std::fs::write(&path, lines).expect("a file");
    let corten = Corten::start_in(folder, &[]);
    let entry = loki.entry("order=7");
    assert_eq!(entry.line, r#"level=info msg="paid \"all\"" order=7"#);
    let expected = format!(r#"{{filename="{}", job="applications", level="info", service="shop"}}"#, path.display());
    assert_eq!(entry.stream, expected);
    corten.end();
    assert_eq!(loki.entries().len(), 1);
}
