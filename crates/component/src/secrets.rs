//! What must not be shown: the values of the secrets that the configuration holds, and what looks like one.
//!
//! Rendered values are masked by their marks. This is for all other text: what a component says of itself, the text of the
//! configuration, and data on its way.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use arc_swap::ArcSwapOption;
use corten_config::encode::Item;
use corten_config::value::{Data, MASK, Object, Value};
use corten_signal::tap::Redactor;

/// Shorter secrets are not looked for: they would be found in words that are none.
pub const SECRET_BYTES_MIN: usize = 6;
/// Of a longer secret the beginning is looked for, and all that follows it in a text is masked.
const SECRET_BYTES_MAX: usize = 16 << 10;
/// How many secrets are looked for. Of more, those that were given first.
const SECRETS_MAX: usize = 8 << 10;
/// How many bytes of secrets are looked for, each in its [`forms`]. If there are more, of the longest ones a shorter
/// beginning is looked for, which never is shorter than 64 bytes.
const BOOK_BYTES_MAX: usize = SECRETS_MAX * 64;
/// Nothing shorter looks like a secret if it has none of `=:?&`. The shortest is `Basic ` with what follows it.
const LOOKALIKE_BYTES_MIN: usize = 14;

/// The values of the secrets of the configuration that runs.
#[derive(Debug, Default)]
pub struct SecretBook(ArcSwapOption<Book>);

/// What is looked for.
#[derive(Debug)]
struct Book {
    patterns: AhoCorasick,
    /// Whether a pattern is but the beginning of a secret, by its number.
    is_beginning: Vec<bool>,
}

impl Book {
    /// The places of secrets. Where one ends of which only the beginning is known, nobody can tell: the rest of the text is
    /// taken for it.
    fn find(&self, text: &str) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        for secret in self.patterns.find_iter(text) {
            if self.is_beginning[secret.pattern().as_usize()] {
                found.push(secret.start()..text.len());
                break;
            }
            found.push(secret.range());
        }
        found
    }

    /// Whether a text has a secret.
    fn is_in(&self, text: &str) -> bool {
        text.len() >= self.patterns.min_pattern_len() && self.patterns.is_match(text)
    }
}

/// How much is looked for of each secret so that all of them together are within the limit.
fn length_max(secrets: &[&str]) -> usize {
    let mut length_max = SECRET_BYTES_MAX;
    while secrets.iter().map(|secret| secret.len().min(length_max)).sum::<usize>() > BOOK_BYTES_MAX {
        length_max /= 2;
    }
    length_max
}

/// How a secret is written in the texts in which it is looked for.
fn forms(secret: &str) -> [String; 5] {
    let within_quotes = quoted(secret);
    let on_one_line =
        secret.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() });
    [on_one_line.collect(), url_encoded(secret), quoted(&within_quotes), within_quotes, secret.to_owned()]
}

impl SecretBook {
    /// Takes other secrets in place of those that it has, those first that matter most: it holds no more than a number.
    pub fn set(&self, secrets: impl IntoIterator<Item = Arc<str>>) {
        let secrets: Vec<Arc<str>> = secrets.into_iter().collect();
        // What was read from a file often ends with a line end, which nobody sends.
        let texts = secrets.iter().map(|secret| secret.trim()).filter(|secret| secret.len() >= SECRET_BYTES_MIN);
        let mut known = HashSet::new();
        let secrets: Vec<&str> = texts.filter(|secret| known.insert(*secret)).take(SECRETS_MAX).collect();
        let length_max = length_max(&secrets);
        let mut patterns = BTreeMap::new();
        for secret in secrets {
            let beginning = &secret[..secret.floor_char_boundary(length_max)];
            for mut form in forms(beginning) {
                let is_beginning = beginning.len() < secret.len() || form.len() > SECRET_BYTES_MAX;
                form.truncate(form.floor_char_boundary(SECRET_BYTES_MAX));
                *patterns.entry(form).or_insert(false) |= is_beginning;
            }
        }
        if patterns.is_empty() {
            self.0.store(None);
            return;
        }
        let automaton = AhoCorasick::builder()
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .match_kind(MatchKind::LeftmostLongest)
            .build(patterns.keys());
        // It fails where there are more states than numbers for them, which the limits above keep far away.
        let book = automaton.ok().map(|found| Book { patterns: found, is_beginning: patterns.into_values().collect() });
        self.0.store(book.map(Arc::new));
    }

    /// Masks the secrets in a text; how many there were.
    pub fn mask(&self, text: &mut String) -> u32 {
        let found = self.0.load().as_ref().map_or_else(Vec::new, |book| book.find(text));
        mask_ranges(text, found)
    }

    /// As [`mask`](Self::mask), and masks what looks like a secret, too: for text from outside.
    pub fn redact(&self, text: &mut String) -> u32 {
        self.mask(text) + mask_ranges(text, lookalikes(text))
    }

    /// As [`redact`](Self::redact), and masks the values of what is called like a secret, too: for data of others. In the
    /// text of a configuration that would mask references.
    pub fn redact_data(&self, text: &mut String) -> u32 {
        if self.is_open(text) {
            return 0;
        }
        self.redact(text) + mask_ranges(text, named(text))
    }

    /// The text without secrets.
    #[must_use]
    pub fn masked(&self, text: &str) -> String {
        let mut text = text.to_owned();
        self.mask(&mut text);
        text
    }

    /// The text without secrets and without what looks like one.
    #[must_use]
    pub fn redacted(&self, text: &str) -> String {
        let mut text = text.to_owned();
        self.redact(&mut text);
        text
    }

    /// A text without secrets, where there are any in it; nothing else. `named` says that it stands under the name of a
    /// secret, so that all of it is one.
    pub fn without_secrets(&self, text: &str, named: bool) -> Option<String> {
        if named {
            // What is empty is none, and says so.
            return (!text.is_empty() && text != MASK).then(|| MASK.to_owned());
        }
        let mut masked = text.to_owned();
        (self.redact(&mut masked) > 0).then_some(masked)
    }

    /// As [`without_secrets`](Self::without_secrets), and masks what is called like a secret within the text, too: for what a
    /// component tells of data, as in `{token="…"}`.
    pub fn data_without_secrets(&self, text: &str, named: bool) -> Option<String> {
        if named {
            return self.without_secrets(text, named);
        }
        let mut masked = text.to_owned();
        (self.redact_data(&mut masked) > 0).then_some(masked)
    }

    /// Masks the secrets in the texts of a body, what looks like one, and what is called like one.
    pub fn mask_items(&self, items: &mut [Item]) {
        for item in items {
            match item {
                Item::Attr { name, value } => {
                    if let Some(masked) = self.masked_value(value, is_secret_name(name)) {
                        *value = masked;
                    }
                }
                Item::Block { body, .. } => self.mask_items(body),
            }
        }
    }

    /// As [`mask_items`](Self::mask_items), for what a component tells of itself and of its data.
    pub fn mask_debug_info(&self, items: &mut [Item]) {
        self.mask_items(items);
        for item in items {
            match item {
                Item::Attr { value: Value { data: Data::String(text), .. }, .. } => {
                    if let Some(masked) = self.data_without_secrets(text, false) {
                        *text = masked.into();
                    }
                }
                Item::Attr { .. } => {}
                Item::Block { body, .. } => self.mask_debug_info(body),
            }
        }
    }

    /// The value without secrets, where there are any in it.
    fn masked_value(&self, value: &Value, named: bool) -> Option<Value> {
        let masked = match &value.data {
            Data::String(text) => Value::string(self.without_secrets(text, named)?),
            Data::OptionalSecret(secret) if !secret.is_secret => {
                Value::optional_secret(self.without_secrets(&secret.text, named)?, false)
            }
            Data::Array(items) => {
                let masked: Vec<Option<Value>> = items.iter().map(|item| self.masked_value(item, named)).collect();
                if masked.iter().all(Option::is_none) {
                    return None;
                }
                let masked = masked.into_iter().zip(items.iter());
                Value::array(masked.map(|(masked, item)| masked.unwrap_or_else(|| item.clone())).collect::<Vec<_>>())
            }
            Data::Object(fields) => self.masked_object(fields, named)?,
            Data::Capsule(capsule) => self.masked_object(&capsule.as_object()?, named)?,
            _ => return None,
        };
        Some(masked.marked(value.sensitive))
    }

    fn masked_object(&self, fields: &Object, named: bool) -> Option<Value> {
        let mut masked: Option<Object> = None;
        for (name, field) in fields {
            if let Some(value) = self.masked_value(field, named || is_secret_name(name)) {
                masked.get_or_insert_with(|| fields.clone()).insert(Arc::clone(name), value);
            }
        }
        masked.map(|fields| Value::new(Data::Object(Arc::new(fields))))
    }
}

impl Redactor for SecretBook {
    fn redact(&self, text: &mut String) -> u32 {
        self.redact_data(text)
    }

    fn is_open(&self, text: &str) -> bool {
        let is_short =
            || text.len() < LOOKALIKE_BYTES_MIN && !text.bytes().any(|byte| matches!(byte, b'=' | b':' | b'?' | b'&'));
        (is_short() || !is_suspect(text)) && !self.0.load().as_ref().is_some_and(|book| book.is_in(text))
    }

    fn names_secret(&self, name: &str) -> bool {
        let is_word = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
        // A word with a value is as secret as its name says, and else if it has something else in it that is masked.
        if is_word && is_secret_name(name) {
            return true;
        }
        let with_value = || [name, "=-"].concat();
        if !is_word {
            return self.redact_data(&mut with_value()) > 0;
        }
        (name.len() >= LOOKALIKE_BYTES_MIN && !lookalikes(name).is_empty())
            || self.0.load().as_ref().is_some_and(|book| book.is_in(&with_value()))
    }
}

/// A text as it stands between quotes, in JSON and where texts are written for people.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c => out.push(c),
        }
    }
    out
}

/// A text as it stands in a URL.
fn url_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte.into());
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Adds the secrets of a body.
pub fn secrets_of_items(items: &[Item], into: &mut BTreeSet<Arc<str>>) {
    for item in items {
        match item {
            Item::Attr { value, .. } => secrets_of_value(value, into),
            Item::Block { body, .. } => secrets_of_items(body, into),
        }
    }
}

/// Adds the secrets of a value.
pub fn secrets_of_value(value: &Value, into: &mut BTreeSet<Arc<str>>) {
    add(value, false, into);
}

fn add(value: &Value, within: bool, into: &mut BTreeSet<Arc<str>>) {
    let secret = within || value.is_masked();
    match &value.data {
        Data::String(text) if secret => _ = into.insert(Arc::clone(text)),
        Data::Secret(text) => _ = into.insert(Arc::clone(text)),
        Data::OptionalSecret(text) if secret => _ = into.insert(Arc::clone(&text.text)),
        Data::Bytes(bytes) if secret => {
            if let Ok(text) = std::str::from_utf8(bytes) {
                into.insert(text.into());
            }
        }
        Data::Array(items) => items.iter().for_each(|item| add(item, secret, into)),
        Data::Object(fields) => fields.values().for_each(|field| add(field, secret, into)),
        _ => {}
    }
}

/// Names with these ends say where a secret is, how it is called, or how many there are.
const NO_SECRET_ENDS: &[&str] = &[
    "_file", "_path", "_url", "_name", "_id", "_field", "_type", "_key_ref", "tokens", "_total", "_count", "_seconds",
];

/// Whether a label, attribute or header of that name holds a secret.
pub fn is_secret_name(name: &str) -> bool {
    let name = name.as_bytes();
    let is = |text: Option<&[u8]>, part: &str| text.is_some_and(|text| text.eq_ignore_ascii_case(part.as_bytes()));
    // By their first letters, so that most places in a name cost one look.
    let begins_part = |(at, first): (usize, &u8)| {
        let mut parts = secret_parts(first.to_ascii_lowercase()).iter();
        parts.any(|part| is(name.get(at..at + part.len()), part))
    };
    let ends_with = |end: &&str| is(name.len().checked_sub(end.len()).and_then(|at| name.get(at..)), end);
    name.iter().enumerate().any(begins_part) && !NO_SECRET_ENDS.iter().any(ends_with)
}

/// The parts of names that say that they are of secrets and begin with a letter.
fn secret_parts(first: u8) -> &'static [&'static str] {
    match first {
        b'a' => &["api_key", "apikey", "api-key", "authorization"],
        b'c' => &["cookie", "credentials"],
        b'p' => &["password", "passwd", "passphrase", "private_key", "private-key"],
        b's' => &["secret"],
        b't' => &["token"],
        _ => &[],
    }
}

/// Whether a text may have something in it that looks like a secret or is called like one. Most have nothing that
/// either of them begins with, and to find that out is cheaper than to look for each.
fn is_suspect(text: &str) -> bool {
    static SUSPECTS: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| {
        // A parameter is called like a secret.
        let shapes = SHAPES.iter().filter(|(_, shape)| !matches!(shape, Shape::Parameter)).map(|(text, _)| *text);
        let parts = (b'a'..=b'z').flat_map(secret_parts).copied();
        AhoCorasick::builder().ascii_case_insensitive(true).build(shapes.chain(parts)).ok()
    });
    SUSPECTS.as_ref().is_none_or(|suspects| suspects.is_match(text))
}

/// What secrets of a fixed shape begin with.
#[derive(Clone, Copy)]
enum Shape {
    /// A scheme of authorization: what follows is a secret.
    Credentials,
    /// The beginning of a URL's authority, with a user and a password perhaps.
    Authority,
    /// A private key in PEM.
    Pem,
    /// A prefix of keys: so many characters at least follow.
    Key(usize),
    /// A JSON web token.
    Jwt,
    /// A parameter in the query of a URL.
    Parameter,
}

const SHAPES: &[(&str, Shape)] = &[
    ("Bearer ", Shape::Credentials),
    ("bearer ", Shape::Credentials),
    ("Basic ", Shape::Credentials),
    ("://", Shape::Authority),
    ("-----BEGIN ", Shape::Pem),
    ("AKIA", Shape::Key(16)),
    ("ASIA", Shape::Key(16)),
    ("ghp_", Shape::Key(20)),
    ("gho_", Shape::Key(20)),
    ("ghu_", Shape::Key(20)),
    ("ghs_", Shape::Key(20)),
    ("ghr_", Shape::Key(20)),
    ("github_pat_", Shape::Key(20)),
    ("glpat-", Shape::Key(16)),
    ("glsa_", Shape::Key(20)),
    ("glc_", Shape::Key(20)),
    ("xoxb-", Shape::Key(10)),
    ("xoxp-", Shape::Key(10)),
    ("sk_live_", Shape::Key(16)),
    ("eyJ", Shape::Jwt),
    ("?", Shape::Parameter),
    ("&", Shape::Parameter),
];

/// The places of what looks like a secret.
fn lookalikes(text: &str) -> Vec<Range<usize>> {
    static BEGINNINGS: LazyLock<Option<AhoCorasick>> =
        LazyLock::new(|| AhoCorasick::new(SHAPES.iter().map(|(beginning, _)| beginning)).ok());
    let Some(beginnings) = &*BEGINNINGS else { return Vec::new() };
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut tokens = Tokens { text: text.as_bytes(), end: 0, first: None, second: None };
    for beginning in beginnings.find_iter(text) {
        let (start, after) = (beginning.start(), beginning.end());
        if found.last().is_some_and(|last| start < last.end) {
            continue;
        }
        let word = text[..start].bytes().next_back().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
        let run = |from: usize, allowed: fn(u8) -> bool| {
            from + text.as_bytes()[from..].iter().take_while(|byte| allowed(**byte)).count()
        };
        let range = match SHAPES[beginning.pattern().as_usize()].1 {
            Shape::Credentials => {
                let end = run(after, |b| b.is_ascii_alphanumeric() || b"._~+/=-".contains(&b));
                // What is no word of a sentence.
                let word = text[after..end].bytes().all(|b| b.is_ascii_lowercase() || b == b'.' || b == b'-');
                (end - after >= if word { 20 } else { 8 }).then_some(after..end)
            }
            Shape::Authority => {
                let end = run(after, |b| !b.is_ascii_whitespace() && !b"/?#\"'<>`".contains(&b));
                let at = text[after..end].rfind('@').map(|at| after + at);
                at.and_then(|at| Some(after + text[after..at].find(':')? + 1..at))
            }
            Shape::Pem => {
                let head = text[after..].find("-----").map(|end| after + end);
                let head = head.filter(|head| text[after..*head].ends_with("PRIVATE KEY"));
                head.map(|head| {
                    let end = text[head + 5..].find("-----END").map_or(text.len(), |end| head + 5 + end);
                    head + 5..end
                })
            }
            Shape::Key(least) if !word => {
                let end = run(after, |b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
                (end - after >= least).then_some(start..end)
            }
            Shape::Jwt if !word => tokens.at(start),
            Shape::Parameter => {
                let end = run(after, |b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
                let value = end + 1;
                let is_secret = text[end..].starts_with('=') && is_secret_name(&text[after..end]);
                is_secret.then(|| value..run(value, |b| !b.is_ascii_whitespace() && !b"&#\"'<>`".contains(&b)))
            }
            Shape::Key(_) | Shape::Jwt => None,
        };
        found.extend(range.filter(|range| !range.is_empty()));
    }
    found
}

/// Finds JSON web tokens. What was passed over for one beginning is not passed over again for the next ones, which may stand
/// close together.
struct Tokens<'t> {
    text: &'t [u8],
    /// Where the characters of tokens end.
    end: usize,
    /// The first dot and the second one, up to there.
    first: Option<usize>,
    second: Option<usize>,
}

impl Tokens<'_> {
    /// The token that begins there. Asked for one place after the other.
    fn at(&mut self, start: usize) -> Option<Range<usize>> {
        if start >= self.end {
            let is_token = |byte: &&u8| byte.is_ascii_alphanumeric() || b"_-.".contains(*byte);
            self.end = start + self.text[start..].iter().take_while(is_token).count();
            self.second = None;
            self.find_dots(start);
        } else if self.first.is_some_and(|first| first < start) {
            self.find_dots(start);
        }
        let (first, second) = (self.first?, self.second?);
        (first - start >= 8 && second - first > 8).then_some(start..self.end)
    }

    fn find_dots(&mut self, start: usize) {
        let dot = |from: usize| self.text[from..self.end].iter().position(|byte| *byte == b'.').map(|at| from + at);
        let first = dot(start);
        // Often the second one becomes the first one.
        let second = self.second.filter(|second| first.is_some_and(|first| *second > first));
        self.second = second.or_else(|| dot(first? + 1));
        self.first = first;
    }
}

/// The places of values whose names say that they are secret: `name=value`, `name="value"`, `"name": "value"`, also
/// within quotes of JSON.
fn named(text: &str) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let mut found: Vec<Range<usize>> = Vec::new();
    for at in memchr::memchr2_iter(b'=', b':', bytes) {
        if found.last().is_some_and(|last| at < last.end) {
            continue;
        }
        let before = text[..at].trim_end_matches(' ');
        // `name = value`, but not `name= other=value`.
        let is_colon = bytes[at] == b':';
        let spaced = is_colon || before.len() < at;
        let before = before.trim_end_matches(['"', '\'']).trim_end_matches('\\');
        let start = before.rfind(|c: char| !(c.is_ascii_alphanumeric() || "_-.".contains(c)));
        let name = &before[start.map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8))..];
        if name.is_empty() || !is_secret_name(name) {
            continue;
        }
        let blanks = bytes[at + 1..].iter().take_while(|byte| **byte == b' ').count();
        let from = at + 1 + if spaced { blanks } else { 0 };
        let run = |from: usize, stops: &[u8]| {
            from + bytes[from..].iter().take_while(|byte| !stops.contains(byte) && !byte.is_ascii_control()).count()
        };
        let range = match &bytes[from..] {
            [b'\\', b'"', ..] => {
                let end = text[from + 2..].find("\\\"").map_or(bytes.len(), |end| from + 2 + end);
                from + 2..end
            }
            [quote @ (b'"' | b'\''), ..] => {
                let mut end = from + 1;
                while end < bytes.len() && bytes[end] != *quote {
                    end += if bytes[end] == b'\\' { 2 } else { 1 };
                }
                from + 1..text.ceil_char_boundary(end.min(bytes.len()))
            }
            [b'{' | b'[', ..] => from..closing(bytes, from),
            [b'=' | b'~', ..] => continue,
            // Of a header all that follows is secret, not its first word alone.
            _ if is_colon && is_secret_header(name) => from..end_of_header(bytes, from),
            after => {
                // What is masked in part ends no sooner for that.
                let masked = if after.starts_with(MASK.as_bytes()) { MASK.len() } else { 0 };
                from..run(from + masked, b" ,;&}])\"'`")
            }
        };
        // What is masked already is not counted again.
        if !range.is_empty() && text[range.clone()].trim_end_matches('\n') != MASK {
            found.push(range);
        }
    }
    found
}

/// Where the value of a header ends: with its line, or with the text in quotes that it stands in. Its own texts in quotes,
/// as in `Digest response="…"`, belong to it.
fn end_of_header(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(byte) = bytes.get(at).filter(|byte| !byte.is_ascii_control()) {
        let quote = match (byte, bytes.get(at + 1)) {
            (b'"' | b'\'' | b'`', _) => &bytes[at..=at],
            (b'\\', Some(b'"')) => &bytes[at..at + 2],
            (b'\\', _) => return at,
            _ => {
                at += 1;
                continue;
            }
        };
        // A quote that ends a text follows upon what stands in it.
        if at == from || !b" =[({,:".contains(&bytes[at - 1]) {
            return at;
        }
        at += quote.len();
        while at < bytes.len() && !bytes[at..].starts_with(quote) {
            if bytes[at].is_ascii_control() {
                return at;
            }
            at += if quote.len() == 1 && bytes[at] == b'\\' { 2 } else { 1 };
        }
        at = (at + quote.len()).min(bytes.len());
    }
    at
}

/// Whether what follows the name and a colon is the value of a header.
fn is_secret_header(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.ends_with("authorization") || name.ends_with("cookie")
}

/// Where the bracket is closed that is opened there, or the end.
fn closing(bytes: &[u8], from: usize) -> usize {
    let mut depth = 0usize;
    for (at, byte) in bytes.iter().enumerate().skip(from) {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    bytes.len()
}

/// Masks places, given in their order. Lines stay where they are.
fn mask_ranges(text: &mut String, ranges: Vec<Range<usize>>) -> u32 {
    let count = u32::try_from(ranges.len()).unwrap_or(u32::MAX);
    if ranges.is_empty() {
        return 0;
    }
    let mut out = String::with_capacity(text.len());
    let mut from = 0;
    for range in ranges {
        out.push_str(&text[from..range.start]);
        push_mask(&text[range.clone()], &mut out);
        from = range.end;
    }
    out.push_str(&text[from..]);
    *text = out;
    count
}

/// Writes the mask in the place of a text, with as many line ends.
pub fn push_mask(masked: &str, out: &mut String) {
    out.push_str(MASK);
    out.extend(masked.bytes().filter(|byte| *byte == b'\n').map(char::from));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn redacted(text: &str) -> String {
        let mut text = text.to_owned();
        SecretBook::default().redact(&mut text);
        text
    }

    #[test]
    fn the_secrets_of_the_book_are_masked_and_the_longest_counts() {
        let book = SecretBook::default();
        assert_eq!(book.masked("nothing"), "nothing");
        book.set(["short", "hunter2", "hunter2-and-more", " from-a-file\n"].map(Arc::from));
        for (text, expected) in [
            ("a hunter2 b", "a (secret) b"),
            ("hunter2-and-more", "(secret)"),
            ("short", "short"),
            ("x=from-a-file;", "x=(secret);"),
            ("hunter2hunter2", "(secret)(secret)"),
        ] {
            assert_eq!(book.masked(text), expected, "{text}");
        }
        book.set([]);
        assert_eq!(book.masked("hunter2"), "hunter2");
    }

    #[test]
    fn secrets_are_found_within_quotes_and_urls() {
        let (book, secret) = (SecretBook::default(), "pa\"ss\\w/rd é\nend");
        book.set([Arc::from(secret)]);
        let json = serde_json::to_string(secret).unwrap();
        for text in [
            json.clone(),
            format!("{secret:?}"),
            serde_json::to_string(&json).unwrap(),
            "\"pa%22ss%5Cw%2Frd%20%C3%A9%0Aend\"".to_owned(),
            secret.replace('\n', "\\n"),
        ] {
            let masked = book.masked(&text);
            assert!(masked.contains(MASK) && !masked.contains("ss"), "{text} {masked}");
        }
    }

    #[test]
    fn long_texts_are_searched_once() {
        let book = SecretBook::default();
        book.set([Arc::from("hunter2")]);
        for part in [
            ".eyJ",
            "-eyJ",
            "eyJabcdefgh.",
            "://",
            "Bearer ",
            "-----BEGIN ",
            "token=",
            "token=\"",
            "a?token=&",
            "{token:[",
        ] {
            let text = part.repeat(400_000 / part.len());
            let started = std::time::Instant::now();
            book.redact_data(&mut text.clone());
            // Passing over the rest of the text for each part takes minutes.
            assert!(started.elapsed() < std::time::Duration::from_secs(5), "{part}");
        }
    }

    #[test]
    fn the_book_is_bounded_and_what_it_knows_in_part_is_masked_to_the_end() {
        let book = SecretBook::default();
        // A number for each, so that none is the beginning of another.
        let secret = |at: usize, len: usize| -> Arc<str> { format!("{at:05}-{}", "x".repeat(len - 6)).into() };
        book.set([secret(1, 2 * SECRET_BYTES_MAX)]);
        let long = secret(1, 2 * SECRET_BYTES_MAX);
        assert_eq!(book.masked(&format!("a {long} b")), "a (secret)");
        assert_eq!(book.masked(&format!("{} b", &long[..100])), format!("{} b", &long[..100]));

        book.set((0..2 * SECRETS_MAX).map(|at| secret(at, 100)).chain([Arc::from("hunter2")]));
        let patterns = || book.0.load().as_ref().map_or(0, |book| book.patterns.patterns_len());
        assert_eq!(patterns(), SECRETS_MAX);
        assert_eq!(book.masked(&format!("a {} b", secret(7, 100))), "a (secret)");
        // The first ones are kept, and what is said twice takes one place.
        assert_eq!(book.masked("hunter2"), "hunter2");
        book.set(
            ["hunter2", " hunter2\n"].map(Arc::from).into_iter().chain((1..=SECRETS_MAX).map(|at| secret(at, 100))),
        );
        assert_eq!(patterns(), SECRETS_MAX);
        assert_eq!(book.masked("a hunter2 b"), "a (secret) b");
        assert_eq!(book.masked(&secret(SECRETS_MAX - 1, 100)), "(secret)");
        assert_eq!(book.masked(&secret(SECRETS_MAX, 100)), &*secret(SECRETS_MAX, 100));

        // The long ones are cut and nothing else is.
        book.set((0..100).map(|at| secret(at, SECRET_BYTES_MAX)).chain([Arc::from("hunter2")]));
        assert_eq!(patterns(), 101);
        assert_eq!(book.masked(&format!("a {} b", secret(99, SECRET_BYTES_MAX))), "a (secret)");
        assert_eq!(book.masked("a hunter2 b"), "a (secret) b");
        let longest = book.0.load().as_ref().map_or(0, |book| book.patterns.max_pattern_len());
        assert_eq!(longest, 4 << 10);
    }

    #[test]
    fn lines_stay_where_they_are() {
        let book = SecretBook::default();
        book.set([Arc::from("line one\nline two")]);
        assert_eq!(book.masked("a\nline one\nline two\nb"), "a\n(secret)\n\nb");
    }

    #[test]
    fn the_secrets_of_a_body_are_collected_and_masked() {
        let attr = |name: &str, value: Value| Item::Attr { name: name.to_owned(), value };
        let items = [
            attr("a", Value::secret("one-secret")),
            attr("b", Value::string("open")),
            attr("c", Value::array([Value::string("two-secret").marked(true)])),
            attr("d", Value::optional_secret("not-hidden", false)),
            Item::Block {
                name: "e".to_owned(),
                label: None,
                body: vec![attr("f", Value::optional_secret("three", true))],
            },
        ];
        let mut secrets = BTreeSet::new();
        secrets_of_items(&items, &mut secrets);
        assert_eq!(secrets.iter().map(|secret| &**secret).collect::<Vec<_>>(), ["one-secret", "three", "two-secret"]);
        let book = SecretBook::default();
        book.set(secrets);
        let mut told = [attr("x", Value::array([Value::string("it said two-secret")]))];
        book.mask_items(&mut told);
        let Item::Attr { value, .. } = &told[0] else { panic!("an attribute") };
        assert_eq!(value.to_string(), "[\"it said (secret)\"]");
    }

    #[test]
    fn a_body_is_masked_by_its_names_and_within_capsules() {
        let target = corten_signal::target::Target::new([("token", "hush"), ("job", "a two-secret b")]).unwrap();
        let book = SecretBook::default();
        book.set([Arc::from("two-secret")]);
        let object = |name: &str, value: Value| Value::new(Data::Object(Arc::new([(name.into(), value)].into())));
        for (name, value, expected) in [
            ("headers", object("X-Api-Key", Value::string("hush")), "{\"X-Api-Key\" = \"(secret)\",}"),
            ("params", object("token", Value::array([Value::string("hush")])), "{token = [\"(secret)\"],}"),
            // What is given as a plain text, under a name that tells of no secret, is shown: the reference shows it, too.
            ("headers", object("X-My", Value::string("hush")), "{\"X-My\" = \"hush\",}"),
            ("headers", object("X-Scope-OrgID", Value::string("hush")), "{\"X-Scope-OrgID\" = \"hush\",}"),
            ("headers", object("X-My", Value::string("hush").marked(true)), "{\"X-My\" = (secret),}"),
            ("api_key", Value::string(""), "\"\""),
            ("token", Value::bool(true), "true"),
            ("url", Value::string("http://u:hush@h/?token=hush"), "\"http://u:(secret)@h/?token=(secret)\""),
            (
                "targets",
                Value::array([Value::capsule(Arc::new(target))]),
                "[{job   = \"a (secret) b\",token = \"(secret)\",}]",
            ),
        ] {
            let mut told = [Item::Attr { name: name.to_owned(), value }];
            book.mask_items(&mut told);
            let Item::Attr { value, .. } = &told[0] else { panic!("an attribute") };
            let shown = value.to_string().replace(['\n', '\t'], "");
            assert_eq!(shown, expected, "{name}");
        }
    }

    #[test]
    fn what_a_component_tells_of_its_data_is_masked_by_the_names_in_it() {
        let labels = Item::Attr { name: "labels".to_owned(), value: Value::string("{job=\"a\", token=\"hush\"}") };
        let mut told = [Item::Block { name: "file".to_owned(), label: None, body: vec![labels] }];
        SecretBook::default().mask_debug_info(&mut told);
        assert!(!corten_config::encode::json(&told).contains("hush"));
    }

    #[test]
    fn what_looks_like_a_secret_is_masked() {
        for (text, expected) in [
            ("Authorization: Bearer abcdefgh12345", "Authorization: Bearer (secret)"),
            ("Bearer of news", "Bearer of news"),
            ("Basic authentication failed", "Basic authentication failed"),
            ("Basic dXNlcjpodXNo", "Basic (secret)"),
            ("http://user:pa:ss@host/a?b", "http://user:(secret)@host/a?b"),
            ("http://host:80/a@b", "http://host:80/a@b"),
            ("http://user@host", "http://user@host"),
            ("key AKIAABCDEFGHIJKLMNOP.", "key (secret)."),
            ("XAKIAABCDEFGHIJKLMNOP", "XAKIAABCDEFGHIJKLMNOP"),
            ("glsa_0123456789abcdefghijk", "(secret)"),
            ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.sig", "(secret)"),
            ("eyJ.eyJ.x", "eyJ.eyJ.x"),
            ("eyJ.eyJhbGciOi.eyJzdWIiOi.sig a", "eyJ.(secret) a"),
            ("a eyJhbGciOi.eyJzdWIiOi eyJhbGciOi.x.y", "a eyJhbGciOi.eyJzdWIiOi eyJhbGciOi.x.y"),
            (
                "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----",
                "-----BEGIN RSA PRIVATE KEY-----(secret)\n\n-----END RSA PRIVATE KEY-----",
            ),
            ("-----BEGIN CERTIFICATE-----\nabc", "-----BEGIN CERTIFICATE-----\nabc"),
        ] {
            assert_eq!(redacted(text), expected, "{text}");
        }
    }

    #[test]
    fn data_is_masked_by_its_names() {
        for (text, expected) in [
            ("{job=\"a\", auth_token=\"b c\"} 1", "{job=\"a\", auth_token=\"(secret)\"} 1"),
            ("level=info password=hunter2 user=x", "level=info password=(secret) user=x"),
            ("{\"token\": \"a\\\"b\", \"x\": 1}", "{\"token\": \"(secret)\", \"x\": 1}"),
            ("\"{\\\"token\\\":\\\"ab\\\",\\\"x\\\":1}\"", "\"{\\\"token\\\":\\\"(secret)\\\",\\\"x\\\":1}\""),
            ("Cookie: abc; d=e\nx", "Cookie: (secret)\nx"),
            ("\"Authorization: Token abc\" 200", "\"Authorization: (secret)\" 200"),
            ("password='hunter2 x' y", "password='(secret)' y"),
            // What the value of a header swallows is hidden with it, not shown without its name.
            ("Authorization: abc password=\"hush\" x=1", "Authorization: (secret)"),
            ("Authorization: Digest username=\"u\", response=\"hush\"", "Authorization: (secret)"),
            ("Authorization: abc cookie=[\"hush\", \"hush\"] x=1", "Authorization: (secret)"),
            ("{\"m\":\"an Authorization: Token hush\",\"x\":1}", "{\"m\":\"an Authorization: (secret)\",\"x\":1}"),
            (r#""Authorization: Digest r=\"hush\", x" 200"#, "\"Authorization: (secret)\" 200"),
            ("{'token': 'abc', 'x': 1}", "{'token': '(secret)', 'x': 1}"),
            ("password = hunter2 x", "password = (secret) x"),
            ("password= user=x", "password= user=x"),
            ("{\"token\":{\"a\":[\"b\"]},\"x\":1}", "{\"token\":(secret),\"x\":1}"),
            ("password=\"(secret)-and-more\"", "password=\"(secret)\""),
            ("password=(secret)-and-more x", "password=(secret) x"),
            ("password=-", "password=(secret)"),
            ("completion_tokens=12 token_type=x", "completion_tokens=12 token_type=x"),
            ("http://h/?a=1&token=x&b=2#token=y", "http://h/?a=1&token=(secret)&b=2#token=(secret)"),
            ("password=", "password="),
            ("password=\"", "password=\""),
        ] {
            let mut masked = text.to_owned();
            SecretBook::default().redact_data(&mut masked);
            assert_eq!(masked, expected, "{text}");
        }
    }

    #[test]
    fn names_tell_of_secrets() {
        for name in ["password", "X-Auth-Token", "client_secret", "Set-Cookie", "AUTHORIZATION", "aws_api_key"] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in ["password_file", "token_url", "job", "secret_name", "instance"] {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    /// What secrets and their names are made of, and what stands around them.
    fn part() -> impl Strategy<Value = String> {
        let parts = [
            "token",
            "Token",
            "SECRET",
            "pass",
            "word",
            "api",
            "key",
            "author",
            "ization",
            "cookie",
            "_",
            "-",
            ".",
            "=",
            ":",
            " ",
            "?",
            "&",
            "/",
            "://",
            "@",
            "\"",
            "\\\"",
            "'",
            "{",
            "}",
            "\n",
            "eyJ",
            "AKIA",
            "ghp_",
            "Bearer ",
            "Basic ",
            "-----BEGIN ",
            "PRIVATE KEY",
            "-----",
            "ABCDEFGHIJ0123456789",
            "hunter2",
            "0123456789",
            "_tenant",
            "_id",
            "_file",
            "(secret)",
            "x",
            "é",
        ];
        prop_oneof![
            4 => proptest::sample::select(parts.to_vec()).prop_map(str::to_owned),
            1 => (0..SHAPES.len()).prop_map(|at| SHAPES[at].0.to_owned()),
            1 => "[a-z0-9]{1,9}",
        ]
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_search(text in any::<String>(), parts in proptest::collection::vec(0..SHAPES.len(), 0..6)) {
            let text: String = parts.iter().map(|part| format!("{}{text}", SHAPES[*part].0)).collect();
            let lines = |text: &str| text.matches('\n').count();
            prop_assert_eq!(lines(&redacted(&text)), lines(&text));
            let mut data = text.replace(' ', "token=");
            let before = lines(&data);
            SecretBook::default().redact_data(&mut data);
            prop_assert_eq!(lines(&data), before);
        }

        #[test]
        fn a_glance_masks_no_less_than_a_search(parts in proptest::collection::vec(part(), 0..8), strange in ".{0,3}") {
            let text = parts.concat() + &strange;
            let book = SecretBook::default();
            for secrets in [vec![], vec!["hunter2", "0123456789=", "_tenant_"]] {
                book.set(secrets.into_iter().map(Arc::from));
                let search = |text: &str| {
                    let mut text = text.to_owned();
                    let count = book.redact(&mut text);
                    let named = named(&text);
                    let count = count + mask_ranges(&mut text, named);
                    (text, count)
                };
                let mut redacted = text.clone();
                let count = book.redact_data(&mut redacted);
                prop_assert_eq!((redacted, count), search(&text));
                prop_assert_eq!(book.names_secret(&text), search(&format!("{text}=-")).1 > 0);
            }
        }

        #[test]
        fn a_name_is_secret_by_its_parts(parts in proptest::collection::vec(part(), 0..4)) {
            let name = parts.concat();
            let lower = name.to_ascii_lowercase();
            let has = |first: u8| secret_parts(first).iter().any(|part| lower.contains(part));
            prop_assert_eq!(is_secret_name(&name), (0..=255).any(has) && !NO_SECRET_ENDS.iter().any(|end| lower.ends_with(end)));
        }

        #[test]
        fn no_secret_of_the_book_is_left(secret in "[a-z]{6,12}", around in "[a-z ]{0,20}") {
            let book = SecretBook::default();
            book.set([Arc::from(secret.as_str())]);
            let masked = book.masked(&[&*around, &*secret, &*around].concat());
            prop_assert!(!masked.contains(&secret));
        }
    }
}
