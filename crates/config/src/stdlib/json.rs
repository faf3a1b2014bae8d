//! JSON, read with the messages of Go's `encoding/json`, which users see, and written in its form.

use std::fmt;
use std::sync::Arc;

use corten_syntax::quote;

use crate::limits::NESTING_MAX;
use crate::render::{write_json_number, write_json_string};
use crate::value::{Data, Object, Value};

/// A text that is no JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum JsonError {
    /// The text ends too early.
    End,
    /// A character that cannot stand there: where it stands.
    Character(char, &'static str),
    /// A letter of a word that is none of the words of JSON: the letter, the word, the letter that was expected.
    Word(char, &'static str, char),
    /// Nested deeper than [`NESTING_MAX`].
    Depth,
    /// A number out of the range of a float.
    Number(String),
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JsonError::End => f.write_str("unexpected end of JSON input"),
            JsonError::Character(character, place) => {
                write!(f, "invalid character {} {place}", quote_byte(*character))
            }
            JsonError::Word(character, word, expected) => {
                let character = quote_byte(*character);
                write!(f, "invalid character {character} in literal {word} (expecting {})", quote_byte(*expected))
            }
            JsonError::Depth => f.write_str("exceeded max depth"),
            JsonError::Number(text) => {
                write!(f, "json: cannot unmarshal number {text} into Go value of type float64")
            }
        }
    }
}

/// A byte between single quotes, as the reference shows it.
fn quote_byte(character: char) -> String {
    match character {
        '\'' => r"'\''".to_owned(),
        '"' => "'\"'".to_owned(),
        _ => {
            let quoted = quote(character.encode_utf8(&mut [0; 4]));
            format!("'{}'", &quoted[1..quoted.len() - 1])
        }
    }
}

/// Reads a JSON text. Numbers become floats; of several fields with one name the last counts.
pub(super) fn parse(text: &str) -> Result<Value, JsonError> {
    // The reference first checks the whole text and only then looks at the numbers, so a mistake in the form comes
    // before a number out of range.
    let mut parser = Parser { text, at: 0, keep_integers: false, number: None };
    let value = parser.document()?;
    match parser.number {
        Some(number) => Err(JsonError::Number(number)),
        None => Ok(value),
    }
}

/// Reads a JSON text and keeps integers apart from floats: those too large for 64 bits stay text, so that no digit is
/// lost.
pub(super) fn parse_with_integers(text: &str) -> Result<Value, JsonError> {
    Parser { text, at: 0, keep_integers: true, number: None }.document()
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    keep_integers: bool,
    /// The first number that is out of range.
    number: Option<String>,
}

impl Parser<'_> {
    fn document(&mut self) -> Result<Value, JsonError> {
        let value = self.value(0)?;
        self.space();
        if self.peek().is_some() { Err(self.unexpected("after top-level value")) } else { Ok(value) }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// The error that the byte here cannot stand here. The reference shows bytes, not characters.
    fn unexpected(&self, place: &'static str) -> JsonError {
        self.peek().map_or(JsonError::End, |byte| JsonError::Character(char::from(byte), place))
    }

    /// The same within a token. There the reference takes the end of the text for a space.
    fn broken(&self, place: &'static str) -> JsonError {
        JsonError::Character(char::from(self.peek().unwrap_or(b' ')), place)
    }

    fn value(&mut self, depth: usize) -> Result<Value, JsonError> {
        self.space();
        match self.peek() {
            Some(b'{') => self.object(depth + 1),
            Some(b'[') => self.array(depth + 1),
            Some(b'"') => Ok(Value::string(self.string()?)),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true").map(|()| Value::bool(true)),
            Some(b'f') => self.word("false").map(|()| Value::bool(false)),
            Some(b'n') => self.word("null").map(|()| Value::NULL),
            _ => Err(self.unexpected("looking for beginning of value")),
        }
    }

    fn word(&mut self, word: &'static str) -> Result<(), JsonError> {
        for expected in word.bytes() {
            match self.peek().unwrap_or(b' ') {
                byte if byte == expected => self.at += 1,
                byte => return Err(JsonError::Word(char::from(byte), word, char::from(expected))),
            }
        }
        Ok(())
    }

    fn array(&mut self, depth: usize) -> Result<Value, JsonError> {
        if depth > NESTING_MAX {
            return Err(JsonError::Depth);
        }
        self.at += 1;
        let mut items = Vec::new();
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Value::array(items));
        }
        loop {
            items.push(self.value(depth)?);
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(Value::array(items));
                }
                _ => return Err(self.unexpected("after array element")),
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value, JsonError> {
        if depth > NESTING_MAX {
            return Err(JsonError::Depth);
        }
        self.at += 1;
        let mut fields = Object::new();
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Value::object(fields));
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return Err(self.unexpected("looking for beginning of object key string"));
            }
            let name = self.string()?;
            self.space();
            if self.peek() != Some(b':') {
                return Err(self.unexpected("after object key"));
            }
            self.at += 1;
            let value = self.value(depth)?;
            fields.insert(Arc::from(name), value);
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(Value::object(fields));
                }
                _ => return Err(self.unexpected("after object key:value pair")),
            }
        }
    }

    /// A string, from its opening quote on. Halves of surrogate pairs that stand alone become U+FFFD.
    fn string(&mut self) -> Result<String, JsonError> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let start = self.at;
            while self.peek().is_some_and(|byte| !matches!(byte, b'"' | b'\\' | 0..0x20)) {
                self.at += 1;
            }
            out.push_str(&self.text[start..self.at]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => {
                    self.at += 1;
                    self.escape(&mut out)?;
                }
                _ => return Err(self.unexpected("in string literal")),
            }
        }
    }

    fn escape(&mut self, out: &mut String) -> Result<(), JsonError> {
        let character = match self.peek() {
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'u') => {
                self.at += 1;
                let unit = self.unit()?;
                if (0xd800..0xdc00).contains(&unit) && self.text.as_bytes()[self.at..].starts_with(b"\\u") {
                    let back = self.at;
                    self.at += 2;
                    let low = self.unit()?;
                    if (0xdc00..0xe000).contains(&low) {
                        let code = 0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                        out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                        return Ok(());
                    }
                    self.at = back;
                }
                out.push(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER));
                return Ok(());
            }
            _ => return Err(self.broken("in string escape code")),
        };
        self.at += 1;
        out.push(character);
        Ok(())
    }

    /// Four hexadecimal digits.
    fn unit(&mut self) -> Result<u32, JsonError> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            let digit = digit.ok_or_else(|| self.broken("in \\u hexadecimal character escape"))?;
            unit = unit * 16 + digit;
            self.at += 1;
        }
        Ok(unit)
    }

    fn number(&mut self) -> Result<Value, JsonError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err(self.broken("in numeric literal")),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.one_digit("after decimal point in numeric literal")?;
            self.digits();
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.one_digit("in exponent of numeric literal")?;
            self.digits();
        }
        let text = &self.text[start..self.at];
        if self.keep_integers && !text.contains(['.', 'e', 'E']) {
            let signed = text.parse().ok().map(Value::int);
            return Ok(signed.or_else(|| text.parse().ok().map(Value::uint)).unwrap_or_else(|| Value::from(text)));
        }
        let value = text.parse().unwrap_or(f64::INFINITY);
        if !value.is_finite() && self.number.is_none() {
            self.number = Some(text.to_owned());
        }
        Ok(Value::float(value))
    }

    fn digits(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
    }

    fn one_digit(&mut self, place: &'static str) -> Result<(), JsonError> {
        match self.peek() {
            Some(b'0'..=b'9') => {
                self.at += 1;
                Ok(())
            }
            _ => Err(self.broken(place)),
        }
    }
}

/// Writes a value as compact JSON. Secrets are written in the clear: the caller marks the result. What JSON cannot hold
/// is an error.
pub(super) fn write(value: &Value, out: &mut String) -> Result<(), String> {
    if out.len() > crate::limits::TEXT_BYTES_MAX {
        return Err(crate::ops::too_large_text("text"));
    }
    match &value.data {
        Data::Null => out.push_str("null"),
        Data::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Data::Number(number) => {
            if !number.to_f64().is_finite() {
                return Err(format!("json: unsupported value: {number}"));
            }
            write_json_number(*number, out);
        }
        Data::String(text) | Data::Secret(text) => write_json_string(text, out),
        Data::OptionalSecret(secret) => {
            out.push_str(if secret.is_secret {
                r#"{"IsSecret":true,"Value":"#
            } else {
                r#"{"IsSecret":false,"Value":"#
            });
            write_json_string(&secret.text, out);
            out.push('}');
        }
        Data::Bytes(_) | Data::Array(_) => {
            out.push('[');
            for (index, item) in value.items().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write(&item, out)?;
            }
            out.push(']');
        }
        Data::Object(fields) => write_object(fields, out)?,
        Data::Function(_) => return Err("json: unsupported type: function".to_owned()),
        Data::Capsule(capsule) => match capsule.as_object() {
            Some(fields) => write_object(&fields, out)?,
            None => return Err(format!("json: unsupported type: {}", capsule.type_name())),
        },
    }
    Ok(())
}

fn write_object(fields: &Object, out: &mut String) -> Result<(), String> {
    out.push('{');
    for (index, (name, value)) in fields.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_json_string(name, out);
        out.push(':');
        write(value, out)?;
    }
    out.push('}');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn mistakes_are_told_in_the_words_of_the_reference() {
        let cases = [
            ("", "unexpected end of JSON input"),
            ("{", "unexpected end of JSON input"),
            ("x", "invalid character 'x' looking for beginning of value"),
            ("é", "invalid character 'Ã' looking for beginning of value"),
            ("[1 2]", "invalid character '2' after array element"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\":1 x}", "invalid character 'x' after object key:value pair"),
            ("{a:1}", "invalid character 'a' looking for beginning of object key string"),
            ("{\"a\":1,}", "invalid character '}' looking for beginning of object key string"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
            ("1 2", "invalid character '2' after top-level value"),
            ("tru", "invalid character ' ' in literal true (expecting 'e')"),
            ("-", "invalid character ' ' in numeric literal"),
            ("trux", "invalid character 'x' in literal true (expecting 'e')"),
            ("\"\n\"", "invalid character '\\n' in string literal"),
            ("\"\\x\"", "invalid character 'x' in string escape code"),
            ("\"\\u00g0\"", "invalid character 'g' in \\u hexadecimal character escape"),
            ("-x", "invalid character 'x' in numeric literal"),
            ("1.x", "invalid character 'x' after decimal point in numeric literal"),
            ("1ex", "invalid character 'x' in exponent of numeric literal"),
            ("01", "invalid character '1' after top-level value"),
            ("'", "invalid character '\\'' looking for beginning of value"),
            ("[\"]", "unexpected end of JSON input"),
            ("1e999", "json: cannot unmarshal number 1e999 into Go value of type float64"),
            ("[1e999, x", "invalid character 'x' looking for beginning of value"),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text).map_err(|error| error.to_string()), Err(expected.to_owned()), "{text}");
        }
        let deep = "[".repeat(NESTING_MAX + 1);
        assert_eq!(parse(&deep), Err(JsonError::Depth));
    }

    #[test]
    fn strings_and_names_are_read_as_in_the_reference() {
        let text = r#" {"a": "\ud83d\ude00\ud800x\u00e9\/\n", "a\u0062": [-0, 1e2, 0.5], "a": true} "#;
        let read = parse(text).unwrap();
        assert_eq!(read.field("a"), Some(Value::bool(true)));
        assert_eq!(read.field("ab").unwrap().to_string(), "[-0, 100, 0.5]");
        assert_eq!(parse(r#""\ud83d\ude00\ud800x\ud800\u0041""#), Ok(Value::from("😀\u{fffd}x\u{fffd}A")));
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::NULL),
            any::<bool>().prop_map(Value::bool),
            any::<f64>().prop_filter("finite", |value| value.is_finite()).prop_map(Value::float),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::array),
                prop::collection::btree_map(any::<String>().prop_map(Arc::from), inner, 0..4).prop_map(Value::object),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(value in any_value()) {
            let mut text = String::new();
            write(&value, &mut text).unwrap();
            prop_assert_eq!(parse(&text), Ok(value));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in r#"[\[\]{},:"\\a-fu0-9eE.+\-é\n ]{0,40}|.{0,40}"#) {
            let _ = parse(&text);
        }
    }
}
