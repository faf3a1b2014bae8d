//! `stage.cri`.

use std::collections::HashMap;
use std::time::Duration;

use corten_component::Logger;
use corten_component::metrics::Counter;
use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_signal::logs::Stream;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::stage::{Build, Compile, Emit, Held, Next, Slot, Stage, StageError, Text, Value, Work};

/// Takes lines as the container runtime interface writes them apart, and joins those that it had cut.
///
/// The content becomes the line, `stream` becomes a label, and the time is that of the entry. They are also extracted,
/// as `content`, `stream` and `time`, with `flags`. Lines of another form stay as they are.
///
/// A line that is marked as partial waits for the rest of it, which has the same labels.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct CriStage {
    /// How many streams may have a partial line that waits. One more and all of them go on as they are.
    #[arg(default = 100)]
    max_partial_lines: i64,
    /// How long a partial line or one that was joined may be, in bytes.
    #[arg(default = 0)]
    max_partial_line_size: u64,
    /// Whether to cut what is longer than `max_partial_line_size`.
    #[arg(default = false)]
    max_partial_line_size_truncate: bool,
}

impl CriStage {
    fn check(&self) -> Result<(), CheckErrors> {
        if self.max_partial_lines > 0 {
            return Ok(());
        }
        Err(CheckErrors::of(&["max_partial_lines"], "max_partial_lines must be greater than 0"))
    }
}

/// The most memory that partial lines may take, in bytes. More, and all of them go on as they are.
const PENDING_BYTES_MAX: usize = 256 << 20;

/// How long a partial line waits for more of it. A source that waits until its entries are safe must not wait for a
/// line that never ends.
const PENDING_AGE_MAX: Duration = Duration::from_secs(60);

impl Build for CriStage {
    fn build(&self, cx: &mut Compile<'_>) -> Result<Box<dyn Stage>, StageError> {
        Ok(Box::new(Cri {
            pending_max: usize::try_from(self.max_partial_lines).unwrap_or(usize::MAX),
            size_max: self
                .max_partial_line_size_truncate
                .then(|| usize::try_from(self.max_partial_line_size).unwrap_or(usize::MAX)),
            flags: cx.slot("flags"),
            stream: cx.slot("stream"),
            content: cx.slot("content"),
            time: cx.slot("time"),
            stream_label: cx.text("stream"),
            full: cx.text("F"),
            partial: cx.text("P"),
            stdout: cx.text("stdout"),
            stderr: cx.text("stderr"),
            pending: Mutex::default(),
            flushed: cx.registry().counter(
                "loki_process_cri_partial_lines_flushed_total",
                "A count of partial lines that were flushed prematurely due to the max_partial_lines limit being exceeded",
            ),
            truncated: cx.registry().counter(
                "loki_process_cri_lines_truncated_total",
                "A count of lines that were truncated due to the max_partial_line_size limit",
            ),
            logger: cx.logger(),
        }))
    }
}

struct Cri {
    pending_max: usize,
    /// How long a joined line may be, if it is to be cut.
    size_max: Option<usize>,
    flags: Slot,
    stream: Slot,
    content: Slot,
    time: Slot,
    stream_label: Text,
    full: Text,
    partial: Text,
    stdout: Text,
    stderr: Text,
    pending: Mutex<Pending>,
    flushed: Counter,
    truncated: Counter,
    logger: Option<Logger>,
}

/// What becomes of a line that is a part of another one.
const PARTIAL: &str = "cri partial";

/// The partial lines that wait.
#[derive(Default)]
struct Pending {
    by_stream: HashMap<Stream, Partial>,
    /// How many ever waited.
    serial: u64,
    bytes: usize,
    /// When the first of them is too old, or before.
    deadline: Option<Instant>,
}

/// What there is of a line.
struct Partial {
    serial: u64,
    until: Instant,
    held: Held,
}

impl Pending {
    fn insert(&mut self, key: Stream, held: Held) {
        self.serial += 1;
        self.bytes += held.bytes() + held.labels_bytes();
        let until = Instant::now() + PENDING_AGE_MAX;
        self.deadline.get_or_insert(until);
        self.by_stream.insert(key, Partial { serial: self.serial, until, held });
    }

    fn remove(&mut self, key: &Stream) -> Option<Held> {
        let Partial { held, .. } = self.by_stream.remove(key)?;
        self.bytes = self.bytes.saturating_sub(held.bytes() + held.labels_bytes());
        Some(held)
    }

    /// Emits the lines as they are that have waited until now, or all; those that were touched last at the end.
    fn flush(&mut self, now: Option<Instant>, out: &mut Emit) -> u64 {
        let is_due = |_: &Stream, partial: &mut Partial| now.is_none_or(|now| partial.until <= now);
        let mut due: Vec<Partial> = self.by_stream.extract_if(is_due).map(|(_, partial)| partial).collect();
        self.deadline = self.by_stream.values().map(|partial| partial.until).min();
        let bytes = |partial: &Partial| partial.held.bytes() + partial.held.labels_bytes();
        self.bytes = self.bytes.saturating_sub(due.iter().map(bytes).sum());
        if self.by_stream.is_empty() {
            self.bytes = 0;
        }
        due.sort_unstable_by_key(|partial| partial.serial);
        let count = due.len() as u64;
        due.into_iter().for_each(|partial| out.emit(partial.held));
        count
    }
}

impl Stage for Cri {
    fn run(&self, work: &mut Work, out: &mut Emit) -> Next {
        let line = work.line();
        let Some(parts) = parse(work.bytes(line)).map(|parsed| parsed.places(line)) else { return Next::Keep };
        let stream = if parts.is_stderr { self.stderr } else { self.stdout };
        let flag = if parts.is_partial { self.partial } else { self.full };
        work.set_value(self.flags, Value::Text(flag));
        work.set_value(self.stream, Value::Text(stream));
        work.set_value(self.content, Value::Text(parts.content));
        work.set_value(self.time, Value::Text(parts.time));
        work.set_line(parts.content);
        if let Some(timestamp_ns) = parse_time(work.bytes(parts.time)) {
            work.set_timestamp_ns(timestamp_ns);
        }
        work.set_label(self.stream_label, stream);

        let mut pending = self.pending.lock();
        if !parts.is_partial && pending.by_stream.is_empty() {
            return Next::Keep;
        }
        let key = work.stream();
        if parts.is_partial {
            if pending.by_stream.len() >= self.pending_max || pending.bytes > PENDING_BYTES_MAX {
                let count = pending.flush(None, out);
                self.flushed.add(count);
                if let Some(logger) = &self.logger {
                    let threshold = self.pending_max as u64;
                    let message = "partial lines upperbound exceeded, merging it to single line";
                    logger.warn(message, &[("threshold", threshold.into())]);
                }
            }
            let held = match pending.remove(&key) {
                Some(before) => self.lengthen(before, work),
                None => {
                    self.truncate(work);
                    work.hold()
                }
            };
            pending.insert(key, held);
            return Next::Held;
        }
        if let Some(before) = pending.remove(&key) {
            self.join(before, work);
            self.truncate(work);
        }
        Next::Keep
    }

    fn holds(&self) -> bool {
        true
    }

    fn deadline(&self) -> Option<Instant> {
        self.pending.lock().deadline
    }

    fn flush(&self, now: Instant, out: &mut Emit) {
        let count = self.pending.lock().flush(Some(now), out);
        self.flushed.add(count);
    }

    fn close(&self, out: &mut Emit) {
        self.pending.lock().flush(None, out);
    }

    fn held(&self) -> usize {
        self.pending.lock().by_stream.len()
    }
}

impl Cri {
    /// Puts the line behind what waited, in place: a line may consist of thousands of parts.
    fn lengthen(&self, mut before: Held, work: &mut Work) -> Held {
        let mut line = std::mem::take(&mut before.line);
        line.extend_from_slice(work.bytes(work.line()));
        if let Some(size_max) = self.size_max
            && line.len() > size_max
        {
            line.truncate(size_max);
            self.truncated.inc();
        }
        work.set_line(Text::EMPTY);
        let mut held = work.hold_with(before, PARTIAL);
        held.line = line;
        held
    }

    /// Puts what waited in front of the line.
    fn join(&self, before: Held, work: &mut Work) {
        let line = work.read(work.line(), |line, tools| {
            tools.write(|out| {
                out.extend_from_slice(&before.line);
                out.extend_from_slice(line);
            })
        });
        work.set_line(line);
        work.absorb(before, PARTIAL);
    }

    fn truncate(&self, work: &mut Work) {
        if let Some(size_max) = self.size_max
            && work.line().len() > size_max
        {
            work.set_line(work.line().slice(0..size_max));
            self.truncated.inc();
        }
    }
}

/// Reads a time as RFC 3339 has it, in nanoseconds since the Unix epoch.
pub(super) fn parse_time(text: &[u8]) -> Option<i64> {
    corten_golang::time::parse_rfc3339(std::str::from_utf8(text).ok()?)
}

/// A line as container runtimes write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CriLine<'a> {
    timestamp: &'a [u8],
    is_stderr: bool,
    is_partial: bool,
    content: &'a [u8],
}

/// Takes a line apart: time, one blank, the name of the stream, one blank, a flag and one more blank, if they are
/// there, and the rest. The time is whatever stands before the first white space.
fn parse(line: &[u8]) -> Option<CriLine<'_>> {
    let blank = memchr::memchr(b' ', line)?;
    let (timestamp, rest) = line.split_at(blank);
    // White space of another kind would have ended the time before, and must not stand there.
    let has_space = if timestamp.is_ascii() {
        timestamp.iter().any(|byte| matches!(byte, b'\t'..=b'\r'))
    } else {
        timestamp.utf8_chunks().any(|chunk| chunk.valid().contains(char::is_whitespace))
    };
    if has_space {
        return None;
    }
    let rest = &rest[1..];
    let (is_stderr, rest) = match rest.strip_prefix(b"stdout") {
        Some(rest) => (false, rest),
        None => (true, rest.strip_prefix(b"stderr")?),
    };
    let rest = rest.strip_prefix(b" ")?;
    let (is_partial, rest) = match rest.first() {
        Some(b'P') => (true, &rest[1..]),
        Some(b'F') => (false, &rest[1..]),
        _ => (false, rest),
    };
    Some(CriLine { timestamp, is_stderr, is_partial, content: rest.strip_prefix(b" ").unwrap_or(rest) })
}

/// Where the parts of a line are.
struct CriParts {
    time: Text,
    is_stderr: bool,
    is_partial: bool,
    content: Text,
}

impl CriLine<'_> {
    fn places(&self, line: Text) -> CriParts {
        CriParts {
            time: line.slice(0..self.timestamp.len()),
            is_stderr: self.is_stderr,
            is_partial: self.is_partial,
            content: line.slice(line.len() - self.content.len()..line.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use corten_component::metrics::Registry;
    use corten_signal::Fanout;
    use corten_signal::acks::Window;
    use corten_signal::logs::LogsBatch;
    use corten_testkit::{LogsSink, logs};
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::testing::{program, run};
    use super::*;

    #[test]
    fn entries_become_what_the_reference_makes_of_them() {
        assert!(super::super::testing::recorded("cri") >= 12);
    }

    #[test]
    fn a_line_is_taken_apart() {
        let parts = |line: &'static str| {
            parse(line.as_bytes()).map(|parsed| {
                let text = |bytes| std::str::from_utf8(bytes).unwrap();
                (text(parsed.timestamp), parsed.is_stderr, parsed.is_partial, text(parsed.content))
            })
        };
        for (line, expected) in [
            ("t stdout F a b", Some(("t", false, false, "a b"))),
            ("t stderr P  a", Some(("t", true, true, " a"))),
            ("t stdout a", Some(("t", false, false, "a"))),
            ("t stdout Fa", Some(("t", false, false, "a"))),
            ("t stdout ", Some(("t", false, false, ""))),
            (" stdout F a", Some(("", false, false, "a"))),
            ("t stdout", None),
            ("t  stdout F a", None),
            ("t\tstdout F a", None),
            ("a\tb stdout F a", None),
            ("a\u{2003}b stdout F a", None),
            ("t stdin F a", None),
            ("", None),
        ] {
            assert_eq!(parts(line), expected, "{line}");
        }
    }

    #[test]
    fn a_line_without_an_end_goes_on_after_a_minute() {
        let entry = |line: &str, after_ms: u64| json!({ "line": format!("t stdout {line}"), "after_ms": after_ms });
        let ran = run("stage.cri { }", &[entry("P a", 0), entry("P b", 59_999), entry("F c", 60_001)]).unwrap();
        assert_eq!(ran.lines(), ["ab", "c"]);
        assert_eq!(ran.entries[0]["at_ms"], json!(119_999));
        assert_eq!(ran.metrics["loki_process_cri_partial_lines_flushed_total"], "1");
    }

    #[test]
    fn a_line_of_thousands_of_parts_costs_no_more_than_its_length() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let program = program("stage.cri { }", &Registry::new()).unwrap();
            let (sink, window) = (LogsSink::default(), Window::new(1, 1));
            let forward = Fanout::new(vec![sink.receiver()]);
            let part = format!("t stdout P {}", "x".repeat(4 << 10));
            let began = std::time::Instant::now();
            // The window lets more in than it has room for, because the stage keeps all of it.
            for at in 0..16_000 {
                let acks = window.try_push(at, 1).unwrap();
                program.consume(LogsBatch { acks, ..logs(&[("app", "web")], &[&part]) }, &forward).await.unwrap();
            }
            assert_eq!((window.settled_to(), window.len(), program.held()), (None, 16_000, 1));
            let acks = window.try_push(16_000, 1).unwrap();
            let last = LogsBatch { acks, ..logs(&[("app", "web")], &["t stdout F end"]) };
            program.consume(last, &forward).await.unwrap();
            assert_eq!(window.settled_to(), Some(16_000));
            assert_eq!(sink.texts()[0].len(), 16_000 * (4 << 10) + 3);
            // Were all of it copied with each part, it would take minutes.
            assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        });
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(line in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b' ')], 0..30)) {
            if let Some(parsed) = parse(&line) {
                prop_assert!(line.ends_with(parsed.content) && line.starts_with(parsed.timestamp));
            }
        }

        #[test]
        fn what_was_cut_is_joined(parts in proptest::collection::vec("[a-z ]{0,5}", 1..6)) {
            let mark = |at: usize| if at + 1 == parts.len() { "F" } else { "P" };
            let lines = parts.iter().enumerate().map(|(at, part)| json!({ "line": format!("t stdout {} {part}", mark(at)) }));
            let ran = run("stage.cri { }", &lines.collect::<Vec<_>>()).unwrap();
            prop_assert_eq!(ran.lines(), [parts.concat()]);
        }
    }
}
