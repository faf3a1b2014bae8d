//! Values as text: the canonical form of the language, and the JSON of the HTTP API. What is secret is masked in both.

use std::fmt::{self, Write as _};

use corten_syntax::{is_identifier, quote};

use crate::number::Number;
use crate::value::{Data, MASK, Object, Value};

/// The canonical text of the value, as the formatter would lay it out: one field a line, tabs for nesting, `=` aligned.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        text(self, 0, &mut out);
        f.write_str(&out)
    }
}

fn text(value: &Value, depth: usize, out: &mut String) {
    if value.is_masked() {
        out.push_str(MASK);
        return;
    }
    match &value.data {
        Data::Null => out.push_str("null"),
        // Writing to a string cannot fail.
        Data::Bool(value) => _ = write!(out, "{value}"),
        Data::Number(number) => _ = write!(out, "{number}"),
        Data::String(text) => out.push_str(&quote(text)),
        Data::OptionalSecret(secret) => out.push_str(&quote(&secret.text)),
        Data::Bytes(_) | Data::Array(_) => {
            out.push('[');
            for (index, item) in value.items().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                text(&item, depth, out);
            }
            out.push(']');
        }
        Data::Object(fields) => object_text(fields, depth, out),
        // Only a secret gets here that is not masked, which there is none of.
        Data::Secret(_) => out.push_str(MASK),
        Data::Function(_) => out.push_str(&value.describe()),
        Data::Capsule(capsule) => match capsule.as_object() {
            Some(fields) => object_text(&fields, depth, out),
            None => out.push_str(&value.describe()),
        },
    }
}

fn object_text(fields: &Object, depth: usize, out: &mut String) {
    if fields.is_empty() {
        out.push_str("{}");
        return;
    }
    out.push_str("{\n");
    let rows: Vec<(String, &Value)> = fields
        .iter()
        .map(|(name, value)| (if is_identifier(name) { name.to_string() } else { quote(name) }, value))
        .collect();
    let mut rest = rows.as_slice();
    while !rest.is_empty() {
        // Fields align up to and with the first one that takes several lines.
        let len = rest.iter().position(|(_, value)| is_multiline(value)).map_or(rest.len(), |index| index + 1);
        let (aligned, after) = rest.split_at(len);
        let width = aligned.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        for (name, value) in aligned {
            out.extend(std::iter::repeat_n('\t', depth + 1));
            _ = write!(out, "{name:width$} = ");
            text(value, depth + 1, out);
            out.push_str(",\n");
        }
        rest = after;
    }
    out.extend(std::iter::repeat_n('\t', depth));
    out.push('}');
}

/// Whether the text of a value is laid out on several lines. Empty objects count, as in the reference, although in the
/// end they stand on one.
fn is_multiline(value: &Value) -> bool {
    !value.is_masked()
        && match &value.data {
            Data::Object(_) => true,
            Data::Array(items) => items.iter().any(is_multiline),
            Data::Capsule(capsule) => capsule.as_object().is_some(),
            _ => false,
        }
}

/// The JSON of the HTTP API: `{"type": …, "value": …}`, with objects as lists of `{"key": …, "value": …}`.
///
/// Whatever is secret becomes a capsule with the value `(secret)`.
pub fn json(value: &Value) -> String {
    let mut out = String::new();
    write_json(value, &mut out);
    out
}

/// Appends what [`json`] returns.
pub fn write_json(value: &Value, out: &mut String) {
    if value.is_masked() {
        out.push_str(r#"{"type":"capsule","value":"(secret)"}"#);
        return;
    }
    // Writing to a string cannot fail.
    match &value.data {
        Data::Null => out.push_str(r#"{"type":"null","value":null}"#),
        Data::Bool(value) => _ = write!(out, r#"{{"type":"bool","value":{value}}}"#),
        Data::Number(number) => {
            out.push_str(r#"{"type":"number","value":"#);
            write_json_number(Number::Float(number.to_f64()), out);
            out.push('}');
        }
        Data::String(text) => json_text("string", text, out),
        Data::Bytes(_) | Data::Array(_) => {
            out.push_str(r#"{"type":"array","value":["#);
            for (index, item) in value.items().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_json(&item, out);
            }
            out.push_str("]}");
        }
        Data::Object(fields) => json_object(fields, out),
        Data::Function(_) => json_text("function", &value.describe(), out),
        Data::Secret(_) => json_text("capsule", MASK, out),
        Data::OptionalSecret(secret) => json_text("capsule", &quote(&secret.text), out),
        Data::Capsule(capsule) => match capsule.as_object() {
            Some(fields) => json_object(&fields, out),
            None => {
                let text = capsule.as_text().filter(|text| !text.is_empty()).unwrap_or_else(|| value.describe());
                json_text("capsule", &text, out);
            }
        },
    }
}

fn json_text(ty: &str, text: &str, out: &mut String) {
    _ = write!(out, r#"{{"type":"{ty}","value":"#);
    write_json_string(text, out);
    out.push('}');
}

fn json_object(fields: &Object, out: &mut String) {
    out.push_str(r#"{"type":"object","value":["#);
    for (index, (name, value)) in fields.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str(r#"{"key":"#);
        write_json_string(name, out);
        out.push_str(r#","value":"#);
        write_json(value, out);
        out.push('}');
    }
    out.push_str("]}");
}

/// Appends a JSON string, with `<`, `>`, `&` and the line separators of Unicode escaped as Go does, so that the text
/// can stand within HTML.
pub(crate) fn write_json_string(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..' ' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                _ = write!(out, "\\u{:04x}", u32::from(character));
            }
            _ => out.push(character),
        }
    }
    out.push('"');
}

/// Appends a JSON number as Go writes it: floats without an exponent between 1e-6 and 1e21. What JSON has no number for,
/// the infinities and NaN, becomes `null`.
pub(crate) fn write_json_number(number: Number, out: &mut String) {
    match number {
        Number::Float(value) if !value.is_finite() => out.push_str("null"),
        Number::Float(value) if value != 0.0 && !(1e-6..1e21).contains(&value.abs()) => {
            let text = format!("{value:e}");
            match text.split_once('e') {
                Some((mantissa, exponent)) if !exponent.starts_with('-') => {
                    _ = write!(out, "{mantissa}e+{exponent}");
                }
                _ => out.push_str(&text),
            }
        }
        number => _ = write!(out, "{number}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;

    fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
        Value::object(BTreeMap::from(fields.map(|(name, value)| (Arc::from(name), value))))
    }

    #[test]
    fn what_is_secret_is_masked_in_every_rendering() {
        let hidden = [
            Value::secret("hush"),
            Value::optional_secret("hush", true),
            Value::string("hush").marked(true),
            Value::array(vec![Value::string("hush")]).marked(true),
            Value::bool(true).marked(true),
        ];
        for value in hidden {
            assert_eq!(value.to_string(), "(secret)");
            assert_eq!(json(&value), r#"{"type":"capsule","value":"(secret)"}"#);
            let outer = object([("a", Value::array(vec![value.clone(), Value::int(1)]))]);
            assert_eq!(outer.to_string(), "{\n\ta = [(secret), 1],\n}");
            assert!(!json(&outer).contains("hush"));
        }
        let open = Value::optional_secret("pub", false);
        assert_eq!(open.to_string(), r#""pub""#);
        assert_eq!(json(&open), r#"{"type":"capsule","value":"\"pub\""}"#);
    }

    #[test]
    fn objects_align_up_to_the_first_field_of_several_lines() {
        let value = object([
            ("a", Value::int(1)),
            ("bb", Value::array(vec![object([])])),
            ("c c", Value::string("x")),
            ("d", Value::NULL),
        ]);
        assert_eq!(value.to_string(), "{\n\ta  = 1,\n\tbb = [{}],\n\t\"c c\" = \"x\",\n\td     = null,\n}");
    }

    #[test]
    fn json_is_that_of_the_reference() {
        let cases = [
            (Value::NULL, r#"{"type":"null","value":null}"#),
            (Value::int(-3), r#"{"type":"number","value":-3}"#),
            (Value::uint(u64::MAX), r#"{"type":"number","value":18446744073709552000}"#),
            (Value::float(1e21), r#"{"type":"number","value":1e+21}"#),
            (Value::float(1.5e-7), r#"{"type":"number","value":1.5e-7}"#),
            (Value::float(0.000_001), r#"{"type":"number","value":0.000001}"#),
            (Value::string("a<\u{2028}\"\u{7f}"), r#"{"type":"string","value":"a\u003c\u2028\""#),
            (Value::bytes(vec![1u8]), r#"{"type":"array","value":[{"type":"number","value":1}]}"#),
            (
                object([("k", Value::bool(false))]),
                r#"{"type":"object","value":[{"key":"k","value":{"type":"bool","value":false}}]}"#,
            ),
        ];
        for (value, expected) in cases {
            assert!(json(&value).starts_with(expected), "{}", json(&value));
        }
    }
}
