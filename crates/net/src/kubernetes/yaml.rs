//! As much of YAML as configurations of Kubernetes need: maps, lists and texts.

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

/// How deep maps and lists may lie in each other.
const DEPTH_MAX: usize = 64;

/// The first document. Everything that is no map and no list is a text, but for nothing and the two truth values.
///
/// # Errors
///
/// The text is not YAML, lies too deep, or refers to other parts of itself.
pub fn parse_yaml(text: &str) -> Result<Value, String> {
    let mut open: Vec<Open> = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, _) = event.map_err(|error| error.to_string())?;
        let value = match event {
            Event::MappingStart(..) => {
                open.push(Open::Map(Map::new(), None));
                None
            }
            Event::SequenceStart(..) => {
                open.push(Open::List(Vec::new()));
                None
            }
            Event::MappingEnd | Event::SequenceEnd => open.pop().map(Open::closed),
            Event::Scalar(text, style, ..) => Some(match (&*text, style) {
                ("true" | "True" | "TRUE", ScalarStyle::Plain) => Value::Bool(true),
                ("false" | "False" | "FALSE", ScalarStyle::Plain) => Value::Bool(false),
                ("" | "~" | "null" | "Null" | "NULL", ScalarStyle::Plain) => Value::Null,
                (text, _) => Value::String(text.to_owned()),
            }),
            Event::Alias(_) => return Err("aliases are not supported".to_owned()),
            Event::DocumentEnd => return Ok(Value::Null),
            _ => None,
        };
        if open.len() > DEPTH_MAX {
            return Err(format!("it lies more than {DEPTH_MAX} levels deep"));
        }
        let Some(value) = value else { continue };
        match open.last_mut() {
            None => return Ok(value),
            Some(Open::List(list)) => list.push(value),
            Some(Open::Map(map, key @ Some(_))) => {
                map.insert(key.take().unwrap_or_default(), value);
            }
            Some(Open::Map(_, key)) => *key = Some(value.as_str().unwrap_or_default().to_owned()),
        }
    }
    Ok(Value::Null)
}

/// What has begun and not ended.
enum Open {
    /// With a key whose value is still to come.
    Map(Map<String, Value>, Option<String>),
    List(Vec<Value>),
}

impl Open {
    fn closed(self) -> Value {
        match self {
            Open::Map(map, _) => Value::Object(map),
            Open::List(list) => Value::Array(list),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_lists_and_texts() {
        let text =
            "a: [x, {b: 'true'}]\nc:\n- d: 1\n  e: true\n- |\n  two\n  lines\nf: [False, ~, null, 'null']\ng:\nh: ''\n";
        let want = serde_json::json!({
            "a": ["x", {"b": "true"}],
            "c": [{"d": "1", "e": true}, "two\nlines\n"],
            "f": [false, null, null, "null"],
            "g": null,
            "h": "",
        });
        assert_eq!(parse_yaml(text), Ok(want));
        assert_eq!(parse_yaml(""), Ok(Value::Null));
        for wrong in ["a: [", "a: &x 1\nb: *x", &"[".repeat(100)] {
            assert!(parse_yaml(wrong).is_err(), "{wrong}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in r"[-a: \n\[\]{},'&*|]{0,60}") {
            let _ = parse_yaml(&text);
        }
    }
}
