//! Operators that make values of texts.

use std::collections::{HashMap, VecDeque};

use corten_golang::{parse_query, parse_request_uri};
use corten_signal::regex::{GoRegex, Groups, Lossy};

use super::Parse;
use crate::build::{Built, Fields};
use crate::entry::Entry;
use crate::json;
use crate::value::{Map, Text, Value};

/// A text, or bytes that are taken for one.
fn text_of(value: &Value, what: &str) -> Result<Text, String> {
    match value {
        Value::Str(text) => Ok(text.clone()),
        Value::Bytes(bytes) => Ok(bytes.clone().into()),
        other => Err(format!("type '{}' cannot be parsed as {what}", other.go_type())),
    }
}

/// Objects of JSON.
pub(super) struct Json {
    ints: bool,
}

impl Json {
    pub(super) fn new(fields: &Fields<'_>) -> Built<Self> {
        Ok(Json { ints: fields.bool_or("parse_ints", false)? })
    }
}

/// Reads an object.
pub(super) fn object(text: &Text, options: json::Options) -> Result<Value, String> {
    match json::read(text, options)? {
        map @ Value::Map(_) => Ok(map),
        Value::Null => Ok(Value::Map(Map::default())),
        other => {
            Err(format!("json: cannot unmarshal {} into Go value of type map[string]interface {{}}", other.go_type()))
        }
    }
}

impl Parse for Json {
    fn parse(&mut self, value: &Value, _: &Entry) -> Result<Value, String> {
        let Value::Str(text) = value else {
            return Err(format!("type {} cannot be parsed as JSON", value.go_type()));
        };
        object(text, json::Options { ints: self.ints, rest_ignored: self.ints })
    }
}

/// Lists of JSON.
pub(super) struct JsonArray {
    header: Option<Vec<Text>>,
}

impl JsonArray {
    pub(super) fn new(fields: &Fields<'_>) -> Built<Self> {
        let header = fields.text_or("header", "")?;
        let names = || header.split(',').map(Text::from).collect();
        Ok(JsonArray { header: (!header.is_empty()).then(names) })
    }
}

impl Parse for JsonArray {
    fn parse(&mut self, value: &Value, _: &Entry) -> Result<Value, String> {
        let text = text_of(value, "json array")?;
        let failed = || "failed to parse entry".to_owned();
        let values = json::list(&text).map_err(|_| failed())?;
        let values: Option<Vec<Value>> = values
            .into_iter()
            .map(|(value, raw)| match value {
                // Numbers are whole here, and objects stay texts.
                Value::Float(_) => {
                    let number = std::str::from_utf8(&raw).ok().and_then(|text| text.parse().ok());
                    Some(Value::Int(number.unwrap_or(0)))
                }
                Value::Map(_) => Some(Value::Str(json::compact(&raw).into())),
                Value::List(_) => None,
                other => Some(other),
            })
            .collect();
        let Some(header) = &self.header else { return Ok(Value::List(values.ok_or_else(failed)?)) };
        let count = values.as_ref().map_or_else(|| json::list(&text).map_or(0, |all| all.len()), Vec::len);
        if header.len() != count {
            return Err(format!("wrong number of fields: expected {}, found {count}", header.len()));
        }
        Ok(Value::Map(header.iter().cloned().zip(values.ok_or_else(failed)?).collect()))
    }
}

/// Rows of comma-separated values.
pub(super) struct Csv {
    header: Header,
    delimiter: char,
    lazy_quotes: bool,
    ignore_quotes: bool,
}

enum Header {
    Fixed(Vec<Text>),
    /// An attribute has the names, between these.
    Attribute(String, char),
}

impl Csv {
    pub(super) fn new(fields: &Fields<'_>) -> Built<Self> {
        let mut delimiter = fields.text_or("delimiter", "")?;
        if delimiter.is_empty() {
            delimiter = ",".to_owned();
        }
        let mut header_delimiter = fields.text_or("header_delimiter", "")?;
        if header_delimiter.is_empty() {
            header_delimiter.clone_from(&delimiter);
        }
        let (lazy_quotes, ignore_quotes) =
            (fields.bool_or("lazy_quotes", false)?, fields.bool_or("ignore_quotes", false)?);
        if ignore_quotes && lazy_quotes {
            return Err("only one of 'ignore_quotes' or 'lazy_quotes' can be true".to_owned());
        }
        let one = |text: &str, name: &str| {
            let mut characters = text.chars();
            match (characters.next(), characters.next()) {
                (Some(character), None) => Ok(character),
                _ => Err(format!("invalid '{name}': '{text}'")),
            }
        };
        let delimiter = one(&delimiter, "delimiter")?;
        let header_delimiter = one(&header_delimiter, "header_delimiter")?;
        let header = match (fields.text_or("header", "")?, fields.text_or("header_attribute", "")?) {
            (header, attribute) if header.is_empty() && attribute.is_empty() => {
                return Err("missing required field 'header' or 'header_attribute'".to_owned());
            }
            (header, attribute) if header.is_empty() => Header::Attribute(attribute, header_delimiter),
            (_, attribute) if !attribute.is_empty() => {
                return Err("only one header parameter can be set: 'header' or 'header_attribute'".to_owned());
            }
            (header, _) if !header.contains(header_delimiter) => {
                return Err("missing field delimiter in header".to_owned());
            }
            (header, _) => Header::Fixed(header.split(header_delimiter).map(Text::from).collect()),
        };
        Ok(Csv { header, delimiter, lazy_quotes, ignore_quotes })
    }
}

impl Parse for Csv {
    fn parse(&mut self, value: &Value, entry: &Entry) -> Result<Value, String> {
        let named;
        let header = match &self.header {
            Header::Fixed(names) => names,
            Header::Attribute(attribute, delimiter) => {
                let names = entry.attributes.as_map().and_then(|attributes| attributes.get(attribute.as_bytes()));
                match names {
                    Some(Value::Str(names)) => {
                        named = names.lossy().split(*delimiter).map(Text::from).collect();
                        &named
                    }
                    Some(other) => return Err(format!("header is expected to be a string but is {}", other.go_type())),
                    None => return Err(format!("failed to read dynamic header attribute {attribute}")),
                }
            }
        };
        let text = text_of(value, "csv")?;
        let lossy = text.lossy();
        let row: Vec<String> = if self.ignore_quotes {
            lossy.split(self.delimiter).map(str::to_owned).collect()
        } else {
            corten_golang::csv_row(&lossy, self.delimiter, self.lazy_quotes)?
        };
        if row.len() != header.len() {
            return Err(format!("wrong number of fields: expected {}, found {}", header.len(), row.len()));
        }
        Ok(Value::Map(header.iter().cloned().zip(row.into_iter().map(Value::str)).collect()))
    }
}

/// Pairs of keys and values.
pub(super) struct KeyValue {
    delimiter: Vec<u8>,
    pair_delimiter: Vec<u8>,
    from: String,
}

impl KeyValue {
    pub(super) fn new(fields: &Fields<'_>) -> Built<Self> {
        let delimiter = fields.text_or("delimiter", "=")?;
        if delimiter.is_empty() {
            return Err("delimiter is a required parameter".to_owned());
        }
        let pair_delimiter = match fields.text_or("pair_delimiter", "")? {
            none if none.is_empty() => " ".to_owned(),
            some => some,
        };
        if delimiter == pair_delimiter {
            return Err("delimiter and pair_delimiter cannot be the same value".to_owned());
        }
        let from = fields.field("parse_from")?.map_or_else(|| "body".to_owned(), |field| field.to_string());
        Ok(KeyValue { delimiter: delimiter.into_bytes(), pair_delimiter: pair_delimiter.into_bytes(), from })
    }
}

impl Parse for KeyValue {
    fn parse(&mut self, value: &Value, _: &Entry) -> Result<Value, String> {
        let Value::Str(text) = value else {
            return Err(format!("type {} cannot be parsed as key value pairs", value.go_type()));
        };
        if text.is_empty() {
            return Err(format!("parse from field {} is empty", self.from));
        }
        let pairs = corten_golang::split_quoted(text, &self.pair_delimiter)
            .map_err(|error| format!("failed to parse pairs from input: {error}"))?;
        let mut map = Map::with_capacity(pairs.len());
        let mut wrong = Vec::new();
        for pair in pairs {
            let pair = Text::from(pair);
            match memchr::memmem::find(&pair, &self.delimiter) {
                Some(at) => {
                    let key = trimmed(&pair, 0, at);
                    let value = trimmed(&pair, at + self.delimiter.len(), pair.len());
                    map.put(key, Value::Str(value));
                }
                None => wrong.push(format!("cannot split {:?} into 2 items, got 1 item(s)", pair.lossy())),
            }
        }
        if wrong.is_empty() { Ok(Value::Map(map)) } else { Err(wrong.join("; ")) }
    }
}

/// A part of a text without white space around it.
fn trimmed(text: &Text, from: usize, to: usize) -> Text {
    let part = text.part(from..to);
    match std::str::from_utf8(&part) {
        Ok(plain) => {
            let start = plain.len() - plain.trim_start().len();
            let end = plain.trim_end().len().max(start);
            part.part(start..end)
        }
        Err(_) => Text::from(part.trim_ascii()),
    }
}

/// The named groups of a pattern.
pub(super) struct Regex {
    matcher: Matcher,
    cache: Option<Cache>,
}

/// Finds the named groups of a pattern in texts.
pub(super) struct Matcher {
    regex: GoRegex,
    names: Vec<(usize, Text)>,
    groups: Groups,
    lossy: Lossy,
}

impl Matcher {
    pub(super) fn new(regex: GoRegex) -> Self {
        let names = regex.group_names().enumerate();
        let names = names.filter_map(|(at, name)| Some((at + 1, Text::from(name?)))).collect();
        Matcher { regex, names, groups: Groups::new(), lossy: Lossy::new() }
    }

    pub(super) fn is_match(&mut self, text: &[u8]) -> bool {
        self.regex.is_match_bytes(text, &mut self.lossy)
    }

    /// The named groups, by names. Those that take no part in the match are empty.
    pub(super) fn groups(&mut self, text: &Text) -> Option<Map> {
        if !self.regex.captures_bytes(text, &mut self.lossy, &mut self.groups) {
            return None;
        }
        let mut map = Map::with_capacity(self.names.len());
        for (at, name) in &self.names {
            let group = self.groups.get(*at).map_or_else(Text::default, |range| text.part(range));
            map.put(name.clone(), Value::Str(group));
        }
        Some(map)
    }
}

/// How many bytes of texts are known at the most.
const CACHE_BYTES_MAX: usize = 16 << 20;

/// What texts said that came before.
struct Cache {
    size: usize,
    known: HashMap<Text, Map>,
    /// The oldest first.
    order: VecDeque<Text>,
    /// How long the texts are together.
    bytes: usize,
}

impl Cache {
    fn new(size: usize) -> Self {
        Cache { size, known: HashMap::new(), order: VecDeque::new(), bytes: 0 }
    }

    fn put(&mut self, text: &[u8], map: &Map) {
        if text.len() > CACHE_BYTES_MAX {
            return;
        }
        while (self.order.len() >= self.size || self.bytes + text.len() > CACHE_BYTES_MAX)
            && let Some(oldest) = self.order.pop_front()
        {
            self.bytes -= oldest.len();
            self.known.remove(&oldest);
        }
        // A copy: a part of a buffer would keep all of it.
        let key = Text::from(text);
        let kept = map.iter().map(|(name, value)| match value {
            Value::Str(text) => (name.clone(), Value::Str(Text::from(&**text))),
            other => (name.clone(), other.clone()),
        });
        self.bytes += text.len();
        self.known.insert(key.clone(), kept.collect());
        self.order.push_back(key);
    }
}

impl Regex {
    pub(super) fn new(fields: &Fields<'_>) -> Built<Self> {
        let pattern = fields.text_or("regex", "")?;
        if pattern.is_empty() {
            return Err("missing required field 'regex'".to_owned());
        }
        let regex = GoRegex::new(&pattern).map_err(|error| format!("compiling regex: {error}"))?;
        let matcher = Matcher::new(regex);
        if matcher.names.is_empty() {
            return Err("no named capture groups in regex pattern".to_owned());
        }
        let size = match fields.within("cache")? {
            Some(cache) => cache.int_or("size", 0)?,
            None => 0,
        };
        let size = u16::try_from(size).map_err(|_| format!("'cache.size' cannot parse, {size} overflows uint"))?;
        Ok(Regex { matcher, cache: (size > 0).then(|| Cache::new(usize::from(size))) })
    }
}

impl Parse for Regex {
    fn parse(&mut self, value: &Value, _: &Entry) -> Result<Value, String> {
        let Value::Str(text) = value else {
            return Err(format!("type '{}' cannot be parsed as regex", value.go_type()));
        };
        if let Some(known) = self.cache.as_ref().and_then(|cache| cache.known.get(text)) {
            return Ok(Value::Map(known.clone()));
        }
        let Some(map) = self.matcher.groups(text) else { return Err("regex pattern does not match".to_owned()) };
        if let Some(cache) = &mut self.cache {
            cache.put(text, &map);
        }
        Ok(Value::Map(map))
    }
}

/// The parts of a URI.
pub(super) struct Uri;

impl Parse for Uri {
    fn parse(&mut self, value: &Value, _: &Entry) -> Result<Value, String> {
        let Value::Str(text) = value else {
            return Err(format!("type '{}' cannot be parsed as URI", value.go_type()));
        };
        let mut map = Map::default();
        if let Some(query) = text.strip_prefix(b"?") {
            put_query(parse_query(query)?, &mut map);
            return Ok(Value::Map(map));
        }
        let uri = parse_request_uri(text).map_err(|error| format!("parse {:?}: {error}", text.lossy()))?;
        let user = uri.user.map(|(name, _)| name).unwrap_or_default();
        for (name, part) in
            [("scheme", uri.scheme), ("user", user), ("host", uri.host_name), ("port", uri.port), ("path", uri.path)]
        {
            if !part.is_empty() {
                map.put(Text::of(name), Value::str(part));
            }
        }
        // Pairs that are not readable are left out.
        let pairs = uri.query.split(|byte| *byte == b'&').filter_map(|pair| parse_query(pair).ok()).flatten();
        put_query(pairs.collect(), &mut map);
        Ok(Value::Map(map))
    }
}

fn put_query(pairs: Vec<corten_golang::QueryPair>, map: &mut Map) {
    let mut query = Map::default();
    for (key, value) in pairs {
        let key = Text::from(key);
        match query.get_mut(&key) {
            Some(Value::List(values)) => values.push(Value::str(value)),
            _ => query.put(key, Value::List(vec![Value::str(value)])),
        }
    }
    if !query.is_empty() {
        map.put(Text::of("query"), Value::Map(query));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_texts_has_a_bound_in_number_and_in_bytes() {
        let mut cache = Cache::new(3);
        for text in [&b"a"[..], b"b", b"c", b"d"] {
            cache.put(text, &Map::default());
        }
        assert_eq!((cache.order.len(), cache.known.len(), cache.bytes), (3, 3, 3));
        assert!(!cache.known.contains_key(&b"a"[..]));
        cache.put(&vec![b'x'; CACHE_BYTES_MAX - 1], &Map::default());
        assert_eq!((cache.known.len(), cache.bytes), (2, CACHE_BYTES_MAX));
        cache.put(&vec![b'x'; CACHE_BYTES_MAX + 1], &Map::default());
        assert_eq!(cache.known.len(), 2);
        cache.put(b"e", &Map::default());
        assert_eq!((cache.known.len(), cache.bytes), (2, CACHE_BYTES_MAX));
    }
}
