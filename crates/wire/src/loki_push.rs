//! Loki's push protocol: `logproto.PushRequest` in protocol buffers, and the text form of the labels of a stream.
//!
//! A request is written as a run of its `streams` fields, so that requests join by concatenation: a record of the queue
//! holds one or more of them, and the sender joins records without decoding them.

use std::fmt;
use std::ops::Range;

use corten_signal::labels::{LabelsBuilder, METRIC_NAME, put_varint, varint_len};
use corten_signal::logs::{Entries, Entry};

use crate::proto::{Fields, ProtoError, put_message};

const NANOS: i64 = 1_000_000_000;

/// The seconds that a `google.protobuf.Timestamp` may have: those of the years 1 to 9999.
const TIME_SECONDS: Range<i64> = -62_135_596_800..253_402_300_800;

/// What was appended to a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// How many entries.
    pub entries: u64,
    /// What they count for the limit of a batch: see [`Entries::size`].
    pub size: u64,
    /// The lowest time, in nanoseconds since the Unix epoch.
    pub lowest_ns: i64,
    /// The highest time, in nanoseconds since the Unix epoch.
    pub highest_ns: i64,
}

/// How many of the entries fit into what is left of a batch, and what they count. If nothing was put into the batch yet
/// the first entry fits whatever it counts.
pub fn fitting(entries: &Entries, list: &[Entry], room: usize, is_first: bool) -> (usize, usize) {
    let mut size = 0;
    for (at, entry) in list.iter().enumerate() {
        let with = size + entries.size(entry);
        if with > room && !(is_first && at == 0) {
            return (at, size);
        }
        size = with;
    }
    (list.len(), size)
}

/// Appends a `Stream` with some entries to a `PushRequest`. Without entries nothing is appended. Structured metadata whose
/// name has no letter and no digit of ASCII is left out.
///
/// `selector` is the stream's labels as text, [`Stream::selector`](corten_signal::Stream::selector) most often.
pub fn push_stream(out: &mut Vec<u8>, selector: &str, entries: &Entries, list: &[Entry]) -> Pushed {
    let Some(first) = list.first() else { return Pushed::default() };
    let mut pushed = Pushed { lowest_ns: first.timestamp_ns, highest_ns: first.timestamp_ns, ..Pushed::default() };
    let with_head = |len: usize| 1 + varint_len(len as u64) + len;
    let mut len = with_head(selector.len());
    for entry in list {
        len += with_head(entry_len(entries, entry));
        pushed.entries += 1;
        pushed.size += entries.size(entry) as u64;
        pushed.lowest_ns = pushed.lowest_ns.min(entry.timestamp_ns);
        pushed.highest_ns = pushed.highest_ns.max(entry.timestamp_ns);
    }
    out.reserve(with_head(len));
    out.push(0x0a);
    put_varint(out, len as u64);
    put_field(out, 0x0a, selector.as_bytes());
    for entry in list {
        put_entry(out, entries, entry);
    }
    pushed
}

/// The seconds and nanoseconds of a `google.protobuf.Timestamp`.
fn split_time(timestamp_ns: i64) -> (i64, i64) {
    (timestamp_ns.div_euclid(NANOS), timestamp_ns.rem_euclid(NANOS))
}

fn time_len(timestamp_ns: i64) -> usize {
    let (seconds, nanos) = split_time(timestamp_ns);
    let number = |value: i64| if value == 0 { 0 } else { 1 + varint_len(value as u64) };
    number(seconds) + number(nanos)
}

/// A text that is left out where it is empty.
fn text_len(text: &[u8]) -> usize {
    if text.is_empty() { 0 } else { 1 + varint_len(text.len() as u64) + text.len() }
}

/// The metadata of an entry that can be pushed. A pair whose name has no letter and no digit of ASCII makes Loki answer
/// 500 to the whole request, whenever it is sent again.
fn metadata<'a>(entries: &'a Entries, entry: &Entry) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    entries.metadata(entry).filter(|(name, _)| name.iter().any(u8::is_ascii_alphanumeric))
}

fn entry_len(entries: &Entries, entry: &Entry) -> usize {
    let mut len = 2 + time_len(entry.timestamp_ns) + text_len(entries.line(entry));
    for (name, value) in metadata(entries, entry) {
        let pair = text_len(name) + text_len(value);
        len += 1 + varint_len(pair as u64) + pair;
    }
    len
}

fn put_field(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_text(out: &mut Vec<u8>, tag: u8, text: &[u8]) {
    if !text.is_empty() {
        put_field(out, tag, text);
    }
}

fn put_number(out: &mut Vec<u8>, tag: u8, value: i64) {
    if value != 0 {
        out.push(tag);
        put_varint(out, value as u64);
    }
}

fn put_entry(out: &mut Vec<u8>, entries: &Entries, entry: &Entry) {
    out.push(0x12);
    put_varint(out, entry_len(entries, entry) as u64);
    // The message of a time is shorter than 128 bytes.
    out.extend_from_slice(&[0x0a, time_len(entry.timestamp_ns) as u8]);
    let (seconds, nanos) = split_time(entry.timestamp_ns);
    put_number(out, 0x08, seconds);
    put_number(out, 0x10, nanos);
    put_text(out, 0x12, entries.line(entry));
    for (name, value) in metadata(entries, entry) {
        put_message(out, 3, |out| {
            put_text(out, 0x0a, name);
            put_text(out, 0x12, value);
        });
    }
}

/// A stream of a request.
#[derive(Clone, Copy, Debug)]
pub struct PushedStream<'a> {
    /// Its labels, as text. They need not be UTF-8.
    pub labels: &'a [u8],
    message: &'a [u8],
}

/// An entry of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushedEntry<'a> {
    /// The time, in nanoseconds since the Unix epoch, if it has one.
    pub timestamp_ns: Option<i64>,
    /// The line.
    pub line: &'a [u8],
    /// The structured metadata, as (name, value).
    pub metadata: Vec<(&'a [u8], &'a [u8])>,
}

/// The streams of a request. Nothing comes after an error.
pub fn streams(request: &[u8]) -> impl Iterator<Item = Result<PushedStream<'_>, ProtoError>> {
    each_field(request, 1).map(|message| {
        let message = message?;
        let mut labels: &[u8] = &[];
        let mut fields = Fields::new(message);
        while let Some(field) = fields.next()? {
            if field.number == 1 {
                labels = field.bytes()?;
            }
        }
        Ok(PushedStream { labels, message })
    })
}

impl<'a> PushedStream<'a> {
    /// The entries, in their order. Nothing comes after an error.
    pub fn entries(&self) -> impl Iterator<Item = Result<PushedEntry<'a>, ProtoError>> + use<'a> {
        each_field(self.message, 2).map(|message| read_entry(message?))
    }
}

/// The messages of a repeated field.
fn each_field(message: &[u8], number: u32) -> impl Iterator<Item = Result<&[u8], ProtoError>> {
    let mut fields = Fields::new(message);
    let mut broken = false;
    std::iter::from_fn(move || {
        while !broken {
            let next = fields.next().and_then(|field| match field {
                None => Ok(None),
                Some(field) if field.number == number => field.bytes().map(|bytes| Some(Some(bytes))),
                Some(_) => Ok(Some(None)),
            });
            match next {
                Ok(None) => return None,
                Ok(Some(None)) => {}
                Ok(Some(Some(bytes))) => return Some(Ok(bytes)),
                Err(error) => {
                    broken = true;
                    return Some(Err(error));
                }
            }
        }
        None
    })
}

fn read_entry(message: &[u8]) -> Result<PushedEntry<'_>, ProtoError> {
    let mut entry = PushedEntry { timestamp_ns: None, line: &[], metadata: Vec::new() };
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => entry.timestamp_ns = Some(read_time(field.bytes()?)?),
            2 => entry.line = field.bytes()?,
            3 => entry.metadata.push(field.pair()?),
            _ => {}
        }
    }
    Ok(entry)
}

/// A time beyond what 64 bits of nanoseconds hold is the nearest that they do.
fn read_time(message: &[u8]) -> Result<i64, ProtoError> {
    let (mut seconds, mut nanos) = (0i64, 0i64);
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => seconds = field.int64()?,
            2 => nanos = i64::from(field.uint32()? as i32),
            _ => {}
        }
    }
    if !TIME_SECONDS.contains(&seconds) || !(0..NANOS).contains(&nanos) {
        return Err(ProtoError::InvalidTime);
    }
    Ok(seconds.saturating_mul(NANOS).saturating_add(nanos))
}

/// Checks that a request can be read to its end; how many entries it has.
///
/// # Errors
///
/// What is wrong with it.
pub fn check(request: &[u8]) -> Result<usize, ProtoError> {
    let mut count = 0;
    for stream in streams(request) {
        for entry in stream?.entries() {
            entry?;
            count += 1;
        }
    }
    Ok(count)
}

/// Cuts a request into two with about half of the entries each, in their order; nothing if it has fewer than two, or
/// cannot be read.
pub fn halve(request: &[u8]) -> Option<[Vec<u8>; 2]> {
    let count = check(request).ok()?;
    if count < 2 {
        return None;
    }
    let mut halves = [Vec::with_capacity(request.len() / 2), Vec::with_capacity(request.len() / 2)];
    let mut seen = 0;
    for stream in streams(request) {
        let stream = stream.ok()?;
        let messages: Vec<&[u8]> = each_field(stream.message, 2).collect::<Result<_, _>>().ok()?;
        let (first, second) = messages.split_at((count / 2 - seen).min(messages.len()));
        seen += first.len();
        for (half, messages) in halves.iter_mut().zip([first, second]) {
            if !messages.is_empty() {
                put_message(half, 1, |out| {
                    put_field(out, 0x0a, stream.labels);
                    messages.iter().for_each(|message| put_field(out, 0x12, message));
                });
            }
        }
    }
    Some(halves)
}

/// Why the labels of a stream could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectorError {
    /// Where, in bytes.
    pub offset: usize,
    what: &'static str,
}

impl fmt::Display for SelectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1:{}: parse error: {}", self.offset + 1, self.what)
    }
}

impl std::error::Error for SelectorError {}

/// Reads labels in the notation of PromQL's metric selectors, `{a="x", b='y'}`, into an empty builder. What stands
/// before the braces is the label `__name__`, and so is a string alone between them; a text without any is no labels. Of
/// several labels of one name the last counts; one without a name is none. What is not UTF-8 becomes U+FFFD.
///
/// # Errors
///
/// Where it is no set of labels.
pub fn parse_selector(text: &str, labels: &mut LabelsBuilder) -> Result<(), SelectorError> {
    let mut reader = Reader { text, at: 0 };
    reader.skip_space();
    let metric = reader.name(true);
    reader.skip_space();
    if reader.at < text.len() {
        reader.braces(labels)?;
    }
    if !metric.is_empty() {
        labels.remove(METRIC_NAME);
        labels.push(METRIC_NAME, metric);
    }
    Ok(())
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    /// Labels in braces, and nothing behind them.
    fn braces(&mut self, labels: &mut LabelsBuilder) -> Result<(), SelectorError> {
        self.expect('{', "unexpected character, expected a set of labels in braces")?;
        loop {
            self.skip_space();
            if self.take('}') {
                break;
            }
            let quoted = matches!(self.peek(), Some('"' | '\'' | '`'));
            let name = if quoted { self.string()? } else { self.name(false).to_owned() };
            if name.is_empty() && !quoted {
                return Err(self.error("expected a label name or \"}\""));
            }
            self.skip_space();
            let (name, value) = if quoted && matches!(self.peek(), Some(',' | '}')) {
                (METRIC_NAME.to_owned(), name)
            } else {
                self.expect('=', "expected \"=\"")?;
                self.skip_space();
                (name, self.string()?)
            };
            let is_nothing = name.is_empty() || (name == METRIC_NAME && value.is_empty());
            if !is_nothing {
                labels.remove(&name);
                labels.push(&name, &value);
            }
            self.skip_space();
            if !self.take(',') {
                self.expect('}', "expected \",\" or \"}\"")?;
                break;
            }
        }
        self.skip_space();
        if self.at < self.text.len() { Err(self.error("unexpected text after the labels")) } else { Ok(()) }
    }

    fn error(&self, what: &'static str) -> SelectorError {
        SelectorError { offset: self.at, what }
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    /// Passes over space and comments.
    fn skip_space(&mut self) {
        loop {
            let rest = &self.text[self.at..];
            self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
            if self.peek() != Some('#') {
                return;
            }
            let rest = &self.text[self.at..];
            self.at += memchr::memchr(b'\n', rest.as_bytes()).unwrap_or(rest.len());
        }
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    fn expect(&mut self, wanted: char, what: &'static str) -> Result<(), SelectorError> {
        if self.take(wanted) { Ok(()) } else { Err(self.error(what)) }
    }

    fn name(&mut self, with_colons: bool) -> &'a str {
        let rest = &self.text[self.at..];
        let part = |(at, c): (usize, char)| {
            c.is_ascii_alphabetic() || c == '_' || (c == ':' && with_colons) || (at > 0 && c.is_ascii_digit())
        };
        let end = rest.char_indices().find(|c| !part(*c)).map_or(rest.len(), |(at, _)| at);
        self.at += end;
        &rest[..end]
    }

    /// A string between double or single quotes, with escapes, or between backticks, as it is.
    fn string(&mut self) -> Result<String, SelectorError> {
        let quote = self.peek().filter(|c| matches!(c, '"' | '\'' | '`'));
        let quote = quote.ok_or_else(|| self.error("expected a string in quotes"))?;
        let start = self.at;
        self.at += 1;
        let mut bytes = Vec::new();
        loop {
            let c = self.peek().ok_or(SelectorError { offset: start, what: "unterminated quoted string" })?;
            self.at += c.len_utf8();
            match c {
                _ if c == quote => break,
                '\n' if quote != '`' => {
                    return Err(SelectorError { offset: start, what: "unterminated quoted string" });
                }
                '\\' if quote != '`' => self.escape(quote, &mut bytes)?,
                _ => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        Ok(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    fn escape(&mut self, quote: char, out: &mut Vec<u8>) -> Result<(), SelectorError> {
        let c = self.peek().ok_or_else(|| self.error("unterminated quoted string"))?;
        let start = self.at;
        self.at += c.len_utf8();
        let mut code = |from: usize, digits: usize, radix: u32| {
            let digits = self.text.get(from..from + digits).filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()));
            let code = digits.and_then(|digits| u32::from_str_radix(digits, radix).ok());
            self.at = from + digits.map_or(0, str::len);
            code.ok_or(SelectorError { offset: start, what: "invalid escape in a string" })
        };
        let plain = match c {
            'a' => 0x07,
            'b' => 0x08,
            'f' => 0x0c,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 0x0b,
            '\\' => b'\\',
            _ if c == quote => quote as u8,
            'x' => code(start + 1, 2, 16)? as u8,
            '0'..='7' => {
                let code = code(start, 3, 8)?;
                u8::try_from(code).map_err(|_| SelectorError { offset: start, what: "invalid escape in a string" })?
            }
            'u' | 'U' => {
                let code = code(start + 1, if c == 'u' { 4 } else { 8 }, 16)?;
                let c = char::from_u32(code);
                let c = c.ok_or(SelectorError { offset: start, what: "invalid escape in a string" })?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return Err(SelectorError { offset: start, what: "invalid escape in a string" }),
        };
        out.push(plain);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use corten_signal::{EntriesBuilder, Stream};
    use proptest::prelude::*;

    use super::*;
    use crate::proto::from_hex;

    type Metadata = Vec<(String, String)>;
    type Line = (i64, Vec<u8>, Metadata);

    fn batch(stream: &Stream, lines: &[Line]) -> Entries {
        let mut builder = EntriesBuilder::new();
        let part = builder.stream(stream);
        for (timestamp_ns, line, metadata) in lines {
            let span = builder.own(line);
            builder.push(part, *timestamp_ns, span);
            for (name, value) in metadata {
                let (name, value) = (builder.own(name.as_bytes()), builder.own(value.as_bytes()));
                builder.push_metadata(name, value);
            }
        }
        builder.finish(0)
    }

    fn encode(entries: &Entries) -> Vec<u8> {
        let mut out = Vec::new();
        for (stream, list) in entries.parts() {
            push_stream(&mut out, stream.selector(), entries, list);
        }
        out
    }

    fn decode(request: &[u8]) -> Vec<(String, Line)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        streams(request)
            .flat_map(|stream| {
                let stream = stream.unwrap();
                stream.entries().map(move |entry| {
                    let entry = entry.unwrap();
                    let metadata = entry.metadata.iter().map(|(n, v)| (text(n), text(v))).collect();
                    (text(stream.labels), (entry.timestamp_ns.unwrap(), entry.line.to_vec(), metadata))
                })
            })
            .collect()
    }

    #[test]
    fn a_request_has_the_bytes_of_the_protocol() {
        let stream = Stream::of([("a", "b"), ("__x", "y")]).unwrap();
        let metadata = vec![("k".to_owned(), "v".to_owned())];
        let entries = batch(&stream, &[(1_500_000_001, b"hi".to_vec(), metadata), (-1, Vec::new(), vec![])]);
        // Written by hand from the definition of the message.
        let time = "0a080801108" // {1: 1, 2: 500000001}
            .to_owned()
            + "1cab5ee01";
        let first = format!("1216{time}12026869{}", "1a060a016b120176");
        let second = "12130a1108ffffffffffffffffff0110ff93ebdc03";
        let body = format!("0a077b613d2262227d{first}{second}");
        let expected = format!("0a{:02x}{body}", body.len() / 2);
        assert_eq!(encode(&entries), from_hex(&expected));
        let mut out = Vec::new();
        let list = entries.parts().next().map(|(_, list)| list).unwrap();
        let pushed = push_stream(&mut out, "{}", &entries, list);
        assert_eq!(pushed, Pushed { entries: 2, size: 2 + 6, lowest_ns: -1, highest_ns: 1_500_000_001 });
        assert_eq!(push_stream(&mut out, "{}", &entries, &[]), Pushed::default());
    }

    #[test]
    fn metadata_that_no_name_can_be_made_of_is_left_out() {
        let metadata = ["", "_", "é", "a.b", "1"].map(|name| (name.to_owned(), "v".to_owned())).to_vec();
        let entries = batch(&Stream::of([("a", "b")]).unwrap(), &[(0, b"x".to_vec(), metadata)]);
        let names: Vec<String> = decode(&encode(&entries))[0].1.2.iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(names, ["a.b", "1"]);
    }

    #[test]
    fn a_batch_takes_its_first_entry_whatever_it_counts() {
        let lines: Vec<Line> = [10, 5, 5].map(|len| (0, vec![b'x'; len], vec![])).to_vec();
        let entries = batch(&Stream::of([("a", "b")]).unwrap(), &lines);
        let list = entries.parts().next().map(|(_, list)| list).unwrap();
        for (room, is_first, expected) in
            [(9, true, (1, 10)), (9, false, (0, 0)), (15, true, (2, 15)), (19, false, (2, 15)), (20, false, (3, 20))]
        {
            assert_eq!(fitting(&entries, list, room, is_first), expected, "{room} {is_first}");
        }
    }

    #[test]
    fn labels_are_read_as_promql_reads_them() {
        for (text, expected) in [
            ("{}", Ok(r#"{}"#)),
            (r#"{a="x", b='y',c=`z\n`,}"#, Ok(r#"{a="x", b="y", c="z\\n"}"#)),
            (" { a = \"x\" \n, b=\"\" } ", Ok(r#"{a="x", b=""}"#)),
            (r#"{a="\"\\\n\x41\101\u00e9\U0001f600"}"#, Ok("{a=\"\\\"\\\\\\nAAé\u{1f600}\"}")),
            (r#"up{a="x"}"#, Ok(r#"{__name__="up", a="x"}"#)),
            ("up", Ok(r#"{__name__="up"}"#)),
            (r#"{"a.b"="x"}"#, Ok(r#"{a.b="x"}"#)),
            (r#"{a="x",a="y"}"#, Ok(r#"{a="y"}"#)),
            // As Prometheus' parser takes them, which the reference uses.
            ("", Ok("{}")),
            (" \n#a comment", Ok("{}")),
            (r#"{"x"}"#, Ok(r#"{__name__="x"}"#)),
            (r#"{"x",a="y",`z` }"#, Ok(r#"{__name__="z", a="y"}"#)),
            (r#"up{"x",__name__="y",a="z"}"#, Ok(r#"{__name__="up", a="z"}"#)),
            (r#"{"",a="x",""="y"}"#, Ok(r#"{a="x"}"#)),
            ("{a=\"#\" # b\n, # c\r\n b=\"y\"}#d", Ok(r##"{a="#", b="y"}"##)),
            (r#"{a="\xff\xc3\xa9"}"#, Ok("{a=\"\u{fffd}é\"}")),
            ("}", Err("1:1: parse error: unexpected character, expected a set of labels in braces")),
            (r##"{a="x"#c}"##, Err("1:10: parse error: expected \",\" or \"}\"")),
            (r#"{a}"#, Err("1:3: parse error: expected \"=\"")),
            ("{", Err("1:2: parse error: expected a label name or \"}\"")),
            (r#"{a="x"} b"#, Err("1:9: parse error: unexpected text after the labels")),
            (r#"{a=~"x"}"#, Err("1:4: parse error: expected a string in quotes")),
            (r#"{a!="x"}"#, Err("1:3: parse error: expected \"=\"")),
            (r#"{a="x" b="y"}"#, Err("1:8: parse error: expected \",\" or \"}\"")),
            (r#"{a="x}"#, Err("1:4: parse error: unterminated quoted string")),
            (r#"{a="\q"}"#, Err("1:6: parse error: invalid escape in a string")),
            (r#"{a="\400"}"#, Err("1:6: parse error: invalid escape in a string")),
            (r#"{a="\ud800"}"#, Err("1:6: parse error: invalid escape in a string")),
            (r#"{1a="x"}"#, Err("1:2: parse error: expected a label name or \"}\"")),
        ] {
            let mut labels = LabelsBuilder::new();
            let read = parse_selector(text, &mut labels).map_err(|error| error.to_string());
            let read = read.map(|()| Stream::new(&mut labels).unwrap().canonical());
            assert_eq!(read, expected.map(str::to_owned).map_err(str::to_owned), "{text}");
        }
    }

    /// What Go's implementation of the message writes, and how Go quotes.
    #[test]
    fn requests_and_selectors_are_those_of_the_reference() {
        let recorded: serde_json::Value =
            serde_json::from_str(include_str!("../tests/data/loki_push.json")).expect("recorded cases");
        let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
        let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
        let mut compared = 0;
        for case in list(&recorded["push"]) {
            let mut request = Vec::new();
            // Streams without entries or labels, metadata without a name and what is no text are not made here.
            let is_made = |stream: &serde_json::Value| {
                let named = |pair: &serde_json::Value| text(&pair[0]).contains(|c: char| c.is_ascii_alphanumeric());
                let of_text =
                    |entry: &serde_json::Value| entry["line"].is_string() && list(&entry["metadata"]).iter().all(named);
                stream["labels"] != ""
                    && !list(&stream["entries"]).is_empty()
                    && list(&stream["entries"]).iter().all(of_text)
            };
            if !list(&case["streams"]).iter().all(is_made) {
                continue;
            }
            for stream in list(&case["streams"]) {
                let entry = |entry: &serde_json::Value| {
                    let pairs = list(&entry["metadata"]).iter().map(|pair| (text(&pair[0]), text(&pair[1]))).collect();
                    (entry["ns"].as_i64().unwrap_or_default(), text(&entry["line"]).into_bytes(), pairs)
                };
                let lines: Vec<Line> = list(&stream["entries"]).iter().map(entry).collect();
                let entries = batch(&Stream::of([("a", "b")]).unwrap(), &lines);
                let (_, list) = entries.parts().next().unwrap();
                push_stream(&mut request, &text(&stream["labels"]), &entries, list);
            }
            assert_eq!(request, from_hex(&text(&case["hex"])), "{case}");
            compared += 1;
        }
        assert!(compared > 20, "{compared}");
        for case in list(&recorded["quote"]) {
            if let (Some(value), Some(quoted)) = (case["text"].as_str(), case["quoted"].as_str()) {
                let stream = Stream::of([("a", value)]).unwrap();
                assert_eq!(stream.selector(), format!("{{a={quoted}}}"));
            }
        }
        for case in list(&recorded["label_sets"]) {
            let labels = case["labels"].as_object().expect("labels");
            let labels = labels.iter().map(|(name, value)| (&**name, value.as_str().unwrap_or_default()));
            assert_eq!(Stream::of(labels).unwrap().canonical(), text(&case["text"]));
        }
    }

    fn lines() -> impl Strategy<Value = Vec<Line>> {
        let metadata = proptest::collection::vec(("[a-z]{1,3}", "\\PC{0,3}"), 0..3);
        proptest::collection::vec((any::<i64>(), proptest::collection::vec(any::<u8>(), 0..300), metadata), 0..9)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_and_halves_hold_all(batches in proptest::collection::vec(lines(), 0..5)) {
            let mut request = Vec::new();
            let mut expected = Vec::new();
            for (at, lines) in batches.iter().enumerate() {
                let stream = Stream::of([("n", &*at.to_string())]).unwrap();
                request.extend(encode(&batch(&stream, lines)));
                expected.extend(lines.iter().map(|line| (stream.selector().to_owned(), line.clone())));
            }
            prop_assert_eq!(check(&request), Ok(expected.len()));
            let read = decode(&request);
            prop_assert_eq!(&read, &expected);
            match halve(&request) {
                None => prop_assert!(expected.len() < 2),
                Some([first, second]) => {
                    prop_assert_eq!(check(&first), Ok(expected.len() / 2));
                    prop_assert_eq!([decode(&first), decode(&second)].concat(), expected);
                }
            }
        }

        #[test]
        fn labels_are_read_as_they_are_written(map in proptest::collection::btree_map("[a-z_]{1,5}", "\\PC{0,9}|[\0-\u{ff}]{0,4}", 0..5)) {
            let labels = map.iter().filter(|(name, _)| !name.starts_with("__"));
            let stream = Stream::of(labels.map(|(n, v)| (&**n, &**v))).unwrap();
            let mut labels = LabelsBuilder::new();
            parse_selector(stream.selector(), &mut labels).unwrap();
            prop_assert_eq!(Stream::new(&mut labels).unwrap(), stream);
        }

        #[test]
        fn no_bytes_make_it_panic(request: Vec<u8>, text in "\\PC{0,20}|[{}=\"\\\\xuU0-9a-c,#`\n]{0,20}") {
            let _ = (check(&request), halve(&request));
            let _ = parse_selector(&text, &mut LabelsBuilder::new());
        }
    }
}
