//! JSONPath, in the dialect of the reference's library: `.servers[?(@.name == "x")].port`.
//!
//! The order of what is found is that of the text for arrays and that of the names for objects; what `..` finds deeper
//! comes before what it finds above.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;

use regex::{Regex, RegexBuilder};

use super::json;
use crate::limits::ITEMS_MAX;
use crate::number::Number;
use crate::value::{Data, Value};

/// How deep filters and groups may be nested in a path.
const DEPTH_MAX: usize = 64;
/// How many values a path may look at. What is below does not take seconds.
const VISITS_MAX: usize = 20_000_000;
/// How many regular expressions that come from the data are kept compiled.
const PATTERNS_MAX: usize = 256;
/// How large a compiled regular expression may be, in bytes.
const PATTERN_BYTES_MAX: usize = 1024 * 1024;

/// A path that cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PathError(String);

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads the text that a path is followed in. A blank one is `null`, as in the reference.
pub(super) fn parse_json(text: &str) -> Result<Value, json::JsonError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_matches([' ', '\t', '\r', '\n']).is_empty() {
        return Ok(Value::NULL);
    }
    json::parse_with_integers(text)
}

/// A path, ready to be followed.
#[derive(Debug)]
pub(super) struct Path(Vec<Step>);

#[derive(Debug)]
enum Step {
    /// `$`: where it all begins.
    Root,
    /// `@`: where a filter stands.
    Here,
    Child(String),
    Index(i64),
    Any,
    /// `..`
    Descent,
    Union(Vec<Member>),
    /// Start, end and step. No end means all that follows.
    Slice(i64, Option<i64>, i64),
    Filter(Expr),
}

#[derive(Debug)]
enum Member {
    Child(String),
    Index(i64),
}

/// An expression within a filter.
#[derive(Debug)]
enum Expr {
    Const(Operand),
    List(Vec<Operand>),
    Pattern(Regex),
    Path(Path),
    Not(Box<Expr>),
    Binary(Op, Box<Expr>, Box<Expr>),
    Length(Box<Expr>),
    Count(Box<Expr>),
    /// A regular expression in a string: must it match the whole text?
    Match(bool, Box<Expr>, Box<Expr>),
}

/// What an expression within a filter yields.
#[derive(Clone, Debug)]
enum Operand {
    /// No value at all.
    Nothing,
    Value(Value),
    /// A value that a path led to: true as a condition, whatever it is.
    Found(Value),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Eq,
    Ne,
    Lt,
    Gt,
    Le,
    Ge,
    Or,
    And,
    Add,
    Sub,
    Mul,
    Div,
    In,
    Empty,
    Has,
    Pattern,
}

/// The operators as written, longer ones before those that they begin with. Lower levels bind tighter; operators of a
/// level group from the left, `||` and `&&` are of one level.
const OPS: &[(&str, Op, u8)] = &[
    ("==", Op::Eq, 3),
    ("!=", Op::Ne, 3),
    ("<=", Op::Le, 3),
    (">=", Op::Ge, 3),
    ("<", Op::Lt, 3),
    (">", Op::Gt, 3),
    ("||", Op::Or, 4),
    ("&&", Op::And, 4),
    ("+", Op::Add, 2),
    ("-", Op::Sub, 2),
    ("*", Op::Mul, 1),
    ("/", Op::Div, 1),
    ("in", Op::In, 3),
    ("empty", Op::Empty, 3),
    ("has", Op::Has, 3),
    ("exists", Op::Has, 3),
    ("~=", Op::Pattern, 3),
    ("=~", Op::Pattern, 3),
];

impl Path {
    /// Reads a path.
    pub(super) fn parse(text: &str) -> Result<Self, PathError> {
        let mut parser = Parser { text, at: 0, depth: 0 };
        let path = parser.path()?;
        if parser.at < text.len() {
            return Err(parser.error("parse error"));
        }
        Ok(path)
    }

    /// All that the path leads to.
    pub(super) fn find(&self, root: &Value) -> Result<Vec<Value>, PathError> {
        let search = Search { root, visits: Cell::new(0), patterns: RefCell::default() };
        let mut found = Vec::new();
        search.walk(&self.0, root, &mut found)?;
        Ok(found)
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

/// Whether a byte can stand in a name without quotes.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'#' | b'%' | b';' | b'?' | b'^' | b'_' | b'{'..=b'~' | 0x80..)
}

impl Parser<'_> {
    fn error(&self, message: impl fmt::Display) -> PathError {
        PathError(format!("{message} at {} in {}", self.at + 1, self.text))
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) -> Option<u8> {
        while self.peek() == Some(b' ') {
            self.at += 1;
        }
        self.peek()
    }

    /// Skips spaces and takes what follows them.
    fn next(&mut self) -> Option<u8> {
        let byte = self.space();
        self.at += usize::from(byte.is_some());
        byte
    }

    fn expect(&mut self, expected: u8, message: &str) -> Result<(), PathError> {
        if self.space() != Some(expected) {
            return Err(self.error(message));
        }
        self.at += 1;
        Ok(())
    }

    fn path(&mut self) -> Result<Path, PathError> {
        let mut steps = Vec::new();
        while let Some(byte) = self.peek() {
            let first = steps.is_empty();
            let after_descent = matches!(steps.last(), Some(Step::Descent));
            steps.push(match byte {
                b'$' if first => {
                    self.at += 1;
                    Step::Root
                }
                b'@' if first => {
                    self.at += 1;
                    Step::Here
                }
                b'.' => {
                    self.at += 1;
                    self.after_dot()?
                }
                b'*' => {
                    self.at += 1;
                    Step::Any
                }
                b'[' => {
                    self.at += 1;
                    self.bracket()?
                }
                byte if is_name_byte(byte) && (first || after_descent) => Step::Child(self.name()),
                // Whether this may end the path is for the caller to say.
                _ => break,
            });
        }
        Ok(Path(steps))
    }

    fn name(&mut self) -> String {
        let start = self.at;
        while self.peek().is_some_and(is_name_byte) {
            self.at += 1;
        }
        // All bytes beyond ASCII belong to a name, so no character is cut.
        self.text[start..self.at].to_owned()
    }

    fn after_dot(&mut self) -> Result<Step, PathError> {
        match self.peek() {
            None => Err(self.error("not terminated")),
            Some(b'*') => {
                self.at += 1;
                Ok(Step::Any)
            }
            Some(b'.') => {
                self.at += 1;
                Ok(Step::Descent)
            }
            Some(byte) if is_name_byte(byte) => Ok(Step::Child(self.name())),
            Some(byte) => {
                self.at += 1;
                Err(self.error(format_args!("an expression fragment can not start with a '{}'", char::from(byte))))
            }
        }
    }

    fn bracket(&mut self) -> Result<Step, PathError> {
        match self.next() {
            None => Err(self.error("not terminated")),
            Some(b'*') => self.expect(b']', "not terminated").map(|()| Step::Any),
            Some(quote @ (b'\'' | b'"')) => {
                let name = self.quoted(quote)?;
                match self.next() {
                    Some(b']') => Ok(Step::Child(name)),
                    Some(b',') => self.union(Member::Child(name)),
                    _ => Err(self.error("invalid bracket fragment")),
                }
            }
            Some(b':') => self.slice(0),
            Some(b'?') => {
                let filter = self.nested(Self::equation)?;
                self.expect(b']', "not terminated")?;
                Ok(Step::Filter(filter))
            }
            Some(b'(') => Err(self.error("scripts are not supported")),
            Some(b'-' | b'0'..=b'9') => {
                self.at -= 1;
                let index = self.integer()?;
                match self.next() {
                    Some(b']') => Ok(Step::Index(index)),
                    Some(b',') => self.union(Member::Index(index)),
                    Some(b':') => self.slice(index),
                    _ => Err(self.error("invalid bracket fragment")),
                }
            }
            Some(_) => {
                self.at -= 1;
                Err(self.error("parse error"))
            }
        }
    }

    fn union(&mut self, first: Member) -> Result<Step, PathError> {
        let mut members = vec![first];
        loop {
            members.push(match self.next() {
                Some(quote @ (b'\'' | b'"')) => Member::Child(self.quoted(quote)?),
                Some(b'-' | b'0'..=b'9') => {
                    self.at -= 1;
                    Member::Index(self.integer()?)
                }
                _ => return Err(self.error("invalid union syntax")),
            });
            match self.next() {
                Some(b',') => {}
                Some(b']') => return Ok(Step::Union(members)),
                _ => return Err(self.error("invalid union syntax")),
            }
        }
    }

    /// A slice from its first colon on.
    fn slice(&mut self, start: i64) -> Result<Step, PathError> {
        let (mut end, mut step) = (None, 1);
        if matches!(self.space(), Some(b'-' | b'0'..=b'9')) {
            end = Some(self.integer()?);
        }
        if self.space() == Some(b':') {
            self.at += 1;
            if self.space() != Some(b']') {
                step = self.integer()?;
            }
        }
        self.expect(b']', "invalid slice syntax")?;
        Ok(Step::Slice(start, end, step))
    }

    fn integer(&mut self) -> Result<i64, PathError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        self.text[start..self.at].parse().map_err(|_| self.error("expected a number"))
    }

    /// A quoted text behind its opening quote.
    fn quoted(&mut self, quote: u8) -> Result<String, PathError> {
        let mut out = String::new();
        loop {
            let Some(character) = self.text[self.at..].chars().next() else { return Err(self.error("not terminated")) };
            self.at += character.len_utf8();
            match character {
                _ if character == char::from(quote) => return Ok(out),
                '\\' => out.push(self.escape()?),
                _ => out.push(character),
            }
        }
    }

    fn escape(&mut self) -> Result<char, PathError> {
        let Some(character) = self.text[self.at..].chars().next() else { return Err(self.error("not terminated")) };
        self.at += character.len_utf8();
        let digits = match character {
            'b' => return Ok('\u{8}'),
            't' => return Ok('\t'),
            'n' => return Ok('\n'),
            'f' => return Ok('\u{c}'),
            'r' => return Ok('\r'),
            '"' | '\'' | '\\' => return Ok(character),
            'x' => 2,
            'u' | 'U' => 4,
            _ => {
                let code = u32::from(character);
                return Err(self.error(format_args!("0x{code:02x} ({character}) is not a valid escaped character")));
            }
        };
        let text = self.text.get(self.at..self.at + digits).filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()));
        let code = text.and_then(|text| u32::from_str_radix(text, 16).ok());
        self.at += if code.is_some() { digits } else { 0 };
        let code = code.ok_or_else(|| self.error("expected hexadecimal digits"))?;
        Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, PathError>) -> Result<T, PathError> {
        if self.depth >= DEPTH_MAX {
            return Err(self.error(format_args!("nested deeper than {DEPTH_MAX} levels")));
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    fn equation(&mut self) -> Result<Expr, PathError> {
        self.binary(4)
    }

    /// Operators of a level or of those that bind tighter.
    fn binary(&mut self, level: u8) -> Result<Expr, PathError> {
        let mut left = if level == 0 { return self.operand() } else { self.binary(level - 1)? };
        while let Some((op, len)) = self.operator(level)? {
            self.at += len;
            let right = self.binary(level - 1)?;
            left = Expr::Binary(op, Box::new(left), Box::new(right));
        }
        Ok(left)
    }

    /// The operator here and its length, if it is of that level.
    fn operator(&mut self, level: u8) -> Result<Option<(Op, usize)>, PathError> {
        if matches!(self.space(), None | Some(b')' | b']' | b',')) {
            return Ok(None);
        }
        let rest = &self.text[self.at..];
        match OPS.iter().find(|(text, _, _)| rest.starts_with(text)) {
            Some((text, op, of)) if *of == level => Ok(Some((*op, text.len()))),
            Some(_) => Ok(None),
            None => {
                let text: String = rest.chars().take_while(|c| !c.is_whitespace()).take(8).collect();
                Err(self.error(format_args!("'{text}' is not a valid operation")))
            }
        }
    }

    fn operand(&mut self) -> Result<Expr, PathError> {
        let constant = |value| Ok(Expr::Const(Operand::Value(value)));
        match self.space() {
            // In the reference a negation reaches to the end of the expression that it stands in.
            Some(b'!') => {
                self.at += 1;
                Ok(Expr::Not(Box::new(self.nested(Self::equation)?)))
            }
            Some(b'-' | b'0'..=b'9') => constant(self.number()?),
            Some(quote @ (b'\'' | b'"')) => {
                self.at += 1;
                constant(Value::string(self.quoted(quote)?))
            }
            Some(b'@' | b'$') => self.nested(Self::path).map(Expr::Path),
            Some(b'(') => {
                self.at += 1;
                let inner = self.nested(Self::equation)?;
                self.expect(b')', "not terminated")?;
                Ok(inner)
            }
            Some(b'[') => self.nested(Self::list),
            Some(b'/') => self.pattern(),
            _ => self.word(),
        }
    }

    fn list(&mut self) -> Result<Expr, PathError> {
        self.at += 1;
        let mut items = Vec::new();
        loop {
            match self.operand()? {
                Expr::Const(item) => items.push(item),
                _ => return Err(self.error("expected a constant")),
            }
            match self.next() {
                Some(b',') => {}
                Some(b']') => return Ok(Expr::List(items)),
                _ => return Err(self.error("expected a comma or an array close")),
            }
        }
    }

    fn pattern(&mut self) -> Result<Expr, PathError> {
        self.at += 1;
        let start = self.at;
        loop {
            match self.peek() {
                None => return Err(self.error("not terminated")),
                Some(b'/') => break,
                Some(b'\\') => self.at += 2,
                Some(_) => self.at += 1,
            }
        }
        let text = self.text.get(start..self.at).ok_or_else(|| self.error("not terminated"))?;
        self.at += 1;
        compile(text).map(Expr::Pattern).ok_or_else(|| self.error("error parsing regexp"))
    }

    fn number(&mut self) -> Result<Value, PathError> {
        let start = self.at;
        self.at += 1;
        let digits = |parser: &mut Self| {
            while parser.peek().is_some_and(|byte| byte.is_ascii_digit()) {
                parser.at += 1;
            }
        };
        digits(self);
        let mut is_float = false;
        if self.peek() == Some(b'.') {
            is_float = true;
            self.at += 1;
            digits(self);
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            is_float = true;
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            digits(self);
        }
        let text = &self.text[start..self.at];
        let value = if is_float { text.parse().ok().map(Value::float) } else { text.parse().ok().map(Value::int) };
        value.ok_or_else(|| self.error("expected a number"))
    }

    fn word(&mut self) -> Result<Expr, PathError> {
        let rest = &self.text[self.at..];
        let len = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let word = &rest[..len];
        let constant = match word {
            "true" => Some(Operand::Value(Value::bool(true))),
            "false" => Some(Operand::Value(Value::bool(false))),
            "null" => Some(Operand::Value(Value::NULL)),
            "Nothing" => Some(Operand::Nothing),
            "length" | "count" | "match" | "search" => None,
            _ => return Err(self.error(format_args!("'{word}' is not a value or function"))),
        };
        self.at += len;
        if let Some(constant) = constant {
            return Ok(Expr::Const(constant));
        }
        if self.peek() != Some(b'(') {
            return Err(self.error(format_args!("expected a {word} function")));
        }
        self.at += 1;
        let left = Box::new(self.nested(Self::equation)?);
        let right = if self.space() == Some(b',') {
            self.at += 1;
            Some(Box::new(self.nested(Self::equation)?))
        } else {
            None
        };
        self.expect(b')', "not terminated")?;
        Ok(match (word, right) {
            ("length", _) => Expr::Length(left),
            ("count", _) => Expr::Count(left),
            (word, Some(right)) => Expr::Match(word == "match", left, right),
            (_, None) => Expr::Const(Operand::Nothing),
        })
    }
}

fn compile(pattern: &str) -> Option<Regex> {
    RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build().ok()
}

struct Search<'a> {
    root: &'a Value,
    visits: Cell<usize>,
    /// Regular expressions that came from the data.
    patterns: RefCell<HashMap<String, Option<Regex>>>,
}

impl Search<'_> {
    fn visit(&self) -> Result<(), PathError> {
        let visits = self.visits.get() + 1;
        self.visits.set(visits);
        if visits > VISITS_MAX {
            return Err(PathError(format!("looks at more than {VISITS_MAX} values")));
        }
        Ok(())
    }

    /// Follows steps from a value. A path without steps leads nowhere.
    fn walk(&self, steps: &[Step], from: &Value, found: &mut Vec<Value>) -> Result<(), PathError> {
        self.visit()?;
        let Some((step, rest)) = steps.split_first() else { return Ok(()) };
        let mut go = |value: &Value| {
            if !rest.is_empty() {
                // Nothing is below what holds nothing, and it is not taken for its own descendant either.
                let is_end = !is_container(value) && !matches!(step, Step::Root | Step::Here);
                return if is_end { Ok(()) } else { self.walk(rest, value, found) };
            }
            self.visit()?;
            if found.len() >= ITEMS_MAX {
                return Err(PathError(format!("leads to more than {ITEMS_MAX} values")));
            }
            found.push(value.clone());
            Ok(())
        };
        match step {
            Step::Root => go(self.root),
            Step::Here => go(from),
            Step::Child(name) => child(from, name).map_or(Ok(()), go),
            Step::Index(index) => element(from, *index).map_or(Ok(()), go),
            Step::Any => children(from).try_for_each(go),
            Step::Union(members) => members.iter().try_for_each(|member| {
                let value = match member {
                    Member::Child(name) => child(from, name),
                    Member::Index(index) => element(from, *index),
                };
                value.map_or(Ok(()), &mut go)
            }),
            Step::Slice(start, end, step) => slice(from, *start, *end, *step).into_iter().try_for_each(go),
            Step::Filter(filter) => {
                for value in children(from) {
                    if self.matches(filter, value)? {
                        go(value)?;
                    }
                }
                Ok(())
            }
            Step::Descent if rest.is_empty() => {
                self.everything(from, found)?;
                found.push(from.clone());
                Ok(())
            }
            Step::Descent => self.descend(from, &mut go),
        }
    }

    /// All containers at and below a value, the deepest first.
    fn descend(&self, from: &Value, go: &mut impl FnMut(&Value) -> Result<(), PathError>) -> Result<(), PathError> {
        self.visit()?;
        for value in children(from).filter(|value| is_container(value)) {
            self.descend(value, go)?;
        }
        go(from)
    }

    /// All values below a value: its children, then theirs.
    fn everything(&self, from: &Value, found: &mut Vec<Value>) -> Result<(), PathError> {
        for value in children(from) {
            self.visit()?;
            if found.len() >= ITEMS_MAX {
                return Err(PathError(format!("leads to more than {ITEMS_MAX} values")));
            }
            found.push(value.clone());
        }
        children(from).filter(|value| is_container(value)).try_for_each(|value| self.everything(value, found))
    }

    /// Whether a filter lets a value through: some choice among the values that its paths lead to must be true.
    fn matches(&self, filter: &Expr, here: &Value) -> Result<bool, PathError> {
        Ok(self.operands(filter, here)?.iter().any(is_true))
    }

    /// All that an expression may yield.
    fn operands(&self, expr: &Expr, here: &Value) -> Result<Vec<Operand>, PathError> {
        self.visit()?;
        Ok(match expr {
            Expr::Const(operand) => vec![operand.clone()],
            Expr::List(items) => {
                let values = items.iter().map(|item| value_of(item).cloned().unwrap_or_default());
                vec![Operand::Value(Value::array(values.collect::<Vec<Value>>()))]
            }
            Expr::Pattern(pattern) => vec![Operand::Value(Value::from(pattern.as_str()))],
            Expr::Path(path) => {
                let mut found = Vec::new();
                self.walk(&path.0, here, &mut found)?;
                match found.is_empty() {
                    true => vec![Operand::Nothing],
                    false => found.into_iter().map(Operand::Found).collect(),
                }
            }
            Expr::Not(inner) => {
                let inner = self.operands(inner, here)?;
                inner.iter().map(|operand| Operand::Value(Value::bool(!is_true(operand)))).collect()
            }
            Expr::Length(inner) => self.operands(inner, here)?.iter().map(length).collect(),
            Expr::Count(inner) => {
                let Expr::Path(path) = &**inner else { return Ok(vec![Operand::Nothing]) };
                let mut found = Vec::new();
                self.walk(&path.0, here, &mut found)?;
                vec![Operand::Value(Value::int(found.len() as i64))]
            }
            Expr::Binary(op, left, right) => {
                let pattern = match &**right {
                    Expr::Pattern(pattern) => Some(pattern),
                    _ => None,
                };
                self.pairs(left, right, here, |left, right| match (op, pattern) {
                    (Op::Pattern, Some(pattern)) => {
                        let text = value_of(left).and_then(Value::as_str);
                        Operand::Value(Value::bool(text.is_some_and(|text| pattern.is_match(text))))
                    }
                    (Op::Pattern, None) => {
                        Operand::Value(Value::bool(self.is_match(left, right, false).unwrap_or(false)))
                    }
                    _ => apply(*op, left, right),
                })?
            }
            Expr::Match(whole, left, right) => self.pairs(left, right, here, |left, right| {
                self.is_match(left, right, *whole)
                    .map_or(Operand::Nothing, |is_match| Operand::Value(Value::bool(is_match)))
            })?,
        })
    }

    fn pairs(
        &self,
        left: &Expr,
        right: &Expr,
        here: &Value,
        mut apply: impl FnMut(&Operand, &Operand) -> Operand,
    ) -> Result<Vec<Operand>, PathError> {
        let (left, right) = (self.operands(left, here)?, self.operands(right, here)?);
        let mut out = Vec::new();
        for left in &left {
            for right in &right {
                self.visit()?;
                out.push(apply(left, right));
            }
        }
        Ok(out)
    }

    /// Whether a text matches a regular expression in a string; nothing if one of them is none.
    fn is_match(&self, text: &Operand, pattern: &Operand, whole: bool) -> Option<bool> {
        let text = value_of(text)?.as_str()?;
        let pattern = value_of(pattern)?.as_str().filter(|pattern| !whole || !pattern.is_empty())?;
        let pattern = match whole {
            false => pattern.to_owned(),
            true => {
                let start = if pattern.starts_with('^') { "" } else { "^" };
                let end = if pattern.ends_with('$') { "" } else { "$" };
                format!("{start}{pattern}{end}")
            }
        };
        let mut patterns = self.patterns.borrow_mut();
        if patterns.len() >= PATTERNS_MAX {
            patterns.clear();
        }
        let compiled = patterns.entry(pattern).or_insert_with_key(|pattern| compile(pattern));
        compiled.as_ref().map(|pattern| pattern.is_match(text))
    }
}

fn is_container(value: &Value) -> bool {
    matches!(value.data, Data::Array(_) | Data::Object(_))
}

fn children(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match &value.data {
        Data::Array(items) => Box::new(items.iter()),
        Data::Object(fields) => Box::new(fields.values()),
        _ => Box::new(std::iter::empty()),
    }
}

fn child<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match &value.data {
        Data::Object(fields) => fields.get(name),
        _ => None,
    }
}

fn element(value: &Value, index: i64) -> Option<&Value> {
    let Data::Array(items) = &value.data else { return None };
    let index = if index < 0 { items.len() as i64 + index } else { index };
    items.get(usize::try_from(index).ok()?)
}

fn slice(value: &Value, start: i64, end: Option<i64>, step: i64) -> Vec<&Value> {
    let Data::Array(items) = &value.data else { return Vec::new() };
    let len = items.len() as i64;
    let start = if start < 0 { (len + start).max(0) } else { start };
    let end = match end {
        None => len,
        Some(end) if end < 0 => len.saturating_add(end),
        Some(end) => end.min(len),
    };
    let mut out = Vec::new();
    let mut at = start;
    while start < len && step != 0 && at >= 0 && (if step > 0 { at < end } else { at > end.max(-1) }) {
        out.extend(items.get(at as usize));
        at = at.saturating_add(step);
    }
    out
}

fn value_of(operand: &Operand) -> Option<&Value> {
    match operand {
        Operand::Nothing => None,
        Operand::Value(value) | Operand::Found(value) => Some(value),
    }
}

fn is_true(operand: &Operand) -> bool {
    match operand {
        Operand::Nothing => false,
        Operand::Value(value) => value.as_bool() == Some(true),
        Operand::Found(_) => true,
    }
}

fn length(operand: &Operand) -> Operand {
    let len = match value_of(operand).map(|value| &value.data) {
        Some(Data::String(text)) => text.len(),
        Some(Data::Array(items)) => items.len(),
        Some(Data::Object(fields)) => fields.len(),
        _ => return Operand::Nothing,
    };
    Operand::Value(Value::int(len as i64))
}

fn apply(op: Op, left: &Operand, right: &Operand) -> Operand {
    let (l, r) = (value_of(left), value_of(right));
    let truth = |truth| Operand::Value(Value::bool(truth));
    match op {
        Op::Eq => truth(same(l, r)),
        Op::Ne => truth(!same(l, r)),
        Op::Lt => truth(order(l, r).is_some_and(Ordering::is_lt)),
        Op::Le => truth(order(l, r).is_some_and(Ordering::is_le)),
        Op::Gt => truth(order(l, r).is_some_and(Ordering::is_gt)),
        Op::Ge => truth(order(l, r).is_some_and(Ordering::is_ge)),
        Op::Or => truth(is_true(left) || is_true(right)),
        Op::And => truth(is_true(left) && is_true(right)),
        Op::In => {
            let items = r.and_then(|list| if let Data::Array(items) = &list.data { Some(items) } else { None });
            truth(items.is_some_and(|items| items.iter().any(|item| same(l, Some(item)))))
        }
        Op::Empty => {
            let empty = l.and_then(|value| match &value.data {
                Data::String(text) => Some(text.is_empty()),
                _ => value.len().map(|len| len == 0),
            });
            truth(r.and_then(Value::as_bool).zip(empty).is_some_and(|(wanted, is)| wanted == is))
        }
        Op::Has => truth(r.and_then(Value::as_bool) == Some(l.is_some())),
        Op::Add | Op::Sub | Op::Mul | Op::Div => arithmetic(op, l, r).map_or(Operand::Nothing, Operand::Value),
        // These need the search's regular expressions and are dealt with there.
        Op::Pattern => truth(false),
    }
}

/// Whether two values are equal: nothing equals nothing, numbers by value; arrays and objects equal nothing.
fn same(left: Option<&Value>, right: Option<&Value>) -> bool {
    match (left.map(|value| &value.data), right.map(|value| &value.data)) {
        (None, None) | (Some(Data::Null), Some(Data::Null)) => true,
        (Some(Data::Bool(a)), Some(Data::Bool(b))) => a == b,
        (Some(Data::String(a)), Some(Data::String(b))) => a == b,
        (Some(Data::Number(a)), Some(Data::Number(b))) => a.compare(*b) == Some(Ordering::Equal),
        _ => false,
    }
}

fn order(left: Option<&Value>, right: Option<&Value>) -> Option<Ordering> {
    match (&left?.data, &right?.data) {
        (Data::Number(a), Data::Number(b)) => a.compare(*b),
        (Data::String(a), Data::String(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

fn arithmetic(op: Op, left: Option<&Value>, right: Option<&Value>) -> Option<Value> {
    let (left, right) = (left?, right?);
    if let (Op::Add, Some(a), Some(b)) = (op, left.as_str(), right.as_str()) {
        return Some(Value::string([a, b].concat()));
    }
    let (a, b): (Number, Number) = (left.as_number()?, right.as_number()?);
    Some(Value::from(match op {
        Op::Add => a.wrapping_add(b),
        Op::Sub => a.wrapping_sub(b),
        Op::Mul => a.wrapping_mul(b),
        _ => a.checked_div(b)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn find(text: &str, path: &str) -> String {
        let root = parse_json(text).unwrap();
        match Path::parse(path).and_then(|path| path.find(&root)) {
            Ok(found) => Value::array(found).to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn paths_lead_where_they_lead_in_the_reference() {
        let numbers = "[0,1,2,3,4,5]";
        let objects = r#"[{"a":1},{"a":2},{}]"#;
        let mixed = r#"[{"a":"xyz"},{"a":2},{}]"#;
        let lists = r#"[{"a":[1,2]},{"a":[3]}]"#;
        let cases = [
            ("5", "$", "[5]"),
            ("5", "$.a", "[]"),
            ("", "$", "[null]"),
            ("{}", "", "[]"),
            ("[3]", "[0]", "[3]"),
            (r#"{"a":null}"#, "a", "[null]"),
            (r#"{"a b":1}"#, "$['a b']", "[1]"),
            (r#"{"a":1,"b":2}"#, "*", "[1, 2]"),
            (r#"{"a":1,"b":2}"#, "$['b','a']", "[2, 1]"),
            (r#"{"b":1,"a":{"b":2,"c":[{"b":3}]}}"#, "$..b", "[3, 2, 1]"),
            ("[1,[2]]", "$..", "[1, [2], 2, [1, [2]]]"),
            ("[[1,2],[3,4]]", "$[*][0]", "[1, 3]"),
            ("[[1,2],[3,4]]", "$[1,0][0]", "[3, 1]"),
            (numbers, "$[1:4]", "[1, 2, 3]"),
            (numbers, "$[4:1:-1]", "[4, 3, 2]"),
            (numbers, "$[-3:]", "[3, 4, 5]"),
            (numbers, "$[::2]", "[0, 2, 4]"),
            (numbers, "$[:2]", "[0, 1]"),
            (numbers, "$[::-1]", "[]"),
            (numbers, "$[9]", "[]"),
            (numbers, "$[?(@ > 3)]", "[4, 5]"),
            (numbers, "$[?(@ in [1,3])]", "[1, 3]"),
            (numbers, "$[?(@ * 2 + 1 == 5)]", "[2]"),
            (numbers, "$[?(!(@ < 5))]", "[5]"),
            (objects, "$[?(@.a == 1 || @.a == 2)].a", "[1, 2]"),
            (objects, "$[?@.a > 1].a", "[2]"),
            (objects, "$[?(@.a has true && @.a < 2)].a", "[1]"),
            (objects, "$[?(@.a)].a", "[1, 2]"),
            (mixed, "$[?(@.a =~ /x.z/)].a", "[\"xyz\"]"),
            (mixed, "$[?(match(@.a, 'x.*'))].a", "[\"xyz\"]"),
            (lists, "$[?(length(@.a) == 2)].a[0]", "[1]"),
            (lists, "$[?(@.a[*] == 2)].a[0]", "[1]"),
            (lists, "$[?(count(@.a[*]) == 1)].a[0]", "[3]"),
            (r#"{"k":5,"l":[{"v":5},{"v":6}]}"#, "$.l[?(@.v == $.k)].v", "[5]"),
            (
                "[12345678901234567890123, 18446744073709551615, -1, 1.0, 1e3]",
                "$[*]",
                "[\"12345678901234567890123\", 18446744073709551615, -1, 1, 1000]",
            ),
        ];
        for (text, path, expected) in cases {
            assert_eq!(find(text, path), expected, "{path} in {text}");
        }
    }

    #[test]
    fn paths_that_are_none_are_told() {
        let cases = [
            ("a b", "parse error at 2 in a b"),
            ("$.", "not terminated at 3 in $."),
            ("$[", "not terminated at 3 in $["),
            ("$[x]", "parse error at 3 in $[x]"),
            ("$.-a", "an expression fragment can not start with a '-' at 4 in $.-a"),
            ("$[?(@.a == x)]", "'x' is not a value or function at 12 in $[?(@.a == x)]"),
            ("$[?(@.a % 1)]", "'%' is not a valid operation at 9 in $[?(@.a % 1)]"),
            ("$[(1)]", "scripts are not supported at 4 in $[(1)]"),
        ];
        for (path, expected) in cases {
            assert_eq!(find("{}", path), expected);
        }
        for part in ["(", "[", "!", "@[?", "length("] {
            let path = format!("$[?{}", part.repeat(1000));
            assert!(find("{}", &path).contains("nested deeper"), "{part}");
        }
    }

    #[test]
    fn a_path_that_looks_at_too_much_is_stopped() {
        let wide = format!("[{}]", vec!["[[1,1,1,1]]"; 300].join(","));
        let path = format!("$[?({})]", ["$..[*]"; 6].join(" == "));
        assert!(find(&wide, &path).contains("looks at more than"), "{}", find(&wide, &path));
    }

    proptest! {
        #[test]
        fn any_path_is_followed_without_a_panic(
            path in r#"[$@]?([.\[\]()?*:',"!<>=&|~/+\-a-c0-3é \\]|\.\.|\[\?\(|@\.a|==|length\(){0,14}"#,
            text in r#"[\[\]{},:"a-c0-3. ]{0,20}|\{"a":\[1,\{"b":2\},"c"\]\}"#,
        ) {
            if let (Ok(root), Ok(path)) = (parse_json(&text), Path::parse(&path)) {
                let _ = path.find(&root);
            }
        }
    }
}
