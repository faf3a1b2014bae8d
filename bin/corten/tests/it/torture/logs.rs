//! Files that are rotated in every way while the program that reads them is killed, stopped and reloaded, and what it
//! sends to fails half the time.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, Write as _};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::net::{Server, read_request};
use super::{Rng, expect_ready, handles, lock, metric, resident, rounds, shared, until};
use crate::support::{Corten, Folder};

/// How a file is rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rotation {
    /// Not at all.
    None,
    /// It is renamed, and a new one is made.
    Rename,
    /// As `Rename`, and at the next rotation it is compressed.
    RenameAndPack,
    /// It is copied and cut.
    CopyAndCut,
}

const ROTATIONS: [Rotation; 4] = [Rotation::None, Rotation::Rename, Rotation::RenameAndPack, Rotation::CopyAndCut];

/// How many rotated files are kept.
const KEPT: usize = 5;
/// How long a rotation is put off that would delete what did not come yet.
const PUT_OFF: Duration = Duration::from_millis(200);

/// Writes numbered lines into a file, and rotates it.
struct Writer {
    name: &'static str,
    ended: Arc<AtomicBool>,
    written: Arc<Mutex<u64>>,
    /// The lines that were cut and are in no copy.
    destroyed: Arc<Mutex<BTreeSet<u64>>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    fn start(folder: &Path, rotation: (Rotation, Duration), rng: u64, book: &Arc<Mutex<Book>>) -> Self {
        let name = match rotation.0 {
            Rotation::None => "plain.log",
            Rotation::Rename => "rename.log",
            Rotation::RenameAndPack => "pack.log",
            Rotation::CopyAndCut => "copy.log",
        };
        let (ended, written, destroyed) = (Arc::new(AtomicBool::new(false)), shared(0), shared(BTreeSet::new()));
        let path = folder.join(name);
        let thread = std::thread::spawn({
            let (ended, written, destroyed) = (Arc::clone(&ended), Arc::clone(&written), Arc::clone(&destroyed));
            let book = Arc::clone(book);
            let missing_up_to = move |last: u64| missing(&lock(&book), name, last).0;
            move || write(&path, rotation, Rng(rng), &ended, &written, &destroyed, &missing_up_to)
        });
        Writer { name, ended, written, destroyed, thread: Some(thread) }
    }

    /// Ends, and gives how many lines there are.
    fn stop(&mut self) -> u64 {
        self.ended.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("it writes to the end");
        }
        *lock(&self.written)
    }
}

fn write(
    path: &Path,
    (rotation, rotate_every): (Rotation, Duration),
    mut rng: Rng,
    ended: &AtomicBool,
    written: &Mutex<u64>,
    destroyed: &Mutex<BTreeSet<u64>>,
    missing_up_to: &dyn Fn(u64) -> Vec<u64>,
) {
    let open = || OpenOptions::new().create(true).append(true).open(path).expect("a file to write to");
    let mut file = open();
    let mut rotate_at = Instant::now() + rotate_every;
    // The last lines of the rotated files that are kept, the oldest first.
    let mut kept = VecDeque::new();
    while !ended.load(Ordering::Acquire) {
        for _ in 0..rng.between(1, 20) {
            let number = *lock(written) + 1;
            let line = format!("n={number} {}\n", "x".repeat(rng.below(120) as usize));
            // In pieces now and then, as programs with buffers write.
            let (first, rest) = line.as_bytes().split_at(rng.below(line.len() as u64) as usize);
            file.write_all(first).expect("it is written");
            file.write_all(rest).expect("it is written");
            *lock(written) = number;
        }
        std::thread::sleep(rng.millis(1, 10));
        if rotation != Rotation::None && Instant::now() >= rotate_at {
            // What is deleted before it was read is lost, and nobody can help it. That is a machine with too much to do.
            let is_safe = |last: &u64| missing_up_to(*last).iter().all(|number| lock(destroyed).contains(number));
            if kept.len() == KEPT && !kept.front().is_some_and(is_safe) {
                rotate_at = Instant::now() + PUT_OFF;
                continue;
            }
            rotate_at = Instant::now() + rotate_every;
            if kept.len() == KEPT {
                kept.pop_front();
            }
            kept.push_back(*lock(written));
            // Whoever writes does not know of a copy that is being made.
            let unlucky = if rotation == Rotation::CopyAndCut && rng.below(3) == 0 { rng.between(1, 5) } else { 0 };
            rotate(path, rotation, || {
                for _ in 0..unlucky {
                    let number = *lock(written) + 1;
                    file.write_all(format!("n={number} unlucky\n").as_bytes()).expect("it is written");
                    *lock(written) = number;
                    lock(destroyed).insert(number);
                }
            });
            file = open();
        }
    }
}

/// Rotates a file; what happens between the copy and the cut is done in between.
fn rotate(path: &Path, rotation: Rotation, in_between: impl FnOnce()) {
    let numbered = |number: usize, packed: &str| PathBuf::from(format!("{}.{number}{packed}", path.display()));
    for number in (1..=KEPT).rev() {
        for packed in ["", ".gz"] {
            let from = numbered(number, packed);
            if !from.exists() {
                continue;
            }
            if number == KEPT {
                fs::remove_file(from).expect("it is deleted");
            } else if number == 1 && rotation == Rotation::RenameAndPack {
                let content = fs::read(&from).expect("it is read");
                let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                packed.write_all(&content).expect("it is compressed");
                fs::write(numbered(2, ".gz"), packed.finish().expect("it is compressed")).expect("it is written");
                fs::remove_file(from).expect("it is deleted");
            } else {
                fs::rename(from, numbered(number + 1, packed)).expect("it is renamed");
            }
        }
    }
    if rotation == Rotation::CopyAndCut {
        fs::copy(path, numbered(1, "")).expect("it is copied");
        in_between();
        OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(0)).expect("it is cut");
    } else {
        fs::rename(path, numbered(1, "")).expect("it is renamed");
        File::create(path).expect("a new one is made");
    }
}

/// What was sent, by the file that it came from: the numbers of lines, in the order in which they came.
type Book = BTreeMap<String, Vec<u64>>;

/// An endpoint for logs that notes what it takes.
struct Sink {
    server: Server,
    book: Arc<Mutex<Book>>,
    fails: Arc<AtomicBool>,
}

impl Sink {
    fn start(seed: u64) -> Self {
        let (book, fails, rng) = (shared(Book::new()), Arc::new(AtomicBool::new(false)), shared(Rng(seed)));
        let server = Server::start({
            let (book, fails) = (Arc::clone(&book), Arc::clone(&fails));
            move |mut stream| {
                let mut reader = BufReader::new(stream.try_clone().expect("a connection"));
                while let Some(body) = read_request(&mut reader) {
                    let refuses = fails.load(Ordering::Acquire) && lock(&rng).below(2) == 0;
                    let answer = if refuses {
                        "HTTP/1.1 500 Told\r\nContent-Length: 0\r\n\r\n"
                    } else {
                        note(&body, &mut lock(&book));
                        "HTTP/1.1 204 Told\r\n\r\n"
                    };
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            }
        });
        Sink { server, book, fails }
    }

    /// The numbers of a file's lines: those that are missing up to the last, and those that came more than once.
    fn missing(&self, name: &str, last: u64) -> (Vec<u64>, Vec<u64>) {
        missing(&lock(&self.book), name, last)
    }
}

fn missing(book: &Book, name: &str, last: u64) -> (Vec<u64>, Vec<u64>) {
    let mut times: HashMap<u64, usize> = HashMap::new();
    book.get(name).into_iter().flatten().for_each(|number| *times.entry(*number).or_default() += 1);
    let missing = (1..=last).filter(|number| !times.contains_key(number)).collect();
    (missing, (1..=last).filter(|number| times.get(number).is_some_and(|times| *times > 1)).collect())
}

/// Numbers in ascending order, as the runs of those that follow each other.
fn runs(numbers: &[u64]) -> Vec<RangeInclusive<u64>> {
    numbers.chunk_by(|a, b| a + 1 == *b).map(|run| run[0]..=run[run.len() - 1]).collect()
}

/// Reads a push and notes the lines.
fn note(body: &[u8], book: &mut Book) {
    let message = snap::raw::Decoder::new().decompress_vec(body).expect("a body in snappy");
    for (field, stream) in fields(&message) {
        assert_eq!(field, 1, "a push holds streams");
        let mut name = String::new();
        for (field, content) in fields(stream) {
            match field {
                1 => {
                    let labels = std::str::from_utf8(content).expect("labels are text");
                    let (_, path) = labels.split_once("filename=\"").expect("the name of the file");
                    let path = Path::new(path.split('"').next().expect("its end"));
                    name = path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
                }
                2 => {
                    let line = fields(content).find(|(field, _)| *field == 2).map_or(&b""[..], |(_, line)| line);
                    let line = std::str::from_utf8(line).expect("text");
                    let number = line.strip_prefix("n=").and_then(|line| line.split(' ').next()?.parse().ok());
                    let number = number.unwrap_or_else(|| panic!("a whole line: {line:?}"));
                    book.entry(name.clone()).or_default().push(number);
                }
                _ => {}
            }
        }
    }
}

/// The fields of a message that have bytes, with their numbers.
fn fields(mut message: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    std::iter::from_fn(move || {
        loop {
            if message.is_empty() {
                return None;
            }
            let key = varint(&mut message);
            match key & 7 {
                0 => drop(varint(&mut message)),
                2 => {
                    let len = varint(&mut message) as usize;
                    let (bytes, rest) = message.split_at(len);
                    message = rest;
                    return Some((key >> 3, bytes));
                }
                other => panic!("no field of type {other} stands in a push"),
            }
        }
    })
}

fn varint(message: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first().expect("a whole number");
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            break;
        }
    }
    value
}

fn config(logs: &Path, sink: &Sink, label: u64) -> String {
    // Every other life has a stage that keeps lines for a while.
    let to = if label.is_multiple_of(2) { "loki.write.out.receiver" } else { "loki.process.mid.receiver" };
    format!(
        "loki.source.file \"in\" {{
	targets    = [{{ __path__ = \"{}/*.log\", life = \"{label}\" }}]
	forward_to = [{to}]
	file_match {{
		enabled     = true
		sync_period = \"1s\"
	}}
}}
loki.process \"mid\" {{
	forward_to = [loki.write.out.receiver]
	stage.multiline {{
		firstline     = \"^n=\"
		max_wait_time = \"500ms\"
	}}
}}
loki.write \"out\" {{
	endpoint {{
		url                 = \"http://{}/loki/api/v1/push\"
		batch_wait          = \"100ms\"
		min_backoff_period  = \"50ms\"
		max_backoff_period  = \"200ms\"
	}}
}}
",
        logs.display(),
        sink.server.address
    )
}

struct Stage {
    logs: tempfile::TempDir,
    sink: Sink,
    writers: Vec<Writer>,
    label: u64,
}

impl Stage {
    fn set(rng: &mut Rng, rotate_every: Duration) -> Self {
        let logs = tempfile::tempdir().expect("a folder");
        let sink = Sink::start(rng.next());
        let start = |rotation: &Rotation| Writer::start(logs.path(), (*rotation, rotate_every), rng.next(), &sink.book);
        let writers = ROTATIONS.iter().map(start).collect();
        Stage { logs, sink, writers, label: 0 }
    }

    /// Another configuration: the labels of the lines change.
    fn config(&mut self) -> String {
        self.label += 1;
        config(self.logs.path(), &self.sink, self.label)
    }

    /// Ends writing, and waits until all came. What came twice, and what is missing of the file that is copied and cut
    /// though it was in a copy.
    fn finish(&mut self, corten: &Corten) -> (String, Vec<u64>) {
        let written: Vec<(&str, u64)> = self.writers.iter_mut().map(|writer| (writer.name, writer.stop())).collect();
        self.sink.fails.store(false, Ordering::Release);
        until("all lines came", || {
            let missing = |(name, last): &(&'static str, u64)| (*name, runs(&self.sink.missing(name, *last).0));
            let missing: Vec<_> = written.iter().map(missing).filter(|(name, _)| *name != "copy.log").collect();
            let all = missing.iter().all(|(_, missing)| missing.is_empty());
            if all { Ok(()) } else { Err(format!("missing of {written:?}: {missing:?}")) }
        });
        let (_, last) = written.iter().find(|(name, _)| *name == "copy.log").expect("it is there");
        let writer = self.writers.iter().find(|writer| writer.name == "copy.log").expect("it is there");
        let destroyed = lock(&writer.destroyed).clone();
        // Lines of an earlier life are other streams, which may come later than the last line.
        until("the lines of the file that is cut came", || {
            let missing = self.sink.missing("copy.log", *last).0;
            let late: Vec<u64> = missing.into_iter().filter(|number| !destroyed.contains(number)).collect();
            if late.is_empty() { Ok(()) } else { Err(format!("{:?} of {last}", runs(&late))) }
        });
        expect_ready(corten);
        let repeats = written.iter().flat_map(|(name, last)| {
            let repeated = runs(&self.sink.missing(name, *last).1);
            repeated.into_iter().map(move |run| format!("{name} {run:?} "))
        });
        let missing = self.sink.missing("copy.log", *last).0;
        let (cut, missing): (Vec<u64>, Vec<u64>) = missing.into_iter().partition(|number| destroyed.contains(number));
        say(&format!("{} of the {} lines that were cut without a copy are missing", cut.len(), destroyed.len()));
        say(&format!("lines written: {written:?}, missing: {:?}", runs(&missing)));
        (repeats.collect(), missing)
    }
}

#[expect(clippy::print_stdout, reason = "the test runner shows it when the test fails, or is told to")]
fn say(text: &str) {
    println!("{text}");
}

#[test]
fn no_line_is_lost_however_files_are_rotated_and_the_program_is_killed() {
    let mut rng = Rng::new("logs");
    let mut stage = Stage::set(&mut rng, Duration::from_secs(1));
    let mut folder = Folder::new("");
    for _ in 0..rounds(10) {
        folder.write(&stage.config());
        let corten = Corten::start_in(folder, &[]);
        stage.sink.fails.store(rng.below(2) == 0, Ordering::Release);
        std::thread::sleep(rng.millis(100, 1_500));
        if rng.below(2) == 0 {
            let config = stage.config();
            assert_eq!(corten.reload(&config).status, 200);
            std::thread::sleep(rng.millis(0, 1_000));
        }
        folder = corten.kill();
    }
    folder.write(&stage.config());
    let corten = Corten::start_in(folder, &[]);
    let (_, missing) = stage.finish(&corten);
    // What was cut is in the copies, but for what came between a copy and its cut.
    assert_eq!(missing, [0; 0], "lines of the file that is cut are missing");
    corten.end();
}

#[test]
fn no_line_comes_twice_after_a_clean_stop() {
    let mut rng = Rng::new("logs_stop");
    let mut stage = Stage::set(&mut rng, Duration::from_secs(1));
    let mut folder = Folder::new("");
    for _ in 0..rounds(5) {
        folder.write(&stage.config());
        let corten = Corten::start_in(folder, &[]);
        stage.sink.fails.store(rng.below(2) == 0, Ordering::Release);
        std::thread::sleep(rng.millis(100, 1_500));
        for _ in 0..rng.below(3) {
            let config = stage.config();
            assert_eq!(corten.reload(&config).status, 200);
            std::thread::sleep(rng.millis(0, 500));
        }
        folder = corten.end_keeping();
    }
    folder.write(&stage.config());
    let corten = Corten::start_in(folder, &[]);
    let (repeats, missing) = stage.finish(&corten);
    assert_eq!((&*repeats, missing), ("", vec![]));
    corten.end();
}

/// How many files nothing happens to.
const IDLE: usize = 10_000;

#[test]
fn ten_thousand_files_that_nothing_happens_to_cost_little() {
    let sink = Sink::start(1);
    let logs = tempfile::tempdir().expect("a folder");
    let corten = Corten::start(&config(&logs.path().join("none"), &sink, 0));
    let before = resident(&corten);
    if handles(&corten).is_none() {
        return;
    }
    for number in 0..IDLE {
        fs::write(logs.path().join(format!("{number}.log")), format!("n={number} x\n")).expect("a file");
    }
    assert_eq!(corten.reload(&config(logs.path(), &sink, 0)).status, 200);
    let active = || metric(&corten, "loki_source_file_files_active_total", &[]).unwrap_or_default();
    until("all are open", || if active() == IDLE as f64 { Ok(()) } else { Err(format!("{} are open", active())) });
    until("all lines came", || {
        let lines: usize = lock(&sink.book).values().map(Vec::len).sum();
        if lines == IDLE { Ok(()) } else { Err(format!("{lines} lines")) }
    });
    // One that something happens to is still noticed.
    let mut file = OpenOptions::new().append(true).open(logs.path().join("77.log")).expect("a file");
    file.write_all(b"n=78 x\n").expect("it is written");
    until("its line came", || if lock(&sink.book)["77.log"] == [77, 78] { Ok(()) } else { Err(String::new()) });
    let memory = resident(&corten).zip(before).map(|(now, before)| now.saturating_sub(before));
    assert!(memory.is_none_or(|bytes| bytes < 80 << 20), "{memory:?} bytes more");
    corten.end();
}
