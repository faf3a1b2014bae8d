//! The functions that change something.

use std::collections::HashMap;

use corten_otlp::{Arena, Map, Pair, Text, Value};
use corten_signal::regex::{GoRegex, Groups, Lossy, Template};

use super::Kind::{
    Any, Anys, ConstBool, ConstInt, ConstText, ConstTexts, Function as FunctionName, Int, ListPlace, Map as MapKind,
    MapPlace, Place, Text as TextKind, Texts,
};
use super::{
    Arg, Function, Got, Param, Prepared, Refused, apply, const_int, const_str, const_text, const_texts, expected,
    optional, param, pattern_at, plain, regex_at,
};
use crate::error::EvalError;
use crate::item::Item;
use crate::program::{Call, Path};
use crate::value::{Val, copy_value};

const MAP: Param = param("target", MapPlace);
const REPLACING: [Param; 2] = [optional("function", FunctionName), optional("replacement_format", TextKind)];

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "append",
        params: &[param("target", Place), optional("value", Any), optional("values", Anys)],
        prepare: |args| match (&args[1], &args[2]) {
            (None, None) => Err((0, "append needs value or values".to_owned())),
            _ => Ok(Prepared::Nothing),
        },
        run: append,
    },
    Function {
        name: "delete_index",
        params: &[param("target", ListPlace), param("start_index", Int), optional("end_index", Int)],
        prepare: plain,
        run: delete_index,
    },
    Function {
        name: "delete_key",
        params: &[MAP, param("key", TextKind)],
        prepare: plain,
        run: |call, item| {
            let mut map = target(call, item)?;
            let key = call.owned(1, item)?;
            item.arena.remove(&mut map, &key);
            done(call, item, map)
        },
    },
    Function {
        name: "delete_matching_keys",
        params: &[MAP, param("pattern", TextKind)],
        prepare: regex_at::<1>,
        run: |call, item| matching_keys(call, item, false),
    },
    Function {
        name: "keep_matching_keys",
        params: &[MAP, param("pattern", TextKind)],
        prepare: regex_at::<1>,
        run: |call, item| matching_keys(call, item, true),
    },
    Function {
        name: "keep_keys",
        params: &[MAP, param("keys", Texts)],
        prepare: plain,
        run: |call, item| {
            let mut map = target(call, item)?;
            let keys = call.texts(1, item)?;
            item.arena.retain(&mut map, |arena, pair| keys.iter().any(|key| **key == *arena.bytes(pair.key)));
            done(call, item, map)
        },
    },
    Function {
        name: "flatten",
        params: &[
            MAP,
            optional("prefix", ConstText),
            optional("depth", ConstInt),
            optional("resolve_conflicts", ConstBool),
        ],
        prepare: |args| match const_int(args, 2) {
            Some(depth) if depth < 1 => Err((2, format!("depth must be greater than 0, not {depth}"))),
            _ => Ok(Prepared::Nothing),
        },
        run: flatten,
    },
    Function {
        name: "limit",
        params: &[MAP, param("limit", ConstInt), param("priority_keys", ConstTexts)],
        prepare: |args| {
            let (limit, keys) = (const_int(args, 1).unwrap_or(0), const_texts(args, 2).map_or(0, |keys| keys.len()));
            match usize::try_from(limit) {
                Err(_) => Err((1, format!("limit cannot be negative, as {limit} is"))),
                Ok(limit) if limit < keys => Err((
                    1,
                    format!("limit cannot be less than the number of priority keys, as {limit} is than {keys}"),
                )),
                Ok(_) => Ok(Prepared::Nothing),
            }
        },
        run: limit,
    },
    Function {
        name: "merge_maps",
        params: &[MAP, param("source", MapKind), param("strategy", ConstText)],
        prepare: |args| one_of(args, 2, &["insert", "update", "upsert"]),
        run: merge_maps,
    },
    Function {
        name: "replace_all_matches",
        params: &[MAP, param("pattern", TextKind), param("replacement", TextKind), REPLACING[0], REPLACING[1]],
        prepare: |args| pattern_at::<1>(args, glob),
        run: replace_all_matches,
    },
    Function {
        name: "replace_all_patterns",
        params: &[
            MAP,
            param("mode", ConstText),
            param("regex_pattern", TextKind),
            param("replacement", TextKind),
            REPLACING[0],
            REPLACING[1],
        ],
        prepare: |args| {
            one_of(args, 1, &["key", "value"])?;
            regex_at::<2>(args)
        },
        run: replace_all_patterns,
    },
    Function {
        name: "replace_match",
        params: &[
            param("target", Place),
            param("pattern", TextKind),
            param("replacement", TextKind),
            REPLACING[0],
            REPLACING[1],
        ],
        prepare: |args| pattern_at::<1>(args, glob),
        run: |call, item| {
            let glob = call.pattern_of(1, item, self::glob)?;
            let path = call.place(0)?;
            let value = path.val(item)?;
            let replacement = whole_replacement(call, item)?;
            if value.text(item.arena).is_some_and(|text| glob.is_match_bytes(text, &mut Lossy::new())) {
                path.set(item, Val::from(replacement))?;
            }
            Ok(Val::Nil)
        },
    },
    Function {
        name: "replace_pattern",
        params: &[
            param("target", Place),
            param("regex_pattern", TextKind),
            param("replacement", TextKind),
            REPLACING[0],
            REPLACING[1],
        ],
        prepare: regex_at::<1>,
        run: |call, item| {
            let path = call.place(0)?;
            let value = path.val(item)?;
            if value.is_nil() {
                return Ok(Val::Nil);
            }
            let replacement = call.owned(2, item)?;
            let Some(text) = value.text(item.arena) else { return Ok(Val::Nil) };
            // The text is only copied where there is something to replace.
            if let super::Prepared::Regex(regex) = &call.prepared
                && !regex.is_match_bytes(text, &mut Lossy::new())
            {
                return Ok(Val::Nil);
            }
            let text = text.to_vec();
            let regex = call.pattern(1, item)?;
            if regex.is_match_bytes(&text, &mut Lossy::new()) {
                let replaced = replaced(call, 3, &regex, &text, &replacement, item)?;
                path.set(item, Val::from(replaced))?;
            }
            Ok(Val::Nil)
        },
    },
    Function {
        name: "set",
        params: &[param("target", Place), param("value", Any)],
        prepare: plain,
        run: |call, item| {
            let value = call.any(1, item)?;
            if !matches!(value, Val::Nil) {
                call.place(0)?.set(item, value)?;
            }
            Ok(Val::Nil)
        },
    },
    Function {
        name: "stringify_all",
        params: &[MAP],
        prepare: plain,
        run: |call, item| {
            let map = target(call, item)?;
            for at in 0..map.len() {
                let value = item.arena.pairs(map)[at].value;
                if !matches!(value, Value::Str(_)) {
                    let mut text = Vec::new();
                    item.arena.write_text(value, &mut text);
                    let text = Value::Str(item.arena.own(&text));
                    item.arena.pairs_mut(map)[at].value = text;
                }
            }
            done(call, item, map)
        },
    },
    Function {
        name: "truncate_all",
        params: &[
            MAP,
            param("limit", ConstInt),
            optional("utf8_safe", ConstBool),
            optional("truncation_marker", ConstText),
        ],
        prepare: |args| {
            let limit = const_int(args, 1).unwrap_or(0);
            let marker = const_text(args, 3).map_or(0, <[u8]>::len);
            match usize::try_from(limit) {
                Err(_) => Err((1, format!("limit cannot be negative, as {limit} is"))),
                Ok(limit) if marker > limit => {
                    Err((3, format!("the marker cannot be longer than the limit, as {marker} is than {limit}")))
                }
                Ok(_) => Ok(Prepared::Nothing),
            }
        },
        run: truncate_all,
    },
];

/// Refuses a text that is none of some.
pub(super) fn one_of(args: &[Option<Arg>], at: usize, known: &[&str]) -> Result<Prepared, Refused> {
    match const_str(args, at) {
        Some(text) if !known.contains(&&*text) => Err((at, format!("{text:?} is none of {}", known.join(", ")))),
        _ => Ok(Prepared::Nothing),
    }
}

/// The map that is changed.
fn target(call: &Call, item: &mut Item<'_>) -> Result<Map, EvalError> {
    match call.place(0)?.val(item)? {
        Val::Map(map) => Ok(map),
        other => expected("pcommon.Map", &other),
    }
}

/// Puts back the map that was changed.
fn done<'p>(call: &Call, item: &mut Item<'_>, map: Map) -> Got<'p> {
    put_back(call.place(0)?, item, map)?;
    Ok(Val::Nil)
}

/// Writes a map to where it was read, without making another one of it.
fn put_back(path: &Path, item: &mut Item<'_>, map: Map) -> Result<(), EvalError> {
    if path.keys.is_empty() && crate::path::root_map(path.leaf, item).is_some() {
        return crate::path::set_root_map(path.leaf, item, map);
    }
    path.set(item, Val::Map(map))
}

fn append<'p>(call: &'p Call, item: &mut Item<'_>) -> Got<'p> {
    let path = call.place(0)?;
    let mut values = match path.val(item)? {
        Val::Nil => Vec::new(),
        Val::List(list) => item.arena.values(list).to_vec(),
        other => vec![other.into_value(item.arena)?],
    };
    if call.has(1) {
        let value = call.any(1, item)?;
        values.push(value.into_value(item.arena)?);
    }
    for ex in call.many(2) {
        let value = ex.val(item)?;
        values.push(value.into_value(item.arena)?);
    }
    let list = item.arena.list(&values);
    path.set(item, Val::List(list))?;
    Ok(Val::Nil)
}

fn delete_index<'p>(call: &'p Call, item: &mut Item<'_>) -> Got<'p> {
    let path = call.place(0)?;
    let list = match path.val(item)? {
        Val::List(list) => list,
        other => return expected("pcommon.Slice", &other),
    };
    let start = call.int(1, item)?;
    let end = if call.has(2) { call.int(2, item)? } else { start.saturating_add(1) };
    let len = list.len() as i64;
    let all = start == 0 && end == len;
    if !all && (start < 0 || start >= len) {
        return Err(format!("startIndex {start} out of bounds for slice of length {len}").into());
    }
    if end < start {
        return Err(format!("endIndex {end} cannot be less than startIndex {start}").into());
    }
    if end > len {
        return Err(format!("deletion range [{start}:{end}] out of bounds for slice of length {len}").into());
    }
    let mut values = item.arena.values(list).to_vec();
    values.drain(start as usize..end as usize);
    let list = item.arena.list(&values);
    path.set(item, Val::List(list))?;
    Ok(Val::Nil)
}

fn matching_keys<'p>(call: &'p Call, item: &mut Item<'_>, keep: bool) -> Got<'p> {
    let regex = call.pattern(1, item)?;
    let mut map = target(call, item)?;
    let mut lossy = Lossy::new();
    item.arena.retain(&mut map, |arena, pair| regex.is_match_bytes(arena.bytes(pair.key), &mut lossy) == keep);
    done(call, item, map)
}

fn limit<'p>(call: &'p Call, item: &mut Item<'_>) -> Got<'p> {
    let mut map = target(call, item)?;
    let limit = call.const_int(1).unwrap_or(0) as usize;
    if map.len() <= limit {
        return Ok(Val::Nil);
    }
    let first = const_texts(&call.args, 2).unwrap_or_default();
    let mut count = first.iter().filter(|key| item.arena.get(map, key).is_some()).count();
    item.arena.retain(&mut map, |arena, pair| {
        if first.contains(&arena.bytes(pair.key)) {
            return true;
        }
        count += 1;
        count <= limit
    });
    done(call, item, map)
}

fn merge_maps<'p>(call: &'p Call, item: &mut Item<'_>) -> Got<'p> {
    let mut map = target(call, item)?;
    let source = call.map(1, item)?;
    let (insert, update) = match call.const_text(2) {
        Some(b"insert") => (true, false),
        Some(b"update") => (false, true),
        _ => (true, true),
    };
    for at in 0..source.len() {
        let pair = item.arena.pairs(source)[at];
        let found =
            item.arena.pairs(map).iter().position(|known| item.arena.bytes(known.key) == item.arena.bytes(pair.key));
        match found {
            Some(at) if update => {
                let value = copy_value(item.arena, pair.value);
                item.arena.pairs_mut(map)[at].value = value;
            }
            None if insert => {
                let value = copy_value(item.arena, pair.value);
                item.arena.push(&mut map, pair.key, value);
            }
            _ => {}
        }
    }
    done(call, item, map)
}

fn truncate_all<'p>(call: &'p Call, item: &mut Item<'_>) -> Got<'p> {
    let map = target(call, item)?;
    let limit = call.const_int(1).unwrap_or(0) as usize;
    let safe = call.const_bool(2).unwrap_or(true);
    let marker = call.const_text(3).unwrap_or_default();
    for at in 0..map.len() {
        let Value::Str(text) = item.arena.pairs(map)[at].value else { continue };
        if text.len() <= limit {
            continue;
        }
        let bytes = item.arena.bytes(text);
        let mut end = limit - marker.len();
        while safe && end > 0 && bytes.get(end).is_some_and(|byte| byte & 0xc0 == 0x80) {
            end -= 1;
        }
        let mut short = item.arena.part(text, 0..end);
        if !marker.is_empty() {
            let joined = [item.arena.bytes(short), marker].concat();
            short = item.arena.own(&joined);
        }
        item.arena.pairs_mut(map)[at].value = Value::Str(short);
    }
    done(call, item, map)
}

/// What a map becomes when all within it is brought to the top.
struct Flat {
    pairs: Vec<Pair>,
    places: HashMap<Vec<u8>, usize>,
    /// How often a key was met, where keys that are met again get numbers.
    conflicts: Option<HashMap<Vec<u8>, usize>>,
    depth_max: i64,
}

fn flatten<'p>(call: &'p Call, item: &mut Item<'_>) -> Got<'p> {
    let map = target(call, item)?;
    let mut flat = Flat {
        pairs: Vec::new(),
        places: HashMap::new(),
        conflicts: call.const_bool(3).unwrap_or(false).then(HashMap::new),
        depth_max: call.const_int(2).unwrap_or(i64::MAX),
    };
    flat.map(item.arena, map, call.const_text(1).unwrap_or_default(), 0);
    let map = item.arena.map(&flat.pairs);
    done(call, item, map)
}

impl Flat {
    fn map(&mut self, arena: &mut Arena, map: Map, prefix: &[u8], depth: i64) {
        for at in 0..map.len() {
            let pair = arena.pairs(map)[at];
            let mut key = prefix.to_vec();
            if !key.is_empty() {
                key.push(b'.');
            }
            key.extend_from_slice(arena.bytes(pair.key));
            self.value(arena, key, pair.value, depth);
        }
    }

    fn value(&mut self, arena: &mut Arena, key: Vec<u8>, value: Value, depth: i64) {
        match value {
            Value::Map(map) if depth < self.depth_max => self.map(arena, map, &key, depth + 1),
            Value::List(list) if depth < self.depth_max => {
                for at in 0..list.len() {
                    let value = arena.values(list)[at];
                    let key_of = |at: usize| [&key, format!(".{at}").as_bytes()].concat();
                    match value {
                        Value::Map(map) if depth + 1 < self.depth_max => self.map(arena, map, &key_of(at), depth + 2),
                        Value::List(inner) if depth + 1 < self.depth_max => {
                            for inner_at in 0..inner.len() {
                                let value = arena.values(inner)[inner_at];
                                // The collector has no point between the two numbers of a list within a list.
                                let key = [key_of(at), inner_at.to_string().into_bytes()].concat();
                                self.value(arena, key, value, depth + 3);
                            }
                        }
                        // Where conflicts are resolved, that is also what numbers the items.
                        value if self.conflicts.is_some() => self.put(arena, key.clone(), value),
                        value => self.put(arena, key_of(at), value),
                    }
                }
            }
            value => self.put(arena, key, value),
        }
    }

    fn put(&mut self, arena: &mut Arena, mut key: Vec<u8>, value: Value) {
        if let Some(conflicts) = &mut self.conflicts {
            if self.places.contains_key(&key) {
                let count = conflicts.entry(key.clone()).or_default();
                key.extend_from_slice(format!(".{count}").as_bytes());
                *count += 1;
            } else {
                conflicts.insert(key.clone(), 0);
            }
        }
        match self.places.get(&key) {
            Some(at) => self.pairs[*at].value = value,
            None => {
                let text: Text = arena.own(&key);
                self.places.insert(key, self.pairs.len());
                self.pairs.push(Pair { key: text, value });
            }
        }
    }
}

/// A glob pattern as a regular expression that matches the whole text.
fn glob(pattern: &str) -> String {
    let mut out = String::from("^(?s:");
    let mut chars = pattern.chars().peekable();
    let mut braces = 0;
    let literal = |character: char, out: &mut String| {
        if r"\.+*?()|[]{}^$".contains(character) {
            out.push('\\');
        }
        out.push(character);
    };
    while let Some(character) = chars.next() {
        match character {
            '*' => {
                while chars.next_if_eq(&'*').is_some() {}
                out.push_str(".*");
            }
            '?' => out.push('.'),
            '[' => {
                out.push('[');
                if chars.next_if_eq(&'!').is_some() {
                    out.push('^');
                }
                while let Some(character) = chars.next() {
                    match character {
                        ']' => {
                            out.push(']');
                            break;
                        }
                        '-' => out.push('-'),
                        '\\' => literal(chars.next().unwrap_or('\\'), &mut out),
                        character => literal(character, &mut out),
                    }
                }
            }
            '{' => {
                braces += 1;
                out.push_str("(?:");
            }
            '}' if braces > 0 => {
                braces -= 1;
                out.push(')');
            }
            ',' if braces > 0 => out.push('|'),
            '\\' => literal(chars.next().unwrap_or('\\'), &mut out),
            character => literal(character, &mut out),
        }
    }
    // What was not closed is closed at the end.
    out.extend(std::iter::repeat_n(')', braces));
    out.push_str(")$");
    out
}

/// The replacement of a whole text, made by a function if there is one.
fn whole_replacement(call: &Call, item: &mut Item<'_>) -> Result<Vec<u8>, EvalError> {
    let replacement = call.owned(2, item)?.into_owned();
    let Some(Some(Arg::Function(function))) = call.args.get(3) else { return Ok(replacement) };
    let replacement = apply(function, replacement, item)?;
    formatted(call, 4, replacement, item)
}

/// Puts a text into the format that is given for it.
fn formatted(call: &Call, at: usize, text: Vec<u8>, item: &mut Item<'_>) -> Result<Vec<u8>, EvalError> {
    if !call.has(at) {
        return Ok(text);
    }
    let format = call.owned(at, item)?;
    let first = format.windows(2).position(|pair| pair == b"%s");
    let others = format.windows(2).any(|pair| pair[0] == b'%' && pair[1] != b's');
    let (Some(first), false, None) = (first, others, format.iter().position(|byte| *byte == b'\n')) else {
        return Err(
            "replacementFormat must be format string containing a single %s and no other format specifiers".into()
        );
    };
    let rest = &format[first + 2..];
    let mut out = [&format[..first], &text].concat();
    // There is only one text for further places.
    let mut rest = rest;
    while let Some(at) = rest.windows(2).position(|pair| pair == b"%s") {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(b"%!s(MISSING)");
        rest = &rest[at + 2..];
    }
    out.extend_from_slice(rest);
    if out.last() == Some(&b'%') {
        out.extend_from_slice(b"!(NOVERB)");
    }
    Ok(out)
}

/// A text with all matches replaced, each by what the function at an argument makes of it, if there is one.
fn replaced(
    call: &Call,
    function_at: usize,
    regex: &GoRegex,
    text: &[u8],
    replacement: &[u8],
    item: &mut Item<'_>,
) -> Result<Vec<u8>, EvalError> {
    let replacement = String::from_utf8_lossy(replacement);
    let template = Template::new(&replacement, regex);
    let (mut lossy, mut groups, mut out) = (Lossy::new(), Groups::new(), String::new());
    let (text, _) = lossy.text(text);
    let Some(Some(Arg::Function(function))) = call.args.get(function_at) else {
        regex.replace_all(text, &template, &mut groups, &mut out);
        return Ok(out.into_bytes());
    };
    let mut out = Vec::new();
    let (mut copied, mut at) = (0, 0);
    while at <= text.len() && regex.captures_at(text, at, &mut groups) {
        let Some(found) = groups.get(0) else { break };
        // An empty match right behind another match does not count.
        if found.end > copied || found.start == 0 {
            let mut input = String::new();
            template.expand(text, &groups, &mut input);
            let made = apply(function, input.into_bytes(), item)?;
            let made = formatted(call, function_at + 1, made, item)?;
            out.extend_from_slice(&text.as_bytes()[copied..found.start]);
            out.extend_from_slice(&made);
            copied = found.end;
        }
        let step = text[at..].chars().next().map_or(1, char::len_utf8);
        at = found.end.max(at + step);
    }
    out.extend_from_slice(&text.as_bytes()[copied..]);
    Ok(out)
}

fn replace_all_matches<'p>(call: &'p Call, item: &mut Item<'_>) -> Got<'p> {
    let glob = call.pattern_of(1, item, glob)?;
    let map = target(call, item)?;
    let replacement = whole_replacement(call, item)?;
    let mut lossy = Lossy::new();
    let mut new = None;
    for at in 0..map.len() {
        let Value::Str(text) = item.arena.pairs(map)[at].value else { continue };
        if glob.is_match_bytes(item.arena.bytes(text), &mut lossy) {
            let new = *new.get_or_insert_with(|| item.arena.own(&replacement));
            item.arena.pairs_mut(map)[at].value = Value::Str(new);
        }
    }
    done(call, item, map)
}

fn replace_all_patterns<'p>(call: &'p Call, item: &mut Item<'_>) -> Got<'p> {
    let map = target(call, item)?;
    let replacement = call.owned(3, item)?;
    let regex = call.pattern(2, item)?;
    let mut lossy = Lossy::new();
    if call.const_text(1) == Some(b"value") {
        for at in 0..map.len() {
            let Value::Str(text) = item.arena.pairs(map)[at].value else { continue };
            let bytes = item.arena.bytes(text);
            if !regex.is_match_bytes(bytes, &mut lossy) {
                continue;
            }
            let bytes = bytes.to_vec();
            // What the function cannot make anything of stays.
            if let Ok(new) = replaced(call, 4, &regex, &bytes, &replacement, item) {
                let new = Value::Str(item.arena.own(&new));
                item.arena.pairs_mut(map)[at].value = new;
            }
        }
        return done(call, item, map);
    }
    let mut pairs: Vec<Pair> = Vec::with_capacity(map.len());
    let mut changed = false;
    for at in 0..map.len() {
        let mut pair = item.arena.pairs(map)[at];
        let key = item.arena.bytes(pair.key);
        if regex.is_match_bytes(key, &mut lossy) {
            let key = key.to_vec();
            changed = true;
            // What the function cannot make anything of goes.
            let Ok(new) = replaced(call, 4, &regex, &key, &replacement, item) else { continue };
            pair.key = item.arena.own(&new);
        }
        match pairs.iter_mut().find(|known| item.arena.bytes(known.key) == item.arena.bytes(pair.key)) {
            Some(known) => known.value = pair.value,
            None => pairs.push(pair),
        }
    }
    if !changed {
        return Ok(Val::Nil);
    }
    let map = item.arena.map(&pairs);
    done(call, item, map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_whole_texts() {
        for (pattern, text, matches) in [
            ("a*c", "abbc", true),
            ("a*c", "abcd", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("/user/*/list/*", "/user/1/list/2/3", true),
            ("[ab]x", "bx", true),
            ("[!ab]x", "bx", false),
            ("[a-c]x", "bx", true),
            ("{ab,c*}d", "cxxd", true),
            ("{ab,c}d", "xd", false),
            ("a.c", "abc", false),
            ("a\\*", "a*", true),
            ("a,b", "a,b", true),
            ("*", "a\nb", true),
        ] {
            assert_eq!(GoRegex::new(&glob(pattern)).unwrap().is_match(text), matches, "{pattern} {text}");
        }
    }
}
