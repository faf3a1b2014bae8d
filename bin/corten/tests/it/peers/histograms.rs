//! Native histograms arrive where they are taken, and hold up nothing where they are not.

use super::net::{Response, Target};
use super::peer::{prometheus, victoria_metrics};
use super::protobuf::{DELIMITED, Message, delimited, exemplar, label, spans};
use super::until;
use super::values::pipeline;
use crate::support::Corten;

const ALL: &str = r#"{__name__=~"e2e_.+"}"#;

/// The arguments of a scrape of native histograms.
const SCRAPE: &str = "\tscrape_protocols = [\"PrometheusProto\"]\n\tscrape_native_histograms = true";

/// Types of metric families.
const COUNTER: u64 = 0;
const HISTOGRAM: u64 = 4;
const GAUGE_HISTOGRAM: u64 = 5;

fn family(name: &str, kind: u64, metric: Message) -> Message {
    Message::new().bytes(1, name).bytes(2, "Help.").number(3, kind).message(4, metric)
}

/// Observations as whole numbers, of schema 0: 2 in (0.5, 1], 1 in (1, 2], 300 in (4, 8], 1 in [-2, -1), 1 of zero; their
/// sum is 1800.5.
pub(super) fn whole() -> Message {
    let histogram = Message::new().number(1, 305).double(2, 1800.5).zigzag(5, 0).double(6, 0.001).number(7, 1);
    let histogram = spans(histogram, 9, &[(1, 1)]).zigzag(10, 1);
    spans(histogram, 12, &[(0, 2), (1, 1)]).zigzag(13, 2).zigzag(13, -1).zigzag(13, 299)
}

/// What Prometheus answers of it.
pub(super) const WHOLE: &str = concat!(
    r#"{"buckets":[[1,"-2","-1","1"],[3,"-0.001","0.001","1"],[0,"0.5","1","2"],[0,"1","2","1"],[0,"4","8","300"]],"#,
    r#""count":"305","sum":"1800.5"}"#
);

/// Observations as fractions, of schema -1: 0.25 in (1, 4], 1.5 in (64, 256].
fn fractions() -> Message {
    let histogram = Message::new().double(4, 1.75).double(2, 200.25).zigzag(5, -1).double(6, 1e-128);
    spans(histogram, 12, &[(1, 1), (2, 1)]).double(14, 0.25).double(14, 1.5)
}

const FRACTIONS: &str = r#"{"buckets":[[0,"1","4","0.25"],[0,"64","256","1.5"]],"count":"1.75","sum":"200.25"}"#;

fn page(families: impl IntoIterator<Item = Message>) -> Option<Response> {
    Some(Response::new(200, &[("Content-Type", DELIMITED)], delimited(families)))
}

/// A page with each kind of histogram, and a counter with an exemplar of a time in milliseconds.
pub(super) fn every_kind(time: u64) -> Option<Response> {
    let counter = Message::new().double(1, 7.0).message(2, exemplar("trace", "of counter", 0.5, time));
    let exemplars = whole().message(16, exemplar("trace", "of histogram", 1.5, time));
    page([
        family("e2e_total", COUNTER, Message::new().message(3, counter)),
        family("e2e_whole", HISTOGRAM, Message::new().message(1, label("a", "1")).message(7, exemplars)),
        family("e2e_fractions", HISTOGRAM, Message::new().message(7, fractions())),
        family("e2e_gauge", GAUGE_HISTOGRAM, Message::new().message(7, whole())),
        family("e2e_timed", HISTOGRAM, Message::new().message(7, whole()).number(6, time)),
    ])
}

/// The series of that page at an instance, with further labels behind `job`.
pub(super) fn every_series(instance: &str, more: &str) -> Vec<String> {
    let series = |name: &str, first: &str, value: &str| {
        format!("{name}{{{first}instance={instance:?},job=\"j\"{more}}} {value}")
    };
    vec![
        series("e2e_total", "", "7"),
        series("e2e_whole", "a=\"1\",", WHOLE),
        series("e2e_fractions", "", FRACTIONS),
        series("e2e_gauge", "", WHOLE),
        series("e2e_timed", "", WHOLE),
    ]
}

/// Now, in milliseconds.
pub(super) fn now() -> u64 {
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970");
    u64::try_from(now.as_millis()).expect("this age")
}

#[test]
fn native_histograms_of_every_kind_arrive_with_exemplars_and_end() {
    let Some(peer) = prometheus() else { return };
    let (target, time) = (Target::start(""), now() - 9_876);
    target.answer(every_kind(time));
    let config = pipeline(&target, SCRAPE, &[&peer]);
    let corten = Corten::start(&config.replace("endpoint {", "endpoint {\n\t\tsend_native_histograms = true"));
    peer.expect(ALL, &every_series("i", ""));
    let samples = peer.samples("e2e_timed").expect("a series");
    assert_eq!(samples.len(), 1, "a time that is exposed again and again is one sample: {samples:?}");
    assert_eq!(samples[0].0, time as f64 / 1000.0);
    let at = time as f64 / 1000.0;
    peer.expect_exemplars(
        ALL,
        &[
            format!(r#"e2e_total{{instance="i",job="j"}} {{trace="of counter"}} 0.5 @{at}"#),
            format!(r#"e2e_whole{{a="1",instance="i",job="j"}} {{trace="of histogram"}} 1.5 @{at}"#),
        ],
    );
    // A histogram that changes its kind, and those that are gone.
    target.answer(page([family("e2e_gauge", GAUGE_HISTOGRAM, Message::new().message(7, fractions()))]));
    let timed = format!(r#"e2e_timed{{instance="i",job="j"}} {WHOLE}"#);
    peer.expect(ALL, &[format!(r#"e2e_gauge{{instance="i",job="j"}} {FRACTIONS}"#), timed]);
    corten.end();
}

#[test]
fn native_histograms_are_no_burden_to_endpoints_that_do_not_take_them() {
    let (Some(plain), Some(victoria)) = (prometheus(), victoria_metrics()) else { return };
    let target = Target::start("");
    target.answer(every_kind(now()));
    // Only VictoriaMetrics is sent them. This version does not know them, and takes what stands beside them.
    let config = pipeline(&target, SCRAPE, &[&victoria, &plain]);
    let corten = Corten::start(&config.replacen("endpoint {", "endpoint {\n\t\tsend_native_histograms = true", 1));
    let counter = [r#"e2e_total{instance="i",job="j"} 7"#];
    for peer in [&victoria, &plain] {
        peer.expect(ALL, &counter);
        peer.expect("up", &[r#"up{instance="i",job="j"} 1"#]);
    }
    let metric = |name: &str, url: &str| {
        let metrics = corten.get("/metrics").body;
        let line = metrics.lines().find(|line| line.starts_with(&format!("{name}{{")) && line.contains(url));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .unwrap_or_else(|| panic!("{name}: {metrics}"))
    };
    until("histograms are sent", || {
        match metric("prometheus_remote_storage_histograms_total", &victoria.write_url()) {
            0.0 => Err("none".to_owned()),
            _ => Ok(()),
        }
    });
    for url in [victoria.write_url(), plain.write_url()] {
        for name in ["histograms_failed", "samples_failed", "histograms_retried", "samples_retried"] {
            assert_eq!(metric(&format!("prometheus_remote_storage_{name}_total"), &url), 0.0, "{name} {url}");
        }
    }
    assert_eq!(metric("prometheus_remote_storage_histograms_total", &plain.write_url()), 0.0);
    target.answer(page([]));
    for peer in [&victoria, &plain] {
        peer.expect(ALL, &[""; 0]);
    }
    corten.end();
}

#[test]
fn histograms_with_bounds_of_their_own_stay_behind_in_version_1_and_classic_series_arrive() {
    let Some(peer) = prometheus() else { return };
    let target = Target::start(
        "# TYPE e2e_h histogram\ne2e_h_bucket{le=\"1\"} 2\ne2e_h_bucket{le=\"+Inf\"} 3\ne2e_h_sum 5.5\ne2e_h_count 3\n\
         # TYPE e2e_a gauge\ne2e_a 1\n",
    );
    let convert = "\tconvert_classic_histograms_to_nhcb = true\n\tscrape_native_histograms = true\n";
    let send = |config: String| {
        config.replace("endpoint {", "endpoint {\n\t\tname = \"x\"\n\t\tsend_native_histograms = true")
    };
    let corten = Corten::start(&send(pipeline(&target, convert, &[&peer])));
    let other = r#"e2e_a{instance="i",job="j"} 1"#;
    peer.expect(ALL, &[other]);
    let why = "reason=\"nhcb_in_rw1_not_supported\"";
    until("they are counted as dropped", || {
        let metrics = corten.get("/metrics").body;
        let dropped = metrics.lines().find(|line| line.contains("histograms_dropped_total{") && line.contains(why));
        if dropped.is_some_and(|line| !line.ends_with(" 0")) { Ok(()) } else { Err(format!("{dropped:?}")) }
    });
    let both = format!("{convert}\tscrape_classic_histograms = true\n");
    assert_eq!(corten.reload(&send(pipeline(&target, &both, &[&peer]))).status, 200);
    peer.expect(
        ALL,
        &[
            other,
            r#"e2e_h_bucket{instance="i",job="j",le="1.0"} 2"#,
            r#"e2e_h_bucket{instance="i",job="j",le="+Inf"} 3"#,
            r#"e2e_h_sum{instance="i",job="j"} 5.5"#,
            r#"e2e_h_count{instance="i",job="j"} 3"#,
        ],
    );
    corten.end();
}
