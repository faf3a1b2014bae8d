//! What the component makes of lines, and what gitleaks finds in the same.

use std::collections::BTreeMap;
use std::io::Read as _;

use corten_component::Definition;
use corten_testkit::{LogsSink, Unit, host, logs};
use flate2::read::GzDecoder;
use proptest::prelude::*;

use super::*;

const FILTER: Definition = Definition::of::<SecretFilter>();
const PAT: &str = "ghp_keuwTm8PRmUZL5oymVshykIWReeY3WchCGkt";

async fn filtered(more: &str, lines: &[&str]) -> (Vec<String>, Unit) {
    let sink = LogsSink::default();
    let body = format!("forward_to = [sink]\n{more}");
    let unit = Unit::start_with(host("loki.secretfilter.a"), &FILTER, &body, &[("sink", sink.value())]).await.unwrap();
    unit.world.receiver::<Logs>("receiver").consume(logs(&[("app", "web")], lines)).await.unwrap();
    let shown = sink.lines().into_iter().map(|line| format!("{} {}", line.stream, line.line)).collect();
    (shown, unit)
}

#[tokio::test]
async fn secrets_are_masked_wherever_they_stand_in_a_line_and_are_counted() {
    let line = format!("first {PAT} and again {PAT}");
    let (shown, unit) = filtered("origin_label = \"app\"", &["harmless", &line]).await;
    let stream = r#"{app="web"}"#;
    assert_eq!(shown, [format!("{stream} harmless"), format!("{stream} first ghp_keuw... and again ghp_keuw...")]);
    let labels = [("rule", "github-pat"), ("origin", "web")];
    let name = "loki_secretfilter_secrets_redacted_by_category_total";
    assert_eq!(unit.world.metrics().get(name, &labels), Some(2.0));
    assert_eq!(unit.world.metric("loki_secretfilter_secrets_redacted_total"), Some(2.0));
    assert_eq!(unit.world.metric("loki_secretfilter_processing_duration_seconds"), Some(2.0));
}

#[tokio::test]
async fn what_stands_in_for_a_secret_is_the_users_choice() {
    let (shown, _) = filtered("redact_with = \"<$SECRET_NAME:$SECRET_HASH>\"", &[PAT]).await;
    let hash: String = Sha1::digest(PAT).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(shown, [format!(r#"{{app="web"}} <github-pat:{hash}>"#)]);
    assert_eq!(filtered("redact_percent = 100", &[PAT]).await.0, [r#"{app="web"} REDACTED"#]);
    assert_eq!(filtered("redact_percent = 50", &[PAT]).await.0, [r#"{app="web"} ghp_keuwTm8PRmUZL5oy..."#]);
    assert_eq!(filtered("redact_percent = 0", &[PAT]).await.0, [r#"{app="web"} ghp_keuw..."#]);
}

#[tokio::test]
async fn a_line_that_takes_too_long_is_masked_as_a_whole_or_dropped() {
    let (shown, unit) = filtered("processing_timeout = \"1ns\"\nlabel_timed_out = true", &["x", PAT]).await;
    let late = r#"{app="web", secretfilter="timed-out"} REDACTED"#;
    assert_eq!(shown, [r#"{app="web"} x"#, late], "a line in which there is nothing to look for takes no time");
    assert_eq!(unit.world.metric("loki_secretfilter_lines_timed_out_total"), Some(1.0));
    let (shown, unit) = filtered("processing_timeout = \"1ns\"\ndrop_on_timeout = true", &[PAT]).await;
    assert!(shown.is_empty());
    assert_eq!(unit.world.metric("loki_secretfilter_lines_dropped_total"), Some(1.0));
    assert_eq!(unit.world.balance_of(corten_signal::Kind::LokiLog), "taken 1, dropped {timeout: 1}");
}

#[tokio::test]
async fn a_part_of_the_entries_can_be_let_by() {
    let lines = vec![PAT; 1000];
    let (shown, unit) = filtered("rate = 0.5", &lines).await;
    let plain = shown.iter().filter(|line| line.ends_with(PAT)).count();
    assert!((400..600).contains(&plain), "{plain}");
    assert_eq!(unit.world.metric("loki_secretfilter_entries_bypassed_total"), Some(plain as f64));
    assert_eq!(filtered("rate = 0", &[PAT]).await.0, [format!(r#"{{app="web"}} {PAT}"#)]);
}

#[tokio::test]
async fn rules_of_a_file_are_read_and_its_errors_are_errors_at_load() {
    let world = host("loki.secretfilter.a");
    let path = world.write("rules.toml", "[[rules]]\nid = \"r\"\nregex = \"pin=([0-9]+)\"\n");
    let (shown, _) = filtered(&format!("gitleaks_config = {path:?}\nredact_percent = 100"), &["pin=1234 x"]).await;
    assert_eq!(shown, [r#"{app="web"} pin=REDACTED x"#]);
    for (body, wanted) in [
        (
            "gitleaks_config = \"/nonexistent\"",
            "failed to create gitleaks detector: read gitleaks config: open /nonexistent",
        ),
        ("rate = 1.5", "secretfilter: Sampling Rate must be between 0.0 and 1.0, received 1.5"),
    ] {
        let error = Unit::start(host("loki.secretfilter.a"), &FILTER, &format!("forward_to = []\n{body}")).await;
        let error = error.unwrap_err();
        assert!(error.contains(wanted), "{error}");
    }
}

#[test]
fn secrets_next_to_bytes_that_are_no_text_are_masked() {
    let stage = stage();
    let line = [b"\xff\xfe token=", PAT.as_bytes(), b" \xc3"].concat();
    let stream = Stream::of([]).unwrap();
    let masked = stage.look_at(&line, &stream, &mut Work::default());
    assert_eq!(masked, Verdict::Masked(b"\xff\xfe token=ghp_keuw... \xc3".to_vec()));
}

#[test]
fn secrets_that_lie_over_each_other_are_masked_whole() {
    let spans = |list: &[(Range<usize>, usize)]| {
        let shown = masked(b"0123456789", list.to_vec(), |at, text| {
            format!("<{at}:{}>", String::from_utf8_lossy(text)).into_bytes()
        });
        String::from_utf8(shown).unwrap()
    };
    assert_eq!(spans(&[]), "0123456789");
    assert_eq!(spans(&[(2..4, 0), (4..6, 1)]), "01<0:23><1:45>6789");
    assert_eq!(spans(&[(3..5, 0), (2..8, 1), (7..9, 2)]), "01<1:2345678>9");
    assert_eq!(spans(&[(2..4, 1), (2..4, 0), (0..10, 7)]), "<7:0123456789>");
    // The token is a part of what the rule of a file finds, and is found first.
    let world = host("loki.secretfilter.a");
    let rules = "[[rules]]\nid = \"a\"\nregex = \"tok-[a-z]{8}\"\n[[rules]]\nid = \"b\"\nregex = \"key=(tok-[a-z]{8}-[0-9]{6})\"\n";
    let path = world.write("rules.toml", rules);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (shown, _) = runtime.block_on(filtered(
        &format!("gitleaks_config = {path:?}\nredact_with = \"<$SECRET_NAME>\""),
        &["key=tok-abcdefgh-123456 and tok-abcdefgh"],
    ));
    assert_eq!(shown, [r#"{app="web"} key=<b> and <a>"#]);
}

#[test]
fn many_secrets_of_a_long_line_take_no_longer_than_their_number() {
    let stage = Stage { scanner: toml::read("[[rules]]\nid = \"a\"\nregex = \"t[0-9]{6}z\"\n").unwrap(), ..stage() };
    let stream = Stream::of([]).unwrap();
    let mut work = Work::default();
    let look = |count: usize, work: &mut Work| {
        let line: String = (0..200_000).map(|at| format!("t{:06}z ", at % count)).collect();
        let began = Instant::now();
        let verdict = stage.look_at(line.as_bytes(), &stream, work);
        // One by one, each in the whole line, it would take minutes.
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
        verdict
    };
    for count in [3, SECRETS_MAX] {
        let Verdict::Masked(line) = look(count, &mut work) else { panic!("no secret") };
        assert!(line.starts_with(b"t0") && memchr::memmem::find(&line, b"z ").is_none(), "{count}");
    }
    assert_eq!(look(200_000, &mut work), Verdict::Masked(b"REDACTED".to_vec()));
}

#[test]
fn a_long_line_takes_milliseconds() {
    let stage = stage();
    let stream = Stream::of([]).unwrap();
    let mut work = Work::default();
    let mut line = String::new();
    while line.len() < 131_000 {
        line.push_str("level=info client=10.1.2.3 api_version=v1 key value-1 access denied by token service ");
    }
    line.push_str(PAT);
    // The first time expressions are compiled.
    let first = stage.look_at(line.as_bytes(), &stream, &mut work);
    assert!(matches!(first, Verdict::Masked(_)));
    let best = (0..5)
        .map(|_| {
            let began = Instant::now();
            stage.look_at(line.as_bytes(), &stream, &mut work);
            began.elapsed()
        })
        .min();
    // Five in a release build; here nothing is optimised.
    assert!(best.unwrap() < Duration::from_secs(1), "{best:?}");
}

fn stage() -> Stage {
    let world = host("loki.secretfilter.a");
    let cx = world.context::<SecretFilter>();
    Stage {
        scanner: toml::builtin().unwrap(),
        forward: Fanout::new([]),
        row: Arc::clone(cx.ledger().row_of::<Logs>()),
        arguments: SecretFilterArguments {
            forward_to: Vec::new(),
            origin_label: String::new(),
            redact_with: String::new(),
            redact_percent: 80,
            gitleaks_config: String::new(),
            rate: 1.0,
            processing_timeout: Duration::ZERO,
            drop_on_timeout: false,
            label_timed_out: false,
        },
        metrics: FilterMetrics::new(&cx),
        scratches: Mutex::default(),
        random: AtomicU64::new(1),
    }
}

/// What gitleaks 8.30.1 finds: lines, and for each the rules and secrets.
fn recorded() -> Vec<(String, Vec<(String, String)>)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/secrets.json.gz");
    let mut text = String::new();
    GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Rules whose secrets are not compared: what is masked here is more than the part of it that gitleaks takes for the secret.
const WHOLE: [&str; 2] = ["jwt-base64", "microsoft-teams-webhook"];

#[test]
fn what_gitleaks_finds_is_found() {
    let scanner = toml::builtin().unwrap();
    let (mut scratch, mut found) = (Scratch::default(), Vec::new());
    let mut missed: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let (mut wanted, mut extra) = (0, BTreeMap::<String, usize>::new());
    for (line, findings) in recorded() {
        scanner.scan(&line, None, &mut scratch, &mut found).unwrap();
        let mine: Vec<(String, String)> =
            found.iter().map(|one| (scanner.rules[one.rule].id.clone(), line[one.secret.clone()].to_owned())).collect();
        for (rule, secret) in &findings {
            wanted += 1;
            let hit = mine.iter().any(|(id, found)| id == rule && (found == secret || WHOLE.contains(&&**rule)));
            if !hit {
                missed.entry(rule.clone()).or_default().push(line.clone());
            }
        }
        // Whoever writes a log line cannot say that it holds no secret.
        let mine = if line.contains("gitleaks:allow") { Vec::new() } else { mine };
        for (rule, _) in mine.iter().filter(|one| !findings.contains(one) && !WHOLE.contains(&&*one.0)) {
            *extra.entry(rule.clone()).or_default() += 1;
        }
    }
    assert!(wanted >= 1400, "{wanted}");
    let count: usize = missed.values().map(Vec::len).sum();
    assert!(missed.is_empty(), "{count} of {wanted} missed: {missed:#?}\nextra: {extra:#?}");
    // More is found by the general rule, because gitleaks knows words that are none of its secrets, and by one whose tokens
    // gitleaks describes and does not find.
    extra.retain(|rule, _| !["generic-api-key", "facebook-access-token"].contains(&&**rule));
    assert!(extra.is_empty(), "extra: {extra:#?}");
}

proptest! {
    #[test]
    fn no_line_makes_it_panic(line in proptest::collection::vec(any::<u8>(), 0..200), text in "[ -~]{0,80}") {
        let stage = stage();
        let stream = Stream::of([]).unwrap();
        let mut work = Work::default();
        stage.look_at(&line, &stream, &mut work);
        stage.look_at(format!("token={text} key: '{text}' curl -H \"{text}\"").as_bytes(), &stream, &mut work);
    }
}
