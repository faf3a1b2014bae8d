//! Which attributes of spans become attributes of metrics.

use std::collections::BTreeMap;

use corten_otlp::{Arena, Map, Value};
use corten_signal::regex::GoRegex;

/// The names and patterns of attributes.
#[derive(Debug, Default)]
pub(super) struct Dimensions {
    names: Vec<Named>,
    globs: Vec<GoRegex>,
}

#[derive(Debug)]
struct Named {
    name: Box<[u8]>,
    default: Option<Box<[u8]>>,
}

/// The value of a dimension.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found<'a> {
    /// An attribute's.
    Attribute(Value),
    /// What the configuration says where there is none.
    Default(&'a [u8]),
}

impl Dimensions {
    pub(super) fn name(&mut self, name: &str, default: Option<&str>) {
        self.names.push(Named { name: name.as_bytes().into(), default: default.map(|text| text.as_bytes().into()) });
    }

    pub(super) fn glob(&mut self, pattern: GoRegex) {
        self.globs.push(pattern);
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty() && self.globs.is_empty()
    }

    /// Finds the dimensions in maps, of which earlier ones come first.
    #[inline]
    pub(super) fn each<'a>(&'a self, arena: &'a Arena, maps: [Map; 3], mut each: impl FnMut(&'a [u8], Found<'a>)) {
        for named in &self.names {
            let found = maps.iter().find_map(|map| arena.get(*map, &named.name));
            match (found, &named.default) {
                (Some(value), _) => each(&named.name, Found::Attribute(value)),
                (None, Some(default)) => each(&named.name, Found::Default(default)),
                (None, None) => {}
            }
        }
        if !self.globs.is_empty() {
            self.matching(arena, maps, &mut |name, value| each(name, Found::Attribute(value)));
        }
    }

    /// What patterns match: the attributes of the span in the order of their names, and then the others.
    fn matching<'a>(&self, arena: &'a Arena, [first, second, third]: [Map; 3], each: &mut dyn FnMut(&'a [u8], Value)) {
        let matches = |name: &[u8]| {
            let name = String::from_utf8_lossy(name);
            self.globs.iter().any(|glob| glob.is_match(&name))
        };
        let mut own = BTreeMap::new();
        for pair in arena.pairs(first) {
            own.entry(arena.bytes(pair.key)).or_insert(pair.value);
        }
        let mut others = BTreeMap::new();
        for pair in arena.pairs(second).iter().chain(arena.pairs(third)) {
            let name = arena.bytes(pair.key);
            if !own.contains_key(name) {
                others.entry(name).or_insert(pair.value);
            }
        }
        for (name, value) in own.into_iter().chain(others).filter(|(name, _)| matches(name)) {
            each(name, value);
        }
    }
}

/// A pattern of names as a regular expression: `*` and `?` do not match dots, `**` does; `[a-z]`, `[!abc]`, `{a,b}`.
pub(super) fn glob(pattern: &str) -> Result<GoRegex, String> {
    let mut out = String::from("^(?s:");
    let mut chars = pattern.chars().peekable();
    let mut depth = 0u32;
    while let Some(char) = chars.next() {
        match char {
            '*' if chars.next_if_eq(&'*').is_some() => out.push_str(".*"),
            '*' => out.push_str("[^.]*"),
            '?' => out.push_str("[^.]"),
            '[' => range(&mut chars, &mut out)?,
            '{' => {
                depth += 1;
                out.push_str("(?:");
            }
            '}' if depth > 0 => {
                depth -= 1;
                out.push(')');
            }
            ',' if depth > 0 => out.push('|'),
            '\\' => {
                if let Some(char) = chars.next() {
                    literal(char, &mut out);
                }
            }
            char => literal(char, &mut out),
        }
    }
    // What is not closed ends with the pattern.
    out.extend(std::iter::repeat_n(')', depth as usize));
    out.push_str(")$");
    GoRegex::new(&out).map_err(|error| error.to_string())
}

/// A range of characters, or a list of them.
fn range(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, out: &mut String) -> Result<(), String> {
    const END: &str = "unexpected end of input";
    out.push('[');
    if chars.next_if_eq(&'!').is_some() {
        out.push('^');
    }
    let low = chars.next().ok_or(END)?;
    if chars.next_if_eq(&'-').is_some() {
        let high = chars.next().ok_or(END)?;
        if chars.next().ok_or(END)? != ']' {
            return Err("expected close range character".to_owned());
        }
        if high < low {
            return Err(format!("hi character '{high}' should be greater than lo '{low}'"));
        }
        literal(low, out);
        out.push('-');
        literal(high, out);
    } else {
        let mut next = Some(low);
        let mut some = false;
        loop {
            match next.ok_or(END)? {
                ']' => break,
                '\\' => literal(chars.next().ok_or(END)?, out),
                char => literal(char, out),
            }
            some = true;
            next = chars.next();
        }
        if !some {
            return Err("could not parse range".to_owned());
        }
    }
    out.push(']');
    Ok(())
}

fn literal(char: char, out: &mut String) {
    if char.is_ascii_punctuation() {
        out.push('\\');
    }
    out.push(char);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_whole_names_and_a_star_no_dots() {
        for (pattern, name, want) in [
            ("http.*", "http.method", true),
            ("http.*", "http.request.method", false),
            ("http.**", "http.request.method", true),
            ("http.*", "xhttp.method", false),
            ("db.?", "db.x", true),
            ("db.?", "db.", false),
            ("db?x", "db.x", false),
            ("{http,db}.[a-m]*", "db.name", false),
            ("{http,db}.[a-m]*", "http.method", true),
            ("[!abc]x", "dx", true),
            ("[!abc]x", "ax", false),
            ("[abc]", "b", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("a+(b)", "a+(b)", true),
            ("a,b}", "a,b}", true),
        ] {
            assert_eq!(glob(pattern).unwrap().is_match(name), want, "{pattern} {name}");
        }
        for (pattern, want) in [
            ("a[", "unexpected end of input"),
            ("a[b", "unexpected end of input"),
            ("a[]", "could not parse range"),
            ("[a-", "unexpected end of input"),
            ("[a-bc]", "expected close range character"),
            ("[z-a]", "hi character 'a' should be greater than lo 'z'"),
        ] {
            assert_eq!(glob(pattern).unwrap_err(), want, "{pattern}");
        }
    }

    #[test]
    fn the_spans_own_attributes_come_first_and_a_default_last() {
        let mut arena = Arena::default();
        let (mut span, mut resource) = (Map::default(), Map::default());
        arena.put(&mut span, b"a.x", Value::Int(1));
        arena.put(&mut resource, b"a.x", Value::Int(2));
        arena.put(&mut resource, b"a.w", Value::Int(3));
        arena.put(&mut resource, b"b", Value::Int(4));
        let mut dimensions = Dimensions::default();
        dimensions.name("b", Some("unused"));
        dimensions.name("c", Some("default"));
        dimensions.name("d", None);
        dimensions.glob(glob("a.*").unwrap());
        let mut found = Vec::new();
        dimensions.each(&arena, [span, Map::default(), resource], |name, value| {
            let value = match value {
                Found::Attribute(value) => arena.to_text(value),
                Found::Default(text) => String::from_utf8_lossy(text).into_owned(),
            };
            found.push(format!("{}={value}", String::from_utf8_lossy(name)));
        });
        assert_eq!(found, ["b=4", "c=default", "a.x=1", "a.w=3"]);
    }
}
