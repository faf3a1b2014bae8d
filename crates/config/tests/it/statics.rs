//! Static checks: what is told of a configuration without running it.

use std::collections::BTreeMap;
use std::time::Duration;

use corten_config::arguments::Record;
use corten_config::decode::{References, Secret};
use corten_config::schema::Schema;
use corten_config::{Arguments, CheckErrors, Exports, StringEnum, Value};

use crate::capsules::{Labels, LogsReceiver, MetricsReceiver};
use crate::support::checked;

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

/// Knows `some.component.x` as a component with these exports.
struct Components;

impl References for Components {
    fn exports(&self, names: &[&str]) -> Option<(usize, &'static Schema)> {
        names.starts_with(&["some", "component", "x"]).then_some((3, Offer::SCHEMA))
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
    checked(Config::SCHEMA, body, &Components)
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
        ("number = sys.env(\"PORT\")\nforward_to = array.concat([], [])", &[]),
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
fn a_rule_between_fields_is_checked_when_all_that_it_reads_is_known() {
    all(&[
        ("timeout = \"2m\"", &["2:1: timeout greater than interval"]),
        ("timeout = \"2m\"\ntext = argument.x.value", &["2:1: timeout greater than interval"]),
        ("timeout = argument.x.value", &[]),
        ("timeout = \"2m\"\ninterval = argument.x.value", &[]),
    ]);
}
