//! The program's own log.
//!
//! A line has a time, a level, a message, the fields of the logger's context and those of the call, in this order. Lines
//! that are written before the `logging` block was evaluated are kept, and filtered by its level once it is known.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::secrets::SecretBook;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For whoever looks for a fault.
    Debug,
    /// What happened.
    Info,
    /// What somebody should look at.
    Warn,
    /// What failed.
    Error,
}

impl Level {
    /// The name in a line.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        }
    }
}

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Format {
    /// `key=value` pairs.
    #[default]
    Logfmt,
    /// One JSON object a line.
    Json,
}

/// The value of a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Field {
    /// Text.
    Text(String),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A span of time: text in logfmt, nanoseconds in JSON.
    Duration(Duration),
}

impl From<&str> for Field {
    fn from(value: &str) -> Self {
        Field::Text(value.to_owned())
    }
}

impl From<String> for Field {
    fn from(value: String) -> Self {
        Field::Text(value)
    }
}

impl From<&String> for Field {
    fn from(value: &String) -> Self {
        Field::Text(value.clone())
    }
}

impl From<bool> for Field {
    fn from(value: bool) -> Self {
        Field::Bool(value)
    }
}

impl From<f64> for Field {
    fn from(value: f64) -> Self {
        Field::Float(value)
    }
}

impl From<Duration> for Field {
    fn from(value: Duration) -> Self {
        Field::Duration(value)
    }
}

macro_rules! from_integers {
    ($($integer:ty),*) => {
        $(impl From<$integer> for Field {
            fn from(value: $integer) -> Self {
                i64::try_from(value).map_or_else(|_| Field::Text(value.to_string()), Field::Int)
            }
        })*
    };
}

from_integers!(i32, i64, u16, u32, u64, usize);

/// Where the lines of all loggers go.
#[derive(Debug)]
pub struct LogSink(Mutex<SinkState>);

#[derive(Debug)]
struct SinkState {
    format: Format,
    level: Level,
    /// The lines that wait for the level, until it is known.
    waiting: Option<Vec<Line>>,
    /// Whether level and format do not change any more.
    settled: bool,
    output: Output,
    tee: Option<Arc<dyn Tee>>,
    listener: Option<Arc<dyn Tee>>,
    secrets: Option<Arc<SecretBook>>,
}

/// Gets each line that is written, besides the output of the sink.
pub trait Tee: Send + Sync + std::fmt::Debug + 'static {
    /// Takes a line. Must not block, and must not log.
    fn line(&self, line: &TeeLine<'_>);
}

/// A line as a [`Tee`] gets it.
#[derive(Clone, Copy, Debug)]
pub struct TeeLine<'a> {
    /// When it was written.
    pub time: SystemTime,
    /// The component that wrote it, if it was one.
    pub component: Option<&'a str>,
    /// What it says, without its fields.
    pub message: &'a str,
    /// All of it, with the newline at its end.
    pub text: &'a str,
}

#[derive(Debug)]
enum Output {
    StandardError,
    Memory(Arc<Mutex<Vec<u8>>>),
}

#[derive(Debug)]
struct Line {
    time: SystemTime,
    level: Level,
    message: String,
    fields: Vec<(String, Field)>,
}

/// Fields that say who writes a line. They are never masked: a password may be `prometheus`.
const WRITERS: &[&str] =
    &["component_id", "component_path", "controller_id", "controller_path", "node_id", "service", "taskID"];

impl Line {
    /// Masks what somebody else has said, who may repeat the secrets that he was sent.
    fn mask(&mut self, secrets: &SecretBook) {
        secrets.redact(&mut self.message);
        for (name, value) in &mut self.fields {
            if let Field::Text(text) = value
                && !WRITERS.contains(&name.as_str())
            {
                secrets.redact(text);
            }
        }
    }
}

/// The most lines that wait for the level.
const WAITING_MAX: usize = 10_000;

impl LogSink {
    /// A sink on standard error that keeps its lines until [`LogSink::configure`] is called.
    pub fn standard_error() -> Arc<Self> {
        Arc::new(LogSink(Mutex::new(SinkState {
            format: Format::default(),
            level: Level::Info,
            waiting: Some(Vec::new()),
            settled: false,
            output: Output::StandardError,
            tee: None,
            listener: None,
            secrets: None,
        })))
    }

    /// A sink that collects its lines, for tests.
    pub fn memory() -> (Arc<Self>, Arc<Mutex<Vec<u8>>>) {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let output = Output::Memory(Arc::clone(&lines));
        let (format, level) = (Format::default(), Level::Debug);
        let state = SinkState {
            format,
            level,
            waiting: None,
            settled: false,
            output,
            tee: None,
            listener: None,
            secrets: None,
        };
        (Arc::new(LogSink(Mutex::new(state))), lines)
    }

    /// Sets level and format, and writes the lines that waited for them.
    pub fn configure(&self, level: Level, format: Format) {
        let mut state = self.0.lock();
        if state.settled {
            return;
        }
        state.level = level;
        state.format = format;
        for line in state.waiting.take().unwrap_or_default() {
            state.write(line);
        }
    }

    /// Masks these secrets, and what looks like one, in the lines from now on.
    pub fn mask(&self, secrets: Arc<SecretBook>) {
        self.0.lock().secrets = Some(secrets);
    }

    /// Has somebody else get each line as well, from the next one on, or nobody any more.
    pub fn tee(&self, tee: Option<Arc<dyn Tee>>) {
        self.0.lock().tee = tee;
    }

    /// As [`LogSink::tee`], for somebody who listens for a while and whom no configuration names.
    pub fn listen(&self, listener: Option<Arc<dyn Tee>>) {
        self.0.lock().listener = listener;
    }

    /// As [`LogSink::configure`] with the defaults, if nobody has configured the sink yet.
    pub fn configure_if_waiting(&self) {
        if self.0.lock().waiting.is_some() {
            self.configure(Level::Info, Format::default());
        }
    }

    /// Throws away the lines that wait for the level.
    pub fn discard_waiting(&self) {
        self.0.lock().waiting = None;
    }

    /// Keeps level and format from here on: a process that ends goes on as it was configured, although the block that
    /// configured it ends with the rest.
    pub fn settle(&self) {
        self.0.lock().settled = true;
    }

    fn log(&self, line: Line) {
        let mut state = self.0.lock();
        match &mut state.waiting {
            Some(waiting) if waiting.len() < WAITING_MAX => waiting.push(line),
            Some(_) => {}
            None => state.write(line),
        }
    }

    fn takes(&self, level: Level) -> bool {
        let state = self.0.lock();
        state.waiting.is_some() || level >= state.level
    }
}

impl SinkState {
    fn write(&mut self, mut line: Line) {
        if line.level < self.level {
            return;
        }
        if let Some(secrets) = &self.secrets {
            line.mask(secrets);
        }
        let line = &line;
        let text = match self.format {
            Format::Logfmt => logfmt(line),
            Format::Json => json(line),
        };
        match &self.output {
            // Nobody can be told that standard error is gone.
            Output::StandardError => drop(std::io::stderr().lock().write_all(text.as_bytes())),
            Output::Memory(lines) => lines.lock().extend_from_slice(text.as_bytes()),
        }
        if self.tee.is_some() || self.listener.is_some() {
            let component = line.fields.iter().find_map(|(name, value)| match value {
                Field::Text(id) if name == "component_id" => Some(id.as_str()),
                _ => None,
            });
            let line = TeeLine { time: line.time, component, message: &line.message, text: &text };
            for tee in self.tee.iter().chain(&self.listener) {
                tee.line(&line);
            }
        }
    }
}

/// Writes lines with a context.
#[derive(Clone, Debug)]
pub struct Logger {
    sink: Arc<LogSink>,
    context: Arc<[(String, Field)]>,
}

impl Logger {
    /// A logger without context.
    pub fn new(sink: Arc<LogSink>) -> Self {
        Logger { sink, context: Arc::from([]) }
    }

    /// Where its lines go.
    pub fn sink(&self) -> &Arc<LogSink> {
        &self.sink
    }

    /// A logger whose lines have further fields.
    pub fn with(&self, fields: &[(&str, &str)]) -> Self {
        let further = fields.iter().map(|(key, value)| ((*key).to_owned(), Field::from(*value)));
        Logger { sink: Arc::clone(&self.sink), context: self.context.iter().cloned().chain(further).collect() }
    }

    /// Whether a line of this level would be written.
    pub fn takes(&self, level: Level) -> bool {
        self.sink.takes(level)
    }

    /// Writes a line.
    pub fn log(&self, level: Level, message: &str, fields: &[(&str, Field)]) {
        if !self.takes(level) {
            return;
        }
        let fields = fields.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
        let fields = self.context.iter().cloned().chain(fields).collect();
        self.sink.log(Line { time: SystemTime::now(), level, message: message.to_owned(), fields });
    }

    /// Writes a line for whoever looks for a fault.
    pub fn debug(&self, message: &str, fields: &[(&str, Field)]) {
        self.log(Level::Debug, message, fields);
    }

    /// Writes what happened.
    pub fn info(&self, message: &str, fields: &[(&str, Field)]) {
        self.log(Level::Info, message, fields);
    }

    /// Writes what somebody should look at.
    pub fn warn(&self, message: &str, fields: &[(&str, Field)]) {
        self.log(Level::Warn, message, fields);
    }

    /// Writes what failed.
    pub fn error(&self, message: &str, fields: &[(&str, Field)]) {
        self.log(Level::Error, message, fields);
    }
}

fn logfmt(line: &Line) -> String {
    let mut out = String::with_capacity(128);
    let _ = write!(out, "ts={} level={}", rfc3339(line.time), line.level.as_str());
    if !line.message.is_empty() {
        out.push_str(" msg=");
        push_logfmt_value(&mut out, &line.message);
    }
    for (key, value) in &line.fields {
        out.push(' ');
        out.extend(key.chars().map(|c| if c <= ' ' || matches!(c, '=' | '"' | '\u{7f}') { '_' } else { c }));
        out.push('=');
        match value {
            Field::Text(text) => push_logfmt_value(&mut out, text),
            Field::Int(number) => drop(write!(out, "{number}")),
            Field::Float(number) => drop(write!(out, "{number}")),
            Field::Bool(truth) => drop(write!(out, "{truth}")),
            Field::Duration(duration) => {
                let nanoseconds = i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
                out.push_str(&corten_config::duration::format(nanoseconds));
            }
        }
    }
    out.push('\n');
    out
}

fn push_logfmt_value(out: &mut String, value: &str) {
    let plain =
        !value.is_empty() && value.chars().all(|c| c > ' ' && !matches!(c, '"' | '=' | '\u{7f}') && !c.is_control());
    if plain {
        out.push_str(value);
    } else {
        out.push_str(&corten_syntax::quote(value));
    }
}

fn json(line: &Line) -> String {
    let mut out = String::with_capacity(128);
    let _ = write!(out, "{{\"ts\":\"{}\",\"level\":\"{}\"", rfc3339(line.time), line.level.as_str());
    if !line.message.is_empty() {
        out.push_str(",\"msg\":");
        push_json_string(&mut out, &line.message);
    }
    for (key, value) in &line.fields {
        out.push(',');
        push_json_string(&mut out, key);
        out.push(':');
        match value {
            Field::Text(text) => push_json_string(&mut out, text),
            Field::Int(number) => drop(write!(out, "{number}")),
            Field::Float(number) if number.is_finite() => drop(write!(out, "{number}")),
            Field::Float(number) => push_json_string(&mut out, &number.to_string()),
            Field::Bool(truth) => drop(write!(out, "{truth}")),
            Field::Duration(duration) => drop(write!(out, "{}", duration.as_nanos())),
        }
    }
    out.push_str("}\n");
    out
}

fn push_json_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' || c == '\u{2028}' || c == '\u{2029}' => drop(write!(out, "\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// A time in UTC as RFC 3339 writes it, with nanoseconds, without zeros at their end.
pub fn rfc3339(time: SystemTime) -> String {
    let nanos = match time.duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_nanos() as i128,
        Err(before) => -(before.duration().as_nanos() as i128),
    };
    let (seconds, nanos) = (nanos.div_euclid(1_000_000_000) as i64, nanos.rem_euclid(1_000_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil_from_days(days);
    let mut out =
        format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60);
    if nanos > 0 {
        let fraction = format!(".{nanos:09}");
        out.push_str(fraction.trim_end_matches('0'));
    }
    out.push('Z');
    out
}

/// The date of a day, counted from the Unix epoch, in the Gregorian calendar. Years begin in March here, so that the leap
/// day is the last of its year.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message: &str, fields: &[(&str, Field)]) -> Line {
        Line {
            time: UNIX_EPOCH + Duration::new(1_767_323_045, 123_450_000),
            level: Level::Info,
            message: message.into(),
            fields: fields.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect(),
        }
    }

    #[test]
    fn lines_are_written_as_specified() {
        let line = line(
            "now listening for \"http\" traffic",
            &[
                ("service", "http".into()),
                ("addr", "127.0.0.1:12345".into()),
                ("empty", "".into()),
                ("a key", "<é>\n".into()),
                ("took", Duration::from_millis(1500).into()),
                ("count", 3u64.into()),
            ],
        );
        assert_eq!(
            logfmt(&line),
            "ts=2026-01-02T03:04:05.12345Z level=info msg=\"now listening for \\\"http\\\" traffic\" service=http \
             addr=127.0.0.1:12345 empty=\"\" a_key=\"<é>\\n\" took=1.5s count=3\n"
        );
        assert_eq!(
            json(&line),
            "{\"ts\":\"2026-01-02T03:04:05.12345Z\",\"level\":\"info\",\
             \"msg\":\"now listening for \\\"http\\\" traffic\",\"service\":\"http\",\"addr\":\"127.0.0.1:12345\",\
             \"empty\":\"\",\"a key\":\"<é>\\n\",\"took\":1500000000,\"count\":3}\n"
        );
    }

    #[test]
    fn a_line_without_message_has_none() {
        assert_eq!(logfmt(&line("", &[])), "ts=2026-01-02T03:04:05.12345Z level=info\n");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, want) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)), want);
        }
    }

    #[test]
    fn lines_wait_for_the_level_and_are_filtered_by_it() {
        let (sink, lines) = LogSink::memory();
        sink.0.lock().waiting = Some(Vec::new());
        let logger = Logger::new(Arc::clone(&sink)).with(&[("service", "x")]);
        logger.debug("quiet", &[]);
        logger.info("loud", &[]);
        assert!(lines.lock().is_empty());
        sink.configure(Level::Info, Format::Json);
        let text = String::from_utf8(lines.lock().clone()).unwrap();
        assert!(text.contains("\"msg\":\"loud\",\"service\":\"x\"") && !text.contains("quiet"), "{text}");
    }

    #[test]
    fn secrets_are_masked_in_whatever_a_line_says_but_not_in_who_says_it() {
        let book = Arc::new(SecretBook::default());
        book.set(["prometheus".into(), "pa\"ss\nword".into()]);
        for format in [Format::Logfmt, Format::Json] {
            let (sink, lines) = LogSink::memory();
            sink.configure(Level::Info, format);
            sink.mask(Arc::clone(&book));
            let logger =
                Logger::new(sink).with(&[("component_id", "prometheus.scrape.a"), ("url", "http://u:hush@h/")]);
            logger.warn(
                "got pa\"ss\nword",
                &[
                    (
                        "err",
                        "401: you sent Authorization: Basic dTpwYXNzd29yZA== for {\"p\":\"pa\\\"ss\\nword\"}".into(),
                    ),
                    ("count", 1.into()),
                ],
            );
            let text = String::from_utf8(lines.lock().clone()).unwrap();
            for secret in ["ss\\nword", "dTpwYXNz", "hush"] {
                assert!(!text.contains(secret), "{text}");
            }
            assert!(text.contains("prometheus.scrape.a") && text.matches("(secret)").count() == 4, "{text}");
        }
    }

    #[test]
    fn a_sink_that_is_settled_keeps_level_and_format() {
        let (sink, lines) = LogSink::memory();
        sink.configure(Level::Debug, Format::Json);
        sink.settle();
        sink.configure(Level::Error, Format::Logfmt);
        Logger::new(Arc::clone(&sink)).info("last words", &[]);
        assert!(String::from_utf8(lines.lock().clone()).unwrap().contains("\"msg\":\"last words\""));
    }
}
