//! What the exposition formats have in common: the sink that takes what a parser finds, the cutting of a body into lines,
//! and the text of a series.

use std::borrow::Cow;
use std::fmt;

use memchr::{memchr, memchr2, memchr3, memrchr};

use crate::float::{parse_value, push_open_metrics_float};
use corten_signal::LabelsBuilder;
use corten_signal::labels::METRIC_NAME;
use corten_signal::metrics::{Histogram, MetricType};

/// The longest line that is accepted, in bytes.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// The most characters that the labels of an exemplar have, names and values together. The limit is OpenMetrics'; the
/// parsers leave it to the sink, because more characters cost the exemplar and not the body.
pub const EXEMPLAR_CHARS_MAX: usize = 128;

/// Takes what a parser of an exposition format finds, in the order of the body.
///
/// For each sample the calls are: [`recognise`](Self::recognise) and, where that knows nothing,
/// [`series`](Self::series); [`start_timestamp`](Self::start_timestamp) if it has one; [`sample`](Self::sample) or
/// [`histogram`](Self::histogram); then [`exemplar`](Self::exemplar) for each exemplar. Where a line is broken behind the
/// series, the calls end with the error.
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

    /// When the series whose sample follows began to count, in milliseconds since the Unix epoch; never 0. Who does not
    /// use start times needs no method of its own.
    ///
    /// # Errors
    ///
    /// Ends the parsing.
    fn start_timestamp(&mut self, _start_ms: i64) -> Result<(), Self::Error> {
        Ok(())
    }

    /// A native histogram of the series, in place of a sample. It is compact and its spans fit its buckets; apart from
    /// that it is not validated. A sink for formats without native histograms needs no method of its own.
    ///
    /// # Errors
    ///
    /// Ends the parsing.
    fn histogram(&mut self, _histogram: Histogram, _timestamp_ms: Option<i64>) -> Result<(), Self::Error> {
        Ok(())
    }

    /// An exemplar of the sample or histogram before. `labels` is the text of its labels, braces included, which
    /// [`read_exemplar_labels`] reads. Who does not use exemplars needs no method of its own.
    ///
    /// # Errors
    ///
    /// Ends the parsing.
    fn exemplar(&mut self, _labels: &[u8], _value: f64, _timestamp_ms: Option<i64>) -> Result<(), Self::Error> {
        Ok(())
    }

    /// The type of a family. The name is as in the text, escapes included and quotes not: see [`unescape`].
    fn family_type(&mut self, _name: &[u8], _metric_type: MetricType) {}

    /// The help of a family. Name and help are as in the text, escapes included: see [`unescape`] and
    /// [`unescape_help`].
    fn family_help(&mut self, _name: &[u8], _help: &[u8]) {}

    /// The unit of a family. The name is as in the text, escapes included and quotes not.
    fn family_unit(&mut self, _name: &[u8], _unit: &[u8]) {}

    /// The body has ended well.
    ///
    /// # Errors
    ///
    /// Ends the parsing.
    fn end(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// What is wrong with a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The line, counted from 1; 0 where the error is in a text that is not part of a body, or in a body without lines.
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

/// An error in a line, with the start of the line.
#[cold]
pub(crate) fn error_at(line_number: u64, message: &str, line: &[u8]) -> ParseError {
    ParseError { line: line_number, message: format!("{message} while parsing: {}", excerpt(line)) }
}

/// The syntax of the lines of a format.
pub(crate) trait Syntax {
    /// The type of the family that lines belong to, where a line with a known series, one space, a value and a line
    /// break may be taken without a look at it; nothing where every line must be looked at.
    fn steady_type(&self) -> Option<MetricType>;

    /// Takes a line, without its line break.
    fn line<S: TextSink>(&mut self, line: &[u8], number: u64, sink: &mut S) -> Result<(), S::Error>;
}

/// Cuts a body that arrives in pieces into lines, so that a body is never held whole.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// The start of a line whose end has not arrived.
    partial: Vec<u8>,
    number: u64,
}

impl Lines {
    /// Takes the next piece of the body.
    pub(crate) fn feed<Y: Syntax, S: TextSink>(
        &mut self,
        piece: &[u8],
        syntax: &mut Y,
        sink: &mut S,
    ) -> Result<(), S::Error> {
        let mut piece = piece;
        if !self.partial.is_empty() {
            let Some(end) = memchr(b'\n', piece) else {
                return self.keep(piece).map_err(S::Error::from);
            };
            self.keep(&piece[..end])?;
            let line = std::mem::take(&mut self.partial);
            self.number += 1;
            syntax.line(&line, self.number, sink)?;
            self.partial = line;
            self.partial.clear();
            piece = &piece[end + 1..];
        }
        let Some(last) = memrchr(b'\n', piece) else {
            return self.keep(piece).map_err(S::Error::from);
        };
        let (lines, rest) = piece.split_at(last + 1);
        self.lines(lines, syntax, sink)?;
        self.keep(rest).map_err(S::Error::from)
    }

    /// The last line with its number, if it has no line break.
    pub(crate) fn take_rest(&mut self) -> Option<(Vec<u8>, u64)> {
        let line = std::mem::take(&mut self.partial);
        (!line.is_empty()).then(|| {
            self.number += 1;
            (line, self.number)
        })
    }

    /// The number of the line that was seen last.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    fn keep(&mut self, piece: &[u8]) -> Result<(), ParseError> {
        if self.partial.len() + piece.len() > LINE_BYTES_MAX {
            self.number += 1;
            return Err(self.too_long());
        }
        self.partial.extend_from_slice(piece);
        Ok(())
    }

    /// Parses lines that all end with a line break.
    fn lines<Y: Syntax, S: TextSink>(
        &mut self,
        mut lines: &[u8],
        syntax: &mut Y,
        sink: &mut S,
    ) -> Result<(), S::Error> {
        while let Some(&first) = lines.first() {
            self.number += 1;
            if first != b'#'
                && let Some(metric_type) = syntax.steady_type()
                && let Some(len) = sink.recognise(lines, metric_type)
                && lines[len] == b' '
                && let Some((value, used)) = simple_value(&lines[len + 1..])
            {
                // The steady case: a known series, one space, a value, and the end of the line.
                sink.sample(value, None)?;
                lines = &lines[len + 1 + used..];
                continue;
            }
            let end = memchr(b'\n', lines).unwrap_or(lines.len() - 1);
            if end > LINE_BYTES_MAX {
                return Err(self.too_long().into());
            }
            syntax.line(&lines[..end], self.number, sink)?;
            lines = &lines[end + 1..];
        }
        Ok(())
    }

    #[cold]
    fn too_long(&self) -> ParseError {
        let message = format!("the line is longer than the limit of {LINE_BYTES_MAX} bytes");
        ParseError { line: self.number, message }
    }
}

/// A value that ends with the line: (value, bytes up to and including the line break).
#[inline]
fn simple_value(text: &[u8]) -> Option<(f64, usize)> {
    // No float that is written in full is longer than this; what is longer takes the slow way.
    let end = memchr(b'\n', &text[..text.len().min(32)])?;
    Some((parse_value(&text[..end])?, end + 1))
}

/// The first bytes of a line, quoted.
pub fn excerpt(line: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 120;
    let (shown, dots) = if line.len() > SHOWN_BYTES_MAX { (&line[..SHOWN_BYTES_MAX], "...") } else { (line, "") };
    format!("{:?}{dots}", String::from_utf8_lossy(shown))
}

pub(crate) fn trim_start(text: &[u8]) -> &[u8] {
    let blank = text.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
    &text[blank..]
}

/// What a byte can be in a name that needs no quotes.
const NAME_BYTES: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0usize;
    while byte < 256 {
        let b = byte as u8;
        if b.is_ascii_alphabetic() || b == b'_' || b == b':' {
            table[byte] = NAME_START | NAME_BYTE;
        } else if b.is_ascii_digit() {
            table[byte] = NAME_BYTE;
        }
        byte += 1;
    }
    table
};
const NAME_START: u8 = 1;
const NAME_BYTE: u8 = 2;

#[inline]
pub(crate) fn is_name_start(byte: u8) -> bool {
    NAME_BYTES[usize::from(byte)] & NAME_START != 0
}

#[inline]
pub(crate) fn is_name_byte(byte: u8) -> bool {
    NAME_BYTES[usize::from(byte)] & NAME_BYTE != 0
}

/// Whether a name of a metric needs no quotes.
pub fn is_legacy_metric_name(name: &str) -> bool {
    name.bytes().next().is_some_and(is_name_start) && name.bytes().all(is_name_byte)
}

/// Whether a name of a label needs no quotes.
pub fn is_legacy_label_name(name: &str) -> bool {
    let is_byte = |b: u8| is_name_byte(b) && b != b':';
    name.bytes().next().is_some_and(is_name_start) && name.bytes().all(is_byte)
}

/// The name of a type as OpenMetrics and remote write have it.
pub fn type_name(metric_type: MetricType) -> &'static str {
    match metric_type {
        MetricType::Unknown => "unknown",
        MetricType::Counter => "counter",
        MetricType::Gauge => "gauge",
        MetricType::Histogram => "histogram",
        MetricType::GaugeHistogram => "gaugehistogram",
        MetricType::Summary => "summary",
        MetricType::Info => "info",
        MetricType::StateSet => "stateset",
    }
}

/// The length of the name in a line about a family, quotes included.
pub(crate) fn family_name_len(text: &[u8]) -> Option<usize> {
    match text.first()? {
        b'"' => quoted_len(text),
        &byte if is_name_start(byte) => Some(text.iter().take_while(|b| is_name_byte(**b)).count()),
        _ => None,
    }
}

/// A name without its quotes, if it has some.
pub(crate) fn without_quotes(name: &[u8]) -> &[u8] {
    name.strip_prefix(b"\"").and_then(|n| n.strip_suffix(b"\"")).unwrap_or(name)
}

/// The length of a quoted string at the start of the text, quotes included.
pub(crate) fn quoted_len(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        at += memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// Replaces the escapes `\"`, `\\` and `\n`; any other backslash stands for itself.
pub fn unescape(text: &str) -> Cow<'_, str> {
    unescape_some(text, true)
}

/// Replaces the escapes of a help text, `\\` and `\n`; any other backslash stands for itself.
pub fn unescape_help(text: &str) -> Cow<'_, str> {
    unescape_some(text, false)
}

fn unescape_some(text: &str, quotes: bool) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let replacement = match (c, chars.peek()) {
            ('\\', Some('"')) if quotes => '"',
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

/// Writes a text with the escapes of a label value: for backslash, quote and line break.
pub(crate) fn push_escaped(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    while let Some(at) = memchr3(b'\\', b'"', b'\n', rest) {
        out.extend_from_slice(&rest[..at]);
        out.push(b'\\');
        out.push(if rest[at] == b'\n' { b'n' } else { rest[at] });
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// Writes a text with the escapes of a help text: for backslash and line break.
pub(crate) fn push_escaped_help(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    while let Some(at) = memchr2(b'\\', b'\n', rest) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(if rest[at] == b'\n' { b"\\n" } else { b"\\\\" });
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// Reads a series' text and hands its labels to `visit` as (name, value), the series' name as `__name__`, first unless it
/// stands in the braces.
///
/// # Errors
///
/// Where the text is not a name with labels in braces; some labels were visited then.
pub(crate) fn visit_series<'a>(
    text: &'a [u8],
    mut visit: impl FnMut(Cow<'a, str>, Cow<'a, str>),
) -> Result<(), ParseError> {
    let error = |message: &str| error_at(0, message, text);
    let text = std::str::from_utf8(text).map_err(|_| error("invalid UTF-8 label value"))?;
    let name_len = text.bytes().take_while(|b| is_name_byte(*b)).count();
    let mut has_name = name_len > 0;
    if has_name {
        visit(Cow::Borrowed(METRIC_NAME), Cow::Borrowed(&text[..name_len]));
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
            visit(Cow::Borrowed(METRIC_NAME), unescape(name));
            rest = rest.strip_prefix(',').unwrap_or(rest);
            continue;
        }
        rest = rest.strip_prefix('=').ok_or_else(|| error("expected equal"))?.trim_start_matches([' ', '\t']);
        if !rest.starts_with('"') {
            return Err(error("expected label value"));
        }
        let len = quoted_len(rest.as_bytes()).ok_or_else(|| error("expected label value"))?;
        visit(unescape(name), unescape(&rest[1..len - 1]));
        rest = rest[len..].trim_start_matches([' ', '\t']);
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    if has_name { Ok(()) } else { Err(error("metric name not set")) }
}

/// Reads the labels out of a series' text, its name as `__name__` first. `le` of a histogram and `quantile` of a summary
/// are written anew as OpenMetrics floats.
///
/// # Errors
///
/// Where the text is not a name with labels in braces; the builder then holds a part of them.
pub fn read_series(text: &[u8], metric_type: MetricType, labels: &mut LabelsBuilder) -> Result<(), ParseError> {
    visit_series(text, |name, value| push_label(labels, metric_type, &name, &value))
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

/// The labels of an exemplar: names and values, sorted.
pub type ExemplarLabels = Vec<(Box<str>, Box<str>)>;

/// Reads the labels of an exemplar, `{name="value",…}`, and sorts them by name.
///
/// # Errors
///
/// Where the text is not a list of labels in braces.
pub fn read_exemplar_labels(text: &[u8]) -> Result<ExemplarLabels, ParseError> {
    let error = |message: &str| error_at(0, message, text);
    let text = std::str::from_utf8(text).map_err(|_| error("invalid UTF-8 label value"))?;
    let mut labels = Vec::new();
    let mut rest = text.strip_prefix('{').ok_or_else(|| error("expected label name"))?;
    while rest != "}" {
        let quoted = rest.starts_with('"');
        let len = if quoted {
            quoted_len(rest.as_bytes()).ok_or_else(|| error("expected label name"))?
        } else {
            rest.find(['=', '}']).ok_or_else(|| error("expected equal"))?
        };
        let name = if quoted { unescape(&rest[1..len - 1]) } else { Cow::Borrowed(&rest[..len]) };
        rest = rest[len..].strip_prefix('=').ok_or_else(|| error("expected equal"))?;
        if !rest.starts_with('"') {
            return Err(error("expected label value"));
        }
        let len = quoted_len(rest.as_bytes()).ok_or_else(|| error("expected label value"))?;
        labels.push((Box::from(name), Box::from(unescape(&rest[1..len - 1]))));
        rest = &rest[len..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    labels.sort();
    Ok(labels)
}

/// Whether the labels of an exemplar are within [`EXEMPLAR_CHARS_MAX`].
pub fn exemplar_fits<'a>(labels: impl Iterator<Item = (&'a str, &'a str)>) -> bool {
    labels.map(|(name, value)| name.chars().count() + value.chars().count()).sum::<usize>() <= EXEMPLAR_CHARS_MAX
}

/// Writes the text of a series in one canonical form, so that a format that is no text and the text formats share what
/// a sink remembers of series.
#[derive(Debug, Default)]
pub(crate) struct SeriesText {
    /// The text and a space, in which a sink can recognise it.
    text: Vec<u8>,
}

impl SeriesText {
    /// Writes a series: its name and a suffix of it, labels as [`push_label_text`] wrote them, and one label more, whose
    /// value needs no escape.
    pub(crate) fn write(&mut self, name: &str, suffix: &str, labels: &[u8], more: Option<(&str, &str)>) {
        let text = &mut self.text;
        text.clear();
        let quoted = !is_legacy_metric_name(name);
        let braces = quoted || !labels.is_empty() || more.is_some();
        if quoted {
            text.extend_from_slice(b"{\"");
            push_escaped(text, name);
            text.extend_from_slice(suffix.as_bytes());
            text.extend_from_slice(b"\",");
        } else {
            text.extend_from_slice(name.as_bytes());
            text.extend_from_slice(suffix.as_bytes());
            if braces {
                text.push(b'{');
            }
        }
        text.extend_from_slice(labels);
        if let Some((name, value)) = more {
            text.extend_from_slice(name.as_bytes());
            text.extend_from_slice(b"=\"");
            text.extend_from_slice(value.as_bytes());
            text.extend_from_slice(b"\",");
        }
        if braces {
            if text.last() == Some(&b',') {
                text.pop();
            }
            text.push(b'}');
        }
        text.push(b' ');
    }

    /// Takes over a text.
    pub(crate) fn copy(&mut self, text: &[u8]) {
        self.text.clear();
        self.text.extend_from_slice(text);
        self.text.push(b' ');
    }

    /// Tells the sink that the next sample is of this series.
    pub(crate) fn announce<S: TextSink>(&self, metric_type: MetricType, sink: &mut S) -> Result<(), S::Error> {
        let len = self.text.len() - 1;
        match sink.recognise(&self.text, metric_type) {
            Some(known) if known == len => Ok(()),
            _ => sink.series(&self.text[..len], metric_type),
        }
    }
}

/// Writes `name="value",`.
pub(crate) fn push_label_text(out: &mut Vec<u8>, name: &str, value: &str) {
    if is_legacy_label_name(name) {
        out.extend_from_slice(name.as_bytes());
    } else {
        out.push(b'"');
        push_escaped(out, name);
        out.push(b'"');
    }
    out.extend_from_slice(b"=\"");
    push_escaped(out, value);
    out.extend_from_slice(b"\",");
}

#[cfg(test)]
pub(crate) mod testing {
    //! A sink that writes down what it gets.

    use super::*;

    /// Each call as a line, without those about prediction. The labels of a series are read and shown.
    #[derive(Default)]
    pub(crate) struct Record {
        pub(crate) lines: Vec<String>,
        pub(crate) current: String,
        /// Series texts with their types, if they are to be recognised.
        pub(crate) known: Vec<(Vec<u8>, MetricType)>,
        pub(crate) remembers: bool,
        /// Whether labels are shown by name and not as they stand.
        pub(crate) sorted: bool,
        /// How many series were not recognised.
        pub(crate) unknown: usize,
    }

    impl Record {
        fn set_current(&mut self, text: &[u8], metric_type: MetricType) -> Result<(), ParseError> {
            let mut labels = LabelsBuilder::new();
            read_series(text, metric_type, &mut labels)?;
            let mut shown: Vec<(&str, &str)> = labels.iter().collect();
            if self.sorted {
                shown.sort();
            }
            self.current = shown.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join(" ");
            Ok(())
        }
    }

    fn shown_name(name: &[u8]) -> String {
        unescape(&String::from_utf8_lossy(name)).into_owned()
    }

    pub(crate) fn show_time(timestamp_ms: Option<i64>) -> String {
        timestamp_ms.map_or(String::new(), |t| format!(" @{t}"))
    }

    impl TextSink for Record {
        type Error = ParseError;

        fn recognise(&mut self, line: &[u8], metric_type: MetricType) -> Option<usize> {
            let found = self.known.iter().find(|(text, t)| {
                *t == metric_type && line.starts_with(text) && matches!(line.get(text.len()), Some(b' ' | b'\t'))
            });
            let text = found?.0.clone();
            self.set_current(&text, metric_type).ok()?;
            Some(text.len())
        }

        fn series(&mut self, text: &[u8], metric_type: MetricType) -> Result<(), ParseError> {
            self.unknown += 1;
            self.set_current(text, metric_type)?;
            if self.remembers {
                self.known.push((text.to_vec(), metric_type));
            }
            Ok(())
        }

        fn sample(&mut self, value: f64, timestamp_ms: Option<i64>) -> Result<(), ParseError> {
            self.lines.push(format!("{} {value}{}", self.current, show_time(timestamp_ms)));
            Ok(())
        }

        fn start_timestamp(&mut self, start_ms: i64) -> Result<(), ParseError> {
            self.lines.push(format!("start {start_ms}"));
            Ok(())
        }

        fn histogram(&mut self, histogram: Histogram, timestamp_ms: Option<i64>) -> Result<(), ParseError> {
            self.lines.push(format!("{} {}{}", self.current, show(&histogram), show_time(timestamp_ms)));
            Ok(())
        }

        fn exemplar(&mut self, labels: &[u8], value: f64, timestamp_ms: Option<i64>) -> Result<(), ParseError> {
            let labels = read_exemplar_labels(labels)?;
            let labels: Vec<String> = labels.iter().map(|(n, v)| format!("{n}={v}")).collect();
            self.lines.push(format!("exemplar {{{}}} {value}{}", labels.join(" "), show_time(timestamp_ms)));
            Ok(())
        }

        fn family_type(&mut self, name: &[u8], metric_type: MetricType) {
            self.lines.push(format!("type {} {}", shown_name(name), type_name(metric_type)));
        }

        fn family_help(&mut self, name: &[u8], help: &[u8]) {
            self.lines.push(format!("help {} {}", shown_name(name), String::from_utf8_lossy(help)));
        }

        fn family_unit(&mut self, name: &[u8], unit: &[u8]) {
            self.lines.push(format!("unit {} {}", shown_name(name), String::from_utf8_lossy(unit)));
        }

        fn end(&mut self) -> Result<(), ParseError> {
            self.lines.push("end".to_owned());
            Ok(())
        }
    }

    /// A body of which the reference's parser was asked, its format and options, and what the parser found.
    pub(crate) struct Recorded {
        pub(crate) name: &'static str,
        pub(crate) format: &'static str,
        options: &'static str,
        pub(crate) body: Vec<u8>,
        pub(crate) lines: Vec<&'static str>,
    }

    impl Recorded {
        pub(crate) fn option(&self, name: &str) -> bool {
            self.options.split(' ').any(|o| o.strip_suffix("=true") == Some(name))
        }

        /// Compares with what was found here. A parser that refuses a body ends with the line `error`.
        pub(crate) fn check(&self, mut record: Record, result: Result<(), ParseError>) {
            if result.is_err() {
                record.lines.push("error".to_owned());
            }
            let found: Vec<String> = record.lines.iter().map(|l| l.replace('\n', "\\n")).collect();
            let same = found.iter().zip(&self.lines).take_while(|(a, b)| a == b).count();
            let (found, want) = (&found[same..], &self.lines[same..]);
            if result.is_err() && found.len() == 1 && want.last() == Some(&"error") {
                // The reference hands on a series before it looks at the end of its line.
                return;
            }
            assert_eq!(found, want, "from line {same} on: {} {} {} {result:?}", self.format, self.name, self.options);
        }
    }

    /// Reads a file of recorded bodies.
    pub(crate) fn recorded(file: &'static str) -> Vec<Recorded> {
        let blocks = file.split("\n\n").filter(|block| !block.trim().is_empty());
        let cases = blocks.map(|block| {
            let mut lines = block.lines();
            let mut field = |key: &str| lines.next().and_then(|l| l.strip_prefix(key)).unwrap().trim_start();
            let name = field("case");
            let (format, options) = field("format").split_once(' ').unwrap();
            let body = crate::proto::from_hex(field("body"));
            Recorded { name, format, options, body, lines: lines.map(|l| l.strip_prefix("line ").unwrap()).collect() }
        });
        cases.collect()
    }

    /// A histogram in a short form: schema, sum, zero bucket, spans with buckets.
    pub(crate) fn show(h: &Histogram) -> String {
        use corten_signal::metrics::HistogramCounts::{Float, Int};
        let (count, zero, positive, negative) = match &h.counts {
            Int { count, zero_count, positive_deltas, negative_deltas } => (
                format!("{count}"),
                format!("{zero_count}"),
                format!("{positive_deltas:?}"),
                format!("{negative_deltas:?}"),
            ),
            Float { count, zero_count, positive_counts, negative_counts } => (
                format!("{count}f"),
                format!("{zero_count}f"),
                format!("{positive_counts:?}"),
                format!("{negative_counts:?}"),
            ),
        };
        let spans = |spans: &[corten_signal::metrics::Span]| {
            spans.iter().map(|s| format!("{}+{}", s.offset, s.length)).collect::<Vec<_>>().join(",")
        };
        format!(
            "h{} count={count} sum={} zero={zero}<={} pos=[{}]{positive} neg=[{}]{negative} custom={:?} {:?}",
            h.schema,
            h.sum,
            h.zero_threshold,
            spans(&h.positive_spans),
            spans(&h.negative_spans),
            h.custom_values,
            h.reset_hint
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_series_text_is_written_in_one_form() {
        for (name, suffix, labels, more, want) in [
            ("a", "", &[][..], None, "a "),
            ("a", "_sum", &[("b", "c")][..], None, r#"a_sum{b="c"} "#),
            ("a", "_bucket", &[("b", "c")][..], Some(("le", "+Inf")), r#"a_bucket{b="c",le="+Inf"} "#),
            ("a", "_bucket", &[][..], Some(("le", "1.0")), r#"a_bucket{le="1.0"} "#),
            ("a.b", "_sum", &[("c.d", "e\"\\\n")][..], None, r#"{"a.b_sum","c.d"="e\"\\\n"} "#),
            ("a\"b", "", &[][..], None, r#"{"a\"b"} "#),
        ] {
            let mut text = Vec::new();
            for (name, value) in labels {
                push_label_text(&mut text, name, value);
            }
            let mut series = SeriesText::default();
            series.write(name, suffix, &text, more);
            assert_eq!(String::from_utf8(series.text).unwrap(), want);
        }
    }

    #[test]
    fn help_has_other_escapes_than_a_label_value() {
        assert_eq!(unescape_help(r#"a\\b\n\"c\d"#), "a\\b\n\\\"c\\d");
        assert_eq!(unescape(r#"a\\b\n\"c\d"#), "a\\b\n\"c\\d");
    }

    #[test]
    fn exemplar_labels_are_read_sorted() {
        let read = |text: &str| read_exemplar_labels(text.as_bytes()).map_err(|e| e.to_string());
        assert_eq!(read("{}"), Ok(vec![]));
        assert_eq!(read(r#"{b="2",a="\"",}"#), Ok(vec![("a".into(), "\"".into()), ("b".into(), "2".into())]));
        assert_eq!(read(r#"{"x y"="1"}"#), Ok(vec![("x y".into(), "1".into())]));
        assert_eq!(read("{a}"), Err("expected equal while parsing: \"{a}\"".to_owned()));
        assert_eq!(read("{a=b}"), Err("expected label value while parsing: \"{a=b}\"".to_owned()));
        assert_eq!(read(""), Err("expected label name while parsing: \"\"".to_owned()));
    }

    #[test]
    fn an_exemplar_has_at_most_128_characters() {
        assert!(exemplar_fits([("ab", "ä".repeat(126).as_str())].into_iter()));
        assert!(!exemplar_fits([("ab", "x".repeat(127).as_str())].into_iter()));
    }

    proptest! {
        #[test]
        fn escaped_texts_are_read_back(text in "\\PC{0,40}|[\\\\\"\n]{0,9}") {
            let mut escaped = Vec::new();
            push_escaped(&mut escaped, &text);
            prop_assert_eq!(unescape(std::str::from_utf8(&escaped).unwrap()), text.as_str());
            let mut escaped = Vec::new();
            push_escaped_help(&mut escaped, &text);
            prop_assert_eq!(unescape_help(std::str::from_utf8(&escaped).unwrap()), text.as_str());
        }

        #[test]
        fn a_written_series_is_read_back(
            name in "[a-z.\"\\\\\n]{1,9}",
            labels in proptest::collection::vec(("[a-z.\"\\\\\n]{1,9}", "\\PC{0,9}|[\"\\\\\n]{0,4}"), 0..4),
        ) {
            let mut text = Vec::new();
            for (name, value) in &labels {
                push_label_text(&mut text, name, value);
            }
            let mut series = SeriesText::default();
            series.write(&name, "_x", &text, None);
            let mut builder = LabelsBuilder::new();
            read_series(&series.text[..series.text.len() - 1], MetricType::Unknown, &mut builder).unwrap();
            let back: Vec<(String, String)> = builder.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
            let mut want = vec![(METRIC_NAME.to_owned(), format!("{name}_x"))];
            want.extend(labels);
            prop_assert_eq!(back, want);
        }

        #[test]
        fn no_bytes_make_the_readers_panic(text: Vec<u8>) {
            let _ = read_series(&text, MetricType::Histogram, &mut LabelsBuilder::new());
            let _ = read_exemplar_labels(&text);
        }
    }
}
