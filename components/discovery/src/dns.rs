//! `discovery.dns`: targets that the records of names list.

mod resolver;

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use corten_component::metrics::Counter;
use corten_component::{Component, Context, Error, Logger};
use corten_config::{Arguments, CheckErrors};
use corten_signal::target::Target;
use futures_util::StreamExt as _;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::Offer;
use crate::dns::resolver::Resolver;
use crate::groups::ADDRESS;
use crate::poll::{Discoverer, Found, Poll};

/// How many names are looked up at a time.
const LOOKUPS_MAX: usize = 32;

/// Exports a target for each record of names in the DNS.
///
/// The servers and the search list are those of `/etc/resolv.conf`, which is read for every look-up. A name that does not
/// exist has no targets; a name about which no server gives an answer keeps those that it had. Answers that do not fit
/// into a packet are asked for again over TCP. The targets of a name are sorted, because servers shuffle them.
///
/// Targets get the label `__meta_dns_name`, those of `SRV` records `__meta_dns_srv_record_target` and
/// `__meta_dns_srv_record_port`, those of `MX` records `__meta_dns_mx_record_target`, and those of `NS` records
/// `__meta_dns_ns_record_target`.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Config {
    /// The names to look up.
    names: Vec<String>,
    /// How often to look them up.
    #[arg(default = "30s")]
    refresh_interval: Duration,
    /// The type of the records: `SRV`, `A`, `AAAA`, `MX` or `NS`, in any case.
    #[arg(name = "type", default = "SRV")]
    kind: String,
    /// The port of the targets. Required for all types but `SRV`, whose records say it themselves.
    #[arg(default = 0)]
    port: i64,
}

impl Config {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        match self.record_type() {
            None => errors.push(&["type"], format!("invalid DNS-SD records type {}", self.kind)),
            Some(kind) => {
                let text = "a port is required in DNS-SD configs for all record types except SRV";
                errors.require(kind == RecordType::SRV || self.port != 0, &["port", "type"], text);
            }
        }
        let holds = !self.refresh_interval.is_zero();
        errors.require(holds, &["refresh_interval"], "refresh_interval must be greater than 0");
        errors.into_result()
    }

    fn record_type(&self) -> Option<RecordType> {
        match self.kind.to_ascii_uppercase().as_str() {
            "SRV" => Some(RecordType::SRV),
            "A" => Some(RecordType::A),
            "AAAA" => Some(RecordType::AAAA),
            "MX" => Some(RecordType::MX),
            "NS" => Some(RecordType::NS),
            _ => None,
        }
    }
}

/// The component.
#[derive(Debug)]
pub struct Dns(Poll<Self>);

impl Component for Dns {
    const NAME: &'static str = "discovery.dns";
    type Arguments = Config;
    type Exports = Offer;
    type Prepared = Config;

    async fn prepare(config: Config, _: &Context<Self>, current: Option<&Self>) -> Result<(Config, Offer), Error> {
        Ok((config, Poll::offer(current.map(|current| &current.0))))
    }

    fn commit(current: Option<Self>, config: Config, cx: &Context<Self>) -> Self {
        Dns::start(current, config, Resolver::system(), cx)
    }

    async fn drain(self, _: &Context<Self>) {
        self.0.stop().await;
    }
}

impl Dns {
    fn start(current: Option<Self>, config: Config, resolver: Resolver, cx: &Context<Self>) -> Self {
        let every = config.refresh_interval;
        let asker = Asker {
            config: Arc::new(config),
            resolver: Arc::new(resolver),
            logger: cx.logger().clone(),
            lookups: cx.metrics().counter("prometheus_sd_dns_lookups_total", "The number of DNS-SD lookups."),
            failures: cx
                .metrics()
                .counter("prometheus_sd_dns_lookup_failures_total", "The number of DNS-SD lookup failures."),
        };
        Dns(Poll::start(current.map(|current| current.0), cx, every, move || asker.clone()))
    }
}

/// Looks names up.
#[derive(Clone)]
struct Asker {
    config: Arc<Config>,
    resolver: Arc<Resolver>,
    logger: Logger,
    lookups: Counter,
    failures: Counter,
}

impl Discoverer for Asker {
    const MECHANISM: Option<&'static str> = Some("dns");

    async fn refresh(&mut self) -> Result<Found, String> {
        let this = &*self;
        let lookups = this.config.names.iter().cloned().map(|name| async move {
            let answer = this.look_up(&name).await;
            (name, answer)
        });
        let answers: Vec<_> = futures_util::stream::iter(lookups).buffer_unordered(LOOKUPS_MAX).collect().await;
        let answers: BTreeMap<_, _> = answers.into_iter().collect();
        let mut found = Found::default();
        for (name, answer) in answers {
            if let Err(error) = &answer {
                self.logger.error("Error refreshing DNS targets", &[("err", error.into())]);
                found.problem.get_or_insert_with(|| error.clone());
            }
            // Other arguments ask something else of the same name.
            let source = format!("{name} {} {}", self.config.kind, self.config.port);
            found.groups.insert(source, answer.ok());
        }
        Ok(found)
    }
}

impl Asker {
    async fn look_up(&self, name: &str) -> Result<Vec<Target>, String> {
        // The type was checked when the arguments were decoded.
        let kind = self.config.record_type().unwrap_or(RecordType::SRV);
        let answer = self.resolver.look_up(name, kind, &self.logger).await;
        self.lookups.inc();
        let records = answer.inspect_err(|_| self.failures.inc())?;
        let mut targets: Vec<Target> = Vec::with_capacity(records.len());
        for record in &records {
            targets.extend(self.target(name, record)?);
        }
        targets.sort_by(|a, b| a.iter().cmp(b.iter()));
        Ok(targets)
    }

    /// The target of a record; nothing if it gives none.
    fn target(&self, name: &str, record: &Record) -> Result<Option<Target>, String> {
        let (mut srv, mut srv_port, mut mx, mut ns) = (String::new(), String::new(), String::new(), String::new());
        let port = self.config.port;
        let address = match &record.data {
            RData::SRV(record) => {
                srv = record.target.to_ascii();
                srv_port = record.port.to_string();
                host_port(&bare(&record.target), i64::from(record.port))
            }
            RData::MX(record) => {
                mx = record.exchange.to_ascii();
                host_port(&bare(&record.exchange), port)
            }
            RData::NS(record) => {
                ns = record.0.to_ascii();
                host_port(&bare(&record.0), port)
            }
            RData::A(record) => host_port(&record.0.to_string(), port),
            RData::AAAA(record) => host_port(&address_text(record.0), port),
            // What the name stands for is in the answer as well.
            RData::CNAME(_) => return Ok(None),
            other => {
                self.logger.warn("Invalid record", &[("record", other.to_string().into())]);
                return Ok(None);
            }
        };
        // Those that do not apply are there without a value, as in the reference.
        let target = Target::new([
            (ADDRESS, address.as_str()),
            ("__meta_dns_name", name),
            ("__meta_dns_srv_record_target", &srv),
            ("__meta_dns_srv_record_port", &srv_port),
            ("__meta_dns_mx_record_target", &mx),
            ("__meta_dns_ns_record_target", &ns),
        ]);
        target.map(Some).map_err(|error| error.to_string())
    }
}

/// A name without its last dot.
fn bare(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_owned()
}

/// An address as Go prints it: one of IPv4 that is written in IPv6 as one of IPv4.
fn address_text(address: Ipv6Addr) -> String {
    address.to_ipv4_mapped().map_or_else(|| address.to_string(), |address| address.to_string())
}

fn host_port(host: &str, port: i64) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use corten_component::Definition;
    use corten_testkit::{Unit, World, host, labels, until};
    use hickory_proto::op::{Message, ResponseCode};
    use hickory_proto::rr::rdata::{A, AAAA, CNAME, MX, NS, SRV, TXT};

    use super::*;
    use crate::dns::resolver::tests::{Answers, records, refuse, refusing};

    fn config(names: &[&str], kind: &str, port: i64) -> Config {
        Config {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            refresh_interval: Duration::from_millis(20),
            kind: kind.to_owned(),
            port,
        }
    }

    async fn start(world: &World, config: Config, answers: &Answers) -> Dns {
        Dns::start(None, config, answers.resolver("search example.org"), &world.context::<Dns>())
    }

    fn found(world: &World) -> Vec<String> {
        let exports = world.exports();
        let targets = exports.last().and_then(|exports| exports.field("targets"));
        let lines = targets.map_or_else(Vec::new, |targets| labels(&targets));
        // Without those that have no value.
        let present = |line: &String| {
            line.split(' ')
                .filter(|word| !word.ends_with('='))
                .map(|word| word.replace("__meta_dns_", ""))
                .collect::<Vec<_>>()
        };
        lines.iter().map(|line| present(line).join(" ")).collect()
    }

    async fn until_found(world: &World, expected: &[&str]) {
        until(&format!("the targets are {expected:?}"), || found(world) == expected).await;
    }

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    #[tokio::test]
    async fn records_of_every_type_become_targets() {
        let answers = Answers::start(|query, _| {
            let data = match query.query_type() {
                RecordType::SRV => vec![
                    RData::SRV(SRV::new(0, 0, 3306, name("db2.example.com."))),
                    RData::SRV(SRV::new(0, 0, 3306, name("db1.example.com."))),
                ],
                RecordType::A => vec![
                    RData::CNAME(CNAME(name("other.example.org."))),
                    RData::TXT(TXT::new(vec!["nonsense".to_owned()])),
                    RData::A(A(Ipv4Addr::new(192, 0, 2, 2))),
                    RData::A(A(Ipv4Addr::new(192, 0, 2, 1))),
                ],
                RecordType::AAAA => vec![
                    RData::AAAA(AAAA("::1".parse().unwrap())),
                    RData::AAAA(AAAA("::ffff:192.0.2.1".parse().unwrap())),
                ],
                RecordType::MX => vec![RData::MX(MX::new(0, name("smtp.example.com.")))],
                _ => vec![RData::NS(NS(name("ns1.example.com.")))],
            };
            records(query, data)
        })
        .await;
        for (kind, port, expected) in [
            (
                "SRV",
                0,
                &[
                    "__address__=db1.example.com:3306 name=web.example.org. srv_record_port=3306 \
                     srv_record_target=db1.example.com.",
                    "__address__=db2.example.com:3306 name=web.example.org. srv_record_port=3306 \
                     srv_record_target=db2.example.com.",
                ][..],
            ),
            (
                "a",
                80,
                &["__address__=192.0.2.1:80 name=web.example.org.", "__address__=192.0.2.2:80 name=web.example.org."],
            ),
            (
                "AAAA",
                80,
                &["__address__=192.0.2.1:80 name=web.example.org.", "__address__=[::1]:80 name=web.example.org."],
            ),
            ("MX", 25, &["__address__=smtp.example.com:25 mx_record_target=smtp.example.com. name=web.example.org."]),
            ("NS", 53, &["__address__=ns1.example.com:53 name=web.example.org. ns_record_target=ns1.example.com."]),
        ] {
            let world = host("discovery.dns.x");
            let dns = start(&world, config(&["web.example.org."], kind, port), &answers).await;
            until_found(&world, expected).await;
            dns.drain(&world.context()).await;
            assert!(world.metric("prometheus_sd_dns_lookups_total") >= Some(1.0));
            assert_eq!(world.metric("prometheus_sd_dns_lookup_failures_total"), Some(0.0));
            assert_eq!(world.logs().contains("msg=\"Invalid record\""), kind == "a", "{}", world.logs());
        }
    }

    #[tokio::test]
    async fn labels_that_do_not_apply_are_there_without_a_value() {
        let answers = Answers::start(|query, _| records(query, vec![RData::A(A(Ipv4Addr::LOCALHOST))])).await;
        let world = host("discovery.dns.x");
        let dns = start(&world, config(&["a."], "A", 80), &answers).await;
        until("the target is found", || !found(&world).is_empty()).await;
        let shown = labels(&world.exports().last().unwrap().field("targets").unwrap());
        assert_eq!(
            shown,
            ["__address__=127.0.0.1:80 __meta_dns_mx_record_target= __meta_dns_name=a. __meta_dns_ns_record_target= \
              __meta_dns_srv_record_port= __meta_dns_srv_record_target="]
        );
        dns.drain(&world.context()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_is_gone_loses_its_targets_and_one_that_cannot_be_asked_keeps_them() {
        let mode = Arc::new(parking_lot::Mutex::new(ResponseCode::NoError));
        let modes = Arc::clone(&mode);
        let answers = Answers::start(move |query, _| match (*modes.lock(), query.name().to_ascii().as_str()) {
            (ResponseCode::NoError, _) | (_, "kept.") => records(query, vec![RData::A(A(Ipv4Addr::LOCALHOST))]),
            (code, _) => refusing(query, code),
        })
        .await;
        let world = host("discovery.dns.x");
        let dns = start(&world, config(&["asked.", "kept."], "A", 80), &answers).await;
        let both = ["__address__=127.0.0.1:80 name=asked.", "__address__=127.0.0.1:80 name=kept."];
        until_found(&world, &both).await;
        *mode.lock() = ResponseCode::ServFail;
        until("it is unhealthy", || world.health_text().starts_with("unhealthy: could not resolve \"asked.\"")).await;
        assert_eq!(found(&world), both);
        assert!(world.metric("prometheus_sd_dns_lookup_failures_total") >= Some(1.0));
        assert!(world.logs().contains("msg=\"Error refreshing DNS targets\""), "{}", world.logs());
        let labels = [("mechanism", "dns"), ("config", "")];
        assert_eq!(world.metrics().get("prometheus_sd_refresh_failures_total", &labels), Some(0.0));
        *mode.lock() = ResponseCode::NXDomain;
        until_found(&world, &both[1..]).await;
        until("it is well", || !world.health_text().starts_with("unhealthy")).await;
        dns.drain(&world.context()).await;
    }

    #[tokio::test]
    async fn other_arguments_do_not_keep_what_was_found_under_the_old() {
        let answers = Answers::start(|query, _| match query.query_type() {
            RecordType::A => records(query, vec![RData::A(A(Ipv4Addr::LOCALHOST))]),
            _ => refuse(query),
        })
        .await;
        let world = host("discovery.dns.x");
        let cx = world.context::<Dns>();
        let dns = start(&world, config(&["a.", "b."], "A", 80), &answers).await;
        until("both are found", || found(&world).len() == 2).await;
        let dns = Dns::start(Some(dns), config(&["b."], "A", 80), answers.resolver(""), &cx);
        until_found(&world, &["__address__=127.0.0.1:80 name=b."]).await;
        let dns = Dns::start(Some(dns), config(&["b."], "AAAA", 80), answers.resolver(""), &cx);
        until_found(&world, &[]).await;
        dns.drain(&cx).await;
    }

    #[tokio::test]
    async fn arguments_that_make_no_sense_are_refused() {
        let definition = Definition::of::<Dns>();
        for (more, error) in [
            ("type = \"TXT\"", "invalid DNS-SD records type TXT"),
            ("type = \"A\"", "a port is required in DNS-SD configs for all record types except SRV"),
            ("refresh_interval = \"0s\"", "refresh_interval must be greater than 0"),
        ] {
            let text = format!("names = []\n{more}");
            let refused = Unit::start(host("discovery.dns.x"), &definition, &text).await.unwrap_err();
            assert!(refused.ends_with(error), "{more}: {refused}");
        }
        let mut unit = Unit::start(host("discovery.dns.x"), &definition, "names = []\ntype = \"srv\"").await.unwrap();
        unit.drain().await;
    }

    #[tokio::test]
    async fn a_server_that_never_answers_does_not_hold_up_the_end() {
        let answers = Answers::start(|_, _| None::<Message>).await;
        let world = host("discovery.dns.x");
        let dns = start(&world, config(&["a."], "SRV", 0), &answers).await;
        until("it was asked", || answers.asked() > 0).await;
        let started = std::time::Instant::now();
        dns.drain(&world.context()).await;
        assert!(started.elapsed() < Duration::from_secs(1));
    }
}
