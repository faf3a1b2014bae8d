//! Reading JSON as the reference's decoder does, without building it: picks values out of an object in one pass.
//!
//! What counts as JSON is what `jsoniter` takes: also a control character within a string after an escape, `null` as a key,
//! bytes that are no UTF-8, and anything behind a NUL; but not numbers beyond the range of a double, and nothing else behind
//! the value.

use std::io::Write as _;

/// How deep a document may nest.
const DEPTH_MAX: usize = 10_000;

/// The text is no JSON, or not what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// A value, as a place in the text.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub(super) enum Token {
    /// `null`, or nothing.
    #[default]
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number.
    Number(f64),
    /// What is between the quotes of a string.
    String {
        /// Where it begins.
        start: usize,
        /// Where it ends.
        end: usize,
        /// Whether it has to be [unescaped](unescape).
        escaped: bool,
    },
    /// An object or an array.
    Nested {
        /// Where it begins.
        start: usize,
        /// Where it ends.
        end: usize,
    },
}

/// Which values to pick, by paths of keys.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    nodes: Vec<Node>,
    picks: usize,
}

#[derive(Clone, Debug, Default)]
struct Node {
    children: Vec<(Box<[u8]>, usize)>,
    /// The picks that want the value itself.
    takes: Vec<usize>,
    /// The picks that want something within it.
    below: Vec<usize>,
}

impl Plan {
    /// A further path; the number of its pick.
    pub(super) fn add(&mut self, path: &[&[u8]]) -> usize {
        if self.nodes.is_empty() {
            self.nodes.push(Node::default());
        }
        let pick = self.picks;
        self.picks += 1;
        let mut at = 0;
        for key in path {
            self.nodes[at].below.push(pick);
            let known = self.nodes[at].children.iter().find(|(known, _)| **known == **key).map(|(_, child)| *child);
            at = known.unwrap_or_else(|| {
                self.nodes.push(Node::default());
                let child = self.nodes.len() - 1;
                self.nodes[at].children.push(((*key).into(), child));
                child
            });
        }
        self.nodes[at].takes.push(pick);
        pick
    }

    /// Reads an object, or null, and picks: a value for each path, null where there is none. `member` is called with each key
    /// of the object itself, without its quotes, and with its value.
    ///
    /// # Errors
    ///
    /// Anything else than an object or null, and anything but spaces behind it.
    pub(super) fn pick(
        &self,
        bytes: &[u8],
        stack: &mut Vec<u8>,
        picked: &mut Vec<Token>,
        mut member: impl FnMut(Token, Token),
    ) -> Result<(), Malformed> {
        picked.clear();
        picked.resize(self.picks, Token::Null);
        stack.clear();
        let mut scan = Scan { bytes, at: 0, stack };
        match scan.peek() {
            Some(b'{') => scan.members(self, Some(0), picked, true, &mut member)?,
            Some(b'n') => scan.literal(b"null")?,
            _ => return Err(Malformed),
        }
        scan.end()
    }
}

/// Reads a whole document, of any kind: where its value is.
///
/// # Errors
///
/// What is no JSON.
#[cfg(test)]
fn read(bytes: &[u8], stack: &mut Vec<u8>) -> Result<Token, Malformed> {
    stack.clear();
    let mut scan = Scan { bytes, at: 0, stack };
    let token = scan.value()?;
    scan.end()?;
    Ok(token)
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The brackets that are open.
    stack: &'a mut Vec<u8>,
}

impl Scan<'_> {
    /// The next byte that is no space.
    fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.bytes.get(self.at)?;
            if !matches!(byte, b' ' | b'\n' | b'\t' | b'\r') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    /// Nothing may follow, but a NUL and anything behind it.
    fn end(&mut self) -> Result<(), Malformed> {
        if matches!(self.peek(), None | Some(0)) { Ok(()) } else { Err(Malformed) }
    }

    fn expect(&mut self, wanted: u8) -> Result<(), Malformed> {
        if self.peek() != Some(wanted) {
            return Err(Malformed);
        }
        self.at += 1;
        Ok(())
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), Malformed> {
        if !self.bytes[self.at..].starts_with(word) {
            return Err(Malformed);
        }
        self.at += word.len();
        Ok(())
    }

    /// The members of an object whose bracket is next. `top`: it is the whole document.
    fn members(
        &mut self,
        plan: &Plan,
        node: Option<usize>,
        picked: &mut [Token],
        top: bool,
        member: &mut dyn FnMut(Token, Token),
    ) -> Result<(), Malformed> {
        let node = node.and_then(|node| plan.nodes.get(node));
        self.expect(b'{')?;
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        let mut first = true;
        loop {
            let key = self.key(first && !top)?;
            first = false;
            self.expect(b':')?;
            let child =
                node.and_then(|node| self.child(node, key)).and_then(|child| plan.nodes.get(child).zip(Some(child)));
            let value = match child {
                Some((child, at)) if !child.children.is_empty() && self.peek() == Some(b'{') => {
                    let start = self.at;
                    for pick in &child.below {
                        picked[*pick] = Token::Null;
                    }
                    self.members(plan, Some(at), picked, false, &mut |_, _| {})?;
                    Token::Nested { start, end: self.at }
                }
                Some((child, _)) => {
                    for pick in &child.below {
                        picked[*pick] = Token::Null;
                    }
                    self.value()?
                }
                None => self.value()?,
            };
            if let Some((child, _)) = child {
                for pick in &child.takes {
                    picked[*pick] = value;
                }
            }
            if top {
                member(key, value);
            }
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(Malformed),
            }
        }
    }

    fn child(&self, node: &Node, key: Token) -> Option<usize> {
        let Token::String { start, end, escaped } = key else {
            return node.children.iter().find(|(known, _)| known.is_empty()).map(|(_, child)| *child);
        };
        let text = &self.bytes[start..end];
        let find = |text: &[u8]| node.children.iter().find(|(known, _)| **known == *text).map(|(_, child)| *child);
        if !escaped {
            return find(text);
        }
        // Hardly any key has escapes.
        let mut plain = Vec::new();
        unescape(text, &mut plain);
        find(&plain)
    }

    /// A key; null stands for the empty one, but not for the first key of an object within another.
    fn key(&mut self, plain: bool) -> Result<Token, Malformed> {
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'n') if !plain => {
                self.literal(b"null")?;
                Ok(Token::Null)
            }
            _ => Err(Malformed),
        }
    }

    /// A value of any kind.
    fn value(&mut self) -> Result<Token, Malformed> {
        match self.peek() {
            Some(b'{' | b'[') => {
                let start = self.at;
                self.skip_nested()?;
                Ok(Token::Nested { start, end: self.at })
            }
            _ => self.scalar(),
        }
    }

    fn scalar(&mut self) -> Result<Token, Malformed> {
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number().map(Token::Number),
            Some(b't') => self.literal(b"true").map(|()| Token::Bool(true)),
            Some(b'f') => self.literal(b"false").map(|()| Token::Bool(false)),
            Some(b'n') => self.literal(b"null").map(|()| Token::Null),
            _ => Err(Malformed),
        }
    }

    fn string(&mut self) -> Result<Token, Malformed> {
        self.at += 1;
        let start = self.at;
        let plain =
            self.bytes[start..].iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)).ok_or(Malformed)?;
        self.at += plain;
        match self.bytes[self.at] {
            b'"' => {
                self.at += 1;
                return Ok(Token::String { start, end: self.at - 1, escaped: false });
            }
            b'\\' => {}
            _ => return Err(Malformed),
        }
        // From the first escape on, the reference's decoder takes control characters too.
        loop {
            let rest = &self.bytes[self.at..];
            self.at += rest.iter().position(|byte| matches!(byte, b'"' | b'\\')).ok_or(Malformed)?;
            if self.bytes[self.at] == b'"' {
                self.at += 1;
                return Ok(Token::String { start, end: self.at - 1, escaped: true });
            }
            match self.bytes.get(self.at + 1).ok_or(Malformed)? {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 2,
                b'u' => {
                    let digits = self.bytes.get(self.at + 2..self.at + 6).ok_or(Malformed)?;
                    if !digits.iter().all(u8::is_ascii_hexdigit) {
                        return Err(Malformed);
                    }
                    self.at += 6;
                }
                _ => return Err(Malformed),
            }
        }
    }

    fn number(&mut self) -> Result<f64, Malformed> {
        let negative = self.bytes[self.at] == b'-';
        self.at += usize::from(negative);
        let rest = &self.bytes[self.at..];
        let len = rest.iter().position(|byte| !matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
        let text = &rest[..len.unwrap_or(rest.len())];
        self.at += text.len();
        let value = number(text).ok_or(Malformed)?;
        Ok(if negative { -value } else { value })
    }

    /// An object or array whose bracket is next.
    fn skip_nested(&mut self) -> Result<(), Malformed> {
        let base = self.stack.len();
        loop {
            // A value begins here.
            match self.peek() {
                Some(open @ (b'{' | b'[')) => {
                    self.at += 1;
                    if self.stack.len() >= DEPTH_MAX {
                        return Err(Malformed);
                    }
                    let is_empty = self.peek() == Some(closing(open));
                    self.stack.push(open);
                    if !is_empty {
                        if open == b'{' {
                            self.key(true)?;
                            self.expect(b':')?;
                        }
                        continue;
                    }
                }
                _ => drop(self.scalar()?),
            }
            // A value, or the last of those in the innermost bracket, is over.
            loop {
                let Some(open) = self.stack.get(base..).and_then(<[u8]>::last).copied() else { return Ok(()) };
                match self.peek() {
                    Some(byte) if byte == closing(open) => {
                        self.at += 1;
                        self.stack.pop();
                    }
                    Some(b',') => {
                        self.at += 1;
                        if open == b'{' {
                            self.key(false)?;
                            self.expect(b':')?;
                        }
                        break;
                    }
                    _ => return Err(Malformed),
                }
            }
        }
    }
}

fn closing(open: u8) -> u8 {
    if open == b'{' { b'}' } else { b']' }
}

/// The value of a number without its sign.
fn number(text: &[u8]) -> Option<f64> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if text.is_empty() || matches!(text[0], b'-' | b'.') || (digits > 1 && text[0] == b'0') {
        return None;
    }
    if digits == text.len() && digits <= 15 {
        return Some(text.iter().fold(0u64, |value, byte| value * 10 + u64::from(byte - b'0')) as f64);
    }
    if let Some(dot) = text.iter().position(|byte| *byte == b'.')
        && !text.get(dot + 1).is_some_and(u8::is_ascii_digit)
    {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok().filter(|value: &f64| value.is_finite())
}

/// Appends what the inside of a string means. It was read before, so that its escapes are right.
pub(super) fn unescape(mut text: &[u8], out: &mut Vec<u8>) {
    while let Some(at) = text.iter().position(|byte| *byte == b'\\') {
        out.extend_from_slice(&text[..at]);
        let (kind, rest) = match text.get(at + 1) {
            Some(kind) => (*kind, &text[at + 2..]),
            None => return,
        };
        text = rest;
        match kind {
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'u' => {
                let unit = hex(text);
                text = text.get(4..).unwrap_or_default();
                let is_half = (0xd800..0xe000).contains(&unit);
                if is_half && text.starts_with(b"\\u") {
                    // Two escapes are one character, or two that are each by themselves.
                    let second = hex(&text[2..]);
                    text = text.get(6..).unwrap_or_default();
                    let pair = char::decode_utf16([unit as u16, second as u16]).next();
                    match pair {
                        Some(Ok(character)) => push(out, Some(character)),
                        _ => {
                            push(out, None);
                            push(out, char::from_u32(second));
                        }
                    }
                } else {
                    push(out, char::from_u32(unit));
                }
            }
            other => out.push(other),
        }
    }
    out.extend_from_slice(text);
}

/// Appends a character; U+FFFD for half of one.
fn push(out: &mut Vec<u8>, character: Option<char>) {
    let character = character.unwrap_or(char::REPLACEMENT_CHARACTER);
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
}

fn hex(text: &[u8]) -> u32 {
    text.iter().take(4).fold(0, |value, byte| value * 16 + char::from(*byte).to_digit(16).unwrap_or(0))
}

/// Appends an object or array that was read before, as the reference prints it: without spaces, with its own escapes
/// and numbers, and with the keys in the order in which they were written.
pub(super) fn write_nested(text: &[u8], out: &mut Vec<u8>) {
    let (mut at, mut plain) = (0, Vec::new());
    while let Some(&byte) = text.get(at) {
        match byte {
            b' ' | b'\n' | b'\t' | b'\r' => at += 1,
            b'"' => {
                let mut scan = Scan { bytes: text, at, stack: &mut Vec::new() };
                let Ok(Token::String { start, end, escaped }) = scan.string() else { return };
                at = scan.at;
                if escaped {
                    plain.clear();
                    unescape(&text[start..end], &mut plain);
                    write_string(&plain, out);
                } else {
                    write_string(&text[start..end], out);
                }
            }
            b'-' | b'0'..=b'9' => {
                let mut scan = Scan { bytes: text, at, stack: &mut Vec::new() };
                let Ok(value) = scan.number() else { return };
                at = scan.at;
                write_number(value, out);
            }
            b't' => at += literal(b"true", out),
            b'f' => at += literal(b"false", out),
            b'n' => {
                let mut scan = Scan { bytes: text, at: (at + 4).min(text.len()), stack: &mut Vec::new() };
                at = scan.at;
                // As a key it is the empty one.
                let word: &[u8] = if scan.peek() == Some(b':') { b"\"\"" } else { b"null" };
                out.extend_from_slice(word);
            }
            other => {
                out.push(other);
                at += 1;
            }
        }
    }
}

fn literal(word: &[u8], out: &mut Vec<u8>) -> usize {
    out.extend_from_slice(word);
    word.len()
}

/// Appends a number as `jsoniter` prints it: powers have a sign and two digits.
fn write_number(value: f64, out: &mut Vec<u8>) {
    let size = value.abs();
    // Writing to memory does not fail.
    let _ = if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{value:e}");
        let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, power) = power.strip_prefix('-').map_or(('+', power), |power| ('-', power));
        write!(out, "{digits}e{sign}{power:0>2}")
    } else {
        write!(out, "{value}")
    };
}

/// Appends a text as a string of JSON, with the escapes of `encoding/json` for what has a meaning in HTML. What is not UTF-8
/// becomes U+FFFD.
pub(super) fn write_string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for chunk in text.utf8_chunks() {
        let valid = chunk.valid();
        let mut copied = 0;
        for (at, character) in valid.char_indices() {
            let escape: &[u8] = match character {
                '"' => b"\\\"",
                '\\' => b"\\\\",
                '\n' => b"\\n",
                '\r' => b"\\r",
                '\t' => b"\\t",
                '\u{2028}' => b"\\u2028",
                '\u{2029}' => b"\\u2029",
                '<' | '>' | '&' | '\0'..='\x1f' => b"",
                _ => continue,
            };
            out.extend_from_slice(&valid.as_bytes()[copied..at]);
            copied = at + character.len_utf8();
            if escape.is_empty() {
                let _ = write!(out, "\\u{:04x}", character as u32);
            } else {
                out.extend_from_slice(escape);
            }
        }
        out.extend_from_slice(&valid.as_bytes()[copied..]);
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn picked(text: &[u8], paths: &[&[&str]]) -> Result<Vec<Token>, Malformed> {
        let mut plan = Plan::default();
        for path in paths {
            plan.add(&path.iter().map(|key| key.as_bytes()).collect::<Vec<_>>());
        }
        let (mut stack, mut picked) = (Vec::new(), Vec::new());
        plan.pick(text, &mut stack, &mut picked, |_, _| {})?;
        Ok(picked)
    }

    #[test]
    fn values_are_picked_by_paths_and_the_last_of_a_key_counts() {
        let number = |value| Token::Number(value);
        for (text, expected) in [
            (r#"{"a":1,"b":{"c":2}}"#, [number(1.0), number(2.0)]),
            (r#"{"b":{"c":2},"b":{"d":3}}"#, [Token::Null, Token::Null]),
            (r#"{"b":{"c":2},"b":3,"a":1,"a":5}"#, [number(5.0), Token::Null]),
            (r#"{"\u0061":-1.5e3}"#, [number(-1500.0), Token::Null]),
            ("null", [Token::Null, Token::Null]),
            (" { } ", [Token::Null, Token::Null]),
        ] {
            assert_eq!(picked(text.as_bytes(), &[&["a"], &["b", "c"]]).as_deref(), Ok(&expected[..]), "{text}");
        }
    }

    #[test]
    fn a_document_may_nest_deeply_but_not_without_end() {
        let nested =
            |depth: usize| [r#"{"a":"#.to_owned(), "[".repeat(depth), "]".repeat(depth), "}".to_owned()].concat();
        assert!(picked(nested(9_000).as_bytes(), &[]).is_ok());
        assert_eq!(picked(nested(20_000).as_bytes(), &[]), Err(Malformed));
        assert_eq!(picked("[".repeat(1_000_000).as_bytes(), &[]), Err(Malformed));
    }

    fn document() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<f64>().prop_filter("finite", |value| value.is_finite()).prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            "\\PC{0,9}|[\\x00-\\x7f]{0,9}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                proptest::collection::btree_map("[abc\\PC]{0,3}", inner, 0..6)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_others_print_is_read_and_printed_again(value in document(), pretty: bool) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            let mut out = Vec::new();
            match read(text.as_bytes(), &mut Vec::new()).unwrap() {
                Token::Nested { start, end } => write_nested(&text.as_bytes()[start..end], &mut out),
                Token::String { start, end, escaped } => {
                    let mut plain = Vec::new();
                    if escaped { unescape(&text.as_bytes()[start..end], &mut plain) } else { plain.extend_from_slice(&text.as_bytes()[start..end]) }
                    write_string(&plain, &mut out);
                }
                Token::Number(number) => write_number(number, &mut out),
                Token::Bool(value) => out.extend_from_slice(value.to_string().as_bytes()),
                Token::Null => out.extend_from_slice(b"null"),
            }
            // Whole numbers lose digits beyond 53 bits, as they do in the reference.
            fn floats(value: serde_json::Value) -> serde_json::Value {
                match value {
                    serde_json::Value::Number(number) => number.as_f64().unwrap().into(),
                    serde_json::Value::Array(list) => list.into_iter().map(floats).collect(),
                    serde_json::Value::Object(map) => map.into_iter().map(|(k, v)| (k, floats(v))).collect(),
                    other => other,
                }
            }
            let back: serde_json::Value = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(floats(back), floats(value));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(prop_oneof![
            any::<u8>(),
            proptest::sample::select(b"{}[]:,\"\\ue01.-+ntf ".to_vec()),
        ], 0..60)) {
            let _ = picked(&bytes, &[&["a"], &["a", "b"], &[""]]);
            if let Ok(Token::Nested { start, end }) = read(&bytes, &mut Vec::new()) {
                write_nested(&bytes[start..end], &mut Vec::new());
            }
        }
    }
}
