use serde_json::Value as Json;

use super::labels::push_name;
use super::units::ucum;

/// What the reference's translators make of texts.
const RECORDED: &str = include_str!("../../tests/data/translate.jsonl");

fn recorded(kind: &str) -> Vec<(String, Json)> {
    let cases = RECORDED.lines().map(|line| serde_json::from_str::<Json>(line).unwrap());
    let case = cases.into_iter().find(|case| case["kind"] == kind).unwrap();
    let texts = case["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned());
    texts.zip(case["want"].as_array().unwrap().iter().cloned()).collect()
}

#[test]
fn keys_become_names_of_labels() {
    for (key, want) in recorded("label") {
        let mut name = String::new();
        push_name(key.as_bytes(), &mut name);
        assert_eq!(name, want, "{key:?}");
    }
    let mut name = "before".to_owned();
    push_name(b"\xff\xc3x", &mut name);
    assert_eq!(name, "before__x");
}

#[test]
fn words_become_units() {
    for (words, want) in recorded("ucum") {
        assert_eq!(ucum(&words), want, "{words:?}");
    }
}
