//! From messages to entries.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use corten_component::Stop;
use corten_signal::{EntriesBuilder, LabelsBuilder};
use corten_wire::syslog::frame::{Frame, FrameError, Framer, Framing};
use corten_wire::syslog::{Message, facility, raw, rfc3164, rfc5424, severity};

use super::super::http::now_ns;
use super::super::outlet::hand_on;
use super::{Format, ListenerArguments, ListenerInfo, Settings, Shared};
use crate::dropped::{Drops, Why};

/// How messages of a listener are read.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    format: Format,
    labels: Vec<(String, String)>,
    pub(super) bytes_max: usize,
    delimiter: u8,
    cisco: rfc3164::Options,
    label_structured_data: bool,
    use_incoming_timestamp: bool,
    use_rfc5424_message: bool,
    allow_empty: bool,
    default_to_current_year: bool,
}

impl Reading {
    pub(super) fn new(arguments: &ListenerArguments) -> Self {
        const BYTES_DEFAULT: usize = 8192;
        let cisco = arguments.rfc3164_cisco_components.as_ref();
        let cisco = cisco.map_or_else(Default::default, |cisco| rfc3164::Options {
            message_counter: cisco.enable_all || cisco.message_counter,
            sequence_number: cisco.enable_all || cisco.sequence_number,
            hostname: cisco.enable_all || cisco.hostname,
            second_fractions: cisco.enable_all || cisco.second_fractions,
            line_ends: false,
        });
        let raw = arguments.raw_format_options.as_ref();
        Reading {
            format: arguments.syslog_format,
            labels: arguments.labels.clone().into_iter().collect(),
            bytes_max: usize::try_from(arguments.max_message_length)
                .ok()
                .filter(|max| *max > 0)
                .unwrap_or(BYTES_DEFAULT),
            delimiter: if raw.is_some_and(|raw| raw.use_null_terminator_delimiter) { 0 } else { b'\n' },
            cisco,
            label_structured_data: arguments.label_structured_data,
            use_incoming_timestamp: arguments.use_incoming_timestamp,
            use_rfc5424_message: arguments.use_rfc5424_message,
            allow_empty: arguments.rfc5424_allow_empty_msg,
            default_to_current_year: arguments.rfc3164_default_to_current_year,
        }
    }

    /// What tells the messages of a connection or a packet apart.
    pub(super) fn framer(&self) -> Framer {
        Framer::new(match self.format {
            Format::Raw => Framing::Raw { delimiter: self.delimiter },
            Format::Rfc5424 | Format::Rfc3164 => Framing::Syslog { counted_bytes_max: self.bytes_max },
        })
    }
}

/// Who sends messages.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    pub(super) address: String,
    /// The names of its host, joined by commas.
    pub(super) hostname: String,
}

/// Why a message is dropped that has no text.
const EMPTY: Why = Why::Is("empty message");

/// Collects the entries of a connection.
pub(super) struct Intake {
    shared: Arc<Shared>,
    settings: Arc<Settings>,
    reading: Arc<Reading>,
    info: Arc<ListenerInfo>,
    /// What went wrong last, until it is told.
    problem: Option<String>,
    builder: EntriesBuilder,
    drops: Drops,
    labels: LabelsBuilder,
    text: String,
    /// Stands still in tests.
    clock: Box<dyn Fn() -> i64 + Send>,
}

impl Intake {
    pub(super) fn new(shared: Arc<Shared>, reading: Arc<Reading>, info: Arc<ListenerInfo>) -> Self {
        Intake {
            settings: shared.settings(),
            shared,
            reading,
            info,
            problem: None,
            builder: EntriesBuilder::new(),
            drops: Drops::default(),
            labels: LabelsBuilder::new(),
            text: String::new(),
            clock: Box::new(now_ns),
        }
    }

    /// Whether enough was collected.
    pub(super) fn is_full(&self) -> bool {
        self.builder.is_full()
    }

    /// Counts a stream whose messages cannot be told apart.
    pub(super) fn broken(&mut self, error: FrameError) {
        match error {
            // As in the reference, which reads nothing of such a stream.
            FrameError::Unknown(_) => {
                self.shared.complaints.warn("error initializing syslog stream", &error.to_string(), 1)
            }
            _ => self.refuse(&error.to_string()),
        }
    }

    fn refuse(&mut self, error: &str) {
        self.shared.metrics.parsing_errors.inc();
        self.drops.add(Why::PARSE_ERROR, 1);
        self.problem = Some(error.to_owned());
        self.shared.complaints.warn("error parsing syslog stream", error, 1);
    }

    /// Takes a message.
    pub(super) fn take(&mut self, framer: &Framer, frame: &Frame, sender: &Sender) {
        let bytes = framer.bytes(frame);
        let reading = Arc::clone(&self.reading);
        let parsed = match reading.format {
            Format::Rfc5424 => rfc5424::parse(bytes),
            // The reference reads a text that has no length to its first line end only, and loses the rest.
            Format::Rfc3164 => {
                let bytes = bytes.strip_suffix(b"\n").map_or(bytes, |bytes| bytes.strip_suffix(b"\r").unwrap_or(bytes));
                rfc3164::parse(bytes, &rfc3164::Options { line_ends: true, ..reading.cisco })
            }
            Format::Raw => {
                let bytes = if frame.counted { bytes } else { raw::trim(bytes) };
                if bytes.is_empty() {
                    return;
                }
                let (priority, text) = raw::parse(bytes);
                Ok(Message { priority, text: Some(text).filter(|text| !text.is_empty()), ..Message::default() })
            }
        };
        match parsed {
            Ok(message) => self.push(&reading, &message, sender),
            Err(error) => self.refuse(&error.to_string()),
        }
    }

    fn push(&mut self, reading: &Reading, message: &Message<'_>, sender: &Sender) {
        if message.text.is_none() {
            self.shared.metrics.empty_messages.inc();
            if !reading.allow_empty {
                return self.drops.add(EMPTY, 1);
            }
        }
        self.set_labels(reading, message, sender);
        let stream = match self.settings.labels.stream(&mut self.labels, &[]) {
            Ok(Ok(stream)) => stream,
            Ok(Err(why)) => return self.drops.add(why, 1),
            Err(error) => return self.refuse(&error.to_string()),
        };
        let now = (self.clock)();
        let stamp = message.timestamp.filter(|_| reading.use_incoming_timestamp);
        let timestamp_ns = stamp.map_or(now, |stamp| {
            let is_dated = !(reading.format == Format::Rfc3164 && reading.default_to_current_year);
            let stamp = if is_dated { stamp } else { stamp.in_year_near(now.div_euclid(1_000_000_000)) };
            stamp.unix_ns()
        });
        let whole = if reading.use_rfc5424_message { message.to_rfc5424() } else { None };
        let line = whole.as_deref().or(message.text).unwrap_or_default();
        let part = self.builder.stream(&stream);
        let line = self.builder.own(line);
        self.builder.push(part, timestamp_ns, line);
    }

    fn set_labels(&mut self, reading: &Reading, message: &Message<'_>, sender: &Sender) {
        let Self { labels, text, .. } = self;
        labels.clear();
        let mut set = |name: &str, value: &str| {
            if !value.is_empty() {
                labels.push(name, value);
            }
        };
        for (name, value) in reading.labels.iter().filter(|(name, _)| !name.starts_with("__syslog_")) {
            set(name, value);
        }
        set("__syslog_connection_ip_address", &sender.address);
        set("__syslog_connection_hostname", &sender.hostname);
        if let Some(priority) = message.priority {
            set("__syslog_message_severity", severity(priority));
            set("__syslog_message_facility", facility(priority));
        }
        for (name, value) in [
            ("__syslog_message_hostname", message.hostname),
            ("__syslog_message_app_name", message.app_name),
            ("__syslog_message_proc_id", message.proc_id),
            ("__syslog_message_msg_id", message.msg_id),
        ] {
            set(name, &lossy(value.unwrap_or_default()));
        }
        for (name, value) in
            [("__syslog_message_msg_counter", message.message_counter), ("__syslog_message_sequence", message.sequence)]
        {
            if let Some(value) = value {
                text.clear();
                let _ = write!(text, "{value}");
                set(name, text);
            }
        }
        if let Some(elements) = message.structured_data.as_ref().filter(|_| reading.label_structured_data) {
            for (id, parameters) in elements {
                for (name, value) in parameters {
                    let id = lossy(id).replace('@', "_");
                    let name = format!("__syslog_message_sd_{id}_{}", lossy(name));
                    // Ids that differ in a character that labels do not have: the last counts.
                    labels.remove(&name);
                    if !value.is_empty() {
                        labels.push(&name, &lossy(value));
                    }
                }
            }
        }
    }

    /// Hands on what was collected; whether it was taken.
    pub(super) async fn hand_on(&mut self, stop: &mut Stop) -> bool {
        self.tell();
        if self.builder.is_empty() {
            return true;
        }
        let entries = self.builder.finish((self.clock)() / 1_000_000);
        let count = entries.len() as u64;
        let shared = &self.shared;
        let taken = hand_on(entries, || shared.settings().forward.clone(), stop, &shared.complaints, &shared.row).await;
        if taken {
            shared.metrics.entries.add(count);
        }
        self.settings = self.shared.settings();
        taken
    }

    /// Counts what was dropped, and says what went wrong.
    fn tell(&mut self) {
        self.drops.count(&self.shared.row, self.settings.labels.rules());
        if let Some(problem) = self.problem.take() {
            self.info.last_error.note(&problem);
        }
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        self.tell();
    }
}

fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use corten_component::Logger;
    use corten_component::listen::Complaints;
    use corten_component::log::LogSink;
    use corten_component::metrics::Registry;
    use corten_config::StringEnum as _;
    use corten_signal::relabel::{Action, RelabelRules, Rule};
    use corten_signal::{Fanout, Ledger, Logs};
    use corten_wire::syslog::Stamp;
    use parking_lot::Mutex;
    use serde_json::Value;

    use super::super::super::{OnDrop, SourceLabels};
    use super::super::{CiscoComponents, Metrics, RawFormatOptions};
    use super::*;

    fn shared() -> Arc<Shared> {
        // Labels show only without the underscores.
        let rule = Rule {
            action: Action::LabelMap,
            regex: "__(syslog_.+)".into(),
            replacement: "$1".to_owned(),
            ..Rule::default()
        };
        let settings = Settings {
            labels: SourceLabels::new(&RelabelRules([rule].into()), OnDrop::GoOn, false).unwrap(),
            wants_names: false,
            forward: Fanout::new([]),
        };
        Arc::new(Shared {
            settings: Mutex::new(Arc::new(settings)),
            metrics: Metrics::new(&Registry::new()),
            complaints: Complaints::new(Logger::new(LogSink::memory().0)),
            row: Arc::clone(Ledger::new("loki.source.syslog.a").row_of::<Logs>()),
            started: Default::default(),
            troubles: Mutex::default(),
            infos: Mutex::default(),
            report: Box::new(|_| {}),
        })
    }

    fn info() -> Arc<ListenerInfo> {
        Arc::new(ListenerInfo {
            protocol: "tcp".to_owned(),
            address: Mutex::default(),
            labels: String::new(),
            is_ready: Default::default(),
            connections: Default::default(),
            last_error: Default::default(),
        })
    }

    fn bytes(value: &Value) -> Vec<u8> {
        match value {
            Value::String(text) => text.clone().into_bytes(),
            other => STANDARD.decode(other["b64"].as_str().unwrap()).unwrap(),
        }
    }

    fn arguments(case: &Value) -> ListenerArguments {
        let options = &case["options"];
        let flag = |name: &str| options[name] == true;
        let cisco = options["cisco"].as_object().map(|cisco| {
            let flag = |name: &str| cisco.get(name).is_some_and(|value| *value == true);
            CiscoComponents {
                enable_all: false,
                message_counter: flag("message_counter"),
                sequence_number: flag("sequence_number"),
                hostname: flag("hostname"),
                second_fractions: flag("second_fractions"),
            }
        });
        ListenerArguments {
            address: String::new(),
            protocol: "tcp".to_owned(),
            idle_timeout: Default::default(),
            label_structured_data: flag("label_structured_data"),
            labels: BTreeMap::new(),
            max_message_length: options["max_message_length"].as_i64().unwrap_or(8192),
            syslog_format: Format::parse(case["format"].as_str().unwrap()).unwrap(),
            rfc3164_default_to_current_year: flag("rfc3164_default_to_current_year"),
            rfc5424_allow_empty_msg: flag("rfc5424_allow_empty_msg"),
            udp_queue_size: 0,
            udp_host_cache_size: 0,
            use_incoming_timestamp: flag("use_incoming_timestamp"),
            use_rfc5424_message: flag("use_rfc5424_message"),
            raw_format_options: Some(RawFormatOptions { use_null_terminator_delimiter: flag("null_terminator") }),
            rfc3164_cisco_components: cisco,
            tls_config: None,
        }
    }

    #[test]
    fn streams_become_the_entries_that_the_reference_makes_of_them() {
        let recorded: Value = serde_json::from_str(include_str!("../../../tests/data/syslog.json")).unwrap();
        let cases = recorded["cases"].as_array().unwrap();
        assert!(cases.len() > 1_900);
        assert_eq!(cases.iter().filter(|case| case.get("differs").is_some()).count(), 31);
        let mut differences = Vec::new();
        for case in cases {
            let input = bytes(&case["input"]);
            let shared = shared();
            let mut intake = Intake::new(Arc::clone(&shared), Arc::new(Reading::new(&arguments(case))), info());
            // Most were recorded at one time, and those that are about years at others.
            let now = case["now"].as_str().or(recorded["now"].as_str()).unwrap();
            let now = Stamp::parse_rfc3339(now.as_bytes()).unwrap().unix_ns();
            intake.clock = Box::new(move || now);
            let sender = Sender { address: String::new(), hostname: String::new() };
            let mut framer = intake.reading.framer();
            framer.feed(&input);
            let mut broken = false;
            let mut got = Vec::new();
            let mut show = |intake: &mut Intake| {
                let entries = intake.builder.finish(0);
                for (stream, list) in entries.parts() {
                    for entry in list {
                        got.push((stream.canonical(), entry.timestamp_ns, entries.line(entry).to_vec()));
                    }
                }
            };
            while let Some(frame) = framer.next_frame() {
                match frame {
                    Ok(frame) => intake.take(&framer, &frame, &sender),
                    Err(error) => {
                        broken = true;
                        intake.broken(error);
                    }
                }
                show(&mut intake);
            }
            let (frames, error) = framer.finish();
            for frame in &frames {
                intake.take(&framer, frame, &sender);
                show(&mut intake);
            }
            if let Some(error) = error.filter(|_| !broken) {
                intake.broken(error);
            }
            // Where that loses nothing, it is not as the reference does.
            let output = case.get("ours").unwrap_or(&case["output"]);
            let want: Vec<_> = output["entries"]
                .as_array()
                .unwrap()
                .iter()
                .map(|entry| {
                    let labels = entry["labels"].as_object().unwrap().iter();
                    let labels = labels.map(|(name, value)| {
                        (name.trim_start_matches('_').to_owned(), String::from_utf8_lossy(&bytes(value)).into_owned())
                    });
                    let labels: Vec<(String, String)> = labels.collect();
                    let stream = corten_signal::Stream::of(labels.iter().map(|(name, value)| (&**name, &**value)));
                    // What no 64 bits hold is the nearest time that they do.
                    let beyond = || if entry["sec"].as_i64() < Some(0) { i64::MIN } else { i64::MAX };
                    let time = entry["ns"].as_i64().unwrap_or_else(beyond);
                    (stream.unwrap().canonical(), time, bytes(&entry["line"]))
                })
                .collect();
            let counts = |name: &str| match &output[name] {
                // A line end after the last message is no error here.
                Value::Array(list) => {
                    list.iter().filter(|error| *error != "found EOF, expecting a MSGLEN").count() as u64
                }
                value => value.as_u64().unwrap_or(0),
            };
            let mut got = (got, shared.metrics.parsing_errors.get(), shared.metrics.empty_messages.get());
            let mut want = (want, counts("errors"), counts("empty"));
            if case["options"]["null_terminator"] == true {
                // The reference leaves the zero byte that ends a line in it.
                for (entries, _, empty) in [&mut got, &mut want] {
                    for (_, _, line) in entries.iter_mut() {
                        *line = raw::trim(line.strip_suffix(b"\0").unwrap_or(line)).to_vec();
                    }
                    entries.retain(|(_, _, line)| !line.is_empty());
                    *empty = 0;
                }
            }
            if got != want {
                differences.push(format!("{case}\n   got {got:?}"));
            }
        }
        let shown: Vec<_> = differences.iter().take(15).map(|text| &text[..text.floor_char_boundary(900)]).collect();
        assert!(differences.is_empty(), "{} of {} differ:\n{}", differences.len(), cases.len(), shown.join("\n"));
    }
}
