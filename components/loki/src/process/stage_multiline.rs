//! `stage.multiline`.

use std::collections::HashMap;
use std::time::Duration;

use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_config::decode::SignedDuration;
use corten_config::schema::Stability;
use corten_signal::logs::Stream;
use corten_signal::regex::GoRegex;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::stage::{Build, Compile, Emit, Held, Next, Stage, StageError, Work, check};

/// Joins the lines of blocks, such as stack traces, to one entry each.
///
/// A block has a first line, and ends before the next one, when it has so many lines, or when none came for a while. It
/// has the labels, time, structured metadata and extracted values of its first line. Lines belong together that have
/// the same labels. Lines before the first first line stay as they are.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct MultilineStage {
    /// Regular expression that matches somewhere in the first line of a block.
    firstline: String,
    /// How many lines a block may have; 0 for any number. What follows is a further block, with the same labels and
    /// time.
    #[arg(default = 128)]
    max_lines: u64,
    /// How long to wait for a further line.
    #[arg(default = "3s")]
    max_wait_time: SignedDuration,
    /// Whether to remove line feeds and carriage returns at the ends of lines.
    #[arg(default = true)]
    trim_newlines: bool,
}

impl MultilineStage {
    fn check(&self) -> Result<(), CheckErrors> {
        if self.max_wait_time.nanoseconds > 0 {
            return Ok(());
        }
        Err(CheckErrors::of(&["max_wait_time"], "max_wait_time must be greater than 0"))
    }

    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        check(self)
    }
}

/// The longest block, in bytes. A longer one goes on in parts, as if it had too many lines.
const BLOCK_BYTES_MAX: usize = 16 << 20;

/// The most memory that blocks may take, in bytes. More, and all of them go on as they are.
const BLOCKS_BYTES_MAX: usize = 256 << 20;

/// The most label sets with a block. More, and all blocks go on as they are.
const STREAMS_MAX: usize = 100_000;

impl Build for MultilineStage {
    fn build(&self, _: &mut Compile<'_>) -> Result<Box<dyn Stage>, StageError> {
        if self.firstline.is_empty() {
            let text = "multiline stage config must define `firstline` regular expression";
            return Err(StageError::at("firstline", text));
        }
        let error = |error| format!("multiline stage first line regex compilation error: {error}");
        Ok(Box::new(Multiline {
            first: GoRegex::new(&self.firstline).map_err(|e| StageError::at("firstline", error(e)))?,
            lines_max: self.max_lines,
            wait_max: Duration::from_nanos(self.max_wait_time.nanoseconds.unsigned_abs()),
            trims: self.trim_newlines,
            blocks: Mutex::default(),
        }))
    }
}

struct Multiline {
    first: GoRegex,
    /// 0 for any number.
    lines_max: u64,
    wait_max: Duration,
    trims: bool,
    blocks: Mutex<Blocks>,
}

#[derive(Default)]
struct Blocks {
    by_stream: HashMap<Stream, Block>,
    /// How many blocks there were.
    serial: u64,
    /// How much memory they take, about.
    bytes: usize,
    /// When the first of them ends, or before.
    deadline: Option<Instant>,
}

struct Block {
    /// Blocks end in the order of their first lines.
    serial: u64,
    /// The entry of the first line, with what was joined to it. After a part went on, it has no line.
    entry: Held,
    /// How many lines there are since a part went on.
    lines: u64,
    until: Instant,
}

impl Block {
    /// How much memory it takes, in bytes, about.
    fn bytes(&self) -> usize {
        self.entry.bytes() + self.entry.labels_bytes()
    }

    /// Emits the block as it is. What comes then has the same first line.
    fn emit_part(&mut self, out: &mut Emit) {
        let line = std::mem::take(&mut self.entry.line);
        out.emit(self.entry.split(line));
        self.entry.settle();
        self.lines = 0;
    }

    /// Ends the block.
    fn end(self, out: &mut Emit) {
        if self.lines > 0 {
            out.emit(self.entry);
        } else {
            self.entry.discard();
        }
    }
}

impl Blocks {
    /// Ends the blocks that waited until now, or all.
    fn end(&mut self, now: Option<Instant>, out: &mut Emit) {
        let is_due = |_: &Stream, block: &mut Block| now.is_none_or(|now| block.until <= now);
        let mut due: Vec<Block> = self.by_stream.extract_if(is_due).map(|(_, block)| block).collect();
        self.deadline = self.by_stream.values().map(|block| block.until).min();
        self.bytes = self.bytes.saturating_sub(due.iter().map(Block::bytes).sum());
        due.sort_unstable_by_key(|block| block.serial);
        due.into_iter().for_each(|block| block.end(out));
        if self.by_stream.is_empty() {
            self.bytes = 0;
        }
    }
}

impl Stage for Multiline {
    fn run(&self, work: &mut Work, out: &mut Emit) -> Next {
        let line = work.line();
        let (is_first, len) = work.read(line, |line, tools| {
            let trimmed = line.iter().rev().take_while(|byte| self.trims && matches!(byte, b'\r' | b'\n')).count();
            (self.first.is_match_bytes(line, tools.lossy), line.len() - trimmed)
        });
        let mut blocks = self.blocks.lock();
        if !is_first && blocks.by_stream.is_empty() {
            return Next::Keep;
        }
        let key = work.stream();
        let now = Instant::now();
        if let Some(block) = blocks.by_stream.get(&key)
            && (is_first || block.until <= now)
            && let Some(block) = blocks.by_stream.remove(&key)
        {
            blocks.bytes = blocks.bytes.saturating_sub(block.bytes());
            block.end(out);
        }
        let until = now + self.wait_max;
        let blocks = &mut *blocks;
        if let Some(block) = blocks.by_stream.get_mut(&key) {
            let before = block.bytes();
            if block.lines > 0 && block.entry.line.len() + len > BLOCK_BYTES_MAX {
                block.emit_part(out);
            }
            if !block.entry.line.is_empty() {
                block.entry.line.push(b'\n');
            }
            block.entry.line.extend_from_slice(&work.bytes(line)[..len]);
            if block.lines == 0 {
                block.entry.begin_again(work);
            } else {
                block.entry.join(work, "multiline");
            }
            block.lines += 1;
            block.until = until;
            if block.lines == self.lines_max {
                block.emit_part(out);
            }
            blocks.bytes = (blocks.bytes + block.bytes()).saturating_sub(before);
        } else if is_first {
            work.set_line(line.slice(0..len));
            let mut block = Block { serial: blocks.serial, entry: work.hold(), lines: 1, until };
            if block.lines == self.lines_max {
                block.emit_part(out);
            }
            blocks.serial += 1;
            blocks.bytes += block.bytes();
            blocks.by_stream.insert(key, block);
        } else {
            return Next::Keep;
        }
        blocks.deadline.get_or_insert(until);
        if blocks.bytes > BLOCKS_BYTES_MAX || blocks.by_stream.len() > STREAMS_MAX {
            blocks.end(None, out);
        }
        Next::Held
    }

    fn holds(&self) -> bool {
        true
    }

    fn deadline(&self) -> Option<Instant> {
        self.blocks.lock().deadline
    }

    fn flush(&self, now: Instant, out: &mut Emit) {
        self.blocks.lock().end(Some(now), out);
    }

    fn close(&self, out: &mut Emit) {
        self.blocks.lock().end(None, out);
    }

    fn held(&self) -> usize {
        self.blocks.lock().by_stream.values().filter(|block| block.lines > 0).count()
    }
}

#[cfg(test)]
mod tests {
    use corten_component::metrics::Registry;
    use corten_signal::Fanout;
    use corten_signal::acks::Window;
    use corten_signal::logs::{EntriesBuilder, LogsBatch, Stream};
    use corten_testkit::LogsSink;
    use serde_json::json;

    use super::super::testing::{program, run};
    use super::BLOCK_BYTES_MAX;

    #[test]
    fn entries_become_what_the_reference_makes_of_them() {
        assert!(super::super::testing::recorded("multiline") >= 18);
    }

    fn batch(line: &str, window: &Window<usize>, at: usize) -> LogsBatch {
        let mut builder = EntriesBuilder::new();
        let part = builder.stream(&Stream::of([("app", "web")]).unwrap());
        let line = builder.own(line.as_bytes());
        builder.push(part, 0, line);
        LogsBatch { acks: window.try_push(at, 1).unwrap(), ..LogsBatch::of(builder.finish(0)) }
    }

    /// How far the source may go on after each line.
    async fn settled(config: &str, lines: &[&str]) -> Vec<Option<usize>> {
        let program = program(config, &Registry::new()).unwrap();
        let (sink, window) = (LogsSink::default(), Window::new(100, 1000));
        let forward = Fanout::new(vec![sink.receiver()]);
        let mut settled = Vec::new();
        for (at, line) in lines.iter().enumerate() {
            program.consume(batch(line, &window, at), &forward).await.unwrap();
            settled.push(window.settled_to());
        }
        let held = program.held();
        drop(program);
        assert_eq!(window.has_failed(), held > 0, "what is held when the program is killed is sent again");
        settled
    }

    #[tokio::test(start_paused = true)]
    async fn the_lines_of_a_block_are_safe_when_it_went_on() {
        let config = "stage.multiline { firstline = \"^S\" }";
        let lines = ["x", "S1", "a", "b", "S2", "c"];
        assert_eq!(settled(config, &lines).await, [Some(0), Some(0), Some(0), Some(0), Some(3), Some(3)]);
        let config = "stage.multiline {\nfirstline = \"^S\"\nmax_lines = 2\n}";
        let lines = ["S1", "a", "b", "c", "d", "S2"];
        assert_eq!(settled(config, &lines).await, [None, Some(1), Some(1), Some(3), Some(3), Some(4)]);
    }

    #[test]
    fn blocks_end_in_the_order_of_their_first_lines() {
        let entry = |app: &str, line: &str| json!({ "line": line, "labels": { "app": app } });
        let entries: Vec<_> = (0..50).map(|at| entry(&format!("app{at}"), &format!("S{at}"))).collect();
        let ran = run("stage.multiline { firstline = \"^S\" }", &entries).unwrap();
        assert_eq!(ran.lines(), (0..50).map(|at| format!("S{at}")).collect::<Vec<_>>());
    }

    #[test]
    fn a_block_has_a_longest_length() {
        let line = "x".repeat(BLOCK_BYTES_MAX / 2);
        let entries = ["S", &line, &line, "y", "S"].map(|line| json!({ "line": line }));
        let ran = run("stage.multiline { firstline = \"^S\" }", &entries).unwrap();
        let lengths: Vec<usize> = ran.lines().iter().map(|line| line.len()).collect();
        assert_eq!(lengths, [2 + line.len(), line.len() + 2, 1]);
    }
}
