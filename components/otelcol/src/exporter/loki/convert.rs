//! From log records to lines of streams.

use corten_golang::logfmt::{push_text, push_value};
use corten_golang::push_hex;
use corten_otlp::{Arena, List, LogRecord, Map, OfResource, OfScope, Value};
use corten_signal::Stream;
use corten_signal::logs::StreamCache;
use corten_wire::float::go_float;

use super::json::{self, Shown};
use super::logfmt;
use crate::translate::chars;

/// Attributes by which whoever sends records says what becomes of them. They are no part of what the records say.
const ATTRIBUTE_LABELS: &[u8] = b"loki.attribute.labels";
const RESOURCE_LABELS: &[u8] = b"loki.resource.labels";
const TENANT: &[u8] = b"loki.tenant";
const FORMAT: &[u8] = b"loki.format";
const HINTS: [&[u8]; 4] = [ATTRIBUTE_LABELS, RESOURCE_LABELS, TENANT, FORMAT];

const LEVEL: &[u8] = b"level";
/// The levels of severities, from 1 on.
const LEVELS: [&str; 24] = [
    "TRACE", "TRACE2", "TRACE3", "TRACE4", "DEBUG", "DEBUG2", "DEBUG3", "DEBUG4", "INFO", "INFO2", "INFO3", "INFO4",
    "WARN", "WARN2", "WARN3", "WARN4", "ERROR", "ERROR2", "ERROR3", "ERROR4", "FATAL", "FATAL2", "FATAL3", "FATAL4",
];

/// How many names of labels a hint has at most; more are not looked at.
const NAMES_MAX: usize = 128;
/// How many parts a name has at most that is looked for in attributes within attributes.
const NAME_PARTS_MAX: usize = 16;

/// Labels with the names of the attributes that they are made of, in the order in which these were first named.
#[derive(Default)]
struct Labels {
    text: Vec<u8>,
    /// Where names begin, where they end and values begin, and where those end.
    list: Vec<(usize, usize, usize)>,
}

impl Labels {
    fn name(&self, at: usize) -> &[u8] {
        let (start, middle, _) = self.list[at];
        &self.text[start..middle]
    }

    fn has(&self, name: &[u8]) -> bool {
        (0..self.list.len()).any(|at| self.name(at) == name)
    }

    /// Sets a label to what is written.
    fn set(&mut self, name: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.text.len();
        self.text.extend_from_slice(name);
        let middle = self.text.len();
        write(&mut self.text);
        let label = (start, middle, self.text.len());
        match (0..self.list.len()).find(|at| self.name(*at) == name) {
            Some(at) => self.list[at] = label,
            None => self.list.push(label),
        }
    }

    /// Becomes a copy of others.
    fn copy(&mut self, other: &Labels) {
        self.text.clone_from(&other.text);
        self.list.clone_from(&other.list);
    }

    /// Writes what the stream of these labels depends on.
    fn write_key(&self, out: &mut Vec<u8>) {
        for (start, middle, end) in &self.list {
            out.extend_from_slice(&self.text[*start..*end]);
            for len in [middle - start, end - middle] {
                out.extend_from_slice(&(len as u32).to_le_bytes());
            }
        }
    }

    fn stream(&self) -> Result<Stream, String> {
        // Where two names become one it is the last that counts; in the reference any of them.
        let mut order: Vec<usize> = (0..self.list.len()).collect();
        order.sort_by_key(|at| self.name(*at));
        let labels = order.into_iter().map(|at| {
            let (_, middle, end) = self.list[at];
            Ok((label_name(self.name(at))?, String::from_utf8_lossy(&self.text[middle..end])))
        });
        let labels = labels.collect::<Result<Vec<_>, String>>()?;
        Stream::of(labels.iter().map(|(name, value)| (&**name, &**value))).map_err(|error| error.to_string())
    }
}

/// The name of a label that is made of an attribute's.
///
/// # Errors
///
/// Nothing is left of the name.
fn label_name(name: &[u8]) -> Result<String, String> {
    if name.is_empty() {
        return Err("label name is empty".to_owned());
    }
    let reserved = name.strip_prefix(b"__").and_then(|name| name.strip_suffix(b"__"));
    let mut label = String::with_capacity(name.len());
    for char in chars(reserved.unwrap_or(name)) {
        if char.is_ascii_alphanumeric() {
            label.push(char);
        } else if !label.ends_with('_') {
            label.push('_');
        }
    }
    if reserved.is_some() {
        label = format!("__{label}__");
    } else if label.starts_with(|first: char| first.is_ascii_digit()) {
        label.insert_str(0, "key_");
    }
    if label.bytes().all(|byte| byte == b'_') {
        return Err(format!(
            "normalization for label name {} resulted in invalid name {}",
            corten_syntax::quote(&String::from_utf8_lossy(name)),
            corten_syntax::quote(&label)
        ));
    }
    Ok(label)
}

/// What a record becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Json,
    Logfmt,
    Raw,
}

/// What the records of a resource and a scope have in common.
pub(super) struct Common<'a> {
    arena: &'a Arena,
    resource: Map,
    scope: &'a OfScope<LogRecord>,
    /// The labels of records that do not say otherwise.
    labels: Labels,
    /// The resource in JSON, once it was written.
    resource_json: Option<ResourceJson>,
    /// The field of the scope in JSON.
    scope_json: Result<Vec<u8>, String>,
}

/// A resource in JSON, of records whose labels have these names besides those of all: they are left out of it.
struct ResourceJson {
    names: Vec<Box<[u8]>>,
    json: Vec<u8>,
}

/// Converts records, and remembers streams.
#[derive(Default)]
pub(super) struct Converter {
    streams: StreamCache,
    labels: Labels,
    key: Vec<u8>,
    line: Vec<u8>,
}

impl<'a> Common<'a> {
    pub(super) fn new(arena: &'a Arena, of: &OfResource<LogRecord>, scope: &'a OfScope<LogRecord>) -> Self {
        let resource = of.resource.attributes;
        let mut labels = Labels::default();
        labels.set(b"exporter", |out| out.extend_from_slice(b"OTLP"));
        let get = |key| arena.get(resource, key);
        if let Some(name) = get(b"service.name") {
            labels.set(b"job", |out| {
                if let Some(namespace) = get(b"service.namespace") {
                    arena.write_text(namespace, out);
                    out.push(b'/');
                }
                arena.write_text(name, out);
            });
        }
        if let Some(instance) = get(b"service.instance.id") {
            labels.set(b"instance", |out| arena.write_text(instance, out));
        }
        if let Some(hint) = get(RESOURCE_LABELS) {
            names(arena, hint, |name| promote(arena, resource, name, &mut labels));
        }
        Common { arena, resource, scope, labels, resource_json: None, scope_json: scope_json(arena, scope) }
    }

    /// The attributes that are left of some, where some became labels.
    fn left<'b>(&'b self, map: Map, labels: &'b Labels) -> impl Iterator<Item = (&'a [u8], Shown)> + 'b {
        let pairs = self.arena.pairs(map).iter();
        pairs
            .map(|pair| (self.arena.bytes(pair.key), Shown::Value(pair.value)))
            .filter(|(key, _)| !HINTS.contains(key) && !labels.has(key))
    }

    /// The attributes that are left of a record, and its level where that is not among them.
    fn left_of<'b>(
        &'b self,
        record: &LogRecord,
        level: Option<&'static str>,
        labels: &'b Labels,
    ) -> impl Iterator<Item = (&'a [u8], Shown)> + 'b {
        let level = level.filter(|_| !labels.has(LEVEL)).map(|level| (LEVEL, Shown::Text(level)));
        self.left(record.attributes, labels).chain(level)
    }

    fn format(&self, record: &LogRecord) -> Result<Format, String> {
        let arena = self.arena;
        let hint = arena.get(self.resource, FORMAT).or_else(|| arena.get(record.attributes, FORMAT));
        let Some(hint) = hint else { return Ok(Format::Json) };
        match arena.to_text(hint).as_str() {
            "json" => Ok(Format::Json),
            "logfmt" => Ok(Format::Logfmt),
            "raw" => Ok(Format::Raw),
            other => Err(format!("invalid format {other}. Expected one of: json, logfmt, raw")),
        }
    }

    fn write_json(
        &mut self,
        record: &LogRecord,
        level: Option<&'static str>,
        labels: &Labels,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let arena = self.arena;
        out.push(b'{');
        if record.body != Value::Empty {
            push_field(out, "body");
            json::write(arena, record.body, out)?;
        }
        for (name, id) in [("traceid", &record.trace_id[..]), ("spanid", &record.span_id[..])] {
            if is_set(id) {
                push_field(out, name);
                out.push(b'"');
                push_hex(id, out);
                out.push(b'"');
            }
        }
        if !record.severity_text.is_empty() {
            push_field(out, "severity");
            json::push_string(arena.bytes(record.severity_text), out);
        }
        if record.flags != 0 {
            push_field(out, "flags");
            out.extend_from_slice(record.flags.to_string().as_bytes());
        }
        let attributes: Vec<_> = self.left_of(record, level, labels).collect();
        if !attributes.is_empty() {
            push_field(out, "attributes");
            json::write_object(arena, attributes, out)?;
        }
        self.write_resource(labels, out)?;
        let scope = self.scope_json.as_ref().map_err(Clone::clone)?;
        if !scope.is_empty() {
            push_field(out, "instrumentation_scope");
            out.extend_from_slice(scope);
        }
        out.push(b'}');
        Ok(())
    }

    /// Writes the field of the resource. The records of a resource mostly have the same labels, and then share it.
    fn write_resource(&mut self, labels: &Labels, out: &mut Vec<u8>) -> Result<(), String> {
        let further = self.labels.list.len()..labels.list.len();
        let is_known = self.resource_json.as_ref().is_some_and(|ResourceJson { names, .. }| {
            names.len() == further.len() && further.clone().zip(names).all(|(at, name)| labels.name(at) == &**name)
        });
        if !is_known {
            let mut json = Vec::new();
            let left: Vec<_> = self.left(self.resource, labels).collect();
            if !left.is_empty() {
                json::write_object(self.arena, left, &mut json)?;
            }
            let names = further.map(|at| labels.name(at).into()).collect();
            self.resource_json = Some(ResourceJson { names, json });
        }
        if let Some(ResourceJson { json, .. }) = &self.resource_json
            && !json.is_empty()
        {
            push_field(out, "resources");
            out.extend_from_slice(json);
        }
        Ok(())
    }

    fn write_logfmt(
        &self,
        record: &LogRecord,
        level: Option<&'static str>,
        labels: &Labels,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let arena = self.arena;
        let mut made: Vec<(&str, Vec<u8>)> = Vec::new();
        for (name, id) in [("traceID", &record.trace_id[..]), ("spanID", &record.span_id[..])] {
            if is_set(id) {
                let mut hex = Vec::new();
                push_hex(id, &mut hex);
                made.push((name, hex));
            }
        }
        if !record.severity_text.is_empty() {
            made.push(("severity", arena.bytes(record.severity_text).to_vec()));
        }
        if record.flags != 0 {
            made.push(("flags", record.flags.to_string().into_bytes()));
        }
        match record.body {
            Value::Empty => {}
            Value::Str(text) => match logfmt::read(arena.bytes(text)) {
                Some(pairs) => {
                    for (key, value) in pairs {
                        logfmt::write_key(&[key], out)?;
                        push_value(&value, out);
                    }
                }
                None => {
                    logfmt::write_key(&[b"msg"], out)?;
                    push_text(arena.bytes(text), out);
                }
            },
            Value::Map(_) | Value::List(_) => {
                let prefix: &[u8] = if matches!(record.body, Value::Map(_)) { b"" } else { b"body" };
                let mut write = |key: &[u8], value: Value, out: &mut Vec<u8>| {
                    // The fields of the record win over those of the body, in the places of the first of these.
                    match made.iter().position(|(name, _)| name.as_bytes() == key) {
                        Some(at) => {
                            logfmt::write_key(&[key], out)?;
                            push_text(&made.remove(at).1, out);
                            Ok(())
                        }
                        None => write_pair(arena, key, value, out),
                    }
                };
                flatten(arena, &mut prefix.to_vec(), record.body, &mut |key, value| write(key, value, out))?;
            }
            other => write_pair(arena, b"msg", other, out)?,
        }
        for (name, value) in made {
            logfmt::write_key(&[name.as_bytes()], out)?;
            push_text(&value, out);
        }
        let mut write = |prefix: &[u8], key: &[u8], value: Shown| match value {
            Shown::Text(text) => {
                logfmt::write_key(&[prefix, key], out)?;
                push_text(text.as_bytes(), out);
                Ok(())
            }
            Shown::Value(value) => {
                let mut path = [prefix, key].concat();
                flatten(arena, &mut path, value, &mut |key, value| write_pair(arena, key, value, out))
            }
        };
        for (key, value) in self.left_of(record, level, labels) {
            write(b"attribute_", key, value)?;
        }
        for (key, value) in self.left(self.resource, labels) {
            write(b"resource_", key, value)?;
        }
        let scope = &self.scope.scope;
        if !scope.name.is_empty() {
            let fields: [(&[u8], _); 2] =
                [(b"instrumentation_scope_name", scope.name), (b"instrumentation_scope_version", scope.version)];
            for (name, text) in fields.into_iter().filter(|(_, text)| !text.is_empty()) {
                write(b"", name, Shown::Value(Value::Str(text)))?;
            }
            for pair in arena.pairs(scope.attributes) {
                write(b"instrumentation_scope_attribute_", arena.bytes(pair.key), Shown::Value(pair.value))?;
            }
        }
        Ok(())
    }
}

fn scope_json(arena: &Arena, of: &OfScope<LogRecord>) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let scope = &of.scope;
    if scope.name.is_empty() {
        return Ok(out);
    }
    out.push(b'{');
    push_field(&mut out, "name");
    json::push_string(arena.bytes(scope.name), &mut out);
    if !scope.version.is_empty() {
        push_field(&mut out, "version");
        json::push_string(arena.bytes(scope.version), &mut out);
    }
    if !scope.attributes.is_empty() {
        push_field(&mut out, "attributes");
        json::write(arena, Value::Map(scope.attributes), &mut out)?;
    }
    out.push(b'}');
    Ok(out)
}

impl Converter {
    /// Converts a record that came now, in nanoseconds since the Unix epoch: its stream, time and line.
    ///
    /// # Errors
    ///
    /// Why it cannot be converted.
    pub(super) fn convert(
        &mut self,
        of: &mut Common<'_>,
        record: &LogRecord,
        now_ns: i64,
    ) -> Result<(Stream, i64, &[u8]), String> {
        let Converter { streams, labels, key, line } = self;
        let arena = of.arena;
        labels.copy(&of.labels);
        if let Some(hint) = arena.get(record.attributes, RESOURCE_LABELS) {
            names(arena, hint, |name| promote(arena, of.resource, name, labels));
        }
        let has_severity = record.severity != 0;
        let level = (has_severity && arena.get(record.attributes, LEVEL).is_none()).then(|| {
            let at = usize::try_from(record.severity).ok().and_then(|severity| severity.checked_sub(1));
            at.and_then(|at| LEVELS.get(at)).copied().unwrap_or_default()
        });
        let mut promote_own = |name: &[u8]| match level {
            Some(level) if name == LEVEL => labels.set(LEVEL, |out| out.extend_from_slice(level.as_bytes())),
            _ => promote(arena, record.attributes, name, labels),
        };
        let hint = arena.get(record.attributes, ATTRIBUTE_LABELS);
        if let Some(hint) = hint {
            names(arena, hint, &mut promote_own);
        }
        // The level becomes a label unless there is a hint that it cannot be added to.
        if has_severity && matches!(hint, None | Some(Value::Str(_) | Value::List(_))) {
            promote_own(LEVEL);
        }
        line.clear();
        match of.format(record)? {
            Format::Json => of.write_json(record, level, labels, line)?,
            Format::Logfmt => of.write_logfmt(record, level, labels, line)?,
            Format::Raw => arena.write_text(record.body, line),
        }
        key.clear();
        labels.write_key(key);
        let stream = streams.get_or_make(key, || labels.stream())?;
        let time_ns = [record.time_ns, record.observed_time_ns].into_iter().find(|time_ns| *time_ns != 0);
        Ok((stream, time_ns.map_or(now_ns, |time_ns| time_ns as i64), line))
    }

    #[cfg(test)]
    pub(super) fn streams(&self) -> usize {
        self.streams.len()
    }
}

/// The names that a hint names.
fn names(arena: &Arena, hint: Value, mut name: impl FnMut(&[u8])) {
    match hint {
        Value::Str(text) => {
            arena.bytes(text).split(|byte| *byte == b',').take(NAMES_MAX).for_each(|text| name(trimmed(text)));
        }
        Value::List(list) => {
            for value in arena.values(list).iter().take(NAMES_MAX) {
                match value {
                    Value::Empty => name(b"<nil>"),
                    Value::Double(double) => name(go_float(*double).as_bytes()),
                    Value::Str(text) => name(trimmed(arena.bytes(*text))),
                    other => name(arena.to_text(*other).as_bytes()),
                }
            }
        }
        other => name(arena.to_text(other).trim().as_bytes()),
    }
}

/// A text without the space around it.
fn trimmed(text: &[u8]) -> &[u8] {
    std::str::from_utf8(text).map_or_else(|_| text.trim_ascii(), |text| text.trim().as_bytes())
}

/// Makes a label of an attribute, if it is there.
fn promote(arena: &Arena, attributes: Map, name: &[u8], labels: &mut Labels) {
    if let Some(value) = find(arena, attributes, name, NAME_PARTS_MAX) {
        labels.set(name, |out| arena.write_text(value, out));
    }
}

/// The value of an attribute, or of one within an attribute: `a.b` is `b` of `a` if there is no `a.b`.
fn find(arena: &Arena, map: Map, name: &[u8], parts_max: usize) -> Option<Value> {
    if let Some(value) = arena.get(map, name) {
        return Some(value);
    }
    let dots: Vec<usize> = (0..name.len()).filter(|at| name[*at] == b'.').take(parts_max).collect();
    if dots.is_empty() || dots.len() == parts_max {
        return None;
    }
    // What each beginning of the name leads to. The longest one with something within decides about those that are longer.
    let mut found: Vec<Option<Value>> = Vec::with_capacity(dots.len());
    for (at, end) in dots.iter().copied().chain([name.len()]).enumerate() {
        let value = arena.get(map, &name[..end]).or_else(|| {
            let inner = (0..at).rev().find_map(|left| match found[left] {
                Some(Value::Map(inner)) => Some((left, inner)),
                _ => None,
            });
            let (left, inner) = inner?;
            find(arena, inner, &name[dots[left] + 1..end], parts_max)
        });
        found.push(value);
    }
    found.pop().flatten()
}

fn is_set(id: &[u8]) -> bool {
    id.iter().any(|byte| *byte != 0)
}

/// Begins a field of an object that is open.
fn push_field(out: &mut Vec<u8>, name: &str) {
    if !out.ends_with(b"{") {
        out.push(b',');
    }
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// Writes what stands at a path.
type Write<'w> = dyn FnMut(&[u8], Value) -> Result<(), String> + 'w;
/// Goes on with what stands within the value at a path.
type Within<'w> = dyn FnMut(&mut Vec<u8>, &[u8], Value) -> Result<(), String> + 'w;

/// Gives each value within a value the name of its path.
fn flatten(arena: &Arena, path: &mut Vec<u8>, value: Value, write: &mut Write<'_>) -> Result<(), String> {
    let len = path.len();
    let mut within = |path: &mut Vec<u8>, name: &[u8], value: Value| {
        if len > 0 {
            path.push(b'_');
        }
        path.extend_from_slice(name);
        let written = flatten(arena, path, value, write);
        path.truncate(len);
        written
    };
    match value {
        Value::Empty => Ok(()),
        Value::Map(map) => arena.pairs(map).iter().try_for_each(|pair| within(path, arena.bytes(pair.key), pair.value)),
        Value::List(list) => flatten_list(arena, list, path, &mut within),
        other => write(path, other),
    }
}

fn flatten_list(arena: &Arena, list: List, path: &mut Vec<u8>, within: &mut Within<'_>) -> Result<(), String> {
    let mut values = arena.values(list).iter().enumerate();
    values.try_for_each(|(at, value)| within(path, at.to_string().as_bytes(), *value))
}

/// Writes a pair of logfmt whose value has nothing within.
fn write_pair(arena: &Arena, key: &[u8], value: Value, out: &mut Vec<u8>) -> Result<(), String> {
    logfmt::write_key(&[key], out)?;
    match value {
        Value::Str(text) => push_text(arena.bytes(text), out),
        Value::Bytes(bytes) => push_value(arena.bytes(bytes), out),
        Value::Double(double) => push_value(go_float(double).as_bytes(), out),
        other => push_value(arena.to_text(other).as_bytes(), out),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::Value as Json;

    use super::*;

    #[test]
    fn names_of_attributes_become_names_of_labels() {
        let recorded = include_str!("../../../tests/data/translate.jsonl");
        let cases = recorded.lines().map(|line| serde_json::from_str::<Json>(line).unwrap());
        let case = cases.into_iter().find(|case| case["kind"] == "lokilabel").unwrap();
        for (name, want) in case["texts"].as_array().unwrap().iter().zip(case["want"].as_array().unwrap()) {
            match (label_name(name.as_str().unwrap().as_bytes()), want.get("err")) {
                (Ok(got), None) => assert_eq!(got, *want),
                (Err(got), Some(want)) => assert_eq!(got, *want),
                (got, _) => panic!("{name}: {got:?}, {want}"),
            }
        }
    }

    #[test]
    fn of_two_names_that_become_one_the_last_in_their_order_counts() {
        let mut labels = Labels::default();
        for (name, value) in [("a_b", "1"), ("a.b", "2"), ("a-b", "3")] {
            labels.set(name.as_bytes(), |out| out.extend_from_slice(value.as_bytes()));
        }
        assert_eq!(labels.stream().unwrap().canonical(), r#"{a_b="1"}"#);
    }
}
