//! Asking name servers, with the difference between "there is no such name" and "nobody could tell" that discovery needs
//! and that ordinary resolvers hide behind their caches and fallbacks.
//!
//! Messages are those of RFC 1035 with the larger packets of RFC 6891; the configuration is that of resolv.conf(5).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use corten_component::Logger;
use corten_files::read_limited;
use hickory_proto::op::{Edns, Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{Name, Record, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket, lookup_host};
use tokio::time::timeout;

/// Where systems keep their configuration.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The largest configuration that is read.
const CONF_BYTES_MAX: usize = 1 << 20;

/// The port of name servers.
const PORT: u16 = 53;

/// How long a server may take to answer, and to accept a connection.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// The largest packet that is asked for: what gets through every network without being cut in pieces.
const PACKET_BYTES_MAX: u16 = 1232;

/// The most servers, and the most domains of the search list, that are used.
const SERVERS_MAX: usize = 16;
const SEARCH_MAX: usize = 32;

/// Asks the servers of a configuration.
#[derive(Debug)]
pub(super) struct Resolver {
    conf: PathBuf,
    port: u16,
}

/// What a configuration says.
#[derive(Debug, PartialEq)]
struct Conf {
    servers: Vec<String>,
    search: Vec<String>,
    ndots: usize,
}

impl Resolver {
    /// Asks the servers of this machine.
    pub(super) fn system() -> Self {
        Resolver { conf: PathBuf::from(RESOLV_CONF), port: PORT }
    }

    /// The records of a name. A name without a dot at its end may be one of several, by the search list: the first that
    /// exists counts. No records if none of them exists, or the one that does has none of this type.
    ///
    /// # Errors
    ///
    /// When nobody can tell, which is not the same as no records.
    pub(super) async fn look_up(&self, name: &str, kind: RecordType, logger: &Logger) -> Result<Vec<Record>, String> {
        let path = self.conf.clone();
        let read = tokio::task::spawn_blocking(move || read_limited(&path, CONF_BYTES_MAX));
        let read = read.await.unwrap_or_else(|error| Err(error.to_string()));
        let (text, _) = read.map_err(|error| format!("could not load resolv.conf: {error}"))?;
        let conf = Conf::parse(&String::from_utf8_lossy(&text));
        let mut all_answered = true;
        for candidate in conf.candidates(name) {
            match self.ask_any(&conf, &candidate, kind, logger).await {
                Ok(Some(records)) => return Ok(records),
                Ok(None) => {}
                Err(_) => all_answered = false,
            }
        }
        if all_answered {
            return Ok(Vec::new());
        }
        Err(format!("could not resolve {name:?}: all servers responded with errors to at least one search domain"))
    }

    /// The records of a name, or nothing if it does not exist, from the first server that knows.
    async fn ask_any(
        &self,
        conf: &Conf,
        name: &str,
        kind: RecordType,
        logger: &Logger,
    ) -> Result<Option<Vec<Record>>, String> {
        let query = Name::from_str_relaxed(name).map(|name| Query::query(name, kind));
        let query = query.map_err(|error| format!("{name:?} is no name: {error}"))?;
        for server in &conf.servers {
            let error = match self.ask(server, &query).await {
                Ok(answer) if answer.metadata.response_code == ResponseCode::NoError => {
                    return Ok(Some(answer.answers));
                }
                Ok(answer) if answer.metadata.response_code == ResponseCode::NXDomain => return Ok(None),
                Ok(answer) => format!("server answered: {}", answer.metadata.response_code),
                Err(error) => error,
            };
            let fields = [("server", server.into()), ("name", name.into()), ("err", error.into())];
            logger.warn("DNS resolution failed", &fields);
        }
        Err(format!("could not resolve {name}: no servers returned a viable answer"))
    }

    /// Asks one server: with a packet, and over a connection if the answer does not fit.
    async fn ask(&self, server: &str, query: &Query) -> Result<Message, String> {
        // An address takes no look-up; this way the interface of a local one is understood as well.
        let looked_up = async { lookup_host((server, self.port)).await.map_err(|error| error.to_string()) };
        let address = within("address", looked_up).await?.next().ok_or("server has no address")?;
        let answer = within("answer", by_packet(address, query)).await?;
        if !answer.metadata.truncation {
            return Ok(answer);
        }
        let stream =
            within("connection", async { TcpStream::connect(address).await.map_err(|e| e.to_string()) }).await?;
        let answer = within("answer", by_connection(stream, query)).await?;
        if answer.metadata.truncation {
            return Err("answer is longer than an answer can be".to_owned());
        }
        Ok(answer)
    }
}

async fn within<T>(what: &str, future: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    timeout(ANSWER_MAX, future).await.unwrap_or_else(|_| Err(format!("no {what} within {ANSWER_MAX:?}")))
}

/// A message with a number that nobody can guess.
fn message(query: &Query) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.queries.push(query.clone());
    message
}

/// Whether this is the answer to that, as far as can be told.
fn answers(answer: &Message, asked: &Message) -> bool {
    let same = |query: &Query| {
        asked.queries.iter().any(|asked| asked.name() == query.name() && asked.query_type() == query.query_type())
    };
    answer.metadata.id == asked.metadata.id
        && answer.metadata.message_type == MessageType::Response
        && answer.queries.iter().all(same)
}

async fn by_packet(server: SocketAddr, query: &Query) -> Result<Message, String> {
    let text = |error: std::io::Error| error.to_string();
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    // Every question has a port of its own, and only the server it was sent to is listened to.
    let socket = UdpSocket::bind(any).await.map_err(text)?;
    socket.connect(server).await.map_err(text)?;
    let mut asked = message(query);
    let mut edns = Edns::new();
    edns.set_max_payload(PACKET_BYTES_MAX);
    asked.edns = Some(edns);
    socket.send(&asked.to_vec().map_err(|error| error.to_string())?).await.map_err(text)?;
    let mut packet = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut packet).await.map_err(text)?;
        match Message::from_vec(&packet[..length]) {
            Ok(answer) if answers(&answer, &asked) => return Ok(answer),
            // Not the answer to this question: it may still come.
            Ok(_) => {}
            Err(error) if packet[..length].starts_with(&asked.metadata.id.to_be_bytes()) => {
                return Err(format!("answer is malformed: {error}"));
            }
            Err(_) => {}
        }
    }
}

async fn by_connection(mut stream: TcpStream, query: &Query) -> Result<Message, String> {
    let text = |error: std::io::Error| error.to_string();
    let asked = message(query);
    let bytes = asked.to_vec().map_err(|error| error.to_string())?;
    let length = u16::try_from(bytes.len()).map_err(|_| "question is too long")?;
    // In one write, as some servers want it.
    let framed = [&length.to_be_bytes()[..], &bytes].concat();
    stream.write_all(&framed).await.map_err(text)?;
    let length = stream.read_u16().await.map_err(text)?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await.map_err(text)?;
    let answer = Message::from_vec(&bytes).map_err(|error| format!("answer is malformed: {error}"))?;
    if answers(&answer, &asked) { Ok(answer) } else { Err("answer is to another question".to_owned()) }
}

impl Conf {
    fn parse(text: &str) -> Self {
        let mut conf = Conf { servers: Vec::new(), search: Vec::new(), ndots: 1 };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => conf.servers.extend(words.next().map(str::to_owned)),
                // Of these two the last counts.
                Some("domain") => conf.search = words.take(1).map(str::to_owned).collect(),
                Some("search") => conf.search = words.map(str::to_owned).collect(),
                Some("options") => {
                    for number in words.filter_map(|word| word.strip_prefix("ndots:")) {
                        conf.ndots = number.parse::<i64>().map_or(0, |number| number.clamp(0, 15)) as usize;
                    }
                }
                _ => {}
            }
        }
        // The root, which systemd-resolved writes where there is nothing to search, leads to the name itself.
        conf.search.retain(|domain| domain.contains(|c| c != '.'));
        conf.servers.truncate(SERVERS_MAX);
        conf.search.truncate(SEARCH_MAX);
        conf
    }

    /// The names that a name may stand for, in the order in which they are tried.
    fn candidates(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let labels = name.split('.').count();
        let absolute = format!("{name}.");
        let mut candidates: Vec<String> =
            self.search.iter().map(|domain| format!("{name}.{}.", domain.trim_end_matches('.'))).collect();
        if labels > self.ndots {
            candidates.insert(0, absolute);
        } else {
            candidates.push(absolute);
        }
        candidates
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use corten_testkit::{World, host};
    use hickory_proto::op::OpCode;
    use hickory_proto::rr::RData;
    use hickory_proto::rr::rdata::A;
    use proptest::prelude::*;
    use tokio::net::TcpListener;

    use super::*;

    /// A name server on loopback, for packets and connections.
    pub(in super::super) struct Answers {
        port: u16,
        asked: Arc<AtomicUsize>,
        /// Where its configuration is kept.
        world: World,
        tasks: Vec<tokio::task::JoinHandle<()>>,
    }

    impl Drop for Answers {
        fn drop(&mut self) {
            self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
        }
    }

    /// The answer with these records.
    pub(in super::super) fn records(query: &Query, data: Vec<RData>) -> Option<Message> {
        let mut answer = Message::response(0, OpCode::Query);
        answer.queries.push(query.clone());
        answer.answers = data.into_iter().map(|data| Record::from_rdata(query.name().clone(), 60, data)).collect();
        Some(answer)
    }

    /// The answer with this code.
    pub(in super::super) fn refusing(query: &Query, code: ResponseCode) -> Option<Message> {
        let mut answer = records(query, Vec::new())?;
        answer.metadata.response_code = code;
        Some(answer)
    }

    /// The answer that nobody can use.
    pub(in super::super) fn refuse(query: &Query) -> Option<Message> {
        refusing(query, ResponseCode::Refused)
    }

    impl Answers {
        /// Starts a server that answers with what `answer` makes of a question, and whether it came over a connection.
        pub(in super::super) async fn start(
            answer: impl Fn(&Query, bool) -> Option<Message> + Send + Sync + 'static,
        ) -> Self {
            Self::at(Ipv4Addr::LOCALHOST, 0, answer).await
        }

        async fn at(
            address: Ipv4Addr,
            port: u16,
            answer: impl Fn(&Query, bool) -> Option<Message> + Send + Sync + 'static,
        ) -> Self {
            // The port that one kind got may be taken for the other.
            let (packets, connections) = loop {
                let connections = TcpListener::bind((address, port)).await.unwrap();
                let port = connections.local_addr().unwrap().port();
                if let Ok(packets) = UdpSocket::bind((address, port)).await {
                    break (packets, connections);
                }
            };
            let port = packets.local_addr().unwrap().port();
            let asked = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&asked);
            let reply = Arc::new(move |bytes: &[u8], connected: bool| {
                counted.fetch_add(1, Ordering::Relaxed);
                let question = Message::from_vec(bytes).unwrap();
                assert!(question.metadata.recursion_desired);
                let mut message = answer(&question.queries[0], connected)?;
                // A number of its own means that the answer is to be taken for one to another question.
                if message.metadata.id == 0 {
                    message.metadata.id = question.metadata.id;
                }
                Some(message.to_vec().unwrap())
            });
            let replies = Arc::clone(&reply);
            let by_packet = tokio::spawn(async move {
                let mut packet = [0; 4096];
                loop {
                    let (length, from) = packets.recv_from(&mut packet).await.unwrap();
                    if let Some(bytes) = replies(&packet[..length], false) {
                        packets.send_to(&bytes, from).await.unwrap();
                    }
                }
            });
            let by_connection = tokio::spawn(async move {
                loop {
                    let (mut stream, _) = connections.accept().await.unwrap();
                    let length = stream.read_u16().await.unwrap();
                    let mut bytes = vec![0; usize::from(length)];
                    stream.read_exact(&mut bytes).await.unwrap();
                    if let Some(bytes) = reply(&bytes, true) {
                        stream.write_u16(bytes.len() as u16).await.unwrap();
                        stream.write_all(&bytes).await.unwrap();
                    }
                }
            });
            Answers { port, asked, world: host("discovery.dns.conf"), tasks: vec![by_packet, by_connection] }
        }

        /// A resolver that asks this server, with further lines of configuration.
        pub(in super::super) fn resolver(&self, more: &str) -> Resolver {
            let conf = self.world.write("resolv.conf", format!("nameserver 127.0.0.1\n{more}\n"));
            Resolver { conf, port: self.port }
        }

        /// How often it was asked.
        pub(in super::super) fn asked(&self) -> usize {
            self.asked.load(Ordering::Relaxed)
        }
    }

    fn one(query: &Query) -> Option<Message> {
        records(query, vec![RData::A(A(Ipv4Addr::LOCALHOST))])
    }

    async fn look_up(resolver: &Resolver, name: &str) -> Result<usize, String> {
        let world = host("discovery.dns.x");
        let context = world.context::<crate::dns::Dns>();
        resolver.look_up(name, RecordType::A, context.logger()).await.map(|records| records.len())
    }

    #[test]
    fn the_configuration_is_read_as_systems_read_it() {
        for (text, servers, search, ndots) in [
            ("", &[][..], &[][..], 1),
            ("nameserver 192.0.2.1\nnameserver ::1 # x\nnameserver", &["192.0.2.1", "::1"], &[], 1),
            ("search a.org b.org\noptions ndots:5 timeout:1", &[], &["a.org", "b.org"], 5),
            ("search a.org\ndomain b.org c.org", &[], &["b.org"], 1),
            ("domain b.org\nsearch a.org", &[], &["a.org"], 1),
            ("domain b.org\ndomain", &[], &[], 1),
            ("nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .", &["127.0.0.53"], &[], 1),
            ("search a.org . b.org", &[], &["a.org", "b.org"], 1),
            ("options ndots:99\n", &[], &[], 15),
            ("options ndots:-1\n", &[], &[], 0),
            ("options ndots:x\n", &[], &[], 0),
            ("# nameserver a\n; nameserver b\n", &[], &[], 1),
        ] {
            let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
            let expected = Conf { servers: owned(servers), search: owned(search), ndots };
            assert_eq!(Conf::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn the_search_list_comes_before_or_after_the_name_itself() {
        let conf = Conf::parse("search x.org y.org.\noptions ndots:2");
        for (name, candidates) in [
            ("a.b.c.", &["a.b.c."][..]),
            ("a", &["a.x.org.", "a.y.org.", "a."]),
            ("a.b", &["a.b.x.org.", "a.b.y.org.", "a.b."]),
            ("a.b.c", &["a.b.c.", "a.b.c.x.org.", "a.b.c.y.org."]),
        ] {
            assert_eq!(conf.candidates(name), candidates, "{name}");
        }
    }

    #[tokio::test]
    async fn the_first_name_that_exists_counts() {
        let server = Answers::start(|query, _| match query.name().to_ascii().as_str() {
            "web.y.org." => one(query),
            // It exists, and has no such record.
            "empty.x.org." => records(query, Vec::new()),
            "broken.x.org." => refuse(query),
            _ => refusing(query, ResponseCode::NXDomain),
        })
        .await;
        let resolver = server.resolver("search x.org y.org");
        assert_eq!(look_up(&resolver, "web").await, Ok(1));
        assert_eq!(server.asked(), 2);
        assert_eq!(look_up(&resolver, "empty").await, Ok(0));
        assert_eq!(server.asked(), 3);
        assert_eq!(look_up(&resolver, "missing").await, Ok(0));
        assert_eq!(server.asked(), 6);
        let error = "could not resolve \"broken\": all servers responded with errors to at least one search domain";
        assert_eq!(look_up(&resolver, "broken").await, Err(error.to_owned()));
        // A machine without a search list.
        assert_eq!(look_up(&server.resolver("search ."), "missing").await, Ok(0));
    }

    #[tokio::test]
    async fn an_answer_that_does_not_fit_is_asked_for_over_a_connection() {
        let server = Answers::start(|query, connected| {
            let many = (0..2_000u16).map(|n| RData::A(A(Ipv4Addr::new(10, 0, (n >> 8) as u8, n as u8))));
            let mut answer = records(query, if connected { many.collect() } else { Vec::new() })?;
            answer.metadata.truncation = !connected;
            Some(answer)
        })
        .await;
        assert_eq!(look_up(&server.resolver(""), "a.").await, Ok(2_000));
        assert_eq!(server.asked(), 2);
    }

    #[tokio::test]
    async fn an_answer_that_never_fits_is_an_error() {
        let server = Answers::start(|query, _| {
            let mut answer = one(query)?;
            answer.metadata.truncation = true;
            Some(answer)
        })
        .await;
        assert!(look_up(&server.resolver(""), "a.").await.is_err());
    }

    #[tokio::test]
    async fn the_next_server_is_asked_when_the_first_cannot_tell() {
        let good = Answers::start(|query, _| one(query)).await;
        let bad = Answers::at(Ipv4Addr::new(127, 0, 0, 2), good.port, |query, _| refuse(query)).await;
        let conf = good.world.write("resolv.conf", "nameserver 127.0.0.2\nnameserver 127.0.0.1\n");
        let resolver = Resolver { conf, port: good.port };
        let world = host("discovery.dns.x");
        let context = world.context::<crate::dns::Dns>();
        let records = resolver.look_up("a.", RecordType::A, context.logger()).await.unwrap();
        assert_eq!((records.len(), bad.asked(), good.asked()), (1, 1, 1));
        assert!(world.logs().contains("msg=\"DNS resolution failed\""), "{}", world.logs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_silent_or_answers_another_question_is_given_up() {
        let silent = Answers::start(|_, _| None).await;
        assert!(look_up(&silent.resolver(""), "a.").await.is_err());
        let other = Answers::start(|query, _| {
            let mut answer = one(query)?;
            answer.queries = vec![Query::query(Name::from_ascii("b.").ok()?, RecordType::A)];
            Some(answer)
        })
        .await;
        assert!(look_up(&other.resolver(""), "a.").await.is_err());
        let forged = Answers::start(|query, _| {
            let mut answer = one(query)?;
            // One of 65,536 questions has this number, and then the next has another.
            answer.metadata.id = 1;
            Some(answer)
        })
        .await;
        let resolver = forged.resolver("");
        assert!(look_up(&resolver, "a.").await.is_err() || look_up(&resolver, "a.").await.is_err());
    }

    #[tokio::test]
    async fn an_answer_that_is_garbage_is_given_up_at_once() {
        for garbage in [&[][..], &[0xff; 10], &[0xff; 1_000], &[0x80, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 0, 0xc0, 0x0c]] {
            let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let port = server.local_addr().unwrap().port();
            let answering = tokio::spawn(async move {
                let mut packet = [0; 512];
                let (_, from) = server.recv_from(&mut packet).await.unwrap();
                server.send_to(&[&packet[..2], garbage].concat(), from).await.unwrap();
            });
            let world = host("discovery.dns.x");
            let conf = world.write("resolv.conf", "nameserver 127.0.0.1\n");
            let context = world.context::<crate::dns::Dns>();
            let resolver = Resolver { conf, port };
            let started = std::time::Instant::now();
            let outcome = resolver.look_up("a.", RecordType::A, context.logger()).await;
            assert!(outcome.is_err() && started.elapsed() < ANSWER_MAX, "{outcome:?} {:?}", started.elapsed());
            assert!(world.logs().contains("err=\"answer is malformed: "), "{}", world.logs());
            answering.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_connection_that_is_closed_before_the_answer_is_an_error() {
        let server = Answers::start(|query, connected| {
            let mut answer = one(query)?;
            answer.metadata.truncation = true;
            (!connected).then_some(answer)
        })
        .await;
        assert!(look_up(&server.resolver(""), "a.").await.is_err());
        assert_eq!(server.asked(), 2);
    }

    #[tokio::test]
    async fn what_is_no_name_or_no_configuration_is_an_error() {
        let server = Answers::start(|query, _| one(query)).await;
        assert!(look_up(&server.resolver(""), &"x".repeat(64)).await.is_err());
        assert!(look_up(&server.resolver(""), "a..b.").await.is_err());
        assert_eq!(server.asked(), 0);
        let resolver = Resolver { conf: PathBuf::from("/nonexistent"), port: 1 };
        let error = look_up(&resolver, "a.").await.unwrap_err();
        assert_eq!(error, "could not load resolv.conf: open /nonexistent: no such file or directory");
    }

    proptest! {
        #[test]
        fn any_configuration_is_read(text in any::<String>(), name in "[a-z.]{0,10}") {
            let conf = Conf::parse(&text);
            prop_assert!(conf.servers.len() <= SERVERS_MAX && conf.ndots <= 15);
            prop_assert!(conf.candidates(&name).iter().all(|candidate| candidate.ends_with('.')));
        }

        #[test]
        fn any_bytes_are_an_answer_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            let query = Query::query(Name::root(), RecordType::A);
            if let Ok(answer) = Message::from_vec(&bytes) {
                answers(&answer, &message(&query));
            }
        }
    }
}
