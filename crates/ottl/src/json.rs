//! JSON that is read into an arena. What programs write that are careless is read, too, as the collector does it: control
//! characters within texts, surrogates without their other half, and numbers with leading zeros or without a fraction
//! behind the point.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use corten_golang::parse_float;
use corten_otlp::{Arena, Pair, Value};

/// How deep lists and objects may nest.
const NESTING_MAX: usize = 128;

/// Reads a text. All numbers are doubles. What is not UTF-8 is replaced.
pub(crate) fn read(text: &[u8], arena: &mut Arena) -> Result<Value, String> {
    let text = String::from_utf8_lossy(text);
    let mut reader = Reader { text: text.as_bytes(), at: 0, arena };
    let value = reader.value(0)?;
    match reader.after_spaces() {
        None => Ok(value),
        Some(_) => Err(reader.unexpected()),
    }
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    arena: &'a mut Arena,
}

impl Reader<'_> {
    fn unexpected(&self) -> String {
        match self.text.get(self.at) {
            Some(_) => format!("invalid JSON at byte {}", self.at),
            None => "unexpected end of JSON input".to_owned(),
        }
    }

    /// The next byte that is no space.
    fn after_spaces(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.text.get(self.at) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    /// Takes a byte that has to come next.
    fn take(&mut self, byte: u8) -> Result<(), String> {
        match self.after_spaces() {
            Some(found) if found == byte => {
                self.at += 1;
                Ok(())
            }
            _ => Err(self.unexpected()),
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, String> {
        if depth > NESTING_MAX {
            return Err(format!("the JSON nests deeper than {NESTING_MAX}"));
        }
        match self.after_spaces() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.list(depth),
            Some(b'"') => {
                let text = self.string()?;
                Ok(Value::Str(self.arena.own(&text)))
            }
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word(b"true", Value::Bool(true)),
            Some(b'f') => self.word(b"false", Value::Bool(false)),
            Some(b'n') => self.word(b"null", Value::Empty),
            _ => Err(self.unexpected()),
        }
    }

    fn word(&mut self, word: &[u8], value: Value) -> Result<Value, String> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.unexpected());
        }
        self.at += word.len();
        Ok(value)
    }

    fn number(&mut self) -> Result<Value, String> {
        let rest = &self.text[self.at..];
        let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
        let len = rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len());
        let value = parse_float(&rest[..len]).map_err(|_| self.unexpected())?;
        self.at += len;
        Ok(Value::Double(value))
    }

    fn list(&mut self, depth: usize) -> Result<Value, String> {
        self.at += 1;
        let mut values = Vec::new();
        if self.after_spaces() != Some(b']') {
            loop {
                values.push(self.value(depth + 1)?);
                if self.after_spaces() != Some(b',') {
                    break;
                }
                self.at += 1;
            }
        }
        self.take(b']')?;
        Ok(Value::List(self.arena.list(&values)))
    }

    fn object(&mut self, depth: usize) -> Result<Value, String> {
        self.at += 1;
        let mut pairs: Vec<Pair> = Vec::new();
        // Of equal keys the last value counts. They are looked for by their hash where there are many.
        let mut places: HashMap<Vec<u8>, usize> = HashMap::new();
        if self.after_spaces() != Some(b'}') {
            loop {
                self.after_spaces();
                let key = self.string()?;
                self.take(b':')?;
                let value = self.value(depth + 1)?;
                match places.entry(key) {
                    Entry::Occupied(known) => pairs[*known.get()].value = value,
                    Entry::Vacant(new) => {
                        pairs.push(Pair { key: self.arena.own(new.key()), value });
                        new.insert(pairs.len() - 1);
                    }
                }
                if self.after_spaces() != Some(b',') {
                    break;
                }
                self.at += 1;
            }
        }
        self.take(b'}')?;
        Ok(Value::Map(self.arena.map(&pairs)))
    }

    fn string(&mut self) -> Result<Vec<u8>, String> {
        self.take(b'"')?;
        let mut out = Vec::new();
        loop {
            let rest = &self.text[self.at..];
            let len = rest.iter().position(|byte| matches!(byte, b'"' | b'\\')).unwrap_or(rest.len());
            out.extend_from_slice(&rest[..len]);
            self.at += len;
            match rest.get(len) {
                None => return Err(self.unexpected()),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(_) => self.escaped(&mut out)?,
            }
        }
    }

    fn escaped(&mut self, out: &mut Vec<u8>) -> Result<(), String> {
        let plain = match self.text.get(self.at + 1) {
            Some(byte @ (b'"' | b'\\' | b'/')) => *byte,
            Some(b'b') => 0x08,
            Some(b'f') => 0x0c,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => {
                let first = self.unit(self.at).ok_or_else(|| self.unexpected())?;
                self.at += 6;
                let mut units = vec![first];
                // The second half of a pair; anything else stands for itself.
                if (0xd800..0xdc00).contains(&first)
                    && let Some(second @ 0xdc00..0xe000) = self.unit(self.at)
                {
                    self.at += 6;
                    units.push(second);
                }
                out.extend_from_slice(String::from_utf16_lossy(&units).as_bytes());
                return Ok(());
            }
            _ => return Err(self.unexpected()),
        };
        out.push(plain);
        self.at += 2;
        Ok(())
    }

    /// The code unit that is written at a place, as `\u0041`.
    fn unit(&self, at: usize) -> Option<u16> {
        let digits = self.text.get(at..at + 6)?.strip_prefix(b"\\u")?;
        let digits = std::str::from_utf8(digits).ok().filter(|it| it.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        u16::from_str_radix(digits, 16).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(text: &str) -> Result<String, String> {
        let mut arena = Arena::default();
        let value = read(text.as_bytes(), &mut arena)?;
        let mut out = Vec::new();
        arena.write_text(value, &mut out);
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn careless_json_is_read() {
        for (text, expected) in [
            ("[\"a\tb\nc\u{1}\"]", r#"["a\tb\nc\u0001"]"#),
            (r#"["\ud800","\ud800x","\ud83d\u0041","\udc00","\ud83d\ude00"]"#, r#"["�","�x","�A","�","😀"]"#),
            ("[01,-01,1.,-.5,00,2.5e3]", "[1,-1,1,-0.5,0,2500]"),
            (r#" {"b":1,"a":[ ],"b":{"":null}} "#, r#"{"a":[],"b":{"":null}}"#),
        ] {
            assert_eq!(written(text).as_deref(), Ok(expected), "{text}");
        }
        for text in
            ["", "{", "[1,]", "[.5]", "[+1]", "[1e]", "[--1]", "[1e999]", "{a:1}", r#"{"a":1,}"#, "[]]", r#"["\x"]"#]
        {
            assert!(written(text).is_err(), "{text}");
        }
        assert!(written(&"[".repeat(100_000)).is_err());
        assert!(written(&format!("{}{}", "[".repeat(128), "]".repeat(128))).is_ok());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[\\[\\]{},:\" \\\\ntrufalse0-9.eE+-]{0,24}") {
            let read = written(&text);
            if let Ok(value) = serde_json::from_str::<serde_json::Value>(&text) {
                prop_assert!(read.is_ok(), "{} {}", text, value);
            }
        }
    }
}
