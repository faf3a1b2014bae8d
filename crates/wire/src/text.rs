//! The Prometheus text exposition format, versions 0.0.4 and 1.0.0.
//!
//! The parser is fed with pieces of a body as they arrive and works line by line, so that a body is never held whole.
//! It does not know series: for each sample it first asks its [`TextSink`] whether it recognises the series at the
//! start of the line, and only otherwise looks for the end of the series' text.

pub use crate::exposition::{LINE_BYTES_MAX, ParseError, TextSink, excerpt, push_label, read_series, unescape};
use crate::exposition::{
    Lines, Syntax, error_at, family_name_len, is_name_byte, is_name_start, quoted_len, trim_start, without_quotes,
};
use crate::float::parse_value;
use corten_signal::metrics::MetricType;

/// Parses a body in pieces.
#[derive(Debug, Default)]
pub struct TextParser {
    lines: Lines,
    syntax: TextSyntax,
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
        self.lines.feed(piece, &mut self.syntax, sink)
    }

    /// Takes the end of the body: a last line needs no line break.
    ///
    /// # Errors
    ///
    /// As [`TextParser::feed`].
    pub fn finish<S: TextSink>(&mut self, sink: &mut S) -> Result<(), S::Error> {
        if let Some((line, number)) = self.lines.take_rest() {
            self.syntax.line(&line, number, sink)?;
        }
        if self.syntax.open_lines > 0 {
            self.syntax.line = self.syntax.open_line;
            return Err(self.syntax.error_at(NOT_TERMINATED, &self.syntax.open).into());
        }
        sink.end()
    }
}

#[derive(Debug, Default)]
struct TextSyntax {
    line: u64,
    /// In this format the type is positional: it holds until the next `# TYPE` line.
    metric_type: MetricType,
    /// A sample in whose quotes stands a line break, which should be escaped and is taken all the same: its lines so far.
    open: Vec<u8>,
    open_lines: usize,
    /// The number of its first line.
    open_line: u64,
}

/// The most lines that a sample has.
const SAMPLE_LINES_MAX: usize = 100;

const NOT_TERMINATED: &str = "label value is not terminated";

impl Syntax for TextSyntax {
    #[inline]
    fn steady_type(&self) -> Option<MetricType> {
        (self.open_lines == 0).then_some(self.metric_type)
    }

    fn line<S: TextSink>(&mut self, line: &[u8], number: u64, sink: &mut S) -> Result<(), S::Error> {
        self.line = number;
        if self.open_lines > 0 {
            return self.parse_open(line, sink);
        }
        let line = trim_start(line);
        match line.first() {
            None => Ok(()),
            Some(b'#') => self.parse_comment(line, sink).map_err(S::Error::from),
            Some(_) => self.parse_sample(line, sink),
        }
    }
}

impl TextSyntax {
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
        let name_len = family_name_len(rest).ok_or_else(|| {
            self.error(format!("expected metric name after {}", if is_type { "TYPE" } else { "HELP" }))
        })?;
        let (name, text) = rest.split_at(name_len);
        let name = without_quotes(name);
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

    /// Parses a sample that has a further line.
    fn parse_open<S: TextSink>(&mut self, line: &[u8], sink: &mut S) -> Result<(), S::Error> {
        let mut open = std::mem::take(&mut self.open);
        self.line = self.open_line;
        if open.len() + line.len() > LINE_BYTES_MAX || self.open_lines >= SAMPLE_LINES_MAX {
            return Err(self.error_at(NOT_TERMINATED, &open).into());
        }
        open.push(b'\n');
        open.extend_from_slice(line);
        let lines = std::mem::take(&mut self.open_lines);
        self.parse_sample(&open, sink)?;
        if self.open_lines > 0 {
            self.open_lines = lines + 1;
        }
        Ok(())
    }

    fn parse_sample<S: TextSink>(&mut self, line: &[u8], sink: &mut S) -> Result<(), S::Error> {
        // A blank may stand between name and brace: a known name is then not the series.
        let known = sink.recognise(line, self.metric_type);
        let known = known.filter(|len| trim_start(&line[*len..]).first() != Some(&b'{'));
        let len = match known {
            Some(len) => len,
            None => match series_len(line) {
                Ok(len) => len,
                Err(NOT_TERMINATED) => {
                    self.open.extend_from_slice(line);
                    self.open_lines = 1;
                    self.open_line = self.line;
                    return Ok(());
                }
                Err(message) => return Err(self.error_at(message, line).into()),
            },
        };
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
        if known.is_none() {
            sink.series(text, self.metric_type)?;
        }
        sink.sample(value, timestamp)
    }

    fn error(&self, message: impl Into<String>) -> ParseError {
        ParseError { line: self.line, message: message.into() }
    }

    #[cold]
    fn error_at(&self, message: &str, line: &[u8]) -> ParseError {
        error_at(self.line, message, line)
    }
}

fn starts_blank(text: &[u8]) -> bool {
    matches!(text.first(), Some(b' ' | b'\t'))
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
                at += quoted_len(&line[at..]).ok_or(NOT_TERMINATED)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_signal::LabelsBuilder;
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
            (
                "a 1 99999999999999999999\n",
                r#"line 1: timestamp out of range while parsing: "a 1 99999999999999999999""#,
            ),
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
    fn a_line_break_in_quotes_is_taken_as_it_stands() {
        for (body, want) in [
            ("a{b=\"c\nd\n\n# \\\"e\"} 1\nf 2\n", vec!["__name__=a b=c\nd\n\n# \"e 1 None", "__name__=f 2 None"]),
            ("{\"a\nb\"} 1", vec!["__name__=a\nb 1 None"]),
        ] {
            for piece in [usize::MAX, 1, 3] {
                let lines = parse_in_pieces(body.as_bytes(), piece).unwrap();
                assert_eq!(lines, want, "{body:?}");
            }
        }
        let body = format!("a{{b=\"{}\"}} 1\n", "\n".repeat(SAMPLE_LINES_MAX));
        let error = parse(&body).unwrap_err();
        assert!(error.starts_with("line 1: label value is not terminated while parsing: \"a{b="), "{error}");
        let body = format!("a{{b=\"{}\n{}\"}} 1\n", "x".repeat(LINE_BYTES_MAX / 2), "x".repeat(LINE_BYTES_MAX / 2));
        assert!(parse(&body).is_err());
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
