//! The names of hosts that send messages.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use corten_files::read_limited;
use corten_signal::regex::GoRegex;
use corten_signal::relabel::{Action, RelabelRules};
use hickory_proto::op::{Message, MessageType, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use parking_lot::Mutex;
use tokio::net::{UdpSocket, lookup_host};

/// The label that the name becomes.
const LABEL: &str = "__syslog_connection_hostname";

/// How long finding out a name may take. A host whose name is not found in time has none.
const LOOK_UP_MAX: Duration = Duration::from_secs(1);

/// For how long it is remembered that nobody said the name of a host in time.
const UNANSWERED_MAX: Duration = Duration::from_secs(60);

/// After so many questions in a row that were not answered none are asked for a while: packets must not wait a second each
/// because the name servers are down.
const SILENCES_MAX: u32 = 3;
const SILENCE: Duration = Duration::from_secs(10);

/// The largest file that is read.
const FILE_BYTES_MAX: usize = 1 << 20;

/// The most name servers that are asked, and the longest answer.
const SERVERS_MAX: usize = 3;
const ANSWER_BYTES_MAX: usize = 4 << 10;

/// Whether a rule may look at the name of a host.
pub(super) fn are_wanted(rules: &RelabelRules) -> bool {
    rules.0.iter().any(|rule| {
        let copies = || GoRegex::anchored(rule.regex.as_str()).is_ok_and(|regex| regex.is_match(LABEL));
        rule.source_labels.iter().any(|label| label == LABEL)
            || (rule.action == Action::LabelMap && copies())
            || matches!(rule.action, Action::KeepEqual | Action::DropEqual) && rule.target_label == LABEL
    })
}

/// Finds out the names of hosts, and remembers some.
#[derive(Debug)]
pub(super) struct Names {
    hosts: PathBuf,
    conf: PathBuf,
    port: u16,
    remembered_max: usize,
    remembered: Mutex<Remembered>,
}

#[derive(Debug, Default)]
struct Remembered {
    names: HashMap<IpAddr, Known>,
    asked: u64,
    /// Questions in a row that were not answered, and when the last one was.
    silences: u32,
    silent_since: Option<Instant>,
}

/// What is known of a host.
#[derive(Debug)]
struct Known {
    name: String,
    /// When it was last asked for.
    asked: u64,
    /// When nobody answered.
    unanswered: Option<Instant>,
}

impl Names {
    /// The names that this machine knows.
    pub(super) fn system(remembered_max: usize) -> Self {
        Names {
            hosts: PathBuf::from("/etc/hosts"),
            conf: PathBuf::from("/etc/resolv.conf"),
            port: 53,
            remembered_max: remembered_max.max(1),
            remembered: Mutex::default(),
        }
    }

    /// The names of a host, joined by commas; empty where there is none, or nobody says so in time. That, too, is
    /// remembered, for a while.
    pub(super) async fn remembered(&self, address: IpAddr) -> String {
        let may_ask = {
            let mut remembered = self.remembered.lock();
            if let Some(name) = remembered.get(address) {
                return name;
            }
            remembered.may_ask()
        };
        let found = self.look_up(address, may_ask).await;
        let mut remembered = self.remembered.lock();
        if may_ask {
            remembered.note(found.is_some());
        }
        if may_ask || found.is_some() {
            remembered.insert(address, found.clone(), self.remembered_max);
        }
        found.unwrap_or_default()
    }

    /// The names of a host, without remembering.
    pub(super) async fn find(&self, address: IpAddr) -> String {
        self.look_up(address, true).await.unwrap_or_default()
    }

    /// The names of a host; nothing where nobody said so in time.
    async fn look_up(&self, address: IpAddr, may_ask: bool) -> Option<String> {
        let names = async {
            let known = read(&self.hosts).await;
            let known: Vec<String> = of_hosts(&known, address).map(str::to_owned).collect();
            match known.is_empty() {
                false => Some(known),
                true if may_ask => self.ask(address).await,
                true => None,
            }
        };
        tokio::time::timeout(LOOK_UP_MAX, names).await.ok().flatten().map(|names| names.join(","))
    }

    async fn ask(&self, address: IpAddr) -> Option<Vec<String>> {
        let conf = read(&self.conf).await;
        let query = Query::query(Name::from(address), RecordType::PTR);
        let servers = conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.split_whitespace().next());
        for server in servers.take(SERVERS_MAX) {
            let Some(server) = lookup_host((server, self.port)).await.ok().and_then(|mut found| found.next()) else {
                continue;
            };
            // Another server is asked only where this one does not answer; all of them together have a second.
            if let Ok(Some(names)) = tokio::time::timeout(LOOK_UP_MAX / 2, ask(server, &query)).await {
                return Some(names);
            }
        }
        None
    }
}

impl Remembered {
    fn get(&mut self, address: IpAddr) -> Option<String> {
        self.asked += 1;
        let known = self.names.get_mut(&address)?;
        if known.unanswered.is_some_and(|since| since.elapsed() >= UNANSWERED_MAX) {
            return None;
        }
        known.asked = self.asked;
        Some(known.name.clone())
    }

    /// Whether name servers may be asked now.
    fn may_ask(&self) -> bool {
        self.silences < SILENCES_MAX || self.silent_since.is_none_or(|since| since.elapsed() >= SILENCE)
    }

    /// Notes whether a question was answered.
    fn note(&mut self, is_answered: bool) {
        self.silences = if is_answered { 0 } else { self.silences.saturating_add(1) };
        self.silent_since = (!is_answered).then(Instant::now);
    }

    fn insert(&mut self, address: IpAddr, name: Option<String>, names_max: usize) {
        while self.names.len() >= names_max && !self.names.contains_key(&address) {
            let oldest = self.names.iter().min_by_key(|(_, known)| known.asked).map(|(address, _)| *address);
            let Some(oldest) = oldest else { break };
            self.names.remove(&oldest);
        }
        let unanswered = name.is_none().then(Instant::now);
        self.names.insert(address, Known { name: name.unwrap_or_default(), asked: self.asked, unanswered });
    }
}

/// The text of a file; empty where it cannot be read.
async fn read(path: &Path) -> String {
    let path = path.to_owned();
    let text = tokio::task::spawn_blocking(move || read_limited(&path, FILE_BYTES_MAX)).await;
    text.ok().and_then(Result::ok).map(|(text, _)| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default()
}

/// The names that a table of hosts has for an address.
fn of_hosts(table: &str, address: IpAddr) -> impl Iterator<Item = &str> {
    let is_of =
        move |line: &&str| words_of(line).next().and_then(|first| first.parse::<IpAddr>().ok()) == Some(address);
    table.lines().filter(is_of).flat_map(|line| words_of(line).skip(1))
}

fn words_of(line: &str) -> std::str::SplitWhitespace<'_> {
    line.split('#').next().unwrap_or_default().split_whitespace()
}

/// Asks a name server.
async fn ask(server: SocketAddr, query: &Query) -> Option<Vec<String>> {
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    // Every question has a port of its own, and only the server it was sent to is listened to.
    let socket = UdpSocket::bind(any).await.ok()?;
    socket.connect(server).await.ok()?;
    let mut asked = Message::query();
    asked.metadata.recursion_desired = true;
    asked.queries.push(query.clone());
    socket.send(&asked.to_vec().ok()?).await.ok()?;
    let mut packet = vec![0; ANSWER_BYTES_MAX];
    loop {
        let len = socket.recv(&mut packet).await.ok()?;
        let Ok(answer) = Message::from_vec(&packet[..len]) else { continue };
        if answer.metadata.id != asked.metadata.id || answer.metadata.message_type != MessageType::Response {
            continue;
        }
        let names = answer.answers.iter().filter_map(|record| match &record.data {
            RData::PTR(name) => Some(name.0.to_string()),
            _ => None,
        });
        return Some(names.collect());
    }
}

#[cfg(test)]
mod tests {
    use corten_signal::relabel::Rule;
    use hickory_proto::rr::Record;
    use hickory_proto::rr::rdata::PTR;

    use super::*;

    #[test]
    fn only_rules_that_can_see_the_name_want_it() {
        let rule = |action, source: &str, regex: &str| Rule {
            action,
            source_labels: Vec::from([source.to_owned()]),
            regex: regex.into(),
            ..Rule::default()
        };
        for (rules, wanted) in [
            (vec![], false),
            (vec![rule(Action::Replace, "__syslog_message_hostname", "(.*)")], false),
            (vec![rule(Action::Replace, LABEL, "(.*)")], true),
            (vec![rule(Action::LabelMap, "", "__syslog_message_(.+)")], false),
            (vec![rule(Action::LabelMap, "", "__syslog_(.+)")], true),
        ] {
            assert_eq!(are_wanted(&RelabelRules(rules.into())), wanted);
        }
    }

    #[tokio::test]
    async fn names_come_from_the_table_of_hosts_or_from_a_name_server() {
        let dir = tempfile::tempdir().unwrap();
        let (hosts, conf) = (dir.path().join("hosts"), dir.path().join("resolv.conf"));
        std::fs::write(&hosts, "127.0.0.1 localhost me # not me\n::1\tsix\n#10.0.0.1 no\n127.0.0.1 again\n").unwrap();
        std::fs::write(&conf, "search x\nnameserver 127.0.0.1\n").unwrap();
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        let serving = tokio::spawn(async move {
            let mut packet = [0; 1000];
            for _ in 0..2 {
                let (len, from) = server.recv_from(&mut packet).await.unwrap();
                let mut answer = Message::from_vec(&packet[..len]).unwrap();
                answer.metadata.message_type = MessageType::Response;
                let name = answer.queries[0].name().clone();
                for host in ["a.example.", "b.example."] {
                    let data = RData::PTR(PTR(Name::from_ascii(host).unwrap()));
                    answer.answers.push(Record::from_rdata(name.clone(), 60, data));
                }
                server.send_to(b"nonsense", from).await.unwrap();
                server.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        });
        let names = Names { hosts, conf, port, ..Names::system(2) };
        for (address, expected) in
            [("127.0.0.1", "localhost,me,again"), ("::1", "six"), ("10.0.0.1", "a.example.,b.example.")]
        {
            assert_eq!(names.find(address.parse().unwrap()).await, expected);
        }
        // Asked once, it is remembered, until others are asked for.
        for _ in 0..3 {
            assert_eq!(names.remembered([10, 0, 0, 2].into()).await, "a.example.,b.example.");
        }
        serving.await.unwrap();
        for last in 1..9 {
            names.remembered([127, 0, 0, last].into()).await;
            assert!(names.remembered.lock().names.len() <= 2);
        }
    }

    #[tokio::test]
    async fn name_servers_that_do_not_answer_are_left_alone_for_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let conf = dir.path().join("resolv.conf");
        std::fs::write(&conf, "nameserver 127.0.0.1\n").unwrap();
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = silent.local_addr().unwrap().port();
        let names = Names { hosts: dir.path().join("none"), conf, port, ..Names::system(1000) };
        let mut packet = [0; 1000];
        for last in 0..=255 {
            assert_eq!(names.remembered([10, 0, 0, last].into()).await, "");
        }
        let mut asked = 0;
        while tokio::time::timeout(Duration::from_millis(500), silent.recv(&mut packet)).await.is_ok() {
            asked += 1;
        }
        assert_eq!(asked, SILENCES_MAX);
        // Later they are asked again, also for hosts that nobody knew before.
        {
            let mut remembered = names.remembered.lock();
            remembered.silent_since = remembered.silent_since.map(|since| since - SILENCE);
            let known = remembered.names.get_mut(&IpAddr::from([10, 0, 0, 0])).unwrap();
            known.unanswered = known.unanswered.map(|since| since - UNANSWERED_MAX);
        }
        let (name, ()) = tokio::join!(names.remembered([10, 0, 0, 0].into()), async {
            let (len, from) = silent.recv_from(&mut packet).await.unwrap();
            let mut answer = Message::from_vec(&packet[..len]).unwrap();
            answer.metadata.message_type = MessageType::Response;
            let data = RData::PTR(PTR(Name::from_ascii("a.example.").unwrap()));
            answer.answers.push(Record::from_rdata(answer.queries[0].name().clone(), 60, data));
            silent.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
        });
        assert_eq!(name, "a.example.");
        assert!(names.remembered.lock().may_ask());
    }
}
