//! Names of the machine in the network.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::net::{UdpSocket, lookup_host};
use tokio::time::timeout;

use super::outside::Outside;

/// How long a name server may take.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(1);
/// How many name servers and how many domains are tried.
const SERVERS_MAX: usize = 3;
const DOMAINS_MAX: usize = 6;

/// The full name: what `/etc/hosts` calls the machine first, or else what the DNS calls it or one of its addresses.
pub(super) async fn full(own: &str, outside: &Outside) -> Option<String> {
    let hosts = outside.file("/etc/hosts").await.unwrap_or_default();
    if let Some(name) = of_hosts(&hosts, own) {
        return Some(name);
    }
    match canonical(own, outside).await {
        Some(name) => Some(name),
        None => of_address(own, outside).await,
    }
}

/// The first name in the line of `/etc/hosts` that has a name.
fn of_hosts(hosts: &str, own: &str) -> Option<String> {
    let lines = hosts.lines().map(|line| line.split('#').next().unwrap_or_default());
    lines
        .map(|line| line.split_ascii_whitespace().skip(1).collect::<Vec<_>>())
        .find_map(|names| names.contains(&own).then(|| names[0].trim_end_matches('.').to_owned()))
}

/// The name at the end of the chain of aliases in the DNS.
pub(super) async fn canonical(own: &str, outside: &Outside) -> Option<String> {
    let conf = Conf::read(outside).await;
    let names = conf.candidates(own);
    for name in names {
        for kind in [RecordType::A, RecordType::AAAA] {
            if let Some(answer) = conf.ask(&name, kind).await
                && let Some(last) = answer.answers.iter().rev().find(|record| record.record_type() == kind)
            {
                return Some(last.name.to_utf8().trim_end_matches('.').to_owned());
            }
        }
    }
    None
}

/// The name that the DNS gives to one of the machine's addresses.
pub(super) async fn of_address(own: &str, outside: &Outside) -> Option<String> {
    let conf = Conf::read(outside).await;
    for address in timeout(ANSWER_WAIT_MAX, lookup_host((own, 0))).await.ok()?.ok()? {
        if let Some(answer) = conf.ask(&Name::from(address.ip()).to_ascii(), RecordType::PTR).await {
            let name = answer.answers.iter().find_map(|record| match &record.data {
                RData::PTR(name) => Some(name.to_utf8().trim_end_matches('.').to_owned()),
                _ => None,
            });
            if name.is_some() {
                return name;
            }
        }
    }
    None
}

/// What `/etc/resolv.conf` says.
struct Conf {
    servers: Vec<IpAddr>,
    domains: Vec<String>,
}

impl Conf {
    async fn read(outside: &Outside) -> Self {
        Self::parse(&outside.file("/etc/resolv.conf").await.unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let (mut servers, mut domains) = (Vec::new(), Vec::new());
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => servers.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok())),
                Some("search" | "domain") => domains = words.map(str::to_owned).collect(),
                _ => {}
            }
        }
        servers.truncate(SERVERS_MAX);
        domains.truncate(DOMAINS_MAX);
        Conf { servers, domains }
    }

    /// The names that a name without a dot may stand for.
    fn candidates(&self, name: &str) -> Vec<String> {
        let itself = format!("{}.", name.trim_end_matches('.'));
        let within = self.domains.iter().map(|domain| format!("{itself}{}.", domain.trim_matches('.')));
        if name.contains('.') {
            std::iter::once(itself.clone()).chain(within).collect()
        } else {
            within.chain([itself.clone()]).collect()
        }
    }

    async fn ask(&self, name: &str, kind: RecordType) -> Option<Message> {
        let name = Name::from_ascii(name).ok()?;
        for server in &self.servers {
            let asked = timeout(ANSWER_WAIT_MAX, exchange((*server, 53).into(), &name, kind)).await;
            if let Ok(Some(answer)) = asked {
                return Some(answer);
            }
        }
        None
    }
}

async fn exchange(server: SocketAddr, name: &Name, kind: RecordType) -> Option<Message> {
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await.ok()?;
    socket.connect(server).await.ok()?;
    let mut query = Message::query();
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(name.clone(), kind));
    socket.send(&query.to_vec().ok()?).await.ok()?;
    let mut packet = [0; 4096];
    let len = socket.recv(&mut packet).await.ok()?;
    let answer = Message::from_vec(packet.get(..len)?).ok()?;
    (answer.metadata.id == query.metadata.id).then_some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_file_has_the_full_name_first() {
        let hosts = "127.0.0.1 localhost\n10.0.0.7 web-1.example.org web-1 # web-2\n";
        assert_eq!(of_hosts(hosts, "web-1").as_deref(), Some("web-1.example.org"));
        assert_eq!(of_hosts(hosts, "web-2"), None);
    }

    #[test]
    fn short_names_are_looked_for_in_the_domains_first() {
        let conf = Conf::parse("nameserver 10.0.0.1\nnameserver x\nsearch a.org b.org.\noptions ndots:2\n");
        assert_eq!(conf.servers, [IpAddr::from([10, 0, 0, 1])]);
        assert_eq!(conf.candidates("web"), ["web.a.org.", "web.b.org.", "web."]);
        assert_eq!(conf.candidates("web.x"), ["web.x.", "web.x.a.org.", "web.x.b.org."]);
    }
}
