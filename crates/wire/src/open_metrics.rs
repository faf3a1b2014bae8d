//! The OpenMetrics text format, versions 1.0.0 and 0.0.1.
//!
//! It is stricter than [the older text format](crate::text): blanks stand only where the format has them, there are no
//! empty lines, and a body ends with `# EOF`. Its times are seconds with a fraction.

use crate::exposition::{
    Lines, ParseError, Syntax, TextSink, error_at, family_name_len, is_name_byte, is_name_start, push_escaped_help,
    quoted_len, unescape, visit_series, without_quotes,
};
use crate::float::parse_value;
use corten_signal::labels::METRIC_NAME;
use corten_signal::metrics::MetricType;
use xxhash_rust::xxh3::Xxh3Default;

/// How many bytes of lines are held back until a start time comes, which stands behind what it is for. What is beyond has
/// no start time.
pub const HELD_BYTES_MAX: usize = 4 << 20;

/// Parses a body in pieces.
#[derive(Debug)]
pub struct OpenMetricsParser {
    lines: Lines,
    syntax: OpenMetricsSyntax,
    empty: bool,
}

impl OpenMetricsParser {
    /// A parser at the start of a body. With `start_timestamps`, the `_created` series of counters, histograms and
    /// summaries are no series but the start times of the series before them.
    pub fn new(start_timestamps: bool) -> Self {
        let syntax = OpenMetricsSyntax {
            line: 0,
            metric_type: MetricType::Unknown,
            family_len: 0,
            ended: false,
            start_timestamps,
            held: Held::default(),
            start: None,
            help: Vec::new(),
        };
        OpenMetricsParser { lines: Lines::default(), syntax, empty: true }
    }

    /// Takes the next piece of the body.
    ///
    /// # Errors
    ///
    /// Of the syntax, with the line, or of the sink. The parser is of no use afterwards.
    pub fn feed<S: TextSink>(&mut self, piece: &[u8], sink: &mut S) -> Result<(), S::Error> {
        self.empty &= piece.is_empty();
        self.lines.feed(piece, &mut self.syntax, sink)
    }

    /// Takes the end of the body. The last line must have been `# EOF`; a body without any byte is one without series,
    /// too, as a scrape counts it.
    ///
    /// # Errors
    ///
    /// As [`OpenMetricsParser::feed`].
    pub fn finish<S: TextSink>(&mut self, sink: &mut S) -> Result<(), S::Error> {
        if self.empty {
            return sink.end();
        }
        if let Some((line, number)) = self.lines.take_rest()
            && (self.syntax.ended || line == b"# EOF")
        {
            // No other line may lack its line break.
            self.syntax.line(&line, number, sink)?;
        }
        if !self.syntax.ended {
            let message = "data does not end with # EOF".to_owned();
            return Err(ParseError { line: self.lines.number(), message }.into());
        }
        sink.end()
    }
}

#[derive(Debug)]
struct OpenMetricsSyntax {
    line: u64,
    /// Positional: it holds until the next `# TYPE` line.
    metric_type: MetricType,
    /// How long the name of the family is that the last line about one named.
    family_len: usize,
    ended: bool,
    start_timestamps: bool,
    held: Held,
    /// The start time that came last, and the group that it is of: it holds for what follows, too.
    start: Option<(u64, i64)>,
    help: Vec<u8>,
}

/// Lines that wait for a start time.
#[derive(Debug, Default)]
struct Held {
    text: Vec<u8>,
    lines: Vec<HeldLine>,
}

#[derive(Debug)]
struct HeldLine {
    end: usize,
    number: u64,
    /// Which line with a start time it belongs to.
    group: u64,
}

impl Syntax for OpenMetricsSyntax {
    #[inline]
    fn steady_type(&self) -> Option<MetricType> {
        (!self.ended && !self.may_wait()).then_some(self.metric_type)
    }

    fn line<S: TextSink>(&mut self, line: &[u8], number: u64, sink: &mut S) -> Result<(), S::Error> {
        self.line = number;
        if self.ended {
            return Err(self.error("unexpected data after # EOF").into());
        }
        if line.first() == Some(&b'#') {
            self.release(sink)?;
            self.line = number;
            return self.comment(line, sink).map_err(S::Error::from);
        }
        if self.may_wait() { self.hold(line, sink) } else { self.sample(line, None, sink) }
    }
}

impl OpenMetricsSyntax {
    /// Whether series of this type can have a start time, and somebody wants it.
    #[inline]
    fn may_wait(&self) -> bool {
        let counts = matches!(self.metric_type, MetricType::Counter | MetricType::Histogram | MetricType::Summary);
        self.start_timestamps && counts
    }

    fn comment<S: TextSink>(&mut self, line: &[u8], sink: &mut S) -> Result<(), ParseError> {
        let body = line.strip_prefix(b"# ").ok_or_else(|| self.error_at("expected a valid start token", line))?;
        if let Some(rest) = body.strip_prefix(b"EOF") {
            self.ended = true;
            return if rest.is_empty() { Ok(()) } else { Err(self.error("unexpected data after # EOF")) };
        }
        let (keyword, rest) = ["HELP", "TYPE", "UNIT"]
            .into_iter()
            .find_map(|k| Some((k, body.strip_prefix(k.as_bytes())?.strip_prefix(b" ")?)))
            .ok_or_else(|| self.error_at("expected a valid start token", line))?;
        let name_len = family_name_len(rest)
            .ok_or_else(|| self.error_at(&format!("expected metric name after {keyword}"), line))?;
        let (name, rest) = rest.split_at(name_len);
        let name = without_quotes(name);
        self.family_len = name.len();
        let text = rest.strip_prefix(b" ").ok_or_else(|| self.error(&format!("expected text in {keyword}")))?;
        match keyword {
            "HELP" => self.help(name, text, sink),
            "TYPE" => {
                self.metric_type = metric_type(text)
                    .ok_or_else(|| self.error(&format!("invalid metric type {:?}", String::from_utf8_lossy(text))))?;
                sink.family_type(name, self.metric_type);
                Ok(())
            }
            _ => {
                let stem = name.strip_suffix(text);
                if !text.is_empty() && stem.is_none_or(|s| !s.ends_with(b"_")) {
                    let (unit, name) = (String::from_utf8_lossy(text), String::from_utf8_lossy(name));
                    return Err(self.error(&format!("unit {unit:?} not a suffix of metric {name:?}")));
                }
                sink.family_unit(name, text);
                Ok(())
            }
        }
    }

    fn help<S: TextSink>(&mut self, name: &[u8], text: &[u8], sink: &mut S) -> Result<(), ParseError> {
        let Ok(help) = std::str::from_utf8(text) else {
            let text = String::from_utf8_lossy(text);
            return Err(self.error(&format!("help text {text:?} is not a valid utf8 string")));
        };
        if !help.contains("\\\"") {
            sink.family_help(name, text);
            return Ok(());
        }
        // This format escapes quotes in a help text, too; a sink expects the escapes that the formats have in common.
        self.help.clear();
        push_escaped_help(&mut self.help, &unescape(help));
        sink.family_help(name, &self.help);
        Ok(())
    }

    fn sample<S: TextSink>(&mut self, line: &[u8], start_ms: Option<i64>, sink: &mut S) -> Result<(), S::Error> {
        let known = sink.recognise(line, self.metric_type);
        let len = match known {
            Some(len) => len,
            None => series_len(line).map_err(|message| self.error_at(message, line))?,
        };
        let (text, rest) = line.split_at(len);
        let point = read_point(rest).map_err(|message| self.error_at(&message, line))?;
        if known.is_none() {
            sink.series(text, self.metric_type)?;
        }
        if let Some(start_ms) = start_ms.filter(|s| *s != 0) {
            sink.start_timestamp(start_ms)?;
        }
        sink.sample(point.value, point.timestamp_ms)?;
        match point.exemplar {
            Some(e) => sink.exemplar(e.labels, e.value, e.timestamp_ms),
            None => Ok(()),
        }
    }

    /// Keeps a line until it is known whether a start time follows, or takes the start time that it brings.
    fn hold<S: TextSink>(&mut self, line: &[u8], sink: &mut S) -> Result<(), S::Error> {
        let len = series_len(line).map_err(|message| self.error_at(message, line))?;
        let (group, is_created) = self.group(&line[..len]).map_err(|e| ParseError { line: self.line, ..e })?;
        if is_created {
            let point = read_point(&line[len..]).map_err(|message| self.error_at(&message, line))?;
            self.start = Some((group, seconds_to_ms(point.value)));
            return self.release(sink);
        }
        if self.held.text.len() + line.len() > HELD_BYTES_MAX {
            let number = self.line;
            self.release(sink)?;
            self.line = number;
        }
        self.held.text.extend_from_slice(line);
        self.held.lines.push(HeldLine { end: self.held.text.len(), number: self.line, group });
        Ok(())
    }

    /// Which series share a start time: those with the name of the family and equal labels apart from the one that a
    /// part of a histogram or summary has. And whether this is the series of the start time.
    fn group(&self, series: &[u8]) -> Result<(u64, bool), ParseError> {
        let part = match self.metric_type {
            MetricType::Histogram => "le",
            MetricType::Summary => "quantile",
            _ => "",
        };
        let mut hasher = Xxh3Default::new();
        let mut is_created = false;
        visit_series(series, |name, value| {
            if name == METRIC_NAME {
                is_created = value.ends_with("_created");
                let stem = value.strip_suffix("_created");
                let family = stem.or_else(|| value.get(..self.family_len)).unwrap_or(&value);
                hasher.update(family.as_bytes());
                hasher.update(&[0xff]);
            } else if name != part {
                hasher.update(name.as_bytes());
                hasher.update(&[0xff]);
                hasher.update(value.as_bytes());
                hasher.update(&[0xff]);
            }
        })?;
        Ok((hasher.digest(), is_created))
    }

    /// Parses the lines that wait. Those of the group of the last start time get it.
    fn release<S: TextSink>(&mut self, sink: &mut S) -> Result<(), S::Error> {
        if self.held.lines.is_empty() {
            return Ok(());
        }
        let mut held = std::mem::take(&mut self.held);
        let mut from = 0;
        for line in &held.lines {
            self.line = line.number;
            let start_ms = self.start.filter(|(group, _)| *group == line.group).map(|(_, start_ms)| start_ms);
            self.sample(&held.text[from..line.end], start_ms, sink)?;
            from = line.end;
        }
        held.text.clear();
        held.lines.clear();
        self.held = held;
        Ok(())
    }

    #[cold]
    fn error(&self, message: &str) -> ParseError {
        ParseError { line: self.line, message: message.to_owned() }
    }

    #[cold]
    fn error_at(&self, message: &str, line: &[u8]) -> ParseError {
        error_at(self.line, message, line)
    }
}

fn metric_type(text: &[u8]) -> Option<MetricType> {
    Some(match text {
        b"counter" => MetricType::Counter,
        b"gauge" => MetricType::Gauge,
        b"histogram" => MetricType::Histogram,
        b"gaugehistogram" => MetricType::GaugeHistogram,
        b"summary" => MetricType::Summary,
        b"info" => MetricType::Info,
        b"stateset" => MetricType::StateSet,
        b"unknown" => MetricType::Unknown,
        _ => return None,
    })
}

/// What follows a series in its line.
struct Point<'a> {
    value: f64,
    timestamp_ms: Option<i64>,
    exemplar: Option<ExemplarText<'a>>,
}

struct ExemplarText<'a> {
    labels: &'a [u8],
    value: f64,
    timestamp_ms: Option<i64>,
}

fn read_point(rest: &[u8]) -> Result<Point<'_>, String> {
    let (value, rest) = read_number(rest).ok_or("expected value after metric")?;
    let value = value?;
    let (timestamp_ms, rest) = read_time(rest, "timestamp")?;
    let exemplar = match rest.strip_prefix(b" # ") {
        Some(rest) if rest.first() == Some(&b'{') => Some(read_exemplar(rest)?),
        _ if rest.is_empty() => None,
        _ if timestamp_ms.is_some() => return Err("expected next entry after timestamp".to_owned()),
        _ => return Err("expected timestamp or new record".to_owned()),
    };
    Ok(Point { value, timestamp_ms, exemplar })
}

fn read_exemplar(text: &[u8]) -> Result<ExemplarText<'_>, String> {
    let len = labels_len(text, None)?;
    let (labels, rest) = text.split_at(len);
    if std::str::from_utf8(labels).is_err() {
        return Err("invalid UTF-8 label value".to_owned());
    }
    let (value, rest) = read_number(rest).ok_or("expected value after exemplar labels")?;
    let value = value?;
    let (timestamp_ms, rest) = read_time(rest, "exemplar timestamp")?;
    match (rest, timestamp_ms) {
        (b"", _) => Ok(ExemplarText { labels, value, timestamp_ms }),
        (_, Some(_)) => Err("expected next entry after exemplar timestamp".to_owned()),
        (_, None) => Err("expected timestamp or comment".to_owned()),
    }
}

/// A number behind one space: (number, what follows).
fn read_number(text: &[u8]) -> Option<(Result<f64, String>, &[u8])> {
    let text = text.strip_prefix(b" ")?;
    let len = text.iter().position(|b| *b == b' ').unwrap_or(text.len());
    let (number, rest) = text.split_at(len);
    let invalid = || format!("parsing {:?}: invalid syntax", String::from_utf8_lossy(number));
    (len > 0).then(|| (parse_value(number).ok_or_else(invalid), rest))
}

/// A time behind one space, if there is one: (milliseconds, what follows).
fn read_time<'a>(text: &'a [u8], what: &str) -> Result<(Option<i64>, &'a [u8]), String> {
    if text.starts_with(b" # {") {
        return Ok((None, text));
    }
    let Some((seconds, rest)) = read_number(text) else {
        return Ok((None, text));
    };
    let seconds = seconds?;
    if !seconds.is_finite() {
        let shown = if seconds.is_nan() {
            "NaN"
        } else if seconds > 0.0 {
            "+Inf"
        } else {
            "-Inf"
        };
        return Err(format!("invalid {what} {shown}"));
    }
    Ok((Some(seconds_to_ms(seconds)), rest))
}

/// Fractions of a millisecond are cut off; what is out of range becomes the bound of the range.
fn seconds_to_ms(seconds: f64) -> i64 {
    (seconds * 1000.0) as i64
}

/// The length of a series' text at the start of a line: its name and what stands in braces.
fn series_len(line: &[u8]) -> Result<usize, &'static str> {
    let name = match line.first() {
        Some(byte) if is_name_start(*byte) => line.iter().take_while(|b| is_name_byte(**b)).count(),
        Some(b'{') => 0,
        _ => return Err("expected a valid start token"),
    };
    if line.get(name) != Some(&b'{') {
        return Ok(name);
    }
    Ok(name + labels_len(&line[name..], Some(name > 0))?)
}

/// The length of labels in braces at the start of the text. `has_name` says whether the series has a name already;
/// there is none among the labels of an exemplar.
fn labels_len(text: &[u8], has_name: Option<bool>) -> Result<usize, &'static str> {
    let mut has_name_now = has_name;
    let mut at = 1;
    loop {
        let rest = &text[at..];
        let quoted = match rest.first() {
            Some(b'}') => {
                at += 1;
                break;
            }
            Some(b'"') => true,
            Some(byte) if is_name_start(*byte) && *byte != b':' => false,
            _ => return Err("expected label name"),
        };
        at += if quoted {
            quoted_len(rest).ok_or("expected label name")?
        } else {
            rest.iter().take_while(|b| is_name_byte(**b) && **b != b':').count()
        };
        let next = text.get(at).copied();
        if quoted && matches!(next, Some(b',' | b'}')) {
            match has_name_now {
                None => return Err("expected label name"),
                Some(true) => return Err("metric name already set"),
                Some(false) => has_name_now = Some(true),
            }
            at += usize::from(next == Some(b','));
            continue;
        }
        if next != Some(b'=') {
            return Err("expected equal");
        }
        at += 1;
        if text.get(at) != Some(&b'"') {
            return Err("expected label value");
        }
        at += quoted_len(&text[at..]).ok_or("expected label value")?;
        match text.get(at) {
            Some(b',') => at += 1,
            Some(b'}') => {}
            _ => return Err("expected comma or brace close"),
        }
    }
    if has_name_now == Some(false) { Err("metric name not set") } else { Ok(at) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::testing::Record;
    use proptest::prelude::*;

    fn parse_in_pieces(body: &[u8], piece: usize, start_timestamps: bool, sink: &mut Record) -> Result<(), ParseError> {
        let mut parser = OpenMetricsParser::new(start_timestamps);
        for piece in body.chunks(piece.max(1)) {
            parser.feed(piece, sink)?;
        }
        parser.finish(sink)
    }

    fn parse(body: &str, start_timestamps: bool) -> Result<Vec<String>, String> {
        let mut sink = Record::default();
        parse_in_pieces(body.as_bytes(), usize::MAX, start_timestamps, &mut sink).map_err(|e| e.to_string())?;
        assert_eq!(sink.lines.pop().as_deref(), Some("end"));
        Ok(sink.lines)
    }

    #[test]
    fn lines_of_the_format_are_read() {
        for (body, want) in [
            ("", vec![]),
            ("# EOF", vec![]),
            ("# EOF\n", vec![]),
            ("a 1\n# EOF\n", vec!["__name__=a 1"]),
            ("a{} 1\n# EOF", vec!["__name__=a 1"]),
            ("a{b=\"c\",} +Inf\n# EOF\n", vec!["__name__=a b=c inf"]),
            ("a{b=\"c\",d=\"e\"} -1e3 1.5\n# EOF\n", vec!["__name__=a b=c d=e -1000 @1500"]),
            ("a 1 -1.0015\n# EOF\n", vec!["__name__=a 1 @-1001"]),
            ("a 1 1520879607.789\n# EOF\n", vec!["__name__=a 1 @1520879607789"]),
            ("a 1 1e-3\n# EOF\n", vec!["__name__=a 1 @1"]),
            ("a{b=\"x\\\"\\\\\\n \"} NaN\n# EOF\n", vec!["__name__=a b=x\"\\\n  NaN"]),
            ("{\"a.b\",\"c d\"=\"e\"} 1\n# EOF\n", vec!["__name__=a.b c d=e 1"]),
            ("{b=\"c\",\"a.b\"} 1\n# EOF\n", vec!["b=c __name__=a.b 1"]),
            ("{\"a\"} 1 # {} 2\n# EOF\n", vec!["__name__=a 1", "exemplar {} 2"]),
        ] {
            assert_eq!(parse(body, false), Ok(want.into_iter().map(str::to_owned).collect()), "{body:?}");
        }
    }

    #[test]
    fn families_are_described() {
        let body = "# HELP a_seconds x\\\\y \\\"z\\\" \\n\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\n\
                    # HELP b \n# TYPE \"c.d\" stateset\n# UNIT e \n# TYPE f info\n# TYPE g gaugehistogram\n# TYPE h unknown\n# EOF\n";
        let want = [
            "help a_seconds x\\\\y \"z\" \\n",
            "type a_seconds counter",
            "unit a_seconds seconds",
            "help b ",
            "type c.d stateset",
            "unit e ",
            "type f info",
            "type g gaugehistogram",
            "type h unknown",
        ];
        assert_eq!(parse(body, false), Ok(want.map(str::to_owned).to_vec()));
    }

    #[test]
    fn floats_in_labels_are_normalised() {
        let body = "# TYPE h histogram\nh_bucket{le=\"1\"} 1\n# TYPE s summary\ns{quantile=\"1\"} 2\n# TYPE g gaugehistogram\ng_bucket{le=\"1\"} 3\n# EOF\n";
        let lines: Vec<_> = parse(body, false).unwrap().into_iter().filter(|l| !l.starts_with("type")).collect();
        assert_eq!(lines, ["__name__=h_bucket le=1.0 1", "__name__=s quantile=1.0 2", "__name__=g_bucket le=1 3"]);
    }

    #[test]
    fn an_exemplar_follows_its_sample() {
        for (rest, want) in [
            ("1 # {a=\"b\"} 2", vec!["__name__=x 1", "exemplar {a=b} 2"]),
            ("1 # {a=\"b\"} 2 3.5", vec!["__name__=x 1", "exemplar {a=b} 2 @3500"]),
            ("1 4 # {a=\"b\",c=\"d\",} 2 -3", vec!["__name__=x 1 @4000", "exemplar {a=b c=d} 2 @-3000"]),
            ("1 # {} NaN 0", vec!["__name__=x 1", "exemplar {} NaN @0"]),
            ("1 # {\"a b\"=\"c # {\"} 2", vec!["__name__=x 1", "exemplar {a b=c # {} 2"]),
        ] {
            let body = format!("x {rest}\n# EOF\n");
            assert_eq!(parse(&body, false), Ok(want.into_iter().map(str::to_owned).collect()), "{rest}");
        }
    }

    #[test]
    fn a_broken_line_is_named() {
        for (body, want) in [
            ("\n", r#"line 1: expected a valid start token while parsing: """#),
            ("a 1\n\n# EOF\n", r#"line 2: expected a valid start token while parsing: """#),
            ("a 1\n", "line 1: data does not end with # EOF"),
            ("a 1", "line 1: data does not end with # EOF"),
            ("a", "line 1: data does not end with # EOF"),
            ("\n\n#EOF", r#"line 1: expected a valid start token while parsing: """#),
            ("# EOF\na 1\n", "line 2: unexpected data after # EOF"),
            ("# EOF\n\n", "line 2: unexpected data after # EOF"),
            ("# EOF\n# EOF", "line 2: unexpected data after # EOF"),
            ("# EOFx\n", "line 1: unexpected data after # EOF"),
            ("# a comment\n# EOF\n", r##"line 1: expected a valid start token while parsing: "# a comment""##),
            ("#TYPE a gauge\n", r##"line 1: expected a valid start token while parsing: "#TYPE a gauge""##),
            ("#  TYPE a gauge\n", r##"line 1: expected a valid start token while parsing: "#  TYPE a gauge""##),
            ("# TYPE  a gauge\n", r##"line 1: expected metric name after TYPE while parsing: "# TYPE  a gauge""##),
            ("# TYPE 9 gauge\n", r##"line 1: expected metric name after TYPE while parsing: "# TYPE 9 gauge""##),
            ("# TYPE a\n", "line 1: expected text in TYPE"),
            ("# HELP a\n", "line 1: expected text in HELP"),
            ("# UNIT a\n", "line 1: expected text in UNIT"),
            ("# TYPE a-b gauge\n", "line 1: expected text in TYPE"),
            ("# TYPE a untyped\n", r#"line 1: invalid metric type "untyped""#),
            ("# TYPE a counter \n", r#"line 1: invalid metric type "counter ""#),
            ("# UNIT a_b seconds\n", r#"line 1: unit "seconds" not a suffix of metric "a_b""#),
            ("# UNIT seconds seconds\n", r#"line 1: unit "seconds" not a suffix of metric "seconds""#),
            ("# UNIT aseconds seconds\n", r#"line 1: unit "seconds" not a suffix of metric "aseconds""#),
            (" a 1\n", r#"line 1: expected a valid start token while parsing: " a 1""#),
            ("9a 1\n", r#"line 1: expected a valid start token while parsing: "9a 1""#),
            ("a\n", r#"line 1: expected value after metric while parsing: "a""#),
            ("a  1\n", r#"line 1: expected value after metric while parsing: "a  1""#),
            ("a\t1\n", r#"line 1: expected value after metric while parsing: "a\t1""#),
            ("a {b=\"c\"} 1\n", r#"line 1: parsing "{b=\"c\"}": invalid syntax while parsing: "a {b=\"c\"} 1""#),
            ("a 1 \n", r#"line 1: expected timestamp or new record while parsing: "a 1 ""#),
            ("a 1 2 3\n", r#"line 1: expected next entry after timestamp while parsing: "a 1 2 3""#),
            ("a 1 x\n", r#"line 1: parsing "x": invalid syntax while parsing: "a 1 x""#),
            ("a 1 NaN\n", r#"line 1: invalid timestamp NaN while parsing: "a 1 NaN""#),
            ("a 1 -Inf\n", r#"line 1: invalid timestamp -Inf while parsing: "a 1 -Inf""#),
            ("a 0x1p4\n", r#"line 1: parsing "0x1p4": invalid syntax while parsing: "a 0x1p4""#),
            ("a 1_0\n", r#"line 1: parsing "1_0": invalid syntax while parsing: "a 1_0""#),
            ("a 1 #\n", r##"line 1: parsing "#": invalid syntax while parsing: "a 1 #""##),
            ("a 1 # {a=\"b\"}\n", r##"line 1: expected value after exemplar labels while parsing: "a 1 # {a=\"b\"}""##),
            (
                "a 1 # {a=\"b\"} 1 NaN\n",
                r##"line 1: invalid exemplar timestamp NaN while parsing: "a 1 # {a=\"b\"} 1 NaN""##,
            ),
            (
                "a 1 # {a=\"b\"} 1 +Inf\n",
                r##"line 1: invalid exemplar timestamp +Inf while parsing: "a 1 # {a=\"b\"} 1 +Inf""##,
            ),
            (
                "a 1 # {a=\"b\"} 1 2 3\n",
                r##"line 1: expected next entry after exemplar timestamp while parsing: "a 1 # {a=\"b\"} 1 2 3""##,
            ),
            ("a 1 # {a=\"b\"} 1 \n", r##"line 1: expected timestamp or comment while parsing: "a 1 # {a=\"b\"} 1 ""##),
            ("a 1 # {\"b\"} 1\n", r##"line 1: expected label name while parsing: "a 1 # {\"b\"} 1""##),
            ("a 1 # {b=c} 1\n", r##"line 1: expected label value while parsing: "a 1 # {b=c} 1""##),
            ("a{ b=\"c\"} 1\n", r#"line 1: expected label name while parsing: "a{ b=\"c\"} 1""#),
            ("a{b=\"c\" } 1\n", r#"line 1: expected comma or brace close while parsing: "a{b=\"c\" } 1""#),
            ("a{b=\"c\"d=\"e\"} 1\n", r#"line 1: expected comma or brace close while parsing: "a{b=\"c\"d=\"e\"} 1""#),
            ("a{b=\"c\",,} 1\n", r#"line 1: expected label name while parsing: "a{b=\"c\",,} 1""#),
            ("a{b:c=\"c\"} 1\n", r#"line 1: expected equal while parsing: "a{b:c=\"c\"} 1""#),
            ("a{b=\"c} 1\n", r#"line 1: expected label value while parsing: "a{b=\"c} 1""#),
            ("a{b} 1\n", r#"line 1: expected equal while parsing: "a{b} 1""#),
            ("a{\"b\"} 1\n", r#"line 1: metric name already set while parsing: "a{\"b\"} 1""#),
            ("{b=\"c\"} 1\n", r#"line 1: metric name not set while parsing: "{b=\"c\"} 1""#),
            ("{} 1\n", r#"line 1: metric name not set while parsing: "{} 1""#),
        ] {
            assert_eq!(parse(body, false), Err(want.to_owned()), "{body:?}");
        }
    }

    #[test]
    fn texts_must_be_utf8() {
        for (body, want) in [
            (&b"# HELP a \xff\n"[..], "line 1: help text \"\u{fffd}\" is not a valid utf8 string"),
            (
                b"a 1 # {b=\"\xff\"} 1\n",
                "line 1: invalid UTF-8 label value while parsing: \"a 1 # {b=\\\"\u{fffd}\\\"} 1\"",
            ),
            (b"a{b=\"\xff\"} 1\n", "invalid UTF-8 label value while parsing: \"a{b=\\\"\u{fffd}\\\"}\""),
        ] {
            let error = parse_in_pieces(body, usize::MAX, false, &mut Record::default()).unwrap_err();
            assert_eq!(error.to_string(), want);
        }
    }

    #[test]
    fn created_series_are_series_unless_start_times_are_wanted() {
        let body = "# TYPE a counter\na_total 1\na_created 1520872607.123\n# EOF\n";
        let lines = parse(body, false).unwrap();
        assert_eq!(lines, ["type a counter", "__name__=a_total 1", "__name__=a_created 1520872607.123"]);
        assert_eq!(parse(body, true).unwrap(), ["type a counter", "start 1520872607123", "__name__=a_total 1"]);
    }

    #[test]
    fn a_start_time_belongs_to_the_series_of_its_group() {
        for (body, want) in [
            // One created line for each label set.
            (
                "# TYPE a counter\na_total{b=\"1\"} 1\na_created{b=\"1\"} 5\na_total{b=\"2\"} 2\na_created{b=\"2\"} 6\n",
                vec!["start 5000", "__name__=a_total b=1 1", "start 6000", "__name__=a_total b=2 2"],
            ),
            // The created lines behind all: only the group that is looked for first finds its own.
            (
                "# TYPE a counter\na_total{b=\"1\"} 1\na_total{b=\"2\"} 2\na_created{b=\"1\"} 5\na_created{b=\"2\"} 6\n",
                vec!["start 5000", "__name__=a_total b=1 1", "__name__=a_total b=2 2"],
            ),
            // Parts of histograms and summaries share one, whatever their bucket or quantile.
            (
                "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2 # {a=\"b\"} 3\nh_sum 3\nh_count 4\nh_created 7\n",
                vec![
                    "start 7000",
                    "__name__=h_bucket le=1.0 1",
                    "start 7000",
                    "__name__=h_bucket le=+Inf 2",
                    "exemplar {a=b} 3",
                    "start 7000",
                    "__name__=h_sum 3",
                    "start 7000",
                    "__name__=h_count 4",
                ],
            ),
            (
                "# TYPE s summary\ns{quantile=\"0.5\"} 1\ns_sum 3\ns_created 7\n",
                vec!["start 7000", "__name__=s quantile=0.5 1", "start 7000", "__name__=s_sum 3"],
            ),
            // What follows the created line belongs to it as well.
            (
                "# TYPE h histogram\nh_count 4\nh_created 7\nh_bucket{le=\"+Inf\"} 2\n",
                vec!["start 7000", "__name__=h_count 4", "start 7000", "__name__=h_bucket le=+Inf 2"],
            ),
            // A gauge has none: the series stays.
            ("# TYPE g gauge\ng 1\ng_created 7\n", vec!["__name__=g 1", "__name__=g_created 7"]),
            // Of another family.
            ("# TYPE a counter\na_total 1\nb_created 7\n", vec!["__name__=a_total 1"]),
            // None before the family ends.
            ("# TYPE a counter\na_total 1\n# TYPE b counter\nb_created 7\n", vec!["__name__=a_total 1"]),
            // A start time of 0 is none.
            ("# TYPE a counter\na_total 1\na_created 0\n", vec!["__name__=a_total 1"]),
            (
                "# TYPE \"a.b\" counter\n{\"a.b_total\",c=\"d\"} 1\n{\"a.b_created\",c=\"d\"} 2\n",
                vec!["start 2000", "__name__=a.b_total c=d 1"],
            ),
        ] {
            let lines = parse(&format!("{body}# EOF\n"), true).unwrap();
            let lines: Vec<_> = lines.into_iter().filter(|l| !l.starts_with("type")).collect();
            assert_eq!(lines, want, "{body}");
        }
    }

    #[test]
    fn an_error_in_a_line_that_waited_names_that_line() {
        let body = "# TYPE a counter\na_total x\na_total 1\na_created 2\n# EOF\n";
        assert_eq!(
            parse(body, true),
            Err(r#"line 2: parsing "x": invalid syntax while parsing: "a_total x""#.to_owned())
        );
    }

    #[test]
    fn what_waits_for_a_start_time_is_bounded() {
        let value = "x".repeat(LINE_BYTES_MAX_TEST);
        let body =
            format!("# TYPE a counter\n{}a_created 5\n# EOF\n", format!("a_total{{b=\"{value}\"}} 1\n").repeat(50));
        let lines = parse(&body, true).unwrap();
        assert_eq!(lines.len(), 51);
        assert!(lines.iter().all(|l| !l.starts_with("start")));
    }

    const LINE_BYTES_MAX_TEST: usize = 200_000;

    #[test]
    fn a_known_series_is_not_read_again() {
        let body = "# TYPE a counter\na_total{b=\"c\"} 1\na_total{b=\"d\"} 2 # {e=\"f\"} 3\na_total 1 5\n# EOF\n";
        let mut sink = Record { remembers: true, ..Record::default() };
        parse_in_pieces(body.as_bytes(), usize::MAX, false, &mut sink).unwrap();
        let first = std::mem::take(&mut sink.lines);
        assert_eq!(sink.unknown, 3);
        parse_in_pieces(body.as_bytes(), 7, false, &mut sink).unwrap();
        assert_eq!((sink.unknown, &sink.lines), (3, &first));
    }

    const LINE: &str = "([a-c]{1,2}(\\{([a-c]=\"[a-c\\\\\\\\]{0,3}\",?){0,2}\\})? [0-9.]{1,3}( [0-9]{1,2})?( # \\{\\} 1)?|# (TYPE|HELP|UNIT) [a-c]{1,2} (counter|histogram|x|)|[\\PC]{0,9}|[abc]_created 1)\n";

    proptest! {
        #[test]
        fn pieces_make_no_difference(lines in proptest::collection::vec(LINE, 0..8), piece in 1usize..20, starts: bool) {
            let body = lines.concat() + "# EOF\n";
            let (mut whole, mut pieces) = (Record::default(), Record::default());
            let want = parse_in_pieces(body.as_bytes(), usize::MAX, starts, &mut whole);
            let got = parse_in_pieces(body.as_bytes(), piece, starts, &mut pieces);
            prop_assert_eq!(got, want);
            prop_assert_eq!(pieces.lines, whole.lines);
        }

        #[test]
        fn no_bytes_make_it_panic(body: Vec<u8>, piece in 1usize..50, starts: bool) {
            let _ = parse_in_pieces(&body, piece, starts, &mut Record::default());
        }
    }
}
