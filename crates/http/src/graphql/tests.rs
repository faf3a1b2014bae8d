use proptest::prelude::*;

use super::*;

/// How the reference's schema, served by the library that it is served by there, answered, given the values of [`Given`].
const RECORDED: &str = include_str!("recorded.json");

/// What each component says that it was given.
const ARGUMENTS: &str = r#"[{"name":"a<b>","type":"attr"}]"#;

/// A program with two components.
struct Given;

impl Source for Given {
    fn alloy(&self, field: &str) -> Option<&str> {
        match field {
            "branch" => Some("b"),
            "buildDate" => Some("d"),
            "buildUser" => Some("u"),
            "revision" => Some("r"),
            "version" => Some("v<1> \"é\" & \\"),
            _ => None,
        }
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn ids(&self) -> Vec<String> {
        ["local.file.a", "m.x/local.file.b"].map(str::to_owned).to_vec()
    }

    async fn component(&self, id: &str, wanted: Wanted) -> Option<Component> {
        let updated = match id {
            "local.file.a" => "2026-01-02T03:04:05.12345Z",
            "m.x/local.file.b" => "2026-01-02T03:04:05Z",
            _ => return None,
        };
        Some(Component {
            id: id.to_owned(),
            name: "local.file".to_owned(),
            message: "started \"component\"".to_owned(),
            updated: updated.to_owned(),
            arguments: if wanted.arguments { ARGUMENTS.to_owned() } else { String::new() },
            exports: None,
            debug_info: wanted.debug_info.then(|| "[]".to_owned()),
        })
    }
}

/// The status and the text of the answer.
fn ask(query: &str, operation: &str, variables: Map<String, Json>) -> (u16, String) {
    let asked = Asked { query: query.to_owned(), operation: operation.to_owned(), variables };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    match runtime.block_on(answered(&asked, &Given)) {
        Ok(text) => (200, text),
        Err(faults) => (422, answer(&faults, "null")),
    }
}

#[test]
fn queries_are_answered_as_recorded() {
    let recorded: Vec<Json> = serde_json::from_str(RECORDED).unwrap();
    assert!(recorded.len() > 100);
    let mut different = Vec::new();
    for case in &recorded {
        let text = |name: &str| case[name].as_str().unwrap_or_default();
        let variables = case["variables"].as_object().cloned().unwrap_or_default();
        let (status, answer) = ask(text("query"), text("operationName"), variables);
        let found: Json = serde_json::from_str(&answer).unwrap();
        if (case["status"].as_u64(), &case["answer"]) != (Some(status.into()), &found) {
            different.push(format!(
                "{}\n  wanted {} {}\n  found  {status} {answer}",
                case["query"], case["status"], case["answer"]
            ));
        }
    }
    assert!(different.is_empty(), "{} of {}:\n{}", different.len(), recorded.len(), different.join("\n"));
}

#[test]
fn an_answer_has_the_order_of_its_query_and_errors_before_data() {
    let (_, text) = ask("{ b: component(id: \"x\") { id } alloy { version isReady } }", "", Map::new());
    assert_eq!(
        text,
        r#"{"errors":[{"locations":[{"column":3,"line":1}],"message":"component not found","path":["b"]}],"data":{"b":null,"alloy":{"version":"v<1> \"é\" & \\","isReady":true}}}"#
    );
}

#[test]
fn what_a_query_costs_is_limited() {
    let told = |query: &str| {
        let (_, text) = ask(query, "", Map::new());
        let answer: Json = serde_json::from_str(&text).unwrap();
        answer["errors"][0]["message"].as_str().unwrap_or_default().to_owned()
    };
    let types = |lists: usize| {
        format!("{{ __schema {{ {}name{} }} }}", "types { ofType { ".repeat(lists), " } }".repeat(lists))
    };
    assert_eq!(told(&types(1)), "");
    let deep = format!("{{ __type(name: \"Query\") {} }}", "{ ofType ".repeat(60) + "{ name }" + &"}".repeat(60));
    assert_eq!(told(&deep), "the query is more than 50 levels deep");
    let long = format!("{{ alloy {{ version }} }} #{}", "x".repeat(parse::QUERY_BYTES_MAX));
    assert_eq!(told(&long), "the query has more than 16384 bytes");
    // Each fragment brings up the next one twice.
    let mut doubled = "{ __type(name: \"Query\") { ...F0 } }".to_owned();
    for nth in 0..40 {
        let next = nth + 1;
        doubled += &format!(" fragment F{nth} on __Type {{ a: ofType {{ ...F{next} }} b: ofType {{ ...F{next} }} }}");
    }
    doubled += " fragment F40 on __Type { name }";
    assert_eq!(told(&doubled), "the query is too large");
    // One fragment a level, more levels than there may be.
    let mut nested = "{ __type(name: \"Query\") { ...F0 } }".to_owned();
    for nth in 0..90 {
        nested += &format!(" fragment F{nth} on __Type {{ ofType {{ ofType {{ ...F{} }} }} }}", nth + 1);
    }
    nested += " fragment F90 on __Type { name }";
    assert_eq!(told(&nested), "the query is more than 100 levels deep");
    let many: String = (0..101).map(|nth| format!("fragment F{nth} on Query {{ alloy {{ version }} }} ")).collect();
    assert_eq!(told(&format!("{{ ...F0 }} {many}")), "the query has more than 100 fragments");
    // Every field is asked for under so many names.
    let wide: String = (0..40).map(|nth| format!("t{nth}: types {{ ...T }} ")).collect();
    let fields: String = (0..40).map(|nth| format!("f{nth}: fields {{ name description }} ")).collect();
    let wide = format!("{{ __schema {{ {wide} }} }} fragment T on __Type {{ {fields} }}");
    assert_eq!(told(&wide), "the answer has too many values");
}

#[test]
fn what_is_brought_up_again_and_again_is_looked_at_within_the_limits() {
    use std::fmt::Write as _;
    // Each operation brings up the same fragment, with as many arguments or directives as there is room for.
    let many = |one: &str| one.repeat(8_000 / one.len());
    let distinct = (0..1_000).fold(String::new(), |mut out, nth| {
        let _ = write!(out, "b{nth}:1 ");
        out
    });
    for field in [
        format!("alloy({}) {{ version }}", many("a:1")),
        format!("alloy({distinct}) {{ version }}"),
        format!("component({}) {{ id }}", many("id:1")),
        format!("component(id: {{{}}}) {{ id }}", many("a:1")),
        format!("component(id: [{}]) {{ id }}", many("1,")),
        format!("alloy {} {{ version }}", many("@a")),
    ] {
        let query = format!("{} fragment f on Query {{ {field} }}", "{...f}".repeat(1_200));
        let started = std::time::Instant::now();
        let (status, text) = ask(&query, "", Map::new());
        assert_eq!(status, 422, "{text}");
        assert!(started.elapsed() < OPERATION_WAIT, "{:?} for {}", started.elapsed(), &field[..20]);
    }
}

#[test]
fn others_have_their_turn_while_components_are_told_of() {
    use futures_util::FutureExt as _;
    let asked = Asked { query: "{ components { exports debugInfo } }".to_owned(), ..Asked::default() };
    assert!(answered(&asked, &Given).now_or_never().is_none());
}

#[test]
fn bodies_and_urls_say_what_is_asked_for() {
    for (body, expected) in [
        (r#"{"query":"{a}","operationName":"b","variables":{"c":1},"extensions":{}} x"#, Ok(("{a}", "b", 1))),
        (r#"{"query":null,"operationName":null,"variables":null}"#, Ok(("", "", 0))),
        ("null", Ok(("", "", 0))),
        ("", Err("json request body could not be decoded: EOF")),
        ("[]", Err("json request body could not be decoded: it is no object")),
        (r#"{"query":5}"#, Err("json request body could not be decoded: query is no string")),
        (r#"{"variables":[]}"#, Err("json request body could not be decoded: variables is no object")),
    ] {
        let asked = of_body(body.as_bytes());
        let found = asked.as_ref().map(|asked| (&*asked.query, &*asked.operation, asked.variables.len()));
        assert_eq!(found.map_err(String::as_str), expected, "{body}");
    }
    for (query, expected) in [
        ("query=%7Ba%7D&operationName=b&variables=%7B%22c%22:1%7D", Ok(("{a}", "b", 1))),
        ("query=a&query=b&other=c", Ok(("a", "", 0))),
        ("variables=null&extensions=", Ok(("", "", 0))),
        ("variables=5", Err("variables could not be decoded")),
        ("extensions=x", Err("extensions could not be decoded")),
    ] {
        let asked = of_query(query);
        let found = asked.as_ref().map(|asked| (&*asked.query, &*asked.operation, asked.variables.len()));
        assert_eq!(found.map_err(String::as_str), expected, "{query}");
    }
}

#[test]
fn an_answer_has_the_first_type_that_is_accepted() {
    for (accept, expected) in [
        ("", JSON),
        ("*/*", JSON),
        ("application/json", JSON),
        ("application/graphql-response+json; charset=utf-8, application/json;q=0.9", RESPONSE_JSON),
        ("text/html, */*;q=0.1", JSON),
        ("text/html", RESPONSE_JSON),
    ] {
        let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
        assert_eq!(accepted(&headers), expected, "{accept}");
    }
}

/// Texts that are nearly queries.
fn nearly_a_query() -> impl Strategy<Value = String> {
    const WORDS: &[&str] = &[
        "{",
        "}",
        "(",
        ")",
        "[",
        "]",
        ":",
        "=",
        "!",
        "$",
        "@",
        "...",
        "on",
        "query",
        "mutation",
        "fragment",
        "alloy",
        "components",
        "component",
        "id",
        "health",
        "__schema",
        "__type",
        "types",
        "fields",
        "ofType",
        "name",
        "F",
        "G",
        "Query",
        "__Type",
        "Component",
        "\"",
        "\"\"\"",
        "\"a\"",
        "\\",
        "\\u0041",
        "1",
        "-",
        "0.5",
        "e9",
        "true",
        "null",
        "include",
        "skip",
        "if",
        "#",
        "\n",
        "\r",
        "é",
        "\u{feff}",
        "ID",
        "Boolean",
    ];
    proptest::collection::vec(proptest::sample::select(WORDS), 0..60).prop_map(|words| words.join(" "))
}

proptest! {
    #[test]
    fn no_text_breaks_a_query(text in any::<String>(), nearly in nearly_a_query(), name in "[a-zA-Z]{0,3}") {
        for query in [&text, &nearly, &format!("{{ {nearly} }}"), &nearly.replace(' ', "")] {
            let (_, answer) = ask(query, &name, Map::new());
            prop_assert!(serde_json::from_str::<Json>(&answer).is_ok(), "{query}: {answer}");
        }
    }

    #[test]
    fn no_body_breaks_a_request(body in proptest::collection::vec(any::<u8>(), 0..100), text in any::<String>()) {
        let _ = (of_body(&body), of_body(text.as_bytes()), of_query(&text));
    }
}
