//! What the specification of remote write asks of a sender, seen from a receiver, over the whole way from a page.

use super::net::{Gate, Response, Target};
use super::peer::prometheus;
use super::until;
use super::values::pipeline_to;
use crate::support::Corten;

const ALL: &str = r#"{__name__=~"e2e_.+"}"#;

#[test]
fn what_fails_with_5xx_is_sent_again_as_it_was_and_what_fails_with_4xx_is_not() {
    let Some(peer) = prometheus() else { return };
    let (gate, target) = (Gate::before(peer.address, true), Target::counting());
    for status in [500, 503, 400] {
        gate.answer_next(Response::new(status, &[], "not now"));
    }
    let corten = Corten::start(&pipeline_to(&target, "", &[&format!("http://{}/api/v1/write", gate.address())]));
    let seen = until("some are taken", || match gate.seen() {
        seen if seen.len() >= 6 => Ok(seen),
        seen => Err(format!("{} requests", seen.len())),
    });
    let seen: Vec<_> = seen.into_iter().map(|(_, request)| request).collect();
    for request in &seen {
        assert_eq!(request.method, "POST");
        assert_eq!(request.header("content-encoding"), Some("snappy"));
        assert_eq!(request.header("content-type"), Some("application/x-protobuf"));
        assert_eq!(request.header("x-prometheus-remote-write-version"), Some("0.1.0"));
        assert!(request.header("user-agent").is_some_and(|agent| agent.starts_with("Corten/")), "{request:?}");
    }
    assert!(seen[1].body == seen[0].body && seen[2].body == seen[0].body, "the same is sent again");
    let attempts: Vec<_> = seen.iter().take(4).map(|request| request.header("retry-attempt")).collect();
    assert_eq!(attempts, [None, Some("1"), Some("2"), None]);
    let again = seen.iter().skip(3).filter(|request| request.body == seen[0].body).count();
    assert_eq!(again, 0, "what was refused is not sent again");
    corten.end();
}

#[test]
fn odd_names_labels_and_numbers_arrive_unchanged() {
    let Some(peer) = prometheus() else { return };
    let (name, label, value) = (format!("e2e_{}", "n".repeat(500)), "l".repeat(300), "v".repeat(20_000));
    let target = Target::start(&format!(
        "e2e_order{{zz=\"1\",Aa=\"2\",aa=\"3\",_a=\"4\"}} 1\n\
         e2e_empty{{a=\"\",b=\"x\"}} 2\n\
         e2e:colons:total 3\n\
         e2e_text{{a=\"日本語 🚀\",b=\"tab\\t{{}},=#\"}} 4\n\
         e2e_number{{of=\"largest\"}} 1.7976931348623157e+308\n\
         e2e_number{{of=\"least\"}} 5e-324\n\
         e2e_number{{of=\"precise\"}} 0.30000000000000004\n\
         e2e_number{{of=\"integer\"}} -9007199254740991\n\
         e2e_number{{of=\"zero\"}} 0\n\
         e2e_number{{of=\"negative zero\"}} -0\n\
         {name}{{{label}=\"{value}\"}} 5\n"
    ));
    let corten = Corten::start(&pipeline_to(&target, "", &[&peer.write_url()]));
    let own = r#"instance="i",job="j""#;
    let number = |of: &str, value: f64| format!(r#"e2e_number{{{own},of="{of}"}} {value}"#);
    peer.expect(
        r#"{__name__=~"e2e.+"}"#,
        &[
            format!(r#"e2e_order{{Aa="2",_a="4",aa="3",{own},zz="1"}} 1"#),
            format!(r#"e2e_empty{{b="x",{own}}} 2"#),
            format!("e2e:colons:total{{{own}}} 3"),
            format!("e2e_text{{a={:?},b={:?},{own}}} 4", "日本語 🚀", "tab\\t{},=#"),
            number("largest", f64::MAX),
            number("least", 5e-324),
            number("precise", 0.1 + 0.2),
            number("integer", -9_007_199_254_740_991.0),
            number("zero", 0.0),
            number("negative zero", -0.0),
            format!("{name}{{{own},{label}={value:?}}} 5"),
        ],
    );
    // A page that names a label twice, or a series not at all, is none: nothing of it is sent.
    for broken in ["e2e_good 1\ne2e_twice{a=\"1\",a=\"2\"} 1\n", "e2e_good 1\n{a=\"1\"} 1\n"] {
        target.show(broken);
        peer.expect("up", &[format!("up{{{own}}} 0")]);
        peer.expect(ALL, &[""; 0]);
        target.show("e2e_fine 1\n");
        peer.expect(ALL, &[format!("e2e_fine{{{own}}} 1")]);
    }
    assert_eq!(peer.samples(r#"{__name__=~"e2e_good|e2e_twice"}"#), Ok(Vec::new()));
    corten.end();
}
