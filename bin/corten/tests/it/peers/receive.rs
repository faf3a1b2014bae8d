//! Other programs send to `prometheus.receive_http`, and what they sent arrives behind it.

use std::net::SocketAddr;

use super::exemplars::{self, open_metrics};
use super::histograms::{every_kind, every_series, now};
use super::net::Target;
use super::peer::{Peer, missing, prometheus, prometheus_agent, vmagent};
use super::values::pipeline_to;
use super::{QUEUE, until};
use crate::support::{Corten, Folder};

const ALL: &str = r#"{__name__=~"e2e_.+"}"#;

/// Lets a program have what is experimental.
const EXPERIMENTAL: &str = "--stability.level=experimental";

/// A program that receives either version, adds a label, drops series, and sends on. Where it receives.
fn receiver(peer: &Peer) -> (Corten, String) {
    let config = format!(
        "prometheus.receive_http \"a\" {{
	http {{
		listen_address = \"127.0.0.1\"
		listen_port    = 0
	}}
	accepted_remote_write_protobuf_messages = [\"prometheus.WriteRequest\", \"io.prometheus.write.v2.Request\"]
	forward_to = [prometheus.relabel.r.receiver]
}}
prometheus.relabel \"r\" {{
	forward_to = [prometheus.remote_write.b.receiver]
	rule {{
		source_labels = [\"__name__\"]
		regex         = \"(e2e_drop.*)|scrape_.*\"
		action        = \"drop\"
	}}
	rule {{
		source_labels = [\"instance\"]
		regex         = \"(.+)\"
		target_label  = \"through\"
		replacement   = \"corten/$1\"
	}}
}}
prometheus.remote_write \"b\" {{
	endpoint {{
		url                    = {:?}
		send_native_histograms = true
		queue_config {{ {QUEUE} }}
	}}
}}
",
        peer.write_url()
    );
    let corten = Corten::start_in(Folder::new(&config), &[EXPERIMENTAL]);
    let line = corten.line("listening for remote write requests");
    let address = line.split("addr=").nth(1).and_then(|rest| rest.split(' ').next()).expect("an address");
    let address: SocketAddr = address.trim_matches('"').parse().expect("an address");
    (corten, format!("http://{address}/api/v1/metrics/write"))
}

/// Series of an instance with the label that the receiver adds. Labels are sorted: only `x` comes after it.
fn through(series: Vec<String>, instance: &str) -> Vec<String> {
    let add = |text: String| {
        let end = text.find(",x=").or_else(|| text.find('}')).expect("labels");
        format!("{},through=\"corten/{instance}\"{}", &text[..end], &text[end..])
    };
    series.into_iter().map(add).collect()
}

#[test]
fn what_a_prometheus_agent_sends_arrives_with_values_staleness_exemplars_and_histograms() {
    let Some(peer) = prometheus() else { return };
    let (corten, url) = receiver(&peer);
    let (text, proto, ticks) = (Target::start(""), Target::start(""), Target::counting());
    // This version of the agent leaves escapes in exemplars as they are.
    let plain = |text: &str| text.replace(r#"b\"c\\d"#, "b");
    text.answer(open_metrics(&format!("{}# TYPE e2e_dropped gauge\ne2e_dropped 1\n", plain(exemplars::PAGE))));
    let targets = [("text", text.address()), ("proto", proto.address()), ("ticks", ticks.address())];
    let Some(agent) = prometheus_agent(&targets, &url) else { return };
    // The agent sends nothing that is older than itself.
    let time = now();
    proto.answer(every_kind(time));
    // Neither does it write bounds as floats.
    let old = |of: Vec<String>| of.iter().map(|text| plain(text).replace("le=\"1.0\"", "le=\"1\"")).collect();
    let of_text = through(old(exemplars::series("text")), "text");
    let of_proto = every_series("proto", ",through=\"corten/proto\"");
    let both = r#"{__name__=~"e2e_.+",instance!="ticks"}"#;
    peer.expect(both, &[of_text.clone(), of_proto].concat());
    peer.expect(
        "up",
        &["text", "proto", "ticks"].map(|i| format!("up{{instance=\"{i}\",job=\"j\",through=\"corten/{i}\"}} 1")),
    );
    let at = time as f64 / 1000.0;
    assert_eq!(peer.samples("e2e_timed").map(|found| found.iter().map(|(time, _)| *time).collect()), Ok(vec![at]));
    peer.expect_exemplars(r#"{instance="text"}"#, &through(old(exemplars::exemplars("text")), "text"));
    // What is gone ends at once; nothing of the rest is lost or repeated.
    proto.show("");
    text.answer(open_metrics("# TYPE e2e_a counter\ne2e_a_total{x=\"1\"} 18\n"));
    let timed = every_series("proto", ",through=\"corten/proto\"").pop().expect("some");
    peer.expect(both, &[of_text[0].replace("17", "18"), timed]);
    let last = ticks.scraped_more(5);
    until("each tick arrives once", || {
        let found = peer.values("e2e_tick")?;
        match found[..] {
            [first, .., newest] if newest as u64 >= last => {
                peer.only_failed(missing(&found, first as u64, newest as u64), "up{instance=\"ticks\"}")
            }
            _ => Err(format!("{found:?} of {last}")),
        }
    });
    drop(agent);
    corten.end();
}

#[test]
fn version_2_brings_one_program_what_another_scraped() {
    let Some(peer) = prometheus() else { return };
    let (last, url) = receiver(&peer);
    let (target, time) = (Target::start(""), now() - 9_876);
    target.answer(every_kind(time));
    let native = "\tscrape_protocols = [\"PrometheusProto\"]\n\tscrape_native_histograms = true";
    let version =
        "endpoint {\n\t\tprotobuf_message = \"io.prometheus.write.v2.Request\"\n\t\tsend_native_histograms = true";
    let config = pipeline_to(&target, native, &[&url]).replace("endpoint {", version);
    let first = Corten::start_in(Folder::new(&config), &[EXPERIMENTAL]);
    let more = ",through=\"corten/i\"";
    peer.expect(ALL, &every_series("i", more));
    let at = time as f64 / 1000.0;
    peer.expect_exemplars(
        ALL,
        &[
            format!(r#"e2e_total{{instance="i",job="j"{more}}} {{trace="of counter"}} 0.5 @{at}"#),
            format!(r#"e2e_whole{{a="1",instance="i",job="j"{more}}} {{trace="of histogram"}} 1.5 @{at}"#),
        ],
    );
    assert_eq!(peer.samples("e2e_timed").map(|found| found.iter().map(|(time, _)| *time).collect()), Ok(vec![at]));
    // All end but what has times of its own.
    target.show("e2e_tick @\n");
    let ticks = target.scrapes();
    let timed = every_series("i", more).pop().expect("some");
    peer.expect(r#"{__name__=~"e2e_.+",__name__!="e2e_tick"}"#, &[timed]);
    let until_tick = target.scraped_more(5) - 1;
    until("each tick arrives once", || {
        let found = peer.values("e2e_tick")?;
        match found[..] {
            [.., newest] if newest as u64 >= until_tick => {
                let missing = missing(&found, (ticks + 1).min(found[0] as u64), newest as u64);
                peer.only_failed(missing, "up")
            }
            _ => Err(format!("{found:?} of {until_tick}")),
        }
    });
    first.end();
    last.end();
}

#[test]
fn what_vmagent_sends_arrives_with_values_and_staleness() {
    let Some(peer) = prometheus() else { return };
    let (corten, url) = receiver(&peer);
    let target = Target::start("e2e_a{x=\"1\"} 0.1\ne2e_tick @\ne2e_goes{x=\"ü\\\"\"} +Inf\ne2e_dropped 1\n");
    let Some(agent) = vmagent(&[("i", target.address())], &url) else { return };
    let tick = r#"{__name__=~"e2e_.+",__name__!="e2e_tick"}"#;
    let labels = r#"instance="i",job="j",through="corten/i""#;
    let stays = format!(r#"e2e_a{{{labels},x="1"}} 0.1"#);
    peer.expect(tick, &[stays.clone(), format!(r#"e2e_goes{{{labels},x="ü\""}} inf"#)]);
    target.show("e2e_a{x=\"1\"} 0.1\ne2e_tick @\n");
    peer.expect(tick, &[stays]);
    until("each tick arrives once", || {
        let found = peer.values("e2e_tick")?;
        let newest = *found.last().ok_or("nothing")?;
        peer.only_failed(missing(&found, 1, newest as u64), "up")
    });
    target.answer(None);
    peer.expect(ALL, &[""; 0]);
    peer.expect("up", &[format!("up{{{labels}}} 0")]);
    drop(agent);
    corten.end();
}
