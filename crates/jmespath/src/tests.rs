//! Tests of whole expressions.

use proptest::prelude::*;

use super::*;

/// What Go made of a case.
fn recorded() -> Vec<serde_json::Value> {
    let data = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/cases.json")).unwrap();
    serde_json::from_slice(&data).unwrap()
}

fn of(value: &serde_json::Value) -> Value {
    Value::from_json(value.to_string().as_bytes()).unwrap()
}

/// Equal. The members of objects come in any order there, and so do the values of `*`.
fn same(found: &Value, expected: &Value, any_order: bool) -> bool {
    match (found, expected) {
        (Value::Array(a), Value::Array(b)) if any_order => {
            let sorted = |list: &[Value]| {
                let mut texts: Vec<_> = list.iter().map(Value::to_sorted_json).collect();
                texts.sort();
                texts
            };
            sorted(a) == sorted(b)
        }
        _ => found == expected,
    }
}

#[test]
fn expressions_find_what_the_reference_finds() {
    let cases = recorded();
    let mut wrong = Vec::new();
    for case in &cases {
        let text = case["expr"].as_str().unwrap();
        let found = Expression::new(text).and_then(|expression| {
            let found = expression.search(&of(&case["data"]))?;
            // A path finds the same by way of its keys.
            if let Some(path) = expression.as_path() {
                let document = of(&case["data"]);
                let by_keys = path.iter().try_fold(&document, |value, key| value.get(key));
                assert_eq!(by_keys.cloned().unwrap_or_default(), found, "{text}");
            }
            Ok(found)
        });
        let same = match (&found, case.get("error").and_then(serde_json::Value::as_str)) {
            (Ok(Value::Number(found)), None) if case["output"].get("float").is_some() => {
                format!("{found:+}") == case["output"]["float"].as_str().unwrap().replace("Inf", "inf")
            }
            (Ok(found), None) => same(found, &of(&case["output"]), text.starts_with('*')),
            (Err(error), Some(text)) if text.starts_with("SyntaxError") => error.to_string() == text,
            (Err(_), Some(_)) => true,
            _ => false,
        };
        if !same {
            wrong.push(format!("{case}\n    {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert!(cases.len() > 700);
}

#[test]
fn work_is_bounded() {
    let document = Value::array(vec![Value::Null; 3000]);
    for text in [
        "map(&map(&map(&@, $), $), $)",
        "pad_left('x', `1e12`)",
        "replace(pad_left('x', `1e6`), ' ', pad_left('x', `1e6`))",
    ] {
        assert!(Expression::new(text).unwrap().search(&document).is_err(), "{text}");
    }
    // As deep as a tree can be, on the stack of a test's thread.
    let deep = ["(".repeat(45), "a".to_owned(), ".a".repeat(200), ")".repeat(45)].concat();
    assert_eq!(Expression::new(&deep).unwrap().search(&document), Ok(Value::Null));
    for text in ["(".repeat(1000), "[".repeat(1000), "!".repeat(1000), "a".to_owned() + &".a".repeat(30_000)] {
        assert!(Expression::new(&text).is_err());
    }
    assert_eq!(Value::from_json("[".repeat(10_000).as_bytes()), None);
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in r#"[a\[\]{}().*?:,|&!<>=@$'"`0-9 +/%-]{0,24}|.{0,24}"#) {
        if let Ok(expression) = Expression::new(&text) {
            let _ = expression.search(&Value::from_json(br#"{"a":[{"a":1},[2,"x"]]}"#).unwrap());
        }
    }

    #[test]
    fn functions_take_anything(name in "[a-z_]{2,10}", at in 0..40usize, arguments in "(@|a|b|&a|'x'|`1`|`-2`)(, (@|a|b|&a|'x'|`1`|`-2`)){0,3}") {
        let names = ["abs", "avg", "ceil", "contains", "ends_with", "find_first", "find_last", "floor", "from_items",
            "group_by", "items", "join", "keys", "length", "lower", "map", "max", "max_by", "merge", "min", "min_by",
            "not_null", "pad_left", "pad_right", "replace", "reverse", "sort", "sort_by", "split", "starts_with", "sum",
            "to_array", "to_number", "to_string", "trim", "type", "upper", "values", "zip"];
        let name = names.get(at).map_or(name.as_str(), |known| known);
        let document = Value::from_json(br#"{"a":[1,2],"b":["x","y"]}"#).unwrap();
        let _ = Expression::new(&format!("{name}({arguments})")).map(|expression| expression.search(&document));
    }

    #[test]
    fn no_bytes_make_reading_panic(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), proptest::sample::select(b"{}[]\":,\\u0dtfn1.e-".to_vec())], 0..60)) {
        if let Some(value) = Value::from_json(&bytes) {
            prop_assert_eq!(Value::from_json(value.to_json().as_bytes()), Some(value));
        }
    }
}
