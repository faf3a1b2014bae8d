//! `loki.source.journal` and journals that systemd's own programs write, read again by `journalctl`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use corten_component::Definition;
use corten_loki::COMPONENTS;
use corten_testkit::peers::{Peer, Running, peer, say};
use corten_testkit::{LogsSink, Unit, host, until, until_some};
use serde_json::Value;

/// Bytes that look random and cannot be compressed, always the same.
struct Noise(u64);

impl Noise {
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let next = |_| {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 32) as u8
        };
        (0..count).map(next).collect()
    }
}

/// Adds a field as both the export format and journald's socket have it.
fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend(name.bytes());
    if value.iter().all(|byte| (b' '..=b'~').contains(byte)) {
        out.extend([b"=", value].concat());
    } else {
        out.push(b'\n');
        out.extend((value.len() as u64).to_le_bytes());
        out.extend(value);
    }
    out.push(b'\n');
}

/// The fields of an entry: short ones, binary, long, repeated and many, some without a message.
fn fields(number: usize, large: usize, noise: &mut Noise) -> Vec<u8> {
    let mut out = Vec::new();
    match number % 9 {
        0 => field(&mut out, "MESSAGE", format!("{number}: first\n\tsecond line, grüße").as_bytes()),
        1 if number.is_multiple_of(2) => {}
        2 => field(&mut out, "MESSAGE", &noise.bytes(number % 90)),
        _ => field(&mut out, "MESSAGE", format!("{number}: <a> \"quoted\" & \\ plain").as_bytes()),
    }
    field(&mut out, "PRIORITY", (number % 8).to_string().as_bytes());
    field(&mut out, "SYSLOG_IDENTIFIER", format!("app{}", number % 5).as_bytes());
    if number.is_multiple_of(10) {
        field(&mut out, "BINARY", &noise.bytes(50 + number % 900));
    }
    if number.is_multiple_of(11) {
        field(&mut out, "TAG", b"one");
        field(&mut out, "TAG", b"two");
    }
    if number.is_multiple_of(300) {
        field(&mut out, "LARGE", format!("large {number} ").repeat(large / 10).as_bytes());
    }
    if number.is_multiple_of(900) {
        field(&mut out, "NOISE", &noise.bytes(large));
    }
    if number % 500 == 7 {
        for index in 0..200 {
            field(&mut out, &format!("FIELD_{index}"), format!("{number} {index}").as_bytes());
        }
    }
    out
}

/// An entry as tests compare it: its time in nanoseconds, and of each field the last value, as the source writes it.
type Entry = (i64, BTreeMap<String, String>);

/// Text as the source writes it: each byte that is not part of a character becomes a mark.
fn lossy(bytes: &[u8]) -> String {
    let chunks = bytes.utf8_chunks();
    chunks.map(|chunk| chunk.valid().to_owned() + &"\u{fffd}".repeat(chunk.invalid().len())).collect()
}

/// A value as `journalctl` writes it: text, or bytes, or a list of those where the name is repeated.
fn value(json: &Value) -> String {
    match json {
        Value::String(text) => text.clone(),
        Value::Array(list) if list.iter().all(Value::is_u64) => {
            lossy(&list.iter().map(|byte| byte.as_u64().unwrap() as u8).collect::<Vec<_>>())
        }
        Value::Array(list) => value(list.last().unwrap()),
        other => panic!("a value that is {other}"),
    }
}

/// What `journalctl` says is in a folder.
fn by_journalctl(journalctl: &Peer, folder: &Path) -> Vec<Entry> {
    let mut command = journalctl.command();
    let output = command.arg("--directory").arg(folder).args(["-o", "json", "--all", "-q"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = serde_json::Deserializer::from_slice(&output.stdout).into_iter::<BTreeMap<String, Value>>();
    lines
        .map(|entry| {
            let entry = entry.unwrap();
            let time_us: i64 = value(&entry["__REALTIME_TIMESTAMP"]).parse().unwrap();
            let fields = entry.iter().filter(|(name, _)| !name.starts_with("__"));
            (time_us * 1000, fields.map(|(name, json)| (name.clone(), value(json))).collect())
        })
        .collect()
}

/// What the source read.
fn by_source(sink: &LogsSink) -> Vec<Entry> {
    sink.lines().iter().map(|line| (line.timestamp_ns, serde_json::from_str(&line.line).unwrap())).collect()
}

fn compare(found: &[Entry], wanted: &[Entry]) {
    if let Some(at) = found.iter().zip(wanted).position(|(found, wanted)| found != wanted) {
        let shown = |entry: &Entry| {
            let text = format!("{entry:?}");
            text[..text.floor_char_boundary(2000)].to_owned()
        };
        panic!("entry {at} is\n{}\nnot\n{}", shown(&found[at]), shown(&wanted[at]));
    }
    assert_eq!(found.len(), wanted.len());
}

async fn start(folder: &Path, sink: &LogsSink) -> Unit {
    let definition =
        COMPONENTS.iter().find(|definition: &&Definition| definition.name == "loki.source.journal").unwrap();
    let body = format!("forward_to = [sink]\npath = {folder:?}\nmax_age = \"0s\"\nformat_as_json = true");
    let world = host("loki.source.journal.a");
    Unit::start_with(world, definition, &body, &[("sink", sink.value())]).await.unwrap()
}

fn damaged(unit: &Unit) -> Option<f64> {
    unit.world.metric("corten_loki_source_journal_damaged_total")
}

fn microseconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

/// Ways to write a file: what `systemd-journal-remote` is told, and its environment.
const KINDS: [(&str, &str, &str); 4] = [
    ("--compress=yes", "1", "1"),
    ("--compress=yes", "0", "1"),
    ("--compress=yes", "0", "0"),
    ("--compress=no", "0", "0"),
];

/// Entries in each file.
const ENTRIES: usize = 3000;

fn write_journal(remote: &Peer, folder: &Path, kind: usize, start_us: u64) {
    let (compress, is_compact, is_keyed) = KINDS[kind];
    let (mut out, mut noise) = (Vec::new(), Noise(kind as u64 + 1));
    for number in 0..ENTRIES {
        let time_us = start_us + (number * KINDS.len() + kind) as u64 * 100;
        // Each file is of a boot of its own: entries are in the order of their times.
        let boot = format!("{:032x}", kind + 1);
        writeln!(out, "__REALTIME_TIMESTAMP={time_us}\n__MONOTONIC_TIMESTAMP={}", number + 1).unwrap();
        writeln!(out, "_BOOT_ID={boot}").unwrap();
        out.extend(fields(number * KINDS.len() + kind, 200_000, &mut noise));
        out.push(b'\n');
    }
    let export = folder.join(format!("{kind}.export"));
    fs::write(&export, out).unwrap();
    let mut command = remote.command();
    command.arg(compress).arg("-o").arg(folder.join(format!("{kind}.journal"))).arg(&export);
    command.env("SYSTEMD_JOURNAL_COMPACT", is_compact).env("SYSTEMD_JOURNAL_KEYED_HASH", is_keyed);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn journals_that_systemd_wrote_are_read_as_journalctl_reads_them() {
    let peers = ["journal-remote", "journalctl"].map(|name| peer(env!("CARGO_TARGET_TMPDIR"), name));
    let [Some(remote), Some(journalctl)] = peers else { return };
    let folder = tempfile::tempdir().unwrap();
    let start_us = microseconds_now();
    for kind in 0..KINDS.len() {
        write_journal(&remote, folder.path(), kind, start_us);
    }
    let wanted = by_journalctl(&journalctl, folder.path());
    assert_eq!(wanted.len(), ENTRIES * KINDS.len());
    let sink = LogsSink::default();
    let mut unit = start(folder.path(), &sink).await;
    until("all entries have come", || sink.len() >= wanted.len()).await;
    unit.drain().await;
    unit.world.balance();
    compare(&by_source(&sink), &wanted);
    assert_eq!(damaged(&unit), Some(0.0));
}

/// Makes a place in which journald has a machine to itself, then becomes it: a folder for its files, one for its sockets, and
/// nothing else that the machine has in those places.
const JOURNALD: &str = r#"
set -e
mount -t tmpfs none /run
mount -t tmpfs none /var/log
mkdir -p /run/log /run/systemd/journal /run/systemd/journald.conf.d /var/log/journal
mount --bind "$1/log" /var/log/journal
mount --bind "$1/sockets" /run/systemd/journal
cp "$1/journald.conf" /run/systemd/journald.conf.d/test.conf
test -s /etc/machine-id
touch /run/systemd/journal/flushed
exec "$2"
"#;

const JOURNALD_CONFIG: &str = "[Journal]
Storage=persistent
SplitMode=none
RateLimitIntervalSec=0
SyncIntervalSec=1s
SystemMaxUse=1G
SystemKeepFree=1M
SystemMaxFileSize=1M
SystemMaxFiles=1000
ReadKMsg=no
Audit=no
ForwardToWall=no
";

/// A journald that runs.
struct Journald {
    running: Running,
    socket: UnixDatagram,
}

impl Journald {
    async fn start(journald: &Peer, folder: &Path) -> Self {
        let sockets = folder.join("sockets");
        // That of one that was killed.
        let _ = fs::remove_file(sockets.join("socket"));
        let log = File::options().create(true).append(true).open(folder.join("journald.log")).unwrap();
        let mut command = Command::new("unshare");
        command.args(["-rm", "--propagation", "private", "sh", "-c", JOURNALD, "sh"]).arg(folder).arg(&journald.path);
        command.env("LD_LIBRARY_PATH", journald.library_path()).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let mut running = Running::start(&mut command);
        let socket = until_some("journald listens", || {
            let ended = running.0.try_wait().unwrap();
            let log = || fs::read_to_string(folder.join("journald.log")).unwrap();
            assert!(ended.is_none(), "journald ended with {ended:?}: {}", log());
            let socket = UnixDatagram::unbound().unwrap();
            socket.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
            socket.connect(sockets.join("socket")).ok().map(|()| socket)
        })
        .await;
        Journald { running, socket }
    }

    /// Asks for other files.
    fn rotate(&self) {
        let status = Command::new("kill").arg("-USR2").arg(self.running.0.id().to_string()).status();
        assert!(status.unwrap().success());
    }
}

/// Whether a user may have a machine to himself here, as containers often forbid.
fn may_unshare() -> bool {
    let mut command = Command::new("unshare");
    command.args([
        "-rm",
        "--propagation",
        "private",
        "sh",
        "-c",
        "mount -t tmpfs none /run && test -s /etc/machine-id",
    ]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Entries that are sent to journald, and how often it is to rotate.
const SENT: usize = 10_000;
const ROTATE_EVERY: usize = 900;

#[tokio::test(flavor = "multi_thread")]
async fn what_journald_writes_is_followed_over_rotations_and_its_death() {
    let peers = ["journald", "journalctl"].map(|name| peer(env!("CARGO_TARGET_TMPDIR"), name));
    let [Some(program), Some(journalctl)] = peers else { return };
    if !may_unshare() {
        return say("not run: journald needs namespaces of users and mounts, which this machine does not give");
    }
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    for name in ["log", "sockets"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    fs::write(folder.path().join("journald.conf"), JOURNALD_CONFIG).unwrap();
    let mut journald = Journald::start(&program, folder.path()).await;
    let sink = LogsSink::default();
    let mut unit = start(&log, &sink).await;
    let mut noise = Noise(1);
    for number in 0..SENT {
        let mut entry = fields(number, 60_000, &mut noise);
        field(&mut entry, "NUMBER", number.to_string().as_bytes());
        journald.socket.send(&entry).unwrap();
        // Not at once: whoever asks one that still starts ends it.
        if number > 0 && number % ROTATE_EVERY == 0 {
            journald.rotate();
        }
        if number == SENT / 2 {
            // All that was sent is in the files before it dies.
            arrived(&sink, number).await;
            drop(journald);
            journald = Journald::start(&program, folder.path()).await;
        }
    }
    arrived(&sink, SENT - 1).await;
    drop(journald);
    let wanted = by_journalctl(&journalctl, &log);
    until("all entries have come", || sink.len() >= wanted.len()).await;
    unit.drain().await;
    unit.world.balance();
    let found = by_source(&sink);
    compare(&found, &wanted);
    let numbers = found.iter().filter_map(|(_, fields)| fields.get("NUMBER"));
    assert!(numbers.eq((0..SENT).map(|number| number.to_string()).collect::<Vec<_>>().iter()), "each once, in order");
    assert_eq!(damaged(&unit), Some(0.0));
    let files = fs::read_dir(&log).unwrap().flatten().flat_map(|entry| fs::read_dir(entry.path()).unwrap()).count();
    assert!(files > SENT / ROTATE_EVERY, "it rotated: {files} files");
}

/// Waits until an entry with this number has come.
async fn arrived(sink: &LogsSink, number: usize) {
    let (text, mut seen) = (format!("\"NUMBER\":\"{number}\""), 0);
    until(&format!("entry {number} has come"), || {
        // All are copied to be looked at.
        let new = sink.len() != std::mem::replace(&mut seen, sink.len());
        new && sink.texts().iter().rev().any(|line| line.contains(&text))
    })
    .await;
}
