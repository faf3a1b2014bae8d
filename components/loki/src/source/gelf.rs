//! `loki.source.gelf`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use corten_component::listen::Complaints;
use corten_component::metrics::Counter;
use corten_component::{Component, Context, DebugInfo, Error, Health, HealthState, Stop, Task};
use corten_config::Arguments;
use corten_config::encode::Item;
use corten_net::Backoff;
use corten_signal::ledger::Row;
use corten_signal::relabel::RelabelRules;
use corten_signal::{EntriesBuilder, Fanout, LabelsBuilder, Logs, Receiver};
use corten_wire::gelf::{CHUNKS_WAIT_MAX, Chunks, GelfError, Message, decompress};
use parking_lot::Mutex;
use tokio::net::UdpSocket;

use super::http::now_ns;
use super::outlet::hand_on;
use super::shown::{LastError, attr, block};
use super::{OnDrop, SourceLabels, bind};
use crate::dropped::{Drops, Why};
use crate::forward::fanout;

/// Receives log entries in Graylog's format over UDP, and sends them on.
///
/// A line is the message as JSON: its known fields, and those whose names begin with `_`. Level, host, version and facility
/// are internal labels, `__gelf_message_level`, `__gelf_message_host`, `__gelf_message_version` and
/// `__gelf_message_facility`, which `relabel_rules` can make labels of the entry. A message that the rules drop is sent on
/// without labels.
///
/// When the address cannot be listened on, the component is unhealthy and tries again.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct GelfArguments {
    /// Where to send the entries.
    forward_to: Vec<Receiver<Logs>>,
    /// The address to listen on, `host:port`.
    #[arg(default = "0.0.0.0:12201")]
    listen_address: String,
    /// Rules that make labels of internal labels, as a `loki.relabel` component exports them.
    #[arg(optional)]
    relabel_rules: RelabelRules,
    /// Whether entries get the time of their message; otherwise, and where it has none, the time at which they are
    /// received.
    #[arg(default = false)]
    use_incoming_timestamp: bool,
}

/// The waits between attempts to listen: doubling from the first to the second.
const BIND_WAIT_MIN: Duration = Duration::from_millis(50);
const BIND_WAIT_MAX: Duration = Duration::from_secs(30);

/// How often an address may be in use before that is trouble: the listener that this one takes over from may need a
/// moment to let go of it.
const PATIENT_ATTEMPTS: u32 = 6;

/// The longest packet that UDP has, in bytes.
const PACKET_BYTES_MAX: usize = 64 << 10;

/// For how long what has arrived is still read when the listener stops, and how long there may be nothing then.
const LAST_READ_MAX: Duration = Duration::from_secs(1);
const LAST_QUIET_MAX: Duration = Duration::from_millis(20);

/// How many packets become one batch at most.
const PACKETS_MAX: usize = 1_000;

/// The component.
pub struct Gelf {
    shared: Arc<Shared>,
    address: String,
    task: Task,
}

/// What is to be put in place.
pub struct Prepared {
    address: String,
    settings: Settings,
}

/// What entries are made with, until other arguments come.
struct Settings {
    labels: SourceLabels,
    use_incoming_timestamp: bool,
    forward: Fanout<Logs>,
}

/// What the listener has over all changes of the arguments.
struct Shared {
    settings: Mutex<Arc<Settings>>,
    entries: Counter,
    parsing_errors: Counter,
    complaints: Complaints,
    row: Arc<Row>,
    /// Where it listens, once it does.
    listens_at: Mutex<Option<String>>,
    last_error: LastError,
}

impl DebugInfo for Shared {
    fn debug_info(&self) -> Vec<Item> {
        let at = self.listens_at.lock().clone();
        let mut body =
            vec![attr("type", "udp"), attr("ready", at.is_some()), attr("listen_address", at.unwrap_or_default())];
        self.last_error.show(&mut body);
        vec![block("listener_info", body)]
    }
}

impl Component for Gelf {
    const NAME: &'static str = "loki.source.gelf";
    type Arguments = GelfArguments;
    type Exports = ();
    type Prepared = Prepared;

    async fn prepare(arguments: GelfArguments, cx: &Context<Self>, _: Option<&Self>) -> Result<(Prepared, ()), Error> {
        let settings = Settings {
            labels: SourceLabels::new(&arguments.relabel_rules, OnDrop::NoLabels, false)?,
            use_incoming_timestamp: arguments.use_incoming_timestamp,
            forward: fanout(cx, arguments.forward_to),
        };
        // An address that is written as empty is that of the reference's library.
        let address = match arguments.listen_address {
            address if address.is_empty() => ":12201".to_owned(),
            address => address,
        };
        Ok((Prepared { address, settings }, ()))
    }

    fn commit(current: Option<Self>, prepared: Prepared, cx: &Context<Self>) -> Self {
        let Prepared { address, settings } = prepared;
        let settings = Arc::new(settings);
        let shared = match current {
            Some(current) => {
                *current.shared.settings.lock() = settings;
                if current.address == address {
                    return current;
                }
                current.shared
            }
            None => {
                let shared = Arc::new(Shared::new(settings, cx));
                cx.show_debug_info(Arc::clone(&shared) as Arc<dyn DebugInfo>);
                shared
            }
        };
        let (listening, at, context) = (Arc::clone(&shared), address.clone(), cx.clone());
        let task = cx.spawn("listener", move |stop| {
            let (shared, address, context) = (Arc::clone(&listening), at.clone(), context.clone());
            async move { run(&shared, &address, &context, stop).await }
        });
        Gelf { shared, address, task }
    }

    async fn drain(self, _: &Context<Self>) {
        self.task.stop().await;
    }
}

impl Shared {
    fn new(settings: Arc<Settings>, cx: &Context<Gelf>) -> Self {
        let registry = cx.metrics();
        Shared {
            settings: Mutex::new(settings),
            entries: registry.counter(
                "loki_source_gelf_target_entries_total",
                "Total number of successful entries sent to the gelf target",
            ),
            parsing_errors: registry.counter(
                "loki_source_gelf_target_parsing_errors_total",
                "Total number of parsing errors while receiving gelf messages",
            ),
            complaints: Complaints::new(cx.logger().clone()),
            row: Arc::clone(cx.ledger().row_of::<Logs>()),
            listens_at: Mutex::default(),
            last_error: LastError::default(),
        }
    }

    fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.lock())
    }
}

/// Listens until it is to stop.
async fn run(shared: &Shared, address: &str, cx: &Context<Gelf>, mut stop: Stop) -> Result<(), String> {
    let mut waits = Backoff::new(BIND_WAIT_MIN, BIND_WAIT_MAX);
    let mut attempts = 0;
    loop {
        let error = match bind::udp(address).await {
            Ok(socket) => {
                cx.report_health(None);
                let at = socket.local_addr().map_or_else(|error| error.to_string(), |address| address.to_string());
                *shared.listens_at.lock() = Some(at.clone());
                cx.logger().info("listening for GELF UDP messages", &[("addr", at.into())]);
                receive(shared, &socket, &mut stop).await;
                *shared.listens_at.lock() = None;
                return Ok(());
            }
            Err(error) => error,
        };
        let wait = waits.next_wait();
        attempts += 1;
        if !error.is_in_use || attempts > PATIENT_ATTEMPTS {
            let text = format!("cannot listen on {address}: {}", error.text);
            shared.last_error.note(&text);
            cx.logger().error("cannot listen", &[("err", (&text).into()), ("retry_after", wait.into())]);
            cx.report_health(Some(Health::now(HealthState::Unhealthy, text)));
        }
        if !stop.sleep(wait).await {
            return Ok(());
        }
    }
}

async fn receive(shared: &Shared, socket: &UdpSocket, stop: &mut Stop) {
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    let mut intake = Intake::new();
    let mut end = None;
    loop {
        let received = tokio::select! {
            // When it is to stop, what has arrived by then is taken, within a limit.
            () = stop.wait() => match end.get_or_insert_with(|| Instant::now() + LAST_READ_MAX) {
                end if Instant::now() >= *end => return,
                _ => match tokio::time::timeout(LAST_QUIET_MAX, socket.recv_from(&mut buffer)).await {
                    Ok(received) => received,
                    Err(_) => return,
                },
            },
            received = socket.recv_from(&mut buffer) => received,
            () = tokio::time::sleep(CHUNKS_WAIT_MAX), if intake.chunks.pending() > 0 => {
                intake.chunks.forget_expired(Instant::now());
                continue;
            }
        };
        let mut next = received.map(|(len, _)| len);
        let settings = shared.settings();
        let mut problem = None;
        for _ in 0..PACKETS_MAX {
            let len = match next {
                Ok(len) => len,
                Err(error) => {
                    if error.kind() != std::io::ErrorKind::WouldBlock {
                        shared.complaints.warn("failed to read packets", &error.to_string(), 1);
                        stop.sleep(Duration::from_millis(100)).await;
                    }
                    break;
                }
            };
            if let Err(error) = intake.take(&buffer[..len], &settings) {
                shared.parsing_errors.inc();
                intake.drops.add(Why::PARSE_ERROR, 1);
                let error = error.to_string();
                shared.complaints.warn("error while reading gelf message", &error, 1);
                problem = Some(error);
            }
            if intake.builder.is_full() {
                break;
            }
            // As many as have come already.
            next = socket.try_recv_from(&mut buffer).map(|(len, _)| len);
        }
        if let Some(problem) = problem {
            shared.last_error.note(&problem);
        }
        intake.drops.count(&shared.row, settings.labels.rules());
        if intake.builder.is_empty() {
            continue;
        }
        let entries = intake.builder.finish(now_ns() / 1_000_000);
        let count = entries.len() as u64;
        if hand_on(entries, || shared.settings().forward.clone(), stop, &shared.complaints, &shared.row).await {
            shared.entries.add(count);
        } else if stop.is_set() {
            // There is no time for more.
            return;
        }
    }
}

/// Makes entries of packets.
struct Intake {
    chunks: Chunks,
    builder: EntriesBuilder,
    drops: Drops,
    labels: LabelsBuilder,
}

impl Intake {
    fn new() -> Self {
        Intake {
            chunks: Chunks::default(),
            builder: EntriesBuilder::new(),
            drops: Drops::default(),
            labels: LabelsBuilder::new(),
        }
    }

    fn take(&mut self, packet: &[u8], settings: &Settings) -> Result<(), GelfError> {
        let Some(whole) = self.chunks.take(packet, Instant::now())? else { return Ok(()) };
        let Some(message) = Message::parse(&decompress(&whole)?)? else { return Ok(()) };
        self.labels.clear();
        for (name, value) in [
            ("__gelf_message_level", message.level_name()),
            ("__gelf_message_host", &message.host),
            ("__gelf_message_version", &message.version),
            ("__gelf_message_facility", &message.facility),
        ] {
            if !value.is_empty() {
                self.labels.push(name, value);
            }
        }
        // Labels are too long only where the message is nearly as long as it may be.
        let stream = match settings.labels.stream(&mut self.labels, &[]) {
            Ok(Ok(stream)) => stream,
            other => {
                self.drops.add(other.map_or(Why::INVALID_LABELS, |dropped| dropped.err().unwrap_or(Why::NO_LABELS)), 1);
                return Ok(());
            }
        };
        let stated = message.timestamp_ns().filter(|_| settings.use_incoming_timestamp);
        let line = self.builder.own(message.to_json().as_bytes());
        let part = self.builder.stream(&stream);
        self.builder.push(part, stated.unwrap_or_else(now_ns), line);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use corten_component::Definition;
    use corten_config::Value;
    use corten_config::arguments::Record as _;
    use corten_config::decode::Decode as _;
    use corten_signal::relabel::{Action, Rule};
    use corten_testkit::{Unit, host, until};
    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};

    use super::super::testing::{Case, Sink, Then, address, debug_info, recorded, shown, until_balance};
    use super::*;

    const GELF: Definition = Definition::of::<Gelf>();

    async fn start(sink: &Sink, more: &str) -> Unit {
        let map = Rule {
            action: Action::LabelMap,
            regex: "__gelf_message_(.+)".into(),
            replacement: "$1".to_owned(),
            ..Rule::default()
        };
        let drop = Rule {
            action: Action::Drop,
            source_labels: Vec::from(["level".to_owned()]),
            regex: "debug".into(),
            ..Rule::default()
        };
        let rules: Value = RelabelRules([map, drop].into()).to_value();
        let body = format!("forward_to = [sink]\nlisten_address = \"127.0.0.1:0\"\nrelabel_rules = rules\n{more}");
        Unit::start_with(host("loki.source.gelf.a"), &GELF, &body, &[("sink", sink.value()), ("rules", rules)])
            .await
            .unwrap()
    }

    async fn send(unit: &Unit, packets: &[&[u8]]) {
        let to = address(&unit.world, "listening for GELF UDP messages").await;
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for packet in packets {
            socket.send_to(packet, to).await.unwrap();
        }
    }

    #[test]
    fn the_table_of_the_arguments_is_in_order() {
        assert_eq!(GelfArguments::SCHEMA.defects(), [""; 0]);
    }

    #[test]
    fn messages_are_taken_as_the_reference_takes_them() {
        let (cases, differ) = recorded(include_str!("../../tests/data/sources/gelf.json"));
        assert_eq!((cases.len(), differ), (66, 2));
        let mut differences = Vec::new();
        for case in cases {
            let settings = Settings {
                labels: SourceLabels::new(&Case::rules(), OnDrop::NoLabels, false).unwrap(),
                use_incoming_timestamp: case.uses_incoming_timestamp(),
                forward: Fanout::new([]),
            };
            let mut intake = Intake::new();
            let taken: Vec<_> = case.datagrams().iter().map(|packet| intake.take(packet, &settings)).collect();
            let errors = taken.iter().filter(|taken| taken.is_err()).count();
            if errors != case.errors() {
                differences.push(format!("{}\n  is     {taken:?}", case.json()));
            }
            differences.extend(case.difference(None, shown(&intake.builder.finish(0))));
        }
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    }

    #[tokio::test]
    async fn messages_come_plain_compressed_and_in_chunks() {
        let sink = Sink::new();
        let unit = start(&sink, "use_incoming_timestamp = true").await;
        let message = |text: &str| {
            format!(
                "{{\"_x\":1,\"short_message\":\"{text}\",\"host\":\"h\",\"version\":\"1.1\",\"level\":3,\"timestamp\":1.5}}"
            )
        };
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(message("gzip").as_bytes()).unwrap();
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::best());
        zlib.write_all(message("zlib").as_bytes()).unwrap();
        let whole = message("chunks");
        let chunk = |number: u8, part: &str| [&[0x1e, 0x0f][..], b"12345678", &[number, 3], part.as_bytes()].concat();
        let (a, rest) = whole.split_at(20);
        let (b, c) = rest.split_at(20);
        send(
            &unit,
            &[
                message("plain").as_bytes(),
                &chunk(2, c),
                &chunk(0, a),
                &gzip.finish().unwrap(),
                b"garbage",
                b"",
                &zlib.finish().unwrap(),
                &chunk(0, a),
                &chunk(1, b),
            ],
        )
        .await;
        until("the entries have come", || sink.shown().len() == 4).await;
        let expected: Vec<_> = ["plain", "gzip", "zlib", "chunks"]
            .iter()
            .map(|text| {
                let line = format!(
                    "{{\"version\":\"1.1\",\"host\":\"h\",\"short_message\":\"{text}\",\"timestamp\":1.5,\"level\":3,\"_x\":1}}"
                );
                (1_500_000_000, format!("{{host=\"h\", level=\"error\", version=\"1.1\"}} {line}"))
            })
            .collect();
        assert_eq!(sink.entries(), expected);
        let metric = |name: &str| unit.world.metric(&format!("loki_source_gelf_target_{name}_total"));
        until("they are counted", || metric("entries") == Some(4.0)).await;
        assert_eq!(metric("parsing_errors"), Some(2.0));
        until_balance(&unit.world, "received 6, out 4, dropped {parse error: 2}").await;
        let info = debug_info(&unit.world).remove(0);
        assert!(info.starts_with("listener_info: type=\"udp\" ready=true") && info.contains(" last_error="), "{info}");
    }

    #[tokio::test]
    async fn a_message_that_rules_drop_is_sent_without_labels_and_gets_the_time_of_its_receipt() {
        let sink = Sink::new();
        let unit = start(&sink, "").await;
        send(&unit, &[b"{\"level\":7,\"host\":\"h\",\"timestamp\":1}", b"{}"]).await;
        until("the entries have come", || sink.shown().len() == 2).await;
        let shown = sink.shown();
        assert!(shown[0].starts_with("{} {\"version\":\"\",\"host\":\"h\""), "{shown:?}");
        // What states no level counts as the first.
        assert!(shown[1].starts_with("{level=\"emergency\"} {"), "{shown:?}");
        assert!(sink.entries().iter().all(|(time, _)| (now_ns() - time).abs() < 60_000_000_000));
    }

    #[tokio::test]
    async fn an_address_in_use_makes_the_component_unhealthy_until_it_is_free() {
        let other = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = other.local_addr().unwrap();
        let body = format!("forward_to = []\nlisten_address = \"{at}\"");
        let mut unit = Unit::start(host("loki.source.gelf.a"), &GELF, &body).await.unwrap();
        let world = unit.world.clone();
        let health = || world.health_text();
        until("it cannot listen", || health().starts_with(&format!("unhealthy: cannot listen on {at}: "))).await;
        drop(other);
        until("it is well", || health() == "healthy: component evaluated").await;
        assert_eq!(address(&world, "listening for GELF UDP messages").await, at);
        unit.update("forward_to = []\nlisten_address = \"127.0.0.1:0\"").await.unwrap();
        until("the old address is free", || std::net::UdpSocket::bind(at).is_ok()).await;
        unit.drain().await;
    }

    #[tokio::test]
    async fn what_has_arrived_when_the_listener_stops_is_taken() {
        let busy = || Then::Refuse(corten_signal::ConsumeError::Retry { after: None, reason: "busy".to_owned() });
        let sink = Sink::that(busy());
        let mut unit = start(&sink, "").await;
        send(&unit, &[b"{}"]).await;
        until("it was asked", || sink.asked() > 0).await;
        send(&unit, &[&b"{\"level\":1}"[..]; 50]).await;
        *sink.then.lock() = Then::Safe;
        unit.drain().await;
        assert_eq!(sink.shown().len(), 51);
        assert_eq!(unit.world.balance_of(corten_signal::Kind::LokiLog), "received 51, out 51");
    }
}
