//! YAML, with the rules of the reference's library for what a plain scalar means: `yes` and `on` are text, `010` is
//! octal, dates become RFC 3339 text.

use std::any::Any;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use corten_syntax::quote;
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Tag};

use super::base64::{self, Alphabet};
use crate::limits::NESTING_MAX;
use crate::literal::parse_go_float;
use crate::value::{Capsule, Object, Value};

/// Mistakes in one text that are told at once.
const MISTAKES_MAX: usize = 20;
/// A text may come from aliases to this many values without a look at their share in it.
const ALIASED_VALUES_MIN: u64 = 100;
/// Texts with fewer values are not looked at.
const VALUES_MIN: u64 = 1_000;
/// Up to this many values nearly all may come from aliases.
const VALUES_LOW: u64 = 400_000;
/// From this many values on a tenth may come from aliases.
const VALUES_HIGH: u64 = 4_000_000;

/// A text that is no YAML, or has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct YamlError(String);

impl fmt::Display for YamlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "yaml: {}", self.0)
    }
}

impl From<ScanError> for YamlError {
    fn from(error: ScanError) -> Self {
        YamlError(format!("line {}: {}", error.marker().line(), error.info()))
    }
}

/// A mapping with keys that are not text. The language has no such objects, so it is passed on as it is.
#[derive(Debug, PartialEq)]
struct Mapping(Vec<(Value, Value)>);

impl Capsule for Mapping {
    fn type_name(&self) -> &'static str {
        "map[interface {}]interface {}"
    }

    fn equals(&self, other: &dyn Capsule) -> bool {
        other.as_any().downcast_ref::<Mapping>().is_some_and(|other| self == other)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Reads the first document of a text. A text without one is `null`.
pub(super) fn parse(text: &str) -> Result<Value, YamlError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader {
        parser: Parser::new_from_str(text),
        unended: (!text.ends_with('\n')).then(|| text.chars().count()),
        anchors: HashMap::new(),
        values: 0,
        aliased: 0,
        mistakes: Vec::new(),
    };
    let value = reader.document()?;
    if reader.mistakes.is_empty() {
        return Ok(value);
    }
    Err(YamlError(format!("unmarshal errors:\n  {}", reader.mistakes.join("\n  "))))
}

struct Reader<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    /// The end of the text, in characters, if its last line has no end.
    unended: Option<usize>,
    /// The values of anchors, by the number that the parser gives each; nothing while the value is being read.
    anchors: HashMap<usize, Option<Node>>,
    /// Values read so far, those behind aliases each time anew.
    values: u64,
    aliased: u64,
    mistakes: Vec<String>,
}

/// A value, and what it takes to decide whether it may stand where an alias to it stands.
#[derive(Clone)]
struct Node {
    value: Value,
    kind: Kind,
    /// How many values it is made of, itself included.
    size: u64,
    /// How deep it is nested.
    height: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    Text,
    /// `<<`: the value is to be merged.
    Merge,
    Other,
}

#[derive(Clone)]
enum Kind {
    /// The text as written, and what it is as a key.
    Scalar(Arc<str>, Key),
    Sequence(Arc<[Node]>),
    Mapping(Arc<[Entry]>),
}

#[derive(Clone)]
struct Entry {
    /// The key as written.
    text: Arc<str>,
    /// The key where it is no text.
    other: Option<Value>,
    value: Value,
}

/// A sequence or mapping that is being read.
struct Open {
    anchor: usize,
    content: Content,
    size: u64,
    height: usize,
}

enum Content {
    Sequence(Vec<Node>),
    Mapping(Pairs),
}

#[derive(Default)]
struct Pairs {
    entries: Vec<Entry>,
    /// The lines that the keys stand in.
    lines: HashMap<Arc<str>, usize>,
    /// A key that waits for its value, and its line.
    key: Option<(Node, usize)>,
    merge: Option<Node>,
}

impl Reader<'_> {
    /// The next event, and the line that it begins in.
    fn event(&mut self) -> Result<(Event<'static>, usize), YamlError> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => {
                let mut event = own(event);
                if let Event::Scalar(text, ScalarStyle::Literal | ScalarStyle::Folded, ..) = &mut event {
                    // The parser ends the last line of a block, even where the text ends without one.
                    if self.unended == Some(span.end.index()) && text.ends_with('\n') {
                        text.to_mut().pop();
                    }
                }
                Ok((event, span.start.line()))
            }
            Some(Err(error)) => Err(error.into()),
            None => Ok((Event::StreamEnd, 0)),
        }
    }

    /// Reads the first document, with what is open on a stack of its own.
    fn document(&mut self) -> Result<Value, YamlError> {
        let mut open: Vec<Open> = Vec::new();
        loop {
            let (event, line) = self.event()?;
            let node = match event {
                Event::Nothing | Event::StreamStart | Event::DocumentStart(_) => continue,
                Event::StreamEnd | Event::DocumentEnd => return Ok(Value::NULL),
                Event::SequenceStart(anchor, _) => {
                    self.begin(&mut open, anchor, Content::Sequence(Vec::new()))?;
                    continue;
                }
                Event::MappingStart(anchor, _) => {
                    self.begin(&mut open, anchor, Content::Mapping(Pairs::default()))?;
                    continue;
                }
                Event::Alias(anchor) => self.alias(anchor, open.len())?,
                Event::Scalar(text, style, anchor, tag) => {
                    self.values += 1;
                    let node = scalar(&text, style, tag.as_deref())?;
                    self.anchored(anchor, node)
                }
                Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                    Some(done) => self.end(done)?,
                    None => return Ok(Value::NULL),
                },
            };
            match open.last_mut() {
                Some(container) => self.put(container, node, line)?,
                None => return Ok(node.value),
            }
        }
    }

    fn begin(&mut self, open: &mut Vec<Open>, anchor: usize, content: Content) -> Result<(), YamlError> {
        if open.len() >= NESTING_MAX {
            return Err(too_deep());
        }
        self.values += 1;
        if anchor > 0 {
            self.anchors.insert(anchor, None);
        }
        open.push(Open { anchor, content, size: 1, height: 1 });
        Ok(())
    }

    fn end(&mut self, done: Open) -> Result<Node, YamlError> {
        let Open { anchor, content, size, height } = done;
        let (value, kind) = match content {
            Content::Sequence(nodes) => {
                let values: Vec<Value> = nodes.iter().map(|node| node.value.clone()).collect();
                (Value::array(values), Kind::Sequence(nodes.into()))
            }
            Content::Mapping(mut pairs) => {
                if let Some(merge) = pairs.merge {
                    merge_into(&mut pairs.entries, &merge)?;
                }
                (mapping_value(&pairs.entries), Kind::Mapping(pairs.entries.into()))
            }
        };
        Ok(self.anchored(anchor, Node { value, kind, size, height }))
    }

    fn put(&mut self, container: &mut Open, node: Node, line: usize) -> Result<(), YamlError> {
        container.size = container.size.saturating_add(node.size);
        container.height = container.height.max(node.height + 1);
        let pairs = match &mut container.content {
            Content::Sequence(nodes) => {
                nodes.push(node);
                return Ok(());
            }
            Content::Mapping(pairs) => pairs,
        };
        let Some((key, line)) = pairs.key.take() else {
            pairs.key = Some((node, line));
            return Ok(());
        };
        let Kind::Scalar(text, kind) = key.kind else {
            return Err(YamlError(format!("invalid map key: {}", key.value)));
        };
        if let Some(first) = pairs.lines.get(&text) {
            if self.mistakes.len() < MISTAKES_MAX {
                let text = quote(&text);
                self.mistakes.push(format!("line {line}: mapping key {text} already defined at line {first}"));
            }
            return Ok(());
        }
        pairs.lines.insert(Arc::clone(&text), line);
        match kind {
            Key::Merge => pairs.merge = Some(node),
            Key::Text => pairs.entries.push(Entry { text, other: None, value: node.value }),
            Key::Other => pairs.entries.push(Entry { text, other: Some(key.value), value: node.value }),
        }
        Ok(())
    }

    fn anchored(&mut self, anchor: usize, node: Node) -> Node {
        if anchor > 0 {
            self.anchors.insert(anchor, Some(node.clone()));
        }
        node
    }

    fn alias(&mut self, anchor: usize, depth: usize) -> Result<Node, YamlError> {
        let node = match self.anchors.get(&anchor) {
            Some(Some(node)) => node.clone(),
            Some(None) => return Err(YamlError("anchor value contains itself".to_owned())),
            None => return Err(YamlError("unknown anchor referenced".to_owned())),
        };
        if depth + node.height > NESTING_MAX {
            return Err(too_deep());
        }
        self.values = self.values.saturating_add(1).saturating_add(node.size);
        self.aliased = self.aliased.saturating_add(node.size);
        let share = self.aliased as f64 / self.values as f64;
        if self.aliased > ALIASED_VALUES_MIN && self.values > VALUES_MIN && share > aliased_share_max(self.values) {
            return Err(YamlError("document contains excessive aliasing".to_owned()));
        }
        Ok(node)
    }
}

fn too_deep() -> YamlError {
    YamlError(format!("exceeded max depth of {NESTING_MAX}"))
}

/// The share of values that may come from aliases, in a text of that many values.
fn aliased_share_max(values: u64) -> f64 {
    if values <= VALUES_LOW {
        0.99
    } else if values >= VALUES_HIGH {
        0.10
    } else {
        0.99 - 0.89 * ((values - VALUES_LOW) as f64 / (VALUES_HIGH - VALUES_LOW) as f64)
    }
}

fn mapping_value(entries: &[Entry]) -> Value {
    if entries.iter().all(|entry| entry.other.is_none()) {
        let fields = entries.iter().map(|entry| (Arc::clone(&entry.text), entry.value.clone()));
        return Value::object(fields.collect::<Object>());
    }
    let key = |entry: &Entry| entry.other.clone().unwrap_or_else(|| Value::string(Arc::clone(&entry.text)));
    Value::capsule(Arc::new(Mapping(entries.iter().map(|entry| (key(entry), entry.value.clone())).collect())))
}

/// Adds what a merge brings: keys that are there already stay, and of several mappings the first counts. Where all keys
/// are text, those that the merge brings become text too.
fn merge_into(entries: &mut Vec<Entry>, merge: &Node) -> Result<(), YamlError> {
    let failure = || YamlError("map merge requires map or sequence of maps as the value".to_owned());
    let all_text = entries.iter().all(|entry| entry.other.is_none());
    let mut known: HashSet<(Arc<str>, bool)> =
        entries.iter().map(|entry| (Arc::clone(&entry.text), entry.other.is_some())).collect();
    let mut add = |node: &Node| {
        let Kind::Mapping(more) = &node.kind else { return Err(failure()) };
        for entry in more.iter() {
            let other = entry.other.clone().filter(|_| !all_text);
            if known.insert((Arc::clone(&entry.text), other.is_some())) {
                entries.push(Entry { other, ..entry.clone() });
            }
        }
        Ok(())
    };
    match &merge.kind {
        Kind::Mapping(_) => add(merge),
        Kind::Sequence(nodes) => nodes.iter().try_for_each(add),
        Kind::Scalar(..) => Err(failure()),
    }
}

fn own(event: Event<'_>) -> Event<'static> {
    let tag = |tag: Option<Cow<'_, Tag>>| tag.map(|tag| Cow::Owned(tag.into_owned()));
    match event {
        Event::Nothing => Event::Nothing,
        Event::StreamStart => Event::StreamStart,
        Event::StreamEnd => Event::StreamEnd,
        Event::DocumentStart(explicit) => Event::DocumentStart(explicit),
        Event::DocumentEnd => Event::DocumentEnd,
        Event::Alias(anchor) => Event::Alias(anchor),
        Event::Scalar(text, style, anchor, t) => Event::Scalar(Cow::Owned(text.into_owned()), style, anchor, tag(t)),
        Event::SequenceStart(anchor, t) => Event::SequenceStart(anchor, tag(t)),
        Event::SequenceEnd => Event::SequenceEnd,
        Event::MappingStart(anchor, t) => Event::MappingStart(anchor, tag(t)),
        Event::MappingEnd => Event::MappingEnd,
    }
}

/// The types of scalars that the core schema knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Null,
    Bool,
    Int,
    Float,
    Str,
    Timestamp,
}

impl Type {
    fn tag(self) -> &'static str {
        match self {
            Type::Null => "!!null",
            Type::Bool => "!!bool",
            Type::Int => "!!int",
            Type::Float => "!!float",
            Type::Str => "!!str",
            Type::Timestamp => "!!timestamp",
        }
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Node, YamlError> {
    let plain = style == ScalarStyle::Plain;
    // A tag `!` says no more than none.
    let tag = tag.filter(|tag| !matches!((&*tag.handle, &*tag.suffix), ("", "!") | ("!", "")));
    let core = tag.filter(|tag| tag.is_yaml_core_schema()).map(|tag| tag.suffix.as_str());
    let is_merge = text == "<<" && ((plain && tag.is_none()) || core == Some("merge"));
    let wanted = match core {
        Some("null") => Some(Type::Null),
        Some("bool") => Some(Type::Bool),
        Some("int") => Some(Type::Int),
        Some("float") => Some(Type::Float),
        Some("str") => Some(Type::Str),
        Some("timestamp") => Some(Type::Timestamp),
        _ => None,
    };
    let mut key = Key::Other;
    let value = match (tag, wanted) {
        (None, _) if plain && !is_merge => {
            let (found, value) = resolve(text, true);
            key = if found == Type::Str { Key::Text } else { Key::Other };
            value
        }
        (None, _) | (Some(_), Some(Type::Str)) => {
            key = Key::Text;
            Value::from(text)
        }
        (Some(_), None) if core == Some("binary") => {
            let bytes = base64::decode(text.as_bytes(), Alphabet::Standard)
                .map_err(|_| YamlError("!!binary value contains invalid base64 data".to_owned()))?;
            Value::from(String::from_utf8_lossy(&bytes).as_ref())
        }
        (Some(_), None) => Value::from(text),
        (Some(_), Some(wanted)) => match resolve(text, wanted == Type::Timestamp) {
            (found, value) if found == wanted => value,
            (Type::Int, value) if wanted == Type::Float => {
                Value::float(value.as_number().map_or(0.0, crate::number::Number::to_f64))
            }
            (found, _) => {
                return Err(YamlError(format!("cannot decode {} `{text}` as a {}", found.tag(), wanted.tag())));
            }
        },
    };
    key = if is_merge { Key::Merge } else { key };
    Ok(Node { value, kind: Kind::Scalar(Arc::from(text), key), size: 1, height: 0 })
}

/// What a plain scalar is.
fn resolve(text: &str, timestamps: bool) -> (Type, Value) {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return (Type::Null, Value::NULL),
        "true" | "True" | "TRUE" => return (Type::Bool, Value::bool(true)),
        "false" | "False" | "FALSE" => return (Type::Bool, Value::bool(false)),
        ".nan" | ".NaN" | ".NAN" => return (Type::Float, Value::float(f64::NAN)),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return (Type::Float, Value::float(f64::INFINITY)),
        "-.inf" | "-.Inf" | "-.INF" => return (Type::Float, Value::float(f64::NEG_INFINITY)),
        _ => {}
    }
    let number = match text.as_bytes()[0] {
        b'.' => parse_go_float(text).map(|value| (Type::Float, Value::float(value))),
        b'+' | b'-' | b'0'..=b'9' => {
            if let Some(time) = timestamp(text).filter(|_| timestamps) {
                return (Type::Timestamp, Value::from(time));
            }
            let plain = text.replace('_', "");
            integer(&plain)
                .map(|value| (Type::Int, value))
                .or_else(|| float(&plain).map(|value| (Type::Float, Value::float(value))))
        }
        _ => None,
    };
    number.unwrap_or_else(|| (Type::Str, Value::from(text)))
}

/// An integer in base 10, or with a prefix in another: `0x`, `0o`, `0b`, or a zero for octal.
fn integer(text: &str) -> Option<Value> {
    let (negative, digits) = match text.as_bytes() {
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = digits.get(..2).map(str::to_ascii_lowercase);
    let (digits, radix) = match lower.as_deref() {
        Some("0x") => (&digits[2..], 16),
        Some("0o") => (&digits[2..], 8),
        Some("0b") => (&digits[2..], 2),
        Some(two) if two.starts_with('0') => (&digits[1..], 8),
        _ => (digits, 10),
    };
    if !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    if negative {
        return 0i64.checked_sub_unsigned(magnitude).map(Value::int);
    }
    // A sign makes the number a signed one.
    let signed = i64::try_from(magnitude).ok().map(Value::int);
    signed.or_else(|| (!text.starts_with('+')).then(|| Value::uint(magnitude)))
}

/// A decimal number: digits, perhaps with a point among or around them, perhaps with an exponent.
fn float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let good_exponent = exponent.is_none_or(|exponent| {
        let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !digits.is_empty() && all_digits(digits)
    });
    let good_mantissa = match mantissa.split_once('.') {
        Some((whole, fraction)) => {
            all_digits(whole) && all_digits(fraction) && !(whole.is_empty() && fraction.is_empty())
        }
        None => !mantissa.is_empty() && all_digits(mantissa),
    };
    text.parse().ok().filter(|value: &f64| good_exponent && good_mantissa && value.is_finite())
}

/// A date, or a date with a time, as RFC 3339 text.
fn timestamp(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut at = 0;
    // One digit or two.
    let short = |at: &mut usize| {
        let len = bytes.get(*at..)?.iter().take(2).take_while(|byte| byte.is_ascii_digit()).count();
        let value = text.get(*at..*at + len)?.parse::<u32>().ok()?;
        *at += len;
        Some(value)
    };
    let expect = |at: &mut usize, expected: &[u8]| {
        let found = *bytes.get(*at)?;
        *at += 1;
        expected.contains(&found).then_some(found)
    };
    let year = text.get(..4).filter(|year| year.bytes().all(|byte| byte.is_ascii_digit()))?;
    let year: u32 = year.parse().ok()?;
    at += 4;
    expect(&mut at, b"-")?;
    let month = short(&mut at)?;
    expect(&mut at, b"-")?;
    let day = short(&mut at)?;
    let days = match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=days).contains(&day) {
        return None;
    }
    let date = format!("{year:04}-{month:02}-{day:02}");
    if at == bytes.len() {
        return Some(format!("{date}T00:00:00Z"));
    }
    let separator = expect(&mut at, b"Tt ")?;
    let hour = short(&mut at).filter(|hour| *hour < 24)?;
    expect(&mut at, b":")?;
    let minute = short(&mut at).filter(|minute| *minute < 60)?;
    expect(&mut at, b":")?;
    let second = short(&mut at).filter(|second| *second < 60)?;
    let mut fraction = "";
    if matches!(bytes.get(at), Some(b'.' | b',')) && bytes.get(at + 1).is_some_and(u8::is_ascii_digit) {
        let len = bytes[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        fraction = text.get(at + 1..at + 1 + len.min(9))?.trim_end_matches('0');
        at += 1 + len;
    }
    let point = if fraction.is_empty() { "" } else { "." };
    let zone = match (separator, bytes.get(at..)?) {
        (b' ', []) | (b'T' | b't', [b'Z']) => "Z".to_owned(),
        (b'T' | b't', [b'+' | b'-', _, _, b':', _, _]) => {
            let (hours, minutes) = (text.get(at + 1..at + 3)?, text.get(at + 4..at + 6)?);
            let good = [hours, minutes].iter().all(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            match (hours.parse::<u32>().ok()?, minutes.parse::<u32>().ok()?) {
                _ if !good => return None,
                (0, 0) => "Z".to_owned(),
                (..24, ..60) => text[at..].to_owned(),
                _ => return None,
            }
        }
        _ => return None,
    };
    Some(format!("{date}T{hour:02}:{minute:02}:{second:02}{point}{fraction}{zone}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn scalars_mean_what_they_mean_to_the_reference() {
        let cases = [
            ("1", "1"),
            ("010", "8"),
            ("0o17", "15"),
            ("0x1F", "31"),
            ("0b101", "5"),
            ("-0b11", "-3"),
            ("1_000", "1000"),
            ("+5", "5"),
            ("18446744073709551615", "18446744073709551615"),
            ("+18446744073709551615", "18446744073709552000"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("1.5", "1.5"),
            ("1e3", "1000"),
            (".5", "0.5"),
            ("5.", "5"),
            ("08", "8"),
            ("1_0.5", "10.5"),
            ("-.inf", "-Inf"),
            ("1e400", "\"1e400\""),
            ("1.2.3", "\"1.2.3\""),
            ("yes", "\"yes\""),
            ("on", "\"on\""),
            ("True", "true"),
            ("tRue", "\"tRue\""),
            ("~", "null"),
            ("Null", "null"),
            ("", "null"),
            ("# nothing", "null"),
            ("'5'", "\"5\""),
            ("! 5", "5"),
            ("!!str 5", "\"5\""),
            ("!!int '5'", "5"),
            ("!!float 5", "5"),
            ("!foo bar", "\"bar\""),
            ("!!binary aGk=", "\"hi\""),
            ("2001-12-14", "\"2001-12-14T00:00:00Z\""),
            ("2001-1-2", "\"2001-01-02T00:00:00Z\""),
            ("2001-02-29", "\"2001-02-29\""),
            ("2000-02-29", "\"2000-02-29T00:00:00Z\""),
            ("2001-12-14T21:59:43.10-05:00", "\"2001-12-14T21:59:43.1-05:00\""),
            ("2001-12-14 21:59:43,5", "\"2001-12-14T21:59:43.5Z\""),
            ("2001-12-14t1:2:3+00:00", "\"2001-12-14T01:02:03Z\""),
            ("12:30", "\"12:30\""),
            ("|\n  x\n  y\n", "\"x\\ny\\n\""),
            ("|\n  x\n  y", "\"x\\ny\""),
            ("[1, [a], {b: c}]", "[1, [\"a\"], {\n\tb = \"c\",\n}]"),
            ("---\na\n---\nb", "\"a\""),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text).unwrap().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn mappings_merge_and_those_with_other_keys_are_opaque() {
        let read = |text: &str| parse(text).unwrap();
        let text = "x: &x {a: 1, b: 2}\ny: &y {b: 5, c: 6}\nz:\n  <<: [*x, *y]\n  d: 1\n  a: 0";
        assert_eq!(read(text).field("z").unwrap().to_string(), "{\n\ta = 0,\n\tb = 2,\n\tc = 6,\n\td = 1,\n}");
        for text in ["1: a", "{true: 1}", "{a: 1, null: 2}", "2001-01-01: 1"] {
            assert_eq!(read(text).to_string(), r#"capsule("map[interface {}]interface {}")"#, "{text}");
        }
        assert_eq!(read("<<: {a: 1, 2: b}").to_string(), "{\n\t\"2\" = \"b\",\n\ta   = 1,\n}");
        assert_eq!(read("{1: a, b: 2}"), read("{1: a, b: 2}"));
        assert_ne!(read("{1: a, b: 2}"), read("{1: a, b: 3}"));
    }

    #[test]
    fn mistakes_are_told() {
        let cases = [
            ("a: 1\na: 2", "yaml: unmarshal errors:\n  line 2: mapping key \"a\" already defined at line 1"),
            ("&a [*a]", "yaml: anchor value contains itself"),
            ("!!int x", "yaml: cannot decode !!str `x` as a !!int"),
            ("!!binary '!'", "yaml: !!binary value contains invalid base64 data"),
            ("<<: 5", "yaml: map merge requires map or sequence of maps as the value"),
            ("? [a]\n: 1", "yaml: invalid map key: [\"a\"]"),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text).unwrap_err().to_string(), expected, "{text}");
        }
        for text in ["a: b: c", "a: *x", "a: [1, 2", "@x", "- a\n-b", "\"x"] {
            assert!(parse(text).unwrap_err().to_string().starts_with("yaml: line "), "{text}");
        }
    }

    #[test]
    fn texts_that_explode_are_refused() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
        }
        assert_eq!(parse(&bomb).unwrap_err().to_string(), "yaml: document contains excessive aliasing");
        let mut deep = "a0: &a0 []\n".to_owned();
        for level in 1..=NESTING_MAX {
            deep.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
        }
        assert!(parse(&deep).is_err());
        for text in ["[".repeat(100_000), "- ".repeat(10_000), "{a: ".repeat(10_000), "? ".repeat(10_000)] {
            assert!(parse(&text).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in r#"[-a1:,\[\]{}&*!|>'"%@`?#~.\n\t \\é]{0,60}|.{0,60}"#) {
            let _ = parse(&text);
        }

        #[test]
        fn json_is_yaml(json in r#"\{"[a-z]{1,5}":(true|null|[1-9][0-9]{0,5}|"[a-z ]{0,8}"),"x y":\[[1-9][0-9]{0,2},\{\}\]\}"#) {
            let yaml = parse(&json).unwrap();
            let read = super::super::json::parse(&json).unwrap();
            prop_assert!(crate::ops::equal(&yaml, &read));
        }
    }
}
