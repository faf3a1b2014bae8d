//! The lines that are tailed, and the proof that each carries: the number of its file, its own, and a check of its bytes.
//!
//! A line holds one mark, `#<file>:<number>:<check>`, and no other `#`. Numbers count from one within a file. The check covers
//! all bytes of the line but its own eight digits, so that a line that was cut or glued is seen wherever it arrives.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use crate::{
    error::{Context, Error, Result},
    exposition::mix,
};

/// Bytes of a raw line, its newline among them.
pub(crate) const RAW_BYTES: usize = 133;

/// The moment that the first line of each file tells, and the distance to the next: 2026-08-21T10:00:00Z, a millisecond.
pub(crate) const FIRST_NS: i64 = 1_787_306_400 * 1_000_000_000;
pub(crate) const STEP_NS: i64 = 1_000_000;

/// The most lines that a file may have; it keeps all moments within one day.
pub(crate) const LINES_MAX: u64 = 1_000_000;

/// The most files.
pub(crate) const FILES_MAX: usize = 20_000;

const CHECK_DIGITS: usize = 8;

const LEVELS: [&str; 4] = ["info", "warn", "error", "debug"];
const SERVICES: [&str; 4] = ["checkout", "catalog", "payment", "shipping"];
const METHODS: [&str; 4] = ["GET", "POST", "PUT", "DELETE"];
const WORDS: [&str; 8] = [
    "request handled",
    "cache refreshed",
    "upstream answered",
    "queue drained",
    "session opened",
    "retrying call",
    "record stored",
    "page rendered",
];

/// What lines look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Plain text of 133 bytes.
    Raw,
    /// An object with a time and ten other fields.
    Json,
    /// The combined format of nginx.
    Nginx,
}

impl Shape {
    /// The shape of that name.
    pub(crate) fn named(name: &str) -> Result<Self> {
        match name {
            "raw" => Ok(Self::Raw),
            "json" => Ok(Self::Json),
            "nginx" => Ok(Self::Nginx),
            _ => Err(Error::new(format!("option --shape: {name:?} is none of raw, json, nginx"))),
        }
    }
}

/// Makes the lines of one file, one after another.
#[derive(Debug)]
pub(crate) struct Lines {
    shape: Shape,
    file: usize,
    number: u64,
    seed: u64,
}

impl Lines {
    /// Begins a file. The same seed, shape and file give the same lines.
    pub(crate) fn new(shape: Shape, file: usize, seed: u64) -> Self {
        Self { shape, file, number: 0, seed: mix(seed ^ mix(file as u64)) }
    }

    /// Appends the next line, with its newline.
    pub(crate) fn next(&mut self, out: &mut Vec<u8>) {
        self.number += 1;
        let from = out.len();
        let random = mix(self.seed.wrapping_add(self.number));
        let pick = |shift: u32, of: usize| (random >> shift) as usize % of;
        let (level, service, method) = (LEVELS[pick(0, 4)], SERVICES[pick(2, 4)], METHODS[pick(4, 4)]);
        let (words, item, status) = (WORDS[pick(6, 8)], pick(12, 100_000), 200 + pick(30, 5));
        let (bytes, took) = (pick(34, 65_536), pick(40, 1_000_000));
        let millis = self.number - 1;
        let (second, milli) = (millis / 1000 % 60, millis % 1000);
        let (hour, minute) = (10 + millis / 3_600_000, millis / 60_000 % 60);
        let (file, number) = (self.file, self.number);
        // Writing to a vector cannot fail.
        let _ = match self.shape {
            Shape::Raw => {
                let _ = write!(
                    out,
                    "2026-08-21T{hour:02}:{minute:02}:{second:02}.{milli:03}Z {level} {service} {words} \
                     method={method} path=/api/v1/items/{item} status={status} "
                );
                // The mark has its own width: what is between is filled.
                let mark = 1 + digits(file as u64) + 1 + digits(number) + 1 + CHECK_DIGITS;
                let fill = (RAW_BYTES - 1).saturating_sub(out.len() - from + mark + 1);
                let hex = format!("{random:016x}{:016x}{:016x}", mix(random), mix(random ^ 1));
                out.extend(hex.bytes().cycle().take(fill));
                write!(out, " #{file}:{number}:")
            }
            Shape::Json => write!(
                out,
                "{{\"ts\":\"2026-08-21T{hour:02}:{minute:02}:{second:02}.{milli:03}Z\",\"level\":\"{level}\",\
                 \"service\":\"{service}\",\"method\":\"{method}\",\"path\":\"/api/v1/items/{item}\",\"status\":{status},\
                 \"bytes\":{bytes},\"took_ms\":{}.{:03},\"user\":null,\"message\":\"{words}\",\"id\":\"#{file}:{number}:",
                took / 1000,
                took % 1000,
            ),
            Shape::Nginx => write!(
                out,
                "10.{}.{}.{} - user{} [21/Aug/2026:{hour:02}:{minute:02}:{second:02} +0000] \
                 \"{method} /api/v1/items/{item} HTTP/1.1\" {status} {bytes} \"https://{service}.example.com/{level}\" \
                 \"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0 #{file}:{number}:",
                pick(8, 256),
                pick(16, 256),
                pick(24, 256),
                item % 100,
            ),
        };
        let at = out.len();
        out.extend_from_slice(&[b'0'; CHECK_DIGITS]);
        out.extend_from_slice(match self.shape {
            Shape::Raw => b"",
            Shape::Json => b"\"}",
            Shape::Nginx => b"\"",
        });
        let check = check(&out[from..at], &out[at + CHECK_DIGITS..]);
        out[at..at + CHECK_DIGITS].copy_from_slice(format!("{check:08x}").as_bytes());
        out.push(b'\n');
    }
}

fn digits(number: u64) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

/// A check of the bytes on both sides of its own digits: eight bytes at a time, since the sink computes it for every line.
fn check(before: &[u8], after: &[u8]) -> u32 {
    let mut sum = 0xcbf2_9ce4_8422_2325_u64 ^ before.len() as u64;
    for part in [before, after] {
        let mut words = part.chunks_exact(8);
        for word in &mut words {
            let word = word.try_into().map_or(0, u64::from_le_bytes);
            sum = (sum ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
        }
        for &byte in words.remainder() {
            sum = (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
        }
    }
    (sum ^ (sum >> 32)) as u32
}

/// What a line says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The number of the file.
    pub(crate) file: usize,
    /// The number of the line in it, from one.
    pub(crate) number: u64,
}

impl Mark {
    /// The moment that the line tells, in nanoseconds since the epoch.
    pub(crate) fn time_ns(self) -> i64 {
        FIRST_NS + (self.number.clamp(1, LINES_MAX) as i64 - 1) * STEP_NS
    }

    /// Reads the mark of a line without its newline; `None` when it has none or its bytes are not those that were written.
    pub(crate) fn read(line: &[u8]) -> Option<Self> {
        let at = line.iter().rposition(|&byte| byte == b'#')?;
        let rest = &line[at + 1..];
        let (file, rest) = number(rest)?;
        let (number, rest) = number(rest)?;
        let digits = rest.get(..CHECK_DIGITS)?;
        let said = u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        let before = line.len() - rest.len();
        let whole = check(&line[..before], &rest[CHECK_DIGITS..]) == said;
        let file = usize::try_from(file).ok().filter(|&file| file < FILES_MAX)?;
        (whole && (1..=LINES_MAX).contains(&number)).then_some(Self { file, number })
    }
}

/// Reads digits up to a colon; gives what is behind it.
fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let end = text.iter().take(20).position(|&byte| byte == b':')?;
    Some((std::str::from_utf8(&text[..end]).ok()?.parse().ok()?, &text[end + 1..]))
}

/// The label `level`, `service` and `method` of a JSON line stand at its front, behind a time of fixed width.
pub(crate) fn json_labels(level: &str, service: &str, method: &str) -> String {
    format!(",\"level\":\"{level}\",\"service\":\"{service}\",\"method\":\"{method}\",")
}

/// Whether a JSON line's fields are those, as [`json_labels`] wrote them.
pub(crate) fn has_labels(line: &[u8], labels: &[u8]) -> bool {
    const AT: usize = "{\"ts\":\"2026-08-21T10:00:00.000Z\"".len();
    line.get(AT..).is_some_and(|rest| rest.starts_with(labels))
}

/// The path of a file.
pub(crate) fn path(dir: &Path, file: usize) -> PathBuf {
    dir.join(format!("{file}.log"))
}

/// Writes the files of a backlog, and waits until they are on the disk, so that writing them back disturbs no measurement.
pub(crate) fn write(dir: &Path, files: usize, lines: u64, shape: Shape, seed: u64) -> Result<()> {
    let what = format!("cannot write lines below {}", dir.display());
    let all = || -> io::Result<()> {
        std::fs::create_dir_all(dir)?;
        let mut line = Vec::new();
        for file in 0..files {
            let mut source = Lines::new(shape, file, seed);
            let mut out = BufWriter::with_capacity(1 << 20, File::create(path(dir, file))?);
            for _ in 0..lines {
                line.clear();
                source.next(&mut line);
                out.write_all(&line)?;
            }
            let out = out.into_inner().map_err(io::IntoInnerError::into_error)?;
            // Thousands of small files are not worth a wait each.
            if files < 100 {
                out.sync_all()?;
            }
        }
        Ok(())
    };
    all().context(what)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(shape: Shape, file: usize, number: u64) -> Vec<u8> {
        let mut lines = Lines { number: number - 1, ..Lines::new(shape, file, 7) };
        let mut out = Vec::new();
        lines.next(&mut out);
        assert_eq!(out.pop(), Some(b'\n'));
        out
    }

    #[test]
    fn raw_lines_have_133_bytes_whatever_their_numbers() {
        for (file, number) in [(0, 1), (9, 10), (49, 999_999), (19_999, 1_000_000)] {
            assert_eq!(line(Shape::Raw, file, number).len() + 1, RAW_BYTES, "{file} {number}");
        }
    }

    #[test]
    fn a_json_line_says_its_time_and_labels() {
        let text = String::from_utf8(line(Shape::Json, 3, 61_002)).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["ts"], "2026-08-21T10:01:01.001Z");
        let text_of = |name: &str| value[name].as_str().unwrap().to_owned();
        let labels = json_labels(&text_of("level"), &text_of("service"), &text_of("method"));
        assert!(has_labels(text.as_bytes(), labels.as_bytes()));
        assert!(!has_labels(text.as_bytes(), json_labels("none", "x", "y").as_bytes()));
        let mark = Mark::read(text.as_bytes()).unwrap();
        assert_eq!(mark, Mark { file: 3, number: 61_002 });
        assert_eq!(mark.time_ns(), FIRST_NS + 61_001 * 1_000_000);
        assert_eq!(Mark { file: 0, number: 1 }.time_ns() / 1_000_000_000, 1_787_306_400);
    }

    #[test]
    fn an_nginx_line_has_the_combined_format() {
        let text = String::from_utf8(line(Shape::Nginx, 0, 1)).unwrap();
        assert!(text.contains(" [21/Aug/2026:10:00:00 +0000] \""), "{text}");
        assert!(text.starts_with("10.") && text.ends_with('"'), "{text}");
        assert_eq!(text.matches('"').count(), 6);
    }

    #[test]
    fn no_changed_byte_goes_unseen() {
        for shape in [Shape::Raw, Shape::Json, Shape::Nginx] {
            let whole = line(shape, 12, 345);
            assert_eq!(Mark::read(&whole), Some(Mark { file: 12, number: 345 }));
            for at in 0..whole.len() {
                let mut bad = whole.clone();
                bad[at] ^= 1;
                assert_ne!(Mark::read(&bad), Some(Mark { file: 12, number: 345 }), "{shape:?} {at}");
            }
            for length in 0..whole.len() {
                assert_eq!(Mark::read(&whole[..length]), None, "{shape:?} {length}");
            }
            assert_eq!(Mark::read(&[&whole[..], &whole[..]].concat()), None);
        }
    }

    #[test]
    fn files_are_written_alike_for_one_seed() {
        let dir = std::env::temp_dir().join(format!("corten-bench-lines-{}", std::process::id()));
        write(&dir, 2, 3, Shape::Raw, 1).unwrap();
        let first = std::fs::read(path(&dir, 1)).unwrap();
        write(&dir, 2, 3, Shape::Raw, 1).unwrap();
        assert_eq!(std::fs::read(path(&dir, 1)).unwrap(), first);
        assert_eq!(first.len(), 3 * RAW_BYTES);
        std::fs::remove_dir_all(dir).unwrap();
    }

    proptest! {
        #[test]
        fn no_line_makes_the_reader_panic(line in proptest::collection::vec(any::<u8>(), 0..60), cut in 0_usize..60) {
            let _ = Mark::read(&line);
            let _ = Mark::read(&[&b"#1:2:"[..], &line[..]].concat());
            let _ = Mark::read(&[&line[..cut.min(line.len())], &b"#0:1:00000000"[..]].concat());
            let _ = has_labels(&line, b"x");
        }
    }
}
