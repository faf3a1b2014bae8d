//! Values and labels arrive as they were exposed.

use std::time::{SystemTime, UNIX_EPOCH};

use super::net::{Response, Target};
use super::peer::{Peer, prometheus, victoria_metrics};
use super::{QUEUE, until};
use crate::support::Corten;

/// A configuration that scrapes one target ten times a second into peers.
pub(super) fn pipeline(target: &Target, arguments: &str, peers: &[&Peer]) -> String {
    let urls: Vec<String> = peers.iter().map(|peer| peer.write_url()).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    pipeline_to(target, arguments, &urls)
}

/// As [`pipeline`], with the addresses that are sent to.
pub(super) fn pipeline_to(target: &Target, arguments: &str, urls: &[&str]) -> String {
    let endpoints: String = urls
        .iter()
        .map(|url| format!("\tendpoint {{\n\t\turl = {url:?}\n\t\tqueue_config {{ {QUEUE} }}\n\t}}\n"))
        .collect();
    format!(
        "prometheus.scrape \"a\" {{
	targets         = [{{ __address__ = \"{}\", instance = \"i\" }}]
	forward_to      = [prometheus.remote_write.b.receiver]
	job_name        = \"j\"
	scrape_interval = \"200ms\"
	scrape_timeout  = \"200ms\"
{arguments}
}}
prometheus.remote_write \"b\" {{
{endpoints}
}}
",
        target.address()
    )
}

#[test]
fn what_is_exposed_arrives_with_its_values_and_labels() {
    let (Some(prometheus), Some(victoria)) = (prometheus(), victoria_metrics()) else { return };
    let target = Target::start(
        "# HELP e2e_gauge A gauge.\n# TYPE e2e_gauge gauge\n\
         e2e_gauge{a=\"1\",empty=\"\"} 0.1\n\
         e2e_gauge{a=\"quote\\\" back\\\\ line\\nend\"} -2.5e-07\n\
         e2e_gauge{a=\"ünï\",b=\"two\"} +Inf\n\
         e2e_gauge -Inf\n\
         # TYPE e2e_total counter\ne2e_total 9007199254740992\n\
         # TYPE e2e_summary summary\n\
         e2e_summary{quantile=\"1\"} 7\ne2e_summary_sum 8\ne2e_summary_count 9\n",
    );
    let corten = Corten::start(&pipeline(&target, "", &[&prometheus, &victoria]));
    let wanted = [
        r#"e2e_gauge{a="1",instance="i",job="j"} 0.1"#,
        r#"e2e_gauge{a="quote\" back\\ line\nend",instance="i",job="j"} -0.00000025"#,
        r#"e2e_gauge{a="ünï",b="two",instance="i",job="j"} inf"#,
        r#"e2e_gauge{instance="i",job="j"} -inf"#,
        r#"e2e_total{instance="i",job="j"} 9007199254740992"#,
        r#"e2e_summary{instance="i",job="j",quantile="1.0"} 7"#,
        r#"e2e_summary_sum{instance="i",job="j"} 8"#,
        r#"e2e_summary_count{instance="i",job="j"} 9"#,
    ];
    for peer in [&prometheus, &victoria] {
        peer.expect(r#"{__name__=~"e2e_.+"}"#, &wanted);
    }
    // What a peer makes of special values of its own accord is left out: only Prometheus keeps NaN.
    target.show("e2e_nan NaN\n");
    prometheus.expect(r#"{__name__=~"e2e_.+"}"#, &[r#"e2e_nan{instance="i",job="j"} NaN"#]);
    corten.end();
}

#[test]
fn a_target_that_answers_is_up_and_one_that_does_not_is_not() {
    let Some(peer) = prometheus() else { return };
    let target = Target::start("e2e_a 1\ne2e_b 2\n");
    let corten = Corten::start(&pipeline(&target, "", &[&peer]));
    let up = |value| [format!("up{{instance=\"i\",job=\"j\"}} {value}")];
    peer.expect("up", &up(1));
    peer.expect("scrape_samples_scraped", &[r#"scrape_samples_scraped{instance="i",job="j"} 2"#]);
    for broken in [Some(Response::new(500, &[], "")), None, Some(Response::new(200, &[], "no exposition {"))] {
        target.answer(broken);
        peer.expect("up", &up(0));
        target.show("e2e_a 1\n");
        peer.expect("up", &up(1));
    }
    corten.end();
}

#[test]
fn bounds_of_classic_histograms_are_written_as_floats() {
    let Some(peer) = prometheus() else { return };
    let target = Target::start(
        "# TYPE e2e_h histogram\n\
         e2e_h_bucket{le=\"0.5\"} 1\ne2e_h_bucket{le=\"1\"} 2\ne2e_h_bucket{le=\"10\"} 3\ne2e_h_bucket{le=\"+Inf\"} 4\n\
         e2e_h_sum 5.5\ne2e_h_count 4\n",
    );
    let corten = Corten::start(&pipeline(&target, "", &[&peer]));
    peer.expect(
        r#"{__name__=~"e2e_.+"}"#,
        &[
            r#"e2e_h_bucket{instance="i",job="j",le="0.5"} 1"#,
            r#"e2e_h_bucket{instance="i",job="j",le="1.0"} 2"#,
            r#"e2e_h_bucket{instance="i",job="j",le="10.0"} 3"#,
            r#"e2e_h_bucket{instance="i",job="j",le="+Inf"} 4"#,
            r#"e2e_h_sum{instance="i",job="j"} 5.5"#,
            r#"e2e_h_count{instance="i",job="j"} 4"#,
        ],
    );
    corten.end();
}

#[test]
fn labels_of_the_target_give_way_only_where_they_are_honored() {
    let Some(peer) = prometheus() else { return };
    let target = Target::start("e2e_a{job=\"theirs\",instance=\"\"} 1\n");
    let corten = Corten::start(&pipeline(&target, "", &[&peer]));
    peer.expect("e2e_a", &[r#"e2e_a{exported_job="theirs",instance="i",job="j"} 1"#]);
    let reloaded = corten.reload(&pipeline(&target, "\thonor_labels = true", &[&peer]));
    assert_eq!(reloaded.status, 200, "{reloaded:?}");
    // The series that were before are stale at once. An empty label that is honored takes the target's away.
    peer.expect("e2e_a", &[r#"e2e_a{job="theirs"} 1"#]);
    corten.end();
}

#[test]
fn times_that_are_exposed_are_kept_where_they_are_honored() {
    let Some(peer) = prometheus() else { return };
    let before = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() - 60_000;
    let target = Target::start(&format!("e2e_a 1 {before}\ne2e_b 2\n"));
    let corten = Corten::start(&pipeline(&target, "", &[&peer]));
    let seconds = before as f64 / 1000.0;
    peer.expect("timestamp(e2e_a)", &[format!("{{instance=\"i\",job=\"j\"}} {seconds}")]);
    assert!(peer.series(&format!("timestamp(e2e_b) > {seconds} + 50")).is_ok_and(|series| series.len() == 1));
    let reloaded = corten.reload(&pipeline(&target, "\thonor_timestamps = false", &[&peer]));
    assert_eq!(reloaded.status, 200, "{reloaded:?}");
    until("the time of the scrape is used", || match peer.series(&format!("timestamp(e2e_a) > {seconds} + 50"))? {
        found if found.len() == 1 => Ok(()),
        found => Err(format!("{found:?}")),
    });
    corten.end();
}

#[test]
fn rules_and_external_labels_change_what_arrives() {
    let (Some(plain), Some(ruled)) = (prometheus(), prometheus()) else { return };
    let target = Target::start("e2e_keep{team=\"a\"} 1\ne2e_drop{team=\"a\"} 2\ne2e_private{team=\"b\"} 3\n");
    let corten = Corten::start(&format!(
        "prometheus.scrape \"a\" {{
	targets         = [{{ __address__ = \"{}\", instance = \"i\", __meta_x = \"y\" }}]
	forward_to      = [prometheus.relabel.r.receiver]
	job_name        = \"j\"
	scrape_interval = \"200ms\"
	scrape_timeout  = \"200ms\"
}}
prometheus.relabel \"r\" {{
	forward_to = [prometheus.remote_write.b.receiver]
	rule {{
		source_labels = [\"__name__\"]
		regex         = \"e2e_drop\"
		action        = \"drop\"
	}}
	rule {{
		source_labels = [\"team\", \"job\"]
		separator     = \"/\"
		target_label  = \"owner\"
	}}
}}
prometheus.remote_write \"b\" {{
	external_labels = {{ cluster = \"c\", team = \"never\" }}
	endpoint {{
		url = {:?}
		queue_config {{ {QUEUE} }}
	}}
	endpoint {{
		url = {:?}
		queue_config {{ {QUEUE} }}
		write_relabel_config {{
			source_labels = [\"cluster\", \"__name__\"]
			regex         = \"c;e2e_private\"
			action        = \"drop\"
		}}
		write_relabel_config {{
			regex  = \"owner\"
			action = \"labeldrop\"
		}}
	}}
}}
",
        target.address(),
        plain.write_url(),
        ruled.write_url()
    ));
    let all = r#"{__name__=~"e2e_.+"}"#;
    plain.expect(
        all,
        &[
            r#"e2e_keep{cluster="c",instance="i",job="j",owner="a/j",team="a"} 1"#,
            r#"e2e_private{cluster="c",instance="i",job="j",owner="b/j",team="b"} 3"#,
        ],
    );
    ruled.expect(all, &[r#"e2e_keep{cluster="c",instance="i",job="j",team="a"} 1"#]);
    // A series without the label gets the external one.
    plain.expect("up", &[r#"up{cluster="c",instance="i",job="j",owner="/j",team="never"} 1"#]);
    corten.end();
}
