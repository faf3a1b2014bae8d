//! From words to a tree.

use std::sync::Arc;

use crate::lex::Token;
use crate::{Error, Value};

/// How deep an expression may nest.
const NESTING_MAX: usize = 50;
/// How many infixes an expression may have: a chain of them makes a tree that is as deep.
const INFIXES_MAX: usize = 200;

/// Where slices begin and end, and their step.
pub(crate) type SliceParts = [Option<i64>; 3];

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Operator {
    Plus,
    Minus,
    Multiply,
    Divide,
    Modulo,
    Div,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Equal,
    NotEqual,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node {
    Identity,
    Root,
    Field(Arc<str>),
    Literal(Value),
    Variable(Arc<str>),
    Index(i64),
    Slice(SliceParts),
    /// The right of what is on the left, unless that is null. Also for `a[0]`.
    Chain(Box<Node>, Box<Node>),
    /// As it is written, `a | b`.
    Pipe(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    And(Box<Node>, Box<Node>),
    Not(Box<Node>),
    Arithmetic(Operator, Box<Node>, Box<Node>),
    Sign {
        negative: bool,
        of: Box<Node>,
    },
    Compare(Operator, Box<Node>, Box<Node>),
    Flatten(Box<Node>),
    /// The right for each element on the left; `of_string`: a string on the left stays what it is.
    Projection {
        left: Box<Node>,
        right: Box<Node>,
        of_string: bool,
    },
    ValueProjection(Box<Node>, Box<Node>),
    Filter {
        left: Box<Node>,
        right: Box<Node>,
        condition: Box<Node>,
    },
    List(Vec<Node>),
    Hash(Vec<(Arc<str>, Node)>),
    Call(Arc<str>, Vec<Node>),
    Reference(Box<Node>),
    Binding(Arc<str>, Box<Node>),
    Let(Vec<(Arc<str>, Node)>, Box<Node>),
}

impl Node {
    /// Collects the keys of a path; whether it is one.
    pub(crate) fn collect_path<'a>(&'a self, path: &mut Vec<&'a str>) -> bool {
        match self {
            Node::Field(name) => {
                path.push(name);
                true
            }
            Node::Chain(left, right) | Node::Pipe(left, right) => left.collect_path(path) && right.collect_path(path),
            _ => false,
        }
    }
}

/// How strongly words bind to what stands before them.
fn power(token: &Token) -> u8 {
    match token {
        Token::Assign | Token::Pipe => 1,
        Token::Or => 2,
        Token::And => 3,
        Token::Equal | Token::NotEqual | Token::Less | Token::LessEqual | Token::Greater | Token::GreaterEqual => 5,
        Token::Minus | Token::Plus => 6,
        Token::Div | Token::Divide | Token::Modulo | Token::Multiply => 7,
        Token::Flatten => 9,
        Token::Star => 20,
        Token::Filter => 21,
        Token::Dot => 40,
        Token::Not => 45,
        Token::LeftBrace => 50,
        Token::LeftBracket => 55,
        Token::LeftParen => 60,
        _ => 0,
    }
}

pub(crate) fn parse(tokens: Vec<Token>) -> Result<Node, Error> {
    let mut parser = Parser { tokens, at: 0, depth: 0, infixes: 0 };
    let node = parser.expression(0)?;
    match parser.current() {
        Token::End => Ok(node),
        other => Err(Error::syntax(format_args!("Unexpected token at the end of the expression: {}", other.name()))),
    }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
    infixes: usize,
}

impl Parser {
    fn ahead(&self, places: usize) -> &Token {
        self.tokens.get(self.at + places).unwrap_or(&Token::End)
    }

    fn current(&self) -> &Token {
        self.ahead(0)
    }

    fn advance(&mut self) -> Token {
        let token = self.current().clone();
        self.at += 1;
        token
    }

    fn expect(&mut self, wanted: &Token) -> Result<(), Error> {
        if self.current() != wanted {
            return Err(self.expected(wanted.name()));
        }
        self.at += 1;
        Ok(())
    }

    fn expected(&self, what: &str) -> Error {
        Error::syntax(format_args!("Expected {what}, received: {}", self.current().name()))
    }

    fn expression(&mut self, binding: u8) -> Result<Node, Error> {
        self.depth += 1;
        if self.depth > NESTING_MAX {
            return Err(Error::syntax(format_args!("expression nests deeper than {NESTING_MAX}")));
        }
        let mut left = self.prefix()?;
        while binding < power(self.current()) {
            self.infixes += 1;
            if self.infixes > INFIXES_MAX {
                return Err(Error::syntax(format_args!("expression of more than {INFIXES_MAX} links")));
            }
            left = self.infix(left)?;
        }
        self.depth -= 1;
        Ok(left)
    }

    fn boxed(&mut self, binding: u8) -> Result<Box<Node>, Error> {
        self.expression(binding).map(Box::new)
    }

    fn prefix(&mut self) -> Result<Node, Error> {
        let token = self.advance();
        match token {
            Token::Variable(name) => Ok(Node::Variable(name)),
            Token::Json(text) => match Value::from_json(text.as_bytes()) {
                Some(value) => Ok(Node::Literal(value)),
                None if text.trim().is_empty() => Err(Error::new("unexpected end of JSON input")),
                None => Err(Error::new("invalid character looking for beginning of value")),
            },
            Token::String(text) => Ok(Node::Literal(Value::String(text))),
            Token::Name(name) if &*name == "let" && matches!(self.current(), Token::Variable(_)) => self.bindings(),
            Token::Name(name) => Ok(Node::Field(name)),
            Token::QuotedName(_) if *self.current() == Token::LeftParen => {
                Err(Error::syntax("Can't have quoted identifier as function name."))
            }
            Token::QuotedName(name) => Ok(Node::Field(name)),
            Token::Plus => Ok(Node::Sign { negative: false, of: self.boxed(power(&Token::Plus))? }),
            Token::Minus => Ok(Node::Sign { negative: true, of: self.boxed(power(&Token::Minus))? }),
            Token::Star => {
                let right = if *self.current() == Token::RightBracket { Node::Identity } else { self.projected(20)? };
                Ok(Node::ValueProjection(Node::Identity.into(), right.into()))
            }
            Token::Filter => self.filter(Node::Identity),
            Token::LeftBrace => self.hash(),
            Token::Flatten => self.flatten(Node::Identity),
            Token::LeftBracket => match (self.current(), self.ahead(1)) {
                (Token::Number(_) | Token::Colon, _) => self.index(Node::Identity),
                (Token::Star, Token::RightBracket) => {
                    self.at += 2;
                    self.projection(Node::Identity)
                }
                _ => self.list(),
            },
            Token::Current => Ok(Node::Identity),
            Token::Root => Ok(Node::Root),
            Token::Reference => Ok(Node::Reference(self.boxed(0)?)),
            Token::Not => Ok(Node::Not(self.boxed(power(&Token::Not))?)),
            Token::LeftParen => {
                let inside = self.expression(0)?;
                self.expect(&Token::RightParen)?;
                Ok(inside)
            }
            Token::End => Err(Error::syntax("Incomplete expression")),
            other => Err(Error::syntax(format_args!("Invalid token: {}", other.name()))),
        }
    }

    fn infix(&mut self, left: Node) -> Result<Node, Error> {
        let token = self.advance();
        let left_box = |left: Node| Box::new(left);
        let operator = match token {
            Token::Plus => Operator::Plus,
            Token::Minus => Operator::Minus,
            Token::Star | Token::Multiply => Operator::Multiply,
            Token::Divide => Operator::Divide,
            Token::Modulo => Operator::Modulo,
            Token::Div => Operator::Div,
            Token::Equal => Operator::Equal,
            Token::NotEqual => Operator::NotEqual,
            Token::Less => Operator::Less,
            Token::LessEqual => Operator::LessEqual,
            Token::Greater => Operator::Greater,
            Token::GreaterEqual => Operator::GreaterEqual,
            Token::Dot if *self.current() == Token::Star => {
                self.at += 1;
                let right = self.projected(power(&Token::Dot))?;
                return Ok(Node::ValueProjection(left.into(), right.into()));
            }
            Token::Dot => {
                let right = self.behind_dot(power(&Token::Dot))?;
                return Ok(Node::Chain(left.into(), right.into()));
            }
            Token::Pipe => return Ok(Node::Pipe(left_box(left), self.boxed(power(&token))?)),
            Token::Or => return Ok(Node::Or(left_box(left), self.boxed(power(&token))?)),
            Token::And => return Ok(Node::And(left_box(left), self.boxed(power(&token))?)),
            Token::LeftParen => {
                let Node::Field(name) = left else {
                    return Err(Error::syntax("Invalid node as function name."));
                };
                let arguments = self.until(|token| *token == Token::RightParen)?;
                return Ok(Node::Call(name, arguments));
            }
            Token::Filter => return self.filter(left),
            Token::Flatten => return self.flatten(left),
            Token::Assign => {
                let Node::Variable(name) = left else {
                    return Err(Error::syntax("Unexpected token: TOKAssign"));
                };
                return Ok(Node::Binding(name, self.boxed(0)?));
            }
            Token::LeftBracket => {
                if matches!(self.current(), Token::Number(_) | Token::Colon) {
                    return self.index(left);
                }
                self.expect(&Token::Star)?;
                self.expect(&Token::RightBracket)?;
                return self.projection(left);
            }
            other => return Err(Error::syntax(format_args!("Unexpected token: {}", other.name()))),
        };
        let right = self.boxed(power(&token))?;
        Ok(match operator {
            Operator::Plus
            | Operator::Minus
            | Operator::Multiply
            | Operator::Divide
            | Operator::Modulo
            | Operator::Div => Node::Arithmetic(operator, left.into(), right),
            _ => Node::Compare(operator, left.into(), right),
        })
    }

    /// What is behind `[` and is an index or a slice.
    fn index(&mut self, left: Node) -> Result<Node, Error> {
        if *self.current() == Token::Colon || *self.ahead(1) == Token::Colon {
            let slice = self.slice()?;
            let right = self.projected(power(&Token::Star))?;
            let left = Node::Chain(left.into(), Node::Slice(slice).into());
            return Ok(Node::Projection { left: left.into(), right: right.into(), of_string: true });
        }
        let index = self.number()?;
        self.expect(&Token::RightBracket)?;
        Ok(Node::Chain(left.into(), Node::Index(index).into()))
    }

    fn number(&mut self) -> Result<i64, Error> {
        match self.advance() {
            Token::Number(digits) => digits
                .parse()
                .map_err(|_| Error::new(format!("strconv.Atoi: parsing \"{digits}\": value out of range"))),
            other => Err(Error::new(format!("strconv.Atoi: parsing \"{}\": invalid syntax", other.name()))),
        }
    }

    fn slice(&mut self) -> Result<SliceParts, Error> {
        let mut parts = [None; 3];
        let mut at = 0;
        while *self.current() != Token::RightBracket {
            match self.current() {
                Token::Colon => {
                    at += 1;
                    if at == 3 {
                        return Err(Error::syntax("Too many colons in slice expression"));
                    }
                    self.at += 1;
                }
                Token::Number(_) => parts[at] = Some(self.number()?),
                _ => return Err(self.expected("tColon or tNumber")),
            }
        }
        self.at += 1;
        Ok(parts)
    }

    fn projection(&mut self, left: Node) -> Result<Node, Error> {
        // The library looks at the shape of the left side.
        let of_string = matches!(&left, Node::Chain(_, right) if matches!(**right, Node::Slice(_)));
        let right = self.projected(power(&Token::Star))?;
        Ok(Node::Projection { left: left.into(), right: right.into(), of_string })
    }

    fn flatten(&mut self, left: Node) -> Result<Node, Error> {
        let right = self.projected(power(&Token::Flatten))?;
        Ok(Node::Projection { left: Node::Flatten(left.into()).into(), right: right.into(), of_string: false })
    }

    fn filter(&mut self, left: Node) -> Result<Node, Error> {
        let condition = self.boxed(0)?;
        self.expect(&Token::RightBracket)?;
        let right =
            if *self.current() == Token::Flatten { Node::Identity } else { self.projected(power(&Token::Filter))? };
        Ok(Node::Filter { left: left.into(), right: right.into(), condition })
    }

    /// What a projection does with each element.
    fn projected(&mut self, binding: u8) -> Result<Node, Error> {
        match self.current() {
            token if power(token) < 10 => Ok(Node::Identity),
            Token::LeftBracket | Token::Filter => self.expression(binding),
            Token::Dot => {
                self.at += 1;
                self.behind_dot(binding)
            }
            _ => Err(Error::syntax("Error")),
        }
    }

    fn behind_dot(&mut self, binding: u8) -> Result<Node, Error> {
        match self.current() {
            Token::QuotedName(_) | Token::Name(_) | Token::Star => self.expression(binding),
            Token::LeftBracket => {
                self.at += 1;
                self.list()
            }
            Token::LeftBrace => {
                self.at += 1;
                self.hash()
            }
            _ => Err(Error::syntax("Expected identifier, lbracket, or lbrace")),
        }
    }

    fn list(&mut self) -> Result<Node, Error> {
        let mut list = Vec::new();
        loop {
            list.push(self.expression(0)?);
            if *self.current() == Token::RightBracket {
                self.at += 1;
                return Ok(Node::List(list));
            }
            self.expect(&Token::Comma)?;
        }
    }

    fn hash(&mut self) -> Result<Node, Error> {
        let mut members = Vec::new();
        loop {
            let name = match self.current().clone() {
                Token::Name(name) | Token::QuotedName(name) => name,
                _ => return Err(Error::syntax("Expected tQuotedIdentifier or tUnquotedIdentifier")),
            };
            self.at += 1;
            self.expect(&Token::Colon)?;
            members.push((name, self.expression(0)?));
            match self.current() {
                Token::Comma => self.at += 1,
                Token::RightBrace => {
                    self.at += 1;
                    return Ok(Node::Hash(members));
                }
                // A comma may be missing there.
                _ => {}
            }
        }
    }

    /// Expressions until a word that ends them; commas between them may be missing.
    fn until(&mut self, ends: impl Fn(&Token) -> bool) -> Result<Vec<Node>, Error> {
        let mut list = Vec::new();
        while !ends(self.current()) {
            list.push(self.expression(0)?);
            if *self.current() == Token::Comma {
                self.at += 1;
            }
        }
        self.at += 1;
        Ok(list)
    }

    fn bindings(&mut self) -> Result<Node, Error> {
        let list = self.until(|token| matches!(token, Token::Name(name) if &**name == "in"))?;
        let bindings = list.into_iter().map(|node| match node {
            Node::Binding(name, value) => Ok((name, *value)),
            _ => Err(Error::syntax("Expected a binding of a variable")),
        });
        let bindings = bindings.collect::<Result<_, _>>()?;
        Ok(Node::Let(bindings, self.boxed(0)?))
    }
}
