//! What the derives refuse, and how they say it.

use proc_macro2::TokenStream;
use syn::DeriveInput;

type Expand = fn(&DeriveInput) -> syn::Result<TokenStream>;

const ARGUMENTS: Expand = crate::record::arguments;
const EXPORTS: Expand = crate::exports::expand;
const WORDS: Expand = crate::string_enum::expand;

/// All error texts of an expansion; none if it succeeds.
fn errors(expand: Expand, item: &str) -> Vec<String> {
    let input: DeriveInput = syn::parse_str(item).expect("the test's own text is an item");
    match expand(&input) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.into_iter().map(|error| error.to_string()).collect(),
    }
}

#[test]
fn a_field_without_a_doc_comment_does_not_compile() {
    let item = "struct A { a: bool, /// Fine.\n b: bool, #[block] c: C, #[label] d: String, #[flatten] e: E }";
    assert_eq!(
        errors(ARGUMENTS, item),
        [
            "field `a` has no doc comment: it is the user's reference",
            "field `c` has no doc comment: it is the user's reference",
            "field `d` has no doc comment: it is the user's reference",
        ]
    );
    assert_eq!(errors(ARGUMENTS, "enum A { B(B) }"), ["variant `B` has no doc comment: it is the user's reference"]);
    assert_eq!(
        errors(EXPORTS, "struct A { r#type: bool }"),
        ["field `type` has no doc comment: it is the user's reference"]
    );
    assert_eq!(errors(WORDS, "enum A { B }"), ["variant `B` has no doc comment: it is the user's reference"]);
}

#[test]
fn what_a_derive_does_not_understand_is_refused_where_it_stands() {
    let cases: &[(Expand, &str, &str)] = &[
        (ARGUMENTS, "union A { a: u8 }", "arguments are a struct or an enum"),
        (ARGUMENTS, "struct A(u8);", "the fields need names: write `struct Name {}` for none"),
        (ARGUMENTS, "struct A<T> { a: T }", "arguments have no type parameters: their schema is one static table"),
        (EXPORTS, "struct A<T> { a: T }", "exports have no type parameters: their schema is one static table"),
        (EXPORTS, "enum A { B }", "exports are a struct"),
        (WORDS, "struct A {}", "only an enum of words is read from text"),
        (WORDS, "enum A {}", "an enum of words needs at least one"),
        (WORDS, "enum A { /// B.\n B(u8) }", "a word holds nothing"),
        (WORDS, "enum A { /// B.\n B, /// C.\n #[value(name = \"b\")] C }", "two variants are written `b`"),
        (
            WORDS,
            "enum A { /// B.\n #[value(zero)] B, /// C.\n #[value(zero)] C }",
            "only one variant is what `null` stands for",
        ),
        (ARGUMENTS, "struct A { /// B.\n #[arg(defualt = 1)] b: u8 }", "`arg` takes `name`, `default`, `default_with`"),
        (ARGUMENTS, "struct A { /// B.\n #[arg(default = 1, default = 2)] b: u8 }", "`default` stands twice"),
        (ARGUMENTS, "struct A { /// B.\n #[arg(default = X)] b: u8 }", "a default is a literal of the user's language"),
        (ARGUMENTS, "struct A { /// B.\n #[arg(default = 1, optional)] b: u8 }", "`default` and `optional` exclude"),
        (ARGUMENTS, "struct A { /// B.\n #[arg(default_with = f)] b: u8 }", "`default_with` needs `default_text`"),
        (ARGUMENTS, "struct A { /// B.\n #[arg(default_text = \"x\")] b: u8 }", "`default_text` needs `default_with`"),
        (ARGUMENTS, "struct A { /// B.\n #[arg(name = \"a b\")] b: u8 }", "no name that a user can write"),
        (ARGUMENTS, "struct A { /// B.\n #[arg(name = \"true\")] b: u8 }", "no name that a user can write"),
        (ARGUMENTS, "struct A { /// B.\n #[arg(name = \"a.b\")] b: u8 }", "the name of an attribute has no dots"),
        (ARGUMENTS, "struct A { /// B.\n #[arg(stability = beta)] b: u8 }", "a stability is `experimental`"),
        (ARGUMENTS, "struct A { /// B.\n #[arg(name = \"c\")] b: u8, /// C.\n c: u8 }", "two fields are called `c`"),
        (ARGUMENTS, "struct A { /// B.\n #[arg] #[block] b: u8 }", "a field is either `#[arg]` or `#[block]`"),
        (ARGUMENTS, "struct A { /// B.\n #[block] #[block] b: u8 }", "`#[block]` stands twice"),
        (ARGUMENTS, "struct A { /// B.\n #[block(default = 1)] b: B }", "expected `,`"),
        (
            ARGUMENTS,
            "struct A { /// B.\n #[block(group = \"b\", name = \"c\")] b: Vec<B> }",
            "`group` and `name` exclude",
        ),
        (ARGUMENTS, "struct A { #[flatten(name = \"b\")] b: B }", "`flatten` takes `defaults`"),
        (ARGUMENTS, "struct A { /// B.\n #[label] b: String, /// C.\n #[label] c: String }", "a block has one label"),
        (ARGUMENTS, "enum A { /// B.\n #[arg] B(B) }", "a variant is a block: it takes `#[block(...)]`"),
        (ARGUMENTS, "enum A { /// B.\n B { c: u8 } }", "a variant holds the arguments of its block"),
        (ARGUMENTS, "enum A { /// B.\n B(B), /// C.\n #[block(name = \"b\")] C(C) }", "two variants are called `b`"),
    ];
    for (expand, item, expected) in cases {
        let errors = errors(*expand, item);
        assert!(errors.iter().any(|error| error.contains(expected)), "{item}: {errors:?}");
    }
}

#[test]
fn all_errors_of_a_derive_are_reported_at_once() {
    let item = "struct A { b: u8, /// C.\n #[arg(nothing)] c: u8, d: u8 }";
    assert_eq!(errors(ARGUMENTS, item).len(), 3);
}

#[test]
fn variants_and_words_are_called_by_their_names_in_snake_case() {
    let cases =
        [("Json", "json"), ("LabelDrop", "label_drop"), ("HTTPServer", "http_server"), ("Tls12", "tls12"), ("A", "a")];
    for (name, expected) in cases {
        assert_eq!(crate::string_enum::snake_case(name), expected);
    }
}

#[test]
fn lines_of_a_doc_comment_stay_lines_without_their_first_space() {
    let input: DeriveInput = syn::parse_str("/// One.\n///\n///  - two\nstruct A {}").expect("an item");
    assert_eq!(crate::attributes::doc(&input.attrs).as_deref(), Some("One.\n\n - two"));
}
