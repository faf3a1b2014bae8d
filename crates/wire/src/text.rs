//! The Prometheus text exposition format, versions 0.0.4 and 1.0.0.
//!
//! The parser is fed with pieces of a body as they arrive and works line by line, so that a body is never held whole.
//! It does not know series: for each sample it first asks its [`TextSink`] whether it recognises the series at the
//! start of the line, and only otherwise looks for the end of the series' text.

use std::borrow::Cow;
use std::fmt;

use memchr::{memchr, memrchr};

use crate::float::{parse_value, push_open_metrics_float};
use corten_signal::LabelsBuilder;
use corten_signal::labels::METRIC_NAME;
use corten_signal::metrics::MetricType;

/// The longest line that is accepted, in bytes.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// Takes what [`TextParser`] finds, in the order of the body.
pub trait TextSink {
    /// Why the sink gives up.
    type Error: From<ParseError>;

    /// Looks whether a known series stands at the start of `line`, followed by a space or a tab. Returns the length of
    /// its text; the sample that follows is the series'.
    fn recognise(&mut self, line: &[u8], metric_type: MetricType) -> Option<usize>;

    /// The text of the series of the sample that follows, from its name to its closing brace.
    ///
    /// # Errors
    ///
    /// Ends the parsing.
    fn series(&mut self, text: &[u8], metric_type: MetricType) -> Result<(), Self::Error>;

    /// A sample of the series, with its time in milliseconds since the Unix epoch if the line has one.
    ///
    /// # Errors
    ///
    /// Ends the parsing.
    fn sample(&mut self, value: f64, timestamp_ms: Option<i64>) -> Result<(), Self::Error>;

    /// A `# TYPE` line. The name is as in the text, escapes included.
    fn family_type(&mut self, _name: &[u8], _metric_type: MetricType) {}

    /// A `# HELP` line. Name and help are as in the text, escapes included.
    fn family_help(&mut self, _name: &[u8], _help: &[u8]) {}
}

/// What is wrong with a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The line, counted from 1; 0 where the error is in a text that is not part of a body.
    pub line: u64,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 { f.write_str(&self.message) } else { write!(f, "line {}: {}", self.line, self.message) }
    }
}

impl std::error::Error for ParseError {}

/// Parses a body in pieces.
#[derive(Debug, Default)]
pub struct TextParser {
    /// The start of a line whose end has not arrived.
    partial: Vec<u8>,
    line: u64,
    /// In this format the type is positional: it holds until the next `# TYPE` line.
    metric_type: MetricType,
}

impl TextParser {
    /// A parser at the start of a body.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece of the body.
    ///
    /// # Errors
    ///
    /// Of the syntax, with the line, or of the sink. The parser is of no use afterwards.
    pub fn feed<S: TextSink>(&mut self, piece: &[u8], sink: &mut S) -> Result<(), S::Error> {
        let mut piece = piece;
        if !self.partial.is_empty() {
            let Some(end) = memchr(b'\n', piece) else {
                return self.keep(piece).map_err(S::Error::from);
            };
            self.keep(&piece[..end])?;
            let line = std::mem::take(&mut self.partial);
            self.line += 1;
            self.parse_line(&line, sink)?;
            self.partial = line;
            self.partial.clear();
            piece = &piece[end + 1..];
        }
        let Some(last) = memrchr(b'\n', piece) else {
            return self.keep(piece).map_err(S::Error::from);
        };
        let (lines, rest) = piece.split_at(last + 1);
        self.parse_lines(lines, sink)?;
        self.keep(rest).map_err(S::Error::from)
    }

    /// Takes the end of the body: a last line needs no line break.
    ///
    /// # Errors
    ///
    /// As [`TextParser::feed`].
    pub fn finish<S: TextSink>(&mut self, sink: &mut S) -> Result<(), S::Error> {
        let line = std::mem::take(&mut self.partial);
        if !line.is_empty() {
            self.line += 1;
            self.parse_line(&line, sink)?;
        }
        Ok(())
    }

    fn keep(&mut self, piece: &[u8]) -> Result<(), ParseError> {
        if self.partial.len() + piece.len() > LINE_BYTES_MAX {
            self.line += 1;
            return Err(self.error(format!("the line is longer than the limit of {LINE_BYTES_MAX} bytes")));
        }
        self.partial.extend_from_slice(piece);
        Ok(())
    }

    /// Parses lines that all end with a line break.
    fn parse_lines<S: TextSink>(&mut self, mut lines: &[u8], sink: &mut S) -> Result<(), S::Error> {
        while let Some(&first) = lines.first() {
            self.line += 1;
            if first != b'#'
                && let Some(len) = sink.recognise(lines, self.metric_type)
                && let Some((value, used)) = simple_value(&lines[len + 1..])
            {
                // The steady case: a known series, one space, a value, and the end of the line.
                sink.sample(value, None)?;
                lines = &lines[len + 1 + used..];
                continue;
            }
            let end = memchr(b'\n', lines).unwrap_or(lines.len() - 1);
            if end > LINE_BYTES_MAX {
                return Err(self.error(format!("the line is longer than the limit of {LINE_BYTES_MAX} bytes")).into());
            }
            self.parse_line(&lines[..end], sink)?;
            lines = &lines[end + 1..];
        }
        Ok(())
    }

    fn parse_line<S: TextSink>(&mut self, line: &[u8], sink: &mut S) -> Result<(), S::Error> {
        let line = trim_start(line);
        match line.first() {
            None => Ok(()),
            Some(b'#') => self.parse_comment(line, sink).map_err(S::Error::from),
            Some(_) => self.parse_sample(line, sink),
        }
    }

    fn parse_comment<S: TextSink>(&mut self, line: &[u8], sink: &mut S) -> Result<(), ParseError> {
        let after = &line[1..];
        let body = trim_start(after);
        if body.len() == after.len() {
            return Ok(());
        }
        let is_type = match body.split_at_checked(4) {
            Some((b"TYPE", rest)) if starts_blank(rest) => true,
            Some((b"HELP", rest)) if starts_blank(rest) => false,
            _ => return Ok(()),
        };
        let rest = trim_start(&body[4..]);
        let name_len = family_name_len(rest)
            .ok_or_else(|| self.error(format!("expected metric name after {}", if is_type { "TYPE" } else { "HELP" })))?;
        let (name, text) = rest.split_at(name_len);
        let name = name.strip_prefix(b"\"").and_then(|n| n.strip_suffix(b"\"")).unwrap_or(name);
        let text = text.get(1..).unwrap_or_default();
        if !is_type {
            if std::str::from_utf8(text).is_err() {
                let text = String::from_utf8_lossy(text);
                return Err(self.error(format!("help text {text:?} is not a valid utf8 string")));
            }
            sink.family_help(name, text);
            return Ok(());
        }
        self.metric_type = match text {
            b"counter" => MetricType::Counter,
            b"gauge" => MetricType::Gauge,
            b"histogram" => MetricType::Histogram,
            b"summary" => MetricType::Summary,
            b"untyped" => MetricType::Unknown,
            other => return Err(self.error(format!("invalid metric type {:?}", String::from_utf8_lossy(other)))),
        };
        sink.family_type(name, self.metric_type);
        Ok(())
    }

    fn parse_sample<S: TextSink>(&mut self, line: &[u8], sink: &mut S) -> Result<(), S::Error> {
        let len = series_len(line).map_err(|message| self.error_at(message, line))?;
        let (text, rest) = line.split_at(len);
        let rest = trim_start(rest);
        let value_len = rest.iter().position(|b| matches!(b, b' ' | b'\t' | b'{')).unwrap_or(rest.len());
        if value_len == 0 {
            return Err(self.error_at("expected value after metric", line).into());
        }
        let value = parse_value(&rest[..value_len]).ok_or_else(|| {
            let value = String::from_utf8_lossy(&rest[..value_len]);
            self.error_at(&format!("parsing {value:?}: invalid syntax"), line)
        })?;
        let rest = trim_start(&rest[value_len..]);
        let digits = rest.iter().position(|b| !b.is_ascii_digit()).unwrap_or(rest.len());
        let timestamp = if rest.is_empty() {
            None
        } else {
            let number = std::str::from_utf8(&rest[..digits]).ok().filter(|d| !d.is_empty());
            let number = number.ok_or_else(|| self.error_at("expected timestamp or new record", line))?;
            let number: i64 = number.parse().map_err(|_| self.error_at("timestamp out of range", line))?;
            if !trim_start(&rest[digits..]).is_empty() {
                return Err(self.error_at("expected next entry after timestamp", line).into());
            }
            Some(number)
        };
        let known = sink.recognise(line, self.metric_type).is_some_and(|known| known == len);
        if !known {
            sink.series(text, self.metric_type)?;
        }
        sink.sample(value, timestamp)
    }

    fn error(&self, message: impl Into<String>) -> ParseError {
        ParseError { line: self.line, message: message.into() }
    }

    #[cold]
    fn error_at(&self, message: &str, line: &[u8]) -> ParseError {
        self.error(format!("{message} while parsing: {}", excerpt(line)))
    }
}

/// The first bytes of a line, quoted.
pub fn excerpt(line: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 120;
    let (shown, dots) =
        if line.len() > SHOWN_BYTES_MAX { (&line[..SHOWN_BYTES_MAX], "...") } else { (line, "") };
    format!("{:?}{dots}", String::from_utf8_lossy(shown))
}

/// A value that ends with the line: (value, bytes up to and including the line break).
#[inline]
fn simple_value(text: &[u8]) -> Option<(f64, usize)> {
    // No float that is written in full is longer than this; what is longer takes the slow way.
    let end = memchr(b'\n', &text[..text.len().min(32)])?;
    Some((parse_value(&text[..end])?, end + 1))
}

fn starts_blank(text: &[u8]) -> bool {
    matches!(text.first(), Some(b' ' | b'\t'))
}

fn trim_start(text: &[u8]) -> &[u8] {
    let blank = text.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
    &text[blank..]
}

fn is_name_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte == b':'
}

fn is_name_byte(byte: u8) -> bool {
    is_name_start(byte) || byte.is_ascii_digit()
}

/// The length of the name in a HELP or TYPE line, quotes included.
fn family_name_len(text: &[u8]) -> Option<usize> {
    match text.first()? {
        b'"' => quoted_len(text),
        &byte if is_name_start(byte) => Some(text.iter().take_while(|b| is_name_byte(**b)).count()),
        _ => None,
    }
}

/// The length of a quoted string at the start of the text, quotes included.
fn quoted_len(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// The length of a series' text at the start of a line: its name and what stands in braces.
fn series_len(line: &[u8]) -> Result<usize, &'static str> {
    let name = line.iter().take_while(|b| is_name_byte(**b)).count();
    if name > 0 && !is_name_start(line[0]) {
        return Err("expected a valid start token");
    }
    let after = trim_start(&line[name..]);
    if after.first() != Some(&b'{') {
        return if name == 0 { Err("expected a valid start token") } else { Ok(name) };
    }
    let mut at = line.len() - after.len() + 1;
    loop {
        match line.get(at..).and_then(|rest| memchr::memchr2(b'"', b'}', rest)) {
            None => return Err("expected label name"),
            Some(offset) if line[at + offset] == b'}' => return Ok(at + offset + 1),
            Some(offset) => {
                at += offset;
                at += quoted_len(&line[at..]).ok_or("label value is not terminated")?;
            }
        }
    }
}

/// Replaces the escapes `\"`, `\\` and `\n`; any other backslash stands for itself.
pub fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let replacement = match (c, chars.peek()) {
            ('\\', Some('"')) => '"',
            ('\\', Some('\\')) => '\\',
            ('\\', Some('n')) => '\n',
            _ => {
                out.push(c);
                continue;
            }
        };
        chars.next();
        out.push(replacement);
    }
    Cow::Owned(out)
}

/// Reads the labels out of a series' text, its name as `__name__` first. `le` of a histogram and `quantile` of a summary
/// are written anew as OpenMetrics floats.
///
/// # Errors
///
/// Where the text is not a name with labels in braces; the builder then holds a part of them.
pub fn read_series(text: &[u8], metric_type: MetricType, labels: &mut LabelsBuilder) -> Result<(), ParseError> {
    let error = |message: &str| ParseError { line: 0, message: format!("{message} while parsing: {}", excerpt(text)) };
    let text = std::str::from_utf8(text).map_err(|_| error("invalid UTF-8 label value"))?;
    let name_len = text.bytes().take_while(|b| is_name_byte(*b)).count();
    let mut has_name = name_len > 0;
    if has_name {
        labels.push(METRIC_NAME, &text[..name_len]);
    }
    let mut rest = text[name_len..].trim_start_matches([' ', '\t']);
    if rest.is_empty() {
        return Ok(());
    }
    rest = rest.strip_prefix('{').ok_or_else(|| error("expected label name"))?;
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        if rest == "}" {
            break;
        }
        let quoted = rest.starts_with('"');
        let len = if quoted {
            quoted_len(rest.as_bytes()).ok_or_else(|| error("expected label name"))?
        } else {
            rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count()
        };
        if len == 0 || rest.as_bytes()[0].is_ascii_digit() {
            return Err(error("expected label name"));
        }
        let name = if quoted { &rest[1..len - 1] } else { &rest[..len] };
        rest = rest[len..].trim_start_matches([' ', '\t']);
        if quoted && rest.starts_with([',', '}']) {
            if has_name {
                return Err(error("metric name already set"));
            }
            has_name = true;
            labels.push(METRIC_NAME, &unescape(name));
            rest = rest.strip_prefix(',').unwrap_or(rest);
            continue;
        }
        rest = rest.strip_prefix('=').ok_or_else(|| error("expected equal"))?.trim_start_matches([' ', '\t']);
        if !rest.starts_with('"') {
            return Err(error("expected label value"));
        }
        let len = quoted_len(rest.as_bytes()).ok_or_else(|| error("expected label value"))?;
        push_label(labels, metric_type, &unescape(name), &unescape(&rest[1..len - 1]));
        rest = rest[len..].trim_start_matches([' ', '\t']);
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    if has_name { Ok(()) } else { Err(error("metric name not set")) }
}

/// Adds a label, normalising the values that are floats in text.
pub fn push_label(labels: &mut LabelsBuilder, metric_type: MetricType, name: &str, value: &str) {
    let is_float = match metric_type {
        MetricType::Histogram => name == "le",
        MetricType::Summary => name == "quantile",
        _ => false,
    };
    match parse_value(value.as_bytes()) {
        Some(number) if is_float => {
            let mut text = String::with_capacity(24);
            push_open_metrics_float(&mut text, number);
            labels.push(name, &text);
        }
        _ => labels.push(name, value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Default)]
    struct Collect {
        lines: Vec<String>,
        current: String,
    }

    impl TextSink for Collect {
        type Error = ParseError;

        fn recognise(&mut self, _: &[u8], _: MetricType) -> Option<usize> {
            None
        }

        fn series(&mut self, text: &[u8], metric_type: MetricType) -> Result<(), ParseError> {
            let mut labels = LabelsBuilder::new();
            read_series(text, metric_type, &mut labels)?;
            self.current = labels.iter().map(|(n, v)| format!("{n}={v} ")).collect();
            Ok(())
        }

        fn sample(&mut self, value: f64, timestamp_ms: Option<i64>) -> Result<(), ParseError> {
            self.lines.push(format!("{}{value} {timestamp_ms:?}", self.current));
            Ok(())
        }
    }

    fn parse_in_pieces(body: &[u8], piece: usize) -> Result<Vec<String>, ParseError> {
        let mut parser = TextParser::new();
        let mut sink = Collect::default();
        for piece in body.chunks(piece.max(1)) {
            parser.feed(piece, &mut sink)?;
        }
        parser.finish(&mut sink)?;
        Ok(sink.lines)
    }

    fn parse(body: &str) -> Result<Vec<String>, String> {
        parse_in_pieces(body.as_bytes(), usize::MAX).map_err(|e| e.to_string())
    }

    #[test]
    fn lines_of_the_format_are_read() {
        for (body, want) in [
            ("a 1\n", vec!["__name__=a 1 None"]),
            ("a 1", vec!["__name__=a 1 None"]),
            ("\n\n a \t 1 \n\n", vec!["__name__=a 1 None"]),
            ("a{} 1 123\n", vec!["__name__=a 1 Some(123)"]),
            ("a {b=\"c\",} +Inf\n", vec!["__name__=a b=c inf None"]),
            ("a{b=\"c\"}1\n", vec!["__name__=a b=c 1 None"]),
            ("a{ b = \"c}\\\"\" , d=\"\\\\x\\n\\q\" } -1e3\n", vec!["__name__=a b=c}\" d=\\x\n\\q -1000 None"]),
            ("{\"my.metric\", \"l.x\"=\"v\"} 1\n", vec!["__name__=my.metric l.x=v 1 None"]),
            ("a:b_c9 1\n", vec!["__name__=a:b_c9 1 None"]),
            ("#a\n# b\n#TYPE x nonsense\n# HELP a \\n text\n# TYPE a counter\na 1\n", vec!["__name__=a 1 None"]),
            ("# HELP a\na 1\n", vec!["__name__=a 1 None"]),
            ("# TYPE a histogram\na{le=\"1\",quantile=\"1\"} 2\n", vec!["__name__=a le=1.0 quantile=1 2 None"]),
            ("# TYPE a summary\nb{le=\"1\",quantile=\"0\"} 2\n", vec!["__name__=b le=1 quantile=0.0 2 None"]),
            ("# TYPE \"a.b\" gauge\na 1\n", vec!["__name__=a 1 None"]),
        ] {
            assert_eq!(parse(body), Ok(want.into_iter().map(str::to_owned).collect()), "{body:?}");
        }
    }

    #[test]
    fn a_broken_line_is_named() {
        for (body, want) in [
            ("a\n", r#"line 1: expected value after metric while parsing: "a""#),
            ("a 1\nb x\n", r#"line 2: parsing "x": invalid syntax while parsing: "b x""#),
            ("a 1 2 3\n", r#"line 1: expected next entry after timestamp while parsing: "a 1 2 3""#),
            ("a 1 x\n", r#"line 1: expected timestamp or new record while parsing: "a 1 x""#),
            ("a 1 99999999999999999999\n", r#"line 1: timestamp out of range while parsing: "a 1 99999999999999999999""#),
            ("9a 1\n", r#"line 1: expected a valid start token while parsing: "9a 1""#),
            ("a{b=\"c\" 1\n", r#"line 1: expected label name while parsing: "a{b=\"c\" 1""#),
            ("a{b=\"c} 1\n", r#"line 1: label value is not terminated while parsing: "a{b=\"c} 1""#),
            ("a{b=c} 1\n", r#"expected label value while parsing: "a{b=c}""#),
            ("a{b\"c\"} 1\n", r#"expected equal while parsing: "a{b\"c\"}""#),
            ("a{9=\"c\"} 1\n", r#"expected label name while parsing: "a{9=\"c\"}""#),
            ("{b=\"c\"} 1\n", r#"metric name not set while parsing: "{b=\"c\"}""#),
            ("a{\"b\"} 1\n", r#"metric name already set while parsing: "a{\"b\"}""#),
            ("# TYPE a info\n", r#"line 1: invalid metric type "info""#),
            ("# TYPE a  gauge\n", r#"line 1: invalid metric type " gauge""#),
            ("# TYPE \n", "line 1: expected metric name after TYPE"),
            ("a 0x1p4\n", r#"line 1: parsing "0x1p4": invalid syntax while parsing: "a 0x1p4""#),
        ] {
            assert_eq!(parse(body), Err(want.to_owned()), "{body:?}");
        }
    }

    #[test]
    fn a_line_has_a_longest_length() {
        let body = format!("a{{b=\"{}\"}} 1\n", "x".repeat(LINE_BYTES_MAX));
        for piece in [usize::MAX, 1000] {
            let error = parse_in_pieces(body.as_bytes(), piece).unwrap_err();
            assert_eq!(error.to_string(), "line 1: the line is longer than the limit of 1048576 bytes");
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(body in "([a-c]{1,3}(\\{[a-c\"=,\\\\]{0,9}\\})? [0-9.]{1,3}\n|# (TYPE|HELP) [a-z ]{0,9}\n|[\\PC\n]{0,9})*", piece in 1usize..20) {
            prop_assert_eq!(parse_in_pieces(body.as_bytes(), piece), parse_in_pieces(body.as_bytes(), usize::MAX));
        }

        #[test]
        fn no_bytes_make_it_panic(body: Vec<u8>, piece in 1usize..50) {
            let _ = parse_in_pieces(&body, piece);
        }

        #[test]
        fn escaped_values_are_read_back(value in "\\PC{0,40}|[\\\\\"\n]{0,9}") {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            prop_assert_eq!(unescape(&escaped), value);
        }
    }
}
