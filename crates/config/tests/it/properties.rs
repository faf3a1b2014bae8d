//! What holds for every text.

use proptest::prelude::*;

use corten_config::arguments::Record;
use corten_config::decode::{self, DecodeContext, Typed};
use corten_config::schema::{Shape, Stability};
use corten_config::value::Object;
use corten_config::{Arguments, Value, encode, stdlib};
use corten_syntax::{Block, Stmt, parse};

use crate::example;
use crate::support::scope;

/// Everything that can be decoded without a component.
#[derive(Arguments, Debug)]
struct Config {
    /// Text.
    #[arg(default = "x")]
    text: String,
    /// A number.
    #[arg(default = 1)]
    number: i64,
    /// A truth.
    truth: Option<bool>,
    /// Times.
    #[arg(optional)]
    times: Vec<std::time::Duration>,
    /// An object.
    #[arg(optional)]
    store: example::Store,
    /// Anything.
    any: Option<Value>,
    /// Rules.
    #[block(name = "rule")]
    rules: Vec<example::Rule>,
    /// A block.
    #[block]
    positions: Option<example::Positions>,
    /// Targets.
    #[block]
    target: Vec<example::Target>,
    /// Steps.
    #[block(group = "step")]
    steps: Vec<example::Step>,
    /// Variables.
    #[block]
    variables: Option<std::collections::BTreeMap<String, String>>,
}

const NAMES: &[&str] = &[
    "text",
    "number",
    "truth",
    "times",
    "store",
    "any",
    "rule",
    "positions",
    "target",
    "step.drop",
    "step.match",
    "step.reset",
    "variables",
    "action",
    "regex",
    "path",
    "entries",
    "older_than",
    "selector",
    "address",
    "nothing",
];

const LITERALS: &[&str] = &[
    "1",
    "-1.5",
    "\"x\"",
    "\"15s\"",
    "\"keep\"",
    "true",
    "null",
    "[]",
    "{}",
    "\"7\"",
    "1 + 1",
    "!true",
    "(\"a\" + \"b\")",
];

fn literal() -> impl Strategy<Value = String> {
    proptest::sample::select(LITERALS).prop_map(str::to_owned).prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(", "))),
            proptest::collection::vec((proptest::sample::select(NAMES), inner), 0..4).prop_map(|fields| {
                let fields: Vec<_> = fields.iter().map(|(name, value)| format!("\"{name}\" = {value}")).collect();
                format!("{{{}}}", fields.join(", "))
            }),
        ]
    })
}

fn expression() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => literal(),
        1 => Just("secret".to_owned()),
        1 => Just("[secret, {a = secret}]".to_owned()),
        1 => literal().prop_map(|literal| format!("[{literal}, unknown.name]")),
        1 => literal().prop_map(|literal| format!("secret + {literal}")),
    ]
}

fn body(expression: impl Strategy<Value = String> + Clone + 'static) -> impl Strategy<Value = String> {
    let attr = (proptest::sample::select(NAMES), expression)
        .prop_map(|(name, value)| format!("{} = {value}", name.split('.').next().unwrap_or_default()));
    let statement = attr.boxed().prop_recursive(3, 24, 6, |inner| {
        let label = prop_oneof![3 => Just(""), 1 => Just("\"label\"")];
        (proptest::sample::select(NAMES), label, proptest::collection::vec(inner, 0..5))
            .prop_map(|(name, label, body)| format!("{name} {label} {{\n{}\n}}", body.join("\n")))
    });
    proptest::collection::vec(statement, 0..8).prop_map(|statements| statements.join("\n"))
}

/// Texts of a kind that fits, given what else may stand where text does.
fn fitting(text: &'static [&'static str]) -> impl Strategy<Value = String> {
    let texts = proptest::sample::select(text);
    let attr = |name: &'static str, values: Vec<String>| {
        proptest::option::weighted(0.4, proptest::sample::select(values))
            .prop_map(move |value| value.map(|value| format!("{name} = {value}")).unwrap_or_default())
    };
    let owned = |values: &[&str]| values.iter().map(|value| value.to_string()).collect::<Vec<_>>();
    let attrs = (
        attr("text", owned(text)),
        attr("number", owned(&["1", "\"-7\"", "1.5", "null", "2 + 3"])),
        attr("truth", owned(&["true", "!true", "null"])),
        attr("times", owned(&["[\"15s\", \"1h\"]", "[]", "[0]"])),
        attr("store", text.iter().map(|text| format!("{{path = {text}}}")).collect()),
        attr("any", text.iter().map(|text| format!("[{{a = {text}}}, {text}, 1]")).collect()),
    );
    let leaf = |template: &'static str| texts.clone().prop_map(move |text| template.replace('@', text));
    let step = prop_oneof![
        Just("step.reset { }".to_owned()),
        Just("step.drop {\nolder_than = \"1h\"\n}".to_owned()),
        leaf("step.match {\nselector = @\nstep.match {\nselector = @\n}\n}"),
    ];
    let blocks = prop_oneof![
        step,
        Just("rule { }".to_owned()),
        leaf("rule {\naction = \"keep\"\nregex = @\n}"),
        leaf("target \"x\" {\naddress = @\n}"),
    ];
    let once = (
        proptest::option::of(leaf("positions {\npath = @\n}")),
        proptest::option::of(leaf("variables {\na = @\nb = \"b\"\n}")),
    );
    (attrs, proptest::collection::vec(blocks, 0..6), once).prop_map(|((a, b, c, d, e, f), blocks, (g, h))| {
        let once = [a, b, c, d, e, f, g.unwrap_or_default(), h.unwrap_or_default()];
        once.into_iter().chain(blocks).collect::<Vec<_>>().join("\n")
    })
}

/// Bodies that fit, bodies with one statement more that may not fit, and bodies of anything.
fn mixed(
    expression: impl Strategy<Value = String> + Clone + 'static,
    text: &'static [&'static str],
) -> impl Strategy<Value = String> {
    prop_oneof![
        3 => fitting(text),
        3 => (fitting(text), body(expression.clone())).prop_map(|(fitting, body)| format!("{fitting}\n{body}")),
        1 => body(expression),
    ]
}

/// The block of a text, if it is one.
fn block(body: &str) -> Option<std::sync::Arc<Block>> {
    let parsed = parse("test", &format!("component {{\n{body}\n}}"));
    match parsed.file.body.first() {
        Some(Stmt::Block(block)) => Some(std::sync::Arc::clone(block)),
        _ => None,
    }
}

const CHECK: DecodeContext<'static> = DecodeContext { scope: &(), minimum: Stability::GenerallyAvailable };

/// What components may export, by the names under which expressions below read it.
fn exported() -> Vec<(&'static str, Value, Shape)> {
    let text = |text: &str| Value::string(text);
    let fields = [("a", text("1")), ("b", text("x"))].map(|(name, value)| (std::sync::Arc::from(name), value));
    vec![
        ("text", text("x"), Shape::String),
        ("digits", text("7"), Shape::String),
        ("number", Value::int(2), Shape::Int),
        ("fraction", Value::float(0.5), Shape::Float),
        ("truth", Value::bool(true), Shape::Bool),
        ("list", Value::array(vec![text("a"), text("b")]), Shape::List(<String as Typed>::TYPE)),
        ("numbers", Value::array(vec![Value::int(1)]), Shape::List(<i64 as Typed>::TYPE)),
        ("map", Value::object(fields.into()), Shape::Map(<String as Typed>::TYPE)),
        ("any", text("x"), Shape::Any),
        ("key", Value::secret("k"), Shape::Secret),
        ("open", Value::optional_secret("k", false), Shape::OptionalSecret),
        ("shut", Value::optional_secret("k", true), Shape::OptionalSecret),
    ]
}

const OPERATORS: &[&str] = &["+", "-", "*", "/", "%", "^", "==", "!=", "<", ">=", "&&", "||"];

/// Expressions over what components export.
fn over_exports() -> impl Strategy<Value = String> {
    let names: Vec<&'static str> = exported().iter().map(|(name, ..)| *name).collect();
    let leaf = prop_oneof![
        4 => proptest::sample::select(names).prop_map(str::to_owned),
        1 => proptest::sample::select(LITERALS).prop_map(str::to_owned),
    ];
    leaf.prop_recursive(3, 16, 3, move |inner| {
        let functions: Vec<&'static str> = stdlib::FUNCTIONS.iter().map(|function| function.name).collect();
        prop_oneof![
            3 => (inner.clone(), proptest::sample::select(OPERATORS), inner.clone())
                .prop_map(|(left, operator, right)| format!("({left} {operator} {right})")),
            1 => inner.clone().prop_map(|value| format!("!{value}")),
            1 => inner.clone().prop_map(|value| format!("-{value}")),
            1 => inner.clone().prop_map(|value| format!("{value}.a")),
            2 => (inner.clone(), inner.clone()).prop_map(|(value, place)| format!("{value}[{place}]")),
            1 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("[{a}, {b}]")),
            1 => inner.clone().prop_map(|value| format!("{{\"a\" = {value}, b = 1}}")),
            3 => (proptest::sample::select(functions), proptest::collection::vec(inner, 0..3))
                .prop_map(|(function, args)| format!("{function}({})", args.join(", "))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_accepted_at_run_time_is_accepted_while_exports_are_not_known(
        name in proptest::sample::select(&["text", "number", "truth", "times", "any"][..]),
        value in over_exports(),
    ) {
        let Some(block) = block(&format!("{name} = {value}")) else { return Ok(()) };
        let exported = exported();
        let at = |of: fn(&(&'static str, Value, Shape)) -> Value| -> Object {
            exported.iter().map(|export| (export.0.into(), of(export))).collect()
        };
        let (known, unknown) = (at(|(_, value, _)| value.clone()), at(|(.., shape)| Value::unknown_of(*shape)));
        let cx = |scope| DecodeContext { scope, minimum: Stability::Experimental };
        let nothing_known = names_only(&exported);
        let run = decode::decode::<Config>(&block, &cx(&known)).map(|_| ());
        let known = decode::check(Config::SCHEMA, &block, &cx(&known));
        // With everything known a check finds what is found at run time.
        prop_assert_eq!(run.is_ok(), known.is_ok(), "{}: {:?} {:?}", value, run.err(), known.err());
        if run.is_ok() {
            for scope in [&unknown, &nothing_known] {
                let checked = decode::check(Config::SCHEMA, &block, &cx(scope));
                prop_assert!(checked.is_ok(), "{value}: {}", checked.unwrap_err());
            }
        }
    }
}

/// The same names, and nothing known of them.
fn names_only(exported: &[(&'static str, Value, Shape)]) -> Object {
    exported.iter().map(|(name, ..)| ((*name).into(), Value::unknown())).collect()
}

proptest! {
    #[test]
    fn whatever_is_written_is_decoded_or_refused_and_its_secrets_stay_hidden(
        body in mixed(expression().boxed(), &["\"x\"", "secret", "secret + \"x\"", "5"]),
    ) {
        let secrets = scope([("secret", Value::string("hush-hush").marked(true))]);
        let cx = DecodeContext { scope: &secrets, minimum: Stability::GenerallyAvailable };
        let Some(block) = block(&body) else { return Ok(()) };
        let _ = decode::check(Config::SCHEMA, &block, &CHECK);
        match decode::decode::<Config>(&block, &cx) {
            Err(errors) => {
                prop_assert!(!errors.problems().is_empty());
                prop_assert!(!errors.into_diagnostics().all_messages().contains("hush"), "{body}");
            }
            Ok(decoded) => {
                let json = encode::json(&encode::arguments(&decoded.value, &decoded.sensitive));
                prop_assert!(!json.contains("hush"), "{body}\n{json}");
                prop_assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok(), "{json}");
            }
        }
    }

    #[test]
    fn literals_that_a_static_check_accepts_are_accepted_at_run_time(
        body in mixed(literal().boxed(), &["\"x\"", "5", "null", "(\"a\" + \"b\")"]),
    ) {
        let cx = DecodeContext { scope: &(), minimum: Stability::GenerallyAvailable };
        let Some(block) = block(&body) else { return Ok(()) };
        if decode::check(Config::SCHEMA, &block, &CHECK).is_ok() {
            let decoded = decode::decode::<Config>(&block, &cx);
            prop_assert!(decoded.is_ok(), "{body}\n{:?}", decoded.err().map(|errors| errors.to_string()));
        }
    }

    #[test]
    fn any_text_at_all_is_decoded_or_refused(text in ".{0,200}") {
        let cx = DecodeContext { scope: &(), minimum: Stability::GenerallyAvailable };
        if let Some(block) = block(&text) {
            let _ = decode::check(Config::SCHEMA, &block, &CHECK);
            let _ = decode::decode::<Config>(&block, &cx);
        }
    }
}
