//! Making maps of texts, and texts of maps.

use std::collections::HashMap;

use corten_golang::{parse_float, parse_int, parse_query, parse_url};
use corten_otlp::{Arena, Map as Pairs, Pair, Value};
use corten_signal::regex::{Groups, Lossy};

use super::Kind::{Any, ConstBool, ConstText, ConstTexts, Map, Text};
use super::{
    Arg, Function, Got, Last, Prepared, Refused, const_text, const_texts, optional, own, param, plain, regex_at,
};
use crate::error::EvalError;
use crate::grok::{Definitions, Grok, Kind};
use crate::item::Item;
use crate::json;
use crate::program::{Call, Ex};
use crate::user_agent;
use crate::value::{Const, Val};
use crate::xml::{self, Element, Node};

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "ExtractPatterns",
        params: &[param("target", Text), param("pattern", Text)],
        prepare: |args| {
            let prepared = regex_at::<1>(args)?;
            match &prepared {
                Prepared::Regex(regex) if regex.group_names().all(|name| name.is_none()) => {
                    Err((1, "the pattern needs at least one named group, as (?P<name>...)".to_owned()))
                }
                _ => Ok(prepared),
            }
        },
        run: |call, item| {
            let regex = call.pattern(1, item)?;
            if regex.group_names().all(|name| name.is_none()) {
                return Err("at least 1 named capture group must be supplied in the given regex".into());
            }
            let value = call.text(0, item)?;
            let text = value.text(item.arena).unwrap_or_default();
            let (mut lossy, mut groups) = (Lossy::new(), Groups::new());
            let mut map = Pairs::default();
            if !regex.captures_bytes(text, &mut lossy, &mut groups) {
                return Ok(Val::Map(map));
            }
            let text = text.to_vec();
            for (at, name) in regex.group_names().enumerate() {
                let Some(name) = name else { continue };
                let found = groups.get(at + 1).map(|range| &text[range]).unwrap_or_default();
                let found = own(item.arena, found);
                item.arena.put(&mut map, name.as_bytes(), found);
            }
            Ok(Val::Map(map))
        },
    },
    Function {
        name: "ExtractGrokPatterns",
        params: &[
            param("target", Text),
            param("pattern", Text),
            optional("named_captures_only", ConstBool),
            optional("pattern_definitions", ConstTexts),
        ],
        prepare: |args| {
            let definitions = const_texts(args, 3).unwrap_or_default();
            let definitions: Vec<_> = definitions.into_iter().map(String::from_utf8_lossy).collect();
            let definitions = Definitions::new(&definitions).map_err(|what| (3, what))?;
            let named_only = matches!(&args[2], Some(Arg::One(Ex::Const(Const::Bool(true)))));
            let Some(pattern) = const_text(args, 1) else {
                return Ok(Prepared::LastGrok(Last::default(), definitions, named_only));
            };
            let grok = Grok::new(&String::from_utf8_lossy(pattern), &definitions, named_only);
            grok.map(|grok| Prepared::Grok(Box::new(grok))).map_err(|what| (1, what))
        },
        run: extract_grok,
    },
    Function {
        name: "ParseJSON",
        params: &[param("target", Text)],
        prepare: plain,
        run: |call, item| {
            let text = call.owned(0, item)?;
            match json::read(&text, item.arena)? {
                Value::Map(map) => Ok(Val::Map(map)),
                Value::List(list) => Ok(Val::List(list)),
                other => {
                    let name = Val::from(other).type_name();
                    Err(format!("could not convert parsed value of type {name} to JSON object").into())
                }
            }
        },
    },
    Function {
        name: "ParseKeyValue",
        params: &[param("target", Text), optional("delimiter", ConstText), optional("pair_delimiter", ConstText)],
        prepare: delimiters,
        run: |call, item| {
            let text = call.owned(0, item)?;
            if text.is_empty() {
                return Err("cannot parse from empty target".into());
            }
            let pairs = corten_golang::split_quoted(&text, call.const_text(2).unwrap_or(b" "))?;
            let delimiter = call.const_text(1).unwrap_or(b"=");
            let mut map = Pairs::default();
            for pair in &pairs {
                let Some(at) = super::lists::find(pair, delimiter) else {
                    let pair = String::from_utf8_lossy(pair);
                    return Err(
                        format!("failed to split pairs into key-values: cannot split {pair:?} into 2 items").into()
                    );
                };
                let value = own(item.arena, trimmed(&pair[at + delimiter.len()..]));
                item.arena.put(&mut map, trimmed(&pair[..at]), value);
            }
            Ok(Val::Map(map))
        },
    },
    Function {
        name: "ToKeyValueString",
        params: &[
            param("target", Map),
            optional("delimiter", ConstText),
            optional("pair_delimiter", ConstText),
            optional("sort_output", ConstBool),
        ],
        prepare: delimiters,
        run: |call, item| {
            let map = call.map(0, item)?;
            let (delimiter, between) = (call.const_text(1).unwrap_or(b"="), call.const_text(2).unwrap_or(b" "));
            let arena = &*item.arena;
            let mut pairs: Vec<&Pair> = arena.pairs(map).iter().collect();
            if call.const_bool(3) == Some(true) {
                pairs.sort_by(|a, b| arena.bytes(a.key).cmp(arena.bytes(b.key)));
            }
            let quoted = |text: &[u8]| {
                let mut escaped = Vec::with_capacity(text.len() + 2);
                for byte in text {
                    if *byte == b'"' {
                        escaped.push(b'\\');
                    }
                    escaped.push(*byte);
                }
                let has = |what: &[u8]| super::lists::find(&escaped, what).is_some();
                if has(between) || has(delimiter) {
                    escaped.insert(0, b'"');
                    escaped.push(b'"');
                }
                escaped
            };
            let texts: Vec<Vec<u8>> = pairs
                .into_iter()
                .map(|pair| {
                    let mut value = Vec::new();
                    arena.write_text(pair.value, &mut value);
                    [&*quoted(arena.bytes(pair.key)), delimiter, &quoted(&value)].concat()
                })
                .collect();
            Ok(Val::from(texts.join(between)))
        },
    },
    Function {
        name: "ParseXML",
        params: &[param("target", Text)],
        prepare: plain,
        run: |call, item| {
            let text = call.owned(0, item)?;
            let (element, len) = xml::first(&String::from_utf8_lossy(&text))?;
            if len != text.len() {
                return Err("trailing bytes after parsing xml".into());
            }
            Ok(Val::Map(element_map(item.arena, &element)))
        },
    },
    Function {
        name: "ParseSimplifiedXML",
        params: &[param("target", Text)],
        prepare: plain,
        run: |call, item| {
            let text = call.owned(0, item)?;
            let top = xml::all(&String::from_utf8_lossy(&text))?;
            Ok(Val::Map(simplified(item.arena, &top)))
        },
    },
    Function { name: "URL", params: &[param("uri", Text)], prepare: plain, run: url },
    Function { name: "UserAgent", params: &[param("user_agent", Text)], prepare: plain, run: user_agent },
    Function {
        name: "ParseSeverity",
        params: &[param("target", Any), param("mapping", Map)],
        prepare: |args| match &args[1] {
            Some(Arg::One(Ex::Const(Const::Map(mapping)))) => severities(mapping).map_err(|what| (1, what)),
            _ => Err((1, "the mapping must be written in the statement".to_owned())),
        },
        run: |call, item| {
            let Prepared::Severities(severities) = &call.prepared else { return Err("there is no mapping".into()) };
            let value = call.any(0, item)?;
            for (name, severity) in severities {
                let matches = match &value {
                    Val::Int(value) => severity.ranges.iter().any(|(min, max)| (min..=max).contains(&value)),
                    value => match value.text(item.arena) {
                        Some(text) => severity.texts.iter().any(|known| **known == *text),
                        None => {
                            return Err(format!(
                                "could not map log level: unsupported value type: {}",
                                value.type_name()
                            )
                            .into());
                        }
                    },
                };
                if matches {
                    return Ok(Val::Str(std::borrow::Cow::Borrowed(name.as_bytes())));
                }
            }
            let shown = value.text_like(item.arena)?.unwrap_or_default();
            let shown = String::from_utf8_lossy(&shown);
            Err(format!("could not map log level: no matching log level found for value '{shown}'").into())
        },
    },
];

fn extract_grok<'p>(call: &'p Call, item: &mut Item<'_>) -> Got<'p> {
    let last;
    let grok = match &call.prepared {
        Prepared::Grok(grok) => &**grok,
        Prepared::LastGrok(known, definitions, named_only) => {
            last = known.of(&call.owned(1, item)?, |pattern| Grok::new(pattern, definitions, *named_only))?;
            &*last
        }
        _ => return Err("there is no pattern".into()),
    };
    let text = call.owned(0, item)?;
    let (mut lossy, mut groups) = (Lossy::new(), Groups::new());
    let mut map = Pairs::default();
    if !grok.regex.captures_bytes(&text, &mut lossy, &mut groups) {
        return Ok(Val::Map(map));
    }
    for (at, name, kind) in &grok.groups {
        let Some(found) = groups.get(*at).map(|range| &text[range]).filter(|found| !found.is_empty()) else { continue };
        let wrong = || EvalError::new(format!("{name}: {:?} has another type", String::from_utf8_lossy(found)));
        let value = match kind {
            Kind::Text => own(item.arena, found),
            Kind::Int => Value::Int(parse_int(found, 10).map_err(|_| wrong())?),
            Kind::Double => Value::Double(parse_float(found).map_err(|_| wrong())?),
            Kind::Bool => Value::Bool(super::parse_bool(found).ok_or_else(wrong)?),
            Kind::Unknown => return Err(format!("there is no such type as {name} is to have").into()),
        };
        item.arena.put(&mut map, name.as_bytes(), value);
    }
    Ok(Val::Map(map))
}

/// An element as attributes: its name, its text, its attributes and what it contains.
fn element_map(arena: &mut Arena, element: &Element) -> Pairs {
    let mut pairs = vec![Pair { key: arena.own(b"tag"), value: arena.own_str(&element.name.local) }];
    let texts = element.children.iter().filter_map(|node| match node {
        Node::Text(text) | Node::Data(text) => Some(text.trim()),
        _ => None,
    });
    let content: String = texts.collect();
    if !content.is_empty() {
        pairs.push(Pair { key: arena.own(b"content"), value: arena.own_str(&content) });
    }
    if !element.attributes.is_empty() {
        let mut map = Pairs::default();
        for (name, value) in &element.attributes {
            let value = arena.own_str(value);
            arena.put(&mut map, name.local.as_bytes(), value);
        }
        pairs.push(Pair { key: arena.own(b"attributes"), value: Value::Map(map) });
    }
    let mut children = Vec::new();
    for node in &element.children {
        if let Node::Element(child) = node {
            children.push(Value::Map(element_map(arena, child)));
        }
    }
    if !children.is_empty() {
        let children = Value::List(arena.list(&children));
        pairs.push(Pair { key: arena.own(b"children"), value: children });
    }
    arena.map(&pairs)
}

/// Elements as attributes that are named after them; several of a name as a list.
fn simplified(arena: &mut Arena, parent: &Element) -> Pairs {
    let children = || {
        parent.children.iter().filter_map(|node| match node {
            Node::Element(child) => Some(child),
            _ => None,
        })
    };
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for child in children() {
        *counts.entry(&child.name.local).or_default() += 1;
    }
    let mut found: Vec<(&str, Vec<Value>)> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for child in children() {
        // What is said about a document does not count.
        let mut content =
            child.children.iter().filter(|node| matches!(node, Node::Element(_) | Node::Text(_) | Node::Data(_)));
        let first = content.next();
        if first.is_none() {
            continue;
        }
        let has_elements = child.children.iter().any(|node| matches!(node, Node::Element(_)));
        let leaf = match first {
            Some(Node::Text(text) | Node::Data(text)) if !has_elements => &**text,
            _ => "",
        };
        let value = if leaf.is_empty() {
            let inner = simplified(arena, child);
            (!inner.is_empty()).then_some(Value::Map(inner))
        } else {
            Some(arena.own_str(leaf))
        };
        let name = &*child.name.local;
        let several = counts.get(name).is_some_and(|count| *count > 1);
        // Of several, there is a list even if all are empty.
        if value.is_some() || several {
            let place = *places.entry(name).or_insert(found.len());
            if place == found.len() {
                found.push((name, Vec::new()));
            }
            found[place].1.extend(value);
        }
    }
    let pairs: Vec<Pair> = found
        .into_iter()
        .map(|(name, values)| {
            let value = match (counts.get(name), values.first()) {
                (Some(1), Some(value)) => *value,
                _ => Value::List(arena.list(&values)),
            };
            Pair { key: arena.own(name.as_bytes()), value }
        })
        .collect();
    arena.map(&pairs)
}

fn user_agent<'p>(call: &'p Call, item: &mut Item<'_>) -> Got<'p> {
    let original = call.owned(0, item)?;
    let mut lossy = Lossy::new();
    let (text, _) = lossy.text(&original);
    let (program, system) = (user_agent::program(text), user_agent::system(text));
    let mut map = Pairs::default();
    let fields = [
        ("user_agent.name", program.name.as_bytes()),
        ("user_agent.original", &original),
        ("user_agent.version", program.version.as_bytes()),
        ("os.name", system.name.as_bytes()),
        ("os.version", system.version.as_bytes()),
    ];
    // Only the version of the operating system is left out where it is not known.
    for (key, value) in fields.into_iter().filter(|(key, value)| *key != "os.version" || !value.is_empty()) {
        let value = own(item.arena, value);
        item.arena.put(&mut map, key.as_bytes(), value);
    }
    Ok(Val::Map(map))
}

fn url<'p>(call: &'p Call, item: &mut Item<'_>) -> Got<'p> {
    let text = call.owned(0, item)?;
    if text.is_empty() {
        return Err("url cannot be empty".into());
    }
    let arena = &mut *item.arena;
    let mut map = Pairs::default();
    if let Some(query) = text.strip_prefix(b"?") {
        let mut values: Vec<(Vec<u8>, Vec<Value>)> = Vec::new();
        for (key, value) in parse_query(query)? {
            let value = own(arena, &value);
            match values.iter_mut().find(|(known, _)| *known == key) {
                Some((_, values)) => values.push(value),
                None => values.push((key, vec![value])),
            }
        }
        let mut parameters = Pairs::default();
        for (key, values) in values {
            let values = Value::List(arena.list(&values));
            arena.put(&mut parameters, &key, values);
        }
        if !parameters.is_empty() {
            arena.put(&mut map, b"query", Value::Map(parameters));
        }
        return Ok(Val::Map(map));
    }
    let url = parse_url(&text)?;
    let mut put = |key: &str, value: &[u8]| {
        let value = own(arena, value);
        arena.put(&mut map, key.as_bytes(), value);
    };
    put("url.original", &url.text);
    put("url.domain", &url.host_name);
    put("url.scheme", &url.scheme);
    put("url.path", &url.path);
    if !url.fragment.is_empty() {
        put("url.fragment", &url.fragment);
    }
    if let Some((name, password)) = &url.user {
        put("url.user_info", &url.user_text);
        if !name.is_empty() {
            put("url.username", name);
        }
        if let Some(password) = password {
            put("url.password", password);
        }
    }
    if !url.query.is_empty() {
        put("url.query", &url.query);
    }
    if let Some(at) = url.path.iter().rposition(|byte| *byte == b'.')
        && at + 1 < url.path.len()
    {
        put("url.extension", &url.path[at + 1..]);
    }
    if !url.port.is_empty() {
        let port = parse_int(&url.port, 10).map_err(|_| "the port is out of range")?;
        arena.put(&mut map, b"url.port", Value::Int(port));
    }
    Ok(Val::Map(map))
}

/// What a severity is found by.
#[derive(Debug)]
pub(crate) struct Severity {
    texts: Vec<Box<[u8]>>,
    ranges: Vec<(i64, i64)>,
}

fn severities(mapping: &[(Box<[u8]>, Const)]) -> Result<Prepared, String> {
    let mut severities = Vec::new();
    for (name, criteria) in mapping {
        let Const::List(criteria) = criteria else { return Err("each severity has a list of criteria".to_owned()) };
        let mut severity = Severity { texts: Vec::new(), ranges: Vec::new() };
        for one in criteria {
            let Const::Map(one) = one else { return Err("each of the criteria is a map".to_owned()) };
            let get = |key: &str, map: &[(Box<[u8]>, Const)]| {
                map.iter().find(|(known, _)| **known == *key.as_bytes()).map(|(_, value)| value.clone())
            };
            match get("equals", one) {
                None => {}
                Some(Const::List(texts)) => {
                    for text in texts {
                        let Const::Text(text) = text else { return Err("equals values must be strings".to_owned()) };
                        severity.texts.push(text);
                    }
                }
                Some(_) => return Err("equals must be a list".to_owned()),
            }
            match get("range", one) {
                None => {}
                Some(Const::Map(range)) => {
                    let end = |key: &str| match get(key, &range) {
                        Some(Const::Int(value)) => Ok(value),
                        Some(_) => Err(format!("{key} must be a whole number")),
                        None => Err(format!("range must have a {key} value")),
                    };
                    severity.ranges.push((end("min")?, end("max")?));
                }
                Some(Const::Text(text)) => severity.ranges.push(match &*text {
                    b"2xx" => (200, 299),
                    b"3xx" => (300, 399),
                    b"4xx" => (400, 499),
                    b"5xx" => (500, 599),
                    text => return Err(format!("unknown range placeholder: {}", String::from_utf8_lossy(text))),
                }),
                Some(_) => return Err("range must be a map or a known placeholder string".to_owned()),
            }
        }
        severities.push((String::from_utf8_lossy(name).into_owned(), severity));
    }
    Ok(Prepared::Severities(severities))
}

/// Two delimiters that can be told apart, as arguments 1 and 2.
fn delimiters(args: &[Option<Arg>]) -> Result<Prepared, Refused> {
    let (delimiter, between) = (const_text(args, 1).unwrap_or(b"="), const_text(args, 2).unwrap_or(b" "));
    if delimiter.is_empty() {
        return Err((1, "delimiter cannot be empty".to_owned()));
    }
    if between.is_empty() {
        return Err((2, "pair_delimiter cannot be empty".to_owned()));
    }
    if delimiter == between {
        return Err((2, "pair_delimiter cannot be the same as delimiter".to_owned()));
    }
    Ok(Prepared::Nothing)
}

/// A text without white space around it.
pub(super) fn trimmed(text: &[u8]) -> &[u8] {
    match std::str::from_utf8(text) {
        Ok(text) => text.trim().as_bytes(),
        Err(_) => text.trim_ascii(),
    }
}
