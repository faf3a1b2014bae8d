//! From tokens to trees, with the errors of Go's `text/template`.

use std::sync::Arc;

use bytes::Bytes;

use super::lex::{Kind, Lexer, Token};
use super::tree::{Command, List, Node, Number, Operand, Pipe, Term};
use crate::functions::{self, Found};
use crate::numbers::{parse_float, parse_int, parse_uint};
use crate::text::{self, Unit};

/// How deep parentheses and `if`, `with`, `range`, `define` and `block` may nest together.
const DEPTH_MAX: usize = 100;

/// A template of a set, with its name.
#[derive(Debug)]
pub(super) struct Definition {
    pub(super) name: String,
    pub(super) list: List,
}

/// Parses a text and what it defines. The template of the whole text has the name given.
pub(super) fn parse(name: &str, text: &str) -> Result<Vec<Definition>, String> {
    let mut parser = Parser {
        name,
        lexer: Lexer::new(text),
        tokens: std::array::from_fn(|_| Token { kind: Kind::Eof, pos: 0, line: 0, text: String::new() }),
        peeked: 0,
        scope: Scope::new(),
        blocks: 0,
        definitions: Vec::new(),
    };
    let list = parser.top()?;
    parser.add(name, list)?;
    Ok(parser.definitions)
}

/// What belongs to one definition.
struct Scope {
    variables: Vec<Arc<str>>,
    ranges: usize,
    parens: usize,
    /// The line of the delimiter of the action that is being read; 0 outside.
    action_line: usize,
}

impl Scope {
    fn new() -> Self {
        Scope { variables: vec![Arc::from("$")], ranges: 0, parens: 0, action_line: 0 }
    }
}

struct Parser<'a> {
    name: &'a str,
    lexer: Lexer<'a>,
    tokens: [Token; 3],
    peeked: usize,
    scope: Scope,
    blocks: usize,
    definitions: Vec<Definition>,
}

/// How a list ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    End,
    Else,
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if *self == Ending::End { "{{end}}" } else { "{{else}}" })
    }
}

/// What an action is.
enum Item {
    Node(Node),
    Ending(Ending),
}

type Parsed<T> = Result<T, String>;

impl Parser<'_> {
    fn next(&mut self) -> Token {
        if self.peeked > 0 {
            self.peeked -= 1;
        } else {
            self.tokens[0] = self.lexer.next();
        }
        self.tokens[self.peeked].clone()
    }

    fn backup(&mut self) {
        self.peeked += 1;
    }

    fn backup2(&mut self, first: Token) {
        self.tokens[1] = first;
        self.peeked = 2;
    }

    fn backup3(&mut self, first: Token, second: Token) {
        self.tokens[1] = second;
        self.tokens[2] = first;
        self.peeked = 3;
    }

    fn peek(&mut self) -> &Token {
        if self.peeked == 0 {
            self.peeked = 1;
            self.tokens[0] = self.lexer.next();
        }
        &self.tokens[self.peeked - 1]
    }

    fn next_non_space(&mut self) -> Token {
        loop {
            let token = self.next();
            if token.kind != Kind::Space {
                return token;
            }
        }
    }

    fn peek_non_space(&mut self) -> Token {
        let token = self.next_non_space();
        self.backup();
        token
    }

    fn error<T>(&self, message: impl std::fmt::Display) -> Parsed<T> {
        Err(format!("template: {}:{}: {message}", self.name, self.tokens[0].line))
    }

    fn unexpected<T>(&self, token: &Token, context: &str) -> Parsed<T> {
        if token.kind != Kind::Error {
            return self.error(format_args!("unexpected {token} in {context}"));
        }
        let started = self.scope.action_line;
        let extra = match started != 0 && started != token.line {
            false => String::new(),
            true if token.text.ends_with(" action") => format!(" started at {}:{started}", self.name),
            true => format!(" in action started at {}:{started}", self.name),
        };
        self.error(format_args!("{token}{extra}"))
    }

    fn expect(&mut self, kind: Kind, context: &str) -> Parsed<Token> {
        let token = self.next_non_space();
        if token.kind == kind { Ok(token) } else { self.unexpected(&token, context) }
    }

    fn add(&mut self, name: &str, list: List) -> Parsed<()> {
        match self.definitions.iter().position(|known| known.name == name) {
            None => self.definitions.push(Definition { name: name.to_owned(), list }),
            Some(at) if self.definitions[at].list.is_empty() => self.definitions[at].list = list,
            Some(_) if list.is_empty() => {}
            Some(_) => {
                let name = text::quote(name.as_bytes());
                return self.error(format_args!("template: multiple definition of template {name}"));
            }
        }
        Ok(())
    }

    /// The whole text.
    fn top(&mut self) -> Parsed<List> {
        let mut list = List::default();
        while self.peek().kind != Kind::Eof {
            if self.peek().kind == Kind::LeftDelim {
                let delim = self.next();
                if self.next_non_space().kind == Kind::Define {
                    self.definition()?;
                    continue;
                }
                self.backup2(delim);
            }
            match self.text_or_action()? {
                Item::Node(node) => list.nodes.push(node),
                Item::Ending(ending) => return self.error(format_args!("unexpected {ending}")),
            }
        }
        Ok(list)
    }

    /// Behind `define`.
    fn definition(&mut self) -> Parsed<()> {
        const CONTEXT: &str = "define clause";
        let outer = std::mem::replace(&mut self.scope, Scope::new());
        let token = self.next_non_space();
        let name = self.template_name(&token, CONTEXT)?;
        self.expect(Kind::RightDelim, CONTEXT)?;
        self.body(&name, CONTEXT)?;
        self.scope = outer;
        Ok(())
    }

    /// The list of a definition, up to its end.
    fn body(&mut self, name: &str, context: &str) -> Parsed<()> {
        let (list, ending) = self.items()?;
        if ending != Ending::End {
            return self.error(format_args!("unexpected {ending} in {context}"));
        }
        self.add(name, list)
    }

    /// A list up to `end` or `else`.
    fn items(&mut self) -> Parsed<(List, Ending)> {
        self.blocks += 1;
        if self.blocks > DEPTH_MAX {
            return self.error("blocks are nested too deeply");
        }
        let mut list = List::default();
        while self.peek_non_space().kind != Kind::Eof {
            match self.text_or_action()? {
                Item::Node(node) => list.nodes.push(node),
                Item::Ending(ending) => {
                    self.blocks -= 1;
                    return Ok((list, ending));
                }
            }
        }
        self.error("unexpected EOF")
    }

    fn text_or_action(&mut self) -> Parsed<Item> {
        let token = self.next_non_space();
        match token.kind {
            Kind::Text => Ok(Item::Node(Node::Text(Bytes::from(token.text)))),
            Kind::LeftDelim => {
                self.scope.action_line = token.line;
                let item = self.action()?;
                self.scope.action_line = 0;
                Ok(item)
            }
            _ => self.unexpected(&token, "input"),
        }
    }

    fn action(&mut self) -> Parsed<Item> {
        let token = self.next_non_space();
        let node = match token.kind {
            Kind::Block => self.block()?,
            Kind::Break => self.jump("{{break}}", Node::Break)?,
            Kind::Continue => self.jump("{{continue}}", Node::Continue)?,
            Kind::Else => {
                // `else if` and `else with` go on as a branch.
                if !matches!(self.peek_non_space().kind, Kind::If | Kind::With) {
                    self.expect(Kind::RightDelim, "else")?;
                }
                return Ok(Item::Ending(Ending::Else));
            }
            Kind::End => {
                self.expect(Kind::RightDelim, "end")?;
                return Ok(Item::Ending(Ending::End));
            }
            Kind::If => self.branch("if", Kind::If)?,
            Kind::With => self.branch("with", Kind::With)?,
            Kind::Range => self.range()?,
            Kind::Template => self.template()?,
            _ => {
                self.backup();
                Node::Action(self.pipeline("command", Kind::RightDelim)?)
            }
        };
        Ok(Item::Node(node))
    }

    fn jump(&mut self, name: &str, node: Node) -> Parsed<Node> {
        let token = self.next_non_space();
        if token.kind != Kind::RightDelim {
            return self.unexpected(&token, name);
        }
        if self.scope.ranges == 0 {
            return self.error(format_args!("{name} outside {{{{range}}}}"));
        }
        Ok(node)
    }

    /// Behind `if` or `with`.
    fn branch(&mut self, context: &str, keyword: Kind) -> Parsed<Node> {
        let variables = self.scope.variables.len();
        let mut branches = Vec::new();
        let otherwise = loop {
            let pipe = self.pipeline(context, Kind::RightDelim)?;
            let (list, ending) = self.items()?;
            branches.push((pipe, list));
            if ending == Ending::End {
                break None;
            }
            if self.peek().kind == keyword {
                self.next();
                continue;
            }
            break Some(self.otherwise()?);
        };
        self.scope.variables.truncate(variables);
        Ok(Node::Branch { with: keyword == Kind::With, branches, otherwise })
    }

    /// Behind `else`.
    fn otherwise(&mut self) -> Parsed<List> {
        let (list, ending) = self.items()?;
        if ending == Ending::End {
            return Ok(list);
        }
        self.error(format_args!("expected end; found {ending}"))
    }

    /// Behind `range`.
    fn range(&mut self) -> Parsed<Node> {
        let variables = self.scope.variables.len();
        let pipe = self.pipeline("range", Kind::RightDelim)?;
        self.scope.ranges += 1;
        let (list, ending) = self.items()?;
        self.scope.ranges -= 1;
        let otherwise = match ending {
            Ending::End => None,
            Ending::Else => Some(self.otherwise()?),
        };
        self.scope.variables.truncate(variables);
        Ok(Node::Range { pipe, list, otherwise })
    }

    /// Behind `block`.
    fn block(&mut self) -> Parsed<Node> {
        const CONTEXT: &str = "block clause";
        let token = self.next_non_space();
        let name = self.template_name(&token, CONTEXT)?;
        let pipe = self.pipeline(CONTEXT, Kind::RightDelim)?;
        let outer = std::mem::replace(&mut self.scope, Scope::new());
        self.body(&name, CONTEXT)?;
        self.scope = outer;
        Ok(Node::Template { pos: token.pos, name, pipe: Some(pipe) })
    }

    /// Behind `template`.
    fn template(&mut self) -> Parsed<Node> {
        const CONTEXT: &str = "template clause";
        let token = self.next_non_space();
        let name = self.template_name(&token, CONTEXT)?;
        let mut pipe = None;
        if self.next_non_space().kind != Kind::RightDelim {
            self.backup();
            pipe = Some(self.pipeline(CONTEXT, Kind::RightDelim)?);
        }
        Ok(Node::Template { pos: token.pos, name, pipe })
    }

    fn template_name(&mut self, token: &Token, context: &str) -> Parsed<String> {
        if !matches!(token.kind, Kind::String | Kind::RawString) {
            return self.unexpected(token, context);
        }
        match text::unquote(&token.text) {
            Some(name) => Ok(String::from_utf8_lossy(&name).into_owned()),
            None => self.error("invalid syntax"),
        }
    }

    fn pipeline(&mut self, context: &str, end: Kind) -> Parsed<Pipe> {
        let mut pipe =
            Pipe { pos: self.peek_non_space().pos, assign: false, variables: Vec::new(), commands: Vec::new() };
        self.declarations(context, &mut pipe)?;
        loop {
            let token = self.next_non_space();
            if token.kind == end {
                break;
            }
            match token.kind {
                Kind::Bool
                | Kind::CharConstant
                | Kind::Complex
                | Kind::Dot
                | Kind::Field
                | Kind::Identifier
                | Kind::Number
                | Kind::Nil
                | Kind::RawString
                | Kind::String
                | Kind::Variable
                | Kind::LeftParen => {
                    self.backup();
                    let command = self.command()?;
                    pipe.commands.push(command);
                }
                _ => return self.unexpected(&token, context),
            }
        }
        if pipe.commands.is_empty() {
            return self.error(format_args!("missing value for {context}"));
        }
        for (index, command) in pipe.commands.iter().enumerate().skip(1) {
            if command.operands.first().is_some_and(|operand| !operand.term.is_executable()) {
                return self.error(format_args!("non executable command in pipeline stage {}", index + 1));
            }
        }
        Ok(pipe)
    }

    /// The variables that a pipeline declares or assigns.
    fn declarations(&mut self, context: &str, pipe: &mut Pipe) -> Parsed<()> {
        loop {
            let variable = self.peek_non_space();
            if variable.kind != Kind::Variable {
                return Ok(());
            }
            self.next();
            // A variable may also be an operand, so that what was read is put back. Spaces are tokens and count.
            let adjacent = self.peek().clone();
            let next = self.peek_non_space();
            let comma = next.kind == Kind::Char && next.text == ",";
            if !comma && !matches!(next.kind, Kind::Assign | Kind::Declare) {
                if adjacent.kind == Kind::Space {
                    self.backup3(variable, adjacent);
                } else {
                    self.backup2(variable);
                }
                return Ok(());
            }
            self.next_non_space();
            let name: Arc<str> = Arc::from(variable.text);
            pipe.variables.push(Arc::clone(&name));
            self.scope.variables.push(name);
            if !comma {
                pipe.assign = next.kind == Kind::Assign;
                return Ok(());
            }
            if context != "range" || pipe.variables.len() >= 2 {
                return self.error(format_args!("too many declarations in {context}"));
            }
            // The second one of a range.
            if !matches!(self.peek_non_space().kind, Kind::Variable | Kind::RightDelim | Kind::RightParen) {
                return self.error("range can only initialize variables");
            }
        }
    }

    fn command(&mut self) -> Parsed<Command> {
        let mut operands = Vec::new();
        loop {
            self.peek_non_space();
            if let Some(operand) = self.operand()? {
                operands.push(operand);
            }
            let token = self.next();
            match token.kind {
                Kind::Space => {}
                Kind::RightDelim | Kind::RightParen => {
                    self.backup();
                    break;
                }
                Kind::Pipe => break,
                _ => return self.unexpected(&token, "operand"),
            }
        }
        if operands.is_empty() {
            return self.error("empty command");
        }
        Ok(Command { operands })
    }

    fn operand(&mut self) -> Parsed<Option<Operand>> {
        let Some(operand) = self.term()? else { return Ok(None) };
        if self.peek().kind != Kind::Field {
            return Ok(Some(operand));
        }
        let pos = self.peek().pos;
        let mut fields = Vec::new();
        while self.peek().kind == Kind::Field {
            fields.push(self.next().text[1..].to_owned());
        }
        let term = match operand.term {
            Term::Field(mut names) => {
                names.append(&mut fields);
                Term::Field(names)
            }
            Term::Variable(name, mut names) => {
                names.append(&mut fields);
                Term::Variable(name, names)
            }
            Term::Bool(_) | Term::Text(..) | Term::Number(_) | Term::Nil | Term::Dot => {
                let text = text::quote(operand.to_string().as_bytes());
                return self.error(format_args!("unexpected . after term {text}"));
            }
            _ => Term::Chain(Box::new(operand), fields),
        };
        Ok(Some(Operand { pos, term }))
    }

    fn term(&mut self) -> Parsed<Option<Operand>> {
        let token = self.next_non_space();
        let term = match token.kind {
            Kind::Identifier => match functions::find(&token.text) {
                Found::Known(function) => Term::Function(function),
                Found::Unsupported => {
                    return self.error(format_args!("function \"{}\" is not supported", token.text));
                }
                Found::Unknown => {
                    let name = text::quote(token.text.as_bytes());
                    return self.error(format_args!("function {name} not defined"));
                }
            },
            Kind::Dot => Term::Dot,
            Kind::Nil => Term::Nil,
            Kind::Variable => {
                let known = self.scope.variables.iter().find(|name| ***name == *token.text);
                match known {
                    Some(name) => Term::Variable(Arc::clone(name), Vec::new()),
                    None => {
                        let name = text::quote(token.text.as_bytes());
                        return self.error(format_args!("undefined variable {name}"));
                    }
                }
            }
            Kind::Field => Term::Field(vec![token.text[1..].to_owned()]),
            Kind::Bool => Term::Bool(token.text == "true"),
            Kind::CharConstant | Kind::Complex | Kind::Number => match number(&token) {
                Ok(number) => Term::Number(number),
                Err(message) => return self.error(message),
            },
            Kind::LeftParen => {
                if self.blocks + self.scope.parens >= DEPTH_MAX {
                    return self.error("max expression depth exceeded");
                }
                self.scope.parens += 1;
                let pipe = self.pipeline("parenthesized pipeline", Kind::RightParen)?;
                self.scope.parens -= 1;
                Term::Pipe(Box::new(pipe))
            }
            Kind::String | Kind::RawString => match text::unquote(&token.text) {
                Some(text) => Term::Text(Bytes::from(text), token.text),
                None => return self.error("invalid syntax"),
            },
            _ => {
                self.backup();
                return Ok(None);
            }
        };
        Ok(Some(Operand { pos: token.pos, term }))
    }
}

/// The number that a token stands for.
fn number(token: &Token) -> Result<Number, String> {
    let text = &token.text;
    let bytes = text.as_bytes();
    let mut number = Number { text: text.clone(), int: None, uint: None, float: None };
    if token.kind == Kind::CharConstant {
        let Some((unit, len)) = text::unquote_char(&bytes[1..], b'\'') else { return Err("invalid syntax".to_owned()) };
        if &bytes[1 + len..] != b"'" {
            return Err(format!("malformed character constant: {text}"));
        }
        let code = match unit {
            Unit::Char(character) => u32::from(character),
            Unit::Byte(byte) => u32::from(byte),
        };
        number.int = Some(i64::from(code));
        number.uint = Some(u64::from(code));
        number.float = Some(f64::from(code));
        return Ok(number);
    }
    if token.kind == Kind::Complex || text.ends_with('i') {
        return Err(format!("complex number {text} is not supported"));
    }
    number.uint = parse_uint(bytes, 0).ok();
    number.int = parse_int(bytes, 0).ok();
    if number.int == Some(0) {
        number.uint = Some(0);
    }
    if let Some(value) = number.int {
        number.float = Some(value as f64);
    } else if let Some(value) = number.uint {
        number.float = Some(value as f64);
    } else if let Ok(value) = parse_float(bytes) {
        if !text.contains(['.', 'e', 'E', 'p', 'P']) {
            return Err(format!("integer overflow: {}", text::quote(bytes)));
        }
        number.float = Some(value);
        // Within the range of integers the conversions are exact where they give the value back.
        if value.trunc() == value && (-9.3e18..9.2e18).contains(&value) && value as i64 as f64 == value {
            number.int = Some(value as i64);
        }
        if value.trunc() == value && (0.0..1.8e19).contains(&value) && value as u64 as f64 == value {
            number.uint = Some(value as u64);
        }
    } else {
        return Err(format!("illegal number syntax: {}", text::quote(bytes)));
    }
    Ok(number)
}
