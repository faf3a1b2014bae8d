//! The logs of a container, as Docker's API sends them.
//!
//! Without a terminal the two streams come in frames: a byte that names the stream, three zeros, the length in four bytes, the
//! most significant first, and what was written (`stdcopy` of Docker). With a terminal there is one stream without frames. Asked
//! for with `timestamps=1`, each line begins with its time as RFC 3339 says and a space. Docker splits what is longer than 16 KiB;
//! such pieces come in frames of their own, each with a time, and only the last ends with a line feed.

use std::fmt;

/// The longest line; what is longer is skipped.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// A frame of at least so many bytes that does not end a line is the beginning of one that Docker has split.
const SPLIT_BYTES: usize = 16 << 10;

/// The head of a frame.
const HEAD_BYTES: usize = 8;

/// Where a line was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Standard output; all that comes from a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A line.
    Line {
        /// Where it was written to.
        output: Output,
        /// When, in nanoseconds since the Unix epoch.
        time_ns: i64,
        /// The line without its end.
        content: &'a [u8],
    },
    /// A line without a time, which is skipped.
    NoTime,
    /// A line that is too long, which is skipped.
    TooLong,
}

/// The stream is not one of logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamError {
    /// A frame of an unknown stream.
    UnknownStream(u8),
    /// What the daemon says went wrong.
    Daemon(String),
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownStream(byte) => write!(f, "unrecognized input header: {byte}"),
            Self::Daemon(text) => write!(f, "error from daemon in stream: {text}"),
        }
    }
}

impl std::error::Error for StreamError {}

/// Makes lines of the bytes of a stream, however they are cut.
#[derive(Debug)]
pub struct DockerLines {
    frames: Option<Frames>,
    outputs: [Lines; 2],
}

/// What is known of the frame that is being read.
#[derive(Debug, Default)]
struct Frames {
    head: Vec<u8>,
    kind: u8,
    /// Bytes of the frame that are still to come.
    left: usize,
    inside: bool,
    payload: Vec<u8>,
    /// The frame is longer than any line may be: its bytes are passed over.
    skips: bool,
}

/// One output: lines that are put together of what was written.
#[derive(Debug, Default)]
struct Lines {
    buffer: Vec<u8>,
    /// The line is passed over up to its end.
    skips: bool,
    /// The next frame goes on with the line of the one before.
    joins: bool,
}

impl DockerLines {
    /// Reads the stream of a container with a terminal or without.
    pub fn new(tty: bool) -> Self {
        Self { frames: (!tty).then(Frames::default), outputs: Default::default() }
    }

    /// Reads on; tells of each line that is complete.
    ///
    /// # Errors
    ///
    /// If the stream is not one of logs. Nothing that follows can be read then.
    pub fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(Event<'_>)) -> Result<(), StreamError> {
        let Some(frames) = &mut self.frames else {
            self.outputs[0].push(bytes, Output::Stdout, &mut each);
            return Ok(());
        };
        while !bytes.is_empty() {
            if !frames.inside {
                let wanted = HEAD_BYTES - frames.head.len();
                let (head, rest) = bytes.split_at(wanted.min(bytes.len()));
                frames.head.extend_from_slice(head);
                bytes = rest;
                if frames.head.len() < HEAD_BYTES {
                    return Ok(());
                }
                frames.begin()?;
            } else {
                let (part, rest) = bytes.split_at(frames.left.min(bytes.len()));
                bytes = rest;
                frames.left -= part.len();
                if !frames.skips {
                    frames.payload.extend_from_slice(part);
                }
            }
            if frames.inside && frames.left == 0 {
                frames.inside = false;
                match frames.kind {
                    3 => {
                        let text = String::from_utf8_lossy(&frames.payload).trim().to_owned();
                        return Err(StreamError::Daemon(text));
                    }
                    2 => self.outputs[1].frame(&frames.payload, frames.skips, Output::Stderr, &mut each),
                    // What was written to standard input is shown where it was echoed.
                    _ => self.outputs[0].frame(&frames.payload, frames.skips, Output::Stdout, &mut each),
                }
                frames.payload.clear();
                // One long line must not keep its memory for good.
                frames.payload.shrink_to(4 * SPLIT_BYTES);
            }
        }
        Ok(())
    }

    /// The stream has ended as it should: tells of lines without an end.
    pub fn finish(&mut self, mut each: impl FnMut(Event<'_>)) {
        for (lines, output) in self.outputs.iter_mut().zip([Output::Stdout, Output::Stderr]) {
            if !lines.skips && !lines.buffer.is_empty() {
                tell(&lines.buffer, output, &mut each);
            }
            *lines = Lines::default();
        }
    }
}

impl Frames {
    fn begin(&mut self) -> Result<(), StreamError> {
        let length = self.head[4..].iter().fold(0_u64, |length, &byte| length << 8 | u64::from(byte));
        self.kind = self.head[0];
        self.head.clear();
        if self.kind > 3 {
            return Err(StreamError::UnknownStream(self.kind));
        }
        self.left = usize::try_from(length).unwrap_or(usize::MAX);
        self.skips = self.left > LINE_BYTES_MAX + SPLIT_BYTES;
        self.inside = true;
        Ok(())
    }
}

impl Lines {
    /// What was written at once.
    fn frame(&mut self, payload: &[u8], skipped: bool, output: Output, each: &mut impl FnMut(Event<'_>)) {
        if skipped {
            if !self.skips {
                each(Event::TooLong);
            }
            self.buffer.clear();
            (self.skips, self.joins) = (false, false);
            return;
        }
        let ends = payload.last() == Some(&b'\n');
        let payload = match (self.joins, split_time(payload)) {
            // The time of a further piece is that of the first.
            (true, Some((_, content))) => content,
            _ => payload,
        };
        self.joins = if self.joins { !ends } else { !ends && payload.len() >= SPLIT_BYTES };
        self.push(payload, output, each);
    }

    fn push(&mut self, mut bytes: &[u8], output: Output, each: &mut impl FnMut(Event<'_>)) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            bytes = rest;
            if self.skips {
                self.skips = false;
            } else if self.buffer.len() + line.len() > LINE_BYTES_MAX {
                each(Event::TooLong);
            } else if self.buffer.is_empty() {
                tell(line, output, each);
            } else {
                self.buffer.extend_from_slice(line);
                tell(&self.buffer, output, each);
            }
            self.buffer.clear();
            self.buffer.shrink_to(4 * SPLIT_BYTES);
        }
        if self.skips {
            return;
        }
        if self.buffer.len() + bytes.len() > LINE_BYTES_MAX {
            each(Event::TooLong);
            self.buffer = Vec::new();
            self.skips = true;
        } else {
            self.buffer.extend_from_slice(bytes);
        }
    }
}

fn tell(line: &[u8], output: Output, each: &mut impl FnMut(Event<'_>)) {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match split_time(line) {
        None => each(Event::NoTime),
        Some((_, [])) => {}
        Some((time_ns, content)) => each(Event::Line { output, time_ns, content }),
    }
}

/// The time at the front of a line, and what is behind the space after it.
fn split_time(line: &[u8]) -> Option<(i64, &[u8])> {
    // No time is longer than `2006-01-02T15:04:05.999999999+07:00`.
    let space = line.iter().take(64).position(|&byte| byte == b' ')?;
    Some((rfc3339_ns(&line[..space])?, &line[space + 1..]))
}

/// Reads a time as RFC 3339 says, with any number of decimals; in nanoseconds since the Unix epoch. What does not fit is no time.
pub fn rfc3339_ns(text: &[u8]) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        text.get(range)?
            .iter()
            .try_fold(0, |sum, &byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
    };
    let is = |at: usize, byte: u8| (text.get(at) == Some(&byte)).then_some(());
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    for (at, byte) in [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')] {
        is(at, byte)?;
    }
    let mut at = 19;
    let mut nanos = 0;
    if matches!(text.get(at), Some(b'.' | b',')) {
        let digits = text[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        let kept = digits.min(9);
        nanos = number(at + 1..at + 1 + kept)? * 10_i64.pow(9 - kept as u32);
        at += 1 + digits;
    }
    let offset = match text.get(at)? {
        b'Z' => {
            at += 1;
            0
        }
        sign @ (b'+' | b'-') => {
            let (hours, minutes) = (number(at + 1..at + 3)?, number(at + 4..at + 6)?);
            is(at + 3, b':')?;
            at += 6;
            if hours > 24 || minutes > 60 {
                return None;
            }
            (hours * 60 + minutes) * if *sign == b'+' { 60 } else { -60 }
        }
        _ => return None,
    };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let days = *days.get(usize::try_from(month).ok()?.checked_sub(1)?)?;
    if at != text.len() || !(1..=days).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let seconds = days_since_epoch(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
}

/// Days from 1970-01-01 to a day of the Gregorian calendar, counted from a March so that leap days come last.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        [&[kind, 0, 0, 0][..], &(payload.len() as u32).to_be_bytes(), payload].concat()
    }

    fn show(event: Event<'_>) -> String {
        match event {
            Event::Line { output, time_ns, content } => {
                let text = String::from_utf8_lossy(content);
                let text = if text.len() > 100 { format!("{} bytes", text.len()) } else { text.into_owned() };
                format!("{output:?} {time_ns} {text}")
            }
            other => format!("{other:?}"),
        }
    }

    fn read(tty: bool, parts: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut all) = (DockerLines::new(tty), Vec::new());
        for part in parts {
            lines.push(part, |event| all.push(show(event))).unwrap();
        }
        lines.finish(|event| all.push(show(event)));
        all
    }

    const TIME: &str = "2026-08-21T10:00:00.000000005Z ";
    const AT: i64 = 1_787_306_400_000_000_005;

    #[test]
    fn lines_of_both_streams_are_told_apart_wherever_frames_are_cut() {
        let stream = [
            frame(1, format!("{TIME}one\n").as_bytes()),
            frame(2, format!("{TIME}two\r\n").as_bytes()),
            frame(1, format!("{TIME}\n").as_bytes()),
            frame(1, b""),
            frame(1, b"no time\n"),
            frame(1, format!("{TIME}last").as_bytes()),
        ]
        .concat();
        let expected = vec![
            format!("Stdout {AT} one"),
            format!("Stderr {AT} two"),
            "NoTime".to_owned(),
            format!("Stdout {AT} last"),
        ];
        assert_eq!(read(false, &[&stream]), expected);
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(read(false, &bytes), expected);
    }

    #[test]
    fn what_docker_has_split_is_joined_and_has_the_time_of_its_beginning() {
        let half = "x".repeat(SPLIT_BYTES);
        let later = "2026-08-21T10:00:01Z ";
        let mut stream = frame(1, format!("{TIME}{half}").as_bytes());
        stream.extend(frame(2, format!("{later}between\n").as_bytes()));
        stream.extend(frame(1, format!("{later}{half}").as_bytes()));
        stream.extend(frame(1, format!("{later}end\n").as_bytes()));
        stream.extend(frame(1, format!("{later}next\n").as_bytes()));
        let expected = [
            format!("Stderr {} between", AT + 999_999_995),
            format!("Stdout {AT} {} bytes", 2 * SPLIT_BYTES + 3),
            format!("Stdout {} next", AT + 999_999_995),
        ];
        assert_eq!(read(false, &[&stream]), expected);
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped_to_its_end() {
        let long = format!("{TIME}{}\n{TIME}next\n", "x".repeat(LINE_BYTES_MAX));
        let expected = ["TooLong".to_owned(), format!("Stdout {AT} next")];
        assert_eq!(read(true, &[long.as_bytes()]), expected);
        let parts: Vec<&[u8]> = long.as_bytes().chunks(100_000).collect();
        assert_eq!(read(true, &parts), expected);
        let mut stream = frame(1, &long.as_bytes()[..long.len() - TIME.len() - 5]);
        stream.extend(frame(1, &[b'x'; 3 * LINE_BYTES_MAX]));
        stream.extend(frame(1, format!("{TIME}next\n").as_bytes()));
        assert_eq!(read(false, &[&stream]), ["TooLong".to_owned(), "TooLong".to_owned(), format!("Stdout {AT} next")]);
    }

    #[test]
    fn what_is_no_stream_of_logs_is_an_error() {
        let push = |bytes: &[u8]| DockerLines::new(false).push(bytes, |_| ()).map_err(|error| error.to_string());
        assert_eq!(push(b"HTTP/1.1 200 OK"), Err("unrecognized input header: 72".to_owned()));
        assert_eq!(push(&frame(3, b"disk gone\n")), Err("error from daemon in stream: disk gone".to_owned()));
    }

    #[test]
    fn times_are_read_as_rfc_3339_says() {
        let cases = [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T12:00:00.5Z", Some(951_825_600_500_000_000)),
            ("2026-08-21T12:00:00.000000005+02:00", Some(AT)),
            ("2026-08-21T09:59:59,000000005-00:00", Some(AT - 1_000_000_000)),
            ("1969-12-31T23:59:59.9999999999Z", Some(-1)),
            ("2026-02-29T00:00:00Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("2026-08-21T24:00:00Z", None),
            ("2026-08-21T10:00:00", None),
            ("2026-08-21T10:00:00.Z", None),
            ("2026-08-21T10:00:00Zx", None),
            ("9999-08-21T10:00:00Z", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(rfc3339_ns(text.as_bytes()), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            time in "[0-9TZ:.+, -]{0,40}",
            tty in any::<bool>(),
        ) {
            let mut lines = DockerLines::new(tty);
            let _ = lines.push(&bytes, |_| ());
            let _ = lines.push(&frame(1, &bytes), |_| ());
            lines.finish(|_| ());
            let _ = (rfc3339_ns(time.as_bytes()), split_time(&bytes));
        }

        #[test]
        fn lines_are_the_same_however_they_are_cut(
            lines in proptest::collection::vec((1_u8..3, "[a-z]{1,20}"), 0..20),
            cuts in proptest::collection::vec(1_usize..50, 1..10),
        ) {
            let stream: Vec<u8> =
                lines.iter().flat_map(|(kind, line)| frame(*kind, format!("{TIME}{line}\n").as_bytes())).collect();
            let (mut rest, mut parts) = (&stream[..], Vec::new());
            for cut in cuts.iter().cycle() {
                let (part, after) = rest.split_at((*cut).min(rest.len()));
                parts.push(part);
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(read(false, &parts).len(), lines.len());
            prop_assert_eq!(read(false, &parts), read(false, &[&stream]));
        }
    }
}
