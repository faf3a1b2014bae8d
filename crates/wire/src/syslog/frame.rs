//! How messages are told apart on a stream: RFC 6587, as the reference reads it.

use std::fmt;
use std::ops::Range;

/// The longest message, in bytes, where nothing else limits it.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// How messages are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// By the first byte of the stream: a digit for octet counting, `<` for line ends. A line that does not begin with `<`
    /// goes on with the message before it.
    Syslog {
        /// The longest message that may be announced by octet counting, in bytes.
        counted_bytes_max: usize,
    },
    /// By the first byte of each message: a digit for octet counting, anything else for a delimiter.
    Raw {
        /// What ends a message.
        delimiter: u8,
    },
}

/// Why messages cannot be told apart any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The stream begins with neither a digit nor `<`.
    Unknown(u8),
    /// What should be the length of a message is none, or nothing that begins with `<` follows.
    Length,
    /// A message is longer than it may be.
    TooLong {
        /// What was announced, or arrived so far, in bytes.
        len: u64,
        /// The limit, in bytes.
        len_max: usize,
    },
    /// The stream ended within a message.
    Truncated,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::Unknown(byte) => {
                write!(f, "invalid or unsupported framing. first byte: {:?}", char::from(*byte))
            }
            FrameError::Length => f.write_str("invalid message length"),
            FrameError::TooLong { len, len_max } => {
                write!(f, "message length ({len}) exceeds maximum length ({len_max})")
            }
            FrameError::Truncated => f.write_str("the stream ended within a message"),
        }
    }
}

impl std::error::Error for FrameError {}

/// A message of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its place: see [`Framer::bytes`].
    pub range: Range<usize>,
    /// Whether its length was announced.
    pub counted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing has arrived yet.
    New,
    Lines,
    Counted,
    Raw,
    Failed,
}

/// Tells messages apart as bytes arrive.
#[derive(Debug)]
pub struct Framer {
    framing: Framing,
    state: State,
    buffer: Vec<u8>,
    /// Where the next message begins.
    start: usize,
    /// How far line ends were looked for.
    seen: usize,
    /// Whether a line end may follow that belongs to no message.
    after_counted: bool,
}

impl Framer {
    /// A stream of which nothing has arrived yet.
    pub fn new(framing: Framing) -> Self {
        Framer { framing, state: State::New, buffer: Vec::new(), start: 0, seen: 0, after_counted: false }
    }

    /// Takes bytes. What was returned before has no place any more.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.seen -= self.start;
            self.start = 0;
            if self.buffer.is_empty() && self.buffer.capacity() > KEPT_BYTES_MAX {
                self.buffer = Vec::new();
            }
        }
        if self.state != State::Failed {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// The text of a message.
    pub fn bytes(&self, frame: &Frame) -> &[u8] {
        self.buffer.get(frame.range.clone()).unwrap_or_default()
    }

    /// How much is kept because it is no whole message yet, in bytes.
    pub fn pending_bytes(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// The next message that is whole. Nothing comes after an error.
    pub fn next_frame(&mut self) -> Option<Result<Frame, FrameError>> {
        if self.state == State::New {
            let first = *self.buffer.first()?;
            self.state = match (self.framing, first) {
                (Framing::Raw { .. }, _) => State::Raw,
                (_, b'<') => State::Lines,
                (_, b'0'..=b'9') => State::Counted,
                _ => return self.fail(FrameError::Unknown(first)),
            };
        }
        match (self.state, self.framing) {
            (State::Lines, _) => self.next_lines(),
            (State::Counted, Framing::Syslog { counted_bytes_max }) => self.next_counted(counted_bytes_max),
            (State::Raw, Framing::Raw { delimiter }) => self.next_raw(delimiter),
            _ => None,
        }
    }

    /// The message that is whole if nothing else comes: what ends with a line end may go on with the next line. For
    /// connections that have been quiet for a while.
    pub fn quiet(&mut self) -> Option<Frame> {
        let is_whole = self.state == State::Lines && self.start < self.buffer.len() && self.buffer.ends_with(b"\n");
        is_whole.then(|| self.take(self.start..self.buffer.len() - 1, self.buffer.len(), false))
    }

    /// The messages that are left at the end of the stream, and whether it ended within one.
    pub fn finish(&mut self) -> (Vec<Frame>, Option<FrameError>) {
        let mut frames = Vec::new();
        let len = self.buffer.len();
        let rest = self.start..len;
        let state = std::mem::replace(&mut self.state, State::Failed);
        if rest.is_empty() {
            return (frames, None);
        }
        match (state, self.framing) {
            (State::Lines, _) => {
                // Here all lines but the last are one message. The reference takes a last one that has no line end for
                // another, and so loses what a message, as all of a packet, says in its last line.
                let last = memchr::memrchr(b'\n', &self.buffer[rest.clone()]).map(|at| rest.start + at);
                if let Some(last) = last.filter(|last| matches!(self.buffer.get(last + 1), None | Some(b'<'))) {
                    frames.push(self.take(rest.start..last, last + 1, false));
                }
                if self.start < len {
                    frames.push(self.take(self.start..len, len, false));
                }
            }
            (State::Counted, _) if self.after_counted && &self.buffer[rest.clone()] == b"\n" => {}
            (State::Counted, _) => return (frames, Some(FrameError::Truncated)),
            (State::Raw, _) if self.buffer[rest.start].is_ascii_digit() => {
                // The reference says nothing of a length without a message.
                let behind = memchr::memchr(b' ', &self.buffer[rest.clone()]).map(|at| rest.start + at + 1);
                return (frames, behind.filter(|behind| *behind < len).map(|_| FrameError::Truncated));
            }
            (State::Raw, _) => frames.push(self.take(rest, len, false)),
            _ => {}
        }
        (frames, None)
    }

    fn fail<T>(&mut self, error: FrameError) -> Option<Result<T, FrameError>> {
        self.state = State::Failed;
        self.buffer = Vec::new();
        (self.start, self.seen) = (0, 0);
        Some(Err(error))
    }

    fn take(&mut self, range: Range<usize>, next: usize, counted: bool) -> Frame {
        (self.start, self.seen, self.after_counted) = (next, next, counted);
        Frame { range, counted }
    }

    fn next_lines(&mut self) -> Option<Result<Frame, FrameError>> {
        loop {
            let Some(found) = memchr::memchr(b'\n', &self.buffer[self.seen..]) else {
                self.seen = self.buffer.len();
                break;
            };
            let end = self.seen + found;
            match self.buffer.get(end + 1) {
                Some(b'<') => return Some(Ok(self.take(self.start..end, end + 1, false))),
                Some(_) => self.seen = end + 1,
                // It is not known yet whether the message goes on.
                None => {
                    self.seen = end;
                    break;
                }
            }
        }
        self.check_pending()
    }

    fn check_pending(&mut self) -> Option<Result<Frame, FrameError>> {
        let len = self.pending_bytes();
        if len > MESSAGE_BYTES_MAX {
            return self.fail(FrameError::TooLong { len: len as u64, len_max: MESSAGE_BYTES_MAX });
        }
        None
    }

    fn next_counted(&mut self, len_max: usize) -> Option<Result<Frame, FrameError>> {
        if self.after_counted && self.buffer.get(self.start) == Some(&b'\n') {
            self.take(0..0, self.start + 1, false);
        }
        let rest = &self.buffer[self.start..];
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if rest.first().is_some_and(|first| !matches!(first, b'1'..=b'9')) || digits > DIGITS_MAX {
            return self.fail(FrameError::Length);
        }
        // A length is known to end only with what follows it.
        let behind = *rest.get(digits)?;
        let len = number(&rest[..digits]);
        if len > len_max.min(MESSAGE_BYTES_MAX) as u64 {
            return self.fail(FrameError::TooLong { len, len_max: len_max.min(MESSAGE_BYTES_MAX) });
        }
        if behind != b' ' || rest.get(digits + 1).is_some_and(|first| *first != b'<') {
            return self.fail(FrameError::Length);
        }
        let (start, len) = (self.start + digits + 1, len as usize);
        if self.buffer.len() < start + len {
            return None;
        }
        Some(Ok(self.take(start..start + len, start + len, true)))
    }

    fn next_raw(&mut self, delimiter: u8) -> Option<Result<Frame, FrameError>> {
        let rest = &self.buffer[self.start..];
        if !rest.first()?.is_ascii_digit() {
            let Some(found) = memchr::memchr(delimiter, &self.buffer[self.seen..]) else {
                self.seen = self.buffer.len();
                return self.check_pending();
            };
            let end = self.seen + found;
            return Some(Ok(self.take(self.start..end, end + 1, false)));
        }
        let Some(digits) = memchr::memchr(b' ', &rest[..rest.len().min(DIGITS_MAX + 1)]) else {
            return if rest.len() > DIGITS_MAX { self.fail(FrameError::Length) } else { None };
        };
        if !rest[..digits].iter().all(u8::is_ascii_digit) {
            return self.fail(FrameError::Length);
        }
        let len = number(&rest[..digits]);
        if len == 0 {
            return self.fail(FrameError::Length);
        }
        if len > MESSAGE_BYTES_MAX as u64 {
            return self.fail(FrameError::TooLong { len, len_max: MESSAGE_BYTES_MAX });
        }
        let (start, len) = (self.start + digits + 1, len as usize);
        if self.buffer.len() < start + len {
            return None;
        }
        Some(Ok(self.take(start..start + len, start + len, true)))
    }
}

/// The most digits that a length has: more do not fit into 64 bits.
const DIGITS_MAX: usize = 19;

/// How large an empty buffer is kept, in bytes.
const KEPT_BYTES_MAX: usize = 64 << 10;

fn number(digits: &[u8]) -> u64 {
    digits.iter().fold(0, |value: u64, digit| value.saturating_mul(10).saturating_add(u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SYSLOG: Framing = Framing::Syslog { counted_bytes_max: 100 };
    const RAW: Framing = Framing::Raw { delimiter: b'\n' };

    /// What becomes of a stream that arrives in pieces of a length.
    fn frames(framing: Framing, stream: &[u8], piece: usize) -> Vec<String> {
        let mut framer = Framer::new(framing);
        let mut out = Vec::new();
        let shown = |framer: &Framer, frame: Frame| String::from_utf8_lossy(framer.bytes(&frame)).into_owned();
        for piece in stream.chunks(piece) {
            framer.feed(piece);
            while let Some(frame) = framer.next_frame() {
                match frame {
                    Ok(frame) => out.push(shown(&framer, frame)),
                    Err(error) => out.push(format!("! {error}")),
                }
            }
        }
        let (rest, error) = framer.finish();
        out.extend(rest.into_iter().map(|frame| shown(&framer, frame)));
        out.extend(error.map(|error| format!("! {error}")));
        out
    }

    #[test]
    fn messages_are_told_apart_wherever_the_stream_is_cut() {
        for (framing, stream, expected) in [
            (SYSLOG, "<1>a\n<2>b\n", vec!["<1>a", "<2>b"]),
            (SYSLOG, "<1>a\nb\n\n<2>c\nd", vec!["<1>a\nb\n", "<2>c\nd"]),
            (SYSLOG, "<1>a\r\n<2>b", vec!["<1>a\r", "<2>b"]),
            (SYSLOG, "<1>a", vec!["<1>a"]),
            (SYSLOG, "4 <1>a6 <2>b\nc\n5 <3>de", vec!["<1>a", "<2>b\nc", "<3>de"]),
            (SYSLOG, "4 <1>a\n", vec!["<1>a"]),
            (SYSLOG, "4 <1>a\n\n4 <1>b", vec!["<1>a", "! invalid message length"]),
            (SYSLOG, "4 <1>", vec!["! the stream ended within a message"]),
            (SYSLOG, "4", vec!["! the stream ended within a message"]),
            (SYSLOG, "4 a<1>", vec!["! invalid message length"]),
            (SYSLOG, "4  <1>a", vec!["! invalid message length"]),
            (SYSLOG, "0 <1>a", vec!["! invalid message length"]),
            (SYSLOG, "4<1>a", vec!["! invalid message length"]),
            (SYSLOG, "-4 <1>a", vec!["! invalid or unsupported framing. first byte: '-'"]),
            (SYSLOG, "101 <1>a", vec!["! message length (101) exceeds maximum length (100)"]),
            (SYSLOG, "99999999999999999999 <1>a", vec!["! invalid message length"]),
            (SYSLOG, "4 <1>a\0", vec!["<1>a", "! invalid message length"]),
            (SYSLOG, "CEF:0|a\n", vec!["! invalid or unsupported framing. first byte: 'C'"]),
            (SYSLOG, "", vec![]),
            (RAW, "a\n<1>b\n\n5 c\nd e\nf", vec!["a", "<1>b", "", "c\nd e", "", "f"]),
            (RAW, "5 a b", vec!["! the stream ended within a message"]),
            (RAW, "5 ", vec![]),
            (RAW, "5", vec![]),
            (RAW, "0 a\n", vec!["! invalid message length"]),
            (RAW, "2024-01-01 a\n", vec!["! invalid message length"]),
            (RAW, "200000000 a", vec!["! message length (200000000) exceeds maximum length (16777216)"]),
            (RAW, "11111111111111111111 a\n", vec!["! invalid message length"]),
            (Framing::Raw { delimiter: 0 }, "a\nb\0\0c", vec!["a\nb", "", "c"]),
        ] {
            for piece in [1, 2, 3, 1000] {
                assert_eq!(frames(framing, stream.as_bytes(), piece), expected, "{stream:?} by {piece}");
            }
        }
    }

    #[test]
    fn a_quiet_connection_gives_its_last_message_away() {
        let mut framer = Framer::new(SYSLOG);
        framer.feed(b"<1>a\nb\n");
        assert_eq!(framer.next_frame(), None);
        let frame = framer.quiet().unwrap();
        assert_eq!(framer.bytes(&frame), b"<1>a\nb");
        assert_eq!(framer.quiet(), None);
        framer.feed(b"<2>c");
        assert_eq!((framer.next_frame(), framer.quiet()), (None, None));
        framer.feed(b"\n<3>d");
        let frame = framer.next_frame().unwrap().unwrap();
        assert_eq!(framer.bytes(&frame), b"<2>c");
    }

    #[test]
    fn what_never_ends_is_given_up() {
        for framing in [SYSLOG, RAW] {
            let mut framer = Framer::new(framing);
            framer.feed(b"<");
            let error = (0..1000).find_map(|_| {
                framer.feed(&[b'x'; 64 << 10]);
                framer.next_frame()
            });
            assert!(matches!(error, Some(Err(FrameError::TooLong { .. }))), "{error:?}");
            framer.feed(b"\n<1>a\n");
            assert_eq!((framer.next_frame(), framer.pending_bytes()), (None, 0));
        }
    }

    proptest! {
        #[test]
        fn where_a_stream_is_cut_does_not_matter(
            stream in "[<>1-9 a-c\n\u{0}]{0,60}",
            piece in 1usize..9,
            raw: bool,
        ) {
            let framing = if raw { RAW } else { SYSLOG };
            prop_assert_eq!(frames(framing, stream.as_bytes(), piece), frames(framing, stream.as_bytes(), 1000));
        }

        #[test]
        fn what_is_counted_comes_back(messages in proptest::collection::vec("<[a-z\n <>0-9]{0,80}", 0..9), piece in 1usize..50) {
            let stream: String = messages.iter().map(|message| format!("{} {message}", message.len())).collect();
            prop_assert_eq!(frames(SYSLOG, stream.as_bytes(), piece), messages);
        }

        #[test]
        fn no_stream_makes_it_panic(stream: Vec<u8>, first in "[<0-9a]", piece in 1usize..20, raw: bool) {
            let stream = [first.as_bytes(), &stream].concat();
            frames(if raw { RAW } else { SYSLOG }, &stream, piece);
        }
    }
}
