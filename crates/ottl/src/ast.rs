//! Statements as they are written.

use std::fmt;

use crate::value::hex;

/// A place in a statement, in bytes from its start.
pub(crate) type At = usize;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Statement {
    pub(crate) editor: Call,
    pub(crate) condition: Option<Cond>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Call {
    pub(crate) at: At,
    pub(crate) name: String,
    pub(crate) args: Vec<Arg>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Arg {
    pub(crate) at: At,
    pub(crate) name: Option<String>,
    pub(crate) value: Expr,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Expr {
    pub(crate) at: At,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    Nil,
    Bool(bool),
    Text(Vec<u8>),
    Bytes(Vec<u8>),
    Int(i64),
    Float(f64),
    /// A name that begins with a capital: an enum, or a function that is referred to.
    Symbol(String),
    Path(Path),
    Call(Call, Vec<Key>),
    Math(char, Box<Expr>, Box<Expr>),
    Negative(Box<Expr>),
    List(Vec<Expr>),
    Map(Vec<(Vec<u8>, Expr)>),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Path {
    pub(crate) at: At,
    pub(crate) fields: Vec<Field>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Field {
    pub(crate) at: At,
    pub(crate) name: String,
    pub(crate) keys: Vec<Key>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Key {
    pub(crate) at: At,
    pub(crate) value: Expr,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cond {
    Const(bool),
    Compare(&'static str, Expr, Expr),
    Converter(Expr),
    Not(Box<Cond>),
    And(Vec<Cond>),
    Or(Vec<Cond>),
}

/// What an expression, or all of a statement, refers to.
pub(crate) trait Visitor {
    fn path(&mut self, path: &Path);
    fn function(&mut self, call: &Call);
    fn symbol(&mut self, at: At, name: &str);
}

impl Statement {
    pub(crate) fn visit(&self, visitor: &mut dyn Visitor) {
        self.editor.visit(visitor);
        if let Some(condition) = &self.condition {
            condition.visit(visitor);
        }
    }
}

impl Call {
    fn visit(&self, visitor: &mut dyn Visitor) {
        visitor.function(self);
        for arg in &self.args {
            arg.value.visit(visitor);
        }
    }
}

impl Expr {
    pub(crate) fn visit(&self, visitor: &mut dyn Visitor) {
        let keys = |keys: &[Key], visitor: &mut dyn Visitor| keys.iter().for_each(|key| key.value.visit(visitor));
        match &self.kind {
            Kind::Nil | Kind::Bool(_) | Kind::Text(_) | Kind::Bytes(_) | Kind::Int(_) | Kind::Float(_) => {}
            Kind::Symbol(name) => visitor.symbol(self.at, name),
            Kind::Path(path) => {
                visitor.path(path);
                path.fields.iter().for_each(|field| keys(&field.keys, visitor));
            }
            Kind::Call(call, indexes) => {
                call.visit(visitor);
                keys(indexes, visitor);
            }
            Kind::Math(_, left, right) => {
                left.visit(visitor);
                right.visit(visitor);
            }
            Kind::Negative(value) => value.visit(visitor),
            Kind::List(values) => values.iter().for_each(|value| value.visit(visitor)),
            Kind::Map(pairs) => pairs.iter().for_each(|(_, value)| value.visit(visitor)),
        }
    }
}

impl Cond {
    pub(crate) fn visit(&self, visitor: &mut dyn Visitor) {
        match self {
            Cond::Const(_) => {}
            Cond::Compare(_, left, right) => {
                left.visit(visitor);
                right.visit(visitor);
            }
            Cond::Converter(value) => value.visit(visitor),
            Cond::Not(inner) => inner.visit(visitor),
            Cond::And(all) | Cond::Or(all) => all.iter().for_each(|one| one.visit(visitor)),
        }
    }
}

fn write_text(text: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("\"")?;
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' | '\\' => write!(f, "\\{character}")?,
                character if u32::from(character) < 0x20 => write!(f, "\\x{:02x}", u32::from(character))?,
                character => write!(f, "{character}")?,
            }
        }
        for byte in chunk.invalid() {
            write!(f, "\\x{byte:02x}")?;
        }
    }
    f.write_str("\"")
}

fn join<T: fmt::Display>(items: &[T], between: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            f.write_str(between)?;
        }
        write!(f, "{item}")?;
    }
    Ok(())
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.editor)?;
        match &self.condition {
            Some(condition) => write!(f, " where {condition}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.name)?;
        join(&self.args, ", ", f)?;
        f.write_str(")")
    }
}

impl fmt::Display for Arg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(f, "{name} = ")?;
        }
        write!(f, "{}", self.value)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}]", self.value)
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        join(&self.keys, "", f)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        join(&self.fields, ".", f)
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Nil => f.write_str("nil"),
            Kind::Bool(value) => write!(f, "{value}"),
            Kind::Text(text) => write_text(text, f),
            Kind::Bytes(bytes) => write!(f, "0x{}", hex(bytes)),
            Kind::Int(value) => write!(f, "{value}"),
            Kind::Float(value) => {
                // There is always a point, and never a number in front of the exponent without one.
                let text = format!("{value:e}");
                let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
                let point = if digits.contains('.') { "" } else { "." };
                write!(f, "{digits}{point}e{exponent}")
            }
            Kind::Symbol(name) => f.write_str(name),
            Kind::Path(path) => write!(f, "{path}"),
            Kind::Call(call, keys) => {
                write!(f, "{call}")?;
                join(keys, "", f)
            }
            Kind::Math(sign, left, right) => write!(f, "({left} {sign} {right})"),
            Kind::Negative(value) => write!(f, "(-{value})"),
            Kind::List(values) => {
                f.write_str("[")?;
                join(values, ", ", f)?;
                f.write_str("]")
            }
            Kind::Map(pairs) => {
                f.write_str("{")?;
                for (at, (key, value)) in pairs.iter().enumerate() {
                    if at > 0 {
                        f.write_str(", ")?;
                    }
                    write_text(key, f)?;
                    write!(f, ": {value}")?;
                }
                f.write_str("}")
            }
        }
    }
}

impl fmt::Display for Cond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cond::Const(value) => write!(f, "{value}"),
            Cond::Compare(sign, left, right) => write!(f, "{left} {sign} {right}"),
            Cond::Converter(value) => write!(f, "{value}"),
            Cond::Not(inner) => match **inner {
                Cond::Const(_) | Cond::Compare(..) | Cond::Converter(_) => write!(f, "not {inner}"),
                _ => write!(f, "not ({inner})"),
            },
            Cond::And(all) => {
                for (at, one) in all.iter().enumerate() {
                    let and = if at > 0 { " and " } else { "" };
                    match one {
                        Cond::And(_) | Cond::Or(_) => write!(f, "{and}({one})")?,
                        _ => write!(f, "{and}{one}")?,
                    }
                }
                Ok(())
            }
            Cond::Or(all) => {
                for (at, one) in all.iter().enumerate() {
                    let or = if at > 0 { " or " } else { "" };
                    match one {
                        Cond::Or(_) => write!(f, "{or}({one})")?,
                        _ => write!(f, "{or}{one}")?,
                    }
                }
                Ok(())
            }
        }
    }
}
