//! Targets come and go while the program runs, and so do their series.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use super::net::{Response, Target};
use super::peer::{Peer, prometheus};
use super::{QUEUE, until};
use crate::support::{Corten, Folder};

/// The series of targets, without those that a scrape makes beside `up`.
const ALL: &str = r#"{__name__=~"e2e_.+|up"}"#;

/// A configuration that rewrites targets and scrapes them into a peer; `discovery` exports them.
fn config(discovery: &str, targets: &str, rules: &str, peer: &Peer) -> String {
    format!(
        "{discovery}
discovery.relabel \"r\" {{
	targets = {targets}
{rules}
}}
prometheus.scrape \"a\" {{
	targets         = discovery.relabel.r.output
	forward_to      = [prometheus.remote_write.b.receiver]
	job_name        = \"j\"
	scrape_interval = \"200ms\"
	scrape_timeout  = \"200ms\"
}}
prometheus.remote_write \"b\" {{
	endpoint {{
		url = {:?}
		queue_config {{ {QUEUE} }}
	}}
}}
",
        peer.write_url()
    )
}

/// Puts a file in place as a whole.
fn replace(path: &Path, content: &str) {
    let other = path.with_extension("new");
    fs::write(&other, content).expect("a file");
    fs::rename(other, path).expect("a file");
}

/// The series of targets that expose `e2e_a 1`, each given by its labels.
fn of(labels: &[&str]) -> Vec<String> {
    labels.iter().flat_map(|labels| [format!("e2e_a{{{labels}}} 1"), format!("up{{{labels}}} 1")]).collect()
}

#[test]
fn targets_of_files_are_scraped_as_long_as_they_are_listed() {
    let Some(peer) = prometheus() else { return };
    let (first, second) = (Target::start("e2e_a 1\n"), Target::start("e2e_a 1\n"));
    let files = tempfile::tempdir().expect("a folder");
    let (json, yaml) = (files.path().join("one.json"), files.path().join("two.yml"));
    let list = |target: &Target, labels: &str| {
        format!("[{{\"targets\": [\"{}\"], \"labels\": {{{labels}}}}}]", target.address())
    };
    replace(&json, &list(&first, r#""env": "prod", "__meta_team": "a", "instance": "one""#));
    let rules = "
	rule {
		source_labels = [\"env\"]
		regex         = \"test\"
		action        = \"drop\"
	}
	rule {
		regex       = \"__meta_(team)\"
		action      = \"labelmap\"
	}
	rule {
		source_labels = [\"__meta_filepath\"]
		regex         = \".*/(\\\\w+)\\\\.\\\\w+\"
		target_label  = \"file\"
	}";
    let discovery = format!(
        "discovery.file \"d\" {{\n\tfiles = [\"{0}/*.json\", \"{0}/*.yml\"]\n\trefresh_interval = \"1h\"\n}}",
        files.path().display()
    );
    let corten = Corten::start(&config(&discovery, "discovery.file.d.targets", rules, &peer));
    let one = r#"env="prod",file="one",instance="one",job="j",team="a""#;
    peer.expect(ALL, &of(&[one]));
    let port = second.address().port();
    replace(&yaml, &format!("- targets:\n  - 127.0.0.1:{port}\n  labels:\n    instance: two\n    env: dev\n"));
    let two = r#"env="dev",file="two",instance="two",job="j""#;
    peer.expect(ALL, &of(&[one, two]));
    // Other labels are another target, and what a rule drops is none.
    replace(&json, &list(&first, r#""env": "test""#));
    peer.expect(ALL, &of(&[two]));
    ends_in_time(&peer, &format!("e2e_a{{{one}}}"));
    // A file that cannot be read takes nothing away; one that is gone does.
    let scraped = first.scrapes();
    replace(&yaml, "- targets: [");
    second.scraped_more(3);
    peer.expect(ALL, &of(&[two]));
    fs::remove_file(&yaml).expect("a file");
    peer.expect(ALL, &[""; 0]);
    ends_in_time(&peer, &format!("e2e_a{{{two}}}"));
    assert_eq!(first.scrapes(), scraped, "it is scraped no more");
    corten.end();
}

/// A series that ended has a staleness marker at the tick after its last sample: two intervals after that sample, late as
/// it may be, a query does not find it, and right after the sample it does.
fn ends_in_time(peer: &Peer, selector: &str) {
    let (last, _) = peer.samples(selector).expect("a series").pop().expect("a sample");
    let at = |time| peer.series_at(selector, time).expect("an answer").len();
    assert_eq!(at(last + 0.01), 1, "{selector} at {last}");
    assert_eq!(at(last + 0.4), 0, "{selector} behind {last}: {:?}", peer.samples(selector));
}

#[test]
fn targets_of_a_service_are_scraped_as_long_as_it_does_not_say_otherwise() {
    let Some(peer) = prometheus() else { return };
    let (service, target) = (Target::start(""), Target::start("e2e_a 1\n"));
    let json = [("Content-Type", "application/json; charset=utf-8")];
    let lists = |text: String| service.answer(Some(Response::new(200, &json, text)));
    let group = |labels: &str| format!(r#"{{"targets": ["{}"], "labels": {{{labels}}}}}"#, target.address());
    lists(format!("[{}]", group(r#""zone": "z""#)));
    let discovery = format!(
        "discovery.http \"d\" {{\n\turl = \"http://{}/list\"\n\trefresh_interval = \"200ms\"\n}}",
        service.address()
    );
    let rules = "
	rule {
		source_labels = [\"zone\"]
		target_label  = \"instance\"
		replacement   = \"in $1\"
	}
	rule {
		source_labels = [\"__meta_url\"]
		regex         = \"http://[^/]+(/.*)\"
		target_label  = \"path\"
	}";
    let corten = Corten::start(&config(&discovery, "discovery.http.d.targets", rules, &peer));
    let labels = |zone: &str| format!(r#"instance="in {zone}",job="j",path="/list",zone="{zone}""#);
    peer.expect(ALL, &of(&[&labels("z")]));
    lists(format!("[{}, {}]", group(r#""zone": "z""#), group(r#""zone": "y""#)));
    peer.expect(ALL, &of(&[&labels("z"), &labels("y")]));
    // A service that does not know does not say that there is nothing.
    for broken in [Some(Response::new(503, &[], "")), None, Some(Response::new(200, &json, "[{"))] {
        service.answer(broken);
        corten_fails_to_refresh(&corten);
        target.scraped_more(4);
        peer.expect(ALL, &of(&[&labels("z"), &labels("y")]));
    }
    lists("[]".to_owned());
    peer.expect(ALL, &[""; 0]);
    ends_in_time(&peer, &format!("e2e_a{{{}}}", labels("y")));
    corten.end();
}

/// Waits until one more refresh failed.
fn corten_fails_to_refresh(corten: &Corten) {
    let failures = || {
        let metrics = corten.get("/metrics").body;
        let line = metrics.lines().find(|line| line.starts_with("prometheus_sd_http_failures_total"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).ok_or(metrics)
    };
    let before = failures().expect("a metric");
    until("a refresh fails", || match failures()? {
        now if now > before => Ok(()),
        now => Err(now.to_string()),
    });
}

/// The name whose records are asked for.
const NAME: &str = "_metrics._tcp.e2e.test";

/// A server that answers `SRV` questions for [`NAME`] with some hosts and one port; without hosts the name does not exist.
struct Dns {
    address: Ipv4Addr,
    hosts: Arc<Mutex<Vec<String>>>,
    over_tcp: Arc<AtomicBool>,
}

impl Dns {
    /// Listens on port 53 of some address of loopback, because no resolver configuration can name another port. None if
    /// that is not allowed.
    fn start(port: u16) -> Option<Self> {
        static NEXT: AtomicU16 = AtomicU16::new(1);
        let process = std::process::id().to_be_bytes();
        let (udp, tcp, address) = (0..50).find_map(|_| {
            let next = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes()[1];
            let address = Ipv4Addr::new(127, process[2] | 1, process[3], next.clamp(1, 254));
            Some((UdpSocket::bind((address, 53)).ok()?, TcpListener::bind((address, 53)).ok()?, address))
        })?;
        let hosts: Arc<Mutex<Vec<String>>> = Arc::default();
        let over_tcp = Arc::new(AtomicBool::new(false));
        let known = Arc::clone(&hosts);
        std::thread::spawn(move || {
            let mut packet = [0; 1500];
            while let Ok((length, from)) = udp.recv_from(&mut packet) {
                let whole = answer(&packet[..length], &known.lock().expect("hosts"), port);
                let short = match whole {
                    // What does not fit is left out, and a bit says so.
                    Some(whole) if whole.len() > 512 => answer(&packet[..length], &[], port).map(|mut short| {
                        short[2] |= 2;
                        short[3] &= 0xf0;
                        short
                    }),
                    whole => whole,
                };
                // Who does not want the answer any more does not get it.
                let _ = short.map(|short| udp.send_to(&short, from));
            }
        });
        let (known, used) = (Arc::clone(&hosts), Arc::clone(&over_tcp));
        std::thread::spawn(move || {
            for mut stream in tcp.incoming().map_while(Result::ok) {
                let mut length = [0; 2];
                let mut question = Vec::new();
                let read = stream.read_exact(&mut length).and_then(|()| {
                    question.resize(u16::from_be_bytes(length).into(), 0);
                    stream.read_exact(&mut question)
                });
                let Some(whole) = read.ok().and_then(|()| answer(&question, &known.lock().expect("hosts"), port))
                else {
                    continue;
                };
                used.store(true, Ordering::Relaxed);
                let length = u16::try_from(whole.len()).expect("a short answer").to_be_bytes();
                // As above.
                let _ = stream.write_all(&[&length[..], &whole].concat());
            }
        });
        Some(Dns { address, hosts, over_tcp })
    }

    fn set(&self, hosts: impl IntoIterator<Item = String>) {
        *self.hosts.lock().expect("hosts") = hosts.into_iter().collect();
    }
}

/// A name as messages hold it.
fn wire_name(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in name.split('.') {
        out.push(u8::try_from(label.len()).expect("a short label"));
        out.extend(label.as_bytes());
    }
    out.push(0);
    out
}

/// The answer to a message with one question.
fn answer(message: &[u8], hosts: &[String], port: u16) -> Option<Vec<u8>> {
    let end = 12 + message.get(12..)?.iter().position(|byte| *byte == 0)? + 1;
    let question = message.get(12..end + 4)?;
    let name = wire_name(NAME);
    let known = question[..name.len().min(question.len())].eq_ignore_ascii_case(&name)
        && question[name.len()..] == [0, 33, 0, 1];
    let hosts = if known { hosts } else { &[] };
    let mut out = message.get(..2)?.to_vec();
    // An answer, recursion wanted and available, and whether the name exists.
    out.extend([0x81, if hosts.is_empty() { 0x83 } else { 0x80 }, 0, 1]);
    out.extend(u16::try_from(hosts.len()).ok()?.to_be_bytes());
    out.extend([0, 0, 0, 0]);
    out.extend(question);
    for host in hosts {
        let host = wire_name(host);
        // The name of the question, SRV, internet, not to be kept; priority and weight 0.
        out.extend([0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 0]);
        out.extend(u16::try_from(host.len() + 6).ok()?.to_be_bytes());
        out.extend([0, 0, 0, 0]);
        out.extend(port.to_be_bytes());
        out.extend(host);
    }
    Some(out)
}

/// The program under a resolver configuration of its own. It is killed when it is dropped.
struct Resolving(Child);

impl Drop for Resolving {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a command with a file in the place of `/etc/resolv.conf`, which nobody else sees. Both need a system that lets users
/// have their own view of the files.
fn with_resolver(file: &Path, program: &str, arguments: &[String]) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c"]);
    command.arg("mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"").arg(file).arg(program).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

#[test]
fn targets_of_names_are_scraped_as_long_as_there_are_records() {
    let Some(peer) = prometheus() else { return };
    let target = Target::start("e2e_a 1\n");
    let SocketAddr::V4(address) = target.address() else { unreachable!("it is on loopback") };
    let dns = Dns::start(address.port());
    let files = tempfile::tempdir().expect("a folder");
    let conf = files.path().join("resolv.conf");
    fs::write(&conf, format!("nameserver {}\n", dns.as_ref().map_or(Ipv4Addr::LOCALHOST, |dns| dns.address)))
        .expect("a file");
    let allowed = with_resolver(&conf, "true", &[]).status().is_ok_and(|status| status.success());
    let (Some(dns), true) = (dns, allowed) else {
        // Past the test runner, which keeps what tests print that pass.
        let _ = writeln!(std::io::stderr(), "not run: no port 53 on loopback, or no resolv.conf of one's own");
        return;
    };
    dns.set(["a.e2e.test".to_owned()]);
    let discovery = format!("discovery.dns \"d\" {{\n\tnames = [{NAME:?}]\n\trefresh_interval = \"200ms\"\n}}");
    // The hosts have no addresses: what is scraped stands on loopback.
    let rules = "
	rule {
		source_labels = [\"__meta_dns_srv_record_target\"]
		target_label  = \"instance\"
	}
	rule {
		source_labels = [\"__meta_dns_srv_record_port\"]
		target_label  = \"__address__\"
		replacement   = \"127.0.0.1:$1\"
	}
	rule {
		source_labels = [\"__meta_dns_name\"]
		target_label  = \"name\"
	}";
    let folder = Folder::new(&config(&discovery, "discovery.dns.d.targets", rules, &peer));
    let program = env!("CARGO_BIN_EXE_corten");
    let run = with_resolver(&conf, program, &folder.run_arguments(&[])).spawn().expect("the program runs");
    let run = Resolving(run);
    let labels = |host: &str| format!("instance=\"{host}.e2e.test.\",job=\"j\",name={NAME:?}");
    peer.expect(ALL, &of(&[&labels("a")]));
    assert!(!dns.over_tcp.load(Ordering::Relaxed));
    // So many do not fit into a packet.
    let hosts: Vec<String> = (0..40).map(|host| format!("host{host:02}")).collect();
    dns.set(hosts.iter().map(|host| format!("{host}.e2e.test")));
    let many: Vec<String> = hosts.iter().map(|host| labels(host)).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    peer.expect(ALL, &of(&many));
    assert!(dns.over_tcp.load(Ordering::Relaxed));
    ends_in_time(&peer, &format!("e2e_a{{{}}}", labels("a")));
    // A name that does not exist has no targets.
    dns.set([]);
    peer.expect(ALL, &[""; 0]);
    ends_in_time(&peer, &format!("e2e_a{{{}}}", labels("host07")));
    drop(run);
}
