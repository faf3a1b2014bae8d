//! Sources and clients that are not ours: rsyslog, and graypy, a Python library for GELF.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use corten_component::Definition;
use corten_config::decode::Decode as _;
use corten_loki::COMPONENTS;
use corten_signal::relabel::{Action, RelabelRules, Rule};
use corten_testkit::peers::{Peer, Running, peer, say};
use corten_testkit::{LogLine, LogsSink, Unit, host, until, until_some};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::{Map, Value};

/// A source of ours, and what it received.
struct Source {
    unit: Unit,
    sink: LogsSink,
    port: String,
}

impl Source {
    /// Starts the component with these arguments; internal labels of this prefix become labels. `listens` is what it logs
    /// when it does.
    async fn start(name: &str, prefix: &str, listens: &str, body: &str) -> Self {
        let definition = COMPONENTS.iter().find(|definition: &&Definition| definition.name == name).unwrap();
        let rule = Rule {
            action: Action::LabelMap,
            regex: format!("{prefix}(.+)").as_str().into(),
            replacement: "$1".to_owned(),
            ..Rule::default()
        };
        let sink = LogsSink::default();
        let names = [("sink", sink.value()), ("rules", RelabelRules([rule].into()).to_value())];
        let body = format!("forward_to = [sink]\nrelabel_rules = rules\n{body}");
        let unit = Unit::start_with(host(&format!("{name}.a")), definition, &body, &names).await.unwrap();
        let port = until_some("it listens", || {
            let logs = unit.world.logs();
            let line = logs.lines().find(|line| line.contains(listens))?;
            let address = line.split(" addr=").nth(1)?.split_whitespace().next()?.trim_matches('"').to_owned();
            Some(address.rsplit_once(':')?.1.to_owned())
        })
        .await;
        Source { unit, sink, port }
    }

    /// Waits until it received so many entries in all.
    async fn received(&self, count: usize) {
        let what = format!("there are {count} entries, {}", self.unit.world.logs());
        until(&what, || self.sink.len() >= count).await;
    }

    /// What it received, once everything has come.
    async fn all(mut self) -> Vec<LogLine> {
        self.unit.drain().await;
        self.unit.world.balance();
        self.sink.lines()
    }
}

fn microseconds_now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64
}

/// A time in microseconds as RFC 3339 has it, in UTC.
fn rfc3339(time_us: i64) -> String {
    let seconds = time_us.div_euclid(1_000_000);
    let (day, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since the epoch to a date of the Gregorian calendar, whose years begin with March here.
    let days = day + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let (date, month) = (day_of_year - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z", time_us.rem_euclid(1_000_000))
}

/// A time as RFC 3164 has it, of one as RFC 3339 has it.
fn rfc3164(time: &str) -> String {
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month: usize = time[5..7].parse().unwrap();
    let day: usize = time[8..10].parse().unwrap();
    format!("{} {day:2} {}", months[month - 1], &time[11..19])
}

/// Messages that are sent, and how many at a time: no more than what fits in the buffer of a socket.
const MESSAGES: usize = 400;
const AT_A_TIME: usize = 40;

/// What a message says.
struct Message {
    number: usize,
    time_us: i64,
    text: String,
}

const SEVERITIES: [&str; 8] =
    ["emergency", "alert", "critical", "error", "warning", "notice", "informational", "debug"];

impl Message {
    fn of(number: usize, start_us: i64) -> Self {
        let text = match number % 8 {
            0 => "plain".to_owned(),
            1 => "grüße, 日本語 🚀".to_owned(),
            2 => "[not structured] \"data\" <13>1 a]b\\c".to_owned(),
            3 => "x".repeat(7000),
            4 => "a\ttab and  two spaces".to_owned(),
            5 => "first line\n\tat second line\nthird".to_owned(),
            6 => "{\"level\":\"info\",\"n\":1}".to_owned(),
            _ => "100% #1: 12 <a> %s $!msg".to_owned(),
        };
        Message { number, time_us: start_us + number as i64 * 1001, text: format!("{number} {text}") }
    }

    fn priority(&self) -> usize {
        // Of `local0` and all severities.
        16 * 8 + self.number % 8
    }

    /// As a program writes it to a socket of rsyslog.
    fn wire(&self, is_5424: bool) -> String {
        let Message { number, time_us, text } = self;
        let (priority, host, app, time) = (self.priority(), number % 3, number % 5, rfc3339(*time_us));
        if !is_5424 {
            return format!("<{priority}>{} host{host} app{app}[{number}]: {text}", rfc3164(&time));
        }
        let data = format!("[ex@32473 n=\"{number}\" q=\"a\\\"b\\\\c\\]d\"]");
        format!("<{priority}>1 {time} host{host} app{app} {number} M{number} {data} {text}")
    }

    fn labels(&self, more: &[(&str, &str)]) -> String {
        let number = self.number;
        let (app, host, id) = (format!("app{}", number % 5), format!("host{}", number % 3), number.to_string());
        let own = [("app_name", &*app), ("facility", "local0"), ("hostname", &*host), ("proc_id", &*id)];
        let severity = [("severity", SEVERITIES[number % 8])];
        let all: BTreeMap<_, _> = own.iter().chain(&severity).chain(more).copied().collect();
        let all: Vec<String> = all.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        format!("{{{}}}", all.join(", "))
    }

    /// What arrives by RFC 5424: everything.
    fn after_5424(&self) -> LogLine {
        let id = format!("M{}", self.number);
        let number = self.number.to_string();
        let more = [("msg_id", &*id), ("sd_ex_32473_n", &*number), ("sd_ex_32473_q", "a\"b\\c]d")];
        self.line(&more, self.time_us * 1000)
    }

    /// What arrives by RFC 3164: no more than it has.
    fn after_3164(&self) -> LogLine {
        self.line(&[], self.time_us.div_euclid(1_000_000) * 1_000_000_000)
    }

    fn line(&self, more: &[(&str, &str)], timestamp_ns: i64) -> LogLine {
        LogLine { stream: self.labels(more), timestamp_ns, line: self.text.clone(), metadata: Vec::new() }
    }
}

/// A way to a listener: its name, how rsyslog sends, the format, and how we listen.
struct Way {
    name: &'static str,
    action: &'static str,
    is_5424: bool,
    listener: &'static str,
    /// rsyslog's format ends with a line end. Where the length of a message is announced, that is text, as with the reference.
    ends_in_text: bool,
}

const UDP: &str = "protocol=\"udp\"";
const LINES: &str = "protocol=\"tcp\" TCP_Framing=\"traditional\"";
const COUNTED: &str = "protocol=\"tcp\" TCP_Framing=\"octet-counted\"";
const TLS: &str = "protocol=\"tcp\" TCP_Framing=\"octet-counted\" StreamDriver=\"ossl\" StreamDriverMode=\"1\" \
                   StreamDriverAuthMode=\"x509/name\" StreamDriverPermittedPeers=\"localhost\"";
const TLS_LINES: &str = "protocol=\"tcp\" TCP_Framing=\"traditional\" StreamDriver=\"ossl\" StreamDriverMode=\"1\" \
                         StreamDriverAuthMode=\"x509/name\" StreamDriverPermittedPeers=\"localhost\"";

const WAYS: [Way; 8] = [
    Way { name: "new over UDP", action: UDP, is_5424: true, listener: "udp", ends_in_text: false },
    Way { name: "old over UDP", action: UDP, is_5424: false, listener: "udp", ends_in_text: false },
    Way { name: "new in lines", action: LINES, is_5424: true, listener: "tcp", ends_in_text: false },
    Way { name: "old in lines", action: LINES, is_5424: false, listener: "tcp", ends_in_text: false },
    Way { name: "new with lengths", action: COUNTED, is_5424: true, listener: "tcp", ends_in_text: true },
    Way { name: "old with lengths", action: COUNTED, is_5424: false, listener: "tcp", ends_in_text: false },
    Way { name: "new over TLS", action: TLS, is_5424: true, listener: "tls", ends_in_text: true },
    Way { name: "old over TLS", action: TLS_LINES, is_5424: false, listener: "tls", ends_in_text: false },
];

/// Writes an authority, a certificate for `localhost` that it signed, and the key of that.
fn write_certificates(folder: &Path) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // A certificate that is named as its issuer counts as one that signed itself.
    authority.distinguished_name.push(DnType::CommonName, "authority");
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    for (name, text) in [("ca", authority.pem()), ("cert", leaf.pem()), ("key", key.serialize_pem())] {
        fs::write(folder.join(format!("{name}.pem")), text).unwrap();
    }
}

async fn listen(way: &Way, folder: &Path) -> Source {
    let format = if way.is_5424 {
        "label_structured_data = true"
    } else {
        "syslog_format = \"rfc3164\"\nrfc3164_default_to_current_year = true"
    };
    let file = |name: &str| format!("{name}_file = {:?}", folder.join(format!("{name}.pem")));
    let more = match way.listener {
        "udp" => "protocol = \"udp\"".to_owned(),
        // With an authority, clients have to show a certificate.
        "tls" => format!("tls_config {{\n{}\n{}\n{}\n}}", file("ca"), file("cert"), file("key")),
        _ => String::new(),
    };
    let body = format!("listener {{\naddress = \"127.0.0.1:0\"\nuse_incoming_timestamp = true\n{format}\n{more}\n}}");
    Source::start("loki.source.syslog", "__syslog_message_", "syslog listening on address", &body).await
}

/// Starts an rsyslog that reads two sockets in the folder, one for each format, and sends each message along all ways of
/// its format.
fn start_rsyslog(rsyslog: &Peer, folder: &Path, sources: &[Source]) -> Running {
    let at = |name: &str| folder.join(name).display().to_string();
    let mut config = format!(
        "global(workDirectory=\"{}\" maxMessageSize=\"64k\" parser.escapeControlCharactersOnReceive=\"off\" \
         defaultNetstreamDriverCAFile=\"{}\" defaultNetstreamDriverCertFile=\"{}\" defaultNetstreamDriverKeyFile=\"{}\")\n\
         module(load=\"imuxsock\" SysSock.Use=\"off\")\n\
",
        folder.display(),
        at("ca.pem"),
        at("cert.pem"),
        at("key.pem"),
    );
    for (is_5424, name, template) in
        [(true, "new", "RSYSLOG_SyslogProtocol23Format"), (false, "old", "RSYSLOG_TraditionalForwardFormat")]
    {
        config += &format!(
            "input(type=\"imuxsock\" Socket=\"{}\" Ruleset=\"{name}\" UseSpecialParser=\"off\" ParseHostname=\"on\" \
             IgnoreTimestamp=\"off\" UseSysTimeStamp=\"off\" RateLimit.Interval=\"0\")\nruleset(name=\"{name}\") {{\n",
            at(name)
        );
        for (way, source) in WAYS.iter().zip(sources).filter(|(way, _)| way.is_5424 == is_5424) {
            let (action, port) = (way.action, &source.port);
            config += &format!(
                "action(type=\"omfwd\" target=\"127.0.0.1\" port=\"{port}\" template=\"{template}\" {action})\n"
            );
        }
        config += "}\n";
    }
    fs::write(folder.join("rsyslog.conf"), config).unwrap();
    let modules: Vec<String> =
        rsyslog.library_folders("rsyslog").iter().map(|path| path.display().to_string()).collect();
    let log = File::create(folder.join("log")).unwrap();
    let mut command = rsyslog.command();
    command.args(["-n", "-M", &modules.join(":"), "-i", &at("pid"), "-f", &at("rsyslog.conf")]);
    command.stdout(log.try_clone().unwrap()).stderr(log);
    Running::start(&mut command)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rsyslog_sends_arrives_once_with_its_fields_along_all_ways() {
    let Some(rsyslog) = peer(env!("CARGO_TARGET_TMPDIR"), "rsyslog") else { return };
    let folder = tempfile::tempdir().unwrap();
    write_certificates(folder.path());
    let mut sources = Vec::new();
    for way in &WAYS {
        sources.push(listen(way, folder.path()).await);
    }
    let mut running = start_rsyslog(&rsyslog, folder.path(), &sources);
    let log = || fs::read_to_string(folder.path().join("log")).unwrap_or_default();
    let sockets = until_some("rsyslog reads its sockets", || {
        let ended = running.0.try_wait().unwrap();
        assert!(ended.is_none(), "rsyslog ended with {ended:?}: {}", log());
        let socket = |name: &str| {
            let socket = UnixDatagram::unbound().unwrap();
            socket.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
            socket.connect(folder.path().join(name)).ok().map(|()| socket)
        };
        Some([socket("old")?, socket("new")?])
    })
    .await;
    let start_us = microseconds_now();
    let messages: Vec<Message> = (0..MESSAGES).map(|number| Message::of(number, start_us)).collect();
    for (index, some) in messages.chunks(AT_A_TIME).enumerate() {
        for message in some {
            for (is_5424, socket) in [false, true].into_iter().zip(&sockets) {
                socket.send(message.wire(is_5424).as_bytes()).unwrap();
            }
        }
        for source in &sources {
            source.received(index * AT_A_TIME + some.len()).await;
        }
    }
    drop(running);
    for (way, source) in WAYS.iter().zip(sources) {
        let wanted: Vec<LogLine> = messages
            .iter()
            .map(|message| if way.is_5424 { message.after_5424() } else { message.after_3164() })
            .map(|line| if way.ends_in_text { LogLine { line: line.line + "\n", ..line } } else { line })
            .collect();
        let found = source.all().await;
        let differ = found.iter().zip(&wanted).position(|(found, wanted)| found != wanted);
        if let Some(at) = differ {
            panic!("{}: entry {at} is {:?}, not {:?}; {}", way.name, found[at], wanted[at], log());
        }
        assert_eq!(found.len(), wanted.len(), "{}", way.name);
    }
}

/// Sends as many messages as it is told on each line that it reads, and writes what it sent, as graypy makes it.
const GELF_SENDER: &str = r#"
import json, logging, random, sys
sys.path.insert(0, sys.argv[1])
import graypy
from graypy.handler import GELFWarningChunker
handlers = [
    graypy.GELFUDPHandler("127.0.0.1", int(sys.argv[2]), localname="box", compress=compress, level_names=names,
                          facility=facility, debugging_fields=names, gelf_chunker=GELFWarningChunker(size))
    for compress, names, facility, size in [
        (True, False, None, 1420), (False, False, "web", 1420), (True, True, None, 8154), (False, False, None, 256),
    ]
]
random.seed(7)
number = 0
for line in sys.stdin:
    for _ in range(int(line)):
        handler = handlers[number % len(handlers)]
        text = [
            "plain", "grüße, 日本語 🚀", "<a href=\"x\">&amp;</a>\u2028", "again and " * 2000, "line\nline\ttab\0nul",
            "".join(chr(random.randrange(33, 127)) for _ in range(20000)), "",
        ][number % 7]
        level = [logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL][number % 5]
        record = logging.LogRecord("py.app", level, "app.py", number, "%d: %s", (number, text), None)
        record.n, record.part, record.ratio, record.deep = number, "p" * (number % 50), number / 7, {"a": [1, None]}
        made = handler._make_gelf_dict(record)
        handler.handle(record)
        # As it packs it.
        print(handler._pack_gelf_dict(made).decode(), flush=True)
        number += 1
"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_graypy_sends_arrives_once_with_its_fields_in_chunks_and_compressed() {
    let Some(graypy) = peer(env!("CARGO_TARGET_TMPDIR"), "graypy") else { return };
    let packages = graypy.path.ancestors().nth(2).unwrap();
    let body = "listen_address = \"127.0.0.1:0\"\nuse_incoming_timestamp = true";
    let source = Source::start("loki.source.gelf", "__gelf_message_", "listening for GELF UDP messages", body).await;
    let mut command = Command::new("python3");
    command.args(["-c", GELF_SENDER]).arg(packages).arg(&source.port).env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("PYTHONIOENCODING", "utf-8").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut running = match command.spawn() {
        Ok(child) => Running(child),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "python3: {error}");
            return say(&format!("not run: graypy needs python3: {error}"));
        }
    };
    let mut orders = running.0.stdin.take().unwrap();
    let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
    let mut wanted: Vec<Map<String, Value>> = Vec::new();
    for _ in 0..60 {
        writeln!(orders, "5").unwrap();
        for _ in 0..5 {
            let line = lines.next().unwrap().unwrap();
            wanted.push(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}")));
        }
        source.received(wanted.len()).await;
    }
    drop((orders, running));
    let found = source.all().await;
    assert_eq!(found.len(), wanted.len());
    for (found, sent) in found.iter().zip(wanted) {
        let line: Value = serde_json::from_str(&found.line).unwrap();
        let known = ["version", "host", "short_message", "timestamp", "level", "facility"];
        let kept: Map<String, Value> = sent
            .iter()
            .filter(|(name, _)| name.starts_with('_') || known.contains(&&***name))
            .map(|(name, value)| (name.clone(), plain(value)))
            .collect();
        assert_eq!(plain(&line), Value::Object(kept));
        let level = SEVERITIES[sent["level"].as_u64().unwrap() as usize];
        let stream = format!("{{facility={}, host=\"box\", level={level:?}, version=\"1.0\"}}", sent["facility"]);
        assert_eq!(found.stream, stream);
        assert_eq!(found.timestamp_ns, (sent["timestamp"].as_f64().unwrap() * 1e9) as i64);
    }
}

/// Numbers are written in more than one way.
fn plain(value: &Value) -> Value {
    match value {
        Value::Number(number) => number.as_f64().into(),
        Value::Array(list) => list.iter().map(plain).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), plain(value))).collect(),
        other => other.clone(),
    }
}
