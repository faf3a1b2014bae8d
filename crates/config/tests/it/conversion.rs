//! The rules by which a value becomes an attribute (specification, 2.3), one test each.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use corten_config::decode::{Decode, Secret, SignedDuration, TextType};
use corten_config::limits::NESTING_MAX;
use corten_config::value::{Object, OptionalSecret, Value};
use corten_config::{Arguments, StringEnum};

use crate::capsules::{Labels, LogsReceiver, MetricsReceiver};
use crate::support::{decoded, decoded_in, refused, scope, texts};

/// A struct of one attribute `a` of the type, and what becomes of expressions.
macro_rules! check {
    ($ty:ty, [$($expr:expr => $expected:expr),+ $(,)?]) => {
        check!($ty, Object::new(), [$($expr => $expected),+])
    };
    ($ty:ty, $scope:expr, [$($expr:expr => $expected:expr),+ $(,)?]) => {{
        #[derive(Arguments, Debug, PartialEq)]
        struct One {
            /// The attribute.
            a: $ty,
        }
        let scope: Object = $scope;
        $(
            let got = decoded_in::<One>(&format!("a = {}", $expr), &scope).map(|decoded| decoded.value.a);
            let got = got.map_err(|errors| texts(errors).join("\n"));
            let expected: Result<$ty, &str> = $expected;
            assert_eq!(got, expected.map_err(|text| format!("2:5: {text}")), "{}", $expr);
        )+
    }};
}

fn text(text: &str) -> Result<String, &'static str> {
    Ok(text.to_owned())
}

#[test]
fn a_value_of_the_type_is_taken_as_it_is() {
    check!(bool, ["true" => Ok(true)]);
    check!(String, ["\"x\"" => text("x")]);
    check!(i64, ["-3" => Ok(-3)]);
    check!(u64, ["18446744073709551615" => Ok(u64::MAX)]);
    check!(f64, ["1.5" => Ok(1.5)]);
}

#[test]
fn null_gives_the_zero_value_of_the_type() {
    check!(bool, ["null" => Ok(false)]);
    check!(i64, ["null" => Ok(0)]);
    check!(f64, ["null" => Ok(0.0)]);
    check!(String, ["null" => text("")]);
    check!(Duration, ["null" => Ok(Duration::ZERO)]);
    check!(Secret, ["null" => Ok(Secret::new(""))]);
    check!(Vec<String>, ["null" => Ok(Vec::new())]);
    check!(BTreeMap<String, String>, ["null" => Ok(BTreeMap::new())]);
    check!(Option<String>, ["null" => Ok(None)]);
    check!(Value, ["null" => Ok(Value::NULL)]);
    check!([u8; 2], ["null" => Ok([0, 0])]);
    check!(Inner, ["null" => Ok(Inner { x: 0, y: String::new() })]);
}

#[test]
fn a_capsule_without_a_zero_value_is_not_null() {
    check!(MetricsReceiver, ["null" => Err("null should be capsule, got null")]);
}

#[test]
fn null_satisfies_what_is_required_and_is_not_the_default() {
    #[derive(Arguments, Debug, PartialEq)]
    struct Config {
        /// Required.
        a: String,
        /// Has a default.
        #[arg(default = "1m")]
        b: Duration,
    }
    assert_eq!(decoded::<Config>("a = null\nb = null"), Ok(Config { a: String::new(), b: Duration::ZERO }));
}

#[test]
fn any_keeps_the_value_with_the_kind_of_its_number() {
    check!(Value, [
        "1" => Ok(Value::int(1)),
        "1.0" => Ok(Value::float(1.0)),
        "18446744073709551615" => Ok(Value::uint(u64::MAX)),
        "[1, \"a\"]" => Ok(Value::array(vec![Value::int(1), Value::string("a")])),
    ]);
}

#[test]
fn a_number_becomes_text_in_decimal_without_an_exponent() {
    check!(String, [
        "5" => text("5"),
        "5.50" => text("5.5"),
        "1e21" => text("1000000000000000000000"),
        "-0.25" => text("-0.25"),
    ]);
}

#[test]
fn text_becomes_a_number_by_its_first_characters() {
    check!(i64, [
        "\"-15\"" => Ok(-15),
        "\"12\"" => Ok(12),
        "\"1e3\"" => Ok(1000),
        "\"-1.5\"" => Err("\"-1.5\" should be number, got string"),
        "\"\"" => Err("\"\" should be number, got string"),
        "\"+5\"" => Err("\"+5\" should be number, got string"),
        "\" 5\"" => Err("\" 5\" should be number, got string"),
        "\"0x10\"" => Err("\"0x10\" should be number, got string"),
    ]);
    check!(f64, ["\"1.5\"" => Ok(1.5), "\"2\"" => Ok(2.0)]);
}

#[test]
fn a_number_of_another_kind_is_cut_off_and_wraps_without_a_word() {
    check!(i64, ["1.9" => Ok(1), "-1.9" => Ok(-1)]);
    check!(i8, ["300" => Ok(44)]);
    check!(u64, ["-1" => Ok(u64::MAX)]);
    check!(u8, ["256" => Ok(0)]);
}

#[test]
fn a_boolean_comes_from_nothing_else_and_becomes_nothing_else() {
    check!(bool, [
        "\"true\"" => Err("\"true\" should be bool, got string"),
        "1" => Err("1 should be bool, got number"),
    ]);
    check!(String, ["true" => Err("true should be string, got bool")]);
    check!(i64, ["true" => Err("true should be number, got bool")]);
}

#[test]
fn bytes_become_text_and_no_secret() {
    let bytes = || scope([("b", Value::bytes(b"abc".to_vec()))]);
    check!(String, bytes(), ["b" => text("abc")]);
    check!(Vec<u8>, bytes(), ["b" => Ok(b"abc".to_vec())]);
    check!(Secret, bytes(), ["b" => Err("b should be capsule, got array")]);
}

#[test]
fn a_duration_is_text_with_units() {
    check!(Duration, [
        "\"1h30m\"" => Ok(Duration::from_secs(5400)),
        "\"1.5s\"" => Ok(Duration::from_millis(1500)),
        "\"2us3ns\"" => Ok(Duration::from_nanos(2003)),
        "0" => Ok(Duration::ZERO),
        "5" => Err("5 time: missing unit in duration \"5\""),
        "\"\"" => Err("\"\" time: invalid duration \"\""),
        "\"1d\"" => Err("\"1d\" time: unknown unit \"d\" in duration \"1d\""),
        "true" => Err("true should be string, got bool"),
    ]);
    check!(SignedDuration, ["\"-1s\"" => Ok(SignedDuration { nanoseconds: -1_000_000_000 })]);
}

#[test]
fn words_are_read_from_text_and_from_nothing_else() {
    #[derive(StringEnum, Debug, PartialEq)]
    enum Level {
        /// Everything.
        Debug,
        /// Some.
        #[value(zero)]
        Info,
        /// Ports may be written as numbers.
        #[value(name = "80")]
        Port,
    }
    check!(Level, [
        "\"debug\"" => Ok(Level::Debug),
        "80" => Ok(Level::Port),
        "null" => Ok(Level::Info),
        "\"Debug\"" => Err("\"Debug\" unrecognized value \"Debug\", must be one of \"debug\", \"info\", \"80\""),
        "true" => Err("true should be string, got bool"),
    ]);
}

#[derive(Debug, PartialEq)]
struct Port(u16);

impl TextType for Port {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map(Port).map_err(|_| format!("invalid port {text:?}"))
    }

    fn text(&self) -> String {
        self.0.to_string()
    }

    fn null() -> Option<Self> {
        Some(Port(0))
    }
}

corten_config::decode_text!(Port);

#[test]
fn a_type_with_a_text_form_is_read_from_text_and_numbers() {
    check!(Port, [
        "\"80\"" => Ok(Port(80)),
        "443" => Ok(Port(443)),
        "null" => Ok(Port(0)),
        "\"http\"" => Err("\"http\" invalid port \"http\""),
        "true" => Err("true should be string, got bool"),
    ]);
    assert_eq!(Port(80).to_value(), Value::string("80"));
    assert_eq!(shown::<Port>(), "string");
}

#[test]
fn an_array_becomes_a_list_element_by_element() {
    check!(Vec<String>, [
        "[\"a\", 1]" => Ok(vec!["a".to_owned(), "1".to_owned()]),
        "[\"a\", null]" => Ok(vec!["a".to_owned(), String::new()]),
        "\"a\"" => Err("\"a\" should be array, got string"),
        "{}" => Err("{} should be array, got object"),
    ]);
    // Every element that does not fit is reported.
    assert_eq!(
        refused::<Lists>("a = [[1], [\"x\", true]]"),
        ["2:12: \"x\" should be number, got string", "2:17: true should be number, got bool"]
    );
}

#[derive(Arguments, Debug, PartialEq)]
struct Lists {
    /// The attribute.
    a: Vec<Vec<i64>>,
}

#[test]
fn a_fixed_array_has_just_so_many_elements() {
    check!([i64; 2], [
        "[1, 2]" => Ok([1, 2]),
        "[1]" => Err("[1] array must have exactly 2 elements, got 1"),
        "[1, 2, 3]" => Err("[1, 2, 3] array must have exactly 2 elements, got 3"),
    ]);
}

#[test]
fn an_object_becomes_a_map_field_by_field() {
    let map = |value: &str| BTreeMap::from([("a".to_owned(), value.to_owned())]);
    check!(BTreeMap<String, String>, [
        "{a = \"x\"}" => Ok(map("x")),
        "{a = 5}" => Ok(map("5")),
        "{a = null}" => Ok(map("")),
        "[]" => Err("[] should be object, got array"),
    ]);
    assert_eq!(
        refused::<Maps>("a = { x = [true],\n\"y z\" = { },\n}"),
        ["2:12: true should be string, got bool", "3:9: {} should be array, got object"]
    );
}

#[derive(Arguments, Debug, PartialEq)]
struct Maps {
    /// The attribute.
    a: BTreeMap<String, Vec<String>>,
}

#[derive(Arguments, Debug, PartialEq)]
struct Inner {
    /// Required.
    x: i64,
    /// With a default.
    #[arg(default = "y")]
    y: String,
}

#[test]
fn an_object_becomes_a_struct_with_the_defaults_of_the_struct_first() {
    check!(Inner, ["{x = 1}" => Ok(Inner { x: 1, y: "y".to_owned() })]);
    check!(Vec<Inner>, ["[{x = 1, y = \"z\"}]" => Ok(vec![Inner { x: 1, y: "z".to_owned() }])]);
    check!(Inner, ["1" => Err("1 should be object, got number")]);
}

#[test]
fn required_fields_of_an_object_are_not_enforced_at_run_time() {
    check!(Inner, ["{}" => Ok(Inner { x: 0, y: "y".to_owned() })]);
}

#[test]
fn a_field_that_a_struct_does_not_have_is_named_behind_its_value() {
    #[derive(Arguments, Debug, PartialEq)]
    struct Config {
        /// The attribute.
        a: Inner,
    }
    assert_eq!(
        refused::<Config>("a = {x = 1, z = 3, w = [2]}"),
        ["2:24: [2] does not have field named \"w\"", "2:17: 3 does not have field named \"z\""]
    );
    // A value that stands elsewhere is named by the expression that brings it.
    let object = Value::object(scope([("z", Value::int(3))]));
    let errors = decoded_in::<Config>("a = o", &scope([("o", object)])).map(|_| ()).map_err(texts);
    assert_eq!(errors, Err(vec!["2:5: o does not have field named \"z\"".to_owned()]));
}

#[derive(Arguments, Debug, PartialEq)]
struct Labelled {
    /// Its name.
    #[label]
    name: String,
    /// A field.
    x: i64,
}

#[test]
fn an_object_becomes_a_list_of_labelled_blocks_whose_labels_are_its_keys() {
    let one = |name: &str, x| Labelled { name: name.to_owned(), x };
    check!(Vec<Labelled>, [
        "{a = {x = 1}, b = {x = 2}}" => Ok(vec![one("a", 1), one("b", 2)]),
    ]);
    check!(Labelled, ["{a = {x = 1}}" => Ok(one("a", 1))]);
    check!([Labelled; 2], ["{a = {x = 1}}" => Err("{a = {x = 1}} object must have exactly 2 keys, got 1")]);
}

#[test]
fn an_object_fills_the_blocks_of_a_struct() {
    #[derive(Arguments, Debug, PartialEq)]
    struct Config {
        /// A block.
        #[block]
        one: Option<Inner>,
        /// Blocks.
        #[block]
        many: Vec<Inner>,
        /// A block with dots.
        #[block(name = "some.name")]
        dotted: Option<Inner>,
        /// Any.
        #[block(optional)]
        any: BTreeMap<String, i64>,
    }
    let inner = |x| Inner { x, y: "y".to_owned() };
    check!(Config, [
        "{one = {x = 1}, many = [{x = 2}, {x = 3}], some = {name = {x = 4}}, any = {k = 5}}" => Ok(Config {
            one: Some(inner(1)),
            many: vec![inner(2), inner(3)],
            dotted: Some(inner(4)),
            any: BTreeMap::from([("k".to_owned(), 5)]),
        }),
    ]);
}

#[test]
fn strings_and_secrets_become_optional_secrets_and_secrets() {
    let optional = |text: &str, is_secret| OptionalSecret { text: text.into(), is_secret };
    let secrets = || {
        scope([
            ("s", Value::secret("x")),
            ("open", Value::optional_secret("x", false)),
            ("hidden", Value::optional_secret("x", true)),
        ])
    };
    check!(OptionalSecret, secrets(), [
        "\"x\"" => Ok(optional("x", false)),
        "s" => Ok(optional("x", true)),
        "open" => Ok(optional("x", false)),
        "hidden" => Ok(optional("x", true)),
    ]);
    check!(Secret, secrets(), [
        "\"x\"" => Ok(Secret::new("x")),
        "s" => Ok(Secret::new("x")),
        "open" => Ok(Secret::new("x")),
        "5" => Err("5 should be capsule, got number"),
    ]);
}

#[test]
fn an_optional_secret_that_is_none_becomes_a_string_and_a_number() {
    let open = || scope([("open", Value::optional_secret("42", false))]);
    check!(String, open(), ["open" => text("42")]);
    check!(i64, open(), ["open" => Ok(42)]);
}

#[test]
fn a_secret_never_becomes_a_string() {
    let secrets = || scope([("s", Value::secret("x")), ("hidden", Value::optional_secret("x", true))]);
    check!(String, secrets(), [
        "s" => Err("s secrets may not be converted into strings"),
        "hidden" => Err("hidden secrets may not be converted into strings"),
    ]);
}

#[test]
fn a_capsule_of_another_type_is_refused_with_both_names() {
    let receivers = || scope([("m", MetricsReceiver::new("m").to_value()), ("l", LogsReceiver::new("l").to_value())]);
    check!(Vec<MetricsReceiver>, receivers(), ["[m]" => Ok(vec![MetricsReceiver::new("m")])]);
    check!(MetricsReceiver, receivers(), [
        "m" => Ok(MetricsReceiver::new("m")),
        "l" => Err("l expected capsule(\"prometheus.Appendable\"), got capsule(\"loki.LogsReceiver\")"),
        "\"m\"" => Err("\"m\" should be capsule, got string"),
    ]);
}

#[test]
fn a_capsule_has_conversions_of_its_own() {
    let labels = Labels(scope([("job", Value::string("x"))]));
    let target = || scope([("t", labels.to_value())]);
    check!(Labels, target(), [
        "t" => Ok(labels.clone()),
        "{job = \"x\"}" => Ok(labels.clone()),
        "10" => Err("10 target::ConvertFrom: conversion from 'int64' is not supported"),
    ]);
    check!(BTreeMap<String, String>, target(), ["t" => Ok(BTreeMap::from([("job".to_owned(), "x".to_owned())]))]);
}

#[test]
fn a_value_within_a_reference_is_named_by_its_path() {
    let inner =
        Value::object(scope([("field1", Value::array(vec![Value::int(1), Value::int(2), Value::string("x")]))]));
    let scope = scope([("key_value", Value::object(scope([("object", inner)])))]);
    #[derive(Arguments, Debug, PartialEq)]
    struct Config {
        /// The attribute.
        a: BTreeMap<String, BTreeMap<String, Vec<i64>>>,
    }
    let errors = decoded_in::<Config>("a = key_value", &scope).map(|_| ()).map_err(texts);
    assert_eq!(errors, Err(vec!["2:5: key_value.object.field1[2] should be number, got string".to_owned()]));
}

/// Types are usable in generic code.
fn shown<T: Decode + Debug>() -> String {
    T::SHAPE.to_string()
}

#[test]
fn types_print_as_on_the_reference_pages() {
    let cases = [
        (shown::<bool>(), "bool"),
        (shown::<i64>(), "int"),
        (shown::<usize>(), "uint"),
        (shown::<f64>(), "float"),
        (shown::<String>(), "string"),
        (shown::<Duration>(), "duration"),
        (shown::<Secret>(), "secret"),
        (shown::<OptionalSecret>(), "string or secret"),
        (shown::<Value>(), "any"),
        (shown::<Option<Vec<String>>>(), "list(string)"),
        (shown::<BTreeMap<String, Vec<Secret>>>(), "map(list(secret))"),
        (shown::<Vec<Labels>>(), "list(map(string))"),
        (shown::<Vec<MetricsReceiver>>(), "list(MetricsReceiver)"),
        (shown::<Vec<Inner>>(), "list(object)"),
    ];
    for (shown, expected) in cases {
        assert_eq!(shown, expected);
    }
}

#[test]
fn secrets_print_as_a_mask() {
    let secret = Secret::new("hush");
    assert_eq!(format!("{secret} {secret:?} {:?}", Some(&secret)), "(secret) (secret) Some((secret))");
    let hidden = OptionalSecret { text: "hush".into(), is_secret: true };
    assert_eq!(format!("{hidden} {}", hidden.expose()), "(secret) hush");
    assert!(!format!("{hidden:?}").contains("hush"));
}

#[test]
fn arguments_without_fields_take_nothing() {
    assert_eq!(<()>::defaults(), Some(()));
    assert_eq!(refused::<()>("a = 1"), ["2:1: unrecognized attribute name \"a\""]);
}

#[test]
fn values_as_deep_as_functions_make_them_fit_on_the_stack_of_a_thread() {
    #[derive(Arguments, Clone, Debug, PartialEq)]
    struct Tree {
        /// Branches.
        #[arg(optional)]
        branches: Vec<Tree>,
    }
    let mut value = Value::object(Object::new());
    // Each level is an object and an array.
    for _ in 0..NESTING_MAX / 2 {
        value = Value::object(scope([("branches", Value::array(vec![value]))]));
    }
    let tree = decoded_in::<Tree>("branches = [tree]", &scope([("tree", value)])).map_err(texts).expect("it decodes");
    let (mut tree, mut depth) = (tree.value, 0);
    assert!(tree.to_value().to_string().len() > NESTING_MAX);
    while let Some(inner) = tree.branches.pop() {
        (tree, depth) = (inner, depth + 1);
    }
    assert_eq!(depth, NESTING_MAX / 2 + 1);
}
