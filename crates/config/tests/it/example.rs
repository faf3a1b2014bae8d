//! How the author of a component writes its arguments and exports: read this first.
//!
//! One struct says everything about the arguments. From it come decoding, defaults, the static check, the reference
//! page and the form in which the HTTP API shows a running component.

use std::collections::BTreeMap;
use std::time::Duration;

use corten_config::arguments::Record;
use corten_config::decode::{DecodeContext, Secret, check, decode};
use corten_config::schema::Stability;
use corten_config::value::OptionalSecret;
use corten_config::{Arguments, CheckErrors, Exports, StringEnum, Value};

use crate::capsules::{LogsReceiver, MetricsReceiver};
use crate::support::{decoded, decoded_in, refused, scope, texts};

/// Arguments of a component. The doc comments are the user's reference: without one, a field does not compile.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(crate) struct Config {
    /// Where to send the samples that are kept.
    // A plain type is required.
    forward_to: Vec<MetricsReceiver>,
    /// How many label sets to remember.
    // A default is a literal of the user's language, and is decoded as the user's own text would be.
    #[arg(default = 10000)]
    max_cache_size: usize,
    /// How often to look for changes.
    #[arg(default = "15s")]
    interval: Duration,
    /// Names of the jobs to look at.
    #[arg(default = ["api", "web"])]
    jobs: Vec<String>,
    /// How many workers to start.
    // What is computed has words for the reference page.
    #[arg(default_with = workers, default_text = "number of cores, at most 4")]
    workers: u32,
    /// Labels to add.
    // Left out, it is the zero value of its type.
    #[arg(optional)]
    labels: BTreeMap<String, String>,
    /// Name to announce.
    // An option is the one type that may be left out without saying so.
    name: Option<String>,
    /// What to do with a sample that has no timestamp.
    #[arg(default = "keep")]
    untimed: Untimed,
    /// Settings for the store.
    // An attribute whose value is an object.
    #[arg(optional)]
    store: Store,
    /// Whatever else is to be passed on.
    extra: Option<Value>,
    /// Spelling of an early version.
    #[arg(name = "type", deprecated = "use `name` instead")]
    kind: Option<String>,
    /// Read ahead.
    // Refused, with the reference's text, unless the process allows the level.
    #[arg(stability = experimental, default = false)]
    read_ahead: bool,
    /// Rules to apply, in order.
    // A block that repeats.
    #[block(name = "rule")]
    rules: Vec<Rule>,
    /// How to connect.
    // The attributes and blocks of another struct, here with one default of their own.
    #[flatten(defaults(timeout = "30s"))]
    client: Client,
    /// Keeps positions over restarts.
    // Absent, it has its defaults; `default_with` computes others, and `Option` leaves it out.
    #[block(default)]
    positions: Positions,
    /// Steps to take, in order.
    // Blocks of several names, `step.drop` and `step.match`, in the order in which they stand.
    #[block(group = "step")]
    steps: Vec<Step>,
    /// Targets by name.
    // Blocks with labels.
    #[block(name = "target")]
    targets: Vec<Target>,
    /// Variables for the templates.
    // A block of attributes with any names.
    #[block]
    variables: Option<BTreeMap<String, String>>,
}

fn workers() -> u32 {
    4
}

/// Rules between fields: found by its name, also run by the static check. It names the fields that each rule reads.
impl Config {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        errors.require(self.max_cache_size > 0, &["max_cache_size"], "max_cache_size must be greater than 0");
        errors.require(
            self.client.timeout <= self.interval,
            &["timeout", "interval"],
            "timeout must not be greater than interval",
        );
        errors.into_result()
    }

    /// What the reference refuses only when it builds the component, and what depends on the level of stability that the
    /// user allows. The static check runs it as well.
    fn check_build(&self, minimum: Stability) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        let holds = self.max_cache_size <= 1_000_000 || minimum == Stability::Experimental;
        errors.require(holds, &["max_cache_size"], "a cache of more than 1000000 is an experimental feature");
        errors.into_result()
    }
}

/// One rule.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(crate) struct Rule {
    /// What to do.
    #[arg(default = "replace")]
    action: Action,
    /// Pattern to look for.
    #[arg(default = "(.*)")]
    regex: String,
}

/// A word, written in snake case.
#[derive(StringEnum, Clone, Copy, Debug, PartialEq, Eq)]
#[string_enum(ignore_case, refusal = unknown_action)]
pub(crate) enum Action {
    /// Replaces the label.
    Replace,
    /// Keeps what matches.
    Keep,
    /// Drops labels whose names match.
    #[value(name = "labeldrop")]
    LabelDrop,
}

fn unknown_action(text: &str) -> String {
    format!("unrecognized action type {text:?}")
}

/// What happens to samples without a timestamp.
#[derive(StringEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Untimed {
    /// Keep them as they are.
    Keep,
    /// Drop them.
    Drop,
    /// Ask the network for the time.
    #[value(stability = public_preview)]
    Ask,
}

/// An object.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(crate) struct Store {
    /// Where it is.
    path: String,
    /// How much it holds.
    #[arg(default = 100)]
    entries: u32,
}

/// Settings that several components share.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(crate) struct Client {
    /// Address to connect to.
    url: String,
    /// How long to wait.
    #[arg(default = "10s")]
    timeout: Duration,
    /// Password.
    password: Option<Secret>,
    /// Settings for TLS.
    #[block]
    tls_config: Option<Tls>,
}

/// Settings for TLS.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(crate) struct Tls {
    /// Name that the peer must have.
    #[arg(optional)]
    server_name: String,
}

/// Where positions are kept.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(crate) struct Positions {
    /// File to keep them in.
    #[arg(default = "positions.yml")]
    path: String,
}

/// One step. Each variant is a block, and holds its arguments or nothing.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// Drops what is older.
    Drop(DropOld),
    /// Steps for some samples only.
    #[block(name = "match")]
    Select(Box<Select>),
    /// Forgets what was remembered.
    Reset,
}

/// What to drop.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(crate) struct DropOld {
    /// Age from which on to drop.
    older_than: Duration,
}

/// Steps for some samples only.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(crate) struct Select {
    /// Which samples.
    selector: String,
    /// Steps to take for them.
    #[block(group = "step")]
    steps: Vec<Step>,
}

/// Something to look at.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(crate) struct Target {
    /// Name of the target.
    #[label]
    name: String,
    /// Its address.
    address: String,
}

/// What the component offers to others.
#[derive(Exports, Clone, Debug, PartialEq)]
pub(crate) struct Offer {
    /// Takes samples.
    receiver: MetricsReceiver,
    /// How many rules are applied.
    rules: u64,
    /// What was read last.
    // Of an export that may be secret: the argument that says whether it is.
    #[export(secret_if = "is_secret")]
    content: OptionalSecret,
}

const MINIMAL: &str = "forward_to = [sink]\nurl = \"http://a\"\ninterval = \"1m\"";

#[test]
fn rules_of_building_are_told_from_the_others_and_know_the_level_of_stability() {
    let sink = MetricsReceiver::new("sink");
    let scope = scope([("sink", sink.to_value_for_tests())]);
    let block = crate::support::block(&format!("{MINIMAL}\nmax_cache_size = 2000000"));
    let cx = |minimum| DecodeContext { scope: &scope, minimum };
    assert!(decode::<Config>(&block, &cx(Stability::Experimental)).is_ok());
    let stable = cx(Stability::GenerallyAvailable);
    for errors in [
        decode::<Config>(&block, &stable).map(|_| ()).unwrap_err(),
        check(Config::SCHEMA, &block, &stable).unwrap_err(),
    ] {
        assert!(errors.problems()[0].building && !errors.problems()[0].positioned);
        assert_eq!(texts(errors), ["5:1: a cache of more than 1000000 is an experimental feature"]);
    }
}

#[test]
fn what_is_not_written_has_its_default() {
    let sink = MetricsReceiver::new("sink");
    let scope = scope([("sink", sink.to_value_for_tests())]);
    let config = decoded_in::<Config>(MINIMAL, &scope).map_err(texts).expect("it decodes").value;
    assert_eq!(
        config,
        Config {
            forward_to: vec![sink],
            max_cache_size: 10_000,
            interval: Duration::from_secs(60),
            jobs: vec!["api".to_owned(), "web".to_owned()],
            workers: 4,
            labels: BTreeMap::new(),
            name: None,
            untimed: Untimed::Keep,
            store: Store { path: String::new(), entries: 0 },
            extra: None,
            kind: None,
            read_ahead: false,
            rules: Vec::new(),
            client: Client {
                url: "http://a".to_owned(),
                timeout: Duration::from_secs(30),
                password: None,
                tls_config: None
            },
            positions: Positions { path: "positions.yml".to_owned() },
            steps: Vec::new(),
            targets: Vec::new(),
            variables: None,
        }
    );
}

#[test]
fn what_is_written_is_decoded() {
    let scope = scope([("sink", MetricsReceiver::new("sink").to_value_for_tests())]);
    let body = format!(
        r#"{MINIMAL}
        max_cache_size = "7"
        untimed = "drop"
        store = {{ path = "/data" }}
        extra = [1, {{ a = true }}]
        type = "old"
        password = "hush"
        rule {{ action = "LabelDrop" }}
        rule {{ regex = "a|b" }}
        tls_config {{ }}
        positions {{ path = "other.yml" }}
        step.match {{
            selector = "{{}}"
            step.reset {{ }}
        }}
        step.drop {{ older_than = "1h" }}
        target "one" {{ address = "a:1" }}
        variables {{ region = "eu" }}"#
    );
    let decoded = decoded_in::<Config>(&body, &scope).map_err(texts).expect("it decodes");
    let config = decoded.value;
    assert_eq!(config.max_cache_size, 7);
    assert_eq!(config.untimed, Untimed::Drop);
    // The defaults of an object are applied before its fields.
    assert_eq!(config.store, Store { path: "/data".to_owned(), entries: 100 });
    assert_eq!(config.extra.map(|extra| extra.to_string()).as_deref(), Some("[1, {\n\ta = true,\n}]"));
    assert_eq!(config.client.password.as_ref().map(Secret::expose), Some("hush"));
    assert_eq!(
        config.rules,
        [
            Rule { action: Action::LabelDrop, regex: "(.*)".to_owned() },
            Rule { action: Action::Replace, regex: "a|b".to_owned() }
        ]
    );
    assert_eq!(config.client.tls_config, Some(Tls { server_name: String::new() }));
    assert_eq!(config.positions.path, "other.yml");
    assert_eq!(
        config.steps,
        [
            Step::Select(Box::new(Select { selector: "{}".to_owned(), steps: vec![Step::Reset] })),
            Step::Drop(DropOld { older_than: Duration::from_secs(3600) }),
        ]
    );
    assert_eq!(config.targets, [Target { name: "one".to_owned(), address: "a:1".to_owned() }]);
    assert_eq!(config.variables, Some(BTreeMap::from([("region".to_owned(), "eu".to_owned())])));
    assert_eq!(decoded.deprecated, ["attribute \"type\" is deprecated: use `name` instead"]);
}

#[test]
fn every_error_is_reported_at_its_place() {
    let body = r#"max_cache_size = "many"
jobs = ["a", true]
untimed = "maybe"
read_ahead = true
nonsense = 1
rule { action = "explode" }
rule "x" { }
step.jump { }
step.drop { older_than = 5 }
target { address = "a:1" }"#;
    assert_eq!(
        refused::<Config>(body),
        [
            "2:18: \"many\" should be number, got string",
            "3:14: true should be string, got bool",
            "4:11: \"maybe\" unrecognized value \"maybe\", must be one of \"keep\", \"drop\", \"ask\"",
            "5:1: attribute \"read_ahead\" is at stability level \"experimental\", which is below the minimum allowed \
             stability level \"generally-available\". Use --stability.level command-line flag to enable \
             \"experimental\" features",
            "6:1: unrecognized attribute name \"nonsense\"",
            "7:17: \"explode\" unrecognized action type \"explode\"",
            "8:1: block \"rule\" does not support specifying labels",
            "9:1: unrecognized block name \"step.jump\"",
            "10:26: 5 time: missing unit in duration \"5\"",
            "11:1: block \"target\" requires non-empty label",
            "1:1: missing required attribute \"forward_to\"",
            "1:1: missing required attribute \"url\"",
            // The rule about timeout and interval is checked nevertheless: both of them are known.
            "1:1: timeout must not be greater than interval",
        ]
    );
}

#[test]
fn a_rule_between_fields_points_at_what_the_user_wrote() {
    let scope = scope([("sink", MetricsReceiver::new("sink").to_value_for_tests())]);
    let errors = decoded_in::<Config>(&format!("{MINIMAL}\ntimeout = \"2m\""), &scope).map(|_| ()).map_err(texts);
    assert_eq!(errors, Err(vec!["5:1: timeout must not be greater than interval".to_owned()]));
}

#[test]
fn a_signal_of_another_kind_does_not_fit() {
    let scope = scope([("sink", LogsReceiver::new("sink").to_value_for_tests())]);
    let errors = decoded_in::<Config>(MINIMAL, &scope).map(|_| ()).map_err(texts);
    let expected = "2:15: sink expected capsule(\"prometheus.Appendable\"), got capsule(\"loki.LogsReceiver\")";
    assert_eq!(errors, Err(vec![expected.to_owned()]));
}

#[test]
fn exports_are_an_object_to_the_language() {
    let offer = Offer { receiver: MetricsReceiver::new("x"), rules: 2, content: OptionalSecret::default() };
    let value = offer.to_value();
    assert_eq!(value.field("rules"), Some(Value::uint(2)));
    assert_eq!(
        value.field("receiver").map(|value| value.describe()).as_deref(),
        Some("capsule(\"prometheus.Appendable\")")
    );
}

#[test]
fn the_tables_of_the_example_are_in_order() {
    assert_eq!(Config::SCHEMA.defects(), [""; 0]);
    assert_eq!(Offer::SCHEMA.defects(), [""; 0]);
}

#[test]
fn defaults_are_there_without_a_block() {
    let positions = Positions::defaults().expect("its fields have zero values");
    assert_eq!(positions.path, "positions.yml");
    assert_eq!(decoded::<Positions>(""), Ok(positions));
}

#[test]
fn words_are_read_and_printed() {
    assert_eq!(Action::parse("LABELDROP"), Ok(Action::LabelDrop));
    assert_eq!(Action::LabelDrop.as_str(), "labeldrop");
    assert!(Untimed::parse("KEEP").is_err());
}
