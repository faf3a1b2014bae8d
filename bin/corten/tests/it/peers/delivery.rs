//! What was scraped arrives, whatever happens on the way.

use std::net::SocketAddr;
use std::time::Duration;

use super::net::{Gate, Response, Target};
use super::peer::{missing, prometheus, victoria_metrics};
use super::{QUEUE, until};
use crate::support::Corten;

/// The series of a counting target.
const TICKS: &str = "e2e_tick";

fn scrape(target: &Target) -> String {
    format!(
        "prometheus.scrape \"a\" {{
	targets         = [{{ __address__ = \"{}\" }}]
	forward_to      = [prometheus.remote_write.b.receiver]
	scrape_interval = \"200ms\"
	scrape_timeout  = \"200ms\"
}}
",
        target.address()
    )
}

fn write(endpoints: &[SocketAddr]) -> String {
    let endpoints: String = endpoints
        .iter()
        .map(|address| {
            format!(
                "\tendpoint {{\n\t\turl = \"http://{address}/api/v1/write\"\n\t\tqueue_config {{ {QUEUE} }}\n\t}}\n"
            )
        })
        .collect();
    format!("prometheus.remote_write \"b\" {{\n{endpoints}}}\n")
}

/// Ends the scraping with the next configuration. How often the target was scraped.
fn stop_scraping(corten: &Corten, target: &Target, rest: &str) -> u64 {
    let reloaded = corten.reload(rest);
    assert_eq!(reloaded.status, 200, "{reloaded:?}");
    until("nothing scrapes", || {
        let components = corten.get("/api/v0/web/components").body;
        if components.contains("prometheus.scrape") { Err(components) } else { Ok(()) }
    });
    target.scrapes()
}

#[test]
fn an_endpoint_that_is_down_affects_no_other_and_gets_everything_once_when_it_comes_up() {
    let (Some(prometheus), Some(victoria)) = (prometheus(), victoria_metrics()) else { return };
    let (gate, target) = (Gate::before(victoria.address, false), Target::counting());
    let write = write(&[prometheus.address, gate.address()]);
    let corten = Corten::start(&format!("{}{write}", scrape(&target)));
    let last = target.scraped_more(10);
    until("the other endpoint has what was scraped", || {
        let found = prometheus.values(TICKS)?;
        prometheus.only_failed((last as usize - 1).saturating_sub(found.len()), "up")
    });
    assert!(!gate.seen().is_empty(), "it was tried");
    assert_eq!(victoria.values(TICKS), Ok(Vec::new()));
    gate.open();
    target.scraped_more(5);
    let last = stop_scraping(&corten, &target, &write);
    prometheus.expect_counted(TICKS, last);
    victoria.expect_counted(TICKS, last);
    assert_eq!(victoria.series(&format!("count_over_time({TICKS}[1h])")).map(|found| found.len()), Ok(1));
    corten.end();
}

#[test]
fn what_was_forwarded_before_a_kill_arrives_after_the_next_start() {
    let Some(peer) = victoria_metrics() else { return };
    let (gate, target) = (Gate::before(peer.address, false), Target::counting());
    let write = write(&[gate.address()]);
    let corten = Corten::start(&format!("{}{write}", scrape(&target)));
    target.scraped_more(10);
    let folder = corten.kill();
    // The last scrape may have been under way: its sample was not forwarded, or was.
    let last = target.scrapes();
    folder.write(&write);
    gate.open();
    let corten = Corten::start_in(folder, &[]);
    until("all that was forwarded arrives", || {
        let found = peer.values(TICKS)?;
        let is_last_there = found.last() == Some(&(last as f64));
        let forwarded = if is_last_there { last } else { last - 1 };
        peer.only_failed(missing(&found, 1, forwarded), "up")
    });
    corten.end();
}

#[test]
fn what_waits_when_the_program_ends_arrives_after_the_next_start() {
    let Some(peer) = victoria_metrics() else { return };
    let (gate, target) = (Gate::before(peer.address, false), Target::counting());
    let write = write(&[gate.address()]);
    let corten = Corten::start(&format!("{}{write}", scrape(&target)));
    target.scraped_more(5);
    let folder = corten.end_keeping();
    let last = target.scrapes();
    folder.write(&write);
    gate.open();
    let corten = Corten::start_in(folder, &[]);
    // A scrape that is under way when the program is asked to end is finished.
    peer.expect_counted(TICKS, last);
    corten.end();
}

#[test]
fn a_reload_that_does_not_change_a_scrape_loses_and_repeats_nothing() {
    let Some(peer) = victoria_metrics() else { return };
    let target = Target::counting();
    let write = write(&[peer.address]);
    let config = format!("{}{write}", scrape(&target));
    let corten = Corten::start(&config);
    for round in 0..5 {
        target.scraped_more(2);
        // Something else changes, and so does what is sent to.
        let changed = config.replace("\"100ms\"", &format!("\"{}ms\"", 200 + round));
        assert_ne!(changed, config);
        let other = format!("prometheus.echo \"e{round}\" {{ }}\n");
        let reloaded = corten.reload(&format!("{changed}\n{other}"));
        assert_eq!(reloaded.status, 200, "{reloaded:?}");
    }
    target.scraped_more(2);
    let last = stop_scraping(&corten, &target, &write);
    peer.expect_counted(TICKS, last);
    corten.end();
}

#[test]
fn an_endpoint_that_asks_to_wait_is_waited_for() {
    let Some(peer) = victoria_metrics() else { return };
    let (gate, target) = (Gate::before(peer.address, true), Target::counting());
    gate.answer_next(Response::new(429, &[("Retry-After", "2")], "slow down"));
    let write = write(&[gate.address()]);
    let corten = Corten::start(&format!("{}{write}", scrape(&target)));
    let seen = until("it is tried again", || match gate.seen() {
        seen if seen.len() >= 2 => Ok(seen),
        seen => Err(format!("{} requests", seen.len())),
    });
    assert!(seen[1].0 - seen[0].0 >= Duration::from_secs(2), "{:?}", seen[1].0 - seen[0].0);
    assert_eq!(seen[0].1.body, seen[1].1.body, "the same is sent again");
    let last = stop_scraping(&corten, &target, &write);
    peer.expect_counted(TICKS, last);
    corten.end();
}

#[test]
fn what_an_endpoint_refuses_for_good_is_given_up_and_what_follows_arrives() {
    let Some(peer) = prometheus() else { return };
    let (gate, target) = (Gate::before(peer.address, true), Target::counting());
    gate.answer_next(Response::new(400, &[], "out of order"));
    let write = write(&[gate.address()]);
    let corten = Corten::start(&format!("{}{write}", scrape(&target)));
    until("something is refused", || if gate.seen().is_empty() { Err(String::new()) } else { Ok(()) });
    target.scraped_more(5);
    let last = stop_scraping(&corten, &target, &write);
    until("what follows arrives", || {
        let found = peer.values(TICKS)?;
        let first = *found.first().ok_or("nothing")? as u64;
        if first == 1 {
            return Err(format!("{found:?} of {last}"));
        }
        peer.only_failed(missing(&found, first, last), "up")
    });
    let metrics = corten.get("/metrics").body;
    let failed = metrics.lines().find(|line| line.starts_with("prometheus_remote_storage_samples_failed_total{"));
    assert!(failed.is_some_and(|line| !line.ends_with(" 0")), "{failed:?}");
    corten.end();
}

#[test]
fn secrets_are_sent_and_never_shown() {
    let Some(peer) = prometheus() else { return };
    let (gate, down, target) =
        (Gate::before(peer.address, true), Gate::before(peer.address, false), Target::counting());
    // Of the two kinds of credentials those of the URL win.
    let endpoint = |gate: &Gate, name: &str, credentials: &str| {
        format!(
            "\tendpoint {{
		name    = \"{name}\"
		url     = \"http://{credentials}{}/api/v1/write?token=s3cret-query\"
		headers = {{ \"X-Key\" = convert.nonsensitive(local.file.key.content) }}
		basic_auth {{
			username = \"u\"
			password = \"s3cret-password\"
		}}
		queue_config {{ {QUEUE} }}
	}}
",
            gate.address()
        )
    };
    let folder = crate::support::Folder::new("");
    let file = folder.path().join("key");
    std::fs::write(&file, "not-hidden").expect("a file");
    folder.write(&format!(
        "logging {{\n\tlevel = \"debug\"\n}}
local.file \"key\" {{
	filename  = {file:?}
	is_secret = true
}}
{}
prometheus.remote_write \"b\" {{
{}{}
}}
",
        scrape(&target).replace("forward_to", "bearer_token = \"s3cret-token\"\n\tforward_to"),
        endpoint(&gate, "up", ""),
        endpoint(&down, "down", "user:s3cret-url@")
    ));
    let corten = Corten::start_in(folder, &[]);
    let seen = until("it is sent", || gate.seen().pop().ok_or_else(|| "nothing".to_owned())).1;
    // `u:s3cret-password` in Base64.
    assert_eq!(seen.header("authorization"), Some("Basic dTpzM2NyZXQtcGFzc3dvcmQ="), "{:?}", seen.headers);
    assert_eq!(seen.header("x-key"), Some("not-hidden"));
    let seen = until("the other is tried", || down.seen().pop().ok_or_else(|| "nothing".to_owned())).1;
    // `user:s3cret-url`.
    assert_eq!(seen.header("authorization"), Some("Basic dXNlcjpzM2NyZXQtdXJs"), "{:?}", seen.headers);
    corten.line("Failed to send batch, retrying");
    let ids = ["prometheus.scrape.a", "prometheus.remote_write.b", "local.file.key"];
    let details = ids.map(|id| corten.get(&format!("/api/v0/web/components/{id}")));
    assert!(details.iter().all(|answer| answer.status == 200), "{details:#?}");
    let shown = [corten.get("/metrics").body, corten.get("/api/v0/web/components").body];
    let log = corten.end().join("\n");
    for text in shown.iter().chain([&log]) {
        assert!(!text.contains("s3cret"), "{text}");
        assert!(!text.contains("dTpzM2Ny") && !text.contains("dXNlcjpz"), "{text}");
    }
    // A URL is shown there as it was written: as in the reference it is a plain string of the configuration.
    for text in details.map(|answer| answer.body) {
        assert!(!text.contains("s3cret-password") && !text.contains("s3cret-token"), "{text}");
    }
}
