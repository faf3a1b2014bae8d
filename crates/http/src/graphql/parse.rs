//! Queries as text to queries as trees (GraphQL, October 2021, sections 2.1 to 2.12).
//!
//! Texts of errors and the places that they name are those of the reference's parser.

use std::borrow::Cow;

use corten_syntax::quote;

use super::fault::{Fault, PARSE};

/// The most bytes of a query.
pub(super) const QUERY_BYTES_MAX: usize = 16 << 10;
/// How deep selections, values and types may stand within each other.
const DEPTH_MAX: usize = 50;

/// A place in a query; both count from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: u32,
    pub(super) column: u32,
}

#[derive(Debug, Default)]
pub(super) struct Document<'q> {
    pub(super) operations: Vec<Operation<'q>>,
    pub(super) fragments: Vec<Fragment<'q>>,
}

#[derive(Debug)]
pub(super) struct Operation<'q> {
    pub(super) at: Place,
    /// `query`, `mutation` or `subscription`.
    pub(super) kind: &'q str,
    /// Empty where it has none.
    pub(super) name: &'q str,
    pub(super) variables: Vec<Variable<'q>>,
    pub(super) directives: Vec<Directive<'q>>,
    pub(super) selections: Vec<Selection<'q>>,
}

#[derive(Debug)]
pub(super) struct Variable<'q> {
    pub(super) at: Place,
    pub(super) name: &'q str,
    /// As it is written, without blanks: `[ID!]!`.
    pub(super) ty: String,
    pub(super) default: Option<Value<'q>>,
    pub(super) directives: Vec<Directive<'q>>,
}

#[derive(Debug)]
pub(super) struct Fragment<'q> {
    pub(super) at: Place,
    pub(super) name: &'q str,
    pub(super) on: &'q str,
    pub(super) directives: Vec<Directive<'q>>,
    pub(super) selections: Vec<Selection<'q>>,
}

#[derive(Debug)]
pub(super) enum Selection<'q> {
    Field(Field<'q>),
    Spread { at: Place, name: &'q str, directives: Vec<Directive<'q>> },
    Inline { at: Place, on: Option<&'q str>, directives: Vec<Directive<'q>>, selections: Vec<Selection<'q>> },
}

#[derive(Debug)]
pub(super) struct Field<'q> {
    pub(super) at: Place,
    /// What it is called in the answer.
    pub(super) alias: &'q str,
    pub(super) name: &'q str,
    pub(super) arguments: Vec<Argument<'q>>,
    pub(super) directives: Vec<Directive<'q>>,
    pub(super) selections: Vec<Selection<'q>>,
}

#[derive(Debug)]
pub(super) struct Directive<'q> {
    pub(super) at: Place,
    pub(super) name: &'q str,
    pub(super) arguments: Vec<Argument<'q>>,
}

#[derive(Debug)]
pub(super) struct Argument<'q> {
    pub(super) at: Place,
    pub(super) name: &'q str,
    pub(super) value: Value<'q>,
}

#[derive(Debug)]
pub(super) struct Value<'q> {
    pub(super) at: Place,
    pub(super) data: Data<'q>,
}

#[derive(Debug, PartialEq)]
pub(super) enum Data<'q> {
    Variable(&'q str),
    Int(&'q str),
    Float(&'q str),
    Text(Cow<'q, str>),
    Bool(bool),
    Null,
    Enum(&'q str),
    List(Vec<Value<'q>>),
    Object(Vec<Argument<'q>>),
}

impl PartialEq for Value<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.data == other.data
    }
}

impl PartialEq for Argument<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.value == other.value
    }
}

impl std::fmt::Display for Value<'_> {
    /// As messages quote it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        fn list<T>(
            f: &mut std::fmt::Formatter<'_>,
            items: &[T],
            one: fn(&mut std::fmt::Formatter<'_>, &T) -> std::fmt::Result,
        ) -> std::fmt::Result {
            for (nth, item) in items.iter().enumerate() {
                if nth > 0 {
                    f.write_str(",")?;
                }
                one(f, item)?;
            }
            Ok(())
        }
        match &self.data {
            Data::Variable(name) => write!(f, "${name}"),
            Data::Int(text) | Data::Float(text) | Data::Enum(text) => f.write_str(text),
            Data::Text(text) => f.write_str(&quote(text)),
            Data::Bool(truth) => write!(f, "{truth}"),
            Data::Null => f.write_str("null"),
            Data::List(items) => {
                f.write_str("[")?;
                list(f, items, |f, item| write!(f, "{item}"))?;
                f.write_str("]")
            }
            Data::Object(fields) => {
                f.write_str("{")?;
                list(f, fields, |f, field| write!(f, "{}:{}", field.name, field.value))?;
                f.write_str("}")
            }
        }
    }
}

/// Reads a query.
pub(super) fn parse(text: &str) -> Result<Document<'_>, Fault> {
    if text.len() > QUERY_BYTES_MAX {
        return Err(Fault::new(format!("the query has more than {QUERY_BYTES_MAX} bytes")).code(PARSE));
    }
    let mut lexer = Lexer { text, at: 0, place: Place { line: 1, column: 1 } };
    let next = lexer.token();
    let mut parser = Parser { lexer, next, depth: 0 };
    parser.document()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Invalid,
    End,
    /// One of the signs, or three dots.
    Sign(&'static str),
    Name,
    Int,
    Float,
    Text,
    Block,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Kind::Invalid => "<Invalid>",
            Kind::End => "<EOF>",
            Kind::Sign(sign) => sign,
            Kind::Name => "Name",
            Kind::Int => "Int",
            Kind::Float => "Float",
            Kind::Text => "String",
            Kind::Block => "BlockString",
        }
    }
}

#[derive(Debug)]
struct Token<'q> {
    kind: Kind,
    at: Place,
    /// The text of a name or number, the value of a text.
    text: Cow<'q, str>,
}

impl Token<'_> {
    /// As messages call it.
    fn described(&self) -> String {
        match &*self.text {
            "" => self.kind.as_str().to_owned(),
            text => format!("{} {}", self.kind.as_str(), quote(text)),
        }
    }
}

const SIGNS: &[&str] = &["...", "!", "$", "&", "(", ")", ":", "=", "@", "[", "]", "{", "}", "|"];

struct Lexer<'q> {
    text: &'q str,
    at: usize,
    place: Place,
}

impl<'q> Lexer<'q> {
    fn rest(&self) -> &'q str {
        &self.text[self.at..]
    }

    /// Goes on by so many bytes, in which there is no line end.
    fn skip(&mut self, bytes: usize) -> &'q str {
        let part = &self.text[self.at..self.at + bytes];
        self.at += bytes;
        self.place.column = self.place.column.saturating_add(u32::try_from(part.chars().count()).unwrap_or(u32::MAX));
        part
    }

    fn skip_line_end(&mut self) {
        self.at += if self.rest().starts_with("\r\n") { 2 } else { 1 };
        self.place = Place { line: self.place.line + 1, column: 1 };
    }

    fn skip_ignored(&mut self) {
        while let Some(c) = self.rest().chars().next() {
            match c {
                '\n' | '\r' => self.skip_line_end(),
                '\t' | ' ' | ',' | '\u{feff}' => _ = self.skip(c.len_utf8()),
                '#' => {
                    let end = self.rest().find(|c: char| c < ' ' && c != '\t').unwrap_or(self.rest().len());
                    self.skip(end);
                }
                _ => return,
            }
        }
    }

    fn token(&mut self) -> Token<'q> {
        self.skip_ignored();
        let at = self.place;
        let rest = self.rest();
        let plain = |kind, text| Token { kind, at, text: Cow::Borrowed(text) };
        if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            self.skip(sign.len());
            return plain(Kind::Sign(sign), "");
        }
        match rest.bytes().next() {
            None => plain(Kind::End, ""),
            Some(b'_' | b'a'..=b'z' | b'A'..=b'Z') => {
                let end = rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
                plain(Kind::Name, self.skip(end))
            }
            Some(b'-' | b'0'..=b'9') => self.number(at),
            Some(b'"') if rest.starts_with("\"\"\"") => self.block(),
            Some(b'"') => self.string(),
            Some(_) => plain(Kind::Invalid, ""),
        }
    }

    fn invalid(&self) -> Token<'q> {
        Token { kind: Kind::Invalid, at: self.place, text: Cow::Borrowed("") }
    }

    fn digits(&mut self) -> usize {
        let digits = self.rest().bytes().take_while(u8::is_ascii_digit).count();
        self.skip(digits);
        digits
    }

    fn accept(&mut self, signs: &[u8]) -> bool {
        let found = self.rest().bytes().next().is_some_and(|byte| signs.contains(&byte));
        if found {
            self.skip(1);
        }
        found
    }

    fn number(&mut self, at: Place) -> Token<'q> {
        let start = self.at;
        let mut kind = Kind::Int;
        self.accept(b"-");
        if self.accept(b"0") {
            if self.rest().bytes().next().is_some_and(|byte| byte.is_ascii_digit()) {
                return self.invalid();
            }
        } else if self.digits() == 0 {
            return self.invalid();
        }
        if self.accept(b".") {
            kind = Kind::Float;
            if self.digits() == 0 {
                return self.invalid();
            }
        }
        if self.accept(b"eE") {
            kind = Kind::Float;
            self.accept(b"+-");
            if self.digits() == 0 {
                return self.invalid();
            }
        }
        Token { kind, at, text: Cow::Borrowed(&self.text[start..self.at]) }
    }

    /// A text in quotes. Its place is that of its first character.
    fn string(&mut self) -> Token<'q> {
        self.skip(1);
        let at = self.place;
        let mut text = Cow::Borrowed("");
        loop {
            let end = self.rest().find(|c: char| c == '"' || c == '\\' || (c < ' ' && c != '\t'));
            let part = self.skip(end.unwrap_or(self.rest().len()));
            match &mut text {
                Cow::Borrowed("") => text = Cow::Borrowed(part),
                text => text.to_mut().push_str(part),
            }
            match self.rest().bytes().next() {
                Some(b'"') => {
                    self.skip(1);
                    return Token { kind: Kind::Text, at, text };
                }
                Some(b'\\') => match self.escape() {
                    Some(c) => text.to_mut().push(c),
                    None => {
                        self.skip(1);
                        return self.invalid();
                    }
                },
                _ => return self.invalid(),
            }
        }
    }

    /// The character that an escape stands for.
    fn escape(&mut self) -> Option<char> {
        let rest = self.rest().as_bytes();
        let (c, bytes) = match rest.get(1)? {
            b'u' => {
                let digits = rest.get(2..6).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
                let number = u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
                // Half of a pair is no character.
                (char::from_u32(number).unwrap_or(char::REPLACEMENT_CHARACTER), 6)
            }
            b'b' => ('\u{8}', 2),
            b'f' => ('\u{c}', 2),
            b'n' => ('\n', 2),
            b'r' => ('\r', 2),
            b't' => ('\t', 2),
            c @ (b'"' | b'\\' | b'/') => (char::from(*c), 2),
            _ => return None,
        };
        self.skip(bytes);
        Some(c)
    }

    fn block(&mut self) -> Token<'q> {
        self.skip(3);
        let at = self.place;
        let mut raw = String::new();
        loop {
            let end = self.rest().find(|c: char| c == '"' || c == '\\' || (c < ' ' && c != '\t'));
            raw.push_str(self.skip(end.unwrap_or(self.rest().len())));
            let rest = self.rest();
            if rest.starts_with("\\\"\"\"") {
                self.skip(4);
                raw.push_str("\"\"\"");
            } else if rest.starts_with("\"\"\"") {
                // Of more than three quotes the first ones belong to the text.
                let quotes = rest.bytes().take_while(|byte| *byte == b'"').count();
                raw.push_str(&rest[..quotes - 3]);
                self.skip(quotes);
                return Token { kind: Kind::Block, at, text: Cow::Owned(block_text(&raw)) };
            } else if rest.starts_with(['\n', '\r']) {
                self.skip_line_end();
                raw.push('\n');
            } else if rest.starts_with(['"', '\\']) {
                raw.push_str(self.skip(1));
            } else {
                return self.invalid();
            }
        }
    }
}

/// What a block says (2.9.4): without the indent that its lines share, but for the first one, and without blank lines at its
/// ends.
fn block_text(raw: &str) -> String {
    let indent = |line: &str| line.len() - line.trim_start_matches([' ', '\t']).len();
    let blank = |line: &&str| indent(line) == line.len();
    let lines: Vec<&str> = raw.split('\n').collect();
    let common = lines.iter().skip(1).filter(|line| !blank(line)).map(|line| indent(line)).min().unwrap_or(0);
    let without = |(nth, line): (usize, &&'_ str)| match nth {
        0 => (*line).to_owned(),
        _ => line.get(common..).unwrap_or_default().to_owned(),
    };
    let lines: Vec<String> = lines.iter().enumerate().map(without).collect();
    let is_text = |line: &String| !blank(&line.as_str());
    let (Some(first), Some(last)) = (lines.iter().position(is_text), lines.iter().rposition(is_text)) else {
        return String::new();
    };
    lines[first..=last].join("\n")
}

struct Parser<'q> {
    lexer: Lexer<'q>,
    next: Token<'q>,
    depth: usize,
}

impl<'q> Parser<'q> {
    fn take(&mut self) -> Token<'q> {
        let next = self.lexer.token();
        std::mem::replace(&mut self.next, next)
    }

    fn fault<T>(&self, message: String) -> Result<T, Fault> {
        Err(Fault::new(message).at(self.next.at).code(PARSE))
    }

    fn unexpected<T>(&self) -> Result<T, Fault> {
        self.fault(format!("Unexpected {}", self.next.described()))
    }

    fn is(&self, sign: &'static str) -> bool {
        self.next.kind == Kind::Sign(sign)
    }

    fn is_word(&self, word: &str) -> bool {
        self.next.kind == Kind::Name && self.next.text == word
    }

    fn accept(&mut self, sign: &'static str) -> bool {
        let found = self.is(sign);
        if found {
            self.take();
        }
        found
    }

    fn expect(&mut self, kind: Kind) -> Result<Token<'q>, Fault> {
        if self.next.kind != kind {
            return self.fault(format!("Expected {}, found {}", kind.as_str(), self.next.kind.as_str()));
        }
        Ok(self.take())
    }

    fn name(&mut self) -> Result<&'q str, Fault> {
        match self.expect(Kind::Name)?.text {
            Cow::Borrowed(name) => Ok(name),
            // Names are never made.
            Cow::Owned(_) => Ok(""),
        }
    }

    /// What stands between two signs; at least once, if `some` is wanted.
    fn list<T>(
        &mut self,
        (start, end): (&'static str, &'static str),
        some: bool,
        one: fn(&mut Self) -> Result<T, Fault>,
    ) -> Result<Vec<T>, Fault> {
        self.expect(Kind::Sign(start))?;
        if self.depth >= DEPTH_MAX {
            return self.fault(format!("the query is more than {DEPTH_MAX} levels deep"));
        }
        self.depth += 1;
        let mut items = Vec::new();
        while !self.is(end) {
            items.push(one(self)?);
        }
        if items.is_empty() && some {
            return self.fault(format!("expected at least one definition, found {}", self.next.kind.as_str()));
        }
        self.take();
        self.depth -= 1;
        Ok(items)
    }

    /// What stands in round brackets, if there are any.
    fn bracketed<T>(&mut self, one: fn(&mut Self) -> Result<T, Fault>) -> Result<Vec<T>, Fault> {
        if self.is("(") { self.list(("(", ")"), true, one) } else { Ok(Vec::new()) }
    }

    fn document(&mut self) -> Result<Document<'q>, Fault> {
        let mut document = Document::default();
        while self.next.kind != Kind::End {
            if self.is("{") || ["query", "mutation", "subscription"].iter().any(|word| self.is_word(word)) {
                let operation = self.operation()?;
                document.operations.push(operation);
            } else if self.is_word("fragment") {
                let fragment = self.fragment()?;
                document.fragments.push(fragment);
            } else {
                return self.unexpected();
            }
        }
        Ok(document)
    }

    fn operation(&mut self) -> Result<Operation<'q>, Fault> {
        let at = self.next.at;
        let (mut kind, mut name, mut variables, mut directives) = ("query", "", Vec::new(), Vec::new());
        if !self.is("{") {
            kind = self.name()?;
            if self.next.kind == Kind::Name {
                name = self.name()?;
            }
            variables = self.bracketed(Self::variable)?;
            directives = self.directives()?;
        }
        Ok(Operation { at, kind, name, variables, directives, selections: self.selections()? })
    }

    fn variable(&mut self) -> Result<Variable<'q>, Fault> {
        let at = self.next.at;
        self.expect(Kind::Sign("$"))?;
        let name = self.name()?;
        self.expect(Kind::Sign(":"))?;
        let ty = self.ty()?;
        let default = if self.accept("=") { Some(self.value(true)?) } else { None };
        Ok(Variable { at, name, ty, default, directives: self.directives()? })
    }

    fn ty(&mut self) -> Result<String, Fault> {
        let mut lists = 0;
        while self.accept("[") {
            lists += 1;
            if lists > DEPTH_MAX {
                return self.fault(format!("the query is more than {DEPTH_MAX} levels deep"));
            }
        }
        let mut ty = format!("{}{}", "[".repeat(lists), self.name()?);
        for level in 0..=lists {
            if level > 0 {
                self.expect(Kind::Sign("]"))?;
                ty.push(']');
            }
            if self.accept("!") {
                ty.push('!');
            }
        }
        Ok(ty)
    }

    fn fragment(&mut self) -> Result<Fragment<'q>, Fault> {
        let at = self.next.at;
        self.take();
        let name = self.fragment_name()?;
        if !self.is_word("on") {
            return self.fault(format!("Expected \"on\", found {}", self.next.described()));
        }
        self.take();
        let on = self.name()?;
        Ok(Fragment { at, name, on, directives: self.directives()?, selections: self.selections()? })
    }

    fn fragment_name(&mut self) -> Result<&'q str, Fault> {
        if self.is_word("on") {
            return self.unexpected();
        }
        self.name()
    }

    fn selections(&mut self) -> Result<Vec<Selection<'q>>, Fault> {
        self.list(("{", "}"), true, Self::selection)
    }

    fn selection(&mut self) -> Result<Selection<'q>, Fault> {
        if !self.accept("...") {
            return self.field().map(Selection::Field);
        }
        let at = self.next.at;
        if self.next.kind == Kind::Name && !self.is_word("on") {
            return Ok(Selection::Spread { at, name: self.fragment_name()?, directives: self.directives()? });
        }
        let on = if self.is_word("on") {
            self.take();
            Some(self.name()?)
        } else {
            None
        };
        Ok(Selection::Inline { at, on, directives: self.directives()?, selections: self.selections()? })
    }

    fn field(&mut self) -> Result<Field<'q>, Fault> {
        let at = self.next.at;
        let alias = self.name()?;
        let name = if self.accept(":") { self.name()? } else { alias };
        let arguments = self.bracketed(|parser| parser.argument(false))?;
        let directives = self.directives()?;
        let selections = if self.is("{") { self.selections()? } else { Vec::new() };
        Ok(Field { at, alias, name, arguments, directives, selections })
    }

    fn directives(&mut self) -> Result<Vec<Directive<'q>>, Fault> {
        let mut directives = Vec::new();
        while self.accept("@") {
            let at = self.next.at;
            let name = self.name()?;
            let arguments = self.bracketed(|parser| parser.argument(false))?;
            directives.push(Directive { at, name, arguments });
        }
        Ok(directives)
    }

    fn argument(&mut self, constant: bool) -> Result<Argument<'q>, Fault> {
        let at = self.next.at;
        let name = self.name()?;
        self.expect(Kind::Sign(":"))?;
        Ok(Argument { at, name, value: self.value(constant)? })
    }

    fn value(&mut self, constant: bool) -> Result<Value<'q>, Fault> {
        let at = self.next.at;
        let data = match self.next.kind {
            Kind::Sign("[") if constant => Data::List(self.list(("[", "]"), false, |parser| parser.value(true))?),
            Kind::Sign("[") => Data::List(self.list(("[", "]"), false, |parser| parser.value(false))?),
            Kind::Sign("{") if constant => Data::Object(self.list(("{", "}"), false, |parser| parser.argument(true))?),
            Kind::Sign("{") => Data::Object(self.list(("{", "}"), false, |parser| parser.argument(false))?),
            Kind::Sign("$") if !constant => {
                self.take();
                Data::Variable(self.name()?)
            }
            Kind::Text | Kind::Block => Data::Text(self.take().text),
            Kind::Int | Kind::Float | Kind::Name => {
                let token = self.take();
                let Cow::Borrowed(text) = token.text else { return self.unexpected() };
                match (token.kind, text) {
                    (Kind::Int, _) => Data::Int(text),
                    (Kind::Float, _) => Data::Float(text),
                    (_, "true") => Data::Bool(true),
                    (_, "false") => Data::Bool(false),
                    (_, "null") => Data::Null,
                    _ => Data::Enum(text),
                }
            }
            _ => return self.unexpected(),
        };
        Ok(Value { at, data })
    }
}
