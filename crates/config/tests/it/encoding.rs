//! Arguments and exports as the HTTP API shows them.

use std::collections::BTreeMap;

use corten_config::decode::Secret;
use corten_config::value::OptionalSecret;
use corten_config::{Arguments, Exports, Value, encode};

use crate::capsules::MetricsReceiver;
use crate::support::{decoded_in, scope, texts};

#[derive(Arguments, Debug)]
struct Config {
    /// Required.
    url: String,
    /// Optional, with a default.
    #[arg(default = 5)]
    retries: i64,
    /// Optional.
    name: Option<String>,
    /// A secret.
    password: Option<Secret>,
    /// A string that may be secret.
    token: Option<OptionalSecret>,
    /// Text by name.
    #[arg(optional)]
    headers: BTreeMap<String, String>,
    /// Texts.
    #[arg(optional)]
    list: Vec<String>,
    /// Anything.
    any: Option<Value>,
    /// Blocks.
    #[block(name = "some.rule")]
    rules: Vec<Rule>,
    /// A block with defaults.
    #[block(default)]
    queue: Rule,
    /// Blocks with labels.
    #[block]
    target: Vec<Target>,
    /// Blocks in order.
    #[block(group = "stage")]
    stages: Vec<Stage>,
    /// Any attributes.
    #[block]
    env: Option<BTreeMap<String, String>>,
    #[flatten]
    flat: Flat,
}

#[derive(Arguments, Debug)]
struct Flat {
    /// Of the flattened struct.
    #[arg(default = true)]
    flag: bool,
}

#[derive(Arguments, Debug)]
struct Rule {
    /// A pattern.
    #[arg(default = ".*")]
    regex: String,
}

#[derive(Arguments, Debug)]
struct Target {
    /// Its name.
    #[label]
    name: String,
    /// Where it is.
    address: String,
}

#[derive(Arguments, Debug)]
enum Stage {
    /// Reads.
    Json(Rule),
    /// Ends.
    Stop,
}

/// The body that is shown for decoded arguments, in a short form: `name = value` and `name "label" {...}`.
fn shown(body: &str) -> String {
    let secrets = scope([
        ("s", Value::secret("hush")),
        ("tainted", Value::string("hush").marked(true)),
        ("open", Value::optional_secret("open", false)),
    ]);
    let decoded = decoded_in::<Config>(body, &secrets).map_err(texts).expect("it decodes");
    let items = encode::arguments(&decoded.value, &decoded.sensitive);
    assert!(!encode::json(&items).contains("hush"), "{body}");
    assert!(!format!("{:?}", decoded.value.password).contains("hush"), "{body}");
    short(&items)
}

fn short(items: &[encode::Item]) -> String {
    let text = |item: &encode::Item| match item {
        encode::Item::Attr { name, value } => format!("{name} = {value}").replace(['\n', '\t'], ""),
        encode::Item::Block { name, label, body } => {
            let label = label.as_ref().map(|label| format!(" {label:?}")).unwrap_or_default();
            format!("{name}{label} {{{}}}", short(body))
        }
    };
    items.iter().map(text).collect::<Vec<_>>().join("; ")
}

#[test]
fn what_is_optional_and_equal_to_its_default_or_to_zero_is_left_out() {
    assert_eq!(shown("url = \"\""), "url = \"\"");
    let same = "retries = 5\nname = null\nheaders = {}\nlist = []\nany = null\nqueue { }\nflag = true";
    assert_eq!(shown(&format!("url = \"\"\n{same}")), "url = \"\"");
    // As in the reference, zero is left out too.
    assert_eq!(shown("url = \"\"\nretries = 0\nflag = false"), "url = \"\"");
    assert_eq!(shown("url = \"\"\nretries = 1\nname = \"\""), "url = \"\"; retries = 1; name = \"\"");
}

#[test]
fn blocks_are_shown_with_labels_and_in_order() {
    let body = "url = \"u\"\nsome.rule { }\nsome.rule { regex = \"x\" }\nqueue { regex = \"q\" }\ntarget \"a\" { address = \"b\" }\n\
                stage.stop { }\nstage.json { regex = \"y\" }\nenv { A = \"1\" }";
    assert_eq!(
        shown(body),
        "url = \"u\"; some.rule {}; some.rule {regex = \"x\"}; queue {regex = \"q\"}; target \"a\" {address = \"b\"}; \
         stage.stop {}; stage.json {regex = \"y\"}; env {A = \"1\"}"
    );
}

#[test]
fn secrets_are_masked() {
    assert_eq!(shown("url = \"u\"\npassword = s\ntoken = s"), "url = \"u\"; password = (secret); token = (secret)");
    assert_eq!(shown("url = \"u\"\ntoken = open"), "url = \"u\"; token = \"open\"");
}

#[test]
fn plain_text_that_was_made_from_a_secret_is_masked() {
    assert_eq!(shown("url = \"http://\" + tainted"), "url = (secret)");
    assert_eq!(
        shown("url = \"u\"\nheaders = {auth = tainted, host = \"h\"}\nlist = [\"a\", tainted]"),
        "url = \"u\"; headers = {auth = (secret),host = \"h\",}; list = [\"a\", (secret)]"
    );
    assert_eq!(
        shown("url = \"u\"\nany = [{a = tainted}]\nname = tainted"),
        "url = \"u\"; name = (secret); any = [{a = (secret),}]"
    );
    assert_eq!(
        shown("url = \"u\"\nsome.rule { }\nsome.rule { regex = tainted }\nqueue { regex = tainted }"),
        "url = \"u\"; some.rule {}; some.rule {regex = (secret)}; queue {regex = (secret)}"
    );
    assert_eq!(
        shown(
            "url = \"u\"\nstage.stop { }\nstage.json { regex = tainted }\ntarget \"a\" { address = tainted }\nenv { A = tainted }"
        ),
        "url = \"u\"; target \"a\" {address = (secret)}; stage.stop {}; stage.json {regex = (secret)}; env {A = (secret)}"
    );
}

#[test]
fn a_default_that_a_secret_happens_to_equal_is_masked_all_the_same() {
    assert_eq!(shown("url = \"u\"\nsome.rule { regex = tainted }"), "url = \"u\"; some.rule {regex = (secret)}");
}

#[test]
fn json_has_the_form_of_the_reference() {
    let decoded = decoded_in::<Config>("url = \"u\"\ntarget \"a\" { address = \"b\" }\nqueue { regex = \"q\" }", &())
        .map_err(texts)
        .expect("it decodes");
    assert_eq!(
        encode::json(&encode::arguments(&decoded.value, &decoded.sensitive)),
        concat!(
            r#"[{"name":"url","type":"attr","value":{"type":"string","value":"u"}},"#,
            r#"{"name":"queue","type":"block","body":[{"name":"regex","type":"attr","value":{"type":"string","value":"q"}}]},"#,
            r#"{"name":"target","type":"block","label":"a","body":"#,
            r#"[{"name":"address","type":"attr","value":{"type":"string","value":"b"}}]}]"#,
        )
    );
}

#[derive(Exports, Debug)]
struct Offer {
    /// Takes samples.
    receiver: MetricsReceiver,
    /// Text.
    #[export(name = "text")]
    content: String,
    /// Secrets by name.
    keys: BTreeMap<String, Secret>,
}

#[test]
fn exports_are_shown_whole() {
    let keys = BTreeMap::from([("a".to_owned(), Secret::new("hush"))]);
    let offer = Offer { receiver: MetricsReceiver::new("x"), content: String::new(), keys };
    assert_eq!(
        encode::json(&encode::exports(&offer)),
        concat!(
            r#"[{"name":"receiver","type":"attr","value":{"type":"capsule","value":"capsule(\"prometheus.Appendable\")"}},"#,
            r#"{"name":"text","type":"attr","value":{"type":"string","value":""}},"#,
            r#"{"name":"keys","type":"attr","value":{"type":"object","value":"#,
            r#"[{"key":"a","value":{"type":"capsule","value":"(secret)"}}]}}]"#,
        )
    );
    // A receiver has no zero value, so that nothing stands for these exports before the first real ones.
    assert!(Offer::zero().is_none());
}
