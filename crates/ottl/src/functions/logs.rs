//! The functions of log records: formats that devices and web servers log in.

use std::sync::LazyLock;

use corten_golang::parse_int;
use corten_otlp::{Arena, Map, Pair, Value};
use corten_signal::regex::{GoRegex, Groups, Lossy};

use super::Kind::{ConstText, Text};
use super::lists::find;
use super::{Function, Got, Param, optional, own, param, plain};
use crate::error::EvalError;
use crate::item::Item;
use crate::program::Call;
use crate::value::{Val, unhex};

const TARGET: Param = param("target", Text);

pub(super) const FUNCTIONS: &[Function] = &[
    Function { name: "ParseCEF", params: &[TARGET], prepare: plain, run: parse_cef },
    Function {
        name: "ParseCLF",
        params: &[TARGET, optional("format", ConstText)],
        prepare: |args| super::editors::one_of(args, 1, &["clf", "combined"]),
        run: parse_clf,
    },
    Function { name: "ParseELF", params: &[TARGET], prepare: plain, run: parse_elf },
    Function { name: "ParseLEEF", params: &[TARGET], prepare: plain, run: parse_leef },
];

fn input(call: &Call, item: &mut Item<'_>, what: &str) -> Result<Vec<u8>, EvalError> {
    let text = call.owned(0, item)?.into_owned();
    if text.is_empty() { Err(format!("cannot parse empty {what} message").into()) } else { Ok(text) }
}

fn pair(arena: &mut Arena, key: &str, text: &[u8]) -> Pair {
    Pair { key: arena.own(key.as_bytes()), value: own(arena, text) }
}

/// Takes backslashes away before some characters, or turns both into another one.
fn unescape(text: &[u8], escapes: &[(u8, u8)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let escape = text.get(at + 1).and_then(|next| escapes.iter().find(|(known, _)| known == next));
        match (text[at], escape) {
            (b'\\', Some((_, plain))) => {
                out.push(*plain);
                at += 2;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

fn parse_cef<'p>(call: &'p Call, item: &mut Item<'_>) -> Got<'p> {
    let text = input(call, item, "CEF")?;
    let start = find(&text, b"CEF:").ok_or("invalid CEF message: 'CEF:' not found")?;
    let message = &text[start..];
    let mut fields: Vec<&[u8]> = Vec::new();
    let (mut field, mut at, mut extension) = (0, 0, None);
    while at < message.len() {
        match message[at] {
            b'\\' if matches!(message.get(at + 1), Some(b'|' | b'\\')) => at += 1,
            b'|' => {
                fields.push(&message[field..at]);
                field = at + 1;
                if fields.len() == 7 {
                    extension = Some(&message[field..]);
                    break;
                }
            }
            _ => {}
        }
        at += 1;
    }
    if extension.is_none() {
        fields.push(&message[field..]);
    }
    if fields.len() < 7 {
        return Err(
            format!("invalid CEF header: expected at least 7 pipe-delimited fields, got {}", fields.len()).into()
        );
    }
    let version = &fields[0][b"CEF:".len()..];
    if version.is_empty() {
        return Err("invalid CEF message: missing version".into());
    }
    let names = ["device_vendor", "device_product", "device_version", "device_event_class_id", "name", "severity"];
    let arena = &mut *item.arena;
    let mut pairs = vec![pair(arena, "cef.version", version)];
    for (name, field) in names.iter().zip(&fields[1..]) {
        let field = unescape(field, &[(b'|', b'|'), (b'\\', b'\\')]);
        pairs.push(pair(arena, &format!("cef.{name}"), &field));
    }
    let mut extensions = Map::default();
    let extension = extension.unwrap_or_default();
    let mut put = |key: &[u8], value: &[u8]| {
        let value = value.iter().rposition(|byte| *byte != b' ').map_or(&b""[..], |last| &value[..=last]);
        let value = unescape(value, &[(b'\\', b'\\'), (b'=', b'='), (b'n', b'\n'), (b'r', b'\r')]);
        let value = own(arena, &value);
        arena.put(&mut extensions, key, value);
    };
    let (mut key, mut at): (Option<(&[u8], usize)>, usize) = (None, 0);
    while at < extension.len() {
        // A key begins at the start, or behind a space.
        let is_key = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'_';
        let begins = at == 0 || extension[at - 1] == b' ';
        let len = if begins { extension[at..].iter().take_while(is_key).count() } else { 0 };
        if len > 0 && extension.get(at + len) == Some(&b'=') {
            if let Some((key, start)) = key {
                put(key, &extension[start..at]);
            }
            key = Some((&extension[at..at + len], at + len + 1));
            at += len + 1;
        } else {
            at += 1;
        }
    }
    if let Some((key, start)) = key {
        put(key, &extension[start..]);
    }
    pairs.push(Pair { key: arena.own(b"cef.extensions"), value: Value::Map(extensions) });
    Ok(Val::Map(arena.map(&pairs)))
}

fn parse_clf<'p>(call: &'p Call, item: &mut Item<'_>) -> Got<'p> {
    static PATTERNS: LazyLock<Option<[GoRegex; 2]>> = LazyLock::new(|| {
        let quoted = r#""((?:[^"\\]|\\.)*)""#;
        let common = format!(r"^(\S+) (\S+) (\S+) \[([^\]]+)\] {quoted} (\S+) (\S+)");
        let common_only = GoRegex::new(&format!("{common}$")).ok()?;
        Some([common_only, GoRegex::new(&format!("{common} {quoted} {quoted}$")).ok()?])
    });
    let text = input(call, item, "CLF")?;
    let text = super::maps::trimmed(&text);
    let combined = call.const_text(1) == Some(b"combined");
    let (mut lossy, mut groups) = (Lossy::new(), Groups::new());
    let pattern = PATTERNS.as_ref().map(|patterns| &patterns[usize::from(combined)]);
    if !pattern.is_some_and(|pattern| pattern.captures_bytes(text, &mut lossy, &mut groups)) {
        return Err("invalid CLF message: does not match the expected format".into());
    }
    let group = |at: usize| groups.get(at).map(|range| &text[range]).unwrap_or_default();
    let arena = &mut *item.arena;
    let mut pairs = Vec::new();
    for (at, name) in [(1, "clf.remote_host"), (2, "clf.rfc931"), (3, "clf.auth_user"), (4, "clf.timestamp")] {
        pairs.push(pair(arena, name, group(at)));
    }
    let request = unescape_clf(group(5));
    pairs.push(pair(arena, "clf.request", &request));
    let mut parts = request.splitn(3, |byte| *byte == b' ');
    if let (Some(method), Some(uri), Some(protocol)) = (parts.next(), parts.next(), parts.next()) {
        for (name, part) in [("clf.method", method), ("clf.request_uri", uri), ("clf.protocol", protocol)] {
            pairs.push(pair(arena, name, part));
        }
    }
    let number = |text: &[u8], what: &str| {
        parse_int(text, 10)
            .map(Value::Int)
            .map_err(|_| EvalError::new(format!("invalid {what} {:?}", String::from_utf8_lossy(text))))
    };
    pairs.push(Pair { key: arena.own(b"clf.status"), value: number(group(6), "status code")? });
    if group(7) != b"-" {
        pairs.push(Pair { key: arena.own(b"clf.bytes"), value: number(group(7), "bytes value")? });
    }
    if combined {
        pairs.push(pair(arena, "clf.referer", &unescape_clf(group(8))));
        pairs.push(pair(arena, "clf.user_agent", &unescape_clf(group(9))));
    }
    Ok(Val::Map(arena.map(&pairs)))
}

/// Takes the escapes away that web servers log with.
fn unescape_clf(text: &[u8]) -> Vec<u8> {
    let escapes =
        [(b'\\', b'\\'), (b'"', b'"'), (b'n', b'\n'), (b't', b'\t'), (b'r', b'\r'), (b'b', 8), (b'f', 12), (b'v', 11)];
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        let (b'\\', Some((next, behind))) = (*byte, behind.split_first()) else {
            out.push(*byte);
            continue;
        };
        rest = behind;
        if let Some((_, plain)) = escapes.iter().find(|(known, _)| known == next) {
            out.push(*plain);
        } else if let (b'x', Some(code)) = (*next, behind.get(..2).and_then(unhex)) {
            out.extend(code);
            rest = &behind[2..];
        } else {
            out.extend([b'\\', *next]);
        }
    }
    out
}

fn parse_elf<'p>(call: &'p Call, item: &mut Item<'_>) -> Got<'p> {
    let text = input(call, item, "ELF")?;
    let arena = &mut *item.arena;
    let mut directives = Map::default();
    let mut entries = Vec::new();
    let mut fields: Vec<&[u8]> = Vec::new();
    let known = ["version", "software", "date", "start-date", "end-date", "remark"];
    for line in
        text.split(|byte| matches!(byte, b'\n' | b'\r')).map(super::maps::trimmed).filter(|line| !line.is_empty())
    {
        if let Some(body) = line.strip_prefix(b"#") {
            let Some(colon) = body.iter().position(|byte| *byte == b':') else {
                if body.trim_ascii().get(..6).is_some_and(|name| name.eq_ignore_ascii_case(b"fields")) {
                    return Err("invalid ELF: malformed #Fields directive".into());
                }
                continue;
            };
            let (name, value) = (body[..colon].trim_ascii(), super::maps::trimmed(&body[colon + 1..]));
            if name.eq_ignore_ascii_case(b"fields") {
                fields = value.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty()).collect();
            } else if let Some(name) = known.iter().find(|known| name.eq_ignore_ascii_case(known.as_bytes())) {
                let value = own(arena, value);
                arena.put(&mut directives, format!("elf.{}", name.replace('-', "_")).as_bytes(), value);
            }
            continue;
        }
        if fields.is_empty() {
            return Err("invalid ELF: data entry found before #Fields directive".into());
        }
        let values = elf_values(line)?;
        let mut entry = Map::default();
        for (at, field) in fields.iter().enumerate() {
            let value = own(arena, values.get(at).map_or(b"-", |value| &**value));
            arena.put(&mut entry, field, value);
        }
        entries.push(Value::Map(entry));
    }
    if arena.get(directives, b"elf.version").is_none() {
        return Err("invalid ELF: missing #Version directive".into());
    }
    let entries = Value::List(arena.list(&entries));
    arena.put(&mut directives, b"elf.entries", entries);
    let fields: Vec<Value> = fields.iter().map(|field| own(arena, field)).collect();
    let fields = Value::List(arena.list(&fields));
    arena.put(&mut directives, b"elf.fields", fields);
    Ok(Val::Map(directives))
}

/// Values between white space, some of them in quotes; two quotes within stand for one.
fn elf_values(line: &[u8]) -> Result<Vec<Vec<u8>>, EvalError> {
    let (mut values, mut rest) = (Vec::new(), line);
    loop {
        rest = &rest[rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count()..];
        let Some(first) = rest.first() else { return Ok(values) };
        if *first != b'"' {
            let len = rest.iter().take_while(|byte| !matches!(byte, b' ' | b'\t')).count();
            values.push(rest[..len].to_vec());
            rest = &rest[len..];
            continue;
        }
        let mut value = Vec::new();
        rest = &rest[1..];
        loop {
            let end = rest.iter().position(|byte| *byte == b'"');
            let end = end.ok_or("invalid ELF: unterminated quoted value in data line")?;
            value.extend_from_slice(&rest[..end]);
            rest = &rest[end + 1..];
            match rest.strip_prefix(b"\"") {
                Some(behind) => {
                    value.push(b'"');
                    rest = behind;
                }
                None => break,
            }
        }
        values.push(value);
    }
}

fn parse_leef<'p>(call: &'p Call, item: &mut Item<'_>) -> Got<'p> {
    let text = input(call, item, "LEEF")?;
    let start = find(&text, b"LEEF:").ok_or("invalid LEEF message: 'LEEF:' not found")?;
    let message = &text[start + b"LEEF:".len()..];
    let mut parts = message.split(|byte| *byte == b'|');
    let version = parts.next().unwrap_or_default();
    if version.len() == message.len() {
        return Err("invalid LEEF message: missing pipe delimiter in header".into());
    }
    if version != b"1.0" && version != b"2.0" {
        let version = String::from_utf8_lossy(version);
        return Err(format!("unsupported LEEF version: {version} (supported: 1.0, 2.0)").into());
    }
    let header: Vec<&[u8]> = parts.by_ref().take(4).collect();
    if header.len() < 4 {
        return Err(format!("invalid LEEF header: expected at least 4 fields, got {}", header.len()).into());
    }
    let behind = |fields: usize| {
        let len: usize = version.len() + 1 + header.iter().map(|field| field.len() + 1).sum::<usize>();
        let rest = message.get(len..).unwrap_or_default();
        let at = rest.iter().position(|byte| *byte == b'|');
        if fields == 4 { rest } else { at.map(|at| &rest[at + 1..]).unwrap_or_default() }
    };
    let (mut delimiter, mut attributes) = (b'\t', behind(4));
    if version == b"2.0"
        && let Some(written) = parts.next()
        && !written.contains(&b'=')
    {
        attributes = behind(5);
        delimiter = match written.strip_prefix(b"0x").or_else(|| written.strip_prefix(b"0X")) {
            Some(digits) => match unhex(digits).as_deref() {
                Some([byte]) => *byte,
                _ => return Err("invalid LEEF 2.0 delimiter: it is not one byte".into()),
            },
            None => match written {
                [] => b'\t',
                [byte] => *byte,
                _ => return Err("invalid LEEF 2.0 delimiter: it is not a single character".into()),
            },
        };
    }
    let arena = &mut *item.arena;
    let names = ["leef.vendor", "leef.product.name", "leef.product.version", "leef.event.id"];
    let mut pairs = vec![pair(arena, "leef.version", version)];
    for (name, field) in names.iter().zip(header) {
        pairs.push(pair(arena, name, field));
    }
    let mut map = Map::default();
    for one in attributes.split(|byte| *byte == delimiter) {
        let Some(at) = one.iter().position(|byte| *byte == b'=').filter(|at| *at > 0) else { continue };
        let value = own(arena, &one[at + 1..]);
        arena.put(&mut map, &one[..at], value);
    }
    pairs.push(Pair { key: arena.own(b"leef.attributes"), value: Value::Map(map) });
    Ok(Val::Map(arena.map(&pairs)))
}
