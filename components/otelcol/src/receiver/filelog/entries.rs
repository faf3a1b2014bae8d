//! From what was read to entries, and from entries to log records.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::path::{Path, PathBuf};

use corten_files::tail::{Chunk, Encoding};
use corten_otlp::{Arena, Data, LogRecord, Map as OtlpMap, OfResource, OfScope, Pair, Value as OtlpValue};
use corten_signal::regex::GoRegex;
use corten_stanza::expr::go_text;
use corten_stanza::{Entry, Failure, Output, Pipeline, SEVERITY_NAMES, Template, Text, Value};
use parking_lot::Mutex;

/// How deep values of a record nest. What is deeper becomes a text.
const DEPTH_MAX: usize = 64;
/// How much of a file is looked at to find its header again, in bytes.
pub(super) const HEADER_BYTES_MAX: usize = 256 << 10;

/// How text is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// UTF-8. What is none becomes a replacement character.
    Utf8,
    /// UTF-8, or whatever it is.
    Raw,
    /// Bytes that are no text.
    Bytes,
    /// It was decoded when it was read.
    Other(Encoding),
}

impl Coding {
    /// The encoding of a name.
    pub(super) fn named(name: &str) -> Result<Self, String> {
        match name.to_ascii_lowercase().as_str() {
            "" | "utf-8" | "utf8" | "ascii" | "us-ascii" => Ok(Coding::Utf8),
            "utf-8-raw" | "utf8-raw" => Ok(Coding::Raw),
            "nop" => Ok(Coding::Bytes),
            // Here the name stands for the other order of bytes than in the registry.
            "utf-16" | "utf16" => Self::named("utf-16le"),
            other => {
                let encoding = Encoding::named(other).ok_or_else(|| format!("unsupported encoding '{name}'"))?;
                Ok(Coding::Other(encoding))
            }
        }
    }

    /// How files are read that are encoded so.
    pub(super) fn encoding(self) -> Encoding {
        match self {
            Coding::Other(encoding) => encoding,
            Coding::Utf8 | Coding::Raw | Coding::Bytes => Encoding::RAW,
        }
    }
}

/// Which attributes say where an entry is from.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Include {
    pub(super) name: bool,
    pub(super) path: bool,
    pub(super) name_resolved: bool,
    pub(super) path_resolved: bool,
    pub(super) owner: bool,
    pub(super) group: bool,
    pub(super) permissions: bool,
    pub(super) record_number: bool,
}

/// Reads the first lines of files.
pub(super) struct Header {
    pub(super) pattern: GoRegex,
    pub(super) pipeline: Mutex<Pipeline>,
}

/// Makes entries.
pub(super) struct Maker {
    pub(super) coding: Coding,
    pub(super) keeps_leading: bool,
    pub(super) keeps_trailing: bool,
    pub(super) include: Include,
    pub(super) attributes: Vec<(Text, Template)>,
    pub(super) resource: Vec<(Text, Template)>,
    pub(super) header: Option<Header>,
}

/// What is known of a file that entries come from.
#[derive(Clone, Debug, Default)]
pub(super) struct FileInfo {
    attributes: Vec<(Text, Value)>,
    /// Its next line may be one of the header.
    pub(super) in_header: bool,
    /// How many entries were read.
    pub(super) records: i64,
}

fn name_of(file: &str, id: u32) -> Option<String> {
    let table = std::fs::read_to_string(file).ok()?;
    table.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    })
}

impl Include {
    /// The attributes of a file.
    fn resolve(self, name: &str, metadata: Option<&Metadata>) -> Result<Vec<(Text, Value)>, String> {
        let base = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut attributes = Vec::new();
        let mut put = |name: &'static str, value: String| attributes.push((Text::of(name), Value::str(value)));
        if self.name {
            put("log.file.name", base(Path::new(name)));
        }
        if self.path {
            put("log.file.path", name.to_owned());
        }
        if self.name_resolved || self.path_resolved {
            let resolved: PathBuf =
                Path::new(name).canonicalize().map_err(|error| format!("resolve symlinks: {error}"))?;
            if self.name_resolved {
                put("log.file.name_resolved", base(&resolved));
            }
            if self.path_resolved {
                put("log.file.path_resolved", resolved.to_string_lossy().into_owned());
            }
        }
        #[cfg(unix)]
        if let Some(metadata) = metadata {
            use std::os::unix::fs::MetadataExt as _;
            if self.owner {
                let unknown = || format!("resolve file owner name: user: unknown userid {}", metadata.uid());
                put("log.file.owner.name", name_of("/etc/passwd", metadata.uid()).ok_or_else(unknown)?);
            }
            if self.group {
                let unknown = || format!("resolve file group name: group: unknown groupid {}", metadata.gid());
                put("log.file.owner.group.name", name_of("/etc/group", metadata.gid()).ok_or_else(unknown)?);
            }
            if self.permissions {
                put("log.file.permissions", format!("{:03o}", metadata.mode() & 0o777));
            }
        }
        #[cfg(not(unix))]
        let _ = metadata;
        Ok(attributes)
    }
}

impl Maker {
    /// What is known of a file, which is read from a place on. `first` are its first bytes, where they are needed.
    pub(super) fn info(
        &self,
        name: &str,
        file: Option<&File>,
        offset: u64,
        first: impl FnOnce() -> Vec<u8>,
    ) -> Result<FileInfo, String> {
        let metadata = file.and_then(|file| file.metadata().ok());
        let attributes = self.include.resolve(name, metadata.as_ref())?;
        let mut info = FileInfo { attributes, in_header: self.header.is_some(), records: 0 };
        if self.header.is_some() && offset > 0 {
            let first = first();
            let first = &first[..first.len().min(usize::try_from(offset).unwrap_or(usize::MAX))];
            let (mut text, mut places) = (Vec::new(), Vec::new());
            match self.coding {
                Coding::Other(encoding) => encoding.decode_with_places(first, &mut text, &mut places),
                _ => text.extend_from_slice(first),
            }
            let mut rest = Text::from(text);
            while info.in_header && !rest.is_empty() {
                rest = self.without_header(&mut info, rest, &mut |_| {});
            }
            info.in_header = false;
        }
        Ok(info)
    }

    /// Takes the lines of a header from the front of a text.
    fn without_header(&self, info: &mut FileInfo, mut text: Text, tell: &mut dyn FnMut(Failure<'_>)) -> Text {
        let Some(header) = &self.header else { return text };
        while info.in_header && !text.is_empty() {
            let end = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
            let line = trimmed(&text.part(0..end), |byte| matches!(byte, b'\r' | b'\n'), true, true);
            if !header.pattern.is_match(&line.lossy()) {
                info.in_header = false;
                break;
            }
            let mut out = Output { on_failure: Some(tell), ..Output::default() };
            let mut pipeline = header.pipeline.lock();
            pipeline.run([Entry::of(Value::Str(line), 0)], &corten_signal::Acks::NONE, &mut out);
            pipeline.flush(u64::MAX, true, &mut out);
            for entry in out.entries {
                let Value::Map(attributes) = entry.attributes else { continue };
                for (name, value) in attributes {
                    match info.attributes.iter_mut().find(|(known, _)| *known == name) {
                        Some((_, known)) => *known = value,
                        None => info.attributes.push((name, value)),
                    }
                }
            }
            text = text.part((end + 1).min(text.len())..text.len());
        }
        text
    }

    /// The entries of what was read, and how many lines are none because they are empty.
    pub(super) fn entries(
        &self,
        chunk: &Chunk,
        info: &mut FileInfo,
        observed_ns: u64,
        tell: &mut dyn FnMut(Failure<'_>),
    ) -> (Vec<Entry>, usize) {
        let mut empty = 0;
        let mut entries = Vec::with_capacity(chunk.lines.len());
        let whole = Text::from(chunk.text.clone());
        for line in &chunk.lines {
            let start = line.at as usize;
            let mut text = whole.part(start..start + line.len as usize);
            if info.in_header {
                text = self.without_header(info, text, tell);
                if info.in_header || text.is_empty() {
                    continue;
                }
            }
            info.records += 1;
            let body = self.body(text);
            let is_empty = match &body {
                Value::Str(text) => text.is_empty(),
                Value::Bytes(bytes) => bytes.is_empty(),
                _ => false,
            };
            if is_empty {
                empty += 1;
                continue;
            }
            let mut entry = Entry::of(body, observed_ns);
            self.mark(&mut entry, info, tell);
            entries.push(entry);
        }
        (entries, empty)
    }

    fn body(&self, text: Text) -> Value {
        if self.coding == Coding::Bytes {
            return Value::Bytes(text.bytes().clone());
        }
        let is_space = |byte: u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        let text = trimmed(&text, is_space, !self.keeps_leading, !self.keeps_trailing);
        if self.coding == Coding::Utf8 && std::str::from_utf8(&text).is_err() {
            // A sign for each byte, as Go has it.
            return Value::str(corten_golang::map(&text, |c| c));
        }
        Value::Str(text)
    }

    /// Says where an entry is from.
    fn mark(&self, entry: &mut Entry, info: &FileInfo, tell: &mut dyn FnMut(Failure<'_>)) {
        for (templates, of_resource) in [(&self.attributes, false), (&self.resource, true)] {
            for (name, template) in templates {
                match template.render(entry) {
                    Ok(text) if of_resource => entry.resource_mut().put(name.clone(), Value::Str(text)),
                    Ok(text) => entry.attributes_mut().put(name.clone(), Value::Str(text)),
                    Err(error) => {
                        let name = name.lossy();
                        let error = format!("{name}: {error}");
                        let action = corten_stanza::OnError::Send;
                        tell(Failure { operator: "file_input", kind: "file_input", action, error });
                    }
                }
            }
        }
        let attributes = entry.attributes_mut();
        for (name, value) in &info.attributes {
            attributes.put(name.clone(), value.clone());
        }
        if self.include.record_number {
            attributes.put(Text::of("log.file.record_number"), Value::Int(info.records));
        }
    }
}

/// A text without certain bytes at its ends.
fn trimmed(text: &Text, is: impl Fn(u8) -> bool, leading: bool, trailing: bool) -> Text {
    let mut range = 0..text.len();
    while trailing && range.end > 0 && is(text[range.end - 1]) {
        range.end -= 1;
    }
    while leading && range.start < range.end && is(text[range.start]) {
        range.start += 1;
    }
    text.part(range)
}

/// A value in an arena.
fn value(arena: &mut Arena, from: &Value, depth: usize) -> OtlpValue {
    match from {
        Value::Null => OtlpValue::Empty,
        Value::Bool(value) => OtlpValue::Bool(*value),
        Value::Int(value) => OtlpValue::Int(*value),
        Value::Float(value) => OtlpValue::Double(*value),
        Value::Str(text) => OtlpValue::Str(arena.own(text)),
        Value::Bytes(bytes) => OtlpValue::Bytes(arena.own(bytes)),
        Value::Time(_) => OtlpValue::Str(arena.own(go_text(from).as_bytes())),
        Value::List(_) | Value::Map(_) if depth == 0 => OtlpValue::Str(arena.own(go_text(from).as_bytes())),
        Value::List(list) => {
            let values: Vec<OtlpValue> = list.iter().map(|from| value(arena, from, depth - 1)).collect();
            OtlpValue::List(arena.list(&values))
        }
        Value::Map(_) => OtlpValue::Map(map(arena, from, depth - 1)),
    }
}

fn map(arena: &mut Arena, from: &Value, depth: usize) -> OtlpMap {
    let Value::Map(from) = from else { return OtlpMap::default() };
    let pairs: Vec<Pair> =
        from.iter().map(|(key, of)| Pair { key: arena.own(key), value: value(arena, of, depth) }).collect();
    arena.map(&pairs)
}

fn id<const N: usize>(bytes: Option<&Vec<u8>>) -> [u8; N] {
    let mut id = [0; N];
    if let Some(bytes) = bytes {
        let len = bytes.len().min(N);
        id[..len].copy_from_slice(&bytes[..len]);
    }
    id
}

fn record(arena: &mut Arena, entry: &Entry) -> LogRecord {
    let severity_text: &[u8] = match (&*entry.severity_text, entry.severity) {
        (b"", 1..) => SEVERITY_NAMES.get(usize::from(entry.severity)).map_or(b"", |name| name.as_bytes()),
        (text, _) => text,
    };
    LogRecord {
        time_ns: entry.timestamp.map_or(0, |time| time.unix_ns() as u64),
        observed_time_ns: entry.observed_ns,
        severity: i32::from(entry.severity),
        severity_text: arena.own(severity_text),
        body: value(arena, &entry.body, DEPTH_MAX),
        attributes: map(arena, &entry.attributes, DEPTH_MAX),
        flags: entry.trace_flags.as_ref().and_then(|flags| flags.first()).map_or(0, |flags| u32::from(*flags)),
        trace_id: id(entry.trace_id.as_ref()),
        span_id: id(entry.span_id.as_ref()),
        ..LogRecord::default()
    }
}

/// Finds the group of a resource among those that there are.
#[derive(Default)]
struct Groups {
    resources: Vec<Value>,
    /// Where there are many, by what they say.
    by_text: HashMap<String, usize>,
}

impl Groups {
    fn of(&mut self, resource: &Value, last: usize) -> Option<usize> {
        if self.resources.get(last) == Some(resource) {
            return Some(last);
        }
        self.by_text.get(&go_text(resource)).copied().filter(|at| self.resources[*at] == *resource)
    }

    fn add(&mut self, resource: &Value) -> usize {
        let at = self.resources.len();
        self.resources.push(resource.clone());
        self.by_text.insert(go_text(resource), at);
        at
    }
}

/// The log records of entries, by resources and scopes, each in the order in which they came.
pub(super) fn data(entries: &[Entry]) -> Data<LogRecord> {
    let mut data = Data::<LogRecord>::default();
    let mut groups = Groups::default();
    let mut scopes: HashMap<(usize, Text), usize> = HashMap::new();
    let (mut last, mut last_scope, mut last_name) = (0, 0, None);
    for entry in entries {
        let at = match groups.of(&entry.resource, last) {
            Some(at) => at,
            None => {
                let mut of = OfResource::default();
                of.resource.attributes = map(&mut data.arena, &entry.resource, DEPTH_MAX);
                data.resources.push(of);
                groups.add(&entry.resource)
            }
        };
        if at != last || last_name != Some(&entry.scope_name) {
            let count = data.resources[at].scopes.len();
            last_scope = *scopes.entry((at, entry.scope_name.clone())).or_insert(count);
            if last_scope == count {
                let mut scope = OfScope::default();
                scope.scope.name = data.arena.own(&entry.scope_name);
                data.resources[at].scopes.push(scope);
            }
            (last, last_name) = (at, Some(&entry.scope_name));
        }
        let made = record(&mut data.arena, entry);
        data.resources[at].scopes[last_scope].records.push(made);
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_ever_new_scopes_are_put_together_in_no_time() {
        let entries: Vec<Entry> = (0..200_000)
            .map(|number| {
                let mut entry = Entry::of(Value::Int(number), 1);
                entry.scope_name = Text::from((number % 100_000).to_string());
                entry
            })
            .collect();
        let began = std::time::Instant::now();
        let data = data(&entries);
        assert_eq!((data.resources.len(), data.resources[0].scopes.len()), (1, 100_000));
        assert!(data.resources[0].scopes.iter().all(|scope| scope.records.len() == 2));
        // Looking at each name for each record took minutes.
        assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
    }
}
