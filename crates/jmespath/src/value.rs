//! Values.

use std::fmt::Write as _;
use std::sync::Arc;

/// How deep a document may nest that expressions search.
pub const DEPTH_MAX: usize = 200;

/// A value of JSON. Copies share what they hold.
#[derive(Clone, Debug, Default)]
pub enum Value {
    /// `null`, and what is not there.
    #[default]
    Null,
    /// A bool.
    Bool(bool),
    /// A number.
    Number(f64),
    /// A text.
    String(Arc<str>),
    /// An array.
    Array(Arc<Vec<Value>>),
    /// An object. No name stands twice.
    Object(Arc<Vec<(Arc<str>, Value)>>),
}

impl Value {
    /// A text.
    pub fn string(text: impl AsRef<str>) -> Self {
        Value::String(text.as_ref().into())
    }

    /// An array.
    pub fn array(list: Vec<Value>) -> Self {
        Value::Array(Arc::new(list))
    }

    /// An object; of several members of one name the last counts, at the place of the first.
    pub fn object(members: impl IntoIterator<Item = (Arc<str>, Value)>) -> Self {
        let mut all: Vec<(Arc<str>, Value)> = Vec::new();
        let mut places = std::collections::HashMap::new();
        for (name, value) in members {
            match places.get(&name) {
                Some(at) => {
                    let at: usize = *at;
                    all[at].1 = value;
                }
                None => {
                    places.insert(Arc::clone(&name), all.len());
                    all.push((name, value));
                }
            }
        }
        Value::Object(Arc::new(all))
    }

    /// The member of an object; nothing of anything else.
    pub fn get(&self, name: &str) -> Option<&Value> {
        match self {
            Value::Object(members) => members.iter().find(|(known, _)| **known == *name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// Reads JSON; what follows a NUL behind it does not count. What is not UTF-8 becomes U+FFFD. Nothing for what is no
    /// JSON, or nests deeper than [`DEPTH_MAX`].
    pub fn from_json(text: &[u8]) -> Option<Self> {
        let mut reader = Reader { text, at: 0, depth: 0 };
        let value = reader.value()?;
        matches!(reader.peek(), None | Some(0)).then_some(value)
    }

    /// As JSON, without spaces, as Go prints it: `<`, `>` and `&` are escaped. Members stand in their order.
    pub fn to_json(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, false);
        out
    }

    /// As [`to_json`](Self::to_json), with the members sorted by name.
    pub fn to_sorted_json(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, true);
        out
    }

    fn write(&self, out: &mut String, sorted: bool) {
        match self {
            Value::Null => out.push_str("null"),
            Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Value::Number(value) => write_number(*value, out),
            Value::String(text) => write_string(text, out),
            Value::Array(list) => {
                out.push('[');
                for (at, value) in list.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    value.write(out, sorted);
                }
                out.push(']');
            }
            Value::Object(members) => {
                let mut members: Vec<_> = members.iter().collect();
                if sorted {
                    members.sort_by(|a, b| a.0.cmp(&b.0));
                }
                out.push('{');
                for (at, (name, value)) in members.into_iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    write_string(name, out);
                    out.push(':');
                    value.write(out, sorted);
                }
                out.push('}');
            }
        }
    }

    /// Whether it counts as false: null, false, and what is empty.
    pub(crate) fn is_false(&self) -> bool {
        match self {
            Value::Null => true,
            Value::Bool(value) => !value,
            Value::Number(_) => false,
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::Object(members) => members.is_empty(),
        }
    }
}

/// Objects are equal whatever the order of their members.
impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Number(a), Value::Number(b)) => a == b,
            (Value::String(a), Value::String(b)) => a == b,
            (Value::Array(a), Value::Array(b)) => a == b,
            (Value::Object(a), Value::Object(b)) => {
                a.len() == b.len() && a.iter().all(|(name, value)| other.get(name).is_some_and(|found| found == value))
            }
            _ => false,
        }
    }
}

fn write_number(value: f64, out: &mut String) {
    let size = value.abs();
    // Writing to memory does not fail.
    let _ = if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{value:e}");
        match text.split_once('e') {
            Some((digits, power)) if !power.starts_with('-') => write!(out, "{digits}e+{power}"),
            _ => write!(out, "{text}"),
        }
    } else {
        write!(out, "{value}")
    };
}

fn write_string(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\x1f' => {
                let _ = write!(out, "\\u{:04x}", character as u32);
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    depth: usize,
}

impl Reader<'_> {
    fn peek(&mut self) -> Option<u8> {
        while matches!(self.text.get(self.at), Some(b' ' | b'\n' | b'\t' | b'\r')) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn take(&mut self, wanted: u8) -> Option<()> {
        (self.peek()? == wanted).then(|| self.at += 1)
    }

    fn literal(&mut self, word: &str, value: Value) -> Option<Value> {
        self.text[self.at..].starts_with(word.as_bytes()).then(|| {
            self.at += word.len();
            value
        })
    }

    fn value(&mut self) -> Option<Value> {
        match self.peek()? {
            b'{' => {
                let mut members: Vec<(Arc<str>, Value)> = Vec::new();
                self.list(b'}', |reader| {
                    // A key may be null there, which stands for the empty one.
                    let name = match reader.peek()? {
                        b'"' => reader.string()?,
                        _ => reader.literal("null", Value::Null).map(|_| Arc::from(""))?,
                    };
                    reader.take(b':')?;
                    members.push((name, reader.value()?));
                    Some(())
                })?;
                Some(Value::object(members))
            }
            b'[' => {
                let mut list = Vec::new();
                self.list(b']', |reader| {
                    list.push(reader.value()?);
                    Some(())
                })?;
                Some(Value::array(list))
            }
            b'"' => self.string().map(Value::String),
            b't' => self.literal("true", Value::Bool(true)),
            b'f' => self.literal("false", Value::Bool(false)),
            b'n' => self.literal("null", Value::Null),
            _ => {
                let rest = &self.text[self.at..];
                let is_part = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
                let len = rest.iter().take_while(is_part).count();
                let text = std::str::from_utf8(&rest[..len]).ok()?;
                let digits = text.strip_prefix('-').unwrap_or(text);
                let whole = digits.bytes().take_while(u8::is_ascii_digit).count();
                if whole == 0 || (whole > 1 && digits.starts_with('0')) {
                    return None;
                }
                if let Some((_, fraction)) = digits.split_once('.')
                    && !fraction.starts_with(|character: char| character.is_ascii_digit())
                {
                    return None;
                }
                self.at += len;
                text.parse().ok().filter(|value: &f64| value.is_finite()).map(Value::Number)
            }
        }
    }

    /// What stands between brackets, separated by commas.
    fn list(&mut self, close: u8, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.at += 1;
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return None;
        }
        if self.peek()? == close {
            self.at += 1;
        } else {
            loop {
                item(self)?;
                let next = self.peek()?;
                self.at += 1;
                match next {
                    b',' => {}
                    next if next == close => break,
                    _ => return None,
                }
            }
        }
        self.depth -= 1;
        Some(())
    }

    fn string(&mut self) -> Option<Arc<str>> {
        self.at += 1;
        let mut out = Vec::new();
        loop {
            let byte = *self.text.get(self.at)?;
            self.at += 1;
            match byte {
                b'"' => return Some(String::from_utf8_lossy(&out).into()),
                b'\\' => {
                    let kind = *self.text.get(self.at)?;
                    self.at += 1;
                    match kind {
                        b'b' => out.push(8),
                        b'f' => out.push(12),
                        b'n' => out.push(b'\n'),
                        b'r' => out.push(b'\r'),
                        b't' => out.push(b'\t'),
                        b'"' | b'\\' | b'/' => out.push(kind),
                        b'u' => {
                            let character = self.escape()?;
                            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                        }
                        _ => return None,
                    }
                }
                other => out.push(other),
            }
        }
    }

    /// The character of an escape whose `\u` was read. A half of a pair by itself is U+FFFD.
    fn escape(&mut self) -> Option<char> {
        let first = self.unit()?;
        if !(0xd800..0xdc00).contains(&first) || !self.text[self.at..].starts_with(b"\\u") {
            return Some(char::from_u32(u32::from(first)).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        let before = self.at;
        self.at += 2;
        let second = self.unit()?;
        match char::decode_utf16([first, second]).next() {
            Some(Ok(character)) => Some(character),
            _ => {
                self.at = before;
                Some(char::REPLACEMENT_CHARACTER)
            }
        }
    }

    fn unit(&mut self) -> Option<u16> {
        let digits = std::str::from_utf8(self.text.get(self.at..self.at + 4)?).ok()?;
        self.at += 4;
        if digits.starts_with('+') { None } else { u16::from_str_radix(digits, 16).ok() }
    }
}
