//! Loki's push protocol as JSON:
//! `{"streams": [{"stream": {"name": "value"}, "values": [["<nanoseconds>", "line", {"name": "value"}]]}]}`.
//!
//! The reader is as lenient as the reference's: unknown members are passed over, `null` stands for nothing, and what
//! follows the first value of the text is not looked at.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

/// How deep objects and arrays may lie in each other where they are passed over.
const DEPTH_MAX: usize = 128;

/// How many streams a request, and how many labels a stream may have.
const STREAMS_MAX: usize = 1 << 20;
const LABELS_MAX: usize = 10_000;

/// Why a request could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonError {
    /// Where, in bytes.
    pub offset: usize,
    what: &'static str,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid push request at byte {}: {}", self.offset, self.what)
    }
}

impl std::error::Error for JsonError {}

/// A stream of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JsonStream {
    labels: Option<Range<usize>>,
    values: Option<Range<usize>>,
}

/// A text, which lies in the request where it has no escapes. It need not be UTF-8.
pub type JsonText<'a> = Cow<'a, [u8]>;

/// An entry of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonEntry<'a> {
    /// The time, in nanoseconds since the Unix epoch, if it has one.
    pub timestamp_ns: Option<i64>,
    /// The line.
    pub line: JsonText<'a>,
    /// The structured metadata, as (name, value).
    pub metadata: Vec<(JsonText<'a>, JsonText<'a>)>,
}

/// The streams of a request.
///
/// # Errors
///
/// A text that is no request, or holds too many streams. Labels and entries are checked no further than what is needed to find their end.
pub fn streams(request: &[u8]) -> Result<Vec<JsonStream>, JsonError> {
    let mut reader = Reader { text: request, at: 0 };
    let mut streams = Vec::new();
    if reader.null()? {
        return Ok(streams);
    }
    reader.object(|reader, name| {
        // The names of these members are found whatever their case, as the reference's library does.
        if !name.eq_ignore_ascii_case(b"streams") {
            return reader.pass_over();
        }
        streams.clear();
        if reader.null()? {
            return Ok(());
        }
        reader.array(|reader, _| {
            if streams.len() == STREAMS_MAX {
                return reader.error("too many streams");
            }
            streams.push(reader.stream()?);
            Ok(())
        })
    })?;
    Ok(streams)
}

impl JsonStream {
    /// The labels of the stream, as (name, value); none where the request does not say. Of several labels of one name the
    /// last counts.
    ///
    /// # Errors
    ///
    /// What is no set of labels, or too many.
    pub fn labels(&self, request: &[u8]) -> Result<Vec<(String, String)>, JsonError> {
        let Some(labels) = &self.labels else { return Ok(Vec::new()) };
        let text = request.get(..labels.end).unwrap_or_default();
        Reader { text, at: labels.start }.labels()
    }

    /// Hands over the entries of the stream, in their order.
    ///
    /// # Errors
    ///
    /// The first entry that is none; those before it were handed over.
    pub fn entries<'a>(&self, request: &'a [u8], mut to: impl FnMut(JsonEntry<'a>)) -> Result<(), JsonError> {
        let Some(values) = &self.values else { return Ok(()) };
        let text = request.get(..values.end).unwrap_or_default();
        let mut reader = Reader { text, at: values.start };
        reader.array(|reader, _| {
            if !reader.null()? {
                to(reader.entry()?);
            }
            Ok(())
        })
    }
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn error<T>(&self, what: &'static str) -> Result<T, JsonError> {
        Err(JsonError { offset: self.at, what })
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// The next byte that is no space.
    fn next(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
        self.peek()
    }

    fn take(&mut self, wanted: u8) -> bool {
        let found = self.next() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, wanted: u8, what: &'static str) -> Result<(), JsonError> {
        if self.take(wanted) { Ok(()) } else { self.error(what) }
    }

    fn word(&mut self, word: &[u8]) -> bool {
        self.next();
        let found = self.text[self.at..].starts_with(word);
        self.at += if found { word.len() } else { 0 };
        found
    }

    fn null(&mut self) -> Result<bool, JsonError> {
        match self.next() {
            None => self.error("unexpected end"),
            Some(b'n') if self.word(b"null") => Ok(true),
            Some(_) => Ok(false),
        }
    }

    /// Calls the function at the value of each member.
    fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, Cow<'a, [u8]>) -> Result<(), JsonError>,
    ) -> Result<(), JsonError> {
        self.expect(b'{', "expected an object")?;
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            self.next();
            let name = self.string()?;
            self.expect(b':', "expected \":\"")?;
            self.next();
            member(self, name)?;
            if self.take(b'}') {
                return Ok(());
            }
            self.expect(b',', "expected \",\" or \"}\"")?;
        }
    }

    /// Calls the function at each value, with its place.
    fn array(&mut self, mut item: impl FnMut(&mut Self, usize) -> Result<(), JsonError>) -> Result<(), JsonError> {
        self.expect(b'[', "expected an array")?;
        if self.take(b']') {
            return Ok(());
        }
        for place in 0.. {
            self.next();
            item(self, place)?;
            if self.take(b']') {
                break;
            }
            self.expect(b',', "expected \",\" or \"]\"")?;
        }
        Ok(())
    }

    fn stream(&mut self) -> Result<JsonStream, JsonError> {
        let mut stream = JsonStream::default();
        self.object(|reader, name| match &*name {
            b"stream" => {
                let start = reader.at;
                if reader.peek() != Some(b'{') {
                    return reader.error("expected an object of labels");
                }
                reader.pass_over()?;
                stream.labels = Some(start..reader.at);
                Ok(())
            }
            b"values" => {
                if !reader.null()? {
                    let start = reader.at;
                    if reader.peek() != Some(b'[') {
                        return reader.error("expected an array of entries");
                    }
                    reader.pass_over()?;
                    stream.values = Some(start..reader.at);
                }
                Ok(())
            }
            _ => reader.pass_over(),
        })?;
        Ok(stream)
    }

    /// Labels. A value that is no string counts as its own text.
    fn labels(&mut self) -> Result<Vec<(String, String)>, JsonError> {
        let mut labels: Vec<(String, String)> = Vec::new();
        self.object(|reader, name| {
            let value = if reader.peek() == Some(b'"') {
                reader.string()?
            } else {
                let start = reader.at;
                reader.pass_over()?;
                Cow::Borrowed(&reader.text[start..reader.at])
            };
            if labels.len() == LABELS_MAX {
                return reader.error("too many labels");
            }
            labels.push((lossy(&name), lossy(&value)));
            Ok(())
        })?;
        Ok(labels)
    }

    /// An entry. What it does not have is missing at its end.
    fn entry(&mut self) -> Result<JsonEntry<'a>, JsonError> {
        let mut entry = JsonEntry { timestamp_ns: None, line: Cow::Borrowed(&[]), metadata: Vec::new() };
        self.array(|reader, place| {
            match place {
                0 => {
                    let start = reader.at;
                    let number = reader.string()?;
                    let number = std::str::from_utf8(&number).ok().and_then(|number| number.parse().ok());
                    let number = number.ok_or(JsonError { offset: start, what: "the time is no number in a string" });
                    entry.timestamp_ns = Some(number?);
                }
                1 => entry.line = reader.string()?,
                2 => {
                    if reader.peek() != Some(b'{') {
                        return reader.error("the structured metadata is no object");
                    }
                    reader.object(|reader, name| {
                        let value = reader.string()?;
                        entry.metadata.push((name, value));
                        Ok(())
                    })?;
                }
                _ => reader.pass_over()?,
            }
            Ok(())
        })?;
        Ok(entry)
    }

    /// A string: the text between the quotes where it has no escapes.
    fn string(&mut self) -> Result<Cow<'a, [u8]>, JsonError> {
        if self.peek() != Some(b'"') {
            return self.error("expected a string");
        }
        self.at += 1;
        let start = self.at;
        let mut out: Option<Vec<u8>> = None;
        let mut from = start;
        loop {
            let Some(found) = memchr::memchr2(b'"', b'\\', &self.text[self.at..]) else {
                self.at = self.text.len();
                return self.error("unexpected end of a string");
            };
            self.at += found;
            let run = &self.text[from..self.at];
            if self.text[self.at] == b'"' {
                self.at += 1;
                return Ok(match out {
                    None => Cow::Borrowed(run),
                    Some(mut out) => {
                        out.extend_from_slice(run);
                        Cow::Owned(out)
                    }
                });
            }
            let out = out.get_or_insert_default();
            out.extend_from_slice(run);
            self.at += 1;
            self.escape(out)?;
            from = self.at;
        }
    }

    /// What follows a backslash.
    fn escape(&mut self, out: &mut Vec<u8>) -> Result<(), JsonError> {
        let Some(byte) = self.peek() else { return self.error("unexpected end of a string") };
        let plain = match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                self.at += 1;
                let high = self.unit()?;
                let mut code = u32::from(high);
                if (0xd800..0xdc00).contains(&high) && self.text[self.at..].starts_with(b"\\u") {
                    let back = self.at;
                    self.at += 2;
                    match self.unit() {
                        Ok(low) if (0xdc00..0xe000).contains(&low) => {
                            code = 0x10000 + ((u32::from(high) - 0xd800) << 10) + (u32::from(low) - 0xdc00);
                        }
                        _ => self.at = back,
                    }
                }
                // Half of a pair alone stands for nothing that can be written.
                let c = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return self.error("invalid escape in a string"),
        };
        out.push(plain);
        self.at += 1;
        Ok(())
    }

    fn unit(&mut self) -> Result<u16, JsonError> {
        let digits = self.text.get(self.at..self.at + 4).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let Some(unit) = digits.and_then(|digits| u16::from_str_radix(digits, 16).ok()) else {
            return self.error("invalid escape in a string");
        };
        self.at += 4;
        Ok(unit)
    }

    /// Goes to the end of a value.
    fn pass_over(&mut self) -> Result<(), JsonError> {
        // What is open, as the bytes that close it.
        let mut open = Vec::new();
        loop {
            match self.next() {
                Some(b'"') => self.pass_over_string()?,
                Some(b'{' | b'[') => {
                    if open.len() == DEPTH_MAX {
                        return self.error("objects and arrays lie too deep in each other");
                    }
                    let is_object = self.peek() == Some(b'{');
                    open.push(if is_object { b'}' } else { b']' });
                    self.at += 1;
                    if !self.take(if is_object { b'}' } else { b']' }) {
                        if is_object {
                            self.pass_over_name()?;
                        }
                        continue;
                    }
                    open.pop();
                }
                Some(b't') if self.word(b"true") => {}
                Some(b'f') if self.word(b"false") => {}
                Some(b'n') if self.word(b"null") => {}
                Some(b'-' | b'0'..=b'9') => {
                    let number = |byte: &u8| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
                    self.at += self.text[self.at..].iter().take_while(|byte| number(byte)).count();
                }
                Some(_) => return self.error("expected a value"),
                None => return self.error("unexpected end"),
            }
            // After a value: what it ends, or what comes next beside it.
            loop {
                let Some(close) = open.last().copied() else { return Ok(()) };
                if self.take(close) {
                    open.pop();
                    continue;
                }
                self.expect(b',', "expected \",\" or the end of an object or array")?;
                if close == b'}' {
                    self.pass_over_name()?;
                }
                break;
            }
        }
    }

    fn pass_over_name(&mut self) -> Result<(), JsonError> {
        self.next();
        self.pass_over_string()?;
        self.expect(b':', "expected \":\"")
    }

    fn pass_over_string(&mut self) -> Result<(), JsonError> {
        if self.peek() != Some(b'"') {
            return self.error("expected a string");
        }
        self.at += 1;
        loop {
            let Some(found) = memchr::memchr2(b'"', b'\\', &self.text[self.at..]) else {
                self.at = self.text.len();
                return self.error("unexpected end of a string");
            };
            self.at += found + 1;
            if self.text[self.at - 1] == b'"' {
                return Ok(());
            }
            if self.at == self.text.len() {
                return self.error("unexpected end of a string");
            }
            self.at += 1;
        }
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Everything of a request in lines.
    fn shown(request: &str) -> Result<Vec<String>, String> {
        let request = request.as_bytes();
        let mut lines = Vec::new();
        for stream in streams(request).map_err(|error| error.to_string())? {
            let labels = stream.labels(request).map_err(|error| error.to_string())?;
            let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let labels = labels.join(",");
            let outcome = stream.entries(request, |entry| {
                let metadata = entry.metadata.iter().map(|(name, value)| format!(" {}={}", lossy(name), lossy(value)));
                let metadata: String = metadata.collect();
                let time = entry.timestamp_ns.map_or_else(|| "none".to_owned(), |time| time.to_string());
                lines.push(format!("{labels} {time} {}{metadata}", lossy(&entry.line)));
            });
            outcome.map_err(|error| error.to_string())?;
            lines.push(format!("{labels} end"));
        }
        Ok(lines)
    }

    #[test]
    fn requests_are_read_as_the_reference_reads_them() {
        for (request, expected) in [
            (
                r#"{"streams":[{"stream":{"a":"b"},"values":[["1","x"],["-2","y"]]}]}"#,
                vec!["a=b 1 x", "a=b -2 y", "a=b end"],
            ),
            (r#" {"Streams" : [ { "values":[["1","x"]] , "stream":{ } } ] } trailing"#, vec![" 1 x", " end"]),
            (r#"{"streams":null}"#, vec![]),
            ("null", vec![]),
            ("{}", vec![]),
            (r#"{"streams":[]}"#, vec![]),
            (
                r#"{"streams":[{"stream":{"a":1,"b":null,"c":{"d":[1]}},"values":null}]}"#,
                vec!["a=1,b=null,c={\"d\":[1]} end"],
            ),
            (r#"{"streams":[{"values":[["1","x"]]}]}"#, vec![" 1 x", " end"]),
            (r#"{"streams":[{"stream":{},"values":[["1"],[]]}]}"#, vec![" 1 ", " none ", " end"]),
            (
                r#"{"streams":[{"stream":{},"values":[null,["1","x",{"m":"1","n":"2"},7]],"more":[{},[],"\""]}]}"#,
                vec![" 1 x m=1 n=2", " end"],
            ),
            (
                r#"{"x":{"y":[1,2,{"z":true}]},"streams":[{"stream":{},"values":[["1","a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00"]]}]}"#,
                vec![" 1 a\"\\/\u{8}\u{c}\n\r\té😀", " end"],
            ),
            (
                r#"{"streams":[{"stream":{},"values":[["1","\ud83dx\udc00\ud83d\u0041"]]}]}"#,
                vec![" 1 \u{fffd}x\u{fffd}\u{fffd}A", " end"],
            ),
        ] {
            assert_eq!(shown(request), Ok(expected.into_iter().map(str::to_owned).collect()), "{request}");
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let values = |values: &str| format!(r#"{{"streams":[{{"stream":{{}},"values":{values}}}]}}"#);
        let deep = format!("{{\"x\":{}", "[".repeat(1000));
        for request in [
            "",
            "  ",
            "[]",
            "1",
            "{",
            r#"{"streams""#,
            r#"{"streams":{}}"#,
            r#"{"streams":[1]}"#,
            r#"{"streams":[null]}"#,
            r#"{"streams":[{"stream":[]}]}"#,
            r#"{"streams":[{"stream":{}}"#,
            &deep,
            &values("{}"),
            &values("[1]"),
            &values(r#"[[1,"x"]]"#),
            &values(r#"[["1",2]]"#),
            &values(r#"[["a","x"]]"#),
            &values(r#"[["1","x",[]]]"#),
            &values(r#"[["1","x",{"a":1}]]"#),
            &values(r#"[["99999999999999999999","x"]]"#),
            &values(r#"[["1","\x"]]"#),
            &values(r#"[["1","\u00"]]"#),
            &values(r#"[["1" "x"]]"#),
        ] {
            assert!(shown(request).is_err(), "{request}");
        }
    }

    #[test]
    fn lines_without_escapes_are_not_copied() {
        let request = br#"{"streams":[{"stream":{},"values":[["1","plain"],["2","a\nb"]]}]}"#;
        let mut borrowed = Vec::new();
        streams(request).unwrap()[0]
            .entries(request, |entry| borrowed.push(matches!(entry.line, Cow::Borrowed(_))))
            .unwrap();
        assert_eq!(borrowed, [true, false]);
    }

    #[test]
    fn a_request_that_is_all_heads_is_refused() {
        let many = |what: &str, count: usize| vec![what; count].join(",");
        let request = format!("{{\"streams\":[{}]}}", many("{}", STREAMS_MAX + 1));
        assert!(streams(request.as_bytes()).is_err());
        let request = format!("{{\"streams\":[{{\"stream\":{{{}}}}}]}}", many("\"a\":1", LABELS_MAX + 1));
        assert!(streams(request.as_bytes()).unwrap()[0].labels(request.as_bytes()).is_err());
    }

    fn quoted(text: &str) -> String {
        let mut out = String::from("\"");
        for c in text.chars() {
            match c {
                '"' | '\\' => out.extend(['\\', c]),
                '\n' => out.push_str("\\n"),
                c if (c as u32) < 0x80 => out.push_str(&format!("\\u{:04x}", c as u32)),
                c => out.push(c),
            }
        }
        out.push('"');
        out
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            entries in proptest::collection::vec((any::<i64>(), any::<String>(), proptest::option::of(any::<String>())), 0..10),
            label in any::<String>(),
        ) {
            let values: Vec<String> = entries.iter().map(|(time, line, metadata)| {
                let metadata = metadata.as_ref().map(|value| format!(", {{ {} : {} }}", quoted("m"), quoted(value)));
                format!("[\"{time}\", {}{}]", quoted(line), metadata.unwrap_or_default())
            }).collect();
            let request = format!(
                r#"{{"streams": [ {{ "stream": {{ "a": {} }}, "values": [{}] }} ]}}"#, quoted(&label), values.join(" , ")
            );
            let streams = streams(request.as_bytes()).unwrap();
            let labels = streams[0].labels(request.as_bytes()).unwrap();
            prop_assert_eq!(labels, vec![("a".to_owned(), label)]);
            let mut got = Vec::new();
            streams[0].entries(request.as_bytes(), |entry| {
                let metadata = entry.metadata.first().map(|(_, value)| lossy(value));
                got.push((entry.timestamp_ns.unwrap(), lossy(&entry.line), metadata));
            }).unwrap();
            prop_assert_eq!(got, entries);
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<Vec<u8>>(), cut in 0usize..200, at in 0usize..200, byte: u8) {
            let _ = streams(&text);
            let mut request = br#"{"streams":[{"stream":{"a":"b\u00e9"},"x":[{"y":-1.5e3}],"values":[["1","x\ud83d\ude00",{"m":"n"}],null]}]}"#.to_vec();
            let len = request.len();
            request[at % len] = byte;
            request.truncate(len - cut % len);
            if let Ok(found) = streams(&request) {
                for stream in found {
                    let _ = (stream.labels(&request), stream.entries(&request, |_| {}));
                }
            }
        }
    }
}
