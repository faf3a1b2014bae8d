//! JSON as values. Texts without escapes stay where they are.

use corten_golang::json::{Form, push_number, push_string};

use crate::value::{Map, Text, Value};

/// How deep a text may nest.
pub(crate) const DEPTH_MAX: usize = 100;

/// How a text is read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    /// Numbers that are whole stay so.
    pub(crate) ints: bool,
    /// What stands behind the value does not count.
    pub(crate) rest_ignored: bool,
}

/// Reads a value.
pub(crate) fn read(text: &Text, options: Options) -> Result<Value, String> {
    let mut reader = Reader { text, at: 0, options };
    reader.space();
    let value = reader.value(DEPTH_MAX)?;
    reader.space();
    if reader.at < text.len() && !options.rest_ignored {
        return Err(format!("invalid character {} after top-level value", shown(text[reader.at])));
    }
    Ok(value)
}

/// The values of a list, each with its text. What is no list has none.
pub(crate) fn list(text: &Text) -> Result<Vec<(Value, Text)>, String> {
    let mut reader = Reader { text, at: 0, options: Options::default() };
    let mut all = Vec::new();
    reader.space();
    if reader.peek() != Some(b'[') {
        return read(text, Options::default()).map(|_| all);
    }
    reader.at += 1;
    reader.space();
    let mut more = reader.peek() != Some(b']');
    while more {
        reader.space();
        let start = reader.at;
        let value = reader.value(DEPTH_MAX - 1)?;
        all.push((value, text.part(start..reader.at)));
        reader.space();
        more = reader.peek() == Some(b',');
        reader.at += usize::from(more);
    }
    if reader.peek() != Some(b']') {
        return Err(reader.unexpected("after array element"));
    }
    reader.at += 1;
    reader.space();
    if reader.at < text.len() { Err(reader.unexpected("after top-level value")) } else { Ok(all) }
}

/// A text without the space between its parts.
pub(crate) fn compact(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let (mut quoted, mut escaped) = (false, false);
    for byte in text {
        if quoted || !byte.is_ascii_whitespace() {
            out.push(*byte);
        }
        if escaped {
            escaped = false;
        } else if quoted && *byte == b'\\' {
            escaped = true;
        } else if *byte == b'"' {
            quoted = !quoted;
        }
    }
    out
}

struct Reader<'a> {
    text: &'a Text,
    at: usize,
    options: Options,
}

fn shown(byte: u8) -> String {
    format!("{:?}", char::from(byte))
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn unexpected(&self, place: &str) -> String {
        match self.peek() {
            Some(byte) => format!("invalid character {} {place}", shown(byte)),
            None => "unexpected end of JSON input".to_owned(),
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, String> {
        match self.peek() {
            Some(b'"') => Ok(Value::Str(self.string()?)),
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word(b"true", Value::Bool(true)),
            Some(b'f') => self.word(b"false", Value::Bool(false)),
            Some(b'n') => self.word(b"null", Value::Null),
            _ => Err(self.unexpected("looking for beginning of value")),
        }
    }

    fn word(&mut self, word: &[u8], value: Value) -> Result<Value, String> {
        if self.text[self.at..].starts_with(word) {
            self.at += word.len();
            return Ok(value);
        }
        Err(format!("invalid character in literal {}", String::from_utf8_lossy(word)))
    }

    fn deeper(depth: usize) -> Result<usize, String> {
        depth.checked_sub(1).ok_or_else(|| format!("exceeded max depth of {DEPTH_MAX}"))
    }

    fn object(&mut self, depth: usize) -> Result<Value, String> {
        let depth = Self::deeper(depth)?;
        let mut map = Map::default();
        self.at += 1;
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Value::Map(map));
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return Err(self.unexpected("looking for beginning of object key string"));
            }
            let key = self.string()?;
            self.space();
            if self.peek() != Some(b':') {
                return Err(self.unexpected("after object key"));
            }
            self.at += 1;
            self.space();
            let value = self.value(depth)?;
            map.put(key, value);
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(Value::Map(map));
                }
                _ => return Err(self.unexpected("after object key:value pair")),
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value, String> {
        let depth = Self::deeper(depth)?;
        let mut list = Vec::new();
        self.at += 1;
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Value::List(list));
        }
        loop {
            self.space();
            list.push(self.value(depth)?);
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(Value::List(list));
                }
                _ => return Err(self.unexpected("after array element")),
            }
        }
    }

    /// Reads a number, also one that begins with a zero or ends with a point: the reference does so.
    fn number(&mut self) -> Result<Value, String> {
        let start = self.at;
        let mut whole = true;
        while let Some(byte @ (b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')) = self.peek() {
            whole &= byte.is_ascii_digit() || self.at == start;
            self.at += 1;
        }
        let text = std::str::from_utf8(&self.text[start..self.at]).unwrap_or_default();
        if self.options.ints
            && whole
            && let Ok(number) = text.parse()
        {
            return Ok(Value::Int(number));
        }
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Value::Float(number)),
            _ => Err(format!("json: cannot unmarshal number {text}")),
        }
    }

    fn string(&mut self) -> Result<Text, String> {
        self.at += 1;
        let start = self.at;
        let bytes: &[u8] = self.text;
        let end = |from: usize| {
            let found = memchr::memchr2(b'"', b'\\', &bytes[from..]);
            found.map(|at| from + at).ok_or_else(|| "unexpected end of JSON input".to_owned())
        };
        let mut at = end(start)?;
        if bytes[at] == b'"' {
            self.at = at + 1;
            return Ok(self.text.part(start..at));
        }
        let mut out = bytes[start..at].to_vec();
        while bytes[at] != b'"' {
            at = escaped(bytes, at + 1, &mut out)?;
            let next = end(at)?;
            out.extend_from_slice(&bytes[at..next]);
            at = next;
        }
        self.at = at + 1;
        Ok(out.into())
    }
}

/// Reads what stands behind a backslash; where the rest begins.
fn escaped(bytes: &[u8], at: usize, out: &mut Vec<u8>) -> Result<usize, String> {
    let Some(sign) = bytes.get(at) else { return Err("unexpected end of JSON input".to_owned()) };
    let plain = match sign {
        b'"' | b'\\' | b'/' => *sign,
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'u' => {
            let unit = |at: usize| -> Option<u32> {
                let digits = bytes.get(at..at + 4)?;
                digits.iter().try_fold(0, |value, digit| Some(value * 16 + char::from(*digit).to_digit(16)?))
            };
            let Some(first) = unit(at + 1) else {
                return Err("invalid character in \\u hexadecimal character escape".to_owned());
            };
            let mut end = at + 5;
            let mut character = char::from_u32(first);
            if (0xd800..0xdc00).contains(&first)
                && bytes.get(end..end + 2) == Some(b"\\u")
                && let Some(second @ 0xdc00..0xe000) = unit(end + 2)
            {
                character = char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00));
                end += 6;
            }
            let character = character.unwrap_or(char::REPLACEMENT_CHARACTER);
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            return Ok(end);
        }
        other => return Err(format!("invalid character {} in string escape code", shown(*other))),
    };
    out.push(plain);
    Ok(at + 1)
}

/// Writes a value as Go's `encoding/json` does, keys in order. What JSON has no form for is null.
pub(crate) fn write(value: &Value, indent: Option<usize>, out: &mut Vec<u8>) {
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.extend(std::iter::repeat_n(b' ', 2 * depth));
    };
    let inner = indent.map(|depth| depth + 1);
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(value) => out.extend_from_slice(value.to_string().as_bytes()),
        Value::Int(value) => out.extend_from_slice(value.to_string().as_bytes()),
        Value::Float(value) => push_number(*value, Form::HTML, out),
        Value::Str(text) => push_string(text, Form::HTML, out),
        Value::Bytes(bytes) => {
            use base64::Engine as _;
            out.push(b'"');
            out.extend_from_slice(base64::engine::general_purpose::STANDARD.encode(bytes).as_bytes());
            out.push(b'"');
        }
        Value::Time(time) => {
            let layout = corten_golang::time::Layout::new("2006-01-02T15:04:05.999999999Z07:00");
            push_string(layout.format(time).as_bytes(), Form::HTML, out);
        }
        Value::List(list) => {
            out.push(b'[');
            for (at, value) in list.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                inner.inspect(|depth| line(out, *depth));
                write(value, inner, out);
            }
            if !list.is_empty() {
                indent.inspect(|depth| line(out, *depth));
            }
            out.push(b']');
        }
        Value::Map(map) => {
            let mut pairs: Vec<_> = map.iter().collect();
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
            out.push(b'{');
            for (at, (key, value)) in pairs.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                inner.inspect(|depth| line(out, *depth));
                push_string(key, Form::HTML, out);
                out.extend_from_slice(if indent.is_some() { b": " } else { b":" });
                write(value, inner, out);
            }
            if !pairs.is_empty() {
                indent.inspect(|depth| line(out, *depth));
            }
            out.push(b'}');
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plain(value: &serde_json::Value) -> Value {
        match value {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(value) => Value::Bool(*value),
            serde_json::Value::Number(number) => Value::Float(number.as_f64().unwrap()),
            serde_json::Value::String(text) => Value::str(&**text),
            serde_json::Value::Array(list) => Value::List(list.iter().map(plain).collect()),
            serde_json::Value::Object(map) => {
                Value::Map(map.iter().map(|(key, value)| (Text::from(&**key), plain(value))).collect())
            }
        }
    }

    #[test]
    fn a_text_that_nests_too_deep_is_refused() {
        let text = |depth: usize| Text::from("[".repeat(depth) + &"]".repeat(depth));
        assert!(read(&text(DEPTH_MAX), Options::default()).is_ok());
        assert!(read(&text(DEPTH_MAX + 1), Options::default()).is_err());
        assert!(read(&text(1_000_000), Options::default()).is_err());
    }

    proptest! {
        #[test]
        fn what_others_read_is_read_alike(text in "[\\[\\]{},:\" \\\\a-cu0-9.eE+-]{0,24}|(\\{\"a\":(1|\"x\"|\\[1,2\\]|null)\\})") {
            let own = read(&Text::from(&*text), Options::default());
            if let Ok(theirs) = serde_json::from_str::<serde_json::Value>(&text) {
                prop_assert_eq!(own, Ok(plain(&theirs)));
            }
        }

        #[test]
        fn what_is_written_is_read_again(texts in prop::collection::vec("(?s).{0,8}", 0..5), number in any::<f64>().prop_filter("finite", |n| n.is_finite()), indent in any::<bool>()) {
            let mut map = Map::default();
            map.put(Text::of("n"), Value::Float(number));
            map.put(Text::of("l"), Value::List(texts.iter().map(|text| Value::str(&**text)).collect()));
            let value = Value::Map(map);
            let mut out = Vec::new();
            write(&value, indent.then_some(0), &mut out);
            prop_assert_eq!(read(&out.into(), Options::default()), Ok(value));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = read(&Text::from(bytes), Options { ints: true, rest_ignored: true });
        }
    }
}
