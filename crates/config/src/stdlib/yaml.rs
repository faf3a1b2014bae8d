//! YAML, with the rules of the reference's library for what a plain scalar means: `yes` and `on` are text, `010` is
//! octal, dates become RFC 3339 text.

use std::any::Any;
use std::borrow::Cow;
use std::collections::HashMap;
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
        anchors: HashMap::new(),
        values: 0,
        aliased: 0,
        mistakes: Vec::new(),
    };
    let node = loop {
        match reader.event()?.0 {
            Event::Nothing | Event::StreamStart | Event::DocumentStart(_) => {}
            Event::StreamEnd | Event::DocumentEnd => return Ok(Value::NULL),
            event => break reader.node(event, 0)?,
        }
    };
    if reader.mistakes.is_empty() {
        return Ok(node.value);
    }
    Err(YamlError(format!("unmarshal errors:\n  {}", reader.mistakes.join("\n  "))))
}

struct Reader<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
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

#[derive(Clone)]
enum Kind {
    /// The text as written, and whether it is the mark of a merge.
    Scalar(Arc<str>, bool),
    Sequence(Vec<Node>),
    /// The entries, with the text of those keys that have one.
    Mapping(Vec<(Option<Arc<str>>, Value)>),
}

impl Reader<'_> {
    /// The next event, and the line that it begins in.
    fn event(&mut self) -> Result<(Event<'static>, usize), YamlError> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((own(event), span.start.line())),
            Some(Err(error)) => Err(error.into()),
            None => Ok((Event::StreamEnd, 0)),
        }
    }

    fn node(&mut self, event: Event<'_>, depth: usize) -> Result<Node, YamlError> {
        if depth > NESTING_MAX {
            return Err(YamlError(format!("exceeded max depth of {NESTING_MAX}")));
        }
        self.values += 1;
        match event {
            Event::Alias(anchor) => self.alias(anchor, depth),
            Event::Scalar(text, style, anchor, tag) => {
                let node = scalar(&text, style, tag.as_deref())?;
                Ok(self.anchored(anchor, node))
            }
            Event::SequenceStart(anchor, _) => {
                self.begin(anchor);
                let node = self.sequence(depth)?;
                Ok(self.anchored(anchor, node))
            }
            Event::MappingStart(anchor, _) => {
                self.begin(anchor);
                let node = self.mapping(depth)?;
                Ok(self.anchored(anchor, node))
            }
            _ => Err(YamlError("did not find expected node content".to_owned())),
        }
    }

    fn begin(&mut self, anchor: usize) {
        if anchor > 0 {
            self.anchors.insert(anchor, None);
        }
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
            return Err(YamlError(format!("exceeded max depth of {NESTING_MAX}")));
        }
        self.values = self.values.saturating_add(node.size);
        self.aliased = self.aliased.saturating_add(node.size);
        let share = self.aliased as f64 / self.values as f64;
        if self.aliased > ALIASED_VALUES_MIN && self.values > VALUES_MIN && share > aliased_share_max(self.values) {
            return Err(YamlError("document contains excessive aliasing".to_owned()));
        }
        Ok(node)
    }

    fn sequence(&mut self, depth: usize) -> Result<Node, YamlError> {
        let mut nodes = Vec::new();
        loop {
            match self.event()?.0 {
                Event::SequenceEnd => break,
                event => nodes.push(self.node(event, depth + 1)?),
            }
        }
        let value = Value::array(nodes.iter().map(|node| node.value.clone()).collect::<Vec<Value>>());
        let (size, height) = extent(&nodes);
        Ok(Node { value, kind: Kind::Sequence(nodes), size, height })
    }

    fn mapping(&mut self, depth: usize) -> Result<Node, YamlError> {
        let mut entries: Vec<(Option<Arc<str>>, Value)> = Vec::new();
        let mut lines: HashMap<Arc<str>, usize> = HashMap::new();
        let mut merge = None;
        let (mut size, mut height) = (1u64, 1);
        loop {
            let (event, line) = self.event()?;
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let key = self.node(event, depth + 1)?;
            let event = self.event()?.0;
            let node = self.node(event, depth + 1)?;
            size = size.saturating_add(key.size).saturating_add(node.size);
            height = height.max(key.height + 1).max(node.height + 1);
            let Kind::Scalar(text, is_merge) = key.kind else {
                return Err(YamlError(format!("invalid map key: {}", key.value)));
            };
            if let Some(first) = lines.get(&text) {
                if self.mistakes.len() < MISTAKES_MAX {
                    let text = quote(&text);
                    self.mistakes
                        .push(format!("line {line}: mapping key {text} already defined at line {first}"));
                }
                continue;
            }
            lines.insert(Arc::clone(&text), line);
            if is_merge {
                merge = Some(node);
                continue;
            }
            let name = key.value.as_str().map(|_| Arc::clone(&text));
            if name.is_some() {
                entries.push((name, node.value));
            } else {
                // The key is kept in the value, since the text alone does not say what it is.
                entries.push((None, pair(key.value, node.value)));
            }
        }
        if let Some(merge) = merge {
            merge_into(&mut entries, &merge)?;
        }
        let value = mapping_value(&entries);
        Ok(Node { value, kind: Kind::Mapping(entries), size, height })
    }
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

fn extent(nodes: &[Node]) -> (u64, usize) {
    nodes.iter().fold((1, 1), |(size, height), node| (size.saturating_add(node.size), height.max(node.height + 1)))
}

/// A key that is no text together with its value.
fn pair(key: Value, value: Value) -> Value {
    Value::array(vec![key, value])
}

fn mapping_value(entries: &[(Option<Arc<str>>, Value)]) -> Value {
    if entries.iter().all(|(name, _)| name.is_some()) {
        let fields = entries.iter().filter_map(|(name, value)| Some((Arc::clone(name.as_ref()?), value.clone())));
        return Value::object(fields.collect::<Object>());
    }
    let pairs = entries.iter().filter_map(|(name, value)| match name {
        Some(name) => Some((Value::string(Arc::clone(name)), value.clone())),
        None => Some((value.index(0)?, value.index(1)?)),
    });
    Value::capsule(Arc::new(Mapping(pairs.collect())))
}

/// Adds what a merge brings: keys that are there already stay, and of several mappings the first counts.
fn merge_into(entries: &mut Vec<(Option<Arc<str>>, Value)>, merge: &Node) -> Result<(), YamlError> {
    let failure = || YamlError("map merge requires map or sequence of maps as the value".to_owned());
    let mut add = |node: &Node| {
        let Kind::Mapping(more) = &node.kind else { return Err(failure()) };
        for (name, value) in more {
            let known = match name {
                Some(_) => entries.iter().any(|(known, _)| known == name),
                None => entries.iter().any(|(known, other)| known.is_none() && other.index(0) == value.index(0)),
            };
            if !known {
                entries.push((name.clone(), value.clone()));
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
    let tag = tag.filter(|tag| !(tag.handle.is_empty() || tag.handle == "!") || !tag.suffix.is_empty());
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
    let value = match (tag, wanted) {
        (_, Some(Type::Str)) => Value::from(text),
        (None, _) if !plain || is_merge => Value::from(text),
        (None, _) => resolve(text, true).1,
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
    Ok(Node { value, kind: Kind::Scalar(Arc::from(text), is_merge), size: 1, height: 0 })
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
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
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
