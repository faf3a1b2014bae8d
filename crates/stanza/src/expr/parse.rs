//! The tree of a program.

use corten_signal::regex::GoRegex;

use super::functions::{self, Builtin};
use super::token::{self, Placed, Refused, Token, is_alphabetic};
use super::{DEPTH_MAX, NODES_MAX};
use crate::value::{Text, Value};

/// A part of a program.
pub(super) struct Node {
    pub(super) part: Part,
    /// The character that errors point to.
    pub(super) at: u32,
    depth: u32,
}

impl Node {
    /// A part that comes from another node.
    pub(super) fn moved(part: Part, at: u32) -> Self {
        let depth = part.depth() + 1;
        Node { part, at, depth }
    }
}

/// What the environment has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Var {
    Body,
    Attributes,
    Resource,
    Timestamp,
    /// A name that nobody knows: nil.
    Unknown,
}

/// Operators between two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binary {
    Equal,
    NotEqual,
    Less,
    More,
    LessOrEqual,
    MoreOrEqual,
    In,
    Matches,
    Contains,
    StartsWith,
    EndsWith,
    Range,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Power,
}

impl Binary {
    pub(super) fn sign(self) -> &'static str {
        use Binary::*;
        match self {
            Equal => "==",
            NotEqual => "!=",
            Less => "<",
            More => ">",
            LessOrEqual => "<=",
            MoreOrEqual => ">=",
            In => "in",
            Matches => "matches",
            Contains => "contains",
            StartsWith => "startsWith",
            EndsWith => "endsWith",
            Range => "..",
            Add => "+",
            Subtract => "-",
            Multiply => "*",
            Divide => "/",
            Modulo => "%",
            Power => "**",
        }
    }
}

impl Over {
    pub(super) fn name(self) -> &'static str {
        OVERS.iter().find(|(_, over, ..)| *over == self).map_or("", |(name, ..)| name)
    }
}

/// What is said of the elements of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    All,
    None,
    Any,
    One,
    Filter,
    Map,
    Count,
    Sum,
    Find,
    FindIndex,
    FindLast,
    FindLastIndex,
    GroupBy,
    SortBy,
    Reduce,
}

/// Names, whether the predicate may be left out, and whether something may follow it.
const OVERS: [(&str, Over, bool, bool); 15] = [
    ("all", Over::All, false, false),
    ("none", Over::None, false, false),
    ("any", Over::Any, false, false),
    ("one", Over::One, false, false),
    ("filter", Over::Filter, false, false),
    ("map", Over::Map, false, false),
    ("count", Over::Count, true, false),
    ("sum", Over::Sum, true, false),
    ("find", Over::Find, false, false),
    ("findIndex", Over::FindIndex, false, false),
    ("findLast", Over::FindLast, false, false),
    ("findLastIndex", Over::FindLastIndex, false, false),
    ("groupBy", Over::GroupBy, false, false),
    ("sortBy", Over::SortBy, false, true),
    ("reduce", Over::Reduce, false, true),
];

/// What a part is.
pub(super) enum Part {
    Const(Value),
    Var(Var),
    /// A variable of the program.
    Local(usize),
    /// The element of a list that a predicate looks at, its place, and what was made of those before.
    Item,
    Index,
    Acc,
    Negate(Box<Node>),
    Plus(Box<Node>),
    Not(Box<Node>),
    Binary(Binary, Box<[Node; 2]>),
    /// Matches a pattern that is written out.
    Matches(Box<Node>, Box<GoRegex>),
    And(Vec<Node>),
    Or(Vec<Node>),
    Coalesce(Box<[Node; 2]>),
    Cond(Box<[Node; 3]>),
    Member {
        of: Box<Node>,
        key: Box<Node>,
        optional: bool,
    },
    Slice {
        of: Box<Node>,
        from: Option<Box<Node>>,
        to: Option<Box<Node>>,
    },
    /// Nil where an optional member within has nothing to be a member of.
    Chain(Box<Node>),
    Method {
        of: Box<Node>,
        name: String,
        args: Vec<Node>,
    },
    Call(&'static Builtin, Vec<Node>),
    /// The value of an environment variable.
    Env(Vec<Node>),
    /// A function that nobody knows.
    Unknown(Vec<Node>),
    Over {
        over: Over,
        list: Box<Node>,
        predicate: Option<Box<Node>>,
        last: Option<Box<Node>>,
    },
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    Let {
        slot: usize,
        value: Box<Node>,
        then: Box<Node>,
    },
    Sequence(Vec<Node>),
}

/// Reads a program: its tree, and how many variables it has.
pub(super) fn parse(text: &str) -> Result<(Node, usize), Refused> {
    let tokens = token::tokens(text)?;
    let mut parser = Parser { tokens, at: 0, nodes: 0, depth: 0, predicates: 0, locals: Vec::new(), slots: 0 };
    let root = parser.sequence()?;
    match parser.token() {
        Token::End => Ok((root, parser.slots)),
        _ => Err(parser.unexpected()),
    }
}

struct Parser {
    tokens: Vec<Placed>,
    at: usize,
    nodes: usize,
    /// How deep reading is in itself.
    depth: u32,
    /// How many predicates are around.
    predicates: u32,
    locals: Vec<(String, usize)>,
    slots: usize,
}

type Parsed = Result<Node, Refused>;

/// The precedence of an operator.
fn precedence(operator: &str) -> Option<u32> {
    Some(match operator {
        "|" => 0,
        "or" | "||" => 10,
        "and" | "&&" => 15,
        "==" | "!=" | "<" | ">" | ">=" | "<=" | "in" | "matches" | "contains" | "startsWith" | "endsWith" => 20,
        ".." => 25,
        "+" | "-" => 30,
        "*" | "/" | "%" => 60,
        "**" | "^" => 100,
        "??" => 500,
        _ => return None,
    })
}

fn binary(operator: &str) -> Option<Binary> {
    use Binary::*;
    Some(match operator {
        "==" => Equal,
        "!=" => NotEqual,
        "<" => Less,
        ">" => More,
        "<=" => LessOrEqual,
        ">=" => MoreOrEqual,
        "in" => In,
        "matches" => Matches,
        "contains" => Contains,
        "startsWith" => StartsWith,
        "endsWith" => EndsWith,
        ".." => Range,
        "+" => Add,
        "-" => Subtract,
        "*" => Multiply,
        "/" => Divide,
        "%" => Modulo,
        "**" | "^" => Power,
        _ => return None,
    })
}

fn is_comparison(operator: &str) -> bool {
    matches!(operator, "<" | ">" | ">=" | "<=")
}

impl Part {
    fn depth(&self) -> u32 {
        let all = |nodes: &[Node]| nodes.iter().map(|node| node.depth).max().unwrap_or(0);
        let one = |node: &Option<Box<Node>>| node.as_ref().map_or(0, |node| node.depth);
        match self {
            Part::Const(_) | Part::Var(_) | Part::Local(_) | Part::Item | Part::Index | Part::Acc => 0,
            Part::Negate(node) | Part::Plus(node) | Part::Not(node) | Part::Chain(node) => node.depth,
            Part::Matches(node, _) => node.depth,
            Part::Binary(_, nodes) | Part::Coalesce(nodes) => all(&nodes[..]),
            Part::Cond(nodes) => all(&nodes[..]),
            Part::And(nodes) | Part::Or(nodes) | Part::List(nodes) | Part::Sequence(nodes) => all(nodes),
            Part::Call(_, nodes) | Part::Env(nodes) | Part::Unknown(nodes) => all(nodes),
            Part::Member { of, key, .. } => of.depth.max(key.depth),
            Part::Slice { of, from, to } => of.depth.max(one(from)).max(one(to)),
            Part::Method { of, args, .. } => of.depth.max(all(args)),
            Part::Over { list, predicate, last, .. } => list.depth.max(one(predicate)).max(one(last)),
            Part::Map(pairs) => pairs.iter().map(|(key, value)| key.depth.max(value.depth)).max().unwrap_or(0),
            Part::Let { value, then, .. } => value.depth.max(then.depth),
        }
    }
}

impl Parser {
    fn token(&self) -> &Token {
        &self.tokens[self.at].0
    }

    fn place(&self) -> u32 {
        self.tokens[self.at].1
    }

    fn unexpected(&self) -> Refused {
        (self.place(), format!("unexpected token {}", self.token().shown()))
    }

    fn next(&mut self) {
        self.at = (self.at + 1).min(self.tokens.len() - 1);
    }

    fn is_operator(&self, operator: &str) -> bool {
        self.token().is_operator(operator)
    }

    fn is_bracket(&self, bracket: char) -> bool {
        self.token().is_bracket(bracket)
    }

    fn accept_operator(&mut self, operator: &str) -> bool {
        let is = self.is_operator(operator);
        if is {
            self.next();
        }
        is
    }

    fn expect_operator(&mut self, operator: &str) -> Result<(), Refused> {
        if self.accept_operator(operator) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn expect_bracket(&mut self, bracket: char) -> Result<(), Refused> {
        if !self.is_bracket(bracket) {
            return Err(self.unexpected());
        }
        self.next();
        Ok(())
    }

    fn identifier(&mut self) -> Result<(String, u32), Refused> {
        let place = self.place();
        let Token::Identifier(name) = self.token() else { return Err(self.unexpected()) };
        let name = name.clone();
        self.next();
        Ok((name, place))
    }

    fn node(&mut self, part: Part, at: u32) -> Parsed {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err((at, "compilation failed: expression exceeds maximum allowed nodes".to_owned()));
        }
        let depth = part.depth() + 1;
        if depth > DEPTH_MAX {
            return Err((at, format!("an expression nests at most {DEPTH_MAX} deep")));
        }
        Ok(Node { part, at, depth })
    }

    /// Reads something that may be within itself.
    fn deeper(&mut self, read: impl FnOnce(&mut Self) -> Parsed) -> Parsed {
        if self.depth >= DEPTH_MAX {
            return Err((self.place(), format!("an expression nests at most {DEPTH_MAX} deep")));
        }
        self.depth += 1;
        let node = read(self);
        self.depth -= 1;
        node
    }

    fn sequence(&mut self) -> Parsed {
        let first = self.expression(0)?;
        let at = first.at;
        let mut nodes = vec![first];
        while self.accept_operator(";") {
            if *self.token() == Token::End {
                break;
            }
            nodes.push(self.expression(0)?);
        }
        match nodes.pop() {
            Some(only) if nodes.is_empty() => Ok(only),
            last => {
                nodes.extend(last);
                self.node(Part::Sequence(nodes), at)
            }
        }
    }

    fn expression(&mut self, least: u32) -> Parsed {
        self.deeper(|parser| parser.expression_here(least))
    }

    fn expression_here(&mut self, least: u32) -> Parsed {
        if least == 0 && self.is_operator("let") {
            return self.variable();
        }
        if least == 0 && self.is_operator("if") {
            return self.conditional_if();
        }
        let mut left = self.primary()?;
        let mut before = String::new();
        while let Token::Operator(operator) = self.token() {
            let (mut operator, mut place) = (operator.clone(), self.place());
            let negated = (operator == "not").then_some(place);
            if negated.is_some() {
                let back = self.at;
                self.next();
                let Token::Operator(next) = self.token() else { return Err(self.unexpected()) };
                if !matches!(&**next, "contains" | "matches" | "startsWith" | "endsWith" | "in") {
                    return Err(self.unexpected());
                }
                (operator, place) = (next.clone(), self.place());
                if precedence(&operator).is_none_or(|precedence| precedence < least) {
                    self.at = back;
                    break;
                }
            }
            let Some(own) = precedence(&operator).filter(|own| *own >= least) else { break };
            self.next();
            if operator == "|" {
                let (name, at) = self.identifier()?;
                left = self.call(name, at, vec![left])?;
                before = operator;
                continue;
            }
            if before == "??" && operator != "??" {
                return Err((
                    place,
                    format!(
                        "Operator ({operator}) and coalesce expressions (??) cannot be mixed. Wrap either by parentheses."
                    ),
                ));
            }
            left = if is_comparison(&operator) {
                self.comparison(left, operator.clone(), place, own)?
            } else {
                let right = self.expression(if own == 100 { own } else { own + 1 })?;
                let part = match &*operator {
                    "and" | "&&" => joined(left, right, true),
                    "or" | "||" => joined(left, right, false),
                    "??" => Part::Coalesce(Box::new([left, right])),
                    other => match binary(other) {
                        Some(binary) => Part::Binary(binary, Box::new([left, right])),
                        None => return Err(self.unexpected()),
                    },
                };
                self.node(part, place)?
            };
            if let Some(at) = negated {
                left = self.node(Part::Not(Box::new(left)), at)?;
            }
            before = operator;
        }
        if least == 0 {
            left = self.ternary(left)?;
        }
        Ok(left)
    }

    /// Reads `a < b`, and `a < b < c`, which means that both hold.
    fn comparison(&mut self, left: Node, operator: String, place: u32, own: u32) -> Parsed {
        let start = self.at;
        let right = self.expression(own + 1)?;
        let compare = |operator: &str| binary(operator).unwrap_or(Binary::Less);
        let mut node = self.node(Part::Binary(compare(&operator), Box::new([left, right])), place)?;
        let mut middle = start;
        while let Token::Operator(next) = self.token() {
            if !is_comparison(next) {
                break;
            }
            let (next, place) = (next.clone(), self.place());
            // What stands between is read once more, for the second comparison.
            let operator_at = self.at;
            self.at = middle;
            let again = self.expression(own + 1)?;
            self.at = operator_at + 1;
            middle = self.at;
            let right = self.expression(own + 1)?;
            let second = self.node(Part::Binary(compare(&next), Box::new([again, right])), place)?;
            node = self.node(joined(node, second, true), place)?;
        }
        Ok(node)
    }

    fn variable(&mut self) -> Parsed {
        self.next();
        let (name, at) = self.identifier()?;
        self.expect_operator("=")?;
        let value = self.expression(0)?;
        self.expect_operator(";")?;
        let slot = self.slots;
        self.slots += 1;
        self.locals.push((name, slot));
        let then = self.sequence();
        self.locals.pop();
        self.node(Part::Let { slot, value: Box::new(value), then: Box::new(then?) }, at)
    }

    fn conditional_if(&mut self) -> Parsed {
        let at = self.place();
        self.next();
        let condition = self.expression(0)?;
        self.expect_bracket('{')?;
        let then = self.sequence()?;
        self.expect_bracket('}')?;
        self.expect_operator("else")?;
        let other = if self.is_operator("if") {
            self.deeper(Self::conditional_if)?
        } else {
            self.expect_bracket('{')?;
            let other = self.sequence()?;
            self.expect_bracket('}')?;
            other
        };
        self.node(Part::Cond(Box::new([condition, then, other])), at)
    }

    fn ternary(&mut self, mut node: Node) -> Parsed {
        while self.accept_operator("?") {
            if self.accept_operator(":") {
                // The value itself, if it holds.
                let slot = self.slots;
                self.slots += 1;
                let at = node.at;
                let other = self.expression(0)?;
                let (test, then) = (self.node(Part::Local(slot), at)?, self.node(Part::Local(slot), at)?);
                let cond = self.node(Part::Cond(Box::new([test, then, other])), self.place())?;
                node = self.node(Part::Let { slot, value: Box::new(node), then: Box::new(cond) }, at)?;
                continue;
            }
            let then = self.expression(0)?;
            self.expect_operator(":")?;
            let other = self.expression(0)?;
            let at = self.place();
            node = self.node(Part::Cond(Box::new([node, then, other])), at)?;
        }
        Ok(node)
    }

    fn primary(&mut self) -> Parsed {
        let at = self.place();
        if let Token::Operator(operator) = self.token() {
            let least = match &**operator {
                "not" | "!" => Some(50),
                "-" | "+" => Some(90),
                _ => None,
            };
            if let Some(least) = least {
                let operator = operator.clone();
                self.next();
                let node = Box::new(self.expression(least)?);
                let part = match &*operator {
                    "-" => Part::Negate(node),
                    "+" => Part::Plus(node),
                    _ => Part::Not(node),
                };
                let node = self.node(part, at)?;
                return self.postfix(node);
            }
        }
        if self.is_bracket('(') {
            self.next();
            let node = self.sequence()?;
            self.expect_bracket(')')?;
            return self.postfix(node);
        }
        if self.predicates > 0 && (self.is_operator("#") || self.is_operator(".")) {
            let mut part = Part::Item;
            if self.accept_operator("#")
                && let Token::Identifier(name) = self.token()
            {
                part = match &**name {
                    "index" => Part::Index,
                    "acc" => Part::Acc,
                    name => return Err((at, format!("unknown pointer #{name}"))),
                };
                self.next();
            }
            let node = self.node(part, at)?;
            return self.postfix(node);
        }
        if self.accept_operator("::") {
            let (name, at) = self.identifier()?;
            let node = self.call(name, at, Vec::new())?;
            return self.postfix(node);
        }
        self.secondary()
    }

    fn secondary(&mut self) -> Parsed {
        let at = self.place();
        let node = match self.token().clone() {
            Token::Identifier(name) => {
                self.next();
                let word = match &*name {
                    "true" => Some(Value::Bool(true)),
                    "false" => Some(Value::Bool(false)),
                    "nil" => Some(Value::Null),
                    _ => None,
                };
                if let Some(value) = word {
                    // These take no postfix.
                    return self.node(Part::Const(value), at);
                }
                if self.is_bracket('(') {
                    self.call(name, at, Vec::new())?
                } else {
                    let local = self.locals.iter().rev().find(|(known, _)| *known == name);
                    let part = match (local, &*name) {
                        (Some((_, slot)), _) => Part::Local(*slot),
                        (None, "body" | "$") => Part::Var(Var::Body),
                        (None, "attributes") => Part::Var(Var::Attributes),
                        (None, "resource") => Part::Var(Var::Resource),
                        (None, "timestamp") => Part::Var(Var::Timestamp),
                        _ => Part::Var(Var::Unknown),
                    };
                    self.node(part, at)?
                }
            }
            Token::Number(text) => {
                self.next();
                let value = number(&text).map_err(|message| (self.place(), message))?;
                return self.node(Part::Const(value), at);
            }
            Token::Str(text) => {
                self.next();
                self.node(Part::Const(Value::Str(text)), at)?
            }
            Token::Bytes(text) => {
                self.next();
                self.node(Part::Const(Value::Bytes(text.bytes().clone())), at)?
            }
            Token::Bracket('[') => {
                self.next();
                let nodes = self.listed(']')?;
                self.node(Part::List(nodes), at)?
            }
            Token::Bracket('{') => self.map()?,
            _ => return Err(self.unexpected()),
        };
        self.postfix(node)
    }

    /// Reads expressions up to a bracket, and that.
    fn listed(&mut self, end: char) -> Result<Vec<Node>, Refused> {
        let mut nodes = Vec::new();
        while !self.is_bracket(end) {
            if !nodes.is_empty() {
                self.expect_operator(",")?;
                if self.is_bracket(end) {
                    break;
                }
            }
            nodes.push(self.expression(0)?);
        }
        self.expect_bracket(end)?;
        Ok(nodes)
    }

    fn map(&mut self) -> Parsed {
        let at = self.place();
        self.next();
        let mut pairs = Vec::new();
        while !self.is_bracket('}') {
            if !pairs.is_empty() {
                self.expect_operator(",")?;
                if self.is_bracket('}') {
                    break;
                }
            }
            let place = self.place();
            let name = match self.token() {
                Token::Identifier(name) | Token::Number(name) => Some(Text::from(&**name)),
                Token::Str(text) => Some(text.clone()),
                _ => None,
            };
            let key = match name {
                Some(name) => {
                    self.next();
                    self.node(Part::Const(Value::Str(name)), place)?
                }
                None if self.is_bracket('(') => self.expression(0)?,
                None => {
                    return Err((
                        place,
                        format!(
                            "a map key must be a quoted string, a number, a identifier, or an expression enclosed in parentheses (unexpected token {})",
                            self.token().shown()
                        ),
                    ));
                }
            };
            self.expect_operator(":")?;
            pairs.push((key, self.expression(0)?));
        }
        self.expect_bracket('}')?;
        self.node(Part::Map(pairs), at)
    }

    fn call(&mut self, name: String, at: u32, mut args: Vec<Node>) -> Parsed {
        let over = OVERS.iter().find(|(known, ..)| *known == name);
        if let Some((_, over, bare, more)) = over {
            return self.over(*over, *bare, *more, at, args);
        }
        self.expect_bracket('(')?;
        args.extend(self.listed(')')?);
        let part = match functions::named(&name) {
            Some(builtin) => Part::Call(builtin, args),
            None if matches!(&*name, "env" | "os_env_func") => Part::Env(args),
            None => Part::Unknown(args),
        };
        self.node(part, at)
    }

    fn over(&mut self, over: Over, bare: bool, more: bool, at: u32, args: Vec<Node>) -> Parsed {
        self.expect_bracket('(')?;
        let wanted = 2 - args.len();
        let too_few = |parser: &Self| (parser.place(), format!("expected at least {wanted} arguments"));
        let mut first = true;
        let list = match args.into_iter().next() {
            Some(list) => list,
            None if self.is_bracket(')') => return Err(too_few(self)),
            None => {
                first = false;
                self.expression(0)?
            }
        };
        let mut predicate = None;
        if !self.is_bracket(')') {
            if !first {
                self.expect_operator(",")?;
            }
            predicate = Some(Box::new(self.predicate()?));
        } else if !bare {
            return Err(too_few(self));
        }
        let mut last = None;
        if more && self.is_operator(",") {
            self.next();
            if !self.is_bracket(')') {
                last = Some(Box::new(self.expression(0)?));
            }
        }
        self.accept_operator(",");
        self.expect_bracket(')')?;
        self.node(Part::Over { over, list: Box::new(list), predicate, last }, at)
    }

    fn predicate(&mut self) -> Parsed {
        let braced = self.is_bracket('{');
        if braced {
            self.next();
        }
        self.predicates += 1;
        let node = if braced { self.sequence() } else { self.expression(0) };
        self.predicates -= 1;
        let node = node?;
        if braced {
            self.expect_bracket('}')?;
        } else if self.is_operator(";") {
            return Err((self.place(), "wrap predicate with brackets { and }".to_owned()));
        }
        Ok(node)
    }

    fn postfix(&mut self, mut node: Node) -> Parsed {
        loop {
            let place = self.place();
            let optional = self.is_operator("?.");
            if optional || self.is_operator(".") {
                self.next();
                if optional && self.is_bracket('[') {
                    node = self.index(node, place, true)?;
                    continue;
                }
                let at = self.place();
                let name = match self.token() {
                    Token::Identifier(name) => name.clone(),
                    Token::Operator(name) if name.starts_with(is_alphabetic) => name.clone(),
                    Token::End => return Err((at, "unexpected end of expression".to_owned())),
                    _ => return Err((at, "expected name".to_owned())),
                };
                self.next();
                // A chain goes on where it stood.
                let (of, is_chain) = match node {
                    Node { part: Part::Chain(of), .. } => (*of, true),
                    other => (other, false),
                };
                let part = if self.is_bracket('(') {
                    self.next();
                    let args = self.listed(')')?;
                    Part::Method { of: Box::new(of), name, args }
                } else {
                    let key = self.node(Part::Const(Value::str(name)), at)?;
                    Part::Member { of: Box::new(of), key: Box::new(key), optional }
                };
                node = self.node(part, at)?;
                if is_chain || optional {
                    node = self.node(Part::Chain(Box::new(node)), at)?;
                }
            } else if self.is_bracket('[') {
                node = self.index(node, place, false)?;
            } else {
                return Ok(node);
            }
        }
    }

    /// Reads `[key]` or `[from:to]`.
    fn index(&mut self, of: Node, place: u32, optional: bool) -> Parsed {
        self.next();
        let mut from = None;
        if !self.is_operator(":") {
            from = Some(Box::new(self.expression(0)?));
        }
        if self.accept_operator(":") {
            let mut to = None;
            if !self.is_bracket(']') {
                to = Some(Box::new(self.expression(0)?));
            }
            let node = self.node(Part::Slice { of: Box::new(of), from, to }, place)?;
            self.expect_bracket(']')?;
            return Ok(node);
        }
        let Some(key) = from else { return Err(self.unexpected()) };
        let mut node = self.node(Part::Member { of: Box::new(of), key, optional }, place)?;
        if optional {
            node = self.node(Part::Chain(Box::new(node)), place)?;
        }
        self.expect_bracket(']')?;
        Ok(node)
    }
}

/// Joins conditions to one.
fn joined(left: Node, right: Node, all: bool) -> Part {
    match (left.part, all) {
        (Part::And(mut nodes), true) => {
            nodes.push(right);
            Part::And(nodes)
        }
        (Part::Or(mut nodes), false) => {
            nodes.push(right);
            Part::Or(nodes)
        }
        (part, all) => {
            let nodes = vec![Node::moved(part, left.at), right];
            if all { Part::And(nodes) } else { Part::Or(nodes) }
        }
    }
}

fn number(text: &str) -> Result<Value, String> {
    let plain = text.replace('_', "");
    let lower = plain.to_ascii_lowercase();
    let whole = |digits: &str, radix: u32, kind: &str| {
        i64::from_str_radix(digits, radix)
            .map(Value::Int)
            .map_err(|_| format!("invalid {kind} literal: strconv.ParseInt: parsing {plain:?}: value out of range"))
    };
    if let Some(digits) = lower.strip_prefix("0x") {
        whole(digits, 16, "hex")
    } else if lower.contains(['.', 'e']) {
        match lower.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Value::Float(number)),
            _ => Err(format!("invalid float literal: strconv.ParseFloat: parsing {plain:?}: invalid syntax")),
        }
    } else if let Some(digits) = lower.strip_prefix("0b") {
        whole(digits, 2, "binary")
    } else if let Some(digits) = lower.strip_prefix("0o") {
        whole(digits, 8, "octal")
    } else {
        whole(&lower, 10, "integer")
    }
}
