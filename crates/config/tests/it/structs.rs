//! The rules by which a body becomes a struct (specification, 2.4), one test each.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use corten_config::arguments::{CheckStep, Record};
use corten_config::decode::{self, DecodeContext};
use corten_config::encode::{self, Sensitive};
use corten_config::schema::Stability;
use corten_config::{Arguments, CheckErrors, Value};

use crate::support::{block, checked, decoded, decoded_in, refused, scope, texts};

#[derive(Arguments, Clone, Debug, PartialEq)]
struct Leaf {
    /// A number.
    #[arg(default = 1)]
    n: i64,
}

fn leaf(n: i64) -> Leaf {
    Leaf { n }
}

#[derive(Arguments, Debug, PartialEq)]
struct Names {
    /// An attribute.
    #[arg(optional)]
    attr: i64,
    /// A block.
    #[block]
    block: Option<Leaf>,
    /// A block with dots.
    #[block(name = "some.dotted")]
    dotted: Option<Leaf>,
}

#[test]
fn an_attribute_stands_once() {
    assert_eq!(refused::<Names>("attr = 1\nattr = 2"), ["3:1: attribute \"attr\" may only be provided once"]);
}

#[test]
fn names_that_are_not_known_are_refused() {
    assert_eq!(
        refused::<Names>("x = 1\nx.y { }\nblock { z = 1 }"),
        [
            "2:1: unrecognized attribute name \"x\"",
            "3:1: unrecognized block name \"x.y\"",
            "4:9: unrecognized attribute name \"z\"",
        ]
    );
}

#[test]
fn a_block_is_no_attribute_and_an_attribute_is_no_block() {
    assert_eq!(
        refused::<Names>("block = {}\nattr { }"),
        [
            "2:1: \"block\" must be a block, but is used as an attribute",
            "3:1: \"attr\" must be an attribute, but is used as a block",
        ]
    );
}

#[test]
fn names_of_blocks_may_have_dots() {
    let names = decoded::<Names>("some.dotted { n = 2 }").expect("it decodes");
    assert_eq!(names.dotted, Some(leaf(2)));
}

#[test]
fn a_single_block_that_repeats_is_reported_where_it_stands_first() {
    assert_eq!(
        refused::<Names>("block { }\nblock { n = true }"),
        ["2:1: block \"block\" may only be specified once", "3:13: true should be number, got bool"]
    );
}

#[test]
fn a_fixed_number_of_blocks_is_just_that() {
    #[derive(Arguments, Debug, PartialEq)]
    struct Config {
        /// Two.
        #[block]
        pair: [Leaf; 2],
    }
    assert_eq!(decoded::<Config>("pair { }\npair { n = 2 }"), Ok(Config { pair: [leaf(1), leaf(2)] }));
    let text =
        |count| format!("2:1: block \"pair\" must be specified exactly 2 times, but was specified {count} times");
    assert_eq!(refused::<Config>("pair { }"), [text(1)]);
    assert_eq!(refused::<Config>("pair { }\npair { }\npair { }"), [text(3)]);
    assert_eq!(refused::<Config>(""), ["1:1: missing required block \"pair\""]);
}

#[derive(Arguments, Debug, PartialEq)]
struct Required {
    /// An attribute.
    attr: String,
    /// A block.
    #[block]
    block: Leaf,
    /// At least one.
    #[block(required)]
    many: Vec<Leaf>,
}

#[test]
fn what_is_required_and_missing_is_reported_after_the_statements() {
    assert_eq!(
        refused::<Required>("other = 1"),
        [
            "2:1: unrecognized attribute name \"other\"",
            "1:1: missing required attribute \"attr\"",
            "1:1: missing required block \"block\"",
            "1:1: missing required block \"many\"",
        ]
    );
}

#[test]
fn what_is_missing_has_no_place_of_its_own_in_the_reference() {
    let cx = DecodeContext { scope: &(), minimum: Stability::GenerallyAvailable };
    let errors = decode::decode::<Required>(&block("attr = true"), &cx).expect_err("it is refused");
    let positioned: Vec<bool> = errors.problems().iter().map(|problem| problem.positioned).collect();
    assert_eq!(positioned, [true, false, false]);
}

#[test]
fn what_is_written_with_an_error_is_not_missing() {
    assert_eq!(refused::<Required>("attr = true\nblock { n = \"x\" }\nmany { }").len(), 2);
}

#[derive(Arguments, Debug, PartialEq)]
struct Absent {
    /// Its own defaults.
    #[block(default)]
    own: Leaf,
    /// The parent's.
    #[block(default_with = seven, default_text = "n is 7")]
    parents: Leaf,
    /// Nothing.
    #[block]
    nothing: Option<Leaf>,
    /// Zero.
    #[block(optional)]
    zero: Leaf,
    /// A list.
    #[block(default_with = eight_and_nine)]
    list: Vec<Leaf>,
}

fn seven() -> Leaf {
    leaf(7)
}

fn eight_and_nine() -> Vec<Leaf> {
    vec![leaf(8), leaf(9)]
}

#[test]
fn an_absent_block_has_what_its_parent_says() {
    assert_eq!(
        decoded::<Absent>(""),
        Ok(Absent { own: leaf(1), parents: leaf(7), nothing: None, zero: leaf(0), list: vec![leaf(8), leaf(9)] })
    );
}

#[test]
fn the_defaults_of_a_block_apply_when_it_is_written() {
    assert_eq!(
        decoded::<Absent>("own { }\nparents { }\nnothing { }\nzero { }"),
        Ok(Absent {
            own: leaf(1),
            parents: leaf(1),
            nothing: Some(leaf(1)),
            zero: leaf(1),
            list: vec![leaf(8), leaf(9)]
        })
    );
}

#[test]
fn the_first_block_of_a_list_discards_the_default_list() {
    assert_eq!(decoded::<Absent>("list { n = 3 }").map(|absent| absent.list), Ok(vec![leaf(3)]));
}

#[test]
fn a_place_may_have_defaults_of_its_own() {
    #[derive(Arguments, Debug, PartialEq)]
    struct Server {
        /// Address, of which every place has another.
        endpoint: String,
        #[flatten]
        leaf: Leaf,
    }
    #[derive(Arguments, Debug, PartialEq)]
    struct Config {
        /// One protocol.
        #[block(defaults(endpoint = "0.0.0.0:4317", n = 5), default)]
        grpc: Server,
        /// Another.
        #[block(defaults(endpoint = "0.0.0.0:4318"))]
        http: Option<Server>,
    }
    let server = |endpoint: &str, n| Server { endpoint: endpoint.to_owned(), leaf: leaf(n) };
    assert_eq!(
        decoded::<Config>("http { }"),
        Ok(Config { grpc: server("0.0.0.0:4317", 5), http: Some(server("0.0.0.0:4318", 1)) })
    );
    assert_eq!(decoded::<Config>("grpc { endpoint = \"x\" }"), Ok(Config { grpc: server("x", 5), http: None }));
}

#[derive(Arguments, Debug, PartialEq)]
struct Labelled {
    /// Its name.
    #[label]
    name: String,
    /// A number.
    #[arg(optional)]
    n: i64,
}

#[derive(Arguments, Debug, PartialEq)]
struct Labels {
    /// With labels.
    #[block]
    with: Vec<Labelled>,
    /// Without.
    #[block]
    without: Vec<Leaf>,
    /// Any attributes.
    #[block]
    map: Option<BTreeMap<String, i64>>,
}

#[test]
fn labels_stand_where_they_are_wanted() {
    let labels = decoded::<Labels>("with \"a\" { n = 1 }\nwith \"b\" { }").expect("it decodes");
    let one = |name: &str, n| Labelled { name: name.to_owned(), n };
    assert_eq!(labels.with, [one("a", 1), one("b", 0)]);
    assert_eq!(
        refused::<Labels>("with { }\nwith \"\" { }\nwithout \"a\" { }\nmap \"a\" { }"),
        [
            "2:1: block \"with\" requires non-empty label",
            "3:1: block \"with\" requires non-empty label",
            "4:1: block \"without\" does not support specifying labels",
            "5:1: block \"map\" requires empty label",
        ]
    );
}

#[test]
fn a_map_block_takes_any_attributes_and_no_blocks() {
    let labels = decoded::<Labels>("map {\na = 1\nb = 2\na = \"3\"\n}").expect("it decodes");
    assert_eq!(labels.map, Some(BTreeMap::from([("a".to_owned(), 3), ("b".to_owned(), 2)])));
    assert_eq!(
        refused::<Labels>("map {\na = true\nb { }\n}"),
        ["3:5: true should be number, got bool", "4:1: nested blocks not supported here"]
    );
}

#[derive(Arguments, Debug, PartialEq)]
enum Stage {
    /// One.
    Json(Leaf),
    /// Another.
    #[block(name = "label_drop")]
    Drop(BTreeMap<String, String>),
    /// Not settled yet.
    #[block(stability = experimental)]
    New,
    /// Stages within.
    Match(Pipeline),
}

#[derive(Arguments, Debug, PartialEq)]
struct Pipeline {
    /// Stages in order.
    #[block(group = "stage")]
    stages: Vec<Stage>,
    /// Something else.
    #[block]
    leaf: Vec<Leaf>,
}

#[test]
fn the_blocks_of_a_group_keep_their_order_across_their_names() {
    let pipeline = decoded::<Pipeline>(
        "stage.json { n = 1 }\nleaf { }\nstage.label_drop { a = 1 }\nstage.match {\nstage.json { }\n}\nstage.json { n = 2 }",
    );
    let inner = Pipeline { stages: vec![Stage::Json(leaf(1))], leaf: Vec::new() };
    assert_eq!(
        pipeline.map(|pipeline| pipeline.stages),
        Ok(vec![
            Stage::Json(leaf(1)),
            Stage::Drop(BTreeMap::from([("a".to_owned(), "1".to_owned())])),
            Stage::Match(inner),
            Stage::Json(leaf(2)),
        ])
    );
}

#[test]
fn the_name_of_a_group_alone_is_no_block_and_its_blocks_may_be_absent() {
    assert_eq!(decoded::<Pipeline>("").map(|pipeline| pipeline.stages), Ok(Vec::new()));
    assert_eq!(
        refused::<Pipeline>("stage {\njson { }\n}\nstage.none { }\nstage = []"),
        [
            "2:1: unrecognized block name \"stage\"",
            "5:1: unrecognized block name \"stage.none\"",
            "6:1: unrecognized attribute name \"stage\"",
        ]
    );
}

#[derive(Arguments, Debug, PartialEq)]
struct Gated {
    /// An attribute.
    #[arg(optional, stability = public_preview)]
    attr: i64,
    /// A block.
    #[block(stability = experimental)]
    http: Option<Leaf>,
    /// Blocks.
    #[block(group = "stage")]
    stages: Vec<Stage>,
}

#[test]
fn what_lies_below_the_minimum_of_stability_may_not_be_written() {
    let body = "attr = 1\nhttp { }\nstage.new { }";
    let at = |minimum| {
        let cx = DecodeContext { scope: &(), minimum };
        decode::decode::<Gated>(&block(body), &cx).map(|_| ()).map_err(texts).err().unwrap_or_default()
    };
    let text = |place, subject, level, minimum| {
        format!(
            "{place}: {subject} is at stability level \"{level}\", which is below the minimum allowed stability level \
             \"{minimum}\". Use --stability.level command-line flag to enable \"{level}\" features"
        )
    };
    let minimum = "generally-available";
    assert_eq!(
        at(Stability::GenerallyAvailable),
        [
            text("2:1", "attribute \"attr\"", "public-preview", minimum),
            text("3:1", "block \"http\"", "experimental", minimum),
            text("4:1", "block \"stage.new\"", "experimental", minimum),
        ]
    );
    let minimum = "public-preview";
    assert_eq!(
        at(Stability::PublicPreview),
        [
            text("3:1", "block \"http\"", "experimental", minimum),
            text("4:1", "block \"stage.new\"", "experimental", minimum),
        ]
    );
    assert_eq!(at(Stability::Experimental), [""; 0]);
}

#[derive(Arguments, Debug, PartialEq)]
struct Outer {
    #[flatten]
    inner: Inner,
    /// An attribute of its own.
    #[arg(optional)]
    own: i64,
}

#[derive(Arguments, Debug, PartialEq)]
struct Inner {
    /// Required.
    url: String,
    /// A block.
    #[block]
    leaf: Vec<Leaf>,
    #[flatten]
    deeper: Leaf,
}

impl Inner {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        errors.require(!self.url.is_empty(), &["url"], "url must not be empty");
        errors.into_result()
    }
}

impl Outer {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        errors.require(self.own != self.inner.deeper.n, &["own", "n"], "own must differ from n");
        errors.into_result()
    }
}

#[test]
fn a_flattened_struct_stands_in_its_parent() {
    let inner = Inner { url: "u".to_owned(), leaf: vec![leaf(3)], deeper: leaf(4) };
    assert_eq!(decoded::<Outer>("n = 4\nurl = \"u\"\nleaf { n = 3 }\nown = 5"), Ok(Outer { inner, own: 5 }));
    assert_eq!(
        refused::<Outer>("url = 1\nurl = 2\nunknown = 3"),
        ["3:1: attribute \"url\" may only be provided once", "4:1: unrecognized attribute name \"unknown\""]
    );
    assert_eq!(refused::<Outer>(""), ["1:1: missing required attribute \"url\""]);
}

#[test]
fn the_rules_of_all_structs_are_checked_inner_ones_first() {
    assert_eq!(refused::<Outer>("url = \"\"\nown = 1"), ["2:1: url must not be empty", "3:1: own must differ from n"]);
}

#[test]
fn a_rule_that_reads_a_field_with_an_error_is_not_checked() {
    assert_eq!(
        refused::<Outer>("url = \"\"\nown = true\nn = 0"),
        ["3:7: true should be number, got bool", "2:1: url must not be empty"]
    );
}

#[test]
fn rules_are_checked_after_all_else() {
    static CHECKS: AtomicUsize = AtomicUsize::new(0);
    #[derive(Arguments, Debug, PartialEq)]
    struct Config {
        /// An attribute.
        #[arg(default = 5)]
        a: i64,
    }
    impl Config {
        fn check(&self) -> Result<(), CheckErrors> {
            CHECKS.fetch_add(1, Ordering::Relaxed);
            if self.a == 5 { Ok(()) } else { Err("a is not five".into()) }
        }
    }
    assert_eq!(decoded::<Config>(""), Ok(Config { a: 5 }));
    assert_eq!(CHECKS.load(Ordering::Relaxed), 1);
    // A rule that names no field reads all of them, and waits until all are known.
    assert_eq!(refused::<Config>("a = true"), ["2:5: true should be number, got bool"]);
    assert_eq!(refused::<Config>("a = 6"), ["1:1: a is not five"]);
}

#[test]
fn an_expression_without_a_value_is_an_error_at_its_place() {
    assert_eq!(
        refused::<Names>("attr = nowhere.x + 1\nblock { n = 1 / 0 }"),
        ["2:8: identifier \"nowhere\" does not exist", "3:17: 0 divide by zero error"]
    );
}

#[test]
fn names_that_are_words_of_rust_are_usable() {
    #[derive(Arguments, Debug, PartialEq)]
    struct Config {
        /// A type.
        r#type: String,
        /// Another word.
        #[block]
        r#match: Option<Leaf>,
    }
    assert_eq!(
        decoded::<Config>("type = \"x\"\nmatch { }"),
        Ok(Config { r#type: "x".to_owned(), r#match: Some(leaf(1)) })
    );
}

#[test]
fn the_message_of_a_rule_does_not_show_a_secret() {
    #[derive(Arguments, Debug, PartialEq)]
    struct Config {
        /// Text.
        a: String,
        /// Texts.
        b: Vec<String>,
    }
    impl Config {
        fn check(&self) -> Result<(), CheckErrors> {
            Err(CheckErrors::of(&["a"], format!("no such region: {} {}", self.a, self.b.join(" "))))
        }
    }
    let scope = scope([("s", Value::string("hush").marked(true))]);
    let errors = decoded_in::<Config>("a = s\nb = [\"x\", s + \"ed\"]", &scope).map(|_| ()).map_err(texts);
    assert_eq!(errors, Err(vec!["2:1: no such region: (secret) x (secret)".to_owned()]));
}

#[test]
fn blocks_as_deep_as_the_parser_allows_fit_on_the_stack_of_a_thread() {
    // The parser refuses more than this, counting the block around.
    let depth = corten_syntax::DEPTH_MAX - 2;
    let body = format!("{}{}", "stage.match {\n".repeat(depth), "}\n".repeat(depth));
    assert_eq!(checked(Pipeline::SCHEMA, &body, &()), [""; 0]);
    let mut pipeline = decoded::<Pipeline>(&body).expect("it decodes");
    assert!(encode::json(&encode::arguments(&pipeline, &Sensitive::default())).len() > depth);
    let mut found = 0;
    while let Some(Stage::Match(inner)) = pipeline.stages.pop() {
        (pipeline, found) = (inner, found + 1);
    }
    assert_eq!(found, depth);
}

#[derive(Arguments, Debug, PartialEq)]
struct Texts {
    /// Texts.
    #[arg(optional)]
    texts: Vec<String>,
    /// Texts within blocks.
    #[block]
    inner: Vec<InnerTexts>,
}

#[derive(Arguments, Debug, PartialEq)]
struct InnerTexts {
    /// A text.
    text: String,
}

impl Texts {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        for (index, text) in self.texts.iter().enumerate() {
            if let Some(at) = text.find('!') {
                errors.push_within(&["texts"], &[CheckStep::Element(index), CheckStep::Byte(at)], "no shouting");
            }
        }
        for (index, block) in self.inner.iter().enumerate() {
            if let Some(at) = block.text.find('!') {
                let within = [CheckStep::Block(index), CheckStep::Field("text"), CheckStep::Byte(at)];
                errors.push_within(&["inner"], &within, "no shouting");
            }
        }
        errors.into_result()
    }
}

#[test]
fn a_rule_tells_the_place_inside_a_text() {
    for (body, place) in [
        ("texts = [\"ab!\"]", "2:13"),
        ("texts = [\n`a`,\n(`é\nab!`)]", "5:3"),
        ("texts = [\"\\x41\\n\\u00e9!\"]", "2:23"),
        // Only the place of what is computed is known.
        ("texts = [\"a\" + \"b!\"]", "2:10"),
        ("texts = concat([\"a\"], [\"b!\"])", "2:9"),
        ("inner { text = \"a\" }\ninner { text = \"b!\" }", "3:18"),
        ("inner { text = format(\"%s\", \"b!\") }", "2:16"),
    ] {
        let expected = [format!("{place}: no shouting")];
        assert_eq!(refused::<Texts>(body), expected, "{body}");
        assert_eq!(checked(Texts::SCHEMA, body, &()), expected, "{body}");
    }
}
