//! What the component does, seen from senders and receivers.

use std::net::SocketAddr;

use corten_component::Definition;
use corten_config::Value;
use corten_config::arguments::Record as _;
use corten_config::decode::Decode as _;
use corten_signal::relabel::{Action, Rule};
use corten_testkit::{Unit, World, host, stays, until};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::super::testing::{MOMENT, Sink, Then, address, debug_info, until_balance};
use super::*;

const SYSLOG: Definition = Definition::of::<Syslog>();

/// Makes a label of every internal one.
fn all_labels() -> Value {
    let rule = Rule {
        action: Action::LabelMap,
        regex: "__syslog_(message_.+|connection_ip_address)".into(),
        replacement: "$1".to_owned(),
        ..Rule::default()
    };
    RelabelRules([rule].into()).to_value()
}

fn listener(more: &str) -> String {
    let address = if more.contains("address =") { "" } else { "address = \"127.0.0.1:0\"\n" };
    format!("listener {{\n {address}{more}\n }}")
}

struct Running {
    unit: Unit,
    sink: Sink,
}

impl Running {
    async fn start(body: &str) -> Self {
        Self::into_sink(body, Sink::new(), &[]).await
    }

    async fn into_sink(body: &str, sink: Sink, more: &[(&str, Value)]) -> Self {
        let mut names = vec![("sink", sink.value()), ("all", all_labels())];
        names.extend(more.iter().cloned());
        let body = format!("forward_to = [sink]\n{body}");
        let unit = Unit::start_with(host("loki.source.syslog.a"), &SYSLOG, &body, &names).await.unwrap();
        Running { unit, sink }
    }

    async fn address(&self) -> SocketAddr {
        address(&self.unit.world, "syslog listening on address").await
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address().await).await.unwrap()
    }

    /// Sends bytes over a connection of its own, and closes it.
    async fn tcp(&self, bytes: &[u8]) {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }

    async fn udp(&self, packets: &[&[u8]]) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = self.address().await;
        for packet in packets {
            socket.send_to(packet, to).await.unwrap();
        }
    }

    async fn lines(&self, count: usize) -> Vec<String> {
        until("the entries have come", || self.sink.shown().len() >= count).await;
        self.sink.shown()
    }

    fn metric(&self, name: &str) -> f64 {
        self.unit.world.metric(&format!("loki_source_syslog_{name}_total")).unwrap()
    }
}

#[test]
fn the_table_of_the_arguments_is_in_order() {
    assert_eq!(SyslogArguments::SCHEMA.defects(), [""; 0]);
}

#[tokio::test]
async fn arguments_are_refused_in_the_words_of_the_reference() {
    let none = "has no effect when syslog format is";
    for (stability, body, error) in [
        (Stability::Experimental, "", "missing required block \"listener\"".to_owned()),
        (Stability::Experimental, "listener { }", "missing required attribute \"address\"".to_owned()),
        (
            Stability::Experimental,
            "listener {\n address = \"a\"\n protocol = \"sctp\"\n }",
            "syslog listener protocol should be either 'tcp' or 'udp', got sctp".to_owned(),
        ),
        (
            Stability::Experimental,
            "listener {\n address = \"a\"\n syslog_format = \"x\"\n }",
            "unknown syslog format: x".to_owned(),
        ),
        (
            Stability::Experimental,
            "listener {\n address = \"a\"\n rfc3164_cisco_components {\n enable_all = true\n }\n }",
            format!("rfc3164_cisco_components {none} not \"rfc3164\""),
        ),
        (
            Stability::Experimental,
            "listener {\n address = \"a\"\n syslog_format = \"rfc3164\"\n rfc3164_cisco_components { }\n }",
            "at least one option in rfc3164_cisco_components has to be enabled".to_owned(),
        ),
        (
            Stability::Experimental,
            "listener {\n address = \"a\"\n syslog_format = \"rfc3164\"\n rfc5424_allow_empty_msg = true\n }",
            format!("\"rfc5424_allow_empty_msg\" {none} set to \"rfc3164\""),
        ),
        (
            Stability::Experimental,
            "listener {\n address = \"a\"\n syslog_format = \"raw\"\n use_incoming_timestamp = true\n }",
            format!("\"use_incoming_timestamp\" {none} set to \"raw\""),
        ),
        (
            Stability::Experimental,
            "listener {\n address = \"a\"\n raw_format_options { }\n }",
            format!("raw_format_options {none} not \"raw\""),
        ),
        (
            Stability::GenerallyAvailable,
            "listener {\n address = \"a\"\n syslog_format = \"raw\"\n }",
            "\"raw\" syslog format is available only at experimental stability level".to_owned(),
        ),
        (
            Stability::PublicPreview,
            "listener {\n address = \"a\"\n syslog_format = \"rfc3164\"\n rfc3164_cisco_components {\n hostname = true\n }\n }",
            "rfc3164_cisco_components block is available only at experimental stability level".to_owned(),
        ),
    ] {
        let world = World::with("loki.source.syslog.a", |services| services.stability = stability);
        let refused = Unit::start(world, &SYSLOG, &format!("forward_to = []\n{body}")).await.unwrap_err();
        assert!(refused.contains(&error), "{body}: {refused}");
    }
}

#[tokio::test]
async fn what_a_message_says_of_itself_can_become_labels() {
    let running = Running::start(&format!(
        "relabel_rules = all\n{}",
        listener("label_structured_data = true\n labels = { job = \"syslog\", __hidden = \"x\" }\n use_incoming_timestamp = true")
    ))
    .await;
    running
        .tcp(
            b"<165>1 2003-10-11T22:14:15.003Z host.example app 77 ID47 [a@1 k=\"v\\\"\" empty=\"\"] the text\nin two lines\n\
              <34>1 - - - - - - x",
        )
        .await;
    running.lines(2).await;
    let entries = running.sink.entries();
    assert_eq!(
        entries[0],
        (
            1_065_910_455_003_000_000,
            "{connection_ip_address=\"127.0.0.1\", job=\"syslog\", message_app_name=\"app\", message_facility=\"local4\", \
             message_hostname=\"host.example\", message_msg_id=\"ID47\", message_proc_id=\"77\", message_sd_a_1_k=\"v\\\"\", \
             message_severity=\"notice\"} the text\nin two lines"
                .to_owned()
        )
    );
    assert_eq!(
        entries[1].1,
        "{connection_ip_address=\"127.0.0.1\", job=\"syslog\", message_facility=\"auth\", message_severity=\"critical\"} x"
    );
    assert_eq!((running.metric("entries"), running.metric("parsing_errors")), (2.0, 0.0));
}

#[tokio::test]
async fn the_line_can_be_the_whole_message() {
    let running = Running::start(&listener("use_rfc5424_message = true\n rfc5424_allow_empty_msg = true")).await;
    let messages = ["<165>1 2003-10-11T22:14:15.0030Z h a 7 - [b y=\"2\" x=\"1\"] text ", "<34>1 - - - - - -"];
    let stream: String = messages.iter().map(|message| format!("{} {message}", message.len())).collect();
    running.tcp(stream.as_bytes()).await;
    assert_eq!(
        running.lines(2).await,
        ["{} <165>1 2003-10-11T22:14:15.003Z h a 7 - [b x=\"1\" y=\"2\"] text ", "{} <34>1 - - - - - -"]
    );
}

#[tokio::test]
async fn messages_without_text_are_counted_and_dropped_unless_they_are_wanted() {
    for (more, lines) in [("", 1), ("rfc5424_allow_empty_msg = true", 2)] {
        let running = Running::start(&listener(more)).await;
        running.tcp(b"<34>1 - - - - - -\n<34>1 - - - - - - x\n").await;
        assert_eq!(running.lines(lines).await.len(), lines);
        assert_eq!((running.metric("empty_messages"), running.metric("entries")), (1.0, lines as f64));
        let dropped = if lines == 1 { ", dropped {empty message: 1}" } else { "" };
        until_balance(&running.unit.world, &format!("received 2, out {lines}{dropped}")).await;
    }
}

#[tokio::test]
async fn messages_of_rfc_3164_are_read() {
    let running = Running::start(&format!(
        "relabel_rules = all\n{}",
        listener("syslog_format = \"rfc3164\"\n use_incoming_timestamp = true")
    ))
    .await;
    running
        .tcp(b"<34>Oct 11 22:14:15 mymachine su[12]: 'su root' failed\n<13>Feb  5 17:32:18 10.0.0.99 Use it!\n")
        .await;
    running.lines(2).await;
    let entries = running.sink.entries();
    assert!(entries.iter().all(|(time, _)| *time == i64::MIN), "the year is 0, which is before all times");
    assert!(
        entries[0].1.ends_with(
            "message_app_name=\"su\", message_facility=\"auth\", message_hostname=\"mymachine\", message_proc_id=\"12\", \
             message_severity=\"critical\"} 'su root' failed"
        ),
        "{entries:?}"
    );
    assert!(
        entries[1].1.ends_with("message_hostname=\"10.0.0.99\", message_severity=\"notice\"} Use it!"),
        "{entries:?}"
    );

    let running = Running::start(&listener(
        "syslog_format = \"rfc3164\"\n use_incoming_timestamp = true\n rfc3164_default_to_current_year = true",
    ))
    .await;
    running.tcp(b"<34>Jun 11 22:14:15 a b: c\n").await;
    running.lines(1).await;
    let (time, _) = running.sink.entries()[0];
    let now = super::super::http::now_ns();
    assert!((now - time).abs() < 366 * 86_400 * 1_000_000_000, "{time}");
}

#[tokio::test]
async fn what_cisco_adds_is_read() {
    let running = Running::start(&format!(
        "relabel_rules = all\n{}",
        listener("syslog_format = \"rfc3164\"\n rfc3164_cisco_components {\n enable_all = true\n }")
    ))
    .await;
    running.tcp(b"<189>237: 000104: sw1: *Jan  8 19:46:03.295: %SYS-5-CONFIG_I: Configured\n").await;
    let lines = running.lines(1).await;
    for expected in ["msg_counter=\"237\"", "sequence=\"104\"", "hostname=\"sw1\"", "} Configured"] {
        assert!(lines[0].contains(expected), "{lines:?}");
    }
}

#[tokio::test]
async fn raw_lines_are_taken_as_they_are() {
    let running = Running::start(&format!("relabel_rules = all\n{}", listener("syslog_format = \"raw\""))).await;
    running.tcp(b"CEF:0|a b \r\n\n<34> x\n<34>\n5 a\nb c").await;
    let mut lines = running.lines(3).await;
    lines.sort();
    assert_eq!(
        lines,
        [
            "{connection_ip_address=\"127.0.0.1\", message_facility=\"auth\", message_severity=\"critical\"} x",
            "{connection_ip_address=\"127.0.0.1\"} CEF:0|a b",
            "{connection_ip_address=\"127.0.0.1\"} a\nb c",
        ]
    );
    assert_eq!(running.metric("empty_messages"), 1.0);
    let null = "syslog_format = \"raw\"\n raw_format_options {\n use_null_terminator_delimiter = true\n }";
    let running = Running::start(&listener(null)).await;
    running.tcp(b"a\nb\0c\0").await;
    assert_eq!(running.lines(2).await, ["{} a\nb", "{} c"]);
}

#[tokio::test]
async fn rules_cannot_drop_messages() {
    let drop = Rule { action: Action::Drop, ..Rule::default() };
    let rules = RelabelRules([drop].into()).to_value();
    let body = format!("relabel_rules = drops\n{}", listener("labels = { job = \"syslog\" }"));
    let running = Running::into_sink(&body, Sink::new(), &[("drops", rules)]).await;
    running.tcp(b"<34>1 - - - - - - x\n").await;
    assert_eq!(running.lines(1).await, ["{job=\"syslog\"} x"]);
}

#[tokio::test]
async fn a_quiet_connection_gives_its_last_message_away() {
    let running = Running::start(&listener("")).await;
    let mut stream = running.connect().await;
    stream.write_all(b"<34>1 - - - - - - one\n").await.unwrap();
    assert_eq!(running.lines(1).await, ["{} one"]);
    // What does not end with a line end may go on.
    stream.write_all(b"<34>1 - - - - - - tw").await.unwrap();
    stays("it waits", Duration::from_millis(400), || running.sink.shown().len() == 1).await;
    stream.write_all(b"o\nthree\n").await.unwrap();
    assert_eq!(running.lines(2).await[1], "{} two\nthree");
}

#[tokio::test]
async fn broken_messages_are_counted_and_broken_streams_are_closed() {
    let running = Running::start(&listener("max_message_length = 100")).await;
    for (stream, errors) in [
        (&b"<34>nonsense\n<34>1 - - - - - - good\n"[..], 1.0),
        (b"19 <34>1 - - - - - - x\n0 <34>1 - - - - - - x", 1.0),
        (b"101 <34>1 - - - - - - x", 1.0),
        (b"99 <34>1 - - - - - - cut off", 1.0),
        // As in the reference a stream that begins with neither is not counted.
        (b"GET / HTTP/1.1\r\n\r\n", 0.0),
        (b"\x16\x03\x01\x02\x00", 0.0),
        (b"", 0.0),
    ] {
        let before = running.metric("parsing_errors");
        running.tcp(stream).await;
        until("it is counted", || running.metric("parsing_errors") == before + errors).await;
    }
    // 21 bytes, not 19: the message ends in the middle.
    assert_eq!(running.lines(2).await, ["{} good", "{} x"]);
    until_balance(&running.unit.world, "received 6, out 2, dropped {parse error: 4}").await;
    let info = debug_info(&running.unit.world).remove(0);
    for part in [" type=\"tcp\" ready=true listen_address=\"127.0.0.1:", " connections=0", " last_error=\""] {
        assert!(info.contains(part), "{part}: {info}");
    }
}

#[tokio::test]
async fn one_connection_does_not_keep_another_from_delivering() {
    let running = Running::start(&listener("")).await;
    let mut slow = running.connect().await;
    slow.write_all(b"<34>1 - - ").await.unwrap();
    let mut garbage = running.connect().await;
    garbage.write_all(&[0xff; 10_000]).await.unwrap();
    let gone = running.connect().await;
    drop(gone);
    for number in 0..100 {
        running.tcp(format!("<34>1 - - - - - - {number}\n").as_bytes()).await;
    }
    assert_eq!(running.lines(100).await.len(), 100);
    slow.write_all(b"- - - - late\n").await.unwrap();
    drop(slow);
    assert!(running.lines(101).await.contains(&"{} late".to_owned()));
}

#[tokio::test]
async fn a_connection_that_is_idle_is_closed_without_an_error() {
    let running = Running::start(&listener("idle_timeout = \"500ms\"")).await;
    let mut stream = running.connect().await;
    stream.write_all(b"<34>1 - - - - - - unfinished").await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!(running.lines(1).await, ["{} unfinished"]);
    let mut stream = running.connect().await;
    stream.write_all(b"30 <34>1 - -").await.unwrap();
    stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!(running.metric("parsing_errors"), 0.0);
}

#[tokio::test]
async fn packets_are_read_and_cut_at_the_limit() {
    let running = Running::start(&listener("protocol = \"udp\"\n max_message_length = 30")).await;
    running
        .udp(&[
            b"<34>1 - - - - - - one",
            b"<34>1 - - - - - - two\n<34>1 - - - - - - three\n",
            b"21 <34>1 - - - - - - six",
            b"nonsense",
            b"",
            b"<34>1 - - - - - - last",
        ])
        .await;
    running.lines(4).await;
    assert_eq!(running.sink.shown(), ["{} one", "{} two", "{} six", "{} last"]);
    // What is left of the second message of the packet that was cut is none.
    assert_eq!(running.metric("parsing_errors"), 1.0);
}

#[tokio::test]
async fn a_receiver_that_takes_nothing_holds_the_sender_up_and_loses_nothing() {
    let busy = || Then::Refuse(corten_signal::ConsumeError::Retry { after: None, reason: "busy".to_owned() });
    let running = Running::into_sink(&listener(""), Sink::that(busy()), &[]).await;
    let mut stream = running.connect().await;
    let messages: String = (0..50_000).map(|number| format!("<34>1 - - - - - - {number}\n")).collect();
    let writing = tokio::spawn(async move {
        stream.write_all(messages.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
    });
    until("it was asked", || running.sink.asked() > 1).await;
    stays("nothing is taken", MOMENT, || running.sink.shown().is_empty()).await;
    *running.sink.then.lock() = Then::Safe;
    writing.await.unwrap();
    let lines = running.lines(50_000).await;
    let expected: Vec<String> = (0..50_000).map(|number| format!("{{}} {number}")).collect();
    assert!(lines == expected);
    until_balance(&running.unit.world, "received 50000, out 50000").await;
}

#[tokio::test]
async fn what_was_sent_before_a_listener_stops_is_not_lost() {
    for protocol in ["tcp", "udp"] {
        // The receiver is in the way until the listener is to stop, so that most is not read yet by then.
        let busy = || Then::Refuse(corten_signal::ConsumeError::Retry { after: None, reason: "busy".to_owned() });
        let body = listener(&format!("protocol = \"{protocol}\"\n idle_timeout = \"1h\""));
        let mut running = Running::into_sink(&body, Sink::that(busy()), &[]).await;
        let mut stream = None;
        if protocol == "tcp" {
            let mut connected = running.connect().await;
            for number in 0..1000 {
                let text = format!("<34>1 - - - - - - {number}\n");
                connected.write_all(text.as_bytes()).await.unwrap();
            }
            stream = Some(connected);
        } else {
            let packets: Vec<String> = (0..100).map(|number| format!("<34>1 - - - - - - {number}")).collect();
            running.udp(&packets.iter().map(String::as_bytes).collect::<Vec<_>>()).await;
        }
        until("it was asked", || running.sink.asked() > 0).await;
        *running.sink.then.lock() = Then::Safe;
        running.unit.drain().await;
        let count = if protocol == "tcp" { 1000 } else { 100 };
        let expected: Vec<String> = (0..count).map(|number| format!("{{}} {number}")).collect();
        assert_eq!(running.sink.shown(), expected, "{protocol}");
        // Senders hear of the end.
        if let Some(mut stream) = stream {
            assert_eq!(stream.read(&mut [0; 10]).await.unwrap(), 0);
        }
    }
}

#[tokio::test]
async fn a_listener_that_changes_goes_on_at_its_port_and_loses_nothing() {
    let body = |label: u32| {
        let labels = format!("labels = {{ a = \"{label}\" }}");
        format!("{}\n{}", listener(&labels), listener(&format!("protocol = \"udp\"\n {labels}")))
    };
    let mut running = Running::start(&body(0)).await;
    let listens = |protocol: &str| {
        let end = format!(" protocol={protocol} tls=false");
        let logs = running.unit.world.logs();
        let line = logs.lines().find(|line| line.contains("syslog listening on address") && line.ends_with(&end));
        let at = line?.strip_suffix(&end)?.rsplit_once("addr=")?.1.parse::<SocketAddr>();
        Some(at.unwrap())
    };
    let tcp = corten_testkit::until_some("tcp is listened on", || listens("tcp")).await;
    let udp = corten_testkit::until_some("udp is listened on", || listens("udp")).await;
    let (stopper, stop) = corten_component::Stop::pair();
    let sending = tokio::spawn(async move {
        let (mut stream, packets) =
            (TcpStream::connect(tcp).await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let mut sent = 0;
        while !stop.is_set() {
            // As senders do, which connect again when the other side has closed.
            if matches!(stream.try_read(&mut [0]), Ok(0)) {
                stream = TcpStream::connect(tcp).await.unwrap();
            }
            stream.write_all(format!("<34>1 - - - - - - t{sent}\n").as_bytes()).await.unwrap();
            packets.send_to(format!("<34>1 - - - - - - u{sent}").as_bytes(), udp).await.unwrap();
            sent += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        sent
    });
    for label in 1..=4 {
        let changed = format!("forward_to = [sink]\n{}", body(label));
        running.unit.update(&changed).await.unwrap();
        for kind in ["t", "u"] {
            let begin = format!("{{a=\"{label}\"}} {kind}");
            until("entries have the new label", || running.sink.shown().iter().any(|line| line.starts_with(&begin)))
                .await;
        }
    }
    stopper.stop();
    let sent = sending.await.unwrap();
    for kind in ["t", "u"] {
        let numbers = || -> Vec<u32> {
            let shown = running.sink.shown();
            let mut numbers: Vec<u32> = shown.iter().filter_map(|l| l.rsplit_once(kind)?.1.parse().ok()).collect();
            numbers.sort_unstable();
            numbers
        };
        until("all have come", || numbers().len() >= sent).await;
        assert!(numbers().into_iter().eq(0..sent as u32), "{kind}");
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_and_those_that_send_single_bytes_make_room() {
    let running = Running::start(&listener("idle_timeout = \"2s\"")).await;
    let mut slow = Vec::new();
    for _ in 0..listener::CONNECTIONS_MAX {
        let mut stream = running.connect().await;
        stream.write_all(b"<34>1 - - ").await.unwrap();
        slow.push(stream);
    }
    let dripping = tokio::spawn(async move {
        loop {
            for stream in &mut slow {
                let _ = stream.write_all(b"x").await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let mut waiting = running.connect().await;
    waiting.write_all(b"<34>1 - - - - - - late\n").await.unwrap();
    until("it is told", || running.unit.world.logs().contains("too many syslog connections")).await;
    running.lines(1).await;
    assert!(running.sink.shown().contains(&"{} late".to_owned()));
    assert!(running.unit.world.logs().contains("closed a syslog connection in favor of others"));
    dripping.abort();
}

#[tokio::test]
async fn what_one_of_several_receivers_does_not_take_is_counted_and_told() {
    let refuses = Then::Refuse(corten_signal::ConsumeError::Refused { reason: "no".to_owned() });
    let (sink, other) = (Sink::new(), Sink::that(refuses));
    let body = format!("forward_to = [sink, other]\n{}", listener(""));
    let names = [("sink", sink.value()), ("other", other.value())];
    let unit = Unit::start_with(host("loki.source.syslog.a"), &SYSLOG, &body, &names).await.unwrap();
    let running = Running { unit, sink };
    running.tcp(b"<34>1 - - - - - - one\n<34>1 - - - - - - two\n").await;
    running.lines(2).await;
    let of = [("receiver", "loki.echo.sink")];
    let dropped = || running.unit.world.metrics().get("corten_forward_dropped_entries_total", &of);
    until("it is counted", || dropped() == Some(2.0)).await;
    assert!(running.unit.world.logs().contains("dropped entries for one of several receivers"));
}

#[tokio::test]
async fn no_size_of_a_queue_is_too_large() {
    let more = format!("protocol = \"udp\"\n udp_queue_size = {0}\n udp_host_cache_size = {0}", i64::MAX);
    let running = Running::start(&listener(&more)).await;
    running.udp(&[b"<34>1 - - - - - - one"]).await;
    assert_eq!(running.lines(1).await, ["{} one"]);
}

#[tokio::test]
async fn a_reload_leaves_alone_what_stays_as_it_is() {
    let other = Sink::new();
    let mut running =
        Running::into_sink(&listener("labels = { a = \"1\" }"), Sink::new(), &[("other", other.value())]).await;
    let at = running.address().await;
    let mut stream = running.connect().await;
    stream.write_all(b"<34>1 - - - - - - one\n").await.unwrap();
    running.lines(1).await;
    running.unit.update(&format!("forward_to = [other]\n{}", listener("labels = { a = \"1\" }"))).await.unwrap();
    stream.write_all(b"<34>1 - - - - - - two\n").await.unwrap();
    until("it came over the same connection", || other.shown() == ["{a=\"1\"} two"]).await;
    // With other arguments the listener takes over the port.
    let changed = listener(&format!("address = \"{at}\"\n labels = {{ a = \"2\" }}"));
    running.unit.update(&format!("forward_to = [other]\n{changed}")).await.unwrap();
    let logs = || running.unit.world.logs();
    until("it listens again", || logs().matches("syslog listening on address").count() == 2).await;
    assert_eq!(running.address().await, at);
    running.tcp(b"<34>1 - - - - - - three\n").await;
    until("it came", || other.shown().last().is_some_and(|line| line == "{a=\"2\"} three")).await;
    running.unit.drain().await;
    assert!(TcpStream::connect(at).await.is_err());
}

#[tokio::test]
async fn a_listener_that_cannot_listen_is_the_health_until_it_can() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = other.local_addr().unwrap();
    let taken = listener(&format!("address = \"{at}\""));
    let running = Running::start(&format!("{taken}\n{}", listener("protocol = \"udp\""))).await;
    let health = || running.unit.world.health_text();
    until("it cannot listen", || health().starts_with(&format!("unhealthy: cannot listen on tcp {at}: "))).await;
    // The other one does.
    running.udp(&[b"<34>1 - - - - - - one"]).await;
    running.lines(1).await;
    drop(other);
    until("it is well", || health() == "healthy: component evaluated").await;
    for bad in ["no-port", "127.0.0.1:x", "127.0.0.1:99999"] {
        let running = Running::start(&listener(&format!("address = \"{bad}\""))).await;
        let health = || running.unit.world.health_text();
        until("it cannot listen", || health().starts_with(&format!("unhealthy: cannot listen on tcp {bad}: "))).await;
    }
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, host: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

#[tokio::test]
async fn tls_wants_a_certificate_and_a_key() {
    let (cert, key) = Authority::new("ca").issue("localhost");
    let names = [("cert", Value::string(cert)), ("key", Value::string(key))];
    for (tls, well) in [("cert_pem = cert\n key_pem = key", true), ("ca_pem = cert", false), ("", true)] {
        let body = listener(&format!("tls_config {{\n {tls}\n }}"));
        let running = Running::into_sink(&body, Sink::new(), &names).await;
        let health = || running.unit.world.health_text();
        if well {
            running.address().await;
        } else {
            until("it cannot listen", || health().starts_with("unhealthy: cannot listen on tcp 127.0.0.1:0: ")).await;
        }
        if !tls.is_empty() && well {
            // In clear text nothing gets in.
            running.tcp(b"<34>1 - - - - - - x\n").await;
            stays("nothing comes", MOMENT, || running.sink.shown().is_empty()).await;
        }
    }
}

#[tokio::test]
async fn only_clients_that_the_authorities_know_deliver_over_tls() {
    let (authority, clients, strangers) =
        (Authority::new("ca"), Authority::new("clients"), Authority::new("strangers"));
    let (cert, key) = authority.issue("localhost");
    let names =
        [("cert", Value::string(cert)), ("key", Value::string(key)), ("clients", Value::string(clients.0.pem()))];
    let body = listener("tls_config {\n cert_pem = cert\n key_pem = key\n ca_pem = clients\n }");
    let running = Running::into_sink(&body, Sink::new(), &names).await;
    let send = async |identity: Option<(String, String)>| {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.0.pem().as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
        let config = match identity {
            None => config.with_no_client_auth(),
            Some((cert, key)) => {
                let cert = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
                config
                    .with_client_auth_cert(vec![cert], PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
                    .unwrap()
            }
        };
        let stream = running.connect().await;
        let host = ServerName::try_from("localhost").unwrap();
        let Ok(mut stream) = TlsConnector::from(Arc::new(config)).connect(host, stream).await else { return };
        let _ = stream.write_all(b"<34>1 - - - - - - secret\n").await;
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    };
    send(None).await;
    send(Some(strangers.issue("client"))).await;
    assert!(running.sink.shown().is_empty());
    send(Some(clients.issue("client"))).await;
    assert_eq!(running.lines(1).await, ["{} secret"]);
}
