//! Static checks: what is told of a configuration without running it.

use std::collections::BTreeMap;
use std::time::Duration;

use corten_config::arguments::Record;
use corten_config::decode::Secret;
use corten_config::eval::Scope;
use corten_config::value::{Object, OptionalSecret};
use corten_config::{Arguments, CheckErrors, Exports, StringEnum, Value, stdlib, unknown};

use crate::capsules::{Labels, LogsReceiver, MetricsReceiver};
use crate::support::{block, checked};

#[derive(Exports, Debug)]
struct Offer {
    /// Takes samples.
    receiver: MetricsReceiver,
    /// Takes lines.
    logs: LogsReceiver,
    /// What was found.
    targets: Vec<Labels>,
    /// What was read.
    content: String,
    /// How much was read.
    size: u64,
    /// Whether it was read.
    ready: bool,
    /// A key.
    key: Secret,
    /// A key, or not.
    #[export(secret_if = "truth")]
    perhaps: OptionalSecret,
    /// More than one key.
    data: BTreeMap<String, String>,
    /// A part.
    part: Part,
    /// Anything.
    any: Value,
}

#[derive(Arguments, Debug)]
struct Part {
    /// A number.
    n: i64,
    /// Names.
    #[arg(optional)]
    names: Vec<String>,
}

/// Knows `some.component.x` as a component with these exports, and nothing of what is not in the standard library.
struct Components(&'static str);

impl Scope for Components {
    fn lookup(&self, name: &str) -> Option<Value> {
        if name != "some" {
            return stdlib::lookup(name).is_none().then(Value::unknown);
        }
        let exports = unknown::exports(Offer::SCHEMA, Config::SCHEMA, &block(self.0), &());
        let within = |name: &str, value| Value::object(Object::from([(name.into(), value)]));
        Some(within("component", within("x", exports)))
    }
}

#[derive(Arguments, Debug)]
struct Config {
    /// Receivers.
    #[arg(optional)]
    forward_to: Vec<MetricsReceiver>,
    /// Targets.
    #[arg(optional)]
    targets: Vec<Labels>,
    /// Text.
    text: Option<String>,
    /// A number.
    number: Option<i64>,
    /// A truth.
    truth: Option<bool>,
    /// A secret.
    secret: Option<Secret>,
    /// A time.
    #[arg(default = "1m")]
    interval: Duration,
    /// Another.
    #[arg(default = "10s")]
    timeout: Duration,
    /// Headers.
    #[arg(optional)]
    headers: BTreeMap<String, Vec<String>>,
    /// An object.
    part: Option<Part>,
    /// Objects.
    parts: Option<Vec<Part>>,
    /// A word.
    word: Option<Word>,
    /// Two numbers.
    pair: Option<[i64; 2]>,
    /// Anything.
    any: Option<Value>,
    /// A block.
    #[block]
    inner: Vec<Part>,
}

impl Config {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        errors.require(self.timeout <= self.interval, &["timeout", "interval"], "timeout greater than interval");
        errors.into_result()
    }
}

#[derive(StringEnum, Debug)]
enum Word {
    /// A word.
    One,
}

fn check(body: &str) -> Vec<String> {
    checked(Config::SCHEMA, body, &Components(""))
}

fn all(cases: &[(&str, &[&str])]) {
    for (body, expected) in cases {
        assert_eq!(check(body), *expected, "{body}");
    }
}

#[test]
fn literals_are_decoded_and_their_errors_have_no_expression_before_them() {
    all(&[
        ("forward_to = \"wrong\"", &["2:14: expected array, got string"]),
        ("targets = [10]", &["2:12: target::ConvertFrom: conversion from 'int64' is not supported"]),
        ("text = true", &["2:8: expected string, got bool"]),
        ("interval = 5", &["2:12: time: missing unit in duration \"5\""]),
        ("word = \"two\"", &["2:8: unrecognized value \"two\", must be one of \"one\""]),
        ("pair = [1]", &["2:8: array must have exactly 2 elements, got 1"]),
        ("headers = {\na = [\"x\"],\nb = [true],\n}", &["4:6: expected string, got bool"]),
        ("headers = {a = \"x\"}", &["2:16: expected array, got string"]),
        ("text = \"a\" + \"b\"\nnumber = -(1 + 2)", &[]),
        ("any = {a = [1, null]}", &[]),
    ]);
}

#[test]
fn names_and_numbers_of_blocks_are_checked_as_at_run_time() {
    all(&[
        ("nonsense = 1", &["2:1: unrecognized attribute name \"nonsense\""]),
        ("inner { n = 1 }\ninner { }", &["3:1: missing required attribute \"n\""]),
        ("inner \"x\" { n = 1 }", &["2:1: block \"inner\" does not support specifying labels"]),
    ]);
}

#[test]
fn objects_are_checked_for_what_is_required_and_what_is_unknown() {
    all(&[
        ("part = {}", &["2:8: missing required attribute \"n\""]),
        ("part = {n = 1, z = 2}", &["2:16: unrecognized attribute name \"z\""]),
        (
            "parts = [{n = 1, z = 2}, {names = [true]}]",
            &[
                "2:18: unrecognized attribute name \"z\"",
                "2:36: expected string, got bool",
                "2:26: missing required attribute \"n\"",
            ],
        ),
        // The same where a part of the object is not known.
        (
            "part = {names = argument.x.value, z = 2}",
            &["2:35: unrecognized attribute name \"z\"", "2:8: missing required attribute \"n\""],
        ),
    ]);
}

#[test]
fn what_is_not_known_is_not_checked() {
    all(&[
        ("text = argument.x.value\nnumber = each[\"port\"]\ntruth = f(1).y", &[]),
        ("text = coalesce(argument.x.value, 1) + argument.y.value", &[]),
        ("text = some.component.x.any", &[]),
    ]);
}

#[test]
fn the_parts_of_a_literal_are_checked_where_others_are_not_known() {
    all(&[
        ("forward_to = [argument.x.value, 5, some.component.x.receiver]", &["2:33: expected capsule, got number"]),
        ("headers = {a = [sys.env(\"A\"), true]}", &["2:31: expected string, got bool"]),
        (
            "pair = [1, argument.x.value, \"y\"]",
            &["2:30: expected number, got string", "2:8: array must have exactly 2 elements, got 3"],
        ),
        ("text = [argument.x.value]", &["2:8: expected string, got array"]),
        ("text = {a = argument.x.value}", &["2:8: expected string, got object"]),
        ("targets = [{a = argument.x.value}]", &[]),
    ]);
}

#[test]
fn a_receiver_of_another_signal_is_found() {
    all(&[
        ("forward_to = [some.component.x.receiver]", &[]),
        (
            "forward_to = [some.component.x.logs]",
            &["2:15: expected capsule(\"prometheus.Appendable\"), got capsule(\"loki.LogsReceiver\")"],
        ),
        ("forward_to = some.component.x.receiver", &["2:14: expected array, got capsule"]),
        ("forward_to = [some.component.x.targets]", &["2:15: expected capsule, got array"]),
        ("targets = some.component.x.targets", &[]),
        ("targets = [some.component.x.targets]", &["2:12: expected capsule, got array"]),
        ("targets = [some.component.x.targets[0]]", &[]),
    ]);
}

#[test]
fn the_type_of_an_export_must_fit() {
    all(&[
        ("text = some.component.x.content", &[]),
        ("text = some.component.x.size", &[]),
        ("text = some.component.x.ready", &["2:8: expected string, got bool"]),
        ("text = some.component.x.key", &["2:8: secrets may not be converted into strings"]),
        ("text = some.component.x.data.a", &[]),
        ("text = some.component.x.data[\"a\"]", &[]),
        ("text = some.component.x.targets[0].job", &[]),
        ("text = some.component.x.targets[0][\"job\"]", &[]),
        ("number = some.component.x.part.n", &[]),
        ("truth = some.component.x.part.n", &["2:9: expected bool, got number"]),
        ("truth = some.component.x.part.n == 5", &[]),
        ("number = some.component.x.part.n == 5", &["2:10: expected number, got bool"]),
        ("truth = some.component.x.size * 2", &["2:9: expected bool, got number"]),
        ("secret = some.component.x.content", &[]),
        ("secret = some.component.x.size", &["2:10: expected capsule, got number"]),
        ("part = some.component.x.part", &[]),
        ("part = some.component.x.part.names", &["2:8: expected object, got array"]),
        ("headers = some.component.x.data", &["2:11: expected array, got string"]),
    ]);
}

#[test]
fn an_export_that_does_not_exist_is_found_wherever_it_is_read() {
    all(&[
        ("text = some.component.x.contents", &["2:25: field \"contents\" does not exist"]),
        ("text = \"a\" + some.component.x.nothing + \"b\"", &["2:31: field \"nothing\" does not exist"]),
        ("text = string.format(\"%s\", some.component.x.nothing)", &["2:45: field \"nothing\" does not exist"]),
        ("number = some.component.x.part.m", &["2:32: field \"m\" does not exist"]),
        ("any = [{a = some.component.x.nothing}]", &["2:30: field \"nothing\" does not exist"]),
    ]);
}

#[test]
fn what_refers_to_no_component_is_evaluated() {
    all(&[
        ("text = sys.env(\"NO_SUCH_VARIABLE_OF_THIS_TEST\")\nforward_to = array.concat([], [])", &[]),
        ("number = sys.env(\"NO_SUCH_VARIABLE_OF_THIS_TEST\")", &["2:10: expected number, got string"]),
        ("interval = string.format(\"%dx\", 5)", &["2:12: time: unknown unit \"x\" in duration \"5x\""]),
        ("interval = string.format(\"%ds\", 5)", &["2:1: timeout greater than interval"]),
        ("text = constants.planet", &["2:18: field \"planet\" does not exist"]),
        ("text = constants.os()", &["2:8: constants.os should be function, got string"]),
        ("text = string.shout(\"x\")", &["2:15: field \"shout\" does not exist"]),
        ("text = string.to_upper(\"a\", \"b\")", &["2:8: string.to_upper expected 1 args, got 2"]),
        ("text = [\"a\"][1]", &["2:14: 1 index 1 is out of range of array with length 1"]),
        ("text = {a = \"b\"}.c", &["2:18: field \"c\" does not exist"]),
        ("number = 1 / (2 - 2)", &["2:14: (2 - 2) divide by zero error"]),
        // Within what is computed there is no text to point at.
        (
            "headers = encoding.from_json(`{\"a\": [\"b\", true]}`)",
            &["2:11: encoding.from_json(`{\"a\": [\"b\", true]}`).a[1] should be string, got bool"],
        ),
        // What is computed need not be whole, as at run time.
        ("part = encoding.from_json(`{}`)", &[]),
    ]);
}

#[test]
fn calls_and_operators_are_checked_by_the_types_of_what_is_not_known() {
    all(&[
        ("text = string.to_upper(some.component.x.content)", &[]),
        (
            "text = string.to_upper(some.component.x.targets)",
            &["2:24: some.component.x.targets should be string, got array"],
        ),
        (
            "text = string.to_upper(some.component.x.key)",
            &["2:24: some.component.x.key secrets may not be converted into strings"],
        ),
        ("text = string.to_upper(some.component.x.any, 1)", &["2:8: string.to_upper expected 1 args, got 2"]),
        ("text = string.trim(true, some.component.x.any)", &["2:20: true should be string, got bool"]),
        ("truth = string.to_upper(some.component.x.any)", &["2:9: expected bool, got string"]),
        ("targets = array.concat(some.component.x.targets, [{}])", &[]),
        (
            "forward_to = array.concat([some.component.x.logs], [])",
            &["2:14: array.concat([some.component.x.logs], [])[0] expected capsule(\"prometheus.Appendable\"), got \
               capsule(\"loki.LogsReceiver\")"],
        ),
        ("text = array.concat(some.component.x.targets)", &["2:8: expected string, got array"]),
        ("text = some.component.x.content + 1", &["2:35: 1 should be string, got number"]),
        (
            "text = \"a\" + some.component.x.ready",
            &["2:14: some.component.x.ready should be one of [number string capsule] for binop +, got bool"],
        ),
        ("text = \"a\" + some.component.x.key", &[]),
        ("number = some.component.x.size / 0", &["2:34: 0 divide by zero error"]),
        ("truth = !some.component.x.size", &["2:10: some.component.x.size should be bool, got number"]),
        (
            "text = some.component.x.content.a",
            &["2:8: some.component.x.content cannot access field \"a\" on value of type string"],
        ),
        ("text = some.component.x.targets[\"a\"]", &["2:33: \"a\" should be number, got string"]),
        ("text = some.component.x.content()", &["2:8: some.component.x.content should be function, got string"]),
    ]);
}

#[test]
fn every_part_of_an_expression_is_looked_at() {
    all(&[(
        "any = [some.component.x.a, string.trim(some.component.x.b), {c = 1 + true}]",
        &[
            "2:25: field \"a\" does not exist",
            "2:57: field \"b\" does not exist",
            "2:28: string.trim expected 2 args, got 1",
            "2:70: true should be one of [number string capsule] for binop +, got bool",
        ],
    )]);
}

#[test]
fn a_secret_is_no_label_of_a_target() {
    all(&[
        ("targets = [{a = some.component.x.content}]", &[]),
        ("targets = [{a = some.component.x.content, b = some.component.x.any}]", &[]),
        (
            "targets = [{a = some.component.x.key}]",
            &["2:12: target::ConvertFrom: cannot use a secret as a target value"],
        ),
    ]);
}

#[test]
fn an_argument_says_whether_an_export_is_secret() {
    let check =
        |exporter: &'static str| checked(Config::SCHEMA, "text = some.component.x.perhaps", &Components(exporter));
    let refused = ["2:8: secrets may not be converted into strings"];
    assert_eq!(check("truth = true"), refused);
    assert_eq!(check("truth = 1 == 1"), refused);
    assert_eq!(check("truth = false"), [""; 0]);
    assert_eq!(check(""), [""; 0]);
    assert_eq!(check("truth = null"), [""; 0]);
}

#[test]
fn a_rule_between_fields_is_checked_when_all_that_it_reads_is_known() {
    all(&[
        ("timeout = \"2m\"", &["2:1: timeout greater than interval"]),
        ("timeout = \"2m\"\ntext = argument.x.value", &["2:1: timeout greater than interval"]),
        ("timeout = argument.x.value", &[]),
        ("timeout = \"2m\"\ninterval = argument.x.value", &[]),
    ]);
}
