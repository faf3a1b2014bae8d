//! Exemplars arrive as they were exposed, and hold up nothing where they are not taken.

use super::net::{Response, Target};
use super::peer::{prometheus, victoria_metrics};
use super::until;
use super::values::pipeline;
use crate::support::Corten;

const ALL: &str = r#"{__name__=~"e2e_.+"}"#;

/// The type of the format that has exemplars.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A page in that format.
pub(super) fn open_metrics(text: &str) -> Option<Response> {
    Some(Response::new(200, &[("Content-Type", OPEN_METRICS)], format!("{text}# EOF\n")))
}

/// Counters and a histogram with exemplars, the last of which has no time.
pub(super) const PAGE: &str = "# TYPE e2e_a counter\n\
     e2e_a_total{x=\"1\"} 17 # {trace_id=\"a\",span_id=\"b\\\"c\\\\d\"} 0.67 1700000000.123\n\
     e2e_a_total{x=\"2\"} 3 # {} -2.5e-07 1700000001\n\
     # TYPE e2e_h histogram\n\
     e2e_h_bucket{le=\"1\"} 2 # {trace_id=\"ünï\"} 0.5 1700000002.5\n\
     e2e_h_bucket{le=\"+Inf\"} 3 # {trace_id=\"i\"} 9e+99 1700000003.001\n\
     e2e_h_count 3\ne2e_h_sum 7.5\n";

/// The exemplars of that page, with further labels behind `job` and before the series' own.
pub(super) fn exemplars(instance: &str) -> Vec<String> {
    let labels = format!("instance={instance:?},job=\"j\"");
    vec![
        format!(r#"e2e_a_total{{{labels},x="1"}} {{span_id="b\"c\\d",trace_id="a"}} 0.67 @1700000000.123"#),
        format!(r#"e2e_a_total{{{labels},x="2"}} {{}} -0.00000025 @1700000001"#),
        format!(r#"e2e_h_bucket{{{labels},le="1.0"}} {{trace_id="ünï"}} 0.5 @1700000002.5"#),
        format!(r#"e2e_h_bucket{{{labels},le="+Inf"}} {{trace_id="i"}} {} @1700000003.001"#, 9e99),
    ]
}

/// The series of that page.
pub(super) fn series(instance: &str) -> Vec<String> {
    let labels = format!("instance={instance:?},job=\"j\"");
    vec![
        format!(r#"e2e_a_total{{{labels},x="1"}} 17"#),
        format!(r#"e2e_a_total{{{labels},x="2"}} 3"#),
        format!(r#"e2e_h_bucket{{{labels},le="1.0"}} 2"#),
        format!(r#"e2e_h_bucket{{{labels},le="+Inf"}} 3"#),
        format!(r#"e2e_h_count{{{labels}}} 3"#),
        format!(r#"e2e_h_sum{{{labels}}} 7.5"#),
    ]
}

#[test]
fn exemplars_arrive_where_they_are_taken_and_samples_everywhere() {
    let (Some(peer), Some(without), Some(victoria)) = (prometheus(), prometheus(), victoria_metrics()) else { return };
    let target = Target::start("");
    target.answer(open_metrics(PAGE));
    let config = pipeline(&target, "", &[&without, &peer, &victoria]);
    let corten = Corten::start(&config.replacen("endpoint {", "endpoint {\n\t\tsend_exemplars = false", 1));
    for peer in [&peer, &without, &victoria] {
        peer.expect(ALL, &series("i"));
    }
    peer.expect_exemplars(ALL, &exemplars("i"));
    // The same exemplar again is none; another is.
    target.scraped_more(3);
    target.answer(open_metrics(&PAGE.replace("0.67 1700000000.123", "0.68 1700000000.124")));
    let mut more = exemplars("i");
    more.push(more[0].replace("0.67 @1700000000.123", "0.68 @1700000000.124"));
    peer.expect_exemplars(ALL, &more);
    assert_eq!(without.exemplars(ALL), Ok(Vec::new()));
    corten.end();
}

#[test]
fn an_exemplar_without_a_time_has_that_of_its_sample() {
    let Some(peer) = prometheus() else { return };
    let target = Target::start("");
    target.answer(open_metrics("# TYPE e2e_a counter\ne2e_a_total @ # {n=\"@\"} 1\n"));
    let corten = Corten::start(&pipeline(&target, "", &[&peer]));
    until("there are some", || {
        // What is asked for last is newest: no exemplar is there whose sample was asked for too early.
        let exemplars = peer.exemplars(ALL)?;
        let samples = peer.samples("e2e_a_total")?;
        let of = |time: f64, tick: &serde_json::Value| {
            let tick = tick.as_str().unwrap_or_default();
            format!(r#"e2e_a_total{{instance="i",job="j"}} {{n="{tick}"}} 1 @{time}"#)
        };
        let known: Vec<String> = samples.iter().map(|(time, tick)| of(*time, tick)).collect();
        assert!(exemplars.iter().all(|exemplar| known.contains(exemplar)), "{exemplars:#?} of {known:#?}");
        if exemplars.len() >= 3 { Ok(()) } else { Err(format!("{exemplars:#?}")) }
    });
    corten.end();
}
