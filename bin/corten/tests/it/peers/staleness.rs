//! Series end when they are no longer exposed, and with their target.

use super::QUEUE;
use super::net::Target;
use super::peer::{Peer, prometheus};
use crate::support::Corten;

const ALL: &str = r#"{__name__=~"e2e_.+|up|scrape_samples_scraped"}"#;

fn config(targets: &[&Target], peer: &Peer) -> String {
    let targets: Vec<String> = targets
        .iter()
        .enumerate()
        .map(|(at, target)| format!("{{ __address__ = \"{}\", instance = \"i{at}\" }}", target.address()))
        .collect();
    format!(
        "prometheus.scrape \"a\" {{
	targets         = [{}]
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
        targets.join(", "),
        peer.write_url()
    )
}

#[test]
fn a_series_that_is_exposed_no_more_ends_at_once() {
    let Some(peer) = prometheus() else { return };
    let target = Target::start("e2e_stays 1\ne2e_goes 2\n");
    let corten = Corten::start(&config(&[&target], &peer));
    let all = r#"{__name__=~"e2e_.+"}"#;
    let (stays, goes) = (r#"e2e_stays{instance="i0",job="j"} 1"#, r#"e2e_goes{instance="i0",job="j"} 2"#);
    peer.expect(all, &[stays, goes]);
    target.show("e2e_stays 1\n");
    // Without a staleness marker the peer would show it for five minutes, much longer than is waited.
    peer.expect(all, &[stays]);
    target.show("e2e_stays 1\ne2e_goes 2\n");
    peer.expect(all, &[stays, goes]);
    // A target that cannot be scraped ends its series, too.
    target.answer(None);
    peer.expect(ALL, &[r#"up{instance="i0",job="j"} 0"#, r#"scrape_samples_scraped{instance="i0",job="j"} 0"#]);
    corten.end();
}

#[test]
fn the_series_of_a_target_that_is_removed_end() {
    let Some(peer) = prometheus() else { return };
    let (first, second) = (Target::start("e2e_a 1\n"), Target::start("e2e_a 2\n"));
    let corten = Corten::start(&config(&[&first, &second], &peer));
    let of = |instance: &str, value| {
        [
            format!("e2e_a{{instance=\"{instance}\",job=\"j\"}} {value}"),
            format!("up{{instance=\"{instance}\",job=\"j\"}} 1"),
            format!("scrape_samples_scraped{{instance=\"{instance}\",job=\"j\"}} 1"),
        ]
    };
    peer.expect(ALL, &[of("i0", 1), of("i1", 2)].concat());
    assert_eq!(corten.reload(&config(&[&first], &peer)).status, 200);
    peer.expect(ALL, &of("i0", 1));
    let last = second.scrapes();
    assert_eq!(corten.reload(&config(&[], &peer)).status, 200);
    peer.expect(ALL, &[""; 0]);
    assert_eq!(second.scrapes(), last, "it is scraped no more");
    corten.end();
}
