//! `otelcol.processor.redaction`.

mod database;
mod json;
mod redis;
mod sql;
mod url;

use std::collections::HashSet;
use std::fmt::Write as _;

use corten_component::{Context, Error};
use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_config::decode::Secret;
use corten_config::schema::Stability;
use corten_golang::push_hex;
use corten_otlp::{Arena, Batch, LogRecord, Map, Metric, OtlpLogs, OtlpMetrics, Record, Span, Text, Traces, Value};
use corten_signal::ConsumeError;
use corten_signal::ledger::Pass;
use corten_signal::regex::{GoRegex, Groups, Lossy};
use md5::Digest as _;
use ring::{digest, hmac};

use self::database::{Databases, DbSanitizer};
use self::url::Urls;
use crate::filtering::Scratch;
use crate::flow::{DebugMetrics, Output};
use crate::process::{Attributed, Kind, Process, Processes, Processor};

/// Takes attributes away that nobody has allowed, and hides what must not be seen in the values of the others.
///
/// It looks at the attributes of resources, scopes, spans, events of spans, log records and data points, and at the bodies
/// of log records. Without `allowed_keys`, and without `allow_all_keys`, all attributes are taken away.
///
/// For each attribute, in this order: one that `ignored_keys` or `ignored_key_patterns` name stays as it is; one whose key is
/// not allowed is taken away; one whose value matches `allowed_values` stays; one whose key matches
/// `blocked_key_patterns` has its whole value hidden; and in the others, what matches `blocked_values` is hidden, and then
/// URLs and statements are changed.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct RedactionArguments {
    /// Whether all keys are allowed.
    #[arg(default = false)]
    allow_all_keys: bool,
    /// Keys of the attributes that are not taken away.
    #[arg(optional)]
    allowed_keys: Vec<String>,
    /// Regular expressions in the syntax of RE2: values that one of them matches are not changed.
    #[arg(optional)]
    allowed_values: Vec<String>,
    /// Regular expressions in the syntax of RE2: attributes whose keys one of them matches have their values hidden.
    #[arg(optional)]
    blocked_key_patterns: Vec<String>,
    /// Regular expressions in the syntax of RE2: what they match in a value is hidden.
    #[arg(optional)]
    blocked_values: Vec<String>,
    /// What is put in place of what is hidden: `md5`, `sha1`, `sha3`, `hmac-sha256` or `hmac-sha512` put a hash of it in
    /// hexadecimal; left empty, it is `****`. Case does not matter.
    #[arg(optional)]
    hash_function: String,
    /// The key for `hmac-sha256`, of at least 32 bytes, or `hmac-sha512`, of at least 64 bytes.
    #[arg(optional)]
    hmac_key: Secret,
    /// Regular expressions in the syntax of RE2: attributes whose keys one of them matches stay as they are.
    #[arg(optional)]
    ignored_key_patterns: Vec<String>,
    /// Keys of attributes that stay as they are.
    #[arg(optional)]
    ignored_keys: Vec<String>,
    /// Whether values that are no texts are looked at as texts, too. Otherwise they count as empty ones.
    #[arg(default = false)]
    redact_all_types: bool,
    /// What is said of the changes: `info` adds attributes with the number of attributes that were taken away, hidden, allowed
    /// and ignored, such as `redaction.masked.count`, `debug` those with their keys as well, such as
    /// `redaction.masked.keys`, and anything else nothing.
    #[arg(optional)]
    summary: String,
    /// How to make URLs more alike.
    #[block]
    url_sanitizer: Option<UrlSanitizer>,
    /// How to hide the values in statements and commands for databases.
    #[block]
    db_sanitizer: Option<DbSanitizer>,
    /// Where to send what was changed.
    #[block]
    output: Output,
    /// Which metrics of its own the component has.
    #[block(optional)]
    debug_metrics: DebugMetrics,
}

/// How to make URLs more alike: parts of the path that look like identifiers become asterisks, and what follows the path is
/// taken away.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct UrlSanitizer {
    /// Whether that is done: in bodies of log records, in names of spans, and in `attributes`.
    #[arg(default = false)]
    enabled: bool,
    /// Keys of the attributes to change.
    #[arg(optional)]
    attributes: Vec<String>,
    /// Whether names of spans of HTTP clients and servers are changed.
    #[arg(default = true)]
    sanitize_span_name: bool,
}

impl RedactionArguments {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        match self.hash_function.to_lowercase().as_str() {
            "" | "md5" | "sha1" | "sha3" => {}
            function @ ("hmac-sha256" | "hmac-sha512") => {
                let (len, len_min) = (self.hmac_key.expose().len(), if function == "hmac-sha256" { 32 } else { 64 });
                if len == 0 {
                    let error = format!("hmac_key must not be empty when hash_function is {function:?}");
                    errors.push(&["hmac_key", "hash_function"], error);
                } else if len < len_min {
                    let error =
                        format!("hmac_key must be at least {len_min} bytes long for {function:?}, got {len} bytes");
                    errors.push(&["hmac_key", "hash_function"], error);
                }
            }
            other => {
                let known = "allowed functions are sha1, sha3, md5, hmac-sha256 and hmac-sha512";
                let error = format!("invalid hash_function: unknown HashFunction {other}, {known}");
                errors.push(&["hash_function"], error);
            }
        }
        errors.into_result()
    }

    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        for (field, patterns, name) in [
            ("ignored_key_patterns", &self.ignored_key_patterns, "ignore keys"),
            ("blocked_values", &self.blocked_values, "block"),
            ("blocked_key_patterns", &self.blocked_key_patterns, "block keys"),
            ("allowed_values", &self.allowed_values, "allow"),
        ] {
            if let Err(error) = compile(patterns, name) {
                errors.push(&[field], error);
            }
        }
        errors.into_result()
    }
}

fn compile(patterns: &[String], name: &str) -> Result<Vec<GoRegex>, String> {
    let compiled: Result<Vec<GoRegex>, _> = patterns.iter().map(|pattern| GoRegex::new(pattern)).collect();
    compiled.map_err(|error| {
        format!(
            "error creating a redaction processor: failed to process {name} list: error compiling regex in list: {error}"
        )
    })
}

/// The component.
pub(crate) type RedactionProcessor = Processor<Redaction>;

/// What makes it.
pub(crate) struct Redaction;

impl Kind for Redaction {
    const NAME: &'static str = "otelcol.processor.redaction";
    const STABILITY: Stability = Stability::Experimental;
    const TYPE: &'static str = "redaction";
    type Arguments = RedactionArguments;

    fn output(arguments: &RedactionArguments) -> &Output {
        &arguments.output
    }

    fn processes(arguments: &RedactionArguments, _: &Context<Processor<Self>>) -> Result<Processes, Error> {
        Ok(Processes::all(Redact::new(arguments)?))
    }
}

/// What is put in place of what is hidden.
enum Mask {
    Stars,
    Md5,
    Sha1,
    Sha3,
    Hmac(hmac::Key),
}

impl Mask {
    fn new(arguments: &RedactionArguments) -> Self {
        let key = |algorithm| Mask::Hmac(hmac::Key::new(algorithm, arguments.hmac_key.expose().as_bytes()));
        match arguments.hash_function.to_lowercase().as_str() {
            "md5" => Mask::Md5,
            "sha1" => Mask::Sha1,
            "sha3" => Mask::Sha3,
            "hmac-sha256" => key(hmac::HMAC_SHA256),
            "hmac-sha512" => key(hmac::HMAC_SHA512),
            _ => Mask::Stars,
        }
    }

    fn write(&self, hidden: &[u8], out: &mut Vec<u8>) {
        match self {
            Mask::Stars => out.extend_from_slice(b"****"),
            Mask::Md5 => push_hex(&md5::Md5::digest(hidden), out),
            Mask::Sha1 => push_hex(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, hidden).as_ref(), out),
            Mask::Sha3 => push_hex(&sha3::Sha3_256::digest(hidden), out),
            Mask::Hmac(key) => push_hex(hmac::sign(key, hidden).as_ref(), out),
        }
    }
}

/// How much is said of the changes.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Summary {
    Nothing,
    Counts,
    Keys,
}

/// Changes telemetry.
struct Redact {
    allows_all_keys: bool,
    allowed_keys: HashSet<Box<[u8]>>,
    ignored_keys: HashSet<Box<[u8]>>,
    ignored_key_patterns: Vec<GoRegex>,
    blocked_key_patterns: Vec<GoRegex>,
    allowed_values: Vec<GoRegex>,
    blocked_values: Vec<GoRegex>,
    /// A pattern that matches everything, line by line.
    everything: GoRegex,
    mask: Mask,
    looks_at_all_types: bool,
    summary: Summary,
    urls: Option<Urls>,
    databases: Databases,
}

/// Keys of attributes that say what was changed; that of those that were ignored is not said.
struct SummaryKeys {
    redacted: [&'static str; 2],
    masked: [&'static str; 2],
    allowed: [&'static str; 2],
    ignored: &'static str,
}

const OF_ATTRIBUTES: SummaryKeys = SummaryKeys {
    redacted: ["redaction.redacted.keys", "redaction.redacted.count"],
    masked: ["redaction.masked.keys", "redaction.masked.count"],
    allowed: ["redaction.allowed.keys", "redaction.allowed.count"],
    ignored: "redaction.ignored.count",
};

const OF_BODIES: SummaryKeys = SummaryKeys {
    redacted: ["redaction.body.redacted.keys", "redaction.body.redacted.count"],
    masked: ["redaction.body.masked.keys", "redaction.body.masked.count"],
    allowed: ["redaction.body.allowed.keys", "redaction.body.allowed.count"],
    ignored: "redaction.body.ignored.count",
};

/// What was done.
#[derive(Clone, Copy)]
enum Done {
    Redacted,
    Masked,
    Allowed,
    Ignored,
}

/// What was done to attributes or to a body.
struct Changes {
    counts: [i64; 4],
    /// The keys of what was redacted, masked and allowed, if they are to be said.
    keys: Option<[Vec<Vec<u8>>; 3]>,
}

impl Changes {
    fn new(summary: Summary) -> Self {
        Changes { counts: [0; 4], keys: (summary == Summary::Keys).then(Default::default) }
    }

    fn note(&mut self, done: Done, key: &[u8]) {
        self.counts[done as usize] += 1;
        if let Some(keys) = self.keys.as_mut().and_then(|keys| keys.get_mut(done as usize)) {
            keys.push(key.to_vec());
        }
    }

    /// Notes one by its path, which is made only if it is to be said.
    fn note_path(&mut self, done: Done, path: &Path<'_>, arena: &Arena) {
        let key = if self.keys.is_some() { path.to_text(arena) } else { Vec::new() };
        self.note(done, &key);
    }

    /// Adds attributes that say what was done.
    fn tell(mut self, names: &SummaryKeys, attributes: &mut Map, arena: &mut Arena) {
        for (at, [keys_name, count_name]) in [names.redacted, names.masked, names.allowed].into_iter().enumerate() {
            if self.counts[at] > 0
                && let Some(keys) = &mut self.keys
            {
                let keys = &mut keys[at];
                if let Some(Value::Str(before)) = arena.get(*attributes, keys_name.as_bytes())
                    && !before.is_empty()
                {
                    keys.extend(arena.bytes(before).split(|byte| *byte == b',').map(<[u8]>::to_vec));
                }
                keys.sort_unstable();
                let value = Value::Str(arena.own(&keys.join(&b',')));
                arena.put(attributes, keys_name.as_bytes(), value);
            }
            count(self.counts[at], count_name, attributes, arena);
        }
        count(self.counts[Done::Ignored as usize], names.ignored, attributes, arena);
    }
}

fn count(count: i64, name: &str, attributes: &mut Map, arena: &mut Arena) {
    if count > 0 {
        let before = match arena.get(*attributes, name.as_bytes()) {
            Some(Value::Int(before)) => before,
            _ => 0,
        };
        arena.put(attributes, name.as_bytes(), Value::Int(before.wrapping_add(count)));
    }
}

/// Where in a body something is.
struct Path<'a> {
    of: Option<&'a Path<'a>>,
    step: Step,
}

#[derive(Clone, Copy)]
enum Step {
    Key(Text),
    Index(usize),
}

impl Redact {
    fn new(arguments: &RedactionArguments) -> Result<Self, Error> {
        let set = |keys: &[String]| keys.iter().map(|key| key.as_bytes().into()).collect::<HashSet<Box<[u8]>>>();
        let mut allowed_keys = set(&arguments.allowed_keys);
        // What this component says itself is not taken away by the next of its kind.
        let own = [OF_ATTRIBUTES.redacted, OF_ATTRIBUTES.masked].concat();
        allowed_keys.extend(own.into_iter().chain([OF_ATTRIBUTES.ignored]).map(|key| key.as_bytes().into()));
        let urls = arguments.url_sanitizer.as_ref().filter(|urls| urls.enabled);
        Ok(Redact {
            allows_all_keys: arguments.allow_all_keys,
            allowed_keys,
            ignored_keys: set(&arguments.ignored_keys),
            ignored_key_patterns: compile(&arguments.ignored_key_patterns, "ignore keys")?,
            blocked_key_patterns: compile(&arguments.blocked_key_patterns, "block keys")?,
            allowed_values: compile(&arguments.allowed_values, "allow")?,
            blocked_values: compile(&arguments.blocked_values, "block")?,
            everything: GoRegex::new(".*").map_err(|error| error.to_string())?,
            mask: Mask::new(arguments),
            looks_at_all_types: arguments.redact_all_types,
            summary: match &*arguments.summary {
                "debug" => Summary::Keys,
                "info" => Summary::Counts,
                _ => Summary::Nothing,
            },
            urls: urls.map(|urls| Urls::new(&urls.attributes, urls.sanitize_span_name)),
            databases: arguments.db_sanitizer.as_ref().map_or_else(Databases::none, Databases::new),
        })
    }

    fn ignores(&self, key: &[u8], lossy: &mut Lossy) -> bool {
        self.ignored_keys.contains(key) || matches(&self.ignored_key_patterns, key, lossy)
    }

    fn redacts(&self, key: &[u8]) -> bool {
        !self.allows_all_keys && !self.allowed_keys.contains(key)
    }

    /// A text in which a pattern is hidden.
    fn hide(&self, text: &[u8], pattern: &GoRegex, scratch: &mut Scratch) -> Vec<u8> {
        let Scratch { lossy, groups, .. } = scratch;
        replace_all(pattern, text, lossy, groups, |hidden, out| self.mask.write(hidden, out))
    }

    /// A text in which all that is blocked is hidden; nothing if there is nothing of it.
    fn hide_blocked(&self, text: &[u8], scratch: &mut Scratch) -> Option<Vec<u8>> {
        let mut hidden = None::<Vec<u8>>;
        for pattern in &self.blocked_values {
            let text = hidden.as_deref().unwrap_or(text);
            if pattern.is_match_bytes(text, &mut scratch.lossy) {
                hidden = Some(self.hide(text, pattern, scratch));
            }
        }
        hidden
    }

    /// Changes attributes. Those of what `needs_system` have to name the database that a statement is for.
    fn attributes(&self, attributes: &mut Map, arena: &mut Arena, needs_system: bool, scratch: &mut Scratch) {
        if attributes.is_empty() {
            return;
        }
        let system = if self.databases.is_empty() { String::new() } else { database::system_of(*attributes, arena) };
        let mut changes = Changes::new(self.summary);
        let mut redacts = false;
        for at in 0..attributes.len() {
            let pair = arena.pairs(*attributes)[at];
            let key = arena.bytes(pair.key);
            if self.ignores(key, &mut scratch.lossy) {
                changes.note(Done::Ignored, b"");
                continue;
            }
            if self.redacts(key) {
                changes.note(Done::Redacted, key);
                redacts = true;
                continue;
            }
            let mut made = Vec::new();
            let text = match pair.value {
                Value::Str(text) => arena.bytes(text),
                value if self.looks_at_all_types => {
                    arena.write_text(value, &mut made);
                    &made
                }
                _ => b"",
            };
            if matches(&self.allowed_values, text, &mut scratch.lossy) {
                changes.note(Done::Allowed, key);
                continue;
            }
            let hidden = if matches(&self.blocked_key_patterns, key, &mut scratch.lossy) {
                changes.note(Done::Masked, key);
                Some(self.hide(text, &self.everything, scratch))
            } else {
                let mut hidden = self.hide_blocked(text, scratch);
                if let Some(urls) = &self.urls
                    && urls.has_attribute(key)
                {
                    hidden = Some(urls.cluster(hidden.as_deref().unwrap_or(text)));
                }
                if self.databases.has_attribute(key) {
                    let text = hidden.unwrap_or_else(|| text.to_vec());
                    hidden = Some(self.databases.hide_attribute(text, key, &system, needs_system));
                }
                let hidden = hidden.filter(|hidden| hidden != text);
                if hidden.is_some() {
                    changes.note(Done::Masked, key);
                }
                hidden
            };
            if let Some(hidden) = hidden {
                let value = Value::Str(arena.own(&hidden));
                arena.pairs_mut(*attributes)[at].value = value;
            }
        }
        if redacts {
            let Scratch { lossy, .. } = scratch;
            arena.retain(attributes, |arena, pair| {
                let key = arena.bytes(pair.key);
                !self.redacts(key) || self.ignores(key, lossy)
            });
        }
        if self.summary > Summary::Nothing {
            changes.tell(&OF_ATTRIBUTES, attributes, arena);
        }
    }

    /// Changes the body of a log record.
    fn body(&self, record: &mut LogRecord, arena: &mut Arena, scratch: &mut Scratch) {
        let mut changes = Changes::new(self.summary);
        match record.body {
            Value::Map(mut map) => {
                self.body_map(&mut map, None, arena, &mut changes, scratch);
                record.body = Value::Map(map);
            }
            Value::List(list) => self.body_list(list, None, arena, &mut changes, scratch),
            value => {
                scratch.text.clear();
                let mut text = std::mem::take(&mut scratch.text);
                arena.write_text(value, &mut text);
                if matches(&self.allowed_values, &text, &mut scratch.lossy) {
                    return;
                }
                if let Some(hidden) = self.hide_in_body(&text, scratch) {
                    changes.note(Done::Masked, b"body");
                    record.body = Value::Str(arena.own(&hidden));
                }
                scratch.text = text;
            }
        }
        if self.summary > Summary::Nothing {
            changes.tell(&OF_BODIES, &mut record.attributes, arena);
        }
    }

    /// What becomes of a text in a body; nothing if it stays.
    fn hide_in_body(&self, text: &[u8], scratch: &mut Scratch) -> Option<Vec<u8>> {
        let mut hidden = self.hide_blocked(text, scratch);
        if let Some(urls) = &self.urls {
            hidden = Some(urls.cluster(hidden.as_deref().unwrap_or(text)));
        }
        if !self.databases.is_empty() {
            hidden = Some(self.databases.hide(hidden.unwrap_or_else(|| text.to_vec())));
        }
        hidden.filter(|hidden| hidden != text)
    }

    fn body_map(
        &self,
        map: &mut Map,
        of: Option<&Path<'_>>,
        arena: &mut Arena,
        changes: &mut Changes,
        scratch: &mut Scratch,
    ) {
        let mut redacts = false;
        for at in 0..map.len() {
            let pair = arena.pairs(*map)[at];
            let path = Path { of, step: Step::Key(pair.key) };
            let key = arena.bytes(pair.key);
            if self.ignores(key, &mut scratch.lossy) {
                changes.note(Done::Ignored, b"");
            } else if self.redacts(key) {
                changes.note_path(Done::Redacted, &path, arena);
                redacts = true;
            } else if matches(&self.blocked_key_patterns, key, &mut scratch.lossy) {
                changes.note_path(Done::Masked, &path, arena);
                let text = match pair.value {
                    Value::Str(text) => arena.bytes(text),
                    _ => b"",
                };
                let hidden = self.hide(text, &self.everything, scratch);
                let value = Value::Str(arena.own(&hidden));
                arena.pairs_mut(*map)[at].value = value;
            } else if let Some(value) = self.body_value(pair.value, &path, arena, changes, scratch) {
                arena.pairs_mut(*map)[at].value = value;
            }
        }
        if redacts {
            let Scratch { lossy, .. } = scratch;
            arena.retain(map, |arena, pair| {
                let key = arena.bytes(pair.key);
                !self.redacts(key) || self.ignores(key, lossy)
            });
        }
    }

    fn body_list(
        &self,
        list: corten_otlp::List,
        of: Option<&Path<'_>>,
        arena: &mut Arena,
        changes: &mut Changes,
        scratch: &mut Scratch,
    ) {
        for at in 0..list.len() {
            let path = Path { of, step: Step::Index(at) };
            let value = arena.values(list)[at];
            if let Some(value) = self.body_value(value, &path, arena, changes, scratch) {
                arena.values_mut(list)[at] = value;
            }
        }
    }

    /// What becomes of a value in a body; nothing if it stays.
    fn body_value(
        &self,
        value: Value,
        path: &Path<'_>,
        arena: &mut Arena,
        changes: &mut Changes,
        scratch: &mut Scratch,
    ) -> Option<Value> {
        match value {
            Value::Map(mut map) => {
                self.body_map(&mut map, Some(path), arena, changes, scratch);
                Some(Value::Map(map))
            }
            Value::List(list) => {
                self.body_list(list, Some(path), arena, changes, scratch);
                None
            }
            value => {
                let mut text = std::mem::take(&mut scratch.text);
                text.clear();
                arena.write_text(value, &mut text);
                let mut hidden = None;
                if matches(&self.allowed_values, &text, &mut scratch.lossy) {
                    changes.note_path(Done::Allowed, path, arena);
                } else if let Some(text) = self.hide_in_body(&text, scratch) {
                    changes.note_path(Done::Masked, path, arena);
                    hidden = Some(Value::Str(arena.own(&text)));
                }
                scratch.text = text;
                hidden
            }
        }
    }

    fn span_name(&self, span: &mut Span, arena: &mut Arena, lossy: &mut Lossy) {
        let urls = self.urls.as_ref().filter(|urls| urls.changes_span_names);
        let databases = Some(&self.databases).filter(|databases| !databases.is_empty() && databases.changes_span_names);
        if urls.is_none() && databases.is_none() {
            return;
        }
        let name = arena.bytes(span.name);
        if matches(&self.allowed_values, name, lossy) {
            return;
        }
        let by_url = urls.and_then(|urls| urls.cluster_span_name(span, arena));
        let made = by_url.or_else(|| {
            let is_about = matches!(span.kind, INTERNAL | SERVER | CLIENT);
            let system =
                Some(database::system_of(span.attributes, arena)).filter(|system| is_about && !system.is_empty());
            databases?.hide_name(name, &system?)
        });
        if let Some(made) = made.filter(|made| !made.is_empty() && made != b"..." && made != name) {
            span.name = arena.own(&made);
        }
    }

    fn all<R: Record>(
        &self,
        batch: &mut Batch<R>,
        needs_system: bool,
        mut change: impl FnMut(&mut R, &mut Arena, &mut Scratch),
    ) -> Vec<corten_otlp::Data<R>> {
        let mut scratch = Scratch::default();
        let mut data = batch.take_data();
        for part in &mut data {
            let arena = &mut part.arena;
            for of in &mut part.resources {
                self.attributes(&mut of.resource.attributes, arena, needs_system, &mut scratch);
                for of in &mut of.scopes {
                    self.attributes(&mut of.scope.attributes, arena, needs_system, &mut scratch);
                    of.records.iter_mut().for_each(|record| change(record, arena, &mut scratch));
                }
            }
        }
        data
    }
}

/// Kinds of spans.
const INTERNAL: i32 = 1;
const SERVER: i32 = 2;
const CLIENT: i32 = 3;

impl Path<'_> {
    fn to_text(&self, arena: &Arena) -> Vec<u8> {
        let mut text = self.of.map_or_else(Vec::new, |of| {
            let mut text = of.to_text(arena);
            text.push(b'.');
            text
        });
        match self.step {
            Step::Key(key) => text.extend_from_slice(arena.bytes(key)),
            Step::Index(at) => {
                let mut index = String::new();
                let _ = write!(index, "[{at}]");
                text.extend_from_slice(index.as_bytes());
            }
        }
        text
    }
}

fn matches(patterns: &[GoRegex], text: &[u8], lossy: &mut Lossy) -> bool {
    patterns.iter().any(|pattern| pattern.is_match_bytes(text, lossy))
}

/// Replaces all matches, as `ReplaceAllStringFunc` of Go does.
fn replace_all(
    pattern: &GoRegex,
    bytes: &[u8],
    lossy: &mut Lossy,
    groups: &mut Groups,
    mut replace: impl FnMut(&[u8], &mut Vec<u8>),
) -> Vec<u8> {
    let (text, offsets) = lossy.text(bytes);
    let mut out = Vec::with_capacity(bytes.len());
    let (mut copied, mut at) = (0, 0);
    while at <= text.len() && pattern.captures_at(text, at, groups) {
        let Some(found) = groups.get(0) else { break };
        out.extend_from_slice(&bytes[offsets.range(copied..found.start)]);
        // An empty match right behind another one does not count.
        if found.end > copied || found.start == 0 {
            replace(&bytes[offsets.range(found.clone())], &mut out);
        }
        copied = found.end;
        let step = text[at..].chars().next().map_or(1, char::len_utf8);
        at = found.end.max(at + step);
    }
    out.extend_from_slice(&bytes[offsets.range(copied..text.len())]);
    out
}

/// A text without the white space around it.
fn trim(text: &[u8]) -> &[u8] {
    let is_space = |character: char| character.is_whitespace();
    let mut text = text.trim_ascii();
    // What is beyond ASCII is seldom there.
    while let Some(chunk) = text.utf8_chunks().next()
        && let Some(first) = chunk.valid().chars().next().filter(|first| is_space(*first))
    {
        text = text[first.len_utf8()..].trim_ascii();
    }
    while let Some(last) = (1..=text.len().min(4)).find_map(|len| {
        let mut last = std::str::from_utf8(&text[text.len() - len..]).ok()?.chars();
        last.next().filter(|character| is_space(*character) && last.next().is_none())
    }) {
        text = text[..text.len() - last.len_utf8()].trim_ascii();
    }
    text
}

impl Process<Traces> for Redact {
    fn process(&self, mut batch: Batch<Span>, _: &mut Pass<'_>) -> Result<Batch<Span>, ConsumeError> {
        let data = self.all(&mut batch, true, |span: &mut Span, arena, scratch| {
            self.attributes(&mut span.attributes, arena, true, scratch);
            for event in &mut span.events {
                self.attributes(&mut event.attributes, arena, true, scratch);
            }
            self.span_name(span, arena, &mut scratch.lossy);
        });
        Ok(batch.with(data))
    }
}

impl Process<OtlpMetrics> for Redact {
    fn process(&self, mut batch: Batch<Metric>, _: &mut Pass<'_>) -> Result<Batch<Metric>, ConsumeError> {
        let data = self.all(&mut batch, true, |metric: &mut Metric, arena, scratch| {
            metric.each_attributes(|attributes| self.attributes(attributes, arena, true, scratch));
        });
        Ok(batch.with(data))
    }
}

impl Process<OtlpLogs> for Redact {
    fn process(&self, mut batch: Batch<LogRecord>, _: &mut Pass<'_>) -> Result<Batch<LogRecord>, ConsumeError> {
        let data = self.all(&mut batch, false, |record: &mut LogRecord, arena, scratch| {
            self.attributes(&mut record.attributes, arena, false, scratch);
            self.body(record, arena, scratch);
        });
        Ok(batch.with(data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_component::Definition;
    use corten_testkit::{OtlpSink, Unit, host};

    use crate::process::{hostile, recorded};

    #[tokio::test]
    async fn telemetry_is_redacted_as_it_is_in_the_reference() {
        recorded::check::<RedactionProcessor>(include_str!("../../tests/data/processor_redaction.json")).await;
    }

    #[tokio::test]
    async fn hostile_telemetry_does_no_harm() {
        hostile::survives::<RedactionProcessor>(&[
            "",
            r#"
            allow_all_keys       = true
            redact_all_types     = true
            blocked_values       = [".*", "x*", "\\xff"]
            blocked_key_patterns = ["^$"]
            summary              = "debug"
            url_sanitizer {
                enabled    = true
                attributes = ["a", ""]
            }
            db_sanitizer {
                sql {
                    enabled    = true
                    attributes = ["a", ""]
                }
                redis {
                    enabled = true
                }
                memcached {
                    enabled = true
                }
                mongo {
                    enabled = true
                }
            }"#,
        ])
        .await;
    }

    #[tokio::test]
    async fn a_hash_function_that_is_none_or_has_no_key_is_refused() {
        let sink = OtlpSink::default();
        for (body, want) in [
            (
                "hash_function = \"md4\"",
                "unknown HashFunction md4, allowed functions are sha1, sha3, md5, hmac-sha256 and hmac-sha512",
            ),
            ("hash_function = \"hmac-sha256\"", "hmac_key must not be empty when hash_function is \"hmac-sha256\""),
            (
                "hash_function = \"HMAC-SHA512\"\nhmac_key = \"short\"",
                "hmac_key must be at least 64 bytes long for \"hmac-sha512\", got 5 bytes",
            ),
        ] {
            let body = format!("{body}\noutput {{\nlogs = [sink]\n}}");
            let definition = Definition::of::<RedactionProcessor>();
            let host = host("otelcol.processor.redaction.a");
            let error = Unit::start_with(host, &definition, &body, &[("sink", sink.value())]).await.unwrap_err();
            assert!(error.contains(want), "{error}");
        }
    }
}
