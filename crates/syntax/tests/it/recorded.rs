//! The recorded behaviour of the reference on texts of our own.

use corten_syntax::{format, parse};
use serde_json::Value;

fn cases(text: &str) -> Vec<Value> {
    let Value::Array(cases) = serde_json::from_str(text).expect("the recorded cases are JSON") else {
        panic!("the recorded cases are a list")
    };
    cases
}

fn text<'a>(case: &'a Value, key: &str) -> &'a str {
    case[key].as_str().expect("the case has the text")
}

#[test]
fn diagnostics_are_those_of_the_reference() {
    let cases = cases(include_str!("../data/diagnostics.json"));
    assert_eq!(cases.len(), 231);
    let mut wrong = Vec::new();
    for case in &cases {
        let source = text(case, "in");
        let expected: Vec<&str> =
            case["diagnostics"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
        let actual: Vec<String> = parse("", source).diagnostics.iter().map(ToString::to_string).collect();
        if actual != expected {
            wrong.push(format!("{source}\nexpected {expected:#?}\ngot {actual:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn formatted_texts_are_those_of_the_reference() {
    let cases = cases(include_str!("../data/fmt.json"));
    assert_eq!(cases.len(), 250);
    let mut wrong = Vec::new();
    for case in &cases {
        let (source, expected) = (text(case, "in"), text(case, "out"));
        let actual = format("", source).unwrap_or_else(|diagnostics| diagnostics.all_messages());
        if actual != expected {
            wrong.push(format!("{source}\nexpected\n{expected}\ngot\n{actual}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
