//! XPath 1.0.

use super::tree::{Place, Tree, What};

/// How deep expressions may nest.
const NESTING_MAX: usize = 64;
/// How many steps an evaluation takes at most.
const STEPS_MAX: usize = 5_000_000;

/// A compiled expression.
#[derive(Debug)]
pub(crate) struct XPath(Expr);

#[derive(Debug)]
enum Expr {
    Binary(&'static str, Box<Expr>, Box<Expr>),
    Negative(Box<Expr>),
    Text(String),
    Number(f64),
    Call(Function, Vec<Expr>),
    /// What a path begins with, conditions that it has to meet, and the steps from there.
    Path(Start, Vec<Step>),
}

#[derive(Debug)]
enum Start {
    Root,
    Here,
    Of(Box<Expr>, Vec<Expr>),
}

#[derive(Debug)]
struct Step {
    axis: Axis,
    test: Test,
    conditions: Vec<Expr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Axis {
    Ancestor,
    AncestorOrSelf,
    Attribute,
    Child,
    Descendant,
    DescendantOrSelf,
    Following,
    FollowingSibling,
    Parent,
    Preceding,
    PrecedingSibling,
    Myself,
}

const AXES: &[(&str, Axis)] = &[
    ("ancestor", Axis::Ancestor),
    ("ancestor-or-self", Axis::AncestorOrSelf),
    ("attribute", Axis::Attribute),
    ("child", Axis::Child),
    ("descendant", Axis::Descendant),
    ("descendant-or-self", Axis::DescendantOrSelf),
    ("following", Axis::Following),
    ("following-sibling", Axis::FollowingSibling),
    ("parent", Axis::Parent),
    ("preceding", Axis::Preceding),
    ("preceding-sibling", Axis::PrecedingSibling),
    ("self", Axis::Myself),
];

#[derive(Debug)]
enum Test {
    Node,
    Text,
    Comment,
    /// Any element or attribute; of a prefix if there is one.
    Any(String),
    Name {
        prefix: String,
        local: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    Boolean,
    Ceiling,
    Concat,
    Contains,
    Count,
    EndsWith,
    False,
    Floor,
    Last,
    LocalName,
    LowerCase,
    Name,
    NormalizeSpace,
    Not,
    Number,
    Position,
    Round,
    StartsWith,
    String,
    StringLength,
    Substring,
    SubstringAfter,
    SubstringBefore,
    Sum,
    Translate,
    True,
}

/// The functions, and how many arguments they take at least and at most.
const FUNCTIONS: &[(&str, Function, usize, usize)] = &[
    ("boolean", Function::Boolean, 1, 1),
    ("ceiling", Function::Ceiling, 1, 1),
    ("concat", Function::Concat, 2, 64),
    ("contains", Function::Contains, 2, 2),
    ("count", Function::Count, 1, 1),
    ("ends-with", Function::EndsWith, 2, 2),
    ("false", Function::False, 0, 0),
    ("floor", Function::Floor, 1, 1),
    ("last", Function::Last, 0, 0),
    ("local-name", Function::LocalName, 0, 1),
    ("lower-case", Function::LowerCase, 1, 1),
    ("name", Function::Name, 0, 1),
    ("normalize-space", Function::NormalizeSpace, 0, 1),
    ("not", Function::Not, 1, 1),
    ("number", Function::Number, 0, 1),
    ("position", Function::Position, 0, 0),
    ("round", Function::Round, 1, 1),
    ("starts-with", Function::StartsWith, 2, 2),
    ("string", Function::String, 0, 1),
    ("string-length", Function::StringLength, 0, 1),
    ("substring", Function::Substring, 2, 3),
    ("substring-after", Function::SubstringAfter, 2, 2),
    ("substring-before", Function::SubstringBefore, 2, 2),
    ("sum", Function::Sum, 1, 1),
    ("translate", Function::Translate, 3, 3),
    ("true", Function::True, 0, 0),
];

impl XPath {
    /// Reads an expression.
    pub(crate) fn new(source: &str) -> Result<Self, String> {
        let mut parser = Parser { rest: source, depth: 0 };
        let expr = parser.expr(0)?;
        match parser.rest.trim_start() {
            "" => Ok(XPath(expr)),
            rest => Err(format!("{rest:?} is not expected")),
        }
    }

    /// The places of a document that it leads to, in their order; none if it leads to something else.
    pub(crate) fn select(&self, tree: &Tree) -> Result<Vec<Place>, String> {
        let mut evaluation = Evaluation { tree, steps: 0 };
        match evaluation.expr(&self.0, At { place: Place::ROOT, position: 1, size: 1 })? {
            Found::Places(places) => Ok(places),
            _ => Ok(Vec::new()),
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

/// The operators, the loosest first.
const OPERATORS: &[&[&str]] =
    &[&["or"], &["and"], &["=", "!="], &["<=", "<", ">=", ">"], &["+", "-"], &["*", "div", "mod"], &["|"]];

fn is_name(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '-' | '.')
}

impl<'a> Parser<'a> {
    fn take(&mut self, text: &str) -> bool {
        let rest = self.rest.trim_start();
        let Some(after) = rest.strip_prefix(text) else { return false };
        // A word is not the beginning of a longer one.
        if text.ends_with(char::is_alphabetic) && after.starts_with(is_name) {
            return false;
        }
        self.rest = after;
        true
    }

    fn expect(&mut self, text: &str) -> Result<(), String> {
        if self.take(text) { Ok(()) } else { Err(format!("{text} is expected before {:?}", self.rest)) }
    }

    fn expr(&mut self, level: usize) -> Result<Expr, String> {
        let Some(operators) = OPERATORS.get(level) else { return self.path() };
        if level == 0 {
            self.depth += 1;
            if self.depth > NESTING_MAX {
                return Err(format!("it nests more than {NESTING_MAX} deep"));
            }
        }
        // A sign binds more loosely than a union.
        if *operators == ["|"] && self.take("-") {
            self.depth += 1;
            if self.depth > NESTING_MAX {
                return Err(format!("it nests more than {NESTING_MAX} deep"));
            }
            let negative = Expr::Negative(Box::new(self.expr(level)?));
            self.depth -= 1;
            return Ok(negative);
        }
        let mut left = self.expr(level + 1)?;
        let mut count = 0;
        while let Some(operator) = operators.iter().find(|operator| self.take(operator)) {
            count += 1;
            if count > NESTING_MAX {
                return Err(format!("there are more than {NESTING_MAX} operators"));
            }
            left = Expr::Binary(operator, Box::new(left), Box::new(self.expr(level + 1)?));
        }
        if level == 0 {
            self.depth -= 1;
        }
        Ok(left)
    }

    fn name(&mut self) -> Option<&'a str> {
        let rest = self.rest.trim_start();
        let len = rest.find(|character| !is_name(character)).unwrap_or(rest.len());
        let begins = rest.starts_with(|first: char| first.is_alphabetic() || first == '_');
        if !begins {
            return None;
        }
        self.rest = &rest[len..];
        Some(&rest[..len])
    }

    fn path(&mut self) -> Result<Expr, String> {
        let rest = self.rest.trim_start();
        let mut steps = Vec::new();
        let start = if let Some(after) = rest.strip_prefix('/') {
            if !after.starts_with('/') {
                self.rest = after;
                let begins = |first: char| first.is_alphabetic() || matches!(first, '_' | '*' | '@' | '.');
                if !after.trim_start().starts_with(begins) {
                    return Ok(Expr::Path(Start::Root, steps));
                }
                steps.push(self.step()?);
            }
            Start::Root
        } else if let Some(primary) = self.primary()? {
            let conditions = self.conditions()?;
            if conditions.is_empty() && !self.rest.trim_start().starts_with('/') {
                return Ok(primary);
            }
            Start::Of(Box::new(primary), conditions)
        } else {
            steps.push(self.step()?);
            Start::Here
        };
        loop {
            if self.take("//") {
                steps.push(Step { axis: Axis::DescendantOrSelf, test: Test::Node, conditions: Vec::new() });
            } else if !self.take("/") {
                return Ok(Expr::Path(start, steps));
            }
            if steps.len() > NESTING_MAX {
                return Err(format!("there are more than {NESTING_MAX} steps"));
            }
            steps.push(self.step()?);
        }
    }

    fn primary(&mut self) -> Result<Option<Expr>, String> {
        let rest = self.rest.trim_start();
        if self.take("(") {
            let inner = self.expr(0)?;
            self.expect(")")?;
            return Ok(Some(inner));
        }
        for quote in ['"', '\''] {
            if let Some(text) = rest.strip_prefix(quote) {
                let (text, after) = text.split_once(quote).ok_or("a string is not closed")?;
                self.rest = after;
                return Ok(Some(Expr::Text(text.to_owned())));
            }
        }
        let digits = rest.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(rest.len());
        if let Ok(number) = rest[..digits].parse() {
            self.rest = &rest[digits..];
            return Ok(Some(Expr::Number(number)));
        }
        let before = self.rest;
        if let Some(name) = self.name()
            && self.take("(")
            && !matches!(name, "node" | "text" | "comment" | "processing-instruction")
        {
            return self.call(name).map(Some);
        }
        self.rest = before;
        Ok(None)
    }

    /// A call of a function, behind its opening parenthesis.
    fn call(&mut self, name: &str) -> Result<Expr, String> {
        let known = FUNCTIONS.iter().find(|(known, ..)| *known == name);
        let (_, function, min, max) = known.ok_or_else(|| format!("there is no function {name}"))?;
        let mut arguments = Vec::new();
        if !self.take(")") {
            loop {
                arguments.push(self.expr(0)?);
                if self.take(")") {
                    break;
                }
                self.expect(",")?;
            }
        }
        if !(*min..=*max).contains(&arguments.len()) {
            return Err(format!("{name} does not take {} arguments", arguments.len()));
        }
        Ok(Expr::Call(*function, arguments))
    }

    fn step(&mut self) -> Result<Step, String> {
        if self.take("..") {
            return Ok(Step { axis: Axis::Parent, test: Test::Node, conditions: self.conditions()? });
        }
        if self.take(".") {
            return Ok(Step { axis: Axis::Myself, test: Test::Node, conditions: self.conditions()? });
        }
        let mut axis = Axis::Child;
        if self.take("@") {
            axis = Axis::Attribute;
        } else {
            let before = self.rest;
            match self.name() {
                Some(name) if self.take("::") => {
                    let known = AXES.iter().find(|(known, _)| *known == name);
                    axis = known.ok_or_else(|| format!("there is no axis {name}"))?.1;
                }
                _ => self.rest = before,
            }
        }
        let test = if self.take("*") {
            Test::Any(String::new())
        } else {
            let name = self.name().ok_or_else(|| format!("a step is expected before {:?}", self.rest))?;
            if self.take("(") {
                self.expect(")")?;
                match name {
                    "node" => Test::Node,
                    "text" => Test::Text,
                    "comment" => Test::Comment,
                    _ => return Err(format!("{name}() cannot be looked for")),
                }
            } else if let Some(rest) = self.rest.strip_prefix(':').filter(|rest| !rest.starts_with(':')) {
                self.rest = rest;
                if self.take("*") {
                    Test::Any(name.to_owned())
                } else {
                    let local = self.name().ok_or_else(|| format!("a name is expected before {:?}", self.rest))?;
                    Test::Name { prefix: name.to_owned(), local: local.to_owned() }
                }
            } else {
                Test::Name { prefix: String::new(), local: name.to_owned() }
            }
        };
        Ok(Step { axis, test, conditions: self.conditions()? })
    }

    fn conditions(&mut self) -> Result<Vec<Expr>, String> {
        let mut conditions = Vec::new();
        while self.take("[") {
            if conditions.len() >= NESTING_MAX {
                return Err(format!("there are more than {NESTING_MAX} conditions"));
            }
            conditions.push(self.expr(0)?);
            self.expect("]")?;
        }
        Ok(conditions)
    }
}

/// Where an expression is evaluated: a place, and where it stands among how many.
#[derive(Clone, Copy)]
struct At {
    place: Place,
    position: usize,
    size: usize,
}

#[derive(Debug)]
enum Found {
    /// In the order of the document, each once.
    Places(Vec<Place>),
    Text(String),
    Number(f64),
    Bool(bool),
}

struct Evaluation<'a> {
    tree: &'a Tree,
    steps: usize,
}

fn number(text: &str) -> f64 {
    let text = text.trim();
    let is_number = text.strip_prefix('-').unwrap_or(text).bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if is_number { text.parse().unwrap_or(f64::NAN) } else { f64::NAN }
}

impl Evaluation<'_> {
    fn count(&mut self, steps: usize) -> Result<(), String> {
        self.steps += steps;
        if self.steps > STEPS_MAX {
            return Err(format!("the XPath takes more than {STEPS_MAX} steps"));
        }
        Ok(())
    }

    fn text(&self, found: &Found) -> String {
        match found {
            Found::Places(places) => places.first().map(|place| self.tree.value(*place)).unwrap_or_default(),
            Found::Text(text) => text.clone(),
            Found::Number(number) if number.is_infinite() => {
                if *number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
            }
            Found::Number(number) => number.to_string(),
            Found::Bool(value) => value.to_string(),
        }
    }

    fn number(&self, found: &Found) -> f64 {
        match found {
            Found::Number(number) => *number,
            Found::Bool(value) => f64::from(u8::from(*value)),
            other => number(&self.text(other)),
        }
    }

    fn is_true(found: &Found) -> bool {
        match found {
            Found::Places(places) => !places.is_empty(),
            Found::Text(text) => !text.is_empty(),
            Found::Number(number) => *number != 0.0 && !number.is_nan(),
            Found::Bool(value) => *value,
        }
    }

    fn expr(&mut self, expr: &Expr, at: At) -> Result<Found, String> {
        self.count(1)?;
        Ok(match expr {
            Expr::Text(text) => Found::Text(text.clone()),
            Expr::Number(number) => Found::Number(*number),
            Expr::Negative(inner) => {
                let inner = self.expr(inner, at)?;
                Found::Number(-self.number(&inner))
            }
            Expr::Binary(operator, left, right) => {
                let left = self.expr(left, at)?;
                match *operator {
                    "or" if Self::is_true(&left) => return Ok(Found::Bool(true)),
                    "and" if !Self::is_true(&left) => return Ok(Found::Bool(false)),
                    _ => {}
                }
                let right = self.expr(right, at)?;
                self.binary(operator, left, right)?
            }
            Expr::Call(function, arguments) => {
                let arguments = arguments.iter().map(|argument| self.expr(argument, at));
                let arguments = arguments.collect::<Result<Vec<_>, _>>()?;
                self.call(*function, &arguments, at)
            }
            Expr::Path(start, steps) => {
                let mut places = match start {
                    Start::Root => vec![Place::ROOT],
                    Start::Here => vec![at.place],
                    Start::Of(inner, conditions) => match self.expr(inner, at)? {
                        Found::Places(places) => self.filter(places, conditions)?,
                        _ => return Err("a path cannot begin with what is no part of the document".to_owned()),
                    },
                };
                for step in steps {
                    let mut next = Vec::new();
                    for place in places {
                        let candidates = self.axis(step, place)?;
                        next.extend(self.filter(candidates, &step.conditions)?);
                    }
                    next.sort_unstable();
                    next.dedup();
                    places = next;
                }
                Found::Places(places)
            }
        })
    }

    fn filter(&mut self, mut places: Vec<Place>, conditions: &[Expr]) -> Result<Vec<Place>, String> {
        for condition in conditions {
            let size = places.len();
            let mut kept = Vec::new();
            for (at, place) in places.into_iter().enumerate() {
                let position = at + 1;
                let holds = match self.expr(condition, At { place, position, size })? {
                    Found::Number(number) => number == position as f64,
                    other => Self::is_true(&other),
                };
                if holds {
                    kept.push(place);
                }
            }
            places = kept;
        }
        Ok(places)
    }

    /// What an axis leads to, the nearest first.
    fn axis(&mut self, step: &Step, from: Place) -> Result<Vec<Place>, String> {
        let tree = self.tree;
        let parent = |place: Place| match place {
            Place { part, attribute: 1.. } => Some(Place::of(part)),
            Place { part: 0, .. } => None,
            Place { part, .. } => Some(Place::of(tree.parts[part].parent)),
        };
        let children = |place: Place| match place.attribute {
            0 => tree.parts[place.part].children.as_slice(),
            _ => &[],
        };
        // Between others, texts of nothing but spaces are passed over.
        let is_passed = |part: usize| match &tree.parts[part].what {
            What::Text(text) => text.trim().is_empty(),
            _ => false,
        };
        let siblings = |place: Place| {
            let all = parent(place).filter(|_| place.attribute == 0).map(children).unwrap_or_default();
            let at = all.iter().position(|child| *child == place.part).unwrap_or(0);
            (all, at)
        };
        let mut found = Vec::new();
        let ancestors = |found: &mut Vec<Place>, mut place: Place| {
            while let Some(next) = parent(place) {
                found.push(next);
                place = next;
            }
        };
        match step.axis {
            Axis::Myself => found.push(from),
            Axis::Parent => found.extend(parent(from)),
            Axis::Ancestor => ancestors(&mut found, from),
            Axis::AncestorOrSelf => {
                found.push(from);
                ancestors(&mut found, from);
            }
            Axis::Attribute => {
                if let (What::Element { attributes, .. }, 0) = (&tree.parts[from.part].what, from.attribute) {
                    found.extend((1..=attributes.len()).map(|attribute| Place { part: from.part, attribute }));
                }
            }
            Axis::Child => {
                let all = children(from).iter().enumerate();
                found.extend(all.filter(|(at, part)| *at == 0 || !is_passed(**part)).map(|(_, part)| Place::of(*part)));
            }
            Axis::FollowingSibling => {
                let (all, at) = siblings(from);
                found.extend(all.iter().skip(at + 1).filter(|part| !is_passed(**part)).map(|part| Place::of(*part)));
            }
            Axis::PrecedingSibling => {
                let (all, at) = siblings(from);
                found.extend(
                    all[..at.min(all.len())]
                        .iter()
                        .rev()
                        .filter(|part| !is_passed(**part))
                        .map(|part| Place::of(*part)),
                );
            }
            Axis::Descendant | Axis::DescendantOrSelf => {
                if step.axis == Axis::DescendantOrSelf {
                    found.push(from);
                }
                self.descendants(from, &mut found)?;
            }
            // Parts have their numbers in the order of the document.
            Axis::Following => {
                let mut within = vec![Place::of(from.part)];
                self.descendants(Place::of(from.part), &mut within)?;
                let last = within.iter().map(|place| place.part).max().unwrap_or(from.part);
                found.extend((last + 1..tree.parts.len()).map(Place::of));
            }
            Axis::Preceding => {
                let mut above = Vec::new();
                ancestors(&mut above, from);
                found.extend((1..from.part).rev().map(Place::of).filter(|place| !above.contains(place)));
            }
        }
        self.count(found.len())?;
        found.retain(|place| matches(tree, &step.test, *place));
        Ok(found)
    }

    fn descendants(&mut self, from: Place, found: &mut Vec<Place>) -> Result<(), String> {
        if from.attribute > 0 {
            return Ok(());
        }
        let tree = self.tree;
        let mut open: Vec<usize> = tree.parts[from.part].children.iter().rev().copied().collect();
        while let Some(part) = open.pop() {
            self.count(1)?;
            found.push(Place::of(part));
            open.extend(tree.parts[part].children.iter().rev());
        }
        Ok(())
    }

    fn binary(&mut self, operator: &str, left: Found, right: Found) -> Result<Found, String> {
        Ok(match operator {
            "or" | "and" => Found::Bool(Self::is_true(&right)),
            "|" => match (left, right) {
                (Found::Places(mut places), Found::Places(others)) => {
                    places.extend(others);
                    places.sort_unstable();
                    places.dedup();
                    Found::Places(places)
                }
                _ => return Err("only parts of the document can be united".to_owned()),
            },
            "+" | "-" | "*" | "div" | "mod" => {
                let (a, b) = (self.number(&left), self.number(&right));
                Found::Number(match operator {
                    "+" => a + b,
                    "-" => a - b,
                    "*" => a * b,
                    "div" => a / b,
                    _ => a % b,
                })
            }
            _ => Found::Bool(self.compare(operator, &left, &right)?),
        })
    }

    /// Compares: of parts of the document one is enough.
    fn compare(&mut self, operator: &str, left: &Found, right: &Found) -> Result<bool, String> {
        let each = |found: &Found| match found {
            Found::Places(places) => places.iter().map(|place| Found::Text(self.tree.value(*place))).collect(),
            Found::Text(text) => vec![Found::Text(text.clone())],
            Found::Number(number) => vec![Found::Number(*number)],
            Found::Bool(value) => vec![Found::Bool(*value)],
        };
        let bools = matches!(left, Found::Bool(_)) || matches!(right, Found::Bool(_));
        let (lefts, rights): (Vec<Found>, Vec<Found>) = match bools {
            true => (vec![Found::Bool(Self::is_true(left))], vec![Found::Bool(Self::is_true(right))]),
            false => (each(left), each(right)),
        };
        for a in &lefts {
            self.count(rights.len())?;
            for b in &rights {
                let holds = match (operator, a, b) {
                    ("=" | "!=", Found::Text(a), Found::Text(b)) => (a == b) == (operator == "="),
                    _ => {
                        let (a, b) = (self.number(a), self.number(b));
                        match operator {
                            "=" => a == b,
                            "!=" => a != b,
                            "<" => a < b,
                            "<=" => a <= b,
                            ">" => a > b,
                            _ => a >= b,
                        }
                    }
                };
                if holds {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn call(&self, function: Function, arguments: &[Found], at: At) -> Found {
        let text = |number: usize| match arguments.get(number) {
            Some(found) => self.text(found),
            None => self.tree.value(at.place),
        };
        let of_number = |calculate: fn(f64) -> f64| {
            Found::Number(arguments.first().map_or(f64::NAN, |found| calculate(self.number(found))))
        };
        let name = |with_prefix: bool| {
            let place = match arguments.first() {
                None => Some(at.place),
                Some(Found::Places(places)) => places.first().copied(),
                Some(_) => None,
            };
            let name = place.and_then(|place| match (&self.tree.parts[place.part].what, place.attribute) {
                (What::Element { name, .. }, 0) => Some(name),
                _ => self.tree.attribute(place).map(|(name, _)| name),
            });
            Found::Text(match name {
                Some(name) if with_prefix && !name.prefix.is_empty() => format!("{}:{}", name.prefix, name.local),
                Some(name) => name.local.clone(),
                None => String::new(),
            })
        };
        match function {
            Function::Boolean => Found::Bool(arguments.first().is_some_and(Self::is_true)),
            Function::Not => Found::Bool(!arguments.first().is_some_and(Self::is_true)),
            Function::True => Found::Bool(true),
            Function::False => Found::Bool(false),
            Function::Position => Found::Number(at.position as f64),
            Function::Last => Found::Number(at.size as f64),
            Function::Count => match arguments.first() {
                Some(Found::Places(places)) => Found::Number(places.len() as f64),
                _ => Found::Number(0.0),
            },
            Function::Sum => match arguments.first() {
                Some(Found::Places(places)) => {
                    Found::Number(places.iter().map(|place| number(&self.tree.value(*place))).sum())
                }
                _ => of_number(|number| number),
            },
            Function::Name => name(true),
            Function::LocalName => name(false),
            Function::String => Found::Text(text(0)),
            Function::Number => {
                Found::Number(arguments.first().map_or_else(|| number(&text(0)), |found| self.number(found)))
            }
            Function::Floor => of_number(f64::floor),
            Function::Ceiling => of_number(f64::ceil),
            Function::Round => of_number(|number| (number + 0.5).floor()),
            Function::StringLength => Found::Number(text(0).chars().count() as f64),
            Function::NormalizeSpace => Found::Text(text(0).split_whitespace().collect::<Vec<_>>().join(" ")),
            Function::LowerCase => Found::Text(text(0).to_lowercase()),
            Function::Concat => Found::Text((0..arguments.len()).map(text).collect()),
            Function::Contains => Found::Bool(text(0).contains(&text(1))),
            Function::StartsWith => Found::Bool(text(0).starts_with(&text(1))),
            Function::EndsWith => Found::Bool(text(0).ends_with(&text(1))),
            Function::SubstringBefore => {
                let text_of = text(0);
                Found::Text(text_of.split_once(&text(1)).map(|(before, _)| before.to_owned()).unwrap_or_default())
            }
            Function::SubstringAfter => {
                let text_of = text(0);
                Found::Text(text_of.split_once(&text(1)).map(|(_, after)| after.to_owned()).unwrap_or_default())
            }
            Function::Substring => {
                let round = |number: usize| arguments.get(number).map(|found| (self.number(found) + 0.5).floor());
                let begin = round(1).unwrap_or(f64::NAN);
                let end = round(2).map_or(f64::INFINITY, |len| begin + len);
                let within = |at: usize| (at as f64 + 1.0) >= begin && (at as f64 + 1.0) < end;
                Found::Text(text(0).chars().enumerate().filter(|(at, _)| within(*at)).map(|(_, one)| one).collect())
            }
            Function::Translate => {
                let (from, to): (Vec<char>, Vec<char>) = (text(1).chars().collect(), text(2).chars().collect());
                let translated = text(0)
                    .chars()
                    .filter_map(|one| match from.iter().position(|known| *known == one) {
                        Some(at) => to.get(at).copied(),
                        None => Some(one),
                    })
                    .collect();
                Found::Text(translated)
            }
        }
    }
}

/// Whether a place is what a step looks for.
fn matches(tree: &Tree, test: &Test, place: Place) -> bool {
    let what = &tree.parts[place.part].what;
    let name = match what {
        What::Element { name, .. } if place.attribute == 0 => Some(name),
        _ => tree.attribute(place).map(|(name, _)| name),
    };
    match test {
        Test::Node => true,
        Test::Text => place.attribute == 0 && matches!(what, What::Text(_) | What::Data(_) | What::Directive(_)),
        Test::Comment => place.attribute == 0 && matches!(what, What::Comment(_)),
        Test::Any(prefix) => name.is_some_and(|name| prefix.is_empty() || name.prefix == *prefix),
        Test::Name { prefix, local } => name.is_some_and(|name| name.local == *local && name.prefix == *prefix),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DOCUMENT: &str = r#"<a x="1"><b y="2" z="q">one</b><b>two<!-- note --></b><c><d>3</d><d>4</d> <e/></c></a>"#;

    #[test]
    fn expressions_lead_to_what_they_say() {
        let tree = Tree::read(DOCUMENT).unwrap();
        for (path, expected) in [
            ("/", ""),
            ("/a/b", "<b y=\"2\" z=\"q\">one</b><b>two<!-- note --></b>"),
            ("//b[2]/text()", "two"),
            ("//b[last()]/text()", "two"),
            ("(//d)[1]", "<d>3</d>"),
            ("//d[. > 3]", "<d>4</d>"),
            ("//@y", "2"),
            ("//b/@*", "2q"),
            ("//b[@z = 'q' and not(@x)]/text()", "one"),
            ("//d/../e | //b[position() = 1]/text()", "one<e></e>"),
            ("//d/following-sibling::*", "<d>4</d><e></e>"),
            ("//e/preceding-sibling::d[1]", "<d>4</d>"),
            ("//d[2]/ancestor::*/@x", "1"),
            ("//*[contains(text(), 'w')]/text()", "two"),
            ("//*[count(d) = 2]/d[1]/text()", "3"),
            ("//d[number(.) mod 2 = 1]/text()", "3"),
            ("//b[starts-with(@z, 'q') or string-length(.) = 99]/@z", "q"),
            ("/a/child::c/descendant::d[text() != '3']", "<d>4</d>"),
            ("//*[name() = 'e']", "<e></e>"),
            ("//b[substring(., 1, 2) = 'on']/text()", "one"),
            ("//b[translate(., 'tw', 'T') = 'To']/text()", "two"),
            ("//d[-. = -4]/text()", "4"),
            ("//c/preceding::b[1]/text()", "two"),
            ("//b[1]/following::d[1]/text()", "3"),
            ("count(//b)", ""),
            // In the order of the document, and as they are, also within each other.
            ("//e | //c[d]/d[1] | //c", "<c><d>3</d><d>4</d> <e></e></c><d>3</d><e></e>"),
            ("//d[2]/preceding-sibling::* | //b[2]", "<b>two<!-- note --></b><d>3</d>"),
        ] {
            let places = XPath::new(path).unwrap_or_else(|error| panic!("{path}: {error}")).select(&tree).unwrap();
            assert_eq!(tree.pick(&places).as_deref(), Ok(expected), "{path}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for path in ["", "b[", "//", "/a/", "a b", "nope(1)", "last(1)", "a[1", "'a", "x::y", "a:", "@", "$a", "a["] {
            assert!(XPath::new(path).is_err(), "{path}");
        }
        assert!(XPath::new(&format!("{}a{}", "(".repeat(100_000), ")".repeat(100_000))).is_err());
        assert!(XPath::new(&format!("a{}", "[a".repeat(100_000))).is_err());
        assert!(XPath::new(&"-".repeat(100_000)).is_err());
        assert!(XPath::new(&"a/".repeat(100_000)).is_err());
    }

    #[test]
    fn an_evaluation_takes_only_so_long() {
        let tree = Tree::read(&format!("<a>{}</a>", "<b/>".repeat(5_000))).unwrap();
        let error = XPath::new("//*[//*[//*]]").unwrap().select(&tree).unwrap_err();
        assert!(error.contains("steps"), "{error}");
    }

    proptest! {
        #[test]
        fn no_expression_panics(parts in proptest::collection::vec(prop_oneof![
            Just("/"), Just("//"), Just("a"), Just("b"), Just("*"), Just("@"), Just("["), Just("]"), Just("("), Just(")"),
            Just("1"), Just("-1"), Just("'x'"), Just("="), Just("<"), Just(" and "), Just(" or "), Just("|"), Just("last()"),
            Just("position()"), Just("text()"), Just(".."), Just("."), Just("ancestor::"), Just("preceding-sibling::"),
            Just("preceding::"), Just("following::"), Just("substring(., "), Just(","), Just("count("), Just("é"), Just(":"),
        ], 0..12)) {
            let tree = Tree::read(DOCUMENT).unwrap();
            if let Ok(path) = XPath::new(&parts.concat())
                && let Ok(places) = path.select(&tree)
            {
                prop_assert!(places.is_sorted());
                let _ = tree.pick(&places);
                let mut changed = Tree::read(DOCUMENT).unwrap();
                changed.remove(&places);
                let _ = changed.write_all();
                let mut changed = Tree::read(DOCUMENT).unwrap();
                changed.attributes_to_elements(&places);
                let _ = changed.texts_to_elements(&places, "v");
                let _ = changed.insert(&places, &tree);
                let _ = changed.write_all();
            }
        }
    }
}
