//! `logsink`: takes lines as Loki's push API does, or as plain text over TCP, and proves that nothing is missing.
//!
//! Each line carries its own proof (see `lines`): one that got lost, came twice, came out of order or was changed shows. What
//! came by the push API must also say its file's label truly, and, where that is asked for, the line's time and labels.
//!
//! The message is `PushRequest` of Loki's `pkg/push/push.proto`: streams (1) with labels (1) as text and entries (2), which have
//! a timestamp (1) of seconds (1) and nanoseconds (2), a line (2) and structured metadata (3).

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use http_body_util::{BodyExt, Limited};
use hyper::{Method, Request, StatusCode, body::Incoming, header::CONTENT_ENCODING};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::{TcpListener, TcpStream},
};

use crate::{
    args::Args,
    error::{Context, Result},
    http::{self, Answer},
    logs::lines::{self, Mark},
    sink::{Arrival, BODY_BYTES_MAX, Track, decompress, lock},
    target::Listening,
    wire::{Fields, Value, WireError},
};

/// The longest line that comes by TCP.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// Bytes that are read from a connection at a time.
const READ_BYTES: usize = 256 << 10;

/// Streams that are told apart; lines of others count as damaged.
const STREAMS_MAX: usize = 100_000;

/// The settings of the command.
#[derive(Debug)]
pub(crate) struct Settings {
    listen: String,
    expect: Expect,
}

/// What an entry must say besides its line.
#[derive(Clone, Copy, Debug, Default)]
struct Expect {
    /// The entry's timestamp is the line's.
    times: bool,
    /// The stream has the labels `level`, `service` and `method` of the line.
    labels: bool,
}

impl Settings {
    /// Takes the settings from the command line.
    pub(crate) fn take(args: &mut Args) -> Result<Self> {
        Ok(Self {
            listen: args.text("--listen")?.unwrap_or_else(|| "127.0.0.1:0".to_owned()),
            expect: Expect { times: args.flag("--times"), labels: args.flag("--labels") },
        })
    }
}

/// What `GET /stats` answers; all counts since the start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Stats {
    /// Where lines are taken as plain text.
    pub(crate) text_address: Option<SocketAddr>,
    /// Requests that were taken.
    pub(crate) requests: u64,
    /// Requests that are no push requests.
    pub(crate) malformed: u64,
    /// Why the last one was not.
    pub(crate) malformed_last: String,
    /// Bytes of bodies as they came, or of text.
    pub(crate) wire_bytes: u64,
    /// Bytes of the requests after decompression.
    pub(crate) decoded_bytes: u64,
    /// Streams that were told apart.
    pub(crate) streams: u64,
    /// Different lines that arrived whole.
    pub(crate) lines: u64,
    /// Files of which at least one line arrived.
    pub(crate) files: u64,
    /// Lines that are missing before a later one that arrived.
    pub(crate) lost: u64,
    /// Lines that arrived again.
    pub(crate) duplicate: u64,
    /// Lines that arrived after a later one of their file.
    pub(crate) out_of_order: u64,
    /// Lines without a mark, or whose bytes are not those that were written.
    pub(crate) damaged: u64,
    /// Lines in a stream that has not their file's name, or not their labels.
    pub(crate) mislabelled: u64,
    /// Lines whose entry tells another time.
    pub(crate) mistimed: u64,
    /// When the last line arrived, in nanoseconds since the epoch.
    pub(crate) last_unix_ns: u64,
}

/// What a stream's labels promise of its lines.
#[derive(Debug)]
struct Stream {
    file: Option<usize>,
    labels: Vec<u8>,
}

/// All that is counted.
#[derive(Debug, Default)]
struct Counts {
    expect: Expect,
    stats: Stats,
    tracks: Vec<Track>,
    /// Where lines of one stream may be interleaved with another's of the same file, order is that of the stream.
    by_stream: HashMap<(u32, usize), u64>,
    streams: HashMap<Vec<u8>, u32>,
    promises: Vec<Stream>,
}

/// One entry, still encoded.
struct Entry<'a> {
    time_ns: i64,
    line: &'a [u8],
}

impl Counts {
    /// Counts a decompressed request; one that is damaged near its end counts for nothing.
    fn request(&mut self, request: &[u8], wire_bytes: usize, now_ns: u64) -> std::result::Result<(), WireError> {
        // A request that is damaged anywhere ends here.
        let streams = labels(request)?;
        // Taken out, so that the second walk may look labels up while it counts entries.
        let mut known = std::mem::take(&mut self.streams);
        for labels in streams {
            if !known.contains_key(labels) && known.len() < STREAMS_MAX {
                known.insert(labels.to_vec(), self.promises.len() as u32);
                self.promises.push(Stream::read(labels, self.expect.labels));
            }
        }
        let walked = walk(request, |labels| Ok(known.get(labels).copied()), |stream, entry| self.entry(stream, &entry));
        self.stats.streams = known.len() as u64;
        self.streams = known;
        walked?;
        self.stats.requests += 1;
        self.stats.wire_bytes += wire_bytes as u64;
        self.stats.decoded_bytes += request.len() as u64;
        self.stats.last_unix_ns = now_ns;
        Ok(())
    }

    fn entry(&mut self, stream: Option<u32>, entry: &Entry<'_>) {
        let (Some(mark), Some(stream)) = (Mark::read(entry.line), stream) else {
            self.stats.damaged += 1;
            return;
        };
        let promise = &self.promises[stream as usize];
        let labelled = promise.file == Some(mark.file)
            && (promise.labels.is_empty() || lines::has_labels(entry.line, &promise.labels));
        self.stats.mislabelled += u64::from(!labelled);
        self.stats.mistimed += u64::from(self.expect.times && entry.time_ns != mark.time_ns());
        // A batch groups its lines by stream: order holds within each.
        let last = self.by_stream.entry((stream, mark.file)).or_default();
        let late = *last >= mark.number;
        *last = (*last).max(mark.number);
        self.arrived(mark, late);
    }

    /// Counts a line that came as text: all of a file is one stream.
    fn text(&mut self, line: &[u8]) {
        // What was parsed out of the line may stand before it.
        let line = line.iter().rposition(|&byte| byte == b'\t').map_or(line, |tab| &line[tab + 1..]);
        match Mark::read(line) {
            Some(mark) => {
                let last = self.by_stream.entry((0, mark.file)).or_default();
                let late = *last >= mark.number;
                *last = (*last).max(mark.number);
                self.arrived(mark, late);
            }
            None => self.stats.damaged += 1,
        }
    }

    fn arrived(&mut self, mark: Mark, late: bool) {
        if self.tracks.len() <= mark.file {
            self.tracks.resize_with(mark.file + 1, Track::default);
        }
        let track = &mut self.tracks[mark.file];
        let stats = &mut self.stats;
        stats.files += u64::from(track.is_empty());
        match track.arrive(mark.number) {
            Arrival::Next { skipped } => {
                stats.lost += skipped;
                stats.lines += 1;
            }
            Arrival::Late => {
                stats.lost -= 1;
                stats.lines += 1;
                stats.out_of_order += u64::from(late);
            }
            Arrival::Again => stats.duplicate += 1,
            Arrival::Invalid => stats.damaged += 1,
        }
    }
}

impl Stream {
    fn read(labels: &[u8], wanted: bool) -> Self {
        let text = String::from_utf8_lossy(labels);
        let value = |name: &str| {
            let begin = text.find(&format!("{name}=\""))? + name.len() + 2;
            text[begin..].split('"').next()
        };
        let stem = value("filename").and_then(|path| path.rsplit('/').next()?.strip_suffix(".log"));
        let labels = match wanted {
            // A label that is missing is none that any line has.
            true => lines::json_labels(
                value("level").unwrap_or("?"),
                value("service").unwrap_or("?"),
                value("method").unwrap_or("?"),
            ),
            false => String::new(),
        };
        Self { file: stem.and_then(|stem| stem.parse().ok()), labels: labels.into_bytes() }
    }
}

/// The labels of each stream of a request.
fn labels(request: &[u8]) -> std::result::Result<Vec<&[u8]>, WireError> {
    let mut all = Vec::new();
    walk(
        request,
        |labels| {
            all.push(labels);
            Ok(())
        },
        |(), _| (),
    )?;
    Ok(all)
}

/// Hands on each entry of a push request, with what the labels of its stream stand for.
fn walk<'a, S: Copy>(
    request: &'a [u8],
    mut stream: impl FnMut(&'a [u8]) -> std::result::Result<S, WireError>,
    mut each: impl FnMut(S, Entry<'a>),
) -> std::result::Result<(), WireError> {
    for field in Fields::new(request) {
        let (1, Value::Bytes(message)) = field? else { return Err(WireError::WireType) };
        // Labels stand before entries in what everybody writes, but need not: they are looked for first.
        let mut labels: &[u8] = b"";
        for field in Fields::new(message) {
            match field? {
                (1, Value::Bytes(text)) => labels = text,
                (2, Value::Bytes(_)) | (3, Value::Varint(_)) => {}
                _ => return Err(WireError::WireType),
            }
        }
        let stream = stream(labels)?;
        for field in Fields::new(message) {
            if let (2, Value::Bytes(entry)) = field? {
                each(stream, Entry::read(entry)?);
            }
        }
    }
    Ok(())
}

impl<'a> Entry<'a> {
    fn read(message: &'a [u8]) -> std::result::Result<Self, WireError> {
        let mut entry = Self { time_ns: 0, line: b"" };
        for field in Fields::new(message) {
            match field? {
                (1, Value::Bytes(time)) => {
                    for field in Fields::new(time) {
                        match field? {
                            (1, Value::Varint(seconds)) => {
                                entry.time_ns += seconds.cast_signed().wrapping_mul(1_000_000_000);
                            }
                            (2, Value::Varint(nanos)) => entry.time_ns += i64::from(nanos as u32),
                            _ => return Err(WireError::WireType),
                        }
                    }
                }
                (2, Value::Bytes(line)) => entry.line = line,
                (3, Value::Bytes(_)) => {}
                _ => return Err(WireError::WireType),
            }
        }
        Ok(entry)
    }
}

/// Receives until the process ends; `ready` is told the address of the push API.
pub(crate) async fn run(settings: Settings, ready: impl FnOnce(&Listening) -> Result<()>) -> Result<()> {
    let what = format!("cannot listen on {}", settings.listen);
    let listener = TcpListener::bind(&settings.listen).await.context(&what)?;
    let address = listener.local_addr().context(&what)?;
    let text = TcpListener::bind((address.ip(), 0)).await.context("cannot listen for text")?;
    let stats = Stats { text_address: text.local_addr().ok(), ..Stats::default() };
    let counts = Arc::new(Mutex::new(Counts { expect: settings.expect, stats, ..Counts::default() }));
    ready(&Listening { address })?;
    let shared = Arc::clone(&counts);
    tokio::spawn(async move {
        while let Ok((stream, _)) = text.accept().await {
            tokio::spawn(read_text(stream, Arc::clone(&shared)));
        }
    });
    http::serve(listener, move |request| {
        let counts = Arc::clone(&counts);
        async move { answer(&counts, request).await }
    })
    .await;
    Ok(())
}

async fn read_text(stream: TcpStream, counts: Arc<Mutex<Counts>>) {
    let mut reader = BufReader::with_capacity(READ_BYTES, stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        // A connection that breaks shows as missing lines.
        let read = (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await.unwrap_or(0);
        if read == 0 {
            return;
        }
        let mut counts = lock(&counts);
        counts.stats.wire_bytes += read as u64;
        counts.text(line.strip_suffix(b"\n").unwrap_or(&line));
        if reader.buffer().is_empty() {
            counts.stats.last_unix_ns = now_ns();
        }
    }
}

async fn answer(counts: &Mutex<Counts>, request: Request<Incoming>) -> Answer {
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/loki/api/v1/push") => push(counts, request).await,
        (&Method::GET, "/stats") => http::json(&lock(counts).stats),
        _ => http::text(StatusCode::NOT_FOUND, "only /loki/api/v1/push and /stats\n"),
    }
}

async fn push(counts: &Mutex<Counts>, request: Request<Incoming>) -> Answer {
    let snappy = request.headers().get(CONTENT_ENCODING).is_none_or(|value| value == "snappy");
    let body = match Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await {
        Ok(body) if snappy => body.to_bytes(),
        Ok(_) => return refuse(counts, "only snappy".to_owned()),
        Err(error) => return refuse(counts, format!("cannot read the body: {error}")),
    };
    match decompress(&body) {
        Err(error) => refuse(counts, error),
        Ok(decoded) => {
            let counted = lock(counts).request(&decoded, body.len(), now_ns());
            counted.map_or_else(|error| refuse(counts, error.to_string()), |()| http::text(StatusCode::NO_CONTENT, ""))
        }
    }
}

fn refuse(counts: &Mutex<Counts>, why: String) -> Answer {
    let mut counts = lock(counts);
    counts.stats.malformed += 1;
    counts.stats.malformed_last.clone_from(&why);
    http::text(StatusCode::BAD_REQUEST, why)
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::{
        logs::lines::{Lines, Shape},
        wire::write,
    };

    fn entry(time_ns: i64, line: &[u8]) -> Vec<u8> {
        let mut time = vec![1 << 3];
        write::varint(&mut time, (time_ns / 1_000_000_000) as u64);
        time.push(2 << 3);
        write::varint(&mut time, (time_ns % 1_000_000_000) as u64);
        let mut out = Vec::new();
        write::bytes(&mut out, 1, &time);
        write::bytes(&mut out, 2, line);
        out
    }

    fn stream(labels: &str, entries: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        write::bytes(&mut out, 1, labels.as_bytes());
        for entry in entries {
            write::bytes(&mut out, 2, entry);
        }
        out
    }

    fn some(shape: Shape, count: usize) -> Vec<Vec<u8>> {
        let mut lines = Lines::new(shape, 3, 1);
        let mut next = || {
            let mut line = Vec::new();
            lines.next(&mut line);
            line.pop();
            line
        };
        (0..count).map(|_| next()).collect()
    }

    fn counts(expect: Expect) -> Counts {
        Counts { expect, ..Counts::default() }
    }

    fn push(counts: &mut Counts, labels: &str, entries: &[Vec<u8>]) {
        counts.request(&write::request(&[stream(labels, entries)]), 10, 5).unwrap();
    }

    const FILE: &str = "{filename=\"/a/b/3.log\", job=\"x\"}";

    #[test]
    fn holes_repetitions_steps_back_and_damage_are_seen() {
        let lines = some(Shape::Raw, 6);
        let all: Vec<_> = lines.iter().map(|line| entry(1, line)).collect();
        let mut counts = counts(Expect::default());
        push(&mut counts, FILE, &[all[0].clone(), all[1].clone(), all[4].clone(), all[3].clone()]);
        push(&mut counts, FILE, &[all[3].clone(), all[5].clone()]);
        push(&mut counts, FILE, &[entry(1, b"garbage"), entry(1, &lines[0][..100])]);
        let stats = &counts.stats;
        assert_eq!((stats.lines, stats.lost, stats.duplicate, stats.out_of_order), (5, 1, 1, 1));
        assert_eq!((stats.damaged, stats.mislabelled, stats.files, stats.streams), (2, 0, 1, 1));
        assert_eq!((stats.requests, stats.wire_bytes, stats.last_unix_ns), (3, 30, 5));
    }

    #[test]
    fn a_wrong_file_label_or_time_is_seen() {
        let lines = some(Shape::Json, 2);
        let times = Mark::read(&lines[1]).unwrap().time_ns();
        let mut counts = counts(Expect { times: true, labels: false });
        push(&mut counts, FILE, &[entry(times - 1_000_000, &lines[0]), entry(times, &lines[1])]);
        assert_eq!((counts.stats.mistimed, counts.stats.mislabelled), (0, 0));
        push(&mut counts, "{filename=\"/a/4.log\"}", &[entry(times, &lines[0])]);
        push(&mut counts, "{}", &[entry(times, &lines[1])]);
        assert_eq!((counts.stats.mistimed, counts.stats.mislabelled, counts.stats.duplicate), (1, 2, 2));
    }

    #[test]
    fn labels_must_be_those_of_the_line_and_streams_may_overtake_each_other() {
        let lines = some(Shape::Json, 40);
        let mut counts = counts(Expect { times: false, labels: true });
        let labels = |line: &[u8]| {
            let value: serde_json::Value = serde_json::from_slice(line).unwrap();
            format!(
                "{{filename=\"/3.log\", level={}, method={}, service={}}}",
                value["level"], value["method"], value["service"]
            )
        };
        // Backwards: every stream's lines are in order only where a stream has one line.
        for line in lines.iter().rev() {
            push(&mut counts, &labels(line), &[entry(1, line)]);
        }
        let streams: std::collections::HashSet<_> = lines.iter().map(|line| labels(line)).collect();
        let stats = &counts.stats;
        assert_eq!((stats.lines, stats.mislabelled, stats.lost), (40, 0, 0));
        assert_eq!(stats.out_of_order, 40 - streams.len() as u64);
        push(&mut counts, &labels(&lines[0]).replace("method", "verb"), &[entry(1, &lines[0])]);
        assert_eq!(counts.stats.mislabelled, 1);
    }

    #[test]
    fn a_damaged_request_counts_for_nothing() {
        let lines = some(Shape::Raw, 2);
        let whole = write::request(&[stream(FILE, &[entry(1, &lines[0]), entry(1, &lines[1])])]);
        let mut counts = counts(Expect::default());
        assert_eq!(counts.request(&whole[..whole.len() - 1], 10, 0), Err(WireError::Truncated));
        assert_eq!(counts.stats, Stats::default());
    }

    #[tokio::test]
    async fn text_is_counted_behind_what_was_parsed_out_of_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let shared = Arc::new(Mutex::new(counts(Expect::default())));
        let reading = tokio::spawn(read_text(listener.accept().await.unwrap().0, Arc::clone(&shared)));
        let lines = some(Shape::Nginx, 3);
        let text = [&lines[0][..], b"\ninfo GET\t", &lines[1], b"\nx\n", &lines[2]].concat();
        client.write_all(&text).await.unwrap();
        drop(client);
        reading.await.unwrap();
        let stats = lock(&shared).stats.clone();
        assert_eq!((stats.lines, stats.damaged, stats.lost, stats.wire_bytes), (3, 1, 0, text.len() as u64));
        assert!(stats.last_unix_ns > 0);
    }

    proptest! {
        #[test]
        fn no_request_makes_the_walk_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut counts = counts(Expect { times: true, labels: true });
            let _ = counts.request(&bytes, 1, 1);
            let _ = counts.request(&write::request(std::slice::from_ref(&bytes)), 1, 1);
            let _ = counts.request(&write::request(&[stream("{a=\"b\"}", std::slice::from_ref(&bytes))]), 1, 1);
            let _ = counts.request(&write::request(&[stream(&String::from_utf8_lossy(&bytes), &[])]), 1, 1);
            counts.text(&bytes);
        }
    }
}
